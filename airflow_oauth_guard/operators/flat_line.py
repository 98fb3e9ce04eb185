"""Look for sources that have gone quiet, and tell people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_oauth_guard.detector.passing import CANARY_SOURCE, DETECTOR_SOURCE, Pass
from airflow_oauth_guard.domain.flat_line import Standing, judge
from airflow_oauth_guard.domain.incidents import About, Incident, IncidentKind, Phase
from airflow_oauth_guard.domain.metrics import FLAT_LINE
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Cron, check_cron
from airflow_oauth_guard.errors import NeedsAPersonError, OAuthGuardError
from airflow_oauth_guard.hooks import metrics
from airflow_oauth_guard.hooks.config import get_store, option
from airflow_oauth_guard.hooks.context import label, observer
from airflow_oauth_guard.hooks.deadman import ping
from airflow_oauth_guard.hooks.links import SourceLink
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.notifications.telling import Notifiers, tell
from airflow_oauth_guard.store.incidents import Symptom

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store

TOLD_ALONE = 50
"""So many incidents have a task of their own in the grid; the rest shares one, since Airflow maps a limited number."""

CANARY_GRACE = timedelta(hours=1)
"""A test alarm is due so long after its tick, and has to have got through after twice that."""

ABOUT_SOURCES = frozenset({About.GROUP, About.SOURCE, About.MONITOR, About.ROUTE})


class FlatLineOperator(BaseOperator):
    """Look at every source that is due; open, update and resolve incidents.

    Returns:
        What is open, in batches for AlertOperator: ``"<about>/<name>"``.

    Args:
        sources: Sources to watch, as a list or its JSON (templated). Those already registered are watched anyway.
    """

    template_fields: Sequence[str] = ("sources",)
    operator_extra_links = (SourceLink(),)

    def __init__(self, *, sources: Sequence[Source] | str = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sources = sources

    def execute(self, context: Any) -> list[list[str]]:
        store, now = get_store(), utcnow()
        watched = store.sources.register(self.sources, now)
        tests_alarms = bool(option("canary_schedule"))
        if tests_alarms:
            canary(store, context, now)
        one = Pass(store, context, now)
        looked_at = one.run()
        if tests_alarms:
            miss_the_canary(store, now)
        # Where nothing was open and nothing was due, nothing has come to be.
        to_tell = one.to_tell() if looked_at or one.open_ones or tests_alarms else []
        speaking = [incident.open_for for incident in to_tell if incident.about in ABOUT_SOURCES]
        self.log.info("%d of %d sources were due, %d incidents are open", looked_at, watched, len(speaking))
        for name, why in one.unseen.items():
            self.log.error("`%s` could not be looked at: %s", name, why)
        metrics.sources(store.sources.counts)
        context["ti"].xcom_push(key="watched", value=watched)
        context["ti"].xcom_push(key="unseen", value=one.unseen)
        alone = [[name] for name in speaking[:TOLD_ALONE]]
        return [*alone, speaking[TOLD_ALONE:]] if len(speaking) > TOLD_ALONE else alone


class AlertOperator(BaseOperator):
    """Tell people about what is open, and stay red until it is over.

    Args:
        incidents: ``"<about>/<name>"`` each (templated).
        notifiers: Notifiers by alert route; ``""`` holds the default ones.
    """

    template_fields: Sequence[str] = ("incidents",)
    operator_extra_links = (SourceLink(),)

    def __init__(self, *, incidents: Sequence[str], notifiers: Notifiers | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.incidents = incidents
        self.notifiers = notifiers or {}

    def execute(self, context: Any) -> str:
        store, now = get_store(), utcnow()
        found = [store.incidents.open_about(*_about(name)) for name in self.incidents]
        open_ones = [incident for incident in found if incident is not None]
        if not open_ones:
            label(context, f"{', '.join(self.incidents)}: over")
            return f"Over meanwhile: {', '.join(self.incidents)}."
        first, more = open_ones[0], len(open_ones) - 1
        label(context, f"{first.name}: {first.kind.headline}" + (f", and {more} more" if more else ""))
        tell(store, open_ones, self.notifiers, context, now, is_urgent=partial(_is_urgent, store))
        if all(incident.name == CANARY_SOURCE for incident in open_ones):
            label(context, "the test alarm was sent")
            return "The test alarm was sent."
        raise NeedsAPersonError("\n".join(_line(incident) for incident in open_ones))


class AnnouncePassOperator(BaseOperator):
    """The last word of a pass: the detector's own heartbeat, and a ping to whoever watches from outside.

    A pass that could not look at every source says so: its heartbeat counts none, which ends no alarm about the detector, and
    there is no ping. Without any heartbeat the detector would take itself for blind, and be silent about all the others.

    Args:
        check_task_id: The FlatLineOperator's task.

    Raises:
        OAuthGuardError: If something could not be looked at, or the ping was not taken.
    """

    def __init__(self, *, check_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_task_id = check_task_id

    def execute(self, context: Any) -> None:
        ti, store = context["ti"], get_store()
        unseen = ti.xcom_pull(task_ids=self.check_task_id, key="unseen")
        looked_at = 0 if unseen else ti.xcom_pull(task_ids=self.check_task_id, key="watched")
        now = utcnow()
        store.sources.introduce(DETECTOR_SOURCE, now)
        # Another try of this task is no other pass.
        store.sources.beat(DETECTOR_SOURCE.name, looked_at, now, replace(observer(context), try_number=None))
        if unseen:
            what = "; ".join(f"`{name}`: {why}" for name, why in unseen.items())
            raise OAuthGuardError(f"The pass is not complete, so no ping is sent. Not looked at: {what}")
        if url := option("deadman_url"):
            ping(url)


class DetectorCheckOperator(BaseOperator):
    """Look at the detector itself, from the DAG that refreshes: who watches the watcher.

    Args:
        notifiers: Notifiers by alert route; ``""`` holds the default ones.

    Raises:
        NeedsAPersonError: If the detector is silent.
    """

    operator_extra_links = (SourceLink(),)

    def __init__(self, *, notifiers: Notifiers | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.notifiers = notifiers or {}

    def execute(self, context: Any) -> str:
        store, now = get_store(), utcnow()
        watched = store.sources.find(DETECTOR_SOURCE.name)
        if watched is None:
            return "No flat-line DAG has run yet."
        # Not what a pass would say, since a pass takes its own absence for blindness.
        finding = judge(watched.source, watched.habit, watched.state, now)
        if finding.kind is None:
            return f"The detector is fine: {finding.explanation}."
        if watched.is_muted(now):
            return f"It is muted: {finding.explanation}"
        until = store.incidents.expected_until(About.SOURCE, DETECTOR_SOURCE.name, finding.since)
        if until is not None and until > now:
            return f"Somebody said that this had to be expected: {finding.explanation}"
        nobody = "Nobody looks at" if finding.kind is IncidentKind.LATE else "Nobody looks at all of"
        symptom = Symptom(
            about=About.SOURCE,
            name=DETECTOR_SOURCE.name,
            kind=finding.kind,
            summary=f"{finding.explanation} {nobody} the sources: see the DAG `{watched.fed_by.dag_id}`.",
            opened_at=finding.since,
        )
        incident = store.incidents.open(symptom, now)
        if incident.noticed_at == now:
            metrics.count(FLAT_LINE, kind=incident.kind.value)
        tell(store, [incident], self.notifiers, context, now)
        raise NeedsAPersonError(_line(incident))


def canary(store: Store, context: Any, now: datetime) -> None:
    """Let a source of the guard's own go quiet on schedule; its alarm must get through.

    Nobody speaks for it until its alarm has been sent, which is what ends it, or until a person has taken care of it.
    """
    schedule = option("canary_schedule")
    check_cron(schedule, "`[oauth_guard] canary_schedule`")
    source = Source(CANARY_SOURCE, Cron((schedule,), CANARY_GRACE), alert_route="canary", pings=True)
    store.sources.declare(source, now)
    incident = store.incidents.open_about(About.SOURCE, CANARY_SOURCE)
    was_sent = incident is not None and incident.first_notified_at is not None
    if was_sent:
        store.incidents.resolve(About.MONITOR, CANARY_SOURCE, "a test alarm got through", now)
    ended_by_hand = (
        incident.phase is Phase.ACKNOWLEDGED if incident else store.sources.get(CANARY_SOURCE).standing is Standing.LATE
    )
    if was_sent or ended_by_hand:
        store.sources.beat(CANARY_SOURCE, None, now, observer(context))


def miss_the_canary(store: Store, now: datetime) -> None:
    """The test alarm has to have got through; a pass that has just looked for the first time in hours is no failure yet."""
    known = store.sources.find(CANARY_SOURCE)
    incident = store.incidents.open_about(About.SOURCE, CANARY_SOURCE)
    if known is None or known.is_muted(now) or (incident is not None and incident.first_notified_at is not None):
        return
    # From when on it can have been sent.
    due = incident.noticed_at if incident else known.due_at
    if due is not None and now >= due + CANARY_GRACE:
        what = "was raised and not sent" if incident else "was not even raised"
        symptom = Symptom(
            about=About.MONITOR,
            name=CANARY_SOURCE,
            kind=IncidentKind.CANARY_UNHEARD,
            summary=f"The test alarm due at {due:%Y-%m-%d %H:%M}Z {what}: real ones would not get through either.",
            opened_at=due,
        )
        store.incidents.open(symptom, now)


def _is_urgent(store: Store, incident: Incident) -> bool:
    """Whether an alert does not wait for the end of quiet hours: one of its sources is that important."""
    if incident.kind is IncidentKind.EVERYTHING_QUIET:
        return any(watched.source.urgent for watched in store.sources.standing_as(Standing.UNKNOWN))
    about = store.incidents.members(incident) if incident.about is About.GROUP else [incident]
    found = [store.sources.find(one.name) for one in about if one.about is About.SOURCE]
    return any(watched.source.urgent for watched in found if watched is not None)


def _about(name: str) -> tuple[About, str]:
    about, _, name = name.partition("/")
    return About(about), name


def _line(incident: Incident) -> str:
    return f"{incident.sentence()} Open since {incident.opened_at:%Y-%m-%d %H:%M:%S}Z."
