"""The client credentials grant: RFC 6749 section 4.4."""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import CLIENT_FIELDS, COMMON_FIELDS
from airflow_oauth_guard.grants.token_request import token_request


class ClientCredentialsGrant(Grant):
    """The client's own credentials buy an access token. No token is sent, so there is no grant that could die."""

    connection_class = "client_credentials"
    grant_type = "client_credentials"
    rejected_means = Finding.CLIENT_MISCONFIGURED
    fields = COMMON_FIELDS | CLIENT_FIELDS
    required = ("token_url", "client_id")

    def request(self, token: str, now: datetime) -> HttpRequest:
        return token_request(
            self.settings, {"grant_type": self.grant_type, "scope": " ".join(self.settings.scopes)}, now
        )
