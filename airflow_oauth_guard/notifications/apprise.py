"""Apprise says by what it returns whether a message went out, and the hook of Airflow's provider (2.4.1) drops that: an alert
that reached nobody would count as told.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from airflow_oauth_guard.errors import AlertNotSentError, AlertPartlySentError

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier

_PROVIDER = "airflow.providers.apprise.notifications.apprise"


def make_strict(notifier: BaseNotifier) -> BaseNotifier:
    """An AppriseNotifier raises from now on where its message does not go out; any other notifier stays as it is."""
    # Where the provider was not imported there is no notifier of it.
    provider: Any = sys.modules.get(_PROVIDER)
    if provider is not None and isinstance(notifier, provider.AppriseNotifier):
        notifier.hook = _StrictHook(notifier)
    return notifier


class _StrictHook:
    def __init__(self, notifier: Any) -> None:
        # The connection id is read when it is needed: until then it may be a template.
        self._notifier = notifier

    def notify(self, *, config: Any = None, tag: Any = "all", **message: Any) -> None:
        from apprise import Apprise

        services = Apprise()
        if config:
            services.add(config)
        else:
            self._add_those_of_the_connection(services)
        sent = [bool(_alone(service).notify(**message)) for service in services.find(tag)]
        if not any(sent):
            raise AlertNotSentError(
                f"None of {len(sent)} Apprise services took the alert; Apprise's own log lines say why."
            )
        if not all(sent):
            raise AlertPartlySentError(
                f"{sent.count(False)} of {len(sent)} Apprise services did not take the alert; Apprise's own log lines say which."
            )

    def _add_those_of_the_connection(self, services: Any) -> None:
        from airflow.providers.apprise.hooks.apprise import AppriseHook

        hook = AppriseHook(self._notifier.apprise_conn_id)
        hook.set_config_from_conn(hook.get_connection(hook.apprise_conn_id), services)


def _alone(service: Any) -> Any:
    """Apprise says of all services together whether each took it."""
    from apprise import Apprise

    one = Apprise()
    one.add(service)
    return one
