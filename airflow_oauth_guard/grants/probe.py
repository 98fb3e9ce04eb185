"""The probe: one cheap request with the access token (RFC 6750 section 2.1). It never refreshes anything."""

from __future__ import annotations

from airflow_oauth_guard.grants.flow import HttpRequest, shape_of
from airflow_oauth_guard.grants.settings import GrantSettings


def probe_request(settings: GrantSettings, access_token: str) -> HttpRequest:
    """A request to the connection's probe URL, bearing the token in the header."""
    return HttpRequest(
        method=settings.probe_method,
        url=settings.probe_url,
        headers={"Accept": "application/json", "Authorization": f"Bearer {access_token}"},
        content=b"",
        shape=shape_of(
            settings.probe_method,
            settings.probe_url,
            grant_type="",
            client_auth="bearer",
            body_format="none",
            names={},
        ),
        secrets=(*settings.secrets, access_token),
    )
