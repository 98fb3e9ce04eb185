"""canaille, as pytest-iam serves it: `python iam.py PORT`. `/_control` is ours."""

# mypy: disable-error-code="import-not-found"
import os
import sys
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from flask import Flask, request
from joserfc import jwt
from joserfc.jwk import JWKRegistry
from pytest_iam import Server

GRANTS = ["password", "refresh_token"]
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPES = ["openid", "profile"]
KEY = JWKRegistry.generate_key("RSA", 2048)
KEY.ensure_kid()


def configuration(port: int) -> dict[str, Any]:
    return {
        "SECRET_KEY": str(uuid.uuid4()),
        "WTF_CSRF_ENABLED": False,
        "PREFERRED_URL_SCHEME": "http",
        "SERVER_NAME": f"127.0.0.1:{port}",
        "CANAILLE": {"DATABASE": "memory", "JAVASCRIPT": False},
        "CANAILLE_OIDC": {"ACTIVE_JWKS": [KEY.as_dict(private=True)]},
    }


def find(kind: str, **query: Any) -> Any:
    return Backend.instance.query(getattr(models, kind), **query)[0]


def age_token(token: str) -> None:
    found = find("Token", access_token=token)
    found.issue_date -= timedelta(days=365)
    Backend.instance.save(found)


def lock_user(user: str, locked: bool) -> None:
    found = find("User", user_name=user)
    found.lock_date = datetime.now(timezone.utc) - timedelta(hours=1) if locked else None
    Backend.instance.save(found)


def delete_user(user: str) -> None:
    Backend.instance.delete(find("User", user_name=user))


def delete_client(client: str) -> None:
    Backend.instance.delete(find("Client", client_id=client))


def expire_secret(client: str, expired: bool) -> None:
    found = find("Client", client_id=client)
    found.client_secret_expires_at = datetime.now(timezone.utc) - timedelta(days=1) if expired else None
    Backend.instance.save(found)


def allow_refresh(client: str) -> None:
    found = find("Client", client_id=client)
    found.grant_types = [*found.grant_types, "refresh_token"]
    Backend.instance.save(found)


def consent(client: str, user: str) -> None:
    app, who = find("Client", client_id=client), find("User", user_name=user)
    Backend.instance.save(
        models.Consent(
            consent_id=str(uuid.uuid4()), client=app, subject=who, scope=SCOPES, issue_date=datetime.now(timezone.utc)
        )
    )


def revoke_consent(client: str, user: str) -> None:
    find("Consent", client=find("Client", client_id=client), subject=find("User", user_name=user)).revoke()


def assertion(client: str, user: str, audience: str, age: int = 0) -> dict[str, str]:
    now = int(time.time()) - age
    claims = {"iss": client, "sub": user, "aud": audience, "iat": now, "exp": now + 300}
    return {"assertion": jwt.encode({"alg": "RS256", "kid": KEY.kid}, claims, KEY)}


ACTIONS: dict[str, Callable[..., dict[str, str] | None]] = {
    action.__name__: action
    for action in (
        age_token,
        lock_user,
        delete_user,
        delete_client,
        expire_secret,
        allow_refresh,
        consent,
        revoke_consent,
        assertion,
    )
}


def control() -> dict[str, str]:
    order = dict(request.get_json())
    return ACTIONS[order.pop("action")](**order) or {}


def add_client(client_id: str, grants: list[str], method: str) -> None:
    client = models.Client(
        client_id=client_id,
        client_name=client_id,
        client_secret=f"{client_id}-secret",
        client_id_issued_at=datetime.now(timezone.utc),
        token_endpoint_auth_method=method,
        grant_types=grants,
        response_types=["code"],
        scope=SCOPES,
        redirect_uris=["https://app.example/callback"],
    )
    Backend.instance.save(client)
    client.audience = [client]
    Backend.instance.save(client)


def fill(app: Flask) -> None:
    with app.app_context():
        for name in ("alice", "bob", "carol"):
            user = models.User(
                user_name=name, family_name=name, formatted_name=name, emails=[f"{name}@example.com"], password="x"
            )
            Backend.instance.save(user)
            Backend.instance.set_user_password(user, f"{name}-password")
        for client_id in ("app", "other", "doomed"):
            add_client(client_id, GRANTS, "client_secret_basic")
        add_client("app-post", GRANTS, "client_secret_post")
        add_client("machine", ["client_credentials"], "client_secret_basic")
        add_client("limited", ["password"], "client_secret_basic")
        add_client("bearer", [JWT_BEARER, "refresh_token"], "client_secret_basic")


if __name__ == "__main__":
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    number = int(sys.argv[1])
    application = create_app(config=configuration(number), env_file=None)
    application.add_url_rule("/_control", view_func=control, methods=["POST"])
    fill(application)
    Server(application, number, Backend.instance).httpd.serve_forever()
