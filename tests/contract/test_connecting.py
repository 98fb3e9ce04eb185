"""What people do: connect, ask for a refresh, say that it works again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Reading, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError, LeaseLostError, NotRegisteredError
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.journal import Ended
from airflow_oauth_guard.store.records import Tokens
from airflow_oauth_guard.store.store import Store

from .conftest import RawSql
from .making import (
    ADA,
    NOW,
    SHAPE,
    TTL,
    WORKER,
    after,
    connected,
    dead,
    enrolled,
    enrollment,
    expired,
    failed,
    found,
    issued,
    keep,
    leased,
    planted,
    refusal,
    renewed,
    success,
    token_answer,
)

TROUBLE = Symptom(About.CREDENTIAL, "crm", IncidentKind.GRANT_DEAD, "The grant is dead.", NOW)


def refused_code(generation: int = 1) -> Evidence:
    reading = Reading(Subject.GRANT, Finding.GRANT_DEAD, "error_code", "the provider says invalid_grant")
    return Evidence(Kind.CONNECT, generation, NOW, reading, Verdict.OPEN, SHAPE, 400, observer=ADA)


# -- an exchange ------------------------------------------------------------------------------------------------------


def test_what_a_person_brings_back_becomes_the_next_generation(store: Store, raw: RawSql) -> None:
    enrolled(store)
    credential = connected(store)
    assert (credential.generation, credential.status) == (2, Status.ACTIVE)
    assert store.credentials.tokens(credential) == Tokens(2, "access-2", "refresh-2")
    seen = store.credentials.latest_evidence(credential)
    assert seen is not None
    assert (seen.kind, seen.observer, seen.generation) == (Kind.CONNECT, ADA, 1)
    [journal] = raw.rows("oauth_guard_intents")
    assert (journal["outcome"], journal["token_fingerprint"]) == ("renewed", "")
    assert leased(store, owner="worker-2").tokens.generation == 2, "the lease was not given back"


def test_a_reconnect_ends_the_question_and_the_incident_in_its_own_words(store: Store, raw: RawSql) -> None:
    enrolled(store)
    failed(store)
    store.incidents.open(TROUBLE, NOW)
    credential = connected(store, now=after(minutes=1))
    seen = store.credentials.latest_evidence(credential)
    assert seen is not None
    sentence = f"a person reconnected it (evidence {seen.id})"
    assert [one.resolution for one in store.incidents.history(About.CREDENTIAL, "crm")] == [sentence]
    assert [row["explanation"] for row in raw.rows("oauth_guard_investigations")] == [sentence]
    assert (credential.failures, credential.attempt_after) == (0, None)


def test_a_reconnect_restores_an_expired_credential_and_was_no_false_expiry(store: Store) -> None:
    """The old grant may well have been dead: a new one says nothing about it."""
    enrolled(store)
    expired(store)
    assert connected(store).status is Status.ACTIVE
    assert store.incidents.history(About.CREDENTIAL, "crm") == []


def test_a_refresh_that_restores_an_expired_credential_was_one(store: Store) -> None:
    enrolled(store)
    expired(store)
    assert renewed(store, now=after(hours=1)).status is Status.ACTIVE
    assert [one.kind for one in store.incidents.history(About.CREDENTIAL, "crm")] == [IncidentKind.FALSE_EXPIRY]


def test_a_refused_exchange_is_kept_and_changes_nothing_else(store: Store, raw: RawSql) -> None:
    enrolled(store)
    before = store.credentials.get("crm")
    lease = leased(store)
    intent = store.credentials.open_exchange(lease, NOW)
    keep(store, intent, token_answer(status=400))
    seen = store.credentials.refuse_exchange(lease, intent, refused_code(), after(seconds=1))
    assert found(store, seen) == seen
    assert store.credentials.get("crm") == before, "no failure, no lease, no status"
    assert store.investigations.open_ones() == []
    [journal] = raw.rows("oauth_guard_intents")
    assert (journal["outcome"], journal["answer"]) == ("refused", None)


def test_no_exchange_begins_without_the_lease(store: Store, raw: RawSql) -> None:
    enrolled(store)
    slow = leased(store)
    with pytest.raises(LeaseLostError, match=r"`crm`.*Nothing was sent"):
        store.credentials.open_exchange(slow, NOW + 2 * TTL)
    leased(store, owner="worker-2", now=NOW + 2 * TTL)
    with pytest.raises(LeaseLostError):
        store.credentials.open_exchange(slow, NOW)
    assert raw.rows("oauth_guard_intents") == []


def test_an_exchange_begins_the_lease_anew(store: Store) -> None:
    enrolled(store)
    store.credentials.open_exchange(leased(store), NOW + TTL)
    assert store.credentials.lease("crm", "worker-2", TTL, NOW + 2 * TTL) is None


def test_an_exchange_without_an_answer_has_lost_no_token_of_ours(store: Store) -> None:
    credential = enrolled(store)
    store.credentials.open_exchange(leased(store), NOW)
    later = NOW + 2 * TTL
    assert leased(store, owner="worker-2", now=later).unsettled == ()
    assert not store.credentials.has_lost_answer(store.credentials.get("crm"), later + 2 * TTL)
    proof = planted(store, credential, dead(Status.EXPIRED))
    assert store.credentials.expire("crm", proof.id, WORKER, NOW).status is Status.EXPIRED


def test_an_exchange_whose_answer_was_kept_can_still_be_taken_in(store: Store) -> None:
    enrolled(store)
    intent = store.credentials.open_exchange(leased(store), NOW)
    answer = token_answer()
    keep(store, intent, answer)
    [kept] = leased(store, owner="worker-2", now=NOW + 2 * TTL).unsettled
    assert (kept.id, kept.sent_token, kept.outcome) == (intent, False, None)
    assert kept.answer is not None
    assert store.credentials.open_answer(kept.answer) == answer


def test_an_exchange_leaves_a_refresh_open_whose_outcome_nobody_knows(store: Store) -> None:
    enrolled(store)
    refresh = store.credentials.open_intent(leased(store), "crm-refresh-1", NOW)
    lease = leased(store, owner="page", now=NOW + 2 * TTL)
    exchange = store.credentials.open_exchange(lease, NOW + 2 * TTL)
    store.credentials.refuse_exchange(lease, exchange, refused_code(), NOW + 2 * TTL)
    [unsettled] = leased(store, owner="worker-2", now=NOW + 4 * TTL).unsettled
    assert (unsettled.id, unsettled.outcome, unsettled.sent_token) == (refresh, None, True)


def test_a_refresh_that_comes_after_an_exchange_without_an_answer_has_lost_nothing_either(store: Store) -> None:
    enrolled(store)
    store.credentials.open_exchange(leased(store), NOW)
    lease = leased(store, owner="worker-2", now=NOW + 2 * TTL)
    intent = store.credentials.open_intent(lease, "crm-refresh-1", NOW + 2 * TTL)
    store.credentials.fail(lease, intent, refusal(), attempt_after=None, outcome=Ended.REFUSED, now=NOW + 2 * TTL)
    assert leased(store, owner="worker-3", now=NOW + 4 * TTL).unsettled == ()


def test_an_exchange_for_tokens_that_were_replaced_meanwhile_stores_nothing(store: Store) -> None:
    enrolled(store)
    slow = leased(store)
    intent = store.credentials.open_exchange(slow, NOW)
    renewed(store, owner="worker-2", now=NOW + 2 * TTL)
    seen = replace(success(), kind=Kind.CONNECT)
    assert store.credentials.renew(slow, intent, issued(9), seen, NOW + 2 * TTL) is None
    assert store.credentials.tokens(store.credentials.get("crm")).access_token == "access-2"


# -- a word -----------------------------------------------------------------------------------------------------------


def test_whoever_asks_for_a_refresh_makes_it_due(store: Store) -> None:
    enrolled(store)
    renewed(store)
    assert not store.credentials.get("crm").is_due(after(minutes=1))
    assert store.credentials.ask_now("crm", after(minutes=1)).is_due(after(minutes=1))
    failed(store, now=after(minutes=2), attempt_after=after(hours=1))
    assert store.credentials.ask_now("crm", after(minutes=3)).is_due(after(minutes=3)), "whatever failed before"
    with pytest.raises(NotRegisteredError, match="`nobody`"):
        store.credentials.ask_now("nobody", NOW)


def test_a_person_revives_an_expired_credential_and_it_is_asked_at_once(store: Store, raw: RawSql) -> None:
    enrolled(store)
    failed(store)
    expired(store)
    revived = store.credentials.revive("crm", " the provider had an outage ", ADA, after(hours=1))
    assert (revived.status, revived.status_since) == (Status.ACTIVE, after(hours=1))
    assert (revived.failures, revived.is_due(after(hours=1)), revived.generation) == (0, True, 1)
    seen = store.credentials.latest_evidence(revived)
    assert seen is not None
    assert (seen.kind, seen.subject, seen.verdict, seen.observer) == (Kind.PERSON, Subject.GRANT, Verdict.LIVE, ADA)
    assert (seen.reading.finding, seen.reading.rule) == (Finding.LIVE, "revived")
    said = "a person says that it works again: the provider had an outage"
    assert seen.reading.explanation == said
    [newest, _] = store.timeline.transitions(revived)
    assert (newest.evidence_id, newest.reason, newest.observer) == (seen.id, said, ADA)
    assert store.investigations.open_ones() == []


def test_a_person_revives_a_lapsed_credential(store: Store) -> None:
    credential = enrolled(store)
    store.credentials.record(credential, dead(Status.LAPSED), NOW)
    assert store.credentials.revive("crm", "they gave it back", ADA, NOW).status is Status.ACTIVE


def test_an_incident_outlives_a_persons_word(store: Store) -> None:
    enrolled(store)
    expired(store)
    store.incidents.open(TROUBLE, NOW)
    store.credentials.revive("crm", "they gave it back", ADA, NOW)
    assert store.incidents.open_about(About.CREDENTIAL, "crm") is not None
    renewed(store, now=after(minutes=1))
    assert store.incidents.open_about(About.CREDENTIAL, "crm") is None


def test_there_is_nothing_to_revive_where_it_is_active_or_nobody_says_why(store: Store, raw: RawSql) -> None:
    enrolled(store)
    before = raw.everything()
    with pytest.raises(ConfigurationError, match="`crm` is active already"):
        store.credentials.revive("crm", "why not", ADA, NOW)
    assert raw.everything() == before
    expired(store)
    before = raw.everything()
    with pytest.raises(ConfigurationError, match="`crm`: say why"):
        store.credentials.revive("crm", "  ", ADA, NOW)
    assert raw.everything() == before


def test_a_revived_credential_can_be_proven_dead_again(store: Store) -> None:
    enrolled(store)
    expired(store)
    store.credentials.revive("crm", "they gave it back", ADA, NOW)
    assert expired(store).status is Status.EXPIRED


# -- who is who -------------------------------------------------------------------------------------------------------


def test_the_name_of_the_person_is_kept_wherever_somebody_looked(store: Store, raw: RawSql) -> None:
    credential = enrolled(store)
    store.credentials.record(credential, replace(dead(Status.LAPSED), observer=ADA), NOW)
    store.credentials.revive("crm", "they gave it back", ADA, NOW)
    failed(store)
    store.investigations.take_on(credential, ADA, NOW)
    store.sources.beat("orders", 1, NOW, ADA)
    kept = {table: raw.rows(f"oauth_guard_{table}") for table in ("transitions", "investigations", "heartbeats")}
    assert {table: {row["person"] for row in rows} for table, rows in kept.items()} == {
        table: {"ada"} for table in kept
    }
    assert {seen.observer.person for seen in store.timeline.page(credential)} == {"ada", None}


def test_a_credential_knows_its_provider_and_keeps_it_where_nobody_says(store: Store) -> None:
    assert enrolled(store).provider == ""
    assert enrolled(store, provider="hubspot").provider == "hubspot"
    assert enrolled(store).provider == "hubspot"
    assert enrolled(store, provider="salesforce").provider == "salesforce"
    brought = enrollment(access_token="other", provider="")
    assert store.credentials.import_tokens(brought, after(minutes=1), WORKER).provider == "salesforce"
    assert store.credentials.get("crm").generation == 2


def test_a_new_provider_alone_asks_nothing_anew(store: Store) -> None:
    enrolled(store)
    failed(store, attempt_after=after(hours=1))
    assert enrolled(store, provider="hubspot").attempt_after == after(hours=1)
    assert enrolled(store, provider="hubspot", margin=timedelta(minutes=5)).provider == "hubspot"
