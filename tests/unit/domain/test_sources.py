from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.sources import (
    AssetEvents,
    Source,
    SqlCount,
    SqlNewest,
    read_source,
    require_distinct,
    source_as_json,
    sources_from_json,
    speaks_for,
)
from airflow_oauth_guard.domain.windows import Cron, Learned
from airflow_oauth_guard.errors import ConfigurationError
from tests.unit.domain.builders import DAY, HOUR, MINUTE
from tests.unit.domain.sources_made import sources

WEEKENDS = ClosedDays(weekdays=frozenset({5, 6}))
ASKED = {"conn_id": "warehouse", "sql": "select 1"}


def test_sources_are_read_with_all_their_keys():
    text = json.dumps(
        [
            {"name": "orders", "window_seconds": 3600},
            {
                "name": "users",
                "cron": ["0 6 * * *"],
                "grace_seconds": 1800,
                "credential": "crm_prod",
                "count": {"conn_id": "warehouse", "sql": "select 1"},
                "alert_route": "team-a",
                "timezone": "Europe/Berlin",
                "closed": {"weekdays": ["sat", "sun"]},
                "urgent": True,
            },
            {"name": "visits", "learned": True, "asset": "visits", "stuck_after": 3, "pings": True},
            {"name": "bills", "window_seconds": 60, "newest": ASKED},
        ]
    )
    assert sources_from_json(text) == [
        Source("orders", HOUR),
        Source(
            "users",
            Cron(("0 6 * * *",), 30 * MINUTE),
            credential="crm_prod",
            measure=SqlCount("warehouse", "select 1"),
            alert_route="team-a",
            timezone="Europe/Berlin",
            closed=WEEKENDS,
            urgent=True,
        ),
        Source("visits", Learned(), measure=AssetEvents("visits"), stuck_after=3, pings=True),
        Source("bills", MINUTE, measure=SqlNewest("warehouse", "select 1")),
    ]


def test_a_calendar_is_written_once_and_named_by_many():
    text = json.dumps(
        {
            "calendars": {"office": {"weekdays": ["sat", "sun"]}},
            "sources": [{"name": name, "window_seconds": 60, "closed": "office"} for name in "ab"],
        }
    )
    assert [source.closed for source in sources_from_json(text)] == [WEEKENDS, WEEKENDS]


def test_a_calendar_that_nobody_uses_is_checked_all_the_same():
    with pytest.raises(ConfigurationError, match=r"Calendar `office`: `closed.weekdays` has 'someday'"):
        sources_from_json(json.dumps({"calendars": {"office": {"weekdays": ["someday"]}}, "sources": []}))


def entry(**changes: Any) -> str:
    return json.dumps([{"name": "fine", "window_seconds": 60}, {"name": "orders", "window_seconds": 60} | changes])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "not JSON"),
        ("{}", "list of objects"),
        ('"orders"', "list of objects"),
        ("null", "list of objects"),
        ('{"sources": {}}', "list of objects"),
        ('{"sources": [], "source": []}', "`calendars` by name and `sources`, and nothing else"),
        ('{"sources": [], "calendars": ["office"]}', "`calendars` by name"),
        ('{"sources": [], "calendars": {"office": "sat"}}', "Calendar `office`: `closed` is 'sat'"),
        ("[7]", "Source 1 is 7"),
        ('[{"window_seconds": 60}]', "`name` is missing"),
        ('[{"name": "orders"}]', r"Source 1 \(`orders`\): there is no window; write `window_seconds`"),
        (entry(name=""), r"Source 2.*`name` is missing"),
        (entry(name=7), r"Source 2.*`name` is missing"),
        (entry(name="x" * 251), r"Source 2.*longer than 250 characters"),
        (entry(window=5), r"Source 2 \(`orders`\): unknown key `window`"),
        (entry(window_seconds=0), r"`orders`.*`window_seconds` is 0"),
        (entry(grace_seconds=5), r"`orders`.*`grace_seconds` belongs to `cron`"),
        (entry(cron="@daily"), r"`orders`.*`window_seconds` and `cron` are two windows"),
        (entry(count={"sql": "select 1"}), r"`orders`.*`count` needs exactly"),
        (entry(count={}), r"`orders`.*`count` needs exactly"),
        (entry(count={"conn_id": "w", "sql": "s", "x": 1}), r"`orders`.*`count` needs exactly"),
        (entry(count="select 1"), r"`orders`.*`count` needs exactly"),
        (entry(count={"conn_id": "w", "sql": None}), r"`orders`.*`count`"),
        (entry(newest={"conn_id": "w", "sql": ""}), r"`orders`.*`newest` needs exactly"),
        (entry(newest=ASKED, count=ASKED), r"`orders`.*`count` and `newest` are two measures"),
        (entry(asset=""), r"`orders`.*`asset` is empty"),
        (entry(asset=["a"]), r"`orders`.*`asset` is \['a'\]"),
        (entry(credential=7), r"`orders`.*`credential` is 7"),
        (entry(credential=0), r"`orders`.*`credential` is 0"),
        (entry(alert_route=7), r"`orders`.*`alert_route` is 7"),
        (entry(timezone="Europe/Atlantis"), r"`orders`.*no time zone 'Europe/Atlantis'"),
        (entry(timezone=2), r"`orders`.*`timezone` is 2"),
        (entry(closed="office"), r"`orders`.*no calendar `office`; declared are none"),
        (entry(closed=""), r"`orders`.*no calendar ``"),
        (entry(closed=[]), r"`orders`.*`closed` is \[\]"),
        (entry(closed={"weekdays": ["someday"]}), r"`orders`.*`closed.weekdays` has 'someday'"),
        (entry(stuck_after=1), r"`orders`.*`stuck_after` is 1; write a number of loads, 2 or more"),
        (entry(stuck_after=2.5), r"`orders`.*`stuck_after` is 2.5"),
        (entry(stuck_after=True), r"`orders`.*`stuck_after` is True"),
        (entry(stuck_after=3, count=ASKED), r"`orders`.*`stuck_after` counts loads"),
        (entry(pings="yes"), r"`orders`.*`pings` is 'yes'; write true or false"),
        (entry(urgent=1), r"`orders`.*`urgent` is 1"),
        (entry(name="fine"), "`fine` is declared twice"),
    ],
)
def test_a_wrong_declaration_is_refused_naming_the_entry_and_the_key(text, says):
    with pytest.raises(ConfigurationError, match=says):
        sources_from_json(text)


def test_a_schedule_that_comes_on_closed_days_only_is_refused():
    with pytest.raises(ConfigurationError, match=r"`orders`.*`cron` comes on days only that `closed` closes"):
        read_source({"name": "orders", "cron": "0 6 * * sat", "closed": {"weekdays": ["sat"]}})


def test_what_is_null_is_not_given():
    keys = ("alert_route", "credential", "count", "newest", "asset", "timezone", "closed", "stuck_after", "cron")
    (_, source) = sources_from_json(entry(**dict.fromkeys(keys)))
    assert source == Source("orders", MINUTE)


def test_every_name_that_is_declared_twice_is_named():
    with pytest.raises(ConfigurationError, match="`a`, `b`"):
        require_distinct([Source(name, DAY) for name in "abcab"])


@pytest.mark.parametrize(
    ("window", "learns"),
    [(HOUR, False), (Cron(("@daily",), HOUR), False), (Cron(("@daily",)), True), (Learned(), True)],
)
def test_a_source_learns_what_nobody_said_of_its_window(window, learns):
    assert Source("orders", window).learns is learns


@given(sources())
def test_a_source_survives_being_written_down(source):
    assert read_source(json.loads(json.dumps(source_as_json(source)))) == source


def test_what_is_as_by_default_is_not_written_down():
    assert source_as_json(Source("orders", timedelta(hours=1))) == {"name": "orders", "window_seconds": 3600}


def test_an_asset_speaks_for_who_measures_it_or_has_its_name():
    assert speaks_for(Source("contacts", timedelta(hours=1)), "contacts")
    assert speaks_for(Source("contacts", timedelta(hours=1), measure=SqlCount("db", "select 1")), "contacts")
    assert speaks_for(Source("crm", timedelta(hours=1), measure=AssetEvents("contacts")), "contacts")
    assert not speaks_for(Source("crm", timedelta(hours=1)), "contacts")
    assert not speaks_for(Source("contacts", timedelta(hours=1), measure=AssetEvents("deals")), "contacts")
