"""Zoom's server-to-server OAuth.

Source: "Server-to-Server OAuth", developers.zoom.us/docs/internal-apps/s2s-oauth.
"""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import CLIENT_FIELDS, COMMON_FIELDS
from airflow_oauth_guard.grants.token_request import token_request


class AccountCredentialsGrant(Grant):
    """The client's own credentials and the account it was installed in buy an access token."""

    connection_class = "account_credentials"
    grant_type = "account_credentials"
    provider = "zoom"
    rejected_means = Finding.CLIENT_MISCONFIGURED
    fields = COMMON_FIELDS | CLIENT_FIELDS | {"account_id"}
    required = ("token_url", "client_id", "account_id")

    def request(self, token: str, now: datetime) -> HttpRequest:
        return token_request(
            self.settings, {"grant_type": self.grant_type, "account_id": self.settings.account_id}, now
        )
