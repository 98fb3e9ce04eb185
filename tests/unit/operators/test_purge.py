from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow_oauth_guard.domain.evidence import Finding, Kind, Observer, Subject
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.operators.purge import PurgeOperator, configured_retention
from airflow_oauth_guard.store.upkeep import Retention
from tests.airflow_parts import HOUR, enrolled, evidence_of, rows, task_context, utcnow

pytestmark = pytest.mark.airflow


def purge() -> dict[str, int]:
    return PurgeOperator(task_id="purge").execute(task_context("purge"))


def history(store, *ages: int) -> None:
    """Evidence and heartbeats of these ages in days."""
    credential = enrolled(store)
    store.sources.register([Source("contacts", HOUR)], utcnow())
    for days in ages:
        at = utcnow() - timedelta(days=days)
        seen = evidence_of(Kind.PROBE, Finding.UNKNOWN, Subject.ACCESS_TOKEN, credential)
        store.credentials.record(credential, replace(seen, observed_at=at), at)
        store.sources.beat("contacts", 1, at, Observer())
    # Of a source that is watched the newest would stay, for its lessons.
    store.sources.forget("contacts")


def left(store) -> tuple[int, int]:
    return len(rows(store, "oauth_guard_evidence")), len(rows(store, "oauth_guard_heartbeats"))


def test_what_is_older_than_ninety_days_goes_and_the_counts_are_returned(store):
    history(store, 200, 91, 89, 1)
    assert purge() == {
        "investigations": 0,
        "evidence": 2,
        "intents": 0,
        "authorizations": 0,
        "heartbeats": 2,
        "consumers": 0,
    }
    assert left(store) == (2, 2)
    assert set(purge().values()) == {0}


def test_each_retention_is_an_option(store, monkeypatch):
    history(store, 200, 91, 40, 1)
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__EVIDENCE_RETENTION_DAYS", "150")
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__HEARTBEAT_RETENTION_DAYS", "7")
    assert purge() == {
        "investigations": 0,
        "evidence": 1,
        "intents": 0,
        "authorizations": 0,
        "heartbeats": 3,
        "consumers": 0,
    }
    assert left(store) == (3, 1)


def test_the_default_is_ninety_days():
    assert configured_retention() == Retention() == Retention(timedelta(days=90), timedelta(days=90))


@pytest.mark.parametrize("name", ["EVIDENCE_RETENTION_DAYS", "HEARTBEAT_RETENTION_DAYS"])
@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "90.5", "nan", "1e3", "36501", "٩٠"])
def test_what_is_no_number_of_days_is_refused_with_its_options_name_and_nothing_goes(store, monkeypatch, name, value):
    history(store, 200, 91)
    monkeypatch.setenv(f"AIRFLOW__OAUTH_GUARD__{name}", value)
    with pytest.raises(ConfigurationError, match=f"{name.lower()}` is .*whole number of days"):
        purge()
    assert left(store) == (2, 2)


@pytest.mark.parametrize("value", ["29", "1"])
def test_evidence_is_kept_for_thirty_days_at_least(store, monkeypatch, value):
    history(store, 200, 91)
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__EVIDENCE_RETENTION_DAYS", value)
    with pytest.raises(ConfigurationError, match=f"evidence_retention_days` is {value}; write 30 or more"):
        purge()
    assert left(store) == (2, 2)


def test_counts_are_logged(store, capsys, caplog):
    history(store, 200, 91)
    with caplog.at_level("INFO"):
        purge()
    # Outside a task, Airflow prints what it logs or hands it to logging, depending on the release.
    assert "evidence: 1 rows deleted" in capsys.readouterr().out + caplog.text
