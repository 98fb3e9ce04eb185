"""Open questions: at most one per credential, asked of a person at most once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, RowMapping, insert, select, update
from sqlalchemy.exc import IntegrityError

from airflow_oauth_guard.domain.evidence import Evidence, Observer
from airflow_oauth_guard.domain.incidents import RENOTIFY_AFTER
from airflow_oauth_guard.domain.investigation import Conclusion
from airflow_oauth_guard.errors import NotRegisteredError
from airflow_oauth_guard.store import evidence as ledger
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.records import Credential, Investigation
from airflow_oauth_guard.store.tables import investigations


class Investigations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, credential: Credential, raised_by: Evidence, observer: Observer, now: datetime) -> int | None:
        """Claim the question this failed refresh raises; None if one is open already."""
        with self._database.write() as connection:
            if _open_id(connection, credential.id) is not None:
                return None
            try:
                with connection.begin_nested():
                    result = connection.execute(
                        insert(investigations).values(
                            credential_id=credential.id,
                            generation=raised_by.generation,
                            opened_at=now,
                            open_for=credential.id,
                            opening_evidence_id=raised_by.id,
                            **ledger.observed_by(observer),
                        )
                    )
            except IntegrityError:
                # Another worker claimed it in between; if it did not, this error is about something else.
                if _open_id(connection, credential.id) is None:
                    raise
                return None
            assert result.inserted_primary_key is not None
            return int(result.inserted_primary_key[0])

    def may_ask_again(self, credential: Credential, now: datetime) -> bool:
        """Whether the last question ended because nobody answered, and that was long enough ago to ask again."""
        with self._database.read() as connection:
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
        return last is not None and last["answer"] == "unanswered" and last["answered_at"] <= now - RENOTIFY_AFTER

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

    def conclude(
        self, investigation_id: int, conclusion: Conclusion, evidence_id: int | None, *, close: bool, now: datetime
    ) -> None:
        """Write down what was concluded; ``close`` unless a person is still to be asked."""
        with self._database.write() as connection:
            connection.execute(
                update(investigations)
                .where(investigations.c.id == investigation_id)
                .values(
                    conclusion_evidence_id=evidence_id,
                    finding=conclusion.finding.value,
                    explanation=conclusion.explanation,
                    owner=conclusion.owner.name,
                    **({"closed_at": now, "open_for": None} if close else {}),
                )
            )

    def asked(self, investigation_id: int, now: datetime) -> None:
        """A person has been asked."""
        with self._database.write() as connection:
            connection.execute(
                update(investigations)
                .where(investigations.c.id == investigation_id, investigations.c.asked_at.is_(None))
                .values(asked_at=now)
            )

    def answered(self, investigation_id: int, answer: str, by: str, now: datetime) -> None:
        """A person answered, or time ran out."""
        with self._database.write() as connection:
            connection.execute(
                update(investigations)
                .where(investigations.c.id == investigation_id)
                .values(answer=answer, answered_by=by, answered_at=now)
            )

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


def close_open_investigation(connection: Connection, credential_id: int, because: str, now: datetime) -> None:
    """The question has answered itself."""
    connection.execute(
        update(investigations)
        .where(investigations.c.open_for == credential_id)
        .values(closed_at=now, open_for=None, explanation=because)
    )


def _open_id(connection: Connection, credential_id: int) -> int | None:
    found = connection.execute(select(investigations.c.id).where(investigations.c.open_for == credential_id))
    return found.scalar_one_or_none()
