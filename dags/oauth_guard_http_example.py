"""Airflow's own HttpOperator, with a guarded credential: its HTTP connection's login names the credential.

``crm_http`` is an ordinary HTTP connection: the API's address as its host, and ``crm_prod`` as its login.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG

from airflow_oauth_guard.consumers.http import GuardedHttpAuth
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator

if TYPE_CHECKING:
    from requests import Response


def next_page(response: Response) -> dict[str, Any] | None:
    """What to ask for next; None when there is no more."""
    page = response.json().get("next")
    return {"data": {"page": page}} if page else None


def rows_of(responses: list[Response]) -> int:
    return sum(len(response.json()["rows"]) for response in responses)


with DAG(dag_id="oauth_guard_http_example", schedule=None, tags=["oauth-guard", "example"], doc_md=__doc__):
    load = HttpOperator(
        task_id="load",
        http_conn_id="crm_http",
        auth_type=GuardedHttpAuth,
        method="GET",
        endpoint="contacts",
        data={"page": 1},
        pagination_function=next_page,
        response_filter=rows_of,
    )
    load >> HeartbeatOperator(task_id="heartbeat", source="crm_contacts", rows="{{ ti.xcom_pull('load') }}")
