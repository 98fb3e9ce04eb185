"""Announce that a job ran and how much it moved."""

from __future__ import annotations

import functools
import inspect
import logging
import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import BaseOperator, get_current_context

from airflow_oauth_guard.domain.beats import SKIPPED, Beat
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.speaking import adoption, instant, row_count
from airflow_oauth_guard.domain.storms import GUARDS_OWN
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.errors import ConfigurationError, CredentialUnusableError
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.context import observer
from airflow_oauth_guard.hooks.links import SourceLink
from airflow_oauth_guard.hooks.patience import patiently
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.operators.outlets import carry_rows
from airflow_oauth_guard.operators.schedules import schedule_of

if TYPE_CHECKING:
    from airflow_oauth_guard.store.sources import Heard

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
        name = announce(self.source, rows, instant(self.watermark, "watermark"), context=context)
        return {"source": name, "rows": rows}


def heartbeat(
    source: str | Source, *, rows: Callable[[Any], int | None] | None = None, credential: str | None = None
) -> Callable[[F], F]:
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
        credential: The connection that feeds a source which is named and that nobody has declared.
    """

    def decorate(function: F) -> F:
        if not inspect.isroutine(function):
            raise ConfigurationError(
                f"@heartbeat is given a {type(function).__name__}; write it directly above the function, under @task."
            )

        def beat(returned: Any) -> None:
            counted = _counted(rows(returned) if rows is not None else returned, function, source)
            announce(source, counted, context=running(), job=job_of(function), credential=credential)

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

        decorated = awaited if inspect.iscoroutinefunction(function) else called
        setattr(decorated, SPEAKS_FOR, {*getattr(function, SPEAKS_FOR, ()), name_of(source)})
        return cast("F", decorated)

    return decorate


SPEAKS_FOR = "__oauth_guard_source__"
"""Where a decorated function keeps the names of the sources that it speaks for."""


def speaks_itself(task: Any, source: str) -> bool:
    """Whether a task of a DAG sends the heartbeats of this source itself, mapped or not."""
    if isinstance(task, HeartbeatOperator):
        return name_of(task.source) == source
    if getattr(task, "operator_class", None) is HeartbeatOperator:
        return name_of(task.partial_kwargs.get("source", "")) == source
    return source in getattr(getattr(task, "python_callable", None), SPEAKS_FOR, ())


def announce(
    source: str | Source,
    rows: int | None,
    watermark: datetime | None = None,
    *,
    context: Any,
    job: str = "",
    note: str = "",
    credential: str | None = None,
) -> str:
    """Keep a heartbeat, and when the DAG that runs the task runs; returns the source's name.

    Waits for a store that is gone for a while: the work is done, and would be done again for want of a word about it.

    Args:
        context: The running task's; None outside of one.
        job: Who speaks, where no task does.
        note: What the run says beside the number.
        credential: The connection that feeds a source which is named and that nobody has declared.
    """
    name, now = name_of(source), utcnow()
    beat = Beat(now, rows, watermark, note=note)
    heard = patiently(lambda: keep(source, beat, context=context, job=job, credential=credential))
    if heard.adopted:
        log.warning("%s", adoption(name))
    if heard.new:
        log.info("Heartbeat of `%s`: %s rows", name, "an unknown number of" if rows is None else rows)
    else:
        log.warning("This try has sent its heartbeat of `%s` already; the first one counts", name)
    if context is not None:
        patiently(lambda: carry_rows(get_store(), name, rows, context))
    return name


def keep(source: str | Source, beat: Beat, *, context: Any, job: str = "", credential: str | None = None) -> Heard:
    """:func:`announce` at once or not at all, without a word in the log, and of updates of assets that have passed."""
    _declare(source, credential, beat.at, counted=beat.rows is not None)
    store, name = get_store(), name_of(source)
    who = Observer(task_id=job) if context is None else observer(context)
    heard = store.sources.beat(name, beat.rows, beat.at, who, beat.watermark, beat.note)
    if context is not None:
        store.sources.fed_on(name, schedule_of(context.get("dag")), beat.at)
    return heard


def _declare(source: str | Source, credential: str | None, now: datetime, *, counted: bool) -> None:
    store = get_store()
    if isinstance(source, Source):
        # Who runs the guard's own DAGs less often gives their sources another window.
        declare = store.sources.introduce if source.name.startswith(GUARDS_OWN) else store.sources.declare
        declare(source, now)
    elif credential is not None:
        store.sources.introduce(Source(source, Learned(), credential=credential, pings=not counted), now)


def skip(
    source: str | Source, error: CredentialUnusableError, *, context: Any, job: str = "", credential: str | None = None
) -> NoReturn:
    """Skip a task since its credential is unusable, and say so in a heartbeat of its source: a skip is seen, or it is none.

    Args:
        credential: The connection that feeds a source which is named and that nobody has declared.

    Raises:
        AirflowSkipException: When the heartbeat is kept. Whatever keeps it from that is the task's error instead.
    """
    said = str(error)
    why = f"{SKIPPED} {said[:1].lower()}{said[1:]}"
    announce(source, 0, context=context, job=job, note=why, credential=credential)
    raise AirflowSkipException(why) from error


def name_of(source: str | Source) -> str:
    return source.name if isinstance(source, Source) else source


def job_of(function: Callable[..., Any]) -> str:
    """Who speaks where no task runs."""
    return f"{function.__module__}.{function.__qualname__}"


def running() -> Any:
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
        raise ConfigurationError(
            f"Source `{name_of(source)}`: `{function.__qualname__}` returned a {type(given).__name__}, which is no number of rows; return "
            'one, or None where nobody knows, or say how to count it, as in @heartbeat("...", rows=len).'
        )
    return operator.index(given)
