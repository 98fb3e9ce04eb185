from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_oauth_guard.grants.probe import probe_request
from airflow_oauth_guard.grants.settings import GrantSettings

if TYPE_CHECKING:
    from airflow_oauth_guard.grants.flow import HttpRequest


def probe(url: str = "https://api.example/me", **changes: Any) -> HttpRequest:
    settings = GrantSettings("crm_prod", "https://id.example/token", url, client_secret="cl-s3cret", **changes)
    return probe_request(settings, "at-s3cret")


@pytest.mark.rfc("6750", "2.1")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_access_token_is_borne_in_the_header_and_nowhere_else(method):
    request = probe(probe_method=method)
    assert (request.method, request.url, request.content) == (method, "https://api.example/me", b"")
    assert request.headers == {"Accept": "application/json", "Authorization": "Bearer at-s3cret"}


@pytest.mark.rfc("6750", "5.3")
def test_a_probe_never_goes_to_the_token_endpoint_and_carries_no_secret_of_the_client():
    request = probe()
    assert "id.example" not in request.url
    assert "cl-s3cret" not in f"{request.url}{request.headers}{request.content!r}"
    assert request.shape.grant_type == ""


def test_nothing_secret_shows_and_everything_secret_is_listed():
    request = probe("https://api.example/me?key=url-s3cret")
    assert "s3cret" not in repr(request)
    assert "s3cret" not in request.shape.as_json()
    assert {"at-s3cret", "cl-s3cret"} <= set(request.secrets)
    assert request.shape.parameters == ("key",)


def test_a_probe_can_never_vouch_for_the_form_of_a_refresh():
    """Its shape differs from every token request's, so its success proves none of theirs."""
    assert probe("https://id.example/token").shape.client_auth == "bearer"
    assert probe("https://id.example/token").shape.grant_type == ""
