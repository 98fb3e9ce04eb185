from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import RSAKey

from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Subject, Verdict
from airflow_oauth_guard.domain.investigation import Conclusion, Owner, Step, next_step
from airflow_oauth_guard.grants.client_credentials import ClientCredentialsGrant
from airflow_oauth_guard.grants.flow import Grant, HttpRequest, IssuedTokens, Outcome, issued_tokens, shape_of
from airflow_oauth_guard.grants.instagram_refresh import InstagramRefreshGrant
from airflow_oauth_guard.grants.jwt_bearer import JwtBearerGrant
from airflow_oauth_guard.grants.meta_exchange import MetaExchangeGrant
from airflow_oauth_guard.grants.refresh_token import RefreshTokenGrant
from tests.unit.domain.builders import (
    NOW,
    PAUSE,
    TOKEN_ANSWERS,
    case,
    grant_of,
    http,
    parameters_of,
    refusal,
    seen,
    unanswered,
)

if TYPE_CHECKING:
    from airflow_oauth_guard.domain.answers import Answer

PEM = RSAKey.generate_key(2048).as_pem(private=True).decode()
TOKEN = "rt-s3cret&grant_type=password"
"""A token with everything a careless encoding trips over."""

GRANT_TYPES: dict[type[Grant], str] = {
    RefreshTokenGrant: "refresh_token",
    ClientCredentialsGrant: "client_credentials",
    JwtBearerGrant: "urn:ietf:params:oauth:grant-type:jwt-bearer",
    MetaExchangeGrant: "fb_exchange_token",
    InstagramRefreshGrant: "ig_refresh_token",
}
FIELDS: dict[str, Any] = {
    "token_url": "https://id.example/token",
    "client_id": "app",
    "client_secret": "cl-s3cret/+&grant_type=x",
    "private_key": PEM,
    "issuer": "svc",
    "scopes": "a b&grant_type=y",
}


def every_way() -> list[tuple[type[Grant], dict[str, Any]]]:
    """Each class with each way to authenticate and each body format it has."""
    ways = []
    for grant_class in GRANT_TYPES:
        base = {name: value for name, value in FIELDS.items() if name in grant_class.fields}
        auths = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
        for auth in auths if "client_auth" in grant_class.fields else [None]:
            for body in ["form", "json"] if "body_format" in grant_class.fields else [None]:
                chosen = {"client_auth": auth, "body_format": body}
                ways.append((grant_class, base | {name: value for name, value in chosen.items() if value}))
    return ways


EVERY_WAY = pytest.mark.parametrize(
    ("grant_class", "fields"),
    every_way(),
    ids=lambda way: (
        "-".join(str(way.get(name, "")) for name in ("client_auth", "body_format"))
        if isinstance(way, dict)
        else way.connection_class
    ),
)


# -- laws for every class -----------------------------------------------------------------------------------------


@pytest.mark.rfc("6749", "4.5")
@EVERY_WAY
def test_a_class_sends_its_own_grant_type_once_and_no_other(grant_class, fields):
    request = grant_of(grant_class, **fields).request(TOKEN, NOW)
    sent = [value for name, value in parameters_of(request) if name == "grant_type"]
    assert sent == [GRANT_TYPES[grant_class]]
    assert request.shape.grant_type == GRANT_TYPES[grant_class]


@pytest.mark.rfc("6749", "3.2")
@EVERY_WAY
def test_no_parameter_is_sent_twice_or_empty(grant_class, fields):
    names = [name for name, value in parameters_of(grant_of(grant_class, **fields).request(TOKEN, NOW)) if value]
    assert len(names) == len(set(names)) == len(parameters_of(grant_of(grant_class, **fields).request(TOKEN, NOW)))


@EVERY_WAY
def test_the_shape_of_a_request_lists_exactly_the_names_that_are_sent(grant_class, fields):
    request = grant_of(grant_class, **fields).request(TOKEN, NOW)
    assert list(request.shape.parameters) == sorted(name for name, _ in parameters_of(request))
    assert request.shape.method == request.method
    assert request.shape.endpoint == "https://id.example/token"


@EVERY_WAY
def test_the_control_has_the_very_same_form_as_the_refresh(grant_class, fields):
    grant = grant_of(grant_class, **fields)
    assert grant.request(TOKEN, NOW).shape.id == grant.request("a-made-up-token", NOW).shape.id


@EVERY_WAY
def test_no_secret_shows_in_the_repr_or_the_shape_of_a_request(grant_class, fields):
    request = grant_of(grant_class, **fields).request(TOKEN, NOW)
    for shown in (repr(request), request.shape.as_json()):
        for secret in request.secrets:
            assert secret not in shown
        assert "s3cret" not in shown


@EVERY_WAY
def test_everything_secret_in_a_request_is_listed_as_such(grant_class, fields):
    request = grant_of(grant_class, **fields).request(TOKEN, NOW)
    harmless = {"grant_type", "client_id", "scope", "client_assertion_type"}
    sent = [value for name, value in parameters_of(request) if name not in harmless]
    basic = request.headers.get("Authorization", "").removeprefix("Basic ")
    for secret in (*sent, *([basic] if basic else [])):
        assert secret in request.secrets
    assert set(request.secrets) >= {fields[name] for name in ("client_secret",) if name in fields}
    assert all(request.secrets)


@pytest.mark.parametrize("grant_class", GRANT_TYPES)
def test_a_class_sends_the_stored_token_or_none(grant_class):
    fields = {name: value for name, value in FIELDS.items() if name in grant_class.fields}
    request = grant_of(grant_class, **fields).request(TOKEN, NOW)
    assert (TOKEN in dict(parameters_of(request)).values()) == bool(grant_class.sends)


@pytest.mark.rfc("6749", "10.4")
@pytest.mark.parametrize("grant_class", GRANT_TYPES)
def test_no_token_travels_in_an_address_unless_the_provider_takes_it_nowhere_else(grant_class):
    fields = {name: value for name, value in FIELDS.items() if name in grant_class.fields}
    request = grant_of(grant_class, **fields).request(TOKEN, NOW)
    assert ("s3cret" in request.url) == (grant_class is InstagramRefreshGrant)


# -- the flow -----------------------------------------------------------------------------------------------------


def drive(grant: Grant, answer: Answer) -> tuple[HttpRequest, Outcome]:
    flow = grant.refresh(TOKEN, NOW)
    request = next(flow)
    with pytest.raises(StopIteration) as ended:
        flow.send(answer)
    return request, ended.value.value


def refresh_token_grant() -> RefreshTokenGrant:
    return grant_of(RefreshTokenGrant, token_url="https://id.example/token", client_id="app", client_auth="none")


@pytest.mark.parametrize("said", TOKEN_ANSWERS, ids=lambda said: said.name)
def test_a_flow_sends_one_request_and_never_repeats_it_by_itself(said):
    """A second request by a flow could spend a rotated token whose answer nobody kept."""
    request, outcome = drive(refresh_token_grant(), said.answer)
    assert request == refresh_token_grant().request(TOKEN, NOW)
    assert (outcome.tokens is not None) == said.alive
    assert outcome.reading.verdict is (Verdict.LIVE if said.alive else Verdict.OPEN)


def test_an_answer_kept_from_before_a_crash_means_what_it_meant_then():
    grant = refresh_token_grant()
    answer = http(200, {"access_token": "at-2", "refresh_token": "rt-2", "expires_in": 3600, "scope": "a"})
    assert grant.read(answer) == drive(grant, answer)[1]
    assert grant.read(answer).tokens == IssuedTokens("at-2", "rt-2", timedelta(hours=1), "a")


@pytest.mark.parametrize("grant_class", [MetaExchangeGrant, InstagramRefreshGrant])
def test_metas_classes_read_metas_codes(grant_class):
    grant = grant_of(grant_class, **{name: value for name, value in FIELDS.items() if name in grant_class.fields})
    document = {"error": {"message": "Session has expired", "type": "OAuthException", "code": 190}}
    assert grant.read(http(400, document)).reading.finding is Finding.GRANT_DEAD
    assert grant.read(unanswered()).tokens is None


# -- issued tokens ------------------------------------------------------------------------------------------------


@pytest.mark.rfc("6749", "5.1")
@pytest.mark.parametrize(
    ("value", "lifetime"),
    [
        (3600, timedelta(hours=1)),
        ("3600", timedelta(hours=1)),
        (3600.5, timedelta(seconds=3600.5)),
        (0, None),
        (-1, None),
        ("-3600", None),
        ("", None),
        ("soon", None),
        (None, None),
        ([3600], None),
        ({"seconds": 3600}, None),
        (10**12, None),
        (10**400, None),
        ("1e999", None),
        (float("inf"), None),
        (float("nan"), None),
        ("nan", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_strange_expires_in_never_costs_the_token_beside_it(value, lifetime):
    tokens = issued_tokens({"access_token": "at-2", "refresh_token": "rt-2", "expires_in": value})
    assert (tokens.access_token, tokens.refresh_token, tokens.expires_in) == ("at-2", "rt-2", lifetime)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_no_value_of_any_other_field_costs_the_token(value):
    document = {
        "access_token": "at-2",
        "expires_in": value,
        "refresh_token": value,
        "scope": value,
        "token_type": value,
    }
    tokens = issued_tokens(document)
    assert tokens.access_token == "at-2"
    assert tokens.expires_in is None or tokens.expires_in >= timedelta()
    is_text = isinstance(value, (str, int)) and not isinstance(value, bool)
    assert tokens.refresh_token == (str(value) if is_text and value else None)


@pytest.mark.rfc("6749", "5.1")
@pytest.mark.parametrize("digits", [20, 400, 5000])
def test_an_answer_with_an_enormous_expires_in_still_yields_its_token(digits):
    body = b'{"access_token": "at-2", "expires_in": ' + b"9" * digits + b"}"
    outcome = refresh_token_grant().read(http(200, body))
    assert outcome.reading.finding is Finding.LIVE
    assert outcome.tokens is not None
    assert outcome.tokens.access_token == "at-2"


@pytest.mark.parametrize("error", ["{}", "null", '""', "[]"])
def test_an_error_that_says_nothing_costs_no_token(error):
    body = f'{{"access_token": "at-2", "refresh_token": "rt-2", "error": {error}}}'
    assert refresh_token_grant().read(http(200, body)).tokens == IssuedTokens("at-2", "rt-2")


@pytest.mark.parametrize("odd", ["\\ud800", "\\u0000", "\\udfff\\ud83d"], ids=["half", "nul", "swapped"])
def test_half_a_character_or_nul_beside_a_token_costs_no_token(odd):
    body = (
        f'{{"access_token": "at-2", "refresh_token": "rt-2", "scope": "read {odd}", "x{odd}": ["{odd}"], '
        f'"error_description": "{odd}"}}'
    )
    tokens = refresh_token_grant().read(http(200, body)).tokens
    assert (tokens.access_token, tokens.refresh_token) == ("at-2", "rt-2")
    assert tokens.scope.startswith("read ?")
    tokens.scope.encode()


def test_a_refresh_token_that_is_a_number_is_a_text_of_digits():
    assert issued_tokens({"access_token": "at-2", "refresh_token": 1234567890123}).refresh_token == "1234567890123"
    assert issued_tokens({"access_token": "at-2", "refresh_token": True}).refresh_token is None


@pytest.mark.rfc("6749", "6")
def test_an_answer_without_a_refresh_token_leaves_the_one_in_use():
    assert issued_tokens({"access_token": "at-2"}).refresh_token is None
    assert issued_tokens({"access_token": "at-2", "refresh_token": ""}).refresh_token is None


def test_the_repr_of_tokens_and_outcomes_shows_none_of_them():
    outcome = refresh_token_grant().read(http(200, {"access_token": "at-s3cret", "refresh_token": "rt-s3cret"}))
    assert outcome.tokens is not None
    assert "s3cret" not in repr(outcome)
    assert "s3cret" not in str(outcome.tokens)


# -- the form of a request ----------------------------------------------------------------------------------------


def test_the_query_of_an_address_is_reduced_to_its_names():
    shape = shape_of(
        "GET",
        "https://id.example:8443/v1/token?key=s3cret&empty=",
        grant_type="x",
        client_auth="none",
        body_format="query",
        names={"grant_type": "x", "key": "y"},
    )
    assert shape.endpoint == "https://id.example:8443/v1/token"
    assert shape.parameters == ("empty", "grant_type", "key")
    assert "s3cret" not in shape.as_json()


# -- the incident, from the first request to the conclusion -------------------------------------------------------


def provider_of(expected: str, refuse: Answer):
    """A token endpoint that turns a request away for its grant type before it looks at any token."""

    def answer(request: HttpRequest) -> Answer:
        if dict(parameters_of(request))["grant_type"] != expected:
            return refuse
        return http(200, {"access_token": "at-2"})

    return answer


def look_into(grant: Grant, provider, **known: bool) -> Conclusion:
    """The investigation of a failed refresh, as hooks drive it, without their sockets."""
    now, evidence = NOW, list[Evidence]()

    def look(kind: Kind, token: str) -> None:
        request = grant.request(token, now)
        item = seen(kind, provider(request), after=now - NOW, vocabulary=grant.vocabulary, shape=request.shape)
        evidence.append(replace(item, id=len(evidence) + 1))

    look(Kind.REFRESH, TOKEN)
    for _ in range(50):
        step = next_step(case(*evidence, sends_token=bool(grant.sends), **known), now)
        if isinstance(step, Conclusion):
            return step
        if step is Step.WAIT:
            now += PAUSE / 4
        else:
            look(Kind.CONTROL if step is Step.CONTROL else Kind.REFRESH, "made-up" if step is Step.CONTROL else TOKEN)
    raise AssertionError("never concluded")


@pytest.mark.parametrize(
    "refuse",
    [
        refusal("unsupported_grant_type"),
        refusal("invalid_request", "grant_type is not known here"),
        http(400, {"error": {"message": "Invalid parameter", "code": 100}}),
    ],
    ids=["unsupported_grant_type", "invalid_request", "meta 100"],
)
@pytest.mark.parametrize("expected", ["fb_exchange_token", "ig_refresh_token"])
def test_a_refresh_token_connection_at_metas_door_is_told_that_its_request_is_wrong(expected, refuse):
    conclusion = look_into(refresh_token_grant(), provider_of(expected, refuse))
    assert (conclusion.finding, conclusion.subject) == (Finding.REQUEST_MALFORMED, Subject.REQUEST)
    assert conclusion.owner is Owner.CODE
    assert "`refresh_token`" in conclusion.explanation
    assert "client_id, grant_type, refresh_token" in conclusion.explanation
    assert conclusion.rests_on == (1, 2, 3)


def test_a_form_that_has_worked_before_is_not_called_wrong_for_a_code_that_decides_nothing():
    """The provider says it to everybody today, to a made-up token as well: that is no proof against our request."""
    provider = provider_of("something_else", refusal("blocked_by_firewall"))
    new, known = (look_into(refresh_token_grant(), provider, shape_proven=proven) for proven in (False, True))
    assert (new.finding, new.owner) == (Finding.REQUEST_MALFORMED, Owner.CODE)
    assert (known.finding, known.verdict, known.owner) == (Finding.UNKNOWN, Verdict.OPEN, Owner.PERSON)


@pytest.mark.parametrize("grant_class", GRANT_TYPES)
def test_no_class_at_a_wrong_door_that_says_invalid_grant_to_everything_is_called_dead(grant_class):
    grant = grant_of(grant_class, **{name: value for name, value in FIELDS.items() if name in grant_class.fields})
    for refuse in (refusal("invalid_grant"), http(400, {"error": {"message": "Bad", "code": 190}})):
        conclusion = look_into(grant, provider_of("something_else", refuse))
        assert conclusion.verdict is not Verdict.DEAD or conclusion.subject is not Subject.GRANT


@pytest.mark.parametrize("grant_class", GRANT_TYPES)
def test_every_class_at_its_own_door_is_let_in(grant_class):
    grant = grant_of(grant_class, **{name: value for name, value in FIELDS.items() if name in grant_class.fields})
    provider = provider_of(GRANT_TYPES[grant_class], refusal("unsupported_grant_type"))
    _, outcome = drive(grant, provider(grant.request(TOKEN, NOW)))
    assert outcome.tokens is not None


def test_json_bodies_are_json_and_forms_are_forms():
    form = refresh_token_grant().request(TOKEN, NOW)
    fields = {"token_url": "https://id.example/token", "client_id": "app", "client_auth": "none", "body_format": "json"}
    posted = grant_of(RefreshTokenGrant, **fields).request(TOKEN, NOW)
    assert json.loads(posted.content) == dict(parameters_of(form))
    assert form.shape.id != posted.shape.id
