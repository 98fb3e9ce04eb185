"""How long work waits for a store that is gone: a database that fails over is back by then, and what was done is not lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import tenacity

from airflow_oauth_guard.errors import StoreUnavailableError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

STORE_PATIENCE = timedelta(minutes=2)

PATIENCE: Mapping[str, Any] = {
    "retry": tenacity.retry_if_exception_type(StoreUnavailableError),
    "wait": tenacity.wait_random_exponential(multiplier=0.5, max=5),
    "stop": tenacity.stop_after_delay(STORE_PATIENCE),
    "before_sleep": tenacity.before_sleep_log(log, logging.WARNING),
    "reraise": True,
}


def patiently(call: Callable[[], Result]) -> Result:
    """Call it, again and again while the store is unavailable.

    Raises:
        StoreUnavailableError: If it still is after :data:`STORE_PATIENCE`.
    """
    found: Result = tenacity.Retrying(**PATIENCE)(call)
    return found


async def apatiently(call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """:func:`patiently` in an event loop."""

    # Tenacity awaits what it can see to be asynchronous; a function that returns a coroutine is not.
    async def awaited() -> Result:
        return await call()

    found: Result = await tenacity.AsyncRetrying(**PATIENCE)(awaited)
    return found
