"""Upkeep of the store: secrets under the newest key, and history that has had its time.

Everything goes in short transactions of its own, beside refreshes that run. Whatever ends it half-way, the next run goes
on: both look for what is left to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    not_,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import IntegrityError

from airflow_oauth_guard.domain.evidence import Kind
from airflow_oauth_guard.domain.habits import ENOUGH_LOADS
from airflow_oauth_guard.domain.reach import COUNTED_FOR
from airflow_oauth_guard.errors import ConfigurationError, StoreBusyError, StoreConfigurationError
from airflow_oauth_guard.store.authorizations import KEPT_FOR
from airflow_oauth_guard.store.database import Database, Result, repeated
from airflow_oauth_guard.store.encryption import TokenCipher
from airflow_oauth_guard.store.evidence import CONTROL_SERVES_FOR
from airflow_oauth_guard.store.journal import Ended
from airflow_oauth_guard.store.tables import (
    authorizations,
    consumers,
    credentials,
    evidence,
    heartbeats,
    intents,
    investigations,
    sources,
    statuses,
    tokens,
    transitions,
)

BATCH = 1000
"""Rows that are deleted in one transaction: a writer that meets one waits for a few tenths of a second."""

SECRETS_BATCH = 50
"""Rows whose secrets are encrypted in one transaction: a fiftieth of a second."""


SHORTEST_RETENTION = timedelta(days=30)
"""The database itself refuses to delete evidence that is younger; see migration 0002."""

CLOCKS_APART = timedelta(hours=1)
"""How far our clock may be ahead of the database's before it refuses what we take for old."""


@dataclass(frozen=True)
class Retention:
    """How long history is kept.

    Args:
        evidence: Evidence, closed investigations and closed intents. Default 90 days, at least 30.
        heartbeats: Heartbeats of sources, and which tasks use a credential. Default 90 days.

    Raises:
        ConfigurationError: If evidence would go sooner than the database allows.
    """

    evidence: timedelta = timedelta(days=90)
    heartbeats: timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        if self.evidence < SHORTEST_RETENTION:
            raise ConfigurationError(
                f"`[oauth_guard] evidence_retention_days` is {self.evidence / timedelta(days=1):g}; write "
                f"{SHORTEST_RETENTION.days} or more: the store refuses to delete younger evidence."
            )


@dataclass(frozen=True)
class Rotation:
    """How a change of the key went."""

    encrypted_anew: int
    """Secrets that another key had made."""
    up_to_date: int
    """Secrets that the newest key had made already."""
    unreadable: tuple[str, ...]
    """What no key opens: credential and field."""
    fell_behind: int
    """Secrets that were written with an older key meanwhile, by a component that does not know the newest yet."""
    open_refreshes: tuple[str, ...]
    """Credentials with a refresh whose outcome is not known yet; its answer may wait outside the store."""

    @property
    def old_keys_may_go(self) -> bool:
        return not (self.unreadable or self.fell_behind or self.open_refreshes)


class Upkeep:
    def __init__(self, database: Database, cipher: TokenCipher) -> None:
        self._database = database
        self._cipher = cipher

    def rotate_key(self) -> Rotation:
        """Encrypt with the newest key whatever another one has made, and look through everything once more."""
        keys = _KeyChange(self._database, self._cipher)
        for secrets in STORED_SECRETS:
            keys.turn(secrets)
        return keys.result()

    def purge(self, retention: Retention, now: datetime, *, dry_run: bool = False) -> dict[str, int]:
        """Delete what is older than its retention and what nothing speaks of any more.

        Args:
            dry_run: Only count what would go.

        Returns:
            By table, how many rows went.
        """
        since = min(now - retention.evidence, now - SHORTEST_RETENTION - CLOCKS_APART)
        purge = _Purge(self._database, dry_run=dry_run)
        return {
            # Before the evidence, which it would hold.
            "investigations": purge.investigations(since),
            "evidence": purge.evidence(since),
            "intents": purge.intents(since),
            "authorizations": purge.authorizations(now - KEPT_FOR),
            "heartbeats": purge.heartbeats(now - retention.heartbeats),
            "consumers": purge.consumers(now - max(retention.heartbeats, COUNTED_FOR)),
        }


def _at_length(batch: Callable[[], Result]) -> Result:
    """Run one transaction, again if others were in its way: the next look sees what has come to refer to a row."""
    return repeated(batch, on=(StoreBusyError, IntegrityError))


# -- the key ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredSecrets:
    """Where a table keeps secrets."""

    table: Table
    key: Column[Any]
    columns: tuple[Column[Any], ...]


STORED_SECRETS = (
    StoredSecrets(
        tokens,
        tokens.c.credential_id,
        (
            tokens.c.access_token,
            tokens.c.refresh_token,
            tokens.c.previous_access_token,
            tokens.c.previous_refresh_token,
        ),
    ),
    StoredSecrets(intents, intents.c.id, (intents.c.answer,)),
    StoredSecrets(authorizations, authorizations.c.id, (authorizations.c.secret,)),
)
"""Every encrypted column there is."""


@dataclass
class _Tally:
    """What became of some secrets."""

    encrypted_anew: int = 0
    up_to_date: int = 0
    unreadable: list[str] = field(default_factory=list)

    def add(self, other: _Tally) -> None:
        self.encrypted_anew += other.encrypted_anew
        self.up_to_date += other.up_to_date
        self.unreadable += other.unreadable


class _KeyChange:
    """One run of ``rotate-key``."""

    def __init__(self, database: Database, cipher: TokenCipher) -> None:
        self._database = database
        self._cipher = cipher
        self._tally = _Tally()

    def turn(self, secrets: StoredSecrets) -> None:
        """Encrypt a table's secrets anew."""
        for keys in self._pages(secrets):
            # Counted once it is committed.
            self._tally.add(_at_length(partial(self._turn_page, secrets, keys)))

    def result(self) -> Rotation:
        # Read before the last look at the secrets: a refresh that ends in between is looked at with the rest.
        open_refreshes = self._open_refreshes()
        return Rotation(
            encrypted_anew=self._tally.encrypted_anew,
            up_to_date=self._tally.up_to_date,
            unreadable=tuple(self._tally.unreadable),
            fell_behind=sum(self._behind(secrets) for secrets in STORED_SECRETS),
            open_refreshes=open_refreshes,
        )

    def _pages(self, secrets: StoredSecrets) -> Iterator[list[int]]:
        """The keys of rows that hold a secret, found without a lock: looking takes longer than changing."""
        holds_one = or_(*(and_(column.is_not(None), column != "") for column in secrets.columns))
        query, last = select(secrets.key).where(holds_one).order_by(secrets.key).limit(SECRETS_BATCH), 0
        while True:
            with self._database.read() as connection:
                keys = list(connection.execute(query.where(secrets.key > last)).scalars())
            if not keys:
                return
            yield keys
            last = keys[-1]

    def _turn_page(self, secrets: StoredSecrets, keys: Sequence[int]) -> _Tally:
        """Each row is locked while it is turned, so a refresh that changes it comes before or after."""
        tally = _Tally()
        locked = select(secrets.table).where(secrets.key.in_(keys)).order_by(secrets.key).with_for_update()
        with self._database.write() as connection:
            for row in connection.execute(locked).mappings().all():
                tally.add(self._turn_row(connection, secrets, row))
        return tally

    def _turn_row(self, connection: Connection, secrets: StoredSecrets, row: RowMapping) -> _Tally:
        tally, changed = _Tally(), {}
        for column in secrets.columns:
            stored = row[column.name]
            if not stored:
                continue
            try:
                turned = self._cipher.under_newest_key(stored)
            except StoreConfigurationError:
                # Goes on: whoever looks for a key wants to know all that it is to open.
                tally.unreadable.append(_named(connection, secrets, row, column))
                continue
            if turned == stored:
                tally.up_to_date += 1
            else:
                changed[column.name] = turned
        if changed:
            connection.execute(update(secrets.table).where(secrets.key == row[secrets.key.name]).values(**changed))
        tally.encrypted_anew = len(changed)
        return tally

    def _behind(self, secrets: StoredSecrets) -> int:
        behind = 0
        for keys in self._pages(secrets):
            with self._database.read() as connection:
                for row in connection.execute(select(*secrets.columns).where(secrets.key.in_(keys))).all():
                    behind += sum(self._is_behind(stored) for stored in row if stored)
        return behind

    def _is_behind(self, stored: str) -> bool:
        try:
            return self._cipher.under_newest_key(stored) != stored
        except StoreConfigurationError:
            # Named already.
            return False

    def _open_refreshes(self) -> tuple[str, ...]:
        # Of one that sent no token nobody looks for a lost answer.
        lost = and_(intents.c.outcome == Ended.LOST.value, intents.c.token_fingerprint != "")
        query = (
            select(credentials.c.conn_id)
            .where(
                credentials.c.id.in_(
                    select(intents.c.credential_id)
                    .join(tokens, tokens.c.credential_id == intents.c.credential_id)
                    .where(
                        intents.c.generation == tokens.c.generation,
                        intents.c.answer.is_(None),
                        or_(intents.c.outcome.is_(None), lost),
                    )
                )
            )
            .order_by(credentials.c.conn_id)
        )
        with self._database.read() as connection:
            return tuple(connection.execute(query).scalars())


def _named(connection: Connection, secrets: StoredSecrets, row: RowMapping, column: Column[Any]) -> str:
    conn_id = connection.execute(
        select(credentials.c.conn_id).where(credentials.c.id == row["credential_id"])
    ).scalar_one()
    whose = {intents: f" of refresh {row.get('id')}", authorizations: " of an authorization"}.get(secrets.table, "")
    return f"credential `{conn_id}`: {column.name}{whose}"


# -- the purge --------------------------------------------------------------------------------------------------------

Place = tuple[datetime, int]
"""An instant and an id: how far a sweep has come."""


@dataclass
class _Purge:
    """One purge.

    A dry run deletes nothing, so it remembers what the later steps would not have found any more.
    """

    database: Database
    dry_run: bool
    gone: dict[Table, set[int]] = field(default_factory=lambda: {investigations: set(), evidence: set()})

    def investigations(self, since: datetime) -> int:
        """Closed ones, except the last of each credential, and what says that its tokens are to be kept."""
        newest, latest = investigations.alias("newest"), _newest_generation(investigations)
        last = (
            select(newest.c.id)
            .where(newest.c.credential_id == investigations.c.credential_id)
            .order_by(newest.c.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        own = exists().where(evidence.c.investigation_id == investigations.c.id, _is_kept_for_itself())
        query = select(investigations.c.id).where(
            investigations.c.closed_at < since,
            investigations.c.id < last,
            or_(func.coalesce(investigations.c.answer, "") != "declined", investigations.c.generation < latest),
            not_(own),
        )
        return self._sweep(query, investigations, investigations.c.closed_at)

    def evidence(self, since: datetime) -> int:
        """Conclusions first: what they rest on stays as long as they do."""
        kinds = sorted(Kind, key=lambda kind: kind is not Kind.CONCLUSION)
        return sum(self._evidence_of(kind, since) for kind in kinds)

    def intents(self, since: datetime) -> int:
        """Closed ones, but not a lost answer to the tokens a credential has now: it may have spent them.

        Nor the very last one: SQLite would give its number to the next, and a Variable is named after it.
        """
        brought_or_spent = or_(intents.c.token_fingerprint != "", intents.c.answer.is_not(None))
        newest = intents.c.generation >= _newest_generation(intents)
        still_speaks = and_(intents.c.outcome == Ended.LOST.value, newest, brought_or_spent)
        query = select(intents.c.id).where(
            intents.c.closed_at < since,
            intents.c.outcome.is_not(None),
            not_(still_speaks),
            intents.c.id < select(func.max(intents.alias("newest").c.id)).scalar_subquery(),
        )
        return self._sweep(query, intents, intents.c.closed_at)

    def authorizations(self, since: datetime) -> int:
        """Those that were over by then."""
        query = select(authorizations.c.id).where(authorizations.c.ends_at < since)
        return self._sweep(query, authorizations, authorizations.c.ends_at)

    def heartbeats(self, since: datetime) -> int:
        """All but the newest of each source that is watched, for its lessons. When it was heard last stands with the source."""
        return sum(self._heartbeats_of(source, since) for source in self._sources())

    def consumers(self, since: datetime) -> int:
        """Tasks that have not used a credential since. In one go: there is a row for each task, not for each of its runs."""
        return _at_length(partial(self._consumers, consumers.c.last_used_at < since))

    def _consumers(self, old: ColumnElement[bool]) -> int:
        with self._transaction() as connection:
            if self.dry_run:
                return int(connection.execute(select(func.count()).select_from(consumers).where(old)).scalar_one())
            return connection.execute(delete(consumers).where(old)).rowcount

    def _evidence_of(self, kind: Kind, since: datetime) -> int:
        query = select(evidence.c.id, evidence.c.credential_id, evidence.c.investigation_id).where(
            evidence.c.kind == kind.value, evidence.c.observed_at < since, not_(_is_kept_for_itself())
        )
        return self._sweep(query, evidence, evidence.c.observed_at, self._spared)

    def _spared(self, connection: Connection, page: Sequence[RowMapping]) -> set[int]:
        """What is kept for the sake of something else."""
        # The open questions first: one that closes while we look has its conclusion by then.
        in_question = _in_question(connection, page)
        of_investigations = self._of_investigations(connection, [row["id"] for row in page])
        return in_question | of_investigations | self._rested_on(connection, {row["credential_id"] for row in page})

    def _of_investigations(self, connection: Connection, ids: Sequence[int]) -> set[int]:
        references = union_all(
            *(
                select(investigations.c.id, column.label("evidence_id")).where(column.in_(ids))
                for column in (investigations.c.opening_evidence_id, investigations.c.conclusion_evidence_id)
            )
        )
        return {row.evidence_id for row in connection.execute(references) if row.id not in self.gone[investigations]}

    def _rested_on(self, connection: Connection, credential_ids: Iterable[int]) -> set[int]:
        conclusions = select(evidence.c.id, evidence.c.rests_on).where(
            evidence.c.kind == Kind.CONCLUSION.value, evidence.c.credential_id.in_(credential_ids)
        )
        kept = (row.rests_on for row in connection.execute(conclusions) if row.id not in self.gone[evidence])
        return {evidence_id for rests_on in kept for evidence_id in json.loads(rests_on)}

    def _sources(self) -> Iterator[str]:
        """Every name that was ever heard, registered or not, one look into the index each."""
        last = ""
        while True:
            query = select(func.min(heartbeats.c.source)).where(heartbeats.c.source > last)
            with self.database.read() as connection:
                source = connection.execute(query).scalar_one()
            if source is None:
                return
            yield source
            last = source

    def _heartbeats_of(self, source: str, since: datetime) -> int:
        newer = heartbeats.alias("newer")
        oldest_lesson = (
            select(newer.c.at)
            .where(newer.c.source == source)
            .order_by(newer.c.at.desc())
            .offset(ENOUGH_LOADS - 1)
            .limit(1)
            .scalar_subquery()
        )
        watched = exists().where(sources.c.name == source)
        query = select(heartbeats.c.id).where(
            heartbeats.c.source == source, heartbeats.c.at < since, or_(heartbeats.c.at < oldest_lesson, not_(watched))
        )
        return self._sweep(query, heartbeats, heartbeats.c.at)

    def _sweep(
        self,
        query: Select[Any],
        table: Table,
        instant: Column[Any],
        spared: Callable[[Connection, Sequence[RowMapping]], set[int]] | None = None,
    ) -> int:
        """Delete what a query finds, from the oldest on; returns how many rows that were."""
        went, place = 0, None
        query = query.add_columns(instant.label("instant")).order_by(instant, table.c.id).limit(BATCH)
        while True:
            rest = query if place is None else query.where(_after(place, instant, table.c.id))
            count, place = _at_length(partial(self._batch, rest, table, spared))
            went += count
            if place is None:
                return went

    def _batch(
        self,
        query: Select[Any],
        table: Table,
        spared: Callable[[Connection, Sequence[RowMapping]], set[int]] | None,
    ) -> tuple[int, Place | None]:
        with self._transaction() as connection:
            page = connection.execute(query).mappings().all()
            if not page:
                return 0, None
            ids = {row["id"] for row in page} - (spared(connection, page) if spared else set())
            return self._delete(connection, table, ids), (page[-1]["instant"], page[-1]["id"])

    def _delete(self, connection: Connection, table: Table, ids: set[int]) -> int:
        if self.dry_run:
            self.gone.get(table, set()).update(ids)
            return len(ids)
        # In one order, so that two purges wait for each other instead of embracing.
        return connection.execute(delete(table).where(table.c.id.in_(sorted(ids)))).rowcount if ids else 0

    def _transaction(self) -> AbstractContextManager[Connection]:
        return self.database.read() if self.dry_run else self.database.write()


def _after(place: Place, instant: Column[Any], key: Column[Any]) -> ColumnElement[bool]:
    """Further than ``place``, written so that MySQL too begins there and not at the oldest row."""
    return and_(instant >= place[0], or_(instant > place[0], key > place[1]))


def _newest_generation(table: Table) -> ColumnElement[int]:
    own = select(tokens.c.generation).where(tokens.c.credential_id == table.c.credential_id)
    return own.scalar_subquery()


def _is_kept_for_itself() -> ColumnElement[bool]:
    """Evidence that a status or its change rests on, and the newest of its sort.

    The newest answers what was seen last, and whether a request of this form has ever succeeded.
    """
    of_status = exists().where(
        statuses.c.credential_id == evidence.c.credential_id, statuses.c.evidence_id == evidence.c.id
    )
    of_transition = exists().where(transitions.c.evidence_id == evidence.c.id)
    return or_(of_status, of_transition, evidence.c.id >= _newest_of_its_sort())


def _newest_of_its_sort() -> ColumnElement[int]:
    newest = evidence.alias("newest")

    def where(same_shape: ColumnElement[bool]) -> ColumnElement[int]:
        same = and_(*(newest.c[name] == evidence.c[name] for name in ("credential_id", "kind", "verdict")), same_shape)
        return select(newest.c.id).where(same).order_by(newest.c.id.desc()).limit(1).scalar_subquery()

    # Two look-ups instead of one that treats NULL like a value: for that PostgreSQL would not use its index.
    return case(
        (evidence.c.shape_id.is_(None), where(newest.c.shape_id.is_(None))),
        else_=where(newest.c.shape_id == evidence.c.shape_id),
    )


def _in_question(connection: Connection, page: Sequence[RowMapping]) -> set[int]:
    """Evidence of open questions, and what they may use again."""
    opening = select(investigations.c.id, investigations.c.credential_id, evidence.c.observed_at).join_from(
        investigations, evidence, evidence.c.id == investigations.c.opening_evidence_id
    )
    found = connection.execute(opening.where(investigations.c.open_for.in_({row["credential_id"] for row in page})))
    questions = {row.credential_id: row for row in found}
    return {
        row["id"]
        for row in page
        if (question := questions.get(row["credential_id"])) is not None
        and (row["investigation_id"] == question.id or row["instant"] >= question.observed_at - CONTROL_SERVES_FOR)
    }
