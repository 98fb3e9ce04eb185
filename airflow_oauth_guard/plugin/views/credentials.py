"""The roster, one credential, and one piece of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from airflow_oauth_guard.domain.advice import next_step
from airflow_oauth_guard.domain.evidence import Evidence, Subject
from airflow_oauth_guard.domain.facts import four_facts
from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.rules import explained
from airflow_oauth_guard.plugin.views.incidents import IncidentView, incident_view
from airflow_oauth_guard.plugin.views.reach import ReachView, reach_view
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.roster import Listed, RosterQuery

if TYPE_CHECKING:
    from airflow_oauth_guard.domain.evidence import Observer
    from airflow_oauth_guard.store.records import Investigation
    from airflow_oauth_guard.store.store import Store
    from airflow_oauth_guard.store.timeline import Transition

PER_PAGE = 50

SUBJECTS = (Subject.ACCESS_TOKEN, Subject.GRANT, Subject.CLIENT, Subject.PROVIDER)
"""The four facts, in the order they are shown in."""


class FactView(BaseModel):
    """What is known of one subject, from which evidence, and since when."""

    subject: str
    verdict: str | None = None
    """``live``, ``dead``, ``open`` (a question), or null where nothing is known."""
    says: str = "nothing known"
    seen_at: datetime | None = None
    evidence_id: int | None = None


class CredentialView(BaseModel):
    """One credential as the roster has it."""

    conn_id: str
    connection_class: str
    provider: str
    """The preset's name; empty for a provider that is not in the catalog."""
    status: str
    status_meaning: str
    status_since: datetime
    generation: int
    lapses_at: datetime | None
    """When the access token is predicted to stop working; null where nobody knows, or there is none."""
    lapse_is_assumed: bool
    """True where the provider told no end, so that an hour is assumed."""
    due_at: datetime | None
    failures: int
    attempt_after: datetime | None
    refreshed_at: datetime | None
    probed_at: datetime | None
    facts: list[FactView]
    incident: IncidentView | None
    reach: ReachView
    """Whom it feeds."""


def credential_view(listed: Listed) -> CredentialView:
    credential, life = listed.credential, listed.credential.life
    return CredentialView(
        conn_id=credential.conn_id,
        connection_class=credential.connection_class,
        provider=credential.provider,
        status=credential.status.value,
        status_meaning=credential.status.meaning,
        status_since=credential.status_since,
        generation=credential.generation,
        lapses_at=life.lapses_at,
        lapse_is_assumed=life.expires_at is None and life.lapses_at is not None,
        due_at=life.due_at,
        failures=credential.failures,
        attempt_after=credential.attempt_after,
        refreshed_at=listed.refreshed_at,
        probed_at=listed.probed_at,
        facts=fact_views(listed.latest, credential.generation),
        incident=incident_view(listed.incident) if listed.incident else None,
        reach=reach_view(listed.reach),
    )


def fact_views(latest: Sequence[Evidence], generation: int) -> list[FactView]:
    """All four, also those of which nothing is known."""
    known = four_facts(latest, generation)
    return [
        FactView(
            subject=subject.value,
            verdict=fact.verdict.value,
            says=fact.says,
            seen_at=fact.evidence.observed_at,
            evidence_id=fact.evidence.id,
        )
        if (fact := known.get(subject)) is not None
        else FactView(subject=subject.value)
        for subject in SUBJECTS
    ]


class RosterView(BaseModel):
    """One page of the roster."""

    total: int
    """How many fit the filters."""
    offset: int
    limit: int
    counts: dict[str, int]
    """Of all credentials, by status, and ``trouble``: those with an incident, or not active."""
    classes: list[str]
    providers: list[str]
    credentials: list[CredentialView]


def roster_view(store: Store, query: RosterQuery, now: datetime) -> RosterView:
    page = store.roster.page(query, now)
    choices = store.roster.choices()
    return RosterView(
        total=page.total,
        offset=query.offset,
        limit=query.limit,
        counts=dict(store.roster.counts()),
        classes=list(choices.classes),
        providers=list(choices.providers),
        credentials=[credential_view(listed) for listed in page.rows],
    )


# -- one credential ---------------------------------------------------------------------------------------------------


class WhoView(BaseModel):
    """Who looked: a task instance, a person, or a command."""

    person: str | None
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int | None
    try_number: int | None


def who_view(observer: Observer) -> WhoView:
    return WhoView(**observer.__dict__)


class TransitionView(BaseModel):
    """A change of status and the evidence that carries it."""

    from_status: str
    to_status: str
    reason: str
    evidence_id: int
    became_true_at: datetime
    written_at: datetime
    who: WhoView


class EvidenceView(BaseModel):
    """One observation: what was asked and answered, by names and never by values that open a door."""

    id: int
    kind: str
    observed_at: datetime
    generation: int
    subject: str
    finding: str
    finding_meaning: str
    verdict: str
    rule: str
    rule_meaning: str
    explanation: str
    shape: dict[str, Any] | None
    """Of the request: names, no values."""
    http_status: int | None
    headers: dict[str, str]
    body: str
    """Redacted."""
    skew_seconds: float | None
    retry_after_seconds: float | None
    rests_on: list[int]
    investigation_id: int | None
    who: WhoView


def evidence_view(seen: Evidence) -> EvidenceView:
    assert seen.id is not None
    return EvidenceView(
        id=seen.id,
        kind=seen.kind.value,
        observed_at=seen.observed_at,
        generation=seen.generation,
        subject=seen.subject.value,
        finding=seen.finding.value,
        finding_meaning=seen.finding.meaning,
        verdict=seen.verdict.value,
        rule=seen.reading.rule,
        rule_meaning=explained(seen.reading.rule),
        explanation=seen.reading.explanation,
        shape=dict(seen.shape.__dict__) if seen.shape else None,
        http_status=seen.http_status,
        headers=dict(seen.headers),
        body=seen.body,
        skew_seconds=_seconds(seen.skew),
        retry_after_seconds=_seconds(seen.retry_after),
        rests_on=list(seen.rests_on),
        investigation_id=seen.investigation_id,
        who=who_view(seen.observer),
    )


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


class GenerationView(BaseModel):
    """One generation of tokens, by fingerprints: enough to tell two apart, useless for anything else."""

    number: int
    access_fingerprint: str
    refresh_fingerprint: str
    issued_at: datetime | None
    is_current: bool


class ConsumerView(BaseModel):
    """A task that used it in the last 30 days."""

    dag_id: str
    task_id: str
    last_used_at: datetime
    """Written down once an hour."""


class QuestionView(BaseModel):
    """The open question about a credential."""

    id: int
    opened_at: datetime
    finding: str | None
    explanation: str
    asked_at: datetime | None
    """When a person was asked whether it may be set expired; null: nobody was."""
    answer: str | None
    """What they said; what follows is carried out in the graph."""
    answered_by: str | None
    asked_in: WhoView
    conclusion_evidence_id: int | None

    @property
    def waits_for_an_answer(self) -> bool:
        return self.asked_at is not None and self.answer is None


class CredentialPageView(BaseModel):
    """Everything about one credential."""

    credential: CredentialView
    next_step: str
    expire_policy: str
    alert_route: str
    question: QuestionView | None
    consumers: list[ConsumerView]
    """The first of them by name."""
    consumer_count: int
    incidents: list[IncidentView]
    """Open and past ones, the newest first."""
    transitions: list[TransitionView]
    evidence: list[EvidenceView]
    """The newest first; ``older`` is where the next page begins."""
    older: int | None
    generations: list[GenerationView]


def credential_page(store: Store, conn_id: str, now: datetime, before: int | None = None) -> CredentialPageView:
    """Raises:
    NotRegisteredError: If the store has never seen it.
    """
    listed = store.roster.one(conn_id, now)
    credential = listed.credential
    question = store.investigations.open_for(credential)
    seen = store.timeline.page(credential, before=before, limit=PER_PAGE + 1)
    more, seen = len(seen) > PER_PAGE, seen[:PER_PAGE]
    consumers = store.consumers.of([conn_id], now).get(conn_id, [])
    asked = question is not None and question.asked_at is not None and question.answer is None
    return CredentialPageView(
        credential=credential_view(listed),
        next_step=next_step(
            credential.status,
            listed.incident.kind if listed.incident else None,
            is_asked=asked,
            fails=credential.failures > 0,
        ),
        expire_policy=credential.expire_policy,
        alert_route=credential.alert_route,
        question=question_view(question) if question else None,
        consumers=[ConsumerView(**one.__dict__) for one in consumers[:PER_PAGE]],
        consumer_count=len(consumers),
        incidents=_incidents_of(store, credential),
        transitions=[transition_view(one) for one in store.timeline.transitions(credential)],
        evidence=[evidence_view(one) for one in seen],
        older=seen[-1].id if more else None,
        generations=[GenerationView(**one.__dict__) for one in store.timeline.generations(credential)],
    )


def _incidents_of(store: Store, credential: Credential) -> list[IncidentView]:
    """Its own, and those of its client, which speak for it."""
    own = store.incidents.history(About.CREDENTIAL, credential.conn_id)
    of_client = store.incidents.history(About.CLIENT, credential.client_name)
    return [incident_view(one) for one in sorted([*own, *of_client], key=lambda one: one.opened_at, reverse=True)]


def transition_view(one: Transition) -> TransitionView:
    return TransitionView(
        from_status=one.from_status.value,
        to_status=one.to_status.value,
        reason=one.reason,
        evidence_id=one.evidence_id,
        became_true_at=one.became_true_at,
        written_at=one.written_at,
        who=who_view(one.observer),
    )


def question_view(question: Investigation) -> QuestionView:
    return QuestionView(
        id=question.id,
        opened_at=question.opened_at,
        finding=question.finding,
        explanation=question.explanation,
        asked_at=question.asked_at,
        answer=question.answer,
        answered_by=question.answered_by,
        asked_in=who_view(question.asked_in),
        conclusion_evidence_id=question.conclusion_evidence_id,
    )


# -- one piece of evidence --------------------------------------------------------------------------------------------


class EvidencePageView(BaseModel):
    """One piece of evidence, what it rests on, and what else was looked at for the same question."""

    conn_id: str
    evidence: EvidenceView
    rests_on: list[EvidenceView]
    others: list[EvidenceView]
    """Of the same investigation: probes, repeats, and controls with a made-up token."""
    carries: list[TransitionView]
    """The changes of status that rest on it."""


def evidence_page(store: Store, conn_id: str, evidence_id: int) -> EvidencePageView:
    """Raises:
    NotRegisteredError: If there is no such credential, or no such evidence about it.
    """
    credential = store.credentials.get(conn_id)
    seen = store.timeline.evidence(credential, evidence_id)
    same = store.timeline.of_investigation(seen.investigation_id) if seen.investigation_id is not None else []
    known = {seen.id, *seen.rests_on}
    return EvidencePageView(
        conn_id=conn_id,
        evidence=evidence_view(seen),
        rests_on=[evidence_view(one) for one in store.timeline.those(credential, seen.rests_on)],
        others=[evidence_view(one) for one in same if one.id not in known],
        carries=[transition_view(one) for one in store.timeline.transitions(credential) if one.evidence_id == seen.id],
    )
