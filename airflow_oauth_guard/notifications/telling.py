"""Tell people about open incidents: once, again a day later, and never while time may cure it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_oauth_guard.domain.incidents import Incident
from airflow_oauth_guard.notifications.log import LogNotifier

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier

    from airflow_oauth_guard.store.store import Store

log = logging.getLogger(__name__)

Notifiers = Mapping[str, Sequence["BaseNotifier"]]
"""Notifiers by alert route; ``""`` holds the default ones."""


def tell(store: Store, incidents: Iterable[Incident], notifiers: Notifiers, context: Any, now: datetime) -> None:
    """Send the alerts that are due. One checker sends each, however many look.

    Raises:
        Exception: What a notifier raised, after the others were tried. An alert that none could send is still to be
            told; one that some sent is not sent again through all of them.
    """
    failed: list[Exception] = []
    for incident in incidents:
        if incident.is_to_be_told(now) and store.incidents.claim_telling(incident, now):
            told, errors = _send(incident, notifiers, context)
            if not told:
                store.incidents.give_telling_back(incident)
            failed += errors
    if failed:
        raise failed[0]


def _send(incident: Incident, notifiers: Notifiers, context: Any) -> tuple[bool, list[Exception]]:
    """Send through each notifier; returns whether any did, and what went wrong with the others."""
    chosen = notifiers.get(incident.alert_route)
    if not chosen:
        if incident.alert_route:
            log.warning("No notifier for the alert route `%s`; the default ones are used.", incident.alert_route)
        chosen = notifiers.get("") or [LogNotifier()]
    errors: list[Exception] = []
    for notifier in chosen:
        try:
            # A notifier renders its templates in place, so each alert gets a copy.
            copy(notifier)({**context, "oauth_guard": incident})
        except Exception as error:
            log.exception("The alert about %s `%s` could not be sent", incident.about.value, incident.name)
            errors.append(error)
    return len(errors) < len(chosen), errors
