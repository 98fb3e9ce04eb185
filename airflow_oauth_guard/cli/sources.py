"""``airflow oauth-guard`` about sources: speak for one, look at all, pause, answer an alarm, and ask whether anybody watches."""

from __future__ import annotations

import argparse
import getpass
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_oauth_guard.cli.commands import open_store
from airflow_oauth_guard.cli.output import clear_errors, print_table
from airflow_oauth_guard.cli.times import read_duration, zulu
from airflow_oauth_guard.domain.clock import parse_instant, words
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.flat_line import outlook
from airflow_oauth_guard.domain.incidents import About, Incident, IncidentKind
from airflow_oauth_guard.domain.speaking import adoption, beat_at, instant, row_count, run_name
from airflow_oauth_guard.errors import ConfigurationError, NotRegisteredError
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.plugin.views.sources import source_view

if TYPE_CHECKING:
    from airflow_oauth_guard.store.sources import Watched
    from airflow_oauth_guard.store.store import Store

WATCHERS = ("oauth_guard_flat_line", "oauth_guard_refresh")
"""The guard's own DAGs, each a source of the same name."""


# -- speak ------------------------------------------------------------------------------------------------------------


def heartbeat(args: argparse.Namespace) -> None:
    """Announce that a job outside Airflow ran, and how much it moved."""
    with clear_errors():
        now = utcnow()
        rows, watermark = row_count(args.rows), instant(args.watermark, "--watermark")
        who = Observer(run_id=run_name(args.run), task_id="airflow oauth-guard heartbeat")
        heard = open_store().sources.beat(args.source, rows, beat_at(args.at, now), who, watermark, args.note or "")
        if heard.adopted:
            print(adoption(args.source))  # noqa: T201
        said = "an unknown number of rows" if rows is None else f"{rows} rows"
        print(f"{args.source}: {said}" if heard.new else f"{args.source}: this run was heard before")  # noqa: T201


# -- look -------------------------------------------------------------------------------------------------------------


def sources(args: argparse.Namespace) -> None:
    """Print every source with what is known of it."""
    with clear_errors():
        now = utcnow()
        if args.json:
            facts = [source_view(watched, now).model_dump(mode="json") for watched in open_store().sources.all()]
            print(json.dumps(facts, indent=2))  # noqa: T201
            return
        columns = ("source", "standing", "window", "last heard", "rows", "without rows", "alarm", "notes")
        print_table(columns, [_row(watched, now) for watched in open_store().sources.all()])


def _row(watched: Watched, now: datetime) -> tuple[str, ...]:
    seen = source_view(watched, now)
    notes = [
        "adopted" if seen.adopted else "",
        seen.learning or "",
        f"muted for {words(seen.muted_until - now)}" if seen.muted_until else "",
        seen.note or "",
    ]
    return (
        seen.name,
        seen.standing,
        seen.window,
        f"{words(now - seen.last_heard_at)} ago" if seen.last_heard_at else "never",
        "" if seen.rows is None else str(seen.rows),
        words(timedelta(seconds=seen.gap_seconds)),
        _from_now(seen.alarm_at, now),
        "; ".join(filter(None, notes)),
    )


def _from_now(at: datetime | None, now: datetime) -> str:
    if at is None:
        return ""
    return f"in {words(at - now)}" if at > now else f"{words(now - at)} ago"


# -- pause ------------------------------------------------------------------------------------------------------------


def mute(args: argparse.Namespace) -> None:
    """No alarm about a source until then."""
    with clear_errors():
        now = utcnow()
        muted = open_store().sources.mute(args.source, _end(args, now), now, person(), args.reason or "").mute
        assert muted is not None
        print(f"{args.source}: no alarm until {zulu(muted.until)}, in {words(muted.until - now)}")  # noqa: T201


def _end(args: argparse.Namespace, now: datetime) -> datetime:
    if (args.lasting is None) == (args.until is None):
        raise ConfigurationError("A pause needs an end: write either --for 4h or --until 2026-12-24T18:00:00Z.")
    return (
        parse_instant(args.until, "--until") if args.until is not None else now + read_duration(args.lasting, "--for")
    )


def unmute(args: argparse.Namespace) -> None:
    """End a pause."""
    with clear_errors():
        ended = open_store().sources.unmute(args.source, utcnow())
        print(f"{args.source}: {'watched again' if ended else 'it is not muted'}")  # noqa: T201


def forget(args: argparse.Namespace) -> None:
    """Watch a source no more."""
    with clear_errors():
        if not open_store().sources.forget(args.source):
            raise NotRegisteredError(f"Source `{args.source}` is not registered; nothing to forget.")
        print(  # noqa: T201
            f"{args.source}: forgotten. A declaration that names it, or its next heartbeat, brings it back."
        )


# -- answer -----------------------------------------------------------------------------------------------------------


def acknowledge(args: argparse.Namespace) -> None:
    """Somebody is on it."""
    with clear_errors():
        about, by = About(args.about), person()
        incident = open_store().incidents.acknowledge(about, args.name, by, utcnow())
        if incident is None:
            raise NotRegisteredError(f"Nothing is open about {about.value} `{args.name}`.")
        print(f"{incident.sentence()} Acknowledged by {incident.acknowledged_by}.")  # noqa: T201


def expected(args: argparse.Namespace) -> None:
    """A source's last alarm had to be expected; its window learns from it."""
    with clear_errors():
        store, by = open_store(), person()
        incident = _last_alarm(store, args.source)
        store.incidents.mark_expected(incident.id, by, utcnow())
        print(f"{args.source}: {by} said that the alarm of {zulu(incident.opened_at)} had to be expected")  # noqa: T201


def _last_alarm(store: Store, source: str) -> Incident:
    alarms = store.incidents.history(About.SOURCE, source)
    if not alarms:
        raise NotRegisteredError(f"There was never an alarm about source `{source}`.")
    return alarms[-1]


def person() -> str:
    """Who sits there, as the operating system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container a user may have a number and no name.
        return f"uid {os.getuid()}"


# -- who watches the watcher ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One thing that has to be so for anybody to be watching."""

    check: str
    ok: bool
    said: str


def health(args: argparse.Namespace) -> None:
    """Whether the watch itself works, for probes outside Airflow; exit code 1 if not."""
    with clear_errors():
        oldest = read_duration(args.max_age, "--max-age") if args.max_age is not None else None
        checks = list(checked(open_store(), oldest, utcnow()))
    fine = all(check.ok for check in checks)
    if args.json:
        print(json.dumps({"ok": fine, "checks": [asdict(check) for check in checks]}, indent=2))  # noqa: T201
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'FAIL'} {check.check}: {check.said}")  # noqa: T201
    if not fine:
        raise SystemExit(1)


def checked(store: Store, oldest: timedelta | None, now: datetime) -> Iterator[Check]:
    """Both of the guard's own DAGs speak, and nothing is known to be wrong with the watch or its alerts.

    Args:
        oldest: How long ago each may have spoken last; None: its own window says.
    """
    for name in WATCHERS:
        yield _speaks(store.sources.find(name), name, oldest, now)
    wrong = [incident for incident in store.incidents.open_ones() if _is_about_the_watch(incident)]
    for incident in wrong:
        yield Check("incident", ok=False, said=incident.sentence())
    if not wrong:
        yield Check("incident", ok=True, said="nothing is open about the watch or its alerts")


def _speaks(watched: Watched | None, name: str, oldest: timedelta | None, now: datetime) -> Check:
    if watched is None or watched.state.last_beat_at is None:
        return Check(name, ok=False, said=f"never heard; is the DAG `{name}` there, and not paused?")
    last = watched.state.last_beat_at
    until = last + oldest if oldest is not None else outlook(watched.source, watched.habit, watched.state).late_at
    ok = until is None or now <= until
    due = "" if until is None else f", {'again due' if ok else 'was due'} by {zulu(until)}"
    return Check(name, ok=ok, said=f"heard {words(now - last)} ago{due}")


def _is_about_the_watch(incident: Incident) -> bool:
    itself = incident.about is About.SOURCE and incident.name in WATCHERS
    return itself or incident.about in (About.ROUTE, About.MONITOR) or incident.kind is IncidentKind.EVERYTHING_QUIET
