"""The authorization code grant: RFC 6749 section 4.1, with PKCE: RFC 7636. How a person connects a credential in a browser;
refreshing goes on without.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from airflow_oauth_guard.grants.flow import HttpRequest
from airflow_oauth_guard.grants.settings import AUTHORIZATION_FIELDS, GrantSettings, filled
from airflow_oauth_guard.grants.token_request import token_request

GRANT_TYPE = "authorization_code"


def new_verifier() -> str:
    """43 characters of 256 random bits (RFC 7636 section 4.1)."""
    return secrets.token_urlsafe(32)


def challenge(verifier: str) -> str:
    """What the provider is shown first, and later compares the verifier with: S256 of RFC 7636 section 4.2."""
    return urlsafe_b64encode(sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def authorization_url(settings: GrantSettings, redirect_uri: str, state: str, verifier: str) -> str:
    """The address to send a person's browser to (RFC 6749 section 4.1.1). It holds no secret of the connection.

    What the address says itself, and after it what the provider's preset says, comes before what is standard; but for what
    belongs to this one flow, which nobody else may say.
    """
    flow = _named(settings, _of_this_flow(settings, redirect_uri, state, verifier))
    parts = urlsplit(settings.authorization_url)
    said = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in flow]
    more = {**_scope(settings), **_own_parameters(settings)}
    unsaid = [(name, value) for name, value in more.items() if value and name not in {*flow, *dict(said)}]
    # Some providers take a plus for what it is, not for a space.
    query = urlencode([*said, *unsaid, *flow.items()], quote_via=quote)
    return urlunsplit(parts._replace(query=query, fragment=""))


def code_request(settings: GrantSettings, code: str, redirect_uri: str, verifier: str, now: datetime) -> HttpRequest:
    """Exchange a code for tokens (RFC 6749 section 4.1.3), as the client that a refresh names as well.

    What the provider wants in both requests it wants as the authorization request had it, such as Basecamp's ``type``.
    """
    facts = settings.facts
    own = {name: facts.authorization_parameters.get(name, text) for name, text in facts.parameters.items()}
    asked = replace(
        settings,
        token_url=facts.code_url or settings.token_url,
        audience=settings.audience or settings.token_url,
        facts=replace(facts, parameters=own),
    )
    parameters = {
        "grant_type": GRANT_TYPE,
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier if facts.pkce else "",
    }
    return token_request(asked, parameters, now)


def is_issuer(settings: GrantSettings, issuer: str) -> bool:
    """Whether a provider that names itself in its answer (``iss`` of RFC 9207) is the one that was asked.

    Its own name for itself nobody told us, so what counts is the domain of the addresses it was asked at: enough to notice an
    answer of another provider, which is what a mix-up is (RFC 9700 section 4.4).
    """
    asked = (settings.authorization_url, settings.token_url)
    return _domain(issuer) in {_domain(address) for address in asked} - {""}


def _of_this_flow(settings: GrantSettings, redirect_uri: str, state: str, verifier: str) -> Mapping[str, str]:
    flow = {
        "response_type": "code",
        "client_id": settings.client_id,
        "redirect_uri": redirect_uri,
        "state": state,
    }
    if not settings.facts.pkce:
        return flow
    return {**flow, "code_challenge": challenge(verifier), "code_challenge_method": "S256"}


def _scope(settings: GrantSettings) -> Mapping[str, str]:
    return _named(settings, {"scope": settings.facts.scope_separator.join(settings.scopes)})


def _named(settings: GrantSettings, parameters: Mapping[str, str]) -> dict[str, str]:
    """By the names that this provider has for them."""
    names = settings.facts.names
    return {names.get(name, name): value for name, value in parameters.items() if names.get(name, name)}


def _own_parameters(settings: GrantSettings) -> Mapping[str, str]:
    shown = {name: settings.fillings[name] for name in AUTHORIZATION_FIELDS}
    return {name: filled(text, shown) for name, text in settings.facts.authorization_parameters.items()}


def _domain(address: str) -> str:
    """The last two labels of a host name; an address of numbers as a whole."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        # What is no address has no domain.
        return ""
    return host if host.replace(".", "").isdigit() or ":" in host else ".".join(host.split(".")[-2:])
