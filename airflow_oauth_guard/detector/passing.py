"""One pass of the detector: what is due is measured, judged, and becomes an incident or ends one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING, Any

from airflow_oauth_guard.detector.causes import likely_cause
from airflow_oauth_guard.detector.measuring import Measuring
from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.flat_line import Blind, SourceFinding, Standing, is_over, judge, loads_missed, outlook
from airflow_oauth_guard.domain.incidents import About, Incident, IncidentKind
from airflow_oauth_guard.domain.metrics import FLAT_LINE
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.storms import GUARDS_OWN, STORM, Quiet, causes_of, is_everything, listed, storms
from airflow_oauth_guard.hooks import metrics
from airflow_oauth_guard.hooks.config import option
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.sources import MUTED_FOR_LONG, Watched

if TYPE_CHECKING:
    from airflow_oauth_guard.store.store import Store

log = logging.getLogger(__name__)

DETECTOR_SOURCE = Source("oauth_guard_flat_line", window=timedelta(hours=2))
"""The detector's own heartbeat; the refresh DAG notices when it stops."""

CANARY_SOURCE = "oauth_guard_canary"

LIMIT = 10_000
"""Sources that one pass looks at; what is left over makes the pass incomplete, and red."""

BLIND_AFTER = 2.5
"""The detector was away when it was not heard for so many of its usual intervals: one missed pass is none, two are."""

NEIGHBOURS = 6
"""So many intervals before and after one say what was usual then: whoever runs the passes less often is not blind for long."""

USUAL_INTERVAL = timedelta(minutes=15)
"""Until the detector's own history says better."""

LONGEST_BLIND = timedelta(days=30)

CAUSES_LOOKED_INTO = 20
"""For so many newly quiet sources a pass asks Airflow what their DAG does; a storm has one cause."""

EVERYTHING = "everything"


@dataclass(frozen=True)
class Look:
    """One source and what was found of it."""

    watched: Watched
    finding: SourceFinding
    blind: Blind

    @property
    def name(self) -> str:
        return self.watched.source.name

    @property
    def is_new(self) -> bool:
        return self.watched.standing in (Standing.FINE, Standing.UNKNOWN)

    @property
    def heard_at(self) -> datetime:
        return self.watched.state.last_beat_at or self.watched.state.registered_at

    def expected_at(self, now: datetime) -> datetime:
        """When the load should have come that is missing."""
        source, habit, state = self.watched.source, self.watched.habit, self.watched.state
        due = self.watched.expected_at or outlook(source, habit, state).late_at
        return max(self.heard_at, min(due or now, now))

    def quiet(self) -> Quiet:
        assert self.finding.kind is not None
        return Quiet(
            self.name,
            self.finding.kind,
            causes_of(self.watched.source, self.finding.kind, self.watched.fed_by.dag_id),
        )


@dataclass
class Pass:
    """A pass over everything that is due.

    Attributes:
        unseen: Sources that could not be looked at, and why. They are neither fine nor quiet, and a pass with any of them is
            not complete.
    """

    store: Store
    context: Any
    now: datetime
    unseen: dict[str, str] = field(default_factory=dict)
    open_ones: list[Incident] = field(default_factory=list)

    def run(self) -> int:
        """Look at what is due; returns how many sources that were."""
        glance = self.store.glance(self.now, LIMIT)
        found, self.open_ones = glance.due, glance.open_ones
        if self.open_ones or glance.unknown:
            self._end_mutes()
            self._look_after_open_ones()
            self._release_unknown()
            if any(incident.name == CANARY_SOURCE for incident in self.open_ones) and not option("canary_schedule"):
                self._retire_canary()
            found = self.store.sources.due(self.now, LIMIT)
        if len(found) == LIMIT:
            self.unseen["and more"] = f"more than {LIMIT} sources were due at once; the next pass goes on"
        if found:
            self._look_at([watched for watched in found if not (self._is_retired(watched) or self._is_muted(watched))])
        if found or self.open_ones:
            self._group()
        return len(found)

    def to_tell(self) -> list[Incident]:
        """What is open and has an alert of its own; while its source is muted it has none."""
        told = [incident for incident in self.store.incidents.open_ones() if incident.speaks_for_itself]
        if all(incident.about is not About.SOURCE for incident in told):
            return told
        muted = {name for name, watched in self._in_question().items() if watched.is_muted(self.now)}
        return [incident for incident in told if not (incident.about is About.SOURCE and incident.name in muted)]

    def _look_at(self, due: Sequence[Watched]) -> None:
        due = self._measured(due)
        blind = self._blind(due)
        looks = [look for watched in due if (look := self._look(watched, blind)) is not None]
        open_before = {incident.name: incident for incident in self._open_about(About.SOURCE)}
        quiet = self._unless_everything([look for look in looks if look.finding.kind is not None])
        for number, look in enumerate(quiet):
            self._open(look, open_before.get(look.name), explain=number < CAUSES_LOOKED_INTO)
        for look in looks:
            if look.finding.kind is None:
                self._settle_fine(look, open_before.get(look.name))

    def _open_about(self, about: About) -> list[Incident]:
        return [incident for incident in self.open_ones if incident.about is about]

    def _in_question(self) -> dict[str, Watched]:
        return {watched.source.name: watched for watched in self.store.sources.in_question()}

    # -- looking ------------------------------------------------------------------------------------------------------

    def _measured(self, due: Sequence[Watched]) -> list[Watched]:
        measuring = Measuring(self.context, self.now)
        asked = {watched.source.name for watched in due if watched.source.measure is not None}
        for answer in measuring.ask([watched for watched in due if watched.source.name in asked]):
            if answer.problem:
                self.store.sources.not_found(answer.source, answer.problem, self.now)
            elif not any(beat.measured for beat, _, _ in answer.beats):
                # An asset's events are runs; that they could be read at all is what is kept here.
                self.store.sources.nothing_new(answer.source, self.now)
            for beat, observer, key in answer.beats:
                self.store.sources.found(answer.source, beat, observer, key)
        anew = [self.store.sources.find(w.source.name) if w.source.name in asked else w for w in due]
        return [watched for watched in anew if watched is not None]

    def _look(self, watched: Watched, blind: Blind) -> Look | None:
        mute = watched.mute
        if mute is not None:
            # Whoever asked for a pause wants no alarm about it afterwards either.
            blind = sorted([*blind, (mute.since, min(mute.until, self.now))])
        try:
            finding = judge(watched.source, watched.habit, watched.state, self.now, blind)
        except Exception as error:
            # One source that cannot be judged must not hide the others; the pass says so and turns red.
            log.exception("`%s` could not be looked at", watched.source.name)
            self.unseen[watched.source.name] = f"{type(error).__name__}: {error}"
            return None
        level = logging.INFO if finding.kind is None else logging.WARNING
        word = finding.kind.value if finding.kind else "fine"
        log.log(level, "`%s`: %s (%s)", watched.source.name, word, finding.explanation)
        return Look(watched, finding, blind)

    def _is_retired(self, watched: Watched) -> bool:
        if watched.source.name != CANARY_SOURCE or option("canary_schedule"):
            return False
        self._retire_canary()
        return True

    def _retire_canary(self) -> None:
        """A canary that is switched off leaves nothing behind."""
        self.store.sources.forget(CANARY_SOURCE)
        for about in (About.SOURCE, About.MONITOR):
            self.store.incidents.resolve(about, CANARY_SOURCE, "the test alarm is switched off", self.now)
        self.open_ones = [incident for incident in self.open_ones if incident.name != CANARY_SOURCE]

    def _is_muted(self, watched: Watched) -> bool:
        mute = watched.mute
        if mute is None or not watched.is_muted(self.now):
            return False
        if self.now >= mute.since + MUTED_FOR_LONG:
            summary = (
                f"It was muted by {mute.by} at {mute.since:%Y-%m-%d %H:%M}Z until {mute.until:%Y-%m-%d %H:%M}Z"
                f"{f' ({mute.reason})' if mute.reason else ''}. Nobody would notice its silence meanwhile: unmute or forget it."
            )
            self.store.incidents.open(
                Symptom(About.MONITOR, watched.source.name, IncidentKind.MUTED_FOR_LONG, summary, self.now), self.now
            )
        self.store.sources.settle(watched, watched.standing, self.now, look_again_at=mute.until)
        return True

    def _blind(self, due: Sequence[Watched]) -> Blind:
        """Stretches in which nobody looked: between this detector's heartbeats, and while everything was quiet."""
        if not due:
            return ()
        heard = min(w.state.last_rows_at or w.state.last_beat_at or w.state.registered_at for w in due)
        since = max(heard, self.now - LONGEST_BLIND)
        beats = self.store.sources.last_beats(DETECTOR_SOURCE.name, since - timedelta(days=1))
        away = _away([*beats, self.now])
        everything = [
            (incident.opened_at, incident.resolved_at)
            for incident in self.store.incidents.history(About.GROUP, EVERYTHING)
            if incident.resolved_at is not None and incident.resolved_at >= since
        ]
        return _merged([*away, *everything])

    # -- opening and ending -------------------------------------------------------------------------------------------

    def _unless_everything(self, quiet: list[Look]) -> list[Look]:
        """Leave out what says nothing about its source: most of what was expected is missing at once."""
        late = [
            look
            for look in quiet
            if look.finding.kind is IncidentKind.LATE and look.is_new and not look.name.startswith(GUARDS_OWN)
        ]
        incident = next((one for one in self._open_about(About.GROUP) if one.name == EVERYTHING), None)
        if incident is None and len(late) < STORM:
            # To count who spoke reads every source.
            return quiet
        if incident is not None and self._is_everything_over(incident, late):
            return _without(quiet, late)
        # Who spoke since then, and is silent again, is so for a reason of its own.
        anew = [look for look in late if incident is None or look.heard_at >= incident.noticed_at]
        missing = late if self._is_everything(anew) else _without(late, anew)
        if missing or incident is not None:
            since = min((look.expected_at(self.now) for look in missing), default=self.now)
            self._open_everything({look.name for look in missing}, since)
        for look in missing:
            self.store.sources.settle(look.watched, Standing.UNKNOWN, self.now)
        return _without(quiet, missing)

    def _is_everything(self, late: Sequence[Look]) -> bool:
        if len(late) < STORM:
            return False
        since = median_low(look.expected_at(self.now) for look in late)
        # One of them may have spoken after another should have.
        spoke = self._spoke_since(since) - sum(look.heard_at >= since for look in late)
        return is_everything([look.quiet() for look in late], spoke)

    def _spoke_since(self, since: datetime) -> int:
        return self.store.sources.spoken_since(since, GUARDS_OWN)

    def _open_everything(self, late: set[str], since: datetime) -> None:
        unknown = late | {watched.source.name for watched in self.store.sources.standing_as(Standing.UNKNOWN)}
        summary = (
            f"{len(unknown)} sources that should have spoken are silent, more than speak, and they have no cause in common: look "
            f"at Airflow's workers, the network or the store before any one of them. Unknown until then: "
            f"{listed(list(unknown))}."
        )
        incident = self.store.incidents.open(
            Symptom(About.GROUP, EVERYTHING, IncidentKind.EVERYTHING_QUIET, summary, since), self.now
        )
        if incident.noticed_at == self.now:
            metrics.count(FLAT_LINE, kind=incident.kind.value)

    def _is_everything_over(self, incident: Incident, late: Sequence[Look]) -> bool:
        unknown = {watched.source.name for watched in self.store.sources.standing_as(Standing.UNKNOWN)}
        spoke = self._spoke_since(incident.noticed_at)
        if spoke < len(unknown | {look.name for look in late}):
            return False
        resolution = f"{spoke} sources speak again; what is silent still gets its own window anew"
        self.store.incidents.resolve(About.GROUP, EVERYTHING, resolution, self.now)
        for look in late:
            # From the next pass on each is judged by itself, and the time that was lost is not held against it.
            self.store.sources.settle(look.watched, Standing.FINE, self.now, look_again_at=self.now)
        self._judge_unknown_anew()
        log.info("%s `%s`: resolved, %s", incident.about.value, EVERYTHING, resolution)
        return True

    def _judge_unknown_anew(self) -> None:
        for watched in self.store.sources.standing_as(Standing.UNKNOWN):
            self.store.sources.settle(watched, Standing.FINE, self.now, look_again_at=self.now)

    def _release_unknown(self) -> None:
        """Nobody speaks for these where a person has ended the incident that did, or a pass died over it."""
        if all(incident.name != EVERYTHING for incident in self._open_about(About.GROUP)):
            self._judge_unknown_anew()

    def _open(self, look: Look, incident: Incident | None, *, explain: bool) -> None:
        finding, source = look.finding, look.watched.source
        assert finding.kind is not None
        if incident is not None and incident.kind is IncidentKind.FLAT and finding.kind is IncidentKind.LATE:
            # It still waits for rows. If each run made it flat and each pause late, people would be told of both, again and again.
            self.store.sources.settle(look.watched, Standing.FLAT, self.now)
            return
        until = self.store.incidents.expected_until(About.SOURCE, source.name, finding.since)
        if until is not None and until > self.now:
            again = until if source.measure is None else None
            self.store.sources.settle(look.watched, Standing(finding.kind.value), self.now, look_again_at=again)
            return
        cause = ""
        if source.name == CANARY_SOURCE:
            cause = (
                " This is the test alarm, raised on schedule to prove that alarms get through; there is nothing to do."
            )
        elif explain:
            cause = f" {likely_cause(self.store, look.watched, self.context, self.now)}"
        symptom = Symptom(
            about=About.SOURCE,
            name=source.name,
            kind=finding.kind,
            summary=(finding.explanation + cause).rstrip(),
            opened_at=finding.since,
            alert_route=source.alert_route,
        )
        self.store.incidents.open(symptom, self.now)
        if incident is None or incident.kind is not finding.kind:
            metrics.count(FLAT_LINE, kind=finding.kind.value)
        self.store.sources.settle(look.watched, Standing(finding.kind.value), self.now)

    def _settle_fine(self, look: Look, incident: Incident | None) -> None:
        watched = look.watched
        if incident is not None and not is_over(incident.kind, incident.turned_at or incident.opened_at, watched.state):
            # Nothing is wrong now only because more time is given to it: that is no sign of life.
            self.store.sources.settle(watched, Standing(incident.kind.value), self.now)
            return
        if incident is not None:
            resolution = look.finding.explanation + self._missed(watched, incident)
            self.store.incidents.resolve(About.SOURCE, look.name, resolution, self.now)
            log.info("`%s`: resolved, %s", look.name, resolution)
        alarm_at = outlook(watched.source, watched.habit, watched.state, look.blind).alarm_at
        again = None if watched.source.measure is not None else alarm_at
        self.store.sources.settle(watched, Standing.FINE, self.now, look_again_at=again)

    def _missed(self, watched: Watched, incident: Incident) -> str:
        before = self.store.sources.last_rows_before(watched.source.name, incident.opened_at)
        until = watched.state.last_rows_at or watched.state.last_beat_at or self.now
        missed = loads_missed(watched.source, watched.habit, before or watched.state.registered_at, until)
        silent = f"; it was quiet for {words(until - before)}" if before else ""
        return f"{silent}, and about {missed} loads were missed" if missed else silent

    # -- storms -------------------------------------------------------------------------------------------------------

    def _group(self) -> None:
        """One alert for many sources of one cause, with a list; it ends with the last of them."""
        incidents = {incident.name: incident for incident in self.store.incidents.open_ones(About.SOURCE)}
        open_groups = self.store.incidents.open_ones(About.GROUP)
        groups = {group.id: group.name for group in open_groups if group.name != EVERYTHING}
        quiet = {
            name: Quiet(name, incident.kind, causes_of(watched.source, incident.kind, watched.fed_by.dag_id))
            for name, watched in self._in_question().items()
            if (incident := incidents.get(name)) is not None and not watched.is_muted(self.now)
        }
        members: dict[str, list[Incident]] = {cause: [] for cause in groups.values()}
        alone: list[Quiet] = []
        left: list[Incident] = []
        for name, incident in incidents.items():
            cause, one = groups.get(incident.part_of or 0), quiet.get(name)
            if cause is not None and one is not None and cause in one.causes:
                members[cause].append(incident)
                continue
            if cause is not None:
                # What it is now the group does not say, or nothing is to be said of it.
                left.append(incident)
            if one is not None and (cause is not None or incident.part_of is None):
                alone.append(one)
        self.store.incidents.release(left)
        for cause, names in storms(alone, already=list(members)).items():
            members.setdefault(cause, []).extend(incidents[name] for name in names)
        for cause, together in members.items():
            if together:
                self._open_group(cause, together)
            else:
                resolution = "its sources speak again, are muted, or are quiet for another reason"
                self.store.incidents.resolve(About.GROUP, cause, resolution, self.now)

    def _open_group(self, cause: str, members: Sequence[Incident]) -> None:
        kinds = ", ".join(sorted({member.kind.headline for member in members}))
        told_by = max(members, key=lambda member: len(member.summary))
        symptom = Symptom(
            about=About.GROUP,
            name=cause,
            kind=IncidentKind.QUIET_TOGETHER,
            summary=(
                f"{len(members)} sources ({kinds}): {listed([member.name for member in members])}. "
                f"Of `{told_by.name}`: {told_by.summary}"
            ),
            opened_at=min(member.opened_at for member in members),
            alert_route=members[0].alert_route if len({member.alert_route for member in members}) == 1 else "",
        )
        group = self.store.incidents.open(symptom, self.now)
        self.store.incidents.put_together(group, [member for member in members if member.part_of != group.id], self.now)

    def _end_mutes(self) -> None:
        """A pause that has ended, or a source that is gone, is no matter any more."""
        for incident in self._open_about(About.MONITOR):
            if incident.kind is IncidentKind.MUTED_FOR_LONG:
                watched = self.store.sources.find(incident.name)
                if watched is None or not watched.is_muted(self.now):
                    self.store.incidents.resolve(About.MONITOR, incident.name, "it is not muted any more", self.now)
                    self.open_ones.remove(incident)

    def _look_after_open_ones(self) -> None:
        """What is open about a source ends with it, and is looked at where its source is taken for fine."""
        if not (about_sources := self._open_about(About.SOURCE)):
            return
        known = self._in_question()
        for incident in about_sources:
            watched = known.get(incident.name)
            if watched is None:
                self.store.incidents.resolve(About.SOURCE, incident.name, "it is watched no more", self.now)
                self.open_ones.remove(incident)
            elif watched.standing is Standing.FINE:
                # Opened by the DAG that refreshes, or about a source that was forgotten and spoke again: it would come due
                # only when it is silent.
                self.store.sources.settle(watched, Standing.FINE, self.now, look_again_at=self.now)


def _without(looks: Sequence[Look], others: Sequence[Look]) -> list[Look]:
    names = {look.name for look in others}
    return [look for look in looks if look.name not in names]


def _away(looked: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """Between which of its looks the detector was away, by what was usual around them."""
    gaps = [later - earlier for earlier, later in pairwise(looked)]
    away = []
    for number, gap in enumerate(gaps):
        around = [*gaps[max(number - NEIGHBOURS, 0) : number], *gaps[number + 1 : number + 1 + NEIGHBOURS]]
        if gap > BLIND_AFTER * (median_low(around) if around else USUAL_INTERVAL):
            away.append((looked[number], looked[number + 1]))
    return away


def _merged(stretches: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    merged: list[tuple[datetime, datetime]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
