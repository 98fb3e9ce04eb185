"""What every connection class's hook does: bind connection, grant and probe, and leave evidence."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from airflow_oauth_guard.catalog.presetting import PARAMS, with_preset
from airflow_oauth_guard.domain.answers import (
    Answer,
    HttpAnswer,
    answer_id,
    retry_after,
)
from airflow_oauth_guard.domain.clock import clock_skew
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Subject, Verdict
from airflow_oauth_guard.domain.metrics import PROBE
from airflow_oauth_guard.domain.reading import read_introspection_answer, read_probe_answer
from airflow_oauth_guard.domain.redaction import redact_body, redact_headers, redact_text
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import (
    ConfigurationError,
    ConnectionFieldError,
    CredentialUnusableError,
    StoreUnavailableError,
)
from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.introspection import introspection_request
from airflow_oauth_guard.grants.probe import probe_request
from airflow_oauth_guard.grants.settings import THE_PROTOCOL, GrantSettings, read_settings
from airflow_oauth_guard.hooks import metrics
from airflow_oauth_guard.hooks.config import duration, get_catalog, get_store
from airflow_oauth_guard.hooks.forms import form_widgets, ui_field_behaviour
from airflow_oauth_guard.hooks.refreshing import Refresh, RefreshResult
from airflow_oauth_guard.hooks.transport import send, utcnow
from airflow_oauth_guard.store.records import Credential, Enrollment, Tokens

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_oauth_guard.catalog.preset import Preset
    from airflow_oauth_guard.hooks.session import GuardedSession
    from airflow_oauth_guard.hooks.using import Use
    from airflow_oauth_guard.store.store import Store

Result = TypeVar("Result")

PROBE_SPEAKS_FOR = timedelta(hours=1)
"""How long a probe speaks for a token of an expired credential whose end nobody told us."""

DIRECTLY_GIVEN = {"host": "token_url", "login": "client_id", "password": "client_secret"}
"""Airflow's own connection fields and what they mean here."""


class OAuthGuardHook(BaseHook):
    """The hook behind every ``oauth_guard_*`` connection. Subclasses say which grant it carries.

    Args:
        oauth_guard_conn_id: The Airflow connection.
        connection: The connection itself where the caller has it, as a trigger does.
    """

    conn_name_attr: ClassVar[str] = "oauth_guard_conn_id"
    default_conn_name: ClassVar[str] = "oauth_guard_default"
    conn_type: ClassVar[str]
    hook_name: ClassVar[str]
    grant_class: ClassVar[type[Grant]]

    def __init__(
        self, oauth_guard_conn_id: str = default_conn_name, connection: Connection | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.oauth_guard_conn_id = oauth_guard_conn_id
        self._connection = connection
        self._grant: Grant | None = None
        self._use: Use | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give each hook the form methods that Airflow before 3.2 looks for in the class itself, not above it.

        Newer releases read the same form from ``provider.yaml`` and never call them.
        """
        super().__init_subclass__(**kwargs)
        conn_type = cls.conn_type
        setattr(cls, "get_ui_field_behaviour", staticmethod(lambda: ui_field_behaviour(conn_type)))  # noqa: B010
        setattr(cls, "get_connection_form_widgets", staticmethod(lambda: form_widgets(conn_type)))  # noqa: B010

    # -- the connection -----------------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            self._connection = self.get_connection(self.oauth_guard_conn_id)
        return self._connection

    @property
    def grant(self) -> Grant:
        """The connection's grant.

        Raises:
            ConnectionFieldError: If a field of the connection is missing or wrong.
        """
        if self._grant is None:
            self._grant = self._read_grant(self.named_preset, self._fields(), preset_first=False)
        return self._grant

    @property
    def named_preset(self) -> Preset | None:
        """What the catalog knows about the provider that the connection names, or that its class belongs to.

        Raises:
            CatalogError: If it names one that is not in the catalog.
        """
        fields = _fields(self.connection)
        name = fields.get("provider") or self.grant_class.own_provider(fields)
        return get_catalog().get(str(name)) if name else None

    def grant_of(self, preset: Preset, params: Mapping[str, str] | None) -> Grant:
        """The grant of this class as a preset declares it, whatever the connection says beside it.

        Args:
            params: Of the provider's addresses; None to take those the connection names.

        Raises:
            ConnectionFieldError: If the connection lacks what that takes.
        """
        known = self.grant_class.fields
        fields = {name: value for name, value in self._fields().items() if name in known}
        given = {} if params is None else {PARAMS: params}
        return self._read_grant(preset, fields | given, preset_first=True)

    def _read_grant(self, preset: Preset | None, fields: Mapping[str, Any], *, preset_first: bool) -> Grant:
        facts = THE_PROTOCOL
        if preset is not None:
            fields, facts = with_preset(
                *(self.oauth_guard_conn_id, self.grant_class.connection_class, fields, preset),
                known=self.grant_class.fields,
                preset_first=preset_first,
            )
        settings = read_settings(
            self.oauth_guard_conn_id,
            fields,
            known=self.grant_class.fields,
            required=self.grant_class.required,
            facts=facts,
        )
        return self.grant_class(settings)

    def _fields(self) -> dict[str, Any]:
        fields = _fields(self.connection)
        return fields | _from_files(self.oauth_guard_conn_id, fields, self.grant_class.fields)

    @property
    def settings(self) -> GrantSettings:
        return self.grant.settings

    @property
    def tags(self) -> dict[str, str]:
        """What metrics tell this connection by: not its name, of which there may be too many."""
        return {"connection_class": self.grant_class.connection_class, "provider": self.settings.facts.provider}

    def mask_secrets(self) -> None:
        """Have Airflow mask the connection's secrets in logs, beside our own redaction.

        Only for a worker: masking talks to the task's supervisor, synchronously, and doing that inside a triggerer
        mixes up its conversation (seen on Airflow 3.1.8: "Response read out of order").
        """
        for secret in self.settings.secrets:
            mask_secret(secret)

    def enrollment(self, expires_at: datetime | None = None) -> Enrollment:
        """What the store has to know about this connection."""
        settings = self.settings
        return Enrollment(
            conn_id=settings.conn_id,
            connection_class=self.grant_class.connection_class,
            client_key=_digest(*settings.client_key),
            margin=settings.refresh_margin,
            at_half_life=self.grant_class.needs_live_token,
            expire_policy=settings.expire_policy,
            alert_route=settings.alert_route,
            probe_host=urlsplit(settings.probe_url).netloc,
            provider=settings.facts.provider,
            access_token=settings.access_token,
            refresh_token=settings.refresh_token,
            expires_at=expires_at,
        )

    # -- for pipelines ------------------------------------------------------------------------------------------

    def get_conn(self) -> GuardedSession:
        """A session that bears the access token, a fresh one in each request. It is for the provider's own hosts."""
        from airflow_oauth_guard.hooks.session import GuardedSession

        return GuardedSession(self.oauth_guard_conn_id, use=self.use)

    def get_token(self) -> str:
        """The access token, refreshed first where it is due.

        Raises:
            CredentialUnusableError: If there is none that may be used; says why and what to do. Never returns an
                empty or a known-bad token.
            StoreUnavailableError: If the store is gone for some minutes.
        """
        return self.use.token().access_token

    async def aget_token(self) -> str:
        """:meth:`get_token` in an event loop, such as a trigger's."""
        if self._connection is None:
            # Not where it is read first, in a thread: of a triggerer only the loop itself may talk to its supervisor.
            self._connection = await self.aget_connection(self.oauth_guard_conn_id)
        return (await self.use.atoken()).access_token

    @property
    def use(self) -> Use:
        """The hook's use of its credential: hands out tokens and hears of it when one is refused."""
        from airflow_oauth_guard.hooks.using import Use

        if self._use is None:
            self._use = Use(self.oauth_guard_conn_id, self)
        return self._use

    def test_connection(self) -> tuple[bool, str]:
        """A live probe, for the Test button. It refreshes nothing: here is nowhere to keep a rotated token.

        Airflow tests under a made-up connection id, so the credential is found by the token it was seeded with.
        """
        try:
            settings = self.settings
            store = get_store()
        except (ConfigurationError, StoreUnavailableError) as error:
            return False, str(error)
        if not settings.probe_url:
            return False, "Field `probe_url` is empty, so there is nothing to test the access token against."
        found = store.credentials.find_by_seed(self.enrollment())
        token = store.credentials.tokens(found).access_token if found else settings.access_token
        if not token:
            return False, (
                "The fields are complete. There is no access token to probe with yet: the first refresh stores one "
                "(run the DAG `oauth_guard_refresh`); this button never refreshes, lest it spend a token."
            )
        mask_secret(token)
        answer = self.run(self.send(probe_request(settings, token)))
        reading = read_probe_answer(answer, self.grant.dialect)
        return reading.finding is Finding.LIVE, redact_text(f"Probe: {reading.explanation}.", (token,))

    # -- what operators and triggers call -----------------------------------------------------------------------

    def run(self, flow: Coroutine[Any, Any, Result]) -> Result:
        """Drive one of the flows below from code that is not asynchronous; it blocks."""
        if not _in_an_event_loop():
            return asyncio.run(flow)
        # A task that is asynchronous itself calls us in its loop, where there can be no second one.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, flow).result()

    async def refresh(
        self,
        store: Store,
        observer: Observer,
        *,
        investigation_id: int | None = None,
        declared: Grant | None = None,
        rejected: int | None = None,
    ) -> RefreshResult:
        """Ask for a new access token, if it is time to; see :class:`~airflow_oauth_guard.hooks.refreshing.Refresh`.

        Args:
            investigation_id: For a repeat inside an investigation, which is due by definition.
            declared: For the class check: the grant to use instead of the connection's.
            rejected: The generation whose access token was refused to a consumer, which makes it due.
        """
        began = time.monotonic()
        result = await Refresh(self, store, observer, investigation_id, declared, rejected).run()
        took = timedelta(seconds=time.monotonic() - began)
        await asyncio.to_thread(metrics.refreshed, result.outcome, took, **self.tags)
        return result

    async def probe(self, store: Store, observer: Observer, investigation_id: int | None = None) -> Evidence:
        """Ask the resource whether the access token is alive, and keep the answer as evidence."""
        credential = await asyncio.to_thread(store.credentials.get, self.oauth_guard_conn_id)
        tokens = await asyncio.to_thread(store.credentials.tokens, credential)
        request = probe_request(self.settings, tokens.access_token)
        answer = await self.send(request)
        reading = read_probe_answer(answer, self.grant.dialect)
        seen = self.seen(Kind.PROBE, request, answer, reading, tokens, observer, investigation_id)
        recorded = await asyncio.to_thread(store.credentials.record, credential, seen, utcnow())
        await asyncio.to_thread(metrics.count, PROBE, finding=recorded.finding.value, **self.tags)
        return recorded

    async def control(self, store: Store, observer: Observer, investigation_id: int) -> Evidence:
        """The bogus-token control: our own refresh request with a token that cannot exist."""
        credential = await asyncio.to_thread(store.credentials.get, self.oauth_guard_conn_id)
        tokens = await asyncio.to_thread(store.credentials.tokens, credential)
        real = self.token_to_send(tokens)
        request = self.grant.request(secrets.token_urlsafe(max(len(real), 16))[: max(len(real), 16)], utcnow())
        answer = await self.send(request)
        reading = self.grant.read(answer).reading
        seen = self.seen(Kind.CONTROL, request, answer, reading, tokens, observer, investigation_id)
        return await asyncio.to_thread(store.credentials.record, credential, seen, utcnow())

    async def introspect(self, store: Store, observer: Observer, investigation_id: int) -> Evidence:
        """Ask the provider what it thinks of the token that a refresh sends, or of the access token if it sends none."""
        credential = await asyncio.to_thread(store.credentials.get, self.oauth_guard_conn_id)
        tokens = await asyncio.to_thread(store.credentials.tokens, credential)
        hint = self.grant_class.sends or "access_token"
        subject = Subject.GRANT if self.grant_class.sends else Subject.ACCESS_TOKEN
        request = introspection_request(self.settings, str(getattr(tokens, hint)), hint, utcnow())
        answer = await self.send(request)
        reading = read_introspection_answer(answer, subject)
        seen = self.seen(Kind.INTROSPECTION, request, answer, reading, tokens, observer, investigation_id)
        return await asyncio.to_thread(store.credentials.record, credential, seen, utcnow())

    # -- inside -------------------------------------------------------------------------------------------------

    async def send(self, request: HttpRequest) -> Answer:
        return await send(request, deadline=duration("request_deadline_seconds"))

    def token_to_send(self, tokens: Tokens) -> str:
        return str(getattr(tokens, self.grant_class.sends)) if self.grant_class.sends else ""

    def seen(
        self,
        kind: Kind,
        request: HttpRequest,
        answer: Answer,
        reading: Reading,
        tokens: Tokens,
        observer: Observer,
        investigation_id: int | None,
    ) -> Evidence:
        known = (*request.secrets, tokens.access_token, tokens.refresh_token)
        http = answer if isinstance(answer, HttpAnswer) else None
        by_hearsay = kind is Kind.INTROSPECTION and reading.subject is Subject.GRANT
        return Evidence(
            kind=kind,
            generation=tokens.generation,
            observed_at=answer.received_at,
            reading=Reading(
                reading.subject, reading.finding, reading.rule, redact_text(reading.explanation, known)[:1000]
            ),
            # A made-up token teaches about our request, never about the credential; and what the provider says of a refresh
            # token when asked is no proof before it has taken it.
            verdict=Verdict.OPEN if kind is Kind.CONTROL or by_hearsay else reading.verdict,
            shape=request.shape,
            http_status=http.status if http else None,
            headers=redact_headers(http.headers, known) if http else {},
            body=redact_body(http.body, known) if http else "",
            answer_id=answer_id(answer, request.secrets),
            skew=clock_skew(http.headers.get("date"), answer.received_at) if http else None,
            retry_after=retry_after(answer),
            observer=observer,
            investigation_id=investigation_id,
        )


RECONNECT = (
    "Reconnect it on the OAuth Guard page, put new tokens in its connection, or use `airflow oauth-guard import`."
)


def require_usable(store: Store, credential: Credential, now: datetime) -> None:
    """Raises:
    CredentialUnusableError: Unless there is an access token that a consumer may use.
    """
    proof = store.credentials.status_evidence(credential)
    why = f" Evidence {proof.id}: {proof.sentence()}" if proof else ""
    if credential.status is Status.LAPSED:
        raise CredentialUnusableError(
            f"Credential `{credential.conn_id}` is lapsed: its access token is rejected and could not be renewed.{why} "
            "See the incident about it in the last run of `oauth_guard_refresh`."
        )
    # A dead grant does not stop its last access token: it works to its end, which a probe has to have shown lately.
    ends_later = credential.life.remaining(now) > timedelta()
    if credential.status is Status.EXPIRED and not _probe_showed_life(
        store, credential, since=None if ends_later else now - PROBE_SPEAKS_FOR
    ):
        raise CredentialUnusableError(
            f"Credential `{credential.conn_id}` is expired: its grant is proven dead.{why} {RECONNECT}"
        )
    lapsed_at = credential.life.lapses_at
    past_its_end = lapsed_at is not None and lapsed_at <= now
    has_token = bool(store.credentials.tokens(credential).access_token)
    if not has_token or (past_its_end and not _probe_showed_life(store, credential, since=lapsed_at)):
        latest = store.credentials.latest_evidence(credential, Kind.REFRESH)
        last = f" The last refresh: {latest.sentence()}." if latest else " It was never refreshed."
        nothing = "Nothing is known against its grant; the guard keeps asking."
        outlook = nothing if credential.status is not Status.EXPIRED else f"Its grant is proven dead.{why} {RECONNECT}"
        raise CredentialUnusableError(
            f"Credential `{credential.conn_id}` has no access token with life left.{last} {outlook}"
        )


def _in_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # Its only way to say that there is none.
        return False
    return True


def _probe_showed_life(store: Store, credential: Credential, since: datetime | None) -> bool:
    """Whether the newest probe of this token was answered: that beats any clock, and a dead grant too."""
    probe = store.credentials.latest_evidence(credential, Kind.PROBE)
    if probe is None or probe.generation != credential.generation or probe.verdict is not Verdict.LIVE:
        return False
    return since is None or probe.observed_at >= since


def _fields(connection: Connection) -> dict[str, Any]:
    # Not `extra_dejson`: it talks to the supervisor, which breaks a triggerer; see OAuthGuardHook.mask_secrets.
    try:
        fields = json.loads(connection.extra or "{}")
    except ValueError as error:
        raise ConnectionFieldError(str(connection.conn_id), "extra", "is not JSON; write an object.") from error
    if not isinstance(fields, dict):
        raise ConnectionFieldError(str(connection.conn_id), "extra", "is not a JSON object; write one.")
    for given, meaning in DIRECTLY_GIVEN.items():
        value = getattr(connection, given)
        if value:
            fields[meaning] = value
    return fields


def _from_files(conn_id: str, fields: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Values that the connection names a file for: what the platform keeps fresh there is read anew each time.

    Raises:
        ConnectionFieldError: If a file cannot be read.
    """
    found = {}
    for name in sorted(known):
        if name.endswith("_file") and (path := str(fields.get(name) or "")):
            try:
                found[name.removesuffix("_file")] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConnectionFieldError(conn_id, name, f"is {path!r}, which cannot be read: {error}.") from error
    return found


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
