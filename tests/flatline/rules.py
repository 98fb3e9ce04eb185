"""The ways of watching that are compared, ours among them. Each looks once an hour and knows only what came before.

Of the usual ones each gets the kindest reading: all of them look at rows and not at pings (a job that runs and moves
nothing would fool a ping), and the one figure that a person would set by hand is tuned on the tuning half.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache, partial
from itertools import pairwise

from tests.flatline.outages import Variant
from tests.flatline.series import Beat, Series

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

SET_UP_AFTER = timedelta(days=28)
"""Who sets a figure by hand for a source has seen it for four weeks."""

TRAILING = timedelta(days=28)
"""What a trailing figure is computed from."""


@dataclass(frozen=True)
class Alarm:
    """One alarm.

    Args:
        kind: `late`, `flat` or `stuck`; empty for a rule that does not say.
        resolved: None if it was still open at the end.
    """

    kind: str
    opened: datetime
    resolved: datetime | None


Replay = Callable[[Sequence[Beat], datetime, float], list[Alarm]]
"""A life of a source, when it ends, and the rule's one setting."""


@dataclass(frozen=True)
class Rule:
    """A way of watching.

    Args:
        about: What it does, for the table.
        settings: What the tuning may choose from; the first is how it comes. Ours is not tuned: its budget is a promise.
    """

    name: str
    about: str
    replay: Replay
    settings: tuple[float, ...]

    def detector(self, setting: float | None = None) -> Callable[[Variant], list[Alarm]]:
        """The rule with its setting made, to be tried on one life after another."""
        return partial(_try, self, self.settings[0] if setting is None else setting)


def _try(rule: Rule, setting: float, variant: Variant) -> list[Alarm]:
    if rule.replay is ours:
        return ours(variant.beats, variant.ends, setting, life=variant.series)
    return rule.replay(variant.beats, variant.ends, setting)


# ---- By the age of the newest rows -----------------------------------------------------------------------------------

Patience = Callable[[Sequence[datetime]], timedelta | None]
"""How old the newest rows may get, by the times at which rows came so far; None as long as nothing is watched."""


def fixed(beats: Sequence[Beat], until: datetime, hours: float) -> list[Alarm]:
    """Nothing for so many hours."""
    return list(_too_old(beats, until, lambda times: hours * HOUR))


def trailing_median(beats: Sequence[Beat], until: datetime, multiple: float) -> list[Alarm]:
    """Nothing for so many of the last weeks' median gaps."""

    def patience(times: Sequence[datetime]) -> timedelta | None:
        recent = _gaps(times[bisect_left(times, times[-1] - TRAILING) :])
        return multiple * _percentile(recent, 0.5) if len(recent) >= 3 else None

    return list(_too_old(beats, until, _once_a_day(patience)))


def freshness(beats: Sequence[Beat], until: datetime, multiple: float) -> list[Alarm]:
    """As in dbt: an error once the newest row is older than a threshold set by hand, from the longest usual gap.

    `warn_after` would be half of it; only errors wake anybody.
    """
    return list(_too_old(beats, until, _by_hand(lambda gaps: multiple * _percentile(gaps, 0.99))))


def period_and_grace(beats: Sequence[Beat], until: datetime, grace_hours: float) -> list[Alarm]:
    """As in healthchecks: the usual gap as period and a grace on top, both by hand, pinged when rows came."""
    return list(_too_old(beats, until, _by_hand(lambda gaps: _percentile(gaps, 0.5) + grace_hours * HOUR)))


def _too_old(beats: Sequence[Beat], until: datetime, patience: Patience) -> Iterator[Alarm]:
    """The hours at which the newest rows were too old, as alarms.

    Nothing changes between two productive heartbeats but their age, so one comparison stands for all hours in between.
    """
    times = [at for at, rows in beats if rows > 0]
    heard: list[datetime] = []
    for at, following in pairwise([*times, until]):
        heard.append(at)
        allowed = patience(heard)
        opened = _next_look(at + allowed) if allowed is not None else until
        if opened < following:
            yield Alarm("", opened, _next_look(following) if following < until else None)


def _by_hand(threshold: Callable[[Sequence[timedelta]], timedelta]) -> Patience:
    """A figure somebody chose after four weeks of looking and never touched again."""
    chosen: list[timedelta] = []

    def patience(times: Sequence[datetime]) -> timedelta | None:
        if not chosen and len(times) > 3 and times[-1] >= times[0] + SET_UP_AFTER:
            chosen.append(threshold(_gaps(times)))
        return chosen[0] if chosen else None

    return patience


def _once_a_day(patience: Patience) -> Patience:
    """The same, computed again only every day, as a nightly job would."""
    latest: list[tuple[datetime, timedelta | None]] = []

    def daily(times: Sequence[datetime]) -> timedelta | None:
        if not latest or times[-1] >= latest[-1][0] + DAY:
            latest.append((times[-1], patience(times)))
        return latest[-1][1]

    return daily


def _gaps(times: Sequence[datetime]) -> list[timedelta]:
    return [later - earlier for earlier, later in pairwise(times)]


def _percentile(gaps: Sequence[timedelta], share: float) -> timedelta:
    return sorted(gaps)[math.ceil(share * len(gaps)) - 1]


def _next_look(at: datetime) -> datetime:
    """The first full hour after an instant."""
    return at + (HOUR - (at - EPOCH) % HOUR)


# ---- By the rows per bucket ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Buckets:
    """Time cut into equal pieces, each compared with those before it at the same place of the season."""

    length: timedelta
    season: int
    training: int


DAILY = Buckets(DAY, season=1, training=14)
DAY_OF_WEEK = Buckets(DAY, season=7, training=14)
HOUR_OF_DAY = Buckets(HOUR, season=24, training=14)


def volume(beats: Sequence[Beat], until: datetime, sigmas: float, *, buckets: Buckets = DAILY) -> list[Alarm]:
    """As Elementary's volume_anomalies: a completed bucket that lies so many standard deviations low.

    14 periods of training of which the judged bucket is one, as in its code. Only drops are alarms here, since its
    alarms about more rows than usual would be false ones about silence. With `day_of_week` it looks back 14 weeks.
    """
    alarms: list[Alarm] = []
    opened: datetime | None = None
    for judged_at, score in _scores(tuple(beats), until, buckets):
        low = score <= -sigmas
        if low and opened is None:
            opened = judged_at
        elif not low and opened is not None:
            alarms.append(Alarm("", opened, judged_at))
            opened = None
    return alarms if opened is None else [*alarms, Alarm("", opened, None)]


@lru_cache(maxsize=8)
def _scores(beats: tuple[Beat, ...], until: datetime, buckets: Buckets) -> list[tuple[datetime, float]]:
    """When each bucket was completed, and how many standard deviations from its like; kept while settings are tried."""
    first = beats[0][0] - (beats[0][0] - EPOCH) % buckets.length
    counts = [0] * ((until - first) // buckets.length)
    for at, rows in beats:
        number = (at - first) // buckets.length
        if number < len(counts):
            counts[number] += rows
    scores = []
    for number, count in enumerate(counts):
        like_it = counts[number % buckets.season : number + 1 : buckets.season][-buckets.training :]
        scores.append((first + buckets.length * (number + 1), _deviation(count, like_it)))
    return scores


def _deviation(count: int, like_it: Sequence[int]) -> float:
    if len(like_it) < 3 or len(set(like_it)) == 1:
        return 0.0
    mean = sum(like_it) / len(like_it)
    return (count - mean) / math.sqrt(sum((one - mean) ** 2 for one in like_it) / (len(like_it) - 1))


# ---- Ours ------------------------------------------------------------------------------------------------------------


def ours(beats: Sequence[Beat], until: datetime, budget: float, *, life: Series, closed: bool = False) -> list[Alarm]:
    """This package, as it is in service: a learned window with its budget of false alarms per month."""
    # The usual rules can be tried without the package.
    from airflow_oauth_guard.domain.beats import Beat as Heartbeat
    from airflow_oauth_guard.domain.calendar import ClosedDays, closed_days
    from airflow_oauth_guard.domain.replaying import replay
    from airflow_oauth_guard.domain.sources import Source
    from airflow_oauth_guard.domain.windows import Learned

    days = closed_days(closings(life), life.name) if closed and closings(life) else ClosedDays()
    source = Source(name="source", window=Learned(budget=budget), timezone=life.timezone, closed=days)
    episodes = replay(source, [Heartbeat(at, rows) for at, rows in beats], until=until, step=HOUR)
    return [Alarm(episode.kind.value, episode.opened, episode.resolved) for episode in episodes]


def with_closed_days(variant: Variant) -> list[Alarm]:
    """The same, where the owner has declared when the place is closed."""
    return ours(variant.beats, variant.ends, BUDGET, life=variant.series, closed=True)


BUDGET = 0.1

CLOSINGS: dict[str, dict[str, list[str]]] = {
    # The British shop: no Saturdays, the days between the years, Easter and bank holidays.
    "shop/": {
        "weekdays": ["sat"],
        "dates": [
            *("2009-12-24/2010-01-03", "2010-04-02/2010-04-05", "2010-05-03", "2010-05-31", "2010-08-30"),
            *("2010-12-23/2011-01-03", "2011-04-22/2011-04-25", "2011-04-29", "2011-05-02", "2011-05-30", "2011-08-29"),
        ],
    },
    # The American bank: no weekends, federal holidays.
    "bank-calls/": {"weekdays": ["sat", "sun"], "dates": ["2003-05-26", "2003-07-04", "2003-09-01", "2003-10-13"]},
    # The pizzeria: the days its year's book leaves out.
    "pizza/": {
        "weekdays": [],
        "dates": ["2015-09-24/2015-09-25", "2015-10-05", "2015-10-12", "2015-10-19", "2015-10-26", "2015-12-25"],
    },
}
"""What the owner of a source would declare, by the beginning of its name."""


def closings(series: Series) -> dict[str, list[str]] | None:
    """The closed days of a series, where somebody would have declared any."""
    return next((days for name, days in CLOSINGS.items() if series.name.startswith(name)), None)


# ---- All of them -----------------------------------------------------------------------------------------------------

_MULTIPLES = (1.0, 0.5, 0.75, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0)
_HOURS = (24.0, 1.0, 3.0, 6.0, 9.0, 12.0, 18.0, 30.0, 36.0, 48.0, 54.0, 60.0, 72.0, 96.0, 120.0, 168.0)
_SIGMAS = (3.0, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.25)

RULES = {
    rule.name: rule
    for rule in (
        Rule("fixed", "no rows for N hours", fixed, _HOURS),
        Rule("median", "no rows for N median gaps", trailing_median, (3.0, 6, 9, 12, 18, 24, 36, 42, 48, 72, 96, 144)),
        Rule("freshness", "newest row older than N x its p99 gap, set by hand (dbt)", freshness, _MULTIPLES),
        Rule("grace", "median gap + N hours, set by hand (healthchecks)", period_and_grace, _HOURS),
        Rule("volume", "rows per day N sigma low (Elementary)", volume, _SIGMAS),
        Rule(
            "volume-week",
            "rows per day N sigma low for the day of the week (Elementary)",
            partial(volume, buckets=DAY_OF_WEEK),
            _SIGMAS,
        ),
        Rule(
            "volume-hour",
            "rows per hour N sigma low for the hour of the day (Elementary)",
            partial(volume, buckets=HOUR_OF_DAY),
            _SIGMAS,
        ),
        Rule("ours", "a learned window with N false alarms a month", ours, (BUDGET,)),
    )
}
