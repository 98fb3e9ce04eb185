"""What a fresh token costs a task, and what our modules cost a DAG file that imports them.

::

    python -m benchmarks.consumers                                            # SQLite, in a temporary Airflow home
    python -m benchmarks.consumers --store postgres://root@127.0.0.1:5432/test  # a store of another kind

A real ``airflow standalone`` runs one task, which asks in turns for a token (``get_token``), for a connection through Airflow
(``BaseHook.get_connection``, Airflow's own cost) and for the row of the token in the store's database with nothing but
SQLAlchemy. The baseline is the sum of the last two: whoever keeps a token in a database of their own pays both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from examples.demo import Airflow, wait_for

CONN_ID = "crm_prod"
CONNECTION = {
    "conn_type": "oauth_guard_refresh_token",
    "host": "https://idp.invalid/token",
    "login": "a client",
    "password": "its secret",
    "extra": json.dumps({"access_token": "a" * 900, "refresh_token": "r" * 60}),
}
BLOCKS, TIMES = 10, 30

DAG_FILE = """
from airflow.sdk import DAG, task

with DAG("measure", schedule=None, is_paused_upon_creation=False):

    @task
    def measure():
        from benchmarks.consumers import measured_in_a_task

        measured_in_a_task()

    measure()
"""

ASKED = (
    "SELECT t.access_token FROM oauth_guard_tokens t JOIN oauth_guard_credentials c ON c.id = t.credential_id "
    "WHERE c.conn_id = :conn_id"
)


# -- in the task ------------------------------------------------------------------------------------------------------


def measured_in_a_task() -> None:
    from airflow.sdk import BaseHook
    from sqlalchemy import create_engine, text

    from airflow_oauth_guard.hooks.config import get_store
    from airflow_oauth_guard.hooks.using import get_token

    began = time.perf_counter()
    get_token(CONN_ID)
    first = time.perf_counter() - began
    engine = create_engine(get_store().database.engine.url)

    def select() -> None:
        with engine.connect() as connection:
            connection.execute(text(ASKED), {"conn_id": CONN_ID}).one()

    found = in_turns(
        {
            "get_token": lambda: get_token(CONN_ID),
            "BaseHook.get_connection": lambda: BaseHook.get_connection(CONN_ID),
            "a bare select": select,
        }
    )
    Path(os.environ["OAUTH_GUARD_MEASURED"]).write_text(json.dumps({"first": first, **found}))


def in_turns(what: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each call, block by block in turns, so that a busy moment meets all of them."""
    for call in what.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(BLOCKS):
        for name, call in what.items():
            for _ in range(TIMES):
                began = time.perf_counter()
                call()
                found[name].append(time.perf_counter() - began)
    return found


# -- around it --------------------------------------------------------------------------------------------------------


def airflow_runs_it(store: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="oauth_guard_benchmark_") as folder:
        home = Path(folder)
        (home / "dags").mkdir()
        (home / "dags" / "measure.py").write_text(DAG_FILE)
        os.environ["OAUTH_GUARD_MEASURED"] = str(home / "measured.json")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        settings = {"CORE__DAGS_FOLDER": str(home / "dags")}
        if store:
            os.environ["AIRFLOW_CONN_GUARD_STORE"] = store
            settings["OAUTH_GUARD__STORE_CONN_ID"] = "guard_store"
        airflow = Airflow(home, **settings)
        airflow.start()
        try:
            airflow.call("POST", "/connections", connection_id=CONN_ID, **CONNECTION)
            fill_the_store(airflow)
            wait_for("the DAG", lambda: airflow.call("GET", "/dags")["dags"], seconds=120)
            if (ended := airflow.run("measure")) != "success":
                raise SystemExit(f"The task ended as {ended}; see {airflow.log}")
        finally:
            airflow.stop()
        found: dict[str, Any] = json.loads((home / "measured.json").read_text())
        return found


def fill_the_store(airflow: Airflow) -> None:
    """One credential with an hour to live, by the same way that an import takes."""
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    entry = {"conn_id": CONN_ID, "connection_class": "refresh_token", "expires_at": later.isoformat()}
    entry |= {"access_token": "a" * 900, "refresh_token": "r" * 60}
    command = [str(Path(sys.executable).parent / "airflow-oauth-guard"), "import"]
    subprocess.run(
        command, env=airflow.environment, input=json.dumps([entry]), text=True, check=True, stdout=subprocess.DEVNULL
    )


def show(found: Mapping[str, Any], store: str) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {store or 'SQLite'}\n")
    print(f"{'in a task, ms':28}{'median':>9}{'p99':>9}")
    taken = {name: seconds for name, seconds in found.items() if name != "first"}
    for name, seconds in taken.items():
        print(f"{name:28}{statistics.median(seconds) * 1e3:9.2f}{_p99(seconds) * 1e3:9.2f}")
    ours, *baseline = taken.values()
    ratio = statistics.median(ours) / sum(map(statistics.median, baseline))
    at_worst = _p99(ours) / sum(map(_p99, baseline))
    print(f"\nget_token / (get_connection + select): {ratio:.2f} in the median, {at_worst:.2f} at p99")
    print(f"The first get_token of a task, with all its imports and the store opened: {found['first'] * 1e3:.0f} ms\n")


def _p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


# -- imports ----------------------------------------------------------------------------------------------------------

IN_DAG_FILES = (
    "airflow_oauth_guard",
    "airflow_oauth_guard.consumers.taskflow",
    "airflow_oauth_guard.consumers.http",
    "airflow_oauth_guard.hooks.session",
    "airflow_oauth_guard.operators.heartbeat",
    "airflow_oauth_guard.task_groups.guard",
)
BASELINE = "import airflow.sdk\nfrom airflow.sdk import *"
"""With everything in it, as a DAG file that uses some of it loads it: the SDK imports lazily."""


def imported(module: str) -> float:
    """Seconds that a module adds to a process that has Airflow's SDK."""
    code = (
        f"{BASELINE}\nimport time, importlib\nbegan = time.perf_counter()\nimportlib.import_module({module!r})\n"
        "print(time.perf_counter() - began)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return float(said.strip().splitlines()[-1])


def show_imports() -> None:
    print(f"{'import, beside airflow.sdk, ms':44}{'median of 7':>12}")
    for module in IN_DAG_FILES:
        print(f"{module:44}{statistics.median(imported(module) for _ in range(7)) * 1e3:12.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="", help="an Airflow connection URI of the store's database")
    asked = parser.parse_args()
    show(airflow_runs_it(asked.store), asked.store)
    show_imports()


if __name__ == "__main__":
    main()
