"""Each fault of the proxy happens every time, as a plain client of the standard library sees it."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlencode

import pytest

from tests.authorization_server.client import AuthorizationServer
from tests.faults.proxy import ANSWERS, DOORS, DRIP_SECONDS, HUGE, FaultProxy, make_certificates, names_fail

pytestmark = pytest.mark.any_airflow


REPEATS = 10
PATIENCE_SECONDS = 0.1
"""How long the client waits for the next byte."""
FORM = {"grant_type": "client_credentials"}
SILENT = {"hang", "hang_after", "connect_timeout", "drip"}

SEEN = {
    "": "200 token",
    "hang": "TimeoutError",
    "hang_after": "TimeoutError",
    "reset_before": "ConnectionResetError",
    "reset_after": "ConnectionResetError",
    "truncated": "IncompleteRead",
    "cut_json": "200 JSONDecodeError",
    "cut_gzip": "200 EOFError",
    "bad_gzip": "200 BadGzipFile",
    "gzip_bomb": "200 token, padded",
    "huge": "200 token, padded",
    "broken_chunks": "IncompleteRead",
    "empty_200": "200 nothing",
    "500": "500 JSONDecodeError",
    "502_after": "502 JSONDecodeError",
    "503": "503 JSONDecodeError",
    "429": "429 JSONDecodeError",
    "429_cut": "IncompleteRead",
    "429_retry_after": "429 JSONDecodeError",
    "portal_html": "200 JSONDecodeError",
    "portal_xhtml": "200 JSONDecodeError",
    "portal_redirect": "302 JSONDecodeError",
    "redirect_loop": "307 nothing",
    "error_200": "200 no token",
    "empty_400": "400 nothing",
    "refused": "ConnectionRefusedError",
    "connect_timeout": "TimeoutError",
}
PROCESSED = {
    *("", "hang_after", "reset_after", "truncated", "cut_json", "cut_gzip", "bad_gzip", "gzip_bomb", "huge"),
    *("broken_chunks", "empty_200", "502_after"),
}


@pytest.fixture(scope="module")
def proxy(server: AuthorizationServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as running:
        yield running


@pytest.fixture
def client_headers(server: AuthorizationServer, client_id: str, proxy: FaultProxy) -> Iterator[dict[str, str]]:
    server.add_client(client_id, grant_types=["client_credentials"])
    proxy.requests.clear()
    basic = b64encode(f"{client_id}:s3cret".encode()).decode()
    yield {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    proxy.clear()


def ask(connection: HTTPConnection, headers: dict[str, str]) -> str:
    """What a client sees that asks once and follows nothing."""
    try:
        connection.request("POST", "/oauth/token", urlencode(FORM), headers)
        answer = connection.getresponse()
        body = answer.read()
    except Exception as error:
        return type(error).__name__
    finally:
        connection.close()
    return f"{answer.status} {content(body, answer.getheader('Content-Encoding', ''))}"


def content(body: bytes, encoding: str) -> str:
    try:
        plain = gzip.decompress(body) if encoding == "gzip" else body
        document = json.loads(plain) if plain else None
    except Exception as error:
        return type(error).__name__
    if document is None:
        return "nothing"
    return ("token" if "access_token" in document else "no token") + (", padded" if len(plain) > HUGE else "")


def processed(server: AuthorizationServer, client_id: str, expected: int) -> int:
    """How many requests the server has answered; a client that left may have been quicker than the server."""
    deadline = time.monotonic() + 5
    while len(server.requests(client_id)) < expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return sum(request.status == 200 for request in server.requests(client_id))


def plainly(proxy: FaultProxy) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE_SECONDS if proxy_is_silent(proxy) else 10)


def proxy_is_silent(proxy: FaultProxy) -> bool:
    staged = proxy._staged
    return bool(proxy._filled) or (staged is not None and staged.name in SILENT)


def test_every_fault_is_described_here():
    assert {*ANSWERS, *DOORS, ""} == {*SEEN, "drip", "tls"}


@pytest.mark.parametrize("fault", SEEN)
def test_a_fault_happens_every_time_and_reaches_the_server_or_not(fault, proxy, client_headers, server, client_id):
    if fault:
        proxy.stage(fault)
    seen = [ask(plainly(proxy), client_headers) for _ in range(REPEATS)]
    proxy.clear()
    assert set(seen) == {SEEN[fault]}
    expected = REPEATS if fault in PROCESSED else 0
    assert processed(server, client_id, expected) == proxy.forwarded == expected
    assert [request.fault for request in proxy.requests] == [fault] * (0 if fault in DOORS else REPEATS)
    assert ask(plainly(proxy), client_headers) == "200 token", "once cleared, everything works"


def test_a_drip_never_meets_a_read_timeout_and_never_ends(proxy, client_headers, server, client_id):
    proxy.stage("drip")
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=DRIP_SECONDS * 10) as sender:
            lines = [f"{name}: {value}" for name, value in client_headers.items()]
            sent = urlencode(FORM)
            head = ["POST /oauth/token HTTP/1.1", "Host: here", f"Content-Length: {len(sent)}", *lines, "", sent]
            sender.sendall("\r\n".join(head).encode())
            begun = time.monotonic()
            received = [sender.recv(1) for _ in range(6)]
            assert time.monotonic() - begun >= DRIP_SECONDS * 4
            assert b"HTTP/1.1 200 Said".startswith(b"".join(received))
    assert processed(server, client_id, 2) == 2


def test_a_certificate_that_nobody_signed_keeps_the_request_from_being_sent(server, client_headers, client_id):
    certificates = make_certificates()
    trusting = ssl.create_default_context(cadata=certificates.authority.decode())
    with FaultProxy(server.url, certificates) as proxy:
        for fault, expected in (("", "200 token"), ("tls", "SSLCertVerificationError"), ("", "200 token")):
            proxy.clear()
            if fault:
                proxy.stage(fault)
            seen = [
                ask(HTTPSConnection("localhost", proxy.port, timeout=10, context=trusting), client_headers)
                for _ in range(REPEATS)
            ]
            assert set(seen) == {expected}
        assert proxy.forwarded == 2 * REPEATS == len(server.requests(client_id))


def test_a_name_fails_to_resolve_for_one_host_only(proxy, client_headers):
    by_name = HTTPConnection("localhost", proxy.port, timeout=10)
    with names_fail("localhost"):
        assert {ask(by_name, client_headers) for _ in range(REPEATS)} == {"gaierror"}
        assert ask(plainly(proxy), client_headers) == "200 token"
    assert ask(by_name, client_headers) == "200 token"


def test_a_fault_is_used_as_often_as_it_is_told(proxy, client_headers):
    proxy.stage("503", times=2)
    assert [ask(plainly(proxy), client_headers) for _ in range(3)] == ["503 JSONDecodeError"] * 2 + ["200 token"]


@pytest.mark.parametrize(("fault", "times"), [("flood", None), ("refused", 1)])
def test_a_fault_that_does_not_exist_is_refused(fault, times, proxy):
    with pytest.raises(ValueError, match=f"no fault '{fault}'"):
        proxy.stage(fault, times=times)


def test_what_was_sent_can_be_read_and_is_not_shown(proxy, client_headers):
    ask(plainly(proxy), client_headers)
    [seen] = proxy.requests
    assert seen.parameters == FORM
    assert FORM["grant_type"] not in repr(seen)
    assert "Basic" not in repr(seen)
