from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.windows import Cron, Learned, check_cron, read_window, window_as_json
from airflow_oauth_guard.errors import ConfigurationError
from tests.unit.domain.builders import HOUR, MINUTE, SECOND
from tests.unit.domain.sources_made import CLOSED, CRON_WINDOWS, CRONS, INSTANTS, WINDOWS, ZONES

BERLIN, NEW_YORK, UTC = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("UTC")
OPEN = ClosedDays()


def utc(*when: int) -> datetime:
    return datetime(*when, tzinfo=timezone.utc)  # type: ignore[misc]


def ticks(expression: str, zone: ZoneInfo, after: datetime, count: int, closed: ClosedDays = OPEN) -> list[datetime]:
    """What a source that reports on the tick would be held to."""
    times, cron = [after], Cron((expression,))
    for _ in range(count):
        times.append(cron.next_after(times[-1], zone, closed))
    return times[1:]


# -- clock changes ----------------------------------------------------------------------------------------------------

HALF_PAST_TWO = "30 2 * * *"


@pytest.mark.parametrize(
    ("zone", "eve", "expected"),
    [
        # 02:30 is left out: awaited when the clock would have shown it, which is 03:30.
        (BERLIN, utc(2026, 3, 27, 12), [utc(2026, 3, 28, 1, 30), utc(2026, 3, 29, 1, 30), utc(2026, 3, 30, 0, 30)]),
        (NEW_YORK, utc(2026, 3, 6, 12), [utc(2026, 3, 7, 7, 30), utc(2026, 3, 8, 7, 30), utc(2026, 3, 9, 6, 30)]),
    ],
)
def test_a_time_that_the_clocks_leave_out_in_spring_is_awaited_once_an_hour_later_on_the_clock(zone, eve, expected):
    assert ticks(HALF_PAST_TWO, zone, eve, 3) == expected


@pytest.mark.parametrize(
    ("expression", "zone", "eve", "expected"),
    [
        (HALF_PAST_TWO, BERLIN, utc(2026, 10, 24, 12), [utc(2026, 10, 25, 1, 30), utc(2026, 10, 26, 1, 30)]),
        ("30 1 * * *", NEW_YORK, utc(2026, 10, 31, 12), [utc(2026, 11, 1, 6, 30), utc(2026, 11, 2, 6, 30)]),
    ],
)
def test_a_time_that_the_clocks_show_twice_in_autumn_is_awaited_once_at_the_later_one(expression, zone, eve, expected):
    assert ticks(expression, zone, eve, 2) == expected
    assert expected[0].astimezone(zone).fold == 1


def test_who_ran_in_the_hour_before_is_awaited_at_the_time_that_the_clocks_leave_out():
    assert Cron(("30 1,2 * * *",)).next_after(utc(2026, 3, 29, 0, 40), BERLIN, OPEN) == utc(2026, 3, 29, 1, 30)


def test_who_ran_at_the_earlier_of_two_equal_times_is_not_awaited_at_the_later_one():
    ran = utc(2026, 10, 25, 0, 31)
    assert Cron((HALF_PAST_TWO,)).next_after(ran, BERLIN, OPEN) == utc(2026, 10, 26, 1, 30)


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        (BERLIN, utc(2026, 3, 29, 1)),
        (BERLIN, utc(2026, 10, 25, 1)),
        (NEW_YORK, utc(2026, 3, 8, 7)),
        (NEW_YORK, utc(2026, 11, 1, 6)),
    ],
)
def test_an_hourly_source_is_awaited_every_hour_while_the_clocks_change(zone, change):
    around = [change + number * HOUR for number in range(-3, 5)]
    assert ticks("0 * * * *", zone, around[0] - SECOND, 8) == around
    assert ticks("*/30 * * * *", zone, change - SECOND, 4) == [change + number * 30 * MINUTE for number in range(4)]


@pytest.mark.parametrize(
    "expression", [HALF_PAST_TWO, "30 1 * * *", "0 * * * *", "*/15 1-4 * * *", "0 0 * * mon", "0 2 29 * sun"]
)
@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, ZoneInfo("America/Havana")])
@pytest.mark.parametrize("start", [utc(2026, 3, 7), utc(2026, 3, 28), utc(2026, 10, 24), utc(2026, 10, 31)])
def test_a_source_is_awaited_when_airflow_runs_its_dag(expression, zone, start):
    timetable = CronTriggerTimetable(expression, timezone=zone.key)
    every_run = TimeRestriction(earliest=None, latest=None, catchup=True)
    at = start
    for _ in range(60):
        last = DataInterval.exact(pendulum.instance(at))
        run = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=every_run)
        assert run is not None
        assert Cron((expression,)).next_after(at, zone, OPEN) == run.run_after
        at = datetime.fromtimestamp(run.run_after.timestamp(), timezone.utc)


# -- closed days ------------------------------------------------------------------------------------------------------


def test_a_daily_schedule_is_not_awaited_at_the_weekend():
    weekends = ClosedDays(weekdays=frozenset({5, 6}))
    assert ticks("0 6 * * *", BERLIN, utc(2026, 3, 13, 6), 1, weekends) == [utc(2026, 3, 16, 5)]


def test_a_tick_at_the_very_end_of_a_closure_is_awaited():
    sundays = ClosedDays(weekdays=frozenset({6}))
    assert ticks("0 0 * * *", BERLIN, utc(2026, 3, 14, 12), 1, sundays) == [utc(2026, 3, 15, 23)]
    assert ticks("0 * * * *", BERLIN, utc(2026, 3, 14, 22, 30), 1, sundays) == [utc(2026, 3, 15, 23)]


def test_a_schedule_whose_days_are_all_closed_never_comes_and_says_so_at_once():
    saturdays = ClosedDays(weekdays=frozenset({5}))
    cron = Cron(("0 6 * * sat",))
    assert not cron.comes(BERLIN, saturdays)
    with pytest.raises(ConfigurationError, match=r"`0 6 \* \* sat` never comes on an open day"):
        cron.next_after(utc(2026, 3, 14), BERLIN, saturdays)


def test_a_schedule_whose_days_are_closed_for_a_while_comes_again():
    closed = ClosedDays(dates=frozenset({date(2027, 1, 1), date(2028, 1, 1)}))
    new_year = Cron(("0 6 1 1 *",))
    assert new_year.comes(UTC, closed)
    assert new_year.next_after(utc(2026, 3, 14), UTC, closed) == utc(2029, 1, 1, 6)


# -- months -----------------------------------------------------------------------------------------------------------


def test_the_last_day_of_each_month_is_known_to_a_schedule():
    assert ticks("0 6 L * *", UTC, utc(2027, 12, 15), 4) == [
        utc(2027, 12, 31, 6),
        utc(2028, 1, 31, 6),
        utc(2028, 2, 29, 6),
        utc(2028, 3, 31, 6),
    ]


def test_the_last_days_of_a_month_are_as_many_as_it_has():
    found = ticks("0 6 28-31 * *", UTC, utc(2026, 2, 1), 6)
    assert [(at.month, at.day) for at in found] == [(2, 28), (3, 28), (3, 29), (3, 30), (3, 31), (4, 28)]


def test_several_schedules_are_awaited_at_whichever_comes_first():
    cron = Cron(("0 6 * * *", "0 18 * * fri"))
    assert cron.next_after(utc(2026, 3, 13, 7), UTC, OPEN) == utc(2026, 3, 13, 18)
    assert cron.next_after(utc(2026, 3, 13, 19), UTC, OPEN) == utc(2026, 3, 14, 6)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_windows_of_every_kind_are_read():
    assert read_window({"window_seconds": 1.5}, "here") == timedelta(seconds=1.5)
    assert read_window({"cron": "0 6 * * *"}, "here") == Cron(("0 6 * * *",), HOUR)
    assert read_window({"cron": ["@daily"], "grace_seconds": 60}, "here") == Cron(("@daily",), MINUTE)
    assert read_window({"cron": "@daily", "grace_seconds": "learned", "budget": 1}, "here") == Cron(
        ("@daily",), None, 1
    )
    assert read_window({"learned": True}, "here") == Learned()
    assert read_window({"learned": {"fallback_seconds": 3600}}, "here") == Learned(HOUR)
    assert read_window({"learned": {"budget": 0.5}}, "here") == Learned(budget=0.5)
    assert read_window({"window_seconds": 60, "cron": None, "learned": False}, "here") == MINUTE


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({}, "there is no window"),
        ({"learned": False}, "there is no window"),
        ({"window_seconds": None}, "there is no window; write `window_seconds`"),
        ({"window_seconds": 60, "cron": "@daily"}, "`window_seconds` and `cron` are two windows"),
        ({"window_seconds": 0, "cron": "@daily"}, "`window_seconds` and `cron` are two windows"),
        ({"cron": "@daily", "learned": True}, "`cron` and `learned` are two windows"),
        ({"window_seconds": 0}, "`window_seconds` is 0"),
        ({"window_seconds": -1}, "`window_seconds` is -1"),
        ({"window_seconds": 1e-9}, "`window_seconds` is 1e-09"),
        ({"window_seconds": "60"}, "`window_seconds` is '60'"),
        ({"window_seconds": True}, "`window_seconds` is True"),
        ({"window_seconds": float("nan")}, "`window_seconds` is nan"),
        ({"window_seconds": float("inf")}, "`window_seconds` is inf"),
        ({"window_seconds": 366 * 86400 + 1}, "a year at most"),
        ({"window_seconds": 10**400}, "a year at most"),
        ({"window_seconds": 60, "grace_seconds": 60}, "`grace_seconds` belongs to `cron`"),
        ({"window_seconds": 60, "budget": 1}, "`budget` belongs to `cron`"),
        ({"learned": True, "budget": 1}, "`budget` belongs to `cron`; a learned window has its own"),
        ({"cron": ""}, "`cron` is ''"),
        ({"cron": []}, r"`cron` is \[\]"),
        ({"cron": 6}, "`cron` is 6"),
        ({"cron": ["@daily", 6]}, "`cron` is 6"),
        ({"cron": "0 6 * *"}, r"`cron` is '0 6 \* \*': it needs five fields"),
        ({"cron": "0 0 6 * * *"}, "it needs five fields"),
        ({"cron": "61 * * * *"}, "out of range"),
        ({"cron": "@reboot"}, "`cron` is '@reboot'"),
        ({"cron": "0 6 30 2 *"}, "there is no such day"),
        ({"cron": "R R * * *"}, "a random time cannot be awaited"),
        ({"cron": "H 6 * * *"}, "`cron` is 'H 6"),
        ({"cron": "@daily", "grace_seconds": 0}, "`grace_seconds` is 0"),
        ({"cron": "@daily", "grace_seconds": None}, "`grace_seconds` is None"),
        ({"cron": "@daily", "grace_seconds": "much"}, "`grace_seconds` is 'much'"),
        ({"cron": "@daily", "budget": 0}, "`budget` is 0"),
        ({"cron": "@daily", "budget": True}, "`budget` is True"),
        ({"learned": "yes"}, "`learned` is 'yes'"),
        ({"learned": {"fallback": 60}}, "`learned` is {'fallback': 60}"),
        ({"learned": {"fallback_seconds": 0}}, "`fallback_seconds` is 0"),
        ({"learned": {"budget": float("nan")}}, "`budget` is nan"),
        ({"learned": {"budget": 32}}, "`budget` is 32"),
    ],
)
def test_a_window_that_cannot_be_is_refused_with_its_place_and_key(given_, says):
    with pytest.raises(ConfigurationError, match=f"^Source 7: .*{says}"):
        read_window(given_, "Source 7")


def test_weekday_names_and_months_are_no_random_times():
    for expression in ("0 6 * * fri", "0 6 1 mar,apr *", "0 6 * * FRI#1"):
        check_cron(expression, "here")


# -- laws -------------------------------------------------------------------------------------------------------------


@given(WINDOWS)
def test_a_window_survives_being_written_down(window):
    assert read_window(window_as_json(window), "here") == window


@given(CRON_WINDOWS, INSTANTS, st.sampled_from(ZONES).map(ZoneInfo), CLOSED)
def test_the_next_time_is_always_later_and_always_open(window, instant, zone, closed):
    if any("mon" in expression for expression in window.expressions):
        closed = ClosedDays(dates=closed.dates)
    at = window.next_after(instant, zone, closed)
    assert at > instant
    assert not closed.is_closed(at, zone)


CHANGES = {
    "Europe/Berlin": (utc(2026, 3, 29, 1), utc(2026, 10, 25, 1)),
    "America/New_York": (utc(2026, 3, 8, 7), utc(2026, 11, 1, 6)),
    "America/Havana": (utc(2026, 3, 8, 5), utc(2026, 11, 1, 5)),
    "Australia/Lord_Howe": (utc(2026, 4, 4, 15), utc(2026, 10, 3, 15, 30)),
}


@pytest.mark.parametrize("zone", CHANGES)
def test_the_next_time_is_later_whatever_the_clocks_do_just_then(zone):
    for change in CHANGES[zone]:
        for expression in CRONS:
            for step in range(-40, 40):
                instant = change + step * 7 * MINUTE
                assert Cron((expression,)).next_after(instant, ZoneInfo(zone), OPEN) > instant
