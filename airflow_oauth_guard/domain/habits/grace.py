"""How long after the time of a schedule a load may take to report."""

from __future__ import annotations

import math
from bisect import bisect_left
from datetime import timedelta

from airflow_oauth_guard.domain.habits.lesson import FEWEST_LOADS, Lesson
from airflow_oauth_guard.domain.habits.thresholds import YOUNG, tail_threshold
from airflow_oauth_guard.domain.habits.wall import MINUTE
from airflow_oauth_guard.domain.windows import Cron

TICKS = 150
"""Of a schedule, the latest; to find the time of each costs a third of a millisecond."""

SHORTEST_GRACE = timedelta(minutes=5)
"""A scheduler that is busy for a moment is no outage."""


def grace_of(schedule: Cron, lesson: Lesson) -> timedelta | None:
    """How long after its time a load took to report, and as much more as the budget wants."""
    delays = _delays(schedule, lesson)
    if len(delays) < FEWEST_LOADS:
        return None
    allowed = lesson.allowed(lesson.budget) * len(delays) / max(len(lesson.runs), 1)
    minutes = tail_threshold(delays, allowed) * (1 + YOUNG / lesson.weeks)
    return max(timedelta(minutes=math.ceil(minutes)), SHORTEST_GRACE)


def _delays(schedule: Cron, lesson: Lesson) -> list[float]:
    """In minutes, of each tick that was followed by a load before the next one."""
    times = [beat.at for beat in lesson.beats if not beat.measured][-TICKS - 1 :]
    if len(times) < FEWEST_LOADS:
        return []
    delays: list[float] = []
    tick = schedule.next_after(times[0], lesson.zone, lesson.closed)
    while tick <= times[-1]:
        reported = times[bisect_left(times, tick)]
        following = schedule.next_after(tick, lesson.zone, lesson.closed)
        if reported < following and not lesson.was_an_incident(tick, reported):
            delays.append((reported - tick) / MINUTE)
        tick = following
    return delays
