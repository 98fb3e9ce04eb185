"""What one HTTP answer says: rules written from the protocol documents, most specific first.

No rule here can prove a death. A reading is a question or a sign of life; the conclusions are drawn in
:mod:`airflow_oauth_guard.domain.investigation`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_oauth_guard.domain.evidence import Finding, Reading, Subject

Vocabulary = Mapping[str, Finding]
"""A provider's or protocol's error codes and what each says."""


@dataclass(frozen=True)
class HttpAnswer:
    """A complete answer. ``headers`` has lower-case names; ``body`` is at most the transport's limit."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    received_at: datetime


@dataclass(frozen=True)
class NoAnswer:
    """The exchange ended without a complete answer.

    ``maybe_processed`` is False only where the provider cannot have seen the request (refused, no such host).
    """

    reason: str
    maybe_processed: bool
    received_at: datetime
    provider_at_fault: bool = True
    """False when our side cut it short, for instance at the body limit."""


Answer = HttpAnswer | NoAnswer

RFC6749_ERRORS: Vocabulary = {
    # RFC 6749 section 5.2
    "invalid_grant": Finding.GRANT_DEAD,
    "invalid_client": Finding.CLIENT_MISCONFIGURED,
    "unauthorized_client": Finding.CLIENT_MISCONFIGURED,
    "invalid_request": Finding.REQUEST_MALFORMED,
    "unsupported_grant_type": Finding.REQUEST_MALFORMED,
    "invalid_scope": Finding.SCOPE_INSUFFICIENT,
    # RFC 6749 section 4.1.2.1, sent from token endpoints by several providers
    "access_denied": Finding.ACCOUNT_ACTION,
    "server_error": Finding.PROVIDER_OUTAGE,
    "temporarily_unavailable": Finding.PROVIDER_OUTAGE,
    # RFC 8628 section 3.5, RFC 8707 section 2, RFC 9449 section 5
    "slow_down": Finding.RATE_LIMITED,
    "invalid_target": Finding.REQUEST_MALFORMED,
    "invalid_dpop_proof": Finding.REQUEST_MALFORMED,
    # OpenID Connect Core section 3.1.2.6
    "interaction_required": Finding.ACCOUNT_ACTION,
    "login_required": Finding.ACCOUNT_ACTION,
    "consent_required": Finding.ACCOUNT_ACTION,
}

RFC6750_ERRORS: Vocabulary = {
    # RFC 6750 section 3.1
    "invalid_token": Finding.ACCESS_TOKEN_DEAD,
    "insufficient_scope": Finding.SCOPE_INSUFFICIENT,
    "invalid_request": Finding.REQUEST_MALFORMED,
}

NOT_ABOUT_THE_GRANT: tuple[tuple[re.Pattern[str], Finding, str], ...] = (
    # RFC 6749 section 5.2 lets one code, invalid_grant, also mean "does not match the redirection URI" or
    # "was issued to another client"; RFC 7521 section 4.1 adds a bad assertion. The description tells.
    (re.compile(r"redirect", re.IGNORECASE), Finding.REQUEST_MALFORMED, "a redirect URI"),
    (
        re.compile(r"\b(clock|skew|iat|nbf|exp claim|issued at|not yet valid|future)\b|'exp'|\"exp\"", re.IGNORECASE),
        Finding.REQUEST_MALFORMED,
        "the clock or an assertion's times",
    ),
    (
        re.compile(r"\b(assertion|jwt|audience|issuer|signature)\b", re.IGNORECASE),
        Finding.REQUEST_MALFORMED,
        "the assertion",
    ),
    (
        re.compile(r"client[ _]?(id|secret|auth|credential)|(wrong|another|different) client", re.IGNORECASE),
        Finding.CLIENT_MISCONFIGURED,
        "the client",
    ),
    (
        re.compile(
            r"\b(mfa|multi-?factor|2fa|two-?factor|conditional access|policy|consent|locked|disabled)\b", re.IGNORECASE
        ),
        Finding.ACCOUNT_ACTION,
        "a policy or the account",
    ),
    (
        re.compile(r"grant[ _]?type|\bparameter|missing|required|malformed|unsupported", re.IGNORECASE),
        Finding.REQUEST_MALFORMED,
        "the form of the request",
    ),
)
"""``invalid_grant`` with one of these descriptions is not a statement about the grant."""

_RFC6749_BOILERPLATE = re.compile(r"invalid, expired, revoked", re.IGNORECASE)
"""RFC 6749 section 5.2's own list of every meaning; servers that quote it whole have said nothing special."""

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
class ErrorCode:
    """An error as a provider wrote it, whatever envelope it came in."""

    code: str
    description: str = ""

    def __str__(self) -> str:
        return f"`{self.code}`" + (f" ({self.description})" if self.description else "")


@dataclass(frozen=True)
class Body:
    """A body read once: a JSON object (a list reads as an empty one), or the reason it is none."""

    document: Mapping[str, Any] = field(default_factory=dict)
    unreadable: str = ""


def read_body(answer: HttpAnswer) -> Body:
    """Parse a JSON object; anything else is named, never guessed at."""
    text = answer.body.decode("utf-8-sig", errors="replace").strip()
    if not text:
        return Body(unreadable="the body is empty")
    if text[:1] == "<":
        return Body(unreadable="the body is HTML or XML, not JSON")
    try:
        document = _sound(json.loads(text, parse_int=_bounded_int))
    except ValueError:
        return Body(unreadable="the body is not complete JSON")
    except RecursionError:
        return Body(unreadable="the body is JSON nested without end")
    if isinstance(document, dict):
        return Body(document=document)
    return Body() if isinstance(document, list) else Body(unreadable="the body is JSON but no object or list")


def _bounded_int(digits: str) -> int:
    """Python refuses integers of thousands of digits; a silly number must not cost us the token beside it."""
    return int(digits[:300])


def _sound(value: Any) -> Any:
    """Half a character (a lone surrogate) and NUL can be written in JSON, and in no database or request."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "?")
    if isinstance(value, dict):
        return {_sound(key): _sound(item) for key, item in value.items()}
    return [_sound(item) for item in value] if isinstance(value, list) else value


def error_code(document: Mapping[str, Any]) -> ErrorCode | None:
    """The error in a JSON body: RFC 6749's ``error``, or Meta's ``error: {code, message}`` object."""
    error = document.get("error")
    if isinstance(error, dict) and error:
        code = error.get("code", error.get("type", "error"))
        return ErrorCode(str(code), str(error.get("message", "")))
    if isinstance(error, str) and error:
        return ErrorCode(error, str(document.get("error_description", "")))
    if document.get("ok") is False:
        return ErrorCode("ok=false")
    return None


def challenge_error(www_authenticate: str) -> ErrorCode | None:
    """The ``error`` of a Bearer challenge (RFC 6750 section 3)."""
    if "bearer" not in www_authenticate.lower():
        return None
    found: dict[str, str] = {}
    for name, quoted, bare in _AUTH_PARAM.findall(www_authenticate):
        found.setdefault(name.lower(), quoted or bare)
    return ErrorCode(found["error"], found.get("error_description", "")) if found.get("error") else None


_AUTH_PARAM = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
"""One parameter of a challenge (RFC 9110 section 11.2); a quoted value is taken whole, whatever it quotes."""


def retry_after(answer: Answer) -> timedelta | None:
    """``Retry-After`` in seconds or as a date (RFC 9110 section 10.2.3); never negative."""
    value = answer.headers.get("retry-after", "") if isinstance(answer, HttpAnswer) else ""
    if value.isascii() and value.isdigit():
        return timedelta(seconds=int(value[:9]))
    try:
        at = parsedate_to_datetime(value)
        if at.tzinfo is None:
            at = at.replace(tzinfo=timezone.utc)
        return max(at - answer.received_at, timedelta())
    except (TypeError, ValueError, OverflowError):
        # Absent or unreadable: the provider asked for nothing we can follow.
        return None


def read_token_answer(answer: Answer, vocabulary: Vocabulary) -> Reading:
    """What a token endpoint's answer to a refresh says."""
    if isinstance(answer, NoAnswer):
        return _unanswered(answer)
    if early := _reading_by_status(answer):
        return early
    body = read_body(answer)
    if body.unreadable:
        return _unknown(Subject.PROVIDER, "unreadable_body", f"no answer of a token endpoint: {body.unreadable}")
    error = error_code(body.document)
    token = body.document.get("access_token")
    if error is None and answer.status < 300 and isinstance(token, str) and token:
        return Reading(Subject.GRANT, Finding.LIVE, "token_issued", "the token endpoint issued a new access token")
    if error is None:
        return _unknown(Subject.GRANT, "no_error_code", "neither a token nor an error code was sent")
    reading = _read_code(error, vocabulary, Subject.GRANT)
    if reading.finding is Finding.GRANT_DEAD and answer.status < 300:
        # RFC 6749 section 5.2 sends errors with 400 or 401; a success that says so comes from something in between.
        return _unknown(
            Subject.GRANT, "undecided_code", f"the provider says {error} in a success, which decides nothing"
        )
    return reading


def may_have_issued(status: int) -> bool:
    """Whether a token endpoint that answers with this status may have issued tokens.

    A 503 says that the request was not processed (RFC 9110 section 15.6.4), any other failure of a server or a gateway
    leaves it open.
    """
    return status < 300 or (status >= 500 and status not in (501, 503))


def is_lost(answer: Answer, reading: Reading) -> bool:
    """Whether the provider may have issued tokens in this exchange that we did not get out of the answer.

    A page for people instead of JSON comes from something that stands before the token endpoint.
    """
    if reading.finding is Finding.LIVE:
        return False
    if isinstance(answer, NoAnswer):
        return answer.maybe_processed
    if answer.status >= 300:
        return may_have_issued(answer.status)
    if answer.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return False
    return reading.rule in ("unreadable_body", "no_error_code") or not _TOKENS.isdisjoint(read_body(answer).document)


_TOKENS = frozenset({"access_token", "refresh_token"})


def read_probe_answer(answer: Answer, vocabulary: Vocabulary) -> Reading:
    """What a resource's answer to a request carrying the access token says."""
    if isinstance(answer, NoAnswer):
        return _unanswered(answer)
    if early := _reading_by_status(answer):
        return early
    body = read_body(answer)
    error = challenge_error(answer.headers.get("www-authenticate", "")) or error_code(body.document)
    if error is not None:
        return _read_code(error, {**RFC6750_ERRORS, **vocabulary}, Subject.ACCESS_TOKEN)
    if answer.status < 300 and not body.unreadable:
        return Reading(
            Subject.ACCESS_TOKEN, Finding.LIVE, "probe_answered", "the probe was answered with a success body"
        )
    if answer.status < 300:
        return _unknown(Subject.ACCESS_TOKEN, "unreadable_body", f"no success body: {body.unreadable}")
    if answer.status == 401:
        return _unknown(
            Subject.ACCESS_TOKEN, "bare_401", "the probe was refused without saying that the token is the reason"
        )
    return _unknown(
        Subject.ACCESS_TOKEN,
        "not_about_the_token",
        f"HTTP {answer.status} says nothing about the token; check the probe URL and the granted scope",
    )


def answer_id(answer: Answer, sent: Iterable[str] = ()) -> str:
    """Equal for two answers that differ in nothing but incidental fields.

    Args:
        sent: The secret values of the request; a provider may echo them, and they differ between two requests.
    """
    if isinstance(answer, NoAnswer):
        return _digest("no answer", answer.reason)
    error = error_code(read_body(answer).document)
    said = error.description if error else ""
    for value in sorted((value for value in sent if value), key=len, reverse=True):
        said = said.replace(value, "#")
    said = _INCIDENTAL.sub("#", said.lower())
    return _digest(str(answer.status), error.code if error else "", said)


_INCIDENTAL = re.compile(r"\S*\d\S*|\S{20,}")
"""Trace ids, timestamps and echoed tokens differ between any two answers; counting them as a difference would let the
bogus-token control "tell apart" what the provider did not."""


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _reading_by_status(answer: HttpAnswer) -> Reading | None:
    if answer.status == 429:
        return Reading(Subject.PROVIDER, Finding.RATE_LIMITED, "http_429", "the provider limits our rate")
    if answer.status >= 500:
        return Reading(Subject.PROVIDER, Finding.PROVIDER_OUTAGE, "http_5xx", "the provider itself failed")
    if 300 <= answer.status < 400:
        return _unknown(
            Subject.PROVIDER, "redirect", "a redirect was answered; tokens are never sent on to another address"
        )
    return None


def _unanswered(answer: NoAnswer) -> Reading:
    if not answer.provider_at_fault:
        return _unknown(Subject.PROVIDER, "cut_short", answer.reason)
    return Reading(Subject.PROVIDER, Finding.PROVIDER_OUTAGE, "unanswered", f"no answer: {answer.reason}")


def _read_code(error: ErrorCode, vocabulary: Vocabulary, about: Subject) -> Reading:
    finding = vocabulary.get(error.code)
    if finding is None or finding is Finding.UNKNOWN:
        return _unknown(about, "undecided_code", f"the provider says {error}, a code that decides nothing")
    if finding is Finding.GRANT_DEAD and not _RFC6749_BOILERPLATE.search(error.description):
        for pattern, other, topic in NOT_ABOUT_THE_GRANT:
            if pattern.search(error.description):
                return Reading(
                    SUBJECT_OF[other],
                    other,
                    "not_about_the_grant",
                    f"the provider says {error}, which is about {topic}, not about the grant",
                )
    return Reading(SUBJECT_OF[finding], finding, "error_code", f"the provider says {error}")


def _unknown(subject: Subject, rule: str, explanation: str) -> Reading:
    return Reading(subject, Finding.UNKNOWN, rule, explanation)
