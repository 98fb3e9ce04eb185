from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.feeding import Schedule, on_schedule
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import DEFAULT_FALLBACK, Cron, Learned

AT_SIX = Schedule(("0 6 * * *",), "Europe/Berlin")
WEEKENDS = ClosedDays(weekdays=frozenset({5, 6}))


def test_where_the_feeding_dag_has_a_cron_only_the_grace_is_left_to_learn():
    learned = Source("crm", Learned(budget=0.5), credential="crm_prod", stuck_after=5)
    watched = on_schedule(learned, AT_SIX)
    assert watched.window == Cron(("0 6 * * *",), grace=None, budget=0.5, first_grace=DEFAULT_FALLBACK)
    assert (watched.timezone, watched.credential, watched.stuck_after) == ("Europe/Berlin", "crm_prod", 5)


@pytest.mark.parametrize("window", [timedelta(hours=3), Cron(("0 1 * * *",)), Cron(("0 1 * * *",), timedelta(hours=1))])
def test_a_window_that_somebody_chose_stays(window):
    assert on_schedule(Source("crm", window), AT_SIX) == Source("crm", window)


def test_without_a_cron_everything_is_left_to_learn():
    assert on_schedule(Source("crm", Learned()), None) == Source("crm", Learned())


def test_closed_days_are_not_moved_into_another_time_zone():
    abroad = Source("crm", Learned(), timezone="America/New_York", closed=WEEKENDS)
    at_home = Source("crm", Learned(), timezone="Europe/Berlin", closed=WEEKENDS)
    assert on_schedule(abroad, AT_SIX) == abroad
    assert on_schedule(at_home, AT_SIX).closed == WEEKENDS
    assert on_schedule(at_home, AT_SIX).window == Cron(("0 6 * * *",), first_grace=DEFAULT_FALLBACK)
