"""Stores for the page to show: one with everything in it, and one with very many credentials."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_oauth_guard.detector.lessons import lesson
from airflow_oauth_guard.domain.evidence import Finding, Kind, Observer, Reading, Shape, Subject, Verdict
from airflow_oauth_guard.domain.flat_line import Standing
from airflow_oauth_guard.domain.incidents import About, Incident, IncidentKind
from airflow_oauth_guard.domain.sources import AssetEvents, Source, SqlCount
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.domain.windows import Cron, Learned
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import (
    HOUR,
    asked,
    concluded,
    enrolled,
    evidence_of,
    expire,
    lapse,
    proven_dead,
    renew,
    used_by,
    utcnow,
)

DAY = timedelta(days=1)
LISTS = ("/", "/sources", "/incidents")
"""Each leads to what is in it."""

ABOUT = {
    IncidentKind.LATE: About.SOURCE,
    IncidentKind.FLAT: About.SOURCE,
    IncidentKind.STUCK: About.SOURCE,
    IncidentKind.UNMEASURED: About.SOURCE,
    IncidentKind.MUTED_FOR_LONG: About.MONITOR,
    IncidentKind.QUIET_TOGETHER: About.GROUP,
    IncidentKind.EVERYTHING_QUIET: About.GROUP,
    IncidentKind.ALERTS_FAILING: About.ROUTE,
    IncidentKind.CANARY_UNHEARD: About.MONITOR,
    IncidentKind.CLIENT_FAILING: About.CLIENT,
}
"""What each kind is about; a credential, where nothing is said."""


@dataclass
class Scene:
    """What was put into a store, by the names under which the page has it."""

    store: Store
    wild: str
    credentials: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    evidence: list[tuple[str, int]] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)

    def called(self, name: str) -> str:
        return f"{name}{self.wild}"

    def said(self, text: str) -> str:
        return f"{text} {self.wild}".strip()


def everything(store: Store, wild: str = "") -> Scene:
    """Each status, each kind of evidence, each kind of incident, each way to watch a source.

    Args:
        wild: Put into every name and every text that comes from outside.
    """
    scene = Scene(store, wild)
    _credentials(scene)
    _seen(scene)
    _sources(scene)
    _consumers(scene)
    _incidents(scene)
    return scene


def _credentials(scene: Scene) -> None:
    store = scene.store
    names = ("fresh", "dead", "lapsed", "asked", "answered", "expired", "revived", "restored", "endless", "empty")
    made = {name: scene.called(name) for name in names}
    scene.credentials += made.values()
    for name in ("fresh", "lapsed", "expired", "revived", "restored"):
        enrolled(store, made[name], provider=scene.called("vendor"), client_key=scene.called("client"))
    enrolled(store, made["endless"], refresh_token="", expires_at=None, connection_class="long_lived_token")
    enrolled(store, made["empty"], access_token="", refresh_token="", expires_at=None)
    renew(store, made["fresh"])
    lapse(store, made["lapsed"])
    proven_dead(store, made["dead"])
    for name, answer in (("asked", ""), ("answered", "declined")):
        question = proven_dead(store, made[name])
        store.investigations.asked(question, _task(scene), utcnow())
        if answer:
            store.investigations.answered(question, answer, scene.said("Ada"), utcnow())
    for name in ("expired", "revived", "restored"):
        expire(store, made[name])
    store.credentials.revive(made["revived"], scene.said("the vendor said so"), _person(scene), utcnow())
    renew(store, made["restored"])
    statuses = {store.credentials.get(name).status for name in scene.credentials}
    assert statuses == set(Status)


def _task(scene: Scene) -> Observer:
    return Observer(scene.called("dag"), scene.called("run"), scene.called("task"), 3, 2)


def _person(scene: Scene) -> Observer:
    return Observer(task_id="OAuth Guard page", person=scene.said("Ada"))


def _seen(scene: Scene) -> None:
    """Each kind, each finding, each subject, by a task, by a person, and by nobody in particular."""
    store, name = scene.store, scene.called("seen")
    credential = enrolled(store, name, alert_route=scene.said("owners"))
    scene.credentials.append(name)
    findings, subjects = list(Finding), list(Subject)
    for number in range(max(len(Kind), len(findings))):
        kind, finding = list(Kind)[number % len(Kind)], findings[number]
        subject = subjects[number % len(subjects)]
        reading = Reading(subject, finding, scene.said("http_418"), scene.said("the provider says `no`"))
        seen = evidence_of(
            kind,
            finding,
            subject,
            credential,
            reading=reading,
            verdict=Verdict.LIVE if finding is Finding.LIVE else Verdict.OPEN,
            shape=Shape(
                scene.said("refresh_token"),
                "POST",
                scene.said("https://provider.example/token"),
                scene.said("client_secret_basic"),
                "form",
                ("grant_type", scene.called("scope")),
            ),
            http_status=400,
            headers={"server": scene.said("nginx"), scene.called("x-header"): "1"},
            body=scene.said('{"error": "invalid_grant"}') if number % 2 else f'{{"error": {_json(scene.wild)}}}',
            skew=timedelta(seconds=90),
            retry_after=timedelta(seconds=30),
            rests_on=tuple(one for _, one in scene.evidence[:2]) if kind is Kind.CONCLUSION else (),
            observer=(_task(scene), _person(scene), Observer())[number % 3],
        )
        kept = store.credentials.record(credential, seen, utcnow())
        assert kept.id is not None
        scene.evidence.append((name, kept.id))
    question = asked(store, name)
    concluded(store, question, proven=False)
    kinds = {one.kind for one in store.timeline.page(store.credentials.get(name))}
    assert kinds == set(Kind)


def _json(text: str) -> str:
    import json

    return json.dumps(text)


def _sources(scene: Scene) -> None:
    store, now, fed = scene.store, utcnow(), scene.called("dead")
    declared = [
        Source(scene.called("fixed"), DAY, credential=fed),
        Source(
            scene.called("daily"),
            Cron(("0 6 * * *",), HOUR),
            credential=scene.called("fresh"),
            timezone="Europe/Berlin",
        ),
        Source(scene.called("schedule"), Cron(("0 6 * * *", "0 18 * * *")), credential=scene.called("nobody's")),
        Source(scene.called("learned"), Learned(), credential=fed),
        Source(scene.called("learning"), Learned(), credential=fed),
        Source(scene.called("counted"), DAY, measure=SqlCount("warehouse", "select 1"), credential=fed),
        Source(scene.called("asset"), DAY, measure=AssetEvents(scene.called("orders")), credential=fed),
        Source(scene.called("pings"), HOUR, pings=True, credential=fed),
        Source(scene.called("muted"), HOUR),
        Source(scene.called("never"), HOUR),
    ]
    store.sources.register(declared, now - timedelta(days=70))
    for hours in range(24 * 60, 0, -6):
        at = now - timedelta(hours=hours)
        store.sources.beat(declared[3].name, 100 + hours % 7, at, _run(scene, hours))
    for hours in range(40, 0, -2):
        at = now - timedelta(hours=hours)
        store.sources.beat(declared[0].name, 0 if hours < 20 else 50, at, _run(scene, hours))
        store.sources.beat(declared[7].name, None, at, _run(scene, hours))
    lesson(store, store.sources.get(declared[3].name), now)
    adopted = scene.called("adopted")
    assert store.sources.beat(adopted, 7, now - HOUR, _task(scene)).adopted
    store.sources.not_found(declared[5].name, scene.said("the warehouse is away"), now)
    store.sources.mute(declared[8].name, now + DAY, now, scene.said("Ada"), scene.said("it moves house"))
    for source, standing in zip(declared, (*Standing, *Standing), strict=False):
        store.sources.settle(store.sources.get(source.name), standing, now)
    assert store.sources.get(declared[3].name).habit is not None
    scene.sources += [*(source.name for source in declared), adopted]


def _run(scene: Scene, number: int) -> Observer:
    return Observer(scene.called("dag"), f"run {number}", scene.called("task"))


def _consumers(scene: Scene) -> None:
    """Of one credential two tasks, of another one; of the others none is known."""
    for name, dag_id, task_id in (
        ("dead", "crm_load", "fetch.contacts"),
        ("dead", "crm_load", "fetch.deals"),
        ("asked", "billing", "load"),
    ):
        used_by(scene.store, scene.called(name), scene.called(dag_id), scene.called(task_id))


def _incidents(scene: Scene) -> None:
    """Each kind, and of each phase some; one told twice, one escalated, one expected, and a group with its members."""
    opened: dict[IncidentKind, Incident] = {}
    for kind in IncidentKind:
        opened[kind] = _open(scene, ABOUT.get(kind, About.CREDENTIAL), scene.called(kind.value), kind)
    _tell(scene, opened[IncidentKind.GRANT_DEAD], 2)
    _tell(scene, opened[IncidentKind.FLAT], 1)
    assert scene.store.incidents.claim_escalation(opened[IncidentKind.GRANT_DEAD], utcnow())
    known, over, expected = IncidentKind.UNKNOWN, IncidentKind.RATE_LIMITED, IncidentKind.STUCK
    scene.store.incidents.acknowledge(opened[known].about, opened[known].name, scene.said("Ada"), utcnow())
    scene.store.incidents.resolve(opened[over].about, opened[over].name, scene.said("it answered `200`"), utcnow())
    scene.store.incidents.mark_expected(opened[expected].id, scene.said("Ada"), utcnow())
    members = [_open(scene, About.SOURCE, name, IncidentKind.LATE) for name in scene.sources[:3]]
    scene.store.incidents.put_together(opened[IncidentKind.QUIET_TOGETHER], members, utcnow())
    of_client = scene.store.credentials.get(scene.called("dead")).client_name
    _open(scene, About.CLIENT, of_client, IncidentKind.CLIENT_FAILING)
    for about, name in ((About.CREDENTIAL, scene.called("dead")), (About.CREDENTIAL, scene.called("lapsed"))):
        _open(scene, about, name, IncidentKind.GRANT_DEAD)
    scene.incidents += scene.store.incidents.page(limit=500)[0]


def _open(scene: Scene, about: About, name: str, kind: IncidentKind) -> Incident:
    at: datetime = utcnow() - 3 * HOUR
    symptom = Symptom(about, name, kind, scene.said("It says `no`."), at, owner=scene.said("whoever owns it"))
    return scene.store.incidents.open(symptom, utcnow())


def _tell(scene: Scene, incident: Incident, times: int) -> None:
    at = utcnow()
    for _ in range(times):
        current = scene.store.incidents.get(incident.id)
        assert current is not None
        assert scene.store.incidents.claim_telling(current, at)
        at += 2 * DAY
