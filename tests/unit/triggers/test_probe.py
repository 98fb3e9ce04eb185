from __future__ import annotations

import asyncio
import importlib
import json
from dataclasses import asdict
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="triggers need Airflow")

from airflow.triggers.base import TriggerEvent

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError
from airflow_oauth_guard.triggers.probe import ProbeTrigger
from tests.airflow_parts import PLANTED, WHO, make_due, question_of, renew, rows

pytestmark = pytest.mark.airflow


def trigger(question: int, **changes) -> ProbeTrigger:
    given = {"pause_seconds": 0.2, "give_up_seconds": 30.0, "observer": asdict(WHO)}
    return ProbeTrigger(investigation=question, **{**given, **changes})


def events(it: ProbeTrigger, within: float = 10) -> list[TriggerEvent]:
    async def collect() -> list[TriggerEvent]:
        return [event async for event in it.run()]

    return asyncio.run(asyncio.wait_for(collect(), timeout=within))


def test_it_looks_until_it_can_conclude_and_says_only_that(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id, access=False)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    [event] = events(trigger(question))
    assert event.payload == {"investigation": question, "finding": "grant_dead"}
    kinds = [item.kind.value for item in store.investigations.evidence(store.investigation(question))]
    assert kinds == ["refresh", "probe", "control", "refresh"]


def test_it_collects_evidence_and_settles_nothing(connect, store, server):
    """The worker draws the conclusion again; a triggerer writes no status and no incident."""
    guarded = connect(client={"grant_types": ("fb_exchange_token",)}, mint={"with_refresh": True})
    question = question_of(store, guarded)
    events(trigger(question))
    assert store.investigation(question).finding is None
    assert guarded.incident(store) is None
    assert guarded.credential(store).status is Status.ACTIVE
    assert rows(store, "oauth_guard_transitions") == []


def test_a_question_that_answered_itself_ends_at_once_and_asks_nobody(connect, store, server):
    guarded = connect()
    guarded.fault(status=400, body={"error": "invalid_grant"})
    question = question_of(store, guarded)
    renew(store, guarded.conn_id)
    server.clear_requests()
    [event] = events(trigger(question))
    assert event.payload["finding"] == "live"
    assert server.requests() == []


def test_time_is_up_when_it_was_told_so(connect, store):
    guarded = connect()
    guarded.fault(status=400, body={"error": "invalid_grant"})
    question = question_of(store, guarded)
    [event] = events(trigger(question, pause_seconds=60.0, give_up_seconds=0.5), within=3)
    assert event.payload["finding"] == "unknown"


def test_a_triggerer_that_restarts_goes_on_where_it_was(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)

    async def begin() -> None:
        async for _ in trigger(question, pause_seconds=3600.0).run():
            pytest.fail("it cannot conclude before the pause")

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(begin(), timeout=timedelta(seconds=0.7).total_seconds()))
    looks = len(store.investigations.evidence(store.investigation(question)))
    assert looks > 1
    assert events(trigger(question))[0].payload["finding"] == "grant_dead"
    controls = [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == "control"]
    assert len(controls) == 1


def test_an_investigation_nobody_opened_is_an_error(store):
    with pytest.raises(NotRegisteredError):
        events(trigger(41))


def test_serialized_it_holds_ids_and_durations_and_comes_back_the_same(connect, store):
    guarded = connect()
    guarded.fault(status=400, body={"error": "invalid_grant"})
    question = question_of(store, guarded)
    path, arguments = trigger(question).serialize()
    text = json.dumps(arguments)
    assert PLANTED not in text
    assert not any(secret in text for secret in guarded.secrets)
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**json.loads(text))
    assert again.serialize() == (path, arguments)
    assert Observer(**again.observer) == WHO
