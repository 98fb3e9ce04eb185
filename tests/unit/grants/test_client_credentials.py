from __future__ import annotations

import pytest

from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.client_credentials import ClientCredentialsGrant
from tests.unit.domain.builders import NOW, grant_of, http, parameters_of

FIELDS = {"token_url": "https://id.example/token", "client_id": "app", "client_secret": "s3cret"}


@pytest.mark.rfc("6749", "4.4.2")
def test_the_clients_own_credentials_are_all_that_is_sent():
    request = grant_of(ClientCredentialsGrant, **FIELDS, scopes="read write").request("", NOW)
    assert (request.method, request.url) == ("POST", "https://id.example/token")
    assert request.headers["Authorization"].startswith("Basic ")
    assert request.content == b"grant_type=client_credentials&scope=read+write"


@pytest.mark.rfc("6749", "4.4.2")
def test_no_stored_token_reaches_the_token_endpoint():
    request = grant_of(ClientCredentialsGrant, **FIELDS).request("stored-token", NOW)
    assert dict(parameters_of(request)) == {"grant_type": "client_credentials"}
    assert ClientCredentialsGrant.sends == ""


def test_there_is_no_grant_of_its_own_to_rotate_or_expire():
    assert not grant_of(ClientCredentialsGrant, **FIELDS).rotates
    for name in ("refresh_token", "expire_policy"):
        with pytest.raises(ConnectionFieldError, match=f"`{name}` is not a field"):
            grant_of(ClientCredentialsGrant, **FIELDS, **{name: "evidence"})


@pytest.mark.rfc("6749", "4.4.3")
def test_an_access_token_is_read_from_the_answer():
    tokens = grant_of(ClientCredentialsGrant, **FIELDS).read(http(200, {"access_token": "at-2"})).tokens
    assert tokens is not None
    assert tokens.access_token == "at-2"
