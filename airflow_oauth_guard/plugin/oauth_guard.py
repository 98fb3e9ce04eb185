"""The plugin as Airflow finds it. Every process of Airflow imports this, so it stays light."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/oauth-guard"


class Later:
    """Our web application, built when the first request comes: only the API server gets any.

    Airflow recommends no way to tell which process it is, and an API server may be started in many ways.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from airflow_oauth_guard.plugin.app import app

        await app(scope, receive, send)


class OAuthGuardPlugin(AirflowPlugin):
    name = "oauth_guard"
    fastapi_apps = [{"app": Later(), "url_prefix": PREFIX, "name": "OAuth Guard"}]
