"""A pipeline that names the asset it updates, and says nothing of heartbeats: the guard's listener sends them.

The source ``crm_contacts`` is watched already, for instance by the Variable ``oauth_guard_sources``:
``[{"name": "crm_contacts", "learned": true, "credential": "crm_prod"}]``. The asset has its name.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset, Variable, task

from airflow_oauth_guard.hooks.using import get_token

with DAG(dag_id="oauth_guard_asset_example", schedule=None, tags=["oauth-guard", "example"], doc_md=__doc__):

    @task(outlets=[Asset("crm_contacts")])
    def load() -> int:
        """Fetch the contacts with a client that takes a token, asking for a fresh one for each page."""
        import requests

        url, page, rows = Variable.get("crm_contacts_url"), 1, 0
        while page:
            bearer = {"Authorization": f"Bearer {get_token('crm_prod')}"}
            answer = requests.get(url, params={"page": page}, headers=bearer, timeout=30)
            answer.raise_for_status()
            rows, page = rows + len(answer.json()["rows"]), answer.json().get("next")
        return rows

    load()
