from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_oauth_guard.domain.speaking import (
    CLOCKS_DIFFER,
    LONGEST_NOTE,
    beat_at,
    instant,
    is_row_count,
    note,
    row_count,
    run_name,
)
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


def test_a_note_is_one_line_that_fits():
    assert note(None) == note("  ") == ""
    assert note(" skipped:\n credential `crm`\tis expired ") == "skipped: credential `crm` is expired"
    assert note("word " * 100) == ("word " * 100).strip()
    cut = note("word " * 200)
    assert (len(cut), cut[-1]) == (LONGEST_NOTE, "…")


def test_a_note_holds_nothing_that_looks_like_a_secret_not_even_where_it_is_cut():
    secret = "Zx9-" * 10
    assert note(f"token {secret} refused") == "token <redacted> refused"
    assert "Zx9" not in note("word " * 98 + secret)


@pytest.mark.parametrize("given", [None, True, -1, 7.0, "7", []])
def test_what_comes_with_an_assets_update_is_a_number_of_rows_or_none(given):
    assert is_row_count(0)
    assert is_row_count(7)
    assert not is_row_count(given)
