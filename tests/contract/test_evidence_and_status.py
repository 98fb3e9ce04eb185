"""Evidence is never rewritten, and no status but ``active`` stands without it: not by the package, not by raw SQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Subject, Verdict, as_columns
from airflow_oauth_guard.domain.redaction import redact_body, redact_headers, redact_text
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError, UnprovenTransitionError
from airflow_oauth_guard.store.journal import Ended
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.store import Store

from .conftest import RawSql
from .making import (
    NOW,
    SHAPE,
    SUBJECT_OF,
    THREADS,
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
    planted,
    refusal,
    renewed,
    success,
)

LIE = (
    "UPDATE oauth_guard_statuses SET status = :status, generation = :generation, evidence_id = :evidence_id, "
    "subject = :subject, verdict = :verdict WHERE credential_id = :credential_id"
)
NOT_CARRIED = "carried_by_evidence|fk_oauth_guard_statuses|FOREIGN KEY constraint failed|needs dead evidence"
OTHER_TARGET = {Status.EXPIRED: Status.LAPSED, Status.LAPSED: Status.EXPIRED}
targets = pytest.mark.parametrize("target", [Status.EXPIRED, Status.LAPSED], ids=lambda status: status.value)


def claim(credential: Credential, target: Status, proof: Evidence | None, **changes: Any) -> dict[str, Any]:
    """The columns of a status that says it rests on this evidence."""
    given: dict[str, Any] = {
        "credential_id": credential.id,
        "status": target.value,
        "generation": proof.generation if proof else None,
        "evidence_id": proof.id if proof else None,
        "subject": proof.subject.value if proof else None,
        "verdict": proof.verdict.value if proof else None,
    }
    return {**given, **changes}


# -- raw SQL and the status -----------------------------------------------------------------------------------------


@targets
def test_raw_sql_may_set_a_status_with_evidence_that_carries_it(store: Store, raw: RawSql, target: Status) -> None:
    """Else the refusals below would prove nothing."""
    credential = enrolled(store)
    proof = planted(store, credential, dead(target))
    raw.run(LIE, **claim(credential, target, proof))
    assert store.credentials.get("crm").status is target


@targets
def test_raw_sql_cannot_set_a_status_without_evidence(store: Store, raw: RawSql, target: Status) -> None:
    enrolled(store)
    failed(store)
    raw.is_refused("UPDATE oauth_guard_statuses SET status = :status", because=NOT_CARRIED, status=target.value)


@targets
def test_raw_sql_cannot_set_a_status_on_a_mere_failed_refresh(store: Store, raw: RawSql, target: Status) -> None:
    credential = enrolled(store)
    question = failed(store)
    raw.is_refused(LIE, because=NOT_CARRIED, **claim(credential, target, question))
    raw.is_refused(LIE, because=NOT_CARRIED, **claim(credential, target, question, subject=SUBJECT_OF[target].value))


@targets
def test_raw_sql_cannot_set_a_status_by_saying_itself_that_the_evidence_is_dead(
    store: Store, raw: RawSql, target: Status
) -> None:
    credential = enrolled(store)
    question = failed(store)
    raw.is_refused(
        LIE,
        because=NOT_CARRIED,
        **claim(credential, target, question, subject=SUBJECT_OF[target].value, verdict="dead"),
    )


@targets
@pytest.mark.parametrize(
    "left_out", [("subject",), ("verdict",), ("subject", "verdict"), ("generation",), ("evidence_id",)], ids="+".join
)
def test_raw_sql_cannot_set_a_status_by_leaving_out_what_the_evidence_says(
    store: Store, raw: RawSql, target: Status, left_out: tuple[str, ...]
) -> None:
    """With a NULL a CHECK is neither true nor false, and passes; with a NULL a foreign key is not looked at."""
    credential = enrolled(store)
    question = failed(store)
    said = claim(credential, target, question, subject=SUBJECT_OF[target].value, verdict="dead")
    raw.is_refused(LIE, because=NOT_CARRIED, **{**said, **dict.fromkeys(left_out)})
    raw.is_refused(LIE, because=NOT_CARRIED, **{**said, "evidence_id": 4711, **dict.fromkeys(left_out)})


@targets
def test_raw_sql_cannot_set_a_status_on_evidence_about_another_credential(
    store: Store, raw: RawSql, target: Status
) -> None:
    credential, other = enrolled(store), enrolled(store, "erp")
    proof = planted(store, other, dead(target))
    assert proof.generation == credential.generation
    raw.is_refused(LIE, because=NOT_CARRIED, **claim(credential, target, proof))


@targets
def test_raw_sql_cannot_set_a_status_on_evidence_about_older_tokens(store: Store, raw: RawSql, target: Status) -> None:
    credential = enrolled(store)
    proof = planted(store, credential, dead(target))
    assert renewed(store).generation == 2
    raw.is_refused(LIE, because=NOT_CARRIED, **claim(credential, target, proof))
    raw.is_refused(LIE, because=NOT_CARRIED, **claim(credential, target, proof, generation=2))


@targets
def test_raw_sql_cannot_set_a_status_on_evidence_about_something_else(
    store: Store, raw: RawSql, target: Status
) -> None:
    credential = enrolled(store)
    proof = planted(store, credential, dead(OTHER_TARGET[target]))
    raw.is_refused(LIE, because=NOT_CARRIED, **claim(credential, target, proof))
    raw.is_refused(LIE, because=NOT_CARRIED, **claim(credential, target, proof, subject=SUBJECT_OF[target].value))


def test_raw_sql_cannot_set_a_status_that_does_not_exist(store: Store, raw: RawSql) -> None:
    enrolled(store)
    raw.is_refused("UPDATE oauth_guard_statuses SET status = 'revoked'", because=NOT_CARRIED)


@targets
def test_raw_sql_cannot_put_an_unproven_status_in_anew(store: Store, raw: RawSql, target: Status) -> None:
    credential = enrolled(store)
    question = failed(store)
    raw.run("DELETE FROM oauth_guard_statuses")
    lie = (
        "INTO oauth_guard_statuses (credential_id, status, since, generation, evidence_id, subject, verdict) VALUES "
        "(:credential_id, :status, '2026-03-01 12:00:00', :generation, :evidence_id, :subject, :verdict)"
    )
    said = claim(credential, target, question, subject=SUBJECT_OF[target].value, verdict="dead")
    raw.is_refused(f"INSERT {lie}", because=NOT_CARRIED, **said)
    if raw.dialect != "postgresql":
        raw.is_refused(f"REPLACE {lie}", because=NOT_CARRIED, **said)


def test_raw_sql_cannot_give_an_expired_credential_other_tokens_and_leave_it_expired(store: Store, raw: RawSql) -> None:
    """The status would then rest on evidence about tokens that the credential no longer has."""
    enrolled(store)
    expired(store)
    with pytest.raises(DBAPIError, match=NOT_CARRIED):
        raw.run("UPDATE oauth_guard_tokens SET generation = 2")
    assert store.credentials.get("crm").generation == 1


# -- raw SQL and the evidence ---------------------------------------------------------------------------------------

EVIDENCE = "oauth_guard_evidence"
TRANSITIONS = "oauth_guard_transitions"


@pytest.fixture
def history(store: Store) -> Store:
    """One question, one proof, one transition; of today, since evidence may be deleted once it is old."""
    today = datetime.now(timezone.utc)
    credential = enrolled(store)
    failed(store, now=today)
    proof = planted(store, credential, dead(Status.EXPIRED, now=today))
    store.credentials.expire("crm", proof.id, WORKER, today)
    return store


@pytest.mark.parametrize(
    ("table", "change"),
    [
        (EVIDENCE, "verdict = 'live'"),
        (EVIDENCE, "body = ''"),
        (EVIDENCE, "investigation_id = 1"),
        (TRANSITIONS, "reason = 'because'"),
        (TRANSITIONS, "to_status = 'active'"),
    ],
)
def test_raw_sql_cannot_change_what_was_seen_or_done(history: Store, raw: RawSql, table: str, change: str) -> None:
    raw.is_refused(f"UPDATE {table} SET {change}", because="append-only")


@pytest.mark.parametrize("table", [EVIDENCE, TRANSITIONS])
def test_raw_sql_cannot_delete_what_was_seen_or_done(history: Store, raw: RawSql, table: str) -> None:
    raw.is_refused(f"DELETE FROM {table}", because="append-only")
    raw.is_refused(f"DELETE FROM {table} WHERE id = 1", because="append-only")


@pytest.mark.parametrize("table", [EVIDENCE, TRANSITIONS])
def test_raw_sql_cannot_put_another_row_in_the_place_of_one(history: Store, raw: RawSql, table: str) -> None:
    """SQLite fires no DELETE trigger for the row that a REPLACE takes away."""
    if raw.dialect == "postgresql":
        pytest.skip("PostgreSQL has no REPLACE; its ON CONFLICT DO UPDATE is an UPDATE")
    row = raw.rows(table)[0]
    row["explanation" if table == EVIDENCE else "reason"] = "it never happened"
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    raw.is_refused(
        f"REPLACE INTO {table} ({columns}) VALUES ({values})",
        because="append-only",
        **row,
    )


def test_raw_sql_cannot_empty_the_history_at_one_stroke(history: Store, raw: RawSql) -> None:
    """TRUNCATE fires no trigger for a row; MariaDB knows none for a statement, so there only a missing DROP right helps."""
    if raw.dialect != "postgresql":
        pytest.skip("SQLite has no TRUNCATE; in MariaDB no trigger can refuse it")
    raw.is_refused(f"TRUNCATE {TRANSITIONS}", because="append-only")
    raw.is_refused(f"TRUNCATE {EVIDENCE} CASCADE", because="append-only")


def insert_evidence(store: Store, credential: Credential, **changes: Any) -> None:
    columns = {**as_columns(refusal()), "credential_id": credential.id, "observed_at": "2026-03-01 12:00:00", **changes}
    names = ", ".join(columns)
    with store.database.write() as connection:
        connection.execute(
            text(f"INSERT INTO {EVIDENCE} ({names}) VALUES ({', '.join(f':{name}' for name in columns)})"), columns
        )


@pytest.mark.parametrize("kind", [Kind.REFRESH, Kind.PROBE, Kind.CONTROL], ids=lambda kind: kind.value)
def test_the_database_refuses_a_death_that_is_read_from_one_answer(store: Store, raw: RawSql, kind: Kind) -> None:
    credential = enrolled(store)
    with pytest.raises(DBAPIError, match="dead_is_concluded"):
        insert_evidence(store, credential, kind=kind.value, verdict="dead")
    with pytest.raises(DBAPIError, match="dead_is_concluded"):
        planted(store, credential, replace(refusal(), kind=kind, verdict=Verdict.DEAD))
    assert raw.rows(EVIDENCE) == []
    insert_evidence(store, credential, kind=kind.value)
    assert len(raw.rows(EVIDENCE)) == 1


def test_the_database_refuses_a_death_concluded_from_nothing(store: Store, raw: RawSql) -> None:
    credential = enrolled(store)
    with pytest.raises(DBAPIError, match="dead_rests_on_evidence"):
        planted(store, credential, dead(Status.EXPIRED, rests_on=()))
    assert raw.rows(EVIDENCE) == []


def test_the_database_refuses_evidence_about_a_credential_that_it_does_not_know(store: Store, raw: RawSql) -> None:
    credential = enrolled(store)
    with pytest.raises(DBAPIError):
        planted(store, replace(credential, id=4711), refusal())
    assert raw.rows(EVIDENCE) == []


# -- evidence kept and read back ------------------------------------------------------------------------------------


def test_evidence_comes_back_as_it_was_seen(store: Store) -> None:
    credential = enrolled(store)
    seen = Evidence(
        kind=Kind.PROBE,
        generation=1,
        observed_at=NOW,
        reading=Reading(Subject.ACCESS_TOKEN, Finding.RATE_LIMITED, "rfc6585_4", "too many, 太多 🐢"),
        verdict=Verdict.OPEN,
        shape=SHAPE,
        http_status=429,
        headers={"retry-after": "120", "server": "tür"},
        body='{"error": "slow_down", "message": "🐢"}',
        skew=timedelta(seconds=-1_234_567.125),
        rests_on=(3, 1, 2),
        observer=WORKER,
        investigation_id=12,
        retry_after=timedelta(seconds=86_400.5),
        answer_id="a" * 64,
    )
    kept = store.credentials.record(credential, seen, NOW)
    assert kept.id is not None
    assert found(store, kept) == replace(seen, id=kept.id)


def test_evidence_of_almost_nothing_comes_back_as_almost_nothing(store: Store) -> None:
    credential = enrolled(store)
    reading = Reading(Subject.PROVIDER, Finding.PROVIDER_OUTAGE, "no_answer", "nobody answered")
    seen = Evidence(Kind.REFRESH, 1, NOW, reading, Verdict.OPEN, skew=timedelta())
    kept = store.credentials.record(credential, seen, NOW)
    assert found(store, kept) == replace(seen, id=kept.id)


@pytest.mark.parametrize(
    "strange", ["\x00", "\ud800", "\U0001f422", "\x1b[31m", "'; DROP TABLE x; --", "%s :name ?"], ids=ascii
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_whatever_a_provider_writes_can_be_kept(store: Store, strange: str, form: str) -> None:
    """An answer that cannot be kept as evidence stays in the journal, and every next run would stumble over it."""
    enrolled(store)
    lease = store.credentials.lease("crm", "worker-1", timedelta(seconds=90), NOW)
    assert lease is not None
    intent = store.credentials.open_intent(lease, "crm-refresh-1", NOW)
    said = f"before{strange}after"
    body = json.dumps({"error_description": said}).encode() if form == "json" else said.encode(errors="replace")
    seen = replace(
        refusal(),
        reading=replace(refusal().reading, explanation=redact_text(said, ())),
        # Plain bytes, and JSON, where an escape can stand for what no bytes can.
        body=redact_body(body, ()),
        headers=redact_headers({"www-authenticate": said}, ()),
    )
    kept = store.credentials.fail(lease, intent, seen, attempt_after=None, outcome=Ended.REFUSED, now=NOW)
    there = found(store, kept)
    assert there is not None
    for words in (there.body, there.reading.explanation, there.headers["www-authenticate"]):
        assert "before" in words
        assert "after" in words


def test_the_latest_evidence_is_the_last_one_written_of_those_kinds_about_that_credential(store: Store) -> None:
    credential, other = enrolled(store), enrolled(store, "erp")
    assert store.credentials.latest_evidence(credential) is None
    refresh = planted(store, credential, refusal())
    probe = planted(store, credential, replace(refusal(), kind=Kind.PROBE))
    planted(store, other, refusal())
    assert store.credentials.latest_evidence(credential) == probe
    assert store.credentials.latest_evidence(credential, Kind.REFRESH) == refresh
    assert store.credentials.latest_evidence(credential, Kind.CONTROL, Kind.PERSON) is None


def test_a_request_is_proven_by_a_success_of_its_own_or_lately_of_a_sibling(store: Store) -> None:
    credential = enrolled(store)
    sibling, stranger = enrolled(store, "erp"), enrolled(store, "shop", client_key="client-b")

    def proven(now: Any = NOW, shape_id: str = SHAPE.id) -> bool:
        return store.credentials.shape_is_proven(credential, shape_id, now)

    planted(store, credential, refusal())
    planted(store, credential, replace(success(), kind=Kind.PROBE))
    planted(store, stranger, success())
    assert not proven()
    planted(store, sibling, success())
    assert proven(after(days=7))
    assert not proven(after(days=7, seconds=1))
    assert not proven(shape_id=replace(SHAPE, grant_type="client_credentials").id)
    planted(store, credential, success())
    assert proven(after(days=700))


# -- the status through the package ---------------------------------------------------------------------------------


def test_a_new_credential_is_active(store: Store) -> None:
    credential = enrolled(store)
    assert (credential.status, credential.status_since) == (Status.ACTIVE, NOW)
    assert store.credentials.status_evidence(credential) is None
    assert store.credentials.transitions(credential) == []


@pytest.mark.parametrize("kind", [Kind.REFRESH, Kind.PROBE, Kind.CONTROL], ids=lambda kind: kind.value)
def test_no_single_bad_answer_changes_a_status(store: Store, kind: Kind) -> None:
    credential = enrolled(store)
    for subject, finding in product(Subject, set(Finding) - {Finding.LIVE}):
        seen = Evidence(kind, 1, NOW, Reading(subject, finding, "rule", "said so"), Verdict.OPEN)
        assert store.credentials.record(credential, seen, NOW).id is not None
        assert store.credentials.get("crm") == credential, (subject, finding)
    assert store.credentials.transitions(credential) == []


def test_an_access_token_proven_dead_makes_the_credential_lapsed_and_a_live_one_active_again(store: Store) -> None:
    credential = enrolled(store)
    proof = store.credentials.record(credential, dead(Status.LAPSED, now=after(minutes=-2)), NOW)
    lapsed = store.credentials.get("crm")
    assert (lapsed.status, lapsed.status_since) == (Status.LAPSED, after(minutes=-2))
    assert store.credentials.status_evidence(lapsed) == proof
    reading = Reading(Subject.ACCESS_TOKEN, Finding.LIVE, "probe", "it answered")
    life = store.credentials.record(credential, Evidence(Kind.PROBE, 1, after(hours=1), reading, Verdict.LIVE), NOW)
    active = store.credentials.get("crm")
    assert (active.status, active.status_since) == (Status.ACTIVE, after(hours=1))
    assert store.credentials.status_evidence(active) is None
    changes = store.credentials.transitions(active)
    assert [(c["from_status"], c["to_status"], c["evidence_id"]) for c in changes] == [
        ("active", "lapsed", proof.id),
        ("lapsed", "active", life.id),
    ]


def test_a_transition_says_when_it_became_true_when_it_was_written_why_and_who_looked(store: Store) -> None:
    credential = enrolled(store)
    store.credentials.record(credential, dead(Status.LAPSED, now=after(minutes=-2)), NOW)
    [change] = store.credentials.transitions(credential)
    assert (change["became_true_at"], change["written_at"]) == (after(minutes=-2), NOW)
    assert change["reason"] == "the access token is rejected"
    assert {name: change[name] for name in asdict(WORKER)} == asdict(WORKER)


def test_recording_that_the_grant_is_dead_keeps_the_evidence_and_expires_nothing(store: Store) -> None:
    credential = enrolled(store)
    kept = store.credentials.record(credential, dead(Status.EXPIRED), NOW)
    assert store.credentials.get("crm") == credential
    assert found(store, kept) == kept


@pytest.mark.parametrize("target", [Status.LAPSED, Status.ACTIVE], ids=lambda status: status.value)
def test_evidence_about_older_tokens_is_kept_and_changes_nothing(store: Store, target: Status) -> None:
    enrolled(store)
    credential = renewed(store)
    if target is Status.LAPSED:
        late = dead(Status.LAPSED, generation=1)
    else:
        store.credentials.record(credential, dead(Status.LAPSED, generation=2), NOW)
        reading = Reading(Subject.ACCESS_TOKEN, Finding.LIVE, "probe", "it answered")
        late = Evidence(Kind.PROBE, 1, NOW, reading, Verdict.LIVE)
    before = store.credentials.get("crm")
    kept = store.credentials.record(credential, late, NOW)
    assert store.credentials.get("crm") == before
    assert found(store, kept) == kept


def test_a_probe_that_is_recorded_while_new_tokens_arrive_does_no_harm(
    store: Store, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict about the old token and the renewal meet in the database; whichever wins, both are kept."""
    credential = enrolled(store)
    other = open_store()
    interrupt = interrupting(monkeypatch, lambda: renewed(other))
    kept = store.credentials.record(credential, dead(Status.LAPSED), NOW)
    assert interrupt().generation == 2
    assert store.credentials.get("crm").status is Status.ACTIVE
    assert found(store, kept) == kept


def test_new_tokens_from_a_person_and_from_a_refresh_do_not_share_a_generation(
    store: Store, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation names one pair of tokens: evidence about it must not be read as evidence about another."""
    enrolled(store)
    other = open_store()
    refused: list[UnprovenTransitionError] = []

    def renew() -> Credential:
        try:
            return renewed(other)
        except UnprovenTransitionError as error:
            refused.append(error)
            return other.credentials.get("crm")

    interrupt = interrupting(monkeypatch, renew)
    reseeded = store.credentials.enroll(enrollment(access_token="new", refresh_token="new"), after(hours=1))
    interrupt()
    now = store.credentials.get("crm")
    if refused:
        assert (now.generation, reseeded.generation) == (2, 2)
    else:
        assert now.generation == 3, "two pairs of tokens were both called generation 2"


# -- expire ---------------------------------------------------------------------------------------------------------


def expire(store: Store, evidence_id: int | None) -> Credential:
    return store.credentials.expire("crm", evidence_id, Observer(task_id="expire"), after(hours=1))


def still_active(store: Store) -> bool:
    credential = store.credentials.get("crm")
    return credential.status is Status.ACTIVE and store.credentials.transitions(credential) == []


@pytest.mark.parametrize("evidence_id", [None, 4711])
def test_expire_refuses_without_evidence(store: Store, evidence_id: int | None) -> None:
    enrolled(store)
    with pytest.raises(UnprovenTransitionError, match="no evidence"):
        expire(store, evidence_id)
    assert still_active(store)


def test_expire_refuses_a_failed_refresh(store: Store) -> None:
    enrolled(store)
    question = failed(store)
    with pytest.raises(UnprovenTransitionError, match=f"evidence {question.id} says `grant_dead`.*does not carry it"):
        expire(store, question.id)
    assert still_active(store)


def test_expire_refuses_evidence_about_older_tokens(store: Store) -> None:
    credential = enrolled(store)
    proof = planted(store, credential, dead(Status.EXPIRED))
    renewed(store)
    with pytest.raises(UnprovenTransitionError, match="generation 1, and the credential is at 2"):
        expire(store, proof.id)
    assert still_active(store)


def test_expire_refuses_evidence_about_another_credential(store: Store) -> None:
    credential, other = enrolled(store), enrolled(store, "erp")
    proof = planted(store, other, dead(Status.EXPIRED))
    assert proof.generation == credential.generation
    with pytest.raises(UnprovenTransitionError, match="crm"):
        expire(store, proof.id)
    assert still_active(store)


def test_expire_refuses_a_dead_access_token(store: Store) -> None:
    credential = enrolled(store)
    proof = planted(store, credential, dead(Status.LAPSED))
    with pytest.raises(UnprovenTransitionError, match="access_token"):
        expire(store, proof.id)
    assert still_active(store)


def test_expire_refuses_a_credential_that_it_does_not_know(store: Store) -> None:
    with pytest.raises(NotRegisteredError, match="`crm` is not in the store"):
        expire(store, 1)


@pytest.mark.parametrize("kind", [Kind.CONCLUSION, Kind.PERSON], ids=lambda kind: kind.value)
@pytest.mark.parametrize("was", [Status.ACTIVE, Status.LAPSED], ids=lambda status: status.value)
def test_expire_rests_on_a_proof_about_the_newest_tokens_and_keeps_them(store: Store, kind: Kind, was: Status) -> None:
    enrolled(store)
    credential = renewed(store)
    if was is Status.LAPSED:
        store.credentials.record(credential, dead(Status.LAPSED, generation=2), NOW)
    kept = store.credentials.tokens(credential)
    proof = planted(store, credential, dead(Status.EXPIRED, generation=2, kind=kind))
    gone = expire(store, proof.id)
    assert (gone.status, gone.status_since, gone.generation) == (Status.EXPIRED, NOW, 2)
    assert store.credentials.status_evidence(gone) == proof
    assert store.credentials.tokens(gone) == kept
    assert store.credentials.lease("crm", "recovery", timedelta(seconds=90), NOW) is not None, "recovery keeps asking"
    change = store.credentials.transitions(gone)[-1]
    assert (change["from_status"], change["to_status"], change["evidence_id"]) == (was.value, "expired", proof.id)
    assert (change["became_true_at"], change["written_at"], change["task_id"]) == (NOW, after(hours=1), "expire")


def test_expiring_twice_is_one_transition(store: Store) -> None:
    credential = enrolled(store)
    proof = planted(store, credential, dead(Status.EXPIRED))
    assert expire(store, proof.id) == expire(store, proof.id)
    assert len(store.credentials.transitions(credential)) == 1


def test_eight_processes_that_expire_at_once_write_one_transition(
    store: Store, open_store: Callable[..., Store]
) -> None:
    credential = enrolled(store)
    proof = planted(store, credential, dead(Status.EXPIRED))
    stores = [open_store() for _ in range(THREADS)]
    gone = at_once([lambda one=one: expire(one, proof.id) for one in stores])
    assert {credential.status for credential in gone} == {Status.EXPIRED}
    assert len(store.credentials.transitions(credential)) == 1
