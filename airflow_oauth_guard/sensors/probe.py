"""Collect evidence about a failed refresh until it is conclusive or time is up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.configuration import conf
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import BaseSensorOperator

from airflow_oauth_guard.domain.investigation import Conclusion
from airflow_oauth_guard.errors import OAuthGuardError
from airflow_oauth_guard.hooks.config import duration, get_store
from airflow_oauth_guard.hooks.context import MAP_INDEX_TEMPLATE, label, observer
from airflow_oauth_guard.hooks.investigation import Patience, look, settle
from airflow_oauth_guard.hooks.links import CredentialLink
from airflow_oauth_guard.hooks.registry import get_hook
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.triggers.probe import ProbeTrigger


class ProbeSensor(BaseSensorOperator):
    """Look into a failed refresh: probe the access token, run the control, ask again after a pause, conclude.

    It may set a credential ``lapsed`` or back to ``active``, each on its own evidence; it never expires one. It skips
    when there is no question.

    Args:
        investigation: The investigation's id, or empty for none (templated).
        pause: Before a second look counts. Default: ``[oauth_guard] confirmation_pause_seconds``.
        give_up_after: Then the conclusion is drawn from what there is. Default:
            ``[oauth_guard] investigation_seconds``.
        deferrable: Whether to wait in the triggerer. Default: ``[operators] default_deferrable``.

    Returns:
        ``{"conn_id", "finding", "explanation", "owner"}``.
    """

    template_fields: Sequence[str] = ("investigation",)
    operator_extra_links = (CredentialLink(),)

    def __init__(
        self,
        *,
        investigation: int | str,
        pause: timedelta | None = None,
        give_up_after: timedelta | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        patience = Patience(
            pause or duration("confirmation_pause_seconds"), give_up_after or duration("investigation_seconds")
        )
        kwargs.setdefault("map_index_template", MAP_INDEX_TEMPLATE)
        kwargs.setdefault("poke_interval", max(patience.pause.total_seconds() / 4, 1.0))
        # The investigation ends by itself before; this is the last resort.
        kwargs.setdefault("timeout", patience.give_up_after.total_seconds() * 2)
        super().__init__(**kwargs)
        self.investigation = investigation
        self.patience = patience
        self.deferrable = deferrable

    def execute(self, context: Any) -> Any:
        if self.investigation in ("", None):
            raise AirflowSkipException("No refresh raised a question.")
        if not self.deferrable:
            super().execute(context)
            return self._conclude(context)
        return self.defer(
            trigger=ProbeTrigger(
                investigation=int(self.investigation),
                pause_seconds=self.patience.pause.total_seconds(),
                give_up_seconds=self.patience.give_up_after.total_seconds(),
                observer=asdict(observer(context)),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def poke(self, context: Any) -> bool:
        return isinstance(self._look(context), Conclusion)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, str]:
        self.log.info("The triggerer found: %s", event["finding"])
        return self._conclude(context)

    def _look(self, context: Any) -> Conclusion | timedelta:
        store, question = get_store(), int(self.investigation)
        hook = get_hook(store.investigation(question).credential.conn_id)
        while True:
            seen = hook.run(look(store, hook, question, self.patience, observer(context)))
            if isinstance(seen, Conclusion) or seen:
                return seen

    def _conclude(self, context: Any) -> dict[str, str]:
        # Drawn again here, from the evidence in the store: a status is not taken from a message.
        conclusion = self._look(context)
        if not isinstance(conclusion, Conclusion):
            raise OAuthGuardError(
                f"Investigation {self.investigation} is not conclusive, whatever was reported of it; clear this task to "
                "go on looking."
            )
        store, question = get_store(), int(self.investigation)
        settle(store, question, conclusion, observer(context), utcnow())
        conn_id = store.investigation(question).credential.conn_id
        label(context, f"{conn_id}: {conclusion.finding.value}")
        self.log.info("`%s`: %s", conn_id, conclusion.explanation)
        for condition in conclusion.missing:
            self.log.info("`%s`: missing for a proof of death: %s", conn_id, condition)
        return {
            "conn_id": conn_id,
            "finding": conclusion.finding.value,
            "explanation": conclusion.explanation,
            "owner": conclusion.owner.value,
        }
