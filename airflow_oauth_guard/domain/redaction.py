"""Make an answer fit to keep: what a person needs to understand it, and nothing that opens a door."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

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

_LOOKS_SECRET = re.compile(r"[A-Za-z0-9_\-.~+/=]{32,}")


def redact_text(text: str, secrets: Iterable[str]) -> str:
    """Replace every known secret, as written or URL-encoded, and whatever is long enough to be one."""
    for secret in secrets:
        if len(secret) >= 4:
            for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
                text = text.replace(form, "<redacted>")
    return _LOOKS_SECRET.sub("<redacted>", text)


def redact_body(body: bytes, secrets: Iterable[str]) -> str:
    """The body as evidence keeps it."""
    known = tuple(secrets)
    text = body[: 8 * BODY_LIMIT].decode("utf-8", errors="replace")
    try:
        text = json.dumps(_telling(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        # Not JSON (or cut off, or a bomb): kept as text under the same redaction.
        pass
    return redact_text(text, known)[:BODY_LIMIT]


def redact_headers(headers: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """The headers that explain an answer."""
    known = tuple(secrets)
    kept = {name: value for name, value in headers.items() if name in KEPT_HEADERS}
    if "location" in kept:
        kept["location"] = kept["location"].partition("?")[0]
    return {name: redact_text(value, known)[:300] for name, value in kept.items()}


def _telling(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {str(name): _telling(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [_telling(inner, key) for inner in value[:20]]
    if key in TELLING_KEYS or value is None or isinstance(value, bool):
        return value
    return f"<{type(value).__name__}>"
