"""Score readings of single answers against what their sources say was the cause."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.catalog.explaining import Given, explain
from airflow_oauth_guard.domain.answers import read_body, said

HERE = Path(__file__).parent
SETS = {
    "documented_refresh.jsonl": "documented answers of token endpoints",
    "documented_probe.jsonl": "documented answers of APIs",
    "recorded.jsonl": "recorded from five authorization servers",
    "documented_holdout.jsonl": "documented answers, collected last",
}
LAST = "documented_holdout.jsonl"
NOW = datetime(2026, 11, 25, tzinfo=timezone.utc)
DEAD = "grant_dead"


@dataclass(frozen=True)
class Answer:
    """One answer and the truth about it."""

    id: str
    given: Given
    finding: str
    grant_alive: bool | None

    @property
    def is_refresh(self) -> bool:
        return self.given.call == "refresh"


def read_set(name: str) -> list[Answer]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [_answer(json.loads(line)) for line in lines if line.strip()]


def _answer(entry: dict[str, Any]) -> Answer:
    given = Given(
        call=entry["call"],
        body=entry["body"],
        http_status=entry["http_status"],
        headers={name: str(value) for name, value in entry["headers"].items()},
        provider=entry["provider"],
        grant_class=entry["grant_class"],
    )
    return Answer(entry["id"], given, entry["finding"], entry["grant_alive"])


def is_unseen(answer: Answer) -> bool:
    """Whether an answer of the last set was kept from whoever writes rules: one half, by the hash of its id."""
    return int(hashlib.sha256(answer.id.encode()).hexdigest(), 16) % 2 == 0


@dataclass(frozen=True)
class Score:
    """How one way of reading did on one set."""

    pairs: Counter[tuple[str, str]]
    """Counts of (truth, reading)."""

    @property
    def answers(self) -> int:
        return sum(self.pairs.values())

    @property
    def right(self) -> float:
        return sum(count for (truth, read), count in self.pairs.items() if truth == read) / self.answers

    def precision(self, finding: str) -> float | None:
        return _share(self.pairs[finding, finding], sum(n for (_, read), n in self.pairs.items() if read == finding))

    def recall(self, finding: str) -> float | None:
        return _share(self.pairs[finding, finding], sum(n for (truth, _), n in self.pairs.items() if truth == finding))

    def count(self, finding: str) -> int:
        return sum(n for (truth, _), n in self.pairs.items() if truth == finding)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def score(answers: Iterable[Answer], read: Callable[[Answer], str]) -> Score:
    return Score(Counter((answer.finding, read(answer)) for answer in answers))


def with_catalog(catalog: Catalog) -> Callable[[Answer], str]:
    return lambda answer: explain(answer.given, catalog, NOW).finding


def without_catalog(catalog: Catalog) -> Callable[[Answer], str]:
    """As for a provider nobody knows: the protocol and common words only."""

    def read(answer: Answer) -> str:
        given = answer.given
        unnamed = Given(given.call, given.body, given.http_status, given.headers, "", given.grant_class)
        return explain(unnamed, catalog, NOW).finding

    return read


# -- the usual rules ----------------------------------------------------------------------------------------------------

RFC6749_CODES = frozenset(
    {
        *("invalid_grant", "invalid_client", "invalid_request", "unauthorized_client"),
        *("unsupported_grant_type", "invalid_scope"),
    }
)


def _failed(answer: Answer) -> bool:
    return answer.finding != "live"


def _is_4xx(answer: Answer) -> bool:
    return 400 <= (answer.given.http_status or 0) < 500


def _codes(answer: Answer) -> frozenset[str]:
    given = answer.given
    body = read_body(given.body.encode())
    return frozenset(said(body).codes)


USUAL_RULES: dict[str, Callable[[Answer], bool]] = {
    "any failed refresh is a dead grant": _failed,
    "any 4xx": _is_4xx,
    "the six codes of RFC 6749": lambda answer: bool(RFC6749_CODES & _codes(answer)),
    "`invalid_grant` alone": lambda answer: "invalid_grant" in _codes(answer),
}


@dataclass(frozen=True)
class Verdicts:
    """How often a rule that calls grants dead was right."""

    called_dead: int
    falsely: int
    dead: int
    named: int

    @property
    def false_share(self) -> str:
        return percent(_share(self.falsely, self.called_dead))

    @property
    def named_share(self) -> str:
        return percent(_share(self.named, self.dead))


def verdicts(answers: Sequence[Answer], calls_dead: Callable[[Answer], bool]) -> Verdicts:
    """Judge a rule on refresh answers; a death it declares is false unless the answer means one."""
    refreshes = [answer for answer in answers if answer.is_refresh]
    called = [answer for answer in refreshes if calls_dead(answer)]
    return Verdicts(
        called_dead=len(called),
        falsely=sum(answer.finding != DEAD for answer in called),
        dead=sum(answer.finding == DEAD for answer in refreshes),
        named=sum(answer.finding == DEAD for answer in called),
    )


# -- in words ---------------------------------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def as_markdown() -> str:
    """Every set, every finding, and the usual rules beside it."""
    catalog = Catalog()
    sets = {name: read_set(name) for name in SETS}
    shown = {SETS[name]: answers for name, answers in sets.items()}
    shown["of these, the half that nobody looked at"] = [answer for answer in sets[LAST] if is_unseen(answer)]
    everything = [answer for answers in sets.values() for answer in answers]
    parts = [_overview(shown, catalog), _by_finding(everything, catalog), _rules(everything, catalog)]
    return "\n\n".join(parts)


def _overview(sets: dict[str, list[Answer]], catalog: Catalog) -> str:
    rows = []
    for name, answers in sets.items():
        known, unknown = score(answers, with_catalog(catalog)), score(answers, without_catalog(catalog))
        falsely = sum(n for (truth, read), n in known.pairs.items() if read == DEAD and truth != DEAD)
        alive = _live_called_dead(answers, catalog)
        rows.append(
            (
                name,
                known.answers,
                percent(known.right),
                percent(known.recall(DEAD)),
                falsely,
                alive,
                percent(unknown.right),
            )
        )
    header = (
        "set",
        "answers",
        "read right",
        "dead grants named",
        "others read as dead",
        "of them alive",
        "right, provider unknown",
    )
    return table(header, rows)


def _live_called_dead(answers: Iterable[Answer], catalog: Catalog) -> int:
    read = with_catalog(catalog)
    return sum(read(answer) == DEAD and answer.finding != DEAD and answer.grant_alive is True for answer in answers)


def _by_finding(answers: list[Answer], catalog: Catalog) -> str:
    known = score(answers, with_catalog(catalog))
    findings = sorted({truth for truth, _ in known.pairs}, key=known.count, reverse=True)
    rows = [(f"`{f}`", known.count(f), percent(known.precision(f)), percent(known.recall(f))) for f in findings]
    return table(("finding", "answers", "precision", "recall"), rows)


def _rules(answers: list[Answer], catalog: Catalog) -> str:
    ours = with_catalog(catalog)
    read = {"the reading `grant_dead`, of one answer": lambda answer: ours(answer) == DEAD}
    proof = {
        "what the guard takes for proof, of one answer": lambda answer: explain(answer.given, catalog, NOW).sufficient
    }
    rows = []
    for name, rule in (USUAL_RULES | read | proof).items():
        found = verdicts(answers, rule)
        rows.append((name, found.called_dead, found.falsely, found.false_share, found.named_share))
    return table(("rule", "calls dead", "falsely", "share of its verdicts false", "dead grants named"), rows)


def wrong(name: str) -> Iterator[str]:
    """What is read otherwise than its source says, for whoever wants to look."""
    read = with_catalog(Catalog())
    for answer in read_set(name):
        if (found := read(answer)) != answer.finding:
            yield f"{answer.id}: {answer.finding} read as {found}"
