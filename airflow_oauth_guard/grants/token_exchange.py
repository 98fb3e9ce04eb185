"""Token exchange: RFC 8693. A token of one provider, such as a workload's identity, buys one of another."""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import CLIENT_FIELDS, COMMON_FIELDS
from airflow_oauth_guard.grants.token_request import token_request

DEFAULT_SUBJECT_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105 - RFC 8693 section 3


class TokenExchangeGrant(Grant):
    """The subject token comes from the connection or from a file that the platform keeps fresh, and is not ours to refresh."""

    connection_class = "token_exchange"
    grant_type = "urn:ietf:params:oauth:grant-type:token-exchange"
    fields = COMMON_FIELDS | CLIENT_FIELDS | {"subject_token", "subject_token_file", "subject_token_type"}
    required = ("token_url", "subject_token")

    def request(self, token: str, now: datetime) -> HttpRequest:
        settings = self.settings
        return token_request(
            settings,
            {
                "grant_type": self.grant_type,
                "subject_token": settings.subject_token,
                "subject_token_type": settings.subject_token_type or DEFAULT_SUBJECT_TOKEN_TYPE,
                "audience": settings.audience,
                "scope": " ".join(settings.scopes),
            },
            now,
            authenticate=bool(settings.client_id),
        )
