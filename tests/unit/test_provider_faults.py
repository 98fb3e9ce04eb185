"""What becomes of a credential when the network or a gateway fails under a refresh, against the real server.

Every case checks the laws: no status is ever ``expired``; whoever recovers has tokens that the server accepts; a token
that may be spent is not sent again while the access token lives; a lost answer is told at once, by its own name. The
whole table, with all classes x all faults, takes minutes: ``python -m tests.faults.providers``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from tests.faults.providers import FAULTS, LOOKS_LOST, PROVIDERS, SPENDS, Case, Row, World, as_markdown

pytestmark = [pytest.mark.airflow, pytest.mark.any_airflow]

BY_NAME = {provider.name: provider for provider in PROVIDERS}
ROTATING, *OTHERS = BY_NAME
OF_EACH_SORT = ("refused", "reset_after", "cut_json", "503", "portal_html")
CASES = [*((fault, ROTATING) for fault in FAULTS), *((fault, other) for other in OTHERS for fault in OF_EACH_SORT)]

Outcome = Callable[[str, str], Row]


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """What becomes of a provider's connection under a fault; each case happens once."""
    with World() as world:
        yield cache(lambda fault, provider: Case(world, fault, BY_NAME[provider]).run())


@pytest.mark.parametrize(("fault", "provider"), CASES)
def test_no_fault_is_taken_for_a_death_and_each_ends_with_tokens_that_work_or_with_an_alarm(fault, provider, outcome):
    row = outcome(fault, provider)
    assert row.statuses.startswith("active")
    assert row.stored_token == ("refused" if row.recovery == "needs reconnecting" else "accepted")


def test_a_reset_after_the_token_was_spent_is_told_at_once_and_needs_a_person(outcome):
    row = outcome("reset_after", ROTATING)
    assert (row.incident, row.person, row.recovery) == ("ambiguous", "at once", "needs reconnecting")


def test_a_reset_before_the_token_was_spent_looks_the_same_and_ends_well_with_the_access_tokens_life(outcome):
    row = outcome("reset_before", ROTATING)
    assert (row.incident, row.person) == ("ambiguous", "at once")
    assert row.recovery == "the last resort, at the access token's end, 20 min later"
    assert row.sent == 2


@pytest.mark.parametrize("fault", ["reset_after", "cut_json"])
def test_in_a_documented_grace_window_a_lost_answer_is_asked_for_again_at_once(fault, outcome):
    row = outcome(fault, "refresh_token, rotation, grace, fault once")
    assert (row.refresh, row.incident, row.sent) == ("renewed", "none", 2)


def test_a_provider_that_rotates_nothing_is_simply_asked_again(outcome):
    row = outcome("reset_after", "refresh_token, no rotation")
    assert (row.incident, row.person) == ("provider_outage", "after the margin")
    assert row.recovery == "a next try, 5 min later"


def test_every_fault_and_every_connection_class_is_in_the_table():
    assert SPENDS < LOOKS_LOST < set(FAULTS)
    assert set(OF_EACH_SORT) < set(FAULTS)
    classes = {provider.connection_class for provider in PROVIDERS}
    assert classes == {"refresh_token", "client_credentials", "jwt_bearer", "meta_exchange", "instagram_refresh"}


def test_the_table_names_providers_together_for_which_a_fault_ended_alike():
    row = Row("503", "a", "failed", "outage", "active", "outage", "at once", 2, "a next try", "accepted")
    lines = as_markdown([row, replace(row, provider="b"), replace(row, provider="c", sent=3)]).splitlines()
    assert lines[0].startswith("| fault | provider | refresh | finding |")
    assert [line.split(" | ")[1] for line in lines[2:]] == ["a; b", "c"]
