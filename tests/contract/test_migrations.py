"""Every earlier release's store, brought to this release's tables: nothing is lost, and the guards stand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.command import upgrade
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Engine, event, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.flat_line import Standing, State, hear
from airflow_oauth_guard.domain.incidents import About, Phase
from airflow_oauth_guard.domain.sources import Source, SqlCount
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.domain.windows import LONGEST_WINDOW
from airflow_oauth_guard.store.database import NEWEST, VERSION_TABLE, Database, _alembic_config
from airflow_oauth_guard.store.roster import RosterQuery
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import heartbeats, seeds
from airflow_oauth_guard.store.upkeep import Retention

from .conftest import RawSql
from .making import KEY, THREADS, TTL, at_once, planted, refusal
from .releases.dump import literal

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.sql"))
every_release = pytest.mark.parametrize("dump", RELEASES, ids=lambda path: path.stem)
BEFORE_FLAT_LINES = [path for path in RELEASES if path.stem in ("0.1.0", "0.2.0")]
before_flat_lines = pytest.mark.parametrize("dump", BEFORE_FLAT_LINES, ids=lambda path: path.stem)
FLAT_LINES = next(path for path in RELEASES if path.stem == "0.4.0")
THE_PAGE = next(path for path in RELEASES if path.stem == "0.5.0")
before_the_page = pytest.mark.parametrize("dump", [*BEFORE_FLAT_LINES, FLAT_LINES], ids=lambda path: path.stem)


@pytest.fixture
def url(empty_url: URL) -> URL:
    return empty_url


# -- releases and revisions -----------------------------------------------------------------------------------------


def migrations() -> list[Script]:
    """Oldest first."""
    return list(ScriptDirectory.from_config(_alembic_config()).walk_revisions())[::-1]


def release_of(migration: Script) -> str:
    """The release that ships it, as its first line says."""
    [release] = re.findall(r"release (\d+\.\d+\.\d+)", migration.doc)
    return release


def parts(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def revision_of(release: str) -> str:
    """The tables a release had: those of its own migration, or of the last one before it."""
    return [m.revision for m in migrations() if parts(release_of(m)) <= parts(release)][-1]


def test_every_earlier_release_that_changed_the_tables_has_a_dump() -> None:
    earlier = {release_of(migration) for migration in migrations()[:-1]} - {release_of(migrations()[-1])}
    missing = earlier - {path.stem for path in RELEASES}
    assert not missing, f"make one with that release's code: tests/contract/releases/dump.py says how ({missing})"
    assert earlier, "nothing would be tested below"


def test_a_text_that_databases_read_differently_does_not_get_into_a_dump() -> None:
    assert literal("it's") == "'it''s'"
    for text_ in ("a\\nb", "100 %", "two\nlines"):
        with pytest.raises(ValueError, match="not read alike"):
            literal(text_)


# -- a database as a release left it --------------------------------------------------------------------------------


@contextmanager
def opened(url: URL) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.engine.dispose()


def load(url: URL, dump: Path) -> dict[str, list[dict[str, Any]]]:
    """Put a release's rows into its own tables; returns them."""
    with opened(url) as database:
        with database.write() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            upgrade(config, revision_of(dump.stem))
        with database.write() as connection:
            if database.engine.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL TIME ZONE 'UTC'"))
            if inspect(connection).has_table("oauth_guard_watch"):
                # A migration puts a row there, and the release has its own.
                connection.execute(text("DELETE FROM oauth_guard_watch"))
            for line in dump.read_text(encoding="utf-8").splitlines():
                if line.startswith("INSERT"):
                    connection.exec_driver_sql(line)
            _number_on(database.engine, connection)
        return contents(database.engine)


def _number_on(engine: Engine, connection: Any) -> None:
    """PostgreSQL does not notice numbers that were given; rows of the release's own code had moved it on."""
    if engine.dialect.name != "postgresql":
        return
    for table in inspect(connection).get_table_names():
        columns = {column["name"]: column for column in inspect(connection).get_columns(table)}
        if "id" in columns and columns["id"]["default"]:
            connection.execute(text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"))


def contents(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row there is."""
    with engine.connect() as connection:
        return {
            table: sorted(
                (dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()), key=repr
            )
            for table in inspect(engine).get_table_names()
            if table != VERSION_TABLE
        }


Rows = dict[str, list[dict[str, Any]]]


def kept(rows: Rows, other: Rows) -> Rows:
    """In the tables and columns that both releases have; what became of the rest is tested by name."""
    return {
        table: sorted(
            ({name: row[name] for name in row.keys() & other[table][0].keys()} for row in rows[table]), key=_place
        )
        for table in rows.keys() & other.keys()
        if other[table]
    }


def _place(row: dict[str, Any]) -> str:
    return repr(sorted(row.items()))


@pytest.fixture
def before(url: URL) -> Callable[[Path], dict[str, list[dict[str, Any]]]]:
    """What a release had left in the database, which holds it from now on."""
    return lambda dump: load(url, dump)


# -- the upgrade ----------------------------------------------------------------------------------------------------


@every_release
def test_nothing_that_a_release_has_stored_is_lost(dump: Path, before, open_store: Callable[..., Store]) -> None:
    was = before(dump)
    assert all(was.values()), "a table without a row proves nothing"
    store = open_store()
    now = contents(store.database.engine)
    assert kept(now, was) == kept(was, now)
    assert kept(was, now).keys() == was.keys()
    assert {status.value for status in Status} == {row["status"] for row in was["oauth_guard_statuses"]}


@every_release
def test_what_a_release_has_stored_can_be_read_and_used(dump: Path, before, open_store: Callable[..., Store]) -> None:
    before(dump)
    store = open_store()
    tokens = {one.conn_id: store.credentials.tokens(one) for one in store.credentials.roster()}
    assert tokens["healthy"].refresh_token == "healthy-refresh-3"
    assert tokens["Ünïcode 太多"].access_token == "Ünïcode 太多-access-1"
    assert store.credentials.status_evidence(store.credentials.get("expired")) is not None
    assert [store.investigation(row["id"]).credential.conn_id for row in store.investigations.open_ones()] != []
    lease = store.credentials.lease("kept_answer", "worker", TTL, datetime.now(timezone.utc))
    assert lease is not None
    assert lease.unsettled[-1].answer is not None, "an answer that was kept by the release before is taken in"
    assert {source.name for source in store.sources.registered()} >= {"contacts", "orders", "quiet"}
    assert store.sources.get("contacts").state.last_rows_at is not None
    assert not store.sources.beat(
        "contacts", 5, datetime(2025, 6, 2, 8, 30, 0, 123456, tzinfo=timezone.utc), _first_try(store)
    ).new


def _first_try(store: Store) -> Observer:
    with store.database.read() as connection:
        who = (
            heartbeats.c.dag_id,
            heartbeats.c.run_id,
            heartbeats.c.task_id,
            heartbeats.c.map_index,
            heartbeats.c.try_number,
        )
        return Observer(*connection.execute(select(*who).where(heartbeats.c.id == 1)).one())


@before_flat_lines
def test_what_a_release_has_watched_is_watched_on(dump: Path, before, open_store: Callable[..., Store]) -> None:
    rows = before(dump)["oauth_guard_sources"]
    store = open_store()
    for row in rows:
        watched = store.sources.get(row["name"])
        assert watched.source == Source(
            name=row["name"],
            window=timedelta(seconds=row["window_seconds"]),
            credential=row["credential"],
            measure=SqlCount(row["count_conn_id"], row["count_sql"]) if row["count_sql"] else None,
            alert_route=row["alert_route"],
        )
        assert (watched.adopted, watched.standing, watched.mute, watched.habit) == (False, Standing.FINE, None, None)
    assert store.sources.count() == len(rows)
    assert len(store.sources.due(datetime.now(timezone.utc))) == len(rows), "the first pass looks at each"


@before_flat_lines
def test_what_a_release_has_heard_of_its_sources_is_known(dump: Path, before, open_store: Callable[..., Store]) -> None:
    before(dump)
    store = open_store()
    for watched in store.sources.all():
        with store.database.read() as connection:
            of_source = select(heartbeats).where(heartbeats.c.source == watched.source.name).order_by(heartbeats.c.at)
            heard = connection.execute(of_source).all()
        state = State(watched.state.registered_at)
        for row in heard:
            # As its jobs said; a destination has not been asked yet by this release.
            state = hear(replace(watched.source, measure=None), None, state, Beat(row.at, row.row_count))
        known = watched.state
        assert (known.last_beat_at, known.last_rows_at) == (state.last_beat_at, state.last_rows_at)
        assert (known.zeros, known.unknowns) == (state.zeros, state.unknowns)


@before_flat_lines
def test_an_alert_that_a_release_has_sent_is_not_sent_for_the_first_time_again(
    dump: Path, before, open_store: Callable[..., Store]
) -> None:
    before(dump)
    incidents = open_store().incidents.open_ones()
    assert {incident.times_told for incident in incidents} == {0, 1}
    assert all(incident.times_told == (incident.last_notified_at is not None) for incident in incidents)
    assert {incident.phase for incident in incidents} == {Phase.OPEN}


def test_what_the_release_of_the_flat_lines_knew_of_its_sources_is_known(
    before, open_store: Callable[..., Store]
) -> None:
    rows = before(FLAT_LINES)["oauth_guard_sources"]
    store = open_store()
    known = {watched.source.name: watched for watched in store.sources.all()}
    assert known.keys() == {row["name"] for row in rows}
    assert {watched.standing for watched in known.values()} == {*Standing} - {Standing.FLAT}
    assert known["learned"].habit is not None
    assert known["learned"].state.schedule is not None
    assert known["adopted"].adopted
    assert known["muted"].mute is not None
    assert known["asked"].state.problem == "no such table: t"
    assert store.sources.count() == len(rows)


def test_what_people_said_of_incidents_to_the_release_of_the_flat_lines_still_holds(
    before, open_store: Callable[..., Store]
) -> None:
    before(FLAT_LINES)
    store = open_store()
    assert {phase for phase, number in store.incidents.counts().items() if number} == {*Phase}
    [group] = store.incidents.open_ones(About.GROUP)
    assert (group.times_told, group.escalated_at is not None) == (2, True)
    assert [member.name for member in store.incidents.members(group)] == ["learned"]
    [acknowledged], _total = store.incidents.page(Phase.ACKNOWLEDGED)
    assert (acknowledged.name, acknowledged.acknowledged_by) == ("daily", "ada")
    assert [one.expected_by for one in store.incidents.history(About.SOURCE, "asked")] == ["grace"]


@before_the_page
def test_nobody_is_said_to_have_asked_for_what_an_earlier_release_did(
    dump: Path, before, open_store: Callable[..., Store]
) -> None:
    before(dump)
    store = open_store()
    for credential in store.credentials.roster():
        assert credential.provider == ""
        assert {seen.observer.person for seen in store.timeline.page(credential)} <= {None}
        assert {one.observer.person for one in store.timeline.transitions(credential)} <= {None}


def test_what_people_did_on_the_page_of_the_release_before_is_known(before, open_store: Callable[..., Store]) -> None:
    before(THE_PAGE)
    store = open_store()
    known = {one.conn_id: one for one in store.credentials.roster()}
    assert known["approved_by_ada"].provider == "hubspot"
    assert store.credentials.tokens(known["approved_by_ada"]).refresh_token == "approved_by_ada-refresh-2"
    assert {seen.observer.person for seen in store.timeline.page(known["probed_by_ada"])} == {"ada"}
    [_lapsed, revived] = sorted(store.timeline.transitions(known["revived_by_ada"]), key=lambda one: one.id)
    assert (revived.observer.person, revived.reason) == (
        "ada",
        "a person says that it works again: the account is paid again",
    )
    begun = store.authorizations.find("state-2", "ada", datetime(2025, 6, 2, 8, 35, tzinfo=timezone.utc))
    assert (begun.credential.conn_id, begun.secret) == ("probed_by_ada", "verifier-2")


@every_release
def test_a_store_of_an_earlier_release_knows_no_consumers_and_takes_some(
    dump: Path, before, open_store: Callable[..., Store]
) -> None:
    before(dump)
    store, now = open_store(), datetime.now(timezone.utc)
    healthy = store.credentials.get("healthy")
    assert store.consumers.of(["healthy"], now) == {}
    store.consumers.note(healthy.id, "load_crm", "load", now)
    [consumer] = store.consumers.of(["healthy"], now)["healthy"]
    assert (consumer.dag_id, consumer.task_id) == ("load_crm", "load")
    assert {row["note"] for row in RawSql(store).rows("oauth_guard_heartbeats")} == {""}


@every_release
def test_the_page_shows_what_an_earlier_release_has_stored(
    dump: Path, before, open_store: Callable[..., Store]
) -> None:
    was = before(dump)
    store = open_store()
    page = store.roster.page(RosterQuery(limit=1000), datetime.now(timezone.utc))
    assert page.total == len(was["oauth_guard_credentials"])
    lines = {line.credential.conn_id: line for line in page.rows}
    assert lines["restored"].latest
    assert lines["healthy"].reach.sources.count
    assert lines["expired"].is_in_trouble
    seen = [look.id for line in page.rows for look in store.timeline.page(line.credential, limit=1000)]
    assert sorted(seen) == sorted(row["id"] for row in was["oauth_guard_evidence"])


@every_release
def test_the_ledger_of_a_release_does_not_end_with_the_numbers_of_thirty_two_bits(
    dump: Path, before, open_store: Callable[..., Store]
) -> None:
    before(dump)
    store = open_store()
    sql = RawSql(store)
    sql.run(
        "INSERT INTO oauth_guard_heartbeats (id, source, at, beat_key, measured) "
        "VALUES (2147483647, 'orders', '2020-01-01 00:00:00', 'last of the small', 0)"
    )
    if sql.dialect == "postgresql":
        sql.run("SELECT setval('oauth_guard_heartbeats_id_seq', 2147483647)")
    store.sources.beat("orders", 3_000_000_000, datetime.now(timezone.utc), Observer())
    newest = max(sql.rows("oauth_guard_heartbeats"), key=lambda row: row["id"])
    assert (newest["id"], newest["row_count"]) == (2147483648, 3_000_000_000)


def test_a_window_that_no_declaration_may_have_any_more_becomes_the_longest_there_is(
    before, url: URL, open_store: Callable[..., Store]
) -> None:
    before(BEFORE_FLAT_LINES[-1])
    with opened(url) as database, database.write() as connection:
        connection.execute(text("UPDATE oauth_guard_sources SET window_seconds = 1e9 WHERE name = 'quiet'"))
    assert open_store().sources.get("quiet").source.window == LONGEST_WINDOW


@every_release
def test_the_seeds_a_release_has_read_are_not_news(dump: Path, before, open_store: Callable[..., Store]) -> None:
    was = before(dump)
    rows = was["oauth_guard_credentials"]
    known = {(row["id"], row[seed]) for row in rows for seed in ("access_seed", "refresh_seed") if row[seed]}
    known |= {(row["credential_id"], row["fingerprint"]) for row in was.get("oauth_guard_seeds", ())}
    with open_store().database.read() as connection:
        remembered = connection.execute(select(seeds.c.credential_id, seeds.c.fingerprint)).all()
    assert {tuple(row) for row in remembered} == known


@every_release
def test_a_store_of_a_release_can_be_kept_up(dump: Path, before, open_store: Callable[..., Store]) -> None:
    before(dump)
    store = open_store()
    rotation = store.upkeep.rotate_key()
    assert (rotation.encrypted_anew, rotation.unreadable) == (0, ())
    assert set(rotation.open_refreshes) == {"lost", "no_answer"}
    # Of a source that is watched these few would stay, for its lessons.
    store.sources.forget("contacts")
    went = store.upkeep.purge(Retention(), datetime.now(timezone.utc))
    assert all(went[table] for table in ("evidence", "intents", "heartbeats"))
    assert {one.status for one in store.credentials.roster()} == set(Status)


@every_release
def test_a_second_upgrade_does_nothing(dump: Path, before, url: URL, open_store: Callable[..., Store]) -> None:
    before(dump)
    store = open_store()
    was, schema = contents(store.database.engine), guards(store.database.engine)
    with statements() as sent:
        store.database.migrate()
        open_store()
    assert [sql for sql in sent if not sql.lstrip().upper().startswith(READS)] == []
    assert (contents(store.database.engine), guards(store.database.engine)) == (was, schema)


READS = ("SELECT", "PRAGMA", "BEGIN", "SHOW", "DESCRIBE")


@every_release
def test_processes_that_start_at_once_upgrade_once(dump: Path, before, url: URL) -> None:
    was = before(dump)
    with statements() as sent:
        stores = at_once([lambda: Store(url, KEY)] * THREADS)
    try:
        made = Counter(sql for sql in sent if sql.startswith(("CREATE", "DROP", f"UPDATE {VERSION_TABLE}")))
        assert made, "the upgrade did nothing"
        assert set(made.values()) == {1}
        now = contents(stores[0].database.engine)
        assert kept(now, was) == kept(was, now)
    finally:
        for store in stores:
            store.database.engine.dispose()


@contextmanager
def statements() -> Iterator[list[str]]:
    """Every statement that any engine sends."""
    sent: list[str] = []

    def note(_connection, _cursor, statement: str, *_more) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield sent
    event.remove(Engine, "before_cursor_execute", note)


# -- an upgrade that dies -------------------------------------------------------------------------------------------


class Died(Exception):
    """As if the process had been killed."""


@contextmanager
def dying_after(count: int) -> Iterator[list[str]]:
    """Break the upgrade off after so many of its changes; what was sent by then is in the list."""
    sent: list[str] = []

    def note(_connection, _cursor, statement: str, *_more) -> None:
        if statement.lstrip().startswith(("CREATE", "DROP", "ALTER", "INSERT", "UPDATE", "DELETE")):
            if len(sent) == count:
                raise Died
            sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield sent
    event.remove(Engine, "before_cursor_execute", note)


def guards(engine: Engine) -> dict[str, Any]:
    """Indexes and triggers, as the database describes them."""
    queries = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": (
            "SELECT tgname, pg_get_triggerdef(t.oid), prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid "
            "JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal AND relnamespace = 'public'::regnamespace"
        ),
        "mysql": (
            "SELECT trigger_name, CONCAT(action_timing, ' ', event_manipulation), action_statement "
            "FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
        ),
    }
    with engine.connect() as connection:
        triggers = sorted(tuple(row) for row in connection.execute(text(queries[_family(engine)])))
    tables = sorted(inspect(engine).get_table_names())
    return {"triggers": triggers, "indexes": {table: _indexes(engine, table) for table in tables}}


def _family(engine: Engine) -> str:
    return "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name


def _indexes(engine: Engine, table: str) -> list[str]:
    return sorted(repr(sorted(index.items())) for index in inspect(engine).get_indexes(table))


def test_the_newest_upgrade_can_die_anywhere_and_be_run_again(place, tmp_path: Path) -> None:
    """MySQL keeps what was done by then; the others roll it back."""
    dump = RELEASES[-1]
    url = place.empty(tmp_path)
    was = load(url, dump)
    with opened(url) as database:
        with dying_after(1000) as every_change:
            database.migrate()
        complete = guards(database.engine), contents(database.engine)
    assert kept(complete[1], was) == kept(was, complete[1])
    assert len(every_change) > 3
    for count in range(len(every_change)):
        url = place.empty(tmp_path)
        load(url, dump)
        with opened(url) as database:
            with dying_after(count) as sent, pytest.raises(Died):
                database.migrate()
            assert sent == every_change[:count]
            _evidence_is_guarded(database)
            database.migrate()
            now = guards(database.engine), contents(database.engine)
            assert now == complete, f"after dying at {every_change[count]}"


def _evidence_is_guarded(database: Database) -> None:
    """Half-way, too, evidence that a status rests on cannot be taken away."""
    with pytest.raises(DBAPIError, match=r"append-only|foreign key"), database.write() as connection:
        connection.execute(text("DELETE FROM oauth_guard_evidence"))


# -- the guards of the upgraded store -------------------------------------------------------------------------------

EVIDENCE, TRANSITIONS = "oauth_guard_evidence", "oauth_guard_transitions"


def ago(**duration: float) -> datetime:
    return datetime.now(timezone.utc) - timedelta(**duration)


@pytest.fixture(params=[None, *RELEASES], ids=lambda path: path.stem if path else "new")
def guarded(request: pytest.FixtureRequest, url: URL, open_store: Callable[..., Store]) -> Store:
    """A store that was made by this release, or by an earlier one and upgraded; with one credential ``crm``."""
    from .making import enrolled

    if request.param:
        load(url, request.param)
    store = open_store()
    enrolled(store)
    return store


@pytest.fixture
def sql(guarded: Store) -> RawSql:
    return RawSql(guarded)


def seen(store: Store, at: datetime) -> int:
    kept = planted(store, store.credentials.get("crm"), refusal(now=at))
    assert kept.id is not None
    return kept.id


def test_only_evidence_older_than_thirty_days_can_be_deleted(guarded: Store, sql: RawSql) -> None:
    old, young, new = (
        seen(guarded, ago(days=30, minutes=1)),
        seen(guarded, ago(days=29, hours=23)),
        seen(guarded, ago()),
    )
    for kept in (young, new):
        sql.is_refused(f"DELETE FROM {EVIDENCE} WHERE id = {kept}", because="append-only")
    sql.is_refused(f"DELETE FROM {EVIDENCE} WHERE id IN ({old}, {young})", because="append-only")
    sql.run(f"DELETE FROM {EVIDENCE} WHERE id = {old}")
    assert old not in {row["id"] for row in sql.rows(EVIDENCE)}


def test_old_evidence_can_be_deleted_but_not_rewritten(guarded: Store, sql: RawSql) -> None:
    old = seen(guarded, ago(days=400))
    sql.is_refused(f"UPDATE {EVIDENCE} SET verdict = 'live' WHERE id = {old}", because="append-only")
    sql.is_refused(f"UPDATE {EVIDENCE} SET observed_at = '2020-01-01' WHERE id = {old}", because="append-only")


def test_young_evidence_cannot_be_made_old(guarded: Store, sql: RawSql) -> None:
    young = seen(guarded, ago(days=1))
    sql.is_refused(
        f"UPDATE {EVIDENCE} SET observed_at = '2020-01-01 00:00:00' WHERE id = {young}", because="append-only"
    )


SESSION_SETTINGS = {
    "sqlite": ("PRAGMA foreign_keys = ON",),
    "postgresql": ("SET TIME ZONE 'Pacific/Kiritimati'", "SET TIME ZONE 'Pacific/Pago_Pago'"),
    "mysql": ("SET time_zone = '+13:00'", "SET time_zone = '-11:00'", "SET timestamp = 4000000000"),
}
"""What a session may say about time; SQLite's can say nothing."""


def test_a_sessions_own_clock_and_time_zone_do_not_count(guarded: Store) -> None:
    old, young = seen(guarded, ago(days=30, minutes=10)), seen(guarded, ago(days=29, hours=23, minutes=50))
    engine = guarded.database.engine
    for setting in SESSION_SETTINGS[_family(engine)]:
        with engine.connect() as connection:
            connection.exec_driver_sql(setting)
            with pytest.raises(DBAPIError, match="append-only"):
                connection.exec_driver_sql(f"DELETE FROM {EVIDENCE} WHERE id = {young}")
            connection.rollback()
            connection.exec_driver_sql(setting)
            assert connection.exec_driver_sql(f"DELETE FROM {EVIDENCE} WHERE id = {old}").rowcount == 1
            connection.rollback()
            # Not to be used again: the setting stays with it.
            connection.invalidate()


def test_transitions_stay_whatever_their_age(guarded: Store, sql: RawSql) -> None:
    proof = seen(guarded, ago(days=400))
    sql.run(
        f"INSERT INTO {TRANSITIONS} (credential_id, from_status, to_status, evidence_id, reason, became_true_at, "
        "written_at) VALUES (:credential, 'active', 'lapsed', :proof, 'because', '2020-01-01 00:00:00', "
        "'2020-01-01 00:00:00')",
        credential=guarded.credentials.get("crm").id,
        proof=proof,
    )
    sql.is_refused(f"DELETE FROM {TRANSITIONS}", because="append-only")
    sql.is_refused(f"UPDATE {TRANSITIONS} SET reason = 'no reason'", because="append-only")
    sql.is_refused(f"DELETE FROM {EVIDENCE} WHERE id = {proof}", because="append-only|foreign key|FOREIGN KEY")


def test_old_evidence_stays_while_an_investigation_names_it(guarded: Store, sql: RawSql) -> None:
    opening, conclusion = seen(guarded, ago(days=400)), seen(guarded, ago(days=399))
    sql.run(
        "INSERT INTO oauth_guard_investigations (credential_id, generation, opened_at, opening_evidence_id, "
        "conclusion_evidence_id) VALUES (:credential, 1, '2020-01-01 00:00:00', :opening, :conclusion)",
        credential=guarded.credentials.get("crm").id,
        opening=opening,
        conclusion=conclusion,
    )
    for kept in (opening, conclusion):
        sql.is_refused(f"DELETE FROM {EVIDENCE} WHERE id = {kept}", because="append-only|foreign key|FOREIGN KEY")


def test_old_evidence_cannot_be_replaced_or_truncated(guarded: Store, sql: RawSql) -> None:
    old = seen(guarded, ago(days=400))
    if sql.dialect == "postgresql":
        sql.is_refused(f"TRUNCATE {EVIDENCE} CASCADE", because="append-only")
        return
    row = next(row for row in sql.rows(EVIDENCE) if row["id"] == old)
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    replacing = f"REPLACE INTO {EVIDENCE} ({columns}) VALUES ({values})"
    if sql.dialect == "sqlite":
        sql.is_refused(replacing, because="append-only", **row)
    else:
        # REPLACE is a DELETE and an INSERT there, and both are allowed: it gives no more than they do.
        sql.run(replacing, **row)


def test_the_revision_that_a_store_is_opened_at_is_the_newest_there_is():
    assert ScriptDirectory.from_config(_alembic_config()).get_current_head() == NEWEST
