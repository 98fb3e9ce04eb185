from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from airflow_oauth_guard.domain.evidence import (
    TRANSIENT,
    Evidence,
    Finding,
    Observer,
    Reading,
    Shape,
    Subject,
    Verdict,
    as_columns,
)
from tests.unit.domain.builders import MINUTE, NOW, SECOND, SHAPE, refreshed, refusal


@pytest.mark.parametrize("finding", Finding)
@pytest.mark.parametrize("subject", Subject)
def test_one_reading_can_show_life_and_never_death(finding, subject):
    verdict = Reading(subject, finding, "rule", "explanation").verdict
    assert verdict is (Verdict.LIVE if finding is Finding.LIVE else Verdict.OPEN)


def test_nothing_that_time_may_cure_speaks_of_a_token():
    assert not {Finding.GRANT_DEAD, Finding.ACCESS_TOKEN_DEAD, Finding.LIVE} & TRANSIENT


@pytest.mark.parametrize("name", [field.name for field in fields(Shape)])
def test_a_shape_that_differs_anywhere_is_another_shape(name):
    """A shape that has succeeded vouches for this one, so a missed difference would vouch for the wrong request."""
    other = replace(SHAPE, **{name: ("other",) if name == "parameters" else "other"})
    assert other.id != SHAPE.id


def test_a_shape_is_the_same_in_every_process():
    assert SHAPE.id == replace(SHAPE).id
    assert (
        Shape(**{**json.loads(SHAPE.as_json()), "parameters": tuple(json.loads(SHAPE.as_json())["parameters"])})
        == SHAPE
    )


def test_parameters_are_kept_apart_in_the_shape():
    assert replace(SHAPE, parameters=("a", "b")).id != replace(SHAPE, parameters=("a, b",)).id


def test_evidence_becomes_a_flat_row_that_keeps_everything():
    row = as_columns(
        replace(
            refreshed(refusal("invalid_grant", "revoked")),
            headers={"date": "today"},
            skew=-90 * SECOND,
            rests_on=(3, 5),
            retry_after=2 * MINUTE,
            observer=Observer("dag", "run", "task", 4, 2, "ada"),
            investigation_id=9,
        )
    )
    assert row["finding"] == "grant_dead"
    assert row["verdict"] == "open"
    assert row["shape_id"] == SHAPE.id
    assert json.loads(row["shape"])["parameters"] == ["grant_type", "refresh_token"]
    assert json.loads(row["headers"]) == {"date": "today"}
    assert json.loads(row["rests_on"]) == [3, 5]
    assert (row["skew_seconds"], row["retry_after_seconds"]) == (-90.0, 120.0)
    who = [row[name] for name in ("dag_id", "run_id", "task_id", "map_index", "try_number", "person")]
    assert who == ["dag", "run", "task", 4, 2, "ada"]
    assert row["investigation_id"] == 9
    assert all(value is None or isinstance(value, (str, int, float, type(NOW))) for value in row.values())


def test_a_clock_without_skew_is_not_an_unknown_skew():
    evidence = refreshed(refusal("invalid_grant"))
    assert as_columns(replace(evidence, skew=0 * SECOND))["skew_seconds"] == 0.0
    assert as_columns(replace(evidence, skew=None))["skew_seconds"] is None


def test_the_sentence_carries_the_status_and_what_was_said():
    sentence = refreshed(refusal("invalid_grant", "revoked")).sentence()
    assert "400" in sentence
    assert "invalid_grant" in sentence
    assert "revoked" in sentence


def test_evidence_cannot_be_rewritten():
    evidence: Evidence = refreshed(refusal("invalid_grant"))
    with pytest.raises(AttributeError):
        evidence.verdict = Verdict.DEAD  # type: ignore[misc]


def test_an_observer_outside_airflow_is_named_too():
    assert str(Observer()) == "outside Airflow"
    assert str(Observer(task_id="import")) == "import"
    assert str(Observer("dag", "run", "task")) == "dag · run · task"


def test_a_person_is_named_with_where_they_asked():
    assert str(Observer(task_id="OAuth Guard page", person="ada")) == "ada (OAuth Guard page)"
    assert str(Observer("dag", "run", "task", person="ada")) == "ada (dag · run · task)"
    assert str(Observer(task_id="OAuth Guard page", person="")) == "OAuth Guard page"
