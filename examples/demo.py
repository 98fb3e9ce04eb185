"""Replay the incident in a real Airflow, and see the guard tell the truth about it. Run it with ``make demo``.

It starts an authorization and resource server (a process of its own that keeps the ground truth) and a throw-away
Airflow, drives the shipped DAGs through the scheduler, answers the one question a person is asked, and compares what
the guard says with what is true. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import requests
from cryptography.fernet import Fernet
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from airflow_oauth_guard.domain.evidence import Kind  # noqa: E402
from airflow_oauth_guard.domain.incidents import About, Incident  # noqa: E402
from airflow_oauth_guard.store.store import Store  # noqa: E402
from tests.authorization_server.client import AuthorizationServer, Minted  # noqa: E402

SECRET_PREFIX = "planted-"
"""Every secret of the demo begins with it, so that a search of the Airflow home finds any that leaked."""

PAUSE_SECONDS = 4
SHORT_LIFE, LONGER_LIFE = timedelta(seconds=20), timedelta(seconds=70)
SOURCE = {"name": "crm_contacts", "window_seconds": 25, "credential": "crm_prod"}

console = Console(width=max(Console().width, 165))
started = time.monotonic()


def say(text: str) -> None:
    console.print(f"[dim]{time.monotonic() - started:5.0f} s[/]  {text}", highlight=False)


# -- the throw-away Airflow -------------------------------------------------------------------------------------------


class Airflow:
    """A real ``airflow standalone`` (scheduler, triggerer, DAG processor, API server) on SQLite.

    Args:
        settings: Airflow's own beyond those below, such as ``CORE__PARALLELISM="4"``.
    """

    command: tuple[str, ...] = ("standalone",)
    parts: tuple[str, ...] = ("metadatabase", "scheduler", "triggerer", "dag_processor")
    """Those that have to be healthy before it is up."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.settings = settings
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.fernet_key = Fernet.generate_key().decode()
        self.session = requests.Session()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        settings = {
            "CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__FERNET_KEY": self.fernet_key,
            "CORE__PARALLELISM": "6",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__TEST_CONNECTION": "Enabled",
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.port),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "OAUTH_GUARD__REFRESH_SCHEDULE": "@yearly",
            "OAUTH_GUARD__FLAT_LINE_SCHEDULE": "@yearly",
            "OAUTH_GUARD__CONFIRMATION_PAUSE_SECONDS": str(PAUSE_SECONDS),
            # A proven death waits for hours by default; nobody has them for a demo.
            "OAUTH_GUARD__EXPIRE_WAIT_SECONDS": "0",
            **self.settings,
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        named = {f"AIRFLOW__{name}": value for name, value in settings.items()}
        return {**clean, **named, "AIRFLOW_HOME": str(self.home), "PATH": path, "PYTHONUNBUFFERED": "1"}

    def start(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["airflow", *self.command],
                env=self.environment,
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for("Airflow to be healthy", self._healthy, seconds=300)
        self.session.headers["Authorization"] = f"Bearer {self.token()}"

    @property
    def log(self) -> Path:
        return self.home / f"{self.command[0]}.log"

    def token(self) -> str:
        """For Airflow's API; under all-admins anybody gets one."""
        return str(self.session.get(f"{self.url}/auth/token", timeout=10).json()["access_token"])

    def stop(self) -> None:
        """Stop the whole tree: its parent leaves children behind when it alone is told."""
        if self._process is None:
            return
        for how, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            _signal_group(self._process.pid, how)
            end = time.monotonic() + patience
            while _group_is_alive(self._process) and time.monotonic() < end:
                time.sleep(0.2)
        self._process = None

    def _healthy(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise SystemExit(f"Airflow stopped by itself; see {self.log}")
        try:
            health = self.session.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
        except (requests.RequestException, ValueError):
            # Not listening yet; wait_for has the deadline.
            return False
        return all(health.get(part, {}).get("status") == "healthy" for part in self.parts)

    def call(self, method: str, path: str, **json_body: Any) -> Any:
        answer = self.session.request(
            method, f"{self.url}/api/v2{path}", json=json_body if method != "GET" else None, timeout=90
        )
        if not answer.ok:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def trigger(self, dag_id: str) -> str:
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", logical_date=None)["dag_run_id"])

    def run(self, dag_id: str, seconds: float = 240) -> str:
        """Trigger a DAG and wait until its run has ended; returns the run's state."""
        run_id = self.trigger(dag_id)
        return self.ended(dag_id, run_id, seconds)

    def ended(self, dag_id: str, run_id: str, seconds: float = 240) -> str:
        def state() -> str:
            found = str(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])
            return found if found in ("success", "failed") else ""

        return str(wait_for(f"{dag_id} to end", state, seconds))

    def guard_store(self) -> Store:
        """The guard's own store, as `airflow oauth-guard status` reads it."""
        return Store(f"sqlite:///{self.home}/oauth_guard.db", self.fernet_key)

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"])

    def questions(self) -> list[dict[str, Any]]:
        """What people are being asked right now."""
        found = self.call("GET", "/dags/~/dagRuns/~/hitlDetails?response_received=false")
        return list(found["hitl_details"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=200")["task_instances"])

    def answer(self, question: dict[str, Any], option: str) -> None:
        ti = question["task_instance"]
        self.call(
            "PATCH",
            f"/dags/{ti['dag_id']}/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}/{ti['map_index']}/hitlDetails",
            chosen_options=[option],
            params_input={},
        )


def wait_for(what: str, check: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.5)
    raise SystemExit(f"Waited {seconds:.0f} s for {what}, in vain.")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _signal_group(leader: int, how: signal.Signals) -> None:
    try:
        os.killpg(leader, how)
    except ProcessLookupError:
        # Gone already, which is what was wanted.
        return


def _group_is_alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


# -- the cast ---------------------------------------------------------------------------------------------------------


@dataclass
class Character:
    """One row of the table: what is done to a credential, and what the guard has to make of it."""

    letter: str
    conn_id: str
    story: str
    truth: tuple[bool, bool]
    """(access token alive, grant alive) at the server, at the end."""
    status: str
    finding: str | None
    """The open incident's kind; None for none."""
    alarmed: bool
    client_id: str = ""
    broken_at: datetime | None = None
    wrong: list[str] = field(default_factory=list)


CAST = [
    Character("A", "crm_prod", "healthy", (True, True), "active", None, alarmed=False),
    Character(
        "B", "ads_reports", "wrong class: the incident", (True, True), "active", "request_malformed", alarmed=True
    ),
    Character("C", "billing_api", "really revoked", (False, False), "expired", "grant_dead", alarmed=True),
    Character("D", "shop_orders", "provider answers 503", (True, True), "active", "provider_outage", alarmed=False),
    Character(
        "E", "web_analytics", "lapsed, refresh malformed", (False, True), "lapsed", "request_malformed", alarmed=True
    ),
]


def connection(airflow: Airflow, conn_id: str, server: AuthorizationServer, **fields: Any) -> None:
    """Create a connection as a person would in the UI."""
    token_url = fields.pop("token_url", server.token_url)
    extra = {"probe_url": server.probe_url, "allow_http": True, **fields}
    airflow.call(
        "POST",
        "/connections",
        connection_id=conn_id,
        conn_type="oauth_guard_refresh_token",
        host=token_url,
        login=conn_id,
        password=f"{SECRET_PREFIX}client-{conn_id}",
        extra=json.dumps(extra),
    )


def add_client(server: AuthorizationServer, conn_id: str, **settings: Any) -> None:
    server.add_client(
        conn_id, client_secret=f"{SECRET_PREFIX}client-{conn_id}", secret_prefix=SECRET_PREFIX, **settings
    )


def seeds(minted: Minted) -> dict[str, str]:
    return {"access_token": minted.access_token, "refresh_token": minted.refresh_token or minted.access_token}


def open_the_curtain(airflow: Airflow, server: AuthorizationServer) -> None:
    """Two healthy credentials, with rotating refresh tokens, and a pipeline that loads rows."""
    for conn_id, lifetime in (("crm_prod", LONGER_LIFE), ("billing_api", SHORT_LIFE)):
        add_client(
            server,
            conn_id,
            rotation=True,
            reuse_detection=True,
            access_lifetime=lifetime,
            # So that `make demo KEEP=1` has something to reconnect on the page.
            grant_types=("refresh_token", "authorization_code"),
            redirect_uris=[f"{airflow.url}/oauth-guard/callback"],
        )
        by_a_person = {"authorization_url": server.authorization_url}
        connection(airflow, conn_id, server, **seeds(server.mint(conn_id)), **by_a_person)
    server.set_rows("crm_prod", 3)
    variable(airflow, "oauth_guard_connections", json.dumps(["crm_prod", "billing_api"]))
    variable(airflow, "crm_contacts_url", server.rows_url)
    for dag_id in (
        "oauth_guard_refresh",
        "oauth_guard_investigate",
        "oauth_guard_flat_line",
        "oauth_guard_etl_example",
    ):
        wait_for(f"{dag_id} to be parsed", partial(_is_parsed, airflow, dag_id), 60)
        airflow.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", is_paused=False)


def _is_parsed(airflow: Airflow, dag_id: str) -> bool:
    return airflow.session.get(f"{airflow.url}/api/v2/dags/{dag_id}", timeout=10).ok


def variable(airflow: Airflow, key: str, value: str) -> None:
    if airflow.session.get(f"{airflow.url}/api/v2/variables/{key}", timeout=10).ok:
        airflow.call("PATCH", f"/variables/{key}", key=key, value=value)
    else:
        airflow.call("POST", "/variables", key=key, value=value)


def break_things(airflow: Airflow, server: AuthorizationServer) -> None:
    """Five things go wrong at once."""
    # B: this provider wants Meta's exchange; the connection was given another class. The token is alive.
    add_client(server, "ads_reports", grant_types=("fb_exchange_token",))
    connection(airflow, "ads_reports", server, token_url=server.meta_url, **seeds(server.mint("ads_reports")))
    # C: revoked at the provider, access token and grant.
    server.revoke("billing_api")
    # D: its tokens come by `airflow oauth-guard import`, with a quarter of an hour to live; then the provider goes down.
    add_client(server, "shop_orders")
    connection(airflow, "shop_orders", server)
    import_tokens(airflow, "shop_orders", server.mint("shop_orders"))
    server.fault("status", client_id="shop_orders", status=503, headers={"Retry-After": "120"})
    # E: like B, but its access token has run out.
    add_client(server, "web_analytics", grant_types=("client_credentials",), wrong_grant_error="invalid_request")
    minted = server.mint("web_analytics", with_refresh=True, access_lifetime=timedelta(seconds=1))
    connection(airflow, "web_analytics", server, **seeds(minted))
    # F: the pipeline goes on succeeding; there is nothing in it.
    server.set_rows("crm_prod", 0)
    variable(airflow, "oauth_guard_connections", json.dumps([character.conn_id for character in CAST]))
    now = datetime.now(timezone.utc)
    for character in CAST[1:]:
        character.broken_at = now


def import_tokens(airflow: Airflow, conn_id: str, minted: Minted) -> None:
    entry = {
        "conn_id": conn_id,
        "connection_class": "refresh_token",
        **seeds(minted),
        "expires_at": (datetime.now(timezone.utc) + timedelta(minutes=15)).isoformat(),
    }
    subprocess.run(
        ["airflow-oauth-guard", "import"],
        input=json.dumps([entry]),
        text=True,
        env=airflow.environment,
        check=True,
        capture_output=True,
    )


# -- the play ---------------------------------------------------------------------------------------------------------


def play(airflow: Airflow, server: AuthorizationServer) -> dict[str, Any]:
    """Drive the shipped DAGs; returns what was noticed on the way."""
    say("Cycle 1, as scheduled: everything is healthy, and the pipeline loads 3 rows.")
    etl = airflow.trigger("oauth_guard_etl_example")
    first = wait_for("the first scheduled cycle", lambda: airflow.runs("oauth_guard_refresh"), 120)[0]
    noticed: dict[str, Any] = {
        "healthy cycle": airflow.ended("oauth_guard_refresh", first["dag_run_id"]),
        "healthy load": airflow.ended("oauth_guard_etl_example", etl),
    }
    say("Things break: B gets the wrong class, C is revoked, D answers 503, E lapses, F loads 0 rows.")
    break_things(airflow, server)
    store = airflow.guard_store()
    wait_for("C to be due", lambda: store.credentials.get("billing_api").is_due(datetime.now(timezone.utc)), 30)
    say("Cycle 2: refreshes fail. Each failure is a question, looked into one by one.")
    noticed["broken cycle"] = airflow.run("oauth_guard_refresh")
    question = wait_for("a person to be asked", airflow.questions, 240)[0]
    say("A person is asked whether C may be set expired. Nobody answers for three cycles.")
    noticed["unanswered"] = [airflow.run("oauth_guard_refresh") for _ in range(3)]
    noticed["questions"] = len(airflow.questions())
    noticed["load of zero rows"] = airflow.run("oauth_guard_etl_example")
    say("The person looks at the evidence and approves.")
    airflow.answer(question, "Expire it")
    variable(airflow, "oauth_guard_sources", json.dumps([SOURCE]))
    flat = airflow.trigger("oauth_guard_flat_line")
    ti = question["task_instance"]
    noticed["investigation run"] = ti["dag_run_id"]
    noticed["investigation"] = airflow.ended(ti["dag_id"], ti["dag_run_id"])
    noticed["flat line"] = airflow.ended("oauth_guard_flat_line", flat)
    noticed["grid"] = airflow.task_instances(ti["dag_id"], ti["dag_run_id"])
    return noticed


EXPECTED_STATES = {
    "healthy cycle": "success",
    "healthy load": "success",
    "broken cycle": "failed",
    "unanswered": ["failed"] * 3,
    "questions": 1,
    "load of zero rows": "success",
    "investigation": "failed",
    "flat line": "failed",
}
"""A cycle with something that needs a person is red; the pipeline of F is green, which is the trouble with it."""


COLUMNS = {
    "credential": 18,
    "truth at the server": 12,
    "status": 7,
    "verdict": 17,
    "evidence in one sentence": 40,
    "alert": 16,
    "seconds to alarm": 7,
    "a catch-and-mislabel job": 16,
}
"""The table's columns and the least width at which each can be read."""


def verdict_table(store: Store, server: AuthorizationServer, noticed: dict[str, Any]) -> bool:
    """Print what is true, what the guard says, and what the job of the incident would have written."""
    table = Table(show_lines=True)
    for header, width in COLUMNS.items():
        table.add_column(header, min_width=width)
    for character in CAST:
        table.add_row(*_row(store, server, character))
    flat = store.incidents.open_about(About.SOURCE, str(SOURCE["name"]))
    table.add_row(
        *(
            "F crm_contacts\n[dim]a source: zero rows[/]",
            "job succeeds, 0 rows",
            "–",
            flat.kind.value if flat else "none",
        ),
        *(_shortened(flat.summary) if flat else "–", flat.kind.headline if flat else "none"),
        *(_seconds(flat.opened_at, flat) if flat else "–", "says nothing"),
    )
    console.print(table)
    problems = [f"{c.letter} {c.conn_id}: {problem}" for c in CAST for problem in c.wrong]
    if flat is None or flat.kind.value != "flat":
        problems.append(f"F: expected a flat line, found {flat.kind.value if flat else 'nothing'}")
    problems += [
        f"{what}: {noticed[what]}, expected {expected}"
        for what, expected in EXPECTED_STATES.items()
        if noticed[what] != expected
    ]
    problems += grid_problems(noticed["grid"])
    for problem in problems:
        console.print(f"[red]WRONG[/] {problem}")
    return not problems


def grid_problems(instances: list[dict[str, Any]]) -> list[str]:
    """The grid is honest: who needs a person is red, who waits is skipped with a reason."""
    reports = {
        (ti.get("rendered_map_index") or "").partition(":")[0]: ti["state"]
        for ti in instances
        if ti["task_id"] == "investigate.report"
    }
    expected = {"ads_reports": "failed", "billing_api": "failed", "shop_orders": "skipped", "web_analytics": "failed"}
    return [] if reports == expected else [f"the reports in the grid are {reports}, expected {expected}"]


def _row(store: Store, server: AuthorizationServer, character: Character) -> tuple[str, ...]:
    credential = store.credentials.get(character.conn_id)
    truth = server.truth(character.conn_id)
    incident = store.incidents.open_about(About.CREDENTIAL, character.conn_id)
    evidence = store.credentials.latest_evidence(credential, Kind.CONCLUSION, Kind.REFRESH)
    alarmed = incident is not None and incident.first_notified_at is not None
    found = (truth.access_token_live, truth.grant_live)
    checks = {
        "truth": (found, character.truth),
        "status": (credential.status.value, character.status),
        "verdict": (incident.kind.value if incident else None, character.finding),
        "alarmed": (alarmed, character.alarmed),
    }
    character.wrong = [f"{name} is {seen}, expected {want}" for name, (seen, want) in checks.items() if seen != want]
    failed = incident is not None
    return (
        f"{character.letter} {character.conn_id}\n[dim]{character.story}[/]",
        f"token {_alive(truth.access_token_live)}, grant {_alive(truth.grant_live)}",
        credential.status.value,
        incident.kind.value if incident else "live",
        _shortened(evidence.reading.explanation) if evidence else "–",
        incident.kind.headline if incident and alarmed else "waits: life left" if failed else "none",
        _seconds(character.broken_at, incident) if incident and alarmed else "–",
        ("expired" + (" [red](a lie)[/]" if truth.grant_live else "")) if failed else "active",
    )


def _alive(alive: bool) -> str:  # noqa: FBT001
    return "alive" if alive else "dead"


def _seconds(since: datetime | None, incident: Incident) -> str:
    if since is None or incident.first_notified_at is None:
        return "–"
    return f"{max((incident.first_notified_at - since).total_seconds(), 0):.0f}"


def _shortened(text: str, limit: int = 150) -> str:
    return text if len(text) <= limit else text[: text.rfind(" ", 0, limit)] + " …"


@contextmanager
def throw_away(home: Path | None) -> Iterator[Path]:
    path = home or Path(tempfile.mkdtemp(prefix="oauth-guard-demo-"))
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        if home is None:
            shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the UI up until Ctrl-C, and print its address")
    parser.add_argument("--screenshots", type=Path, help="take the pictures of the documentation into this folder")
    parser.add_argument("--home", type=Path, help="an Airflow home to use and keep, instead of a throw-away one")
    args = parser.parse_args()
    with throw_away(args.home) as home, AuthorizationServer() as server:
        airflow = Airflow(home)
        try:
            say("Starting Airflow (scheduler, triggerer, DAG processor, API server) on SQLite …")
            airflow.start()
            open_the_curtain(airflow, server)
            noticed = play(airflow, server)
            right = verdict_table(airflow.guard_store(), server, noticed)
            say("Every row is right." if right else "Something is wrong; see above.")
            if args.screenshots:
                from screenshots import take

                take(airflow.url, noticed["investigation run"], args.screenshots, airflow.guard_store())
            if args.keep:
                say(f"The UI is at {airflow.url} (Ctrl-C stops everything).")
                signal.sigwait({signal.SIGINT, signal.SIGTERM})
        finally:
            airflow.stop()
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
