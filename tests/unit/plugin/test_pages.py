"""The pages as people get them: whole, whatever there is to show, and inert, whatever somebody wrote into it."""

from __future__ import annotations

import runpy
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, quote, urlsplit

import pytest

pytest.importorskip("airflow", reason="the plugin runs inside Airflow's API server")

from airflow_oauth_guard.domain.evidence import Finding, Kind, Observer, Shape, Subject
from airflow_oauth_guard.domain.flat_line import Standing
from airflow_oauth_guard.domain.incidents import About, IncidentKind, Phase
from airflow_oauth_guard.domain.reach import NOBODY
from airflow_oauth_guard.domain.redaction import redact_body
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.plugin import oauth_guard
from airflow_oauth_guard.plugin.rendering import _pretty
from airflow_oauth_guard.store.roster import SORTS
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import CALLBACK as ANYWHERE
from tests.airflow_parts import HOUR, enrolled, evidence_of, expire, incident_about, lapse, used_by, utcnow
from tests.unit.plugin.browsing import Browser, Page, inert
from tests.unit.plugin.scenes import LISTS, Scene

pytestmark = pytest.mark.airflow

HOSTILE = (
    """"><img src=x onerror=alert(1)>'><script>alert(1)</script><svg onload=x>' onmouseover='y {{ 7 * 7 }} {% x %} &lt;""",
    "</title></main></details><iframe srcdoc=x></iframe><a href=javascript:alert(1)>`<b onclick=x>`",
)

HEADERS = {
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def pages_of(scene: Scene) -> list[str]:
    """Every page that there is about what is in the store."""
    return [
        *(f"/oauth-guard{place}" for place in LISTS),
        *(f"/oauth-guard/credentials/{quote(name, safe='')}" for name in scene.credentials),
        *(f"/oauth-guard/credentials/{quote(name, safe='')}/evidence/{seen}" for name, seen in scene.evidence),
        *(f"/oauth-guard/sources/{quote(name, safe='')}" for name in scene.sources),
        *(f"/oauth-guard/incidents/{incident.id}" for incident in scene.incidents),
    ]


# -- whatever there is ------------------------------------------------------------------------------------------------


def test_an_empty_store_says_what_to_do(otto):
    assert "Nothing is guarded yet" in otto.open("/oauth-guard/").text
    assert "No source is watched yet." in otto.open("/oauth-guard/sources").text
    assert "There is none." in otto.open("/oauth-guard/incidents").text
    for place in LISTS:
        inert(otto.open(f"/oauth-guard{place}"))


def test_everything_there_can_be_has_its_page(vera, scene):
    for address in pages_of(scene):
        inert(vera.open(address))


def test_the_roster_shows_each_credential_with_its_facts_and_what_is_open(otto, store, scene):
    page = otto.open("/oauth-guard/")
    assert sorted(name.split()[0] for name in page.rows) == sorted(scene.credentials)
    for status in Status:
        assert f"{store.roster.counts()[status.value]} {status.value}" in page.text
    assert IncidentKind.GRANT_DEAD.headline in page.text
    assert "13 sources" not in page.text
    reach = store.roster.one("dead", utcnow()).reach
    assert (reach.sources.count, reach.dags.count) == (6, 2)
    assert page.links("2 DAGs, 6 sources") == ["/oauth-guard/credentials/dead#feeds"]
    assert "crm_load" in page.text
    assert "nobody known" in page.text


def test_a_credential_shows_its_history_and_each_change_with_its_evidence(otto, store, scene):
    page = otto.open("/oauth-guard/credentials/restored")
    for change in store.timeline.transitions(store.credentials.get("restored")):
        assert change.reason in page.text
        assert f"/oauth-guard/credentials/restored/evidence/{change.evidence_id}" in page.links(str(change.evidence_id))
    [expired, *_] = [one for one in page.all("li") if one.attrs.get("class") == "change"]
    assert "expired → active" in expired.text
    current, previous = store.timeline.generations(store.credentials.get("restored"))
    assert [one.text for one in page.all("code") if one.text == current.refresh_fingerprint]
    assert [one.text for one in page.all("code") if one.text == previous.refresh_fingerprint]


def test_a_credential_shows_who_uses_it_and_what_it_feeds(otto, store, scene):
    page = otto.open("/oauth-guard/credentials/dead")
    assert page.links("crm_load")[-1] == "/dags/crm_load"
    assert page.link("fetch.contacts") == "/dags/crm_load/tasks/fetch.contacts"
    for source in store.roster.one("dead", utcnow()).reach.sources.first:
        assert page.link(source) == f"/oauth-guard/sources/{source}"
    assert NOBODY in otto.open("/oauth-guard/credentials/endless").text


def test_of_many_consumers_the_first_are_shown_and_the_rest_counted(otto, store):
    for number in range(63):
        used_by(store, "crm", "load", f"task_{number:02}")
        used_by(store, "crm", f"dag_{number:02}")
    page = otto.open("/oauth-guard/credentials/crm")
    tasks = [one for one in page.links() if one.startswith("/dags/") and "/tasks/" in one]
    assert (len(tasks), tasks[0]) == (50, "/dags/dag_00/tasks/load")
    assert "and 76 more tasks" in page.text
    assert "64 DAGs: dag_00, dag_01" in page.text
    assert "dag_49 and 14 more" in page.text


def test_who_is_asked_about_an_expiry_is_told_whom_it_feeds(otto, store, scene):
    page = otto.open("/oauth-guard/credentials/asked")
    assert "Feeds 1 DAG (billing). Expiring it makes every consumer fail loudly" in page.text


def test_a_consumer_that_was_refused_is_shown_as_that(otto, store):
    credential = enrolled(store)
    shape = Shape("", "GET", "https://api.example/contacts", "consumer", "consumer's own", ())
    refused = evidence_of(
        Kind.USE, Finding.ACCESS_TOKEN_DEAD, Subject.ACCESS_TOKEN, credential, shape=shape, http_status=401
    )
    seen = store.credentials.record(credential, refused, utcnow())
    page, evidence = (otto.open(f"/oauth-guard/credentials/crm{more}") for more in ("", f"/evidence/{seen.id}"))
    assert page.link("rejected, not proven dead") == f"/oauth-guard/credentials/crm/evidence/{seen.id}"
    assert "refused use open HTTP 401" in page.text
    assert f"Evidence {seen.id} refused use" in evidence.text
    assert "GET https://api.example/contacts a consumer's own" in evidence.text
    assert "client authentication" not in page.text + evidence.text


def test_the_timeline_is_paged_and_nothing_is_shown_twice_or_left_out(otto, store):
    credential = enrolled(store)
    for _ in range(105):
        lapse(store, "crm")
    shown, address = [], "/oauth-guard/credentials/crm"
    while address:
        page = otto.open(address)
        shown += [one for one in page.links() if one.startswith("/oauth-guard/credentials/crm/evidence/")]
        address = next(iter(page.links("Older")), "").partition("#")[0]
    seen = {int(one.rpartition("/")[2]) for one in shown}
    assert seen == {one.id for one in store.timeline.page(credential, limit=500)}
    assert len(seen) == 105


def test_a_question_says_who_is_asked_and_by_what(otto, store, scene):
    page = otto.open("/oauth-guard/credentials/asked")
    assert "Answer the question below" in page.text
    assert "/dags/dag/runs/run/tasks/task/mapped/3" in page.links("dag · task")
    answered = otto.open("/oauth-guard/credentials/answered")
    assert "Answered: declined by Ada." in answered.text
    assert "Expire it" not in answered.changing


def test_a_source_shows_its_chart_with_what_is_usual(otto, store, scene):
    page = otto.open("/oauth-guard/sources/learned")
    bars = [one for one in page.all("line") if one.attrs.get("class") == "bar"]
    assert len(bars) == len(store.sources.recent("learned", 200)) == 200
    [band] = page.all("polygon")
    assert len(band.attrs["points"].split()) > 100
    assert "what is usual at that hour" in page.text
    fixed = otto.open("/oauth-guard/sources/fixed")
    zeros = [one for one in fixed.all("circle") if one.attrs["class"] == "zero"]
    assert (len(zeros), len([one for one in fixed.all("line") if one.attrs.get("class") == "bar"])) == (9, 11)
    [gap] = [one for one in fixed.all("rect") if one.attrs["class"] == "gap"]
    assert float(gap.attrs["width"]) > 100
    unknown = otto.open("/oauth-guard/sources/pings")
    assert {one.attrs["class"] for one in unknown.all("circle")} == {"unknown"}
    assert "Nothing was heard yet." in otto.open("/oauth-guard/sources/never").text


def test_a_source_names_the_credential_that_feeds_it_and_what_its_evidence_says(otto, store, scene):
    page = otto.open("/oauth-guard/sources/fixed")
    assert page.link("dead") == "/oauth-guard/credentials/dead"
    assert IncidentKind.GRANT_DEAD.headline in page.text
    assert "not guarded" in otto.open("/oauth-guard/sources/schedule").text
    assert "no credential is named" in otto.open("/oauth-guard/sources/never").text
    paused = otto.open("/oauth-guard/sources/muted")
    assert "by Ada: it moves house." in paused.text
    assert paused.changing == ["Watch it again"]


def test_an_incident_shows_how_long_it_took_to_tell_and_whom_it_speaks_for(otto, store, scene):
    by_kind = {incident.kind: incident for incident in scene.incidents}
    told = otto.open(f"/oauth-guard/incidents/{by_kind[IncidentKind.FLAT].id}")
    assert "3 h after it became true" in told.text
    first = otto.open(f"/oauth-guard/incidents/{_named(scene, 'grant_dead').id}")
    assert "2 times by now" in first.text
    assert "escalated" in first.text
    dead = otto.open(f"/oauth-guard/incidents/{_named(scene, 'dead').id}")
    assert " Feeds 2 DAGs (crm_load, dag) and 6 sources (" in dead.text
    assert "feeds 2 DAGs, 6 sources" in otto.open("/oauth-guard/incidents").text
    group = otto.open(f"/oauth-guard/incidents/{by_kind[IncidentKind.QUIET_TOGETHER].id}")
    assert "It speaks for 3" in group.text
    member = store.incidents.open_about(About.SOURCE, "fixed")
    assert f"/oauth-guard/incidents/{member.id}" in group.links()
    assert "as one of many" in otto.open(f"/oauth-guard/incidents/{member.id}").text
    assert "said that it had to be" in otto.open(f"/oauth-guard/incidents/{by_kind[IncidentKind.STUCK].id}").text


def _named(scene: Scene, name: str):
    return next(incident for incident in scene.incidents if incident.name == name)


def test_a_page_about_what_is_not_there_says_so(otto):
    enough = "9" * 40
    for place, said in {
        "/credentials/nobody": "Credential nobody is not in the store.",
        "/credentials/nobody/evidence/1": "Credential nobody is not in the store.",
        "/sources/nothing": "Source nothing",
        "/incidents/1": "There is no incident 1.",
        f"/incidents/{enough}": "incident_id",
        f"/credentials/nobody/evidence/{enough}": "evidence_id",
        "/credentials/a%00b": "There is nothing whose name has a NUL in it.",
        "/nothing/at/all": "Not Found",
    }.items():
        answer = otto.get(f"/oauth-guard{place}")
        assert answer.status_code in (404, 422), place
        page = Page(answer.text)
        assert said in page.problem, place
        inert(page)


# -- whatever somebody wrote ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", HOSTILE, ids=["quotes", "tags"], indirect=True)
def test_nothing_that_came_from_outside_runs(otto, scene):
    shown, wild = "", scene.wild
    for address in pages_of(scene):
        page = otto.open(address)
        inert(page)
        shown += page.text
    # It is all there to be read, as the text it is.
    words = wild.replace("`", "")
    for text in ("the provider says", "It says", "it moves house", "the vendor said so", "whoever owns it", "Ada"):
        assert f"{text}" in shown
    assert " ".join(f"whoever owns it {wild}".split()) in shown
    assert " ".join(f"server: nginx {wild}".split()) in shown
    assert " ".join(words.split()) in shown.replace("`", "")
    assert "49" not in {one.strip("'>") for one in shown.split()}


@pytest.mark.parametrize(
    "name", ["javascript:alert(1)", "data:text/html,<script>alert(1)</script>", "//evil.example/x"]
)
def test_a_name_that_looks_like_an_address_leads_to_its_page(otto, store, name):
    enrolled(store, name)
    store.sources.beat(name, 1, utcnow(), Observer(name, name, name))
    incident = incident_about(store, name)
    for place in (
        f"/credentials/{quote(name, safe='')}",
        f"/sources/{quote(name, safe='')}",
        f"/incidents/{incident.id}",
        *LISTS,
    ):
        page = otto.open(f"/oauth-guard{place}")
        inert(page)
        for address in page.links(name):
            assert address.startswith(("/oauth-guard/", "/dags/")), address


@pytest.mark.parametrize(
    "body", ["[" * 400 + "]" * 400, '{"a":' * 300 + "1" + "}" * 300, '"\\ud800"', "1e999", "\ud800", "{"]
)
def test_a_body_that_is_kept_can_be_shown(body):
    kept = redact_body(body.encode("utf-8", "surrogatepass"), ())
    assert _pretty(kept).encode()


@pytest.mark.parametrize("address", ["/", "/sources", "/incidents", "/credentials/nobody", "/nothing"])
def test_every_page_tells_the_browser_what_it_may_do(otto, address):
    answer = otto.get(f"/oauth-guard{address}")
    assert HEADERS.items() <= dict(answer.headers).items()
    rules = dict(rule.strip().partition(" ")[::2] for rule in answer.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["form-action"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_so_do_the_pages_of_a_refusal(vera, store):
    store.sources.beat("orders", 1, utcnow(), Observer())
    answer = vera.post("/oauth-guard/sources/orders/unmute", {"form_token": vera.form_token()})
    assert answer.status_code == 403
    assert HEADERS.items() <= dict(answer.headers).items()
    assert "content-security-policy" in answer.headers


# -- names ------------------------------------------------------------------------------------------------------------

NAMES = (
    *(
        "a/b",
        "a/",
        "a b#c?d=e&f",
        "100%",
        "a%2Fb",
        "a+b;c,d",
        """it's "one"\\""",
        "Zürich 客户 🦊",
        "a/probe",
        "evidence",
        "x" * 250,
    ),
)


def oddly_named(store: Store) -> None:
    for name in NAMES:
        enrolled(store, name)
        expire(store, name)
        store.sources.register([Source(name, HOUR, credential=name)], utcnow())
        incident_about(store, name)
        incident_about(store, name, IncidentKind.LATE, about=About.SOURCE)


def test_a_name_may_be_anything_and_what_is_linked_is_there(otto, vera, store):
    oddly_named(store)
    followed: set[str] = set()
    new = {f"/oauth-guard{place}" for place in LISTS}
    while new:
        found = {link for address in new for link in otto.open(address).links() if link.startswith("/oauth-guard/")}
        followed |= new
        new = {link.partition("#")[0] for link in found if "?" not in link} - followed
    for name in NAMES:
        part = quote(name, safe="")
        assert {f"/oauth-guard/credentials/{part}", f"/oauth-guard/sources/{part}"} <= followed, name
        assert vera.json(f"/oauth-guard/api/credentials/{part}")["credential"]["conn_id"] == name
        assert vera.json(f"/oauth-guard/api/sources/{part}")["source"]["name"] == name
    assert len([address for address in followed if "/incidents/" in address]) == 2 * len(NAMES)
    assert len([address for address in followed if "/evidence/" in address]) >= 2 * len(NAMES)


def test_a_name_may_be_anything_and_its_buttons_do_what_they_say(otto, store):
    oddly_named(store)
    for name in NAMES:
        credential, source = (f"/oauth-guard/{kind}/{quote(name, safe='')}" for kind in ("credentials", "sources"))
        assert otto.press(credential, "Revive", why="it answers").message.startswith("It is active"), name
        assert store.credentials.get(name).status is Status.ACTIVE, name
        assert otto.press(source, "Pause").message.startswith("No alarm until"), name
        assert store.sources.get(name).mute is not None, name


# -- behind another path ----------------------------------------------------------------------------------------------


def test_under_a_base_url_every_address_begins_with_it(otto, browser, airflow, store, scene, connect, monkeypatch):
    guarded, nobody = connect(redirect_uri=ANYWHERE), browser("")
    guarded.enrolled(store)
    lapse(store, guarded.conn_id)
    # As Airflow puts its application together where it finds this when it starts.
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    monkeypatch.setattr(airflow.app.airflow, "root_path", "/airflow")
    some = replace(scene, evidence=scene.evidence[:3], incidents=scene.incidents[:4])
    for address in [*pages_of(some), f"/oauth-guard/credentials/{guarded.conn_id}"]:
        page = otto.open(f"/airflow{address}")
        ours = [one for one in page.addresses if not one.startswith(("#", "https://", "http://"))]
        assert len(ours) > 6
        for one in ours:
            assert one.startswith("/airflow/"), f"{address} leads to {one}"
        outside = {one for one in ours if not one.startswith("/airflow/oauth-guard")}
        assert all(one == "/airflow/" or one.startswith("/airflow/dags/") for one in outside), outside
        login = nobody.get(f"/airflow{address}").headers["location"]
        assert login.startswith("/airflow/api/v2/auth/login?next=")
    assert otto.get("/airflow/oauth-guard/static/guard.js").status_code == 200
    credential = f"/airflow/oauth-guard/credentials/{guarded.conn_id}"
    assert "https://example.org/airflow/oauth-guard/callback" in otto.open(credential).text
    answer = otto.submit(otto.open(credential).form("Revive"), why="it answers")
    assert answer.headers["location"].startswith(f"{credential}?said=")
    leaving = Page(otto.submit(otto.open(credential).form("Reconnect")).text)
    [there] = parse_qs(urlsplit(leaving.link("Go on")).query)["redirect_uri"]
    assert there == "https://example.org/airflow/oauth-guard/callback"


def test_airflow_shows_the_plugin_under_its_base_url(monkeypatch):
    [view] = oauth_guard.OAuthGuardPlugin.external_views
    assert (view["href"], view["icon"]) == ("/oauth-guard/", "/oauth-guard/static/icon.svg")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow/")
    [view] = runpy.run_path(oauth_guard.__file__)["OAuthGuardPlugin"].external_views
    assert (view["href"], view["icon"]) == ("/airflow/oauth-guard/", "/airflow/oauth-guard/static/icon.svg")


# -- sorting, filters, pages ------------------------------------------------------------------------------------------


def every_page(browser: Browser, address: str) -> list[str]:
    """The names in a list, following "Next" to its end."""
    names: list[str] = []
    while address:
        page = browser.open(address)
        names += [name.split()[0] for name in page.rows]
        address = next(iter(page.links("Next")), "")
    return names


def test_a_long_roster_is_paged_in_the_order_asked_for(otto, store):
    names = [f"crm_{number:03d}" for number in range(120)]
    for number, name in enumerate(names):
        enrolled(store, name, provider="google" if number % 2 else "slack")
    lapse(store, "crm_007")
    assert every_page(otto, "/oauth-guard/?sort=conn_id&descending=true") == names[::-1]
    odd = names[1::2]
    assert every_page(otto, "/oauth-guard/?sort=conn_id&provider=google") == odd
    first = otto.open("/oauth-guard/?sort=conn_id&provider=google&search=crm_&limit=25")
    assert "1 to 25 of 60" in first.text
    assert parse_qs(urlsplit(first.link("Next")).query) == {
        "sort": ["conn_id"],
        "provider": ["google"],
        "search": ["crm_"],
        "limit": ["25"],
        "offset": ["25"],
    }
    second = otto.open(first.link("Next"))
    assert [name.split()[0] for name in second.rows] == odd[25:50]
    assert otto.open(second.link("Previous")).rows == first.rows
    assert every_page(otto, "/oauth-guard/?trouble=true") == ["crm_007"]


def test_the_form_of_the_roster_keeps_what_was_chosen(otto, store, scene):
    chosen = {
        "search": "e",
        "status": "active",
        "sort": "lapses",
        "descending": "true",
        "connection_class": "refresh_token",
    }
    page = otto.open("/oauth-guard/?" + "&".join(f"{name}={value}" for name, value in chosen.items()))
    form = page.form("Show")
    assert form.fields == {**chosen, "provider": ""}
    again = otto.submit(form, sort="conn_id")
    assert again.status_code == 200
    assert sorted(Page(again.text).rows) == sorted(page.rows)


@pytest.mark.parametrize("place", LISTS)
def test_an_untouched_form_finds_everything(otto, store, scene, place):
    page = otto.open(f"/oauth-guard{place}")
    answer = otto.submit(page.form("Show"))
    assert answer.status_code == 200, answer.text
    assert Page(answer.text).rows == page.rows
    assert page.rows


@pytest.mark.parametrize(
    "query",
    [
        *(f"sort={one}" for one in SORTS),
        *(f"status={one.value}" for one in Status),
        "status=",
    ],
)
def test_the_roster_takes_what_its_own_page_can_send(otto, store, query):
    enrolled(store)
    assert otto.get(f"/oauth-guard/?{query}").status_code == 200


def test_sources_and_incidents_are_filtered_and_paged(otto, store):
    store.sources.register([Source(f"orders_{number:03d}", HOUR) for number in range(70)], utcnow())
    for number in range(70):
        incident_about(store, f"orders_{number:03d}", IncidentKind.LATE, about=About.SOURCE)
    assert len(set(every_page(otto, "/oauth-guard/sources?search=orders"))) == 70
    assert every_page(otto, "/oauth-guard/sources?search=_06") == [f"orders_{number:03d}" for number in range(60, 70)]
    for standing in Standing:
        shown = every_page(otto, f"/oauth-guard/sources?standing={standing.value}")
        assert len(shown) == (70 if standing is Standing.FINE else 0)
    assert len(every_page(otto, "/oauth-guard/incidents?about=source&phase=open")) == 70
    for phase in Phase:
        assert otto.get(f"/oauth-guard/incidents?phase={phase.value}&about=").status_code == 200
    first = otto.open("/oauth-guard/incidents?about=source&phase=open")
    assert parse_qs(urlsplit(first.link("Next")).query) == {"about": ["source"], "phase": ["open"], "offset": ["50"]}


@pytest.mark.parametrize(
    "query", ["sort=id;drop", "status=dead", "offset=-1", "limit=0", "limit=501", "offset=x", f"offset={'9' * 40}"]
)
def test_a_query_that_nobody_can_answer_is_said_to_be_wrong(otto, store, query):
    answer = otto.get(f"/oauth-guard/?{query}")
    assert answer.status_code == 422
    page = Page(answer.text)
    assert query.partition("=")[0] in page.problem
    inert(page)


def test_a_list_past_its_end_says_so_without_an_error(otto, store):
    enrolled(store)
    for place in LISTS:
        assert otto.get(f"/oauth-guard{place}?offset=1000").status_code == 200


def test_a_search_is_text_and_nothing_else(otto, store):
    for name in ("100%", "a_b", "ab", "x'y"):
        enrolled(store, name)
    assert every_page(otto, "/oauth-guard/?search=%25") == ["100%"]
    assert every_page(otto, "/oauth-guard/?search=_") == ["a_b"]
    assert every_page(otto, "/oauth-guard/?search='") == ["x'y"]
    assert otto.get("/oauth-guard/?search=" + quote("\0")).status_code == 404
    assert sorted(every_page(otto, "/oauth-guard/?search=A")) == ["a_b", "ab"]
    page = otto.open("/oauth-guard/?search=" + quote(HOSTILE[0]))
    inert(page)
    assert page.form("Show").fields["search"] == HOSTILE[0]


def test_times_are_written_for_a_machine_too(otto, store):
    enrolled(store, expires_at=utcnow() + timedelta(minutes=30))
    [countdown] = [
        one for one in otto.open("/oauth-guard/credentials/crm").all("time") if "data-countdown" in one.attrs
    ][:1]
    assert countdown.attrs["datetime"].endswith("+00:00")
    assert countdown.text.startswith("in 29 min") or countdown.text == "in 30 min"
