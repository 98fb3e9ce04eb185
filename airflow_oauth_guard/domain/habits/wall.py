"""A source's wall clock, as whole minutes since 1970: habits live by it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from itertools import accumulate
from zoneinfo import ZoneInfo

from airflow_oauth_guard.domain.calendar import ClosedDays

HOUR = 60
DAY = 24 * HOUR
WEEK = 7 * DAY
MONTH = 30.4 * DAY
"""In minutes, in which all wall clocks here count."""

MINUTE = timedelta(minutes=1)

MONDAY = 4 * DAY
"""The first after 1 January 1970, from which weeks are counted."""

WORKDAYS = 5
"""Monday to Friday; where the weekend is another, the hour of the week says so."""

FORGIVEN = timedelta(hours=1)
"""What the clocks may change by, where nobody named the source's time zone."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def wall_minute(at: datetime, zone: ZoneInfo) -> int:
    """The source's wall clock, as minutes."""
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None
    return (at - _EPOCH + offset) // MINUTE


def wall_minutes(seconds: Sequence[float], zone: ZoneInfo) -> list[int]:
    """The same for instants in seconds since 1970; the offset is looked up once a day, for there may be thousands."""
    minutes = [int(at // 60) for at in seconds]
    offsets = {day: _offset_all_day(day, zone) for day in {minute // DAY for minute in minutes}}
    return [
        minute + offset
        if (offset := offsets[minute // DAY]) is not None
        else wall_minute(_EPOCH + minute * MINUTE, zone)
        for minute in minutes
    ]


def _offset_all_day(day: int, zone: ZoneInfo) -> int | None:
    """None on a day on which the clocks change."""
    start = _EPOCH + timedelta(days=day)
    first, last = (wall_minute(at, zone) - (at - _EPOCH) // MINUTE for at in (start, start + timedelta(days=1)))
    return first if first == last else None


def instant_of(minute: int, zone: ZoneInfo, *, fold: int = 0) -> datetime:
    wall = (_EPOCH + timedelta(minutes=minute)).replace(tzinfo=zone, fold=fold)
    return wall.astimezone(timezone.utc)


def date_of(day: int) -> date:
    return date.fromordinal(_EPOCH.toordinal() + day)


def hour_of_week(minute: int) -> int:
    return (minute - MONDAY) // HOUR % (WEEK // HOUR)


def open_minutes(minutes: Sequence[int], closed: ClosedDays) -> list[int]:
    """Of the time before each of these minutes, how many were on open days, counted from any of them."""
    first = min(minutes) // DAY
    is_open = [not closed.covers(date_of(day)) for day in range(first, max(minutes) // DAY + 1)]
    before = [0, *accumulate([DAY * open_ for open_ in is_open])]
    days = [(minute // DAY - first, minute % DAY) for minute in minutes]
    return [before[day] + is_open[day] * minute for day, minute in days]


def clocks_may_have_changed(at: datetime, zone: ZoneInfo) -> bool:
    """Whether somewhere in the world they change in these weeks, and we were not told where the source lives."""
    if zone.key != "UTC":
        return False
    return any(first <= (at.month, at.day) <= last for first, last in _CLOCK_CHANGES)


_CLOCK_CHANGES = (((3, 8), (4, 14)), ((9, 24), (11, 14)))
"""From the first change in America to a week after Australia's last, and from New Zealand's to a week after America's."""
