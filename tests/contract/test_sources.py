"""Sources and heartbeats: every one is kept, once, and zero rows are not no rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.flat_line import Measure, Source, SqlCount
from airflow_oauth_guard.errors import ConfigurationError, NaiveDatetimeError, NotRegisteredError
from airflow_oauth_guard.store.store import Store

from .conftest import RawSql
from .making import NOW, THREADS, WORKER, after, at_once

ORDERS = Source("orders", timedelta(days=1), "crm", SqlCount("warehouse", "SELECT 1"), "orders-owners")


def by_try(number: int) -> Observer:
    return replace(WORKER, try_number=number)


def test_a_source_comes_back_as_it_was_declared(store: Store) -> None:
    plain = Source("clicks", timedelta(hours=1))
    store.sources.register([ORDERS, plain], NOW)
    assert store.sources.registered() == [plain, ORDERS]


@pytest.mark.parametrize(
    "window", [timedelta(days=30, seconds=1), timedelta(seconds=0.25), timedelta(days=3650, minutes=1)]
)
def test_a_window_is_kept_to_the_second(store: Store, window: timedelta) -> None:
    store.sources.register([replace(ORDERS, window=window)], NOW)
    assert store.sources.registered()[0].window == window


def test_registering_again_updates_a_source_and_keeps_since_when_it_is_watched(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.beat("orders", 5, after(hours=1), by_try(1))
    store.sources.register([ORDERS], after(hours=2))
    changed = Source("orders", timedelta(hours=6))
    store.sources.register([changed], after(hours=3))
    assert store.sources.registered() == [changed]
    assert store.sources.heard(changed) == Measure(NOW, after(hours=1), after(hours=1))


def test_eight_passes_that_register_a_source_at_once_register_it_once(
    open_store: Callable[..., Store], raw: RawSql
) -> None:
    stores = [open_store() for _ in range(THREADS)]
    at_once([lambda store=store: store.sources.register([ORDERS], NOW) for store in stores])
    assert len(raw.rows("oauth_guard_sources")) == 1


def test_a_heartbeat_for_a_source_nobody_watches_is_kept_and_is_an_error(store: Store, raw: RawSql) -> None:
    store.sources.register([ORDERS], NOW)
    with pytest.raises(NotRegisteredError, match=r"`ordres` is not registered.*kept.*Registered: orders"):
        store.sources.beat("ordres", 7, after(minutes=1), WORKER)
    assert [(row["source"], row["row_count"]) for row in raw.rows("oauth_guard_heartbeats")] == [("ordres", 7)]
    late = replace(ORDERS, name="ordres")
    store.sources.register([late], after(hours=1))
    assert store.sources.heard(late).last_rows_at == after(minutes=1)


def test_one_try_of_a_task_is_one_heartbeat_however_often_it_is_written(store: Store, raw: RawSql) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.beat("orders", 7, after(minutes=1), by_try(1))
    store.sources.beat("orders", 7, after(minutes=2), by_try(1))
    assert store.sources.heard(ORDERS).last_beat_at == after(minutes=1)
    store.sources.beat("orders", 7, after(minutes=3), by_try(2))
    store.sources.beat("orders", 7, after(minutes=4), replace(by_try(2), map_index=4))
    assert len(raw.rows("oauth_guard_heartbeats")) == 3
    assert store.sources.heard(ORDERS).last_beat_at == after(minutes=4)


def test_one_try_that_is_written_by_eight_threads_at_once_is_one_heartbeat(
    store: Store, open_store: Callable[..., Store], raw: RawSql
) -> None:
    store.sources.register([ORDERS], NOW)
    stores = [open_store() for _ in range(THREADS)]
    at_once([lambda one=one: one.sources.beat("orders", 7, NOW, WORKER) for one in stores])
    assert len(raw.rows("oauth_guard_heartbeats")) == 1


def test_heartbeats_from_outside_airflow_are_told_apart_by_their_instant(store: Store, raw: RawSql) -> None:
    store.sources.register([ORDERS], NOW)
    for instant in (NOW, NOW, after(microseconds=1)):
        store.sources.beat("orders", 1, instant, Observer())
    assert len(raw.rows("oauth_guard_heartbeats")) == 2


def test_rows_zero_rows_and_rows_unknown_are_three_different_things(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    assert store.sources.heard(ORDERS) == Measure(NOW)
    store.sources.beat("orders", 7, after(minutes=1), by_try(1))
    store.sources.beat("orders", 0, after(minutes=2), by_try(2))
    store.sources.beat("orders", None, after(minutes=3), by_try(3))
    assert store.sources.heard(ORDERS) == Measure(NOW, after(minutes=3), after(minutes=1), after(minutes=2))


def test_a_heartbeat_that_arrives_late_does_not_hide_a_newer_one(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.beat("orders", 7, after(minutes=9), by_try(1))
    store.sources.beat("orders", 7, after(minutes=1), by_try(2))
    assert store.sources.heard(ORDERS).last_rows_at == after(minutes=9)


def test_the_heartbeat_of_one_source_says_nothing_about_another(store: Store) -> None:
    similar = replace(ORDERS, name="Orders")
    store.sources.register([ORDERS, similar], NOW)
    assert len(store.sources.registered()) == 2
    store.sources.beat("Orders", 7, after(minutes=1), WORKER)
    assert store.sources.heard(ORDERS) == Measure(NOW)


def test_fewer_than_no_rows_are_refused_by_the_package_and_by_the_database(store: Store, raw: RawSql) -> None:
    store.sources.register([ORDERS], NOW)
    with pytest.raises(ConfigurationError, match="-1 rows"):
        store.sources.beat("orders", -1, NOW, WORKER)
    assert raw.rows("oauth_guard_heartbeats") == []
    store.sources.beat("orders", 1, NOW, WORKER)
    raw.is_refused("UPDATE oauth_guard_heartbeats SET row_count = -1", because="rows_not_negative")


def test_a_heartbeat_without_a_time_zone_is_refused(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    with pytest.raises(NaiveDatetimeError):
        store.sources.beat("orders", 1, NOW.replace(tzinfo=None), WORKER)
