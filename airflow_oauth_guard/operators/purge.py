"""Delete history that has had its time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator

from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks.config import get_store, option
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.upkeep import Retention


class PurgeOperator(BaseOperator):
    """Delete what is older than ``[oauth_guard] evidence_retention_days`` and ``heartbeat_retention_days``.

    What a status, its change, an open question or the next decision rests on stays, whatever its age.

    Returns:
        By table, how many rows went.

    Raises:
        ConfigurationError: If an option is no number of days, or too few.
    """

    def execute(self, context: Any) -> dict[str, int]:
        went = get_store().upkeep.purge(configured_retention(), utcnow())
        for table, count in went.items():
            self.log.info("%s: %d rows deleted", table, count)
        return went


def configured_retention() -> Retention:
    """How long history is kept, as configured.

    Raises:
        ConfigurationError: If an option is no number of days, or too few.
    """
    return Retention(
        evidence=_days("evidence_retention_days", option("evidence_retention_days")),
        heartbeats=_days("heartbeat_retention_days", option("heartbeat_retention_days")),
    )


def _days(name: str, value: str) -> timedelta:
    if not (value.isascii() and value.isdecimal() and 0 < int(value) <= MOST_DAYS):
        raise ConfigurationError(
            f"`[oauth_guard] {name}` is {value!r}; write a whole number of days, 1 to {MOST_DAYS}."
        )
    return timedelta(days=int(value))


MOST_DAYS = 36_500
"""A century: as good as for ever, and still an instant that every database knows."""
