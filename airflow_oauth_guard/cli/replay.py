"""``airflow oauth-guard replay``: how would a window have behaved on a history? Needs no store."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from importlib.util import find_spec

from airflow_oauth_guard.cli.output import clear_errors, read_input
from airflow_oauth_guard.cli.times import read_duration, zulu
from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.calendar import ClosedDays, closed_days, zone_named
from airflow_oauth_guard.domain.clock import parse_instant
from airflow_oauth_guard.domain.replaying import DAY, Episode, read_history, replay
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Window, read_window
from airflow_oauth_guard.errors import ConfigurationError


def replay_history(args: argparse.Namespace) -> None:
    """Print every alarm there would have been, as JSON lines."""
    with clear_errors():
        _can_plot(args.plot)
        as_given, step = read_arguments(args), read_duration(args.step, "--step")
        history = read_history(io.StringIO(read_input(args.file).removeprefix("\ufeff")))
        until = parse_instant(args.until, "--until") if args.until else None
        alarms = {name: _replayed(name, beats, as_given, until, step) for name, beats in history.items()}
        for alarm in sorted((alarm for found in alarms.values() for alarm in found), key=_order):
            print(json.dumps(as_line(alarm), ensure_ascii=False))  # noqa: T201
        _hint(history, until)
        if args.plot:
            from airflow_oauth_guard.cli.plot import draw

            left_out = draw(history, alarms, until, args.plot)
            if left_out:
                print(f"{args.plot} shows those with most alarms; {left_out} sources are not in it.", file=sys.stderr)  # noqa: T201


def _replayed(
    name: str, beats: Sequence[Beat], as_given: Source, until: datetime | None, step: timedelta
) -> list[Episode]:
    # A history without any count is one of bare signs of life.
    pings = all(beat.rows is None for beat in beats)
    source = Source(name, as_given.window, timezone=as_given.timezone, closed=as_given.closed, pings=pings)
    return replay(source, beats, until=until, step=step)


def _order(alarm: Episode) -> tuple[datetime, str]:
    return alarm.opened, alarm.source


def as_line(alarm: Episode) -> Mapping[str, str | None]:
    """One alarm as it is printed."""
    return {
        "source": alarm.source,
        "kind": alarm.kind.value,
        "opened": zulu(alarm.opened),
        "resolved": zulu(alarm.resolved),
        "explanation": alarm.explanation,
    }


def read_arguments(args: argparse.Namespace) -> Source:
    """The source that every history of the file is taken for.

    Raises:
        ConfigurationError: Naming the argument that is wrong.
    """
    zone_named(args.timezone, "--timezone")
    return Source("as given", _window(args), timezone=args.timezone, closed=_closed(args.closed))


def _window(args: argparse.Namespace) -> Window:
    given = args.window.strip()
    if given == "learned":
        fallback = read_duration(args.fallback, "--fallback").total_seconds()
        return read_window({"learned": {"fallback_seconds": fallback, "budget": args.budget}}, "--window learned")
    if given.startswith("cron "):
        cron = {"cron": given.removeprefix("cron ").strip(), "grace_seconds": "learned", "budget": args.budget}
        return read_window(cron, "--window cron")
    return read_window({"window_seconds": read_duration(given, "--window").total_seconds()}, "--window")


def _closed(given: str | None) -> ClosedDays:
    """Weekdays and dates in one list, ``sat,sun,2026-12-24/2026-12-27,--01-01``."""
    words = [word.strip() for word in (given or "").split(",") if word.strip()]
    weekdays = [word for word in words if word.isalpha()]
    return closed_days({"weekdays": weekdays, "dates": [word for word in words if not word.isalpha()]}, "--closed")


def _hint(history: Mapping[str, Sequence[Beat]], until: datetime | None) -> None:
    """A source that falls silent for good ends its history with that; whether somebody should have noticed is to be asked."""
    ends = max((beats[-1].at for beats in history.values()), default=None)
    early = [name for name, beats in history.items() if ends is not None and beats[-1].at < ends - DAY]
    if early and until is None:
        print(  # noqa: T201
            f"{len(early)} sources, such as `{early[0]}`, end before the others; with `--until {zulu(ends)}` their silence from "
            "then on is judged, too.",
            file=sys.stderr,
        )


def _can_plot(path: str | None) -> None:
    if path and find_spec("matplotlib") is None:
        raise ConfigurationError("--plot needs matplotlib; install it with `pip install airflow-oauth-guard[plot]`.")
