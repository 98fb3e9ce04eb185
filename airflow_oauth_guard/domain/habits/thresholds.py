"""How much surprise is too much: what the silences of the past say, at the false alarms that the budget allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from airflow_oauth_guard.domain.habits.clocks import Clock
from airflow_oauth_guard.domain.habits.lesson import Lesson
from airflow_oauth_guard.domain.habits.patterns import MOST_SURPRISING
from airflow_oauth_guard.domain.windows import DEFAULT_BUDGET

TAIL = 20
"""The longest past silences, from which the rarer ones to come are extrapolated."""

BEYOND_THE_LONGEST = 1.1
"""No alarm before a silence is so many times as surprising as the longest one that turned out well."""

YOUNG = 1.0
"""Weeks; a threshold is higher by ``YOUNG / weeks``, for what few weeks taught is wrong by more."""

PAST_INCIDENT = 1.0
"""Thresholds; as how much surprise an incident counts at most, so that it cannot teach us to expect the next one."""

NEVER_ONE_ALONE = 1.25
"""Of the most surprising slots, below which there is no alarm: one load may always be lost, two together hardly."""


@dataclass(frozen=True)
class Candidate:
    """A clock without a threshold, and the silences of the past as it saw them."""

    clock: Clock
    usual: Sequence[float]
    """Those that ended well."""
    incidents: Sequence[float]

    def within(self, budget: float, lesson: Lesson) -> Clock:
        allowed = lesson.allowed(budget)
        threshold = tail_threshold(self.usual, allowed)
        if self.incidents:
            threshold = max(threshold, tail_threshold([*self.usual, *bounded(self.incidents, threshold)], allowed))
        floor = NEVER_ONE_ALONE * MOST_SURPRISING if self.clock.width else 0.0
        return replace(self.clock, threshold=max(threshold * (1 + YOUNG / lesson.weeks), floor))


def soonest(candidates: Sequence[Candidate], lesson: Lesson, delay: Callable[[Clock], float]) -> Clock:
    """The clock that an outage goes unseen by for the shortest time, at the source's budget.

    Compared at the usual budget, or a smaller one could choose a clock that is sooner at some hours.
    """
    rated = [(candidate, candidate.within(DEFAULT_BUDGET, lesson)) for candidate in candidates]
    best, clock = min(rated, key=lambda one: delay(one[1]))
    return clock if lesson.budget == DEFAULT_BUDGET else best.within(lesson.budget, lesson)


def bounded(incidents: Sequence[float], threshold: float) -> list[float]:
    return [min(incident, PAST_INCIDENT * threshold) for incident in incidents]


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
