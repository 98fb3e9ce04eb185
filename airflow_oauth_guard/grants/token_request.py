"""Build a token request: parameters, client authentication, and the form in which the provider reads them."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.flow import HttpRequest, shape_of
from airflow_oauth_guard.grants.settings import GrantSettings, filled

if TYPE_CHECKING:
    from joserfc.jwk import Key

CLIENT_ASSERTION_LIFETIME_SECONDS = 300
"""RFC 7523 section 3 asks for a short life; providers commonly cap it at five to ten minutes."""


def token_request(
    settings: GrantSettings, parameters: Mapping[str, str], now: datetime, *, authenticate: bool = True
) -> HttpRequest:
    """A token request as RFC 6749 describes it, with what the provider's facts change about it.

    Args:
        parameters: ``grant_type`` and what belongs to it; empty values are left out.
        authenticate: False where an assertion speaks for the client (RFC 7523 section 2.1).
    """
    facts = settings.facts
    extra = {name: filled(text, settings.fillings) for name, text in facts.parameters.items()}
    sent = {name: value for name, value in {**extra, **parameters}.items() if value}
    headers = {"Accept": "application/json"}
    client_auth = settings.client_auth if authenticate else "none"
    if authenticate:
        headers, sent = _authenticated(settings, headers, sent, now)
    headers |= {name: filled(text, settings.fillings) for name, text in facts.headers.items()}
    # By the standard's names, which tell what is secret.
    secrets = secret_values(settings, sent, headers)
    sent = {facts.names.get(name, name): value for name, value in sent.items() if facts.names.get(name, name)}
    # A GET has no body.
    body_format = "query" if facts.method == "GET" else settings.body_format
    url, content = _written(settings, body_format, sent, headers)
    return HttpRequest(
        method=facts.method,
        url=url,
        headers=headers,
        content=content,
        shape=shape_of(
            facts.method,
            settings.token_url,
            grant_type=sent.get("grant_type", ""),
            client_auth=client_auth,
            body_format=body_format,
            names=sent,
        ),
        secrets=secrets,
        client_certificate=settings.client_certificate,
    )


def _written(
    settings: GrantSettings, body_format: str, sent: Mapping[str, str], headers: dict[str, str]
) -> tuple[str, bytes]:
    """Where the parameters go: the body, or the query for providers that read it from there. Sets the content type."""
    if body_format == "query":
        parts = urlsplit(settings.token_url)
        query = "&".join(part for part in (parts.query, urlencode(sent)) if part)
        return urlunsplit(parts._replace(query=query)), b""
    if body_format == "form":
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        return settings.token_url, urlencode(sent).encode()
    headers.setdefault("Content-Type", f"application/{body_format}")
    if template := settings.facts.body:
        escaped = escape if body_format == "xml" else _json_escaped
        values = {name: escaped(value) for name, value in {**settings.fillings, **sent}.items()}
        return settings.token_url, filled(template, values).encode()
    if body_format == "xml":
        raise ConnectionFieldError(
            settings.conn_id, "body_format", "is xml, for which the provider's preset has no `body`."
        )
    return settings.token_url, json.dumps(sent).encode()


def _json_escaped(value: str) -> str:
    return json.dumps(value)[1:-1]


_PUBLIC_PARAMETERS = frozenset(
    {
        *(
            "grant_type",
            "client_id",
            "client_key",
            "app_id",
            "scope",
            "client_assertion_type",
            "account_id",
            "username",
        ),
        *("subject_token_type", "requested_token_type", "audience", "resource", "token_type_hint", "type"),
        "redirect_uri",
    }
)


def secret_values(
    settings: GrantSettings, parameters: Mapping[str, str], headers: Mapping[str, str]
) -> tuple[str, ...]:
    """Whatever in a request could open a door."""
    public = {settings.client_id, settings.username}
    sent = [value for name, value in parameters.items() if name not in _PUBLIC_PARAMETERS and value not in public]
    bearing = headers.get("Authorization", "").removeprefix("Basic ").removeprefix("Bearer ")
    own = [headers[name] for name in settings.facts.headers if name in headers and name.lower() not in _PUBLIC_HEADERS]
    return tuple(value for value in (*settings.secrets, *sent, bearing, *own) if value)


_PUBLIC_HEADERS = frozenset({"accept", "content-type", "user-agent"})


def _authenticated(
    settings: GrantSettings, headers: dict[str, str], sent: dict[str, str], now: datetime
) -> tuple[dict[str, str], dict[str, str]]:
    # Imported here, at the first request: Airflow imports hooks when it parses DAG files.
    from authlib.oauth2.auth import ClientAuth
    from authlib.oauth2.rfc7523.client import ASSERTION_TYPE

    if settings.client_auth in ("private_key_jwt", "client_secret_jwt"):
        assertion = _client_assertion(settings, now)
        identity = {"client_id": settings.client_id, "client_assertion_type": ASSERTION_TYPE}
        return headers, {**sent, **identity, "client_assertion": assertion}
    # A TLS client names itself and proves it below HTTP (RFC 8705 section 2).
    method = "none" if settings.client_auth == "tls_client_auth" else settings.client_auth
    auth = ClientAuth(settings.client_id, settings.client_secret, method)
    try:
        _, headers, body = auth.prepare("POST", settings.token_url, headers, urlencode(sent))
    except UnicodeEncodeError:
        # The error quotes the secret, so the chain is cut.
        raise ConnectionFieldError(
            settings.conn_id,
            "client_secret",
            "or the client id has a character that HTTP Basic cannot carry; set `client_auth` to client_secret_post.",
        ) from None
    return headers, dict(parse_qsl(body, keep_blank_values=True))


def _client_assertion(settings: GrantSettings, now: datetime) -> str:
    from authlib.oauth2.rfc7523 import client_secret_jwt_sign, private_key_jwt_sign
    from joserfc.jwk import OctKey

    times = {
        "issued_at": int(now.timestamp()),
        "expires_in": assertion_seconds(settings, CLIENT_ASSERTION_LIFETIME_SECONDS),
    }
    claims = {name: filled(text, settings.fillings) for name, text in settings.facts.claims.items()} or None
    audience = settings.audience or settings.token_url
    if settings.client_auth == "client_secret_jwt":
        algorithm = settings.algorithm if settings.algorithm.startswith("HS") else "HS256"
        return str(
            client_secret_jwt_sign(
                OctKey.import_key(settings.client_secret),
                settings.client_id,
                audience,
                alg=algorithm,
                claims=claims,
                **times,
            )
        )
    return signed(
        settings,
        lambda: private_key_jwt_sign(
            signing_key(settings),
            settings.client_id,
            audience,
            alg=settings.algorithm,
            header=assertion_header(settings),
            claims=claims,
            **times,
        ),
    )


def assertion_seconds(settings: GrantSettings, usual: int) -> int:
    """How long an assertion is to live: as usual, or what the provider takes at the most."""
    longest = settings.facts.assertion_lifetime
    return min(usual, int(longest.total_seconds())) if longest else usual


def assertion_header(settings: GrantSettings) -> dict[str, str]:
    """The ``kid``, and the certificate's thumbprints (RFC 7515 sections 4.1.7 and 4.1.8) where there is a certificate."""
    header = {"kid": settings.key_id} if settings.key_id else {}
    if not settings.certificate:
        return header
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    try:
        certificate = x509.load_pem_x509_certificate(settings.certificate.encode())
    except ValueError as error:
        raise ConnectionFieldError(settings.conn_id, "certificate", "is no certificate in PEM form.") from error
    names = {"x5t": hashes.SHA1(), "x5t#S256": hashes.SHA256()}  # noqa: S303 - the header's own definition
    thumbprints = {
        name: urlsafe_b64encode(certificate.fingerprint(by)).rstrip(b"=").decode() for name, by in names.items()
    }
    return {**header, **thumbprints}


def signing_key(settings: GrantSettings) -> Key:
    """The connection's private key, for its algorithm."""
    from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

    kinds: dict[str, Any] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey, "HS": OctKey}
    key: Key = kinds[settings.algorithm[:2]].import_key(settings.private_key)
    return key


def signed(settings: GrantSettings, sign: Callable[[], str]) -> str:
    """Run a signature and translate a key that cannot sign into an error about the field.

    Raises:
        ConnectionFieldError: If the key is not one, or not one for the algorithm.
    """
    try:
        return sign()
    except ConnectionFieldError:
        raise
    except Exception as error:  # noqa: BLE001 - joserfc, cryptography and Authlib each raise their own for a bad key
        # The cause's text may quote key material, so only its kind is named and the chain is cut.
        raise ConnectionFieldError(
            settings.conn_id,
            "private_key",
            f"cannot sign with {settings.algorithm} ({type(error).__name__}); paste the private key in PEM form.",
        ) from None
