"""What the credentials of one client (one app at one provider) tell about each other."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, distinct, func, literal, or_, select

from airflow_oauth_guard.domain.brake import Brake, Downgrades
from airflow_oauth_guard.domain.evidence import Evidence, Kind, Verdict
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.investigation import (
    CONTROLS_PER_DAY,
    SIBLING_WINDOW,
    SIBLINGS_WITHIN,
    Siblings,
)
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.tables import credentials, evidence, incidents, investigations, transitions

NAMED = 5
"""How many siblings an explanation names."""

BASELINE_AFTER = timedelta(days=7)
"""How often a probe is tried out with a token fresh from the provider."""


class Clients:
    def __init__(self, database: Database) -> None:
        self._database = database

    def siblings(self, credential: Credential, failed: Evidence) -> Siblings:
        """How the others are doing, as seen from one that failed."""
        with self._database.read() as connection:
            failing = _failing_alike(credential, failed)
            count = _count(connection, failing)
            named = connection.execute(failing.order_by(credentials.c.conn_id).limit(NAMED)).scalars()
            names = tuple(str(name) for name in named)
            working = select(func.count(distinct(evidence.c.credential_id))).where(
                evidence.c.kind == Kind.REFRESH.value,
                evidence.c.verdict == Verdict.LIVE.value,
                evidence.c.observed_at >= _began_at(connection, credential, failed),
                evidence.c.credential_id.in_(_of(credential, but_itself=True).where(credentials.c.failures == 0)),
            )
            return Siblings(failing=count, working=int(connection.execute(working).scalar_one()), names=names)

    def may_control(self, credential: Credential, now: datetime) -> bool:
        """Whether the client's budget of controls has something left for today."""
        with self._database.read() as connection:
            spent = select(evidence.c.id).where(
                evidence.c.kind == Kind.CONTROL.value,
                evidence.c.observed_at >= now - timedelta(days=1),
                evidence.c.credential_id.in_(_of(credential)),
            )
            return _count(connection, spent) < CONTROLS_PER_DAY

    def probe_worked(self, credential: Credential, shape_id: str, now: datetime) -> bool:
        """The baseline: whether this very probe was answered before, for this credential or lately for a sibling."""
        with self._database.read() as connection:
            found = connection.execute(
                select(evidence.c.id)
                .where(
                    evidence.c.shape_id == shape_id,
                    evidence.c.verdict == Verdict.LIVE.value,
                    evidence.c.kind == Kind.PROBE.value,
                    or_(
                        evidence.c.credential_id == credential.id,
                        evidence.c.credential_id.in_(_of(credential))
                        & (evidence.c.observed_at >= now - SIBLING_WINDOW),
                    ),
                )
                .limit(1)
            )
            return found.first() is not None

    def baseline_is_due(self, credential: Credential, shape_id: str, now: datetime) -> bool:
        """Whether this very probe has not been sent for this credential for so long that it should be tried out."""
        with self._database.read() as connection:
            found = connection.execute(
                select(evidence.c.id)
                .where(
                    evidence.c.credential_id == credential.id,
                    evidence.c.kind == Kind.PROBE.value,
                    evidence.c.shape_id == shape_id,
                    evidence.c.observed_at >= now - BASELINE_AFTER,
                )
                .limit(1)
            )
            return found.first() is None

    def brake(self, credential: Credential, brake: Brake, now: datetime) -> str:
        """Why one more downgrade of this client's credentials is not to happen without a person; empty if it may."""
        with self._database.read() as connection:
            client = _downgrades(connection, _of(credential), credential, now - brake.window)
            everybody = _downgrades(connection, select(credentials.c.id), credential, now - brake.window)
        return brake.stops(client, "of this client") or brake.stops(everybody, "altogether")


def _of(credential: Credential, *, but_itself: bool = False) -> Select[tuple[int]]:
    query = select(credentials.c.id).where(credentials.c.client_key == credential.client_key)
    return query.where(credentials.c.id != credential.id) if but_itself else query


def _failing_alike(credential: Credential, failed: Evidence) -> Select[tuple[str]]:
    """Those that began to fail in the same way lately; not those whose death is known, which is their own."""
    known_dead = select(incidents.c.id).where(
        incidents.c.open_for == literal(f"{About.CREDENTIAL.value}/") + credentials.c.conn_id,
        incidents.c.kind == IncidentKind.GRANT_DEAD.value,
    )
    return select(credentials.c.conn_id).where(
        credentials.c.client_key == credential.client_key,
        credentials.c.id != credential.id,
        credentials.c.failures > 0,
        _alike(failed).where(evidence.c.credential_id == credentials.c.id).exists(),
        ~known_dead.exists(),
    )


def _alike(failed: Evidence) -> Select[tuple[int]]:
    return select(evidence.c.id).where(
        evidence.c.kind == Kind.REFRESH.value,
        evidence.c.finding == failed.finding.value,
        evidence.c.observed_at >= failed.observed_at - SIBLINGS_WITHIN,
    )


def _began_at(connection: Connection, credential: Credential, failed: Evidence) -> datetime:
    """When the first of them failed that way: whoever was refreshed since shares no cause with them."""
    alike = _alike(failed).where(evidence.c.credential_id.in_(_of(credential))).subquery()
    query = select(func.min(evidence.c.observed_at)).where(evidence.c.id.in_(select(alike.c.id)))
    began: datetime | None = connection.execute(query).scalar_one()
    return min(began, failed.observed_at) if began else failed.observed_at


def _downgrades(
    connection: Connection, group: Select[tuple[int]], credential: Credential, since: datetime
) -> Downgrades:
    """Of the group, without this credential: who was downgraded since, or is proven dead and waits for it."""
    written = select(transitions.c.credential_id).where(
        transitions.c.to_status.in_([Status.LAPSED.value, Status.EXPIRED.value]),
        transitions.c.became_true_at >= since,
        transitions.c.credential_id.in_(group),
        transitions.c.credential_id != credential.id,
    )
    waiting = select(investigations.c.credential_id).where(
        investigations.c.open_for.is_not(None),
        investigations.c.finding == "grant_dead",
        investigations.c.credential_id.in_(group),
        investigations.c.credential_id != credential.id,
    )
    return Downgrades(others=_count(connection, written.union(waiting)), size=_count(connection, group))


def _count(connection: Connection, query: object) -> int:
    rows = query.subquery()  # type: ignore[attr-defined]
    return int(connection.execute(select(func.count()).select_from(rows)).scalar_one())
