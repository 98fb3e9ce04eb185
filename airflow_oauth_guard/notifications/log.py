"""The notifier used where a DAG names none: the task log, at error level."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseNotifier


class LogNotifier(BaseNotifier):
    """Log an alert as an error. Pass it to ``notifiers`` beside others to have both.

    Args:
        message: A Jinja template; ``oauth_guard`` holds the :class:`~airflow_oauth_guard.domain.incidents.Incident`.
    """

    template_fields = ("message",)

    def __init__(self, message: str = "{{ oauth_guard.sentence() }} Whose job: {{ oauth_guard.owner }}.") -> None:
        super().__init__()
        self.message = message

    def notify(self, context: Any) -> None:
        self.log.error("OAuth Guard alert: %s", self.message)
