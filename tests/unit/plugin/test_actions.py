"""What people do on the page, against the real authorization server, and the traces it leaves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("airflow", reason="the plugin runs inside Airflow's API server")

from airflow_oauth_guard.domain.evidence import Finding, Kind, Observer, Verdict
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import StoreUnavailableError
from airflow_oauth_guard.operators.approval import EXPIRE, KEEP
from airflow_oauth_guard.plugin import actions
from airflow_oauth_guard.plugin.access import PAGE
from tests.airflow_parts import CALLBACK as ANYWHERE
from tests.airflow_parts import HOUR, PLANTED, enrolled, expire, incident_about, lapse, probe, proven_dead, utcnow
from tests.unit.plugin.browsing import Page
from tests.unit.plugin.graph import answered, asked_in_the_graph, audit_log, wake_up

pytestmark = pytest.mark.airflow

BY_OTTO = Observer(task_id=PAGE, person="otto")


def page_of(name: str) -> str:
    return f"/oauth-guard/credentials/{name}"


def latest(store, guarded, *kinds: Kind):
    return store.credentials.latest_evidence(guarded.credential(store), *kinds)


# -- probe ------------------------------------------------------------------------------------------------------------


def test_a_probe_asks_the_provider_and_keeps_the_answer_with_the_persons_name(otto, store, connect):
    guarded = connect()
    guarded.enrolled(store)
    page = otto.press(page_of(guarded.conn_id), "Probe now")
    seen = latest(store, guarded, Kind.PROBE)
    assert (seen.finding, seen.observer) == (Finding.LIVE, BY_OTTO)
    assert page.message == f"Probe: {seen.sentence()} (evidence {seen.id})."
    assert "otto (OAuth Guard page)" in page.text


def test_a_probe_that_fails_is_a_question_and_changes_no_status(otto, store, server, connect):
    guarded = connect()
    guarded.enrolled(store)
    server.revoke(guarded.conn_id)
    said = otto.tell(f"{page_of(guarded.conn_id)}/probe").json()
    seen = latest(store, guarded)
    assert said["evidence_id"] == seen.id
    assert (seen.kind, seen.verdict) == (Kind.PROBE, Verdict.OPEN)
    assert guarded.credential(store).status is Status.ACTIVE


def test_a_probe_restores_what_had_lapsed_because_the_provider_answers(otto, store, connect):
    guarded = connect()
    guarded.enrolled(store)
    lapse(store, guarded.conn_id)
    assert guarded.credential(store).status is Status.LAPSED
    otto.press(page_of(guarded.conn_id), "Probe now")
    assert guarded.credential(store).status is Status.ACTIVE
    [change, _] = store.timeline.transitions(guarded.credential(store))
    assert (change.evidence_id, change.observer) == (latest(store, guarded, Kind.PROBE).id, BY_OTTO)


def test_what_has_no_token_or_no_probe_is_not_probed_and_the_page_says_why(otto, store, server, connect):
    empty, blind = connect(seeded=False), connect(suffix="_blind", probe_url=None)
    for guarded, said in ((empty, "has no access token to probe with"), (blind, "probe_url")):
        guarded.enrolled(store)
        answer = otto.submit(otto.open(page_of(guarded.conn_id)).form("Probe now"))
        assert answer.status_code == 422
        assert said in Page(answer.text).problem
    assert server.requests() == []


# -- refresh ----------------------------------------------------------------------------------------------------------


def test_a_refresh_brings_the_next_generation_and_names_who_wanted_it(otto, store, server, connect):
    guarded = connect(client={"rotation": True, "reuse_detection": True})
    guarded.enrolled(store)
    page = otto.press(page_of(guarded.conn_id), "Refresh now")
    assert page.message.startswith("Refresh: renewed;")
    credential, seen = guarded.credential(store), latest(store, guarded, Kind.REFRESH)
    assert credential.generation == 2
    assert (seen.finding, seen.observer) == (Finding.LIVE, BY_OTTO)
    assert probe(server, store.credentials.tokens(credential).access_token) == 200
    assert len(guarded.token_requests()) == 1


def test_a_refresh_is_asked_for_whatever_waits(otto, store, connect):
    """A person who has mended something need not wait for the back-off to end."""
    guarded = connect()
    guarded.enrolled(store)
    guarded.fault(status=503, times=1)
    said = otto.tell(f"{page_of(guarded.conn_id)}/refresh").json()["said"]
    assert guarded.credential(store).waits(utcnow()), said
    assert otto.tell(f"{page_of(guarded.conn_id)}/refresh").json()["said"].startswith("Refresh: renewed;")
    assert guarded.credential(store).generation == 2


def test_a_refresh_that_fails_is_looked_into_and_expires_nothing(otto, store, server, connect):
    guarded = connect()
    guarded.enrolled(store)
    server.revoke(guarded.conn_id)
    page = otto.press(page_of(guarded.conn_id), "Refresh now")
    assert "The next run of oauth_guard_refresh looks into it." in page.message
    credential, seen = guarded.credential(store), latest(store, guarded, Kind.REFRESH)
    assert credential.status is Status.ACTIVE
    assert (seen.finding, seen.verdict, seen.observer) == (Finding.GRANT_DEAD, Verdict.OPEN, BY_OTTO)
    assert store.investigations.open_for(credential) is not None
    assert store.timeline.transitions(credential) == []


def test_a_connection_that_the_api_server_cannot_see_or_use_is_said_in_a_sentence(otto, store, connect):
    enrolled(store, "gone")
    broken = connect(refresh_margin="soon")
    enrolled(store, broken.conn_id)
    for name, said in (("gone", "Connection gone is not to be found"), (broken.conn_id, "field refresh_margin")):
        assert said in otto.open(page_of(name)).problem
        for what in ("probe", "refresh", "connect", "device"):
            answer = otto.post(f"{page_of(name)}/{what}", {"form_token": otto.form_token()})
            assert answer.status_code == 422, what
            assert said in Page(answer.text).problem, what


def test_a_credential_that_nobody_enrolled_is_enrolled_by_its_first_refresh(otto, store, connect):
    guarded = connect()
    assert otto.tell(f"{page_of(guarded.conn_id)}/probe").status_code == 404
    assert otto.tell(f"{page_of(guarded.conn_id)}/refresh").status_code == 200
    assert guarded.credential(store).generation == 2


# -- revive -----------------------------------------------------------------------------------------------------------


def test_who_revives_says_why_and_stands_for_it(otto, store):
    enrolled(store)
    expire(store, "crm")
    page = otto.press(page_of("crm"), "Revive", why="  the vendor restored the account ")
    assert page.message == "It is active by your word, and is asked at the next cycle."
    credential = store.credentials.get("crm")
    seen = store.credentials.latest_evidence(credential, Kind.PERSON)
    assert (credential.status, seen.observer) == (Status.ACTIVE, BY_OTTO)
    assert seen.reading.explanation.endswith("it works again: the vendor restored the account")
    assert store.timeline.transitions(credential)[0].evidence_id == seen.id
    assert "Revive" not in page.changing


WHY = {
    "nothing": {},
    "no reason": {"why": ""},
    "blanks": {"why": "   "},
    "a novel": {"why": "x" * 501},
    "more than that": {"why": "it works", "status": "active"},
}


@pytest.mark.parametrize("case", WHY)
def test_a_revival_without_a_reason_is_refused(otto, store, case):
    enrolled(store)
    expire(store, "crm")
    for answer in (
        otto.post(f"{page_of('crm')}/revive", {**WHY[case], "form_token": otto.form_token()}),
        otto.tell(f"{page_of('crm')}/revive", WHY[case]),
    ):
        assert answer.status_code == 422
    assert set(answer.json()) == {"detail"}
    assert answer.json()["detail"].startswith(("`why`: ", "`status`: "))
    assert store.credentials.get("crm").status is Status.EXPIRED


def test_what_is_active_cannot_be_revived(otto, store):
    enrolled(store)
    answer = otto.tell(f"{page_of('crm')}/revive", {"why": "it works"})
    assert (answer.status_code, "active already" in answer.json()["detail"]) == (422, True)
    assert otto.tell(f"{page_of('nobody')}/revive", {"why": "it works"}).status_code == 404


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"{", b"why=x", b"[1]", b'"text"', b"7", b"null", b"\xff\xfe", b"[" * 5000, b'{"why": "\\ud800"}']
)
def test_a_body_that_is_no_json_object_is_said_to_be_none(otto, store, body):
    enrolled(store)
    expire(store, "crm")
    headers = {**otto.headers, "Content-Type": "application/json"}
    answer = otto.client.post(f"{page_of('crm')}/revive", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert isinstance(answer.json()["detail"], str)
    assert store.credentials.get("crm").status is Status.EXPIRED


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_is_json_however_it_is_written(otto, store, kind):
    enrolled(store)
    expire(store, "crm")
    headers = {**otto.headers, "Content-Type": kind}
    answer = otto.client.post(f"{page_of('crm')}/revive", content=b'{"why": "it works"}', headers=headers)
    assert (answer.status_code, answer.json()["said"][:12]) == (200, "It is active")


def test_a_file_in_a_form_is_no_text(otto, store):
    enrolled(store)
    expire(store, "crm")
    files = {"why": ("why.txt", b"x" * 100)}
    answer = otto.client.post(
        f"{page_of('crm')}/revive", data={"form_token": otto.form_token()}, files=files, headers=otto.headers
    )
    assert answer.status_code == 400
    assert store.credentials.get("crm").status is Status.EXPIRED


def test_a_nul_in_a_text_is_kept_by_no_database_so_it_is_none(otto, store):
    enrolled(store)
    expire(store, "crm")
    assert otto.tell(f"{page_of('crm')}/revive", {"why": "it\0works"}).status_code == 200
    seen = store.credentials.latest_evidence(store.credentials.get("crm"), Kind.PERSON)
    assert "\0" not in seen.reading.explanation


# -- incidents --------------------------------------------------------------------------------------------------------


def test_the_first_who_is_on_it_is_named(otto, browser, store):
    enrolled(store)
    incident = incident_about(store)
    page = otto.press(f"/oauth-guard/incidents/{incident.id}", "I am on it")
    assert page.message == "Acknowledged by otto."
    assert page.changing == []
    second = browser("anna").tell(f"/oauth-guard/incidents/{incident.id}/acknowledge")
    assert second.json()["said"] == "Acknowledged by otto."
    assert store.incidents.get(incident.id).acknowledged_by == "otto"


def test_what_is_over_or_never_was_cannot_be_acknowledged(otto, store):
    incident = incident_about(store)
    store.incidents.resolve(About.CREDENTIAL, "crm", "it answered", utcnow())
    incident_about(store)
    for number in (incident.id, 999):
        answer = otto.tell(f"/oauth-guard/incidents/{number}/acknowledge")
        assert (answer.status_code, f"Incident {number} is not open" in answer.json()["detail"]) == (404, True)
    assert store.incidents.open_about(About.CREDENTIAL, "crm").acknowledged_at is None


@pytest.mark.parametrize("about", About)
def test_an_incident_about_anything_can_be_acknowledged(otto, store, about):
    incident = incident_about(store, "x", IncidentKind.UNKNOWN, about=about)
    assert otto.press(f"/oauth-guard/incidents/{incident.id}", "I am on it").message == "Acknowledged by otto."


# -- sources ----------------------------------------------------------------------------------------------------------


def test_a_source_is_paused_for_a_while_and_watched_again(otto, store):
    store.sources.register([Source("a/b", HOUR)], utcnow())
    page = otto.press("/oauth-guard/sources/a%2Fb", "Pause", hours="1.5", reason=" it moves ")
    mute = store.sources.get("a/b").mute
    assert (mute.by, mute.reason) == ("otto", "it moves")
    assert timedelta(minutes=89) < mute.until - utcnow() <= timedelta(minutes=90)
    assert page.message == f"No alarm until {mute.until:%Y-%m-%d %H:%M} UTC."
    assert "by otto: it moves." in page.text
    assert otto.press("/oauth-guard/sources/a%2Fb", "Watch it again").message == "Watched again."
    assert not store.sources.get("a/b").is_muted(utcnow())
    assert otto.tell("/oauth-guard/sources/a%2Fb/unmute").json()["said"] == "It was not muted."


@pytest.mark.parametrize("hours", ["0", "-1", "8761", "nan", "inf", "1e400", "", "soon", None])
def test_a_pause_without_an_end_is_none(otto, store, hours):
    store.sources.register([Source("orders", HOUR)], utcnow())
    body: dict[str, Any] = {} if hours is None else {"hours": hours}
    answer = otto.tell("/oauth-guard/sources/orders/mute", body)
    assert (answer.status_code, answer.json()["detail"][:9]) == (422, "`hours`: ")
    assert store.sources.get("orders").mute is None


def test_a_source_that_nobody_watches_is_not_paused(otto):
    assert otto.tell("/oauth-guard/sources/nothing/mute", {"hours": 1}).status_code == 404
    assert otto.tell("/oauth-guard/sources/nothing/unmute").status_code == 404


# -- the question in the graph ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("button", "said", "option", "answer"),
    [("Expire it", "set expired", EXPIRE, "approved"), ("Keep it", "kept", KEEP, "declined")],
)
def test_an_answer_on_the_page_is_the_answer_in_the_graph(browser, otto, store, button, said, option, answer):
    question = proven_dead(store)
    where = asked_in_the_graph(otto, store, question)
    page = browser("uwe").press(page_of("crm"), button)
    assert page.message == f"You said that it is to be {said}; the graph carries that out now."
    heard = answered(where)
    assert (heard["chosen_options"], heard["responded_by_user"]) == ([option], {"id": "uwe", "name": "uwe"})
    assert store.credentials.get("crm").status is Status.ACTIVE, "the graph's next task expires it, on its evidence"
    wake_up(question, where)
    known = store.investigation(question)
    assert (known.answer, known.answered_by) == (answer, "uwe")
    assert f"Answered: {answer} by uwe." in otto.open(page_of("crm")).text
    assert otto.open(page_of("crm")).changing[0] != "Expire it"
    written = [one for one in audit_log() if one["run_id"] == where.run_id]
    assert ("update_hitl_detail", "uwe") in {(one["event"], one["owner"]) for one in written}


def test_the_answer_finds_its_way_under_a_base_url_too(otto, airflow, store, monkeypatch):
    where = asked_in_the_graph(otto, store, proven_dead(store))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    monkeypatch.setattr(airflow.app.airflow, "root_path", "/airflow")
    assert otto.tell(f"/airflow{page_of('crm')}/answer", {"expire": False}).status_code == 200
    assert answered(where)["chosen_options"] == [KEEP]


def test_a_second_answer_comes_too_late(otto, browser, store):
    question = proven_dead(store)
    where = asked_in_the_graph(otto, store, question)
    assert otto.tell(f"{page_of('crm')}/answer", {"expire": False}).json()["said"].startswith("You said")
    again = browser("anna").tell(f"{page_of('crm')}/answer", {"expire": True})
    assert (again.status_code, "does not wait any more" in again.json()["detail"]) == (404, True)
    assert (answered(where)["chosen_options"], answered(where)["responded_by_user"]["name"]) == ([KEEP], "otto")
    page = Page(otto.post(f"{page_of('crm')}/answer", {"expire": "true", "form_token": otto.form_token()}).text)
    assert "does not wait any more" in page.problem


def test_who_answers_in_the_graph_first_is_heard_first(otto, browser, store):
    where = asked_in_the_graph(otto, store, proven_dead(store))
    place = f"/api/v2/dags/{where.dag_id}/dagRuns/{where.run_id}/taskInstances/{where.task_id}/-1/hitlDetails"
    said = {"chosen_options": [KEEP], "params_input": {}}
    assert otto.client.patch(place, json=said, headers=otto.headers).status_code == 200
    late = browser("anna").tell(f"{page_of('crm')}/answer", {"expire": True})
    assert (late.status_code, "does not wait any more" in late.json()["detail"]) == (404, True)
    assert answered(where)["chosen_options"] == [KEEP]


def test_who_may_not_answer_is_not_heard(otto, vera, store):
    where = asked_in_the_graph(otto, store, proven_dead(store))
    assert vera.tell(f"{page_of('crm')}/answer", {"expire": True}).status_code == 403
    assert vera.open(page_of("crm")).changing == []
    assert answered(where) == {}


def test_airflow_decides_whose_answer_counts(otto, browser, store):
    """A question that was put to one person is that person's."""
    where = asked_in_the_graph(otto, store, proven_dead(store), assigned_to="olga")
    refused = otto.tell(f"{page_of('crm')}/answer", {"expire": True})
    assert (refused.status_code, "is not a respondent" in refused.json()["detail"]) == (403, True)
    assert answered(where) == {}
    assert browser("olga").tell(f"{page_of('crm')}/answer", {"expire": True}).status_code == 200
    assert answered(where)["responded_by_user"]["name"] == "olga"


def test_what_was_never_asked_or_is_not_known_to_airflow_cannot_be_answered(otto, store):
    enrolled(store)
    never = otto.tell(f"{page_of('crm')}/answer", {"expire": True})
    assert never.json()["detail"] == "Nobody is being asked whether `crm` may be set expired."
    question = proven_dead(store, "ads")
    assert otto.tell(f"{page_of('ads')}/answer", {"expire": True}).status_code == 404
    store.investigations.asked(question, Observer("gone", "run #1", "ask", 3), utcnow())
    deleted = otto.tell(f"{page_of('ads')}/answer", {"expire": True})
    assert (deleted.status_code, "does not wait any more" in deleted.json()["detail"]) == (404, True)
    assert store.investigation(question).answer is None


@pytest.mark.parametrize("said", [{}, {"expire": "perhaps"}, {"expire": None}, {"expire": True, "who": "me"}])
def test_an_answer_is_yes_or_no(otto, store, said):
    question = proven_dead(store)
    store.investigations.asked(question, Observer("dag", "run", "ask"), utcnow())
    assert otto.tell(f"{page_of('crm')}/answer", said).status_code == 422


# -- traces -----------------------------------------------------------------------------------------------------------


def test_airflows_audit_log_has_each_of_them_with_the_person_and_without_a_secret(otto, store, connect):
    guarded = connect(redirect_uri=ANYWHERE, provider="approver", provider_params=connect.preset("approver"))
    guarded.enrolled(store)
    lapse(store, guarded.conn_id)
    asked_in_the_graph(otto, store, proven_dead(store, "asked"))
    incident = incident_about(store, "asked")
    store.sources.register([Source("orders", HOUR)], utcnow())
    place, before = page_of(guarded.conn_id), len(audit_log())
    otto.post(f"{place}/revive", {"why": f"{PLANTED}why", "form_token": otto.form_token()})
    for what in ("probe", "refresh", "connect", "device"):
        assert otto.tell(f"{place}/{what}").status_code == 200, what
    assert otto.tell(f"{page_of('asked')}/answer", {"expire": True}).status_code == 200
    assert otto.tell(f"/oauth-guard/incidents/{incident.id}/acknowledge").status_code == 200
    assert otto.tell("/oauth-guard/sources/orders/mute", {"hours": 1, "reason": "it moves"}).status_code == 200
    assert otto.tell("/oauth-guard/sources/orders/unmute").status_code == 200
    written = [one for one in audit_log()[before:] if one["event"].startswith("oauth_guard.")]
    assert [one["event"] for one in written] == [
        *(f"oauth_guard.{what}" for what in ("revive", "probe", "refresh", "connect", "device", "answer")),
        *("oauth_guard.acknowledge", "oauth_guard.mute", "oauth_guard.unmute"),
    ]
    assert {one["owner"] for one in written} == {"otto"}
    assert all(guarded.conn_id in one["extra"] for one in written[:5])
    assert '"orders"' in written[-1]["extra"]
    for secret in (PLANTED, *guarded.secrets, otto.form_token()[:20]):
        assert secret not in f"{written}"


def test_what_was_refused_is_not_written_down_as_done(vera, otto, store):
    store.sources.register([Source("orders", HOUR)], utcnow())
    before = len(audit_log())
    assert otto.post("/oauth-guard/sources/orders/unmute").status_code == 403
    assert len(audit_log()) == before


def test_a_store_that_is_gone_is_said_to_be_gone(otto, store, monkeypatch):
    def gone():
        raise StoreUnavailableError("The store's database cannot be reached.")

    monkeypatch.setattr(actions, "get_store", gone)
    answer = otto.tell("/oauth-guard/sources/orders/unmute")
    assert (answer.status_code, answer.json()["detail"]) == (503, "The store's database cannot be reached.")
