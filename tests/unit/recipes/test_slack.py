"""``slack_sdk``, whose calls go to an API of our own."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

pytest.importorskip("airflow", reason="guarded connections need Airflow")
pytest.importorskip("slack_sdk")

from slack_sdk.errors import SlackApiError

from airflow_oauth_guard.errors import CredentialUnusableError
from examples.recipes.slack import GuardedWebClient
from tests.resource_server import Told
from tests.unit.recipes.conftest import bearer

pytestmark = pytest.mark.airflow

REFUSAL = Told(200, {"Content-Type": "application/json"}, b'{"ok": false, "error": "token_expired"}')


@pytest.fixture
def client(guarded, provider):
    url = provider.speak(
        token=bearer,
        page=lambda asked: int(parse_qs(asked.body.decode()).get("cursor", ["1"])[0]),
        body=lambda page, rows: {"ok": True, "members": rows},
        refusal=REFUSAL,
    )
    return GuardedWebClient(guarded.conn_id, base_url=url)


def members(client):
    return [row["id"] for page in (1, 2, 3) for row in client.users_list(cursor=str(page))["members"]]


def test_slack_loads_all_pages(client):
    assert members(client) == [1, 2, 3, 4, 5, 6]


def test_slack_goes_on_with_the_next_token_when_one_is_revoked(client, provider, revoked_after_the_first_page):
    revoked_after_the_first_page(grant=False)
    assert members(client) == [1, 2, 3, 4, 5, 6]
    assert len(set(provider.bearers)) == 2


def test_slack_is_loud_when_the_grant_goes_with_it(client, provider, revoked_after_the_first_page):
    revoked_after_the_first_page(grant=True)
    with pytest.raises(CredentialUnusableError, match="invalid_grant"):
        members(client)
    assert provider.sent == [1]


def test_a_refusal_of_a_token_that_is_alive_stays_slacks_error(client, provider, guarded):
    provider.accepts = lambda token: False
    with pytest.raises(SlackApiError, match="token_expired"):
        members(client)
    assert len(guarded.token_requests()) == 1
