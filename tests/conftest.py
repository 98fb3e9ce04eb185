"""What every test stands on: an Airflow home of our own, one authorization server, one fresh store per test.

The environment is set when this file is read, before anything can import Airflow; this file itself never does, since
the tests of domain and grants need none.
"""

from __future__ import annotations

import atexit
import base64
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.authorization_server.client import AuthorizationServer

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store
    from tests.airflow_parts import Connector


def set_environment() -> None:
    """A throw-away Airflow home, and nothing of whatever Airflow this machine may have."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="oauth_guard_tests_")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["AIRFLOW_HOME"] = home
    os.environ["AIRFLOW__CORE__FERNET_KEY"] = base64.urlsafe_b64encode(os.urandom(32)).decode()
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    # A proxy must not come between the tests and their servers on loopback.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


set_environment()

AT_HOME = re.compile(r"[\w-]+|[0-9.]+|[0-9a-f:]*:[0-9a-f:]*|(.*\.)?(invalid|example|test)")
"""Addresses, names without a dot such as this machine's own, and those that RFC 2606 promises nobody has."""


@pytest.fixture(autouse=True)
def nobody_calls_the_real_internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalog is full of real addresses: a test that would ask one fails, and asks nothing."""
    called: list[str] = []
    look_up = socket.getaddrinfo

    def at_home(host: object, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
        if not AT_HOME.fullmatch(name) and name != socket.getfqdn():
            called.append(name)
            raise socket.gaierror(socket.EAI_NONAME, f"a test may not call {name}")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", at_home)
    yield
    assert not called, f"this test would have called {called}"


@pytest.fixture(autouse=True)
def no_wait_before_an_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proven death waits for hours before the policy `evidence` lets it expire; only the tests of that wait have it."""
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__EXPIRE_WAIT_SECONDS", "0")


@pytest.fixture(autouse=True)
def no_wait_before_an_alert_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only where it is imported already: this file must not import Airflow.
    if telling := sys.modules.get("airflow_oauth_guard.notifications.telling"):
        monkeypatch.setattr(telling.SENDING, "sleep", lambda seconds: None)


@pytest.fixture(scope="session")
def server() -> Iterator[AuthorizationServer]:
    """One process for all tests; each test has clients of its own in it."""
    with AuthorizationServer() as running:
        yield running


@pytest.fixture
def client_id(server: AuthorizationServer, numbers: Iterator[int] = count(1)) -> Iterator[str]:  # noqa: B008
    """A name that no other test has used, for a client and its connection; and no faults left behind."""
    server.clear_requests()
    yield f"crm_{next(numbers)}"
    server.clear_faults()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, to be copied: creating the tables takes longer than most tests."""
    from airflow_oauth_guard.store.store import Store

    path = tmp_path_factory.mktemp("store") / "oauth_guard.db"
    Store(f"sqlite:///{path}", os.environ["AIRFLOW__CORE__FERNET_KEY"]).database.engine.dispose()
    return path


@pytest.fixture
def store(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store that ``get_store()`` opens in this test: SQLite under a home of its own."""
    from airflow_oauth_guard.hooks import config

    shutil.copy(migrated, tmp_path / "oauth_guard.db")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    config._open.cache_clear()
    opened = config.get_store()
    assert opened.database.engine.url.database == str(tmp_path / "oauth_guard.db")
    yield opened
    opened.database.engine.dispose()
    config._open.cache_clear()


@pytest.fixture
def connect(server: AuthorizationServer, client_id: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connector]:
    """Makes guarded connections of any class, against the real server."""
    from tests.airflow_parts import Connector, unmask

    connector = Connector(server, monkeypatch, client_id)
    yield connector
    connector.close()
    unmask()
