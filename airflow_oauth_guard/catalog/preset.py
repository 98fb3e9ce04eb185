"""One provider's facts, read from a file of ``providers/`` or of the user's own folder and checked field by field.

Every fact names the page it was read from: a section's ``source``, or for single facts an entry in its ``sources``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.domain.vocabulary import ErrorRule
from airflow_oauth_guard.errors import CatalogError
from airflow_oauth_guard.grants.settings import (
    ALGORITHMS,
    AUTHORIZATION_FIELDS,
    BODY_FORMATS,
    CLIENT_AUTHS,
    LIFETIME_UNITS,
    METHODS,
    PLACE,
    STANDARD_ANSWER,
    TokenAnswer,
)

ENDPOINTS = ("authorization", "revocation", "introspection", "device_authorization")
CONNECTION_FIELDS = frozenset({"client_id", "client_secret", "username", "password", "scopes"})
"""What a text may take from the connection, as ``{client_id}``, beside the preset's own ``params``."""
PROBE_FIELDS = frozenset({"access_token", "client_id", "client_secret"})
FLOWS_OWN = frozenset(
    {"response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method"}
)
"""What no preset can say of an authorization request: it is made anew, or checked, each time."""
TOKENLESS = "long_lived_token"
FINDINGS = frozenset(finding.value for finding in Finding) - {Finding.LIVE.value, Finding.AMBIGUOUS.value}
"""What an error may mean: none is a sign of life, and that an answer was lost no provider says."""


@dataclass(frozen=True)
class Param:
    """A part of the provider's addresses that each customer has to name, such as a shop or a region."""

    meaning: str
    example: str
    default: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class GrantFacts:
    """How this provider wants one class of connection to ask for tokens."""

    token_url: str = ""
    """Empty only for ``long_lived_token``, which asks for none."""
    client_auth: str = "client_secret_basic"
    method: str = "POST"
    body_format: str = "form"
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Sent with every token request, beside what the class sends; ``{param}`` and connection fields are filled in."""
    headers: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """What this provider calls a standard parameter, such as ``client_id: client_key``."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """Put into the assertion of ``jwt_bearer``, beside the standard ones."""
    audience: str = ""
    """The ``aud`` of an assertion, where it is not the token URL."""
    algorithm: str = ""
    """What assertions are signed with, where it is not RS256."""
    assertion_lifetime: timedelta | None = None
    """The longest the provider takes, where that is less than usual."""
    scopes: str = ""
    """What a token request has to ask for when the connection does not say."""
    rotation: bool | None = None
    """Whether a refresh replaces the refresh token; None where the provider does not say, which counts as yes."""
    rotation_grace: timedelta = timedelta()
    access_token_lifetime: timedelta | None = None
    """None where it is not documented or has no end; an answer's own ``expires_in`` comes first."""
    refresh_token_lifetime: timedelta | None = None
    """Since it was issued or last used, as the provider documents it."""
    answer: TokenAnswer = STANDARD_ANSWER
    body: str = ""
    """For ``two_step`` where ``parameters`` do not suffice: the whole request body, JSON or XML."""
    notes: str = ""
    """What a person connecting has to know, in a sentence."""


@dataclass(frozen=True)
class Success:
    """What tells a success body from an error in a success: a path that is there, with this value if one is given."""

    has: str = ""
    equals: str = ""
    empty: bool = False
    """A success has no body (HTTP 204)."""


@dataclass(frozen=True)
class ProbeFacts:
    """A cheap, read-only request that answers only to a live access token."""

    url: str
    success: Success
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    """``{access_token}`` stands for the token, where the provider wants it elsewhere than in ``Authorization: Bearer``."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Query parameters; ``{access_token}`` as above."""
    body: str = ""
    """A JSON body, for providers that answer to POST only."""
    scope: str = ""
    """The scope it needs; empty where any token may ask."""
    about_token: bool = False
    """True where it asks about the token, not with it: then what consumers ask for takes the token in the usual header."""


@dataclass(frozen=True)
class AuthorizationFacts:
    """How a person is sent to this provider to approve (RFC 6749 section 4.1.1)."""

    url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Sent beside the standard ones, such as what asks for a refresh token; ``{param}`` and what is no secret of the connection
    are filled in. Empty text leaves a standard one out."""
    scope_separator: str = " "
    """What parts the scopes, where it is not the standard's space."""
    pkce: bool = True
    """False where the provider refuses a code challenge (RFC 7636)."""
    code_url: str = ""
    """Where a code is exchanged, if that is not the token URL."""


@dataclass(frozen=True)
class Preset:
    """Everything the catalog knows about one provider."""

    name: str
    title: str
    docs: str
    grants: Mapping[str, GrantFacts]
    """By connection class; the first is the usual one."""
    aliases: tuple[str, ...] = ()
    """Other names it goes by: products, older brands."""
    params: Mapping[str, Param] = field(default_factory=dict)
    probe: ProbeFacts | None = None
    refresh_errors: tuple[ErrorRule, ...] = ()
    probe_errors: tuple[ErrorRule, ...] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict)
    authorization: AuthorizationFacts | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """As they stand in the file, by path, such as ``grants.refresh_token.rotation``."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """The page that says so, by the same path."""


def read_preset(name: str, document: Any) -> Preset:
    """Check a file's content.

    Raises:
        CatalogError: For the first field that is missing, unknown or wrong; names it.
    """
    return _File(name).read(document)


class _File:
    """Reads one section at a time and complains about it by its path."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.facts: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.params: Mapping[str, Param] = {}

    def read(self, document: Any) -> Preset:
        top = self.section(
            "", document, {"title", "aliases", "docs", "params", "grants", "probe", "endpoints", "errors"}
        )
        self.params = {
            str(key): self.param(f"params.{key}", value)
            for key, value in self.mapping("params", top.get("params")).items()
        }
        grants = {
            key: self.grant(f"grants.{key}", value) for key, value in self.mapping("grants", top.get("grants")).items()
        }
        if not grants:
            self.wrong("grants", "is missing; name at least one connection class.")
        errors = self.section("errors", top.get("errors"), {"refresh", "probe"})
        probe = self.probe("probe", top["probe"]) if top.get("probe") is not None else None
        authorization, endpoints = self.endpoints(self.mapping("endpoints", top.get("endpoints")))
        return Preset(
            name=self.name,
            title=self.text("title", top),
            docs=self.link("docs", top.get("docs")),
            grants=grants,
            aliases=self.aliases(top.get("aliases")),
            params=self.params,
            probe=probe,
            refresh_errors=self.rules("errors.refresh", errors.get("refresh")),
            probe_errors=self.rules("errors.probe", errors.get("probe")),
            endpoints=endpoints,
            authorization=authorization,
            facts=self.facts,
            sources=self.sources,
        )

    def aliases(self, value: Any) -> tuple[str, ...]:
        if value is not None and not isinstance(value, list):
            self.wrong("aliases", "is no list.")
        return tuple(str(alias) for alias in value or ())

    def param(self, path: str, value: Any) -> Param:
        fields = self.section(path, value, {"meaning", "example", "default", "choices"})
        name = path.rpartition(".")[2]
        if not name.isidentifier() or name in CONNECTION_FIELDS | PROBE_FIELDS:
            self.wrong(path, "is no name for a param; write letters, and no field of a connection.")
        choices = fields.get("choices")
        if choices is not None and not isinstance(choices, list):
            self.wrong(f"{path}.choices", "is no list.")
        return Param(
            meaning=self.text(f"{path}.meaning", fields),
            example=self.text(f"{path}.example", fields),
            default=self.optional(f"{path}.default", fields),
            choices=tuple(str(choice) for choice in choices or ()),
        )

    def grant(self, path: str, value: Any) -> GrantFacts:
        fields = self.sourced(path, value, set(GrantFacts.__dataclass_fields__))
        facts = GrantFacts(
            token_url="" if path.endswith(f".{TOKENLESS}") else self.address(f"{path}.token_url", fields),
            client_auth=self.choice(f"{path}.client_auth", fields, CLIENT_AUTHS, "client_secret_basic"),
            method=self.choice(f"{path}.method", fields, METHODS, "POST"),
            body_format=self.choice(f"{path}.body_format", fields, BODY_FORMATS, "form"),
            parameters=self.templates(f"{path}.parameters", fields.get("parameters"), CONNECTION_FIELDS),
            headers=self.templates(f"{path}.headers", fields.get("headers"), CONNECTION_FIELDS),
            names=self.texts(f"{path}.names", fields.get("names")),
            claims=self.templates(f"{path}.claims", fields.get("claims"), CONNECTION_FIELDS),
            audience=self.filled(f"{path}.audience", self.optional(f"{path}.audience", fields), CONNECTION_FIELDS),
            algorithm=self.choice(f"{path}.algorithm", fields, ALGORITHMS, "") if fields.get("algorithm") else "",
            assertion_lifetime=self.duration(f"{path}.assertion_lifetime", fields),
            scopes=self.filled(f"{path}.scopes", self.optional(f"{path}.scopes", fields)),
            rotation=self.flag(f"{path}.rotation", fields),
            rotation_grace=self.duration(f"{path}.rotation_grace", fields) or timedelta(),
            access_token_lifetime=self.duration(f"{path}.access_token_lifetime", fields),
            refresh_token_lifetime=self.duration(f"{path}.refresh_token_lifetime", fields),
            answer=self.answer(f"{path}.answer", fields.get("answer")),
            body=self.filled(f"{path}.body", self.optional(f"{path}.body", fields), CONNECTION_FIELDS),
            notes=self.optional(f"{path}.notes", fields),
        )
        if facts.body and facts.body_format not in ("json", "xml"):
            self.wrong(f"{path}.body", f"is never sent as `body_format: {facts.body_format}`; write json or xml there.")
        if facts.body_format == "xml" and not facts.body:
            self.wrong(f"{path}.body", "is missing: XML is written as a whole.")
        return facts

    def answer(self, path: str, value: Any) -> TokenAnswer:
        fields = self.section(path, value, set(TokenAnswer.__dataclass_fields__))
        return TokenAnswer(
            access_token=self.optional(f"{path}.access_token", fields) or TokenAnswer.access_token,
            refresh_token=self.optional(f"{path}.refresh_token", fields) or TokenAnswer.refresh_token,
            expires_in=self.optional(f"{path}.expires_in", fields) or TokenAnswer.expires_in,
            expires_in_unit=self.choice(f"{path}.expires_in_unit", fields, LIFETIME_UNITS, "seconds"),
        )

    def probe(self, path: str, value: Any) -> ProbeFacts:
        fields = self.sourced(path, value, set(ProbeFacts.__dataclass_fields__))
        wanted = self.section(f"{path}.success", fields.get("success"), {"has", "equals", "empty"})
        success = Success(
            has=self.optional(f"{path}.success.has", wanted),
            equals=self.optional(f"{path}.success.equals", wanted),
            empty=bool(self.flag(f"{path}.success.empty", wanted)),
        )
        if not (success.has or success.empty):
            self.wrong(f"{path}.success", "says nothing; name a path that a success body `has`, or `empty: true`.")
        return ProbeFacts(
            url=self.address(f"{path}.url", fields),
            success=success,
            method=self.choice(f"{path}.method", fields, METHODS, "GET"),
            headers=self.templates(f"{path}.headers", fields.get("headers"), PROBE_FIELDS),
            parameters=self.templates(f"{path}.parameters", fields.get("parameters"), PROBE_FIELDS),
            body=self.optional(f"{path}.body", fields),
            scope=self.optional(f"{path}.scope", fields),
            about_token=bool(self.flag(f"{path}.about_token", fields)),
        )

    def rules(self, path: str, value: Any) -> tuple[ErrorRule, ...]:
        if value is not None and not isinstance(value, list):
            self.wrong(path, "is no list.")
        return tuple(self.rule(f"{path}[{number}]", item) for number, item in enumerate(value or ()))

    def rule(self, path: str, value: Any) -> ErrorRule:
        fields = self.section(path, value, {"code", "says", "status", "finding", "meaning", "source"})
        finding = self.text(f"{path}.finding", fields)
        if finding not in FINDINGS:
            self.wrong(f"{path}.finding", f"is `{finding}`; choose one of {', '.join(sorted(FINDINGS))}.")
        says, status = self.optional(f"{path}.says", fields), fields.get("status")
        if status is not None and (isinstance(status, bool) or not isinstance(status, int)):
            self.wrong(f"{path}.status", f"is {status!r}; write an HTTP status.")
        try:
            pattern = re.compile(says, re.IGNORECASE) if says else None
        except re.error as error:
            raise CatalogError(self.name, f"{path}.says", f"is no regular expression: {error}.") from error
        code = self.optional(f"{path}.code", fields)
        if re.search(r"\s", code):
            self.wrong(f"{path}.code", f"is `{code}`; a code has no spaces, so write what it `says`.")
        if not code and pattern is None:
            self.wrong(path, "names neither a `code` nor what the description `says`.")
        self.facts[path] = ", ".join(f"{key} {text}" for key, text in fields.items() if key != "source")
        self.sources[path] = self.link(f"{path}.source", fields.get("source"))
        return ErrorRule(
            finding=Finding(finding),
            code=code,
            says=pattern,
            status=status,
            meaning=self.optional(f"{path}.meaning", fields),
        )

    def endpoints(self, value: Mapping[str, Any]) -> tuple[AuthorizationFacts | None, Mapping[str, str]]:
        found: dict[str, str] = {}
        authorization = None
        for name, facts in value.items():
            path = f"endpoints.{name}"
            if name not in ENDPOINTS:
                self.wrong(path, f"is unknown; choose of {', '.join(ENDPOINTS)}.")
            if name == "authorization":
                authorization = self.authorization(path, facts)
                found[name] = authorization.url
            else:
                found[name] = self.address(f"{path}.url", self.sourced(path, facts, {"url"}))
        return authorization, found

    def authorization(self, path: str, value: Any) -> AuthorizationFacts:
        fields = self.sourced(path, value, set(AuthorizationFacts.__dataclass_fields__))
        parameters = self.templates(f"{path}.parameters", fields.get("parameters"), frozenset(AUTHORIZATION_FIELDS))
        if taken := sorted(FLOWS_OWN & parameters.keys()):
            self.wrong(f"{path}.parameters.{taken[0]}", "cannot be set: it is made anew for each approval.")
        return AuthorizationFacts(
            url=self.address(f"{path}.url", fields),
            parameters=parameters,
            # Not stripped: a separator may be the very thing that would go.
            scope_separator=str(fields.get("scope_separator") or AuthorizationFacts.scope_separator),
            pkce=self.flag(f"{path}.pkce", fields) is not False,
            code_url=self.address(f"{path}.code_url", fields) if fields.get("code_url") else "",
        )

    # -- the small parts ----------------------------------------------------------------------------------------

    def wrong(self, path: str, problem: str) -> None:
        raise CatalogError(self.name, path, problem)

    def mapping(self, path: str, value: Any) -> Mapping[str, Any]:
        if value is not None and not isinstance(value, dict):
            self.wrong(path, f"is a {type(value).__name__}; write a mapping.")
        return value or {}

    def section(self, path: str, value: Any, known: set[str]) -> Mapping[str, Any]:
        fields = self.mapping(path or "the file", value)
        if unknown := sorted(str(key) for key in fields.keys() - known):
            self.wrong(f"{path}.{unknown[0]}".lstrip("."), f"is unknown; the fields are {', '.join(sorted(known))}.")
        return fields

    def sourced(self, path: str, value: Any, known: set[str]) -> Mapping[str, Any]:
        """A section whose facts each have a source: its own in ``sources``, or the section's."""
        fields = self.section(path, value, known | {"source", "sources"})
        own = self.texts(f"{path}.sources", fields.get("sources"))
        facts = fields.keys() - {"source", "sources", "notes"}
        if unknown := sorted(own.keys() - facts):
            self.wrong(f"{path}.sources.{unknown[0]}", "is the source of a fact that is not there.")
        for fact in sorted(facts):
            link = own.get(fact, fields.get("source"))
            self.facts[f"{path}.{fact}"] = fields[fact]
            self.sources[f"{path}.{fact}"] = self.link(f"{path}.sources.{fact}", link)
        return fields

    def text(self, path: str, fields: Mapping[str, Any]) -> str:
        value = self.optional(path, fields)
        if not value:
            self.wrong(path, "is missing.")
        return value

    def optional(self, path: str, fields: Mapping[str, Any]) -> str:
        value = fields.get(path.rpartition(".")[2])
        if isinstance(value, (dict, list, bool)):
            self.wrong(path, f"is a {type(value).__name__}; write text, in quotes if need be.")
        return "" if value is None else str(value).strip()

    def texts(self, path: str, value: Any) -> Mapping[str, str]:
        fields = self.mapping(path, value)
        return {
            str(key): self.optional(f"{path}.{key}", {str(key).rpartition(".")[2]: text})
            for key, text in fields.items()
        }

    def choice(self, path: str, fields: Mapping[str, Any], choices: tuple[str, ...], default: str) -> str:
        value = self.optional(path, fields) or default
        if value not in choices:
            self.wrong(path, f"is `{value}`; choose one of {', '.join(choices)}.")
        return value

    def flag(self, path: str, fields: Mapping[str, Any]) -> bool | None:
        value = fields.get(path.rpartition(".")[2])
        if value is not None and not isinstance(value, bool):
            self.wrong(path, f"is {value!r}; write true or false.")
        return value

    def duration(self, path: str, fields: Mapping[str, Any]) -> timedelta | None:
        value = fields.get(path.rpartition(".")[2])
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.wrong(path, f"is {value!r}; write whole seconds.")
        return timedelta(seconds=value)

    def link(self, path: str, value: Any) -> str:
        if not isinstance(value, str) or urlsplit(value).scheme != "https" or not urlsplit(value).hostname:
            self.wrong(path, f"is {value!r}; write the https address of the page that says so.")
        return str(value)

    def templates(self, path: str, value: Any, fields: frozenset[str]) -> Mapping[str, str]:
        return {key: self.filled(f"{path}.{key}", text, fields) for key, text in self.texts(path, value).items()}

    def address(self, path: str, fields: Mapping[str, Any]) -> str:
        text = self.text(path, fields)
        if not text.startswith(("https://", "{")):
            self.wrong(path, "is no https address.")
        return self.filled(path, text)

    def filled(self, path: str, text: str, fields: frozenset[str] = frozenset()) -> str:
        """A text in which ``{name}`` stands for a param, or a field of the connection."""
        for name in PLACE.findall(text):
            if name not in self.params and name not in fields:
                self.wrong(path, f"uses {{{name}}}, which `params` does not describe.")
        return text
