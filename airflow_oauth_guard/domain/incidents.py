"""An incident opens once, is told to people until somebody helped, and ends only on positive evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from airflow_oauth_guard.domain.reach import Reach

RENOTIFY_AFTER = timedelta(hours=24)
"""An open incident that needs a person is told again once a day; more often teaches people to look away."""

RENOTIFY_SOON_AFTER = timedelta(hours=4)
"""The second telling of what loses data by the hour: half a working day, so that whoever missed the first still sees it."""

ESCALATE_AFTER = timedelta(hours=24)
"""What nobody has acknowledged a day after it was told reached nobody who could help."""


class About(str, Enum):
    CREDENTIAL = "credential"
    CLIENT = "client"
    SOURCE = "source"
    GROUP = "group"
    """Sources that are quiet together."""
    ROUTE = "route"
    """A way to tell people."""
    MONITOR = "monitor"
    """What watches a source, where the watching itself is in question."""


class Phase(str, Enum):
    """How far people have come with an incident."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    """Somebody is on it, so nobody is told again."""
    RESOLVED = "resolved"


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
    STUCK = "stuck"
    UNMEASURED = "unmeasured"
    QUIET_TOGETHER = "quiet_together"
    EVERYTHING_QUIET = "everything_quiet"
    ALERTS_FAILING = "alerts_failing"
    MUTED_FOR_LONG = "muted_for_long"
    CANARY_UNHEARD = "canary_unheard"

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
    IncidentKind.STUCK: "runs, and moves the same again and again",
    IncidentKind.UNMEASURED: "nobody can say whether rows arrived",
    IncidentKind.QUIET_TOGETHER: "many sources of one cause are quiet together",
    IncidentKind.EVERYTHING_QUIET: "most of what was expected is missing at once",
    IncidentKind.ALERTS_FAILING: "alerts cannot be sent",
    IncidentKind.MUTED_FOR_LONG: "it has been muted for long",
    IncidentKind.CANARY_UNHEARD: "the test alarm did not get through",
}

TIME_MAY_CURE = frozenset({IncidentKind.RATE_LIMITED, IncidentKind.PROVIDER_OUTAGE})


QUIET = frozenset({IncidentKind.LATE, IncidentKind.FLAT, IncidentKind.STUCK})
"""A source that does not send what it should."""

SPEAK_FOR_OTHERS = frozenset({About.GROUP, About.MONITOR})
"""What can have members."""


def next_telling_after(about: About, times_told: int) -> timedelta:
    """How long an alert is left to work before the next about the same incident.

    Credentials and clients have margins of days, and are told daily. A source loses data meanwhile: 4 hours, then daily.
    """
    daily = about in {About.CREDENTIAL, About.CLIENT} or times_told > 1
    return RENOTIFY_AFTER if daily else RENOTIFY_SOON_AFTER


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
    turned_at: datetime | None = None
    """When it became what it is now; None where it is what it was opened as."""
    owner: str = ""
    alert_route: str = ""
    signature: str = ""
    first_notified_at: datetime | None = None
    last_notified_at: datetime | None = None
    times_told: int = 0
    """Of what it is now: another kind of wrong is told from the beginning."""
    resolved_at: datetime | None = None
    resolution: str = ""
    escalates_at: datetime | None = None
    """For incidents that time may cure: from when on a person is needed all the same."""
    escalated_at: datetime | None = None
    """When those were told who are called where nobody reacts."""
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    expected_by: str = ""
    """Who said that this had to be expected."""
    part_of: int | None = None
    """The open incident that speaks for this one."""
    reach: Reach | None = None
    """Whom a credential or client feeds, when somebody is told; no part of what is kept."""

    @property
    def open_for(self) -> str:
        """What it is about, as one word: ``source/crm_contacts``."""
        return f"{self.about.value}/{self.name}"

    @property
    def phase(self) -> Phase:
        if self.resolved_at is not None:
            return Phase.RESOLVED
        return Phase.OPEN if self.acknowledged_at is None else Phase.ACKNOWLEDGED

    def needs_a_person(self, now: datetime) -> bool:
        if self.kind in TIME_MAY_CURE and self.escalates_at is not None:
            return now >= self.escalates_at
        return True

    @property
    def speaks_for_itself(self) -> bool:
        """False for a member of a group, and for one credential of a client that fails as a whole: their incident, while it
        is open, speaks for all of them.
        """
        return self.part_of is None and not (
            self.kind is IncidentKind.CLIENT_FAILING and self.about is About.CREDENTIAL
        )

    def is_to_be_told(self, now: datetime) -> bool:
        """Whether an alert goes out now: somebody is needed, nobody is on it, and nobody was told lately."""
        again_after = next_telling_after(self.about, self.times_told)
        told_lately = self.last_notified_at is not None and now - self.last_notified_at < again_after
        return self._waits_for_a_person(now) and not told_lately

    def is_to_be_escalated(self, now: datetime, after: timedelta = ESCALATE_AFTER) -> bool:
        """Whether people were told so long ago that others are told now, once."""
        told_long_ago = self.first_notified_at is not None and now - self.first_notified_at >= after
        return self._waits_for_a_person(now) and self.escalated_at is None and told_long_ago

    def _waits_for_a_person(self, now: datetime) -> bool:
        return self.phase is Phase.OPEN and self.part_of is None and self.needs_a_person(now)

    def sentence(self) -> str:
        feeds = f" {self.reach.sentence()}" if self.reach else ""
        return f"{self.about.value} `{self.name}`: {self.kind.headline}. {self.summary}{feeds}"
