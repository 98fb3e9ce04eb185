"""The data behind the pages: the same, in JSON, and described."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from fastapi.routing import APIRoute

pytest.importorskip("airflow", reason="the plugin runs inside Airflow's API server")

from airflow_oauth_guard.domain.evidence import Kind, Subject
from airflow_oauth_guard.plugin.app import app
from tests.airflow_parts import enrolled, lapse

pytestmark = pytest.mark.airflow

API = "/oauth-guard/api"


# -- the same as the page ---------------------------------------------------------------------------------------------


def test_the_roster_is_what_its_page_shows(vera, scene):
    data, page = vera.json(f"{API}/credentials?sort=conn_id"), vera.open("/oauth-guard/?sort=conn_id")
    assert data["total"] == len(scene.credentials)
    assert [one["conn_id"] for one in data["credentials"]] == [name.split()[0] for name in page.rows]
    for name, number in data["counts"].items():
        assert f"{number} {'in trouble' if name == 'trouble' else name}" in page.text
    assert data["counts"] == scene.store.roster.counts()
    for one in data["credentials"]:
        assert [fact["subject"] for fact in one["facts"]] == [
            *(Subject.ACCESS_TOKEN.value, Subject.GRANT.value, Subject.CLIENT.value, Subject.PROVIDER.value)
        ]
        for fact in one["facts"]:
            if fact["evidence_id"]:
                assert f"/oauth-guard/credentials/{one['conn_id']}/evidence/{fact['evidence_id']}" in page.links(
                    fact["says"]
                )
        if one["incident"]:
            assert f"/oauth-guard/incidents/{one['incident']['id']}" in page.links(one["incident"]["headline"])


@pytest.mark.parametrize(
    "query", ["search=ed", "status=lapsed", "trouble=true", "limit=3&offset=2", "connection_class=long_lived_token"]
)
def test_the_roster_is_filtered_alike(vera, scene, query):
    data, page = vera.json(f"{API}/credentials?{query}"), vera.open(f"/oauth-guard/?{query}")
    assert [one["conn_id"] for one in data["credentials"]] == [name.split()[0] for name in page.rows]
    assert data["credentials"]


def test_a_credential_is_what_its_page_shows(vera, scene):
    for name in scene.credentials:
        data, page = vera.json(f"{API}/credentials/{name}"), vera.open(f"/oauth-guard/credentials/{name}")
        assert data["next_step"].replace("`", "") in page.text
        assert data["credential"]["status_meaning"] in page.text
        for seen in data["evidence"]:
            assert f"/oauth-guard/credentials/{name}/evidence/{seen['id']}" in page.links(f"Evidence {seen['id']}")
            assert seen["explanation"].replace("`", "") in page.text
        for change in data["transitions"]:
            assert change["reason"] in page.text
        for token in data["generations"]:
            for fingerprint in (token["access_fingerprint"], token["refresh_fingerprint"]):
                assert not fingerprint or fingerprint in [one.text for one in page.all("code")]
        for incident in data["incidents"]:
            assert f"/oauth-guard/incidents/{incident['id']}" in page.links()
        for used in data["consumers"]:
            assert f"/dags/{used['dag_id']}/tasks/{used['task_id']}" in page.links(used["task_id"])
        for source in data["credential"]["reach"]["sources"]:
            assert page.link(source) == f"/oauth-guard/sources/{source}"
        assert data["credential"]["reach"]["short"] in page.text
        question = data["question"]
        assert ("An open question" in page.text) == (question is not None)


def test_a_piece_of_evidence_is_what_its_page_shows(vera, scene):
    kinds = set()
    for name, number in scene.evidence:
        data = vera.json(f"{API}/credentials/{name}/evidence/{number}")
        page = vera.open(f"/oauth-guard/credentials/{name}/evidence/{number}")
        seen = data["evidence"]
        kinds.add(seen["kind"])
        for text in (seen["finding_meaning"], seen["rule_meaning"], seen["who"]["run_id"], seen["shape"]["endpoint"]):
            assert (text or "") in page.text
        assert [one["id"] for one in data["rests_on"]] == seen["rests_on"]
        for header, value in seen["headers"].items():
            assert f"{header}: {value}" in page.text
    assert kinds == {kind.value for kind in Kind}


def test_a_source_is_what_its_page_shows(vera, scene):
    listed = vera.json(f"{API}/sources?limit=500")
    assert [one["name"] for one in listed["sources"]] == [
        name.split()[0] for name in _names(vera, "/oauth-guard/sources")
    ]
    for name in scene.sources:
        data, page = vera.json(f"{API}/sources/{name}"), vera.open(f"/oauth-guard/sources/{name}")
        [same] = [one for one in listed["sources"] if one["name"] == name]
        assert {**data["source"], "gap_seconds": 0} == {**same, "gap_seconds": 0}
        for text in (
            data["source"]["window"].replace("`", ""),
            data["source"]["standing"],
            data["source"]["mute_reason"],
        ):
            assert (text or "") in page.text
        marks = [one for one in page.all("line", "circle") if one.attrs["class"] in ("bar", "zero", "unknown")]
        assert len(marks) == len(data["beats"])


def _names(browser, address: str) -> list[str]:
    """The first word in each line; a source's DAG stands behind its name."""
    names = browser.open(address).rows
    return [name.removesuffix("dag") for name in names]


def test_an_incident_is_what_its_page_shows(vera, scene):
    listed = vera.json(f"{API}/incidents?limit=500")
    assert listed["total"] == len(listed["incidents"]) == len(scene.incidents)
    counts = {phase.value: number for phase, number in scene.store.incidents.counts().items()}
    assert listed["counts"] == counts
    for incident in listed["incidents"]:
        data = vera.json(f"{API}/incidents/{incident['id']}")
        page = vera.open(f"/oauth-guard/incidents/{incident['id']}")
        assert data["incident"] == incident
        for text in (
            incident["headline"].capitalize(),
            incident["owner"],
            incident["phase"],
            incident["acknowledged_by"],
        ):
            assert text in page.text
        for member in data["members"]:
            assert f"/oauth-guard/incidents/{member['id']}" in page.links()
        assert data["reach"] == listed["reaches"].get(str(incident["id"]))
        told = incident["about"] in ("credential", "client") and incident["phase"] != "resolved"
        assert (data["reach"] is not None) == told
        if told:
            assert data["reach"]["sentence"].replace("`", "") in page.text


def test_pages_of_evidence_follow_each_other(vera, store):
    enrolled(store)
    for _ in range(60):
        lapse(store, "crm")
    first = vera.json(f"{API}/credentials/crm")
    second = vera.json(f"{API}/credentials/crm?before={first['older']}")
    numbers = [one["id"] for one in first["evidence"] + second["evidence"]]
    assert numbers == sorted(set(numbers), reverse=True)
    assert (len(numbers), second["older"]) == (60, None)


def test_data_is_not_kept_by_a_browser(vera, scene):
    assert vera.get(f"{API}/credentials").headers["cache-control"] == "no-store"


# -- as it is described -----------------------------------------------------------------------------------------------


def test_every_route_of_data_is_described(vera):
    document = vera.json("/oauth-guard/openapi.json")
    there = {
        (path, method.lower())
        for route in app.routes
        if isinstance(route, APIRoute) and route.path.startswith(("/api/", "/heartbeats/"))
        for path in [_as_described(route.path)]
        for method in route.methods
    }
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == there
    assert len(there) > 14
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description") or operation.get("summary"), f"{method} {path}"


def _as_described(path: str) -> str:
    """OpenAPI has no converters."""
    return path.replace(":path}", "}").replace(":int}", "}")


def test_what_a_route_takes_is_described(vera):
    paths = vera.json("/oauth-guard/openapi.json")["paths"]

    def taken(path: str) -> dict[str, object]:
        return paths[f"/api/{path}"]["post"]["requestBody"]["content"]["application/json"]["schema"]

    assert taken("credentials/{connection_id}/revive")["required"] == ["why"]
    assert taken("credentials/{connection_id}/answer")["required"] == ["expire"]
    assert taken("sources/{name}/mute")["required"] == ["hours"]
    listed = {one["name"] for one in paths["/api/credentials"]["get"]["parameters"]}
    assert listed == {
        *("search", "status", "connection_class", "provider", "trouble", "sort", "descending", "limit", "offset")
    }


def test_the_description_needs_a_login(browser):
    assert browser("").get("/oauth-guard/openapi.json").status_code == 401


def test_the_description_names_no_page_and_no_way_back_from_a_provider(vera):
    paths = vera.json("/oauth-guard/openapi.json")["paths"]
    assert not [path for path in paths if not path.startswith(("/api/", "/heartbeats/"))]


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status_code", "said"),
    [
        ("credentials/nobody", 404, "Credential `nobody` is not in the store."),
        ("credentials/crm/evidence/1", 404, "Credential `crm` is not in the store."),
        ("sources/nothing", 404, "Source `nothing`"),
        ("incidents/7", 404, "There is no incident 7."),
        ("credentials?sort=colour", 422, "`sort`: "),
        ("credentials?status=dead", 422, "`status`: "),
        ("credentials?limit=0", 422, "`limit`: "),
        ("credentials?offset=-1", 422, "`offset`: "),
        ("credentials/crm?before=x", 422, "`before`: "),
        ("sources?standing=quiet", 422, "`standing`: "),
        ("incidents?phase=over", 422, "`phase`: "),
        (f"incidents/{2**64}", 422, "`incident_id`: "),
        ("nothing", 404, "Not Found"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(vera, path, status_code, said):
    answer = vera.json(f"{API}/{path}", status_code)
    assert set(answer) == {"detail"}
    assert answer["detail"].startswith(said)


def test_a_filter_that_is_empty_is_none(vera, scene):
    everything = vera.json(f"{API}/credentials")["total"]
    assert vera.json(f"{API}/credentials?search=&status=&connection_class=&provider=")["total"] == everything
    assert vera.json(f"{API}/sources?search=&standing=")["total"] == len(scene.sources)
    assert vera.json(f"{API}/incidents?phase=&about=")["total"] == len(scene.incidents)


def test_a_name_is_the_whole_rest_of_the_address(vera, store):
    enrolled(store, "eu/crm #1")
    assert vera.json(f"{API}/credentials/{quote('eu/crm #1', safe='')}")["credential"]["conn_id"] == "eu/crm #1"
