from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow_oauth_guard.domain.flat_line import Source
from airflow_oauth_guard.errors import ConfigurationError, NotRegisteredError
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator, row_count
from tests.airflow_parts import rows, task_context, utcnow

pytestmark = pytest.mark.airflow

SOURCE = Source("crm_contacts", window=timedelta(hours=24), credential="crm_prod")


def beat(moved, source=SOURCE, **how) -> dict:
    return HeartbeatOperator(task_id="heartbeat", source=source, rows=moved).execute(task_context("heartbeat", **how))


def beats(store) -> list[int | None]:
    return [row["row_count"] for row in rows(store, "oauth_guard_heartbeats")]


@pytest.mark.parametrize(
    ("given", "kept"), [("", None), ("None", None), (None, None), ("7", 7), (7, 7), ("0", 0), (0, 0), (" 7 ", 7)]
)
def test_rows_are_a_number_or_unknown_and_unknown_is_not_zero(given, kept, store):
    assert beat(given) == {"source": "crm_contacts", "rows": kept}
    assert beats(store) == [kept]


@pytest.mark.parametrize("given", ["x", "7.5", "[]", "nan", [], {}])
def test_rows_that_are_no_number_are_refused(given, store):
    with pytest.raises(ConfigurationError, match="`rows` is"):
        beat(given)
    assert beats(store) == []


@pytest.mark.parametrize("given", [-1, "-1"])
def test_fewer_than_no_rows_are_refused(given, store):
    with pytest.raises(ConfigurationError, match="-1 rows"):
        beat(given)
    assert beats(store) == []


@pytest.mark.parametrize("given", [7.9, True])
def test_rows_are_not_rounded_nor_made_of_a_yes(given):
    with pytest.raises(ConfigurationError):
        row_count(given)


def test_a_source_is_watched_from_its_first_heartbeat_on(store):
    beat(3)
    assert store.sources.registered() == [SOURCE]
    assert store.sources.heard(SOURCE).last_rows_at is not None


def test_a_registered_source_may_be_named(store):
    store.sources.register([SOURCE], utcnow())
    assert beat(3, "crm_contacts") == {"source": "crm_contacts", "rows": 3}


def test_a_source_nobody_watches_is_an_error_and_its_heartbeat_is_kept(store):
    store.sources.register([SOURCE], utcnow())
    with pytest.raises(NotRegisteredError, match=r"`crm_contcts` is not registered.*Registered: crm_contacts"):
        beat(3, "crm_contcts")
    assert beats(store) == [3]


def test_a_heartbeat_says_which_task_it_comes_from(store):
    beat(3, run_id="scheduled__1", map_index=4, try_number=2)
    [row] = rows(store, "oauth_guard_heartbeats")
    assert (row["dag_id"], row["run_id"], row["task_id"]) == ("oauth_guard_test", "scheduled__1", "heartbeat")
    assert (row["map_index"], row["try_number"]) == (4, 2)


def test_one_try_beats_once_however_often_it_is_written(store):
    beat(3)
    beat(3)
    assert beats(store) == [3]
    beat(3, try_number=2)
    beat(0, run_id="manual__2")
    assert beats(store) == [3, 3, 0]
