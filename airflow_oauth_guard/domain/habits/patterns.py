"""The pattern of a week: how surprising it is that a slot is empty.

Each hour of the week leans on the same hour of such days, that on the same hour of all days, and that on the rows which
come then; so that few weeks are enough, and eight weeks without an empty slot do not prove that there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_oauth_guard.domain.habits.wall import WORKDAYS

SHRINKAGE = 2.0
"""Weeks that a slot's parent (the hour of such days, the hour of any day) counts for beside the slot's own."""

MOST_SURPRISING = 4.0
"""No empty slot counts for more, for eight weeks cannot tell 98 % from always."""

SMEAR = 0.03
"""Of the chance that the slot before or after is empty, added to a slot's own: nothing opens on the dot for ever."""

FEWEST_SLOTS = 5
"""With fewer, their mean and variance say nothing."""

HALVINGS = 2.0
"""Over the time of a lesson, of what a week counts for; sunsets move, and so do habits."""


@dataclass(frozen=True)
class Pattern:
    """The weights of a week, by the hour on days of such a kind or by the hour of the week."""

    weights: tuple[float, ...]
    left_out: tuple[float, ...]
    """As they would be had the one silence in question not been seen."""


Counts = tuple[float, float, float, float]
"""Slots seen and slots empty, rows in them and the squares of those."""

Share = tuple[float, float]
"""Of slots that are empty; and as it would be, had one silence not been seen."""


@dataclass(frozen=True)
class Tally:
    """What was seen in each cell of the week: its hours, or its days where a slot is a day."""

    seen: Sequence[float]
    empty: Sequence[float]
    rows: Sequence[float] | None = None
    """Rows in all, where an empty slot is one without rows."""
    squares: Sequence[float] | None = None

    def patterns(self) -> list[Pattern]:
        """By the hour on days of such a kind, and by the hour of the week; each cell leans on what is coarser."""
        per_day = len(self.seen) // 7
        everywhere = (sum(self.empty) + 0.5) / (sum(self.seen) + 1)
        workdays, weekends = slice(0, WORKDAYS * per_day), slice(WORKDAYS * per_day, None)
        by_hour = [self._any_day(self._counts(hour, per_day), everywhere) for hour in range(per_day)]
        of_days: list[Share] = []
        for days, times in ((workdays, WORKDAYS), (weekends, 7 - WORKDAYS)):
            of_days += [self._such_days(hour, per_day, days, by_hour[hour]) for hour in range(per_day)] * times
        of_week = [_share(self.seen[cell], self.empty[cell], leaning) for cell, (leaning, _) in enumerate(of_days)]
        return [_pattern(of_days), _pattern(of_week)]

    def _counts(self, hour: int, per_day: int) -> Counts:
        """At one hour of all days."""
        seen, empty = sum(self.seen[hour::per_day]), sum(self.empty[hour::per_day])
        if self.rows is None or self.squares is None:
            return seen, empty, 0.0, 0.0
        return seen, empty, sum(self.rows[hour::per_day]), sum(self.squares[hour::per_day])

    def _any_day(self, counts: Counts, everywhere: float) -> float:
        by_rows = _empty_by_the_rows(counts)
        return _share(counts[0], counts[1], everywhere if by_rows is None else by_rows)[0]

    def _such_days(self, hour: int, per_day: int, days: slice, leaning: float) -> Share:
        return _share(sum(self.seen[days][hour::per_day]), sum(self.empty[days][hour::per_day]), leaning)


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


def _pattern(shares: list[Share]) -> Pattern:
    """The surprises, with a little of what is usual an hour before and after: nothing starts on the dot for ever."""
    near = [SMEAR * share for share, _ in shares]
    around = [before + after for before, after in zip([near[-1], *near[:-1]], [*near[1:], near[0]], strict=True)]
    weights = [_surprise(share + some) for (share, _), some in zip(shares, around, strict=True)]
    left_out = [
        weight if without == share else _surprise(without + some)
        for weight, (share, without), some in zip(weights, shares, around, strict=True)
    ]
    return Pattern(tuple(weights), tuple(left_out))


def _surprise(share: float) -> float:
    """Of an empty slot, when such a share of slots is."""
    return min(-math.log(min(share, 1.0)), MOST_SURPRISING) if share > 0 else MOST_SURPRISING


def freshness(weeks: int) -> list[float]:
    """What each week counts for, the latest last."""
    return [2 ** (-HALVINGS * (weeks - 1 - week) / weeks) for week in range(weeks)]
