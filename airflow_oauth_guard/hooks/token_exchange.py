"""The connection class ``token_exchange``; its rules are in :mod:`airflow_oauth_guard.grants.token_exchange`."""

from __future__ import annotations

from airflow_oauth_guard.grants.token_exchange import TokenExchangeGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class TokenExchangeHook(OAuthGuardHook):
    conn_type = "oauth_guard_token_exchange"
    hook_name = "OAuth Guard: token_exchange"
    grant_class = TokenExchangeGrant
