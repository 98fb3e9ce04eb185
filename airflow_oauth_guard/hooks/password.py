"""The connection class ``password``; its rules are in :mod:`airflow_oauth_guard.grants.password`."""

from __future__ import annotations

from airflow_oauth_guard.grants.password import PasswordGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class PasswordHook(OAuthGuardHook):
    conn_type = "oauth_guard_password"
    hook_name = "OAuth Guard: password"
    grant_class = PasswordGrant
