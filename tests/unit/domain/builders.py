"""Answers, evidence and cases as the hooks would make them, without a hook."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, NoAnswer, answer_id
from airflow_oauth_guard.domain.clock import clock_skew
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Reading, Shape, Subject, Verdict
from airflow_oauth_guard.domain.investigation import Case
from airflow_oauth_guard.domain.reading import STANDARD, Dialect, read_probe_answer, read_token_answer
from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.settings import THE_PROTOCOL, ProviderFacts, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 3, 14, 9, tzinfo=timezone.utc)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PAUSE = 2 * MINUTE

SHAPE = Shape(
    grant_type="refresh_token",
    method="POST",
    endpoint="https://id.example/token",
    client_auth="client_secret_basic",
    body_format="form",
    parameters=("grant_type", "refresh_token"),
)


def http(
    status: int, body: object = b"", headers: Mapping[str, str] | None = None, received_at: datetime = NOW
) -> HttpAnswer:
    """An answer; a body that is neither bytes nor text is sent as JSON."""
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return HttpAnswer(status, headers or {}, raw, received_at)


def refusal(
    code: str, description: str = "", status: int = 400, headers: Mapping[str, str] | None = None
) -> HttpAnswer:
    """An error as RFC 6749 section 5.2 has it."""
    document = {"error": code} | ({"error_description": description} if description else {})
    return http(status, document, headers)


def meta_refusal(code: int, message: str = "", status: int = 400) -> HttpAnswer:
    """An error as Meta's Graph API has it."""
    return http(status, {"error": {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "A1b2"}})


def unanswered(reason: str = "timed out", *, maybe_processed: bool = True, provider_at_fault: bool = True) -> NoAnswer:
    return NoAnswer(reason, maybe_processed, NOW, provider_at_fault)


def seen(
    kind: Kind,
    answer: Answer,
    *,
    after: timedelta = timedelta(),
    generation: int = 1,
    dialect: Dialect = STANDARD,
    shape: Shape = SHAPE,
    label: str = "",
    number: int | None = None,
) -> Evidence:
    """The evidence a hook makes of an answer."""
    of_a_resource = kind in (Kind.PROBE, Kind.USE)
    reading = read_probe_answer(answer, dialect) if of_a_resource else read_token_answer(answer, dialect)
    observed_at = NOW + after
    return Evidence(
        kind=kind,
        generation=generation,
        observed_at=observed_at,
        reading=reading,
        verdict=Verdict.OPEN if kind is Kind.CONTROL else reading.verdict,
        shape=shape,
        http_status=answer.status if isinstance(answer, HttpAnswer) else None,
        body=label,
        skew=clock_skew(answer.headers.get("date"), observed_at) if isinstance(answer, HttpAnswer) else None,
        answer_id=answer_id(answer),
        id=number,
    )


def refreshed(answer: Answer, **how: Any) -> Evidence:
    return seen(Kind.REFRESH, answer, **how)


def probed(answer: Answer, **how: Any) -> Evidence:
    return seen(Kind.PROBE, answer, **how)


def controlled(answer: Answer, **how: Any) -> Evidence:
    return seen(Kind.CONTROL, answer, **how)


def case(*evidence: Evidence, **flags: Any) -> Case:
    """A case whose flags are the strictest: nothing is known beyond the evidence."""
    known: dict[str, Any] = {
        "generation": 1,
        "has_probe": False,
        "sends_token": True,
        "shape_proven": False,
        "lost_answer": False,
        "pause": PAUSE,
        "give_up_at": NOW + DAY,
    }
    return Case(evidence=evidence, **(known | flags))


def verdict_about(subject: Subject, verdict: Verdict, *, generation: int = 1, number: int | None = 1) -> Evidence:
    """Evidence as the store hands it to the status table."""
    return Evidence(
        kind=Kind.CONCLUSION,
        generation=generation,
        observed_at=NOW,
        reading=Reading(subject, Finding.UNKNOWN, "made_for_a_test", "made for a test"),
        verdict=verdict,
        id=number,
    )


AnyGrant = TypeVar("AnyGrant", bound=Grant)


def grant_of(grant_class: type[AnyGrant], facts: ProviderFacts = THE_PROTOCOL, **fields: Any) -> AnyGrant:
    """The grant of a connection `crm_prod` with these fields, checked as the hook checks them."""
    settings = read_settings("crm_prod", fields, known=grant_class.fields, required=grant_class.required, facts=facts)
    return grant_class(settings)


def parameters_of(request: HttpRequest) -> list[tuple[str, str]]:
    """Every parameter a server would read, from the query and the body, with repetitions."""
    query = parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    text = request.content.decode()
    if request.headers.get("Content-Type") == "application/json":
        return query + json.loads(text, object_pairs_hook=list)
    return query + parse_qsl(text, keep_blank_values=True)


@dataclass(frozen=True)
class Said:
    """A kind of answer, and what a person who knows the protocol would say about it."""

    name: str
    answer: Answer
    says_grant_dead: bool = False
    says_token_dead: bool = False
    only_in_words: bool = False
    """It reads like that to a person; no code that anybody documents says so, so it proves nothing."""
    alive: bool = False
    transient: bool = False


TOKEN_ANSWERS = (
    Said("revoked", refusal("invalid_grant", "Token has been revoked."), says_grant_dead=True),
    Said("unknown token", refusal("invalid_grant", "No such token."), says_grant_dead=True),
    Said("bare invalid_grant", refusal("invalid_grant"), says_grant_dead=True),
    Said("redirect", refusal("invalid_grant", "redirect_uri does not match")),
    Said("clock", refusal("invalid_grant", "Invalid JWT: Token must be a short-lived token; check your iat and 'exp'")),
    Said("malformed", refusal("invalid_request", "refresh_token is missing")),
    Said("wrong grant type", refusal("unsupported_grant_type")),
    Said("client", refusal("invalid_client", "Unknown client", status=401)),
    Said("scope", refusal("invalid_scope")),
    Said("consent", refusal("interaction_required")),
    Said("own words", refusal("TOKEN_GONE", "whatever that means")),
    Said(
        *("gone in words", refusal("TOKEN_GONE", "Your refresh token has expired.")),
        says_grant_dead=True,
        only_in_words=True,
    ),
    Said(*("gone in plain text", http(400, "the refresh token was revoked")), says_grant_dead=True, only_in_words=True),
    Said("html", http(403, "<html>blocked</html>")),
    Said("empty", http(400)),
    Said("moved", http(302, headers={"location": "https://elsewhere.example/"})),
    Said("cut short", unanswered("the answer is too large", provider_at_fault=False)),
    Said("limited", http(429, {"error": "invalid_grant"}), transient=True),
    Said("down", http(503, {"error": "invalid_grant"}), transient=True),
    Said("silent", unanswered(), transient=True),
    Said("issued", http(200, {"access_token": "at-2"}), alive=True),
)

PROBE_ANSWERS = (
    Said(
        "rejected",
        http(401, headers={"www-authenticate": 'Bearer realm="api", error="invalid_token"'}),
        says_token_dead=True,
    ),
    Said("rejected in the body", http(401, {"error": "invalid_token"}), says_token_dead=True),
    Said(
        *("rejected in words", http(401, {"message": "The access token has expired."})),
        says_token_dead=True,
        only_in_words=True,
    ),
    Said("rejected in plain text", http(403, "token expired"), says_token_dead=True, only_in_words=True),
    Said("bare 401", http(401, {"message": "Unauthorized"})),
    Said("401 with a bare challenge", http(401, headers={"www-authenticate": 'Bearer realm="api"'})),
    Said("401 for another scheme", http(401, headers={"www-authenticate": 'Basic realm="api"'})),
    Said("payment", http(402, {"message": "Payment Required"})),
    Said("forbidden", http(403, {"message": "Forbidden"})),
    Said("scope", http(403, headers={"www-authenticate": 'Bearer error="insufficient_scope"'})),
    Said("not found", http(404, {"message": "Not Found"})),
    Said("locked", http(423, {"message": "Locked"})),
    Said("html 401", http(401, "<html>Log in</html>")),
    Said("html 200", http(200, "<html>Log in</html>")),
    Said("moved", http(302, headers={"location": "https://id.example/login"})),
    Said("limited", http(429, headers={"www-authenticate": 'Bearer error="invalid_token"'}), transient=True),
    Said("down", http(500, headers={"www-authenticate": 'Bearer error="invalid_token"'}), transient=True),
    Said("gateway", http(502, "<html>Bad gateway</html>"), transient=True),
    Said("silent", unanswered(), transient=True),
    Said("answered", http(200, {"name": "ok"}), alive=True),
)
