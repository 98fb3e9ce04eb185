"""Look for sources that have gone quiet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, BaseOperator

from airflow_oauth_guard.domain.flat_line import (
    Measure,
    Source,
    SourceFinding,
    judge,
    require_distinct,
    sources_from_json,
)
from airflow_oauth_guard.domain.incidents import About, Incident, IncidentKind
from airflow_oauth_guard.errors import NeedsAPersonError, NotRegisteredError, OAuthGuardError
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.context import label
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.notifications.telling import Notifiers, tell
from airflow_oauth_guard.store.incidents import Symptom

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store


class FlatLineOperator(BaseOperator):
    """Compare every watched source with its window; open, update and resolve incidents.

    Returns:
        The names of the sources with an open incident, for AlertOperator.

    Args:
        sources: Sources to watch, as a list or its JSON (templated). Those already registered are watched anyway.
    """

    template_fields: Sequence[str] = ("sources",)

    def __init__(self, *, sources: Sequence[Source] | str = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sources = sources

    def execute(self, context: Any) -> list[str]:
        store, now = get_store(), utcnow()
        declared = sources_from_json(self.sources or "[]") if isinstance(self.sources, str) else list(self.sources)
        require_distinct(declared)
        store.sources.register(declared, now)
        watched = store.sources.registered()
        quiet = [source.name for source in watched if self._check(store, source, now)]
        self.log.info("%d sources looked at, %d with an open incident", len(watched), len(quiet))
        context["ti"].xcom_push(key="looked_at", value=len(watched))
        return quiet

    def _check(self, store: Store, source: Source, now: datetime) -> bool:
        heard = store.sources.heard(source)
        if source.count is not None:
            heard = self._counted(source, heard, now)
        finding = judge(source, heard, now)
        open_incident = store.incidents.open_about(About.SOURCE, source.name)
        level = self.log.info if finding.kind is None else self.log.warning
        level("`%s`: %s (%s)", source.name, finding.kind.value if finding.kind else "fine", finding.explanation)
        if finding.kind is not None:
            store.incidents.open(_symptom(store, source, finding), now)
            return True
        if open_incident is not None and _is_positive(open_incident, heard):
            store.incidents.resolve(About.SOURCE, source.name, finding.explanation, now)
            self.log.info("`%s`: resolved, %s", source.name, finding.explanation)
            return False
        return open_incident is not None

    def _counted(self, source: Source, heard: Measure, now: datetime) -> Measure:
        assert source.count is not None
        try:
            return replace(heard, counted=count_rows(source, now))
        except Exception as error:
            # Neither zero nor fine: an uncounted destination alarms as exactly that.
            self.log.warning("`%s`: the destination could not be counted", source.name, exc_info=True)
            return replace(heard, problem=f"{type(error).__name__}: {error}"[:300])


class AlertOperator(BaseOperator):
    """Tell people about one quiet source, and stay red until it speaks.

    Args:
        source: The source's name (templated).
        notifiers: Notifiers by alert route; ``""`` holds the default ones.
    """

    template_fields: Sequence[str] = ("source",)

    def __init__(self, *, source: str, notifiers: Notifiers | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.notifiers = notifiers or {}

    def execute(self, context: Any) -> str:
        store, now = get_store(), utcnow()
        incident = store.incidents.open_about(About.SOURCE, self.source)
        if incident is None:
            label(context, f"{self.source}: speaks again")
            return f"`{self.source}` speaks again."
        label(context, f"{self.source}: {incident.kind.headline}")
        tell(store, [incident], self.notifiers, context, now)
        raise NeedsAPersonError(f"{incident.sentence()} Open since {incident.opened_at:%Y-%m-%d %H:%M:%S}Z.")


def count_rows(source: Source, now: datetime) -> int:
    """Ask the destination itself how many rows arrived within the window.

    Raises:
        OAuthGuardError: If the query does not return a number.
    """
    from jinja2.sandbox import SandboxedEnvironment

    assert source.count is not None
    sql = SandboxedEnvironment().from_string(source.count.sql).render(since=now - source.window, until=now)
    row = BaseHook.get_hook(source.count.conn_id).get_first(sql)
    if not row or row[0] is None:
        raise OAuthGuardError(f"the count of `{source.name}` returned no row; select one number")
    return int(row[0])


def likely_cause(store: Store, conn_id: str) -> str:
    """What is known about the credential that feeds a source."""
    try:
        credential = store.credentials.get(conn_id)
    except NotRegisteredError:
        return f" It is fed by `{conn_id}`, which is not guarded."
    incident = store.incidents.open_about(About.CREDENTIAL, conn_id)
    if incident is not None:
        return f" Likely cause: its credential `{conn_id}` ({credential.status.value}): {incident.summary}"
    return f" Its credential `{conn_id}` is {credential.status.value} and nothing is open about it, so look elsewhere."


def _symptom(store: Store, source: Source, finding: SourceFinding) -> Symptom:
    assert finding.kind is not None
    cause = likely_cause(store, source.credential) if source.credential else ""
    return Symptom(
        about=About.SOURCE,
        name=source.name,
        kind=finding.kind,
        summary=finding.explanation + cause,
        opened_at=finding.since,
        alert_route=source.alert_route,
    )


def _is_positive(incident: Incident, heard: Measure) -> bool:
    """A source is taken back only on what was heard: rows for one that was flat, any run for one that was late."""
    if incident.kind is IncidentKind.LATE:
        return heard.last_beat_at is not None or bool(heard.counted)
    return heard.last_rows_at is not None or bool(heard.counted)
