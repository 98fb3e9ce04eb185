"""A client that takes a ``requests.Session``, or is one: page after page, each with a token that is fresh then."""

from __future__ import annotations

from typing import Any

from airflow_oauth_guard.hooks.session import GuardedSession


def pages(conn_id: str, url: str) -> list[Any]:
    rows: list[Any] = []
    with GuardedSession(conn_id) as session:
        following: str | None = url
        while following:
            answer = session.get(following, timeout=60)
            answer.raise_for_status()
            page = answer.json()
            rows += page["rows"]
            following = page.get("next")
    return rows
