"""The chart of a source's rows: where each heartbeat stands, what is usual, and how long nothing has come."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow_oauth_guard.plugin.charts import HEIGHT, WIDTH, rows_chart
from airflow_oauth_guard.plugin.views.sources import BeatView

NOW = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def beat(hours_ago: float, rows: int | None, usual: tuple[int, int] | None = None) -> BeatView:
    return BeatView(at=NOW - hours_ago * HOUR, rows=rows, usual=usual)


def test_nothing_heard_is_no_chart():
    assert rows_chart([], NOW, None) is None


def test_bars_stand_where_their_heartbeats_were_and_the_tallest_fits():
    chart = rows_chart([beat(10, 50), beat(5, 100), beat(0, 0)], NOW, None)
    assert [bar.x for bar in chart.bars] == [0, WIDTH / 2, WIDTH]
    heights = [bar.height for bar in chart.bars]
    assert heights[2] == 0 < heights[0] < heights[1] < HEIGHT
    assert all(abs(bar.y + bar.height - HEIGHT) < 0.01 for bar in chart.bars)


def test_the_gap_begins_with_the_last_load_that_had_rows_and_ends_now():
    chart = rows_chart([beat(10, 50), beat(5, 0), beat(1, 0)], NOW, None)
    assert (chart.quiet_from, chart.now_at) == (0, WIDTH)


def test_a_load_of_which_nobody_knows_the_rows_is_no_gap():
    assert rows_chart([beat(10, 50), beat(5, None)], NOW, None).quiet_from == WIDTH / 2


def test_a_run_that_was_skipped_is_part_of_the_gap():
    skipped = BeatView(at=NOW - HOUR, rows=None, usual=None, note="skipped: no token")
    assert rows_chart([beat(10, 50), skipped], NOW, None).quiet_from == 0


def test_an_alarm_to_come_is_on_the_chart_and_one_before_it_is_not():
    chart = rows_chart([beat(10, 50)], NOW, NOW + 10 * HOUR)
    assert (chart.now_at, chart.alarm_at) == (WIDTH / 2, WIDTH)
    assert rows_chart([beat(10, 50)], NOW, NOW - 20 * HOUR).alarm_at is None


def test_the_band_goes_along_the_high_numbers_and_back_along_the_low_ones():
    chart = rows_chart([beat(10, 50, (40, 60)), beat(0, 50, (45, 120))], NOW, None)
    corners = [tuple(map(float, corner.split(","))) for corner in chart.band.split()]
    assert [x for x, _ in corners] == [0, WIDTH, WIDTH, 0]
    assert corners[0][1] < corners[3][1]
    assert chart.most == 120, "the band fits as well"


def test_one_learned_hour_makes_no_band():
    assert rows_chart([beat(10, 50, (40, 60)), beat(0, 50)], NOW, None).band == ""


def test_a_single_heartbeat_a_moment_ago_is_a_chart_all_the_same():
    chart = rows_chart([beat(0, 7)], NOW, None)
    assert (chart.bars[0].x, chart.most) == (0, 7)
