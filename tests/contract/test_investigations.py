"""Questions: at most one open per credential, with the evidence that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_oauth_guard.domain.evidence import Finding, Kind, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.investigation import Conclusion, Owner
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError
from airflow_oauth_guard.store.incidents import Symptom
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
    store.credentials.conclude(store.investigation(number), DEATH, [proof], SYMPTOM, close=close, now=after(hours=1))
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
    store.credentials.conclude(investigation, DEATH, [proof], SYMPTOM, close=False, now=after(hours=1))
    assert raw.everything() == before


def test_a_person_is_asked_once_and_the_answer_is_kept_with_its_name(store: Store) -> None:
    number = opened(store, enrolled(store))
    store.investigations.asked(number, after(hours=1))
    store.investigations.asked(number, after(hours=2))
    store.investigations.answered(number, "expire", "ada", after(hours=3))
    investigation = store.investigation(number)
    assert investigation.asked_at == after(hours=1)
    assert (investigation.answer, investigation.answered_by) == ("expire", "ada")
    assert store.investigations.row(number)["answered_at"] == after(hours=3)
    assert investigation.closed_at is None, "answering is not closing"


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
