"""When a source should have spoken: a fixed window, a schedule with grace, or what its own history teaches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from croniter import CroniterBadCronError, CroniterBadDateError, croniter

from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.errors import ConfigurationError

LONGEST_WINDOW = timedelta(days=366)

DEFAULT_GRACE = timedelta(hours=1)
"""For a schedule whose grace is learned, until it is."""

DEFAULT_FALLBACK = timedelta(hours=24)
"""For a window that is learned, until it is."""

DEFAULT_BUDGET = 0.1
"""False alarms per source and month that a learned window may cost."""


@dataclass(frozen=True)
class Cron:
    """One load is expected after each of these times, read in the source's time zone."""

    expressions: tuple[str, ...]
    grace: timedelta | None = None
    """How long a load may take to report; None is learned from how long they took."""
    budget: float = DEFAULT_BUDGET
    first_grace: timedelta = DEFAULT_GRACE
    """Until it is learned."""

    def next_after(self, instant: datetime, zone: ZoneInfo, closed: ClosedDays) -> datetime:
        """The next time at which a load is due, on an open day.

        Raises:
            ConfigurationError: If there is none; see :meth:`comes`.
        """
        at = instant
        while at - instant <= ALL_THERE_IS:
            at = min(_tick(expression, at, zone) for expression in self.expressions)
            opens = closed.opens_after(at, zone)
            if opens == at:
                return at
            # The closure's end may itself be a tick.
            at = opens - timedelta(seconds=1)
        raise ConfigurationError(f"The schedule {self} never comes on an open day.")

    def comes(self, zone: ZoneInfo, closed: ClosedDays) -> bool:
        """Whether there is ever a time on a day that is not closed."""
        try:
            return not closed or self.next_after(_SOME_DAY, zone, closed) > _SOME_DAY
        except ConfigurationError:
            return False

    def __str__(self) -> str:
        return f"`{'`, `'.join(self.expressions)}`"


ALL_THERE_IS = timedelta(days=29 * 366)
"""After 28 years the calendar begins anew, with the same weekdays on the same dates."""

_SOME_DAY = datetime(2001, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Learned:
    """The source's own history says when; until there is enough of it, a fixed window does."""

    fallback: timedelta = DEFAULT_FALLBACK
    budget: float = DEFAULT_BUDGET


Window = timedelta | Cron | Learned
"""A plain duration is a fixed window: within any stretch of that length some rows are expected."""


@lru_cache(maxsize=1024)
def _schedule(expression: str) -> croniter:
    return croniter(expression, datetime(2001, 1, 1))  # noqa: DTZ001 - a wall clock's


@lru_cache(maxsize=1024)
def _tick(expression: str, after: datetime, zone: ZoneInfo) -> datetime:
    """As Airflow's own timetables have it, so that a DAG is awaited when it runs."""
    # A copy, since it moves and threads share it; making a new one takes twice as long.
    schedule = copy(_schedule(expression))
    wall = after.astimezone(zone).replace(tzinfo=None, fold=0)
    schedule.set_current(wall, force=True)
    tick: datetime = schedule.get_next(datetime)
    if schedule.expanded[1] == ["*"]:
        # What runs every hour runs in both of the hours that the clocks show twice.
        return after + (tick - wall)
    # A time that the clocks show twice, or leave out, is the later one. Cron daemons may run at the earlier one; then the clock
    # on the wall has passed it, and they are awaited at the next.
    return max(tick.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1))


_WINDOWS = ("window_seconds", "cron", "learned")


def read_window(given: Mapping[str, Any], where: str) -> Window:
    """Read ``window_seconds``, or ``cron`` with ``grace_seconds`` (a number or "learned"), or ``learned``.

    Raises:
        ConfigurationError: If there is none of them, or more than one, or one that cannot be.
    """
    named = [key for key in _WINDOWS if given.get(key) is not None and given[key] is not False]
    if not named:
        raise ConfigurationError(f"{where}: there is no window; write `window_seconds`, `cron` or `learned`.")
    if len(named) > 1:
        raise ConfigurationError(f"{where}: `{named[0]}` and `{named[1]}` are two windows; write one.")
    if named == ["cron"]:
        return _cron(given, where)
    if stray := given.keys() & {"grace_seconds", "budget"}:
        raise ConfigurationError(f"{where}: `{min(stray)}` belongs to `cron`; a learned window has its own `budget`.")
    return _learned(given["learned"], where) if named == ["learned"] else _seconds(given, "window_seconds", where)


def window_as_json(window: Window) -> dict[str, Any]:
    """What :func:`read_window` reads."""
    if isinstance(window, timedelta):
        return {"window_seconds": window.total_seconds()}
    if isinstance(window, Cron):
        grace = "learned" if window.grace is None else window.grace.total_seconds()
        budget = {} if window.budget == DEFAULT_BUDGET else {"budget": window.budget}
        return {"cron": list(window.expressions), "grace_seconds": grace, **budget}
    return {"learned": {"fallback_seconds": window.fallback.total_seconds(), "budget": window.budget}}


def _cron(given: Mapping[str, Any], where: str) -> Cron:
    cron = given["cron"]
    expressions = [cron] if isinstance(cron, str) else cron
    if not isinstance(expressions, list) or not expressions:
        raise ConfigurationError(f"{where}: `cron` is {cron!r}; write an expression, or a list of them.")
    for expression in expressions:
        check_cron(expression, where)
    grace = None
    if given.get("grace_seconds") != "learned":
        grace = _seconds({"grace_seconds": DEFAULT_GRACE.total_seconds(), **given}, "grace_seconds", where)
    return Cron(tuple(expressions), grace, _budget(given, where))


def check_cron(expression: Any, where: str) -> None:
    """Raises:
    ConfigurationError: If it is no cron expression of five fields, or ``@daily`` and its kin, or one that never comes.
    """
    try:
        if not isinstance(expression, str) or len(expression.split()) not in (1, 5):
            raise CroniterBadCronError("it needs five fields")
        if re.search(r"(^|[\s,])r", expression, re.IGNORECASE):
            raise CroniterBadCronError("a random time cannot be awaited")
        _tick(expression, _SOME_DAY, ZoneInfo("UTC"))
    except CroniterBadDateError as error:
        raise ConfigurationError(f"{where}: `cron` is {expression!r}; there is no such day.") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"{where}: `cron` is {expression!r}: {error}") from error


def _learned(learned: Any, where: str) -> Learned:
    if learned is True:
        return Learned()
    if not isinstance(learned, Mapping) or learned.keys() - {"fallback_seconds", "budget"}:
        raise ConfigurationError(
            f"{where}: `learned` is {learned!r}; write true, or an object with `fallback_seconds` and `budget`."
        )
    given = {"fallback_seconds": DEFAULT_FALLBACK.total_seconds(), **learned}
    return Learned(_seconds(given, "fallback_seconds", where), _budget(learned, where))


def _seconds(given: Mapping[str, Any], key: str, where: str) -> timedelta:
    seconds = given[key]
    if not _is_number(seconds) or not MICROSECOND <= seconds <= LONGEST_WINDOW.total_seconds():
        raise ConfigurationError(f"{where}: `{key}` is {seconds!r}; write seconds above 0, a year at most.")
    return timedelta(seconds=seconds)


MICROSECOND = 1e-6
"""In seconds; less would be a window of no length."""


def _budget(given: Mapping[str, Any], where: str) -> float:
    budget = given.get("budget", DEFAULT_BUDGET)
    if not _is_number(budget) or not 0 < budget <= MOST_FALSE_ALARMS:
        raise ConfigurationError(
            f"{where}: `budget` is {budget!r}; write how many false alarms a month are acceptable, such as 0.1."
        )
    return float(budget)


MOST_FALSE_ALARMS = 31


def _is_number(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool)
