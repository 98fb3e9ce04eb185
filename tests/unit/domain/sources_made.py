"""Sources of every kind, for property tests."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

from hypothesis import strategies as st

from airflow_oauth_guard.domain.calendar import ClosedDays
from airflow_oauth_guard.domain.sources import AssetEvents, Source, SqlCount, SqlNewest
from airflow_oauth_guard.domain.windows import Cron, Learned, Window
from tests.unit.domain.builders import MINUTE

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu")

CRONS = (
    *("0 6 * * *", "30 2 * * *", "0 * * * *", "*/20 * * * *", "15 1-4 * * *", "0 0 * * *", "@daily"),
    *("0 6 L * *", "0 6 28-31 * *", "0 6 1 * *", "0 9 * * mon-fri", "0 9 * * mon#1", "59 23 29 2 *"),
)

INSTANTS = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31), timezones=st.just(timezone.utc))

DURATIONS = st.timedeltas(timedelta(seconds=1), timedelta(days=20))

DAYS = st.dates(date(2023, 12, 1), date(2028, 1, 31))

CLOSED = st.builds(
    ClosedDays,
    weekdays=st.frozensets(st.integers(0, 6), max_size=3),
    dates=st.frozensets(DAYS, max_size=6),
    yearly=st.frozensets(
        st.dates(date(2000, 1, 1), date(2000, 12, 31)).map(lambda day: (day.month, day.day)), max_size=4
    ),
)

CRON_WINDOWS = st.builds(
    Cron,
    st.lists(st.sampled_from(CRONS), min_size=1, max_size=2).map(tuple),
    st.none() | st.timedeltas(MINUTE, timedelta(hours=30)),
    st.sampled_from((0.1, 1.0)),
)

WINDOWS: st.SearchStrategy[Window] = (
    st.timedeltas(10 * MINUTE, timedelta(days=40))
    | CRON_WINDOWS
    | st.builds(Learned, st.timedeltas(MINUTE, timedelta(days=3)), st.sampled_from((0.1, 0.25)))
)

MEASURES = st.none() | st.sampled_from(
    (SqlCount("warehouse", "select 1"), SqlNewest("warehouse", "select now()"), AssetEvents("orders"))
)


@st.composite
def sources(draw: st.DrawFn) -> Source:
    """A source that can be declared."""
    window, closed, measure = draw(WINDOWS), draw(CLOSED), draw(MEASURES)
    if isinstance(window, Cron) and any("mon" in expression for expression in window.expressions):
        # Else its days may all be closed.
        closed = ClosedDays(dates=closed.dates)
    source = Source(
        name=draw(st.text(min_size=1, max_size=250)),
        window=window,
        credential=draw(st.none() | st.just("crm_prod")),
        measure=measure,
        alert_route=draw(st.sampled_from(("", "team-a"))),
        timezone=draw(st.sampled_from(ZONES)),
        closed=closed,
        stuck_after=draw(st.none() | st.integers(2, 5)),
        pings=draw(st.booleans()),
        urgent=draw(st.booleans()),
    )
    if source.asks_the_destination and source.stuck_after:
        return Source(source.name, source.window, measure=measure, timezone=source.timezone, closed=closed)
    return source
