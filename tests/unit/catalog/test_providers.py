"""Every file that is shipped: it can be read, every fact has its source, and it makes a request that could be sent."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from airflow_oauth_guard.catalog.catalog import SHIPPED, SUFFIX, Catalog
from airflow_oauth_guard.catalog.preset import CONNECTION_FIELDS, PROBE_FIELDS, Preset
from airflow_oauth_guard.catalog.presetting import PARAMS, with_preset
from airflow_oauth_guard.domain.answers import read_body, said
from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.domain.vocabulary import ErrorRule
from airflow_oauth_guard.grants.authorization_code import authorization_url, challenge, code_request
from airflow_oauth_guard.grants.classes import GRANT_CLASSES
from airflow_oauth_guard.grants.flow import Grant, HttpRequest
from airflow_oauth_guard.grants.probe import probe_request
from airflow_oauth_guard.grants.settings import PLACE, read_settings
from tests.unit.domain.builders import NOW, http, parameters_of
from tests.unit.grants.certificates import certificate, pem

CATALOG = Catalog()
NAMES = CATALOG.names
EVERY_PROVIDER = pytest.mark.parametrize("name", NAMES)

WITHOUT_A_PROBE = {
    "etsy": "every request wants the app's shared secret beside the token",
    "paylocity": "every address wants the company's own number in its path",
}
"""Why nobody can look whether their tokens live. A file may say so itself, in a comment that begins "# No probe:"."""


def grants_of(names: list[str]) -> list[tuple[str, str]]:
    """Provider and class. A file that cannot be read has none here, and fails its own test."""
    found = []
    for name in names:
        raw = yaml.safe_load((SHIPPED / f"{name}{SUFFIX}").read_text(encoding="utf-8"))
        found += [(name, connection_class) for connection_class in (raw or {}).get("grants") or {}]
    return found


EVERY_GRANT = pytest.mark.parametrize(("name", "connection_class"), grants_of(NAMES))


# -- the files ------------------------------------------------------------------------------------------------------


class Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, which YAML forbids and its loader takes."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key stands twice in {keys}"
        return super().construct_mapping(node, deep)


def raw(name: str) -> dict[str, Any]:
    document = yaml.load((SHIPPED / f"{name}{SUFFIX}").read_text(encoding="utf-8"), Strict)
    assert isinstance(document, dict)
    return document


def test_there_are_providers_and_nothing_else_in_the_folder():
    assert len(NAMES) > 40
    assert {path.suffix for path in SHIPPED.iterdir()} == {SUFFIX}
    assert all(re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name) for name in NAMES)


@EVERY_PROVIDER
def test_a_file_is_valid_and_says_nothing_twice(name):
    preset = CATALOG.get(name)
    assert preset.name == name
    assert list(preset.grants) == list(raw(name)["grants"])
    assert preset.title == preset.title.strip()


@EVERY_PROVIDER
def test_a_class_of_connection_that_a_provider_has_is_one_there_is(name):
    assert set(CATALOG.get(name).grants) <= set(GRANT_CLASSES)


def sections(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = [(f"grants.{key}", value) for key, value in document["grants"].items()]
    found += [(f"endpoints.{key}", value) for key, value in (document.get("endpoints") or {}).items()]
    return [*found, *([("probe", document["probe"])] if document.get("probe") else [])]


@EVERY_PROVIDER
def test_every_fact_names_the_page_it_was_read_from(name):
    """Read from the file itself, not from what the reader made of it."""
    document = raw(name)
    assert document["docs"].startswith("https://")
    for path, section in sections(document):
        own = section.get("sources") or {}
        for fact in section.keys() - {"source", "sources", "notes"}:
            source = own.get(fact, section.get("source"))
            assert is_page(source), f"{path}.{fact} has the source {source!r}"
    for at, rules in (document.get("errors") or {}).items():
        for number, rule in enumerate(rules or []):
            assert is_page(rule.get("source")), f"errors.{at}[{number}] has the source {rule.get('source')!r}"


def is_page(source: Any) -> bool:
    parts = urlsplit(str(source))
    return parts.scheme == "https" and "." in parts.netloc and " " not in str(source)


@EVERY_PROVIDER
def test_the_reader_knows_the_source_of_every_rule_and_every_fact(name):
    preset, document = CATALOG.get(name), raw(name)
    for path, section in sections(document):
        for fact in section.keys() - {"source", "sources", "notes"}:
            assert is_page(preset.sources[f"{path}.{fact}"])
    rules = [f"errors.{at}[{number}]" for at in ("refresh", "probe") for number in range(len(rules_of(preset, at)))]
    assert set(rules) <= set(preset.sources)


def rules_of(preset: Preset, at: str) -> tuple[ErrorRule, ...]:
    return preset.refresh_errors if at == "refresh" else preset.probe_errors


@EVERY_PROVIDER
def test_a_provider_has_a_probe_or_a_reason_for_none(name):
    excused = "# No probe:" in (SHIPPED / f"{name}{SUFFIX}").read_text(encoding="utf-8")
    assert CATALOG.get(name).probe or excused or name in WITHOUT_A_PROBE


def test_no_provider_is_excused_that_has_a_probe_or_is_none():
    assert all(name in NAMES and CATALOG.get(name).probe is None for name in WITHOUT_A_PROBE)


# -- params ---------------------------------------------------------------------------------------------------------


@EVERY_PROVIDER
def test_a_param_is_used_and_can_be_written_on_a_connection(name):
    preset = CATALOG.get(name)
    text = str(raw(name) | {"params": None, "docs": None})
    for key, param in preset.params.items():
        assert f"{{{key}}}" in text, f"{key} is used nowhere"
        assert key not in CONNECTION_FIELDS | PROBE_FIELDS
        assert not set(",\n") & set(param.example), "name=value pairs are parted by commas"
        for value in filter(None, (param.example, param.default)):
            assert not param.choices or value in param.choices
            assert "{" not in value


# -- error rules ----------------------------------------------------------------------------------------------------


@EVERY_PROVIDER
def test_a_rules_code_is_one_that_an_answer_can_give(name):
    preset = CATALOG.get(name)
    for rule in (*preset.refresh_errors, *preset.probe_errors):
        if rule.code:
            heard = said(read_body(http(400, {"error": {"code": rule.code}}).body))
            assert rule.code.lower() in heard.codes, f"{rule.code!r} is read as {heard.codes}"


@EVERY_PROVIDER
def test_a_rule_is_not_hidden_behind_one_that_matches_whatever_it_does(name):
    for at in ("refresh", "probe"):
        broader: dict[str, ErrorRule] = {}
        for rule in rules_of(CATALOG.get(name), at):
            earlier = broader.get(rule.code.lower()) if rule.code else None
            # A failing server's answers are read by the rules for just its status, wherever they stand.
            own_status = rule.status is not None and rule.status >= 500
            hidden = earlier is not None and earlier.status in (None, rule.status) and not own_status
            assert not hidden, f"{at}: {rule} comes after {earlier}"
            if rule.code and rule.says is None:
                broader[rule.code.lower()] = rule


@EVERY_PROVIDER
def test_a_rule_says_something_and_none_is_a_sign_of_life(name):
    preset = CATALOG.get(name)
    for rule in (*preset.refresh_errors, *preset.probe_errors):
        assert rule.finding not in (Finding.LIVE, Finding.AMBIGUOUS)
        assert rule.code or rule.says
        anything = rule.says is not None and rule.says.search("") is not None
        assert not anything or rule.code or rule.status, f"{rule} matches everything"
        assert rule.status is None or 200 <= rule.status < 1000


@EVERY_PROVIDER
def test_a_token_endpoint_speaks_of_grants_and_not_of_access_tokens(name):
    assert Finding.ACCESS_TOKEN_DEAD not in {rule.finding for rule in CATALOG.get(name).refresh_errors}


HOSTILE = ("a token expired ", "refresh token is ", "invalid ", "account user ", "x", "-", "client app ", "the ", "1")


@EVERY_PROVIDER
def test_no_rule_of_a_provider_can_be_kept_busy(name):
    """An answer is read while its intent is open."""
    preset = CATALOG.get(name)
    for rule in {
        rule.says.pattern: rule for rule in (*preset.refresh_errors, *preset.probe_errors) if rule.says
    }.values():
        assert rule.says is not None
        for piece in HOSTILE:
            text = (piece * 10_000)[:10_000]
            started = time.process_time()
            rule.says.search(text)
            assert time.process_time() - started < 0.5, rule.says.pattern


# -- requests -------------------------------------------------------------------------------------------------------

RSA_KEY = pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
KEYS = {
    "RS": RSA_KEY,
    "PS": RSA_KEY,
    "HS": "hmac-s3cret" * 10,
    "ES256": pem(ec.generate_private_key(ec.SECP256R1())),
    "ES384": pem(ec.generate_private_key(ec.SECP384R1())),
    "Ed": pem(ed25519.Ed25519PrivateKey.generate()),
}
CERTIFICATE = pem(certificate(load_pem_private_key(RSA_KEY.encode(), None)))


def key_for(algorithm: str) -> str:
    return KEYS.get(algorithm) or KEYS[algorithm[:2] or "RS"]


def connection(preset: Preset, connection_class: str) -> dict[str, Any]:
    """What somebody fills in who has everything this class asks for, and leaves the rest to the preset."""
    facts = preset.grants[connection_class]
    everything = {
        "provider": preset.name,
        PARAMS: ", ".join(f"{name}={param.example}" for name, param in preset.params.items()),
        "client_id": "the-app",
        "client_secret": "cl-s3cret-of-more-than-thirty-two-octets",
        "scopes": "",
        "private_key": key_for(facts.algorithm),
        "certificate": CERTIFICATE if facts.client_auth == "tls_client_auth" else "",
        "issuer": "the-issuer",
        "subject": "the-subject",
        "username": "ann@example.com",
        "user_password": "pw-s3cret-value",
        "account_id": "the-account",
        "subject_token": "st-s3cret-value",
        "assertion": "<saml>s3cret</saml>",
        "access_token": "seed-s3cret-value",
    }
    return {name: value for name, value in everything.items() if name in GRANT_CLASSES[connection_class].fields}


def grant_of(name: str, connection_class: str) -> Grant:
    preset, grant_class = CATALOG.get(name), GRANT_CLASSES[connection_class]
    given = connection(preset, connection_class)
    fields, facts = with_preset("crm_prod", connection_class, given, preset, known=grant_class.fields)
    settings = read_settings("crm_prod", fields, known=grant_class.fields, required=grant_class.required, facts=facts)
    return grant_class(settings)


def check(request: HttpRequest, *, query_is_secret: bool) -> None:
    """Complete, over TLS, to somewhere, and with its secrets where they belong."""
    parts = urlsplit(request.url)
    assert parts.scheme == "https"
    assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?", parts.netloc.lower()), parts.netloc
    assert parts.path
    assert "//" not in parts.path
    for text in (request.url, *request.headers, *request.headers.values()):
        assert not PLACE.search(text), f"unfilled: {text}"
        assert "s3cret" not in parts.path
    assert query_is_secret or "s3cret" not in parts.query
    assert "s3cret" not in f"{request!r}{request.shape.as_json()}"
    for value in request.headers.values():
        assert value == value.strip() != ""
        value.encode("ascii")


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@EVERY_GRANT
def test_a_connection_that_is_filled_in_makes_a_request_that_could_be_sent(name, connection_class):
    grant = grant_of(name, connection_class)
    request = grant.request("tk-s3cret-value", NOW)
    in_query = request.shape.body_format == "query" or connection_class == "long_lived_token"
    check(request, query_is_secret=in_query)
    assert request.method in ("GET", "POST")
    assert request.method == "POST" or request.content == b""
    if not grant.settings.facts.body and connection_class != "long_lived_token":
        sent = parameters_of(request)
        assert not [text for _, text in sent if PLACE.search(text)]
        names = [key for key, _ in sent]
        assert len(names) == len(set(names)), "a parameter is sent twice"
    assert not re.search(r"\{\w+\}", request.content.decode()) or connection_class == "long_lived_token"
    if grant.sends:
        everything = [*(text for _, text in parameters_of(request)), *request.headers.values()]
        assert any("tk-s3cret-value" in text for text in everything), "the token is not sent"


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@EVERY_GRANT
def test_everything_secret_of_a_connection_is_listed_as_such(name, connection_class):
    grant = grant_of(name, connection_class)
    request = grant.request("tk-s3cret-value", NOW)
    held = {key: value for key, value in connection(CATALOG.get(name), connection_class).items() if "s3cret" in value}
    assert set(held.values()) <= set(request.secrets)
    assert not grant.sends or "tk-s3cret-value" in request.secrets
    assert "the-app" not in request.secrets


@EVERY_GRANT
def test_a_probe_could_be_sent_and_carries_the_token(name, connection_class):
    preset = CATALOG.get(name)
    if preset.probe is None:
        return
    grant = grant_of(name, connection_class)
    request = probe_request(grant.settings, "tk-s3cret-value")
    check(request, query_is_secret="{access_token}" in str(preset.probe.parameters))
    borne = [*request.headers.values(), *(text for _, text in parameters_of_query(request))]
    assert sum("tk-s3cret-value" in text for text in borne) == 1, "the token goes to exactly one place"
    assert request.url.partition("?")[0] != grant.settings.token_url.partition("?")[0]
    assert (request.content != b"") == bool(preset.probe.body)
    assert request.method == preset.probe.method
    assert {"tk-s3cret-value"} <= set(request.secrets)


def parameters_of_query(request: HttpRequest) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(request.url).query, keep_blank_values=True)


@EVERY_GRANT
def test_what_is_needed_for_the_providers_other_addresses_is_needed_for_its_tokens(name, connection_class):
    """Otherwise it stays open, and the address has a hole."""
    facts = grant_of(name, connection_class).settings.facts
    assert not facts.introspection_url or "//." not in facts.introspection_url
    assert "https:///" not in facts.introspection_url


@EVERY_GRANT
def test_a_providers_token_url_is_found_again_by_what_somebody_typed_in(name, connection_class):
    url = grant_of(name, connection_class).settings.token_url
    if not url:
        return
    for typed in (url, url.rstrip("/"), f"{url.rstrip('/')}/", f"{url.partition('?')[0]}?x=y"):
        found = CATALOG.by_token_url(typed)
        assert found is not None, typed
        told = max(literal(facts.token_url) for facts in found[0].grants.values())
        assert told >= literal(CATALOG.get(name).grants[connection_class].token_url), f"taken for {found[0].name}"
        assert set(found[1]) <= set(found[0].params)


def literal(template: str) -> int:
    """How much of an address a preset says itself; several providers may share one to the letter."""
    return len(PLACE.sub("", template))


def test_the_providers_that_a_class_belongs_to_are_in_the_catalog_and_have_that_class():
    for connection_class, grant_class in GRANT_CLASSES.items():
        for fields in ({}, {"product": "threads"}, {"product": "instagram"}):
            own = grant_class.own_provider(fields)
            assert not own or connection_class in CATALOG.get(own).grants


# -- a person's approval ----------------------------------------------------------------------------------------------

APPROVABLE = [
    (name, connection_class)
    for name, connection_class in grants_of(NAMES)
    if GRANT_CLASSES[connection_class].connects and "authorization" in (raw(name).get("endpoints") or {})
]


def test_most_providers_know_where_a_person_approves():
    able = [name for name, connection_class in grants_of(NAMES) if GRANT_CLASSES[connection_class].connects]
    assert len(APPROVABLE) > 0.8 * len(able)


@pytest.mark.parametrize(("name", "connection_class"), APPROVABLE)
def test_a_person_can_be_sent_to_the_provider_and_their_code_exchanged(name, connection_class):
    settings = grant_of(name, connection_class).settings
    url = authorization_url(replace(settings, scopes=("read", "write")), BACK, "the-state", VERIFIER)
    parts = urlsplit(url)
    assert (parts.scheme, PLACE.search(url), "s3cret" in url) == ("https", None, False)
    assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?", parts.netloc.lower()), parts.netloc
    sent = parse_qsl(parts.query, keep_blank_values=True)
    assert len(sent) == len(dict(sent)), "a parameter is sent twice"
    assert {"the-state", BACK, "code"} <= {value for _, value in sent}
    request = code_request(settings, "cd-s3cret-value", BACK, VERIFIER, NOW)
    check(request, query_is_secret=request.shape.body_format == "query")
    everything = [text for _, text in parameters_of(request)]
    assert "cd-s3cret-value" in everything
    assert (VERIFIER in everything) == settings.facts.pkce == (challenge(VERIFIER) in dict(sent).values())
    assert {"cd-s3cret-value"} <= set(request.secrets)


BACK = "https://airflow.example/oauth-guard/callback"
VERIFIER = "vf-s3cret-0123456789-0123456789-0123456789-0123456789"
