"""Where in a request the token goes: where the provider wants it, unless a consumer knows better."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, parse_qsl, quote, unquote_plus, urlsplit, urlunsplit

from airflow_oauth_guard.domain.redaction import redact_known
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.grants.settings import GrantSettings

TOKEN = "{access_token}"  # noqa: S105 - a place, not a token


class Placement(Protocol):
    """Puts a token into a request; write one of your own for a provider that wants it somewhere else."""

    def place(self, url: str, headers: MutableMapping[str, str], access_token: str) -> str:
        """Put the token into the headers, or return the address with the token in it; replaces one put there before."""

    def is_placed(self, url: str, headers: MutableMapping[str, str], access_token: str) -> bool:
        """Whether the request bears this token."""

    def take_out(self, headers: MutableMapping[str, str]) -> None:
        """Take it out of the headers of a request that is led to another host."""


@dataclass(frozen=True)
class Header:
    """In a header; by default as a bearer token (RFC 6750 section 2.1).

    Args:
        name: The header's name.
        value: Its value, with ``{access_token}`` where the token goes.
    """

    name: str = "Authorization"
    value: str = f"Bearer {TOKEN}"

    def place(self, url: str, headers: MutableMapping[str, str], access_token: str) -> str:
        headers[self.name] = self.value.replace(TOKEN, access_token)
        return url

    def is_placed(self, url: str, headers: MutableMapping[str, str], access_token: str) -> bool:
        return headers.get(self.name) == self.value.replace(TOKEN, access_token)

    def take_out(self, headers: MutableMapping[str, str]) -> None:
        headers.pop(self.name, None)


@dataclass(frozen=True)
class Query:
    """In the address, where it ends up in the logs of whoever sees it: only for providers that take it nowhere else.

    Args:
        name: The parameter's name; by default that of RFC 6750 section 2.3.
    """

    name: str = "access_token"

    def place(self, url: str, headers: MutableMapping[str, str], access_token: str) -> str:
        parts = urlsplit(url)
        # The others as they are written: a signature may be about each letter of them.
        others = [pair for pair in parts.query.split("&") if pair and unquote_plus(pair.partition("=")[0]) != self.name]
        mine = f"{quote(self.name, safe='')}={quote(access_token, safe='')}"
        return urlunsplit(parts._replace(query="&".join([*others, mine])))

    def is_placed(self, url: str, headers: MutableMapping[str, str], access_token: str) -> bool:
        return (self.name, access_token) in parse_qsl(urlsplit(url).query)

    def take_out(self, headers: MutableMapping[str, str]) -> None:
        """There is nothing in the headers, and who redirects says the whole address."""


def placement_of(settings: GrantSettings) -> Placement:
    """Where the provider's preset puts the token, or a bearer header."""
    facts = settings.facts
    for name, value in facts.use_headers.items():
        return Header(name, value)
    for name in facts.use_parameters:
        return Query(name)
    return Header()


def require_https(url: str, settings: GrantSettings) -> None:
    """Raises:
    ConfigurationError: If the token would travel where anybody on the way can read it.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not settings.allow_http:
        raise ConfigurationError(
            f"Credential `{settings.conn_id}`: its token is not sent to {parts.scheme}://{_host(parts)}, where anybody on the "
            "way could read it. Use https, or tick `allow_http` in its connection for a test server."
        )


def same_host(one: str, other: str) -> bool:
    """Whether two addresses are of one scheme, host and port."""
    return _origin(urlsplit(one)) == _origin(urlsplit(other))


def _origin(parts: SplitResult) -> tuple[str, str]:
    # As text: where somebody else's address has a port that is no number, it is another one all the same.
    return parts.scheme, _host(parts).lower().removesuffix(_DEFAULT_PORTS.get(parts.scheme, ""))


_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def without_secrets(url: str, access_token: str) -> str:
    """The address as others may see it: without the token, and without a user's name and password."""
    parts = urlsplit(url)
    return redact_known(urlunsplit(parts._replace(netloc=_host(parts), fragment="")), (access_token,))


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
