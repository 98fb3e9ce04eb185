"""How many outages a rule sees, how soon, and how often it accuses a source that did nothing.

python -m tests.flatline.score --half tuning --rule ours --verbose --list-missed
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from statistics import median

from tests.flatline.outages import KINDS, Outage, Variant, half, variants
from tests.flatline.rules import RULES, Alarm, Rule
from tests.flatline.series import CACHE, Series, load_all

MONTH = timedelta(days=365.25 / 12)
AFTERMATH = timedelta(days=1)
"""An alarm this soon after an outage, or within three of the source's gaps, is still about it."""

MOST_FALSE_ALARMS = 0.4
"""Per source and month: what the tuning lets a rule cost."""

Detector = Callable[[Variant], Sequence[Alarm]]


@dataclass(frozen=True)
class Outcome:
    """What became of one outage.

    Args:
        alarm: The first one that opened while it lasted.
        accused_before: An alarm was open already, so this one could not be told apart.
    """

    source: str
    seed: int
    outage: Outage
    alarm: Alarm | None
    accused_before: bool

    @property
    def delay(self) -> timedelta | None:
        return self.alarm.opened - self.outage.start if self.alarm else None

    @property
    def gaps(self) -> float | None:
        """The delay in the source's own gaps."""
        return self.delay / self.outage.gap if self.delay is not None else None


@dataclass(frozen=True)
class Trial:
    """What a rule said about one life of a source."""

    source: str
    seed: int
    outcomes: tuple[Outcome, ...]
    false_alarms: tuple[Alarm, ...]
    quiet: timedelta
    """The scored time in which no alarm would have been right."""


@dataclass(frozen=True)
class Score:
    """What a rule did on many lives."""

    trials: tuple[Trial, ...]

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for trial in self.trials for outcome in trial.outcomes]

    @property
    def months(self) -> float:
        return sum((trial.quiet for trial in self.trials), timedelta()) / MONTH

    @property
    def false_per_month(self) -> float:
        """False alarms per source and month of time in which nothing was wrong."""
        return sum(len(trial.false_alarms) for trial in self.trials) / self.months

    def detected(self, kind: str | None = None) -> float:
        """The share of outages during which an alarm opened."""
        seen = [outcome.alarm is not None for outcome in self.outcomes if kind in {None, outcome.outage.kind}]
        return sum(seen) / len(seen) if seen else float("nan")

    def delay_gaps(self, share: float = 0.5, kind: str | None = None) -> float:
        """The delay of the detected ones, in gaps of their sources."""
        return _at(share, [one.gaps for one in self._seen(kind) if one.gaps is not None])

    def delay_hours(self, share: float = 0.5, kind: str | None = None) -> float:
        return _at(share, [one.delay / timedelta(hours=1) for one in self._seen(kind) if one.delay is not None])

    @property
    def labelled_right(self) -> float:
        """Of the detected ones, the share called what they were; NaN for a rule that names nothing."""
        named = [one.alarm.kind == one.outage.kind for one in self._seen() if one.alarm and one.alarm.kind]
        return sum(named) / len(named) if named else float("nan")

    @property
    def f_score(self) -> float:
        """Detection and precision in one figure."""
        seen = len(self._seen())
        wrong = len(self.outcomes) - seen + sum(len(trial.false_alarms) for trial in self.trials)
        return 2 * seen / (2 * seen + wrong) if seen else 0.0

    def by_source(self) -> dict[str, "Score"]:
        """The same for each source."""
        names = dict.fromkeys(trial.source for trial in self.trials)
        return {name: Score(tuple(trial for trial in self.trials if trial.source == name)) for name in names}

    @property
    def worst(self) -> tuple[str, float]:
        """The source that was accused most, and how often a month."""
        rates = {name: score.false_per_month for name, score in self.by_source().items()}
        name = max(rates, key=rates.__getitem__)
        return name, rates[name]

    def _seen(self, kind: str | None = None) -> list[Outcome]:
        return [one for one in self.outcomes if one.alarm and kind in {None, one.outage.kind}]


def _at(share: float, values: list[float]) -> float:
    if not values:
        return float("nan")
    return median(values) if share == 0.5 else sorted(values)[min(len(values) - 1, int(share * len(values)))]


# ---- Judging ---------------------------------------------------------------------------------------------------------


def evaluate(lives: Iterable[Variant], detector: Detector) -> Score:
    """Try a rule on many lives."""
    return Score(tuple(judge(life, detector(life)) for life in lives))


def judge(life: Variant, alarms: Sequence[Alarm]) -> Trial:
    """Which of the alarms were right, and which outages went unseen."""
    outcomes = tuple(_outcome(life, outage, alarms) for outage in life.outages)
    excused = [(outage.start, outage.end + max(AFTERMATH, 3 * outage.gap)) for outage in life.outages]
    excused += [(start, end) for start, end in life.series.silences if end > life.scored_from]
    false_alarms = tuple(
        alarm
        for alarm in alarms
        if life.scored_from <= alarm.opened <= life.ends
        and not any(start <= alarm.opened <= end for start, end in excused)
    )
    quiet = life.ends - life.scored_from - sum((min(end, life.ends) - start for start, end in excused), timedelta())
    return Trial(life.series.name, life.seed, outcomes, false_alarms, quiet)


def _outcome(life: Variant, outage: Outage, alarms: Sequence[Alarm]) -> Outcome:
    opened = [alarm for alarm in alarms if outage.start <= alarm.opened <= outage.end]
    before = any(_is_open(alarm, outage.start) for alarm in alarms)
    first = min(opened, key=lambda alarm: alarm.opened, default=None)
    return Outcome(life.series.name, life.seed, outage, first, before)


def _is_open(alarm: Alarm, at: datetime) -> bool:
    return alarm.opened < at and (alarm.resolved is None or alarm.resolved > at)


# ---- Many at once ----------------------------------------------------------------------------------------------------


def run(series: Sequence[Series], detectors: Mapping[str, Detector], processes: int = 2) -> dict[str, Score]:
    """Try several rules on all lives of several series, in parallel."""
    with Pool(processes) as pool:
        # The big ones first, so that no process is left alone with one at the end.
        largest_first = sorted(series, key=lambda one: -len(one.beats))
        tried = pool.map(partial(_try_all, detectors), largest_first, chunksize=1)
    order = {one.name: number for number, one in enumerate(series)}
    return {name: Score(_in_order([trial for part in tried for trial in part[name]], order)) for name in detectors}


def _try_all(detectors: Mapping[str, Detector], series: Series) -> dict[str, list[Trial]]:
    trials: dict[str, list[Trial]] = {name: [] for name in detectors}
    for life in variants(series):
        for name, detector in detectors.items():
            trials[name].append(judge(life, detector(life)))
    return trials


def _in_order(trials: list[Trial], order: dict[str, int]) -> tuple[Trial, ...]:
    return tuple(sorted(trials, key=lambda trial: (order[trial.source], trial.seed)))


def tune(rules: Sequence[Rule], series: Sequence[Series], processes: int = 2) -> dict[str, float]:
    """For each rule the setting that sees most at a bearable price; if none is bearable, that of the best F score."""
    settings = {(rule.name, setting): rule.detector(setting) for rule in rules for setting in rule.settings}
    scores = run(series, {f"{name} {setting}": detector for (name, setting), detector in settings.items()}, processes)
    return {rule.name: _best({one: scores[f"{rule.name} {one}"] for one in rule.settings}) for rule in rules}


def _best(scores: dict[float, Score]) -> float:
    bearable = {one: score for one, score in scores.items() if score.false_per_month <= MOST_FALSE_ALARMS}
    if bearable:
        return max(bearable, key=lambda one: (bearable[one].detected(), -bearable[one].false_per_month))
    return max(scores, key=lambda one: scores[one].f_score)


# ---- Telling ---------------------------------------------------------------------------------------------------------

HEADER = (
    f"{'':34}{'seen':>6}{'late':>6}{'flat':>6}{'stuck':>6}{'gaps':>7}{'p90':>7}{'hours':>7}{'p90':>7}"
    f"{'label':>7}{'false/month':>13}"
)


def line(name: str, score: Score) -> str:
    """One line of the table."""
    shares = [score.detected(), *(score.detected(kind) for kind in KINDS)]
    delays = [score.delay_gaps(), score.delay_gaps(0.9), score.delay_hours(), score.delay_hours(0.9)]
    return (
        f"{name:34}"
        + "".join(f"{share:6.2f}" for share in shares)
        + "".join(f"{delay:7.1f}" for delay in delays)
        + f"{score.labelled_right:7.2f}{score.false_per_month:13.2f}"
    )


def _tell(name: str, score: Score, *, verbose: bool, list_missed: bool) -> None:
    worst, rate = score.worst
    print(HEADER)
    print(line(name, score))
    print(f"{len(score.outcomes)} outages, {score.months:.0f} months; most false alarms: {worst} ({rate:.2f} a month)")
    if verbose:
        print(*(line(source, one) for source, one in score.by_source().items()), sep="\n")
    if list_missed:
        print(*(_missed(one) for one in score.outcomes if one.alarm is None), sep="\n")


def _missed(one: Outcome) -> str:
    days = (one.outage.end - one.outage.start) / timedelta(days=1)
    why = "  (an alarm was open already)" if one.accused_before else ""
    return f"missed: {one.source} #{one.seed} {one.outage.kind} {one.outage.start:%Y-%m-%d %H:%M} {days:.1f} d{why}"


def _series(which: str, only: str, cache: Path) -> list[Series]:
    return [one for one in load_all(cache) if which in {"both", half(one)} and only in one.name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rule", default="ours", choices=[*RULES, "all"])
    parser.add_argument("--half", default="tuning", choices=["tuning", "test", "both"])
    parser.add_argument("--only", default="", help="part of the series' names")
    parser.add_argument("--setting", type=float, help="the rule's setting; as it comes by default")
    parser.add_argument("--tune", action="store_true", help="choose the setting on the tuning half first")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--verbose", action="store_true", help="a line per series")
    parser.add_argument("--list-missed", action="store_true")
    given = parser.parse_args()
    rules = list(RULES.values()) if given.rule == "all" else [RULES[given.rule]]
    series = _series(given.half, given.only, given.cache)
    if not series:
        parser.error(f"no series of that half has {given.only!r} in its name")
    chosen = tune(rules, _series("tuning", "", given.cache), given.processes) if given.tune else {}
    settings = {
        rule.name: chosen.get(rule.name, rule.settings[0] if given.setting is None else given.setting) for rule in rules
    }
    detectors = {f"{rule.name} {settings[rule.name]:g}": rule.detector(settings[rule.name]) for rule in rules}
    scores = run(series, detectors, given.processes)
    for name, score in scores.items():
        _tell(name, score, verbose=given.verbose, list_missed=given.list_missed)


if __name__ == "__main__":
    main()
