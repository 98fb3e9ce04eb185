"""kill -9 at every point of a refresh: what the next process makes of it, judged by what the provider knows.

    python -m tests.faults.kills --database sqlite --times 5

The provider rotates its refresh tokens and detects reuse. A killed refresh may cost the grant only where the answer was
in nobody's hands but the killed process's, and the provider promises no grace; and then a person must be told.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from sqlalchemy import event

from tests.authorization_server.client import AuthorizationServer
from tests.faults.databases import NAMES, database
from tests.faults.harness import Forked, Time, arguments, asked, at, environment, is_live, table

# Airflow is imported by these, so they come after the harness, which sets its environment.
from airflow_oauth_guard.domain.evidence import Kind  # isort: skip
from airflow_oauth_guard.domain.incidents import IncidentKind  # isort: skip
from airflow_oauth_guard.domain.status import Status  # isort: skip
from airflow_oauth_guard.errors import CredentialUnusableError, OAuthGuardError, UnprovenTransitionError  # isort: skip
from airflow_oauth_guard.hooks.config import get_store  # isort: skip
from airflow_oauth_guard.hooks.refreshing import Refreshed, RefreshResult  # isort: skip
from airflow_oauth_guard.store.store import Store  # isort: skip
from tests.airflow_parts import WHO, Connector, Guarded, looked_into, utcnow  # isort: skip

# -- the course of time -----------------------------------------------------------------------------------------------

LIFE = timedelta(minutes=20)
"""Of an access token; it is due at half of it."""

DUE_AFTER = LIFE / 2 + timedelta(seconds=1)
DEADLINE = timedelta(seconds=5)
"""`[oauth_guard] request_deadline_seconds`, which the length of a lease follows."""

LEASE_OVER = 2 * DEADLINE + timedelta(seconds=61)
GRACE = timedelta(minutes=5)
"""The provider's, where it has one: longer than a lease, else it would be of no use after a crash."""

LIFE_OVER = LIFE
"""From then on the access token is over, and any back-off too."""

AT_A_TIME = 20
"""Refreshes killed at each point before time passes for all; more would take so long that the grace runs out."""

# -- the points -------------------------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_intent(store: Store) -> None:
    _instead(store.credentials, "open_intent", lambda real: die())


def after_intent(store: Store) -> None:
    _instead(store.credentials, "open_intent", lambda real: (real(), die()))


def after_the_call(store: Store) -> None:
    _instead(store.credentials, "keep_answer", lambda real: die())


def after_the_answer_was_kept(store: Store) -> None:
    _instead(store.credentials, "keep_answer", lambda real: (real(), die()))


def inside_the_commit(store: Store) -> None:
    """At a random moment from the beginning of the commit on; it may have come through, or not."""
    renewing = threading.Event()
    _instead(store.credentials, "renew", lambda real: (renewing.set(), real())[1])

    @event.listens_for(store.database.engine, "commit")
    def _commit(_connection: Any) -> None:
        if renewing.is_set():
            threading.Thread(target=_die_soon, daemon=True).start()


def _die_soon() -> None:
    time.sleep(random.uniform(0, 0.001))
    die()


def _instead(target: Any, name: str, call: Callable[[Callable[[], Any]], Any]) -> None:
    """Have this called in place of a method; it is given the method, ready to be called."""
    real = getattr(target, name)
    setattr(target, name, lambda *args, **named: call(partial(real, *args, **named)))


POINTS: dict[str, Callable[[Store], None]] = {
    "before the intent": before_intent,
    "after the intent": after_intent,
    "after the call": after_the_call,
    "after the answer was kept": after_the_answer_was_kept,
    "inside the commit": inside_the_commit,
}

TOLD_APART = {"before the intent", "after the answer was kept", "inside the commit"}
"""Points at which the store knows enough: the next process renews at once, whatever the provider is like."""

MAY_BE_LOST = "after the call"
"""The one point at which a provider without grace has given its next token to nobody."""

# -- what was seen ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What the next process did about one credential."""

    outcome: Refreshed
    explanation: str
    sent: int
    """Requests that the refresh itself sent to the token endpoint."""
    finding: str
    """What the investigation concluded; empty if there was no question."""
    sent_again: int
    """Requests that a second refresh sent right after."""
    usable: str
    """What a pipeline gets: `live`, `dead` for a token that the resource refuses, or `refused` with an error."""


@dataclass(frozen=True)
class Victim:
    """One refresh that was killed, and how its credential ended."""

    first: Look
    """After the lease was over, while the access token lives."""
    last: Look
    """After the access token's life was over."""
    status: Status
    ever_expired: bool
    gate_opened: bool
    """Whether the store would have let somebody set it expired."""
    incident: IncidentKind | None
    holds_live_token: bool
    """Whether the refresh token in our store is one that the provider accepts."""


@dataclass(frozen=True)
class Killed:
    """All kills at one point."""

    database: str
    point: str
    grace: bool
    victims: tuple[Victim, ...] = field(repr=False)

    @property
    def ways(self) -> Counter[str]:
        return Counter(way_out(self.point, victim) for victim in self.victims)

    @property
    def problems(self) -> list[str]:
        found = Counter(problem for victim in self.victims for problem in problems_of(self, victim))
        return [f"{count}x {problem}" for problem, count in found.items()]


def way_out(point: str, victim: Victim) -> str:
    """How it ended, in one of the report's columns."""
    first = victim.first
    if first.outcome is Refreshed.FRESH:
        return "was renewed"
    if first.outcome is Refreshed.RENEWED:
        if first.sent == 0:
            return "taken in"
        return "asked" if point == "before the intent" else "in grace"
    if victim.last.outcome is Refreshed.RENEWED:
        return "last resort"
    return "lost" if not victim.holds_live_token else "stuck"


def problems_of(killed: Killed, victim: Victim) -> Iterator[str]:
    """What contradicts "no token is ever lost"."""
    way, first = way_out(killed.point, victim), victim.first
    if victim.status is Status.EXPIRED or victim.ever_expired:
        yield "was set expired"
    if victim.gate_opened:
        yield "could have been set expired"
    if killed.point in TOLD_APART and way not in ("was renewed", "taken in", "asked"):
        yield f"was not renewed at once although the store knew enough: {first.outcome.value}, {first.explanation}"
    if killed.grace and way in ("last resort", "lost"):
        yield f"was not renewed within the grace: {first.outcome.value}, {first.explanation}"
    if way == "lost" and killed.point != MAY_BE_LOST:
        yield "lost a token that the provider had not given to anybody else"
    if way == "stuck":
        yield f"holds a live token and was not renewed: {victim.last.outcome.value}, {victim.last.explanation}"
    if way in ("lost", "stuck") and victim.incident is not IncidentKind.AMBIGUOUS:
        yield f"no person was told that it is ambiguous: {victim.incident}"
    if way in ("last resort", "lost") and (first.finding != "ambiguous" or first.sent + first.sent_again > 0):
        yield f"a token that may be spent was not left alone: {first}"
    if first.usable != "live":
        yield f"while the access token lived, a pipeline got: {first.usable}"
    if victim.last.usable != ("refused" if way == "lost" else "live"):
        yield f"in the end a pipeline got: {victim.last.usable}"
    if way != "lost" and not victim.holds_live_token:
        yield "was renewed, but the refresh token in the store is dead"
    if way != "lost" and victim.incident is not None:
        yield f"was renewed, but an incident is open: {victim.incident.value}"


# -- the run ----------------------------------------------------------------------------------------------------------


def run(database_name: str, *, times: int = 100, points: tuple[str, ...] = tuple(POINTS)) -> list[Killed]:
    """Kill so many refreshes at each point, without and with a provider that grants grace."""
    found: dict[tuple[bool, str], list[Victim]] = {(grace, point): [] for grace in (False, True) for point in points}
    with database(database_name) as url, environment(url, request_deadline_seconds=str(DEADLINE.seconds)) as patch:
        for begin in range(0, times, AT_A_TIME):
            for grace in (False, True):
                names = [f"n{n}" for n in range(begin, min(begin + AT_A_TIME, times))]
                for point, victims in _killed_together(points, names, patch, grace=grace):
                    found[grace, point] += victims
    return [Killed(database_name, point, grace, tuple(victims)) for (grace, point), victims in found.items()]


def _killed_together(
    points: tuple[str, ...], names: list[str], patch: Any, *, grace: bool
) -> Iterator[tuple[str, list[Victim]]]:
    """Kill at every point, then let time pass for all. With a server of our own, since its clock does not go back."""
    with AuthorizationServer() as server:
        time_passed = Time(server)
        doomed = [
            (point, _connect(server, patch, f"{point} {name}", grace=grace)) for point in points for name in names
        ]
        guarded = [one for _, one in doomed]
        time_passed.then(_renew_all, guarded)
        time_passed.by(DUE_AFTER)
        for point, one in doomed:
            time_passed.then_dies(_refresh_and_die, one, point)
        time_passed.by(LEASE_OVER)
        first = time_passed.then(_look_at_all, guarded)
        time_passed.by(LIFE_OVER)
        last = time_passed.then(_look_at_all, guarded)
        ends = time_passed.then(_ends_of_all, guarded)
    victims = [Victim(*looks, *end) for *looks, end in zip(first, last, ends, strict=True)]
    for point in points:
        yield point, [victim for (at, _), victim in zip(doomed, victims, strict=True) if at == point]


def _connect(server: AuthorizationServer, patch: Any, name: str, *, grace: bool) -> Guarded:
    client: dict[str, Any] = {"rotation": True, "reuse_detection": True, "access_lifetime": LIFE}
    fields: dict[str, Any] = {"expire_policy": "evidence"}
    if grace:
        client["rotation_grace"] = GRACE
        fields["rotation_grace"] = GRACE.seconds
    conn_id = f"{name} {'in grace' if grace else 'bare'}".replace(" ", "_")
    return Connector(server, patch, conn_id)(client=client, **fields)


# -- asleep instead of dead -------------------------------------------------------------------------------------------

SLEEPS = {"before the intent": "open_intent", "after the call": "keep_answer", "after the answer was kept": "renew"}
"""The step of the store before which the process falls asleep."""


@dataclass(frozen=True)
class Slept:
    """A process that slept through the end of its lease, as a machine does that is suspended, and then went on."""

    point: str
    grace: bool
    next: Look
    """What another process did meanwhile."""
    woke: str
    """How the sleeper's own refresh ended: an outcome, or the name of an error."""
    generation: int
    status: Status
    incident: IncidentKind | None
    holds_live_token: bool


def run_asleep(database_name: str) -> list[Slept]:
    """Put a refresh to sleep at each point, without and with a provider that grants grace."""
    with database(database_name) as url, environment(url, request_deadline_seconds=str(DEADLINE.seconds)) as patch:
        return [_asleep(point, patch, grace=grace) for grace in (False, True) for point in SLEEPS]


def _asleep(point: str, patch: Any, *, grace: bool) -> Slept:
    with AuthorizationServer() as server:
        clock = Time(server)
        guarded = _connect(server, patch, f"asleep {point}", grace=grace)
        clock.then(_renew_all, [guarded])
        clock.by(DUE_AFTER)
        sleeper = Forked(_refresh_asleep, guarded, point, clock.passed)
        try:
            sleeper.answer()
            clock.by(LEASE_OVER)
            (look,) = clock.then(_look_at_all, [guarded])
            sleeper.wake()
            woke = sleeper.answer()
        finally:
            sleeper.end()
        ((status, _, _, incident, live),) = clock.then(_ends_of_all, [guarded])
        generation = clock.then(_generation, guarded)
    return Slept(point, grace, look, woke, generation, status, incident, live)


def _refresh_asleep(pipe: Connection, guarded: Guarded, point: str, passed: timedelta) -> str:
    def sleep(real: Callable[[], Any]) -> Any:
        pipe.send("asleep")
        os.kill(os.getpid(), signal.SIGSTOP)
        # The signal may stop another thread first; this one must not get as far as the step.
        time.sleep(0.5)
        return real()

    store = get_store()
    _instead(store.credentials, SLEEPS[point], sleep)
    try:
        result: RefreshResult = at(passed, guarded.refresh, (store,))
    except OAuthGuardError as error:
        return type(error).__name__
    return result.outcome.value


def _generation(guarded: Guarded) -> int:
    return guarded.credential(get_store()).generation


# -- in processes of their own ----------------------------------------------------------------------------------------


def _refresh_and_die(guarded: Guarded, point: str) -> Refreshed:
    store = get_store()
    POINTS[point](store)
    result = guarded.refresh(store)
    # The thread that kills us may not have come to it yet.
    time.sleep(1)
    return result.outcome


def _renew_all(guarded: list[Guarded]) -> None:
    """The first tokens of the journal: their form of request is proven, and their life is known."""
    store = get_store()
    for one in guarded:
        result = one.refresh(store)
        assert result.outcome is Refreshed.RENEWED, result


def _look_at_all(guarded: list[Guarded]) -> list[Look]:
    store = get_store()
    return [_look_at(store, one) for one in guarded]


def _look_at(store: Store, guarded: Guarded) -> Look:
    result, sent = _refreshed(store, guarded)
    finding = _investigated(store, guarded)
    _, sent_again = _refreshed(store, guarded)
    return Look(result.outcome, result.explanation, sent, finding, sent_again, _in_hand(guarded))


def _refreshed(store: Store, guarded: Guarded) -> tuple[RefreshResult, int]:
    """A refresh, and how many requests it sent."""
    before = asked(guarded.server, guarded.conn_id)
    result = guarded.refresh(store)
    return result, asked(guarded.server, guarded.conn_id) - before


def _investigated(store: Store, guarded: Guarded) -> str:
    """Look into the question, if one was raised, as the guard's own tasks do."""
    question = store.investigations.take_on(guarded.credential(store), WHO, utcnow())
    return looked_into(store, guarded, question).finding.value if question is not None else ""


def _in_hand(guarded: Guarded) -> str:
    try:
        token = guarded.hook().get_token()
    except CredentialUnusableError:
        return "refused"
    return "live" if _is_live(guarded, token) else "dead"


def _ends_of_all(guarded: list[Guarded]) -> list[tuple[Any, ...]]:
    store = get_store()
    return [_end_of(store, one) for one in guarded]


def _end_of(store: Store, guarded: Guarded) -> tuple[Any, ...]:
    """Everything in :class:`Victim` beside the looks, in its order."""
    credential, incident = guarded.credential(store), guarded.incident(store)
    return (
        credential.status,
        any(change["to_status"] == Status.EXPIRED.value for change in store.credentials.transitions(credential)),
        _gate_opens(store, guarded),
        incident.kind if incident else None,
        _is_live(guarded, store.credentials.tokens(credential).refresh_token),
    )


def _gate_opens(store: Store, guarded: Guarded) -> bool:
    """Try to set it expired on the strength of the newest conclusion."""
    proof = store.credentials.latest_evidence(guarded.credential(store), Kind.CONCLUSION)
    try:
        store.credentials.expire(guarded.conn_id, proof.id if proof else None, WHO, utcnow())
    except UnprovenTransitionError:
        return False
    return True


def _is_live(guarded: Guarded, token: str) -> bool:
    return is_live(guarded.server, (guarded.conn_id, guarded.description["password"]), token)


# -- the report -------------------------------------------------------------------------------------------------------

WAYS = {
    "was renewed": "the commit had come through",
    "taken in": "the kept answer was taken in, nothing was sent",
    "asked": "nothing had been sent, so it was asked",
    "in grace": "the same token was accepted again within the provider's grace",
    "last resort": "ambiguous, a person told; renewed once the access token's life was over",
    "lost": "ambiguous, a person told; the provider had given the next token to the killed process only",
    "stuck": "neither renewed nor lost",
}
COLUMNS = ("database", "killed", "grace", "times", *WAYS, "incidents", "set expired", "problems")


def as_markdown(results: list[Killed]) -> str:
    """One line per point, what the columns mean, and every problem by name."""
    meanings = [f"- {way}: {meaning}" for way, meaning in WAYS.items()]
    problems = [
        f"- {result.database}, {result.point}, {'with' if result.grace else 'without'} grace: {problem}"
        for result in results
        for problem in result.problems
    ]
    lines = table(COLUMNS, [_line(result) for result in results])
    return "\n".join([lines, "", *meanings, "", *(problems or ["No problem was found."])])


def _line(result: Killed) -> list[Any]:
    expired = sum(victim.status is Status.EXPIRED or victim.ever_expired for victim in result.victims)
    told = sum(victim.first.finding == "ambiguous" for victim in result.victims)
    return [
        *(result.database, result.point, "yes" if result.grace else "no", len(result.victims)),
        *(result.ways[way] for way in WAYS),
        *(told, expired, len(result.problems)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=__doc__)
    parser.add_argument("--database", choices=NAMES, default="sqlite")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--point", choices=POINTS, action="append", help="default: every one")
    given = arguments(parser)
    results = run(given.database, times=given.times, points=tuple(given.point or POINTS))
    print(as_markdown(results))
    raise SystemExit(any(result.problems for result in results))


if __name__ == "__main__":
    main()
