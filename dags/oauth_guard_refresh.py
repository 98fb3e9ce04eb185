"""Keep every guarded credential fresh.

Name the connections in the Airflow Variable ``oauth_guard_connections``, a JSON list of connection ids; imported
credentials are guarded as well. What fails is looked into by the DAG ``oauth_guard_investigate``.
"""

from __future__ import annotations

import pendulum
from airflow.configuration import conf
from airflow.sdk import DAG

from airflow_oauth_guard.task_groups.guard import guard_due_credentials

with DAG(
    dag_id="oauth_guard_refresh",
    schedule=conf.get("oauth_guard", "refresh_schedule", fallback="*/5 * * * *"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["oauth-guard"],
    doc_md=__doc__,
):
    guard_due_credentials("{{ var.value.get('oauth_guard_connections', '[]') }}")
