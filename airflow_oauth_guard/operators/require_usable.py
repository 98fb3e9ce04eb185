"""The gate in front of a pipeline: a usable token, or a loud reason why there is none."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator

from airflow_oauth_guard.hooks.base import require_usable
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.links import CredentialLink
from airflow_oauth_guard.hooks.transport import utcnow


class RequireUsableOperator(BaseOperator):
    """Succeed if the credential has an access token that may be used; fail loudly otherwise, never skip.

    Give it ``trigger_rule="all_done"``: a failed refresh with a live token lets the pipeline run.

    Raises:
        CredentialUnusableError: Naming the credential, the evidence and the next step.
    """

    operator_extra_links = (CredentialLink(),)

    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def execute(self, context: Any) -> str:
        store, now = get_store(), utcnow()
        credential = store.credentials.get(self.conn_id)
        require_usable(store, credential, now)
        return f"`{self.conn_id}` is {credential.status.value}, generation {credential.generation}"
