"""Closed days: when nobody expects anything, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_oauth_guard.errors import ConfigurationError

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
DAYS_OF_A_LEAP_YEAR = 366

LONGEST_RANGE = 400
"""Days. A longer one is a mistake in the calendar."""

A_DAY = timedelta(days=1)


@dataclass(frozen=True)
class ClosedDays:
    """Whole days, in a source's own time zone, on which nothing is expected. Some day is always open."""

    weekdays: frozenset[int] = frozenset()
    """0 is Monday."""
    dates: frozenset[date] = frozenset()
    yearly: frozenset[tuple[int, int]] = frozenset()
    """Month and day, every year."""

    def __bool__(self) -> bool:
        return bool(self.weekdays or self.dates or self.yearly)

    def covers(self, day: date) -> bool:
        return day.weekday() in self.weekdays or day in self.dates or (day.month, day.day) in self.yearly

    def is_closed(self, instant: datetime, zone: ZoneInfo) -> bool:
        return bool(self) and self.covers(instant.astimezone(zone).date())

    def opens_after(self, instant: datetime, zone: ZoneInfo) -> datetime:
        """``instant`` if it is on an open day, else the midnight that ends the closure."""
        if not self.is_closed(instant, zone):
            return instant
        day = instant.astimezone(zone).date()
        while self.covers(day):
            day += A_DAY
        return midnight(day, zone)

    def add_open(self, start: datetime, duration: timedelta, zone: ZoneInfo) -> datetime:
        """The instant at which ``duration`` of open time has passed since ``start``."""
        if not self:
            return start + duration
        at, left, day = start, duration, start.astimezone(zone).date()
        while True:
            day_ends = midnight(day + A_DAY, zone)
            if not self.covers(day):
                if day_ends - at >= left:
                    return at + left
                left -= day_ends - at
            at, day = day_ends, day + A_DAY

    def subtract_open(self, end: datetime, duration: timedelta, zone: ZoneInfo) -> datetime:
        """The instant from which on ``duration`` of open time has passed until ``end``."""
        if not self:
            return end - duration
        at, left, day = end, duration, end.astimezone(zone).date()
        while True:
            day_began = midnight(day, zone)
            if not self.covers(day):
                if at - day_began >= left:
                    return at - left
                left -= at - day_began
            at, day = day_began, day - A_DAY

    def open_time(self, start: datetime, end: datetime, zone: ZoneInfo) -> timedelta:
        """How much of the time between the two was open."""
        if not self:
            return end - start
        at, passed, day = start, timedelta(), start.astimezone(zone).date()
        while at < end:
            until = min(midnight(day + A_DAY, zone), end)
            if not self.covers(day):
                passed += until - at
            at, day = until, day + A_DAY
        return passed


def midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), tzinfo=zone).astimezone(timezone.utc)


def zone_named(name: str, where: str) -> ZoneInfo:
    """Raises:
    ConfigurationError: If there is no such time zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{where}: there is no time zone {name!r}; write an IANA name, such as Europe/Berlin."
        ) from error


def closed_days(given: Any, where: str) -> ClosedDays:
    """Read ``{"weekdays": ["sat", "sun"], "dates": ["2026-12-24", "2026-12-27/2027-01-02", "--05-01"]}``.

    A date is one day, two dates with a slash are a range with both ends, and ``--05-01`` is every first of May.

    Raises:
        ConfigurationError: Naming what is wrong.
    """
    if not isinstance(given, Mapping) or given.keys() - {"weekdays", "dates"}:
        raise ConfigurationError(f"{where}: `closed` is {given!r}; write an object with `weekdays` and `dates`.")
    weekdays = [_weekday(name, where) for name in _texts(given, "weekdays", where)]
    dates, yearly = set[date](), set[tuple[int, int]]()
    for text in _texts(given, "dates", where):
        if text.startswith("--"):
            yearly.add(_month_and_day(text, where))
        else:
            dates.update(_range(text, where))
    closed = ClosedDays(frozenset(weekdays), frozenset(dates), frozenset(yearly))
    if len(closed.weekdays) == len(WEEKDAYS) or len(closed.yearly) == DAYS_OF_A_LEAP_YEAR:
        raise ConfigurationError(f"{where}: `closed` leaves no open day; then nothing is ever expected.")
    return closed


def closed_days_as_json(closed: ClosedDays) -> dict[str, Any]:
    """What :func:`closed_days` reads."""
    yearly = [f"--{month:02}-{day:02}" for month, day in sorted(closed.yearly)]
    return {
        "weekdays": [WEEKDAYS[day][:3] for day in sorted(closed.weekdays)],
        "dates": [*(day.isoformat() for day in sorted(closed.dates)), *yearly],
    }


def _texts(given: Mapping[str, Any], key: str, where: str) -> Sequence[str]:
    texts = given.get(key)
    if texts is None:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(f"{where}: `closed.{key}` is {texts!r}; write a list of text.")
    return texts


def _weekday(name: str, where: str) -> int:
    for number, weekday in enumerate(WEEKDAYS):
        if name.lower() in (weekday, weekday[:3]):
            return number
    raise ConfigurationError(f"{where}: `closed.weekdays` has {name!r}; write mon, tue, wed, thu, fri, sat or sun.")


def _month_and_day(text: str, where: str) -> tuple[int, int]:
    # In a leap year, so that the 29th of February is a day.
    day = _date(f"2000-{text.removeprefix('--')}", text, where)
    return day.month, day.day


def _range(text: str, where: str) -> list[date]:
    first, slash, last = text.partition("/")
    start = _date(first, text, where)
    end = _date(last, text, where) if slash else start
    if not 0 <= (end - start).days <= LONGEST_RANGE:
        raise ConfigurationError(
            f"{where}: `closed.dates` has {text!r}, which ends before it starts or lasts over {LONGEST_RANGE} days."
        )
    return [start + number * A_DAY for number in range((end - start).days + 1)]


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _date(text: str, given: str, where: str) -> date:
    try:
        # From Python 3.11 on `fromisoformat` reads other forms too.
        return date.fromisoformat(text if _DATE.fullmatch(text) else "")
    except ValueError as error:
        raise ConfigurationError(
            f"{where}: `closed.dates` has {given!r}; write 2026-12-24, 2026-12-24/2026-12-27 or --12-25."
        ) from error
