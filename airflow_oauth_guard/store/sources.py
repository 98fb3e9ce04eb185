"""Sources and their heartbeats."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.flat_line import Measure, Source, SqlCount
from airflow_oauth_guard.errors import ConfigurationError, NotRegisteredError
from airflow_oauth_guard.store import evidence as ledger
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.tables import heartbeats, sources


class Sources:
    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, declared: Sequence[Source], now: datetime) -> None:
        """Watch these sources from now on; known ones are brought up to date and keep their history."""
        with self._database.write() as connection:
            for source in declared:
                values = _columns(source)
                changed = connection.execute(update(sources).where(sources.c.name == source.name).values(**values))
                if changed.rowcount == 0:
                    _insert_if_new(connection, {"name": source.name, "registered_at": now, **values})

    def registered(self) -> list[Source]:
        """Every source that is expected to speak."""
        with self._database.read() as connection:
            rows = connection.execute(select(sources).order_by(sources.c.name)).mappings()
            return [_source(row) for row in rows]

    def beat(self, source: str, rows: int | None, at: datetime, observer: Observer) -> None:
        """Keep a heartbeat, once per task instance and try.

        Raises:
            ConfigurationError: If ``rows`` is negative.
            NotRegisteredError: If nobody watches the source. The heartbeat is kept all the same.
        """
        if rows is not None and rows < 0:
            raise ConfigurationError(f"Source `{source}`: a heartbeat says {rows} rows; rows are 0 or more, or None.")
        values = {"source": source, "row_count": rows, "at": at, **ledger.observed_by(observer)}
        with self._database.write() as connection:
            _insert_once(connection, {**values, "beat_key": _beat_key(source, at, observer)})
            known = connection.execute(select(sources.c.name).where(sources.c.name == source)).first()
            names = connection.execute(select(sources.c.name).order_by(sources.c.name).limit(20)).scalars().all()
        if known is None:
            raise NotRegisteredError(
                f"Source `{source}` is not registered, so nobody would notice its silence. The heartbeat is kept. "
                f"Add it to the Airflow Variable `oauth_guard_sources`, or to the sources given to watch_sources(). "
                f"Registered: {', '.join(names) or 'none yet'}."
            )

    def heard(self, source: Source) -> Measure:
        """What the heartbeats say; the destination is counted by the detector."""
        with self._database.read() as connection:
            registered_at = connection.execute(
                select(sources.c.registered_at).where(sources.c.name == source.name)
            ).scalar_one()
            last = [
                connection.execute(
                    select(func.max(heartbeats.c.at)).where(heartbeats.c.source == source.name, condition)
                ).scalar_one()
                for condition in (
                    heartbeats.c.at.is_not(None),
                    heartbeats.c.row_count > 0,
                    heartbeats.c.row_count == 0,
                )
            ]
        return Measure(registered_at, *last)


def _insert_if_new(connection: Connection, values: dict[str, Any]) -> None:
    """MySQL reports no changed row for an update that changes nothing, so the row may be there."""
    if connection.execute(select(sources.c.name).where(sources.c.name == values["name"])).first():
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(sources).values(**values))
    except IntegrityError:
        # Another pass registered it in between, with the same declaration or one a moment older.
        if not connection.execute(select(sources.c.name).where(sources.c.name == values["name"])).first():
            raise


def _beat_key(source: str, at: datetime, observer: Observer) -> str:
    if observer.dag_id is None:
        parts: tuple[object, ...] = (source, at.isoformat())
    else:
        parts = (source, observer.dag_id, observer.run_id, observer.task_id, observer.map_index, observer.try_number)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _insert_once(connection: Connection, values: dict[str, Any]) -> None:
    written = select(heartbeats.c.id).where(heartbeats.c.beat_key == values["beat_key"])
    if connection.execute(written).first():
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(heartbeats).values(**values))
    except IntegrityError:
        # The same try has written it in between; anything else is an error.
        if not connection.execute(written).first():
            raise


def _columns(source: Source) -> dict[str, Any]:
    return {
        "window_seconds": source.window.total_seconds(),
        "credential": source.credential,
        "count_conn_id": source.count.conn_id if source.count else None,
        "count_sql": source.count.sql if source.count else None,
        "alert_route": source.alert_route,
    }


def _source(row: RowMapping) -> Source:
    return Source(
        name=row["name"],
        window=timedelta(seconds=row["window_seconds"]),
        credential=row["credential"],
        count=SqlCount(row["count_conn_id"], row["count_sql"]) if row["count_sql"] else None,
        alert_route=row["alert_route"],
    )
