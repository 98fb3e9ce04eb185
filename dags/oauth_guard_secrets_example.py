"""A pipeline that knows nothing of the guard: its connection says where the token goes.

``crm_api`` is an ordinary HTTP connection whose extra holds ``{"Authorization": "Bearer {oauth-guard:crm_prod}"}``. Airflow's
workers and triggerers look connections up with ``GuardedSecretsBackend`` (see docs/consumers/secrets-backend.md), which puts
a fresh token there each time: also for sensors, and for what is deferred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG

from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator

if TYPE_CHECKING:
    from requests import Response


def next_page(response: Response) -> dict[str, Any] | None:
    """What to ask for next; None when there is no more."""
    page = response.json().get("next")
    return {"data": {"page": page}} if page else None


def rows_of(responses: list[Response]) -> int:
    return sum(len(response.json()["rows"]) for response in responses)


with DAG(dag_id="oauth_guard_secrets_example", schedule=None, tags=["oauth-guard", "example"], doc_md=__doc__):
    ready = HttpSensor(task_id="ready", http_conn_id="crm_api", endpoint="ready", poke_interval=10, timeout=600)
    load = HttpOperator(
        task_id="load",
        http_conn_id="crm_api",
        method="GET",
        endpoint="contacts",
        data={"page": 1},
        pagination_function=next_page,
        response_filter=rows_of,
    )
    heartbeat = HeartbeatOperator(task_id="heartbeat", source="crm_contacts", rows="{{ ti.xcom_pull('load') }}")
    ready >> load >> heartbeat
