"""dlt: a resource whose client bears a guarded token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dlt
from dlt.sources.helpers.rest_client import RESTClient

from airflow_oauth_guard.hooks.session import GuardedAuth


@dlt.resource(name="contacts", write_disposition="append")
def contacts(conn_id: str, base_url: str) -> Iterator[list[Any]]:
    client = RESTClient(base_url, auth=GuardedAuth(conn_id))
    yield from client.paginate("/contacts", data_selector="rows")


def load(pipeline: dlt.Pipeline, conn_id: str, base_url: str) -> int | None:
    """How many rows were loaded, for the heartbeat."""
    pipeline.run(contacts(conn_id, base_url)).raise_on_failed_jobs()
    trace = pipeline.last_trace
    normalized = trace.last_normalize_info if trace else None
    return normalized.row_counts.get("contacts", 0) if normalized else None
