"""``{oauth-guard:crm_prod}``: where in an ordinary connection the token of a credential goes.

A connection id may hold nearly anything but braces, so only they say where it ends inside a longer text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_oauth_guard.errors import ConnectionFieldError

if TYPE_CHECKING:
    from airflow.sdk import Connection

PLACEHOLDER = re.compile(r"\{oauth-guard:([\w#!()\-.:/\\]+)\}")
"""The letters are those that Airflow allows in a connection id."""

MISWRITTEN = re.compile(r"\{\s*oauth.?guard|(?:^|\s)oauth.?guard:(?!\d)", re.IGNORECASE)
"""What was meant as one. A server may be called ``oauth-guard`` and have a port; nothing else begins like this."""

FIELDS = ("host", "schema", "login", "password", "extra")
"""Those that are looked at: all that a hook may send."""


def named_in(connection: Connection) -> frozenset[str]:
    """The credentials whose tokens a connection asks for; none for nearly every connection there is.

    Raises:
        ConnectionFieldError: If a placeholder is miswritten: it would be sent to the provider as it is.
    """
    found: set[str] = set()
    for field in FIELDS:
        _replaced(getattr(connection, field), _reader(connection, field, found))
    return frozenset(found)


def filled(connection: Connection, tokens: Mapping[str, str]) -> Connection:
    """A copy of the connection with tokens in the place of its placeholders.

    Never the connection itself: whoever found it may hand it out again, when the token is old.
    """
    from airflow.sdk import Connection

    fields = {field: _replaced(getattr(connection, field), lambda text: _fill(text, tokens)) for field in FIELDS}
    return Connection(
        conn_id=str(connection.conn_id),
        conn_type=connection.conn_type,
        description=connection.description,
        port=connection.port,
        **fields,
    )


def _reader(connection: Connection, field: str, found: set[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        found.update(PLACEHOLDER.findall(text))
        if MISWRITTEN.search(PLACEHOLDER.sub("", text)):
            raise ConnectionFieldError(
                str(connection.conn_id),
                field,
                "has a placeholder that cannot be read; write `{oauth-guard:<connection id>}`, in braces and without spaces.",
            )
        return text

    return read


def _fill(text: str, tokens: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: tokens[match[1]], text)


def _replaced(value: Any, change: Callable[[str], str]) -> Any:
    """A field's value with all of its texts changed. An extra is JSON, and its texts are those inside."""
    if not isinstance(value, str):
        return value
    try:
        document = json.loads(value)
    except ValueError:
        # Not JSON, so it is text; most fields are.
        return change(value)
    return json.dumps(_changed(document, change)) if isinstance(document, dict | list) else change(value)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {change(key): _changed(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
