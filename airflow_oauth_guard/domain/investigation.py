"""A refresh failed: what to look at next, and what may be concluded from what was seen.

Pure: the evidence collected so far goes in, the next step or the conclusion comes out. So a worker, a trigger and a
restarted task continue alike, and every conclusion names the evidence it rests on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.evidence import TRANSIENT, Evidence, Finding, Kind, Subject, Verdict

SKEW_LIMIT = timedelta(minutes=5)
"""Assertions and tokens are commonly judged with a few minutes of leeway; beyond it a clock can fake a death."""

SIBLING_WINDOW = timedelta(days=7)
"""How long a success of another credential of the same client vouches for a request's form."""


SAID_WITH_A_CODE = frozenset(
    {
        "error_code",
        "provider_code",
        "provider_status",
        "words",
        "undecided_code",
        "not_about_the_grant",
        "no_grant_of_its_own",
    }
)
"""Readings of an error that the provider put in words."""

DOCUMENTED = frozenset({"error_code", "provider_code"})
"""Readings of a code whose meaning the protocol or the provider documents. Words that read like a death prove none."""


class Step(str, Enum):
    """What to look at next."""

    PROBE = "probe"
    INTROSPECT = "introspect"
    CONTROL = "control"
    CLASS_CHECK = "class_check"
    REFRESH = "refresh"
    WAIT = "wait"


class Owner(str, Enum):
    """Whose job it is."""

    NOBODY = "nobody; time may cure it"
    CODE = "the owner of this connection's settings and the code that uses them"
    APP = "the owner of the OAuth app at the provider"
    ACCOUNT = "the owner of the account at the provider"
    PERSON = "a person; the evidence does not decide"


CONTROLS_PER_DAY = 3
"""The budget of bogus-token controls of one client: a made-up token is a failed login to whoever counts them."""

SIBLINGS_WITHIN = timedelta(hours=6)
"""Failures of one client's credentials that began within this time of each other began together."""


@dataclass(frozen=True)
class Siblings:
    """How the other credentials of the same client are doing since this one began to fail."""

    failing: int = 0
    """Those that fail alike."""
    working: int = 0
    """Those that were refreshed."""
    names: tuple[str, ...] = ()
    """Some of those that fail."""

    @property
    def fail_together(self) -> bool:
        """Several at once, and most of them: grants die one by one, clients and providers for all."""
        return self.failing >= 2 and self.failing >= self.working


ALONE = Siblings()


@dataclass(frozen=True)
class Case:
    """Everything an investigation knows.

    ``evidence`` is in order of time and starts with the failed refresh that raised the question.
    """

    evidence: Sequence[Evidence]
    generation: int
    """The newest token generation, re-read now."""
    has_probe: bool
    sends_token: bool
    """Whether the grant sends a token that the provider could judge; without one nothing can be proven dead."""
    shape_proven: bool
    """This request's shape has succeeded for this credential, or lately for a sibling of the same client."""
    lost_answer: bool
    """A refresh of this generation may have been processed without its answer reaching us."""
    pause: timedelta
    """How long to wait before a second look counts."""
    give_up_at: datetime
    has_introspection: bool = False
    may_control: bool = True
    """Whether this client's budget of controls is not spent: made-up tokens must not lock anybody out."""
    declared: str = ""
    """How the form that the catalog declares for this provider differs from ours; empty where it does not."""
    probe_worked: bool = False
    """The baseline: this very probe was answered before, for this credential or lately for a sibling."""
    siblings: Siblings = ALONE

    def of(self, kind: Kind) -> list[Evidence]:
        return [item for item in self.evidence if item.kind is kind]


OWNER_OF: Mapping[Finding, Owner] = {
    Finding.LIVE: Owner.NOBODY,
    Finding.GRANT_DEAD: Owner.ACCOUNT,
    Finding.ACCESS_TOKEN_DEAD: Owner.NOBODY,
    Finding.REQUEST_MALFORMED: Owner.CODE,
    Finding.CLIENT_MISCONFIGURED: Owner.APP,
    Finding.SCOPE_INSUFFICIENT: Owner.CODE,
    Finding.RATE_LIMITED: Owner.NOBODY,
    Finding.PROVIDER_OUTAGE: Owner.NOBODY,
    Finding.ACCOUNT_ACTION: Owner.ACCOUNT,
    Finding.AMBIGUOUS: Owner.PERSON,
    Finding.UNKNOWN: Owner.PERSON,
}
"""Whose job it is, as far as one answer tells. A dead access token is nobody's: the next refresh cures it."""


@dataclass(frozen=True)
class Conclusion:
    """What the evidence teaches, together."""

    finding: Finding
    subject: Subject
    verdict: Verdict
    explanation: str
    owner: Owner
    rests_on: tuple[int, ...]
    access_token: Verdict
    """What the probes proved about the access token."""
    access_token_rests_on: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    """The conditions of a proven death that are not met."""
    shared: bool = False
    """It is about what the credentials of one client have in common, and one alarm speaks for all of them."""


def next_step(case: Case, now: datetime) -> Step | Conclusion:
    """The next look that could teach something, or the conclusion when nothing is left to look at or time is up."""
    refreshes, probes, controls = case.of(Kind.REFRESH), case.of(Kind.PROBE), case.of(Kind.CONTROL)
    latest = refreshes[-1]
    if latest.verdict is Verdict.LIVE or now >= case.give_up_at:
        return conclude(case)
    if case.has_probe and not probes:
        return Step.PROBE
    rejected_once = len(probes) == 1 and _rejects(probes[0], case)
    if latest.finding in TRANSIENT or case.lost_answer:
        # The provider judged nothing, or what it judges now may be a token that it has replaced: asking it again is the
        # next cycle's work, which knows when that is safe.
        return _after_pause(probes[0], case, now, Step.PROBE) if rejected_once else conclude(case)
    if case.has_introspection and not case.of(Kind.INTROSPECTION):
        return Step.INTROSPECT
    if case.sends_token and not controls and case.may_control:
        return Step.CONTROL
    if case.declared and not case.shape_proven and not case.of(Kind.CLASS_CHECK):
        return Step.CLASS_CHECK
    if rejected_once:
        return _after_pause(probes[0], case, now, Step.PROBE)
    if len(refreshes) == 1:
        return _after_pause(latest, case, now, Step.REFRESH)
    return conclude(case)


def _after_pause(previous: Evidence, case: Case, now: datetime, step: Step) -> Step:
    return step if now - previous.observed_at >= case.pause else Step.WAIT


def conclude(case: Case) -> Conclusion:
    """Say what the evidence proves, what it does not, and whose job it is."""
    access_token, token_proof = _access_token(case)
    finding, subject, verdict, explanation, owner, missing = _about_the_grant(case)
    return Conclusion(
        finding=finding,
        subject=subject,
        verdict=verdict,
        explanation=explanation + _access_token_clause(case, access_token),
        owner=owner,
        rests_on=tuple(item.id for item in case.evidence if item.id is not None),
        access_token=access_token,
        access_token_rests_on=token_proof,
        missing=missing,
        shared=subject in (Subject.CLIENT, Subject.REQUEST) and case.siblings.fail_together,
    )


def _access_token(case: Case) -> tuple[Verdict, tuple[int, ...]]:
    """Dead only by two token-specific rejections with a pause between them and no sign of life since, or by the
    provider's own word.
    """
    # Where there is no probe, what consumers asked for is one. Where there is, it knows better which host to ask.
    looks = case.of(Kind.PROBE) if case.has_probe else case.of(Kind.USE)
    probes = [look for look in looks if look.generation == case.generation]
    if probes and probes[-1].verdict is Verdict.LIVE:
        return Verdict.LIVE, ()
    last_live = max((i for i, probe in enumerate(probes) if probe.verdict is Verdict.LIVE), default=-1)
    rejections = [probe for probe in probes[last_live + 1 :] if _rejects(probe, case)]
    inactive = [item for item in case.of(Kind.INTROSPECTION) if item.finding is Finding.ACCESS_TOKEN_DEAD]
    if inactive and inactive[-1].generation == case.generation and last_live < 0:
        return Verdict.DEAD, tuple(item.id for item in inactive if item.id is not None)
    if len(rejections) >= 2 and rejections[-1].observed_at - rejections[0].observed_at >= case.pause:
        return Verdict.DEAD, tuple(item.id for item in rejections if item.id is not None)
    return Verdict.OPEN, ()


def _rejects(probe: Evidence, case: Case) -> bool:
    """Whether this probe says that the token is the reason: by a documented code, or by a plain 401 to a probe that used to
    be answered.
    """
    baseline = case.probe_worked and probe.http_status == UNAUTHORIZED and probe.reading.rule in UNSPECIFIC
    # What ends the grant, such as an app that was removed, ends its access token.
    documented = _is_documented(probe, Finding.ACCESS_TOKEN_DEAD) or _is_documented(probe, Finding.GRANT_DEAD)
    return documented or baseline


UNAUTHORIZED = 401
UNSPECIFIC = frozenset({"bare_401", "words", "undecided_code", "provider_status"})
"""Readings of a 401 that does not give a documented reason: about the token in two cases of three."""


def _is_documented(evidence: Evidence, finding: Finding) -> bool:
    return evidence.finding is finding and evidence.reading.rule in DOCUMENTED


def _access_token_clause(case: Case, verdict: Verdict) -> str:
    probes = case.of(Kind.PROBE)
    if verdict is Verdict.LIVE:
        return " The access token is alive: a probe was answered."
    if verdict is Verdict.DEAD:
        return " The access token is proven rejected, twice with a pause between."
    if probes:
        return f" What the probe taught about the access token: {probes[-1].reading.explanation}."
    return " The access token was not probed: the connection has no probe URL." if not case.has_probe else ""


_Judgement = tuple[Finding, Subject, Verdict, str, Owner, tuple[str, ...]]


def _about_the_grant(case: Case) -> _Judgement:
    latest = case.of(Kind.REFRESH)[-1]
    said = latest.sentence()
    if latest.verdict is Verdict.LIVE:
        return (
            Finding.LIVE,
            Subject.GRANT,
            Verdict.LIVE,
            "A later refresh succeeded; nothing is wrong.",
            Owner.NOBODY,
            (),
        )
    if case.lost_answer:
        return (
            *(Finding.AMBIGUOUS, Subject.GRANT, Verdict.OPEN),
            (
                "A refresh may have spent the refresh token, and the answer that held the next one did not reach us; the "
                f"last we heard: {said}. It is not sent again while the access token lives, since a provider that detects "
                "reuse would revoke that too; then it is sent once more. If the provider documents how long it "
                "accepts a replaced token, say so in the field `rotation_grace`; if it never replaces them, switch "
                "`rotation` off; else reconnect."
            ),
            *(Owner.PERSON, ("an earlier refresh has no answer",)),
        )
    if latest.finding in TRANSIENT:
        wait = f", which asks us to wait {words(latest.retry_after)}" if latest.retry_after else ""
        return (
            *(latest.finding, Subject.PROVIDER, Verdict.OPEN),
            f"The provider could not be asked ({said}{wait}); nothing is known against this credential.",
            *(Owner.NOBODY, ()),
        )
    # What the control and the answer itself say comes first: a request that is wrong for a whole client is ours all the same.
    return _by_control(case, latest) or _by_siblings(case, latest) or _by_four_conditions(case, latest)


def _by_siblings(case: Case, latest: Evidence) -> _Judgement | None:
    """Several credentials of one client that fail alike point at what they share."""
    if not case.siblings.fail_together:
        return None
    others = case.siblings
    names = ", ".join(f"`{name}`" for name in others.names) + (" …" if others.failing > len(others.names) else "")
    if latest.subject is Subject.PROVIDER:
        return (
            *(Finding.PROVIDER_OUTAGE, Subject.PROVIDER, Verdict.OPEN),
            f"What answers is not the provider's token endpoint ({latest.sentence()}), also for {names}.",
            *(Owner.NOBODY, ()),
        )
    return (
        *(Finding.CLIENT_MISCONFIGURED, Subject.CLIENT, Verdict.OPEN),
        (
            f"{others.failing + 1} credentials of this client began to fail alike within {words(SIBLINGS_WITHIN)} "
            f"({latest.sentence()}), which points at the app or the provider, not at each grant: {names}."
        ),
        *(Owner.APP, ("most credentials of this client fail together",)),
    )


def _by_control(case: Case, latest: Evidence) -> _Judgement | None:
    """The bogus-token control: the same complaint about a made-up token means ours was never looked at."""
    controls = _controls_of(case, latest)
    same = _is_a_complaint(latest) and any(item.answer_id == latest.answer_id for item in controls)
    said = latest.sentence()
    if latest.finding is Finding.CLIENT_MISCONFIGURED:
        return (
            *(Finding.CLIENT_MISCONFIGURED, Subject.CLIENT, Verdict.DEAD if same else Verdict.OPEN),
            f"The provider refuses our app, not this grant ({said}).",
            *(Owner.APP, ()),
        )
    worked_before = case.shape_proven and latest.finding is Finding.UNKNOWN
    if same and latest.finding is not Finding.GRANT_DEAD and not worked_before:
        fields = ", ".join(latest.shape.parameters) if latest.shape else "unknown"
        sent = f"grant_type `{latest.shape.grant_type}`, parameters {fields}" if latest.shape else "unknown"
        check = (
            f"The catalog declares another form: {case.declared}"
            if case.declared
            else ("Check that the connection's type is the class this provider wants")
        )
        return (
            *(Finding.REQUEST_MALFORMED, Subject.REQUEST, Verdict.DEAD),
            (
                f"Our request is wrong: a made-up token earned the same answer ({said}), so the grant was never "
                f"looked at. Sent: {sent}. {check}."
            ),
            *(Owner.CODE, ()),
        )
    if latest.finding in (Finding.REQUEST_MALFORMED, Finding.SCOPE_INSUFFICIENT):
        return (
            *(latest.finding, Subject.REQUEST, Verdict.OPEN),
            f"The provider complains about our request, not about the grant ({said}).",
            *(Owner.CODE, ()),
        )
    if latest.finding is Finding.ACCOUNT_ACTION:
        return (
            *(Finding.ACCOUNT_ACTION, Subject.GRANT, Verdict.OPEN),
            f"The provider wants something done in the account ({said}).",
            *(Owner.ACCOUNT, ()),
        )
    return None


def _by_four_conditions(case: Case, latest: Evidence) -> _Judgement:
    """A grant is dead when all four conditions hold; else the explanation names what is missing."""
    said = latest.sentence()
    if latest.finding is not Finding.GRANT_DEAD:
        return (
            *(Finding.UNKNOWN, Subject.GRANT, Verdict.OPEN),
            f"The answer decides nothing ({said}).",
            *(Owner.PERSON, ("the provider said that the grant is invalid",)),
        )
    if not case.sends_token:
        return (
            *(Finding.UNKNOWN, Subject.CLIENT, Verdict.OPEN),
            (
                f"The provider rejects what this connection logs in with ({said}). Nothing is stored that could be proven "
                "dead: check the connection's own fields, and change the password there if it was changed elsewhere."
            ),
            *(Owner.ACCOUNT, ("this class has no grant of its own",)),
        )
    missing = tuple(_missing(case))
    if missing:
        return (
            *(Finding.UNKNOWN, Subject.GRANT, Verdict.OPEN),
            f"The grant may be dead ({said}), but that is not proven: {'; '.join(missing)}.",
            *(Owner.PERSON, missing),
        )
    return (
        *(Finding.GRANT_DEAD, Subject.GRANT, Verdict.DEAD),
        (
            f"The grant is dead: {said}, twice with a pause between, from a request whose form is proven, "
            "with the newest token."
        ),
        *(Owner.ACCOUNT, ()),
    )


def _missing(case: Case) -> list[str]:
    refreshes = case.of(Kind.REFRESH)
    latest = refreshes[-1]
    missing: list[str] = []
    if not _is_documented(latest, Finding.GRANT_DEAD):
        missing.append("the provider's words sound like it, but no code that it documents says so")
    controls = _controls_of(case, latest)
    if not (case.shape_proven or _told_apart(latest, controls)):
        same = any(control.answer_id == latest.answer_id for control in controls)
        made_up = "a made-up token earned the same answer" if same else "no control told the two apart"
        missing.append(f"this form of request has never succeeded for this client, and {made_up}")
    if any(item.finding is Finding.LIVE and item.subject is Subject.GRANT for item in case.of(Kind.INTROSPECTION)):
        missing.append("the provider says of the token, when asked, that it is active")
    if latest.generation != case.generation:
        missing.append(f"generation {latest.generation} was sent, but {case.generation} is the newest")
    agreeing = [item for item in refreshes if item.answer_id == latest.answer_id and item.generation == case.generation]
    if len(agreeing) < 2 or latest.observed_at - agreeing[0].observed_at < case.pause:
        missing.append("the same answer was not given again after a pause")
    if latest.skew is not None and abs(latest.skew) > SKEW_LIMIT:
        missing.append(f"our clock and the provider's are {words(latest.skew)} apart")
    return missing


def _is_a_complaint(answered: Evidence) -> bool:
    """Whether the provider objected to something. Two outages, captive portals or empty bodies look alike as well, and
    that says nothing about our request.
    """
    refused = answered.http_status is not None and 400 <= answered.http_status < 500
    return answered.reading.rule in SAID_WITH_A_CODE or (refused and bool(answered.body))


def _controls_of(case: Case, latest: Evidence) -> list[Evidence]:
    """The controls that were sent in the same form as the refresh; others say nothing about it."""
    return [item for item in case.of(Kind.CONTROL) if item.shape == latest.shape]


def _told_apart(latest: Evidence, controls: Sequence[Evidence]) -> bool:
    """Both were judged as grants, and differently: then ours was looked at."""
    return any(
        _is_documented(control, Finding.GRANT_DEAD) and control.answer_id != latest.answer_id for control in controls
    )


def suffices(alone: Evidence, now: datetime) -> bool:
    """Whether one answer alone would let the guard declare a death, were all the rest in the best order."""
    case = Case(
        evidence=[alone],
        generation=alone.generation,
        has_probe=True,
        sends_token=True,
        shape_proven=True,
        lost_answer=False,
        pause=timedelta(seconds=1),
        give_up_at=now,
        probe_worked=True,
    )
    if alone.kind is Kind.PROBE:
        return _access_token(case)[0] is Verdict.DEAD
    return conclude(case).verdict is Verdict.DEAD


def signature(failed: Evidence) -> str:
    """Equal for refresh failures that look alike: same request, same answer, same tokens.

    One that was looked into is not looked into again, so a control is run once per incident.
    """
    if failed.finding in TRANSIENT:
        return hashlib.sha256(f"{failed.generation}\0{failed.finding.value}".encode()).hexdigest()
    parts = (str(failed.generation), failed.shape.id if failed.shape else "", failed.answer_id, failed.reading.rule)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
