from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.habits import HISTORY, PLENTY_OF_LOADS, Clock, Habit, learn, wall_minute
from airflow_oauth_guard.domain.habits import lesson as lessons
from airflow_oauth_guard.domain.habits.thresholds import TAIL, tail_threshold
from airflow_oauth_guard.domain.habits.wall import open_minutes
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.replaying import Episode, replay
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Cron, Learned

UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
MINUTE = timedelta(minutes=1)
OPEN = ClosedDays()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MONDAY = datetime(2026, 1, 5, tzinfo=timezone.utc)

Rows = Callable[[datetime], int | None]


def loads(
    days: int, rows: Rows, *, every: timedelta = HOUR, zone: ZoneInfo = UTC, start: datetime = MONDAY
) -> list[Beat]:
    """A load at every step of the zone's wall clock, a few minutes late; None: nothing came, and nobody reports."""
    chance = random.Random(7)
    wall = start.replace(tzinfo=None)
    beats = []
    for step in range(days * DAY // every):
        local = wall + step * every
        number = rows(local.replace(tzinfo=timezone.utc))
        at = local.replace(tzinfo=zone).astimezone(timezone.utc) + timedelta(seconds=chance.randrange(300))
        if number is not None:
            beats.append(Beat(at, number))
    return beats


def busy(at: datetime) -> int:
    """Some hundreds of rows, never twice the same."""
    return 300 + (at.toordinal() * 37 + at.hour * 91) % 257


def in_office_hours(at: datetime) -> int | None:
    return busy(at) if at.weekday() < 5 and 8 <= at.hour < 18 else None


def lesson(beats: list[Beat], now: datetime | None = None, **given) -> Habit | None:
    wanted = {"zone": UTC, "closed": OPEN, "budget": 0.1} | given
    return learn(beats, now or beats[-1].at + timedelta(minutes=1), **wanted)


def learned(beats: list[Beat], **given) -> Habit:
    habit = lesson(beats, **given)
    assert habit is not None
    return habit


def alarms(
    beats: list[Beat], *, zone: str = "UTC", closed: ClosedDays = OPEN, until: datetime | None = None
) -> list[Episode]:
    """Once there was time to learn; before it the fallback alarms at each weekend."""
    episodes = replay(Source("orders", Learned(), timezone=zone, closed=closed), beats, until=until)
    return [episode for episode in episodes if episode.opened > beats[0].at + 35 * DAY]


def without(beats: list[Beat], start: datetime, end: datetime) -> list[Beat]:
    return [beat for beat in beats if not start <= beat.at < end]


# -- learning ---------------------------------------------------------------------------------------------------------


def test_a_brand_new_source_has_no_habits():
    assert lesson([], MONDAY) is None
    assert lesson(loads(13, busy)) is None
    assert lesson(loads(15, busy)) is not None


def test_two_weeks_with_next_to_no_rows_teach_nothing():
    assert lesson(loads(28, lambda at: 5 if at.hour == 3 and at.weekday() == 0 else 0)) is None


def test_a_source_that_only_ever_loads_on_the_first_is_left_to_its_fallback():
    monthly = loads(180, lambda at: 1000 if at.day == 1 else 0, every=DAY)
    assert lesson(monthly) is None
    assert alarms(monthly) == []


def test_the_order_in_which_heartbeats_are_given_teaches_nothing():
    beats = loads(56, in_office_hours)
    shuffled = random.Random(1).sample(beats, len(beats))
    assert learned(shuffled, now=beats[-1].at) == learned(beats, now=beats[-1].at)


def test_nor_do_heartbeats_that_are_yet_to_come():
    beats = loads(70, busy)
    now = MONDAY + 56 * DAY
    assert learned(beats, now=now) == learned([beat for beat in beats if beat.at <= now], now=now)
    assert lesson(beats, MONDAY - DAY) is None


def test_heartbeats_at_every_minute_are_learned_from_the_latest_of_them():
    beats = [Beat(MONDAY + step * MINUTE, step % 977) for step in range(56 * DAY // MINUTE)]
    kept = lessons.worth_learning_from(beats, beats[-1].at)
    assert kept == beats[-PLENTY_OF_LOADS:]
    late_at = learned(beats).late_at(beats[-1].at, OPEN, UTC)
    assert beats[-1].at + MINUTE < late_at < beats[-1].at + 10 * MINUTE


def test_but_from_three_weeks_however_many_there_are(monkeypatch):
    monkeypatch.setattr(lessons, "PLENTY_OF_LOADS", 100)
    beats = loads(56, busy)
    kept = lessons.worth_learning_from(beats, beats[-1].at)
    assert kept == [beat for beat in beats if beat.at >= beats[-1].at - lessons.FEWEST_WEEKS]


def test_a_heartbeat_that_was_told_twice_does_no_harm():
    beats = [beat for beat in loads(70, in_office_hours) for _ in range(2)]
    assert alarms(beats) == []
    assert learned(beats).late_at(beats[-1].at, OPEN, UTC) is not None


def test_heartbeats_that_all_came_at_one_instant_say_nothing_of_lateness():
    habit = learned([Beat(MONDAY, rows) for rows in range(1, 40)], now=MONDAY + 20 * DAY)
    assert habit.late is None


def test_a_week_and_then_nothing_for_a_year_is_late_and_is_forgotten():
    beats = loads(7, busy)
    habit = learned(beats, now=MONDAY + 100 * DAY)
    assert habit.late_at(beats[-1].at, OPEN, UTC) < beats[-1].at + DAY
    assert lesson(beats, MONDAY + HISTORY + 8 * DAY) is None
    (alarm,) = replay(Source("orders", Learned()), beats, until=MONDAY + 365 * DAY)
    assert alarm.resolved is None


# -- written down -----------------------------------------------------------------------------------------------------


def test_what_was_learned_survives_being_written_down():
    habit = learned(loads(60, in_office_hours))
    again = Habit.from_json(habit.to_json())
    assert again.to_json() == habit.to_json()
    for hours in range(0, 24 * 8, 5):
        since = habit.learned_at + hours * HOUR
        assert again.late_at(since, OPEN, UTC) == habit.late_at(since, OPEN, UTC)
        assert again.band(since, UTC) == habit.band(since, UTC)


def test_what_is_never_an_alarm_survives_too():
    habit = Habit(MONDAY, HOUR, flat=Clock(60, 0, (0.0,) * 168, math.inf))
    assert Habit.from_json(habit.to_json()) == habit


def test_bands_stay_text_until_somebody_looks_at_them():
    habit = Habit(MONDAY, HOUR, bands="no bands at all")
    assert Habit.from_json(habit.to_json()) == habit


def edited(**changes) -> str:
    return json.dumps(json.loads(learned(loads(56, in_office_hours)).to_json()) | changes)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(lambda: edited(version=0), id="of an older version"),
        pytest.param(lambda: edited(version=2), id="of a newer version"),
        pytest.param(lambda: edited()[:-100], id="cut short"),
        pytest.param(lambda: edited(late=[60, 0]), id="a clock of another make"),
        pytest.param(lambda: edited(learned=1e99), id="learned at no time"),
        pytest.param(lambda: edited(gap=None), id="without a gap"),
        pytest.param(lambda: '{"learned":1767571200,"gap":3600.0,"zone":"UTC","late":null}', id="before versions"),
        pytest.param(lambda: "{}", id="empty"),
        pytest.param(lambda: "[]", id="a list"),
        pytest.param(lambda: "null", id="null"),
        pytest.param(lambda: "hourly", id="not JSON"),
        pytest.param(lambda: "", id="nothing"),
    ],
)
def test_a_text_that_cannot_be_read_is_no_habit_and_no_error(text):
    assert Habit.from_json(edited()) is not None
    assert Habit.from_json(text()) is None


# -- late -------------------------------------------------------------------------------------------------------------


def test_an_hourly_job_is_late_soon_after_its_first_missed_hour():
    habit = learned(loads(56, busy))
    last = MONDAY + 56 * DAY
    late_at = habit.late_at(last, OPEN, UTC)
    assert last + timedelta(minutes=65) < late_at <= last + timedelta(minutes=120)


def test_quiet_nights_and_weekends_are_no_alarm():
    assert alarms(loads(70, in_office_hours)) == []


def test_a_working_day_without_loads_is_one():
    beats = loads(70, in_office_hours)
    tuesday = MONDAY + 57 * DAY
    (alarm,) = alarms(without(beats, tuesday, tuesday + DAY))
    assert alarm.kind is IncidentKind.LATE
    assert tuesday + 8 * HOUR < alarm.opened <= tuesday + 12 * HOUR
    assert alarm.resolved is not None


def test_a_load_at_every_month_end_is_no_surprise_when_it_comes_nor_when_it_does_not():
    def month_end(at: datetime) -> int:
        return 9000 if (at + DAY).day == 1 else busy(at)

    assert alarms(loads(120, month_end, every=DAY)) == []


@pytest.mark.parametrize("rows", [busy, in_office_hours])
def test_the_clocks_change_in_berlin_without_an_alarm(rows):
    start = datetime(2026, 1, 26, tzinfo=timezone.utc)
    assert alarms(loads(80, rows, zone=BERLIN, start=start), zone="Europe/Berlin") == []
    autumn = datetime(2026, 8, 24, tzinfo=timezone.utc)
    assert alarms(loads(80, rows, zone=BERLIN, start=autumn), zone="Europe/Berlin") == []


@pytest.mark.parametrize(
    "start", [datetime(2026, 1, 26, tzinfo=timezone.utc), datetime(2026, 8, 24, tzinfo=timezone.utc)]
)
@pytest.mark.parametrize("rows", [in_office_hours, lambda at: busy(at) if at.hour == 6 else None])
def test_nor_where_nobody_said_that_it_is_berlin(rows, start):
    assert alarms(loads(90, rows, zone=BERLIN, start=start)) == []


@pytest.mark.parametrize("name", ["Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Africa/Cairo"])
@pytest.mark.parametrize("month", [2, 8])
def test_odd_offsets_and_odd_clock_changes_are_no_alarm(name, month):
    start = datetime(2026, month, 2, tzinfo=timezone.utc)
    assert alarms(loads(100, in_office_hours, zone=ZoneInfo(name), start=start), zone=name) == []


def test_a_source_of_every_minute_may_live_through_an_hour_twice():
    start = datetime(2026, 10, 5, tzinfo=timezone.utc)
    beats = [Beat(start + step * 5 * MINUTE, 1 + step % 97) for step in range(28 * DAY // (5 * MINUTE))]
    habit = learned(beats, zone=BERLIN)
    at = datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)
    assert at + 5 * MINUTE < habit.late_at(at, OPEN, BERLIN) < at + 3 * HOUR


def test_an_incident_does_not_hide_the_next_one():
    beats = loads(84, busy)
    first, second = MONDAY + 57 * DAY, MONDAY + 70 * DAY
    broken = without(without(beats, first, first + 2 * DAY), second, second + DAY)
    opened = [alarm.opened for alarm in alarms(broken)]
    assert len(opened) == 2
    assert opened[0] - first <= 3 * HOUR
    assert opened[1] - second <= 5 * HOUR


def test_what_happens_every_week_is_learned_and_no_incident():
    closing = loads(150, lambda at: busy(at) if at < MONDAY + 60 * DAY or at.weekday() < 5 else None)
    opened = [alarm.opened for alarm in alarms(closing)]
    assert opened, "the first quiet weekend was a surprise"
    assert opened[-1] < MONDAY + 120 * DAY


def test_declared_closed_days_are_neither_learned_from_nor_counted():
    closed = ClosedDays(dates=frozenset({date(2026, 3, 3), date(2026, 3, 4)}))
    beats = [beat for beat in loads(70, busy) if not closed.is_closed(beat.at, UTC)]
    assert alarms(beats, closed=closed) == []
    assert len(alarms(beats)) == 1


WEEKENDS = ClosedDays(weekdays=frozenset({5, 6}))


def test_loads_at_a_closed_weekend_are_neither_missed_nor_needed():
    assert alarms(loads(70, busy), closed=WEEKENDS) == []
    assert alarms(loads(70, lambda at: busy(at) if at.weekday() < 5 else None), closed=WEEKENDS) == []


def test_a_single_closed_weekend_of_loads_says_nothing_of_lateness():
    saturday = MONDAY + 5 * DAY
    habit = learned(loads(2, busy, start=saturday), now=saturday + 20 * DAY, closed=WEEKENDS)
    assert habit.late is None
    assert habit.flat is None


@given(
    minutes=st.lists(st.integers(0, 60 * 24 * 30), min_size=2, max_size=6).map(sorted),
    weekdays=st.frozensets(st.integers(0, 6)),
)
def test_open_minutes_are_those_of_the_calendar(minutes, weekdays):
    closed = ClosedDays(weekdays=weekdays)
    first, *_, last = open_minutes(minutes, closed)
    start, end = (datetime(1970, 1, 1, tzinfo=timezone.utc) + minute * MINUTE for minute in (minutes[0], minutes[-1]))
    assert (last - first) * MINUTE == closed.open_time(start, end, UTC)


def test_the_longer_silences_of_the_past_the_longer_those_to_come():
    usual = [float(silence) for silence in range(60)]
    assert tail_threshold(usual, 0.1) > 1.1 * max(usual)
    assert tail_threshold(usual, 0.1) > tail_threshold(usual, 1.0) > tail_threshold(usual[:-5], 1.0)
    assert tail_threshold(usual, TAIL) == pytest.approx(1.1 * max(usual))
    assert tail_threshold([], 0.1) == 0


def test_a_smaller_budget_never_alarms_sooner():
    chance = random.Random(3)
    sparse = loads(56, lambda at: chance.choice([None, None, 3]) if 7 <= at.hour < 22 else None)
    since = sparse[-1].at
    ends = [learned(sparse, budget=budget).late_at(since, OPEN, UTC) for budget in (0.01, 0.1, 1.0)]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] > ends[-1]


def test_a_source_that_stays_away_for_good_is_told_once():
    beats = loads(56, busy)
    (alarm,) = alarms(beats, until=beats[-1].at + 60 * DAY)
    assert alarm.resolved is None


weights = st.lists(st.sampled_from([0.0, 0.01, 0.3, 1.2, 5.0]), min_size=168, max_size=168)
closures = st.builds(
    ClosedDays,
    weekdays=st.frozensets(st.integers(0, 6), max_size=3),
    dates=st.frozensets(st.dates(date(2026, 3, 1), date(2026, 4, 30)), max_size=5),
)


@settings(deadline=None, max_examples=60)
@given(
    weights=weights,
    phase=st.integers(0, 59),
    threshold=st.floats(0, 60),
    closed=closures,
    minutes=st.integers(0, 40 * 24 * 60),
    zone=st.sampled_from([UTC, BERLIN, ZoneInfo("Asia/Kolkata")]),
)
def test_when_silence_is_too_long_is_what_going_through_it_hour_by_hour_finds(
    weights, phase, threshold, closed, minutes, zone
):
    clock = Clock(60, phase, tuple(weights), threshold)
    since = wall_minute(datetime(2026, 3, 2, tzinfo=timezone.utc) + timedelta(minutes=minutes), zone)
    found = clock.runs_out(since, closed)
    slot, surprise = clock.slot(since), 0.0
    for step in range(1, 24 * 7 * 20):
        end = clock.end_of(slot + step)
        day = (datetime(1970, 1, 1) + timedelta(minutes=end - 1)).date()
        if not closed.covers(day):
            surprise += clock.weight_at(end - 1)
        if surprise > threshold + 1e-6:
            break
    else:
        assert found is None or found > end
        return
    assert found == end or abs(surprise - clock.weight_at(end - 1) - threshold) < 1e-6


# -- flat -------------------------------------------------------------------------------------------------------------


def shop(at: datetime) -> int:
    return busy(at) if 8 <= at.hour < 20 else 0


def test_loads_without_rows_at_night_are_not_flat():
    assert alarms(loads(70, shop)) == []


def test_a_job_that_runs_and_moves_nothing_by_day_is_flat():
    ill = MONDAY + 60 * DAY
    beats = loads(70, lambda at: 0 if ill <= at < ill + DAY else shop(at))
    (alarm,) = alarms(beats)
    assert alarm.kind is IncidentKind.FLAT
    assert ill + 8 * HOUR < alarm.opened <= ill + 12 * HOUR


def test_a_first_load_without_rows_ever_may_be_chance():
    once = MONDAY + 60 * DAY + 12 * HOUR
    assert alarms(loads(70, lambda at: 0 if at == once else busy(at))) == []


# -- stuck ------------------------------------------------------------------------------------------------------------


def test_the_same_number_again_and_again_is_stuck():
    ill = MONDAY + 60 * DAY + 12 * HOUR
    (alarm,) = alarms(loads(70, lambda at: 300 if ill <= at < ill + DAY else busy(at)))
    assert alarm.kind is IncidentKind.STUCK
    assert alarm.opened <= ill + 6 * HOUR


def test_a_source_that_always_moves_the_same_is_never_stuck():
    for number in (1, 250_000):
        assert alarms(loads(70, lambda at, number=number: number)) == []


def test_however_large_the_numbers_are():
    number = 2**63 - 1
    beats = loads(70, lambda at: number - busy(at))
    assert alarms(beats) == []
    assert alarms(loads(70, lambda at: number)) == []
    low, high = learned(beats).band(MONDAY + 12 * HOUR, UTC)
    assert number - 600 < low <= high < number


def test_low_numbers_may_repeat_more_often_than_high_ones():
    chance = random.Random(11)
    habit = learned(loads(56, lambda at: chance.choice([1, 2, 3, 2000 + chance.randrange(2000)])))
    at = habit.learned_at
    assert habit.same_surprise(at, 2) < habit.same_surprise(at, 2500) / 2
    assert habit.same_surprise(at, 10**12) >= habit.same_surprise(at, 2500)


def test_a_source_that_was_stuck_once_is_found_stuck_again():
    first, second = MONDAY + 57 * DAY, MONDAY + 70 * DAY
    ill = [(first, first + 2 * DAY), (second, second + DAY)]
    beats = loads(84, lambda at: 300 if any(start <= at < end for start, end in ill) else busy(at))
    found = alarms(beats)
    assert [alarm.kind for alarm in found] == [IncidentKind.STUCK, IncidentKind.STUCK]
    assert found[1].opened - second <= 8 * HOUR


def test_what_only_the_detector_counted_teaches_when_rows_come_but_not_when_jobs_run():
    counted = [Beat(beat.at, beat.rows, measured=True) for beat in loads(56, shop)]
    habit = learned(counted)
    assert habit.late is None
    assert habit.late_at(counted[-1].at, OPEN, UTC) is None
    assert habit.zero_surprise(MONDAY + 12 * HOUR) > habit.zero_surprise(MONDAY + 3 * HOUR)


def test_pings_teach_when_to_expect_the_next_and_nothing_of_rows():
    habit = learned([Beat(beat.at, None) for beat in loads(56, busy)])
    assert habit.late_at(habit.learned_at, OPEN, UTC) < habit.learned_at + 3 * HOUR
    assert habit.flat is None
    assert habit.zero_surprise(MONDAY) == 0
    assert habit.same_surprise(MONDAY, 5) == 0
    assert habit.band(MONDAY, UTC) is None
    assert habit.explain_stuck(5) == "How often its numbers repeat was not learned."


def test_where_only_some_loads_say_how_much_the_others_are_taken_for_zero_as_when_they_are_heard():
    habit = learned([Beat(beat.at, beat.rows if beat.at.hour % 2 else None) for beat in loads(56, busy)])
    noon = MONDAY + 12 * HOUR
    assert habit.zero_surprise(noon) < 0.1 < habit.zero_surprise(noon + HOUR)


# -- schedules --------------------------------------------------------------------------------------------------------


def test_the_grace_of_a_schedule_is_how_long_its_loads_took():
    chance = random.Random(5)
    cron = Cron(("0 6 * * *",))
    beats = [
        Beat(MONDAY + day * DAY + 6 * HOUR + timedelta(minutes=20 + chance.randrange(15)), 10) for day in range(56)
    ]
    grace = learned(beats, schedule=cron).grace
    assert timedelta(minutes=34) < grace < timedelta(minutes=90)


def test_a_load_that_was_an_incident_does_not_stretch_the_grace():
    cron = Cron(("0 6 * * *",))
    beats = [Beat(MONDAY + day * DAY + 6 * HOUR + timedelta(minutes=10 + day % 5), 10) for day in range(56)]
    beats[40] = Beat(beats[40].at + 9 * HOUR, 10)
    masked = [(beats[40].at - 8 * HOUR, beats[40].at)]
    assert learned(beats, schedule=cron, masked=masked).grace < HOUR
    assert learned(beats, schedule=cron).grace > 5 * HOUR


def test_without_a_schedule_there_is_no_grace():
    assert learned(loads(56, busy)).grace is None


# -- for people -------------------------------------------------------------------------------------------------------


def test_a_band_shows_what_a_load_at_this_hour_usually_has():
    habit = learned(loads(56, shop))
    low, high = habit.band(MONDAY + 12 * HOUR, UTC)
    assert 300 <= low <= high <= 557
    assert habit.band(MONDAY + 2 * HOUR, UTC) == (0, 0)


def test_what_is_usual_is_told_in_a_sentence():
    habit = learned(loads(56, shop))
    noon = MONDAY + 12 * HOUR
    assert habit.explain_silence(noon, UTC) == "Usually it reports every 60 minutes."
    assert habit.explain_zeros(noon, UTC) == "On Mondays at this hour 98 % of loads had some rows."
    assert habit.explain_stuck(300).startswith("The same number twice in a row happened in about 1 of ")
    office = learned(loads(56, in_office_hours))
    assert office.explain_silence(noon, UTC) == "On Mondays at this hour a load came in 98 % of weeks."


def test_a_skip_teaches_nothing_neither_to_who_counts_nor_to_who_does_not():
    for counts in (True, False):
        beats = [beat if counts else replace(beat, rows=None) for beat in loads(42, in_office_hours)]
        skips = [Beat(beat.at + 20 * MINUTE, 0, note="skipped: credential `crm` is expired") for beat in beats]
        assert learned(sorted([*beats, *skips[:-1]], key=lambda beat: beat.at)) == learned(beats)
