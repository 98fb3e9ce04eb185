"""The question whether a credential may be set expired is one request of Airflow's. It may be answered in the graph or here."""

from __future__ import annotations

from urllib.parse import quote

import httpx
from fastapi import HTTPException, Request

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.errors import NotRegisteredError
from airflow_oauth_guard.operators.approval import EXPIRE, KEEP
from airflow_oauth_guard.plugin.oauth_guard import AIRFLOW
from airflow_oauth_guard.plugin.rendering import PLUGIN_PATH, root


async def answer_in_the_graph(request: Request, asked_in: Observer, *, expire: bool) -> None:
    """Answer through Airflow's own API, in this process and as the person who asks: its rules and its records apply.

    Raises:
        NotRegisteredError: If the request does not wait any more.
        HTTPException: What else Airflow says, such as that this person may not.
    """
    parts = (asked_in.dag_id, asked_in.run_id, asked_in.task_id)
    dag, run, task = (quote(str(part), safe="") for part in parts)
    index = -1 if asked_in.map_index is None else asked_in.map_index
    # Cookies and tokens alike: whoever this request is from, that one is too.
    passed_on = {name: value for name, value in request.headers.items() if name in ("cookie", "authorization")}
    transport = httpx.ASGITransport(app=request.scope[AIRFLOW], root_path=root(request).removesuffix(PLUGIN_PATH))
    async with httpx.AsyncClient(transport=transport, base_url=str(request.base_url.replace(path="/"))) as airflow:
        answered = await airflow.patch(
            f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/{index}/hitlDetails",
            json={"chosen_options": [EXPIRE if expire else KEEP], "params_input": {}},
            headers=passed_on,
        )
    if answered.status_code in (404, 409):
        raise NotRegisteredError(
            "The request does not wait any more: it was answered, its time ran out, or its run was deleted. Where the death "
            "stays proven, the next report of `oauth_guard_refresh` says what is open."
        )
    if not answered.is_success:
        raise HTTPException(answered.status_code, answered.json().get("detail", "Airflow refused the answer."))
