"""The incident this package exists for, as the detector would have seen it: noticed in hours, not on day ten."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

import time_machine

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Cron, Learned, Window
from airflow_oauth_guard.operators.flat_line import FlatLineOperator
from airflow_oauth_guard.operators.learn import LearnOperator
from tests.airflow_parts import enrolled, incident_about, task_context

pytestmark = pytest.mark.airflow

CHECK, HOUR = timedelta(minutes=15), timedelta(hours=1)
BEGINS = datetime.fromisoformat("2026-03-01T00:00:00+00:00")
MARKED = BEGINS + timedelta(days=30, hours=10, minutes=20)
"""When the credential is wrongly marked, and every consumer begins to skip the source, politely."""


@pytest.mark.parametrize(
    ("window", "within"),
    [
        (timedelta(hours=2), timedelta(hours=2)),
        (Cron(("0 * * * *",), timedelta(minutes=30)), timedelta(hours=1, minutes=30)),
        (Learned(), timedelta(hours=3)),
    ],
    ids=["fixed", "cron", "learned"],
)
@pytest.mark.parametrize(
    ("skips", "kind"), [(None, IncidentKind.LATE), (0, IncidentKind.FLAT)], ids=["silent", "zero rows"]
)
def test_it_is_told_within_the_first_missed_window_and_one_check_and_names_the_credential(
    store, window: Window, within: timedelta, skips: int | None, kind: IncidentKind
):
    source = Source("contacts", window, credential="crm")
    with time_machine.travel(BEGINS, tick=False) as clock:
        enrolled(store, "crm")
        store.sources.register([source], BEGINS)
        for hour in range(30 * 24 + 11):
            store.sources.beat("contacts", 100 + hour % 17, BEGINS + hour * HOUR + timedelta(minutes=7), Observer())
        clock.move_to(MARKED)
        LearnOperator(task_id="learn").execute(task_context("learn"))
        incident_about(store, "crm", summary="Our request is wrong: its grant_type is not the class's.")
        missed = BEGINS + timedelta(days=30, hours=11, minutes=7)
        while (opened := store.incidents.open_about(About.SOURCE, "contacts")) is None:
            clock.shift(CHECK)
            now = clock_now()
            if skips is not None and now.minute < 15:
                store.sources.beat("contacts", skips, now, Observer())
            FlatLineOperator(task_id="check").execute(task_context("check"))
            assert clock_now() < MARKED + timedelta(days=1), "ten days is what it took"
        assert clock_now() - (missed - HOUR) <= within + HOUR + CHECK
        assert opened.kind is kind
        assert "Likely cause: its credential `crm` (active): Our request is wrong" in opened.summary


def clock_now() -> datetime:
    from airflow_oauth_guard.hooks.transport import utcnow

    return utcnow()
