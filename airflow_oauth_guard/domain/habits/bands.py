"""Between how many rows and how many a load usually has, by the hour of the week; for people to see.

Kept as text (``10-50,,3-9,…``, one for each hour), for every heartbeat reads a habit and none needs these.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_oauth_guard.domain.habits.wall import HOUR, WEEK, hour_of_week


def bands_of(loads: Sequence[tuple[int, int]]) -> str:
    """The 10th and the 90th percentile of each hour's loads."""
    if not loads:
        return ""
    by_hour: list[list[int]] = [[] for _ in range(WEEK // HOUR)]
    for at, rows in loads:
        by_hour[hour_of_week(at)].append(rows)
    return ",".join([_band(sorted(rows)) for rows in by_hour])


def _band(rows: list[int]) -> str:
    return f"{rows[len(rows) // 10]}-{rows[(9 * len(rows) - 1) // 10]}" if rows else ""


def band_at(bands: str, minute: int) -> tuple[int, int] | None:
    """None where no load came at this hour, or none was ever counted."""
    if not bands:
        return None
    low, _, high = bands.split(",")[hour_of_week(minute)].partition("-")
    return (int(low), int(high)) if high else None
