from __future__ import annotations

import pytest

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.catalog.explaining import dialect_for
from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.domain.reading import read_token_answer
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.meta_exchange import MetaExchangeGrant
from tests.unit.domain.builders import NOW, grant_of, http, meta_refusal, parameters_of

FIELDS = {
    "token_url": "https://graph.facebook.com/v19.0/oauth/access_token",
    "client_id": "app",
    "client_secret": "s3cret",
}


def test_a_live_token_is_exchanged_with_the_apps_secret_in_the_body():
    request = grant_of(MetaExchangeGrant, **FIELDS).request("at-1", NOW)
    assert (request.method, request.url) == ("POST", FIELDS["token_url"])
    assert request.headers == {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    assert dict(parameters_of(request)) == {
        "grant_type": "fb_exchange_token",
        "client_id": "app",
        "client_secret": "s3cret",
        "fb_exchange_token": "at-1",
    }
    assert set(request.secrets) == {"s3cret", "at-1"}


def test_the_access_token_is_its_own_grant_so_it_must_be_renewed_while_it_lives():
    assert MetaExchangeGrant.sends == "access_token"
    assert MetaExchangeGrant.needs_live_token


def test_the_app_secret_is_required():
    with pytest.raises(ConnectionFieldError, match="`client_secret` is missing"):
        grant_of(MetaExchangeGrant, **(FIELDS | {"client_secret": ""}))


@pytest.mark.parametrize("code", [1, 2, 4, 10, 17, 32, 100, 101, 102, 190, 459, 464, 613, 7777])
def test_every_code_of_metas_can_be_read(code):
    """`1`, "API Unknown", is also what a wrong app secret earns: it must become evidence, not an exception."""
    reading = read_token_answer(
        meta_refusal(code, "Something"), dialect_for(Catalog().get("facebook"), "meta_exchange")
    )
    assert str(code) in reading.explanation
    assert (reading.finding is Finding.GRANT_DEAD) == (code in (102, 190))


def test_a_longer_lived_token_is_read_from_the_answer():
    tokens = (
        grant_of(MetaExchangeGrant, **FIELDS)
        .read(http(200, {"access_token": "at-2", "token_type": "bearer", "expires_in": 5_184_000}))
        .tokens
    )
    assert tokens is not None
    assert (tokens.access_token, tokens.expires_in.days) == ("at-2", 60)
