from __future__ import annotations

import base64

import pytest

from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.refresh_token import RefreshTokenGrant
from tests.unit.domain.builders import NOW, grant_of, http, parameters_of

CONFIDENTIAL = {"token_url": "https://id.example/token", "client_id": "app", "client_secret": "s3cret"}


@pytest.mark.rfc("6749", "6")
def test_a_refresh_posts_the_refresh_token_with_the_scopes_of_the_connection():
    request = grant_of(RefreshTokenGrant, **CONFIDENTIAL, scopes="read, write").request("rt-1", NOW)
    assert (request.method, request.url) == ("POST", "https://id.example/token")
    assert request.headers["Authorization"] == f"Basic {base64.b64encode(b'app:s3cret').decode()}"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.content == b"grant_type=refresh_token&refresh_token=rt-1&scope=read+write"


@pytest.mark.rfc("6749", "6")
def test_a_connection_without_scopes_asks_for_those_it_was_granted():
    names = dict(parameters_of(grant_of(RefreshTokenGrant, **CONFIDENTIAL).request("rt-1", NOW)))
    assert names == {"grant_type": "refresh_token", "refresh_token": "rt-1"}


@pytest.mark.rfc("6749", "3.2.1")
def test_a_public_client_sends_its_id_with_the_refresh_token():
    public = {"token_url": "https://id.example/token", "client_id": "app", "client_auth": "none"}
    request = grant_of(RefreshTokenGrant, **public).request("rt-1", NOW)
    assert dict(parameters_of(request)) == {"grant_type": "refresh_token", "refresh_token": "rt-1", "client_id": "app"}
    assert "Authorization" not in request.headers


def test_the_seeds_of_the_connection_are_not_sent_but_the_stored_token_is():
    request = grant_of(RefreshTokenGrant, **CONFIDENTIAL, refresh_token="seed-rt", access_token="seed-at").request(
        "rt-9", NOW
    )
    assert b"seed" not in request.content
    assert {"rt-9", "seed-rt", "seed-at", "s3cret"} <= set(request.secrets)


@pytest.mark.rfc("9700", "4.14.2")
def test_a_rotated_refresh_token_is_taken_from_the_answer():
    grant = grant_of(RefreshTokenGrant, **CONFIDENTIAL)
    tokens = grant.read(http(200, {"access_token": "at-2", "refresh_token": "rt-2"})).tokens
    assert tokens is not None
    assert (tokens.access_token, tokens.refresh_token) == ("at-2", "rt-2")


@pytest.mark.rfc("9700", "4.14.2")
def test_a_lost_answer_may_have_spent_the_token_unless_the_provider_promises_otherwise():
    assert grant_of(RefreshTokenGrant, **CONFIDENTIAL).rotates
    assert not grant_of(RefreshTokenGrant, **CONFIDENTIAL, rotation=False).rotates


def test_a_confidential_client_without_its_secret_is_not_sent_out():
    with pytest.raises(ConnectionFieldError, match="`client_secret` is missing"):
        grant_of(RefreshTokenGrant, token_url="https://id.example/token", client_id="app")
