"""Each mistake in a file is an error that names the provider and the field."""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.catalog.preset import FINDINGS, AuthorizationFacts, read_preset
from airflow_oauth_guard.domain.answers import Said
from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.errors import CatalogError, ConfigurationError
from airflow_oauth_guard.grants.settings import TokenAnswer

PAGE = "https://docs.acme.example/oauth"
OTHER_PAGE = "https://help.acme.example/refresh"
COMPLETE: dict[str, Any] = {
    "title": "Acme",
    "docs": PAGE,
    "params": {
        "shop": {"meaning": "The shop's name", "example": "north"},
        "region": {"meaning": "Where", "example": "eu", "default": "eu", "choices": ["eu", "us"]},
    },
    "grants": {
        "refresh_token": {
            "token_url": "https://{shop}.acme.example/token",
            "client_auth": "client_secret_post",
            "parameters": {"region": "{region}", "user": "{username}"},
            "headers": {"X-Version": "7"},
            "names": {"client_id": "client_key"},
            "scopes": "read {region}",
            "rotation": True,
            "rotation_grace": 60,
            "access_token_lifetime": 3600,
            "refresh_token_lifetime": 86400,
            "answer": {"access_token": "data.token", "expires_in_unit": "milliseconds"},
            "notes": "Ask for offline access.",
            "source": PAGE,
            "sources": {"rotation": OTHER_PAGE},
        },
        "two_step": {
            "token_url": "https://{shop}.acme.example/login",
            "body_format": "json",
            "body": '{"user": "{username}", "pass": "{password}"}',
            "source": PAGE,
        },
    },
    "probe": {
        "url": "https://{shop}.acme.example/me",
        "method": "POST",
        "headers": {"X-Token": "{access_token}"},
        "parameters": {"client": "{client_id}"},
        "body": '{"query": "{ me { id } }"}',
        "success": {"has": "data.me.id"},
        "source": PAGE,
    },
    "errors": {
        "refresh": [{"code": 190, "finding": "grant_dead", "source": PAGE}],
        "probe": [
            {"says": "api key", "status": 403, "finding": "client_misconfigured", "meaning": "the key", "source": PAGE}
        ],
    },
    "endpoints": {
        "authorization": {
            "url": "https://{shop}.acme.example/authorize",
            "parameters": {"access_type": "offline", "login_hint": "{username}", "region": "{region}"},
            "scope_separator": ",",
            "pkce": False,
            "code_url": "https://{shop}.acme.example/code",
            "source": PAGE,
            "sources": {"pkce": OTHER_PAGE},
        },
    },
}
NOTHING = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """The complete document with one field set, or taken away."""
    document = copy.deepcopy(COMPLETE)
    *way, last = path.split(".")
    at: Any = document
    for part in way:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if value is NOTHING:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return document


def complaint(path: str, value: Any) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        read_preset("acme", changed(path, value))
    return caught.value


def test_everything_a_file_can_say_is_read():
    preset = read_preset("acme", COMPLETE)
    grant, probe = preset.grants["refresh_token"], preset.probe
    assert (preset.name, preset.title, preset.docs) == ("acme", "Acme", PAGE)
    assert list(preset.grants) == ["refresh_token", "two_step"]
    assert (preset.params["region"].default, preset.params["region"].choices) == ("eu", ("eu", "us"))
    assert (grant.token_url, grant.client_auth) == ("https://{shop}.acme.example/token", "client_secret_post")
    assert (grant.method, grant.body_format) == ("POST", "form")
    assert (dict(grant.names), dict(grant.headers)) == ({"client_id": "client_key"}, {"X-Version": "7"})
    assert (grant.rotation, grant.rotation_grace) == (True, timedelta(minutes=1))
    assert (grant.access_token_lifetime, grant.refresh_token_lifetime) == (timedelta(hours=1), timedelta(days=1))
    assert grant.answer == TokenAnswer("data.token", expires_in_unit="milliseconds")
    assert probe is not None
    assert (probe.method, probe.success.has, probe.success.empty) == ("POST", "data.me.id", False)
    assert preset.refresh_errors[0].matches(Said(("190",)), 400)
    assert preset.probe_errors[0].matches(Said(words="Your API KEY is wrong"), 403)
    assert not preset.probe_errors[0].matches(Said(words="Your API KEY is wrong"), 401)
    assert preset.endpoints == {"authorization": "https://{shop}.acme.example/authorize"}
    authorization = preset.authorization
    assert authorization is not None
    assert authorization.url == preset.endpoints["authorization"]
    assert dict(authorization.parameters) == {
        "access_type": "offline",
        "login_hint": "{username}",
        "region": "{region}",
    }
    assert (authorization.scope_separator, authorization.pkce) == (",", False)
    assert authorization.code_url == "https://{shop}.acme.example/code"


def test_what_a_file_does_not_say_is_as_the_protocol_has_it():
    least = {"title": "Acme", "docs": PAGE, "grants": {"refresh_token": {"token_url": "https://a.example/t"}}}
    least["grants"]["refresh_token"]["source"] = PAGE
    preset = read_preset("acme", least)
    grant = preset.grants["refresh_token"]
    assert (grant.client_auth, grant.method, grant.body_format) == ("client_secret_basic", "POST", "form")
    assert grant.rotation is None
    assert grant.answer == TokenAnswer()
    assert preset.probe is None
    assert (preset.refresh_errors, preset.probe_errors) == ((), ())
    assert preset.authorization is None


def test_an_authorization_of_which_only_the_address_is_said_is_as_the_protocol_has_it():
    facts = {"url": "https://acme.example/authorize", "source": PAGE}
    authorization = read_preset("acme", changed("endpoints.authorization", facts)).authorization
    assert authorization == AuthorizationFacts("https://acme.example/authorize")
    assert (authorization.scope_separator, authorization.pkce, authorization.code_url) == (" ", True, "")


def test_every_fact_knows_its_own_source_or_that_of_its_section():
    sources = read_preset("acme", COMPLETE).sources
    assert sources["grants.refresh_token.rotation"] == OTHER_PAGE
    assert sources["grants.refresh_token.token_url"] == PAGE
    assert sources["probe.url"] == PAGE
    assert sources["errors.refresh[0]"] == PAGE
    assert sources["endpoints.authorization.url"] == PAGE
    assert sources["endpoints.authorization.pkce"] == OTHER_PAGE
    assert "grants.refresh_token.notes" not in sources


GRANT, PROBE, RULE = "grants.refresh_token", "probe", "errors.refresh.0"
APPROVAL = "endpoints.authorization"
MISTAKES: list[tuple[str, Any, str, str]] = [
    # what is changed, to what, the field that is named, what is said about it
    ("title", NOTHING, "title", "is missing"),
    ("title", ["Acme"], "title", "is a list"),
    ("docs", NOTHING, "docs", "the https address of the page"),
    ("docs", "http://docs.acme.example", "docs", "the https address of the page"),
    ("docs", "https://", "docs", "the https address of the page"),
    ("grant", {}, "grant", "is unknown; the fields are"),
    ("grants", NOTHING, "grants", "is missing"),
    ("grants", {}, "grants", "is missing"),
    ("grants", ["refresh_token"], "grants", "is a list; write a mapping"),
    (GRANT, "x", GRANT, "is a str; write a mapping"),
    (f"{GRANT}.source", NOTHING, f"{GRANT}.sources.", "the https address of the page"),
    (f"{GRANT}.source", "docs", f"{GRANT}.sources.", "the https address of the page"),
    (f"{GRANT}.sources", {"rotation": "see above"}, f"{GRANT}.sources.rotation", "the https address of the page"),
    (f"{GRANT}.sources", {"rotaton": PAGE}, f"{GRANT}.sources.rotaton", "the source of a fact that is not there"),
    (f"{GRANT}.sources", [PAGE], f"{GRANT}.sources", "is a list"),
    (f"{GRANT}.tokenurl", "x", f"{GRANT}.tokenurl", "is unknown; the fields are"),
    (f"{GRANT}.token_url", NOTHING, f"{GRANT}.token_url", "is missing"),
    (f"{GRANT}.token_url", "http://acme.example/token", f"{GRANT}.token_url", "is no https address"),
    (f"{GRANT}.token_url", "https://{shp}.acme.example", f"{GRANT}.token_url", "uses {shp}, which `params` does not"),
    (f"{GRANT}.token_url", "https://{client_id}.acme.example", f"{GRANT}.token_url", "uses {client_id}"),
    (f"{GRANT}.token_url", True, f"{GRANT}.token_url", "is a bool; write text"),
    (f"{GRANT}.client_auth", "basic", f"{GRANT}.client_auth", "choose one of client_secret_basic"),
    (f"{GRANT}.method", "PUT", f"{GRANT}.method", "choose one of GET, POST"),
    (f"{GRANT}.body_format", "yaml", f"{GRANT}.body_format", "choose one of form"),
    (f"{GRANT}.body_format", "xml", f"{GRANT}.body", "is missing: XML is written as a whole"),
    (f"{GRANT}.body", "{}", f"{GRANT}.body", "is never sent as `body_format: form`"),
    (f"{GRANT}.parameters", "a=b", f"{GRANT}.parameters", "is a str"),
    (f"{GRANT}.parameters", {"a": "{access_token}"}, f"{GRANT}.parameters.a", "uses {access_token}"),
    (f"{GRANT}.parameters", {"a": ["b"]}, f"{GRANT}.parameters.a", "is a list; write text"),
    (f"{GRANT}.parameters", {"a": True}, f"{GRANT}.parameters.a", "is a bool; write text, in quotes"),
    (f"{GRANT}.headers", {"X.Y": "{nobody}"}, f"{GRANT}.headers.X.Y", "uses {nobody}"),
    (f"{GRANT}.names", ["client_key"], f"{GRANT}.names", "is a list"),
    (f"{GRANT}.claims", {"a": "{nobody}"}, f"{GRANT}.claims.a", "uses {nobody}"),
    (f"{GRANT}.audience", "{nobody}", f"{GRANT}.audience", "uses {nobody}"),
    (f"{GRANT}.algorithm", "RS123", f"{GRANT}.algorithm", "choose one of RS256"),
    (f"{GRANT}.scopes", ["read"], f"{GRANT}.scopes", "is a list"),
    (f"{GRANT}.rotation", "yes", f"{GRANT}.rotation", "write true or false"),
    (f"{GRANT}.rotation", 1, f"{GRANT}.rotation", "write true or false"),
    (f"{GRANT}.rotation_grace", "60s", f"{GRANT}.rotation_grace", "write whole seconds"),
    (f"{GRANT}.access_token_lifetime", -1, f"{GRANT}.access_token_lifetime", "write whole seconds"),
    (f"{GRANT}.access_token_lifetime", 1.5, f"{GRANT}.access_token_lifetime", "write whole seconds"),
    (f"{GRANT}.access_token_lifetime", True, f"{GRANT}.access_token_lifetime", "write whole seconds"),
    (f"{GRANT}.answer", "data", f"{GRANT}.answer", "is a str"),
    (f"{GRANT}.answer", {"acces_token": "x"}, f"{GRANT}.answer.acces_token", "is unknown"),
    (f"{GRANT}.answer", {"expires_in_unit": "minutes"}, f"{GRANT}.answer.expires_in_unit", "choose one of seconds"),
    ("grants.two_step.body", "{nobody}", "grants.two_step.body", "uses {nobody}"),
    ("params", ["shop"], "params", "is a list"),
    ("params.shop", "The shop", "params.shop", "is a str"),
    ("params.shop.meaning", NOTHING, "params.shop.meaning", "is missing"),
    ("params.shop.example", NOTHING, "params.shop.example", "is missing"),
    ("params.shop.examples", ["x"], "params.shop.examples", "is unknown"),
    ("params.region.choices", "eu", "params.region.choices", "is no list"),
    ("params.region.choices", 7, "params.region.choices", "is no list"),
    ("params.region.choices", {"eu": 1}, "params.region.choices", "is no list"),
    ("params.client_id", {"meaning": "x", "example": "y"}, "params.client_id", "is no name for a param"),
    ("params.2fa", {"meaning": "x", "example": "y"}, "params.2fa", "is no name for a param"),
    ("params.my-shop", {"meaning": "x", "example": "y"}, "params.my-shop", "is no name for a param"),
    ("probe", "https://acme.example/me", PROBE, "is a str"),
    ("probe", {}, f"{PROBE}.success", "says nothing"),
    (f"{PROBE}.source", NOTHING, f"{PROBE}.sources.", "the https address of the page"),
    (f"{PROBE}.url", NOTHING, f"{PROBE}.url", "is missing"),
    (f"{PROBE}.url", "http://acme.example/me", f"{PROBE}.url", "is no https address"),
    (f"{PROBE}.url", "https://{nobody}.example", f"{PROBE}.url", "uses {nobody}"),
    (f"{PROBE}.method", "HEAD", f"{PROBE}.method", "choose one of GET, POST"),
    (f"{PROBE}.success", NOTHING, f"{PROBE}.success", "says nothing"),
    (f"{PROBE}.success", {}, f"{PROBE}.success", "says nothing"),
    (f"{PROBE}.success", {"equals": "ok"}, f"{PROBE}.success", "says nothing"),
    (f"{PROBE}.success", {"empty": "yes"}, f"{PROBE}.success.empty", "write true or false"),
    (f"{PROBE}.success", {"hass": "x"}, f"{PROBE}.success.hass", "is unknown"),
    (f"{PROBE}.headers", {"A": "{refresh_token}"}, f"{PROBE}.headers.A", "uses {refresh_token}"),
    (f"{PROBE}.parameters", {"a": "{password}"}, f"{PROBE}.parameters.a", "uses {password}"),
    (f"{PROBE}.header", {}, f"{PROBE}.header", "is unknown"),
    ("errors", [], "errors", "is a list"),
    ("errors.refreshing", [], "errors.refreshing", "is unknown"),
    ("errors.refresh", {"190": "grant_dead"}, "errors.refresh", "is no list"),
    (RULE, "invalid_grant", "errors.refresh[0]", "is a str"),
    (f"{RULE}.finding", NOTHING, "errors.refresh[0].finding", "is missing"),
    (f"{RULE}.finding", "dead", "errors.refresh[0].finding", "choose one of access_token_dead"),
    (f"{RULE}.finding", "live", "errors.refresh[0].finding", "is `live`"),
    (f"{RULE}.finding", "ambiguous", "errors.refresh[0].finding", "is `ambiguous`"),
    (f"{RULE}.source", NOTHING, "errors.refresh[0].source", "the https address of the page"),
    (f"{RULE}.status", "400", "errors.refresh[0].status", "write an HTTP status"),
    (f"{RULE}.status", True, "errors.refresh[0].status", "write an HTTP status"),
    (f"{RULE}.says", "(", "errors.refresh[0].says", "is no regular expression"),
    (f"{RULE}.says", ["a"], "errors.refresh[0].says", "is a list"),
    (f"{RULE}.code", NOTHING, "errors.refresh[0]", "names neither a `code` nor what the description `says`"),
    (f"{RULE}.code", True, "errors.refresh[0].code", "is a bool"),
    (f"{RULE}.codes", ["a"], "errors.refresh[0].codes", "is unknown"),
    (f"{RULE}.code", "Invalid token", "errors.refresh[0].code", "a code has no spaces"),
    ("aliases", "acme_shops", "aliases", "is no list"),
    ("endpoints", ["x"], "endpoints", "is a list"),
    ("endpoints.logout", {"url": "https://a.example", "source": PAGE}, "endpoints.logout", "is unknown; choose of"),
    ("endpoints.authorization", "https://a.example", "endpoints.authorization", "is a str"),
    ("endpoints.authorization", {"source": PAGE}, "endpoints.authorization.url", "is missing"),
    ("endpoints.authorization.url", "ftp://a.example", "endpoints.authorization.url", "is no https address"),
    (f"{APPROVAL}.source", NOTHING, f"{APPROVAL}.sources.", "the https address of the page"),
    (f"{APPROVAL}.urls", "https://a.example", f"{APPROVAL}.urls", "is unknown; the fields are"),
    (f"{APPROVAL}.url", "https://{nobody}.example", f"{APPROVAL}.url", "uses {nobody}"),
    (f"{APPROVAL}.parameters", ["offline"], f"{APPROVAL}.parameters", "is a list"),
    (f"{APPROVAL}.parameters", {"a": "{nobody}"}, f"{APPROVAL}.parameters.a", "uses {nobody}"),
    (f"{APPROVAL}.parameters", {"a": "{client_secret}"}, f"{APPROVAL}.parameters.a", "uses {client_secret}"),
    (f"{APPROVAL}.parameters", {"a": "{password}"}, f"{APPROVAL}.parameters.a", "uses {password}"),
    (f"{APPROVAL}.parameters", {"state": "x"}, f"{APPROVAL}.parameters.state", "cannot be set"),
    (f"{APPROVAL}.parameters", {"redirect_uri": "x"}, f"{APPROVAL}.parameters.redirect_uri", "cannot be set"),
    (f"{APPROVAL}.pkce", "no", f"{APPROVAL}.pkce", "write true or false"),
    (f"{APPROVAL}.code_url", "http://acme.example", f"{APPROVAL}.code_url", "is no https address"),
    (f"{APPROVAL}.code_url", "https://{nobody}.example", f"{APPROVAL}.code_url", "uses {nobody}"),
    ("endpoints.revocation", {"url": "https://a.example", "pkce": False}, "endpoints.revocation.pkce", "is unknown"),
]


@pytest.mark.parametrize(
    ("path", "value", "field", "says"),
    MISTAKES,
    ids=[f"{path}={'nothing' if value is NOTHING else value!r}"[:60] for path, value, _, _ in MISTAKES],
)
def test_a_mistake_is_an_error_that_names_the_provider_and_the_field(path, value, field, says):
    error = complaint(path, value)
    assert error.provider == "acme"
    assert error.field.startswith(field) if field.endswith(".") else error.field == field
    assert says in str(error)
    assert str(error).startswith(f"Provider `acme`: `{error.field}` ")
    assert isinstance(error, ConfigurationError)


@pytest.mark.parametrize("document", [None, [], "text", 7, True], ids=str)
def test_a_file_that_is_no_mapping_is_said_to_be_none(document):
    with pytest.raises(CatalogError):
        read_preset("acme", document)


def test_a_complaint_survives_the_way_from_a_worker_process():
    error = complaint("docs", NOTHING)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.provider, again.field) == (str(error), "acme", "docs")


def test_a_rule_can_mean_anything_that_an_error_can():
    assert {finding.value for finding in Finding} - {"live", "ambiguous"} == FINDINGS
    for finding in FINDINGS:
        assert read_preset("acme", changed(f"{RULE}.finding", finding)).refresh_errors[0].finding.value == finding


def test_json_in_a_body_is_not_taken_for_a_place_to_fill():
    body = '{"a": {"b": "{username}"}, "c": {}, "d": { "e": 1 }}'
    assert read_preset("acme", changed("grants.two_step.body", body)).grants["two_step"].body == body


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(sorted({path for path, *_ in MISTAKES})), ODD)
def test_whatever_stands_in_a_field_is_read_or_named(path, value):
    named = ""
    try:
        preset = read_preset("acme", changed(path, value))
    except CatalogError as error:
        preset, named = None, error.field
    assert preset or named
