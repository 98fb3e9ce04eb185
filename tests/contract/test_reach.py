"""Whom credentials and clients feed: who used them lately, and the sources that name them."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.reach import COUNTED_FOR, NAMED, OWN_DAGS, Names, Reach
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.reach import AT_ONCE
from airflow_oauth_guard.store.store import Store

from .making import NOW, enrolled


def uses(store: Store, conn_id: str, dag_id: str, task_id: str = "load", at: datetime = NOW) -> None:
    store.consumers.note(store.credentials.get(conn_id).id, dag_id, task_id, at)


def feeds(store: Store, conn_id: str, source: str, dag_id: str | None = None) -> None:
    store.sources.declare(Source(source, timedelta(hours=1), credential=conn_id), NOW)
    if dag_id:
        store.sources.beat(source, 5, NOW, Observer(dag_id, "run", "load", -1, 1))


def reach(store: Store, conn_id: str = "crm", now: datetime = NOW) -> Reach:
    return store.reaches.of([conn_id], now)[conn_id]


def names(*of: str) -> Names:
    return Names(of, len(of))


def test_it_is_the_dags_that_use_it_or_speak_for_its_sources_each_once(store: Store) -> None:
    enrolled(store)
    uses(store, "crm", "sync")
    uses(store, "crm", "load", "first")
    uses(store, "crm", "load", "second")
    feeds(store, "crm", "orders", "load")
    feeds(store, "crm", "contacts", "contacts")
    feeds(store, "crm", "deals")
    assert reach(store) == Reach(names("contacts", "load", "sync"), names("contacts", "deals", "orders"))


def test_what_others_use_is_theirs(store: Store) -> None:
    enrolled(store)
    enrolled(store, "erp")
    uses(store, "erp", "invoices")
    feeds(store, "erp", "invoices", "invoices")
    assert reach(store) == Reach()
    assert store.reaches.of(["crm", "erp"], NOW) == {"crm": Reach(), "erp": Reach(names("invoices"), names("invoices"))}


def test_who_has_not_used_it_for_long_is_no_consumer_any_more(store: Store) -> None:
    enrolled(store)
    uses(store, "crm", "monthly")
    assert reach(store, now=NOW + COUNTED_FOR).dags == names("monthly")
    later = NOW + COUNTED_FOR + timedelta(seconds=1)
    assert reach(store, now=later) == Reach()
    assert store.consumers.of(["crm"], later) == {}
    uses(store, "crm", "monthly", at=later)
    assert reach(store, now=later).dags == names("monthly")


def test_the_guards_own_dags_are_no_consumers(store: Store) -> None:
    enrolled(store)
    for dag_id in OWN_DAGS:
        uses(store, "crm", dag_id)
    feeds(store, "crm", "orders", min(OWN_DAGS))
    assert reach(store) == Reach(sources=names("orders"))
    assert store.consumers.of(["crm"], NOW) == {}


def test_of_many_a_few_are_named_and_all_are_counted(store: Store) -> None:
    enrolled(store)
    for number in range(NAMED + 3):
        uses(store, "crm", f"load_{number}")
    assert reach(store).dags == Names(tuple(f"load_{number}" for number in range(NAMED)), NAMED + 3)


def test_a_connection_that_the_store_does_not_know_feeds_the_sources_that_name_it(store: Store) -> None:
    feeds(store, "not enrolled", "orders", "load")
    assert reach(store, "not enrolled") == Reach(names("load"), names("orders"))


def test_more_than_one_statement_can_name_are_looked_up_all_the_same(store: Store) -> None:
    enrolled(store)
    uses(store, "crm", "load")
    found = store.reaches.of([*(f"other_{number}" for number in range(2 * AT_ONCE)), "crm"], NOW)
    assert len(found) == 2 * AT_ONCE + 1
    assert found["crm"].dags == names("load")


def opened(store: Store, about: About, name: str) -> None:
    store.incidents.open(Symptom(about, name, IncidentKind.UNKNOWN, "It fails.", NOW), NOW)


def test_an_incident_is_told_with_whom_its_credential_or_its_client_feeds(store: Store) -> None:
    one, other = enrolled(store), enrolled(store, "crm_2")
    assert one.client_name == other.client_name
    uses(store, "crm", "load")
    uses(store, "crm_2", "load")
    uses(store, "crm_2", "sync")
    feeds(store, "crm_2", "orders")
    opened(store, About.CREDENTIAL, "crm")
    opened(store, About.CLIENT, one.client_name)
    opened(store, About.SOURCE, "crm")
    kept = store.incidents.open_ones()
    told = {incident.about: incident.reach for incident in store.reaches.told(kept, NOW)}
    assert told == {
        About.CREDENTIAL: Reach(names("load")),
        About.CLIENT: Reach(names("load", "sync"), names("orders")),
        About.SOURCE: None,
    }
    assert [incident.reach for incident in store.incidents.open_ones()] == [None, None, None], "it is not kept"


def test_a_client_whose_name_begins_alike_is_another(store: Store) -> None:
    short, long = enrolled(store, "crm", client_key="abc"), enrolled(store, "erp", client_key="abcdef")
    uses(store, "crm", "load")
    uses(store, "erp", "invoices")
    for credential in (short, long):
        opened(store, About.CLIENT, credential.client_name)
    told = {incident.name: incident.reach for incident in store.reaches.told(store.incidents.open_ones(), NOW)}
    assert told == {"abc": Reach(names("load")), "abcdef": Reach(names("invoices"))}
