"""What a StatsD server hears of whole runs, made by Airflow's own `dag.test()`."""

from __future__ import annotations

import json
from datetime import timedelta

import pendulum
import pytest
from airflow.sdk import DAG

pytest.importorskip("statsd", reason="Airflow sends to StatsD with it")

from airflow_oauth_guard.domain.flat_line import Standing
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.hooks import config
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.task_groups.flat_line import watch_sources
from airflow_oauth_guard.task_groups.guard import guard_credential, guard_due_credentials
from tests.airflow_parts import WHO, utcnow
from tests.authorization_server.client import AuthorizationServer
from tests.e2e.test_graph import run
from tests.stats_server import StatsServer, stats_server

# `dag.test()` runs Airflow's API server in this process, and what that imports warns about itself.
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore")]

START = pendulum.datetime(2026, 1, 1, tz="UTC")


@pytest.fixture(scope="module", autouse=True)
def airflow_database():
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """A store of the test's own, where the tasks find it."""
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__CONFIRMATION_PAUSE_SECONDS", "1")
    monkeypatch.setattr(config, "_embedded", lambda: f"sqlite:///{tmp_path}/oauth_guard.db")
    config._open.cache_clear()
    yield config.get_store()
    config._open.cache_clear()


@pytest.fixture
def heard() -> StatsServer:
    with pytest.MonkeyPatch.context() as patch, stats_server(patch) as server:
        yield server


@pytest.fixture
def provider():
    with AuthorizationServer() as server:
        yield server


@pytest.fixture
def connection(provider, monkeypatch):
    def define(conn_id: str, **client) -> None:
        provider.add_client(conn_id, **client)
        minted = provider.mint(conn_id, with_refresh=True)
        tokens = {"access_token": minted.access_token, "refresh_token": minted.refresh_token}
        fields = {"probe_url": provider.probe_url, "allow_http": True, **tokens}
        described = {"conn_type": "oauth_guard_refresh_token", "host": provider.token_url, "extra": fields}
        client = {"login": conn_id, "password": "s3cret"}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**described, **client}))

    return define


def counters(received: list[str]) -> list[str]:
    return sorted(line.removesuffix(":1|c") for line in received if line.endswith("|c"))


def test_a_refresh_cycle_counts_each_refresh_and_tells_how_all_credentials_are(store, heard, connection):
    for conn_id in ("counted_a", "counted_b"):
        connection(conn_id)
    with DAG("cycle_counted", schedule=None, start_date=START) as dag:
        guard_due_credentials(["counted_a", "counted_b"])
    assert run(dag)["guard.complete"] == "success"
    received = heard.received()
    # A token fresh from the provider is probed once, so that the probe's "no" means something later.
    assert counters(received) == [
        *["oauth_guard.probe.live"] * 2,
        *["oauth_guard.refresh.renewed"] * 2,
    ]
    gauges = [line for line in received if line.endswith("|g")]
    # Sent before the refresh: neither has a token whose end is known.
    assert gauges == [
        "oauth_guard.credentials.active:2|g",
        "oauth_guard.credentials.lapsed:0|g",
        "oauth_guard.credentials.expired:0|g",
    ]
    assert received.count("oauth_guard.refresh_duration.renewed:|ms") == 2


def test_the_incident_is_seen_in_the_numbers(store, heard, connection):
    """DESIGN's incident: the wrong class, 400 before the token is looked at."""
    connection("counted_wrong", grant_types=("client_credentials",), wrong_grant_error="unsupported_grant_type")
    with DAG("incident_counted", schedule=None, start_date=START) as dag:
        guard_credential("counted_wrong")
    assert run(dag)["guard_counted_wrong.report"] == "failed"
    seen = counters(heard.received())
    assert "oauth_guard.refresh.failed" in seen
    assert "oauth_guard.probe.live" in seen, "the access token works all the same"
    assert [name for name in seen if "verdict" in name] == ["oauth_guard.verdict.request_malformed"]


def test_a_pass_counts_what_went_quiet_and_tells_how_all_sources_are(store, heard):
    declared, now = Source("crm_counted", window=timedelta(hours=1)), utcnow()
    store.sources.declare(declared, now - timedelta(hours=9))
    store.sources.beat(declared.name, 5, now - timedelta(hours=8), WHO)
    with DAG("pass_counted", schedule=None, start_date=START) as dag:
        watch_sources()
    assert run(dag)["flat_line.alert[0]"] == "failed"
    assert heard.received() == [
        "oauth_guard.flat_line.late:1|c",
        *(f"oauth_guard.sources.{one.value}:{int(one is Standing.LATE)}|g" for one in Standing),
    ]
