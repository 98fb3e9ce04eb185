"""What the detector finds out about a source itself: it asks the destination, or reads an asset's events.

Whatever goes wrong with one source is an answer about that source, and the others are asked all the same. A database that
does not answer is waited for once in a pass, however many sources it holds.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from threading import Thread
from typing import Any

import lazy_object_proxy
import pendulum
from airflow import __version__ as airflow_version
from airflow.sdk import Asset, BaseHook
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.clock import aware, words
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.redaction import redact_text
from airflow_oauth_guard.domain.sources import AssetEvents, SqlCount, SqlNewest
from airflow_oauth_guard.domain.speaking import is_row_count
from airflow_oauth_guard.errors import ConfigurationError, OAuthGuardError
from airflow_oauth_guard.hooks.context import observer
from airflow_oauth_guard.store.sources import Watched

log = logging.getLogger(__name__)

_TEMPLATES = SandboxedEnvironment(undefined=StrictUndefined)

PATIENCE = timedelta(seconds=60)
"""For one answer of a destination."""

ALTOGETHER = timedelta(minutes=5)
"""For the answers of all destinations; the task that asks has ten minutes."""

FIRST_COUNT = timedelta(hours=1)
"""How far back the first count of a source goes, where its window is no fixed one."""

COMMITTED_LATE = timedelta(hours=1)
"""Rows carry the time at which their load began, and are seen once it is committed: each count goes back this far again."""

RECORDED_LATE = timedelta(minutes=10)
"""The same for asset events; Airflow writes them when a task has ended."""

FIRST_EVENTS = timedelta(days=56)
"""How far back the first look at an asset goes, so that a learned window has something to learn from."""

MOST_EVENTS = 1000
"""Of one asset in one look; the newest of them."""

AHEAD = timedelta(days=1)
"""A row may be dated so far in the future: clocks differ, and a date of tomorrow is today's somewhere."""

NO_ANSWER = "TimeoutError: connection"
"""How the problem of a source begins that was asked about in vain; others may only not have been asked then."""

LONGEST_REASON = 300

SHORTEST_EXTRA = 8
"""An extra that is shorter is a mode or a role; hiding it would hide what the message is about."""

AT_ONCE = 4 if airflow_version.split(".")[:2] != ["3", "1"] else 1
"""Databases asked side by side. A task of Airflow 3.1 has one channel to its supervisor and no lock on it, and a hook may look
up another connection on its way."""


@dataclass(frozen=True)
class Answer:
    """What was found out about one source: heartbeats, or why there are none."""

    source: str
    beats: tuple[tuple[Beat, Observer, str], ...] = ()
    """Each with who looked or ran, and a key that tells it apart where it may be found again; oldest first."""
    problem: str = ""
    """Why the source could not be measured; fit to keep."""


class Measuring:
    """One pass's questions.

    Args:
        context: The running task's.
        patience: For one answer of a destination.
        altogether: For all of them; what is not asked until then is a problem of its source.
    """

    def __init__(
        self, context: Any, now: datetime, *, patience: timedelta = PATIENCE, altogether: timedelta = ALTOGETHER
    ) -> None:
        self._context = context
        self._now = now
        self._patience = patience
        self._altogether = altogether
        self._give_up_at = time.monotonic() + altogether.total_seconds()

    def ask(self, due: Iterable[Watched]) -> Iterator[Answer]:
        """Answers about those of the sources that have a measure, as they come in."""
        by_connection: dict[str, list[Watched]] = {}
        for watched in due:
            measure = watched.source.measure
            if isinstance(measure, AssetEvents):
                yield self._of_asset(watched, measure)
            elif measure is not None:
                by_connection.setdefault(measure.conn_id, []).append(watched)
        yield from self._of_destinations(by_connection)

    # -- destinations -------------------------------------------------------------------------------------------------

    def _of_destinations(self, by_connection: Mapping[str, list[Watched]]) -> Iterator[Answer]:
        destinations: list[tuple[_Destination, list[Watched]]] = []
        for conn_id, group in by_connection.items():
            try:
                # Here and not in a thread: looking up a connection is a word with Airflow's supervisor.
                destinations.append((_Destination(conn_id), group))
            except Exception as error:
                # Whatever is wrong with it: its sources are unmeasured for that reason, and the others are asked.
                log.warning("Connection `%s` cannot be used", conn_id, exc_info=True)
                yield from (Answer(watched.source.name, problem=reason(error)) for watched in group)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="oauth_guard_measures") as pool:
            for answers in as_completed([pool.submit(self._in_turn, *each) for each in destinations]):
                yield from answers.result()

    def _in_turn(self, destination: _Destination, group: Sequence[Watched]) -> list[Answer]:
        # What got no answer last time is asked last: one slow query must not take the answers away from the others.
        group = sorted(group, key=lambda watched: watched.state.problem.startswith(NO_ANSWER))
        outcomes = destination.ask(group, self._now)
        answers: list[Answer] = []
        for watched, outcome in zip(group, outcomes, strict=True):
            left = self._give_up_at - time.monotonic()
            seconds = min(left, self._patience.total_seconds())
            if not wait([outcome], timeout=max(seconds, 0)).done:
                destination.call_off(outcomes)
                rest = [watched.source.name for watched in group[len(answers) :]]
                return [*answers, *self._unanswered(destination.conn_id, rest, seconds)]
            answers.append(self._answer(destination, watched, outcome))
        return answers

    def _answer(self, destination: _Destination, watched: Watched, outcome: Future[Beat]) -> Answer:
        name = watched.source.name
        error = outcome.exception()
        if error is not None:
            return Answer(name, problem=destination.reason(error, watched))
        return Answer(name, ((outcome.result(), observer(self._context), ""),))

    def _unanswered(self, conn_id: str, names: Sequence[str], seconds: float) -> Iterator[Answer]:
        if seconds <= 0:
            spent = f"TimeoutError: not asked, since this pass had spent its {words(self._altogether)} on other sources"
            yield from (Answer(name, problem=spent) for name in names)
            return
        first, *others = names
        waited = words(timedelta(seconds=round(seconds)))
        log.warning("`%s`: connection `%s` did not answer within %s", first, conn_id, waited)
        yield Answer(first, problem=f"{NO_ANSWER} `{conn_id}` did not answer within {waited}")
        for name in others:
            yield Answer(
                name, problem=f"TimeoutError: not asked, since connection `{conn_id}` did not answer for `{first}`"
            )

    # -- asset events -------------------------------------------------------------------------------------------------

    def _of_asset(self, watched: Watched, asset: AssetEvents) -> Answer:
        last = watched.state.last_beat_at
        since = last - RECORDED_LATE if last is not None else self._now - FIRST_EVENTS
        try:
            events = self._events(asset.name, since)
        except Exception as error:
            # Unmeasured, never silent and never fine; the next source is asked all the same.
            log.warning(
                "`%s`: the events of asset `%s` could not be read", watched.source.name, asset.name, exc_info=True
            )
            why = f"the events of asset `{asset.name}` cannot be read; is it an outlet of a DAG that exists? {error}"
            return Answer(watched.source.name, problem=reason(OAuthGuardError(why)))
        return Answer(watched.source.name, tuple(_beat_of(event) for event in events))

    def _events(self, name: str, since: datetime) -> list[Any]:
        # The accessor that a task has for its declared inlets, made for this asset.
        events = type(self._context["inlet_events"])([Asset.ref(name=name)])[0]
        if hasattr(events, "after"):
            events = events.after(since.isoformat()).ascending(False).limit(MOST_EVENTS)
        # Airflow 3.1 gives every event there is; 3.2 made the filters.
        recent = [event for event in events if event.timestamp >= since]
        return sorted(recent, key=lambda event: (event.timestamp, event.id))[-MOST_EVENTS:]


def _beat_of(event: Any) -> tuple[Beat, Observer, str]:
    at = aware(event.timestamp, "an asset event's timestamp")
    ran = Observer(event.source_dag_id, event.source_run_id, event.source_task_id, event.source_map_index)
    # Airflow's number alone would not do: a metadata database that begins anew gives it out again.
    return Beat(at, _rows_of(event)), ran, f"asset event {event.id} {at.isoformat()}"


def _rows_of(event: Any) -> int | None:
    rows = (event.extra or {}).get("rows")
    if rows is None:
        return None
    if not is_row_count(rows):
        log.warning("Asset `%s`: an event's `rows` is %r, no whole number, so it is unknown", event.asset.name, rows)
        return None
    return rows


# -- one destination --------------------------------------------------------------------------------------------------


class _KeptOpen(lazy_object_proxy.Proxy):  # type: ignore[misc]
    """A database connection that its hook does not close after each question."""

    def close(self) -> None:
        """Its destination closes it."""


class _Destination:
    """One database: asked one question after the other over one connection, in a thread nobody has to wait for.

    A driver that waits for its server cannot be interrupted from here. Its thread is left behind, and ends with the process.
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._described = BaseHook.get_connection(conn_id)
        self._secrets = _secrets_of(self._described)
        self._hook: Any = BaseHook.get_hook(conn_id)
        if not hasattr(self._hook, "get_first"):
            raise ConfigurationError(
                f"Connection `{conn_id}` has type `{self._described.conn_type}`, which answers no SQL; name that of a database."
            )
        self._open: Any = None
        self._connect = self._hook.get_conn
        self._hook.get_conn = self._connection
        self._hook.get_connection = self._look_up

    def ask(self, group: Sequence[Watched], now: datetime) -> list[Future[Beat]]:
        """Begin to ask; the outcomes come in this order."""
        outcomes: list[Future[Beat]] = [Future() for _ in group]
        Thread(
            target=self._work, args=(group, outcomes, now), name=f"oauth_guard_asks_{self.conn_id}", daemon=True
        ).start()
        return outcomes

    def call_off(self, outcomes: Sequence[Future[Beat]]) -> None:
        """Ask no more, and have the server stop what it is at: else each pass would leave it one more query."""
        for outcome in outcomes:
            outcome.cancel()
        for name in ("cancel", "interrupt"):
            if callable(stop := getattr(self._open, name, None)):
                # In a thread too: psycopg goes to the server for it.
                stopping = Thread(target=stop, name=f"oauth_guard_stops_{self.conn_id}", daemon=True)
                stopping.start()
                stopping.join(timeout=2)

    def reason(self, error: BaseException, watched: Watched) -> str:
        measure = watched.source.measure
        assert isinstance(measure, (SqlCount, SqlNewest))
        return reason(error, self._secrets, measure.sql)

    def _work(self, group: Sequence[Watched], outcomes: Sequence[Future[Beat]], now: datetime) -> None:
        for watched, outcome in zip(group, outcomes, strict=True):
            if not outcome.set_running_or_notify_cancel():
                break
            try:
                outcome.set_result(self._look(watched, now))
            except Exception as error:
                log.warning("`%s`: the destination could not be asked", watched.source.name, exc_info=True)
                # The connection may be broken, or within a transaction that failed.
                self._close()
                outcome.set_exception(error)
        self._close()

    def _look(self, watched: Watched, now: datetime) -> Beat:
        measure = watched.source.measure
        assert isinstance(measure, (SqlCount, SqlNewest))
        sql = _TEMPLATES.from_string(measure.sql).render(since=counts_since(watched, now), until=now)
        row = self._hook.get_first(sql)
        value = only_value(row)
        return Beat(now, count(value), measured=True) if isinstance(measure, SqlCount) else newest(value, now)

    def _connection(self, *args: Any, **named: Any) -> Any:
        if self._open is None:
            self._open = self._connect(*args, **named)
        return _KeptOpen(lambda: self._open)

    def _look_up(self, conn_id: str) -> Any:
        # What was looked up already is not asked for again, least of all from a thread.
        return self._described if conn_id == self.conn_id else BaseHook.get_connection(conn_id)

    def _close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            try:
                connection.close()
            except Exception:
                # What it answered was taken before; a broken connection has nothing left to lose.
                log.warning("The connection `%s` could not be closed", self.conn_id, exc_info=True)


def counts_since(watched: Watched, now: datetime) -> datetime:
    """From when on rows are counted: over a whole fixed window, or since the last answer."""
    source = watched.source
    if isinstance(source.window, timedelta):
        # In open time, or a count on a Monday morning would be of an empty weekend.
        return source.closed.subtract_open(now, source.window, source.zone)
    return (watched.state.measured_at or now - FIRST_COUNT) - COMMITTED_LATE


# -- reading an answer ------------------------------------------------------------------------------------------------


def only_value(row: Any) -> Any:
    """The one value of a row, whatever the driver makes of a row.

    Raises:
        OAuthGuardError: If there is none, or more.
    """
    if not row:
        raise OAuthGuardError("the query returned no row; select one value")
    values = list(row.values()) if isinstance(row, Mapping) else list(row)
    if len(values) != 1:
        raise OAuthGuardError(f"the query returned {len(values)} columns; select one value")
    return values[0]


def count(value: Any) -> int:
    """A number of rows, as drivers give it.

    Raises:
        OAuthGuardError: If it is no whole number of 0 or more; an empty ``sum`` is none.
    """
    if value is None:
        raise OAuthGuardError("the query returned NULL, which is not 0; select a number, with coalesce around a sum")
    try:
        number = Decimal(str(value))
        if number.is_finite() and number >= 0 and number == int(number):
            return int(number)
    except InvalidOperation:
        # Text that is no number; said below like every other value that is none.
        pass
    raise OAuthGuardError(f"the query returned {value!r}; select a whole number, 0 or more")


def newest(value: Any, now: datetime) -> Beat:
    """What the time of the newest row says. None means that there are no rows at all.

    A time slightly ahead is kept as it is: cut at ``now`` it would look as if new rows came at every look.

    Raises:
        OAuthGuardError: If it is no instant, or one that has not come yet.
    """
    if value is None:
        return Beat(now, rows=0, measured=True)
    at = instant(value)
    if at > now + AHEAD:
        raise OAuthGuardError(f"the newest row is dated {at.isoformat()}, which has not come yet; leave such rows out")
    return Beat(now, rows=None, watermark=at, measured=True)


def instant(value: Any) -> datetime:
    """An instant as drivers give it: with a zone, without one (UTC), a date, ISO text, or seconds since 1970.

    Raises:
        OAuthGuardError: If it is none of these.
    """
    try:
        if isinstance(value, str):
            value = _from_text(value)
        if isinstance(value, (int, float, Decimal)) and value >= LEAST_EPOCH:
            return _EPOCH + timedelta(seconds=_seconds(float(value)))
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - made UTC below
        if isinstance(value, datetime):
            return aware(value if value.tzinfo else value.replace(tzinfo=timezone.utc), "the newest row's time")
    except (ValueError, OverflowError):
        # Said below like every other value that is no instant.
        pass
    raise OAuthGuardError(f"the query returned {value!r}; select an instant, such as max(loaded_at)")


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LEAST_EPOCH = 10**8
"""Seconds below this are of before 1973: rather a count, or a date written 20260131."""


def _from_text(text: str) -> Any:
    if re.fullmatch(r"\d{9,}(\.\d+)?", text.strip()):
        return float(text)
    # Four digits first, since pendulum reads "now" and bare times as well.
    return pendulum.parse(text.strip(), exact=True) if re.match(r"\s*\d{4}-", text) else None


def _seconds(number: float) -> float:
    """Milli-, micro- and nanoseconds tell themselves: as seconds they would be thousands of years away."""
    for _ in range(3):
        number = number / 1000 if number >= FAR_AWAY else number
    return number


FAR_AWAY = 10**11
"""Seconds until the year 5138."""


# -- why not ----------------------------------------------------------------------------------------------------------


_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@]*@")
_NAMED = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|secret|token|api_?key))(\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s;,]+)"
)


def reason(error: BaseException, secrets: Iterable[str] = (), sql: str = "") -> str:
    """Why a source could not be measured, in one line that is fit to keep.

    Args:
        sql: What was asked; its long names are no secrets, though they look like some.
    """
    said = " ".join(str(error).split())
    said = _NAMED.sub(r"\1\2<redacted>", _IN_ADDRESS.sub("<redacted>@", said))
    known = tuple(secrets)
    names = [name for name in re.findall(r"[\w.]{32,}", sql) if name not in known]
    parts = re.split(f"({'|'.join(map(re.escape, names))})", said) if names else [said]
    said = "".join(part if part in names else redact_text(part, known) for part in parts)
    # Our own messages say what to do; other people's are known by their type.
    kind = "" if isinstance(error, OAuthGuardError) else f"{type(error).__name__}: "
    return f"{kind}{said}"[:LONGEST_REASON]


def _secrets_of(connection: Any) -> tuple[str, ...]:
    """The password, and every long text of the extras: only the hook knows which of them are secret."""
    extras = [text for text in _texts(connection.extra_dejson) if len(text) >= SHORTEST_EXTRA]
    return tuple(filter(None, (connection.password, *extras)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
