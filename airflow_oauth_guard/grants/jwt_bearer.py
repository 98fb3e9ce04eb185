"""The JWT bearer grant: RFC 7523 section 2.1."""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import CLIENT_FIELDS, COMMON_FIELDS, filled
from airflow_oauth_guard.grants.token_request import (
    assertion_header,
    assertion_seconds,
    signed,
    signing_key,
    token_request,
)

ASSERTION_LIFETIME_SECONDS = 180
"""Short, as RFC 7523 section 3 asks; some providers refuse more than three minutes."""


class JwtBearerGrant(Grant):
    """An assertion we sign buys an access token. No token is sent, so there is no grant that could die."""

    connection_class = "jwt_bearer"
    grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    fields = COMMON_FIELDS | CLIENT_FIELDS | {"issuer", "subject"}
    required = ("token_url", "issuer", "private_key")

    def request(self, token: str, now: datetime) -> HttpRequest:
        return token_request(
            self.settings,
            {
                "grant_type": self.grant_type,
                "assertion": self._assertion(now),
                "scope": "" if "scope" in self.settings.facts.claims else " ".join(self.settings.scopes),
            },
            now,
            authenticate=bool(self.settings.client_id),
        )

    def _assertion(self, now: datetime) -> str:
        from authlib.oauth2.rfc7523.assertion import sign_jwt_bearer_assertion

        settings = self.settings
        claims = {name: filled(text, settings.fillings) for name, text in settings.facts.claims.items()}
        return signed(
            settings,
            lambda: sign_jwt_bearer_assertion(
                signing_key(settings),
                settings.issuer,
                filled(settings.audience, settings.fillings) or settings.token_url,
                subject=settings.subject or settings.issuer,
                issued_at=int(now.timestamp()),
                expires_in=assertion_seconds(settings, ASSERTION_LIFETIME_SECONDS),
                alg=settings.algorithm,
                header=assertion_header(settings),
                claims=claims or None,
            ),
        )
