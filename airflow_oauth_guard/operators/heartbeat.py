"""Announce that a job ran and how much it moved."""

from __future__ import annotations

import functools
import inspect
import logging
import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast

from airflow.sdk import BaseOperator, get_current_context

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.speaking import adoption, instant, row_count
from airflow_oauth_guard.domain.storms import GUARDS_OWN
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.context import observer
from airflow_oauth_guard.hooks.links import SourceLink
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.operators.schedules import schedule_of

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger(__name__)


class HeartbeatOperator(BaseOperator):
    """Put it at the end of a pipeline: a job that moves nothing then says so instead of succeeding in silence.

    Args:
        source: The name of a source, or a :class:`Source`, which is then watched as it says. A name that nobody
            declared is watched from its first heartbeat on, with a learned window. Where a window is learned and the DAG has
            a cron, the cron says when, and only the grace is learned.
        rows: How many rows this run moved (templated), e.g. ``"{{ ti.xcom_pull('load') }}"``. None or empty means
            nobody knows, which is not zero.
        watermark: How far the data reaches (templated), as a datetime or in ISO 8601 with a time zone. None or empty
            where nobody knows.
    """

    template_fields: Sequence[str] = ("rows", "watermark")
    operator_extra_links = (SourceLink(),)

    def __init__(
        self,
        *,
        source: str | Source,
        rows: int | str | None,
        watermark: datetime | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.rows = rows
        self.watermark = watermark

    def execute(self, context: Any) -> dict[str, Any]:
        rows = row_count(self.rows)
        name = announce(self.source, rows, instant(self.watermark, "watermark"), context)
        return {"source": name, "rows": rows}


def heartbeat(source: str | Source, *, rows: Callable[[Any], int | None] | None = None) -> Callable[[F], F]:
    """A heartbeat whenever the function returns, with the number of rows it returned; none if it raises.

    ::

        @task
        @heartbeat("crm_contacts")
        def load() -> int: ...

    Works outside of tasks as well. Within one, a source is heard once per try. A heartbeat that cannot be kept is the
    function's error; where the function must not run twice for that, use a :class:`HeartbeatOperator` behind it.

    Args:
        source: The name of a source, or a :class:`Source`, which is then watched as it says.
        rows: Counts what the function returned, e.g. ``len``. By default that is a number itself, or None where nobody
            knows.
    """

    def decorate(function: F) -> F:
        if not inspect.isroutine(function):
            raise ConfigurationError(
                f"@heartbeat is given a {type(function).__name__}; write it directly above the function, under @task."
            )

        def beat(returned: Any) -> None:
            counted = _counted(rows(returned) if rows is not None else returned, function, source)
            announce(source, counted, None, _running(), job=f"{function.__module__}.{function.__qualname__}")

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            returned = function(*args, **kwargs)
            beat(returned)
            return returned

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            returned = await function(*args, **kwargs)
            beat(returned)
            return returned

        return cast("F", awaited if inspect.iscoroutinefunction(function) else called)

    return decorate


def announce(source: str | Source, rows: int | None, watermark: datetime | None, context: Any, job: str = "") -> str:
    """Keep a heartbeat, and when the DAG that runs the task runs; returns the source's name.

    Args:
        context: The running task's; None outside of one.
        job: Who speaks, where no task does.
    """
    store, now = get_store(), utcnow()
    if isinstance(source, Source):
        # Who runs the guard's own DAGs less often gives their sources another window.
        declare = store.sources.introduce if source.name.startswith(GUARDS_OWN) else store.sources.declare
        declare(source, now)
    name = source.name if isinstance(source, Source) else source
    who = Observer(task_id=job) if context is None else observer(context)
    heard = store.sources.beat(name, rows, now, who, watermark)
    if heard.adopted:
        log.warning("%s", adoption(name))
    if heard.new:
        log.info("Heartbeat of `%s`: %s rows", name, "an unknown number of" if rows is None else rows)
    else:
        log.warning("This try has sent its heartbeat of `%s` already; the first one counts", name)
    if context is not None:
        store.sources.fed_on(name, schedule_of(context.get("dag")), now)
    return name


def _running() -> Any:
    """The context of the task that runs here; None outside of one."""
    try:
        return get_current_context()
    except RuntimeError:
        # Airflow's only answer to the question whether there is one.
        return None


def _counted(given: Any, function: Callable[..., Any], source: str | Source) -> int | None:
    """Rows as a function returned them; numpy's whole numbers are some, too."""
    if given is None:
        return None
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        name = source.name if isinstance(source, Source) else source
        raise ConfigurationError(
            f"Source `{name}`: `{function.__qualname__}` returned a {type(given).__name__}, which is no number of rows; return "
            'one, or None where nobody knows, or say how to count it, as in @heartbeat("...", rows=len).'
        )
    return operator.index(given)
