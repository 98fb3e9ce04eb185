from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.schedule import ASSUMED_LIFETIME, FIRST_BACKOFF, LONGEST_BACKOFF, Life, next_attempt
from tests.unit.domain.builders import DAY, HOUR, MINUTE, NOW, SECOND

LIFETIMES = st.timedeltas(SECOND, 3650 * DAY)
MARGINS = st.timedeltas(SECOND, 60 * DAY)


def life(lifetime: timedelta | None, margin: timedelta = 10 * MINUTE, *, at_half_life: bool = False) -> Life:
    return Life(NOW, NOW + lifetime if lifetime is not None else None, margin, at_half_life)


def test_a_credential_without_a_token_is_due_at_once_and_has_no_life():
    nothing = Life(None, None, 10 * MINUTE)
    assert nothing.due_at is None
    assert nothing.is_due(NOW)
    assert nothing.remaining(NOW) == timedelta()
    assert nothing.inside_margin(NOW)


@pytest.mark.rfc("6749", "5.1")
def test_a_token_of_unknown_lifetime_is_taken_for_a_short_one():
    assert life(None).lapses_at == NOW + ASSUMED_LIFETIME


def test_a_refresh_starts_two_margins_before_the_end():
    assert life(HOUR).due_at == NOW + 40 * MINUTE
    assert not life(HOUR).is_due(NOW + 40 * MINUTE - SECOND)
    assert life(HOUR).is_due(NOW + 40 * MINUTE)


def test_a_short_lived_token_is_not_refreshed_without_pause():
    assert life(6 * MINUTE).due_at == NOW + 3 * MINUTE


def test_a_token_that_must_be_alive_to_be_renewed_is_due_at_half_its_life():
    assert life(60 * DAY, DAY, at_half_life=True).due_at == NOW + 30 * DAY
    assert life(60 * DAY, 25 * DAY, at_half_life=True).due_at == NOW + 10 * DAY


@given(LIFETIMES, MARGINS)
def test_a_refresh_is_due_in_the_second_half_of_a_life_and_before_its_end(lifetime, margin):
    one = life(lifetime, margin)
    assert NOW + lifetime / 2 <= one.due_at < one.lapses_at


@given(LIFETIMES, MARGINS)
def test_a_refresh_that_needs_a_live_token_never_waits_beyond_half_its_life(lifetime, margin):
    assert life(lifetime, margin, at_half_life=True).due_at <= NOW + lifetime / 2


@given(LIFETIMES, MARGINS, st.timedeltas(timedelta(), 4000 * DAY))
def test_somebody_has_to_look_only_after_a_refresh_was_due_and_always_at_the_end(lifetime, margin, passed):
    one, now = life(lifetime, margin), NOW + passed
    if one.inside_margin(now):
        assert one.is_due(now)
    if now >= one.lapses_at:
        assert one.inside_margin(now)
        assert one.remaining(now) == timedelta()


def test_a_fresh_short_lived_token_raises_no_alarm_for_being_short_lived():
    assert not life(6 * MINUTE).inside_margin(NOW)
    assert life(6 * MINUTE).inside_margin(NOW + 5 * MINUTE)


def test_backoff_doubles_up_to_its_limit():
    waits = [next_attempt(NOW, failures, None) - NOW for failures in range(1, 9)]
    assert waits == [
        5 * MINUTE,
        10 * MINUTE,
        20 * MINUTE,
        40 * MINUTE,
        *[HOUR] * 4,
    ]


@given(st.integers(1, 10**6), st.none() | st.timedeltas(timedelta(), DAY))
def test_no_number_of_failures_stops_the_asking_and_the_provider_sets_a_lower_bound(failures, asked):
    wait = next_attempt(NOW, failures, asked) - NOW
    assert timedelta() < wait <= max(LONGEST_BACKOFF, asked or timedelta())
    assert wait >= (asked or timedelta())


def test_a_retry_after_beyond_the_calendar_still_gives_an_instant():
    """`Retry-After: 999999999999` is a valid header; giving up on it would leave the failure unrecorded."""
    assert next_attempt(NOW, 1, timedelta(seconds=999_999_999_999)) >= NOW + FIRST_BACKOFF
