from __future__ import annotations

from typing import Any

import pytest

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.settings import ProviderFacts
from airflow_oauth_guard.grants.token_exchange import TokenExchangeGrant
from tests.unit.domain.builders import NOW, grant_of, http, parameters_of, refusal

FIELDS = {"token_url": "https://id.example/token", "subject_token": "st-s3cret.a.b"}
JWT = "urn:ietf:params:oauth:token-type:jwt"


def sent(facts: ProviderFacts | None = None, **changes: Any) -> dict[str, str]:
    grant = grant_of(TokenExchangeGrant, facts or ProviderFacts(), **(FIELDS | changes))
    return dict(parameters_of(grant.request("stored-token", NOW)))


@pytest.mark.rfc("8693", "2.1")
def test_the_subject_token_is_sent_with_its_type():
    assert sent() == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "st-s3cret.a.b",
        "subject_token_type": JWT,
    }


@pytest.mark.rfc("8693", "2.1")
@pytest.mark.rfc("8693", "3")
def test_audience_scope_and_another_type_of_token_can_be_asked_for():
    saml = "urn:ietf:params:oauth:token-type:saml2"
    asked = sent(subject_token_type=saml, audience="//iam.example/pool", scopes="read write")
    assert asked["subject_token_type"] == saml
    assert (asked["audience"], asked["scope"]) == ("//iam.example/pool", "read write")


@pytest.mark.rfc("8693", "2.1")
def test_what_else_a_provider_wants_comes_from_its_preset():
    asked = sent(ProviderFacts(parameters={"requested_token_type": JWT, "resource": "https://api.example"}))
    assert (asked["requested_token_type"], asked["resource"]) == (JWT, "https://api.example")


@pytest.mark.rfc("8693", "2.1")
@pytest.mark.parametrize("named", [True, False])
def test_a_client_proves_itself_where_there_is_one(named):
    client = {"client_id": "app", "client_secret": "cl-s3cret"} if named else {}
    request = grant_of(TokenExchangeGrant, **FIELDS, **client).request("", NOW)
    assert ("Authorization" in request.headers) is named
    assert request.shape.client_auth == ("client_secret_basic" if named else "none")


def test_the_subject_token_counts_as_secret_and_its_type_does_not():
    request = grant_of(TokenExchangeGrant, **FIELDS).request("", NOW)
    assert request.secrets[0] == "st-s3cret.a.b"
    assert JWT not in request.secrets
    assert "s3cret" not in f"{request!r}{request.shape.as_json()}{grant_of(TokenExchangeGrant, **FIELDS).settings!r}"


def test_a_token_to_exchange_is_needed():
    with pytest.raises(ConnectionFieldError, match="`subject_token` is missing"):
        grant_of(TokenExchangeGrant, token_url=FIELDS["token_url"])


@pytest.mark.rfc("8693", "2.2.1")
@pytest.mark.rfc("8693", "2.2.2")
def test_an_exchanged_token_is_read_and_a_rejected_subject_token_is_no_dead_grant():
    grant = grant_of(TokenExchangeGrant, **FIELDS)
    issued = {"access_token": "at-2", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    tokens = grant.read(http(200, issued | {"token_type": "Bearer", "expires_in": 60})).tokens
    assert tokens is not None
    assert tokens.access_token == "at-2"
    for code in ("invalid_request", "invalid_grant", "invalid_target"):
        assert grant.read(refusal(code, "subject_token is not valid")).reading.finding is Finding.REQUEST_MALFORMED
