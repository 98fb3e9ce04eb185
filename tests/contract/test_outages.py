"""The store stops in the middle of a refresh, really; see :mod:`tests.faults.outages` for the large version."""

from __future__ import annotations

import pytest

from tests.faults import outages
from tests.faults.databases import SERVERS, UnavailableError

# `dag.test()` runs Airflow's API server in this process, and what that imports warns about itself.
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore")]

KILLED_AT = ("before the answer is kept",)
"""Where the next run is killed as well, when it has taken the answer in and not yet deleted the Variable."""


@pytest.mark.parametrize("database", SERVERS)
def test_no_answer_is_lost_with_the_store_and_taking_it_in_twice_changes_nothing(database):
    try:
        seen = outages.run(database, 1, killed_at=KILLED_AT)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert [problem for one in seen for problem in one.problems] == []
    assert {one.moment for one in seen} == set(outages.MOMENTS)
    assert {one.moment for one in seen if one.killed_taking_in} == set(KILLED_AT)
