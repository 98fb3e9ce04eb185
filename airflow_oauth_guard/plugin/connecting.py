"""Connect a credential from the page: by a redirect to its provider and back, or by a code entered on another device."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Annotated

from airflow.configuration import conf
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from itsdangerous import BadSignature
from pydantic import BaseModel, ConfigDict, Field

from airflow_oauth_guard.domain.redaction import redact_text
from airflow_oauth_guard.errors import AuthorizationRefusedError, ConfigurationError, NeedsAPersonError
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.connecting import (
    Connected,
    Pending,
    begin_code,
    begin_device,
    finish_code,
    poll_device,
    ways_to_connect,
)
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.plugin.access import CHANGES, MAY_READ, Person, PersonDep, require
from airflow_oauth_guard.plugin.actions import hook_of, logged, place_of, told
from airflow_oauth_guard.plugin.flash import back_to
from airflow_oauth_guard.plugin.oauth_guard import PREFIX
from airflow_oauth_guard.plugin.rendering import page, root
from airflow_oauth_guard.plugin.signing import signer

router = APIRouter(dependencies=[MAY_READ])

LASTS_SECONDS = 600
"""How long a person has at the provider."""


class Ways(BaseModel):
    """How a credential may be connected from the page."""

    code: bool = False
    device: bool = False
    address_missing: bool = False
    """True where a person could approve it, if only somebody said where."""
    problem: str = ""
    """Why its connection cannot be used as it is."""


def ways_of(conn_id: str) -> Ways:
    try:
        hook = hook_of(conn_id)
        ways = ways_to_connect(hook)
    except (ConfigurationError, AirflowNotFoundException) as error:
        # Shown beside the buttons that are not there.
        return Ways(problem=str(error))
    return Ways(code="code" in ways, device="device" in ways, address_missing=hook.grant_class.connects and not ways)


def redirect_uri(request: Request) -> str:
    """Where providers send people back to; has to be registered there, letter by letter."""
    base = str(conf.get("api", "base_url", fallback="")).rstrip("/")
    if base:
        return f"{base}{PREFIX}/callback"
    return f"{request.url.scheme}://{request.url.netloc}{root(request)}/callback"


# -- by redirect ------------------------------------------------------------------------------------------------------


@router.post("/credentials/{connection_id:path}/connect", dependencies=[CHANGES, logged("connect")])
def connect(request: Request, person: PersonDep, connection_id: str) -> HTMLResponse:
    """Send the person to the provider, by a page that says where they are going."""
    require(person.may_use(connection_id))
    address = begin_code(
        hook_of(connection_id), get_store(), redirect_uri(request), _new_state(person), person.observer, utcnow()
    )
    return page(request, "leaving.html", person, conn_id=connection_id, address=address)


def brought_back(request: Request) -> dict[str, str]:
    """What the provider added to our address. It is taken out there, so that no log of requests has the code."""
    brought = dict(request.query_params)
    request.scope["query_string"] = b""
    return brought


BroughtBack = Annotated[dict[str, str], Depends(brought_back)]

returning = APIRouter(dependencies=[Depends(brought_back), MAY_READ])
"""Whatever becomes of who comes back, what they bring is taken out of the address first."""


@returning.get("/callback")
def callback(request: Request, person: PersonDep, brought: BroughtBack) -> Response:
    """The provider sends the person back. Nothing is stored unless it answers what this very person began."""
    store = get_store()
    authorization = store.authorizations.take(_own_state(brought.get("state", ""), person), person.name, utcnow())
    conn_id = authorization.credential.conn_id
    require(person.may_use(conn_id))
    if not brought.get("code"):
        raise NeedsAPersonError(f"`{conn_id}` is not connected: {_why_not(brought)}. Nothing was changed.")
    hook = hook_of(conn_id)
    issuer = brought.get("iss", "")
    connected = hook.run(finish_code(hook, store, authorization, brought["code"], person.observer, issuer=issuer))
    return back_to(f"{root(request)}{place_of('credentials', conn_id)}", _said(connected))


def _why_not(brought: dict[str, str]) -> str:
    error, description = brought.get("error", ""), brought.get("error_description", "")
    if not error:
        return "its provider sent back neither a code nor an error"
    return f"its provider says {redact_text(f'{error} {description}'.strip(), ())[:300]!r}"


def _said(connected: Connected) -> str:
    credential = connected.credential
    notes = "".join(f" {note}." for note in connected.notes)
    return f"Connected: generation {credential.generation}, {credential.status.value}.{notes}"


def _new_state(person: Person) -> str:
    return signer("state").dumps([person.id, secrets.token_urlsafe(32)])


def _own_state(state: str, person: Person) -> str:
    """The state, if we made it for this person.

    Raises:
        AuthorizationRefusedError: If not; the store knows whether it was used.
    """
    try:
        person_id, _ = signer("state").loads(state, max_age=LASTS_SECONDS)
    except BadSignature as error:
        raise AuthorizationRefusedError(
            "What came back was not begun here, or too long ago; nothing was stored. Begin again from the credential's page."
        ) from error
    if person_id != person.id:
        raise AuthorizationRefusedError(
            "What came back was begun by somebody else; nothing was stored. Begin again from the credential's page."
        )
    return state


# -- by another device ------------------------------------------------------------------------------------------------


@router.post("/credentials/{connection_id:path}/device", dependencies=[CHANGES, logged("device")])
def device(request: Request, person: PersonDep, connection_id: str) -> HTMLResponse:
    """Show the code to enter at the provider (RFC 8628), and wait there."""
    require(person.may_use(connection_id))
    hook, state = hook_of(connection_id), _new_state(person)
    invitation = hook.run(begin_device(hook, get_store(), state, person.observer))
    return page(request, "device.html", person, conn_id=connection_id, invitation=invitation, state=state)


class Poll(BaseModel):
    """Which approval is waited for."""

    model_config = ConfigDict(extra="forbid")

    state: str
    waited: Annotated[float, Field(ge=0, le=3600)] = 0
    """Seconds since it was asked last."""


class Polled(BaseModel):
    """Whether somebody has approved; if not, when to ask again."""

    done: bool
    said: str
    place: str
    after_seconds: float = 0


@router.post("/device", dependencies=[CHANGES])
def device_approved(request: Request, person: PersonDep, poll: Annotated[Poll, Depends(told(Poll))]) -> Response:
    """Ask the provider once whether somebody has approved."""
    store, state = get_store(), _own_state(poll.state, person)
    authorization = store.authorizations.find(state, person.name, utcnow())
    conn_id = authorization.credential.conn_id
    require(person.may_use(conn_id))
    hook, place = hook_of(conn_id), f"{root(request)}{place_of('credentials', conn_id)}"
    asked = poll_device(hook, store, authorization, person.observer, waited=timedelta(seconds=poll.waited))
    try:
        polled = hook.run(asked)
    except NeedsAPersonError:
        # The provider has decided, so nobody asks again.
        store.authorizations.take(state, person.name, utcnow())
        raise
    if isinstance(polled, Pending):
        after = polled.after.total_seconds()
        return JSONResponse(
            Polled(done=False, said="Nobody has approved yet.", place=place, after_seconds=after).model_dump()
        )
    store.authorizations.take(state, person.name, utcnow())
    return JSONResponse(Polled(done=True, said=_said(polled), place=place).model_dump())
