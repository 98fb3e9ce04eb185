"""The connection class ``client_credentials``; its rules are in :mod:`airflow_oauth_guard.grants.client_credentials`."""

from __future__ import annotations

from airflow_oauth_guard.grants.client_credentials import ClientCredentialsGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class ClientCredentialsHook(OAuthGuardHook):
    conn_type = "oauth_guard_client_credentials"
    hook_name = "OAuth Guard: client_credentials"
    grant_class = ClientCredentialsGrant
