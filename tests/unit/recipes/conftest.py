"""A provider in the shapes that SDKs expect, in front of the real authorization server, which says whether a token is good."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine

pytest.importorskip("airflow", reason="guarded connections need Airflow")

from tests.airflow_parts import make_due, probe, utcnow
from tests.resource_server import Asked, ResourceServer, Told

HALF_USED = timedelta(minutes=50)
A_WHILE = timedelta(minutes=2)


class Provider:
    """Pages of two rows each, in the provider's own words; ``after_page`` is called when one was sent."""

    def __init__(self, server, running: ExitStack) -> None:
        self._authorization_server = server
        self._running = running
        self.pages = 3
        self.sent: list[int] = []
        self.bearers: list[str] = []
        self.after_page: Callable[[int], None] = lambda page: None

    def speak(self, *, token: Callable[[Asked], str], page: Callable[[Asked], int], body, refusal: Told) -> str:
        """Begin to answer: where the token is in a request, which page it asks for, and what is said. Returns the address."""

        self.refusal = refusal

        def answer(asked: Asked) -> Told:
            self.bearers.append(token(asked))
            if not self.accepts(token(asked)):
                return self.refusal
            number = page(asked)
            rows = [{"id": 2 * number - 1}, {"id": 2 * number}]
            said = Told(headers={"Content-Type": "application/json"}, body=json.dumps(body(number, rows)).encode())
            self.sent.append(number)
            self.after_page(number)
            return said

        resource = self._running.enter_context(ResourceServer(answer))
        self.url = resource.url
        return resource.url

    def accepts(self, token: str) -> bool:
        try:
            return probe(self._authorization_server, token) == 200
        except HTTPError as error:
            with error:
                return False


def bearer(asked: Asked) -> str:
    return asked.headers.get("authorization", "").removeprefix("Bearer ")


def parameter(asked: Asked, name: str, default: str = "") -> str:
    return parse_qs(urlsplit(asked.path).query).get(name, [default])[0]


@pytest.fixture
def provider(server):
    with ExitStack() as running:
        yield Provider(server, running)


@pytest.fixture
def guarded(connect, store):
    """A credential whose token was issued long ago, with time to go, and was seen alive a while ago."""
    one = connect()
    one.refresh(store)
    make_due(store, one.conn_id, life_left=HALF_USED)
    with time_machine.travel(utcnow() + A_WHILE, tick=True):
        yield one


@pytest.fixture
def revoked_after_the_first_page(provider, guarded, server):
    """What happens in the middle of the run; ``grant=True`` leaves no way to another token."""

    def stage(*, grant: bool) -> None:
        provider.after_page = lambda page: server.revoke(guarded.conn_id, grant=grant) if page == 1 else None

    return stage
