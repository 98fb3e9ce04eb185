"""``make truth``: measure the readings and write ``docs/truth.md``. ``python -m tests.truth answers|year|wrong SET`` does one part."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.truth import score

PAGE = Path(__file__).parents[2] / "docs" / "truth.md"


def year() -> str:
    """The simulated year."""
    from tests.truth import year as simulated

    began = time.monotonic()
    result = simulated.simulate(seed=1)
    return f"{simulated.as_markdown(result)}\n\n*Seed 1, {time.monotonic() - began:.0f} s on one core.*"


PARTS: dict[str, Callable[[], str]] = {"answers": score.as_markdown, "year": year}


def write(name: str, text: str) -> None:
    """Put a part between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    marked = re.compile(rf"(<!-- truth: {name} -->\n).*?(<!-- /truth -->)", re.DOTALL)
    if not marked.search(page):
        raise SystemExit(f"{PAGE} has no place for `{name}`.")
    PAGE.write_text(marked.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page), encoding="utf-8")


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["wrong"]:
        for name in arguments[1:] or score.SETS:
            print(*score.wrong(name), sep="\n")
        return
    for name in arguments or PARTS:
        text = PARTS[name]()
        print(text)
        write(name, text)


if __name__ == "__main__":
    main(sys.argv[1:])
