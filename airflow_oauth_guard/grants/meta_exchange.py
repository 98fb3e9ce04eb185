"""Meta's long-lived token exchange.

Source: "Get Long-Lived Access Tokens", developers.facebook.com/docs/facebook-login/guides/access-tokens/get-long-lived.
"""

from __future__ import annotations

from datetime import datetime

from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.meta import GRAPH_API_ERRORS, GRAPH_API_PROBE_ERRORS
from airflow_oauth_guard.grants.token_request import post_token_request


class MetaExchangeGrant(Grant):
    """A live access token is exchanged for a longer-lived one; there is no refresh token and no second chance."""

    connection_class = "meta_exchange"
    grant_type = "fb_exchange_token"
    sends = "access_token"
    needs_live_token = True
    vocabulary = GRAPH_API_ERRORS
    probe_vocabulary = GRAPH_API_PROBE_ERRORS
    fields = frozenset(
        {
            *("token_url", "client_id", "client_secret", "access_token"),
            *("probe_url", "probe_method", "refresh_margin", "expire_policy", "alert_route", "allow_http"),
        }
    )
    required = ("token_url", "client_id", "client_secret")

    def request(self, token: str, now: datetime) -> HttpRequest:
        return post_token_request(
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
