"""The brake: many downgrades at once are stopped, and a person is asked. Grants die one by one; mistakes happen to all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from airflow_oauth_guard.domain.clock import words


@dataclass(frozen=True)
class Downgrades:
    """What has happened to a group of credentials lately."""

    others: int
    """How many of them, beside the one in question, were downgraded or are about to be."""
    size: int
    """How many there are."""


@dataclass(frozen=True)
class Brake:
    """How many downgrades within a window may happen without a person."""

    count: int = 3
    percent: float = 10.0
    """Of the group; the larger of the two counts."""
    window: timedelta = timedelta(days=1)

    def stops(self, downgrades: Downgrades, whose: str) -> str:
        """Why one more is one too many; empty if it is not."""
        allowed = max(self.count, int(downgrades.size * self.percent / 100))
        if downgrades.others < allowed:
            return ""
        return (
            f"the brake holds: {downgrades.others} of the {downgrades.size} credentials {whose} were already downgraded "
            f"within {words(self.window)}, and {allowed} may be without a person"
        )
