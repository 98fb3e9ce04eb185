"""A source's history, made ready to learn from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from statistics import median
from zoneinfo import ZoneInfo

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.habits.wall import DAY, HOUR, MONTH, WEEK, wall_minute, wall_minutes

HISTORY = timedelta(weeks=26)
"""How far back a lesson may look; sources that load rarely need it all."""

RECENT = timedelta(weeks=8)
"""How far back it looks for a source that loads often: habits drift."""

ENOUGH_LOADS = 300
"""A source with fewer loads in the recent weeks is asked for older ones, up to this number."""

PLENTY_OF_LOADS = 40_000
"""Four weeks at every minute; of more, older ones are left out, for a lesson takes three microseconds for each."""

FEWEST_WEEKS = timedelta(weeks=3)
"""However many loads there are in them: a week of its own is no pattern."""

SHORTEST_LESSON = timedelta(days=14)
"""Two of each weekday, or a weekend would be the first one ever seen."""

FEWEST_LOADS = 20
"""With fewer, the tail of the past silences is anyone's guess."""

WIDTHS = (DAY, 6 * HOUR, 3 * HOUR, HOUR, 30, 15)
"""Minutes of a slot: the longest that holds no more than one load."""

CLOCKS = 3
"""Late, flat and stuck share a source's false alarms."""

MOST_INCIDENTS = 3
"""Of each clock in one lesson. What happens more often is how the source is, and is learned as such."""

Load = tuple[int, int]
"""When, in minutes of the wall clock, and how many rows."""

Span = tuple[int, int]
"""Minutes, from and until."""


def worth_learning_from(beats: Sequence[Beat], now: datetime) -> Sequence[Beat]:
    """In order of time: the recent ones, or more of a source that rarely loads, or fewer of one that always does."""
    # A skip teaches nothing: it says neither when the source runs nor how much it moves.
    beats = sorted([beat for beat in beats if not beat.is_skip], key=attrgetter("at"))
    beats = beats[: bisect_right(beats, now, key=attrgetter("at"))]
    oldest, recent, latest = (_first(beats, now - length) for length in (HISTORY, RECENT, FEWEST_WEEKS))
    start = max(min(recent, len(beats) - ENOUGH_LOADS), oldest)
    return beats[max(start, min(latest, len(beats) - PLENTY_OF_LOADS)) :]


def _first(beats: Sequence[Beat], since: datetime) -> int:
    return bisect_left(beats, since, key=attrgetter("at"))


class Lesson:
    """One source's heartbeats, on its own wall clock.

    Args:
        masked: Incidents of the past.
    """

    def __init__(
        self,
        beats: Sequence[Beat],
        now: datetime,
        zone: ZoneInfo,
        closed: ClosedDays,
        budget: float,
        masked: Sequence[tuple[datetime, datetime]],
    ) -> None:
        self.beats, self.now, self.zone, self.closed, self.budget = beats, now, zone, closed, budget
        self.incidents = [(wall_minute(start, zone), wall_minute(end, zone)) for start, end in masked]
        seconds = [beat.at.timestamp() for beat in beats]
        self.minutes = wall_minutes(seconds, zone)
        self.runs = [at for at, beat in zip(self.minutes, beats, strict=True) if not beat.measured]
        self.instants = [at / 60 for at, beat in zip(seconds, beats, strict=True) if not beat.measured]
        """Of the runs, in minutes by the true clock."""
        self.loads = self._loads()

    def _loads(self) -> list[Load]:
        """What the detector counted, if it ever did, or else what the runs said."""
        if all(beat.rows is None for beat in self.beats):
            return []
        counted = any(beat.measured for beat in self.beats)
        some = zip(self.minutes, self.beats, strict=True)
        return [(at, beat.rows or 0) for at, beat in some if beat.measured is counted]

    @cached_property
    def times(self) -> list[int]:
        return self.runs or [at for at, _ in self.loads]

    @cached_property
    def gap(self) -> float:
        """Minutes from one load to the next, usually."""
        gaps = [later - earlier for earlier, later in pairwise(self.times)]
        return max(median(gaps), 1) if gaps else HOUR

    @cached_property
    def width(self) -> int:
        """Minutes of a slot."""
        return next((width for width in WIDTHS if width <= self.gap * 1.1), WIDTHS[-1])

    @property
    def is_enough(self) -> bool:
        if not self.beats or self.now - self.beats[0].at < SHORTEST_LESSON:
            return False
        productive = sum([rows > 0 for _, rows in self.loads]) if self.loads else len(self.runs)
        return productive >= FEWEST_LOADS

    @property
    def weeks(self) -> float:
        return max((self.minutes[-1] - self.minutes[0]) / WEEK, 1.0)

    def allowed(self, budget: float) -> float:
        """A clock's share of the budget, in false alarms over the time that was learned from."""
        return budget / CLOCKS * self.weeks * WEEK / MONTH

    def was_an_incident(self, start: datetime, end: datetime) -> bool:
        since, until = wall_minute(start, self.zone), wall_minute(end, self.zone)
        return any(first < until and last > since for first, last in self.incidents)

    @cached_property
    def broken_gaps(self) -> frozenset[int]:
        """The gaps between runs that were incidents, by the run before; the longest few."""
        runs = self.runs
        gaps = {bisect_right(runs, start) - 1 for start, _ in self.incidents}
        known = sorted((at for at in gaps if 0 <= at < len(runs) - 1), key=lambda at: runs[at + 1] - runs[at])
        return frozenset(known[-MOST_INCIDENTS:])
