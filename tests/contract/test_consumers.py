"""Which tasks use which credential, and all that one of them needs to know of it, on every store."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import update

from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Subject, Verdict
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.store.consumers import WRITTEN_ANEW_AFTER, Consumer
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import tokens

from .conftest import RawSql
from .making import NOW, THREADS, after, at_once, dead, enrolled

SECOND = timedelta(seconds=1)


def named(store: Store) -> list[str]:
    return [f"{one.dag_id}.{one.task_id}" for one in store.consumers.of(["crm"], NOW).get("crm", [])]


# -- who uses it ------------------------------------------------------------------------------------------------------


def test_a_task_that_used_a_credential_is_a_consumer_of_it(store: Store) -> None:
    credential = enrolled(store)
    assert store.consumers.of(["crm"], NOW) == {}
    store.consumers.note(credential.id, "load_crm", "load", NOW)
    assert store.consumers.of(["crm"], NOW) == {"crm": [Consumer("load_crm", "load", NOW)]}


def test_a_task_that_uses_it_again_is_the_same_consumer(store: Store, raw: RawSql) -> None:
    credential = enrolled(store)
    for hours in (0, 1, 2):
        store.consumers.note(credential.id, "load_crm", "load", after(hours=hours))
    assert store.consumers.of(["crm"], NOW) == {"crm": [Consumer("load_crm", "load", after(hours=2))]}
    [row] = raw.rows("oauth_guard_consumers")
    assert row["first_used_at"] < row["last_used_at"]


def test_consumers_are_told_by_credential_and_in_order(store: Store) -> None:
    crm, erp = enrolled(store, "crm"), enrolled(store, "erp")
    enrolled(store, "unused")
    for credential, dag_id, task_id in (
        (crm, "sync", "b"),
        (erp, "load", "a"),
        (crm, "load", "z"),
        (crm, "sync", "a"),
        (crm, "load", "a"),
    ):
        store.consumers.note(credential.id, dag_id, task_id, NOW)
    found = store.consumers.of(["erp", "unused", "crm", "unknown"], NOW)
    assert set(found) == {"crm", "erp"}
    assert [(one.dag_id, one.task_id) for one in found["crm"]] == [
        ("load", "a"),
        ("load", "z"),
        ("sync", "a"),
        ("sync", "b"),
    ]
    assert store.consumers.of([], NOW) == {}


def test_names_that_differ_in_case_or_accents_only_are_consumers_of_their_own(store: Store) -> None:
    credential = enrolled(store)
    for task_id in ("load", "Load", "löad"):
        store.consumers.note(credential.id, "d" * 250, task_id, NOW)
    assert len(named(store)) == 3


def test_who_has_not_used_it_for_a_month_is_no_consumer_any_more(store: Store) -> None:
    credential = enrolled(store)
    store.consumers.note(credential.id, "load", "monthly", after(days=-30))
    store.consumers.note(credential.id, "load", "gone", after(days=-30, seconds=-1))
    assert named(store) == ["load.monthly"]


def test_many_that_note_the_same_consumer_at_once_note_one(store: Store, raw: RawSql) -> None:
    credential = enrolled(store)
    at_once([lambda: store.consumers.note(credential.id, "load_crm", "load", NOW)] * THREADS)
    assert len(raw.rows("oauth_guard_consumers")) == 1


# -- what one of them needs to know -----------------------------------------------------------------------------------


def living(store: Store, credential: Credential, life: timedelta) -> None:
    with store.database.write() as connection:
        mine = tokens.c.credential_id == credential.id
        connection.execute(update(tokens).where(mine).values(issued_at=NOW, expires_at=NOW + life))


def test_one_look_tells_the_credential_its_token_and_when_this_task_was_noted(store: Store) -> None:
    credential = enrolled(store)
    store.consumers.note(credential.id, "load", "mine", after(minutes=-5))
    store.consumers.note(credential.id, "load", "another", NOW)
    look = store.consumers.look("crm", "load", "mine")
    assert look is not None
    assert look.credential == store.credentials.get("crm")
    assert look.access_token == store.credentials.tokens(credential).access_token
    assert look.used_at == after(minutes=-5)
    assert look.access_token not in repr(look)
    unknown = store.consumers.look("crm", None, None)
    assert unknown is not None
    assert unknown.used_at is None
    assert store.consumers.look("unknown", "load", "mine") is None


def test_a_task_is_to_be_noted_once_an_hour(store: Store) -> None:
    credential = enrolled(store)
    first = store.consumers.look("crm", "load", "mine")
    store.consumers.note(credential.id, "load", "mine", NOW)
    second = store.consumers.look("crm", "load", "mine")
    assert first is not None
    assert second is not None
    assert first.is_news(NOW)
    assert not second.is_news(NOW + WRITTEN_ANEW_AFTER)
    assert second.is_news(NOW + WRITTEN_ANEW_AFTER + SECOND)


def test_a_token_is_fresh_until_it_is_due(store: Store) -> None:
    credential = enrolled(store)
    living(store, credential, timedelta(hours=2))
    look = store.consumers.look("crm", None, None)
    assert look is not None
    assert look.credential.life.due_at is not None
    assert look.is_fresh(NOW)
    assert look.is_fresh(look.credential.life.due_at - SECOND)
    assert not look.is_fresh(look.credential.life.due_at)


def test_a_credential_that_is_not_active_has_no_fresh_token(store: Store) -> None:
    credential = enrolled(store)
    living(store, credential, timedelta(hours=2))
    store.credentials.record(credential, dead(Status.LAPSED), NOW)
    look = store.consumers.look("crm", None, None)
    assert look is not None
    assert not look.credential.is_active
    assert not look.is_fresh(NOW)


def test_where_there_is_no_token_none_is_fresh(store: Store) -> None:
    enrolled(store, access_token="", expires_at=None)
    look = store.consumers.look("crm", None, None)
    assert look is not None
    assert (look.access_token, look.is_fresh(NOW)) == ("", False)


def test_what_a_consumer_was_refused_is_kept_and_changes_no_status(store: Store) -> None:
    credential = enrolled(store)
    reading = Reading(
        Subject.ACCESS_TOKEN, Finding.ACCESS_TOKEN_DEAD, "error_code", "the provider says `invalid_token`"
    )
    refused = Evidence(
        Kind.USE, 1, NOW, reading, Verdict.OPEN, http_status=401, observer=Observer("load", "run", "mine")
    )
    kept = store.credentials.record(credential, refused, NOW)
    assert store.credentials.latest_evidence(credential, Kind.USE) == kept
    assert store.credentials.get("crm") == credential
