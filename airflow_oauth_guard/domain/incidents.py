"""An incident opens once, is told to people until somebody helped, and ends only on positive evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

RENOTIFY_AFTER = timedelta(hours=24)
"""An open incident that needs a person is told again once a day; more often teaches people to look away."""


class About(str, Enum):
    CREDENTIAL = "credential"
    CLIENT = "client"
    SOURCE = "source"


class IncidentKind(str, Enum):
    """What is wrong, in the words of the alert."""

    REQUEST_MALFORMED = "request_malformed"
    CLIENT_MISCONFIGURED = "client_misconfigured"
    SCOPE_INSUFFICIENT = "scope_insufficient"
    ACCOUNT_ACTION = "account_action"
    GRANT_DEAD = "grant_dead"
    AMBIGUOUS = "ambiguous"
    RATE_LIMITED = "rate_limited"
    PROVIDER_OUTAGE = "provider_outage"
    UNKNOWN = "unknown"
    MISCONFIGURED = "misconfigured"
    CLIENT_FAILING = "client_failing"
    FALSE_EXPIRY = "false_expiry"
    LATE = "late"
    FLAT = "flat"
    UNMEASURED = "unmeasured"

    @property
    def headline(self) -> str:
        return _HEADLINES[self]


_HEADLINES: Mapping[IncidentKind, str] = {
    IncidentKind.REQUEST_MALFORMED: "our refresh request is wrong",
    IncidentKind.CLIENT_MISCONFIGURED: "the provider refuses our app",
    IncidentKind.SCOPE_INSUFFICIENT: "the provider refuses the scope we ask for",
    IncidentKind.ACCOUNT_ACTION: "the provider wants something done in the account",
    IncidentKind.GRANT_DEAD: "the grant is proven dead; reconnect it",
    IncidentKind.AMBIGUOUS: "a refresh may have spent its refresh token without our getting the next",
    IncidentKind.RATE_LIMITED: "the provider limits our rate",
    IncidentKind.PROVIDER_OUTAGE: "the provider is failing",
    IncidentKind.UNKNOWN: "refreshing fails and the evidence does not say why",
    IncidentKind.MISCONFIGURED: "its connection cannot be used as it is",
    IncidentKind.CLIENT_FAILING: "most credentials of one client fail together",
    IncidentKind.FALSE_EXPIRY: "it was set expired and turned out alive",
    IncidentKind.LATE: "no run within its window",
    IncidentKind.FLAT: "runs, but no rows within its window",
    IncidentKind.UNMEASURED: "nobody can say whether rows arrived",
}

TIME_MAY_CURE = frozenset({IncidentKind.RATE_LIMITED, IncidentKind.PROVIDER_OUTAGE})


@dataclass(frozen=True)
class Incident:
    """One thing that is wrong with one credential or source."""

    id: int
    about: About
    name: str
    """The connection id or the name of the source."""
    kind: IncidentKind
    summary: str
    opened_at: datetime
    """When it became true, not when it was noticed."""
    noticed_at: datetime
    owner: str = ""
    alert_route: str = ""
    signature: str = ""
    first_notified_at: datetime | None = None
    last_notified_at: datetime | None = None
    resolved_at: datetime | None = None
    escalates_at: datetime | None = None
    """For incidents that time may cure: from when on a person is needed all the same."""

    def needs_a_person(self, now: datetime) -> bool:
        if self.kind in TIME_MAY_CURE and self.escalates_at is not None:
            return now >= self.escalates_at
        return True

    @property
    def speaks_for_itself(self) -> bool:
        """False for one credential of a client that fails as a whole: the client's own incident, while it is open, speaks for
        all of them.
        """
        return not (self.kind is IncidentKind.CLIENT_FAILING and self.about is About.CREDENTIAL)

    def is_to_be_told(self, now: datetime) -> bool:
        """Whether an alert goes out now: somebody is needed and was not told lately."""
        told_lately = self.last_notified_at is not None and now - self.last_notified_at < RENOTIFY_AFTER
        return self.needs_a_person(now) and not told_lately

    def sentence(self) -> str:
        return f"{self.about.value} `{self.name}`: {self.kind.headline}. {self.summary}"
