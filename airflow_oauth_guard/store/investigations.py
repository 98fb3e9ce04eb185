"""Open questions: at most one per credential, asked of a person at most once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from airflow_oauth_guard.domain.evidence import Evidence, Kind, Observer, Verdict
from airflow_oauth_guard.domain.incidents import RENOTIFY_AFTER, About, IncidentKind
from airflow_oauth_guard.domain.investigation import Conclusion, signature
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError
from airflow_oauth_guard.store import evidence as ledger
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.incidents import open_about
from airflow_oauth_guard.store.records import Credential, Investigation
from airflow_oauth_guard.store.rows import investigation_from
from airflow_oauth_guard.store.tables import investigations


class Investigations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def take_on(
        self, credential: Credential, observer: Observer, now: datetime, *, abandoned_before: datetime | None = None
    ) -> int | None:
        """Take on the credential's open question, if there is one that nobody looks into.

        Args:
            abandoned_before: Who took it on before this instant and has not concluded it is gone.
        """
        free: ColumnElement[bool] = investigations.c.handed_over_at.is_(None)
        if abandoned_before is not None:
            unconcluded = investigations.c.conclusion_evidence_id.is_(None)
            free = or_(free, and_(investigations.c.handed_over_at < abandoned_before, unconcluded))
        with self._database.write() as connection:
            question = _open_id(connection, credential.id)
            taken = connection.execute(
                update(investigations)
                .where(investigations.c.id == question, free)
                .values(handed_over_at=now, **ledger.observed_by(observer))
            )
            return question if taken.rowcount == 1 else None

    def handed_over(self, questions: Sequence[int], now: datetime) -> None:
        """These have been given to somebody who will look into them."""
        with self._database.write() as connection:
            connection.execute(
                update(investigations).where(investigations.c.id.in_(questions)).values(handed_over_at=now)
            )

    def was_declined(self, credential: Credential) -> str | None:
        """Who said, of the tokens the credential has now, that it is to be kept."""
        with self._database.read() as connection:
            return connection.execute(
                select(investigations.c.answered_by)
                .where(
                    investigations.c.credential_id == credential.id,
                    investigations.c.generation == credential.generation,
                    investigations.c.answer == "declined",
                )
                .limit(1)
            ).scalar_one_or_none()

    def row(self, investigation_id: int) -> RowMapping:
        """Raises:
        NotRegisteredError: If there is no such investigation.
        """
        with self._database.read() as connection:
            row = (
                connection.execute(select(investigations).where(investigations.c.id == investigation_id))
                .mappings()
                .one_or_none()
            )
        if row is None:
            raise NotRegisteredError(
                f"There is no investigation {investigation_id}. ProbeSensor, approval and ExpireOperator take the "
                "number that a RefreshOperator handed over."
            )
        return row

    def evidence(self, investigation: Investigation) -> list[Evidence]:
        """In order of time, beginning with the refresh that raised the question."""
        with self._database.read() as connection:
            return ledger.of_investigation(connection, investigation.id, investigation.opening_evidence_id)

    def concluded_at(self, investigation: Investigation) -> datetime | None:
        """When it was concluded; None before."""
        with self._database.read() as connection:
            conclusion = ledger.by_id(connection, investigation.credential.id, investigation.conclusion_evidence_id)
            return conclusion.observed_at if conclusion else None

    def asked(self, investigation_id: int, observer: Observer, now: datetime) -> None:
        """A person has been asked, and the request waits where ``observer`` is. The first one counts."""
        with self._database.write() as connection:
            connection.execute(
                update(investigations)
                .where(investigations.c.id == investigation_id, investigations.c.asked_at.is_(None))
                .values(asked_at=now, **ledger.observed_by(observer))
            )

    def answered(self, investigation_id: int, answer: str, by: str, now: datetime) -> None:
        """A person answered, or time ran out."""
        with self._database.write() as connection:
            connection.execute(
                update(investigations)
                .where(investigations.c.id == investigation_id)
                .values(answer=answer, answered_by=by, answered_at=now)
            )

    def open_for(self, credential: Credential) -> Investigation | None:
        """The open question about this credential."""
        query = select(investigations).where(investigations.c.open_for == credential.id)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return investigation_from(row, credential) if row else None

    def close(self, investigation_id: int, now: datetime) -> None:
        with self._database.write() as connection:
            connection.execute(
                update(investigations)
                .where(investigations.c.id == investigation_id, investigations.c.closed_at.is_(None))
                .values(closed_at=now, open_for=None)
            )

    def open_ones(self) -> list[RowMapping]:
        """Every open question, oldest first."""
        with self._database.read() as connection:
            query = select(investigations).where(investigations.c.open_for.is_not(None))
            return list(connection.execute(query.order_by(investigations.c.id)).mappings())


def conclude(
    connection: Connection, investigation_id: int, conclusion: Conclusion, evidence_id: int | None, now: datetime | None
) -> None:
    """Write down what was concluded, and close the question ``now`` unless a person is still to be asked."""
    connection.execute(
        update(investigations)
        .where(investigations.c.id == investigation_id)
        .values(
            conclusion_evidence_id=evidence_id,
            finding=conclusion.finding.value,
            explanation=conclusion.explanation,
            owner=conclusion.owner.name,
            **({"closed_at": now, "open_for": None} if now else {}),
        )
    )


def is_unconcluded(connection: Connection, investigation_id: int) -> bool:
    """Whether it is open and has no conclusion yet."""
    found = connection.execute(
        select(investigations.c.id).where(
            investigations.c.id == investigation_id,
            investigations.c.open_for.is_not(None),
            investigations.c.conclusion_evidence_id.is_(None),
        )
    )
    return found.first() is not None


def close_open_investigation(connection: Connection, credential_id: int, because: str, now: datetime) -> None:
    """The question has answered itself."""
    connection.execute(
        update(investigations)
        .where(investigations.c.open_for == credential_id)
        .values(closed_at=now, open_for=None, explanation=because)
    )


def raise_question(
    connection: Connection, credential: Credential, failed: Evidence, now: datetime, *, lost: bool = False
) -> None:
    """Open a question about this failure, unless one is open, or it was looked into and looks the same as then.

    Args:
        lost: The failure may have spent the token. That is a matter of its own, whatever it looks like, and what was
            concluded before it does not hold any more.
    """
    if lost:
        connection.execute(
            update(investigations)
            .where(
                investigations.c.open_for == credential.id,
                investigations.c.conclusion_evidence_id.is_not(None),
                investigations.c.finding != IncidentKind.AMBIGUOUS.value,
            )
            .values(closed_at=now, open_for=None, explanation="a later refresh has no answer, so this does not hold")
        )
    if (question := _open_id(connection, credential.id)) is not None:
        # While nobody has taken it on, the question is about the latest failure.
        connection.execute(
            update(investigations)
            .where(investigations.c.id == question, investigations.c.handed_over_at.is_(None))
            .values(opening_evidence_id=failed.id, generation=failed.generation)
        )
        return
    incident = open_about(connection, About.CREDENTIAL, credential.conn_id)
    looks_the_same = incident is not None and (
        incident.kind is IncidentKind.AMBIGUOUS if lost else incident.signature == signature(failed)
    )
    if looks_the_same and not (_may_ask_again(connection, credential, now) or _may_lapse(connection, credential, now)):
        return
    _insert(connection, credential, failed, now)


def _insert(connection: Connection, credential: Credential, raised_by: Evidence, now: datetime) -> None:
    try:
        with connection.begin_nested():
            connection.execute(
                insert(investigations).values(
                    credential_id=credential.id,
                    generation=raised_by.generation,
                    opened_at=now,
                    open_for=credential.id,
                    opening_evidence_id=raised_by.id,
                    **ledger.observed_by(raised_by.observer),
                )
            )
    except IntegrityError:
        # Another worker raised it in between; if it did not, this error is about something else.
        if _open_id(connection, credential.id) is None:
            raise


def _may_ask_again(connection: Connection, credential: Credential, now: datetime) -> bool:
    """Whether the last question ended a day ago or more, unless a person decided it."""
    last = (
        connection.execute(
            select(investigations)
            .where(investigations.c.credential_id == credential.id)
            .order_by(investigations.c.id.desc())
            .limit(1)
        )
        .mappings()
        .one_or_none()
    )
    if last is None:
        return False
    # Causes pass without anything looking different: a clock that was wrong, a control that was not to be had.
    ended_at = last["answered_at"] if last["answer"] == "unanswered" else last["closed_at"]
    return ended_at is not None and last["answer"] != "declined" and bool(ended_at <= now - RENOTIFY_AFTER)


def _may_lapse(connection: Connection, credential: Credential, now: datetime) -> bool:
    """Whether an access token that was probed when the failures began may have died since."""
    probe = ledger.latest(connection, credential.id, (Kind.PROBE,))
    if probe is None or credential.status is not Status.ACTIVE or now - probe.observed_at < PROBE_AGAIN_AFTER:
        return False
    return probe.verdict is not Verdict.LIVE or credential.life.remaining(now) == timedelta()


PROBE_AGAIN_AFTER = timedelta(hours=1)
"""How long one probe speaks for the access token of a credential whose refreshes keep failing."""


def _open_id(connection: Connection, credential_id: int) -> int | None:
    found = connection.execute(select(investigations.c.id).where(investigations.c.open_for == credential_id))
    return found.scalar_one_or_none()
