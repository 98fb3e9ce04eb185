"""Send one request and bring back an answer, whatever happens: there is no exception to misread.

One asyncio transport serves workers and triggers, because only there can an overall deadline be kept: a server that
drips a byte a second never meets a read timeout (see docs/decisions/0002-one-transport.md).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from functools import cache
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, NoAnswer, may_have_issued
from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.grants.flow import HttpRequest

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT = timedelta(seconds=10)
BODY_LIMIT = 1024 * 1024
"""Bytes, before and after decompression. Token answers and probes are a few kilobytes."""

_sending: ContextVar[bool] = ContextVar("oauth_guard_sending", default=False)


class TooLargeError(Exception):
    """The answer is larger than :data:`BODY_LIMIT`."""


async def send(request: HttpRequest, *, deadline: timedelta) -> Answer:
    """Send a request once. Never retried, never redirected: both could spend or leak a token.

    Args:
        deadline: For everything together, from the name look-up to the last byte.
    """
    exchange = _Exchange()
    try:
        with unlogged():
            return await asyncio.wait_for(exchange.run(request), deadline.total_seconds())
    except asyncio.TimeoutError:
        return exchange.no_answer(f"nothing complete within {words(deadline)}")


def utcnow() -> datetime:
    return datetime.now(timezone.utc)


class _Exchange:
    """One request and how far it got, which tells whether the provider may have processed it."""

    def __init__(self) -> None:
        self._sent = False
        self._status: int | None = None

    async def run(self, request: HttpRequest) -> Answer:
        import httpx

        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT.total_seconds())
        headers = {**request.headers, "Accept-Encoding": "identity", "User-Agent": "airflow-oauth-guard"}
        try:
            async with (
                httpx.AsyncClient(
                    verify=_tls(request.client_certificate), timeout=timeout, follow_redirects=False
                ) as client,
                client.stream(
                    request.method,
                    request.url,
                    headers=headers,
                    content=request.content,
                    extensions={"trace": self._trace},
                ) as response,
            ):
                self._status = response.status_code
                body = await _read(response)
                return HttpAnswer(
                    status=response.status_code,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=body,
                    received_at=utcnow(),
                )
        except ssl.SSLError as error:
            reason = f"the client certificate and its key cannot be used ({error.reason or type(error).__name__})"
            return self.no_answer(f"{reason}; look at the fields `certificate` and `private_key`", ours=True)
        except TooLargeError:
            return self.no_answer(f"the answer is larger than {BODY_LIMIT // 1024} KB and was cut off", ours=True)
        except zlib.error:
            return self.no_answer("the answer's compression is broken or cut off")
        except httpx.ConnectTimeout:
            return self.no_answer(f"no connection within {words(CONNECT_TIMEOUT)}")
        except httpx.ConnectError as error:
            # Refused, no such host, or a certificate that does not fit.
            return self.no_answer(f"no connection ({error})")
        except httpx.ProxyError as error:
            # What went out was for the proxy, which did not let it pass.
            self._sent = False
            return self.no_answer(f"the proxy refuses ({type(error).__name__})")
        except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeEncodeError) as error:
            self._sent = False
            # The text may quote what could not be written, which can be a secret.
            reason = (
                f"the request cannot be written ({type(error).__name__}); look for odd characters in the connection"
            )
            return self.no_answer(reason, ours=True)
        except httpx.HTTPError as error:
            # The text may quote the address, whose query can hold a token: the kind says enough.
            return self.no_answer(f"the exchange broke off ({type(error).__name__})")
        except Exception as error:  # noqa: BLE001 - whatever it is, an intent is open and wants an answer
            reason = (
                f"the request cannot be made ({type(error).__name__}); look at the proxy's address, if there is one"
            )
            return self.no_answer(reason, ours=True)

    def no_answer(self, reason: str, *, ours: bool = False) -> NoAnswer:
        """How it ended without a complete answer; what the status says counts, although the body did not arrive."""
        processed = self._sent and (self._status is None or may_have_issued(self._status))
        return NoAnswer(reason, maybe_processed=processed, received_at=utcnow(), provider_at_fault=not ours)

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        # httpcore names its steps "http11.send_request_headers.started" and the like; CONNECT is for a proxy.
        if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            self._sent = True


async def _read(response: httpx.Response) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").lower()
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in ("gzip", "deflate") else None
    body, received = b"", 0
    async for chunk in response.aiter_raw():
        received += len(chunk)
        body += inflate.decompress(chunk, BODY_LIMIT + 1 - len(body)) if inflate else chunk
        if len(body) > BODY_LIMIT or (inflate and inflate.unconsumed_tail):
            raise TooLargeError
    if inflate and received and not inflate.eof:
        raise zlib.error("cut off")
    return body


@cache
def _tls(client_certificate: str) -> ssl.SSLContext:
    # Building one takes tens of milliseconds, so it is shared.
    context = ssl.create_default_context()
    if client_certificate:
        # The ssl module reads certificates from files only; this one is readable by nobody else, and gone at once.
        with NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(client_certificate)
            file.flush()
            # Without a password of our own OpenSSL would ask at the terminal, where no deadline holds.
            context.load_cert_chain(file.name, password=lambda: "")
    return context


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep httpx's line per request out of the log: it quotes the address, whose query can hold a token."""
    token = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(token)


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _sending.get()


for _name in ("httpx", "httpcore.http11", "httpcore.connection", "httpcore.proxy"):
    logging.getLogger(_name).addFilter(_NotOurs())
