"""Tell people about open incidents: once, again later, and never while time may cure it or somebody is on it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from airflow_oauth_guard.domain.incidents import ESCALATE_AFTER, About, Incident, IncidentKind
from airflow_oauth_guard.domain.redaction import redact_error
from airflow_oauth_guard.errors import AlertPartlySentError, ConfigurationError
from airflow_oauth_guard.hooks.config import escalate_after, quiet_hours
from airflow_oauth_guard.notifications.apprise import make_strict
from airflow_oauth_guard.notifications.log import LogNotifier
from airflow_oauth_guard.store.incidents import Symptom

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier

    from airflow_oauth_guard.store.store import Store

T = TypeVar("T")

log = logging.getLogger(__name__)

Notifiers = Mapping[str, Sequence["BaseNotifier"]]
"""Notifiers by alert route; ``""`` holds the default ones, :data:`ESCALATION` those for what nobody has acknowledged."""

ESCALATION = "escalation"

SENDING = Retrying(
    retry=retry_if_not_exception_type(AlertPartlySentError),
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=1, exp_base=4),
    reraise=True,
)
"""A second and four seconds between the tries: enough for a connection that broke, too little for a server that is down.
That is what the next pass is for.
"""

ONE_TRY = SENDING.copy(stop=stop_after_attempt(1))
"""For a notifier that has just used up its tries for another alert: with 50 alerts the waits would be many minutes."""


def tell(
    store: Store,
    incidents: Iterable[Incident],
    notifiers: Notifiers,
    context: Any,
    now: datetime,
    *,
    is_urgent: Callable[[Incident], bool] = lambda _: False,
) -> None:
    """Send the alerts that are due. One checker sends each, however many look.

    What no notifier of its route delivers is still to be told; a notifier that fails three times is an incident of its
    own (:attr:`About.ROUTE`), told through the others, until something gets through it again.

    Args:
        is_urgent: Which alerts go out during quiet hours; what else is due then goes out with the first call after them.

    Raises:
        Exception: What the first notifier that failed raised, after everything else was sent.
        ConfigurationError: If an option cannot be read, after everything was sent as if it were not set.
    """
    round_ = _Round(store, notifiers, context, now)
    quiet = _as_configured(quiet_hours, None, round_.errors)
    waits = quiet is not None and quiet.cover(now)
    for incident in incidents:
        if not waits or is_urgent(incident):
            round_.tell(incident)
    for incident in store.incidents.open_ones(About.ROUTE):
        # During quiet hours only urgent alerts are sent, so it is an urgent one that fails then.
        if not waits or incident.name in round_.failing:
            round_.tell(incident)
    if round_.errors:
        raise round_.errors[0]


class _Way(NamedTuple):
    """One notifier of one route."""

    name: str
    """What an incident about it is called."""
    route: str
    notifier: BaseNotifier


class _Round:
    """One round of alerts.

    Attributes:
        failing: Names of the ways that failed in this round.
        errors: What they raised, and what cannot be read of the options.
    """

    def __init__(self, store: Store, notifiers: Notifiers, context: Any, now: datetime) -> None:
        self._incidents = store.incidents
        self._reaches = store.reaches
        self._notifiers = notifiers
        self._context = context
        self._now = now
        self._known_failing = {incident.name for incident in self._incidents.open_ones(About.ROUTE)}
        self._tries: list[tuple[_Way, Exception | None]] = []
        self.failing: set[str] = set()
        self.errors: list[Exception] = []
        self._escalate_after = _as_configured(escalate_after, ESCALATE_AFTER, self.errors)

    def tell(self, incident: Incident) -> None:
        tells = incident.is_to_be_told(self._now)
        escalates = incident.is_to_be_escalated(self._now, self._escalate_after)
        if tells or escalates:
            # Looked up as late as this: most rounds tell nothing.
            [incident] = self._reaches.told([incident], self._now)
        if tells:
            self._tell(incident)
        if escalates:
            self._escalate(incident)
        # Last, so that a store that fails now leaves no alert that reached nobody as told.
        while self._tries:
            self._take_note(incident, *self._tries.pop(0))

    def _tell(self, incident: Incident) -> None:
        choices = self._choices(incident)
        if not choices or not self._incidents.claim_telling(incident, self._now):
            return
        if not any(self._send(incident, ways) for ways in choices):
            self._incidents.give_telling_back(incident)

    def _escalate(self, incident: Incident) -> None:
        ways = self._ways_of(ESCALATION)
        if ways and self._incidents.claim_escalation(incident, self._now) and not self._send(incident, ways):
            self._incidents.give_escalation_back(incident)

    def _choices(self, incident: Incident) -> list[list[_Way]]:
        """The ways to send it through; where there are several choices, the next is for when nothing gets through the first."""
        route = incident.alert_route
        if incident.about is About.ROUTE:
            return self._choices_around(incident)
        if route and not self._notifiers.get(route):
            log.warning("No notifier for the alert route `%s`; the default ones are used.", route)
        return [self._ways_of(route) or self._ways_of("") or [_Way("default/LogNotifier", "", LogNotifier())]]

    def _choices_around(self, failing: Incident) -> list[list[_Way]]:
        """The others of its route, then the default ones, then any; none if there is no other."""
        routes = [self._ways_of(route) for route in dict.fromkeys([failing.alert_route, "", *self._notifiers])]
        others = [[way for way in ways if way.name not in {failing.name, *self.failing}] for ways in routes]
        return [ways for ways in others if ways]

    def _ways_of(self, route: str) -> list[_Way]:
        seen = Counter[str]()
        ways = []
        for notifier in self._notifiers.get(route) or ():
            name = type(notifier).__name__
            seen[name] += 1
            number = f" {seen[name]}" if seen[name] > 1 else ""
            ways.append(_Way(f"{route or 'default'}/{name}{number}", route, notifier))
        return ways

    def _send(self, incident: Incident, ways: Sequence[_Way]) -> bool:
        """Send through each; returns whether any delivered it."""
        tries = [(way, self._try(incident, way)) for way in ways]
        self._tries += tries
        return any(error is None or isinstance(error, AlertPartlySentError) for _, error in tries)

    def _try(self, incident: Incident, way: _Way) -> Exception | None:
        sending = ONE_TRY if way.name in self.failing else SENDING
        try:
            sending(_notify, way.notifier, {**self._context, "oauth_guard": incident})
        except Exception as error:  # noqa: BLE001 - any notifier, any failure: the others have to be tried
            self.failing.add(way.name)
            return error
        self.failing.discard(way.name)
        return None

    def _take_note(self, incident: Incident, way: _Way, error: Exception | None) -> None:
        """A way that fails is an incident, until something gets through it."""
        if error is not None:
            self.errors.append(error)
            self._known_failing.add(way.name)
            self._incidents.open(self._symptom(incident, way, error), self._now)
        elif way.name in self._known_failing:
            self._known_failing.discard(way.name)
            self._incidents.resolve(About.ROUTE, way.name, "an alert got through it", self._now)

    def _symptom(self, incident: Incident, way: _Way, error: Exception) -> Symptom:
        why = redact_error(error)
        about = f"{incident.about.value} `{incident.name}`"
        log.error("The alert about %s could not be sent by %s: %s", about, way.name, why)
        return Symptom(
            about=About.ROUTE,
            name=way.name,
            kind=IncidentKind.ALERTS_FAILING,
            summary=f"The alert about {about} could not be sent through it: {why}",
            opened_at=self._now,
            owner="who set up the notifiers of the DAG",
            alert_route=way.route,
        )


def _as_configured(read: Callable[[], T], otherwise: T, errors: list[Exception]) -> T:
    try:
        return read()
    except ConfigurationError as error:
        # A slip in an option must not silence every alarm.
        errors.append(error)
        return otherwise


def _notify(notifier: BaseNotifier, context: Mapping[str, Any]) -> None:
    # A notifier renders its templates in place, so each try gets a copy.
    make_strict(copy(notifier))({**context})
