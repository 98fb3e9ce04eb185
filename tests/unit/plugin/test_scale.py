"""What a page costs does not depend on how much there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("airflow", reason="the plugin runs inside Airflow's API server")

from sqlalchemy import Engine, Table, event, insert, select

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import consumers, credentials, evidence, incidents, sources, statuses, tokens
from tests.airflow_parts import WHO, enrolled, incident_about, lapse, used_by, utcnow
from tests.unit.plugin.browsing import Browser

pytestmark = pytest.mark.airflow

FEW, MANY = 60, 10_000
MOST_QUERIES = 8

LISTS = (
    "/",
    "/?trouble=true&sort=lapses&descending=true",
    "/?search=crm_0&sort=refreshed",
    "/?provider=google&connection_class=refresh_token&status=active&offset=50",
    "/api/credentials?limit=500",
    "/sources",
    "/sources?search=crm_&offset=50",
    "/api/sources?limit=500",
    "/incidents",
    "/incidents?phase=open&about=credential&offset=50",
    "/api/incidents?limit=500",
)


@contextmanager
def queries(engine: Engine) -> Iterator[list[str]]:
    """Whatever this database is asked or told."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement != "BEGIN":
            sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def first(store: Store) -> None:
    """One of everything, to be multiplied."""
    enrolled(store, "crm", provider="google")
    lapse(store, "crm")
    store.sources.register([Source("crm", Learned(), credential="crm")], utcnow())
    store.sources.beat("crm", 7, utcnow(), WHO)
    used_by(store, "crm", "crm_load")
    incident_about(store, "crm")


def multiply(store: Store, numbers: range) -> None:
    """More of the same: credentials with evidence, each with a source that it feeds and an incident."""
    names = {number: f"crm_{number:05d}" for number in numbers}
    with store.database.write() as connection:

        def add(table: Table, differing: Callable[[int], dict[str, Any]]) -> None:
            keys = {"credential_id": 1, "id": 1, "name": "crm"}
            of_the_first = next(table.c[key] == one for key, one in keys.items() if key in table.c)
            for row in connection.execute(select(table).where(of_the_first)).mappings().all():
                same = {name: value for name, value in row.items() if name != "id"}
                connection.execute(insert(table), [{**same, **differing(number)} for number in numbers])

        add(credentials, lambda number: {"id": number, "conn_id": names[number]})
        add(evidence, lambda number: {"credential_id": number, "investigation_id": None})
        add(tokens, lambda number: {"credential_id": number})
        add(statuses, lambda number: {"credential_id": number, "status": "active", "evidence_id": None})
        add(consumers, lambda number: {"credential_id": number})
        add(sources, lambda number: {"name": names[number], "credential": names[number]})
        add(incidents, lambda number: {"name": names[number], "open_for": f"credential/{names[number]}"})


def cost(browser: Browser, store: Store, address: str) -> tuple[int, int]:
    """Queries to our own store, and to Airflow's database."""
    from airflow import settings

    with queries(store.database.engine) as ours, queries(settings.engine) as airflows:
        answer = browser.get(f"/oauth-guard{address}")
    assert answer.status_code == 200, f"{address}: {answer.text[:300]}"
    return len(ours), len(airflows)


def test_a_page_of_ten_thousand_takes_as_many_queries_as_one_of_sixty(otto, vera, store):
    first(store)
    places = [*LISTS, "/credentials/crm", "/api/credentials/crm", "/sources/crm", "/incidents/1"]
    otto.open("/oauth-guard/")
    multiply(store, range(2, FEW + 1))
    few = {place: (cost(otto, store, place), cost(vera, store, place)) for place in places}
    multiply(store, range(FEW + 1, MANY + 1))
    many = {place: (cost(otto, store, place), cost(vera, store, place)) for place in places}
    assert otto.json("/oauth-guard/api/credentials?limit=1")["total"] == MANY
    assert otto.json("/oauth-guard/api/sources?limit=1")["total"] == MANY
    assert many == few
    for place in LISTS:
        assert many[place][0][0] <= MOST_QUERIES, f"{place} takes {many[place][0][0]}"
    # Airflow is asked who this is and what they may do, not once for every line.
    assert max(airflows for both in many.values() for _, airflows in both) <= 3


def test_a_page_about_one_takes_a_constant_number_however_long_its_history_is(otto, store):
    first(store)
    before = {place: cost(otto, store, place) for place in ("/credentials/crm", "/sources/crm")}
    for _ in range(120):
        lapse(store, "crm")
        store.sources.beat("crm", 7, utcnow(), WHO)
    for number in range(120):
        used_by(store, "crm", f"load_{number}")
    assert {place: cost(otto, store, place) for place in before} == before
