"""The pages. Each shows the view that the JSON API hands out at the same address under ``/api``."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from airflow_oauth_guard.domain.flat_line import Standing
from airflow_oauth_guard.domain.incidents import About, Phase
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.plugin.access import MAY_READ, PersonDep
from airflow_oauth_guard.plugin.api import (
    AboutAsked,
    Before,
    Number,
    Offset,
    PhaseAsked,
    RosterQueryDep,
    StandingAsked,
)
from airflow_oauth_guard.plugin.charts import rows_chart
from airflow_oauth_guard.plugin.connecting import redirect_uri, ways_of
from airflow_oauth_guard.plugin.rendering import page
from airflow_oauth_guard.plugin.views.credentials import PER_PAGE, credential_page, evidence_page, roster_view
from airflow_oauth_guard.plugin.views.incidents import incident_page, incidents_view
from airflow_oauth_guard.plugin.views.sources import source_page, sources_view
from airflow_oauth_guard.store.roster import SORTS

router = APIRouter(dependencies=[MAY_READ], default_response_class=HTMLResponse)


@router.get("/")
def roster(request: Request, person: PersonDep, query: RosterQueryDep) -> HTMLResponse:
    view = roster_view(get_store(), query, utcnow())
    return page(request, "roster.html", person, view=view, asked=query, sorts=SORTS, statuses=list(Status))


@router.get("/credentials/{connection_id:path}/evidence/{evidence_id:int}")
def evidence(request: Request, person: PersonDep, connection_id: str, evidence_id: Number) -> HTMLResponse:
    return page(request, "evidence.html", person, view=evidence_page(get_store(), connection_id, evidence_id))


@router.get("/credentials/{connection_id:path}")
def credential(request: Request, person: PersonDep, connection_id: str, before: Before = None) -> HTMLResponse:
    view = credential_page(get_store(), connection_id, utcnow(), before)
    may_use = person.may_use(connection_id)
    question = view.question
    waits = question is not None and question.waits_for_an_answer
    may_answer = waits and question is not None and person.may_answer(question.asked_in.dag_id or "")
    # Who may not use the connection is told nothing of how it is connected.
    ways = ways_of(connection_id) if may_use else None
    return page(
        request,
        "credential.html",
        person,
        view=view,
        may_use=may_use,
        may_answer=may_answer,
        ways=ways,
        redirect_uri=redirect_uri(request),
    )


@router.get("/sources")
def sources(
    request: Request,
    person: PersonDep,
    search: str = "",
    standing: StandingAsked = None,
    offset: Offset = 0,
) -> HTMLResponse:
    view = sources_view(get_store(), utcnow(), search=search, standing=standing, limit=PER_PAGE, offset=offset)
    return page(request, "sources.html", person, view=view, search=search, standing=standing, standings=list(Standing))


@router.get("/sources/{name:path}")
def source(request: Request, person: PersonDep, name: str) -> HTMLResponse:
    now = utcnow()
    view = source_page(get_store(), name, now)
    chart = rows_chart(view.beats, now, view.source.alarm_at)
    return page(request, "source.html", person, view=view, chart=chart, may_speak=person.may_speak_for_sources)


@router.get("/incidents")
def incidents(
    request: Request,
    person: PersonDep,
    phase: PhaseAsked = None,
    about: AboutAsked = None,
    offset: Offset = 0,
) -> HTMLResponse:
    view = incidents_view(get_store(), utcnow(), phase=phase, about=about, limit=PER_PAGE, offset=offset)
    return page(
        request, "incidents.html", person, view=view, phase=phase, about=about, phases=list(Phase), abouts=list(About)
    )


@router.get("/incidents/{incident_id:int}")
def incident(request: Request, person: PersonDep, incident_id: Number) -> HTMLResponse:
    store = get_store()
    view, found = incident_page(store, incident_id, utcnow()), store.incidents.get(incident_id)
    if view is None or found is None:
        raise HTTPException(404, f"There is no incident {incident_id}.")
    may_acknowledge = found.phase is Phase.OPEN and person.may_acknowledge(found)
    return page(request, "incident.html", person, view=view, may_acknowledge=may_acknowledge)
