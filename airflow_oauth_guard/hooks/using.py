"""A consumer's use of a credential: a token that is fresh each time it is asked for, and what to do when it is refused.

Asking for a fresh token is one look into the store. What is known then serves for half a minute, so that a loop over a
thousand pages does not ask a thousand times. Whatever else is the matter, there is a token or an error that says why there
is none: never an empty one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import get_current_context
from airflow.sdk.log import mask_secret

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Shape, Verdict
from airflow_oauth_guard.domain.investigation import DOCUMENTED
from airflow_oauth_guard.domain.reading import read_probe_answer
from airflow_oauth_guard.errors import CredentialUnusableError, StoreUnavailableError
from airflow_oauth_guard.grants.flow import HttpRequest, shape_of
from airflow_oauth_guard.hooks.config import aget_store, get_store
from airflow_oauth_guard.hooks.context import observer
from airflow_oauth_guard.hooks.patience import apatiently, patiently
from airflow_oauth_guard.hooks.placement import without_secrets
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.consumers import Look
from airflow_oauth_guard.store.records import Credential, Tokens

if TYPE_CHECKING:
    from airflow_oauth_guard.hooks.base import OAuthGuardHook
    from airflow_oauth_guard.store.store import Store

log = logging.getLogger(__name__)

SERVES_FOR = timedelta(seconds=30)
"""How long a consumer goes on with what it has been told: within it, it learns of a status change by its own requests only."""

JUST_ISSUED = timedelta(minutes=1)
"""A token this young that is refused is not refused for its age: another would fare no better."""

TRIED_LATELY = timedelta(minutes=10)
"""Without a probe, only the next token tells whether a refusal that gives no reason was about the last. So often may be tried."""

SEEN_ALIVE_LATELY = timedelta(minutes=1)
"""A task that runs again may have failed for its token. It is probed, unless it was seen alive since."""

KEPT_ONCE_IN = timedelta(minutes=1)
"""A consumer that goes on asking where it may not is told the same ten thousand times; once a minute is evidence enough."""

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
        StoreUnavailableError: If the store is gone for longer than :data:`~airflow_oauth_guard.hooks.patience.STORE_PATIENCE`.
    """
    return Use(conn_id).token().access_token


async def aget_token(conn_id: str) -> str:
    """:func:`get_token` in an event loop."""
    return (await Use(conn_id).atoken()).access_token


class Use:
    """One consumer's use of one credential. Safe to share between threads.

    It can be copied and pickled, without the token: whoever has the copy asks for one.

    Args:
        conn_id: The guarded connection.
        hook: Its hook, where the caller has it. It is needed only where something has to be asked of the provider.
    """

    def __init__(self, conn_id: str, hook: OAuthGuardHook | None = None) -> None:
        self.conn_id = conn_id
        self._hook = hook
        self._handed: Handed | None = None
        self._doubted = False

    def __reduce__(self) -> tuple[type[Use], tuple[str]]:
        return Use, (self.conn_id,)

    @property
    def hook(self) -> OAuthGuardHook:
        """The connection's hook, in a worker."""
        from airflow_oauth_guard.hooks.registry import get_hook

        if self._hook is None:
            self._hook = get_hook(self.conn_id)
        return self._hook

    async def ahook(self) -> OAuthGuardHook:
        """:attr:`hook` in an event loop, such as a trigger's."""
        from airflow_oauth_guard.hooks.registry import aget_hook

        if self._hook is None:
            self._hook = await aget_hook(self.conn_id)
        return self._hook

    # -- a token ------------------------------------------------------------------------------------------------

    def token(self) -> Handed:
        """A token that may be used now, refreshed first where it is due.

        Raises:
            CredentialUnusableError: If there is none; says what is known and what to do.
            StoreUnavailableError: If the store is gone for longer than :data:`~airflow_oauth_guard.hooks.patience.STORE_PATIENCE`.
        """
        who = _observer()
        handed = self._in_hand() or patiently(lambda: self._found(who))
        _mask(handed.access_token)
        return handed

    def _found(self, who: Observer) -> Handed:
        store = get_store()
        if (found := self._looked_up(store, who)) is not None:
            return found
        return self.hook.run(self._renewed(self.hook, store, who))

    async def atoken(self) -> Handed:
        """:meth:`token` in an event loop."""
        who = _observer()
        if (handed := self._in_hand()) is not None:
            return handed
        return await apatiently(lambda: self._afound(who))

    async def _afound(self, who: Observer) -> Handed:
        store = await aget_store()
        if (found := await asyncio.to_thread(self._looked_up, store, who)) is not None:
            return found
        return await self._renewed(await self.ahook(), store, who)

    def _in_hand(self) -> Handed | None:
        handed = self._handed
        return handed if handed is not None and handed.serves(utcnow()) else None

    def _looked_up(self, store: Store, who: Observer) -> Handed | None:
        """What the store says in one look; None where somebody has to be asked first."""
        try:
            look = store.consumers.look(self.conn_id, who.dag_id, who.task_id)
        except StoreUnavailableError:
            # What was true half a minute ago is what is known; the token has the life that it had.
            handed = self._handed
            if handed is None or not handed.has_life(utcnow()):
                raise
            log.warning("The store cannot be asked; `%s` goes on with the token it has", self.conn_id, exc_info=True)
            self._handed = replace(handed, asked_at=utcnow())
            return self._handed
        if look is None or not look.is_fresh(utcnow()) or self._is_in_doubt(store, look.credential, who):
            return None
        self._note(store, look, who)
        return self._hand(look)

    def _hand(self, look: Look) -> Handed:
        if not all(" " <= letter <= "~" for letter in look.access_token):
            # A library that cannot send it would quote it.
            raise CredentialUnusableError(
                f"Credential `{self.conn_id}`: its access token holds a letter that no token has (RFC 6749 appendix A.12), such "
                "as a line break. Put the token into its connection anew."
            )
        credential = look.credential
        handed = Handed(look.access_token, credential.generation, utcnow(), credential.life.lapses_at)
        self._handed = handed
        return handed

    def _note(self, store: Store, look: Look, who: Observer) -> None:
        if not (who.dag_id and who.task_id and look.is_news(utcnow())):
            return
        try:
            store.consumers.note(look.credential.id, who.dag_id, who.task_id, utcnow())
        except StoreUnavailableError:
            # Who uses what is for people to know; the token is there.
            log.warning("The use of `%s` could not be written down", self.conn_id, exc_info=True)

    def _is_in_doubt(self, store: Store, credential: Credential, who: Observer) -> bool:
        """Whether the task failed before, perhaps for this very token, which nobody has seen alive since."""
        if self._doubted or (who.try_number or 1) == 1:
            return False
        return not _seen_alive_lately(store, credential)

    # -- another token ------------------------------------------------------------------------------------------

    async def _next(self, hook: OAuthGuardHook, store: Store, who: Observer) -> Handed:
        found = await asyncio.to_thread(self._looked_up, store, who)
        return found or await self._renewed(hook, store, who)

    async def _renewed(self, hook: OAuthGuardHook, store: Store, who: Observer) -> Handed:
        """A token, after asking the provider for whatever has to be asked."""
        from airflow_oauth_guard.hooks.base import require_usable

        credential = await asyncio.to_thread(store.credentials.enroll, hook.enrollment(), utcnow())
        if credential.is_due(utcnow()):
            await self._refresh(hook, store, who)
        elif await asyncio.to_thread(self._is_in_doubt, store, credential, who) and hook.settings.probe_url:
            self._doubted = True
            await self._probe_in_doubt(hook, store, who)
        self._doubted = True
        credential = await asyncio.to_thread(store.credentials.get, self.conn_id)
        await asyncio.to_thread(require_usable, store, credential, utcnow())
        look = await asyncio.to_thread(store.consumers.look, self.conn_id, who.dag_id, who.task_id)
        assert look is not None
        await asyncio.to_thread(self._note, store, look, who)
        return self._hand(look)

    async def _refresh(self, hook: OAuthGuardHook, store: Store, who: Observer) -> None:
        try:
            result = await hook.refresh(store, who)
        except Exception:
            # Whether the token there is may be used all the same is decided afterwards, on evidence.
            log.exception("`%s` could not be refreshed", self.conn_id)
        else:
            log.info("Refresh of `%s`: %s (%s)", self.conn_id, result.outcome.value, result.explanation)

    async def _probe_in_doubt(self, hook: OAuthGuardHook, store: Store, who: Observer) -> None:
        seen = await hook.probe(store, who)
        log.info("This task failed before, so the token of `%s` was probed: %s", self.conn_id, seen.sentence())
        if _is_about_the_token(seen.reading):
            await self._replaced(seen.generation, hook, store, who, because=seen)

    # -- a refusal ----------------------------------------------------------------------------------------------

    def refused(self, handed: Handed, method: str, url: str, answer: HttpAnswer) -> Handed | None:
        """A request that bore this token was refused. Another token to send it with once more, or None where the token is
        not the reason, and the answer is the consumer's to read.

        Raises:
            CredentialUnusableError: If the token is the reason and there is no other.
        """
        refusal = _refusal(self.hook, handed, method, url, answer)
        return patiently(lambda: self._answered(refusal)) if refusal else None

    def _answered(self, refusal: _Refusal) -> Handed | None:
        handed = self.hook.run(self._after(refusal, self.hook, get_store(), _observer()))
        if handed is not None:
            _mask(handed.access_token)
        return handed

    async def arefused(self, handed: Handed, method: str, url: str, answer: HttpAnswer) -> Handed | None:
        """:meth:`refused` in an event loop."""
        refusal = _refusal(await self.ahook(), handed, method, url, answer)
        return await apatiently(lambda: self._aanswered(refusal)) if refusal else None

    async def _aanswered(self, refusal: _Refusal) -> Handed | None:
        return await self._after(refusal, await self.ahook(), await aget_store(), _observer())

    def doubt(self, handed: Handed) -> Handed | None:
        """:meth:`refused` for a library that was refused and does not show the answer: the probe is asked instead.

        .. versionadded:: 0.6.0
        """
        newer = patiently(lambda: self.hook.run(self._after_doubt(handed, self.hook, get_store(), _observer())))
        if newer is not None:
            _mask(newer.access_token)
        return newer

    async def _after_doubt(self, handed: Handed, hook: OAuthGuardHook, store: Store, who: Observer) -> Handed | None:
        newest = await asyncio.to_thread(store.credentials.get, self.conn_id)
        if newest.generation != handed.generation:
            self._handed = None
            return await self._next(hook, store, who)
        return await self._after_no_reason(handed.generation, hook, store, newest, who)

    async def _after(self, refusal: _Refusal, hook: OAuthGuardHook, store: Store, who: Observer) -> Handed | None:
        newest = await asyncio.to_thread(store.credentials.get, self.conn_id)
        if newest.generation != refusal.handed.generation:
            self._handed = None
            return await self._next(hook, store, who)
        seen = await asyncio.to_thread(_kept, refusal, hook, store, newest, who)
        if not _is_about_the_token(refusal.reading):
            return await self._after_no_reason(refusal.handed.generation, hook, store, newest, who)
        self._handed = None
        if _is_younger(newest, JUST_ISSUED):
            raise CredentialUnusableError(
                f"Credential `{self.conn_id}`: {refusal.shape.endpoint} refuses its access token, which came moments ago "
                f"(evidence {seen.id}: {seen.sentence()}). Another would fare no better: look whether this host takes tokens of "
                "this credential, and at its scopes and audience."
            )
        return await self._replaced(refusal.handed.generation, hook, store, who, because=seen)

    async def _after_no_reason(
        self, rejected: int, hook: OAuthGuardHook, store: Store, newest: Credential, who: Observer
    ) -> Handed | None:
        """The probe may say that it is the token. Without one only the next token does, which may be tried now and then."""
        if _is_younger(newest, JUST_ISSUED) or await asyncio.to_thread(_seen_alive_lately, store, newest):
            return None
        if not hook.settings.probe_url:
            tried_lately = _is_younger(newest, TRIED_LATELY)
            return None if tried_lately else await self._replaced(rejected, hook, store, who, because=None)
        probe = await hook.probe(store, who)
        if probe.http_status != 401 and not _is_about_the_token(probe.reading):
            return None
        return await self._replaced(rejected, hook, store, who, because=probe)

    async def _replaced(
        self, rejected: int, hook: OAuthGuardHook, store: Store, who: Observer, *, because: Evidence | None
    ) -> Handed | None:
        """The next token, refreshed unless somebody was faster."""
        result = await hook.refresh(store, who, rejected=rejected)
        log.info("The access token of `%s` was refused; refresh: %s", self.conn_id, result.explanation)
        if result.outcome in (Refreshed.RENEWED, Refreshed.FRESH):
            self._handed = None
            return await self._next(hook, store, who)
        if because is not None:
            raise CredentialUnusableError(
                f"Credential `{self.conn_id}`: its access token was refused (evidence {because.id}: {because.sentence()}) and "
                f"could not be renewed: {result.outcome.value}, {result.explanation}. See the incident about it in the last run "
                "of `oauth_guard_refresh`, or on the OAuth Guard page."
            )
        return None


@dataclass(frozen=True)
class _Refusal:
    handed: Handed
    method: str
    url: str
    answer: HttpAnswer
    reading: Reading

    @property
    def shape(self) -> Shape:
        """As much of the consumer's request as evidence keeps: its form."""
        url = without_secrets(self.url, self.handed.access_token)[:LONGEST_ADDRESS]
        return shape_of(self.method, url, grant_type="", client_auth="consumer", body_format="consumer's own", names={})

    @property
    def request(self) -> HttpRequest:
        secrets = (self.handed.access_token,)
        return HttpRequest(self.method, self.url, headers={}, content=b"", shape=self.shape, secrets=secrets)


LONGEST_ADDRESS = 2_000
"""Letters that are kept of one, with the names in its query."""


def _refusal(hook: OAuthGuardHook, handed: Handed, method: str, url: str, answer: HttpAnswer) -> _Refusal | None:
    """The refusal; None where the token cannot be the reason."""
    reading = read_probe_answer(answer, hook.grant.dialect)
    documented = _is_about_the_token(reading) and reading.rule in DOCUMENTED
    return _Refusal(handed, method, url, answer, reading) if answer.status == 401 or documented else None


def _kept(refusal: _Refusal, hook: OAuthGuardHook, store: Store, credential: Credential, who: Observer) -> Evidence:
    """The refusal as evidence, unless the same was kept just now."""
    tokens = Tokens(refusal.handed.generation, refusal.handed.access_token, "")
    seen = hook.seen(Kind.USE, refusal.request, refusal.answer, refusal.reading, tokens, who, None)
    last = store.credentials.latest_evidence(credential, Kind.USE)
    if last and _says_the_same(last, seen) and last.observed_at > utcnow() - KEPT_ONCE_IN:
        return last
    return store.credentials.record(credential, seen, utcnow())


def _says_the_same(one: Evidence, other: Evidence) -> bool:
    return (one.generation, one.shape, one.answer_id) == (other.generation, other.shape, other.answer_id)


def _is_about_the_token(reading: Reading) -> bool:
    return reading.finding in (Finding.ACCESS_TOKEN_DEAD, Finding.GRANT_DEAD)


def _is_younger(credential: Credential, age: timedelta) -> bool:
    issued_at = credential.life.issued_at
    return issued_at is not None and issued_at > utcnow() - age


def _seen_alive_lately(store: Store, credential: Credential) -> bool:
    seen = store.credentials.latest_evidence(credential, Kind.REFRESH, Kind.PROBE)
    return seen is not None and seen.verdict is Verdict.LIVE and seen.observed_at > utcnow() - SEEN_ALIVE_LATELY


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
    for form in {access_token, quote(access_token, safe="")}:
        mask_secret(form)
