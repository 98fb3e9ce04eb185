"""The connection class ``meta_exchange``; its rules are in :mod:`airflow_oauth_guard.grants.meta_exchange`."""

from __future__ import annotations

from airflow_oauth_guard.grants.meta_exchange import MetaExchangeGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class MetaExchangeHook(OAuthGuardHook):
    conn_type = "oauth_guard_meta_exchange"
    hook_name = "OAuth Guard: meta_exchange"
    grant_class = MetaExchangeGrant
