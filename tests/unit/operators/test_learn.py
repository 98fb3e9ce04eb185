from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow_oauth_guard.detector import lessons as lessons_module
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.flat_line import outlook
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.errors import OAuthGuardError
from airflow_oauth_guard.operators import learn
from airflow_oauth_guard.operators.learn import LearnOperator, next_lesson
from airflow_oauth_guard.store.incidents import Symptom
from tests.airflow_parts import task_context, utcnow

pytestmark = pytest.mark.airflow

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def lessons() -> int:
    return LearnOperator(task_id="learn").execute(task_context("learn"))


def hourly(store, name: str = "contacts", days: int = 40) -> None:
    now = utcnow()
    store.sources.register([Source(name, Learned())], now - days * DAY)
    for hours in range(days * 24, 0, -1):
        store.sources.beat(name, 50 + hours % 13, now - hours * HOUR, Observer())


def test_a_history_becomes_a_window_that_is_narrower_than_the_fallback(store):
    hourly(store)
    before = store.sources.get("contacts")
    assert before.habit is None
    assert lessons() == 1
    after = store.sources.get("contacts")
    assert after.habit is not None
    alarm_at = outlook(after.source, after.habit, after.state).alarm_at
    assert alarm_at < after.state.last_beat_at + 6 * HOUR
    assert abs(after.due_at - alarm_at) < timedelta(seconds=1), "and what is due follows from it"


def test_a_source_has_one_lesson_a_day_at_a_time_of_its_own(store):
    hourly(store, days=3)
    assert lessons() == 1
    assert lessons() == 0
    now = utcnow()
    times = {next_lesson(f"source {number}", now).hour for number in range(200)}
    assert len(times) == 24
    assert all(now + DAY / 2 <= next_lesson(f"source {number}", now) <= now + 1.5 * DAY for number in range(200))


def test_a_silence_that_was_told_is_left_out_of_the_lesson_unless_it_was_called_expected(store, mocker):
    hourly(store, days=3)
    now, seen = utcnow(), []
    mocker.patch.object(lessons_module, "learn", lambda beats, at, **how: seen.append(how["masked"]))
    symptom = Symptom(About.SOURCE, "contacts", IncidentKind.LATE, "silent", now - 30 * HOUR)
    store.incidents.open(symptom, now - 29 * HOUR)
    store.incidents.resolve(About.SOURCE, "contacts", "spoke again", now - 20 * HOUR)
    lessons()
    assert seen == [[(now - 30 * HOUR, now - 20 * HOUR)]]


def test_one_history_that_cannot_be_learned_from_keeps_no_other_from_its_lesson_and_is_red(store, mocker):
    for name in ("contacts", "orders"):
        hourly(store, name, days=2)
    taught = learn.lesson
    mocker.patch.object(
        learn, "lesson", lambda store, one, now: taught(store, one, now) if one.source.name == "orders" else 1 / 0
    )
    with pytest.raises(OAuthGuardError, match="Not learned: `contacts`: division by zero"):
        lessons()
    assert lessons() == 0, "each is tried again tomorrow"
