"""The resource owner password credentials grant: RFC 6749 section 4.3. For providers that offer nothing better."""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import CLIENT_FIELDS, COMMON_FIELDS
from airflow_oauth_guard.grants.token_request import token_request


class PasswordGrant(Grant):
    """A user's name and password buy an access token. The password is the grant (RFC 6749 section 1.3.3); nothing stored could
    be proven dead, so a rejected one is a question to its owner.
    """

    connection_class = "password"
    grant_type = "password"
    rejected_means = Finding.GRANT_DEAD
    fields = COMMON_FIELDS | CLIENT_FIELDS | {"username", "user_password"}
    required = ("token_url", "client_id", "username", "user_password")

    def request(self, token: str, now: datetime) -> HttpRequest:
        settings = self.settings
        return token_request(
            settings,
            {
                "grant_type": self.grant_type,
                "username": settings.username,
                "password": settings.user_password,
                "scope": " ".join(settings.scopes),
            },
            now,
        )
