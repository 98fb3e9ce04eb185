"""Questions: at most one open per credential, with the evidence that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from airflow_oauth_guard.domain.evidence import Finding, Kind, Observer, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.investigation import Conclusion, Owner, signature
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError, UnprovenTransitionError
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.journal import Ended
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.store import Store

from .conftest import RawSql
from .making import (
    NOW,
    THREADS,
    WORKER,
    after,
    at_once,
    dead,
    enrolled,
    failed,
    leased,
    open_question,
    planted,
    refusal,
    renewed,
)

DEATH = Conclusion(
    finding=Finding.GRANT_DEAD,
    subject=Subject.GRANT,
    verdict=Verdict.DEAD,
    explanation="The grant is dead.",
    owner=Owner.ACCOUNT,
    rests_on=(1,),
    access_token=Verdict.OPEN,
)
SYMPTOM = Symptom(About.CREDENTIAL, "crm", IncidentKind.GRANT_DEAD, "The grant is dead.", NOW)


def opened(store: Store, credential: Credential) -> int:
    investigation = open_question(store, credential, failed(store, credential.conn_id), WORKER, NOW)
    assert investigation is not None
    return investigation


def loses_an_answer(store: Store, now: datetime) -> None:
    lease = leased(store, now=now)
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, now)
    again_at = now + timedelta(minutes=5)
    store.credentials.fail(lease, intent, refusal(now=now), attempt_after=again_at, outcome=Ended.LOST, now=now)


def test_an_investigation_comes_back_with_its_credential_and_the_refresh_that_raised_it(store: Store) -> None:
    credential = enrolled(store)
    question = failed(store)
    number = open_question(store, credential, question, WORKER, after(minutes=1))
    assert number is not None
    investigation = store.investigation(number)
    assert investigation.credential == store.credentials.get("crm")
    assert (investigation.generation, investigation.opening_evidence_id) == (1, question.id)
    assert (investigation.opened_at, investigation.closed_at) == (NOW, None)
    assert (investigation.finding, investigation.explanation, investigation.owner) == (None, "", "")
    assert investigation.conclusion_evidence_id is None
    assert store.investigations.row(number)["run_id"] == WORKER.run_id


def test_an_investigation_that_does_not_exist_is_an_error_that_says_where_the_number_comes_from(store: Store) -> None:
    with pytest.raises(NotRegisteredError, match=r"no investigation 4711.*RefreshOperator"):
        store.investigation(4711)


def test_while_a_question_is_open_a_second_one_about_the_credential_is_not_raised(store: Store) -> None:
    credential, other = enrolled(store), enrolled(store, "erp")
    number = opened(store, credential)
    assert open_question(store, credential, failed(store), WORKER, after(hours=1)) is None
    assert opened(store, other) != number
    assert store.investigations.open_ones()[0]["id"] == number


def test_eight_workers_that_raise_a_question_at_once_raise_one(
    store: Store, open_store: Callable[..., Store], raw: RawSql
) -> None:
    credential = enrolled(store)
    question = failed(store)
    stores = [open_store() for _ in range(THREADS)]
    numbers = at_once([lambda one=one: open_question(one, credential, question, WORKER, NOW) for one in stores])
    assert len([number for number in numbers if number is not None]) == 1
    assert len(raw.rows("oauth_guard_investigations")) == 1


def test_a_question_about_evidence_that_was_never_kept_is_an_error_and_not_taken_for_an_open_one(
    store: Store, raw: RawSql
) -> None:
    credential = enrolled(store)
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        open_question(store, credential, replace(refusal(), id=4711), WORKER, NOW)
    assert raw.rows("oauth_guard_investigations") == []


def test_a_closed_question_makes_room_for_the_next(store: Store) -> None:
    credential = enrolled(store)
    first = opened(store, credential)
    store.investigations.close(first, after(hours=1))
    store.investigations.close(first, after(hours=2))
    assert store.investigation(first).closed_at == after(hours=1)
    assert store.investigations.open_ones() == []
    assert opened(store, credential) != first


def test_the_evidence_of_a_question_begins_with_the_refresh_that_raised_it_and_holds_no_other(store: Store) -> None:
    credential, other = enrolled(store), enrolled(store, "erp")
    planted(store, credential, refusal())
    number = opened(store, credential)
    investigation = store.investigation(number)
    looks = [
        planted(store, credential, replace(refusal(now=after(minutes=minute)), kind=kind, investigation_id=number))
        for minute, kind in ((1, Kind.PROBE), (2, Kind.CONTROL), (3, Kind.REFRESH))
    ]
    planted(store, credential, refusal())
    planted(store, other, replace(refusal(), investigation_id=number + 1))
    evidence = store.investigations.evidence(investigation)
    assert evidence[0].id == investigation.opening_evidence_id
    assert evidence[1:] == looks


@pytest.mark.parametrize("close", [True, False])
def test_a_conclusion_is_written_down_and_closes_the_question_unless_a_person_is_to_be_asked(
    store: Store, *, close: bool
) -> None:
    credential = enrolled(store)
    number = opened(store, credential)
    proof = dead(Status.EXPIRED, investigation_id=number)
    store.credentials.conclude(store.investigation(number), DEATH, [proof], [SYMPTOM], close=close, now=after(hours=1))
    investigation = store.investigation(number)
    assert (investigation.finding, investigation.explanation) == ("grant_dead", "The grant is dead.")
    assert investigation.owner == Owner.ACCOUNT.name
    assert investigation.closed_at == (after(hours=1) if close else None)
    assert investigation.conclusion_evidence_id == store.credentials.latest_evidence(credential, Kind.CONCLUSION).id
    assert store.incidents.open_about(About.CREDENTIAL, "crm").kind is IncidentKind.GRANT_DEAD
    assert (open_question(store, credential, failed(store), WORKER, NOW) is None) is not close


def test_a_question_that_answered_itself_meanwhile_is_not_concluded(store: Store, raw: RawSql) -> None:
    """A refresh brought new tokens while somebody was looking: no incident may say that they are dead."""
    credential = enrolled(store)
    investigation = store.investigation(opened(store, credential))
    renewed(store)
    before = raw.everything()
    proof = dead(Status.EXPIRED, investigation_id=investigation.id)
    store.credentials.conclude(investigation, DEATH, [proof], [SYMPTOM], close=False, now=after(hours=1))
    assert raw.everything() == before


def test_a_question_whose_holder_is_gone_is_taken_on_by_the_next(store: Store) -> None:
    """Its task was killed, or its DAG deleted: nobody would look into it for ever."""
    credential = enrolled(store)
    number = opened(store, credential)
    take_on = store.investigations.take_on
    assert take_on(credential, WORKER, after(hours=2)) is None
    assert take_on(credential, WORKER, after(hours=2), abandoned_before=NOW) is None, "it was only just taken on"
    next_ = replace(WORKER, run_id="the next")
    assert take_on(credential, next_, after(hours=2), abandoned_before=after(hours=1)) == number
    row = store.investigations.row(number)
    assert (row["run_id"], row["handed_over_at"]) == ("the next", after(hours=2))
    assert take_on(credential, WORKER, after(hours=2), abandoned_before=after(hours=1)) is None, "it is taken on again"


def test_a_question_that_waits_for_a_person_is_not_taken_on_again(store: Store) -> None:
    credential = enrolled(store)
    number = opened(store, credential)
    proof = dead(Status.EXPIRED, investigation_id=number)
    store.credentials.conclude(
        store.investigation(number), DEATH, [proof], [SYMPTOM], close=False, now=after(minutes=1)
    )
    assert store.investigations.take_on(credential, WORKER, after(days=3), abandoned_before=after(days=2)) is None


def test_a_question_nobody_has_taken_on_is_free_whatever_its_age(store: Store) -> None:
    credential = enrolled(store)
    failed(store)
    [raised] = store.investigations.open_ones()
    assert store.investigations.take_on(credential, WORKER, NOW, abandoned_before=after(days=-1)) == raised["id"]


def test_eight_workers_that_find_a_question_abandoned_take_it_on_once(
    store: Store, open_store: Callable[..., Store]
) -> None:
    credential = enrolled(store)
    number = opened(store, credential)
    stores = [open_store() for _ in range(THREADS)]

    def take_on(one: Store) -> int | None:
        return one.investigations.take_on(credential, WORKER, after(hours=2), abandoned_before=after(hours=1))

    taken = at_once([lambda one=one: take_on(one) for one in stores])
    assert [question for question in taken if question is not None] == [number]


def test_a_lost_answer_ends_what_was_concluded_before_it_and_raises_a_question_of_its_own(store: Store) -> None:
    """A proven death that waits for a person: the refresh after it may have brought new tokens."""
    credential = enrolled(store)
    number = opened(store, credential)
    proof = dead(Status.EXPIRED, investigation_id=number)
    store.credentials.conclude(store.investigation(number), DEATH, [proof], [SYMPTOM], close=False, now=NOW)
    loses_an_answer(store, after(minutes=5))
    concluded = store.investigation(number)
    assert concluded.closed_at == after(minutes=5)
    assert "does not hold" in concluded.explanation
    [raised] = store.investigations.open_ones()
    assert (raised["id"] != number, raised["handed_over_at"]) == (True, None)
    with pytest.raises(UnprovenTransitionError, match=r"`crm` was not set `expired`.*has no answer"):
        store.credentials.expire("crm", concluded.conclusion_evidence_id, WORKER, after(minutes=6))
    assert store.credentials.get("crm").status is Status.ACTIVE


def test_a_lost_answer_raises_a_question_though_a_failure_that_looks_like_it_was_looked_into(store: Store) -> None:
    credential = enrolled(store)
    first = failed(store)
    looks_the_same = replace(SYMPTOM, kind=IncidentKind.UNKNOWN, signature=signature(first))
    store.incidents.open(looks_the_same, NOW)
    assert store.investigations.take_on(credential, WORKER, NOW) is not None
    store.investigations.close(store.investigations.open_ones()[0]["id"], NOW)
    failed(store, now=after(minutes=5))
    assert store.investigations.open_ones() == [], "the same failure was looked into"
    loses_an_answer(store, after(minutes=10))
    assert len(store.investigations.open_ones()) == 1
    store.investigations.close(store.investigations.open_ones()[0]["id"], NOW)
    store.incidents.open(replace(SYMPTOM, kind=IncidentKind.AMBIGUOUS), after(minutes=11))
    loses_an_answer(store, after(minutes=15))
    assert store.investigations.open_ones() == [], "people know that it is ambiguous"


def test_a_person_is_asked_once_and_the_answer_is_kept_with_its_name(store: Store) -> None:
    number = opened(store, enrolled(store))
    store.investigations.asked(number, WORKER, after(hours=1))
    store.investigations.asked(number, WORKER, after(hours=2))
    store.investigations.answered(number, "expire", "ada", after(hours=3))
    investigation = store.investigation(number)
    assert investigation.asked_at == after(hours=1)
    assert (investigation.answer, investigation.answered_by) == ("expire", "ada")
    assert store.investigations.row(number)["answered_at"] == after(hours=3)
    assert investigation.closed_at is None, "answering is not closing"


def test_the_open_question_about_a_credential_says_where_its_request_waits(store: Store) -> None:
    credential = enrolled(store)
    assert store.investigations.open_for(credential) is None
    number = opened(store, credential)
    first = Observer("oauth_guard_investigate", "manual__1", "investigate.approve", 3, 1)
    store.investigations.asked(number, first, after(hours=1))
    store.investigations.asked(number, replace(first, run_id="manual__2"), after(hours=2))
    question = store.investigations.open_for(store.credentials.get("crm"))
    assert question is not None
    assert (question.id, question.asked_at, question.asked_in) == (number, after(hours=1), first)
    assert question == store.investigation(number)
    assert store.investigations.open_for(enrolled(store, "erp")) is None
    store.investigations.close(number, after(hours=3))
    assert store.investigations.open_for(credential) is None


def test_an_investigation_shows_the_credential_as_it_is_now(store: Store) -> None:
    number = opened(store, enrolled(store))
    renewed(store)
    investigation = store.investigation(number)
    assert (investigation.generation, investigation.credential.generation) == (1, 2)


def test_open_questions_are_listed_oldest_first(store: Store) -> None:
    numbers = [opened(store, enrolled(store, name)) for name in ("c", "a", "b")]
    assert [row["id"] for row in store.investigations.open_ones()] == numbers


def test_the_database_refuses_two_open_questions_about_one_credential(store: Store, raw: RawSql) -> None:
    credential = enrolled(store)
    opened(store, credential)
    other = opened(store, enrolled(store, "erp"))
    raw.is_refused(
        f"UPDATE oauth_guard_investigations SET open_for = {credential.id} WHERE id = {other}",
        because="(?i)unique|duplicate",
    )
