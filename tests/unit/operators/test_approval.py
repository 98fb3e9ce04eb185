from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_oauth_guard.domain.evidence import Finding, Kind, Subject
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError
from airflow_oauth_guard.hooks.context import LABEL, observer
from airflow_oauth_guard.operators.approval import BY_POLICY, EXPIRE, KEEP, ExpireApprovalOperator
from tests.airflow_parts import Recorder, asked, concluded, enrolled, proven_dead, renew, task_context, used_by

try:
    from airflow.sdk.exceptions import TaskAwaitingInput
except ImportError:
    # Airflow before 3.3 waits in the triggerer.
    TaskAwaitingInput = TaskDeferred

pytestmark = pytest.mark.airflow

WAITS = (TaskDeferred, TaskAwaitingInput)


@pytest.fixture
def questions(monkeypatch) -> list[dict[str, Any]]:
    """What people are shown: the request goes to Airflow's API server, which is out of reach here."""
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **it: shown.append(it))
    return shown


def approval(question: int | str, **how: Any) -> ExpireApprovalOperator:
    return ExpireApprovalOperator(task_id="approve", investigation=question, **how)


def answered(option: str, by: Any = None) -> dict[str, Any]:
    """The event that ends the wait."""
    return {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": datetime.now(timezone.utc),
        "responded_by_user": by,
        "timedout": by is None,
    }


def test_a_person_is_asked_and_told_what_it_rests_on(store, questions):
    question = proven_dead(store)
    with pytest.raises(WAITS):
        approval(str(question)).execute(task_context("approve"))
    [shown] = questions
    assert shown["subject"] == "Expire the credential `crm`?"
    assert "The grant is dead: made for a test." in shown["body"]
    assert f"evidence {store.investigation(question).conclusion_evidence_id}" in shown["body"]
    assert "the tokens are kept" in shown["body"]
    assert "crm-refresh-1" not in f"{shown}"
    assert (shown["options"], shown["defaults"]) == ([EXPIRE, KEEP], [KEEP])
    assert store.investigation(question).asked_at is not None


def test_a_person_who_decides_sees_whom_it_feeds(store, questions):
    question = proven_dead(store)
    used_by(store, "crm", "crm_load")
    store.sources.register([Source("crm_deals", timedelta(days=1), credential="crm")], datetime.now(timezone.utc))
    with pytest.raises(WAITS):
        approval(question).execute(task_context("approve"))
    [shown] = questions
    fed = "Feeds 1 DAG (`crm_load`) and 1 source (`crm_deals`). Expiring it makes every consumer fail loudly"
    assert fed in shown["body"]


def test_the_question_says_where_its_request_waits(store, questions):
    question, context = proven_dead(store), task_context("approve", run_id="manual__7", map_index=3)
    with pytest.raises(WAITS):
        approval(question).execute(context)
    asked_in = store.investigation(question).asked_in
    assert asked_in == observer(context)
    assert (asked_in.run_id, asked_in.task_id, asked_in.map_index) == ("manual__7", "approve", 3)


def test_the_alert_goes_out_before_the_wait(store, questions):
    question, recorder = proven_dead(store), Recorder()
    with pytest.raises(WAITS):
        approval(question, notifiers_by_route={"": [recorder]}).execute(task_context("approve"))
    [sent] = recorder.sent
    assert sent.startswith("credential `crm`: the grant is proven dead")


def test_nothing_is_asked_and_nobody_is_told_where_no_death_is_proven(store, questions):
    enrolled(store)
    question, recorder = asked(store), Recorder()
    operator = approval(question, notifiers_by_route={"": [recorder]})
    with pytest.raises(AirflowSkipException, match="`crm`: no death is proven"):
        operator.execute(task_context("approve"))
    concluded(store, question, Finding.UNKNOWN, proven=False)
    context = task_context("approve")
    with pytest.raises(AirflowSkipException):
        operator.execute(context)
    assert context[LABEL] == "crm: nothing to approve"
    assert (questions, recorder.sent) == ([], [])


def test_a_question_that_answered_itself_is_not_asked(store, questions):
    question = proven_dead(store)
    renew(store)
    with pytest.raises(AirflowSkipException):
        approval(question).execute(task_context("approve"))
    assert questions == []


def test_the_policy_evidence_passes_at_once_and_is_written_down_as_the_approver(store, questions):
    question = proven_dead(store, expire_policy="evidence")
    assert approval(question).execute(task_context("approve"))["answer"] == "approved"
    assert questions == []
    found = store.investigation(question)
    assert (found.answer, found.answered_by) == ("approved", "policy: evidence suffices")


def test_the_policy_evidence_does_not_stand_in_for_evidence(store, questions):
    enrolled(store, expire_policy="evidence")
    question = asked(store)
    concluded(store, question, Finding.UNKNOWN, proven=False)
    with pytest.raises(AirflowSkipException):
        approval(question).execute(task_context("approve"))
    assert store.investigation(question).answer is None


@pytest.mark.parametrize(
    ("option", "user", "answer", "by"),
    [
        (EXPIRE, {"id": "7", "name": "ada"}, "approved", "ada"),
        (EXPIRE, {"id": "7", "name": ""}, "approved", "7"),
        (KEEP, {"id": "7", "name": "ada"}, "declined", "ada"),
        (KEEP, None, "unanswered", "nobody: time ran out"),
    ],
)
def test_the_answer_and_who_gave_it_are_kept(option, user, answer, by, store):
    question, context = proven_dead(store), task_context("approve")
    assert approval(question).execute_complete(context, answered(option, user)) == {"answer": answer, "by": by}
    found = store.investigation(question)
    assert (found.answer, found.answered_by) == (answer, by)
    assert context[LABEL] == f"crm: {answer}"


def test_the_default_is_no():
    operator = approval(1)
    assert operator.defaults == [KEEP]
    assert operator.response_timeout.days == 3


def test_the_time_for_an_answer_is_configurable(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__APPROVAL_SECONDS", "60")
    assert approval(1).response_timeout.total_seconds() == 60


def test_an_investigation_nobody_opened_is_an_error(store):
    with pytest.raises(NotRegisteredError, match="no investigation 41"):
        approval(41).execute(task_context("approve"))


def test_no_question_is_a_skip(store, questions):
    """guard_credential renders an empty text where the refresh raised none."""
    with pytest.raises(AirflowSkipException):
        approval("").execute(task_context("approve"))
    assert questions == []


# -- the wait before an expiry without a person -------------------------------------------------------------------------


@pytest.fixture
def waiting(monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__EXPIRE_WAIT_SECONDS", "21600")


@pytest.mark.usefixtures("waiting")
def test_by_policy_a_proven_death_waits_for_hours_before_it_is_approved(store):
    question = proven_dead(store, expire_policy="evidence")
    with pytest.raises(TaskDeferred) as deferred:
        approval(question).execute(task_context("approve"))
    assert deferred.value.method_name == "resume_after_wait"
    left = deferred.value.trigger.moment - datetime.now(timezone.utc)
    assert timedelta(hours=5) < left <= timedelta(hours=6)
    assert store.investigation(question).answer is None


def test_after_the_wait_the_proof_is_approved_by_policy(store):
    question = proven_dead(store, expire_policy="evidence")
    assert approval(question).resume_after_wait(task_context("approve"))["by"] == BY_POLICY


@pytest.mark.usefixtures("waiting")
def test_a_renewal_during_the_wait_ends_the_question(store):
    question = proven_dead(store, expire_policy="evidence")
    renew(store, "crm")
    with pytest.raises(AirflowSkipException, match="nothing to approve"):
        approval(question).resume_after_wait(task_context("approve"))


def test_a_provider_that_says_something_else_by_then_keeps_its_credential(store):
    question = proven_dead(store, expire_policy="evidence")
    credential = store.investigation(question).credential
    changed = store.credentials.latest_evidence(credential, Kind.REFRESH)
    assert changed is not None
    reading = replace(changed.reading, finding=Finding.PROVIDER_OUTAGE, subject=Subject.PROVIDER)
    store.credentials.record(credential, replace(changed, id=None, reading=reading), datetime.now(timezone.utc))
    with pytest.raises(AirflowSkipException, match="kept for now"):
        approval(question).resume_after_wait(task_context("approve"))
    kept = store.investigation(question)
    assert (kept.answer, kept.credential.status) == (None, Status.ACTIVE)
    assert kept.closed_at is not None, "or no later failure could raise a question"
