"""What a running task learns from Airflow about assets and about other DAGs, asked by `dag.test()`."""

from __future__ import annotations

import os
from datetime import timedelta

import pendulum
import pytest
from airflow.sdk import DAG, Asset, task

from airflow_oauth_guard.detector.causes import likely_cause
from airflow_oauth_guard.detector.measuring import Measuring
from airflow_oauth_guard.domain.sources import AssetEvents, Source
from airflow_oauth_guard.hooks import config
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.store.store import Store

# `dag.test()` runs Airflow's API server in this process, and what that imports warns about itself.
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore")]

CONTACTS = Asset("contacts", uri="x://contacts")
SOURCE = Source("crm_contacts", timedelta(hours=1), measure=AssetEvents("contacts"))
UNKNOWN = Source("nothing", timedelta(hours=1), measure=AssetEvents("no_such_asset"))


@pytest.fixture(scope="module", autouse=True)
def airflow_database():
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setattr(config, "_embedded", lambda: f"sqlite:///{tmp_path}/oauth_guard.db")
    config._open.cache_clear()
    yield config.get_store()
    config._open.cache_clear()


def serialized(dag: DAG) -> DAG:
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ModuleNotFoundError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    return dag


def loader() -> DAG:
    with DAG("load_contacts", schedule=None, is_paused_upon_creation=False) as dag:

        @task(outlets=[CONTACTS])
        def load(**context):
            if context["dag_run"].conf.get("fail"):
                raise ValueError("the provider refuses")
            context["outlet_events"][CONTACTS].extra = {"rows": 7}

        load()
    return serialized(dag)


@pytest.fixture
def look():
    """Runs a task that measures these sources and says why the first is quiet; returns the answers and the cause."""

    def run(*sources: Source):
        found = []
        with DAG("look", schedule=None) as dag:

            @task
            def see(**context):
                store, now = get_store(), pendulum.now("UTC")
                watched = [store.sources.get(source.name) for source in sources]
                for answer in Measuring(context, now).ask(watched):
                    for beat, who, key in answer.beats:
                        store.sources.found(answer.source, beat, who, key)
                    found.append(answer)
                found.append(likely_cause(store, store.sources.get(sources[0].name), context, now))

            see()
        assert serialized(dag).test().state == "success"
        return found

    return run


def test_a_task_reads_an_assets_events_and_what_has_become_of_their_dag(store, look):
    store.sources.register([SOURCE, UNKNOWN], pendulum.now("UTC"))
    load, began = loader(), pendulum.now("UTC")
    first = load.test(logical_date=began.subtract(hours=3))
    events, unknown, cause = look(SOURCE, UNKNOWN)
    [(beat, who, _)] = events.beats
    assert (beat.rows, beat.measured) == (7, False)
    assert began < beat.at < pendulum.now("UTC")
    assert (who.dag_id, who.task_id, who.run_id) == ("load_contacts", "load", first.run_id)
    assert "asset `no_such_asset`" in unknown.problem
    assert "ASSET_NOT_FOUND" in unknown.problem
    assert f"no run of DAG `load_contacts` has begun since the one that spoke last, `{first.run_id}`." in cause

    failed = load.test(logical_date=began.subtract(minutes=5), run_conf={"fail": True})
    again, cause = look(SOURCE)
    assert again.beats == events.beats, "the same event once more"
    assert cause.startswith(f"Likely cause: the last run of DAG `load_contacts`, `{failed.run_id}`, failed at ")
    assert cause.endswith("(task `load`: failed).")
    heard = [(one.rows, one.at > beat.at) for one in store.sources.recent("crm_contacts")]
    assert heard == [(7, True)], "the listener had heard it, and the event is no second load"
