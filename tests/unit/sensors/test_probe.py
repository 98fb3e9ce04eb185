from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="sensors need Airflow")

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, TaskDeferred

from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError, OAuthGuardError
from airflow_oauth_guard.hooks.context import LABEL
from airflow_oauth_guard.sensors.probe import ProbeSensor
from airflow_oauth_guard.triggers.probe import ProbeTrigger
from tests.airflow_parts import (
    PAUSE,
    expire,
    looked_into,
    make_due,
    proven_dead,
    question_of,
    renew,
    rows,
    task_context,
)

pytestmark = pytest.mark.airflow


def sensor(question: int | str | None, **how) -> ProbeSensor:
    given = {"pause": PAUSE, "give_up_after": timedelta(seconds=30), "poke_interval": 0.05, "deferrable": False}
    return ProbeSensor(task_id="probe", investigation=question, **{**given, **how})


def revoked(connect, store, server):
    """A credential that worked, and whose grant was then taken back; with its question."""
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    return guarded, question_of(store, guarded)


@pytest.mark.parametrize("nothing", ["", None])
@pytest.mark.parametrize("deferrable", [True, False])
def test_without_a_question_it_skips(nothing, deferrable, store):
    with pytest.raises(AirflowSkipException, match="No refresh raised a question"):
        sensor(nothing, deferrable=deferrable).execute(task_context("probe"))


def test_in_a_worker_it_looks_until_it_can_conclude_and_writes_it_down(connect, store, server):
    guarded, question = revoked(connect, store, server)
    context = task_context("probe")
    found = sensor(str(question)).execute(context)
    assert (found["conn_id"], found["finding"]) == (guarded.conn_id, "grant_dead")
    assert found["owner"] == "the owner of the account at the provider"
    assert "The grant is dead" in found["explanation"]
    assert context[LABEL] == f"{guarded.conn_id}: grant_dead"
    investigation = store.investigation(question)
    assert (investigation.finding, investigation.closed_at) == ("grant_dead", None)
    assert guarded.credential(store).status is Status.LAPSED, "the access token was revoked as well"
    evidence = store.investigations.evidence(investigation)
    assert {item.observer.task_id for item in evidence[1:]} == {"probe"}


def test_it_never_expires_a_credential(connect, store, server):
    _, question = revoked(connect, store, server)
    sensor(question).execute(task_context("probe"))
    assert [row["to_status"] for row in rows(store, "oauth_guard_transitions")] == ["lapsed"]


def test_the_incident_is_concluded_as_our_own_mistake(connect, store):
    guarded = connect(client={"grant_types": ("fb_exchange_token",)}, mint={"with_refresh": True})
    question = question_of(store, guarded)
    assert sensor(question).execute(task_context("probe"))["finding"] == "request_malformed"
    assert guarded.credential(store).status is Status.ACTIVE
    assert store.investigation(question).closed_at is not None


def test_deferred_it_hands_ids_and_durations_to_the_triggerer(store):
    question = proven_dead(store)
    with pytest.raises(TaskDeferred) as raised:
        sensor(str(question), deferrable=True).execute(task_context("probe", map_index=2))
    trigger = raised.value.trigger
    assert isinstance(trigger, ProbeTrigger)
    assert raised.value.method_name == "execute_complete"
    assert raised.value.timeout == timedelta(seconds=60)
    assert (trigger.investigation, trigger.pause_seconds, trigger.give_up_seconds) == (question, 0.1, 30)
    assert trigger.observer["map_index"] == 2


def test_what_the_triggerer_says_is_not_believed_but_read_again_from_the_evidence(connect, store, server):
    """A status is not taken from a message, wherever it came from."""
    guarded = connect()
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(status=503)
    question = question_of(store, guarded)
    event = {"investigation": question, "finding": "grant_dead"}
    found = sensor(question, deferrable=True).execute_complete(task_context("probe"), event)
    assert found["finding"] == "provider_outage"
    assert store.investigation(question).finding == "provider_outage"
    assert guarded.credential(store).status is Status.ACTIVE


def test_an_event_that_comes_too_early_concludes_nothing(connect, store, server):
    guarded, question = revoked(connect, store, server)
    event = {"investigation": question, "finding": "grant_dead"}
    operator = sensor(question, deferrable=True, pause=timedelta(hours=1))
    with pytest.raises((AssertionError, AirflowException, OAuthGuardError)):
        operator.execute_complete(task_context("probe"), event)
    assert store.investigation(question).finding is None
    assert guarded.credential(store).status is Status.ACTIVE


def test_what_was_concluded_once_is_said_again_and_written_once(connect, store, server):
    guarded, question = revoked(connect, store, server)
    looked_into(store, guarded, question)
    sent = len(server.requests())
    event = {"investigation": question, "finding": "grant_dead"}
    found = sensor(question, deferrable=True).execute_complete(task_context("probe"), event)
    assert found["finding"] == "grant_dead"
    assert len(server.requests()) == sent
    concluded = [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == "conclusion"]
    assert sorted(row["finding"] for row in concluded) == ["access_token_dead", "grant_dead"]


def test_a_question_that_answered_itself_is_green(connect, store, server):
    guarded, question = revoked(connect, store, server)
    renew(store, guarded.conn_id)
    found = sensor(question).execute(task_context("probe"))
    assert found["finding"] == "live"
    assert "a refresh succeeded" in found["explanation"]
    assert guarded.incident(store) is None


def test_an_expired_credential_stays_expired_whatever_is_found(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    expire(store, guarded.conn_id)
    server.revoke(guarded.conn_id, access=False)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    sensor(question).execute(task_context("probe"))
    assert guarded.credential(store).status is Status.EXPIRED


def test_an_investigation_nobody_opened_is_an_error(store):
    with pytest.raises(NotRegisteredError, match="no investigation 41"):
        sensor(41).execute(task_context("probe"))


def test_its_patience_comes_from_the_configuration(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__CONFIRMATION_PAUSE_SECONDS", "8")
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__INVESTIGATION_SECONDS", "90")
    operator = ProbeSensor(task_id="probe", investigation=1)
    assert (operator.patience.pause.total_seconds(), operator.patience.give_up_after.total_seconds()) == (8, 90)
    assert (operator.poke_interval, operator.timeout) == (2, 180)
