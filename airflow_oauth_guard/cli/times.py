"""Times on a command line: durations as people write them, instants as programs read them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from airflow_oauth_guard.errors import ConfigurationError

LONGEST = timedelta(days=3660)

_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PART = re.compile(r"(\d{1,5}(?:\.\d{1,5})?)\s*(s|min|m|h|d|w)\s*", re.ASCII)


def read_duration(text: str, name: str) -> timedelta:
    """Read ``45m``, ``4h``, ``2d`` or ``1d 12h``.

    Raises:
        ConfigurationError: If it is none, no time at all, or more than anybody plans for.
    """
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text):
        raise ConfigurationError(f"{name} is {text!r}; write a duration, such as 45m, 4h, 2d or 1d12h.")
    total = sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    if not timedelta() < total <= LONGEST:
        raise ConfigurationError(f"{name} is {text!r}; write a duration above 0, ten years at most.")
    return total


def zulu(at: datetime | None) -> str | None:
    """ISO 8601 in UTC with a ``Z``, to the second."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else None
