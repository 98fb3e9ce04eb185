"""Metrics, sent the way Airflow sends its own: to StatsD, Datadog or OpenTelemetry, whichever ``[metrics]`` names.

A metric never breaks the work and never holds it up: what cannot be sent is said once in the log and dropped. Where
``[metrics]`` names nothing, nothing is counted either.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from airflow.configuration import conf

from airflow_oauth_guard.domain.flat_line import Standing
from airflow_oauth_guard.domain.metrics import (
    CREDENTIAL_TIME_TO_LAPSE,
    CREDENTIALS,
    IN_TROUBLE_AT_MOST,
    REFRESH,
    REFRESH_DURATION,
    SOURCES,
    TIME_TO_LAPSE,
    Metric,
)
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.store.records import Credential

log = logging.getLogger(__name__)

LONGEST_WORD = 200
"""StatsD refuses a name of more than 250 characters; the longest name before such a word has 37."""

UNKNOWN = "unknown"
"""A tag is always there, so that one metric has one set of tags."""


# -- what happened ----------------------------------------------------------------------------------------------------


def count(metric: Metric, **tags: str) -> None:
    """Count one of these."""
    _send(metric, tags, lambda stats, name, tags: stats.incr(name, tags=tags))


def refreshed(outcome: Refreshed, took: timedelta, **tags: str) -> None:
    count(REFRESH, outcome=outcome.value, **tags)
    if outcome in (Refreshed.RENEWED, Refreshed.FAILED):
        timing(REFRESH_DURATION, took, outcome=outcome.value, **tags)


def timing(metric: Metric, took: timedelta, **tags: str) -> None:
    _send(metric, tags, lambda stats, name, tags: stats.timing(name, took, tags=tags))


def gauge(metric: Metric, value: float, **tags: str) -> None:
    _send(metric, tags, lambda stats, name, tags: stats.gauge(name, round(value), tags=tags))


# -- how things are ---------------------------------------------------------------------------------------------------


def credentials(roster: Sequence[Credential], now: datetime) -> None:
    """How all guarded credentials are. However many there are, this sends about a hundred metrics at most."""
    with _harmless():
        if not _are_on():
            return
        for status in Status:
            gauge(CREDENTIALS, sum(one.status is status for one in roster), status=status.value)
        for connection_class, left in _least_left(roster, now).items():
            gauge(TIME_TO_LAPSE, left.total_seconds(), connection_class=connection_class)
        for credential in _in_trouble(roster, now)[:IN_TROUBLE_AT_MOST]:
            left = credential.life.remaining(now)
            gauge(CREDENTIAL_TIME_TO_LAPSE, left.total_seconds(), credential=credential.conn_id)


def sources(counts: Callable[[], Mapping[Standing, int]]) -> None:
    """How all watched sources are.

    Args:
        counts: Counts them by standing; it is not called where nothing is sent.
    """
    with _harmless():
        if not _are_on():
            return
        for standing, number in counts().items():
            gauge(SOURCES, number, standing=standing.value)


def _least_left(roster: Sequence[Credential], now: datetime) -> dict[str, timedelta]:
    least: dict[str, timedelta] = {}
    for one in roster:
        if one.status is Status.ACTIVE and one.life.lapses_at is not None:
            left = one.life.remaining(now)
            least[one.connection_class] = min(left, least.get(one.connection_class, left))
    return least


def _in_trouble(roster: Sequence[Credential], now: datetime) -> list[Credential]:
    troubled = [one for one in roster if one.failures or one.status is not Status.ACTIVE]
    known = [one for one in troubled if one.life.lapses_at is not None]
    # Those that nobody has reconnected for months must not crowd out the one that lapses in an hour.
    return sorted(known, key=lambda one: (one.status is not Status.ACTIVE, one.life.remaining(now)))


# -- sending ----------------------------------------------------------------------------------------------------------


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception:  # noqa: BLE001 - any backend, any client class, any setting: a number must not cost a refresh
        _say_once()


def _send(metric: Metric, tags: Mapping[str, str], send: Callable[[Any, str, dict[str, str]], None]) -> None:
    with _harmless():
        if not _are_on():
            return
        known = {tag: _word(tags[tag]) for tag in metric.tags}
        name = metric.name if _takes_tags() else f"{metric.name}.{known[metric.tags[0]].replace('.', '_')}"
        send(_stats(), name, known)


def _are_on() -> bool:
    """Whether ``[metrics]`` names somebody to send them to."""
    return any(_is_set(option) for option in ("statsd_datadog_enabled", "statsd_on", "otel_on"))


def _takes_tags() -> bool:
    """Whether tags arrive where metrics go; plain StatsD knows none, and Airflow drops them there."""
    if _is_set("statsd_datadog_enabled"):
        return _is_set("statsd_datadog_metrics_tags", default=True)
    return _is_set("statsd_influxdb_enabled") if _is_set("statsd_on") else True


def _is_set(option: str, *, default: bool = False) -> bool:
    return bool(conf.getboolean("metrics", option, fallback=default))


def _word(value: str) -> str:
    """A value that every backend takes: Airflow refuses a whole metric for one character in its tags."""
    return re.sub(r"[^\w.-]", "_", value, flags=re.ASCII)[:LONGEST_WORD] or UNKNOWN


def _stats() -> Any:
    # Not sooner: what Airflow 3.1 imports here reads `[metrics]`, and a DAG file that is parsed needs none of it.
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:  # Airflow 3.1
        from airflow.stats import Stats
    return Stats


@cache
def _say_once() -> None:
    log.warning(
        "Metrics cannot be sent, and the work goes on without them; look at `[metrics]` in Airflow's configuration.",
        exc_info=True,  # noqa: LOG014 - only called where it is handled
    )
