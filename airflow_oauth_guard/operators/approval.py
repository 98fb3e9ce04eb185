"""Ask a person before anything is set expired."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.triggers.temporal import DateTimeTrigger

from airflow_oauth_guard.domain.evidence import Finding, Kind
from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.reach import Reach
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.hooks.config import configured_brake, duration, expire_wait, get_store
from airflow_oauth_guard.hooks.context import MAP_INDEX_TEMPLATE, label, observer
from airflow_oauth_guard.hooks.links import CredentialLink
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.notifications.telling import Notifiers, tell
from airflow_oauth_guard.store.records import Investigation

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store

EXPIRE = "Expire it"
KEEP = "Keep it"
BY_POLICY = "policy: evidence suffices"


class ExpireApprovalOperator(HITLOperator):
    """Ask whether a credential whose grant is proven dead may be set expired. Says no by itself when time is up.

    Skips, saying why, where there is nothing to approve; passes at once where the credential's policy is
    ``evidence``. The alert goes out before the wait, not after it.

    Args:
        investigation: The investigation's id, or empty for none (templated).
        notifiers_by_route: Notifiers by alert route; ``""`` holds the default ones.
    """

    template_fields: Sequence[str] = ("investigation", "subject", "body")
    operator_extra_links = (CredentialLink(),)

    def __init__(self, *, investigation: int | str, notifiers_by_route: Notifiers | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("map_index_template", MAP_INDEX_TEMPLATE)
        kwargs.setdefault("response_timeout", duration("approval_seconds"))
        super().__init__(
            subject="Expire a credential?", options=[EXPIRE, KEEP], defaults=[KEEP], multiple=False, **kwargs
        )
        self.investigation = investigation
        self.notifiers_by_route = notifiers_by_route or {}

    def execute(self, context: Any) -> Any:
        if self.investigation in ("", None):
            raise AirflowSkipException("No refresh raised a question.")
        store, now = get_store(), utcnow()
        investigation = store.investigation(int(self.investigation))
        conn_id = investigation.credential.conn_id
        label(context, f"{conn_id}: expire?")
        if investigation.closed_at is not None or investigation.finding != Finding.GRANT_DEAD.value:
            label(context, f"{conn_id}: nothing to approve")
            raise AirflowSkipException(f"`{conn_id}`: no death is proven, so there is nothing to approve.")
        credential = investigation.credential
        if credential.status is Status.EXPIRED:
            label(context, f"{conn_id}: expired already")
            raise AirflowSkipException(f"`{conn_id}` is expired already.")
        if by := store.investigations.was_declined(credential):
            label(context, f"{conn_id}: kept")
            store.investigations.answered(investigation.id, "declined", by, now)
            store.investigations.close(investigation.id, now)
            raise AirflowSkipException(f"`{conn_id}` is kept: {by} was asked about these tokens and said so.")
        self._tell(store, conn_id, context)
        braked = store.clients.brake(credential, configured_brake(), now)
        if credential.expire_policy == "evidence" and not braked:
            return self._by_policy(store, investigation, now)
        self.subject = f"Expire the credential `{conn_id}`?"
        reach = store.reaches.of([conn_id], now)[conn_id]
        self.body = question(investigation, reach) + (f"\n\nYou are asked because {braked}." if braked else "")
        store.investigations.asked(investigation.id, observer(context), now)
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, str]:
        answered = super().execute_complete(context, event)
        user = answered["responded_by_user"]
        by = (user or {}).get("name") or (user or {}).get("id") or "nobody: time ran out"
        chosen = "approved" if answered["chosen_options"] == [EXPIRE] else "declined"
        answer = chosen if user else "unanswered"
        store = get_store()
        store.investigations.answered(int(self.investigation), answer, str(by), utcnow())
        label(context, f"{store.investigation(int(self.investigation)).credential.conn_id}: {answer}")
        self.log.info("Investigation %s: %s by %s", self.investigation, answer, by)
        return {"answer": answer, "by": str(by)}

    def _by_policy(self, store: Store, investigation: Investigation, now: datetime) -> dict[str, str]:
        """The proof suffices, once it is some hours old: a provider that calls every grant dead for a while is wrong."""
        conn_id = investigation.credential.conn_id
        concluded_at = store.investigations.concluded_at(investigation)
        matures_at = (concluded_at or now) + expire_wait()
        if now < matures_at:
            self.log.info(
                "`%s` is proven dead; the policy lets it expire at %s unless it answers before", conn_id, matures_at
            )
            self.defer(trigger=DateTimeTrigger(moment=matures_at), method_name="resume_after_wait")
        latest = store.credentials.latest_evidence(investigation.credential, Kind.REFRESH)
        if latest is not None and latest.finding is not Finding.GRANT_DEAD:
            # Closed, or no later failure could raise a question of its own.
            store.investigations.close(investigation.id, now)
            raise AirflowSkipException(
                f"`{conn_id}` is kept for now: its provider does not say any more that the grant is dead ({latest.sentence()})."
            )
        store.investigations.answered(investigation.id, "approved", BY_POLICY, now)
        return {"answer": "approved", "by": BY_POLICY}

    def resume_after_wait(self, context: Any, event: Any = None) -> Any:
        """Look at everything again: what was true when the wait began may not be."""
        return self.execute(context)

    def _tell(self, store: Store, conn_id: str, context: Any) -> None:
        incident = store.incidents.open_about(About.CREDENTIAL, conn_id)
        if incident is None:
            return
        try:
            tell(store, [incident], self.notifiers_by_route, context, utcnow())
        except Exception:  # noqa: BLE001 - any notifier, any failure: it must not keep the question from being asked
            # tell() has logged why. The incident is still to be told: the next report of the refresh DAG does, and is red.
            self.log.warning("The alert could not be sent; the question is asked all the same.")


def question(investigation: Investigation, reach: Reach) -> str:
    """What a person has to know to answer."""
    return (
        f"{investigation.explanation}\n\n"
        f"It rests on evidence {investigation.conclusion_evidence_id}, token generation {investigation.generation}. "
        f"{reach.sentence()} Expiring it makes every consumer fail loudly; the tokens are kept and recovery goes on asking. "
        "Reconnecting it (new tokens in the connection) answers this question by itself."
    )
