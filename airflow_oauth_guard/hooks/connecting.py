"""Connect a credential: a person approves at the provider, and what that brings goes straight into the store.

Under the lease, as the next generation, on evidence of its own: so whatever is refreshing it at the same time neither loses
nor overwrites anything, and a credential that was expired is active because the provider issued tokens, not because
somebody says so.
"""

from __future__ import annotations

import json
import logging
from asyncio import sleep, to_thread
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_oauth_guard.domain.answers import Answer
from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.evidence import TRANSIENT, Evidence, Finding, Kind, Observer, Reading, Subject
from airflow_oauth_guard.domain.redaction import redact_text
from airflow_oauth_guard.errors import (
    AuthorizationRefusedError,
    ConnectionFieldError,
    LeaseLostError,
    NeedsAPersonError,
    OAuthGuardError,
)
from airflow_oauth_guard.grants import authorization_code, device_code
from airflow_oauth_guard.grants.device_code import Invitation
from airflow_oauth_guard.grants.flow import HttpRequest, IssuedTokens, Outcome
from airflow_oauth_guard.hooks.renewing import Renewal, patience, to_its_end
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.authorizations import Authorization
from airflow_oauth_guard.store.records import Credential, Lease, Tokens

if TYPE_CHECKING:
    from airflow_oauth_guard.hooks.base import OAuthGuardHook
    from airflow_oauth_guard.store.store import Store

log = logging.getLogger(__name__)

APPROVE_WITHIN = timedelta(minutes=10)
"""How long a person may take at the provider: to log in, find a second factor, and approve."""

CODE, DEVICE = "code", "device"

KEPT = "No refresh token came with it; the one from before is kept"
NONE_CAME = (
    "No refresh token came with it, so it ends with this access token; look up what the provider wants to be asked for one "
    "(often a scope such as `offline_access`), put that in the connection, and connect again"
)


@dataclass(frozen=True)
class Connected:
    """The credential with the tokens that a person's approval has brought."""

    credential: Credential
    evidence: Evidence
    notes: tuple[str, ...] = ()
    """What the person should know about what came, each a sentence without its full stop."""


@dataclass(frozen=True)
class Pending:
    """Nobody has approved yet. Ask again after this long, and tell then that it was this long."""

    after: timedelta


def ways_to_connect(hook: OAuthGuardHook) -> tuple[str, ...]:
    """How a person can connect this connection: ``code`` in a browser, ``device`` by a code to enter elsewhere.

    None for a connection that cannot be read; what is wrong with it is said when somebody tries.
    """
    try:
        settings = hook.settings
    except OAuthGuardError:
        return ()
    known = {CODE: settings.authorization_url, DEVICE: settings.facts.device_authorization_url}
    return tuple(way for way, address in known.items() if address and hook.grant_class.connects)


# -- in a browser -----------------------------------------------------------------------------------------------------


def begin_code(
    hook: OAuthGuardHook, store: Store, redirect_uri: str, state: str, observer: Observer, now: datetime
) -> str:
    """The address at the provider to send the person to (RFC 6749 section 4.1), who is expected back within ten minutes.

    Args:
        redirect_uri: Where the provider sends them back to; the client has to be registered with it.
        state: Tells their return from anybody else's; not to be guessed.
        observer: Names the person. Nobody else can finish it.

    Raises:
        ConnectionFieldError: If it cannot be connected like this; says what to do instead.
    """
    require_connects(hook)
    if not hook.settings.authorization_url:
        raise ConnectionFieldError(
            hook.oauth_guard_conn_id,
            "authorization_url",
            "is empty, and no preset says it: write the address at which a person approves (the provider calls it "
            "authorization endpoint), or name a `provider` of the catalog with the params it asks for.",
        )
    verifier = authorization_code.new_verifier()
    secret = json.dumps({"verifier": verifier, "redirect_uri": redirect_uri})
    _open(hook, store, state, observer, secret, now, now + APPROVE_WITHIN)
    return authorization_code.authorization_url(hook.settings, redirect_uri, state, verifier)


async def finish_code(
    hook: OAuthGuardHook,
    store: Store,
    authorization: Authorization,
    code: str,
    observer: Observer,
    *,
    issuer: str = "",
) -> Connected:
    """Exchange the code that the person came back with, and store what it brings.

    Args:
        authorization: Taken from the store by the state they came back with.
        issuer: ``iss`` of what they came back with (RFC 9207); empty where the provider does not name itself.

    Raises:
        AuthorizationRefusedError: If the answer is another provider's, or the authorization another credential's.
        LeaseLostError: If another process would not let go of the credential; nothing was sent.
        NeedsAPersonError: If the provider refused; nothing has changed but that this was tried.
    """
    _require_its_own(hook, authorization)
    if issuer and not authorization_code.is_issuer(hook.settings, issuer):
        raise AuthorizationRefusedError(
            f"The answer for `{hook.oauth_guard_conn_id}` says that it comes from {issuer[:200]!r}, which is not the provider "
            "that was asked. Nothing was sent there; begin again, and look whose page you approve on."
        )
    kept = json.loads(authorization.secret)

    def ask(now: datetime) -> HttpRequest:
        return authorization_code.code_request(hook.settings, code, kept["redirect_uri"], kept["verifier"], now)

    connected = await Connect(hook, store, observer).exchange(ask, hook.grant.read)
    assert isinstance(connected, Connected)
    return connected


# -- on another device ------------------------------------------------------------------------------------------------


async def begin_device(hook: OAuthGuardHook, store: Store, state: str, observer: Observer) -> Invitation:
    """What the person has to do at the provider (RFC 8628), who is asked for with :func:`poll_device` meanwhile.

    Raises:
        ConnectionFieldError: If the provider is not known to offer the flow.
        NeedsAPersonError: If it does not invite.
    """
    invited = await _invited(hook)
    secret = json.dumps({"device_code": invited.device_code, "interval": invited.interval.total_seconds()})
    now = utcnow()
    await to_thread(_open, hook, store, state, observer, secret, now, now + invited.expires_in)
    return replace(invited, device_code="")


async def poll_device(
    hook: OAuthGuardHook,
    store: Store,
    authorization: Authorization,
    observer: Observer,
    *,
    waited: timedelta = timedelta(),
) -> Connected | Pending:
    """Ask once whether the person has approved, and if so store what that brings.

    Args:
        authorization: Found, not taken: it is asked with again. To be taken once this returns tokens, or raises that the
            provider refused.
        waited: What the last :class:`Pending` said, since the provider may have asked to be asked less often.

    Raises:
        AuthorizationRefusedError: If the authorization is another credential's.
        NeedsAPersonError: If they did not approve, or not in time.
    """
    _require_its_own(hook, authorization)
    kept = json.loads(authorization.secret)
    interval = max(waited, timedelta(seconds=kept["interval"]))
    return await _poll(hook, store, kept["device_code"], interval, observer)


async def connect_device(
    hook: OAuthGuardHook, store: Store, observer: Observer, invite: Callable[[Invitation], None]
) -> Connected:
    """The whole of it from a terminal: invite, ask until the person has answered, store.

    Args:
        invite: Shows a person what to do.

    Raises:
        ConnectionFieldError: If the provider is not known to offer the flow.
        NeedsAPersonError: If nobody approved, or the provider refused.
    """
    invited = await _invited(hook)
    invite(replace(invited, device_code=""))
    gives_up_at = utcnow() + invited.expires_in
    seen: Connected | Pending = Pending(invited.interval)
    while isinstance(seen, Pending):
        if utcnow() + seen.after > gives_up_at:
            raise NeedsAPersonError(f"`{hook.oauth_guard_conn_id}` is not connected: nobody approved it in time.")
        await sleep(seen.after.total_seconds())
        seen = await _poll(hook, store, invited.device_code, seen.after, observer)
    return seen


async def _invited(hook: OAuthGuardHook) -> Invitation:
    require_connects(hook)
    if not hook.settings.facts.device_authorization_url:
        raise ConnectionFieldError(
            hook.oauth_guard_conn_id,
            "provider",
            "names no provider whose preset has the endpoint `device_authorization`; connect it from the OAuth Guard page, by "
            "putting tokens in the connection, or with `airflow oauth-guard import`.",
        )
    request = device_code.authorization_request(hook.grant, utcnow())
    invited = device_code.invitation(hook.grant, await hook.send(request))
    if isinstance(invited, Outcome):
        raise _not_connected(hook, redact_text(invited.reading.explanation, request.secrets))
    return invited


async def _poll(
    hook: OAuthGuardHook, store: Store, device: str, interval: timedelta, observer: Observer
) -> Connected | Pending:
    def ask(now: datetime) -> HttpRequest:
        return device_code.poll_request(hook.grant, device, now)

    def read(answer: Answer) -> Outcome | timedelta:
        return device_code.read_poll(hook.grant, answer, interval)

    try:
        return await Connect(hook, store, observer).exchange(ask, read)
    except LeaseLostError as error:
        # Nothing was sent, so nothing is lost by asking a little later.
        log.info("%s", error)
        return Pending(interval)


# -- the exchange -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Connect(Renewal):
    """Exchanges what a person's approval brought for tokens, under the lease."""

    async def exchange(
        self, ask: Callable[[datetime], HttpRequest], read: Callable[[Answer], Outcome | timedelta]
    ) -> Connected | Pending:
        """Send once, and store what comes.

        Args:
            read: What came of it, or how long to wait before asking again.

        Raises:
            LeaseLostError: If another process would not let go of the credential; nothing was sent.
            NeedsAPersonError: If no tokens came.
        """
        enrollment = self.hook.enrollment()
        await to_thread(self.store.credentials.enroll, enrollment, utcnow(), self.observer)
        lease = await self._patiently(self._try_lease)
        if lease is None:
            raise self._busy(f"another process has been refreshing it for {words(patience())}")
        try:
            came = await to_its_end(self._under(lease, ask, read))
        finally:
            await self._give_back(lease)
        return replace(came, notes=(*came.notes, *await self._probed())) if isinstance(came, Connected) else came

    async def _try_lease(self) -> Lease | None:
        newest = await to_thread(self.store.credentials.get, self.hook.oauth_guard_conn_id)
        return await self._lease_if_free(newest)

    async def _under(
        self, lease: Lease, ask: Callable[[datetime], HttpRequest], read: Callable[[Answer], Outcome | timedelta]
    ) -> Connected | Pending:
        now = utcnow()
        request = ask(now)
        intent_id = await to_thread(self.store.credentials.open_exchange, lease, now)
        token = self.hook.token_to_send(lease.tokens)
        answer = await self._call_and_keep(lease, intent_id, request, token=token, began=now)
        if answer is None:
            raise self._busy("the store took too long to write down that it would be sent")
        came = read(answer)
        if isinstance(came, timedelta):
            await to_thread(self.store.credentials.withdraw_intent, intent_id, utcnow())
            return Pending(came)
        seen = self.hook.seen(
            Kind.CONNECT, request, answer, _about_the_approval(came.reading), lease.tokens, self.observer, None
        )
        if came.tokens is None:
            recorded = await to_thread(self.store.credentials.refuse_exchange, lease, intent_id, seen, utcnow())
            raise _not_connected(self.hook, recorded.sentence())
        return await self._store(lease, intent_id, came.tokens, seen)

    async def _store(self, lease: Lease, intent_id: int, issued: IssuedTokens, seen: Evidence) -> Connected:
        stored = await to_thread(self.store.credentials.renew, lease, intent_id, issued, seen, utcnow())
        if stored is None:
            raise _not_connected(self.hook, "somebody has put other tokens in meanwhile, which are kept")
        renewed, recorded = stored
        return Connected(renewed, recorded, self._notes(issued, lease.tokens))

    def _notes(self, issued: IssuedTokens, before: Tokens) -> tuple[str, ...]:
        if issued.refresh_token or self.hook.grant_class.sends != "refresh_token":
            return ()
        if before.refresh_token:
            return (KEPT,)
        return (NONE_CAME,)

    async def _probed(self) -> tuple[str, ...]:
        """See at once whether the resource takes the new token; the person is still there to hear it."""
        if not self.hook.settings.probe_url:
            return ()
        try:
            seen = await self.hook.probe(self.store, self.observer)
        except Exception:
            # It is connected, whatever becomes of this.
            log.warning("The probe of `%s` could not be tried out", self.hook.oauth_guard_conn_id, exc_info=True)
            return ()
        if seen.finding in (Finding.LIVE, *TRANSIENT):
            return ()
        log.warning("The probe of `%s` refuses its new token: %s", self.hook.oauth_guard_conn_id, seen.sentence())
        return (f"Its probe does not accept the new token: {seen.sentence()}",)

    def _busy(self, why: str) -> LeaseLostError:
        return LeaseLostError(
            f"Credential `{self.hook.oauth_guard_conn_id}`: {why}. Nothing was sent and nothing has changed; connect again."
        )


def _about_the_approval(reading: Reading) -> Reading:
    """What a provider says against a code is about that code: the grant we hold was not even shown to it."""
    if reading.finding is Finding.LIVE or reading.subject not in (Subject.GRANT, Subject.ACCESS_TOKEN):
        return reading
    return Reading(Subject.REQUEST, Finding.UNKNOWN, "approval_refused", reading.explanation)


def require_connects(hook: OAuthGuardHook) -> None:
    """Raises:
    ConnectionFieldError: If a person's approval is not what this class of connection lives on.
    """
    if not hook.grant_class.connects:
        raise ConnectionFieldError(
            hook.oauth_guard_conn_id,
            "conn_type",
            f"is `{hook.conn_type}`, a class that nobody approves for in a browser; what it needs stands in the connection's "
            "own fields. Correct those, or put new tokens in with `airflow oauth-guard import`.",
        )


def _open(
    hook: OAuthGuardHook,
    store: Store,
    state: str,
    observer: Observer,
    secret: str,
    now: datetime,
    ends_at: datetime,
) -> None:
    credential = store.credentials.enroll(hook.enrollment(), now, observer)
    store.authorizations.open(credential, state, observer.person or "", secret, now, ends_at)


def _require_its_own(hook: OAuthGuardHook, authorization: Authorization) -> None:
    if authorization.credential.conn_id != hook.oauth_guard_conn_id:
        raise AuthorizationRefusedError(
            f"This authorization is for `{authorization.credential.conn_id}`, not for `{hook.oauth_guard_conn_id}`."
        )


def _not_connected(hook: OAuthGuardHook, why: str) -> NeedsAPersonError:
    return NeedsAPersonError(f"`{hook.oauth_guard_conn_id}` is not connected: {why}.")
