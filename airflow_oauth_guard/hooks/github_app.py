"""The connection class ``github_app``; its rules are in :mod:`airflow_oauth_guard.grants.github_app`."""

from __future__ import annotations

from airflow_oauth_guard.grants.github_app import GithubAppGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class GithubAppHook(OAuthGuardHook):
    conn_type = "oauth_guard_github_app"
    hook_name = "OAuth Guard: github_app"
    grant_class = GithubAppGrant
