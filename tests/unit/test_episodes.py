"""Any interleaving of refreshes, crashes, clocks and providers keeps the promises; and the search for one that does not
would find it: each old sin, put back, is found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from airflow_oauth_guard.domain.evidence import Finding, Kind, Reading, Subject, Verdict
from airflow_oauth_guard.hooks.refreshing import Refresh
from airflow_oauth_guard.store import journal
from airflow_oauth_guard.store.credentials import Credentials
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.tables import tokens
from tests.faults.episodes import Summary, Tally, as_markdown, found, run

pytestmark = pytest.mark.any_airflow


ATTEMPTS = (3, 1, 2, 4, 5)
"""Seeds; 70 episodes each."""


@pytest.fixture(scope="module")
def summary() -> Summary:
    return run(episodes=200, seed=20260301)


def test_no_interleaving_breaks_a_promise(summary: Summary) -> None:
    assert not summary.violations, as_markdown(summary)
    assert summary.tally.false_expiries == 0
    assert summary.tally.tokens_lost == 0


def test_the_episodes_are_not_idle(summary: Summary) -> None:
    tally = summary.tally
    for what in ("refreshes", "crashes", "deaths", "expiries", "lost_answers", "ambiguous", "waited"):
        assert getattr(tally, what) > 0, f"no episode had {what}:\n{as_markdown(summary)}"


# -- the old sins -----------------------------------------------------------------------------------------------------


def a_failed_refresh_means_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the incident was: a catch block that wrote a guess down as fact."""
    fail = Credentials.fail

    def fail_and_expire(self: Credentials, lease: Any, intent_id: Any, seen: Any, *, now: Any, **more: Any) -> Any:
        recorded = fail(self, lease, intent_id, seen, now=now, **more)
        guess = Reading(Subject.GRANT, Finding.GRANT_DEAD, "guessed", "the refresh failed")
        said = self.record(lease.credential, replace(seen, kind=Kind.PERSON, reading=guess, verdict=Verdict.DEAD), now)
        self.expire(lease.credential.conn_id, said.id, seen.observer, now)
        return recorded

    monkeypatch.setattr(Credentials, "fail", fail_and_expire)


def a_token_that_may_be_spent_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Refresh, lease: Any) -> None:
        return None

    monkeypatch.setattr(Refresh, "_protect", never)


def nobody_takes_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor asks the journal what is under way, which guards the same thing."""
    lease, unsettled = Credentials.lease, journal.unsettled

    def over(*args: Any) -> Any:
        return [intent for intent in unsettled(*args) if intent.outcome is not None]

    def shared(self: Credentials, *args: Any) -> Any:
        with self._database.write() as connection:
            connection.execute(update(tokens).values(lease_owner=None, lease_until=None))
        return lease(self, *args)

    monkeypatch.setattr(Credentials, "lease", shared)
    monkeypatch.setattr(Credential, "is_leased", lambda self, now: False)
    monkeypatch.setattr(journal, "unsettled", over)


def an_answer_is_parsed_before_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Credentials, "keep_answer", lambda self, intent_id, sealed: None)


@pytest.mark.parametrize(
    ("sin", "breaks"),
    [
        (a_failed_refresh_means_expired, "the provider holds the grant alive"),
        (a_token_that_may_be_spent_is_sent_again, "was sent again"),
        (nobody_takes_a_lease, "two workers send|a rotated token was used again"),
        (an_answer_is_parsed_before_it_is_kept, "had reached us"),
    ],
)
def test_an_old_sin_put_back_is_found(
    sin: Callable[[pytest.MonkeyPatch], None], breaks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sin(monkeypatch)
    tally = Tally()
    broken = next(filter(None, (found(70, attempt, tally) for attempt in ATTEMPTS)), "")
    assert re.search(breaks, broken), f"{tally.episodes} episodes found {broken or 'nothing'}"
