"""What one HTTP answer says, in one sentence: rules from the protocol documents and the catalog, most specific first.

No rule here can prove a death. A reading is a question or a sign of life; conclusions are drawn in
:mod:`airflow_oauth_guard.domain.investigation`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from airflow_oauth_guard.domain.answers import (
    NOTHING,
    Answer,
    Body,
    HttpAnswer,
    NoAnswer,
    Said,
    at_path,
    challenge,
    may_have_issued,
    read_body,
    said,
    signals_error,
)
from airflow_oauth_guard.domain.evidence import Finding, Reading, Subject
from airflow_oauth_guard.domain.vocabulary import (
    AGAINST_THE_CODE,
    CODES_FOR_A_DEAD_TOKEN,
    GRANT_ENDED,
    NOT_ABOUT_THE_GRANT,
    PASSWORD_REJECTED,
    REFRESH_TOKEN_ENDED,
    RESOURCE_CODES,
    RESOURCE_WORDS,
    RFC6749_BOILERPLATE,
    TOKEN_CODES,
    TOKEN_WORDS,
    ErrorRule,
    Vocabulary,
)

SUBJECT_OF: Mapping[Finding, Subject] = {
    Finding.GRANT_DEAD: Subject.GRANT,
    Finding.ACCESS_TOKEN_DEAD: Subject.ACCESS_TOKEN,
    Finding.REQUEST_MALFORMED: Subject.REQUEST,
    Finding.CLIENT_MISCONFIGURED: Subject.CLIENT,
    Finding.SCOPE_INSUFFICIENT: Subject.REQUEST,
    Finding.RATE_LIMITED: Subject.PROVIDER,
    Finding.PROVIDER_OUTAGE: Subject.PROVIDER,
    Finding.ACCOUNT_ACTION: Subject.GRANT,
    Finding.AMBIGUOUS: Subject.GRANT,
}
"""What a finding is about; ``live`` and ``unknown`` are about whatever the call was made for."""


@dataclass(frozen=True)
class Dialect:
    """What is particular about one provider's answers and one class of connection."""

    token_path: str = "access_token"  # noqa: S105 - a path, not a token
    """Where a token answer has its token; empty to take any that looks like one, for answers of unknown providers."""
    refresh_codes: Vocabulary = ()
    """The provider's own, asked before the protocol's."""
    probe_codes: Vocabulary = ()
    token_is_grant: bool = False
    """Whether the access token is all there is, so that its death is the grant's."""
    has_grant: bool = True
    """Whether a refresh sends a token that can be dead; a class without one has only its own settings."""
    rejected_means: Finding = Finding.REQUEST_MALFORMED
    """What a rejected grant is about in a class that has none: its assertion, its client, its account."""
    success_has: str = ""
    """The path that a probe's success body has; empty where any body without an error is one."""
    success_equals: str = ""


STANDARD = Dialect()


def read_token_answer(answer: Answer, dialect: Dialect = STANDARD) -> Reading:
    """What a token endpoint's answer to a refresh says."""
    if isinstance(answer, NoAnswer):
        return _unanswered(answer)
    body = read_body(answer.body)
    is_error = answer.status >= 300 or signals_error(body)
    token = at_path(body.content, dialect.token_path) if dialect.token_path else _any_token(body.content)
    if not is_error and isinstance(token, str) and token:
        return Reading(Subject.GRANT, Finding.LIVE, "token_issued", "the token endpoint issued a new access token")
    reason = said(body) if is_error else NOTHING
    return (
        _by_status(answer, reason, dialect.refresh_codes, dialect)
        or _by_codes(reason, answer.status, dialect.refresh_codes, "provider_code", dialect)
        or _by_invalid_grant(reason, dialect)
        or _by_words_against_the_code(reason, dialect)
        or _by_codes(reason, answer.status, TOKEN_CODES, "error_code", dialect)
        or _of_a_token_endpoint_without_a_reason(answer, body)
        or _by_codes(reason, answer.status, TOKEN_WORDS, "words", dialect)
        or _wrong_address(answer)
        or _undecided(Subject.GRANT, reason, body, "neither a token nor an error code was sent")
    )


def read_probe_answer(answer: Answer, dialect: Dialect = STANDARD) -> Reading:
    """What a resource's answer to a request carrying the access token says."""
    reading = _unanswered(answer) if isinstance(answer, NoAnswer) else _read_probe(answer, dialect)
    if dialect.token_is_grant and reading.finding is Finding.ACCESS_TOKEN_DEAD:
        return replace(reading, subject=Subject.GRANT, finding=Finding.GRANT_DEAD)
    return reading


def _read_probe(answer: HttpAnswer, dialect: Dialect) -> Reading:
    body = read_body(answer.body)
    if _is_success(answer, body, dialect):
        return Reading(
            Subject.ACCESS_TOKEN, Finding.LIVE, "probe_answered", "the probe was answered with a success body"
        )
    if answer.status < 300 and body.document == {"active": False}:
        # Somebody asked the provider about the token instead of asking a resource with it (RFC 7662 section 2.2).
        return read_introspection_answer(answer, Subject.ACCESS_TOKEN)
    challenged = challenge(answer.headers.get("www-authenticate", ""))
    everything = _joined(challenged, said(body))
    # A success that is not the one we expect may be anything: only the provider's own codes tell.
    reason = everything if answer.status >= 300 or signals_error(body) else NOTHING
    documented = _by_codes(everything, answer.status, dialect.probe_codes, "provider_code", about=Subject.ACCESS_TOKEN)
    return (
        _by_status(answer, everything, dialect.probe_codes)
        or (documented if documented and documented.finding is not Finding.UNKNOWN else None)
        or _about_our_request(reason)
        or _by_codes(challenged, answer.status, RESOURCE_CODES, "error_code")
        or documented
        or _by_codes(reason, answer.status, RESOURCE_CODES, "error_code")
        or _of_a_resource_without_a_reason(answer, reason)
        or _by_codes(reason, answer.status, RESOURCE_WORDS, "words", about=Subject.ACCESS_TOKEN)
        or _wrong_address(answer)
        or _unexpected_success(answer, body, dialect)
        or _undecided(Subject.ACCESS_TOKEN, reason, body, "nothing is said about the token")
    )


def _joined(first: Said, second: Said) -> Said:
    return Said((*first.codes, *second.codes), f"{first.words} {second.words}".strip())


def read_introspection_answer(answer: Answer, subject: Subject) -> Reading:
    """What a provider says of a token when asked about it (RFC 7662 section 2.2)."""
    if isinstance(answer, NoAnswer):
        return _unanswered(answer)
    active = read_body(answer.body).document.get("active") if answer.status < 300 else None
    if active is True:
        return Reading(
            subject, Finding.LIVE, "introspected", f"the provider says that the {_TOKEN_OF[subject]} is active"
        )
    if active is False:
        dead = Finding.GRANT_DEAD if subject is Subject.GRANT else Finding.ACCESS_TOKEN_DEAD
        return Reading(subject, dead, "introspected", f"the provider says that the {_TOKEN_OF[subject]} is not active")
    return _unknown(subject, "no_introspection", f"nothing is said about the {_TOKEN_OF[subject]}")


_TOKEN_OF: Mapping[Subject, str] = {Subject.GRANT: "refresh token", Subject.ACCESS_TOKEN: "access token"}


def is_lost(answer: Answer, reading: Reading, dialect: Dialect = STANDARD) -> bool:
    """Whether the provider may have issued tokens in this exchange that we did not get out of the answer.

    A page for people instead of JSON comes from something that stands before the token endpoint.
    """
    if reading.finding is Finding.LIVE:
        return False
    if isinstance(answer, NoAnswer):
        return answer.maybe_processed
    if answer.status >= 300:
        return may_have_issued(answer.status)
    if answer.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and not read_body(answer.body).content:
        return False
    content = read_body(answer.body).content
    issued = _mentions_a_token(content) or bool(dialect.token_path and at_path(content, dialect.token_path))
    return issued or reading.rule in ("unreadable_body", "no_error_code")


def _mentions_a_token(content: object) -> bool:
    if isinstance(content, dict):
        return not _TOKENS.isdisjoint(content) or any(_mentions_a_token(value) for value in content.values())
    return isinstance(content, list) and any(_mentions_a_token(item) for item in content)


_TOKENS = frozenset({"access_token", "refresh_token", "accessToken", "refreshToken"})


# -- the rules, in the order in which they are asked ----------------------------------------------------------------


def _unanswered(answer: NoAnswer) -> Reading:
    if not answer.provider_at_fault:
        return _unknown(Subject.PROVIDER, "cut_short", answer.reason)
    return Reading(Subject.PROVIDER, Finding.PROVIDER_OUTAGE, "unanswered", f"no answer: {answer.reason}")


def _about_our_request(reason: Said) -> Reading | None:
    rule = _first(AGAINST_THE_CODE, reason)
    return _reading(rule, reason, "words", Subject.REQUEST) if rule else None


def _any_token(content: object) -> object:
    """Whatever a token endpoint may have issued, wherever it put it."""
    if isinstance(content, dict):
        own = [value for key, value in content.items() if _TOKEN_NAME.search(str(key)) and isinstance(value, str)]
        return next(iter(own), None) or next(filter(None, map(_any_token, content.values())), None)
    return None


_TOKEN_NAME = re.compile(r"(access_?token|^token|_token|jwt|session_?id)$", re.IGNORECASE)


def _is_success(answer: HttpAnswer, body: Body, dialect: Dialect) -> bool:
    """A probe's success: as the catalog describes it, else any readable body that is no error."""
    if answer.status >= 300:
        return False
    if dialect.success_has:
        found, wanted = at_path(body.content, dialect.success_has), dialect.success_equals.lower()
        return found is not None and (not wanted or str(found).lower() == wanted)
    asked_about = body.document == {"active": False}
    return answer.status == 204 or (body.content is not None and not signals_error(body) and not asked_about)


def _unexpected_success(answer: HttpAnswer, body: Body, dialect: Dialect) -> Reading | None:
    if answer.status >= 300 or signals_error(body):
        return None
    if body.content is None:
        return _unknown(Subject.ACCESS_TOKEN, "unreadable_body", f"no success body: {body.unreadable}")
    return _unknown(
        Subject.ACCESS_TOKEN,
        "no_success_body",
        f"the body lacks `{dialect.success_has}`, by which a success is known",
    )


def _by_status(answer: HttpAnswer, reason: Said, provider: Vocabulary, dialect: Dialect = STANDARD) -> Reading | None:
    """What the status alone tells; a provider that documents a code for just this status is heard first."""
    if answer.status == 429:
        return Reading(Subject.PROVIDER, Finding.RATE_LIMITED, "http_429", "the provider limits our rate")
    if 500 <= answer.status < 600:
        heard = [rule for rule in provider if rule.status or rule.finding is Finding.RATE_LIMITED]
        failed = Reading(Subject.PROVIDER, Finding.PROVIDER_OUTAGE, "http_5xx", "the provider itself failed")
        return _by_codes(reason, answer.status, heard, "provider_code", dialect, about=Subject.PROVIDER) or failed
    if 300 <= answer.status < 400:
        return _unknown(
            Subject.PROVIDER, "redirect", "a redirect was answered; tokens are never sent on to another address"
        )
    if answer.status in _OUTAGE_STATUSES:
        return Reading(
            Subject.PROVIDER, Finding.PROVIDER_OUTAGE, "http_408", "the provider gave up waiting or is not ready"
        )
    return None


_OUTAGE_STATUSES = frozenset({408, 425})
"""Request Timeout (RFC 9110 section 15.5.9) and Too Early (RFC 8470): the same request may succeed at once."""


def _by_codes(
    reason: Said,
    status: int,
    vocabulary: Vocabulary,
    name: str,
    dialect: Dialect = STANDARD,
    about: Subject = Subject.GRANT,
) -> Reading | None:
    rule = next((rule for rule in vocabulary if rule.matches(reason, status)), None) if reason else None
    if rule is None:
        return None
    if rule.finding is Finding.GRANT_DEAD and not dialect.has_grant:
        return _without_grant(reason, dialect)
    return _reading(rule, reason, name if rule.names_something else "provider_status", about)


def _reading(rule: ErrorRule, reason: Said, name: str, about: Subject) -> Reading:
    if rule.finding is Finding.UNKNOWN:
        return _unknown(about, "undecided_code", f"the provider says {reason}, which decides nothing")
    topic = (f", which is about {rule.meaning}" if name == "words" else f": {rule.meaning}") if rule.meaning else ""
    return Reading(SUBJECT_OF[rule.finding], rule.finding, name, f"the provider says {reason}{topic}")


def _by_invalid_grant(reason: Said, dialect: Dialect) -> Reading | None:
    """``invalid_grant`` has several meanings (RFC 6749 section 5.2); the description may tell which."""
    if "invalid_grant" not in reason.codes or RFC6749_BOILERPLATE.search(reason.words):
        return None
    rule = _first(NOT_ABOUT_THE_GRANT, reason)
    plainly = GRANT_ENDED.matches(reason, 0) and not re.search(r"missing|required", reason.words, re.IGNORECASE)
    if rule is None or (plainly and rule.finding is Finding.REQUEST_MALFORMED and dialect.has_grant):
        return None
    return Reading(
        SUBJECT_OF[rule.finding],
        rule.finding,
        "not_about_the_grant",
        f"the provider says {reason}, which is about {rule.meaning}, not about the grant",
    )


def _by_words_against_the_code(reason: Said, dialect: Dialect) -> Reading | None:
    """Codes that say "your request" or "your app" with words that plainly say something else."""
    if not reason or "invalid_grant" in reason.codes:
        return None
    if rule := _first(AGAINST_THE_CODE, reason):
        return _reading(rule, reason, "words", Subject.GRANT)
    if CODES_FOR_A_DEAD_TOKEN.isdisjoint(reason.codes):
        return None
    if dialect.rejected_means is Finding.GRANT_DEAD and PASSWORD_REJECTED.matches(reason, 0):
        return _reading(PASSWORD_REJECTED, reason, "words", Subject.GRANT)
    elsewhere = _first(NOT_ABOUT_THE_GRANT, Said(words=reason.words))
    if dialect.has_grant and REFRESH_TOKEN_ENDED.matches(reason, 0) and not elsewhere:
        return _reading(REFRESH_TOKEN_ENDED, reason, "words", Subject.GRANT)
    return None


def _first(vocabulary: Vocabulary, reason: Said) -> ErrorRule | None:
    return next((rule for rule in vocabulary if rule.matches(reason, 0)), None)


def _without_grant(reason: Said, dialect: Dialect) -> Reading:
    """In a class that stores no grant: the words may tell what of our own is rejected."""
    told = _first(NOT_ABOUT_THE_GRANT, reason)
    finding = told.finding if told else dialect.rejected_means
    return Reading(
        SUBJECT_OF[finding],
        finding,
        "no_grant_of_its_own",
        f"the provider says {reason}; this class stores no grant, so what it rejects is our own",
    )


def _of_a_token_endpoint_without_a_reason(answer: HttpAnswer, body: Body) -> Reading | None:
    if body.content is None and not body.text:
        if answer.status == 401 and "basic" in answer.headers.get("www-authenticate", "").lower():
            # RFC 6749 section 5.2: the challenge for the scheme with which the client tried to authenticate.
            return Reading(
                Subject.CLIENT,
                Finding.CLIENT_MISCONFIGURED,
                "basic_challenge",
                "the provider asks our app to authenticate",
            )
        if answer.status not in _WRONG_ADDRESS:
            return _unknown(Subject.PROVIDER, "unreadable_body", f"no answer of a token endpoint: {body.unreadable}")
    return None


def _of_a_resource_without_a_reason(answer: HttpAnswer, reason: Said) -> Reading | None:
    if answer.status in (402, 423, 451):
        return Reading(
            Subject.GRANT,
            Finding.ACCOUNT_ACTION,
            f"http_{answer.status}",
            "the account has to pay, is locked, or may not be shown",
        )
    if answer.status == 401 and not reason:
        return _unknown(
            Subject.ACCESS_TOKEN, "bare_401", "the request was refused without saying that the token is the reason"
        )
    return None


_WRONG_ADDRESS: Mapping[int, str] = {
    404: "nothing is there",
    405: "the method is not allowed there",
    406: "it cannot answer in the form we accept",
    410: "it is gone for good",
    414: "the address is too long",
    415: "it does not read the format we send",
}
"""RFC 9110 section 15.5: our request went to the wrong place or in the wrong form."""


def _wrong_address(answer: HttpAnswer) -> Reading | None:
    problem = _WRONG_ADDRESS.get(answer.status)
    if problem is None:
        return None
    return Reading(
        Subject.REQUEST, Finding.REQUEST_MALFORMED, f"http_{answer.status}", f"{problem}: check the address we ask"
    )


def _undecided(subject: Subject, reason: Said, body: Body, otherwise: str) -> Reading:
    if reason:
        return _unknown(subject, "undecided_code", f"the provider says {reason}, which decides nothing")
    if body.unreadable:
        return _unknown(subject, "unreadable_body", f"{otherwise}: {body.unreadable}")
    return _unknown(subject, "no_error_code", otherwise)


def _unknown(subject: Subject, rule: str, explanation: str) -> Reading:
    return Reading(subject, Finding.UNKNOWN, rule, explanation)
