"""From heartbeats to a habit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.habits.bands import bands_of
from airflow_oauth_guard.domain.habits.flat import flat_clock
from airflow_oauth_guard.domain.habits.grace import grace_of
from airflow_oauth_guard.domain.habits.habit import Habit
from airflow_oauth_guard.domain.habits.late import late_clock
from airflow_oauth_guard.domain.habits.lesson import Lesson, worth_learning_from
from airflow_oauth_guard.domain.habits.repeats import surprise_of_repeats
from airflow_oauth_guard.domain.windows import Cron


def learn(
    beats: Sequence[Beat],
    now: datetime,
    *,
    zone: ZoneInfo,
    closed: ClosedDays,
    budget: float,
    masked: Sequence[tuple[datetime, datetime]] = (),
    schedule: Cron | None = None,
) -> Habit | None:
    """What the heartbeats teach; None while there are too few.

    Args:
        beats: From as long ago as ``HISTORY``; those after ``now`` are left out.
        closed: Days that teach nothing.
        budget: False alarms per month that are acceptable, by all clocks together.
        masked: Incidents of the past, which are not to be learned as usual.
        schedule: For a window whose grace is to be learned.
    """
    lesson = Lesson(worth_learning_from(beats, now), now, zone, closed, budget, masked)
    if not lesson.is_enough:
        return None
    same, stuck_threshold = surprise_of_repeats(lesson)
    return Habit(
        learned_at=now,
        usual_gap=timedelta(minutes=lesson.gap),
        zone=zone.key,
        late=late_clock(lesson),
        flat=flat_clock(lesson),
        same=same,
        stuck_threshold=stuck_threshold,
        grace=grace_of(schedule, lesson) if schedule is not None else None,
        bands=bands_of(lesson.loads),
    )
