"""When a credential is due. The clock predicts; it never proves anything about a token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

ASSUMED_LIFETIME = timedelta(hours=1)
"""Used where the provider sends no ``expires_in`` (only RECOMMENDED by RFC 6749 section 5.1)."""

FIRST_BACKOFF = timedelta(minutes=5)
LONGEST_BACKOFF = timedelta(hours=1)
EXPIRED_BACKOFF = timedelta(hours=24)
"""A failing credential is asked again after 5, 10, 20 ... minutes, at most every hour; an expired one at most every day."""

LONGEST_RETRY_AFTER = timedelta(days=1)
"""A provider that asks for more is asked again all the same, lest one odd header silence a credential for good."""


@dataclass(frozen=True)
class Life:
    """The life of one access token and the margin its owner wants kept."""

    issued_at: datetime | None
    """None for a token that somebody brought along: its age is unknown."""
    expires_at: datetime | None
    margin: timedelta
    at_half_life: bool = False
    """True where a refresh needs a live token, so that a late one comes too late for good."""

    @property
    def lapses_at(self) -> datetime | None:
        """When the token is predicted to stop working; None where nothing is known of it, or there is none."""
        if self.expires_at is None and self.issued_at is not None:
            return self.issued_at + ASSUMED_LIFETIME
        return self.expires_at

    @property
    def due_at(self) -> datetime | None:
        """When to refresh: two margins before the end, so that a whole margin is left for trying again.

        Never before half of the life, lest a short-lived token be refreshed without pause; at half of it
        where a refresh needs a live token. None means at once: nothing is known of the token, or there is none.
        """
        lapses_at = self.lapses_at
        if lapses_at is None:
            return None
        early = lapses_at - 2 * self.margin
        if self.issued_at is None:
            return early
        half: datetime = self.issued_at + (lapses_at - self.issued_at) / 2
        return min(half, early) if self.at_half_life else max(half, early)

    def is_due(self, now: datetime) -> bool:
        due_at = self.due_at
        return due_at is None or due_at <= now

    def remaining(self, now: datetime) -> timedelta:
        """Predicted life left; zero without a token."""
        lapses_at = self.lapses_at
        return max(lapses_at - now, timedelta()) if lapses_at else timedelta()

    @property
    def alarm_at(self) -> datetime | None:
        """From when on so little life is left that somebody has to look: a margin before the end.

        A quarter of the life before it where that is shorter; and where it is longer but a refresh needs a live token,
        since then the end is for good.
        """
        if self.lapses_at is None:
            return None
        if self.issued_at is None:
            return self.lapses_at - self.margin
        quarter = (self.lapses_at - self.issued_at) / 4
        return self.lapses_at - (max(self.margin, quarter) if self.at_half_life else min(self.margin, quarter))

    def inside_margin(self, now: datetime) -> bool:
        """Whether so little life is left that somebody has to look."""
        return self.alarm_at is None or now >= self.alarm_at


def next_attempt(
    now: datetime, failures: int, retry_after: timedelta | None, longest: timedelta = LONGEST_BACKOFF
) -> datetime:
    """When to ask again after ``failures`` failures in a row; a provider's ``Retry-After`` is a lower bound."""
    backoff = min(FIRST_BACKOFF * (1 << min(failures - 1, 10)), longest)
    return now + max(backoff, min(retry_after or timedelta(), LONGEST_RETRY_AFTER))
