"""Quiet hours: when only what is urgent is told, and the rest waits for their end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time
from zoneinfo import ZoneInfo

from airflow_oauth_guard.domain.calendar import zone_named
from airflow_oauth_guard.errors import ConfigurationError

_FORM = re.compile(r"(\d{1,2}:\d{2}) ?[-–] ?(\d{1,2}:\d{2})(?: +(\S+))?")


@dataclass(frozen=True)
class QuietHours:
    """Every day from ``start`` until ``end``, as the clocks of a place show it; over midnight where the end is earlier.

    Args:
        start: The first quiet moment.
        end: The first moment after it.
        zone: Whose clocks.
    """

    start: time
    end: time
    zone: ZoneInfo

    def cover(self, instant: datetime) -> bool:
        # By the clock on the wall: counted in hours, a night of a clock change would end at the wrong time.
        local = instant.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= local < self.end
        return local >= self.start or local < self.end


def read_quiet_hours(text: str, where: str) -> QuietHours | None:
    """Read ``22:00-07:00 Europe/Berlin``; without a time zone it is UTC, and empty text means none.

    Raises:
        ConfigurationError: If it says anything else, or a stretch without an end.
    """
    if not text.strip():
        return None
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(
            f"{where} is {text!r}; write for example 22:00-07:00 Europe/Berlin, or leave it empty."
        )
    start, end = (_clock(given, text, where) for given in found.group(1, 2))
    if start == end:
        raise ConfigurationError(f"{where} is {text!r}, which would never end; write two different times.")
    return QuietHours(start, end, zone_named(found.group(3) or "UTC", where))


def _clock(given: str, text: str, where: str) -> time:
    hour, minute = map(int, given.split(":"))
    if hour > 23 or minute > 59:
        raise ConfigurationError(f"{where} is {text!r}, and {given} is no time of day; write 00:00 to 23:59.")
    return time(hour, minute)
