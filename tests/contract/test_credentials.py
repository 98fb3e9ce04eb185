"""Credentials: enrolled once, refreshed by one process at a time, and no token lost on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from airflow_oauth_guard.domain.evidence import Kind
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError, LeaseLostError, NotRegisteredError, UnprovenTransitionError
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.journal import Ended
from airflow_oauth_guard.store.records import Credential, Lease, Tokens
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import credentials

from .conftest import RawSql
from .making import (
    NOW,
    THREADS,
    TTL,
    WORKER,
    after,
    at_once,
    dead,
    enrolled,
    enrollment,
    expired,
    failed,
    found,
    interrupting,
    issued,
    keep,
    leased,
    open_question,
    planted,
    refusal,
    renewed,
    success,
    token_answer,
)

if TYPE_CHECKING:
    from tests.airflow_parts import Connector

# -- enrolling ------------------------------------------------------------------------------------------------------


def test_an_enrolled_credential_comes_back_with_its_settings_and_its_seeds(store: Store) -> None:
    credential = enrolled(store, at_half_life=True, expire_policy="auto", expires_at=after(hours=1))
    assert store.credentials.get("crm") == credential
    assert store.credentials.by_id(credential.id) == credential
    assert (credential.connection_class, credential.client_key) == ("refresh_token", "client-a")
    assert (credential.expire_policy, credential.alert_route) == ("auto", "crm-owners")
    assert (credential.life.margin, credential.life.at_half_life) == (timedelta(minutes=10), True)
    assert (credential.life.issued_at, credential.life.expires_at) == (None, after(hours=1))
    assert (credential.generation, credential.failures, credential.attempt_after) == (1, 0, None)
    assert store.credentials.tokens(credential) == Tokens(1, "crm-access-1", "crm-refresh-1")


def test_a_seed_whose_age_is_unknown_is_due(store: Store) -> None:
    credential = enrolled(store)
    assert credential.life.issued_at is None
    assert credential.is_due(NOW)


def test_a_credential_without_seeds_has_no_generation_yet(store: Store) -> None:
    credential = enrolled(store, access_token="", refresh_token="")
    assert credential.generation == 0
    assert (credential.generation, store.credentials.tokens(credential).refresh_token) == (0, "")


def test_a_credential_nobody_enrolled_is_an_error_that_says_what_to_do(store: Store) -> None:
    with pytest.raises(NotRegisteredError, match=r"`crm` is not in the store.*oauth_guard_connections"):
        store.credentials.get("crm")
    with pytest.raises(NotRegisteredError, match="`crm`"):
        store.credentials.lease("crm", "worker-1", TTL, NOW)


@pytest.mark.parametrize("margin", [timedelta(days=30, seconds=1), timedelta(seconds=0.25)])
def test_a_margin_is_kept_to_the_second(store: Store, margin: timedelta) -> None:
    assert enrolled(store, margin=margin).life.margin == margin


def test_seeds_are_read_once(store: Store) -> None:
    """The connection keeps its first tokens for ever; reading them again would undo every rotation."""
    enrolled(store)
    renewed(store)
    again = enrolled(store)
    assert again.generation == 2
    assert store.credentials.tokens(again) == Tokens(2, "access-2", "refresh-2")


def test_settings_are_brought_up_to_date_without_touching_the_tokens(store: Store) -> None:
    before = enrolled(store)
    renewed(store)
    after_ = enrolled(
        store,
        margin=timedelta(hours=3),
        at_half_life=True,
        expire_policy="never",
        alert_route="others",
        client_key="client-b",
        connection_class="meta_exchange",
        probe_host="other.example",
    )
    assert after_.id == before.id
    assert (after_.life.margin, after_.life.at_half_life) == (timedelta(hours=3), True)
    assert (after_.expire_policy, after_.alert_route, after_.client_key) == ("never", "others", "client-b")
    assert after_.connection_class == "meta_exchange"
    assert store.credentials.find_by_seed(enrollment(client_key="client-b", probe_host="other.example")) == after_
    assert (after_.generation, store.credentials.tokens(after_).refresh_token) == (2, "refresh-2")


def test_an_empty_seed_leaves_the_tokens_alone_and_is_not_remembered_as_one(store: Store) -> None:
    enrolled(store)
    renewed(store)
    emptied = enrolled(store, access_token="", refresh_token="")
    assert (emptied.generation, store.credentials.tokens(emptied).refresh_token) == (2, "refresh-2")
    same_again = enrolled(store)
    assert same_again.generation == 2, "the seed it had before was taken for a new one"


def test_a_first_seed_that_comes_later_is_taken_in(store: Store) -> None:
    enrolled(store, access_token="", refresh_token="")
    seeded = enrolled(store)
    assert seeded.generation == 1
    assert store.credentials.tokens(seeded) == Tokens(1, "crm-access-1", "crm-refresh-1")


@pytest.mark.parametrize("was", Status, ids=lambda status: status.value)
def test_a_changed_seed_is_a_new_generation_and_active_because_a_person_said_so(store: Store, was: Status) -> None:
    credential = enrolled(store)
    question = failed(store)
    if was is Status.LAPSED:
        store.credentials.record(credential, dead(Status.LAPSED), NOW)
    if was is Status.EXPIRED:
        expired(store)
    assert open_question(store, credential, question, WORKER, NOW) is not None
    new = enrollment(access_token="", refresh_token="entered by hand")
    reconnected = store.credentials.enroll(new, after(hours=1), replace(WORKER, task_id="enroll"))
    assert (reconnected.status, reconnected.generation) == (Status.ACTIVE, 2)
    assert store.credentials.tokens(reconnected) == Tokens(2, "crm-access-1", "entered by hand")
    assert (reconnected.failures, reconnected.is_due(after(hours=1))) == (0, True)
    assert store.investigations.open_ones() == []
    said = store.credentials.latest_evidence(credential)
    assert said is not None
    assert (said.kind, said.observer.task_id) == (Kind.PERSON, "enroll")
    if was is not Status.ACTIVE:
        assert store.credentials.transitions(credential)[-1]["evidence_id"] == said.id
    assert store.credentials.enroll(new, after(hours=2)).generation == 2


def test_the_tokens_before_a_changed_seed_are_kept_aside(store: Store, raw: RawSql) -> None:
    """A person may have entered the wrong ones."""
    enrolled(store)
    before = raw.rows("oauth_guard_tokens")[0]
    enrolled(store, access_token="new", refresh_token="new")
    now = raw.rows("oauth_guard_tokens")[0]
    assert now["previous_refresh_token"] == before["refresh_token"] != now["refresh_token"]
    assert now["previous_access_token"] == before["access_token"] != now["access_token"]


def test_eight_passes_that_enroll_a_new_credential_at_once_enroll_it_once(
    open_store: Callable[..., Store], raw: RawSql
) -> None:
    stores = [open_store() for _ in range(THREADS)]
    taken_in = at_once([lambda store=store: enrolled(store) for store in stores])
    assert len({credential.id for credential in taken_in}) == 1
    for table in ("credentials", "tokens", "statuses"):
        assert len(raw.rows(f"oauth_guard_{table}")) == 1


def test_eight_passes_that_read_a_changed_seed_at_once_take_it_in_once(
    store: Store, open_store: Callable[..., Store], raw: RawSql
) -> None:
    credential = enrolled(store)
    before = raw.rows("oauth_guard_tokens")[0]
    stores = [open_store() for _ in range(THREADS)]
    taken_in = at_once([lambda one=one: enrolled(one, access_token="new", refresh_token="new") for one in stores])
    assert {one.generation for one in taken_in} == {2}
    now = raw.rows("oauth_guard_tokens")[0]
    assert now["previous_refresh_token"] == before["refresh_token"], "the tokens before were written over"
    assert len(raw.rows("oauth_guard_evidence")) == 1, "one person entered tokens once"
    assert store.credentials.get("crm").id == credential.id


def test_connection_ids_that_differ_in_case_only_are_two_credentials(store: Store) -> None:
    """Airflow tells them apart; taking one for the other hands a customer's token to another."""
    lower, upper = enrolled(store), enrolled(store, "CRM")
    assert lower.id != upper.id
    assert store.credentials.tokens(store.credentials.get("crm")).refresh_token == "crm-refresh-1"
    assert store.credentials.tokens(store.credentials.get("CRM")).refresh_token == "CRM-refresh-1"


def test_the_roster_holds_every_credential_whatever_its_status(store: Store) -> None:
    for name in ("b", "c", "a"):
        enrolled(store, name)
    expired(store, "c")
    store.credentials.record(store.credentials.get("b"), dead(Status.LAPSED), NOW)
    roster = store.credentials.roster()
    assert [(credential.conn_id, credential.status) for credential in roster] == [
        ("a", Status.ACTIVE),
        ("b", Status.LAPSED),
        ("c", Status.EXPIRED),
    ]


def test_a_credential_is_found_by_its_seed_only_for_the_same_client_and_probe_host(store: Store) -> None:
    """Else who knows a token could have it sent to a host of his own."""
    credential = enrolled(store)
    renewed(store)
    find = store.credentials.find_by_seed
    its_own = find(enrollment())
    assert its_own is not None
    assert its_own.id == credential.id
    assert find(enrollment(client_key="client-b")) is None
    assert find(enrollment(probe_host="evil.example")) is None
    assert find(enrollment(probe_host="")) is None
    assert find(enrollment(refresh_token="crm-refresh-2")) is None
    assert find(enrollment(refresh_token="")) is None


def test_a_credential_without_a_refresh_token_is_found_by_its_access_token(store: Store) -> None:
    credential = enrolled(store, refresh_token="")
    assert store.credentials.find_by_seed(enrollment(refresh_token="")) == credential


def test_two_credentials_with_one_seed_are_not_guessed_between(store: Store) -> None:
    for name in ("crm", "erp"):
        enrolled(store, name, access_token="one", refresh_token="shared")
    assert store.credentials.find_by_seed(enrollment(access_token="one", refresh_token="shared")) is None


def test_an_emptied_seed_takes_nothing_away(store: Store) -> None:
    """A tidy person empties a field that was "read once": the rotated token must not go with it."""
    enrolled(store)
    renewed(store)
    before = store.credentials.tokens(store.credentials.get("crm"))
    for left in ({"refresh_token": ""}, {"access_token": "", "refresh_token": ""}):
        assert store.credentials.tokens(enrolled(store, **left)) == before


def test_importing_one_token_does_not_take_the_other_away(store: Store) -> None:
    enrolled(store)
    news = enrollment(access_token="crm-access-2", refresh_token="")
    imported = store.credentials.import_tokens(news, after(minutes=1), WORKER)
    tokens_now = store.credentials.tokens(imported)
    assert (tokens_now.access_token, tokens_now.refresh_token) == ("crm-access-2", "crm-refresh-1")
    assert imported.is_due(after(minutes=1)), "what a person brought is tried at once"


# -- importing ------------------------------------------------------------------------------------------------------


def imported(store: Store, number: int | str) -> Credential:
    given = enrollment(access_token=f"imported-{number}", refresh_token=f"imported-{number}")
    return store.credentials.import_tokens(given, NOW, WORKER)


def test_what_a_credential_has_been_given_before_is_no_news_even_when_it_was_replaced_since(store: Store) -> None:
    given = enrollment(access_token="imported-1", refresh_token="imported-1")
    assert store.credentials.unread(given) == given
    imported(store, 1)
    renewed(store)
    assert store.credentials.unread(given) == replace(given, access_token="", refresh_token="")
    held = store.credentials.tokens(store.credentials.get("crm"))
    newer = replace(given, access_token="imported-2", refresh_token=held.refresh_token)
    assert store.credentials.unread(newer) == replace(newer, refresh_token="")


def test_tokens_that_were_imported_first_are_not_undone_by_the_first_look_at_the_connection(store: Store) -> None:
    assert imported(store, 1).generation == 1
    credential = enrolled(store)
    assert store.credentials.tokens(credential) == Tokens(1, "imported-1", "imported-1")
    assert enrolled(store, refresh_token="changed by hand").generation == 2


def test_tokens_that_are_imported_later_are_a_new_generation_that_the_connection_does_not_undo(store: Store) -> None:
    enrolled(store)
    expired(store)
    credential = imported(store, 1)
    assert (credential.generation, credential.status) == (2, Status.ACTIVE)
    assert imported(store, 1).generation == 2, "importing twice is once"
    assert store.credentials.tokens(enrolled(store)) == Tokens(2, "imported-1", "imported-1")
    assert imported(store, 2).generation == 3


def test_the_tokens_before_come_back_when_a_person_says_so_and_go_again(store: Store) -> None:
    """Somebody pasted the wrong token, or the provider's new one does not work: the one before is not lost."""
    enrolled(store)
    renewed(store)
    imported(store, "wrong")
    reverted = store.credentials.revert("crm", after(minutes=1), WORKER)
    assert store.credentials.tokens(reverted) == Tokens(4, "access-2", "refresh-2")
    assert (reverted.status, reverted.is_due(after(minutes=1))) == (Status.ACTIVE, True)
    seen = store.credentials.latest_evidence(reverted)
    assert (seen.kind, seen.observer, seen.reading.explanation) == (
        Kind.PERSON,
        WORKER,
        "a person brought the tokens before back",
    )
    again = store.credentials.revert("crm", after(minutes=2), WORKER)
    assert store.credentials.tokens(again).refresh_token == "imported-wrong"


def test_without_tokens_before_there_is_nothing_to_bring_back(store: Store) -> None:
    enrolled(store)
    with pytest.raises(ConfigurationError, match="`crm` has had no tokens before"):
        store.credentials.revert("crm", NOW, WORKER)
    assert store.credentials.get("crm").generation == 1


# -- the lease ------------------------------------------------------------------------------------------------------


def test_a_lease_hands_out_the_newest_tokens(store: Store) -> None:
    credential = enrolled(store)
    renewed(store)
    lease = leased(store)
    assert lease.tokens == Tokens(2, "access-2", "refresh-2")
    assert (lease.credential.id, lease.credential.generation, lease.owner) == (credential.id, 2, "worker-1")
    assert lease.unsettled == ()


def test_while_a_lease_is_held_nobody_else_gets_one(store: Store) -> None:
    enrolled(store)
    enrolled(store, "erp")
    leased(store)
    assert store.credentials.lease("crm", "worker-2", TTL, NOW) is None
    assert store.credentials.lease("crm", "worker-2", TTL, NOW + TTL) is None
    assert store.credentials.lease("crm", "worker-1", TTL, NOW) is None, "not even its holder, twice"
    assert store.credentials.lease("erp", "worker-2", TTL, NOW) is not None


def test_a_lease_that_ran_out_or_was_given_back_can_be_taken(store: Store) -> None:
    enrolled(store)
    first = leased(store)
    second = leased(store, owner="worker-2", now=NOW + TTL + timedelta(microseconds=1))
    store.credentials.release(first)
    assert store.credentials.lease("crm", "worker-3", TTL, NOW + TTL) is None, "the first gave back the second's lease"
    store.credentials.release(second)
    leased(store, owner="worker-3", now=NOW + TTL)


def test_eight_workers_that_ask_for_a_lease_at_once_get_one(store: Store, open_store: Callable[..., Store]) -> None:
    enrolled(store)
    stores = [open_store() for _ in range(THREADS)]

    def ask(worker: int) -> Lease | None:
        return stores[worker].credentials.lease("crm", f"worker-{worker}", TTL, NOW)

    for _ in range(3):
        leases = [lease for lease in at_once([lambda w=w: ask(w) for w in range(THREADS)]) if lease is not None]
        assert len(leases) == 1
        store.credentials.release(leases[0])


def test_eight_workers_each_refresh_in_turn_and_no_token_is_skipped(
    store: Store, open_store: Callable[..., Store]
) -> None:
    enrolled(store)
    stores = [open_store() for _ in range(THREADS)]

    def refresh(worker: int) -> Credential:
        one = stores[worker]
        for _ in range(2000):
            lease = one.credentials.lease("crm", f"worker-{worker}", TTL, NOW)
            if lease is not None:
                expected = f"refresh-{lease.tokens.generation}" if lease.tokens.generation > 1 else "crm-refresh-1"
                assert lease.tokens.refresh_token == expected
                intent = one.credentials.open_intent(lease, lease.tokens.refresh_token, NOW)
                tokens_ = issued(lease.tokens.generation + 1)
                return one.credentials.renew(lease, intent, tokens_, success(lease.tokens.generation), NOW)[0]
            time.sleep(0.005)
        raise AssertionError("never got a lease")

    renewals = at_once([lambda w=w: refresh(w) for w in range(THREADS)])
    assert sorted(credential.generation for credential in renewals) == list(range(2, THREADS + 2))


# -- a refresh that succeeds ----------------------------------------------------------------------------------------


def test_a_refresh_stores_its_tokens_as_the_next_generation(store: Store, raw: RawSql) -> None:
    enrolled(store)
    before = raw.rows("oauth_guard_tokens")[0]
    lease = leased(store)
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, NOW)
    keep(store, intent, token_answer())
    credential, kept = store.credentials.renew(lease, intent, issued(), success(), after(seconds=2))
    assert (credential.generation, credential.status) == (2, Status.ACTIVE)
    assert (credential.life.issued_at, credential.life.expires_at) == (NOW, after(hours=1))
    assert store.credentials.tokens(credential) == Tokens(2, "access-2", "refresh-2")
    assert store.credentials.latest_evidence(credential) == kept
    now = raw.rows("oauth_guard_tokens")[0]
    assert (now["previous_refresh_token"], now["scope"]) == (before["refresh_token"], "read write")
    [journal] = raw.rows("oauth_guard_intents")
    assert (journal["outcome"], journal["answer"]) == ("renewed", None)
    assert leased(store, owner="worker-2").unsettled == (), "the lease was not given back"


def test_a_provider_that_sends_no_refresh_token_leaves_the_one_in_use(store: Store) -> None:
    """RFC 6749 section 6."""
    enrolled(store)
    lease = leased(store)
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, NOW)
    answer = issued(refresh_token=None, expires_in=None)
    credential, _ = store.credentials.renew(lease, intent, answer, success(), NOW)
    assert store.credentials.tokens(credential) == Tokens(2, "access-2", "crm-refresh-1")
    assert credential.life.expires_at is None


def test_a_success_ends_the_question_the_incident_and_the_failures(store: Store, raw: RawSql) -> None:
    credential = enrolled(store)
    question = failed(store, attempt_after=after(minutes=5))
    investigation = open_question(store, credential, question, WORKER, NOW)
    assert investigation is not None
    trouble = Symptom(About.CREDENTIAL, "crm", IncidentKind.UNKNOWN, "It fails.", NOW)
    store.incidents.open(trouble, NOW)
    store.incidents.open(replace(trouble, name="erp"), NOW)
    assert store.credentials.get("crm").failures == 1
    now = renewed(store, now=after(minutes=6))
    assert (now.failures, now.attempt_after) == (0, None)
    closed = store.investigation(investigation)
    assert closed.closed_at == after(minutes=6)
    assert "refresh succeeded" in closed.explanation
    assert [incident.name for incident in store.incidents.open_ones()] == ["erp"]
    assert [kept.resolved_at for kept in store.incidents.history(About.CREDENTIAL, "crm")] == [after(minutes=6)]
    proof = store.credentials.latest_evidence(credential, Kind.REFRESH)
    assert proof is not None
    assert f"evidence {proof.id}" in next(r["resolution"] for r in raw.rows("oauth_guard_incidents") if r["resolution"])


def test_a_lapsed_credential_that_is_refreshed_is_active_and_nothing_was_false(store: Store) -> None:
    credential = enrolled(store)
    store.credentials.record(credential, dead(Status.LAPSED), NOW)
    assert renewed(store).status is Status.ACTIVE
    assert store.incidents.history(About.CREDENTIAL, "crm") == []


def test_an_expired_credential_that_answers_is_active_and_its_false_expiry_is_on_record(store: Store) -> None:
    enrolled(store)
    expired(store)
    back = renewed(store, now=after(days=2))
    assert (back.status, back.status_since) == (Status.ACTIVE, after(days=2))
    assert store.incidents.open_ones() == [], "it is over"
    [record] = store.incidents.history(About.CREDENTIAL, "crm")
    assert record.kind is IncidentKind.FALSE_EXPIRY
    assert (record.opened_at, record.noticed_at, record.resolved_at) == (NOW, after(days=2), after(days=2))
    assert [change["to_status"] for change in store.credentials.transitions(back)] == ["expired", "active"]


# -- a refresh that fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("was", Status, ids=lambda status: status.value)
def test_a_failed_refresh_is_counted_and_touches_no_status(store: Store, was: Status) -> None:
    credential = enrolled(store)
    if was is Status.LAPSED:
        store.credentials.record(credential, dead(Status.LAPSED), NOW)
    if was is Status.EXPIRED:
        expired(store)
    before = store.credentials.get("crm")
    changes = store.credentials.transitions(credential)
    for times in (1, 2, 3):
        seen = failed(store, attempt_after=after(minutes=5 * times))
        assert found(store, seen) == seen
        now = store.credentials.get("crm")
        assert (now.failures, now.attempt_after) == (times, after(minutes=5 * times))
        assert replace(now, failures=0, attempt_after=None) == before
    assert store.credentials.transitions(credential) == changes
    assert store.credentials.tokens(credential) == Tokens(1, "crm-access-1", "crm-refresh-1")


def test_a_failed_repeat_inside_an_investigation_leaves_the_schedule_alone(store: Store) -> None:
    enrolled(store)
    failed(store, attempt_after=after(minutes=5))
    lease = leased(store)
    intent = store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    store.credentials.fail(lease, intent, refusal(), attempt_after=None, outcome=Ended.REFUSED, now=NOW)
    now = store.credentials.get("crm")
    assert (now.failures, now.attempt_after) == (1, after(minutes=5))


def test_a_failure_gives_the_lease_back_and_a_refusal_loses_nothing(store: Store) -> None:
    enrolled(store)
    failed(store)
    lease = leased(store, owner="worker-2")
    assert lease.unsettled == ()
    assert not store.credentials.has_lost_answer(lease.credential, NOW)


def test_a_failure_before_anything_was_sent_is_recorded_without_an_intent(store: Store, raw: RawSql) -> None:
    enrolled(store)
    seen = store.credentials.fail(
        leased(store), None, refusal(), attempt_after=after(minutes=5), outcome=Ended.REFUSED, now=NOW
    )
    assert found(store, seen) == seen
    assert raw.rows("oauth_guard_intents") == []


def test_a_late_failure_of_an_old_holder_does_not_count_against_the_new_tokens(store: Store) -> None:
    """It was refused because somebody else had spent the token: that says nothing about the ones there are now."""
    enrolled(store)
    slow = leased(store)
    intent = store.credentials.open_intent(slow, "crm-refresh-1", NOW)
    renewed(store, owner="worker-2", now=NOW + 2 * TTL)
    seen = store.credentials.fail(
        slow, intent, refusal(), attempt_after=after(hours=6), outcome=Ended.REFUSED, now=NOW + 3 * TTL
    )
    assert found(store, seen) == seen
    now = store.credentials.get("crm")
    assert (now.failures, now.attempt_after) == (0, None)


# -- a refresh that breaks off --------------------------------------------------------------------------------------


def test_an_intent_without_an_answer_is_a_lost_answer(store: Store) -> None:
    enrolled(store)
    lease = leased(store)
    store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    again = leased(store, owner="worker-2", now=NOW + 2 * TTL)
    [intent] = again.unsettled
    assert (intent.opened_at, intent.answer, intent.outcome) == (NOW, None, None)


def test_a_refresh_that_is_under_way_has_lost_nothing_yet(store: Store) -> None:
    credential = enrolled(store)
    store.credentials.open_intent(leased(store), "crm-refresh-1", NOW)
    now = store.credentials.get("crm")
    assert not store.credentials.has_lost_answer(now, NOW)
    assert store.credentials.has_lost_answer(now, NOW + 2 * TTL)
    proof = planted(store, credential, dead(Status.EXPIRED))
    with pytest.raises(UnprovenTransitionError, match="has no answer"):
        store.credentials.expire("crm", proof.id, WORKER, NOW)


def test_nothing_is_sent_by_a_process_whose_lease_ran_out(store: Store) -> None:
    """Its machine slept, and somebody else may be refreshing by now."""
    enrolled(store)
    slow = leased(store)
    with pytest.raises(LeaseLostError, match=r"`crm`.*Nothing was sent"):
        store.credentials.open_intent(slow, "crm-refresh-1", NOW + 2 * TTL)
    leased(store, owner="worker-2", now=NOW + 2 * TTL)
    with pytest.raises(LeaseLostError):
        store.credentials.open_intent(slow, "crm-refresh-1", NOW)


def test_what_a_lost_refresh_brought_is_handed_out_again(store: Store) -> None:
    """Nobody could read it; the next release, or settings that were mended, may."""
    enrolled(store)
    lease = leased(store)
    intent = store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    answer = token_answer(body=b'{"data": {"access_token": "2"}}')
    keep(store, intent, answer)
    store.credentials.fail(lease, intent, refusal(), attempt_after=None, outcome=Ended.LOST, now=NOW)
    again = leased(store, owner="worker-2")
    [lost] = again.unsettled
    assert (store.credentials.open_answer(lost.answer), lost.outcome) == (answer, Ended.LOST)


def test_nothing_is_lost_by_a_refresh_that_spends_nothing(store: Store) -> None:
    """Client credentials, or a provider that is known not to rotate: whatever was open or lost is settled."""
    credential = enrolled(store)
    lease = leased(store)
    store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    assert len(leased(store, owner="worker-2", now=NOW + 2 * TTL).unsettled) == 2
    again = leased(store, owner="worker-3", now=NOW + 4 * TTL)
    last = store.credentials.open_intent(again, "crm-refresh-1", NOW + 4 * TTL, spends=False)
    store.credentials.fail(again, last, refusal(), attempt_after=None, outcome=Ended.REFUSED, now=NOW + 4 * TTL)
    assert not store.credentials.has_lost_answer(credential, NOW + 4 * TTL)


def test_a_lease_from_a_clock_that_was_a_year_ahead_blocks_nobody(store: Store) -> None:
    enrolled(store)
    leased(store, now=NOW + timedelta(days=365))
    assert not store.credentials.get("crm").is_leased(NOW)
    assert leased(store, owner="worker-2").owner == "worker-2"


def test_a_seed_that_was_replaced_is_not_taken_for_a_new_one(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A process that still has the connection as it was: a hook kept for long, an environment before a restart."""
    enrolled(store)
    enrolled(store, refresh_token="reconnected")
    renewed(store)
    stale = enrolled(store)
    assert (stale.generation, store.credentials.tokens(stale).refresh_token) == (3, "refresh-3")
    assert "`crm`" in caplog.text
    assert "crm-refresh-1" not in caplog.text
    assert enrolled(store, refresh_token="reconnected").generation == 3, "and the newer one is no news either"
    assert enrolled(store, refresh_token="a third").generation == 4


def test_a_person_may_go_back_to_a_seed_while_the_newest_tokens_fail(store: Store) -> None:
    enrolled(store)
    enrolled(store, refresh_token="pasted wrongly")
    failed(store)
    back = enrolled(store)
    assert (back.generation, store.credentials.tokens(back).refresh_token) == (3, "crm-refresh-1")


def test_an_exchange_that_ended_without_an_answer_is_a_lost_answer(store: Store) -> None:
    enrolled(store)
    lease = leased(store)
    intent = store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    store.credentials.fail(lease, intent, refusal(), attempt_after=None, outcome=Ended.LOST, now=NOW)
    again = leased(store, owner="worker-2")
    [lost] = again.unsettled
    assert (lost.opened_at, lost.answer, lost.outcome) == (NOW, None, Ended.LOST)


def test_a_lost_answer_is_forgiven_when_newer_tokens_are_there(store: Store) -> None:
    enrolled(store)
    store.credentials.open_intent(leased(store), "crm-refresh-1", NOW)
    credential = renewed(store, owner="worker-2", now=NOW + 2 * TTL)
    assert not store.credentials.has_lost_answer(credential, NOW)
    again = leased(store, owner="worker-3", now=NOW + 2 * TTL)
    assert again.unsettled == ()


def test_a_lost_answer_of_one_credential_says_nothing_about_another(store: Store) -> None:
    enrolled(store)
    other = enrolled(store, "erp")
    store.credentials.open_intent(leased(store), "crm-refresh-1", NOW)
    assert not store.credentials.has_lost_answer(other, NOW)
    assert leased(store, "erp").unsettled == ()


@pytest.mark.parametrize(
    "body", [b'{"access_token": "2"}', bytes(range(256)), b"x" * 1024 * 1024], ids=["json", "bytes", "1MiB"]
)
def test_an_answer_that_was_kept_is_handed_to_the_next_holder_byte_for_byte(store: Store, body: bytes) -> None:
    enrolled(store)
    lease = leased(store)
    intent = store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    answer = token_answer(headers={"content-type": "application/json", "x": "tür"}, body=body)
    keep(store, intent, answer)
    again = leased(store, owner="worker-2", now=NOW + 2 * TTL)
    [kept] = again.unsettled
    assert (kept.id, store.credentials.open_answer(kept.answer)) == (intent, answer)
    credential, _ = store.credentials.renew(again, intent, issued(), success(), NOW + 2 * TTL)
    assert credential.generation == 2
    assert leased(store, owner="worker-3", now=NOW + 2 * TTL).unsettled == ()


def test_a_journal_names_the_token_that_was_sent_and_does_not_hold_it(store: Store, raw: RawSql) -> None:
    enrolled(store)
    lease = leased(store)
    store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    store.credentials.open_intent(lease, "another", NOW)
    names = [row["token_fingerprint"] for row in raw.rows("oauth_guard_intents")]
    assert len(names) == 3
    assert len(set(names)) == 2
    assert "crm-refresh-1" not in names


def test_an_old_holder_cannot_store_its_tokens_over_newer_ones_and_its_answer_stays_in_the_journal(
    store: Store, raw: RawSql
) -> None:
    enrolled(store)
    slow = leased(store)
    intent = store.credentials.open_intent(slow, "crm-refresh-1", NOW)
    keep(store, intent, token_answer(9))
    quick = leased(store, owner="worker-2", now=NOW + 2 * TTL)
    other = store.credentials.open_intent(quick, "crm-refresh-1", NOW + 2 * TTL)
    store.credentials.renew(quick, other, issued(2), success(), NOW + 2 * TTL)
    before = raw.everything()
    assert store.credentials.renew(slow, intent, issued(9), success(), NOW + 2 * TTL) is None
    assert raw.everything() == before
    [journal] = [row for row in raw.rows("oauth_guard_intents") if row["id"] == intent]
    assert (bool(journal["answer"]), journal["outcome"]) == (True, "lost")


@pytest.mark.parametrize("was", [Status.ACTIVE, Status.LAPSED], ids=lambda status: status.value)
def test_nothing_is_expired_while_a_refresh_has_no_outcome(store: Store, was: Status) -> None:
    """What is under way may bring newer tokens, and then they win."""
    credential = enrolled(store)
    lease = leased(store)
    if was is Status.LAPSED:
        store.credentials.record(credential, dead(Status.LAPSED), NOW)
    proof = planted(store, credential, dead(Status.EXPIRED))
    intent = store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    with pytest.raises(UnprovenTransitionError, match=r"`crm` was not set `expired`.*has no answer"):
        store.credentials.expire("crm", proof.id, WORKER, NOW)
    assert store.credentials.get("crm").status is was
    store.credentials.renew(lease, intent, issued(), success(), after(minutes=1))
    now = store.credentials.get("crm")
    assert (now.generation, now.status) == (2, Status.ACTIVE)
    assert store.incidents.history(About.CREDENTIAL, "crm") == []


@pytest.mark.parametrize("was", [Status.ACTIVE, Status.LAPSED], ids=lambda status: status.value)
def test_nothing_is_expired_while_an_answer_of_the_newest_tokens_is_lost(store: Store, was: Status) -> None:
    credential = enrolled(store)
    if was is Status.LAPSED:
        store.credentials.record(credential, dead(Status.LAPSED), NOW)
    proof = planted(store, credential, dead(Status.EXPIRED))
    lease = leased(store)
    intent = store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    store.credentials.fail(lease, intent, refusal(), attempt_after=after(minutes=5), outcome=Ended.LOST, now=NOW)
    changes = store.credentials.transitions(credential)
    with pytest.raises(UnprovenTransitionError, match=r"`crm` was not set `expired`.*has no answer"):
        store.credentials.expire("crm", proof.id, WORKER, after(days=1))
    assert store.credentials.get("crm").status is was
    assert store.credentials.transitions(credential) == changes


@pytest.mark.airflow
@pytest.mark.parametrize(
    "odd", ["\\ud800", "\\ud83d", "\\u0000", "\\ud83d\\ude00"], ids=["low", "high", "nul", "whole"]
)
def test_odd_characters_of_a_provider_can_be_kept(store: Store, connect: Connector, odd: str) -> None:
    """Half a character and NUL fit into no database: what came with them must not be lost for that."""
    guarded = connect(client={"rotation": True})
    for status, body in (
        (400, f'{{"error": "invalid_grant", "error_description": "user {odd}", "x{odd}": ["{odd}"]}}'),
        (200, f'{{"access_token": "planted-a", "refresh_token": "planted-r", "scope": "read {odd}", "x": "{odd}"}}'),
    ):
        guarded.fault(status=status, body=body, times=1)
        result = guarded.refresh(store)
        assert result.outcome.value == ("failed" if status == 400 else "renewed")
        assert store.credentials.latest_evidence(guarded.credential(store), Kind.REFRESH) == result.evidence
        with store.database.write() as connection:
            connection.execute(update(credentials).values(attempt_after=None))
    assert store.credentials.tokens(guarded.credential(store)).refresh_token == "planted-r"


def test_a_refresh_that_begins_while_the_credential_is_being_expired_waits_and_wins(
    store: Store, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expire is in the middle of its work, a refresh comes in with new tokens: both must get through."""
    credential = enrolled(store)
    other = open_store()
    lease = leased(other)
    proof = planted(store, credential, dead(Status.EXPIRED))

    def refresh() -> Credential:
        intent = other.credentials.open_intent(lease, "crm-refresh-1", NOW)
        return other.credentials.renew(lease, intent, issued(), success(), after(minutes=1))[0]

    renewal = interrupting(monkeypatch, refresh)
    assert store.credentials.expire("crm", proof.id, WORKER, NOW).status is Status.EXPIRED
    assert renewal().generation == 2
    assert store.credentials.get("crm").status is Status.ACTIVE
    assert [record.kind for record in store.incidents.history(About.CREDENTIAL, "crm")] == [IncidentKind.FALSE_EXPIRY]
