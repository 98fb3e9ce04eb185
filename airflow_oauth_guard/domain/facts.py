"""The four facts about a credential, each with what was seen of it last. No one of them is inferred from another's failure.

Pure: the newest evidence of each kind and subject goes in. What a fact says is for people; a status changes only by the table
in :mod:`airflow_oauth_guard.domain.status`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from airflow_oauth_guard.domain.evidence import TRANSIENT, Evidence, Finding, Kind, Subject, Verdict


@dataclass(frozen=True)
class Fact:
    """What is known about one subject."""

    subject: Subject
    verdict: Verdict
    says: str
    """In a few words."""
    evidence: Evidence
    """What says it."""


FOUR = (Subject.ACCESS_TOKEN, Subject.GRANT, Subject.CLIENT, Subject.PROVIDER)

_ISSUES = frozenset({Kind.REFRESH, Kind.CONNECT})
"""What brings the next generation, where it succeeds."""

_AT_THE_TOKEN_ENDPOINT = frozenset({Kind.REFRESH, Kind.CONNECT, Kind.CLASS_CHECK, Kind.CONTROL})


def four_facts(latest: Sequence[Evidence], generation: int) -> dict[Subject, Fact]:
    """What is known about the tokens of this generation, their client and their provider.

    Args:
        latest: The newest evidence of each kind and subject, in any order; more does no harm.

    Returns:
        By subject; those of which nothing is known are missing.
    """
    facts = {}
    for subject, says in _SAYS.items():
        said = [fact for item in latest if _teaches(item) and (fact := says(item, generation)) is not None]
        if said:
            facts[subject] = _newest(said)
    return facts


def _teaches(item: Evidence) -> bool:
    """A consumer that was refused for another reason than its token was refused for one of its own."""
    return item.kind is not Kind.USE or item.finding in (Finding.ACCESS_TOKEN_DEAD, Finding.GRANT_DEAD)


def _newest(said: Sequence[Fact]) -> Fact:
    """The last word; but of what is proven dead, another question teaches nothing."""
    in_order = sorted(said, key=_when)
    lives = [number for number, fact in enumerate(in_order) if fact.evidence.verdict is Verdict.LIVE]
    since = in_order[lives[-1] :] if lives else in_order
    deaths = [fact for fact in since if fact.evidence.verdict is Verdict.DEAD]
    return deaths[-1] if deaths else in_order[-1]


def _when(fact: Fact) -> tuple[int, float, int]:
    # What was seen of a token came after the token, whatever two clocks say about it.
    generation = fact.evidence.generation if fact.subject in (Subject.ACCESS_TOKEN, Subject.GRANT) else 0
    return generation, fact.evidence.observed_at.timestamp(), fact.evidence.id or 0


def _about_the_access_token(item: Evidence, generation: int) -> Fact | None:
    def fact(verdict: Verdict, says: str) -> Fact:
        return Fact(Subject.ACCESS_TOKEN, verdict, says, item)

    if _issued(item, generation):
        return fact(Verdict.OPEN, "issued, not tried yet")
    if item.subject is not Subject.ACCESS_TOKEN or item.generation != generation or item.kind is Kind.CONTROL:
        return None
    if item.verdict is Verdict.DEAD:
        return fact(Verdict.DEAD, "proven rejected")
    if item.kind is Kind.CONCLUSION:
        # It rests on looks that say it themselves.
        return None
    if item.verdict is Verdict.LIVE:
        return fact(
            Verdict.LIVE, "active, says the provider" if item.kind is Kind.INTROSPECTION else "answered a probe"
        )
    return fact(Verdict.OPEN, _QUESTIONS.get(item.finding, "the last look decides nothing"))


def _about_the_grant(item: Evidence, generation: int) -> Fact | None:
    def fact(verdict: Verdict, says: str) -> Fact:
        return Fact(Subject.GRANT, verdict, says, item)

    if item.subject is not Subject.GRANT or item.kind is Kind.CONTROL:
        return None
    if _issued(item, generation):
        return fact(Verdict.LIVE, "reconnected" if item.kind is Kind.CONNECT else "a refresh succeeded")
    if item.kind is Kind.PERSON and item.verdict is Verdict.LIVE and item.generation in (generation - 1, generation):
        # New tokens make the next generation, a word that the old ones work does not.
        entered = item.generation < generation
        return fact(Verdict.OPEN, "entered by a person, not tried yet" if entered else "alive, says a person")
    if item.generation != generation or item.kind in _SAY_NOTHING_OF_THE_GRANT:
        return None
    if item.verdict is Verdict.DEAD:
        return fact(Verdict.DEAD, "dead, says a person" if item.kind is Kind.PERSON else "proven dead")
    if item.kind is Kind.CONCLUSION and item.finding is not Finding.AMBIGUOUS:
        return None
    if item.verdict is Verdict.LIVE:
        return fact(
            Verdict.LIVE, "active, says the provider" if item.kind is Kind.INTROSPECTION else "a refresh succeeded"
        )
    return fact(Verdict.OPEN, _QUESTIONS.get(item.finding, "the last answer decides nothing"))


_SAY_NOTHING_OF_THE_GRANT = frozenset({Kind.CLASS_CHECK, Kind.CONNECT})
"""Where they fail: another form of the request was refused, or another code."""

_QUESTIONS: Mapping[Finding, str] = {
    Finding.GRANT_DEAD: "rejected, not proven dead",
    Finding.ACCESS_TOKEN_DEAD: "rejected, not proven dead",
    Finding.AMBIGUOUS: "may be spent: an answer was lost",
    Finding.ACCOUNT_ACTION: "the account has to act first",
}


def _about_the_client(item: Evidence, _generation: int) -> Fact | None:
    if item.subject is Subject.CLIENT and item.finding is Finding.CLIENT_MISCONFIGURED:
        # A made-up token that gets the same answer shows that no token was looked at.
        proven = item.verdict is Verdict.DEAD or item.kind in (Kind.CONCLUSION, Kind.CONTROL)
        if proven:
            return Fact(Subject.CLIENT, Verdict.DEAD, "refused, whatever the token", item)
        return Fact(Subject.CLIENT, Verdict.OPEN, "refused", item)
    evaluated = item.finding in (Finding.LIVE, Finding.GRANT_DEAD) and item.subject is Subject.GRANT
    if evaluated and item.kind in _AT_THE_TOKEN_ENDPOINT and item.http_status is not None:
        return Fact(Subject.CLIENT, Verdict.LIVE, "accepted: the provider judged a token", item)
    return None


def _about_the_provider(item: Evidence, _generation: int) -> Fact | None:
    if item.kind is Kind.USE:
        # Consumers ask whom they like.
        return None
    if item.subject is Subject.PROVIDER and item.finding in TRANSIENT:
        failing = "failing" if item.finding is Finding.PROVIDER_OUTAGE else "limits our rate"
        return Fact(Subject.PROVIDER, Verdict.OPEN, failing, item)
    if item.http_status is None or item.finding in TRANSIENT:
        return None
    if item.subject is Subject.PROVIDER and item.finding is Finding.UNKNOWN:
        return Fact(Subject.PROVIDER, Verdict.OPEN, "answers, but not as its protocol wants", item)
    return Fact(Subject.PROVIDER, Verdict.LIVE, "answers", item)


def _issued(item: Evidence, generation: int) -> bool:
    """Whether it brought the tokens there are now."""
    success = item.subject is Subject.GRANT and item.verdict is Verdict.LIVE and item.kind in _ISSUES
    return success and item.generation == generation - 1


_SAYS: Mapping[Subject, Callable[[Evidence, int], Fact | None]] = {
    Subject.ACCESS_TOKEN: _about_the_access_token,
    Subject.GRANT: _about_the_grant,
    Subject.CLIENT: _about_the_client,
    Subject.PROVIDER: _about_the_provider,
}
