"""A provider in memory that knows the truth, and a network in front of it that can lose, delay and spoil.

It stands in for the socket only: :meth:`Wire.exchange` takes the package's own request, reads its bytes as a server
would, and gives back one of the package's own answers. Whatever the package believes, :class:`Provider` says what is
really alive.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import Enum
from itertools import count
from urllib.parse import parse_qsl, unquote_plus

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, NoAnswer
from airflow_oauth_guard.grants.flow import HttpRequest

TOKEN_URL = "https://provider.example/oauth/token"
PROBE_URL = "https://api.provider.example/me"
PLAIN_LIE = ""


@dataclass(frozen=True)
class Rules:
    """How this provider handles tokens."""

    rotation: bool = True
    reuse_detection: bool = True
    """A rotated token that is used again ends the whole family, access tokens too."""
    grace: timedelta = timedelta()
    """How long a rotated refresh token is still accepted."""
    access_lifetime: timedelta = timedelta(hours=1)
    refresh_lifetime: timedelta | None = None
    """Of each refresh token, from its issue; None for no end."""
    says_lifetime: bool = True
    """Whether an answer has ``expires_in``, which RFC 6749 section 5.1 only recommends."""
    explains: bool = True
    """Whether a refusal says why; else it is the same for a spent, an ended and a made-up token."""


class Fate(str, Enum):
    """What becomes of one token request."""

    ANSWERED = "answered"
    LOST_BEFORE = "lost before processing"
    LOST_AFTER = "lost after processing"
    NOT_SENT = "not sent"
    RATE_LIMITED = "429 before processing"
    UNAVAILABLE = "503 before processing"
    ERROR_BEFORE = "500 before processing"
    GATEWAY_AFTER = "502 after processing"
    TRUNCATED_AFTER = "body cut after processing"
    EMPTY_AFTER = "empty 200 after processing"
    GARBLED_AFTER = "200 without token or error after processing"
    PORTAL = "captive portal"
    REDIRECTED = "redirect before processing"


LEARNS_NOTHING = frozenset(
    {
        *(Fate.LOST_BEFORE, Fate.LOST_AFTER, Fate.ERROR_BEFORE, Fate.GATEWAY_AFTER),
        *(Fate.TRUNCATED_AFTER, Fate.EMPTY_AFTER, Fate.GARBLED_AFTER),
    }
)
"""Fates after which nobody on our side can know whether the token was spent."""

PROCESSED = frozenset(
    {
        *(Fate.ANSWERED, Fate.LOST_AFTER, Fate.GATEWAY_AFTER),
        *(Fate.TRUNCATED_AFTER, Fate.EMPTY_AFTER, Fate.GARBLED_AFTER),
    }
)


class ProbeFate(str, Enum):
    """How the resource answers a probe."""

    TRUTH = "the truth"
    BARE_401 = "401 without a reason, whatever the token"
    FORBIDDEN = "403"
    ERROR = "500"
    HTML = "200 with HTML"
    LOST = "no answer"


@dataclass
class Family:
    """What one consent led to: a line of refresh tokens, and the access tokens bought with them."""

    number: int
    newest: str = ""
    """The refresh token issued last: the one to hold."""
    ended: str = ""
    """Why the provider ended it; empty while it lives."""


@dataclass
class RefreshToken:
    family: Family
    expires_at: datetime | None
    spent_at: datetime | None = None


@dataclass(frozen=True)
class AccessToken:
    family: Family
    expires_at: datetime


@dataclass
class Provider:
    """The truth about every token there ever was.

    ``clock`` is the provider's own; ours may be wrong.
    """

    rules: Rules
    client_id: str
    client_secret: str
    clock: Callable[[], datetime]
    client_disabled: bool = False
    lie: str | None = None
    """While set, every refresh is answered ``invalid_grant`` with this description, unlooked at."""
    malformed: str | None = None
    """While set, every refresh is answered 400 with this code before anybody looks at the token."""
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    access_tokens: dict[str, AccessToken] = field(default_factory=dict)
    lies: list[tuple[str, datetime]] = field(default_factory=list)
    """Living refresh tokens that were called invalid without a reason that excuses it, and when."""
    deaths: Counter[str] = field(default_factory=Counter)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    # -- what people do ---------------------------------------------------------------------------------------------

    def consent(self) -> dict[str, object]:
        """A person connects the account: a new family, whose tokens the person can copy."""
        return self._issue(Family(next(self._numbers)), with_refresh=True)

    def revoke(self, family: Family) -> None:
        """The user removes the app in the provider's settings."""
        self._end(family, "revoked by the user")

    @property
    def honest(self) -> bool:
        """Whether it looks at every request and says what it sees."""
        return self.lie is None and self.malformed is None and not self.client_disabled

    def be_honest(self) -> None:
        self.lie = self.malformed = None
        self.client_disabled = False

    # -- the truth --------------------------------------------------------------------------------------------------

    def accepts(self, refresh_token: str) -> bool:
        """Whether this refresh token would buy an access token now, from a well-formed request of a working client."""
        held = self.refresh_tokens.get(refresh_token)
        return held is not None and self._refusal(held) is None

    def is_alive(self, access_token: str) -> bool:
        held = self.access_tokens.get(access_token)
        return held is not None and not held.family.ended and self.clock() < held.expires_at

    def family_of(self, refresh_token: str) -> Family | None:
        held = self.refresh_tokens.get(refresh_token)
        return held.family if held else None

    # -- the token endpoint -----------------------------------------------------------------------------------------

    def token(self, form: dict[str, str], client: tuple[str, str]) -> tuple[int, dict[str, object]]:
        """Answer one token request (RFC 6749 section 6): status and JSON body."""
        sent = form.get("refresh_token", "")
        if self.malformed is not None:
            return _error(self.malformed, "The request is missing a required parameter.")
        if form.get("grant_type") != "refresh_token":
            return _error("unsupported_grant_type")
        if self.client_disabled or client != (self.client_id, self.client_secret):
            return _error("invalid_client", status=401)
        if self.lie is not None:
            return self._lied(sent)
        return self._redeem(sent)

    def _lied(self, sent: str) -> tuple[int, dict[str, object]]:
        if self.lie == PLAIN_LIE and self.accepts(sent):
            self.lies.append((sent, self.clock()))
        return _error("invalid_grant", self.lie or "")

    def _redeem(self, sent: str) -> tuple[int, dict[str, object]]:
        held = self.refresh_tokens.get(sent)
        if held is None:
            return self._refused("The refresh token is unknown.")
        if (refusal := self._refusal(held)) is not None:
            if held.spent_at is not None and self.rules.reuse_detection:
                self._end(held.family, "a rotated token was used again")
            return self._refused(refusal)
        return 200, self._issue(held.family, with_refresh=self.rules.rotation)

    def _refused(self, why: str) -> tuple[int, dict[str, object]]:
        return _error("invalid_grant", why if self.rules.explains else "")

    def _refusal(self, held: RefreshToken) -> str | None:
        now = self.clock()
        if held.family.ended:
            return "The grant was ended."
        if held.expires_at is not None and now >= held.expires_at:
            self._end(held.family, "outlived")
            return "The refresh token is too old."
        # The moment the grace ends belongs to nobody: neither side may build on it.
        if held.spent_at is not None and now - held.spent_at >= self.rules.grace:
            return "The refresh token was used before."
        return None

    def _issue(self, family: Family, *, with_refresh: bool) -> dict[str, object]:
        now, number = self.clock(), next(self._numbers)
        access = f"access-{family.number}-{number}"
        self.access_tokens[access] = AccessToken(family, now + self.rules.access_lifetime)
        answer: dict[str, object] = {"access_token": access, "token_type": "Bearer"}
        if self.rules.says_lifetime:
            answer["expires_in"] = int(self.rules.access_lifetime.total_seconds())
        if with_refresh:
            answer["refresh_token"] = self._next_refresh_token(family, number, now)
        return answer

    def _next_refresh_token(self, family: Family, number: int, now: datetime) -> str:
        if (before := self.refresh_tokens.get(family.newest)) is not None and before.spent_at is None:
            before.spent_at = now
        life = self.rules.refresh_lifetime
        family.newest = f"refresh-{family.number}-{number}"
        self.refresh_tokens[family.newest] = RefreshToken(family, now + life if life else None)
        return family.newest

    def _end(self, family: Family, why: str) -> None:
        if not family.ended:
            family.ended = why
            self.deaths[why] += 1


@dataclass
class Exchange:
    """One token request, from the sender's side and from the provider's."""

    worker: object
    sent: str
    """The refresh token in it."""
    fate: Fate
    sent_at: datetime
    """By our clock."""
    over_at: datetime
    """By the true clock: nobody waits for an answer any longer."""
    issued: str = ""
    """The refresh token that the provider issued for it."""
    over: bool = False
    """The sender has what it will get, an answer or none."""
    delivered: bool = False
    """The answer reached the process."""
    kept: bool = False
    """The process wrote it down."""
    settled: bool = False
    """The token bought new ones since, so that nothing is unknown about it any more."""
    overslept: bool = False
    """The process stood still for longer than its lease, with the exchange unfinished."""


@dataclass
class Wire:
    """The network between the package and the provider."""

    provider: Provider
    clock: Callable[[], datetime]
    """Ours: what an answer's arrival is dated by."""
    fates: deque[Fate] = field(default_factory=deque)
    """Of the token requests to come; after them, answers arrive."""
    probe_fate: ProbeFate = ProbeFate.TRUTH

    def next_fate(self) -> Fate:
        return self.fates.popleft() if self.fates else Fate.ANSWERED

    def send_token_request(self, request: HttpRequest, exchange: Exchange) -> Answer:
        """What the sender would see; the provider has processed the request when this returns, if it ever does."""
        status, document = 0, {}
        if exchange.fate in PROCESSED:
            status, document = self.provider.token(*_read(request))
            exchange.issued = str(document.get("refresh_token", ""))
        if exchange.fate is Fate.TRUNCATED_AFTER and status >= 400:
            # Its status says enough: no tokens were issued.
            exchange.fate = Fate.ANSWERED
            return self._http(status, json.dumps(document).encode()[:-5])
        return self._spoiled(exchange.fate, status, document)

    def send_probe(self, request: HttpRequest) -> Answer:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.probe_fate is ProbeFate.LOST:
            return NoAnswer("nothing complete within 30 s", maybe_processed=True, received_at=self.clock())
        if self.probe_fate is ProbeFate.ERROR:
            return self._http(500, b"oops")
        if self.probe_fate is ProbeFate.HTML:
            return self._http(200, PORTAL)
        if self.probe_fate is ProbeFate.FORBIDDEN:
            return self._http(403, b'{"message": "no"}')
        if self.probe_fate is ProbeFate.BARE_401:
            return self._http(401, b"", {"www-authenticate": "Bearer"})
        if self.provider.is_alive(token):
            return self._http(200, b'{"id": "ada"}')
        challenge = 'Bearer error="invalid_token", error_description="The access token expired or was revoked"'
        return self._http(401, b'{"error": "invalid_token"}', {"www-authenticate": challenge})

    def _spoiled(self, fate: Fate, status: int, document: dict[str, object]) -> Answer:
        body = json.dumps(document).encode()
        if fate in (Fate.LOST_BEFORE, Fate.LOST_AFTER):
            return NoAnswer("the exchange broke off (ReadError)", maybe_processed=True, received_at=self.clock())
        if fate is Fate.NOT_SENT:
            return NoAnswer("no connection (refused)", maybe_processed=False, received_at=self.clock())
        return {
            Fate.ANSWERED: lambda: self._http(status, body),
            Fate.RATE_LIMITED: lambda: self._http(429, b"", {"retry-after": "120"}),
            Fate.UNAVAILABLE: lambda: self._http(503, b"<h1>Down for maintenance</h1>"),
            Fate.ERROR_BEFORE: lambda: self._http(500, b"oops"),
            Fate.GATEWAY_AFTER: lambda: self._http(502, b"<h1>Bad gateway</h1>"),
            Fate.TRUNCATED_AFTER: lambda: self._http(status, body[: len(body) // 2]),
            Fate.EMPTY_AFTER: lambda: self._http(200, b""),
            Fate.GARBLED_AFTER: lambda: self._http(200, b'{"status": "ok"}'),
            Fate.PORTAL: lambda: self._http(200, PORTAL),
            Fate.REDIRECTED: lambda: self._http(302, b"", {"location": "https://login.example/"}),
        }[fate]()

    def _http(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> HttpAnswer:
        dated = {"date": format_datetime(self.provider.clock(), usegmt=True)}
        return HttpAnswer(status, {**dated, **(headers or {})}, body, received_at=self.clock())


PORTAL = b"<!DOCTYPE html><html><body>Welcome to our WLAN. Please log in.</body></html>"


def sent_refresh_token(request: HttpRequest) -> str:
    """The refresh token in a token request's bytes."""
    return _read(request)[0].get("refresh_token", "")


def _read(request: HttpRequest) -> tuple[dict[str, str], tuple[str, str]]:
    """A token request as a server reads it: its form, and the client that authenticated (RFC 6749 section 2.3.1)."""
    if "json" in request.headers.get("Content-Type", ""):
        form = {name: str(value) for name, value in json.loads(request.content).items()}
    else:
        form = dict(parse_qsl(request.content.decode()))
    scheme, _, basic = request.headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        name, _, secret = base64.b64decode(basic).decode().partition(":")
        return form, (unquote_plus(name), unquote_plus(secret))
    return form, (form.get("client_id", ""), form.get("client_secret", ""))


def _error(code: str, description: str = "", *, status: int = 400) -> tuple[int, dict[str, object]]:
    return status, {"error": code, **({"error_description": description} if description else {})}
