from __future__ import annotations

import pytest

from airflow_oauth_guard.domain.evidence import Finding, Subject, Verdict
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.long_lived_token import SPEAKS_FOR, LongLivedTokenGrant
from tests.unit.domain.builders import NOW, PROBE_ANSWERS, Said, grant_of, http, refusal

FIELDS = {"probe_url": "https://api.example/me", "access_token": "seed-s3cret"}


def test_a_look_is_all_that_is_sent():
    request = grant_of(LongLivedTokenGrant, **FIELDS).request("at-s3cret", NOW)
    assert (request.method, request.url, request.content) == ("GET", "https://api.example/me", b"")
    assert request.headers["Authorization"] == "Bearer at-s3cret"
    assert {"at-s3cret", "seed-s3cret"} <= set(request.secrets)
    assert "s3cret" not in repr(request)


def test_an_answer_vouches_for_the_token_for_some_hours_and_replaces_nothing():
    tokens = grant_of(LongLivedTokenGrant, **FIELDS).read(http(200, {"id": 7})).tokens
    assert tokens is not None
    assert (tokens.access_token, tokens.refresh_token, tokens.expires_in) == ("", None, SPEAKS_FOR)


@pytest.mark.parametrize("said", PROBE_ANSWERS, ids=lambda said: said.name)
def test_what_a_probe_says_of_the_token_is_said_of_the_grant(said: Said):
    outcome = grant_of(LongLivedTokenGrant, **FIELDS).read(said.answer)
    assert (outcome.reading.finding is Finding.GRANT_DEAD) == said.says_token_dead
    assert (outcome.tokens is not None) == said.alive
    assert outcome.reading.verdict is (Verdict.LIVE if said.alive else Verdict.OPEN)
    assert outcome.reading.subject is not Subject.ACCESS_TOKEN


def test_a_token_endpoints_words_mean_nothing_at_a_probe():
    outcome = grant_of(LongLivedTokenGrant, **FIELDS).read(refusal("invalid_grant"))
    assert outcome.reading.finding is not Finding.GRANT_DEAD


def test_without_an_address_to_ask_there_is_nothing_to_guard():
    with pytest.raises(ConnectionFieldError, match="`probe_url` is missing"):
        grant_of(LongLivedTokenGrant, access_token="at")


def test_the_token_is_its_own_grant_and_asking_does_not_spend_it():
    assert LongLivedTokenGrant.sends == "access_token"
    assert not grant_of(LongLivedTokenGrant, **FIELDS).rotates
