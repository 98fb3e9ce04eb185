"""Many silences, one cause: 300 sources on one dead credential are one alert with a list, and when most of what was expected
is missing at once, it is not the sources that fell silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.sources import Source, SqlCount, SqlNewest

STORM = 5
"""From so many quiet sources of one cause on, they are told as one."""

SHARED_BY = 0.8
"""From this share of what is missing on, a cause explains it all, and nothing larger is looked for."""

NAMES_LISTED = 50

GUARDS_OWN = "oauth_guard_"
"""How the guard's own sources begin: what they say is about the guard."""


@dataclass(frozen=True)
class Quiet:
    """A source that is quiet, and what it has in common with others."""

    name: str
    kind: IncidentKind
    causes: tuple[str, ...]


def causes_of(source: Source, kind: IncidentKind, dag_id: str | None) -> tuple[str, ...]:
    """What a silence may come from, the most telling first."""
    if kind is IncidentKind.UNMEASURED:
        return (f"database {source.measure.conn_id}",) if isinstance(source.measure, (SqlCount, SqlNewest)) else ()
    credential = (f"credential {source.credential}",) if source.credential else ()
    return (*credential, *((f"DAG {dag_id}",) if dag_id else ()))


def storms(quiet: Sequence[Quiet], already: Sequence[str] = ()) -> dict[str, list[str]]:
    """Names of quiet sources by the cause they share.

    Args:
        quiet: Sources with an open incident that nobody else speaks for.
        already: Causes that an alert is open about: a further source joins it, however few there are.
    """
    groups: dict[str, list[str]] = {}
    left = list(quiet)
    while True:
        shared = Counter(cause for source in left for cause in source.causes)
        cause = max(shared, key=lambda cause: (cause in already, shared[cause]), default=None)
        if cause is None or (shared[cause] < STORM and cause not in already):
            return groups
        groups[cause] = [source.name for source in left if cause in source.causes]
        left = [source for source in left if cause not in source.causes]


def is_everything(missing: Sequence[Quiet], spoke: int) -> bool:
    """Whether so much is missing at once that it says nothing about any one source.

    Args:
        missing: Sources that have just become late.
        spoke: How many others spoke in the time in which these should have.
    """
    if len(missing) < STORM or len(missing) <= spoke:
        return False
    shared = Counter(cause for source in missing for cause in source.causes)
    return max(shared.values(), default=0) < SHARED_BY * len(missing)


def listed(names: Sequence[str]) -> str:
    """Names for a message, as many as one reads."""
    shown = ", ".join(f"`{name}`" for name in sorted(names)[:NAMES_LISTED])
    more = len(names) - NAMES_LISTED
    return f"{shown} and {more} more" if more > 0 else shown
