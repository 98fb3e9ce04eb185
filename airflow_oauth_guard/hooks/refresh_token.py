"""The connection class ``refresh_token``; its rules are in :mod:`airflow_oauth_guard.grants.refresh_token`."""

from __future__ import annotations

from airflow_oauth_guard.grants.refresh_token import RefreshTokenGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class RefreshTokenHook(OAuthGuardHook):
    conn_type = "oauth_guard_refresh_token"
    hook_name = "OAuth Guard: refresh_token"
    grant_class = RefreshTokenGrant
