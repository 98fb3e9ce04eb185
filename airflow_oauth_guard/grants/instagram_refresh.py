"""Refreshing long-lived Instagram and Threads tokens.

Sources: "Refresh a long-lived token", developers.facebook.com/docs/instagram-platform/reference/refresh_access_token,
and "Refresh Long-Lived Tokens", developers.facebook.com/docs/threads/get-started/long-lived-tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from airflow_oauth_guard.grants.flow import Grant, HttpRequest, shape_of
from airflow_oauth_guard.grants.settings import COMMON_FIELDS, GRANT_FIELDS, INSTAGRAM_PRODUCTS

GRANT_TYPES = {"instagram": "ig_refresh_token", "threads": "th_refresh_token"}


class InstagramRefreshGrant(Grant):
    """A live token, at least a day old, is renewed by GET without client authentication."""

    connection_class = "instagram_refresh"
    sends = "access_token"
    needs_live_token = True
    fields = (COMMON_FIELDS | GRANT_FIELDS | {"product"}) - {"scopes", "body_format"}
    required = ("token_url",)

    @classmethod
    def own_provider(cls, fields: Mapping[str, Any]) -> str:
        return str(fields.get("product") or INSTAGRAM_PRODUCTS[0])

    @property
    def grant_type(self) -> str:
        return GRANT_TYPES.get(self.settings.facts.provider) or GRANT_TYPES[self.settings.product]

    def request(self, token: str, now: datetime) -> HttpRequest:
        parameters = {"grant_type": self.grant_type, "access_token": token}
        parts = urlsplit(self.settings.token_url)
        query = "&".join(part for part in (parts.query, urlencode(parameters)) if part)
        return HttpRequest(
            method="GET",
            url=urlunsplit(parts._replace(query=query)),
            headers={"Accept": "application/json"},
            content=b"",
            shape=shape_of(
                "GET",
                self.settings.token_url,
                grant_type=self.grant_type,
                client_auth="none",
                body_format="query",
                names=parameters,
            ),
            secrets=(*self.settings.secrets, token),
        )
