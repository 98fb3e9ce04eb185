"""The assets that a task updates, and the rows that each update carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.definitions.asset import AssetNameRef

from airflow_oauth_guard.domain.sources import speaks_for

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store

ROWS = "rows"
"""The key in an update's ``extra``."""


def assets_of(task: Any) -> dict[str, Asset | AssetNameRef]:
    """By name, the assets that are outlets of a task."""
    outlets = getattr(task, "outlets", None) or ()
    return {outlet.name: outlet for outlet in outlets if isinstance(outlet, (Asset, AssetNameRef))}


def carry_rows(store: Store, source: str, rows: int | None, context: Any) -> None:
    """Have the updates of the source's assets say how many rows came, unless the DAG's author has said it."""
    assets = assets_of(context.get("task"))
    if rows is None or not assets or (watched := store.sources.find(source)) is None:
        return
    for name, asset in assets.items():
        if speaks_for(watched.source, name):
            context["outlet_events"][asset].extra.setdefault(ROWS, rows)
