"""Rows per heartbeat as a small picture: what came, what usually comes, and how long nothing has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_oauth_guard.domain.beats import SKIPPED
from airflow_oauth_guard.plugin.views.sources import BeatView

WIDTH, HEIGHT, HEADROOM = 960, 160, 1.1
LEAST_SPAN = timedelta(hours=1)
BAR = 3.0


@dataclass(frozen=True)
class Bar:
    """One heartbeat."""

    x: float
    y: float
    height: float
    at: datetime
    rows: int | None


@dataclass(frozen=True)
class Chart:
    """Numbers for the template's SVG, in its units."""

    width: int
    height: int
    bars: tuple[Bar, ...]
    band: str
    """Points of a polygon around the usual number of rows; empty where none is learned."""
    most: int
    """Rows at the top."""
    begins: datetime
    ends: datetime
    quiet_from: float
    """Where the last load with rows is; from there on nothing has come."""
    now_at: float
    alarm_at: float | None
    """Where silence becomes an alarm; None where that is outside, or never."""


def rows_chart(beats: Sequence[BeatView], now: datetime, alarm_at: datetime | None) -> Chart | None:
    """None where nothing was heard."""
    if not beats:
        return None
    begins, ends = beats[0].at, max(now, alarm_at or now)
    span = max(ends - begins, LEAST_SPAN)
    usual = [high for beat in beats if beat.usual is not None for high in beat.usual]
    most = max([beat.rows or 0 for beat in beats] + usual + [1])

    def across(at: datetime) -> float:
        return round((at - begins) / span * WIDTH, 1)

    def down(rows: float) -> float:
        return round(HEIGHT - rows / (most * HEADROOM) * HEIGHT, 1)

    productive = [beat.at for beat in beats if beat.rows != 0 and not (beat.note or "").startswith(SKIPPED)]
    return Chart(
        width=WIDTH,
        height=HEIGHT,
        bars=tuple(
            Bar(across(beat.at), down(beat.rows or 0), HEIGHT - down(beat.rows or 0), beat.at, beat.rows)
            for beat in beats
        ),
        band=_polygon([(across(beat.at), down(beat.usual[0]), down(beat.usual[1])) for beat in beats if beat.usual]),
        most=most,
        begins=begins,
        ends=ends,
        quiet_from=across(max(productive, default=begins)),
        now_at=across(now),
        alarm_at=across(alarm_at) if alarm_at is not None and alarm_at >= begins else None,
    )


def _polygon(edges: Sequence[tuple[float, float, float]]) -> str:
    upper = [f"{x},{high}" for x, _, high in edges]
    lower = [f"{x},{low}" for x, low, _ in reversed(edges)]
    return " ".join(upper + lower) if len(edges) > 1 else ""
