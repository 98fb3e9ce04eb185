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

from sqlalchemy import Connection, func, insert, or_, select, update

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.domain.clock import parse_instant
from airflow_oauth_guard.store.encryption import fingerprint
from airflow_oauth_guard.store.tables import intents


class Ended(str, Enum):
    """What became of an intent."""

    RENEWED = "renewed"
    REFUSED = "refused"
    """The provider cannot have issued tokens for it."""
    LOST = "lost"
    """The provider may have issued tokens that did not reach us."""


@dataclass(frozen=True)
class Intent:
    """One refresh that was about to be sent."""

    id: int
    generation: int
    token_fingerprint: str
    opened_at: datetime
    answer: str | None
    """Encrypted, as it was kept."""
    outcome: Ended | None


_SPENT_PERHAPS = or_(intents.c.outcome.is_(None), intents.c.outcome == Ended.LOST.value)


def open_intent(connection: Connection, credential_id: int, generation: int, token: str, now: datetime) -> int:
    """Journal that a refresh is about to be sent; whatever was left open before is lost."""
    connection.execute(
        update(intents)
        .where(intents.c.credential_id == credential_id, intents.c.outcome.is_(None))
        .values(outcome=Ended.LOST.value, closed_at=now)
    )
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


def unsettled(connection: Connection, credential_id: int, generation: int) -> Intent | None:
    """The newest refresh of this generation that may have spent its token without our having the next one."""
    row = (
        connection.execute(
            select(intents)
            .where(intents.c.credential_id == credential_id, intents.c.generation == generation, _SPENT_PERHAPS)
            .order_by(intents.c.id.desc())
            .limit(1)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        return None
    outcome = Ended(row["outcome"]) if row["outcome"] else None
    names = ("id", "generation", "token_fingerprint", "opened_at", "answer")
    return Intent(outcome=outcome, **{name: row[name] for name in names})


def lost_since(connection: Connection, credential_id: int, generation: int) -> datetime | None:
    """When the first refresh of this generation was sent that may have spent its token; None if there is none."""
    first: datetime | None = connection.execute(
        select(func.min(intents.c.opened_at)).where(
            intents.c.credential_id == credential_id, intents.c.generation == generation, _SPENT_PERHAPS
        )
    ).scalar_one()
    return first


def answer_as_text(answer: HttpAnswer, intent_id: int) -> str:
    """An answer as text to be encrypted. It names its intent, so that it cannot be taken for another's."""
    return json.dumps(
        {
            "intent": intent_id,
            "status": answer.status,
            "headers": dict(answer.headers),
            "body": base64.b64encode(answer.body).decode(),
            "received_at": answer.received_at.isoformat(),
        }
    )


def answer_from_text(text: str, intent_id: int) -> HttpAnswer:
    """Read back what :func:`answer_as_text` wrote.

    Raises:
        ValueError: If it answers another intent; release 0.1.0 named none.
    """
    kept = json.loads(text)
    if kept.get("intent", intent_id) != intent_id:
        raise ValueError(f"The kept answer belongs to refresh {kept['intent']}, not to {intent_id}.")
    return HttpAnswer(
        status=kept["status"],
        headers=kept["headers"],
        body=base64.b64decode(kept["body"]),
        received_at=parse_instant(kept["received_at"], "received_at"),
    )
