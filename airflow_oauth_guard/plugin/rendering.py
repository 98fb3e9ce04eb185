"""From a view to HTML. Everything is escaped: what a provider sends is text, whatever it looks like."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.datastructures import QueryParams

from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.plugin.access import Person
from airflow_oauth_guard.plugin.flash import said

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'self'; base-uri 'none'"
)
"""No script but our own file, so markup that slips through somewhere does nothing."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

PLUGIN_PATH = "/oauth-guard"


def page(request: Request, template: str, person: Person | None, status_code: int = 200, **shown: Any) -> HTMLResponse:
    """One of ``templates/`` with what it shows."""
    now = utcnow()
    html = (
        _templates()
        .get_template(template)
        .render(
            root=root(request),
            airflow=root(request).removesuffix(PLUGIN_PATH),
            here=request.url.path.removeprefix(root(request)) or "/",
            query=request.query_params,
            person=person,
            now=now,
            message=said(request),
            **shown,
        )
    )
    return HTMLResponse(html, status_code=status_code, headers=HEADERS)


def root(request: Request) -> str:
    """The path under which we are reached, with that of Airflow in front of it."""
    return str(request.scope.get("root_path", "")).rstrip("/")


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("airflow_oauth_guard.plugin"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": _ago,
        "until": _until,
        "when": _when,
        "lasting": _lasting,
        "part": _part,
        "with": _with,
        "host": _host,
        "pretty": _pretty,
        "plain": _plain,
    }
    return environment


def _part(name: object) -> str:
    """A name as one part of an address, slashes and all."""
    return quote(str(name), safe="")


def _with(query: QueryParams, **changed: object) -> str:
    """The same query with these changed, without the sentence that was said once."""
    kept = {name: value for name, value in query.items() if name != "said"}
    return urlencode({**kept, **changed})


def _host(address: str) -> str:
    return urlsplit(address).netloc


def _when(at: datetime | None) -> Markup:
    """An instant, which the page's script writes in the reader's own time zone."""
    if at is None:
        return Markup("–")
    return Markup('<time datetime="{0}">{1}</time>').format(at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S} UTC")


def _ago(at: datetime | None, now: datetime) -> Markup:
    """How long ago, with the instant behind it."""
    if at is None:
        return Markup("never")
    text = f"{words(now - at)} ago" if at <= now else f"in {words(at - now)}"
    return Markup('<time datetime="{0}" title="{1}" class="short">{2}</time>').format(
        at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S} UTC", text
    )


def _until(at: datetime | None, now: datetime) -> Markup:
    """A countdown, which the page's script keeps running."""
    if at is None:
        return Markup("unknown")
    text = f"in {words(at - now)}" if at > now else f"{words(now - at)} ago"
    return Markup('<time datetime="{0}" title="{1}" data-countdown>{2}</time>').format(
        at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S} UTC", text
    )


def _lasting(seconds: float | None) -> str:
    return "–" if seconds is None else words(timedelta(seconds=seconds))


def _pretty(body: str) -> str:
    """JSON with line breaks; anything else as it is."""
    try:
        written = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
        # An escape may stand for half of a character, which no page can hold.
        return written.encode(errors="replace").decode()
    except ValueError:
        # No JSON: shown as the text it is.
        return body


def _plain(text: object) -> Markup:
    """Text with its `code` set apart."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(str(text))
    return Markup("").join(
        Markup("<code>{0}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )
