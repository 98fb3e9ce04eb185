"""The graphs that keep credentials fresh and look into what fails."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import TaskGroup, task, task_group

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.hooks.context import MAP_INDEX_TEMPLATE
from airflow_oauth_guard.notifications.telling import Notifiers
from airflow_oauth_guard.operators.approval import ExpireApprovalOperator
from airflow_oauth_guard.operators.due import DueCredentialsOperator
from airflow_oauth_guard.operators.expire import ExpireOperator
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator
from airflow_oauth_guard.operators.refresh import RefreshOperator
from airflow_oauth_guard.operators.report import ReportOpenOperator, ReportOperator
from airflow_oauth_guard.operators.require_usable import RequireUsableOperator
from airflow_oauth_guard.sensors.probe import ProbeSensor

NO_RETRIES: dict[str, Any] = {"retries": 0}
"""For tasks whose failure is a statement; saying it again changes nothing."""

RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "execution_timeout": timedelta(minutes=10),
}
"""For tasks that fail only when the store or Airflow does; what a provider answers is never retried blindly."""

PIPELINE_APPROVAL = timedelta(hours=1)
"""How long a question may keep a pipeline's run open. A pipeline of one run at a time must not be held up for days by a
credential that was reconnected meanwhile; the refresh DAG asks again a day later."""

REFRESH_SOURCE = Source("oauth_guard_refresh", window=timedelta(hours=1))
"""The guard's own heartbeat; the flat-line DAG notices when it stops, or guards nothing."""


def guard_due_credentials(
    connections: Sequence[str] | str = (),
    *,
    notifiers: Notifiers | None = None,
    batch_size: int = 50,
    investigate_dag_id: str = "oauth_guard_investigate",
) -> TaskGroup:
    """Refresh all credentials that are due; hand what failed over to the investigating DAG.

    ``due -> refresh (mapped over batches) -> hand_over -> report``, a heartbeat, always, and beside them a look at whether the
    flat-line DAG still looks. The run is green only if each of them is.

    Args:
        connections: Connection ids to guard, as a list or its JSON (templated).
        notifiers: Notifiers by alert route; ``""`` holds the default ones.
    """
    # What Airflow imports to trigger a DAG takes half a second: pipelines that only guard their credential go without.
    from airflow_oauth_guard.operators.flat_line import DetectorCheckOperator
    from airflow_oauth_guard.operators.hand_over import HandOverOperator

    with TaskGroup(group_id="guard") as group:
        due = DueCredentialsOperator(task_id="due", connections=connections, batch_size=batch_size, **RETRIES)
        refresh = RefreshOperator.partial(task_id="refresh", map_index_template=MAP_INDEX_TEMPLATE, **RETRIES).expand(
            conn_ids=due.output
        )
        hand_over = HandOverOperator(
            task_id="hand_over", trigger_dag_id=investigate_dag_id, trigger_rule="all_done", **RETRIES
        )
        report = ReportOpenOperator(task_id="report", notifiers=notifiers, trigger_rule="all_done", **NO_RETRIES)
        heartbeat = HeartbeatOperator(
            task_id="heartbeat", source=REFRESH_SOURCE, rows=_guarded(due), trigger_rule="all_done", **RETRIES
        )
        due >> refresh >> hand_over >> report
        refresh >> heartbeat
        detector = DetectorCheckOperator(task_id="detector", notifiers=notifiers, **NO_RETRIES)
        # The tasks before it speak of credentials; this one fails the run when one of them could not do its work.
        complete = EmptyOperator(task_id="complete", trigger_rule="none_failed")
        [due, refresh, hand_over, report, heartbeat, detector] >> complete
    return group


def _guarded(due: DueCredentialsOperator) -> str:
    return f"{{{{ ti.xcom_pull(task_ids='{due.task_id}', key='guarded') }}}}"


def investigate_failures(*, notifiers: Notifiers | None = None) -> Any:
    """Look into each failure handed over, one mapped group instance each: probe, ask, expire, report.

    For a DAG that HandOverOperator triggers.
    """

    @task
    def questions(**context: Any) -> list[int]:
        return [int(question) for question in (context["dag_run"].conf or {}).get("investigations", [])]

    @task_group(group_id="investigate")
    def investigate(investigation: Any) -> None:
        _investigation(investigation, notifiers)

    return investigate.expand(investigation=questions())


def guard_credential(
    conn_id: str,
    *,
    notifiers: Notifiers | None = None,
    source: str | Source | None = None,
    skip_when_unusable: bool = False,
) -> RequireUsableOperator:
    """Guard one credential at the head of a pipeline. Returns the gate to put the pipeline behind::

        guard_credential("crm_prod") >> load

    The gate opens as soon as the probe is done: a pipeline waits for no approval. It fails loudly when there is no usable
    token.

    Args:
        notifiers: Notifiers by alert route; ``""`` holds the default ones.
        source: What the pipeline feeds; only to skip.
        skip_when_unusable: Skip the pipeline instead of failing it. A heartbeat of the source says so, and is no delivery.
    """
    with TaskGroup(group_id=f"guard_{conn_id}"):
        refresh = RefreshOperator(task_id="refresh", conn_ids=[conn_id], **RETRIES)
        question = f"{{{{ (ti.xcom_pull(task_ids='{refresh.task_id}') or {{}}).get('investigations', []) | first | default('') }}}}"
        probe = _investigation(question, notifiers, conn_id=conn_id, response_timeout=PIPELINE_APPROVAL)
        refresh >> probe
        usable = RequireUsableOperator(
            task_id="usable",
            conn_id=conn_id,
            source=source,
            skip_when_unusable=skip_when_unusable,
            trigger_rule="all_done",
            **NO_RETRIES,
        )
        [refresh, probe] >> usable
    return usable


def _investigation(
    investigation: Any, notifiers: Notifiers | None, *, conn_id: str = "", **approval: Any
) -> ProbeSensor:
    """``probe -> approve -> expire -> report``. Each step skips or refuses by itself, on what the store says, so no
    trigger rule stands between a healthy credential and its expiry.
    """
    probe = ProbeSensor(
        task_id="probe", investigation=investigation, deferrable=True, retries=2, retry_delay=timedelta(seconds=30)
    )
    approve = ExpireApprovalOperator(
        task_id="approve", investigation=investigation, notifiers_by_route=notifiers, **approval
    )
    expire = ExpireOperator(task_id="expire", investigation=investigation, **RETRIES)
    report = ReportOperator(
        task_id="report",
        investigation=investigation,
        conn_id=conn_id,
        notifiers=notifiers,
        trigger_rule="all_done",
        **NO_RETRIES,
    )
    probe >> approve >> expire >> report
    return probe
