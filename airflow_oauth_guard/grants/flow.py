"""What every grant shares: a flow without I/O.

A grant is a generator: it yields a request, is sent the answer, and returns the outcome. A hook drives it in a worker
and a trigger awaits the same one, so there is no second copy to fall behind; tests feed it answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, at_path, read_body
from airflow_oauth_guard.domain.clock import parse_instant
from airflow_oauth_guard.domain.evidence import Finding, Reading, Shape
from airflow_oauth_guard.domain.reading import Dialect, read_token_answer
from airflow_oauth_guard.errors import NaiveDatetimeError
from airflow_oauth_guard.grants.settings import GrantSettings, TokenAnswer


@dataclass(frozen=True)
class HttpRequest:
    """One request, ready to send. Its ``repr`` shows the shape and nothing that is secret."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)
    shape: Shape
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values in this request that must never be seen again: tokens, assertions, encoded client credentials."""
    client_certificate: str = field(default="", repr=False)
    """PEM of certificate and key, shown to the server when it asks (RFC 8705)."""


@dataclass(frozen=True)
class IssuedTokens:
    """A successful answer of a token endpoint (RFC 6749 section 5.1)."""

    access_token: str = field(repr=False)
    """Empty where the one in use was found alive and stays."""
    refresh_token: str | None = field(default=None, repr=False)
    """None when the provider sent none: the one in use stays valid (RFC 6749 section 6)."""
    expires_in: timedelta | None = None
    scope: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a refresh led to: always a reading, and tokens where some were issued."""

    reading: Reading
    tokens: IssuedTokens | None = None


Flow = Generator[HttpRequest, Answer, Outcome]


class Grant(ABC):
    """One class of connection: which request to send, and what its answer means.

    A new class is one file here, one in ``hooks/``, one entry in ``provider.yaml`` and one page in
    ``docs/connections/``; a test compares the four.
    """

    connection_class: ClassVar[str]
    """The name it has everywhere; its Airflow conn_type is ``oauth_guard_<connection_class>``."""
    fields: ClassVar[frozenset[str]]
    required: ClassVar[tuple[str, ...]]
    provider: ClassVar[str] = ""
    """The one provider in the catalog that has this class, where there is just one."""
    rejected_means: ClassVar[Finding] = Finding.REQUEST_MALFORMED
    """What a rejected grant is about where a class stores none: see :class:`~airflow_oauth_guard.domain.reading.Dialect`."""
    sends: ClassVar[str] = ""
    """Which stored token a refresh sends, ``refresh_token`` or ``access_token``; empty where it sends none."""
    needs_live_token: ClassVar[bool] = False
    """True where a refresh works only while the access token does: then a lapse is for good."""
    connects: ClassVar[bool] = False
    """True where a person's approval at the provider brings all that a refresh needs."""

    @classmethod
    def own_provider(cls, fields: Mapping[str, Any]) -> str:  # noqa: ARG003 - one class has a choice
        """The provider whose preset a connection of this class takes without naming it; empty where there are several."""
        return cls.provider

    def __init__(self, settings: GrantSettings) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def grant_type(self) -> str:
        """The one value of ``grant_type`` this class sends."""

    @abstractmethod
    def request(self, token: str, now: datetime) -> HttpRequest:
        """The refresh request. ``token`` is empty for a class that sends none."""

    @property
    def rotates(self) -> bool:
        """Whether a refresh may spend the token it sends, so that a lost answer loses the grant."""
        return False

    def refresh(self, token: str, now: datetime) -> Flow:
        """Ask for a new access token once."""
        answer = yield self.request(token, now)
        return self.read(answer)

    @property
    def dialect(self) -> Dialect:
        """What is particular about the answers this grant gets."""
        facts = self.settings.facts
        return Dialect(
            token_path=facts.answer.access_token,
            refresh_codes=facts.refresh_codes,
            probe_codes=facts.probe_codes,
            has_grant=bool(self.sends),
            token_is_grant=self.sends == "access_token",
            rejected_means=self.rejected_means,
            success_has=facts.success_has,
            success_equals=facts.success_equals,
        )

    def read(self, answer: Answer) -> Outcome:
        """What an answer to :meth:`request` means; also used for an answer kept from before a crash."""
        reading = read_token_answer(answer, self.dialect)
        if reading.finding is not Finding.LIVE or not isinstance(answer, HttpAnswer):
            return Outcome(reading)
        facts = self.settings.facts
        tokens = issued_tokens(read_body(answer.body).content, facts.answer, answer.received_at)
        if tokens.expires_in is None:
            tokens = replace(tokens, expires_in=facts.access_token_lifetime)
        return Outcome(reading, tokens)


def issued_tokens(content: Any, where: TokenAnswer, now: datetime) -> IssuedTokens:
    """Read RFC 6749 section 5.1's fields from where they stand. A strange lifetime must not cost us the token beside it."""
    return IssuedTokens(
        access_token=str(at_path(content, where.access_token)),
        refresh_token=_text(at_path(content, where.refresh_token)) or None,
        expires_in=_lifetime(at_path(content, where.expires_in), where.expires_in_unit, now),
        scope=_text(at_path(content, "scope"))[:LONGEST_SCOPE],
    )


LONGEST_SCOPE = 10_000
"""Characters; a database's text column ends, and what was granted must not cost us the token."""


def _text(value: Any) -> str:
    """A token written as a number is one all the same."""
    return str(value) if value and isinstance(value, (str, int)) and not isinstance(value, bool) else ""


LONGEST_LIFETIME = timedelta(days=3650)


def _lifetime(value: Any, unit: str, now: datetime) -> timedelta | None:
    try:
        seconds = _seconds(value, unit, now)
    except (TypeError, ValueError, OverflowError, OSError, NaiveDatetimeError):
        # Absent or not a number: the lifetime is unknown, and the schedule assumes a short one.
        return None
    if not 0 < seconds <= LONGEST_LIFETIME.total_seconds():
        return None
    return timedelta(seconds=seconds)


def _seconds(value: Any, unit: str, now: datetime) -> float:
    if unit == "milliseconds":
        return float(value) / 1000
    if unit == "instant":
        return (_instant(value) - now).total_seconds()
    return float(value)


def _instant(value: Any) -> datetime:
    """A point in time: ISO 8601, or seconds or milliseconds since 1970."""
    try:
        since_1970 = float(value)
    except ValueError:
        # No number, so it is written as a date.
        return parse_instant(str(value), "expires_in")
    return datetime.fromtimestamp(since_1970 / 1000 if since_1970 > _MILLISECONDS else since_1970, timezone.utc)


_MILLISECONDS = 100_000_000_000
"""As seconds this is the year 5138; a larger number counts milliseconds."""


def shape_of(
    method: str, url: str, *, grant_type: str, client_auth: str, body_format: str, names: Mapping[str, Any]
) -> Shape:
    """The form of a request, without any value that could be secret."""
    parts = urlsplit(url)
    query_names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return Shape(
        grant_type=grant_type,
        method=method,
        endpoint=f"{parts.scheme}://{parts.netloc}{parts.path}",
        client_auth=client_auth,
        body_format=body_format,
        parameters=tuple(sorted({*names, *query_names})),
    )
