from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.saml2_bearer import Saml2BearerGrant
from tests.unit.domain.builders import NOW, grant_of, http, parameters_of, refusal

XML = '<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">s3cret\u00e4~~~???>>></saml:Assertion>'
FIELDS = {"token_url": "https://id.example/token", "assertion": XML}


def sent(assertion: str = XML, **changes: Any) -> dict[str, str]:
    grant = grant_of(Saml2BearerGrant, **(FIELDS | {"assertion": assertion} | changes))
    return dict(parameters_of(grant.request("stored-token", NOW)))


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.rfc("7522", "2.1")
def test_an_assertion_and_nothing_else_asks_for_the_token():
    assert sent(scopes="read write").keys() == {"grant_type", "assertion", "scope"}
    assert sent()["grant_type"] == "urn:ietf:params:oauth:grant-type:saml2-bearer"
    assert decoded(sent()["assertion"]) == XML.encode()


def wrapped(text: str, width: int = 76) -> str:
    """As tools that write MIME do it."""
    return "\r\n".join(text[at : at + width] for at in range(0, len(text), width))


@pytest.mark.rfc("7522", "2.1")
@pytest.mark.rfc("4648", "5")
@pytest.mark.parametrize(
    "given_as",
    [
        XML,
        f"\n {XML}\n",
        base64.b64encode(XML.encode()).decode(),
        base64.urlsafe_b64encode(XML.encode()).decode(),
        base64.urlsafe_b64encode(XML.encode()).decode().rstrip("="),
        wrapped(base64.b64encode(XML.encode()).decode(), 20),
        base64.encodebytes(XML.encode()).decode(),
    ],
    ids=["xml", "xml with white space", "base64", "base64url", "without padding", "wrapped", "mime"],
)
def test_however_an_assertion_is_given_it_is_sent_as_base64url_without_padding_and_line_breaks(given_as):
    assertion = sent(given_as)["assertion"]
    assert decoded(assertion) == XML.encode()
    assert not set("+/=\r\n \t") & set(assertion)


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_every_assertion_comes_out_as_it_went_in(text):
    raw = f"<a>{text}</a>"
    for written in (raw, base64.b64encode(raw.encode()).decode()):
        assert decoded(sent(written)["assertion"]) == raw.encode()


@pytest.mark.parametrize("wrong", ["s3cre", "not base64: s3cret!", "s3cret\u00e4"])
def test_an_assertion_that_is_none_is_an_error_about_its_field_that_does_not_quote_it(wrong):
    with pytest.raises(ConnectionFieldError, match="`assertion` is no SAML assertion") as caught:
        sent(wrong)
    assert "s3cre" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_assertion_counts_as_secret_in_both_its_forms():
    grant = grant_of(Saml2BearerGrant, **FIELDS)
    request = grant.request("", NOW)
    assert {XML, sent()["assertion"]} <= set(request.secrets)
    assert "s3cret" not in f"{request!r}{request.shape.as_json()}{grant.settings!r}"


@pytest.mark.rfc("7522", "2.1")
@pytest.mark.rfc("7521", "4.1")
@pytest.mark.parametrize("named", [True, False])
def test_a_client_proves_itself_where_there_is_one(named):
    client = {"client_id": "app", "client_secret": "cl-s3cret"} if named else {}
    request = grant_of(Saml2BearerGrant, **FIELDS, **client).request("", NOW)
    assert ("Authorization" in request.headers) is named


@pytest.mark.rfc("7521", "4.1.1")
def test_a_rejected_assertion_is_our_own_and_no_dead_grant():
    grant = grant_of(Saml2BearerGrant, **FIELDS)
    assert grant.read(refusal("invalid_grant", "Audience validation failed")).reading.finding is (
        Finding.REQUEST_MALFORMED
    )
    assert grant.read(refusal("invalid_grant")).reading.finding is Finding.REQUEST_MALFORMED
    assert grant.read(http(200, {"access_token": "at-2"})).tokens is not None
    assert Saml2BearerGrant.sends == ""
