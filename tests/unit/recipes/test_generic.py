"""Clients that take a token as text, and clients that take a session."""

from __future__ import annotations

import json
from urllib.request import Request

import pytest
import time_machine

pytest.importorskip("airflow", reason="guarded connections need Airflow")

from airflow_oauth_guard.errors import CredentialUnusableError
from airflow_oauth_guard.hooks.using import Use
from examples.recipes.takes_a_session import pages
from examples.recipes.takes_a_token import with_token
from tests.airflow_parts import make_due, utcnow
from tests.authorization_server.client import OPENER, REPOSITORY
from tests.resource_server import INVALID_TOKEN, Told
from tests.unit.recipes.conftest import A_WHILE, HALF_USED, bearer, parameter

pytestmark = pytest.mark.airflow


@pytest.fixture
def url(provider):
    def body(page, rows):
        following = f"{provider.url}/rows?page={page + 1}" if page < provider.pages else None
        return {"rows": rows, "next": following}

    return provider.speak(
        token=bearer, page=lambda asked: int(parameter(asked, "page", "1")), body=body, refusal=Told(401, INVALID_TOKEN)
    )


def test_a_session_loads_all_pages(guarded, url):
    assert [row["id"] for row in pages(guarded.conn_id, f"{url}/rows")] == [1, 2, 3, 4, 5, 6]


def test_a_session_goes_on_with_the_next_token_when_one_is_revoked(
    guarded, url, provider, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=False)
    assert [row["id"] for row in pages(guarded.conn_id, f"{url}/rows")] == [1, 2, 3, 4, 5, 6]
    assert len(set(provider.bearers)) == 2


def test_a_session_is_loud_when_the_grant_goes_with_it(guarded, url, provider, revoked_after_the_first_page):
    revoked_after_the_first_page(grant=True)
    with pytest.raises(CredentialUnusableError, match=guarded.conn_id):
        pages(guarded.conn_id, f"{url}/rows")
    assert provider.sent == [1]


class Unauthorized(Exception):
    """A library's own word for a refusal, of which it shows nothing."""


class Client:
    """As a library that takes a token when it is made, and keeps it."""

    def __init__(self, url, token):
        self.url, self._token = url, token

    def rows(self, page):
        request = Request(f"{self.url}/rows?page={page}", headers={"Authorization": f"Bearer {self._token}"})
        try:
            with OPENER.open(request, timeout=10) as answer:
                return json.load(answer)["rows"]
        except OSError as error:
            error.close()
            raise Unauthorized from None


def all_rows(use, url, refused=Unauthorized):
    return [
        row["id"]
        for page in (1, 2, 3)
        for row in with_token(use, lambda token, page=page: Client(url, token).rows(page), refused=refused)
    ]


def test_a_client_with_a_token_loads_all_pages(guarded, url):
    assert all_rows(Use(guarded.conn_id), url) == [1, 2, 3, 4, 5, 6]


def test_a_client_with_a_token_goes_on_with_the_next_when_one_is_revoked(
    guarded, url, provider, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=False)
    assert all_rows(Use(guarded.conn_id), url) == [1, 2, 3, 4, 5, 6]
    assert len(set(provider.bearers)) == 2


def test_a_client_with_a_token_is_loud_when_the_grant_goes_with_it(
    guarded, url, provider, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=True)
    with pytest.raises(CredentialUnusableError, match="invalid_grant"):
        all_rows(Use(guarded.conn_id), url)
    assert provider.sent == [1]


def test_a_clients_error_stays_its_own_where_the_token_is_alive(guarded, url, provider):
    provider.accepts = lambda token: False
    with pytest.raises(Unauthorized):
        all_rows(Use(guarded.conn_id), url)
    assert len(provider.bearers) == 1
    assert len(guarded.token_requests()) == 1


def test_without_a_probe_the_next_token_is_tried(connect, store, server, url, provider):
    one = connect(suffix="_unprobed", probe_url=None)
    one.refresh(store)
    make_due(store, one.conn_id, life_left=HALF_USED)
    provider.after_page = lambda page: server.revoke(one.conn_id, grant=False) if page == 1 else None
    with time_machine.travel(utcnow() + A_WHILE, tick=True):
        assert all_rows(Use(one.conn_id), url) == [1, 2, 3, 4, 5, 6]
    assert len(set(provider.bearers)) == 2


def test_what_another_has_renewed_in_the_meantime_is_taken_up(guarded, store, url, provider):
    use = Use(guarded.conn_id)
    handed = use.token()
    make_due(store, guarded.conn_id)
    guarded.refresh(store)
    newer = use.doubt(handed)
    assert newer is not None
    assert newer.generation == handed.generation + 1
    assert len(guarded.token_requests()) == 2


def test_every_recipe_is_on_the_page():
    page = (REPOSITORY / "docs" / "consumers" / "recipes.md").read_text(encoding="utf-8")
    recipes = sorted((REPOSITORY / "examples" / "recipes").glob("*.py"))
    assert len(recipes) == 9
    assert [one.name for one in recipes if f"<!-- file: examples/recipes/{one.name} -->" not in page] == []
