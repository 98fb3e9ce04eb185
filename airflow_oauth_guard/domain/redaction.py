"""Make an answer fit to keep: what a person needs to understand it, and nothing that opens a door."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from airflow_oauth_guard.domain.answers import read_body, tells

BODY_LIMIT = 2_000
"""Characters of a body kept as evidence; an error body is a few hundred."""

KEPT_HEADERS = frozenset(
    {"content-type", "content-length", "date", "retry-after", "server", "www-authenticate", "x-request-id", "location"}
)
TELLING_KEYS = frozenset(
    {
        *("error", "error_description", "error_uri", "error_code", "error_subcode", "error_codes"),
        *(
            "code",
            "message",
            "type",
            "status",
            "suberror",
            "detail",
            "title",
            "ok",
            "token_type",
            "expires_in",
            "scope",
        ),
    }
)
"""JSON keys whose values explain an answer. Values of any other key are reduced to their type."""

SHORTEST_SECRET = 4
"""Replacing shorter ones would leave holes in every sentence and hide nothing."""

_LOOKS_SECRET = re.compile(r"[A-Za-z0-9_\-.~+/=]{32,}")


def redact_text(text: str, secrets: Iterable[str]) -> str:
    """Replace every known secret, however it is escaped, and whatever is long enough to be one.

    What no database keeps, lone surrogates and NUL, is replaced as well.
    """
    text = text.encode("utf-8", "replace").decode().replace("\0", "?")
    return _LOOKS_SECRET.sub("<redacted>", redact_known(text, secrets))


def redact_known(text: str, secrets: Iterable[str]) -> str:
    """Replace every known secret, however it is escaped, and nothing else: for what is long itself, such as an address."""
    # The longest first: one secret may be the beginning of another.
    for secret in sorted({secret for secret in secrets if len(secret) >= SHORTEST_SECRET}, key=len, reverse=True):
        for form in _forms(secret):
            text = text.replace(form, "<redacted>")
    return text


def _forms(secret: str) -> Iterable[str]:
    """The ways a provider may echo a value: as it is, URL-encoded, in HTML, in JSON."""
    encoded = {quote(secret, safe=""), quote_plus(secret)}
    lower = {re.sub("%[0-9A-F]{2}", lambda octet: octet[0].lower(), form) for form in encoded}
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    slashed = {form.replace("/", "\\/") for form in in_json}
    return {secret, *encoded, *lower, html.escape(secret), html.escape(secret, quote=False), *in_json, *slashed}


ERROR_LIMIT = 300
"""Characters of an error in a message."""

_ADDRESS = re.compile(r"""[a-z][a-z0-9+.-]*://[^\s'"<>]+|(?<=url: )[^\s'"<>]+|[?&][\w.-]+=[^\s'"<>&]+""", re.IGNORECASE)


def redact_error(error: BaseException) -> str:
    """An error as a message may quote it: its type and its words, without addresses, since many hold a token."""
    said = redact_text(_ADDRESS.sub("<address>", " ".join(str(error).split())), ())[:ERROR_LIMIT]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def redact_body(body: bytes, secrets: Iterable[str]) -> str:
    """The body as evidence keeps it: of JSON, XML and query strings only what explains, as JSON."""
    known = tuple(secrets)
    read = read_body(body)
    text = body.decode("utf-8", errors="replace").strip()
    if read.content is not None:
        text = json.dumps(_telling(read.content, known), ensure_ascii=False)
    elif text[:1] in ("{", "["):
        # Broken JSON cannot be told apart by keys, so it is not kept at all.
        text = f"<{len(body)} bytes of broken JSON>"
    # Cut after redacting: half of a secret would not be known as one.
    return redact_text(text, known)[:BODY_LIMIT]


def redact_headers(headers: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """The headers that explain an answer."""
    known = tuple(secrets)
    kept = {name: value for name, value in headers.items() if name in KEPT_HEADERS}
    if "location" in kept:
        kept["location"] = re.split("[?#]", kept["location"])[0]
    return {
        name: value[:100]
        if name == "x-request-id" and _REQUEST_ID.fullmatch(value)
        else redact_text(value, known)[:300]
        for name, value in kept.items()
    }


_REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""A UUID is long enough to look like a secret, and is what a provider's support asks for."""


def _telling(value: Any, secrets: tuple[str, ...], key: str = "") -> Any:
    if isinstance(value, dict):
        return {redact_text(str(name), secrets): _telling(inner, secrets, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [_telling(inner, secrets, key) for inner in value[:20]]
    if value is None or isinstance(value, bool):
        return value
    if key in TELLING_KEYS or tells(key):
        return redact_text(value, secrets) if isinstance(value, str) else value
    return f"<{type(value).__name__}>"
