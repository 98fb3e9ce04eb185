from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.flat_line import (
    Measure,
    Source,
    SourceFinding,
    SqlCount,
    judge,
    require_distinct,
    sources_from_json,
)
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.errors import ConfigurationError
from tests.unit.domain.builders import DAY, HOUR, MINUTE, NOW

BEATS = Source("orders", window=DAY)
COUNTED = Source("orders", window=DAY, count=SqlCount("warehouse", "select count(*) from orders"))
LONG_AGO = NOW - 30 * DAY


def heard(**ago: Any) -> Measure:
    """What was heard, each ``..._at`` given as how long ago."""
    given_values = {name: NOW - value if isinstance(value, timedelta) else value for name, value in ago.items()}
    return Measure(**({"registered_at": LONG_AGO} | given_values))


def found(source: Source = BEATS, **ago: Any) -> SourceFinding:
    return judge(source, heard(**ago), NOW)


# -- the four different silences ----------------------------------------------------------------------------------


def test_a_source_that_moved_rows_within_the_window_is_fine():
    assert found(last_beat_at=HOUR, last_rows_at=HOUR).kind is None


def test_a_run_that_moved_nothing_since_does_not_hide_rows_within_the_window():
    assert found(last_beat_at=MINUTE, last_zero_at=MINUTE, last_rows_at=23 * HOUR).kind is None


def test_a_source_that_ran_and_moved_nothing_is_flat():
    finding = found(last_beat_at=HOUR, last_zero_at=HOUR, last_rows_at=3 * DAY)
    assert finding.kind is IncidentKind.FLAT
    assert "ran and moved 0 rows" in finding.explanation
    assert finding.since == NOW - 2 * DAY


def test_a_source_that_did_not_run_is_late_and_not_flat():
    finding = found(last_beat_at=3 * DAY, last_rows_at=3 * DAY, last_zero_at=4 * DAY)
    assert finding.kind is IncidentKind.LATE
    assert "No run" in finding.explanation
    assert f"{NOW - 3 * DAY:%Y-%m-%d %H:%M:%S}Z" in finding.explanation
    assert finding.since == NOW - 2 * DAY


def test_a_source_that_never_spoke_is_late():
    finding = found()
    assert finding.kind is IncidentKind.LATE
    assert "none was ever heard" in finding.explanation
    assert finding.since == LONG_AGO + DAY


def test_a_run_that_never_says_how_many_rows_it_moved_is_neither_fine_nor_flat():
    finding = found(last_beat_at=HOUR)
    assert finding.kind is IncidentKind.UNMEASURED
    assert "how many rows" in finding.explanation


def test_a_zero_from_before_the_window_does_not_make_an_unknown_run_flat():
    assert found(last_beat_at=HOUR, last_zero_at=3 * DAY, last_rows_at=4 * DAY).kind is IncidentKind.UNMEASURED


# -- the destination ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "beats",
    [
        {},
        {"last_beat_at": HOUR, "last_rows_at": HOUR},
        {"last_beat_at": HOUR, "last_zero_at": HOUR},
        {"registered_at": MINUTE},
    ],
)
def test_a_destination_that_cannot_be_counted_is_never_zero_and_never_fine(beats):
    finding = found(COUNTED, problem="OperationalError: no such table", **beats)
    assert finding.kind is IncidentKind.UNMEASURED
    assert "no such table" in finding.explanation


def test_a_destination_nobody_counted_is_not_taken_for_an_empty_one():
    finding = found(COUNTED, counted=None, last_beat_at=HOUR, last_rows_at=3 * DAY)
    assert finding.kind is IncidentKind.UNMEASURED


def test_rows_at_the_destination_are_enough_whatever_the_heartbeats_say():
    assert found(COUNTED, counted=7).kind is None
    assert found(COUNTED, counted=7, last_beat_at=HOUR, last_zero_at=HOUR).kind is None


def test_an_empty_destination_is_flat_although_the_run_claims_rows():
    finding = found(COUNTED, counted=0, last_beat_at=HOUR, last_rows_at=HOUR)
    assert finding.kind is IncidentKind.FLAT
    assert "destination holds 0" in finding.explanation
    assert finding.since <= NOW


def test_an_empty_destination_without_a_run_is_late():
    assert found(COUNTED, counted=0, last_beat_at=3 * DAY).kind is IncidentKind.LATE


# -- a source that was only just registered -----------------------------------------------------------------------


@pytest.mark.parametrize("source", [BEATS, COUNTED])
def test_a_fresh_source_has_its_whole_window_to_speak(source):
    count = 0 if source.count else None
    for beats in ({}, {"last_beat_at": MINUTE, "last_zero_at": MINUTE}):
        assert found(source, registered_at=23 * HOUR, counted=count, **beats).kind is None
        assert found(source, registered_at=25 * HOUR, counted=count, **beats).kind is not None


def test_a_source_registered_anew_is_not_excused_from_rows_it_should_have_sent():
    assert found(registered_at=HOUR, last_beat_at=10 * DAY, last_rows_at=10 * DAY).kind is IncidentKind.LATE


# -- laws ---------------------------------------------------------------------------------------------------------

AGO = st.none() | st.timedeltas(timedelta(), 5 * DAY).map(lambda ago: NOW - ago)


@st.composite
def measures(draw, *, counted):
    """Whatever the store can hand over: the last beat is never before the last one with rows or with zero."""
    rows, zero, unknown = draw(AGO), draw(AGO), draw(AGO)
    return Measure(
        registered_at=NOW - draw(st.timedeltas(timedelta(), 5 * DAY)),
        last_beat_at=max((at for at in (rows, zero, unknown) if at), default=None),
        last_rows_at=rows,
        last_zero_at=zero,
        counted=draw(st.integers(0, 2)) if counted else None,
        problem=draw(st.sampled_from(["", "", "timeout"])) if counted else "",
    )


@given(measures(counted=False))
def test_what_was_found_from_heartbeats_never_became_true_in_the_future(measure):
    finding = judge(BEATS, measure, NOW)
    assert finding.since <= NOW
    assert finding.explanation


@given(measures(counted=True))
def test_what_was_found_at_the_destination_never_became_true_in_the_future(measure):
    assert judge(COUNTED, measure, NOW).since <= NOW


@given(measures(counted=False))
def test_silence_beyond_the_window_always_raises_an_alarm(measure):
    watched_long = measure.registered_at <= NOW - DAY
    rows_lately = measure.last_rows_at is not None and measure.last_rows_at >= NOW - DAY
    if watched_long:
        assert (judge(BEATS, measure, NOW).kind is None) == rows_lately


@given(measures(counted=True))
def test_a_counted_source_is_fine_only_by_its_count_or_its_open_window(measure):
    finding = judge(COUNTED, measure, NOW)
    if finding.kind is None:
        assert not measure.problem
        assert measure.counted or measure.registered_at > NOW - DAY


# -- declarations -------------------------------------------------------------------------------------------------


def test_sources_are_read_with_all_their_keys():
    text = json.dumps(
        [
            {"name": "orders", "window_seconds": 3600},
            {
                "name": "users",
                "window_seconds": 1.5,
                "credential": "crm_prod",
                "count": {"conn_id": "warehouse", "sql": "select 1"},
                "alert_route": "team-a",
            },
        ]
    )
    assert sources_from_json(text) == [
        Source("orders", HOUR),
        Source("users", timedelta(seconds=1.5), "crm_prod", SqlCount("warehouse", "select 1"), "team-a"),
    ]


def entry(**changes: Any) -> str:
    return json.dumps([{"name": "fine", "window_seconds": 60}, {"name": "orders", "window_seconds": 60} | changes])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "not JSON"),
        ("{}", "list of objects"),
        ('"orders"', "list of objects"),
        ("[7]", "Source 1 is 7"),
        ('[{"window_seconds": 60}]', "`name` is missing"),
        ('[{"name": "orders"}]', "`window_seconds`"),
        (entry(name=""), r"Source 2.*`name` is missing"),
        (entry(name=7), r"Source 2.*`name` is missing"),
        (entry(window=5), r"Source 2 \(`orders`\): unknown key `window`"),
        (entry(window_seconds=0), r"`orders`.*`window_seconds` is 0"),
        (entry(window_seconds=-1), r"`orders`.*`window_seconds` is -1"),
        (entry(window_seconds="60"), r"`orders`.*`window_seconds` is '60'"),
        (entry(window_seconds=True), r"`orders`.*`window_seconds` is True"),
        (entry(window_seconds=None), r"`orders`.*`window_seconds` is None"),
        (entry(window_seconds=float("nan")), r"`orders`.*`window_seconds`"),
        (entry(window_seconds=float("inf")), r"`orders`.*`window_seconds`"),
        (entry(window_seconds=1e30), r"`orders`.*`window_seconds`"),
        (entry(count={"sql": "select 1"}), r"`orders`.*`count` needs exactly"),
        (entry(count={}), r"`orders`.*`count` needs exactly"),
        (entry(count={"conn_id": "w", "sql": "s", "x": 1}), r"`orders`.*`count` needs exactly"),
        (entry(count="select 1"), r"`orders`.*`count` needs exactly"),
        (entry(count={"conn_id": "w", "sql": None}), r"`orders`.*`count`"),
        (entry(credential=7), r"`orders`.*`credential`"),
        (entry(alert_route=7), r"`orders`.*`alert_route`"),
        (entry(name="fine"), "`fine` is declared twice"),
    ],
)
def test_a_wrong_declaration_is_refused_naming_the_entry_and_the_key(text, says):
    with pytest.raises(ConfigurationError, match=says):
        sources_from_json(text)


def test_a_route_that_is_null_is_none_given():
    (_, source) = sources_from_json(entry(alert_route=None, credential=None, count=None))
    assert source == Source("orders", MINUTE)


def test_every_name_that_is_declared_twice_is_named():
    with pytest.raises(ConfigurationError, match="`a`, `b`"):
        require_distinct([Source(name, DAY) for name in "abcab"])
