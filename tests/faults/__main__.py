"""Break everything there is to break, and write what came of it into docs/reliability.md: ``make faults``.

Each part stands between ``<!-- faults: NAME -->`` and ``<!-- /faults -->`` and is replaced by what it measured just now.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from tests.faults import kills, outages, races
from tests.faults.databases import NAMES, SERVERS, UnavailableError

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
MARKED = r"(<!-- faults: {} -->\n).*?(<!-- /faults -->)"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    processes: int = 50
    rounds: int = 200
    kills: int = 100
    outages: int = 10
    episodes: int = 10_000


SMALL = Size(processes=10, rounds=5, kills=3, outages=1, episodes=200)


Part = tuple[str, bool]
"""What a part measured, in Markdown, and whether all of it was as it should be."""


def _races(size: Size) -> Part:
    def both_ways(name: str) -> list[races.Race]:
        rounds = {"refresh": size.rounds, "get_token": max(size.rounds // 4, 1)}
        return [races.run(name, processes=size.processes, rounds=rounds[way], way=way) for way in races.WAYS]

    ran, missing = _on_each(NAMES, both_ways)
    return races.as_markdown(ran) + missing, not any(race.problems for race in ran)


def _kills(size: Size) -> Part:
    ran, missing = _on_each(NAMES, lambda name: kills.run(name, times=size.kills))
    return kills.as_markdown(ran) + missing, not any(killed.problems for killed in ran)


def _outages(size: Size) -> Part:
    ran, missing = _on_each(SERVERS, lambda name: outages.run(name, size.outages))
    return outages.as_markdown(ran) + missing, not any(outage.problems for outage in ran)


def _providers(_size: Size) -> Part:
    # Imported late, as it opens a store, and the parts above fork. It raises where a law does not hold.
    from tests.faults import providers

    return providers.as_markdown(providers.run()), True


def _episodes(size: Size) -> Part:
    from tests.faults import episodes

    summary = episodes.run(size.episodes, seed=1)
    return episodes.as_markdown(summary), not summary.violations


PARTS: dict[str, Callable[[Size], Part]] = {
    "races": _races,
    "kills": _kills,
    "outages": _outages,
    "providers": _providers,
    "episodes": _episodes,
}

Result = TypeVar("Result")


def _on_each(names: tuple[str, ...], run: Callable[[str], list[Result]]) -> tuple[list[Result], str]:
    """Run it on every database there is; and say which there are not."""
    results: list[Result] = []
    missing = ""
    for name in names:
        try:
            results += run(name)
        except UnavailableError as error:
            missing += f"\n\nNot run on {name}: {error}"
    return results, missing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; default: all")
    parser.add_argument("--small", action="store_true", help="a little of everything, and leave the page alone")
    given = parser.parse_args()
    all_sound = True
    for name in given.parts or PARTS:
        began = time.monotonic()
        text, sound = PARTS[name](SMALL if given.small else Size())
        print(f"{name}, {time.monotonic() - began:.0f} s\n\n{text}\n", flush=True)
        all_sound = all_sound and sound
        if not given.small:
            _write(name, f"{text.strip()}\n\n{_where(time.monotonic() - began)}\n")
    return 0 if all_sound else 1


def _where(seconds: float) -> str:
    return (
        f"*{datetime.now(timezone.utc):%Y-%m-%d}, Airflow {version('apache-airflow')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {seconds / 60:.0f} min.*"
    )


def _write(name: str, text: str) -> None:
    page, changed = re.subn(
        MARKED.format(name), lambda mark: mark[1] + text + mark[2], PAGE.read_text(), flags=re.DOTALL
    )
    if not changed:
        raise LookupError(f"{PAGE.name} has no place for {name}")
    PAGE.write_text(page)


if __name__ == "__main__":
    sys.exit(main())
