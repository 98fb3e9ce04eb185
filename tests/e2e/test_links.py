"""The links in Airflow's grid, as its API tells them of runs that Airflow's own `dag.test()` has made."""

from __future__ import annotations

import json
import warnings
from urllib.parse import quote

import pendulum
import pytest
from airflow.sdk import DAG

from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.hooks import config
from airflow_oauth_guard.metadata import get_provider_info
from airflow_oauth_guard.operators.flat_line import AlertOperator
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator
from airflow_oauth_guard.sensors.probe import ProbeSensor
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.task_groups.guard import guard_due_credentials
from tests.airflow_parts import HOUR, incident_about, proven_dead, utcnow
from tests.authorization_server.client import AuthorizationServer
from tests.e2e.test_graph import run

with warnings.catch_warnings():
    # What Airflow's API server imports warns about itself.
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

# `dag.test()` runs Airflow's API server in this process, and what that imports warns about itself.
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore")]

START = pendulum.datetime(2026, 1, 1, tz="UTC")


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """Airflow's own application, and somebody who may see everything in it."""
    from airflow.api_fastapi import app as airflow_app
    from airflow.utils.db import initdb

    passwords = tmp_path_factory.mktemp("users") / "passwords.json"
    passwords.write_text(json.dumps({"anna": "password of anna"}))
    settings = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "anna:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test alone, long enough for an HMAC of 512 bits.....",
        "AIRFLOW__API__BASE_URL": "https://example.com/data/airflow",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        initdb()
        airflow_app.purge_cached_app()
        client = TestClient(airflow_app.create_app(apps="core"))
        answer = client.post("/auth/token", json={"username": "anna", "password": "password of anna"})
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client
        airflow_app.purge_cached_app()


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """A store of the test's own, where the tasks find it."""
    monkeypatch.setattr(config, "_embedded", lambda: f"sqlite:///{tmp_path}/oauth_guard.db")
    config._open.cache_clear()
    yield config.get_store()
    config._open.cache_clear()


@pytest.fixture
def link(api):
    def of(dag: DAG, task_id: str, map_index: int = -1) -> str:
        """What the button of the last run's task leads to."""
        [last] = api.get(f"/api/v2/dags/{dag.dag_id}/dagRuns", params={"order_by": "-id", "limit": 1}).json()[
            "dag_runs"
        ]
        run_of = f"/api/v2/dags/{dag.dag_id}/dagRuns/{quote(last['dag_run_id'])}"
        answer = api.get(f"{run_of}/taskInstances/{task_id}/links", params={"map_index": map_index})
        assert answer.status_code == 200, answer.text
        [(name, leads_to)] = answer.json()["extra_links"].items()
        assert name == "OAuth Guard"
        return str(leads_to)

    return of


PAGE = "/data/airflow/oauth-guard"


def test_each_mapped_refresh_leads_to_its_own_credential(store, monkeypatch, link):
    with AuthorizationServer() as server:
        for conn_id in ("crm", "shop"):
            server.add_client(conn_id)
            minted = server.mint(conn_id)
            fields = {"refresh_token": minted.refresh_token, "allow_http": True}
            described = {"conn_type": "oauth_guard_refresh_token", "host": server.token_url, "extra": fields}
            monkeypatch.setenv(
                f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**described, "login": conn_id, "password": "s3cret"})
            )
        with DAG("links_of_refreshes", schedule=None, start_date=START) as dag:
            guard_due_credentials(["crm", "shop"], batch_size=1)
        states = run(dag)
    assert states["guard.refresh[0]"] == states["guard.refresh[1]"] == "success", states
    leads_to = {link(dag, "guard.refresh", number) for number in (0, 1)}
    assert leads_to == {f"{PAGE}/credentials/crm", f"{PAGE}/credentials/shop"}
    assert link(dag, "guard.due") == link(dag, "guard.report") == f"{PAGE}/"
    assert link(dag, "guard.heartbeat") == f"{PAGE}/sources/oauth_guard_refresh"


def test_a_task_that_was_skipped_or_failed_has_its_link_as_well(store, link):
    question = proven_dead(store, "crm prod")
    store.sources.declare(Source("crm/contacts", window=HOUR), utcnow())
    incident = incident_about(store, "crm/contacts", about=About.SOURCE)
    with DAG("links_of_the_unlucky", schedule=None, start_date=START) as dag:
        ProbeSensor.partial(task_id="probe").expand(investigation=["", question])
        AlertOperator.partial(task_id="alert", retries=0).expand(incidents=[[incident.open_for]])
        HeartbeatOperator(task_id="beat", source="crm/contacts", rows="many", retries=0)
    states = run(dag)
    assert states == {"probe[0]": "skipped", "probe[1]": "failed", "alert[0]": "failed", "beat": "failed"}
    assert link(dag, "probe", 0) == f"{PAGE}/"
    assert link(dag, "probe", 1) == f"{PAGE}/credentials/crm%20prod"
    assert link(dag, "alert", 0) == link(dag, "beat") == f"{PAGE}/sources/crm%2Fcontacts"


def test_the_links_are_told_to_airflow():
    from airflow.providers_manager import ProvidersManager

    ours = get_provider_info()["extra-links"]
    assert set(ours) <= set(ProvidersManager().extra_links_class_names)
    assert len(ours) == 2
