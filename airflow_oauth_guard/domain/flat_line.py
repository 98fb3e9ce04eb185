"""Is the source speaking? "It did not run", "it ran and moved nothing" and "the same number again and again" are three
findings, each with a clock of its own.

What is known of a source is kept up at every heartbeat, so that nobody has to read its history to know when it is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.feeding import Schedule
from airflow_oauth_guard.domain.habits import Habit
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.sources import Source, SqlCount, SqlNewest
from airflow_oauth_guard.domain.windows import Cron, Learned

Blind = Sequence[tuple[datetime, datetime]]
"""Stretches in which nobody looked, oldest first. They are not a source's silence."""


class Standing(str, Enum):
    """What the last look at a source has found."""

    FINE = "fine"
    LATE = "late"
    FLAT = "flat"
    STUCK = "stuck"
    UNMEASURED = "unmeasured"
    UNKNOWN = "unknown"
    """It is silent together with most others, so its silence says nothing about it."""


GAPS_WHILE_LEARNING = 2
"""While a window is learned, a silence below so many of the longest so far is no alarm."""


@dataclass(frozen=True)
class State:
    """What has been heard of a source, up to its last heartbeat."""

    registered_at: datetime
    last_beat_at: datetime | None = None
    """The last run."""
    last_rows_at: datetime | None = None
    """The last heartbeat that carried rows, or look at the destination that found new ones."""
    last_rows: int | None = None
    watermark: datetime | None = None
    longest_gap: timedelta = timedelta()
    """Between heartbeats with rows, in open time."""
    zeros: int = 0
    """Loads that said zero since the last rows."""
    unknowns: int = 0
    """Loads that said nothing of rows since the last rows."""
    zero_surprise: float = 0.0
    flat_since: datetime | None = None
    """When the loads without rows had become too surprising, by what was learned."""
    repeats: int = 0
    """Loads with rows, in a row, that moved the same number as the one before."""
    same_surprise: float = 0.0
    stuck_since: datetime | None = None
    note: str = ""
    """What the last run said beside its number."""
    skips: int = 0
    """Runs since the last one that were skipped, and so were none."""
    measured_at: datetime | None = None
    """When the destination was asked last, with an answer."""
    problem: str = ""
    """Why the destination could not be asked. Never read as zero and never as fine."""
    problem_since: datetime | None = None
    schedule: Schedule | None = None
    """When the DAG that feeds it runs, as its last task said; None where it has no cron, or there is no DAG."""


def hear(source: Source, habit: Habit | None, state: State, beat: Beat) -> State:
    """What is known after one more heartbeat. Of one that is older than the last, only rows that it brought are news."""
    last = state.measured_at if beat.measured else state.last_beat_at
    if last is not None and beat.at < last:
        return _belated(source, state, beat)
    if beat.measured:
        state = replace(state, problem="", problem_since=None, measured_at=beat.at)
    elif beat.is_skip:
        # Who skips on schedule must not look like who runs on schedule, not even where empty runs are usual.
        return replace(state, note=beat.note, skips=state.skips + 1)
    else:
        state = replace(state, last_beat_at=beat.at, note=beat.note, skips=0)
    if source.asks_the_destination and not beat.measured:
        # The destination is believed, and not the job.
        return state
    if _brought_rows(source, state, beat):
        return _productive(source, habit, state, beat)
    return _empty(source, habit, state, beat)


def _belated(source: Source, state: State, beat: Beat) -> State:
    is_news = state.last_rows_at is None or beat.at > state.last_rows_at
    if not is_news or beat.is_skip or source.asks_the_destination or not _brought_rows(source, state, beat):
        return state
    return replace(state, last_rows_at=beat.at, zero_surprise=0.0, flat_since=None)


def answered(state: State, now: datetime) -> State:
    """The destination could be asked, and had nothing new to tell."""
    return replace(state, problem="", problem_since=None, measured_at=now)


def unmeasured(state: State, why: str, now: datetime) -> State:
    """The destination could not be asked."""
    return replace(state, problem=why, problem_since=state.problem_since or now)


def _brought_rows(source: Source, state: State, beat: Beat) -> bool:
    if beat.rows is not None:
        return beat.rows > 0
    moved = beat.watermark is not None and (state.watermark is None or beat.watermark > state.watermark)
    return moved or (source.pings and not beat.measured)


def _productive(source: Source, habit: Habit | None, state: State, beat: Beat) -> State:
    same = _is_the_same(state, beat)
    repeats = state.repeats + 1 if same else 0
    surprise = state.same_surprise if same else 0.0
    if same and habit is not None and beat.rows is not None:
        surprise += habit.same_surprise(beat.at, beat.rows)
    stuck = same and _is_stuck(source, habit, repeats, surprise)
    gap = source.closed.open_time(state.last_rows_at, beat.at, source.zone) if state.last_rows_at else timedelta()
    return replace(
        state,
        last_rows_at=max(beat.at, state.last_rows_at or beat.at),
        last_rows=beat.rows,
        watermark=beat.watermark or state.watermark,
        longest_gap=max(gap, state.longest_gap),
        zeros=0,
        unknowns=0,
        zero_surprise=0.0,
        flat_since=None,
        repeats=repeats,
        same_surprise=surprise,
        stuck_since=(state.stuck_since or beat.at) if stuck else None,
    )


def _is_the_same(state: State, beat: Beat) -> bool:
    if beat.watermark is not None and state.watermark is not None:
        # Whoever says how far the data reaches has said whether it is new, whatever the number.
        return beat.watermark == state.watermark
    return beat.rows is not None and beat.rows == state.last_rows


def _is_stuck(source: Source, habit: Habit | None, repeats: int, surprise: float) -> bool:
    if source.stuck_after is not None:
        return repeats + 1 >= source.stuck_after
    return source.learns and habit is not None and surprise > habit.stuck_threshold


def _empty(source: Source, habit: Habit | None, state: State, beat: Beat) -> State:
    surprise, flat_since = state.zero_surprise, state.flat_since
    if habit is not None and not source.closed.is_closed(beat.at, source.zone):
        surprise += habit.zero_surprise(beat.at)
        if flat_since is None and surprise > habit.flat_threshold:
            flat_since = beat.at
    if beat.measured and _counts_its_window(source):
        flat_since = flat_since or beat.at
    # Whoever says how far the data reaches, or has looked, has said that nothing new came.
    unknown = beat.rows is None and beat.watermark is None and not beat.measured
    return replace(
        state,
        # Also when it goes back: the data may have been loaded anew, or a wrong row taken out.
        watermark=beat.watermark or state.watermark,
        zeros=state.zeros + (not unknown),
        unknowns=state.unknowns + unknown,
        zero_surprise=surprise,
        flat_since=flat_since,
    )


# -- when it becomes an alarm -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outlook:
    """From when on a source's silence is an alarm, if nothing more is heard; None: not by this clock."""

    expected_at: datetime | None
    """When the next load should be there."""
    late_at: datetime | None
    flat_at: datetime | None
    stuck_at: datetime | None
    unmeasured_at: datetime | None

    @property
    def alarm_at(self) -> datetime | None:
        clocks = (self.late_at, self.flat_at, self.stuck_at, self.unmeasured_at)
        return min((at for at in clocks if at is not None), default=None)

    def suspects(self, heard_at: datetime, now: datetime) -> bool:
        """Whether its load is overdue and half the patience with it is gone. Nobody is told of a suspicion."""
        if self.expected_at is None or self.alarm_at is None:
            return False
        return max(self.expected_at, heard_at + (self.alarm_at - heard_at) / 2) <= now < self.alarm_at


def outlook(source: Source, habit: Habit | None, state: State, blind: Blind = ()) -> Outlook:
    """What a source's window and its last heartbeats say about the time to come."""
    heard = state.last_beat_at or state.registered_at
    late_at: datetime | None = _seen(_late_at(source, habit, state, heard), heard, blind)
    flat_at = _flat_at(source, habit, state, blind)
    if source.asks_the_destination:
        # Rows at the destination are enough, whoever did not speak of them; and nobody has to speak at all.
        late_at = max(late_at, flat_at) if late_at and flat_at and state.last_beat_at else None
    return Outlook(
        expected_at=_expected_at(source, habit, heard),
        late_at=late_at,
        flat_at=flat_at,
        stuck_at=state.stuck_since,
        unmeasured_at=state.problem_since if source.measure is not None else None,
    )


def _late_at(source: Source, habit: Habit | None, state: State, since: datetime) -> datetime:
    window, closed, zone = source.window, source.closed, source.zone
    if isinstance(window, timedelta):
        return closed.add_open(since, window, zone)
    if isinstance(window, Cron):
        return window.next_after(since, zone, closed) + _grace(window, habit)
    learned = habit.late_at(since, closed, zone) if habit is not None else None
    return learned or closed.add_open(since, patience(window, state), zone)


def _flat_at(source: Source, habit: Habit | None, state: State, blind: Blind) -> datetime | None:
    if source.learns and habit is not None and habit.flat is not None:
        return state.flat_since
    window, closed, zone = source.window, source.closed, source.zone
    began = _reaches(source, state) or state.registered_at
    if _counts_its_window(source) and isinstance(window, timedelta):
        if state.flat_since is None:
            return None
        # The window that was empty; the first one began when we began to watch.
        began = max(closed.subtract_open(state.flat_since, window, zone), state.registered_at)
    return _seen(_late_at(source, None, state, began), began, blind)


def _reaches(source: Source, state: State) -> datetime | None:
    """When the last rows came: by their own word where the destination tells it, else when we heard of them."""
    if isinstance(source.measure, SqlNewest) and state.watermark is not None:
        return min(state.watermark, state.last_rows_at or state.watermark)
    return state.last_rows_at


def _grace(window: Cron, habit: Habit | None) -> timedelta:
    learned = habit.grace if habit is not None else None
    return window.grace or learned or window.first_grace


def _counts_its_window(source: Source) -> bool:
    """Whether each answer of the destination speaks of a whole window, and so says by itself that it was empty."""
    return isinstance(source.measure, SqlCount) and isinstance(source.window, timedelta)


def patience(window: Learned, state: State) -> timedelta:
    """How long a source may be silent while its window is still being learned."""
    return max(window.fallback, GAPS_WHILE_LEARNING * state.longest_gap)


def _expected_at(source: Source, habit: Habit | None, since: datetime) -> datetime | None:
    if isinstance(source.window, Cron):
        return source.window.next_after(since, source.zone, source.closed)
    if isinstance(source.window, Learned) and habit is not None:
        return source.closed.opens_after(since + habit.usual_gap, source.zone)
    return None


def _seen(deadline: datetime, since: datetime, blind: Blind) -> datetime:
    """A deadline moves by the time in which nobody looked: what was not seen then may come now."""
    for began, ended in blind:
        # Each moment counts once, though stretches may overlap.
        unseen_since = max(began, since)
        if unseen_since < min(ended, deadline):
            deadline += ended - unseen_since
            since = ended
    return deadline


# -- the finding ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceFinding:
    """``kind`` None: rows arrived, or the window has not closed yet."""

    kind: IncidentKind | None
    explanation: str
    since: datetime
    """When it became true."""


def judge(source: Source, habit: Habit | None, state: State, now: datetime, blind: Blind = ()) -> SourceFinding:
    """Compare what was heard with what was expected."""
    due = outlook(source, habit, state, blind)
    if due.unmeasured_at is not None and due.unmeasured_at <= now:
        explanation = f"The destination could not be measured: {state.problem}"
        return SourceFinding(IncidentKind.UNMEASURED, explanation, due.unmeasured_at)
    if due.late_at is not None and due.late_at <= now:
        return SourceFinding(IncidentKind.LATE, _late(source, habit, state, now), due.late_at)
    if due.flat_at is not None and due.flat_at <= now:
        return _flat(source, habit, state, now, due.flat_at)
    if due.stuck_at is not None and due.stuck_at <= now:
        return SourceFinding(IncidentKind.STUCK, _stuck(source, habit, state), due.stuck_at)
    return SourceFinding(None, _fine(source, habit, state, now), now)


def _late(source: Source, habit: Habit | None, state: State, now: datetime) -> str:
    if state.last_beat_at is None:
        heard = f"none was ever heard in {words(now - state.registered_at)}"
    else:
        heard = f"the last was at {state.last_beat_at:%Y-%m-%d %H:%M:%S}Z, {words(now - state.last_beat_at)} ago"
    if state.skips:
        heard += f"; it was skipped {_times(state.skips)} since"
    return f"No run reported {_within(source, habit, state)}; {heard}.{_usually(source, habit, now)}"


def _flat(source: Source, habit: Habit | None, state: State, now: datetime, since: datetime) -> SourceFinding:
    silence = words(now - (_reaches(source, state) or state.registered_at))
    if source.asks_the_destination and (state.measured_at is None or state.measured_at < since):
        asked = f"the last time was at {state.measured_at:%Y-%m-%d %H:%M:%S}Z" if state.measured_at else "never yet"
        explanation = f"Nobody has asked the destination since rows were expected: {asked}."
        return SourceFinding(IncidentKind.UNMEASURED, explanation, since)
    if source.asks_the_destination:
        explanation = f"The destination holds 0 new rows for {silence}; expected {_within(source, habit, state)}."
        return SourceFinding(IncidentKind.FLAT, explanation + _usually_has_rows(source, habit, now), since)
    if not state.zeros:
        runs = f"none of {state.unknowns} runs" if state.unknowns else "no run"
        explanation = f"No rows are known to have come for {silence}: {runs} said how many it moved."
        return SourceFinding(IncidentKind.UNMEASURED, explanation, since)
    others = f", and {_times(state.unknowns)} did not say how many" if state.unknowns else ""
    explanation = f"It ran and moved 0 rows, {_times(state.zeros)} in {silence}{others}."
    return SourceFinding(IncidentKind.FLAT, explanation + _usually_has_rows(source, habit, now), since)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _stuck(source: Source, habit: Habit | None, state: State) -> str:
    if state.watermark is not None:
        return f"The last {state.repeats + 1} loads reached no further than {state.watermark:%Y-%m-%d %H:%M:%S}Z."
    explanation = f"The last {state.repeats + 1} loads with rows moved exactly {state.last_rows} each."
    if habit is None or source.stuck_after is not None or state.last_rows is None:
        return explanation
    return f"{explanation} {habit.explain_stuck(state.last_rows)}"


def _fine(source: Source, habit: Habit | None, state: State, now: datetime) -> str:
    reaches = _reaches(source, state)
    if reaches is None:
        return f"watched for {words(now - state.registered_at)}; the window is still open"
    rows = f" ({state.last_rows})" if state.last_rows else ""
    return f"rows{rows} arrived {words(now - reaches)} ago{_learning(source, habit, state)}"


def _learning(source: Source, habit: Habit | None, state: State) -> str:
    if isinstance(source.window, Learned) and habit is None:
        return f"; learning: alarms after {words(patience(source.window, state))}"
    return ""


def _within(source: Source, habit: Habit | None, state: State) -> str:
    window = source.window
    if isinstance(window, timedelta):
        return f"within {words(window)}"
    if isinstance(window, Cron):
        return f"within {words(_grace(window, habit))} after {window} ({source.timezone})"
    if habit is None:
        return f"within {words(patience(window, state))} (still learning)"
    return "in the time it usually takes"


def _usually(source: Source, habit: Habit | None, now: datetime) -> str:
    if habit is None or not source.learns:
        return ""
    return f" {habit.explain_silence(now, source.zone)}"


def _usually_has_rows(source: Source, habit: Habit | None, now: datetime) -> str:
    if habit is None or habit.flat is None or not source.learns:
        return ""
    return f" {habit.explain_zeros(now, source.zone)}"


def is_over(kind: IncidentKind, since: datetime, state: State) -> bool:
    """Whether what was heard after ``since`` is positive evidence that this is over; a longer window is none.

    A run for one that was late, rows for one that was flat, another number for one that was stuck, and an answer for one
    that could not be measured.
    """
    since -= WRITTEN_LATER
    rows = state.last_rows_at is not None and state.last_rows_at >= since
    if kind is IncidentKind.LATE:
        return rows or (state.last_beat_at is not None and state.last_beat_at >= since)
    if kind is IncidentKind.STUCK:
        return rows and state.repeats == 0
    if kind is IncidentKind.UNMEASURED:
        return rows or (not state.problem and state.measured_at is not None and state.measured_at >= since)
    return rows


WRITTEN_LATER = timedelta(minutes=1)
"""A heartbeat from just before a deadline may reach us just after it, and clocks differ."""


def loads_missed(source: Source, habit: Habit | None, last: datetime, until: datetime) -> int | None:
    """How many loads should have come between the last one before a silence and the first one after it.

    None where nobody knows how often the source loads.
    """
    if isinstance(source.window, Cron):
        at, missed = last, 0
        while (at := source.window.next_after(at, source.zone, source.closed)) < until and missed < MOST_COUNTED:
            missed += 1
        # The load that ended the silence is one of them.
        return max(missed - 1, 0)
    if habit is None or not habit.usual_gap:
        return None
    at, missed = last, 0
    while (at := source.closed.opens_after(at + habit.usual_gap, source.zone)) < until and missed < MOST_COUNTED:
        missed += 1
    return missed


MOST_COUNTED = 10_000
