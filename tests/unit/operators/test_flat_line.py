from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

import time_machine
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import BaseHook

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.flat_line import Source, SqlCount
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.errors import ConfigurationError, NeedsAPersonError
from airflow_oauth_guard.hooks.context import LABEL
from airflow_oauth_guard.operators.flat_line import AlertOperator, FlatLineOperator
from tests.airflow_parts import Recorder, enrolled, incident_about, task_context, utcnow

pytestmark = pytest.mark.airflow

HOUR = timedelta(hours=1)
SOURCE = Source("crm_contacts", window=HOUR)


def ago(**duration: float) -> datetime:
    return utcnow() - timedelta(**duration)


def check(*sources: Source, context=None) -> list[str]:
    operator = FlatLineOperator(task_id="check", sources=list(sources))
    return operator.execute(context or task_context("check"))


def alert(recorder: Recorder | None = None, source: str = "crm_contacts", context=None) -> str:
    operator = AlertOperator(task_id="alert", source=source, notifiers={"": [recorder]} if recorder else None)
    return operator.execute(context or task_context("alert"))


def beat(store, rows: int | None, at: datetime, source: Source = SOURCE) -> None:
    store.sources.beat(source.name, rows, at, Observer())


def watched(store, source: Source = SOURCE, since: datetime | None = None) -> Source:
    store.sources.register([source], since or ago(hours=10))
    return source


def incident(store, name: str = "crm_contacts"):
    return store.incidents.open_about(About.SOURCE, name)


# -- findings ---------------------------------------------------------------------------------------------------------


def test_a_source_that_brings_rows_is_fine(store):
    watched(store)
    beat(store, 3, ago(minutes=20))
    beat(store, 0, ago(minutes=5))
    context = task_context("check")
    assert check(context=context) == []
    assert incident(store) is None
    assert context["pushed"] == {"looked_at": 1}


def test_a_job_that_runs_and_moves_nothing_is_flat(store):
    watched(store)
    beat(store, 3, ago(hours=5))
    for minutes in (50, 30, 10):
        beat(store, 0, ago(minutes=minutes))
    assert check() == ["crm_contacts"]
    found = incident(store)
    assert found.kind is IncidentKind.FLAT
    assert timedelta(hours=3, minutes=59) < utcnow() - found.opened_at < timedelta(hours=4, minutes=1), "when it began"


def test_a_job_that_does_not_run_is_late(store):
    watched(store)
    beat(store, 3, ago(hours=3))
    assert check() == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.LATE
    assert "No run reported" in incident(store).summary


def test_a_source_that_was_never_heard_is_late_once_its_window_has_closed(store):
    watched(store, since=ago(minutes=50))
    assert check() == []
    watched(store, Source("other", window=HOUR), since=ago(minutes=70))
    assert check() == ["other"]
    assert "none was ever heard" in incident(store, "other").summary


def test_runs_that_do_not_say_how_much_they_moved_are_unmeasured(store):
    watched(store)
    beat(store, None, ago(minutes=10))
    assert check() == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.UNMEASURED


def test_sources_are_registered_when_they_are_declared_and_stay_watched(store):
    assert check(SOURCE) == []
    assert store.sources.registered() == [SOURCE]
    beat(store, 0, utcnow())
    with time_machine.travel(utcnow() + 2 * HOUR):
        assert check() == ["crm_contacts"]


def test_sources_come_as_json_too(store):
    given = json.dumps([{"name": "crm_contacts", "window_seconds": 3600, "credential": "crm"}])
    FlatLineOperator(task_id="check", sources=given).execute(task_context("check"))
    assert store.sources.registered() == [Source("crm_contacts", HOUR, credential="crm")]


@pytest.mark.parametrize("given", ["{}", "[", '[{"name": "a"}]', '[{"name": "a", "window_seconds": 0}]'])
def test_sources_that_cannot_be_read_are_refused_and_nothing_is_registered(given, store):
    with pytest.raises(ConfigurationError):
        FlatLineOperator(task_id="check", sources=given).execute(task_context("check"))
    assert store.sources.registered() == []


def test_a_source_declared_twice_is_refused(store):
    with pytest.raises(ConfigurationError, match="declared twice"):
        check(SOURCE, SOURCE)


# -- the likely cause -------------------------------------------------------------------------------------------------


def test_the_credential_that_feeds_it_is_named_as_the_likely_cause(store):
    enrolled(store, "crm")
    incident_about(store, "crm", summary="Our request is wrong.")
    watched(store, Source("crm_contacts", HOUR, credential="crm"))
    check()
    assert "Likely cause: its credential `crm` (active): Our request is wrong." in incident(store).summary


def test_a_healthy_credential_points_elsewhere_and_an_unguarded_one_says_so(store):
    enrolled(store, "crm")
    watched(store, Source("crm_contacts", HOUR, credential="crm"))
    watched(store, Source("ads", HOUR, credential="ads"))
    check()
    assert "so look elsewhere" in incident(store).summary
    assert "`ads`, which is not guarded" in incident(store, "ads").summary


# -- opening and resolving --------------------------------------------------------------------------------------------


def test_an_incident_opens_once(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    first = incident(store)
    for _ in range(3):
        assert check() == ["crm_contacts"]
    [only] = store.incidents.history(About.SOURCE, "crm_contacts")
    assert (only.id, only.noticed_at, only.opened_at) == (first.id, first.noticed_at, first.opened_at)


def test_a_flat_source_is_resolved_by_rows_and_by_nothing_less(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    beat(store, None, ago(minutes=2))
    beat(store, 0, ago(minutes=1))
    assert check() == ["crm_contacts"]
    beat(store, 1, utcnow())
    assert check() == []
    assert incident(store) is None
    [closed] = store.incidents.history(About.SOURCE, "crm_contacts")
    assert closed.resolved_at is not None


def test_a_late_source_that_runs_again_without_rows_is_flat_and_not_fine(store):
    watched(store)
    check()
    assert incident(store).kind is IncidentKind.LATE
    beat(store, 0, utcnow())
    assert check() == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.FLAT
    beat(store, 2, utcnow())
    assert check() == []


def test_a_wider_window_is_no_sign_of_life(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    assert check(Source("crm_contacts", window=timedelta(hours=24))) == ["crm_contacts"]
    assert incident(store) is not None


# -- counting at the destination --------------------------------------------------------------------------------------


class SqliteHook(DbApiHook):
    """common-sql's own hook over the standard library's driver; the sqlite provider is not installed here."""

    conn_name_attr = "sqlite_conn_id"

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def get_conn(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)


COUNTED = Source(
    "crm_contacts",
    window=HOUR,
    count=SqlCount(
        "warehouse",
        "SELECT count(*) FROM contacts WHERE at >= '{{ since.isoformat() }}' AND at < '{{ until.isoformat() }}'",
    ),
)


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    """A destination with a table of contacts; returns how to load one at an instant."""
    path = str(tmp_path / "warehouse.db")

    def run(sql: str, *values: Any) -> None:
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(sql, values)
        connection.close()

    run("CREATE TABLE contacts (at TEXT)")
    monkeypatch.setattr(BaseHook, "get_hook", classmethod(lambda cls, conn_id, hook_params=None: SqliteHook(path)))
    return lambda at: run("INSERT INTO contacts VALUES (?)", at.isoformat())


def test_rows_at_the_destination_within_the_window_are_fine_whatever_the_heartbeats_say(store, warehouse):
    watched(store, COUNTED)
    beat(store, 0, ago(minutes=5))
    warehouse(ago(minutes=30))
    assert check() == []


def test_rows_from_before_the_window_do_not_count(store, warehouse):
    watched(store, COUNTED)
    beat(store, 7, ago(minutes=5))
    warehouse(ago(hours=2))
    assert check() == ["crm_contacts"], "a heartbeat that claims rows does not fill an empty destination"
    found = incident(store)
    assert found.kind is IncidentKind.FLAT
    assert "the destination holds 0 new rows" in found.summary


def test_an_empty_destination_without_a_run_is_late(store, warehouse):
    watched(store, COUNTED)
    assert check() == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.LATE


def test_rows_at_the_destination_resolve_it(store, warehouse):
    watched(store, COUNTED)
    check()
    warehouse(utcnow())
    assert check() == []
    assert incident(store) is None


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT count(*) FROM no_such_table", "OperationalError: no such table"),
        ("SELECT 1 WHERE 1 = 0", "returned no row"),
        ("SELECT NULL", "returned no row"),
        ("SELECT 'many'", "ValueError"),
        ("SELECT {{ since.no_such_attribute() }}", "UndefinedError"),
        ("SELECT {% if %}", "TemplateSyntaxError"),
    ],
)
def test_a_destination_that_cannot_be_counted_is_neither_zero_nor_fine(sql, said, store, warehouse):
    source = watched(store, Source("crm_contacts", HOUR, count=SqlCount("warehouse", sql)))
    beat(store, 7, ago(minutes=5), source)
    assert check() == ["crm_contacts"]
    found = incident(store)
    assert found.kind is IncidentKind.UNMEASURED
    assert said in found.summary


def test_a_destination_that_cannot_be_reached_is_unmeasured(store):
    watched(store, COUNTED)
    beat(store, 7, ago(minutes=5))
    assert check() == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.UNMEASURED
    assert "warehouse" in incident(store).summary


def test_one_source_that_cannot_be_counted_hides_no_other(store):
    watched(store, COUNTED)
    watched(store, Source("ads", HOUR))
    assert check() == ["ads", "crm_contacts"]


def test_a_count_that_works_again_but_finds_nothing_does_not_resolve_it(store, warehouse, monkeypatch):
    source = Source("crm_contacts", HOUR, count=SqlCount("warehouse", "SELECT nonsense"))
    watched(store, source)
    beat(store, 0, ago(minutes=5))
    check()
    assert check(COUNTED) == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.FLAT


# -- telling ----------------------------------------------------------------------------------------------------------


def test_the_alert_is_red_until_the_source_speaks(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    recorder, context = Recorder(), task_context("alert")
    with pytest.raises(NeedsAPersonError, match=r"`crm_contacts`: runs, but no rows within its window.*Open since"):
        alert(recorder, context=context)
    assert recorder.sent == [incident(store).sentence()]
    assert context[LABEL] == "crm_contacts: runs, but no rows within its window"
    beat(store, 3, utcnow())
    check()
    assert alert(recorder) == "`crm_contacts` speaks again."
    assert len(recorder.sent) == 1


def test_people_are_told_again_after_a_day_and_not_before(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    recorder = Recorder()
    for hours, alerts in ((0, 1), (1, 1), (23, 1), (25, 2), (26, 2), (50, 3)):
        with time_machine.travel(utcnow() + timedelta(hours=hours)), pytest.raises(NeedsAPersonError):
            alert(recorder)
        assert len(recorder.sent) == alerts, f"after {hours} hours"


def test_people_are_told_anew_when_something_else_is_wrong(store):
    watched(store)
    check()
    recorder = Recorder()
    with pytest.raises(NeedsAPersonError, match="no run within its window"):
        alert(recorder)
    beat(store, 0, utcnow())
    check()
    with pytest.raises(NeedsAPersonError, match="no rows within its window"):
        alert(recorder)
    assert len(recorder.sent) == 2


def test_alerts_that_start_together_are_sent_once(store):
    watched(store)
    check()
    recorders, gate = [Recorder() for _ in range(4)], threading.Barrier(4)

    def work(recorder: Recorder) -> None:
        gate.wait(timeout=10)
        with pytest.raises(NeedsAPersonError):
            alert(recorder)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, recorders))
    assert sum(len(recorder.sent) for recorder in recorders) == 1


def test_a_notifier_that_raises_leaves_the_task_red_and_the_alert_to_be_told(store):
    watched(store)
    check()
    with pytest.raises(ConnectionError):
        alert(Recorder(broken=True))
    recorder = Recorder()
    with pytest.raises(NeedsAPersonError):
        alert(recorder)
    assert len(recorder.sent) == 1
