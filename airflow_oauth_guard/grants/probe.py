"""The probe: one cheap request with the access token (RFC 6750 section 2.1). It never refreshes anything."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit, urlunsplit

from airflow_oauth_guard.grants.flow import HttpRequest, shape_of
from airflow_oauth_guard.grants.settings import GrantSettings, filled


def probe_request(settings: GrantSettings, access_token: str) -> HttpRequest:
    """A request to the connection's probe URL, bearing the token in the header unless the provider wants it elsewhere."""
    facts = settings.facts
    values = {**settings.fillings, "access_token": access_token}
    headers = {name: filled(text, values) for name, text in facts.probe_headers.items()}
    parameters = {name: filled(text, values) for name, text in facts.probe_parameters.items()}
    elsewhere = any(
        "{access_token}" in text for text in (*facts.probe_headers.values(), *facts.probe_parameters.values())
    )
    if not elsewhere:
        headers["Authorization"] = f"Bearer {access_token}"
    if facts.probe_body:
        headers.setdefault("Content-Type", "application/json")
    parts = urlsplit(settings.probe_url)
    query = "&".join(part for part in (parts.query, urlencode(parameters)) if part)
    return HttpRequest(
        method=settings.probe_method,
        url=urlunsplit(parts._replace(query=query)),
        headers={"Accept": "application/json", **headers},
        content=facts.probe_body.encode(),
        shape=shape_of(
            settings.probe_method,
            settings.probe_url,
            grant_type="",
            client_auth="elsewhere" if elsewhere else "bearer",
            body_format="json" if facts.probe_body else "none",
            names=parameters,
        ),
        secrets=(*settings.secrets, access_token),
        client_certificate=settings.client_certificate,
    )
