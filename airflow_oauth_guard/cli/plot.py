"""A picture of a replayed history: rows over time, the quiet stretches, and the alarms there would have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import takewhile
from typing import Any

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.replaying import Episode

Axes = Any
"""Matplotlib's own types know no datetimes."""

MOST_PANELS = 60
"""A PNG has no more pixels than 65,536 to a side, and nobody scrolls that far."""

WIDTH, PANEL_HEIGHT, MARGIN = 12.0, 2.4, 0.9
"""Inches."""

ROOM_FOR_A_LABEL = 0.03
"""Of the panel's width."""

ROWS, INK = "#2f6f9f", "#30363c"
EMPTY: Mapping[str, Any] = {"marker": "o", "linestyle": "none", "color": "#8a5a00", "markersize": 2.0}
UNKNOWN: Mapping[str, Any] = {"marker": "|", "linestyle": "none", "color": "#9aa3ab", "markersize": 5.0}
COLOURS: Mapping[IncidentKind, str] = {
    IncidentKind.LATE: "#c0392b",
    IncidentKind.FLAT: "#d08700",
    IncidentKind.STUCK: "#7d3c98",
    IncidentKind.UNMEASURED: "#5f6a72",
}


def draw(
    history: Mapping[str, Sequence[Beat]],
    alarms: Mapping[str, Sequence[Episode]],
    until: datetime | None,
    path: str,
) -> int:
    """Write a picture with a panel for each source; where there are too many, for those with most alarms.

    Returns:
        How many sources are left out.
    """
    from matplotlib.figure import Figure

    most = set(sorted(history, key=lambda name: -len(alarms[name]))[:MOST_PANELS])
    names = [name for name in history if name in most]
    height = PANEL_HEIGHT * max(len(names), 1) + MARGIN
    figure = Figure(figsize=(WIDTH, height), dpi=110, facecolor="white")
    panels = figure.subplots(max(len(names), 1), squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=False):
        _panel(axes, name, history[name], alarms[name], until or history[name][-1].at)
    _legend(figure, [alarm.kind for name in names for alarm in alarms[name]])
    figure.tight_layout(rect=(0, 0, 1, 1 - MARGIN * 0.5 / height))
    # Whatever the name ends in: what was asked for is a PNG.
    figure.savefig(path, format="png")
    return len(history) - len(names)


def _panel(axes: Axes, name: str, beats: Sequence[Beat], alarms: Sequence[Episode], until: datetime) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator

    top = 1.08 * (max((beat.rows or 0 for beat in beats), default=0) or 1)
    ends = max(until, beats[-1].at, beats[0].at + timedelta(hours=1))
    _rows(axes, beats, top)
    _alarms(axes, alarms, beats, (beats[0].at, ends))
    locator = AutoDateLocator(tz=timezone.utc)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=timezone.utc))
    axes.xaxis.get_offset_text().set_size(8)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(beats[0].at, ends)
    axes.set_ylim(0, top)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.set_ylabel("rows", fontsize=8, color=INK)
    said = "no alarm" if not alarms else "1 alarm" if len(alarms) == 1 else f"{len(alarms)} alarms"
    axes.set_title(_plain(f"{name}: {said}"), loc="left", fontsize=10, fontweight="bold", color=INK, pad=20)


def _rows(axes: Axes, beats: Sequence[Beat], top: float) -> None:
    """Each load as a line as high as it moved rows; nothing joins two of them, for between them is nothing."""
    brought = [beat for beat in beats if beat.rows]
    width = min(2.0, max(0.35, 500 / len(beats)))
    axes.vlines(
        [beat.at for beat in brought], 0, [beat.rows for beat in brought], colors=ROWS, linewidth=width, zorder=3
    )
    empty = [beat.at for beat in beats if beat.rows == 0]
    axes.plot(empty, [0.02 * top] * len(empty), **EMPTY, zorder=4)
    unknown = [beat.at for beat in beats if beat.rows is None]
    axes.plot(unknown, [0.04 * top] * len(unknown), **UNKNOWN, zorder=3)


def _alarms(axes: Axes, alarms: Sequence[Episode], beats: Sequence[Beat], span: tuple[datetime, datetime]) -> None:
    """The quiet stretches as bands from their beginning, and a mark where each alarm would have gone off."""
    from matplotlib.dates import date2num

    upper, labelled = axes.get_xaxis_transform(), span[0] - (span[1] - span[0])
    for alarm in alarms:
        colour = COLOURS[alarm.kind]
        axes.axvspan(
            _quiet_since(alarm, beats), alarm.resolved or span[1], color=colour, alpha=0.2, linewidth=0, zorder=1
        )
        axes.axvline(alarm.opened, color=colour, linewidth=1.2, zorder=5)
        axes.plot([alarm.opened], [1.02], "v", color=colour, markersize=6, transform=upper, clip_on=False, zorder=6)
        if alarm.opened - labelled < (span[1] - span[0]) * ROOM_FOR_A_LABEL:
            # It would cover the one before; the colour says it as well.
            continue
        label, labelled = alarm.kind.value if alarm.resolved else f"{alarm.kind.value}, open", alarm.opened
        where = {"xy": (date2num(alarm.opened), 1.0), "xycoords": upper}
        place = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        axes.annotate(label, **where, **place, fontsize=7, color=colour, annotation_clip=False)


def _quiet_since(alarm: Episode, beats: Sequence[Beat]) -> datetime:
    """The last sign of what the alarm misses: a run, rows, or another number."""
    before = [beat for beat in beats if beat.at <= alarm.opened]
    if alarm.kind is IncidentKind.LATE:
        return before[-1].at
    brought = [beat for beat in before if beat.rows]
    if alarm.kind is IncidentKind.STUCK:
        return list(takewhile(lambda beat: beat.rows == brought[-1].rows, reversed(brought)))[-1].at
    return brought[-1].at if brought else beats[0].at


def _legend(figure: Any, kinds: Sequence[IncidentKind]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Line2D([], [], color=ROWS, linewidth=2, label="rows of a load"),
        Line2D([], [], **EMPTY, label="a load of 0 rows"),
        Line2D([], [], **UNKNOWN, label="nobody knows how many"),
    ]
    told = [(kind, colour) for kind, colour in COLOURS.items() if kind in kinds]
    handles += [Patch(facecolor=colour, alpha=0.45, label=f"{kind.value}: {kind.headline}") for kind, colour in told]
    style = {"frameon": False, "fontsize": 8, "labelcolor": INK, "columnspacing": 1.4, "handlelength": 1.4}
    figure.legend(handles=handles, loc="upper left", ncols=4, **style)


def _plain(text: str) -> str:
    # Between dollar signs matplotlib reads formulas.
    return text.replace("$", r"\$")
