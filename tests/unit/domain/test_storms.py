from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.sources import AssetEvents, Source, SqlCount
from airflow_oauth_guard.domain.storms import NAMES_LISTED, STORM, Quiet, causes_of, is_everything, listed, storms

DAY = timedelta(days=1)


def quiet(name: str, *causes: str) -> Quiet:
    return Quiet(name, IncidentKind.LATE, causes)


def some(count: int, *causes: str, prefix: str = "s") -> list[Quiet]:
    return [quiet(f"{prefix}{number}", *causes) for number in range(count)]


# -- what they have in common -----------------------------------------------------------------------------------------


def test_a_silence_may_come_from_its_credential_or_its_dag():
    source = Source("contacts", DAY, credential="crm")
    assert causes_of(source, IncidentKind.LATE, "load_crm") == ("credential crm", "DAG load_crm")
    assert causes_of(Source("contacts", DAY), IncidentKind.FLAT, None) == ()


def test_what_could_not_be_measured_has_its_database_for_a_cause_and_not_its_credential():
    source = Source("contacts", DAY, credential="crm", measure=SqlCount("warehouse", "SELECT 1"))
    assert causes_of(source, IncidentKind.UNMEASURED, "load_crm") == ("database warehouse",)
    assert causes_of(Source("c", DAY, measure=AssetEvents("a")), IncidentKind.UNMEASURED, None) == ()


# -- one alert --------------------------------------------------------------------------------------------------------


def test_300_sources_on_one_credential_are_one():
    found = storms([*some(300, "credential crm"), *some(3, "credential ads", prefix="a")])
    assert {cause: len(names) for cause, names in found.items()} == {"credential crm": 300}


@pytest.mark.parametrize(("count", "together"), [(STORM - 1, False), (STORM, True)])
def test_a_few_are_told_one_by_one(count, together):
    assert bool(storms(some(count, "credential crm"))) is together


def test_the_cause_that_explains_most_is_told_and_each_source_in_one_group_only():
    sources = [*some(6, "credential crm", "DAG load"), *some(5, "credential ads", "DAG load", prefix="a")]
    assert {cause: len(names) for cause, names in storms(sources).items()} == {"DAG load": 11}


def test_what_the_larger_cause_leaves_over_is_grouped_by_its_own():
    sources = [*some(7, "credential crm", "DAG load"), *some(5, "credential ads", prefix="a")]
    found = storms(sources)
    assert sorted(found) == ["credential ads", "credential crm"]


def test_one_more_joins_what_is_open_already():
    assert storms(some(1, "credential crm"), already=["credential crm"]) == {"credential crm": ["s0"]}
    assert storms(some(1, "credential ads"), already=["credential crm"]) == {}


# -- everything -------------------------------------------------------------------------------------------------------


def unrelated(count: int) -> list[Quiet]:
    return [quiet(f"s{number}", f"credential {number}") for number in range(count)]


@pytest.mark.parametrize(
    ("missing", "spoke", "everything"), [(60, 40, True), (50, 50, False), (40, 60, False), (5, 0, True), (4, 0, False)]
)
def test_most_of_what_was_expected_missing_at_once_says_nothing_of_any_one(missing, spoke, everything):
    assert is_everything(unrelated(missing), spoke) is everything


def test_one_cause_that_they_share_is_no_matter_of_the_whole_platform():
    assert not is_everything(some(60, "credential crm"), spoke=10)
    assert is_everything([*some(30, "credential crm"), *unrelated(30)], spoke=10)


def test_a_list_for_a_message_has_an_end():
    assert listed(["b", "a"]) == "`a`, `b`"
    assert listed([f"{number:03}" for number in range(NAMES_LISTED + 7)]).endswith("`049` and 7 more")
