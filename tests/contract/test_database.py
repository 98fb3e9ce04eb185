"""The database: made once by a migration, equal to the tables, and refused when it is not ours to use."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from airflow_oauth_guard.domain.evidence import Kind
from airflow_oauth_guard.errors import NaiveDatetimeError, StoreConfigurationError, StoreUnavailableError
from airflow_oauth_guard.store import database
from airflow_oauth_guard.store.database import VERSION_TABLE
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import metadata

from .conftest import Place, RawSql
from .making import (
    KEY,
    NOW,
    THREADS,
    TTL,
    WORKER,
    at_once,
    enrolled,
    enrollment,
    keep,
    leased,
    planted,
    refusal,
    token_answer,
)

if TYPE_CHECKING:
    from tests.airflow_parts import Connector


@pytest.fixture
def url(empty_url: URL) -> URL:
    return empty_url


def test_the_migration_makes_the_tables_that_the_code_uses(store: Store) -> None:
    with store.database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []


def test_the_migration_makes_the_checks_and_keys_that_the_code_declares(place: Place, tmp_path: Path) -> None:
    """Alembic compares no CHECK, and the checks are what keeps a lie out."""
    migrated = Store(place.empty(tmp_path), KEY).database.engine
    by_migration = _described(migrated)
    migrated.dispose()
    declared = create_engine(place.empty(tmp_path))
    metadata.create_all(declared)
    by_code = _described(declared)
    declared.dispose()
    assert by_migration == by_code
    assert any(table["checks"] for table in by_migration.values())


def _described(engine: Engine) -> dict[str, dict[str, Any]]:
    found = inspect(engine)

    def strings(items: list[Any]) -> list[str]:
        return sorted(" ".join(str({k: v for k, v in dict(item).items() if k != "comment"}).split()) for item in items)

    return {
        table: {
            "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)],
            "primary": found.get_pk_constraint(table)["constrained_columns"],
            "unique": strings(found.get_unique_constraints(table)),
            "foreign": strings(found.get_foreign_keys(table)),
            "checks": strings(found.get_check_constraints(table)),
            "indexes": strings(found.get_indexes(table)),
        }
        for table in found.get_table_names()
        if table != VERSION_TABLE
    }


def test_opening_a_database_again_keeps_what_is_in_it(store: Store, open_store: Callable[..., Store]) -> None:
    enrolled(store)
    assert [credential.conn_id for credential in open_store().credentials.roster()] == ["crm"]


def test_eight_processes_that_start_at_once_migrate_once(url: URL) -> None:
    stores = at_once([lambda: Store(url, KEY)] * THREADS)
    try:
        enrolled(stores[0])
        assert all(len(store.credentials.roster()) == 1 for store in stores)
        assert len(RawSql(stores[0]).rows(VERSION_TABLE)) == 1
    finally:
        for store in stores:
            store.database.engine.dispose()


@pytest.fixture
def slow_commits() -> Iterator[None]:
    def wait(_connection: object) -> None:
        time.sleep(0.3)

    event.listen(Engine, "commit", wait)
    yield
    event.remove(Engine, "commit", wait)


@pytest.mark.usefixtures("slow_commits")
def test_a_process_that_migrates_next_waits_until_the_first_has_committed(url: URL) -> None:
    stores = at_once([lambda: Store(url, KEY)] * 3)
    for store in stores:
        store.database.engine.dispose()


def test_a_database_that_a_newer_release_has_used_is_refused(
    store: Store, raw: RawSql, open_store: Callable[..., Store]
) -> None:
    enrolled(store)
    raw.run(f"UPDATE {VERSION_TABLE} SET version_num = '9876'")
    before = raw.everything()
    with pytest.raises(StoreConfigurationError, match=r"9876.*newer release.*Upgrade airflow-oauth-guard"):
        open_store()
    assert raw.everything() == before


def test_an_address_that_nobody_answers_is_refused_without_showing_its_password(url: URL, tmp_path: Path) -> None:
    if url.get_backend_name() == "sqlite":
        unusable = url.set(database=str(tmp_path / "no such folder" / "store.db"))
    else:
        unusable = url.set(username="nobody_we_know", host="127.0.0.1", port=1, password="hush-hush", query={})
    with pytest.raises(StoreUnavailableError, match="cannot be used") as refusal_:
        Store(unusable, KEY)
    assert "hush-hush" not in str(refusal_.value)


def test_an_address_that_is_none_is_refused_without_showing_its_password() -> None:
    for address in ("postgres//me:hush-hush@host/db", "nosuchdatabase://me:hush-hush@host/db"):
        with pytest.raises(StoreConfigurationError, match=r"address is not usable.*store_conn_id") as refusal_:
            Store(address, KEY)
        assert "hush-hush" not in str(refusal_.value)


@pytest.mark.parametrize(
    "instant",
    [
        NOW,
        datetime(2026, 3, 29, 1, 59, 59, 999999, tzinfo=timezone.utc),
        pendulum.datetime(2026, 10, 25, 2, 30, 0, 1, tz="Europe/Berlin"),
        pendulum.datetime(2038, 1, 19, 3, 14, 8, 5, tz="Asia/Kathmandu"),
        NOW.replace(microsecond=0),
    ],
    ids=str,
)
def test_an_instant_comes_back_aware_and_to_the_microsecond(store: Store, instant: datetime) -> None:
    # In UTC, because Python calls an instant of the repeated hour of autumn unequal to every other zone's.
    same = instant.astimezone(timezone.utc)
    credential = store.credentials.enroll(enrollment(expires_at=instant), instant)
    assert credential.status_since == same
    assert credential.life.expires_at == same
    assert planted(store, credential, refusal(now=instant)).id is not None
    [seen] = RawSql(store).rows("oauth_guard_evidence")
    kept = store.credentials.latest_evidence(credential)
    assert kept is not None
    assert kept.observed_at == same, seen["observed_at"]
    assert credential.status_since.utcoffset() == timedelta()


def test_an_instant_without_a_time_zone_is_refused(store: Store, raw: RawSql) -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(NaiveDatetimeError, match="no time zone"):
        enrolled(store, "clock_less", expires_at=naive)
    with pytest.raises(NaiveDatetimeError, match="no time zone"):
        store.credentials.enroll(enrollment("clock_less"), naive)
    credential = enrolled(store)
    with pytest.raises(NaiveDatetimeError, match="no time zone"):
        planted(store, credential, refusal(now=naive))
    assert [row["conn_id"] for row in raw.rows("oauth_guard_credentials")] == ["crm"]
    assert store.credentials.latest_evidence(credential, *Kind) is None


# -- databases that let us wait ---------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits to wait for a row that somebody sits on, shortened."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 1)
    monkeypatch.setattr(database, "SQLITE_BUSY_MILLISECONDS", 300)
    monkeypatch.setitem(database._LIMITS["mysql"], "init_command", "SET innodb_lock_wait_timeout = 1")


@pytest.mark.usefixtures("impatient")
def test_a_row_that_somebody_sits_on_is_waited_for_within_limits(store: Store, url: URL) -> None:
    enrolled(store)
    with create_engine(url, poolclass=NullPool).connect() as somebody:
        somebody.execute(text("UPDATE oauth_guard_credentials SET failures = 7"))
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="cannot be used now"):
            store.credentials.lease("crm", "worker-1", TTL, NOW)
        assert time.monotonic() - began < 5
        somebody.rollback()
    assert store.credentials.lease("crm", "worker-1", TTL, NOW) is not None


class Cable:
    """What lies between us and the database's server: it can swallow everything without breaking, and be pulled out."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._silent, self._ends = threading.Event(), list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> URL:
        """The server's database, through this."""
        port = self._listener.getsockname()[1]
        query = {name: value for name, value in self._server.query.items() if name not in ("host", "port")}
        return self._server.set(host="127.0.0.1", port=port, query=query)

    def go_silent(self) -> None:
        self._silent.set()

    def pull_out(self) -> None:
        """Break every connection off; new ones go through."""
        ends, self._ends = self._ends, []
        self._silent.clear()
        for end in ends:
            _shut(end)

    def close(self) -> None:
        # A thread that waits in accept() is not woken by close() alone.
        _shut(self._listener)
        self.pull_out()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            theirs = _reach(self._server)
            self._ends += [ours, theirs]
            for one, other in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                if not self._silent.is_set():
                    other.sendall(data)
        except OSError:
            pass
        finally:
            _shut(other)


def _shut(end: socket.socket) -> None:
    with closing(end):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The other side was quicker.
            pass


def _reach(server: URL) -> socket.socket:
    if "host" not in server.query:
        return socket.create_connection((str(server.host), server.port or 0))
    folder, port = server.query["host"], server.query.get("port", server.port or 5432)
    reached = socket.socket(socket.AF_UNIX)
    reached.connect(f"{folder}/.s.PGSQL.{port}")
    return reached


@contextmanager
def connected(server: URL, **address: str) -> Iterator[tuple[Store, Cable]]:
    """A store whose server is at the other end of a cable."""
    cable = Cable(server)
    store = Store(cable.url.update_query_dict(address), KEY)
    try:
        yield store, cable
    finally:
        cable.pull_out()
        store.database.engine.dispose()
        cable.close()


def needs(url: URL, backend: str) -> None:
    if url.get_backend_name() != backend:
        pytest.skip(f"is about {backend}")


def test_a_server_that_goes_silent_is_given_up_within_the_limit_of_its_address(url: URL) -> None:
    """What the address says itself wins over our limit of a minute. Only this driver can give up by itself."""
    needs(url, "mysql")
    with connected(url, read_timeout="1") as (store, cable):
        enrolled(store)
        lease = leased(store)
        intent = store.credentials.open_intent(lease, "crm-refresh-1", NOW)
        cable.go_silent()
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="cannot be used now"):
            keep(store, intent, token_answer())
        assert time.monotonic() - began < 8
        cable.pull_out()
        keep(store, intent, token_answer())
        [intent_] = leased(store, owner="worker-2", now=NOW + 2 * TTL).unsettled
        assert store.credentials.open_answer(intent_.answer) == token_answer()


def test_what_the_address_of_a_mysql_server_says_itself_wins(url: URL, place: Place) -> None:
    needs(url, "mysql")
    for address, limit in (({}, database.LOCK_SECONDS), ({"init_command": "SET innodb_lock_wait_timeout = 7"}, 7)):
        opened = Store(url.update_query_dict(address), KEY).database
        with opened.read() as connection:
            assert connection.execute(text("SELECT @@innodb_lock_wait_timeout")).scalar_one() == limit
        opened.engine.dispose()


def test_what_the_address_of_a_postgresql_server_says_itself_wins(url: URL) -> None:
    needs(url, "postgresql")
    opened = Store(url.update_query_dict({"tcp_user_timeout": "1234"}), KEY).database
    with opened.read() as connection:
        told = connection.connection.dbapi_connection.get_dsn_parameters()
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == f"{database.LOCK_SECONDS}s"
    opened.engine.dispose()
    assert told["tcp_user_timeout"] == "1234"
    assert told["connect_timeout"] == str(database.CONNECT_TIMEOUT_SECONDS)


@pytest.mark.airflow
def test_an_answer_for_a_silent_postgresql_goes_to_the_second_place_and_comes_back(
    url: URL, connect: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No limit of the driver ends a write whose packets are swallowed by something that acknowledges them."""
    from airflow_oauth_guard.hooks import base, refreshing, renewing, second_place

    needs(url, "postgresql")
    guarded, variables, real = connect(client={"rotation": True}), dict[str, str](), base.send
    monkeypatch.setattr(renewing, "KEEP_WITHIN", timedelta(seconds=1))
    with connected(url) as (store, cable):
        too_late, put_after = threading.Timer(10, cable.pull_out), list[float]()

        async def goes_silent(request: Any, *, deadline: timedelta) -> Any:
            answer = await real(request, deadline=deadline)
            cable.go_silent()
            too_late.start()
            put_after.append(-time.monotonic())
            return answer

        async def put(variable: str, sealed: str) -> None:
            variables[variable] = sealed
            put_after.append(time.monotonic())
            too_late.cancel()
            cable.pull_out()

        async def look(variable: str) -> str | None:
            return variables.get(variable)

        async def clear(variable: str) -> None:
            del variables[variable]

        for function in (put, look, clear):
            monkeypatch.setattr(second_place, function.__name__, function)
        with monkeypatch.context() as silence:
            silence.setattr(base, "send", goes_silent)
            with pytest.raises(StoreUnavailableError):
                guarded.refresh(store, WORKER)
        assert (len(variables), sum(put_after) < 8) == (1, True)
        assert guarded.refresh(store, WORKER).outcome is refreshing.Refreshed.RENEWED
        assert (len(guarded.token_requests()), variables) == (1, {})
