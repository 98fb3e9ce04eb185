from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.settings import ALGORITHMS, GrantSettings
from airflow_oauth_guard.grants.token_request import CLIENT_ASSERTION_LIFETIME_SECONDS, post_token_request, signed
from tests.unit.domain.builders import NOW

if TYPE_CHECKING:
    from airflow_oauth_guard.grants.flow import HttpRequest

RSA, P256, P384, ED25519 = (
    RSAKey.generate_key(2048),
    ECKey.generate_key("P-256"),
    ECKey.generate_key("P-384"),
    OKPKey.generate_key("Ed25519"),
)
KEYS = {"ES256": P256, "ES384": P384, "EdDSA": ED25519}
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SENT = {"grant_type": "refresh_token", "refresh_token": "rt-1 &=+/", "scope": ""}


def settings(**changes: Any) -> GrantSettings:
    known = {
        "conn_id": "crm_prod",
        "token_url": "https://id.example/token",
        "client_id": "app",
        "client_secret": "s3cret",
    }
    return GrantSettings(**(known | changes))


def post(**changes: Any) -> HttpRequest:
    return post_token_request(settings(**changes), SENT, NOW)


def form(request: HttpRequest) -> dict[str, str]:
    return dict(parse_qsl(request.content.decode(), keep_blank_values=True, strict_parsing=True))


@pytest.mark.rfc("6749", "2.3.1")
@pytest.mark.rfc("7617", "2")
def test_basic_authentication_goes_into_the_header_and_nowhere_else():
    request = post()
    encoded = base64.b64encode(b"app:s3cret").decode()
    assert request.method == "POST"
    assert request.url == "https://id.example/token"
    assert request.headers == {
        "Accept": "application/json",
        "Authorization": f"Basic {encoded}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    assert form(request) == {"grant_type": "refresh_token", "refresh_token": "rt-1 &=+/"}
    assert set(request.secrets) == {"s3cret", "rt-1 &=+/", encoded}
    assert request.shape.client_auth == "client_secret_basic"


@pytest.mark.rfc("6749", "2.3.1")
def test_a_secret_in_the_body_is_in_no_header():
    request = post(client_auth="client_secret_post")
    assert "Authorization" not in request.headers
    assert form(request) == {
        "grant_type": "refresh_token",
        "refresh_token": "rt-1 &=+/",
        "client_id": "app",
        "client_secret": "s3cret",
    }
    assert set(request.secrets) == {"s3cret", "rt-1 &=+/"}


@pytest.mark.rfc("6749", "2.1")
def test_a_public_client_names_itself_and_sends_no_secret():
    request = post(client_auth="none", client_secret="")
    assert "Authorization" not in request.headers
    assert form(request) == {"grant_type": "refresh_token", "refresh_token": "rt-1 &=+/", "client_id": "app"}
    assert request.secrets == ("rt-1 &=+/",)


@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post", "none", "private_key_jwt"])
def test_a_json_body_carries_what_a_form_would(client_auth):
    pem = RSA.as_pem(private=True).decode()
    request = post(client_auth=client_auth, private_key=pem, body_format="json")
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.content).keys() == form(post(client_auth=client_auth, private_key=pem)).keys()
    assert json.loads(request.content)["refresh_token"] == "rt-1 &=+/"
    assert request.shape.body_format == "json"


def test_an_assertion_that_speaks_for_the_client_stands_alone():
    request = post_token_request(settings(), {"grant_type": "x", "assertion": "a.b.c"}, NOW, authenticate=False)
    assert form(request) == {"grant_type": "x", "assertion": "a.b.c"}
    assert "Authorization" not in request.headers
    assert request.shape.client_auth == "none"
    assert "a.b.c" in request.secrets


@pytest.mark.parametrize("secret", ["pa:ss", "p\u00e4ss", "p\u00e4\u00df\u2713", "\U0001f511"])
def test_no_secret_is_too_strange_to_be_sent_or_refused_by_name(secret):
    """Whatever happens, no exception of an encoder may carry the secret into a log."""
    try:
        request = post(client_secret=secret)
    except Exception as error:
        refused = error
    else:
        basic = request.headers["Authorization"].removeprefix("Basic ")
        assert base64.b64decode(basic).startswith(b"app:")
        return
    assert isinstance(refused, ConnectionFieldError)
    assert refused.field == "client_secret"
    assert secret not in str(refused)


# -- private_key_jwt ----------------------------------------------------------------------------------------------


def assertion_of(request: HttpRequest, algorithm: str = "RS256") -> jwt.Token:
    return jwt.decode(form(request)["client_assertion"], KEYS.get(algorithm, RSA), algorithms=[algorithm])


def signed_post(algorithm: str = "RS256", **changes: Any) -> HttpRequest:
    pem = KEYS.get(algorithm, RSA).as_pem(private=True).decode()
    return post(client_auth="private_key_jwt", client_secret="", private_key=pem, algorithm=algorithm, **changes)


@pytest.mark.rfc("7523", "2.2")
@pytest.mark.rfc("7523", "3")
def test_a_client_assertion_verifies_and_says_who_whom_when_and_once():
    request = signed_post(key_id="key-7")
    token = assertion_of(request)
    now = int(NOW.timestamp())
    assert {name: token.claims[name] for name in ("iss", "sub", "aud", "iat", "exp")} == {
        "iss": "app",
        "sub": "app",
        "aud": "https://id.example/token",
        "iat": now,
        "exp": now + CLIENT_ASSERTION_LIFETIME_SECONDS,
    }
    assert token.header["kid"] == "key-7"
    assert token.claims["jti"] != assertion_of(signed_post()).claims["jti"]
    assert form(request)["client_assertion_type"] == ASSERTION_TYPE
    assert "client_secret" not in form(request)
    assert "Authorization" not in request.headers


@pytest.mark.rfc("7523", "3")
def test_the_audience_can_be_set_and_the_key_id_left_out():
    token = assertion_of(signed_post(audience="https://id.example"))
    assert token.claims["aud"] == "https://id.example"
    assert "kid" not in token.header


@pytest.mark.rfc("7518", "3.1")
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by RFC 9864; providers still ask for it
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_on_offer_signs(algorithm):
    assert assertion_of(signed_post(algorithm), algorithm).header["alg"] == algorithm


def test_the_assertion_and_the_key_count_as_secrets():
    request = signed_post()
    assert form(request)["client_assertion"] in request.secrets
    assert RSA.as_pem(private=True).decode() in request.secrets


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        ("s3cret-nonsense", "RS256"),
        ("-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----", "RS256"),
        ('{"kty": "RSA", "n": "s3cret"}', "RS256"),
        (P256.as_pem(private=True).decode(), "RS256"),
        (P256.as_pem(private=True).decode(), "ES384"),
        (RSA.as_pem(private=True).decode(), "ES256"),
        (RSA.as_pem(private=False).decode(), "RS256"),
    ],
    ids=["text", "broken pem", "broken jwk", "ec for rsa", "another curve", "rsa for ec", "public key"],
)
def test_a_key_that_cannot_sign_is_an_error_about_the_field_that_does_not_quote_it(key, algorithm):
    with pytest.raises(ConnectionFieldError, match=f"`private_key` cannot sign with {algorithm}") as caught:
        post(client_auth="private_key_jwt", private_key=key, algorithm=algorithm)
    assert caught.value.field == "private_key"
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_error_while_signing_is_named_by_its_kind_only():
    def fail() -> str:
        raise KeyError("s3cret")

    with pytest.raises(ConnectionFieldError, match="KeyError") as caught:
        signed(settings(), fail)
    assert "s3cret" not in str(caught.value)
