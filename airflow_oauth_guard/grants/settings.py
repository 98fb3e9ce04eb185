"""A connection's fields, checked. One clear error per wrong field, naming it; nothing is guessed.

The fields a class shows in the Airflow UI stand in ``provider.yaml``; a test holds the two lists together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from airflow_oauth_guard.domain.vocabulary import Vocabulary
from airflow_oauth_guard.errors import ConnectionFieldError

CLIENT_AUTHS = (
    *("client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "tls_client_auth", "none"),
)
"""How a client proves itself: RFC 6749 section 2.3.1, OpenID Connect Core section 9, RFC 8705 section 2."""
BODY_FORMATS = ("form", "json", "query", "xml")
METHODS = ("GET", "POST")
LIFETIME_UNITS = ("seconds", "milliseconds", "instant")
EXPIRE_POLICIES = ("ask", "evidence")
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "EdDSA", "HS256", "HS384", "HS512")
INSTAGRAM_PRODUCTS = ("instagram", "threads")

GRANT_TYPE_ADVICE = "the connection's type is its class, and the class says the grant type."

DEFAULT_MARGIN = timedelta(minutes=10)
LONGEST_MARGIN = timedelta(days=366)


COMMON_FIELDS = frozenset(
    {
        *("provider", "provider_params", "token_url", "scopes", "body_format", "probe_url", "probe_method"),
        *("refresh_margin", "alert_route", "allow_http"),
    }
)
"""Every class has these."""

CLIENT_FIELDS = frozenset(
    {
        *("client_id", "client_secret", "client_auth", "private_key", "key_id", "algorithm", "audience", "certificate"),
    }
)
"""Every class whose client authenticates itself has these."""

GRANT_FIELDS = frozenset({"expire_policy", "access_token"})
"""Every class that stores a grant has these."""

CONNECT_FIELDS = frozenset({"authorization_url"})
"""Every class that a person can connect in a browser has these."""

AUTHORIZATION_FIELDS = ("client_id", "username", "scopes")
"""What a person's browser may be told of a connection."""

PLACE = re.compile(r"\{(\w+)\}")
"""Where a provider's text takes a value, as ``{shop}``; JSON's own braces never look like this."""


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with each ``{name}`` that ``values`` knows replaced."""
    return PLACE.sub(lambda found: values.get(found[1], found[0]), text)


@dataclass(frozen=True)
class TokenAnswer:
    """Where a token endpoint's answer holds what RFC 6749 section 5.1 names, for a provider with a form of its own."""

    access_token: str = "access_token"  # noqa: S105 - a path, not a token
    refresh_token: str = "refresh_token"  # noqa: S105
    expires_in: str = "expires_in"
    expires_in_unit: str = "seconds"
    """``seconds`` or ``milliseconds`` from now, or ``instant``: a point in time (ISO 8601, or seconds since 1970)."""


STANDARD_ANSWER = TokenAnswer()


@dataclass(frozen=True)
class ProviderFacts:
    """What a provider wants beyond the protocol. Connections take it from the catalog; the default is the protocol.

    Texts may hold ``{client_id}``, ``{client_secret}``, ``{username}``, ``{password}`` and ``{scopes}``, and those of a probe
    ``{access_token}``.
    """

    provider: str = ""
    method: str = "POST"
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Sent with every token request, beside what the class sends."""
    headers: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """What the provider calls a standard parameter, such as ``client_id: client_key``."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """Put into an assertion, beside the standard ones."""
    body: str = ""
    """The whole request body, for a login that no parameters describe."""
    assertion_lifetime: timedelta | None = None
    """The longest the provider takes, where that is less than usual."""
    introspection_url: str = ""
    """Where the provider tells what it thinks of a token (RFC 7662)."""
    device_authorization_url: str = ""
    """Where a person's approval from another device begins (RFC 8628)."""
    authorization_url: str = ""
    """Where a person approves in a browser (RFC 6749 section 3.1)."""
    authorization_parameters: Mapping[str, str] = field(default_factory=dict)
    """Sent there beside the standard ones; empty text leaves a standard one out. No secret is ever filled in."""
    scope_separator: str = " "
    """What parts the scopes there, for a provider that does not keep to the standard's space."""
    pkce: bool = True
    """Whether the provider takes a code challenge (RFC 7636); one that refuses what it does not know is told none."""
    code_url: str = ""
    """Where a code is exchanged, if that is not the token URL."""
    answer: TokenAnswer = STANDARD_ANSWER
    access_token_lifetime: timedelta | None = None
    """What is documented, for answers that do not say."""
    probe_headers: Mapping[str, str] = field(default_factory=dict)
    probe_parameters: Mapping[str, str] = field(default_factory=dict)
    probe_body: str = ""
    success_has: str = ""
    success_equals: str = ""
    use_headers: Mapping[str, str] = field(default_factory=dict)
    """Where consumers put ``{access_token}``, if not into ``Authorization: Bearer``."""
    use_parameters: Mapping[str, str] = field(default_factory=dict)
    refresh_codes: Vocabulary = ()
    probe_codes: Vocabulary = ()


THE_PROTOCOL = ProviderFacts()


@dataclass(frozen=True)
class GrantSettings:
    """What a connection says about its grant. Secret values are kept out of ``repr``."""

    conn_id: str
    token_url: str
    probe_url: str = ""
    """A cheap read-only address that answers only to a live access token. Without one a probe teaches nothing."""
    probe_method: str = "GET"
    scopes: tuple[str, ...] = ()
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    client_auth: str = "client_secret_basic"
    body_format: str = "form"
    refresh_margin: timedelta = DEFAULT_MARGIN
    """Life that is always to be left in the access token. Refreshing starts two margins before the end."""
    expire_policy: str = "ask"
    alert_route: str = ""
    rotation: bool = True
    """Whether a refresh may spend the refresh token sent. True unless the provider promises otherwise."""
    rotation_grace: timedelta = timedelta()
    """How long after a refresh the provider, by its documentation, accepts the token it has replaced once more."""
    private_key: str = field(default="", repr=False)
    key_id: str = ""
    algorithm: str = "RS256"
    issuer: str = ""
    subject: str = ""
    audience: str = ""
    product: str = "instagram"
    username: str = ""
    user_password: str = field(default="", repr=False)
    account_id: str = ""
    subject_token: str = field(default="", repr=False)
    subject_token_type: str = ""
    assertion: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    """PEM; what a TLS client shows, and what some providers want named in an assertion's header."""
    authorization_url: str = ""
    """Where a person approves in a browser; the connection's own, or else the preset's."""
    facts: ProviderFacts = THE_PROTOCOL
    allow_http: bool = False
    access_token: str = field(default="", repr=False)
    """Seed, read once, when the credential is first seen."""
    refresh_token: str = field(default="", repr=False)
    """Seed, read once, when the credential is first seen."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret the connection holds, for masking and redaction."""
        held = (
            *(self.client_secret, self.private_key, self.access_token, self.refresh_token),
            *(self.user_password, self.subject_token, self.assertion),
        )
        return tuple(secret for secret in held if secret)

    @property
    def client_certificate(self) -> str:
        """What is shown to a server that asks for a TLS client certificate: PEM of certificate and key, if both are there."""
        if not (self.certificate and self.private_key) or self.client_auth.endswith("_jwt"):
            return ""
        return f"{self.certificate.strip()}\n{self.private_key.strip()}\n"

    @property
    def fillings(self) -> Mapping[str, str]:
        """What a provider's texts may take from this connection."""
        return {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "username": self.username,
            "password": self.user_password,
            "scopes": " ".join(self.scopes),
        }

    @property
    def client_key(self) -> tuple[str, str]:
        """Equal for credentials of one client at one provider: siblings."""
        return (self.token_url or self.probe_url, self.client_id or self.issuer or self.username)


def read_settings(
    conn_id: str,
    fields: Mapping[str, Any],
    *,
    known: frozenset[str],
    required: tuple[str, ...],
    facts: ProviderFacts = THE_PROTOCOL,
) -> GrantSettings:
    """Check a connection's fields against what its class knows and needs.

    Args:
        fields: Names as in ``provider.yaml``; empty text and None count as not given.
        known: The fields this connection class has.
        required: Those it cannot work without, in the order in which to complain.

    Raises:
        ConnectionFieldError: For the first field that is missing, unknown or wrong.
    """
    unread = known & _READ_ELSEWHERE
    stripped = {
        name: value.strip() if isinstance(value, str) else value for name, value in fields.items() if name not in unread
    }
    given = {name: value for name, value in stripped.items() if value not in (None, "")}
    if unknown := sorted(given.keys() - known):
        raise ConnectionFieldError(conn_id, unknown[0], _unknown_advice(unknown[0], known))
    for name in required:
        if name not in given:
            raise ConnectionFieldError(conn_id, name, "is missing; fill it in on the connection's form.")
    read = _Reader(conn_id, given)
    settings = GrantSettings(
        conn_id=conn_id,
        token_url=read.url("token_url"),
        authorization_url=read.url("authorization_url") or facts.authorization_url,
        probe_url=read.url("probe_url"),
        probe_method=read.choice("probe_method", METHODS),
        scopes=tuple(read.text("scopes").replace(",", " ").split()),
        client_id=read.text("client_id"),
        client_secret=read.text("client_secret"),
        client_auth=read.choice("client_auth", CLIENT_AUTHS),
        body_format=read.choice("body_format", BODY_FORMATS),
        refresh_margin=read.seconds("refresh_margin", DEFAULT_MARGIN),
        expire_policy=read.choice("expire_policy", EXPIRE_POLICIES),
        alert_route=read.text("alert_route"),
        rotation=read.flag("rotation", default=True),
        rotation_grace=read.seconds("rotation_grace", timedelta(), zero=True),
        private_key=read.text("private_key").replace("\\n", "\n"),
        key_id=read.text("key_id"),
        algorithm=read.choice("algorithm", ALGORITHMS),
        issuer=read.text("issuer"),
        subject=read.text("subject"),
        audience=read.text("audience"),
        product=read.choice("product", INSTAGRAM_PRODUCTS),
        username=read.text("username"),
        user_password=read.text("user_password"),
        account_id=read.text("account_id"),
        subject_token=read.text("subject_token"),
        subject_token_type=read.text("subject_token_type"),
        assertion=read.text("assertion"),
        certificate=read.text("certificate").replace("\\n", "\n"),
        facts=facts,
        allow_http=read.flag("allow_http", default=False),
        access_token=read.text("access_token"),
        refresh_token=read.text("refresh_token"),
    )
    _check_client_auth(settings, known)
    return settings


_READ_ELSEWHERE = frozenset({"provider_params", "subject_token_file", "assertion_file"})
"""Fields that have become others by the time the rest is checked."""


def _unknown_advice(name: str, known: frozenset[str]) -> str:
    if name == "grant_type":
        return f"cannot be set: {GRANT_TYPE_ADVICE}"
    return f"is not a field of this connection type; its fields are {', '.join(sorted(known))}."


def _check_client_auth(settings: GrantSettings, known: frozenset[str]) -> None:
    if "client_auth" not in known or not settings.client_id:
        return
    for needed in _NEEDED.get(settings.client_auth, ("client_secret",)):
        if not getattr(settings, needed):
            raise ConnectionFieldError(
                settings.conn_id,
                needed,
                f"is missing; `client_auth` is `{settings.client_auth}`, which needs it (a public client uses `none`).",
            )


_NEEDED: Mapping[str, tuple[str, ...]] = {
    "private_key_jwt": ("private_key",),
    "tls_client_auth": ("certificate", "private_key"),
    "none": (),
}


class _Reader:
    """Reads one field at a time and complains about it by name; never repeats a secret value."""

    def __init__(self, conn_id: str, given: Mapping[str, Any]) -> None:
        self._conn_id = conn_id
        self._given = given

    def text(self, name: str) -> str:
        value = self._given.get(name, "")
        if not isinstance(value, str):
            raise ConnectionFieldError(self._conn_id, name, f"is a {type(value).__name__}; write text.")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.text(name) or choices[0]
        if value not in choices:
            raise ConnectionFieldError(self._conn_id, name, f"is `{value}`; choose one of {', '.join(choices)}.")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._given.get(name, default)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise ConnectionFieldError(self._conn_id, name, f"is {value!r}; write true or false.")
        return value

    def seconds(self, name: str, default: timedelta, *, zero: bool = False) -> timedelta:
        value = self._given.get(name)
        if value is None:
            return default
        try:
            seconds = 0.0 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError) as error:
            raise ConnectionFieldError(self._conn_id, name, f"is {value!r}; write seconds.") from error
        if not (0 < seconds <= LONGEST_MARGIN.total_seconds() or (zero and seconds == 0)):
            least = "0 or more seconds" if zero else "seconds above 0"
            raise ConnectionFieldError(self._conn_id, name, f"is {value!r}; write {least}, a year at most.")
        return timedelta(seconds=seconds)

    def url(self, name: str) -> str:
        value = self.text(name)
        if not value:
            return value
        try:
            parts = urlsplit(value)
            usable = bool(parts.hostname) and parts.scheme in ("http", "https") and (parts.port or 1) > 0
        except ValueError as error:
            raise ConnectionFieldError(self._conn_id, name, "is not a URL; write https://host/path.") from error
        if not usable:
            raise ConnectionFieldError(self._conn_id, name, "is not a URL; write https://host/path.")
        if "grant_type" in parse_qs(parts.query):
            raise ConnectionFieldError(self._conn_id, name, f"names a grant_type; {GRANT_TYPE_ADVICE}")
        if parts.username or parts.password:
            raise ConnectionFieldError(self._conn_id, name, "holds a user name or password; use the fields for them.")
        if parts.scheme == "http" and not self.flag("allow_http", default=False):
            raise ConnectionFieldError(
                self._conn_id,
                name,
                "begins with http://, which sends secrets readable by anyone on the way; use https://, "
                "or tick `allow_http` for a test server.",
            )
        return value
