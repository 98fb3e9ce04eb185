"""Open the store's database and bring it to this release's tables."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, column, create_engine, event, func, inspect, select, table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from airflow_oauth_guard.errors import StoreBusyError, StoreConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger(__name__)

Result = TypeVar("Result")

TRIES = 5
"""A transaction that others get in the way of five times in a row meets more than chance."""

VERSION_TABLE = "oauth_guard_alembic_version"

NEWEST = "0005"
"""The newest revision of ``migrations/``. A store that has it is opened without Alembic, which takes some tenths of a second
to import: each task opens one."""

SQLITE_BUSY_MILLISECONDS = 30_000
"""How long a writer waits for another on SQLite; a write of ours takes milliseconds."""

SQLITE_SLOW_SECONDS = 1.0
"""A writer that waits longer has company enough to be told about PostgreSQL."""

CONNECT_TIMEOUT_SECONDS = 10
SILENCE_SECONDS = 30
LOCK_SECONDS = 30
"""For a database server: to connect, to answer, and to wait for a row that somebody sits on. Without these limits a host
that swallows packets would hold a worker, and the answer in its hands, for many minutes."""

_LIMITS: Mapping[str, Mapping[str, Any]] = {
    "postgresql": {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "tcp_user_timeout": SILENCE_SECONDS * 1000,
        "keepalives_idle": SILENCE_SECONDS,
        "keepalives_interval": 10,
        "keepalives_count": 2,
    },
    "mysql": {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "read_timeout": SILENCE_SECONDS + LOCK_SECONDS,
        "write_timeout": SILENCE_SECONDS,
        "init_command": f"SET innodb_lock_wait_timeout = {LOCK_SECONDS}",
    },
}
"""By dialect; whatever the address says itself wins."""

MIGRATION_WAIT_SECONDS = 120

_MIGRATION_LOCK = int.from_bytes(hashlib.sha256(b"airflow_oauth_guard migrations").digest()[:6], "big")


class Database:
    """An engine whose transactions behave alike on SQLite, PostgreSQL and MariaDB/MySQL."""

    def __init__(self, url: str | URL) -> None:
        self.engine = _engine(url, _LIMITS)
        # The same pool of connections.
        self._reader = self.engine.execution_options(oauth_guard_read=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed at the end, rolled back on an error.

        Raises:
            StoreUnavailableError: If the database cannot be reached, or stays locked by others. Whether a commit that
                was under way took place is unknown then.
        """
        with _translated(self.engine), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that writes nothing and, on SQLite, blocks no writer.

        Raises:
            StoreUnavailableError: If the database cannot be reached.
        """
        with _translated(self.engine), self._reader.connect() as connection:
            yield connection

    def migrate(self) -> None:
        """Create or upgrade the tables; safe when many processes start at once.

        Raises:
            StoreConfigurationError: If the database does not let us, or belongs to a newer release.
            StoreUnavailableError: If it cannot be reached.
        """
        try:
            with self.read() as connection:
                if _revision(connection) == NEWEST:
                    return
            from alembic.command import upgrade

            config = _alembic_config()
            # Changing a large table takes as long as it takes.
            patient = self.engine if self.engine.dialect.name == "sqlite" else _engine(self.engine.url, {})
            try:
                with _translated(patient), _one_at_a_time(patient), patient.begin() as connection:
                    _refuse_newer(connection, config)
                    config.attributes["connection"] = connection
                    upgrade(config, "head")
            finally:
                if patient is not self.engine:
                    patient.dispose()
        except OperationalError as error:
            raise StoreConfigurationError(
                f"The store at {self.engine.url.render_as_string(hide_password=True)} cannot be used: {error.orig}"
            ) from error


def repeated(transaction: Callable[[], Result], on: tuple[type[Exception], ...] = (StoreBusyError,)) -> Result:
    """Run a whole transaction, and again if the database ended it in favour of another."""
    return Retrying(
        retry=retry_if_exception_type(on),
        stop=stop_after_attempt(TRIES),
        wait=wait_random(max=0.05),
        reraise=True,
    )(transaction)


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    """Tell "cannot be reached now" from every other database error, which stays what it is."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        if not _is_unavailable(engine, error):
            raise
        where = engine.url.render_as_string(hide_password=True)
        why = error.orig if isinstance(error, DBAPIError) else error
        unavailable = StoreUnavailableError if _ENDED.isdisjoint(_codes(error)) else StoreBusyError
        raise unavailable(f"The store at {where} cannot be used now: {why}.{_advice(engine)}") from error


def _is_unavailable(engine: Engine, error: DBAPIError | PoolTimeoutError) -> bool:
    if isinstance(error, PoolTimeoutError) or error.connection_invalidated:
        return True
    if engine.dialect.name == "sqlite":
        return isinstance(error, OperationalError) and any(words in str(error.orig) for words in _SQLITE_UNAVAILABLE)
    if not _BUSY.isdisjoint(_codes(error)):
        return True
    # Without a statement: while connecting or committing.
    return isinstance(error, OperationalError) and error.statement is None


def _codes(error: BaseException | None) -> set[object]:
    """PostgreSQL's SQLSTATEs and MySQL's numbers, of an error and of what it came from.

    MySQL ends a transaction in a deadlock, and going back to a savepoint in it fails with an error of its own.
    """
    codes: set[object] = set()
    while error is not None:
        origin = getattr(error, "orig", None)
        codes |= {getattr(origin, "sqlstate", None), getattr(origin, "pgcode", None)}
        codes |= {*getattr(origin, "args", ())[:1]}
        error = error.__context__
    return codes


_BUSY = frozenset({"55P03", "40P01", "40001", 1205, 1213})
"""A lock that somebody sat on, a deadlock, a transaction to be repeated."""

_ENDED = frozenset({"40P01", "40001", 1213})
"""Those after which nothing of the transaction is left, so that it can be repeated as it was."""

_SQLITE_UNAVAILABLE = ("locked", "busy", "unable to open", "disk is full", "disk I/O error", "readonly database")


def _advice(engine: Engine) -> str:
    return f" {_TIME_FOR_A_SERVER}" if engine.dialect.name == "sqlite" else ""


_TIME_FOR_A_SERVER = (
    "If other processes of ours keep it busy, it is time for PostgreSQL: name a connection to one in "
    "`[oauth_guard] store_conn_id`."
)


def _engine(url: str | URL, limits: Mapping[str, Mapping[str, Any]]) -> Engine:
    try:
        parsed = make_url(url)
        # A database error quotes its statement; not the values in it.
        options: dict[str, Any] = {"pool_pre_ping": True, "hide_parameters": True}
        if parsed.get_backend_name() in ("mysql", "mariadb"):
            options["isolation_level"] = "READ COMMITTED"
        ours = limits.get("mysql" if parsed.get_backend_name() == "mariadb" else parsed.get_backend_name(), {})
        options["connect_args"] = {name: value for name, value in ours.items() if name not in parsed.query}
        engine = create_engine(parsed, **options)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise StoreConfigurationError(
            f"The store's address is not usable ({type(error).__name__}: {error}). Use a Postgres or MySQL "
            "connection in `[oauth_guard] store_conn_id`, with its driver installed, or leave it empty for SQLite."
        ) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    if engine.dialect.name == "postgresql" and limits and "lock_timeout" not in str(parsed.query.get("options")):
        _limit_locks(engine)
    return engine


def _limit_locks(engine: Engine) -> None:
    """PgBouncer refuses the start-up parameter that would do the same."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        connection.commit()


def _prepare_sqlite(engine: Engine) -> None:
    """Foreign keys on, readers beside one writer, and a lock taken when a transaction begins.

    SQLite's Python driver begins a transaction only at the first write, so a read followed by a write could fail
    with "database is locked" no matter how long we wait: it would break what was read.
    """

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in ("foreign_keys = ON", "recursive_triggers = ON", f"busy_timeout = {SQLITE_BUSY_MILLISECONDS}"):
            connection.execute(f"PRAGMA {pragma}")
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # While another process creates the file its mode cannot change, and SQLite does not wait for that. The mode
            # is kept in the file: the next connection sets it, and until then readers wait where they could pass.
            if "locked" not in str(error):
                raise

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("oauth_guard_read"):
            connection.exec_driver_sql("BEGIN")
            return
        asked = time.monotonic()
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        waited = time.monotonic() - asked
        if waited > SQLITE_SLOW_SECONDS:
            log.warning("Waited %.1f s to write to the SQLite store. %s", waited, _TIME_FOR_A_SERVER)


def _alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _revision(connection: Connection) -> str | None:
    # Asked directly: Alembic's own way logs two lines each time, and this runs in every task.
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar_one_or_none()


def _refuse_newer(connection: Connection, config: Config) -> None:
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError

    revision = _revision(connection)
    try:
        if revision is not None:
            ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError as error:
        raise StoreConfigurationError(
            f"The store is at revision {revision}, which this release does not know: a newer release has used it. "
            "Upgrade airflow-oauth-guard on this component."
        ) from error


@contextmanager
def _one_at_a_time(engine: Engine) -> Iterator[None]:
    """Hold a lock until the migration has committed; on SQLite the writing transaction is one."""
    if engine.dialect.name == "sqlite":
        yield
        return
    with engine.connect() as holder:
        if engine.dialect.name == "postgresql":
            take, give = (
                select(func.pg_advisory_lock(_MIGRATION_LOCK)),
                select(func.pg_advisory_unlock(_MIGRATION_LOCK)),
            )
        else:
            # Named for the whole server, so the database's name is part of it.
            name = f"oauth_guard {_MIGRATION_LOCK} {engine.url.database}"[:64]
            take, give = select(func.get_lock(name, MIGRATION_WAIT_SECONDS)), select(func.release_lock(name))
        if holder.execute(take).scalar() == 0:
            raise StoreConfigurationError(
                f"Another process has been migrating the store for {MIGRATION_WAIT_SECONDS} s; look at it."
            )
        try:
            yield
        finally:
            holder.execute(give)
