"""Whom a credential or a client feeds, as the page and its JSON say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from airflow_oauth_guard.domain.reach import Reach


class ReachView(BaseModel):
    """Whom a credential feeds, or all credentials of a client."""

    dags: list[str]
    """DAGs whose tasks used it in the last 30 days, or that speak for its sources; a few, where there are many."""
    dag_count: int
    sources: list[str]
    """Names of sources it feeds; a few, where there are many."""
    source_count: int
    short: str
    """In numbers; empty where nobody is known."""
    sentence: str
    """As alerts say it."""


def reach_view(reach: Reach) -> ReachView:
    return ReachView(
        dags=list(reach.dags.first),
        dag_count=reach.dags.count,
        sources=list(reach.sources.first),
        source_count=reach.sources.count,
        short=reach.short(),
        sentence=reach.sentence(),
    )
