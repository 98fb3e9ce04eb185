"""Build the POST that most token endpoints take: parameters, client authentication, form or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.flow import HttpRequest, shape_of
from airflow_oauth_guard.grants.settings import GrantSettings

if TYPE_CHECKING:
    from joserfc.jwk import Key

CLIENT_ASSERTION_LIFETIME_SECONDS = 300
"""RFC 7523 section 3 asks for a short life; providers commonly cap it at five to ten minutes."""


def post_token_request(
    settings: GrantSettings, parameters: Mapping[str, str], now: datetime, *, authenticate: bool = True
) -> HttpRequest:
    """A token request as RFC 6749 describes it.

    Args:
        parameters: ``grant_type`` and what belongs to it; empty values are left out.
        authenticate: False where an assertion speaks for the client (RFC 7523 section 2.1).
    """
    sent = {name: value for name, value in parameters.items() if value}
    headers = {"Accept": "application/json"}
    client_auth = settings.client_auth if authenticate else "none"
    if authenticate:
        headers, sent = _authenticated(settings, headers, sent, now)
    if settings.body_format == "json":
        content, headers["Content-Type"] = json.dumps(sent).encode(), "application/json"
    else:
        content, headers["Content-Type"] = urlencode(sent).encode(), "application/x-www-form-urlencoded"
    return HttpRequest(
        method="POST",
        url=settings.token_url,
        headers=headers,
        content=content,
        shape=shape_of(
            "POST",
            settings.token_url,
            grant_type=sent["grant_type"],
            client_auth=client_auth,
            body_format=settings.body_format,
            names=sent,
        ),
        secrets=secret_values(settings, sent, headers),
    )


_PUBLIC_PARAMETERS = frozenset({"grant_type", "client_id", "scope", "client_assertion_type", "subject_token_type"})


def secret_values(
    settings: GrantSettings, parameters: Mapping[str, str], headers: Mapping[str, str]
) -> tuple[str, ...]:
    """Whatever in a request could open a door."""
    sent = [value for name, value in parameters.items() if name not in _PUBLIC_PARAMETERS]
    basic = headers.get("Authorization", "").removeprefix("Basic ").removeprefix("Bearer ")
    return tuple(value for value in (*settings.secrets, *sent, basic) if value)


def _authenticated(
    settings: GrantSettings, headers: dict[str, str], sent: dict[str, str], now: datetime
) -> tuple[dict[str, str], dict[str, str]]:
    # Imported here, at the first request: Airflow imports hooks when it parses DAG files.
    from authlib.oauth2.auth import ClientAuth
    from authlib.oauth2.rfc7523.client import ASSERTION_TYPE

    if settings.client_auth == "private_key_jwt":
        assertion = _client_assertion(settings, now)
        return headers, {**sent, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    auth = ClientAuth(settings.client_id, settings.client_secret, settings.client_auth)
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
    from authlib.oauth2.rfc7523 import private_key_jwt_sign

    header = {"kid": settings.key_id} if settings.key_id else {}
    return signed(
        settings,
        lambda: private_key_jwt_sign(
            signing_key(settings),
            settings.client_id,
            settings.audience or settings.token_url,
            alg=settings.algorithm,
            header=header,
            issued_at=int(now.timestamp()),
            expires_in=CLIENT_ASSERTION_LIFETIME_SECONDS,
        ),
    )


def signing_key(settings: GrantSettings) -> Key:
    """The connection's private key, for its algorithm."""
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    kinds: dict[str, Any] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}
    key: Key = kinds[settings.algorithm[:2]].import_key(settings.private_key)
    return key


def signed(settings: GrantSettings, sign: Callable[[], str]) -> str:
    """Run a signature and translate a key that cannot sign into an error about the field.

    Raises:
        ConnectionFieldError: If the key is not one, or not one for the algorithm.
    """
    try:
        return sign()
    except Exception as error:  # noqa: BLE001 - joserfc, cryptography and Authlib each raise their own for a bad key
        # The cause's text may quote key material, so only its kind is named and the chain is cut.
        raise ConnectionFieldError(
            settings.conn_id,
            "private_key",
            f"cannot sign with {settings.algorithm} ({type(error).__name__}); paste the private key in PEM form.",
        ) from None
