"""What the credentials of one client tell about each other, in every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from airflow_oauth_guard.domain.brake import Brake
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Reading, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.investigation import CONTROLS_PER_DAY, SIBLING_WINDOW, SIBLINGS_WITHIN
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.store.clients import BASELINE_AFTER, NAMED
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.journal import Ended
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import investigations
from tests.contract.making import (
    NOW,
    SHAPE,
    WORKER,
    after,
    dead,
    enrolled,
    issued,
    leased,
    open_question,
    planted,
    refusal,
    renewed,
    success,
)

PROBE_SHAPE = replace(SHAPE, method="GET", grant_type="", endpoint="https://api.example/me")
DAY = timedelta(days=1)


def family(store: Store, count: int = 3, client_key: str = "client-a") -> list[Credential]:
    return [enrolled(store, f"{client_key}_{number}", client_key=client_key) for number in range(count)]


def fails(store: Store, credential: Credential, seen: Evidence | None = None, at: datetime = NOW) -> Evidence:
    """A refresh that fails, through the store's own steps."""
    lease = leased(store, credential.conn_id, now=at)
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, at)
    failed = replace(seen or refusal(), observed_at=at, generation=lease.tokens.generation)
    return store.credentials.fail(
        lease, intent, failed, attempt_after=at + timedelta(minutes=5), outcome=Ended.REFUSED, now=at
    )


def looked(store: Store, credential: Credential, kind: Kind, finding: Finding, at: datetime) -> Evidence:
    seen = Evidence(
        kind=kind,
        generation=credential.generation,
        observed_at=at,
        reading=Reading(Subject.ACCESS_TOKEN, finding, "made_for_a_test", "a look"),
        verdict=Verdict.LIVE if finding is Finding.LIVE else Verdict.OPEN,
        shape=PROBE_SHAPE if kind is Kind.PROBE else SHAPE,
        observer=WORKER,
    )
    return planted(store, credential, seen)


# -- siblings ---------------------------------------------------------------------------------------------------------


def test_siblings_that_fail_alike_are_counted_and_some_are_named(store: Store) -> None:
    many = family(store, NAMED + 3)
    stranger = enrolled(store, "stranger", client_key="client-b")
    fails(store, stranger)
    first, *_ = [fails(store, one) for one in many]
    found = store.clients.siblings(many[0], first)
    assert (found.failing, found.working) == (NAMED + 2, 0)
    assert found.names == tuple(sorted(one.conn_id for one in many[1:])[:NAMED])
    assert found.fail_together


def test_one_that_fails_alone_has_no_company(store: Store) -> None:
    one, two, three = family(store)
    failed = fails(store, one)
    assert store.clients.siblings(one, failed).failing == 0
    fails(store, two)
    assert not store.clients.siblings(one, failed).fail_together, "two may be a coincidence"
    fails(store, three)
    assert store.clients.siblings(one, failed).fail_together


def test_another_failure_is_no_company(store: Store) -> None:
    one, two, three = family(store)
    other = Reading(Subject.PROVIDER, Finding.PROVIDER_OUTAGE, "http_5xx", "down")
    for sibling in (two, three):
        fails(store, sibling, replace(refusal(), reading=other))
    assert store.clients.siblings(one, fails(store, one)).failing == 0


def test_one_that_failed_long_ago_or_works_again_is_no_company(store: Store) -> None:
    one, old, cured = family(store)
    fails(store, old, at=after(hours=-7))
    fails(store, cured)
    renewed(store, cured.conn_id)
    assert timedelta(hours=7) > SIBLINGS_WITHIN
    assert store.clients.siblings(one, fails(store, one)).failing == 0


def test_those_that_were_refreshed_since_are_the_ones_that_work(store: Store) -> None:
    one, two, three = family(store)
    renewed(store, three.conn_id)
    failed = fails(store, one, at=after(hours=1))
    renewed(store, two.conn_id, now=after(hours=2))
    found = store.clients.siblings(one, failed)
    assert (found.failing, found.working) == (0, 1)


# -- controls ---------------------------------------------------------------------------------------------------------


def test_the_budget_of_controls_is_the_clients_and_is_new_each_day(store: Store) -> None:
    many = family(store)
    stranger = enrolled(store, "stranger", client_key="client-b")
    for number in range(CONTROLS_PER_DAY):
        assert store.clients.may_control(many[0], NOW)
        looked(store, many[number % len(many)], Kind.CONTROL, Finding.GRANT_DEAD, after(hours=-number))
    assert not any(store.clients.may_control(one, NOW) for one in many)
    assert store.clients.may_control(stranger, NOW)
    assert store.clients.may_control(many[0], NOW + DAY)


@pytest.mark.parametrize(
    ("hours", "whose", "serves"), [(0.9, 1, True), (1.1, 1, False), (23, 0, True), (25, 0, False), (0.5, 2, False)]
)
def test_a_control_serves_its_own_for_a_day_and_siblings_for_an_hour(
    store: Store, hours: float, whose: int, *, serves: bool
) -> None:
    family(store, 2)
    stranger = enrolled(store, "stranger", client_key="client-b")
    one = store.credentials.get("client-a_0")
    owner = {0: one, 1: store.credentials.get("client-a_1"), 2: stranger}[whose]
    earlier = open_question(store, owner, fails(store, owner), WORKER, NOW)
    assert earlier is not None
    control = replace(refusal(), kind=Kind.CONTROL, observed_at=NOW, investigation_id=earlier)
    planted(store, owner, control)
    store.investigations.close(earlier, NOW)
    failed = planted(store, one, replace(refusal(), observed_at=after(hours=hours)))
    question = open_question(store, one, failed, WORKER, after(hours=hours))
    assert question is not None
    kinds = [item.kind for item in store.investigations.evidence(store.investigation(question))]
    assert (Kind.CONTROL in kinds) is serves


# -- the baseline -----------------------------------------------------------------------------------------------------


def test_a_probe_has_worked_if_it_was_answered_for_this_credential_ever_or_a_sibling_lately(store: Store) -> None:
    one, two, _ = family(store)
    stranger = enrolled(store, "stranger", client_key="client-b")

    def worked(credential: Credential, at: datetime = NOW) -> bool:
        return store.clients.probe_worked(credential, PROBE_SHAPE.id, at)

    looked(store, stranger, Kind.PROBE, Finding.LIVE, NOW)
    looked(store, one, Kind.PROBE, Finding.ACCESS_TOKEN_DEAD, NOW)
    assert (worked(one), worked(stranger)) == (False, True)
    looked(store, two, Kind.PROBE, Finding.LIVE, NOW)
    assert worked(one)
    assert worked(one, NOW + SIBLING_WINDOW)
    assert not worked(one, NOW + SIBLING_WINDOW + DAY)
    assert worked(two, NOW + 100 * DAY)
    assert not store.clients.probe_worked(one, SHAPE.id, NOW), "another request"


def test_a_baseline_is_due_a_week_after_the_last_probe_of_this_form(store: Store) -> None:
    one, two, _ = family(store)

    def due(credential: Credential, at: datetime, shape_id: str = PROBE_SHAPE.id) -> bool:
        return store.clients.baseline_is_due(credential, shape_id, at)

    assert due(one, NOW)
    looked(store, one, Kind.PROBE, Finding.UNKNOWN, NOW)
    assert not due(one, NOW + BASELINE_AFTER - DAY)
    assert due(one, NOW + BASELINE_AFTER + DAY)
    assert due(two, NOW), "a sibling's token is another"
    assert due(one, NOW, SHAPE.id), "the probe URL was changed"


# -- the brake --------------------------------------------------------------------------------------------------------


def lapses(store: Store, credential: Credential, at: datetime = NOW) -> None:
    store.credentials.record(credential, dead(Status.LAPSED, now=at), at)


def test_downgrades_of_the_day_are_counted_by_client_and_altogether(store: Store) -> None:
    brake, many = Brake(count=2, percent=0), family(store, 4)
    stranger = enrolled(store, "stranger", client_key="client-b")
    assert store.clients.brake(many[3], brake, NOW) == ""
    lapses(store, many[0])
    assert store.clients.brake(many[3], brake, NOW) == ""
    lapses(store, many[1])
    assert "2 of the 4 credentials of this client" in store.clients.brake(many[3], brake, NOW)
    assert "2 of the 5 credentials altogether" in store.clients.brake(stranger, brake, NOW)
    assert store.clients.brake(many[0], brake, NOW) == "", "itself is not counted"
    assert store.clients.brake(many[3], brake, NOW + 2 * DAY) == ""


def test_one_that_is_proven_dead_and_waits_counts_once(store: Store) -> None:
    brake, many = Brake(count=1, percent=0), family(store, 3)
    question = open_question(store, many[0], fails(store, many[0]), WORKER, NOW)
    assert question is not None
    with store.database.write() as connection:
        connection.execute(update(investigations).values(finding="grant_dead"))
    lapses(store, many[0])
    assert "1 of the 3 credentials of this client" in store.clients.brake(many[1], brake, NOW)


def test_a_share_counts_where_it_is_more(store: Store) -> None:
    many = family(store, 10)
    for one in many[:3]:
        lapses(store, one)
    assert store.clients.brake(many[9], Brake(count=1, percent=40), NOW) == ""
    assert store.clients.brake(many[9], Brake(count=1, percent=30), NOW) != ""


# -- one alarm for all ------------------------------------------------------------------------------------------------


def failing_together(store: Store, credential: Credential) -> None:
    for about, name in ((About.CREDENTIAL, credential.conn_id), (About.CLIENT, credential.client_name)):
        store.incidents.open(
            Symptom(about, name, IncidentKind.CLIENT_FAILING, "together", NOW, signature="as before"), NOW
        )


def test_the_renewal_of_any_sibling_ends_the_alarm_and_the_others_are_looked_into_anew(store: Store) -> None:
    many, [stranger] = family(store), family(store, 1, "client-b")
    for one in (*many, stranger):
        failing_together(store, one)
    renewed(store, many[0].conn_id)
    assert [incident.name for incident in store.incidents.open_ones(About.CLIENT)] == [stranger.client_name]
    left = {incident.name: incident.signature for incident in store.incidents.open_ones(About.CREDENTIAL)}
    assert left == {many[1].conn_id: "", many[2].conn_id: "", stranger.conn_id: "as before"}


def test_a_renewal_in_the_declared_form_ends_no_alarm(store: Store) -> None:
    one, *_ = family(store)
    failing_together(store, one)
    lease = leased(store, one.conn_id)
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, NOW)
    assert store.credentials.renew(lease, intent, issued(), success(), NOW, resolves=False) is not None
    assert len(store.incidents.open_ones()) == 2
    assert store.credentials.get(one.conn_id).generation == 2
