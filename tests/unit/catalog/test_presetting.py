from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_oauth_guard.catalog.preset import Preset, read_preset
from airflow_oauth_guard.catalog.presetting import with_preset
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.classes import GRANT_CLASSES
from airflow_oauth_guard.grants.settings import ProviderFacts, read_settings
from tests.unit.catalog.test_preset import COMPLETE, PAGE, changed

ACME = read_preset("acme", COMPLETE)
PARAMS = "shop=north, region=us"


def filled_in(
    fields: dict[str, Any] | None = None,
    *,
    connection_class: str = "refresh_token",
    preset: Preset = ACME,
    preset_first: bool = False,
) -> tuple[dict[str, Any], ProviderFacts]:
    known = GRANT_CLASSES[connection_class].fields
    given = {"provider_params": PARAMS} | (fields or {})
    return with_preset("crm_prod", connection_class, given, preset, known=known, preset_first=preset_first)


def complaint(fields: dict[str, Any], **how: Any) -> ConnectionFieldError:
    with pytest.raises(ConnectionFieldError) as caught:
        filled_in(fields, **how)
    return caught.value


# -- who comes first ------------------------------------------------------------------------------------------------


def test_a_preset_fills_what_the_connection_leaves_open():
    fields, facts = filled_in({"client_id": "app", "client_secret": "s3cret", "client_auth": "", "scopes": None})
    assert fields == {
        "provider_params": PARAMS,
        "client_id": "app",
        "client_secret": "s3cret",
        "token_url": "https://north.acme.example/token",
        "client_auth": "client_secret_post",
        "body_format": "form",
        "scopes": "read us",
        "rotation": True,
        "rotation_grace": 60.0,
        "probe_url": "https://north.acme.example/me",
        "probe_method": "POST",
    }
    assert facts.provider == "acme"
    assert dict(facts.parameters) == {"region": "us", "user": "{username}"}
    assert (dict(facts.names), dict(facts.headers)) == ({"client_id": "client_key"}, {"X-Version": "7"})
    assert facts.answer.access_token == "data.token"
    assert facts.access_token_lifetime == timedelta(hours=1)
    assert (facts.success_has, dict(facts.probe_headers)) == ("data.me.id", {"X-Token": "{access_token}"})
    assert facts.probe_body == '{"query": "{ me { id } }"}'
    assert [rule.code for rule in facts.refresh_codes] == ["190"]
    assert [rule.meaning for rule in facts.probe_codes] == ["the key"]


OWN = {
    "token_url": "https://own.example/token",
    "client_auth": "none",
    "body_format": "json",
    "scopes": "mine",
    "rotation": False,
    "rotation_grace": 5,
    "probe_url": "https://own.example/me",
    "probe_method": "GET",
}


@pytest.mark.parametrize("name", OWN)
def test_what_a_connection_says_comes_first(name):
    assert filled_in({name: OWN[name]})[0][name] == OWN[name]
    others = filled_in({name: OWN[name]})[0].keys() - {name}
    assert {"token_url", "client_auth", "probe_url"} - {name} <= others


@pytest.mark.parametrize("name", sorted(OWN.keys() - {"token_url"}))
def test_for_the_class_check_the_preset_comes_first(name):
    assert filled_in(OWN, preset_first=True)[0][name] == filled_in()[0][name] != OWN[name]


def test_even_for_the_class_check_no_token_goes_to_another_address_than_the_connections():
    assert filled_in(OWN, preset_first=True)[0]["token_url"] == OWN["token_url"]


def test_for_the_class_check_what_no_preset_knows_stays_the_connections():
    fields, _ = filled_in({**OWN, "client_id": "app", "alert_route": "team-a"}, preset_first=True)
    assert (fields["client_id"], fields["alert_route"]) == ("app", "team-a")


def test_a_probe_of_the_connections_own_is_asked_and_read_by_nothing_of_the_presets():
    """Its method, its place for the token and its success body belong to another address."""
    fields, facts = filled_in({"probe_url": "https://own.example/me"})
    assert fields["probe_url"] == "https://own.example/me"
    assert "probe_method" not in fields
    assert (facts.success_has, facts.probe_body) == ("", "")
    assert (dict(facts.probe_headers), dict(facts.probe_parameters)) == ({}, {})
    assert filled_in({"probe_url": "https://own.example/me", "probe_method": "POST"})[0]["probe_method"] == "POST"


def test_a_preset_fills_no_field_that_the_class_does_not_have():
    meta = {**COMPLETE, "grants": {"meta_exchange": {**COMPLETE["grants"]["refresh_token"]}}}
    fields, _ = filled_in(connection_class="meta_exchange", preset=read_preset("acme", meta))
    assert fields.keys() - {"provider_params"} <= GRANT_CLASSES["meta_exchange"].fields
    assert "client_auth" not in fields


def test_what_comes_out_is_what_a_connection_of_this_class_may_have():
    grant_class = GRANT_CLASSES["refresh_token"]
    fields, facts = filled_in({"client_id": "app", "client_secret": "s3cret", "provider": "acme"})
    settings = read_settings("crm_prod", fields, known=grant_class.fields, required=grant_class.required, facts=facts)
    assert settings.token_url == "https://north.acme.example/token"
    assert settings.scopes == ("read", "us")
    assert settings.rotation is True
    assert settings.rotation_grace == timedelta(minutes=1)


def test_a_provider_that_does_not_say_whether_it_rotates_leaves_that_to_the_class():
    silent = read_preset("acme", changed("grants.refresh_token", {"token_url": "https://a.example/t", "source": PAGE}))
    assert "rotation" not in filled_in(preset=silent)[0]
    promising = changed("grants.refresh_token.rotation", False)
    assert filled_in(preset=read_preset("acme", promising))[0]["rotation"] is False


# -- params ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "shop=north, region=us",
        "region=us,shop=north",
        " shop = north ,, region = us , ",
        {"shop": "north", "region": "us"},
    ],
    ids=str,
)
def test_params_are_pairs_in_any_order(written):
    fields, facts = filled_in({"provider_params": written})
    assert fields["token_url"] == "https://north.acme.example/token"
    assert facts.parameters["region"] == "us"


def test_a_value_may_hold_an_equals_sign():
    fields, _ = filled_in({"provider_params": "shop=a=b"})
    assert fields["token_url"] == "https://a=b.acme.example/token"


def test_a_param_that_is_not_given_has_its_default():
    assert filled_in({"provider_params": "shop=north"})[1].parameters["region"] == "eu"


@pytest.mark.parametrize("given", ["", None, "region=us", "shop=", {"shop": ""}], ids=str)
def test_a_param_that_is_needed_and_missing_is_named_with_an_example(given):
    error = complaint({"provider_params": given})
    assert error.field == "provider_params"
    for said in ("`shop`", "The shop's name", "`shop=north`"):
        assert said in str(error)


def test_a_param_that_this_class_does_not_need_may_stay_open():
    plain = changed("params.tenant", {"meaning": "The tenant", "example": "t"})
    plain["grants"]["client_credentials"] = {"token_url": "https://{tenant}.acme.example/t", "source": PAGE}
    preset = read_preset("acme", plain)
    assert filled_in(preset=preset)[0]["token_url"] == "https://north.acme.example/token"
    assert "`tenant`" in str(complaint({}, preset=preset, connection_class="client_credentials"))


def test_a_param_that_the_provider_does_not_have_is_named_along_with_those_it_has():
    error = complaint({"provider_params": "shop=north, shpo=x"})
    assert error.field == "provider_params"
    for said in ("`shpo`", "`acme`", "shop, region"):
        assert said in str(error)


def test_a_param_of_a_provider_that_has_none_is_named():
    none = {key: value for key, value in COMPLETE.items() if key in ("title", "docs")}
    none["grants"] = {"refresh_token": {"token_url": "https://a.example/t", "source": PAGE}}
    assert "its params: none" in str(complaint({}, preset=read_preset("acme", none)))


def test_a_value_that_is_not_among_the_choices_is_named_along_with_them():
    error = complaint({"provider_params": "shop=north, region=mars"})
    assert error.field == "provider_params"
    for said in ("`region=mars`", "eu, us"):
        assert said in str(error)


@pytest.mark.parametrize("written", ["north", "shop=north, us", "shop"])
def test_what_is_no_pair_is_named(written):
    error = complaint({"provider_params": written})
    assert error.field == "provider_params"
    assert "write name=value, separated by commas" in str(error)


# -- classes --------------------------------------------------------------------------------------------------------


def test_a_class_that_the_provider_lacks_is_named_along_with_those_it_has():
    error = complaint({}, connection_class="jwt_bearer")
    assert error.field == "provider"
    for said in ("`acme`", "`jwt_bearer`", "`oauth_guard_refresh_token`", "`oauth_guard_two_step`"):
        assert said in str(error)


def test_a_login_is_taken_over_as_it_stands():
    fields, facts = filled_in(connection_class="two_step")
    assert fields["body_format"] == "json"
    assert facts.body == '{"user": "{username}", "pass": "{password}"}'
    assert fields["token_url"] == "https://north.acme.example/login"


# -- a person's approval ------------------------------------------------------------------------------------------------


def test_where_and_how_a_person_approves_is_what_the_preset_says():
    facts = filled_in()[1]
    assert facts.authorization_url == "https://north.acme.example/authorize"
    # What is the connection's own is filled in when the person is sent there.
    assert dict(facts.authorization_parameters) == {
        "access_type": "offline",
        "login_hint": "{username}",
        "region": "us",
    }
    assert (facts.scope_separator, facts.pkce) == (",", False)
    assert facts.code_url == "https://north.acme.example/code"


def test_without_a_word_about_it_nothing_is_known_and_the_protocol_holds():
    facts = filled_in(preset=read_preset("acme", changed("endpoints", {})))[1]
    assert (facts.authorization_url, facts.code_url, facts.scope_separator, facts.pkce) == ("", "", " ", True)


@pytest.mark.parametrize("name", ["url", "code_url"])
def test_an_address_whose_param_nobody_has_named_is_none(name):
    """No class needs this param for a refresh, so a connection may leave it open; half an address leads nowhere."""
    document = changed(f"endpoints.authorization.{name}", "https://{portal}.acme.example/x")
    document["params"] = {**document["params"], "portal": {"meaning": "The portal", "example": "acme"}}
    preset = read_preset("acme", document)
    assert filled_in(preset=preset)[1].authorization_url == ""
    named = filled_in({"provider_params": f"{PARAMS}, portal=west"}, preset=preset)[1]
    assert "https://west.acme.example/x" in (named.authorization_url, named.code_url)


@pytest.mark.parametrize(
    ("endpoint", "fact"),
    [("introspection", "introspection_url"), ("device_authorization", "device_authorization_url")],
)
def test_the_same_holds_for_the_other_addresses(endpoint, fact):
    document = changed("endpoints", {endpoint: {"url": "https://{portal}.acme.example/x", "source": PAGE}})
    document["params"] = {**document["params"], "portal": {"meaning": "The portal", "example": "acme"}}
    preset = read_preset("acme", document)
    assert getattr(filled_in(preset=preset)[1], fact) == ""
    named = filled_in({"provider_params": f"{PARAMS}, portal=west"}, preset=preset)[1]
    assert getattr(named, fact) == "https://west.acme.example/x"


def test_no_code_goes_to_another_address_than_where_the_connection_gets_its_tokens():
    assert filled_in({"token_url": "https://own.example/token"})[1].code_url == ""
    assert filled_in({"token_url": "https://north.acme.example/token"})[1].code_url != ""
