"""Where an answer goes when the store cannot take it: an Airflow Variable, encrypted with the store's key.

The answer may hold the only copy of the next refresh token, and the store may be gone for longer than this task lives.
The Variable is named after the refresh it answers, so the next run finds it without searching.

Everything goes through asgiref, as Airflow's triggerer wants it, and one call at a time, as Airflow's connection to its
supervisor is one. Not in the thread that asgiref shares: a process that was forked after that had begun would wait for it
for ever.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from asgiref.sync import sync_to_async

from airflow_oauth_guard.store.encryption import fingerprint

log = logging.getLogger(__name__)

DESCRIPTION = (
    "OAuth Guard: an answer its store could not take, encrypted. The next refresh takes it in and deletes this."
)


def name(conn_id: str, token: str, intent_id: int) -> str:
    """The Variable for the answer to one refresh: of this credential, by this token, with this number in the journal.

    The number alone would not do: a store that was restored or begun anew gives it out again.
    """
    return f"oauth_guard_answer_{fingerprint(f'{conn_id} {token} {intent_id}')}"


async def _asked(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    return await sync_to_async(call, thread_sensitive=False, executor=_thread_of(os.getpid()))(*args, **named)


@cache
def _thread_of(_process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="oauth_guard_second_place")


async def put(variable: str, sealed: str) -> None:
    """Keep a sealed answer."""
    from airflow.sdk import Variable

    await _asked(Variable.set, variable, sealed, DESCRIPTION)
    log.warning("The store is gone; the provider's answer is kept, encrypted, in Variable `%s`", variable)


async def look(variable: str) -> str | None:
    """The sealed answer, if there is one.

    Airflow answers "not found" also where it could not ask. So this is looked at again by each run while the refresh is
    unsettled.
    """
    from airflow.sdk import Variable

    found: str | None = await _asked(Variable.get, variable, default=None)
    return found


async def clear(variable: str) -> None:
    """Its answer has been taken in. Doing this twice, or where there never was one, does nothing."""
    from airflow.sdk import Variable

    if await look(variable) is not None:
        await _asked(Variable.delete, variable)
