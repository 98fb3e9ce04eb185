"""Heartbeats over HTTP: a job outside Airflow says that it ran."""

from __future__ import annotations

from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import requires_access_asset
from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import HTTPException
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.speaking import beat_at, instant, run_name
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.plugin.access import PersonDep, is_json

LARGEST_BODY = 16 * 1024
"""Bytes; a heartbeat takes a few hundred."""

router = APIRouter()


class Spoken(BaseModel):
    """What a job says of a run; all of it may be left out."""

    model_config = ConfigDict(extra="forbid")

    rows: Annotated[StrictInt, Field(ge=0, lt=2**63)] | None = None
    at: StrictStr | None = None
    watermark: StrictStr | None = None
    run: StrictStr | None = None
    note: StrictStr | None = None
    """One that begins with ``skipped:`` is of a run that did nothing, and is no delivery."""


async def spoken(request: Request) -> Spoken:
    """The body, read here and not by FastAPI: after access is granted, and never more of it than is allowed."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"A heartbeat has {LARGEST_BODY} bytes at most.")
    return read_spoken(body)


def read_spoken(body: bytes) -> Spoken:
    """Raises:
    ConfigurationError: Naming what is wrong, in one sentence.
    """
    if not body.strip():
        return Spoken()
    try:
        return Spoken.model_validate_json(body)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = f"`{'.'.join(map(str, wrong['loc'][:1]))}`" if wrong["loc"] else "The body"
        raise ConfigurationError(
            f"{where}: {wrong['msg']}. Send a JSON object with any of `rows` (a whole number, 0 or more), `at`, `watermark` "
            "(ISO 8601 with a time zone), `run` and `note` (text)."
        ) from None


def of_no_page(request: Request) -> None:
    """Refuse what a page of any site can make a browser send without asking: only browsers name an origin, jobs do not."""
    if "origin" in request.headers and not is_json(request):
        raise HTTPException(403, "A browser sends heartbeats as JSON only: `Content-Type: application/json`.")


@router.post(
    "/heartbeats/{source:path}",
    status_code=201,
    dependencies=[Depends(requires_access_asset(method="POST")), Depends(of_no_page)],
)
def heartbeat(source: str, said: Annotated[Spoken, Depends(spoken)], person: PersonDep) -> dict[str, Any]:
    """A job outside Airflow ran. Whoever may say that an asset was updated may say that."""
    at, watermark = beat_at(said.at, utcnow()), instant(said.watermark, "watermark")
    who = Observer(run_id=run_name(said.run), task_id="POST /oauth-guard/heartbeats", person=person.name)
    heard = get_store().sources.beat(source, said.rows, at, who, watermark, said.note or "")
    return {"source": source, "adopted": heard.adopted, "new": heard.new}
