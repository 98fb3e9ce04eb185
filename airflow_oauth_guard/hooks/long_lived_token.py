"""The connection class ``long_lived_token``; its rules are in :mod:`airflow_oauth_guard.grants.long_lived_token`."""

from __future__ import annotations

from airflow_oauth_guard.grants.long_lived_token import LongLivedTokenGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class LongLivedTokenHook(OAuthGuardHook):
    conn_type = "oauth_guard_long_lived_token"
    hook_name = "OAuth Guard: long_lived_token"
    grant_class = LongLivedTokenGrant
