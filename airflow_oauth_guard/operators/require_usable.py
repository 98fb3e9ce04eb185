"""The gate in front of a pipeline: a usable token, or a loud reason why there is none."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.errors import ConfigurationError, CredentialUnusableError
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.links import CredentialLink
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.operators.heartbeat import skip


class RequireUsableOperator(BaseOperator):
    """Succeed if the credential has an access token that may be used; fail loudly otherwise.

    Give it ``trigger_rule="all_done"``: a failed refresh with a live token lets the pipeline run.

    Args:
        source: What the pipeline feeds; only to skip.
        skip_when_unusable: Skip the pipeline instead of failing. A heartbeat of the source says so, and is no delivery.

    Raises:
        CredentialUnusableError: Naming the credential, the evidence and the next step.
    """

    operator_extra_links = (CredentialLink(),)

    def __init__(
        self, *, conn_id: str, source: str | Source | None = None, skip_when_unusable: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        require_source(source, f"Task `{self.task_id}`", skip_when_unusable=skip_when_unusable)
        if source is not None and not skip_when_unusable:
            raise ConfigurationError(
                f"Task `{self.task_id}` names a source and never speaks for it; leave `source` out, or write "
                "`skip_when_unusable=True` as well."
            )
        self.conn_id = conn_id
        self.source = source
        self.skip_when_unusable = skip_when_unusable

    def execute(self, context: Any) -> str:
        # Not sooner: a DAG file that is parsed needs no hook.
        from airflow_oauth_guard.hooks.base import require_usable

        store, now = get_store(), utcnow()
        credential = store.credentials.get(self.conn_id)
        try:
            require_usable(store, credential, now)
        except CredentialUnusableError as error:
            if self.source is None:
                raise
            skip(self.source, error, context=context, credential=self.conn_id)
        return f"`{self.conn_id}` is {credential.status.value}, generation {credential.generation}"


def require_source(source: str | Source | None, where: str, *, skip_when_unusable: bool) -> None:
    """Raises:
    ConfigurationError: If something is to be skipped and nobody would hear of it.
    """
    if skip_when_unusable and not source:
        raise ConfigurationError(
            f"{where} is to be skipped when its credential is unusable, and nobody would hear of it: name the `source` that it "
            "feeds, whose heartbeat then says so."
        )
