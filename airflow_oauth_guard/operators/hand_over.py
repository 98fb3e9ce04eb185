"""Hand questions over to the DAG that looks into them, without waiting for it."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

from airflow_oauth_guard.hooks.config import duration, get_store
from airflow_oauth_guard.hooks.investigation import abandoned_before
from airflow_oauth_guard.hooks.transport import utcnow

AT_MOST = 200
"""Questions per run, well under Airflow's limit of 1024 mapped tasks; the rest is handed over by the next cycle."""


class HandOverOperator(TriggerDagRunOperator):
    """Trigger one run of the investigating DAG for the questions this run raised, and those nobody has taken on, or whose
    run is gone. Skips if there are none.

    An approval may wait for days there; it holds up nothing here.
    """

    def __init__(self, *, trigger_dag_id: str = "oauth_guard_investigate", **kwargs: Any) -> None:
        super().__init__(trigger_dag_id=trigger_dag_id, **kwargs)

    def execute(self, context: Any) -> Any:
        store, run_id, now = get_store(), context["ti"].run_id, utcnow()
        inconclusive = abandoned_before(now)
        unanswered = inconclusive - duration("approval_seconds")
        waiting = [
            question["id"]
            for question in store.investigations.open_ones()
            if question["run_id"] == run_id
            or question["handed_over_at"] is None
            or question["handed_over_at"] < (inconclusive if question["conclusion_evidence_id"] is None else unanswered)
        ]
        if not waiting:
            raise AirflowSkipException("No refresh of this run raised a question.")
        if len(waiting) > AT_MOST:
            self.log.warning("%d questions; %d are handed over now, the rest later", len(waiting), AT_MOST)
        store.investigations.handed_over(waiting[:AT_MOST], now)
        self.conf = {"investigations": waiting[:AT_MOST]}
        # Not to begin like a scheduled run's id: Airflow 3.1 and 3.2 refuse to trigger a run that does.
        self.trigger_run_id = f"questions__{run_id}__try{context['ti'].try_number}"
        return super().execute(context)
