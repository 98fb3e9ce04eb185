"""What is said of tasks that know nothing of us; the listener itself is called as Airflow calls it."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow", reason="consumers need Airflow")

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetAlias, task
from airflow.sdk.execution_time.context import OutletEventAccessors
from pluggy import PluginManager

from airflow_oauth_guard.consumers import listener, outlets
from airflow_oauth_guard.domain.sources import AssetEvents, Source
from airflow_oauth_guard.errors import StoreUnavailableError
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator, heartbeat
from airflow_oauth_guard.plugin.oauth_guard import OAuthGuardPlugin
from tests.airflow_parts import rows, task_context, utcnow

pytestmark = pytest.mark.airflow

HOUR = timedelta(hours=1)
CONTACTS = Asset("contacts")
NAMED = Source("contacts", HOUR)
MEASURED = Source("crm_contacts", HOUR, measure=AssetEvents("contacts"))


@pytest.fixture
def hook():
    """Airflow's own way to its listeners, with ours alone."""
    try:
        from airflow._shared.listeners.spec import taskinstance
    except ModuleNotFoundError:  # Airflow 3.1
        from airflow.listeners.spec import taskinstance

    manager = PluginManager("airflow")
    manager.add_hookspecs(taskinstance)
    for one in OAuthGuardPlugin.listeners:
        manager.register(one)
    return manager.hook


def instance(*outlets, returned=None, extra=None, others=(), pushes=True, **how):
    """A task instance at its end, as much of it as we look at."""
    with DAG("feeding", schedule=None) as dag:
        load = EmptyOperator(task_id="load", outlets=list(outlets), do_xcom_push=pushes)
        for other in others:
            other()
    context = task_context("load", **how)
    context |= {"dag": dag, "task": load, "outlet_events": OutletEventAccessors()}
    for name, told in (extra or {}).items():
        context["outlet_events"][Asset(name)].extra = told
    ti = context["ti"]
    ti.task, ti.get_template_context = load, lambda: context
    ti.xcom_pull = lambda **asked: returned
    return ti


def beats(store):
    return [(row["source"], row["row_count"], row["note"]) for row in rows(store, "oauth_guard_heartbeats")]


def ended(hook, ti, **how):
    hook.on_task_instance_success(**{"previous_state": "running", "task_instance": ti, **how})


def skipped(hook, ti, **how):
    hook.on_task_instance_skipped(**{"previous_state": "running", "task_instance": ti, **how})


# -- a task that ran --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [NAMED, MEASURED])
def test_a_source_speaks_through_its_asset_with_the_rows_of_the_update(source, hook, store):
    store.sources.declare(source, utcnow())
    ended(hook, instance(CONTACTS, extra={"contacts": {"rows": 7}}, returned=99))
    assert beats(store) == [(source.name, 7, "")]
    assert store.sources.get(source.name).fed_by.task_id == "load"


@pytest.mark.parametrize(("returned", "moved"), [(7, 7), (0, 0), (None, None), (True, None), ("7", None), ([1], None)])
def test_where_the_update_says_nothing_the_number_that_was_returned_counts(returned, moved, hook, store):
    store.sources.declare(NAMED, utcnow())
    ended(hook, instance(CONTACTS, returned=returned))
    assert beats(store) == [("contacts", moved, "")]


def test_what_was_not_pushed_is_not_asked_for(hook, store):
    store.sources.declare(NAMED, utcnow())
    ended(hook, instance(CONTACTS, returned=7, pushes=False))
    assert beats(store) == [("contacts", None, "")]


def test_of_several_assets_nobody_knows_which_the_number_is_about(hook, store):
    store.sources.register([NAMED, Source("deals", HOUR)], utcnow())
    ended(hook, instance(CONTACTS, Asset("deals"), returned=7, extra={"contacts": {"rows": 3}}))
    assert beats(store) == [("contacts", 3, ""), ("deals", None, "")]


@pytest.mark.parametrize("told", [-1, 7.5, "7", True, [7]])
def test_rows_that_are_no_number_are_unknown_and_the_log_says_so(told, hook, store, caplog):
    store.sources.declare(NAMED, utcnow())
    ended(hook, instance(CONTACTS, returned=7, extra={"contacts": {"rows": told}}))
    assert beats(store) == [("contacts", None, "")]
    assert f"the `rows` of an asset's update is {told!r}" in caplog.text


def test_an_asset_nobody_registered_is_nobodys_source_and_none_is_adopted(hook, store):
    ended(hook, instance(CONTACTS, AssetAlias("aliased"), returned=7))
    assert beats(store) == []
    assert list(store.sources.all()) == []


def test_a_task_is_heard_once_per_try(hook, store):
    store.sources.declare(NAMED, utcnow())
    for number in (1, 1, 2):
        ended(hook, instance(CONTACTS, returned=7, try_number=number))
    assert len(beats(store)) == 2


def speaks_by_operator():
    HeartbeatOperator(task_id="beat", source="contacts", rows=7)


def speaks_mapped():
    HeartbeatOperator.partial(task_id="beat", source=NAMED).expand(rows=[1, 2])


def speaks_by_decorator():
    task(heartbeat("contacts")(heartbeat("others")(lambda: 1)), task_id="beat")()


def speaks_decorated_and_mapped():
    task(heartbeat("contacts")(lambda x: 1), task_id="beat").expand(x=[1, 2])


@pytest.mark.parametrize("other", [speaks_by_operator, speaks_mapped, speaks_by_decorator, speaks_decorated_and_mapped])
def test_a_source_for_which_a_task_of_its_dag_speaks_is_left_to_that_task(other, hook, store):
    store.sources.declare(NAMED, utcnow())
    ti = instance(CONTACTS, returned=7, others=[other])
    ended(hook, ti)
    assert beats(store) == []
    skipped(hook, ti)
    assert [beat[:2] for beat in beats(store)] == [("contacts", 0)], "what comes behind a skip is skipped, too"


def test_who_speaks_for_others_does_not_silence_this_one(hook, store):
    store.sources.declare(NAMED, utcnow())
    ended(hook, instance(CONTACTS, others=[lambda: HeartbeatOperator(task_id="beat", source="deals", rows=7)]))
    assert beats(store) == [("contacts", None, "")]


# -- a task that was skipped ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [NAMED, MEASURED])
def test_a_skip_of_a_source_is_heard_and_is_no_delivery(source, hook, store):
    store.sources.declare(source, utcnow())
    skipped(hook, instance(CONTACTS))
    assert beats(store) == [(source.name, 0, outlets.SKIPPED_ITSELF)]
    assert store.sources.get(source.name).state.last_beat_at is None


def test_a_skip_that_has_said_why_is_not_said_again(hook, store):
    store.sources.declare(NAMED, utcnow())
    ti = instance(CONTACTS)
    who = outlets.keep.__globals__["observer"](ti.get_template_context())
    store.sources.beat("contacts", 0, utcnow(), who, note="skipped: credential `crm` is expired")
    skipped(hook, ti)
    assert beats(store) == [("contacts", 0, "skipped: credential `crm` is expired")]


# -- who is not heard -------------------------------------------------------------------------------------------------


def test_a_person_who_marks_a_task_in_the_ui_has_delivered_nothing(hook, store):
    store.sources.declare(NAMED, utcnow())
    ended(hook, instance(CONTACTS, returned=7), previous_state=None)
    skipped(hook, instance(CONTACTS), previous_state=None)
    assert beats(store) == []


def test_of_a_failure_nothing_is_said():
    assert not hasattr(listener, "on_task_instance_failed")


def test_a_task_without_outlets_costs_nothing_and_its_process_imports_nothing():
    code = (
        "import sys; from types import SimpleNamespace as Of; from airflow_oauth_guard.consumers import listener; "
        "before = set(sys.modules); ti = Of(task=Of(outlets=[]))\n"
        "for say in (listener.on_task_instance_success, listener.on_task_instance_skipped): say('running', ti)\n"
        "assert set(sys.modules) == before; print(sorted(m for m in before if m.startswith('airflow_oauth_guard.consumers')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == str(
        ["airflow_oauth_guard.consumers", "airflow_oauth_guard.consumers.listener"]
    )


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_is_lost_is_said_with_the_next_step_and_other_listeners_are_called(hook, store, monkeypatch, caplog):
    def gone():
        raise StoreUnavailableError("the store is gone")

    monkeypatch.setattr(outlets, "get_store", gone)
    ended(hook, instance(CONTACTS, returned=7))
    [said] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the assets of task `load`: `contacts`." in said.getMessage()
    assert "airflow oauth-guard heartbeat" in said.getMessage()
    assert said.exc_info[1].args == ("the store is gone",)


def test_an_instance_that_has_no_task_is_nothing_to_us(hook):
    ended(hook, SimpleNamespace(task=None))
