from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs

import pytest

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.grants.device_code import (
    GRANT_TYPE,
    Invitation,
    authorization_request,
    invitation,
    poll_request,
    read_poll,
)
from airflow_oauth_guard.grants.flow import HttpRequest, Outcome
from airflow_oauth_guard.grants.refresh_token import RefreshTokenGrant
from airflow_oauth_guard.grants.settings import ProviderFacts, read_settings
from tests.unit.domain.builders import NOW, http, refusal, unanswered

INVITED = {
    "device_code": "planted-device-code",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://id.example/device",
    "expires_in": 900,
    "interval": 7,
}
TOKENS = {"access_token": "planted-at", "refresh_token": "planted-rt", "expires_in": 3600}
SEVEN = timedelta(seconds=7)


def grant() -> RefreshTokenGrant:
    settings = read_settings(
        "crm_prod",
        {"token_url": "https://id.example/token", "client_id": "crm", "client_secret": "s3cret", "scopes": "read"},
        known=RefreshTokenGrant.fields,
        required=RefreshTokenGrant.required,
        facts=ProviderFacts(device_authorization_url="https://id.example/device_authorization"),
    )
    return RefreshTokenGrant(settings)


def form(request: HttpRequest) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.content.decode()).items()}


def invited(**changes) -> Invitation:
    answered = invitation(grant(), http(200, INVITED | changes))
    assert isinstance(answered, Invitation)
    return answered


@pytest.mark.rfc("8628", "3.1")
def test_the_flow_begins_at_the_device_endpoint_as_the_client_it_is_for():
    request = authorization_request(grant(), NOW)
    assert request.url == "https://id.example/device_authorization"
    assert request.headers["Authorization"].startswith("Basic ")
    assert form(request) == {"scope": "read"}


def test_parameters_of_token_requests_are_not_sent_to_the_device_endpoint():
    one = grant()
    facts = replace(one.settings.facts, parameters={"audience": "api"})
    request = authorization_request(RefreshTokenGrant(replace(one.settings, facts=facts)), NOW)
    assert "audience" not in form(request)


@pytest.mark.rfc("8628", "3.2")
def test_a_person_is_told_where_to_go_and_what_to_enter():
    complete = "https://id.example/device?user_code=WDJB-MJHT"
    assert invited(verification_uri_complete=complete) == Invitation(
        user_code="WDJB-MJHT",
        verification_uri="https://id.example/device",
        verification_uri_complete=complete,
        expires_in=timedelta(minutes=15),
        interval=SEVEN,
        device_code="planted-device-code",
    )


def test_the_device_code_is_nobody_elses_to_see():
    assert "planted" not in repr(invited())


def test_the_name_that_google_has_for_the_address_is_known():
    changes = {"verification_uri": None, "verification_url": "https://www.google.com/device"}
    assert invited(**changes).verification_uri == "https://www.google.com/device"


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "[", None, 7])
def test_a_person_is_sent_to_pages_only(address):
    shown = invited(verification_uri=address, verification_uri_complete=address)
    assert (shown.verification_uri, shown.verification_uri_complete) == ("", "")


@pytest.mark.rfc("8628", "3.2")
@pytest.mark.parametrize("interval", [None, 0, -3, "soon", True, 10**9])
def test_without_an_interval_the_standards_five_seconds_are_kept(interval):
    assert invited(interval=interval).interval == timedelta(seconds=5)


@pytest.mark.parametrize("expires_in", [None, 0, "soon", 10**9])
def test_an_end_that_nobody_could_wait_for_is_an_hour_away(expires_in):
    assert invited(expires_in=expires_in).expires_in == timedelta(hours=1)


@pytest.mark.parametrize(
    "answer",
    [refusal("invalid_client", status=401), http(404, "<html>"), unanswered(), http(200, {}), http(200, TOKENS)],
)
def test_a_provider_that_offers_no_device_code_invites_nobody(answer):
    outcome = invitation(grant(), answer)
    assert isinstance(outcome, Outcome)
    assert outcome.tokens is None
    assert outcome.reading.finding is not Finding.LIVE


@pytest.mark.rfc("8628", "3.4")
def test_a_poll_sends_the_device_code_as_the_client():
    request = poll_request(grant(), "planted-device-code", NOW)
    assert request.url == "https://id.example/token"
    assert form(request) == {"grant_type": GRANT_TYPE, "device_code": "planted-device-code"}
    assert "planted-device-code" in request.secrets


@pytest.mark.rfc("8628", "3.5")
@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (refusal("authorization_pending"), 7),
        (refusal("slow_down"), 12),
        (unanswered(), 14),
        (http(503, "busy"), 14),
        (http(429, {"error": "rate_limited"}), 14),
    ],
)
def test_it_is_asked_on_while_nobody_has_answered_and_slower_where_there_is_reason(answer, seconds):
    assert read_poll(grant(), answer, SEVEN) == timedelta(seconds=seconds)


@pytest.mark.rfc("8628", "3.5")
@pytest.mark.parametrize("code", ["access_denied", "expired_token", "invalid_grant"])
def test_a_refusal_ends_it_without_tokens_and_says_why(code):
    outcome = read_poll(grant(), refusal(code), SEVEN)
    assert isinstance(outcome, Outcome)
    assert outcome.tokens is None
    assert code in outcome.reading.explanation


def test_the_approved_tokens_are_what_comes_of_it():
    outcome = read_poll(grant(), http(200, TOKENS), SEVEN)
    assert isinstance(outcome, Outcome)
    assert outcome.reading.finding is Finding.LIVE
    assert outcome.tokens is not None
    assert (outcome.tokens.access_token, outcome.tokens.refresh_token) == ("planted-at", "planted-rt")


def test_tokens_beside_the_word_pending_are_tokens():
    """Only an error is a wait."""
    assert isinstance(read_poll(grant(), http(200, {**TOKENS, "state": "authorization_pending"}), SEVEN), Outcome)
