"""The store stops in the middle of a refresh: what the provider answered must not be lost with it.

    python -m tests.faults.outages --database postgresql --rounds 2

Real tasks (``dag.test()``, :class:`RefreshOperator`) against database servers of our own that are ended at once and
started again. The provider rotates its refresh tokens and detects reuse, so a lost answer would cost the grant.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.authorization_server.client import AuthorizationServer
from tests.faults.databases import SERVERS, OwnServer, database_on, own_server
from tests.faults.harness import Time, Worker, arguments, asked, environment, in_a_process, is_live, table

# Airflow is imported by these, so they come after the harness, which sets its environment.
from airflow.sdk import DAG  # isort: skip
from airflow_oauth_guard.domain.status import Status  # isort: skip
from airflow_oauth_guard.hooks import second_place  # isort: skip
from airflow_oauth_guard.hooks.base import OAuthGuardHook  # isort: skip
from airflow_oauth_guard.hooks.config import get_store  # isort: skip
from airflow_oauth_guard.hooks.refreshing import Refreshed  # isort: skip
from airflow_oauth_guard.operators.refresh import RefreshOperator  # isort: skip
from airflow_oauth_guard.store.credentials import Credentials  # isort: skip
from airflow_oauth_guard.store.store import Store  # isort: skip
from tests.airflow_parts import PLANTED, Connector, Guarded, rows  # isort: skip

DAG_ID = "refresh_through_an_outage"
BATCH = 8
"""Credentials in one task, which refreshes them at the same time."""

LIFE = timedelta(minutes=20)
DUE_AFTER = LIFE / 2 + timedelta(seconds=1)
DEADLINE = timedelta(seconds=5)
LEASE_OVER = 2 * DEADLINE + timedelta(seconds=61)

LONGEST_WAIT = timedelta(seconds=10)

# -- the moments ------------------------------------------------------------------------------------------------------

Stop = Callable[[], None]


def while_the_provider_answers(patch: pytest.MonkeyPatch, stop: Stop, guarded: list[Guarded]) -> None:
    """The provider has processed the request and has sent its answer; nobody has read it yet."""
    real, server, conn_id = OAuthGuardHook.send, guarded[0].server, guarded[0].conn_id
    before = asked(server, conn_id)

    async def send(hook: OAuthGuardHook, request: Any) -> Any:
        exchange = asyncio.create_task(real(hook, request))
        await asyncio.to_thread(_wait_until, lambda: asked(server, conn_id) > before)
        stop()
        return await exchange

    patch.setattr(OAuthGuardHook, "send", send)


def before_the_answer_is_kept(patch: pytest.MonkeyPatch, stop: Stop, guarded: list[Guarded]) -> None:
    real = Credentials.keep_answer

    def keep(*args: Any, **named: Any) -> None:
        stop()
        real(*args, **named)

    patch.setattr(Credentials, "keep_answer", keep)


def between_keeping_and_storing(patch: pytest.MonkeyPatch, stop: Stop, guarded: list[Guarded]) -> None:
    real = Credentials.keep_answer

    def keep(*args: Any, **named: Any) -> None:
        real(*args, **named)
        stop()

    patch.setattr(Credentials, "keep_answer", keep)


def anywhere_in_a_batch(patch: pytest.MonkeyPatch, stop: Stop, guarded: list[Guarded]) -> None:
    """At a random moment after the first of many refreshes was sent, so each is somewhere else."""
    real, first = OAuthGuardHook.send, threading.Lock()

    async def send(hook: OAuthGuardHook, request: Any) -> Any:
        if first.acquire(blocking=False):
            threading.Timer(random.uniform(0, 0.25), stop).start()
        return await real(hook, request)

    patch.setattr(OAuthGuardHook, "send", send)


@dataclass(frozen=True)
class Moment:
    """When the store stops, and what must have become of the answer."""

    arm: Callable[[pytest.MonkeyPatch, Stop, list[Guarded]], None]
    credentials: int
    in_second_place: bool | None
    """Whether the answer has to be in a Variable; None where it depends."""


MOMENTS = {
    "while the provider answers": Moment(while_the_provider_answers, 1, in_second_place=True),
    "before the answer is kept": Moment(before_the_answer_is_kept, 1, in_second_place=True),
    "between keeping and storing": Moment(between_keeping_and_storing, 1, in_second_place=False),
    "anywhere in a batch": Moment(anywhere_in_a_batch, BATCH, in_second_place=None),
}

IN_SECOND_PLACE = tuple(name for name, moment in MOMENTS.items() if moment.in_second_place)
"""Only where there is one answer, in the second place, does killing the next run do nothing else."""

# -- what was seen ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """One credential, and what the provider knows about it."""

    generation: int
    token_requests: int
    holds_live_token: bool
    """Whether the refresh token in our store is one that the provider accepts, with rotation: its newest."""
    status: Status
    questioned: bool
    """Whether a question about it is open: somebody is told."""


@dataclass(frozen=True)
class Outage:
    """The store stopped once in the middle of a refresh, and came back."""

    task_state: str
    """Of the task whose store stopped."""
    variables: int
    """How many answers were in the second place then."""
    plain: int
    """How many of them could be read without the store's key."""
    next_state: str
    """Of the task in the next run."""
    before: tuple[Facts, ...]
    after: tuple[Facts, ...]
    """After the next run."""
    again: tuple[Facts, ...]
    """After the same answers were found in the second place once more."""
    left: int
    """Variables that are still there after the next run."""


@dataclass(frozen=True)
class Outages:
    """All rounds of one moment."""

    database: str
    moment: str
    killed_taking_in: bool
    """Whether the next run was killed after it had taken the answer in, before it deleted the Variable."""
    rounds: tuple[Outage, ...] = field(repr=False)

    @property
    def problems(self) -> list[str]:
        return [
            f"round {n}: {problem}" for n, seen in enumerate(self.rounds, 1) for problem in _problems(self.moment, seen)
        ]

    @property
    def credentials(self) -> list[tuple[Facts, Facts, Facts]]:
        return [facts for seen in self.rounds for facts in zip(seen.before, seen.after, seen.again, strict=True)]


def _problems(moment: str, seen: Outage) -> Iterator[str]:
    wanted = MOMENTS[moment].in_second_place
    if wanted is not None and (seen.variables > 0) != wanted:
        yield f"{seen.variables} answers were in the second place"
    if wanted is not None and seen.task_state != "failed":
        yield f"the task whose store stopped ended as {seen.task_state}"
    if seen.plain:
        yield f"{seen.plain} Variables hold an answer that anybody can read"
    if seen.next_state != "success":
        yield f"the next run ended as {seen.next_state}"
    for before, after, again in zip(seen.before, seen.after, seen.again, strict=True):
        if not after.holds_live_token:
            yield f"the provider's newest token is lost: {before}, {after}"
        if not (_renewed(before, after) or _in_doubt(moment, before, after)):
            yield f"neither renewed by one request nor in question: {before}, {after}"
        if after.status is not Status.ACTIVE:
            yield f"the credential is {after.status.value}"
        if again != after:
            yield f"taking it in twice changed something: {after}, {again}"


def _renewed(before: Facts, after: Facts) -> bool:
    return (after.generation, after.token_requests) == (before.generation + 1, before.token_requests + 1)


def _in_doubt(moment: str, before: Facts, after: Facts) -> bool:
    """Whether the store stopped while it wrote the intent: nothing was sent, but who comes later cannot know."""
    kept = (after.generation, after.token_requests) == (before.generation, before.token_requests)
    return MOMENTS[moment].in_second_place is None and kept and after.questioned


# -- the run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """One round to come."""

    moment: str
    killed: bool
    number: int

    @property
    def conn_ids(self) -> list[str]:
        name = f"{self.moment} {'killed' if self.killed else 'alive'} {self.number}".replace(" ", "_")
        return [f"{name}_{n}" for n in range(MOMENTS[self.moment].credentials)]


def run(
    database_name: str,
    rounds: int = 5,
    *,
    moments: tuple[str, ...] = tuple(MOMENTS),
    killed_at: tuple[str, ...] = IN_SECOND_PLACE,
) -> list[Outages]:
    """Stop the store so often at each moment.

    Args:
        killed_at: At which of them to do it once more, with a next run that is killed when it has taken the answer in.
    """
    kinds = [(moment, way) for moment in moments for way in (False, True) if not way or moment in killed_at]
    plans = [Plan(moment, way, n) for moment, way in kinds for n in range(rounds)]
    seen = _carry_out(database_name, plans)
    return [
        Outages(
            database_name,
            moment,
            way,
            tuple(seen[plan] for plan in plans if (plan.moment, plan.killed) == (moment, way)),
        )
        for moment, way in kinds
    ]


def _carry_out(database_name: str, plans: list[Plan]) -> dict[Plan, Outage]:
    _prepare_what_a_run_needs()
    in_a_process(_create_airflows_database)
    with (
        own_server(database_name) as database_server,
        database_on(database_server.url) as url,
        environment(url, request_deadline_seconds=str(DEADLINE.seconds)) as patch,
        AuthorizationServer() as server,
    ):
        known = {conn_id: _connect(server, patch, conn_id) for plan in plans for conn_id in plan.conn_ids}
        scene = Scene(Time(server), database_server, known)
        try:
            return {plan: _round(scene, plan) for plan in plans}
        finally:
            scene.worker.end()


def _prepare_what_a_run_needs() -> None:
    """Once, here: it takes seconds, and several processes need it."""
    import airflow.models.dagrun
    import airflow.sdk.execution_time.task_runner  # noqa: F401
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    # The API server that `dag.test()` talks to; its threads and connections come with the first request.
    _ = in_process_api_server().app


def _create_airflows_database() -> None:
    from airflow.utils.db import initdb

    initdb()


def _connect(server: AuthorizationServer, patch: pytest.MonkeyPatch, conn_id: str) -> Guarded:
    client = {"rotation": True, "reuse_detection": True, "access_lifetime": LIFE}
    return Connector(server, patch, conn_id)(client=client)


class Scene:
    """Everybody there is: one worker that lives through every outage, one database server that does not."""

    def __init__(self, clock: Time, database_server: OwnServer, known: dict[str, Guarded]) -> None:
        self.clock = clock
        self.database_server = database_server
        self.known = known
        self.worker = Worker(
            {
                "renew": self._renew,
                "refresh_without_store": self._refresh_without_store,
                "refresh": self._refresh,
                "look": self._look,
            }
        )

    def do(self, name: str, plan: Plan) -> Any:
        """Have the worker do a job for the credentials of this round."""
        return self.worker.do(self.clock.passed, name, plan)

    def _of(self, plan: Plan) -> list[Guarded]:
        return [self.known[conn_id] for conn_id in plan.conn_ids]

    def _renew(self, plan: Plan) -> None:
        """First tokens whose life is known."""
        for one in self._of(plan):
            result = one.refresh(get_store())
            assert result.outcome is Refreshed.RENEWED, result

    def _refresh_without_store(self, plan: Plan) -> str:
        with pytest.MonkeyPatch.context() as patch:
            MOMENTS[plan.moment].arm(patch, self.database_server.kill, self._of(plan))
            state = _run_task(plan.conn_ids)
            # A whole batch may be done before its moment comes.
            _wait_until(lambda: not self.database_server.listens())
        return state

    def _refresh(self, plan: Plan) -> str:
        return _run_task(plan.conn_ids)

    def _look(self, plan: Plan) -> tuple[Facts, ...]:
        store = get_store()
        return tuple(_facts_about(store, one) for one in self._of(plan))


def _round(scene: Scene, plan: Plan) -> Outage:
    scene.do("renew", plan)
    scene.clock.by(DUE_AFTER)
    before = scene.do("look", plan)
    task_state = scene.do("refresh_without_store", plan)
    kept = _variables()
    scene.database_server.start()
    scene.clock.by(LEASE_OVER)
    if plan.killed and kept:
        scene.clock.then_dies(_take_in_and_die, plan.conn_ids)
        scene.clock.by(LEASE_OVER)
    next_state = scene.do("refresh", plan)
    after, left = scene.do("look", plan), _variables()
    _put_back(kept)
    scene.do("refresh", plan)
    again = scene.do("look", plan)
    _remove(kept)
    return Outage(task_state, len(kept), _plain(kept), next_state, before, after, again, len(left))


# -- in the worker ----------------------------------------------------------------------------------------------------


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_WAIT.total_seconds()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"what had to happen did not within {LONGEST_WAIT}: the moment never came")
        time.sleep(0.005)


def _take_in_and_die(conn_ids: list[str]) -> str:
    """A process of its own, which ends before it has deleted the Variable."""

    async def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    second_place.clear = die
    return _run_task(conn_ids)


def _run_task(conn_ids: list[str]) -> str:
    """One run of a DAG with one RefreshOperator, as the guard's own has; the state of its task."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ModuleNotFoundError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag, sync_bag_to_db

    with DAG(DAG_ID, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
        RefreshOperator(task_id="refresh", conn_ids=conn_ids)
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    (instance,) = dag.test().get_task_instances()
    return str(instance.state)


def _facts_about(store: Store, guarded: Guarded) -> Facts:
    credential = store.credentials.get(guarded.conn_id)
    client = (guarded.conn_id, guarded.description["password"])
    return Facts(
        generation=credential.generation,
        token_requests=asked(guarded.server, guarded.conn_id),
        holds_live_token=is_live(guarded.server, client, store.credentials.tokens(credential).refresh_token),
        status=credential.status,
        questioned=credential.id in {row["open_for"] for row in rows(store, "oauth_guard_investigations")},
    )


# -- the second place, as it lies in Airflow's database ---------------------------------------------------------------

Row = tuple[str, str, int]


def _airflows_database() -> sqlite3.Connection:
    return sqlite3.connect(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db", timeout=30)


def _variables() -> list[Row]:
    query = "SELECT key, val, is_encrypted FROM variable WHERE key LIKE 'oauth_guard_answer_%'"
    with closing(_airflows_database()) as file:
        return file.execute(query).fetchall()


def _put_back(rows: list[Row]) -> None:
    """As if nobody had deleted them."""
    with closing(_airflows_database()) as file, file:
        file.executemany("INSERT OR REPLACE INTO variable (key, val, is_encrypted) VALUES (?, ?, ?)", rows)


def _remove(rows: list[Row]) -> None:
    with closing(_airflows_database()) as file, file:
        file.executemany("DELETE FROM variable WHERE key = ?", [(key,) for key, *_ in rows])


def _plain(rows: list[Row]) -> int:
    """Airflow encrypts its Variables and shows them to whoever may see them; what they see must be encrypted too."""
    airflow = Fernet(os.environ["AIRFLOW__CORE__FERNET_KEY"])
    shown = [airflow.decrypt(value.encode()).decode() if encrypted else value for _, value, encrypted in rows]
    return sum(PLANTED in value or "access_token" in value for value in shown)


# -- the report -------------------------------------------------------------------------------------------------------

COLUMNS = (
    *("database", "the store stopped", "next run killed", "rounds", "credentials", "answers in a Variable"),
    *("renewed by one request", "in doubt, nothing sent", "lost", "Variables left", "problems"),
)


def as_markdown(results: list[Outages]) -> str:
    """One line per moment, and every problem by name."""
    problems = [f"- {result.database}, {result.moment}: {problem}" for result in results for problem in result.problems]
    return "\n".join(
        [table(COLUMNS, [_line(result) for result in results]), "", *(problems or ["No problem was found."])]
    )


def _line(result: Outages) -> list[Any]:
    facts = result.credentials
    return [
        *(result.database, result.moment, "yes" if result.killed_taking_in else "no", len(result.rounds), len(facts)),
        sum(seen.variables for seen in result.rounds),
        sum(_renewed(before, after) for before, after, _ in facts),
        sum(_in_doubt(result.moment, before, after) for before, after, _ in facts),
        sum(not after.holds_live_token for _, after, _ in facts),
        sum(seen.left for seen in result.rounds),
        len(result.problems),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.outages", description=__doc__)
    parser.add_argument("--database", choices=SERVERS, default="postgresql")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    parser.add_argument("--moment", choices=MOMENTS, action="append", help="default: every one")
    given = arguments(parser)
    results = run(given.database, given.rounds, moments=tuple(given.moment or MOMENTS))
    print(as_markdown(results))
    raise SystemExit(any(result.problems for result in results))


if __name__ == "__main__":
    main()
