"""Fifty processes want the same credential at once: the provider must be asked once, and all must have its answer.

    python -m tests.faults.races --database sqlite --rounds 5

The provider rotates its refresh tokens and detects reuse, so a second request for one generation would cost the grant.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from sqlalchemy.engine import URL

from tests.authorization_server.client import AuthorizationServer
from tests.faults.databases import NAMES, database
from tests.faults.harness import Forked, arguments, environment, percentile, table

# Airflow is imported by these, so they come after the harness, which sets its environment.
from airflow_oauth_guard.hooks.refreshing import Refreshed  # isort: skip
from airflow_oauth_guard.hooks.config import get_store  # isort: skip
from airflow_oauth_guard.hooks.registry import get_hook  # isort: skip
from airflow_oauth_guard.store.store import Store  # isort: skip
from tests.airflow_parts import WHO, Connector, Guarded, make_due  # isort: skip

WAYS = ("refresh", "get_token")
"""``hook.refresh()`` as the guard's tasks call it, ``hook.get_token()`` as a pipeline does."""

HEAD_START = timedelta(seconds=0.3)
"""From "get ready" to "go": all processes have to be awake."""

ADVICE_LOGGER = "airflow_oauth_guard.store.database"


@dataclass(frozen=True)
class Runner:
    """What one process saw in one round."""

    outcome: str
    token: str
    """The digest of the access token in its hand."""
    error: str
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """One generation that all wanted at once."""

    token_requests: int
    generations: int
    """By how many the store moved on."""
    outcomes: dict[str, int]
    errors: tuple[str, ...]
    problems: tuple[str, ...]
    """What contradicts "once asked, and all have the answer"."""
    warnings: tuple[str, ...]
    seconds: float
    """Until the last process was served."""


@dataclass(frozen=True)
class Race:
    """All rounds on one database."""

    database: str
    way: str
    processes: int
    rounds: tuple[Round, ...] = field(repr=False)
    integrity: str
    """What SQLite's own check says afterwards; empty on a server."""

    @property
    def problems(self) -> list[str]:
        found = [f"round {n}: {problem}" for n, seen in enumerate(self.rounds, 1) for problem in seen.problems]
        return found if self.integrity in ("", "ok") else [*found, f"integrity_check: {self.integrity}"]

    @property
    def advice(self) -> list[str]:
        """The lines that say it is time for a database server."""
        return [warning for seen in self.rounds for warning in seen.warnings]


def run(database_name: str, *, processes: int = 50, rounds: int = 200, way: str = "refresh", hold: float = 0) -> Race:
    """Race for one credential.

    Args:
        hold: For so many seconds of each round the store is locked by a writer of ours.
    """
    with (
        database(database_name) as url,
        environment(url) as patch,
        AuthorizationServer() as server,
    ):
        connector = Connector(server, patch, "raced")
        guarded = connector(client={"rotation": True, "reuse_detection": True})
        with _runners(processes, guarded.conn_id, way) as runners:
            # After the fork: this process's own connections are nobody else's.
            store = get_store()
            try:
                guarded.refresh(store)
                seen = tuple(_round(store, guarded, runners, hold) for _ in range(rounds))
            finally:
                store.database.engine.dispose()
        return Race(database_name, way, processes, seen, _integrity(url))


# -- one round --------------------------------------------------------------------------------------------------------


def _round(store: Store, guarded: Guarded, runners: list[Forked], hold: float) -> Round:
    before = guarded.credential(store).generation
    make_due(store, guarded.conn_id)
    guarded.server.clear_requests()
    start = time.monotonic() + HEAD_START.total_seconds()
    for runner in runners:
        runner.pipe.send(start)
    if hold:
        _hold(store, start, hold)
    seen: list[Runner] = [runner.answer() for runner in runners]
    return _judge(store, guarded, seen, before)


def _hold(store: Store, start: float, seconds: float) -> None:
    """Be the writer that everybody has to wait for."""
    time.sleep(max(0.0, start - time.monotonic() - 0.05))
    with store.database.write():
        time.sleep(seconds)


def _judge(store: Store, guarded: Guarded, seen: list[Runner], before: int) -> Round:
    credential = guarded.credential(store)
    newest = _digest(store.credentials.tokens(credential).access_token)
    asked, truth = guarded.token_requests(), guarded.server.truth(guarded.conn_id)
    errors = [runner.error for runner in seen if runner.error]
    without = sum(runner.token != newest for runner in seen)
    found = {
        f"{len(asked)} token requests": len(asked) != 1,
        f"a token request was refused: {[answer.error for answer in asked]}": any(a.status != 200 for a in asked),
        f"{credential.generation - before} new generations": credential.generation != before + 1,
        f"{without} processes without the newest token": without > 0,
        f"{len(errors)} errors, the first: {errors[:1]}": bool(errors),
        "the provider says that the grant is dead": not truth.grant_live,
        "the provider says that the newest access token is dead": not truth.access_token_live,
    }
    outcomes = [runner.outcome for runner in seen]
    return Round(
        token_requests=len(asked),
        generations=credential.generation - before,
        outcomes={outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        errors=tuple(errors),
        problems=tuple(problem for problem, is_one in found.items() if is_one),
        warnings=tuple(warning for runner in seen for warning in runner.warnings),
        seconds=max(runner.seconds for runner in seen),
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _integrity(url: URL) -> str:
    if url.get_backend_name() != "sqlite":
        return ""
    with closing(sqlite3.connect(str(url.database))) as file:
        return "; ".join(str(row[0]) for row in file.execute("PRAGMA integrity_check"))


# -- the processes ----------------------------------------------------------------------------------------------------


@contextmanager
def _runners(processes: int, conn_id: str, way: str) -> Iterator[list[Forked]]:
    """As many processes, each waiting to be told when to start; they end when the last round is over."""
    runners = [Forked(_runner, conn_id, way) for _ in range(processes)]
    try:
        for runner in runners:
            runner.answer()
        yield runners
    finally:
        for runner in runners:
            runner.pipe.send(None)
        for runner in runners:
            runner.end()


def _runner(pipe: Connection, conn_id: str, way: str) -> str:
    """The life of one process: a store of its own, then round after round."""
    warnings = _Warnings()
    logging.getLogger(ADVICE_LOGGER).addHandler(warnings)
    store = get_store()
    pipe.send("ready")
    while (start := pipe.recv()) is not None:
        time.sleep(max(0.0, start - time.monotonic()))
        outcome, token, error = _take_part(store, conn_id, way)
        pipe.send(Runner(outcome, token, error, time.monotonic() - start, warnings.taken()))
    return "done"


def _take_part(store: Store, conn_id: str, way: str) -> tuple[str, str, str]:
    """The outcome, the digest of the token in hand, and the error: any of them may be missing."""
    hook: Any = get_hook(conn_id)
    try:
        if way == "get_token":
            return "token", _digest(hook.get_token()), ""
        result = hook.run(hook.refresh(store, WHO))
        if result.outcome not in (Refreshed.RENEWED, Refreshed.FRESH):
            return result.outcome.value, "", result.explanation
        tokens = store.credentials.tokens(store.credentials.get(conn_id))
        return result.outcome.value, _digest(tokens.access_token), ""
    except Exception as error:
        return "error", "", f"{type(error).__name__}: {error}"


class _Warnings(logging.Handler):
    """Keeps what was said since it was last asked."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())

    def taken(self) -> tuple[str, ...]:
        said, self._said = self._said, []
        return tuple(said)


# -- the report -------------------------------------------------------------------------------------------------------

COLUMNS = (
    *("database", "way", "processes", "rounds", "token requests", "new generations", "outcomes", "errors", "problems"),
    *("p50", "p95", "worst", "warnings", "integrity"),
)


def as_markdown(races: list[Race]) -> str:
    """One line per race, and every problem by name."""
    problems = [f"- {race.database}, {race.way}: {problem}" for race in races for problem in race.problems]
    return "\n".join([table(COLUMNS, [_line(race) for race in races]), "", *(problems or ["No problem was found."])])


def _line(race: Race) -> list[Any]:
    took = [seen.seconds for seen in race.rounds]
    outcomes: dict[str, int] = {}
    for seen in race.rounds:
        for outcome, count in seen.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    return [
        *(race.database, race.way, race.processes, len(race.rounds)),
        *(sum(seen.token_requests for seen in race.rounds), sum(seen.generations for seen in race.rounds)),
        *(", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())),),
        *(sum(len(seen.errors) for seen in race.rounds), len(race.problems)),
        *(f"{percentile(took, 0.5):.2f} s", f"{percentile(took, 0.95):.2f} s", f"{max(took, default=0):.2f} s"),
        *(len(race.advice), race.integrity or "-"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.races", description=__doc__)
    parser.add_argument("--database", choices=NAMES, default="sqlite")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--way", choices=(*WAYS, "both"), default="both")
    parser.add_argument("--hold", type=float, default=0, help="seconds for which the store is locked in each round")
    given = arguments(parser)
    ways = WAYS if given.way == "both" else (given.way,)
    races = [
        run(given.database, processes=given.processes, rounds=given.rounds, way=way, hold=given.hold) for way in ways
    ]
    print(as_markdown(races))
    raise SystemExit(any(race.problems for race in races))


if __name__ == "__main__":
    main()
