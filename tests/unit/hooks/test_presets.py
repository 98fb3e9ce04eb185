"""Presets through a connection as a person writes it: JSON, URI, and what of both comes first."""

from __future__ import annotations

import json
import logging
from urllib.parse import quote, urlencode

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow.sdk.log import redact

from airflow_oauth_guard.errors import CatalogError, ConnectionFieldError
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.hooks.registry import get_hook
from tests.airflow_parts import HERE, PEM, PLANTED, REAL, Guarded, make_due, nothing_secret_is_kept, rows, utcnow

pytestmark = pytest.mark.airflow

CRM = {
    "grants": {
        "refresh_token": {
            "token_url": f"{HERE}/oauth/token",
            "client_auth": "client_secret_post",
            "body_format": "json",
            "rotation": False,
            "rotation_grace": 30,
            "source": REAL,
        }
    },
    "probe": {"url": f"{HERE}/api/me", "success": {"has": "name"}, "source": REAL},
    "endpoints": {"introspection": {"url": f"{HERE}/oauth/introspect", "source": REAL}},
    "errors": {"refresh": [{"code": "invalid_token", "finding": "grant_dead", "source": REAL}]},
}


@pytest.fixture
def crm(connect, server) -> Guarded:
    """A connection that says who the provider is, and nothing else about it."""
    guarded = connect(client={"token_endpoint_auth_method": "client_secret_post"}, token_url="", probe_url=None)
    connect.change(guarded, provider="crm", provider_params=connect.preset("crm", CRM))
    return guarded


def test_a_preset_fills_in_everything_that_the_connection_leaves_empty(crm, store):
    settings = crm.hook().settings
    assert (settings.token_url, settings.probe_url) == (crm.server.token_url, crm.server.probe_url)
    assert (settings.client_auth, settings.body_format, settings.rotation) == ("client_secret_post", "json", False)
    assert settings.rotation_grace.total_seconds() == 30
    assert settings.facts.introspection_url == crm.server.introspection_url
    assert crm.refresh(store).outcome is Refreshed.RENEWED
    assert [seen.path for seen in crm.server.requests()] == ["/oauth/token", "/api/me"]
    assert crm.hook().test_connection()[0]


def test_the_same_connection_as_a_uri(crm, connect, store, monkeypatch):
    extra = {**crm.description["extra"], "provider": "crm", "provider_params": connect.preset("crm", CRM)}
    login, password = (quote(crm.description[name], safe="") for name in ("login", "password"))
    for query in (urlencode({"__extra__": json.dumps(extra)}), urlencode({**extra, "allow_http": "true"})):
        uri = f"oauth-guard-refresh-token://{login}:{password}@/?{query}"
        monkeypatch.setenv(f"AIRFLOW_CONN_{crm.conn_id.upper()}", uri)
        assert crm.hook().settings.token_url == crm.server.token_url
    assert crm.refresh(store).outcome is Refreshed.RENEWED


def test_what_the_connection_says_comes_first(crm, connect):
    told = {"client_auth": "client_secret_basic", "rotation": "true", "rotation_grace": 5, "probe_method": "POST"}
    connect.change(crm, provider="crm", provider_params=connect.preset("crm", CRM), **told)
    settings = crm.hook().settings
    assert (settings.client_auth, settings.rotation, settings.probe_method) == ("client_secret_basic", True, "POST")
    assert settings.rotation_grace.total_seconds() == 5
    assert settings.body_format == "json"


def test_a_probe_url_of_ones_own_takes_none_of_the_presets_facts_about_its_probe(crm, connect, server):
    params = connect.preset("crm", CRM)
    connect.change(crm, provider="crm", provider_params=params, probe_url=server.rows_url)
    facts = crm.hook().settings.facts
    assert (facts.success_has, facts.provider) == ("", "crm")
    assert crm.hook().test_connection()[0], "it has no `name`, which only the preset's own probe is asked for"


def test_a_success_without_what_the_preset_promises_says_nothing(crm, server):
    server.fault("status", path="/api/me", status=200, body={"message": "please log in"})
    good, words = crm.hook().test_connection()
    assert not good
    assert "`name`" in words


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"provider": "crn"}, CatalogError, "`crn`"),
        ({"provider_params": ""}, ConnectionFieldError, "`provider_params`"),
        ({"provider_params": "scheme=http, port=80, shop=acme"}, ConnectionFieldError, "`shop`"),
        ({"provider_params": "http"}, ConnectionFieldError, "name=value"),
    ],
    ids=["an unknown provider", "a param that is missing", "a param that is unknown", "no param at all"],
)
def test_what_is_wrong_about_a_preset_is_one_clear_error_and_nothing_is_sent(fields, error, said, crm, connect):
    params = connect.preset("crm", CRM)
    connect.change(crm, **{"provider": "crm", "provider_params": params, **fields})
    with pytest.raises(error) as raised:
        get_hook(crm.conn_id)
    assert said in str(raised.value)
    assert crm.server.requests() == []


def test_a_catalog_folder_that_is_none_is_named(connect, monkeypatch):
    guarded = connect(provider="crm")
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__CATALOG_FOLDER", "/nowhere/at/all")
    with pytest.raises(CatalogError, match="catalog_folder"):
        get_hook(guarded.conn_id)


# -- files and secrets ------------------------------------------------------------------------------------------------


def test_a_token_in_a_file_is_read_anew_at_each_refresh(connect, store, server, tmp_path):
    """As Kubernetes does it: the platform replaces the file before its token ends."""
    file, name = tmp_path / "token", f"{PLANTED}from-a-file"
    file.write_text(f"{name}-1\n")
    client = {"subject_tokens": [f"{name}-1"]}
    guarded = connect("token_exchange", client=client, subject_token=None, subject_token_file=str(file))
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    file.write_text(f"{name}-2\n")
    server.change_client(guarded.conn_id, subject_tokens=[f"{name}-2"])
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    nothing_secret_is_kept(store, (f"{name}-1", f"{name}-2"))


def test_a_file_that_cannot_be_read_is_an_error_about_its_field(connect, store, tmp_path):
    for connection_class, field in (("token_exchange", "subject_token"), ("saml2_bearer", "assertion")):
        given = {field: None, f"{field}_file": str(tmp_path / "nowhere")}
        guarded = connect(connection_class, suffix=f"_{field}", **given)
        with pytest.raises(ConnectionFieldError, match=f"`{field}_file`.*nowhere"):
            get_hook(guarded.conn_id)
        assert guarded.server.requests() == []


SECRETIVE = {
    "password": {},
    "two_step": {},
    "token_exchange": {},
    "saml2_bearer": {},
    "github_app": {},
    "client_credentials": {"certificate": "a certificate", "private_key": PEM},
}


@pytest.mark.parametrize("connection_class", SECRETIVE)
def test_what_a_class_logs_in_with_is_masked_and_kept_nowhere(connection_class, connect, store, caplog, capfd):
    guarded = connect(connection_class, **SECRETIVE[connection_class])
    assert guarded.secrets
    hook = guarded.hook()
    text = repr(hook.settings) + repr(hook.grant.request("", utcnow()))
    assert not any(secret in text for secret in guarded.secrets)
    echo = "; ".join(guarded.secrets)
    guarded.fault(status=400, body={"error": "invalid_grant", "error_description": f"no: {echo}", "errors": [echo]})
    with caplog.at_level(logging.DEBUG):
        result = guarded.refresh(store)
    assert result.outcome is Refreshed.FAILED
    assert not any(secret in caplog.text + "".join(capfd.readouterr()) for secret in guarded.secrets)
    said = f"{result} {rows(store, 'oauth_guard_evidence')} {rows(store, 'oauth_guard_incidents')}"
    assert not any(secret in said for secret in guarded.secrets)
    assert all(secret not in str(redact(f"sent {secret}")) for secret in hook.settings.secrets), "in a task's log"
    nothing_secret_is_kept(store, guarded.secrets)
