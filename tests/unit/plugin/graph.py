"""A question that waits in Airflow's graph, and what Airflow wrote into its audit log."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

import pendulum
from airflow.sdk import DAG

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.operators.approval import EXPIRE, KEEP, ExpireApprovalOperator
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import task_context, utcnow
from tests.unit.plugin.browsing import Browser

DAG_ID, TASK_ID = "asks_a_person", "approve"


def asked_in_the_graph(browser: Browser, store: Store, question: int, *, assigned_to: str = "") -> Observer:
    """A run of a DAG, made by Airflow's own API, whose task waits for a person; where that is.

    The task itself does not run: what it leaves in Airflow's database while it waits is written here, since a running one
    takes Airflow's whole execution API into this process.
    """
    from airflow.models.hitl import HITLDetail
    from airflow.utils.session import create_session

    _known_to_airflow(approval(question))
    run_id = f"manual__{uuid4().hex}"
    made = browser.tell(f"/api/v2/dags/{DAG_ID}/dagRuns", {"dag_run_id": run_id, "logical_date": None})
    assert made.status_code == 200, made.text
    with create_session() as session:
        instance = session.scalars(_instance(run_id)).one()
        instance.state = "deferred"
        assignees = [{"id": assigned_to, "name": assigned_to}] if assigned_to else None
        session.add(
            HITLDetail(
                ti_id=instance.id,
                subject="Expire it?",
                options=[EXPIRE, KEEP],
                defaults=[KEEP],
                multiple=False,
                params={},
                assignees=assignees,
            )
        )
    where = Observer(DAG_ID, run_id, TASK_ID, -1, 1)
    store.investigations.asked(question, where, utcnow())
    return where


def approval(question: int) -> ExpireApprovalOperator:
    dag = DAG(DAG_ID, schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"))
    return ExpireApprovalOperator(task_id=TASK_ID, investigation=question, dag=dag)


def _instance(run_id: str) -> Any:
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    return select(TaskInstance).where(TaskInstance.dag_id == DAG_ID, TaskInstance.run_id == run_id)


def answered(where: Observer) -> dict[str, Any]:
    """What the task wakes up with; nothing where nobody has answered yet."""
    from airflow.models.hitl import HITLDetail
    from airflow.utils.session import create_session

    with create_session() as session:
        instance = session.scalars(_instance(str(where.run_id))).one()
        detail = session.get(HITLDetail, instance.id)
        if not detail.response_received:
            return {}
        return {
            "chosen_options": detail.chosen_options,
            "params_input": detail.params_input,
            "responded_at": detail.responded_at,
            "responded_by_user": detail.responded_by_user,
            "timedout": False,
        }


def wake_up(question: int, where: Observer) -> None:
    """Let the task go on with the answer."""
    approval(question).execute_complete(task_context(TASK_ID), answered(where))


def _known_to_airflow(operator: ExpireApprovalOperator) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ModuleNotFoundError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(operator.dag)
    sync_bag_to_db(bag, "dags-folder", None)


def audit_log() -> list[dict[str, Any]]:
    """What Airflow wrote down, oldest first."""
    from airflow.models.log import Log
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(Log).order_by(Log.id)).all()
        return [
            {"event": one.event, "owner": one.owner, "extra": one.extra or "", "run_id": one.run_id} for one in found
        ]
