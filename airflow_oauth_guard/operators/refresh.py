"""Renew what is due; hand over a question for what failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseOperator

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks.base import OAuthGuardHook
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.context import label, observer
from airflow_oauth_guard.hooks.investigation import abandoned_before
from airflow_oauth_guard.hooks.links import CredentialLink
from airflow_oauth_guard.hooks.refreshing import Refreshed, RefreshResult
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
        failure is being looked into, or was looked into and looks the same as before, raises no second question. Where
        another process is still refreshing one, the operator defers until that process must be done.

    Raises:
        AirflowFailException: After the others were refreshed, if a connection cannot be used as it is.

    Args:
        conn_ids: The connections, as a list (templated).
    """

    template_fields: Sequence[str] = ("conn_ids",)
    operator_extra_links = (CredentialLink(),)

    def __init__(self, *, conn_ids: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_ids = conn_ids

    def execute(self, context: Any) -> dict[str, Any]:
        return self._refresh(context, self.conn_ids)

    def go_on(self, context: Any, event: Any, earlier: dict[str, Any]) -> dict[str, Any]:
        """Once more for those that another process was still refreshing; whatever it holds has run out by now."""
        return self._refresh(context, earlier.pop("busy"), earlier)

    def _refresh(self, context: Any, conn_ids: Sequence[str], earlier: dict[str, Any] | None = None) -> dict[str, Any]:
        store, who = get_store(), observer(context)
        hooks, unusable = self._hooks(store, conn_ids)
        answers = asyncio.run(_refresh_all(store, hooks, who))
        results = [answer for answer in answers if isinstance(answer, RefreshResult)]
        questions = [question for result in results if (question := self._question(store, result, who)) is not None]
        for hook, answer in zip(hooks, answers, strict=True):
            if isinstance(answer, ConfigurationError):
                unusable.append(self._unusable(store, hook.oauth_guard_conn_id, answer))
        # The store or Airflow failed, after what the others brought was recorded: Airflow tries again.
        if broken := [
            (hook.oauth_guard_conn_id, answer)
            for hook, answer in zip(hooks, answers, strict=True)
            if isinstance(answer, BaseException) and not isinstance(answer, ConfigurationError)
        ]:
            for conn_id, error in broken:
                self.log.error("`%s` could not be refreshed", conn_id, exc_info=error)
            raise broken[0][1]
        outcomes = {result.conn_id: result.outcome.value for result in results}
        done = _together(earlier, {"outcomes": outcomes, "investigations": questions, "unusable": unusable})
        if earlier is None and (busy := [result.conn_id for result in results if result.outcome is Refreshed.BUSY]):
            self._wait_for(store, busy, done)
        failed = sum(outcome == Refreshed.FAILED.value for outcome in done["outcomes"].values())
        fine = len(done["outcomes"]) - failed
        label(context, f"{len(self.conn_ids)} due, {fine} fine, {failed} to look into")
        if unusable := done.pop("unusable"):
            raise AirflowFailException(f"Not refreshed, their connections need a person: {', '.join(unusable)}.")
        return done

    def _wait_for(self, store: Store, busy: list[str], done: dict[str, Any]) -> None:
        """Free the worker until the leases of others have run out at the latest."""
        self.log.info("Still being refreshed by another process: %s; looking again when it is done", ", ".join(busy))
        leases = [store.credentials.get(conn_id) for conn_id in busy]
        until = [lease.leased_until for lease in leases if lease.leased_until and lease.is_leased(utcnow())]
        self.defer(
            trigger=DateTimeTrigger(moment=max(until, default=utcnow()) + timedelta(seconds=1)),
            method_name="go_on",
            kwargs={"earlier": {**done, "busy": busy}},
        )

    def _hooks(self, store: Store, conn_ids: Sequence[str]) -> tuple[list[OAuthGuardHook], list[str]]:
        hooks, unusable = [], []
        for conn_id in conn_ids:
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
        if result.outcome not in (Refreshed.FAILED, Refreshed.HELD):
            return None
        now, credential = utcnow(), store.credentials.get(result.conn_id)
        question = store.investigations.take_on(credential, who, now, abandoned_before=abandoned_before(now))
        if question is None:
            self.log.info("`%s`: is being looked into, or was and looks the same", result.conn_id)
        return question


def _together(earlier: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    if earlier is None:
        return now
    return {
        "outcomes": {**earlier["outcomes"], **now["outcomes"]},
        "investigations": [*earlier["investigations"], *now["investigations"]],
        "unusable": [*earlier["unusable"], *now["unusable"]],
    }


async def _refresh_all(
    store: Store, hooks: Sequence[OAuthGuardHook], who: Observer
) -> list[RefreshResult | BaseException]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(hook: OAuthGuardHook) -> RefreshResult:
        async with gate:
            return await hook.refresh(store, who)

    return await asyncio.gather(*(one(hook) for hook in hooks), return_exceptions=True)
