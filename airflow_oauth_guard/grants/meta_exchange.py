"""Meta's long-lived token exchange.

Source: "Get Long-Lived Access Tokens", developers.facebook.com/docs/facebook-login/guides/access-tokens/get-long-lived.
"""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import COMMON_FIELDS, GRANT_FIELDS
from airflow_oauth_guard.grants.token_request import token_request


class MetaExchangeGrant(Grant):
    """A live access token is exchanged for a longer-lived one; there is no refresh token and no second chance."""

    connection_class = "meta_exchange"
    grant_type = "fb_exchange_token"
    sends = "access_token"
    needs_live_token = True
    provider = "facebook"
    fields = (COMMON_FIELDS | GRANT_FIELDS | {"client_id", "client_secret"}) - {"scopes", "body_format"}
    required = ("token_url", "client_id", "client_secret")

    def request(self, token: str, now: datetime) -> HttpRequest:
        return token_request(
            self.settings,
            {
                "grant_type": self.grant_type,
                "client_id": self.settings.client_id,
                "client_secret": self.settings.client_secret,
                "fb_exchange_token": token,
            },
            now,
            authenticate=False,
        )
