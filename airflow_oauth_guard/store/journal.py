"""The journal of refreshes: what was about to be sent, what came back, and what became of it.

An intent is written before its request is sent and closed when what came of it is stored. So after a crash the
journal says what is not known: an intent that is still open without an answer may have spent the token it names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, or_, select, update

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.domain.clock import parse_instant
from airflow_oauth_guard.store.encryption import fingerprint
from airflow_oauth_guard.store.tables import intents


class Ended(str, Enum):
    """What became of an intent."""

    RENEWED = "renewed"
    REFUSED = "refused"
    """It brought no tokens and cost none: the one that was sent is as good as before."""
    LOST = "lost"
    """It may have spent the token that was sent, and what it brought did not reach us."""


@dataclass(frozen=True)
class Intent:
    """One refresh that was about to be sent."""

    id: int
    opened_at: datetime
    answer: str | None
    """Encrypted, as it was kept."""
    outcome: Ended | None
    sent_token: bool = True
    """False for an exchange, and for a class that sends none: whatever came of it, no token of ours is spent."""


_SENT_TOKEN = intents.c.token_fingerprint != ""
_UNSETTLED = or_(intents.c.outcome.is_(None), intents.c.outcome == Ended.LOST.value)


def open_intent(
    connection: Connection, credential_id: int, generation: int, token: str, now: datetime, *, spends: bool
) -> int:
    """Journal that a refresh is about to be sent; whatever was left open before is closed.

    Args:
        spends: Whether sending a token may spend it. Where it does not, nothing can be lost.
    """
    connection.execute(
        update(intents)
        .where(intents.c.credential_id == credential_id, intents.c.outcome.is_(None) if spends else _UNSETTLED)
        .values(outcome=(Ended.LOST if spends else Ended.REFUSED).value, closed_at=now)
    )
    return _insert(connection, credential_id, generation, token, now)


def open_exchange(connection: Connection, credential_id: int, generation: int, now: datetime) -> int:
    """Journal that what a person brought back is about to be exchanged. What was left open before stays so."""
    return _insert(connection, credential_id, generation, "", now)


def _insert(connection: Connection, credential_id: int, generation: int, token: str, now: datetime) -> int:
    result = connection.execute(
        insert(intents).values(
            credential_id=credential_id, generation=generation, token_fingerprint=fingerprint(token), opened_at=now
        )
    )
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def keep(connection: Connection, intent_id: int, sealed: str) -> None:
    """Keep an answer, unless one is kept already."""
    connection.execute(
        update(intents).where(intents.c.id == intent_id, intents.c.answer.is_(None)).values(answer=sealed)
    )


def close(connection: Connection, intent_id: int, outcome: Ended, now: datetime) -> None:
    """The intent has served. What a lost one brought stays: the next release, or a person, may be able to read it."""
    answer: Mapping[str, Any] = {} if outcome is Ended.LOST else {"answer": None}
    connection.execute(
        update(intents).where(intents.c.id == intent_id).values(outcome=outcome.value, closed_at=now, **answer)
    )


def unsettled(connection: Connection, credential_id: int, generation: int) -> list[Intent]:
    """The intents of this generation that may have brought the next one without our having it; oldest first.

    Those that sent no token only where their answer was kept: nothing is lost with another.
    """
    rows = connection.execute(
        select(intents)
        .where(
            intents.c.credential_id == credential_id,
            intents.c.generation == generation,
            _UNSETTLED,
            or_(_SENT_TOKEN, intents.c.answer.is_not(None)),
        )
        .order_by(intents.c.id)
    ).mappings()
    return [_from_row(row) for row in rows]


def unanswered(connection: Connection, credential_id: int, generation: int) -> list[Intent]:
    """Those of this generation that sent no token and whose answer was not kept here, but maybe elsewhere; oldest first."""
    rows = connection.execute(
        select(intents)
        .where(
            intents.c.credential_id == credential_id,
            intents.c.generation == generation,
            _UNSETTLED,
            ~_SENT_TOKEN,
            intents.c.answer.is_(None),
        )
        .order_by(intents.c.id)
    ).mappings()
    return [_from_row(row) for row in rows]


def _from_row(row: RowMapping) -> Intent:
    return Intent(
        id=row["id"],
        opened_at=row["opened_at"],
        answer=row["answer"],
        outcome=Ended(row["outcome"]) if row["outcome"] else None,
        sent_token=bool(row["token_fingerprint"]),
    )


def answer_as_text(answer: HttpAnswer) -> str:
    """An answer as text to be encrypted."""
    return json.dumps(
        {
            "status": answer.status,
            "headers": dict(answer.headers),
            "body": base64.b64encode(answer.body).decode(),
            "received_at": answer.received_at.isoformat(),
        }
    )


def answer_from_text(text: str) -> HttpAnswer:
    """Read back what :func:`answer_as_text` wrote."""
    kept = json.loads(text)
    return HttpAnswer(
        status=kept["status"],
        headers=kept["headers"],
        body=base64.b64decode(kept["body"]),
        received_at=parse_instant(kept["received_at"], "received_at"),
    )
