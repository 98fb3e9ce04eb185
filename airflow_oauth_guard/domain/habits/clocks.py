"""A surprise clock, and when it runs out."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.habits.wall import DAY, HOUR, MONDAY, date_of

LONGEST_SEARCH = 60
"""Weeks. What may stay quiet for longer without surprise cannot be judged by its silence."""

PRECISION = 1000
"""Of a weight that is written down."""


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
        return (minute - MONDAY - self.phase) // self.width

    def end_of(self, slot: int) -> int:
        return (slot + 1) * self.width + MONDAY + self.phase

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
            if not closed.covers(date_of(day)):
                place = slot % slots
                until = self.passed[place] + left
                if self.passed[place + tomorrow - slot] > until:
                    return self.end_of(slot - place + bisect_right(self.passed, until, place) - 1)
                left = until - self.passed[place + tomorrow - slot]
            slot = tomorrow
        return None

    def to_json(self) -> list[Any]:
        weights = [round(weight * PRECISION) for weight in self.weights]
        return [self.width, self.phase, finite(self.threshold), weights]

    @classmethod
    def from_json(cls, given: list[Any]) -> Clock:
        width, phase, threshold, weights = given
        weights = tuple([weight / PRECISION for weight in weights])
        return cls(width, phase, weights, math.inf if threshold is None else threshold)


def spread(weights: Sequence[float], width: int) -> list[float]:
    """Weights by hour as weights by slot, for there may be several in an hour."""
    times = max(HOUR // width, 1)
    return [weight for weight in weights for _ in range(times)] if times > 1 else list(weights)


def cell_of(minute: int, phase: int, width: int) -> int:
    """The hour (or day) of the source's time in which a minute lies, counted from a Monday."""
    return (minute - MONDAY - phase) // max(width, HOUR)


def finite(threshold: float) -> float | None:
    """JSON knows no infinity."""
    return None if math.isinf(threshold) else round(threshold, 4)
