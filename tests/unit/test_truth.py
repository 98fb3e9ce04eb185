from __future__ import annotations

import pytest

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.catalog.explaining import explain
from tests.truth.score import DEAD, NOW, SETS, read_set, score, with_catalog

pytestmark = pytest.mark.any_airflow

EVERYTHING = [answer for name in SETS for answer in read_set(name)]
READ = with_catalog(Catalog())


def test_no_answer_whose_grant_was_alive_and_that_means_something_else_is_read_as_a_dead_grant():
    assert not [a.id for a in EVERYTHING if READ(a) == DEAD and a.finding != DEAD and a.grant_alive is True]


def test_nine_of_ten_dead_grants_are_named_by_token_endpoints_answers():
    assert score((a for a in EVERYTHING if a.is_refresh), READ).recall(DEAD) >= 0.9


@pytest.mark.parametrize("name", SETS)
def test_more_than_85_of_100_answers_are_read_as_their_sources_say(name):
    assert score(read_set(name), READ).right >= 0.85


def test_no_answer_is_enough_for_the_guard_to_declare_a_death():
    assert not [a.id for a in EVERYTHING if explain(a.given, Catalog(), NOW).sufficient]


def test_a_sign_of_life_is_never_read_into_a_refusal():
    assert not [
        a.id for a in EVERYTHING if READ(a) == "live" and a.finding != "live" and (a.given.http_status or 0) >= 300
    ]


def test_every_answer_of_every_set_has_a_source_and_a_name_of_its_own():
    ids = [a.id for a in EVERYTHING]
    assert len(ids) == len(set(ids))
