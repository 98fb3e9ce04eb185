from __future__ import annotations

import pytest

from airflow_oauth_guard.domain.evidence import Subject
from airflow_oauth_guard.domain.investigation import DOCUMENTED
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.password import PasswordGrant
from tests.unit.domain.builders import NOW, grant_of, http, parameters_of, refusal

FIELDS = {
    "token_url": "https://id.example/token",
    "client_id": "app",
    "client_secret": "cl-s3cret",
    "username": "ann@example.com",
    "user_password": "pw-s3cret &=+",
}


@pytest.mark.rfc("6749", "4.3.2")
def test_a_users_name_and_password_buy_the_token_in_the_clients_name():
    request = grant_of(PasswordGrant, **FIELDS, scopes="read write").request("stored-token", NOW)
    assert (request.method, request.url) == ("POST", "https://id.example/token")
    assert dict(parameters_of(request)) == {
        "grant_type": "password",
        "username": "ann@example.com",
        "password": "pw-s3cret &=+",
        "scope": "read write",
    }
    assert request.headers["Authorization"].startswith("Basic ")
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_the_password_counts_as_secret_and_the_name_does_not():
    request = grant_of(PasswordGrant, **FIELDS).request("", NOW)
    assert {"pw-s3cret &=+", "cl-s3cret"} <= set(request.secrets)
    assert "ann@example.com" not in request.secrets
    for shown in (repr(request), request.shape.as_json(), repr(grant_of(PasswordGrant, **FIELDS).settings)):
        assert "s3cret" not in shown


@pytest.mark.parametrize("missing", ["username", "user_password", "client_id"])
def test_whoever_logs_in_has_to_be_named(missing):
    with pytest.raises(ConnectionFieldError, match=f"`{missing}` is missing"):
        grant_of(PasswordGrant, **(FIELDS | {missing: ""}))


@pytest.mark.rfc("6749", "5.2")
def test_a_rejected_password_is_the_accounts_owners_business_and_no_dead_grant():
    outcome = grant_of(PasswordGrant, **FIELDS).read(refusal("invalid_grant", "Invalid user credentials"))
    assert (outcome.reading.rule, outcome.reading.subject) == ("no_grant_of_its_own", Subject.GRANT)
    assert outcome.reading.rule not in DOCUMENTED, "nothing is stored that it could be a proof against"
    assert PasswordGrant.sends == ""


@pytest.mark.rfc("6749", "4.3.3")
def test_an_access_token_is_read_from_the_answer():
    tokens = grant_of(PasswordGrant, **FIELDS).read(http(200, {"access_token": "at-2", "expires_in": 60})).tokens
    assert tokens is not None
    assert (tokens.access_token, tokens.expires_in.seconds) == ("at-2", 60)
