from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs

import pytest

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.grants.device_code import GRANT_TYPE, Invitation, Poll, connect
from airflow_oauth_guard.grants.flow import HttpRequest
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


def invited(**changes):
    """The flow, with its invitation shown."""
    flow = connect(grant(), NOW)
    next(flow)
    invitation = flow.send(http(200, INVITED | changes))
    return flow, invitation


@pytest.mark.rfc("8628", "3.1")
def test_the_flow_begins_at_the_device_endpoint_as_the_client_it_is_for():
    request = next(connect(grant(), NOW))
    assert isinstance(request, HttpRequest)
    assert request.url == "https://id.example/device_authorization"
    assert request.headers["Authorization"].startswith("Basic ")
    assert form(request) == {"scope": "read"}


@pytest.mark.rfc("8628", "3.2")
def test_a_person_is_told_where_to_go_and_what_to_enter():
    _, invitation = invited()
    assert invitation == Invitation("WDJB-MJHT", "https://id.example/device", timedelta(minutes=15))


@pytest.mark.rfc("8628", "3.4")
def test_a_poll_sends_the_device_code_and_waits_as_long_as_the_provider_says():
    flow, _ = invited()
    poll = flow.send(None)
    assert isinstance(poll, Poll)
    assert poll.after == timedelta(seconds=7)
    assert form(poll.request) == {"grant_type": GRANT_TYPE, "device_code": "planted-device-code"}
    assert "planted-device-code" in poll.request.secrets


@pytest.mark.rfc("8628", "3.2")
@pytest.mark.parametrize("interval", [None, 0, -3, "soon", True, 10**9])
def test_without_an_interval_the_standards_five_seconds_are_kept(interval):
    flow, _ = invited(interval=interval)
    assert flow.send(None).after == timedelta(seconds=5)


@pytest.mark.rfc("8628", "3.5")
def test_it_asks_on_while_nobody_has_answered_and_slower_when_told_so():
    flow, _ = invited()
    flow.send(None)
    assert flow.send(refusal("authorization_pending")).after == timedelta(seconds=7)
    assert flow.send(refusal("slow_down")).after == timedelta(seconds=12)
    assert flow.send(unanswered()).after == timedelta(seconds=24)


@pytest.mark.rfc("8628", "3.5")
@pytest.mark.parametrize("code", ["access_denied", "expired_token", "invalid_grant"])
def test_a_refusal_ends_it_without_tokens_and_says_why(code):
    flow, _ = invited()
    flow.send(None)
    with pytest.raises(StopIteration) as ended:
        flow.send(refusal(code))
    assert ended.value.value.tokens is None
    assert code in ended.value.value.reading.explanation


def test_the_approved_tokens_are_what_comes_of_it():
    flow, _ = invited()
    flow.send(None)
    with pytest.raises(StopIteration) as ended:
        flow.send(http(200, TOKENS))
    outcome = ended.value.value
    assert outcome.reading.finding is Finding.LIVE
    assert (outcome.tokens.access_token, outcome.tokens.refresh_token) == ("planted-at", "planted-rt")


@pytest.mark.parametrize(
    "answer",
    [refusal("invalid_client", status=401), http(404, "<html>"), unanswered(), http(200, {}), http(200, TOKENS)],
)
def test_a_provider_that_offers_no_device_code_ends_it_at_once(answer):
    flow = connect(grant(), NOW)
    next(flow)
    with pytest.raises(StopIteration) as ended:
        flow.send(answer)
    assert ended.value.value.tokens is None
    assert ended.value.value.reading.finding is not Finding.LIVE


def test_parameters_of_token_requests_are_not_sent_to_the_device_endpoint():
    one = grant()
    facts = replace(one.settings.facts, parameters={"audience": "api"})
    request = next(connect(RefreshTokenGrant(replace(one.settings, facts=facts)), NOW))
    assert "audience" not in form(request)
