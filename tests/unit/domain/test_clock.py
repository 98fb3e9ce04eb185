from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.clock import aware, clock_skew, parse_instant, words
from airflow_oauth_guard.errors import NaiveDatetimeError
from tests.unit.domain.builders import DAY, HOUR, MINUTE, NOW, SECOND


class SaysNothing(tzinfo):
    """A time zone that knows no offset; Python calls such an instant naive."""

    def utcoffset(self, moment):
        return None

    def dst(self, moment):
        return None

    def tzname(self, moment):
        return None


@pytest.mark.parametrize("zone", [None, SaysNothing()])
def test_a_naive_instant_is_refused_with_the_name_of_the_value(zone):
    with pytest.raises(NaiveDatetimeError, match=r"`window_opens`.*2026-03-14T09:00:00.*no time zone"):
        aware(datetime(2026, 3, 14, 9, tzinfo=zone), "window_opens")


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), st.timedeltas(timedelta(hours=-14), timedelta(hours=14))
)
def test_an_aware_instant_stays_the_same_moment_and_becomes_utc(moment, offset):
    there = moment.replace(tzinfo=timezone(offset))
    here = aware(there, "it")
    assert here == there
    assert here.utcoffset() == timedelta()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-14T09:00:00Z", NOW),
        ("2026-03-14T10:00:00+01:00", NOW),
        ("2026-03-13T23:30:00-09:30", NOW),
    ],
)
def test_a_text_with_an_offset_is_read_as_utc(text, moment):
    assert parse_instant(text, "it") == moment
    assert parse_instant(text, "it").utcoffset() == timedelta()


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-14T09:00:00",
        "2026-03-14",
        "09:00",
        "P1D",
        "2026-03-14/2026-03-15",
        "2026-02-30T00:00:00Z",
        "tomorrow",
        "now",
        "",
    ],
)
def test_a_text_that_is_no_instant_is_refused_with_the_name_of_the_value(text):
    with pytest.raises(NaiveDatetimeError, match="`expires_at`"):
        parse_instant(text, "expires_at")


@pytest.mark.rfc("9110", "6.6.1")
@pytest.mark.parametrize(
    ("header", "skew"),
    [
        ("Sat, 14 Mar 2026 09:00:00 GMT", timedelta()),
        ("Sat, 14 Mar 2026 08:50:00 GMT", 10 * MINUTE),
        ("Sat, 14 Mar 2026 10:00:00 GMT", -HOUR),
        ("Sat, 14 Mar 2026 09:00:00 -0000", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_clock_skew_is_how_far_we_are_ahead_or_unknown(header, skew):
    assert clock_skew(header, NOW) == skew


@pytest.mark.parametrize(
    "header",
    ["Mon, 01 Jan 2024 00:00:00 +9999999999999999999", "Mon, 01 Jan 99999999999999999999999 00:00:00 GMT"],
    ids=["offset", "year"],
)
def test_an_absurd_date_header_leaves_the_skew_unknown(header):
    assert clock_skew(header, NOW) is None


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (timedelta(), "0 s"),
        (90 * SECOND, "90 s"),
        (2 * MINUTE, "2 min"),
        (HOUR, "1 h"),
        (2 * HOUR + 5 * MINUTE, "2 h 5 min"),
        (3 * DAY + 4 * HOUR + 59 * MINUTE, "3 d 4 h"),
        (-10 * MINUTE, "10 min"),
    ],
)
def test_durations_are_said_as_people_say_them(duration, said):
    assert words(duration) == said


def test_the_words_for_a_duration_never_claim_more_than_it():
    for minutes in range(2, 3000, 7):
        duration = timedelta(minutes=minutes, seconds=59)
        parts = words(duration).split()
        units = {"d": DAY, "h": HOUR, "min": MINUTE, "s": SECOND}
        claimed = sum((int(n) * units[unit] for n, unit in zip(parts[::2], parts[1::2], strict=True)), timedelta())
        assert claimed <= duration < claimed + (HOUR if claimed >= DAY else MINUTE)
