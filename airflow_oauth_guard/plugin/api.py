"""The JSON behind the page; ``/oauth-guard/openapi.json`` describes it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query
from pydantic import BeforeValidator

from airflow_oauth_guard.domain.flat_line import Standing
from airflow_oauth_guard.domain.incidents import About, Phase
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.plugin.access import MAY_READ
from airflow_oauth_guard.plugin.views.credentials import (
    PER_PAGE,
    CredentialPageView,
    EvidencePageView,
    RosterView,
    credential_page,
    evidence_page,
    roster_view,
)
from airflow_oauth_guard.plugin.views.incidents import (
    IncidentPageView,
    IncidentsView,
    incident_page,
    incidents_view,
)
from airflow_oauth_guard.plugin.views.sources import SourcePageView, SourcesView, source_page, sources_view
from airflow_oauth_guard.store.roster import SORTS, RosterQuery

router = APIRouter(tags=["OAuth Guard"], dependencies=[MAY_READ])

OR_NONE = BeforeValidator(lambda given: given or None)
"""A form sends a filter that is not set as an empty one."""

StatusAsked = Annotated[Status | None, OR_NONE]
StandingAsked = Annotated[Standing | None, OR_NONE]
PhaseAsked = Annotated[Phase | None, OR_NONE]
AboutAsked = Annotated[About | None, OR_NONE]
LARGEST = 2**63 - 1
"""That a database counts to."""
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=LARGEST)]
Before = Annotated[int | None, Query(ge=0, le=LARGEST)]
Number = Annotated[int, Path(le=LARGEST)]
"""Of an incident or a piece of evidence."""


def asked_of_roster(
    search: str = "",
    status: StatusAsked = None,
    connection_class: str = "",
    provider: str = "",
    trouble: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    sort: Annotated[str, Query(pattern=f"^({'|'.join(SORTS)})$")] = SORTS[0],
    descending: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    limit: Limit = PER_PAGE,
    offset: Offset = 0,
) -> RosterQuery:
    """What the roster may be asked, on the page and in JSON."""
    return RosterQuery(
        search=search,
        status=status,
        connection_class=connection_class,
        provider=provider,
        trouble=trouble,
        sort=sort,
        descending=descending,
        limit=limit,
        offset=offset,
    )


RosterQueryDep = Annotated[RosterQuery, Depends(asked_of_roster)]


@router.get("/credentials")
def credentials(query: RosterQueryDep) -> RosterView:
    """A page of the roster."""
    return roster_view(get_store(), query, utcnow())


@router.get("/credentials/{connection_id:path}/evidence/{evidence_id:int}")
def evidence(connection_id: str, evidence_id: Number) -> EvidencePageView:
    """One piece of evidence, with what it rests on."""
    return evidence_page(get_store(), connection_id, evidence_id)


@router.get("/credentials/{connection_id:path}")
def credential(connection_id: str, before: Before = None) -> CredentialPageView:
    """One credential; ``before`` pages its evidence."""
    return credential_page(get_store(), connection_id, utcnow(), before)


@router.get("/sources")
def sources(
    search: str = "", standing: StandingAsked = None, limit: Limit = PER_PAGE, offset: Offset = 0
) -> SourcesView:
    """A page of the sources, the quiet ones first."""
    return sources_view(get_store(), utcnow(), search=search, standing=standing, limit=limit, offset=offset)


@router.get("/sources/{name:path}")
def source(name: str) -> SourcePageView:
    """One source with its latest heartbeats."""
    return source_page(get_store(), name, utcnow())


@router.get("/incidents")
def incidents(
    phase: PhaseAsked = None, about: AboutAsked = None, limit: Limit = PER_PAGE, offset: Offset = 0
) -> IncidentsView:
    """A page of incidents, the newest first."""
    return incidents_view(get_store(), utcnow(), phase=phase, about=about, limit=limit, offset=offset)


@router.get("/incidents/{incident_id:int}")
def incident(incident_id: Number) -> IncidentPageView:
    """One incident, and those it speaks for."""
    found = incident_page(get_store(), incident_id, utcnow())
    if found is None:
        raise HTTPException(404, f"There is no incident {incident_id}.")
    return found
