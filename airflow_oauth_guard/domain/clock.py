"""Instants are aware UTC. A naive one is refused where it enters."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pendulum

from airflow_oauth_guard.errors import NaiveDatetimeError


def aware(instant: datetime, name: str) -> datetime:
    """Return ``instant`` in UTC.

    Raises:
        NaiveDatetimeError: If it has no time zone; guessing one would move windows and deadlines by hours.
    """
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise NaiveDatetimeError(
            f"`{name}` is {instant.isoformat()}, which has no time zone; add one, for example "
            f"{instant.isoformat()}+00:00."
        )
    moment = instant.astimezone(timezone.utc)
    # Plain, whatever subclass it came as: pendulum's loses a standard library zone when a duration is added.
    return datetime.combine(moment.date(), moment.time(), tzinfo=timezone.utc)


def parse_instant(text: str, name: str) -> datetime:
    """Read an ISO 8601 instant.

    Raises:
        NaiveDatetimeError: If the text is no instant, or one without a time zone.
    """
    try:
        # pendulum also reads "now" and bare times, each as a moment of today.
        parsed = pendulum.parse(text, tz=None, exact=True) if text[:4].isdigit() else None
    except ValueError as error:
        raise NaiveDatetimeError(f"`{name}` is {text!r}, which is not an ISO 8601 instant.") from error
    if not isinstance(parsed, datetime):
        raise NaiveDatetimeError(f"`{name}` is {text!r}, which is not an ISO 8601 instant.")
    return aware(parsed, name)


def clock_skew(date_header: str | None, now: datetime) -> timedelta | None:
    """How far our clock is ahead of the provider's ``Date`` header (RFC 9110 section 6.6.1), if it sent one."""
    if not date_header:
        return None
    try:
        theirs = parsedate_to_datetime(date_header)
        return now - theirs if theirs.tzinfo else None
    except (ValueError, OverflowError):
        # An unreadable header is the same as none: nothing is known about the skew.
        return None


def words(duration: timedelta) -> str:
    """``3 d 4 h``, ``12 min``, ``40 s``: for messages people read."""
    seconds = int(abs(duration.total_seconds()))
    for size, unit, next_size, next_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            rest = seconds % size // next_size
            return f"{seconds // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"
