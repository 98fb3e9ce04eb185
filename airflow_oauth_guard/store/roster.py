"""The roster as people read it: a page of credentials, each with what was seen last, in a constant number of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    RowMapping,
    Subquery,
    case,
    func,
    literal,
    or_,
    select,
    union_all,
)

from airflow_oauth_guard.domain.evidence import Evidence, Kind, Subject
from airflow_oauth_guard.domain.incidents import About, Incident
from airflow_oauth_guard.domain.reach import NAMED, Reach
from airflow_oauth_guard.domain.schedule import ASSUMED_LIFETIME
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError, NotRegisteredError
from airflow_oauth_guard.store import evidence as ledger
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.incidents import incident_from_row
from airflow_oauth_guard.store.reach import of_credentials
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.rows import CREDENTIAL_COLUMNS, CREDENTIALS, credential_from
from airflow_oauth_guard.store.tables import credentials, evidence, incidents, statuses, tokens

NAMED_ON_ITS_PAGE = 50
"""So many sources and DAGs of one credential are named; the rest are counted."""


@dataclass(frozen=True)
class RosterQuery:
    """Which credentials, in which order.

    Args:
        search: A part of the connection id, whatever its case.
        trouble: Only those in trouble: an incident is open about them, or their status is not ``active``.
        sort: One of :data:`SORTS`.
    """

    search: str = ""
    status: Status | None = None
    connection_class: str = ""
    provider: str = ""
    trouble: bool = False
    sort: str = "trouble"
    descending: bool = False
    limit: int = 50
    offset: int = 0


@dataclass(frozen=True)
class Listed:
    """A credential with all that one line, or the head of its page, says about it."""

    credential: Credential
    incident: Incident | None
    """The open one."""
    latest: tuple[Evidence, ...]
    """The newest of each kind and subject, newest first."""
    reach: Reach
    """Whom it feeds."""
    refreshed_at: datetime | None
    """When its newest tokens were issued; None for tokens that somebody brought along."""
    probed_at: datetime | None

    @property
    def is_in_trouble(self) -> bool:
        return self.incident is not None or self.credential.status is not Status.ACTIVE


@dataclass(frozen=True)
class RosterPage:
    rows: list[Listed]
    total: int
    """How many the query finds, on all pages."""


@dataclass(frozen=True)
class Choices:
    """What there is to filter by."""

    classes: tuple[str, ...]
    providers: tuple[str, ...]


class Roster:
    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, query: RosterQuery, now: datetime) -> RosterPage:
        """Raises:
        ConfigurationError: If the query sorts by something else than one of :data:`SORTS`.
        """
        order = _order(query, now)
        which = _which(query)
        with self._database.read() as connection:
            total = connection.execute(select(func.count()).select_from(_counted(query)).where(*which)).scalar_one()
            # The order first, on few columns: a database that sorts whole rows takes several times as long.
            ordered = _IN_QUESTION if query.trouble or query.sort == "trouble" else CREDENTIALS
            chosen = select(credentials.c.id).select_from(ordered).where(*which).order_by(*order)
            ids = connection.execute(chosen.limit(query.limit).offset(query.offset)).scalars().all()
            return RosterPage(_listed(connection, ids, now, NAMED), int(total))

    def one(self, conn_id: str, now: datetime) -> Listed:
        """Raises:
        NotRegisteredError: If the store has never seen it.
        """
        if (found := self.find(conn_id, now)) is None:
            raise NotRegisteredError(f"Credential `{conn_id}` is not in the store.")
        return found

    def find(self, conn_id: str, now: datetime) -> Listed | None:
        """A credential, or None where the store has never seen it."""
        with self._database.read() as connection:
            ids = connection.execute(select(credentials.c.id).where(credentials.c.conn_id == conn_id)).scalars().all()
            return next(iter(_listed(connection, ids, now, NAMED_ON_ITS_PAGE)), None)

    def counts(self) -> dict[str, int]:
        """How many there are of each status, and as ``trouble`` how many are in trouble."""
        query = select(
            statuses.c.status, func.count().label("number"), func.sum(case((_TROUBLE, 1), else_=0)).label("trouble")
        )
        with self._database.read() as connection:
            rows = connection.execute(query.select_from(_IN_QUESTION).group_by(statuses.c.status)).all()
        none = {status.value: 0 for status in Status}
        return {**none, **{row.status: row.number for row in rows}, "trouble": sum(int(row.trouble) for row in rows)}

    def choices(self) -> Choices:
        """The connection classes and providers there are, for filters."""
        with self._database.read() as connection:
            return Choices(
                _distinct(connection, credentials.c.connection_class), _distinct(connection, credentials.c.provider)
            )


def _distinct(connection: Connection, column: ColumnElement[str]) -> tuple[str, ...]:
    return tuple(connection.execute(select(column).distinct().where(column != "").order_by(column)).scalars())


# -- which, and in which order ----------------------------------------------------------------------------------------

_IN_QUESTION: FromClause = CREDENTIALS.outerjoin(
    incidents, incidents.c.open_for == literal(f"{About.CREDENTIAL.value}/") + credentials.c.conn_id
)
_TROUBLE = or_(incidents.c.id.is_not(None), statuses.c.status != Status.ACTIVE.value)

SORTS = ("trouble", "conn_id", "status", "class", "lapses", "refreshed")


def _order(query: RosterQuery, now: datetime) -> list[ColumnElement[Any]]:
    if query.sort not in SORTS:
        raise ConfigurationError(f"The roster cannot be sorted by `{query.sort}`; use one of {', '.join(SORTS)}.")
    first, turned = _TERMS[query.sort] if query.sort in _TERMS else ((), (_TROUBLE_FIRST, *_least_life_first(now)))
    return [*first, *(term.desc() if query.descending else term for term in turned), credentials.c.conn_id]


def _least_life_first(now: datetime) -> tuple[ColumnElement[Any], ...]:
    """As :meth:`Life.remaining` has it: of what nothing is known, or of what never was told, the life may be over."""
    over = case(
        (tokens.c.expires_at <= now, 0),
        (tokens.c.expires_at.is_not(None), 3),
        (tokens.c.issued_at.is_(None), 1),
        (tokens.c.issued_at <= now - ASSUMED_LIFETIME, 2),
        else_=4,
    )
    return over, tokens.c.expires_at, tokens.c.issued_at


_TROUBLE_FIRST = case((_TROUBLE, 0), else_=1)
_ENDLESS = case((tokens.c.expires_at.is_not(None), 0), (tokens.c.issued_at.is_not(None), 1), else_=2)
_BY_STATUS = case({status.value: place for place, status in enumerate(Status)}, value=statuses.c.status)

# By name: what comes first either way, so that databases agree on where the unknown is; and what ``descending`` turns.
_TERMS: Mapping[str, tuple[tuple[ColumnElement[Any], ...], tuple[ColumnElement[Any], ...]]] = {
    "conn_id": ((), (credentials.c.conn_id,)),
    "status": ((), (_BY_STATUS,)),
    "class": ((), (credentials.c.connection_class,)),
    "lapses": ((_ENDLESS,), (tokens.c.expires_at, tokens.c.issued_at)),
    "refreshed": ((case((tokens.c.issued_at.is_(None), 1), else_=0),), (tokens.c.issued_at,)),
}


def _counted(query: RosterQuery) -> FromClause:
    """No more than its filters need: to count is most of what a page of many costs."""
    if query.trouble:
        return _IN_QUESTION
    return credentials if query.status is None else credentials.join(statuses)


def _which(query: RosterQuery) -> list[ColumnElement[bool]]:
    which: list[ColumnElement[bool]] = []
    if query.search:
        which.append(credentials.c.conn_id.icontains(query.search, autoescape=True))
    if query.status is not None:
        which.append(statuses.c.status == query.status.value)
    if query.connection_class:
        which.append(credentials.c.connection_class == query.connection_class)
    if query.provider:
        which.append(credentials.c.provider == query.provider)
    if query.trouble:
        which.append(_TROUBLE)
    return which


# -- what is known of them --------------------------------------------------------------------------------------------


def _listed(connection: Connection, ids: Sequence[int], now: datetime, named: int) -> list[Listed]:
    """These, in this order: as many queries for fifty of them as for one."""
    if not ids:
        return []
    query = select(*CREDENTIAL_COLUMNS, *_OPEN_INCIDENT).select_from(_IN_QUESTION).where(credentials.c.id.in_(ids))
    rows = {row["id"]: row for row in connection.execute(query).mappings()}
    seen = _latest(connection, ids)
    reaches = of_credentials(connection, [row["conn_id"] for row in rows.values()], now, named)
    return [
        _line(rows[credential_id], seen.get(credential_id, []), reaches[rows[credential_id]["conn_id"]])
        for credential_id in ids
        # One that somebody deleted by hand meanwhile.
        if credential_id in rows
    ]


_INCIDENT = "incident_"
_OPEN_INCIDENT = tuple(column.label(f"{_INCIDENT}{column.name}") for column in incidents.c)


def _line(row: RowMapping, seen: Sequence[Evidence], reach: Reach) -> Listed:
    credential = credential_from(row)
    probes = [look.observed_at for look in seen if look.kind is Kind.PROBE]
    return Listed(
        credential=credential,
        incident=_incident(row),
        latest=tuple(sorted(seen, key=lambda look: look.id or 0, reverse=True)),
        reach=reach,
        refreshed_at=credential.life.issued_at,
        probed_at=max(probes, default=None),
    )


def _incident(row: RowMapping) -> Incident | None:
    if row[f"{_INCIDENT}id"] is None:
        return None
    return incident_from_row({column.name: row[f"{_INCIDENT}{column.name}"] for column in incidents.c})


def _latest(connection: Connection, ids: Sequence[int]) -> dict[int, list[Evidence]]:
    """The newest evidence of each kind and subject: one look into the index for each, however long the history is."""
    newest = (
        select(evidence.c.id)
        .where(
            evidence.c.credential_id == credentials.c.id,
            evidence.c.kind == _GRID.c.kind,
            evidence.c.subject == _GRID.c.subject,
        )
        .order_by(evidence.c.id.desc())
        .limit(1)
        .correlate(credentials, _GRID)
        .scalar_subquery()
    )
    found = (
        select(newest.label("id"))
        .select_from(credentials.join(_GRID, literal(value=True)))
        .where(credentials.c.id.in_(ids))
        .subquery("newest")
    )
    seen: dict[int, list[Evidence]] = {}
    query = select(evidence).join(found, evidence.c.id == found.c.id)
    for row in connection.execute(query).mappings():
        seen.setdefault(row["credential_id"], []).append(ledger.from_row(row))
    return seen


def _grid() -> Subquery:
    cells = [
        select(literal(kind.value).label("kind"), literal(subject.value).label("subject"))
        for kind in Kind
        for subject in Subject
    ]
    return union_all(*cells).subquery("grid")


_GRID = _grid()
