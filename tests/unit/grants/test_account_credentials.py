from __future__ import annotations

import base64

import pytest

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.account_credentials import AccountCredentialsGrant
from airflow_oauth_guard.grants.settings import ProviderFacts
from tests.unit.domain.builders import NOW, grant_of, http, parameters_of, refusal

FIELDS = {
    "token_url": "https://zoom.us/oauth/token",
    "client_id": "app",
    "client_secret": "s3cret",
    "account_id": "acc&1",
}


def test_the_client_and_the_account_it_was_installed_in_buy_the_token():
    request = grant_of(AccountCredentialsGrant, **FIELDS).request("stored-token", NOW)
    assert (request.method, request.url) == ("POST", "https://zoom.us/oauth/token")
    assert dict(parameters_of(request)) == {"grant_type": "account_credentials", "account_id": "acc&1"}
    assert request.headers["Authorization"] == f"Basic {base64.b64encode(b'app:s3cret').decode()}"
    assert "acc&1" not in request.secrets


def test_the_account_may_come_from_the_providers_params():
    """A preset fills ``account_id`` from a param; the connection's own field comes first."""
    facts = ProviderFacts(parameters={"account_id": "from-a-param"})
    assert dict(parameters_of(grant_of(AccountCredentialsGrant, facts, **FIELDS).request("", NOW)))["account_id"] == (
        "acc&1"
    )


def test_an_account_has_to_be_named():
    with pytest.raises(ConnectionFieldError, match="`account_id` is missing"):
        grant_of(AccountCredentialsGrant, **(FIELDS | {"account_id": ""}))


def test_what_is_rejected_is_the_app():
    grant = grant_of(AccountCredentialsGrant, **FIELDS)
    assert grant.read(refusal("invalid_grant")).reading.finding is Finding.CLIENT_MISCONFIGURED
    assert grant.read(refusal("invalid_client", status=401)).reading.finding is Finding.CLIENT_MISCONFIGURED
    assert grant.read(http(200, {"access_token": "at-2"})).tokens is not None
    assert AccountCredentialsGrant.sends == ""
    assert AccountCredentialsGrant.own_provider({}) == "zoom"
