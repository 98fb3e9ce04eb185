"""Where the tokens are in what somebody kept them in: a connection, a Variable, a file. No I/O, and no secret in a message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from airflow_oauth_guard.domain.clock import parse_instant
from airflow_oauth_guard.errors import ConfigurationError

PLACEHOLDER = re.compile(r"(^|\{\s*)oauth.?guard:", re.IGNORECASE)
"""What the guard's secrets backend fills in, braces forgotten or not: there is no token in it."""

NOT_WANTED = "none"
"""Instead of a place: leave it out."""

ACCESS_TOKEN, REFRESH_TOKEN, EXPIRES_AT = "access_token", "refresh_token", "expires_at"
KINDS = (REFRESH_TOKEN, ACCESS_TOKEN, EXPIRES_AT)

_NAMED_LIKE = {
    ACCESS_TOKEN: re.compile(r"(.*_)?access_token|((auth|bearer|oauth2?)_)?token"),
    REFRESH_TOKEN: re.compile(r"(.*_)?refresh_token"),
    EXPIRES_AT: re.compile(r"(?!.*refresh)(.*_)?(expires(_at|_on)?|expiry(_date)?|expiration(_time)?)"),
}
_BEARER = re.compile(r"bearer +", re.IGNORECASE)
_TOKEN = re.compile(r"(?![{\[\"])[!-~]+")
_DIGITS_AND_SEPARATORS = re.compile(r"[0-9TtZz:+. -]+")

EARLIEST, LATEST = 1e9, 1e11
"""Seconds since 1970 between the years 2001 and 5138. What is below is a lifetime, what is above counts milliseconds."""


@dataclass(frozen=True)
class Leaf:
    """One value, and where it stands."""

    source: str
    """In words: ``connection `crm_old```."""
    place: str
    """How the options name it: ``password``, ``extra.refresh_token``."""
    value: str | float = field(repr=False)

    def __str__(self) -> str:
        return f"`{self.place}` of {self.source}"

    @property
    def beside(self) -> str:
        """What it stands in. The top of a connection's extra counts as beside its password."""
        return self.place.removeprefix("extra.").rpartition(".")[0]

    def is_named_like(self, kind: str) -> bool:
        # Airflow before 2.3 kept the form's fields as `extra__<connection type>__<name>`.
        name = re.sub(r"^extra__.+?__", "", self.place.rpartition(".")[2])
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
        return _NAMED_LIKE[kind].fullmatch(snake) is not None or (kind == ACCESS_TOKEN and self.is_bearer)

    @property
    def is_bearer(self) -> bool:
        return isinstance(self.value, str) and _BEARER.match(self.value) is not None


def leaves(source: str, value: Any, place: str = "", *, unnamed: str = "value") -> Iterator[Leaf]:
    """Every value in it, however deep; JSON kept as text is opened.

    Args:
        unnamed: What a value is called that stands in nothing: a Variable of plain text goes by the Variable's name.
    """
    opened = _opened(value)
    if isinstance(opened, Mapping):
        inside: Iterator[tuple[Any, Any]] = iter(opened.items())
    elif isinstance(opened, list):
        inside = iter(enumerate(opened))
    else:
        if isinstance(opened, str | int | float) and not isinstance(opened, bool) and str(opened).strip():
            yield Leaf(source, place or unnamed, opened.strip() if isinstance(opened, str) else opened)
        return
    for name, inner in inside:
        yield from leaves(source, inner, f"{place}.{name}" if place else str(name))


def _opened(value: Any) -> Any:
    if not isinstance(value, str) or value.strip()[:1] not in {"{", "[", '"'}:
        return value
    try:
        return json.loads(value)
    except ValueError:
        # Text that begins like JSON and is none; as a token it is refused, by name.
        return value


@dataclass(frozen=True)
class Found:
    """What is to be imported into one credential, and where it was."""

    tokens: Mapping[str, str] = field(repr=False)
    expires_at: datetime | None
    places: Mapping[str, Leaf]


def find(values: Sequence[Leaf], needed: str, named: Mapping[str, str]) -> Found:
    """The tokens among these values.

    Args:
        needed: The token that a refresh of this class sends; without it there is nothing to import.
        named: By kind, where a person says it is, or that it is not wanted.

    Raises:
        ConfigurationError: If it cannot be told; names the candidates and the option that settles it.
    """
    places: dict[str, Leaf] = {}
    # A token that is another's neighbour is of the same grant; one from elsewhere may be of another account.
    for kind in (needed, *(kind for kind in KINDS if kind != needed)):
        if kind == REFRESH_TOKEN != needed:
            # This class sends none, so it has no use for the one there may be.
            continue
        chosen = _choose(values, kind, named.get(kind, ""), _neighbours(values, kind, places), needed=kind == needed)
        if chosen is not None:
            places[kind] = chosen
    tokens = {kind: _token(leaf, kind, needed=kind == needed) for kind, leaf in places.items() if kind != EXPIRES_AT}
    ends = places.get(EXPIRES_AT)
    return Found(tokens, None if ends is None else _instant(ends), places)


def _neighbours(values: Sequence[Leaf], kind: str, places: Mapping[str, Leaf]) -> list[Leaf]:
    if not places:
        return list(values)
    # The end is the access token's; there is none without it.
    beside = places.get(ACCESS_TOKEN) if kind == EXPIRES_AT else next(iter(places.values()))
    return [leaf for leaf in values if beside is not None and leaf.beside == beside.beside]


def _choose(values: Sequence[Leaf], kind: str, place: str, neighbours: Sequence[Leaf], *, needed: bool) -> Leaf | None:
    if place == NOT_WANTED and not needed:
        return None
    if place:
        candidates = [leaf for leaf in values if leaf.place == place]
        if not candidates:
            raise ConfigurationError(f"{option(kind)} names a place that is not there; there is {_listed(values)}.")
    else:
        candidates = [leaf for leaf in neighbours if leaf.is_named_like(kind)]
    if len({leaf.value for leaf in candidates}) > 1:
        raise ConfigurationError(
            f"{_listed(candidates)} could each be the {kind}; say which with {option(kind)}"
            f"{_or_leave_it_out(kind, needed=needed)}."
        )
    if needed and not candidates:
        raise ConfigurationError(
            f"Nothing is named like the {kind} that this class needs; there is {_listed(values)}. Say which it is with "
            f"{option(kind)}."
        )
    return min(candidates, key=lambda leaf: leaf.place.count("."), default=None)


def option(kind: str) -> str:
    return f"--{kind.replace('_', '-')}-from"


def _listed(values: Sequence[Leaf]) -> str:
    return ", ".join(str(leaf) for leaf in values) or "nothing"


def _token(leaf: Leaf, kind: str, *, needed: bool) -> str:
    token = _BEARER.sub("", str(leaf.value), count=1) if leaf.is_bearer else str(leaf.value)
    settles = f"name another place with {option(kind)}{_or_leave_it_out(kind, needed=needed)}."
    if PLACEHOLDER.search(token):
        raise ConfigurationError(f"{leaf} holds a placeholder, which the guard fills in already; {settles}")
    if not _TOKEN.fullmatch(token) or set(token) == {"*"}:
        raise ConfigurationError(f"{leaf} holds no token (RFC 6749); {settles}")
    return token


def _or_leave_it_out(kind: str, *, needed: bool) -> str:
    return "" if needed else f", or leave it out with {option(kind)} {NOT_WANTED}"


def _instant(leaf: Leaf) -> datetime:
    """Seconds or milliseconds since 1970, or ISO 8601 with a time zone."""
    text = str(leaf.value)
    settles = f"Name another place with {option(EXPIRES_AT)}{_or_leave_it_out(EXPIRES_AT, needed=False)}."
    if re.fullmatch(r"\d+(\.\d*)?", text):
        number = float(text)
        seconds = number / 1000 if number > LATEST else number
        if not EARLIEST < seconds < LATEST:
            raise ConfigurationError(f"{leaf} is a number, but no seconds or milliseconds since 1970. {settles}")
        return datetime.fromtimestamp(seconds, timezone.utc)
    # Nothing else is parsed, since the message would repeat it: somebody may have named a secret.
    if not _DIGITS_AND_SEPARATORS.fullmatch(text):
        raise ConfigurationError(f"{leaf} is no instant: no number, no ISO 8601. {settles}")
    try:
        return parse_instant(text, leaf.place)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} {settles}") from None
