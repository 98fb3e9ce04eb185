"""A reverse proxy before the authorization server that does what networks and gateways do to an exchange.

    with FaultProxy(server.url) as proxy:
        proxy.stage("reset_after")
        ...                      # the server processes what is sent to proxy.url; the sender sees a reset
        assert [seen.forwarded for seen in proxy.requests] == [True]
        proxy.clear()

Standard library, plus `cryptography` for its certificates. It runs in a thread with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qsl, urlsplit

LOOPBACK = "127.0.0.1"
DRIP_SECONDS = 0.05
"""Between two bytes: an answer of a few hundred bytes takes many seconds, and no pause is long enough for a timeout."""
HUGE = 3_000_000
"""Bytes; the package reads no more than 1 MB."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST instead of FIN."""


# -- an exchange ------------------------------------------------------------------------------------------------------


@dataclass
class Passed:
    """One request that reached the proxy. Its values are secrets, and stay out of `repr`."""

    method: str
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    at: datetime
    fault: str = ""
    """The fault it met; empty where it was passed on and its answer passed back."""
    forwarded: bool = False
    """Whether it reached the server."""
    answered: int | None = None
    """The server's status, whatever the sender saw of it."""

    @cached_property
    def parameters(self) -> dict[str, str]:
        """What it sent in its query, its form or its JSON object."""
        query, sent = urlsplit(self.target).query, self.body.decode()
        fields = json.loads(sent) if sent.startswith("{") else dict(parse_qsl(sent))
        return {**dict(parse_qsl(query)), **fields}


@dataclass(frozen=True)
class Whole:
    """A complete answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def head(self, **changes: str | int) -> bytes:
        """Its status line and headers, by our clock, which may be ahead of the server's machine."""
        fields: dict[str, Any] = {"content-type": "application/json", **self.headers}
        fields |= {"date": formatdate(time.time(), usegmt=True), "connection": "close"}
        fields |= {"content-length": len(self.body)}
        fields |= {name.replace("_", "-"): value for name, value in changes.items()}
        lines = [f"HTTP/1.1 {self.status} Said", *(f"{name}: {value}" for name, value in fields.items() if value != "")]
        return "\r\n".join([*lines, "", ""]).encode()

    def wire(self, **changes: str | int) -> bytes:
        return self.head(**changes) + self.body


class Exchange:
    """One connection to the proxy, with its request read to the end."""

    def __init__(self, seen: Passed, upstream: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen = seen
        self._upstream = urlsplit(upstream)
        self._reader = reader
        self._writer = writer

    async def forward(self) -> Whole:
        """Have the server process the request; its answer is complete when this returns."""
        self.seen.forwarded = True
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        fields = {**self.seen.headers, "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"{self.seen.method} {self.seen.target} HTTP/1.1\r\n{head}\r\n".encode() + self.seen.body)
        answered = await reader.read()
        writer.close()
        head_bytes, _, body = answered.partition(b"\r\n\r\n")
        status_line, headers = _head(head_bytes)
        assert "transfer-encoding" not in headers, "the server's answers are small and come in one piece"
        self.seen.answered = int(status_line.split()[1])
        return Whole(self.seen.answered, body, headers)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def wait_for_the_client_to_leave(self) -> None:
        await self._reader.read()

    def reset(self) -> None:
        """Break the connection off so that the client sees a reset, not an end."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._writer.transport.abort()


def _head(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


# -- the faults -------------------------------------------------------------------------------------------------------

Answering = Callable[[Exchange], Awaitable[None]]


async def pass_on(exchange: Exchange) -> None:
    """No fault."""
    await exchange.send((await exchange.forward()).wire())


async def hang(exchange: Exchange) -> None:
    await exchange.wait_for_the_client_to_leave()


async def hang_after(exchange: Exchange) -> None:
    await exchange.forward()
    await exchange.wait_for_the_client_to_leave()


async def reset_before(exchange: Exchange) -> None:
    exchange.reset()


async def reset_after(exchange: Exchange) -> None:
    await exchange.forward()
    exchange.reset()


async def drip(exchange: Exchange) -> None:
    whole = await exchange.forward()
    for byte in whole.wire():
        await exchange.send(bytes([byte]))
        await asyncio.sleep(DRIP_SECONDS)


async def truncated(exchange: Exchange) -> None:
    whole = await exchange.forward()
    await exchange.send(whole.wire(content_length=len(whole.body) + 4096))


async def cut_json(exchange: Exchange) -> None:
    whole = await exchange.forward()
    await exchange.send(Whole(whole.status, whole.body[: len(whole.body) // 2], whole.headers).wire())


async def cut_gzip(exchange: Exchange) -> None:
    """Every byte of the answer is there but the checksum: a careless client takes it for whole."""
    whole = await exchange.forward()
    await exchange.send(_compressed(whole, gzip.compress(whole.body)[:-8]))


async def bad_gzip(exchange: Exchange) -> None:
    """What is called gzip is none."""
    whole = await exchange.forward()
    await exchange.send(_compressed(whole, whole.body))


async def gzip_bomb(exchange: Exchange) -> None:
    whole = await exchange.forward()
    await exchange.send(_compressed(whole, gzip.compress(_padded(whole.body))))


async def huge(exchange: Exchange) -> None:
    whole = await exchange.forward()
    await exchange.send(Whole(whole.status, _padded(whole.body), whole.headers).wire())


async def broken_chunks(exchange: Exchange) -> None:
    whole = await exchange.forward()
    head = whole.head(content_length="", transfer_encoding="chunked")
    await exchange.send(
        head + b"%x\r\n%s\r\nno-length\r\n" % (len(whole.body) // 2, whole.body[: len(whole.body) // 2])
    )


async def empty_200(exchange: Exchange) -> None:
    whole = await exchange.forward()
    await exchange.send(Whole(200, b"", whole.headers).wire())


async def bad_gateway_after(exchange: Exchange) -> None:
    await exchange.forward()
    await exchange.send(Whole(502, b"<h1>Bad gateway</h1>", {"content-type": "text/html"}).wire())


async def redirect_loop(exchange: Exchange) -> None:
    here = f"http://{exchange.seen.headers['host']}{exchange.seen.target}"
    await exchange.send(Whole(307, b"", {"location": here}).wire())


def saying(status: int, body: bytes = b"", **headers: str) -> Answering:
    """The same words to everybody; the server is not asked."""
    whole = Whole(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    async def say(exchange: Exchange) -> None:
        await exchange.send(whole.wire())

    return say


async def limited_and_cut(exchange: Exchange) -> None:
    """The status says enough; the body does not arrive."""
    await exchange.send(Whole(429, b"slow down").wire(content_length=4096))


def _padded(body: bytes) -> bytes:
    """The same JSON object, and more than anybody should read."""
    return b'{"padding": "' + b"x" * HUGE + b'", ' + body.lstrip()[1:]


def _compressed(whole: Whole, body: bytes) -> bytes:
    return Whole(whole.status, body, {**whole.headers, "content-encoding": "gzip"}).wire()


HTML = b"<!doctype html><title>Sign in to Wi-Fi</title><h1>Welcome</h1>"
XHTML = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><title>Sign in to Wi-Fi</title></html>'

ANSWERS: Mapping[str, Answering] = {
    "hang": hang,
    "hang_after": hang_after,
    "reset_before": reset_before,
    "reset_after": reset_after,
    "drip": drip,
    "truncated": truncated,
    "cut_json": cut_json,
    "cut_gzip": cut_gzip,
    "bad_gzip": bad_gzip,
    "gzip_bomb": gzip_bomb,
    "huge": huge,
    "broken_chunks": broken_chunks,
    "empty_200": empty_200,
    "500": saying(500, b"Traceback (most recent call last)", content_type="text/plain"),
    "502_after": bad_gateway_after,
    "503": saying(503, b"down for maintenance", content_type="text/plain"),
    "429": saying(429, b"slow down", content_type="text/plain"),
    "429_cut": limited_and_cut,
    "429_retry_after": saying(429, b"slow down", content_type="text/plain", retry_after="1200"),
    "portal_html": saying(200, HTML, content_type="text/html"),
    "portal_xhtml": saying(200, XHTML, content_type="application/xhtml+xml"),
    "portal_redirect": saying(302, HTML, content_type="text/html", location="http://portal.invalid/login"),
    "redirect_loop": redirect_loop,
    "error_200": saying(200, b'{"ok": false, "error": "token_expired"}'),
    "empty_400": saying(400),
}
"""Faults in the answer to a request that arrived."""

DOORS = ("refused", "connect_timeout", "tls")
"""Faults that keep a request from being sent; `tls` needs a proxy with certificates."""


# -- the proxy --------------------------------------------------------------------------------------------------------


@dataclass
class Staged:
    """A fault, and for how many requests more."""

    name: str
    times: int | None


class FaultProxy:
    """A running proxy. It starts on `with` and keeps its port to the end, whatever its faults."""

    def __init__(self, upstream: str, certificates: Certificates | None = None) -> None:
        self.requests: list[Passed] = []
        self._upstream = upstream
        self._certificates = certificates
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._staged: Staged | None = None
        self._failures: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._filled: list[socket.socket] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificates else None

    # -- its life

    def __enter__(self) -> FaultProxy:
        # Bound but never listening: it keeps the port ours while nobody listens, and then connections are refused.
        self._holder = _bound(0)
        self._thread.start()
        self.clear()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()
        if self._failures and exc is None:
            raise self._failures[0]

    @property
    def port(self) -> int:
        return int(self._holder.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{LOOPBACK}:{self.port}"

    # -- its faults

    def stage(self, fault: str, *, times: int | None = None) -> None:
        """From now on every request meets this fault, or as many as are named; faults of the door stay until cleared.

        Args:
            fault: One of :data:`ANSWERS` or :data:`DOORS`.
        """
        if fault not in ANSWERS and (fault not in DOORS or times is not None):
            raise ValueError(f"no fault {fault!r} for {times} requests; faults: {[*ANSWERS, *DOORS]}")
        self._run(self._stage(fault, times))

    def clear(self) -> None:
        """Everything works again."""
        self._run(self._clear())

    @property
    def forwarded(self) -> int:
        """How many requests reached the server."""
        return sum(seen.forwarded for seen in self.requests)

    # -- inside its thread

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _open(self) -> None:
        listening = _bound(self.port)
        self._server = await asyncio.start_server(self._serve, sock=listening, ssl=self._tls)

    async def _stage(self, fault: str, times: int | None) -> None:
        await self._clear()
        if fault == "tls":
            assert self._certificates is not None, "a proxy without certificates has no TLS to fail"
            self._present(self._certificates.self_signed)
        elif fault in DOORS:
            self._close()
            self._filled = _full_queue(self.port) if fault == "connect_timeout" else []
        else:
            self._staged = Staged(fault, times)

    async def _clear(self) -> None:
        self._staged = None
        for filler in self._filled:
            filler.close()
        self._filled = []
        if self._certificates:
            self._present(self._certificates.good)
        if self._server is None:
            await self._open()

    def _present(self, certificate: Certificate) -> None:
        assert self._tls is not None
        certificate.use(self._tls)

    def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._server = None

    async def _end(self) -> None:
        await self._clear()
        self._close()
        exchanges = asyncio.all_tasks() - {asyncio.current_task()}
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The client left, as it may.
        except Exception as error:
            self._failures.append(error)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = await _read_request(reader)
        seen.fault = self._take()
        self.requests.append(seen)
        await ANSWERS.get(seen.fault, pass_on)(Exchange(seen, self._upstream, reader, writer))

    def _take(self) -> str:
        staged = self._staged
        if staged is None:
            return ""
        if staged.times is not None:
            staged.times -= 1
            self._staged = staged if staged.times > 0 else None
        return staged.name


async def _read_request(reader: asyncio.StreamReader) -> Passed:
    head = await reader.readuntil(b"\r\n\r\n")
    request_line, headers = _head(head[:-4])
    method, target, _ = request_line.split()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Passed(method, target, headers, body, datetime.now(timezone.utc))


def _bound(port: int) -> socket.socket:
    """A socket on this port of loopback, beside others of ours; 0 takes any free one."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((LOOPBACK, port))
    return bound


def _full_queue(port: int) -> list[socket.socket]:
    """A listener that accepts nobody, with its queue full: the next to connect gets no answer at all."""
    listening = _bound(port)
    listening.listen(0)
    return [listening, socket.create_connection((LOOPBACK, port), timeout=5)]


# -- names ------------------------------------------------------------------------------------------------------------


@contextmanager
def names_fail(host: str) -> Iterator[None]:
    """While this lasts, this host's name cannot be resolved: it is looked up under .invalid (RFC 6761 section 6.4)."""
    resolve = socket.getaddrinfo

    def fail(name: str | bytes | None, *args: Any, **kwargs: Any) -> Any:
        asked = name.decode() if isinstance(name, bytes) else name
        return resolve(f"{host}.invalid" if asked == host else name, *args, **kwargs)

    with patch("socket.getaddrinfo", fail):
        yield


# -- certificates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """A key and its certificate, in one file."""

    pem: bytes = field(repr=False)

    def use(self, context: ssl.SSLContext) -> None:
        """For every connection from now on."""
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(self.pem)
            file.flush()
            context.load_cert_chain(file.name)


@dataclass(frozen=True)
class Certificates:
    """For loopback: one that an authority of ours has signed, and one that nobody has."""

    authority: bytes = field(repr=False)
    """In PEM form; who trusts it trusts `good`."""
    good: Certificate
    self_signed: Certificate

    def write_authority(self, folder: Path) -> Path:
        """A file for SSL_CERT_FILE."""
        path = folder / "authority.pem"
        path.write_bytes(self.authority)
        return path


def make_certificates() -> Certificates:
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    authority = _signed("OAuth Guard test authority", keys[0], "OAuth Guard test authority", keys[0], authority=True)
    good = _signed("loopback", keys[1], "OAuth Guard test authority", keys[0])
    alone = _signed("loopback", keys[2], "loopback", keys[2])
    return Certificates(
        authority, Certificate(_private_pem(keys[1]) + good), Certificate(_private_pem(keys[2]) + alone)
    )


def _signed(name: str, key: Any, issuer: str, issuer_key: Any, *, authority: bool = False) -> bytes:
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address(LOOPBACK))])
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    uses = dict.fromkeys(("content_commitment", "data_encipherment", "key_agreement", "encipher_only"), False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(_common_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # TLS judges by the machine's clock, which our tests do not move; so these dates hold whatever they do.
        .not_valid_before(datetime(2020, 1, 1, tzinfo=timezone.utc))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=timezone.utc))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer_id, critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority,
                key_encipherment=False,
                key_cert_sign=authority,
                crl_sign=authority,
                decipher_only=False,
                **uses,
            ),
            critical=True,
        )
    )
    return bytes(certificate.sign(issuer_key, SHA256()).public_bytes(Encoding.PEM))


def _common_name(name: str) -> Any:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _private_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
