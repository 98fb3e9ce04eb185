"""When a number that repeats is stuck: by its size, for low numbers meet their like by chance."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import compress, pairwise
from operator import eq

from airflow_oauth_guard.domain.habits.lesson import FEWEST_LOADS, Lesson, Load
from airflow_oauth_guard.domain.habits.thresholds import TAIL, YOUNG, bounded, tail_threshold
from airflow_oauth_guard.domain.habits.wall import MONTH, WEEK

STUCK_SHARE = 0.8
"""Of the budget, for numbers that repeat by chance: that chance is known well, and what it allows is not used up."""

ALIKE = 20.0
"""Loads, for which the chance of a repeat that numbers of all sizes tell counts beside the size's own."""

OFTEN_THE_SAME = 0.75
"""A number that is repeated more often than this says nothing by being repeated."""

LED_UP = 6
"""Loads before a source was called stuck that moved the same number already."""


def size_of(rows: int) -> int:
    """A class of numbers of one size: 1, 2 and 3 by themselves, then by powers of two."""
    return rows if rows < 4 else rows.bit_length() + 1


def surprise_of_repeats(lesson: Lesson) -> tuple[tuple[float, ...], float]:
    """By the size of a number the surprise of its being repeated, and how much of it is too much."""
    well, ill = _loads_and_incidents(lesson)
    numbers = _numbers(well)
    if len(numbers) < FEWEST_LOADS:
        return (), math.inf
    rare = math.log(max((len(numbers) - 1) * MONTH / (lesson.weeks * WEEK) / (lesson.budget * STUCK_SHARE), 1.0))
    weights = _weights(numbers, rare)
    usual, allowed = _stretches(numbers, weights), lesson.allowed(lesson.budget)
    threshold = max(rare, tail_threshold(usual, allowed) * (1 + YOUNG / lesson.weeks))
    worst = [max(_stretches(_numbers(loads), weights)) for loads in ill]
    return weights, max(threshold, tail_threshold([*usual, *bounded(worst, threshold)], allowed))


def _loads_and_incidents(lesson: Lesson) -> tuple[list[Load], list[list[Load]]]:
    """The loads of good times, and those of each incident."""
    loads, ill = lesson.loads, []
    for start, end in lesson.incidents:
        first, last = bisect_left(loads, (start, -1)), bisect_left(loads, (end, -1))
        if last > first:
            ill.append(loads[max(first - LED_UP, 0) : last])
            loads = loads[:first] + loads[last:]
    return loads, ill


def _numbers(loads: Sequence[Load]) -> list[int]:
    return [rows for _, rows in loads if rows > 0]


def _weights(numbers: list[int], rare: float) -> tuple[float, ...]:
    """By size; the sizes that came seldom, or never, follow from how often numbers repeat at all."""
    sizes = list(map(size_of, numbers))
    seen, repeated = Counter(sizes[:-1]), Counter(compress(sizes, map(eq, numbers, numbers[1:])))
    chances = [_chance(size) for size in range(max(seen) + 1)]
    usual = (sum(repeated.values()) + 0.5) / sum([chances[size] * times for size, times in seen.items()])
    return tuple(
        [min(_repeat_surprise(repeated[size], seen[size], usual * chance), rare) for size, chance in enumerate(chances)]
    )


def _chance(size: int) -> float:
    """How often numbers of a size would meet their like by chance, but for a factor that is the source's own."""
    return 0.5 if size < 4 else 1.0 / math.sqrt(2 ** (size - 1))


def _repeat_surprise(repeated: int, seen: int, chance: float) -> float:
    share = (repeated + ALIKE * chance) / (seen + ALIKE)
    return -math.log(share) if share <= OFTEN_THE_SAME else 0.0


def _stretches(numbers: list[int], weights: tuple[float, ...]) -> list[float]:
    """The surprise of each stretch of one and the same number."""
    surprises, times = [0.0] * (TAIL + 1), 0
    # No number is 0, which so ends the last stretch.
    for rows, following in pairwise([*numbers, 0]):
        if rows == following:
            times += 1
        elif times:
            surprises.append(times * weights[min(size_of(rows), len(weights) - 1)])
            times = 0
    return surprises
