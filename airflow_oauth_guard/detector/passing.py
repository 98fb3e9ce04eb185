"""One pass of the detector: what is due is measured, judged, and becomes an incident or ends one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from airflow_oauth_guard.detector.causes import likely_cause
from airflow_oauth_guard.detector.measuring import Measuring
from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.flat_line import Blind, SourceFinding, Standing, is_over, judge, loads_missed, outlook
from airflow_oauth_guard.domain.incidents import About, Incident, IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.storms import GUARDS_OWN, STORM, Quiet, causes_of, is_everything, listed, storms
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
        self.open_ones = self.store.incidents.open_ones()
        self._end_mutes()
        if any(incident.name == CANARY_SOURCE for incident in self.open_ones) and not option("canary_schedule"):
            self._retire_canary()
        found = self.store.sources.due(self.now, LIMIT)
        if len(found) == LIMIT:
            self.unseen["and more"] = f"more than {LIMIT} sources were due at once; the next pass goes on"
        if found:
            self._look_at([watched for watched in found if not (self._is_retired(watched) or self._is_muted(watched))])
            self.open_ones = self.store.incidents.open_ones()
        return len(found)

    def _look_at(self, due: Sequence[Watched]) -> None:
        due = self._measured(due)
        blind = self._blind(due)
        looks = [look for watched in due if (look := self._look(watched, blind)) is not None]
        open_before = {incident.name: incident for incident in self._open_about(About.SOURCE)}
        quiet = self._unless_everything([look for look in looks if look.finding.kind is not None])
        for number, look in enumerate(quiet):
            self._open(look, explain=number < CAUSES_LOOKED_INTO)
        for look in looks:
            if look.finding.kind is None:
                self._settle_fine(look, open_before.get(look.name))
        if quiet or open_before:
            self._group()

    def _open_about(self, about: About) -> list[Incident]:
        return [incident for incident in self.open_ones if incident.about is about]

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
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(beats)]
        interval = timedelta(seconds=median(gaps)) if gaps else USUAL_INTERVAL
        looked = [*beats, self.now]
        away = [(earlier, later) for earlier, later in pairwise(looked) if later - earlier > BLIND_AFTER * interval]
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
        missed_since = min((self._expected_at(look) for look in late), default=self.now)
        spoke = self.store.sources.spoken_since(incident.noticed_at if incident else missed_since, GUARDS_OWN)
        if incident is not None:
            unknown = [watched.source.name for watched in self.store.sources.standing_as(Standing.UNKNOWN)]
            if spoke >= len(unknown) + len(late):
                self._end_of_everything(incident, spoke)
                return quiet
        elif not is_everything([look.quiet() for look in late], spoke):
            return quiet
        for look in late:
            self.store.sources.settle(look.watched, Standing.UNKNOWN, self.now)
        self._open_everything([look.name for look in late], missed_since)
        return [look for look in quiet if look not in late]

    def _expected_at(self, look: Look) -> datetime:
        state = look.watched.state
        heard = state.last_beat_at or state.registered_at
        due = look.watched.expected_at or outlook(look.watched.source, look.watched.habit, state).late_at
        return max(heard, min(due or self.now, self.now))

    def _open_everything(self, late: Sequence[str], since: datetime) -> None:
        unknown = [watched.source.name for watched in self.store.sources.standing_as(Standing.UNKNOWN)]
        if not late and not unknown:
            return
        summary = (
            f"{len(unknown)} sources that should have spoken are silent, more than speak, and they have no cause in common: look "
            f"at Airflow's workers, the network or the store before any one of them. Unknown until then: {listed(unknown)}."
        )
        self.store.incidents.open(
            Symptom(About.GROUP, EVERYTHING, IncidentKind.EVERYTHING_QUIET, summary, since), self.now
        )

    def _end_of_everything(self, incident: Incident, spoke: int) -> None:
        resolution = f"{spoke} sources speak again; what is silent still gets its own window anew"
        self.store.incidents.resolve(About.GROUP, EVERYTHING, resolution, self.now)
        for watched in self.store.sources.standing_as(Standing.UNKNOWN):
            # From the next pass on each is judged by itself, and the time that was lost is not held against it.
            self.store.sources.settle(watched, Standing.FINE, self.now, look_again_at=self.now)
        log.info("%s `%s`: resolved, %s", incident.about.value, EVERYTHING, resolution)

    def _open(self, look: Look, *, explain: bool) -> None:
        finding, source = look.finding, look.watched.source
        assert finding.kind is not None
        if self.store.incidents.was_expected(About.SOURCE, source.name, finding.since):
            self.store.sources.settle(look.watched, Standing(finding.kind.value), self.now)
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
        self.store.sources.settle(look.watched, Standing(finding.kind.value), self.now)

    def _settle_fine(self, look: Look, incident: Incident | None) -> None:
        watched = look.watched
        if incident is not None and not is_over(incident.kind, incident.opened_at, watched.state):
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
        incidents = self.store.incidents.open_ones(About.SOURCE)
        groups = {
            group.name: group for group in self.store.incidents.open_ones(About.GROUP) if group.name != EVERYTHING
        }
        alone = [incident for incident in incidents if incident.part_of is None]
        together = storms([self._quiet(incident) for incident in alone], already=list(groups))
        members: dict[str, list[Incident]] = {
            name: [incident for incident in incidents if incident.part_of == group.id] for name, group in groups.items()
        }
        for cause, names in together.items():
            members.setdefault(cause, []).extend(incident for incident in alone if incident.name in set(names))
        for cause, quiet in members.items():
            if quiet:
                self._open_group(cause, quiet)
            else:
                self.store.incidents.resolve(About.GROUP, cause, "all of its sources speak again", self.now)

    def _quiet(self, incident: Incident) -> Quiet:
        watched = self.store.sources.get(incident.name)
        return Quiet(incident.name, incident.kind, causes_of(watched.source, incident.kind, watched.fed_by.dag_id))

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
        self.store.incidents.put_together(group, [member for member in members if member.part_of != group.id])

    def _end_mutes(self) -> None:
        """A pause that has ended, or a source that is gone, is no matter any more."""
        for incident in self._open_about(About.MONITOR):
            if incident.kind is IncidentKind.MUTED_FOR_LONG:
                watched = self.store.sources.find(incident.name)
                if watched is None or not watched.is_muted(self.now):
                    self.store.incidents.resolve(About.MONITOR, incident.name, "it is not muted any more", self.now)
                    self.open_ones.remove(incident)


def _merged(stretches: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    merged: list[tuple[datetime, datetime]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
