"""Break real series on purpose, so that it is known when each outage began.

Three kinds: *late*, no run reports; *flat*, runs report and move nothing; *stuck*, runs report the same number again and
again. Every choice follows from the series' name and a seed.
"""

import hashlib
import itertools
import random
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.flatline.series import Beat, Series

DAY = timedelta(days=1)

KINDS = ("late", "flat", "stuck")

WANTED = 9
"""Outages per series, about three of each kind."""

MOST_VARIANTS = 9
"""A short series takes many replays to hold so many outages; beyond this it stays with fewer."""

FEWEST_BEATS = 3
"""An outage that touches fewer productive heartbeats could hardly be told from chance, by anyone."""

OFTEN_THE_SAME = 0.5
"""A source whose productive loads repeat the last count this often cannot be stuck: nothing would change."""


@dataclass(frozen=True)
class Outage:
    """One injected outage.

    Args:
        start: The first productive heartbeat it touched, so that a quiet night before it is nobody's delay.
        end: From here on the heartbeats are the source's own again.
        gap: The source's median time between productive heartbeats.
    """

    kind: str
    start: datetime
    end: datetime
    gap: timedelta


@dataclass(frozen=True)
class Variant:
    """One life of a source: as it was, or with outages.

    Args:
        seed: 0 is the series untouched.
        scored_from: Until then alarms are not counted; every rule may learn.
    """

    series: Series
    seed: int
    beats: tuple[Beat, ...]
    outages: tuple[Outage, ...]
    scored_from: datetime
    ends: datetime


@dataclass(frozen=True)
class _Pace:
    """How outages are laid out on a series of a certain cadence."""

    warm_up: timedelta
    apart: timedelta
    lengths: tuple[timedelta, ...]


def half(series: Series) -> str:
    """`tuning` or `test`; series that may share rows are in the same one."""
    digest = hashlib.sha256(series.dataset.encode()).digest()
    return "tuning" if digest[0] % 2 else "test"


def variants(series: Series) -> list[Variant]:
    """The series untouched, and as often with outages as it takes to have enough of them."""
    pace = _pace(series)
    scored_from, ends = series.beats[0][0] + pace.warm_up, series.beats[-1][0]
    made = [Variant(series, 0, series.beats, (), scored_from, ends)]
    kinds = _kinds(series)
    while sum(len(variant.outages) for variant in made) < WANTED and len(made) <= MOST_VARIANTS:
        seed = len(made)
        outages = tuple(_lay_out(series, pace, seed, kinds))
        made.append(Variant(series, seed, _break(series.beats, outages), outages, scored_from, ends))
    return made


def _pace(series: Series) -> _Pace:
    if series.step >= DAY:
        return _Pace(56 * DAY, 40 * DAY, tuple(n * series.gap for n in (8, 12, 20)))
    return _Pace(28 * DAY, 14 * DAY, tuple(max(n * DAY, 12 * series.gap) for n in (1, 2, 3, 7)))


def _kinds(series: Series) -> Iterator[str]:
    """The kinds in turn, each as often as the others."""
    chance = random.Random(f"{series.name} kinds")
    possible = [kind for kind in KINDS if kind != "stuck" or _repeats(series) <= OFTEN_THE_SAME]
    while True:
        yield from chance.sample(possible, len(possible))


def _repeats(series: Series) -> float:
    counts = [rows for _, rows in series.beats if rows > 0]
    return sum(one == other for one, other in itertools.pairwise(counts)) / max(1, len(counts) - 1)


def _lay_out(series: Series, pace: _Pace, seed: int, kinds: Iterator[str]) -> Iterator[Outage]:
    """Outages from the end of the warm-up to the end, with untouched time around each."""
    chance = random.Random(f"{series.name} {seed}")
    begin, ends = series.beats[0][0] + pace.warm_up, series.beats[-1][0]
    widest = max(pace.apart, min(6 * pace.apart, (ends - begin) / 2))
    at = begin + chance.random() * pace.apart
    while at < ends - min(pace.lengths):
        outage = _strike(series, at, chance.choice(pace.lengths), kinds)
        if outage and outage.end < ends - DAY:
            yield outage
            at = outage.end + pace.apart
        at += chance.random() * (widest - pace.apart) + DAY


def _strike(series: Series, at: datetime, length: timedelta, kinds: Iterator[str]) -> Outage | None:
    """An outage at the first productive heartbeat from then on, unless it would touch too little to be noticed."""
    productive = [beat for beat in series.beats if beat[1] > 0]
    first = bisect_left(productive, (at, 0))
    if not 0 < first < len(productive):
        return None
    start = productive[first][0]
    touched = productive[first : bisect_left(productive, (start + length, 0))]
    if len(touched) < FEWEST_BEATS:
        return None
    kind = next(kinds)
    changed = sum(rows != productive[first - 1][1] for _, rows in touched)
    if kind == "stuck" and changed < FEWEST_BEATS:
        return None
    return Outage(kind, start, start + length, series.gap)


def _break(beats: tuple[Beat, ...], outages: tuple[Outage, ...]) -> tuple[Beat, ...]:
    """The heartbeats as they would have come."""
    broken: list[Beat] = list(beats)
    for outage in outages:
        first, last = (bisect_left(broken, (at, -1)) for at in (outage.start, outage.end))
        broken[first:last] = _touch(broken[first:last], outage.kind, _last_rows(broken[:first]))
    return tuple(broken)


def _touch(beats: list[Beat], kind: str, last_rows: int) -> list[Beat]:
    if kind == "late":
        return []
    rows_then = 0 if kind == "flat" else last_rows
    return [(at, rows_then if rows > 0 else 0) for at, rows in beats]


def _last_rows(beats: list[Beat]) -> int:
    return next(rows for _, rows in reversed(beats) if rows > 0)
