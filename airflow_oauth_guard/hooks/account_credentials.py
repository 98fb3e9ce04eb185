"""The connection class ``account_credentials``; its rules are in :mod:`airflow_oauth_guard.grants.account_credentials`."""

from __future__ import annotations

from airflow_oauth_guard.grants.account_credentials import AccountCredentialsGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class AccountCredentialsHook(OAuthGuardHook):
    conn_type = "oauth_guard_account_credentials"
    hook_name = "OAuth Guard: account_credentials"
    grant_class = AccountCredentialsGrant
