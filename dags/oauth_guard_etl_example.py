"""An existing pipeline that gains the guard at its head and a heartbeat at its tail.

``load`` is the pipeline as it was, but for one line: it takes its session from the guarded connection.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Variable, task

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.hooks.registry import get_hook
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator
from airflow_oauth_guard.task_groups.guard import guard_credential

with DAG(
    dag_id="oauth_guard_etl_example",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["oauth-guard", "example"],
    doc_md=__doc__,
):

    @task
    def load() -> int:
        """Fetch the contacts and return how many there were."""
        with get_hook("crm_prod").get_conn() as session:
            answer = session.get(Variable.get("crm_contacts_url"), timeout=30)
            answer.raise_for_status()
            return len(answer.json()["rows"])

    heartbeat = HeartbeatOperator(
        task_id="heartbeat",
        source=Source("crm_contacts", window=timedelta(hours=24), credential="crm_prod"),
        rows="{{ ti.xcom_pull('load') }}",
    )

    guard_credential("crm_prod") >> load() >> heartbeat
