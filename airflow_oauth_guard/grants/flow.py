"""What every grant shares: a flow without I/O.

A grant is a generator: it yields a request, is sent the answer, and returns the outcome. A hook drives it in a worker
and a trigger awaits the same one, so there is no second copy to fall behind; tests feed it answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from airflow_oauth_guard.domain.answers import (
    RFC6749_ERRORS,
    Answer,
    HttpAnswer,
    Vocabulary,
    read_body,
    read_token_answer,
)
from airflow_oauth_guard.domain.evidence import Finding, Reading, Shape
from airflow_oauth_guard.grants.settings import GrantSettings


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


@dataclass(frozen=True)
class IssuedTokens:
    """A successful answer of a token endpoint (RFC 6749 section 5.1)."""

    access_token: str = field(repr=False)
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
    vocabulary: ClassVar[Vocabulary] = RFC6749_ERRORS
    probe_vocabulary: ClassVar[Vocabulary] = {}
    """Codes this class's provider sends from resources, beyond RFC 6750's."""
    sends: ClassVar[str] = ""
    """Which stored token a refresh sends, ``refresh_token`` or ``access_token``; empty where it sends none."""
    needs_live_token: ClassVar[bool] = False
    """True where a refresh works only while the access token does: then a lapse is for good."""

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

    def read(self, answer: Answer) -> Outcome:
        """What an answer to :meth:`request` means; also used for an answer kept from before a crash."""
        reading = read_token_answer(answer, self.vocabulary)
        if reading.finding is not Finding.LIVE or not isinstance(answer, HttpAnswer):
            return Outcome(reading)
        return Outcome(reading, issued_tokens(read_body(answer).document))


def issued_tokens(document: Mapping[str, Any]) -> IssuedTokens:
    """Read RFC 6749 section 5.1's fields. A strange ``expires_in`` must not cost us the token beside it."""
    return IssuedTokens(
        access_token=str(document["access_token"]),
        refresh_token=_text(document.get("refresh_token")) or None,
        expires_in=_lifetime(document.get("expires_in")),
        scope=_text(document.get("scope"))[:LONGEST_SCOPE],
    )


LONGEST_SCOPE = 10_000
"""Characters; a database's text column ends, and what was granted must not cost us the token."""


def _text(value: Any) -> str:
    """A token written as a number is one all the same."""
    return str(value) if value and isinstance(value, (str, int)) and not isinstance(value, bool) else ""


LONGEST_LIFETIME = timedelta(days=3650)


def _lifetime(value: Any) -> timedelta | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        # Absent or not a number: the lifetime is unknown, and the schedule assumes a short one.
        return None
    if not 0 < seconds <= LONGEST_LIFETIME.total_seconds():
        return None
    return timedelta(seconds=seconds)


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
