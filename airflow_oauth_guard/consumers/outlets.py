"""What a task that knows nothing of us says of its sources, read off its outlets."""

from __future__ import annotations

import logging
from typing import Any

from airflow_oauth_guard.domain.beats import SKIPPED, Beat
from airflow_oauth_guard.domain.speaking import is_row_count
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.operators.heartbeat import keep, speaks_itself
from airflow_oauth_guard.operators.outlets import ROWS, assets_of

log = logging.getLogger(__name__)

SKIPPED_ITSELF = f"{SKIPPED} the task skipped itself; its log says why"
"""Airflow tells nobody the reason."""


def speak_for_outlets(ti: Any, *, skipped: bool) -> None:
    """Keep a heartbeat of each source that an outlet of this task speaks for.

    A source for which a task of its DAG speaks by itself is left to that task; a skip is said here all the same, since whatever
    comes behind the task is skipped with it.
    """
    assets = assets_of(ti.task)
    found = get_store().sources.of_assets(list(assets)) if assets else {}
    context = ti.get_template_context() if any(found.values()) else {}
    for name, sources in found.items():
        for source in (watched.source.name for watched in sources):
            if skipped:
                keep(source, Beat(utcnow(), 0, note=SKIPPED_ITSELF), context=context)
            elif not any(speaks_itself(task, source) for task in ti.task.dag.tasks):
                rows = _rows(ti, context["outlet_events"][assets[name]].extra, alone=len(assets) == 1)
                keep(source, Beat(utcnow(), rows), context=context)
                log.info("Heartbeat of `%s`, for asset `%s`: %s rows", source, name, "?" if rows is None else rows)


def _rows(ti: Any, extra: dict[str, Any], *, alone: bool) -> int | None:
    """What the update says, or the number that the task returned; None where neither does, which is not zero.

    Args:
        alone: Whether the task updates one asset only; of several, nobody knows which one the number is about.
    """
    told = extra.get(ROWS)
    if told is None and alone and ti.task.do_xcom_push:
        told = ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index)
        return told if is_row_count(told) else None
    if told is not None and not is_row_count(told):
        log.warning("`%s`: the `rows` of an asset's update is %r, no whole number, so it is unknown", ti.task_id, told)
        return None
    return told
