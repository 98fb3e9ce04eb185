"""Append-only evidence, and the status changes it carries."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, or_, select, update

from airflow_oauth_guard.domain.evidence import (
    Evidence,
    Finding,
    Kind,
    Observer,
    Reading,
    Shape,
    Subject,
    Verdict,
    as_columns,
)
from airflow_oauth_guard.domain.investigation import SIBLING_WINDOW
from airflow_oauth_guard.domain.status import Status, rule_for
from airflow_oauth_guard.store.tables import credentials, evidence, statuses, transitions


def add(connection: Connection, credential_id: int, seen: Evidence) -> Evidence:
    """Write one piece of evidence; returns it with its id."""
    result = connection.execute(insert(evidence).values(credential_id=credential_id, **as_columns(seen)))
    assert result.inserted_primary_key is not None
    return replace(seen, id=int(result.inserted_primary_key[0]))


def apply(connection: Connection, credential_id: int, seen: Evidence, now: datetime) -> tuple[Status, Status]:
    """Change the status as the evidence says, and write the transition; returns it as (from, to).

    Compare-and-set on the status: of two processes with the same evidence one writes the transition.
    """
    row = connection.execute(select(statuses).where(statuses.c.credential_id == credential_id)).mappings().one()
    was = Status(row["status"])
    rule = rule_for(was, seen)
    if rule.target is None:
        return was, was
    proven = rule.target is not Status.ACTIVE
    changed = connection.execute(
        update(statuses)
        .where(statuses.c.credential_id == credential_id, statuses.c.status == was.value)
        .values(
            status=rule.target.value,
            since=seen.observed_at,
            generation=seen.generation if proven else None,
            evidence_id=seen.id if proven else None,
            subject=seen.subject.value if proven else None,
            verdict=seen.verdict.value if proven else None,
        )
    )
    if changed.rowcount != 1:
        return was, was
    connection.execute(
        insert(transitions).values(
            credential_id=credential_id,
            from_status=was.value,
            to_status=rule.target.value,
            evidence_id=seen.id,
            # The rule speaks of answers; a person's word is not one.
            reason=seen.reading.explanation if seen.kind is Kind.PERSON else rule.reason,
            became_true_at=seen.observed_at,
            written_at=now,
            **observed_by(seen.observer),
        )
    )
    return was, rule.target


def observed_by(observer: Observer) -> dict[str, Any]:
    """The columns that say who looked."""
    return dict(observer.__dict__)


def of_investigation(connection: Connection, investigation_id: int, opening_id: int) -> list[Evidence]:
    """The evidence of one question: the refresh that raised it, then in order of time.

    A control that was run lately for the same request serves again, also one of a sibling's: so that asking anew does not
    repeat it, and many credentials of one client that fail at once do not look like an attack.
    """
    opening = connection.execute(select(evidence).where(evidence.c.id == opening_id)).mappings().one()
    looks = select(evidence).where(evidence.c.investigation_id == investigation_id).order_by(evidence.c.id)
    of_client = select(credentials.c.client_key).where(credentials.c.id == opening["credential_id"]).scalar_subquery()
    siblings = select(credentials.c.id).where(credentials.c.client_key == of_client)
    own = (evidence.c.credential_id == opening["credential_id"]) & (evidence.c.generation == opening["generation"])
    control = (
        select(evidence)
        .where(
            evidence.c.shape_id == opening["shape_id"],
            evidence.c.kind == Kind.CONTROL.value,
            evidence.c.investigation_id != investigation_id,
            or_(
                own & (evidence.c.observed_at >= opening["observed_at"] - CONTROL_SERVES_FOR),
                evidence.c.credential_id.in_(siblings)
                & (evidence.c.observed_at >= opening["observed_at"] - SIBLINGS_CONTROL_SERVES_FOR),
            ),
        )
        .order_by(evidence.c.id.desc())
        .limit(1)
    )
    used = select(evidence).where(own, evidence.c.kind == Kind.USE.value).order_by(evidence.c.id.desc()).limit(USES)
    refusals = reversed(connection.execute(used).mappings().all())
    rows = [opening, *refusals, *connection.execute(control).mappings(), *connection.execute(looks).mappings()]
    return [from_row(row) for row in rows]


USES = 20
"""So many refusals of consumers are looked at, the newest; two with a pause between say as much."""


CONTROL_SERVES_FOR = timedelta(hours=24)
SIBLINGS_CONTROL_SERVES_FOR = timedelta(hours=1)


def by_id(connection: Connection, credential_id: int, evidence_id: int | None) -> Evidence | None:
    """One piece of evidence about this credential; None if there is none, or it is about another."""
    if evidence_id is None:
        return None
    query = select(evidence).where(evidence.c.id == evidence_id, evidence.c.credential_id == credential_id)
    row = connection.execute(query).mappings().one_or_none()
    return from_row(row) if row else None


def latest(connection: Connection, credential_id: int, kinds: Iterable[Kind]) -> Evidence | None:
    """The newest evidence of these kinds."""
    row = (
        connection.execute(
            select(evidence)
            .where(evidence.c.credential_id == credential_id, evidence.c.kind.in_([kind.value for kind in kinds]))
            .order_by(evidence.c.id.desc())
            .limit(1)
        )
        .mappings()
        .one_or_none()
    )
    return from_row(row) if row else None


def shape_is_proven(connection: Connection, credential_id: int, client_key: str, shape_id: str, now: datetime) -> bool:
    """Whether a request of this shape has succeeded for this credential, or lately for a sibling of its client."""
    siblings = select(credentials.c.id).where(credentials.c.client_key == client_key)
    found = connection.execute(
        select(evidence.c.id)
        .where(
            evidence.c.shape_id == shape_id,
            evidence.c.verdict == Verdict.LIVE.value,
            evidence.c.kind == Kind.REFRESH.value,
            or_(
                evidence.c.credential_id == credential_id,
                evidence.c.credential_id.in_(siblings) & (evidence.c.observed_at >= now - SIBLING_WINDOW),
            ),
        )
        .limit(1)
    )
    return found.first() is not None


def from_row(row: RowMapping) -> Evidence:
    """A row back as evidence."""
    return Evidence(
        id=row["id"],
        kind=Kind(row["kind"]),
        generation=row["generation"],
        observed_at=row["observed_at"],
        reading=Reading(Subject(row["subject"]), Finding(row["finding"]), row["rule"], row["explanation"]),
        verdict=Verdict(row["verdict"]),
        shape=_shape(row["shape"]),
        http_status=row["http_status"],
        headers=json.loads(row["headers"]),
        body=row["body"],
        answer_id=row["answer_id"],
        skew=_seconds(row["skew_seconds"]),
        retry_after=_seconds(row["retry_after_seconds"]),
        rests_on=tuple(json.loads(row["rests_on"])),
        investigation_id=row["investigation_id"],
        observer=observer_from(row),
    )


def observer_from(row: RowMapping) -> Observer:
    """Who looked, as :func:`observed_by` wrote it."""
    return Observer(**{field.name: row[field.name] for field in fields(Observer)})


def _shape(text: str | None) -> Shape | None:
    if text is None:
        return None
    fields = json.loads(text)
    return Shape(**{**fields, "parameters": tuple(fields["parameters"])})


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
