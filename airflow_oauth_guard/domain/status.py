"""The status of a credential, and the only ways it may change. The table is total: a gap fails the import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from airflow_oauth_guard.domain.evidence import Evidence, Subject, Verdict
from airflow_oauth_guard.errors import UnprovenTransitionError


class Status(str, Enum):
    """What consumers are told. Failing refreshes are a separate, loud condition and change nothing here."""

    ACTIVE = "active"
    LAPSED = "lapsed"
    EXPIRED = "expired"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS: Mapping[Status, str] = {
    Status.ACTIVE: "not proven dead; consumers use it",
    Status.LAPSED: "the access token is proven rejected, the grant is unknown; consumers fail loudly",
    Status.EXPIRED: "the grant is proven dead, or a person said so; tokens are kept and recovery keeps asking",
}

ANY = frozenset(Status)


@dataclass(frozen=True)
class Rule:
    """From any of ``sources``, a verdict about ``subject`` leads to ``target``; None leaves the status alone."""

    sources: frozenset[Status]
    subject: Subject
    verdict: Verdict
    target: Status | None
    reason: str


RULES: tuple[Rule, ...] = (
    *(Rule(ANY, subject, Verdict.OPEN, None, "a question is not an answer") for subject in Subject),
    *(
        Rule(ANY, subject, verdict, None, "says nothing about this credential's tokens")
        for subject in (Subject.CLIENT, Subject.PROVIDER, Subject.REQUEST)
        for verdict in (Verdict.LIVE, Verdict.DEAD)
    ),
    Rule(ANY - {Status.ACTIVE}, Subject.GRANT, Verdict.LIVE, Status.ACTIVE, "the provider issued a new access token"),
    Rule(frozenset({Status.ACTIVE}), Subject.GRANT, Verdict.LIVE, None, "already active"),
    Rule(ANY - {Status.EXPIRED}, Subject.GRANT, Verdict.DEAD, Status.EXPIRED, "the grant is proven dead"),
    Rule(frozenset({Status.EXPIRED}), Subject.GRANT, Verdict.DEAD, None, "already expired"),
    Rule(frozenset({Status.ACTIVE}), Subject.ACCESS_TOKEN, Verdict.LIVE, None, "already active"),
    Rule(frozenset({Status.LAPSED}), Subject.ACCESS_TOKEN, Verdict.LIVE, Status.ACTIVE, "the access token answered"),
    Rule(
        frozenset({Status.EXPIRED}),
        Subject.ACCESS_TOKEN,
        Verdict.LIVE,
        None,
        "a live access token says nothing about the grant, which was proven dead",
    ),
    Rule(frozenset({Status.ACTIVE}), Subject.ACCESS_TOKEN, Verdict.DEAD, Status.LAPSED, "the access token is rejected"),
    Rule(ANY - {Status.ACTIVE}, Subject.ACCESS_TOKEN, Verdict.DEAD, None, "the access token was already unusable"),
)


def _total(rules: tuple[Rule, ...]) -> Mapping[tuple[Status, Subject, Verdict], Rule]:
    cells: dict[tuple[Status, Subject, Verdict], Rule] = {}
    for rule in rules:
        for source in rule.sources:
            cell = (source, rule.subject, rule.verdict)
            if cell in cells:
                raise AssertionError(f"two rules for {cell}")
            cells[cell] = rule
    if missing := {(s, j, v) for s in Status for j in Subject for v in Verdict} - cells.keys():
        raise AssertionError(f"no rule for {missing}")
    return cells


TABLE = _total(RULES)


def rule_for(status: Status, evidence: Evidence) -> Rule:
    """The rule that this evidence meets in this status."""
    return TABLE[status, evidence.subject, evidence.verdict]


def require_carries(evidence: Evidence | None, target: Status, *, conn_id: str, generation: int) -> Evidence:
    """Return the evidence if it carries a change to ``target`` for this token generation.

    Raises:
        UnprovenTransitionError: If there is none, it teaches something else, or it is about older tokens.
    """
    if evidence is None or evidence.id is None:
        raise UnprovenTransitionError(
            f"Credential `{conn_id}` was not set `{target.value}`: there is no evidence for it. "
            "Put a ProbeSensor in front, so that the guard can collect some."
        )
    if evidence.generation != generation:
        raise UnprovenTransitionError(
            f"Credential `{conn_id}` was not set `{target.value}`: evidence {evidence.id} is about token generation "
            f"{evidence.generation}, and the credential is at {generation}. Investigate the newest tokens."
        )
    if not any(TABLE[source, evidence.subject, evidence.verdict].target is target for source in Status):
        raise UnprovenTransitionError(
            f"Credential `{conn_id}` was not set `{target.value}`: evidence {evidence.id} says `{evidence.finding.value}` "
            f"about the {evidence.subject.value}, verdict `{evidence.verdict.value}`; that does not carry it."
        )
    return evidence
