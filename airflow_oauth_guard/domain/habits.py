"""What a source's own history teaches about when to expect the next load.

A *surprise clock* runs while nothing comes: each slot of the week that passes empty adds ``-log(1 - p)``, where ``p`` is
the share of weeks in which that slot was not empty. A quiet night adds next to nothing, a quiet rush hour a lot, and an
alarm is due when more has piled up than the quiet stretches of the past explain, at the false alarms that the budget
allows. Loads without rows have a clock of the same make; loads that repeat a number have one by the number's size.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from operator import mul
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.windows import DEFAULT_BUDGET, Cron

HISTORY = timedelta(weeks=26)
"""How far back a lesson may look; sources that load rarely need it all."""

RECENT = timedelta(weeks=8)
"""How far back it looks for a source that loads often: habits drift."""

ENOUGH_LOADS = 300
"""A source with fewer loads in the recent weeks is asked for older ones, up to this number."""

SHORTEST_LESSON = timedelta(days=14)
"""Two of each weekday, or a weekend would be the first one ever seen."""

FEWEST_LOADS = 20
"""With fewer, the tail of the past silences is anyone's guess."""

HOUR = 60
DAY = 24 * HOUR
WEEK = 7 * DAY
MONTH = 30.4 * DAY
"""In minutes, in which all wall clocks here count."""

WIDTHS = (DAY, 6 * HOUR, 3 * HOUR, HOUR, 30, 15)
"""Minutes of a slot: the longest that holds no more than one load."""

SHRINKAGE = 2.0
"""Weeks that a slot's parent (the hour of such days, the hour of any day) counts for beside the slot's own."""

MOST_SURPRISING = 4.0
"""No empty slot counts for more, for eight weeks cannot tell 98 % from always."""

NEVER_ONE_ALONE = 1.25
"""Of the most surprising slots, below which there is no alarm: one load may always be lost, two together hardly."""

SMEAR = 0.03
"""Of the chance that the slot before or after is empty, added to a slot's own: nothing opens on the dot for ever."""

SAMPLE = 100
"""Of the latest heartbeats, after which an outage is imagined, to choose among clocks."""

CLOCKS = 3
"""Late, flat and stuck share a source's false alarms."""

STUCK_SHARE = 0.8
"""Of the budget, for numbers that repeat by chance: that chance is known well, and what it allows is not used up."""

MOST_INCIDENTS = 3
"""Of each clock in one lesson. What happens more often is how the source is, and is learned as such."""

TAIL = 20
"""The longest past silences, from which the rarer ones to come are extrapolated."""

BEYOND_THE_LONGEST = 1.1
"""No alarm before a silence is so many times as surprising as the longest one that turned out well."""

YOUNG = 1.0
"""Weeks; a threshold is higher by ``YOUNG / weeks``, for what few weeks taught is wrong by more."""

PAST_INCIDENT = 1.0
"""Thresholds; as how much surprise an incident counts at most, so that it cannot teach us to expect the next one."""

ALIKE = 20.0
"""Loads, for which the chance of a repeat that numbers of all sizes tell counts beside the size's own."""

OFTEN_THE_SAME = 0.75
"""A number that is repeated more often than this says nothing by being repeated."""

LONGEST_SEARCH = 60
"""Weeks. What may stay quiet for longer without surprise cannot be judged by its silence."""

FORGIVEN = timedelta(hours=1)
"""What the clocks may change by, where nobody named the source's time zone."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MONDAY = 4 * DAY
_WORKDAYS = 5
"""Monday to Friday; where the weekend is another, the hour of the week says so."""
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")

Loads = list[tuple[int, int]]
"""When, in minutes of the wall clock, and how many rows."""

LED_UP = 6
"""Loads before a source was called stuck that moved the same number already."""

Span = tuple[int, int]
"""Minutes, from and until."""


# -- what was learned -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clock:
    """How surprising it is when nothing comes, by the slot of the source's local week.

    Slots of ``width`` minutes begin ``phase`` minutes past the full one, just after the source usually has reported.
    Width 0 is a stopwatch that knows no week; its threshold is minutes.
    """

    width: int
    phase: int
    weights: tuple[float, ...]
    """One for each hour of the week, or for each of its days where a slot is a day."""
    threshold: float

    @cached_property
    def pattern(self) -> list[float]:
        """The weight of each slot of a week."""
        return spread(self.weights, self.width)

    @cached_property
    def passed(self) -> list[float]:
        """The surprise of a quiet fortnight up to the start of each slot."""
        return [0.0, *accumulate(self.pattern * 2)]

    def slot(self, minute: int) -> int:
        return (minute - _MONDAY - self.phase) // self.width

    def end_of(self, slot: int) -> int:
        return (slot + 1) * self.width + _MONDAY + self.phase

    def weight_at(self, minute: int) -> float:
        return self.weights[cell_of(minute, self.phase, self.width) % len(self.weights)]

    def runs_out(self, since: int, closed: ClosedDays) -> int | None:
        """The local minute from which on silence since a local minute is too surprising."""
        slots = len(self.pattern)
        a_week = self.passed[slots]
        if a_week * LONGEST_SEARCH <= self.threshold:
            return None
        first = self.slot(since) + 1
        if closed:
            return self._runs_out_on_open_days(first, closed)
        week, place = divmod(first, slots)
        weeks, left = divmod(self.passed[place] + self.threshold, a_week)
        return self.end_of((week + int(weeks)) * slots + bisect_right(self.passed, left, 0, slots) - 1)

    def _runs_out_on_open_days(self, first: int, closed: ClosedDays) -> int | None:
        slots, slot, left = len(self.pattern), first, self.threshold
        while slot < first + LONGEST_SEARCH * slots:
            day = (self.end_of(slot) - 1) // DAY
            tomorrow = self.slot((day + 1) * DAY)
            if not closed.covers(_date(day)):
                place = slot % slots
                until = self.passed[place] + left
                if self.passed[place + tomorrow - slot] > until:
                    return self.end_of(slot - place + bisect_right(self.passed, until, place) - 1)
                left = until - self.passed[place + tomorrow - slot]
            slot = tomorrow
        return None

    def to_json(self) -> list[Any]:
        weights = [round(weight * _PRECISION) for weight in self.weights]
        return [self.width, self.phase, _finite(self.threshold), weights]

    @classmethod
    def from_json(cls, given: list[Any]) -> Clock:
        width, phase, threshold, weights = given
        weights = tuple([weight / _PRECISION for weight in weights])
        return cls(width, phase, weights, math.inf if threshold is None else threshold)


_PRECISION = 1000


def _finite(number: float) -> float | None:
    return None if math.isinf(number) else round(number, 4)


@dataclass(frozen=True)
class Habit:
    """What one lesson taught; kept as text beside its source, and read at every heartbeat."""

    learned_at: datetime
    usual_gap: timedelta
    zone: str = "UTC"
    late: Clock | None = None
    flat: Clock | None = None
    same: tuple[float, ...] = ()
    """By the size of the number: how surprising it is that a load repeats it."""
    stuck_threshold: float = math.inf
    grace: timedelta | None = None
    """For a schedule: how long after its time loads took to report."""
    low: tuple[int, ...] = ()
    high: tuple[int, ...] = ()
    """Rows of a load at each hour of the week, the 10th and the 90th percentile."""

    @property
    def flat_threshold(self) -> float:
        return self.flat.threshold if self.flat is not None else math.inf

    def late_at(self, since: datetime, closed: ClosedDays, zone: ZoneInfo) -> datetime | None:
        """The earliest instant from which silence since the last heartbeat is an alarm; None: this cannot tell."""
        if self.late is None:
            return None
        if self.late.width == 0:
            return self._stopped(timedelta(minutes=self.late.threshold), since, closed, zone)
        if not _clocks_may_have_changed(since, zone):
            return self._runs_out(self.late, since, closed, zone)
        # Nobody told us the zone: whoever keeps these loads' clock may have moved it by an hour, either way.
        ends = [
            (end - shift) if (end := self._runs_out(self.late, since + shift, closed, zone)) else None
            for shift in (timedelta(), FORGIVEN, -FORGIVEN)
        ]
        known = [end for end in ends if end is not None]
        return max(known) if len(known) == len(ends) else None

    def _stopped(self, after: timedelta, since: datetime, closed: ClosedDays, zone: ZoneInfo) -> datetime:
        """On a night of 25 hours a schedule may run by the wall clock, or by the true one; wait for the later."""
        if zone.key == "UTC" and _clocks_may_have_changed(since, zone) and (since + after).weekday() >= _WORKDAYS:
            after += FORGIVEN
        on_the_wall = (since.astimezone(zone).replace(tzinfo=None) + after).replace(tzinfo=zone)
        return max(closed.add_open(since, after, zone), on_the_wall.astimezone(timezone.utc))

    def _runs_out(self, clock: Clock, since: datetime, closed: ClosedDays, zone: ZoneInfo) -> datetime | None:
        minute = clock.runs_out(wall_minute(since, zone), closed)
        if minute is None:
            return None
        at = _instant(minute, zone)
        # When the clocks go back an hour comes twice, and after the second one its end lies in the second one too.
        return at if at > since else _instant(minute, zone, fold=1)

    def zero_surprise(self, at: datetime) -> float:
        """How surprising it is that a load at this time brings no rows."""
        if self.flat is None:
            return 0.0
        zone = ZoneInfo(self.zone)
        minute = wall_minute(at, zone)
        if _clocks_may_have_changed(at, zone):
            return min(self.flat.weight_at(minute + shift) for shift in (-HOUR, 0, HOUR))
        return self.flat.weight_at(minute)

    def same_surprise(self, at: datetime, rows: int) -> float:
        """How surprising it is that a load brings as many rows as the one before it."""
        return self.same[min(size_of(rows), len(self.same) - 1)] if self.same else 0.0

    def band(self, at: datetime, zone: ZoneInfo) -> tuple[int, int] | None:
        """Between how many rows and how many a load at this hour of the week usually has."""
        hour = (wall_minute(at, zone) - _MONDAY) // HOUR % 168
        return (self.low[hour], self.high[hour]) if self.low and self.high[hour] >= 0 else None

    def explain_silence(self, now: datetime, zone: ZoneInfo) -> str:
        """A sentence on how usual it is that something comes about now."""
        if self.late is None or self.late.width == 0:
            return f"Usually it reports every {_in_words(self.usual_gap)}."
        minute = wall_minute(now, zone)
        share = f"{1 - math.exp(-self.late.weight_at(minute)):.0%}".replace("%", " %")
        when = "at this hour" if self.late.width != DAY else "so far in the day"
        return f"On {_DAYS[(minute - _MONDAY) // DAY % 7]} {when} a load came in {share} of weeks."

    def explain_zeros(self, now: datetime, zone: ZoneInfo) -> str:
        """A sentence on how usual it is that a load about now has rows."""
        if self.flat is None:
            return ""
        minute = wall_minute(now, zone)
        share = f"{1 - math.exp(-self.flat.weight_at(minute)):.0%}".replace("%", " %")
        return f"On {_DAYS[(minute - _MONDAY) // DAY % 7]} at this hour {share} of loads had some rows."

    def explain_stuck(self, rows: int) -> str:
        """A sentence on how usual it is that a load repeats this number."""
        often = round(math.exp(self.same_surprise(self.learned_at, rows)))
        if often <= 1:
            return "How often its numbers repeat was not learned."
        return f"The same number twice in a row happened in about 1 of {often} loads of this size."

    def to_json(self) -> str:
        told = {
            "learned": int(self.learned_at.timestamp()),
            "gap": self.usual_gap.total_seconds(),
            "zone": self.zone,
            "late": self.late and self.late.to_json(),
            "flat": self.flat and self.flat.to_json(),
            "same": [round(weight, 3) for weight in self.same],
            "stuck": _finite(self.stuck_threshold),
            "grace": self.grace and self.grace.total_seconds(),
            "low": self.low,
            "high": self.high,
        }
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Habit:
        told = json.loads(text)
        return cls(
            learned_at=datetime.fromtimestamp(told["learned"], timezone.utc),
            usual_gap=timedelta(seconds=told["gap"]),
            zone=told["zone"],
            late=told["late"] and Clock.from_json(told["late"]),
            flat=told["flat"] and Clock.from_json(told["flat"]),
            same=tuple(told["same"]),
            stuck_threshold=math.inf if told["stuck"] is None else told["stuck"],
            grace=None if told["grace"] is None else timedelta(seconds=told["grace"]),
            low=tuple(told["low"]),
            high=tuple(told["high"]),
        )


def spread(weights: Sequence[float], width: int) -> list[float]:
    """Weights by hour as weights by slot, for there may be several in an hour."""
    times = max(HOUR // width, 1)
    return [weight for weight in weights for _ in range(times)] if times > 1 else list(weights)


def cell_of(minute: int, phase: int, width: int) -> int:
    """The hour (or day) of the source's time in which a minute lies, counted from a Monday."""
    return (minute - _MONDAY - phase) // max(width, HOUR)


def size_of(rows: int) -> int:
    """A class of numbers of one size: 1, 2 and 3 by themselves, then by powers of two."""
    return rows if rows < 4 else rows.bit_length() + 1


def wall_minute(at: datetime, zone: ZoneInfo) -> int:
    """The source's wall clock, as minutes."""
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None
    return (at - _EPOCH + offset) // _MINUTE


_MINUTE = timedelta(minutes=1)


def _instant(minute: int, zone: ZoneInfo, *, fold: int = 0) -> datetime:
    wall = (_EPOCH + timedelta(minutes=minute)).replace(tzinfo=zone, fold=fold)
    return wall.astimezone(timezone.utc)


def _date(day: int) -> date:
    return date.fromordinal(_EPOCH.toordinal() + day)


def _clocks_may_have_changed(at: datetime, zone: ZoneInfo) -> bool:
    """Whether somewhere in the world they change in these weeks, and we were not told where the source lives."""
    if zone.key != "UTC":
        return False
    return any(first <= (at.month, at.day) <= last for first, last in _CLOCK_CHANGES)


_CLOCK_CHANGES = (((3, 8), (4, 14)), ((9, 24), (11, 14)))
"""From the first change in America to a week after Australia's last, and from New Zealand's to a week after America's."""


def _in_words(gap: timedelta) -> str:
    minutes = round(gap / _MINUTE)
    if minutes < 2 * HOUR:
        return f"{minutes} minutes"
    return f"{minutes / HOUR:.0f} hours" if minutes < 2 * DAY else f"{minutes / DAY:.0f} days"


# -- the lesson -------------------------------------------------------------------------------------------------------


def learn(
    beats: Sequence[Beat],
    now: datetime,
    *,
    zone: ZoneInfo,
    closed: ClosedDays,
    budget: float,
    masked: Sequence[tuple[datetime, datetime]] = (),
    schedule: Cron | None = None,
) -> Habit | None:
    """What the heartbeats teach; None while there are too few.

    Args:
        beats: In order of time, from as long ago as ``HISTORY``, none after ``now``.
        closed: Days that teach nothing.
        budget: False alarms per month that are acceptable, by all clocks together.
        masked: Incidents of the past, which are not to be learned as usual.
        schedule: For a window whose grace is to be learned.
    """
    lesson = _Lesson(_recent(beats, now), now, zone, closed, budget, masked)
    if not lesson.is_enough:
        return None
    same = lesson.stuck()
    late, flat = lesson.late_clock(), lesson.flat_clock()
    low, high = lesson.bands()
    return Habit(
        learned_at=now,
        usual_gap=timedelta(minutes=lesson.gap),
        zone=zone.key,
        late=late,
        flat=flat,
        same=same[0],
        stuck_threshold=same[1],
        grace=_grace(lesson, schedule) if schedule is not None else None,
        low=low,
        high=high,
    )


def _recent(beats: Sequence[Beat], now: datetime) -> Sequence[Beat]:
    recent = bisect_left(beats, now - RECENT, key=lambda beat: beat.at)
    oldest = bisect_left(beats, now - HISTORY, key=lambda beat: beat.at)
    return beats[max(min(recent, len(beats) - ENOUGH_LOADS), oldest) :]


class _Lesson:
    """One source's heartbeats, on its own wall clock."""

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
        self.minutes = _on_the_wall([beat.at for beat in beats], zone)
        self.masked = [(wall_minute(start, zone), wall_minute(end, zone)) for start, end in masked]
        counted = any(beat.measured for beat in beats)
        self.runs = [at for at, beat in zip(self.minutes, beats, strict=True) if not beat.measured]
        self.loads = [
            (at, beat.rows or 0) for at, beat in zip(self.minutes, beats, strict=True) if beat.measured is counted
        ]
        if all(beat.rows is None for beat in beats):
            self.loads = []
        self.times = self.runs or [at for at, _ in self.loads]
        gaps = [later - earlier for earlier, later in pairwise(self.times)]
        self.gap = max(median(gaps), 1) if gaps else HOUR
        self.width = next((width for width in WIDTHS if width <= self.gap * 1.1), WIDTHS[-1])
        rows = [rows for _, rows in self.loads]
        self.arrivals = rows if len(rows) == len(self.runs) and min(rows, default=0) > 0 else None

    @property
    def is_enough(self) -> bool:
        if not self.beats or self.now - self.beats[0].at < SHORTEST_LESSON:
            return False
        productive = sum(rows > 0 for _, rows in self.loads) if self.loads else len(self.runs)
        return productive >= FEWEST_LOADS

    @property
    def weeks(self) -> float:
        return max((self.minutes[-1] - self.minutes[0]) / WEEK, 1.0)

    @property
    def share(self) -> float:
        """Of the budget for each clock, in false alarms over the time that was learned from."""
        return self._share_of(self.budget)

    def _share_of(self, budget: float) -> float:
        return budget / CLOCKS * self.weeks * WEEK / MONTH

    def was_an_incident(self, start: datetime, end: datetime) -> bool:
        since, until = wall_minute(start, self.zone), wall_minute(end, self.zone)
        return any(first < until and last > since for first, last in self.masked)

    # -- late

    def late_clock(self) -> Clock | None:
        if len(self.runs) < FEWEST_LOADS:
            return None
        candidates = [self._stopwatch()]
        for width in sorted({self.width, min(self.width, HOUR)}):
            candidates += self._slot_clocks(width, _phase(self.runs, width))
        return self._at_its_budget(min(candidates, key=lambda one: self._delay(one.clock)))

    def _stopwatch(self) -> _Candidate:
        silences = self._silences()
        masked = set(_gaps_at(self.masked, self.runs))
        usual = [silence for at, silence in enumerate(silences) if at not in masked]
        incidents = [silences[at] for at in masked]
        return self._candidate(Clock(0, 0, (), 0.0), usual, incidents)

    def _silences(self) -> list[float]:
        """Minutes between heartbeats, by the clock on the wall or the true one: what is shorter when clocks change."""
        if self.closed:
            return [_open_minutes(*span, self.closed) for span in pairwise(self.runs)]
        instants = [beat.at.timestamp() / 60 for beat in self.beats if not beat.measured]
        on_the_wall = (later - earlier for earlier, later in pairwise(self.runs))
        return [
            min(wall, later - earlier) for wall, (earlier, later) in zip(on_the_wall, pairwise(instants), strict=True)
        ]

    def _slot_clocks(self, width: int, phase: int) -> list[_Candidate]:
        grid = _Grid(self.runs, width, phase, self.closed, self.masked)
        return [
            self._candidate(Clock(width, phase, level.weights, 0.0), *grid.silences(level.left_out))
            for level in grid.levels(self.arrivals)
        ]

    def _candidate(self, clock: Clock, usual: Sequence[float], incidents: Sequence[float]) -> _Candidate:
        """Compared at the usual budget, or a smaller one could choose a clock that is sooner at some hours."""
        candidate = _Candidate(clock, usual, incidents)
        return replace(candidate, clock=self._at(candidate, DEFAULT_BUDGET))

    def _at_its_budget(self, candidate: _Candidate) -> Clock:
        return candidate.clock if self.budget == DEFAULT_BUDGET else self._at(candidate, self.budget)

    def _at(self, candidate: _Candidate, budget: float) -> Clock:
        share, usual = self._share_of(budget), candidate.usual
        threshold = tail_threshold(usual, share)
        if candidate.incidents:
            bounded = [min(incident, PAST_INCIDENT * threshold) for incident in candidate.incidents]
            threshold = max(threshold, tail_threshold([*usual, *bounded], share))
        floor = NEVER_ONE_ALONE * MOST_SURPRISING if candidate.clock.width else 0.0
        return replace(candidate.clock, threshold=max(threshold * (1 + YOUNG / self.weeks), floor))

    def _delay(self, clock: Clock) -> float:
        """How long an outage would go unseen, on a scale where twice as long is one step worse."""
        total = weight = 0.0
        sample = self.runs[-SAMPLE:]
        for at, following in pairwise(sample):
            gap = min(following - at, 2 * self.gap)
            end = at + clock.threshold if clock.width == 0 else clock.runs_out(at, self.closed)
            delay = LONGEST_SEARCH * WEEK if end is None else end - at
            total += gap * math.log(1 + max(delay, 0) / self.gap)
            weight += gap
        return total / weight if weight else 0.0

    # -- flat

    def flat_clock(self) -> Clock | None:
        loads = self._open_loads()
        productive = [at for at, rows in loads if rows > 0]
        if len(productive) < FEWEST_LOADS:
            return None
        quiet = {_silence_around(start, productive) for start, _ in self.masked}
        ill = [(span, [at for at, rows in loads if rows == 0 and span[0] < at < span[1]]) for span in sorted(quiet)]
        ill = sorted((one for one in ill if one[1]), key=lambda one: len(one[1]))[-MOST_INCIDENTS:]
        spans, dropped = [span for span, _ in ill], [zeros for _, zeros in ill]
        kept = [(at, rows) for at, rows in loads if rows > 0 or not any(start < at < end for start, end in spans)]
        width, count = max(self.width, HOUR), WEEK // max(self.width, HOUR)
        phase = _phase(self.times, width)
        cells = [cell_of(at, phase, width) for at, _ in kept]
        levels = _tally(cells, [rows for _, rows in kept], count).levels()
        cells = [cell % count for cell in cells]
        arrived = [at for at, (_, rows) in enumerate(kept) if rows > 0]
        candidates = [self._flat_clock(level, cells, arrived, dropped, width, phase) for level in levels]
        return self._at_its_budget(min(candidates, key=lambda one: _loads_until(one.clock, cells)))

    def _open_loads(self) -> list[tuple[int, int]]:
        if not self.closed:
            return self.loads
        return [(at, rows) for at, rows in self.loads if not self.closed.covers(_date(at // DAY))]

    def _flat_clock(
        self, level: Level, cells: list[int], arrived: list[int], dropped: list[list[int]], width: int, phase: int
    ) -> _Candidate:
        passed = [0.0, *accumulate([level.left_out[cell] for cell in cells])]
        usual = [passed[later] - passed[earlier + 1] for earlier, later in pairwise(arrived)]
        incidents = [
            sum(level.weights[cell_of(at, phase, width) % len(level.weights)] for at in run) for run in dropped if run
        ]
        return self._candidate(Clock(width, phase, level.weights, 0.0), usual, incidents)

    # -- stuck

    def stuck(self) -> tuple[tuple[float, ...], float]:
        """By the size of a number the surprise of its being repeated, and how much of it is too much."""
        well, ill = self._loads_and_incidents()
        numbers = [rows for _, rows in well if rows > 0]
        if len(numbers) < FEWEST_LOADS:
            return (), math.inf
        pairs = [(size_of(rows), rows == following) for rows, following in pairwise(numbers)]
        seen, repeated = Counter([size for size, _ in pairs]), Counter([size for size, same in pairs if same])
        chances = {size: _chance(size) for size in range(max(seen) + 1)}
        usual = (sum(repeated.values()) + 0.5) / sum([chances[size] * times for size, times in seen.items()])
        rare = math.log(max(len(pairs) * MONTH / (self.weeks * WEEK) / (self.budget * STUCK_SHARE), 1.0))
        weights = tuple(
            min(_repeat_surprise(repeated[size], seen[size], usual * chance), rare) for size, chance in chances.items()
        )
        usual_repeats = self._repeats(numbers, weights)
        threshold = max(rare, tail_threshold(usual_repeats, self.share) * (1 + YOUNG / self.weeks))
        worst = [max(self._repeats([rows for _, rows in loads if rows > 0], weights)) for loads in ill]
        bounded = [min(surprise, PAST_INCIDENT * threshold) for surprise in worst]
        return weights, max(threshold, tail_threshold([*usual_repeats, *bounded], self.share))

    def _loads_and_incidents(self) -> tuple[Loads, list[Loads]]:
        """The loads of good times, and those of each incident."""
        loads, ill = self.loads, []
        for start, end in self.masked:
            first, last = bisect_left(loads, (start, -1)), bisect_left(loads, (end, -1))
            if last > first:
                ill.append(loads[max(first - LED_UP, 0) : last])
                loads = loads[:first] + loads[last:]
        return loads, ill

    def _repeats(self, numbers: list[int], weights: tuple[float, ...]) -> list[float]:
        """The surprise of each stretch of one and the same number."""
        surprises = [0.0] * (TAIL + 1)
        for rows, stretch in groupby(numbers):
            if times := sum(1 for _ in stretch) - 1:
                surprises.append(times * weights[min(size_of(rows), len(weights) - 1)])
        return surprises

    # -- for people

    def bands(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        by_hour: list[list[int]] = [[] for _ in range(168)]
        for at, rows in self.loads:
            by_hour[(at - _MONDAY) // HOUR % 168].append(rows)
        for rows_then in by_hour:
            rows_then.sort()
        low = tuple([some[len(some) // 10] if some else -1 for some in by_hour])
        high = tuple([some[(9 * len(some) - 1) // 10] if some else -1 for some in by_hour])
        return low, high


@dataclass(frozen=True)
class _Candidate:
    """A clock, and the silences of the past as it saw them: those that ended well, and the incidents."""

    clock: Clock
    usual: Sequence[float]
    incidents: Sequence[float]


def tail_threshold(silences: Sequence[float], allowed: float) -> float:
    """What is exceeded ``allowed`` times in as long a time as these silences were seen in.

    Beyond the longest of them, rarer ones are taken to be longer in the way of an exponential tail.
    """
    longest = sorted(silences, reverse=True)[: TAIL + 1]
    if not longest:
        return 0.0
    count = min(TAIL, len(longest) - 1) or 1
    base = longest[-1]
    excess = sum(silence - base for silence in longest[:count]) / count
    extrapolated = base + excess * math.log(max(count / allowed, 1.0))
    return max(extrapolated, BEYOND_THE_LONGEST * longest[0])


@dataclass(frozen=True)
class Level:
    """The weights of a week, by the hour on days of such a kind or by the hour of the week."""

    weights: tuple[float, ...]
    left_out: tuple[float, ...]
    """As they would be had the one silence in question not been seen."""


@dataclass(frozen=True)
class Tally:
    """What was seen in each cell of the week."""

    seen: Sequence[float]
    empty: Sequence[float]
    rows: Sequence[float] | None = None
    """Rows in all, where an empty slot is one without rows."""
    squares: Sequence[float] | None = None

    def levels(self) -> list[Level]:
        """By the hour on days of such a kind, and by the hour of the week; each cell leans on what is coarser."""
        per_day = len(self.seen) // 7
        everywhere = (sum(self.empty) + 0.5) / (sum(self.seen) + 1)
        workdays, weekends = slice(0, _WORKDAYS * per_day), slice(_WORKDAYS * per_day, None)
        of_days: list[Share] = []
        of_week: list[Share] = []
        by_hour = [self._lean(self._hour(hour, per_day), everywhere) for hour in range(per_day)]
        for days, times in ((workdays, _WORKDAYS), (weekends, 7 - _WORKDAYS)):
            some = [self._share_of(hour, per_day, days, by_hour[hour]) for hour in range(per_day)]
            of_days += some * times
        for cell, (leaning, _) in enumerate(of_days):
            of_week.append(_share(self.seen[cell], self.empty[cell], leaning))
        return [_level(of_days), _level(of_week)]

    def _hour(self, hour: int, per_day: int) -> Counts:
        """Seen, empty, rows and their squares, at one hour of all days."""
        seen, empty = sum(self.seen[hour::per_day]), sum(self.empty[hour::per_day])
        if self.rows is None or self.squares is None:
            return seen, empty, 0.0, 0.0
        return seen, empty, sum(self.rows[hour::per_day]), sum(self.squares[hour::per_day])

    def _lean(self, counts: Counts, everywhere: float) -> float:
        by_rows = _empty_by_the_rows(counts)
        return _share(counts[0], counts[1], everywhere if by_rows is None else by_rows)[0]

    def _share_of(self, hour: int, per_day: int, days: slice, leaning: float) -> Share:
        return _share(sum(self.seen[days][hour::per_day]), sum(self.empty[days][hour::per_day]), leaning)


Counts = tuple[float, float, float, float]
Share = tuple[float, float]
"""Of slots that are empty; and as it would be, had one silence not been seen."""


def _share(seen: float, empty: float, leaning: float) -> Share:
    share = (empty + SHRINKAGE * leaning) / (seen + SHRINKAGE)
    if empty <= 0:
        return share, share
    return share, (max(empty - 1, 0) + SHRINKAGE * leaning) / (max(seen - 1, 0) + SHRINKAGE)


def _empty_by_the_rows(counts: Counts) -> float | None:
    """How often a slot would be empty by the rows it has, were they scattered as a negative binomial.

    Where there are always hundreds, none at all is rarer than eight weeks could show.
    """
    seen, _, rows, squares = counts
    if seen < FEWEST_SLOTS or rows <= 0:
        return None
    mean = rows / seen
    variance = squares / seen - mean * mean
    if variance <= mean * 1.001:
        return math.exp(-mean)
    return math.exp(-math.log(variance / mean) * mean * mean / (variance - mean))


def _level(shares: list[Share]) -> Level:
    """The surprises, with a little of what is usual an hour before and after: nothing starts on the dot for ever."""
    near = [SMEAR * share for share, _ in shares]
    around = [before + after for before, after in zip([near[-1], *near[:-1]], [*near[1:], near[0]], strict=True)]
    weights = [_surprise(share + some) for (share, _), some in zip(shares, around, strict=True)]
    left_out = [
        weight if without == share else _surprise(without + some)
        for weight, (share, without), some in zip(weights, shares, around, strict=True)
    ]
    return Level(tuple(weights), tuple(left_out))


FEWEST_SLOTS = 5
"""With fewer, their mean and variance say nothing."""


def _surprise(share: float) -> float:
    """Of an empty slot, when such a share of slots is."""
    return min(-math.log(min(share, 1.0)), MOST_SURPRISING) if share > 0 else MOST_SURPRISING


class _Grid:
    """Which slots of a source's past had a heartbeat."""

    def __init__(self, runs: Sequence[int], width: int, phase: int, closed: ClosedDays, masked: Sequence[Span]) -> None:
        self.width, self.phase = width, phase
        self.slots = WEEK // width
        occupied = [(at - _MONDAY - phase) // width for at in runs]
        self.start = occupied[0] // self.slots * self.slots
        self.weeks = occupied[-1] // self.slots - occupied[0] // self.slots + 1
        self.filled = [slot - self.start for slot in occupied]
        size = self.weeks * self.slots
        self.open = bytearray(b"\x01") * size
        self.fresh = freshness(self.weeks)
        if closed:
            self._close(closed)
        self.masked = set(_gaps_at(masked, runs))
        self.gaps = [(at, *pair) for at, pair in enumerate(pairwise(self.filled)) if pair[1] > pair[0] + 1]

    def _close(self, closed: ClosedDays) -> None:
        at, size = 0, len(self.open)
        while at < size:
            day = (((self.start + at + 1) * self.width + _MONDAY + self.phase) - 1) // DAY
            tomorrow = ((day + 1) * DAY - _MONDAY - self.phase) // self.width - self.start
            if closed.covers(_date(day)):
                self.open[at:tomorrow] = bytes(min(tomorrow, size) - at)
            at = tomorrow

    def levels(self, rows: Sequence[int] | None) -> list[Level]:
        observed = bytearray(self.open)
        observed[: self.filled[0] + 1] = bytes(self.filled[0] + 1)
        observed[self.filled[-1] + 1 :] = bytes(len(observed) - self.filled[-1] - 1)
        for at in self.masked:
            start, end = self.filled[at] + 1, self.filled[at + 1]
            if end > start:
                observed[start:end] = bytes(end - start)
        present = bytearray(len(observed))
        for slot in self.filled:
            present[slot] = observed[slot]
        seen = self._by_cell(observed)
        empty = [all_ - some for all_, some in zip(seen, self._by_cell(present), strict=True)]
        return Tally(seen, empty, *self._rows_by_cell(rows, observed)).levels()

    def _rows_by_cell(
        self, rows: Sequence[int] | None, observed: bytearray
    ) -> tuple[list[float], list[float]] | tuple[()]:
        if rows is None:
            return ()
        cells = self.slots // max(HOUR // self.width, 1)
        times = max(HOUR // self.width, 1)
        total, squares = [0.0] * cells, [0.0] * cells
        for slot, number in zip(self.filled, rows, strict=True):
            if observed[slot]:
                week, place = divmod(slot, self.slots)
                weighted = number * self.fresh[week]
                total[place // times] += weighted
                squares[place // times] += weighted * number
        return total, squares

    def _by_cell(self, flags: bytearray) -> list[float]:
        times = max(HOUR // self.width, 1)
        return [
            sum(
                sum(map(mul, flags[slot :: self.slots], self.fresh)) for slot in range(cell * times, (cell + 1) * times)
            )
            for cell in range(self.slots // times)
        ]

    def silences(self, weights: Sequence[float]) -> tuple[list[float], list[float]]:
        """The surprise of each silence that ended well, and of each that was an incident."""
        passed = [0.0, *accumulate(map(mul, spread(weights, self.width) * self.weeks, self.open))]
        usual = [passed[later] - passed[earlier + 1] for at, earlier, later in self.gaps if at not in self.masked]
        incidents = [passed[later] - passed[earlier + 1] for at, earlier, later in self.gaps if at in self.masked]
        usual += [0.0] * min(TAIL + 1, len(self.filled) - len(usual))
        return usual, incidents


def _gaps_at(masked: Sequence[Span], runs: Sequence[int]) -> list[int]:
    """The gaps between heartbeats that were incidents, by the heartbeat before; the longest few."""
    gaps = {bisect_right(runs, start) - 1 for start, _ in masked}
    known = sorted((at for at in gaps if 0 <= at < len(runs) - 1), key=lambda at: runs[at + 1] - runs[at])
    return known[-MOST_INCIDENTS:]


def _phase(times: Sequence[int], width: int) -> int:
    """Minutes past each ``width`` after which a load that belongs before it is there, and with some slack.

    The longest stretch of the clock face in which next to no load ever came; a little into it is where slots begin.
    """
    step = max(width // HOUR, 1)
    face = Counter([at % width // step for at in times])
    rare = len(times) * STRAYS
    hands = sorted(minute for minute, loads in face.items() if loads > rare)
    holes = [((following - minute - 1) % (width // step), minute) for minute, following in pairwise(hands)]
    holes.append(((hands[0] - hands[-1] - 1) % (width // step), hands[-1]))
    size, minute = max(holes)
    return (minute + 1 + round(size * SLACK)) * step % width


STRAYS = 0.004
"""Of the loads; so few at some minute of the hour do not say that loads come then."""

SLACK = 0.2
"""Of the time in which no load ever came: how far into it a load may still be taken for one that is a little late."""


def _tally(cells: Sequence[int], rows: Sequence[int], count: int) -> Tally:
    """Of loads, by their cell counted from long ago."""
    seen, empty, total, squares = [0.0] * count, [0.0] * count, [0.0] * count, [0.0] * count
    first = cells[0] // count
    fresh = freshness(cells[-1] // count - first + 1)
    for at, number in zip(cells, rows, strict=True):
        week, cell = divmod(at, count)
        weight = fresh[week - first]
        seen[cell] += weight
        if number:
            total[cell] += number * weight
            squares[cell] += number * number * weight
        else:
            empty[cell] += weight
    return Tally(seen, empty, total, squares)


def freshness(weeks: int) -> list[float]:
    """What each week counts for, the latest last."""
    return [2 ** (-HALVINGS * (weeks - 1 - week) / weeks) for week in range(weeks)]


HALVINGS = 2.0
"""Over the time of a lesson, of what a week counts for; sunsets move, and so do habits."""


def _silence_around(start: int, productive: Sequence[int]) -> Span:
    """An incident began with the silence, before it was one, and ended with it."""
    before = bisect_right(productive, start) - 1
    after = productive[before + 1] if before + 1 < len(productive) else start + WEEK * LONGEST_SEARCH
    return (productive[before] if before >= 0 else start, after)


def _loads_until(clock: Clock, cells: Sequence[int]) -> float:
    """The number of loads without rows until an alarm, from each place in the past, on a scale of doublings."""
    passed = list(accumulate([clock.weights[cell] for cell in cells[-SAMPLE * 2 :]], initial=0.0))
    total = 0.0
    for start in range(len(passed) // 2):
        total += math.log(max(bisect_right(passed, passed[start] + clock.threshold) - start, 1))
    return total


def _chance(size: int) -> float:
    """How often numbers of a size would meet their like by chance, but for a factor that is the source's own."""
    return 0.5 if size < 4 else 1.0 / math.sqrt(2 ** (size - 1))


def _repeat_surprise(repeated: int, seen: int, chance: float) -> float:
    share = (repeated + ALIKE * chance) / (seen + ALIKE)
    return -math.log(share) if share <= OFTEN_THE_SAME else 0.0


def _open_minutes(start: int, end: int, closed: ClosedDays) -> int:
    minutes, at = 0, start
    while at < end:
        tomorrow = min((at // DAY + 1) * DAY, end)
        if not closed.covers(_date(at // DAY)):
            minutes += tomorrow - at
        at = tomorrow
    return minutes


def _on_the_wall(instants: Sequence[datetime], zone: ZoneInfo) -> list[int]:
    """Minutes of the wall clock; its offset is looked up once a day, for there may be thousands of heartbeats."""
    offsets: dict[int, int | None] = {}
    minutes = []
    for at in instants:
        minute = int(at.timestamp()) // 60
        day = minute // DAY
        if day not in offsets:
            offsets[day] = _offset_all_day(day, zone)
        offset = offsets[day]
        minutes.append(wall_minute(at, zone) if offset is None else minute + offset)
    return minutes


def _offset_all_day(day: int, zone: ZoneInfo) -> int | None:
    """None on a day on which the clocks change."""
    start = _EPOCH + timedelta(days=day)
    first, last = (wall_minute(at, zone) - (at - _EPOCH) // _MINUTE for at in (start, start + timedelta(days=1)))
    return first if first == last else None


def _grace(lesson: _Lesson, schedule: Cron) -> timedelta | None:
    """How long after its time a load took to report, and as much more as the budget wants."""
    times = [beat.at for beat in lesson.beats if not beat.measured][-TICKS - 1 :]
    if len(times) < FEWEST_LOADS:
        return None
    delays: list[float] = []
    tick = schedule.next_after(times[0], lesson.zone, lesson.closed)
    while tick <= times[-1]:
        reported = times[bisect_left(times, tick)]
        following = schedule.next_after(tick, lesson.zone, lesson.closed)
        if reported < following and not lesson.was_an_incident(tick, reported):
            delays.append((reported - tick) / _MINUTE)
        tick = following
    if len(delays) < FEWEST_LOADS:
        return None
    allowed = lesson.share * len(delays) / max(len(lesson.runs), 1)
    minutes = tail_threshold(delays, allowed) * (1 + YOUNG / lesson.weeks)
    return max(timedelta(minutes=math.ceil(minutes)), SHORTEST_GRACE)


TICKS = 150
"""Of a schedule, the latest; to find the time of each costs a third of a millisecond."""

SHORTEST_GRACE = timedelta(minutes=5)
"""A scheduler that is busy for a moment is no outage."""
