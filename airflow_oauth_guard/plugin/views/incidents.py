"""What is wrong, since when, how long it took to tell somebody, and who is on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel

from airflow_oauth_guard.domain.incidents import About, Incident, Phase
from airflow_oauth_guard.plugin.views.reach import ReachView, reach_view

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store


class IncidentView(BaseModel):
    """One incident, open or over."""

    id: int
    about: str
    name: str
    kind: str
    headline: str
    summary: str
    owner: str
    phase: str
    opened_at: datetime
    """When it became true, which may be before anybody noticed."""
    noticed_at: datetime
    told_at: datetime | None
    """When people were told first; null: nobody was yet."""
    seconds_to_alarm: float | None
    """From when it became true to when people were told."""
    times_told: int
    acknowledged_at: datetime | None
    acknowledged_by: str
    escalated_at: datetime | None
    resolved_at: datetime | None
    resolution: str
    """How it ended, and what was missed meanwhile."""
    expected_by: str
    part_of: int | None
    """The incident that speaks for this one."""


def incident_view(incident: Incident) -> IncidentView:
    told_at = incident.first_notified_at
    return IncidentView(
        id=incident.id,
        about=incident.about.value,
        name=incident.name,
        kind=incident.kind.value,
        headline=incident.kind.headline,
        summary=incident.summary,
        owner=incident.owner,
        phase=incident.phase.value,
        opened_at=incident.opened_at,
        noticed_at=incident.noticed_at,
        told_at=told_at,
        seconds_to_alarm=(told_at - incident.opened_at).total_seconds() if told_at else None,
        times_told=incident.times_told,
        acknowledged_at=incident.acknowledged_at,
        acknowledged_by=incident.acknowledged_by,
        escalated_at=incident.escalated_at,
        resolved_at=incident.resolved_at,
        resolution=incident.resolution,
        expected_by=incident.expected_by,
        part_of=incident.part_of,
    )


class IncidentsView(BaseModel):
    """One page of incidents, the newest first."""

    total: int
    offset: int
    limit: int
    counts: dict[str, int]
    """Of all incidents, by phase."""
    incidents: list[IncidentView]
    reaches: dict[int, ReachView]
    """By number of the incident, for those that are open about a credential or a client: whom that feeds."""


def incidents_view(
    store: Store, now: datetime, *, phase: Phase | None, about: About | None, limit: int, offset: int
) -> IncidentsView:
    found, total = store.incidents.page(phase, about, limit, offset)
    return IncidentsView(
        total=total,
        offset=offset,
        limit=limit,
        counts={one.value: number for one, number in store.incidents.counts().items()},
        incidents=[incident_view(one) for one in found],
        reaches=_reaches(store, found, now),
    )


def _reaches(store: Store, incidents: Sequence[Incident], now: datetime) -> dict[int, ReachView]:
    """Not of those that are over: whom it feeds today is not whom it stopped then."""
    told = store.reaches.told([one for one in incidents if one.phase is not Phase.RESOLVED], now)
    return {one.id: reach_view(one.reach) for one in told if one.reach is not None}


class IncidentPageView(BaseModel):
    """One incident, and those it speaks for."""

    incident: IncidentView
    reach: ReachView | None
    """Whom its credential or client feeds; null for any other, and where it is over."""
    members: list[IncidentView]


def incident_page(store: Store, incident_id: int, now: datetime) -> IncidentPageView | None:
    incident = store.incidents.get(incident_id)
    if incident is None:
        return None
    return IncidentPageView(
        incident=incident_view(incident),
        reach=_reaches(store, [incident], now).get(incident_id),
        members=[incident_view(one) for one in store.incidents.members(incident)],
    )
