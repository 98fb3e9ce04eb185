"""Model providers and what may befall them: who is alive is known at every instant, whatever anybody believes of it.

A provider reads the package's own requests as a server would (form, client authentication, token) and answers in a style
taken from the catalog or the protocol. Faults and mistakes lie in front of it, or in the connection. Instants are seconds
since the year began.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

from airflow.sdk import Connection

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, NoAnswer
from airflow_oauth_guard.domain.evidence import Shape
from airflow_oauth_guard.domain.investigation import Owner
from airflow_oauth_guard.grants.flow import HttpRequest
from airflow_oauth_guard.grants.probe import probe_request
from airflow_oauth_guard.hooks.base import OAuthGuardHook
from airflow_oauth_guard.hooks.registry import hook_for

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
MINUTE, HOUR, DAY = 60, 3600, 86400
WRONG_CLOCK = 5 * MINUTE
"""From here on assertions are refused, and the package believes no death."""


def instant(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


# -- how they put it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phrase:
    """One answer of a provider."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


Says = Mapping[str, Phrase]
"""Phrases by cause; one that is not there is said as its general case below."""

GENERAL = {
    **dict.fromkeys(("revoked", "unused", "password changed", "uninstalled", "lapsed", "client revoked"), "dead"),
    "lost answer": "dead",
    "unknown token": "dead",
    "secret rotated": "client",
    "app disabled": "client",
    "wrong client_auth": "client",
    "wrong class": "grant_type",
    "clock skew": "grant_type",
    "scope removed": "scope",
    "account locked": "account",
    "mfa demanded": "account",
}


def say(status: int, document: Any, **headers: str) -> Phrase:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Phrase(status, json.dumps(document), {"content-type": "application/json", **named})


def rfc(status: int, error: str, description: str = "", **more: str) -> Phrase:
    return say(status, {"error": error, **({"error_description": description} if description else {}), **more})


def probe_401(error: str = "", **headers: str) -> Phrase:
    challenge = f'Bearer error="{error}"' if error else "Bearer"
    return Phrase(401, "", {"www-authenticate": challenge, **headers})


BARE: Says = {
    "dead": rfc(400, "invalid_grant"),
    "client": rfc(401, "invalid_client"),
    "app disabled": rfc(400, "unauthorized_client"),
    "grant_type": rfc(400, "unsupported_grant_type"),
    "clock skew": rfc(400, "invalid_grant", "The assertion is not yet valid or has expired; check the clock"),
    "scope": rfc(400, "invalid_scope"),
    "mfa demanded": rfc(400, "interaction_required", "Multi-factor authentication is required"),
    "account": rfc(400, "access_denied", "The account is locked"),
    "rate limit": Phrase(429, "", {"retry-after": "300"}),
    "token rejected": probe_401("invalid_token"),
    "bare 401": probe_401(),
}
"""RFC 6749 section 5.2 without descriptions."""

GOOGLE: Says = {
    **BARE,
    "dead": rfc(400, "invalid_grant", "Token has been expired or revoked."),
    "unknown token": rfc(400, "invalid_grant", "Bad Request"),
    "client": rfc(401, "invalid_client", "Unauthorized"),
    "app disabled": rfc(401, "disabled_client", "The OAuth client was disabled."),
    "grant_type": rfc(400, "unsupported_grant_type", "Invalid grant_type"),
    "clock skew": rfc(
        400, "invalid_grant", "Invalid JWT: Token must be a short-lived token and in a reasonable timeframe"
    ),
    "scope": rfc(400, "invalid_scope", "Some requested scopes were invalid."),
    "mfa demanded": rfc(400, "invalid_grant", "reauth related error (invalid_rapt)", error_subtype="invalid_rapt"),
    "account": rfc(400, "invalid_grant", "Account has been disabled"),
    "token rejected": rfc(400, "invalid_token", "Invalid Value"),
}


def aadsts(status: int, error: str, code: int, words: str) -> Phrase:
    return rfc(status, error, f"AADSTS{code}: {words}\r\nTrace ID: 1f-2e\r\nTimestamp: 2026-01-01 00:00:00Z")


MICROSOFT: Says = {
    **BARE,
    "dead": aadsts(400, "invalid_grant", 70008, "The provided authorization code or refresh token has expired."),
    "unused": aadsts(400, "invalid_grant", 700082, "The refresh token has expired due to inactivity."),
    "password changed": aadsts(400, "invalid_grant", 50173, "The provided grant has expired due to it being revoked."),
    "unknown token": aadsts(400, "invalid_grant", 9002313, "Invalid request. Request is malformed or invalid."),
    "client": aadsts(401, "invalid_client", 7000215, "Invalid client secret is provided."),
    "app disabled": aadsts(400, "unauthorized_client", 7000112, "Application is disabled."),
    "grant_type": aadsts(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type."),
    "scope": aadsts(400, "invalid_scope", 70011, "The provided value for the input parameter 'scope' is not valid."),
    "mfa demanded": aadsts(400, "invalid_grant", 50076, "You must use multi-factor authentication to access."),
    "account": aadsts(400, "invalid_grant", 50053, "The account is locked."),
    "token rejected": say(401, {"error": {"code": "InvalidAuthenticationToken", "message": "Token is expired."}}),
}

SALESFORCE: Says = {
    **BARE,
    "dead": rfc(400, "invalid_grant", "expired access/refresh token"),
    "client": rfc(400, "invalid_client_id", "client identifier invalid"),
    "secret rotated": rfc(400, "invalid_client", "invalid client credentials"),
    "app disabled": rfc(400, "invalid_client_id", "client identifier invalid"),
    "grant_type": rfc(400, "unsupported_grant_type", "grant type not supported"),
    "clock skew": rfc(400, "invalid_grant", "expired assertion"),
    "mfa demanded": rfc(400, "invalid_grant", "user hasn't approved this consumer"),
    "account": rfc(400, "invalid_grant", "inactive user"),
    "token rejected": say(401, [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]),
}


def graph(status: int, code: int, message: str, subcode: int = 0) -> Phrase:
    error: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code}
    if subcode:
        error["error_subcode"] = subcode
    return say(status, {"error": {**error, "fbtrace_id": "AbCdEf123"}})


META: Says = {
    "dead": graph(400, 190, "Error validating access token: The session is invalid.", 467),
    "revoked": graph(400, 190, "Error validating access token: The user has not authorized application 98765.", 458),
    "uninstalled": graph(
        400, 190, "Error validating access token: The user has not authorized application 98765.", 458
    ),
    "password changed": graph(
        400, 190, "The session has been invalidated because the user changed their password", 460
    ),
    "lapsed": graph(400, 190, "Error validating access token: Session has expired on Wednesday.", 463),
    "unused": graph(400, 190, "Error validating access token: Session has expired on Wednesday.", 463),
    "unknown token": graph(400, 190, "Invalid OAuth access token - Cannot parse access token"),
    "client": graph(400, 1, "Error validating client secret."),
    "app disabled": graph(400, 101, "Error validating application. Application has been deleted."),
    "grant_type": graph(400, 100, "Unsupported grant_type"),
    "scope": graph(400, 10, "Application does not have permission for this action"),
    "mfa demanded": graph(400, 190, "The user must pass a two-factor check", 459),
    "account": graph(400, 190, "You cannot access the app till you log in at www.facebook.com (checkpoint)", 459),
    "rate limit": graph(400, 4, "Application request limit reached"),
    "token rejected": graph(401, 190, "Error validating access token: The session is invalid.", 467),
    "bare 401": probe_401(),
}


def not_ok(error: str) -> Phrase:
    return say(200, {"ok": False, "error": error})


SLACK: Says = {
    "dead": not_ok("invalid_refresh_token"),
    "client": not_ok("bad_client_secret"),
    "app disabled": not_ok("invalid_client_id"),
    "grant_type": not_ok("invalid_grant_type"),
    "scope": not_ok("invalid_scope"),
    "account": not_ok("accesslimited"),
    "mfa demanded": not_ok("cannot_install_an_org_installed_app"),
    "rate limit": say(429, {"ok": False, "error": "ratelimited"}, retry_after="60"),
    "token rejected": not_ok("token_revoked"),
    "bare 401": probe_401(),
}


def hubspot(status: int, code: str, message: str) -> Phrase:
    return say(status, {"status": code, "message": message, "correlationId": "00000000-0000-4000-8000-000000000001"})


HUBSPOT: Says = {
    **BARE,
    "dead": hubspot(400, "BAD_REFRESH_TOKEN", "missing or invalid refresh token"),
    "client": hubspot(400, "BAD_CLIENT_SECRET", "missing or invalid client secret"),
    "app disabled": hubspot(400, "BAD_CLIENT_ID", "missing or unknown client id"),
    "grant_type": hubspot(400, "BAD_GRANT_TYPE", "missing or unknown grant type"),
    "token rejected": say(
        401, {"status": "error", "message": "The token expired", "category": "EXPIRED_AUTHENTICATION"}
    ),
}


def tiktok(code: int, message: str) -> Phrase:
    return say(200, {"code": code, "message": message, "request_id": "202601010000", "data": {}})


TIKTOK: Says = {
    **BARE,
    "dead": tiktok(40103, "Refresh token is expired"),
    "unknown token": tiktok(40107, "Refresh token is invalid"),
    "client": tiktok(40101, "The client secret is incorrect"),
    "grant_type": tiktok(40002, "grant_type: unsupported parameter value"),
    "scope": tiktok(40001, "No permission for this scope"),
    "account": tiktok(40112, "The user has to log in"),
    "mfa demanded": tiktok(40106, "The user has to log in"),
    "rate limit": tiktok(40100, "Too many requests"),
    "token rejected": tiktok(40105, "Access token is incorrect or has been revoked"),
}

KEYCLOAK: Says = {
    **BARE,
    "dead": rfc(400, "invalid_grant", "Token is not active"),
    "revoked": rfc(400, "invalid_grant", "Session not active"),
    "unknown token": rfc(400, "invalid_grant", "Invalid refresh token"),
    "client": rfc(401, "unauthorized_client", "Invalid client or Invalid client credentials"),
    "app disabled": rfc(401, "invalid_client", "Invalid client or Invalid client credentials"),
    "grant_type": rfc(400, "unsupported_grant_type", "Unsupported grant_type"),
    "account": rfc(400, "invalid_grant", "Account disabled"),
    "mfa demanded": rfc(400, "invalid_grant", "Account is not fully set up"),
    "login": rfc(401, "invalid_grant", "Invalid user credentials"),
}

ZOOM: Says = {
    **BARE,
    "dead": say(400, {"reason": "Invalid Token!", "error": "invalid_grant"}),
    "client": say(400, {"reason": "Invalid client_id or client_secret", "error": "invalid_client"}),
    "grant_type": say(400, {"reason": "unsupported grant type", "error": "unsupported_grant_type"}),
    "token rejected": say(401, {"code": 124, "message": "Invalid access token."}),
}

GITHUB: Says = {
    "dead": say(401, {"message": "Bad credentials"}),
    "client": say(401, {"message": "A JSON web token could not be decoded"}),
    "app disabled": say(404, {"message": "Integration not found"}),
    "grant_type": say(404, {"message": "Not Found"}),
    "clock skew": say(401, {"message": "'Issued at' claim ('iat') must be an Integer representing the assertion time"}),
    "scope": say(422, {"message": "The permissions requested are not granted to this installation."}),
    "account": say(403, {"message": "This installation has been suspended"}),
    "mfa demanded": say(403, {"message": "This installation has been suspended"}),
    "rate limit": say(403, {"message": "API rate limit exceeded for installation ID 1."}),
    "token rejected": say(401, {"message": "Bad credentials"}),
    "bare 401": probe_401(),
}

INTERCOM: Says = {
    **BARE,
    "dead": say(401, {"type": "error.list", "errors": [{"code": "token_revoked", "message": "Token was revoked"}]}),
    "unknown token": say(
        401, {"type": "error.list", "errors": [{"code": "unauthorized", "message": "Access Token Invalid"}]}
    ),
    "app disabled": say(
        401, {"type": "error.list", "errors": [{"code": "token_blocked", "message": "The app is blocked"}]}
    ),
    "account": say(
        403, {"type": "error.list", "errors": [{"code": "api_plan_restricted", "message": "Not on this plan"}]}
    ),
    "token rejected": say(
        401, {"type": "error.list", "errors": [{"code": "token_revoked", "message": "Token was revoked"}]}
    ),
}

SILENT: Says = {
    **dict.fromkeys(("dead", "client", "grant_type", "scope", "account"), Phrase(400, "")),
    "rate limit": Phrase(429, ""),
    "token rejected": Phrase(401, ""),
    "bare 401": Phrase(401, ""),
}
"""Whatever is wrong: 400 and nothing else."""

TRADE_DESK: Says = {**BARE, "dead": Phrase(401, ""), "login": Phrase(401, ""), "token rejected": Phrase(401, "")}


# -- who they are ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """One kind of provider and connection."""

    name: str
    connection_class: str
    says: Says
    fields: Mapping[str, Any] = field(default_factory=dict)
    lifetime: int = HOUR
    """Of an access token."""
    tells_lifetime: bool = True
    rotates: bool = False
    grace: int = 0
    reuse_ends_all: bool = False
    weight: int = 4
    """How many of a hundred credentials."""
    other_auth: str = ""
    """The client authentication that somebody may choose by mistake."""

    @property
    def has_grant(self) -> bool:
        return self.connection_class in (
            "refresh_token",
            "meta_exchange",
            "instagram_refresh",
            "long_lived_token",
        )

    @property
    def signs(self) -> bool:
        return self.connection_class in ("jwt_bearer", "github_app")


SECRET = "a-client-secret-of-thirty-two-characters"
PLAIN_TOKEN, PLAIN_PROBE = "https://plain.example/oauth/token", "https://plain.example/me"
SILENT_TOKEN, SILENT_PROBE = "https://silent.example/token", "https://silent.example/v1/me"
SIGNED = {"private_key": SECRET, "algorithm": "HS256"}
POST, BASIC = "client_secret_post", "client_secret_basic"


def _params(**values: str) -> dict[str, str]:
    return {"provider_params": ", ".join(f"{name}={value}" for name, value in values.items())}


MODELS: tuple[Model, ...] = (
    Model("google", "refresh_token", GOOGLE, {"provider": "google"}, weight=14, other_auth=BASIC),
    Model(
        *("microsoft", "refresh_token", MICROSOFT, {"provider": "microsoft", **_params(tenant="contoso.example")}),
        lifetime=75 * MINUTE,
        weight=10,
        other_auth=BASIC,
    ),
    Model(
        *("salesforce", "refresh_token", SALESFORCE, {"provider": "salesforce", **_params(instance="acme.example")}),
        lifetime=2 * HOUR,
        tells_lifetime=False,
        weight=8,
        other_auth=BASIC,
    ),
    Model("facebook", "meta_exchange", META, {"provider": "facebook"}, lifetime=60 * DAY, weight=8),
    Model("instagram", "instagram_refresh", META, {"provider": "instagram"}, lifetime=60 * DAY, weight=5),
    Model(
        *("slack", "refresh_token", SLACK, {"provider": "slack"}),
        lifetime=12 * HOUR,
        rotates=True,
        weight=6,
        other_auth=POST,
    ),
    Model(
        *("xero", "refresh_token", BARE, {"provider": "xero"}),
        lifetime=30 * MINUTE,
        rotates=True,
        grace=30 * MINUTE,
        weight=6,
        other_auth=POST,
    ),
    Model("hubspot", "refresh_token", HUBSPOT, {"provider": "hubspot"}, 30 * MINUTE, weight=7, other_auth=BASIC),
    Model(
        *("tiktok", "refresh_token", TIKTOK, {"provider": "tiktok_ads", **_params(business_id="b1")}),
        lifetime=DAY,
        weight=3,
    ),
    Model(
        *("keycloak", "refresh_token", KEYCLOAK, {"provider": "keycloak", **_params(host="sso.example", realm="main")}),
        lifetime=5 * MINUTE * 3,
        rotates=True,
        reuse_ends_all=True,
        weight=3,
        other_auth=POST,
    ),
    Model(
        "plain",
        "refresh_token",
        BARE,
        {"token_url": PLAIN_TOKEN, "probe_url": PLAIN_PROBE, "client_auth": BASIC, "rotation": True},
        lifetime=8 * HOUR,
        rotates=True,
        reuse_ends_all=True,
        weight=6,
        other_auth=POST,
    ),
    Model(
        "silent",
        "refresh_token",
        SILENT,
        {"token_url": SILENT_TOKEN, "probe_url": SILENT_PROBE, "client_auth": POST, "rotation": False},
        lifetime=2 * HOUR,
        weight=2,
        other_auth=BASIC,
    ),
    Model("intercom", "long_lived_token", INTERCOM, {"provider": "intercom"}, lifetime=6 * HOUR, weight=4),
    Model("google service account", "jwt_bearer", GOOGLE, {"provider": "google", **SIGNED}, weight=4),
    Model(
        "github app", "github_app", GITHUB, {"provider": "github", **_params(installation_id="7"), **SIGNED}, weight=3
    ),
    Model(
        *("zoom", "account_credentials", ZOOM, {"provider": "zoom", "account_id": "z1"}),
        weight=3,
        other_auth=POST,
    ),
    Model(
        *("keycloak service", "client_credentials", KEYCLOAK),
        {"provider": "keycloak", **_params(host="sso.example", realm="main")},
        weight=2,
        other_auth=POST,
    ),
    Model(
        *("keycloak user", "password", KEYCLOAK),
        {
            "provider": "keycloak",
            **_params(host="sso.example", realm="main"),
            "username": "etl",
            "user_password": "pw-of-etl",
        },
        weight=2,
        other_auth=POST,
    ),
    Model(
        *("databricks", "token_exchange", BARE, {"provider": "databricks", **_params(host="dbc.example")}),
        weight=1,
    ),
    Model(
        *("salesforce saml", "saml2_bearer", SALESFORCE),
        {"provider": "salesforce", **_params(instance="acme.example"), "assertion": "PHNhbWw+PC9zYW1sPg"},
        lifetime=2 * HOUR,
        tells_lifetime=False,
        weight=1,
    ),
    Model(
        *("trade desk", "two_step", TRADE_DESK),
        {"provider": "the_trade_desk", **_params(partner_id="p1"), "username": "etl", "user_password": "pw-of-etl"},
        lifetime=DAY,
        weight=2,
    ),
)


@dataclass
class Client:
    """One app at one provider."""

    name: str
    model: Model
    members: list[Truth] = field(default_factory=list)
    troubles: list[Fault] = field(default_factory=list)


@dataclass
class Death:
    """The end of one grant."""

    cause: str
    begins: int
    alone: bool = True
    """False where the provider ended all of the client's grants at once."""
    right: frozenset[Owner] = frozenset({Owner.ACCOUNT})
    documented: bool = True
    """False where the provider says it in a way that no document knows."""
    by_a_wrong_clock: bool = False
    """Whether our clock was wrong when it showed first."""
    symptom_at: int | None = None
    named_at: int | None = None
    """When it was concluded that the grant is dead."""
    owner_named_at: int | None = None
    ends: int | None = None
    delay: int = 0
    shared: bool = False
    hit: dict[str, str] = field(default_factory=dict)
    """By credential: what was last concluded about it."""
    marked: dict[str, set[str]] = field(default_factory=dict)
    """By system: the credentials it declared dead on this."""

    whose: str = ""
    model: str = ""

    @property
    def kind(self) -> str:
        return f"death: {self.cause}"

    @property
    def is_provable(self) -> bool:
        """Whether the provider says it in a way that the protocol or the catalog knows, of this grant alone."""
        return self.alone and self.is_documented and not self.by_a_wrong_clock

    @property
    def is_documented(self) -> bool:
        return self.documented and self.model != "silent"


@dataclass
class Fault:
    """Something that is wrong for a while, and is no death."""

    kind: str
    right: frozenset[Owner]
    begins: int
    ends: int | None
    """None until the owner has acted."""
    delay: int
    """From the first symptom until the owner has acted."""
    shared: bool = False
    """Whether it is a matter of several credentials."""
    seed: int = 0
    symptom_at: int | None = None
    owner_named_at: int | None = None
    hit: dict[str, str] = field(default_factory=dict)
    marked: dict[str, set[str]] = field(default_factory=dict)


Cause = Fault | Death


@dataclass
class Truth:
    """One credential as its provider knows it, and its connection as people have written it."""

    name: str
    model: Model
    client: Client
    policy: str
    hook: OAuthGuardHook = field(init=False)
    """As the connection says now."""
    shape: Shape = field(init=False)
    """What the provider wants."""
    probe_endpoint: str = ""
    family: int = 0
    newest: int = 0
    """Counts the refreshes of this family."""
    spent_at: int = 0
    """When the token before the newest was replaced."""
    access_ends: int = 0
    """Of the newest access token."""
    access_ended: int = 0
    """Of the one before."""
    death: Death | None = None
    lost: Fault | None = None
    """The answer that held the newest token and did not reach us."""
    troubles: list[Fault] = field(default_factory=list)
    """Of this credential alone."""
    aside: list[Fault] = field(default_factory=list)
    """The same, where a refresh that succeeds does not meet it."""
    blamed: Cause | None = None
    """What the latest answer to a refresh that brought no token came from."""
    answered: Answer | None = None
    """The latest answer to a refresh."""

    def __post_init__(self) -> None:
        self.connect()
        asked = self.hook.grant.request("-", START)
        self.shape = asked.shape
        self.probe_endpoint = probe_request(self.hook.settings, "-").shape.endpoint

    def connect(self, **changed: Any) -> None:
        """Write the connection: as it ought to be, but for what is changed."""
        connection_class = changed.pop("connection_class", self.model.connection_class)
        fields = self._fields_by_hand() if connection_class != self.model.connection_class else self._fields()
        connection = Connection(
            conn_id=self.name,
            conn_type=f"oauth_guard_{connection_class}",
            extra=json.dumps({**fields, **changed}),
        )
        self.hook = hook_for(connection)

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = dict(self.model.fields)
        known = self.known_fields()
        if "client_id" in known and not self.model.signs and self.model.name != "trade desk":
            fields |= {"client_id": self.client.name}
            fields |= {"client_secret": SECRET} if self.model.connection_class != "token_exchange" else {}
        if self.model.connection_class == "jwt_bearer":
            fields["issuer"] = self.client.name
        if self.model.connection_class == "github_app":
            fields["client_id"] = self.client.name
        if self.model.connection_class == "token_exchange":
            fields |= {"subject_token": "a.workload.identity"}
        if self.model.connection_class == "two_step":
            fields["username"] = self.client.name
        if "expire_policy" in known:
            fields["expire_policy"] = self.policy
        return fields

    def known_fields(self) -> frozenset[str]:
        from airflow_oauth_guard.grants.classes import GRANT_CLASSES

        return GRANT_CLASSES[self.model.connection_class].fields

    def _fields_by_hand(self) -> dict[str, Any]:
        """What somebody types who takes the connection for one of another class."""
        return {"token_url": self.shape.endpoint, "client_id": self.client.name, "client_secret": SECRET}

    # -- tokens -------------------------------------------------------------------------------------------------

    def refresh_token(self, family: int, number: int) -> str:
        return f"rt.{self.name}.{family}.{number}"

    def access_token(self, family: int, number: int) -> str:
        return f"at.{self.name}.{family}.{number}"

    def issue(self, now: int) -> None:
        self.newest += 1
        self.spent_at = now
        self.access_ended = self.access_ends
        self.access_ends = now + self.model.lifetime

    def reconnect(self, now: int) -> None:
        """Somebody has consented anew."""
        self.family += 1
        self.newest = 0
        self.death = self.lost = None
        self.access_ends = now + self.model.lifetime

    def accepts(self, family: int, number: int, now: int) -> bool:
        """Whether a refresh token would be taken, were nothing else wrong."""
        if self.death is not None or family != self.family:
            return False
        if not self.model.rotates or number == self.newest:
            return True
        return number == self.newest - 1 and now - self.spent_at < self.model.grace

    def access_is_alive(self, family: int, number: int, now: int) -> bool:
        if self.death is not None or family != self.family:
            return False
        if self.model.connection_class == "long_lived_token":
            return True
        return number >= self.newest - 1 and now < (self.access_ends if number == self.newest else self.access_ended)


# -- what they answer -----------------------------------------------------------------------------------------------

HTML = "<!DOCTYPE html><html><head><title>Maintenance</title></head><body>We will be back soon.</body></html>"
PORTAL = "<!DOCTYPE html><html><body>Welcome! Accept the terms to use this network.</body></html>"
_REFRESH = re.compile(r"rt\.(c\d+)\.(\d+)\.(\d+)")
_ACCESS = re.compile(r"at\.(c\d+)\.(\d+)\.(\d+)")


@dataclass
class World:
    """The providers, the network before them, and what is wrong with either."""

    rng: random.Random
    now: int = 0
    skew: int = 0
    """How far our machine's clock is ahead, in seconds."""
    by_model: dict[str, list[Fault]] = field(default_factory=dict)
    aside: dict[str, list[Fault]] = field(default_factory=dict)
    """By model, what a refresh that succeeds does not meet."""
    everywhere: list[Fault] = field(default_factory=list)
    on_symptom: Callable[[Cause, Truth], None] = lambda cause, truth: None
    on_lapse: Callable[[Truth], None] = lambda truth: None

    def troubles(self, truth: Truth) -> list[Fault]:
        """What stands between this credential and its provider, the farthest-reaching first."""
        name = truth.model.name
        of_model = (*self.by_model.get(name, ()), *self.aside.get(name, ()))
        return [*self.everywhere, *of_model, *truth.client.troubles, *truth.troubles, *truth.aside]

    def delay(self) -> int:
        """How long an owner takes who has been told: hours, sometimes days."""
        return int(min(max(self.rng.lognormvariate(2.3, 0.8), 1), 96) * HOUR)

    def is_quiet(self, truth: Truth) -> bool:
        """Whether any request would simply be answered."""
        return truth.death is None and not (
            self.everywhere or truth.troubles or truth.client.troubles or self.by_model.get(truth.model.name)
        )

    def exchange(self, truth: Truth, request: HttpRequest) -> Answer:
        """What comes back for one request."""
        introspection = truth.hook.settings.facts.introspection_url
        if introspection and request.url == introspection:
            return self._introspected(truth, request)
        if request.shape.endpoint == truth.probe_endpoint or "probe" in request.shape.endpoint:
            return self._resource(truth, request)
        answer, cause = self._token_endpoint(truth, request)
        if made_up(request, truth) is None:
            truth.answered = answer
            self._blame(truth, cause)
        return answer

    def _blame(self, truth: Truth, cause: Cause | None) -> None:
        if isinstance(cause, Death) and cause.symptom_at is None:
            cause.by_a_wrong_clock = abs(self.skew) > WRONG_CLOCK
        if cause is not None:
            truth.blamed = cause
            self.on_symptom(cause, truth)

    # -- the token endpoint -------------------------------------------------------------------------------------

    def _token_endpoint(self, truth: Truth, request: HttpRequest) -> tuple[Answer, Cause | None]:
        for fault in self.troubles(truth):
            if (spoilt := self._spoilt(fault, truth, request)) is not None:
                return spoilt, truth.lost or fault
        return self._judged(truth, request)

    def _spoilt(self, fault: Fault, truth: Truth, request: HttpRequest) -> Answer | None:
        """What a fault of provider or network makes of any request; None where the request arrives."""
        if fault.kind == "outage: 5xx":
            return self.http(Phrase(self.rng.choice((500, 502, 503)), "upstream error"))
        if fault.kind == "outage: timeouts":
            if self.rng.random() < 0.15:
                self._lose(truth, request)
            return NoAnswer("nothing complete within 30 s", maybe_processed=True, received_at=self.ours())
        if fault.kind == "maintenance page":
            return self.http(Phrase(503 if fault.seed % 2 else 200, HTML, {"content-type": "text/html"}))
        if fault.kind == "captive portal":
            portal = Phrase(200, PORTAL, {"content-type": "text/html"})
            return self.http(portal if fault.seed % 2 else Phrase(302, "", {"location": "https://portal.example/"}))
        if fault.kind == "rate limit":
            return self.http(truth.model.says["rate limit"])
        if fault.kind == "invalid_grant to all by mistake" and truth.model.has_grant:
            return self.http(self.phrase(truth.model, "revoked"))
        if fault.kind == "answer lost on its way":
            fault.ends = self.now
            truth.troubles.remove(fault)
            self._lose(truth, request)
            return NoAnswer("the connection was reset", maybe_processed=True, received_at=self.ours())
        return None

    def _lose(self, truth: Truth, request: HttpRequest) -> None:
        """The request is processed and its answer lost; where tokens rotate, what we hold is spent from now on."""
        before = truth.newest
        self._judged(truth, request)
        if truth.model.rotates and truth.newest > before and made_up(request, truth) is None:
            truth.lost = Fault("lost answer", frozenset({Owner.PERSON}), self.now, None, self.delay())

    def _judged(self, truth: Truth, request: HttpRequest) -> tuple[Answer, Cause | None]:
        """What the provider makes of a request that reached it: the client first, its form, then the token, then policy."""
        kinds = {fault.kind: fault for fault in self.troubles(truth)}
        for kind in ("secret rotated", "app disabled"):
            if kind in kinds:
                return self.refused(truth, kind), kinds[kind]
        if request.shape != truth.shape:
            wrong = kinds.get("wrong client_auth") or kinds.get("wrong class")
            return self.refused(truth, "wrong client_auth" if "wrong client_auth" in kinds else "wrong class"), wrong
        if abs(self.skew) > WRONG_CLOCK and truth.model.signs:
            return self.refused(truth, "clock skew"), kinds.get("clock skew")
        if (dead := self._refuses_token(truth, request, kinds)) is not None:
            return dead, truth.death or truth.lost
        for kind in ("login changed", "mfa demanded", "account locked", "scope removed"):
            if kind in kinds and made_up(request, truth) is None:
                return self.refused(truth, kind), kinds[kind]
        truth.issue(self.now)
        truth.lost = None
        return self.http(self._issued(truth)), None

    def _refuses_token(self, truth: Truth, request: HttpRequest, kinds: Mapping[str, Fault]) -> Answer | None:
        if not truth.model.has_grant:
            return None
        found = sent(request)
        if found is None or found[0] != truth.name:
            return self.refused(truth, "unknown token")
        if self._takes(truth, found[1], found[2]):
            return None
        if truth.death is None and truth.lost is None:
            self.on_lapse(truth)
        cause = truth.death.cause if truth.death else "lost answer"
        changed = next((fault for kind, fault in kinds.items() if kind.startswith("error text changed")), None)
        if changed is None:
            return self.refused(truth, cause)
        return self._in_new_words(truth, cause, undocumented=changed.kind.endswith("code"))

    def _in_new_words(self, truth: Truth, cause: str, *, undocumented: bool) -> Answer:
        if truth.death is not None and undocumented and truth.death.symptom_at is None:
            truth.death.documented = False
        usual = self.phrase(truth.model, cause)
        new = rfc(400, "grant_retired", "Your authorization artefact was retired.")
        return self.http(new if undocumented else Phrase(usual.status, f" {usual.body}\n", usual.headers))

    def _takes(self, truth: Truth, family: int, number: int) -> bool:
        if truth.model.connection_class == "refresh_token":
            return truth.accepts(family, number, self.now)
        return truth.access_is_alive(family, number, self.now)

    def _issued(self, truth: Truth) -> Phrase:
        """A success in the form in which the catalog says this provider answers."""
        facts = truth.hook.settings.facts
        where = facts.answer
        document: dict[str, Any] = {}
        # A form that somebody typed in by hand is answered in the standard's form.
        put(document, where.access_token, truth.access_token(truth.family, truth.newest))
        if truth.model.connection_class == "refresh_token" and (truth.model.rotates or truth.model.name == "microsoft"):
            put(document, where.refresh_token, truth.refresh_token(truth.family, truth.newest))
        if truth.model.tells_lifetime:
            ends = instant(self.now + truth.model.lifetime).isoformat()
            put(document, where.expires_in, ends if where.expires_in_unit == "instant" else truth.model.lifetime)
        return say(200, document)

    # -- the other addresses ------------------------------------------------------------------------------------

    def _resource(self, truth: Truth, request: HttpRequest) -> Answer:
        """What a probe is answered; for tokens that are never refreshed this is what stands for a refresh."""
        answer, cause = self._resource_and_why(truth, request)
        is_refresh = truth.model.connection_class == "long_lived_token"
        if is_refresh and _ACCESS.search(text_of(request)):
            truth.answered = answer
            self._blame(truth, cause)
        elif cause is not None and cause.kind in ("probe URL broken", "transient 401s"):
            self.on_symptom(cause, truth)
        return answer

    def _resource_and_why(self, truth: Truth, request: HttpRequest) -> tuple[Answer, Cause | None]:
        is_refresh = truth.model.connection_class == "long_lived_token"
        for fault in self.troubles(truth):
            if fault.kind == "probe URL broken" and not is_refresh:
                return self.http(Phrase(404, "", {})), fault
            if fault.kind == "transient 401s":
                says = "token rejected" if fault.seed % 2 else "bare 401"
                return self.http(truth.model.says[says]), fault
            if fault.kind in NETWORK and (spoilt := self._spoilt(fault, truth, request)) is not None:
                return spoilt, fault
            if is_refresh and fault.kind in ("account locked", "app disabled", "scope removed"):
                return self.refused(truth, fault.kind), fault
        found = _ACCESS.search(text_of(request))
        alive = found and found[1] == truth.name and truth.access_is_alive(int(found[2]), int(found[3]), self.now)
        if not alive:
            unknown = is_refresh and found is None
            return self.http(truth.model.says["unknown token" if unknown else "token rejected"]), truth.death
        facts = truth.hook.settings.facts
        document: dict[str, Any] = {}
        put(document, facts.success_has or "id", facts.success_equals == "true" or 1)
        return self.http(say(200, document)), None

    def _introspected(self, truth: Truth, request: HttpRequest) -> Answer:
        for fault in self.troubles(truth):
            if fault.kind in NETWORK and (spoilt := self._spoilt(fault, truth, request)) is not None:
                return spoilt
            if fault.kind == "invalid_grant to all by mistake" and fault.seed % 2:
                # The register of grants itself is gone for a while, not just what stands before it.
                return self.http(say(200, {"active": False}))
            if fault.kind in ("secret rotated", "app disabled", "wrong client_auth"):
                return self.http(self.phrase(truth.model, "client"))
        text = text_of(request)
        refresh, access = _REFRESH.search(text), _ACCESS.search(text)
        if refresh is not None:
            active = truth.accepts(int(refresh[2]), int(refresh[3]), self.now)
        else:
            active = access is not None and truth.access_is_alive(int(access[2]), int(access[3]), self.now)
        return self.http(say(200, {"active": active}))

    # -- small parts --------------------------------------------------------------------------------------------

    def refused(self, truth: Truth, cause: str) -> Answer:
        return self.http(self.phrase(truth.model, cause))

    def phrase(self, model: Model, cause: str) -> Phrase:
        if cause == "login changed":
            return model.says.get("login", model.says["account"])
        return model.says.get(cause) or model.says[GENERAL[cause]]

    def http(self, phrase: Phrase) -> HttpAnswer:
        headers = {"date": format_datetime(instant(self.now), usegmt=True), **phrase.headers}
        return HttpAnswer(phrase.status, headers, phrase.body.encode(), self.ours())

    def ours(self) -> datetime:
        """What the clock of our machine says."""
        return instant(self.now + self.skew)


BESIDE_REFRESHING = frozenset(
    {"probe URL broken", "transient 401s", "error text changed: words", "error text changed: code"}
)
"""What a healthy refresh does not meet."""

NETWORK = frozenset({"outage: 5xx", "outage: timeouts", "maintenance page", "captive portal", "rate limit"})
"""What keeps any request from being looked at."""


def text_of(request: HttpRequest) -> str:
    """Everything in a request that may carry a token."""
    basic = request.headers.get("Authorization", "")
    if basic.startswith("Basic "):
        basic = base64.b64decode(basic.removeprefix("Basic ")).decode()
    return f"{request.url}\n{basic}\n{' '.join(request.headers.values())}\n{request.content.decode()}"


def sent(request: HttpRequest) -> tuple[str, int, int] | None:
    """The credential, family and number of the token that a request carries; None if it is made up or absent."""
    text = text_of(request)
    found = _REFRESH.search(text) or _ACCESS.search(text)
    return (found[1], int(found[2]), int(found[3])) if found else None


def made_up(request: HttpRequest, truth: Truth) -> bool | None:
    """True for a control's request; None for one of a class that sends no token, or with a token of ours."""
    sends = truth.hook.grant_class.sends
    return True if sends and sent(request) is None else None


def put(document: Any, path: str, value: Any) -> None:
    """Set what stands at a dotted path."""
    first, _, rest = path.partition(".")
    if not rest:
        document[first] = value
        return
    put(document.setdefault(first, {}), rest, value)
