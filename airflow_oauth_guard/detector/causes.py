"""Why a source is probably quiet: what its credential, its DAG and its siblings say."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.evidence import Kind, Verdict
from airflow_oauth_guard.domain.flat_line import Standing, judge
from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError
from airflow_oauth_guard.store.sources import Watched

if TYPE_CHECKING:
    from airflow_oauth_guard.store.records import Credential
    from airflow_oauth_guard.store.store import Store

log = logging.getLogger(__name__)

RUNS_LONG = timedelta(hours=1)
"""A run that takes longer may be why its source is late; a shorter one is only mentioned."""

NAMED = 5
"""So many credentials are named; of more there is the number."""

LATER_THAN_ANY_RUN = timedelta(days=366)
"""Airflow names a DAG's run before an instant; before this one, that is its last."""


class Weight(IntEnum):
    """How much a clue tells; the lightest number is said first."""

    SWITCHED_OFF = 0
    CAUSE = 1
    HINT = 2
    ALIBI = 3


class Clue(NamedTuple):
    weight: Weight
    says: str


def likely_cause(store: Store, watched: Watched, context: Any, now: datetime) -> str:
    """Why this source is probably quiet, the most telling first; empty if nothing is known.

    It asks Airflow up to four things, so a pass asks it about a limited number of sources.

    Args:
        context: The running task's. What Airflow does not tell is logged and left out.
    """
    if watched.state.problem:
        # Nobody knows whether it is quiet at all.
        return ""
    conn_id = watched.source.credential
    credential, siblings = _credential(store, conn_id), siblings_of(store, watched, now)
    clues = list(_of_note(watched))
    if credential is not None:
        clues += [*_of_credential(store, credential, siblings, now), *_of_client(store, credential)]
    elif conn_id:
        clues.append(Clue(Weight.ALIBI, f"it is fed by `{conn_id}`, which is not guarded"))
    clues += [*_of_dag(watched, context, now), *_of_siblings(conn_id, siblings)]
    return " ".join(_sentences(sorted(clues, key=lambda clue: clue.weight)))


def _sentences(clues: Sequence[Clue]) -> Iterator[str]:
    for position, (weight, says) in enumerate(clues):
        text = says if says.endswith(".") else f"{says}."
        if position == 0 and weight <= Weight.CAUSE:
            yield f"Likely cause: {text}"
        else:
            yield text[0].upper() + text[1:]


def _of_note(watched: Watched) -> Iterator[Clue]:
    """What the last run said of itself."""
    if note := watched.state.note:
        yield Clue(Weight.CAUSE if watched.state.skips else Weight.HINT, f"its last run said: {note}")


# -- the credential ---------------------------------------------------------------------------------------------------


def _credential(store: Store, conn_id: str | None) -> Credential | None:
    try:
        return store.credentials.get(conn_id) if conn_id else None
    except NotRegisteredError:
        return None


def _of_credential(store: Store, credential: Credential, siblings: Siblings, now: datetime) -> Iterator[Clue]:
    name = f"its credential `{credential.conn_id}` ({credential.status.value})"
    incident = store.incidents.open_about(About.CREDENTIAL, credential.conn_id)
    if incident is not None:
        yield Clue(Weight.CAUSE, f"{name}: {incident.summary}")
    elif credential.status is not Status.ACTIVE:
        proof = store.credentials.status_evidence(credential)
        yield Clue(Weight.CAUSE, f"{name}: {proof.sentence() if proof else credential.status.meaning}")
    elif credential.failures:
        last = store.credentials.latest_evidence(credential, Kind.REFRESH)
        said = f": {last.sentence()}" if last else ""
        often = "failed" if credential.failures == 1 else f"failed {credential.failures} times in a row"
        yield Clue(Weight.CAUSE, f"{name}: its refresh {often}{said}")
    else:
        fine = f"its credential `{credential.conn_id}` is active{_seen(store, credential, now)} and nothing is open about it"
        where = "at what else these sources share" if siblings.all_quiet else "elsewhere"
        yield Clue(Weight.ALIBI, f"{fine}, so look {where}")


def _seen(store: Store, credential: Credential, now: datetime) -> str:
    last = store.credentials.latest_evidence(credential, Kind.REFRESH, Kind.PROBE)
    if last is None or last.verdict is not Verdict.LIVE:
        return ""
    return f", was seen alive {words(now - last.observed_at)} ago,"


def _of_client(store: Store, credential: Credential) -> Iterator[Clue]:
    """What other credentials of the same client say."""
    incident = store.incidents.open_about(About.CLIENT, credential.client_name)
    if incident is not None:
        yield Clue(Weight.CAUSE, f"the client of its credential: {incident.summary}")
    others = [
        other
        for other in store.credentials.roster()
        if other.client_key == credential.client_key and other.id != credential.id
    ]
    failing = [f"`{other.conn_id}`" for other in others if other.failures or other.status is not Status.ACTIVE]
    if failing:
        more = f" and {len(failing) - NAMED} more" if len(failing) > NAMED else ""
        named = f"{', '.join(sorted(failing)[:NAMED])}{more}"
        yield Clue(
            Weight.HINT, f"{len(failing)} of {len(others)} other credentials of its client fail as well: {named}"
        )


# -- the DAG ----------------------------------------------------------------------------------------------------------


def _of_dag(watched: Watched, context: Any, now: datetime) -> list[Clue]:
    """What has become of the DAG that spoke last."""
    dag_id = watched.fed_by.dag_id
    if dag_id is None:
        return []
    try:
        return list(_of_runs(dag_id, watched, context["ti"], now))
    except Exception:
        # What Airflow lets a task see is no part of the finding; the alarm is raised without it.
        log.warning("Airflow does not tell what DAG `%s` of `%s` does", dag_id, watched.source.name, exc_info=True)
        return []


def _of_runs(dag_id: str, watched: Watched, ti: Any, now: datetime) -> Iterator[Clue]:
    run = last_run(dag_id, now)
    if run is None and ti.get_dr_count(dag_id) == 0:
        yield Clue(
            Weight.CAUSE, f"Airflow knows no run of DAG `{dag_id}` any more, which fed it; was it renamed or removed?"
        )
        return
    # Airflow 3.1 does not tell a task whether a DAG is paused.
    if hasattr(ti, "get_dag") and ti.get_dag(dag_id).is_paused:
        yield Clue(Weight.SWITCHED_OFF, f"DAG `{dag_id}`, which feeds it, is paused")
    spoke = watched.fed_by
    if run is None:
        # Its runs have no logical date, so Airflow does not say which is the last.
        running = ti.get_dr_count(dag_id, states=["running", "queued"])
        says = f"{running} runs of it are queued or running" if running else "none of its runs is queued or running"
        yield Clue(Weight.HINT, f"DAG `{dag_id}` feeds it, and {says}")
    elif run.run_id == spoke.run_id or _ended_before(run, watched.state.last_beat_at):
        yield Clue(Weight.CAUSE, f"no run of DAG `{dag_id}` has begun since the one that spoke last, `{spoke.run_id}`")
    else:
        yield _of_run(dag_id, run, spoke.task_id, ti, now)


def last_run(dag_id: str, now: datetime) -> Any:
    """The last run of any DAG, by logical date; None if there is none, or none with such a date.

    Airflow's task instance gives this of its own DAG only; it asks the same of its supervisor.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetPreviousDagRun

    asked = GetPreviousDagRun(dag_id=dag_id, logical_date=now + LATER_THAN_ANY_RUN)
    return task_runner.SUPERVISOR_COMMS.send(asked).dag_run  # type: ignore[union-attr]


def _ended_before(run: Any, instant: datetime | None) -> bool:
    return instant is not None and run.end_date is not None and bool(run.end_date < instant)


def _of_run(dag_id: str, run: Any, task_id: str | None, ti: Any, now: datetime) -> Clue:
    state = str(getattr(run.state, "value", run.state))
    what = f"the last run of DAG `{dag_id}`, `{run.run_id}`,"
    task = _task_in(dag_id, run.run_id, task_id, ti)
    if state in ("queued", "running"):
        lasts = now - (run.start_date or run.run_after)
        return Clue(
            Weight.CAUSE if lasts >= RUNS_LONG else Weight.HINT, f"{what} has been {state} for {words(lasts)}{task}"
        )
    if state == "success" and not task:
        return Clue(Weight.ALIBI, f"{what} succeeded")
    ended = f" at {run.end_date:%Y-%m-%d %H:%M}Z" if run.end_date else ""
    return Clue(Weight.CAUSE, f"{what} {'succeeded' if state == 'success' else state}{ended}{task}")


def _task_in(dag_id: str, run_id: str, task_id: str | None, ti: Any) -> str:
    """How the task that spoke last fares in this run; nothing if it is as it should be."""
    if task_id is None:
        return ""
    states = ti.get_task_states(dag_id, task_ids=[task_id], run_ids=[run_id]).get(run_id)
    if not states:
        return f", and has no task `{task_id}`, which spoke last"
    others = sorted({str(getattr(state, "value", state) or "not begun") for state in states.values()} - {"success"})
    return f" (task `{task_id}`: {', '.join(others)})" if others else ""


# -- siblings ---------------------------------------------------------------------------------------------------------


class Siblings(NamedTuple):
    """Other sources of the same credential of which something is known."""

    quiet: int = 0
    speaking: int = 0

    @property
    def all_quiet(self) -> bool:
        return self.quiet > 0 and not self.speaking


def siblings_of(store: Store, watched: Watched, now: datetime) -> Siblings:
    """How the other sources of its credential are doing now."""
    conn_id = watched.source.credential
    others = [other for other in store.sources.fed_by(conn_id) if not other.state.problem] if conn_id else []
    quiet = [
        _is_quiet(other, now) for other in others if other.source.name != watched.source.name and _is_known(other, now)
    ]
    return Siblings(quiet=sum(quiet), speaking=len(quiet) - sum(quiet))


def _is_quiet(other: Watched, now: datetime) -> bool:
    # Its standing is of the last look, and this pass may be about to find more.
    if other.standing is Standing.FINE and (other.due_at is None or other.due_at > now):
        return False
    return judge(other.source, other.habit, other.state, now).kind is not None


def _is_known(other: Watched, now: datetime) -> bool:
    """False for one that was never heard and need not have been yet."""
    return other.state.last_beat_at is not None or other.state.last_rows_at is not None or _is_quiet(other, now)


def _of_siblings(conn_id: str | None, siblings: Siblings) -> Iterator[Clue]:
    known = siblings.quiet + siblings.speaking
    if siblings.all_quiet:
        others = f"all {known} other sources of `{conn_id}` are" if known > 1 else f"the other source of `{conn_id}` is"
        yield Clue(Weight.HINT, f"{others} quiet as well")
    elif siblings.speaking:
        here = ", so look at this pipeline" if siblings.speaking * 2 > known else ""
        yield Clue(Weight.HINT, f"{siblings.speaking} of {known} other sources of `{conn_id}` speak{here}")
