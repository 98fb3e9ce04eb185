from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.answers import (
    RFC6749_ERRORS,
    SUBJECT_OF,
    HttpAnswer,
    answer_id,
    challenge_error,
    error_code,
    is_lost,
    read_body,
    read_probe_answer,
    read_token_answer,
    retry_after,
)
from airflow_oauth_guard.domain.evidence import Finding, Subject, Verdict
from airflow_oauth_guard.grants.meta import GRAPH_API_ERRORS, GRAPH_API_PROBE_ERRORS
from tests.unit.domain.builders import (
    NOW,
    PROBE_ANSWERS,
    TOKEN_ANSWERS,
    Said,
    http,
    meta_refusal,
    refusal,
    unanswered,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
ERROR_DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "error": st.sampled_from(sorted({*RFC6749_ERRORS, "invalid_token", "1", "190", "x"})) | JSON_VALUES,
        "error_description": st.text(max_size=40) | JSON_VALUES,
        "access_token": JSON_VALUES,
        "ok": JSON_VALUES,
    },
)
ANY_ANSWER = st.builds(
    http,
    status=st.integers(200, 599),
    body=st.binary(max_size=60) | JSON_VALUES | ERROR_DOCUMENTS,
    headers=st.dictionaries(
        st.sampled_from(["www-authenticate", "retry-after", "date", "location"]), st.text(max_size=60), max_size=3
    ),
) | st.builds(
    unanswered, st.text(min_size=1, max_size=20), maybe_processed=st.booleans(), provider_at_fault=st.booleans()
)


def token_finding(answer, vocabulary=RFC6749_ERRORS):
    return read_token_answer(answer, vocabulary).finding


def probe_finding(answer, vocabulary=None):
    return read_probe_answer(answer, vocabulary or {}).finding


# -- laws ---------------------------------------------------------------------------------------------------------


@given(ANY_ANSWER, st.sampled_from([RFC6749_ERRORS, GRAPH_API_ERRORS, GRAPH_API_PROBE_ERRORS]))
def test_no_single_answer_has_the_verdict_dead_and_none_breaks_the_reading(answer, vocabulary):
    for reading in (read_token_answer(answer, vocabulary), read_probe_answer(answer, vocabulary)):
        assert reading.verdict is not Verdict.DEAD
        assert reading.explanation


@given(ANY_ANSWER)
def test_a_sign_of_life_needs_a_2xx_answer(answer):
    alive = isinstance(answer, HttpAnswer) and answer.status < 300
    assert alive or token_finding(answer) is not Finding.LIVE
    assert alive or probe_finding(answer) is not Finding.LIVE


@pytest.mark.parametrize("said", TOKEN_ANSWERS, ids=lambda said: said.name)
def test_a_token_answer_is_read_as_somebody_who_knows_the_protocol_would(said: Said):
    finding = token_finding(said.answer)
    assert (finding is Finding.GRANT_DEAD) == said.says_grant_dead
    assert (finding is Finding.LIVE) == said.alive
    assert (finding in (Finding.RATE_LIMITED, Finding.PROVIDER_OUTAGE)) == said.transient


@pytest.mark.parametrize("said", PROBE_ANSWERS, ids=lambda said: said.name)
def test_a_probe_answer_is_read_as_somebody_who_knows_the_protocol_would(said: Said):
    finding = probe_finding(said.answer)
    assert (finding is Finding.ACCESS_TOKEN_DEAD) == said.says_token_dead
    assert (finding is Finding.LIVE) == said.alive
    assert (finding in (Finding.RATE_LIMITED, Finding.PROVIDER_OUTAGE)) == said.transient


@pytest.mark.parametrize("status", [429, *range(500, 600, 7)])
def test_whatever_a_failing_provider_writes_is_about_the_provider(status):
    for body in ({"error": "invalid_grant"}, {"error": "invalid_token"}, {"access_token": "at"}, "<html>", b""):
        answer = http(status, body, {"www-authenticate": 'Bearer error="invalid_token"'})
        assert read_token_answer(answer, RFC6749_ERRORS).subject is Subject.PROVIDER
        assert read_probe_answer(answer, {}).subject is Subject.PROVIDER


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 410, 423, 451])
@pytest.mark.parametrize("body", [{}, {"message": "no"}, {"detail": "token expired"}, "<html>expired</html>", "", "[]"])
def test_a_refusal_that_does_not_name_the_token_is_no_finding_about_it(status, body):
    assert probe_finding(http(status, body)) is Finding.UNKNOWN


def test_every_finding_but_life_and_doubt_has_a_subject():
    assert set(SUBJECT_OF) == set(Finding) - {Finding.LIVE, Finding.UNKNOWN}


def test_an_answer_we_cut_short_ourselves_is_not_the_providers_outage():
    assert token_finding(unanswered("body limit", provider_at_fault=False)) is Finding.UNKNOWN
    assert token_finding(unanswered("timed out")) is Finding.PROVIDER_OUTAGE


# -- the token endpoint -------------------------------------------------------------------------------------------


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
    reading = read_token_answer(refusal(code), RFC6749_ERRORS)
    assert (reading.finding, reading.subject) == (finding, subject)
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
        ("Invalid JWT Signature.", Finding.REQUEST_MALFORMED),
        ("Assertion audience is wrong", Finding.REQUEST_MALFORMED),
        ("Refresh token was issued to another client", Finding.CLIENT_MISCONFIGURED),
        ("client_id does not match", Finding.CLIENT_MISCONFIGURED),
        ("MFA required", Finding.ACCOUNT_ACTION),
        ("Blocked by Conditional Access policy", Finding.ACCOUNT_ACTION),
        ("User account is disabled", Finding.ACCOUNT_ACTION),
        ("Unsupported grant_type", Finding.REQUEST_MALFORMED),
        ("Missing parameter: refresh_token", Finding.REQUEST_MALFORMED),
        ("Malformed auth code.", Finding.REQUEST_MALFORMED),
    ],
)
def test_invalid_grant_about_something_else_is_not_about_the_grant(description, finding):
    reading = read_token_answer(refusal("invalid_grant", description), RFC6749_ERRORS)
    assert reading.finding is finding
    assert "not about the grant" in reading.explanation


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
        (400, {"access_token": "at"}),
    ],
)
def test_an_answer_without_a_clean_success_issues_nothing(status, document):
    assert token_finding(http(status, document)) is not Finding.LIVE


@pytest.mark.rfc("6749", "5.2")
@pytest.mark.parametrize("status", [200, 201, 203])
def test_invalid_grant_in_a_success_is_not_the_word_of_a_token_endpoint(status):
    reading = read_token_answer(refusal("invalid_grant", status=status), RFC6749_ERRORS)
    assert (reading.finding, reading.rule) == (Finding.UNKNOWN, "undecided_code")
    assert "in a success" in reading.explanation


@pytest.mark.parametrize("error", [{}, None, "", [], False])
def test_an_error_that_says_nothing_costs_no_token(error):
    assert token_finding(http(200, {"access_token": "at", "error": error})) is Finding.LIVE


@pytest.mark.rfc("6749", "5.1")
@pytest.mark.parametrize("value", [True, {"value": "at"}, ["at"], 1.5])
def test_an_access_token_that_is_no_text_is_not_one(value):
    assert token_finding(http(200, {"access_token": value})) is not Finding.LIVE


def test_a_code_nobody_documented_decides_nothing():
    reading = read_token_answer(refusal("token_really_dead", "trust me"), RFC6749_ERRORS)
    assert reading.finding is Finding.UNKNOWN
    assert "token_really_dead" in reading.explanation


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_open_question_whatever_its_body_says(status):
    assert token_finding(http(status, {"error": "invalid_grant"})) is Finding.UNKNOWN
    assert token_finding(http(status, {"access_token": "at"})) is Finding.UNKNOWN


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
    assert token_finding(meta_refusal(code, "Something"), GRAPH_API_ERRORS) is finding


def test_meta_says_at_a_probe_that_the_access_token_is_dead_and_at_the_token_endpoint_that_the_grant_is():
    answer = meta_refusal(190, "Session has expired")
    assert read_probe_answer(answer, GRAPH_API_PROBE_ERRORS).subject is Subject.ACCESS_TOKEN
    assert read_token_answer(answer, GRAPH_API_ERRORS).subject is Subject.GRANT


# -- the probe ----------------------------------------------------------------------------------------------------


@pytest.mark.rfc("6750", "3.1")
@pytest.mark.parametrize(
    ("challenge", "code"),
    [
        ('Bearer realm="x", error="invalid_token", error_description="The access token expired"', "invalid_token"),
        ("bearer error=invalid_token", "invalid_token"),
        ('Basic realm="x", Bearer error="insufficient_scope"', "insufficient_scope"),
        ('Bearer realm="error=invalid_token"', None),
        ('Bearer realm="x"', None),
        ('Basic realm="x", error="invalid_token"', None),
        ("", None),
    ],
)
def test_a_bearer_challenge_is_read_and_no_other(challenge, code):
    found = challenge_error(challenge)
    assert (found.code if found else None) == code


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


@pytest.mark.parametrize("body", [{}, [], {"data": []}, [{"id": 1}]])
def test_a_success_body_shows_a_live_token(body):
    assert probe_finding(http(200, body)) is Finding.LIVE


def test_a_success_status_that_carries_an_error_is_no_sign_of_life():
    assert probe_finding(http(200, {"ok": False})) is Finding.UNKNOWN
    assert probe_finding(meta_refusal(190, status=200), GRAPH_API_PROBE_ERRORS) is Finding.ACCESS_TOKEN_DEAD


# -- lost answers -------------------------------------------------------------------------------------------------


def lost(answer) -> bool:
    return is_lost(answer, read_token_answer(answer, RFC6749_ERRORS))


LOST_BY_STATUS = {
    **dict.fromkeys([200, 201, 204, 206, 500, 502, 504, 505, 520, 524, 599], True),
    **dict.fromkeys([301, 302, 307, 308, 400, 401, 403, 404, 408, 409, 423, 429, 451, 501, 503], False),
}


@pytest.mark.rfc("9110", "15.6.4")
@pytest.mark.parametrize(("status", "expected"), LOST_BY_STATUS.items())
@pytest.mark.parametrize("body", [b"", b"cut off {", {}, {"state": "ok"}], ids=["empty", "broken", "nothing", "other"])
def test_whether_an_answer_without_token_or_error_is_lost_follows_from_its_status(status, expected, body):
    assert lost(http(status, body)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"access_token": "at"}, False),
        ({"access_token": "at", "error": {}}, False),
        ({"access_token": "at", "error": None}, False),
        ({"access_token": "at", "error": "none"}, True),
        ({"access_token": "at", "error": {"code": "ok"}}, True),
        ({"refresh_token": "rt", "error": "invalid_grant"}, True),
        ({"access_token": "at", "ok": False}, True),
        ({"error": "invalid_grant"}, False),
        ({"error": "anything", "error_description": "access_token"}, False),
        ({"data": {"access_token": "at"}}, True),
        ([], True),
        ("null", True),
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


@given(ANY_ANSWER)
def test_an_answer_is_either_read_or_lost_or_issued_nothing(answer):
    token_came = token_finding(answer) is Finding.LIVE
    assert not (token_came and lost(answer))
    if isinstance(answer, HttpAnswer) and answer.status < 300 and not token_came:
        tokens = {"access_token", "refresh_token"} & set(read_body(answer).document)
        assert lost(answer) or not tokens, "tokens that nobody kept"


# -- bodies and headers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_body_nested_without_end_is_unreadable_and_raises_nothing(opening):
    answer = http(400, opening * 50_000)
    assert read_body(answer).unreadable
    assert token_finding(answer) is Finding.UNKNOWN
    assert answer_id(answer) == answer_id(http(400, opening * 50_000))


def test_a_body_in_broken_utf8_is_still_read():
    assert (
        token_finding(http(400, b'{"error": "invalid_grant", "error_description": "\xff\xfe"}')) is Finding.GRANT_DEAD
    )


@pytest.mark.parametrize(
    "odd", ["\\ud800", "\\udfff\\ud83d", "\\u0000", "\\ud83d\\ude00"], ids=["half", "swapped", "nul", "whole"]
)
def test_half_a_character_and_nul_come_out_of_no_body(odd):
    """No database and no request takes them; the whole emoji at the end is one character like any other."""
    raw = f'{{"a{odd}": ["b{odd}"], "error": "x{odd}", "error_description": "{odd}y"}}'
    document = read_body(http(400, raw)).document
    said = str([*document, *document.values(), error_code(document)])
    assert said.encode().decode() == said
    assert "\0" not in said
    assert ("?" in said) is (odd != "\\ud83d\\ude00")


def test_error_code_ignores_what_is_no_error():
    assert error_code({"error": ""}) is None
    assert error_code({"error": None}) is None
    assert error_code({"error": 7}) is None
    assert error_code({"ok": True}) is None


@pytest.mark.rfc("9110", "10.2.3")
@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("120", timedelta(minutes=2)),
        ("0", timedelta()),
        ("Sat, 14 Mar 2026 09:30:00 GMT", timedelta(minutes=30)),
        ("Sat, 14 Mar 2026 09:30:00 -0000", timedelta(minutes=30)),
        ("Sat, 14 Mar 2026 08:00:00 GMT", timedelta()),
        ("-5", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_never_negative(value, wait):
    assert retry_after(http(429, headers={"retry-after": value})) == wait


@pytest.mark.parametrize(
    "value",
    [
        "\u00b2",
        "9" * 20,
        "9" * 5000,
        "Mon, 01 Jan 2024 00:00:00 +9999999999999999999",
        "Mon, 01 Jan 99999999999999999999999 00:00:00 GMT",
    ],
    ids=["superscript", "too long for a duration", "too long for a number", "offset", "year"],
)
def test_an_absurd_retry_after_raises_nothing(value):
    """A parse error here would lose the evidence, and with it the intent it settles."""
    wait = retry_after(http(429, headers={"retry-after": value}))
    assert wait is None or wait >= timedelta()


def test_there_is_no_retry_after_in_no_answer():
    assert retry_after(unanswered()) is None


def test_the_repr_of_an_answer_shows_no_token():
    """Answers travel through tracebacks and logs; a token answer's body is the new token."""
    shown = repr(http(200, {"access_token": "at-secret"}, {"set-cookie": "session-secret"}))
    assert "at-secret" not in shown
    assert "session-secret" not in shown


# -- answer_id ----------------------------------------------------------------------------------------------------

INCIDENTAL = [
    ("Trace ID: 0f8fad5b-d9cb-469f-a165-70867728950e", "Trace ID: 7c9e6679-7425-40de-944b-e07fc1f90ae7"),
    ("Timestamp: 2026-03-14 09:00:01Z", "Timestamp: 2026-03-14 09:02:07Z"),
    ("token rt-1234 is not valid", "token xy-9876 is not valid"),
    ("token abcdefghijklmnopqrstuvwx is not valid", "token zyxwvutsrqponmlkjihgfedc is not valid"),
    ("Token Is Not Valid", "token is not valid"),
]


@pytest.mark.parametrize(("one", "other"), INCIDENTAL)
def test_answers_that_differ_only_in_incidental_fields_are_the_same_answer(one, other):
    assert answer_id(refusal("invalid_grant", one)) == answer_id(refusal("invalid_grant", other))


@given(st.uuids(), st.uuids(), st.datetimes(), st.datetimes())
def test_trace_ids_and_timestamps_never_tell_answers_apart(one, other, at, later):
    description = "AADSTS: the grant is not valid. Trace ID: {} Timestamp: {}Z"
    first = refusal("invalid_grant", description.format(one, at.isoformat(" ")))
    second = refusal("invalid_grant", description.format(other, later.isoformat(" ")))
    assert answer_id(first) == answer_id(second)


def test_fields_beside_the_error_do_not_tell_answers_apart():
    one = {"error": "invalid_grant", "trace_id": "a", "timestamp": "Monday"}
    other = {"timestamp": "Tuesday", "correlation": {"id": "b"}, "error": "invalid_grant"}
    assert answer_id(http(400, one, {"x-request-id": "1"})) == answer_id(http(400, other, {"date": "x"}))


def test_two_pages_of_html_are_the_same_answer():
    assert answer_id(http(403, "<html>ray 1</html>")) == answer_id(http(403, "<html>ray 2</html>"))


@pytest.mark.parametrize(
    "other",
    [
        refusal("invalid_grant", "Token has been revoked", status=401),
        refusal("invalid_request", "Token has been revoked"),
        refusal("invalid_grant", "No such token"),
        refusal("invalid_grant"),
        http(400, "<html>"),
        unanswered(),
    ],
    ids=["status", "code", "description", "no description", "html", "no answer"],
)
def test_answers_that_say_something_else_are_different_answers(other):
    assert answer_id(refusal("invalid_grant", "Token has been revoked")) != answer_id(other)


def test_metas_trace_id_does_not_tell_its_answers_apart():
    one = http(400, {"error": {"message": "Invalid parameter", "code": 100, "fbtrace_id": "AbC"}})
    other = http(400, json.dumps({"error": {"fbtrace_id": "xYz", "code": 100, "message": "Invalid parameter"}}))
    assert answer_id(one) == answer_id(other)


def test_the_moment_of_an_answer_does_not_tell_it_apart():
    assert answer_id(http(400, {"error": "x"}, received_at=NOW)) == answer_id(
        http(400, {"error": "x"}, received_at=NOW + timedelta(days=1))
    )
