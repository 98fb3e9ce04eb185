from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_oauth_guard.domain.speaking import CLOCKS_DIFFER, beat_at, instant, row_count, run_name
from airflow_oauth_guard.errors import ConfigurationError, NaiveDatetimeError

NOW = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(("given", "meant"), [(None, None), ("", None), ("None", None), (0, 0), ("0", 0), (" +7 ", 7)])
def test_rows_are_a_whole_number_or_unknown(given, meant):
    assert row_count(given) == meant


@pytest.mark.parametrize("given", [True, 7.0, "7.0", "٧", "1" * 19, "NaN", [], object()])
def test_what_is_no_whole_number_is_not_made_one(given):
    with pytest.raises(ConfigurationError, match="`rows` is"):
        row_count(given)


def test_an_instant_is_read_in_its_own_time_zone_and_kept_in_utc():
    assert instant("2026-03-02T13:00:00+01:00", "watermark") == NOW
    assert instant(NOW, "watermark") == NOW
    assert instant(None, "watermark") is instant("", "watermark") is None
    with pytest.raises(NaiveDatetimeError, match="watermark"):
        instant(NOW.replace(tzinfo=None), "watermark")


def test_a_heartbeat_that_says_nothing_of_its_time_is_of_now():
    assert beat_at(None, NOW) == NOW
    assert beat_at("2026-01-01T00:00:00Z", NOW) == datetime(2026, 1, 1, tzinfo=timezone.utc)


def test_a_heartbeat_from_the_future_may_not_keep_an_alarm_quiet():
    assert beat_at(NOW + CLOCKS_DIFFER, NOW) == NOW, "another machine's clock may be a little ahead"
    with pytest.raises(ConfigurationError, match="still to come"):
        beat_at(NOW + CLOCKS_DIFFER + timedelta(seconds=1), NOW)


def test_a_run_has_a_name_that_fits_or_none():
    assert (run_name(None), run_name(""), run_name("17")) == (None, None, "17")
    with pytest.raises(ConfigurationError, match="251 characters"):
        run_name("x" * 251)
