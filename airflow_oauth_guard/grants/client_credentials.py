"""The client credentials grant: RFC 6749 section 4.4."""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.token_request import post_token_request


class ClientCredentialsGrant(Grant):
    """The client's own credentials buy an access token. No token is sent, so there is no grant that could die."""

    connection_class = "client_credentials"
    grant_type = "client_credentials"
    fields = frozenset(
        {
            *("token_url", "client_id", "client_secret", "client_auth", "private_key", "key_id", "algorithm"),
            *("audience", "scopes", "body_format"),
            *("probe_url", "probe_method", "refresh_margin", "alert_route", "allow_http"),
        }
    )
    required = ("token_url", "client_id")

    def request(self, token: str, now: datetime) -> HttpRequest:
        return post_token_request(
            self.settings, {"grant_type": self.grant_type, "scope": " ".join(self.settings.scopes)}, now
        )
