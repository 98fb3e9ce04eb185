from __future__ import annotations

import argparse
import io
import json

import pytest

from airflow_oauth_guard.cli import explain as command
from airflow_oauth_guard.errors import ConfigurationError

DEFAULTS = {"call": "refresh", "provider": "", "grant_class": ""}
WIRE = (
    'HTTP/2 401 \r\nContent-Type: application/json\r\nWWW-Authenticate: Bearer realm=x, error="invalid_token"\r\n\r\n'
    '{"message": "no"}'
)


def explained(monkeypatch, capsys, text: str, **options) -> list[dict]:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    given = {"file": "-", "call": "refresh", "provider": None, "grant_class": None, "json": True} | options
    command.explain_answers(argparse.Namespace(**given))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_lines_are_answered_line_by_line(monkeypatch, capsys):
    lines = [
        {"call": "refresh", "http_status": 400, "headers": {}, "body": '{"error": "invalid_grant"}'},
        {"call": "refresh", "provider": "github", "http_status": 200, "body": '{"error": "bad_refresh_token"}'},
        {"call": "probe", "http_status": 401, "headers": None, "body": ""},
    ]
    found = explained(monkeypatch, capsys, "\n".join(map(json.dumps, lines)))
    assert [one["finding"] for one in found] == ["grant_dead", "grant_dead", "unknown"]
    assert all(
        one.keys() == {"finding", "subject", "rule", "explanation", "owner", "sufficient"}
        and one["sufficient"] is False
        for one in found
    )


def test_an_answer_as_it_came_over_the_wire_is_read(monkeypatch, capsys):
    (found,) = explained(monkeypatch, capsys, WIRE, call="probe")
    assert (found["finding"], found["subject"], found["owner"]) == ("access_token_dead", "access_token", "nobody")


@pytest.mark.parametrize("body", ['{"error": "invalid_client"}', {"error": "invalid_client"}])
def test_a_body_may_be_text_or_the_json_it_holds(monkeypatch, capsys, body):
    (found,) = explained(monkeypatch, capsys, json.dumps({"http_status": 401, "body": body}, indent=2))
    assert (found["finding"], found["owner"]) == ("client_misconfigured", "app")


@pytest.mark.parametrize(
    ("entry", "finding"),
    [
        ({"body": '{"error": "invalid_scope"}'}, "scope_insufficient"),
        ({"body": '{"access_token": "at"}'}, "live"),
        ({"body": ""}, "provider_outage"),
    ],
)
def test_an_answer_whose_status_nobody_kept_is_read_by_what_it_says(monkeypatch, capsys, entry, finding):
    (found,) = explained(monkeypatch, capsys, json.dumps(entry))
    assert found["finding"] == finding


def test_a_provider_nobody_knows_is_read_by_the_protocol(monkeypatch, capsys):
    entry = {"provider": "nobody_knows_it", "http_status": 400, "body": {"error": "unsupported_grant_type"}}
    (found,) = explained(monkeypatch, capsys, json.dumps(entry))
    assert found["finding"] == "request_malformed"


@pytest.mark.parametrize("name", ["Google Ads", "google-ads", "entra", "Jira", "twitter", "zoho_crm"])
def test_a_provider_is_found_by_its_products_and_older_names(name):
    from airflow_oauth_guard.catalog.catalog import Catalog

    assert Catalog().like(name) is not None


def test_a_token_in_a_body_is_not_repeated(monkeypatch, capsys):
    secret = "planted0123456789planted0123456789planted"
    entry = {"http_status": 400, "body": {"error": "invalid_grant", "error_description": f"no such token {secret}"}}
    (found,) = explained(monkeypatch, capsys, json.dumps(entry))
    assert secret not in json.dumps(found)


def test_a_table_is_printed_without_json(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"http_status": 503, "body": "[bold]down[/]"}'))
    command.explain_answers(argparse.Namespace(file="-", call="refresh", provider=None, grant_class=None, json=False))
    assert "provider" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json at all", "Line 1 is not JSON"),
        ('{"http_status": 400}\nnot json', "Line 2 is not JSON"),
        ('{"http_status": 400}\n[]', "Line 2 is a list"),
        ('{"http_status": "soon"}', "`http_status` is 'soon'"),
        ('{"http_status": 99}', "`http_status` is 99"),
        ('{"call": "guess", "http_status": 400}', "`call` is 'guess'"),
        ('{"http_status": 400, "headers": []}', "`headers` is a list"),
    ],
)
def test_what_is_wrong_with_the_input_is_named(text, said):
    with pytest.raises(ConfigurationError, match=said.replace("`", "`")):
        list(command.read_answers(text, DEFAULTS))


def test_a_wrong_input_ends_with_one_line_and_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("nonsense"))
    with pytest.raises(SystemExit, match="1"):
        command.explain_answers(
            argparse.Namespace(file="-", call="refresh", provider=None, grant_class=None, json=True)
        )
    assert capsys.readouterr().err.startswith("airflow oauth-guard: Line 1")


def test_the_catalog_is_listed_and_one_provider_shows_its_facts_with_their_sources(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "240")
    command.providers(argparse.Namespace(provider=None))
    assert "hubspot" in capsys.readouterr().out
    command.providers(argparse.Namespace(provider="hubspot"))
    shown = capsys.readouterr().out
    assert "grants.refresh_token.token_url" in shown
    assert "https://developers.hubspot.com" in shown


def test_a_misspelt_provider_is_answered_with_those_it_may_be(capsys):
    with pytest.raises(SystemExit):
        command.providers(argparse.Namespace(provider="hubspott"))
    assert "hubspot" in capsys.readouterr().err
