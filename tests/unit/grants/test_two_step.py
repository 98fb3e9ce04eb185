from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_oauth_guard.domain.evidence import Subject
from airflow_oauth_guard.domain.investigation import DOCUMENTED
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.settings import ProviderFacts, TokenAnswer
from airflow_oauth_guard.grants.two_step import TwoStepGrant
from tests.unit.domain.builders import NOW, grant_of, http, parameters_of, refusal

FIELDS = {
    "provider": "acme",
    "token_url": "https://api.example/login",
    "username": "ann",
    "user_password": "pw-s3cret",
}
LOGIN = '{"login": "{username}", "password": "{password}"}'


def grant(facts: ProviderFacts, **changes: Any) -> TwoStepGrant:
    return grant_of(TwoStepGrant, facts, **(FIELDS | changes))


def test_a_login_is_sent_as_the_preset_says_and_as_nothing_else():
    request = grant(ProviderFacts(body=LOGIN), body_format="json").request("stored-token", NOW)
    assert (request.method, request.url) == ("POST", "https://api.example/login")
    assert json.loads(request.content) == {"login": "ann", "password": "pw-s3cret"}
    assert "Authorization" not in request.headers
    assert request.shape.grant_type == ""
    assert request.shape.client_auth == "none"


def test_a_login_by_parameters_needs_no_body_of_its_own():
    facts = ProviderFacts(parameters={"user": "{username}", "pass": "{password}"})
    assert dict(parameters_of(grant(facts).request("", NOW))) == {"user": "ann", "pass": "pw-s3cret"}


def test_a_client_proves_itself_where_there_is_one():
    facts = ProviderFacts(parameters={"grant_type": "password", "username": "{username}"})
    request = grant(facts, client_id="app", client_secret="cl-s3cret").request("", NOW)
    assert request.headers["Authorization"] == f"Basic {base64.b64encode(b'app:cl-s3cret').decode()}"
    assert request.shape.grant_type == "password"


def test_a_login_may_be_a_get_with_a_basic_password():
    """Some log in with HTTP Basic and the user's own name; the client's fields hold it then."""
    request = grant(ProviderFacts(method="GET"), client_id="ann", client_secret="pw", body_format="query").request(
        "", NOW
    )
    assert (request.method, request.content) == ("GET", b"")
    assert request.headers["Authorization"].startswith("Basic ")


def test_the_password_counts_as_secret_wherever_the_preset_puts_it():
    for facts in (ProviderFacts(body=LOGIN), ProviderFacts(headers={"X-Pass": "{password}"})):
        one = grant(facts, body_format="json")
        request = one.request("", NOW)
        assert "pw-s3cret" in request.secrets
        assert "s3cret" not in f"{request!r}{request.shape.as_json()}{one.settings!r}"


def test_the_session_is_read_from_where_the_preset_says():
    facts = ProviderFacts(answer=TokenAnswer("session.id"), access_token_lifetime=timedelta(hours=8))
    outcome = grant(facts).read(http(200, {"session": {"id": "s-1"}}))
    assert outcome.tokens is not None
    assert (outcome.tokens.access_token, outcome.tokens.expires_in) == ("s-1", timedelta(hours=8))


def test_a_rejected_login_is_the_accounts_owners_business_and_no_dead_grant():
    outcome = grant(ProviderFacts()).read(refusal("invalid_grant"))
    assert (outcome.reading.rule, outcome.reading.subject) == ("no_grant_of_its_own", Subject.GRANT)
    assert outcome.reading.rule not in DOCUMENTED, "nothing is stored that it could be a proof against"
    assert TwoStepGrant.sends == ""


def test_a_login_without_a_preset_is_refused():
    with pytest.raises(ConnectionFieldError, match="`provider` is missing"):
        grant(ProviderFacts(), provider="")
