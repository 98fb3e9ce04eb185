"""Consumers: which tasks use which credential, and all that one of them needs to know of it, in a single look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import and_, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from airflow_oauth_guard.domain.reach import COUNTED_FOR, OWN_DAGS
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.encryption import TokenCipher
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.rows import CREDENTIAL_COLUMNS, CREDENTIALS, credential_from
from airflow_oauth_guard.store.tables import consumers, credentials, tokens

WRITTEN_ANEW_AFTER = timedelta(hours=1)
"""A task that uses a credential all day is written down once an hour."""


@dataclass(frozen=True)
class Look:
    """A credential and its access token as one task sees them."""

    credential: Credential
    access_token: str = field(repr=False)
    """Empty where there is none."""
    used_at: datetime | None
    """When this task was written down as a consumer last."""

    def is_fresh(self, now: datetime) -> bool:
        """Whether the token may be used as it is, and nothing has to be asked first."""
        credential = self.credential
        has_life = bool(self.access_token) and credential.life.remaining(now) > timedelta()
        return has_life and credential.is_active and not credential.is_due(now)

    def is_news(self, now: datetime) -> bool:
        """Whether the task is to be written down."""
        return self.used_at is None or self.used_at < now - WRITTEN_ANEW_AFTER


@dataclass(frozen=True)
class Consumer:
    """One task that uses a credential."""

    dag_id: str
    task_id: str
    last_used_at: datetime


# Made once: to put it together takes longer than what it asks.
_LOOK = (
    select(*CREDENTIAL_COLUMNS, tokens.c.access_token, consumers.c.last_used_at)
    .select_from(
        CREDENTIALS.outerjoin(
            consumers,
            and_(
                consumers.c.credential_id == credentials.c.id,
                consumers.c.dag_id == bindparam("dag_id"),
                consumers.c.task_id == bindparam("task_id"),
            ),
        )
    )
    .where(credentials.c.conn_id == bindparam("conn_id"))
)


class Consumers:
    def __init__(self, database: Database, cipher: TokenCipher) -> None:
        self._database = database
        self._cipher = cipher

    def look(self, conn_id: str, dag_id: str | None, task_id: str | None) -> Look | None:
        """What a task needs to know; None of a credential that the store does not know."""
        asked = {"conn_id": conn_id, "dag_id": dag_id or "", "task_id": task_id or ""}
        with self._database.read() as connection:
            row = connection.execute(_LOOK, asked).mappings().one_or_none()
        if row is None:
            return None
        stored = row["access_token"]
        return Look(credential_from(row), self._cipher.decrypt(stored) if stored else "", row["last_used_at"])

    def note(self, credential_id: int, dag_id: str, task_id: str, now: datetime) -> None:
        """Write down that a task uses a credential."""
        mine = and_(
            consumers.c.credential_id == credential_id, consumers.c.dag_id == dag_id, consumers.c.task_id == task_id
        )
        row = {"credential_id": credential_id, "dag_id": dag_id, "task_id": task_id}
        with self._database.write() as connection:
            if connection.execute(update(consumers).where(mine).values(last_used_at=now)).rowcount:
                return
            try:
                with connection.begin_nested():
                    connection.execute(insert(consumers).values(first_used_at=now, last_used_at=now, **row))
            except IntegrityError:
                # Another instance of the task was first; anything else is an error.
                if connection.execute(select(consumers.c.dag_id).where(mine)).first() is None:
                    raise

    def of(self, conn_ids: Sequence[str], now: datetime) -> dict[str, list[Consumer]]:
        """By credential, the tasks that have used it lately, the guard's own left out; those without any are missing."""
        query = (
            select(credentials.c.conn_id, consumers.c.dag_id, consumers.c.task_id, consumers.c.last_used_at)
            .join(consumers, consumers.c.credential_id == credentials.c.id)
            .where(
                credentials.c.conn_id.in_(conn_ids),
                consumers.c.last_used_at >= now - COUNTED_FOR,
                consumers.c.dag_id.not_in(OWN_DAGS),
            )
            .order_by(credentials.c.conn_id, consumers.c.dag_id, consumers.c.task_id)
        )
        found: dict[str, list[Consumer]] = {}
        with self._database.read() as connection:
            for conn_id, dag_id, task_id, last_used_at in connection.execute(query):
                found.setdefault(conn_id, []).append(Consumer(dag_id, task_id, last_used_at))
        return found
