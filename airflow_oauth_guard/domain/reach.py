"""Reach: whom a credential feeds, and so whom it stops when it fails."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

NAMED = 5
"""So many are named in a sentence; the rest are counted."""

COUNTED_FOR = timedelta(days=30)
"""Who has not used a credential for so long is no consumer of it any more; a monthly job is."""

OWN_DAGS = frozenset({"oauth_guard_refresh", "oauth_guard_investigate", "oauth_guard_flat_line", "oauth_guard_purge"})
"""The guard's own: they look after credentials, and nobody waits for what they load."""

NOBODY = f"Nobody is known to have used it in the last {COUNTED_FOR.days} days."


@dataclass(frozen=True)
class Names:
    """Things of one kind, by name."""

    first: tuple[str, ...] = ()
    """In order; all of them, where there are few."""
    count: int = 0
    """How many there are altogether."""

    def listed(self) -> str:
        named = [f"`{name}`" for name in self.first[:NAMED]]
        rest = self.count - len(named)
        return f"{', '.join(named)} and {rest} more" if rest else ", ".join(named)


@dataclass(frozen=True)
class Reach:
    """Whom a credential feeds, or all credentials of one client."""

    dags: Names = Names()
    """Whose tasks use it, or speak for a source that it feeds; without :data:`OWN_DAGS`."""
    sources: Names = Names()

    def sentence(self) -> str:
        fed = [f"{_number(names, kind)} ({names.listed()})" for names, kind in self._kinds()]
        return f"Feeds {' and '.join(fed)}." if fed else NOBODY

    def short(self) -> str:
        """In numbers; empty where it feeds nobody."""
        return ", ".join(_number(names, kind) for names, kind in self._kinds())

    def _kinds(self) -> list[tuple[Names, str]]:
        return [(names, kind) for names, kind in ((self.dags, "DAG"), (self.sources, "source")) if names.count]


def _number(names: Names, kind: str) -> str:
    return f"{names.count} {kind}{'s' if names.count > 1 else ''}"
