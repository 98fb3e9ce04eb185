"""Who sends data, when it is expected, and how to tell that it came."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from airflow_oauth_guard.domain.calendar import ClosedDays, closed_days, closed_days_as_json, zone_named
from airflow_oauth_guard.domain.windows import Cron, Learned, Window, read_window, window_as_json
from airflow_oauth_guard.errors import ConfigurationError


@dataclass(frozen=True)
class SqlCount:
    """Rows that the detector counts itself, at the destination, through a common-sql connection.

    ``sql`` is a Jinja template with ``since`` and ``until`` (aware UTC datetimes) that selects one number.
    """

    conn_id: str
    sql: str


@dataclass(frozen=True)
class SqlNewest:
    """The time of the newest row at the destination, as ``SELECT max(loaded_at) ...`` gives it.

    ``sql`` is a Jinja template like that of :class:`SqlCount` and selects one instant; a naive one is taken as UTC.
    """

    conn_id: str
    sql: str


@dataclass(frozen=True)
class AssetEvents:
    """Updates of an Airflow asset; each is a heartbeat, with the rows its ``extra`` names under ``rows``."""

    name: str


Measure = SqlCount | SqlNewest | AssetEvents


@dataclass(frozen=True)
class Source:
    """Who sends data, and when it should have arrived."""

    name: str
    window: Window
    credential: str | None = None
    """The connection id of the credential that feeds it; named as a likely cause."""
    measure: Measure | None = None
    """What the detector asks itself; None: heartbeats are all there is."""
    alert_route: str = ""
    timezone: str = "UTC"
    """In which its days, its hours and its schedule are meant."""
    closed: ClosedDays = field(default_factory=ClosedDays)
    stuck_after: int | None = None
    """So many loads of one and the same number are an alarm. None: learned windows learn it, others do not judge it."""
    pings: bool = False
    """True where heartbeats carry no row count, so that only silence is watched."""
    urgent: bool = False
    """True for one whose alerts do not wait for the end of quiet hours."""

    @property
    def zone(self) -> ZoneInfo:
        return zone_named(self.timezone, f"Source `{self.name}`")

    @property
    def learns(self) -> bool:
        """Whether its own history says when it is expected, be it only how long after its schedule."""
        return isinstance(self.window, Learned) or (isinstance(self.window, Cron) and self.window.grace is None)

    @property
    def asks_the_destination(self) -> bool:
        return isinstance(self.measure, (SqlCount, SqlNewest))


def speaks_for(source: Source, asset: str) -> bool:
    """Whether an update of this asset is a heartbeat of the source: it measures that, or has the asset's name."""
    if isinstance(source.measure, AssetEvents):
        return source.measure.name == asset
    return source.name == asset


_MEASURES: Mapping[str, type[SqlCount | SqlNewest]] = {"count": SqlCount, "newest": SqlNewest}

_KEYS = frozenset(
    {
        *("name", "window_seconds", "cron", "grace_seconds", "learned", "budget"),
        *("credential", "count", "newest", "asset", "alert_route", "timezone", "closed"),
        *("stuck_after", "pings", "urgent"),
    }
)


def sources_from_json(text: str) -> list[Source]:
    """Read sources as a JSON list of objects, or as ``{"calendars": {name: closed days}, "sources": [...]}``.

    Each has a ``name`` and a window: ``window_seconds``, or ``cron`` with ``grace_seconds``, or ``learned``. Optional are
    ``credential``, one of ``count``, ``newest`` (``{conn_id, sql}``) and ``asset`` (its name), ``alert_route``,
    ``timezone``, ``closed`` (closed days, or the name of a calendar), ``stuck_after``, ``pings`` and ``urgent``.

    Raises:
        ConfigurationError: Naming the entry and the key that is wrong.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"The sources are not JSON: {error}") from error
    entries: Any = given
    calendars: Any = {}
    if isinstance(given, Mapping) and "sources" in given:
        calendars, entries = given.get("calendars") or {}, given["sources"]
        if not isinstance(calendars, Mapping) or given.keys() - {"calendars", "sources"}:
            raise ConfigurationError("The sources' object has `calendars` by name and `sources`, and nothing else.")
        calendars = {name: closed_days(days, f"Calendar `{name}`") for name, days in calendars.items()}
    if not isinstance(entries, list):
        raise ConfigurationError(f"The sources are a JSON {type(entries).__name__}; write a list of objects.")
    sources = [read_source(entry, position, calendars) for position, entry in enumerate(entries, start=1)]
    require_distinct(sources)
    return sources


def require_distinct(sources: Sequence[Source]) -> None:
    """Raises:
    ConfigurationError: If two sources share a name.
    """
    if twice := [name for name, times in Counter(source.name for source in sources).items() if times > 1]:
        raise ConfigurationError(f"Source {', '.join(f'`{name}`' for name in sorted(twice))} is declared twice.")


def source_as_json(source: Source) -> dict[str, Any]:
    """What :func:`read_source` reads; what is as by default is left out."""
    measured: dict[str, Any] = {}
    if isinstance(source.measure, AssetEvents):
        measured = {"asset": source.measure.name}
    elif source.measure is not None:
        key = "count" if isinstance(source.measure, SqlCount) else "newest"
        measured = {key: {"conn_id": source.measure.conn_id, "sql": source.measure.sql}}
    optional = {
        "credential": source.credential,
        "alert_route": source.alert_route,
        "timezone": "" if source.timezone == "UTC" else source.timezone,
        "closed": closed_days_as_json(source.closed) if source.closed else None,
        "stuck_after": source.stuck_after,
        "pings": source.pings,
        "urgent": source.urgent,
    }
    given = {key: value for key, value in optional.items() if value}
    return {"name": source.name, **window_as_json(source.window), **measured, **given}


def read_source(entry: Any, position: int = 1, calendars: Mapping[str, ClosedDays] | None = None) -> Source:
    """Read one source.

    Raises:
        ConfigurationError: Naming the key that is wrong.
    """
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"Source {position} is {entry!r}; write an object with `name` and a window.")
    where = f"Source {position} (`{entry.get('name', 'no name')}`)"
    if unknown := entry.keys() - _KEYS:
        raise ConfigurationError(f"{where}: unknown key `{min(unknown)}`; known are {', '.join(sorted(_KEYS))}.")
    name = entry.get("name")
    if not isinstance(name, str) or not name or len(name) > LONGEST_NAME:
        raise ConfigurationError(f"{where}: `name` is missing, or longer than {LONGEST_NAME} characters.")
    source = Source(
        name=name,
        window=read_window(entry, where),
        credential=_text(entry, "credential", where) or None,
        measure=_measure(entry, where),
        alert_route=_text(entry, "alert_route", where),
        timezone=_text(entry, "timezone", where) or "UTC",
        closed=_closed(entry.get("closed"), calendars or {}, where),
        stuck_after=_stuck_after(entry.get("stuck_after"), where),
        pings=_flag(entry, "pings", where),
        urgent=_flag(entry, "urgent", where),
    )
    zone = zone_named(source.timezone, where)
    if isinstance(source.window, Cron) and not source.window.comes(zone, source.closed):
        raise ConfigurationError(f"{where}: `cron` comes on days only that `closed` closes.")
    if source.stuck_after and source.asks_the_destination:
        raise ConfigurationError(
            f"{where}: `stuck_after` counts loads, and who asks the destination does not see them."
        )
    return source


LONGEST_NAME = 250


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{where}: `{key}` is {value!r}; write text.")
    return value or ""


def _flag(entry: Mapping[str, Any], key: str, where: str) -> bool:
    value = entry.get(key, False)
    if not isinstance(value, bool):
        raise ConfigurationError(f"{where}: `{key}` is {value!r}; write true or false.")
    return value


def _stuck_after(given: Any, where: str) -> int | None:
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given >= 2):
        return given
    raise ConfigurationError(f"{where}: `stuck_after` is {given!r}; write a number of loads, 2 or more.")


def _measure(entry: Mapping[str, Any], where: str) -> Measure | None:
    named = [key for key in ("count", "newest", "asset") if entry.get(key) is not None]
    if len(named) > 1:
        raise ConfigurationError(f"{where}: `{named[0]}` and `{named[1]}` are two measures; write one.")
    if not named:
        return None
    if named == ["asset"]:
        if not (name := _text(entry, "asset", where)):
            raise ConfigurationError(f"{where}: `asset` is empty; write the asset's name.")
        return AssetEvents(name)
    asked = entry[named[0]]
    if (
        not isinstance(asked, Mapping)
        or asked.keys() != {"conn_id", "sql"}
        or not all(isinstance(value, str) and value for value in asked.values())
    ):
        raise ConfigurationError(f"{where}: `{named[0]}` needs exactly `conn_id` and `sql`, both text.")
    return _MEASURES[named[0]](**asked)


def _closed(given: Any, calendars: Mapping[str, ClosedDays], where: str) -> ClosedDays:
    if given is None:
        return ClosedDays()
    if not isinstance(given, str):
        return closed_days(given, where)
    if given not in calendars:
        known = ", ".join(f"`{name}`" for name in sorted(calendars)) or "none"
        raise ConfigurationError(f"{where}: there is no calendar `{given}`; declared are {known}.")
    return calendars[given]
