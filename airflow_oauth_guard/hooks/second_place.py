"""Where an answer goes when the store cannot take it: an Airflow Variable, encrypted with the store's key.

The answer may hold the only copy of the next refresh token, and the store may be gone for longer than this task lives.
The Variable is named after the intent in the journal, so the next run finds it without searching.
"""

from __future__ import annotations

import logging

from asgiref.sync import sync_to_async

log = logging.getLogger(__name__)

DESCRIPTION = (
    "OAuth Guard: an answer its store could not take, encrypted. The next refresh takes it in and deletes this."
)


def variable(intent_id: int) -> str:
    """The name of the Variable that an intent's answer goes to."""
    return f"oauth_guard_answer_{intent_id}"


async def put(intent_id: int, sealed: str) -> None:
    """Keep a sealed answer. Through asgiref, as Airflow's triggerer wants it; a worker does not mind."""
    from airflow.sdk import Variable

    await sync_to_async(Variable.set)(variable(intent_id), sealed, DESCRIPTION)
    log.warning("The store is gone; the provider's answer is kept, encrypted, in Variable `%s`", variable(intent_id))


async def look(intent_id: int) -> str | None:
    """The sealed answer, if there is one."""
    from airflow.sdk import Variable

    found: str | None = await sync_to_async(Variable.get)(variable(intent_id), default=None)
    return found


async def clear(intent_id: int) -> None:
    """Its answer has been taken in. Doing this twice, or where there never was one, does nothing."""
    from airflow.sdk import Variable

    if await look(intent_id) is not None:
        await sync_to_async(Variable.delete)(variable(intent_id))
