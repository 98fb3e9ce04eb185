"""For ``requests``: a session, and an auth class for sessions that others make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit

from requests import PreparedRequest, Response, Session
from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import RequestException, UnrewindableBodyError
from requests.utils import rewind_body

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.domain.redaction import redact_error
from airflow_oauth_guard.hooks.placement import Header, placement_of, require_https, same_host, without_secrets
from airflow_oauth_guard.hooks.transport import BODY_LIMIT, utcnow
from airflow_oauth_guard.hooks.using import REFUSALS, Handed, Use

if TYPE_CHECKING:
    from airflow_oauth_guard.hooks.placement import Placement


class GuardedAuth(AuthBase):
    """Bears a guarded credential's token, a fresh one in each request; for ``requests`` and whatever takes its ``auth``.

    A request that is refused because of the token is sent once more with the next one, which is refreshed for it if
    nobody else has.

    Args:
        conn_id: The guarded connection.
        placement: Where the token goes; by default where the provider's preset says, or in a bearer header.

    Raises:
        CredentialUnusableError: By the request, if there is no token that may be used.
    """

    def __init__(self, conn_id: str, *, placement: Placement | None = None, use: Use | None = None) -> None:
        self.use = use or Use(conn_id)
        self._placement = placement

    @property
    def placement(self) -> Placement:
        if self._placement is None:
            self._placement = placement_of(self.use.hook.settings)
        return self._placement

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        require_https(str(request.url), self.use.hook.settings)
        handed = self.use.token()
        self._place(request, handed)
        cast("Any", request).register_hook("response", self._on(handed))
        return request

    def _place(self, request: PreparedRequest, handed: Handed) -> None:
        request.url = self.placement.place(str(request.url), request.headers, handed.access_token)

    def _on(self, handed: Handed) -> Callable[..., Response]:
        def came(response: Response, **how: Any) -> Response:
            held = handed
            self._tidy(response, held)
            while self._is_refused(response, held) and (newer := self._another(held, response)) is not None:
                response, held = self._again(response, newer, how), newer
                self._tidy(response, held)
            return response

        return came

    def _tidy(self, response: Response, handed: Handed) -> None:
        """A redirect carries no token to another host (requests itself sees to the header it knows only), and what the
        response says of its address, in every error it raises, holds none.
        """
        request, url, target = response.request, str(response.url), response.headers.get("location")
        if response.is_redirect and target and not same_host(url, urljoin(url, target)):
            self.placement.take_out(request.headers)
        if not isinstance(self.placement, Header):
            response.url = without_secrets(url, handed.access_token)

    def _is_refused(self, response: Response, handed: Handed) -> bool:
        request = response.request
        bears_it = self.placement.is_placed(str(request.url), request.headers, handed.access_token)
        return response.status_code in REFUSALS and bears_it

    def _another(self, handed: Handed, response: Response) -> Handed | None:
        answer = HttpAnswer(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=response.content[:BODY_LIMIT],
            received_at=utcnow(),
        )
        request = response.request
        return self.use.refused(handed, str(request.method), str(request.url), answer)

    def _again(self, refused: Response, newer: Handed, how: dict[str, Any]) -> Response:
        """The same request once more, with the newer token."""
        request = refused.request
        if request.body is not None and not isinstance(request.body, str | bytes | bytearray):
            _rewind(request)
        # It was read to its end, so its connection can be used again.
        refused.close()
        # As in requests' own digest authentication.
        jar = cast("Any", request)._cookies  # noqa: SLF001
        cast("Any", extract_cookies_to_jar)(jar, request, refused.raw)
        cast("Any", request).prepare_cookies(jar)
        self._place(request, newer)
        response: Response = cast("Any", refused).connection.send(request, **how)
        response.history = [*refused.history, refused]
        response.request = request
        return response


def _rewind(request: PreparedRequest) -> None:
    try:
        rewind_body(request)
    except UnrewindableBodyError as error:
        raise UnrewindableBodyError(
            f"The access token was refused and renewed, and the body of the {request.method} to "
            f"{urlsplit(str(request.url)).hostname} cannot be sent a second time since it was streamed. Send it again."
        ) from error


class GuardedSession(Session):
    """A :class:`requests.Session` that bears a guarded credential's token, a fresh one in each request.

    Args:
        conn_id: The guarded connection.
        placement: Where the token goes; by default where the provider's preset says, or in a bearer header.
    """

    def __init__(self, conn_id: str, *, placement: Placement | None = None, use: Use | None = None) -> None:
        super().__init__()
        self.auth = GuardedAuth(conn_id, placement=placement, use=use)

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """As any session does; its errors quote no address that holds the token."""
        try:
            return super().send(request, **kwargs)
        except RequestException as error:
            if not isinstance(self.auth, GuardedAuth) or isinstance(self.auth.placement, Header):
                raise
            raise type(error)(redact_error(error), request=error.request, response=error.response) from None
