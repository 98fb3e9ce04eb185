"""Every fault x every class of connection: what the guard says, whom it tells, and how it recovers.

    python -m tests.faults.providers [fault ...]     # prints the table; all faults take a few minutes

Each case refreshes well once, is due again, fails under the fault, and is looked into. Then the fault is gone, time
passes (our clock and the server's together), and the guard runs every five minutes as its DAG would.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import count, product
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request

import pytest
import time_machine

from tests import conftest  # isort: skip  # noqa: F401 - sets the environment before anything can import Airflow

from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.incidents import Incident, IncidentKind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.hooks import config, refreshing, transport
from airflow_oauth_guard.hooks.refreshing import Refreshed, RefreshResult
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import (
    PATIENCE,
    RECIPES,
    TOKEN_PATHS,
    WHO,
    Connector,
    Guarded,
    looked_into,
    nothing_secret_is_kept,
    probe,
    unmask,
    utcnow,
)
from tests.authorization_server.client import OPENER, AuthorizationServer
from tests.faults.proxy import ANSWERS, DOORS, FaultProxy, Passed, make_certificates, names_fail

DEADLINE_SECONDS = 1
CONNECT_TIMEOUT = timedelta(seconds=0.5)
"""Shorter than the deadline, as in production: what ends while connecting was certainly not processed."""
REPLAY_PAUSE = timedelta(seconds=0.05)
CYCLE = timedelta(minutes=5)
PATIENCE_FOR_RECOVERY = timedelta(minutes=100)
"""From the fault to 20 minutes beyond the access token's end, and then over the longest pause between two tries."""
GRACE = timedelta(seconds=60)

FAULTS = (*DOORS, "dns", *ANSWERS)

LOOKS_LOST = frozenset(
    {
        *("hang", "hang_after", "reset_before", "reset_after", "drip", "truncated", "cut_json", "cut_gzip", "bad_gzip"),
        *("gzip_bomb", "huge", "broken_chunks", "empty_200", "500", "502_after"),
    }
)
"""Faults after which nobody can know whether the provider has processed the request."""

SPENDS = LOOKS_LOST - {"hang", "reset_before", "500"}
"""Those in which it has."""


# -- the cases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Provider:
    """A connection class, and a provider that behaves in one way."""

    name: str
    connection_class: str
    client: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    once: bool = False
    """Whether the fault happens to one request only; else it lasts until the question is answered."""
    probe_too: bool = False
    """Whether the probe meets the fault as well."""

    @property
    def rotates(self) -> bool:
        return bool(self.client.get("rotation"))

    @property
    def grace(self) -> timedelta:
        grace: timedelta = self.client.get("rotation_grace", timedelta())
        return grace


_REUSE_DETECTION = {"rotation": True, "reuse_detection": True}
_WITH_GRACE = {**_REUSE_DETECTION, "rotation_grace": GRACE}
_GRACE_FIELD = {"rotation_grace": int(GRACE.total_seconds())}

PROVIDERS = (
    Provider("refresh_token, rotation, reuse detection", "refresh_token", _REUSE_DETECTION),
    Provider(
        "refresh_token, rotation, reuse detection, the probe too", "refresh_token", _REUSE_DETECTION, probe_too=True
    ),
    Provider("refresh_token, no rotation", "refresh_token", {}, {"rotation": False}),
    Provider("refresh_token, rotation, grace", "refresh_token", _WITH_GRACE, _GRACE_FIELD),
    Provider("refresh_token, rotation, grace, fault once", "refresh_token", _WITH_GRACE, _GRACE_FIELD, once=True),
    Provider("client_credentials", "client_credentials"),
    Provider("jwt_bearer", "jwt_bearer"),
    Provider("meta_exchange", "meta_exchange"),
    Provider("instagram_refresh", "instagram_refresh"),
)


@dataclass(frozen=True)
class Row:
    """What became of one case."""

    fault: str
    provider: str
    refresh: str
    """How the refresh under the fault ended."""
    finding: str
    """What its answer was read as."""
    statuses: str
    """Every status the credential had, in order."""
    incident: str
    person: str
    """When a person is told."""
    sent: int
    """Requests to the token endpoint until it was over, controls among them."""
    recovery: str
    stored_token: str
    """Whether the server accepts the newest token in the store."""


class Case:
    """One connection on its way through one fault."""

    def __init__(self, world: World, fault: str, provider: Provider) -> None:
        self.world = world
        self.fault = fault
        self.provider = provider
        self.proxy = world.tls if fault == "tls" else world.plain
        self.connect = Connector(world.server, world.patch, f"case_{next(_numbers)}")
        self.guarded = self._connected()
        self.statuses: list[Status] = []

    def _connected(self) -> Guarded:
        provider, server = self.provider, self.world.server
        path = getattr(server, RECIPES[provider.connection_class].url).removeprefix(server.url)
        here = f"http://localhost:{self.proxy.port}" if self.fault == "dns" else self.proxy.url
        fields = dict(provider.fields)
        if provider.probe_too:
            fields["probe_url"] = f"{here}{server.probe_url.removeprefix(server.url)}"
        if provider.connection_class == "jwt_bearer":
            # Behind a proxy that ends TLS the server knows itself as http.
            fields["audience"] = f"{here.replace('https:', 'http:')}{path}"
        return self.connect(provider.connection_class, client=provider.client, token_url=f"{here}{path}", **fields)

    # -- what happens

    def run(self) -> Row:
        assert self.guarded.refresh(self.store).outcome is Refreshed.RENEWED
        self.life = self.guarded.credential(self.store).life
        assert self.life.due_at is not None
        self.world.let_pass(self.life.due_at - utcnow() + timedelta(seconds=1))
        self.proxy.requests.clear()
        with self._fault():
            failed = self.cycle()
        incident = self.incident()
        person = self._person(incident)
        self._check_the_alarm(failed, incident, person)
        recovery = self._recovery(failed)
        row = Row(
            fault=self.fault,
            provider=self.provider.name,
            refresh=failed.outcome.value,
            finding=failed.evidence.finding.value if failed.evidence else "",
            statuses=", ".join(dict.fromkeys(status.value for status in self.statuses)),
            incident=incident.kind.value if incident else "none",
            person=person,
            sent=len(self._token_requests()),
            recovery=recovery,
            stored_token="accepted" if self.stored_token_is_accepted() else "refused",
        )
        self._check_what_was_sent()
        self._check_the_end(row)
        return row

    @contextmanager
    def _fault(self) -> Iterator[None]:
        if self.fault == "dns":
            with names_fail("localhost"):
                yield
            return
        self.proxy.stage(self.fault, times=1 if self.provider.once and self.fault in ANSWERS else None)
        try:
            yield
        finally:
            self.proxy.clear()

    def cycle(self) -> RefreshResult:
        """One run of the DAG: a refresh, and the investigation of the question it raises."""
        result = self.guarded.refresh(self.store)
        question = self.store.investigations.take_on(self.credential, WHO, utcnow())
        if question is not None:
            looked_into(self.store, self.guarded, question, PATIENCE)
        self.statuses.append(self.credential.status)
        return result

    def _recovery(self, failed: RefreshResult) -> str:
        if failed.outcome is Refreshed.RENEWED:
            return "the replay in grace, at once"
        if self.recovered:
            return "the investigation's second look"
        for number in range(1, PATIENCE_FOR_RECOVERY // CYCLE + 1):
            self.world.let_pass(CYCLE)
            self.cycle()
            if self.recovered:
                assert self.life.lapses_at is not None
                last = "the last resort, at the access token's end" if utcnow() >= self.life.lapses_at else "a next try"
                return f"{last}, {words(number * CYCLE)} later"
        return "needs reconnecting"

    def reconnect(self) -> None:
        """A person consents anew, and puts the tokens into the connection."""
        minted = self.world.server.mint(self.guarded.conn_id)
        seeds = RECIPES[self.provider.connection_class].seeds
        self.connect.change(self.guarded, **{name: getattr(minted, name) for name in seeds})
        assert self.cycle().outcome is Refreshed.RENEWED

    # -- what is so

    @property
    def store(self) -> Store:
        return self.world.store

    @property
    def credential(self) -> Credential:
        return self.guarded.credential(self.store)

    @property
    def recovered(self) -> bool:
        issued_at, first = self.credential.life.issued_at, self.life.issued_at
        return issued_at is not None and first is not None and issued_at > first

    def incident(self) -> Incident | None:
        return self.guarded.incident(self.store)

    def stored_token_is_accepted(self) -> bool:
        """By the server, past the package: the access token, and the refresh token where there is one."""
        tokens = self.store.credentials.tokens(self.credential)
        if self.provider.connection_class == "refresh_token" and not self._is_active(tokens.refresh_token):
            return False
        return self._opens_the_resource(tokens.access_token)

    def _is_active(self, token: str) -> bool:
        description = self.guarded.description
        basic = b64encode(f"{description['login']}:{description['password']}".encode()).decode()
        asked = Request(
            self.world.server.introspection_url,
            data=urlencode({"token": token}).encode(),
            headers={"Authorization": f"Basic {basic}"},
        )
        with OPENER.open(asked, timeout=10) as answer:
            return bool(json.load(answer)["active"])

    def _opens_the_resource(self, token: str) -> bool:
        try:
            return probe(self.world.server, token) == 200
        except HTTPError as error:
            error.close()
            return False

    @property
    def lost(self) -> bool:
        """Whether the token may have been spent without our having the next one."""
        return self.provider.rotates and self.fault in LOOKS_LOST

    @property
    def spent_for_good(self) -> bool:
        """Whether the provider has spent the token without telling us, and accepts it no more."""
        return self.provider.rotates and self.fault in SPENDS and not self.provider.once

    # -- what must be so, whatever the fault

    def _person(self, incident: Incident | None) -> str:
        if incident is None:
            return "nobody"
        return "at once" if incident.needs_a_person(utcnow()) else "after the margin"

    def _check_the_alarm(self, failed: RefreshResult, incident: Incident | None, person: str) -> None:
        """A failure that lasts is told; a lost answer at once, and by its own name."""
        if failed.outcome is Refreshed.RENEWED or self.recovered:
            assert incident is None, incident
            return
        assert incident is not None, failed
        assert (incident.kind is IncidentKind.AMBIGUOUS) == self.lost, incident
        assert incident.kind is not IncidentKind.GRANT_DEAD, incident
        assert not self.lost or person == "at once", incident
        assert self.life.alarm_at is not None
        assert incident.needs_a_person(self.life.alarm_at), "within the margin somebody is told, whatever it is"

    def _check_what_was_sent(self) -> None:
        """A token that may be spent is not sent again while the access token lives, but in the provider's grace."""
        assert self.life.lapses_at is not None
        for sent in self._sendings().values():
            perhaps_spent = [seen for seen in sent if seen.fault in LOOKS_LOST or seen.answered == 200]
            for again in sent:
                if perhaps_spent and again.at > perhaps_spent[0].at:
                    in_grace = again.at < perhaps_spent[0].at + self.provider.grace
                    assert in_grace or again.at >= self.life.lapses_at, f"a token was sent again: {sent}"

    def _sendings(self) -> dict[str, list[Passed]]:
        """Where a refresh may spend its token: every request, by the token it sent."""
        sent: dict[str, list[Passed]] = {}
        for seen in self._token_requests() if self.provider.rotates else ():
            sent.setdefault(seen.parameters["refresh_token"], []).append(seen)
        return sent

    def _token_requests(self) -> list[Passed]:
        return [seen for seen in self.proxy.requests if urlsplit(seen.target).path in TOKEN_PATHS]

    def _check_the_end(self, row: Row) -> None:
        assert Status.EXPIRED not in self.statuses, row
        assert self.recovered != self.spent_for_good, row
        if self.recovered:
            assert row.stored_token == "accepted", row
            assert self.incident() is None, "recovered, and so the incident is over"
            return
        incident = self.incident()
        assert incident is not None, row
        assert incident.kind is IncidentKind.AMBIGUOUS, incident
        assert incident.is_to_be_told(utcnow()), "it stays open, and is told"
        self.reconnect()
        assert self.incident() is None, "reconnected, and so the incident is over"
        assert self.stored_token_is_accepted()


_numbers = count(1)


# -- the world they happen in -----------------------------------------------------------------------------------------


class World:
    """A server, a proxy before it, a store, and one clock for all of them."""

    server: AuthorizationServer
    plain: FaultProxy
    tls: FaultProxy
    store: Store
    patch: pytest.MonkeyPatch

    def __init__(self) -> None:
        self._resources = ExitStack()

    def __enter__(self) -> World:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            certificates = make_certificates()
            self.patch = stack.enter_context(pytest.MonkeyPatch.context())
            self.patch.setenv("AIRFLOW_HOME", str(folder))
            self.patch.setenv("AIRFLOW__OAUTH_GUARD__REQUEST_DEADLINE_SECONDS", str(DEADLINE_SECONDS))
            self.patch.setenv("SSL_CERT_FILE", str(certificates.write_authority(folder)))
            self.patch.setattr(transport, "CONNECT_TIMEOUT", CONNECT_TIMEOUT)
            self.patch.setattr(refreshing, "REPLAY_PAUSE", REPLAY_PAUSE)
            self._forget_what_was_opened(stack)
            self.server = stack.enter_context(AuthorizationServer())
            self.plain = stack.enter_context(FaultProxy(self.server.url))
            self.tls = stack.enter_context(FaultProxy(self.server.url, certificates))
            self.store = config.get_store()
            stack.callback(self.store.database.engine.dispose)
            self._clock = stack.enter_context(time_machine.travel(utcnow(), tick=True))
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def _forget_what_was_opened(self, stack: ExitStack) -> None:
        """The store of another test, and a TLS context that trusts others than we do; before, and after."""
        for forget in (config._open.cache_clear, transport._tls.cache_clear):
            forget()
            stack.callback(forget)
        stack.callback(unmask)

    def let_pass(self, duration: timedelta) -> None:
        """For us and for the server."""
        self._clock.shift(duration)
        self.server.advance(duration, signers_too=True)


# -- the table --------------------------------------------------------------------------------------------------------


def run(faults: Iterable[str] = FAULTS, providers: Iterable[Provider] = PROVIDERS) -> list[Row]:
    """Every fault x every provider.

    Raises:
        AssertionError: If a law does not hold, with every case in which; see the methods of :class:`Case` that check.
    """
    rows, broken, providers = [], [], tuple(providers)
    with World() as world:
        for fault, provider in product(faults, providers):
            try:
                rows.append(Case(world, fault, provider).run())
            except AssertionError as error:
                broken.append(
                    f"{fault}, {provider.name}: {error!r}, in {traceback.extract_tb(error.__traceback__)[-1]}"
                )
        nothing_secret_is_kept(world.store, ())
    assert not broken, "\n".join(broken)
    return rows


def as_markdown(rows: Iterable[Row]) -> str:
    """A table, with the providers in one line for which a fault ended alike."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        values = asdict(row)
        provider = values.pop("provider")
        alike.setdefault(tuple(values.items()), []).append(provider)
    everybody = len({provider for providers in alike.values() for provider in providers})
    lines = [
        dict(values) | {"provider": "every one" if len(providers) == everybody else "; ".join(providers)}
        for values, providers in alike.items()
    ]
    names = ["fault", "provider", *(name for name in lines[0] if name not in ("fault", "provider"))] if lines else []
    head = [" | ".join(name.replace("_", " ") for name in names), " | ".join("---" for _ in names)]
    body = [" | ".join(str(line[name]) for name in names) for line in lines]
    return "".join(f"| {line} |\n" for line in [*head, *body])


def main() -> None:
    began = time.monotonic()
    rows = run(sys.argv[1:] or FAULTS)
    print(as_markdown(rows))
    print(f"{len(rows)} cases in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
