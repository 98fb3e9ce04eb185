"""Slack: a ``slack_sdk.WebClient`` that asks for its token with each call."""

from __future__ import annotations

from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse, WebClient

from airflow_oauth_guard.hooks.using import Use

REFUSED = {"token_expired", "token_revoked", "invalid_auth", "account_inactive"}


class GuardedWebClient(WebClient):
    def __init__(self, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use = Use(conn_id)

    def api_call(self, api_method: str, **kwargs: Any) -> SlackResponse:
        handed = self.use.token()
        self.token = handed.access_token
        try:
            return super().api_call(api_method, **kwargs)
        except SlackApiError as error:
            newer = self.use.doubt(handed) if error.response.get("error") in REFUSED else None
            if newer is None:
                raise
            self.token = newer.access_token
            return super().api_call(api_method, **kwargs)
