"""Heartbeats over HTTP, through Airflow's own application, auth manager and users."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib.metadata import entry_points
from urllib.parse import quote

import pytest

pytest.importorskip("airflow", reason="the plugin runs inside Airflow's API server")

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.errors import ConfigurationError, StoreUnavailableError
from airflow_oauth_guard.plugin import heartbeats
from airflow_oauth_guard.plugin.oauth_guard import PREFIX, Later, OAuthGuardPlugin
from tests.airflow_parts import rows, utcnow
from tests.unit.test_import import comes_along

pytestmark = pytest.mark.airflow

NOON = "2026-03-01T12:00:00+00:00"


@pytest.fixture
def send(airflow, tokens, store):
    def post(source="crm_contacts", body=None, *, user="otto", raw=None, **headers):
        given = {"Authorization": f"Bearer {tokens[user]}"} if user else {}
        content = {"content": raw} if raw is not None else {} if body is None else {"json": body}
        return airflow.post(f"/oauth-guard/heartbeats/{source}", headers={**given, **headers}, **content)

    return post


def beats(store) -> list[int | None]:
    return [row["row_count"] for row in rows(store, "oauth_guard_heartbeats")]


# -- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Basic b3R0bzpwYXNz"}, {"Cookie": "session=1"}],
    ids=["nothing", "basic", "cookie"],
)
def test_nobody_in_particular_may_not(send, store, headers):
    assert send(user=None, body={"rows": 1}, **headers).status_code == 401
    assert beats(store) == []


def test_a_token_that_is_not_airflows_is_refused(send, store):
    assert send(user=None, body={"rows": 1}, Authorization="Bearer made.up.token").status_code in (401, 403)
    assert beats(store) == []


@pytest.mark.parametrize("user", ["vera", "uwe"])
def test_who_may_not_create_asset_events_may_not_speak_for_a_source(send, store, user):
    assert send(user=user, body={"rows": 1}).status_code == 403
    assert beats(store) == []


@pytest.mark.parametrize("user", ["otto", "anna"])
def test_who_may_create_asset_events_may_speak_for_a_source(send, store, user):
    assert send(user=user, body={"rows": 1}).status_code == 201
    assert beats(store) == [1]


def test_the_cookie_of_the_ui_is_taken_as_well(send, store, tokens):
    assert send(user=None, body={"rows": 1}, Cookie=f"_token={tokens['otto']}").status_code == 201
    assert send(user=None, body={"rows": 1}, Cookie=f"_token={tokens['vera']}").status_code == 403


def test_access_is_asked_for_before_anything_is_read(send):
    assert send(user=None, raw=b"x" * (heartbeats.LARGEST_BODY + 1)).status_code == 401
    assert send(user="vera", raw=b"no json").status_code == 403


def test_a_heartbeat_is_not_sent_by_following_a_link(airflow, tokens):
    answer = airflow.get("/oauth-guard/heartbeats/crm", headers={"Authorization": f"Bearer {tokens['anna']}"})
    assert answer.status_code == 405


def test_a_page_of_another_site_makes_no_browser_send_a_heartbeat(send, store):
    there = {"Origin": "http://elsewhere.example", "Content-Type": "text/plain"}
    answer = send(raw=b'{"rows": 1}', **there)
    assert (answer.status_code, beats(store)) == (403, [])
    assert send(body={"rows": 1}, Origin="http://dashboard.example").status_code == 201, "it had to ask first"


# -- what is said -----------------------------------------------------------------------------------------------------


def test_a_source_nobody_declared_is_adopted_and_the_answer_says_so(send, store):
    first, second = send(body={"rows": 3}), send(body={"rows": 4})
    assert first.json() == {"source": "crm_contacts", "adopted": True, "new": True}
    assert second.json() == {"source": "crm_contacts", "adopted": False, "new": True}
    assert (first.status_code, second.status_code) == (201, 201)
    assert store.sources.get("crm_contacts").source.window == Learned()


def test_a_declared_source_stays_as_it_was_declared(send, store):
    declared = Source("crm_contacts", timedelta(hours=3))
    store.sources.register([declared], utcnow())
    assert send(body={"rows": 3}).json()["adopted"] is False
    assert store.sources.get("crm_contacts").source == declared


def test_everything_a_job_can_say_is_kept(send, store):
    body = {"rows": 7, "at": "2026-03-01T13:00:00+01:00", "watermark": "2026-03-01T11:00:00Z", "run": "nightly 17"}
    assert send(body=body).status_code == 201
    [row] = rows(store, "oauth_guard_heartbeats")
    assert (row["row_count"], row["run_id"], row["dag_id"]) == (7, "nightly 17", None)
    state = store.sources.get("crm_contacts").state
    assert state.last_beat_at == datetime.fromisoformat(NOON)
    assert state.watermark == datetime(2026, 3, 1, 11, tzinfo=timezone.utc)


def test_a_note_is_kept_and_a_skip_is_no_delivery(send, store):
    assert send(body={"rows": 7, "note": "two files were late"}).status_code == 201
    assert send(body={"note": "skipped: no token"}).status_code == 201
    assert [row["note"] for row in rows(store, "oauth_guard_heartbeats")] == [
        "two files were late",
        "skipped: no token",
    ]
    assert store.sources.get("crm_contacts").state.skips == 1


def test_a_run_is_heard_once(send, store):
    assert send(body={"rows": 7, "run": "17"}).json()["new"] is True
    again = send(body={"rows": 7, "run": "17"})
    assert (again.status_code, again.json()["new"]) == (201, False)
    assert send(body={"rows": 7, "run": "18"}).json()["new"] is True
    assert send("ads", {"rows": 7, "run": "17"}).json()["new"] is True
    assert beats(store) == [7, 7, 7]


@pytest.mark.parametrize("how", [{}, {"raw": b"  "}, {"body": {}}, {"body": {"rows": None}}])
def test_a_bare_sign_of_life_says_nothing_of_rows(send, store, how):
    assert send(**how).status_code == 201
    assert beats(store) == [None]


@pytest.mark.parametrize("name", ["crm/contacts", "dbt://warehouse/contacts", "Zürich ☃", "a b", "heartbeats"])
def test_a_name_may_hold_slashes_and_any_letters(send, store, name):
    answer = send(quote(name, safe="/:"), {"rows": 1})
    assert (answer.status_code, answer.json()["source"]) == (201, name)
    assert store.sources.get(name).adopted


WRONG = {
    "negative rows": ({"rows": -1}, "`rows`: Input should be greater than or equal to 0"),
    "half rows": ({"rows": 7.5}, "`rows`: Input should be a valid integer"),
    "rows as text": ({"rows": "7"}, "`rows`: Input should be a valid integer"),
    "rows that are a yes": ({"rows": True}, "`rows`: Input should be a valid integer"),
    "more rows than there are": ({"rows": 2**63}, "`rows`: Input should be less than"),
    "an unknown key": ({"row": 7}, "`row`: Extra inputs are not permitted"),
    "a list": ([7], "The body: "),
    "a number": (7, "The body: "),
    "no time zone": ({"at": "2026-03-01T12:00:00"}, "`at` is 2026-03-01T12:00:00, which has no time zone"),
    "no instant": ({"at": "yesterday"}, "`at` is 'yesterday', which is not an ISO 8601 instant"),
    "seconds": ({"at": 1772366400}, "`at`: Input should be a valid string"),
    "a watermark nobody can place": ({"watermark": "soon"}, "`watermark` is 'soon'"),
    "a time to come": ({"at": "2999-01-01T00:00:00Z"}, "which is still to come"),
    "an endless run": ({"run": "x" * 251}, "`run` has 251 characters"),
    "a run that is no text": ({"run": 17}, "`run`: Input should be a valid string"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_a_sentence_and_nothing_is_kept(send, store, case):
    body, said = WRONG[case]
    answer = send(body=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert beats(store) == []
    assert list(store.sources.all()) == []


@pytest.mark.parametrize("raw", [b"{", b"rows=7", b"\xff\xfe", b"[" * 5000])
def test_what_is_no_json_is_said_to_be_none(send, store, raw):
    answer = send(raw=raw)
    assert answer.status_code == 422
    assert "The body: Invalid JSON" in answer.json()["detail"]
    assert "Send a JSON object" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["x" * 251, "%20crm"])
def test_a_name_that_cannot_be_kept_is_refused(send, store, name):
    answer = send(name, {"rows": 1})
    assert answer.status_code == 422
    assert "write 1 to 250" in answer.json()["detail"]


def test_no_name_is_no_address(send):
    assert send("", {"rows": 1}).status_code in (404, 405, 422)


def test_a_huge_body_is_refused_before_all_of_it_is_there(send, store):
    answer = send(raw=b'{"run": "' + b"x" * heartbeats.LARGEST_BODY + b'"}')
    assert answer.status_code == 413
    assert str(heartbeats.LARGEST_BODY) in answer.json()["detail"]
    assert send(body={"run": "x" * 250, "rows": 1}).status_code == 201


def test_a_secret_in_a_body_that_is_wrong_is_not_repeated():
    with pytest.raises(ConfigurationError, match="rows") as raised:
        heartbeats.read_spoken(b'{"rows": "planted-secret"}')
    assert "planted" not in str(raised.value)


def test_a_store_that_is_gone_is_not_the_jobs_mistake(send, monkeypatch):
    def gone():
        raise StoreUnavailableError("The store's database cannot be reached")

    monkeypatch.setattr(heartbeats, "get_store", gone)
    answer = send(body={"rows": 1})
    assert (answer.status_code, answer.json()["detail"]) == (503, "The store's database cannot be reached")


# -- the plugin -------------------------------------------------------------------------------------------------------


def test_airflow_finds_the_plugin_by_its_entry_point():
    [found] = [entry for entry in entry_points(group="airflow.plugins") if entry.name == "oauth_guard"]
    assert found.load() is OAuthGuardPlugin


def test_airflow_lists_the_plugin(airflow, tokens):
    answer = airflow.get("/api/v2/plugins", headers={"Authorization": f"Bearer {tokens['anna']}"})
    [ours] = [plugin for plugin in answer.json()["plugins"] if plugin["name"] == "oauth_guard"]
    assert [app["url_prefix"] for app in ours["fastapi_apps"]] == [PREFIX]


def test_what_every_process_imports_builds_no_application():
    loaded = comes_along("airflow_oauth_guard.plugin")
    assert not loaded & {"airflow", "fastapi", "sqlalchemy"}
    assert isinstance(OAuthGuardPlugin.fastapi_apps[0]["app"], Later)
