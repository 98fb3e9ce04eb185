"""The authorization server that other tests trust must itself be right. One real process for all of these."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.authorization_server.client import (
    REPOSITORY,
    AdminError,
    AuthorizationServer,
    Minted,
    SeenRequest,
)

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SECRET = "s3cret"
HOUR = timedelta(hours=1)
KEY = RSAKey.generate_key(2048)
JWKS: dict[str, Any] = {"keys": [KEY.as_dict(private=False)]}
HTTP = requests.Session()
HTTP.trust_env = False


@pytest.fixture(scope="module")
def server() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as running:
        yield running


@pytest.fixture
def name(server: AuthorizationServer, numbers: Iterator[int] = count()) -> Iterator[str]:  # noqa: B008
    """A client id nobody has used, and no faults left behind."""
    yield f"client-{next(numbers)}"
    server.clear_faults()


def refresh(server: AuthorizationServer, name: str, token: str | None, **more: str) -> requests.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, **more}
    return HTTP.post(server.token_url, data=form, auth=(name, SECRET), timeout=5)


def probe(server: AuthorizationServer, token: str) -> requests.Response:
    return HTTP.get(server.probe_url, headers={"Authorization": f"Bearer {token}"}, timeout=5)


def sign(claims: dict[str, Any], key: RSAKey | ECKey = KEY) -> str:
    algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
    return jwt.encode({"alg": algorithm}, {"exp": int(time.time()) + 300, **claims}, key)


def last(server: AuthorizationServer, name: str) -> SeenRequest:
    return server.requests(name)[-1]


# --- Refresh tokens


def test_a_refresh_gives_a_live_access_token_and_keeps_the_refresh_token(
    server: AuthorizationServer, name: str
) -> None:
    server.add_client(name, access_lifetime=timedelta(minutes=5), secret_prefix="acme-")
    old = server.mint(name)
    answer = refresh(server, name, old.refresh_token)
    body = answer.json()
    assert answer.status_code == 200
    assert body["expires_in"] == 300
    assert body["token_type"] == "Bearer"
    assert body["access_token"].startswith("acme-at-")
    assert "refresh_token" not in body
    assert "Date" in answer.headers
    assert probe(server, body["access_token"]).json() == {"id": "ada", "name": "Ada"}
    assert refresh(server, name, old.refresh_token).status_code == 200


@pytest.mark.parametrize("reuse_detection", [False, True])
def test_with_rotation_the_old_refresh_token_is_dead_at_once(
    server: AuthorizationServer, name: str, reuse_detection: bool
) -> None:
    server.add_client(name, rotation=True, reuse_detection=reuse_detection)
    old = server.mint(name, secret_prefix="leak")
    new = refresh(server, name, old.refresh_token).json()
    assert new["refresh_token"].startswith("leak-rt-")
    assert server.truth(name).grant_live

    again = refresh(server, name, old.refresh_token)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert server.truth(name).grant_live is not reuse_detection
    assert server.truth(name).access_token_live
    assert refresh(server, name, new["refresh_token"]).ok is not reuse_detection


def test_in_the_grace_window_a_replaced_refresh_token_gives_fresh_tokens_of_its_family(
    server: AuthorizationServer, name: str
) -> None:
    server.add_client(name, rotation=True, reuse_detection=True, rotation_grace=timedelta(seconds=60))
    old = server.mint(name).refresh_token
    first = refresh(server, name, old).json()
    server.advance(timedelta(seconds=30))
    second = refresh(server, name, old).json()
    assert len({old, first["refresh_token"], second["refresh_token"]}) == 3
    assert server.truth(name).grant_live
    assert probe(server, second["access_token"]).ok
    assert refresh(server, name, first["refresh_token"]).ok, "the answer that was thought lost may be in use"
    assert refresh(server, name, second["refresh_token"]).ok


def test_after_the_grace_window_a_replaced_refresh_token_is_reuse(server: AuthorizationServer, name: str) -> None:
    """The window begins with the first replacement: using it does not make it longer."""
    server.add_client(name, rotation=True, reuse_detection=True, rotation_grace=timedelta(seconds=60))
    old = server.mint(name).refresh_token
    refresh(server, name, old)
    server.advance(timedelta(seconds=50))
    newest = refresh(server, name, old).json()["refresh_token"]
    server.advance(timedelta(seconds=20))
    assert refresh(server, name, old).json()["error"] == "invalid_grant"
    assert not server.truth(name).grant_live
    assert refresh(server, name, newest).status_code == 400


def test_the_grace_window_brings_no_revoked_grant_back(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, rotation=True, rotation_grace=timedelta(seconds=60))
    old = server.mint(name).refresh_token
    assert refresh(server, name, old).ok
    server.revoke(name)
    assert refresh(server, name, old).json()["error"] == "invalid_grant"


def test_of_two_simultaneous_refreshes_with_rotation_one_wins(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, rotation=True)
    token = server.mint(name).refresh_token
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: refresh(server, name, token).status_code, range(8)))
    assert sorted(answers) == [200] + [400] * 7


def test_an_unknown_a_foreign_and_an_expired_refresh_token_are_invalid_grants(
    server: AuthorizationServer, name: str
) -> None:
    server.add_client(name, refresh_lifetime=timedelta(days=1))
    server.add_client(f"{name}-other")
    mine, foreign = server.mint(name), server.mint(f"{name}-other")
    server.advance(timedelta(days=2))
    for token in ("tok-rt-unknown", foreign.refresh_token, mine.refresh_token, mine.access_token):
        answer = refresh(server, name, token)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert not server.truth(name).grant_live


def test_time_ends_access_tokens_and_a_refresh_brings_them_back(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    tokens = server.mint(name, access_lifetime=HOUR)
    assert tokens.expires_in == 3600
    assert 3590 <= (server.truth(name).newest_access_expires_in or 0) <= 3600
    server.advance(2 * HOUR)
    truth = server.truth(name)
    assert (truth.access_token_live, truth.grant_live) == (False, True)
    refused = probe(server, tokens.access_token)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token", error_description="')
    assert refused.json()["error"] == "invalid_token"
    renewed = refresh(server, name, tokens.refresh_token).json()
    assert probe(server, renewed["access_token"]).ok
    assert server.truth(name).access_token_live


def test_a_dead_grant_may_have_a_live_access_token(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    tokens = server.mint(name)
    server.revoke(name, access=False)
    truth = server.truth(name)
    assert (truth.access_token_live, truth.grant_live) == (True, False)
    assert refresh(server, name, tokens.refresh_token).json()["error"] == "invalid_grant"
    assert probe(server, tokens.access_token).ok


def test_revoking_one_user_leaves_the_others(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    server.mint(name, "ada")
    bob = server.mint(name, "bob")
    server.revoke(name, "ada")
    assert not server.truth(name, "ada").grant_live
    assert server.truth(name, "bob").grant_live
    assert refresh(server, name, bob.refresh_token).ok


@pytest.mark.parametrize(("scope", "ok"), [("read", True), ("read write", True), ("admin", False)])
def test_only_registered_scopes_are_granted(server: AuthorizationServer, name: str, scope: str, ok: bool) -> None:
    server.add_client(name, scope="read write", grant_types=["refresh_token", "client_credentials"])
    answers = [
        refresh(server, name, server.mint(name).refresh_token, scope=scope),
        HTTP.post(
            server.token_url,
            data={"grant_type": "client_credentials", "scope": scope},
            auth=(name, SECRET),
            timeout=5,
        ),
    ]
    for answer in answers:
        assert answer.json().get("error") == (None if ok else "invalid_scope")
        assert answer.json().get("scope") == (scope if ok else None)


# --- The wrong grant type: an answer about our request, not about the token


@pytest.mark.parametrize("error", ["unsupported_grant_type", "invalid_request", "invalid_grant", "meta"])
def test_a_wrong_grant_type_is_refused_before_any_token_is_looked_at(
    server: AuthorizationServer, name: str, error: str
) -> None:
    server.add_client(name, grant_types=["fb_exchange_token"], wrong_grant_error=error)
    live = server.mint(name, with_refresh=True)
    answers = [refresh(server, name, token) for token in (live.refresh_token, "tok-rt-bogus")]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].json() == answers[1].json()
    if error == "meta":
        message = {"message": "Missing or invalid grant_type", "type": "OAuthException", "code": 100}
        assert answers[0].json() == {"error": message}
    else:
        assert answers[0].json()["error"] == error
    assert server.truth(name).access_token_live


def test_a_refused_grant_type_can_look_just_like_a_dead_token(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, wrong_grant_error="invalid_grant")
    server.mint(name)
    dead = refresh(server, name, "tok-rt-bogus")
    wrong = HTTP.post(server.token_url, data={"grant_type": "client_credentials"}, auth=(name, SECRET), timeout=5)
    assert dead.json() == wrong.json()
    assert dead.status_code == wrong.status_code


# --- Client authentication


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
@pytest.mark.parametrize("as_json", [False, True])
def test_clients_authenticate_only_as_registered(
    server: AuthorizationServer, name: str, method: str, as_json: bool
) -> None:
    server.add_client(name, token_endpoint_auth_method=method, client_secret=None if method == "none" else SECRET)
    form = {"grant_type": "refresh_token", "refresh_token": server.mint(name).refresh_token}
    ways: dict[str, dict[str, Any]] = {
        "client_secret_basic": {"data": form, "auth": (name, SECRET)},
        "client_secret_post": {"data": {**form, "client_id": name, "client_secret": SECRET}},
        "none": {"data": {**form, "client_id": name}},
    }
    for way, arguments in ways.items():
        if as_json:
            arguments["json"] = arguments.pop("data")
        answer = HTTP.post(server.token_url, timeout=5, **arguments)
        assert answer.status_code == (200 if way == method else 401), way
        assert answer.json().get("error") == (None if way == method else "invalid_client")


def test_wrong_credentials_are_401_for_each_method(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    server.add_client(f"{name}-post", token_endpoint_auth_method="client_secret_post")
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    answers = [
        HTTP.post(server.token_url, data=form, auth=(name, "wrong"), timeout=5),
        HTTP.post(server.token_url, data=form, auth=("nobody", SECRET), timeout=5),
        HTTP.post(
            server.token_url,
            data={**form, "client_id": f"{name}-post", "client_secret": "wrong"},
            timeout=5,
        ),
        HTTP.post(server.token_url, data=form, timeout=5),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_a_disabled_client_is_an_invalid_client_and_its_grant_stands(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    tokens = server.mint(name)
    server.change_client(name, disabled=True)
    answer = refresh(server, name, tokens.refresh_token)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert server.truth(name).grant_live


def test_private_key_jwt_authenticates_once_per_assertion(server: AuthorizationServer, name: str) -> None:
    server.add_client(
        name,
        client_secret=None,
        token_endpoint_auth_method="private_key_jwt",
        grant_types=["client_credentials"],
        jwks=JWKS,
    )
    claims = {"iss": name, "sub": name, "aud": server.token_url}
    stranger = RSAKey.generate_key(2048)

    def send(assertion: str) -> requests.Response:
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        return HTTP.post(server.token_url, data=form, timeout=5)

    good = sign({**claims, "jti": "one"})
    assert send(good).status_code == 200
    refused = [
        good,
        sign(claims),
        sign({**claims, "jti": "two", "aud": "https://elsewhere.example"}),
        sign({**claims, "jti": "three", "exp": int(time.time()) - 300}),
        sign({**claims, "jti": "four"}, stranger),
        "not.a.jwt",
    ]
    for assertion in refused:
        answer = send(assertion)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


# --- Grants without a refresh token


def test_client_credentials_give_tokens_without_a_grant_to_lose(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, grant_types=["client_credentials"])

    def send() -> requests.Response:
        form = {"grant_type": "client_credentials"}
        return HTTP.post(server.token_url, data=form, auth=(name, SECRET), timeout=5)

    assert server.truth(name).newest_access_expires_in is None
    token = send().json()
    assert "refresh_token" not in token
    assert probe(server, token["access_token"]).json()["id"] == name
    server.revoke(name)
    assert not server.truth(name).access_token_live
    assert server.truth(name).grant_live
    assert send().ok
    server.change_client(name, disabled=True)
    assert not server.truth(name).grant_live
    assert send().json()["error"] == "invalid_client"


@pytest.mark.parametrize("key", [KEY, ECKey.generate_key("P-256")], ids=["RS256", "ES256"])
def test_jwt_bearer_answers_a_signed_assertion(server: AuthorizationServer, name: str, key: RSAKey | ECKey) -> None:
    jwks = {"keys": [key.as_dict(private=False)]}
    server.add_client(name, client_secret=None, grant_types=[JWT_BEARER], jwks=jwks)
    claims = {"iss": name, "sub": "ada", "aud": server.token_url}

    def send(assertion: str) -> requests.Response:
        form = {"grant_type": JWT_BEARER, "assertion": assertion}
        return HTTP.post(server.token_url, data=form, timeout=5)

    token = send(sign(claims, key)).json()
    assert "refresh_token" not in token
    assert probe(server, token["access_token"]).json()["id"] == "ada"
    assert server.truth(name).grant_live
    for wrong in ({"aud": "https://elsewhere.example"}, {"exp": int(time.time()) - 300}, {"iss": "nobody"}):
        answer = send(sign({**claims, **wrong}, key))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    server.change_client(name, disabled=True)
    assert send(sign(claims, key)).status_code == 401


def test_an_assertion_from_the_future_is_refused_unless_its_signer_is_said_to_have_moved(name: str) -> None:
    def ask_in(server: AuthorizationServer, ahead: timedelta) -> requests.Response:
        at = int(time.time() + ahead.total_seconds())
        claims = {"iss": name, "sub": "ada", "aud": server.token_url, "iat": at, "exp": at + 300}
        form = {"grant_type": JWT_BEARER, "assertion": sign(claims)}
        return HTTP.post(server.token_url, data=form, timeout=5)

    with AuthorizationServer() as server:  # one of its own: the clock of the shared one does not go back
        server.add_client(name, client_secret=None, grant_types=[JWT_BEARER], jwks=JWKS)
        assert ask_in(server, HOUR).json()["error"] == "invalid_grant"
        server.advance(HOUR, signers_too=True)
        assert ask_in(server, HOUR).ok
        assert not ask_in(server, timedelta()).ok, "by now it has expired"


def test_jwt_bearer_refuses_the_wrong_grant_type_by_the_assertions_issuer(
    server: AuthorizationServer, name: str
) -> None:
    server.add_client(name, grant_types=["refresh_token"], wrong_grant_error="invalid_request", jwks=JWKS)
    form = {"grant_type": JWT_BEARER, "assertion": sign({"iss": name, "sub": "a", "aud": "x"})}
    assert HTTP.post(server.token_url, data=form, timeout=5).json()["error"] == "invalid_request"


# --- Introspection and revocation


def introspect(server: AuthorizationServer, name: str, token: str | None) -> dict[str, Any]:
    answer = HTTP.post(server.introspection_url, data={"token": token}, auth=(name, SECRET), timeout=5)
    body: dict[str, Any] = answer.json()
    return body


def test_introspection_tells_live_tokens_from_dead_foreign_and_unknown_ones(
    server: AuthorizationServer, name: str
) -> None:
    server.add_client(name)
    server.add_client(f"{name}-other")
    tokens, foreign = server.mint(name), server.mint(f"{name}-other")
    live = introspect(server, name, tokens.access_token)
    assert (live["active"], live["client_id"], live["sub"], live["scope"]) == (True, name, "ada", "read")
    assert live["exp"] - live["iat"] == 3600
    assert introspect(server, name, tokens.refresh_token)["active"]
    server.revoke(name, access=False)
    for token in (tokens.refresh_token, foreign.access_token, "unknown"):
        assert introspect(server, name, token) == {"active": False}
    stranger = HTTP.post(server.introspection_url, data={"token": "x"}, auth=(name, "wrong"), timeout=5)
    assert (stranger.status_code, stranger.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(("kind", "grant_survives"), [("access_token", True), ("refresh_token", False)])
def test_revocation_of_a_refresh_token_takes_the_access_tokens_along(
    server: AuthorizationServer, name: str, kind: str, grant_survives: bool
) -> None:
    server.add_client(name)
    tokens = server.mint(name)
    form = {"token": getattr(tokens, kind), "token_type_hint": kind}
    assert HTTP.post(server.revocation_url, data=form, auth=(name, SECRET), timeout=5).status_code == 200
    truth = server.truth(name)
    assert (truth.access_token_live, truth.grant_live) == (False, grant_survives)
    assert HTTP.post(server.revocation_url, data=form, auth=(name, "wrong"), timeout=5).status_code == 401


# --- Meta


def exchange(
    server: AuthorizationServer, name: str, token: str, method: str = "GET", **changes: str
) -> requests.Response:
    parameters = {
        "grant_type": "fb_exchange_token",
        "client_id": name,
        "client_secret": SECRET,
        "fb_exchange_token": token,
        **changes,
    }
    where = "params" if method == "GET" else "data"
    return HTTP.request(method, server.meta_url, timeout=5, **{where: parameters})  # type: ignore[arg-type]


def meta_error(answer: requests.Response) -> tuple[int, int, int | None]:
    error = answer.json()["error"]
    assert error["type"] == "OAuthException"
    return answer.status_code, error["code"], error.get("error_subcode")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_facebook_trades_a_live_token_and_leaves_the_old_one_alive(
    server: AuthorizationServer, name: str, method: str
) -> None:
    server.add_client(name, grant_types=["fb_exchange_token"], access_lifetime=timedelta(days=60))
    old = server.mint(name, access_lifetime=HOUR, secret_prefix="fb-")
    assert old.refresh_token is None
    answer = exchange(server, name, old.access_token, method)
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("bearer", 60 * 86400)
    assert body["access_token"].startswith("fb-at-")
    assert probe(server, old.access_token).ok
    assert probe(server, body["access_token"]).json()["id"] == "ada"


def test_facebook_refuses_in_its_own_way(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, grant_types=["fb_exchange_token"])
    live = server.mint(name, access_lifetime=HOUR)
    assert meta_error(exchange(server, name, live.access_token, client_secret="wrong")) == (400, 1, None)
    assert meta_error(exchange(server, "nobody", live.access_token)) == (400, 101, None)
    for token in (live.access_token, "bogus"):
        wrong = exchange(server, name, token, grant_type="refresh_token")
        assert meta_error(wrong) == (400, 100, None)
        assert wrong.json()["error"]["message"].startswith("Invalid grant_type")
    assert server.truth(name).grant_live
    server.advance(2 * HOUR)
    assert not server.truth(name).grant_live
    assert meta_error(exchange(server, name, live.access_token)) == (400, 190, 463)
    assert meta_error(exchange(server, name, "bogus")) == (400, 190, 463)


@pytest.mark.parametrize(("site", "grant_type"), [("instagram", "ig_refresh_token"), ("threads", "th_refresh_token")])
def test_instagram_and_threads_renew_a_live_token_by_get(
    server: AuthorizationServer, name: str, site: str, grant_type: str
) -> None:
    server.add_client(name, grant_types=[grant_type])
    old = server.mint(name)
    url: str = getattr(server, f"{site}_url")

    def send(token: str, grant_type: str = grant_type) -> requests.Response:
        parameters = {"grant_type": grant_type, "access_token": token}
        return HTTP.get(url, params=parameters, timeout=5)

    body = send(old.access_token).json()
    assert (body["token_type"], body["expires_in"]) == ("bearer", 3600)
    assert probe(server, body["access_token"]).ok
    assert meta_error(send(old.access_token, "refresh_token")) == (400, 100, None)
    assert meta_error(send("bogus", "refresh_token")) == (400, 100, None)
    assert HTTP.post(url, data={"access_token": old.access_token}, timeout=5).status_code == 400
    server.revoke(name, access=False)
    assert not server.truth(name).grant_live
    assert meta_error(send(body["access_token"])) == (400, 190, 463)


# --- The resource


def test_the_resource_takes_the_token_from_header_query_or_form(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    token = server.mint(name).access_token
    assert HTTP.get(server.probe_url, params={"access_token": token}, timeout=5).ok
    assert HTTP.post(server.probe_url, data={"access_token": token}, timeout=5).ok
    assert HTTP.post(server.probe_url, headers={"Authorization": f"bearer {token}"}, timeout=5).ok


def test_unknown_refresh_and_missing_tokens_are_unauthorized(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    refresh_token = server.mint(name).refresh_token or ""
    for token in ("bogus", refresh_token):
        assert 'error="invalid_token"' in probe(server, token).headers["WWW-Authenticate"]
    missing = HTTP.get(server.probe_url, timeout=5)
    assert (missing.status_code, missing.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_the_source_sends_as_many_rows_as_the_admin_says(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    header = {"Authorization": f"Bearer {server.mint(name).access_token}"}
    for wanted in (3, 0, 5):
        if wanted != 3:
            server.set_rows(name, wanted)
        assert len(HTTP.get(server.rows_url, headers=header, timeout=5).json()["rows"]) == wanted
    server.revoke(name)
    assert HTTP.get(server.rows_url, headers=header, timeout=5).status_code == 401


# --- Faults


@pytest.fixture
def tokens(server: AuthorizationServer, name: str) -> Minted:
    """Tokens of a client that rotates, so that a request that was evaluated after all would show."""
    server.add_client(name, rotation=True)
    return server.mint(name)


def test_a_status_fault_says_what_it_is_told_as_often_as_it_is_told(
    server: AuthorizationServer, name: str, tokens: Minted
) -> None:
    headers = {"Retry-After": "120"}
    server.fault("status", client_id=name, status=429, headers=headers, body={"error": "slow_down"}, times=1)
    server.fault("status", client_id=name, times=1, body="sorry")
    answers = [refresh(server, name, tokens.refresh_token) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 503, 200]
    assert answers[0].headers["Retry-After"] == "120"
    assert answers[0].json() == {"error": "slow_down"}
    assert answers[1].text == "sorry"


def test_a_captive_portal_says_200_with_html(server: AuthorizationServer, name: str, tokens: Minted) -> None:
    server.fault("html", client_id=name)
    answer = refresh(server, name, tokens.refresh_token)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<h1>" in answer.text


def test_a_truncated_answer_ends_early(server: AuthorizationServer, name: str, tokens: Minted) -> None:
    server.fault("truncated", client_id=name)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        refresh(server, name, tokens.refresh_token)
    server.clear_faults()
    assert refresh(server, name, tokens.refresh_token).ok


def test_a_huge_answer_is_as_long_as_it_is_told(server: AuthorizationServer, name: str, tokens: Minted) -> None:
    server.fault("huge", client_id=name, megabytes=3)
    assert len(refresh(server, name, tokens.refresh_token).content) > 3_000_000


def test_200_can_carry_an_error_or_nothing(server: AuthorizationServer, name: str, tokens: Minted) -> None:
    server.fault("error_200", client_id=name, times=1)
    server.fault("empty_200", client_id=name, times=1)
    error, empty = (refresh(server, name, tokens.refresh_token) for _ in range(2))
    assert (error.status_code, error.json()) == (200, {"ok": False, "error": "token_expired"})
    assert (empty.status_code, empty.content) == (200, b"")


def test_a_hanging_request_holds_up_nobody_else(server: AuthorizationServer, name: str, tokens: Minted) -> None:
    server.fault("hang", client_id=name, times=1, seconds=1)
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
    with pytest.raises(requests.exceptions.ReadTimeout):
        HTTP.post(server.token_url, data=form, auth=(name, SECRET), timeout=0.2)
    assert refresh(server, name, tokens.refresh_token).ok


def test_a_redirect_keeps_the_method(server: AuthorizationServer, name: str, tokens: Minted) -> None:
    server.fault("redirect", client_id=name, url="http://127.0.0.1:9/elsewhere")
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
    answer = HTTP.post(server.token_url, data=form, auth=(name, SECRET), timeout=5, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, "http://127.0.0.1:9/elsewhere")


@pytest.mark.parametrize(("on", "failing"), [(None, "t"), ("token", "t"), ("resource", "r"), ("both", "tr")])
def test_a_clients_fault_hits_the_endpoints_it_names(
    server: AuthorizationServer, name: str, tokens: Minted, on: str | None, failing: str
) -> None:
    server.fault("status", client_id=name, on=on)
    assert (refresh(server, name, tokens.refresh_token).status_code == 503) is ("t" in failing)
    assert (probe(server, tokens.access_token).status_code == 503) is ("r" in failing)


def test_a_clients_fault_spares_other_clients_and_a_paths_fault_does_not(
    server: AuthorizationServer, name: str, tokens: Minted
) -> None:
    other = f"{name}-other"
    server.add_client(other)
    server.fault("status", client_id=name, on="both")
    others = server.mint(other)
    assert probe(server, others.access_token).ok
    assert refresh(server, other, others.refresh_token).ok
    server.fault("status", path="/api/me", status=500)
    assert probe(server, others.access_token).status_code == 500
    assert refresh(server, other, others.refresh_token).ok


Send = Callable[[AuthorizationServer, str, Minted], requests.Response]
WAYS: dict[str, Send] = {
    "basic": lambda s, n, t: refresh(s, n, t.refresh_token),
    "form": lambda s, n, t: HTTP.post(s.token_url, data={"client_id": n}, timeout=5),
    "json": lambda s, n, t: HTTP.post(s.token_url, json={"client_id": n}, timeout=5),
    "query": lambda s, n, t: HTTP.get(s.meta_url, params={"client_id": n}, timeout=5),
    "client assertion": lambda s, n, t: HTTP.post(s.token_url, data={"client_assertion": sign({"iss": n})}, timeout=5),
    "assertion": lambda s, n, t: HTTP.post(s.token_url, data={"assertion": sign({"iss": n})}, timeout=5),
    "facebook token": lambda s, n, t: HTTP.get(s.meta_url, params={"fb_exchange_token": t.access_token}, timeout=5),
    "instagram token": lambda s, n, t: HTTP.get(s.instagram_url, params={"access_token": t.access_token}, timeout=5),
    "bearer": lambda s, n, t: probe(s, t.access_token),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_finds_its_client_whichever_way_it_is_named(
    server: AuthorizationServer, name: str, tokens: Minted, way: str
) -> None:
    server.fault("status", client_id=name, on="both", status=418)
    assert WAYS[way](server, name, tokens).status_code == 418


# --- The request log and the admin pages


def test_the_log_has_names_and_outcomes_and_no_values(server: AuthorizationServer, name: str, tokens: Minted) -> None:
    refresh(server, name, tokens.refresh_token)
    seen = last(server, name)
    assert (seen.path, seen.method, seen.grant_type) == ("/oauth/token", "POST", "refresh_token")
    assert (seen.status, seen.error) == (200, None)
    assert seen.parameters == ["grant_type", "refresh_token"]
    refresh(server, name, tokens.refresh_token)
    assert (last(server, name).status, last(server, name).error) == (400, "invalid_grant")
    exchange(server, name, "bogus", grant_type="wrong")
    assert last(server, name).error == "OAuthException 100"
    server.fault("error_200", client_id=name)
    refresh(server, name, tokens.refresh_token)
    assert (last(server, name).status, last(server, name).error) == (200, "token_expired")
    text = json.dumps([vars(entry) for entry in server.requests()])
    assert "tok-" not in text
    assert SECRET not in text
    server.clear_requests()
    assert server.requests() == []


def test_a_client_registered_again_begins_anew(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    tokens = server.mint(name)
    server.add_client(name)
    assert not server.truth(name).access_token_live
    assert refresh(server, name, tokens.refresh_token).json()["error"] == "invalid_grant"


def test_a_mistake_in_an_admin_request_is_explained(server: AuthorizationServer, name: str) -> None:
    with pytest.raises(AdminError, match="No client"):
        server.mint("never-registered")
    server.add_client(name)
    with pytest.raises(AdminError, match="rotatoin"):
        server.change_client(name, rotatoin=True)
    with pytest.raises(AdminError, match="kinds: "):
        server.fault("explode")


def test_minted_tokens_stay_out_of_repr(tokens: Minted) -> None:
    assert tokens.access_token.startswith("tok-at-")
    assert (tokens.refresh_token or "").startswith("tok-rt-")
    assert "tok-" not in repr(tokens)


# --- The process


def test_the_server_is_gone_after_stop_and_can_be_stopped_twice() -> None:
    server = AuthorizationServer().start()
    url = server.probe_url
    assert HTTP.get(url, timeout=5).status_code == 401
    server.stop()
    server.stop()
    with pytest.raises(requests.exceptions.ConnectionError):
        HTTP.get(url, timeout=5)


def test_the_process_ends_with_its_parent_and_prints_one_line() -> None:
    command = [sys.executable, "-m", "tests.authorization_server", "--exit-with-parent"]
    done = subprocess.run(command, cwd=REPOSITORY, input=b"", capture_output=True, timeout=10, check=True)
    assert json.loads(done.stdout)["url"].startswith("http://127.0.0.1:")
    assert done.stderr == b""


@pytest.mark.parametrize(("credentials", "status"), [(b"no colon", 401), (b"\xff:\xfe", 400)])
def test_garbage_in_the_basic_header_is_an_answer_not_a_crash(
    server: AuthorizationServer, credentials: bytes, status: int
) -> None:
    headers = {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}
    answer = HTTP.post(server.token_url, data={"grant_type": "refresh_token"}, headers=headers, timeout=5)
    assert answer.status_code == status


# --- Classes that vendors have


def ask(server: AuthorizationServer, name: str, grant_type: str, **form: str) -> requests.Response:
    return HTTP.post(server.token_url, data={"grant_type": grant_type, **form}, auth=(name, SECRET), timeout=5)


TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
SAML2_BEARER = "urn:ietf:params:oauth:grant-type:saml2-bearer"

SHOWN: dict[str, tuple[dict[str, Any], dict[str, str], str, str]] = {
    "password": ({"users": {"ada": "pass"}}, {"username": "ada", "password": "pass"}, "password", "invalid_grant"),
    "account_credentials": ({"account_id": "acc"}, {"account_id": "acc"}, "account_id", "invalid_request"),
    TOKEN_EXCHANGE: (
        *({"subject_tokens": ["sub"]}, {"subject_token": "sub", "subject_token_type": JWT_TYPE}),
        *("subject_token", "invalid_request"),
    ),
    SAML2_BEARER: ({"assertions": ["PHNhbWw-"]}, {"assertion": "PHNhbWw-"}, "assertion", "invalid_grant"),
}


@pytest.mark.parametrize("grant_type", SHOWN)
def test_who_shows_the_right_thing_gets_a_token_and_nobody_else(
    server: AuthorizationServer, name: str, grant_type: str
) -> None:
    settings, form, shown, error = SHOWN[grant_type]
    server.add_client(name, grant_types=[grant_type], **settings)
    answer = ask(server, name, grant_type, **form)
    assert answer.status_code == 200, answer.text
    assert ("refresh_token" in answer.json()) == (grant_type == "password"), "RFC 6749 §4.3.3 allows one there"
    assert ("issued_token_type" in answer.json()) == (grant_type == TOKEN_EXCHANGE)
    assert probe(server, answer.json()["access_token"]).ok
    wrong = ask(server, name, grant_type, **{**form, shown: "wrong"})
    assert (wrong.status_code, wrong.json()["error"]) == (400, error)
    stranger = HTTP.post(server.token_url, data={"grant_type": grant_type, **form}, auth=(name, "no"), timeout=5)
    assert (stranger.status_code, stranger.json()["error"]) == (401, "invalid_client")
    assert ask(server, name, "refresh_token", refresh_token="x").json()["error"] == "unsupported_grant_type"


def test_client_secret_jwt_is_taken_once_and_only_where_it_is_registered(
    server: AuthorizationServer, name: str
) -> None:
    secret = "a secret of thirty-two characters"
    claims = {"iss": name, "sub": name, "aud": server.token_url, "jti": "1", "exp": int(time.time()) + 60}
    form = {
        "grant_type": "client_credentials",
        "client_id": name,
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret)),
    }
    for method, status in (("client_secret_jwt", 200), ("client_secret_jwt", 401), ("private_key_jwt", 401)):
        if method == "private_key_jwt" or status == 200:
            settings = {"client_secret": secret, "jwks": JWKS, "token_endpoint_auth_method": method}
            server.add_client(name, grant_types=["client_credentials"], **settings)
        assert HTTP.post(server.token_url, data=form, timeout=5).status_code == status, method


def test_a_vendors_login_has_the_token_in_an_envelope(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, grant_types=["long_lived"], users={f"user-of-{name}": "pass"})
    login = {"username": f"user-of-{name}", "password": "pass"}
    document = HTTP.post(server.login_url, json=login, timeout=5).json()
    assert document["success"] is True
    assert document["data"]["session"]["ttl_ms"] == 3_600_000
    assert probe(server, document["data"]["session"]["token"]).ok
    wrong = HTTP.post(server.login_url, json={**login, "password": "no"}, timeout=5)
    assert (wrong.status_code, wrong.json()["success"]) == (401, False)
    assert [seen.status for seen in server.requests(name)] == [200, 200, 401]
    server.fault("status", client_id=name, status=503)
    assert HTTP.post(server.login_url, json=login, timeout=5).status_code == 503, "its faults are those of a token URL"


def test_a_github_apps_jwt_buys_a_token_of_its_own_installation(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, client_secret=None, jwks=JWKS, account_id="7")
    now = int(time.time())

    def buys(installation: str, key: RSAKey = KEY, **claims: Any) -> requests.Response:
        signed = sign({"iss": name, "iat": now - 60, **claims}, key)
        headers = {"Authorization": f"Bearer {signed}"}
        return HTTP.post(server.installation_url(installation), headers=headers, timeout=5)

    bought = buys("7")
    assert bought.status_code == 201
    assert bought.json()["expires_at"] > "2000"
    assert probe(server, bought.json()["token"]).ok
    assert buys("8").status_code == 404
    assert buys("7", exp=now + 3600).status_code == 401, "GitHub takes ten minutes at the most"
    assert buys("7", iat=now + 3600).status_code == 401
    assert buys("7", key=RSAKey.generate_key(2048)).status_code == 401


# --- What people approve

BACK = "https://airflow.example/oauth-guard/callback"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
APPROVED = ("refresh_token", "authorization_code", DEVICE_CODE)
VERIFIER = "planted-verifier-0123456789-0123456789-0123456789"


def s256(verifier: str = VERIFIER) -> dict[str, str]:
    digest = hashlib.sha256(verifier.encode()).digest()
    return {
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }


def asking(server: AuthorizationServer, name: str, **changes: str | None) -> str:
    """The address a client would send a person to; None leaves a parameter out."""
    asked = {"response_type": "code", "client_id": name, "redirect_uri": BACK, "state": "st", **s256(), **changes}
    return f"{server.authorization_url}?{urlencode({key: text for key, text in asked.items() if text is not None})}"


def brought(location: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(location).query))


def exchange_code(server: AuthorizationServer, name: str, code: str, **changes: str | None) -> requests.Response:
    asked = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": VERIFIER}
    form = {key: text for key, text in {**asked, **changes}.items() if text is not None}
    return HTTP.post(server.token_url, data=form, auth=(name, SECRET), timeout=5)


@pytest.fixture
def approved(server: AuthorizationServer, name: str) -> Callable[..., str]:
    """A code that a person has just approved, for a client with these settings."""

    def approve(user: str = "ada", *, url: dict[str, str | None] | None = None, **settings: Any) -> str:
        server.add_client(name, grant_types=APPROVED, redirect_uris=[BACK], **settings)
        return brought(server.approve(asking(server, name, **(url or {})), user))["code"]

    return approve


@pytest.mark.rfc("6749", "4.1")
def test_a_person_is_shown_who_asks_for_what_and_is_sent_back_with_a_code(
    server: AuthorizationServer, name: str
) -> None:
    server.add_client(name, grant_types=APPROVED, redirect_uris=[BACK], scope="read write", secret_prefix="acme-")
    url = asking(server, name, scope="read")
    page = HTTP.get(url, timeout=5)
    assert page.status_code == 200
    assert all(shown in page.text for shown in (name, "<code>read</code>", BACK, ">Approve<", ">Deny<"))
    location = server.approve(url, "grace")
    assert location.startswith(f"{BACK}?")
    assert brought(location).keys() == {"code", "state", "iss"}
    assert (brought(location)["state"], brought(location)["iss"]) == ("st", server.url)
    answer = exchange_code(server, name, brought(location)["code"])
    body = answer.json()
    assert (answer.status_code, body["scope"]) == (200, "read")
    assert body["access_token"].startswith("acme-at-")
    assert probe(server, body["access_token"]).json()["id"] == "grace"
    assert refresh(server, name, body["refresh_token"]).ok


@pytest.mark.rfc("6749", "4.1.2.1")
def test_a_person_who_denies_is_sent_back_with_an_error(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, grant_types=APPROVED, redirect_uris=[BACK])
    back = brought(server.approve(asking(server, name), deny=True))
    assert (back["error"], back["state"], back["iss"]) == ("access_denied", "st", server.url)
    assert "code" not in back


@pytest.mark.rfc("6749", "4.1.2.1")
@pytest.mark.parametrize(
    ("changes", "status"),
    [({"redirect_uri": "https://evil.example"}, 400), ({"redirect_uri": None}, 400), ({"client_id": "nobody"}, 401)],
)
def test_nobody_is_sent_to_an_address_that_is_not_registered(
    server: AuthorizationServer, name: str, changes: dict[str, str | None], status: int
) -> None:
    server.add_client(name, grant_types=APPROVED, redirect_uris=[BACK])
    for answer in (
        HTTP.get(asking(server, name, **changes), timeout=5, allow_redirects=False),
        HTTP.post(asking(server, name, **changes), data={"decision": "approve"}, timeout=5, allow_redirects=False),
    ):
        assert (answer.status_code in (400, status), "Location" in answer.headers) == (True, False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "everything"}, "invalid_scope"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_a_request_that_cannot_be_granted_goes_back_at_once(
    server: AuthorizationServer, name: str, changes: dict[str, str | None], error: str
) -> None:
    server.add_client(name, grant_types=APPROVED, redirect_uris=[BACK], require_pkce=True)
    answer = HTTP.get(asking(server, name, **changes), timeout=5, allow_redirects=False)
    back = brought(answer.headers["Location"])
    assert (answer.status_code, back["error"], back["iss"]) == (302, error, server.url)


def test_a_client_without_the_grant_gets_no_code(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, redirect_uris=[BACK])
    assert brought(server.approve(asking(server, name)))["error"] == "unauthorized_client"
    assert exchange_code(server, name, "code").json()["error"] == "unsupported_grant_type"


@pytest.mark.rfc("6749", "4.1.3")
@pytest.mark.parametrize(
    "changes",
    [{"code": "made-up"}, {"redirect_uri": "https://airflow.example"}, {"code_verifier": VERIFIER[::-1]}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_code_is_good_for_its_own_flow_only(
    server: AuthorizationServer, name: str, approved: Callable[..., str], changes: dict[str, str]
) -> None:
    code = approved()
    answer = exchange_code(server, name, **{"code": code, **changes})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


@pytest.mark.rfc("7636", "4.6")
def test_a_verifier_is_asked_for_where_there_was_a_challenge_and_nowhere_else(
    server: AuthorizationServer, name: str, approved: Callable[..., str]
) -> None:
    assert exchange_code(server, name, approved(), code_verifier=None).json()["error"] == "invalid_request"
    unchallenged: dict[str, str | None] = {"code_challenge": None, "code_challenge_method": None}
    assert exchange_code(server, name, approved(url=unchallenged)).json()["error"] == "invalid_request"
    assert exchange_code(server, name, approved(url=unchallenged), code_verifier=None).ok


@pytest.mark.rfc("6749", "4.1.2")
def test_a_code_that_comes_again_ends_what_the_first_one_brought(
    server: AuthorizationServer, name: str, approved: Callable[..., str]
) -> None:
    code = approved()
    body = exchange_code(server, name, code).json()
    assert server.truth(name).grant_live
    assert exchange_code(server, name, code).json()["error"] == "invalid_grant"
    truth = server.truth(name)
    assert (truth.grant_live, truth.access_token_live) == (False, False)
    assert probe(server, body["access_token"]).status_code == 401


def test_a_code_lives_for_a_minute(server: AuthorizationServer, name: str, approved: Callable[..., str]) -> None:
    code = approved()
    server.advance(timedelta(seconds=61))
    assert exchange_code(server, name, code).json()["error"] == "invalid_grant"


def test_another_clients_code_is_worth_nothing(
    server: AuthorizationServer, name: str, approved: Callable[..., str]
) -> None:
    code = approved()
    server.add_client(f"{name}-other", grant_types=APPROVED, redirect_uris=[BACK])
    assert exchange_code(server, f"{name}-other", code).json()["error"] == "invalid_grant"
    assert exchange_code(server, name, code).ok


def test_the_authorization_page_can_fail_too(server: AuthorizationServer, name: str) -> None:
    server.add_client(name, grant_types=APPROVED, redirect_uris=[BACK])
    server.fault("status", path="/oauth/authorize", times=1)
    assert HTTP.get(asking(server, name), timeout=5).status_code == 503
    assert HTTP.get(asking(server, name), timeout=5).status_code == 200


def begun(server: AuthorizationServer, name: str, **settings: Any) -> dict[str, Any]:
    """A device's invitation."""
    server.add_client(name, **{"grant_types": APPROVED, **settings})
    answer = HTTP.post(server.device_authorization_url, auth=(name, SECRET), timeout=5)
    assert answer.status_code == 200
    return dict(answer.json())


def poll(server: AuthorizationServer, name: str, device_code: str) -> requests.Response:
    form = {"grant_type": DEVICE_CODE, "device_code": device_code}
    return HTTP.post(server.token_url, data=form, auth=(name, SECRET), timeout=5)


@pytest.mark.rfc("8628", "3.4")
def test_a_device_gets_its_tokens_once_a_person_has_approved(server: AuthorizationServer, name: str) -> None:
    invited = begun(server, name, secret_prefix="acme-", device_interval=timedelta(seconds=2))
    assert (invited["interval"], invited["expires_in"]) == (2, 600)
    assert invited["device_code"].startswith("acme-device-")
    page = HTTP.get(invited["verification_uri_complete"], timeout=5)
    assert (page.status_code, name in page.text, invited["user_code"] in page.text) == (200, True, True)
    assert poll(server, name, invited["device_code"]).json()["error"] == "authorization_pending"
    server.approve_device(invited["user_code"].lower(), "grace")
    body = poll(server, name, invited["device_code"]).json()
    assert probe(server, body["access_token"]).json()["id"] == "grace"
    assert refresh(server, name, body["refresh_token"]).ok
    assert poll(server, name, invited["device_code"]).json()["error"] == "invalid_grant"


@pytest.mark.rfc("8628", "3.5")
def test_a_device_that_asks_too_often_has_to_wait_longer(server: AuthorizationServer, name: str) -> None:
    device = begun(server, name, device_interval=timedelta(seconds=60))["device_code"]
    errors = []
    for seconds in (0, 30, 62, 72):
        server.advance(timedelta(seconds=seconds))
        errors.append(poll(server, name, device).json()["error"])
    # It waits for 60 seconds, after the first haste for 65, after the second for 70.
    assert errors == ["authorization_pending", "slow_down", "slow_down", "authorization_pending"]


def test_a_device_waits_for_ten_minutes(server: AuthorizationServer, name: str) -> None:
    invited = begun(server, name)
    server.advance(timedelta(minutes=11))
    assert poll(server, name, invited["device_code"]).json()["error"] == "expired_token"
    with pytest.raises(AdminError, match="404"):
        server.approve_device(invited["user_code"])


def test_a_person_may_deny_a_device(server: AuthorizationServer, name: str) -> None:
    invited = begun(server, name)
    server.approve_device(invited["user_code"], deny=True)
    assert poll(server, name, invited["device_code"]).json()["error"] == "access_denied"


def test_only_a_client_with_the_grant_may_begin_with_a_device(server: AuthorizationServer, name: str) -> None:
    server.add_client(name)
    answer = HTTP.post(server.device_authorization_url, auth=(name, SECRET), timeout=5)
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")
    assert HTTP.post(server.device_authorization_url, auth=(name, "wrong"), timeout=5).status_code == 401
