"""The page in a real browser: in a real Airflow, with people, the shipped DAGs, and a real authorization server.

The tests tell one story and share one Airflow; each asks for what it needs of it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import requests

pytest.importorskip("airflow", reason="the page is a part of Airflow")
pytest.importorskip("playwright", reason="the page is read in a browser")

from playwright.sync_api import expect
from sqlalchemy import insert

from airflow_oauth_guard.detector.lessons import lesson
from airflow_oauth_guard.domain.evidence import Kind, Observer
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import heartbeats
from examples.demo import SECRET_PREFIX, add_client, connection, seeds, variable, wait_for
from tests.airflow_parts import probe, utcnow
from tests.authorization_server.client import AuthorizationServer
from tests.e2e.airflows import PASSWORDS, ApiServer, PeopledAirflow, Proxy, preset_of, reverse_proxy
from tests.e2e.browser import (
    DESK,
    PHONE,
    Visitor,
    a_browser,
    body_of,
    chromium_or_skip,
    entries,
    overflow,
    tabbed_through,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Page

pytestmark = [pytest.mark.airflow, pytest.mark.any_airflow]

REDIRECTED = ("billing_api", "shop_orders")
"""Those whose people approve in a browser."""
BY_DEVICE = "tv_reports"
CREDENTIALS = ("crm_prod", *REDIRECTED, BY_DEVICE)
SOURCE, WITH_A_SLASH = "crm_contacts", "shop/orders & returns"


# -- the world --------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """What the tests share, and what they have seen that must be nowhere."""

    airflow: PeopledAirflow
    provider: AuthorizationServer
    store: Store
    folder: Path
    """For what browsers have seen."""
    proxy: Proxy
    codes: set[str] = field(default_factory=set)
    verifiers: set[str] = field(default_factory=set)
    incident: int = 0

    def page(self, path: str = "/") -> str:
        return f"{self.airflow.url}/oauth-guard{path}"

    @property
    def hars(self) -> list[Path]:
        return sorted(self.folder.glob("*.har"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    chromium_or_skip()
    home, folder = tmp_path_factory.mktemp("page"), tmp_path_factory.mktemp("seen")
    catalog = tmp_path_factory.mktemp("catalog")
    with AuthorizationServer() as provider, reverse_proxy() as proxy:
        fields = preset_of(provider.url, catalog)
        airflow = PeopledAirflow(home, OAUTH_GUARD__CATALOG_FOLDER=str(catalog))
        try:
            airflow.start()
            it = World(airflow, provider, airflow.guard_store(), folder, proxy)
            furnish(it, fields)
            yield it
        finally:
            airflow.stop()


def furnish(world: World, fields: dict[str, str]) -> None:
    """Connections as a person makes them, refreshed by a program through the API; and sources with a history."""
    airflow, provider = world.airflow, world.provider
    back_to = [f"{url}/oauth-guard/callback" for url in (airflow.url, world.proxy.url)]
    for conn_id in CREDENTIALS:
        add_client(
            provider,
            conn_id,
            rotation=True,
            reuse_detection=True,
            access_lifetime=timedelta(hours=2),
            grant_types=("refresh_token", "authorization_code", "urn:ietf:params:oauth:grant-type:device_code"),
            redirect_uris=back_to,
            require_pkce=True,
        )
        how = {"authorization_url": consent_page(provider)} if conn_id in REDIRECTED else {}
        more = fields if conn_id == BY_DEVICE else how
        connection(airflow, conn_id, provider, **seeds(provider.mint(conn_id)), **more)
        refreshed = airflow.session.post(world.page(f"/api/credentials/{conn_id}/refresh"), json={}, timeout=60)
        assert refreshed.json()["said"].startswith("Refresh: renewed"), refreshed.text
    variable(airflow, "oauth_guard_connections", json.dumps(CREDENTIALS))
    sources(world)


def consent_page(provider: AuthorizationServer) -> str:
    """Under another name than Airflow's, so that it is another site to a browser, as a provider is."""
    return provider.authorization_url.replace("127.0.0.1", "localhost")


def sources(world: World) -> None:
    store, now = world.store, utcnow()
    declared = [
        Source(SOURCE, timedelta(hours=24), credential="crm_prod"),
        Source(WITH_A_SLASH, Learned(), credential="shop_orders"),
    ]
    store.sources.register(declared, now - timedelta(days=35))
    latest = now - timedelta(hours=4)
    history = [
        {
            "source": WITH_A_SLASH,
            "at": latest - timedelta(hours=2 * n),
            "row_count": 40 + n % 9,
            "beat_key": f"seeded {n}",
        }
        for n in range(1, 35 * 12)
    ]
    with store.database.write() as written:
        written.execute(insert(heartbeats), history)
    worker = Observer("oauth_guard_etl_example", "manual__1", "load")
    store.sources.beat(WITH_A_SLASH, 44, latest, worker)
    for hours, rows in ((30, 3), (20, 0), (2, 0)):
        store.sources.beat(SOURCE, rows, now - timedelta(hours=hours), worker)
    lesson(store, store.sources.get(WITH_A_SLASH), now)
    assert store.sources.get(WITH_A_SLASH).habit is not None
    opened = store.incidents.open(
        Symptom(
            About.SOURCE,
            SOURCE,
            IncidentKind.FLAT,
            "No rows for 30 h.",
            now - timedelta(hours=6),
            owner="owner of the source",
        ),
        now,
    )
    world.incident = opened.id


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium_or_skip()
    with a_browser() as running:
        yield running


@pytest.fixture
def visitor(world: World, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """Ada, who may do everything. Whatever goes wrong on our pages that the test does not expect fails it."""
    ada = Visitor(browser, world.folder / f"{request.node.name}.har")
    ada.is_known(world.airflow.url, world.airflow.token("ada"))
    yield ada
    ada.close()
    assert ada.problems == []


# -- inside Airflow ---------------------------------------------------------------------------------------------------


def in_airflow(visitor: Visitor, url: str) -> Frame:
    """Our page in the frame that Airflow shows it in."""
    visitor.page.goto(f"{url}/plugin/oauth_guard")
    frame = visitor.frame()
    frame.get_by_role("heading", name="Credentials").wait_for()
    return frame


def background(frame: Frame | Page) -> str:
    return str(frame.evaluate("getComputedStyle(document.documentElement).backgroundColor"))


def test_the_page_is_in_airflows_navigation_and_follows_its_theme(world, visitor):
    page = visitor.page
    page.goto(world.airflow.url)
    page.get_by_role("link", name="OAuth Guard").click()
    frame = visitor.frame()
    frame.get_by_role("link", name="crm_prod").first.wait_for()
    assert page.url.startswith(f"{world.airflow.url}/plugin/oauth_guard")
    assert urlsplit(frame.url).path == "/oauth-guard/"
    light = background(frame)

    def choose(name: str) -> None:
        page.get_by_role("button", name="User").click()
        page.get_by_role("menuitem", name="Appearance").hover()
        page.get_by_text(name, exact=True).click()

    choose("Dark Mode")
    frame.wait_for_selector(':root[data-theme="dark"]', state="attached")
    dark = background(frame)
    assert sum(channels(dark)) < 150, dark
    assert sum(channels(light)) > 600, light
    frame.get_by_role("link", name="Sources").click()
    frame.wait_for_selector(':root[data-theme="dark"]', state="attached")
    choose("Light Mode")
    frame.wait_for_selector(':root[data-theme="light"]', state="attached")
    assert background(frame) == light


def channels(colour: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]


# -- reading ----------------------------------------------------------------------------------------------------------


def test_the_watch_over_a_page_notices_what_is_wrong_with_it(world, visitor):
    visitor.page.goto(world.page())
    visitor.page.evaluate(
        """document.body.insertAdjacentHTML("beforeend", `<p style="color: red">wide</p><img src="static/nowhere.png">`)"""
    )
    visitor.page.evaluate("""document.querySelector("p[style]").style.width = "3000px" """)
    visitor.page.wait_for_timeout(500)
    assert overflow(visitor.page) > 1000
    assert any("Content Security Policy" in one for one in visitor.problems)
    assert any("404" in one for one in visitor.problems)
    visitor.problems.clear()


def views(world: World) -> dict[str, str]:
    """Every page there is, and what its heading says."""
    evidence = world.store.credentials.latest_evidence(world.store.credentials.get("crm_prod"), Kind.REFRESH)
    assert evidence is not None
    return {
        "/": "Credentials",
        "/credentials/crm_prod": "crm_prod",
        f"/credentials/crm_prod/evidence/{evidence.id}": f"Evidence {evidence.id}",
        "/sources": "Sources",
        f"/sources/{SOURCE}": SOURCE,
        f"/sources/{quote(WITH_A_SLASH, safe='')}": WITH_A_SLASH,
        "/incidents": "Incidents",
        f"/incidents/{world.incident}": IncidentKind.FLAT.headline,
    }


@pytest.mark.parametrize("window", [DESK, PHONE], ids=["desk", "phone"])
def test_every_view_is_read_without_a_fault_and_fits_its_window(world, visitor, window):
    page = visitor.page
    page.set_viewport_size(window)
    for path, heading in views(world).items():
        page.goto(world.page(path))
        page.wait_for_load_state("networkidle")
        assert heading.lower() in page.get_by_role("heading", level=1).inner_text().lower(), path
        page.evaluate("for (const closed of document.querySelectorAll('details')) closed.open = true")
        assert overflow(page) <= 0, f"{path} is too wide for {window['width']} pixels"


def test_the_roster_is_searched_filtered_and_sorted(world, visitor):
    page = visitor.page

    def shows(*conn_ids: str) -> None:
        expect(page.locator("tbody th a")).to_have_text(list(conn_ids))

    page.goto(world.page())
    expect(page.locator("tbody th a")).to_have_count(len(CREDENTIALS))
    page.get_by_label("Search").fill("shop")
    page.get_by_role("button", name="Show").click()
    shows("shop_orders")
    page.get_by_label("Search").fill("")
    page.get_by_label("Provider").select_option("acme")
    page.get_by_role("button", name="Show").click()
    shows(BY_DEVICE)
    page.get_by_label("Provider").select_option("")
    page.get_by_label("Sort by").select_option("conn_id")
    page.get_by_label("descending").check()
    page.get_by_role("button", name="Show").click()
    shows(*sorted(CREDENTIALS, reverse=True))
    page.get_by_label("in trouble only").check()
    page.get_by_role("button", name="Show").click()
    page.get_by_text("No credential fits.").wait_for()


def test_a_piece_of_evidence_shows_what_was_asked_and_answered(world, visitor):
    page = visitor.page
    page.goto(world.page("/credentials/crm_prod"))
    refreshed = page.locator(".timeline li", has=page.locator(".kind", has_text="refresh")).first
    refreshed.locator("summary").click()
    said = refreshed.locator("dl.evidence").inner_text()
    for part in (
        f"POST {world.provider.token_url}",
        "refresh_token",
        "client_secret_basic",
        "HTTP 200",
        '"access_token": "<str>"',
        "ada (OAuth Guard page)",
    ):
        assert part in said, said
    refreshed.get_by_role("link", name=re.compile("^Evidence")).click()
    assert "HTTP 200" in page.locator("dl.evidence").first.inner_text()


def test_a_source_shows_its_loads_within_the_band_of_what_is_usual(world, visitor):
    page = visitor.page
    page.goto(world.page(f"/sources/{quote(WITH_A_SLASH, safe='')}"))
    chart = page.get_by_role("img", name=re.compile("^Rows of the latest"))
    assert chart.locator(".bar").count() > 100
    box, whole = chart.locator(".band").bounding_box(), chart.bounding_box()
    assert box is not None
    assert whole is not None
    assert box["width"] > whole["width"] / 2
    page.get_by_text("As a table").click()
    assert re.search(r"\d+ to \d+", page.locator("details td[data-label=Usual]").first.inner_text())


# -- the keyboard -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/credentials/crm_prod", f"/sources/{SOURCE}"])
def test_the_keyboard_reaches_everything_in_the_order_of_the_page(world, visitor, path):
    page = visitor.page
    page.goto(world.page(path))
    reachable, stops = tabbed_through(page)
    ours = [stop for stop in stops if stop["number"] is not None]
    assert [stop["number"] for stop in ours] == list(range(reachable))
    unseen = [stop for stop in stops if stop["outline"] < 2 or not stop["onScreen"]]
    assert not unseen, "whoever uses the keyboard has to see where they are"


def test_the_keyboard_skips_to_the_content_and_opens_it(world, visitor):
    page = visitor.page
    page.goto(world.page())
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    box = skip.bounding_box()
    assert box is not None
    assert box["x"] >= 0, "it is seen once it has the focus"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    page.get_by_role("link", name="crm_prod").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/credentials/crm_prod")
    summary = page.locator(".timeline summary").first
    summary.focus()
    page.keyboard.press("Enter")
    page.locator(".timeline details[open] dl.evidence").first.wait_for()


# -- a death, approved on the page --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Death:
    """How it came to be that a credential is expired."""

    question: int
    said: str
    """On the page, once the button was pressed."""
    asked: str
    """What the dialog asked."""


@pytest.fixture(scope="module")
def death(world: World, browser: Browser) -> Death:
    """`billing_api` is revoked at its provider; ada sees to the rest, from inside Airflow's frame."""
    ada = Visitor(browser, world.folder / "death.har")
    ada.is_known(world.airflow.url, world.airflow.token("ada"))
    world.provider.revoke("billing_api")
    frame = in_airflow(ada, world.airflow.url)
    frame.get_by_role("link", name="billing_api").first.click()
    frame.get_by_role("button", name="Refresh now").click()
    frame.get_by_text("The next run of oauth_guard_refresh looks into it.").wait_for()
    world.airflow.call("PATCH", "/dags/oauth_guard_refresh", is_paused=False)
    credential = world.store.credentials.get("billing_api")
    wait_for("a person to be asked", world.airflow.questions, 240)
    wait_for("the scheduler to let go of the task that asks", lambda: waits_for_good(world.airflow), 60)
    question = world.store.investigations.open_for(credential)
    assert question is not None
    as_vic = {"Authorization": f"Bearer {world.airflow.token('vic')}"}
    answer = requests.post(
        world.page("/credentials/billing_api/answer"), json={"expire": True}, headers=as_vic, timeout=60
    )
    assert answer.status_code == 403, "whoever may only look may not answer"
    frame.get_by_role("link", name="Credentials").click()
    frame.get_by_role("link", name="billing_api").first.click()
    asked: list[str] = []
    ada.page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    frame.get_by_role("button", name="Expire it").click()
    said = frame.get_by_role("status").inner_text()
    ended = question.asked_in
    world.airflow.ended(str(ended.dag_id), str(ended.run_id), 180)
    ada.close()
    assert ada.problems == []
    return Death(question.id, said, "".join(asked))


def waits_for_good(airflow: PeopledAirflow) -> bool:
    """Whether the scheduler knows that the task which asks has left its worker. Airflow calls one failed that is answered
    before, which a person is never quick enough for.
    """
    ended = "Received executor event with state success for task instance TaskInstanceKey(dag_id='oauth_guard_investigate', task_id='investigate.approve'"
    return ended in airflow.log.read_text(encoding="utf-8", errors="replace")


def test_a_proven_death_is_approved_on_the_page_and_carried_out_by_the_graph(world, visitor, death):
    assert death.asked == "Set billing_api expired?"
    assert "the graph carries that out" in death.said
    question = world.store.investigation(death.question)
    assert (question.answer, question.answered_by) == ("approved", "ada")
    assert world.store.credentials.get("billing_api").status is Status.EXPIRED
    asked_in = question.asked_in
    task = f"/dags/{asked_in.dag_id}/dagRuns/{quote(str(asked_in.run_id))}/taskInstances/{asked_in.task_id}/{asked_in.map_index}"
    told = world.airflow.call("GET", f"{task}/hitlDetails")
    assert told["response_received"] is True
    assert (told["responded_by_user"]["name"], told["chosen_options"]) == ("ada", ["Expire it"])
    page = visitor.page
    page.goto(world.page("/credentials/billing_api"))
    assert page.locator("h1 .badge").inner_text() == "expired"
    assert page.get_by_role("button", name="Expire it").count() == 0
    change = page.locator(".timeline .change").first
    change.locator("summary").first.click()
    said = change.inner_text()
    for part in ("lapsed → expired", "oauth_guard_investigate", "invalid_grant", "HTTP 400", world.provider.token_url):
        assert part in said.replace("\n", " "), said


def test_a_link_to_airflow_leaves_the_frame(world, visitor, death):
    frame = in_airflow(visitor, world.airflow.url)
    frame.get_by_role("link", name="billing_api").first.click()
    frame.locator(".timeline .change summary").first.click()
    frame.get_by_role("link", name="oauth_guard_investigate · investigate.expire").first.click()
    visitor.page.wait_for_url("**/dags/oauth_guard_investigate/runs/*/tasks/investigate.expire/mapped/0*")


# -- reconnecting -----------------------------------------------------------------------------------------------------


def at_the_provider(world: World, visitor: Visitor, name: str = "ada") -> None:
    """Wait for the consent page, in the window's own document, and keep in mind what must be seen nowhere."""
    page = visitor.page
    page.wait_for_url(re.compile(f"^{re.escape(consent_page(world.provider))}"))
    page.get_by_role("button", name="Approve").wait_for()
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["code_challenge_method"] == ["S256"]
    begun = world.store.authorizations.find(asked["state"][0], name, utcnow())
    world.verifiers.add(json.loads(begun.secret)["verifier"])


def decide(world: World, visitor: Visitor, button: str) -> str:
    """Press a button of the consent page; returns the address that the provider sends the browser back to."""
    with visitor.page.expect_request(re.compile("/oauth-guard/callback")) as sent:
        visitor.page.get_by_role("button", name=button).click()
    address = str(sent.value.url)
    world.codes.update(parse_qs(urlsplit(address).query).get("code", []))
    return address


def assert_connected(world: World, page: Page, conn_id: str, before: int, since: datetime) -> None:
    page.wait_for_url(f"**/oauth-guard/credentials/{conn_id}?said=*")
    assert page.get_by_role("status").inner_text().startswith(f"Connected: generation {before + 1}, active.")
    assert page.locator("h1 .badge").inner_text() == "active"
    credential = world.store.credentials.get(conn_id)
    assert (credential.status, credential.generation) == (Status.ACTIVE, before + 1)
    evidence = world.store.credentials.latest_evidence(credential, Kind.CONNECT)
    assert evidence is not None
    assert evidence.observed_at > since
    assert evidence.observer.person == "ada"
    assert probe(world.provider, world.store.credentials.tokens(credential).access_token) == 200
    assert world.provider.truth(conn_id).grant_live


def test_a_dead_credential_is_reconnected_from_inside_airflows_frame(world, visitor, death):
    page, began, before = visitor.page, utcnow(), world.store.credentials.get("billing_api").generation
    frame = in_airflow(visitor, world.airflow.url)
    frame.get_by_role("link", name="billing_api").first.click()
    frame.get_by_role("button", name="Reconnect").click()
    at_the_provider(world, visitor)
    callback = decide(world, visitor, "Approve")
    assert_connected(world, page, "billing_api", before, began)
    change = page.locator(".timeline .change").first
    change.locator("summary").first.click()
    for part in ("expired → active", "ada (OAuth Guard page)", "HTTP 200", "authorization_code", "code_verifier"):
        assert part in change.inner_text().replace("\n", " ")
    # The same answer again is refused, and nobody asks the provider.
    visitor.expects(403)
    world.provider.clear_requests()
    page.goto(callback)
    page.get_by_role("heading", name="That did not work").wait_for()
    assert "was used already" in page.locator(".problem").inner_text()
    assert world.provider.requests() == []
    assert world.store.credentials.get("billing_api").generation == before + 1


def test_whoever_denies_at_the_provider_is_told_so_and_nothing_changes(world, visitor):
    page, before = visitor.page, world.store.credentials.get("shop_orders")
    newest = world.store.timeline.page(before, limit=1)[0].id
    page.goto(world.page("/credentials/shop_orders"))
    page.get_by_role("button", name="Reconnect").click()
    at_the_provider(world, visitor)
    visitor.expects(409)
    decide(world, visitor, "Deny")
    page.get_by_role("heading", name="That did not work").wait_for()
    assert "access_denied" in page.locator(".problem").inner_text()
    assert "Nothing was changed" in page.locator(".problem").inner_text()
    assert world.store.credentials.get("shop_orders") == before
    assert world.store.timeline.page(before, limit=1)[0].id == newest
    assert world.provider.truth("shop_orders").grant_live


def test_a_credential_is_reconnected_from_the_page_alone(world, visitor):
    page, began, before = visitor.page, utcnow(), world.store.credentials.get("shop_orders").generation
    page.goto(world.page("/credentials/shop_orders"))
    assert page.locator("code.copy").inner_text() == f"{world.airflow.url}/oauth-guard/callback"
    page.get_by_role("button", name="Reconnect").click()
    at_the_provider(world, visitor)
    decide(world, visitor, "Approve")
    assert_connected(world, page, "shop_orders", before, began)


def test_a_credential_is_connected_by_another_device(world, visitor):
    before = world.store.credentials.get(BY_DEVICE)
    frame = in_airflow(visitor, world.airflow.url)
    frame.get_by_role("link", name=BY_DEVICE).first.click()
    frame.get_by_role("button", name="Connect by another device").click()
    code = frame.locator(".code").inner_text()
    with visitor.context.expect_page() as opened:
        frame.get_by_role("link", name=f"{world.provider.url}/device").click()
    opened.value.get_by_role("heading", name="Connect a device").wait_for()
    assert visitor.page.url.startswith(world.airflow.url), "the page that waits is left where it is"
    world.provider.approve_device(code)
    frame.wait_for_url(f"**/oauth-guard/credentials/{BY_DEVICE}*")
    credential = world.store.credentials.get(BY_DEVICE)
    assert credential.generation == before.generation + 1
    assert probe(world.provider, world.store.credentials.tokens(credential).access_token) == 200


# -- whoever may only look ----------------------------------------------------------------------------------------------

POST = """
async ([address, body]) => {
    const json = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const form = { method: "POST", body: new URLSearchParams(body) };
    return [(await fetch(address, json)).status, (await fetch(address, form)).status];
}
"""

ACTS: dict[str, dict[str, Any]] = {
    "/credentials/billing_api/probe": {},
    "/credentials/billing_api/refresh": {},
    "/credentials/billing_api/revive": {"why": "it works again"},
    "/credentials/billing_api/connect": {},
    "/credentials/billing_api/device": {},
    f"/sources/{SOURCE}/mute": {"hours": 4},
    f"/sources/{SOURCE}/unmute": {},
}


def test_a_viewer_sees_no_button_and_may_change_nothing(world, browser, death):
    vic = Visitor(browser, world.folder / "viewer.har")
    vic.log_in(world.airflow.url, "vic", PASSWORDS["vic"])
    page = vic.page
    newest = world.store.timeline.page(world.store.credentials.get("billing_api"), limit=1)[0].id
    for path in views(world):
        page.goto(world.page(path))
        assert page.locator("form:not([method=get])").count() == 0, path
        assert set(page.get_by_role("button").all_inner_texts()) <= {"Show"}, path
    vic.expects(403)
    acts = {**ACTS, f"/incidents/{world.incident}/acknowledge": {}}
    twins = {f"/api{act}": body for act, body in acts.items() if not act.endswith(("/connect", "/device"))}
    for act, body in {**acts, **twins}.items():
        assert page.evaluate(POST, [world.page(act), body]) == [403, 403], act
    vic.close()
    assert vic.problems == []
    assert world.store.timeline.page(world.store.credentials.get("billing_api"), limit=1)[0].id == newest
    assert world.store.incidents.get(world.incident).acknowledged_by == ""
    assert world.store.sources.get(SOURCE).mute is None


def test_whoever_is_not_logged_in_is_sent_to_log_in_and_back(world, browser):
    stranger = Visitor(browser, world.folder / "stranger.har")
    stranger.page.goto(world.page("/credentials/crm_prod"))
    stranger.page.wait_for_url(re.compile(r"/auth/login\?"))
    stranger.sign_in("vic", PASSWORDS["vic"])
    stranger.page.wait_for_url(world.page("/credentials/crm_prod"))
    stranger.close()
    assert stranger.problems == []


# -- behind a proxy -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def external(world: World) -> Iterator[str]:
    """The address of Airflow from outside."""
    behind = ApiServer(world.airflow, world.proxy)
    try:
        behind.start()
        yield behind.url
    finally:
        behind.stop()


def test_everything_works_under_the_path_of_a_reverse_proxy(world, visitor, external):
    page, began, before = visitor.page, utcnow(), world.store.credentials.get("shop_orders").generation
    visitor.log_in(external, "ada", PASSWORDS["ada"])
    page.goto(f"{external}/oauth-guard/sources")
    page.get_by_role("link", name=WITH_A_SLASH).click()
    page.get_by_role("heading", name=WITH_A_SLASH).wait_for()
    frame = in_airflow(visitor, external)
    assert frame.url == f"{external}/oauth-guard/"
    frame.get_by_role("link", name="shop_orders").first.click()
    redirect_uri = f"{external}/oauth-guard/callback"
    assert frame.locator("code.copy").inner_text() == redirect_uri
    frame.get_by_role("button", name="Probe now").click()
    assert frame.get_by_role("status").inner_text().startswith("Probe: ")
    frame.get_by_role("button", name="Reconnect").click()
    at_the_provider(world, visitor)
    assert parse_qs(urlsplit(page.url).query)["redirect_uri"] == [redirect_uri]
    assert decide(world, visitor, "Approve").startswith(f"{redirect_uri}?")
    assert_connected(world, page, "shop_orders", before, began)
    assert page.url.startswith(f"{external}/oauth-guard/credentials/shop_orders")
    page.get_by_role("link", name="Airflow").click()
    page.get_by_role("link", name="OAuth Guard").wait_for()
    assert page.url.startswith(f"{external}/")


# -- what is left behind ------------------------------------------------------------------------------------------------


def everything_seen(har: Path) -> Iterator[tuple[str, str]]:
    """What a browser was sent and has sent, with where; but for what only it and the provider were to see: the code, in the
    address that leads back to us and in the answer which sends the browser there.
    """
    for entry in entries(har):
        url = entry["request"]["url"]
        path = urlsplit(url).path
        comes_back, consents = path.endswith("/oauth-guard/callback"), path == "/oauth/authorize"
        yield f"{path} (address)", "" if comes_back else url
        headers = [f"{one['name']}: {one['value']}" for one in entry["request"]["headers"]]
        told = [one for one in entry["response"]["headers"] if not (consents and one["name"].lower() == "location")]
        headers += [f"{one['name']}: {one['value']}" for one in told]
        yield f"{path} (headers)", "\n".join(headers)
        yield f"{path} (sent)", entry["request"].get("postData", {}).get("text", "")
        yield f"{path} (answer)", body_of(entry)


def test_nothing_secret_is_left_in_logs_stores_or_browsers(world, death, external):
    assert len(world.codes) >= 3, "people came back from the provider in the tests above; it takes all of this file"
    assert len(world.verifiers) >= 4
    clients = [
        base64.b64encode(f"{one}:{SECRET_PREFIX}client-{one}".encode()).decode().rstrip("=") for one in CREDENTIALS
    ]
    needles = [SECRET_PREFIX, *clients, *world.codes, *world.verifiers]
    files = [path for path in world.airflow.home.rglob("*") if path.is_file()]
    assert world.airflow.home / "oauth_guard.db" in files
    assert len([path for path in files if path.suffix == ".log"]) > 10
    for log in (world.airflow.home / "standalone.log", world.airflow.home / "api-server.log"):
        assert "/oauth-guard/callback" in log.read_text(), "the log of requests knows who came back"
    leaks = [path.name for path in files for needle in needles if needle.encode() in path.read_bytes()]
    assert leaks == []
    assert len(world.hars) > 10
    seen = [
        (har.name, where, needle)
        for har in world.hars
        for where, text in everything_seen(har)
        for needle in needles
        if needle in text
    ]
    assert seen == []


def test_the_search_of_what_a_browser_saw_finds_what_is_there(world, death):
    """The callback's own address is the one place where a code is to be."""
    whole: dict[str, Any] = {har.name: har.read_text() for har in world.hars}
    assert world.codes
    assert all(any(code in text for text in whole.values()) for code in world.codes)
