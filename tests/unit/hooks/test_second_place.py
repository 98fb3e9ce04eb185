"""The second place as a forked worker meets it; what goes there and comes back is in test_refreshing.py."""

from __future__ import annotations

import asyncio
import multiprocessing
import time

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow.sdk import Variable
from asgiref.sync import sync_to_async

from airflow_oauth_guard.hooks import second_place

# From Python 3.12 on a fork warns where threads run, which is the point here.
pytestmark = [
    pytest.mark.airflow,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def _look() -> None:
    assert asyncio.run(second_place.look(second_place.name("crm", "token", 1))) is None


def test_a_worker_that_was_forked_beside_asgirefs_thread_does_not_wait_for_it():
    """Airflow forks its tasks. The thread that asgiref shares stays behind, and what waits for it waits for ever."""

    async def begin_the_thread() -> None:
        await sync_to_async(lambda: None)()

    asyncio.run(begin_the_thread())
    child = multiprocessing.get_context("fork").Process(target=_look)
    child.start()
    child.join(30)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()


def test_airflow_is_asked_one_thing_at_a_time(monkeypatch):
    """A batch of refreshes loses the store together, and Airflow's connection to its supervisor is one."""
    asking: list[str] = []

    def get(variable: str, default: None) -> str:
        asking.append(variable)
        time.sleep(0.02)
        assert asking == [variable]
        return asking.pop()

    monkeypatch.setattr(Variable, "get", get)

    async def look_at_once() -> list[str | None]:
        return await asyncio.gather(*(second_place.look(f"variable {n}") for n in range(5)))

    assert asyncio.run(look_at_once()) == [f"variable {n}" for n in range(5)]
