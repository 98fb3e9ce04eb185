"""What one answer says. A reading is a question or a sign of life, never a proof of death."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.domain.answers import HttpAnswer, at_path, read_body
from airflow_oauth_guard.domain.evidence import Finding, Subject, Verdict
from airflow_oauth_guard.domain.investigation import DOCUMENTED
from airflow_oauth_guard.domain.reading import (
    STANDARD,
    SUBJECT_OF,
    Dialect,
    is_lost,
    read_introspection_answer,
    read_probe_answer,
    read_token_answer,
)
from airflow_oauth_guard.domain.vocabulary import RESOURCE_CODES, TOKEN_CODES, ErrorRule
from tests.unit.domain import test_answers as envelopes
from tests.unit.domain.builders import (
    PROBE_ANSWERS,
    TOKEN_ANSWERS,
    Said,
    http,
    meta_refusal,
    refusal,
    unanswered,
)
from tests.unit.domain.test_answers import JSON_VALUES

META = Catalog().get("facebook")
METAS = Dialect(refresh_codes=META.refresh_errors, probe_codes=META.probe_errors)
OWN_CODES = Dialect(
    token_path="data.token",
    refresh_codes=(ErrorRule(Finding.GRANT_DEAD, "gone"), ErrorRule(Finding.RATE_LIMITED, "wait", status=503)),
    probe_codes=(ErrorRule(Finding.ACCESS_TOKEN_DEAD, "gone"),),
    success_has="data.id",
)
WITHOUT_GRANT = Dialect(has_grant=False, rejected_means=Finding.CLIENT_MISCONFIGURED)
DIALECTS = [
    *(STANDARD, METAS, OWN_CODES, WITHOUT_GRANT),
    Dialect(success_has="ok", success_equals="true"),
    Dialect(token_is_grant=True),
    Dialect(token_path=""),
]

CODES = sorted({rule.code for rule in (*TOKEN_CODES, *RESOURCE_CODES)} | {"1", "190", "gone", "wait", "x"})
WORDS = st.text(max_size=40) | st.lists(
    st.sampled_from(
        ["refresh", "token", "expired", "revoked", "the", "session", "client", "limit", "invalid", "access"]
    ),
    max_size=8,
).map(" ".join)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "error": st.sampled_from(CODES) | JSON_VALUES,
        "error_description": WORDS | JSON_VALUES,
        "access_token": JSON_VALUES,
        "refresh_token": JSON_VALUES,
        "data": JSON_VALUES | st.just({"token": "at", "id": 1}),
        "ok": JSON_VALUES,
        "status": JSON_VALUES,
        "code": JSON_VALUES,
        "message": WORDS,
        "errors": st.lists(st.fixed_dictionaries({"code": st.sampled_from(CODES), "message": WORDS}), max_size=2),
    },
)


def as_xml(value: Any, name: str = "answer") -> str:
    """A document as some older APIs would write it."""
    if isinstance(value, dict):
        inner = "".join(
            as_xml(item, key if key.isidentifier() and key.isascii() else "x") for key, item in value.items()
        )
    elif isinstance(value, list):
        inner = "".join(as_xml(item, "item") for item in value)
    else:
        inner = escape("".join(character for character in str(value) if character.isprintable()))
    return f"<{name}>{inner}</{name}>"


BODIES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(str.encode),
    JSON_VALUES,
    DOCUMENTS,
    DOCUMENTS.map(as_xml),
    st.tuples(st.sampled_from(CODES), WORDS).map(lambda said: f"error={said[0]}&error_description={said[1]}"),
    WORDS.map(str.encode),
)
ANY_ANSWER = st.builds(
    http,
    status=st.integers(200, 599) | st.just(999),
    body=BODIES,
    headers=st.dictionaries(
        st.sampled_from(["www-authenticate", "retry-after", "date", "location"]),
        st.text(max_size=60) | st.sampled_from(CODES).map('Bearer error="{}"'.format),
        max_size=3,
    ),
) | st.builds(
    unanswered, st.text(min_size=1, max_size=20), maybe_processed=st.booleans(), provider_at_fault=st.booleans()
)


def token_finding(answer, dialect: Dialect = STANDARD) -> Finding:
    return read_token_answer(answer, dialect).finding


def probe_finding(answer, dialect: Dialect = STANDARD) -> Finding:
    return read_probe_answer(answer, dialect).finding


# -- laws -----------------------------------------------------------------------------------------------------------


@given(ANY_ANSWER, st.sampled_from(DIALECTS))
@example(http(200, '{"code": "' + "9" * 5000 + '", "message": "x"}'), STANDARD)
def test_no_single_answer_has_the_verdict_dead_and_none_breaks_the_reading(answer, dialect):
    for reading in (read_token_answer(answer, dialect), read_probe_answer(answer, dialect)):
        assert reading.verdict is not Verdict.DEAD
        assert reading.explanation
        assert reading.rule
        assert len(reading.explanation) < 3_000
    assert is_lost(answer, read_token_answer(answer, dialect)) in (True, False)


@given(ANY_ANSWER, st.sampled_from(DIALECTS))
def test_a_sign_of_life_needs_a_2xx_answer(answer, dialect):
    if isinstance(answer, HttpAnswer) and answer.status < 300:
        return
    assert token_finding(answer, dialect) is not Finding.LIVE
    assert probe_finding(answer, dialect) is not Finding.LIVE


@given(ANY_ANSWER, st.sampled_from(DIALECTS))
def test_a_token_endpoint_shows_life_only_by_a_token_that_is_there(answer, dialect):
    if dialect.token_path and token_finding(answer, dialect) is Finding.LIVE:
        token = at_path(read_body(answer.body).content, dialect.token_path)
        assert isinstance(token, str)
        assert token


@given(ANY_ANSWER, st.sampled_from(DIALECTS))
def test_a_class_without_a_grant_never_hears_that_its_grant_is_dead(answer, dialect):
    if not dialect.has_grant:
        assert token_finding(answer, dialect) is not Finding.GRANT_DEAD
        own = replace(dialect, rejected_means=Finding.GRANT_DEAD)
        reading = read_token_answer(answer, own)
        assert reading.finding is not Finding.GRANT_DEAD or reading.rule not in DOCUMENTED


@given(ANY_ANSWER, st.sampled_from(DIALECTS))
def test_a_reading_is_about_the_subject_of_its_finding(answer, dialect):
    for reading in (read_token_answer(answer, dialect), read_probe_answer(answer, dialect)):
        assert reading.subject is SUBJECT_OF.get(reading.finding, reading.subject)


@pytest.mark.parametrize("said", TOKEN_ANSWERS, ids=lambda said: said.name)
def test_a_token_answer_is_read_as_somebody_who_knows_the_protocol_would(said: Said):
    reading = read_token_answer(said.answer)
    assert (reading.finding is Finding.GRANT_DEAD) == said.says_grant_dead
    assert (reading.rule == "words") == said.only_in_words
    assert (reading.finding is Finding.LIVE) == said.alive
    assert (reading.finding in (Finding.RATE_LIMITED, Finding.PROVIDER_OUTAGE)) == said.transient


@pytest.mark.parametrize("said", PROBE_ANSWERS, ids=lambda said: said.name)
def test_a_probe_answer_is_read_as_somebody_who_knows_the_protocol_would(said: Said):
    reading = read_probe_answer(said.answer)
    assert (reading.finding is Finding.ACCESS_TOKEN_DEAD) == said.says_token_dead
    assert (reading.rule == "words" and said.says_token_dead) == said.only_in_words
    assert (reading.finding is Finding.LIVE) == said.alive
    assert (reading.finding in (Finding.RATE_LIMITED, Finding.PROVIDER_OUTAGE)) == said.transient


@pytest.mark.parametrize("status", [429, *range(500, 600, 7)])
def test_whatever_a_failing_provider_writes_is_about_the_provider(status):
    for body in ({"error": "invalid_grant"}, {"error": "invalid_token"}, {"access_token": "at"}, "<html>", b"", "gone"):
        answer = http(status, body, {"www-authenticate": 'Bearer error="invalid_token"'})
        assert read_token_answer(answer).subject is Subject.PROVIDER
        assert read_probe_answer(answer).subject is Subject.PROVIDER


@pytest.mark.rfc("9110", "15.5.9")
@pytest.mark.rfc("8470", "5.2")
@pytest.mark.parametrize("status", [408, 425])
def test_a_provider_that_is_not_ready_is_no_finding_about_anybody_else(status):
    for body in ({}, {"error": "invalid_grant"}, {"error": "invalid_token"}, "<html>"):
        assert token_finding(http(status, body)) is Finding.PROVIDER_OUTAGE
        assert probe_finding(http(status, body)) is Finding.PROVIDER_OUTAGE


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 406, 409, 410, 414, 415, 418, 422, 423, 451])
@pytest.mark.parametrize("body", [{}, {"message": "no"}, {"detail": "Forbidden"}, "<html>expired</html>", "", "[]"])
def test_a_refusal_that_does_not_name_the_token_is_no_finding_about_it(status, body):
    reading = read_probe_answer(http(status, body))
    assert reading.finding not in (Finding.ACCESS_TOKEN_DEAD, Finding.LIVE)
    assert reading.verdict is Verdict.OPEN
    assert token_finding(http(status, body)) not in (Finding.GRANT_DEAD, Finding.LIVE)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
@pytest.mark.parametrize("body", [{"detail": "token expired"}, {"message": "Invalid access token"}, "token expired"])
def test_a_refusal_that_names_the_token_in_words_only_is_a_question_by_the_rule_words(status, body):
    reading = read_probe_answer(http(status, body))
    assert (reading.finding, reading.rule) == (Finding.ACCESS_TOKEN_DEAD, "words")
    assert reading.verdict is Verdict.OPEN


@pytest.mark.rfc("9110", "15.5")
@pytest.mark.parametrize("status", [404, 405, 406, 410, 414, 415])
def test_an_address_that_does_not_know_what_we_ask_is_our_own_fault(status):
    for body in ("", {}, {"trace": 7}, "<html>Not here</html>"):
        for reading in (read_token_answer(http(status, body)), read_probe_answer(http(status, body))):
            assert (reading.finding, reading.subject) == (Finding.REQUEST_MALFORMED, Subject.REQUEST)
            assert "check the address" in reading.explanation


@pytest.mark.rfc("9110", "15.5.3")
@pytest.mark.parametrize("status", [402, 423, 451])
def test_a_probe_that_is_asked_to_pay_or_finds_the_account_locked_wants_something_done_there(status):
    for body in ("", {}, {"message": "token expired"}):
        assert probe_finding(http(status, body)) is Finding.ACCOUNT_ACTION


@pytest.mark.parametrize("status", [402, 423, 451])
def test_a_code_about_the_token_outranks_the_status_of_a_locked_account(status):
    assert probe_finding(http(status, {"error": "invalid_token"})) is Finding.ACCESS_TOKEN_DEAD


def test_every_finding_but_life_and_doubt_has_a_subject():
    assert set(SUBJECT_OF) == set(Finding) - {Finding.LIVE, Finding.UNKNOWN}


def test_an_answer_we_cut_short_ourselves_is_not_the_providers_outage():
    assert token_finding(unanswered("body limit", provider_at_fault=False)) is Finding.UNKNOWN
    assert token_finding(unanswered("timed out")) is Finding.PROVIDER_OUTAGE
    assert probe_finding(unanswered("body limit", provider_at_fault=False)) is Finding.UNKNOWN


# -- the token endpoint ---------------------------------------------------------------------------------------------


@pytest.mark.rfc("6749", "5.2")
@pytest.mark.parametrize(
    ("code", "finding", "subject"),
    [
        ("invalid_grant", Finding.GRANT_DEAD, Subject.GRANT),
        ("invalid_client", Finding.CLIENT_MISCONFIGURED, Subject.CLIENT),
        ("unauthorized_client", Finding.CLIENT_MISCONFIGURED, Subject.CLIENT),
        ("invalid_request", Finding.REQUEST_MALFORMED, Subject.REQUEST),
        ("unsupported_grant_type", Finding.REQUEST_MALFORMED, Subject.REQUEST),
        ("invalid_scope", Finding.SCOPE_INSUFFICIENT, Subject.REQUEST),
    ],
)
def test_each_error_code_of_the_protocol_is_about_its_own_subject(code, finding, subject):
    for answer in (
        refusal(code),
        http(400, {"error": {"code": code}}),
        http(400, {"errors": [{"code": code.upper()}]}),
        http(400, f"error={code}"),
        http(400, f"<error><code>{code}</code></error>"),
        http(400, code),
    ):
        reading = read_token_answer(answer)
        assert (reading.finding, reading.subject, reading.rule) == (finding, subject, "error_code")
        assert code in reading.explanation


@pytest.mark.rfc("6749", "5.2")
@pytest.mark.parametrize(
    "description",
    [
        "Token has been expired or revoked.",
        "The refresh token is invalid or expired",
        "Unknown refresh token",
        (
            "The provided authorization grant (e.g., authorization code, resource owner credentials) or refresh token is "
            "invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was "
            "issued to another client."
        ),
        "",
    ],
)
def test_invalid_grant_about_the_grant_raises_the_question_of_death(description):
    assert token_finding(refusal("invalid_grant", description)) is Finding.GRANT_DEAD


@pytest.mark.rfc("6749", "5.2")
@pytest.mark.rfc("7521", "4.1")
@pytest.mark.parametrize(
    ("description", "finding"),
    [
        ("redirect_uri mismatch", Finding.REQUEST_MALFORMED),
        ("Invalid JWT: iat is in the future", Finding.REQUEST_MALFORMED),
        ("Your clock skew is too large", Finding.REQUEST_MALFORMED),
        ("The 'exp' claim is out of range", Finding.REQUEST_MALFORMED),
        ("Assertion audience is wrong", Finding.REQUEST_MALFORMED),
        ("code_verifier does not match", Finding.REQUEST_MALFORMED),
        ("Refresh token was issued to another client", Finding.CLIENT_MISCONFIGURED),
        ("client_id does not match", Finding.CLIENT_MISCONFIGURED),
        ("MFA required", Finding.ACCOUNT_ACTION),
        ("Blocked by Conditional Access policy", Finding.ACCOUNT_ACTION),
        ("User account is disabled", Finding.ACCOUNT_ACTION),
        ("reauth related error (invalid_rapt)", Finding.ACCOUNT_ACTION),
        ("Unsupported grant_type", Finding.REQUEST_MALFORMED),
        ("Missing parameter: refresh_token", Finding.REQUEST_MALFORMED),
        ("Malformed auth code.", Finding.REQUEST_MALFORMED),
    ],
)
def test_invalid_grant_about_something_else_is_not_about_the_grant(description, finding):
    reading = read_token_answer(refusal("invalid_grant", description))
    assert (reading.finding, reading.rule) == (finding, "not_about_the_grant")
    assert "not about the grant" in reading.explanation


@pytest.mark.rfc("7521", "4.1")
def test_invalid_grant_about_a_signature_is_about_us():
    reading = read_token_answer(refusal("invalid_grant", "Invalid JWT Signature."))
    assert reading.finding in (Finding.REQUEST_MALFORMED, Finding.CLIENT_MISCONFIGURED)


@pytest.mark.rfc("6749", "5.1")
@pytest.mark.parametrize(
    ("status", "document"),
    [
        (200, {}),
        (200, {"access_token": ""}),
        (200, {"access_token": None}),
        (200, {"refresh_token": "rt"}),
        (200, {"access_token": "at", "error": "invalid_request"}),
        (200, {"access_token": "at", "ok": False}),
        (200, {"access_token": "at", "success": False}),
        (200, {"data": {"access_token": "at"}}),
        (400, {"access_token": "at"}),
        (302, {"access_token": "at"}),
    ],
)
def test_an_answer_without_a_clean_success_issues_nothing(status, document):
    assert token_finding(http(status, document)) is not Finding.LIVE


@pytest.mark.rfc("6749", "5.1")
@pytest.mark.parametrize("status", [200, 201, 203])
@pytest.mark.parametrize(
    "body", [{"access_token": "at"}, "access_token=at&expires=3600", {"access_token": "at", "error": {"code": "ok"}}]
)
def test_a_token_in_a_success_is_a_token_whatever_the_form(status, body):
    assert token_finding(http(status, body)) is Finding.LIVE


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("data.access_token", {"code": 0, "message": "OK", "data": {"access_token": "at"}}),
        ("body.access_token", {"status": 0, "body": {"access_token": "at"}}),
        ("result.0.token", {"result": [{"token": "at"}]}),
        ("answer.token", "<answer><token>at</token></answer>"),
        (
            "Envelope.Body.login.sessionId",
            "<e:Envelope xmlns:e='u'><e:Body><login><sessionId>at</sessionId></login></e:Body></e:Envelope>",
        ),
        ("token", "token=at"),
    ],
)
def test_a_provider_may_keep_its_token_anywhere(path, body):
    assert token_finding(http(200, body), Dialect(token_path=path)) is Finding.LIVE
    assert token_finding(http(200, body), Dialect(token_path=f"{path}.x")) is not Finding.LIVE


@pytest.mark.rfc("6749", "5.2")
@pytest.mark.parametrize("status", [200, 201, 203])
def test_a_code_in_a_success_means_what_it_means_in_a_refusal_and_proves_as_little(status):
    reading = read_token_answer(refusal("invalid_grant", status=status))
    assert (reading.finding, reading.rule, reading.verdict) == (Finding.GRANT_DEAD, "error_code", Verdict.OPEN)
    in_words = read_token_answer(http(status, {"ok": False, "message": "refresh token expired"}))
    assert (in_words.finding, in_words.rule) == (Finding.GRANT_DEAD, "words")


@pytest.mark.parametrize("error", [{}, None, "", [], False])
def test_an_error_that_says_nothing_costs_no_token(error):
    assert token_finding(http(200, {"access_token": "at", "error": error})) is Finding.LIVE


@pytest.mark.rfc("6749", "5.1")
@pytest.mark.parametrize("value", [True, {"value": "at"}, ["at"], 1.5])
def test_an_access_token_that_is_no_text_is_not_one(value):
    assert token_finding(http(200, {"access_token": value})) is not Finding.LIVE


def test_a_code_nobody_documented_decides_nothing():
    reading = read_token_answer(refusal("token_really_dead", "trust me"))
    assert reading.finding is Finding.UNKNOWN
    assert "token_really_dead" in reading.explanation


def test_the_providers_own_code_is_asked_before_the_protocols():
    mine = Dialect(refresh_codes=(ErrorRule(Finding.ACCOUNT_ACTION, "invalid_grant"),))
    reading = read_token_answer(refusal("invalid_grant"), mine)
    assert (reading.finding, reading.rule) == (Finding.ACCOUNT_ACTION, "provider_code")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_open_question_whatever_its_body_says(status):
    assert token_finding(http(status, {"error": "invalid_grant"})) is Finding.UNKNOWN
    assert token_finding(http(status, {"access_token": "at"})) is Finding.UNKNOWN


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_code_that_is_documented_for_a_failing_status_is_heard(status):
    soap = Dialect(refresh_codes=(ErrorRule(Finding.ACCOUNT_ACTION, "locked_out", status=500),))
    answer = http(status, "<s:Envelope xmlns:s='u'><s:Fault><faultcode>LOCKED_OUT</faultcode></s:Fault></s:Envelope>")
    expected = Finding.ACCOUNT_ACTION if status == 500 else Finding.PROVIDER_OUTAGE
    assert token_finding(answer, soap) is expected
    limited = Dialect(refresh_codes=(ErrorRule(Finding.RATE_LIMITED, "locked_out"),))
    assert token_finding(answer, limited) is Finding.RATE_LIMITED
    any_status = Dialect(refresh_codes=(ErrorRule(Finding.GRANT_DEAD, "locked_out"),))
    assert token_finding(answer, any_status) is Finding.PROVIDER_OUTAGE


def test_a_class_without_a_grant_hears_about_its_own_settings_even_from_a_failing_status():
    dialect = Dialect(
        refresh_codes=(ErrorRule(Finding.GRANT_DEAD, "bad", status=500),),
        has_grant=False,
        rejected_means=Finding.ACCOUNT_ACTION,
    )
    assert token_finding(http(500, {"error": "bad"}), dialect) is not Finding.GRANT_DEAD


@pytest.mark.parametrize("means", [Finding.REQUEST_MALFORMED, Finding.CLIENT_MISCONFIGURED, Finding.ACCOUNT_ACTION])
@pytest.mark.parametrize("answer", [refusal("invalid_grant"), refusal("x", "the refresh token was revoked")])
def test_a_rejected_grant_of_a_class_that_stores_none_is_about_what_it_sends(means, answer):
    reading = read_token_answer(answer, Dialect(has_grant=False, rejected_means=means))
    assert (reading.finding, reading.rule) == (means, "no_grant_of_its_own")
    assert reading.subject is SUBJECT_OF[means]


@pytest.mark.rfc("6749", "1.3.3")
def test_a_password_that_is_rejected_by_a_code_for_something_else_is_still_only_words():
    dialect = Dialect(has_grant=False, rejected_means=Finding.GRANT_DEAD)
    reading = read_token_answer(refusal("invalid_request", "Invalid username or password"), dialect)
    assert (reading.finding, reading.subject) == (Finding.GRANT_DEAD, Subject.GRANT)
    assert reading.rule not in DOCUMENTED


@pytest.mark.parametrize("code", ["invalid_request", "unauthorized_client", "access_denied"])
def test_a_refresh_token_that_is_said_to_be_over_beside_a_code_for_something_else_is_only_words(code):
    reading = read_token_answer(refusal(code, "The refresh token has expired"))
    assert (reading.finding, reading.rule) == (Finding.GRANT_DEAD, "words")
    assert read_token_answer(refusal(code)).finding is not Finding.GRANT_DEAD


@pytest.mark.rfc("6749", "5.2")
def test_a_basic_challenge_without_a_body_is_about_the_client():
    reading = read_token_answer(http(401, headers={"www-authenticate": 'Basic realm="token"'}))
    assert (reading.finding, reading.rule) == (Finding.CLIENT_MISCONFIGURED, "basic_challenge")


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        (190, Finding.GRANT_DEAD),
        (102, Finding.GRANT_DEAD),
        (100, Finding.REQUEST_MALFORMED),
        (101, Finding.CLIENT_MISCONFIGURED),
        (1, Finding.UNKNOWN),
        (2, Finding.PROVIDER_OUTAGE),
        (4, Finding.RATE_LIMITED),
        (10, Finding.SCOPE_INSUFFICIENT),
        (459, Finding.ACCOUNT_ACTION),
        (999999, Finding.UNKNOWN),
    ],
)
def test_metas_codes_are_read_from_their_envelope(code, finding):
    assert token_finding(meta_refusal(code, "Something"), METAS) is finding


def test_meta_says_at_a_probe_that_the_access_token_is_dead_and_at_the_token_endpoint_that_the_grant_is():
    answer = meta_refusal(190, "Session has expired")
    assert read_probe_answer(answer, METAS).subject is Subject.ACCESS_TOKEN
    assert read_token_answer(answer, METAS).subject is Subject.GRANT


@pytest.mark.parametrize(
    "body", [{"access_token": "at"}, {"data": {"accessToken": "at"}}, {"jwt": "at"}, {"token": "at"}]
)
def test_an_unknown_provider_may_keep_its_token_anywhere(body):
    assert token_finding(http(200, body), Dialect(token_path="")) is Finding.LIVE
    assert token_finding(http(400, body), Dialect(token_path="")) is not Finding.LIVE
    assert token_finding(http(200, {"name": "at", "type": "x"}), Dialect(token_path="")) is not Finding.LIVE


# -- the probe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", PROBE_ANSWERS, ids=lambda said: said.name)
def test_where_the_access_token_is_the_grant_its_death_is_the_grants(said: Said):
    reading = read_probe_answer(said.answer, Dialect(token_is_grant=True))
    assert (reading.finding is Finding.GRANT_DEAD) == said.says_token_dead
    assert reading.finding is not Finding.ACCESS_TOKEN_DEAD


@pytest.mark.rfc("7662", "2.2")
def test_a_probe_that_is_told_that_the_token_is_not_active_was_told_about_the_token():
    reading = read_probe_answer(http(200, {"active": False}))
    assert (reading.finding, reading.rule) == (Finding.ACCESS_TOKEN_DEAD, "introspected")
    assert probe_finding(http(200, {"active": False, "name": "a user who is away"})) is Finding.LIVE


@pytest.mark.rfc("6750", "3")
def test_the_description_of_a_challenge_cannot_pose_as_its_error():
    challenge = 'Bearer error="insufficient_scope", error_description="no scope, error=invalid_token was not meant"'
    assert probe_finding(http(403, headers={"www-authenticate": challenge})) is Finding.SCOPE_INSUFFICIENT


@pytest.mark.rfc("6750", "3")
def test_the_challenge_outranks_the_body():
    answer = http(403, {"error": "invalid_token"}, {"www-authenticate": 'Bearer error="insufficient_scope"'})
    assert probe_finding(answer) is Finding.SCOPE_INSUFFICIENT


@pytest.mark.parametrize("body", ["", "<html>Log in</html>", "hello", '{"cut": "of', '"text"'])
def test_a_success_status_without_a_readable_body_is_no_sign_of_life(body):
    assert probe_finding(http(200, body)) is Finding.UNKNOWN


@pytest.mark.rfc("9110", "15.3.5")
def test_a_success_without_content_is_one():
    assert probe_finding(http(204)) is Finding.LIVE


@pytest.mark.parametrize("body", [{}, [], {"data": []}, [{"id": 1}], "<user><id>7</id></user>", "id=7&name=x"])
def test_a_success_body_shows_a_live_token(body):
    assert probe_finding(http(200, body)) is Finding.LIVE


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        ({"ok": False}, Finding.UNKNOWN),
        (envelopes.SLACK, Finding.ACCESS_TOKEN_DEAD),
        (envelopes.MARKETO, Finding.ACCESS_TOKEN_DEAD),
        (envelopes.WITHINGS, Finding.ACCESS_TOKEN_DEAD),
        (envelopes.TIKTOK_ERROR, Finding.ACCESS_TOKEN_DEAD),
        (envelopes.TIKTOK_ADS, Finding.ACCESS_TOKEN_DEAD),
        (envelopes.GRAPHQL, Finding.ACCESS_TOKEN_DEAD),
        (envelopes.TIKTOK, Finding.LIVE),
    ],
    ids=["bare", "slack", "marketo", "withings", "tiktok", "tiktok ads", "graphql", "tiktok that is fine"],
)
def test_an_error_in_a_success_is_no_sign_of_life(body, finding):
    assert probe_finding(http(200, body)) is finding
    assert probe_finding(meta_refusal(190, status=200), METAS) is Finding.ACCESS_TOKEN_DEAD


@pytest.mark.parametrize(
    ("has", "equals", "body", "finding"),
    [
        ("data.user.id", "", {"data": {"user": {"id": 7}}}, Finding.LIVE),
        ("data.user.id", "", {"data": {"user": {"id": ""}}}, Finding.LIVE),
        ("data.user.id", "", {"data": {"user": {"id": None}}}, Finding.UNKNOWN),
        ("data.user.id", "", {"data": None}, Finding.UNKNOWN),
        ("data.user.id", "", [{"data": 1}], Finding.UNKNOWN),
        ("data.user.id", "", "<data><user><id>7</id></user></data>", Finding.LIVE),
        ("data.user.id", "", "<html>Log in</html>", Finding.UNKNOWN),
        ("data.user.id", "", "", Finding.UNKNOWN),
        ("0.id", "", [{"id": 7}], Finding.LIVE),
        ("ok", "true", {"ok": True}, Finding.LIVE),
        ("ok", "TRUE", {"ok": True}, Finding.LIVE),
        ("ok", "true", {"ok": False, "error": "x"}, Finding.UNKNOWN),
        ("code", "0", {"code": 0}, Finding.LIVE),
        ("code", "0", {"code": 40105, "message": "Access token is incorrect"}, Finding.ACCESS_TOKEN_DEAD),
        ("data.me", "", {"data": {"me": {"id": 1}}, "errors": [{"message": "one field failed"}]}, Finding.LIVE),
    ],
)
def test_a_success_is_what_the_catalog_says_it_looks_like(has, equals, body, finding):
    assert probe_finding(http(200, body), Dialect(success_has=has, success_equals=equals)) is finding


@pytest.mark.parametrize("status", [300, 400, 401, 403, 404, 429, 500])
def test_a_success_body_under_another_status_is_none(status):
    assert probe_finding(http(status, {"data": {"id": 1}}), OWN_CODES) is not Finding.LIVE


@pytest.mark.rfc("6750", "3.1")
@pytest.mark.parametrize(
    ("answer", "finding", "rule"),
    [
        (http(401, envelopes.SALESFORCE), Finding.ACCESS_TOKEN_DEAD, "words"),
        (http(401, envelopes.GOOGLE_ADS), Finding.ACCESS_TOKEN_DEAD, "words"),
        (http(403, envelopes.GOOGLE), Finding.SCOPE_INSUFFICIENT, "words"),
        (http(401, {"message": "Bad credentials"}), Finding.ACCESS_TOKEN_DEAD, "words"),
        (http(401, {"fault": {"faultstring": "Invalid Access Token"}}), Finding.ACCESS_TOKEN_DEAD, "words"),
        (http(403, {"message": "API rate limit exceeded"}), Finding.RATE_LIMITED, "words"),
        (http(403, {"message": "Your account has been suspended."}), Finding.ACCOUNT_ACTION, "words"),
        (http(401, {"message": "Unauthorized"}), Finding.UNKNOWN, "undecided_code"),
        (http(401), Finding.UNKNOWN, "bare_401"),
        (http(401, {}), Finding.UNKNOWN, "bare_401"),
        (http(403), Finding.UNKNOWN, "unreadable_body"),
        (http(403, {}), Finding.UNKNOWN, "no_error_code"),
    ],
)
def test_common_refusals_of_a_probe_are_understood_and_none_by_words_is_documented(answer, finding, rule):
    reading = read_probe_answer(answer)
    assert (reading.finding, reading.rule) == (finding, rule)


# -- introspection --------------------------------------------------------------------------------------------------


@pytest.mark.rfc("7662", "2.2")
@pytest.mark.parametrize("subject", [Subject.GRANT, Subject.ACCESS_TOKEN])
@pytest.mark.parametrize(
    ("answer", "live"),
    [
        (http(200, {"active": True, "scope": "a"}), True),
        (http(200, {"active": False}), False),
        (http(200, {"active": "false"}), None),
        (http(200, {"active": None}), None),
        (http(200, {}), None),
        (http(200, [False]), None),
        (http(401, {"active": False}), None),
        (http(404, {"active": True}), None),
        (http(200, "<html>"), None),
        (unanswered(), None),
    ],
)
def test_only_a_plain_yes_or_no_of_an_introspection_counts(subject, answer, live):
    reading = read_introspection_answer(answer, subject)
    dead = Finding.GRANT_DEAD if subject is Subject.GRANT else Finding.ACCESS_TOKEN_DEAD
    if live is None:
        assert reading.finding in (Finding.UNKNOWN, Finding.PROVIDER_OUTAGE)
    else:
        assert reading.finding is (Finding.LIVE if live else dead)
        assert reading.subject is subject
    assert reading.verdict is not Verdict.DEAD


# -- lost answers ---------------------------------------------------------------------------------------------------


def lost(answer, dialect: Dialect = STANDARD) -> bool:
    return is_lost(answer, read_token_answer(answer, dialect), dialect)


LOST_BY_STATUS = {
    **dict.fromkeys([200, 201, 204, 206, 500, 502, 504, 505, 520, 524, 599], True),
    **dict.fromkeys([301, 302, 307, 308, 400, 401, 403, 404, 408, 409, 423, 429, 451, 501, 503], False),
}


@pytest.mark.rfc("9110", "15.6.4")
@pytest.mark.parametrize(("status", "expected"), LOST_BY_STATUS.items())
@pytest.mark.parametrize(
    "body",
    [b"", b"cut off {", {}, {"state": "ok"}, "<state>ok</state>", "state=ok"],
    ids=["empty", "broken", "nothing", "other", "xml", "query"],
)
def test_whether_an_answer_without_token_or_error_is_lost_follows_from_its_status(status, expected, body):
    assert lost(http(status, body)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"access_token": "at"}, False),
        ({"access_token": "at", "error": {}}, False),
        ({"access_token": "at", "error": None}, False),
        ({"access_token": "at", "error": "none"}, False),
        ({"access_token": "at", "error": {"code": "ok"}}, False),
        ({"access_token": "at", "error": "odd"}, True),
        ({"refresh_token": "rt", "error": "invalid_grant"}, True),
        ({"access_token": "at", "ok": False}, True),
        ({"error": "invalid_grant"}, False),
        ({"error": "anything", "error_description": "access_token"}, False),
        ({"data": {"access_token": "at"}}, True),
        ({"error": "x", "data": [{"refreshToken": "rt"}]}, True),
        ([], True),
        ("null", True),
        ("access_token=at", False),
        ("refresh_token=rt&error=odd", True),
        ("error=invalid_grant", False),
    ],
    ids=str,
)
def test_a_success_is_lost_when_it_may_hold_tokens_that_were_not_read(body, expected):
    assert lost(http(200, body)) is expected


@pytest.mark.parametrize(
    "page",
    [
        "<!doctype html><html><body>Sign in</body></html>",
        '<?xml version="1.0"?>\n<!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><body>Sign in</body></html>',
        '<meta http-equiv="refresh" content="0; url=http://portal.example/">',
        "<!-- portal --><html><body>Sign in</body></html>",
        "\ufeff<!doctype html><html><body>Sign in</body></html>",
        "\r\n\t <html>",
        "\ufeff\r\n<html>",
    ],
    ids=["html", "xhtml", "meta", "comment", "byte order mark", "white space", "mark and white space"],
)
def test_a_page_for_people_was_not_written_by_a_token_endpoint(page):
    assert not lost(http(200, page))
    assert token_finding(http(200, page)) is Finding.UNKNOWN


@pytest.mark.parametrize("maybe_processed", [True, False])
@pytest.mark.parametrize("provider_at_fault", [True, False])
def test_no_answer_is_lost_where_the_request_may_have_been_processed(maybe_processed, provider_at_fault):
    answer = unanswered(maybe_processed=maybe_processed, provider_at_fault=provider_at_fault)
    assert lost(answer) is maybe_processed


@given(ANY_ANSWER, st.sampled_from([STANDARD, METAS, WITHOUT_GRANT]))
def test_an_answer_is_either_read_or_lost_or_issued_nothing(answer, dialect):
    token_came = token_finding(answer, dialect) is Finding.LIVE
    assert not (token_came and lost(answer, dialect))
    if isinstance(answer, HttpAnswer) and answer.status < 300 and not token_came:
        tokens = {"access_token", "refresh_token"} & set(read_body(answer.body).document)
        assert lost(answer, dialect) or not tokens, "tokens that nobody kept"


@pytest.mark.parametrize(
    "body",
    [
        {"error": "odd", "data": {"token": "at", "next": "rt"}},
        {"success": False, "data": {"token": "at"}},
    ],
)
def test_an_error_beside_a_token_that_stands_where_the_provider_keeps_it_is_lost(body):
    assert lost(http(200, body), Dialect(token_path="data.token"))


# -- whatever the length --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", ["a token expired ", "refresh token is ", "user ", "the session client "])
def test_a_megabyte_of_hostile_words_is_read_like_a_paragraph(piece):
    """Each word rule looks tens of characters ahead, in the middle of an open intent: the text has to be bounded."""
    body = json.dumps({"error": "x", "message": (piece * 70_000)[:1_000_000]})
    for read in (read_token_answer, read_probe_answer):
        reading = read(http(400, body))
        assert len(reading.explanation) < 3_000


def test_the_moment_of_an_answer_changes_no_reading():
    one, other = (http(400, {"error": "x"}, received_at=envelopes.NOW + timedelta(days=day)) for day in (0, 400))
    assert read_token_answer(one) == read_token_answer(other)
