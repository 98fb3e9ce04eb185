"""Look into refreshes that failed: probe, run the controls, ask a person before anything is set expired, and report.

Triggered by ``oauth_guard_refresh``. It is a DAG of its own because an approval may wait for days, and must not hold up
the next refresh.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_oauth_guard.task_groups.guard import investigate_failures

with DAG(
    dag_id="oauth_guard_investigate",
    schedule=None,
    catchup=False,
    # Runs that wait for a person hold nothing but their place here.
    max_active_runs=500,
    is_paused_upon_creation=False,
    tags=["oauth-guard"],
    doc_md=__doc__,
):
    investigate_failures()
