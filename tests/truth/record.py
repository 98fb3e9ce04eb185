"""Records what real authorization servers answer, each answer with a truth known because we caused it.

Five servers, none of them this project's, are started on this machine (see `servers/`), one after the other.
canaille is built on Authlib, as this project's own test server is; for @node-oauth/oauth2-server and mcp the
store is ours, so whether a reused or revoked token takes others with it is our choice and only the words are
theirs. The other servers are whole. Every situation gets a grant of its own; the answer to the call under test is written down, then
what was disturbed is put right where it can be (a secret, a lock, a broken store; not a deletion), and the
newest credential of that grant is redeemed as it should be. Whether this works is the line's `grant_alive`:
it is measured, not believed. `finding` is what someone who knows the RFCs reads in the answer alone.

Needs `uv`, `npm` and Node.js 20 on the path and their package registries within reach:

    python tests/truth/record.py [--home FOLDER]

Run twice with the same folder it installs once. Issued tokens are replaced by made-up ones of the same form
and the server's own address by auth.example; nothing else of an answer is changed, and headers other than
those in KEPT are left out.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import http.client
import json
import random
import shutil
import socket
import string
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

HERE = Path(__file__).parent
OUT = HERE / "recorded.jsonl"
KEPT = ("content-type", "www-authenticate", "retry-after", "date")
FORM = "application/x-www-form-urlencoded"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_CLIENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
PYTHON_PACKAGES = {
    "dot": ["django-oauth-toolkit==3.4.1", "djangorestframework==3.18.3"],
    "iam": ["pytest-iam==0.3.0", "canaille==0.3.6"],
    "mcp_sdk": ["mcp==2.3.0", "uvicorn==0.54.0"],
}
NODE_PACKAGES = [
    "oidc-provider@9.13.3",
    "@node-oauth/express-oauth-server@4.2.0",
    "@node-oauth/oauth2-server@5.3.0",
    "express@5.3.0",
    "express-rate-limit@8.7.5",
]

SIGNED_SECRET = "a-secret-of-thirty-two-characters"

Params = list[tuple[str, str]]
Findings = dict[str, str]  # by the name of a fault or reading


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    def tokens(self) -> dict[str, str]:
        """The credentials in a JSON answer, by parameter name."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        names = ("access_token", "refresh_token", "id_token")
        return {name: parsed[name] for name in names if name in parsed} if isinstance(parsed, dict) else {}


@dataclass(frozen=True)
class Product:
    """A server: which program runs it, where its endpoints are and how its answers are labelled."""

    short: str
    program: str
    label: str
    source: str
    token_path: str = "/token"
    revoke_path: str = "/revoke"
    scope: str = "read"
    wider: str = "read write"
    secret_in_body: bool = False
    password_grant: bool = True
    pause: float = 0  # seconds between grants, for a server whose tokens of one second are all the same


def basic(client: str, secret: str | None = None) -> str:
    pair = f"{quote(client)}:{quote(secret or f'{client}-secret')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def disguise(token: str) -> str:
    """A made-up token of the same form; of a JWT only the signature changes, its claims are made up already."""
    keep, _, secret = token.rpartition(".") if token.startswith("eyJ") else ("", "", token)
    chance = random.Random(token)
    kinds = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
    hexadecimal = set(secret) <= set("0123456789abcdef")
    kinds = (string.digits, "abcdef", "") if hexadecimal else kinds
    faked = "".join(next((chance.choice(kind) for kind in kinds if char in kind), char) for char in secret)
    return f"{keep}.{faked}" if keep else faked


@dataclass
class Server:
    """A running server, spoken to in plain HTTP so that requests can be as wrong as they need to be."""

    product: Product
    port: int
    seen: set[str] = field(default_factory=set)

    def send(self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            kept = {name.lower(): value for name, value in response.getheaders() if name.lower() in KEPT}
            answer = Answer(response.status, kept, response.read().decode())
        finally:
            connection.close()
        self.seen.update(answer.tokens().values())
        return answer

    def control(self, action: str, **order: Any) -> dict[str, str]:
        body = json.dumps({"action": action, **order})
        answer = self.send("POST", "/_control", body, {"Content-Type": "application/json"})
        if answer.status != 200:
            raise RuntimeError(f"{self.product.short}: {action} {order} failed: {answer}")
        return dict(json.loads(answer.body))

    def token(self, params: Params, authorization: str | None = None, path: str | None = None) -> Answer:
        headers = {"Content-Type": FORM, "Accept": "application/json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        return self.send("POST", path or self.product.token_path, urlencode(params), headers)

    def token_for(self, client: str, params: Params, secret: str | None = None, path: str | None = None) -> Answer:
        """A token request by a client in the way it is registered for."""
        if client == "signed":
            return self.token([*params, *signed(self.signed_for)], path=path)
        if client == "app-post" or (self.product.secret_in_body and client != "header"):
            return self.token([*params, *in_body(client, secret)], path=path)
        return self.token(params, basic(client, secret), path)

    @property
    def signed_for(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, authorization: str | None = None) -> Answer:
        return self.send("GET", path, headers={} if authorization is None else {"Authorization": authorization})

    def clean(self, text: str) -> str:
        for token in sorted(self.seen, key=len, reverse=True):
            text = text.replace(token, disguise(token))
        return text.replace(f"127.0.0.1:{self.port}", "auth.example")


@dataclass
class Grant:
    """A credential as its holder keeps it, and how it is redeemed when nothing is wrong."""

    server: Server
    client: str
    params: Params
    access: str = ""
    kind: str = "refresh_token"
    path: str | None = None

    @property
    def refresh(self) -> str:
        return dict(self.params).get("refresh_token", "")

    def ask(self, *more: tuple[str, str], client: str | None = None, secret: str | None = None) -> Answer:
        return self.server.token_for(client or self.client, [*self.params, *more], secret, self.path)

    def adopt(self, answer: Answer) -> Answer:
        """Keep what an answer brings, as the holder would."""
        tokens = answer.tokens()
        self.access = tokens.get("access_token", self.access)
        if self.kind == "refresh_token" and "refresh_token" in tokens:
            self.params = refreshing(tokens["refresh_token"])
        return answer

    def redeem(self) -> Answer:
        """Use the newest credential correctly."""
        return self.adopt(self.ask())


def refreshing(token: str) -> Params:
    return [("grant_type", "refresh_token"), ("refresh_token", token)]


def in_body(client: str, secret: str | None = None) -> Params:
    return [("client_id", client), ("client_secret", secret or f"{client}-secret")]


def signed(audience: str, secret: str = SIGNED_SECRET, **claims: Any) -> Params:
    """A client assertion (RFC 7523) of the client `signed`, by which it proves that it knows its secret."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    now = {"exp": int(time.time()) + 300, "jti": str(time.time_ns()), "aud": audience}
    payload = json.dumps({"iss": "signed", "sub": "signed", **now, **claims}).encode()
    text = f"{part(json.dumps({'alg': 'HS256'}).encode())}.{part(payload)}"
    seal = part(hmac.digest(secret.encode(), text.encode(), "sha256"))
    return [("client_assertion_type", JWT_CLIENT), ("client_assertion", f"{text}.{seal}")]


class Recorder:
    """Makes grants at one server and writes down answers."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lines: list[dict[str, Any]] = []

    def grant(self, client: str = "app", user: str = "alice", scope: str | None = None) -> Grant:
        """A fresh grant with a refresh token, by the password grant or, without one, from the store."""
        wanted = self.server.product.scope if scope is None else scope
        time.sleep(self.server.product.pause)
        if not self.server.product.password_grant:
            tokens = self.server.control("mint", client=client, user=user, scope=wanted)
            self.server.seen.update((tokens["access_token"], tokens["refresh_token"]))
        else:
            answer = self.password(client, user, wanted).redeem()
            tokens = answer.tokens()
            if "refresh_token" not in tokens:
                raise RuntimeError(f"no grant of {client} for {user}: {answer}")
        return Grant(self.server, client, refreshing(tokens["refresh_token"]), tokens["access_token"])

    def password(self, client: str = "app", user: str = "alice", scope: str | None = None) -> Grant:
        login = [("grant_type", "password"), ("username", user), ("password", f"{user}-password")]
        wanted = self.server.product.scope if scope is None else scope
        return Grant(self.server, client, [*login, ("scope", wanted)], kind="password")

    def machine(self, scope: str | None = None) -> Grant:
        wanted = [] if scope is None else [("scope", scope)]
        return Grant(self.server, "machine", [("grant_type", "client_credentials"), *wanted], kind="client_credentials")

    def note(self, name: str, answer: Answer, finding: str, why: str, grant: Grant, *, call: str = "refresh") -> None:
        """Write a line; the grant's fate is found out by redeeming it."""
        product, clean = self.server.product, self.server.clean
        alive = "access_token" in grant.redeem().tokens()
        self.lines.append(
            {
                "id": f"{product.short}-{name}",
                "server": product.label,
                "provider": "",
                "call": call,
                "http_status": answer.status,
                "headers": {key: clean(value) for key, value in answer.headers.items()},
                "body": clean(answer.body),
                "grant_class": grant.kind,
                "finding": finding,
                "grant_alive": alive,
                "source": product.source,
                "why": why,
            }
        )

    def probe(self, name: str, answer: Answer, finding: str, why: str, grant: Grant) -> None:
        self.note(f"probe-{name}", answer, finding, why, grant, call="probe")


# --- what can go wrong at any token endpoint -------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a refresh whose token is good; `finding` holds unless a server words it otherwise."""

    name: str
    finding: str
    why: str
    send: Callable[[Server, Grant], Answer]
    client: str = "app"


def _json_body(server: Server, grant: Grant) -> Answer:
    headers = {"Content-Type": "application/json", "Authorization": basic(grant.client)}
    body = dict([*grant.params, *(in_body(grant.client) if server.product.secret_in_body else [])])
    return server.send("POST", server.product.token_path, json.dumps(body), headers)


def _by_get(server: Server, grant: Grant) -> Answer:
    query = urlencode([*grant.params, *in_body(grant.client)])
    return server.get(f"{server.product.token_path}?{query}")


def _with(server: Server, grant: Grant, *params: tuple[str, str]) -> Answer:
    return server.token_for(grant.client, list(params))


def _basic(server: Server, grant: Grant, authorization: str) -> Answer:
    return server.token(grant.params, authorization)


FAULTS = (
    Fault(
        "wrong-secret-basic",
        "client_misconfigured",
        "The refresh token was good, the client secret in the basic header was not.",
        lambda server, grant: _basic(server, grant, basic("app", "wrong")),
    ),
    Fault(
        "wrong-secret-post",
        "client_misconfigured",
        "The refresh token was good, the client secret in the body was not.",
        lambda server, grant: server.token([*grant.params, *in_body("app-post", "wrong")]),
        client="app-post",
    ),
    Fault(
        "unknown-client-basic",
        "client_misconfigured",
        "The basic header named a client that was never registered.",
        lambda server, grant: _basic(server, grant, basic("nobody")),
    ),
    Fault(
        "unknown-client-post",
        "client_misconfigured",
        "The client_id in the body was never registered.",
        lambda server, grant: server.token([*grant.params, *in_body("nobody")]),
    ),
    Fault(
        "no-client",
        "client_misconfigured",
        "A good refresh token was sent without any client id or secret.",
        lambda server, grant: server.token(grant.params),
    ),
    Fault(
        "no-secret",
        "client_misconfigured",
        "A confidential client sent its id in the body but left its secret out.",
        lambda server, grant: server.token([*grant.params, ("client_id", "app")]),
    ),
    Fault(
        "post-for-basic",
        "client_misconfigured",
        "A client registered for the basic header put its right id and secret into the body.",
        lambda server, grant: server.token([*grant.params, *in_body("app")]),
    ),
    Fault(
        "basic-for-post",
        "client_misconfigured",
        "A client registered for secrets in the body used the basic header with the right secret.",
        lambda server, grant: _basic(server, grant, basic("app-post")),
        client="app-post",
    ),
    Fault(
        "garbled-basic",
        "client_misconfigured",
        "The basic header's value was not base64.",
        lambda server, grant: _basic(server, grant, "Basic !!app:app-secret!!"),
    ),
    Fault(
        "bearer-as-client",
        "client_misconfigured",
        "The access token was put into the authorization header of the token request.",
        lambda server, grant: _basic(server, grant, f"Bearer {grant.access}"),
    ),
    Fault(
        "unsupported-grant-type",
        "request_malformed",
        "The grant_type was one that no server knows.",
        lambda server, grant: _with(server, grant, ("grant_type", "refresh"), grant.params[1]),
    ),
    Fault(
        "no-grant-type",
        "request_malformed",
        "The grant_type parameter was left out.",
        lambda server, grant: _with(server, grant, grant.params[1]),
    ),
    Fault(
        "no-refresh-token",
        "request_malformed",
        "The refresh_token parameter was left out.",
        lambda server, grant: _with(server, grant, grant.params[0]),
    ),
    Fault(
        "empty-refresh-token",
        "request_malformed",
        "The refresh_token parameter was sent empty.",
        lambda server, grant: _with(server, grant, *refreshing("")),
    ),
    Fault("json-body", "request_malformed", "The parameters were sent as JSON instead of as a form.", _json_body),
    Fault("get", "request_malformed", "The token request was made with GET.", _by_get),
    Fault(
        "wrong-path",
        "request_malformed",
        "The token request went to a path that does not exist on the server.",
        lambda server, grant: server.token_for("app", grant.params, path="/oauth/v9/token"),
    ),
    Fault(
        "empty-body",
        "request_malformed",
        "The request told the client and nothing else.",
        _with,
    ),
    Fault(
        "twice-refresh-token",
        "request_malformed",
        "The refresh_token parameter was sent twice.",
        lambda server, grant: grant.ask(grant.params[1]),
    ),
    Fault(
        "twice-grant-type",
        "request_malformed",
        "The grant_type parameter was sent twice.",
        lambda server, grant: grant.ask(grant.params[0]),
    ),
    Fault(
        "wider-scope",
        "scope_insufficient",
        "The refresh asked for a scope the server knows but this grant was never given.",
        lambda server, grant: grant.ask(("scope", server.product.wider)),
    ),
    Fault(
        "unknown-scope",
        "scope_insufficient",
        "The refresh asked for a scope the server does not know.",
        lambda server, grant: grant.ask(("scope", "nonsense")),
    ),
    Fault(
        "cut-token",
        "grant_dead",
        "The last eight characters of a good refresh token were lost; the answer cannot tell that from a dead one.",
        lambda server, grant: _with(server, grant, *refreshing(grant.refresh[:-8])),
    ),
    Fault(
        "newline-in-token",
        "grant_dead",
        "A good refresh token was read from a file together with its line end.",
        lambda server, grant: _with(server, grant, *refreshing(grant.refresh + "\n")),
    ),
    Fault(
        "access-token-instead",
        "grant_dead",
        "The access token was sent where the refresh token belongs; the refresh token itself is good.",
        lambda server, grant: _with(server, grant, *refreshing(grant.access)),
    ),
    Fault(
        "other-client",
        "grant_dead",
        "A good refresh token was presented by another client, correctly authenticated.",
        lambda server, grant: grant.ask(client="other"),
    ),
)


def token_faults(recorder: Recorder, findings: Findings, skip: tuple[str, ...] = ()) -> None:
    """Every fault, with the findings of those that this server words in its own way."""
    for fault in FAULTS:
        if fault.name in skip:
            continue
        grant = recorder.grant(fault.client)
        answer = grant.adopt(fault.send(recorder.server, grant))
        why, finding = fault.why, findings.get(fault.name, fault.finding)
        if answer.tokens():
            why, finding = f"{why} The server does not mind.", "live"
        recorder.note(fault.name, answer, finding, why, grant)


def token_states(recorder: Recorder) -> None:
    """Refresh tokens that work and ones that do not, where every server is provoked alike."""
    grant = recorder.grant()
    recorder.note("refreshed", grant.redeem(), "live", "An ordinary refresh; the server rotates the token.", grant)
    made_up = Grant(recorder.server, "app", refreshing(disguise(grant.refresh)))
    why = "A refresh token of the right form that the server never issued."
    recorder.note("unknown-token", made_up.ask(), "grant_dead", why, made_up)


def revoked(recorder: Recorder) -> None:
    server, grant = recorder.server, recorder.grant()
    server.token_for("app", [("token", grant.refresh)], path=server.product.revoke_path)
    recorder.note("revoked", grant.ask(), "grant_dead", "The refresh token was revoked at the server.", grant)
    grant = recorder.grant()
    server.token_for("app", [("token", grant.access)], path=server.product.revoke_path)
    answer, why = grant.ask(), "Only the access token was revoked; then the refresh token was used."
    recorder.note("after-access-revoked", grant.adopt(answer), verdict(answer), why, grant)


def verdict(answer: Answer) -> str:
    """For a situation where servers differ in whether the grant lives on."""
    return "live" if answer.tokens() else "grant_dead"


def reused(recorder: Recorder, name: str, why: str, client: str = "app") -> None:
    """A token that was already turned in; the grant's fate is that of the token which replaced it."""
    grant = recorder.grant(client)
    old = grant.params
    grant.redeem()
    answer = recorder.server.token_for(client, old)
    recorder.note(name, answer, verdict(answer), why, grant)


def aged(recorder: Recorder, name: str, action: str, attribute: str, why: str, **order: Any) -> None:
    grant = recorder.grant()
    recorder.server.control(action, token=getattr(grant, attribute), **order)
    recorder.note(name, grant.ask(), "grant_dead", why, grant)


def deleted_client(recorder: Recorder) -> None:
    grant = recorder.grant("doomed")
    recorder.server.control("delete_client", client="doomed")
    why = "The client was deleted at the server, and no call in its name can succeed again."
    recorder.note("client-deleted", grant.ask(), "client_misconfigured", why, grant)


def disturbed(recorder: Recorder, name: str, finding: str, why: str, action: str, flag: str, **order: Any) -> None:
    """A refresh while something is wrong at the server, which is put right before the grant's fate is measured."""
    grant = recorder.grant(user=order.get("user", "alice"))
    bad, good = (False, True) if flag == "active" else (True, False)
    recorder.server.control(action, **{flag: bad}, **order)
    answer = grant.adopt(grant.ask())
    recorder.server.control(action, **{flag: good}, **order)
    recorder.note(name, answer, "live" if answer.tokens() else finding, why, grant)


def not_allowed(recorder: Recorder, finding: str = "client_misconfigured") -> None:
    grant = recorder.grant("limited")
    answer = grant.ask()
    recorder.server.control("allow_refresh", client="limited")
    why = "The client's registration did not list the refresh token grant; the token works once it does."
    recorder.note("not-allowed", answer, finding, why, grant)


def deleted_user(recorder: Recorder) -> None:
    grant = recorder.grant(user="carol")
    recorder.server.control("delete_user", user="carol")
    answer = grant.ask()
    recorder.note("user-deleted", answer, verdict(answer), "The user behind the grant was deleted.", grant)


def client_credentials(recorder: Recorder, unknown_scope: str = "scope_insufficient") -> None:
    grant = recorder.machine()
    recorder.note("machine-issued", grant.ask(), "live", "An ordinary token for a client of its own.", grant)
    answer = grant.ask(secret="wrong")
    recorder.note("machine-wrong-secret", answer, "client_misconfigured", "The client's secret was wrong.", grant)
    answer, why = recorder.machine("nonsense").ask(), "The request named a scope that the server does not know."
    why = f"{why} The server leaves it out." if answer.tokens() else why
    recorder.note("machine-unknown-scope", answer, "live" if answer.tokens() else unknown_scope, why, grant)
    why = "Id and secret of another client were configured, which may not use the client credentials grant."
    recorder.note("machine-not-allowed", grant.ask(client="app"), "client_misconfigured", why, grant)


def passwords(recorder: Recorder) -> None:
    grant = recorder.password()
    recorder.note("password-issued", grant.ask(), "live", "An ordinary token by name and password.", grant)
    wrong = [pair if pair[0] != "password" else ("password", "wrong") for pair in grant.params]
    answer = recorder.server.token_for("app", wrong)
    why = "The password sent was wrong; the account and its real password are fine."
    recorder.note("password-wrong", answer, "grant_dead", why, grant)
    without = [pair for pair in grant.params if pair[0] != "password"]
    answer, why = recorder.server.token_for("app", without), "The password parameter was left out."
    recorder.note("password-missing", answer, "request_malformed", why, grant)


# --- what can go wrong at a protected resource -----------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """One way to call a protected resource with a grant whose token is good."""

    name: str
    finding: str
    why: str
    send: Callable[[Server, Grant, str], Answer]


READINGS = (
    Reading("live", "live", "A good token.", lambda server, grant, path: server.get(path, f"Bearer {grant.access}")),
    Reading(
        "lower-case-bearer",
        "live",
        "A good token with the scheme written in lower case.",
        lambda server, grant, path: server.get(path, f"bearer {grant.access}"),
    ),
    Reading(
        "unknown",
        "access_token_dead",
        "A token of the right form that the server never issued.",
        lambda server, grant, path: server.get(path, f"Bearer {disguise(grant.access)}"),
    ),
    Reading(
        "malformed",
        "access_token_dead",
        "The bearer value was not of a token's form.",
        lambda server, grant, path: server.get(path, "Bearer {{ token }}"),
    ),
    Reading("missing", "request_malformed", "The call carried no token.", lambda server, grant, path: server.get(path)),
    Reading(
        "wrong-scheme",
        "request_malformed",
        "A good token was sent under the scheme Token instead of Bearer.",
        lambda server, grant, path: server.get(path, f"Token {grant.access}"),
    ),
    Reading(
        "empty-bearer",
        "request_malformed",
        "The header said Bearer and nothing else.",
        lambda server, grant, path: server.get(path, "Bearer "),
    ),
    Reading(
        "in-query",
        "request_malformed",
        "A good token was sent in the address instead of in the header.",
        lambda server, grant, path: server.get(f"{path}?access_token={grant.access}"),
    ),
    Reading(
        "refresh-token-instead",
        "access_token_dead",
        "The refresh token was sent where the access token belongs.",
        lambda server, grant, path: server.get(path, f"Bearer {grant.refresh}"),
    ),
    Reading(
        "wrong-path",
        "request_malformed",
        "A good token, at a path that does not exist.",
        lambda server, grant, path: server.get(f"{path.rstrip('/')}/nowhere/", f"Bearer {grant.access}"),
    ),
)


def readings(
    recorder: Recorder,
    path: str,
    findings: Findings,
    *,
    prefix: str = "",
    only: tuple[str, ...] = (),
    scope: str | None = None,
) -> None:
    for reading in READINGS:
        if only and reading.name not in only:
            continue
        grant = recorder.grant(scope=scope)
        why, finding = reading.why, findings.get(reading.name, reading.finding)
        answer = reading.send(recorder.server, grant, path)
        if answer.status == 200 and finding != "live":
            why, finding = f"{why} The server does not mind.", "live"
        recorder.probe(f"{prefix}{reading.name}", answer, finding, why, grant)


def dead_access_token(
    recorder: Recorder, path: str, action: str, prefix: str = "", scope: str | None = None, **order: Any
) -> None:
    """An access token past its time and one that was revoked."""
    server, grant = recorder.server, recorder.grant(scope=scope)
    server.control(action, token=grant.access, **order)
    why = "The access token was past its expiry."
    recorder.probe(f"{prefix}expired", server.get(path, f"Bearer {grant.access}"), "access_token_dead", why, grant)
    if server.product.revoke_path:
        grant = recorder.grant(scope=scope)
        server.token_for("app", [("token", grant.access)], path=server.product.revoke_path)
        why = "The access token was revoked at the server."
        recorder.probe(f"{prefix}revoked", server.get(path, f"Bearer {grant.access}"), "access_token_dead", why, grant)


def scope_lacking(recorder: Recorder, path: str, name: str, finding: str = "scope_insufficient", **grant: Any) -> None:
    held = recorder.grant(**grant)
    why = "A good token that was never given the scope this call needs."
    recorder.probe(name, recorder.server.get(path, f"Bearer {held.access}"), finding, why, held)


def introspections(
    recorder: Recorder, path: str, age: str, wrong_secret: str = "client_misconfigured", **order: Any
) -> None:
    """What the introspection endpoint says of good and dead access tokens."""
    server, grant = recorder.server, recorder.grant()

    def ask(token: str) -> Answer:
        return server.token_for("app", [("token", token)], path=path)

    recorder.probe("introspect-active", ask(grant.access), "live", "Introspection of a good access token.", grant)
    why = "Introspection of a token the server never issued."
    recorder.probe("introspect-unknown", ask(disguise(grant.access)), "access_token_dead", why, grant)
    server.control(age, token=grant.access, **order)
    why = "Introspection of an access token past its expiry."
    recorder.probe("introspect-expired", ask(grant.access), "access_token_dead", why, grant)
    grant = recorder.grant()
    answer = server.token([("token", grant.access)], basic("app", "wrong"), path)
    why = "Introspection by a client with a wrong secret; the token asked about is good."
    recorder.probe("introspect-wrong-secret", answer, wrong_secret, why, grant)


# --- the servers, each with what only it can be made to do -------------------------------------------------


def dot(recorder: Recorder) -> None:
    server = recorder.server
    token_faults(recorder, {"empty-refresh-token": "grant_dead"})
    token_states(recorder)
    revoked(recorder)
    why = "A refresh token past its configured lifetime."
    aged(recorder, "expired", "age_access_token", "access", why, hours=720)
    reused(recorder, "reused", "A rotated token was used again; no reuse detection, so its successor still works.")
    dot_settings(recorder)
    deleted_user(recorder)
    deleted_client(recorder)
    why = "The user was deactivated; this server goes on refreshing."
    disturbed(recorder, "user-inactive", "grant_dead", why, "user_active", "active", user="bob")
    why = "The table of refresh tokens was away for a moment."
    disturbed(recorder, "storage-broken", "provider_outage", why, "break_storage", "broken")
    grant = recorder.grant()
    why = "The id and secret of a client that may not use refresh tokens were configured."
    recorder.note("not-allowed", grant.ask(client="limited"), "client_misconfigured", why, grant)
    client_credentials(recorder)
    passwords(recorder)
    dot_inactive_password(recorder)
    readings(recorder, "/api/", {"malformed": "request_malformed"}, prefix="rest-")
    untold = dict.fromkeys(BARE, "unknown")
    readings(recorder, "/plain/", untold, prefix="plain-", only=("unknown", "missing"))
    untold = dict.fromkeys(("missing", "malformed"), "unknown")
    readings(recorder, "/challenged/", untold, prefix="challenged-", only=BARE, scope="read write")
    untold = dict.fromkeys(("missing", "wrong-scheme"), "access_token_dead")
    some = ("live", *BARE, "wrong-scheme")
    readings(recorder, "/o/userinfo/", untold, prefix="userinfo-", only=some, scope="openid")
    dead_access_token(recorder, "/api/", "age_access_token", "rest-", hours=1)
    dead_access_token(recorder, "/o/userinfo/", "age_access_token", "userinfo-", "openid", hours=1)
    scope_lacking(recorder, "/api/write/", "rest-insufficient-scope")
    scope_lacking(recorder, "/challenged/", "challenged-insufficient-scope")
    scope_lacking(recorder, "/plain/", "plain-insufficient-scope", "unknown", scope="openid")
    scope_lacking(recorder, "/o/userinfo/", "userinfo-insufficient-scope", "access_token_dead", scope="read")
    introspections(recorder, "/o/introspect/", "age_access_token", "unknown", hours=1)
    grant = recorder.grant()
    server.get("/api/throttled/", f"Bearer {grant.access}")
    answer, why = server.get("/api/throttled/", f"Bearer {grant.access}"), "More calls than one a minute."
    recorder.probe("rest-throttled", answer, "rate_limited", why, grant)


BARE = ("unknown", "malformed", "missing")


def dot_settings(recorder: Recorder) -> None:
    """Situations that depend on how the server is set up."""
    server = recorder.server
    server.control("setting", name="REFRESH_TOKEN_REUSE_PROTECTION", value=True)
    reused(recorder, "reused-detected", "A rotated token was used again; the server then revoked its successor too.")
    server.control("setting", name="REFRESH_TOKEN_REUSE_PROTECTION", value=False)
    server.control("setting", name="REFRESH_TOKEN_GRACE_PERIOD_SECONDS", value=120)
    reused(recorder, "reused-in-grace", "A rotated token was used again within the server's grace period.")
    server.control("setting", name="REFRESH_TOKEN_GRACE_PERIOD_SECONDS", value=0)
    server.control("setting", name="ROTATE_REFRESH_TOKEN", value=False)
    grant = recorder.grant()
    why = "An ordinary refresh at a server that does not rotate: the same refresh token comes back."
    recorder.note("refreshed-fixed", grant.redeem(), "live", why, grant)
    server.control("setting", name="ROTATE_REFRESH_TOKEN", value=True)


def dot_inactive_password(recorder: Recorder) -> None:
    grant = recorder.password(user="bob")
    recorder.server.control("user_active", user="bob", active=False)
    answer = grant.ask()
    recorder.server.control("user_active", user="bob", active=True)
    why = "The password is right but the user was deactivated for a while."
    recorder.note("password-user-inactive", answer, "grant_dead", why, grant)


def oidc_provider(recorder: Recorder) -> None:
    server = recorder.server
    token_faults(recorder, dict.fromkeys(("no-client", "garbled-basic", "bearer-as-client"), "request_malformed"))
    token_states(recorder)
    revoked(recorder)
    aged(recorder, "expired", "age_refresh_token", "refresh", "The refresh token was past its expiry.")
    reused(recorder, "reused", "A rotated token was used again; the server detects it and revokes the whole grant.")
    grant = recorder.grant("fixed")
    why = "An ordinary refresh for a client whose tokens do not rotate."
    recorder.note("refreshed-fixed", grant.redeem(), "live", why, grant)
    tokens = server.control("mint", client="app", user="alice", scope=server.product.scope)
    grant = Grant(server, "app", refreshing(tokens["refresh_token"]), tokens["access_token"])
    server.seen.update((grant.refresh, grant.access))
    server.control("drop_grant", grant=tokens["grant_id"])
    why = "The user's consent was withdrawn at the server."
    recorder.note("consent-withdrawn", grant.ask(), "grant_dead", why, grant)
    why = "After the user's consent was withdrawn."
    answer = server.get("/me", f"Bearer {grant.access}")
    recorder.probe("consent-withdrawn", answer, "access_token_dead", why, grant)
    oidc_deletions(recorder)
    not_allowed(recorder)
    why = "The store of refresh tokens failed for a moment."
    disturbed(recorder, "storage-broken", "provider_outage", why, "break_storage", "broken")
    why = "The client's secret was past its expiry; a new one was registered afterwards."
    disturbed(recorder, "secret-expired", "client_misconfigured", why, "expire_secret", "expired", client="app")
    client_credentials(recorder)
    oidc_assertions(recorder)
    readings(recorder, "/me", {"malformed": "request_malformed"})
    dead_access_token(recorder, "/me", "age_access_token")
    scope_lacking(recorder, "/me", "insufficient-scope", scope="offline_access")
    introspections(recorder, "/token/introspection", "age_access_token")


def oidc_deletions(recorder: Recorder) -> None:
    server, grant = recorder.server, recorder.grant(user="bob")
    server.control("delete_user", user="bob")
    answer = server.get("/me", f"Bearer {grant.access}")
    recorder.probe("user-deleted", answer, "access_token_dead", "The user behind the token was deleted.", grant)
    deleted_user(recorder)
    grant = recorder.grant("doomed")
    deleted_client(recorder)
    answer, why = server.get("/me", f"Bearer {grant.access}"), "The client of the token was deleted."
    recorder.probe("client-deleted", answer, "access_token_dead", why, grant)


def oidc_assertions(recorder: Recorder) -> None:
    """Clients that prove themselves by a signed assertion, and ones that must prove possession of a key."""
    server = recorder.server
    here = server.signed_for
    once = signed(here)
    cases: tuple[tuple[str, str, Params], ...] = (
        ("assertion-accepted", "The client authenticated by a good signed assertion.", once),
        ("assertion-replayed", "The client assertion had been used before.", once),
        ("assertion-expired", "The client assertion was past its expiry, as with a wrong clock.", signed(here, exp=1)),
        ("assertion-audience", "The client assertion named another audience.", signed("https://x.example")),
        ("assertion-wrong-key", "The client assertion was signed with a wrong secret.", signed(here, "x" * 32)),
    )
    for name, why, proof in cases:
        grant = recorder.grant("signed")
        answer = grant.adopt(server.token([*grant.params, *proof]))
        recorder.note(name, answer, "live" if answer.tokens() else "client_misconfigured", why, grant)
    grant = recorder.grant("bound")
    answer = grant.ask()
    server.control("allow_refresh", client="bound")
    why = (
        "The client was registered to prove possession of a key (DPoP) and did not; the token works without that duty."
    )
    recorder.note("proof-missing", answer, "grant_dead", why, grant)


def canaille(recorder: Recorder) -> None:
    server = recorder.server
    failing = dict.fromkeys(("garbled-basic", "no-grant-type", "json-body", "empty-body"), "provider_outage")
    scopes = dict.fromkeys(("wider-scope", "unknown-scope"), "request_malformed")
    token_faults(recorder, {"empty-refresh-token": "grant_dead", **failing, **scopes})
    token_states(recorder)
    revoked(recorder)
    aged(recorder, "expired", "age_token", "access", "The refresh token was past its expiry.")
    reused(recorder, "reused", "A rotated token was used again; no reuse detection, so its successor still works.")
    why = "The user was locked for a while; afterwards the same token works."
    disturbed(recorder, "user-locked", "grant_dead", why, "lock_user", "locked", user="bob")
    why = "The client's secret was past its expiry for a while."
    disturbed(recorder, "secret-expired", "client_misconfigured", why, "expire_secret", "expired", client="app")
    canaille_consent(recorder)
    deleted_client(recorder)
    deleted_user(recorder)
    not_allowed(recorder)
    client_credentials(recorder)
    passwords(recorder)
    canaille_bearer(recorder)
    readings(recorder, "/oauth/userinfo", {})
    dead_access_token(recorder, "/oauth/userinfo", "age_token")
    scope_lacking(recorder, "/oauth/userinfo", "insufficient-scope", scope="profile")
    introspections(recorder, "/oauth/introspect", "age_token")
    machine = recorder.machine()
    machine.redeem()
    answer, why = server.get("/oauth/userinfo", f"Bearer {machine.access}"), "A good token without a user at userinfo."
    recorder.probe("machine-at-userinfo", answer, "provider_outage", why, machine)


def canaille_consent(recorder: Recorder) -> None:
    grant = recorder.grant("other", user="bob")
    recorder.server.control("consent", client="other", user="bob")
    recorder.server.control("revoke_consent", client="other", user="bob")
    why = "The user withdrew consent on the server's own page."
    recorder.note("consent-withdrawn", grant.ask(), "grant_dead", why, grant)


def canaille_bearer(recorder: Recorder) -> None:
    """Tokens for a signed assertion about a user (RFC 7523)."""
    server = recorder.server
    audience = f"http://127.0.0.1:{server.port}/oauth/token"

    def bearer(**changes: Any) -> Grant:
        order = {"client": "bearer", "user": "alice", "audience": audience, **changes}
        assertion = server.control("assertion", **order)["assertion"]
        server.seen.add(assertion)
        return Grant(server, "bearer", [("grant_type", JWT_BEARER), ("assertion", assertion)], kind="jwt_bearer")

    server.control("consent", client="bearer", user="alice")
    cases: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("bearer-issued", "live", "A good assertion for a user who consented.", {}),
        (
            "bearer-expired",
            "request_malformed",
            "The assertion was past its expiry, as with a wrong clock.",
            {"age": 3600},
        ),
        (
            "bearer-audience",
            "request_malformed",
            "The assertion named another audience.",
            {"audience": "https://x.example"},
        ),
        ("bearer-unknown-user", "grant_dead", "The assertion was about a user who does not exist.", {"user": "nobody"}),
        ("bearer-no-consent", "client_misconfigured", "The user of the assertion never consented.", {"user": "bob"}),
        (
            "bearer-unknown-issuer",
            "client_misconfigured",
            "The assertion named an unknown client as issuer.",
            {"client": "nobody"},
        ),
    )
    for name, finding, why, changes in cases:
        answer = bearer(**changes).ask()
        recorder.note(name, answer, finding, why, bearer(**{key: changes[key] for key in changes if key == "user"}))


def node_oauth2(recorder: Recorder) -> None:
    server = recorder.server
    lost = ("wider-scope", "unknown-scope")
    findings = {
        "newline-in-token": "request_malformed",
        "twice-refresh-token": "grant_dead",
        "other-client": "client_misconfigured",  # it alone says that the token is another client's
    }
    token_faults(recorder, findings, lost)
    for name, scope in zip(lost, ("read write", "nonsense"), strict=True):
        grant = recorder.grant()
        why = f"The refresh asked for the scope {scope!r}; the server revokes the token before it refuses the scope."
        recorder.note(name, grant.ask(("scope", scope)), "scope_insufficient", why, grant)
    token_states(recorder)
    aged(recorder, "expired", "age_refresh_token", "refresh", "The refresh token was past its expiry.")
    reused(recorder, "reused", "A rotated token was used again; no reuse detection, so its successor still works.")
    grant = recorder.grant()
    grant.path = "/fixed/token"
    why = "An ordinary refresh at a server that does not rotate: no refresh token comes back."
    recorder.note("refreshed-fixed", grant.redeem(), "live", why, grant)
    grant = recorder.grant()
    server.control("revoke", access=grant.access, refresh=grant.refresh)
    recorder.note("revoked", grant.ask(), "grant_dead", "The refresh token was taken out of the store.", grant)
    deleted_client(recorder)
    why = "The store of refresh tokens failed for a moment."
    disturbed(recorder, "storage-broken", "provider_outage", why, "break_storage", "broken")
    not_allowed(recorder)
    node_limits(recorder)
    client_credentials(recorder, "request_malformed")
    passwords(recorder)
    strict = dict.fromkeys(("lower-case-bearer", "malformed"), "request_malformed")
    readings(recorder, "/api", {**strict, "missing": "unknown"})
    dead_access_token(recorder, "/api", "age_access_token")
    scope_lacking(recorder, "/api/write", "insufficient-scope")


def node_limits(recorder: Recorder) -> None:
    server, grant = recorder.server, recorder.grant()
    server.token_for("app", grant.params, path="/limited/token")
    grant = recorder.grant()
    answer = server.token_for("app", grant.params, path="/limited/token")
    recorder.note("throttled", answer, "rate_limited", "The second token request within a minute, one allowed.", grant)
    server.get("/limited/api", f"Bearer {grant.access}")
    answer, why = server.get("/limited/api", f"Bearer {grant.access}"), "The second call within a minute, one allowed."
    recorder.probe("throttled", answer, "rate_limited", why, grant)


def mcp_sdk(recorder: Recorder) -> None:
    server = recorder.server
    header = ("wrong-secret-basic", "unknown-client-basic", "garbled-basic", "post-for-basic")
    token_faults(recorder, {"json-body": "client_misconfigured", "empty-refresh-token": "grant_dead"}, header)
    token_states(recorder)
    tokens = recorder.grant("header")
    grant = Grant(server, "header", [*tokens.params, ("client_id", "header")], tokens.access)
    why = "The right basic header, but this server also wants the client_id in the body."
    recorder.note("basic-only", server.token(tokens.params, basic("header")), "client_misconfigured", why, grant)
    revoked(recorder)
    aged(recorder, "expired", "age_refresh_token", "refresh", "The refresh token was past its expiry.")
    reused(recorder, "reused", "A rotated token was used again; no reuse detection, so its successor still works.")
    deleted_client(recorder)
    why = "The client's secret was past its expiry for a while."
    disturbed(recorder, "secret-expired", "client_misconfigured", why, "expire_secret", "expired", client="app")
    not_allowed(recorder, "request_malformed")
    untold = ("missing", "wrong-scheme", "empty-bearer", "in-query")
    readings(recorder, "/api", dict.fromkeys(untold, "access_token_dead"))
    dead_access_token(recorder, "/api", "age_access_token")
    scope_lacking(recorder, "/api/write", "insufficient-scope")


PRODUCTS: tuple[tuple[Product, Callable[[Recorder], None]], ...] = (
    (
        Product(
            "dot",
            "dot.py",
            "django-oauth-toolkit 3.4.1",
            "https://github.com/django-oauth/django-oauth-toolkit",
            token_path="/o/token/",
            revoke_path="/o/revoke_token/",
        ),
        dot,
    ),
    (
        Product(
            "oidc",
            "oidc_provider.mjs",
            "oidc-provider 9.13.3",
            "https://github.com/panva/node-oidc-provider",
            revoke_path="/token/revocation",
            scope="openid offline_access",
            wider="openid offline_access email",
            password_grant=False,
        ),
        oidc_provider,
    ),
    (
        Product(
            "canaille",
            "iam.py",
            "canaille 0.3.6",
            "https://gitlab.com/yaal/canaille",
            token_path="/oauth/token",
            revoke_path="/oauth/revoke",
            scope="openid",
            wider="openid profile",
            pause=1.1,
        ),
        canaille,
    ),
    (
        Product(
            "node-oauth2",
            "node_oauth2.mjs",
            "@node-oauth/oauth2-server 5.3.0",
            "https://github.com/node-oauth/node-oauth2-server",
            revoke_path="",
        ),
        node_oauth2,
    ),
    (
        Product(
            "mcp",
            "mcp_sdk.py",
            "mcp 2.3.0",
            "https://github.com/modelcontextprotocol/python-sdk",
            secret_in_body=True,
            password_grant=False,
        ),
        mcp_sdk,
    ),
)


def install(home: Path) -> None:
    """Each Python server's packages in an environment of its own, Node's in one folder."""
    for name, packages in PYTHON_PACKAGES.items():
        if not (home / name).exists():
            subprocess.run(["uv", "venv", "--quiet", str(home / name)], check=True)
            python = str(home / name / "bin" / "python")
            subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *packages], check=True)
    if not (home / "node_modules").exists():
        subprocess.run(["npm", "install", "--silent", "--prefix", str(home), *NODE_PACKAGES], check=True)
    for program in (HERE / "servers").glob("*.mjs"):
        shutil.copy(program, home)  # Node looks for packages beside the program


def command(home: Path, program: str, port: int) -> list[str]:
    if program.endswith(".mjs"):
        return ["node", str(home / program), str(port)]
    python = home / program.removesuffix(".py") / "bin" / "python"
    return [str(python), str(HERE / "servers" / program), str(port)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(product: Product, home: Path) -> Iterator[Server]:
    port = free_port()
    with (home / f"{product.short}.log").open("w") as log:
        process = subprocess.Popen(command(home, product.program, port), stdout=log, stderr=log)
        try:
            wait_for(process, port)
            yield Server(product, port)
        finally:
            process.terminate()
            process.wait()


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError("a server ended at once; its log stands in the home folder")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("a server does not listen")


def record(home: Path) -> list[dict[str, Any]]:
    install(home)
    lines: list[dict[str, Any]] = []
    for product, situations in PRODUCTS:
        with running(product, home) as server:
            recorder = Recorder(server)
            situations(recorder)
            lines += recorder.lines
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what real authorization servers answer.")
    parser.add_argument("--home", type=Path, help="where to install the servers (a temporary folder if left out)")
    home = parser.parse_args().home
    with tempfile.TemporaryDirectory() as folder:
        lines = record((home or Path(folder)).resolve())
    OUT.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} answers written to {OUT}")


if __name__ == "__main__":
    main()
