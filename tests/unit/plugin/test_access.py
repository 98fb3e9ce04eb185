"""Who may see and do what, and that nothing is done because a page of somebody else's asked for it."""

from __future__ import annotations

import secrets
from datetime import timedelta
from importlib.metadata import version
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine

pytest.importorskip("airflow", reason="the plugin runs inside Airflow's API server")

from airflow_oauth_guard.domain.evidence import Kind
from airflow_oauth_guard.plugin.access import FORM_LASTS_SECONDS
from airflow_oauth_guard.plugin.signing import signer
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import metadata
from tests.airflow_parts import CALLBACK as ANYWHERE
from tests.airflow_parts import rows, utcnow
from tests.unit.plugin.browsing import FORM, Browser, Page
from tests.unit.plugin.conftest import serving
from tests.unit.plugin.routes import CALLBACK, GETS, HEARTBEATS, POSTS, SOURCE, Stage, staged

pytestmark = pytest.mark.airflow

FORMS = [route for route in POSTS if route != HEARTBEATS]
PAGES = [route for route in GETS if not route.startswith(("/api/", "/openapi.json")) and route != CALLBACK]
DATA = [route for route in GETS if route.startswith(("/api/", "/openapi.json"))]


@pytest.fixture
def stage(store, connect) -> Stage:
    return staged(
        store, connect(redirect_uri=ANYWHERE, provider="approver", provider_params=connect.preset("approver"))
    )


def kept(store: Store) -> dict[str, list[dict[str, object]]]:
    """All there is in the store."""
    return {table.name: rows(store, table.name) for table in metadata.sorted_tables}


def test_the_routes_are_all_there():
    assert len(FORMS) > 15
    assert len(PAGES) > 6
    assert len(DATA) > 7


# -- nobody in particular ---------------------------------------------------------------------------------------------


def test_nobody_in_particular_is_sent_to_log_in_and_comes_back(browser, stage):
    for address in map(stage.address, PAGES):
        answer = browser("").get(f"{address}?search=x")
        assert (answer.status_code, answer.text) == (303, ""), address
        there = urlsplit(answer.headers["location"])
        assert there.path == "/api/v2/auth/login"
        assert parse_qs(there.query)["next"] == [f"{address}?search=x"]


def test_airflow_takes_them_there(browser, stage):
    for address in ("/oauth-guard/", "/oauth-guard/credentials/a%20b%23c%3Fd%25"):
        answer = browser("").get(address)
        login = browser("").get(answer.headers["location"])
        assert (login.status_code, urlsplit(login.headers["location"]).path) == (307, "/auth/login")
        if not version("apache-airflow").startswith("3.1."):  # which hands an address on without quoting it
            assert parse_qs(urlsplit(login.headers["location"]).query)["next"] == [address]


def test_nobody_in_particular_gets_no_data(browser, stage):
    for address in map(stage.address, DATA):
        answer = browser("").get(address)
        assert (answer.status_code, set(answer.json())) == (401, {"detail"}), address


def test_a_script_that_asks_for_json_is_not_sent_to_a_login_page(browser, stage):
    assert browser("").get("/oauth-guard/", Accept="application/json").status_code == 401


def test_nobody_in_particular_changes_anything(browser, stage, store):
    nobody = browser("")
    bodies = stage.bodies(POSTS, nobody)
    before = kept(store)
    for route, body in bodies.items():
        assert nobody.post(stage.address(route), body).status_code == 401, route
        assert nobody.tell(stage.address(route), body).status_code == 401, route
    assert kept(store) == before


def test_what_is_no_token_of_airflows_is_refused(browser, stage):
    headers = {"Authorization": "Bearer made.up.token"}
    assert browser("").get("/oauth-guard/api/credentials", **headers).status_code in (401, 403)


def test_who_comes_back_from_a_provider_without_a_login_is_not_sent_on_with_the_code(browser, stage):
    answer = browser("").get("/oauth-guard/callback?code=planted-code&state=x")
    assert answer.status_code == 401
    assert "planted" not in f"{answer.text} {answer.headers}"


def test_there_is_nothing_else_for_anybody_to_see(browser, stage):
    for path in ("/docs", "/redoc", "/heartbeat", "/static/", "/static/nothing.js", "/api/nothing", "/x/y"):
        answer = browser("").get(f"/oauth-guard{path}")
        assert answer.status_code == 404, path
        assert stage.conn_id not in answer.text


def test_what_the_browser_needs_for_the_page_is_there(browser):
    for name, kind in (("guard.js", "javascript"), ("guard.css", "css"), ("icon.svg", "svg")):
        answer = browser("").get(f"/oauth-guard/static/{name}")
        assert (answer.status_code, kind in answer.headers["content-type"]) == (200, True)


# -- a viewer ---------------------------------------------------------------------------------------------------------


def test_a_viewer_reads_every_page_and_is_offered_nothing_that_changes_something(vera, stage):
    for address in map(stage.address, PAGES):
        page = vera.open(address)
        assert page.changing == [], address
        assert "form_token" not in page.html, address


def test_an_admin_is_offered_something_on_the_same_pages(browser, stage):
    """So that the test above looks where there is something to see."""
    offering = {route for route in PAGES if browser("anna").open(stage.address(route)).changing}
    about_one = {route for route in PAGES if "{" in route and "evidence" not in route}
    assert offering == about_one


def test_a_viewer_reads_all_the_data(vera, stage):
    for address in map(stage.address, DATA):
        assert vera.json(address), address


def test_a_viewer_changes_nothing(vera, stage, store, server):
    bodies = stage.bodies(POSTS, vera)
    before, asked = kept(store), server.requests()
    for route, body in bodies.items():
        as_form = vera.post(stage.address(route), {**body, "form_token": vera.form_token()})
        as_json = vera.tell(stage.address(route), body)
        assert (as_form.status_code, as_json.status_code) == (403, 403), f"{route}: {as_form.text} {as_json.text}"
    assert kept(store) == before
    assert server.requests() == asked, "somebody asked the provider"


def test_a_viewer_does_not_see_how_a_credential_is_connected(vera, otto, stage):
    assert "is not to be found" in otto.open("/oauth-guard/credentials/asked").text, "it has no connection"
    assert "is not to be found" not in vera.open("/oauth-guard/credentials/asked").text
    address = stage.address("/credentials/{connection_id:path}")
    assert "/oauth-guard/callback" in otto.open(address).text
    assert "/oauth-guard/callback" not in vera.open(address).text


# -- who may what -----------------------------------------------------------------------------------------------------


def test_who_may_only_trigger_dags_may_only_answer_what_a_dag_asks(browser, stage, store):
    uwe = browser("uwe")
    bodies = stage.bodies(FORMS, uwe)
    before = kept(store)
    for route, body in bodies.items():
        answer = uwe.post(stage.address(route), {**body, "form_token": uwe.form_token()})
        # Airflow does not know the request that is answered; that is another matter.
        assert answer.status_code == (404 if route.endswith("/answer") else 403), f"{route}: {answer.text}"
    assert kept(store) == before


def test_who_may_only_trigger_dags_sees_those_buttons_alone(browser, stage):
    uwe = browser("uwe")
    assert uwe.open("/oauth-guard/credentials/asked").changing == ["Expire it", "Keep it"]
    assert uwe.open(stage.address("/credentials/{connection_id:path}")).changing == []
    assert uwe.open(f"/oauth-guard/sources/{SOURCE}").changing == []
    assert uwe.open(f"/oauth-guard/incidents/{stage.incident}").changing == []


@pytest.mark.parametrize("name", ["otto", "anna"])
def test_who_may_edit_connections_and_speak_for_assets_is_offered_everything(browser, stage, name):
    person = browser(name)
    assert person.open("/oauth-guard/credentials/asked").changing[:2] == ["Expire it", "Keep it"]
    buttons = ["Probe now", "Refresh now", "Reconnect", "Connect by another device", "Revive"]
    assert person.open(stage.address("/credentials/{connection_id:path}")).changing == buttons
    assert person.open(f"/oauth-guard/sources/{SOURCE}").changing == ["Pause"]
    assert person.open(f"/oauth-guard/incidents/{stage.incident}").changing == ["I am on it"]


@pytest.mark.parametrize("name", ["otto", "anna"])
def test_who_may_edit_connections_and_speak_for_assets_may_do_everything(browser, stage, name):
    person = browser(name)
    for route, body in stage.bodies(FORMS, person).items():
        answer = person.post(stage.address(route), {**body, "form_token": person.form_token()})
        assert answer.status_code not in (401, 403), f"{route}: {answer.text}"


# -- a page of somebody else's ----------------------------------------------------------------------------------------


def test_a_form_that_no_page_of_ours_made_for_this_person_changes_nothing(otto, vera, stage, store, server):
    bodies = stage.bodies(FORMS, otto)
    with time_machine.travel(utcnow() - timedelta(seconds=FORM_LASTS_SECONDS + 60), tick=False):
        old = otto.form_token()
    wrong = {
        "none": {},
        "an empty one": {"form_token": ""},
        "a made-up one": {"form_token": secrets.token_urlsafe(32)},
        "another person's": {"form_token": vera.form_token()},
        "an old one": {"form_token": old},
        "one for another purpose": {"form_token": signer("state").dumps(otto.name)},
        "a sentence": {"form_token": signer("said").dumps(otto.name)},
        "a cut one": {"form_token": otto.form_token()[:-1]},
    }
    before, asked = kept(store), server.requests()
    for route, body in bodies.items():
        for case, token in wrong.items():
            answer = otto.post(stage.address(route), {**body, **token})
            assert answer.status_code == 403, f"{route}, {case}"
            assert "load it again" in answer.text, f"{route}, {case}"
    assert kept(store) == before
    assert server.requests() == asked, "somebody asked the provider"


def test_a_form_token_is_good_for_a_working_day(otto, stage):
    with time_machine.travel(utcnow() - timedelta(hours=11), tick=False):
        early = otto.form_token()
    answer = otto.post(f"/oauth-guard/sources/{SOURCE}/unmute", {"form_token": early})
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "content", ["text/plain", "multipart/form-data; boundary=x", "", "application/jsonp", "text/json"]
)
def test_what_a_form_of_another_site_can_send_is_never_taken_for_json(otto, stage, store, content):
    """A browser sends JSON to another site only after asking it, but these at once."""
    before = kept(store)
    headers = {**otto.headers, "Content-Type": content}
    body = b'{"hours": 4}' if not content.startswith("multipart") else b"--x--\r\n"
    answer = otto.client.post(f"/oauth-guard/sources/{SOURCE}/mute", content=body, headers=headers)
    assert answer.status_code == 403, answer.text
    assert kept(store) == before


def test_json_needs_no_form_token(otto, store, stage):
    answer = otto.tell(f"/oauth-guard/api/sources/{SOURCE}/mute", {"hours": 4})
    assert answer.status_code == 200, answer.text
    assert store.sources.get(SOURCE).mute is not None


def test_a_browser_of_another_site_is_not_allowed_to_send_json(browser):
    """Which it asks first."""
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    headers = {**asked, "Access-Control-Request-Headers": "content-type"}
    answer = browser("").client.options(f"/oauth-guard/api/sources/{SOURCE}/mute", headers=headers)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.status_code >= 400


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_says_comes_from_another_site_is_refused(otto, stage, store, site):
    bodies = stage.bodies(POSTS, otto)
    before = kept(store)
    for route, body in bodies.items():
        as_form = {**body, "form_token": otto.form_token()}
        for answer in (
            otto.post(stage.address(route), as_form, **{"Sec-Fetch-Site": site}),
            otto.tell(stage.address(route), body, **{"Sec-Fetch-Site": site}),
        ):
            assert answer.status_code == 403, route
            assert "another site" in answer.text, route
    assert kept(store) == before


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_what_comes_from_our_own_site_is_taken(otto, store, stage, site):
    answer = otto.tell(f"/oauth-guard/sources/{SOURCE}/unmute", {}, **{"Sec-Fetch-Site": site})
    assert answer.status_code == 200


def test_another_site_may_link_to_a_page(otto, stage):
    """As a chat or a mail does."""
    assert otto.get("/oauth-guard/", **{"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_nothing_changes_by_looking(otto, store, server, stage):
    before, asked = kept(store), server.requests()
    for route in GETS:
        if route != CALLBACK:
            assert otto.get(stage.address(route)).status_code == 200, route
    assert kept(store) == before
    assert server.requests() == asked


def test_nothing_changes_by_following_a_link(otto, stage):
    for route in POSTS:
        if route.replace("/device", "") not in GETS:
            answer = otto.get(stage.address(route))
            assert answer.status_code in (404, 405), route


def test_where_everybody_is_an_admin_a_page_of_another_site_is_nobody(tmp_path, airflow, store, stage):
    """Airflow then logs every request in by itself, since 3.3, so that no cookie has to come along."""
    with serving(tmp_path, AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True") as client:
        bodies = stage.bodies(POSTS, Browser(client, "Anonymous", ""))
        before = kept(store)
        for route, body in bodies.items():
            if route != HEARTBEATS:
                answer = client.post(stage.address(route), data=body, headers=FORM)
                assert answer.status_code in (401, 403), f"{route}: {answer.text}"
            said = {"Sec-Fetch-Site": "cross-site"}
            assert client.post(stage.address(route), json=body, headers=said).status_code == 403, route
        assert kept(store) == before
        if version("apache-airflow").startswith("3.3."):
            assert client.get("/oauth-guard/").status_code == 200, "then this has tested nothing"
        anybody = Browser(client, "", client.get("/auth/token").json()["access_token"])
        page = anybody.press(f"/oauth-guard/sources/{SOURCE}", "Pause", hours="2")
        assert page.message.startswith("No alarm until"), "the page itself works"


# -- what is signed ---------------------------------------------------------------------------------------------------


def test_a_sentence_on_the_page_is_our_own(otto, stage):
    """A link from elsewhere cannot put words on it."""
    signed = signer("said").dumps("Connected: `generation` 7.")
    assert otto.open(f"/oauth-guard/?said={signed}").message == "Connected: generation 7."
    for made_up in ("Log in at evil.example", signed[:-1], signer("form").dumps("Log in"), "a.b.c", "é"):
        assert otto.open(f"/oauth-guard/?said={made_up}").message == ""
    with time_machine.travel(utcnow() - timedelta(hours=1), tick=False):
        old = signer("said").dumps("Connected.")
    assert otto.open(f"/oauth-guard/?said={old}").message == ""


def test_keys_rotate_as_airflows_do(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "older")
    before = signer("form").dumps("otto")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "newer, older")
    assert signer("form").loads(before) == "otto"
    after = signer("form").dumps("otto")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "newer")
    assert signer("form").loads(after) == "otto"
    with pytest.raises(Exception, match="ignature"):
        signer("form").loads(before)


def test_a_page_of_one_purpose_is_none_of_another():
    with pytest.raises(Exception, match="ignature"):
        signer("state").loads(signer("form").dumps("otto"))


def test_what_was_refused_is_said_on_a_page(otto, stage):
    answer = otto.post(f"/oauth-guard/sources/{SOURCE}/unmute")
    page = Page(answer.text)
    assert page.one("h1").text == "That did not work"
    assert page.problem.startswith("The page was open for too long")
    assert otto.tell("/oauth-guard/incidents/999/acknowledge").json()["detail"].startswith("Incident 999 is not open")


def test_a_person_is_named_in_evidence_as_airflow_names_them(otto, stage, store):
    otto.tell(stage.address("/credentials/{connection_id:path}/probe"))
    seen = store.credentials.latest_evidence(store.credentials.get(stage.conn_id), Kind.PROBE)
    assert str(seen.observer) == "otto (OAuth Guard page)"
