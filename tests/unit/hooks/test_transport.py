"""Whatever a network can do, there is an answer or a reason for none; never an exception, and never a guess."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import socket
import ssl
import struct
import time
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="the hooks package needs Airflow")

import httpx

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, NoAnswer
from airflow_oauth_guard.grants.flow import HttpRequest, shape_of
from airflow_oauth_guard.hooks import transport
from airflow_oauth_guard.hooks.transport import BODY_LIMIT, send
from tests.unit.grants.certificates import certificate, new_key, pem

pytestmark = pytest.mark.airflow

SECRET = "planted-access-token"
DEADLINE = timedelta(seconds=5)
DOCUMENT = json.dumps({"access_token": "next", "expires_in": 3600}).encode()


def request(url: str, method: str = "POST", **headers: str) -> HttpRequest:
    """A request whose secrets are where they may be: in the query, in a header and in the body."""
    url = f"{url}{'&' if '?' in url else '?'}access_token={SECRET}"
    shape = shape_of(method, url, grant_type="x", client_auth="none", body_format="form", names={})
    content = f"refresh_token={SECRET}".encode() if method == "POST" else b""
    known = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/x-www-form-urlencoded"}
    return HttpRequest(method, url, {**known, **headers}, content, shape)


def sent(url: str, *, deadline: timedelta = DEADLINE, **how: Any) -> Answer:
    return asyncio.run(send(request(url, **how), deadline=deadline))


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answered_by(handler: Handler, *, scheme: str = "http", deadline: timedelta = DEADLINE) -> Answer:
    """Send one request to a server that reads it and then does whatever ``handler`` does with the connection."""

    async def play() -> Answer:
        tasks: set[asyncio.Task[None] | None] = set()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.current_task())
            try:
                if scheme == "http":
                    await reader.readuntil(SECRET.encode() + b"\r\n")
                await handler(reader, writer)
            except (asyncio.CancelledError, ConnectionError):
                # The other side had enough, or the play is over.
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await send(request(f"{scheme}://127.0.0.1:{port}/token"), deadline=deadline)
        finally:
            for task in tasks - {None}:
                task.cancel()
            await asyncio.gather(*(task for task in tasks if task), return_exceptions=True)
            server.close()
            await server.wait_closed()

    return asyncio.run(play())


def says(raw: bytes) -> Handler:
    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return handler


def http(body: bytes, *, status: str = "200 OK", length: int | None = None, **headers: str) -> Handler:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return says("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def silence(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def closed_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# -- complete answers -------------------------------------------------------------------------------------------------


def test_a_complete_answer_comes_back_as_it_was_sent():
    answer = answered_by(http(b'{"error": "invalid_grant"}', status="400 Bad Request", X_Thing="One"))
    assert isinstance(answer, HttpAnswer)
    assert (answer.status, answer.body) == (400, b'{"error": "invalid_grant"}')
    assert answer.headers["x-thing"] == "One"
    assert answer.received_at.utcoffset() == timedelta()


def test_html_with_status_200_is_an_answer_and_is_kept_as_html(server, client_id):
    server.fault("html", path="/oauth/token", times=1)
    answer = sent(server.token_url)
    assert isinstance(answer, HttpAnswer)
    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/html")
    assert answer.body.startswith(b"<!doctype html>")


def test_a_redirect_is_an_answer_and_is_not_followed(server, client_id):
    """307 would carry method and body, token and all, to another host."""
    server.fault("redirect", path="/oauth/token", url=f"{server.url}/api/me")
    answer = sent(server.token_url)
    assert isinstance(answer, HttpAnswer)
    assert (answer.status, answer.headers["location"]) == (307, f"{server.url}/api/me")
    assert [seen.path for seen in server.requests()] == ["/oauth/token"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_read_although_we_asked_for_none(encoding):
    body = gzip.compress(DOCUMENT) if encoding == "gzip" else zlib.compress(DOCUMENT)
    answer = answered_by(http(body, Content_Encoding=encoding))
    assert isinstance(answer, HttpAnswer)
    assert answer.body == DOCUMENT


def test_an_answer_just_within_the_limit_is_read():
    answer = answered_by(http(b"x" * BODY_LIMIT))
    assert isinstance(answer, HttpAnswer)
    assert len(answer.body) == BODY_LIMIT


# -- answers too large ------------------------------------------------------------------------------------------------


def measured(play: Callable[[], Answer]) -> tuple[Answer, float, int]:
    """The answer, the seconds it took and the bytes of memory it needed at most."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        answer = play()
        return answer, time.monotonic() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_answer_of_100_megabytes_is_cut_off_at_the_limit(server, client_id):
    server.fault("huge", path="/oauth/token", times=1, megabytes=100)
    answer, seconds, peak = measured(lambda: sent(server.token_url))
    assert isinstance(answer, NoAnswer)
    assert "larger than 1024 KB" in answer.reason
    assert (answer.maybe_processed, answer.provider_at_fault) == (True, False)
    assert seconds < 3
    assert peak < 16 * BODY_LIMIT


def test_a_gzip_bomb_is_cut_off_at_the_limit():
    bomb = gzip.compress(b"\0" * 200_000_000, compresslevel=9)
    assert len(bomb) < BODY_LIMIT
    answer, seconds, peak = measured(lambda: answered_by(http(bomb, Content_Encoding="gzip")))
    assert isinstance(answer, NoAnswer)
    assert "larger than" in answer.reason
    assert answer.maybe_processed
    assert seconds < 3
    assert peak < 16 * BODY_LIMIT


def test_one_byte_over_the_limit_is_too_large():
    assert isinstance(answered_by(http(b"x" * (BODY_LIMIT + 1))), NoAnswer)


# -- answers cut off or broken ----------------------------------------------------------------------------------------


def test_a_truncated_answer_is_none(server, client_id):
    server.fault("truncated", path="/oauth/token", times=1)
    answer = sent(server.token_url)
    assert isinstance(answer, NoAnswer)
    assert answer.maybe_processed
    assert "broke off" in answer.reason


def test_a_document_that_is_complete_before_the_promised_length_is_still_none():
    answer = answered_by(http(DOCUMENT, length=len(DOCUMENT) + 1))
    assert isinstance(answer, NoAnswer)
    assert answer.maybe_processed


COMPRESSED = gzip.compress(DOCUMENT)


@pytest.mark.parametrize(
    "body",
    [
        COMPRESSED[:-8],
        COMPRESSED[:-1],
        COMPRESSED[: len(COMPRESSED) // 2],
        COMPRESSED[:10],
        COMPRESSED[:-8] + b"\0\0\0\0" + COMPRESSED[-4:],
        b"not gzip at all",
        DOCUMENT,
    ],
    ids=["no trailer", "one byte short", "half", "header only", "wrong checksum", "garbage", "not compressed"],
)
def test_broken_compression_is_no_answer_even_where_what_is_there_reads_as_json(body):
    answer = answered_by(http(body, Content_Encoding="gzip"))
    assert isinstance(answer, NoAnswer), answer
    assert answer.maybe_processed
    assert "compression" in answer.reason


@pytest.mark.parametrize(
    "handler",
    [reset, says(b""), says(b"HTTP/1.1 200 OK\r\nContent-Le"), says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")],
    ids=["reset", "closed", "cut headers", "another protocol"],
)
def test_a_connection_that_breaks_after_the_request_may_have_been_processed(handler):
    answer = answered_by(handler)
    assert isinstance(answer, NoAnswer)
    assert answer.maybe_processed
    assert answer.provider_at_fault


# -- answers too slow -------------------------------------------------------------------------------------------------


def drips(head: bytes) -> Handler:
    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    return handler


@pytest.mark.parametrize(
    "handler",
    [drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"), drips(b"HTTP/1.1 200 OK\r\nX-Long: "), silence],
    ids=["a dripping body", "a dripping header", "silence"],
)
def test_the_deadline_holds_for_everything_together(handler):
    started = time.monotonic()
    answer = answered_by(handler, deadline=timedelta(seconds=0.3))
    assert time.monotonic() - started < 1.5
    assert isinstance(answer, NoAnswer)
    assert answer.maybe_processed
    assert "nothing complete within" in answer.reason


def test_a_server_that_hangs_meets_the_deadline(server, client_id):
    server.fault("hang", path="/oauth/token", times=1, seconds=1)
    answer = sent(server.token_url, deadline=timedelta(seconds=0.2))
    assert isinstance(answer, NoAnswer)
    assert answer.maybe_processed


# -- nothing was sent -------------------------------------------------------------------------------------------------


def test_a_refused_connection_was_certainly_not_processed():
    answer = sent(f"http://127.0.0.1:{closed_port()}/token")
    assert isinstance(answer, NoAnswer)
    assert not answer.maybe_processed


def test_an_unknown_host_was_certainly_not_reached():
    answer = sent("https://provider.invalid/token")
    assert isinstance(answer, NoAnswer)
    assert not answer.maybe_processed


def test_a_server_that_speaks_no_tls_was_sent_nothing():
    answer = answered_by(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), scheme="https")
    assert isinstance(answer, NoAnswer)
    assert not answer.maybe_processed


def test_a_connection_that_is_never_accepted_was_certainly_not_processed(monkeypatch):
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", timedelta(seconds=0.2))
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            answer = sent(f"http://127.0.0.1:{listener.getsockname()[1]}/token")
        finally:
            for one in waiting:
                one.close()
    assert isinstance(answer, NoAnswer)
    assert not answer.maybe_processed


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("https:// provider.example/token", {}),
        ("https://provider.example/to\x01ken", {}),
        (f"https://{'x' * 70}.example/token", {}),
        ("", {"Authorization": f"Bearer {SECRET} tøken"}),
        ("", {"Authorization": f"Bearer {SECRET}\r\nX-Evil: 1"}),
    ],
    ids=["space in the host", "control character", "label too long", "header beyond ASCII", "line break in a header"],
)
def test_a_request_that_cannot_be_written_is_no_answer_and_not_an_exception(url, headers, server, client_id):
    answer = sent(url or server.token_url, **headers)
    assert isinstance(answer, NoAnswer)
    assert not answer.maybe_processed
    assert SECRET not in answer.reason
    assert server.requests() == []


def refuses_the_tunnel(status: str) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"CONNECT provider.example:443")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()

    return handler


async def sent_by_proxy(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> Answer:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await handler(reader, writer)

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        behind(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", monkeypatch)
        return await send(request("https://provider.example/token"), deadline=DEADLINE)


def behind(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a network whose only way out is a proxy."""
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "502 Bad Gateway", "503 Service Unavailable"])
def test_what_a_proxy_did_not_let_pass_was_certainly_not_processed(status, monkeypatch):
    answer = asyncio.run(sent_by_proxy(refuses_the_tunnel(status), monkeypatch))
    assert isinstance(answer, NoAnswer)
    assert not answer.maybe_processed
    assert "the proxy refuses" in answer.reason


def test_a_proxy_of_an_unknown_kind_is_no_answer_and_not_an_exception(monkeypatch):
    behind("ftp://127.0.0.1:1", monkeypatch)
    answer = sent("https://provider.example/token")
    assert isinstance(answer, NoAnswer)
    assert (answer.maybe_processed, answer.provider_at_fault) == (False, False)
    assert "the proxy's address" in answer.reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_tls_handshake_that_stalls_past_the_deadline_was_certainly_not_processed():
    answer = answered_by(silence, scheme="https", deadline=timedelta(seconds=0.3))
    # httpcore leaves the socket of a handshake that was cancelled to the garbage collector, which complains.
    gc.collect()
    assert isinstance(answer, NoAnswer)
    assert not answer.maybe_processed


# -- what a status says counts, although its body did not arrive ------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "maybe_processed"),
    [
        ("200 OK", True),
        ("302 Found", False),
        ("400 Bad Request", False),
        ("401 Unauthorized", False),
        ("429 Too Many Requests", False),
        ("500 Internal Server Error", True),
        ("501 Not Implemented", False),
        ("502 Bad Gateway", True),
        ("503 Service Unavailable", False),
        ("504 Gateway Timeout", True),
    ],
)
@pytest.mark.parametrize("ends", ["cut off", "hangs"])
def test_whether_a_token_may_have_been_issued_follows_from_the_status(status, maybe_processed, ends):
    head = http(b"half", status=status, length=500)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader, writer)
        if ends == "hangs":
            await silence(reader, writer)

    answer = answered_by(handler, deadline=timedelta(seconds=0.3) if ends == "hangs" else DEADLINE)
    assert isinstance(answer, NoAnswer)
    assert answer.maybe_processed is maybe_processed


# -- client certificates ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """A certificate authority of our own, which this process trusts, and the files that the ssl module wants."""

    folder: Path
    key: Any
    root: Any

    def issue(self, name: str, *, password: bytes = b"") -> str:
        """Certificate and key of somebody, in PEM."""
        key = new_key()
        return pem(certificate(key, name, issuer=(self.root, self.key))) + pem(key, password)

    def server(self, newest: ssl.TLSVersion) -> ssl.SSLContext:
        """Lets in whoever shows a certificate of this authority."""
        file = self.folder / "server.pem"
        file.write_text(self.issue("server"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = newest
        context.load_cert_chain(file)
        context.load_verify_locations(self.folder / "root.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    key = new_key()
    made = Authority(tmp_path, key, certificate(key, "root", is_authority=True))
    (tmp_path / "root.pem").write_text(pem(made.root))
    # The system's own trust store, as OpenSSL looks for it.
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    transport._tls.cache_clear()
    yield made
    transport._tls.cache_clear()


@dataclass
class Visit:
    answer: Answer
    asked: int = 0
    """Requests that reached the server's own code."""
    peer: str = ""
    """The name in the certificate that the client showed."""


def visit(authority: Authority, shown: str, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Visit:
    """Send one request to a server that wants a client certificate."""
    seen = Visit(NoAnswer("never sent", maybe_processed=False, received_at=transport.utcnow()))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            seen.asked += 1
            seen.peer = dict(field[0] for field in writer.get_extra_info("peercert")["subject"])["commonName"]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            # Whoever was not let in is gone.
            pass
        finally:
            writer.close()

    async def play() -> Answer:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=authority.server(newest)) as server:
            port = server.sockets[0].getsockname()[1]
            asked = replace(request(f"https://127.0.0.1:{port}/token"), client_certificate=shown)
            return await send(asked, deadline=DEADLINE)

    seen.answer = asyncio.run(play())
    return seen


VERSIONS = pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@pytest.mark.rfc("8705", "2")
@VERSIONS
def test_a_server_that_wants_a_certificate_lets_in_whoever_shows_it(authority, newest):
    seen = visit(authority, authority.issue("crm-app"), newest=newest)
    assert isinstance(seen.answer, HttpAnswer), seen.answer
    assert (seen.answer.status, seen.asked, seen.peer) == (200, 1, "crm-app")


@pytest.mark.rfc("8705", "2")
@VERSIONS
def test_without_the_certificate_there_is_no_answer_and_the_request_is_not_read(authority, newest):
    seen = visit(authority, "", newest=newest)
    assert isinstance(seen.answer, NoAnswer)
    assert seen.asked == 0
    # Since TLS 1.3 a client hears that it is not let in only after it has sent.
    assert newest is ssl.TLSVersion.TLSv1_3 or not seen.answer.maybe_processed


def test_a_certificate_of_somebody_else_is_not_let_in(authority):
    key = new_key()
    seen = visit(authority, pem(certificate(key, "stranger")) + pem(key))
    assert isinstance(seen.answer, NoAnswer)
    assert seen.asked == 0


def test_two_connections_each_show_their_own_certificate(authority):
    one, other = authority.issue("one"), authority.issue("other")
    assert [visit(authority, shown).peer for shown in (one, other, one)] == ["one", "other", "one"]


def test_a_certificate_does_not_make_us_trust_the_server(authority, monkeypatch):
    """Its issuer may be anybody; the server has to be known to this machine."""
    shown = authority.issue("crm-app")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.folder / "nothing.pem"))
    (authority.folder / "nothing.pem").write_text(pem(certificate(new_key(), "another root", is_authority=True)))
    transport._tls.cache_clear()
    seen = visit(authority, shown)
    assert isinstance(seen.answer, NoAnswer)
    assert not seen.answer.maybe_processed
    assert seen.asked == 0


def swapped(authority: Authority) -> str:
    return pem(certificate(new_key(), "crm-app", issuer=(authority.root, authority.key))) + pem(new_key())


@pytest.mark.parametrize(
    "shown",
    [
        lambda _: "s3cret nonsense",
        lambda authority: pem(authority.root),
        lambda authority: authority.issue("crm-app").partition("-----BEGIN PRIVATE")[0],
        swapped,
        lambda authority: authority.issue("crm-app")[:-60],
    ],
    ids=["text", "no key", "key cut off", "another key", "broken key"],
)
def test_a_certificate_that_cannot_be_shown_is_no_answer_and_not_an_exception(authority, shown):
    seen = visit(authority, shown(authority))
    assert isinstance(seen.answer, NoAnswer)
    assert (seen.answer.maybe_processed, seen.answer.provider_at_fault) == (False, False)
    assert "s3cret" not in seen.answer.reason
    assert "PRIVATE KEY" not in seen.answer.reason
    assert "certificate" in seen.answer.reason, "or somebody will look for a proxy"
    assert seen.asked == 0


def test_a_key_with_a_password_is_no_answer_and_nobody_is_asked_to_type_one(authority, monkeypatch):
    """OpenSSL would ask on the terminal, in the middle of the event loop, where no deadline holds."""
    load, asked = ssl.SSLContext.load_cert_chain, []

    def without_a_terminal(self: ssl.SSLContext, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        if certfile == authority.folder / "server.pem":
            return load(self, certfile)
        if password is None:
            asked.append(certfile)
            raise ssl.SSLError("somebody would have to type the password")
        return load(self, certfile, keyfile, password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", without_a_terminal)
    seen = visit(authority, authority.issue("crm-app", password=b"s3cret"))
    assert isinstance(seen.answer, NoAnswer)
    assert not seen.answer.maybe_processed
    assert not asked


def test_a_key_is_nowhere_on_disk_once_it_is_in_use(authority, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    seen_modes = []
    load = ssl.SSLContext.load_cert_chain

    def watch(self: ssl.SSLContext, certfile: Any, *args: Any, **kwargs: Any) -> None:
        seen_modes.append(oct(Path(certfile).stat().st_mode & 0o777))
        load(self, certfile, *args, **kwargs)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    shown = authority.issue("crm-app")
    transport._tls(shown)
    assert seen_modes == ["0o600"]
    assert list(folder.iterdir()) == []


# -- nothing secret is told -------------------------------------------------------------------------------------------


def listen_to_everything(caplog: pytest.LogCaptureFixture) -> None:
    """Airflow quietens some loggers; a deployment may turn them up."""
    for name in (None, "httpx", "httpcore", "httpcore.http11", "httpcore.connection", "airflow_oauth_guard"):
        caplog.set_level(logging.DEBUG, logger=name)


@pytest.mark.parametrize(
    "handler",
    [
        http(DOCUMENT),
        http(b"", status="307 Temporary Redirect", Location=f"https://elsewhere.example/?t={SECRET}"),
        http(DOCUMENT, length=9999),
        http(b"junk", Content_Encoding="gzip"),
        reset,
        silence,
        says(b"nonsense\r\n\r\n"),
    ],
    ids=["fine", "redirect", "truncated", "broken gzip", "reset", "silence", "nonsense"],
)
def test_nothing_of_the_address_or_the_token_reaches_a_log_or_a_reason(handler, caplog):
    listen_to_everything(caplog)
    answer = answered_by(handler, deadline=timedelta(seconds=0.3))
    told = [record.getMessage() for record in caplog.records] + [f"{record.__dict__}" for record in caplog.records]
    assert not any(SECRET in line or "access_token" in line for line in told)
    if isinstance(answer, NoAnswer):
        assert SECRET not in answer.reason
        assert "127.0.0.1" not in answer.reason


def test_nothing_of_the_address_is_told_where_nobody_listens(caplog):
    listen_to_everything(caplog)
    for url in (f"http://127.0.0.1:{closed_port()}/token", "https://provider.invalid/token"):
        answer = sent(url, method="GET")
        assert isinstance(answer, NoAnswer)
        assert SECRET not in f"{caplog.text}{answer.reason}"


def test_other_users_of_httpx_keep_their_log_lines(server, client_id, caplog):
    listen_to_everything(caplog)
    sent(server.token_url)
    httpx.get(f"{server.url}/api/me", trust_env=False)
    lines = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert [line.split()[3].rpartition("/api")[2] for line in lines] == ["/me"]
    assert any(record.name == "httpcore.http11" for record in caplog.records)
