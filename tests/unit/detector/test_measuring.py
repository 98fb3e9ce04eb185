from __future__ import annotations

import os
import threading
import time
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from sqlalchemy.engine import make_url

from airflow_oauth_guard.detector.measuring import Answer, Measuring, count, instant, newest, only_value, reason
from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.sources import AssetEvents, Source, SqlCount, SqlNewest
from airflow_oauth_guard.domain.windows import Cron, Learned
from airflow_oauth_guard.errors import OAuthGuardError
from tests.airflow_parts import task_context
from tests.unit.detector.destinations import Destinations, PostgresHook, SqliteHook, warehouse_in

pytestmark = pytest.mark.airflow

HOUR = timedelta(hours=1)
NOW = datetime(2026, 3, 10, 12, tzinfo=timezone.utc)
COUNT = "SELECT count(*) FROM contacts WHERE at >= '{{ since.isoformat() }}' AND at < '{{ until.isoformat() }}'"
NEWEST = "SELECT max(at) FROM contacts"
POSTGRES = os.environ.get("OAUTH_GUARD_TEST_POSTGRES_URL", "")


def counted(name: str = "crm_contacts", sql: str = COUNT, *, window: Any = HOUR, conn_id: str = "warehouse") -> Source:
    return Source(name, window, measure=SqlCount(conn_id, sql))


def ask(store, *sources: Source, now: datetime = NOW, context: Any = None, **patience: Any) -> dict[str, Answer]:
    """What a pass finds out about these sources."""
    store.sources.register(sources, now)
    watched = [store.sources.get(source.name) for source in sources]
    measuring = Measuring(context or task_context("check"), now, **patience)
    return {answer.source: answer for answer in measuring.ask(watched)}


def beat_of(store, source: Source, **how: Any) -> Beat:
    answer = ask(store, source, **how)[source.name]
    assert not answer.problem
    [(beat, _, _)] = answer.beats
    return beat


def problem_of(store, source: Source, **how: Any) -> str:
    answer = ask(store, source, **how)[source.name]
    assert not answer.beats
    return answer.problem


@pytest.fixture
def destinations(monkeypatch) -> Destinations:
    return Destinations(monkeypatch)


@pytest.fixture
def warehouse(destinations, tmp_path):
    return warehouse_in(destinations, tmp_path)


# -- counting ---------------------------------------------------------------------------------------------------------


def test_a_count_is_what_the_detector_found_and_no_run(store, warehouse):
    warehouse.load(NOW - timedelta(minutes=30))
    [(beat, who, _)] = ask(store, counted())["crm_contacts"].beats
    assert beat == Beat(NOW, rows=1, measured=True)
    assert who.task_id == "check"


def test_a_fixed_window_is_counted_as_a_whole_and_nothing_before_it(store, warehouse):
    warehouse.load(NOW - timedelta(minutes=59))
    warehouse.load(NOW - timedelta(minutes=61))
    warehouse.load(NOW + timedelta(minutes=1))
    assert beat_of(store, counted()).rows == 1


@pytest.mark.parametrize("window", [Learned(), Cron(("0 * * * *",))])
def test_other_windows_are_counted_since_the_last_answer_and_an_hour_before_it(window, store, warehouse):
    source = counted(window=window)
    for minutes in (10, 90, 110, 130, 200):
        warehouse.load(NOW - timedelta(minutes=minutes))
    first = ask(store, source)[source.name]
    assert first.beats[0][0].rows == 3, "the last hour, and what was committed late"
    store.sources.found(source.name, *first.beats[0])
    warehouse.load(NOW + timedelta(minutes=30))
    warehouse.load(NOW + timedelta(hours=4, minutes=55))
    assert beat_of(store, source, now=NOW + timedelta(hours=5)).rows == 3


def test_what_is_found_can_be_kept_and_read(store, warehouse):
    source = counted()
    answer = ask(store, source)[source.name]
    for beat, who, key in answer.beats:
        assert store.sources.found(source.name, beat, who, key).new
    assert store.sources.get(source.name).state.measured_at == NOW


def test_sources_without_a_measure_are_not_asked_about(store):
    assert ask(store, Source("ads", HOUR)) == {}


@pytest.mark.parametrize(
    ("value", "rows"), [(0, 0), (7, 7), (7.0, 7), (Decimal(7), 7), (Decimal("7.0"), 7), ("7", 7), (10**15, 10**15)]
)
def test_drivers_give_numbers_of_many_kinds(value, rows):
    assert count(value) == rows


@pytest.mark.parametrize("value", [None, "many", "", -1, 1.5, float("nan"), float("inf"), True, b"7", NOW])
def test_what_is_no_number_of_rows_is_none(value):
    with pytest.raises(OAuthGuardError, match="the query returned"):
        count(value)


@pytest.mark.parametrize("row", [(7,), [7], {"count": 7}])
def test_drivers_give_rows_of_many_kinds(row):
    assert only_value(row) == 7


@pytest.mark.parametrize("row", [None, (), {}, (1, 2), {"a": 1, "b": 2}])
def test_a_row_of_none_or_of_many_values_is_no_answer(row):
    with pytest.raises(OAuthGuardError, match="select one value"):
        only_value(row)


# -- the newest row ---------------------------------------------------------------------------------------------------


def test_the_newest_row_says_how_far_the_data_reaches(store, warehouse):
    warehouse.load(NOW - timedelta(hours=3))
    warehouse.load(NOW - timedelta(hours=2))
    source = Source("crm_contacts", HOUR, measure=SqlNewest("warehouse", NEWEST))
    assert beat_of(store, source) == Beat(NOW, rows=None, watermark=NOW - timedelta(hours=2), measured=True)


def test_an_empty_table_holds_zero_rows(store, warehouse):
    source = Source("crm_contacts", HOUR, measure=SqlNewest("warehouse", NEWEST))
    assert beat_of(store, source) == Beat(NOW, rows=0, measured=True)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 3, 1, 10, tzinfo=timezone.utc),
        datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        datetime(2026, 3, 1, 10),
        "2026-03-01 10:00:00",
        "2026-03-01T10:00:00Z",
        " 2026-03-01T12:00:00.000+02:00",
        1772359200,
        1772359200.0,
        Decimal(1772359200),
        "1772359200",
        1772359200_000,
        1772359200_000_000,
        1772359200_000_000_000,
    ],
)
def test_drivers_give_instants_of_many_kinds(value):
    assert instant(value) == datetime(2026, 3, 1, 10, tzinfo=timezone.utc)


@pytest.mark.parametrize("value", [date(2026, 3, 1), "2026-03-01"])
def test_a_date_begins_at_its_midnight(value):
    assert instant(value) == datetime(2026, 3, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "value",
    [
        "now",
        "10:00",
        "yesterday",
        "",
        "0000-00-00 00:00:00",
        "P1D",
        7,
        0,
        -1,
        True,
        20260301,
        float("inf"),
        float("nan"),
    ],
)
def test_what_is_no_instant_is_none(value):
    with pytest.raises(OAuthGuardError, match="select an instant"):
        instant(value)


def test_a_row_dated_slightly_ahead_does_not_look_new_at_every_look():
    ahead = NOW + timedelta(hours=2)
    assert newest(ahead, NOW).watermark == newest(ahead, NOW + HOUR).watermark == ahead


def test_a_row_dated_at_the_end_of_time_hides_no_silence(store, warehouse):
    warehouse.load(datetime(9999, 12, 31, tzinfo=timezone.utc))
    source = Source("crm_contacts", HOUR, measure=SqlNewest("warehouse", NEWEST))
    assert "has not come yet" in problem_of(store, source)


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT count(*) FROM no_such_table", "OperationalError: no such table: no_such_table"),
        ("SELECT 1 WHERE 1 = 0", "the query returned no row"),
        ("SELECT 1, 2", "the query returned 2 columns"),
        ("SELECT NULL", "the query returned NULL"),
        ("SELECT 'many'", "the query returned 'many'"),
        (" ", "ValueError: List of SQL statements is empty"),
        ("SELECT {{ since.no_such_attribute() }}", "UndefinedError"),
        ("SELECT {{ sinse }}", "UndefinedError: 'sinse' is undefined"),
        ("SELECT {{ since.__class__.__mro__ }}", "SecurityError"),
        ("SELECT {% if %}", "TemplateSyntaxError"),
    ],
)
def test_a_question_that_cannot_be_answered_is_a_problem_and_no_zero(sql, said, store, warehouse):
    assert said in problem_of(store, counted(sql=sql))


def test_a_connection_that_is_not_defined_is_a_problem_of_all_its_sources(store):
    answers = ask(store, counted("a"), counted("b"))
    assert [answers["a"].problem, answers["b"].problem] == [answers["a"].problem] * 2
    assert "warehouse" in answers["a"].problem


def test_a_connection_that_is_no_database_says_so(store, destinations):
    destinations.define("warehouse", lambda conn_id: SimpleNamespace(), "localhost")
    assert "answers no SQL" in problem_of(store, counted())


def test_a_query_that_fails_leaves_the_other_sources_of_its_database_alone(store, warehouse):
    answers = ask(store, counted("a", "SELECT nonsense"), counted("b"), counted("c", "SELECT 3"))
    assert "no such column" in answers["a"].problem
    assert [answers[name].beats[0][0].rows for name in "bc"] == [0, 3]


def test_sources_of_one_database_share_a_connection(store, destinations, tmp_path, monkeypatch):
    opened: list[int] = []

    class Counting(SqliteHook):
        def get_conn(self):
            opened.append(threading.get_ident())
            return super().get_conn()

    warehouse = warehouse_in(destinations, tmp_path)
    destinations.define("warehouse", Counting, warehouse.path)
    ask(store, *(counted(f"source_{number}") for number in range(20)))
    assert len(opened) == 1
    assert opened != [threading.get_ident()]


def test_what_got_no_answer_last_time_is_asked_last_and_what_was_not_asked_is_not(store, destinations, tmp_path):
    asked: list[str] = []

    class Noting(SqliteHook):
        def get_first(self, sql, parameters=None):
            asked.append(sql)
            return (1,)

    destinations.define("warehouse", Noting, f"{tmp_path}/warehouse.db")
    sources = [counted(name, f"SELECT '{name}'") for name in ("slow", "unasked", "quick")]
    store.sources.register(sources, NOW)
    store.sources.not_found("slow", "TimeoutError: connection `warehouse` did not answer within 60 s", NOW)
    store.sources.not_found("unasked", "TimeoutError: not asked, since this pass had spent its 5 min", NOW)
    ask(store, *sources)
    assert asked == ["SELECT 'unasked'", "SELECT 'quick'", "SELECT 'slow'"]


def test_a_hook_looks_its_connection_up_once_and_others_as_it_likes(store, destinations, tmp_path, monkeypatch):
    seen: list[str] = []

    class Tunnelled(SqliteHook):
        def get_conn(self):
            seen.extend(self.get_connection(conn_id=conn_id).host for conn_id in ("tunnel", "warehouse"))
            return super().get_conn()

    warehouse = warehouse_in(destinations, tmp_path)
    destinations.define("tunnel", SqliteHook, "a-bastion")
    destinations.define("warehouse", Tunnelled, warehouse.path)
    assert beat_of(store, counted()).rows == 0
    assert seen == ["a-bastion", warehouse.path]


# -- what hangs -------------------------------------------------------------------------------------------------------


class HangingHook(SqliteHook):
    """Its database takes connections and never answers."""

    released = threading.Event()

    def get_first(self, sql, parameters=None):
        self.released.wait(20)


@pytest.fixture
def hanging(destinations):
    HangingHook.released.clear()
    destinations.define("hanging", HangingHook, ":memory:")
    yield
    HangingHook.released.set()


QUICKLY = timedelta(seconds=0.3)


def test_a_database_that_does_not_answer_is_waited_for_once_and_hides_no_other(store, hanging, warehouse):
    began = time.monotonic()
    silent = [counted(f"silent_{number}", conn_id="hanging") for number in range(50)]
    answers = ask(store, *silent, counted("fine"), patience=QUICKLY)
    assert time.monotonic() - began < 5
    assert answers["fine"].beats[0][0].rows == 0
    assert answers["silent_0"].problem == "TimeoutError: connection `hanging` did not answer within 0 s"
    for number in range(1, 50):
        assert (
            "not asked, since connection `hanging` did not answer for `silent_0`" in answers[f"silent_{number}"].problem
        )


def test_a_pass_that_has_spent_its_time_says_which_sources_it_did_not_ask(store, hanging, destinations):
    destinations.define("hanging_too", HangingHook, ":memory:")
    answers = ask(store, counted("a", conn_id="hanging"), altogether=timedelta(0))
    assert "not asked, since this pass had spent its 0 s" in answers["a"].problem


def test_a_query_that_takes_too_long_is_stopped(store, warehouse):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    threads = threading.active_count()
    assert "did not answer" in problem_of(store, counted(sql=endless), patience=QUICKLY)
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == threads, "SQLite was interrupted, so its thread has ended"


# -- what is said of it -----------------------------------------------------------------------------------------------


def test_a_reason_holds_no_secret():
    error = ConnectionError(
        "no route to postgresql://etl:hunter2@db:5432/x?password=hunter3; PWD='hunter 4';token: hunter5 (s3cret-word)"
    )
    said = reason(error, ["s3cret-word"])
    assert said.startswith("ConnectionError: no route to postgresql://<redacted>@db:5432/x?password=<redacted>")
    assert "hunter" not in said
    assert "s3cret" not in said


def test_a_reason_names_the_table_however_long_its_name_is():
    table = "analytics_production.public.crm_contacts_by_day"
    error = ValueError(f"no such table: {table}; key 0123456789abcdef0123456789abcdef01234567")
    assert reason(error, sql=f"SELECT count(*) FROM {table}") == f"ValueError: no such table: {table}; key <redacted>"


def test_a_reason_is_one_short_line():
    said = reason(ValueError("a\n  b" + "x y " * 500))
    assert said.startswith("ValueError: a bx y")
    assert len(said) == 300


def test_a_password_that_a_driver_repeats_is_not_kept(store, destinations, tmp_path):
    class Talking(SqliteHook):
        def get_conn(self):
            raise ConnectionError(f"refused: {self.get_connection(self.get_conn_id()).password} and extra-secret-1")

    destinations.define(
        "warehouse", Talking, "db", password="planted-password", extra={"deep": [{"key": "extra-secret-1"}]}
    )
    assert problem_of(store, counted()) == "ConnectionError: refused: <redacted> and <redacted>"


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture
def postgres(destinations):
    if not POSTGRES:
        pytest.skip("OAUTH_GUARD_TEST_POSTGRES_URL is not set")
    dsn = make_url(POSTGRES).set(drivername="postgresql").render_as_string(hide_password=False)
    destinations.define("postgres", PostgresHook, dsn)
    return dsn


def test_postgresql_is_asked_through_one_connection_whatever_fails_in_between(store, postgres):
    answers = ask(
        store,
        counted("a", "SELECT count(*) FROM generate_series(1, 5)", conn_id="postgres"),
        counted("b", "SELECT count(*) FROM no_such_table_here", conn_id="postgres"),
        counted("c", "SELECT sum(x) FROM generate_series(1, 3) x", conn_id="postgres"),
        Source("d", HOUR, measure=SqlNewest("postgres", "SELECT timestamptz '2026-03-10 10:00+00'")),
        Source("e", HOUR, measure=SqlNewest("postgres", "SELECT timestamp '2026-03-10 10:00'")),
    )
    assert [answers[name].beats[0][0].rows for name in "ac"] == [5, 6]
    assert 'UndefinedTable: relation "no_such_table_here" does not exist' in answers["b"].problem
    assert {answers[name].beats[0][0].watermark for name in "de"} == {NOW - timedelta(hours=2)}


def test_postgresql_is_told_to_stop_a_query_that_takes_too_long(store, postgres):
    import psycopg2

    slow = "SELECT count(*) FROM pg_sleep(60) -- oauth guard test"
    began = time.monotonic()
    assert "did not answer" in problem_of(store, counted(sql=slow, conn_id="postgres"), patience=timedelta(seconds=1))
    assert time.monotonic() - began < 10
    with psycopg2.connect(postgres) as connection, connection.cursor() as cursor:
        for _ in range(50):
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%%oauth guard test' "
                "AND pid <> pg_backend_pid()"
            )
            if cursor.fetchone() == (0,):
                break
            time.sleep(0.1)
        else:
            pytest.fail("the query goes on at the server")
    connection.close()


# -- asset events -----------------------------------------------------------------------------------------------------


class Events(list):
    """An asset's events as Airflow 3.2 and later hand them over."""

    asked: dict[str, Any]

    def after(self, since):
        return self.noting(after=since)

    def ascending(self, way):
        return self.noting(ascending=way)

    def limit(self, most):
        return self.noting(limit=most)

    def noting(self, **asked):
        self.asked = {**getattr(self, "asked", {}), **asked}
        return self


class Accessors:
    """What a task calls ``inlet_events``; made for one asset, as Airflow makes it for the declared inlets."""

    events: Any = ()

    def __init__(self, inlets):
        self.inlets = inlets

    def __getitem__(self, number):
        if self.inlets[number].name == "unknown":
            raise RuntimeError("ASSET_NOT_FOUND: {'name': 'unknown'}")
        return type(self).events


def event(number: int, at: datetime, **extra: Any) -> Any:
    return SimpleNamespace(
        id=number,
        timestamp=at,
        extra=extra or None,
        asset=SimpleNamespace(name="contacts"),
        source_dag_id="load_contacts",
        source_task_id="load",
        source_run_id=f"run_{number}",
        source_map_index=-1,
    )


@pytest.fixture
def assets():
    """A task's context in which an asset has these events."""

    class Mine(Accessors):
        pass

    def having(*events: Any, old: bool = False) -> dict[str, Any]:
        Mine.events = list(events) if old else Events(events)
        return {**task_context("check"), "inlet_events": Mine([])}

    return having


UPDATED = Source("crm_contacts", HOUR, measure=AssetEvents("contacts"))


@pytest.mark.parametrize("old", [False, True], ids=["3.2", "3.1"])
def test_each_event_of_an_asset_is_a_heartbeat_of_the_run_that_caused_it(old, store, assets):
    context = assets(event(2, NOW - HOUR, rows=5), event(1, NOW - 2 * HOUR), old=old)
    answer = ask(store, UPDATED, context=context)["crm_contacts"]
    assert [beat for beat, _, _ in answer.beats] == [Beat(NOW - 2 * HOUR, None), Beat(NOW - HOUR, 5)]
    assert answer.beats[1][1] == Observer("load_contacts", "run_2", "load", -1)


def test_an_event_that_is_seen_twice_is_one_heartbeat(store, assets):
    context = assets(event(1, NOW - timedelta(minutes=5), rows=3), event(2, NOW - timedelta(minutes=5), rows=3))
    new = []
    for _ in range(2):
        for beat, who, key in ask(store, UPDATED, context=context)["crm_contacts"].beats:
            new.append(store.sources.found("crm_contacts", beat, who, key).new)
    assert new == [True, True, False, False]
    assert store.sources.get("crm_contacts").fed_by.dag_id == "load_contacts"


@pytest.mark.parametrize("old", [False, True], ids=["3.2", "3.1"])
def test_only_events_since_the_last_one_are_read_and_a_little_before(old, store, assets):
    store.sources.register([UPDATED], NOW - timedelta(days=1))
    store.sources.beat("crm_contacts", 1, NOW - HOUR, Observer())
    context = assets(event(1, NOW - 3 * HOUR), event(2, NOW - HOUR - timedelta(minutes=3)), event(3, NOW), old=old)
    answer = ask(store, UPDATED, context=context)["crm_contacts"]
    assert [who.run_id for _, who, _ in answer.beats] == ["run_2", "run_3"]


def test_airflow_is_asked_for_the_newest_events_only(store, assets):
    context = assets()
    ask(store, UPDATED, context=context)
    asked = type(context["inlet_events"]).events.asked
    assert asked == {"after": (NOW - timedelta(days=56)).isoformat(), "ascending": False, "limit": 1000}


@pytest.mark.parametrize("rows", ["many", "5", -1, 1.5, True, None, [5]])
def test_an_event_whose_rows_are_no_number_moved_an_unknown_number(rows, store, assets):
    answer = ask(store, UPDATED, context=assets(event(1, NOW, rows=rows)))["crm_contacts"]
    assert answer.beats[0][0].rows is None


def test_an_asset_that_airflow_does_not_know_is_a_problem_and_no_silence(store, assets):
    source = Source("crm_contacts", HOUR, measure=AssetEvents("unknown"))
    said = problem_of(store, source, context=assets())
    assert said.startswith("the events of asset `unknown` cannot be read; is it an outlet of a DAG that exists?")
    assert "ASSET_NOT_FOUND" in said


def test_an_asset_without_events_is_neither_a_heartbeat_nor_a_problem(store, assets):
    assert ask(store, UPDATED, context=assets()) == {"crm_contacts": Answer("crm_contacts")}
