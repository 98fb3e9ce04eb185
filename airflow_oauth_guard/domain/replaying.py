"""How would this window have behaved on my history? The same code as in service, on the past, hour by hour."""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import chain
from typing import TextIO

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.flat_line import SourceFinding, State, hear, is_over, judge, outlook
from airflow_oauth_guard.domain.habits import HISTORY, Habit, learn
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Cron, Learned
from airflow_oauth_guard.errors import ConfigurationError

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Episode:
    """One alarm as it would have been."""

    source: str
    kind: IncidentKind
    opened: datetime
    """When the check that raised it would have run."""
    resolved: datetime | None
    explanation: str


def replay(
    source: Source, beats: Sequence[Beat], *, until: datetime | None = None, step: timedelta = HOUR
) -> list[Episode]:
    """Go through a history with a check every ``step``, each knowing only what was heard before it.

    What the source would measure itself is left out: a history has heartbeats, and they are believed.

    Args:
        beats: In order of time.
        until: When the history ends; the last heartbeat by default. A silence before it is seen, one after it is not.
    """
    heartbeats_alone = replace(source, measure=None)
    return list(_Replay(heartbeats_alone, step).run(beats, until or beats[-1].at)) if beats else []


@dataclass
class _Replay:
    source: Source
    step: timedelta
    habit: Habit | None = None
    heard: list[Beat] = field(default_factory=list)
    masked: list[tuple[datetime, datetime]] = field(default_factory=list)

    def run(self, beats: Sequence[Beat], ends: datetime) -> Iterator[Episode]:
        state, now = State(registered_at=beats[0].at), self._floor(beats[0].at)
        next_lesson = now + DAY if self.source.learns else ends
        alarm: Episode | None = None
        first = last = SourceFinding(None, "", now)
        while now < ends:
            # Between heartbeats, lessons and alarms that fall due nothing changes, so those checks need not be made.
            due = None if alarm else outlook(self.source, self.habit, state).alarm_at
            beat_at = beats[len(self.heard)].at if len(self.heard) < len(beats) else None
            now = max(self._ceil(min(at for at in (next_lesson, ends, due, beat_at) if at)), now + self.step)
            while len(self.heard) < len(beats) and beats[len(self.heard)].at <= now:
                state = hear(self.source, self.habit, state, beats[len(self.heard)])
                self.heard.append(beats[len(self.heard)])
            if self.source.learns and now >= next_lesson:
                self._learn(now, [*self.masked, (first.since, now)] if alarm else self.masked)
                next_lesson += DAY * (1 + (now - next_lesson) // DAY)
            finding = judge(self.source, self.habit, state, now)
            if finding.kind is not None:
                last = finding
                if alarm is None:
                    alarm, first = Episode(self.source.name, finding.kind, now, None, finding.explanation), finding
            elif alarm is not None and last.kind is not None and is_over(last.kind, last.since, state):
                yield replace(alarm, resolved=now)
                self.masked.append((first.since, now))
                alarm = None
        if alarm is not None:
            yield alarm

    def _learn(self, now: datetime, masked: Sequence[tuple[datetime, datetime]]) -> None:
        window = self.source.window
        assert isinstance(window, (Learned, Cron))
        self.habit = learn(
            self.heard[bisect_left(self.heard, now - HISTORY, key=lambda beat: beat.at) :],
            now,
            zone=self.source.zone,
            closed=self.source.closed,
            budget=window.budget,
            masked=masked,
            schedule=window if isinstance(window, Cron) else None,
        )

    def _floor(self, at: datetime) -> datetime:
        return at - (at - _EPOCH) % self.step

    def _ceil(self, at: datetime) -> datetime:
        floor = self._floor(at)
        return floor if floor == at else floor + self.step


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read_history(file: TextIO) -> dict[str, list[Beat]]:
    """Read heartbeats from CSV with the columns ``source``, ``time`` (ISO 8601, UTC or with its offset) and ``rows``.

    Empty ``rows`` mean that nobody knows. Rows may come in any order.

    Raises:
        ConfigurationError: Naming the line and what is wrong with it.
    """
    lines = iter(file)
    # Spreadsheets begin a file with a byte order mark.
    header = next(lines, "").removeprefix("\ufeff")
    table = csv.DictReader(chain([header], lines), skipinitialspace=True)
    if missing := {"source", "time", "rows"} - set(table.fieldnames or ()):
        raise ConfigurationError(f"The history has no column `{min(missing)}`; it needs source, time and rows.")
    histories: dict[str, list[Beat]] = {}
    for row in table:
        where = f"Line {table.line_num} of the history"
        if not row["source"]:
            raise ConfigurationError(f"{where} names no source.")
        beat = Beat(_instant(row["time"] or "", where), _count(row["rows"] or "", where))
        histories.setdefault(row["source"], []).append(beat)
    return {name: sorted(beats, key=lambda beat: beat.at) for name, beats in histories.items()}


def _instant(text: str, where: str) -> datetime:
    try:
        # Python reads the Z itself from 3.11 on.
        at = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise ConfigurationError(f"{where}: `time` is {text!r}; write 2026-03-14T09:00:00Z.") from error
    return at.astimezone(timezone.utc) if at.tzinfo else at.replace(tzinfo=timezone.utc)


def _count(text: str, where: str) -> int | None:
    text = text.strip()
    # Whole numbers become 12.0 where a table had a gap in them.
    number, _, fraction = text.partition(".")
    if not text:
        return None
    if number.isdecimal() and not fraction.strip("0"):
        return int(number)
    raise ConfigurationError(
        f"{where}: `rows` is {text!r}; write a whole number, 0 or more, or nothing if nobody knows."
    )
