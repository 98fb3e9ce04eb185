"""What the contract tests put into a store, and how they ask for one thing many times at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from sqlalchemy import select

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Shape, Subject, Verdict
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.grants.flow import IssuedTokens
from airflow_oauth_guard.store import evidence as ledger
from airflow_oauth_guard.store.investigations import _insert, _open_id
from airflow_oauth_guard.store.journal import Ended
from airflow_oauth_guard.store.records import Credential, Enrollment, Lease
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import evidence as ledger_table

T = TypeVar("T")

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
OTHER_KEY = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
TTL = timedelta(seconds=90)
WORKER = Observer("oauth_guard_refresh", "scheduled__2026-03-01", "refresh", 3, 2)
ADA = Observer(task_id="OAuth Guard page", person="ada")
SHAPE = Shape("refresh_token", "POST", "https://provider.example/token", "client_secret_basic", "form", ("grant_type",))
THREADS = 8


def after(**duration: float) -> datetime:
    return NOW + timedelta(**duration)


def at_once(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run the jobs in threads that start together; the first error is raised."""
    gate = threading.Barrier(len(jobs))

    def run(job: Callable[[], T]) -> T:
        gate.wait(timeout=30)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run, job) for job in jobs]]


def interrupting(monkeypatch: pytest.MonkeyPatch, job: Callable[[], Credential]) -> Callable[[], Credential]:
    """Run a job of another process in the middle of the next transaction that is about to apply evidence."""
    apply, pool, here = ledger.apply, ThreadPoolExecutor(1), threading.get_ident()
    started: list[Future[Credential]] = []

    def apply_in_between(*args: Any) -> Any:
        if threading.get_ident() == here and not started:
            started.append(pool.submit(job))
            # It may have to wait for us: then we go on, and it comes after.
            wait(started, timeout=0.7)
        return apply(*args)

    def result() -> Credential:
        with pool:
            return started[0].result(timeout=40)

    monkeypatch.setattr(ledger, "apply", apply_in_between)
    return result


# -- credentials ----------------------------------------------------------------------------------------------------


def enrollment(conn_id: str = "crm", **changes: Any) -> Enrollment:
    given = Enrollment(
        conn_id=conn_id,
        connection_class="refresh_token",
        client_key="client-a",
        margin=timedelta(minutes=10),
        alert_route="crm-owners",
        probe_host="api.example",
        access_token=f"{conn_id}-access-1",
        refresh_token=f"{conn_id}-refresh-1",
    )
    return replace(given, **changes)


def enrolled(store: Store, conn_id: str = "crm", **changes: Any) -> Credential:
    return store.credentials.enroll(enrollment(conn_id, **changes), NOW)


def leased(store: Store, conn_id: str = "crm", owner: str = "worker-1", now: datetime = NOW) -> Lease:
    lease = store.credentials.lease(conn_id, owner, TTL, now)
    assert lease is not None
    return lease


def issued(generation: int = 2, **changes: Any) -> IssuedTokens:
    given = IssuedTokens(
        f"access-{generation}", f"refresh-{generation}", expires_in=timedelta(hours=1), scope="read write"
    )
    return replace(given, **changes)


def keep(store: Store, intent: int, answer: HttpAnswer) -> None:
    """Keep a raw answer, as the hook does before it parses it."""
    store.credentials.keep_answer(intent, store.credentials.seal_answer(answer))


def renewed(store: Store, conn_id: str = "crm", owner: str = "worker-1", now: datetime = NOW) -> Credential:
    """One whole refresh that succeeds."""
    lease = leased(store, conn_id, owner, now)
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, now)
    keep(store, intent, token_answer(lease.tokens.generation + 1))
    tokens = issued(lease.tokens.generation + 1)
    credential, _ = store.credentials.renew(lease, intent, tokens, success(lease.tokens.generation, now), now)
    return credential


def connected(store: Store, conn_id: str = "crm", now: datetime = NOW) -> Credential:
    """What a person brought back, exchanged for tokens."""
    lease = leased(store, conn_id, "page", now)
    intent = store.credentials.open_exchange(lease, now)
    seen = replace(success(lease.tokens.generation, now), kind=Kind.CONNECT, observer=ADA)
    stored = store.credentials.renew(lease, intent, issued(lease.tokens.generation + 1), seen, now)
    assert stored is not None
    return stored[0]


def failed(
    store: Store, conn_id: str = "crm", now: datetime = NOW, *, attempt_after: datetime | None = None
) -> Evidence:
    """One whole refresh that the provider refuses."""
    lease = leased(store, conn_id, now=now)
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, now)
    seen = refusal(lease.tokens.generation, now)
    return store.credentials.fail(
        lease, intent, seen, attempt_after=attempt_after or now + timedelta(minutes=5), outcome=Ended.REFUSED, now=now
    )


def expired(store: Store, conn_id: str = "crm") -> Credential:
    credential = store.credentials.get(conn_id)
    proof = planted(store, credential, dead(Status.EXPIRED, credential.generation))
    return store.credentials.expire(conn_id, proof.id, WORKER, NOW)


# -- answers and evidence -------------------------------------------------------------------------------------------


def token_answer(generation: int = 2, **changes: Any) -> HttpAnswer:
    document = {"access_token": f"access-{generation}", "refresh_token": f"refresh-{generation}", "expires_in": 3600}
    given = HttpAnswer(200, {"content-type": "application/json"}, json.dumps(document).encode(), NOW)
    return replace(given, **changes)


def success(generation: int = 1, now: datetime = NOW) -> Evidence:
    reading = Reading(Subject.GRANT, Finding.LIVE, "rfc6749_5.1", "the provider issued an access token")
    return Evidence(Kind.REFRESH, generation, now, reading, Verdict.LIVE, SHAPE, 200, observer=WORKER)


def refusal(generation: int = 1, now: datetime = NOW) -> Evidence:
    """A failed refresh: the strongest thing a single answer can say against a grant, and still a question."""
    reading = Reading(Subject.GRANT, Finding.GRANT_DEAD, "rfc6749_5.2", "the provider said invalid_grant")
    return Evidence(Kind.REFRESH, generation, now, reading, Verdict.OPEN, SHAPE, 400, answer_id="no", observer=WORKER)


SUBJECT_OF = {Status.EXPIRED: Subject.GRANT, Status.LAPSED: Subject.ACCESS_TOKEN}
FINDING_OF = {Status.EXPIRED: Finding.GRANT_DEAD, Status.LAPSED: Finding.ACCESS_TOKEN_DEAD}


def dead(target: Status, generation: int = 1, now: datetime = NOW, **changes: Any) -> Evidence:
    """A conclusion that carries ``target`` for tokens of this generation."""
    reading = Reading(SUBJECT_OF[target], FINDING_OF[target], "investigation", "it is proven dead")
    given = Evidence(Kind.CONCLUSION, generation, now, reading, Verdict.DEAD, rests_on=(1, 2), observer=WORKER)
    return replace(given, **changes)


def found(store: Store, evidence: Evidence) -> Evidence | None:
    """The evidence as the store has it, whoever it is about."""
    with store.database.read() as connection:
        row = connection.execute(select(ledger_table).where(ledger_table.c.id == evidence.id)).mappings().one_or_none()
    return ledger.from_row(row) if row else None


def planted(store: Store, credential: Credential, seen: Evidence) -> Evidence:
    """Keep evidence without letting it change anything."""
    with store.database.write() as connection:
        return ledger.add(connection, credential.id, seen)


def open_question(store: Store, credential: Credential, failed: Evidence, who: Observer, now: datetime) -> int | None:
    """Take on the question of this failed refresh, raised first if need be; None if somebody has taken it on."""
    with store.database.write() as connection:
        if _open_id(connection, credential.id) is None:
            _insert(connection, credential, failed, now)
    return store.investigations.take_on(credential, who, now)
