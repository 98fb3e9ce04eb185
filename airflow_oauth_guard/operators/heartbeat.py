"""Announce that a job ran and how much it moved."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator

from airflow_oauth_guard.domain.flat_line import Source
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.context import observer
from airflow_oauth_guard.hooks.transport import utcnow


class HeartbeatOperator(BaseOperator):
    """Put it at the end of a pipeline: a job that moves nothing then says so instead of succeeding in silence.

    Args:
        source: The name of a watched source, or a :class:`Source`, which is then watched from its first heartbeat on.
        rows: How many rows this run moved (templated), e.g. ``"{{ ti.xcom_pull('load') }}"``. None or empty means
            nobody knows, which is not zero.

    Raises:
        NotRegisteredError: If nobody watches the source; the heartbeat is kept all the same.
    """

    template_fields: Sequence[str] = ("rows",)

    def __init__(self, *, source: str | Source, rows: int | str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.rows = rows

    def execute(self, context: Any) -> dict[str, Any]:
        store, now = get_store(), utcnow()
        rows = row_count(self.rows)
        if isinstance(self.source, Source):
            store.sources.register([self.source], now)
        name = self.source.name if isinstance(self.source, Source) else self.source
        store.sources.beat(name, rows, now, observer(context))
        self.log.info("Heartbeat of `%s`: %s rows", name, "an unknown number of" if rows is None else rows)
        return {"source": name, "rows": rows}


def row_count(given: int | str | None) -> int | None:
    """Rows as a templated value gives them.

    Raises:
        ConfigurationError: If it is neither a whole number nor empty.
    """
    if given is None or given in ("", "None"):
        return None
    if (isinstance(given, int) and not isinstance(given, bool)) or (isinstance(given, str) and _WHOLE.fullmatch(given)):
        return int(given)
    raise ConfigurationError(f"A heartbeat's `rows` is {given!r}; give a whole number, or None where nobody knows.")


_WHOLE = re.compile(r"\s*[+-]?\d{1,18}\s*", re.ASCII)
