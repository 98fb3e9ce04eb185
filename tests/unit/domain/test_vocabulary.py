"""What codes and words mean; each law here is over every rule there is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.answers import Said
from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.domain.vocabulary import (
    GRANT_ENDED,
    NOT_ABOUT_THE_GRANT,
    RESOURCE_CODES,
    RESOURCE_WORDS,
    TOKEN_CODES,
    TOKEN_WORDS,
    ErrorRule,
    Vocabulary,
)

CODED = {
    "token": TOKEN_CODES,
    "resource": RESOURCE_CODES,
}
WORDED = {"token": TOKEN_WORDS, "resource": RESOURCE_WORDS, "not about the grant": NOT_ABOUT_THE_GRANT}


def finding(vocabulary: Vocabulary, words: str = "", *codes: str, status: int = 400) -> Finding | None:
    said = Said(tuple(codes), words)
    return next((rule.finding for rule in vocabulary if rule.matches(said, status)), None)


# -- rules ----------------------------------------------------------------------------------------------------------


def test_a_rule_asks_for_everything_it_names():
    rule = ErrorRule(Finding.GRANT_DEAD, "Gone", re.compile("for good"), status=400)
    assert rule.matches(Said(("gone",), "It is gone for good."), 400)
    assert not rule.matches(Said(("gone",), "It is gone for good."), 401)
    assert not rule.matches(Said(("gone",), "It is gone."), 400)
    assert not rule.matches(Said((), "It is gone for good."), 400)


@pytest.mark.parametrize("code", ["EXPIRED_REFRESH_TOKEN", "expired-refresh-token", "expired.refresh.token"])
def test_a_code_is_also_read_as_words(code):
    assert finding(TOKEN_WORDS, "", code.lower()) is Finding.GRANT_DEAD


def test_a_rule_matches_any_of_the_codes_an_answer_gives():
    assert ErrorRule(Finding.GRANT_DEAD, "190").matches(Said(("oauthexception", "190", "463")), 400)


@pytest.mark.parametrize("vocabulary", CODED.values(), ids=CODED)
def test_no_code_stands_twice_in_one_vocabulary(vocabulary):
    codes = [rule.code for rule in vocabulary]
    assert len(codes) == len(set(codes))
    assert all(code == code.lower() and not re.search(r"\s", code) for code in codes)


@pytest.mark.parametrize("vocabulary", [*CODED.values(), *WORDED.values()])
def test_nothing_said_matches_no_rule(vocabulary):
    assert finding(vocabulary) is None
    assert finding(vocabulary, " ") is None


@pytest.mark.parametrize("vocabulary", WORDED.values(), ids=WORDED)
def test_a_rule_about_words_says_what_they_are_about(vocabulary):
    assert all(rule.meaning and (rule.says or rule.code) for rule in vocabulary)


def test_nothing_but_a_token_endpoint_speaks_of_the_grant():
    assert not [rule for rule in (*RESOURCE_CODES, *RESOURCE_WORDS) if rule.finding is Finding.GRANT_DEAD]
    assert not [rule for rule in (*TOKEN_CODES, *TOKEN_WORDS) if rule.finding is Finding.ACCESS_TOKEN_DEAD]
    assert not [rule for rule in NOT_ABOUT_THE_GRANT if rule.finding is Finding.GRANT_DEAD]


@pytest.mark.parametrize("vocabulary", [*CODED.values(), *WORDED.values()])
def test_no_rule_about_an_error_is_a_sign_of_life(vocabulary):
    assert not [rule for rule in vocabulary if rule.finding in (Finding.LIVE, Finding.AMBIGUOUS)]


@pytest.mark.rfc("6749", "5.2")
@pytest.mark.rfc("6750", "3.1")
def test_every_code_of_the_two_core_documents_is_known():
    core = {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"}
    assert core | {"invalid_scope"} <= {rule.code for rule in TOKEN_CODES}
    assert {"invalid_request", "invalid_token", "insufficient_scope"} <= {rule.code for rule in RESOURCE_CODES}


# -- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "The refresh token has expired",
        "refresh token is invalid",
        "Unknown refresh_token",
        "Refresh Token not found",
        "Your refresh token has already been used",
        "could not find the refresh token",
        "The user has revoked access; authorization was revoked",
        "Token has been expired or revoked.",
        "Session not active",
        "Please re-authenticate",
        "You need to reconnect your account",
        "The grant has been withdrawn",
    ],
)
def test_words_of_a_dead_grant_are_recognised(words):
    assert GRANT_ENDED.matches(Said(words=words), 400)
    assert finding(TOKEN_WORDS, words) is Finding.GRANT_DEAD


@pytest.mark.parametrize(
    "words",
    [
        "Invalid grant type",
        "The grant type is not supported",
        "refresh_token is required",
        "Missing parameter: refresh_token",
        "client authentication failed",
        "Invalid client secret provided",
        "The request is malformed",
        "Too many refresh requests",
        "Something went wrong",
        "Unauthorized",
        "Invalid request",
    ],
)
def test_words_about_something_else_are_not_those_of_a_dead_grant(words):
    assert finding(TOKEN_WORDS, words) is not Finding.GRANT_DEAD


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Invalid client secret provided", Finding.CLIENT_MISCONFIGURED),
        ("The application has been disabled", Finding.CLIENT_MISCONFIGURED),
        ("Unknown client", Finding.CLIENT_MISCONFIGURED),
        ("Your account has been locked", Finding.ACCOUNT_ACTION),
        ("Multi-factor authentication is needed", Finding.ACCOUNT_ACTION),
        ("Too many requests", Finding.RATE_LIMITED),
        ("Rate limit exceeded, retry in a minute", Finding.RATE_LIMITED),
        ("The service is temporarily unavailable", Finding.PROVIDER_OUTAGE),
        ("Internal Server Error", Finding.PROVIDER_OUTAGE),
        ("Unsupported grant type", Finding.REQUEST_MALFORMED),
        ("Missing required parameter", Finding.REQUEST_MALFORMED),
        ("The requested scope is not allowed", Finding.SCOPE_INSUFFICIENT),
    ],
)
def test_a_token_endpoints_words_are_about_their_own_subject(words, expected):
    assert finding(TOKEN_WORDS, words) is expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("token expired", Finding.ACCESS_TOKEN_DEAD),
        ("The access token is invalid", Finding.ACCESS_TOKEN_DEAD),
        ("Invalid access token", Finding.ACCESS_TOKEN_DEAD),
        ("Session expired or invalid", Finding.ACCESS_TOKEN_DEAD),
        ("Invalid authentication credentials", Finding.ACCESS_TOKEN_DEAD),
        ("Bad credentials", Finding.ACCESS_TOKEN_DEAD),
        ("Your account has been suspended", Finding.ACCOUNT_ACTION),
        ("API rate limit exceeded", Finding.RATE_LIMITED),
        ("Insufficient permissions", Finding.SCOPE_INSUFFICIENT),
        ("You do not have access to this resource", Finding.SCOPE_INSUFFICIENT),
        ("Internal error", Finding.PROVIDER_OUTAGE),
        ("Invalid parameter: page", Finding.REQUEST_MALFORMED),
        ("Unauthorized", None),
        ("Forbidden", None),
        ("Not found", None),
    ],
)
def test_a_resources_words_are_about_their_own_subject(words, expected):
    assert finding(RESOURCE_WORDS, words) is expected


@given(st.text(max_size=300), st.lists(st.text(max_size=30), max_size=4))
def test_no_text_breaks_a_rule(words, codes):
    for vocabulary in (*CODED.values(), *WORDED.values()):
        finding(vocabulary, words, *codes)


@pytest.mark.parametrize("vocabulary", WORDED.values(), ids=WORDED)
@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a token expired ",
            "refresh token ",
            "token",
            "expired ",
            "client ",
            "account is ",
            "the access ",
            "invalid ",
        ),
        *("session ", "could not find ", "missing ", "requires ", "-", "_", "a", " ", "\n", "exceeded ", "user "),
    ],
)
def test_no_rule_grows_faster_than_the_text_it_reads(vocabulary, piece):
    """Twenty times the text has to be about twenty times the work; the square of it would be four hundred times."""
    short, long = (Said(words=(piece * 40_000)[:length]) for length in (5_000, 100_000))
    for rule in vocabulary:
        assert work(rule, long) < 100 * max(work(rule, short), 0.0005)


def work(rule: ErrorRule, said: Said) -> float:
    """The best of three, in seconds of this process."""
    import time

    taken = []
    for _ in range(3):
        started = time.process_time()
        rule.matches(said, 400)
        taken.append(time.process_time() - started)
    return min(taken)
