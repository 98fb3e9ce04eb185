"""Every route of the page, with an address and a body that it takes: what is tried on all of them forgets none."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fastapi.routing import APIRoute

from airflow_oauth_guard.plugin.app import app
from airflow_oauth_guard.plugin.signing import signer
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import PLANTED, Guarded, incident_about, lapse, proven_dead, utcnow
from tests.unit.plugin.browsing import Browser

SOURCE = "orders"
ASKED = "asked"

BODIES: dict[str, dict[str, Any]] = {
    "probe": {},
    "refresh": {},
    "revive": {"why": "the vendor said so"},
    "answer": {"expire": "true"},
    "acknowledge": {},
    "mute": {"hours": "4", "reason": "it moves house"},
    "unmute": {},
    "connect": {},
    "device": {},
    "{source:path}": {"rows": 7},
}
"""By the last part of the path."""


def _routes(method: str) -> list[str]:
    return sorted(route.path for route in app.routes if isinstance(route, APIRoute) and method in route.methods)


POSTS, GETS = _routes("POST"), _routes("GET")
CALLBACK = "/callback"
HEARTBEATS = "/heartbeats/{source:path}"
"""For jobs rather than for people: JSON, and no page sends it."""

assert len(POSTS) + len(GETS) == sum(isinstance(route, APIRoute) for route in app.routes)


@dataclass(frozen=True)
class Stage:
    """One credential at a real provider, one that waits for an answer, a source and an incident."""

    store: Store
    conn_id: str
    incident: int
    evidence: int

    def address(self, route: str) -> str:
        names = {
            "connection_id": ASKED if route.endswith("/answer") else self.conn_id,
            "name": SOURCE,
            "source": SOURCE,
            "incident_id": str(self.incident),
            "evidence_id": str(self.evidence),
        }
        return "/oauth-guard" + re.sub(r"\{(\w+):\w+\}", lambda part: names[part[1]], route)

    def body(self, route: str, browser: Browser) -> dict[str, Any]:
        """What it takes, so that nothing but a lack of permission can be wrong with it."""
        if route == "/device":
            return {"state": self.begun_by(browser), "waited": "0"}
        return dict(BODIES[route.rpartition("/")[2]])

    def bodies(self, routes: list[str], browser: Browser) -> dict[str, dict[str, Any]]:
        return {route: self.body(route, browser) for route in routes}

    def begun_by(self, browser: Browser) -> str:
        """The state of an authorization that this person has begun."""
        state, now = str(signer("state").dumps([browser.name, secrets.token_urlsafe(32)])), utcnow()
        credential = self.store.credentials.get(self.conn_id)
        secret = f'{{"device_code": "{PLANTED}device", "interval": 0}}'
        self.store.authorizations.open(credential, state, browser.name, secret, now, now + timedelta(minutes=5))
        return state


def staged(store: Store, guarded: Guarded) -> Stage:
    guarded.enrolled(store)
    seen = lapse(store, guarded.conn_id)
    question = proven_dead(store, ASKED)
    store.investigations.asked(question, store.investigation(question).asked_in, utcnow())
    store.sources.beat(SOURCE, 3, utcnow(), store.investigation(question).asked_in)
    incident = incident_about(store, guarded.conn_id)
    assert seen.id is not None
    return Stage(store, guarded.conn_id, incident.id, seen.id)
