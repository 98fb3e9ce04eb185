"""A year of many credentials at model providers, most of it dull, the rest treacherous; the truth is known throughout.

What decides is the package itself: its grants' requests and readings, its refresh flow, its investigation with every
control, its status table, schedule and brake, against :class:`~tests.truth.world.World`. Beside it four usual rules watch
the same answers of the same year, each declaring credentials dead in its own way.

Three things are ours. :class:`Memory` stands for the store: the same questions, answered from a few lists. The real one,
with its locks, leases, journal and constraints, is covered by `tests/contract` and `tests/faults`; here nobody is killed and
no two processes meet. :class:`Guard` stands for Airflow: it calls what the operators call, in their order, and
`tests/unit/operators` covers those. Heart-beats, flat lines and consumers are left out. And a healthy refresh, of which a
year has millions, only counts: each credential's first, one a week (with the baseline probe) and every one near a fault
go through the package.

    python -m tests.truth.year [--credentials 1000] [--days 365] [--seed 1] [--intensity 1]
"""

from __future__ import annotations

import argparse
import heapq
import logging
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

if __name__ == "__main__":
    # Before anything can import Airflow, as in every test run.
    from tests.conftest import set_environment

    set_environment()

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, read_body
from airflow_oauth_guard.domain.brake import Brake, Downgrades
from airflow_oauth_guard.domain.evidence import Evidence, Kind, Observer, Reading, Subject, Verdict
from airflow_oauth_guard.domain.evidence import Finding as F
from airflow_oauth_guard.domain.incidents import RENOTIFY_AFTER, TIME_MAY_CURE, About, Incident, IncidentKind
from airflow_oauth_guard.domain.investigation import (
    CONTROLS_PER_DAY,
    SIBLING_WINDOW,
    SIBLINGS_WITHIN,
    Conclusion,
    Owner,
    Siblings,
    signature,
)
from airflow_oauth_guard.domain.schedule import Life
from airflow_oauth_guard.domain.status import Status, require_carries, rule_for
from airflow_oauth_guard.grants.flow import HttpRequest, IssuedTokens
from airflow_oauth_guard.hooks import base, declared, investigation, refreshing, renewing
from airflow_oauth_guard.hooks.investigation import Patience, look, proves_death, settle
from airflow_oauth_guard.hooks.refreshing import Refresh, Refreshed
from airflow_oauth_guard.store.clients import BASELINE_AFTER, NAMED
from airflow_oauth_guard.store.evidence import CONTROL_SERVES_FOR, SIBLINGS_CONTROL_SERVES_FOR
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.investigations import PROBE_AGAIN_AFTER
from airflow_oauth_guard.store.journal import Ended, Intent
from airflow_oauth_guard.store.records import Credential, Enrollment, Investigation, Lease, Tokens
from tests.truth.world import (
    BESIDE_REFRESHING,
    DAY,
    HOUR,
    MINUTE,
    MODELS,
    START,
    Cause,
    Client,
    Death,
    Fault,
    Model,
    Truth,
    World,
    instant,
    made_up,
)

T = TypeVar("T")


def since_start(moment: datetime) -> float:
    return (moment - START).total_seconds()


CYCLE = 5 * MINUTE
"""How often the refresh DAG looks, as `refresh_schedule` has it by default."""
HAND_OVER = 20
"""Seconds until the investigating DAG has begun."""
PATIENCE = Patience(pause=timedelta(seconds=60), give_up_after=timedelta(seconds=1800))
"""As `confirmation_pause_seconds` and `investigation_seconds` have it by default."""
DEADLINE = timedelta(seconds=30)
WHO = Observer("oauth_guard_refresh", "scheduled", "refresh", -1, 1)
BRAKE = Brake()
POLICY = "policy: evidence suffices"
EXPIRE_WAIT = timedelta(hours=6)
"""The default of ``[oauth_guard] expire_wait_seconds``."""


# -- the store, in memory -------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Row:
    """What the store knows of one credential, and the count of what it cost."""

    id: int
    truth: Truth
    days: int
    settings: Enrollment = field(init=False)
    generation: int = 1
    family: int = 0
    number: int = 0
    """Which of the provider's tokens is held."""
    status: Status = Status.ACTIVE
    since: datetime = START
    issued: float | None = None
    """On our clock; None for tokens that a person entered."""
    lifetime: float | None = None
    every: int = CYCLE
    """From one refresh to the next while all is well."""
    next_at: int = 0
    failures: int = 0
    attempt_after: datetime | None = None
    lost: list[Intent] = field(default_factory=list)
    question: Question | None = None
    questions: list[Question] = field(default_factory=list)
    """The newest two."""
    baseline_at: int = 0
    last_live: float = -1.0
    """When a refresh succeeded last, on our clock."""
    shape_id: str = ""
    """Of the refresh that succeeded last."""
    proven: set[str] = field(default_factory=set)
    """Shapes that have ever succeeded."""
    failed_with: dict[F, datetime] = field(default_factory=dict)
    failing_since: datetime | None = None
    latest_refresh: Evidence | None = None
    latest_probe: Evidence | None = None
    probed: dict[str, datetime] = field(default_factory=dict)
    probe_lived: dict[str, datetime] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    """Requests of each day."""
    other_calls: Counter[str] = field(default_factory=Counter)
    """Those that are no refresh of our own, by what they are."""
    looks: Counter[int] = field(default_factory=Counter)
    """The same by day."""

    def __post_init__(self) -> None:
        self.calls = [0] * (self.days + 1)
        self.settings = self.truth.hook.enrollment()

    @property
    def name(self) -> str:
        return self.truth.name

    @property
    def life(self) -> Life:
        issued = None if self.issued is None else instant(self.issued)
        ends = None if self.issued is None or self.lifetime is None else instant(self.issued + self.lifetime)
        return Life(issued, ends, self.settings.margin, self.settings.at_half_life)

    @property
    def record(self) -> Credential:
        return Credential(
            id=self.id,
            conn_id=self.name,
            connection_class=self.settings.connection_class,
            client_key=self.settings.client_key,
            status=self.status,
            status_since=self.since,
            generation=self.generation,
            life=self.life,
            failures=self.failures,
            attempt_after=self.attempt_after,
            expire_policy=self.settings.expire_policy,
            alert_route="",
        )

    @property
    def tokens(self) -> Tokens:
        truth = self.truth
        access = truth.access_token(self.family, self.number)
        refresh = truth.refresh_token(self.family, self.number)
        if truth.model.connection_class != "refresh_token":
            # Who takes it for a class with a refresh token pastes what he has.
            refresh = access if truth.hook.grant_class.sends == "refresh_token" else ""
        return Tokens(self.generation, access, refresh)

    @property
    def is_alive(self) -> bool:
        """Whether the provider would take the token that is held, were nothing else wrong."""
        truth = self.truth
        return truth.death is None and (truth.lost is None or truth.accepts(self.family, self.number, truth.spent_at))


@dataclass(eq=False)
class Question:
    id: int
    row: Row
    generation: int
    opened_at: datetime
    opening: Evidence
    looks: list[Evidence] = field(default_factory=list)
    handed_over: bool = False
    conclusion: Evidence | None = None
    finding: str | None = None
    explanation: str = ""
    answer: str | None = None
    answered_by: str | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True)
class Downgrade:
    row: Row
    at: datetime


class Memory:
    """Answers what :class:`~airflow_oauth_guard.store.store.Store` is asked, from lists; see there for each method."""

    def __init__(self) -> None:
        self.credentials = self.clients = self.investigations = self.incidents = self
        self.rows: dict[str, Row] = {}
        self.families: dict[str, list[Row]] = {}
        """By client key."""
        self.questions: list[Question] = []
        self.controls: dict[str, list[tuple[Row, Evidence]]] = {}
        self.downgrades: list[Downgrade] = []
        self.open_incidents: dict[tuple[About, str], Incident] = {}
        self.declined: set[tuple[str, int]] = set()
        self.false_expiries = 0
        self._ids = count(1)
        self.on_status: Callable[[Row, Status, Status], None] = lambda row, was, now: None
        self.on_incident: Callable[[Incident], None] = lambda incident: None
        self.on_conclusion: Callable[[Row, Conclusion], None] = lambda row, conclusion: None
        self.on_symptom: Callable[[Symptom], None] = lambda symptom: None

    def add(self, row: Row) -> None:
        self.rows[row.name] = row
        self.families.setdefault(row.settings.client_key, []).append(row)

    def reread(self, row: Row, now: datetime) -> None:
        """Somebody has changed the connection."""
        self.families[row.settings.client_key].remove(row)
        was, row.settings = row.settings, row.truth.hook.enrollment()
        self.families.setdefault(row.settings.client_key, []).append(row)
        changed = (was.connection_class, was.client_key) != (row.settings.connection_class, row.settings.client_key)
        if changed and row.attempt_after:
            row.attempt_after = now

    # -- credentials and one refresh ----------------------------------------------------------------------------

    def enroll(self, enrollment: Enrollment, now: datetime, observer: Observer) -> Credential:
        return self.rows[enrollment.conn_id].record

    def get(self, conn_id: str) -> Credential:
        return self.rows[conn_id].record

    def tokens(self, credential: Credential) -> Tokens:
        return self.rows[credential.conn_id].tokens

    def lease(self, conn_id: str, owner: str, ttl: timedelta, now: datetime) -> Lease:
        row = self.rows[conn_id]
        return Lease(row.record, row.tokens, owner, ttl, tuple(row.lost))

    def release(self, lease: Lease) -> None:
        """Nobody else would take it."""

    def open_intent(self, lease: Lease, token: str, now: datetime, *, spends: bool) -> int:
        row = self.rows[lease.credential.conn_id]
        if not spends:
            row.lost.clear()
        row.lost.append(Intent(next(self._ids), now, None, None))
        return row.lost[-1].id

    def _close_intent(self, row: Row, intent_id: int | None, outcome: Ended) -> None:
        kept = [replace(intent, outcome=outcome) if intent.id == intent_id else intent for intent in row.lost]
        row.lost = [intent for intent in kept if intent.outcome is Ended.LOST]

    def seal_answer(self, answer: Answer) -> str:
        return ""

    def renew(
        self,
        lease: Lease,
        intent_id: int,
        issued: IssuedTokens,
        seen: Evidence,
        now: datetime,
        *,
        resolves: bool = True,
    ) -> tuple[Credential, Evidence]:
        row = self.rows[lease.credential.conn_id]
        recorded = self._kept(row, seen)
        was = self._apply(row, recorded)
        if issued.access_token:
            _, _, family, number = issued.access_token.split(".")
            row.family, row.number = int(family), int(number)
        row.generation += 1
        row.issued = since_start(seen.observed_at)
        row.lifetime = issued.expires_in.total_seconds() if issued.expires_in else None
        row.failures, row.attempt_after, row.lost, row.last_live = 0, None, [], row.issued
        if seen.shape:
            row.shape_id = seen.shape.id
            row.proven.add(row.shape_id)
        self._close_question(row, f"a refresh succeeded (evidence {recorded.id})", now)
        if resolves:
            self.open_incidents.pop((About.CREDENTIAL, row.name), None)
            if self.open_incidents.pop((About.CLIENT, lease.credential.client_name), None):
                self._look_into_siblings_anew(row.settings.client_key)
        self.false_expiries += was is Status.EXPIRED
        return row.record, recorded

    def _look_into_siblings_anew(self, client_key: str) -> None:
        for row in self.families[client_key]:
            key = (About.CREDENTIAL, row.name)
            incident = self.open_incidents.get(key)
            if incident is not None and incident.kind is IncidentKind.CLIENT_FAILING:
                self.open_incidents[key] = replace(incident, signature="")
                # Nobody else speaks for it any more.
                self.on_incident(self.open_incidents[key])

    def fail(
        self,
        lease: Lease,
        intent_id: int | None,
        seen: Evidence,
        *,
        attempt_after: datetime | None,
        outcome: Ended,
        now: datetime,
    ) -> Evidence:
        row = self.rows[lease.credential.conn_id]
        recorded = self._kept(row, seen)
        self._close_intent(row, intent_id, outcome)
        if attempt_after is not None and row.generation == lease.tokens.generation:
            row.failing_since = row.failing_since if row.failures else seen.observed_at
            row.failures += 1
            row.attempt_after = attempt_after
            self._raise_question(row, recorded, now, lost=outcome is Ended.LOST)
        return recorded

    def ask_about_loss(self, lease: Lease, now: datetime) -> None:
        row = self.rows[lease.credential.conn_id]
        failed = row.latest_refresh
        if failed is not None and failed.generation == row.generation:
            self._raise_question(row, failed, now, lost=True)

    def has_lost_answer(self, credential: Credential, now: datetime) -> bool:
        return bool(self.rows[credential.conn_id].lost)

    def shape_is_proven(self, credential: Credential, shape_id: str, now: datetime) -> bool:
        row = self.rows[credential.conn_id]
        lately = since_start(now - SIBLING_WINDOW)
        return shape_id in row.proven or any(
            other.shape_id == shape_id and other.last_live >= lately for other in self.families[credential.client_key]
        )

    def reseed(self, row: Row, now: datetime) -> None:
        """A person has entered new tokens."""
        reading = Reading(Subject.GRANT, F.LIVE, "reseeded", "a person entered new tokens")
        given = Evidence(Kind.PERSON, row.generation, now, reading, Verdict.LIVE, observer=WHO)
        self._apply(row, self._kept(row, given))
        row.generation += 1
        row.issued = row.lifetime = None
        row.failures, row.attempt_after, row.lost = 0, now, []
        self._close_question(row, reading.explanation, now)

    # -- evidence and status ------------------------------------------------------------------------------------

    def record(self, credential: Credential, seen: Evidence, now: datetime) -> Evidence:
        row = self.rows[credential.conn_id]
        recorded = self._kept(row, seen)
        destructive = seen.subject is Subject.GRANT and seen.verdict is Verdict.DEAD
        if seen.generation == row.generation and not destructive:
            self._apply(row, recorded)
        return recorded

    def _kept(self, row: Row, seen: Evidence) -> Evidence:
        recorded = replace(seen, id=next(self._ids))
        if seen.investigation_id is not None and seen.kind is not Kind.CONCLUSION:
            self.questions[seen.investigation_id].looks.append(recorded)
        if seen.kind is Kind.REFRESH:
            row.latest_refresh = recorded
            row.failed_with[seen.finding] = seen.observed_at
        elif seen.kind is Kind.PROBE and seen.shape is not None:
            row.latest_probe = recorded
            row.probed[seen.shape.id] = seen.observed_at
            row.baseline_at = int(since_start(seen.observed_at + BASELINE_AFTER))
            if seen.verdict is Verdict.LIVE:
                row.probe_lived[seen.shape.id] = seen.observed_at
        elif seen.kind is Kind.CONTROL:
            self.controls.setdefault(row.settings.client_key, []).append((row, recorded))
        return recorded

    def _apply(self, row: Row, seen: Evidence) -> Status:
        was, rule = row.status, rule_for(row.status, seen)
        if rule.target is None:
            return was
        row.status, row.since = rule.target, seen.observed_at
        if rule.target is not Status.ACTIVE:
            self.downgrades.append(Downgrade(row, seen.observed_at))
        self.on_status(row, was, rule.target)
        return was

    def expire(self, row: Row, proof: Evidence | None) -> None:
        assert not row.lost
        carries = require_carries(proof, Status.EXPIRED, conn_id=row.name, generation=row.generation)
        self._apply(row, carries)

    # -- what the credentials of one client tell about each other -----------------------------------------------

    def siblings(self, credential: Credential, failed: Evidence) -> Siblings:
        others = [row for row in self.families[credential.client_key] if row.id != credential.id]
        since = failed.observed_at - SIBLINGS_WITHIN
        failing = [
            row
            for row in others
            if row.failures
            and (at := row.failed_with.get(failed.finding)) is not None
            and at >= since
            and not self._is_known_dead(row)
        ]
        began = min([failed.observed_at, *(max(since, row.failing_since or since) for row in failing)])
        working = sum(row.last_live >= since_start(began) and not row.failures for row in others)
        return Siblings(len(failing), working, tuple(sorted(row.name for row in failing)[:NAMED]))

    def _is_known_dead(self, row: Row) -> bool:
        incident = self.open_incidents.get((About.CREDENTIAL, row.name))
        return incident is not None and incident.kind is IncidentKind.GRANT_DEAD

    def latest_evidence(self, credential: Credential, *kinds: Kind) -> Evidence | None:
        row = self.rows[credential.conn_id]
        return row.latest_probe if kinds == (Kind.PROBE,) else row.latest_refresh

    def may_control(self, credential: Credential, now: datetime) -> bool:
        since = now - timedelta(days=1)
        controls = self.controls.get(credential.client_key, [])
        return sum(seen.observed_at >= since for _, seen in controls[-CONTROLS_PER_DAY:]) < CONTROLS_PER_DAY

    def probe_worked(self, credential: Credential, shape_id: str, now: datetime) -> bool:
        lately = now - SIBLING_WINDOW
        return shape_id in self.rows[credential.conn_id].probe_lived or any(
            (at := row.probe_lived.get(shape_id)) is not None and at >= lately
            for row in self.families[credential.client_key]
        )

    def baseline_is_due(self, credential: Credential, shape_id: str, now: datetime) -> bool:
        probed = self.rows[credential.conn_id].probed.get(shape_id)
        return probed is None or probed < now - BASELINE_AFTER

    def brake(self, credential: Credential, brake: Brake, now: datetime) -> str:
        since = now - brake.window
        self.downgrades = [one for one in self.downgrades if one.at >= since]
        down = {one.row.id: one.row for one in self.downgrades}
        down |= {q.row.id: q.row for q in self._waiting()}
        down.pop(credential.id, None)
        ours = sum(row.settings.client_key == credential.client_key for row in down.values())
        client = Downgrades(others=ours, size=len(self.families[credential.client_key]))
        everybody = Downgrades(others=len(down), size=len(self.rows))
        return brake.stops(client, "of this client") or brake.stops(everybody, "altogether")

    def _waiting(self) -> Iterator[Question]:
        for row in self.rows.values():
            if row.question is not None and row.question.finding == F.GRANT_DEAD.value:
                yield row.question

    # -- questions ----------------------------------------------------------------------------------------------

    def investigation(self, investigation_id: int) -> Investigation:
        question = self.questions[investigation_id]
        return Investigation(
            id=question.id,
            credential=question.row.record,
            generation=question.generation,
            opened_at=question.opened_at,
            opening_evidence_id=question.opening.id or 0,
            finding=question.finding,
            explanation=question.explanation,
            closed_at=question.closed_at,
        )

    def row(self, investigation_id: int) -> Mapping[str, Any]:
        return {"closed_at": self.questions[investigation_id].closed_at}

    def evidence(self, asked: Investigation) -> list[Evidence]:
        question = self.questions[asked.id]
        control = self._control_for(question)
        return [question.opening, *([control] if control else []), *question.looks]

    def _control_for(self, question: Question) -> Evidence | None:
        """A control that was run lately for the same request serves again."""
        opening, row = question.opening, question.row
        for whose, seen in reversed(self.controls.get(row.settings.client_key, [])):
            own = whose is row and seen.generation == opening.generation
            age = opening.observed_at - seen.observed_at
            serves = age <= (CONTROL_SERVES_FOR if own else SIBLINGS_CONTROL_SERVES_FOR)
            if seen.shape == opening.shape and seen.investigation_id != question.id and serves:
                return seen
            if age > CONTROL_SERVES_FOR:
                break
        return None

    def _raise_question(self, row: Row, failed: Evidence, now: datetime, *, lost: bool) -> None:
        question = row.question
        concluded = question is not None and question.conclusion is not None
        if lost and question and concluded and question.finding != IncidentKind.AMBIGUOUS.value:
            self._close_question(row, "a later refresh has no answer, so this does not hold", now)
        if row.question is not None:
            if not row.question.handed_over:
                row.question.opening, row.question.generation = failed, failed.generation
            return
        incident = self.open_incidents.get((About.CREDENTIAL, row.name))
        looks_the_same = incident is not None and (
            incident.kind is IncidentKind.AMBIGUOUS if lost else incident.signature == signature(failed)
        )
        if looks_the_same and not (self._may_lapse(row, now) or self._may_ask_again(row, now)):
            return
        row.question = Question(len(self.questions), row, failed.generation, now, failed)
        self.questions.append(row.question)
        row.questions = [*row.questions[-1:], row.question]

    def _may_ask_again(self, row: Row, now: datetime) -> bool:
        last = next((one for one in reversed(row.questions) if one.closed_at), None)
        declined = (row.name, row.generation) in self.declined
        return last is not None and not declined and last.closed_at <= now - RENOTIFY_AFTER

    def _may_lapse(self, row: Row, now: datetime) -> bool:
        probe = row.latest_probe
        if probe is None or row.status is not Status.ACTIVE or now - probe.observed_at < PROBE_AGAIN_AFTER:
            return False
        return probe.verdict is not Verdict.LIVE or row.life.remaining(now) == timedelta()

    def take_on(self, row: Row) -> Question | None:
        question = row.question
        if question is None or question.handed_over:
            return None
        question.handed_over = True
        return question

    def conclude(
        self,
        asked: Investigation,
        conclusion: Conclusion,
        seen: Sequence[Evidence],
        symptoms: Sequence[Symptom],
        *,
        close: bool,
        now: datetime,
    ) -> None:
        question = self.questions[asked.id]
        row = question.row
        if row.question is not question or question.conclusion is not None:
            return
        self.on_conclusion(row, conclusion)
        recorded = [self.record(row.record, item, now) for item in seen]
        for symptom in symptoms:
            self.open(symptom, now)
        question.conclusion = recorded[-1]
        question.finding, question.explanation = conclusion.finding.value, conclusion.explanation
        if close:
            self.close(question, now)

    def close(self, question: Question, now: datetime) -> None:
        question.closed_at = question.closed_at or now
        if question.row.question is question:
            question.row.question = None

    def _close_question(self, row: Row, because: str, now: datetime) -> None:
        if row.question is not None:
            row.question.explanation = because
            self.close(row.question, now)

    # -- incidents ----------------------------------------------------------------------------------------------

    def open(self, symptom: Symptom, now: datetime) -> None:
        self.on_symptom(symptom)
        key = (symptom.about, symptom.name)
        current = self.open_incidents.get(key)
        names = ("kind", "summary", "owner", "signature", "escalates_at")
        described: dict[str, Any] = {name: getattr(symptom, name) for name in names}
        if current is None:
            opened = min(symptom.opened_at, now)
            self.open_incidents[key] = Incident(
                next(self._ids), symptom.about, symptom.name, opened_at=opened, noticed_at=now, **described
            )
        elif symptom.kind in TIME_MAY_CURE and current.kind not in TIME_MAY_CURE:
            return
        else:
            anew: dict[str, Any] = {} if current.kind is symptom.kind else {"last_notified_at": None}
            self.open_incidents[key] = replace(current, **described, **anew)
        self.on_incident(self.open_incidents[key])


# -- the hooks, without threads, sleep and Airflow ------------------------------------------------------------------


class QuickCatalog(Catalog):
    """The shipped catalog; what was found once is not looked for again."""

    by_token_url = cache(Catalog.by_token_url)


async def _inline(function: Callable[..., T], *args: Any, **named: Any) -> T:
    return function(*args, **named)


async def _at_once(work: Coroutine[Any, Any, T]) -> T:
    return await work


def _as_it_is(value: T, known: Sequence[str]) -> T:
    return value


def _as_text(body: bytes, known: Sequence[str]) -> str:
    return body.decode()


async def _nothing(*args: Any) -> None:
    return None


async def _lease_at_once(self: Refresh, credential: Credential) -> Any:
    return await self._try_lease(credential)


def drive(flow: Coroutine[Any, Any, T]) -> T:
    """Run a flow that never has to wait."""
    try:
        flow.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the flow waits for something")


@contextmanager
def hooks_in_memory(now: Callable[[], datetime]) -> Iterator[None]:
    """The package's hooks with our clock, and with everything done at once that they hand to threads."""
    threadless = SimpleNamespace(to_thread=_inline)
    nowhere = SimpleNamespace(look=_nothing, clear=_nothing, name=lambda *_: "")
    catalog = QuickCatalog()
    replaced: list[tuple[Any, Mapping[str, Any]]] = [
        (refreshing, {"utcnow": now, "to_thread": _inline, "sleep": _nothing, "to_its_end": _at_once}),
        (refreshing, {"second_place": nowhere}),
        (renewing, {"utcnow": now, "to_thread": _inline, "to_its_end": _at_once}),
        (renewing, {"second_place": nowhere, "duration": lambda name: DEADLINE}),
        (investigation, {"utcnow": now, "asyncio": threadless, "configured_brake": lambda: BRAKE}),
        (base, {"utcnow": now, "asyncio": threadless}),
        # Nothing is written down here, so nothing has to be redacted.
        (base, {"redact_text": _as_it_is, "redact_headers": _as_it_is, "redact_body": _as_text}),
        (declared, {"get_catalog": lambda: catalog}),
        (Refresh, {"_lease": _lease_at_once, "_keep": _nothing}),
    ]
    log = logging.getLogger("airflow_oauth_guard")
    level = log.level
    with ExitStack() as stack:
        for owner, names in replaced:
            for name, value in names.items():
                stack.enter_context(patch.object(owner, name, value))
        log.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            log.setLevel(level)


# -- the usual rules ------------------------------------------------------------------------------------------------

SIX_CODES = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant"),
        *("unauthorized_client", "unsupported_grant_type", "invalid_scope"),
    }
)


def error_of(answer: Answer) -> str:
    """The ``error`` of RFC 6749 section 5.2, as a usual job reads it."""
    if not isinstance(answer, HttpAnswer):
        return ""
    error = read_body(answer.body).document.get("error")
    return error if isinstance(error, str) else ""


def is_4xx(answer: Answer) -> bool:
    return isinstance(answer, HttpAnswer) and 400 <= answer.status < 500


GUARD = "this package"
RULES: Mapping[str, Callable[[Answer], bool]] = {
    "any failed refresh": lambda answer: True,
    "any 4xx": is_4xx,
    "the six RFC 6749 codes": lambda answer: error_of(answer) in SIX_CODES,
    "`invalid_grant` alone": lambda answer: error_of(answer) == "invalid_grant",
}
"""What each says to the answer of a refresh that brought no token: is the credential dead?"""


@dataclass
class Mark:
    """A credential is declared dead."""

    row: Row
    at: int
    false: bool


@dataclass
class Score:
    """How one system did."""

    name: str
    false_expiries: int = 0
    wrong_seconds: int = 0
    """For which a credential was called dead while it was not."""
    marks: dict[str, Mark] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    def mark(self, row: Row, now: int, cause: Cause | None) -> None:
        false = row.is_alive
        self.marks[row.name] = Mark(row, now, false)
        self.false_expiries += false
        if cause is not None:
            cause.marked.setdefault(self.name, set()).add(row.name)

    def find(self, row: Row, death: Death, now: int) -> None:
        self.found.append(Found(death, row.every, max(now - (death.symptom_at or now), 0), now - death.begins))

    def unmark(self, row: Row, now: int) -> None:
        mark = self.marks.pop(row.name, None)
        if mark is not None and mark.false:
            self.wrong_seconds += now - mark.at

    def died(self, row: Row, now: int) -> None:
        """From now on it is right, whatever it was declared on."""
        mark = self.marks.get(row.name)
        if mark is not None and mark.false:
            self.wrong_seconds += now - mark.at
            mark.false = False


@dataclass(frozen=True)
class Found:
    """A true death that was named."""

    death: Death
    every: int
    after: int
    """Seconds since the first refresh that showed it."""
    after_death: int

    @property
    def cycles(self) -> float:
        return self.after / self.every


@dataclass(frozen=True)
class Alarm:
    at: int
    about: About
    kind: IncidentKind
    cause: Cause | None


# -- what befalls them ----------------------------------------------------------------------------------------------

NOBODY, CODE = frozenset({Owner.NOBODY}), frozenset({Owner.CODE})
APP, ACCOUNT = frozenset({Owner.APP}), frozenset({Owner.ACCOUNT})


@dataclass(frozen=True)
class Plan:
    """How often something befalls whom, and how it ends."""

    kind: str
    whom: str
    per_year: float
    right: frozenset[Owner]
    hours: tuple[float, float] | None = None
    """How long it lasts by itself; None where it ends when its owner has been told and has acted."""
    applies: Callable[[Model], bool] = lambda model: True


def _has_grant(model: Model) -> bool:
    return model.has_grant


def _is_of(*classes: str) -> Callable[[Model], bool]:
    return lambda model: model.connection_class in classes


def _has_client_login(model: Model) -> bool:
    return model.connection_class not in ("long_lived_token", "instagram_refresh", "two_step", "token_exchange")


def _can_be_mistyped(model: Model) -> bool:
    return model.connection_class not in ("long_lived_token", "client_credentials", "saml2_bearer", "token_exchange")


PLANS: tuple[Plan, ...] = (
    Plan("outage: 5xx", "provider", 3, NOBODY, (0.3, 6)),
    Plan("outage: timeouts", "provider", 2, NOBODY, (0.3, 3)),
    Plan("maintenance page", "provider", 2, NOBODY, (0.5, 4)),
    Plan("invalid_grant to all by mistake", "provider", 1, NOBODY | APP, (2, 2), _has_grant),
    Plan("transient 401s", "provider", 4, NOBODY, (0.3, 3)),
    Plan("error text changed: words", "provider", 0.4, NOBODY, (240, 480), _has_grant),
    Plan("error text changed: code", "provider", 0.3, NOBODY, (240, 480), _has_grant),
    Plan("captive portal", "everybody", 2, NOBODY, (1, 4)),
    Plan("clock skew", "everybody", 2, CODE, (4, 30)),
    Plan("rate limit", "client", 1.5, NOBODY, (0.3, 3)),
    Plan("secret rotated", "client", 0.4, APP, None, _has_client_login),
    Plan("app disabled", "client", 0.2, APP),
    Plan("client revoked", "client", 0.08, APP | ACCOUNT, None, _has_grant),
    Plan("wrong class", "credential", 0.2, CODE, None, _can_be_mistyped),
    Plan("wrong client_auth", "credential", 0.15, CODE, None, lambda model: bool(model.other_auth)),
    Plan("scope removed", "credential", 0.12, CODE, None, _has_client_login),
    Plan("mfa demanded", "credential", 0.15, ACCOUNT, None, _is_of("refresh_token", "meta_exchange")),
    Plan("account locked", "credential", 0.15, ACCOUNT, None, _has_grant),
    Plan("login changed", "credential", 0.5, ACCOUNT, None, _is_of("password", "two_step")),
    Plan("probe URL broken", "credential", 0.2, NOBODY, (72, 480)),
    Plan("answer lost on its way", "credential", 0.8, NOBODY, None, lambda model: model.rotates),
    Plan("revoked", "death", 0.15, ACCOUNT, None, _has_grant),
    Plan("unused", "death", 0.08, ACCOUNT, None, _has_grant),
    Plan("password changed", "death", 0.12, ACCOUNT, None, _has_grant),
    Plan("uninstalled", "death", 0.1, ACCOUNT, None, _has_grant),
    Plan("lapsed", "death", 0.2, ACCOUNT, None, _is_of("meta_exchange", "instagram_refresh")),
)

CLIENT_SIZES = (1, 1, 2, 3, 5, 8, 12, 20, 30)


# -- the year -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    credentials: int = 1000
    days: int = 365
    seed: int = 1
    intensity: float = 1.0
    """How many times as much as usual happens, for short years."""


class Year:
    """Everything that happens, in order."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.end = setting.days * DAY
        self.rng = random.Random(f"year {setting.seed}")
        self.world = World(random.Random(f"world {setting.seed}"))
        self.memory = Memory()
        self.guard = Guard(self)
        self.scores = {name: Score(name) for name in (GUARD, *RULES)}
        self.causes: list[Cause] = []
        self.heap: list[tuple[int, int, Row | None, Callable[[], None] | None]] = []
        self._order = count()
        self.healthy = 0
        """Refreshes that only counted."""
        self._when_told: dict[int, Callable[[], None]] = {}
        """By fault: what its owner does once he has been told."""
        self.clients: list[Client] = []
        self.rows: list[Row] = []
        self.world.on_symptom = self.symptom
        self.world.on_lapse = lambda truth: self.die(
            self.memory.rows[truth.name], Death("lapsed", truth.access_ends, right=ACCOUNT, delay=self.world.delay())
        )

    # -- the cast -----------------------------------------------------------------------------------------------

    def populate(self) -> None:
        weights = [model.weight for model in MODELS]
        drawn = Counter(self.rng.choices(range(len(MODELS)), weights, k=self.setting.credentials))
        for number, model in enumerate(MODELS):
            self._populate(model, drawn[number])
        self._plan_everything()
        for row in self.rows:
            self.guard.wire(row)
            self.at(CYCLE * (1 + row.id % 12), row=row)

    def _populate(self, model: Model, left: int) -> None:
        while left > 0:
            size = min(left, self.rng.choice(CLIENT_SIZES))
            client = Client(f"app{len(self.clients)}", model)
            self.clients.append(client)
            for _ in range(size):
                self._enrol(client)
            left -= size

    def _enrol(self, client: Client) -> None:
        policy = "evidence" if self.rng.random() < 0.5 else "ask"
        truth = Truth(f"c{len(self.rows)}", client.model, client, policy)
        client.members.append(truth)
        row = Row(len(self.rows) + 1, truth, self.setting.days)
        # The tokens it is enrolled with live long enough for the first refresh.
        truth.access_ends = max(truth.model.lifetime, DAY)
        self.rows.append(row)
        self.memory.add(row)

    # -- the plan -----------------------------------------------------------------------------------------------

    def _plan_everything(self) -> None:
        for plan in PLANS:
            for whom in self._whom(plan):
                for _ in range(max(self._times(plan.per_year), plan.whom == "everybody")):
                    begins = int(self.rng.uniform(2 * DAY if self.setting.days > 60 else DAY, self.end))
                    self.at(begins, action=self._beginning(plan, whom, begins))

    def _times(self, per_year: float) -> int:
        """How often, by Poisson's law."""
        mean = per_year * self.setting.intensity * self.setting.days / 365
        left, times = self.rng.expovariate(1), 0
        while left < mean:
            left += self.rng.expovariate(1)
            times += 1
        return times

    def _whom(self, plan: Plan) -> Iterable[Any]:
        present = [model for model in MODELS if any(client.model is model for client in self.clients)]
        groups: dict[str, Iterable[Any]] = {
            "everybody": [None],
            "provider": [model for model in present if plan.applies(model)],
            "client": [client for client in self.clients if plan.applies(client.model)],
        }
        return groups.get(plan.whom) or [row for row in self.rows if plan.applies(row.truth.model)]

    def _beginning(self, plan: Plan, whom: Any, begins: int) -> Callable[[], None]:
        delay = self.world.delay()
        seed = self.rng.randrange(1000)
        lasts = int(self.rng.uniform(*plan.hours) * HOUR) if plan.hours else None
        if plan.whom == "death":
            return lambda: self.die(whom, Death(plan.kind, begins, right=plan.right, delay=delay))
        if plan.kind == "client revoked":
            return lambda: self._revoke(whom, begins)
        fault = Fault(plan.kind, plan.right, begins, lasts and begins + lasts, delay, plan.whom != "credential", seed)
        return lambda: self.begin(fault, whom)

    # -- what befalls them --------------------------------------------------------------------------------------

    def begin(self, fault: Fault, whom: Any) -> None:
        if isinstance(whom, Row) and (whom.truth.troubles or whom.truth.aside or whom.truth.death or whom.truth.lost):
            return
        self.causes.append(fault)
        for troubles in self._troubles_of(fault, whom):
            troubles.append(fault)
        if fault.kind == "clock skew":
            self.world.skew = (1 if fault.seed % 2 else -1) * (10 + fault.seed % 30) * MINUTE
        if fault.kind in ("wrong class", "wrong client_auth"):
            self._mistype(fault, whom)
        if fault.ends is not None:
            self.at(fault.ends, action=lambda: self.finish(fault, whom))
        else:
            self._when_told[id(fault)] = lambda: self.finish(fault, whom)

    def _troubles_of(self, fault: Fault, whom: Any) -> list[list[Fault]]:
        if isinstance(whom, Row):
            return [whom.truth.aside if fault.kind in BESIDE_REFRESHING else whom.truth.troubles]
        if isinstance(whom, Model) and fault.kind in BESIDE_REFRESHING and whom.connection_class != "long_lived_token":
            return [self.world.aside.setdefault(whom.name, [])]
        if isinstance(whom, Client):
            return [whom.troubles]
        if isinstance(whom, Model):
            return [self.world.by_model.setdefault(whom.name, [])]
        if fault.kind == "clock skew":
            return [self.world.by_model.setdefault(model.name, []) for model in MODELS if model.signs]
        return [self.world.everywhere]

    def _mistype(self, fault: Fault, row: Row) -> None:
        truth = row.truth
        if fault.kind == "wrong client_auth":
            truth.connect(client_auth=truth.model.other_auth)
        else:
            takes_it_for_a_refresh_token = truth.model.connection_class in ("meta_exchange", "instagram_refresh")
            other = "refresh_token" if takes_it_for_a_refresh_token else "client_credentials"
            truth.connect(connection_class=other, **({"rotation": False} if takes_it_for_a_refresh_token else {}))
            if takes_it_for_a_refresh_token:
                self.memory.reseed(row, self.world.ours())
        self._reconnected(row)

    def _reconnected(self, row: Row) -> None:
        self.guard.wire(row)
        self.memory.reread(row, self.world.ours())
        if row.attempt_after is not None and row.attempt_after <= self.world.ours():
            self.at(next_cycle(self.world.now), row=row)

    def finish(self, fault: Fault, whom: Any) -> None:
        for troubles in self._troubles_of(fault, whom):
            if fault in troubles:
                troubles.remove(fault)
        fault.ends = self.world.now
        if fault.kind == "clock skew":
            self.world.skew = 0
        if fault.kind in ("wrong class", "wrong client_auth"):
            whom.truth.connect()
            self._reconnected(whom)

    def die(self, row: Row, death: Death) -> None:
        truth = row.truth
        if truth.death is not None or truth.lost is not None:
            return
        truth.death = death
        death.whose, death.model = row.name, truth.model.name
        self.causes.append(death)
        for score in self.scores.values():
            score.died(row, self.world.now)
            if row.name in score.marks and score.name != GUARD:
                score.find(row, death, self.world.now)

    def _revoke(self, client: Client, begins: int) -> None:
        """The provider ends every grant of one client, for instance since its secret has leaked."""
        for truth in client.members:
            row = self.memory.rows[truth.name]
            self.die(row, Death("client revoked", begins, alone=False, right=APP | ACCOUNT, delay=self.world.delay()))

    def symptom(self, cause: Cause, truth: Truth) -> None:
        """Somebody could have seen it now: from here on its owner's time runs."""
        cause.hit.setdefault(truth.name, "")
        if cause.symptom_at is not None:
            return
        cause.symptom_at = self.world.now
        if cause.ends is not None:
            return
        if isinstance(cause, Death) or cause.kind == "lost answer":
            if cause.kind == "lost answer":
                self.causes.append(cause)
            self.at(self.world.now + cause.delay, action=lambda: self.reconnect(truth, cause))
        elif (remedy := self._when_told.pop(id(cause), None)) is not None:
            self.at(self.world.now + cause.delay, action=remedy)

    def reconnect(self, truth: Truth, cause: Cause) -> None:
        """The owner of the account connects it anew, which helps whatever was wrong with the grant."""
        if truth.death is not cause and truth.lost is not cause:
            cause.ends = self.world.now
            return
        row = self.memory.rows[truth.name]
        cause.ends = self.world.now
        truth.reconnect(self.world.now)
        row.family, row.number = truth.family, truth.newest
        self.memory.reseed(row, self.world.ours())
        for name in RULES:
            self.scores[name].unmark(row, self.world.now)
        self.at(next_cycle(self.world.now), row=row)

    # -- time ---------------------------------------------------------------------------------------------------

    def at(self, when: int, *, row: Row | None = None, action: Callable[[], None] | None = None) -> None:
        """Let something happen; a row's next cycle replaces the one planned before."""
        if row is not None:
            row.next_at = when
        heapq.heappush(self.heap, (when, next(self._order), row, action))

    def run(self) -> Result:
        began = time.process_time()
        with hooks_in_memory(self.world.ours):
            self.populate()
            self._go_on()
        for score in self.scores.values():
            for row in self.rows:
                score.unmark(row, self.end)
        return Result(self, time.process_time() - began)

    def _go_on(self) -> None:
        heap, world, end, order = self.heap, self.world, self.end, self._order
        while heap:
            now, _, row, action = heap[0]
            if now >= end:
                return
            world.now = now
            if row is None:
                heapq.heappop(heap)
                assert action is not None
                action()
            elif row.next_at != now:
                heapq.heappop(heap)
            elif self._is_dull(row, now):
                self._refresh_quietly(row, now)
                row.next_at = now + row.every
                heapq.heapreplace(heap, (row.next_at, next(order), row, None))
            else:
                heapq.heappop(heap)
                self.guard.cycle(row)

    def _is_dull(self, row: Row, now: int) -> bool:
        """Whether this refresh could end in one way only, and changes nothing but tokens."""
        return (
            row.failures == 0
            and row.attempt_after is None
            and row.issued is not None
            and row.status is Status.ACTIVE
            and row.baseline_at > now
            and row.truth.lost is None
            and self.world.is_quiet(row.truth)
            and row.settings.connection_class == row.truth.model.connection_class
        )

    def _refresh_quietly(self, row: Row, now: int) -> None:
        truth = row.truth
        truth.issue(now)
        row.number = truth.newest
        row.generation += 1
        row.issued = now + self.world.skew
        row.last_live = row.issued
        row.calls[now // DAY] += 1
        self.healthy += 1


def next_cycle(now: int) -> int:
    return (now // CYCLE + 1) * CYCLE


# -- what Airflow would do ------------------------------------------------------------------------------------------


class Guard:
    """The DAGs: refresh what is due, look into what failed, ask, expire, tell."""

    def __init__(self, year: Year) -> None:
        self.year = year
        self.memory = year.memory
        self.world = year.world
        self.rng = random.Random(f"people {year.setting.seed}")
        self.alarms: list[Alarm] = []
        self.false_lapses = 0
        self.lapses = 0
        self.expiries = 0
        self.false_deaths: list[tuple[str, str]] = []
        """Credentials that were concluded dead and were not, and what was wrong."""
        self.false_by: Counter[str] = Counter()
        self.blamed: dict[str, Cause | None] = {}
        """By client: what its incident came from."""
        self.memory.on_status = self.status
        self.memory.on_conclusion = self.concluded
        self.memory.on_symptom = self.symptom
        self.memory.on_incident = lambda incident: self._tell_later(incident, next_cycle(self.world.now) + MINUTE)

    # -- one cycle ----------------------------------------------------------------------------------------------

    def wire(self, row: Row) -> None:
        """Let the hook speak to the world instead of the network."""

        async def send(request: HttpRequest) -> Answer:
            row.calls[self.world.now // DAY] += 1
            kind = self._kind_of(row, request)
            if kind != "refresh":
                row.other_calls[kind] += 1
                row.looks[self.world.now // DAY] += 1
            return self.world.exchange(row.truth, request)

        setattr(row.truth.hook, "send", send)  # noqa: B010 - mypy minds the assignment

    def _kind_of(self, row: Row, request: HttpRequest) -> str:
        settings = row.truth.hook.settings
        if request.url == settings.facts.introspection_url:
            return "introspection"
        if made_up(request, row.truth):
            return "control"
        is_probe = settings.probe_url and request.shape.endpoint == row.truth.probe_endpoint
        return "probe" if is_probe and row.settings.connection_class != "long_lived_token" else "refresh"

    def cycle(self, row: Row) -> None:
        truth, now = row.truth, self.world.now
        truth.answered = None
        result = drive(truth.hook.refresh(self.memory, WHO))  # type: ignore[arg-type]
        if result.outcome is Refreshed.RENEWED:
            row.every = cycle_of(row.lifetime, row.settings.margin, row.settings.at_half_life)
        elif truth.answered is not None:
            self._others_watch(row, truth.answered)
        if result.outcome in (Refreshed.FAILED, Refreshed.HELD) and (question := self.memory.take_on(row)):
            self.year.at(now + HAND_OVER, action=lambda: self.look(question))
        self.year.at(self._next(row), row=row)

    def _next(self, row: Row) -> int:
        """The next cycle in which the credential is due."""
        now = next_cycle(self.world.now)
        credential = row.record
        due = credential.attempt_after
        if due is None and credential.status is Status.ACTIVE:
            due = credential.life.due_at
        if due is None:
            return now
        on_time = int(since_start(due)) - self.world.skew
        return max(now, -(-on_time // CYCLE) * CYCLE)

    def _others_watch(self, row: Row, answer: Answer) -> None:
        cause = row.truth.blamed
        for name, says_dead in RULES.items():
            score = self.year.scores[name]
            if row.name not in score.marks and says_dead(answer):
                score.mark(row, self.world.now, cause)
                self._await_its_owner(row, score)

    def _await_its_owner(self, row: Row, score: Score) -> None:
        """Whoever hears that it is dead connects it anew, hours or days later."""
        mark = score.marks[row.name]
        if row.truth.death is not None:
            score.find(row, row.truth.death, self.world.now)
        if not mark.false:
            return

        def reconnected() -> None:
            if score.marks.get(row.name) is mark and row.truth.death is None:
                score.unmark(row, self.world.now)

        self.year.at(self.world.now + self.rng.choice(OWNERS_TAKE), action=reconnected)

    # -- an investigation ---------------------------------------------------------------------------------------

    def look(self, question: Question) -> None:
        while True:
            seen = drive(look(self.memory, question.row.truth.hook, question.id, PATIENCE, WHO))  # type: ignore[arg-type]
            if isinstance(seen, Conclusion):
                settle(self.memory, question.id, seen, WHO, self.world.ours())  # type: ignore[arg-type]
                if proves_death(seen):
                    self.approve(question)
                self._look_again(question.row)
                return
            if seen:
                break
        self.year.at(self.world.now + max(1, round(seen.total_seconds())), action=lambda: self.look(question))

    def _look_again(self, row: Row) -> None:
        """What an investigation brought may change when the credential is due."""
        if row.failures == 0 and row.attempt_after is None and row.question is None:
            row.every = cycle_of(row.lifetime, row.settings.margin, row.settings.at_half_life)
        self.year.at(self._next(row), row=row)

    def approve(self, question: Question) -> None:
        """As ExpireApprovalOperator does."""
        row = question.row
        if question.closed_at is not None or row.status is Status.EXPIRED:
            return
        if (row.name, row.generation) in self.memory.declined:
            self.memory.close(question, self.world.ours())
            return
        braked = self.memory.brake(row.record, BRAKE, self.world.ours())
        if row.settings.expire_policy == "evidence" and not braked:
            self.by_policy(question)
            return
        self.year.at(self.world.now + self.rng.randrange(2 * HOUR, 20 * HOUR), action=lambda: self.answer(question))

    def by_policy(self, question: Question) -> None:
        """The proof suffices once it is some hours old and still holds."""
        assert question.conclusion is not None
        matures_at = since_start(question.conclusion.observed_at + EXPIRE_WAIT)
        if since_start(self.world.ours()) < matures_at:
            wait = max(1, round(matures_at - since_start(self.world.ours())))
            self.year.at(self.world.now + wait, action=lambda: self.approve(question))
            return
        latest = question.row.latest_refresh
        if latest is not None and latest.finding is not F.GRANT_DEAD:
            self.memory.close(question, self.world.ours())
        else:
            question.answer, question.answered_by = "approved", POLICY
            self.expire(question)

    def answer(self, question: Question) -> None:
        """A person looks at the provider's own pages, and says what is so."""
        if question.closed_at is not None:
            return
        if question.row.is_alive:
            self.memory.declined.add((question.row.name, question.row.generation))
            self.memory.close(question, self.world.ours())
            return
        question.answer, question.answered_by = "approved", "a person"
        self.expire(question)

    def expire(self, question: Question) -> None:
        """As ExpireOperator does."""
        if question.closed_at is None:
            self.memory.expire(question.row, question.conclusion)
            self.memory.close(question, self.world.ours())

    # -- what came of it ----------------------------------------------------------------------------------------

    def concluded(self, row: Row, conclusion: Conclusion) -> None:
        if conclusion.finding is F.LIVE:
            return
        cause, now = row.truth.blamed, self.world.now
        if conclusion.shared:
            self.blamed[row.record.client_name] = cause
        if proves_death(conclusion):
            self._named(row, now)
        if cause is not None:
            cause.hit[row.name] = conclusion.finding.value
            self._owner_named(cause, conclusion.owner)

    def _named(self, row: Row, now: int) -> None:
        death = row.truth.death
        if death is None:
            self.false_deaths.append((row.name, row.truth.blamed.kind if row.truth.blamed else "?"))
        elif death.named_at is None:
            death.named_at = now
            self.year.scores[GUARD].find(row, death, now)

    def _owner_named(self, cause: Cause, owner: Owner) -> None:
        if cause.owner_named_at is None and owner in cause.right:
            cause.owner_named_at = self.world.now

    def symptom(self, symptom: Symptom) -> None:
        """Incidents are opened by conclusions, and by the class check."""
        row = self.memory.rows.get(symptom.name)
        if row is not None and symptom.kind is IncidentKind.REQUEST_MALFORMED and row.truth.blamed is not None:
            row.truth.blamed.hit[row.name] = symptom.kind.value
            self._owner_named(row.truth.blamed, Owner.CODE)

    def status(self, row: Row, was: Status, now: Status) -> None:
        score = self.year.scores[GUARD]
        if was is Status.EXPIRED:
            score.unmark(row, self.world.now)
        if now is Status.LAPSED:
            self.lapses += 1
            truth = row.truth
            if truth.access_is_alive(row.family, row.number, self.world.now):
                self.false_lapses += 1
                self.false_by[f"lapse: {truth.blamed.kind if truth.blamed else '?'}"] += 1
        if now is Status.EXPIRED:
            self.expiries += 1
            score.mark(row, self.world.now, row.truth.blamed)
            if row.is_alive:
                self.false_by[f"expiry: {row.truth.blamed.kind if row.truth.blamed else '?'}"] += 1

    # -- telling ------------------------------------------------------------------------------------------------

    def _tell_later(self, incident: Incident, when: int) -> None:
        self.year.at(when, action=lambda: self.tell(incident.id, (incident.about, incident.name)))

    def tell(self, number: int, key: tuple[About, str]) -> None:
        incident, now = self.memory.open_incidents.get(key), self.world.ours()
        if incident is None or incident.id != number or self._is_spoken_for(incident):
            return
        if incident.is_to_be_told(now):
            self.memory.open_incidents[key] = replace(
                incident, last_notified_at=now, first_notified_at=incident.first_notified_at or now
            )
            self.alarms.append(Alarm(self.world.now, incident.about, incident.kind, self._cause_of(incident)))
            self._tell_later(incident, self.world.now + DAY)
        elif not incident.needs_a_person(now) and incident.escalates_at is not None:
            late = int(since_start(incident.escalates_at)) - self.world.skew
            self._tell_later(incident, max(next_cycle(late), next_cycle(self.world.now)))

    def _is_spoken_for(self, incident: Incident) -> bool:
        """As the report has it: the client's open incident speaks for those of its credentials."""
        if incident.speaks_for_itself:
            return False
        client = self.memory.rows[incident.name].record.client_name
        return (About.CLIENT, client) in self.memory.open_incidents

    def _cause_of(self, incident: Incident) -> Cause | None:
        if incident.about is About.CLIENT:
            return self.blamed.get(incident.name)
        return self.memory.rows[incident.name].truth.blamed


OWNERS_TAKE = tuple(int(hours * HOUR) for hours in (2, 3, 5, 8, 10, 12, 18, 24, 36, 60))


@cache
def cycle_of(lifetime: float | None, margin: timedelta, at_half_life: bool) -> int:
    """From one healthy refresh to the next, by the package's own schedule."""
    ends = None if lifetime is None else START + timedelta(seconds=lifetime)
    due = Life(START, ends, margin, at_half_life).due_at
    assert due is not None
    return max(CYCLE, -(-int((due - START).total_seconds()) // CYCLE) * CYCLE)


# -- what came out --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Some durations or numbers, as median, 95th percentile and largest."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else float("nan")

    @property
    def p95(self) -> float:
        return sorted(self.values)[int(0.95 * (len(self.values) - 1))] if self.values else float("nan")

    @property
    def largest(self) -> float:
        return max(self.values, default=float("nan"))

    def __str__(self) -> str:
        return f"{number(self.median)} / {number(self.p95)} / {number(self.largest)}" if self.values else "-"


def number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


class Result:
    """A year that is over."""

    def __init__(self, year: Year, took: float) -> None:
        self.year = year
        self.took = took
        """Seconds of one core."""
        self.setting = year.setting
        self.scores = year.scores
        self.guard = year.guard
        self.causes = [cause for cause in year.causes if cause.symptom_at is not None]
        """Those that anybody could have noticed."""

    @property
    def deaths(self) -> list[Death]:
        return [cause for cause in self.causes if isinstance(cause, Death)]

    @property
    def provable(self) -> list[Death]:
        """Single grants whose end the provider says in a way that the protocol or the catalog knows."""
        return [death for death in self.deaths if death.is_provable]

    def named(self, deaths: Sequence[Death], system: str = GUARD) -> list[Found]:
        wanted = {id(death) for death in deaths}
        return [found for found in self.scores[system].found if id(found.death) in wanted]

    @property
    def replaceable_alarms(self) -> int:
        """Alarms that one alarm a day about what they share could have replaced."""
        shared = [alarm for alarm in self.guard.alarms if alarm.cause is not None and alarm.cause.shared]
        days = {(id(alarm.cause), (alarm.at - (alarm.cause.begins if alarm.cause else 0)) // DAY) for alarm in shared}
        return len(shared) - len(days)

    @property
    def calls(self) -> Counter[str]:
        total = Counter({"refresh": sum(sum(row.calls) for row in self.year.rows)})
        for row in self.year.rows:
            total += row.other_calls
            total["refresh"] -= sum(row.other_calls.values())
        return total

    def fingerprint(self) -> tuple[Any, ...]:
        """Equal for two years that went alike."""
        scores = tuple((score.false_expiries, score.wrong_seconds, len(score.found)) for score in self.scores.values())
        hits = tuple((cause.kind, cause.begins, tuple(sorted(cause.hit.items()))) for cause in self.causes)
        return scores, hits, tuple(sorted(self.calls.items())), len(self.guard.alarms), self.year.healthy


def as_markdown(result: Result) -> str:
    return "\n\n".join(
        (
            _title(result),
            _systems(result),
            _deaths(result),
            _owners(result),
            _cost(result),
            _alarms(result),
            _conclusions(result),
            _goals(result),
        )
    )


def _title(result: Result) -> str:
    setting, refreshes = result.setting, result.calls["refresh"]
    return (
        f"{setting.credentials} credentials of {len(result.year.clients)} clients, {setting.days} days, seed {setting.seed}: "
        f"{refreshes:,} refreshes ({result.year.healthy:,} of them dull), {len(result.causes)} faults, mistakes and deaths "
        f"that could be noticed; simulated in {result.took:.0f} s of one core."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _systems(result: Result) -> str:
    rows = []
    for name, score in result.scores.items():
        found = result.named(result.deaths, name)
        rows.append(
            (
                name,
                score.false_expiries,
                f"{result.guard.false_lapses} of {result.guard.lapses}" if name == GUARD else "-",
                f"{len(found)} of {len(result.deaths)}",
                Spread(tuple(one.cycles for one in found)),
                Spread(tuple(one.after / HOUR for one in found)),
                number(score.wrong_seconds / HOUR),
            )
        )
    head = ("system", "false expiries", "false lapses", "true deaths found", "cycles to name", "hours to name")
    legend = "Times are median / 95th percentile / largest, from the first refresh that showed the death."
    return f"{_table((*head, 'hours withheld wrongly'), rows)}\n\n{legend}"


def _deaths(result: Result) -> str:
    groups: dict[str, list[Death]] = {
        "single grants, in documented words": result.provable,
        "said in no documented way": [one for one in result.deaths if one.alone and not one.is_documented],
        "while our clock was wrong": [
            one for one in result.deaths if one.alone and one.is_documented and one.by_a_wrong_clock
        ],
        "a whole client's grants at once": [death for death in result.deaths if not death.alone],
    }
    rows = []
    for name, deaths in groups.items():
        found = result.named(deaths)
        later = Counter(death.hit.get(death.whose, "") or "nothing" for death in deaths)
        rows.append(
            (
                name,
                f"{len(found)} of {len(deaths)}",
                Spread(tuple(one.cycles for one in found)),
                Spread(tuple(one.after_death / HOUR for one in found)),
                _counted(later),
            )
        )
    head = ("true deaths", "named dead", "cycles to name", "hours since the death itself", "last conclusion")
    return _table(head, rows)


def _owners(result: Result) -> str:
    rows = []
    for kind, causes in _by_kind(result).items():
        named = [cause for cause in causes if cause.owner_named_at is not None]
        waits = Spread(tuple(((cause.owner_named_at or 0) - (cause.symptom_at or 0)) / MINUTE for cause in named))
        right = "/".join(sorted({owner.name.lower() for cause in causes for owner in cause.right}))
        concluded = [cause for cause in causes if any(cause.hit.values())]
        share = f"{100 * len(named) / len(concluded):.0f} %" if concluded else "-"
        rows.append((kind, len(causes), len(concluded), right, share, number(waits.median), number(waits.largest)))
    head = ("what was wrong", "how many", "concluded on", "right owner", "named right", "minutes, median", "max")
    return _table(head, rows)


def _by_kind(result: Result) -> dict[str, list[Cause]]:
    kinds: dict[str, list[Cause]] = {}
    for cause in sorted(result.causes, key=lambda cause: cause.kind):
        kinds.setdefault(cause.kind, []).append(cause)
    return kinds


def _cost(result: Result) -> str:
    setting, rows, calls = result.setting, result.year.rows, result.calls
    days = setting.credentials * setting.days
    per_day = [(kind, f"{calls[kind] / days:.4f}") for kind in ("refresh", "probe", "control", "introspection")]
    busiest = max(rows, key=lambda row: max(row.looks.values(), default=0))
    by_client: Counter[tuple[str, int]] = Counter()
    for row in rows:
        by_client.update({(row.truth.client.name, day): looks for day, looks in row.looks.items()})
    of_client = by_client.most_common(1)[0] if by_client else (("-", 0), 0)
    alarms = len(result.guard.alarms)
    lines = [
        *((f"{kind} requests per credential and day", value) for kind, value in per_day),
        ("all requests of one credential in a day, at most", max(max(row.calls) for row in rows)),
        (
            "of these beside refreshes, at most",
            f"{max(busiest.looks.values(), default=0)} (`{busiest.truth.model.name}`)",
        ),
        ("the same of one client, at most", f"{of_client[1]} (of {_members(result, of_client[0][0])} credentials)"),
        ("alarms", alarms),
        ("alarms per credential and year", f"{alarms / days * 365:.2f}"),
        ("alarms that one alarm could have replaced", result.replaceable_alarms),
        ("alarms by kind", _counted(Counter(alarm.kind.value for alarm in result.guard.alarms))),
    ]
    return _table(("cost", ""), lines)


def _alarms(result: Result) -> str:
    """What the alarms came from."""
    alarms = [(alarm, alarm.cause.kind if alarm.cause else "?") for alarm in result.guard.alarms]
    rows = []
    for kind, times in Counter(kind for _, kind in alarms).most_common():
        said = Counter(f"{alarm.about.value}: {alarm.kind.value}" for alarm, cause in alarms if cause == kind)
        rows.append((kind, times, _counted(said)))
    return _table(("what was wrong", "alarms", "what they said"), rows)


def _members(result: Result, name: str) -> int:
    return next((len(client.members) for client in result.year.clients if client.name == name), 0)


def _conclusions(result: Result) -> str:
    rows = []
    for kind, causes in _by_kind(result).items():
        hits = sum(len(cause.hit) for cause in causes)
        last = Counter(finding for cause in causes for finding in cause.hit.values() if finding)
        marked = [sum(len(cause.marked.get(name, ())) for cause in causes) for name in result.scores]
        rows.append((kind, len(causes), hits, _counted(last), *marked))
    head = ("what was wrong", "how many", "credentials that showed it", "concluded last", *_dead_by(result))
    return _table(head, rows)


def _dead_by(result: Result) -> list[str]:
    return [f"declared dead by {name}" for name in result.scores]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{what} {times}" for what, times in counter.most_common()) or "-"


def _goals(result: Result) -> str:
    guard, found = result.guard, result.named(result.provable)
    late = [one for one in found if one.cycles > 2]
    lines = [
        f"- false expiries: {result.scores[GUARD].false_expiries} (goal 0) {_counted(guard.false_by)}",
        f"- named dead while alive: {len(guard.false_deaths)} {_counted(Counter(why for _, why in guard.false_deaths))}",
        f"- provable deaths named: {len(found)} of {len(result.provable)}; later than two cycles: {len(late)}",
    ]
    return "\n".join(lines)


def simulate(*, credentials: int = 1000, days: int = 365, seed: int = 1, intensity: float = 1.0) -> Result:
    return Year(Setting(credentials, days, seed, intensity)).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--credentials", type=int, default=1000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--intensity", type=float, default=1.0)
    print(as_markdown(simulate(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
