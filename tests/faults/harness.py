"""What the fault harness shares: a store that every process finds, jobs in processes of their own, tables.

Importing Airflow takes seconds, so it is imported once and each process is forked. A process must not share a
database connection, so whoever forks holds none, and every job opens its own store with ``get_store()``.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request

import pytest
import time_machine
from sqlalchemy.engine import URL

# First, as it sets the environment that Airflow reads when it is imported.
import tests.conftest  # noqa: F401
from airflow_oauth_guard.hooks import config
from tests.authorization_server.client import OPENER, AuthorizationServer, tail

FORK = multiprocessing.get_context("fork")
PATIENCE = timedelta(seconds=120)
"""For one process; the longest wait there is by design is a request's deadline and a lease."""

AIRFLOW_TYPE = {"sqlite": "sqlite", "postgresql": "postgres", "mysql": "mysql"}


@contextmanager
def environment(url: URL, **options: str) -> Iterator[pytest.MonkeyPatch]:
    """Every process forked inside finds the store at this address, and these ``[oauth_guard]`` options."""
    connection = {
        "conn_type": AIRFLOW_TYPE[url.get_backend_name()],
        "host": url.database if url.get_backend_name() == "sqlite" else url.host,
        "port": url.port,
        "login": url.username,
        "password": url.password,
        "schema": None if url.get_backend_name() == "sqlite" else url.database,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_OAUTH_GUARD_FAULTS", json.dumps(connection))
        patch.setenv("AIRFLOW__OAUTH_GUARD__STORE_CONN_ID", "oauth_guard_faults")
        for name, value in options.items():
            patch.setenv(f"AIRFLOW__OAUTH_GUARD__{name.upper()}", value)
        # Another database under the same name: where the one before was must not be remembered for the rest of a minute.
        config._address.cache_clear()
        yield patch


# -- processes --------------------------------------------------------------------------------------------------------


class JobError(Exception):
    """A forked job raised; the message is its traceback."""


@dataclass(frozen=True)
class Ended:
    """How a forked job ended."""

    value: Any
    """What it returned; None if it was killed."""
    killed: bool


class Forked:
    """A job in a process of its own, from now on.

    Args:
        job: Called there with the other end of :attr:`pipe` and the arguments; what it returns is sent back at its end.
    """

    def __init__(self, job: Callable[..., Any], *args: Any) -> None:
        self.pipe, theirs = FORK.Pipe()
        # Airflow has something to say about each process; it is read only where one fails.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        given = (theirs, self._output.fileno(), job, args)
        self._process: BaseProcess = FORK.Process(target=_child, args=given, daemon=True)
        self._process.start()
        theirs.close()

    def answer(self, patience: timedelta = PATIENCE) -> Any:
        """The next thing it sends.

        Raises:
            JobError: If the job raised, or sent nothing in time.
            EOFError: If it was killed.
        """
        if not wait([self.pipe], patience.total_seconds()):
            raise JobError(f"a forked job said nothing for {patience}; its output ends:\n{tail(self._output)}")
        said = self.pipe.recv()
        if isinstance(said, JobError):
            raise JobError(f"{said}\nIts output ends:\n{tail(self._output)}")
        return said

    def ended(self) -> Ended:
        """Wait for its end.

        Raises:
            JobError: If the job raised, or did not end in time.
        """
        try:
            value, killed = self.answer(), False
        except EOFError:
            value, killed = None, True
        finally:
            self.end()
        return Ended(value, killed)

    def wake(self) -> None:
        """Let it go on, after it has stopped itself."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        """Make sure that it is gone."""
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.pipe.close()
        self._output.close()


def in_a_process(job: Callable[..., Any], *args: Any) -> Any:
    """What a job returns that runs in a process of its own.

    Raises:
        JobError: If it raised or was killed.
    """
    ended = Forked(_without_pipe, job, args).ended()
    if ended.killed:
        raise JobError(f"the process of {job.__name__} was killed")
    return ended.value


def _without_pipe(_pipe: Connection, job: Callable[..., Any], args: Sequence[Any]) -> Any:
    return job(*args)


def _child(pipe: Connection, output: int, job: Callable[..., Any], args: Sequence[Any]) -> None:
    for stream in (1, 2):
        os.dup2(output, stream)
    # What the parent does at its end is none of our business.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    config._open.cache_clear()
    config._address.cache_clear()
    try:
        said = job(pipe, *args)
    except BaseException:
        said = JobError(traceback.format_exc())
    pipe.send(said)
    # Not by the interpreter's usual way out: what is registered there, and every destructor, is the parent's.
    os._exit(0)


class Worker:
    """One process that does one job after the other and keeps what it has opened, as a worker of Airflow does.

    Args:
        jobs: By name; they and what they know are there from the fork on.
    """

    def __init__(self, jobs: Mapping[str, Callable[..., Any]]) -> None:
        self._forked = Forked(_work, jobs)

    def do(self, passed: timedelta, name: str, *args: Any) -> Any:
        """What one job returns, when so much time has passed.

        Raises:
            JobError: If it raised; the worker is gone then.
        """
        self._forked.pipe.send((passed, name, args))
        return self._forked.answer()

    def end(self) -> None:
        try:
            self._forked.pipe.send(None)
        except BrokenPipeError:
            pass  # It is gone already.
        self._forked.end()


def _work(pipe: Connection, jobs: Mapping[str, Callable[..., Any]]) -> None:
    while (asked_for := pipe.recv()) is not None:
        passed, name, args = asked_for
        pipe.send(at(passed, jobs[name], args))


# -- what the provider knows ------------------------------------------------------------------------------------------


def is_live(server: AuthorizationServer, client: tuple[str, str], token: str) -> bool:
    """What the provider says about a token (RFC 7662), past the package."""
    headers = {"Authorization": f"Basic {base64.b64encode(':'.join(client).encode()).decode()}"}
    form = urlencode({"token": token}).encode()
    with OPENER.open(Request(server.introspection_url, form, headers), timeout=10) as answer:
        return bool(json.load(answer)["active"])


def asked(server: AuthorizationServer, client_id: str) -> int:
    """How many requests of this client the token endpoint has seen."""
    return sum(seen.path == "/oauth/token" for seen in server.requests(client_id))


# -- time -------------------------------------------------------------------------------------------------------------


class Time:
    """Our clock in every process to come, and the provider's with it. It does not go back."""

    def __init__(self, server: AuthorizationServer) -> None:
        self._server = server
        self.passed = timedelta()

    def by(self, duration: timedelta) -> None:
        """Let time pass."""
        self.passed += duration
        self._server.advance(duration, signers_too=True)

    def then(self, job: Callable[..., Any], *args: Any) -> Any:
        """What a job returns that runs in a process of its own, at this time."""
        return in_a_process(at, self.passed, job, args)

    def then_dies(self, job: Callable[..., Any], *args: Any) -> None:
        """Run a job at this time that must not survive.

        Raises:
            JobError: If it came to its end.
        """
        ended = Forked(_without_pipe, at, (self.passed, job, args)).ended()
        if not ended.killed:
            raise JobError(f"{job.__name__} was not killed, it returned {ended.value!r}")


def at(passed: timedelta, job: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What a job returns here, when so much time has passed."""
    with time_machine.travel(datetime.now(timezone.utc) + passed, tick=True):
        return job(*args)


# -- what a harness prints --------------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least this part of all values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; from here on SIGTERM ends us in an orderly way, so that no server is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return parser.parse_args()
