from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.github_app import GithubAppGrant
from airflow_oauth_guard.grants.settings import ProviderFacts, TokenAnswer
from tests.unit.domain.builders import NOW, grant_of, http, parameters_of, refusal

KEY = RSAKey.generate_key(2048)
URL = "https://api.github.com/app/installations/7/access_tokens"
FIELDS = {"token_url": URL, "client_id": "Iv1.app", "private_key": KEY.as_pem(private=True).decode()}
FACTS = ProviderFacts(
    provider="github",
    headers={"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
    answer=TokenAnswer("token", expires_in="expires_at", expires_in_unit="instant"),
)


def grant(**changes: Any) -> GithubAppGrant:
    return grant_of(GithubAppGrant, FACTS, **(FIELDS | changes))


def test_the_app_asks_for_the_installations_token_with_a_jwt_and_nothing_else():
    request = grant().request("stored-token", NOW)
    assert (request.method, request.url, request.content) == ("POST", URL, b"")
    assert parameters_of(request) == []
    assert request.headers["Accept"] == "application/vnd.github+json"
    assert request.headers["Authorization"].startswith("Bearer ")
    assert request.shape.client_auth == "app_jwt"


@pytest.mark.rfc("7519", "4.1")
def test_the_jwt_verifies_is_dated_back_and_ends_within_githubs_ten_minutes():
    token = jwt.decode(
        grant().request("", NOW).headers["Authorization"].removeprefix("Bearer "), KEY, algorithms=["RS256"]
    )
    issued, ends = token.claims["iat"], token.claims["exp"]
    assert token.header == {"alg": "RS256", "typ": "JWT"}
    assert token.claims == {"iss": "Iv1.app", "iat": issued, "exp": ends}
    assert issued == int((NOW - timedelta(seconds=60)).timestamp())
    assert int(NOW.timestamp()) < ends <= int((NOW + timedelta(minutes=10)).timestamp())
    assert ends - issued <= 600


def test_the_jwt_and_the_key_count_as_secrets():
    request = grant().request("", NOW)
    bearer = request.headers["Authorization"].removeprefix("Bearer ")
    assert {bearer, FIELDS["private_key"].strip()} <= {secret.strip() for secret in request.secrets}
    assert bearer not in repr(request)
    assert "PRIVATE KEY" not in f"{request!r}{grant().settings!r}"


def test_a_key_that_cannot_sign_is_named_and_not_quoted():
    with pytest.raises(ConnectionFieldError, match="`private_key` cannot sign") as caught:
        grant(private_key="s3cret nonsense").request("", NOW)
    assert "s3cret" not in str(caught.value)


@pytest.mark.rfc("9110", "15.3.2")
def test_an_installation_token_comes_with_201_and_the_instant_of_its_end():
    outcome = grant().read(http(201, {"token": "ghs_1", "expires_at": "2026-03-14T10:00:00Z", "permissions": {}}))
    assert outcome.tokens is not None
    assert (outcome.tokens.access_token, outcome.tokens.expires_in) == ("ghs_1", timedelta(hours=1))
    assert outcome.tokens.refresh_token is None


def test_what_is_rejected_is_the_app():
    assert grant().read(refusal("invalid_grant")).reading.finding is Finding.CLIENT_MISCONFIGURED
    assert GithubAppGrant.sends == ""
    assert GithubAppGrant.own_provider({}) == "github"
