from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest

from airflow_oauth_guard.errors import ConfigurationError, ConnectionFieldError
from airflow_oauth_guard.grants.account_credentials import AccountCredentialsGrant
from airflow_oauth_guard.grants.client_credentials import ClientCredentialsGrant
from airflow_oauth_guard.grants.flow import Grant
from airflow_oauth_guard.grants.github_app import GithubAppGrant
from airflow_oauth_guard.grants.instagram_refresh import InstagramRefreshGrant
from airflow_oauth_guard.grants.jwt_bearer import JwtBearerGrant
from airflow_oauth_guard.grants.long_lived_token import LongLivedTokenGrant
from airflow_oauth_guard.grants.meta_exchange import MetaExchangeGrant
from airflow_oauth_guard.grants.password import PasswordGrant
from airflow_oauth_guard.grants.refresh_token import RefreshTokenGrant
from airflow_oauth_guard.grants.saml2_bearer import Saml2BearerGrant
from airflow_oauth_guard.grants.settings import (
    ALGORITHMS,
    BODY_FORMATS,
    CLIENT_AUTHS,
    DEFAULT_MARGIN,
    GrantSettings,
    ProviderFacts,
    filled,
    read_settings,
)
from airflow_oauth_guard.grants.token_exchange import TokenExchangeGrant
from airflow_oauth_guard.grants.two_step import TwoStepGrant

URL = {"token_url": "https://id.example/token"}
CLIENT = {**URL, "client_id": "app", "client_secret": "cl-s3cret"}
COMPLETE: dict[type[Grant], dict[str, Any]] = {
    RefreshTokenGrant: CLIENT,
    ClientCredentialsGrant: CLIENT,
    JwtBearerGrant: {**URL, "issuer": "svc", "private_key": "pk-s3cret"},
    MetaExchangeGrant: CLIENT,
    InstagramRefreshGrant: URL,
    PasswordGrant: {**CLIENT, "username": "ann", "user_password": "pw-s3cret"},
    AccountCredentialsGrant: {**CLIENT, "account_id": "acc"},
    TokenExchangeGrant: {**URL, "subject_token": "st-s3cret"},
    Saml2BearerGrant: {**URL, "assertion": "<saml>s3cret</saml>"},
    GithubAppGrant: {**URL, "client_id": "app", "private_key": "pk-s3cret"},
    TwoStepGrant: {**URL, "provider": "acme"},
    LongLivedTokenGrant: {"probe_url": "https://id.example/me", "access_token": "at-s3cret"},
}
CLASSES = pytest.mark.parametrize("grant_class", COMPLETE, ids=lambda grant: grant.connection_class)


def read(grant_class: type[Grant] = RefreshTokenGrant, **changes: Any) -> GrantSettings:
    return read_settings(
        "crm_prod", COMPLETE[grant_class] | changes, known=grant_class.fields, required=grant_class.required
    )


def complaint(grant_class: type[Grant] = RefreshTokenGrant, **changes: Any) -> ConnectionFieldError:
    with pytest.raises(ConnectionFieldError) as caught:
        read(grant_class, **changes)
    assert str(caught.value).startswith(f"Connection `crm_prod`: field `{caught.value.field}` ")
    return caught.value


@CLASSES
def test_the_required_fields_are_enough(grant_class):
    settings = read(grant_class)
    assert settings.token_url == COMPLETE[grant_class].get("token_url", "")
    assert settings.refresh_margin == DEFAULT_MARGIN
    assert settings.expire_policy == "ask"
    assert settings.allow_http is False


@pytest.mark.parametrize(
    ("grant_class", "name"), [(grant_class, name) for grant_class in COMPLETE for name in grant_class.required]
)
@pytest.mark.parametrize("missing", [None, "", "   "], ids=["none", "empty", "blank"])
def test_a_missing_field_is_named(grant_class, name, missing):
    error = complaint(grant_class, **{name: missing})
    assert error.field == name
    assert "is missing" in str(error)


@CLASSES
def test_a_grant_type_cannot_be_set_on_any_class(grant_class):
    """One grant type for every connection was the incident."""
    error = complaint(grant_class, grant_type="refresh_token")
    assert error.field == "grant_type"
    assert "the class says the grant type" in str(error)


@pytest.mark.rfc("6749", "3.2")
@CLASSES
def test_a_grant_type_cannot_be_smuggled_in_through_the_token_url(grant_class):
    assert complaint(grant_class, token_url="https://id.example/token?grant_type=password").field == "token_url"


@CLASSES
def test_a_field_the_class_does_not_have_is_named_along_with_those_it_has(grant_class):
    error = complaint(grant_class, refersh_token="x")
    assert error.field == "refersh_token"
    for name in grant_class.fields:
        assert name in str(error)


@CLASSES
def test_every_field_of_a_class_is_one_the_settings_know(grant_class):
    from_elsewhere = {"provider", "provider_params", "subject_token_file", "assertion_file"}
    assert grant_class.fields <= set(GrantSettings.__dataclass_fields__) | from_elsewhere
    assert set(grant_class.required) <= grant_class.fields


def test_a_field_that_is_not_filled_in_is_not_unknown():
    assert read(JwtBearerGrant, client_secret="", refresh_token=None).issuer == "svc"


@pytest.mark.parametrize("name", ["token_url", "probe_url"])
class TestUrls:
    def test_http_needs_to_be_asked_for(self, name):
        error = complaint(**{name: "http://id.example/x"})
        assert error.field == name
        assert "http://" in str(error)
        assert "allow_http" in str(error)

    @pytest.mark.parametrize("opt_in", [True, "true", "True"])
    def test_http_that_was_asked_for_is_accepted(self, name, opt_in):
        assert getattr(read(**{name: "http://localhost:8000/x"}, allow_http=opt_in), name) == "http://localhost:8000/x"

    @pytest.mark.parametrize("opt_in", ["yes", 1, "on"])
    def test_an_unclear_opt_in_is_refused(self, name, opt_in):
        assert complaint(**{name: "http://localhost/x"}, allow_http=opt_in).field == "allow_http"

    @pytest.mark.parametrize(
        "value", ["id.example/token", "ftp://id.example/", "https://", "https:///path", "https://x:99999/", "https://["]
    )
    def test_a_value_that_is_no_address_is_refused(self, name, value):
        error = complaint(**{name: value}, allow_http=True)
        assert error.field == name
        assert "not a URL" in str(error)

    @pytest.mark.parametrize("value", ["https://user:s3cret-pw@id.example/", "https://s3cret-pw@id.example/"])
    def test_credentials_in_an_address_are_refused_without_being_repeated(self, name, value):
        error = complaint(**{name: value})
        assert error.field == name
        assert "s3cret-pw" not in str(error)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        *(("body_format", body_format) for body_format in BODY_FORMATS),
        ("probe_method", "POST"),
        ("expire_policy", "evidence"),
        *(("algorithm", algorithm) for algorithm in ALGORITHMS),
    ],
)
def test_a_choice_is_one_of_those_listed(name, right):
    assert getattr(read(**{name: right}), name) == right
    error = complaint(**{name: "something_else"})
    assert error.field == name
    assert "something_else" in str(error)
    assert right in str(error)


def test_a_product_is_one_of_metas():
    assert read(InstagramRefreshGrant, product="threads").product == "threads"
    assert complaint(InstagramRefreshGrant, product="facebook").field == "product"


@pytest.mark.parametrize(
    "value", ["soon", "", 0, -5, "0", "-1", float("inf"), float("nan"), "nan", 1e30, "1e30", [600], True]
)
def test_a_margin_is_a_number_of_seconds_above_zero(value):
    if value == "":
        assert read(refresh_margin=value).refresh_margin == DEFAULT_MARGIN
    else:
        assert complaint(refresh_margin=value).field == "refresh_margin"


@pytest.mark.parametrize("value", [900, "900", 900.0, "900.0"])
def test_a_margin_may_come_as_a_number_or_as_text(value):
    assert read(refresh_margin=value).refresh_margin == timedelta(minutes=15)


@pytest.mark.parametrize(
    "name", ["client_id", "client_secret", "private_key", "access_token", "refresh_token", "scopes", "alert_route"]
)
@pytest.mark.parametrize("value", [["s3cret"], {"a": "s3cret"}, 7, False])
def test_a_value_that_is_not_text_is_refused_and_not_repeated(name, value):
    error = complaint(**{name: value})
    assert error.field == name
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("written", ["a b c", "a, b, c", "a,b,c", " a  b\nc "])
def test_scopes_may_be_parted_by_spaces_or_commas(written):
    assert read(scopes=written).scopes == ("a", "b", "c")


def test_a_private_key_pasted_on_one_line_gets_its_lines_back():
    settings = read(JwtBearerGrant, private_key="-----BEGIN KEY-----\\nAAAA\\n-----END KEY-----")
    assert settings.private_key == "-----BEGIN KEY-----\nAAAA\n-----END KEY-----"


@pytest.mark.rfc("6749", "2.3")
@pytest.mark.parametrize("grant_class", [RefreshTokenGrant, ClientCredentialsGrant])
@pytest.mark.parametrize(
    ("client_auth", "needs"),
    [
        ("client_secret_basic", "client_secret"),
        ("client_secret_post", "client_secret"),
        ("client_secret_jwt", "client_secret"),
        ("private_key_jwt", "private_key"),
        ("tls_client_auth", "certificate"),
        ("tls_client_auth", "private_key"),
        ("none", None),
    ],
)
def test_a_client_has_what_its_way_to_authenticate_needs(grant_class, client_auth, needs):
    held = {"client_secret": "cl-s3cret", "private_key": "pk-s3cret", "certificate": "ct-s3cret"}
    others = {name: value for name, value in held.items() if name != needs}
    if needs is None:
        assert read(grant_class, client_secret=None, client_auth=client_auth).client_auth == "none"
        return
    assert read(grant_class, **held, client_auth=client_auth).client_auth == client_auth
    error = complaint(grant_class, **({"client_secret": None} | others), client_auth=client_auth)
    assert error.field == needs
    assert client_auth in str(error)
    assert "s3cret" not in str(error)


SECRETS = {
    "client_secret": "cl-s3cret",
    "private_key": "pk-s3cret",
    "access_token": "at-s3cret",
    "refresh_token": "rt-s3cret",
}


@pytest.mark.rfc("8705", "2")
@pytest.mark.parametrize("client_auth", CLIENT_AUTHS)
def test_every_way_to_authenticate_is_one_a_connection_can_choose(client_auth):
    assert read(private_key="pk", certificate="ct", client_auth=client_auth).client_auth == client_auth
    assert "something_else" in str(complaint(client_auth="something_else"))


@CLASSES
def test_no_secret_of_any_class_shows_and_all_of_them_are_listed(grant_class):
    settings = read(grant_class)
    assert "s3cret" not in repr(settings)
    held = {value for value in COMPLETE[grant_class].values() if "s3cret" in value}
    assert set(settings.secrets) == held


def test_a_file_or_a_param_that_was_read_elsewhere_is_not_unknown():
    settings = read(TokenExchangeGrant, subject_token_file="/var/run/token", provider_params={"shop": "acme"})
    assert settings.subject_token == "st-s3cret"


def test_a_certificate_pasted_on_one_line_gets_its_lines_back():
    assert read(certificate="-----BEGIN\\nAAAA\\n-----END").certificate == "-----BEGIN\nAAAA\n-----END"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"client_auth": "tls_client_auth", "certificate": "C", "private_key": "K"}, "C\nK\n"),
        ({"client_auth": "private_key_jwt", "certificate": "C", "private_key": "K"}, ""),
        ({"client_auth": "client_secret_jwt", "certificate": "C", "private_key": "K"}, ""),
        ({"certificate": "C"}, ""),
        ({"private_key": "K"}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_a_certificate_is_shown_with_its_key_or_not_at_all(changes, shown):
    assert read(**changes).client_certificate == shown


def test_a_text_is_filled_with_what_is_known_and_keeps_what_is_not():
    assert filled("{a}-{b}-{a}", {"a": "1"}) == "1-{b}-1"
    assert filled('{"query": "{ shop { id } }"}', {"shop": "x", "id": "y"}) == '{"query": "{ shop { id } }"}'
    assert filled("{a}", {"a": "{b}", "b": "no"}) == "{b}"


def test_what_a_providers_texts_may_take_is_there():
    settings = read(PasswordGrant, scopes="a, b")
    assert dict(settings.fillings) == {
        "client_id": "app",
        "client_secret": "cl-s3cret",
        "username": "ann",
        "password": "pw-s3cret",
        "scopes": "a b",
    }


def test_facts_come_along_as_they_are():
    facts = ProviderFacts(provider="acme")
    settings = read_settings("crm_prod", CLIENT, known=RefreshTokenGrant.fields, required=(), facts=facts)
    assert settings.facts is facts


def test_the_repr_of_settings_shows_no_secret_and_their_secrets_are_listed():
    settings = read(**SECRETS)
    assert "s3cret" not in repr(settings)
    assert set(settings.secrets) == set(SECRETS.values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"token_url": "nonsense"},
        {"token_url": None},
        {"refresh_margin": -1},
        {"client_auth": "guess"},
        {"grant_type": "x"},
        {"unknown": "x"},
        {"rotation": "perhaps"},
    ],
    ids=str,
)
def test_no_complaint_about_one_field_repeats_the_secrets_of_others(wrong):
    assert "s3cret" not in str(complaint(**SECRETS, **wrong))
    assert "s3cret" not in repr(complaint(**SECRETS, **wrong))


def test_a_complaint_survives_the_way_from_a_worker_process():
    error = complaint(token_url=None)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.conn_id, again.field) == (str(error), "crm_prod", "token_url")
    assert isinstance(again, ConfigurationError)


def test_a_refresh_token_is_taken_to_rotate_unless_somebody_says_otherwise():
    assert read().rotation is True
    assert read(rotation="false").rotation is False
    assert complaint(rotation="no").field == "rotation"


def test_siblings_are_credentials_of_one_client_at_one_provider():
    mine = read(refresh_token="one", scopes="a").client_key
    assert mine == read(refresh_token="two", scopes="b").client_key
    assert mine != read(client_id="other").client_key
    assert mine != read(token_url="https://other.example/token").client_key
    assert read(JwtBearerGrant, issuer="a").client_key != read(JwtBearerGrant, issuer="b").client_key
