from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc.jwk import RSAKey

from airflow_oauth_guard import grants
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Subject, Verdict
from airflow_oauth_guard.domain.investigation import Conclusion, Owner, Step, next_step
from airflow_oauth_guard.grants.account_credentials import AccountCredentialsGrant
from airflow_oauth_guard.grants.client_credentials import ClientCredentialsGrant
from airflow_oauth_guard.grants.flow import Grant, HttpRequest, IssuedTokens, Outcome, issued_tokens, shape_of
from airflow_oauth_guard.grants.github_app import GithubAppGrant
from airflow_oauth_guard.grants.instagram_refresh import InstagramRefreshGrant
from airflow_oauth_guard.grants.jwt_bearer import JwtBearerGrant
from airflow_oauth_guard.grants.long_lived_token import LongLivedTokenGrant
from airflow_oauth_guard.grants.meta_exchange import MetaExchangeGrant
from airflow_oauth_guard.grants.password import PasswordGrant
from airflow_oauth_guard.grants.refresh_token import RefreshTokenGrant
from airflow_oauth_guard.grants.saml2_bearer import Saml2BearerGrant
from airflow_oauth_guard.grants.settings import (
    CLIENT_AUTHS,
    LIFETIME_UNITS,
    STANDARD_ANSWER,
    ProviderFacts,
    TokenAnswer,
)
from airflow_oauth_guard.grants.token_exchange import TokenExchangeGrant
from airflow_oauth_guard.grants.two_step import TwoStepGrant
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
from tests.unit.grants.certificates import certificate, pem

if TYPE_CHECKING:
    from airflow_oauth_guard.domain.answers import Answer

PEM = RSAKey.generate_key(2048).as_pem(private=True).decode()
CERTIFICATE = pem(certificate(load_pem_private_key(PEM.encode(), None)))
TOKEN = "rt-s3cret&grant_type=password"
"""A token with everything a careless encoding trips over."""

GRANT_TYPES: dict[type[Grant], str] = {
    RefreshTokenGrant: "refresh_token",
    ClientCredentialsGrant: "client_credentials",
    JwtBearerGrant: "urn:ietf:params:oauth:grant-type:jwt-bearer",
    MetaExchangeGrant: "fb_exchange_token",
    InstagramRefreshGrant: "ig_refresh_token",
    PasswordGrant: "password",
    AccountCredentialsGrant: "account_credentials",
    TokenExchangeGrant: "urn:ietf:params:oauth:grant-type:token-exchange",
    Saml2BearerGrant: "urn:ietf:params:oauth:grant-type:saml2-bearer",
    GithubAppGrant: "",
    TwoStepGrant: "",
    LongLivedTokenGrant: "",
}
"""Every class there is; a test below compares."""
FIELDS: dict[str, Any] = {
    "token_url": "https://id.example/token",
    "client_id": "app",
    "client_secret": "cl-s3cret/+&grant_type=x",
    "private_key": PEM,
    "issuer": "svc",
    "scopes": "a b&grant_type=y",
    "certificate": CERTIFICATE,
    "username": "ann&grant_type=z",
    "user_password": "pw-s3cret&grant_type=v",
    "account_id": "acc&grant_type=w",
    "subject_token": "st-s3cret&grant_type=u",
    "assertion": "<saml>s3cret</saml>",
    "provider": "acme",
    "probe_url": "https://id.example/token",
}


def every_way() -> list[tuple[type[Grant], dict[str, Any]]]:
    """Each class with each way to authenticate, and with each body format where that way puts something in it."""
    ways = []
    for grant_class in GRANT_TYPES:
        base = {name: value for name, value in FIELDS.items() if name in grant_class.fields}
        for auth in CLIENT_AUTHS if "client_auth" in grant_class.fields else [None]:
            bodies = ["form", "json", "query"] if auth in ("client_secret_post", "private_key_jwt") else ["form"]
            for body in bodies if "body_format" in grant_class.fields else [None]:
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


def test_every_class_there_is_is_held_to_these_laws():
    for module in iter_modules(grants.__path__):
        import_module(f"{grants.__name__}.{module.name}")
    assert set(GRANT_TYPES) == set(Grant.__subclasses__())


@pytest.mark.rfc("6749", "4.5")
@EVERY_WAY
def test_a_class_sends_its_own_grant_type_once_and_no_other(grant_class, fields):
    request = grant_of(grant_class, **fields).request(TOKEN, NOW)
    sent = [value for name, value in parameters_of(request) if name == "grant_type"]
    assert sent == [GRANT_TYPES[grant_class]] * bool(GRANT_TYPES[grant_class])
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
    harmless = {"grant_type", "client_id", "scope", "client_assertion_type", "username", "account_id"}
    harmless |= {"subject_token_type"}
    sent = [value for name, value in parameters_of(request) if name not in harmless]
    header = request.headers.get("Authorization", "").removeprefix("Basic ").removeprefix("Bearer ")
    for secret in (*sent, *([header] if header else [])):
        assert secret in request.secrets
    held = {"client_secret", "private_key", "user_password", "subject_token", "assertion"}
    assert {value.strip() for value in request.secrets} >= {fields[name].strip() for name in held & set(fields)}
    assert all(request.secrets)
    told = {"app", "read", "grant_type", "password", "account_credentials", FIELDS["username"], FIELDS["account_id"]}
    assert not told & set(request.secrets)


@pytest.mark.parametrize("grant_class", GRANT_TYPES)
def test_a_class_sends_the_stored_token_or_none(grant_class):
    fields = {name: value for name, value in FIELDS.items() if name in grant_class.fields}
    request = grant_of(grant_class, **fields).request(TOKEN, NOW)
    borne = request.headers.get("Authorization", "").endswith(TOKEN)
    assert (borne or TOKEN in dict(parameters_of(request)).values()) == bool(grant_class.sends)


@EVERY_WAY
def test_only_a_client_of_tls_shows_its_certificate_and_never_one_that_signs(grant_class, fields):
    shown = grant_of(grant_class, **fields).request(TOKEN, NOW).client_certificate
    if fields.get("client_auth") == "tls_client_auth":
        assert shown == f"{CERTIFICATE.strip()}\n{PEM.strip()}\n"
    if fields.get("client_auth", "").endswith("_jwt") or "certificate" not in grant_class.fields:
        assert shown == ""


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


def issued(content: Any, where: TokenAnswer = STANDARD_ANSWER) -> IssuedTokens:
    return issued_tokens(content, where, NOW)


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
    tokens = issued({"access_token": "at-2", "refresh_token": "rt-2", "expires_in": value})
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
    tokens = issued(document)
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
    assert issued({"access_token": "at-2", "refresh_token": 1234567890123}).refresh_token == "1234567890123"
    assert issued({"access_token": "at-2", "refresh_token": True}).refresh_token is None


@pytest.mark.rfc("6749", "6")
def test_an_answer_without_a_refresh_token_leaves_the_one_in_use():
    assert issued({"access_token": "at-2"}).refresh_token is None
    assert issued({"access_token": "at-2", "refresh_token": ""}).refresh_token is None


def test_the_repr_of_tokens_and_outcomes_shows_none_of_them():
    outcome = refresh_token_grant().read(http(200, {"access_token": "at-s3cret", "refresh_token": "rt-s3cret"}))
    assert outcome.tokens is not None
    assert "s3cret" not in repr(outcome)
    assert "s3cret" not in str(outcome.tokens)


# -- where else an answer may keep it -----------------------------------------------------------------------------

IN_AN_HOUR = NOW + timedelta(hours=1)


def read(body: object, status: int = 200, **facts: Any) -> IssuedTokens | None:
    fields = {"token_url": "https://id.example/token", "client_id": "app", "client_auth": "none"}
    return grant_of(RefreshTokenGrant, ProviderFacts(**facts), **fields).read(http(status, body)).tokens


@pytest.mark.parametrize(
    ("unit", "value", "lifetime"),
    [
        ("seconds", 3600, timedelta(hours=1)),
        ("seconds", "3600", timedelta(hours=1)),
        ("seconds", " 3600 ", timedelta(hours=1)),
        ("milliseconds", 3_600_000, timedelta(hours=1)),
        ("milliseconds", "3600000", timedelta(hours=1)),
        ("instant", "2026-03-14T10:00:00Z", timedelta(hours=1)),
        ("instant", "2026-03-14T10:00:00.500Z", timedelta(hours=1, seconds=0.5)),
        ("instant", "2026-03-14T11:00:00+01:00", timedelta(hours=1)),
        ("instant", "2026-03-14T10:00:00", None),
        ("instant", "tomorrow", None),
        ("instant", int(IN_AN_HOUR.timestamp()), timedelta(hours=1)),
        ("instant", str(int(IN_AN_HOUR.timestamp())), timedelta(hours=1)),
        ("instant", int(IN_AN_HOUR.timestamp() * 1000), timedelta(hours=1)),
        ("instant", "2026-03-14T08:00:00Z", None),
        ("instant", 0, None),
        ("instant", -(10**18), None),
        ("instant", 10**18, None),
        ("instant", "9999-12-31T23:59:59-14:00", None),
        ("instant", None, None),
        ("instant", [], None),
        ("milliseconds", None, None),
    ],
    ids=str,
)
def test_a_lifetime_is_read_in_the_providers_own_unit(unit, value, lifetime):
    assert issued({"access_token": "at", "expires_in": value}, TokenAnswer(expires_in_unit=unit)).expires_in == lifetime


@given(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
    st.sampled_from(LIFETIME_UNITS),
)
@example(-(10**18), "instant")
@example("²²²²-01-01", "instant")
def test_no_value_of_a_lifetime_costs_the_token_in_any_unit(value, unit):
    tokens = issued({"access_token": "at-2", "expires_in": value}, TokenAnswer(expires_in_unit=unit))
    assert tokens.access_token == "at-2"
    assert tokens.expires_in is None or tokens.expires_in >= timedelta()


@given(st.datetimes(datetime(2026, 3, 14, 9, 1), datetime(2035, 1, 1), timezones=st.just(timezone.utc)))
def test_an_instant_means_the_same_as_text_seconds_or_milliseconds(at):
    at = at.replace(microsecond=0)
    where = TokenAnswer(expires_in_unit="instant")
    written = [at.isoformat(), at.isoformat().replace("+00:00", "Z"), at.timestamp(), int(at.timestamp() * 1000)]
    assert {issued({"access_token": "at", "expires_in": value}, where).expires_in for value in written} == {at - NOW}


@pytest.mark.rfc("6749", "5.1")
@pytest.mark.parametrize("absent", [{}, {"expires_in": None}, {"expires_in": "soon"}, {"expires_in": 0}], ids=str)
def test_a_lifetime_that_is_not_told_is_the_documented_one(absent):
    assert read({"access_token": "at", **absent}).expires_in is None
    documented = timedelta(days=60)
    assert read({"access_token": "at", **absent}, access_token_lifetime=documented).expires_in == documented
    told = read({"access_token": "at", "expires_in": 60}, access_token_lifetime=documented)
    assert told.expires_in == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (
            {"code": 0, "message": "OK", "data": {"access_token": "at", "refresh_token": "rt", "expires_in": 3600}},
            TokenAnswer("data.access_token", "data.refresh_token", "data.expires_in"),
        ),
        (
            {"token": "at", "refreshToken": "rt", "expiresAt": "2026-03-14T10:00:00Z"},
            TokenAnswer("token", "refreshToken", "expiresAt", "instant"),
        ),
        ([{"t": "at", "r": "rt", "e": "3600"}], TokenAnswer("0.t", "0.r", "0.e")),
        ("t=at&r=rt&e=3600000", TokenAnswer("t", "r", "e", "milliseconds")),
        (
            "<login xmlns='urn:x'><session id='at' refresh='rt'/><expires>3600</expires></login>",
            TokenAnswer("login.session.id", "login.session.refresh", "login.expires"),
        ),
    ],
    ids=["envelope", "own names", "list", "query string", "xml"],
)
@pytest.mark.parametrize("status", [200, 201])
def test_tokens_are_taken_from_where_the_provider_keeps_them(body, where, status):
    assert read(body, status, answer=where) == IssuedTokens("at", "rt", timedelta(hours=1))
    assert read(body, status, answer=replace(where, access_token="elsewhere")) is None


def test_an_envelope_around_the_tokens_need_not_hold_all_of_them():
    where = TokenAnswer("data.access_token", "data.refresh_token", "data.expires_in")
    assert read({"data": {"access_token": "at"}}, answer=where) == IssuedTokens("at")
    assert read({"data": {"access_token": "at", "refresh_token": {}, "expires_in": []}}, answer=where) == IssuedTokens(
        "at"
    )


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
        if dict(parameters_of(request)).get("grant_type", "") != expected:
            return refuse
        return http(200, {"access_token": "at-2"})

    return answer


def look_into(grant: Grant, provider, **known: bool) -> Conclusion:
    """The investigation of a failed refresh, as hooks drive it, without their sockets."""
    now, evidence = NOW, list[Evidence]()

    def look(kind: Kind, token: str) -> None:
        request = grant.request(token, now)
        item = seen(kind, provider(request), after=now - NOW, dialect=grant.dialect, shape=request.shape)
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
