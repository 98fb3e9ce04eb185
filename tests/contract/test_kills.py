"""kill -9 at every point of a refresh, on every database; see :mod:`tests.faults.kills` for the large version."""

from __future__ import annotations

import pytest

from airflow_oauth_guard.domain.status import Status
from tests.faults import kills
from tests.faults.databases import NAMES, UnavailableError

# From Python 3.12 on a fork warns where threads run; those that an earlier test left hold nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

WAYS_OUT = {
    ("before the intent", False): {"asked"},
    ("after the intent", False): {"last resort"},
    ("after the call", False): {"lost"},
    ("after the answer was kept", False): {"taken in"},
    ("inside the commit", False): {"was renewed", "taken in"},
    ("before the intent", True): {"asked"},
    ("after the intent", True): {"in grace"},
    ("after the call", True): {"in grace"},
    ("after the answer was kept", True): {"taken in"},
    ("inside the commit", True): {"was renewed", "taken in"},
}
"""By point, and whether the provider grants grace. Lost is only what the provider gave to the killed process alone."""


@pytest.mark.parametrize("database", NAMES)
def test_a_killed_refresh_is_made_good_or_brought_before_a_person(database):
    try:
        seen = kills.run(database, times=1)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert [problem for one in seen for problem in one.problems] == []
    assert {(one.point, one.grace) for one in seen} == set(WAYS_OUT)
    for one in seen:
        assert set(one.ways) <= WAYS_OUT[one.point, one.grace], (one.point, one.grace, one.ways)


@pytest.mark.parametrize("database", NAMES)
def test_a_process_that_slept_through_its_lease_spends_nothing_and_loses_nothing(database):
    try:
        seen = kills.run_asleep(database)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert {(one.point, one.grace) for one in seen} == {(p, grace) for p in kills.SLEEPS for grace in (False, True)}
    for one in seen:
        assert (one.generation, one.status, one.incident) == (3, Status.ACTIVE, None), one
        assert one.holds_live_token, one
    assert {one.woke for one in seen if one.point == "before the intent"} == {"LeaseLostError"}
