"""Incidents: opened once, told again until resolved, resolved only on positive evidence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from airflow_oauth_guard.domain.incidents import RENOTIFY_AFTER, TIME_MAY_CURE, About, Incident, IncidentKind
from airflow_oauth_guard.errors import StoreUnavailableError
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.tables import credentials, incidents


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
            query = select(incidents).where(incidents.c.open_for.is_not(None)).order_by(incidents.c.opened_at)
            if about is not None:
                query = query.where(incidents.c.about == about.value)
            return [incident_from_row(row) for row in connection.execute(query).mappings()]

    def open_about(self, about: About, name: str) -> Incident | None:
        with self._database.read() as connection:
            return open_about(connection, about, name)

    def history(self, about: About, name: str) -> list[Incident]:
        """Every incident there ever was about this, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(incidents)
                .where(incidents.c.about == about.value, incidents.c.name == name)
                .order_by(incidents.c.id)
            )
            return [incident_from_row(row) for row in rows.mappings()]

    def claim_telling(self, incident: Incident, now: datetime) -> bool:
        """Take the right to tell people about it, so that two checkers send one alert."""
        with self._database.write() as connection:
            claimed = connection.execute(
                update(incidents)
                .where(
                    incidents.c.id == incident.id,
                    incidents.c.resolved_at.is_(None),
                    or_(
                        incidents.c.last_notified_at.is_(None),
                        incidents.c.last_notified_at <= now - RENOTIFY_AFTER,
                    ),
                )
                .values(last_notified_at=now, first_notified_at=func.coalesce(incidents.c.first_notified_at, now))
            )
            return claimed.rowcount == 1

    def give_telling_back(self, incident: Incident) -> None:
        """The alert could not be sent: it is still to be told."""
        with self._database.write() as connection:
            connection.execute(
                update(incidents)
                .where(incidents.c.id == incident.id)
                .values(last_notified_at=incident.last_notified_at, first_notified_at=incident.first_notified_at)
            )


def open_incident(connection: Connection, symptom: Symptom, now: datetime) -> Incident:
    # Another process may open or resolve it between our look and our write; then look again.
    for _ in range(10):
        if (opened := _opened(connection, symptom, now)) is not None:
            return opened
    raise StoreUnavailableError(f"The incident about {symptom.open_for} is opened and resolved by others all the time.")


def _opened(connection: Connection, symptom: Symptom, now: datetime) -> Incident | None:
    current = open_about(connection, symptom.about, symptom.name)
    described = {
        "kind": symptom.kind.value,
        "summary": symptom.summary,
        "owner": symptom.owner,
        "signature": symptom.signature,
        "alert_route": symptom.alert_route,
        "escalates_at": symptom.escalates_at,
    }
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
        # Something else is wrong now than what people were told: tell them anew.
        anew = {} if current.kind is symptom.kind else {"last_notified_at": None}
        connection.execute(update(incidents).where(incidents.c.id == current.id).values(**described, **anew))
    return open_about(connection, symptom.about, symptom.name)


def resolve_incident(
    connection: Connection, about: About, name: str, resolution: str, now: datetime
) -> Incident | None:
    current = open_about(connection, about, name)
    if current is not None:
        connection.execute(
            update(incidents)
            .where(incidents.c.id == current.id, incidents.c.resolved_at.is_(None))
            .values(resolved_at=now, resolution=resolution, open_for=None)
        )
    return current


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


def open_about(connection: Connection, about: About, name: str) -> Incident | None:
    row = (
        connection.execute(select(incidents).where(incidents.c.open_for == f"{about.value}/{name}"))
        .mappings()
        .one_or_none()
    )
    return incident_from_row(row) if row else None


def incident_from_row(row: RowMapping) -> Incident:
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
        resolved_at=row["resolved_at"],
        escalates_at=row["escalates_at"],
    )
