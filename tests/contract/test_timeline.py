"""The history of one credential as people read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Reading, Subject, Verdict
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError
from airflow_oauth_guard.store.encryption import fingerprint
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.timeline import Generation

from .making import (
    ADA,
    NOW,
    OTHER_KEY,
    WORKER,
    after,
    connected,
    dead,
    enrolled,
    enrollment,
    expired,
    failed,
    issued,
    leased,
    open_question,
    planted,
    refusal,
    renewed,
    success,
)

CONTROL = replace(refusal(), kind=Kind.CONTROL)
PROBE = Evidence(
    Kind.PROBE, 1, NOW, Reading(Subject.ACCESS_TOKEN, Finding.LIVE, "probe_answered", "it answered"), Verdict.LIVE
)


# -- what was seen ----------------------------------------------------------------------------------------------------


def test_what_was_seen_is_read_in_pages_newest_first(store: Store) -> None:
    credential, other = enrolled(store), enrolled(store, "erp")
    seen = []
    for minutes in range(7):
        seen.append(planted(store, credential, success(now=after(minutes=-minutes))))
        planted(store, other, success())
    newest_first = seen[::-1]
    assert store.timeline.page(credential) == newest_first
    pages, before = [], None
    while page := store.timeline.page(credential, before=before, limit=3):
        pages.append(page)
        before = page[-1].id
    assert pages == [newest_first[:3], newest_first[3:6], newest_first[6:]]


def test_a_page_shows_only_the_kinds_that_were_asked_for(store: Store) -> None:
    credential = enrolled(store)
    refresh, probe, control = (planted(store, credential, one) for one in (success(), PROBE, CONTROL))
    assert store.timeline.page(credential, kinds=[Kind.PROBE]) == [probe]
    assert store.timeline.page(credential, kinds={Kind.REFRESH, Kind.CONTROL}) == [control, refresh]
    assert store.timeline.page(credential, kinds={Kind.REFRESH, Kind.CONTROL}, before=control.id) == [refresh]
    assert store.timeline.page(credential, kinds=[Kind.PERSON]) == []


def test_one_piece_of_evidence_is_read_where_it_belongs(store: Store) -> None:
    credential, other = enrolled(store), enrolled(store, "erp")
    seen = planted(store, credential, replace(success(), observer=ADA))
    assert seen.id is not None
    assert store.timeline.evidence(credential, seen.id) == seen
    for whose, number in ((other, seen.id), (credential, seen.id + 1)):
        with pytest.raises(NotRegisteredError, match=f"`{whose.conn_id}` has no evidence {number}"):
            store.timeline.evidence(whose, number)


def test_what_a_conclusion_rests_on_may_be_a_control_of_a_sibling_and_nothing_else_of_others(store: Store) -> None:
    credential = enrolled(store)
    sibling, stranger = enrolled(store, "erp"), enrolled(store, "shop", client_key="client-b")
    own, control = planted(store, credential, refusal()), planted(store, sibling, CONTROL)
    others = [planted(store, sibling, refusal()), planted(store, stranger, CONTROL)]
    numbers = [one.id for one in (control, own, *others) if one.id is not None]
    assert store.timeline.those(credential, numbers) == [own, control]
    assert store.timeline.those(credential, []) == []


def test_all_that_was_looked_at_in_an_investigation_is_shown_with_its_opening_and_a_control_that_served_again(
    store: Store,
) -> None:
    credential = enrolled(store)
    before = planted(store, credential, replace(CONTROL, observed_at=after(hours=-1), investigation_id=99))
    raised = failed(store)
    question = open_question(store, credential, raised, WORKER, NOW)
    assert question is not None
    probe = planted(store, credential, replace(PROBE, investigation_id=question))
    planted(store, credential, PROBE)
    assert store.timeline.of_investigation(question) == [raised, before, probe]
    with pytest.raises(NotRegisteredError, match="no investigation 98"):
        store.timeline.of_investigation(98)


def test_its_questions_are_shown_newest_first(store: Store) -> None:
    credential = enrolled(store)
    numbers = []
    for minutes in range(3):
        question = open_question(store, credential, failed(store, now=after(minutes=minutes)), WORKER, NOW)
        assert question is not None
        store.investigations.close(question, after(minutes=minutes))
        numbers.append(question)
    open_question(store, enrolled(store, "erp"), failed(store, "erp"), WORKER, NOW)
    credential = store.credentials.get("crm")
    assert [one.id for one in store.timeline.investigations(credential)] == numbers[::-1]
    [newest] = store.timeline.investigations(credential, limit=1)
    assert newest == store.investigation(numbers[-1])


# -- what it changed --------------------------------------------------------------------------------------------------


def test_its_changes_of_status_are_shown_newest_first_with_what_carried_them(store: Store) -> None:
    credential = enrolled(store)
    lapse = store.credentials.record(credential, replace(dead(Status.LAPSED), observed_at=after(minutes=-5)), NOW)
    expired(store)
    expired_by = store.credentials.status_evidence(credential)
    assert expired_by is not None
    store.credentials.revive("crm", "they gave it back", ADA, after(hours=1))
    revived, expiry, lapsed = store.timeline.transitions(credential)
    assert [(one.from_status, one.to_status) for one in (lapsed, expiry, revived)] == [
        (Status.ACTIVE, Status.LAPSED),
        (Status.LAPSED, Status.EXPIRED),
        (Status.EXPIRED, Status.ACTIVE),
    ]
    assert (lapsed.evidence_id, lapsed.became_true_at, lapsed.written_at) == (lapse.id, after(minutes=-5), NOW)
    assert (lapsed.reason, lapsed.observer) == ("the access token is rejected", WORKER)
    assert (expiry.evidence_id, revived.observer) == (expired_by.id, ADA)
    assert store.timeline.transitions(credential, limit=1) == [revived]
    assert store.timeline.transitions(enrolled(store, "erp")) == []


# -- its tokens -------------------------------------------------------------------------------------------------------


def named(store: Store, limit: int = 50) -> list[Generation]:
    return store.timeline.generations(store.credentials.get("crm"), limit)


def test_tokens_are_shown_by_fingerprint_and_those_of_long_ago_as_far_as_they_are_known(store: Store) -> None:
    enrolled(store)
    for minutes in (1, 2, 3):
        renewed(store, now=after(minutes=minutes))
    assert named(store) == [
        Generation(4, fingerprint("access-4"), fingerprint("refresh-4"), after(minutes=3), is_current=True),
        Generation(3, fingerprint("access-3"), fingerprint("refresh-3"), after(minutes=2), is_current=False),
        Generation(2, "", fingerprint("refresh-2"), after(minutes=1), is_current=False),
        Generation(1, "", fingerprint("crm-refresh-1"), None, is_current=False),
    ]
    assert named(store, limit=2) == named(store)[:2]
    assert "access-4" not in repr(named(store))


def test_tokens_that_a_person_brought_came_when_they_did(store: Store) -> None:
    enrolled(store)
    store.credentials.enroll(enrollment(refresh_token="entered"), after(hours=1))
    connected(store, now=after(hours=2))
    assert [(one.number, one.issued_at) for one in named(store)] == [
        (3, after(hours=2)),
        (2, after(hours=1)),
        (1, None),
    ]


def test_a_persons_word_makes_no_generation(store: Store) -> None:
    enrolled(store)
    renewed(store)
    expired(store)
    store.credentials.revive("crm", "they gave it back", ADA, after(hours=1))
    renewed(store, now=after(hours=2))
    assert [one.issued_at for one in named(store)] == [after(hours=2), NOW, None]


def test_a_class_that_stores_no_refresh_token_has_sent_its_access_token(store: Store) -> None:
    enrolled(store, refresh_token="")
    for generation in (1, 2, 3):
        lease = leased(store)
        intent = store.credentials.open_intent(lease, lease.tokens.access_token, NOW)
        brought = issued(generation + 1, refresh_token=None)
        store.credentials.renew(lease, intent, brought, success(generation), NOW)
    assert [(one.access_fingerprint, one.refresh_fingerprint) for one in named(store)] == [
        (fingerprint("access-4"), ""),
        (fingerprint("access-3"), ""),
        (fingerprint("access-2"), ""),
        (fingerprint("crm-access-1"), ""),
    ]


def test_the_history_of_tokens_that_no_key_opens_can_be_read(store: Store, open_store: Callable[..., Store]) -> None:
    enrolled(store)
    renewed(store)
    [newest, first] = open_store(OTHER_KEY).timeline.generations(store.credentials.get("crm"))
    assert (newest.refresh_fingerprint, newest.issued_at) == ("", NOW)
    assert (first.access_fingerprint, first.refresh_fingerprint) == ("", fingerprint("crm-refresh-1"))


def test_a_credential_without_tokens_has_no_generation(store: Store) -> None:
    enrolled(store, access_token="", refresh_token="")
    assert named(store) == []


def test_a_credential_that_begins_without_tokens_has_its_first_from_a_person(store: Store) -> None:
    enrolled(store, access_token="", refresh_token="")
    connected(store)
    assert [(one.number, one.issued_at, one.is_current) for one in named(store)] == [(1, NOW, True)]
