"""A pipeline in TaskFlow that is handed a session, and says how many rows it moved.

``@guarded`` is all there is of the guard: each request bears a token that is fresh, however long the load takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, Variable, task

from airflow_oauth_guard.consumers.taskflow import guarded

if TYPE_CHECKING:
    from airflow_oauth_guard.hooks.session import GuardedSession

with DAG(dag_id="oauth_guard_taskflow_example", schedule=None, tags=["oauth-guard", "example"], doc_md=__doc__):

    @task
    @guarded("crm_prod", source="crm_contacts")
    def load(session: GuardedSession) -> int:
        """Fetch the contacts, page by page, and return how many there were."""
        url, page, rows = Variable.get("crm_contacts_url"), 1, 0
        while page:
            answer = session.get(url, params={"page": page}, timeout=30)
            answer.raise_for_status()
            rows, page = rows + len(answer.json()["rows"]), answer.json().get("next")
        return rows

    load()
