from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.calendar import ClosedDays, closed_days, closed_days_as_json, midnight, zone_named
from airflow_oauth_guard.errors import ConfigurationError
from tests.unit.domain.builders import DAY, HOUR, MINUTE
from tests.unit.domain.sources_made import CLOSED, DURATIONS, INSTANTS, ZONES

BERLIN = ZoneInfo("Europe/Berlin")
UTC = ZoneInfo("UTC")
WEEKENDS = ClosedDays(weekdays=frozenset({5, 6}))


def berlin(*wall: int) -> datetime:
    return datetime(*wall, tzinfo=BERLIN).astimezone(timezone.utc)  # type: ignore[misc]


def test_a_day_is_closed_in_the_sources_own_time_zone():
    saturday_in_berlin = datetime(2026, 3, 13, 23, 30, tzinfo=timezone.utc)
    assert WEEKENDS.is_closed(saturday_in_berlin, BERLIN)
    assert not WEEKENDS.is_closed(saturday_in_berlin, UTC)


def test_open_time_stops_on_friday_night_and_goes_on_at_mondays_midnight():
    assert WEEKENDS.add_open(berlin(2026, 3, 13, 18), 24 * HOUR, BERLIN) == berlin(2026, 3, 16, 18)
    assert WEEKENDS.subtract_open(berlin(2026, 3, 16, 18), 24 * HOUR, BERLIN) == berlin(2026, 3, 13, 18)
    assert WEEKENDS.open_time(berlin(2026, 3, 13, 18), berlin(2026, 3, 16, 18), BERLIN) == 24 * HOUR


def test_what_begins_on_a_closed_day_begins_when_it_ends():
    assert WEEKENDS.add_open(berlin(2026, 3, 14, 12), HOUR, BERLIN) == berlin(2026, 3, 16, 1)
    assert WEEKENDS.opens_after(berlin(2026, 3, 14, 12), BERLIN) == berlin(2026, 3, 16)
    assert WEEKENDS.opens_after(berlin(2026, 3, 13, 12), BERLIN) == berlin(2026, 3, 13, 12)


def test_open_time_that_is_over_with_the_day_ends_at_its_midnight_and_not_after_the_weekend():
    assert WEEKENDS.add_open(berlin(2026, 3, 13, 18), 6 * HOUR, BERLIN) == berlin(2026, 3, 14)


@pytest.mark.parametrize(("sunday", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25)])
def test_a_closed_sunday_on_which_the_clocks_change_is_closed_from_midnight_to_midnight(sunday, hours):
    sundays = ClosedDays(weekdays=frozenset({6}))
    saturday_noon = berlin(*sunday, 0) - 12 * HOUR
    assert sundays.add_open(saturday_noon, 24 * HOUR, BERLIN) == saturday_noon + (24 + hours) * HOUR


def test_an_open_day_on_which_the_clocks_change_counts_the_hours_it_has():
    saturdays = ClosedDays(weekdays=frozenset({5}))
    assert saturdays.add_open(berlin(2026, 3, 29), 23 * HOUR, BERLIN) == berlin(2026, 3, 30)
    assert saturdays.add_open(berlin(2026, 10, 25), 25 * HOUR, BERLIN) == berlin(2026, 10, 26)


def test_a_day_begins_at_one_where_the_clocks_leave_midnight_out():
    havana = ZoneInfo("America/Havana")
    assert midnight(date(2026, 3, 8), havana) == datetime(2026, 3, 8, 5, tzinfo=timezone.utc)
    assert midnight(date(2026, 3, 8), havana).astimezone(havana).hour == 1


def test_a_day_begins_at_the_first_of_two_midnights():
    havana = ZoneInfo("America/Havana")
    assert midnight(date(2026, 11, 1), havana) == datetime(2026, 11, 1, 4, tzinfo=timezone.utc)


def test_the_29th_of_february_is_closed_in_leap_years_only():
    closed = closed_days({"dates": ["--02-29"]}, "here")
    assert closed.covers(date(2028, 2, 29))
    assert not closed.covers(date(2027, 2, 28))
    assert not closed.covers(date(2027, 3, 1))


def test_a_range_is_closed_from_its_first_day_to_its_last():
    closed = closed_days({"dates": ["2026-12-27/2027-01-02"]}, "here")
    assert [closed.covers(date(2026, 12, day)) for day in (26, 27, 31)] == [False, True, True]
    assert [closed.covers(date(2027, 1, day)) for day in (1, 2, 3)] == [True, True, False]


def test_weekdays_may_be_written_out():
    assert closed_days({"weekdays": ["Saturday", "SUN"]}, "here") == WEEKENDS


def test_a_holiday_every_year_is_closed_every_year():
    closed = closed_days({"dates": ["--12-25"]}, "here")
    assert all(closed.covers(date(year, 12, 25)) for year in (2024, 2031))
    assert not closed.covers(date(2026, 12, 24))


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"weekdays": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}, "no open day"),
        ({"dates": [f"--{date(2000, 1, 1) + number * DAY:%m-%d}" for number in range(366)]}, "no open day"),
        ({"weekdays": ["monster"]}, r"`closed.weekdays` has 'monster'"),
        ({"weekdays": "sat"}, r"`closed.weekdays` is 'sat'"),
        ({"weekdays": [6]}, r"`closed.weekdays` is \[6\]"),
        ({"weekdays": 0}, r"`closed.weekdays` is 0"),
        ({"dates": {"2026-12-24": 1}}, r"`closed.dates` is"),
        ({"dates": ["24.12.2026"]}, r"`closed.dates` has '24.12.2026'"),
        ({"dates": ["2026-02-29"]}, r"`closed.dates` has '2026-02-29'"),
        ({"dates": ["20261224"]}, r"`closed.dates` has '20261224'"),
        ({"dates": ["2026-W52-4"]}, r"`closed.dates` has '2026-W52-4'"),
        ({"dates": ["--02-30"]}, r"`closed.dates` has '--02-30'"),
        ({"dates": ["--12-24/--12-26"]}, r"`closed.dates` has '--12-24/--12-26'"),
        ({"dates": ["2026-12-24/"]}, r"`closed.dates` has '2026-12-24/'"),
        ({"dates": ["2026-12-27/2026-12-24"]}, "ends before it starts"),
        ({"dates": ["2026-01-01/2036-01-01"]}, "lasts over 400 days"),
        ({"days": []}, "write an object with `weekdays` and `dates`"),
        (["sat"], "write an object with `weekdays` and `dates`"),
        ("weekends", "write an object"),
    ],
)
def test_closed_days_that_cannot_be_are_refused_with_their_place_and_key(given_, says):
    with pytest.raises(ConfigurationError, match=f"^Source 7: .*{says}"):
        closed_days(given_, "Source 7")


def test_a_time_zone_that_does_not_exist_is_refused_by_name():
    for name in ("Europe/Atlantis", "../etc/passwd", "Europe"):
        with pytest.raises(ConfigurationError, match=f"here: there is no time zone '{name}'"):
            zone_named(name, "here")


# -- laws -------------------------------------------------------------------------------------------------------------

ZONE = st.sampled_from(ZONES).map(ZoneInfo)


@given(CLOSED)
def test_closed_days_survive_being_written_down(closed):
    assert closed_days(json.loads(json.dumps(closed_days_as_json(closed))), "here") == closed


@given(CLOSED, INSTANTS, DURATIONS, DURATIONS, ZONE)
def test_more_open_time_ends_later(closed, start, shorter, more, zone):
    end = closed.add_open(start, shorter, zone)
    assert start + shorter <= end < closed.add_open(start, shorter + more, zone)


@given(CLOSED, INSTANTS, DURATIONS, DURATIONS, ZONE)
def test_what_begins_later_does_not_end_earlier(closed, start, duration, later, zone):
    assert closed.add_open(start, duration, zone) <= closed.add_open(start + later, duration, zone)


@given(CLOSED, INSTANTS, DURATIONS, ZONE)
def test_open_time_never_ends_within_a_closed_day(closed, start, duration, zone):
    end = closed.add_open(start, duration, zone)
    if closed.is_closed(end, zone):
        # Its very first moment is the last of the open day before.
        assert not closed.is_closed(end - timedelta(microseconds=1), zone)


@given(CLOSED, INSTANTS, DURATIONS, ZONE)
def test_as_much_open_time_has_passed_as_was_added(closed, start, duration, zone):
    assert closed.open_time(start, closed.add_open(start, duration, zone), zone) == duration
    assert closed.open_time(closed.subtract_open(start, duration, zone), start, zone) == duration


@given(CLOSED, INSTANTS, ZONE)
def test_a_closure_ends_at_the_first_moment_of_an_open_day(closed, instant, zone):
    opens = closed.opens_after(instant, zone)
    assert not closed.is_closed(opens, zone)
    assert opens >= instant
    if opens > instant:
        assert closed.is_closed(opens - MINUTE, zone)


def test_nothing_is_closed_by_an_empty_calendar():
    assert not ClosedDays()
    assert closed_days({}, "here") == ClosedDays()
    assert ClosedDays().open_time(berlin(2026, 3, 13), berlin(2026, 3, 16), BERLIN) == 3 * DAY
