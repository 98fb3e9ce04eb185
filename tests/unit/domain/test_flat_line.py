from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.flat_line import (
    Blind,
    SourceFinding,
    State,
    answered,
    hear,
    is_over,
    judge,
    loads_missed,
    outlook,
    patience,
    unmeasured,
)
from airflow_oauth_guard.domain.habits import Clock, Habit
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.sources import AssetEvents, Source, SqlCount, SqlNewest
from airflow_oauth_guard.domain.windows import Cron, Learned
from tests.unit.domain.builders import DAY, HOUR, MINUTE, SECOND
from tests.unit.domain.sources_made import sources

LATE, FLAT, STUCK, UNMEASURED = IncidentKind.LATE, IncidentKind.FLAT, IncidentKind.STUCK, IncidentKind.UNMEASURED

MONDAY = datetime(2026, 3, 9, tzinfo=timezone.utc)
"""When each of these sources is registered."""

COUNT = SqlCount("warehouse", "select count(*) from orders")
NEWEST = SqlNewest("warehouse", "select max(loaded_at) from orders")
ORDERS = Source("orders", DAY)
COUNTED = Source("orders", DAY, measure=COUNT)
DATED = Source("orders", DAY, measure=NEWEST)
SCHEDULED = Source("orders", Cron(("0 6 * * *",), HOUR))
LEARNED = Source("orders", Learned())
WEEKENDS = ClosedDays(weekdays=frozenset({5, 6}))


def at(hours: float) -> datetime:
    return MONDAY + hours * HOUR


def ran(hours: float, rows: int | None = 5, watermark: float | None = None) -> Beat:
    return Beat(at(hours), rows, None if watermark is None else at(watermark))


def counted(hours: float, rows: int) -> Beat:
    return Beat(at(hours), rows, measured=True)


def dated(hours: float, newest: float | None) -> Beat:
    return Beat(at(hours), None, None if newest is None else at(newest), measured=True)


def heard(source: Source, *beats: Beat, habit: Habit | None = None) -> State:
    state = State(registered_at=MONDAY)
    for beat in beats:
        state = hear(source, habit, state, beat)
    return state


def found(source: Source, hours: float, *beats: Beat, habit: Habit | None = None, blind: Blind = ()) -> SourceFinding:
    """What a look finds so many hours after Monday began."""
    return judge(source, habit, heard(source, *beats, habit=habit), at(hours), blind)


EACH_ZERO = Clock(60, 0, (1.0,) * 168, 2.5)


@dataclass(frozen=True)
class Taught(Habit):
    """A habit whose clocks count: six quiet hours, three loads without rows, four of one number."""

    flat: Clock | None = EACH_ZERO
    stuck_threshold: float = 2.5

    def late_at(self, since: datetime, closed: ClosedDays, zone: ZoneInfo) -> datetime | None:
        return closed.add_open(since, 6 * HOUR, zone)

    def zero_surprise(self, at: datetime) -> float:
        return 1.0

    def same_surprise(self, at: datetime, rows: int) -> float:
        return 1.0


HABIT = Taught(learned_at=MONDAY, usual_gap=HOUR)


# -- the different silences -------------------------------------------------------------------------------------------


def test_a_source_that_moved_rows_within_the_window_is_fine():
    finding = found(ORDERS, 24, ran(1))
    assert finding.kind is None
    assert finding.explanation == "rows (5) arrived 23 h ago"


def test_a_run_that_moved_nothing_since_does_not_hide_rows_within_the_window():
    assert found(ORDERS, 24, ran(1), ran(20, rows=0)).kind is None


def test_a_source_that_ran_and_moved_nothing_is_flat():
    finding = found(ORDERS, 30, ran(1), ran(10, rows=0), ran(20, rows=0))
    assert finding.kind is FLAT
    assert finding.explanation == "It ran and moved 0 rows, 2 times in 1 d 5 h."
    assert finding.since == at(25)


def test_a_source_that_did_not_run_is_late_and_not_flat():
    finding = found(ORDERS, 60, ran(1), ran(10, rows=0))
    assert finding.kind is LATE
    assert finding.explanation == "No run reported within 1 d; the last was at 2026-03-09 10:00:00Z, 2 d 2 h ago."
    assert finding.since == at(34)


def test_a_paused_dag_makes_its_source_late_with_a_sentence_and_not_flat():
    finding = found(SCHEDULED, 55, ran(6.2))
    assert finding.kind is LATE
    assert (
        "No run reported within 1 h after `0 6 * * *` (UTC); the last was at 2026-03-09 06:12:00Z"
        in finding.explanation
    )
    assert finding.since == at(31)


def test_a_late_source_that_then_runs_without_rows_is_flat():
    beats = [ran(1)]
    assert found(ORDERS, 26, *beats).kind is LATE
    assert found(ORDERS, 27, *beats, ran(27, rows=0)).kind is FLAT


def test_zero_rows_no_run_and_the_same_number_again_and_again_are_three_findings():
    source = Source("orders", 3 * HOUR, stuck_after=3)
    assert found(source, 4, ran(1), ran(2, rows=0), ran(3, rows=0)).kind is FLAT
    assert found(source, 4.1, ran(1)).kind is LATE
    assert found(source, 4, ran(1), ran(2), ran(3)).kind is STUCK


def test_a_run_that_never_says_how_many_rows_it_moved_is_neither_fine_nor_flat():
    finding = found(ORDERS, 30, ran(10, rows=None), ran(20, rows=None))
    assert finding.kind is UNMEASURED
    assert finding.explanation == "No rows are known to have come for 1 d 6 h: none of 2 runs said how many it moved."


def test_runs_without_a_count_beside_one_that_said_zero_are_told_apart():
    finding = found(ORDERS, 30, ran(10, rows=0), ran(20, rows=None))
    assert finding.explanation == "It ran and moved 0 rows, once in 1 d 6 h, and once did not say how many."


def test_a_ping_is_only_ever_late():
    pinged = replace(ORDERS, pings=True, stuck_after=2)
    assert found(pinged, 24, *(ran(hour, rows=None) for hour in range(24))).kind is None
    assert found(pinged, 60, ran(1, rows=None)).kind is LATE


def test_a_ping_that_says_zero_for_once_is_believed():
    pinged = replace(ORDERS, pings=True)
    assert found(pinged, 30, ran(1, rows=None), ran(20, rows=0)).kind is FLAT


def test_a_backfill_counts_as_rows_like_any_other_run():
    flat = [ran(1), *(ran(hour, rows=0) for hour in range(10, 40, 5))]
    assert found(ORDERS, 36, *flat).kind is FLAT
    assert found(ORDERS, 36, *flat, ran(36, rows=9000, watermark=-500)).kind is None


# -- a new source, and one that never spoke ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "until"),
    [
        (ORDERS, 24),
        (SCHEDULED, 7),
        (Source("orders", Cron(("0 6 * * *",))), 7),
        (LEARNED, 24),
        (Source("orders", Learned(fallback=2 * HOUR)), 2),
    ],
)
def test_a_source_that_never_sent_anything_has_its_first_window_and_is_late_after_it(source, until):
    assert found(source, until - 0.01).kind is None
    finding = found(source, until)
    assert finding.kind is LATE
    assert "none was ever heard in" in finding.explanation
    assert finding.since == at(until)


def test_a_brand_new_source_says_that_its_window_is_still_open():
    assert found(ORDERS, 3).explanation == "watched for 3 h; the window is still open"


def test_a_source_that_is_still_learning_says_what_it_is_held_to():
    assert found(LEARNED, 3, ran(1)).explanation == "rows (5) arrived 2 h ago; learning: alarms after 1 d"
    assert "within 1 d (still learning)" in found(LEARNED, 30, ran(1)).explanation


def test_while_it_learns_a_silence_below_twice_the_longest_is_no_alarm():
    rare = [ran(0), ran(60)]
    assert found(LEARNED, 60 + 119, *rare).kind is None
    assert found(LEARNED, 60 + 120, *rare).kind is LATE


def test_while_it_learns_a_weekend_that_is_closed_does_not_make_it_patient():
    source = replace(LEARNED, closed=WEEKENDS)
    friday, monday = 4 * 24 + 20, 7 * 24 + 4
    state = heard(source, ran(friday), ran(monday))
    assert state.longest_gap == 8 * HOUR
    assert patience(Learned(), state) == DAY


def test_a_zero_run_of_a_new_source_is_flat_only_after_its_window():
    assert found(ORDERS, 23, ran(1, rows=0)).kind is None
    assert found(ORDERS, 24, ran(1, rows=0)).kind is FLAT


# -- rare sources, months and closed days -----------------------------------------------------------------------------


def test_a_source_that_only_ever_loads_on_the_first_is_awaited_on_the_first_by_its_dags_cron():
    monthly = Source("bills", Cron(("0 6 1 * *",), 2 * HOUR))
    first_of_april = datetime(2026, 4, 1, 6, tzinfo=timezone.utc)
    state = heard(monthly, Beat(first_of_april + 40 * MINUTE, 900))
    first_of_may = datetime(2026, 5, 1, 8, tzinfo=timezone.utc)
    assert outlook(monthly, None, state).alarm_at == first_of_may
    assert judge(monthly, None, state, first_of_may - SECOND).kind is None
    assert judge(monthly, None, state, first_of_may).kind is LATE


def test_a_source_that_only_ever_loads_on_the_first_is_fine_all_year_within_a_window_of_32_days():
    monthly, state = Source("bills", 32 * DAY), State(registered_at=MONDAY)
    for month in range(4, 13):
        loaded = datetime(2026, month, 1, 6, tzinfo=timezone.utc)
        assert judge(monthly, None, state, loaded).kind is None
        state = hear(monthly, None, state, Beat(loaded, 900 + month))
    assert judge(monthly, None, state, datetime(2027, 1, 3, tzinfo=timezone.utc)).kind is LATE


def test_a_friday_load_is_not_late_on_sunday_and_open_time_counts_on_from_monday():
    source = Source("orders", DAY, timezone="Europe/Berlin", closed=WEEKENDS)
    friday_noon = datetime(2026, 3, 13, 11, tzinfo=timezone.utc)
    state = heard(source, Beat(friday_noon, 5))
    assert outlook(source, None, state).late_at == datetime(2026, 3, 16, 11, tzinfo=timezone.utc)
    assert judge(source, None, state, datetime(2026, 3, 15, 23, tzinfo=timezone.utc)).kind is None


def test_nothing_is_awaited_of_a_schedule_on_a_holiday():
    source = replace(SCHEDULED, closed=ClosedDays(dates=frozenset({date(2026, 3, 10)})))
    assert outlook(source, None, heard(source, ran(6.2))).late_at == at(48 + 7)


@pytest.mark.parametrize(
    ("eve", "next_morning"),
    [
        (datetime(2026, 3, 28, 5, 20), datetime(2026, 3, 29, 5)),
        (datetime(2026, 10, 24, 4, 20), datetime(2026, 10, 25, 6)),
    ],
)
def test_a_daily_load_is_late_by_the_wall_clock_on_the_day_the_clocks_change(eve, next_morning):
    source = Source("orders", Cron(("0 6 * * *",), HOUR), timezone="Europe/Berlin")
    state = heard(source, Beat(eve.replace(tzinfo=timezone.utc), 5))
    assert outlook(source, None, state).late_at == next_morning.replace(tzinfo=timezone.utc)


# -- schedules --------------------------------------------------------------------------------------------------------


def test_a_job_that_runs_for_longer_than_its_period_is_not_late_while_it_reports_in_time():
    hourly = Source("orders", Cron(("0 * * * *",), HOUR))
    beats = [ran(tick + 1.5) for tick in range(12)]
    for number in range(1, len(beats)):
        before = beats[number].at - SECOND
        assert judge(hourly, None, heard(hourly, *beats[:number]), before).kind is None


def test_a_run_reported_just_before_its_tick_does_not_stand_for_it():
    assert found(SCHEDULED, 7, ran(5.99)).kind is LATE
    assert found(SCHEDULED, 7, ran(6.01)).kind is None


def test_a_manual_run_at_an_odd_time_puts_nothing_off():
    beats = [ran(6.2), ran(20.5)]
    assert found(SCHEDULED, 31, *beats).kind is LATE


def test_a_manual_run_instead_of_the_one_that_failed_is_enough():
    assert found(SCHEDULED, 48, ran(6.2), ran(40)).kind is None


def test_a_grace_longer_than_the_period_counts_from_the_first_time_that_was_missed():
    patient = Source("orders", Cron(("0 * * * *",), 3 * HOUR))
    assert outlook(patient, None, heard(patient, ran(1.2))).late_at == at(5)


def test_a_learned_grace_is_an_hour_until_it_is_learned():
    source = Source("orders", Cron(("0 6 * * *",)))
    state = heard(source, ran(6.2))
    assert outlook(source, None, state).late_at == at(31)
    assert outlook(source, replace(HABIT, grace=2 * HOUR), state).late_at == at(32)
    assert outlook(source, replace(HABIT, grace=None), state).late_at == at(31)


def test_a_declared_grace_beats_a_learned_one():
    assert outlook(SCHEDULED, replace(HABIT, grace=5 * HOUR), heard(SCHEDULED, ran(6.2))).late_at == at(31)


def test_a_load_is_expected_at_its_tick_and_an_alarm_follows_after_the_grace():
    view = outlook(SCHEDULED, None, heard(SCHEDULED, ran(6.2)))
    assert (view.expected_at, view.alarm_at) == (at(30), at(31))
    assert outlook(ORDERS, None, heard(ORDERS, ran(1))).expected_at is None
    assert outlook(LEARNED, HABIT, heard(LEARNED, ran(1))).expected_at == at(2)


# -- the same number again and again ----------------------------------------------------------------------------------

CAREFUL = replace(ORDERS, stuck_after=3)


def test_a_number_is_stuck_when_it_came_as_often_as_was_declared():
    assert found(CAREFUL, 3, ran(1, 7), ran(2, 7)).kind is None
    finding = found(CAREFUL, 4, ran(1, 7), ran(2, 7), ran(3, 7))
    assert finding.kind is STUCK
    assert finding.explanation == "The last 3 loads with rows moved exactly 7 each."
    assert finding.since == at(3)


def test_loads_without_rows_in_between_do_not_make_a_stuck_number_new():
    assert found(CAREFUL, 6, ran(1, 7), ran(2, 7), ran(3, 0), ran(4, 7)).kind is STUCK


def test_another_number_is_not_stuck():
    assert found(CAREFUL, 5, ran(1, 7), ran(2, 7), ran(3, 8), ran(4, 7)).kind is None


def test_equal_numbers_whose_data_reaches_further_each_time_are_not_stuck():
    assert found(CAREFUL, 5, *(ran(hour, 7, watermark=hour) for hour in range(1, 5))).kind is None


def test_different_numbers_that_reach_no_further_are_stuck():
    finding = found(CAREFUL, 5, *(ran(hour, 7 + hour, watermark=0) for hour in range(1, 4)))
    assert finding.kind is STUCK
    assert finding.explanation == "The last 3 loads reached no further than 2026-03-09 00:00:00Z."


def test_pings_that_reach_no_further_are_stuck_and_say_how_far():
    source = replace(CAREFUL, pings=True)
    finding = found(source, 5, *(ran(hour, None, watermark=0) for hour in range(1, 4)))
    assert finding.kind is STUCK
    assert finding.explanation == "The last 3 loads reached no further than 2026-03-09 00:00:00Z."


def test_nobody_calls_a_number_stuck_where_nobody_declared_or_learned_it():
    assert found(ORDERS, 23, *(ran(hour, 7) for hour in range(1, 20))).kind is None


def test_who_is_to_be_stuck_no_more_is_not_after_the_next_load():
    stuck = heard(CAREFUL, *(ran(hour, 7) for hour in range(1, 5)))
    assert judge(ORDERS, None, hear(ORDERS, None, stuck, ran(5, 7)), at(5)).kind is None


# -- watermarks -------------------------------------------------------------------------------------------------------


def test_a_run_without_a_count_whose_data_reaches_further_brought_rows():
    assert found(ORDERS, 30, ran(1, None, watermark=1), ran(20, None, watermark=20)).kind is None


def test_a_run_without_a_count_whose_data_reaches_no_further_brought_none():
    finding = found(ORDERS, 30, ran(1, None, watermark=1), ran(10, None, watermark=1), ran(20, None, watermark=1))
    assert finding.kind is FLAT
    assert "moved 0 rows, 2 times" in finding.explanation


def test_data_that_is_loaded_anew_from_the_beginning_counts_from_where_it_begins():
    beats = [ran(1, None, watermark=1), ran(10, None, watermark=-100), ran(20, None, watermark=-50)]
    assert heard(ORDERS, *beats).last_rows_at == at(20)


# -- the destination --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", [COUNTED, DATED, replace(SCHEDULED, measure=COUNT), replace(LEARNED, measure=NEWEST)]
)
@pytest.mark.parametrize("beats", [[], [ran(1)], [ran(1, rows=0)], [counted(1, 5)], [counted(1, 0)]])
def test_a_destination_that_cannot_be_asked_is_never_zero_and_never_fine(source, beats):
    state = unmeasured(heard(source, *beats), "OperationalError: no such table", at(2))
    finding = judge(source, None, unmeasured(state, "OperationalError: no such table", at(3)), at(3))
    assert finding.kind is UNMEASURED
    assert finding.explanation == "The destination could not be measured: OperationalError: no such table"
    assert finding.since == at(2)
    assert not is_over(UNMEASURED, finding.since, unmeasured(state, "again", at(4)))


@pytest.mark.parametrize("rows", [0, 7])
def test_a_destination_that_answers_again_is_measured_again_whatever_it_says(rows):
    state = unmeasured(heard(COUNTED, counted(1, 5)), "timeout", at(2))
    state = hear(COUNTED, None, state, counted(3, rows))
    assert judge(COUNTED, None, state, at(3)).kind is None
    assert is_over(UNMEASURED, at(2), state)


def test_a_newest_row_that_did_not_move_is_an_answer_too():
    state = unmeasured(heard(DATED, dated(1, 1)), "timeout", at(2))
    state = hear(DATED, None, state, dated(3, 1))
    assert judge(DATED, None, state, at(3)).kind is None
    assert is_over(UNMEASURED, at(2), state)


def test_a_destination_nobody_asked_is_not_taken_for_an_empty_one():
    finding = found(DATED, 30)
    assert finding.kind is UNMEASURED
    assert finding.explanation == "Nobody has asked the destination since rows were expected: never yet."
    asked_before = found(DATED, 30, dated(1, 1))
    assert asked_before.kind is UNMEASURED
    assert "the last time was at 2026-03-09 01:00:00Z" in asked_before.explanation
    assert found(DATED, 30, dated(1, 1), dated(30, 1)).kind is FLAT
    assert found(COUNTED, 30).kind is None


def test_a_problem_with_a_destination_that_is_asked_no_more_is_none():
    state = unmeasured(heard(COUNTED, counted(1, 5)), "timeout", at(2))
    assert judge(ORDERS, None, state, at(3)).kind is None


def test_an_asset_whose_events_can_be_read_again_is_measured_again():
    updated = Source("orders", DAY, measure=AssetEvents("orders"))
    state = unmeasured(heard(updated, ran(1)), "no such asset", at(2))
    assert judge(updated, None, state, at(2)).kind is UNMEASURED
    state = answered(state, at(3))
    assert judge(updated, None, state, at(3)).kind is None
    assert is_over(UNMEASURED, at(2), state)


def test_rows_at_the_destination_are_enough_whatever_the_heartbeats_say():
    polls = [counted(hour, 7) for hour in range(2, 60, 2)]
    assert found(COUNTED, 59, *polls).kind is None
    assert found(COUNTED, 59, ran(1, rows=0), *polls).kind is None


def test_new_rows_at_the_destination_are_enough_though_no_run_ever_says_so_again():
    looks = [dated(hour, hour - 1) for hour in range(2, 60, 2)]
    assert found(DATED, 59, ran(1), *looks).kind is None
    assert found(DATED, 90, ran(1), *looks, dated(90, 57)).kind is LATE


def test_an_empty_destination_is_flat_although_the_run_claims_rows():
    finding = found(COUNTED, 31, counted(6, 5), *(ran(hour) for hour in range(1, 31)), counted(30, 0))
    assert finding.kind is FLAT
    assert finding.explanation == "The destination holds 0 new rows for 1 d 1 h; expected within 1 d."


def test_a_count_of_zero_over_the_whole_window_is_flat_at_once():
    finding = found(COUNTED, 40, counted(2, 9), counted(38, 9), counted(40, 0))
    assert (finding.kind, finding.since) == (FLAT, at(40))


def test_a_count_of_zero_says_nothing_before_the_first_window_has_closed():
    assert found(COUNTED, 23, counted(1, 0), counted(23, 0)).kind is None
    assert found(COUNTED, 24, counted(1, 0), counted(24, 0)).kind is FLAT
    assert found(COUNTED, 23, counted(1, 9), counted(23, 0)).kind is None


def test_a_count_on_a_closed_day_is_of_the_open_time_before():
    source = replace(COUNTED, closed=WEEKENDS)
    sunday = 6 * 24 + 12
    finding = found(source, sunday, counted(96, 9), counted(sunday, 0))
    # Friday was empty, and friday was over when saturday began.
    assert (finding.kind, finding.since) == (FLAT, at(5 * 24))


def test_a_count_that_stays_the_same_is_not_stuck_for_it_is_no_load():
    source = replace(COUNTED, window=Cron(("0 * * * *",), HOUR))
    assert found(source, 10, *(counted(hour, 7) for hour in range(1, 11))).kind is None


def test_an_empty_destination_without_a_run_is_late():
    finding = found(COUNTED, 80, ran(1), counted(2, 5), counted(79, 0))
    assert finding.kind is LATE


def test_a_destination_whose_jobs_say_nothing_is_never_late():
    assert found(COUNTED, 80, counted(2, 5), counted(79, 0)).kind is FLAT


def test_the_newest_row_counts_by_its_own_time_and_not_by_when_somebody_looked():
    finding = found(DATED, 10, dated(10, -20))
    assert (finding.kind, finding.since) == (FLAT, at(4))
    assert "0 new rows for 1 d 6 h" in finding.explanation
    assert found(DATED, 10, dated(10, -5)).kind is None


def test_a_newest_row_from_the_future_counts_as_of_when_it_was_seen():
    assert outlook(DATED, None, heard(DATED, dated(10, 12))).flat_at == at(34)


def test_a_wrong_row_that_was_taken_out_does_not_blind_us_to_the_next():
    beats = [dated(1, 20), dated(10, 9), dated(15, 14)]
    assert outlook(DATED, None, heard(DATED, *beats)).flat_at == at(14 + 24)


def test_an_empty_table_is_flat_after_its_window():
    empty = Beat(at(30), 0, measured=True)
    assert found(DATED, 30, empty).kind is FLAT
    assert found(DATED, 30, dated(30, None)).kind is FLAT
    assert found(DATED, 20, replace(empty, at=at(20))).kind is None


def test_flat_at_a_destination_is_over_when_rows_are_seen_though_their_own_time_is_of_before():
    state = heard(DATED, dated(1, 1), dated(26, 1))
    flat = judge(DATED, None, state, at(26))
    assert (flat.kind, flat.since) == (FLAT, at(25))
    state = hear(DATED, None, state, dated(30, 24))
    assert judge(DATED, None, state, at(30)).kind is None
    assert is_over(FLAT, flat.since, state)


# -- what was learned -------------------------------------------------------------------------------------------------


def test_a_learned_window_is_late_flat_and_stuck_by_its_own_clocks():
    assert outlook(LEARNED, HABIT, heard(LEARNED, ran(1), habit=HABIT)).late_at == at(7)
    flat = found(LEARNED, 5, ran(1), ran(2, 0), ran(3, 0), ran(4, 0), habit=HABIT)
    assert (flat.kind, flat.since) == (FLAT, at(4))
    stuck = found(LEARNED, 5, *(ran(hour) for hour in range(1, 5)), habit=HABIT)
    assert (stuck.kind, stuck.since) == (STUCK, at(4))


def test_loads_on_a_closed_day_surprise_nobody_by_having_no_rows():
    source = replace(LEARNED, closed=WEEKENDS)
    saturday = [ran(5 * 24 + hour, 0) for hour in range(4)]
    assert heard(source, ran(1), *saturday, habit=HABIT).zero_surprise == 0.0


def test_loads_that_stop_saying_how_many_they_moved_alarm_as_unmeasured():
    finding = found(LEARNED, 5, ran(1), *(ran(hour, None) for hour in (2, 3, 4)), habit=HABIT)
    assert finding.kind is UNMEASURED


def test_a_habit_that_knows_nothing_of_rows_leaves_them_to_the_fallback():
    unknowing = replace(HABIT, flat=None)
    assert found(LEARNED, 24.5, ran(1), *(ran(hour, 0) for hour in range(2, 25)), habit=unknowing).kind is None
    assert found(LEARNED, 25, ran(1), *(ran(hour, 0) for hour in range(2, 25)), habit=unknowing).kind is FLAT


def test_a_declared_window_beats_what_was_learned():
    assert found(ORDERS, 20, ran(1), *(ran(hour, 0) for hour in range(2, 20)), habit=HABIT).kind is None


# -- when nobody looked -----------------------------------------------------------------------------------------------


def late_at(*blind: tuple[float, float]) -> float:
    """Of a source that spoke at 10, with a day's window: due at 34."""
    stretches = [(at(start), at(end)) for start, end in blind]
    due = outlook(ORDERS, None, heard(ORDERS, ran(10)), stretches).late_at
    assert due is not None
    return (due - MONDAY) / HOUR


@pytest.mark.parametrize(
    ("blind", "due"),
    [
        ([], 34),
        ([(2, 8)], 34),
        ([(34, 50)], 34),
        ([(12, 20)], 42),
        ([(2, 12)], 36),
        ([(30, 40)], 44),
        ([(12, 14), (20, 23)], 39),
        ([(12, 16), (14, 20)], 42),
        ([(12, 20), (13, 15)], 42),
        ([(12, 20), (12, 20)], 42),
        ([(30, 40), (42, 43)], 45),
        ([(30, 40), (44, 60)], 44),
    ],
)
def test_a_deadline_moves_by_the_time_in_which_nobody_looked_each_moment_once(blind, due):
    assert late_at(*blind) == due


def test_after_a_blind_gap_there_is_no_flood():
    hourly = [Source(f"source-{number}", HOUR) for number in range(20)]
    states = [heard(source, ran(10 + number / 60)) for number, source in enumerate(hourly)]
    blind = [(at(10.5), at(60))]
    assert not any(judge(s, None, state, at(60), blind).kind for s, state in zip(hourly, states, strict=True))
    assert all(judge(s, None, state, at(61), blind).kind for s, state in zip(hourly, states, strict=True))


def test_a_count_over_a_window_in_which_nobody_could_load_is_not_flat_at_once():
    down = [(at(30), at(53))]
    beats = [counted(29, 9), counted(54, 0)]
    assert found(COUNTED, 54, *beats, blind=down).kind is None
    assert found(COUNTED, 77, *beats, counted(77, 0), blind=down).kind is FLAT


def test_what_was_flat_before_nobody_looked_stays_flat():
    beats = [counted(2, 9), counted(30, 0)]
    assert found(COUNTED, 60, *beats, counted(60, 0), blind=[(at(40), at(60))]).kind is FLAT


# -- out of turn ------------------------------------------------------------------------------------------------------


def test_a_heartbeat_that_arrives_out_of_turn_does_not_turn_back_the_clock():
    in_turn = heard(ORDERS, ran(1), ran(10), ran(20, 0))
    assert hear(ORDERS, None, in_turn, ran(5, 0)) == in_turn
    assert hear(ORDERS, None, in_turn, ran(5, 99)) == in_turn


def test_rows_that_are_heard_of_out_of_turn_are_rows_all_the_same():
    state = heard(ORDERS, ran(1), ran(20, 0))
    state = hear(ORDERS, None, state, ran(15, 99))
    assert (state.last_rows_at, state.last_beat_at) == (at(15), at(20))


def test_flat_rows_that_are_heard_of_out_of_turn_let_the_learned_clock_begin_anew():
    state = heard(LEARNED, ran(1), ran(2, 0), ran(3, 0), ran(4, 0), habit=HABIT)
    assert judge(LEARNED, HABIT, state, at(4)).kind is FLAT
    state = hear(LEARNED, HABIT, state, ran(3.5, 99))
    assert judge(LEARNED, HABIT, state, at(4)).kind is None


def test_rows_that_a_job_speaks_of_out_of_turn_are_none_where_the_destination_is_asked():
    state = heard(COUNTED, counted(1, 0), ran(20))
    assert hear(COUNTED, None, state, ran(15, 99)) == state


def test_an_older_look_at_the_destination_takes_nothing_back():
    state = unmeasured(heard(COUNTED, counted(10, 5)), "timeout", at(11))
    assert hear(COUNTED, None, state, counted(9, 0)) == state


def test_two_heartbeats_of_one_moment_both_count():
    assert heard(ORDERS, ran(1), ran(2, 0), ran(2, 0)).zeros == 2


# -- runs that were skipped -------------------------------------------------------------------------------------------

PINGED = replace(ORDERS, pings=True)
EVENTS = replace(ORDERS, measure=AssetEvents("orders"))


def skipped(hours: float, rows: int | None = 0) -> Beat:
    return Beat(at(hours), rows, note="skipped: credential `crm` is expired")


@pytest.mark.parametrize("source", [ORDERS, PINGED, EVENTS, SCHEDULED, LEARNED, COUNTED, DATED])
@pytest.mark.parametrize("rows", [0, None])
@pytest.mark.parametrize("habit", [None, HABIT])
def test_a_skip_puts_no_alarm_off_and_ends_none(source, rows, habit):
    before = heard(source, ran(1), habit=habit)
    after = before
    for hours in range(2, 40):
        after = hear(source, habit, after, skipped(hours, rows))
        assert outlook(source, habit, after) == outlook(source, habit, before)
        for kind in (LATE, FLAT, STUCK, UNMEASURED):
            assert not is_over(kind, at(2), after)
    assert judge(source, habit, after, at(80)).kind == judge(source, habit, before, at(80)).kind


def test_a_source_that_only_ever_skipped_is_late_from_its_first_window_on():
    finding = found(PINGED, 25, skipped(1), skipped(13))
    assert (finding.kind, finding.since) == (LATE, at(24))
    assert finding.explanation.endswith("none was ever heard in 1 d 1 h; it was skipped 2 times since.")


def test_who_skips_where_empty_runs_are_usual_is_late_all_the_same():
    @dataclass(frozen=True)
    class Lenient(Taught):
        def zero_surprise(self, at: datetime) -> float:
            return 0.0

    usual = Lenient(learned_at=MONDAY, usual_gap=HOUR)
    assert found(LEARNED, 12, ran(0), *(ran(hour, 0) for hour in range(1, 12)), habit=usual).kind is None
    assert found(LEARNED, 12, ran(0), *(skipped(hour) for hour in range(1, 12)), habit=usual).kind is LATE


def test_the_last_note_is_known_until_a_run_says_something_else():
    state = heard(ORDERS, ran(1), skipped(2), skipped(3))
    assert (state.note, state.skips) == ("skipped: credential `crm` is expired", 2)
    state = hear(ORDERS, None, state, Beat(at(4), 0, note="nothing new"))
    assert (state.note, state.skips, state.zeros) == ("nothing new", 0, 1)
    assert hear(ORDERS, None, state, ran(5)).note == ""


def test_a_skip_that_is_heard_of_out_of_turn_changes_nothing():
    state = heard(PINGED, ran(3))
    assert hear(PINGED, None, state, skipped(2, None)) == state


def test_a_note_about_rows_that_came_is_no_skip():
    assert not Beat(at(1), 3, note="skipped: two of five files").is_skip
    assert not Beat(at(1), 0, note="nothing new").is_skip
    assert skipped(1).is_skip


# -- when it is over --------------------------------------------------------------------------------------------------


def test_late_is_over_with_any_run():
    state = heard(ORDERS, ran(1))
    assert not is_over(LATE, at(25), state)
    assert is_over(LATE, at(25), hear(ORDERS, None, state, ran(26, 0)))


def test_flat_is_over_with_rows_and_not_with_another_run():
    state = heard(ORDERS, ran(1), ran(20, 0))
    assert not is_over(FLAT, at(25), hear(ORDERS, None, state, ran(26, 0)))
    assert not is_over(FLAT, at(25), hear(ORDERS, None, state, ran(26, None)))
    assert is_over(FLAT, at(25), hear(ORDERS, None, state, ran(26, 1)))


def test_stuck_is_over_with_another_number_and_not_with_none():
    state = heard(CAREFUL, *(ran(hour, 7) for hour in range(1, 4)))
    for beat in (ran(4, 7), ran(4, 0), ran(4, None)):
        assert not is_over(STUCK, at(3), hear(CAREFUL, None, state, beat))
    assert is_over(STUCK, at(3), hear(CAREFUL, None, state, ran(4, 8)))


def test_runs_that_did_not_say_how_many_are_over_with_rows_and_not_with_another_such_run():
    state = heard(ORDERS, ran(20, None))
    assert not is_over(UNMEASURED, at(24), hear(ORDERS, None, state, ran(25, None)))
    assert is_over(UNMEASURED, at(24), hear(ORDERS, None, state, ran(25, 3)))


@pytest.mark.parametrize("kind", [LATE, FLAT, STUCK, UNMEASURED])
def test_a_longer_window_is_no_sign_of_life(kind):
    state = heard(CAREFUL, ran(1, 7), ran(1.5, 7), ran(2, 7))
    generous = replace(CAREFUL, window=30 * DAY, stuck_after=None)
    assert not is_over(kind, at(26), state)
    assert outlook(generous, None, state).late_at == at(2) + 30 * DAY


def test_a_run_from_just_before_the_deadline_that_is_heard_of_just_after_it_is_a_run():
    state = hear(ORDERS, None, heard(ORDERS, ran(1)), ran(24.999))
    assert is_over(LATE, at(25), state)


# -- how much was missed ----------------------------------------------------------------------------------------------


def test_missed_loads_are_counted_by_schedule_and_by_habit_and_else_not_guessed():
    assert loads_missed(SCHEDULED, None, at(6.2), at(4 * 24 + 6.2)) == 3
    assert loads_missed(LEARNED, HABIT, at(1), at(5)) == 3
    assert loads_missed(ORDERS, None, at(1), at(500)) is None


# -- laws -------------------------------------------------------------------------------------------------------------

HOURS = st.integers(0, 24 * 30).map(lambda hours: MONDAY + hours * HOUR)
BEATS = st.lists(
    st.builds(Beat, HOURS, st.none() | st.integers(0, 3), st.none() | HOURS, measured=st.booleans()), max_size=12
)
BLIND = st.lists(st.tuples(HOURS, st.timedeltas(timedelta(), 3 * DAY)), max_size=3).map(
    lambda stretches: sorted((start, start + length) for start, length in stretches)
)
HABITS = st.none() | st.just(HABIT) | st.just(replace(HABIT, flat=None, grace=20 * MINUTE))


def heard_of(source: Source, habit: Habit | None, beats: Sequence[Beat]) -> State:
    state = State(registered_at=MONDAY)
    for beat in beats:
        state = hear(source, habit, state, beat)
        if beat.measured and beat.rows == 3:
            state = unmeasured(state, "timeout", beat.at)
    return state


@settings(deadline=None)
@given(sources(), HABITS, BEATS, BLIND, st.timedeltas(timedelta(microseconds=1), 400 * DAY))
def test_the_alarm_that_is_foreseen_is_the_first_moment_at_which_a_look_finds_something(
    source, habit, beats, blind, away
):
    state = heard_of(source, habit, beats)
    due = outlook(source, habit, state, blind).alarm_at
    if due is None:
        assert judge(source, habit, state, MONDAY + away, blind).kind is None
        return
    assert judge(source, habit, state, due - away, blind).kind is None
    for later in (due, due + away):
        finding = judge(source, habit, state, later, blind)
        assert finding.kind is not None
        assert finding.since <= later
        assert finding.explanation


@settings(deadline=None)
@given(sources(), HABITS, BEATS)
def test_each_step_to_the_alarm_finds_nothing(source, habit, beats):
    state = heard_of(source, habit, beats)
    due = outlook(source, habit, state).alarm_at
    start = max((beat.at for beat in beats), default=MONDAY)
    for step in range(60):
        now = start + step * 7 * HOUR
        assert (judge(source, habit, state, now).kind is not None) == (due is not None and due <= now)


@given(sources(), HABITS, BEATS, st.data())
def test_a_heartbeat_from_the_past_is_news_once_at_most(source, habit, beats, data: Any):
    state = heard_of(source, habit, beats)
    last = [at for at in (state.last_beat_at, state.measured_at) if at is not None]
    if len(last) < 2:
        return
    rows, measured = data.draw(st.none() | st.integers(0, 3)), data.draw(st.booleans())
    old = Beat(min(last) - data.draw(st.timedeltas(SECOND, 5 * DAY)), rows, measured=measured)
    once = hear(source, habit, state, old)
    assert hear(source, habit, once, old) == once
    assert once == replace(
        state,
        last_rows_at=once.last_rows_at,
        zero_surprise=once.zero_surprise,
        flat_since=once.flat_since,
    )
    if not rows and not source.pings:
        assert once == state


@given(BEATS.map(lambda beats: sorted(beats, key=lambda beat: beat.at)), HOURS)
def test_silence_beyond_a_fixed_window_always_raises_an_alarm_and_rows_within_it_never(beats, now):
    beats = [replace(beat, measured=False, watermark=None) for beat in beats if beat.at <= now]
    lately = any(beat.rows and beat.at > now - DAY for beat in beats)
    fine = judge(ORDERS, None, heard_of(ORDERS, None, beats), now).kind is None
    assert fine == (lately or now - DAY < MONDAY)


@given(BEATS.map(lambda beats: sorted(beats, key=lambda beat: beat.at)), HOURS)
def test_a_counted_source_is_fine_only_by_its_count_or_in_its_first_window(beats, now):
    beats = [replace(beat, watermark=None) for beat in beats if beat.at <= now]
    looks = [beat for beat in beats if beat.measured]
    if judge(COUNTED, None, heard_of(COUNTED, None, beats), now).kind is None and looks:
        assert looks[-1].rows != 3, "which stands for a problem here"
        assert looks[-1].rows or now < MONDAY + DAY


@given(sources(), HABITS, BEATS)
def test_what_is_over_by_late_or_flat_was_heard_after_it_began(source, habit, beats):
    state = heard_of(source, habit, beats)
    newest = max((beat.at for beat in beats), default=None)
    for kind in (LATE, FLAT, STUCK):
        since = (newest or MONDAY) + 2 * MINUTE
        assert not is_over(kind, since, state)


# -- suspicion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "suspected"), [(5, False), (50, False), (60, True), (89, True), (90, False)])
def test_a_load_that_is_overdue_is_suspected_until_it_is_an_alarm(minutes, suspected):
    hourly = Source("orders", Cron(("0 * * * *",), timedelta(minutes=30)))
    view = outlook(hourly, None, State(registered_at=MONDAY, last_beat_at=MONDAY, last_rows_at=MONDAY, last_rows=3))
    assert view.suspects(MONDAY, MONDAY + minutes * MINUTE) is suspected


def test_a_fixed_window_suspects_nothing():
    assert not outlook(ORDERS, None, State(registered_at=MONDAY)).suspects(MONDAY, MONDAY + 23 * HOUR)


def test_an_update_of_an_asset_that_tells_no_rows_is_unknown_since_a_task_that_moves_nothing_updates_it_too():
    updated = replace(ORDERS, measure=AssetEvents("orders"))
    state = State(registered_at=MONDAY)
    for hour in range(1, 30):
        state = hear(updated, None, state, Beat(MONDAY + hour * HOUR, None))
    assert judge(updated, None, state, MONDAY + 30 * HOUR).kind is UNMEASURED
    assert (
        judge(
            replace(updated, pings=True),
            None,
            hear(replace(updated, pings=True), None, state, Beat(MONDAY + 30 * HOUR, None)),
            MONDAY + 30 * HOUR,
        ).kind
        is None
    )
