"""After everything that can be done on the page, nothing that opens a door is anywhere in it, nor behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("airflow", reason="the plugin runs inside Airflow's API server")

from httpx import Response

from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import CALLBACK as ANYWHERE
from tests.airflow_parts import PLANTED, Guarded, lapse, looked_into, make_due, nothing_secret_is_kept, question_of
from tests.unit.plugin.browsing import Browser, Page
from tests.unit.plugin.graph import audit_log

pytestmark = pytest.mark.airflow

BACK = "http://testserver/oauth-guard/callback"


class Listener:
    """A person who keeps everything they ever got."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.got: list[str] = []

    def see(self, answer: Response) -> Response:
        self.got.append(f"{answer.text}\n{dict(answer.headers)}")
        return answer

    def open(self, address: str) -> Page:
        return Page(self.see(self.browser.get(address)).text)

    def press(self, address: str, button: str, **fields: str) -> Page:
        answer = self.see(self.browser.submit(self.open(address).form(button), **fields))
        return self.open(answer.headers["location"]) if answer.status_code == 303 else Page(answer.text)

    def tell(self, address: str, body: Any = None) -> Response:
        return self.see(self.browser.tell(address, body))


def everything_is_tried(person: Listener, store: Store, server: Any, guarded: Guarded) -> None:
    place = f"/oauth-guard/credentials/{guarded.conn_id}"
    person.press(place, "Probe now")
    person.press(place, "Refresh now")
    for deny in (True, False):
        address = person.press(place, "Reconnect").link("Go on")
        back = urlsplit(server.approve(address, deny=deny))
        answer = person.see(person.browser.get(f"{back.path}?{back.query}"))
        if answer.status_code == 303:
            person.open(answer.headers["location"])
        # Once more, which is refused.
        person.see(person.browser.get(f"{back.path}?{back.query}"))
    waiting = person.press(place, "Connect by another device")
    [attrs] = [one.attrs for one in waiting.all("p") if "data-poll" in one.attrs]
    person.tell("/oauth-guard/device", {"state": attrs["data-state"]})
    [code] = [one.text for one in waiting.all("p") if one.attrs.get("class") == "code"]
    server.approve_device(code)
    person.tell("/oauth-guard/device", {"state": attrs["data-state"], "waited": 5})
    # A provider that says everything back, in an error and in what it would redirect to.
    tokens = store.credentials.tokens(guarded.credential(store))
    echo = {"error": "invalid_request", "error_description": f"{tokens.refresh_token} {guarded.secrets}"}
    headers = {"Location": f"https://provider.example/?token={tokens.access_token}", "Server": tokens.access_token}
    guarded.fault(status=400, body=echo, headers=headers)
    server.fault("status", client_id=guarded.conn_id, on="resource", status=401, body=echo, headers=headers)
    for what in ("probe", "refresh", "connect", "device"):
        person.tell(f"{place}/{what}")
    address = person.press(place, "Reconnect").link("Go on")
    back = urlsplit(server.approve(address))
    person.see(person.browser.get(f"{back.path}?{back.query}"))
    server.clear_faults()
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    looked_into(store, guarded, question_of(store, guarded))
    lapse(store, guarded.conn_id)
    person.press(place, "Revive", why="the vendor said so")


def everything_is_read(person: Listener, store: Store, guarded: Guarded) -> None:
    credential = guarded.credential(store)
    places = ["/", "/sources", "/incidents", f"/credentials/{guarded.conn_id}"]
    places += [
        f"/credentials/{guarded.conn_id}/evidence/{one.id}" for one in store.timeline.page(credential, limit=500)
    ]
    places += [f"/incidents/{one.id}" for one in store.incidents.page(limit=500)[0]]
    for place in places:
        person.open(f"/oauth-guard{place}")
        if place != "/":
            assert person.see(person.browser.get(f"/oauth-guard/api{place}")).status_code == 200
    person.see(person.browser.get("/oauth-guard/api/credentials"))
    person.see(person.browser.get("/oauth-guard/openapi.json"))


def test_no_secret_is_anywhere_after_everything_was_done(
    browser: Callable[[str], Browser], store, server, connect, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    before = len(audit_log())
    guarded = connect(redirect_uri=BACK, provider="approver", provider_params=connect.preset("approver"))
    guarded.enrolled(store)
    otto, vera = Listener(browser("otto")), Listener(browser("vera"))
    seen = [store.credentials.tokens(guarded.credential(store))]
    everything_is_tried(otto, store, server, guarded)
    seen.append(store.credentials.tokens(guarded.credential(store)))
    everything_is_read(otto, store, guarded)
    everything_is_read(vera, store, guarded)
    assert guarded.credential(store).generation >= 4, "a refresh, a redirect and a device have brought tokens"
    assert guarded.credential(store).status is Status.ACTIVE
    assert len(otto.got) > 60
    written = capfd.readouterr()
    # Whoever sends the person to the provider names the app, and nothing else of the connection.
    everywhere = {
        "a page": "\n".join(otto.got + vera.got),
        "the output": written.out + written.err,
        "a log record": "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records),
        "the audit log": f"{audit_log()[before:]}",
    }
    secrets = [PLANTED, *guarded.secrets, *(one.access_token for one in seen), *(one.refresh_token for one in seen)]
    for where, text in everywhere.items():
        for secret in secrets:
            assert secret not in text, f"{where} has {secret[:12]}"
    nothing_secret_is_kept(store, guarded.secrets)


def test_an_address_at_the_provider_holds_what_its_standard_says_and_nothing_more(otto, store, connect):
    guarded = connect(redirect_uri=ANYWHERE, scopes="read")
    guarded.enrolled(store)
    address = otto.press(f"/oauth-guard/credentials/{guarded.conn_id}", "Reconnect").link("Go on")
    assert set(parse_qs(urlsplit(address).query)) == {
        *("response_type", "client_id", "redirect_uri", "state", "scope", "code_challenge", "code_challenge_method"),
    }
