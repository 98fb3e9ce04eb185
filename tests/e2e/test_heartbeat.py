"""How a DAG speaks for a source, run by Airflow's own `dag.test()`."""

from __future__ import annotations

import pendulum
import pytest
from airflow.sdk import DAG, task

from airflow_oauth_guard.domain.windows import Cron
from airflow_oauth_guard.hooks import config
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator, heartbeat
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import rows
from tests.e2e.test_graph import run

# `dag.test()` runs Airflow's API server in this process, and what that imports warns about itself.
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore")]

WATERMARK = "2026-03-01T12:00:00+00:00"


@pytest.fixture(scope="module", autouse=True)
def airflow_database():
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """A store of the test's own, where the tasks find it."""
    monkeypatch.setattr(config, "_embedded", lambda: f"sqlite:///{tmp_path}/oauth_guard.db")
    config._open.cache_clear()
    yield config.get_store()
    config._open.cache_clear()


def test_a_dag_speaks_through_operator_and_decorator_and_its_cron_is_known(store):
    with DAG("feeding", schedule="0 6 * * *", start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Berlin")) as dag:

        @task
        @heartbeat("by_decorator")
        def load() -> int:
            return 7

        @task(retries=0)
        @heartbeat("of_a_failure")
        def fail() -> int:
            raise RuntimeError("the job is broken")

        fail()
        HeartbeatOperator(
            task_id="beat", source="by_operator", rows="{{ ti.xcom_pull(task_ids='load') }}", watermark=WATERMARK
        ).set_upstream(load())
    states = run(dag)
    assert states == {"load": "success", "beat": "success", "fail": "failed"}
    kept = {row["source"]: row for row in rows(store, "oauth_guard_heartbeats")}
    assert {name: (row["row_count"], row["dag_id"], row["task_id"]) for name, row in kept.items()} == {
        "by_decorator": (7, "feeding", "load"),
        "by_operator": (7, "feeding", "beat"),
    }
    assert kept["by_operator"]["run_id"].startswith("manual__"), "a manual run is a run like any other"
    for name in kept:
        watched = store.sources.get(name)
        assert isinstance(watched.source.window, Cron)
        assert (watched.source.window.expressions, watched.source.timezone) == (("0 6 * * *",), "Europe/Berlin")
    assert store.sources.get("by_operator").state.watermark.isoformat() == WATERMARK
