"""The server itself, from top to bottom: the ledger, faults, OAuth (Authlib), what people approve, Meta, vendors' own, the
resource, admin.

One process serves one `ledger`, so it is a module global. Requests pass the faults in parallel and are then
answered one at a time, so that a refresh token is checked and replaced in one step.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from functools import cached_property
from html import escape
from typing import Any, Literal, TypeVar, cast
from urllib.parse import unquote

from authlib.common.urls import add_params_to_uri
from authlib.integrations.flask_oauth2 import AuthorizationServer as FlaskAuthorizationServer
from authlib.oauth2.rfc6749 import (
    BaseGrant,
    ClientMixin,
    InvalidClientError,
    InvalidGrantError,
    InvalidRequestError,
    OAuth2Error,
    TokenEndpointMixin,
    TokenMixin,
    UnauthorizedClientError,
)
from authlib.oauth2.rfc6749 import grants as rfc6749
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant
from flask import Blueprint, Flask, Request, Response, g, jsonify, request
from flask.typing import ResponseReturnValue
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OctKey
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.http import http_date
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

Json = dict[str, Any]
Kind = Literal["access", "refresh"]

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SAML2_BEARER = "urn:ietf:params:oauth:grant-type:saml2-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
CLIENT_AUTH_METHODS = [
    *("client_secret_basic", "client_secret_post", "private_key_jwt", "client_secret_jwt", "none"),
]
#: Grants that renew with the access token itself: once it is dead there is no second chance. "long_lived" is for clients
#: whose tokens nobody can renew at all.
SELF_RENEWING = {"fb_exchange_token", "ig_refresh_token", "th_refresh_token", "long_lived"}
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
#: Seconds. A code is to be exchanged at once (RFC 6749 §4.1.2 allows ten minutes at the most).
CODE_LIFETIME = 60
DEVICE_LIFETIME = 600
INSTALLATIONS = "/app/installations/"
LOGIN = "/vendor/login"
#: What a fault's "on" means. Other paths (introspection, revocation) fail by path, or with "both".
ENDPOINTS = {
    "/oauth/token": "token",
    "/meta/oauth/access_token": "token",
    "/instagram/refresh_access_token": "token",
    "/threads/refresh_access_token": "token",
    LOGIN: "token",
    "/api/me": "resource",
    "/api/rows": "resource",
}


def endpoint_of(path: str) -> str | None:
    """What a path is, for a fault's "on"."""
    return "token" if path.startswith(INSTALLATIONS) else ENDPOINTS.get(path)


# --- The ledger: the ground truth -------------------------------------------------------------------


class Clock:
    """Our own time, which tests move forward so that tokens expire without waiting for them.

    Assertions (RFC 7523) are still judged by the machine's time, unless their signer is said to have moved as well.
    """

    def __init__(self) -> None:
        self.offset = 0.0
        self.signers_offset = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self.offset


@dataclass
class Client(ClientMixin):  # type: ignore[misc]
    """A registered client, and how its provider likes to behave. Lifetimes in seconds; None: for ever."""

    client_id: str
    client_secret: str | None = None
    token_endpoint_auth_method: str = "client_secret_basic"
    grant_types: list[str] = field(default_factory=lambda: ["refresh_token"])
    rotation: bool = False
    reuse_detection: bool = False
    rotation_grace: int = 0
    wrong_grant_error: str = "unsupported_grant_type"
    scope: str = "read"
    jwks: Json | None = None
    access_lifetime: int | None = 3600
    refresh_lifetime: int | None = None
    secret_prefix: str = "tok-"
    users: dict[str, str] = field(default_factory=dict)
    """Name and password of those who may log in through it."""
    account_id: str = ""
    subject_tokens: list[str] = field(default_factory=list)
    assertions: list[str] = field(default_factory=list)
    redirect_uris: list[str] = field(default_factory=list)
    """Where a person may be sent back to, letter by letter."""
    require_pkce: bool = False
    device_interval: int = 1
    """Between two polls of a device; sooner ones are told to slow down."""
    disabled: bool = False
    rows: int = 3

    def get_client_id(self) -> str:
        """For Authlib."""
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """Default to everything (RFC 6749 §3.3); None makes Authlib answer invalid_scope."""
        if not scope:
            return self.scope
        return scope if set(scope.split()) <= set(self.scope.split()) else None

    def check_client_secret(self, client_secret: str) -> bool:
        """Compare in constant time. A client without a secret matches none."""
        return secrets.compare_digest((self.client_secret or "").encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Only the registered method (RFC 7591 §2), on every endpoint."""
        return self.token_endpoint_auth_method == method

    def check_grant_type(self, grant_type: str) -> bool:
        """Only the registered grant types (RFC 7591 §2)."""
        return grant_type in self.grant_types

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Compared letter by letter (RFC 9700 §2.1)."""
        return redirect_uri in self.redirect_uris

    def get_default_redirect_uri(self) -> str | None:
        """None: everybody has to say it."""
        return None

    def check_response_type(self, response_type: str) -> bool:
        """Codes only, for those that may exchange them."""
        return response_type == "code" and self.check_grant_type("authorization_code")

    @property
    def renews_itself(self) -> bool:
        """Whether its access token is its only way to the next one."""
        return bool(SELF_RENEWING.intersection(self.grant_types))


@dataclass
class Grant:
    """One user's agreement: the family that all tokens renewed from each other belong to."""

    client_id: str
    user: str
    revoked: bool = False


@dataclass
class Token(TokenMixin):  # type: ignore[misc]
    """One access or refresh token. Never deleted, so that we can say why it is dead."""

    clock: Clock
    grant: Grant
    kind: Kind
    scope: str
    issued_at: float
    expires_at: float | None
    revoked: bool = False
    replaced_at: float | None = None
    """When rotation first gave the next one for it."""

    @property
    def client_id(self) -> str:
        """Whose it is."""
        return self.grant.client_id

    @property
    def live(self) -> bool:
        """Whether a request with it would be accepted right now."""
        return not (self.is_expired() or self.is_revoked())

    @property
    def expires_in(self) -> int | None:
        """Seconds left, negative once expired; None: never expires."""
        return None if self.expires_at is None else round(self.expires_at - self.clock.now())

    def check_client(self, client: Client) -> bool:
        """For Authlib: was it issued to this client?"""
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        """For Authlib."""
        return self.scope

    def is_expired(self) -> bool:
        """By our clock."""
        return self.expires_at is not None and self.expires_at <= self.clock.now()

    def in_grace(self, grace: float) -> bool:
        """Whether it was replaced so lately that its answer may not have arrived: then it counts once more."""
        if self.replaced_at is None or self.grant.revoked or self.is_expired():
            return False
        return self.clock.now() - self.replaced_at < grace

    def is_revoked(self) -> bool:
        """Revoked or replaced. Access tokens may outlive their grant, as with most providers."""
        return self.revoked or (self.kind == "refresh" and self.grant.revoked)


@dataclass
class Code:
    """What a person's approval gives, to be exchanged once (RFC 6749 §4.1.2)."""

    client_id: str
    user: str
    scope: str
    redirect_uri: str
    expires_at: float
    code_challenge: str | None = None
    code_challenge_method: str | None = None
    grant: Grant | None = None
    """What it was exchanged for."""

    def get_redirect_uri(self) -> str:
        """For Authlib."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """For Authlib."""
        return self.scope


@dataclass
class Device:
    """A device that waits for a person's approval (RFC 8628)."""

    clock: Clock
    client_id: str
    user_code: str
    scope: str
    interval: int
    expires_at: float
    polled_at: float = 0
    user: str = ""
    approved: bool | None = None
    used: bool = False

    def get_client_id(self) -> str:
        """For Authlib."""
        return self.client_id

    def get_scope(self) -> str:
        """For Authlib."""
        return self.scope

    def get_user_code(self) -> str:
        """For Authlib."""
        return self.user_code

    def is_expired(self) -> bool:
        """By our clock."""
        return self.expires_at <= self.clock.now()


class Ledger:
    """Every client, token, fault and request. `tokens` is ordered by age; its keys are the secrets."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clock = Clock()
        self.clients: dict[str, Client] = {}
        self.tokens: dict[str, Token] = {}
        self.faults: list[Fault] = []
        self.requests: list[Json] = []
        self.used_assertions: set[tuple[str, str]] = set()
        self.codes: dict[str, Code] = {}
        self.devices: dict[str, Device] = {}

    def add_client(self, client: Client) -> None:
        """Register a client from scratch: an earlier one of that name is forgotten with its tokens."""
        self.clients[client.client_id] = client
        self.tokens = {value: t for value, t in self.tokens.items() if t.client_id != client.client_id}

    def client_of_user(self, username: str | None) -> Client | None:
        """The client through which somebody of this name may log in."""
        return next((client for client in self.clients.values() if username in client.users), None)

    def enabled_client(self, client_id: str) -> Client | None:
        """What Authlib may find."""
        client = self.clients.get(client_id)
        return client if client and not client.disabled else None

    def new_value(self, client: Client, kind: str) -> str:
        """A secret that a test can search logs for: `tok-at-…`, `tok-rt-…`, `tok-code-…`."""
        prefix = client.secret_prefix
        hyphen = "" if prefix.endswith("-") else "-"
        short = {"access": "at", "refresh": "rt"}.get(kind, kind)
        return f"{prefix}{hyphen}{short}-{secrets.token_hex(20)}"

    def record(self, value: str, grant: Grant, kind: Kind, scope: str, lifetime: int | None) -> None:
        """Enter a token that is being handed out."""
        now = self.clock.now()
        expires_at = None if lifetime is None else now + lifetime
        self.tokens[value] = Token(self.clock, grant, kind, scope, now, expires_at)

    def issue(self, client: Client, grant: Grant, kind: Kind, lifetime: int | None) -> str:
        """Make a token and enter it."""
        value = self.new_value(client, kind)
        self.record(value, grant, kind, client.scope, lifetime)
        return value

    def newest(self, client_id: str, kind: Kind, user: str | None = None) -> Token | None:
        """The token handed out last; the one a careful client holds."""
        for token in reversed(self.tokens.values()):
            if token.client_id == client_id and token.kind == kind and user in (None, token.grant.user):
                return token
        return None

    def is_live(self, client_id: str, kind: Kind, user: str | None = None) -> bool:
        """Whether the newest such token would be accepted."""
        token = self.newest(client_id, kind, user)
        return token is not None and token.live

    def grant_live(self, client: Client, user: str | None = None) -> bool:
        """Whether the agreement stands. A disabled client is another fact, unless it is all there is."""
        if "refresh_token" in client.grant_types:
            return self.is_live(client.client_id, "refresh", user)
        if client.renews_itself:
            return self.is_live(client.client_id, "access", user)
        return not client.disabled

    def revoke(self, client: Client, user: str | None, *, access: bool, grant: bool) -> None:
        """Kill what belongs to a client (and user). For Meta's classes, a grant is its access tokens."""
        access = access or (grant and client.renews_itself)
        for token in self.tokens.values():
            if token.client_id == client.client_id and user in (None, token.grant.user):
                token.grant.revoked = token.grant.revoked or grant
                token.revoked = token.revoked or (access and token.kind == "access")

    def end(self, grant: Grant) -> None:
        """Kill a grant with everything that it brought."""
        grant.revoked = True
        for token in self.tokens.values():
            token.revoked = token.revoked or token.grant is grant

    def device_of(self, user_code: str | None) -> Device | None:
        """The device that shows this code, if it still waits."""
        waiting = (device for device in self.devices.values() if not device.is_expired() and device.approved is None)
        return next((device for device in waiting if device.user_code == (user_code or "").strip().upper()), None)


# --- Faults: what a provider, or the network before it, does wrong -------------------------------------


@dataclass
class Fault:
    """A failure to stage, for one client, one path, both, or (with neither) the whole provider."""

    kind: str
    client_id: str | None = None
    path: str | None = None
    on: str | None = None
    times: int | None = None
    status: int = 503
    body: str | Json = ""
    headers: dict[str, str] = field(default_factory=dict)
    megabytes: int = 1
    seconds: float = 60
    url: str = ""

    def __post_init__(self) -> None:
        """Faults on a client start at the token endpoint; faults on a path need no further word."""
        self.on = self.on or ("token" if self.client_id and not self.path else "both")
        if self.kind not in FAULT_ANSWERS or self.on not in ("token", "resource", "both"):
            raise ValueError(f"No fault of kind {self.kind!r} on {self.on!r}; kinds: {sorted(FAULT_ANSWERS)}")

    def matches(self, path: str, client_id: str | None) -> bool:
        """Whether this request is to fail."""
        return (
            self.path in (None, path) and self.client_id in (None, client_id) and self.on in ("both", endpoint_of(path))
        )


def status_fault(fault: Fault) -> Response:
    """Any status, body and headers: 503, or 429 with Retry-After."""
    response = Response(fault.body, mimetype="text/plain") if isinstance(fault.body, str) else jsonify(fault.body)
    response.status_code = fault.status
    response.headers.update(fault.headers)
    return response


def html_fault(fault: Fault) -> Response:
    """A captive portal: every request "succeeds" with its login page."""
    return Response("<!doctype html><title>Sign in to Wi-Fi</title><h1>Welcome</h1>", mimetype="text/html")


def truncated_fault(fault: Fault) -> Response:
    """The connection closes before the promised length is there."""
    response = Response('{"access_token": "tok-at-cut', mimetype="application/json")
    response.content_length = 4096
    return response


def huge_fault(fault: Fault) -> Response:
    """An answer nobody should read to its end."""

    def body() -> Iterator[bytes]:
        yield b'{"padding": "'
        for _ in range(fault.megabytes):
            yield b"x" * 1_000_000
        yield b'"}'

    return Response(body(), mimetype="application/json")


def error_200_fault(fault: Fault) -> Response:
    """An error that says 200, as Slack's do."""
    return jsonify(ok=False, error="token_expired")


def empty_200_fault(fault: Fault) -> Response:
    """200 and nothing."""
    return Response(b"", mimetype="application/json")


def hang_fault(fault: Fault) -> Response:
    """Silence, then a gateway's timeout; nothing was evaluated."""
    time.sleep(fault.seconds)
    return Response("upstream timed out", status=504, mimetype="text/plain")


def redirect_fault(fault: Fault) -> Response:
    """307 keeps method and body: a careless client sends its secrets on to the next host."""
    return Response(status=307, headers={"Location": fault.url})


FAULT_ANSWERS: dict[str, Callable[[Fault], Response]] = {
    "status": status_fault,
    "html": html_fault,
    "truncated": truncated_fault,
    "huge": huge_fault,
    "error_200": error_200_fault,
    "empty_200": empty_200_fault,
    "hang": hang_fault,
    "redirect": redirect_fault,
}

ledger = Ledger()


def take_fault() -> Fault | None:
    """The first fault that matches this request, counted down."""
    with ledger.lock:
        fault = next((f for f in ledger.faults if f.matches(request.path, g.client_id)), None)
        if fault and fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                ledger.faults.remove(fault)
        return fault


# --- Every request: whose is it, does it fail, and a line about it -------------------------------------


class FormRequest(Request):
    """Some providers take JSON at the token endpoint. Show it to Authlib as the form of RFC 6749 §4."""

    @cached_property
    def form(self) -> ImmutableMultiDict[str, str]:
        """The form, or a flat JSON body in its place."""
        if not self.is_json or self.path not in ("/oauth/token", LOGIN):
            return super().form
        body = self.get_json(silent=True)
        items = body.items() if isinstance(body, dict) else ()
        return ImmutableMultiDict({name: str(value) for name, value in items if value is not None})


class OneAtATime(Flask):
    """Answers hold the ledger's lock; faults, which may hang, do not."""

    request_class = FormRequest

    def dispatch_request(self) -> ResponseReturnValue:
        """Check and change the ledger in one step."""
        with ledger.lock:
            return super().dispatch_request()


def assertion_issuer(assertion: str | None) -> str | None:
    """Who an assertion says it is from. Not verified: this only attributes the request."""
    try:
        claims = json.loads(jws.extract_compact((assertion or "").encode()).payload)
    except (JoseError, ValueError):
        return None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else None


def presented_token() -> str | None:
    """The access token, from the header (RFC 6750 §2.1) or a parameter (§2.2, §2.3)."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else request.values.get("access_token")


def basic_user() -> str | None:
    """The user name of HTTP Basic, percent-encoded as RFC 6749 §2.3.1 wants it."""
    basic = request.authorization
    return unquote(basic.username) if basic and basic.type == "basic" and basic.username else None


def claimed_client() -> str | None:
    """Which client the request is about, whichever way it says so."""
    values = request.values
    token = ledger.tokens.get(presented_token() or values.get("fb_exchange_token") or "")
    logs_in = ledger.client_of_user(values.get("username")) if request.path == LOGIN else None
    return (
        basic_user()
        or values.get("client_id")
        or assertion_issuer(values.get("client_assertion"))
        or assertion_issuer(values.get("assertion"))
        or (token.client_id if token else None)
        or (logs_in.client_id if logs_in else None)
        or assertion_issuer(presented_token())
    )


def before() -> Response | None:
    """Attribute the request, then fail it if it is to fail, before anything is evaluated."""
    # Read it whatever happens next: Werkzeug would look for the rest after its answer, and keep the connection open.
    request.get_data(cache=True)
    if request.path.startswith("/admin/"):
        return None
    g.at = ledger.clock.now()
    g.client_id = claimed_client()
    fault = take_fault()
    return FAULT_ANSWERS[fault.kind](fault) if fault else None


def error_in(response: Response) -> str | None:
    """The error code of an answer, ours or Meta's, for the request log."""
    body = response.get_json(silent=True) if response.is_json and response.is_sequence else None
    error = body.get("error") if isinstance(body, dict) else None
    return f"{error.get('type')} {error.get('code')}" if isinstance(error, dict) else error


def after(response: Response) -> Response:
    """Log the request: names of parameters, never their values. `Date` goes with the clock that our clients share."""
    response.headers["Date"] = http_date(time.time() + ledger.clock.signers_offset)
    if "at" in g:
        entry = {
            "at": iso(g.at),
            "client_id": g.client_id,
            "path": request.path,
            "method": request.method,
            "grant_type": request.values.get("grant_type"),
            "status": response.status_code,
            "error": error_in(response),
            "parameters": sorted(request.values.keys()),
        }
        with ledger.lock:
            ledger.requests.append(entry)
    return response


def iso(timestamp: float) -> str:
    """An aware UTC instant, as text."""
    return datetime.fromtimestamp(timestamp, tz=timezone.utc).isoformat()


# --- OAuth: token, introspection and revocation endpoints, by Authlib ----------------------------------


class AuthlibServer(FlaskAuthorizationServer):  # type: ignore[misc]
    """Authlib's server on our ledger."""

    def authenticate_client(self, request: Any, methods: list[str], endpoint: str = "token") -> Client:
        """Always 401 for wrong credentials. Authlib says 400 for some; RFC 6749 §5.2 allows both.

        Of the two ways to sign an assertion only the registered one is tried: a failed try would use it up.
        """
        registered = ledger.clients.get(g.client_id)
        signs = registered is not None and registered.token_endpoint_auth_method.endswith("_jwt")
        other = {"private_key_jwt", "client_secret_jwt"} - {registered.token_endpoint_auth_method if registered else ""}
        methods = [method for method in methods if not (signs and method in other)]
        try:
            return cast("Client", super().authenticate_client(request, methods, endpoint))
        except InvalidClientError as error:
            error.status_code = 401
            raise


class PrivateKeyJwt(JWTBearerClientAssertion):  # type: ignore[misc]
    """Client authentication with a signed assertion, RFC 7523 §2.2. Each may be used once."""

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def get_audiences(self) -> list[str]:
        """The token endpoint or the server itself."""
        return audiences()

    def validate_jti(self, claims: Json, jti: str) -> bool:
        """Refuse a replay."""
        use = (claims["sub"], jti)
        first = use not in ledger.used_assertions
        ledger.used_assertions.add(use)
        return first

    def resolve_client_public_key(self, client: Client) -> KeySet:
        """The registered keys."""
        return public_keys(client, InvalidClientError)


class ClientSecretJwt(PrivateKeyJwt):
    """The same signed with the client's secret, OpenID Connect Core §9."""

    CLIENT_AUTH_METHOD = "client_secret_jwt"

    def resolve_client_public_key(self, client: Client) -> OctKey:
        """The secret itself is the key."""
        if not client.client_secret:
            raise InvalidClientError(description="The client has no secret.")
        return OctKey.import_key(client.client_secret)


class RefreshToken(rfc6749.RefreshTokenGrant):  # type: ignore[misc]
    """RFC 6749 §6, with rotation, reuse detection (RFC 9700 §4.14.2) and a grace window if the client has them."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS

    @property
    def INCLUDE_NEW_REFRESH_TOKEN(self) -> bool:
        """Authlib's name for rotation."""
        return cast("bool", self.client.rotation)

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        """The live refresh token. A dead one that comes back may end its family: somebody copied it."""
        token = ledger.tokens.get(refresh_token)
        if token is None or token.kind != "refresh":
            return None
        if token.check_client(self.client) and token.in_grace(self.client.rotation_grace):
            return token
        if token.revoked and self.client.reuse_detection and token.check_client(self.client):
            token.grant.revoked = True
        return token if token.live else None

    def authenticate_user(self, refresh_token: Token) -> str:
        """Who agreed to the grant."""
        return refresh_token.grant.user

    def revoke_old_credential(self, refresh_token: Token) -> None:
        """With rotation, the old refresh token is dead at once, but for the client's grace window."""
        refresh_token.revoked = self.client.rotation
        if self.client.rotation and refresh_token.replaced_at is None:
            refresh_token.replaced_at = ledger.clock.now()


class ClientCredentials(rfc6749.ClientCredentialsGrant):  # type: ignore[misc]
    """RFC 6749 §4.4. Public clients have no credentials, so not for them."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS[:-1]


class Password(rfc6749.ResourceOwnerPasswordCredentialsGrant):  # type: ignore[misc]
    """RFC 6749 §4.3."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS

    def authenticate_user(self, username: str, password: str) -> str:
        """The password is the grant, so a wrong one is `invalid_grant` (RFC 6749 §5.2); Authlib would say otherwise."""
        if self.request.client.users.get(username) != password:
            raise InvalidGrantError("Invalid username or password.")
        return username

    def authenticate_token_endpoint_client(self) -> Client:
        """Before the password is looked at, as everywhere."""
        self.request.client = super().authenticate_token_endpoint_client()
        return cast("Client", self.request.client)


class OwnGrant(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]
    """A grant type Authlib does not have: a client shows something, and gets an access token for it."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS
    EXTRA: Json = {}

    def validate_token_request(self) -> None:
        """Who asks, and is what it shows good?"""
        self.request.client = self.authenticate_token_endpoint_client()
        self.check(self.request.client, self.request.form)

    def check(self, client: Client, form: Any) -> None:
        """Raise an OAuth2Error if it is not."""
        raise NotImplementedError

    def create_token_response(self) -> tuple[int, Json, Any]:
        """RFC 6749 §5.1."""
        user, scope = self.request.client.client_id, self.request.form.get("scope")
        token = self.generate_token(user=user, scope=scope, include_refresh_token=False)
        self.save_token(token)
        return 200, {**token, **self.EXTRA}, self.TOKEN_RESPONSE_HEADER


class AccountCredentials(OwnGrant):
    """Zoom's "Server-to-Server OAuth"."""

    GRANT_TYPE = "account_credentials"

    def check(self, client: Client, form: Any) -> None:
        """The account in which the app is installed."""
        if form.get("account_id") != client.account_id:
            raise InvalidRequestError("Invalid account id.")


class TokenExchange(OwnGrant):
    """RFC 8693 §2, for tokens that the client was told to bring."""

    GRANT_TYPE = TOKEN_EXCHANGE
    EXTRA = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}

    def check(self, client: Client, form: Any) -> None:
        """A subject token that is not acceptable is an `invalid_request` (RFC 8693 §2.2.2)."""
        if not form.get("subject_token_type", "").startswith("urn:ietf:params:oauth:token-type:"):
            raise InvalidRequestError("Missing 'subject_token_type' in request.")
        if form.get("subject_token") not in client.subject_tokens:
            raise InvalidRequestError("The subject token is not acceptable.")


class Saml2Bearer(OwnGrant):
    """RFC 7522 §2.1, for assertions that the client was told to bring; in base64url without padding."""

    GRANT_TYPE = SAML2_BEARER

    def check(self, client: Client, form: Any) -> None:
        """RFC 7522 §3.1."""
        if form.get("assertion") not in client.assertions:
            raise InvalidGrantError("The assertion is not valid.")


class JwtBearer(JWTBearerGrant):  # type: ignore[misc]
    """RFC 7523 §2.1. The assertion's issuer is the client, as with Google's service accounts."""

    def verify_claims(self, claims: Json) -> None:
        """By the signers' clock: Authlib knows the machine's only, so the claims are moved instead."""
        moved = ledger.clock.signers_offset
        times = {name: claims[name] - moved for name in ("exp", "iat", "nbf") if isinstance(claims.get(name), int)}
        super().verify_claims({**claims, **times})

    def resolve_issuer_client(self, issuer: str) -> Client | None:
        """The client; a disabled one is not merely unknown."""
        client = ledger.clients.get(issuer)
        if client and client.disabled:
            raise InvalidClientError("The client is disabled.", status_code=401)
        return client

    def resolve_client_public_key(self, client: Client) -> KeySet:
        """The registered keys."""
        return public_keys(client, InvalidGrantError)

    def get_audiences(self) -> list[str]:
        """The token endpoint or the server itself."""
        return audiences()

    def authenticate_user(self, subject: str) -> str:
        """Any subject exists here."""
        return subject

    def has_granted_permission(self, client: Client, user: str) -> bool:
        """Every client may act for every user."""
        return True


class AuthorizationCode(rfc6749.AuthorizationCodeGrant):  # type: ignore[misc]
    """RFC 6749 §4.1. A code is good for one exchange within a minute."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS

    def generate_authorization_code(self) -> str:
        """A secret like the tokens."""
        return ledger.new_value(self.request.client, "code")

    def save_authorization_code(self, code: str, request: Any) -> None:
        """Enter what the person has just approved."""
        asked = request.payload.data
        ledger.codes[code] = Code(
            client_id=request.client.client_id,
            user=request.user,
            scope=request.scope,
            redirect_uri=request.payload.redirect_uri,
            expires_at=ledger.clock.now() + CODE_LIFETIME,
            code_challenge=asked.get("code_challenge"),
            code_challenge_method=asked.get("code_challenge_method"),
        )

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        """A code that comes again was copied, so what the first one brought ends (RFC 6749 §4.1.2)."""
        found = ledger.codes.get(code)
        if found is None or found.client_id != client.client_id or found.expires_at <= ledger.clock.now():
            return None
        if found.grant is not None:
            ledger.end(found.grant)
            return None
        return found

    def delete_authorization_code(self, authorization_code: Code) -> None:
        """It is kept, with the grant it has brought: that is how we know one that comes again."""
        assert authorization_code.grant is not None

    def authenticate_user(self, authorization_code: Code) -> str:
        """Who approved."""
        return authorization_code.user


class Pkce(CodeChallenge):  # type: ignore[misc]
    """RFC 7636, with S256 only, and required from clients that say so (as RFC 9700 §2.1.1 wants it of all)."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        """A challenge without a method would be a plain one (RFC 7636 §4.3)."""
        asked = grant.request.payload.data
        challenged, method = asked.get("code_challenge"), asked.get("code_challenge_method")
        if grant.request.client.require_pkce and not challenged:
            raise InvalidRequestError("Code challenge required.")
        if challenged and not method:
            raise InvalidRequestError("Transform algorithm not supported.")
        super().validate_code_challenge(grant, redirect_uri)


class DeviceCode(DeviceCodeGrant):  # type: ignore[misc]
    """RFC 8628 §3.4."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS

    def query_device_credential(self, device_code: str) -> Device | None:
        """A code that has brought its tokens is spent."""
        found = ledger.devices.get(device_code)
        if found is not None and found.used:
            raise InvalidGrantError("The device code was used.")
        return found

    def query_user_grant(self, user_code: str) -> tuple[str, bool] | None:
        """What the person has answered; None while they have not."""
        device = next(device for device in ledger.devices.values() if device.user_code == user_code)
        return None if device.approved is None else (device.user, device.approved)

    def should_slow_down(self, credential: Device) -> bool:
        """Whether it asks sooner than it was told, which makes it wait longer from then on (RFC 8628 §3.5)."""
        now = ledger.clock.now()
        # A client's clock and ours need not agree to the millisecond.
        too_soon = now - credential.polled_at < credential.interval - 0.1
        credential.polled_at = now
        credential.interval += 5 if too_soon else 0
        return too_soon

    def create_token_response(self) -> tuple[int, Json, Any]:
        """Once."""
        answer: tuple[int, Json, Any] = super().create_token_response()
        self.request.credential.used = True
        return answer


class DeviceAuthorization(DeviceAuthorizationEndpoint):  # type: ignore[misc]
    """RFC 8628 §3.1."""

    CLIENT_AUTH_METHODS = CLIENT_AUTH_METHODS
    EXPIRES_IN = DEVICE_LIFETIME

    def authenticate_client(self, request: Any) -> Client:
        """Who may poll may begin."""
        client: Client = super().authenticate_client(request)
        if not client.check_grant_type(DEVICE_CODE):
            raise UnauthorizedClientError
        self.INTERVAL = client.device_interval
        self._client = client
        return client

    def generate_device_code(self) -> str:
        """A secret like the tokens."""
        return ledger.new_value(self._client, "device")

    def get_verification_uri(self) -> str:
        """Our page."""
        return f"{request.host_url}device"

    def save_device_credential(self, client_id: str, scope: str | None, data: Json) -> None:
        """Enter a device that waits."""
        ledger.devices[data["device_code"]] = Device(
            clock=ledger.clock,
            client_id=client_id,
            user_code=data["user_code"],
            scope=scope or ledger.clients[client_id].scope,
            interval=data["interval"],
            expires_at=ledger.clock.now() + data["expires_in"],
        )


class OwnTokens:
    """Both token endpoints answer for any token of the asking client, whatever the hint says."""

    CLIENT_AUTH_METHODS = CLIENT_AUTH_METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        """By value; we need no hint to find it."""
        return ledger.tokens.get(token_string)


class Introspection(OwnTokens, IntrospectionEndpoint):  # type: ignore[misc]
    """RFC 7662."""

    def check_permission(self, token: Token, client: Client, request: Any) -> bool:
        """Only one's own tokens; others look inactive (RFC 7662 §2.2)."""
        return token.check_client(client)

    def introspect_token(self, token: Token) -> Json:
        """The answer for a live token."""
        payload = {
            "active": True,
            "client_id": token.client_id,
            "username": token.grant.user,
            "sub": token.grant.user,
            "scope": token.scope,
            "token_type": "Bearer",
            "iat": int(token.issued_at),
            "exp": None if token.expires_at is None else int(token.expires_at),
        }
        return {name: value for name, value in payload.items() if value is not None}


class Revocation(OwnTokens, RevocationEndpoint):  # type: ignore[misc]
    """RFC 7009."""

    def revoke_token(self, token: Token, request: Any) -> None:
        """A refresh token takes the grant and its access tokens along (RFC 7009 §2.1)."""
        token.revoked = True
        if token.kind == "refresh":
            ledger.end(token.grant)


def audiences() -> list[str]:
    """What an assertion may be addressed to (RFC 7523 §3)."""
    base = request.host_url.rstrip("/")
    return [f"{base}/oauth/token", base]


def public_keys(client: Client, error: type[OAuth2Error]) -> KeySet:
    """The keys a client's assertions are verified with."""
    if not client.jwks:
        raise error(description="The client has no registered keys.")
    keys: KeySet = KeySet.import_key_set(cast("Any", client.jwks))
    return keys


def save_token(token: Json, oauth_request: Any) -> None:
    """Enter what Authlib generated. A refresh continues its grant, everything else begins one."""
    client: Client = oauth_request.client
    old: Token | None = oauth_request.refresh_token
    grant = old.grant if old else Grant(client.client_id, oauth_request.user or client.client_id)
    code: Code | None = oauth_request.authorization_code
    if code:
        code.grant = grant
    scope = token.get("scope", "")
    ledger.record(token["access_token"], grant, "access", scope, client.access_lifetime)
    if "refresh_token" in token:
        full_scope = old.scope if old else scope
        ledger.record(token["refresh_token"], grant, "refresh", full_scope, client.refresh_lifetime)


def build_authlib_server() -> AuthlibServer:
    """Register every grant, endpoint and client authentication method."""
    server = AuthlibServer(query_client=ledger.enabled_client, save_token=save_token)
    generator = BearerTokenGenerator(
        lambda client, **_: ledger.new_value(client, "access"),
        lambda client, **_: ledger.new_value(client, "refresh"),
        lambda client, grant_type: client.access_lifetime,
    )
    server.register_token_generator("default", generator)
    server.register_client_auth_method("private_key_jwt", PrivateKeyJwt())
    server.register_client_auth_method("client_secret_jwt", ClientSecretJwt())
    for grant in (
        *(RefreshToken, ClientCredentials, JwtBearer, Password, AccountCredentials, TokenExchange, Saml2Bearer),
    ):
        server.register_grant(grant)
    server.register_grant(AuthorizationCode, [Pkce()])
    server.register_grant(DeviceCode)
    for endpoint in (Introspection, Revocation, DeviceAuthorization):
        server.register_endpoint(endpoint)
    return server


authlib_server = build_authlib_server()
oauth = Blueprint("oauth", __name__)


@oauth.errorhandler(ValueError)
def malformed(error: ValueError) -> ResponseReturnValue:
    """Authlib 1.9 raises on undecodable Basic credentials, and on a quote in an assertion's `kid`."""
    return {"error": "invalid_request", "error_description": "The request is malformed."}, 400


@oauth.post("/oauth/token")
def token_endpoint() -> ResponseReturnValue:
    """RFC 6749 §3.2. The wrong grant type is refused before client or token are looked at."""
    client = ledger.clients.get(g.client_id)
    if client and not client.check_grant_type(request.values.get("grant_type", "")):
        return wrong_grant(client)
    return cast("Response", authlib_server.create_token_response())


def wrong_grant(client: Client) -> ResponseReturnValue:
    """The client's own way to refuse a grant type. With invalid_grant it looks just like a dead token."""
    if client.wrong_grant_error == "meta":
        return meta_error("Missing or invalid grant_type", 100)
    error = OAuth2Error(error=client.wrong_grant_error)
    return cast("Response", authlib_server.handle_error_response(None, error))


@oauth.post("/oauth/introspect")
def introspect() -> ResponseReturnValue:
    """RFC 7662 §2."""
    return cast("Response", authlib_server.create_endpoint_response("introspection"))


@oauth.post("/oauth/revoke")
def revoke() -> ResponseReturnValue:
    """RFC 7009 §2."""
    return cast("Response", authlib_server.create_endpoint_response("revocation"))


# --- What people approve: in their browser, or by a code that a device shows ----------------------------

approvals = Blueprint("approvals", __name__)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1>{text}
<form method="post">
{fields}
<p><label>Signed in as <input name="user" value="ada"></label></p>
<p><button name="decision" value="approve">Approve</button> <button name="decision" value="deny">Deny</button></p>
</form></body></html>"""


def asks(title: str, facts: dict[str, str], fields: str = "") -> str:
    """A page that asks a person."""
    text = "".join(f"<p>{escape(name)}: <code>{escape(value)}</code></p>" for name, value in facts.items())
    return PAGE.format(title=escape(title), text=text, fields=fields)


def decided() -> str | None:
    """Who approved; None for a no."""
    return (request.form.get("user") or "ada") if request.form.get("decision") == "approve" else None


def named(response: Response) -> Response:
    """Whoever is sent back is told by whom (RFC 9207 §2)."""
    if response.location:
        response.location = add_params_to_uri(response.location, [("iss", request.host_url.rstrip("/"))])
    return response


@approvals.get("/oauth/authorize")
def consent() -> ResponseReturnValue:
    """RFC 6749 §4.1.1: who asks for what. The form goes back to this same address."""
    try:
        grant = authlib_server.get_consent_grant()
    except OAuth2Error as error:
        return named(authlib_server.handle_error_response(None, error))
    facts = {"Client": grant.request.client.client_id, "Scope": grant.request.scope, "Back to": grant.redirect_uri}
    return asks("Approve access", facts)


@approvals.post("/oauth/authorize")
def answer_consent() -> ResponseReturnValue:
    """RFC 6749 §4.1.2: back to the client, with a code or an error."""
    try:
        grant = authlib_server.get_consent_grant()
    except OAuth2Error as error:
        return named(authlib_server.handle_error_response(None, error))
    return named(authlib_server.create_authorization_response(grant.request, grant_user=decided(), grant=grant))


@approvals.post("/oauth/device")
def device_authorization() -> ResponseReturnValue:
    """RFC 8628 §3.1."""
    return cast("Response", authlib_server.create_endpoint_response("device_authorization"))


@approvals.get("/device")
def enter_user_code() -> ResponseReturnValue:
    """RFC 8628 §3.3: the code may be in the address already."""
    shown = escape(request.args.get("user_code", ""), quote=True)
    field = f'<p><label>Code <input name="user_code" value="{shown}"></label></p>'
    device = ledger.device_of(request.args.get("user_code"))
    facts = {"Client": device.client_id, "Scope": device.scope} if device else {}
    return asks("Connect a device", facts, field)


@approvals.post("/device")
def answer_device() -> ResponseReturnValue:
    """The person's answer, for the next poll."""
    device = ledger.device_of(request.form.get("user_code"))
    if device is None:
        return "<!doctype html><title>Connect a device</title><p>No device waits with this code.</p>", 404
    device.user, device.approved = decided() or "", decided() is not None
    return "<!doctype html><title>Connect a device</title><p>Thank you. Go back to your device.</p>"


# --- Meta: Facebook, Instagram and Threads long-lived tokens -------------------------------------------

meta = Blueprint("meta", __name__)


class MetaError(Exception):
    """A refusal in the shape of Meta's "Handling Errors" page."""

    def __init__(self, message: str, code: int, subcode: int | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.subcode = message, code, subcode


def meta_error(message: str, code: int, subcode: int | None = None) -> ResponseReturnValue:
    """400 with Meta's error object."""
    error = {"message": message, "type": "OAuthException", "code": code}
    return {"error": error if subcode is None else {**error, "error_subcode": subcode}}, 400


@meta.errorhandler(MetaError)
def refuse(error: MetaError) -> ResponseReturnValue:
    """Translate at the last line."""
    return meta_error(error.message, error.code, error.subcode)


def require_grant_type(expected: str) -> None:
    """Refuse any other grant type without a look at the token: code 100, not 190."""
    sent = request.values.get("grant_type", "")
    if sent != expected:
        raise MetaError(f"Invalid grant_type: {sent}", 100)


def long_lived_token(value: str | None, grant_type: str, client: Client | None = None) -> ResponseReturnValue:
    """Trade a live token for a new one. The old one lives on until its own expiry.

    Meta also wants Instagram and Threads tokens to be 24 hours old; we do not make tests wait.
    """
    token = ledger.tokens.get(value or "")
    owner = ledger.clients.get(token.client_id) if token else None
    if token is None or owner is None or token.kind != "access" or (client and owner is not client):
        raise MetaError("Error validating access token: The access token could not be decrypted.", 190, 463)
    if not token.live:
        raise MetaError("Error validating access token: Session has expired or was ended.", 190, 463)
    if owner.disabled:
        raise MetaError("Error validating application. Application has been deleted.", 101)
    if not owner.check_grant_type(grant_type):
        raise MetaError(f"Invalid grant_type for this application: {grant_type}", 100)
    new = ledger.issue(owner, token.grant, "access", owner.access_lifetime)
    return {"access_token": new, "token_type": "bearer", "expires_in": owner.access_lifetime}


@meta.route("/meta/oauth/access_token", methods=["GET", "POST"])
def facebook_exchange() -> ResponseReturnValue:
    """Facebook Login, "Get Long-Lived Tokens": fb_exchange_token."""
    require_grant_type("fb_exchange_token")
    client = ledger.enabled_client(request.values.get("client_id", ""))
    if client is None:
        raise MetaError("Error validating application. Cannot get application info.", 101)
    if not client.check_client_secret(request.values.get("client_secret", "")):
        raise MetaError("Error validating client secret.", 1)
    return long_lived_token(request.values.get("fb_exchange_token"), "fb_exchange_token", client)


@meta.route("/instagram/refresh_access_token", methods=["GET", "POST"])
def instagram_refresh() -> ResponseReturnValue:
    """Instagram Platform, "Refresh a long-lived token": GET only, no client authentication."""
    return refresh_by_get("ig_refresh_token")


@meta.route("/threads/refresh_access_token", methods=["GET", "POST"])
def threads_refresh() -> ResponseReturnValue:
    """Threads API, "Long-Lived Tokens": as Instagram, with a name of its own."""
    return refresh_by_get("th_refresh_token")


def refresh_by_get(grant_type: str) -> ResponseReturnValue:
    """Refuse POST as the Graph API does: with 400, not 405."""
    if request.method == "POST":
        raise MetaError("Unsupported post request.", 100)
    require_grant_type(grant_type)
    return long_lived_token(request.values.get("access_token"), grant_type)


# --- Vendors' own: a login with an envelope, and GitHub Apps --------------------------------------------

vendors = Blueprint("vendors", __name__)


@vendors.post(LOGIN)
def login() -> ResponseReturnValue:
    """A login as many vendors have one: name and password in JSON, the token somewhere in an envelope."""
    username, password = request.values.get("username"), request.values.get("password")
    client = ledger.client_of_user(username)
    if client is None or client.disabled or not username or client.users[username] != password:
        problem = {"code": "BAD_LOGIN", "message": "Invalid username or password."}
        return {"success": False, "errors": [problem]}, 401
    value = ledger.issue(client, Grant(client.client_id, username), "access", client.access_lifetime)
    lifetime = client.access_lifetime
    return {"success": True, "data": {"session": {"token": value, "ttl_ms": lifetime and lifetime * 1000}}}


@vendors.post(f"{INSTALLATIONS}<installation_id>/access_tokens")
def installation_token(installation_id: str) -> ResponseReturnValue:
    """GitHub, "Generating an installation access token": the app's JWT buys one; HTTP 201."""
    client = ledger.enabled_client(assertion_issuer(presented_token()) or "")
    if client is None or not client.jwks:
        return {"message": "Integration not found"}, 404
    try:
        claims = jwt.decode(
            presented_token() or "", public_keys(client, InvalidClientError), algorithms=["RS256"]
        ).claims
    except (JoseError, ValueError):
        return {"message": "A JSON web token could not be decoded"}, 401
    now = time.time()
    if claims.get("iat", now + 1) > now or not now < claims.get("exp", 0) <= now + 600:
        return {"message": "'Expiration time' claim ('exp') is too far in the future"}, 401
    if installation_id != client.account_id:
        return {"message": "Not Found", "status": "404"}, 404
    value = ledger.issue(client, Grant(client.client_id, client.client_id), "access", client.access_lifetime)
    ends = ledger.clock.now() + (client.access_lifetime or 3600)
    return {"token": value, "expires_at": iso(ends), "permissions": {"metadata": "read"}}, 201


# --- The resource ---------------------------------------------------------------------------------------

api = Blueprint("api", __name__)


class TokenRefused(Exception):
    """Why a resource request got a 401; no reason means it brought no token (RFC 6750 §3.1)."""


@api.errorhandler(TokenRefused)
def unauthorized(refused: TokenRefused) -> ResponseReturnValue:
    """RFC 6750 §3: the challenge, and the same in JSON."""
    reason = str(refused)
    if not reason:
        return {"error": "unauthorized"}, 401, {"WWW-Authenticate": "Bearer"}
    challenge = f'Bearer error="invalid_token", error_description="{reason}"'
    return {"error": "invalid_token", "error_description": reason}, 401, {"WWW-Authenticate": challenge}


def live_access_token() -> Token:
    """The token of this request.

    Raises:
        TokenRefused: It is missing, unknown, expired or revoked.
    """
    value = presented_token()
    token = ledger.tokens.get(value or "")
    if not value:
        raise TokenRefused
    if token is None or token.kind != "access":
        raise TokenRefused("The access token is unknown")
    if not token.live:
        raise TokenRefused(f"The access token {'was revoked' if token.revoked else 'expired'}")
    return token


@api.route("/api/me", methods=["GET", "POST"])
def me() -> ResponseReturnValue:
    """The probe: who does this token speak for?"""
    user = live_access_token().grant.user
    return {"id": user, "name": user.title()}


@api.get("/api/rows")
def rows() -> ResponseReturnValue:
    """The data a source sends: as many rows as the admin wants, also none."""
    client = ledger.clients[live_access_token().client_id]
    return {"rows": [{"id": number, "name": f"row {number}"} for number in range(1, client.rows + 1)]}


# --- Admin: for tests only ------------------------------------------------------------------------------

admin = Blueprint("admin", __name__, url_prefix="/admin")
Form = TypeVar("Form", Client, Fault)


@admin.errorhandler(LookupError)
@admin.errorhandler(TypeError)
@admin.errorhandler(ValueError)
def bad_admin_request(error: Exception) -> ResponseReturnValue:
    """A mistake in a test should explain itself."""
    return {"error": f"{type(error).__name__}: {error}"}, 404 if isinstance(error, LookupError) else 400


def build(form: type[Form], values: Json) -> Form:
    """A client or fault from JSON."""
    check_names(form, values)
    return form(**values)


def check_names(form: type[Client | Fault], values: Json) -> None:
    """Refuse a misspelt name: silently ignored, it would make a test prove nothing."""
    unknown = values.keys() - {f.name for f in fields(form)}
    if unknown:
        raise ValueError(f"{form.__name__} has no {sorted(unknown)}")


def body() -> Json:
    """The JSON object sent to us."""
    return cast("Json", request.get_json(silent=True) or {})


def known_client(client_id: str | None) -> Client:
    """A client that must exist."""
    if client_id not in ledger.clients:
        raise LookupError(f"No client {client_id!r}; clients: {sorted(ledger.clients)}")
    return ledger.clients[client_id]


@admin.post("/clients")
def add_client() -> ResponseReturnValue:
    """Create a client, or begin it anew."""
    ledger.add_client(build(Client, body()))
    return {}, 201


@admin.patch("/clients/<client_id>")
def change_client(client_id: str) -> ResponseReturnValue:
    """Change how a client behaves; its tokens stay."""
    check_names(Client, body())
    ledger.clients[client_id] = replace(known_client(client_id), **{**body(), "client_id": client_id})
    return {}


@admin.post("/mint")
def mint() -> ResponseReturnValue:
    """What a person's consent would give. `access_lifetime` counts for this access token only."""
    wishes = body()
    client = known_client(wishes.get("client_id"))
    client.secret_prefix = wishes.get("secret_prefix") or client.secret_prefix
    lifetime = wishes.get("access_lifetime", client.access_lifetime)
    grant = Grant(client.client_id, wishes.get("user") or client.client_id)
    tokens: Json = {"refresh_token": None, "expires_in": lifetime}
    tokens["access_token"] = ledger.issue(client, grant, "access", lifetime)
    if wishes.get("with_refresh", client.check_grant_type("refresh_token")):
        tokens["refresh_token"] = ledger.issue(client, grant, "refresh", client.refresh_lifetime)
    return tokens


@admin.post("/revoke")
def revoke_all() -> ResponseReturnValue:
    """What a person does in the provider's settings. Clients without a user's grant: see `disabled`."""
    wishes = body()
    access, grant = wishes.get("access", True), wishes.get("grant", True)
    ledger.revoke(known_client(wishes.get("client_id")), wishes.get("user"), access=access, grant=grant)
    return {}


@admin.post("/rows")
def set_rows() -> ResponseReturnValue:
    """How many rows the source sends from now on."""
    known_client(body().get("client_id")).rows = int(body().get("count", 0))
    return {}


@admin.post("/faults")
def add_fault() -> ResponseReturnValue:
    """Stage a fault behind the ones already there; the first that matches a request is used."""
    ledger.faults.append(build(Fault, body()))
    return {}, 201


@admin.delete("/faults")
def clear_faults() -> ResponseReturnValue:
    """Everything works again."""
    ledger.faults.clear()
    return {}


@admin.post("/clock")
def advance_clock() -> ResponseReturnValue:
    """Let time pass."""
    passed = float(body().get("advance_seconds", 0))
    ledger.clock.offset += passed
    ledger.clock.signers_offset += passed if body().get("signers_too") else 0
    return {"now": iso(ledger.clock.now())}


@admin.get("/truth")
def truth() -> ResponseReturnValue:
    """What is really alive, for a client or one of its users."""
    client, user = known_client(request.args.get("client_id")), request.args.get("user")
    newest = ledger.newest(client.client_id, "access", user)
    return {
        "access_token_live": newest is not None and newest.live,
        "grant_live": ledger.grant_live(client, user),
        "newest_access_expires_in": newest.expires_in if newest else None,
    }


@admin.get("/requests")
def list_requests() -> ResponseReturnValue:
    """The request log, oldest first."""
    client_id = request.args.get("client_id")
    return jsonify([entry for entry in ledger.requests if client_id in (None, entry["client_id"])])


@admin.delete("/requests")
def clear_requests() -> ResponseReturnValue:
    """Begin a new log."""
    ledger.requests.clear()
    return {}


# --- Listening ------------------------------------------------------------------------------------------


class QuietHandler(WSGIRequestHandler):
    """Standard error is for what went wrong, not for every request."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: Werkzeug would print the query string, tokens included."""


def create_app() -> Flask:
    """All parts together."""
    app = OneAtATime("tests.authorization_server")
    app.before_request(before)
    app.after_request(after)
    for blueprint in (oauth, approvals, meta, vendors, api, admin):
        app.register_blueprint(blueprint)
    return app


def listen(port: int) -> BaseWSGIServer:
    """A server bound to loopback, not yet serving. Port 0 takes any free one."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    return make_server("127.0.0.1", port, create_app(), threaded=True, request_handler=QuietHandler)
