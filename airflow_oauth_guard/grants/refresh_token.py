"""The refresh token grant: RFC 6749 section 6."""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.token_request import post_token_request


class RefreshTokenGrant(Grant):
    """A stored refresh token buys a new access token, from a confidential or a public client.

    With rotation (RFC 9700 section 4.14.2) the answer carries the next refresh token and the one sent is spent.
    """

    connection_class = "refresh_token"
    grant_type = "refresh_token"
    sends = "refresh_token"
    fields = frozenset(
        {
            *("token_url", "client_id", "client_secret", "client_auth", "private_key", "key_id", "algorithm"),
            *("audience", "scopes", "body_format", "rotation", "rotation_grace", "refresh_token", "access_token"),
            *("probe_url", "probe_method", "refresh_margin", "expire_policy", "alert_route", "allow_http"),
        }
    )
    required = ("token_url", "client_id")

    @property
    def rotates(self) -> bool:
        return self.settings.rotation

    def request(self, token: str, now: datetime) -> HttpRequest:
        return post_token_request(
            self.settings,
            {
                "grant_type": self.grant_type,
                "refresh_token": token,
                "scope": " ".join(self.settings.scopes),
            },
            now,
        )
