"""Many processes want one credential at once, on every database; see :mod:`tests.faults.races` for the large version."""

from __future__ import annotations

import pytest

from tests.faults import races
from tests.faults.databases import NAMES, UnavailableError

# From Python 3.12 on a fork warns where threads run; those that an earlier test left hold nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

PROCESSES = 20


def race(database: str, **changes) -> races.Race:
    try:
        return races.run(database, **{"processes": PROCESSES, "rounds": 2, **changes})
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("way", races.WAYS)
@pytest.mark.parametrize("database", NAMES)
def test_the_provider_is_asked_once_and_every_process_has_its_answer(database, way):
    seen = race(database, way=way)
    assert seen.problems == []
    assert [one.token_requests for one in seen.rounds] == [1, 1]
    assert [one.generations for one in seen.rounds] == [1, 1]


def test_one_process_renews_and_the_others_find_it_done():
    (seen,) = race("sqlite", rounds=1).rounds
    assert seen.outcomes == {"fresh": PROCESSES - 1, "renewed": 1}


def test_a_crowded_sqlite_store_says_that_it_is_time_for_postgresql():
    seen = race("sqlite", processes=5, rounds=1, hold=1.5)
    assert seen.problems == []
    assert any("PostgreSQL" in advice and "store_conn_id" in advice for advice in seen.advice), seen.advice
