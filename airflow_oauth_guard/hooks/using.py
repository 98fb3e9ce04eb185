"""A consumer's use of a credential: a token that is fresh each time it is asked for, and what to do when it is refused.

Asking for a fresh token is one look into the store. What is known then serves for half a minute, so that a loop over a
thousand pages does not ask a thousand times. Whatever else is the matter, there is a token or an error that says why there
is none: never an empty one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity
from airflow.sdk import get_current_context
from airflow.sdk.log import mask_secret

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Verdict
from airflow_oauth_guard.domain.investigation import DOCUMENTED
from airflow_oauth_guard.domain.reading import read_probe_answer
from airflow_oauth_guard.errors import CredentialUnusableError, StoreUnavailableError
from airflow_oauth_guard.grants.flow import HttpRequest, shape_of
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.context import observer
from airflow_oauth_guard.hooks.refreshing import Refreshed, RefreshResult
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.consumers import Look
from airflow_oauth_guard.store.records import Tokens

if TYPE_CHECKING:
    from airflow_oauth_guard.hooks.base import OAuthGuardHook
    from airflow_oauth_guard.store.store import Store

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SERVES_FOR = timedelta(seconds=30)
"""How long a consumer goes on with what it has been told: within it, it learns of a status change by its own requests only."""

STORE_PATIENCE = timedelta(minutes=2)
"""How long a consumer waits for a store that is gone; a database that fails over is back by then."""

JUST_ISSUED = timedelta(minutes=1)
"""A token this young that is refused is not refused for its age: another would fare no better."""

TRIED_LATELY = timedelta(minutes=10)
"""Without a probe, only the next token tells whether a refusal that gives no reason was about the last. So often may be tried."""

SEEN_ALIVE_LATELY = timedelta(minutes=1)
"""A task that runs again may have failed for its token. It is probed, unless it was seen alive since."""

REFUSALS = frozenset({400, 401, 403})
"""Statuses whose body may say that the token is the reason; 400 and 403 only by a code that the provider documents."""


@dataclass(frozen=True)
class Handed:
    """A token in a consumer's hands."""

    access_token: str = field(repr=False)
    generation: int
    asked_at: datetime
    lapses_at: datetime | None
    """When it is predicted to stop working; None where nobody knows."""

    def serves(self, now: datetime) -> bool:
        """Whether nothing has to be asked yet."""
        return now < self.asked_at + SERVES_FOR and (self.lapses_at is None or now < self.lapses_at)

    def has_life(self, now: datetime) -> bool:
        return self.lapses_at is not None and now < self.lapses_at


def get_token(conn_id: str) -> str:
    """The access token of a guarded connection, refreshed first where it is due; for clients that take a token.

    Ask again for each piece of work: what is returned is a text, and grows old in your hands.

    Raises:
        CredentialUnusableError: If there is none that may be used; says why and what to do.
        StoreUnavailableError: If the store is gone for longer than :data:`STORE_PATIENCE`.
    """
    return Use(conn_id).token().access_token


async def aget_token(conn_id: str) -> str:
    """:func:`get_token` in an event loop."""
    return (await Use(conn_id).atoken()).access_token


class Use:
    """One consumer's use of one credential. Safe to share between threads.

    Args:
        conn_id: The guarded connection.
        hook: Makes its hook, which is needed only where something has to be asked of the provider.
    """

    def __init__(self, conn_id: str, hook: Callable[[], OAuthGuardHook] | None = None) -> None:
        self.conn_id = conn_id
        self._make_hook = hook or _registered(conn_id)
        self._hook: OAuthGuardHook | None = None
        self._handed: Handed | None = None
        self._doubted = False

    @property
    def hook(self) -> OAuthGuardHook:
        if self._hook is None:
            self._hook = self._make_hook()
        return self._hook

    # -- a token ------------------------------------------------------------------------------------------------

    def token(self) -> Handed:
        """A token that may be used now, refreshed first where it is due.

        Raises:
            CredentialUnusableError: If there is none; says what is known and what to do.
            StoreUnavailableError: If the store is gone for longer than :data:`STORE_PATIENCE`.
        """
        who = _observer()
        handed = self._in_hand() or _patiently(lambda: self._found(who))
        _mask(handed.access_token)
        return handed

    def _found(self, who: Observer) -> Handed:
        if (found := self._looked_up(who)) is not None:
            return found
        return self.hook.run(self._renewed(who))

    async def atoken(self) -> Handed:
        """:meth:`token` in an event loop."""
        who = _observer()
        if (in_hand := self._in_hand()) is not None:
            return in_hand
        return await _apatiently(lambda: self._found_or_renewed(who))

    async def _found_or_renewed(self, who: Observer) -> Handed:
        return await asyncio.to_thread(self._looked_up, who) or await self._renewed(who)

    def _in_hand(self) -> Handed | None:
        return self._handed if self._handed is not None and self._handed.serves(utcnow()) else None

    def _looked_up(self, who: Observer) -> Handed | None:
        """What the store says in one look; None where somebody has to be asked first."""
        try:
            store = get_store()
            look = store.consumers.look(self.conn_id, who.dag_id, who.task_id)
        except StoreUnavailableError:
            # What was true half a minute ago is what is known; the token has the life that it had.
            if self._handed is None or not self._handed.has_life(utcnow()):
                raise
            log.warning("The store cannot be asked; `%s` goes on with the token it has", self.conn_id, exc_info=True)
            return self._handed
        if look is None or not look.is_fresh(utcnow()) or self._is_in_doubt(store, look, who):
            return None
        self._note(store, look, who)
        return self._hand(look)

    def _hand(self, look: Look) -> Handed:
        credential = look.credential
        self._handed = Handed(look.access_token, credential.generation, utcnow(), credential.life.lapses_at)
        return self._handed

    def _note(self, store: Store, look: Look, who: Observer) -> None:
        if who.dag_id and who.task_id and look.is_news(utcnow()):
            store.consumers.note(look.credential.id, who.dag_id, who.task_id, utcnow())

    def _is_in_doubt(self, store: Store, look: Look, who: Observer) -> bool:
        """Whether the task failed before, perhaps for this very token, which nobody has seen alive since."""
        if self._doubted or (who.try_number or 1) == 1:
            return False
        seen = store.credentials.latest_evidence(look.credential, Kind.REFRESH, Kind.PROBE)
        alive = seen is not None and seen.verdict is Verdict.LIVE
        return not (alive and seen and seen.observed_at > utcnow() - SEEN_ALIVE_LATELY)

    # -- another token ------------------------------------------------------------------------------------------

    async def _renewed(self, who: Observer) -> Handed:
        """A token, after asking the provider for whatever has to be asked."""
        from airflow_oauth_guard.hooks.base import require_usable

        hook, store = await asyncio.to_thread(lambda: (self.hook, get_store()))
        credential = await asyncio.to_thread(store.credentials.enroll, hook.enrollment(), utcnow())
        if credential.is_due(utcnow()):
            await self._refresh(hook, store, who)
        elif not self._doubted and (who.try_number or 1) > 1 and hook.settings.probe_url:
            await self._probe_in_doubt(hook, store, who)
        self._doubted = True
        credential = await asyncio.to_thread(store.credentials.get, self.conn_id)
        await asyncio.to_thread(require_usable, store, credential, utcnow())
        look = await asyncio.to_thread(store.consumers.look, self.conn_id, who.dag_id, who.task_id)
        assert look is not None
        await asyncio.to_thread(self._note, store, look, who)
        return self._hand(look)

    async def _refresh(self, hook: OAuthGuardHook, store: Store, who: Observer, rejected: int | None = None) -> None:
        try:
            result = await hook.refresh(store, who, rejected=rejected)
        except Exception:
            # Whether the token there is may be used all the same is decided afterwards, on evidence.
            log.exception("`%s` could not be refreshed", self.conn_id)
        else:
            log.info("Refresh of `%s`: %s (%s)", self.conn_id, result.outcome.value, result.explanation)

    async def _probe_in_doubt(self, hook: OAuthGuardHook, store: Store, who: Observer) -> None:
        seen = await hook.probe(store, who)
        log.info("This task failed before, so the token of `%s` was probed: %s", self.conn_id, seen.sentence())
        if _is_about_the_token(seen.reading):
            await self._refresh(hook, store, who, rejected=seen.generation)

    # -- a refusal ----------------------------------------------------------------------------------------------

    def refused(self, handed: Handed, method: str, url: str, answer: HttpAnswer) -> Handed | None:
        """A request that bore this token was refused. Another token to send it with once more, or None where the token is
        not the reason, and the answer is the consumer's to read.

        Raises:
            CredentialUnusableError: If the token is the reason and there is no other.
        """
        who = _observer()
        return _patiently(lambda: self.hook.run(self._after_refusal(handed, method, url, answer, who)))

    async def arefused(self, handed: Handed, method: str, url: str, answer: HttpAnswer) -> Handed | None:
        """:meth:`refused` in an event loop."""
        who = _observer()
        return await _apatiently(lambda: self._after_refusal(handed, method, url, answer, who))

    async def _after_refusal(
        self, handed: Handed, method: str, url: str, answer: HttpAnswer, who: Observer
    ) -> Handed | None:
        hook, store = await asyncio.to_thread(lambda: (self.hook, get_store()))
        reading = read_probe_answer(answer, hook.grant.dialect)
        about_the_token = _is_about_the_token(reading)
        if answer.status != 401 and not (about_the_token and reading.rule in DOCUMENTED):
            return None
        self._handed = None
        newest = await asyncio.to_thread(store.credentials.get, self.conn_id)
        if newest.generation != handed.generation:
            return await self._found_or_renewed(who)
        refusal = _Refusal(handed, method, url, answer, reading)
        seen = await asyncio.to_thread(self._keep, hook, store, refusal, who)
        young = newest.life.issued_at is not None and newest.life.issued_at > utcnow() - JUST_ISSUED
        if not about_the_token and (young or not await self._is_worth_asking(hook, store, who)):
            return None
        if young:
            raise CredentialUnusableError(
                f"Credential `{self.conn_id}`: {seen.shape.endpoint if seen.shape else url} refuses its access token, which was "
                f"issued moments ago (evidence {seen.id}: {seen.sentence()}). Another would fare no better: look whether this "
                "host takes tokens of this credential, and at its scopes and audience."
            )
        result = await hook.refresh(store, who, rejected=handed.generation)
        if result.outcome in (Refreshed.RENEWED, Refreshed.FRESH):
            log.info("The access token of `%s` was refused (%s) and renewed", self.conn_id, seen.sentence())
            return await self._found_or_renewed(who)
        if about_the_token:
            raise CredentialUnusableError(self._why(seen, result))
        return None

    def _keep(self, hook: OAuthGuardHook, store: Store, refusal: _Refusal, who: Observer) -> Evidence:
        credential = store.credentials.get(self.conn_id)
        token = refusal.handed.access_token
        tokens = Tokens(refusal.handed.generation, token, "")
        seen = hook.seen(Kind.USE, refusal.request, refusal.answer, refusal.reading, tokens, who, None)
        return store.credentials.record(credential, seen, utcnow())

    async def _is_worth_asking(self, hook: OAuthGuardHook, store: Store, who: Observer) -> bool:
        """A refusal that gives no reason: whether the probe says that it is the token, or, without one, whether enough time
        has passed to find out by another.
        """
        if hook.settings.probe_url:
            seen = await hook.probe(store, who)
            return seen.verdict is not Verdict.LIVE and seen.http_status == 401
        credential = await asyncio.to_thread(store.credentials.get, self.conn_id)
        issued_at = credential.life.issued_at
        return issued_at is None or issued_at < utcnow() - TRIED_LATELY

    def _why(self, seen: Evidence, result: RefreshResult) -> str:
        return (
            f"Credential `{self.conn_id}`: its access token was refused (evidence {seen.id}: {seen.sentence()}) and could not be "
            f"renewed: {result.outcome.value}, {result.explanation}. See the incident about it in the last run of "
            "`oauth_guard_refresh`, or on the OAuth Guard page."
        )


@dataclass(frozen=True)
class _Refusal:
    handed: Handed
    method: str
    url: str
    answer: HttpAnswer
    reading: Reading

    @property
    def request(self) -> HttpRequest:
        """As much of the consumer's request as evidence keeps: its form."""
        shape = shape_of(
            self.method, self.url, grant_type="", client_auth="consumer", body_format="consumer's own", names={}
        )
        secrets = (self.handed.access_token,)
        return HttpRequest(self.method, self.url, headers={}, content=b"", shape=shape, secrets=secrets)


def _is_about_the_token(reading: Reading) -> bool:
    return reading.finding in (Finding.ACCESS_TOKEN_DEAD, Finding.GRANT_DEAD)


def _registered(conn_id: str) -> Callable[[], OAuthGuardHook]:
    def made() -> OAuthGuardHook:
        from airflow_oauth_guard.hooks.registry import get_hook

        return get_hook(conn_id)

    return made


_PATIENCE: Mapping[str, Any] = {
    "retry": tenacity.retry_if_exception_type(StoreUnavailableError),
    "wait": tenacity.wait_random_exponential(multiplier=0.5, max=5),
    "stop": tenacity.stop_after_delay(STORE_PATIENCE),
    "before_sleep": tenacity.before_sleep_log(log, logging.WARNING),
    "reraise": True,
}


def _patiently(call: Callable[[], Result]) -> Result:
    found: Result = tenacity.Retrying(**_PATIENCE)(call)
    return found


async def _apatiently(call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    # Tenacity awaits what it can see to be asynchronous; a function that returns a coroutine is not.
    async def awaited() -> Result:
        return await call()

    found: Result = await tenacity.AsyncRetrying(**_PATIENCE)(awaited)
    return found


def _observer() -> Observer:
    """The task that runs here; nobody in particular outside of one."""
    try:
        return observer(get_current_context())
    except RuntimeError:
        # Airflow's only answer to the question whether there is one.
        return Observer(task_id="a consumer outside of tasks")


@lru_cache
def _mask(access_token: str) -> None:
    """Have Airflow mask it in logs, once per token and process: it tells the task's supervisor, too."""
    mask_secret(access_token)
