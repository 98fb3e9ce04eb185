"""Sources: who is watched, what was heard, and when each has to be looked at."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event, insert

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.feeding import Schedule
from airflow_oauth_guard.domain.flat_line import Standing, State, hear, outlook
from airflow_oauth_guard.domain.habits import ENOUGH_LOADS, HISTORY, RECENT, Habit, learn
from airflow_oauth_guard.domain.sources import AssetEvents, Source, SqlCount, SqlNewest, source_as_json
from airflow_oauth_guard.domain.windows import DEFAULT_BUDGET, DEFAULT_FALLBACK, Cron, Learned
from airflow_oauth_guard.errors import ConfigurationError, NaiveDatetimeError, NotRegisteredError
from airflow_oauth_guard.store import sources as module
from airflow_oauth_guard.store.sources import FIRST_LESSON, MUTED_FOR_LONG, Heard, Watched, asked_every
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import heartbeats

from .conftest import RawSql
from .making import KEY, NOW, THREADS, WORKER, after, at_once

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ORDERS = Source("orders", DAY, "crm", alert_route="orders-owners")
COUNTED = replace(ORDERS, name="counted", measure=SqlCount("warehouse", "SELECT 1"))
LEARNED = Source("clicks", Learned())
LEDGER, WATCHED = "oauth_guard_heartbeats", "oauth_guard_sources"


def by_try(number: int) -> Observer:
    return replace(WORKER, try_number=number)


def measured(rows: int | None = 7, **duration: float) -> Beat:
    return Beat(after(**duration), rows, measured=True)


def lived(store: Store, name: str, beats: list[Beat]) -> None:
    """Put heartbeats into the ledger without anybody hearing them."""
    rows = [
        {"source": name, "at": beat.at, "row_count": beat.rows, "beat_key": f"{name} {number}"}
        for number, beat in enumerate(beats)
    ]
    with store.database.write() as connection:
        connection.execute(insert(heartbeats), rows)


def habit_of_an_hourly_source() -> Habit:
    beats = [Beat(NOW - n * HOUR, 100 + n % 7) for n in range(24 * 40, 0, -1)]
    habit = learn(beats, NOW, zone=LEARNED.zone, closed=ClosedDays(), budget=DEFAULT_BUDGET)
    assert habit is not None
    # As it comes back: rounded a little.
    return Habit.from_json(habit.to_json())


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """What the store's engine sends meanwhile."""
    sent: list[str] = []

    def note(_connection, _cursor, statement: str, *_more) -> None:
        sent.append(statement)

    event.listen(store.database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(store.database.engine, "before_cursor_execute", note)


def names(found: list[Watched]) -> list[str]:
    return [watched.source.name for watched in found]


# -- who is watched -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        ORDERS,
        replace(ORDERS, window=timedelta(days=30, seconds=1)),
        replace(ORDERS, window=timedelta(seconds=0.25)),
        Source("ünïcode 太多", Cron(("0 6 * * *", "30 18 * * 5"), timedelta(minutes=20)), timezone="Europe/Berlin"),
        Source("closed", Learned(6 * HOUR, 0.5), closed=ClosedDays(frozenset({5, 6}), yearly=frozenset({(12, 25)}))),
        Source("asked", HOUR, measure=SqlNewest("warehouse", "SELECT max(at) FROM t WHERE x = '50 %'")),
        Source("stuck", HOUR, stuck_after=4, urgent=True),
        Source("asset", Cron(("@daily",)), measure=AssetEvents("s3://bucket/key"), pings=True),
    ],
    ids=lambda source: f"{source.name}-{source.window}",
)
def test_a_source_comes_back_as_it_was_declared(store: Store, source: Source) -> None:
    store.sources.register([source], NOW)
    assert store.sources.registered() == [source]
    assert store.sources.get(source.name).adopted is False


def test_a_declaration_is_taken_as_text_too_and_says_how_many_sources_there_are(store: Store) -> None:
    assert store.sources.register([], NOW) == store.sources.register("", NOW) == 0
    text = json.dumps([source_as_json(source) for source in (ORDERS, LEARNED)])
    assert store.sources.register(text, NOW) == store.sources.register(text, NOW) == 2
    assert store.sources.registered() == [LEARNED, ORDERS]
    with pytest.raises(ConfigurationError, match="not JSON"):
        store.sources.register("[", NOW)


def test_registering_again_updates_a_source_and_keeps_what_was_heard(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.beat("orders", 5, after(hours=1), by_try(1))
    changed = Source("orders", 6 * HOUR)
    store.sources.register([changed], after(hours=3))
    watched = store.sources.get("orders")
    assert (watched.source, watched.state.registered_at, watched.state.last_rows_at) == (changed, NOW, after(hours=1))
    assert watched.due_at == after(hours=7)
    assert store.sources.fed_by("crm") == []


@pytest.mark.parametrize("declared", [[ORDERS, LEARNED], json.dumps([source_as_json(ORDERS)])], ids=["list", "text"])
def test_a_declaration_that_has_not_changed_costs_one_look_and_writes_nothing(store: Store, declared: Any) -> None:
    store.sources.register(declared, NOW)
    with statements(store) as sent:
        store.sources.register(declared, after(hours=1))
    assert len([sql for sql in sent if not sql.startswith("BEGIN")]) == 1


def test_a_declaration_of_which_one_source_has_changed_writes_that_one(store: Store) -> None:
    many = [Source(f"source {n}", DAY) for n in range(20)]
    store.sources.register(many, NOW)
    with statements(store) as sent:
        store.sources.register([*many[:-1], replace(many[-1], window=HOUR)], after(hours=1))
    assert len([sql for sql in sent if sql.startswith(("INSERT", f"UPDATE {WATCHED}"))]) == 1
    assert store.sources.get("source 19").source.window == HOUR


def test_more_sources_than_fit_into_one_transaction_are_all_registered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    many = [Source(f"source {n}", DAY) for n in range(8)]
    assert store.sources.register(many, NOW) == store.sources.count() == 8
    assert store.sources.registered() == many


def test_a_source_that_is_declared_twice_is_refused_and_nothing_is_kept(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="`orders` is declared twice"):
        store.sources.register([LEARNED, ORDERS, replace(ORDERS, window=HOUR)], NOW)
    assert store.sources.registered() == []


@pytest.mark.parametrize("name", ["", " ", "orders ", "\torders", "x" * 251])
def test_a_name_that_databases_would_not_keep_alike_is_refused(store: Store, raw: RawSql, name: str) -> None:
    for use in (
        lambda: store.sources.register([replace(ORDERS, name=name)], NOW),
        lambda: store.sources.declare(replace(ORDERS, name=name), NOW),
        lambda: store.sources.beat(name, 1, NOW, WORKER),
    ):
        with pytest.raises(ConfigurationError, match="source's name"):
            use()
    assert raw.rows(LEDGER) == raw.rows(WATCHED) == []


@pytest.mark.parametrize(
    "wrong", [replace(ORDERS, window=-HOUR), replace(COUNTED, stuck_after=3), replace(ORDERS, timezone="Europe/Bärlin")]
)
def test_a_source_that_could_not_be_read_back_is_refused_and_hides_no_other(store: Store, wrong: Source) -> None:
    store.sources.register([LEARNED], NOW)
    with pytest.raises(ConfigurationError, match=f"`{wrong.name}`"):
        store.sources.register([LEARNED, wrong], NOW)
    with pytest.raises(ConfigurationError, match=f"`{wrong.name}`"):
        store.sources.declare(wrong, NOW)
    assert store.sources.registered() == [LEARNED]


def test_a_name_may_be_as_long_as_its_column(store: Store) -> None:
    store.sources.beat("ü" * 250, 1, NOW, WORKER)
    assert store.sources.get("ü" * 250).adopted


def test_eight_passes_that_register_a_source_at_once_register_it_once(
    store: Store, open_store: Callable[..., Store], raw: RawSql
) -> None:
    stores = [open_store() for _ in range(THREADS)]
    at_once([lambda store=store: store.sources.register([ORDERS, LEARNED], NOW) for store in stores])
    assert len(raw.rows(WATCHED)) == store.sources.count() == 2


def test_a_job_that_declares_its_source_writes_once(store: Store) -> None:
    store.sources.declare(ORDERS, NOW)
    with statements(store) as sent:
        store.sources.declare(ORDERS, after(hours=1))
    assert not [sql for sql in sent if sql.startswith(("INSERT", "UPDATE"))]
    store.sources.declare(replace(ORDERS, window=HOUR), after(hours=2))
    assert store.sources.get("orders").source.window == HOUR
    assert store.sources.count() == 1


def test_a_window_that_becomes_learned_has_its_lesson_at_once_and_a_fixed_one_has_none(store: Store) -> None:
    store.sources.declare(ORDERS, NOW)
    assert store.sources.to_learn(after(days=300), 10) == []
    store.sources.declare(replace(ORDERS, window=Learned()), after(days=5))
    assert names(store.sources.to_learn(after(days=5), 10)) == ["orders"]
    store.sources.declare(ORDERS, after(days=6))
    assert store.sources.to_learn(after(days=300), 10) == []


def test_a_forgotten_source_is_watched_no_more_and_its_heartbeats_stay(store: Store, raw: RawSql) -> None:
    store.sources.register([ORDERS, LEARNED], NOW)
    store.sources.beat("orders", 1, NOW, WORKER)
    assert store.sources.forget("orders") is True
    assert store.sources.forget("orders") is False
    assert store.sources.find("orders") is None
    assert (store.sources.count(), store.sources.registered()) == (1, [LEARNED])
    assert len(raw.rows(LEDGER)) == 1


def test_a_forgotten_source_comes_back_with_the_declaration_that_still_names_it(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.forget("orders")
    assert store.sources.register([ORDERS], after(hours=1)) == 1
    assert store.sources.get("orders").state == State(registered_at=after(hours=1))


def test_a_source_that_is_forgotten_while_it_is_registered_comes_back_with_the_next_pass(
    store: Store, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    other, declare = open_store(), module.Sources._declare

    def forgotten_right_after(self: module.Sources, *args: Any) -> None:
        declare(self, *args)
        other.sources.forget("orders")

    with monkeypatch.context() as patch:
        patch.setattr(module.Sources, "_declare", forgotten_right_after)
        assert store.sources.register([ORDERS], NOW) == 0
    assert store.sources.register([ORDERS], after(hours=1)) == 1


def test_what_a_pass_has_found_out_does_not_bring_a_forgotten_source_back(store: Store, raw: RawSql) -> None:
    store.sources.register([COUNTED], NOW)
    watched = store.sources.get("counted")
    store.sources.forget("counted")
    assert store.sources.found("counted", measured(), WORKER) == Heard(adopted=False, new=False)
    store.sources.not_found("counted", "no answer", NOW)
    store.sources.settle(watched, Standing.FLAT, NOW)
    store.sources.learned("counted", None, NOW, after(days=1))
    assert raw.rows(WATCHED) == raw.rows(LEDGER) == []


def test_a_source_nobody_watches_is_an_error_that_names_those_there_are(store: Store) -> None:
    with pytest.raises(NotRegisteredError, match=r"`ordres` is not registered\. Registered: none yet"):
        store.sources.get("ordres")
    store.sources.register([ORDERS, LEARNED], NOW)
    for use in (
        lambda: store.sources.get("ordres"),
        lambda: store.sources.mute("ordres", after(hours=1), NOW, "ann"),
        lambda: store.sources.unmute("ordres", NOW),
    ):
        with pytest.raises(NotRegisteredError, match=r"`ordres` is not registered. Registered: clicks, orders\."):
            use()
    assert store.sources.find("ordres") is None


def test_names_that_differ_in_case_are_different_sources(store: Store) -> None:
    store.sources.register([ORDERS, replace(ORDERS, name="Orders")], NOW)
    assert store.sources.count() == len(store.sources.registered()) == 2
    store.sources.beat("Orders", 7, after(minutes=1), WORKER)
    assert store.sources.get("orders").state == State(registered_at=NOW)
    store.sources.beat("ORDERS", 7, after(minutes=1), WORKER)
    assert store.sources.count() == 3


def test_every_source_is_gone_through_in_pages(store: Store) -> None:
    many = [Source(f"source {n:04}", DAY) for n in range(1003)]
    store.sources.register(many, NOW)
    assert [watched.source for watched in store.sources.all()] == many


# -- adoption -------------------------------------------------------------------------------------------------------


def test_a_source_that_nobody_declared_is_adopted_by_its_first_heartbeat_and_says_so(store: Store) -> None:
    assert store.sources.beat("new", 7, NOW, by_try(1)) == Heard(adopted=True, new=True)
    assert store.sources.beat("new", 8, after(hours=1), by_try(2)) == Heard(adopted=False, new=True)
    watched = store.sources.get("new")
    assert watched.adopted
    assert watched.source == Source("new", Learned())
    assert (watched.state.registered_at, watched.state.last_beat_at) == (NOW, after(hours=1))
    assert watched.due_at == after(hours=1) + Learned().fallback
    assert names(store.sources.to_learn(NOW + FIRST_LESSON, 10)) == ["new"]
    assert store.sources.count() == 1


def test_a_source_that_speaks_without_row_counts_is_adopted_as_one_that_only_pings(store: Store) -> None:
    store.sources.beat("ping", None, NOW, by_try(1))
    watched = store.sources.get("ping")
    assert watched.source.pings
    assert watched.state.last_rows_at == NOW


def test_an_adopted_source_that_is_declared_later_keeps_what_was_heard(store: Store) -> None:
    store.sources.beat("orders", 7, NOW, by_try(1))
    store.sources.register([ORDERS], after(hours=1))
    watched = store.sources.get("orders")
    assert (watched.adopted, watched.source, watched.state.last_rows_at) == (False, ORDERS, NOW)
    assert store.sources.count() == 1
    assert names(store.sources.fed_by("crm")) == ["orders"]


def test_a_declaration_that_reads_like_an_adoption_is_still_a_declaration(store: Store) -> None:
    store.sources.beat("clicks", 7, NOW, by_try(1))
    assert store.sources.get("clicks").source == LEARNED
    store.sources.register([LEARNED], after(hours=1))
    assert store.sources.get("clicks").adopted is False


def test_a_source_that_eight_threads_speak_for_at_once_is_adopted_once_and_all_are_heard(
    store: Store, open_store: Callable[..., Store], raw: RawSql
) -> None:
    stores = [open_store() for _ in range(THREADS)]
    heard = at_once([lambda n=n, one=one: one.sources.beat("new", n, NOW, by_try(n)) for n, one in enumerate(stores)])
    assert [one.new for one in heard] == [True] * THREADS
    assert sum(one.adopted for one in heard) == 1
    assert len(raw.rows(LEDGER)) == THREADS
    assert store.sources.count() == len(raw.rows(WATCHED)) == 1


def test_one_try_that_eight_threads_write_at_once_adopts_once_and_is_one_heartbeat(
    store: Store, open_store: Callable[..., Store], raw: RawSql
) -> None:
    stores = [open_store() for _ in range(THREADS)]
    heard = at_once([lambda one=one: one.sources.beat("new", 7, NOW, WORKER) for one in stores])
    assert heard.count(Heard(adopted=True, new=True)) == 1
    assert heard.count(Heard(adopted=False, new=False)) == THREADS - 1
    assert len(raw.rows(LEDGER)) == store.sources.count() == 1


def test_the_number_of_sources_stays_right_whoever_comes_and_goes_at_once(
    store: Store, open_store: Callable[..., Store]
) -> None:
    several = [Source(f"source {n}", DAY) for n in range(4)]
    stores = [open_store() for _ in range(THREADS)]

    def come_and_go(number: int, sources: module.Sources) -> None:
        chance = random.Random(number)
        for turn in range(12):
            one, what = chance.choice(several), chance.choice(["register", "declare", "forget", "own", "same"])
            if what == "register":
                sources.register(chance.sample(several, 4), NOW)
            elif what == "declare":
                sources.declare(replace(one, window=turn * HOUR + HOUR), NOW)
            elif what == "forget":
                sources.forget(one.name)
            else:
                sources.beat(one.name, 1, after(seconds=turn), by_try(1000 * number + turn if what == "own" else turn))

    at_once([lambda n=n, one=one: come_and_go(n, one.sources) for n, one in enumerate(stores)])
    assert store.sources.count() == len(list(store.sources.all()))


# -- heartbeats -----------------------------------------------------------------------------------------------------


def test_one_try_of_a_task_is_one_heartbeat_however_often_it_is_written(store: Store, raw: RawSql) -> None:
    store.sources.register([ORDERS], NOW)
    assert store.sources.beat("orders", 7, after(minutes=1), by_try(1)).new
    was = store.sources.get("orders")
    assert not store.sources.beat("orders", 7, after(minutes=2), by_try(1)).new
    assert store.sources.get("orders") == was
    store.sources.beat("orders", 7, after(minutes=3), by_try(2))
    store.sources.beat("orders", 7, after(minutes=4), replace(by_try(2), map_index=4))
    assert len(raw.rows(LEDGER)) == 3
    assert store.sources.get("orders").state.last_beat_at == after(minutes=4)


def test_heartbeats_from_outside_airflow_are_told_apart_by_their_instant(store: Store, raw: RawSql) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))
    new = [store.sources.beat("orders", 1, at, Observer()).new for at in (NOW, NOW, elsewhere, after(microseconds=1))]
    assert new == [True, False, False, True]
    assert len(raw.rows(LEDGER)) == 2


def test_what_the_detector_finds_is_kept_beside_a_heartbeat_of_the_same_instant(store: Store, raw: RawSql) -> None:
    store.sources.register([COUNTED], NOW)
    assert store.sources.beat("counted", 1, NOW, Observer()).new
    assert store.sources.found("counted", measured(5), Observer()).new
    assert not store.sources.found("counted", measured(5), Observer()).new
    assert store.sources.found("counted", measured(5), Observer(), key="asset event 5").new
    assert len(raw.rows(LEDGER)) == 3


def test_rows_zero_rows_and_rows_unknown_are_three_different_things(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    for minute, rows in enumerate((7, 0, None), start=1):
        store.sources.beat("orders", rows, after(minutes=minute), by_try(minute))
    state = store.sources.get("orders").state
    assert (state.last_rows_at, state.last_beat_at) == (after(minutes=1), after(minutes=3))
    assert (state.zeros, state.unknowns) == (1, 1)


def test_a_heartbeat_that_arrives_late_does_not_hide_a_newer_one(store: Store, raw: RawSql) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.beat("orders", 7, after(minutes=9), by_try(1))
    was = store.sources.get("orders")
    store.sources.beat("orders", 0, after(minutes=1), by_try(2))
    assert (store.sources.get("orders").state, store.sources.get("orders").due_at) == (was.state, was.due_at)
    assert len(raw.rows(LEDGER)) == 2


def test_fewer_than_no_rows_are_refused_by_the_package_and_by_the_database(store: Store, raw: RawSql) -> None:
    store.sources.register([ORDERS], NOW)
    with pytest.raises(ConfigurationError, match="-1 rows"):
        store.sources.beat("orders", -1, NOW, WORKER)
    with pytest.raises(ConfigurationError, match="-1 rows"):
        store.sources.found("orders", measured(-1), WORKER)
    assert raw.rows(LEDGER) == []
    store.sources.beat("orders", 1, NOW, WORKER)
    raw.is_refused("UPDATE oauth_guard_heartbeats SET row_count = -1", because="rows_not_negative")


def test_an_instant_without_a_time_zone_is_refused_and_nothing_is_kept(store: Store, raw: RawSql) -> None:
    naive = NOW.replace(tzinfo=None)
    for use in (
        lambda: store.sources.beat("orders", 1, naive, WORKER),
        lambda: store.sources.beat("orders", 1, naive, Observer()),
        lambda: store.sources.beat("orders", 1, NOW, WORKER, watermark=naive),
    ):
        with pytest.raises(NaiveDatetimeError):
            use()
    assert raw.rows(LEDGER) == raw.rows(WATCHED) == []


def test_three_billion_rows_are_three_billion_rows(store: Store, raw: RawSql) -> None:
    for number in (1, 2):
        store.sources.beat("orders", 3_000_000_000, after(hours=number), by_try(number))
    assert [row["row_count"] for row in raw.rows(LEDGER)] == [3_000_000_000] * 2
    state = store.sources.get("orders").state
    assert (state.last_rows, state.repeats) == (3_000_000_000, 1)
    assert [beat.rows for beat in store.sources.history("orders", after(hours=3))] == [3_000_000_000] * 2


def test_the_ledger_does_not_end_with_the_numbers_of_thirty_two_bits(store: Store, raw: RawSql) -> None:
    raw.run(
        f"INSERT INTO {LEDGER} (id, source, at, beat_key, measured) "
        "VALUES (2147483647, 'orders', '2020-01-01 00:00:00', 'last of the small', 0)"
    )
    if raw.dialect == "postgresql":
        raw.run(f"SELECT setval('{LEDGER}_id_seq', 2147483647)")
    store.sources.beat("orders", 1, NOW, WORKER)
    assert max(row["id"] for row in raw.rows(LEDGER)) == 2147483648


def test_every_instant_keeps_its_microseconds(store: Store) -> None:
    odd = datetime(2026, 3, 29, 1, 59, 59, 999_999, tzinfo=timezone.utc)
    store.sources.beat("orders", 1, odd, by_try(1), watermark=odd - timedelta(microseconds=3))
    store.sources.beat("orders", 2, odd + timedelta(microseconds=7), by_try(2))
    state = store.sources.get("orders").state
    assert state.registered_at == odd
    assert state.watermark == odd - timedelta(microseconds=3)
    assert state.last_rows_at == state.last_beat_at == odd + timedelta(microseconds=7)
    assert state.longest_gap == timedelta(microseconds=7)
    assert [beat.at for beat in store.sources.history("orders", after(days=90))] == [
        state.registered_at,
        state.last_beat_at,
    ]


def test_who_spoke_last_is_the_job_and_not_the_detector(store: Store) -> None:
    store.sources.beat("orders", 1, NOW, by_try(1))
    store.sources.found("orders", measured(minutes=5), Observer("oauth_guard_flat_line", "run", "look"))
    assert store.sources.get("orders").fed_by == Observer(WORKER.dag_id, WORKER.run_id, WORKER.task_id)


KINDS = [
    ORDERS,
    COUNTED,
    replace(COUNTED, window=Learned(), measure=SqlNewest("warehouse", "SELECT 1")),
    Source("stuck", 6 * HOUR, stuck_after=3),
    Source("cron", Cron(("0 * * * *",)), timezone="Europe/Berlin"),
    Source("learned", Learned(), closed=ClosedDays(frozenset({6}))),
    Source("pings", Learned(), pings=True),
    Source("asset", HOUR, measure=AssetEvents("orders")),
]


@pytest.mark.parametrize("source", KINDS, ids=lambda source: f"{source.name}-{type(source.window).__name__}")
@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_known_of_a_source_is_what_its_heartbeats_say_one_after_the_other(
    store: Store, source: Source, seed: int
) -> None:
    chance, state, now = random.Random(seed), State(registered_at=NOW), NOW
    habit = habit_of_an_hourly_source() if isinstance(source.window, Learned) and seed == 2 else None
    store.sources.register([source], NOW)
    store.sources.learned(source.name, habit, NOW, after(days=1))
    for number in range(30):
        now += timedelta(seconds=chance.uniform(-600, 7200))
        rows = chance.choice([None, 0, 0, 5, 5, 5, 3_000_000_000 + number])
        beat = Beat(now, rows, chance.choice([None, NOW, now]), measured=chance.random() < 0.4)
        if beat.measured:
            store.sources.found(source.name, beat, WORKER, key=str(number))
        else:
            store.sources.beat(source.name, rows, now, by_try(number), beat.watermark)
        state = hear(source, habit, state, beat)
        watched = store.sources.get(source.name)
        assert watched.state == state
        assert watched.expected_at == outlook(source, habit, state).expected_at
    assert watched.habit == habit


def test_everything_that_was_heard_comes_back_as_it_was(store: Store) -> None:
    """Each part has a value of its own, so that one that is added to State later is not forgotten here."""
    store.sources.register([ORDERS], NOW)
    values: dict[str, Any] = {}
    for number, part in enumerate(fields(State), start=1):
        value: Any = number
        if "datetime" in str(part.type):
            value = after(microseconds=number)
        elif "timedelta" in str(part.type):
            value = timedelta(microseconds=number)
        elif part.type == "str":
            value = f"why {number} ü '\"\\ %"
        elif part.type == "float":
            value = number / 7
        elif "Schedule" in str(part.type):
            value = Schedule(("0 6 * * *", "30 18 * * 5"), "Europe/Berlin")
        values[part.name] = value
    state = State(**{**values, "registered_at": NOW})
    with store.database.write() as connection:
        module._write(connection, replace(store.sources.get("orders"), state=state))
    assert store.sources.get("orders").state == state


def test_a_heartbeat_takes_three_statements_however_much_is_known(store: Store) -> None:
    store.sources.register([LEARNED], NOW)
    store.sources.learned("clicks", habit_of_an_hourly_source(), NOW, after(days=1))
    lived(store, "clicks", [Beat(NOW - n * HOUR, 5) for n in range(500)])
    with statements(store) as sent:
        store.sources.beat("clicks", 5, after(hours=1), WORKER)
    sent = [sql for sql in sent if not sql.startswith("BEGIN")]
    assert [sql.split()[0] for sql in sent] == ["SELECT", "INSERT", "UPDATE"]


@pytest.mark.parametrize("known", [True, False], ids=["known", "to be adopted"])
def test_a_heartbeat_and_what_is_known_of_its_source_are_kept_together_or_not_at_all(
    store: Store, raw: RawSql, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    if known:
        store.sources.beat("orders", 7, NOW, by_try(1))
    was = raw.everything()

    def out_of_order(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", out_of_order)
        with pytest.raises(KeyboardInterrupt):
            store.sources.beat("orders", 8, after(hours=1), by_try(2))
    assert raw.everything() == was
    assert store.sources.beat("orders", 8, after(hours=1), by_try(2)).new


KILLED = """
import os, signal, sys
from datetime import datetime
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.store import sources
from airflow_oauth_guard.store.store import Store

url, key, point, at = sys.argv[1:]
store = Store(url, key)
setattr(sources, point, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
store.sources.beat("orders", 8, datetime.fromisoformat(at), Observer())
"""


@pytest.mark.parametrize("point", ["_hear", "_write"])
def test_a_job_that_is_killed_in_the_middle_of_its_heartbeat_leaves_nothing_half_done(
    store: Store, raw: RawSql, point: str
) -> None:
    store.sources.beat("orders", 7, NOW, by_try(1))
    was = raw.everything()
    url = store.database.engine.url.render_as_string(hide_password=False)
    killed = subprocess.run([sys.executable, "-c", KILLED, url, KEY, point, after(hours=1).isoformat()], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert raw.everything() == was
    assert store.sources.beat("orders", 8, after(hours=1), Observer()).new
    assert store.sources.get("orders").state.last_beat_at == after(hours=1)


# -- what the detector asks -----------------------------------------------------------------------------------------


def test_a_destination_is_asked_at_the_first_pass_and_then_at_its_own_pace(store: Store) -> None:
    store.sources.register([COUNTED], NOW)
    assert names(store.sources.due(NOW)) == ["counted"]
    store.sources.found("counted", measured(5), WORKER)
    watched = store.sources.get("counted")
    assert watched.due_at == NOW + asked_every(COUNTED) == after(hours=2)
    store.sources.settle(watched, Standing.FINE, NOW)
    assert store.sources.due(after(hours=1, minutes=59)) == []
    assert names(store.sources.due(after(hours=2))) == ["counted"]


def test_a_destination_that_could_not_be_asked_is_a_problem_until_it_answers(store: Store) -> None:
    store.sources.register([COUNTED], NOW)
    store.sources.not_found("counted", "time-out", NOW)
    store.sources.not_found("counted", "refused", after(hours=1))
    watched = store.sources.get("counted")
    assert (watched.state.problem, watched.state.problem_since) == ("refused", NOW)
    assert watched.due_at == after(hours=1)
    store.sources.settle(watched, Standing.UNMEASURED, after(hours=1))
    assert store.sources.get("counted").due_at == after(hours=1) + asked_every(COUNTED)
    store.sources.found("counted", measured(5, hours=3), WORKER)
    watched = store.sources.get("counted")
    assert (watched.state.problem, watched.state.problem_since) == ("", None)
    assert watched.due_at == after(hours=3), "whether it is over is to be looked at now"


# -- what is due ----------------------------------------------------------------------------------------------------


def test_what_is_due_is_found_the_longest_due_first_and_nothing_else(store: Store) -> None:
    several = [Source(name, hours * HOUR) for name, hours in (("a", 3), ("b", 1), ("c", 2), ("d", 5))]
    store.sources.register(several, NOW)
    assert store.sources.due(after(minutes=59, seconds=59)) == []
    assert names(store.sources.due(after(hours=1))) == ["b"]
    assert names(store.sources.due(after(hours=4))) == ["b", "c", "a"]
    assert names(store.sources.due(after(hours=4), limit=2)) == ["b", "c"]
    store.sources.beat("b", 1, after(hours=3, minutes=30), WORKER)
    assert names(store.sources.due(after(hours=4))) == ["c", "a"]


def test_a_source_that_never_spoke_is_due_when_its_declared_window_ends(store: Store) -> None:
    store.sources.register([ORDERS, Source("cron", Cron(("0 15 * * *",), HOUR)), LEARNED], NOW)
    assert store.sources.get("orders").due_at == NOW + DAY
    assert store.sources.get("cron").due_at == datetime(2026, 3, 1, 16, tzinfo=timezone.utc)
    assert store.sources.get("clicks").due_at == NOW + Learned().fallback


def test_a_quiet_source_is_looked_at_again_when_it_speaks(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.settle(store.sources.get("orders"), Standing.LATE, after(days=1))
    assert store.sources.due(after(days=300)) == []
    assert names(store.sources.standing_as(Standing.LATE)) == ["orders"]
    store.sources.beat("orders", 5, after(days=2), WORKER)
    assert names(store.sources.due(after(days=2))) == ["orders"]
    store.sources.settle(store.sources.get("orders"), Standing.FINE, after(days=2))
    assert store.sources.standing_as(Standing.LATE) == []
    assert store.sources.get("orders").due_at == after(days=3)


def test_a_quiet_source_whose_destination_is_asked_is_asked_on(store: Store) -> None:
    store.sources.register([COUNTED], NOW)
    store.sources.settle(store.sources.get("counted"), Standing.FLAT, after(days=2))
    assert store.sources.get("counted").due_at == after(days=2) + asked_every(COUNTED)


def test_a_look_may_say_itself_when_to_look_again(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.settle(store.sources.get("orders"), Standing.FINE, after(days=1), look_again_at=after(days=9))
    assert store.sources.get("orders").due_at == after(days=9)


def test_a_heartbeat_that_comes_in_during_a_look_stays_and_is_looked_at_in_the_next_pass(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    looked_at = store.sources.get("orders")
    store.sources.beat("orders", 5, after(days=1), WORKER)
    store.sources.settle(looked_at, Standing.LATE, after(days=1, minutes=1), look_again_at=after(days=9))
    watched = store.sources.get("orders")
    assert (watched.state.last_rows_at, watched.fed_by.dag_id) == (after(days=1), WORKER.dag_id)
    assert (watched.standing, watched.due_at) == (Standing.LATE, after(days=1, minutes=1))


def test_a_declaration_that_changes_during_a_look_stays_and_is_looked_at_in_the_next_pass(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    looked_at = store.sources.get("orders")
    store.sources.register([replace(ORDERS, window=HOUR)], after(hours=1))
    store.sources.settle(looked_at, Standing.FINE, after(hours=2))
    watched = store.sources.get("orders")
    assert (watched.source.window, watched.due_at) == (HOUR, after(hours=2))


def test_two_checkers_at_once_settle_a_source_as_one_would(store: Store, open_store: Callable[..., Store]) -> None:
    several = [Source(f"source {n}", HOUR) for n in range(6)]
    store.sources.register(several, NOW)

    def look(sources: module.Sources) -> None:
        for watched in sources.due(after(hours=1)):
            sources.settle(watched, Standing.LATE, after(hours=1))

    at_once([lambda one=one: look(one.sources) for one in (store, open_store())])
    assert names(store.sources.standing_as(Standing.LATE)) == [source.name for source in several]
    assert store.sources.due(after(days=300)) == []


def test_heartbeats_and_looks_at_once_lose_nothing(store: Store, open_store: Callable[..., Store], raw: RawSql) -> None:
    store.sources.register([ORDERS], NOW)

    def speak(number: int, sources: module.Sources) -> None:
        for turn in range(10):
            sources.beat("orders", 0, after(minutes=turn, seconds=number), by_try(100 * number + turn))

    def look(sources: module.Sources) -> None:
        for _ in range(10):
            sources.settle(sources.get("orders"), Standing.FINE, after(minutes=5))

    jobs = [lambda n=n: speak(n, open_store().sources) for n in range(4)]
    at_once([*jobs, *[lambda: look(open_store().sources)] * 2])
    watched = store.sources.get("orders")
    assert len(raw.rows(LEDGER)) == 40
    assert watched.state.last_beat_at == after(minutes=9, seconds=3)


def test_how_many_have_spoken_leaves_out_the_guards_own(store: Store) -> None:
    for number, name in enumerate(("a", "b", "oauth_guard_canary", "oauthXguard_ours", "c")):
        store.sources.beat(name, 1, after(hours=number), WORKER)
    assert store.sources.spoken_since(after(hours=1), "oauth_guard_") == 3
    assert store.sources.spoken_since(after(hours=5), "oauth_guard_") == 0


def test_the_schedule_of_the_dag_that_feeds_a_learned_source_says_when_it_is_due(store: Store) -> None:
    store.sources.beat("clicks", 5, NOW, WORKER)
    daily = Schedule(("0 6 * * *",), "Europe/Berlin")
    for _ in range(2):
        store.sources.fed_on("clicks", daily, NOW)
    watched = store.sources.get("clicks")
    at_six = Cron(("0 6 * * *",), first_grace=DEFAULT_FALLBACK)
    assert watched.source.window == at_six
    assert watched.due_at == datetime(2026, 3, 2, 5, tzinfo=timezone.utc) + DEFAULT_FALLBACK
    store.sources.declare(LEARNED, NOW)
    assert store.sources.get("clicks").source.window == at_six
    store.sources.fed_on("clicks", None, NOW)
    assert store.sources.get("clicks").source == LEARNED
    store.sources.fed_on("nobody", daily, NOW)
    assert store.sources.count() == 1


# -- pauses ---------------------------------------------------------------------------------------------------------


def test_a_pause_has_an_end_and_nothing_that_the_source_says_ends_it(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    muted = store.sources.mute("orders", after(days=5), after(hours=1), "ann", "migration")
    assert muted == store.sources.get("orders")
    assert muted.mute == module.Mute(after(hours=1), after(days=5), "ann", "migration")
    assert muted.due_at == after(days=5)
    store.sources.beat("orders", 7, after(hours=2), by_try(1))
    store.sources.register([replace(ORDERS, window=HOUR)], after(hours=3))
    store.sources.settle(store.sources.get("orders"), Standing.FINE, after(hours=4))
    watched = store.sources.get("orders")
    assert (watched.mute, watched.due_at) == (muted.mute, after(days=5))
    assert watched.state.last_rows_at == after(hours=2)
    assert watched.is_muted(after(days=4, hours=23))
    assert not watched.is_muted(after(days=5))
    assert names(store.sources.due(after(days=5))) == ["orders"]


def test_a_source_that_speaks_after_its_pause_is_due_by_its_window_again(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.mute("orders", after(days=5), NOW, "ann")
    store.sources.beat("orders", 7, after(days=6), by_try(1))
    assert store.sources.get("orders").due_at == after(days=7)


def test_a_pause_that_lasts_long_is_looked_at_before_its_end(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.mute("orders", after(days=300), NOW, "ann")
    store.sources.beat("orders", 7, after(days=1), by_try(1))
    assert names(store.sources.due(NOW + MUTED_FOR_LONG)) == ["orders"]
    store.sources.settle(store.sources.get("orders"), Standing.FINE, NOW + MUTED_FOR_LONG)
    store.sources.beat("orders", 7, after(days=20), by_try(2))
    assert store.sources.get("orders").due_at == after(days=300)


def test_a_pause_that_is_on_gets_another_end_and_keeps_its_beginning(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    store.sources.mute("orders", after(days=2), NOW, "ann")
    longer = store.sources.mute("orders", after(days=4), after(days=1), "bob").mute
    assert longer == module.Mute(NOW, after(days=4), "bob", "")
    again = store.sources.mute("orders", after(days=9), after(days=5), "ann").mute
    assert again is not None
    assert again.since == after(days=5)


def test_a_pause_that_would_be_over_is_refused(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    with pytest.raises(ConfigurationError, match="which has passed"):
        store.sources.mute("orders", NOW, NOW, "ann")
    assert store.sources.get("orders").mute is None


def test_unmuting_ends_a_pause_at_once_and_what_is_overdue_is_due(store: Store) -> None:
    store.sources.register([ORDERS], NOW)
    assert store.sources.unmute("orders", NOW) is False
    store.sources.mute("orders", after(days=9), NOW, "ann")
    assert store.sources.unmute("orders", after(days=2)) is True
    watched = store.sources.get("orders")
    assert not watched.is_muted(after(days=2))
    assert watched.mute == module.Mute(NOW, after(days=2), "ann", "")
    assert names(store.sources.due(after(days=2))) == ["orders"]
    assert store.sources.unmute("orders", after(days=2)) is False


# -- lessons --------------------------------------------------------------------------------------------------------


def test_lessons_are_due_the_longest_due_first_and_each_at_the_time_it_was_given(store: Store) -> None:
    store.sources.register([replace(LEARNED, name=name) for name in ("a", "b", "c")], NOW)
    store.sources.beat("d", 1, after(hours=-1), WORKER)
    assert store.sources.to_learn(NOW + FIRST_LESSON - HOUR - timedelta(seconds=1), 10) == []
    assert names(store.sources.to_learn(NOW + FIRST_LESSON, 10))[0] == "d"
    assert len(store.sources.to_learn(NOW + FIRST_LESSON, 2)) == 2
    for hours, name in enumerate("dcab"):
        store.sources.learned(name, None, after(days=1), after(days=2, hours=hours))
    assert store.sources.to_learn(after(days=1, hours=23), 10) == []
    assert names(store.sources.to_learn(after(days=2, hours=2), 10)) == ["d", "c", "a"]


def test_a_lesson_is_kept_and_says_when_the_source_is_due(store: Store) -> None:
    store.sources.register([LEARNED], NOW)
    store.sources.beat("clicks", 5, NOW, WORKER)
    habit = habit_of_an_hourly_source()
    store.sources.learned("clicks", habit, NOW, after(days=1))
    watched = store.sources.get("clicks")
    assert watched.habit == habit
    assert watched.due_at == outlook(LEARNED, habit, watched.state).alarm_at
    assert watched.due_at != NOW + Learned().fallback
    store.sources.learned("clicks", None, NOW, after(days=1))
    assert store.sources.get("clicks").habit is None
    assert store.sources.get("clicks").due_at == NOW + Learned().fallback


def test_a_heartbeat_during_a_lesson_is_not_lost_to_it(store: Store, open_store: Callable[..., Store]) -> None:
    store.sources.register([LEARNED], NOW)
    habit, other = habit_of_an_hourly_source(), open_store()
    at_once(
        [
            lambda: store.sources.learned("clicks", habit, NOW, after(days=1)),
            lambda: other.sources.beat("clicks", 5, after(hours=1), WORKER),
        ]
    )
    watched = store.sources.get("clicks")
    assert (watched.habit, watched.state.last_beat_at) == (habit, after(hours=1))
    assert watched.due_at == outlook(LEARNED, habit, watched.state).alarm_at


def test_history_is_the_recent_weeks_in_order_and_nothing_of_others_or_of_the_future(store: Store) -> None:
    beats = [Beat(NOW + HOUR - n * 2 * HOUR, n % 3 or None) for n in range(RECENT // (2 * HOUR) + 50)][::-1]
    lived(store, "clicks", beats)
    lived(store, "Clicks", beats[:10])
    known = store.sources.history("clicks", NOW)
    assert known == [beat for beat in beats if NOW - RECENT <= beat.at <= NOW]


def test_a_source_that_rarely_speaks_is_learned_from_for_longer(store: Store) -> None:
    beats = [Beat(NOW - n * DAY, 1) for n in range(HISTORY // DAY + 30)][::-1]
    lived(store, "rare", beats)
    assert store.sources.history("rare", NOW) == [beat for beat in beats if beat.at >= NOW - HISTORY]
    often = [Beat(NOW - n * 6 * HOUR, 1) for n in range(ENOUGH_LOADS + 30)][::-1]
    lived(store, "often", often)
    assert store.sources.history("often", NOW) == often[-ENOUGH_LOADS:]


def test_history_tells_what_was_measured_from_what_a_job_said(store: Store) -> None:
    store.sources.register([COUNTED], NOW)
    store.sources.beat("counted", 3, NOW, WORKER, watermark=after(minutes=-5))
    store.sources.found("counted", measured(None, minutes=1), WORKER)
    assert store.sources.history("counted", after(hours=1)) == [
        Beat(NOW, 3, after(minutes=-5)),
        Beat(after(minutes=1), None, measured=True),
    ]


def test_when_a_source_spoke_and_brought_rows_is_told_from_the_ledger(store: Store) -> None:
    for number, rows in enumerate((5, 0, 7, None)):
        store.sources.beat("orders", rows, after(hours=number), by_try(number))
    assert store.sources.last_beats("orders", after(hours=1)) == [after(hours=1), after(hours=2), after(hours=3)]
    assert store.sources.last_rows_before("orders", after(hours=9)) == after(hours=2)
    assert store.sources.last_rows_before("orders", after(hours=2)) == NOW
    assert store.sources.last_rows_before("orders", NOW) is None


# -- as people read them ----------------------------------------------------------------------------------------------


def test_sources_are_read_in_pages_those_that_are_not_fine_first(store: Store) -> None:
    for name in ("d", "c", "b", "a"):
        store.sources.declare(replace(ORDERS, name=name), NOW)
    for name, standing in (("c", Standing.LATE), ("d", Standing.STUCK)):
        store.sources.settle(store.sources.get(name), standing, NOW)
    pages = [store.sources.page(limit=3, offset=offset) for offset in (0, 3, 6)]
    assert [watched.source.name for page, _total in pages for watched in page] == ["c", "d", "a", "b"]
    assert {total for _page, total in pages} == {4}
    assert pages[0][0][0] == store.sources.get("c")


def test_sources_are_found_by_parts_of_their_names_and_by_what_a_look_has_found(store: Store) -> None:
    for name in ("crm_contacts", "CRM deals", "100%"):
        store.sources.declare(replace(ORDERS, name=name), NOW)
    store.sources.settle(store.sources.get("CRM deals"), Standing.FLAT, NOW)

    def names(search: str = "", standing: Standing | None = None) -> list[str]:
        page, total = store.sources.page(search, standing)
        assert total == len(page)
        return [watched.source.name for watched in page]

    assert names("crm") == ["CRM deals", "crm_contacts"]
    assert names("m_c") == ["crm_contacts"]
    assert names("%") == ["100%"]
    assert names(standing=Standing.FLAT) == ["CRM deals"]
    assert names("crm", Standing.FINE) == ["crm_contacts"]
    assert names(standing=Standing.LATE) == []


def test_the_last_heartbeats_are_read_in_order_of_time(store: Store) -> None:
    store.sources.declare(COUNTED, NOW)
    beats = [Beat(after(hours=hours), hours) for hours in (3, 1, 2)]
    for number, beat in enumerate(beats):
        store.sources.beat("counted", beat.rows, beat.at, by_try(number))
    found = replace(measured(), at=after(hours=4))
    store.sources.found("counted", found, Observer())
    store.sources.beat("other", 1, NOW, Observer())
    assert store.sources.recent("counted") == [beats[1], beats[2], beats[0], found]
    assert store.sources.recent("counted", limit=2) == [beats[0], found], "the newest ones"
    assert store.sources.recent("counted", since=after(hours=3)) == [beats[0], found]
    assert store.sources.recent("nobody") == []


# -- notes and skips --------------------------------------------------------------------------------------------------


def test_what_a_run_says_beside_its_number_is_kept_with_it(store: Store) -> None:
    store.sources.declare(ORDERS, NOW)
    store.sources.beat("orders", 3, after(hours=1), by_try(1), note="two files\nwere late")
    store.sources.beat("orders", 4, after(hours=2), by_try(2))
    assert [beat.note for beat in store.sources.recent("orders")] == ["two files were late", ""]
    store.sources.beat("orders", 0, after(hours=3), by_try(3), note="ö" * 600)
    assert store.sources.get("orders").state.note == "ö" * 499 + "…"
    assert store.sources.history("orders", after(hours=4))[-1].note == "ö" * 499 + "…"


def test_a_skip_leaves_a_source_due_when_it_was_and_a_lesson_reads_it_as_one(store: Store) -> None:
    store.sources.declare(replace(ORDERS, pings=True), NOW)
    due_at = store.sources.get("orders").due_at
    store.sources.beat("orders", 0, after(hours=20), by_try(1), note="skipped: credential `crm` is expired")
    watched = store.sources.get("orders")
    assert (watched.due_at, watched.state.last_beat_at, watched.state.skips) == (due_at, None, 1)
    [beat] = store.sources.history("orders", after(hours=21))
    assert beat.is_skip


def test_a_source_that_is_first_heard_of_by_a_skip_is_watched_and_has_not_spoken(store: Store) -> None:
    assert store.sources.beat("orders", 0, NOW, by_try(1), note="skipped: credential `crm` is expired").adopted
    watched = store.sources.get("orders")
    assert watched.state.last_beat_at is None
    assert watched.due_at is not None


def test_who_introduces_a_source_declares_it_unless_somebody_has(store: Store) -> None:
    store.sources.beat("orders", 3, NOW, by_try(1))
    store.sources.introduce(Source("orders", Learned(), "crm"), NOW)
    assert store.sources.get("orders").source.credential == "crm"
    assert not store.sources.get("orders").adopted
    store.sources.introduce(Source("orders", Learned(), "ads"), NOW)
    assert store.sources.get("orders").source.credential == "crm"


# -- assets -----------------------------------------------------------------------------------------------------------

UPDATED = Source("crm_contacts", DAY, measure=AssetEvents("contacts"))
BY_EVENT = replace(WORKER, try_number=None)
"""As an asset's event names the task that caused it."""


def told(store: Store) -> list[int | None]:
    return [beat.rows for beat in store.sources.recent("crm_contacts")]


def event_of(store: Store, number: int, rows: int | None, who: Observer = BY_EVENT, **when: float) -> Heard:
    return store.sources.found("crm_contacts", Beat(after(**when), rows), who, f"asset event {number}")


@pytest.mark.parametrize("name", ["contacts", "x://contacts/50%_of \\ 'all'", 'with "quotes"', "Zürich ☃", "con_acts"])
def test_sources_are_found_by_the_assets_that_speak_for_them(store: Store, name: str) -> None:
    mine = [Source(name, DAY), Source("by events", DAY, measure=AssetEvents(name))]
    others = [
        Source("other", DAY, credential=name, measure=AssetEvents(f"{name} ")),
        Source(f"{name}2", DAY),
        Source("contexts", DAY),
    ]
    store.sources.register([*mine, *others], NOW)
    found = store.sources.of_assets([name, "nothing"])
    assert {watched.source.name for watched in found[name]} == {"by events", name}
    assert found["nothing"] == []


def test_a_run_that_spoke_for_itself_is_not_heard_again_by_its_event(store: Store) -> None:
    store.sources.declare(UPDATED, NOW)
    store.sources.beat("crm_contacts", 7, NOW, by_try(1))
    assert not event_of(store, 1, 7, seconds=2).new
    assert not event_of(store, 1, None, seconds=2).new
    assert told(store) == [7]
    assert event_of(store, 2, 8, replace(BY_EVENT, run_id="another"), seconds=3).new
    assert event_of(store, 3, 9, replace(BY_EVENT, map_index=4), seconds=4).new
    assert event_of(store, 4, 10, replace(BY_EVENT, task_id="other"), seconds=5).new
    assert event_of(store, 5, 11, Observer(), seconds=6).new, "somebody outside Airflow"
    assert told(store) == [7, 8, 9, 10, 11]


def test_an_event_that_was_found_before_its_run_could_speak_is_not_heard_again(store: Store) -> None:
    store.sources.declare(UPDATED, NOW)
    event_of(store, 1, 7)
    assert not store.sources.beat("crm_contacts", 7, after(seconds=1), by_try(1)).new
    assert told(store) == [7]


def test_a_run_that_knows_its_rows_is_news_to_an_event_that_did_not(store: Store) -> None:
    store.sources.declare(UPDATED, NOW)
    event_of(store, 1, None)
    assert store.sources.beat("crm_contacts", 7, after(seconds=1), by_try(1)).new
    assert store.sources.get("crm_contacts").state.last_rows == 7


def test_a_run_that_is_run_again_is_heard_again_either_way(store: Store) -> None:
    store.sources.declare(UPDATED, NOW)
    store.sources.beat("crm_contacts", 7, NOW, by_try(1))
    assert store.sources.beat("crm_contacts", 8, after(minutes=5), by_try(2)).new
    assert event_of(store, 3, 9, minutes=25).new
    assert told(store) == [7, 8, 9]


def test_a_try_that_was_skipped_does_not_stand_for_the_event_of_the_next(store: Store) -> None:
    store.sources.declare(UPDATED, NOW)
    store.sources.beat("crm_contacts", 0, NOW, by_try(1), note="skipped: credential `crm` is expired")
    assert event_of(store, 1, 7, minutes=2).new
    assert store.sources.beat("crm_contacts", 0, after(minutes=3), by_try(3), note="skipped: again").new


def test_who_tries_and_events_of_a_source_that_is_no_assets_are_what_they_were(store: Store) -> None:
    store.sources.declare(ORDERS, NOW)
    store.sources.beat("orders", 7, NOW, by_try(1))
    assert store.sources.found("orders", Beat(after(seconds=1), 7), BY_EVENT, "an event").new
