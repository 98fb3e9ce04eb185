"""The connection class ``instagram_refresh``; its rules are in :mod:`airflow_oauth_guard.grants.instagram_refresh`."""

from __future__ import annotations

from airflow_oauth_guard.grants.instagram_refresh import InstagramRefreshGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class InstagramRefreshHook(OAuthGuardHook):
    conn_type = "oauth_guard_instagram_refresh"
    hook_name = "OAuth Guard: instagram_refresh"
    grant_class = InstagramRefreshGrant
