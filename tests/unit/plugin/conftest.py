"""Airflow's own application with our plugin in it, and people of each role who use it."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

if find_spec("airflow"):
    with warnings.catch_warnings():
        # What Airflow's API server imports warns about itself, the first time.
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient

        from airflow_oauth_guard.plugin import app as _  # noqa: F401
else:
    # The plugin runs inside Airflow's API server.
    collect_ignore_glob = ["test_*.py"]

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store
    from tests.unit.plugin.browsing import Browser
    from tests.unit.plugin.scenes import Scene

USERS = {"anna": "admin", "otto": "op", "uwe": "user", "vera": "viewer", "olga": "op"}


class AsServed:
    """What uvicorn does with an address, which Starlette's test client decodes twice."""

    def __init__(self, app: Any) -> None:
        self.airflow = app
        self.scopes: list[dict[str, Any]] = []
        """Of the requests so far, as the server's log of requests finds them when they are over."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            # The client's, which has one event loop for all requests. Airflow's would set up the metrics of the whole process.
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        scope["path"] = unquote(scope["raw_path"].decode("ascii"))
        self.scopes.append(scope)
        await self.airflow(scope, receive, send)


@contextmanager
def serving(folder: Path, **changes: str) -> Iterator[TestClient]:
    """Airflow's own application, put together under these settings."""
    from airflow.api_fastapi import app as airflow_app

    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps({name: f"password of {name}" for name in USERS}))
    settings = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test alone, long enough for an HMAC of 512 bits.....",
        **changes,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        # Airflow keeps one for the whole process; another application may be in use around this one.
        if keeper := getattr(airflow_app, "_AuthManagerState", None):
            patch.setattr(keeper, "instance", None)
        else:  # Airflow 3.1
            patch.setattr(airflow_app, "auth_manager", None)
        with warnings.catch_warnings():
            # What Airflow's own application warns about itself while it is put together is not ours to mend.
            warnings.simplefilter("ignore")
            app = airflow_app.create_app(apps="core")
        with TestClient(AsServed(app)) as client:
            yield client


@pytest.fixture(scope="package")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    from airflow.utils.db import initdb

    initdb()
    with serving(tmp_path_factory.mktemp("users")) as client:
        yield client


@pytest.fixture(scope="package")
def tokens(airflow: TestClient) -> dict[str, str]:
    """What each user gets for their password."""
    given = {}
    for name in USERS:
        answer = airflow.post("/auth/token", json={"username": name, "password": f"password of {name}"})
        assert answer.status_code == 201, answer.text
        given[name] = answer.json()["access_token"]
    return given


@pytest.fixture
def browser(airflow: TestClient, tokens: dict[str, str], store: object) -> Callable[[str], Browser]:
    """The browser of somebody who is logged in, or with no name of nobody; against a store of this test alone."""
    from tests.unit.plugin.browsing import Browser

    def of(name: str) -> Browser:
        return Browser(airflow, name, tokens.get(name, ""))

    return of


@pytest.fixture(scope="package")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A store with everything in it, to be copied: to make it takes longer than most tests. Its parameter is what is wild."""
    from airflow_oauth_guard.store.store import Store
    from tests.unit.plugin.scenes import everything

    path = tmp_path_factory.mktemp("scene") / "oauth_guard.db"
    store = Store(f"sqlite:///{path}", os.environ["AIRFLOW__CORE__FERNET_KEY"])
    scene = everything(store, getattr(request, "param", ""))
    store.database.engine.dispose()
    return scene


@pytest.fixture
def scene(made: Scene, store: Store) -> Scene:
    """The store of this test, with everything in it."""
    store.database.engine.dispose()
    path = Path(str(store.database.engine.url.database))
    for left in path.parent.glob("oauth_guard.db-*"):
        left.unlink()
    shutil.copy(str(made.store.database.engine.url.database), path)
    return replace(made, store=store)


@pytest.fixture
def otto(browser: Callable[[str], Browser]) -> Browser:
    """An op: may edit connections, and speak for assets."""
    return browser("otto")


@pytest.fixture
def vera(browser: Callable[[str], Browser]) -> Browser:
    """A viewer."""
    return browser("vera")
