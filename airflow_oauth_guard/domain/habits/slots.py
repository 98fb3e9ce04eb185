"""Which slots of a source's past had a heartbeat, and where in the hour slots begin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from operator import mul

from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.habits.clocks import spread
from airflow_oauth_guard.domain.habits.patterns import Pattern, Tally, freshness
from airflow_oauth_guard.domain.habits.thresholds import TAIL
from airflow_oauth_guard.domain.habits.wall import DAY, HOUR, MONDAY, WEEK, date_of

STRAYS = 0.004
"""Of the loads; so few at some minute of the hour do not say that loads come then."""

SLACK = 0.2
"""Of the time in which no load ever came: how far into it a load may still be taken for one that is a little late."""


def phase_of(times: Sequence[int], width: int) -> int:
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


class Slots:
    """Whole weeks of them, from the Monday before the first run to the Sunday after the last.

    Args:
        broken_gaps: The runs after which there was an incident.
    """

    def __init__(
        self, runs: Sequence[int], width: int, phase: int, closed: ClosedDays, broken_gaps: Collection[int]
    ) -> None:
        self.width, self.phase = width, phase
        self.a_week = WEEK // width
        self.per_cell = max(HOUR // width, 1)
        occupied = [(at - MONDAY - phase) // width for at in runs]
        self.start = occupied[0] // self.a_week * self.a_week
        self.weeks = occupied[-1] // self.a_week - occupied[0] // self.a_week + 1
        self.filled = [slot - self.start for slot in occupied]
        self.open = bytearray(b"\x01") * (self.weeks * self.a_week)
        self.fresh = freshness(self.weeks)
        if closed:
            self._close(closed)
        self.broken_gaps = broken_gaps
        self.gaps = [(at, *pair) for at, pair in enumerate(pairwise(self.filled)) if pair[1] > pair[0] + 1]

    def _close(self, closed: ClosedDays) -> None:
        at, size = 0, len(self.open)
        while at < size:
            day = (((self.start + at + 1) * self.width + MONDAY + self.phase) - 1) // DAY
            tomorrow = ((day + 1) * DAY - MONDAY - self.phase) // self.width - self.start
            if closed.covers(date_of(day)):
                self.open[at:tomorrow] = bytes(min(tomorrow, size) - at)
            at = tomorrow

    # -- how often they are empty -------------------------------------------------------------------------------------

    def patterns(self, rows: Sequence[int] | None) -> list[Pattern]:
        """Args:
        rows: Of each run, where every run has some.
        """
        observed = self._observed()
        present = bytearray(len(observed))
        for slot in self.filled:
            present[slot] = observed[slot]
        seen = self._by_cell(observed)
        empty = [all_ - some for all_, some in zip(seen, self._by_cell(present), strict=True)]
        return Tally(seen, empty, *self._rows_by_cell(rows, observed)).patterns()

    def _observed(self) -> bytearray:
        """From the first run to the last, on open days, outside of incidents."""
        observed = bytearray(self.open)
        observed[: self.filled[0] + 1] = bytes(self.filled[0] + 1)
        observed[self.filled[-1] + 1 :] = bytes(len(observed) - self.filled[-1] - 1)
        for at in self.broken_gaps:
            start, end = self.filled[at] + 1, self.filled[at + 1]
            if end > start:
                observed[start:end] = bytes(end - start)
        return observed

    def _rows_by_cell(
        self, rows: Sequence[int] | None, observed: bytearray
    ) -> tuple[list[float], list[float]] | tuple[()]:
        if rows is None:
            return ()
        total, squares = ([0.0] * (self.a_week // self.per_cell) for _ in range(2))
        for slot, number in zip(self.filled, rows, strict=True):
            if observed[slot]:
                week, place = divmod(slot, self.a_week)
                weighted = number * self.fresh[week]
                total[place // self.per_cell] += weighted
                squares[place // self.per_cell] += weighted * number
        return total, squares

    def _by_cell(self, flags: bytearray) -> list[float]:
        by_slot = [sum(map(mul, flags[slot :: self.a_week], self.fresh)) for slot in range(self.a_week)]
        return [sum(by_slot[first : first + self.per_cell]) for first in range(0, self.a_week, self.per_cell)]

    # -- how surprising they were -------------------------------------------------------------------------------------

    def silences(self, weights: Sequence[float]) -> tuple[list[float], list[float]]:
        """The surprise of each silence that ended well, and of each that was an incident."""
        passed = [0.0, *accumulate(map(mul, spread(weights, self.width) * self.weeks, self.open))]
        usual = [passed[later] - passed[earlier + 1] for at, earlier, later in self.gaps if at not in self.broken_gaps]
        incidents = [passed[later] - passed[earlier + 1] for at, earlier, later in self.gaps if at in self.broken_gaps]
        # Where one filled slot follows another, there was none; the threshold looks at no more of those.
        usual += [0.0] * min(TAIL + 1, len(self.filled) - len(usual))
        return usual, incidents
