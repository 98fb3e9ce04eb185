"""The SAML 2.0 bearer assertion grant: RFC 7522 section 2.1."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from datetime import datetime

from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import CLIENT_FIELDS, COMMON_FIELDS
from airflow_oauth_guard.grants.token_request import token_request


class Saml2BearerGrant(Grant):
    """An assertion that an identity provider signed buys an access token. Signing it is that provider's work, not ours."""

    connection_class = "saml2_bearer"
    grant_type = "urn:ietf:params:oauth:grant-type:saml2-bearer"
    fields = COMMON_FIELDS | CLIENT_FIELDS | {"assertion", "assertion_file"}
    required = ("token_url", "assertion")

    def request(self, token: str, now: datetime) -> HttpRequest:
        settings = self.settings
        return token_request(
            settings,
            {
                "grant_type": self.grant_type,
                "assertion": self._base64url(),
                "scope": " ".join(settings.scopes),
            },
            now,
            authenticate=bool(settings.client_id),
        )

    def _base64url(self) -> str:
        """RFC 7522 section 2.1 wants base64url without padding or line breaks; it may be given as XML as well."""
        raw = self.settings.assertion.strip()
        if raw.startswith("<"):
            return urlsafe_b64encode(raw.encode()).rstrip(b"=").decode()
        text = "".join(raw.split()).translate(str.maketrans("+/", "-_")).rstrip("=")
        try:
            b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError:
            # Its text may quote the assertion, so the chain is cut.
            raise ConnectionFieldError(
                self.settings.conn_id, "assertion", "is no SAML assertion; paste it as XML, or as base64 of that."
            ) from None
        return text
