"""Lessons: what a source's history teaches, without what was out of the ordinary."""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_oauth_guard.domain.habits import HISTORY, learn
from airflow_oauth_guard.domain.windows import Cron, Learned
from airflow_oauth_guard.store.sources import Watched

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store

A_DAY = timedelta(days=1)


def lesson(store: Store, watched: Watched, now: datetime) -> None:
    """Learn one source's window from its history, without what was out of the ordinary."""
    source = watched.source
    assert isinstance(source.window, (Cron, Learned))
    masked = [(start, end or now) for start, end in store.incidents.quiet_stretches(source.name, now - HISTORY)]
    if watched.mute is not None:
        masked.append((watched.mute.since, min(watched.mute.until, now)))
    habit = learn(
        store.sources.history(source.name, now),
        now,
        zone=source.zone,
        closed=source.closed,
        budget=source.window.budget,
        masked=sorted(masked),
        schedule=source.window if isinstance(source.window, Cron) else None,
    )
    store.sources.learned(source.name, habit, now, next_lesson(source.name, now))


def next_lesson(name: str, now: datetime) -> datetime:
    """Tomorrow, at a time of day that is the source's own."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + A_DAY * (zlib.crc32(name.encode()) % 1440 / 1440)
    while at < now + A_DAY / 2:
        at += A_DAY
    return at
