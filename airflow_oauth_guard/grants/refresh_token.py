"""The refresh token grant: RFC 6749 section 6."""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import CLIENT_FIELDS, COMMON_FIELDS, CONNECT_FIELDS, GRANT_FIELDS
from airflow_oauth_guard.grants.token_request import token_request


class RefreshTokenGrant(Grant):
    """A stored refresh token buys a new access token, from a confidential or a public client.

    With rotation (RFC 9700 section 4.14.2) the answer carries the next refresh token and the one sent is spent.
    """

    connection_class = "refresh_token"
    grant_type = "refresh_token"
    sends = "refresh_token"
    connects = True
    fields = (
        COMMON_FIELDS | CLIENT_FIELDS | GRANT_FIELDS | CONNECT_FIELDS | {"rotation", "rotation_grace", "refresh_token"}
    )
    required = ("token_url", "client_id")

    @property
    def rotates(self) -> bool:
        return self.settings.rotation

    def request(self, token: str, now: datetime) -> HttpRequest:
        return token_request(
            self.settings,
            {
                "grant_type": self.grant_type,
                "refresh_token": token,
                "scope": " ".join(self.settings.scopes),
            },
            now,
        )
