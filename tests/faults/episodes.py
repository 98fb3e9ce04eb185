"""Any interleaving of everything, against a provider that knows the truth.

Real hook, real store, real investigation and expire gate; only the socket, the clock and the order of things are ours.
Each worker is a greenlet that stops before and after every call to the store and every exchange with the provider, so
hypothesis decides who goes on next, who is killed where he stands, and when time passes. What must hold is asked of the
:class:`~tests.faults.model.Provider`, never of the package.

``python -m tests.faults.episodes --episodes 10000`` prints what occurred and how often.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import logging
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar
from unittest.mock import patch

if __name__ == "__main__":
    # Before anything can import Airflow, as in every test run.
    from tests.conftest import set_environment

    set_environment()

import tenacity
import time_machine
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import Connection
from greenlet import getcurrent, greenlet
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, NoAnswer
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.investigation import Conclusion
from airflow_oauth_guard.domain.schedule import Life
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import (
    LeaseLostError,
    NotRegisteredError,
    StoreUnavailableError,
    UnprovenTransitionError,
)
from airflow_oauth_guard.grants.flow import HttpRequest
from airflow_oauth_guard.hooks import base, refreshing, renewing, second_place
from airflow_oauth_guard.hooks.base import OAuthGuardHook
from airflow_oauth_guard.hooks.investigation import Patience, look, settle
from airflow_oauth_guard.hooks.refreshing import Refreshed, RefreshResult
from airflow_oauth_guard.hooks.registry import hook_for
from airflow_oauth_guard.operators import expire as expire_gate
from airflow_oauth_guard.operators.expire import ExpireOperator
from airflow_oauth_guard.store.store import Store
from tests.faults.model import (
    LEARNS_NOTHING,
    PLAIN_LIE,
    PROBE_URL,
    TOKEN_URL,
    Exchange,
    Family,
    Fate,
    ProbeFate,
    Provider,
    Rules,
    Wire,
    sent_refresh_token,
)

T = TypeVar("T")

START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
PAUSE = timedelta(seconds=60)
PATIENCE = Patience(pause=PAUSE, give_up_after=timedelta(minutes=30))
WHO = Observer("oauth_guard_refresh", "scheduled__1", "refresh", -1, 1)
KEY = base64.urlsafe_b64encode(b"a key that only tests ever have.").decode()
TO_ITS_END = 4000
"""More points than any job passes; a job that passes them all never ends."""

DEADLINE = timedelta(seconds=30)
"""Of one call, as `request_deadline_seconds` has it by default."""

SHORTEST_SLEEP = timedelta(seconds=4)

EXPECTED = (
    *(UnprovenTransitionError, LeaseLostError, StoreUnavailableError, AirflowSkipException),
    NotRegisteredError,  # from the gate, for an investigation that nobody opened
)
"""How a job may end without a result. Everything else is a mistake in the package."""


class Crash(BaseException):
    """The process is gone, as by ``kill -9``."""


class Broken(AssertionError):
    """Something that must always hold did not."""


# -- workers ----------------------------------------------------------------------------------------------------------


class Worker(greenlet):
    """One process. It runs until its next point, and no further, each time it is told to."""

    def __init__(self, world: World, job: str, work: Callable[[], Any]) -> None:
        super().__init__(self._live, parent=world.scheduler)
        self.world = world
        self.job = job
        self.work = work
        self.at = "its beginning"
        self.wakes_at: datetime | None = None
        self.killed = False
        self.result: Any = None
        self.error: Exception | None = None
        self.lease_until: datetime | None = None
        self.about_to_send = False
        """Its intent is journalled and nothing was sent: here nobody can take the lease from it and be noticed."""
        self.life: Life | None = None
        """Of the access token that goes with what it is about to send."""
        self.decided_at: datetime | None = None
        """By our clock: when it journalled that it would send."""
        self.exchange: Exchange | None = None
        """The one it has not settled yet."""
        self.saw_life = False
        self.saw_death = False
        """Its last probe was answered by a living access token."""
        self.probed = False

    def _live(self) -> None:
        try:
            self.result = self.work()
        except Crash:
            pass
        except Exception as error:
            self.error = error

    @property
    def ended(self) -> bool:
        return self.dead or self.killed

    def point(self, where: str) -> None:
        """A moment at which anything may happen elsewhere, or this process may die."""
        self.at = where
        if not self.killed:
            self.parent.switch()
        if self.killed:
            raise Crash

    def go_on(self, points: int = TO_ITS_END) -> None:
        for _ in range(points):
            if self.ended:
                break
            if self.wakes_at is not None:
                self.world.clock.reach(self.wakes_at)
                self.wakes_at = None
            self.switch()
        if points == TO_ITS_END and not self.ended:
            raise Broken(f"`{self.job}` never ends: it stands at {self.at}")
        if self.error is not None and not isinstance(self.error, EXPECTED):
            raise self.error

    def go_to(self, where: str) -> None:
        """To this point, or to the end where it does not pass there."""
        for _ in range(TO_ITS_END):
            if self.ended or self.at == where:
                return
            self.go_on(1)

    def kill(self) -> None:
        """Die here. Whatever ``finally`` wants to tidy up meets the same end."""
        started = bool(self)
        self.killed = True
        if started:
            self.switch()


class Clock:
    """The true time, and ours, which may be off."""

    def __init__(self) -> None:
        self.true = START
        self.off = timedelta()
        self.before_it_is: Callable[[datetime], None] = lambda moment: None
        self._traveller = time_machine.travel(START, tick=False)
        self._set = self._traveller.start().move_to

    def ours(self) -> datetime:
        return self.true + self.off

    def monotonic(self) -> float:
        return (self.true - START).total_seconds()

    def pass_by(self, duration: timedelta) -> None:
        self.reach(self.true + duration)

    def reach(self, moment: datetime) -> None:
        self.before_it_is(moment)
        self.true = max(self.true, moment)
        self._set(self.ours())

    def step_back(self, by: timedelta) -> None:
        self.off -= by
        self._set(self.ours())

    def put_right(self) -> None:
        self.off = timedelta()
        self._set(self.ours())

    def stop(self) -> None:
        self._traveller.stop()


# -- what the package sees --------------------------------------------------------------------------------------------


class Gated:
    """One part of the store, with a point before and after each call. Calls fail while the store is out of reach."""

    def __init__(self, part: Any, world: World) -> None:
        self._part = part
        self._world = world

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if not callable(found) or name in WITHOUT_THE_DATABASE:
            return found
        gated = self._world.gated(name, found)
        self.__dict__[name] = gated
        return gated


WITHOUT_THE_DATABASE = frozenset({"seal_answer", "open_answer"})


class Variables:
    """Airflow's Variables, in memory."""

    def __init__(self, world: World) -> None:
        self.held: dict[str, str] = {}
        self.set = world.gated("Variable.set", self._set)
        self.get = world.gated("Variable.get", lambda name, default=None: self.held.get(name, default))
        self.delete = world.gated("Variable.delete", lambda name: self.held.pop(name, None))

    def _set(self, name: str, value: str, description: str = "") -> None:
        self.held[name] = value


async def in_place(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """For ``asyncio.to_thread``: one thread is enough where every stop is a point."""
    return function(*args, **kwargs)


def _itself(flow: T) -> T:
    """For a task of its own: nothing is cancelled here, processes die."""
    return flow


async def _without_end(flow: Coroutine[Any, Any, T], _seconds: float) -> T:
    return await flow


def _as_async(function: Callable[..., T], **_how: Any) -> Callable[..., Coroutine[Any, Any, T]]:
    return lambda *args, **kwargs: in_place(function, *args, **kwargs)


WAITING = (asyncio, refreshing, renewing, second_place)
"""Modules whose names for waiting are replaced; the others call them by asyncio's."""


def drive(flow: Coroutine[Any, Any, T]) -> T:
    """Run a flow that waits for nothing but points."""
    try:
        flow.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the flow awaited something that is not a point")


# -- the store of all episodes ----------------------------------------------------------------------------------------


@cache
def _folder() -> Path:
    memory = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(prefix="oauth_guard_episodes_", dir=memory if memory.is_dir() else None)
    _kept.append(folder)
    return Path(folder.name)


_kept: list[Any] = []


@cache
def _opened() -> Store:
    """Opened once; each episode puts an empty database under it."""
    path = _folder() / "oauth_guard.db"
    # Alembic tells what it does on every run.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    store = Store(f"sqlite:///{path}", KEY)
    store.database.engine.dispose()
    with closing(sqlite3.connect(path)) as empty:
        empty.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(path, _folder() / "empty.db")

    @event.listens_for(store.database.engine, "connect")
    def _quick(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    return store


def _emptied() -> Store:
    store, folder = _opened(), _folder()
    store.database.engine.dispose()
    for left in folder.glob("oauth_guard.db-*"):
        left.unlink()
    shutil.copy(folder / "empty.db", folder / "oauth_guard.db")
    return store


# -- the world --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """How the provider is, and what the connection says about it."""

    rules: Rules
    policy: str = "evidence"
    told_rotation: bool = True
    """The connection's ``rotation``: off only where the provider really never rotates."""
    told_grace: timedelta = timedelta()
    """The connection's ``rotation_grace``: never longer than the provider's."""
    has_probe: bool = True
    imported: bool = False
    """The first tokens come by import, with their end told; else from the connection's fields, without."""


@dataclass
class Tally:
    """What really occurred."""

    episodes: int = 0
    steps: int = 0
    refreshes: int = 0
    crashes: int = 0
    deaths: int = 0
    """Grants that the provider ended, for whatever reason."""
    expiries: int = 0
    deceived: int = 0
    """Expiries of a living grant that the provider itself called invalid twice, with a pause between."""
    false_expiries: int = 0
    tokens_lost: int = 0
    lost_answers: int = 0
    """Answers with a new refresh token that reached no living process."""
    ambiguous: int = 0
    recovered: int = 0
    """Credentials that were expired or ambiguous and renewed again without a person's doing."""
    waited: int = 0
    """Refreshes that found another worker at it and came back with its token, or gave up waiting."""
    overslept: int = 0
    details: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, what: str, which: str) -> None:
        self.details.setdefault(what, Counter())[which] += 1


class World:
    """One credential, its provider, the processes that guard it, and what must hold."""

    def __init__(self, setup: Setup, tally: Tally) -> None:
        self.setup = setup
        self.tally = tally
        self.scheduler = getcurrent()
        self.workers: list[Worker] = []
        self.exchanges: list[Exchange] = []
        self.results: list[RefreshResult] = []
        self.outage: deque[str] = deque()
        """Of the calls to the store to come: ``before`` or ``after`` its commit the connection breaks; ``""``: works."""
        self._stack = ExitStack()
        self._stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.ERROR)
        self.clock = Clock()
        self._stack.callback(self.clock.stop)
        self.clock.before_it_is = self._nobody_sends_after_the_lease
        self.provider = Provider(setup.rules, "crm", "s3cret", lambda: self.clock.true)
        self.wire = Wire(self.provider, self.clock.ours)
        self.real = _emptied()
        self.store = SimpleNamespace(
            credentials=Gated(self.real.credentials, self),
            investigations=Gated(self.real.investigations, self),
            incidents=Gated(self.real.incidents, self),
            clients=Gated(self.real.clients, self),
            investigation=self.gated("investigation", self.real.investigation),
        )
        self.variables = Variables(self)
        self._patch()
        self._watch = self._stack.enter_context(closing(sqlite3.connect(str(self.real.database.engine.url.database))))
        self.family = self._first_tokens()
        self.credential_id = self.real.credentials.get("crm").id
        self._seen = (0, 0)
        self._was = Status.ACTIVE
        self._opened: dict[str, str] = {}

    def _patch(self) -> None:
        waits = {
            "to_thread": in_place,
            "sleep": self._sleep,
            "sync_to_async": _as_async,
            "to_its_end": _itself,
            "wait_for": _without_end,
        }
        stand_ins = [
            *((module, name, waits[name]) for module in WAITING for name in waits if hasattr(module, name)),
            (base, "send", self._send),
            (tenacity, "time", SimpleNamespace(monotonic=self.clock.monotonic)),
            (expire_gate, "get_store", lambda: self.store),
            # Airflow's own logger writes to the screen whatever is disabled.
            (ExpireOperator, "log", logging.getLogger(__name__)),
        ]
        for target, name, stand_in in stand_ins:
            self._stack.enter_context(patch.object(target, name, stand_in))
        self._stack.enter_context(patch("airflow.sdk.Variable", self.variables))

    def close(self) -> None:
        for worker in self.workers:
            if not worker.ended:
                worker.kill()
        self._stack.close()

    # -- the connection ---------------------------------------------------------------------------------------------

    def _first_tokens(self) -> Family:
        given = self.provider.consent()
        seeds = {} if self.setup.imported else {name: given[name] for name in ("access_token", "refresh_token")}
        extra = {
            **seeds,
            "rotation": self.setup.told_rotation,
            "rotation_grace": self.setup.told_grace.total_seconds(),
            "expire_policy": self.setup.policy,
            **({"probe_url": PROBE_URL} if self.setup.has_probe else {}),
        }
        self.connection = Connection(
            conn_id="crm",
            conn_type="oauth_guard_refresh_token",
            host=TOKEN_URL,
            login="crm",
            password="s3cret",
            extra=json.dumps(extra),
        )
        if self.setup.imported:
            self._import(given)
        else:
            self.real.credentials.enroll(self.hook().enrollment(), self.clock.ours())
        return self._family_of(given)

    def hook(self) -> OAuthGuardHook:
        return hook_for(self.connection)

    def _import(self, given: dict[str, object]) -> None:
        ends = self.clock.ours() + self.setup.rules.access_lifetime if self.setup.rules.says_lifetime else None
        news = replace(
            self.hook().enrollment(ends),
            access_token=str(given["access_token"]),
            refresh_token=str(given["refresh_token"]),
        )
        self.real.credentials.import_tokens(news, self.clock.ours(), WHO)

    def _family_of(self, given: dict[str, object]) -> Family:
        family = self.provider.family_of(str(given["refresh_token"]))
        assert family is not None
        return family

    def needs_a_person(self) -> bool:
        """Whether somebody may want to reconnect it; while others are at work that is the most dangerous."""
        return bool(self.family.ended or self.living or any(self._is_unknown(e) for e in self.exchanges))

    def reconnect(self) -> None:
        """A person connects the account anew and enters the tokens."""
        given = self.provider.consent()
        self._import(given)
        self.family = self._family_of(given)
        self._was = Status.ACTIVE

    # -- points -----------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Worker | None:
        here = getcurrent()
        return here if isinstance(here, Worker) else None

    def point(self, where: str) -> None:
        if (worker := self.current) is not None:
            worker.point(where)

    def gated(self, name: str, call: Callable[..., T]) -> Callable[..., T]:
        def between_two_points(*args: Any, **kwargs: Any) -> T:
            self.point(f"before {name}")
            out = self.outage.popleft() if self.outage and not name.startswith("Variable") else ""
            if out == "before":
                raise StoreUnavailableError("The store cannot be used now: staged.")
            result = call(*args, **kwargs)
            self._took_place(name, args, result)
            if out == "after":
                raise StoreUnavailableError("The store cannot be used now: staged, after the commit.")
            self.point(f"after {name}")
            return result

        return between_two_points

    def _took_place(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        worker = self.current
        if worker is None:
            return
        if name == "renew":
            for exchange in self.exchanges:
                exchange.settled |= exchange.sent == args[0].tokens.refresh_token
        if name == "lease" and result is not None:
            worker.lease_until = args[3] + args[2]
        elif name == "open_intent":
            worker.about_to_send = True
            worker.life, worker.decided_at = args[0].credential.life, args[2]
            worker.lease_until = args[2] + args[0].ttl
        elif name in ("keep_answer", "Variable.set", "renew", "fail") and worker.exchange is not None:
            worker.exchange.kept = True
            if name in ("renew", "fail") or worker.exchange.fate is Fate.ANSWERED:
                worker.exchange = None

    async def _sleep(self, seconds: float) -> None:
        worker = self.current
        assert worker is not None
        # Longer than asked: nothing changes between two looks at a store unless somebody else goes on.
        worker.wakes_at = self.clock.true + max(timedelta(seconds=seconds), SHORTEST_SLEEP)
        worker.point("asleep")

    # -- exchanges --------------------------------------------------------------------------------------------------

    async def _send(self, request: HttpRequest, *, deadline: timedelta) -> Answer:
        worker = self.current
        assert worker is not None
        if request.url == PROBE_URL:
            return self._probe(worker, request)
        worker.point("before sending")
        exchange = self._begin(worker, sent_refresh_token(request), deadline)
        answer = self.wire.send_token_request(request, exchange)
        worker.point("in flight")
        return self._arrive(exchange, answer)

    def _probe(self, worker: Worker, request: HttpRequest) -> Answer:
        worker.point("before probing")
        answer = self.wire.send_probe(request)
        worker.probed = True
        worker.saw_death = isinstance(answer, HttpAnswer) and "invalid_token" in str(answer.headers)
        worker.saw_life = isinstance(answer, HttpAnswer) and answer.status == 200 and answer.body[:1] == b"{"
        worker.point("probing")
        return replace(answer, received_at=self.clock.ours())

    def _begin(self, worker: Worker, sent: str, deadline: timedelta) -> Exchange:
        worker.about_to_send = False
        over_at = self.clock.true + deadline
        exchange = Exchange(worker, sent, self.wire.next_fate(), sent_at=self.clock.ours(), over_at=over_at)
        self.tally.count("fate of a token request", exchange.fate.value)
        if self.provider.family_of(sent) is not None:
            self._must_be_alone(exchange)
            self._must_not_be_a_gamble(exchange)
            self.exchanges.append(exchange)
            worker.exchange = exchange
        return exchange

    def _arrive(self, exchange: Exchange, answer: Answer) -> Answer:
        exchange.over = True
        if self.clock.true >= exchange.over_at:
            exchange.fate = Fate.LOST_AFTER if exchange.issued else Fate.LOST_BEFORE
            return NoAnswer("nothing complete within 30 s", maybe_processed=True, received_at=self.clock.ours())
        exchange.delivered = exchange.fate is Fate.ANSWERED
        return replace(answer, received_at=self.clock.ours())

    def _nobody_sends_after_the_lease(self, moment: datetime) -> None:
        """A process that stops between its last look at the clock and the socket cannot be defended against: no store
        can see it wake. So nobody stops there for longer than the lease leaves for it, which is a call less than it
        lasts; elsewhere they do.
        """
        for worker in self.living:
            if worker.lease_until is None:
                continue
            lease_ends = worker.lease_until - self.clock.off
            while moment > lease_ends - DEADLINE and worker.about_to_send and not worker.ended:
                worker.go_on(1)
            if moment <= lease_ends:
                continue
            if worker.exchange is not None and not worker.exchange.kept:
                worker.exchange.overslept = True

    # -- what must hold ---------------------------------------------------------------------------------------------

    def _must_be_alone(self, exchange: Exchange) -> None:
        for other in self.exchanges:
            in_flight = not (other.over or other.worker.ended) and self.clock.true < other.over_at
            if other.sent == exchange.sent and in_flight:
                raise Broken(
                    f"two workers send `{exchange.sent}` at once: `{other.worker.job}` is at {other.worker.at}"
                )

    def _must_not_be_a_gamble(self, exchange: Exchange) -> None:
        """A token that may be spent is not sent again while that could cost a living access token."""
        lost = next((e for e in self.exchanges if e.sent == exchange.sent and self._is_unknown(e)), None)
        if lost is None or not self.setup.told_rotation:
            return
        decided_at, life = exchange.worker.decided_at, exchange.worker.life
        assert decided_at is not None
        assert life is not None
        if decided_at < lost.sent_at + self.setup.told_grace:
            return
        self.tally.count("resent although its fate is unknown", lost.fate.value)
        if life.expires_at is not None and decided_at < life.expires_at:
            raise Broken(
                f"`{exchange.sent}` may be spent ({lost.fate.value}) and was sent again before {life.expires_at}"
            )
        if life.expires_at is None and not exchange.worker.saw_death:
            raise Broken(
                f"`{exchange.sent}` may be spent and was sent again although nobody knows whether its tokens live"
            )
        if self.setup.has_probe and (not exchange.worker.probed or exchange.worker.saw_life):
            raise Broken(f"`{exchange.sent}` may be spent and was sent again without asking whether its tokens live")

    def _is_unknown(self, exchange: Exchange) -> bool:
        if exchange.settled:
            return False
        if exchange.fate in LEARNS_NOTHING:
            return True
        return not exchange.kept and (exchange.worker.exchange is not exchange or exchange.worker.ended)

    def check(self) -> None:
        """After every step: the status is not a lie, and nothing that was known is forgotten."""
        status, generation, refresh_token, evidence = self._watch.execute(STATE, (self.credential_id,)).fetchone()
        if (generation, evidence) < self._seen or evidence < self._seen[1]:
            raise Broken(f"generation and evidence went from {self._seen} to {(generation, evidence)}")
        self._seen = (generation, evidence)
        if status == Status.EXPIRED.value and self._was is not Status.EXPIRED:
            self._must_be_dead(self._decrypted(refresh_token))
        self._was = Status(status)

    def _must_be_dead(self, refresh_token: str) -> None:
        self.tally.expiries += 1
        if not self._is_alive(refresh_token):
            return
        told = [at for token, at in self.provider.lies if token == refresh_token]
        if told and max(told) - min(told) >= PAUSE:
            self.tally.deceived += 1
            return
        self.tally.false_expiries += 1
        raise Broken(
            f"expired, and the provider holds the grant alive: it would accept `{refresh_token}` or its successor"
        )

    def _is_alive(self, refresh_token: str) -> bool:
        """Whether this grant can still be used, or could have been but for an answer that got lost."""
        return self.provider.accepts(refresh_token) or self.provider.accepts(self.family.newest)

    def _decrypted(self, stored: str) -> str:
        if stored not in self._opened:
            self._opened[stored] = self.real.credentials._open(stored)
        return self._opened[stored]

    def _holder(self, refresh_token: str) -> Exchange | None:
        return next((e for e in reversed(self.exchanges) if e.issued == refresh_token), None)

    def _reached_us(self, refresh_token: str) -> bool:
        """Whether the token came to a process that lived, or that had written it down."""
        bought = self._holder(refresh_token)
        if bought is None:
            return True
        return bought.delivered and not bought.overslept and (bought.kept or not bought.worker.killed)

    # -- jobs -------------------------------------------------------------------------------------------------------

    def start(self, job: str, number: int = 0) -> Worker:
        work = {
            "refresh": self._refresh,
            "probe": lambda: drive(self.hook().probe(self.store, WHO)),
            "investigate": lambda: self._investigate(number),
            "expire": lambda: self._expire(number),
        }[job]
        worker = Worker(self, job, work)
        self.workers = [known for known in self.workers if not known.ended]
        self.workers.append(worker)
        return worker

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.ended]

    def _refresh(self) -> RefreshResult:
        result = drive(self.hook().refresh(self.store, WHO))
        self.tally.count("a refresh ended", result.outcome.value)
        self.tally.refreshes += result.outcome is Refreshed.RENEWED
        self.tally.waited += "another process" in result.explanation
        self.results.append(result)
        return result

    def until_due(self, later: timedelta) -> None:
        """Let time pass until a refresh is due; where it is already, this much more."""
        credential = self.real.credentials.by_id(self.credential_id)
        due = credential.attempt_after or credential.life.due_at
        if due is not None and due > self.clock.ours():
            self.clock.reach(due - self.clock.off)
        else:
            self.clock.pass_by(later)

    def kill(self, worker: Worker) -> None:
        if not worker.ended:
            self.tally.crashes += 1
            self.tally.count("a worker was killed", worker.at)
            worker.kill()

    def refreshed(self) -> bool:
        """Whether there is any evidence yet."""
        return self._seen[1] > 0

    def questions(self) -> list[int]:
        return [row["id"] for row in self.real.investigations.open_ones()]

    def _investigate(self, number: int) -> Any:
        """As the sensor, the approval and the expire gate do, one after the other."""
        open_ones = self.questions()
        if not open_ones:
            return None
        question, hook = open_ones[number % len(open_ones)], self.hook()
        while not isinstance(seen := drive(look(self.store, hook, question, PATIENCE, WHO)), Conclusion):
            if seen:
                # Longer than the sensor does: a look that is not due teaches nothing.
                drive(self._sleep(PAUSE.total_seconds()))
        self.tally.count("an investigation found", seen.finding.value)
        settle(self.store, question, seen, WHO, self.clock.ours())
        investigation = self.store.investigation(question)
        if investigation.closed_at is not None or investigation.finding != "grant_dead":
            return None
        if self.setup.policy == "ask":
            drive(self._sleep(3600))
        self.store.investigations.answered(question, "approved", "somebody", self.clock.ours())
        return _the_gate(question).execute(CONTEXT)

    def _expire(self, number: int) -> Any:
        """A mis-wired graph: straight to the gate, for any investigation, or past it with any evidence."""
        if number % 2:
            return _the_gate(1 + number // 8).execute(CONTEXT)
        return self.store.credentials.expire("crm", 1 + number // 2 % self._seen[1], WHO, self.clock.ours())

    # -- the end ----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let everybody finish, the network be well and time pass; then nothing may be lost, nor silently stuck."""
        for worker in self.living:
            worker.go_on()
        self.check()
        self.outage.clear()
        self.wire.fates.clear()
        self.wire.probe_fate = ProbeFate.TRUTH
        self.provider.be_honest()
        self.clock.put_right()
        already = len(self.results)
        for _ in range(3):
            self.clock.pass_by(timedelta(hours=26))
            refresh = self.start("refresh")
            refresh.go_on()
            if refresh.result is not None and refresh.result.outcome is Refreshed.RENEWED:
                break
            if self.questions():
                self.start("investigate").go_on()
            self.check()
        self.check()
        self._nothing_may_be_lost()
        self._nothing_may_be_stuck(self.results[already:])
        self._count()

    def _nothing_may_be_lost(self) -> None:
        newest = self.family.newest
        if not self._reached_us(newest) or self.family.ended in ("revoked by the user", "outlived"):
            return
        stored = self.real.credentials.tokens(self.real.credentials.get("crm")).refresh_token
        if stored != newest or self.family.ended:
            self.tally.tokens_lost += 1
            why = f"; the provider ended it: {self.family.ended}" if self.family.ended else ""
            raise Broken(f"lost: `{newest}` had reached us, and `{stored}` is stored{why}")

    def _nothing_may_be_stuck(self, results: list[RefreshResult]) -> None:
        incident = self.real.incidents.open_about(About.CREDENTIAL, "crm")
        renewed = any(result.outcome is Refreshed.RENEWED for result in results)
        told = incident is not None and incident.needs_a_person(self.clock.ours())
        if not renewed and not told:
            last = results[-1] if results else None
            raise Broken(f"silently stuck: no refresh succeeds and no incident calls a person; {incident}; {last}")
        if renewed and self._was is not Status.ACTIVE:
            raise Broken(f"renewed, and still {self._was.value}")

    def _count(self) -> None:
        kinds = [incident.kind for incident in self.real.incidents.history(About.CREDENTIAL, "crm")]
        moved = self.real.credentials.transitions(self.real.credentials.get("crm"))
        self.tally.deaths += sum(self.provider.deaths.values())
        for why, number in self.provider.deaths.items():
            self.tally.details.setdefault("a grant died", Counter())[why] += number
        self.tally.ambiguous += kinds.count(IncidentKind.AMBIGUOUS)
        self.tally.recovered += kinds.count(IncidentKind.FALSE_EXPIRY)
        self.tally.lost_answers += sum(not self._reached_us(e.issued) for e in self.exchanges if e.issued)
        self.tally.overslept += sum(e.overslept for e in self.exchanges)
        for row in moved:
            self.tally.count("a status changed", f"{row['from_status']} to {row['to_status']}")


STATE = """
    SELECT s.status, t.generation, t.refresh_token,
           (SELECT count(*) FROM oauth_guard_evidence e WHERE e.credential_id = t.credential_id)
    FROM oauth_guard_tokens t JOIN oauth_guard_statuses s ON s.credential_id = t.credential_id
    WHERE t.credential_id = ?
"""


def _the_gate(question: int) -> ExpireOperator:
    gate = _gate()
    gate.investigation = question
    return gate


@cache
def _gate() -> ExpireOperator:
    return ExpireOperator(task_id="expire", investigation=0)


_TASK = SimpleNamespace(dag_id="oauth_guard_investigate", run_id="1", task_id="expire", map_index=-1, try_number=1)
CONTEXT: dict[str, Any] = {"ti": _TASK, "task_instance": _TASK, "dag_run": SimpleNamespace(run_id="1", conf={})}


# -- episodes ---------------------------------------------------------------------------------------------------------

POINTS = st.one_of(st.integers(1, 20), st.just(TO_ITS_END))
DEADLY = st.sampled_from(
    [
        *("before lease", "after lease", "before open_intent", "after open_intent", "before sending", "in flight"),
        *("before keep_answer", "after keep_answer", "before Variable.set", "after Variable.set"),
        *("before renew", "after renew", "before fail", "after fail", "before release", "asleep"),
    ]
)
"""Where a refresh is killed."""

WHICH = st.integers(0, 2)
AT_MOST = 3
"""Workers alive at a time."""

LATER = st.sampled_from([timedelta(seconds=s) for s in (5, 40, 60, 180, 360, 1500, 3600, 7 * 3600, 86400, 4 * 86400)])
DESCRIPTIONS = st.sampled_from(
    [
        *(PLAIN_LIE, PLAIN_LIE, "The redirect_uri does not match"),
        *("The assertion is not yet valid: check the clock", "The token was issued to another client"),
    ]
)
FATES = st.one_of(st.just([]), st.just([]), st.lists(st.sampled_from(list(Fate)), min_size=1, max_size=2))
CODES = st.sampled_from(["invalid_request", "unsupported_grant_type"])


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    rules = Rules(
        rotation=draw(st.sampled_from([True, True, True, False])),
        reuse_detection=draw(st.booleans()),
        grace=draw(st.sampled_from([timedelta(), timedelta(seconds=30), timedelta(minutes=2)])),
        access_lifetime=draw(st.sampled_from([timedelta(minutes=10), timedelta(hours=1), timedelta(hours=12)])),
        refresh_lifetime=draw(st.sampled_from([None, None, timedelta(days=7)])),
        says_lifetime=draw(st.sampled_from([True, True, True, False])),
        explains=draw(st.booleans()),
    )
    return Setup(
        rules=rules,
        policy=draw(st.sampled_from(["evidence", "evidence", "ask"])),
        told_rotation=rules.rotation or draw(st.booleans()),
        told_grace=draw(st.sampled_from([timedelta(), rules.grace])),
        has_probe=draw(st.sampled_from([True, True, False])),
        imported=draw(st.booleans()),
    )


class Episode(RuleBasedStateMachine):
    """One credential's life, as hypothesis makes it up."""

    tally: ClassVar[Tally] = Tally()
    until: ClassVar[float] = float("inf")
    shortest: ClassVar[list[str]]
    """The steps of the shortest episode that broke something, and what it broke."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.whole = True
        self.told: list[str] = []

    @initialize(setup=setups())
    def begin(self, setup: Setup) -> None:
        if time.perf_counter() > self.until:
            raise LongEnoughError
        self.told.append(f"{setup}")
        self.tally.episodes += 1
        self.world = World(setup, self.tally)

    @contextmanager
    def step(self, name: str, *drawn: object) -> Iterator[World]:
        assert self.world is not None
        self.tally.steps += 1
        self.tally.count("step", name)
        self.told.append(" ".join([f"{name}:", *map(str, drawn)]))
        with self._watched():
            yield self.world

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if self.whole and (not self.shortest or len(self.told) < len(self.shortest)):
                self.shortest[:] = [*self.told, f"{type(error).__name__}: {error}"]
            self.whole = False
            raise

    def crowded(self) -> bool:
        return self.world is not None and len(self.world.living) >= AT_MOST

    def alone(self) -> bool:
        return self.world is None or not self.world.living

    # -- processes --------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.crowded())
    @rule(points=POINTS)
    def a_worker_refreshes(self, points: int) -> None:
        with self.step("a worker refreshes", points) as world:
            world.start("refresh").go_on(points)

    @precondition(lambda self: not self.crowded())
    @rule(later=LATER, fates=FATES, points=POINTS)
    def a_worker_refreshes_when_it_is_due(self, later: timedelta, fates: list[Fate], points: int) -> None:
        with self.step("a worker refreshes when it is due", later, fates, points) as world:
            world.until_due(later)
            world.wire.fates.extend(fates)
            world.start("refresh").go_on(points)

    @rule(where=DEADLY, later=LATER, fates=FATES)
    def a_worker_refreshes_and_is_killed(self, where: str, later: timedelta, fates: list[Fate]) -> None:
        with self.step("a worker refreshes and is killed", where, later, fates) as world:
            world.until_due(later)
            world.wire.fates.extend(fates)
            worker = world.start("refresh")
            worker.go_to(where)
            world.kill(worker)

    @rule(fates=FATES, order=st.lists(st.tuples(st.booleans(), st.integers(1, 8)), min_size=2, max_size=8))
    def two_workers_race(self, fates: list[Fate], order: list[tuple[bool, int]]) -> None:
        with self.step("two workers race", fates, order) as world:
            world.until_due(timedelta())
            world.wire.fates.extend(fates)
            racers = world.start("refresh"), world.start("refresh")
            for second, points in order:
                racers[second].go_on(points)

    @precondition(lambda self: not self.crowded() and self.world and self.world.setup.has_probe)
    @rule(points=POINTS)
    def a_worker_probes(self, points: int) -> None:
        with self.step("a worker probes", points) as world:
            world.start("probe").go_on(points)

    @precondition(lambda self: not self.crowded() and self.world and self.world.questions())
    @rule(number=WHICH, points=st.one_of(st.just(TO_ITS_END), st.just(TO_ITS_END), st.integers(1, 120)))
    def a_question_is_looked_into(self, number: int, points: int) -> None:
        with self.step("a question is looked into", number, points) as world:
            world.start("investigate", number).go_on(points)

    @precondition(lambda self: not self.crowded())
    @rule(later=LATER, fates=FATES, points=st.one_of(st.just(TO_ITS_END), st.integers(1, 120)))
    def a_refresh_is_looked_into(self, later: timedelta, fates: list[Fate], points: int) -> None:
        with self.step("a refresh, and its question is looked into", later, fates, points) as world:
            world.until_due(later)
            world.wire.fates.extend(fates)
            world.start("refresh").go_on()
            if world.questions():
                world.start("investigate").go_on(points)

    @precondition(lambda self: self.world and self.world.refreshed() and not self.crowded())
    @rule(number=st.integers(0, 40))
    def somebody_tries_to_expire(self, number: int) -> None:
        with self.step("somebody tries to expire", number) as world:
            gate = world.start("expire", number)
            gate.go_on()
            self.tally.count("an attempt to expire", type(gate.error).__name__ if gate.error else "went through")

    @precondition(lambda self: not self.alone())
    @rule(which=WHICH, points=POINTS)
    def a_worker_goes_on(self, which: int, points: int) -> None:
        with self.step("a worker goes on", which, points) as world:
            world.living[which % len(world.living)].go_on(points)

    @precondition(lambda self: not self.alone())
    @rule(which=WHICH)
    def a_worker_is_killed(self, which: int) -> None:
        with self.step("a worker is killed", which) as world:
            world.kill(world.living[which % len(world.living)])

    # -- time -------------------------------------------------------------------------------------------------------

    @rule(later=LATER)
    def time_passes(self, later: timedelta) -> None:
        with self.step("time passes", later) as world:
            world.clock.pass_by(later)

    @rule(by=st.sampled_from([timedelta(seconds=2), timedelta(seconds=50), timedelta(minutes=3)]))
    def our_clock_steps_back(self, by: timedelta) -> None:
        with self.step("our clock steps back", by) as world:
            world.clock.step_back(by)

    # -- the network and the provider -------------------------------------------------------------------------------

    @rule(fate=st.sampled_from(list(ProbeFate)))
    def probes_are_answered_otherwise(self, fate: ProbeFate) -> None:
        with self.step("probes are answered otherwise", fate) as world:
            world.wire.probe_fate = fate

    @precondition(lambda self: self.world and self.world.provider.honest)
    @rule(description=DESCRIPTIONS)
    def the_provider_lies(self, description: str) -> None:
        with self.step("the provider lies", description) as world:
            world.provider.lie = description

    @precondition(lambda self: self.world and self.world.provider.honest and not self.crowded())
    @rule(description=DESCRIPTIONS, points=st.one_of(st.just(TO_ITS_END), st.integers(1, 120)))
    def the_provider_lies_to_an_investigation(self, description: str, points: int) -> None:
        with self.step("the provider lies to an investigation", description, points) as world:
            world.until_due(PAUSE)
            world.provider.lie = description
            world.start("refresh").go_on()
            if world.questions():
                world.start("investigate").go_on(points)
            world.provider.be_honest()

    @precondition(lambda self: self.world and self.world.provider.honest)
    @rule(code=CODES)
    def the_provider_refuses_our_form(self, code: str) -> None:
        with self.step("the provider refuses our form", code) as world:
            world.provider.malformed = code

    @precondition(lambda self: self.world and self.world.provider.honest)
    @rule()
    def the_client_is_disabled(self) -> None:
        with self.step("the client is disabled") as world:
            world.provider.client_disabled = True

    @precondition(lambda self: self.world and not self.world.provider.honest)
    @rule()
    def the_provider_is_itself_again(self) -> None:
        with self.step("the provider is itself again") as world:
            world.provider.be_honest()

    @rule(out=st.lists(st.sampled_from(["", "before", "after"]), min_size=1, max_size=12))
    def the_store_is_out_of_reach(self, out: list[str]) -> None:
        with self.step("the store is out of reach", out) as world:
            world.outage.extend(out)

    # -- people -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world and not self.world.family.ended)
    @rule()
    def the_user_revokes(self) -> None:
        with self.step("the user revokes") as world:
            world.provider.revoke(world.family)

    @precondition(lambda self: self.world and self.world.needs_a_person())
    @rule()
    def a_person_reconnects(self) -> None:
        with self.step("a person reconnects") as world:
            world.reconnect()

    # -- always -----------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_broken(self) -> None:
        if self.world is not None and self.whole:
            with self._watched():
                self.world.check()

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            if self.whole:
                with self._watched():
                    self.world.finish()
        finally:
            self.world.close()


class LongEnoughError(BaseException):
    """Whatever is the shortest episode by now will do."""


# -- many of them -----------------------------------------------------------------------------------------------------

STEPS = 16
CHUNK = 250
"""Episodes that hypothesis makes up in one go: more of them make it slower, since it remembers each."""


@dataclass(frozen=True)
class Summary:
    """What occurred in a run, and what should not have."""

    tally: Tally
    seconds: float
    violations: tuple[str, ...] = ()


def run(episodes: int, seed: int, *, shrink: bool = True) -> Summary:
    """Run this many episodes. A violation is reported with a short episode that shows it."""
    began, tally, violations = time.perf_counter(), Tally(), []
    numbers = itertools.count(seed * 1_000_000)
    while tally.episodes < episodes and len(violations) < ENOUGH:
        number = next(numbers)
        if violation := found(min(CHUNK, episodes - tally.episodes), number, tally):
            # Once more, to make it short; that does not count.
            shorter = found(CHUNK, number, Tally(), shrink=True) if shrink else ""
            violations.append(shorter or violation)
    return Summary(tally, time.perf_counter() - began, tuple(violations))


SHRINK_SECONDS = 60

ENOUGH = 5
"""Violations after which a run ends."""


def found(episodes: int, number: int, tally: Tally, *, shrink: bool = False) -> str:
    """What breaks in one go of hypothesis, if anything does."""
    until = time.perf_counter() + SHRINK_SECONDS if shrink else float("inf")
    shortest: list[str] = []
    machine = seed(number)(type("Episode", (Episode,), {"tally": tally, "until": until, "shortest": shortest}))
    how = settings(
        max_examples=episodes,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=how)
    except LongEnoughError:
        pass
    except Exception:
        if not shortest:
            # Not of an episode: a mistake in this file.
            raise
    return "\n".join(shortest)


def as_markdown(summary: Summary) -> str:
    """The run as tables."""
    tally = summary.tally
    names = [name for name in Tally.__dataclass_fields__ if name != "details"]
    lines = ["| | |", "|---|---:|", *(f"| {name.replace('_', ' ')} | {getattr(tally, name)} |" for name in names)]
    lines += [f"| violations | {len(summary.violations)} |", f"| seconds | {summary.seconds:.0f} |"]
    for what, counted in sorted(tally.details.items()):
        lines += ["", f"| {what} | times |", "|---|---:|"]
        lines += [f"| {which} | {times} |" for which, times in counted.most_common()]
    return "\n".join([*lines, *(f"\n```\n{violation}\n```" for violation in summary.violations)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    summary = run(given.episodes, given.seed)
    print(as_markdown(summary))
    return bool(summary.violations)


if __name__ == "__main__":
    sys.exit(main())
