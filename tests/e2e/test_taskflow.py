"""A real Airflow: its workers call our listener, its assets carry the rows, and TaskFlow takes our decorator in every form."""

from __future__ import annotations

import json
import os
from datetime import timedelta

import pytest

from airflow_oauth_guard.consumers.outlets import SKIPPED_ITSELF
from airflow_oauth_guard.domain.sources import AssetEvents, Source
from airflow_oauth_guard.domain.windows import Learned
from examples.demo import Airflow, wait_for
from tests.airflow_parts import enrolled, expire, rows, utcnow
from tests.authorization_server.client import AuthorizationServer

pytestmark = [pytest.mark.airflow, pytest.mark.any_airflow]

HOUR = timedelta(hours=1)

DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG, Asset, task
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow_oauth_guard.consumers.taskflow import guarded
from airflow_oauth_guard.task_groups.flat_line import watch_sources

URL = "{url}"
HOW = {{"schedule": None, "is_paused_upon_creation": False}}

with DAG("assets", **HOW):

    @task(outlets=[Asset("contacts")])
    def returned():
        return 7

    @task(outlets=[Asset("deals")])
    def told(*, outlet_events):
        outlet_events[Asset("deals")].extra = {{"rows": 3}}
        return 99

    @task(outlets=[Asset("visits")])
    def skipped():
        raise AirflowSkipException("nothing new")

    @task(outlets=[Asset("failures")], retries=0)
    def fails():
        raise ValueError("the job is broken")

    @task(outlets=[Asset("nobodys")])
    def nobodys():
        return 7

    [returned(), told(), skipped(), fails(), nobodys()]

with DAG("looking", **HOW):
    watch_sources()

with DAG("taskflow", **HOW):

    @task
    def pages() -> list[int]:
        return [1, 2]

    @task(outlets=[Asset("calls")])
    @guarded("crm_prod", source="calls")
    def load(session, page: int, size: int = 10) -> int:
        return len(session.get(URL, params={{"page": page}}, timeout=10).json()["rows"]) * page

    @task(retries=2, retry_delay=timedelta(seconds=1))
    @guarded("crm_prod", source="after_a_retry")
    def again(page, *, session, ti) -> int:
        if ti.try_number == 1:
            raise ValueError("not yet")
        return page

    @task
    @guarded("crm_prod", source="skipping", skip_when_unusable=True)
    def usable(session) -> int:
        return 1

    @task(outlets=[Asset("unusable")])
    @guarded("crm_dead", source="unusable", skip_when_unusable=True)
    def unusable(session) -> int:
        return 1

    @task
    def one(number: int) -> int:
        return number

    known, first, second = pages(), one(1), one.override(task_id="two")(2)
    load.override(task_id="by_name")(page=second)
    load.override(task_id="by_place", retries=1)(first, 20)
    load.override(task_id="mapped").expand(page=known)
    load.override(task_id="partial").partial(size=5).expand(page=known)
    again(second)
    usable()
    unusable()
"""

EVENTS = Source("by_events", HOUR, measure=AssetEvents("deals"))


@pytest.fixture(scope="module")
def provider():
    with AuthorizationServer() as server:
        yield server


@pytest.fixture(scope="module")
def airflow(provider, tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "pipelines.py").write_text(DAG_FILE.format(url=provider.rows_url))
    provider.add_client("crm_prod")
    provider.set_rows("crm_prod", 3)
    minted = provider.mint("crm_prod", with_refresh=True)
    running = Airflow(home, CORE__DAGS_FOLDER=str(home / "dags"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
            patch.delenv(name)
        patch.setenv("AIRFLOW_CONN_CRM_PROD", json.dumps(described(provider, "crm_prod", minted)))
        patch.setenv("AIRFLOW_CONN_CRM_DEAD", json.dumps(described(provider, "crm_dead", None)))
        try:
            running.start()
            wait_for("its DAGs", lambda: running.call("GET", "/dags")["total_entries"] == 3, seconds=120)
            yield running
        finally:
            running.stop()


def described(provider, conn_id, minted):
    tokens = {"access_token": minted.access_token, "refresh_token": minted.refresh_token} if minted else {}
    extra = {"probe_url": provider.probe_url, "allow_http": True, **tokens}
    client = {"login": conn_id, "password": "s3cret"}
    return {"conn_type": "oauth_guard_refresh_token", "host": provider.token_url, "extra": extra, **client}


@pytest.fixture(scope="module")
def store(airflow):
    opened = airflow.guard_store()
    names = ("contacts", "deals", "visits", "failures")
    opened.sources.register([EVENTS, *(Source(name, HOUR) for name in names)], utcnow())
    yield opened
    opened.database.engine.dispose()


def ran(airflow, dag_id):
    """Run a DAG to its end; returns its tasks' states."""
    run_id = airflow.trigger(dag_id)
    airflow.ended(dag_id, run_id)
    return {
        f"{one['task_id']}{one['map_index'] if one['map_index'] >= 0 else ''}": one["state"]
        for one in airflow.task_instances(dag_id, run_id)
    }


def beats(store, *names):
    found = sorted(rows(store, "oauth_guard_heartbeats"), key=lambda row: row["id"])
    return [(row["source"], row["row_count"], row["note"]) for row in found if row["source"] in names]


def updates(airflow):
    """What Airflow keeps of each asset's updates, and shows in its UI."""
    found = airflow.call("GET", "/assets/events?limit=100")["asset_events"]
    return sorted((one["name"], one["extra"].get("rows")) for one in found)


def test_tasks_that_know_nothing_of_us_speak_through_their_outlets_once(airflow, store):
    assert ran(airflow, "assets") == {
        "returned": "success",
        "told": "success",
        "skipped": "skipped",
        "fails": "failed",
        "nobodys": "success",
    }
    spoke = sorted(beats(store, "contacts", "deals", "visits", "failures", "nobodys", "by_events"))
    assert spoke == [
        ("by_events", 3, ""),
        ("contacts", 7, ""),
        ("deals", 3, ""),
        ("visits", 0, SKIPPED_ITSELF),
    ]
    assert store.sources.get("visits").state.last_beat_at is None
    assert store.sources.find("nobodys") is None
    store.sources.settle(store.sources.get("by_events"), store.sources.get("by_events").standing, utcnow(), utcnow())
    assert ran(airflow, "looking")["flat_line.check"] == "success"
    assert store.sources.get("by_events").state.measured_at is not None, "its events were read"
    assert beats(store, "by_events") == [("by_events", 3, "")], "and the same run is not heard again"


def test_a_guarded_function_is_a_task_in_every_form(airflow, store):
    enrolled(store, "crm_dead")
    proof = expire(store, "crm_dead")
    states = ran(airflow, "taskflow")
    assert states.pop("unusable") == "skipped"
    assert set(states.values()) == {"success"}
    assert {"by_name", "by_place", "mapped0", "mapped1", "partial0", "partial1", "again", "usable"} <= states.keys()
    assert sorted(beats(store, "calls", "after_a_retry", "skipping")) == [
        ("after_a_retry", 2, ""),
        *[("calls", 3, "")] * 3,
        *[("calls", 6, "")] * 3,
        ("skipping", 1, ""),
    ]
    [(source, moved, note)] = beats(store, "unusable")
    assert (source, moved) == ("unusable", 0)
    assert note.startswith(f"skipped: credential `crm_dead` is expired: its grant is proven dead. Evidence {proof}: ")
    assert store.sources.get("calls").source == Source("calls", Learned(), credential="crm_prod")
    carried = [update for update in updates(airflow) if update[0] in ("calls", "unusable")]
    assert carried == [("calls", 3)] * 3 + [("calls", 6)] * 3
    used = {row["task_id"] for row in rows(store, "oauth_guard_consumers")}
    assert {"by_name", "mapped", "again", "usable"} <= used
