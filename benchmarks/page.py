"""What the roster costs Airflow's API server with 10,000 credentials.

::

    python -m benchmarks.page                      # SQLite, in a temporary Airflow home
    python -m benchmarks.page --evidence 500       # a longer history behind each credential

The baseline is Airflow's own list of connections: as many of them, a page of the same length, asked for in turns in the same
process. Times are of the whole request inside the API server, without a network.
"""

from __future__ import annotations

import argparse
import base64
import os
import platform
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store

BATCH = 5_000
BLOCKS, TIMES = 9, 5
HOUR = timedelta(hours=1)
PAGES = {
    "roster, first page": "/oauth-guard/",
    "roster, page 100 by name": "/oauth-guard/?sort=conn_id&offset=4950",
    "roster, by time to lapse": "/oauth-guard/?sort=lapses",
    "roster, searched": "/oauth-guard/?search=credential 0099",
    "roster, in trouble only": "/oauth-guard/?trouble=true",
    "roster as JSON": "/oauth-guard/api/credentials",
    "one credential": "/oauth-guard/credentials/credential%2000042",
}
BASELINE = "/api/v2/connections?limit=50&offset=4950"


def environment(home: str) -> None:
    os.environ.update(
        {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this run alone, long enough for an HMAC of 512 bits......",
        }
    )


def fill(store: Store, count: int, history: int, now: datetime) -> None:
    """Every credential is refreshed hourly; of a hundred, one is in trouble."""
    from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Reading, Subject, Verdict, as_columns
    from airflow_oauth_guard.store.tables import credentials, evidence, incidents, sources, statuses, tokens

    chance = random.Random(7)
    reading = Reading(Subject.GRANT, Finding.LIVE, "token_issued", "the token endpoint issued a new access token")
    probed = Reading(Subject.ACCESS_TOKEN, Finding.LIVE, "probe_answered", "the probe was answered with a success body")

    def rows_of(number: int) -> dict[str, list[dict[str, Any]]]:
        conn_id, issued = f"credential {number:05}", now - HOUR * chance.random()
        seen = [
            Evidence(
                Kind.PROBE if turn % 20 == 0 else Kind.REFRESH, history - turn, issued - turn * HOUR, look, Verdict.LIVE
            )
            for turn in range(history)
            for look in [probed if turn % 20 == 0 else reading]
        ]
        about = {
            "kind": "provider_outage",
            "summary": "No answer.",
            "owner": "nobody",
            "signature": "",
            "alert_route": "",
        }
        incident = {"about": "credential", "name": conn_id, "open_for": f"credential/{conn_id}", "opened_at": issued}
        return {
            "credentials": [
                {
                    "id": number,
                    "conn_id": conn_id,
                    "connection_class": "refresh_token",
                    "client_key": f"{number % 40}",
                    "provider": chance.choice(["google", "slack", ""]),
                    "access_seed": "",
                    "refresh_seed": "",
                    "margin_seconds": 600,
                    "at_half_life": 0,
                    "expire_policy": "ask",
                    "alert_route": "",
                    "created_at": issued - 90 * 24 * HOUR,
                }
            ],
            "tokens": [
                {"credential_id": number, "generation": history + 1, "issued_at": issued, "expires_at": issued + HOUR}
            ],
            "statuses": [{"credential_id": number, "status": "active", "since": issued - history * HOUR}],
            "evidence": [{"credential_id": number, **as_columns(one)} for one in reversed(seen)],
            "incidents": [{**about, **incident, "noticed_at": issued}] if number % 100 == 0 else [],
            "sources": [
                {"name": f"source of {conn_id}", "credential": conn_id, "registered_at": issued, "declaration": "{}"}
            ],
        }

    tables = {
        table.name.removeprefix("oauth_guard_"): table
        for table in (credentials, tokens, statuses, evidence, incidents, sources)
    }
    for start in range(1, count + 1, BATCH // 10):
        batch = [rows_of(number) for number in range(start, min(start + BATCH // 10, count + 1))]
        with store.database.engine.begin() as connection:
            for name, table in tables.items():
                rows = [row for one in batch for row in one[name]]
                for begin in range(0, len(rows), BATCH):
                    connection.execute(insert(table), rows[begin : begin + BATCH])


def fill_airflow(count: int) -> None:
    """As many of Airflow's own connections."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.execute(
            insert(Connection.__table__),
            [{"conn_id": f"credential {number:05}", "conn_type": "http"} for number in range(count)],
        )


def once(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    answer = call()
    took = (time.perf_counter() - began) * 1000
    if answer.status_code != 200:
        raise SystemExit(f"HTTP {answer.status_code}: {answer.text[:300]}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--credentials", type=int, default=10_000)
    parser.add_argument("--evidence", type=int, default=50, help="how many rows are behind each credential")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oauth_guard_benchmark_") as home:
        environment(home)
        warnings.simplefilter("ignore")
        from airflow.api_fastapi.app import create_app
        from airflow.utils.db import initdb
        from fastapi.testclient import TestClient

        from airflow_oauth_guard.hooks.config import get_store

        initdb()
        now = datetime.now(timezone.utc)
        fill(get_store(), args.credentials, args.evidence, now)
        fill_airflow(args.credentials)
        client = TestClient(create_app(apps="core"))
        print(
            f"{platform.python_version()}, {os.cpu_count()} CPUs; {args.credentials:,} credentials, {args.evidence} rows of evidence each"
        )
        print(
            "| page | baseline ms | ours ms (least / median / most) | ratio (least / median / most) |\n| --- | --- | --- | --- |"
        )
        for name, address in PAGES.items():
            once(lambda address=address: client.get(address))
            ours, ratios, base = [], [], []
            for _ in range(BLOCKS):
                one = statistics.median(once(lambda: client.get(BASELINE)) for _ in range(TIMES))
                two = statistics.median(once(lambda address=address: client.get(address)) for _ in range(TIMES))
                base.append(one)
                ours.append(two)
                ratios.append(two / one)
            print(
                f"| {name} | {statistics.median(base):.0f} | {min(ours):.0f} / {statistics.median(ours):.0f} / {max(ours):.0f} | "
                f"{min(ratios):.2f} / {statistics.median(ratios):.2f} / {max(ratios):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
