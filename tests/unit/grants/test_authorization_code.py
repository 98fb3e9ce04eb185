"""The address that a person is sent to, and the request that their code is exchanged with."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.grants.authorization_code import (
    authorization_url,
    challenge,
    code_request,
    is_issuer,
    new_verifier,
)
from airflow_oauth_guard.grants.classes import GRANT_CLASSES
from airflow_oauth_guard.grants.flow import HttpRequest
from airflow_oauth_guard.grants.refresh_token import RefreshTokenGrant
from airflow_oauth_guard.grants.settings import GrantSettings, ProviderFacts, read_settings
from tests.unit.domain.builders import NOW, parameters_of

BACK = "https://airflow.example/oauth-guard/callback"
STATE = "a-state"
VERIFIER = "planted-verifier-0123456789-0123456789-0123456789"
FIELDS = {
    "token_url": "https://id.example/token",
    "authorization_url": "https://id.example/authorize",
    "client_id": "crm",
    "client_secret": "planted-s3cret",
    "scopes": "read write",
}


def settings(facts: ProviderFacts | None = None, **fields: str) -> GrantSettings:
    return read_settings(
        "crm_prod",
        {**FIELDS, **fields},
        known=RefreshTokenGrant.fields,
        required=RefreshTokenGrant.required,
        facts=facts or ProviderFacts(),
    )


def asked(one: GrantSettings, verifier: str = VERIFIER) -> dict[str, str]:
    """What the address asks for, each parameter once (RFC 6749 section 3.1)."""
    pairs = parse_qsl(urlsplit(authorization_url(one, BACK, STATE, verifier)).query, keep_blank_values=True)
    assert len(pairs) == len(dict(pairs)), pairs
    return dict(pairs)


# -- the verifier -----------------------------------------------------------------------------------------------------

UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


@pytest.mark.rfc("7636", "appendix B")
def test_the_challenge_is_the_standards_own_example():
    assert challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.rfc("7636", "4.2")
@given(st.text(UNRESERVED, min_size=43, max_size=128))
def test_any_challenge_is_what_a_server_compares_with_and_does_not_show_its_verifier(verifier):
    made = challenge(verifier)
    assert made == create_s256_code_challenge(verifier)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", made)
    assert verifier not in made


@given(st.text(UNRESERVED, min_size=43, max_size=60), st.text(UNRESERVED, min_size=43, max_size=60))
def test_two_verifiers_have_two_challenges(one, other):
    assert (challenge(one) == challenge(other)) == (one == other)


@pytest.mark.rfc("7636", "4.1")
def test_a_new_verifier_is_long_enough_and_never_the_same():
    made = {new_verifier() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", verifier) for verifier in made)


# -- the address ------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("6749", "4.1.1")
@pytest.mark.rfc("7636", "4.3")
def test_a_person_is_sent_to_the_provider_with_all_it_has_to_know():
    assert authorization_url(settings(), BACK, STATE, VERIFIER).startswith("https://id.example/authorize?")
    assert asked(settings()) == {
        "response_type": "code",
        "client_id": "crm",
        "redirect_uri": BACK,
        "scope": "read write",
        "state": STATE,
        "code_challenge": challenge(VERIFIER),
        "code_challenge_method": "S256",
    }


def test_what_the_address_holds_opens_no_door():
    facts = ProviderFacts(
        authorization_parameters={"a": "{client_secret}", "b": "{password}", "c": "{client_id}", "d": "{username}"}
    )
    one = replace(settings(facts), user_password="planted-password", username="ada")
    url = authorization_url(one, BACK, STATE, VERIFIER)
    assert "planted" not in url
    assert (asked(one)["c"], asked(one)["d"]) == ("crm", "ada")


def test_without_scopes_none_are_asked_for():
    assert "scope" not in asked(settings(scopes=""))


def test_a_space_is_written_so_that_everybody_reads_it_as_one():
    assert "scope=read%20write" in authorization_url(settings(), BACK, STATE, VERIFIER)


def test_a_provider_that_refuses_a_challenge_is_told_none():
    assert asked(settings(ProviderFacts(pkce=False))).keys() == {
        *("response_type", "client_id", "redirect_uri", "scope", "state")
    }


def test_the_providers_own_parameters_are_sent_and_come_before_the_standard_ones():
    own = {"access_type": "offline", "hint": "for {client_id}", "scope": "x{scopes}", "dropped": ""}
    sent = asked(settings(ProviderFacts(authorization_parameters=own)))
    assert (sent["access_type"], sent["hint"], sent["scope"]) == ("offline", "for crm", "xread write")
    assert "dropped" not in sent
    assert "scope" not in asked(settings(ProviderFacts(authorization_parameters={"scope": ""})))


def test_the_providers_names_and_separator_are_kept():
    sent = asked(settings(ProviderFacts(names={"client_id": "client_key", "scope": "perms"}, scope_separator=",")))
    assert (sent["client_key"], sent["perms"]) == ("crm", "read,write")
    assert not {"client_id", "scope"} & sent.keys()


def test_an_address_with_a_query_keeps_it_and_what_it_says_is_not_said_again():
    url = "https://id.example/authorize?scope=all&resource=a&resource=b#top"
    one = settings(ProviderFacts(authorization_parameters={"resource": "c"}), authorization_url=url)
    made = urlsplit(authorization_url(one, BACK, STATE, VERIFIER))
    pairs = parse_qsl(made.query)
    assert [pair for pair in pairs if pair[0] in ("scope", "resource")] == [
        *[("scope", "all"), ("resource", "a"), ("resource", "b")]
    ]
    assert made.fragment == ""


def test_an_address_copied_with_somebody_elses_flow_in_it_does_not_spoil_ours():
    url = "https://id.example/authorize?client_id=theirs&redirect_uri=https://evil.example&state=x&code_challenge=y"
    sent = asked(settings(authorization_url=url))
    assert (sent["client_id"], sent["redirect_uri"], sent["state"]) == ("crm", BACK, STATE)
    assert sent["code_challenge"] == challenge(VERIFIER)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_whatever_it_is_made_of_comes_out_as_it_went_in(client_id, state):
    one = replace(settings(), client_id=client_id)
    pairs = dict(parse_qsl(urlsplit(authorization_url(one, BACK, state, VERIFIER)).query, keep_blank_values=True))
    assert (pairs["client_id"], pairs["state"], pairs["redirect_uri"]) == (client_id, state, BACK)


# -- the exchange -----------------------------------------------------------------------------------------------------


def form(request: HttpRequest) -> dict[str, str]:
    """What the token endpoint reads, each parameter once (RFC 6749 section 3.2)."""
    pairs = parameters_of(request)
    assert len(pairs) == len(dict(pairs)), pairs
    return dict(pairs)


@pytest.mark.rfc("6749", "4.1.3")
@pytest.mark.rfc("7636", "4.5")
def test_a_code_is_exchanged_at_the_token_url_by_the_client_that_a_refresh_names():
    request = code_request(settings(), "planted-code", BACK, VERIFIER, NOW)
    refresh = RefreshTokenGrant(settings()).request("planted-token", NOW)
    assert request.url == refresh.url == "https://id.example/token"
    assert request.headers["Authorization"] == refresh.headers["Authorization"]
    assert form(request) == {
        "grant_type": "authorization_code",
        "code": "planted-code",
        "redirect_uri": BACK,
        "code_verifier": VERIFIER,
    }


def test_a_public_client_names_itself():
    one = settings(client_auth="none", client_secret="")
    assert form(code_request(one, "planted-code", BACK, VERIFIER, NOW))["client_id"] == "crm"


def test_no_secret_of_the_exchange_is_seen():
    request = code_request(settings(), "planted-code", BACK, VERIFIER, NOW)
    assert {"planted-code", VERIFIER, "planted-s3cret"} <= set(request.secrets)
    assert BACK not in request.secrets, "a redirect URI opens no door, and a mismatch is worth reading"
    assert "planted" not in repr(request)
    assert "planted" not in str(request.shape)


def test_a_code_goes_where_the_provider_exchanges_codes():
    one = settings(ProviderFacts(code_url="https://id.example/code", pkce=False))
    request = code_request(one, "planted-code", BACK, VERIFIER, NOW)
    assert request.url == "https://id.example/code"
    assert "code_verifier" not in form(request)


@pytest.mark.parametrize("body_format", ["form", "json", "query"])
def test_a_code_is_written_as_a_refresh_is(body_format):
    facts = ProviderFacts(names={"client_id": "client_key"}, headers={"X-Version": "7"}, parameters={"api": "2"})
    one = settings(facts, body_format=body_format, client_auth="client_secret_post")
    request = code_request(one, "planted-code", BACK, VERIFIER, NOW)
    sent = form(request)
    assert (sent["client_key"], sent["api"], request.headers["X-Version"]) == ("crm", "2", "7")
    assert sent["code"] == "planted-code"


def test_what_a_provider_wants_in_both_requests_is_what_the_person_was_sent_with():
    facts = ProviderFacts(
        parameters={"type": "refresh", "api": "2"},
        authorization_parameters={"type": "web_server", "prompt": "consent"},
    )
    sent = form(code_request(settings(facts), "planted-code", BACK, VERIFIER, NOW))
    assert (sent["type"], sent["api"], "prompt" in sent) == ("web_server", "2", False)
    assert dict(parameters_of(RefreshTokenGrant(settings(facts)).request("t", NOW)))["type"] == "refresh"


# -- who answered -----------------------------------------------------------------------------------------------------


@pytest.mark.rfc("9207", "2.4")
@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        ("https://id.example", True),
        ("https://id.example/realms/crm", True),
        ("https://accounts.id.example", True),
        ("https://evil.test", False),
        ("https://id.example.evil.test", False),
        ("id.example", False),
        ("https://[broken", False),
        ("nonsense", False),
    ],
)
def test_an_answer_of_another_provider_is_noticed(issuer, expected):
    assert is_issuer(settings(), issuer) is expected


def test_an_address_of_numbers_is_compared_as_a_whole():
    one = settings(authorization_url="http://127.0.0.1:8080/authorize", allow_http="true")
    assert is_issuer(one, "http://127.0.0.1:8080")
    assert not is_issuer(one, "http://10.9.0.1")
    assert is_issuer(settings(authorization_url="https://[::1]/authorize"), "https://[::1]")


# -- who can be connected ---------------------------------------------------------------------------------------------


def test_a_class_that_is_connected_by_approval_knows_where_and_no_other_does():
    for grant in GRANT_CLASSES.values():
        assert ("authorization_url" in grant.fields) == grant.connects
        assert not grant.connects or "client_id" in grant.fields
    assert [name for name, grant in GRANT_CLASSES.items() if grant.connects] == ["refresh_token"]


def test_the_connections_own_address_comes_before_the_presets():
    facts = ProviderFacts(authorization_url="https://preset.example/authorize")
    assert settings(facts).authorization_url == FIELDS["authorization_url"]
    assert settings(facts, authorization_url="").authorization_url == "https://preset.example/authorize"
