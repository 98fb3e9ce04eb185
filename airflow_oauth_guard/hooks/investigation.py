"""Carry out an investigation, one look at a time. All it knows is in the store, so any process can go on with it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_oauth_guard.domain.evidence import TRANSIENT, Evidence, Finding, Kind, Observer, Reading, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.investigation import Case, Conclusion, Owner, Step, next_step, signature
from airflow_oauth_guard.domain.metrics import VERDICT
from airflow_oauth_guard.grants.probe import probe_request
from airflow_oauth_guard.hooks import metrics
from airflow_oauth_guard.hooks.base import OAuthGuardHook
from airflow_oauth_guard.hooks.config import configured_brake, duration
from airflow_oauth_guard.hooks.declared import Declared, declared_form
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.records import Credential, Investigation

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store

log = logging.getLogger(__name__)

BUSY_WAIT = timedelta(seconds=2)
"""How long to wait for another process's refresh of the same credential before looking again."""


SHORTEST_WAIT = timedelta(milliseconds=100)


@dataclass(frozen=True)
class Patience:
    """How long to take over one question."""

    pause: timedelta
    """Before a second look at the same thing counts."""
    give_up_after: timedelta
    """After the question was raised; then the conclusion is drawn from what there is."""


ABANDONED_AFTER = timedelta(minutes=10)
"""Beyond its patience: an inconclusive question has lost its run by then, and may be taken on again."""


def abandoned_before(now: datetime) -> datetime:
    """A question that was taken on before this instant, and is not concluded, has nobody who looks into it."""
    return now - duration("investigation_seconds") - ABANDONED_AFTER


def _case(
    store: Store,
    hook: OAuthGuardHook,
    investigation: Investigation,
    patience: Patience,
    declared: Declared | None,
    now: datetime,
) -> Case:
    evidence = store.investigations.evidence(investigation)
    credential = investigation.credential
    failed = next(item for item in reversed(evidence) if item.kind is Kind.REFRESH)
    has_probe = bool(hook.settings.probe_url and store.credentials.tokens(credential).access_token)
    return Case(
        evidence=evidence,
        generation=credential.generation,
        has_probe=has_probe,
        sends_token=bool(hook.grant_class.sends),
        shape_proven=failed.shape is not None and store.credentials.shape_is_proven(credential, failed.shape.id, now),
        lost_answer=hook.grant.rotates and store.credentials.has_lost_answer(credential, now),
        pause=patience.pause,
        give_up_at=_first_look(evidence, investigation.id, now) + patience.give_up_after,
        has_introspection=bool(hook.settings.facts.introspection_url),
        may_control=store.clients.may_control(credential, now),
        declared=declared.difference if declared else "",
        probe_worked=has_probe
        and store.clients.probe_worked(credential, probe_request(hook.settings, "-").shape.id, now),
        siblings=store.clients.siblings(credential, evidence[0]),
    )


def _declared(store: Store, hook: OAuthGuardHook, credential: Credential, now: datetime) -> Declared | None:
    return declared_form(hook, store.credentials.tokens(credential), now)


def _first_look(evidence: list[Evidence], investigation_id: int, now: datetime) -> datetime:
    """Patience begins with the first look, however long the question lay before anybody took it on."""
    return min((item.observed_at for item in evidence if item.investigation_id == investigation_id), default=now)


async def look(
    store: Store, hook: OAuthGuardHook, investigation_id: int, patience: Patience, observer: Observer
) -> Conclusion | timedelta:
    """Take the next look, if one is due. Returns the conclusion, or how long to wait before calling again."""
    investigation = await asyncio.to_thread(store.investigation, investigation_id)
    if investigation.closed_at is not None:
        return _answered_itself(investigation)
    now = utcnow()
    declared = await asyncio.to_thread(_declared, store, hook, investigation.credential, now)
    case = await asyncio.to_thread(_case, store, hook, investigation, patience, declared, now)
    left = case.give_up_at - now
    step = next_step(case, now)
    if isinstance(step, Conclusion):
        return step
    if step is Step.PROBE:
        await hook.probe(store, observer, investigation_id)
    elif step is Step.CONTROL:
        await hook.control(store, observer, investigation_id)
    elif step is Step.INTROSPECT:
        await hook.introspect(store, observer, investigation_id)
    elif step in (Step.REFRESH, Step.CLASS_CHECK):
        grant = declared.grant if declared and step is Step.CLASS_CHECK else None
        result = await hook.refresh(store, observer, investigation_id=investigation_id, declared=grant)
        if result.outcome in (Refreshed.BUSY, Refreshed.HELD):
            return _wait(max(BUSY_WAIT, patience.pause / 4), left)
        if declared and grant and result.outcome is Refreshed.RENEWED:
            await asyncio.to_thread(_tell_of_the_form, store, investigation, declared, case.evidence[0])
    elif step is Step.WAIT:
        return _wait(patience.pause / 4, left)
    return timedelta()


def _tell_of_the_form(store: Store, investigation: Investigation, declared: Declared, failed: Evidence) -> None:
    """The credential has a token again, and its connection is wrong all the same."""
    store.incidents.open(
        Symptom(
            about=About.CREDENTIAL,
            name=investigation.credential.conn_id,
            kind=IncidentKind.REQUEST_MALFORMED,
            summary=(
                f"The connection asks in a form that the provider refuses ({failed.sentence()}). {declared.difference}; asked "
                "that way it issued a token, so nothing is lost yet. Correct the connection."
            ),
            opened_at=failed.observed_at,
            owner=Owner.CODE.value,
            signature=signature(failed),
            alert_route=investigation.credential.alert_route,
        ),
        utcnow(),
    )


def _wait(duration: timedelta, left: timedelta) -> timedelta:
    """Not so short that looking is all we do, and not beyond the time there is."""
    return max(min(duration, left), SHORTEST_WAIT)


def _answered_itself(investigation: Investigation) -> Conclusion:
    return Conclusion(
        finding=Finding.LIVE,
        subject=Subject.GRANT,
        verdict=Verdict.LIVE,
        explanation=f"The question was closed meanwhile: {investigation.explanation or 'it was settled'}.",
        owner=Owner.NOBODY,
        rests_on=(),
        access_token=Verdict.OPEN,
    )


def settle(store: Store, investigation_id: int, conclusion: Conclusion, observer: Observer, now: datetime) -> None:
    """Write a conclusion down: as evidence, as a status where evidence alone may set one, and as an incident.

    ``expired`` is never set here; a proven death leaves the question open for the expire gate.
    """
    investigation = store.investigation(investigation_id)
    credential = investigation.credential
    seen = [_as_evidence(conclusion, investigation, observer, now)]
    if conclusion.access_token is Verdict.DEAD:
        death = _access_token_death(conclusion, investigation, observer, now)
        # Braked, it is kept as a question: what was seen stays on record, and no status follows.
        braked = store.clients.brake(credential, configured_brake(), now)
        if braked:
            log.warning("`%s` is not set lapsed: %s", credential.conn_id, braked)
            death = replace(
                death,
                verdict=Verdict.OPEN,
                reading=replace(death.reading, explanation=f"{death.reading.explanation}; {braked}"),
            )
        seen.insert(0, death)
    symptoms = []
    if conclusion.finding is not Finding.LIVE:
        evidence = store.investigations.evidence(investigation)
        symptoms.append(_symptom(credential, conclusion, investigation, evidence))
        if conclusion.shared:
            symptoms.append(_symptom_of_client(credential, conclusion, evidence))
    store.credentials.conclude(investigation, conclusion, seen, symptoms, close=not proves_death(conclusion), now=now)
    metrics.count(
        VERDICT,
        finding=conclusion.finding.value,
        verdict=conclusion.verdict.value,
        connection_class=credential.connection_class,
        provider=credential.provider,
    )


def proves_death(conclusion: Conclusion) -> bool:
    return conclusion.subject is Subject.GRANT and conclusion.verdict is Verdict.DEAD


def _as_evidence(conclusion: Conclusion, investigation: Investigation, observer: Observer, now: datetime) -> Evidence:
    return Evidence(
        kind=Kind.CONCLUSION,
        generation=investigation.credential.generation,
        observed_at=now,
        reading=Reading(conclusion.subject, conclusion.finding, "investigation", conclusion.explanation),
        # Life is shown by an answer, which has its own evidence; a conclusion adds only deaths and questions.
        verdict=conclusion.verdict if conclusion.verdict is Verdict.DEAD else Verdict.OPEN,
        rests_on=conclusion.rests_on,
        observer=observer,
        investigation_id=investigation.id,
    )


def _access_token_death(
    conclusion: Conclusion, investigation: Investigation, observer: Observer, now: datetime
) -> Evidence:
    return Evidence(
        kind=Kind.CONCLUSION,
        generation=investigation.credential.generation,
        observed_at=now,
        reading=Reading(
            Subject.ACCESS_TOKEN,
            Finding.ACCESS_TOKEN_DEAD,
            "rejected_twice",
            "two probes were refused because of the token, with a pause between",
        ),
        verdict=Verdict.DEAD,
        rests_on=conclusion.access_token_rests_on,
        observer=observer,
        investigation_id=investigation.id,
    )


def _symptom(
    credential: Credential, conclusion: Conclusion, investigation: Investigation, evidence: list[Evidence]
) -> Symptom:
    return Symptom(
        about=About.CREDENTIAL,
        name=credential.conn_id,
        kind=IncidentKind.CLIENT_FAILING if conclusion.shared else IncidentKind(conclusion.finding.value),
        summary=conclusion.explanation,
        opened_at=evidence[0].observed_at,
        owner=conclusion.owner.value,
        signature=signature(evidence[0]),
        alert_route=credential.alert_route,
        escalates_at=(credential.life.alarm_at or investigation.opened_at) if conclusion.finding in TRANSIENT else None,
    )


def _symptom_of_client(credential: Credential, conclusion: Conclusion, evidence: list[Evidence]) -> Symptom:
    """One alarm for all of them."""
    return Symptom(
        about=About.CLIENT,
        name=credential.client_name,
        kind=IncidentKind.CLIENT_FAILING,
        summary=conclusion.explanation,
        opened_at=evidence[0].observed_at,
        owner=conclusion.owner.value,
        alert_route=credential.alert_route,
    )
