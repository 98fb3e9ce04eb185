from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

import pendulum
from airflow.sdk import DAG, Asset, task
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.speaking import adoption
from airflow_oauth_guard.domain.windows import DEFAULT_FALLBACK, Cron, Learned
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.operators import heartbeat as module
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator, heartbeat
from tests.airflow_parts import rows, task_context, utcnow

pytestmark = pytest.mark.airflow

SOURCE = Source("crm_contacts", window=timedelta(hours=24), credential="crm_prod")
NOON = "2026-03-01T12:00:00+00:00"


@pytest.fixture(autouse=True)
def everything_is_logged(caplog):
    caplog.set_level(logging.INFO, "airflow_oauth_guard")


def dag(schedule="0 6 * * *", zone="Europe/Berlin") -> DAG:
    return DAG("feeding", schedule=schedule, start_date=pendulum.datetime(2026, 1, 1, tz=zone))


def beat(moved, source=SOURCE, *, watermark=None, feeding=None, **how) -> dict:
    operator = HeartbeatOperator(task_id="heartbeat", source=source, rows=moved, watermark=watermark)
    context = task_context("heartbeat", **how)
    return operator.execute({**context, "dag": feeding} if feeding else context)


def beats(store) -> list[int | None]:
    return [row["row_count"] for row in rows(store, "oauth_guard_heartbeats")]


# -- what a run says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"), [("", None), ("None", None), (None, None), ("7", 7), (7, 7), ("0", 0), (0, 0), (" 7 ", 7)]
)
def test_rows_are_a_number_or_unknown_and_unknown_is_not_zero(given, kept, store):
    assert beat(given) == {"source": "crm_contacts", "rows": kept}
    assert beats(store) == [kept]


@pytest.mark.parametrize("given", ["x", "7.5", "[]", "nan", [], {}, 7.9, True])
def test_rows_that_are_no_whole_number_are_refused(given, store):
    with pytest.raises(ConfigurationError, match="`rows` is"):
        beat(given)
    assert beats(store) == []


@pytest.mark.parametrize("given", [-1, "-1"])
def test_fewer_than_no_rows_are_refused(given, store):
    with pytest.raises(ConfigurationError, match="-1 rows"):
        beat(given)
    assert beats(store) == []


def test_a_heartbeat_says_which_task_it_comes_from(store):
    beat(3, run_id="scheduled__1", map_index=4, try_number=2)
    [row] = rows(store, "oauth_guard_heartbeats")
    assert (row["dag_id"], row["run_id"], row["task_id"]) == ("oauth_guard_test", "scheduled__1", "heartbeat")
    assert (row["map_index"], row["try_number"]) == (4, 2)


def test_one_try_beats_once_however_often_it_is_written(store, caplog):
    beat(3)
    beat(3)
    assert beats(store) == [3]
    assert "has sent its heartbeat of `crm_contacts` already" in caplog.text
    beat(3, try_number=2)
    beat(0, run_id="manual__2")
    assert beats(store) == [3, 3, 0]


@pytest.mark.parametrize("given", [NOON, "2026-03-01T13:00:00+01:00", datetime(2026, 3, 1, 12, tzinfo=timezone.utc)])
def test_a_watermark_says_how_far_the_data_reaches(given, store):
    beat(3, watermark=given)
    assert store.sources.get("crm_contacts").state.watermark == datetime.fromisoformat(NOON)


@pytest.mark.parametrize("given", [None, "", "None"])
def test_no_watermark_is_none(given, store):
    beat(3, watermark=given)
    assert store.sources.get("crm_contacts").state.watermark is None


@pytest.mark.parametrize("given", ["2026-03-01T12:00:00", datetime(2026, 3, 1), "yesterday"])
def test_a_watermark_that_nobody_can_place_is_refused(given, store):
    with pytest.raises(ConfigurationError, match="`watermark` is"):
        beat(3, watermark=given)
    assert beats(store) == []


def test_rows_and_watermark_are_templates(store):
    operator = HeartbeatOperator(task_id="h", source=SOURCE, rows="{{ moved }}", watermark="{{ reached }}")
    context = {**task_context("h"), "moved": 5, "reached": NOON}
    operator.render_template_fields(context)
    operator.execute(context)
    assert store.sources.get("crm_contacts").state.last_rows == 5
    assert store.sources.get("crm_contacts").state.watermark == datetime.fromisoformat(NOON)


# -- who is watched ---------------------------------------------------------------------------------------------------


def test_a_source_is_watched_from_its_first_heartbeat_on_as_it_was_declared(store, caplog):
    beat(3)
    assert store.sources.registered() == [SOURCE]
    assert not store.sources.get("crm_contacts").adopted
    assert store.sources.get("crm_contacts").state.last_rows_at is not None
    assert "not declared" not in caplog.text


def test_a_registered_source_may_be_named(store, caplog):
    store.sources.register([SOURCE], utcnow())
    assert beat(3, "crm_contacts") == {"source": "crm_contacts", "rows": 3}
    assert store.sources.get("crm_contacts").source == SOURCE
    assert "not declared" not in caplog.text


def test_a_source_nobody_declared_is_adopted_and_the_log_says_so_once(store, caplog):
    beat(3, "crm_contcts")
    beat(3, "crm_contcts", try_number=2)
    assert store.sources.get("crm_contcts").adopted
    assert store.sources.get("crm_contcts").source.window == Learned()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [adoption("crm_contcts")]


@pytest.mark.parametrize("name", ["", "x" * 251])
def test_a_name_that_cannot_be_kept_is_refused(name, store):
    with pytest.raises(ConfigurationError, match="write 1 to 250"):
        beat(3, name)
    assert beats(store) == []


# -- the DAG's cron ---------------------------------------------------------------------------------------------------

BERLIN_CRON = Cron(("0 6 * * *",), grace=None, first_grace=DEFAULT_FALLBACK)


def watched(store, name="crm_contacts") -> Source:
    return store.sources.get(name).source


def test_where_the_feeding_dag_has_a_cron_only_the_grace_is_learned(store):
    beat(3, "crm_contacts", feeding=dag())
    assert (watched(store).window, watched(store).timezone) == (BERLIN_CRON, "Europe/Berlin")
    assert store.sources.get("crm_contacts").adopted, "nobody has declared it for all that"


def test_a_source_declared_as_learned_follows_the_cron_with_its_own_budget(store):
    beat(3, Source("crm_contacts", Learned(budget=0.5)), feeding=dag())
    assert watched(store).window == replace(BERLIN_CRON, budget=0.5)


def test_a_named_source_that_was_declared_as_learned_follows_the_cron(store):
    declared = [Source("crm_contacts", Learned())]
    store.sources.register(declared, utcnow())
    beat(3, "crm_contacts", feeding=dag())
    store.sources.register([*declared, Source("ads", Learned())], utcnow())
    assert watched(store).window == BERLIN_CRON


@pytest.mark.parametrize(
    "window", [timedelta(hours=24), Cron(("0 3 * * *",), None), Cron(("0 3 * * *",), timedelta(1))]
)
def test_a_window_that_somebody_chose_stays(window, store):
    beat(3, Source("crm_contacts", window), feeding=dag())
    assert (watched(store).window, watched(store).timezone) == (window, "UTC")


def test_a_dag_that_gets_another_schedule_takes_its_source_along(store):
    beat(3, "crm_contacts", feeding=dag())
    beat(3, "crm_contacts", feeding=dag("30 7 * * 1", "UTC"), try_number=2)
    assert (watched(store).window, watched(store).timezone) == (
        replace(BERLIN_CRON, expressions=("30 7 * * 1",)),
        "UTC",
    )
    beat(3, "crm_contacts", feeding=dag(timedelta(days=1)), try_number=3)
    assert watched(store).window == Learned()


def test_what_was_declared_last_counts_over_the_cron(store):
    beat(3, "crm_contacts", feeding=dag())
    store.sources.register([SOURCE], utcnow())
    assert watched(store) == SOURCE
    store.sources.register([Source("crm_contacts", Learned())], utcnow())
    assert watched(store).window == BERLIN_CRON


def test_closed_days_in_another_time_zone_keep_a_window_learned(store):
    learned = Source("crm_contacts", Learned(), timezone="America/New_York")
    weekends = ClosedDays(weekdays=frozenset({5, 6}))
    beat(3, replace(learned, closed=weekends), feeding=dag())
    assert (watched(store).window, watched(store).timezone) == (Learned(), "America/New_York")
    beat(3, learned, feeding=dag(), try_number=2)
    assert (watched(store).window, watched(store).timezone) == (BERLIN_CRON, "Europe/Berlin")


def test_it_is_due_when_the_cron_says_and_not_a_day_after_its_last_word(store):
    beat(3, "crm_contacts", feeding=dag("15 * * * *", "UTC"))
    due_at = store.sources.get("crm_contacts").due_at - DEFAULT_FALLBACK
    assert (due_at.minute, due_at.second) == (15, 0)


# -- the decorator ----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_a_task(monkeypatch):
    def enter(**how):
        context = {**task_context("load", **how), "dag": dag()}
        monkeypatch.setattr(module, "get_current_context", lambda: context)

    return enter


def test_a_function_that_returns_its_rows_is_heard_and_returns_them(store, in_a_task):
    in_a_task(run_id="scheduled__1")

    @heartbeat("crm_contacts")
    def load(first, *, second) -> int:
        """Loads."""
        return first + second

    assert load(3, second=4) == 7
    assert (load.__name__, load.__doc__) == ("load", "Loads.")
    [row] = rows(store, "oauth_guard_heartbeats")
    assert (row["row_count"], row["dag_id"], row["run_id"]) == (7, "oauth_guard_test", "scheduled__1")
    assert watched(store).window == BERLIN_CRON


@pytest.mark.parametrize(
    ("returned", "count", "kept"), [(None, None, None), ([1, 2], len, 2), ("ab", lambda _: None, None)]
)
def test_what_a_function_returned_is_counted_as_it_says(returned, count, kept, store):
    assert heartbeat("crm_contacts", rows=count)(lambda: returned)() is returned
    assert beats(store) == [kept]


def test_a_whole_number_of_numpys_is_one(store):
    class Int64:
        def __index__(self) -> int:
            return 9

    @heartbeat("crm_contacts")
    def load() -> Int64:
        return Int64()

    assert isinstance(load(), Int64)
    assert beats(store) == [9]


@pytest.mark.parametrize("returned", [True, 7.0, "7", [1, 2], {"rows": 7}])
def test_what_is_no_count_is_an_error_that_names_it_and_shows_no_data(returned, store):
    @heartbeat("crm_contacts")
    def load():
        return returned

    with pytest.raises(ConfigurationError, match=rf"`crm_contacts`: `.*load` returned a {type(returned).__name__}"):
        load()
    assert beats(store) == []


def test_a_function_that_raises_is_not_heard_and_its_error_passes(store):
    @heartbeat("crm_contacts")
    def load():
        raise LookupError("no such table")

    with pytest.raises(LookupError, match="no such table"):
        load()
    assert beats(store) == []


def test_outside_of_a_task_the_function_itself_speaks_as_often_as_it_runs(store):
    @heartbeat(SOURCE)
    def load() -> int:
        return 7

    load()
    load()
    kept = rows(store, "oauth_guard_heartbeats")
    assert [(row["row_count"], row["dag_id"]) for row in kept] == [(7, None), (7, None)]
    assert kept[0]["task_id"].endswith("load")
    assert watched(store) == SOURCE


def test_a_coroutine_is_heard_when_it_is_done(store):
    @heartbeat("crm_contacts")
    async def load() -> int:
        await asyncio.sleep(0)
        return 7

    assert asyncio.run(load()) == 7
    assert beats(store) == [7]


def test_under_a_task_decorator_it_is_a_task_like_any_other(store):
    with dag():

        @task
        @heartbeat("crm_contacts")
        def load(given: int = 3) -> int:
            return given

        made = load(5)
    assert beats(store) == [], "nothing is heard while a DAG is read"
    assert made.operator.task_id == "load"
    assert made.operator.python_callable(5) == 5
    assert beats(store) == [5]


def test_above_a_task_decorator_it_would_speak_while_the_dag_is_read_and_is_refused():
    with dag(), pytest.raises(ConfigurationError, match="directly above the function, under @task"):

        @heartbeat("crm_contacts")
        @task
        def load() -> int:
            return 1


# -- assets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("moved", "carried"), [(7, {"rows": 7}), (0, {"rows": 0}), (None, {})])
def test_an_update_of_the_sources_asset_carries_the_rows(moved, carried, store):
    contacts = Asset("crm_contacts")
    operator = HeartbeatOperator(task_id="heartbeat", source=SOURCE, rows=moved, outlets=[contacts, Asset("other")])
    events = OutletEventAccessors()
    operator.execute({**task_context("heartbeat"), "task": operator, "outlet_events": events})
    assert events[contacts].extra == carried
    assert events[Asset("other")].extra == {}


def test_a_credential_that_is_named_feeds_a_source_that_nobody_declared(store):
    heartbeat("crm_contacts", credential="crm_prod")(lambda: 3)()
    assert watched(store) == Source("crm_contacts", Learned(), credential="crm_prod")
