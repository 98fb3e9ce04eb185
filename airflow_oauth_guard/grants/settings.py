"""A connection's fields, checked. One clear error per wrong field, naming it; nothing is guessed.

The fields a class shows in the Airflow UI stand in ``provider.yaml``; a test holds the two lists together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from airflow_oauth_guard.errors import ConnectionFieldError

CLIENT_AUTHS = ("client_secret_basic", "client_secret_post", "private_key_jwt", "none")
BODY_FORMATS = ("form", "json")
PROBE_METHODS = ("GET", "POST")
EXPIRE_POLICIES = ("ask", "evidence")
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "EdDSA")
INSTAGRAM_PRODUCTS = ("instagram", "threads")

GRANT_TYPE_ADVICE = "the connection's type is its class, and the class says the grant type."

DEFAULT_MARGIN = timedelta(minutes=10)
LONGEST_MARGIN = timedelta(days=366)


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
    allow_http: bool = False
    access_token: str = field(default="", repr=False)
    """Seed, read once, when the credential is first seen."""
    refresh_token: str = field(default="", repr=False)
    """Seed, read once, when the credential is first seen."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret the connection holds, for masking and redaction."""
        held = (self.client_secret, self.private_key, self.access_token, self.refresh_token)
        return tuple(secret for secret in held if secret)

    @property
    def client_key(self) -> tuple[str, str]:
        """Equal for credentials of one client at one provider: siblings."""
        return (self.token_url, self.client_id or self.issuer)


def read_settings(
    conn_id: str, fields: Mapping[str, Any], *, known: frozenset[str], required: tuple[str, ...]
) -> GrantSettings:
    """Check a connection's fields against what its class knows and needs.

    Args:
        fields: Names as in ``provider.yaml``; empty text and None count as not given.
        known: The fields this connection class has.
        required: Those it cannot work without, in the order in which to complain.

    Raises:
        ConnectionFieldError: For the first field that is missing, unknown or wrong.
    """
    stripped = {name: value.strip() if isinstance(value, str) else value for name, value in fields.items()}
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
        probe_url=read.url("probe_url"),
        probe_method=read.choice("probe_method", PROBE_METHODS),
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
        allow_http=read.flag("allow_http", default=False),
        access_token=read.text("access_token"),
        refresh_token=read.text("refresh_token"),
    )
    _check_client_auth(settings, known)
    return settings


def _unknown_advice(name: str, known: frozenset[str]) -> str:
    if name == "grant_type":
        return f"cannot be set: {GRANT_TYPE_ADVICE}"
    return f"is not a field of this connection type; its fields are {', '.join(sorted(known))}."


def _check_client_auth(settings: GrantSettings, known: frozenset[str]) -> None:
    if "client_auth" not in known:
        return
    secret = {"private_key_jwt": "private_key", "none": ""}.get(settings.client_auth, "client_secret")
    if secret and not getattr(settings, secret):
        raise ConnectionFieldError(
            settings.conn_id,
            secret,
            f"is missing; `client_auth` is `{settings.client_auth}`, which needs it (a public client uses `none`).",
        )


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
