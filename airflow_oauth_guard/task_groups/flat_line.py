"""The graph that notices silence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from airflow.sdk import TaskGroup

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.hooks.context import MAP_INDEX_TEMPLATE
from airflow_oauth_guard.notifications.telling import Notifiers
from airflow_oauth_guard.operators.flat_line import AlertOperator, AnnouncePassOperator, FlatLineOperator
from airflow_oauth_guard.operators.learn import LearnOperator


def watch_sources(sources: Sequence[Source] | str = (), *, notifiers: Notifiers | None = None) -> TaskGroup:
    """Look at every source that is due, tell people about the quiet ones, and announce the pass.

    ``check -> alert (mapped over what is open)`` and ``check -> announce``; ``learn`` renews learned windows beside them.

    Args:
        sources: Sources to watch, as a list or its JSON (templated).
        notifiers: Notifiers by alert route; ``""`` holds the default ones, ``"escalation"`` those for what nobody has
            acknowledged within a day, ``"canary"`` those for the test alarm.
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
        ).expand(incidents=check.output)
        check >> AnnouncePassOperator(task_id="announce", check_task_id=check.task_id, retries=2)
        LearnOperator(task_id="learn", retries=0, execution_timeout=timedelta(minutes=10))
    return group
