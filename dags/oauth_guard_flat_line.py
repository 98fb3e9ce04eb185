"""Notice sources that have gone quiet.

Declare them in the Airflow Variable ``oauth_guard_sources``, a JSON list such as
``[{"name": "crm_contacts", "window_seconds": 86400, "credential": "crm_prod"}]``; sources that a HeartbeatOperator
declares are watched as well.
"""

from __future__ import annotations

import pendulum
from airflow.configuration import conf
from airflow.sdk import DAG

from airflow_oauth_guard.task_groups.flat_line import watch_sources

with DAG(
    dag_id="oauth_guard_flat_line",
    schedule=conf.get("oauth_guard", "flat_line_schedule", fallback="*/15 * * * *"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["oauth-guard"],
    doc_md=__doc__,
):
    watch_sources("{{ var.value.get('oauth_guard_sources', '[]') }}")
