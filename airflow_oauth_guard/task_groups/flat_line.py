"""The graph that notices silence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from airflow.sdk import TaskGroup

from airflow_oauth_guard.domain.flat_line import Source
from airflow_oauth_guard.hooks.context import MAP_INDEX_TEMPLATE
from airflow_oauth_guard.notifications.telling import Notifiers
from airflow_oauth_guard.operators.flat_line import AlertOperator, FlatLineOperator
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator

DETECTOR_SOURCE = Source("oauth_guard_flat_line", window=timedelta(hours=2))
"""The detector announces its own passes; rows are the sources it looked at."""


def watch_sources(sources: Sequence[Source] | str = (), *, notifiers: Notifiers | None = None) -> TaskGroup:
    """Check every source against its window, tell people about the quiet ones, and announce the pass.

    Args:
        sources: Sources to watch, as a list or its JSON (templated).
        notifiers: Notifiers by alert route; ``""`` holds the default ones.
    """
    with TaskGroup(group_id="flat_line") as group:
        check = FlatLineOperator(
            task_id="check",
            sources=sources,
            retries=2,
            retry_delay=timedelta(seconds=30),
            # A destination that never answers must not stop the watch over all the others for good.
            execution_timeout=timedelta(minutes=10),
        )
        AlertOperator.partial(
            task_id="alert", notifiers=notifiers, map_index_template=MAP_INDEX_TEMPLATE, retries=0
        ).expand(source=check.output)
        heartbeat = HeartbeatOperator(
            task_id="heartbeat",
            source=DETECTOR_SOURCE,
            rows=f"{{{{ ti.xcom_pull(task_ids='{check.task_id}', key='looked_at') }}}}",
            retries=2,
        )
        check >> heartbeat
    return group
