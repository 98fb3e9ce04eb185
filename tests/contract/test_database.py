"""The database: made once by a migration, equal to the tables, and refused when it is not ours to use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pendulum
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect
from sqlalchemy.engine import URL

from airflow_oauth_guard.domain.evidence import Kind
from airflow_oauth_guard.errors import NaiveDatetimeError, StoreConfigurationError, StoreUnavailableError
from airflow_oauth_guard.store.database import VERSION_TABLE
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import metadata

from .conftest import Place, RawSql
from .making import KEY, NOW, THREADS, at_once, enrolled, enrollment, planted, refusal


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
