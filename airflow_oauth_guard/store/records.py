"""What the store hands out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.schedule import Life
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.store.journal import Intent


@dataclass(frozen=True)
class Enrollment:
    """What the store has to know about a connection; the connection itself stays Airflow's."""

    conn_id: str
    connection_class: str
    client_key: str
    margin: timedelta
    at_half_life: bool = False
    expire_policy: str = "ask"
    alert_route: str = ""
    probe_host: str = ""
    provider: str = ""
    """The name of its preset; empty where nobody says, which takes away none that is known."""
    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    expires_at: datetime | None = None


CLIENT_NAME_LENGTH = 12
"""Letters of a client's key that name it to people."""

RESEEDED = "reseeded"
"""The rule of the evidence that a person has put other tokens in: they are the next generation."""

LONGEST_LEASE = timedelta(hours=1)
"""A lease that would last longer was taken by a clock that was ahead; it must not block a credential for good."""


@dataclass(frozen=True)
class Credential:
    """A credential as consumers and people see it: no secrets."""

    id: int
    conn_id: str
    connection_class: str
    client_key: str
    status: Status
    status_since: datetime
    generation: int
    """Counts the tokens this credential has had; 0 before the first."""
    life: Life
    failures: int
    """Refreshes that failed in a row."""
    attempt_after: datetime | None
    """When to ask again, and not before: after a failure, or because a person changed something."""
    expire_policy: str
    alert_route: str
    leased_until: datetime | None = None
    """Until when some process has the sole right to refresh it."""
    provider: str = ""
    """The name of its preset; empty where none is known."""

    @property
    def is_active(self) -> bool:
        return self.status is Status.ACTIVE

    @property
    def client_name(self) -> str:
        """Names the client in incidents about all its credentials."""
        return self.client_key[:CLIENT_NAME_LENGTH]

    def is_leased(self, now: datetime) -> bool:
        return self.leased_until is not None and now <= self.leased_until <= now + LONGEST_LEASE

    def waits(self, now: datetime) -> bool:
        return self.attempt_after is not None and now < self.attempt_after

    def is_due(self, now: datetime) -> bool:
        if self.attempt_after is not None:
            return not self.waits(now)
        return self.status is not Status.ACTIVE or self.life.is_due(now)


@dataclass(frozen=True)
class Tokens:
    """One generation of tokens."""

    generation: int
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


@dataclass(frozen=True)
class Lease:
    """The sole right to refresh one credential, until it runs out; fenced by the token generation."""

    credential: Credential
    tokens: Tokens
    """Read inside the lease: the newest there are."""
    owner: str
    ttl: timedelta
    """How long it lasts, from when it is taken and again from each intent."""
    unsettled: tuple[Intent, ...] = ()
    """The intents of this generation that may have brought the next one without our having it; oldest first."""
    unanswered: tuple[Intent, ...] = ()
    """Those that sent no token and whose answer the store has not: nothing is lost with it, and it may be in the second place."""


@dataclass(frozen=True)
class Investigation:
    """One open question about one credential."""

    id: int
    credential: Credential
    generation: int
    opened_at: datetime
    opening_evidence_id: int
    conclusion_evidence_id: int | None = None
    finding: str | None = None
    explanation: str = ""
    owner: str = ""
    asked_at: datetime | None = None
    asked_in: Observer = Observer()
    """Where the request waits that a person was sent, once one was; before that, who took the question on."""
    answer: str | None = None
    answered_by: str | None = None
    closed_at: datetime | None = None
