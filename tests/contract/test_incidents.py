"""Incidents: opened once, told once, over only when something shows that they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from airflow_oauth_guard.domain.incidents import RENOTIFY_AFTER, About, IncidentKind
from airflow_oauth_guard.errors import StoreUnavailableError
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.store import Store

from .conftest import RawSql
from .making import NOW, THREADS, after, at_once

FLAT = Symptom(
    about=About.SOURCE,
    name="orders",
    kind=IncidentKind.FLAT,
    summary="It ran and moved 0 rows.",
    opened_at=after(hours=-5),
    owner="the owner of orders",
    signature="abc",
    alert_route="orders-owners",
    escalates_at=after(hours=5),
)


def test_an_incident_comes_back_as_it_was_opened(store: Store) -> None:
    incident = store.incidents.open(FLAT, NOW)
    for name in ("about", "name", "kind", "summary", "opened_at", "owner", "signature", "alert_route", "escalates_at"):
        assert getattr(incident, name) == getattr(FLAT, name), name
    assert incident.noticed_at == NOW
    assert (incident.first_notified_at, incident.last_notified_at, incident.resolved_at) == (None, None, None)
    assert store.incidents.open_about(About.SOURCE, "orders") == incident


def test_opening_twice_is_one_incident_whose_dates_stay(store: Store) -> None:
    first = store.incidents.open(FLAT, NOW)
    assert store.incidents.claim_telling(first, NOW)
    again = store.incidents.open(replace(FLAT, summary="Still 0 rows.", opened_at=after(hours=1)), after(hours=2))
    assert again.summary == "Still 0 rows."
    assert (again.id, again.opened_at, again.noticed_at) == (first.id, first.opened_at, NOW)
    assert again.last_notified_at == NOW, "people were told, and nothing new is wrong"
    assert store.incidents.history(About.SOURCE, "orders") == [again]


def test_eight_checkers_that_open_an_incident_at_once_open_one(open_store: Callable[..., Store], raw: RawSql) -> None:
    stores = [open_store() for _ in range(THREADS)]
    opened = at_once([lambda store=store: store.incidents.open(FLAT, NOW) for store in stores])
    assert len({incident.id for incident in opened}) == 1
    assert len(raw.rows("oauth_guard_incidents")) == 1


def test_an_incident_is_never_dated_in_the_future(store: Store) -> None:
    assert store.incidents.open(replace(FLAT, opened_at=after(hours=1)), NOW).opened_at == NOW


def test_incidents_about_other_things_stay_apart(store: Store) -> None:
    symptoms = [FLAT, replace(FLAT, name="Orders"), replace(FLAT, about=About.CREDENTIAL)]
    opened = [store.incidents.open(symptom, NOW) for symptom in symptoms]
    assert len({incident.id for incident in opened}) == 3
    assert len(store.incidents.open_ones(About.SOURCE)) == 2
    store.incidents.resolve(About.SOURCE, "orders", "rows arrived", NOW)
    assert {incident.id for incident in store.incidents.open_ones()} == {opened[1].id, opened[2].id}


def test_the_right_to_tell_is_taken_once_among_eight_checkers(store: Store, open_store: Callable[..., Store]) -> None:
    incident = store.incidents.open(FLAT, NOW)
    stores = [open_store() for _ in range(THREADS)]
    claims = at_once([lambda one=one: one.incidents.claim_telling(incident, NOW) for one in stores])
    assert sorted(claims) == [False] * (THREADS - 1) + [True]


def test_an_incident_is_told_again_after_a_day_and_not_before(store: Store) -> None:
    incident = store.incidents.open(FLAT, NOW)
    assert store.incidents.claim_telling(incident, NOW)
    assert not store.incidents.claim_telling(incident, NOW + RENOTIFY_AFTER - timedelta(microseconds=1))
    assert store.incidents.claim_telling(incident, NOW + RENOTIFY_AFTER)
    told = store.incidents.open_about(About.SOURCE, "orders")
    assert told is not None
    assert (told.first_notified_at, told.last_notified_at) == (NOW, NOW + RENOTIFY_AFTER)


def test_an_alert_that_could_not_be_sent_is_still_to_be_told(store: Store) -> None:
    incident = store.incidents.open(FLAT, NOW)
    assert store.incidents.claim_telling(incident, NOW)
    store.incidents.give_telling_back(incident)
    current = store.incidents.open_about(About.SOURCE, "orders")
    assert current is not None
    assert current.is_to_be_told(NOW)
    assert store.incidents.claim_telling(current, NOW)


def test_an_alert_that_could_not_be_sent_counts_as_told_to_nobody(store: Store) -> None:
    incident = store.incidents.open(FLAT, NOW)
    assert store.incidents.claim_telling(incident, NOW)
    store.incidents.give_telling_back(incident)
    current = store.incidents.open_about(About.SOURCE, "orders")
    assert current is not None
    assert current.first_notified_at is None


def test_another_kind_of_wrong_is_told_anew_though_people_were_told_today(store: Store) -> None:
    incident = store.incidents.open(FLAT, NOW)
    assert store.incidents.claim_telling(incident, NOW)
    worse = store.incidents.open(replace(FLAT, kind=IncidentKind.LATE), after(minutes=1))
    assert (worse.id, worse.kind) == (incident.id, IncidentKind.LATE)
    assert worse.is_to_be_told(after(minutes=1))
    assert store.incidents.claim_telling(worse, after(minutes=1))


def test_a_resolved_incident_is_no_longer_open_nor_told(store: Store, raw: RawSql) -> None:
    incident = store.incidents.open(FLAT, NOW)
    resolved = store.incidents.resolve(About.SOURCE, "orders", "rows arrived", after(hours=1))
    assert resolved is not None
    assert resolved.id == incident.id
    assert store.incidents.open_ones() == []
    assert store.incidents.open_about(About.SOURCE, "orders") is None
    assert not store.incidents.claim_telling(incident, after(hours=2))
    [row] = raw.rows("oauth_guard_incidents")
    assert row["resolution"] == "rows arrived"
    [kept] = store.incidents.history(About.SOURCE, "orders")
    assert kept.resolved_at == after(hours=1)


def test_resolving_what_is_not_open_changes_nothing(store: Store, raw: RawSql) -> None:
    assert store.incidents.resolve(About.SOURCE, "orders", "rows arrived", NOW) is None
    store.incidents.open(FLAT, NOW)
    store.incidents.resolve(About.SOURCE, "orders", "rows arrived", after(hours=1))
    before = raw.rows("oauth_guard_incidents")
    assert store.incidents.resolve(About.SOURCE, "orders", "once more", after(hours=2)) is None
    assert raw.rows("oauth_guard_incidents") == before


def test_eight_checkers_that_resolve_an_incident_at_once_resolve_it_once(
    store: Store, open_store: Callable[..., Store], raw: RawSql
) -> None:
    store.incidents.open(FLAT, NOW)
    stores = [open_store() for _ in range(THREADS)]

    def resolve(checker: int) -> None:
        stores[checker].incidents.resolve(About.SOURCE, "orders", f"seen by {checker}", after(hours=checker))

    at_once([lambda n=n: resolve(n) for n in range(THREADS)])
    [row] = raw.rows("oauth_guard_incidents")
    [kept] = store.incidents.history(About.SOURCE, "orders")
    assert kept.resolved_at == after(hours=int(row["resolution"].removeprefix("seen by "))), "half of each of two"
    assert row["open_for"] is None


TURNS = 25


def test_checkers_that_open_and_resolve_at_once_each_get_an_incident(open_store: Callable[..., Store]) -> None:
    """One sees an incident that the next has resolved before it can bring it up to date."""
    stores = [open_store() for _ in range(THREADS)]

    def check(checker: int) -> None:
        one = stores[checker].incidents
        for turn in range(TURNS):
            try:
                if (checker + turn) % 2:
                    one.resolve(About.SOURCE, "orders", f"seen by {checker}", NOW)
                else:
                    assert one.open(FLAT, NOW).name == "orders"
            except StoreUnavailableError:
                # MariaDB ends one of two transactions that wait for each other; its caller may try again.
                pass

    at_once([lambda n=n: check(n) for n in range(THREADS)])
    history = stores[0].incidents.history(About.SOURCE, "orders")
    assert len([incident for incident in history if incident.resolved_at is None]) <= 1


def test_what_goes_wrong_again_after_it_was_resolved_is_a_new_incident(store: Store) -> None:
    first = store.incidents.open(FLAT, NOW)
    store.incidents.claim_telling(first, NOW)
    store.incidents.resolve(About.SOURCE, "orders", "rows arrived", after(hours=1))
    second = store.incidents.open(replace(FLAT, opened_at=after(hours=2)), after(hours=2))
    assert second.id != first.id
    assert second.is_to_be_told(after(hours=2))
    assert [incident.id for incident in store.incidents.history(About.SOURCE, "orders")] == [first.id, second.id]


def test_the_database_refuses_two_open_incidents_about_one_thing(store: Store, raw: RawSql) -> None:
    store.incidents.open(FLAT, NOW)
    other = store.incidents.open(replace(FLAT, name="clicks"), NOW)
    raw.is_refused(
        f"UPDATE oauth_guard_incidents SET open_for = 'source/orders' WHERE id = {other.id}",
        because="(?i)unique|duplicate",
    )


def test_open_incidents_are_listed_oldest_first(store: Store) -> None:
    store.incidents.open(replace(FLAT, name="late", opened_at=after(hours=-1)), NOW)
    store.incidents.open(replace(FLAT, name="early", opened_at=after(hours=-9)), NOW)
    assert [incident.name for incident in store.incidents.open_ones()] == ["early", "late"]
