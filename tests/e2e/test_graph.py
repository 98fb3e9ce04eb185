"""The graphs, run by Airflow's own `dag.test()` against the real authorization server."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import timedelta

import pendulum
import pytest
import time_machine
from airflow.sdk import DAG

from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.hooks import config
from airflow_oauth_guard.operators.expire import ExpireOperator
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.task_groups.guard import guard_credential, guard_due_credentials
from tests.authorization_server.client import AuthorizationServer

# `dag.test()` runs Airflow's API server in this process, and what that imports warns about itself.
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def airflow_database():
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="module")
def provider():
    with AuthorizationServer() as server:
        yield server


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """A store of the test's own, where the tasks find it."""
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__CONFIRMATION_PAUSE_SECONDS", "1")
    monkeypatch.setattr(config, "_embedded", lambda: f"sqlite:///{tmp_path}/oauth_guard.db")
    config._open.cache_clear()
    yield config.get_store()
    config._open.cache_clear()


@pytest.fixture
def connection(monkeypatch, provider):
    def define(conn_id: str, minted=None, conn_type: str = "oauth_guard_refresh_token", **extra) -> None:
        seeds = {"access_token": minted.access_token, "refresh_token": minted.refresh_token} if minted else {}
        fields = {"probe_url": provider.probe_url, "allow_http": True, **seeds, **extra}
        token_url = fields.pop("token_url", provider.token_url)
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{conn_id.upper()}",
            json.dumps(
                {"conn_type": conn_type, "host": token_url, "login": conn_id, "password": "s3cret", "extra": fields}
            ),
        )

    return define


def run(dag: DAG) -> dict[str, str]:
    """Run a DAG to its end; returns the state of each task."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ModuleNotFoundError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    ended = dag.test()
    return {
        ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": str(ti.state)
        for ti in ended.get_task_instances()
    }


def pipeline(conn_id: str) -> DAG:
    from airflow.providers.standard.operators.empty import EmptyOperator

    with DAG(f"pipeline_{conn_id}", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        guard_credential(conn_id) >> EmptyOperator(task_id="load")
    return dag


def test_a_healthy_credential_lets_its_pipeline_run_and_is_never_probed(provider, store, connection):
    provider.add_client("healthy", rotation=True)
    connection("healthy", provider.mint("healthy"))
    states = run(pipeline("healthy"))
    assert states["load"] == "success"
    assert states["guard_healthy.probe"] == states["guard_healthy.expire"] == "skipped"
    assert store.credentials.get("healthy").status is Status.ACTIVE


@pytest.mark.parametrize(
    "answer",
    [
        "unsupported_grant_type",
        *(pytest.param(name, marks=pytest.mark.any_airflow) for name in ("invalid_request", "invalid_grant", "meta")),
    ],
)
def test_the_incident_leaves_the_credential_active_and_its_pipeline_running(provider, store, connection, answer):
    """DESIGN's incident: the wrong class, 400 before the token is looked at, whatever the 400 says."""
    conn_id = f"incident_{answer}"
    provider.add_client(conn_id, grant_types=("client_credentials",), wrong_grant_error=answer)
    # A year long: the access token is alive, and says so when it is probed.
    connection(conn_id, provider.mint(conn_id, with_refresh=True), expire_policy="evidence")
    credential_states = run(pipeline(conn_id))
    credential = store.credentials.get(conn_id)
    assert credential.status is Status.ACTIVE
    assert provider.truth(conn_id).access_token_live
    assert credential_states[f"guard_{conn_id}.expire"] == "skipped"
    assert credential_states[f"guard_{conn_id}.report"] == "failed", "a run never hides a failed refresh"
    incident = store.incidents.open_about(About.CREDENTIAL, conn_id)
    assert incident.kind.value == ("unknown" if answer == "invalid_grant" else "request_malformed")
    assert incident.first_notified_at is not None


def test_a_revoked_credential_stops_its_pipeline_loudly_and_expires_on_evidence(provider, store, connection):
    provider.add_client("revoked", rotation=True, access_lifetime=timedelta(seconds=60))
    connection("revoked", provider.mint("revoked"), expire_policy="evidence")
    assert run(pipeline("revoked"))["load"] == "success"
    provider.revoke("revoked")
    # Half of its life later it is due; that is less than what counts as a clock gone wrong.
    with time_machine.travel(pendulum.now("UTC").add(seconds=45), tick=True):
        states = run(pipeline("revoked"))
    assert states["guard_revoked.expire"] == "success"
    assert states["guard_revoked.usable"] == "failed"
    assert states["load"] == "upstream_failed", "never skipped, never empty"
    credential = store.credentials.get("revoked")
    assert credential.status is Status.EXPIRED
    assert store.credentials.status_evidence(credential).verdict.value == "dead"
    assert store.credentials.tokens(credential).refresh_token, "the tokens are kept"


def test_a_dag_that_wires_the_expire_operator_alone_cannot_expire_anything(provider, store, connection):
    provider.add_client("hasty", wrong_grant_error="invalid_grant", grant_types=("client_credentials",))
    connection("hasty", provider.mint("hasty", with_refresh=True))
    with DAG("hasty", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        group = guard_due_credentials(["hasty"])
        # There is no investigating DAG here to hand anything over to, now or half a minute later.
        group.children["guard.hand_over"].retries = 0
        question = "{{ ti.xcom_pull(task_ids='guard.refresh', map_indexes=0)['investigations'][0] }}"
        group.children["guard.refresh"] >> ExpireOperator(task_id="expire_at_once", investigation=question)
    states = run(dag)
    assert states["guard.refresh[0]"] == "success"
    assert states["expire_at_once"] == "failed"
    assert store.credentials.get("hasty").status is Status.ACTIVE


def test_a_shell_cannot_expire_a_credential_either(provider, store, connection, tmp_path):
    provider.add_client("shelled")
    connection("shelled", provider.mint("shelled"))
    run(pipeline("shelled"))
    with sqlite3.connect(tmp_path / "oauth_guard.db") as shell, pytest.raises(sqlite3.IntegrityError):
        shell.execute("UPDATE oauth_guard_statuses SET status = 'expired'")
    assert store.credentials.get("shelled").status is Status.ACTIVE


@pytest.mark.any_airflow
@pytest.mark.parametrize("kind", ["html", "truncated", "huge", "empty_200", "error_200"])
def test_an_unreadable_answer_is_one_clear_incident_and_loses_nothing(provider, store, connection, kind):
    conn_id = f"odd_{kind}"
    provider.add_client(conn_id)
    minted = provider.mint(conn_id)
    connection(conn_id, minted)
    provider.fault(kind, client_id=conn_id, **({"megabytes": 100} if kind == "huge" else {}))
    states = run(pipeline(conn_id))
    credential = store.credentials.get(conn_id)
    assert credential.status is Status.ACTIVE
    assert store.credentials.tokens(credential).refresh_token == minted.refresh_token
    assert states[f"guard_{conn_id}.expire"] == "skipped"
    assert store.incidents.open_about(About.CREDENTIAL, conn_id) is not None
