"""The history of one credential, as people read it: what was seen, what it changed, and which tokens it has had."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, or_, select

from airflow_oauth_guard.domain.evidence import Evidence, Kind, Observer, Subject, Verdict
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError, StoreConfigurationError
from airflow_oauth_guard.store import evidence as ledger
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.encryption import TokenCipher, fingerprint
from airflow_oauth_guard.store.records import RESEEDED, Credential, Investigation
from airflow_oauth_guard.store.rows import investigation_from
from airflow_oauth_guard.store.tables import credentials, evidence, intents, investigations, tokens, transitions


@dataclass(frozen=True)
class Transition:
    """A change of the status, and what carried it."""

    id: int
    from_status: Status
    to_status: Status
    evidence_id: int
    reason: str
    became_true_at: datetime
    written_at: datetime
    observer: Observer


@dataclass(frozen=True)
class Generation:
    """One generation of tokens, by name: a fingerprint shows that two are the same, and nothing else."""

    number: int
    access_fingerprint: str
    """Empty where there was none, nobody knows any more, or no key opens it."""
    refresh_fingerprint: str
    issued_at: datetime | None
    """When the provider issued it or a person put it in; None where that is not known any more."""
    is_current: bool


class Timeline:
    def __init__(self, database: Database, cipher: TokenCipher) -> None:
        self._database = database
        self._cipher = cipher

    def page(
        self, credential: Credential, *, before: int | None = None, limit: int = 50, kinds: Collection[Kind] = ()
    ) -> list[Evidence]:
        """What was seen, newest first.

        Args:
            before: Only what has a smaller number: the last of the page before.
            kinds: Only these; all where none is named.
        """
        query = _of(credential).order_by(evidence.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(evidence.c.id < before)
        if kinds:
            query = query.where(evidence.c.kind.in_([kind.value for kind in kinds]))
        return self._seen(query)

    def evidence(self, credential: Credential, evidence_id: int) -> Evidence:
        """Raises:
        NotRegisteredError: If there is none of that number about this credential.
        """
        with self._database.read() as connection:
            found = ledger.by_id(connection, credential.id, evidence_id)
        if found is None:
            raise NotRegisteredError(
                f"Credential `{credential.conn_id}` has no evidence {evidence_id}: it is about another, or was purged."
            )
        return found

    def those(self, credential: Credential, ids: Collection[int]) -> list[Evidence]:
        """What a conclusion rests on, in order of time; a control may have been run for a sibling."""
        siblings = select(credentials.c.id).where(credentials.c.client_key == credential.client_key)
        control = (evidence.c.kind == Kind.CONTROL.value) & evidence.c.credential_id.in_(siblings)
        query = select(evidence).where(evidence.c.id.in_(ids), or_(evidence.c.credential_id == credential.id, control))
        return self._seen(query.order_by(evidence.c.id))

    def of_investigation(self, investigation_id: int) -> list[Evidence]:
        """All that was looked at in it, controls too, beginning with the refresh that raised the question.

        Raises:
            NotRegisteredError: If there is no such investigation.
        """
        opening = select(investigations.c.opening_evidence_id).where(investigations.c.id == investigation_id)
        with self._database.read() as connection:
            opening_id = connection.execute(opening).scalar_one_or_none()
            if opening_id is None:
                raise NotRegisteredError(f"There is no investigation {investigation_id}.")
            return ledger.of_investigation(connection, investigation_id, opening_id)

    def investigations(self, credential: Credential, limit: int = 50) -> list[Investigation]:
        """Its questions, newest first."""
        query = select(investigations).where(investigations.c.credential_id == credential.id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(investigations.c.id.desc()).limit(limit)).mappings()
            return [investigation_from(row, credential) for row in rows]

    def transitions(self, credential: Credential, limit: int = 200) -> list[Transition]:
        """Its changes of status, newest first."""
        query = select(transitions).where(transitions.c.credential_id == credential.id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(transitions.c.id.desc()).limit(limit)).mappings()
            return [_transition(row) for row in rows]

    def generations(self, credential: Credential, limit: int = 50) -> list[Generation]:
        """Its tokens by fingerprint, newest first. Of those before the last two only what was sent is known."""
        with self._database.read() as connection:
            row = connection.execute(select(tokens).where(tokens.c.credential_id == credential.id)).mappings().one()
            newest: int = row["generation"]
            oldest = max(1, newest - limit + 1)
            issued = _issued(connection, credential.id, oldest)
            sent = _sent(connection, credential.id, oldest)
        kept = {
            newest - 1: self._names(row["previous_access_token"], row["previous_refresh_token"]),
            newest: self._names(row["access_token"], row["refresh_token"]),
        }
        # A class that stores no refresh token sends its access token.
        sends_access = not (row["refresh_token"] or row["previous_refresh_token"])

        def names(number: int) -> tuple[str, str]:
            if any(kept.get(number, ())):
                return kept[number]
            return (sent.get(number, ""), "") if sends_access else ("", sent.get(number, ""))

        return [
            Generation(
                number,
                *names(number),
                issued_at=(row["issued_at"] if number == newest else None) or issued.get(number),
                is_current=number == newest,
            )
            for number in range(newest, oldest - 1, -1)
        ]

    def _seen(self, query: Select[Any]) -> list[Evidence]:
        with self._database.read() as connection:
            return [ledger.from_row(row) for row in connection.execute(query).mappings()]

    def _names(self, access_token: str, refresh_token: str) -> tuple[str, str]:
        return self._name(access_token), self._name(refresh_token)

    def _name(self, stored: str) -> str:
        try:
            return fingerprint(self._cipher.decrypt(stored)) if stored else ""
        except StoreConfigurationError:
            # The rest of the history can be read all the same; whoever wants to use the token hears of it.
            return ""


def _issued(connection: Connection, credential_id: int, oldest: int) -> dict[int, datetime]:
    """When each generation came, by what brought it: a success with the one before, or a person's new tokens."""
    query = (
        select(evidence.c.generation, evidence.c.observed_at)
        .where(
            evidence.c.credential_id == credential_id,
            evidence.c.generation >= oldest - 1,
            evidence.c.subject == Subject.GRANT.value,
            evidence.c.verdict == Verdict.LIVE.value,
            or_(evidence.c.kind.in_([kind.value for kind in _ISSUING]), evidence.c.rule == RESEEDED),
        )
        .order_by(evidence.c.id)
    )
    return {row.generation + 1: row.observed_at for row in connection.execute(query)}


_ISSUING = (Kind.REFRESH, Kind.CONNECT)


def _sent(connection: Connection, credential_id: int, oldest: int) -> dict[int, str]:
    """The fingerprint of what was sent of each generation."""
    query = select(intents.c.generation, intents.c.token_fingerprint).where(
        intents.c.credential_id == credential_id, intents.c.generation >= oldest, intents.c.token_fingerprint != ""
    )
    return {row.generation: row.token_fingerprint for row in connection.execute(query.order_by(intents.c.id))}


def _of(credential: Credential) -> Select[Any]:
    return select(evidence).where(evidence.c.credential_id == credential.id)


def _transition(row: RowMapping) -> Transition:
    return Transition(
        id=row["id"],
        from_status=Status(row["from_status"]),
        to_status=Status(row["to_status"]),
        evidence_id=row["evidence_id"],
        reason=row["reason"],
        became_true_at=row["became_true_at"],
        written_at=row["written_at"],
        observer=ledger.observer_from(row),
    )
