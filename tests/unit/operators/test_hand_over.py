from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow.providers.common.compat.sdk import AirflowSkipException, DagRunTriggerException
from airflow.utils.types import DagRunType

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.hooks.investigation import ABANDONED_AFTER
from airflow_oauth_guard.operators import hand_over
from airflow_oauth_guard.operators.hand_over import HandOverOperator
from tests.airflow_parts import asked, concluded, enrolled, proven_dead, renew, task_context, utcnow

pytestmark = pytest.mark.airflow

RUN = "scheduled__2026-03-01"


def handed_over(**how: Any) -> DagRunTriggerException:
    """What Airflow is asked to trigger."""
    with pytest.raises(DagRunTriggerException) as raised:
        HandOverOperator(task_id="hand_over", **how).execute(task_context("hand_over", run_id=RUN, try_number=2))
    return raised.value


def question(store, conn_id: str = "crm", run_id: str = RUN, **changes: Any) -> int:
    enrolled(store, conn_id)
    return asked(store, conn_id, who=Observer("oauth_guard_refresh", run_id, "refresh", 0, 1), **changes)


def nothing_to_hand_over() -> None:
    with pytest.raises(AirflowSkipException, match="No refresh of this run raised a question"):
        HandOverOperator(task_id="hand_over").execute(task_context("hand_over", run_id=RUN))


def test_the_questions_of_this_run_are_handed_over_without_waiting(store):
    first, second = question(store, "ads"), question(store, "crm")
    triggered = handed_over()
    assert triggered.trigger_dag_id == "oauth_guard_investigate"
    assert triggered.conf["investigations"] == [first, second]
    assert triggered.dag_run_id == f"questions__{RUN}__try2"
    assert DagRunType.from_run_id(triggered.dag_run_id) is DagRunType.MANUAL, (
        "others Airflow 3.1 does not let us trigger"
    )
    assert not triggered.wait_for_completion


def test_another_dag_may_look_into_them(store):
    question(store)
    assert handed_over(trigger_dag_id="mine").trigger_dag_id == "mine"


def test_without_a_question_nothing_is_triggered(store):
    enrolled(store)
    nothing_to_hand_over()


def test_what_another_run_handed_over_is_left_to_it(store):
    question(store, run_id="scheduled__before")
    nothing_to_hand_over()


def test_a_question_that_answered_itself_is_not_handed_over(store):
    question(store)
    renew(store)
    nothing_to_hand_over()


def test_a_question_whose_run_was_lost_is_handed_over_again(store):
    long_ago = utcnow() - timedelta(seconds=1800) - ABANDONED_AFTER
    abandoned = question(store, run_id="scheduled__before", at=long_ago - timedelta(seconds=1))
    assert handed_over().conf["investigations"] == [abandoned]


def test_a_proven_death_that_waits_for_a_person_is_not_handed_over_again(store):
    """An approval may take days; asking a second time would show a second question."""
    long_ago = utcnow() - timedelta(days=2)
    concluded(store, question(store, run_id="scheduled__before", at=long_ago))
    nothing_to_hand_over()


def test_at_most_so_many_go_at_once(store, monkeypatch):
    monkeypatch.setattr(hand_over, "AT_MOST", 2)
    questions = [question(store, f"crm_{number}") for number in range(3)]
    assert handed_over().conf["investigations"] == questions[:2]


def test_a_question_whose_run_is_gone_is_handed_over_again_once_nobody_can_answer_any_more(store, monkeypatch):
    question = proven_dead(store)
    store.investigations.asked(question, Observer(), utcnow())
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__APPROVAL_SECONDS", "3600")
    nothing_to_hand_over()
    with time_machine.travel(utcnow() + timedelta(hours=1, minutes=41), tick=False):
        assert handed_over().conf["investigations"] == [question]
