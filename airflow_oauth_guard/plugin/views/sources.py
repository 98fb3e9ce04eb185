"""Sources: when each should speak, what it said, and how long it has been quiet."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel

from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.flat_line import Standing, loads_missed, outlook, patience
from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.plugin.views.credentials import CredentialView, credential_view
from airflow_oauth_guard.plugin.views.incidents import IncidentView, incident_view

if TYPE_CHECKING:
    from airflow_oauth_guard.store.sources import Watched
    from airflow_oauth_guard.store.store import Store

CHARTED = 200
"""Heartbeats in a chart; more would be a grey block."""


class SourceView(BaseModel):
    """One source with what is known of it."""

    name: str
    standing: str
    """What the last look has found; ``suspected`` where that is nothing yet and its load is overdue."""
    window: str
    """In words."""
    learning: str | None
    """What a window that is still being learned does meanwhile; null where it is not."""
    adopted: bool
    """True where nobody declared it: it is watched since its first heartbeat."""
    pings: bool
    """True where its heartbeats carry no row count, so that only silence is watched."""
    registered_at: datetime
    last_heard_at: datetime | None
    rows: int | None
    """Of its last load."""
    last_rows_at: datetime | None
    gap_seconds: int
    """Since its last load with rows."""
    expected_at: datetime | None
    alarm_at: datetime | None
    """When its silence becomes an alarm, if nothing more is heard."""
    muted_until: datetime | None
    muted_by: str | None
    mute_reason: str | None
    credential: str | None
    dag_id: str | None
    """The DAG that spoke last."""
    note: str | None
    """What its last run said beside the number."""
    skips: int
    """Runs since the last one that were skipped, and so were none."""


def source_view(watched: Watched, now: datetime) -> SourceView:
    source, state = watched.source, watched.state
    muted = watched.mute if watched.is_muted(now) else None
    return SourceView(
        name=source.name,
        standing=standing(watched, now),
        window=window_words(watched),
        learning=learning(watched) or None,
        adopted=watched.adopted,
        pings=source.pings,
        registered_at=state.registered_at,
        last_heard_at=state.last_beat_at or state.measured_at,
        rows=state.last_rows,
        last_rows_at=state.last_rows_at,
        gap_seconds=int((now - (state.last_rows_at or state.registered_at)).total_seconds()),
        expected_at=watched.expected_at,
        alarm_at=outlook(source, watched.habit, state).alarm_at,
        muted_until=muted.until if muted else None,
        muted_by=muted.by if muted else None,
        mute_reason=muted.reason if muted else None,
        credential=source.credential,
        dag_id=watched.fed_by.dag_id,
        note=state.note or None,
        skips=state.skips,
    )


def standing(watched: Watched, now: datetime) -> str:
    """What the last look has found; ``suspected`` where that is nothing yet and its load is overdue."""
    view = outlook(watched.source, watched.habit, watched.state)
    heard_at = watched.state.last_beat_at or watched.state.registered_at
    suspected = watched.standing is Standing.FINE and not watched.is_muted(now) and view.suspects(heard_at, now)
    return "suspected" if suspected else watched.standing.value


def window_words(watched: Watched) -> str:
    """When a source should speak, in words."""
    window = watched.source.window
    if isinstance(window, timedelta):
        return words(window)
    if isinstance(window, Learned):
        return "learned"
    grace = "learned grace" if window.grace is None else words(window.grace)
    return f"`{'`, `'.join(window.expressions)}` ({watched.source.timezone}) + {grace}"


def learning(watched: Watched) -> str:
    """What a window that is still being learned does meanwhile; empty where there is nothing to learn, or enough is known."""
    window = watched.source.window
    if watched.habit is not None or isinstance(window, timedelta):
        return ""
    if isinstance(window, Learned):
        return f"learning: alarms after {words(patience(window, watched.state))}"
    return f"learning: alarms {words(window.first_grace)} after its time" if window.grace is None else ""


class SourcesView(BaseModel):
    """One page of sources, the quiet ones first."""

    total: int
    offset: int
    limit: int
    sources: list[SourceView]


def sources_view(
    store: Store, now: datetime, *, search: str, standing: Standing | None, limit: int, offset: int
) -> SourcesView:
    found, total = store.sources.page(search, standing, limit, offset)
    return SourcesView(
        total=total, offset=offset, limit=limit, sources=[source_view(watched, now) for watched in found]
    )


class BeatView(BaseModel):
    """One heartbeat, and how many rows a load at its hour of the week usually has."""

    at: datetime
    rows: int | None
    """Null: nobody knows, which is not zero."""
    usual: tuple[int, int] | None
    """The 10th and the 90th percentile, where that is learned."""
    note: str | None = None
    """What the run said beside the number."""


class SourcePageView(BaseModel):
    """Everything about one source."""

    source: SourceView
    beats: list[BeatView]
    """The latest, oldest first."""
    incident: IncidentView | None
    missed: int | None
    """About how many loads are missing so far; null where nothing is open, or nobody knows how often it loads."""
    past: list[IncidentView]
    """What is over, the newest first."""
    credential: CredentialView | None
    """The one that feeds it, if it is guarded."""


def source_page(store: Store, name: str, now: datetime) -> SourcePageView:
    """Raises:
    NotRegisteredError: If nobody watches it.
    """
    watched = store.sources.get(name)
    history = store.incidents.history(About.SOURCE, name)
    current = next((one for one in history if one.resolved_at is None), None)
    return SourcePageView(
        source=source_view(watched, now),
        beats=_beats(store, watched),
        incident=incident_view(current) if current else None,
        missed=missed_so_far(watched, now) if current else None,
        past=[incident_view(one) for one in reversed(history) if one.resolved_at is not None],
        credential=_credential(store, watched.source.credential, now),
    )


def missed_so_far(watched: Watched, now: datetime) -> int | None:
    """About how many loads should have come since the last one with rows; None where nobody knows how often it loads."""
    since = watched.state.last_rows_at or watched.state.registered_at
    return loads_missed(watched.source, watched.habit, since, now)


def _beats(store: Store, watched: Watched) -> list[BeatView]:
    habit, zone = watched.habit, watched.source.zone
    return [
        BeatView(at=beat.at, rows=beat.rows, usual=habit.band(beat.at, zone) if habit else None, note=beat.note or None)
        for beat in store.sources.recent(watched.source.name, CHARTED)
    ]


def _credential(store: Store, conn_id: str | None, now: datetime) -> CredentialView | None:
    listed = store.roster.find(conn_id, now) if conn_id else None
    return credential_view(listed) if listed else None
