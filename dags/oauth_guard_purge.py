"""Delete history that has had its time, once a day.

Evidence goes after ``[oauth_guard] evidence_retention_days`` and heartbeats after ``heartbeat_retention_days``. What a
status, an open question or the next decision rests on stays.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_oauth_guard.operators.purge import PurgeOperator

with DAG(
    dag_id="oauth_guard_purge",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["oauth-guard"],
    doc_md=__doc__,
):
    PurgeOperator(task_id="purge")
