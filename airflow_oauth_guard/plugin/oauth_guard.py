"""The plugin as Airflow finds it. Every process of Airflow imports this, so it stays light."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from airflow_oauth_guard.consumers import listener

PREFIX = "/oauth-guard"
AIRFLOW = "oauth_guard.airflow"
"""In a request's scope: Airflow's own application, which answers a question in the graph for us."""

BASE_PATH = urlsplit(str(conf.get("api", "base_url", fallback=""))).path.rstrip("/")


class Later:
    """Our web application, built when the first request comes: only the API server gets any.

    Airflow recommends no way to tell which process it is, and an API server may be started in many ways.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from airflow_oauth_guard.plugin.app import app

        # The same scope, which the server's log of requests reads when we are done with it.
        scope[AIRFLOW] = scope.get("app")
        await app(scope, receive, send)


class OAuthGuardPlugin(AirflowPlugin):
    name = "oauth_guard"
    listeners = [listener]
    fastapi_apps = [{"app": Later(), "url_prefix": PREFIX, "name": "OAuth Guard"}]
    external_views = [
        {
            "name": "OAuth Guard",
            "href": f"{BASE_PATH}{PREFIX}/",
            "destination": "nav",
            "url_route": "oauth_guard",
            "icon": f"{BASE_PATH}{PREFIX}/static/icon.svg",
            # Airflow 3.3 and newer; older ones put it under "Plugins".
            "nav_top_level": True,
        }
    ]
