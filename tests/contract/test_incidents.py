"""Incidents: opened once, told once, over only when something shows that they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from airflow_oauth_guard.domain.incidents import (
    RENOTIFY_AFTER,
    RENOTIFY_SOON_AFTER,
    About,
    Incident,
    IncidentKind,
    Phase,
)
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.errors import StoreUnavailableError
from airflow_oauth_guard.store.incidents import EXPECTED_FOR, Symptom
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


def now_open(store: Store, about: About = About.SOURCE, name: str = "orders") -> Incident:
    incident = store.incidents.open_about(about, name)
    assert incident is not None
    return incident


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


def test_a_source_is_told_again_after_four_hours_then_daily_and_not_before(store: Store) -> None:
    store.incidents.open(FLAT, NOW)
    told_at = NOW
    for pause in (timedelta(), RENOTIFY_SOON_AFTER, RENOTIFY_AFTER, RENOTIFY_AFTER):
        told_at += pause
        if pause:
            assert not store.incidents.claim_telling(now_open(store), told_at - timedelta(microseconds=1))
        assert store.incidents.claim_telling(now_open(store), told_at)
    told = now_open(store)
    assert (told.first_notified_at, told.last_notified_at, told.times_told) == (NOW, told_at, 4)


def test_a_credential_is_told_daily(store: Store) -> None:
    store.incidents.open(replace(FLAT, about=About.CREDENTIAL), NOW)
    assert store.incidents.claim_telling(now_open(store, About.CREDENTIAL), NOW)
    told = now_open(store, About.CREDENTIAL)
    assert not store.incidents.claim_telling(told, NOW + RENOTIFY_AFTER - timedelta(microseconds=1))
    assert store.incidents.claim_telling(told, NOW + RENOTIFY_AFTER)


def test_a_checker_that_read_the_incident_before_it_was_told_tells_nothing(store: Store) -> None:
    read_before = store.incidents.open(FLAT, NOW)
    assert store.incidents.claim_telling(read_before, NOW)
    assert not store.incidents.claim_telling(read_before, NOW + 2 * RENOTIFY_AFTER)


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


# -- what people say --------------------------------------------------------------------------------------------------


def test_nobody_is_told_again_of_what_somebody_is_on(store: Store) -> None:
    opened = store.incidents.open(FLAT, NOW)
    assert store.incidents.claim_telling(opened, NOW)
    acknowledged = store.incidents.acknowledge(About.SOURCE, "orders", "kim", after(hours=1))
    assert acknowledged is not None
    assert (acknowledged.phase, acknowledged.acknowledged_by) == (Phase.ACKNOWLEDGED, "kim")
    assert acknowledged.acknowledged_at == after(hours=1)
    assert not acknowledged.is_to_be_told(after(days=9))
    assert not store.incidents.claim_telling(acknowledged, after(days=9))
    assert not store.incidents.claim_escalation(acknowledged, after(days=9))


def test_it_stays_acknowledged_while_the_same_is_wrong(store: Store) -> None:
    store.incidents.open(FLAT, NOW)
    store.incidents.acknowledge(About.SOURCE, "orders", "kim", after(hours=1))
    assert store.incidents.open(replace(FLAT, summary="Still 0 rows."), after(hours=2)).phase is Phase.ACKNOWLEDGED


def test_the_first_to_acknowledge_it_is_remembered(store: Store) -> None:
    store.incidents.open(FLAT, NOW)
    store.incidents.acknowledge(About.SOURCE, "orders", "kim", after(hours=1))
    again = store.incidents.acknowledge(About.SOURCE, "orders", "lou", after(hours=2))
    assert again is not None
    assert (again.acknowledged_by, again.acknowledged_at) == ("kim", after(hours=1))


def test_another_kind_of_wrong_is_nobody_s_yet_and_told_and_escalated_from_the_beginning(store: Store) -> None:
    opened = store.incidents.open(FLAT, NOW)
    assert store.incidents.claim_telling(opened, NOW)
    assert store.incidents.claim_escalation(opened, after(days=1))
    store.incidents.acknowledge(About.SOURCE, "orders", "kim", after(days=2))
    worse = store.incidents.open(replace(FLAT, kind=IncidentKind.LATE), after(days=3))
    assert (worse.phase, worse.acknowledged_by, worse.times_told) == (Phase.OPEN, "", 0)
    assert (worse.first_notified_at, worse.escalated_at) == (None, None)
    assert worse.is_to_be_told(after(days=3))


def test_what_nobody_was_on_keeps_its_clock_when_its_kind_changes(store: Store) -> None:
    """Or a source that is late and flat in turn would never escalate."""
    assert store.incidents.claim_telling(store.incidents.open(FLAT, NOW), NOW)
    worse = store.incidents.open(replace(FLAT, kind=IncidentKind.LATE), after(hours=20))
    assert worse.first_notified_at == NOW
    assert worse.is_to_be_escalated(after(hours=24))


def test_a_change_that_eight_checkers_see_at_once_is_told_once(store: Store, open_store: Callable[..., Store]) -> None:
    assert store.incidents.claim_telling(store.incidents.open(FLAT, NOW), NOW)
    stores = [open_store() for _ in range(THREADS)]

    def check(one: Store) -> bool:
        changed = one.incidents.open(replace(FLAT, kind=IncidentKind.LATE), after(minutes=1))
        return changed.is_to_be_told(after(minutes=1)) and one.incidents.claim_telling(changed, after(minutes=1))

    assert sum(at_once([lambda one=one: check(one) for one in stores])) == 1


def test_nothing_is_told_in_words_that_are_no_longer_true(store: Store) -> None:
    flat = store.incidents.open(FLAT, NOW)
    late = store.incidents.open(replace(FLAT, kind=IncidentKind.LATE), NOW)
    assert not store.incidents.claim_telling(flat, NOW)
    assert store.incidents.claim_telling(late, NOW)


def test_acknowledging_or_expecting_what_is_not_there_changes_nothing(store: Store, raw: RawSql) -> None:
    assert store.incidents.acknowledge(About.SOURCE, "orders", "kim", NOW) is None
    assert store.incidents.mark_expected(7, "kim", NOW) is None
    assert store.incidents.get(7) is None
    opened = store.incidents.open(FLAT, NOW)
    store.incidents.resolve(About.SOURCE, "orders", "rows arrived", NOW)
    before = raw.rows("oauth_guard_incidents")
    assert store.incidents.acknowledge(About.SOURCE, "orders", "kim", NOW) is None
    assert raw.rows("oauth_guard_incidents") == before
    assert store.incidents.get(opened.id) is not None


def test_what_somebody_expected_is_over_and_says_who_said_so(store: Store) -> None:
    opened = store.incidents.open(FLAT, NOW)
    expected = store.incidents.mark_expected(opened.id, "kim", after(hours=1))
    assert expected is not None
    assert (expected.phase, expected.expected_by, expected.resolved_at) == (Phase.RESOLVED, "kim", after(hours=1))
    assert expected.resolution == "kim said that it had to be expected"
    assert store.incidents.open_ones() == []


def test_what_is_over_may_be_called_expected_and_keeps_its_end(store: Store) -> None:
    opened = store.incidents.open(FLAT, NOW)
    store.incidents.resolve(About.SOURCE, "orders", "rows arrived", after(hours=1))
    newer = store.incidents.open(FLAT, after(hours=2))
    expected = store.incidents.mark_expected(opened.id, "kim", after(hours=3))
    assert expected is not None
    assert (expected.expected_by, expected.resolved_at, expected.resolution) == ("kim", after(hours=1), "rows arrived")
    assert now_open(store) == newer, "that is another matter"


def test_what_was_called_expected_is_known_as_that_while_it_is_the_same_silence(store: Store) -> None:
    opened = store.incidents.open(FLAT, NOW)
    store.incidents.mark_expected(opened.id, "kim", after(hours=1))
    assert store.incidents.expected_until(About.SOURCE, "orders", FLAT.opened_at)
    assert not store.incidents.expected_until(About.SOURCE, "orders", after(hours=2)), "it spoke in between"
    assert not store.incidents.expected_until(About.SOURCE, "clicks", FLAT.opened_at)


def test_what_is_called_expected_of_a_group_is_said_of_its_members(store: Store) -> None:
    group = store.incidents.open(replace(FLAT, about=About.GROUP, name="credential crm"), NOW)
    member = store.incidents.open(replace(FLAT, part_of=group.id), NOW)
    other = store.incidents.open(replace(FLAT, name="clicks"), NOW)
    store.incidents.mark_expected(group.id, "kim", after(hours=1))
    assert store.incidents.expected_until(About.SOURCE, "orders", FLAT.opened_at) == after(hours=1) + EXPECTED_FOR
    assert [one.id for one in store.incidents.open_ones()] == [other.id]
    assert store.incidents.get(member.id).expected_by == "kim"  # type: ignore[union-attr]


def test_sources_in_question_are_those_that_an_incident_is_open_about(store: Store) -> None:
    store.sources.register([Source(name, timedelta(hours=1)) for name in ("orders", "clicks", "ads")], NOW)
    store.incidents.open(FLAT, NOW)
    store.incidents.open(replace(FLAT, name="clicks", about=About.MONITOR), NOW)
    opened = store.incidents.open(replace(FLAT, name="ads"), NOW)
    assert [one.source.name for one in store.sources.in_question()] == ["ads", "orders"]
    store.incidents.mark_expected(opened.id, "kim", after(hours=1))
    assert [one.source.name for one in store.sources.in_question()] == ["orders"]
    assert store.sources.get("ads").due_at == after(hours=1), "the next pass looks at it"


def test_people_are_told_anew_of_a_group_that_somebody_has_long_been_on_when_another_joins(store: Store) -> None:
    group = store.incidents.open(replace(FLAT, about=About.GROUP, name="credential crm"), NOW)
    store.incidents.claim_telling(group, NOW)
    store.incidents.acknowledge(About.GROUP, "credential crm", "kim", after(hours=1))
    for name, hours, told in (("orders", 2, 1), ("clicks", 26, 0)):
        joins = store.incidents.open(replace(FLAT, name=name), after(hours=hours))
        store.incidents.put_together(group, [joins], after(hours=hours))
        found = store.incidents.get(group.id)
        assert found is not None
        assert found.times_told == told
        assert found.is_to_be_told(after(hours=hours)) == (not told)


def test_quiet_stretches_are_what_a_source_missed_and_nobody_expected(store: Store) -> None:
    def stretch(start: int, end: int | None, kind: IncidentKind = IncidentKind.FLAT, name: str = "orders") -> Incident:
        opened = store.incidents.open(
            replace(FLAT, name=name, kind=kind, opened_at=after(hours=start)), after(hours=start)
        )
        if end is not None:
            store.incidents.resolve(About.SOURCE, name, "rows arrived", after(hours=end))
        return opened

    stretch(0, 10)
    expected = stretch(11, 12)
    stretch(13, 20, IncidentKind.LATE)
    stretch(21, 22, IncidentKind.UNMEASURED)
    stretch(21, None, name="clicks")
    stretch(23, 24, IncidentKind.STUCK)
    stretch(25, None)
    stretch(26, 27, IncidentKind.UNMEASURED)
    everything = replace(FLAT, about=About.GROUP, name="everything", kind=IncidentKind.EVERYTHING_QUIET)
    store.incidents.open(replace(everything, opened_at=after(hours=28)), after(hours=28))
    store.incidents.mark_expected(expected.id, "kim", after(hours=30))
    stretches = [(13, 20), (23, 24), (25, 27), (28, None)]
    as_instants = [(after(hours=start), end if end is None else after(hours=end)) for start, end in stretches]
    assert store.incidents.quiet_stretches("orders", since=after(hours=10)) == as_instants


# -- escalation -------------------------------------------------------------------------------------------------------


def test_the_right_to_escalate_is_given_once_among_eight_checkers(
    store: Store, open_store: Callable[..., Store]
) -> None:
    incident = store.incidents.open(FLAT, NOW)
    stores = [open_store() for _ in range(THREADS)]
    claims = at_once([lambda one=one: one.incidents.claim_escalation(incident, NOW) for one in stores])
    assert sorted(claims) == [False] * (THREADS - 1) + [True]
    assert now_open(store).escalated_at == NOW
    assert not store.incidents.claim_escalation(now_open(store), after(days=9))


def test_an_escalation_that_reached_nobody_is_still_to_come(store: Store) -> None:
    incident = store.incidents.open(FLAT, NOW)
    assert store.incidents.claim_escalation(incident, NOW)
    store.incidents.give_escalation_back(incident)
    assert now_open(store).escalated_at is None
    assert store.incidents.claim_escalation(incident, NOW)


# -- groups -----------------------------------------------------------------------------------------------------------

GROUP = replace(FLAT, about=About.GROUP, name="credential crm", kind=IncidentKind.QUIET_TOGETHER)


def test_members_of_a_group_are_not_told_while_it_is_open(store: Store) -> None:
    group = store.incidents.open(GROUP, NOW)
    alone = store.incidents.open(replace(FLAT, name="alone"), NOW)
    before = store.incidents.open(FLAT, NOW)
    member = store.incidents.open(replace(FLAT, part_of=group.id), NOW)
    assert (member.id, member.part_of) == (before.id, group.id)
    assert store.incidents.members(group) == [member]
    assert store.incidents.members(alone) == []
    assert not member.speaks_for_itself
    assert not store.incidents.claim_telling(before, NOW), "read before it became a member"
    assert store.incidents.claim_telling(group, NOW)


def test_a_member_stays_one_when_it_is_looked_at_again(store: Store) -> None:
    group = store.incidents.open(GROUP, NOW)
    store.incidents.open(replace(FLAT, part_of=group.id), NOW)
    assert store.incidents.open(FLAT, after(hours=1)).part_of == group.id


def test_open_incidents_are_put_together(store: Store) -> None:
    group = store.incidents.open(GROUP, NOW)
    opened = [store.incidents.open(replace(FLAT, name=name), NOW) for name in ("orders", "clicks", "over")]
    store.incidents.resolve(About.SOURCE, "over", "rows arrived", NOW)
    store.incidents.put_together(group, opened, NOW)
    assert [member.name for member in store.incidents.members(group)] == ["orders", "clicks"]
    over = store.incidents.get(opened[2].id)
    assert over is not None
    assert over.part_of is None


def test_members_of_a_group_that_is_over_speak_for_themselves_again(store: Store) -> None:
    group = store.incidents.open(GROUP, NOW)
    for name in ("orders", "clicks"):
        store.incidents.open(replace(FLAT, name=name, part_of=group.id), NOW)
    store.incidents.resolve(About.SOURCE, "clicks", "rows arrived", after(hours=1))
    store.incidents.resolve(About.GROUP, GROUP.name, "its credential works again", after(hours=2))
    assert now_open(store).is_to_be_told(after(hours=2))
    assert store.incidents.claim_telling(now_open(store), after(hours=2))
    [clicks] = store.incidents.history(About.SOURCE, "clicks")
    assert clicks.part_of == group.id, "it was over with the group, and stays part of its history"


def test_nobody_becomes_a_member_of_a_group_that_is_over(store: Store) -> None:
    """Nobody would speak for it."""
    group = store.incidents.open(GROUP, NOW)
    store.incidents.resolve(About.GROUP, GROUP.name, "its credential works again", NOW)
    member = store.incidents.open(replace(FLAT, part_of=group.id), NOW)
    assert member.part_of is None
    store.incidents.put_together(group, [member], NOW)
    assert now_open(store).part_of is None


def test_no_source_falls_silent_between_a_group_that_ends_and_members_that_join(
    store: Store, open_store: Callable[..., Store]
) -> None:
    stores = [open_store() for _ in range(THREADS)]
    names = [f"source_{number}" for number in range(1, THREADS)]
    for _ in range(5):
        group = store.incidents.open(GROUP, NOW)
        members = [replace(FLAT, name=name, part_of=group.id) for name in names]
        at_once(
            [
                lambda: stores[0].incidents.resolve(About.GROUP, GROUP.name, "over", NOW),
                *(
                    lambda one=one, member=member: one.incidents.open(member, NOW)
                    for one, member in zip(stores[1:], members, strict=True)
                ),
            ]
        )
        assert [incident.part_of for incident in store.incidents.open_ones(About.SOURCE)] == [None] * len(names)
        for name in names:
            store.incidents.resolve(About.SOURCE, name, "rows arrived", NOW)


# -- as people read them ----------------------------------------------------------------------------------------------


def test_incidents_are_read_in_pages_newest_first(store: Store) -> None:
    opened = [store.incidents.open(replace(FLAT, name=f"source_{number}"), NOW) for number in range(5)]
    pages = [store.incidents.page(limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [incident.id for page, _total in pages for incident in page] == [one.id for one in opened[::-1]]
    assert [len(page) for page, _total in pages] == [2, 2, 1, 0]
    assert {total for _page, total in pages} == {5}


def test_incidents_are_found_and_counted_by_how_far_people_have_come(store: Store) -> None:
    assert store.incidents.counts() == {Phase.OPEN: 0, Phase.ACKNOWLEDGED: 0, Phase.RESOLVED: 0}
    for name in ("open", "on it", "over", "over too"):
        store.incidents.open(replace(FLAT, name=name), NOW)
    for name in ("on it", "over too"):
        store.incidents.acknowledge(About.SOURCE, name, "ada", NOW)
    for name in ("over", "over too"):
        store.incidents.resolve(About.SOURCE, name, "rows arrived", NOW)
    store.incidents.open(replace(FLAT, about=About.CREDENTIAL, name="crm"), NOW)

    def names(phase: Phase | None = None, about: About | None = None) -> list[str]:
        page, total = store.incidents.page(phase, about)
        assert total == len(page)
        assert phase is None or {incident.phase for incident in page} == {phase}
        return [incident.name for incident in page]

    assert names(Phase.OPEN) == ["crm", "open"]
    assert names(Phase.OPEN, About.SOURCE) == ["open"]
    assert names(Phase.ACKNOWLEDGED) == ["on it"]
    assert names(Phase.RESOLVED) == ["over too", "over"]
    assert names(about=About.CREDENTIAL) == ["crm"]
    assert names(about=About.CLIENT) == []
    assert store.incidents.counts() == {Phase.OPEN: 2, Phase.ACKNOWLEDGED: 1, Phase.RESOLVED: 2}
