"""What was seen, about what, and what it teaches. Evidence is append-only and never holds a secret."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any


class Subject(str, Enum):
    """What a piece of evidence is about. Four facts and our own request; never one flag."""

    ACCESS_TOKEN = "access_token"  # noqa: S105 - a subject, not a token
    GRANT = "grant"
    CLIENT = "client"
    PROVIDER = "provider"
    REQUEST = "request"


class Finding(str, Enum):
    """What one answer says, before anybody asks whether it proves anything."""

    LIVE = "live"
    GRANT_DEAD = "grant_dead"
    ACCESS_TOKEN_DEAD = "access_token_dead"  # noqa: S105 - a finding, not a token
    REQUEST_MALFORMED = "request_malformed"
    CLIENT_MISCONFIGURED = "client_misconfigured"
    SCOPE_INSUFFICIENT = "scope_insufficient"
    RATE_LIMITED = "rate_limited"
    PROVIDER_OUTAGE = "provider_outage"
    ACCOUNT_ACTION = "account_action"
    AMBIGUOUS = "ambiguous"
    """No answer says it: a refresh may have spent its token, and what it brought did not reach us."""
    UNKNOWN = "unknown"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS: Mapping[Finding, str] = {
    Finding.LIVE: "what was asked about is alive",
    Finding.GRANT_DEAD: "the stored grant is expired, revoked or unknown; a person has to reconnect if that is proven",
    Finding.ACCESS_TOKEN_DEAD: "the access token is expired, revoked or unknown; the next refresh may cure it",
    Finding.REQUEST_MALFORMED: "our request is wrong, so the token was not judged",
    Finding.CLIENT_MISCONFIGURED: "our app is refused, so the token was not judged",
    Finding.SCOPE_INSUFFICIENT: "a permission is missing; the token itself is fine",
    Finding.RATE_LIMITED: "asked too often; wait",
    Finding.PROVIDER_OUTAGE: "the provider failed; nothing is known about the token",
    Finding.ACCOUNT_ACTION: "the account's owner or admin has to do something there",
    Finding.AMBIGUOUS: "a refresh may have spent its token without our getting the next",
    Finding.UNKNOWN: "it decides nothing; look before you act",
}

TRANSIENT = frozenset({Finding.RATE_LIMITED, Finding.PROVIDER_OUTAGE})
"""Findings that time alone may cure."""


class Verdict(str, Enum):
    """What a piece of evidence teaches about its subject."""

    LIVE = "live"
    DEAD = "dead"
    OPEN = "open"
    """A question: one answer that proves nothing by itself."""


class Kind(str, Enum):
    """How the evidence was obtained."""

    REFRESH = "refresh"
    PROBE = "probe"
    CONTROL = "control"
    """The bogus-token control: our own request with a token that cannot exist."""
    CLASS_CHECK = "class_check"
    """A refresh in the form that the catalog declares for the provider, which is not the form the connection asks for."""
    INTROSPECTION = "introspection"
    """What the provider itself says of a token when asked about it (RFC 7662)."""
    CONCLUSION = "conclusion"
    """Rests on other evidence, which it names."""
    PERSON = "person"
    CONNECT = "connect"
    """A person approved at the provider, and what came back was exchanged for tokens."""
    USE = "use"
    """A consumer's own request was refused."""


@dataclass(frozen=True)
class Reading:
    """What one answer says, by which rule, in one sentence."""

    subject: Subject
    finding: Finding
    rule: str
    explanation: str

    @property
    def verdict(self) -> Verdict:
        """A single answer can show life; it can never prove death."""
        return Verdict.LIVE if self.finding is Finding.LIVE else Verdict.OPEN


@dataclass(frozen=True)
class Shape:
    """The form of a request: names, never values."""

    grant_type: str
    method: str
    endpoint: str
    """Scheme, host and path; a query can carry secrets and is reduced to its names."""
    client_auth: str
    body_format: str
    parameters: tuple[str, ...]

    def as_json(self) -> str:
        return json.dumps(self.__dict__, sort_keys=True)

    @property
    def id(self) -> str:
        """Equal for two requests that a provider cannot tell apart except by their values."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()


@dataclass(frozen=True)
class Observer:
    """Who looked: the Airflow task instance, a command, or a person on the page."""

    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    person: str | None = None
    """Who asked for it, by name; None where a schedule did."""

    def __str__(self) -> str:
        return f"{self.person} ({self._where})" if self.person else self._where

    @property
    def _where(self) -> str:
        if self.dag_id is None:
            return self.task_id or "outside Airflow"
        return f"{self.dag_id} · {self.run_id} · {self.task_id}"


@dataclass(frozen=True)
class Evidence:
    """One observation of one token generation."""

    kind: Kind
    generation: int
    observed_at: datetime
    reading: Reading
    verdict: Verdict
    shape: Shape | None = None
    http_status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    """Redacted; see :mod:`airflow_oauth_guard.domain.redaction`."""
    skew: timedelta | None = None
    rests_on: tuple[int, ...] = ()
    """Ids of the evidence a conclusion is drawn from."""
    observer: Observer = Observer()
    investigation_id: int | None = None
    retry_after: timedelta | None = None
    answer_id: str = ""
    """Equal for two answers nobody could tell apart: status, error code and description."""
    id: int | None = None

    @property
    def finding(self) -> Finding:
        return self.reading.finding

    @property
    def subject(self) -> Subject:
        return self.reading.subject

    def sentence(self) -> str:
        """The evidence in one line, as shown to people."""
        status = f"HTTP {self.http_status}: " if self.http_status else ""
        return f"{status}{self.reading.explanation}"


def as_columns(evidence: Evidence) -> dict[str, Any]:
    """The evidence as the flat row the store keeps."""
    return {
        "generation": evidence.generation,
        "kind": evidence.kind.value,
        "subject": evidence.subject.value,
        "finding": evidence.finding.value,
        "verdict": evidence.verdict.value,
        "rule": evidence.reading.rule,
        "explanation": evidence.reading.explanation,
        "shape": evidence.shape.as_json() if evidence.shape else None,
        "shape_id": evidence.shape.id if evidence.shape else None,
        "http_status": evidence.http_status,
        "headers": json.dumps(dict(evidence.headers), sort_keys=True),
        "body": evidence.body,
        "answer_id": evidence.answer_id,
        "skew_seconds": evidence.skew.total_seconds() if evidence.skew is not None else None,
        "retry_after_seconds": evidence.retry_after.total_seconds() if evidence.retry_after else None,
        "rests_on": json.dumps(list(evidence.rests_on)),
        "investigation_id": evidence.investigation_id,
        "observed_at": evidence.observed_at,
        **evidence.observer.__dict__,
    }
