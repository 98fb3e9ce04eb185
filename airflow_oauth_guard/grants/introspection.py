"""Token introspection: RFC 7662. The provider is asked what it thinks of a token; nothing is spent."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from airflow_oauth_guard.grants.flow import HttpRequest
from airflow_oauth_guard.grants.settings import THE_PROTOCOL, GrantSettings
from airflow_oauth_guard.grants.token_request import token_request


def introspection_request(settings: GrantSettings, token: str, hint: str, now: datetime) -> HttpRequest:
    """Ask about a token, as the client that it was issued to.

    Args:
        hint: ``refresh_token`` or ``access_token`` (RFC 7662 section 2.1).
    """
    asked = replace(
        settings,
        token_url=settings.facts.introspection_url,
        audience=settings.audience or settings.token_url,
        body_format="form",
        facts=THE_PROTOCOL,
    )
    return token_request(asked, {"token": token, "token_type_hint": hint}, now, authenticate=bool(settings.client_id))
