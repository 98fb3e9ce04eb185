"""The JWT bearer grant: RFC 7523 section 2.1."""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.token_request import post_token_request, signed, signing_key

ASSERTION_LIFETIME_SECONDS = 180
"""Short, as RFC 7523 section 3 asks; some providers refuse more than three minutes."""


class JwtBearerGrant(Grant):
    """An assertion we sign buys an access token. No token is sent, so there is no grant that could die."""

    connection_class = "jwt_bearer"
    grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    fields = frozenset(
        {
            *("token_url", "issuer", "subject", "audience", "private_key", "key_id", "algorithm"),
            *("scopes", "body_format"),
            *("probe_url", "probe_method", "refresh_margin", "alert_route", "allow_http"),
        }
    )
    required = ("token_url", "issuer", "private_key")

    def request(self, token: str, now: datetime) -> HttpRequest:
        return post_token_request(
            self.settings,
            {
                "grant_type": self.grant_type,
                "assertion": self._assertion(now),
                "scope": " ".join(self.settings.scopes),
            },
            now,
            authenticate=False,
        )

    def _assertion(self, now: datetime) -> str:
        from authlib.oauth2.rfc7523.assertion import sign_jwt_bearer_assertion

        settings = self.settings
        header = {"kid": settings.key_id} if settings.key_id else {}
        return signed(
            settings,
            lambda: sign_jwt_bearer_assertion(
                signing_key(settings),
                settings.issuer,
                settings.audience or settings.token_url,
                subject=settings.subject or settings.issuer,
                issued_at=int(now.timestamp()),
                expires_in=ASSERTION_LIFETIME_SECONDS,
                alg=settings.algorithm,
                header=header,
            ),
        )
