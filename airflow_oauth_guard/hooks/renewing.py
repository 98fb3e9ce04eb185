"""What every way to a credential's next tokens has in common: one process at a time, and nothing lost that the provider answers.

Take the lease; journal the intent; call; keep the raw answer; parse; store the tokens. Each step is committed before the
next begins. A process that dies on the way leaves an intent behind, and the next one knows from it what is not known.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from asyncio import to_thread
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer
from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.errors import StoreUnavailableError
from airflow_oauth_guard.grants.flow import HttpRequest
from airflow_oauth_guard.hooks import second_place
from airflow_oauth_guard.hooks.config import duration
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.records import Credential, Lease

if TYPE_CHECKING:
    from airflow_oauth_guard.hooks.base import OAuthGuardHook
    from airflow_oauth_guard.store.store import Store

log = logging.getLogger(__name__)

Result = TypeVar("Result")

LEASE_OVER_DEADLINE = timedelta(seconds=60)
"""A lease outlives the longest call by this much: to journal it, and to keep and store what it brings."""

WAIT_OVER_DEADLINE = timedelta(seconds=5)
"""A loser waits for one whole call of the winner and this much for what it writes."""

KEEP_WITHIN = timedelta(seconds=60)
"""How long the store may take over an answer before it goes to the second place."""

KEEP_TRYING = timedelta(minutes=5)
"""How long an answer that neither the store nor Airflow takes is held on to before the task gives up."""

NEVER = datetime.max.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Renewal:
    """Brings a credential its next tokens, under a lease."""

    hook: OAuthGuardHook
    store: Store
    observer: Observer

    # -- the lease ----------------------------------------------------------------------------------------------

    async def _patiently(self, attempt: Callable[[], Awaitable[Result | None]]) -> Result | None:
        """Try for as long as whoever has the lease may need it; None if that did not suffice."""
        tries: tenacity.AsyncRetrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda taken: taken is None),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=1),
            stop=tenacity.stop_after_delay(patience()),
            retry_error_callback=lambda _: None,
        )
        taken: Result | None = await tries(attempt)
        return taken

    async def _lease_if_free(self, newest: Credential) -> Lease | None:
        if newest.is_leased(utcnow()):
            return None
        ttl = duration("request_deadline_seconds") + LEASE_OVER_DEADLINE
        return await to_thread(self.store.credentials.lease, newest.conn_id, secrets.token_hex(8), ttl, utcnow())

    async def _give_back(self, lease: Lease) -> None:
        try:
            await to_its_end(to_thread(self.store.credentials.release, lease))
        except StoreUnavailableError:
            # What came of it must not be hidden by this: the lease runs out by itself.
            log.warning("The lease of `%s` could not be given back", lease.credential.conn_id, exc_info=True)

    # -- one call -----------------------------------------------------------------------------------------------

    async def _call_and_keep(
        self,
        lease: Lease,
        intent_id: int,
        request: HttpRequest,
        *,
        token: str,
        began: datetime,
        until: datetime = NEVER,
    ) -> Answer | None:
        """Send what was journalled, and keep what comes before anybody parses it.

        None, and nothing sent, if it is too late by now: the lease that began with the intent covers a call that begins
        soon, and no later one.

        Args:
            token: What a refresh of this generation sends; the second place is named after it.
            began: When the intent was opened.
        """
        if utcnow() >= min(began + LEASE_OVER_DEADLINE / 2, until):
            await to_thread(self.store.credentials.withdraw_intent, intent_id, utcnow())
            return None
        answer = await self.hook.send(request)
        if isinstance(answer, HttpAnswer):
            sealed = self.store.credentials.seal_answer(answer)
            await self._keep(intent_id, sealed, second_place.name(lease.credential.conn_id, token, intent_id))
        return answer

    async def _keep(self, intent_id: int, sealed: str, variable: str) -> None:
        """Keep the raw answer before anybody parses it, wherever it can be kept."""
        try:
            await asyncio.wait_for(
                to_thread(self.store.credentials.keep_answer, intent_id, sealed), KEEP_WITHIN.total_seconds()
            )
        except Exception as error:
            await self._keep_anywhere(intent_id, sealed, variable)
            if isinstance(error, asyncio.TimeoutError):
                raise StoreUnavailableError(f"The store did not answer within {words(KEEP_WITHIN)}.") from error
            raise

    @tenacity.retry(
        stop=tenacity.stop_after_delay(KEEP_TRYING),
        wait=tenacity.wait_random_exponential(max=10),
        before_sleep=tenacity.before_sleep_log(log, logging.ERROR),
        reraise=True,
    )
    async def _keep_anywhere(self, intent_id: int, sealed: str, variable: str) -> None:
        try:
            await second_place.put(variable, sealed)
        except Exception:
            # Airflow does not take it either, or this process is no task of its; the store may be back by now.
            log.exception("The answer to refresh %d could not be kept in a Variable", intent_id)
            await to_thread(self.store.credentials.keep_answer, intent_id, sealed)


def patience() -> timedelta:
    """How long to wait for whoever has the lease."""
    return duration("request_deadline_seconds") + WAIT_OVER_DEADLINE


async def to_its_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await it to its end, whoever cancels us meanwhile; that is heard afterwards."""
    under_way = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not under_way.done():
        try:
            await asyncio.shield(under_way)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:  # noqa: BLE001 - raised below, by the result
            break
    if cancelled is not None:
        raise cancelled
    return under_way.result()
