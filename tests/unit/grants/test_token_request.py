from __future__ import annotations

import base64
import hashlib
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree as ET

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from airflow_oauth_guard.domain.answers import answer_id
from airflow_oauth_guard.domain.redaction import redact_text
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.introspection import introspection_request
from airflow_oauth_guard.grants.settings import ALGORITHMS, GrantSettings, ProviderFacts
from airflow_oauth_guard.grants.token_request import CLIENT_ASSERTION_LIFETIME_SECONDS, signed, token_request
from tests.unit.domain.builders import NOW, parameters_of, refusal
from tests.unit.grants.certificates import certificate, pem

if TYPE_CHECKING:
    from airflow_oauth_guard.grants.flow import HttpRequest

RSA, P256, P384, ED25519 = (
    RSAKey.generate_key(2048),
    ECKey.generate_key("P-256"),
    ECKey.generate_key("P-384"),
    OKPKey.generate_key("Ed25519"),
)
HMAC = OctKey.import_key("hmac-s3cret" * 10)
KEYS = {"ES256": P256, "ES384": P384, "EdDSA": ED25519} | dict.fromkeys(["HS256", "HS384", "HS512"], HMAC)
PRIVATE = RSA.as_pem(private=True).decode()
CERTIFICATE = certificate(load_pem_private_key(PRIVATE.encode(), None))
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
    return token_request(settings(**changes), SENT, NOW)


def from_preset(how: dict[str, Any] | None = None, **facts: Any) -> HttpRequest:
    """A request as a provider's facts change it."""
    return post(**{"client_auth": "client_secret_post", "facts": ProviderFacts(**facts), **(how or {})})


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


@pytest.mark.parametrize(
    "client_auth",
    ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "tls_client_auth", "none"],
)
def test_a_json_body_carries_what_a_form_would(client_auth):
    how = {"client_auth": client_auth, "private_key": PRIVATE, "client_secret": SECRET}
    request = post(**how, body_format="json")
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.content).keys() == form(post(**how)).keys()
    assert json.loads(request.content)["refresh_token"] == "rt-1 &=+/"
    assert request.shape.body_format == "json"


def test_an_assertion_that_speaks_for_the_client_stands_alone():
    request = token_request(settings(), {"grant_type": "x", "assertion": "a.b.c"}, NOW, authenticate=False)
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
    key = KEYS.get(algorithm, RSA)
    held = key.raw_value.decode() if isinstance(key, OctKey) else key.as_pem(private=True).decode()
    return post(client_auth="private_key_jwt", client_secret="", private_key=held, algorithm=algorithm, **changes)


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
    assert PRIVATE in request.secrets


@pytest.mark.rfc("7523", "3")
def test_an_assertion_lives_no_longer_than_the_provider_takes_it_and_carries_what_it_wants():
    facts = ProviderFacts(assertion_lifetime=timedelta(seconds=60), claims={"realm": "dsp", "who": "{client_id}"})
    token = assertion_of(signed_post(facts=facts))
    assert token.claims["exp"] - token.claims["iat"] == 60
    assert (token.claims["realm"], token.claims["who"], token.claims["iss"]) == ("dsp", "app", "app")
    long = ProviderFacts(assertion_lifetime=timedelta(hours=1))
    token = assertion_of(signed_post(facts=long))
    assert token.claims["exp"] - token.claims["iat"] == CLIENT_ASSERTION_LIFETIME_SECONDS


@pytest.mark.rfc("7515", "4.1.7")
@pytest.mark.rfc("7515", "4.1.8")
def test_the_thumbprints_in_an_assertions_header_are_those_of_the_certificate():
    header = assertion_of(signed_post(certificate=pem(CERTIFICATE), key_id="key-7")).header
    for name, by in {"x5t": hashes.SHA1(), "x5t#S256": hashes.SHA256()}.items():
        padded = header[name] + "=" * (-len(header[name]) % 4)
        assert base64.urlsafe_b64decode(padded) == CERTIFICATE.fingerprint(by)
        assert "=" not in header[name]
    der = CERTIFICATE.public_bytes(Encoding.DER)
    assert base64.urlsafe_b64decode(header["x5t#S256"] + "=") == hashlib.sha256(der).digest()
    assert header["kid"] == "key-7"
    assert "x5t" not in assertion_of(signed_post()).header


def test_a_certificate_that_is_none_is_an_error_about_its_field():
    with pytest.raises(ConnectionFieldError, match="`certificate` is no certificate in PEM form"):
        signed_post(certificate="s3cret nonsense")


# -- client_secret_jwt --------------------------------------------------------------------------------------------

SECRET = "a-secret-of-more-than-thirty-two-octets-and-of-64-for-hs512-as-well"


@pytest.mark.rfc("7523", "2.2")
@pytest.mark.rfc("7518", "3.2")
@pytest.mark.parametrize(
    ("algorithm", "signs_with"), [("RS256", "HS256"), ("HS256", "HS256"), ("HS384", "HS384"), ("HS512", "HS512")]
)
def test_a_client_that_shares_a_secret_signs_with_it_and_does_not_send_it(algorithm, signs_with):
    request = post(client_auth="client_secret_jwt", client_secret=SECRET, algorithm=algorithm)
    sent, now = form(request), int(NOW.timestamp())
    token = jwt.decode(sent["client_assertion"], OctKey.import_key(SECRET), algorithms=[signs_with])
    assert {name: token.claims[name] for name in ("iss", "sub", "aud", "iat", "exp")} == {
        "iss": "app",
        "sub": "app",
        "aud": "https://id.example/token",
        "iat": now,
        "exp": now + CLIENT_ASSERTION_LIFETIME_SECONDS,
    }
    assert sent["client_assertion_type"] == ASSERTION_TYPE
    assert SECRET not in f"{request.url}{request.headers}{request.content!r}"
    assert {SECRET, sent["client_assertion"]} <= set(request.secrets)
    assert request.shape.client_auth == "client_secret_jwt"


def test_no_two_assertions_of_a_shared_secret_are_the_same():
    one, other = (form(post(client_auth="client_secret_jwt", client_secret=SECRET)) for _ in range(2))
    assert one["client_assertion"] != other["client_assertion"]


def test_another_secret_does_not_verify_the_assertion():
    assertion = form(post(client_auth="client_secret_jwt", client_secret=SECRET))["client_assertion"]
    with pytest.raises(Exception, match="bad_signature"):
        jwt.decode(assertion, OctKey.import_key(SECRET[::-1]), algorithms=["HS256"])


# -- tls_client_auth ----------------------------------------------------------------------------------------------


@pytest.mark.rfc("8705", "2")
@pytest.mark.rfc("8705", "2.1")
def test_a_client_of_tls_names_itself_in_the_body_and_proves_it_by_its_certificate():
    request = post(client_auth="tls_client_auth", client_secret="", private_key=PRIVATE, certificate=pem(CERTIFICATE))
    assert form(request) == {"grant_type": "refresh_token", "refresh_token": "rt-1 &=+/", "client_id": "app"}
    assert "Authorization" not in request.headers
    assert request.client_certificate == f"{pem(CERTIFICATE).strip()}\n{PRIVATE.strip()}\n"
    assert x509.load_pem_x509_certificate(request.client_certificate.encode()) == CERTIFICATE
    assert PRIVATE in request.secrets
    assert "PRIVATE KEY" not in repr(request)
    assert request.shape.client_auth == "tls_client_auth"


# -- what a provider's facts change -------------------------------------------------------------------------------


def test_a_provider_may_call_a_standard_parameter_something_else_or_not_take_it():
    request = from_preset(names={"client_id": "client_key", "refresh_token": "token", "grant_type": ""})
    assert form(request) == {"client_key": "app", "client_secret": "s3cret", "token": "rt-1 &=+/"}
    assert request.shape.parameters == ("client_key", "client_secret", "token")
    assert {"s3cret", "rt-1 &=+/"} <= set(request.secrets)


def test_a_parameter_with_another_name_is_as_public_or_as_secret_as_before():
    names = {"client_id": "appKey", "client_secret": "appSecret", "grant_type": "what", "refresh_token": "scope"}
    request = from_preset(names=names)
    assert form(request)["appKey"] == "app"
    assert set(request.secrets) == {"s3cret", "rt-1 &=+/"}


def test_a_provider_may_want_more_parameters_and_headers_filled_from_the_connection():
    request = from_preset(
        parameters={"type": "refresh", "secret_id": "{client_id}", "who": "{username}", "none": "", "odd": "{nobody}"},
        headers={"X-Version": "7", "X-Key": "{client_secret}", "Accept": "application/vnd.x+json"},
        how={"username": "ann"},
    )
    sent = form(request)
    assert (sent["type"], sent["secret_id"], sent["who"], sent["odd"]) == ("refresh", "app", "ann", "{nobody}")
    assert "none" not in sent
    assert (request.headers["X-Version"], request.headers["X-Key"]) == ("7", "s3cret")
    assert request.headers["Accept"] == "application/vnd.x+json"
    assert sent["grant_type"] == "refresh_token"
    assert "s3cret" in request.secrets


def test_a_class_own_parameters_cannot_be_overruled_by_a_provider():
    assert form(from_preset(parameters={"grant_type": "password"}))["grant_type"] == "refresh_token"


def test_a_header_that_holds_a_secret_counts_as_one_whole():
    request = from_preset(headers={"Authorization": "Bearer {client_secret}", "X-Key": "key={client_secret}"})
    assert request.headers["Authorization"] == "Bearer s3cret"
    assert {"s3cret", "key=s3cret"} <= set(request.secrets)


def test_what_everybody_may_know_is_not_blotted_out_of_what_the_provider_says():
    """Evidence is read by people: "the refresh token has expired" must not lose its "refresh" to a parameter."""
    request = from_preset(parameters={"type": "refresh", "audience": "expired"})
    said = "the refresh token of app has expired"
    assert redact_text(said, request.secrets) == said
    assert answer_id(refusal("x", said), request.secrets) == answer_id(refusal("x", said))


@pytest.mark.rfc("7662", "2.1")
def test_an_introspection_asks_about_the_token_in_the_clients_name():
    facts = ProviderFacts(introspection_url="https://id.example/introspect", names={"client_id": "odd"})
    request = introspection_request(settings(facts=facts, body_format="json"), "rt-s3cret", "refresh_token", NOW)
    assert (request.method, request.url) == ("POST", "https://id.example/introspect")
    assert form(request) == {"token": "rt-s3cret", "token_type_hint": "refresh_token"}
    assert request.headers["Authorization"].startswith("Basic ")
    assert "rt-s3cret" in request.secrets
    assert "refresh_token" not in request.secrets
    assert "s3cret" not in repr(request)


HOSTILE = ['"}, {"a": "', "</p><p>&amp;'\"", "{client_id}", "\\", "a&b=c", "%26", "\n", "\u20ac\U0001f511", "]]>"]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_query_holds_every_value_as_it_is(method, hostile):
    request = from_preset({"body_format": "query", "client_secret": hostile}, method=method)
    assert request.content == b""
    assert request.method == method
    assert dict(parse_qsl(urlsplit(request.url).query, strict_parsing=True)) == {
        "grant_type": "refresh_token",
        "refresh_token": "rt-1 &=+/",
        "client_id": "app",
        "client_secret": hostile,
    }
    assert "Content-Type" not in request.headers
    assert request.shape.endpoint == "https://id.example/token"
    assert hostile in request.secrets


def test_a_query_is_put_after_the_one_the_token_url_has():
    request = from_preset({"body_format": "query", "token_url": "https://id.example/token?version=2#top"})
    assert parameters_of(request)[0] == ("version", "2")
    assert request.shape.parameters == ("client_id", "client_secret", "grant_type", "refresh_token", "version")


@pytest.mark.rfc("9110", "9.3.1")
@pytest.mark.parametrize("body_format", ["form", "json", "query"])
def test_a_get_has_no_body_whatever_the_format(body_format):
    request = from_preset({"body_format": body_format}, method="GET")
    assert request.content == b""
    assert dict(parameters_of(request))["refresh_token"] == "rt-1 &=+/"
    assert request.shape.body_format == "query"


JSON_BODY = (
    '{"auth": {"login": "{username}", "password": "{password}", "key": "{client_secret}"}, "n": 7, "kept": "{x}"}'
)
XML_BODY = '<auth key="{client_secret}"><login>{username}</login><password>{password}</password><kept>{x}</kept></auth>'


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_json_body_of_the_providers_own_holds_every_value_escaped(hostile):
    how = {"username": hostile, "user_password": hostile, "client_secret": "s3cret", "body_format": "json"}
    request = from_preset({**how, "client_auth": "none"}, body=JSON_BODY)
    assert json.loads(request.content) == {
        "auth": {"login": hostile, "password": hostile, "key": "s3cret"},
        "n": 7,
        "kept": "{x}",
    }
    assert request.headers["Content-Type"] == "application/json"
    assert {hostile, "s3cret"} <= set(request.secrets)


@pytest.mark.parametrize("hostile", [value for value in HOSTILE if value != "\n"])
def test_an_xml_body_of_the_providers_own_holds_every_value_escaped(hostile):
    how = {"username": hostile, "user_password": hostile, "client_secret": hostile, "body_format": "xml"}
    request = from_preset({**how, "client_auth": "none"}, body=XML_BODY)
    root = ET.fromstring(request.content)
    assert [element.text for element in root] == [hostile, hostile, "{x}"]
    assert root.get("key") == hostile
    assert request.headers["Content-Type"] == "application/xml"
    assert hostile in request.secrets


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_no_value_breaks_out_of_a_body_or_a_query(value):
    how = {"username": value, "user_password": value, "client_secret": "s3cret", "client_auth": "none"}
    request = from_preset({**how, "body_format": "json"}, body=JSON_BODY)
    assert json.loads(request.content)["auth"] == {"login": value, "password": value, "key": "s3cret"}
    query = from_preset({**how, "body_format": "query"}, parameters={"p": "{password}"})
    assert dict(parameters_of(query))["p"] == value
    plain = from_preset({**how, "body_format": "json"}, parameters={"p": "{password}"})
    assert json.loads(plain.content)["p"] == value


def test_xml_without_a_body_of_the_providers_own_cannot_be_written():
    with pytest.raises(ConnectionFieldError, match="`body_format` is xml, for which the provider's preset has no"):
        from_preset({"body_format": "xml"})


def test_a_providers_own_content_type_stays():
    request = from_preset({"body_format": "json"}, headers={"Content-Type": "application/vnd.api+json"})
    assert request.headers["Content-Type"] == "application/vnd.api+json"


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
