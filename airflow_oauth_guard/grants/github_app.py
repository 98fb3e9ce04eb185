"""A GitHub App's installation: the app signs a JWT, which buys an installation access token.

Source: "Generating an installation access token for a GitHub App", docs.github.com/en/apps/creating-github-apps.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.grants.flow import Grant, HttpRequest, shape_of
from airflow_oauth_guard.grants.settings import COMMON_FIELDS
from airflow_oauth_guard.grants.token_request import signed, signing_key

BACKDATED = timedelta(seconds=60)
"""GitHub advises to date the JWT back, for clocks that run ahead."""

LIFETIME = timedelta(minutes=9)
"""GitHub refuses more than ten minutes."""


class GithubAppGrant(Grant):
    """The client id of the app and its private key; the installation is one of the provider's params."""

    connection_class = "github_app"
    grant_type = ""
    provider = "github"
    rejected_means = Finding.CLIENT_MISCONFIGURED
    fields = COMMON_FIELDS | {"client_id", "private_key", "algorithm"}
    required = ("token_url", "client_id", "private_key")

    def request(self, token: str, now: datetime) -> HttpRequest:
        jwt = self._jwt(now)
        settings = self.settings
        return HttpRequest(
            method="POST",
            url=settings.token_url,
            headers={"Accept": "application/json", "Authorization": f"Bearer {jwt}", **settings.facts.headers},
            content=b"",
            shape=shape_of(
                "POST", settings.token_url, grant_type="", client_auth="app_jwt", body_format="none", names={}
            ),
            secrets=(*settings.secrets, jwt),
        )

    def _jwt(self, now: datetime) -> str:
        from joserfc import jwt

        settings = self.settings
        claims = {
            "iss": settings.client_id,
            "iat": int((now - BACKDATED).timestamp()),
            "exp": int((now + LIFETIME).timestamp()),
        }
        return signed(
            settings, lambda: jwt.encode({"alg": settings.algorithm, "typ": "JWT"}, claims, signing_key(settings))
        )
