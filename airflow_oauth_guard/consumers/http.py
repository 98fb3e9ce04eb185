"""For the official HTTP provider: ``HttpOperator(auth_type=GuardedHttpAuth)`` and ``HttpHook(auth_type=GuardedHttpAuth)``."""

from __future__ import annotations

import asyncio

from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks.session import GuardedAuth


class GuardedHttpAuth(GuardedAuth):
    """Bears the token of the credential that the HTTP connection's login names; its password has no use.

    A subclass may say where the token goes, and has to be importable where a task runs::

        class VendorAuth(GuardedHttpAuth):
            placement = Header("X-Vendor-Token", "{access_token}")

    Raises:
        ConfigurationError: If the login is empty, or in an event loop, where the provider takes nothing but a name and a password.

    .. versionadded:: 0.6.0
    """

    def __init__(self, login: str = "", password: str | None = None) -> None:
        if not login:
            raise ConfigurationError(
                f"`{type(self).__name__}` was not told which credential to use: write the id of an OAuth Guard connection into the "
                "HTTP connection's login."
            )
        _require_no_event_loop(type(self).__name__, login)
        super().__init__(login)


def _require_no_event_loop(name: str, login: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # There is none, which is asyncio's only way to say so.
        return
    raise ConfigurationError(
        f"`{name}` cannot be used in an event loop: a deferred task and `HttpAsyncHook` send nothing but a name and a password. "
        f"Put {{oauth-guard:{login}}} into the HTTP connection's headers instead (docs/consumers/http.md), or call `HttpHook` in "
        "a thread."
    )
