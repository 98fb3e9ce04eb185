from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_oauth_guard.domain.answers import NoAnswer
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import LeaseLostError, StoreUnavailableError
from airflow_oauth_guard.hooks import base, renewing
from airflow_oauth_guard.hooks.base import OAuthGuardHook
from airflow_oauth_guard.hooks.context import LABEL
from airflow_oauth_guard.hooks.refreshing import Refreshed, RefreshResult
from airflow_oauth_guard.operators.due import DueCredentialsOperator
from airflow_oauth_guard.operators.refresh import RefreshOperator
from tests.airflow_parts import expire, lapse, looked_into, make_due, rows, task_context, utcnow

pytestmark = pytest.mark.airflow


def refreshed(*conn_ids: str, context=None) -> dict:
    operator = RefreshOperator(task_id="refresh", conn_ids=list(conn_ids))
    return operator.execute(context or task_context("refresh", map_index=3, try_number=2))


def test_what_is_due_is_renewed_and_nothing_is_asked(connect, store):
    classes = ("refresh_token", "client_credentials", "meta_exchange")
    guarded = [connect(name, suffix=f"_{name}") for name in classes]
    context = task_context("refresh")
    result = refreshed(*(one.conn_id for one in guarded), context=context)
    assert result == {"outcomes": {one.conn_id: "renewed" for one in guarded}, "investigations": []}
    assert context[LABEL] == "3 due, 3 fine, 0 to look into"
    assert rows(store, "oauth_guard_investigations") == []


def test_a_failure_raises_a_question_and_changes_no_status(connect, store):
    bad, good = connect(suffix="_bad"), connect(suffix="_good")
    bad.fault(status=400, body={"error": "invalid_grant"})
    context = task_context("refresh", map_index=3, try_number=2)
    result = refreshed(bad.conn_id, good.conn_id, context=context)
    assert result["outcomes"] == {bad.conn_id: "failed", good.conn_id: "renewed"}
    [question] = result["investigations"]
    opened = store.investigation(question)
    assert (opened.credential.conn_id, opened.closed_at) == (bad.conn_id, None)
    assert bad.credential(store).status is Status.ACTIVE
    [row] = rows(store, "oauth_guard_investigations")
    assert (row["dag_id"], row["run_id"], row["task_id"]) == ("oauth_guard_test", "manual__1", "refresh")
    assert (row["map_index"], row["try_number"]) == (3, 2)
    assert context[LABEL] == "2 due, 1 fine, 1 to look into"


@pytest.mark.parametrize(("happens", "status"), [(lapse, Status.LAPSED), (expire, Status.EXPIRED)])
def test_a_failing_refresh_never_worsens_nor_mends_a_status(happens, status, connect, store):
    guarded = connect()
    guarded.enrolled(store)
    happens(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_grant"})
    assert refreshed(guarded.conn_id)["outcomes"] == {guarded.conn_id: "failed"}
    assert guarded.credential(store).status is status


@pytest.mark.parametrize(("happens", "was"), [(lapse, "lapsed"), (expire, "expired")])
def test_a_refresh_that_succeeds_restores_it_on_that_evidence(happens, was, connect, store):
    guarded = connect()
    guarded.enrolled(store)
    happens(store, guarded.conn_id)
    assert refreshed(guarded.conn_id)["outcomes"] == {guarded.conn_id: "renewed"}
    assert guarded.credential(store).status is Status.ACTIVE
    last = store.credentials.transitions(guarded.credential(store))[-1]
    assert (last["from_status"], last["to_status"]) == (was, "active")
    assert last["evidence_id"] is not None


def test_a_bad_connection_ends_the_task_red_after_the_others_were_refreshed(connect, store):
    bad, good = connect(suffix="_bad", allow_http=None), connect(suffix="_good")
    with pytest.raises(AirflowFailException, match=bad.conn_id):
        refreshed(bad.conn_id, good.conn_id)
    assert good.credential(store).generation == 2
    assert bad.incident(store).kind is IncidentKind.MISCONFIGURED


def test_a_key_that_cannot_sign_stops_no_other_credential(connect, store):
    bad, good = connect("jwt_bearer", suffix="_bad", private_key="no key"), connect(suffix="_good")
    with pytest.raises(AirflowFailException, match=bad.conn_id):
        refreshed(bad.conn_id, good.conn_id)
    assert good.credential(store).generation == 2
    assert bad.incident(store).kind is IncidentKind.MISCONFIGURED


def test_a_failure_that_was_looked_into_raises_no_second_question(connect, store):
    guarded = connect(client={"grant_types": ("fb_exchange_token",)}, mint={"with_refresh": True})
    [question] = refreshed(guarded.conn_id)["investigations"]
    looked_into(store, guarded, question)
    make_due(store, guarded.conn_id)
    assert refreshed(guarded.conn_id) == {"outcomes": {guarded.conn_id: "failed"}, "investigations": []}


def test_what_waits_is_held_and_what_is_fresh_is_left_alone(connect, store):
    waiting, fresh = connect(suffix="_waiting"), connect(suffix="_fresh")
    waiting.fault(status=503)
    refreshed(waiting.conn_id, fresh.conn_id)
    again = refreshed(waiting.conn_id, fresh.conn_id)
    assert again == {"outcomes": {waiting.conn_id: "held", fresh.conn_id: "fresh"}, "investigations": []}


def test_what_another_process_still_refreshes_is_waited_for_without_a_worker(connect, store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__REQUEST_DEADLINE_SECONDS", "0.2")
    monkeypatch.setattr(renewing, "WAIT_OVER_DEADLINE", timedelta())
    held, free = connect(suffix="_held"), connect(suffix="_free")
    held.enrolled(store)
    lease = store.credentials.lease(held.conn_id, "another process", timedelta(minutes=2), utcnow())
    operator = RefreshOperator(task_id="refresh", conn_ids=[held.conn_id, free.conn_id])
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(task_context("refresh"))
    assert deferred.value.trigger.moment >= lease.credential.leased_until
    assert free.credential(store).generation == 2
    still_busy = operator.go_on(task_context("refresh"), {}, json.loads(json.dumps(deferred.value.kwargs["earlier"])))
    assert still_busy["outcomes"] == {held.conn_id: "busy", free.conn_id: "renewed"}
    store.credentials.release(lease)
    context = task_context("refresh")
    gone_on = operator.go_on(context, {}, json.loads(json.dumps(deferred.value.kwargs["earlier"])))
    assert gone_on == {"outcomes": {held.conn_id: "renewed", free.conn_id: "renewed"}, "investigations": []}
    assert context[LABEL] == "2 due, 2 fine, 0 to look into"


def test_workers_that_start_together_send_one_refresh(connect, store, server):
    """With reuse detection a second one would end the family."""
    guarded = connect(client={"rotation": True, "reuse_detection": True})
    guarded.enrolled(store)
    gate = threading.Barrier(4)

    def work(number: int) -> str:
        gate.wait(timeout=10)
        context = task_context("refresh", map_index=number)
        return refreshed(guarded.conn_id, context=context)["outcomes"][guarded.conn_id]

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(work, range(4)))
    assert outcomes.count("renewed") == 1
    assert set(outcomes) <= {"renewed", "busy", "fresh"}
    assert len(guarded.token_requests()) == 1
    assert server.truth(guarded.conn_id).grant_live


def test_nothing_due_is_nothing_done(store):
    assert refreshed() == {"outcomes": {}, "investigations": []}


def test_a_lost_answer_that_nobody_hears_of_any_more_is_handed_over_again(connect, store, monkeypatch):
    """The connection could not be read for a moment, and the incident about that took the other one's place."""
    guarded = connect(client={"rotation": True})
    refreshed(guarded.conn_id)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    real = base.send

    async def loses(request, *, deadline):
        answer = await real(request, deadline=deadline)
        return (
            NoAnswer("it broke off", maybe_processed=True, received_at=utcnow()) if request.method == "POST" else answer
        )

    monkeypatch.setattr(base, "send", loses)
    [question] = refreshed(guarded.conn_id)["investigations"]
    looked_into(store, guarded, question)
    due = DueCredentialsOperator(task_id="due", connections=[guarded.conn_id])
    with monkeypatch.context() as hiccup:
        hiccup.delenv(f"AIRFLOW_CONN_{guarded.conn_id.upper()}")
        due.execute(task_context("due"))
    assert guarded.incident(store).kind is IncidentKind.MISCONFIGURED
    due.execute(task_context("due"))
    assert guarded.incident(store) is None
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    result = refreshed(guarded.conn_id)
    assert result["outcomes"] == {guarded.conn_id: "held"}
    [again] = result["investigations"]
    looked_into(store, guarded, again)
    assert guarded.incident(store).kind is IncidentKind.AMBIGUOUS
    assert refreshed(guarded.conn_id) == {"outcomes": {guarded.conn_id: "held"}, "investigations": []}


def test_of_several_that_broke_each_is_logged_and_the_first_is_raised(connect, store, monkeypatch, caplog, capsys):
    first, second, good = connect(suffix="_first"), connect(suffix="_second"), connect(suffix="_good")
    errors = {first.conn_id: LeaseLostError("the first"), second.conn_id: StoreUnavailableError("the second")}
    real = OAuthGuardHook.refresh

    async def breaks(self, *args, **how):
        if self.oauth_guard_conn_id in errors:
            # The second is the first to break.
            await asyncio.sleep(0.1 if self.oauth_guard_conn_id == first.conn_id else 0)
            raise errors[self.oauth_guard_conn_id]
        return await real(self, *args, **how)

    monkeypatch.setattr(OAuthGuardHook, "refresh", breaks)
    with pytest.raises(LeaseLostError, match="the first"):
        refreshed(first.conn_id, second.conn_id, good.conn_id)
    # A task's log goes through structlog from Airflow 3.2 on.
    logged = caplog.text + capsys.readouterr().out
    for conn_id in errors:
        assert f"`{conn_id}` could not be refreshed" in logged
    assert good.credential(store).generation == 2


def test_a_lease_from_a_clock_that_was_a_year_ahead_makes_nobody_wait_that_long(connect, store, monkeypatch):
    guarded, sane = connect(suffix="_ahead"), connect(suffix="_sane")
    for one, ahead in ((guarded, timedelta(days=365)), (sane, timedelta())):
        one.enrolled(store)
        store.credentials.lease(one.conn_id, "another process", timedelta(minutes=2), utcnow() + ahead)

    async def busy(self, *args, **how):
        return RefreshResult(self.oauth_guard_conn_id, Refreshed.BUSY, "another process is still refreshing it")

    monkeypatch.setattr(OAuthGuardHook, "refresh", busy)
    with pytest.raises(TaskDeferred) as deferred:
        refreshed(guarded.conn_id, sane.conn_id)
    sane_end = sane.credential(store).leased_until
    assert sane_end <= deferred.value.trigger.moment <= sane_end + timedelta(seconds=1)
    with pytest.raises(TaskDeferred) as deferred:
        refreshed(guarded.conn_id)
    assert deferred.value.trigger.moment <= utcnow() + timedelta(seconds=1)


def test_a_lease_from_a_clock_that_was_a_year_ahead_is_taken(connect, store):
    guarded = connect()
    guarded.enrolled(store)
    store.credentials.lease(guarded.conn_id, "its clock is wrong", timedelta(minutes=2), utcnow() + timedelta(days=365))
    assert refreshed(guarded.conn_id)["outcomes"] == {guarded.conn_id: "renewed"}
