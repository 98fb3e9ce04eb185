"""How a job says what it moved, whichever way it speaks: checked alike everywhere, before anything is kept."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, TypeGuard

from airflow_oauth_guard.domain.clock import aware, parse_instant
from airflow_oauth_guard.domain.redaction import redact_text
from airflow_oauth_guard.errors import ConfigurationError

CLOCKS_DIFFER = timedelta(minutes=5)
"""So far ahead of ours another machine's clock may be."""

LONGEST_RUN = 250
"""Characters in the name of a run."""

LONGEST_NOTE = 500
"""Characters; the store keeps no more."""

_WHOLE = re.compile(r"\s*[+-]?\d{1,18}\s*", re.ASCII)


def row_count(given: Any) -> int | None:
    """Rows as a template, a command line or a function gives them.

    Raises:
        ConfigurationError: If it is neither a whole number nor empty.
    """
    if given is None or given in ("", "None"):
        return None
    if (isinstance(given, int) and not isinstance(given, bool)) or (isinstance(given, str) and _WHOLE.fullmatch(given)):
        return int(given)
    raise ConfigurationError(f"A heartbeat's `rows` is {given!r}; give a whole number, or None where nobody knows.")


def instant(given: datetime | str | None, name: str) -> datetime | None:
    """An instant as a template, a command line or a request gives it; None where there is none.

    Raises:
        NaiveDatetimeError: If it is no instant, or one without a time zone.
    """
    if given is None or given in ("", "None"):
        return None
    return aware(given, name) if isinstance(given, datetime) else parse_instant(given, name)


def beat_at(given: datetime | str | None, now: datetime) -> datetime:
    """When a job ran; now, if it does not say. One that would be to come may not silence the alarm until then.

    Raises:
        ConfigurationError: If it is no instant, or lies ahead.
    """
    at = instant(given, "at") or now
    if at - now > CLOCKS_DIFFER:
        raise ConfigurationError(
            f"A heartbeat's `at` is {at.isoformat()}, which is still to come; now it is {now.isoformat()}."
        )
    return min(at, now)


def run_name(given: str | None) -> str | None:
    """The name a job outside Airflow gives its run; None where it has none.

    Raises:
        ConfigurationError: If it is too long.
    """
    if given and len(given) > LONGEST_RUN:
        raise ConfigurationError(f"A heartbeat's `run` has {len(given)} characters; write {LONGEST_RUN} at most.")
    return given or None


def is_row_count(given: Any) -> TypeGuard[int]:
    """Whether a value that came with something else, such as an asset's update, is a number of rows."""
    return isinstance(given, int) and not isinstance(given, bool) and given >= 0


def note(given: str | None) -> str:
    """What a run says beside its number, as it is kept: one line, without what looks like a secret."""
    # Cut after redacting: half of a secret would not be known as one.
    said = redact_text(" ".join((given or "").split()), ())
    return said if len(said) <= LONGEST_NOTE else f"{said[: LONGEST_NOTE - 1]}…"


def adoption(name: str) -> str:
    """What people are told when a source is heard that nobody declared: it may be a misspelt one."""
    return (
        f"Source `{name}` was not declared; it is watched from now on, with a learned window; declare it to choose one."
    )
