"""What 100,000 watched sources cost: a pass, a heartbeat and a night's lessons.

::

    python -m benchmarks.flat_line                                    # SQLite, in a temporary folder
    python -m benchmarks.flat_line --postgres postgresql+psycopg2://… # and a database of its own on that server
    python -m benchmarks.flat_line --days 1 90                        # 216 million heartbeats: hours, and a large disk

Everything is compared with a named baseline in the same run, the two in turns, because the machine may be busy with other
things. The history is filled in bulk, for the days given: what has to be shown is that a pass does not depend on how
deep it is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, UniqueConstraint, create_engine, event, func, insert, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.schema import AddConstraint, DropConstraint

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.habits import RECENT, Habit, learn
from airflow_oauth_guard.domain.sources import Source, source_as_json
from airflow_oauth_guard.domain.windows import DEFAULT_BUDGET, Learned
from airflow_oauth_guard.store.sources import _new
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import heartbeats, sources, watch

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BLOCKS = 9
"""Each gives one ratio; their spread shows how quiet the machine was."""

OLD_HANDS = 60
"""Sources with eight weeks of hourly history, to learn from."""


# -- places -----------------------------------------------------------------------------------------------------------


@contextmanager
def sqlite() -> Iterator[URL]:
    with tempfile.TemporaryDirectory(prefix="oauth_guard_benchmark_") as folder:
        yield URL.create("sqlite", database=str(Path(folder) / "store.db"))


@contextmanager
def postgresql(server: URL) -> Iterator[URL]:
    name = f"oauth_guard_benchmark_{secrets.token_hex(4)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield server.set(database=name)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        engine.dispose()


# -- a life behind them -----------------------------------------------------------------------------------------------


@dataclass
class World:
    """Sources that loaded something every hour until ``now``, and are not overdue."""

    store: Store
    count: int
    now: datetime = field(default_factory=lambda: datetime.now(timezone.utc).replace(microsecond=0))
    days: int = 0
    era: int = 0

    def name(self, number: int) -> str:
        return f"source {number:06}"

    @property
    def engine(self) -> Engine:
        return self.store.database.engine

    def settle_in(self) -> None:
        """Every second source has a learned habit, and what is due lies in the next day."""
        habits = [self._habit(seed).to_json() for seed in range(16)]
        rows = []
        for number in range(self.count):
            source = Source(self.name(number), Learned())
            row = _new(source, self.now - 90 * DAY, adopted=True)
            row["last_beat_at"] = row["last_rows_at"] = self.now - HOUR * (number / self.count)
            row["learn_at"] = self.now + DAY * (number / self.count)
            row["due_at"] = self.now + HOUR + DAY * (number / self.count)
            row["heard"] = '{"last_rows": 120, "longest_gap": 3721.5}'
            row["habit"] = habits[number % len(habits)] if number % 2 else None
            rows.append(row)
        with self.engine.begin() as connection:
            for start in range(0, self.count, 10_000):
                connection.execute(insert(sources), rows[start : start + 10_000])
            connection.execute(watch.update().values(sources=self.count))

    def _habit(self, seed: int) -> Habit:
        habit = learn(
            list(self.hourly(seed, RECENT)),
            self.now,
            zone=ZoneInfo("UTC"),
            closed=ClosedDays(),
            budget=DEFAULT_BUDGET,
        )
        assert habit is not None
        return habit

    def hourly(self, seed: int, length: timedelta) -> Iterator[Beat]:
        """Busy by day, and some hours of the night with nothing."""
        chance, at = random.Random(seed), self.now - length
        while at < self.now:
            at += HOUR
            quiet = at.hour < 6 and chance.random() < 0.5
            moved = 0 if quiet else round(chance.lognormvariate(5, 0.5))
            yield Beat(at + timedelta(seconds=chance.randrange(300)) - timedelta(minutes=10), moved)

    def live(self, days: int) -> None:
        """Fill the ledger so far back, hour by hour, as it would have been written."""
        with without_indexes(self.engine):
            if self.engine.dialect.name == "postgresql":
                self._generate(days)
            else:
                self._insert(days)
        self.days = days
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE" if connection.dialect.name == "postgresql" else "ANALYZE")

    def _generate(self, days: int) -> None:
        # Keys in the order of time, so that the fill is quick; a heartbeat's own are scattered.
        statement = text(
            "INSERT INTO oauth_guard_heartbeats (source, row_count, at, beat_key, measured) "
            "SELECT 'source ' || lpad(s::text, 6, '0'), s % 500, "
            "CAST(:now AS timestamptz) - h * interval '1 hour' - s * interval '36 ms', "
            "lpad(to_hex(1000000 - h), 32, '0') || lpad(to_hex(s), 32, '0'), 0 "
            "FROM generate_series(CAST(:oldest AS int), CAST(:newest AS int), -1) AS h, "
            "generate_series(0, CAST(:count AS int) - 1) AS s ORDER BY h DESC"
        )
        for hour in range(days * 24, self.days * 24, -24):
            span = {"oldest": hour, "newest": hour - 23}
            with self.engine.begin() as connection:
                connection.execute(statement, {"now": self.now, "count": self.count, **span})

    def _insert(self, days: int) -> None:
        query = "INSERT INTO oauth_guard_heartbeats (source, row_count, at, beat_key, measured) VALUES (?, ?, ?, ?, 0)"
        names = [self.name(number) for number in range(self.count)]
        with self.engine.begin() as connection:
            cursor: Any = connection.connection.cursor()
            for hour in range(days * 24, self.days * 24, -1):
                at = (self.now - hour * HOUR).strftime("%Y-%m-%d %H:%M:%S")
                key = f"{1_000_000 - hour:032x}"
                cursor.executemany(
                    query,
                    ((name, s % 500, f"{at}.{s % 1_000_000:06}", f"{key}{s:032x}") for s, name in enumerate(names)),
                )

    def grow_old(self) -> list[str]:
        """Give some sources eight weeks to learn from; returns their names."""
        names = []
        for number in range(1, 2 * OLD_HANDS, 2):
            names.append(self.name(number))
            rows = [
                {
                    "source": names[-1],
                    "row_count": beat.rows,
                    "at": beat.at - self.days * DAY,
                    "beat_key": secrets.token_hex(32),
                    "measured": 0,
                }
                for beat in self.hourly(number, RECENT - self.days * DAY)
            ]
            with self.engine.begin() as connection:
                connection.execute(insert(heartbeats), rows)
        return names


@contextmanager
def without_indexes(engine: Engine) -> Iterator[None]:
    """A bulk insert keeps no index up; each is built once, after it."""
    unique = [c for c in heartbeats.constraints if isinstance(c, UniqueConstraint)]
    if engine.dialect.name == "sqlite":
        # It cannot add a constraint later; the keys come in order.
        unique = []
    with engine.begin() as connection:
        for index in heartbeats.indexes:
            index.drop(connection)
        for constraint in unique:
            connection.execute(DropConstraint(constraint))
    yield
    with engine.begin() as connection:
        for index in heartbeats.indexes:
            index.create(connection)
        for constraint in unique:
            connection.execute(AddConstraint(constraint))


@contextmanager
def without_waiting_for_the_disk(engine: Engine) -> Iterator[None]:
    """What is left where a commit costs nothing: the harder comparison, which a slow disk would hide."""
    sql = "PRAGMA synchronous = OFF" if engine.dialect.name == "sqlite" else "SET synchronous_commit = off"

    def relax(connection: Any, _record: object) -> None:
        connection.cursor().execute(sql)
        connection.commit()

    engine.dispose()
    event.listen(engine, "connect", relax)
    yield
    event.remove(engine, "connect", relax)
    engine.dispose()


# -- measuring --------------------------------------------------------------------------------------------------------

Job = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Milliseconds of each, and how many times as long ours takes, one ratio a block."""

    bare: list[float]
    ours: list[float]
    ratios: list[float]

    def row(self, what: str, goal: str) -> str:
        return f"| {what} | {spread(self.bare)} | {spread(self.ours)} | **{spread(self.ratios)}** | {goal} |"


def spread(numbers: Sequence[float]) -> str:
    low, middle, high = min(numbers), statistics.median(numbers), max(numbers)
    return " / ".join(f"{number:.2f}" if number < 100 else f"{number:,.0f}" for number in (low, middle, high))


def compare(bare: Job, ours: Job, calls: int) -> Comparison:
    """In turns, so that whatever else the machine does hits both."""
    taken: list[tuple[list[float], list[float]]] = []
    for job in (bare, ours) * 3:
        job()
    for _ in range(BLOCKS):
        block: tuple[list[float], list[float]] = ([], [])
        for _ in range(calls):
            for job, times in zip((bare, ours), block, strict=True):
                times.append(timed(job))
        taken.append(block)
    return Comparison(
        [t for block in taken for t in block[0]],
        [t for block in taken for t in block[1]],
        [statistics.median(block[1]) / statistics.median(block[0]) for block in taken],
    )


def timed(job: Job) -> float:
    started = time.perf_counter()
    job()
    return (time.perf_counter() - started) * 1000


# -- what is measured -------------------------------------------------------------------------------------------------


def a_pass(world: World) -> Comparison:
    store, due = world.store, select(sources).where(sources.c.due_at <= world.now)
    # As the Airflow Variable gives them.
    declared = json.dumps([source_as_json(Source(world.name(number), Learned())) for number in range(20)])
    store.sources.register(declared, world.now)

    def bare() -> None:
        with store.database.read() as connection:
            assert not connection.execute(due).all()

    def ours() -> None:
        assert store.sources.register(declared, world.now) == world.count
        glance = store.glance(world.now, 10_000)
        assert (glance.due, glance.open_ones, glance.unknown) == ([], [], [])

    return compare(bare, ours, 50)


def a_heartbeat(world: World, *, learned: bool) -> Comparison:
    store, chance = world.store, random.Random(7)
    made = iter(range(1_000_000))
    world.era += 1

    def drawn() -> tuple[str, datetime, Observer]:
        number, who = next(made), chance.randrange(world.count // 2) * 2 + learned
        run = f"scheduled__{world.now:%Y-%m-%d}T{number}"
        at = world.now + timedelta(minutes=world.era, milliseconds=number)
        return world.name(who), at, Observer(f"pipeline_{who}", run, "heartbeat", -1, world.era)

    def bare() -> None:
        name, at, who = drawn()
        row = {"source": name, "row_count": 120, "at": at, "beat_key": secrets.token_hex(32), **who.__dict__}
        with store.database.write() as connection:
            connection.execute(statement, row)

    def ours() -> None:
        name, at, who = drawn()
        assert store.sources.beat(name, 120, at, who).new

    statement = insert(heartbeats)
    return compare(bare, ours, 60)


def a_scan(world: World) -> list[float]:
    """What a pass would cost that asks the ledger."""
    query = select(heartbeats.c.source, func.max(heartbeats.c.at)).group_by(heartbeats.c.source)

    def scan() -> None:
        with world.store.database.read() as connection:
            assert len(connection.execute(query).all()) == world.count

    return [timed(scan) for _ in range(3)]


def a_night(world: World, names: Sequence[str]) -> str:
    store, habits = world.store, 0
    began, cpu = time.perf_counter(), time.process_time()
    for name in names:
        beats = store.sources.history(name, world.now)
        masked = [(a, b or world.now) for a, b in store.incidents.quiet_stretches(name, world.now - RECENT)]
        habit = learn(beats, world.now, zone=ZoneInfo("UTC"), closed=ClosedDays(), budget=DEFAULT_BUDGET, masked=masked)
        habits += habit is not None
        store.sources.learned(name, habit, world.now, world.now + DAY)
    assert habits == len(names), "nothing was learned"
    wall, cpu = (time.perf_counter() - began) / len(names), (time.process_time() - cpu) / len(names)
    all_of_them = f"{cpu * world.count:,.0f} CPU-s a day, {100 * cpu * world.count / 86400:.2f} % of one core"
    return f"| {len(beats)} heartbeats each | {cpu * 1000:.1f} ms | {wall * 1000:.1f} ms | {all_of_them} |"


def many_declared(world: World) -> str:
    """A declaration of all of them, as the Variable's text, that has not changed since the last pass."""
    declared = json.dumps([source_as_json(Source(world.name(n), Learned())) for n in range(world.count)])
    first = timed(lambda: world.store.sources.register(declared, world.now))
    again = [timed(lambda: world.store.sources.register(declared, world.now)) for _ in range(9)]
    return (
        f"Declared as one text of {len(declared) / 1e6:.1f} MB, all {world.count:,} sources cost {first / 1000:.1f} s once "
        f"and {spread(again)} ms at each later pass.\n"
    )


# -- the report -------------------------------------------------------------------------------------------------------


def report(url: URL, count: int, depths: Sequence[int]) -> None:
    store = Store(url, KEY)
    world = World(store, count)
    print(f"### {described(store)}, {count:,} sources\n", flush=True)
    world.settle_in()
    lines = []
    for days in depths:
        began = time.perf_counter()
        world.live(days)
        filled = f"{count * days * 24 / 1e6:.1f} M heartbeats ({days} d hourly)"
        print(f"{filled}: filled in {time.perf_counter() - began:.0f} s.", flush=True)
        lines.append(a_pass(world).row(f"a pass, nothing overdue; {filled}", "≤ 3, ≤ 50 ms"))
        lines.append(f"| `GROUP BY` over the ledger; {filled} | | {spread(a_scan(world))} | | |")
    for learned, of in ((False, "window not learned yet"), (True, "window learned")):
        lines.append(a_heartbeat(world, learned=learned).row(f"a heartbeat, {of}", "≤ 2.5"))
        with without_waiting_for_the_disk(world.engine):
            lines.append(a_heartbeat(world, learned=learned).row(f"a heartbeat, {of}, a disk that costs nothing", ""))
    print("\n| what | baseline ms | ours ms | ratio | goal |\n| --- | --- | --- | --- | --- |")
    print("\n".join(lines))
    print(
        f"\nEach min / median / max; a ratio is that of the medians of one of {BLOCKS} blocks, in which both take turns."
    )
    print("Baselines: the bare query on `due_at`, and one `INSERT` into the ledger in a transaction of its own.\n")
    print("| a lesson | CPU here | until it is kept | all of them, staggered |\n| --- | --- | --- | --- |")
    print(a_night(world, world.grow_old()) + "\n")
    print(many_declared(world), flush=True)
    store.database.engine.dispose()


def described(store: Store) -> str:
    with store.database.read() as connection:
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[store.database.engine.dialect.name]
    return f"{name} {version}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=100_000)
    parser.add_argument("--days", type=int, nargs="+", default=[1, 5], help="depths of the history, growing")
    parser.add_argument("--postgres", help="a server on which a database may be made and dropped")
    parser.add_argument("--no-sqlite", action="store_true")
    given = parser.parse_args()
    print(f"*{datetime.now(timezone.utc):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores.*\n")
    places = [] if given.no_sqlite else [sqlite()]
    if given.postgres:
        places.append(postgresql(make_url(given.postgres)))
    for place in places:
        with place as url:
            report(url, given.sources, given.days)


if __name__ == "__main__":
    main()
