"""A vendor's own login: one request, described by the provider's preset, whose answer holds a token somewhere."""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import CLIENT_FIELDS, COMMON_FIELDS
from airflow_oauth_guard.grants.token_request import token_request


class TwoStepGrant(Grant):
    """Log in, then work with what the login gave. The preset says what to send and where the token is."""

    connection_class = "two_step"
    grant_type = ""
    rejected_means = Finding.GRANT_DEAD
    fields = COMMON_FIELDS | CLIENT_FIELDS | {"username", "user_password"}
    required = ("provider", "token_url")

    def request(self, token: str, now: datetime) -> HttpRequest:
        return token_request(self.settings, {}, now, authenticate=bool(self.settings.client_id))
