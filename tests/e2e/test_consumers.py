"""The example pipelines in ``dags/``, run by Airflow's own `dag.test()` against the real authorization server.

Each way to use a credential goes through the same stories: two hours of work with tokens that live for one, a refresh that is
malformed, a grant that is revoked, a store that is gone. None of them may end in silence.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request

import pytest
import requests
import time_machine
from airflow import __version__ as airflow_version
from packaging.version import Version

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.hooks import config, using
from airflow_oauth_guard.hooks.registry import get_hook
from airflow_oauth_guard.hooks.session import GuardedSession
from airflow_oauth_guard.hooks.using import get_token
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import forget_backends, rows, utcnow
from tests.authorization_server.client import OPENER, AuthorizationServer
from tests.e2e.test_graph import run
from tests.faults.databases import OwnServer, UnavailableError, own_server

# `dag.test()` runs Airflow's API server in this process, and what that imports warns about itself.
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore")]

DAGS = Path(__file__).resolve().parents[2] / "dags"
RUNS_ASYNC = Version(airflow_version) >= Version("3.2")
WAYS = ("taskflow", *(("async",) if RUNS_ASYNC else ()), "http", "secrets", "asset")
CREDENTIAL, SOURCE = "crm_prod", "crm_contacts"
PAGES, ROWS_PER_PAGE = 7, 3
TWENTY_MINUTES = timedelta(minutes=20)
BACKEND = "airflow_oauth_guard.consumers.secrets.GuardedSecretsBackend"


# -- the provider's API -----------------------------------------------------------------------------------------------


class Api(ThreadingHTTPServer):
    """Contacts, in pages, for whoever bears a token that the authorization server knows as alive."""

    daemon_threads = True

    def __init__(self, provider: AuthorizationServer) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.provider = provider
        self.before_page: Callable[[int], None] = lambda page: None
        self.served: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Asked(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        page = int(parse_qs(asked.query).get("page", ["0"])[0])
        bears = {"Authorization": self.headers.get("Authorization", "")}
        try:
            with OPENER.open(Request(self.server.provider.probe_url, headers=bears), timeout=10):
                status, said, headers = 200, self._page(page), {}
        except HTTPError as error:
            status, said, headers = (
                error.code,
                json.loads(error.read()),
                {"WWW-Authenticate": "Bearer error=invalid_token"},
            )
        content = json.dumps(said).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def _page(self, page: int) -> dict[str, Any]:
        if page:
            self.server.served.append(page)
            # What happens between this page and the next one.
            self.server.before_page(page + 1)
        more = page and page < PAGES
        return {"rows": [{"id": number} for number in range(ROWS_PER_PAGE)], "next": page + 1 if more else None}

    def log_message(self, *args: Any) -> None:
        """Nothing: tests have no use for it."""


# -- the scene --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def airflow_database():
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="module")
def provider() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as server:
        yield server


@pytest.fixture
def api(provider) -> Iterator[Api]:
    with Api(provider) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def store(tmp_path, monkeypatch) -> Iterator[Store]:
    monkeypatch.setattr(config, "_embedded", lambda: f"sqlite:///{tmp_path}/oauth_guard.db")
    config._open.cache_clear()
    yield config.get_store()
    config._open.cache_clear()


@pytest.fixture
def crm(provider, api, store, monkeypatch) -> Iterator[AuthorizationServer]:
    """A guarded credential, a watched source, and what each pipeline finds in Airflow."""
    provider.clear_faults()
    provider.add_client(CREDENTIAL, rotation=True, access_lifetime=timedelta(hours=1))
    minted = provider.mint(CREDENTIAL)
    fields = {"probe_url": provider.probe_url, "allow_http": True}
    seeds = {"access_token": minted.access_token, "refresh_token": minted.refresh_token}
    described = {
        CREDENTIAL: {
            "conn_type": "oauth_guard_refresh_token",
            "host": provider.token_url,
            "login": CREDENTIAL,
            "password": "s3cret",
            "extra": {**fields, **seeds},
        },
        "crm_http": {"conn_type": "http", "host": api.url, "login": CREDENTIAL},
        "crm_api": {
            "conn_type": "http",
            "host": api.url,
            "extra": {"Authorization": f"Bearer {{oauth-guard:{CREDENTIAL}}}"},
        },
    }
    for conn_id, description in described.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(description))
    monkeypatch.setenv("AIRFLOW_VAR_CRM_CONTACTS_URL", f"{api.url}/contacts")
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND", BACKEND)
    forget_backends()
    store.sources.register([Source(SOURCE, Learned(), credential=CREDENTIAL)], utcnow())
    yield provider
    monkeypatch.undo()
    forget_backends()


def pipeline(way: str, retries: int = 0) -> Any:
    """The example of this way as its file has it, but for its retries."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ModuleNotFoundError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag

    bag = DagBag(dag_folder=str(DAGS / f"oauth_guard_{way}_example.py"))
    assert not bag.import_errors
    (dag,) = bag.dags.values()
    for task in dag.tasks:
        task.retries, task.retry_delay = retries, timedelta(0)
    return dag


@contextmanager
def two_hours(provider: AuthorizationServer, api: Api) -> Iterator[None]:
    """Twenty minutes go by between two pages, for us and for the provider."""
    with time_machine.travel(utcnow(), tick=True) as clock:

        def pass_time(_page: int) -> None:
            clock.shift(TWENTY_MINUTES)
            provider.advance(TWENTY_MINUTES)

        api.before_page = pass_time
        yield


def heard(store: Store) -> list[int | None]:
    return [row["row_count"] for row in rows(store, "oauth_guard_heartbeats") if row["source"] == SOURCE]


def token_requests(provider: AuthorizationServer) -> int:
    return sum(seen.path == "/oauth/token" for seen in provider.requests(CREDENTIAL))


# -- the stories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_two_hours_of_work_with_tokens_that_live_for_one_lose_nothing(way, crm, api, store):
    before = token_requests(crm)
    with two_hours(crm, api):
        states = run(pipeline(way))
    assert set(states.values()) == {"success"}
    assert heard(store) == [PAGES * ROWS_PER_PAGE]
    assert api.served == list(range(1, PAGES + 1)), "each page once"
    assert 2 <= token_requests(crm) - before <= 5
    users = {
        (one.dag_id, one.task_id) for one in store.consumers.of([CREDENTIAL], utcnow() + timedelta(hours=3))[CREDENTIAL]
    }
    assert (f"oauth_guard_{way}_example", "load") in users


@pytest.mark.parametrize("way", WAYS)
def test_a_malformed_refresh_stops_the_work_when_the_token_ends_and_says_why(way, crm, api, store, capfd):
    with two_hours(crm, api):
        pass_time = api.before_page

        def break_it(page: int) -> None:
            if page == 2:
                crm.fault("status", client_id=CREDENTIAL, status=400, body={"error": "unsupported_grant_type"})
            pass_time(page)

        api.before_page = break_it
        states = run(pipeline(way))
    assert states["load"] == "failed"
    assert 3 <= len(api.served) < PAGES, "a living token is used to its end, whatever its refresh says"
    assert heard(store) == [], "no row count is made up"
    assert store.credentials.get(CREDENTIAL).status is Status.ACTIVE
    said = "".join(capfd.readouterr())
    assert f"Credential `{CREDENTIAL}` has no access token with life left" in said
    assert "unsupported_grant_type" in said


@pytest.mark.parametrize("way", WAYS)
def test_a_revoked_credential_stops_the_work_and_says_why(way, crm, api, store, capfd):
    with two_hours(crm, api):
        pass_time = api.before_page

        def revoke(page: int) -> None:
            pass_time(page)
            crm.revoke(CREDENTIAL)

        api.before_page = revoke
        # Whoever is handed a bare token hears of the refusal itself, and has it looked into when it tries again.
        states = run(pipeline(way, retries=1))
    assert states["load"] == "failed"
    assert heard(store) == [], "no row count is made up"
    said = "".join(capfd.readouterr())
    assert f"Credential `{CREDENTIAL}`: its access token was refused" in said
    assert "invalid_grant" in said
    assert "OAuth Guard page" in said


@pytest.fixture
def database(monkeypatch) -> Iterator[OwnServer]:
    try:
        with own_server("postgresql") as server:
            monkeypatch.setattr(config, "_embedded", lambda: server.url)
            config._open.cache_clear()
            yield server
            config._open.cache_clear()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.any_airflow
def test_a_store_that_is_gone_for_a_while_holds_the_work_up_and_loses_nothing(crm, api, database, monkeypatch):
    """With PostgreSQL that is really stopped: every way in turn, the store away from the second page to the fifth."""
    # What is known serves for half a minute; here everybody has to ask again at once.
    monkeypatch.setattr(using, "SERVES_FOR", timedelta(0))
    for way in WAYS:
        store = config.get_store()
        store.sources.register([Source(SOURCE, Learned(), credential=CREDENTIAL)], utcnow())
        already, api.served = len(heard(store)), []
        store.database.engine.dispose()
        back: list[threading.Thread] = []

        def stop(page: int, back: list[threading.Thread] = back) -> None:
            if page == 2:
                database.kill()
                back.append(threading.Timer(3, database.start))
                back[-1].start()

        api.before_page = stop
        states = run(pipeline(way))
        for thread in back:
            thread.join()
        assert set(states.values()) == {"success"}, way
        assert heard(config.get_store())[already:] == [PAGES * ROWS_PER_PAGE], way


@pytest.mark.any_airflow
def test_twenty_consumers_wait_for_a_store_that_is_gone_for_half_a_minute(crm, api, database):
    """Ten have a token in hand, ten begin meanwhile; each way to ask is among them."""
    get_hook(CREDENTIAL).get_token()
    sessions = [GuardedSession(CREDENTIAL) for _ in range(10)]
    for session in sessions:
        assert session.get(f"{api.url}/contacts", params={"page": 1}, timeout=30).ok
    database.kill()
    began = time.monotonic()
    threading.Timer(30, database.start).start()

    def with_a_token_in_hand(session: GuardedSession) -> tuple[int, float]:
        answer = session.get(f"{api.url}/contacts", params={"page": 2}, timeout=30)
        return len(answer.json()["rows"]), time.monotonic() - began

    def without(number: int) -> tuple[int, float]:
        way = (lambda: GuardedSession(CREDENTIAL), lambda: _bearing(get_token(CREDENTIAL)))[number % 2]
        answer = way().get(f"{api.url}/contacts", params={"page": 2}, timeout=30)
        return len(answer.json()["rows"]), time.monotonic() - began

    with ThreadPoolExecutor(20) as threads:
        going_on = [threads.submit(with_a_token_in_hand, session) for session in sessions]
        waiting = [threads.submit(without, number) for number in range(10)]
        went_on = [one.result() for one in going_on]
        waited = [one.result() for one in waiting]
    assert {moved for moved, _ in [*went_on, *waited]} == {ROWS_PER_PAGE}
    assert max(after for _, after in went_on) < 10, "what was known a moment ago serves"
    assert min(after for _, after in waited) > 25
    assert max(after for _, after in waited) < 60


def _bearing(access_token: str) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {access_token}"
    return session
