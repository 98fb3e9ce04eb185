"""``make flatline``: measure the windows on real series and write the tables into docs/flat-lines.md.

``python -m tests.flatline windows|scale`` does one part. What is measured on a machine without PostgreSQL says so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.flatline.rules import RULES, Rule, closings, with_closed_days
from tests.flatline.score import Score, half, run, tune
from tests.flatline.series import Series, load_all

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "flat-lines.md"
CACHE = ROOT / ".flatline" / "series.jsonl.gz"


def windows() -> str:
    """Every rule on the half of the series that none was tuned on."""
    began, series = time.monotonic(), load_all(CACHE)
    tuning, test = ([one for one in series if half(one) == which] for which in ("tuning", "test"))
    usual = [rule for rule in RULES.values() if len(rule.settings) > 1]
    ours = [rule for rule in RULES.values() if len(rule.settings) == 1]
    settings = tune(usual, tuning) | {rule.name: rule.settings[0] for rule in ours}
    scores = run(test, {name: RULES[name].detector(setting) for name, setting in settings.items()})
    some = next(iter(scores.values()))
    kinds = {kind: sum(one.outage.kind == kind for one in some.outcomes) for kind in ("late", "flat", "stuck")}
    return "\n".join(
        [
            _table(scores, settings),
            "",
            (
                f"{len(test)} series of {len({one.origin for one in test})} tables (tuned on {len(tuning)} others), "
                f"{len(some.outcomes)} outages ({', '.join(f'{count} {kind}' for kind, count in kinds.items())}), "
                f"{some.months:.0f} source-months without any. Measured in {(time.monotonic() - began) / 60:.0f} minutes on two "
                "cores. *Gaps* are the source's own median time between loads with rows."
            ),
            "",
            _closed(series),
            "",
            _series(test),
        ]
    )


def _table(scores: dict[str, Score], settings: dict[str, float]) -> str:
    lines = [
        (
            "| rule | seen | late | flat | stuck | delay in gaps: median, p90 | in hours | labelled right | false alarms per "
            "source-month | worst source |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(_line(RULES[name], settings[name], score) for name, score in scores.items())])


def _line(rule: Rule, setting: float, score: Score) -> str:
    about = re.sub(r"\bN\b", f"{setting:g}", rule.about)
    shares = " | ".join(f"{100 * score.detected(kind):.0f} %" for kind in (None, "late", "flat", "stuck"))
    named = score.labelled_right
    label = "–" if named != named else f"{100 * named:.1f} %"  # noqa: PLR0124 - NaN: it names nothing
    name, rate = score.worst
    return (
        f"| {about} | {shares} | {score.delay_gaps():.1f}, {score.delay_gaps(0.9):.1f} | {score.delay_hours():.1f}, "
        f"{score.delay_hours(0.9):.1f} | {label} | {score.false_per_month:.2f} | {name}: {rate:.1f} |"
    )


def _closed(series: Sequence[Series]) -> str:
    """What declared closed days are worth to the sources that have any."""
    those = [one for one in series if closings(one)]
    scores = run(those, {"without": RULES["ours"].detector(), "with": with_closed_days})
    before, after = scores["without"], scores["with"]
    return (
        f"Closed days declared, on the {len(those)} series (of both halves) of a shop, a bank and a pizzeria whose owners would "
        f"have declared any: {before.false_per_month:.2f} false alarms per source-month without, {after.false_per_month:.2f} with; "
        f"{100 * before.detected():.0f} % and {100 * after.detected():.0f} % of outages seen."
    )


def _series(series: Sequence[Series]) -> str:
    names = ", ".join(sorted({one.origin for one in series}))
    return f"The tables: {names}."


def scale() -> str:
    """100,000 sources, from ``benchmarks/``."""
    command = [sys.executable, "-m", "benchmarks.flat_line"]
    if url := os.environ.get("OAUTH_GUARD_TEST_POSTGRES_URL"):
        command += ["--postgres", url]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


PARTS: dict[str, Callable[[], str]] = {"windows": windows, "scale": scale}


def write(name: str, text: str) -> None:
    """Put a part between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    marked = re.compile(rf"(<!-- flatline: {name} -->\n).*?(<!-- /flatline -->)", re.DOTALL)
    if not marked.search(page):
        raise SystemExit(f"{PAGE} has no place for `{name}`.")
    PAGE.write_text(marked.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page), encoding="utf-8")


def main(arguments: list[str]) -> None:
    for name in arguments or PARTS:
        text = PARTS[name]()
        print(text)
        write(name, text)


if __name__ == "__main__":
    main(sys.argv[1:])
