"""What people do here. Each leaves its trace: evidence with their name, an incident's acknowledgement, a source's pause.

A form comes back to the page with a sentence; a JSON request is answered in JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from airflow.api_fastapi.logging.decorators import action_logging
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from airflow_oauth_guard.domain.evidence import Evidence
from airflow_oauth_guard.errors import ConfigurationError, ConnectionFieldError, NotRegisteredError
from airflow_oauth_guard.hooks.base import OAuthGuardHook
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.hooks.registry import get_hook
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.plugin.access import CHANGES, MAY_READ, PersonDep, body_of, is_json, require
from airflow_oauth_guard.plugin.api import Number
from airflow_oauth_guard.plugin.approvals import answer_in_the_graph
from airflow_oauth_guard.plugin.flash import back_to
from airflow_oauth_guard.plugin.rendering import root

router = APIRouter(tags=["Actions"], dependencies=[MAY_READ, CHANGES])

Told = TypeVar("Told", bound=BaseModel)


class Done(BaseModel):
    """What was done, in a sentence."""

    said: str
    evidence_id: int | None = None


def logged(event: str) -> Any:
    """Airflow's audit log has it as well, before it is done."""
    return Depends(action_logging(event=f"oauth_guard.{event}"))


def told(model: type[Told]) -> Callable[[Request], Awaitable[Told]]:
    """What the form or the JSON says, checked."""

    async def read(request: Request) -> Told:
        given = await body_of(request)
        given.pop("form_token", None)
        try:
            return model.model_validate(given)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, wrong["loc"])) or "The body"
            raise ConfigurationError(f"`{where}`: {wrong['msg']}.") from None

    return read


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """For OpenAPI: the body that :func:`told` reads."""
    return {"requestBody": {"content": {"application/json": {"schema": model.model_json_schema()}}}}


def respond(request: Request, place: str, done: Done) -> Response:
    if is_json(request):
        return JSONResponse(done.model_dump())
    return back_to(f"{root(request)}{place}", done.said)


def place_of(kind: str, name: object) -> str:
    return f"/{kind}/{quote(str(name), safe='')}"


def hook_of(conn_id: str) -> OAuthGuardHook:
    """Raises:
    ConfigurationError: If Airflow does not give us the connection, or it is not one of ours.
    """
    try:
        return get_hook(conn_id)
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"Connection `{conn_id}` is not to be found by Airflow's API server. If only workers can see it (`[workers] "
            "secrets_backend`), use the DAG `oauth_guard_refresh`."
        ) from error


# -- credentials ------------------------------------------------------------------------------------------------------


@router.post("/credentials/{connection_id:path}/probe", dependencies=[logged("probe")], response_model=Done)
def probe(request: Request, person: PersonDep, connection_id: str) -> Response:
    """Ask the provider now whether the access token is alive. The answer is kept as evidence."""
    require(person.may_use(connection_id))
    store, hook = get_store(), hook_of(connection_id)
    if not hook.settings.probe_url:
        raise ConnectionFieldError(connection_id, "probe_url", "is empty, so there is nothing to ask about its token.")
    if not store.credentials.tokens(store.credentials.get(connection_id)).access_token:
        raise ConfigurationError(f"Credential `{connection_id}` has no access token to probe with; refresh it first.")
    seen = hook.run(hook.probe(store, person.observer))
    return respond(request, place_of("credentials", connection_id), _probed(seen))


def _probed(seen: Evidence) -> Done:
    return Done(said=f"Probe: {seen.sentence()} (evidence {seen.id}).", evidence_id=seen.id)


@router.post("/credentials/{connection_id:path}/refresh", dependencies=[logged("refresh")], response_model=Done)
def refresh(request: Request, person: PersonDep, connection_id: str) -> Response:
    """Ask the provider now for a new access token, whenever it would have been due. A failure is a question, as always."""
    require(person.may_use(connection_id))
    store, hook = get_store(), hook_of(connection_id)
    store.credentials.enroll(hook.enrollment(), utcnow(), person.observer)
    store.credentials.ask_now(connection_id, utcnow())
    result = hook.run(hook.refresh(store, person.observer))
    then = " The next run of `oauth_guard_refresh` looks into it." if result.outcome is Refreshed.FAILED else ""
    said = f"Refresh: {result.outcome.value}; {result.explanation}.{then}"
    done = Done(said=said, evidence_id=result.evidence.id if result.evidence else None)
    return respond(request, place_of("credentials", connection_id), done)


Words = Annotated[str, AfterValidator(lambda text: text.replace("\0", "?"))]
"""What a person writes; no database keeps a NUL."""


class Reason(BaseModel):
    """Why, for whoever reads it later."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    why: Annotated[Words, Field(min_length=1, max_length=500)]


@router.post(
    "/credentials/{connection_id:path}/revive",
    dependencies=[logged("revive")],
    response_model=Done,
    openapi_extra=takes(Reason),
)
def revive(
    request: Request, person: PersonDep, connection_id: str, reason: Annotated[Reason, Depends(told(Reason))]
) -> Response:
    """Say that a credential works again although it is called dead. It is asked at the next cycle."""
    require(person.may_use(connection_id))
    revived = get_store().credentials.revive(connection_id, reason.why, person.observer, utcnow())
    done = Done(said=f"It is {revived.status.value} by your word, and is asked at the next cycle.")
    return respond(request, place_of("credentials", connection_id), done)


class Answer(BaseModel):
    """To the question whether a credential may be set expired."""

    model_config = ConfigDict(extra="forbid")

    expire: bool


@router.post(
    "/credentials/{connection_id:path}/answer",
    dependencies=[logged("answer")],
    response_model=Done,
    openapi_extra=takes(Answer),
)
async def answer(
    request: Request, person: PersonDep, connection_id: str, said: Annotated[Answer, Depends(told(Answer))]
) -> Response:
    """Answer the request that waits in the graph, whoever sees it first. Airflow decides whether this person may."""
    store = get_store()
    question = store.investigations.open_for(store.credentials.get(connection_id))
    if question is None or question.asked_at is None:
        raise NotRegisteredError(f"Nobody is being asked whether `{connection_id}` may be set expired.")
    require(person.may_answer(question.asked_in.dag_id or ""))
    await answer_in_the_graph(request, question.asked_in, expire=said.expire)
    what = "set expired" if said.expire else "kept"
    done = Done(said=f"You said that it is to be {what}; the graph carries that out now.")
    return respond(request, place_of("credentials", connection_id), done)


# -- incidents --------------------------------------------------------------------------------------------------------


@router.post("/incidents/{incident_id:int}/acknowledge", dependencies=[logged("acknowledge")], response_model=Done)
def acknowledge(request: Request, person: PersonDep, incident_id: Number) -> Response:
    """Say that somebody is on it: it is told no more while it stays the same. The first word counts."""
    store = get_store()
    incident = store.incidents.get(incident_id)
    if incident is None or incident.resolved_at is not None:
        raise NotRegisteredError(f"Incident {incident_id} is not open, so there is nothing to acknowledge.")
    require(person.may_acknowledge(incident))
    known = store.incidents.acknowledge(incident.about, incident.name, person.name, utcnow())
    by = known.acknowledged_by if known else person.name
    return respond(request, place_of("incidents", incident_id), Done(said=f"Acknowledged by {by}."))


# -- sources ----------------------------------------------------------------------------------------------------------


class Pause(BaseModel):
    """For how long no alarm is raised, and why."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    hours: Annotated[float, Field(gt=0, le=24 * 365)]
    reason: Annotated[Words, Field(max_length=500)] = ""


@router.post(
    "/sources/{name:path}/mute", dependencies=[logged("mute")], response_model=Done, openapi_extra=takes(Pause)
)
def mute(request: Request, person: PersonDep, name: str, pause: Annotated[Pause, Depends(told(Pause))]) -> Response:
    """Raise no alarm about a source for a while."""
    require(person.may_speak_for_sources)
    now = utcnow()
    until = now + timedelta(hours=pause.hours)
    get_store().sources.mute(name, until, now, person.name, pause.reason)
    return respond(request, place_of("sources", name), Done(said=f"No alarm until {until:%Y-%m-%d %H:%M} UTC."))


@router.post("/sources/{name:path}/unmute", dependencies=[logged("unmute")], response_model=Done)
def unmute(request: Request, person: PersonDep, name: str) -> Response:
    """End a pause now."""
    require(person.may_speak_for_sources)
    ended = get_store().sources.unmute(name, utcnow())
    return respond(request, place_of("sources", name), Done(said="Watched again." if ended else "It was not muted."))
