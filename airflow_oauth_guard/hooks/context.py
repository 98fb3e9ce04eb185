"""What a running task says about itself."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from airflow_oauth_guard.domain.evidence import Observer

LABEL = "oauth_guard_label"
MAP_INDEX_TEMPLATE = "{{ oauth_guard_label | default('') }}"
"""Names a mapped task instance in the grid by what it found, not by a number."""


def observer(context: Any) -> Observer:
    """Who is looking: this task instance."""
    ti = context["ti"]
    return Observer(
        dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index, try_number=ti.try_number
    )


def label(context: Any, text: str) -> None:
    """Show this text for the mapped task instance in the grid."""
    assert isinstance(context, MutableMapping)
    context[LABEL] = text[:200]
