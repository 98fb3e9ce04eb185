"""The last task of a graph: red when somebody must act, with a sentence that says who and what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import BaseOperator

from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.evidence import TRANSIENT, Kind
from airflow_oauth_guard.domain.incidents import About, Incident
from airflow_oauth_guard.errors import NeedsAPersonError
from airflow_oauth_guard.hooks.config import duration, get_store
from airflow_oauth_guard.hooks.context import MAP_INDEX_TEMPLATE, label
from airflow_oauth_guard.hooks.links import CredentialLink
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.notifications.telling import Notifiers, tell

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store


class ReportOperator(BaseOperator):
    """Say how one investigation ended. Give it ``trigger_rule="all_done"``: it speaks whatever happened before it.

    Green when nothing is open, or the question answered itself; skipped, with the reason, while time may cure it; red
    when a person is needed.

    Args:
        investigation: The investigation's id, or empty for none (templated).
        conn_id: The credential to speak of where there is no investigation: a failure that was looked into before
            raises no second one, and is not fine for that.
        notifiers: Notifiers by alert route; ``""`` holds the default ones.
    """

    template_fields: Sequence[str] = ("investigation", "conn_id")
    operator_extra_links = (CredentialLink(),)

    def __init__(
        self, *, investigation: int | str, conn_id: str = "", notifiers: Notifiers | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("map_index_template", MAP_INDEX_TEMPLATE)
        super().__init__(**kwargs)
        self.investigation = investigation
        self.conn_id = conn_id
        self.notifiers = notifiers or {}

    def execute(self, context: Any) -> str:
        store = get_store()
        if self.investigation in ("", None):
            incident = store.incidents.open_about(About.CREDENTIAL, self.conn_id)
            return self._say(store, incident, context) if incident else "No refresh raised a question."
        investigation = store.investigation(int(self.investigation))
        conn_id = investigation.credential.conn_id
        incident = store.incidents.open_about(About.CREDENTIAL, conn_id)
        if incident is not None:
            return self._say(store, incident, context)
        if investigation.closed_at is not None:
            label(context, f"{conn_id}: fine again")
            return f"`{conn_id}`: {investigation.explanation}"
        label(context, f"{conn_id}: not concluded")
        raise NeedsAPersonError(
            f"`{conn_id}`: investigation {investigation.id} came to no conclusion; see its probe task."
        )

    def _say(self, store: Store, incident: Incident, context: Any) -> str:
        now = utcnow()
        [incident] = store.reaches.told([incident], now)
        tell(store, self._with_its_client(store, incident), self.notifiers, context, now)
        if incident.needs_a_person(now):
            label(context, f"{incident.name}: {incident.kind.headline}")
            raise NeedsAPersonError(f"{incident.sentence()} Whose job: {incident.owner}.")
        assert incident.escalates_at is not None
        label(context, f"{incident.name}: waits, {incident.kind.headline}")
        raise AirflowSkipException(
            f"{incident.sentence()} Waiting: the token has life left; a person is called in "
            f"{words(incident.escalates_at - now)} if it has not recovered."
        )

    def _with_its_client(self, store: Store, incident: Incident) -> list[Incident]:
        """An incident that is about the whole client is told as that, once."""
        if incident.speaks_for_itself:
            return [incident]
        client = store.incidents.open_about(About.CLIENT, store.credentials.get(incident.name).client_name)
        return [client] if client else [incident]


class ReportOpenOperator(BaseOperator):
    """Say what is open about any credential. A run never hides a failed refresh: this turns it red.

    Args:
        notifiers: Notifiers by alert route; ``""`` holds the default ones.
    """

    operator_extra_links = (CredentialLink(),)

    def __init__(self, *, notifiers: Notifiers | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.notifiers = notifiers or {}

    def execute(self, context: Any) -> str:
        store, now = get_store(), utcnow()
        of_clients, of_credentials = (
            store.incidents.open_ones(About.CLIENT),
            store.incidents.open_ones(About.CREDENTIAL),
        )
        incidents = store.reaches.told([*of_clients, *of_credentials], now)
        waiting = [incident for incident in incidents if not incident.needs_a_person(now)]
        needed = [incident for incident in _that_speak(store, incidents) if incident.needs_a_person(now)]
        for incident in waiting:
            self.log.warning("Waiting, since time may cure it: %s", incident.sentence())
        tell(store, needed, self.notifiers, context, now)
        lines = [_line(incident) for incident in needed] + _questions(store, now)
        if lines:
            raise NeedsAPersonError(f"{len(lines)} of the guarded credentials need somebody:\n" + "\n".join(lines))
        return f"Nobody is needed; {len(waiting)} wait for their provider."


def _that_speak(store: Store, incidents: list[Incident]) -> list[Incident]:
    """All but those of credentials for which their client's open incident speaks."""
    speaking = {incident.name for incident in incidents if incident.about is About.CLIENT}
    spoken_for = {one.conn_id for one in store.credentials.roster() if one.client_name in speaking}
    return [one for one in incidents if one.speaks_for_itself or one.name not in spoken_for]


def _line(incident: Incident) -> str:
    return f"- {incident.sentence()} Whose job: {incident.owner}."


def _questions(store: Store, now: datetime) -> list[str]:
    """Failed refreshes nobody has concluded about yet; those that time may cure only when there is little left."""
    lines = []
    for question in store.investigations.open_ones():
        credential = store.credentials.by_id(question["credential_id"])
        failed = store.credentials.latest_evidence(credential, Kind.REFRESH)
        if question["conclusion_evidence_id"] is not None or failed is None:
            continue
        overdue = question["opened_at"] < now - duration("investigation_seconds")
        if failed.finding not in TRANSIENT or overdue or credential.life.inside_margin(now):
            lines.append(
                f"- credential `{credential.conn_id}`: its refresh failed ({failed.sentence()}) and is to be looked "
                f"into since {question['opened_at']:%Y-%m-%d %H:%M:%S}Z (DAG `oauth_guard_investigate`)."
            )
    return lines
