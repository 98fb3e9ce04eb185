"""One HTTP answer and what can be picked out of it without knowing who sent it: its body, its error codes, its words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET


@dataclass(frozen=True)
class HttpAnswer:
    """A complete answer. ``headers`` has lower-case names; ``body`` is at most the transport's limit."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    received_at: datetime


@dataclass(frozen=True)
class NoAnswer:
    """The exchange ended without a complete answer.

    ``maybe_processed`` is False only where the provider cannot have seen the request (refused, no such host).
    """

    reason: str
    maybe_processed: bool
    received_at: datetime
    provider_at_fault: bool = True
    """False when our side cut it short, for instance at the body limit."""


Answer = HttpAnswer | NoAnswer


# -- the body -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Body:
    """A body read once: what JSON, XML or a query string says, a line of plain text, or the reason it is none."""

    content: Any = None
    """Dictionaries, lists, text, numbers; XML and query strings read as dictionaries."""
    text: str = ""
    """A short plain text, as some servers answer errors with."""
    unreadable: str = ""

    @property
    def document(self) -> Mapping[str, Any]:
        """The content where it is an object; else an empty one."""
        return self.content if isinstance(self.content, dict) else {}


BROKEN_JSON = Body(unreadable="the body is not complete JSON")

LONGEST_TEXT = 500
"""Characters; what is longer was written for a browser."""


def read_body(body: bytes) -> Body:
    """Read JSON, XML or a query string; anything else is named, never guessed at."""
    text = body.decode("utf-8-sig", errors="replace").strip()
    if not text:
        return Body(unreadable="the body is empty")
    if text.startswith("<"):
        return _read_xml(text)
    if text[0] in '{["' or text in ("true", "false", "null") or text[0].isdigit():
        parsed = _read_json(text)
        is_text = text[0] != "{" and parsed == BROKEN_JSON and len(text) <= LONGEST_TEXT
        return Body(text=_sound(text), unreadable="the body is plain text") if is_text else parsed
    if _QUERY.fullmatch(text):
        return Body(content=_sound(dict(parse_qsl(text, keep_blank_values=True))))
    if len(text) <= LONGEST_TEXT:
        return Body(text=_sound(text), unreadable="the body is plain text")
    return Body(unreadable="the body is neither JSON nor XML")


_QUERY = re.compile(r"[\w.-]+=[^\s<>{}&]*(&[\w.-]+=[^\s<>{}&]*)*")


def _read_json(text: str) -> Body:
    try:
        content = _sound(json.loads(text, parse_int=_bounded_int))
    except ValueError:
        return BROKEN_JSON
    except RecursionError:
        return Body(unreadable="the body is JSON nested without end")
    if isinstance(content, str):
        return Body(text=content[:LONGEST_TEXT], unreadable="the body is a JSON text, no object or list")
    if isinstance(content, (dict, list)):
        return Body(content=content)
    return Body(unreadable="the body is JSON but no object or list")


def _read_xml(text: str) -> Body:
    if re.search(r"<(!doctype )?html\b", text[:1000], re.IGNORECASE):
        return Body(unreadable="the body is HTML, a page for people")
    if "<!" in text and re.search(r"<!(doctype|entity)\b", text, re.IGNORECASE):
        # Entities can be made to grow without end.
        return Body(unreadable="the body is XML with a document type, which is not read")
    try:
        root = ET.fromstring(text)  # noqa: S314 - without a document type there are no entities to expand
        return Body(content=_sound({_local(root): _xml_content(root)}))
    except (ET.ParseError, RecursionError, ValueError):
        return Body(unreadable="the body is HTML or broken XML")


def _xml_content(element: ET.Element) -> Any:
    found: dict[str, Any] = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    for child in element:
        content = _xml_content(child)
        name = _local(child)
        found[name] = [*_as_list(found[name]), content] if name in found else content
    text = (element.text or "").strip()
    if not found:
        return text
    return {**found, "text": text} if text else found


def _local(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _bounded_int(digits: str) -> int:
    """Python refuses integers of thousands of digits; a silly number must not cost us the token beside it."""
    return int(digits[:300])


def _sound(value: Any) -> Any:
    """Half a character (a lone surrogate) and NUL can be written in JSON, and in no database or request."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "?")
    if isinstance(value, dict):
        return {_sound(key): _sound(item) for key, item in value.items()}
    return [_sound(item) for item in value] if isinstance(value, list) else value


def at_path(content: Any, path: str) -> Any:
    """What stands at a dotted path, such as ``data.items.0.id``; None where nothing does."""
    for part in path.split("."):
        if isinstance(content, dict):
            content = content.get(part)
        elif isinstance(content, list) and _is_number(part) and int(part[:LONGEST_NUMBER]) < len(content):
            content = content[int(part)]
        else:
            return None
    return content


# -- what it says ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What an answer gives as its reason, whatever envelope it came in."""

    codes: tuple[str, ...] = ()
    """Error codes in lower case, the most general first, as the envelopes nest."""
    words: str = ""
    """Everything written for people, joined."""

    def __str__(self) -> str:
        code = f"`{self.codes[0]}`" if self.codes else ""
        more = [f"`{other}`" for other in self.codes[1:3] if other not in self.words.lower()]
        words = self.words[:LONGEST_TEXT]
        bracket = f" ({words})" if code and words else words
        return " ".join([code, *more]).strip() + bracket

    def __bool__(self) -> bool:
        return bool(self.codes or self.words)

    @property
    def text(self) -> str:
        """Codes and words as one text: ``EXPIRED_refreshToken`` reads "expired refresh token"."""
        # On lines of their own: a pattern is not to begin in one and end in another.
        return "\n".join([self.words, *map(_spelled, self.codes), *self.codes])


NOTHING = Said()


def _spelled(code: str) -> str:
    return re.sub(r"[\W_]+", " ", code)


CODE_KEYS = frozenset(
    {
        *(
            "error",
            "errors",
            "code",
            "codes",
            "type",
            "status",
            "statuscode",
            "reason",
            "name",
            "category",
            "fault",
            "key",
        ),
        *(
            "tag",
            "field",
            "resource",
            "parameter",
            "pointer",
            "suberror",
            "subcode",
            "errorsubcode",
            "subtype",
            "exception",
            "cause",
            "slug",
            "result",
            "errorname",
            "ret",
        ),
        *(
            "errorcodes",
            "errortype",
            "errorkey",
            "errorid",
            "err",
            "message",
            "msg",
            "title",
            "detail",
            "errordescription",
            "ok",
        ),
    }
)
"""Where the field's error envelopes keep codes; compared without case and punctuation. Text with a space is no code."""

WORD_KEYS = frozenset(
    {
        *("errordescription", "message", "messages", "msg", "errormsg", "errormessage", "errmsg", "detail", "details"),
        *("description", "title", "hint", "faultstring", "text", "longmessage", "shortmessage", "developermessage"),
        *("usermessage", "localizedmessage", "errorsummary", "statustext", "errordetail", "errordetails", "reason"),
        *("error", "errors", "err", "info", "moreinfo", "summary", "errorcauses", "issue", "msgs", "status", "fault"),
    }
)

_DEEPEST = 9
_MOST = 40
"""Codes and texts looked at; an error says what it has to say in fewer."""


def said(body: Body) -> Said:
    """Every error code and every sentence in a body, taken as an error."""
    if body.text:
        return Said(codes=_as_codes(body.text), words=body.text)
    codes: dict[str, None] = {}
    words: dict[str, None] = {}
    for key, value in _leaves(body.content, "", 0):
        if len(codes) + len(words) > _MOST:
            break
        identifier = isinstance(value, str) and _holds_words(key)
        if identifier or _holds_code(key):
            codes.update(dict.fromkeys(_as_codes(value)))
        if isinstance(value, str) and _holds_words(key) and value.strip() and not _as_codes(value):
            words[value.strip()[:LONGEST_WORDS]] = None
    return Said(tuple(codes), " ".join(words)[:LONGEST_WORDS])


def challenge(www_authenticate: str) -> Said:
    """The ``error`` of a challenge (RFC 6750 section 3; providers send it under other schemes as well)."""
    found: dict[str, str] = {}
    for name, quoted, bare in _AUTH_PARAM.findall(www_authenticate[:LONGEST_CHALLENGE]):
        found.setdefault(name.lower(), quoted or bare)
    if not found.get("error"):
        return NOTHING
    return Said((found["error"].lower(),), found.get("error_description", ""))


LONGEST_CHALLENGE = 4_000
"""Characters of a ``WWW-Authenticate`` header that are looked at."""

_AUTH_PARAM = re.compile(r'(?<![\w-])([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
"""One parameter of a challenge (RFC 9110 section 11.2); a quoted value is taken whole, whatever it quotes."""


def signals_error(body: Body) -> bool:
    """Whether a body says of itself that it is an error, as some are that come with a success status."""
    document = {_plain(key): value for key, value in body.document.items()}
    for key in ("error", "errors", "err", "fault", "exception", "errorcode", "errcode", "errortype"):
        if _is_complaint(document.get(key)):
            return True
    if any(document.get(key) in (False, "false", "False") for key in ("ok", "success", "succeeded", "issuccess")):
        return True
    if any(str(document.get(key, "")).lower() in _FAILED for key in ("status", "stat", "result")):
        return True
    explanations = [document.get(key) for key in ("message", "msg", "error", "errormessage", "errmsg", "title")]
    if not any(explanations) or any(str(text).strip().lower() in _OK for text in explanations):
        return False
    numbers = [document.get(key) for key in ("code", "statuscode", "ret", "returncode")]
    failed = any(_is_number(number) and not _is_fine(number) for number in numbers)
    # A bare `status` counts things as well; one that is an HTTP status counts as one.
    return failed or (_is_number(document.get("status")) and 400 <= int(str(document["status"])[:4]) < 600)


_OK = frozenset({"ok", "success", "succeeded", "successful"})
_NOTHING_WRONG = _OK | {"", "0", "none", "null", "false", "no_error", "no error"}
_FAILED = frozenset({"error", "fail", "failed", "failure", "nok"})


def _is_complaint(value: Any) -> bool:
    if isinstance(value, dict):
        # Some wrap a success in an error object that says "ok".
        said_inside = value.get("code", value.get("type", value.get("message", "error")))
        return bool(value) and _is_complaint(said_inside if said_inside != "" else value.get("message", ""))
    if isinstance(value, str):
        return value.strip().lower() not in _NOTHING_WRONG
    if _is_number(value):
        return not _is_fine(value)
    return bool(value)


def _is_number(value: Any) -> TypeGuard[str | int]:
    if isinstance(value, str):
        return value.isascii() and value.isdecimal()
    return isinstance(value, int) and not isinstance(value, bool)


LONGEST_NUMBER = 18
"""Digits; no code is longer, and Python refuses to read thousands."""


def _is_fine(value: str | int) -> bool:
    number = int(value[:LONGEST_NUMBER]) if isinstance(value, str) else value
    return number == 0 or 200 <= number < 300


def _leaves(value: Any, key: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        # What stands beside an error at its own level tells more than what it wraps.
        for inner, item in sorted(value.items(), key=lambda pair: isinstance(pair[1], (dict, list))):
            # Some errors are named by an id; any other id names a request or a thing.
            name = "errorid" if inner == "id" and key in ("error", "errors") else _plain(inner)
            yield from _leaves(item, name, depth + 1)
    elif isinstance(value, list):
        for item in value[:_MOST]:
            yield from _leaves(item, key, depth + 1)
    else:
        yield key, value


def _plain(key: Any) -> str:
    return re.sub(r"[\W_]", "", str(key)).lower()


def _holds_code(key: str) -> bool:
    return key in CODE_KEYS or key.endswith(("code", "error", "tag"))


def tells(name: str) -> bool:
    """Whether a field of this name says what is wrong, in a code or in words."""
    key = _plain(name)
    return key not in _DOOR_CODES and (_holds_code(key) or _holds_words(key))


_DOOR_CODES = frozenset({"devicecode", "usercode", "authorizationcode", "authcode", "verificationcode", "passcode"})
"""Codes that open a door instead of naming an error."""


def _holds_words(key: str) -> bool:
    return key in WORD_KEYS or key.endswith(
        ("message", "messages", "msg", "description", "detail", "details", "reason", "advice", "title")
    )


def _as_codes(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool) or value is None:
        return ()
    text = str(value).strip().rstrip(".:")
    if not text or len(text) > LONGEST_CODE or re.search(r"\s", text):
        return ()
    # XML names carry a namespace: what stands behind it is the code.
    local = text.rpartition(":")[2]
    return (text.lower(), local.lower()) if local not in ("", text) and "/" not in text else (text.lower(),)


LONGEST_CODE = 100
LONGEST_WORDS = 4_000


# -- the rest -------------------------------------------------------------------------------------------------------


def retry_after(answer: Answer) -> timedelta | None:
    """``Retry-After`` in seconds or as a date (RFC 9110 section 10.2.3); never negative."""
    value = answer.headers.get("retry-after", "") if isinstance(answer, HttpAnswer) else ""
    if value.isascii() and value.isdigit():
        return timedelta(seconds=int(value[:9]))
    try:
        at = parsedate_to_datetime(value)
        if at.tzinfo is None:
            at = at.replace(tzinfo=timezone.utc)
        return max(at - answer.received_at, timedelta())
    except (TypeError, ValueError, OverflowError):
        # Absent or unreadable: the provider asked for nothing we can follow.
        return None


def may_have_issued(status: int) -> bool:
    """Whether a token endpoint that answers with this status may have issued tokens.

    A 503 says that the request was not processed (RFC 9110 section 15.6.4), any other failure of a server or a gateway
    leaves it open.
    """
    return status < 300 or (status >= 500 and status not in (501, 503))


def answer_id(answer: Answer, sent: Iterable[str] = ()) -> str:
    """Equal for two answers that differ in nothing but incidental fields.

    Args:
        sent: The secret values of the request; a provider may echo them, and they differ between two requests.
    """
    if isinstance(answer, NoAnswer):
        return _digest("no answer", answer.reason)
    reason = said(read_body(answer.body))
    words = reason.words
    for value in sorted((value for value in sent if value), key=len, reverse=True):
        words = words.replace(value, "#")
    words = _INCIDENTAL.sub("#", words.lower())
    codes = (code for code in reason.codes if len(code) < _INCIDENTAL_LENGTH or not re.search(r"\d", code))
    return _digest(str(answer.status), *codes, words)


_INCIDENTAL = re.compile(r"\S*\d\S*|\S{20,}")
"""Trace ids, timestamps and echoed tokens differ between any two answers; counting them as a difference would let the
bogus-token control "tell apart" what the provider did not."""

_INCIDENTAL_LENGTH = 20


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
