"""Explain one answer that somebody has in hand: what it says, by which rule, and whose job it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.catalog.preset import Preset
from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, NoAnswer, read_body, signals_error
from airflow_oauth_guard.domain.evidence import Evidence, Kind, Reading
from airflow_oauth_guard.domain.investigation import OWNER_OF, suffices
from airflow_oauth_guard.domain.reading import Dialect, read_probe_answer, read_token_answer
from airflow_oauth_guard.domain.redaction import redact_text
from airflow_oauth_guard.grants.classes import GRANT_CLASSES
from airflow_oauth_guard.grants.settings import STANDARD_ANSWER

CALLS = {"refresh": Kind.REFRESH, "probe": Kind.PROBE}


@dataclass(frozen=True)
class Given:
    """An answer as somebody recorded it."""

    call: str
    """``refresh`` or ``probe``: what was asked."""
    body: str = ""
    http_status: int | None = None
    headers: Mapping[str, str] | None = None
    provider: str = ""
    """A name of the catalog, or one that is like it; unknown ones are read by the protocol alone."""
    grant_class: str = ""


@dataclass(frozen=True)
class Explained:
    """What the guard would make of it."""

    finding: str
    subject: str
    rule: str
    explanation: str
    owner: str
    sufficient: bool
    """Whether this answer alone would let the guard declare a death."""


def explain(given: Given, catalog: Catalog, now: datetime) -> Explained:
    """Read an answer as the guard reads those it gets itself."""
    answer = _answer(given, now)
    dialect = dialect_for(catalog.like(given.provider), given.grant_class)
    reading = (read_token_answer if given.call == "refresh" else read_probe_answer)(answer, dialect)
    return Explained(
        finding=reading.finding.value,
        subject=reading.subject.value,
        rule=reading.rule,
        explanation=redact_text(f"{reading.explanation}; {reading.finding.meaning}", ()),
        owner=OWNER_OF[reading.finding].name.lower(),
        sufficient=suffices(_evidence(given, reading, now), now),
    )


def dialect_for(preset: Preset | None, grant_class: str) -> Dialect:
    """How a provider speaks to a class of connection; the class it usually has where none is given."""
    grant = GRANT_CLASSES[_class_of(preset, grant_class)]
    name = grant.connection_class
    facts = (preset.grants.get(name) or next(iter(preset.grants.values()))) if preset else None
    return Dialect(
        token_path=facts.answer.access_token if facts and facts.answer != STANDARD_ANSWER else "",
        refresh_codes=preset.refresh_errors if preset else (),
        probe_codes=preset.probe_errors if preset else (),
        has_grant=bool(grant.sends),
        token_is_grant=grant.sends == "access_token",
        rejected_means=grant.rejected_means,
    )


def _class_of(preset: Preset | None, said: str) -> str:
    """The class that was said; else the refresh token, or the provider's usual one where it issues none."""
    if said in GRANT_CLASSES and not (preset and said == "refresh_token" and said not in preset.grants):
        return said
    return next(iter(preset.grants)) if preset and "refresh_token" not in preset.grants else "refresh_token"


def _answer(given: Given, now: datetime) -> Answer:
    headers = {name.lower(): value for name, value in (given.headers or {}).items()}
    body = given.body.encode()
    if given.http_status is None and not body.strip():
        return NoAnswer("nothing came back", maybe_processed=True, received_at=now)
    answer = HttpAnswer(200, headers, body, now)
    if given.http_status is not None:
        return HttpAnswer(given.http_status, headers, body, now)
    # Whoever recorded it did not keep the status: what says that it is an error came as one.
    return HttpAnswer(400, headers, body, now) if signals_error(read_body(answer.body)) else answer


def _evidence(given: Given, reading: Reading, now: datetime) -> Evidence:
    return Evidence(
        kind=CALLS[given.call],
        generation=1,
        observed_at=now,
        reading=reading,
        verdict=reading.verdict,
        http_status=given.http_status,
        body=given.body,
    )
