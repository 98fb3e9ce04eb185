"""Starts the authorization server as a process of its own, and speaks to its `/admin` pages.

    with AuthorizationServer() as server:
        server.add_client("crm", rotation=True)
        tokens = server.mint("crm")
        ...
        assert server.truth("crm").grant_live

Standard library only, so that the demo can use it without the tests' requirements.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT = timedelta(seconds=20)
STOP_TIMEOUT = timedelta(seconds=5)
#: The server is on loopback: a proxy from the environment must not come between.
OPENER = build_opener(ProxyHandler({}))

Json = dict[str, Any]


class Nowhere(HTTPRedirectHandler):
    """Follows no redirect: where it leads is what we want to know."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


WITHOUT_REDIRECTS = build_opener(ProxyHandler({}), Nowhere)


@dataclass(frozen=True)
class Minted:
    """Fresh tokens. Their values stay out of `repr`, and so out of pytest's output."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in: int | None


@dataclass(frozen=True)
class Truth:
    """What is really alive, whatever anybody believes."""

    access_token_live: bool
    grant_live: bool
    newest_access_expires_in: int | None


@dataclass(frozen=True)
class SeenRequest:
    """One line of the server's request log; `parameters` are names only."""

    at: str
    client_id: str | None
    path: str
    method: str
    grant_type: str | None
    status: int
    error: str | None
    parameters: list[str]


class AdminError(Exception):
    """The server refused an admin request; the message says why."""


class AuthorizationServer:
    """A running authorization server. It starts on `with` (or `start`) and dies with this process."""

    def __init__(self) -> None:
        self.url = ""
        self._resources = ExitStack()

    # --- Its life

    def start(self) -> AuthorizationServer:
        """Start the process and wait until it listens.

        Raises:
            RuntimeError: It said nothing for 20 seconds, or died; with the end of its standard error.
        """
        with ExitStack() as resources:
            stderr = resources.enter_context(tempfile.TemporaryFile())
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.authorization_server", "--port", "0", "--exit-with-parent"],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
            resources.callback(end, process)
            self.url = json.loads(first_line(process, stderr))["url"]
            self._resources = resources.pop_all()
        return self

    def stop(self) -> None:
        """End the process and wait for it. Safe to call again."""
        self._resources.close()
        self.url = ""

    def __enter__(self) -> AuthorizationServer:
        return self if self.url else self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- Its addresses

    @property
    def token_url(self) -> str:
        """RFC 6749 token endpoint."""
        return f"{self.url}/oauth/token"

    @property
    def authorization_url(self) -> str:
        """RFC 6749 authorization endpoint: a page with the buttons Approve and Deny."""
        return f"{self.url}/oauth/authorize"

    @property
    def device_authorization_url(self) -> str:
        """RFC 8628 endpoint; people approve at `/device`."""
        return f"{self.url}/oauth/device"

    @property
    def introspection_url(self) -> str:
        """RFC 7662 endpoint."""
        return f"{self.url}/oauth/introspect"

    @property
    def revocation_url(self) -> str:
        """RFC 7009 endpoint."""
        return f"{self.url}/oauth/revoke"

    @property
    def probe_url(self) -> str:
        """Answers who a live access token speaks for."""
        return f"{self.url}/api/me"

    @property
    def rows_url(self) -> str:
        """The source's data."""
        return f"{self.url}/api/rows"

    @property
    def meta_url(self) -> str:
        """Facebook's token exchange."""
        return f"{self.url}/meta/oauth/access_token"

    @property
    def instagram_url(self) -> str:
        """Instagram's refresh, GET only."""
        return f"{self.url}/instagram/refresh_access_token"

    @property
    def threads_url(self) -> str:
        """Threads' refresh, GET only."""
        return f"{self.url}/threads/refresh_access_token"

    @property
    def login_url(self) -> str:
        """A vendor's own login, with an envelope around the token."""
        return f"{self.url}/vendor/login"

    def installation_url(self, installation_id: str) -> str:
        """Where a GitHub App gets the token of an installation."""
        return f"{self.url}/app/installations/{installation_id}/access_tokens"

    # --- Its admin pages

    def add_client(
        self,
        client_id: str,
        *,
        client_secret: str | None = "s3cret",
        token_endpoint_auth_method: str = "client_secret_basic",
        grant_types: Sequence[str] = ("refresh_token",),
        rotation: bool = False,
        reuse_detection: bool = False,
        rotation_grace: timedelta = timedelta(),
        wrong_grant_error: str = "unsupported_grant_type",
        scope: str = "read",
        jwks: Json | None = None,
        access_lifetime: timedelta | None = timedelta(hours=1),
        refresh_lifetime: timedelta | None = None,
        secret_prefix: str = "tok-",
        users: dict[str, str] | None = None,
        account_id: str = "",
        subject_tokens: Sequence[str] = (),
        assertions: Sequence[str] = (),
        redirect_uris: Sequence[str] = (),
        require_pkce: bool = False,
        device_interval: timedelta = timedelta(seconds=1),
    ) -> None:
        """Register a client, from scratch if there is one of that name: its old tokens are forgotten.

        Args:
            client_id: Its name.
            client_secret: Its secret. None for public clients and those that sign.
            token_endpoint_auth_method: client_secret_basic, client_secret_post, client_secret_jwt, private_key_jwt or none.
            grant_types: All it may send. Facebook: fb_exchange_token; Instagram: ig_refresh_token;
                Threads: th_refresh_token. "long_lived": nothing, its tokens cannot be renewed. For people who approve:
                authorization_code, urn:ietf:params:oauth:grant-type:device_code.
            rotation: Whether each refresh replaces the refresh token; the old one is dead at once.
            reuse_detection: Whether a replaced refresh token that comes back ends its family.
            rotation_grace: How long a replaced refresh token still buys fresh tokens of its family, which counts as
                no reuse. Whole seconds. Default: not at all.
            wrong_grant_error: The answer to any other grant type: an RFC 6749 code, or "meta".
            scope: All it may ask for, separated by spaces.
            jwks: Public keys, for private_key_jwt, jwt-bearer and GitHub Apps.
            access_lifetime: Of access tokens. None: for ever, and no `expires_in`.
            refresh_lifetime: Of refresh tokens. None: for ever.
            secret_prefix: How its tokens begin, so that logs can be searched for them.
            users: Name and password of those who may log in: for the password grant and `login_url`.
            account_id: Of account_credentials; of a GitHub App its installation.
            subject_tokens: What it may exchange (RFC 8693).
            assertions: The SAML assertions it may show, in base64url without padding (RFC 7522).
            redirect_uris: Where people may be sent back to with a code, letter by letter.
            require_pkce: Whether an authorization request without a code challenge is refused. Another method than S256
                always is.
            device_interval: How long a device has to wait between two polls. Whole seconds.
        """
        client = {
            "client_id": client_id,
            "client_secret": client_secret,
            "token_endpoint_auth_method": token_endpoint_auth_method,
            "grant_types": list(grant_types),
            "rotation": rotation,
            "reuse_detection": reuse_detection,
            "rotation_grace": seconds(rotation_grace),
            "wrong_grant_error": wrong_grant_error,
            "scope": scope,
            "jwks": jwks,
            "access_lifetime": seconds(access_lifetime),
            "refresh_lifetime": seconds(refresh_lifetime),
            "secret_prefix": secret_prefix,
            "users": users or {},
            "account_id": account_id,
            "subject_tokens": list(subject_tokens),
            "assertions": list(assertions),
            "redirect_uris": list(redirect_uris),
            "require_pkce": require_pkce,
            "device_interval": seconds(device_interval),
        }
        self._admin("POST", "clients", client)

    def change_client(self, client_id: str, **changes: Any) -> None:
        """Change some of `add_client`'s settings, or `disabled=True`. Tokens stay as they are."""
        plain = {name: seconds(v) if isinstance(v, timedelta) else v for name, v in changes.items()}
        self._admin("PATCH", f"clients/{client_id}", plain)

    def mint(
        self,
        client_id: str,
        user: str = "ada",
        *,
        with_refresh: bool | None = None,
        access_lifetime: timedelta | None = None,
        secret_prefix: str | None = None,
    ) -> Minted:
        """A person consents: a new grant with its first tokens.

        Args:
            client_id: The client it is for.
            user: Who consents.
            with_refresh: Whether there is a refresh token. None: if the client may use one.
            access_lifetime: Of this access token only. None: as the client's.
            secret_prefix: How this and all later tokens of the client begin. None: as before.
        """
        wishes: Json = {"client_id": client_id, "user": user, "secret_prefix": secret_prefix}
        if with_refresh is not None:
            wishes["with_refresh"] = with_refresh
        if access_lifetime is not None:
            wishes["access_lifetime"] = seconds(access_lifetime)
        return Minted(**self._admin("POST", "mint", wishes))

    def approve(self, authorization_url: str, user: str = "ada", *, deny: bool = False) -> str:
        """A person presses Approve (or Deny) on the page of this address; returns where their browser is sent.

        Raises:
            AdminError: The page sends them nowhere; with what it says instead.
        """
        status, location, page = self._press(authorization_url, {"user": user}, deny=deny)
        if not location:
            raise AdminError(f"{status} from the authorization page: {page}")
        return location

    def approve_device(self, user_code: str, user: str = "ada", *, deny: bool = False) -> None:
        """A person enters the code that a device shows, and approves (or denies).

        Raises:
            AdminError: No device waits with this code.
        """
        status, _, page = self._press(f"{self.url}/device", {"user": user, "user_code": user_code}, deny=deny)
        if status != 200:
            raise AdminError(f"{status} from the device page: {page}")

    def _press(self, url: str, form: dict[str, str], *, deny: bool) -> tuple[int, str, str]:
        """Status, redirect and text of a page after one of its buttons was pressed."""
        sent = urlencode({**form, "decision": "deny" if deny else "approve"}).encode()
        try:
            with WITHOUT_REDIRECTS.open(Request(url, data=sent), timeout=10) as response:
                return response.status, "", response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.headers.get("Location", ""), error.read().decode()

    def revoke(self, client_id: str, user: str | None = None, *, access: bool = True, grant: bool = True) -> None:
        """Kill access tokens, grants or both, of a client or one of its users.

        Meta's classes have no grant besides the access token: `grant` alone kills both. A client without
        users (client_credentials, jwt-bearer) can get a new token; to stop that, disable it.
        """
        wishes = {"client_id": client_id, "user": user, "access": access, "grant": grant}
        self._admin("POST", "revoke", wishes)

    def fault(
        self,
        kind: str,
        *,
        client_id: str | None = None,
        path: str | None = None,
        on: str | None = None,
        times: int | None = None,
        **details: Any,
    ) -> None:
        """Stage a failure, behind those already staged: the first that matches a request is used.

        Args:
            kind: status, html, truncated, huge, error_200, empty_200, hang or redirect.
            client_id: Only requests of this client, or with one of its tokens.
            path: Only this path, such as /oauth/token or /oauth/authorize.
            on: "token", "resource" or "both". Default "token" for a client, else "both".
            times: How often. None: until cleared.
            **details: status, body (text or JSON), headers; megabytes; seconds; url, by kind.
        """
        limits = {"client_id": client_id, "path": path, "on": on, "times": times}
        self._admin("POST", "faults", {"kind": kind, **limits, **details})

    def clear_faults(self) -> None:
        """Everything works again."""
        self._admin("DELETE", "faults")

    def advance(self, duration: timedelta, *, signers_too: bool = False) -> None:
        """Let time pass on the server, for all clients; it does not go back.

        Args:
            signers_too: Whether it passed for those who sign jwt-bearer assertions as well.
        """
        self._admin("POST", "clock", {"advance_seconds": duration.total_seconds(), "signers_too": signers_too})

    def set_rows(self, client_id: str, count: int) -> None:
        """How many rows `rows_url` sends."""
        self._admin("POST", "rows", {"client_id": client_id, "count": count})

    def truth(self, client_id: str, user: str | None = None) -> Truth:
        """What is really alive: the newest access token, and the grant."""
        return Truth(**self._admin("GET", query("truth", client_id=client_id, user=user)))

    def requests(self, client_id: str | None = None) -> list[SeenRequest]:
        """What the server was asked, oldest first."""
        seen = self._admin("GET", query("requests", client_id=client_id))
        return [SeenRequest(**entry) for entry in seen]

    def clear_requests(self) -> None:
        """Begin a new request log."""
        self._admin("DELETE", "requests")

    def _admin(self, method: str, page: str, body: Json | None = None) -> Any:
        """Call one admin page and return its JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.url}/admin/{page}", data=data, headers=headers, method=method)
        try:
            with OPENER.open(request, timeout=10) as response:
                return json.load(response)
        except HTTPError as error:
            with error:
                raise AdminError(f"{method} /admin/{page}: {error.read().decode()}") from None


def first_line(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> bytes:
    """What the process prints when it is ready.

    Raises:
        RuntimeError: It printed nothing in time, or ended.
    """
    stdout = cast("IO[bytes]", process.stdout)
    ready, _, _ = select.select([stdout], [], [], START_TIMEOUT.total_seconds())
    line = stdout.readline() if ready else b""
    if not line:
        state = "ended before it was ready" if ready else f"was not ready after {START_TIMEOUT}"
        raise RuntimeError(f"The authorization server {state}:\n{tail(stderr)}")
    return line


def tail(file: IO[bytes], size: int = 4000) -> str:
    """The end of a file another process writes. Not by seeking: the two share one position."""
    length = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, max(0, length - size)).decode(errors="replace")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to go, then make it go."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT.total_seconds())
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def seconds(duration: timedelta | None) -> int | None:
    """Durations travel as whole seconds."""
    return None if duration is None else int(duration.total_seconds())


def query(page: str, **parameters: str | None) -> str:
    """A page with those parameters that are there."""
    present = {name: value for name, value in parameters.items() if value is not None}
    return f"{page}?{urlencode(cast('Any', present))}"
