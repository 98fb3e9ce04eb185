"""Renew what is due; hand over a question for what failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException
from airflow.sdk import BaseOperator

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks.base import OAuthGuardHook, Refreshed, RefreshResult
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.context import label, observer
from airflow_oauth_guard.hooks.registry import get_hook
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.operators.due import misconfigured

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store

AT_ONCE = 10
"""Refreshes in flight at a time in one task; more gain little and look like an attack to a provider."""


class RefreshOperator(BaseOperator):
    """Refresh each credential that is due. A failure changes no status, ever: it raises a question.

    Returns:
        ``{"outcomes": {conn_id: outcome}, "investigations": [ids]}``; the ids are for ProbeSensor. A credential whose
        failure is being looked into, or was looked into and looks the same as before, raises no second question.

    Raises:
        AirflowFailException: After the others were refreshed, if a connection cannot be used as it is.

    Args:
        conn_ids: The connections, as a list (templated).
    """

    template_fields: Sequence[str] = ("conn_ids",)

    def __init__(self, *, conn_ids: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_ids = conn_ids

    def execute(self, context: Any) -> dict[str, Any]:
        store, who = get_store(), observer(context)
        hooks, unusable = self._hooks(store)
        answers = asyncio.run(_refresh_all(store, hooks, who))
        results = [answer for answer in answers if isinstance(answer, RefreshResult)]
        questions = [question for result in results if (question := self._question(store, result, who)) is not None]
        for hook, answer in zip(hooks, answers, strict=True):
            if isinstance(answer, ConfigurationError):
                unusable.append(self._unusable(store, hook.oauth_guard_conn_id, answer))
        failed = sum(result.outcome is Refreshed.FAILED for result in results)
        label(context, f"{len(self.conn_ids)} due, {len(results) - failed} fine, {failed} to look into")
        for answer in answers:
            # The store or Airflow failed, after what the others brought was recorded: Airflow tries again.
            if isinstance(answer, BaseException) and not isinstance(answer, ConfigurationError):
                raise answer
        if unusable:
            raise AirflowFailException(f"Not refreshed, their connections need a person: {', '.join(unusable)}.")
        outcomes = {result.conn_id: result.outcome.value for result in results}
        return {"outcomes": outcomes, "investigations": questions}

    def _hooks(self, store: Store) -> tuple[list[OAuthGuardHook], list[str]]:
        hooks, unusable = [], []
        for conn_id in self.conn_ids:
            try:
                hooks.append(get_hook(conn_id))
            except (ConfigurationError, AirflowNotFoundException) as error:
                unusable.append(self._unusable(store, conn_id, error))
        return hooks, unusable

    def _unusable(self, store: Store, conn_id: str, error: Exception) -> str:
        """One bad connection must not stop the others: it becomes an incident, and this task ends red."""
        self.log.error("`%s` cannot be refreshed: %s", conn_id, error)
        store.incidents.open(misconfigured(conn_id, error, utcnow()), utcnow())
        return conn_id

    def _question(self, store: Store, result: RefreshResult, who: Observer) -> int | None:
        self.log.info("`%s`: %s (%s)", result.conn_id, result.outcome.value, result.explanation)
        if result.outcome is not Refreshed.FAILED or result.evidence is None:
            return None
        question = store.investigations.take_on(store.credentials.get(result.conn_id), who, utcnow())
        if question is None:
            self.log.info("`%s`: is being looked into, or was and looks the same", result.conn_id)
        return question


async def _refresh_all(
    store: Store, hooks: Sequence[OAuthGuardHook], who: Observer
) -> list[RefreshResult | BaseException]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(hook: OAuthGuardHook) -> RefreshResult:
        async with gate:
            return await hook.refresh(store, who)

    return await asyncio.gather(*(one(hook) for hook in hooks), return_exceptions=True)
