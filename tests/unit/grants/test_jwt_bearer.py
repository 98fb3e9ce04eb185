from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.jwk import RSAKey

from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.jwt_bearer import ASSERTION_LIFETIME_SECONDS, JwtBearerGrant
from airflow_oauth_guard.grants.settings import THE_PROTOCOL, ProviderFacts
from tests.unit.domain.builders import NOW, grant_of, parameters_of
from tests.unit.grants.certificates import certificate, pem

KEY = RSAKey.generate_key(2048)
FIELDS = {
    "token_url": "https://id.example/token",
    "issuer": "svc@project.example",
    "private_key": KEY.as_pem(private=True).decode(),
}


def sent(facts: ProviderFacts = THE_PROTOCOL, **changes: Any) -> dict[str, str]:
    return dict(parameters_of(grant_of(JwtBearerGrant, facts, **FIELDS, **changes).request("", NOW)))


def claims(facts: ProviderFacts = THE_PROTOCOL, **changes: Any) -> dict[str, Any]:
    return jwt.decode(sent(facts, **changes)["assertion"], KEY, algorithms=["RS256"]).claims


@pytest.mark.rfc("7523", "2.1")
def test_an_assertion_and_nothing_else_asks_for_the_token():
    request = grant_of(JwtBearerGrant, **FIELDS, scopes="read write").request("stored-token", NOW)
    assert (request.method, request.url) == ("POST", "https://id.example/token")
    assert request.headers == {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    names = dict(parameters_of(request))
    assert set(names) == {"grant_type", "assertion", "scope"}
    assert names["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert names["scope"] == "read write"
    assert {names["assertion"], FIELDS["private_key"].strip()} <= {secret.strip() for secret in request.secrets}


@pytest.mark.rfc("7523", "3")
def test_the_assertion_verifies_and_is_short_lived():
    now = int(NOW.timestamp())
    said = claims()
    assert {name: said[name] for name in ("iss", "sub", "aud", "iat", "exp")} == {
        "iss": "svc@project.example",
        "sub": "svc@project.example",
        "aud": "https://id.example/token",
        "iat": now,
        "exp": now + ASSERTION_LIFETIME_SECONDS,
    }
    assert ASSERTION_LIFETIME_SECONDS <= 180


@pytest.mark.rfc("7523", "3")
def test_subject_and_audience_can_be_set():
    said = claims(subject="user@example.com", audience="https://id.example")
    assert (said["sub"], said["aud"]) == ("user@example.com", "https://id.example")


@pytest.mark.rfc("7523", "3")
def test_no_two_assertions_are_the_same():
    assert claims()["jti"] != claims()["jti"]


@pytest.mark.rfc("7515", "4.1.4")
def test_the_key_id_goes_into_the_header():
    token = jwt.decode(sent(key_id="key-7")["assertion"], KEY, algorithms=["RS256"])
    assert token.header["kid"] == "key-7"


@pytest.mark.rfc("7515", "4.1.8")
def test_the_certificates_thumbprint_goes_into_the_header():
    made = certificate(load_pem_private_key(FIELDS["private_key"].encode(), None))
    token = jwt.decode(sent(certificate=pem(made))["assertion"], KEY, algorithms=["RS256"])
    padded = token.header["x5t#S256"] + "=" * (-len(token.header["x5t#S256"]) % 4)
    assert base64.urlsafe_b64decode(padded) == made.fingerprint(hashes.SHA256())


@pytest.mark.rfc("7523", "3")
def test_a_provider_may_want_more_in_the_assertion_and_the_scope_only_there():
    facts = ProviderFacts(claims={"scope": "{scopes}", "box_sub_type": "enterprise", "app": "{client_id}"})
    said = claims(facts, scopes="read write", client_id="app", client_auth="none")
    assert (said["scope"], said["box_sub_type"], said["app"]) == ("read write", "enterprise", "app")
    assert said["iss"] == "svc@project.example"
    assert "scope" not in sent(facts, scopes="read write")
    assert sent(scopes="read write")["scope"] == "read write"


@pytest.mark.rfc("7523", "3")
def test_an_assertion_lives_no_longer_than_the_provider_takes_it():
    said = claims(ProviderFacts(assertion_lifetime=timedelta(seconds=60)))
    assert said["exp"] - said["iat"] == 60
    said = claims(ProviderFacts(assertion_lifetime=timedelta(hours=1)))
    assert said["exp"] - said["iat"] == ASSERTION_LIFETIME_SECONDS


@pytest.mark.rfc("7523", "2.1")
@pytest.mark.rfc("7521", "4.1")
def test_a_client_proves_itself_where_the_connection_names_one():
    asked = sent(client_id="app", client_secret="cl-s3cret", client_auth="client_secret_post")
    assert (asked["client_id"], asked["client_secret"]) == ("app", "cl-s3cret")


def test_a_key_pasted_on_one_line_signs_too():
    one_line = FIELDS["private_key"].replace("\n", "\\n")
    request = grant_of(JwtBearerGrant, **(FIELDS | {"private_key": one_line})).request("", NOW)
    assert jwt.decode(dict(parameters_of(request))["assertion"], KEY, algorithms=["RS256"]).claims["iss"]


def test_a_key_that_cannot_sign_is_named_and_not_quoted():
    with pytest.raises(ConnectionFieldError, match="`private_key` cannot sign") as caught:
        grant_of(JwtBearerGrant, **(FIELDS | {"private_key": "s3cret nonsense"})).request("", NOW)
    assert "s3cret" not in str(caught.value)


def test_there_is_no_grant_that_could_die():
    assert JwtBearerGrant.sends == ""
    assert not grant_of(JwtBearerGrant, **FIELDS).rotates
