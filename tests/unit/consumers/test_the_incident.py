"""DESIGN's incident, from the consumers' side: twenty pipelines, a refresh of the wrong class, and a flag that lies."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine

pytest.importorskip("airflow", reason="consumers need Airflow")

from airflow_oauth_guard.consumers.taskflow import guarded
from airflow_oauth_guard.domain.flat_line import judge
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import CredentialUnusableError
from tests.airflow_parts import rows, utcnow
from tests.authorization_server.client import AuthorizationServer

pytestmark = pytest.mark.airflow

CONSUMERS = [f"pipeline_{number:02}" for number in range(20)]
ROWS = 5


@pytest.fixture(scope="module")
def server():
    """One of our own, since its clock moves."""
    with AuthorizationServer() as running:
        yield running


def as_it_was(flag, session, server):
    """A consumer of the old kind: it filters for `active`, and skips politely."""
    if flag != "active":
        return 0
    return len(session.get(server.rows_url, timeout=10).json()["rows"])


def pipeline(conn_id, name, server):
    @guarded(conn_id, source=Source(name, timedelta(hours=2), credential=conn_id))
    def load(session) -> int:
        answer = session.get(server.rows_url, timeout=10)
        answer.raise_for_status()
        return len(answer.json()["rows"])

    return load


def moved(store, name):
    return [row["row_count"] for row in rows(store, "oauth_guard_heartbeats") if row["source"] == name]


def test_none_of_twenty_consumers_goes_quiet(connect, store, server):
    crm = connect(client={"access_lifetime": timedelta(hours=1)})
    crm.refresh(store)
    server.set_rows(crm.conn_id, ROWS)
    pipelines = {name: pipeline(crm.conn_id, name, server) for name in CONSUMERS}

    # The refresh is of the wrong class from now on: 400 before the provider looks at the token.
    server.fault("status", client_id=crm.conn_id, status=400, body={"error": "unsupported_grant_type"})
    began = utcnow()
    with time_machine.travel(began, tick=True) as clock:

        def pass_time(passed: timedelta) -> None:
            clock.shift(passed)
            server.advance(passed)

        pass_time(timedelta(minutes=50))
        assert crm.refresh(store).outcome.value == "failed"
        # What the incident's own code wrote down then, and what its consumers made of it.
        flag = "expired"
        with crm.hook().get_conn() as session:
            assert as_it_was(flag, session, server) == 0, "this is how ten days were lost"
        # The token is alive, and so are they.
        assert {load() for load in pipelines.values()} == {ROWS}
        assert crm.credential(store).status is Status.ACTIVE

        # When the token has ended they stop, and each of them says why.
        pass_time(timedelta(minutes=20))
        for load in pipelines.values():
            with pytest.raises(CredentialUnusableError) as raised:
                load()
            assert crm.conn_id in str(raised.value)
            assert "unsupported_grant_type" in str(raised.value)
            assert "Nothing is known against its grant" in str(raised.value)
        assert [moved(store, name) for name in CONSUMERS] == [[ROWS]] * 20, (
            "nobody has moved nothing and called it success"
        )
        assert crm.credential(store).status is Status.ACTIVE, "a refresh that fails is a question"

        # Should nobody read the failed tasks, the sources' own silence is told, and names the credential that feeds them.
        pass_time(timedelta(hours=2))
        watched = [store.sources.get(name) for name in CONSUMERS]
        verdicts = {judge(one.source, one.habit, one.state, utcnow()).kind for one in watched}
        assert verdicts == {IncidentKind.LATE}
        assert {one.source.credential for one in watched} == {crm.conn_id}

        # The class is put right, and everybody goes on.
        server.clear_faults()
        pass_time(timedelta(hours=1))
        assert {load() for load in pipelines.values()} == {ROWS}
    assert [moved(store, name) for name in CONSUMERS] == [[ROWS, ROWS]] * 20
