"""Connecting from the page: to a real provider and back, by the right person, once, in time; and nothing else is stored."""

from __future__ import annotations

import logging
from datetime import timedelta
from importlib.metadata import version
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
import time_machine

pytest.importorskip("airflow", reason="the plugin runs inside Airflow's API server")

from uvicorn.protocols.utils import get_path_with_query_string

from airflow_oauth_guard.domain.evidence import Finding, Kind, Observer, Verdict
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.plugin.access import PAGE
from airflow_oauth_guard.plugin.signing import signer
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import PLANTED, Guarded, expire, lapse, make_due, probe, rows, utcnow
from tests.unit.plugin.browsing import Browser, Page, inert
from tests.unit.plugin.graph import audit_log

pytestmark = pytest.mark.airflow

BACK = "http://testserver/oauth-guard/callback"
BY_OTTO = Observer(task_id=PAGE, person="otto")
FOREVER = timedelta(minutes=11)
"""Longer than anybody may take at the provider."""


@pytest.fixture
def guarded(connect, store) -> Guarded:
    """A credential that a person can connect, in a browser or by another device."""
    one = connect(redirect_uri=BACK, provider="approver", provider_params=connect.preset("approver"))
    one.enrolled(store)
    return one


def page_of(guarded: Guarded) -> str:
    return f"/oauth-guard/credentials/{guarded.conn_id}"


def begin(browser: Browser, guarded: Guarded) -> str:
    """Press "Reconnect"; the address at the provider."""
    leaving = browser.press(page_of(guarded), "Reconnect" if guarded.minted else "Connect")
    return leaving.link("Go on")


def here(address: str) -> str:
    """The address as our server gets it."""
    parts = urlsplit(address)
    assert address.startswith(f"{BACK}?"), address
    return f"{parts.path}?{parts.query}"


def changed(address: str, **parameters: str | None) -> str:
    """The address with these parameters instead; None leaves one out."""
    parts = urlsplit(here(address))
    given = {**dict(parse_qsl(parts.query)), **parameters}
    return f"{parts.path}?{urlencode({name: value for name, value in given.items() if value is not None})}"


def parameter(address: str, name: str) -> str:
    [value] = parse_qs(urlsplit(address).query)[name]
    return value


def standing(store: Store, guarded: Guarded) -> tuple[object, ...]:
    """What a connection that is refused may not touch."""
    credential = guarded.credential(store)
    alive = [one.id for one in store.timeline.page(credential, kinds=[Kind.CONNECT]) if one.verdict is not Verdict.OPEN]
    return (
        credential.generation,
        credential.status,
        credential.failures,
        store.credentials.tokens(credential),
        [change.id for change in store.timeline.transitions(credential)],
        alive,
    )


def exchanges(guarded: Guarded) -> int:
    return len([seen for seen in guarded.token_requests() if seen.grant_type == "authorization_code"])


# -- there and back ---------------------------------------------------------------------------------------------------


def test_a_person_approves_and_the_next_generation_is_there(otto, store, server, guarded):
    lapse(store, guarded.conn_id)
    expire(store, guarded.conn_id)
    old = store.credentials.tokens(guarded.credential(store))
    answer = otto.get(here(server.approve(begin(otto, guarded), "grace")))
    assert answer.status_code == 303, Page(answer.text).problem
    page = otto.open(answer.headers["location"])
    credential, tokens = guarded.credential(store), store.credentials.tokens(guarded.credential(store))
    assert page.message == "Connected: generation 2, active."
    assert (credential.generation, credential.status) == (2, Status.ACTIVE)
    assert tokens.access_token != old.access_token
    assert tokens.refresh_token not in ("", old.refresh_token)
    assert probe(server, tokens.access_token) == 200
    [seen] = store.timeline.page(credential, kinds=[Kind.CONNECT])
    assert (seen.finding, seen.verdict, seen.observer) == (Finding.LIVE, Verdict.LIVE, BY_OTTO)
    assert store.timeline.transitions(credential)[0].evidence_id == seen.id
    assert "otto (OAuth Guard page)" in page.text
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome.value == "renewed", "what it brought is refreshed like any other"


def test_one_that_never_had_tokens_is_connected_as_its_first_generation(otto, store, server, connect):
    guarded = connect(redirect_uri=BACK, seeded=False)
    guarded.enrolled(store)
    address = otto.press(page_of(guarded), "Connect").link("Go on")
    otto.open(otto.get(here(server.approve(address))).headers["location"])
    assert guarded.credential(store).generation == 1
    assert guarded.credential(store).status is Status.ACTIVE


def test_the_page_says_where_it_sends_people_and_sends_nothing_secret_along(otto, store, guarded):
    page = otto.press(page_of(guarded), "Reconnect")
    inert(page)
    address = page.link("Go on")
    assert urlsplit(address).netloc in page.text
    [refresh] = page.refreshes
    assert refresh.attrs["content"] == f"0;url={address}"
    sent = parse_qs(urlsplit(address).query)
    assert sent["redirect_uri"] == [BACK]
    assert sent["code_challenge_method"] == ["S256"]
    [begun] = rows(store, "oauth_guard_authorizations")
    assert begun["person"] == "otto"
    for secret in (*guarded.secrets, "verifier"):
        assert secret not in page.html
    assert sent["state"][0] not in f"{begun}"
    assert sent["code_challenge"][0] not in f"{begun}"


def test_the_redirect_uri_to_register_is_shown_where_it_matters(otto, store, guarded, connect):
    assert f"Redirect URI to register at the provider: {BACK}" in otto.open(page_of(guarded)).text
    nowhere = connect(suffix="_nowhere")
    nowhere.enrolled(store)
    page = otto.open(page_of(nowhere))
    assert "no authorization URL is known for it" in page.text
    assert page.changing == ["Probe now", "Refresh now"]
    machine = connect("client_credentials", suffix="_machine")
    machine.enrolled(store)
    page = otto.open(page_of(machine))
    assert "authorization URL" not in page.text
    assert page.changing == ["Probe now", "Refresh now"]


@pytest.mark.parametrize("suffix", ["connect", "device"])
def test_what_nobody_can_approve_is_not_sent_anywhere(otto, store, connect, suffix):
    machine = connect("client_credentials")
    machine.enrolled(store)
    answer = otto.post(f"{page_of(machine)}/{suffix}", {"form_token": otto.form_token()})
    assert answer.status_code == 422
    assert "a class that nobody approves for in a browser" in Page(answer.text).problem
    assert rows(store, "oauth_guard_authorizations") == []


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "//evil.example/x", "https://a:b@evil.example/"]
)
def test_nobody_is_sent_to_what_is_no_address_of_a_provider(otto, store, connect, address):
    guarded = connect(redirect_uri=BACK, authorization_url=address)
    store.credentials.enroll(connect(suffix="_x").hook().enrollment(), utcnow())
    answer = otto.post(f"{page_of(guarded)}/connect", {"form_token": otto.form_token()})
    assert answer.status_code == 422
    page = Page(answer.text)
    assert "field authorization_url" in page.problem
    inert(page)


# -- what is refused --------------------------------------------------------------------------------------------------


def refused(answer, said: str, status_code: int = 403) -> None:
    assert answer.status_code == status_code, answer.text
    page = Page(answer.text)
    assert said in page.problem, page.problem
    inert(page)


def test_a_state_is_taken_once(otto, store, server, guarded):
    back = here(server.approve(begin(otto, guarded)))
    assert otto.get(back).status_code == 303
    before = standing(store, guarded)
    refused(otto.get(back), "was used already")
    assert standing(store, guarded) == before
    assert exchanges(guarded) == 1
    assert probe(server, store.credentials.tokens(guarded.credential(store)).access_token) == 200


def test_a_code_does_not_connect_what_it_was_not_given_for(otto, store, server, guarded, connect):
    """The code of one credential with the state of another: the verifier and the client do not fit."""
    other = connect(suffix="_other", redirect_uri=BACK)
    other.enrolled(store)
    first, second = server.approve(begin(otto, guarded)), server.approve(begin(otto, other))
    before = standing(store, guarded), standing(store, other)
    refused(otto.get(changed(first, state=parameter(second, "state"))), "is not connected", 409)
    assert (standing(store, guarded), standing(store, other)) == before
    [seen] = store.timeline.page(other.credential(store), kinds=[Kind.CONNECT])
    assert (seen.verdict, seen.observer) == (Verdict.OPEN, BY_OTTO)
    assert store.timeline.page(guarded.credential(store), kinds=[Kind.CONNECT]) == []


def test_a_code_of_another_account_of_the_same_app_does_not_slip_in(otto, store, server, guarded, connect):
    """One client, two credentials: only the verifier tells the two approvals apart."""
    sibling = connect.sibling(guarded, "_sibling")
    sibling.enrolled(store)
    first, second = server.approve(begin(otto, guarded), "ada"), server.approve(begin(otto, sibling), "eve")
    before = standing(store, guarded), standing(store, sibling)
    refused(otto.get(changed(first, code=parameter(second, "code"))), "is not connected", 409)
    assert (standing(store, guarded), standing(store, sibling)) == before


def test_who_takes_too_long_begins_again(otto, store, server, guarded):
    back, before = here(server.approve(begin(otto, guarded))), standing(store, guarded)
    with time_machine.travel(utcnow() + FOREVER, tick=False):
        refused(otto.get(back), "too long ago; nothing was stored")
    assert standing(store, guarded) == before
    assert exchanges(guarded) == 0


def test_the_store_ends_it_too_whatever_was_signed(otto, store, server, guarded):
    """Of two clocks the earlier one counts."""
    back = here(server.approve(begin(otto, guarded)))
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE oauth_guard_authorizations SET ends_at = '2026-01-01 00:00:00.000000'")
    before = standing(store, guarded)
    refused(otto.get(back), "is over since 2026-01-01")
    assert standing(store, guarded) == before


def test_a_state_that_we_did_not_make_is_none(otto, store, server, guarded):
    back, before = server.approve(begin(otto, guarded)), standing(store, guarded)
    made_up = {
        "none": None,
        "empty": "",
        "made up": "x" * 60,
        "cut": parameter(back, "state")[:-1],
        "of a form": signer("form").dumps(otto.name),
        "a form's words": signer("form").dumps([otto.name, "x"]),
        "never begun": signer("state").dumps([otto.name, "x"]),
        "odd letters": "é",
    }
    for case, state in made_up.items():
        answer = otto.get(changed(back, state=state))
        assert answer.status_code == 403, case
        assert "not begun here" in Page(answer.text).problem, case
    assert standing(store, guarded) == before
    assert exchanges(guarded) == 0
    assert otto.get(here(back)).status_code == 303, "whoever is refused takes nothing away"


def test_what_one_person_began_another_does_not_finish(otto, browser, store, server, guarded):
    """A link to our callback in a mail would else connect somebody's own account in an admin's name."""
    back, before = server.approve(begin(otto, guarded), "eve"), standing(store, guarded)
    refused(browser("olga").get(here(back)), "begun by somebody else")
    own = signer("state").dumps(["olga", "x"])
    refused(browser("olga").get(changed(back, state=own)), "was not begun here")
    assert standing(store, guarded) == before
    assert exchanges(guarded) == 0
    assert otto.get(here(back)).status_code == 303


def test_a_state_is_its_persons_in_the_store_as_well(otto, browser, store, server, guarded):
    """Even where somebody could sign in another person's name."""
    from airflow_oauth_guard.store import authorizations

    back = server.approve(begin(otto, guarded))
    state = parameter(back, "state")
    assert len(rows(store, "oauth_guard_authorizations")) == 1
    with pytest.raises(Exception, match="begun by somebody else"):
        store.authorizations.take(state, "olga", utcnow())
    assert authorizations._hash(state) == rows(store, "oauth_guard_authorizations")[0]["state_hash"]


def test_who_may_not_any_more_is_refused_at_the_end(otto, airflow, store, server, guarded):
    """Permission is asked for when they come back, not only when they leave."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    back, before = here(server.approve(begin(otto, guarded))), standing(store, guarded)
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="otto", role="viewer"))
    refused(Browser(airflow, "otto", token).get(back), "Forbidden")
    assert standing(store, guarded) == before
    assert exchanges(guarded) == 0


def test_who_is_not_logged_in_any_more_is_refused(browser, otto, store, server, guarded):
    back, before = here(server.approve(begin(otto, guarded))), standing(store, guarded)
    assert browser("").get(back).status_code == 401
    assert standing(store, guarded) == before
    assert otto.get(back).status_code == 303


def test_what_a_provider_says_instead_is_shown_as_text(otto, store, server, guarded):
    before = standing(store, guarded)
    denied = server.approve(begin(otto, guarded), deny=True)
    assert parameter(denied, "error") == "access_denied"
    refused(otto.get(here(denied)), "its provider says 'access_denied", 409)
    denied = server.approve(begin(otto, guarded), deny=True)
    html = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    answer = otto.get(changed(denied, error=html, error_description=f"{html} {PLANTED}{'x' * 40}"))
    refused(answer, "its provider says", 409)
    assert html in Page(answer.text).problem
    assert PLANTED not in answer.text
    nothing = server.approve(begin(otto, guarded))
    refused(otto.get(changed(nothing, code=None)), "neither a code nor an error", 409)
    assert standing(store, guarded) == before
    assert exchanges(guarded) == 0


def test_a_provider_that_denied_is_not_asked_with_the_same_state(otto, store, server, guarded):
    denied = server.approve(begin(otto, guarded), deny=True)
    otto.get(here(denied))
    refused(otto.get(changed(denied, error=None, code="x")), "was used already")
    assert exchanges(guarded) == 0


def test_an_answer_of_another_provider_is_not_taken_to_this_one(otto, store, server, guarded):
    """RFC 9207: its code would be shown to the wrong one."""
    back, before = server.approve(begin(otto, guarded)), standing(store, guarded)
    refused(otto.get(changed(back, iss="https://evil.example")), "which is not the provider that was asked")
    assert standing(store, guarded) == before
    assert exchanges(guarded) == 0


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 400, "body": {"error": "<script>alert(1)</script>"}},
        {"kind": "html"},
        {"kind": "empty_200"},
    ],
)
def test_an_exchange_that_fails_is_kept_and_stores_no_token(otto, store, server, guarded, fault):
    back, before = here(server.approve(begin(otto, guarded))), standing(store, guarded)
    guarded.fault(**{"kind": "status", **fault})
    refused(otto.get(back), "is not connected", 409)
    assert standing(store, guarded) == before
    [seen] = store.timeline.page(guarded.credential(store), kinds=[Kind.CONNECT])
    assert (seen.verdict, seen.observer) == (Verdict.OPEN, BY_OTTO)
    inert(otto.open(f"{page_of(guarded)}/evidence/{seen.id}"))
    assert store.investigations.open_for(guarded.credential(store)) is None, "nothing is known about the grant we hold"


def test_the_old_tokens_are_good_after_a_refusal(otto, store, server, guarded):
    back = server.approve(begin(otto, guarded))
    otto.get(changed(back, code="made-up"))
    assert probe(server, store.credentials.tokens(guarded.credential(store)).access_token) == 200
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome.value == "renewed"


# -- what nobody gets to see ------------------------------------------------------------------------------------------


def test_the_code_is_in_no_log_whatever_becomes_of_it(
    otto, vera, browser, store, server, guarded, caplog, capfd, airflow
):
    caplog.set_level(logging.DEBUG)
    before = len(audit_log())
    codes = []
    for person, change in (
        (otto, {}),
        (otto, {"state": "forged"}),
        (vera, {}),
        (browser(""), {}),
        (browser("olga"), {}),
        (otto, {"iss": "https://evil.example"}),
        (Browser(airflow, "", "no.token.ofairflow"), {}),
    ):
        back = server.approve(begin(otto, guarded))
        codes.append(parameter(back, "code"))
        answer = person.get(changed(back, **change))
        scope = airflow.app.scopes[-1]
        # What uvicorn's log of requests has.
        assert get_path_with_query_string(scope) == "/oauth-guard/callback"
        assert codes[-1] not in f"{answer.text} {answer.headers}"
        if answer.status_code == 303:
            assert codes[-1] not in otto.open(answer.headers["location"]).html
    written = capfd.readouterr()
    logged = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    if version("apache-airflow").startswith("3.3."):
        assert written.out.count("/oauth-guard/callback") == len(codes), "Airflow's own log of requests has each"
    for code in codes:
        assert code.startswith(PLANTED)
        assert code not in written.out + written.err
        assert code not in logged
        assert code not in f"{audit_log()[before:]}"
    assert f"{PLANTED}" not in f"{rows(store, 'oauth_guard_evidence')} {rows(store, 'oauth_guard_intents')}"


# -- by another device ------------------------------------------------------------------------------------------------


def invited(browser: Browser, guarded: Guarded) -> Page:
    return browser.press(page_of(guarded), "Connect by another device")


def polling(page: Page) -> dict[str, str]:
    """What the page's script sends."""
    [waiting] = [one.attrs for one in page.all("p") if "data-poll" in one.attrs]
    assert waiting["data-poll"] == "/oauth-guard/device"
    return {"state": waiting["data-state"], "form_token": waiting["data-token"], "waited": waiting["data-after"]}


def poll(browser: Browser, page: Page, **changes: str):
    return browser.post("/oauth-guard/device", {**polling(page), **changes}, Accept="application/json")


def user_code(page: Page) -> str:
    [code] = [one.text for one in page.all("p") if one.attrs.get("class") == "code"]
    return code


def test_a_person_enters_the_code_elsewhere_and_the_page_goes_on(otto, store, server, guarded):
    page = invited(otto, guarded)
    inert(page)
    assert page.link(f"{server.url}/device") == f"{server.url}/device"
    early = poll(otto, page)
    assert (early.status_code, early.json()["done"], early.json()["after_seconds"]) == (200, False, 1.0)
    server.approve_device(user_code(page))
    done = poll(otto, page)
    while not done.json()["done"]:
        # It had been asked too soon, and says how long to wait; the test does not.
        assert done.json()["after_seconds"] >= 1
        done = poll(otto, page, waited=str(done.json()["after_seconds"]))
    assert done.json()["said"] == "Connected: generation 2, active."
    assert done.json()["place"] == page_of(guarded)
    tokens = store.credentials.tokens(guarded.credential(store))
    assert probe(server, tokens.access_token) == 200
    [seen] = store.timeline.page(guarded.credential(store), kinds=[Kind.CONNECT])
    assert (seen.verdict, seen.observer) == (Verdict.LIVE, BY_OTTO)
    again = poll(otto, page)
    assert (again.status_code, "used already" in again.json()["detail"]) == (403, True)


def test_what_the_device_flow_shows_is_nothing_that_opens_a_door(otto, store, guarded, server):
    page = invited(otto, guarded)
    [device_code] = _device_codes(store)
    assert device_code.startswith(PLANTED)
    assert device_code not in page.html
    assert device_code not in poll(otto, page).text
    assert PLANTED not in page.html


def _device_codes(store: Store) -> list[str]:
    return [
        store.authorizations._cipher.decrypt(row["secret"]).split('"')[3]
        for row in rows(store, "oauth_guard_authorizations")
    ]


def test_a_device_that_was_denied_is_over(otto, store, server, guarded):
    page, before = invited(otto, guarded), standing(store, guarded)
    server.approve_device(user_code(page), deny=True)
    answer = poll(otto, page)
    assert (answer.status_code, "is not connected" in answer.json()["detail"]) == (409, True)
    assert standing(store, guarded) == before
    again = poll(otto, page)
    assert (again.status_code, "used already" in again.json()["detail"]) == (403, True)


def test_another_persons_device_is_not_asked_about(otto, browser, vera, store, server, guarded):
    page, before = invited(otto, guarded), standing(store, guarded)
    server.approve_device(user_code(page))
    olga = browser("olga")
    stolen = poll(olga, page, form_token=olga.form_token())
    assert (stolen.status_code, "somebody else" in stolen.json()["detail"]) == (403, True)
    for changes in ({"state": "forged"}, {"form_token": ""}, {"form_token": vera.form_token()}):
        assert poll(otto, page, **changes).status_code == 403
    assert standing(store, guarded) == before
    assert poll(otto, page).json()["done"]


def test_a_device_is_not_waited_for_longer_than_its_code_lives(otto, store, server, guarded):
    page, before = invited(otto, guarded), standing(store, guarded)
    server.approve_device(user_code(page))
    with time_machine.travel(utcnow() + FOREVER, tick=False):
        token = otto.form_token()
        answer = poll(otto, page, form_token=token)
    assert answer.status_code == 403
    assert standing(store, guarded) == before


def test_who_may_not_any_more_gets_nothing_by_a_device(otto, airflow, store, server, guarded):
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    page, before = invited(otto, guarded), standing(store, guarded)
    server.approve_device(user_code(page))
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="otto", role="viewer"))
    assert poll(Browser(airflow, "otto", token), page).status_code == 403
    assert standing(store, guarded) == before


@pytest.mark.parametrize("waited", ["-1", "nan", "1e9", "soon"])
def test_how_long_was_waited_is_a_number_of_seconds(otto, store, guarded, waited):
    page = invited(otto, guarded)
    answer = poll(otto, page, waited=waited)
    assert (answer.status_code, answer.json()["detail"][:10]) == (422, "`waited`: ")


def test_where_a_provider_sends_people_is_a_link_only_if_it_is_an_address(otto, store, server, guarded):
    body = {
        "device_code": f"{PLANTED}device",
        "user_code": "<script>alert(1)</script>",
        "verification_uri": "javascript:alert(1)",
        "expires_in": 300,
    }
    server.fault("status", client_id=guarded.conn_id, path="/oauth/device", on="both", status=200, body=body)
    page = invited(otto, guarded)
    inert(page)
    assert user_code(page) == "<script>alert(1)</script>"
    assert "javascript" not in page.html


def test_a_provider_that_does_not_invite_is_quoted_as_text(otto, store, server, guarded):
    body = {"error": "access_denied", "error_description": '"><img src=x onerror=alert(1)>'}
    server.fault("status", client_id=guarded.conn_id, path="/oauth/device", on="both", status=400, body=body)
    answer = otto.submit(otto.open(page_of(guarded)).form("Connect by another device"))
    refused(answer, "is not connected", 409)
    assert rows(store, "oauth_guard_authorizations") == []
