"""The roster as people read it: which, in which order, with what was seen last, in a constant number of queries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select, update

from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Subject, Verdict, as_columns
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.reach import NAMED, Names, Reach
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError, NotRegisteredError
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.roster import NAMED_ON_ITS_PAGE, SORTS, RosterQuery
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import credentials, evidence, statuses, tokens

from .conftest import Place, SqlitePlace
from .making import NOW, after, dead, enrolled, expired, planted, refusal, renewed, success

PROBE = Evidence(
    Kind.PROBE, 1, NOW, Reading(Subject.ACCESS_TOKEN, Finding.LIVE, "probe_answered", "it answered"), Verdict.LIVE
)
TROUBLE = Symptom(About.CREDENTIAL, "crm", IncidentKind.UNKNOWN, "It fails.", NOW)


def names(store: Store, now: datetime = NOW, **query: Any) -> list[str]:
    return [line.credential.conn_id for line in store.roster.page(RosterQuery(**query), now).rows]


def living(store: Store, conn_id: str, **life: timedelta) -> None:
    """With a token that has so long to live."""
    credential = enrolled(store, conn_id)
    with store.database.write() as connection:
        ends = NOW + timedelta(**life)
        connection.execute(update(tokens).where(tokens.c.credential_id == credential.id).values(expires_at=ends))


# -- one line ---------------------------------------------------------------------------------------------------------


def test_a_line_says_all_that_is_known_of_a_credential(store: Store) -> None:
    enrolled(store)
    credential = renewed(store)
    store.credentials.record(credential, replace(PROBE, generation=2, observed_at=after(minutes=3)), NOW)
    incident = store.incidents.open(TROUBLE, NOW)
    store.sources.declare(Source("orders", timedelta(hours=1), credential="crm"), NOW)
    store.sources.beat("orders", 5, NOW, Observer("load_orders", "run", "load", -1, 1))
    store.sources.declare(Source("contacts", timedelta(hours=1), credential="crm"), NOW)
    store.sources.declare(Source("other", timedelta(hours=1), credential="erp"), NOW)
    line = store.roster.one("crm", NOW)
    assert line.credential == store.credentials.get("crm")
    assert line.incident == incident
    assert line.reach == Reach(dags=Names(("load_orders",), 1), sources=Names(("contacts", "orders"), 2))
    assert (line.refreshed_at, line.probed_at) == (NOW, after(minutes=3))
    assert [(seen.kind, seen.subject) for seen in line.latest] == [
        (Kind.PROBE, Subject.ACCESS_TOKEN),
        (Kind.REFRESH, Subject.GRANT),
    ]
    assert store.roster.page(RosterQuery(), NOW).rows == [line]


def test_a_new_credential_has_a_line_too(store: Store) -> None:
    enrolled(store)
    line = store.roster.one("crm", NOW)
    assert (line.incident, line.latest, line.reach) == (None, (), Reach())
    assert (line.refreshed_at, line.probed_at, line.is_in_trouble) == (None, None, False)


def test_a_name_that_the_store_has_never_seen_has_none(store: Store) -> None:
    enrolled(store)
    assert store.roster.find("CRM", NOW) is None
    with pytest.raises(NotRegisteredError, match="`CRM`"):
        store.roster.one("CRM", NOW)


def test_the_newest_of_each_kind_and_subject_is_shown_whatever_its_time_says(store: Store) -> None:
    credential = enrolled(store)
    old = [planted(store, credential, success(now=after(minutes=n))) for n in (1, 9, 3)]
    client = Reading(Subject.CLIENT, Finding.CLIENT_MISCONFIGURED, "error_code", "invalid_client")
    refused = planted(store, credential, replace(refusal(), reading=client))
    control = planted(store, credential, replace(refusal(), kind=Kind.CONTROL))
    planted(store, enrolled(store, "erp"), success())
    assert store.roster.one("crm", NOW).latest == (control, refused, old[-1])


def test_a_resolved_incident_and_one_about_another_thing_are_not_shown(store: Store) -> None:
    enrolled(store)
    store.incidents.open(TROUBLE, NOW)
    store.incidents.resolve(About.CREDENTIAL, "crm", "it answered", NOW)
    store.incidents.open(replace(TROUBLE, about=About.SOURCE), NOW)
    store.incidents.open(replace(TROUBLE, name="CRM"), NOW)
    line = store.roster.one("crm", NOW)
    assert (line.incident, line.is_in_trouble) == (None, False)


def test_of_many_sources_a_few_are_named_and_all_are_counted(store: Store) -> None:
    enrolled(store)
    for number in range(NAMED_ON_ITS_PAGE + 3):
        store.sources.declare(Source(f"source_{number:02}", timedelta(hours=1), credential="crm"), NOW)
    [line] = store.roster.page(RosterQuery(), NOW).rows
    names = tuple(f"source_{number:02}" for number in range(NAMED_ON_ITS_PAGE + 3))
    assert line.reach.sources == Names(names[:NAMED], len(names))
    assert store.roster.one("crm", NOW).reach.sources == Names(names[:NAMED_ON_ITS_PAGE], len(names))


# -- which ------------------------------------------------------------------------------------------------------------


def test_a_search_finds_parts_of_names_whatever_their_case_and_takes_wildcards_for_characters(store: Store) -> None:
    for conn_id in ("crm_prod", "CRM-test", "100%", "a/b", "crmXprod"):
        enrolled(store, conn_id)
    assert names(store, sort="conn_id", search="crm") == sorted(("crm_prod", "CRM-test", "crmXprod"))
    assert names(store, search="CRM_P") == ["crm_prod"]
    assert names(store, search="%") == ["100%"]
    assert names(store, search="/") == ["a/b"]
    assert names(store, search="nobody") == []


def test_filters_are_taken_together(store: Store) -> None:
    enrolled(store, "a", provider="hubspot")
    enrolled(store, "b", provider="hubspot", connection_class="jwt_bearer")
    enrolled(store, "c", provider="salesforce")
    expired(store, "c")
    store.incidents.open(replace(TROUBLE, name="b"), NOW)
    assert names(store, provider="hubspot") == ["b", "a"]
    assert names(store, connection_class="jwt_bearer") == ["b"]
    assert names(store, status=Status.EXPIRED) == ["c"]
    assert names(store, status=Status.LAPSED) == []
    assert names(store, trouble=True) == ["b", "c"]
    assert names(store, trouble=True, provider="hubspot") == ["b"]
    assert store.roster.page(RosterQuery(trouble=True, limit=1), NOW).total == 2


def test_there_is_nothing_but_what_there_is_to_choose_from(store: Store) -> None:
    assert store.roster.choices().providers == ()
    enrolled(store, "a", provider="hubspot")
    enrolled(store, "b", provider="hubspot", connection_class="jwt_bearer")
    enrolled(store, "c")
    choices = store.roster.choices()
    assert (choices.classes, choices.providers) == (("jwt_bearer", "refresh_token"), ("hubspot",))


def test_the_statuses_are_counted_and_who_is_in_trouble(store: Store) -> None:
    assert store.roster.counts() == {"active": 0, "lapsed": 0, "expired": 0, "trouble": 0}
    for conn_id in ("a", "b", "c", "d"):
        enrolled(store, conn_id)
    expired(store, "a")
    store.credentials.record(store.credentials.get("b"), dead(Status.LAPSED), NOW)
    for conn_id in ("a", "c"):
        store.incidents.open(replace(TROUBLE, name=conn_id), NOW)
    assert store.roster.counts() == {"active": 2, "lapsed": 1, "expired": 1, "trouble": 3}


# -- in which order ---------------------------------------------------------------------------------------------------


def test_trouble_comes_first_and_then_the_least_life(store: Store) -> None:
    living(store, "long", hours=9)
    living(store, "short", hours=1)
    living(store, "over", hours=-1)
    living(store, "incident", hours=8)
    living(store, "expired", hours=7)
    enrolled(store, "unknown")
    store.incidents.open(replace(TROUBLE, name="incident"), NOW)
    expired(store, "expired")
    in_order = ["expired", "incident", "over", "unknown", "short", "long"]
    assert names(store) == in_order
    assert names(store, descending=True) == in_order[::-1]
    assert names(store, after(hours=8, minutes=30)) == ["expired", "incident", "over", "short", "unknown", "long"]


def test_the_life_of_a_token_whose_end_was_never_told_is_the_assumed_one(store: Store) -> None:
    for conn_id, minutes in (("new", 0), ("old", -61)):
        credential = enrolled(store, conn_id)
        with store.database.write() as connection:
            of_it = update(tokens).where(tokens.c.credential_id == credential.id)
            connection.execute(of_it.values(issued_at=after(minutes=minutes)))
    living(store, "ends", minutes=59)
    assert names(store) == ["old", "ends", "new"]
    assert names(store, sort="lapses") == ["ends", "old", "new"], "known ends first"
    assert names(store, sort="lapses", descending=True) == ["ends", "new", "old"]


def test_every_order_is_total_and_turned_around_by_descending(store: Store) -> None:
    for number, conn_id in enumerate(("b", "C", "a")):
        enrolled(store, conn_id, connection_class=f"class_{3 - number}")
        renewed(store, conn_id, now=after(minutes=number))
    expired(store, "b")
    store.credentials.record(store.credentials.get("a"), dead(Status.LAPSED, 2), NOW)
    assert names(store, sort="conn_id") == ["C", "a", "b"]
    assert names(store, sort="status") == ["C", "a", "b"]
    assert names(store, sort="class") == ["a", "C", "b"]
    assert names(store, sort="refreshed") == ["b", "C", "a"]
    assert names(store, sort="lapses") == ["b", "C", "a"]
    for sort in SORTS:
        assert names(store, sort=sort, descending=True) == names(store, sort=sort)[::-1]


def test_equals_are_in_order_of_their_names(store: Store) -> None:
    for conn_id in ("b", "c", "a"):
        enrolled(store, conn_id)
    for sort in SORTS:
        assert names(store, sort=sort) == ["a", "b", "c"]


def test_what_was_never_refreshed_comes_last_either_way(store: Store) -> None:
    enrolled(store, "never")
    enrolled(store, "lately")
    renewed(store, "lately")
    for descending in (False, True):
        assert names(store, sort="refreshed", descending=descending) == ["lately", "never"]
        assert names(store, sort="lapses", descending=descending) == ["lately", "never"]


def test_an_order_that_there_is_not_is_refused(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="cannot be sorted by `colour`; use one of trouble, conn_id"):
        names(store, sort="colour")


def test_pages_follow_each_other_and_say_how_many_there_are(store: Store) -> None:
    for number in range(7):
        enrolled(store, f"crm_{number}")
    pages = [store.roster.page(RosterQuery(sort="conn_id", limit=3, offset=at), NOW) for at in (0, 3, 6, 9)]
    assert [len(page.rows) for page in pages] == [3, 3, 1, 0]
    assert {page.total for page in pages} == {7}
    found = [line.credential.conn_id for page in pages for line in page.rows]
    assert found == [f"crm_{number}" for number in range(7)]


# -- at a size --------------------------------------------------------------------------------------------------------


@contextmanager
def reads(engine: Engine) -> Iterator[list[str]]:
    """Every query that is sent."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.lstrip().startswith("SELECT"):
            sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def _many(store: Store, count: int) -> None:
    """So many credentials, each with some evidence, and every twentieth with a source and an incident."""
    enrolled(store, "template")
    looks = (success(), PROBE, replace(refusal(), kind=Kind.CONTROL))
    with store.database.write() as connection:

        def template(table: Any) -> dict[str, Any]:
            row = connection.execute(select(table).limit(1)).mappings().one()
            return {name: value for name, value in row.items() if name not in ("id", "credential_id", "conn_id")}

        of_all = {table: template(table) for table in (credentials, tokens, statuses)}
        many = [{**of_all[credentials], "conn_id": f"many_{number}"} for number in range(count)]
        connection.execute(insert(credentials), many)
        named = select(credentials.c.id).where(credentials.c.conn_id.startswith("many_"))
        ids = connection.execute(named).scalars().all()
        for table in (tokens, statuses):
            connection.execute(insert(table), [{**of_all[table], "credential_id": number} for number in ids])
        rows = [{**as_columns(look), "credential_id": number} for number in ids for look in looks]
        connection.execute(insert(evidence), rows)
    for number in range(0, count, count // 20):
        store.incidents.open(replace(TROUBLE, name=f"many_{number}"), NOW)
        store.sources.declare(Source(f"source_{number}", timedelta(hours=1), credential=f"many_{number}"), NOW)


def test_a_page_of_many_takes_as_many_queries_as_a_page_of_few(store: Store, place: Place) -> None:
    count = 10_000 if isinstance(place, SqlitePlace) else 500
    numbers = []
    for added in (0, count):
        if added:
            _many(store, added)
        else:
            enrolled(store)
        with reads(store.database.engine) as sent:
            page = store.roster.page(RosterQuery(), NOW)
        numbers.append(len(sent))
    assert page.total == count + 2
    assert len(page.rows) == 50
    assert sum(line.incident is not None and line.reach.sources.count == 1 for line in page.rows) == 20
    assert sum(len(line.latest) == 3 for line in page.rows) >= 48
    assert numbers[0] == numbers[1] <= 5


@contextmanager
def work(engine: Engine) -> Iterator[list[int]]:
    """One entry for every ten instructions of SQLite's own machine: what a query costs, whatever else the computer does."""
    done: list[int] = []

    def watch(connection: Any, *_more: Any) -> None:
        connection.set_progress_handler(lambda: done.append(1), 10)

    event.listen(engine, "checkout", watch)
    yield done
    event.remove(engine, "checkout", watch)


def test_a_long_history_costs_a_page_nothing(store: Store, place: Place) -> None:
    if not isinstance(place, SqlitePlace):
        pytest.skip("only SQLite tells what a query costs")
    credential = enrolled(store)
    costs = []
    for length in (10, 5000):
        with store.database.write() as connection:
            rows = [{**as_columns(look), "credential_id": credential.id} for look in (success(), PROBE)]
            connection.execute(insert(evidence), rows * length)
        newest = planted(store, credential, success(now=after(hours=1)))
        with work(store.database.engine) as done:
            line = store.roster.page(RosterQuery(), NOW).rows[0]
        assert line.latest[0] == newest
        costs.append(len(done))
    assert costs[1] < costs[0] * 1.1
