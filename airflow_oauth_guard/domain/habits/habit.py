"""A habit: what one lesson taught, and what may be asked of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.habits import explaining
from airflow_oauth_guard.domain.habits.bands import band_at
from airflow_oauth_guard.domain.habits.clocks import Clock, finite
from airflow_oauth_guard.domain.habits.repeats import size_of
from airflow_oauth_guard.domain.habits.wall import (
    FORGIVEN,
    HOUR,
    WORKDAYS,
    clocks_may_have_changed,
    instant_of,
    wall_minute,
)

VERSION = 1
"""Of the text. A habit that another version wrote is forgotten, and learned anew within a day."""


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
    bands: str = ""
    """Rows of a load at each hour of the week; see :meth:`band`."""

    @property
    def flat_threshold(self) -> float:
        return self.flat.threshold if self.flat is not None else math.inf

    # -- when silence is an alarm -------------------------------------------------------------------------------------

    def late_at(self, since: datetime, closed: ClosedDays, zone: ZoneInfo) -> datetime | None:
        """The earliest instant from which silence since the last heartbeat is an alarm; None: this cannot tell."""
        if self.late is None:
            return None
        if self.late.width == 0:
            return self._stopped(timedelta(minutes=self.late.threshold), since, closed, zone)
        if not clocks_may_have_changed(since, zone):
            return _runs_out(self.late, since, closed, zone)
        # Nobody told us the zone: whoever keeps these loads' clock may have moved it by an hour, either way.
        ends = [
            (end - shift) if (end := _runs_out(self.late, since + shift, closed, zone)) else None
            for shift in (timedelta(), FORGIVEN, -FORGIVEN)
        ]
        known = [end for end in ends if end is not None]
        return max(known) if len(known) == len(ends) else None

    def _stopped(self, after: timedelta, since: datetime, closed: ClosedDays, zone: ZoneInfo) -> datetime:
        """On a night of 25 hours a schedule may run by the wall clock, or by the true one; wait for the later."""
        if clocks_may_have_changed(since, zone) and (since + after).weekday() >= WORKDAYS:
            after += FORGIVEN
        on_the_wall = (since.astimezone(zone).replace(tzinfo=None) + after).replace(tzinfo=zone)
        return max(closed.add_open(since, after, zone), on_the_wall.astimezone(timezone.utc))

    # -- how surprising a load is -------------------------------------------------------------------------------------

    def zero_surprise(self, at: datetime) -> float:
        """How surprising it is that a load at this time brings no rows."""
        if self.flat is None:
            return 0.0
        zone = ZoneInfo(self.zone)
        minute = wall_minute(at, zone)
        if clocks_may_have_changed(at, zone):
            return min(self.flat.weight_at(minute + shift) for shift in (-HOUR, 0, HOUR))
        return self.flat.weight_at(minute)

    def same_surprise(self, at: datetime, rows: int) -> float:
        """How surprising it is that a load brings as many rows as the one before it."""
        return self.same[min(size_of(rows), len(self.same) - 1)] if self.same else 0.0

    # -- for people ---------------------------------------------------------------------------------------------------

    def band(self, at: datetime, zone: ZoneInfo) -> tuple[int, int] | None:
        """Between how many rows and how many a load at this hour of the week usually has."""
        return band_at(self.bands, wall_minute(at, zone))

    def explain_silence(self, now: datetime, zone: ZoneInfo) -> str:
        """A sentence on how usual it is that something comes about now."""
        if self.late is None or self.late.width == 0:
            return explaining.how_often_it_reports(self.usual_gap)
        return explaining.how_often_a_load_came(self.late, wall_minute(now, zone))

    def explain_zeros(self, now: datetime, zone: ZoneInfo) -> str:
        """A sentence on how usual it is that a load about now has rows."""
        return explaining.how_often_a_load_had_rows(self.flat, wall_minute(now, zone)) if self.flat is not None else ""

    def explain_stuck(self, rows: int) -> str:
        """A sentence on how usual it is that a load repeats this number."""
        return explaining.how_often_a_number_repeats(self.same_surprise(self.learned_at, rows))

    # -- written down -------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        told = {
            "version": VERSION,
            "learned": int(self.learned_at.timestamp()),
            "gap": self.usual_gap.total_seconds(),
            "zone": self.zone,
            "late": self.late and self.late.to_json(),
            "flat": self.flat and self.flat.to_json(),
            "same": [round(weight, 3) for weight in self.same],
            "stuck": finite(self.stuck_threshold),
            "grace": self.grace and self.grace.total_seconds(),
            "bands": self.bands,
        }
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Habit | None:
        """None if it cannot be read; a source without a habit has its fallback, one that cannot be read has nothing."""
        try:
            told = json.loads(text)
            return cls._from_json(told) if told["version"] == VERSION else None
        except (ValueError, LookupError, TypeError, ArithmeticError):
            # Another version's, cut short, or edited by hand.
            return None

    @classmethod
    def _from_json(cls, told: dict[str, Any]) -> Habit:
        return cls(
            learned_at=datetime.fromtimestamp(told["learned"], timezone.utc),
            usual_gap=timedelta(seconds=told["gap"]),
            zone=told["zone"],
            late=told["late"] and Clock.from_json(told["late"]),
            flat=told["flat"] and Clock.from_json(told["flat"]),
            same=tuple(told["same"]),
            stuck_threshold=math.inf if told["stuck"] is None else told["stuck"],
            grace=None if told["grace"] is None else timedelta(seconds=told["grace"]),
            bands=told["bands"],
        )


def _runs_out(clock: Clock, since: datetime, closed: ClosedDays, zone: ZoneInfo) -> datetime | None:
    minute = clock.runs_out(wall_minute(since, zone), closed)
    if minute is None:
        return None
    at = instant_of(minute, zone)
    # When the clocks go back an hour comes twice, and after the second one its end lies in the second one too.
    return at if at > since else instant_of(minute, zone, fold=1)
