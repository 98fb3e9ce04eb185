"""The same in a function that is asynchronous, which Airflow 3.2 and newer run: it is handed an ``httpx.AsyncClient``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, Variable, task

from airflow_oauth_guard.consumers.taskflow import guarded

if TYPE_CHECKING:
    import httpx

with DAG(dag_id="oauth_guard_async_example", schedule=None, tags=["oauth-guard", "example"], doc_md=__doc__):

    @task
    def where() -> str:
        return str(Variable.get("crm_contacts_url"))

    @task
    @guarded("crm_prod", source="crm_contacts")
    async def load(session: httpx.AsyncClient, url: str) -> int:
        """Fetch the contacts, page by page, and return how many there were."""
        page, rows = 1, 0
        while page:
            answer = await session.get(url, params={"page": page}, timeout=30)
            answer.raise_for_status()
            rows, page = rows + len(answer.json()["rows"]), answer.json().get("next")
        return rows

    load(url=where())
