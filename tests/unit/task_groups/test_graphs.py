"""The shape of the graphs people see: who follows whom, and what no trigger rule may decide."""

from __future__ import annotations

import runpy
from pathlib import Path

import pendulum
import pytest

pytest.importorskip("airflow", reason="graphs need Airflow")

from airflow.sdk import DAG

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.operators.approval import ExpireApprovalOperator
from airflow_oauth_guard.operators.require_usable import RequireUsableOperator
from airflow_oauth_guard.sensors.probe import ProbeSensor
from airflow_oauth_guard.task_groups.flat_line import watch_sources
from airflow_oauth_guard.task_groups.guard import (
    REFRESH_SOURCE,
    guard_credential,
    guard_due_credentials,
    investigate_failures,
)
from tests.airflow_parts import Recorder, task_context

pytestmark = pytest.mark.airflow

DAGS = Path(__file__).resolve().parents[3] / "dags"


def dag(build) -> DAG:
    with DAG("graph", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as it:
        build()
    return it


def edges(it: DAG) -> dict[str, set[str]]:
    return {task_id: set(task.downstream_task_ids) for task_id, task in it.task_dict.items()}


def rules(it: DAG) -> dict[str, str]:
    return {
        task_id: str(getattr(task.trigger_rule, "value", task.trigger_rule)) for task_id, task in it.task_dict.items()
    }


def mapped(it: DAG) -> set[str]:
    return {task_id for task_id, task in it.task_dict.items() if task.is_mapped}


def test_due_credentials_are_refreshed_handed_over_and_reported_with_a_heartbeat_always():
    it = dag(lambda: guard_due_credentials(["crm_prod"]))
    assert edges(it) == {
        "guard.due": {"guard.refresh", "guard.complete"},
        "guard.refresh": {"guard.hand_over", "guard.heartbeat", "guard.complete"},
        "guard.hand_over": {"guard.report", "guard.complete"},
        "guard.report": {"guard.complete"},
        "guard.heartbeat": {"guard.complete"},
        "guard.detector": {"guard.complete"},
        "guard.complete": set(),
    }
    assert rules(it) == {
        "guard.due": "all_success",
        "guard.refresh": "all_success",
        "guard.hand_over": "all_done",
        "guard.report": "all_done",
        "guard.heartbeat": "all_done",
        "guard.detector": "all_success",
        "guard.complete": "none_failed",
    }
    assert mapped(it) == {"guard.refresh"}
    assert it.task_dict["guard.heartbeat"].source == REFRESH_SOURCE
    assert it.task_dict["guard.heartbeat"].rows == "{{ ti.xcom_pull(task_ids='guard.due', key='guarded') }}"


def test_the_report_is_the_last_word_so_no_run_hides_a_failed_refresh():
    it = dag(guard_due_credentials)
    leaves = {task.task_id for task in it.leaves}
    assert leaves == {"guard.complete"}, "else a failed `due` or `refresh` would leave the run green"
    assert it.task_dict["guard.report"].retries == 0, "saying it again changes nothing"


def test_each_question_has_a_chain_of_its_own():
    it = dag(investigate_failures)
    assert edges(it) == {
        "questions": {"investigate.probe", "investigate.approve", "investigate.expire", "investigate.report"},
        "investigate.probe": {"investigate.approve"},
        "investigate.approve": {"investigate.expire"},
        "investigate.expire": {"investigate.report"},
        "investigate.report": set(),
    }
    assert type(it.task_group.children["investigate"]).__name__ == "MappedTaskGroup"


def test_no_trigger_rule_stands_between_a_healthy_credential_and_its_expiry():
    """`one_failed` inside a mapped group expired the healthy ones before Airflow 3.3."""
    for it in (dag(investigate_failures), dag(lambda: guard_credential("crm_prod"))):
        found = {task_id.rpartition(".")[2]: rule for task_id, rule in rules(it).items()}
        assert found["probe"] == found["approve"] == found["expire"] == "all_success"
        assert found["report"] == "all_done"
        assert not {"one_failed", "all_failed", "none_failed", "always"} & set(found.values())


def test_probing_waits_in_the_triggerer_and_the_approval_defaults_to_no():
    it = dag(investigate_failures)
    probe, approve = it.task_dict["investigate.probe"], it.task_dict["investigate.approve"]
    assert isinstance(probe, ProbeSensor)
    assert probe.deferrable
    assert isinstance(approve, ExpireApprovalOperator)
    assert approve.defaults == ["Keep it"]
    assert approve.response_timeout is not None
    assert it.task_dict["investigate.report"].retries == 0


def test_the_questions_are_those_the_run_was_triggered_with():
    it = dag(investigate_failures)
    questions = it.task_dict["questions"].python_callable
    assert questions(**task_context(conf={"investigations": ["7", 8]})) == [7, 8]
    assert questions(**task_context()) == []


def test_one_credential_at_the_head_of_a_pipeline_has_the_same_chain_and_a_gate():
    gates = []
    it = dag(lambda: gates.append(guard_credential("crm_prod")))
    group = "guard_crm_prod."
    assert {a.removeprefix(group): {b.removeprefix(group) for b in bs} for a, bs in edges(it).items()} == {
        "refresh": {"probe", "usable"},
        "probe": {"approve", "usable"},
        "approve": {"expire"},
        "expire": {"report"},
        "report": set(),
        "usable": set(),
    }
    [gate] = gates
    assert isinstance(gate, RequireUsableOperator)
    assert (gate.conn_id, gate.trigger_rule, gate.retries) == ("crm_prod", "all_done", 0)
    assert mapped(it) == set()


@pytest.mark.parametrize(
    ("pulled", "question"),
    [
        ({"outcomes": {}, "investigations": [7]}, "7"),
        ({"outcomes": {}, "investigations": []}, ""),
        (None, ""),
    ],
)
def test_the_chain_takes_the_question_of_its_refresh_or_none(pulled, question):
    it = dag(lambda: guard_credential("crm_prod"))
    context = task_context()
    asked = []
    context["ti"].xcom_pull = lambda task_ids: asked.append(task_ids) or pulled
    for name in ("probe", "approve", "expire", "report"):
        task = it.task_dict[f"guard_crm_prod.{name}"]
        assert task.render_template(task.investigation, context) == question
    assert set(asked) == {"guard_crm_prod.refresh"}


def test_two_credentials_can_be_guarded_in_one_dag():
    it = dag(lambda: [guard_credential(conn_id) for conn_id in ("crm_prod", "ads_reports")])
    assert len(it.task_dict) == 12


def test_notifiers_reach_every_task_that_tells_people():
    notifiers = {"": [Recorder()]}

    def build() -> None:
        guard_due_credentials(notifiers=notifiers)
        investigate_failures(notifiers=notifiers)

    it = dag(build)
    assert it.task_dict["guard.report"].notifiers == notifiers
    assert it.task_dict["investigate.report"].notifiers == notifiers
    assert it.task_dict["investigate.approve"].notifiers_by_route == notifiers
    flat = dag(lambda: watch_sources(notifiers=notifiers))
    assert flat.task_dict["flat_line.alert"].partial_kwargs["notifiers"] == notifiers


def test_every_graph_fits_into_one_dag():
    def build() -> None:
        guard_due_credentials()
        investigate_failures()
        watch_sources()
        guard_credential("crm_prod")
        guard_credential("ads")

    assert len(dag(build).task_dict) == 28


def test_silence_is_looked_for_told_and_the_look_itself_announced():
    source = Source("crm_contacts", window=pendulum.duration(hours=1))
    it = dag(lambda: watch_sources([source]))
    assert edges(it) == {
        "flat_line.check": {"flat_line.alert", "flat_line.announce"},
        "flat_line.alert": set(),
        "flat_line.announce": set(),
        "flat_line.learn": set(),
    }
    assert mapped(it) == {"flat_line.alert"}
    assert it.task_dict["flat_line.announce"].check_task_id == "flat_line.check"
    assert it.task_dict["flat_line.alert"].retries == 0


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_shipped_dag_builds_and_carries_its_explanation(path, monkeypatch):
    built, enter = [], DAG.__enter__
    monkeypatch.setattr(DAG, "__enter__", lambda it: built.append(it) or enter(it))
    runpy.run_path(str(path))
    [shipped] = built
    assert shipped.dag_id == path.stem
    assert shipped.doc_md
    assert not shipped.catchup
    assert shipped.task_dict
