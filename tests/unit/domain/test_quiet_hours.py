from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from airflow_oauth_guard.domain.quiet_hours import QuietHours, read_quiet_hours
from airflow_oauth_guard.errors import ConfigurationError

BERLIN = ZoneInfo("Europe/Berlin")


def read(text: str) -> QuietHours:
    hours = read_quiet_hours(text, "`[oauth_guard] quiet_hours`")
    assert hours is not None
    return hours


def berlin(day: int, hour: int, minute: int = 0, month: int = 3) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("hour", "minute", "covered"),
    [(21, 59, False), (22, 0, True), (0, 0, True), (6, 59, True), (7, 0, False), (12, 0, False)],
)
def test_a_night_goes_over_midnight_and_its_end_is_no_part_of_it(hour, minute, covered):
    assert read("22:00-07:00 Europe/Berlin").cover(berlin(10, hour, minute)) is covered


@pytest.mark.parametrize(("hour", "covered"), [(11, False), (12, True), (13, True), (14, False)])
def test_quiet_hours_may_lie_within_one_day(hour, covered):
    assert read("12:00-14:00 Europe/Berlin").cover(berlin(10, hour)) is covered


def test_they_are_meant_in_their_own_time_zone_whatever_zone_the_instant_comes_in():
    night = read("22:00-07:00 Europe/Berlin")
    assert night.cover(datetime(2026, 1, 10, 21, 30, tzinfo=timezone.utc))
    assert not night.cover(datetime(2026, 1, 10, 20, 30, tzinfo=timezone.utc))
    assert night.cover(datetime(2026, 7, 10, 20, 30, tzinfo=timezone.utc))
    assert not read("22:00-07:00").cover(datetime(2026, 1, 10, 21, 30, tzinfo=timezone.utc))


@pytest.mark.parametrize(("month", "day", "length"), [(3, 29, 8), (10, 25, 10), (6, 10, 9)])
def test_a_night_of_a_clock_change_ends_when_the_clock_says_so(month, day, length):
    night = read("22:00-07:00 Europe/Berlin")
    evening = (berlin(day, 22, month=month) - timedelta(days=1)).astimezone(timezone.utc)
    assert night.cover(evening + timedelta(hours=length, seconds=-1))
    assert not night.cover(evening + timedelta(hours=length))


@pytest.mark.parametrize("text", ["", "   "])
def test_nothing_means_none(text):
    assert read_quiet_hours(text, "here") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("at night", "write for example 22:00-07:00 Europe/Berlin"),
        ("22-7", "write for example"),
        ("22:00-07:00 Europe/Berlin and more", "write for example"),
        ("24:00-07:00", "24:00 is no time of day"),
        ("22:00-07:60", "07:60 is no time of day"),
        ("07:00-07:00", "would never end"),
        ("22:00-07:00 Europe/Bonn", "no time zone 'Europe/Bonn'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_option_and_a_next_step(text, why):
    with pytest.raises(ConfigurationError, match=why) as refused:
        read(text)
    assert "`[oauth_guard] quiet_hours`" in str(refused.value)
