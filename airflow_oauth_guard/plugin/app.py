"""The web application under ``/oauth-guard``: pages, their JSON, what people do there, and heartbeats.

Each route names the access it needs; Airflow's auth manager decides.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from airflow_oauth_guard.errors import (
    AuthorizationRefusedError,
    ConfigurationError,
    NeedsAPersonError,
    NotRegisteredError,
    OAuthGuardError,
    StoreConfigurationError,
)
from airflow_oauth_guard.plugin import actions, api, connecting, heartbeats, pages
from airflow_oauth_guard.plugin.access import MAY_READ, not_to_be_kept, of_our_own_site, of_text
from airflow_oauth_guard.plugin.rendering import PLUGIN_PATH, page, root

app = FastAPI(
    title="OAuth Guard",
    openapi_url=None,
    docs_url=None,
    redoc_url=None,
    dependencies=[Depends(of_our_own_site), Depends(of_text), Depends(not_to_be_kept)],
)
"""FastAPI's own pages are off, since nobody would have to log in for them; ``/openapi.json`` below is like any other."""

app.include_router(heartbeats.router)
app.include_router(api.router, prefix="/api")
app.include_router(actions.router, prefix="/api")
app.include_router(actions.router, include_in_schema=False)
app.include_router(connecting.router, include_in_schema=False)
app.include_router(connecting.returning, include_in_schema=False)
app.include_router(pages.router, include_in_schema=False)
app.mount("/static", StaticFiles(packages=[("airflow_oauth_guard.plugin", "static")]))


@app.get("/openapi.json", dependencies=[MAY_READ], include_in_schema=False)
def openapi() -> dict[str, Any]:
    return app.openapi()


STATUS_OF: dict[type[OAuthGuardError], int] = {
    NotRegisteredError: 404,
    AuthorizationRefusedError: 403,
    NeedsAPersonError: 409,
    StoreConfigurationError: 503,
    ConfigurationError: 422,
}
"""By the first class that fits; whatever else we can name is the store's or Airflow's."""


@app.exception_handler(OAuthGuardError)
def refused(request: Request, error: OAuthGuardError) -> Response:
    """What we can name is said in a sentence: where the request is to blame, and where the store is."""
    status_code = next((code for kind, code in STATUS_OF.items() if isinstance(error, kind)), 503)
    return _said(request, str(error), status_code)


@app.exception_handler(HTTPException)
async def not_so(request: Request, error: HTTPException) -> Response:
    """Whoever is not logged in is sent to do that; everybody else is told why not."""
    if _wants_json(request):
        return await http_exception_handler(request, error)
    if error.status_code == 401 and request.method == "GET" and not request.url.path.endswith("/callback"):
        return RedirectResponse(f"{_airflow(request)}/api/v2/auth/login?next={quote(_here(request), safe='')}", 303)
    return _said(request, str(error.detail), error.status_code)


@app.exception_handler(RequestValidationError)
def not_understood(request: Request, error: RequestValidationError) -> Response:
    """The first thing in an address that means nothing."""
    wrong = error.errors()[0]
    return _said(request, f"`{wrong['loc'][-1]}`: {wrong['msg']}.", 422)


def _said(request: Request, sentence: str, status_code: int) -> Response:
    if _wants_json(request):
        return JSONResponse({"detail": sentence}, status_code=status_code)
    return page(request, "refused.html", None, status_code, sentence=sentence)


def _wants_json(request: Request) -> bool:
    path = request.url.path.removeprefix(root(request))
    is_data = path.startswith(("/api/", "/heartbeats/", "/openapi.json"))
    headers = request.headers.get("content-type", ""), request.headers.get("accept", "")
    return is_data or any(header.startswith("application/json") for header in headers)


def _here(request: Request) -> str:
    """The address as the browser has it, without the host: a proxy may have come to us by another, or without TLS."""
    query = request.url.query
    return quote(request.scope["path"]) + (f"?{query}" if query else "")


def _airflow(request: Request) -> str:
    return root(request).removesuffix(PLUGIN_PATH)
