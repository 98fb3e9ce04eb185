"""When loads without rows are flat: the clock that moves on at each of them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from airflow_oauth_guard.domain.habits.clocks import LONGEST_SEARCH, Clock, cell_of
from airflow_oauth_guard.domain.habits.late import SAMPLE
from airflow_oauth_guard.domain.habits.lesson import FEWEST_LOADS, MOST_INCIDENTS, Lesson, Load, Span
from airflow_oauth_guard.domain.habits.patterns import Pattern, Tally, freshness
from airflow_oauth_guard.domain.habits.slots import phase_of
from airflow_oauth_guard.domain.habits.thresholds import TAIL, Candidate, soonest
from airflow_oauth_guard.domain.habits.wall import DAY, HOUR, WEEK, date_of


def flat_clock(lesson: Lesson) -> Clock | None:
    loads = _open_loads(lesson)
    productive = [at for at, rows in loads if rows > 0]
    if len(productive) < FEWEST_LOADS:
        return None
    incidents = _incidents(lesson, loads, productive)
    kept = _without(incidents, loads)
    width = max(lesson.width, HOUR)
    phase, count = phase_of(lesson.times, width), WEEK // width
    cells = [cell_of(at, phase, width) for at, _ in kept]
    patterns = _tally(cells, [rows for _, rows in kept], count).patterns()
    cells = [cell % count for cell in cells]
    arrived = [at for at, (_, rows) in enumerate(kept) if rows > 0]
    candidates = []
    for pattern in patterns:
        clock = Clock(width, phase, pattern.weights, 0.0)
        ill = [sum([clock.weight_at(at) for at in zeros]) for zeros in incidents.values()]
        candidates.append(Candidate(clock, _runs_of_zeros(pattern, cells, arrived), ill))
    return soonest(candidates, lesson, lambda clock: _loads_until(clock, cells))


def _open_loads(lesson: Lesson) -> list[Load]:
    if not lesson.closed:
        return lesson.loads
    days = {at // DAY for at, _ in lesson.loads}
    shut = {day for day in days if lesson.closed.covers(date_of(day))}
    return [(at, rows) for at, rows in lesson.loads if at // DAY not in shut]


def _incidents(lesson: Lesson, loads: list[Load], productive: list[int]) -> dict[Span, list[int]]:
    """The worst few, and when their loads without rows were."""
    spans = sorted({_silence_around(start, productive) for start, _ in lesson.incidents})
    zeros = {span: [at for at, rows in loads if rows == 0 and span[0] < at < span[1]] for span in spans}
    worst = sorted((span for span in spans if zeros[span]), key=lambda span: len(zeros[span]))
    return {span: zeros[span] for span in worst[-MOST_INCIDENTS:]}


def _silence_around(start: int, productive: Sequence[int]) -> Span:
    """An incident began with the silence, before it was one, and ended with it."""
    before = bisect_right(productive, start) - 1
    after = productive[before + 1] if before + 1 < len(productive) else start + WEEK * LONGEST_SEARCH
    return (productive[before] if before >= 0 else start, after)


def _without(incidents: dict[Span, list[int]], loads: list[Load]) -> list[Load]:
    if not incidents:
        return loads
    return [(at, rows) for at, rows in loads if rows > 0 or not any(start < at < end for start, end in incidents)]


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


def _runs_of_zeros(pattern: Pattern, cells: Sequence[int], arrived: Sequence[int]) -> list[float]:
    """The surprise of the loads without rows between each two with rows."""
    passed = [0.0, *accumulate([pattern.left_out[cell] for cell in cells])]
    runs = [passed[later] - passed[earlier + 1] for earlier, later in pairwise(arrived) if later > earlier + 1]
    # Where one load with rows follows another, there was none; the threshold looks at no more of those.
    return runs + [0.0] * min(TAIL + 1, len(arrived) - 1 - len(runs))


def _loads_until(clock: Clock, cells: Sequence[int]) -> float:
    """The number of loads without rows until an alarm, from each place in the past, on a scale of doublings."""
    passed = list(accumulate([clock.weights[cell] for cell in cells[-SAMPLE * 2 :]], initial=0.0))
    total = 0.0
    for start in range(len(passed) // 2):
        total += math.log(max(bisect_right(passed, passed[start] + clock.threshold) - start, 1))
    return total
