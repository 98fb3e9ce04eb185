from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_oauth_guard.grants.probe import probe_request
from airflow_oauth_guard.grants.settings import GrantSettings, ProviderFacts
from tests.unit.domain.builders import parameters_of

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


# -- where a provider wants the token ------------------------------------------------------------------------------


def presented(probe_url: str = "https://api.example/me", **facts: Any) -> HttpRequest:
    return probe(probe_url, client_id="app", facts=ProviderFacts(**facts))


def test_a_token_goes_into_the_header_that_the_provider_reads_and_into_no_other():
    request = presented(probe_headers={"X-Shopify-Access-Token": "{access_token}", "X-Client": "{client_id}"})
    assert request.headers == {
        "Accept": "application/json",
        "X-Shopify-Access-Token": "at-s3cret",
        "X-Client": "app",
    }
    assert "at-s3cret" not in request.url


def test_another_scheme_than_bearer_is_what_the_provider_says():
    request = presented(probe_headers={"Authorization": "Zoho-oauthtoken {access_token}"})
    assert request.headers["Authorization"] == "Zoho-oauthtoken at-s3cret"


def test_a_header_beside_the_token_leaves_it_where_it_belongs():
    request = presented(probe_headers={"Notion-Version": "2022-06-28", "Accept": "application/xml"})
    assert request.headers["Authorization"] == "Bearer at-s3cret"
    assert (request.headers["Notion-Version"], request.headers["Accept"]) == ("2022-06-28", "application/xml")


@pytest.mark.rfc("6750", "2.3")
def test_a_token_in_the_query_is_encoded_and_in_no_header():
    settings = GrantSettings(
        *("crm_prod", "https://id.example/token", "https://api.example/me?v=2"),
        facts=ProviderFacts(probe_parameters={"access_token": "{access_token}", "fields": "id,name"}),
    )
    request = probe_request(settings, "at&x=1#/+ \u20ac")
    assert dict(parameters_of(request)) == {"v": "2", "access_token": "at&x=1#/+ \u20ac", "fields": "id,name"}
    assert "Authorization" not in request.headers
    assert "at&x=1#/+ \u20ac" in request.secrets
    assert request.shape.parameters == ("access_token", "fields", "v")
    assert request.shape.endpoint == "https://api.example/me"


def test_parameters_beside_the_token_leave_it_in_its_header():
    request = presented(probe_parameters={"fields": "open_id"})
    assert request.url == "https://api.example/me?fields=open_id"
    assert request.headers["Authorization"] == "Bearer at-s3cret"


def test_a_question_in_a_body_is_sent_as_it_stands():
    query = '{"query": "{viewer{id}}"}'
    request = presented(probe_body=query)
    assert request.content == query.encode()
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == "Bearer at-s3cret"
    own = presented(probe_body="<x/>", probe_headers={"Content-Type": "text/xml"})
    assert own.headers["Content-Type"] == "text/xml"


@pytest.mark.parametrize(
    "facts",
    [
        {"probe_headers": {"X-Token": "{access_token}"}},
        {"probe_parameters": {"token": "{access_token}"}},
        {"probe_body": "{}"},
        {"probe_headers": {"X-Key": "{client_secret}"}},
    ],
    ids=["header", "query", "body", "key"],
)
def test_wherever_the_token_goes_nothing_secret_shows_and_everything_secret_is_listed(facts):
    request = presented(**facts)
    assert "s3cret" not in f"{request!r}{request.shape.as_json()}"
    assert {"at-s3cret", "cl-s3cret"} <= set(request.secrets)
    assert request.shape.grant_type == ""


@pytest.mark.rfc("8705", "3")
def test_a_token_that_is_bound_to_a_certificate_is_shown_with_it():
    bound = {"client_auth": "tls_client_auth", "certificate": "CERT", "private_key": "KEY"}
    assert probe(**bound).client_certificate == "CERT\nKEY\n"
    assert probe().client_certificate == ""
