"""Sources: who is watched, what was heard of them, and when each has to be looked at.

A heartbeat's row in the ledger and what is known of its source are written in one transaction, so a pass reads what is due
and nothing else, however long the history is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    RowMapping,
    Select,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError

from airflow_oauth_guard.domain.beats import SKIPPED, Beat
from airflow_oauth_guard.domain.clock import aware
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.feeding import Schedule, on_schedule
from airflow_oauth_guard.domain.flat_line import Standing, State, answered, hear, outlook, unmeasured
from airflow_oauth_guard.domain.habits import ENOUGH_LOADS, HISTORY, RECENT, Habit
from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.sources import (
    LONGEST_NAME,
    AssetEvents,
    Source,
    read_source,
    require_distinct,
    source_as_json,
    sources_from_json,
    speaks_for,
)
from airflow_oauth_guard.domain.speaking import note as kept_note
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.errors import ConfigurationError, NotRegisteredError
from airflow_oauth_guard.store import evidence as ledger
from airflow_oauth_guard.store.database import Database, repeated
from airflow_oauth_guard.store.tables import heartbeats, incidents, sources, watch

FIRST_LESSON = timedelta(days=1)
"""A new source's history is looked at daily from then on, whether there is enough of it or not."""

MUTED_FOR_LONG = timedelta(days=14)
"""A pause that lasts longer is looked at again: nobody would notice the source's silence."""

BATCH = 500
"""Sources that are declared in one transaction: heartbeats wait for it on SQLite, and new sources everywhere."""


SAME_RUN = timedelta(minutes=10)
"""A task's own word and the event of its asset lie no further apart: callbacks come between the two, and clocks differ."""


@dataclass(frozen=True)
class Mute:
    """A pause with an end. It is no part of what is heard: nothing that a source says ends it."""

    since: datetime
    until: datetime
    by: str
    reason: str


@dataclass(frozen=True)
class Watched:
    """A source, with all that is known of it."""

    source: Source
    state: State
    habit: Habit | None
    standing: Standing
    adopted: bool
    """True where nobody declared it: it is watched since its first heartbeat."""
    expected_at: datetime | None
    due_at: datetime | None
    mute: Mute | None
    fed_by: Observer
    """Who spoke last."""

    def is_muted(self, now: datetime) -> bool:
        return self.mute is not None and self.mute.since <= now < self.mute.until


@dataclass(frozen=True)
class Heard:
    """What became of a heartbeat."""

    adopted: bool
    """True where this very heartbeat made the source known."""
    new: bool
    """False where the same try had written it already."""


class Sources:
    def __init__(self, database: Database) -> None:
        self._database = database

    # -- who is watched -----------------------------------------------------------------------------------------------

    def register(self, declared: Sequence[Source] | str, now: datetime) -> int:
        """Watch these sources from now on; known ones are brought up to date and keep their history.

        A declaration that is the same as the last one costs a single look.

        Args:
            declared: The sources, or their JSON, which is read only when it has changed.

        Returns:
            How many sources are watched.

        Raises:
            ConfigurationError: If two share a name, or something is wrong with the JSON.
        """
        digest = _digest(declared)
        with self._database.read() as connection:
            known = connection.execute(_WATCH).one()
        if not declared or known.declared == digest:
            return int(known.sources)
        given = sources_from_json(declared) if isinstance(declared, str) else declared
        require_distinct(given)
        for start in range(0, len(given), BATCH):
            repeated(partial(self._declare, given[start : start + BATCH], now))
        with self._database.write() as connection:
            # Unless one was forgotten meanwhile, or somebody else declared others: then the next pass looks again.
            connection.execute(update(watch).where(watch.c.declared == known.declared).values(declared=digest))
        return self.count()

    def declare(self, source: Source, now: datetime) -> None:
        """Watch one source, as a job that speaks for it declares it."""
        repeated(partial(self._declare, [source], now))

    def introduce(self, source: Source, now: datetime) -> None:
        """Watch one source, unless somebody has declared it already, perhaps otherwise."""
        known = self.find(source.name)
        if known is None or known.adopted:
            self.declare(source, now)

    def _declare(self, declared: Sequence[Source], now: datetime) -> None:
        names = [_usable(source.name) for source in declared]
        with self._database.read() as connection:
            query = select(sources.c.name, sources.c.declaration).where(
                sources.c.name.in_(names), sources.c.adopted == 0
            )
            known = {row.name: row.declaration for row in connection.execute(query)}
        changed = [source for source in declared if known.get(source.name) != _declaration(source)]
        if not changed:
            return
        for source in changed:
            # One that could not be read back would hide all the others.
            read_source(source_as_json(source))
        with self._database.write() as connection:
            _hold_watch(connection)
            query = select(sources).where(sources.c.name.in_([source.name for source in changed])).with_for_update()
            rows = {row["name"]: row for row in connection.execute(query).mappings()}
            _add(connection, [_new(source, now) for source in changed if source.name not in rows])
            for source in changed:
                if (row := rows.get(source.name)) is not None:
                    _redeclare(connection, row, source, now)

    def forget(self, name: str) -> bool:
        """Watch a source no more; its heartbeats stay until they are purged. False if nobody watched it."""
        return repeated(partial(self._forget, name))

    def _forget(self, name: str) -> bool:
        with self._database.write() as connection:
            _hold_watch(connection)
            gone = connection.execute(delete(sources).where(sources.c.name == name)).rowcount
            # No declaration's digest, not even of one that is being registered: all are to be read again.
            connection.execute(update(watch).values(sources=watch.c.sources - gone, declared=uuid4().hex))
            return gone == 1

    def registered(self) -> list[Source]:
        """Every source that is expected to speak."""
        return [watched.source for watched in self.all()]

    def all(self) -> Iterator[Watched]:
        """Every source with what is known of it, by name."""
        last = ""
        while True:
            page = self._page(sources.c.name > last, sources.c.name, 1000)
            yield from page
            if len(page) < 1000:
                return
            last = page[-1].source.name

    def get(self, name: str) -> Watched:
        """Raises:
        NotRegisteredError: If nobody watches it.
        """
        with self._database.read() as connection:
            return _known(connection, name)

    def find(self, name: str) -> Watched | None:
        """A source, or None where nobody watches it."""
        with self._database.read() as connection:
            return _find(connection, name)

    def of_assets(self, names: Sequence[str]) -> dict[str, list[Watched]]:
        """By asset, the sources that its updates speak for: they measure its events, or are named like it."""
        measured = [sources.c.declaration.contains(f'"asset": {json.dumps(name)}', autoescape=True) for name in names]
        found = self._page(or_(sources.c.name.in_(names), *measured), sources.c.name, None)
        return {name: [watched for watched in found if speaks_for(watched.source, name)] for name in names}

    def count(self) -> int:
        """How many sources are watched."""
        with self._database.read() as connection:
            return int(connection.execute(select(watch.c.sources)).scalar_one())

    def counts(self) -> dict[Standing, int]:
        """How many sources the last looks found like this."""
        query = select(sources.c.standing, func.count()).group_by(sources.c.standing)
        with self._database.read() as connection:
            found = {standing: int(number) for standing, number in connection.execute(query)}
        return {standing: found.get(standing.value, 0) for standing in Standing}

    # -- what was heard -----------------------------------------------------------------------------------------------

    def beat(
        self,
        source: str,
        rows: int | None,
        at: datetime,
        observer: Observer,
        watermark: datetime | None = None,
        note: str = "",
    ) -> Heard:
        """Keep a heartbeat, once per task instance and try. A source that nobody declared is adopted.

        Args:
            note: What the run says beside the number; kept as one line, without what looks like a secret.

        Raises:
            ConfigurationError: If ``rows`` is negative, or the name is none.
        """
        beat = Beat(at, rows, watermark, note=kept_note(note))
        return self._keep(_usable(source), beat, observer, _beat_key(source, at, observer))

    def found(self, source: str, beat: Beat, observer: Observer, key: str = "") -> Heard:
        """Keep what the detector found out about a source itself; nothing if it was forgotten meanwhile.

        Args:
            key: Tells apart what was found, where it may be found again.
        """
        key = _hash("found", source, key or _in_utc(beat.at))
        return self._keep(source, beat, observer, key, adopt=False)

    def not_found(self, source: str, why: str, now: datetime) -> None:
        """Keep that the destination could not be asked. It is neither zero nor fine."""
        self._change(source, lambda state: unmeasured(state, why, now), now)

    def nothing_new(self, source: str, now: datetime) -> None:
        """Keep that it could be asked, and had nothing new to tell."""
        self._change(source, lambda state: answered(state, now), now)

    def _change(self, source: str, change: Callable[[State], State], now: datetime) -> None:
        with self._database.write() as connection:
            if (watched := _find(connection, source, lock=True)) is not None:
                _update(connection, replace(watched, state=change(watched.state)), now)

    def _keep(self, source: str, beat: Beat, observer: Observer, key: str, *, adopt: bool = True) -> Heard:
        if beat.rows is not None and beat.rows < 0:
            raise ConfigurationError(
                f"Source `{source}`: a heartbeat says {beat.rows} rows; rows are 0 or more, or None."
            )
        row = {
            "source": source,
            "row_count": beat.rows,
            "at": beat.at,
            "watermark": beat.watermark,
            "measured": int(beat.measured),
            "note": beat.note,
            "beat_key": key,
            **ledger.observed_by(observer),
        }
        try:
            return repeated(partial(self._write_down, source, beat, observer, row, adopt=adopt))
        except IntegrityError:
            # The same try has written it; anything else is an error.
            with self._database.read() as connection:
                if connection.execute(select(heartbeats.c.id).where(heartbeats.c.beat_key == key)).first() is None:
                    raise
            return Heard(adopted=False, new=False)

    def _write_down(self, source: str, beat: Beat, observer: Observer, row: dict[str, Any], *, adopt: bool) -> Heard:
        with self._database.write() as connection:
            watched, adopted = _find(connection, source, lock=True), False
            if watched is None and not adopt:
                return Heard(adopted=False, new=False)
            if watched is None:
                watched, adopted = _adopt(connection, source, beat)
            elif _was_heard_another_way(connection, watched.source, beat, observer):
                return Heard(adopted=False, new=False)
            connection.execute(_INSERT_HEARTBEAT, row)
            _hear(connection, watched, beat, observer)
            return Heard(adopted=adopted, new=True)

    def fed_on(self, name: str, schedule: Schedule | None, now: datetime) -> None:
        """Keep when the DAG that feeds a source runs, or that no cron says when. What is known already costs a single look."""
        known = self.find(name)
        if known is None or known.state.schedule == schedule:
            return
        with self._database.write() as connection:
            row = connection.execute(_LOCK_SOURCE, {"key": name}).mappings().one_or_none()
            if row is not None:
                state = replace(_state(row), schedule=schedule)
                _update(connection, replace(_watched(row), source=_source(row, state), state=state), now)

    def history(self, name: str, now: datetime) -> list[Beat]:
        """What a lesson learns from, in order of time: the recent weeks, or more of a source that rarely speaks."""
        query = _beats(name).where(heartbeats.c.at <= now).order_by(heartbeats.c.at.desc())
        with self._database.read() as connection:
            found = connection.execute(query.where(heartbeats.c.at >= now - RECENT)).all()
            if len(found) < ENOUGH_LOADS:
                found = connection.execute(query.where(heartbeats.c.at >= now - HISTORY).limit(ENOUGH_LOADS)).all()
        return _in_order(found)

    def recent(self, name: str, limit: int = 200, since: datetime | None = None) -> list[Beat]:
        """The last heartbeats, in order of time, whatever brought them."""
        query = _beats(name).order_by(heartbeats.c.at.desc(), heartbeats.c.id.desc()).limit(limit)
        if since is not None:
            query = query.where(heartbeats.c.at >= since)
        with self._database.read() as connection:
            return _in_order(connection.execute(query).all())

    def last_beats(self, name: str, since: datetime) -> list[datetime]:
        """When a source spoke since then, in order of time."""
        with self._database.read() as connection:
            query = select(heartbeats.c.at).where(heartbeats.c.source == name, heartbeats.c.at >= since)
            return list(connection.execute(query.order_by(heartbeats.c.at)).scalars())

    def last_rows_before(self, name: str, at: datetime) -> datetime | None:
        """When a source had brought rows last by then."""
        query = select(func.max(heartbeats.c.at)).where(
            heartbeats.c.source == name, heartbeats.c.at < at, heartbeats.c.row_count > 0
        )
        with self._database.read() as connection:
            last: datetime | None = connection.execute(query).scalar_one()
            return last

    # -- the pass -----------------------------------------------------------------------------------------------------

    def due(self, now: datetime, limit: int = 10_000) -> list[Watched]:
        """Sources that have to be looked at now, the longest due first."""
        with self._database.read() as connection:
            return due_sources(connection, now, limit)

    def settle(
        self, watched: Watched, standing: Standing, now: datetime, look_again_at: datetime | None = None
    ) -> None:
        """Keep what a look has found. What was heard meanwhile stays, and is looked at in the next pass.

        A source that is quiet is looked at again when it speaks, or when it is to be asked. One that was forgotten meanwhile
        stays so.
        """
        with self._database.write() as connection:
            current = _find(connection, watched.source.name, lock=True)
            if current is None:
                return
            view = outlook(current.source, current.habit, current.state)
            if (current.source, current.state) != (watched.source, watched.state):
                due: datetime | None = now
            elif look_again_at is not None:
                due = look_again_at
            elif current.mute is not None and current.is_muted(now):
                due = current.mute.until
            else:
                due = _asked(current.source, view.alarm_at if standing is Standing.FINE else None, now)
            _write(connection, replace(current, standing=standing, expected_at=view.expected_at, due_at=due))

    def standing_as(self, standing: Standing) -> list[Watched]:
        """Every source of which a look has found this."""
        return self._page(sources.c.standing == standing.value, sources.c.name, None)

    def in_question(self) -> list[Watched]:
        """Every source that an incident is open about."""
        about = select(incidents.c.name).where(
            incidents.c.open_for.is_not(None), incidents.c.about == About.SOURCE.value
        )
        return self._page(sources.c.name.in_(about), sources.c.name, None)

    def spoken_since(self, since: datetime, but_not: str) -> int:
        """How many sources have spoken since then, without those whose names begin with ``but_not``."""
        spoken = select(func.count()).where(
            sources.c.last_beat_at >= since, sources.c.name.not_like(f"{but_not.replace('_', '!_')}%", escape="!")
        )
        with self._database.read() as connection:
            return int(connection.execute(spoken).scalar_one())

    def fed_by(self, conn_id: str) -> list[Watched]:
        """Sources that a credential feeds."""
        return self._page(sources.c.credential == conn_id, sources.c.name, None)

    def page(
        self, search: str = "", standing: Standing | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[list[Watched], int]:
        """Those that are not fine first, then by name; with how many there are altogether.

        Args:
            search: A part of the name, whatever its case.
        """
        which = [sources.c.name.icontains(search, autoescape=True)] if search else []
        if standing is not None:
            which.append(sources.c.standing == standing.value)
        order = (case((sources.c.standing == Standing.FINE.value, 1), else_=0), sources.c.name)
        query = select(sources).where(*which).order_by(*order).limit(limit).offset(offset)
        with self._database.read() as connection:
            total = connection.execute(select(func.count()).select_from(sources).where(*which)).scalar_one()
            return [_watched(row) for row in connection.execute(query).mappings()], int(total)

    def _page(self, which: Any, order: Any, limit: int | None) -> list[Watched]:
        query: Select[Any] = select(sources).where(which).order_by(order).limit(limit)
        with self._database.read() as connection:
            return [_watched(row) for row in connection.execute(query).mappings()]

    # -- lessons ------------------------------------------------------------------------------------------------------

    def to_learn(self, now: datetime, limit: int) -> list[Watched]:
        """Sources whose lesson is due, the longest due first."""
        return self._page(sources.c.learn_at <= now, sources.c.learn_at, limit)

    def learned(self, name: str, habit: Habit | None, now: datetime, again_at: datetime) -> None:
        """Keep a lesson; what is due follows from it. Of a source that was forgotten meanwhile it is dropped."""
        with self._database.write() as connection:
            if (watched := _find(connection, name, lock=True)) is not None:
                text = habit.to_json() if habit is not None else None
                # It may have been given another window meanwhile.
                again = again_at if watched.source.learns else None
                _update(connection, replace(watched, habit=habit), now, habit=text, learn_at=again)

    # -- pauses -------------------------------------------------------------------------------------------------------

    def mute(self, name: str, until: datetime, now: datetime, by: str, reason: str = "") -> Watched:
        """No alarm about this source until then. A pause that is on gets another end.

        Raises:
            NotRegisteredError: If nobody watches it.
            ConfigurationError: If the end has passed.
        """
        if until <= now:
            raise ConfigurationError(f"Source `{name}`: the pause would end at {until.isoformat()}, which has passed.")
        with self._database.write() as connection:
            watched = _known(connection, name, lock=True)
            since = watched.mute.since if watched.mute is not None and watched.is_muted(now) else now
            due = min(until, since + MUTED_FOR_LONG)
            return _mute(connection, replace(watched, due_at=due), Mute(since, until, by, reason), now)

    def unmute(self, name: str, now: datetime) -> bool:
        """End a pause now. False if there is none.

        Raises:
            NotRegisteredError: If nobody watches it.
        """
        with self._database.write() as connection:
            watched = _known(connection, name, lock=True)
            if watched.mute is None or not watched.is_muted(now):
                return False
            _mute(connection, watched, replace(watched.mute, until=now), now)
            return True


# -- one source, in a transaction -------------------------------------------------------------------------------------


def _hold_watch(connection: Connection) -> None:
    """Whoever adds or removes sources holds this first: nobody adds one twice, and their number stays right."""
    connection.execute(select(watch.c.id).with_for_update())


def _find(connection: Connection, name: str, *, lock: bool = False) -> Watched | None:
    row = connection.execute(_LOCK_SOURCE if lock else _FIND_SOURCE, {"key": name}).mappings().one_or_none()
    return _watched(row) if row is not None else None


def _known(connection: Connection, name: str, *, lock: bool = False) -> Watched:
    if (watched := _find(connection, name, lock=lock)) is not None:
        return watched
    names = connection.execute(select(sources.c.name).order_by(sources.c.name).limit(20)).scalars().all()
    raise NotRegisteredError(
        f"Source `{name}` is not registered. Registered: {', '.join(names) or 'none yet'}"
        f"{' and more' if len(names) == 20 else ''}."
    )


def _new(source: Source, now: datetime, *, adopted: bool = False) -> dict[str, Any]:
    view = outlook(source, None, State(registered_at=now))
    return {
        "name": source.name,
        "declaration": _declaration(source),
        "adopted": int(adopted),
        "credential": source.credential,
        "registered_at": now,
        "learn_at": now + FIRST_LESSON if source.learns else None,
        "expected_at": view.expected_at,
        # A destination is asked at the first pass.
        "due_at": now if source.measure is not None else view.alarm_at,
    }


def _add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(sources), rows)
        connection.execute(update(watch).values(sources=watch.c.sources + len(rows)))


def _adopt(connection: Connection, name: str, beat: Beat) -> tuple[Watched, bool]:
    """Watch a source because it spoke; False where another heartbeat was first."""
    _hold_watch(connection)
    if (watched := _find(connection, name, lock=True)) is not None:
        return watched, False
    _add(connection, [_new(Source(name, Learned(), pings=beat.rows is None), beat.at, adopted=True)])
    return _known(connection, name), True


def _redeclare(connection: Connection, row: RowMapping, source: Source, now: datetime) -> None:
    state = _state(row)
    if source.measure is None:
        # Nobody asks any more, so nobody would ever get an answer.
        state = replace(state, problem="", problem_since=None)
    _update(
        connection,
        replace(_watched(row), source=on_schedule(source, state.schedule), state=state, adopted=False),
        now,
        declaration=_declaration(source),
        adopted=0,
        credential=source.credential,
        learn_at=(row["learn_at"] or now) if source.learns else None,
    )


def _was_heard_another_way(connection: Connection, source: Source, beat: Beat, observer: Observer) -> bool:
    """Whether an asset's task spoke for itself, and this is its event; or its event was found before the task spoke.

    An event does not say of which try it is. A task that runs again within so short a time is heard once for both only if its
    second try could not speak.
    """
    if not isinstance(source.measure, AssetEvents) or observer.dag_id is None or beat.is_skip:
        return False
    by_an_event = heartbeats.c.try_number.is_(None)
    the_other_way = by_an_event if observer.try_number is not None else ~by_an_event
    query = select(heartbeats.c.id).where(
        heartbeats.c.source == source.name,
        heartbeats.c.at.between(beat.at - SAME_RUN, beat.at + SAME_RUN),
        heartbeats.c.dag_id == observer.dag_id,
        heartbeats.c.run_id == observer.run_id,
        heartbeats.c.task_id == observer.task_id,
        heartbeats.c.map_index == observer.map_index,
        the_other_way,
        # Of a try that was skipped there is no event.
        heartbeats.c.note.not_like(f"{SKIPPED}%"),
        # What knows how many rows came is news to what did not.
        heartbeats.c.row_count.is_not(None) if beat.rows is not None else true(),
    )
    return connection.execute(query).first() is not None


def _hear(connection: Connection, watched: Watched, beat: Beat, observer: Observer) -> None:
    state = hear(watched.source, watched.habit, watched.state, beat)
    # Who runs the source is not who looks at its destination.
    speaker = watched.fed_by if beat.measured else observer
    _update(connection, replace(watched, state=state, fed_by=speaker), beat.at)


def _mute(connection: Connection, watched: Watched, mute: Mute, now: datetime) -> Watched:
    return _update(
        connection,
        replace(watched, mute=mute),
        now,
        muted_at=mute.since,
        muted_until=mute.until,
        muted_by=mute.by,
        mute_reason=mute.reason,
    )


def _update(connection: Connection, watched: Watched, now: datetime, **more: Any) -> Watched:
    """Write what is known now, and when to look if nothing more is heard."""
    view = outlook(watched.source, watched.habit, watched.state)
    due = _due(watched, view.alarm_at, now)
    return _write(connection, replace(watched, expected_at=view.expected_at, due_at=due), **more)


def _due(watched: Watched, alarm_at: datetime | None, now: datetime) -> datetime | None:
    if watched.is_muted(now) and watched.due_at is not None:
        # The pause has said when.
        return watched.due_at
    if watched.state.problem or watched.standing is not Standing.FINE:
        return now
    return _asked(watched.source, alarm_at, now)


def _asked(source: Source, alarm_at: datetime | None, now: datetime) -> datetime | None:
    """The alarm's time, or before it the next at which the detector asks the source's destination."""
    if source.measure is None:
        return alarm_at
    return min(alarm_at or datetime.max.replace(tzinfo=timezone.utc), now + asked_every(source))


def asked_every(source: Source) -> timedelta:
    """How often the detector asks about a source itself; a twelfth of a fixed window, else every hour."""
    return source.window / 12 if isinstance(source.window, timedelta) else timedelta(hours=1)


def due_sources(connection: Connection, now: datetime, limit: int) -> list[Watched]:
    """Sources that have to be looked at now, the longest due first."""
    return [_watched(row) for row in connection.execute(_DUE, {"now": now, "limit": limit}).mappings()]


def unknown_sources(connection: Connection) -> list[Watched]:
    """Sources of which nobody knows anything while most are silent."""
    return [_watched(row) for row in connection.execute(_UNKNOWN).mappings()]


# -- rows -------------------------------------------------------------------------------------------------------------

# Made once: to put them together takes longer than what they ask.
_WATCH = select(watch)
_UNKNOWN = select(sources).where(sources.c.standing == Standing.UNKNOWN.value).order_by(sources.c.name)
_DUE = (
    select(sources)
    .where(sources.c.due_at <= bindparam("now"))
    .order_by(sources.c.due_at)
    .limit(bindparam("limit", type_=Integer))
)
_FIND_SOURCE = select(sources).where(sources.c.name == bindparam("key"))
_LOCK_SOURCE = _FIND_SOURCE.with_for_update()
_UPDATE_SOURCE = update(sources).where(sources.c.name == bindparam("key"))
_INSERT_HEARTBEAT = insert(heartbeats)


def _beats(name: str) -> Select[Any]:
    columns = (
        heartbeats.c.at,
        heartbeats.c.row_count,
        heartbeats.c.watermark,
        heartbeats.c.measured,
        heartbeats.c.note,
    )
    return select(*columns).where(heartbeats.c.source == name)


def _in_order(newest_first: Sequence[Row[Any]]) -> list[Beat]:
    return [
        Beat(at, rows, watermark, bool(measured), note)
        for at, rows, watermark, measured, note in reversed(newest_first)
    ]


def _write(connection: Connection, watched: Watched, **more: Any) -> Watched:
    """Keep what changes with what is heard, and the columns named."""
    connection.execute(
        _UPDATE_SOURCE,
        {
            "key": watched.source.name,
            "last_beat_at": watched.state.last_beat_at,
            "last_rows_at": watched.state.last_rows_at,
            "heard": _state_as_json(watched.state),
            "standing": watched.standing.value,
            "expected_at": watched.expected_at,
            "due_at": watched.due_at,
            "dag_id": watched.fed_by.dag_id,
            "task_id": watched.fed_by.task_id,
            "run_id": watched.fed_by.run_id,
            **more,
        },
    )
    return watched


def _usable(name: str) -> str:
    # MySQL takes names that differ in spaces at the end for the same.
    if not name or len(name) > LONGEST_NAME or name != name.strip():
        raise ConfigurationError(
            f"A source's name is {name[:60]!r} ({len(name)} characters); write 1 to {LONGEST_NAME}, without spaces around."
        )
    return name


def _digest(declared: Sequence[Source] | str) -> str:
    return _hash("json", declared) if isinstance(declared, str) else _hash(*map(_declaration, declared))


def _declaration(source: Source) -> str:
    return json.dumps(source_as_json(source), sort_keys=True)


def _beat_key(source: str, at: datetime, observer: Observer) -> str:
    if observer.dag_id is None and observer.run_id is not None:
        # A job outside Airflow names its runs itself, by whichever way it speaks.
        return _hash(source, "run", observer.run_id)
    if observer.dag_id is None:
        return _hash(source, _in_utc(at))
    return _hash(source, observer.dag_id, observer.run_id, observer.task_id, observer.map_index, observer.try_number)


def _in_utc(at: datetime) -> str:
    return aware(at, "a heartbeat's time").astimezone(timezone.utc).isoformat()


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


_OWN_COLUMNS = {"registered_at", "last_beat_at", "last_rows_at"}
_DEFAULTS = {field.name: field.default for field in fields(State) if field.name not in _OWN_COLUMNS}
_INSTANTS = {field.name for field in fields(State) if "datetime" in str(field.type)}


def _state_as_json(state: State) -> str:
    """What has no column of its own and is not as it was in the beginning."""
    kept: dict[str, Any] = {}
    for name, default in _DEFAULTS.items():
        value = getattr(state, name)
        if value == default:
            continue
        if isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, timedelta):
            value = value.total_seconds()
        elif isinstance(value, Schedule):
            value = [value.timezone, *value.expressions]
        kept[name] = value
    return json.dumps(kept)


def _state(row: RowMapping) -> State:
    kept = json.loads(row["heard"])
    for name in kept.keys() & _INSTANTS:
        kept[name] = datetime.fromisoformat(kept[name])
    if "longest_gap" in kept:
        kept["longest_gap"] = timedelta(seconds=kept["longest_gap"])
    if "schedule" in kept:
        zone, *expressions = kept["schedule"]
        kept["schedule"] = Schedule(tuple(expressions), zone)
    return State(**{name: row[name] for name in _OWN_COLUMNS}, **kept)


def _source(row: RowMapping, state: State) -> Source:
    return on_schedule(read_source(json.loads(row["declaration"])), state.schedule)


def _watched(row: RowMapping) -> Watched:
    state, mute = _state(row), None
    if row["muted_at"] is not None and row["muted_until"] is not None:
        mute = Mute(row["muted_at"], row["muted_until"], row["muted_by"] or "", row["mute_reason"] or "")
    return Watched(
        source=_source(row, state),
        state=state,
        habit=Habit.from_json(row["habit"]) if row["habit"] else None,
        standing=Standing(row["standing"]),
        adopted=bool(row["adopted"]),
        expected_at=row["expected_at"],
        due_at=row["due_at"],
        mute=mute,
        fed_by=Observer(row["dag_id"], row["run_id"], row["task_id"]),
    )
