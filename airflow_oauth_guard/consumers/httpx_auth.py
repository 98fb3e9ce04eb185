"""For ``httpx``: an auth class for clients, synchronous or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import httpx

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.hooks.placement import Header, Query, placement_of, require_https, same_host
from airflow_oauth_guard.hooks.transport import BODY_LIMIT, unlogged, utcnow
from airflow_oauth_guard.hooks.using import REFUSALS, Handed, Use

if TYPE_CHECKING:
    from airflow_oauth_guard.hooks.base import OAuthGuardHook
    from airflow_oauth_guard.hooks.placement import Placement


class GuardedHttpxAuth(httpx.Auth):
    """Bears a guarded credential's token, a fresh one in each request; for any ``httpx`` client.

    A request that is refused because of the token is sent once more with the next one, which is refreshed for it if
    nobody else has. Only the body of a refusal is read; what is streamed stays so.

    Args:
        conn_id: The guarded connection.
        placement: Where the token goes; by default where the provider's preset says, or in a bearer header.

    Raises:
        CredentialUnusableError: By the request, if there is no token that may be used.

    .. versionadded:: 0.6.0
    """

    def __init__(self, conn_id: str, *, placement: Placement | None = None, use: Use | None = None) -> None:
        self.use = use or Use(conn_id)
        self._placement = placement

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        bearer = self._bearer(request, self.use.hook)
        bearer.stay_at_home(_AtHome(bearer))
        handed: Handed | None = self.use.token()
        while handed is not None:
            with bearer.bearing(handed):
                response = yield request
                if not bearer.is_refused(response, handed):
                    return
            response.read()
            handed = self.use.refused(handed, *_asked_and_told(response))
            if handed is not None:
                bearer.require_that_it_can_be_sent_again()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        bearer = self._bearer(request, await self.use.ahook())
        bearer.stay_at_home(_AsyncAtHome(bearer))
        handed: Handed | None = await self.use.atoken()
        while handed is not None:
            with bearer.bearing(handed):
                response = yield request
                if not bearer.is_refused(response, handed):
                    return
            await response.aread()
            handed = await self.use.arefused(handed, *_asked_and_told(response))
            if handed is not None:
                bearer.require_that_it_can_be_sent_again()

    def _bearer(self, request: httpx.Request, hook: OAuthGuardHook) -> _Bearer:
        require_https(str(request.url), hook.settings)
        return _Bearer(request, self._placement or placement_of(hook.settings))


class _Bearer:
    """One request and the token it bears."""

    def __init__(self, request: httpx.Request, placement: Placement) -> None:
        self.request = request
        self.placement = placement
        self.url = request.url

    @contextmanager
    def bearing(self, handed: Handed) -> Iterator[None]:
        """With the token while it is sent. An address that holds it is neither logged nor left in what errors quote."""
        placed = self.placement.place(str(self.url), self.request.headers, handed.access_token)
        self.request.url = httpx.URL(placed)
        try:
            with nullcontext() if self.request.url == self.url else unlogged():
                yield
        finally:
            self.request.url = self.url

    def is_refused(self, response: httpx.Response, handed: Handed) -> bool:
        asked = response.request
        bears_it = self.placement.is_placed(str(asked.url), asked.headers, handed.access_token)
        return response.status_code in REFUSALS and bears_it and same_host(str(self.url), str(asked.url))

    def require_that_it_can_be_sent_again(self) -> None:
        """Raises:
        RequestError: If its body was streamed: what is left of it is nothing, or a part.
        """
        if not isinstance(self.request.stream, httpx.ByteStream):
            raise httpx.RequestError(
                f"The access token was refused and renewed, and the body of the {self.request.method} to {self.url.host} cannot "
                "be sent a second time since it was streamed. Send it again.",
                request=self.request,
            )

    def stay_at_home(self, trace: _AtHome | _AsyncAtHome) -> None:
        """See that a redirect carries no token to another host.

        httpx itself takes only the header out that it knows, and tells an auth class nothing of redirects. What it hands
        each request of a chain to, httpcore, tells before it sends one.
        """
        in_the_header_it_knows = isinstance(self.placement, Header) and self.placement.name.lower() == "authorization"
        if not in_the_header_it_knows and not isinstance(self.placement, Query):
            self.request.extensions = {**self.request.extensions, "trace": trace}


class _AtHome:
    def __init__(self, bearer: _Bearer) -> None:
        self._placement = bearer.placement
        self._host = bearer.request.headers["host"]
        self._is_secure = bearer.url.scheme == "https"
        self._theirs = bearer.request.extensions.get("trace")

    def __call__(self, event: str, info: dict[str, Any]) -> None:
        self._look(event, info)
        if self._theirs is not None:
            self._theirs(event, info)

    def _look(self, event: str, info: dict[str, Any]) -> None:
        # "http11.send_request_headers.started" and the like. A proxy is asked for a tunnel without our headers.
        if not event.endswith("send_request_headers.started"):
            return
        sent = info["request"]
        headers = httpx.Headers(sent.headers)
        downgraded = self._is_secure and sent.url.scheme != b"https"
        # By the header, since what goes through a proxy has the proxy's address.
        if downgraded or headers.get("host") != self._host:
            self._placement.take_out(headers)
            sent.headers = headers.raw


class _AsyncAtHome(_AtHome):
    async def __call__(self, event: str, info: dict[str, Any]) -> None:  # type: ignore[override]
        self._look(event, info)
        if self._theirs is not None:
            await self._theirs(event, info)


def _asked_and_told(response: httpx.Response) -> tuple[str, str, HttpAnswer]:
    """Method, address and answer of a refusal."""
    answer = HttpAnswer(
        status=response.status_code,
        headers={name.lower(): value for name, value in response.headers.items()},
        body=response.content[:BODY_LIMIT],
        received_at=utcnow(),
    )
    return response.request.method, str(response.request.url), answer
