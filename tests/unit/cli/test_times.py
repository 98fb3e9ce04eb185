from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_oauth_guard.cli.times import read_duration, zulu
from airflow_oauth_guard.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("45m", timedelta(minutes=45)),
        ("45 min", timedelta(minutes=45)),
        ("4h", timedelta(hours=4)),
        ("1.5h", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1d12h", timedelta(hours=36)),
        ("1d 12h", timedelta(hours=36)),
        ("1w", timedelta(weeks=1)),
        ("30s", timedelta(seconds=30)),
    ],
)
def test_a_duration_is_read_as_people_write_it(text, meant):
    assert read_duration(text, "--for") == meant


@pytest.mark.parametrize(
    "text",
    ["", "4", "h", "4 hours", "-4h", "4h!", "0h", "soon", "4y", "1e9h", "٤h", "9999999h", "99999w", "99999w 99999w"],
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ConfigurationError, match=r"--for is .*; write a duration"):
        read_duration(text, "--for")


def test_an_instant_is_printed_in_utc():
    eastern = timezone(timedelta(hours=-5))
    assert zulu(datetime(2026, 1, 1, 20, 30, 15, 999, tzinfo=eastern)) == "2026-01-02T01:30:15Z"
    assert zulu(None) is None
