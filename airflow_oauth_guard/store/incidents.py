"""Incidents: opened once, told again until resolved, resolved only on positive evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from airflow_oauth_guard.domain.incidents import (
    QUIET,
    RENOTIFY_AFTER,
    SPEAK_FOR_OTHERS,
    TIME_MAY_CURE,
    About,
    Incident,
    IncidentKind,
    Phase,
    next_telling_after,
)
from airflow_oauth_guard.errors import StoreUnavailableError
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.tables import credentials, incidents, sources

EXPECTED_FOR = timedelta(days=30)
"""What somebody called expected, and is still so after that time, is told again: nobody expects it for ever."""


@dataclass(frozen=True)
class Symptom:
    """What is wrong now, before anybody knows whether an incident is open about it."""

    about: About
    name: str
    kind: IncidentKind
    summary: str
    opened_at: datetime
    owner: str = ""
    signature: str = ""
    """Equal for failures that look alike; a new one reopens the question."""
    alert_route: str = ""
    escalates_at: datetime | None = None
    part_of: int | None = None
    """The open incident that speaks for this one. None changes nothing: members are released when that one is resolved."""

    @property
    def open_for(self) -> str:
        return f"{self.about.value}/{self.name}"


class Incidents:
    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, symptom: Symptom, now: datetime) -> Incident:
        """Open an incident, or bring the open one up to date; its dates and its alerts stay."""
        with self._database.write() as connection:
            return open_incident(connection, symptom, now)

    def resolve(self, about: About, name: str, resolution: str, now: datetime) -> Incident | None:
        """Close the open incident about this, if there is one."""
        with self._database.write() as connection:
            return resolve_incident(connection, about, name, resolution, now)

    def open_ones(self, about: About | None = None) -> list[Incident]:
        """Every open incident, oldest first."""
        with self._database.read() as connection:
            return [one for one in open_incidents(connection) if about is None or one.about is about]

    def open_about(self, about: About, name: str) -> Incident | None:
        with self._database.read() as connection:
            return open_about(connection, about, name)

    def get(self, incident_id: int) -> Incident | None:
        with self._database.read() as connection:
            return _by_id(connection, incident_id)

    def history(self, about: About, name: str) -> list[Incident]:
        """Every incident there ever was about this, oldest first."""
        return self._found(incidents.c.about == about.value, incidents.c.name == name)

    def members(self, incident: Incident) -> list[Incident]:
        """The open incidents that this one speaks for, oldest first."""
        return self._found(incidents.c.part_of == incident.id, incidents.c.open_for.is_not(None))

    def put_together(self, group: Incident, members: Sequence[Incident], now: datetime) -> None:
        """From now on the group speaks for these; nothing happens if it is over meanwhile.

        Where somebody has been on it for long already, people are told of it anew.
        """
        with self._database.write() as connection:
            if not members or (group_id := _open_group(connection, group.id)) is None:
                return
            # One by one: a database takes a limited number of values in one statement, and a group may be very large.
            joins = update(incidents).where(incidents.c.id == bindparam("of"), incidents.c.open_for.is_not(None))
            connection.execute(joins.values(part_of=group_id), [{"of": member.id} for member in members])
            long_known = incidents.c.acknowledged_at <= now - RENOTIFY_AFTER
            connection.execute(
                update(incidents).where(incidents.c.id == group_id, long_known).values(**_UNTOLD, **_UNACKNOWLEDGED)
            )

    def release(self, members: Sequence[Incident]) -> None:
        """From now on these speak for themselves again."""
        if members:
            with self._database.write() as connection:
                # One by one: see put_together.
                leaves = update(incidents).where(
                    incidents.c.id == bindparam("of"), incidents.c.part_of == bindparam("group")
                )
                said = [{"of": member.id, "group": member.part_of} for member in members]
                connection.execute(leaves.values(part_of=None), said)

    def page(
        self, phase: Phase | None = None, about: About | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[list[Incident], int]:
        """Newest first, with how many there are altogether."""
        which = [] if phase is None else [_IN_PHASE[phase]]
        if about is not None:
            which.append(incidents.c.about == about.value)
        query = select(incidents).where(*which).order_by(incidents.c.id.desc()).limit(limit).offset(offset)
        with self._database.read() as connection:
            total = connection.execute(select(func.count()).select_from(incidents).where(*which)).scalar_one()
            return [incident_from_row(row) for row in connection.execute(query).mappings()], int(total)

    def counts(self) -> dict[Phase, int]:
        """How many incidents are in each phase."""
        numbers = (func.sum(case((which, 1), else_=0)).label(phase.value) for phase, which in _IN_PHASE.items())
        with self._database.read() as connection:
            row = connection.execute(select(*numbers)).mappings().one()
            return {phase: int(row[phase.value] or 0) for phase in Phase}

    def _found(self, *which: ColumnElement[bool]) -> list[Incident]:
        with self._database.read() as connection:
            rows = connection.execute(select(incidents).where(*which).order_by(incidents.c.id))
            return [incident_from_row(row) for row in rows.mappings()]

    # -- what people say ----------------------------------------------------------------------------------------------

    def acknowledge(self, about: About, name: str, by: str, now: datetime) -> Incident | None:
        """Somebody is on it: it is told and escalated no more while its kind stays the same. The first word counts.

        Returns:
            The open incident; None if there is none.
        """
        with self._database.write() as connection:
            connection.execute(
                update(incidents)
                .where(incidents.c.open_for == f"{about.value}/{name}", incidents.c.acknowledged_at.is_(None))
                .values(acknowledged_at=now, acknowledged_by=by)
            )
            return open_about(connection, about, name)

    def mark_expected(self, incident_id: int, by: str, now: datetime) -> Incident | None:
        """Somebody says that this had to be expected, during it or after it. An open one ends with that.

        What is said of a group is said of its members.

        Returns:
            The incident as it is now; None if there is none of that number.
        """
        with self._database.write() as connection:
            current = _by_id(connection, incident_id)
            if current is None:
                return None
            rows = connection.execute(select(incidents).where(incidents.c.part_of == incident_id)).mappings().all()
            for incident in [current, *map(incident_from_row, rows)]:
                connection.execute(update(incidents).where(incidents.c.id == incident.id).values(expected_by=by))
                _end(connection, incident, f"{by} said that it had to be expected", now)
                if incident.about is About.SOURCE:
                    # The next pass notes until when nothing is to be told of it.
                    connection.execute(update(sources).where(sources.c.name == incident.name).values(due_at=now))
            return _by_id(connection, incident_id)

    def expected_until(self, about: About, name: str, since: datetime) -> datetime | None:
        """Until when what is wrong since then is not told, since somebody said that it had to be expected.

        None if nobody did; what has begun after that is another thing.
        """
        said = self._found(
            incidents.c.about == about.value,
            incidents.c.name == name,
            incidents.c.expected_by.is_not(None),
            incidents.c.opened_at <= since,
            incidents.c.resolved_at >= since,
        )
        return max((one.resolved_at + EXPECTED_FOR for one in said if one.resolved_at is not None), default=None)

    def quiet_stretches(self, name: str, since: datetime) -> list[tuple[datetime, datetime | None]]:
        """When a source did not send what it should, and nobody called it expected; None for an end that is to come.

        What a window learns leaves these out: a habit learned from an outage would hide the next one.
        """
        # One that could not be measured either, in the end, was quiet before.
        was_quiet = or_(
            incidents.c.kind.in_([kind.value for kind in QUIET]),
            and_(incidents.c.kind == IncidentKind.UNMEASURED.value, incidents.c.turned_at.is_not(None)),
        )
        own = and_(incidents.c.about == About.SOURCE.value, incidents.c.name == name, was_quiet)
        # Whose silence is put down to everything has no incident of its own.
        everything = and_(
            incidents.c.about == About.GROUP.value, incidents.c.kind == IncidentKind.EVERYTHING_QUIET.value
        )
        quiet = self._found(
            or_(own, everything),
            incidents.c.expected_by.is_(None),
            or_(incidents.c.resolved_at.is_(None), incidents.c.resolved_at > since),
        )
        return [(incident.opened_at, incident.resolved_at) for incident in quiet]

    # -- who is told --------------------------------------------------------------------------------------------------

    def claim_telling(self, incident: Incident, now: datetime) -> bool:
        """Take the right to tell people about it, so that two checkers send one alert.

        Nobody gets it for an incident that is no longer as it was read: told, acknowledged, grouped, of another kind.
        """
        again_after = next_telling_after(incident.about, incident.times_told)
        told_lately = or_(incidents.c.last_notified_at.is_(None), incidents.c.last_notified_at <= now - again_after)
        return self._claim(
            incident,
            incidents.c.times_told == incident.times_told,
            told_lately,
            last_notified_at=now,
            first_notified_at=func.coalesce(incidents.c.first_notified_at, now),
            times_told=incident.times_told + 1,
        )

    def give_telling_back(self, incident: Incident) -> None:
        """The alert could not be sent: it is still to be told."""
        with self._database.write() as connection:
            connection.execute(
                update(incidents)
                .where(incidents.c.id == incident.id, incidents.c.times_told == incident.times_told + 1)
                .values(
                    last_notified_at=incident.last_notified_at,
                    first_notified_at=incident.first_notified_at,
                    times_told=incident.times_told,
                )
            )

    def claim_escalation(self, incident: Incident, now: datetime) -> bool:
        """Take the right to call those who are called where nobody reacts. It is given once."""
        return self._claim(incident, incidents.c.escalated_at.is_(None), escalated_at=now)

    def give_escalation_back(self, incident: Incident) -> None:
        with self._database.write() as connection:
            connection.execute(update(incidents).where(incidents.c.id == incident.id).values(escalated_at=None))

    def _claim(self, incident: Incident, *still: ColumnElement[bool], **values: Any) -> bool:
        with self._database.write() as connection:
            claimed = connection.execute(
                update(incidents)
                .where(
                    incidents.c.id == incident.id,
                    incidents.c.kind == incident.kind.value,
                    incidents.c.resolved_at.is_(None),
                    incidents.c.acknowledged_at.is_(None),
                    incidents.c.part_of.is_(None),
                    *still,
                )
                .values(**values)
            )
            return claimed.rowcount == 1


_IN_PHASE: Mapping[Phase, ColumnElement[bool]] = {
    Phase.OPEN: and_(incidents.c.open_for.is_not(None), incidents.c.acknowledged_at.is_(None)),
    Phase.ACKNOWLEDGED: and_(incidents.c.open_for.is_not(None), incidents.c.acknowledged_at.is_not(None)),
    Phase.RESOLVED: incidents.c.open_for.is_(None),
}


def open_incidents(connection: Connection) -> list[Incident]:
    """Every open incident, oldest first."""
    return [incident_from_row(row) for row in connection.execute(_OPEN).mappings()]


_OPEN = select(incidents).where(incidents.c.open_for.is_not(None)).order_by(incidents.c.opened_at)


def open_incident(connection: Connection, symptom: Symptom, now: datetime) -> Incident:
    # Another process may open or resolve it between our look and our write; then look again.
    for _ in range(10):
        if (opened := _opened(connection, symptom, now)) is not None:
            return opened
    raise StoreUnavailableError(f"The incident about {symptom.open_for} is opened and resolved by others all the time.")


def _opened(connection: Connection, symptom: Symptom, now: datetime) -> Incident | None:
    current = open_about(connection, symptom.about, symptom.name)
    described: dict[str, Any] = {
        "kind": symptom.kind.value,
        "summary": symptom.summary,
        "owner": symptom.owner,
        "signature": symptom.signature,
        "alert_route": symptom.alert_route,
        "escalates_at": symptom.escalates_at,
    }
    if symptom.part_of is not None:
        described["part_of"] = _open_group(connection, symptom.part_of)
    if current is None:
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(incidents).values(
                        about=symptom.about.value,
                        name=symptom.name,
                        opened_at=min(symptom.opened_at, now),
                        noticed_at=now,
                        open_for=symptom.open_for,
                        **described,
                    )
                )
        except IntegrityError:
            # Another process opened it in between; read below, and raise if that was not the reason.
            pass
    elif symptom.kind in TIME_MAY_CURE and current.kind not in TIME_MAY_CURE:
        # An outage says nothing for the better about what needs a person.
        return current
    else:
        anew = {} if current.kind is symptom.kind else _told_anew(current, min(symptom.opened_at, now))
        changed = connection.execute(
            update(incidents)
            .where(incidents.c.open_for == symptom.open_for, incidents.c.kind == current.kind.value)
            .values(**described, **anew)
        )
        if changed.rowcount == 0:
            # Another process changed or resolved it first; people are told of a change once.
            return None
    return open_about(connection, symptom.about, symptom.name)


_UNTOLD: Mapping[str, Any] = {"last_notified_at": None, "times_told": 0}

_UNACKNOWLEDGED: Mapping[str, Any] = dict.fromkeys(
    ("acknowledged_at", "acknowledged_by", "first_notified_at", "escalated_at")
)
"""Somebody had taken care of what it was: the clock of what it is now begins now."""


def _told_anew(current: Incident, since: datetime) -> dict[str, Any]:
    """Something else is wrong now than what people were told, and than what somebody is on."""
    on_it = current.acknowledged_at is not None
    return {"turned_at": since, **_UNTOLD, **(_UNACKNOWLEDGED if on_it else {})}


def _open_group(connection: Connection, incident_id: int) -> int | None:
    """The incident, held until the end of the transaction, if it is open: nobody would speak for its members else."""
    group = select(incidents.c.id).where(incidents.c.id == incident_id, incidents.c.open_for.is_not(None))
    return connection.execute(group.with_for_update(read=True)).scalar_one_or_none()


def resolve_incident(
    connection: Connection, about: About, name: str, resolution: str, now: datetime
) -> Incident | None:
    current = open_about(connection, about, name)
    if current is not None:
        _end(connection, current, resolution, now)
    return current


def _end(connection: Connection, incident: Incident, resolution: str, now: datetime) -> None:
    """Resolve it, unless it is over already."""
    connection.execute(
        update(incidents)
        .where(incidents.c.id == incident.id, incidents.c.resolved_at.is_(None))
        .values(resolved_at=now, resolution=resolution, open_for=None)
    )
    if incident.about in SPEAK_FOR_OTHERS:
        # Those that are open still speak for themselves again.
        connection.execute(
            update(incidents)
            .where(incidents.c.part_of == incident.id, incidents.c.open_for.is_not(None))
            .values(part_of=None)
        )


def look_into_siblings_anew(connection: Connection, client_key: str) -> None:
    """Nobody speaks for these any more: whatever their next failure looks like, it is a question again."""
    siblings = select(credentials.c.conn_id).where(credentials.c.client_key == client_key)
    connection.execute(
        update(incidents)
        .where(
            incidents.c.open_for.is_not(None),
            incidents.c.about == About.CREDENTIAL.value,
            incidents.c.kind == IncidentKind.CLIENT_FAILING.value,
            incidents.c.name.in_(siblings),
        )
        .values(signature="")
    )


def record_closed(connection: Connection, symptom: Symptom, resolution: str, now: datetime) -> None:
    """Keep an incident that is over when it is noticed, such as a false expiry: a matter of record."""
    connection.execute(
        insert(incidents).values(
            about=symptom.about.value,
            name=symptom.name,
            kind=symptom.kind.value,
            summary=symptom.summary,
            owner=symptom.owner,
            signature=symptom.signature,
            alert_route=symptom.alert_route,
            opened_at=min(symptom.opened_at, now),
            noticed_at=now,
            resolved_at=now,
            resolution=resolution,
        )
    )


def record_false_expiry(connection: Connection, credential: Credential, restored_by: str, now: datetime) -> None:
    """A credential was expired and answered a refresh."""
    record_closed(
        connection,
        Symptom(
            about=About.CREDENTIAL,
            name=credential.conn_id,
            kind=IncidentKind.FALSE_EXPIRY,
            summary=f"It was expired since {credential.status_since:%Y-%m-%d %H:%M}Z and answered a refresh.",
            opened_at=credential.status_since,
            alert_route=credential.alert_route,
        ),
        f"restored by {restored_by}",
        now,
    )


def open_about(connection: Connection, about: About, name: str) -> Incident | None:
    row = (
        connection.execute(select(incidents).where(incidents.c.open_for == f"{about.value}/{name}"))
        .mappings()
        .one_or_none()
    )
    return incident_from_row(row) if row else None


def _by_id(connection: Connection, incident_id: int) -> Incident | None:
    row = connection.execute(select(incidents).where(incidents.c.id == incident_id)).mappings().one_or_none()
    return incident_from_row(row) if row else None


def incident_from_row(row: RowMapping | Mapping[str, Any]) -> Incident:
    return Incident(
        id=row["id"],
        about=About(row["about"]),
        name=row["name"],
        kind=IncidentKind(row["kind"]),
        summary=row["summary"],
        opened_at=row["opened_at"],
        noticed_at=row["noticed_at"],
        owner=row["owner"],
        signature=row["signature"],
        alert_route=row["alert_route"],
        last_notified_at=row["last_notified_at"],
        first_notified_at=row["first_notified_at"],
        times_told=row["times_told"],
        resolved_at=row["resolved_at"],
        resolution=row["resolution"] or "",
        escalates_at=row["escalates_at"],
        escalated_at=row["escalated_at"],
        acknowledged_at=row["acknowledged_at"],
        acknowledged_by=row["acknowledged_by"] or "",
        turned_at=row["turned_at"],
        expected_by=row["expected_by"] or "",
        part_of=row["part_of"],
    )
