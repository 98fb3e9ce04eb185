"""``facebook_business``, whose requests go to a Graph API of our own."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import timedelta

import pytest
import time_machine

pytest.importorskip("airflow", reason="guarded connections need Airflow")
pytest.importorskip("facebook_business")

from facebook_business.adobjects.adaccount import AdAccount
from facebook_business.exceptions import FacebookRequestError

from airflow_oauth_guard.errors import CredentialUnusableError
from examples.recipes.meta_session import meta_api
from tests.airflow_parts import make_due, utcnow
from tests.resource_server import Told
from tests.unit.recipes.conftest import parameter

pytestmark = pytest.mark.airflow

SIXTY_DAYS = timedelta(days=60)
APP_SECRET = "planted-app-secret"
DEAD = {"message": "Error validating access token", "type": "OAuthException", "code": 190, "error_subcode": 463}


def graph_error(status, error):
    return Told(status, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode())


def access_token(asked):
    token = parameter(asked, "access_token")
    proof = hmac.new(APP_SECRET.encode(), token.encode(), hashlib.sha256).hexdigest()
    assert parameter(asked, "appsecret_proof") == proof
    return token


@pytest.fixture
def guarded(connect, store):
    """Of the class that Meta's tokens are of: a token that is dead buys no other."""
    one = connect("meta_exchange", provider="facebook", client={"access_lifetime": SIXTY_DAYS})
    one.refresh(store)
    make_due(store, one.conn_id, life_left=SIXTY_DAYS / 2)
    return one


@pytest.fixture
def campaigns(guarded, provider):
    """Loads them all, with the SDK's own paging."""

    def body(page, rows):
        following = {"cursors": {"after": str(page + 1)}, "next": "there is"} if page < provider.pages else {}
        return {"data": [{"id": str(row["id"])} for row in rows], "paging": following}

    url = provider.speak(
        token=access_token,
        page=lambda asked: int(parameter(asked, "after", "1")),
        body=body,
        refusal=graph_error(400, DEAD),
    )
    api = meta_api(guarded.conn_id, APP_SECRET)
    api._session.GRAPH = url
    return lambda: [one["id"] for one in AdAccount("act_1", api=api).get_campaigns()]


def test_meta_loads_all_pages_each_with_its_proof(campaigns):
    assert campaigns() == ["1", "2", "3", "4", "5", "6"]


def test_meta_goes_on_with_the_next_token_and_its_proof_when_one_falls_due(campaigns, guarded, provider, store):
    def a_minute_later(page):
        if page == 1:
            make_due(store, guarded.conn_id, life_left=timedelta(minutes=5))
            clock.shift(timedelta(minutes=1))

    provider.after_page = a_minute_later
    with time_machine.travel(utcnow(), tick=True) as clock:
        assert campaigns() == ["1", "2", "3", "4", "5", "6"]
    assert len(set(provider.bearers)) == 2


def test_meta_is_loud_when_its_token_is_revoked_since_a_dead_one_buys_no_other(
    campaigns, provider, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=True)
    with pytest.raises(CredentialUnusableError, match="190"):
        campaigns()
    assert provider.sent == [1]


def test_another_refusal_stays_metas_error_and_quotes_no_token(campaigns, provider, guarded):
    provider.refusal = graph_error(400, {"message": "(#100) Unknown field", "type": "OAuthException", "code": 100})
    provider.accepts = lambda token: False
    with pytest.raises(FacebookRequestError, match="Unknown field") as raised:
        campaigns()
    assert provider.bearers[0] not in str(raised.value)
    assert len(guarded.token_requests()) == 1
