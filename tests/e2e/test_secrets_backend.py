"""Tasks of people who know nothing of us, whose connection holds a placeholder, run by Airflow's own `dag.test()`."""

from __future__ import annotations

import json
import logging
from datetime import timedelta

import pendulum
import pytest
from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG

from airflow_oauth_guard.hooks import config
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import PLANTED, forget_backends, make_due, rows
from tests.authorization_server.client import AuthorizationServer
from tests.e2e.test_graph import run

# `dag.test()` runs Airflow's API server in this process, and what that imports warns about itself.
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore")]

BACKEND = "airflow_oauth_guard.consumers.secrets.GuardedSecretsBackend"


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
    monkeypatch.setattr(config, "_embedded", lambda: f"sqlite:///{tmp_path}/oauth_guard.db")
    config._open.cache_clear()
    yield config.get_store()
    config._open.cache_clear()


@pytest.fixture(params=["WORKERS__SECRETS_BACKEND", "SECRETS__BACKEND"])
def installed(request, monkeypatch):
    """In workers and triggerers alone, or in every process of Airflow."""
    monkeypatch.setenv(f"AIRFLOW__{request.param}", BACKEND)
    forget_backends()
    yield request.param.partition("__")[0].lower()
    forget_backends()


@pytest.fixture
def entered(provider, monkeypatch):
    """A credential, and two connections of a pipeline that ask for its token: in the database, and in the environment.

    Only there does a trigger look in `dag.test()`, whatever its connection is (Airflow 3.3.2).
    """
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    def by_a_person(name: str) -> None:
        provider.add_client(name, client_secret=f"{PLANTED}secret", rotation=True, secret_prefix=PLANTED)
        guarded = {
            "probe_url": provider.probe_url,
            "allow_http": True,
            "refresh_token": provider.mint(name).refresh_token,
        }
        credential = {"host": provider.token_url, "login": name, "password": f"{PLANTED}secret", "extra": guarded}
        theirs = {
            "conn_type": "http",
            "host": provider.url,
            "extra": json.dumps({"Authorization": f"Bearer {{oauth-guard:{name}}}"}),
        }
        described = {name: {"conn_type": "oauth_guard_refresh_token", **credential}, f"{name}_in_env": theirs}
        for conn_id, description in described.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(description))
        with create_session() as session:
            session.add(Connection(conn_id=f"{name}_in_db", **theirs))

    return by_a_person


def pipeline(name: str) -> DAG:
    given = {"endpoint": "/api/me", "method": "GET", "log_response": True}
    with DAG(f"pipeline_{name}", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        HttpOperator(task_id="load", http_conn_id=f"{name}_in_db", **given)
        HttpOperator(task_id="load_deferred", http_conn_id=f"{name}_in_env", deferrable=True, **given)
    return dag


def test_an_http_operator_sends_the_fresh_token_and_hears_why_there_is_none(
    provider, store, installed, entered, caplog, capfd
):
    name = f"crm_{installed}"
    entered(name)
    dag = pipeline(name)
    assert run(dag) == {"load": "success", "load_deferred": "success"}
    make_due(store, name)
    assert run(dag) == {"load": "success", "load_deferred": "success"}
    assert {row["task_id"] for row in rows(store, "oauth_guard_consumers")} == {"load", "load_deferred"}

    provider.revoke(name)
    make_due(store, name, life_left=timedelta())
    with caplog.at_level(logging.DEBUG):
        assert run(dag) == {"load": "failed", "load_deferred": "failed"}
    said = caplog.text + "".join(capfd.readouterr())
    for conn_id in (f"{name}_in_db", f"{name}_in_env"):
        why = f"Connection `{conn_id}` cannot be used: Credential `{name}` has no access token with life left"
        assert why in said
    assert "the provider says `invalid_grant`" in said
    token = store.credentials.tokens(store.credentials.get(name)).access_token
    assert token.startswith(PLANTED)
    assert token not in said
