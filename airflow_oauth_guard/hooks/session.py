"""For ``requests``: a session, and an auth class for sessions that others make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin

from requests import PreparedRequest, Response, Session
from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import UnrewindableBodyError
from requests.utils import rewind_body

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.hooks.placement import placement_of, require_https, same_host
from airflow_oauth_guard.hooks.transport import utcnow
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
            self._keep_at_home(response)
            if response.status_code not in REFUSALS or not self._bears(response.request, handed):
                return response
            newer = self._another(handed, response)
            return self._again(response, newer, how) if newer is not None else response

        return came

    def _keep_at_home(self, response: Response) -> None:
        """A redirect carries no token to another host; requests itself sees to the header it knows only."""
        request, target = response.request, response.headers.get("location")
        if response.is_redirect and target and not same_host(str(request.url), urljoin(str(request.url), target)):
            self.placement.take_out(request.headers)

    def _bears(self, request: PreparedRequest, handed: Handed) -> bool:
        return self.placement.is_placed(str(request.url), request.headers, handed.access_token)

    def _another(self, handed: Handed, response: Response) -> Handed | None:
        answer = HttpAnswer(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=response.content,
            received_at=utcnow(),
        )
        request = response.request
        return self.use.refused(handed, str(request.method), str(request.url), answer)

    def _again(self, refused: Response, newer: Handed, how: dict[str, Any]) -> Response:
        """The same request once more, with the newer token."""
        request = refused.request
        if request.body is not None and not isinstance(request.body, (str, bytes)):
            _rewind(request)
        # Consumed and given back, so that its connection can be used again.
        refused.close()
        # Headers it has changed, such as cookies, are those of the session.
        jar = cast("Any", request)._cookies  # noqa: SLF001 - as in requests' own digest authentication
        cast("Any", extract_cookies_to_jar)(jar, request, refused.raw)
        self._place(request, newer)
        response: Response = cast("Any", refused).connection.send(request, **how)
        response.history = [*refused.history, refused]
        response.request = request
        if response.status_code in REFUSALS:
            self._another(newer, response)
        return response


def _rewind(request: PreparedRequest) -> None:
    try:
        rewind_body(request)
    except UnrewindableBodyError as error:
        raise UnrewindableBodyError(
            f"The access token was refused and renewed, and the body of {request.method} {request.url} cannot be sent a second "
            "time since it was streamed. Send it again."
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
