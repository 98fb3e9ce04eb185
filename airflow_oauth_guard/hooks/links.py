"""From a task in Airflow's grid to the page about what it worked on.

Airflow asks for a link in the worker when the task ends, however it ends, and when it is deferred; it keeps the answer as an
XCom. What is linked to is a path, so that it leads to the same server under whatever name somebody reached it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.hooks.config import get_store

log = logging.getLogger(__name__)

PAGE = "/oauth-guard"
ROSTER = "/"
SOURCES = "/sources"
INCIDENTS = "/incidents"


class CredentialLink(BaseOperatorLink):
    """To the credential that a task worked on; to all of them where it was none, or several."""

    name = "OAuth Guard"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return _address(_credential, operator, otherwise=ROSTER)


class SourceLink(BaseOperatorLink):
    """To the source that a task speaks for or alerts about; to all that is open where an alert is about several."""

    name = "OAuth Guard"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return _address(_source, operator, otherwise=SOURCES)


def _address(page: Callable[[Any], str | None], operator: Any, *, otherwise: str) -> str:
    try:
        path = page(operator) or otherwise
    except Exception:
        # The task has done its work, whatever it was: a link must not add a failure of its own, and a list is better than none.
        log.warning("No page was found for `%s`; its link leads to all of them", operator.task_id, exc_info=True)
        path = otherwise
    base = urlsplit(str(conf.get("api", "base_url", fallback=""))).path.rstrip("/")
    return f"{base}{PAGE}{path}"


def _credential(operator: Any) -> str | None:
    conn_id = _conn_id(operator)
    return f"/credentials/{quote(conn_id, safe='')}" if conn_id else None


def _conn_id(operator: Any) -> str:
    investigation = str(getattr(operator, "investigation", None) or "")
    if investigation.isdecimal():
        return get_store().investigation(int(investigation)).credential.conn_id
    conn_ids = getattr(operator, "conn_ids", None) or [getattr(operator, "conn_id", "")]
    return str(conn_ids[0]) if len(conn_ids) == 1 else ""


def _source(operator: Any) -> str | None:
    if source := getattr(operator, "source", None):
        return _about(About.SOURCE, source.name if isinstance(source, Source) else str(source))
    incidents = getattr(operator, "incidents", None)
    if incidents is None:
        return None
    if len(incidents) != 1:
        return INCIDENTS
    about, _, name = str(incidents[0]).partition("/")
    return _about(About(about), name)


def _about(about: About, name: str) -> str:
    """A source has a page of its own, with its incidents; anything else has those only."""
    if about is About.SOURCE:
        return f"{SOURCES}/{quote(name, safe='')}"
    known = get_store().incidents.history(about, name)
    return f"{INCIDENTS}/{known[-1].id}" if known else INCIDENTS
