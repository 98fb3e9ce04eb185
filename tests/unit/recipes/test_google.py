"""Credentials of google-auth, on its own session; googleapiclient and gspread use them in the same way."""

from __future__ import annotations

import pytest
import time_machine

pytest.importorskip("airflow", reason="guarded connections need Airflow")
pytest.importorskip("google.auth.transport.requests")

from datetime import timedelta

from google.auth.transport.requests import AuthorizedSession

from airflow_oauth_guard.errors import CredentialUnusableError
from examples.recipes.google_credentials import google_credentials
from tests.airflow_parts import utcnow
from tests.resource_server import Told
from tests.unit.recipes.conftest import bearer, parameter

pytestmark = pytest.mark.airflow

REFUSAL = Told(401, {"Content-Type": "application/json"}, b'{"error": {"code": 401, "status": "UNAUTHENTICATED"}}')


@pytest.fixture
def url(provider):
    return provider.speak(
        token=bearer,
        page=lambda asked: int(parameter(asked, "page", "1")),
        body=lambda page, rows: {"values": rows},
        refusal=REFUSAL,
    )


def values(session, url):
    loaded = []
    for page in (1, 2, 3):
        answer = session.get(f"{url}/v4/spreadsheets?page={page}")
        answer.raise_for_status()
        loaded += [row["id"] for row in answer.json()["values"]]
    return loaded


def test_google_loads_all_pages(guarded, url):
    assert values(AuthorizedSession(google_credentials(guarded.conn_id)), url) == [1, 2, 3, 4, 5, 6]
    assert len(guarded.token_requests()) == 1


def test_google_asks_for_the_next_token_when_one_is_revoked_though_it_cannot_say_why(
    guarded, url, provider, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=False)
    assert values(AuthorizedSession(google_credentials(guarded.conn_id)), url) == [1, 2, 3, 4, 5, 6]
    assert len(set(provider.bearers)) == 2


def test_google_asks_for_the_next_token_before_one_lapses(guarded, url, provider, store):
    session = AuthorizedSession(google_credentials(guarded.conn_id))
    assert values(session, url) == [1, 2, 3, 4, 5, 6]
    with time_machine.travel(utcnow() + timedelta(minutes=47), tick=True):
        assert values(session, url) == [1, 2, 3, 4, 5, 6]
    assert len(set(provider.bearers)) == 2


def test_google_is_loud_when_the_grant_goes_with_it(guarded, url, provider, revoked_after_the_first_page):
    revoked_after_the_first_page(grant=True)
    with pytest.raises(CredentialUnusableError, match="invalid_grant"):
        values(AuthorizedSession(google_credentials(guarded.conn_id)), url)
    assert provider.sent == [1]


def test_a_refusal_of_a_token_that_is_alive_stays_googles_answer(guarded, url, provider):
    provider.accepts = lambda token: False
    answer = AuthorizedSession(google_credentials(guarded.conn_id)).get(url)
    assert answer.status_code == 401
    assert len(guarded.token_requests()) == 1


def test_a_token_whose_life_nobody_knows_is_handed_out(connect, store, provider, url):
    one = connect(client={"access_lifetime": None})
    one.refresh(store)
    assert values(AuthorizedSession(google_credentials(one.conn_id)), url) == [1, 2, 3, 4, 5, 6]
