"""Which credentials to refresh now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import BaseOperator

from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks import metrics
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.context import observer
from airflow_oauth_guard.hooks.links import CredentialLink
from airflow_oauth_guard.hooks.registry import get_hook
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.incidents import Symptom

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store


CONNECTIONS_VARIABLE = "oauth_guard_connections"


class DueCredentialsOperator(BaseOperator):
    """Take newly named connections in, and return the credentials that are due, in batches.

    Args:
        connections: Connection ids to guard, as a list or its JSON (templated). Those already in the store, for
            instance imported ones, are guarded whether they are named or not.
        batch_size: Credentials per mapped RefreshOperator. Default 50.
    """

    template_fields: Sequence[str] = ("connections",)
    operator_extra_links = (CredentialLink(),)

    def __init__(self, *, connections: Sequence[str] | str = (), batch_size: int = 50, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.connections = connections
        self.batch_size = batch_size

    def execute(self, context: Any) -> list[list[str]]:
        store, now = get_store(), utcnow()
        named = self._named(store, now)
        roster = {credential.conn_id: credential for credential in store.credentials.roster()}
        for conn_id in dict.fromkeys([*named, *roster]):
            known = roster.get(conn_id)
            # Where something is wrong the connection is read again, in case somebody has mended it or entered new tokens.
            if known is None or known.attempt_after is not None or known.status is not Status.ACTIVE:
                self._take_in(store, conn_id, context, now)
        self._forget_misspelt(store, {*named, *roster}, now)
        return self._batches(store, context, now)

    def _batches(self, store: Store, context: Any, now: datetime) -> list[list[str]]:
        roster = store.credentials.roster()
        due = [credential.conn_id for credential in roster if credential.is_due(now)]
        counts = ", ".join(f"{status.value} {sum(c.status is status for c in roster)}" for status in Status)
        self.log.info("%d credentials guarded (%s), %d due now", len(roster), counts, len(due))
        context["ti"].xcom_push(key="guarded", value=len(roster))
        metrics.credentials(roster, now)
        for credential in roster:
            if credential.waits(now):
                self.log.info(
                    "`%s` waits until %s after %d failures",
                    credential.conn_id,
                    credential.attempt_after,
                    credential.failures,
                )
        return [due[i : i + self.batch_size] for i in range(0, len(due), self.batch_size)]

    def _take_in(self, store: Store, conn_id: str, context: Any, now: datetime) -> None:
        try:
            store.credentials.enroll(get_hook(conn_id).enrollment(), now, observer(context))
        except (ConfigurationError, AirflowNotFoundException) as error:
            # One bad connection must not stop the others: it becomes an incident, which the report turns red.
            self.log.error("`%s` cannot be guarded: %s", conn_id, error)  # noqa: TRY400 - the sentence says it all
            store.incidents.open(misconfigured(conn_id, error, now), now)
        else:
            incident = store.incidents.open_about(About.CREDENTIAL, conn_id)
            if incident is not None and incident.kind is IncidentKind.MISCONFIGURED:
                store.incidents.resolve(About.CREDENTIAL, conn_id, "its connection is usable now", now)

    def _named(self, store: Store, now: datetime) -> list[str]:
        try:
            named = connection_ids(self.connections)
        except ConfigurationError as error:
            # A stray comma must not stop the refreshing of what is known: it becomes an incident, which is red.
            self.log.error("%s", error)  # noqa: TRY400 - the sentence says it all
            store.incidents.open(misconfigured(CONNECTIONS_VARIABLE, error, now), now)
            return []
        store.incidents.resolve(About.CREDENTIAL, CONNECTIONS_VARIABLE, "the list can be read again", now)
        return named

    def _forget_misspelt(self, store: Store, guarded: set[str], now: datetime) -> None:
        for incident in store.incidents.open_ones(About.CREDENTIAL):
            if incident.kind is IncidentKind.MISCONFIGURED and incident.name not in {*guarded, CONNECTIONS_VARIABLE}:
                store.incidents.resolve(
                    About.CREDENTIAL, incident.name, "nobody asks for it to be guarded any more", now
                )


def misconfigured(conn_id: str, error: Exception, now: datetime) -> Symptom:
    """An incident about a connection that cannot be used as it is."""
    return Symptom(
        about=About.CREDENTIAL,
        name=conn_id,
        kind=IncidentKind.MISCONFIGURED,
        summary=str(error),
        opened_at=now,
        owner="the owner of this connection's settings",
        signature=IncidentKind.MISCONFIGURED.value,
    )


def connection_ids(given: Sequence[str] | str) -> list[str]:
    """Connection ids from a list or its JSON.

    Raises:
        ConfigurationError: If it is neither.
    """
    ids: Any = given
    if isinstance(given, str):
        try:
            ids = json.loads(given or "[]")
        except ValueError as error:
            raise ConfigurationError(
                f'The connections to guard are not JSON: {given!r}. Write a list: ["crm_prod"].'
            ) from error
    if not isinstance(ids, (list, tuple)) or not all(isinstance(conn_id, str) and conn_id for conn_id in ids):
        raise ConfigurationError(f"The connections to guard are {ids!r}; write a list of connection ids.")
    return list(dict.fromkeys(ids))
