"""Is the source speaking? "It ran and moved nothing" and "it did not run" are different findings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.errors import ConfigurationError


@dataclass(frozen=True)
class SqlCount:
    """A count the detector runs itself, at the destination, through a common-sql connection.

    ``sql`` is a Jinja template with ``since`` and ``until`` (aware UTC datetimes) that selects one number.
    """

    conn_id: str
    sql: str


@dataclass(frozen=True)
class Source:
    """Who sends data, and when it should have arrived."""

    name: str
    window: timedelta
    """Within any stretch of this length at least one row is expected."""
    credential: str | None = None
    """The connection id of the credential that feeds it; named as a likely cause."""
    count: SqlCount | None = None
    alert_route: str = ""


@dataclass(frozen=True)
class Measure:
    """What was heard from a source, as of ``now``."""

    registered_at: datetime
    last_beat_at: datetime | None = None
    last_rows_at: datetime | None = None
    """The last heartbeat that carried rows."""
    last_zero_at: datetime | None = None
    """The last heartbeat that said zero; one that says nothing of rows is neither."""
    counted: int | None = None
    """Rows the destination holds for the window, where it was asked."""
    problem: str = ""
    """Why the destination could not be counted. Never read as zero and never as fine."""


@dataclass(frozen=True)
class SourceFinding:
    """What a measure says: ``kind`` None means rows arrived, or the window has not closed yet."""

    kind: IncidentKind | None
    explanation: str
    since: datetime
    """When it became true."""


def judge(source: Source, heard: Measure, now: datetime) -> SourceFinding:
    """Compare what was heard with the window."""
    opens_at = now - source.window
    if heard.problem or (source.count is not None and heard.counted is None):
        why = heard.problem or "nobody did"
        return SourceFinding(IncidentKind.UNMEASURED, f"The destination could not be counted: {why}", now)
    if heard.counted:
        return SourceFinding(None, f"{heard.counted} rows at the destination within {words(source.window)}", now)
    if source.count is None and heard.last_rows_at is not None and heard.last_rows_at >= opens_at:
        return SourceFinding(None, f"rows arrived {words(now - heard.last_rows_at)} ago", now)
    if heard.registered_at > opens_at and heard.last_rows_at is None:
        return SourceFinding(None, f"watched for {words(now - heard.registered_at)}; the window is still open", now)
    return _silent(source, heard, now)


def _silent(source: Source, heard: Measure, now: datetime) -> SourceFinding:
    window, opens_at = words(source.window), now - source.window
    if heard.last_beat_at is None or heard.last_beat_at < opens_at:
        heard_last = heard.last_beat_at or heard.registered_at
        last = f"the last was at {heard_last:%Y-%m-%d %H:%M:%S}Z" if heard.last_beat_at else "none was ever heard"
        return SourceFinding(IncidentKind.LATE, f"No run reported within {window}; {last}.", heard_last + source.window)
    since = (heard.last_rows_at or heard.registered_at) + source.window
    if source.count is not None:
        return SourceFinding(
            IncidentKind.FLAT, f"It ran, and the destination holds 0 new rows for {window}.", min(since, now)
        )
    if heard.last_zero_at is None or heard.last_zero_at < opens_at:
        return SourceFinding(
            IncidentKind.UNMEASURED, f"It ran, but no run within {window} said how many rows it moved.", since
        )
    return SourceFinding(IncidentKind.FLAT, f"It ran and moved 0 rows, every time for {window}.", since)


LONGEST_WINDOW = timedelta(days=366).total_seconds()

_KEYS = frozenset({"name", "window_seconds", "credential", "count", "alert_route"})


def sources_from_json(text: str) -> list[Source]:
    """Read sources as a JSON list of objects with ``name``, ``window_seconds`` and optionally ``credential``,
    ``count: {conn_id, sql}`` and ``alert_route``.

    Raises:
        ConfigurationError: Naming the entry and the key that is wrong.
    """
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"The sources are not JSON: {error}") from error
    if not isinstance(entries, list):
        raise ConfigurationError(f"The sources are a JSON {type(entries).__name__}; write a list of objects.")
    sources = [_source(entry, position) for position, entry in enumerate(entries, start=1)]
    require_distinct(sources)
    return sources


def require_distinct(sources: Sequence[Source]) -> None:
    """Raises:
    ConfigurationError: If two sources share a name.
    """
    names = [source.name for source in sources]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigurationError(f"Source {', '.join(f'`{name}`' for name in sorted(twice))} is declared twice.")


def _source(entry: Any, position: int) -> Source:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"Source {position} is {entry!r}; write an object with `name` and `window_seconds`.")
    where = f"Source {position} (`{entry.get('name', 'no name')}`)"
    if unknown := entry.keys() - _KEYS:
        raise ConfigurationError(f"{where}: unknown key `{min(unknown)}`; known are {', '.join(sorted(_KEYS))}.")
    name, window = entry.get("name"), entry.get("window_seconds")
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{where}: `name` is missing.")
    if isinstance(window, bool) or not isinstance(window, (int, float)) or not 0 < window <= LONGEST_WINDOW:
        raise ConfigurationError(f"{where}: `window_seconds` is {window!r}; write seconds above 0, a year at most.")
    for key in ("credential", "alert_route"):
        if not isinstance(entry.get(key) or "", str):
            raise ConfigurationError(f"{where}: `{key}` is {entry[key]!r}; write text.")
    count = entry.get("count")
    if count is not None and (
        not isinstance(count, Mapping)
        or count.keys() != {"conn_id", "sql"}
        or not all(isinstance(value, str) and value for value in count.values())
    ):
        raise ConfigurationError(f"{where}: `count` needs exactly `conn_id` and `sql`, both text.")
    return Source(
        name=name,
        window=timedelta(seconds=window),
        credential=entry.get("credential") or None,
        count=SqlCount(**count) if count else None,
        alert_route=entry.get("alert_route") or "",
    )
