from __future__ import annotations

import html
import json
import string
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.redaction import (
    BODY_LIMIT,
    ERROR_LIMIT,
    redact_body,
    redact_error,
    redact_headers,
    redact_text,
)

# RFC 6749 appendix A lets a token be any visible ASCII; RFC 6750 section 2.1's b64token is what most are.
B64TOKEN = st.text(string.ascii_letters + string.digits + "-._~+/", min_size=6, max_size=80).filter(
    lambda secret: not any(secret in word for word in ("<redacted>", "error_description", "invalid_grant", "message"))
)


def forms(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), quote_plus(secret)}


# -- text ---------------------------------------------------------------------------------------------------------


@given(st.lists(B64TOKEN, min_size=1, max_size=3, unique=True), st.sampled_from([" ", ",", '"', "<b>", "&x=", ": "]))
def test_no_known_secret_survives_in_any_text(secrets, glue):
    text = glue.join(f"{plain}{glue}{encoded}" for plain in secrets for encoded in forms(plain))
    kept = redact_text(text, secrets)
    for secret in secrets:
        for form in forms(secret):
            assert form not in kept


def test_a_secret_that_begins_like_another_leaves_no_tail_of_the_longer_one():
    for secrets in (("tok-live", "tok-live-9fGh"), ("tok-live-9fGh", "tok-live")):
        assert "9fGh" not in redact_text("bad token tok-live-9fGh", secrets)


@given(st.text(string.ascii_letters + string.digits + "-._~+/=", min_size=32, max_size=200))
def test_whatever_is_long_enough_to_be_a_token_goes_even_if_nobody_knew_it(token):
    assert token not in redact_text(f"your new token is {token}, keep it", ())


def test_prose_and_codes_stay_readable():
    said = "invalid_grant: Token has been expired or revoked (AADSTS70008). Send the user to log in again."
    assert redact_text(said, ("s3cret-value",)) == said


@pytest.mark.parametrize(
    ("secret", "written"),
    [
        ("s3/cr+t=", quote("s3/cr+t=", safe="").lower()),
        ("s3 cr t", quote_plus("s3 cr t")),
        ("s3&cr<t", html.escape("s3&cr<t")),
        ('s3"cr\\t', json.dumps('s3"cr\\t')[1:-1]),
        ("s3/cr/t", "s3\\/cr\\/t"),
    ],
    ids=["lower-case percent", "plus for a space", "HTML entities", "JSON escapes", "JSON slash"],
)
def test_a_short_secret_does_not_survive_in_the_escapes_of_its_surroundings(secret, written):
    assert written not in redact_text(f"<p>bad: {written}</p>", [secret])


# -- bodies -------------------------------------------------------------------------------------------------------


@given(B64TOKEN)
def test_no_known_secret_survives_in_a_body_of_any_kind(secret):
    bodies = (
        json.dumps({"error": "invalid_grant", "error_description": f"bad {secret}"}),
        json.dumps({"error": {"message": secret, "code": 190}}),
        json.dumps([{"detail": [secret]}]),
        json.dumps({secret: "as a key"}),
        f"<html><body>token {secret} and {quote(secret, safe='')}</body></html>",
        urlencode({"error": "x", "refresh_token": secret}),
        f'{{"error_description": "{secret}", "cut": "of',
    )
    for body in bodies:
        kept = redact_body(body.encode(), [secret])
        for form in forms(secret):
            assert form not in kept


@pytest.mark.parametrize("secret", ['pa"ss\\wd', "pa\tss", "pa\nss-w", "p\u00e4ss\u2713"])
def test_no_known_secret_survives_inside_a_json_description(secret):
    kept = redact_body(json.dumps({"error": "x", "error_description": f"bad {secret}!"}).encode(), [secret])
    assert secret not in kept
    assert json.dumps(secret)[1:-1] not in kept
    assert json.dumps(secret, ensure_ascii=False)[1:-1] not in kept


@pytest.mark.parametrize(
    "document",
    [
        {"access_token": "sh0rt", "token_type": "Bearer", "expires_in": 3600},
        {"data": {"refresh_token": "sh0rt"}, "ok": True},
        {"error": {"session": "sh0rt", "code": 190}},
        [{"id_token": "sh0rt"}],
        {"access_token": ["sh0rt"]},
    ],
)
def test_a_token_nobody_knew_yet_is_reduced_to_its_type(document):
    kept = redact_body(json.dumps(document).encode(), [])
    assert "sh0rt" not in kept
    assert "<str>" in kept


def test_a_body_too_long_to_be_read_whole_does_not_give_away_a_new_token():
    body = json.dumps({"access_token": "sh0rt", "padding": ["x y"] * 10_000}).encode()
    assert "sh0rt" not in redact_body(body, [])


@pytest.mark.parametrize("lead", range(0, 80, 5))
def test_no_half_of_a_secret_survives_where_a_long_body_is_cut(lead):
    """Redaction shortens a text, so what stood far behind the limit can come to stand before it."""
    unit = f"{'A' * 60} sh0rt-s3cret-value "
    assert "sh0rt" not in redact_body(("x " * 40)[:lead].encode() + (unit * 300).encode(), ["sh0rt-s3cret-value"])


@pytest.mark.rfc("6749", "5.2")
def test_what_explains_an_error_is_kept():
    document = {"error": "invalid_grant", "error_description": "Token has been revoked.", "code": 190, "ok": False}
    assert json.loads(redact_body(json.dumps(document).encode(), [])) == document


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 50_000, b"null", b"NaN"])
def test_no_body_is_strange_enough_to_break_the_redaction(body):
    assert len(redact_body(body, ["secret"])) <= BODY_LIMIT


@given(st.binary(max_size=300))
def test_a_kept_body_is_bounded(body):
    assert len(redact_body(body * 100, [])) <= BODY_LIMIT


# -- headers ------------------------------------------------------------------------------------------------------


@given(B64TOKEN)
def test_no_known_secret_survives_in_the_headers(secret):
    kept = redact_headers(
        {
            "location": f"https://x.example/cb/{quote(secret, safe='')}?access_token={secret}",
            "www-authenticate": f'Bearer error="invalid_token", error_description="{secret} expired"',
            "x-request-id": secret,
            "set-cookie": f"session={secret}",
            "authorization": f"Bearer {secret}",
        },
        [secret],
    )
    for form in forms(secret):
        assert form not in str(kept)


@pytest.mark.parametrize("tail", ["?code=sh0rt", "?a=b#access_token=sh0rt", "#access_token=sh0rt"])
@pytest.mark.rfc("6749", "4.2.2")
def test_a_location_keeps_no_query_and_no_fragment(tail):
    assert redact_headers({"location": f"https://x.example/cb{tail}"}, []) == {"location": "https://x.example/cb"}


def test_only_headers_that_explain_an_answer_are_kept():
    sent = {"date": "today", "retry-after": "5", "set-cookie": "sid=1", "x-access-token": "t", "etag": "e"}
    assert redact_headers(sent, []) == {"date": "today", "retry-after": "5"}


def test_a_challenge_stays_readable():
    challenge = 'Bearer realm="api", error="invalid_token", error_description="The access token expired"'
    assert redact_headers({"www-authenticate": challenge}, []) == {"www-authenticate": challenge}


def test_a_request_id_is_kept_so_that_the_provider_can_be_asked_about_it():
    sent = {"x-request-id": "0f8fad5b-d9cb-469f-a165-70867728950e"}
    assert redact_headers(sent, []) == sent


# -- errors -------------------------------------------------------------------------------------------------------

ERRORS_WITH_A_SECRET = [
    "HTTPSConnectionPool(host='hooks.slack.com', port=443): Max retries exceeded with url: /services/T0/B0/sh0rt (Caused by x)",
    "404 Client Error: Not Found for url: https://api.telegram.org/bot12:sh0rt/sendMessage",
    "cannot notify slack://sh0rt/B0/X0",
    "could not connect to postgresql+psycopg2://etl:sh0rt@db.example/prod",
    "refused: /hook?room=1&token=sh0rt",
    "the key is " + "sh0rt" * 8,
]


@pytest.mark.parametrize("said", ERRORS_WITH_A_SECRET)
def test_an_error_that_is_quoted_keeps_its_words_and_loses_addresses_and_tokens(said):
    kept = redact_error(ConnectionError(said))
    assert "sh0rt" not in kept
    assert kept.startswith(f"ConnectionError: {said.split()[0].split('/')[0]}")


def test_an_error_is_one_short_line():
    kept = redact_error(ValueError("line\n  after line " * 100))
    assert kept.startswith("ValueError: line after line line")
    assert "\n" not in kept
    assert len(kept) <= len("ValueError: ") + ERROR_LIMIT


def test_an_error_without_words_is_its_type():
    assert redact_error(TimeoutError()) == "TimeoutError"
