"""Sessions that bear a guarded token, against the real authorization server and a real store."""

from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow_oauth_guard.domain.evidence import Finding, Kind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import CredentialUnusableError
from airflow_oauth_guard.hooks.session import GuardedSession
from tests.airflow_parts import make_due, rows

pytestmark = pytest.mark.airflow


@pytest.fixture
def guarded(connect, store):
    one = connect()
    one.refresh(store)
    return one


def used(store, kind=Kind.USE):
    return [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == kind.value]


def test_a_session_bears_the_token(guarded, server):
    server.set_rows(guarded.conn_id, 3)
    with GuardedSession(guarded.conn_id) as session:
        assert len(session.get(server.rows_url, timeout=10).json()["rows"]) == 3


def test_a_token_that_is_refused_is_renewed_once_and_the_request_sent_again(guarded, server, store):
    server.set_rows(guarded.conn_id, 3)
    with GuardedSession(guarded.conn_id) as session:
        server.revoke(guarded.conn_id, grant=False)
        make_old(store, guarded)
        answer = session.get(server.rows_url, timeout=10)
    assert (answer.status_code, len(answer.json()["rows"])) == (200, 3)
    assert [one.status_code for one in answer.history] == [401]
    assert [row["finding"] for row in used(store)] == [Finding.ACCESS_TOKEN_DEAD.value]
    assert guarded.credential(store).status is Status.ACTIVE


def make_old(store, guarded):
    """As if the token had been issued half an hour ago, with half an hour to go."""
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=50))


def test_a_token_that_is_refused_and_cannot_be_renewed_is_an_error_that_says_why(guarded, server, store):
    server.revoke(guarded.conn_id)
    make_old(store, guarded)
    with GuardedSession(guarded.conn_id) as session, pytest.raises(CredentialUnusableError) as raised:
        session.get(server.rows_url, timeout=10)
    assert guarded.conn_id in str(raised.value)
    assert "invalid_token" in str(raised.value)
    assert "invalid_grant" in str(raised.value)
    assert "OAuth Guard page" in str(raised.value)
