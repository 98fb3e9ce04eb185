"""Heartbeats of tasks that know nothing of us: their outlets say which sources they feed.

Every process of Airflow imports this with our plugin, and every task calls it, so whatever it needs is imported when a task has
outlets. It is called when the task is over: nothing that goes wrong here can fail it, and Airflow gives it
``[core] task_success_overtime`` to end.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """A task that updated assets ran."""
    if _ran(previous_state) and _has_outlets(task_instance):
        _speak(task_instance, skipped=False)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """A task that would have updated assets has skipped itself."""
    if _ran(previous_state) and _has_outlets(task_instance):
        _speak(task_instance, skipped=True)


def _ran(previous_state: Any) -> bool:
    """Not where a person marks a task in the UI: the API server calls then, of no state before, and nothing has run."""
    return previous_state is not None


def _has_outlets(task_instance: Any) -> bool:
    return bool(getattr(task_instance.task, "outlets", None))


def _speak(task_instance: Any, *, skipped: bool) -> None:
    try:
        from airflow_oauth_guard.consumers.outlets import speak_for_outlets

        speak_for_outlets(task_instance, skipped=skipped)
    except Exception:
        # Said here and not raised: other listeners would not be called, and Airflow would only say that one failed.
        log.exception(
            "No heartbeat was kept for the assets of task `%s`: %s. If nothing else speaks for their sources, an alarm follows; "
            "see above for what to mend, and send it with `airflow oauth-guard heartbeat`.",
            task_instance.task_id,
            ", ".join(f"`{getattr(outlet, 'name', outlet)}`" for outlet in task_instance.task.outlets),
        )
