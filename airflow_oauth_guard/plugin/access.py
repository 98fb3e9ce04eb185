"""Who may do what: Airflow's auth manager decides. And nothing is done because a page of somebody else's asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import (
    AccessView,
    AssetDetails,
    ConnectionDetails,
    DagAccessEntity,
    DagDetails,
)
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Request, Response
from itsdangerous import BadSignature

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.incidents import About, Incident
from airflow_oauth_guard.plugin.signing import signer

PAGE = "OAuth Guard page"
"""How evidence names the page, beside the person who used it."""

FORM_LASTS_SECONDS = 12 * 3600
"""A page may lie open over a working day; then its buttons want it to be loaded again."""

LONGEST_NAME = 250
"""Characters that the store keeps of a name."""

MAY_READ = Depends(requires_access_view(AccessView.PLUGINS))
"""Whoever may see plugins may see ours; there are no secrets in it."""


@dataclass(frozen=True)
class Person:
    """Who asks, and what Airflow's auth manager lets them do."""

    user: BaseUser

    @property
    def id(self) -> str:
        return str(self.user.get_id())

    @property
    def name(self) -> str:
        return str(self.user.get_name() or self.id)[:LONGEST_NAME]

    @property
    def observer(self) -> Observer:
        """Them, as evidence names them."""
        return Observer(task_id=PAGE, person=self.name)

    def may_use(self, conn_id: str) -> bool:
        """Whoever may edit a connection may act on its credential."""
        details = ConnectionDetails(conn_id=conn_id, team_name=Connection.get_team_name(conn_id))
        return bool(get_auth_manager().is_authorized_connection(method="PUT", details=details, user=self.user))

    @property
    def may_speak_for_sources(self) -> bool:
        """Whoever may say that an asset was updated may pause a source."""
        return bool(get_auth_manager().is_authorized_asset(method="POST", details=AssetDetails(), user=self.user))

    def may_answer(self, dag_id: str) -> bool:
        """Whoever may answer a question of this DAG in the graph may answer it here."""
        details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
        return bool(
            get_auth_manager().is_authorized_dag(
                method="PUT", access_entity=DagAccessEntity.HITL_DETAIL, details=details, user=self.user
            )
        )

    def may_acknowledge(self, incident: Incident) -> bool:
        if incident.about is About.CREDENTIAL:
            return self.may_use(incident.name)
        return self.may_speak_for_sources

    @property
    def form_token(self) -> str:
        """Proves that a form came from a page which was made for this person."""
        return signer("form").dumps(self.id)


def _person(user: GetUserDep) -> Person:
    return Person(user)


PersonDep = Annotated[Person, Depends(_person)]


def require(allowed: bool) -> None:  # noqa: FBT001 - reads as a sentence
    """Raises:
    HTTPException: 403 if not.
    """
    if not allowed:
        raise HTTPException(403, "Forbidden")


def of_our_own_site(request: Request) -> None:
    """Refuse to change anything for a page of another site, as far as the browser says where a request comes from.

    It is a second lock: browsers keep Airflow's cookie from other sites, but under all-admins there is none to keep.
    """
    if request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise HTTPException(403, "This was asked for by a page of another site.")


def of_text(request: Request) -> None:
    """Nothing is called by a NUL: no database keeps one, and some drivers break at it."""
    if "\0" in request.url.path or b"%00" in request.scope["query_string"]:
        raise HTTPException(404, "There is nothing whose name has a NUL in it.")


def not_to_be_kept(response: Response) -> None:
    """What is true of a credential now is not to come from a cache a minute later. Pages say it themselves."""
    response.headers["Cache-Control"] = "no-store"


def is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def body_of(request: Request) -> dict[str, Any]:
    """What a form or a script says.

    Raises:
        HTTPException: If it is no form, and no JSON object either.
    """
    if not is_json(request):
        # No form of ours has a file, and whoever takes one has to close it.
        return dict(await request.form(max_files=0))
    try:
        said = await request.json() if await request.body() else {}
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, "The body is not JSON.") from error
    if not isinstance(said, dict):
        raise HTTPException(422, f"The body is a JSON {type(said).__name__}; send an object.")
    return said


async def of_our_own_page(request: Request, person: PersonDep) -> None:
    """Refuse what no page of ours, made for this person, has sent.

    A browser sends JSON to another site only after asking it, which Airflow refuses; so JSON needs no token.
    """
    # Looked at before anybody else reads it: Airflow's audit log takes every body for a JSON object.
    given = await body_of(request)
    if is_json(request):
        return
    try:
        sent_by = signer("form").loads(str(given.get("form_token")), max_age=FORM_LASTS_SECONDS)
    except BadSignature as error:
        raise HTTPException(
            403, "The page was open for too long, or this came from elsewhere; load it again."
        ) from error
    if sent_by != person.id:
        raise HTTPException(403, "The page was made for somebody else; load it again.")


CHANGES = Depends(of_our_own_page)
"""For every route that changes something and that a form may call."""
