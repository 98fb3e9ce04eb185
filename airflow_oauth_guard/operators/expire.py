"""The only place that sets a credential expired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import BaseOperator

from airflow_oauth_guard.errors import NeedsAPersonError, UnprovenTransitionError
from airflow_oauth_guard.hooks.config import configured_brake, get_store
from airflow_oauth_guard.hooks.context import MAP_INDEX_TEMPLATE, label, observer
from airflow_oauth_guard.hooks.links import CredentialLink
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.operators.approval import BY_POLICY


class ExpireOperator(BaseOperator):
    """Set a credential expired, if the investigation proved its grant dead and the expiry was approved.

    It re-reads the evidence itself and refuses without, wherever a DAG author wired it; and the database refuses too.

    Args:
        investigation: The investigation's id (templated).

    Raises:
        UnprovenTransitionError: Without an investigation, without proof, or with proof about older tokens.
    """

    template_fields: Sequence[str] = ("investigation",)
    operator_extra_links = (CredentialLink(),)

    def __init__(self, *, investigation: int | str, **kwargs: Any) -> None:
        kwargs.setdefault("map_index_template", MAP_INDEX_TEMPLATE)
        super().__init__(**kwargs)
        self.investigation = investigation

    def execute(self, context: Any) -> dict[str, Any]:
        if self.investigation in ("", None):
            raise UnprovenTransitionError(
                "Nothing was expired: no investigation was handed over. Put a RefreshOperator and a ProbeSensor in "
                "front; a credential is expired only on evidence they collected."
            )
        store, now = get_store(), utcnow()
        investigation = store.investigation(int(self.investigation))
        conn_id = investigation.credential.conn_id
        if investigation.closed_at is not None and investigation.generation != investigation.credential.generation:
            # New tokens arrived meanwhile, so there is nothing left to expire; a mis-wired graph is refused below.
            label(context, f"{conn_id}: settled")
            raise AirflowSkipException(f"`{conn_id}`: the question was settled: {investigation.explanation}")
        if investigation.answer in ("declined", "unanswered"):
            store.investigations.close(investigation.id, now)
            label(context, f"{conn_id}: kept")
            raise AirflowSkipException(
                f"`{conn_id}` is kept as it is ({investigation.answer}; {investigation.answered_by})."
            )
        if investigation.answer != "approved":
            raise UnprovenTransitionError(
                f"Credential `{conn_id}` was not set `expired`: nobody approved it. "
                "Put an ExpireApprovalOperator in front; the policy `evidence` makes it pass by itself."
            )
        braked = store.clients.brake(investigation.credential, configured_brake(), now)
        if investigation.answered_by == BY_POLICY and braked:
            raise NeedsAPersonError(
                f"Credential `{conn_id}` was not set `expired`: {braked}. Clear the approval task to be asked about it."
            )
        expired = store.credentials.expire(conn_id, investigation.conclusion_evidence_id, observer(context), now)
        store.investigations.close(investigation.id, now)
        label(context, f"{conn_id}: {expired.status.value}")
        self.log.warning("`%s` is %s: %s", conn_id, expired.status.value, investigation.explanation)
        return {
            "conn_id": conn_id,
            "status": expired.status.value,
            "evidence": investigation.conclusion_evidence_id,
            "approved_by": investigation.answered_by,
        }
