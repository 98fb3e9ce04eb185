"""A DAG's cron, from Airflow's own timetables: those of the Task SDK and those of the core, which 3.1 has alone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow", reason="schedules are Airflow's")

import pendulum
from airflow.sdk import DAG, Asset
from airflow.timetables import interval as core_interval
from airflow.timetables import trigger as core_trigger

from airflow_oauth_guard.domain.feeding import Schedule
from airflow_oauth_guard.operators.schedules import schedule_of

pytestmark = pytest.mark.airflow

BERLIN = pendulum.timezone("Europe/Berlin")


def told(schedule, start=pendulum.datetime(2026, 1, 1, tz="Europe/Berlin")) -> Schedule | None:  # noqa: B008
    return schedule_of(DAG("feeding", schedule=schedule, start_date=start))


@pytest.mark.parametrize(
    ("given", "expression"),
    [("0 6 * * 1-5", "0 6 * * 1-5"), ("@daily", "0 0 * * *"), ("@hourly", "0 * * * *"), ("@quarterly", "0 0 1 */3 *")],
)
def test_a_cron_is_read_in_the_time_zone_of_its_dag(given, expression):
    assert told(given) == Schedule((expression,), "Europe/Berlin")


@pytest.mark.parametrize("start", [None, pendulum.datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone.utc)])
def test_without_a_time_zone_of_its_own_it_is_utc(start):
    assert told("0 6 * * *", start) == Schedule(("0 6 * * *",), "UTC")


@pytest.mark.parametrize("zone", ["Europe/Berlin", BERLIN])
@pytest.mark.parametrize("kind", [core_trigger.CronTriggerTimetable, core_interval.CronDataIntervalTimetable])
def test_the_cores_timetables_tell_it(kind, zone):
    assert told(kind("0 6 * * *", timezone=zone)) == Schedule(("0 6 * * *",), "Europe/Berlin")


def test_several_crons_are_several_expressions():
    several = core_trigger.MultipleCronTriggerTimetable("0 6 * * *", "30 18 * * 1", timezone=BERLIN)
    assert told(several) == Schedule(("0 6 * * *", "30 18 * * 1"), "Europe/Berlin")


@pytest.mark.parametrize("zone", ["Europe/Berlin", BERLIN])
def test_the_task_sdks_timetables_tell_it(zone):
    sdk = pytest.importorskip("airflow.sdk.definitions.timetables.trigger", reason="since Airflow 3.2")
    intervals = pytest.importorskip("airflow.sdk.definitions.timetables.interval")
    for kind in (sdk.CronTriggerTimetable, intervals.CronDataIntervalTimetable):
        assert told(kind("@daily", timezone=zone)) == Schedule(("0 0 * * *",), "Europe/Berlin")
    several = sdk.MultipleCronTriggerTimetable("0 6 * * *", "@daily", timezone=zone)
    assert told(several) == Schedule(("0 6 * * *", "0 0 * * *"), "Europe/Berlin")


class AfterTheHolidays(core_trigger.CronTriggerTimetable):
    """Somebody's own; it may run at any other time."""


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        "@once",
        "@continuous",
        timedelta(hours=1),
        [Asset("contacts")],
        core_trigger.DeltaTriggerTimetable(timedelta(hours=1)),
        AfterTheHolidays("0 6 * * *", timezone=BERLIN),
        core_trigger.CronTriggerTimetable("0 6 * * *", timezone=pendulum.FixedTimezone(3600)),
        core_trigger.CronTriggerTimetable("0 6 * * * 30", timezone=BERLIN),
    ],
    ids=str,
)
def test_whatever_no_plain_cron_says_is_left_to_be_learned(schedule):
    given = {} if schedule == "@continuous" else {"start_date": pendulum.datetime(2026, 1, 1)}
    dag = DAG("feeding", schedule=schedule, **({"max_active_runs": 1} | given))
    assert schedule_of(dag) is None


@pytest.mark.parametrize("dag", [None, SimpleNamespace(), SimpleNamespace(timetable=None)])
def test_no_dag_has_no_schedule(dag):
    assert schedule_of(dag) is None


def test_a_schedule_is_said_in_words():
    assert str(Schedule(("0 6 * * *", "@daily"), "UTC")) == "`0 6 * * *`, `@daily` (UTC)"
