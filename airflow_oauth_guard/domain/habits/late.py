"""When the next heartbeat is late: the clock that runs while there is none."""

from __future__ import annotations

import math
from itertools import pairwise

from airflow_oauth_guard.domain.habits.clocks import LONGEST_SEARCH, Clock
from airflow_oauth_guard.domain.habits.lesson import FEWEST_LOADS, Lesson
from airflow_oauth_guard.domain.habits.slots import Slots, phase_of
from airflow_oauth_guard.domain.habits.thresholds import Candidate, soonest
from airflow_oauth_guard.domain.habits.wall import HOUR, WEEK, open_minutes

SAMPLE = 100
"""Of the latest heartbeats, after which an outage is imagined, to choose among clocks."""


def late_clock(lesson: Lesson) -> Clock | None:
    if len(lesson.runs) < FEWEST_LOADS:
        return None
    stopwatch = _stopwatch(lesson)
    if not any(stopwatch.usual):
        # All at one instant, or all on closed days: whatever came next would be late at once.
        return None
    candidates = [stopwatch]
    for width in sorted({lesson.width, min(lesson.width, HOUR)}):
        candidates += _slot_clocks(lesson, width)
    return soonest(candidates, lesson, lambda clock: _delay(lesson, clock))


def _stopwatch(lesson: Lesson) -> Candidate:
    silences = _silences(lesson)
    usual = [silence for at, silence in enumerate(silences) if at not in lesson.broken_gaps]
    return Candidate(Clock(0, 0, (), 0.0), usual, [silences[at] for at in lesson.broken_gaps])


def _silences(lesson: Lesson) -> list[float]:
    """Minutes between heartbeats, by the clock on the wall or the true one: what is shorter when clocks change."""
    if lesson.closed:
        return [max(later - earlier, 0) for earlier, later in pairwise(open_minutes(lesson.runs, lesson.closed))]
    on_the_wall = [later - earlier for earlier, later in pairwise(lesson.runs)]
    in_truth = [later - earlier for earlier, later in pairwise(lesson.instants)]
    return list(map(min, on_the_wall, in_truth))


def _slot_clocks(lesson: Lesson, width: int) -> list[Candidate]:
    phase = phase_of(lesson.runs, width)
    slots = Slots(lesson.runs, width, phase, lesson.closed, lesson.broken_gaps)
    return [
        Candidate(Clock(width, phase, pattern.weights, 0.0), *slots.silences(pattern.left_out))
        for pattern in slots.patterns(_rows_of_arrivals(lesson))
    ]


def _rows_of_arrivals(lesson: Lesson) -> list[int] | None:
    """None if some came without rows, and an empty slot is not one without rows."""
    rows = [rows for _, rows in lesson.loads]
    return rows if len(rows) == len(lesson.runs) and min(rows, default=0) > 0 else None


def _delay(lesson: Lesson, clock: Clock) -> float:
    """How long an outage would go unseen, on a scale where twice as long is one step worse."""
    total = weight = 0.0
    for at, following in pairwise(lesson.runs[-SAMPLE:]):
        gap = min(following - at, 2 * lesson.gap)
        end = at + clock.threshold if clock.width == 0 else clock.runs_out(at, lesson.closed)
        delay = LONGEST_SEARCH * WEEK if end is None else end - at
        total += gap * math.log(1 + max(delay, 0) / lesson.gap)
        weight += gap
    return total / weight if weight else 0.0
