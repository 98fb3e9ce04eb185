"""The ways in which a failing credential could have gone unnoticed; each was one once."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import time_machine

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.errors import NeedsAPersonError, StoreConfigurationError
from airflow_oauth_guard.hooks import config
from airflow_oauth_guard.operators.approval import ExpireApprovalOperator
from airflow_oauth_guard.operators.due import CONNECTIONS_VARIABLE, DueCredentialsOperator
from airflow_oauth_guard.operators.hand_over import HandOverOperator
from airflow_oauth_guard.operators.report import ReportOpenOperator
from airflow_oauth_guard.store.incidents import Symptom
from tests.airflow_parts import enrolled, make_due, proven_dead, task_context, utcnow

pytestmark = pytest.mark.airflow


def report() -> str:
    return ReportOpenOperator(task_id="report").execute(task_context("report"))


def symptom(kind: IncidentKind, **changes) -> Symptom:
    given = {
        "about": About.CREDENTIAL,
        "name": "crm",
        "kind": kind,
        "summary": "Made for a test.",
        "opened_at": utcnow(),
    }
    return Symptom(**{**given, **changes})


def test_a_failure_in_a_pipelines_get_token_raises_a_question_that_the_refresh_dag_hands_over(
    store, connect, monkeypatch
):
    guarded = connect("refresh_token")
    guarded.fault(status=400, body={"error": "invalid_request"})
    assert guarded.hook().get_token() == guarded.minted.access_token, "nothing is known against it"
    [question] = store.investigations.open_ones()
    with pytest.raises(NeedsAPersonError, match="its refresh failed"):
        report()
    operator = HandOverOperator(task_id="hand_over")
    monkeypatch.setattr("airflow_oauth_guard.operators.hand_over.TriggerDagRunOperator.execute", lambda it, _: it.conf)
    assert operator.execute(task_context("hand_over", run_id="a refresh run")) == {"investigations": [question["id"]]}
    with pytest.raises(AirflowSkipException):
        operator.execute(task_context("hand_over", run_id="the next refresh run"))


def test_an_outage_that_nobody_looked_into_turns_red_when_little_life_is_left(store, connect):
    guarded = connect("refresh_token")
    credential = guarded.enrolled(store)
    make_due(store, credential.conn_id, life_left=timedelta(minutes=15))
    guarded.fault(status=503)
    guarded.refresh(store)
    assert "Nobody is needed" in report()
    with time_machine.travel(utcnow() + timedelta(minutes=6)), pytest.raises(NeedsAPersonError, match="HTTP 503"):
        report()


def test_an_outage_does_not_turn_what_needs_a_person_into_something_that_waits(store):
    store.incidents.open(symptom(IncidentKind.REQUEST_MALFORMED), utcnow())
    later = symptom(IncidentKind.PROVIDER_OUTAGE, escalates_at=utcnow() + timedelta(hours=1))
    assert store.incidents.open(later, utcnow()).kind is IncidentKind.REQUEST_MALFORMED
    with pytest.raises(NeedsAPersonError):
        report()


def test_a_stray_comma_in_the_variable_is_red_and_stops_no_refresh_of_what_is_known(store, connect):
    guarded = connect("refresh_token")
    guarded.enrolled(store)
    due = DueCredentialsOperator(task_id="due", connections='["one", ]')
    assert due.execute(task_context("due")) == [[guarded.conn_id]]
    with pytest.raises(NeedsAPersonError, match=CONNECTIONS_VARIABLE):
        report()
    DueCredentialsOperator(task_id="due", connections="[]").execute(task_context("due"))
    assert "Nobody is needed" in report()


def test_a_misspelt_connection_is_forgotten_when_nobody_asks_for_it_any_more(store):
    DueCredentialsOperator(task_id="due", connections=["crm_prd"]).execute(task_context("due"))
    with pytest.raises(NeedsAPersonError, match="crm_prd"):
        report()
    DueCredentialsOperator(task_id="due", connections=[]).execute(task_context("due"))
    assert "Nobody is needed" in report()


def test_new_tokens_in_the_connection_are_tried_at_the_next_cycle_although_it_backs_off(
    store, connect, server, monkeypatch
):
    guarded = connect("refresh_token")
    guarded.enrolled(store)
    guarded.fault(status=503, times=1, headers={"Retry-After": "9999"})
    guarded.refresh(store)
    due = DueCredentialsOperator(task_id="due")
    assert due.execute(task_context("due")) == []
    guarded.description["extra"]["refresh_token"] = server.mint(guarded.conn_id).refresh_token
    monkeypatch.setenv(f"AIRFLOW_CONN_{guarded.conn_id.upper()}", json.dumps(guarded.description))
    assert due.execute(task_context("due")) == [[guarded.conn_id]]


def test_a_broken_notifier_does_not_keep_the_question_from_being_asked(store, monkeypatch):
    question = proven_dead(store)
    store.incidents.open(symptom(IncidentKind.GRANT_DEAD), utcnow())

    def broken(*_):
        raise ConnectionError("the chat is down")

    asked = []
    monkeypatch.setattr("airflow_oauth_guard.operators.approval.HITLOperator.execute", lambda it, _: asked.append(it))
    ExpireApprovalOperator(task_id="approve", investigation=question, notifiers_by_route={"": [broken]}).execute(
        task_context("approve")
    )
    assert len(asked) == 1


def test_who_declined_is_not_asked_again_about_the_same_tokens(store):
    first = proven_dead(store)
    store.investigations.answered(first, "declined", "ada", utcnow())
    store.investigations.close(first, utcnow())
    second = proven_dead(store)
    with pytest.raises(AirflowSkipException, match="ada was asked about these tokens"):
        ExpireApprovalOperator(task_id="approve", investigation=second).execute(task_context("approve"))
    assert store.investigation(second).closed_at is not None


@pytest.mark.parametrize("executor", ["CeleryExecutor", "KubernetesExecutor", "LocalExecutor,CeleryExecutor"])
def test_workers_on_several_machines_do_not_each_make_a_store_of_their_own(executor, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    with pytest.raises(StoreConfigurationError, match="store_conn_id"):
        config._embedded()


def test_a_token_that_cannot_be_revived_calls_a_person_well_before_its_end(store):
    credential = enrolled(store, at_half_life=True)
    make_due(store, "crm", life_left=timedelta(minutes=30))
    life = store.credentials.get(credential.conn_id).life
    assert life.lapses_at - life.alarm_at == (life.lapses_at - life.issued_at) / 4 > life.margin
