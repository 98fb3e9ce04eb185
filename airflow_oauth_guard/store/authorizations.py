"""People who are at a provider to approve. What they bring back is taken once, in time, and only from themselves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from airflow_oauth_guard.errors import AuthorizationRefusedError
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.encryption import TokenCipher
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.rows import CREDENTIAL_COLUMNS, CREDENTIALS, credential_from
from airflow_oauth_guard.store.tables import authorizations, credentials

KEPT_FOR = timedelta(days=1)
"""So long after its end an authorization can still be told from one that nobody began."""


@dataclass(frozen=True)
class Authorization:
    """What a person has begun at a provider."""

    credential: Credential
    secret: str = field(repr=False)
    """What the exchange needs and nobody else may know, such as the code verifier of RFC 7636."""
    opened_at: datetime
    ends_at: datetime


class Authorizations:
    def __init__(self, database: Database, cipher: TokenCipher) -> None:
        self._database = database
        self._cipher = cipher

    def open(
        self, credential: Credential, state: str, person: str, secret: str, now: datetime, ends_at: datetime
    ) -> None:
        """Keep that a person goes to the provider. Only a hash of the state is kept."""
        with self._database.write() as connection:
            connection.execute(delete(authorizations).where(authorizations.c.ends_at < now - KEPT_FOR))
            connection.execute(
                insert(authorizations).values(
                    state_hash=_hash(state),
                    credential_id=credential.id,
                    person=person,
                    secret=self._cipher.encrypt(secret),
                    opened_at=now,
                    ends_at=ends_at,
                )
            )

    def find(self, state: str, person: str, now: datetime) -> Authorization:
        """What this person has begun; it can be found again.

        Raises:
            AuthorizationRefusedError: Unless this person began it here, it is not over, and it was not taken before.
        """
        with self._database.read() as connection:
            return self._authorization(connection, _usable(connection, state, person, now))

    def take(self, state: str, person: str, now: datetime) -> Authorization:
        """What this person has begun, once: nobody gets it again. Its secret is forgotten with that.

        Raises:
            AuthorizationRefusedError: As :meth:`find` does. Whoever is refused takes nothing away.
        """
        with self._database.write() as connection:
            row = _usable(connection, state, person, now)
            taken = connection.execute(
                update(authorizations)
                .where(authorizations.c.id == row["id"], authorizations.c.used_at.is_(None))
                .values(used_at=now, secret="")
            )
            if taken.rowcount != 1:
                raise _refused("was used already")
            return self._authorization(connection, row)

    def _authorization(self, connection: Connection, row: RowMapping) -> Authorization:
        query = select(*CREDENTIAL_COLUMNS).select_from(CREDENTIALS).where(credentials.c.id == row["credential_id"])
        credential = credential_from(connection.execute(query).mappings().one())
        return Authorization(credential, self._cipher.decrypt(row["secret"]), row["opened_at"], row["ends_at"])


def _usable(connection: Connection, state: str, person: str, now: datetime) -> RowMapping:
    query = select(authorizations).where(authorizations.c.state_hash == _hash(state))
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise _refused("was not begun here")
    # Before all else: whoever did not begin it learns nothing about it.
    if row["person"] != person:
        raise _refused("was begun by somebody else")
    if row["used_at"] is not None:
        raise _refused("was used already")
    if now >= row["ends_at"]:
        raise _refused(f"is over since {row['ends_at']:%Y-%m-%d %H:%M:%S}Z")
    return row


def _refused(why: str) -> AuthorizationRefusedError:
    return AuthorizationRefusedError(f"This authorization {why}. Begin again from the credential's page.")


def _hash(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()
