"""When the DAG that feeds a source runs: where that is known, a learned window has only the grace left to learn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Cron, Learned


@dataclass(frozen=True)
class Schedule:
    """The cron of a DAG, in the time zone it is read in."""

    expressions: tuple[str, ...]
    timezone: str

    def __str__(self) -> str:
        return f"`{'`, `'.join(self.expressions)}` ({self.timezone})"


def on_schedule(source: Source, schedule: Schedule | None) -> Source:
    """The source as it is watched while a DAG with this schedule feeds it. A window that somebody chose stays."""
    if schedule is None or not isinstance(source.window, Learned):
        return source
    if source.closed and source.timezone != schedule.timezone:
        # Its closed days are days of its own time zone, and a cron is read in that of its DAG.
        return source
    # Nobody knows yet how long its runs take: what was to be the window until then is the grace until then.
    cron = Cron(schedule.expressions, budget=source.window.budget, first_grace=source.window.fallback)
    if not cron.comes(source.zone, source.closed):
        # A DAG that runs on closed days only says nothing about the open ones.
        return source
    return replace(source, window=cron, timezone=schedule.timezone)
