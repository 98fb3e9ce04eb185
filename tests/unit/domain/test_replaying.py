from __future__ import annotations

import io
import random
import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.replaying import Episode, read_history, replay
from airflow_oauth_guard.domain.sources import Source, SqlCount
from airflow_oauth_guard.domain.windows import Cron, Learned, Window
from airflow_oauth_guard.errors import ConfigurationError
from tests.unit.domain.builders import DAY, HOUR, MINUTE

LATE, FLAT, STUCK = IncidentKind.LATE, IncidentKind.FLAT, IncidentKind.STUCK
START = datetime(2026, 1, 5, tzinfo=timezone.utc)
"""A Monday."""


def at(hours: float) -> datetime:
    return START + hours * HOUR


def hourly(hours: int, *, without: range = range(0), empty: range = range(0), same: range = range(0)) -> list[Beat]:
    """Loads seven minutes past each hour, with an outage."""
    dice = random.Random(5)
    rows = [0 if hour in empty else 77 if hour in same else dice.randrange(50, 5000) for hour in range(hours)]
    return [Beat(at(hour) + 7 * MINUTE, rows[hour]) for hour in range(hours) if hour not in without]


def spans(episodes: list[Episode]) -> list[tuple[IncidentKind, datetime, datetime | None]]:
    return [(episode.kind, episode.opened, episode.resolved) for episode in episodes]


# -- episodes ---------------------------------------------------------------------------------------------------------


def test_a_gap_in_an_hourly_source_opens_one_late_episode_and_the_first_heartbeat_ends_it():
    beats = hourly(500, without=range(101, 160))
    (episode,) = replay(Source("orders", DAY), beats)
    # The last load was at 100:07, so its day is over at 124:07, and the check of 125:00 sees it.
    assert (episode.kind, episode.opened, episode.resolved) == (LATE, at(125), at(161))
    assert episode.source == "orders"
    assert episode.explanation.startswith("No run reported within 1 d; the last was at 2026-01-09 04:07:00Z")


def test_loads_without_rows_open_a_flat_episode_that_rows_end():
    (episode,) = replay(Source("orders", 6 * HOUR), hourly(200, empty=range(101, 130)))
    assert (episode.kind, episode.opened, episode.resolved) == (FLAT, at(107), at(131))
    assert "ran and moved 0 rows" in episode.explanation


def test_the_same_number_again_and_again_opens_a_stuck_episode_that_another_number_ends():
    (episode,) = replay(Source("orders", 6 * HOUR, stuck_after=4), hourly(200, same=range(101, 130)))
    assert (episode.kind, episode.opened, episode.resolved) == (STUCK, at(105), at(131))


def test_an_hourly_schedule_notices_the_first_load_that_is_missing():
    source = Source("orders", Cron(("0 * * * *",), 30 * MINUTE))
    assert spans(replay(source, hourly(200, without=range(101, 110)))) == [(LATE, at(102), at(111))]
    assert spans(replay(source, hourly(200, without=range(101, 110)), step=15 * MINUTE)) == [
        (LATE, at(101.5), at(110.25))
    ]


def test_a_silence_that_turns_into_loads_without_rows_stays_one_episode():
    beats = hourly(200, without=range(101, 120), empty=range(120, 130))
    assert spans(replay(Source("orders", 6 * HOUR), beats)) == [(LATE, at(107), at(131))]


def test_a_history_that_ends_within_an_outage_has_an_episode_without_end():
    beats = hourly(100)
    assert replay(Source("orders", 6 * HOUR), beats) == []
    assert spans(replay(Source("orders", 6 * HOUR), beats, until=at(120))) == [(LATE, at(106), None)]


def test_what_comes_after_the_end_is_not_heard():
    beats = hourly(200, without=range(101, 120))
    assert replay(Source("orders", 6 * HOUR), beats, until=at(105)) == []


def test_an_empty_history_has_no_episodes():
    assert replay(Source("orders", DAY), []) == []
    assert replay(Source("orders", DAY), hourly(5), until=at(-5)) == []


def test_a_quiet_source_raises_no_alarm_in_eight_weeks():
    assert replay(Source("orders", Learned()), hourly(8 * 7 * 24)) == []


def test_an_outage_is_noticed_by_what_was_learned_from_the_weeks_before():
    beats = hourly(6 * 7 * 24, without=range(700, 740))
    (episode,) = replay(Source("orders", Learned()), beats)
    assert episode.kind is LATE
    assert at(701) <= episode.opened <= at(712)
    assert episode.resolved == at(741)


def test_a_history_is_replayed_by_its_heartbeats_whatever_the_source_would_ask():
    beats = hourly(500, without=range(101, 160))
    source = Source("orders", DAY, measure=SqlCount("warehouse", "select 1"))
    assert replay(source, beats) == replay(Source("orders", DAY), beats)


# -- laws -------------------------------------------------------------------------------------------------------------

WINDOWS: tuple[Window, ...] = (5 * HOUR, Cron(("0 * * * *",), HOUR), Learned(fallback=5 * HOUR))


TROUBLES = st.lists(
    st.tuples(st.sampled_from(("gone", "empty", "unknown", "same")), st.integers(1, 500), st.integers(1, 40)),
    min_size=1,
    max_size=3,
)


def troubled(troubles: list[tuple[str, int, int]]) -> list[Beat]:
    """Three weeks of an hourly source, with stretches of each kind of trouble."""
    beats = hourly(24 * 7 * 3)
    for trouble, start, length in troubles:
        hit = beats[start : start + length]
        rows = {"empty": 0, "unknown": None, "same": 5}
        beats[start : start + length] = [] if trouble == "gone" else [Beat(beat.at, rows[trouble]) for beat in hit]
    return beats


@settings(max_examples=25, deadline=None)
@given(TROUBLES, st.sampled_from(WINDOWS), st.none() | st.just(4))
def test_an_episode_does_not_depend_on_what_came_after_it_opened(troubles, window, stuck_after):
    source, beats = Source("orders", window, stuck_after=stuck_after), troubled(troubles)
    for episode in replay(source, beats):
        past = [beat for beat in beats if beat.at <= episode.opened]
        again = replay(source, past, until=episode.opened)[-1]
        assert (again.kind, again.opened, again.explanation) == (episode.kind, episode.opened, episode.explanation)
        assert again.resolved is None


@settings(max_examples=25, deadline=None)
@given(TROUBLES, st.sampled_from(WINDOWS))
def test_episodes_of_one_source_follow_each_other(troubles, window):
    episodes = replay(Source("orders", window), troubled(troubles))
    for earlier, later in pairwise(episodes):
        assert earlier.resolved is not None
        assert earlier.opened < earlier.resolved <= later.opened
    assert all((episode.opened - START) % HOUR == timedelta() for episode in episodes)


# -- histories --------------------------------------------------------------------------------------------------------


def read(text: str) -> dict[str, list[Beat]]:
    return read_history(io.StringIO(text))


def test_a_history_of_two_sources_keeps_them_apart():
    histories = read(
        "source,time,rows\norders,2026-01-05T00:00:00Z,5\nusers,2026-01-05T00:00:00Z,0\norders,2026-01-05T01:00:00Z,6\n"
    )
    assert histories == {"orders": [Beat(at(0), 5), Beat(at(1), 6)], "users": [Beat(at(0), 0)]}
    beats = {"orders": hourly(100, without=range(20, 60)), "users": hourly(100)}
    assert [len(replay(Source(name, 6 * HOUR), beats[name])) for name in ("orders", "users")] == [1, 0]


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05T01:00:00Z",
        "2026-01-05T01:00:00+00:00",
        "2026-01-05T02:00:00+01:00",
        "2026-01-04 20:00:00-05:00",
        "2026-01-05T01:00:00",
        "2026-01-05 01:00",
        " 2026-01-05T01:00:00Z ",
    ],
)
def test_a_time_has_a_z_or_an_offset_or_is_utc(text):
    assert read(f"source,time,rows\norders,{text},5\n") == {"orders": [Beat(at(1), 5)]}


def test_a_history_may_come_from_a_spreadsheet():
    text = '\ufeff"source", "time", "rows", "comment"\r\n"orders", "2026-01-05T01:00:00Z", "5.0", "fine"\r\n\r\n'
    assert read(text) == {"orders": [Beat(at(1), 5)]}


def test_rows_that_are_not_given_are_unknown_and_not_zero():
    assert [beat.rows for beat in read("source,time,rows\na,2026-01-05,\na,2026-01-06\na,2026-01-07, \n")["a"]] == [
        None
    ] * 3


def test_lines_may_come_in_any_order():
    text = "time,rows,source\n2026-01-05T02:00:00Z,3,a\n2026-01-05T00:00:00Z,1,a\n2026-01-05T01:00:00Z,2,a\n"
    assert [beat.rows for beat in read(text)["a"]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column `rows`"),
        ("source,time\na,2026-01-05\n", "no column `rows`; it needs source, time and rows"),
        ("name,time,rows\na,2026-01-05,1\n", "no column `source`"),
        ("source,time,rows\na,2026-01-05,1\na,2026-01-06,many\n", "Line 3 of the history: `rows` is 'many'"),
        ("source,time,rows\na,2026-01-05,-1\n", "Line 2 of the history: `rows` is '-1'"),
        ("source,time,rows\na,2026-01-05,1.5\n", "Line 2 of the history: `rows` is '1.5'"),
        ("source,time,rows\na,2026-01-05,nan\n", "`rows` is 'nan'; write a whole number"),
        ("source,time,rows\n\n\na,5 o'clock,1\n", 'Line 4 of the history: `time` is "5 o\'clock"'),
        ("source,time,rows\na,,1\n", "Line 2 of the history: `time` is ''"),
        ("source,time,rows\na\n", "Line 2 of the history: `time` is ''"),
        ("source,time,rows\n,2026-01-05,1\n", "Line 2 of the history names no source"),
    ],
)
def test_a_history_that_cannot_be_read_is_refused_with_the_line(text, says):
    with pytest.raises(ConfigurationError, match=says):
        read(text)


# -- speed ------------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_lines_are_read_in_a_few_seconds():
    lines = "".join(
        f"source-{number % 50},{at(number // 50):%Y-%m-%dT%H:%M:%SZ},{number}\n" for number in range(100_000)
    )
    started = time.process_time()
    assert len(read(f"source,time,rows\n{lines}")) == 50
    assert time.process_time() - started < 5


@pytest.mark.parametrize("window", [DAY, Cron(("0 * * * *",), HOUR)])
def test_eight_weeks_of_an_hourly_source_are_replayed_in_no_time(window):
    beats = hourly(8 * 7 * 24)
    started = time.process_time()
    assert replay(Source("orders", window), beats) == []
    assert time.process_time() - started < 2, "usually a tenth of that"
