"""A pass over the sources, as its task makes it; what people are told of it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

import time_machine

from airflow_oauth_guard.detector import passing
from airflow_oauth_guard.detector.passing import CANARY_SOURCE, DETECTOR_SOURCE, EVERYTHING
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.flat_line import Standing
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.sources import Source, SqlCount
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.errors import ConfigurationError, NeedsAPersonError, OAuthGuardError
from airflow_oauth_guard.hooks.context import LABEL
from airflow_oauth_guard.operators.flat_line import (
    AlertOperator,
    AnnouncePassOperator,
    DetectorCheckOperator,
    FlatLineOperator,
)
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator
from airflow_oauth_guard.store.sources import MUTED_FOR_LONG
from airflow_oauth_guard.task_groups.guard import REFRESH_SOURCE
from tests.airflow_parts import Recorder, enrolled, incident_about, task_context, utcnow

pytestmark = pytest.mark.airflow

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SOURCE = Source("crm_contacts", window=HOUR)


def ago(**duration: float) -> datetime:
    return utcnow() - timedelta(**duration)


def later(**duration: float) -> time_machine.travel:
    return time_machine.travel(utcnow() + timedelta(**duration))


def check(*sources: Source, context=None) -> list[str]:
    """One pass; returns what is open."""
    operator = FlatLineOperator(task_id="check", sources=list(sources))
    batches = operator.execute(context or task_context("check"))
    return [name.removeprefix("source/") for batch in batches for name in batch]


def alert(recorder: Recorder | None = None, about: str = "source/crm_contacts", context=None) -> str:
    operator = AlertOperator(task_id="alert", incidents=[about], notifiers={"": [recorder]} if recorder else None)
    return operator.execute(context or task_context("alert"))


def beat(store, rows: int | None, at: datetime, source: Source | str = SOURCE, who: Observer | None = None) -> None:
    name = source.name if isinstance(source, Source) else source
    store.sources.beat(name, rows, at, who or Observer())


def watched(store, source: Source = SOURCE, since: datetime | None = None) -> Source:
    store.sources.register([source], since or ago(hours=10))
    return source


def incident(store, name: str = "crm_contacts", about: About = About.SOURCE):
    return store.incidents.open_about(about, name)


def announced(store, *instants: datetime) -> None:
    """The detector has spoken then."""
    store.sources.declare(DETECTOR_SOURCE, ago(days=60))
    for at in instants:
        beat(store, 1, at, DETECTOR_SOURCE)


# -- findings ---------------------------------------------------------------------------------------------------------


def test_a_source_that_brings_rows_is_fine(store):
    watched(store)
    beat(store, 3, ago(minutes=20))
    beat(store, 0, ago(minutes=5))
    context = task_context("check")
    assert check(context=context) == []
    assert incident(store) is None
    assert context["pushed"] == {"watched": 1, "unseen": {}}


def test_a_job_that_runs_and_moves_nothing_is_flat(store):
    watched(store)
    beat(store, 3, ago(hours=5))
    for minutes in (50, 30, 10):
        beat(store, 0, ago(minutes=minutes))
    assert check() == ["crm_contacts"]
    found = incident(store)
    assert found.kind is IncidentKind.FLAT
    assert timedelta(hours=3, minutes=59) < utcnow() - found.opened_at < timedelta(hours=4, minutes=1), "when it began"


def test_a_job_that_does_not_run_is_late(store):
    watched(store)
    beat(store, 3, ago(hours=3))
    assert check() == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.LATE
    assert "No run reported" in incident(store).summary


def test_a_source_that_was_never_heard_is_late_once_its_window_has_closed(store):
    watched(store, since=ago(minutes=50))
    assert check() == []
    watched(store, Source("other", window=HOUR), since=ago(minutes=70))
    assert check() == ["other"]
    assert "none was ever heard" in incident(store, "other").summary


def test_runs_that_do_not_say_how_much_they_moved_are_unmeasured(store):
    watched(store)
    beat(store, None, ago(minutes=10))
    assert check() == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.UNMEASURED


def test_sources_are_registered_when_they_are_declared_and_stay_watched(store):
    assert check(SOURCE) == []
    assert store.sources.registered() == [SOURCE]
    beat(store, 0, utcnow())
    with time_machine.travel(utcnow() + 2 * HOUR):
        assert check() == ["crm_contacts"]


def test_sources_come_as_json_too(store):
    given = json.dumps([{"name": "crm_contacts", "window_seconds": 3600, "credential": "crm"}])
    FlatLineOperator(task_id="check", sources=given).execute(task_context("check"))
    assert store.sources.registered() == [Source("crm_contacts", HOUR, credential="crm")]


@pytest.mark.parametrize("given", ["{}", "[", '[{"name": "a"}]', '[{"name": "a", "window_seconds": 0}]'])
def test_sources_that_cannot_be_read_are_refused_and_nothing_is_registered(given, store):
    with pytest.raises(ConfigurationError):
        FlatLineOperator(task_id="check", sources=given).execute(task_context("check"))
    assert store.sources.registered() == []


def test_a_source_declared_twice_is_refused(store):
    with pytest.raises(ConfigurationError, match="declared twice"):
        check(SOURCE, SOURCE)


# -- the likely cause -------------------------------------------------------------------------------------------------


def test_the_credential_that_feeds_it_is_named_as_the_likely_cause(store):
    enrolled(store, "crm")
    incident_about(store, "crm", summary="Our request is wrong.")
    watched(store, Source("crm_contacts", HOUR, credential="crm"))
    check()
    assert "Likely cause: its credential `crm` (active): Our request is wrong." in incident(store).summary


def test_a_healthy_credential_points_elsewhere_and_an_unguarded_one_says_so(store):
    enrolled(store, "crm")
    watched(store, Source("crm_contacts", HOUR, credential="crm"))
    watched(store, Source("ads", HOUR, credential="ads"))
    check()
    assert "so look elsewhere" in incident(store).summary
    assert "`ads`, which is not guarded" in incident(store, "ads").summary


# -- opening and resolving --------------------------------------------------------------------------------------------


def test_an_incident_opens_once(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    first = incident(store)
    for _ in range(3):
        assert check() == ["crm_contacts"]
    [only] = store.incidents.history(About.SOURCE, "crm_contacts")
    assert (only.id, only.noticed_at, only.opened_at) == (first.id, first.noticed_at, first.opened_at)


def test_a_flat_source_is_resolved_by_rows_and_by_nothing_less(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    beat(store, None, ago(minutes=2))
    beat(store, 0, ago(minutes=1))
    assert check() == ["crm_contacts"]
    beat(store, 1, utcnow())
    assert check() == []
    assert incident(store) is None
    [closed] = store.incidents.history(About.SOURCE, "crm_contacts")
    assert closed.resolved_at is not None


def test_a_late_source_that_runs_again_without_rows_is_flat_and_not_fine(store):
    watched(store)
    check()
    assert incident(store).kind is IncidentKind.LATE
    beat(store, 0, utcnow())
    assert check() == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.FLAT
    beat(store, 2, utcnow())
    assert check() == []


def test_a_wider_window_is_no_sign_of_life(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    assert check(Source("crm_contacts", window=timedelta(hours=24))) == ["crm_contacts"]
    assert incident(store) is not None


# -- telling ----------------------------------------------------------------------------------------------------------


def test_the_alert_is_red_until_the_source_speaks(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    recorder, context = Recorder(), task_context("alert")
    with pytest.raises(NeedsAPersonError, match=r"`crm_contacts`: runs, but no rows within its window.*Open since"):
        alert(recorder, context=context)
    assert recorder.sent == [incident(store).sentence()]
    assert context[LABEL] == "crm_contacts: runs, but no rows within its window"
    beat(store, 3, utcnow())
    check()
    assert alert(recorder) == "Over meanwhile: source/crm_contacts."
    assert len(recorder.sent) == 1


def test_people_are_told_again_after_four_hours_and_then_daily(store):
    watched(store)
    beat(store, 0, ago(minutes=10))
    check()
    recorder = Recorder()
    for hours, alerts in ((0, 1), (1, 1), (3, 1), (5, 2), (28, 2), (30, 3), (53, 3), (55, 4)):
        with time_machine.travel(utcnow() + timedelta(hours=hours)), pytest.raises(NeedsAPersonError):
            alert(recorder)
        assert len(recorder.sent) == alerts, f"after {hours} hours"


def test_people_are_told_anew_when_something_else_is_wrong(store):
    watched(store)
    check()
    recorder = Recorder()
    with pytest.raises(NeedsAPersonError, match="no run within its window"):
        alert(recorder)
    beat(store, 0, utcnow())
    check()
    with pytest.raises(NeedsAPersonError, match="no rows within its window"):
        alert(recorder)
    assert len(recorder.sent) == 2


def test_alerts_that_start_together_are_sent_once(store):
    watched(store)
    check()
    recorders, gate = [Recorder() for _ in range(4)], threading.Barrier(4)

    def work(recorder: Recorder) -> None:
        gate.wait(timeout=10)
        with pytest.raises(NeedsAPersonError):
            alert(recorder)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, recorders))
    assert sum(len(recorder.sent) for recorder in recorders) == 1


def test_a_notifier_that_raises_leaves_the_task_red_and_the_alert_to_be_told(store):
    watched(store)
    check()
    with pytest.raises(ConnectionError):
        alert(Recorder(broken=True))
    recorder = Recorder()
    with pytest.raises(NeedsAPersonError):
        alert(recorder)
    assert len(recorder.sent) == 1


# -- the same number again and again ----------------------------------------------------------------------------------


def test_a_job_that_moves_the_same_again_and_again_is_stuck_until_the_number_changes(store):
    watched(store, replace(SOURCE, stuck_after=3))
    for minutes in (40, 30, 20):
        beat(store, 7, ago(minutes=minutes))
    assert check() == ["crm_contacts"]
    assert incident(store).kind is IncidentKind.STUCK
    assert "The last 3 loads with rows moved exactly 7 each" in incident(store).summary
    beat(store, 7, ago(minutes=10))
    assert check() == ["crm_contacts"]
    beat(store, 8, utcnow())
    assert check() == []


def test_what_was_missed_is_said_when_it_is_over(store):
    hourly = Source("crm_contacts", window=HOUR)
    watched(store, hourly)
    beat(store, 3, ago(hours=5))
    check()
    beat(store, 4, utcnow())
    check()
    [closed] = store.incidents.history(About.SOURCE, "crm_contacts")
    assert "it was quiet for 5 h" in closed.resolution


# -- a pass costs what is due, and hides nothing ----------------------------------------------------------------------


def test_a_source_that_is_known_to_be_quiet_is_not_looked_at_again_until_it_speaks(store):
    watched(store)
    check()
    assert store.sources.due(ago(hours=-5)) == []
    beat(store, 0, utcnow())
    assert [one.source.name for one in store.sources.due(utcnow())] == ["crm_contacts"]


def test_one_source_that_cannot_be_judged_hides_no_other_and_the_pass_is_not_announced(store, mocker):
    watched(store)
    watched(store, Source("ads", HOUR))
    judge = passing.judge
    mocker.patch.object(passing, "judge", lambda source, *rest: judge(source, *rest) if source.name == "ads" else 1 / 0)
    context = task_context("check")
    assert check(context=context) == ["ads"]
    context["ti"].xcom_pull = lambda task_ids, key: context["pushed"][key]
    with pytest.raises(OAuthGuardError, match=r"not complete.*`crm_contacts`: ZeroDivisionError"):
        AnnouncePassOperator(task_id="announce", check_task_id="check").execute(context)
    assert store.sources.get(DETECTOR_SOURCE.name).state.last_rows_at is None, "it looked, and not at all of them"


def test_more_sources_than_one_pass_looks_at_make_it_incomplete(store, monkeypatch):
    monkeypatch.setattr(passing, "LIMIT", 2)
    for name in ("a", "b", "c"):
        watched(store, Source(name, HOUR))
    context = task_context("check")
    assert len(check(context=context)) == 2
    assert context["pushed"]["unseen"]
    context = task_context("check")
    assert len(check(context=context)) == 3
    assert not context["pushed"]["unseen"]


def test_many_incidents_share_the_tasks_that_tell_them(store, monkeypatch):
    monkeypatch.setattr("airflow_oauth_guard.operators.flat_line.TOLD_ALONE", 2)
    for name in "abcd":
        watched(store, Source(name, HOUR))
    batches = FlatLineOperator(task_id="check").execute(task_context("check"))
    assert [len(batch) for batch in batches] == [1, 1, 2]


# -- many at once -----------------------------------------------------------------------------------------------------


def test_sources_on_one_dead_credential_are_one_alert_with_a_list(store):
    enrolled(store, "crm")
    incident_about(store, "crm", summary="The grant is dead.")
    for number in range(30):
        watched(store, Source(f"crm_{number}", HOUR, credential="crm"))
    for number in range(60):
        watched(store, Source(f"fine_{number}", HOUR))
        beat(store, 1, ago(minutes=5), f"fine_{number}")
    assert check() == ["group/credential crm"]
    group = incident(store, "credential crm", About.GROUP)
    assert "30 sources" in group.summary
    assert "`crm_17`" in group.summary
    assert "The grant is dead." in group.summary
    recorder = Recorder()
    with pytest.raises(NeedsAPersonError):
        alert(recorder, "group/credential crm")
    assert len(recorder.sent) == 1
    assert len(store.incidents.members(group)) == 30


def test_a_group_ends_with_the_last_of_its_sources(store):
    for number in range(6):
        watched(store, Source(f"crm_{number}", HOUR, credential="crm"))
        beat(store, 0, ago(minutes=5), f"crm_{number}")
    check()
    for number in range(5):
        beat(store, 1, utcnow(), f"crm_{number}")
    assert check() == ["group/credential crm"]
    assert "1 sources" in incident(store, "credential crm", About.GROUP).summary
    beat(store, 1, utcnow(), "crm_5")
    assert check() == []
    assert store.incidents.open_ones() == []


def test_a_seventh_source_joins_the_alert_that_is_open(store):
    for number in range(6):
        watched(store, Source(f"crm_{number}", HOUR, credential="crm"))
        beat(store, 0, ago(minutes=5), f"crm_{number}")
    check()
    watched(store, Source("crm_more", HOUR, credential="crm"))
    beat(store, 0, ago(minutes=5), "crm_more")
    assert check() == ["group/credential crm"]
    assert "7 sources" in incident(store, "credential crm", About.GROUP).summary


def lively(store, count: int, quiet: int, *, since: float = 3.0) -> None:
    """``count`` unrelated hourly sources, of which ``quiet`` have not spoken for some hours."""
    for number in range(count):
        watched(store, Source(f"s{number}", HOUR), ago(days=2))
        beat(store, 5, ago(hours=since), f"s{number}", Observer(f"dag_{number}", "run", "load"))
        if number >= quiet:
            beat(store, 5, ago(minutes=3), f"s{number}", Observer(f"dag_{number}", "run2", "load"))


def test_when_most_of_what_is_expected_vanishes_at_once_it_is_one_incident_and_the_sources_are_unknown(store):
    announced(store, *(ago(minutes=minutes) for minutes in range(300, 0, -15)))
    lively(store, 20, 14)
    assert check() == [f"group/{EVERYTHING}"]
    found = incident(store, EVERYTHING, About.GROUP)
    assert found.kind is IncidentKind.EVERYTHING_QUIET
    assert "14 sources" in found.summary
    assert {one.standing for one in store.sources.all() if one.source.name < "s14"} <= {Standing.UNKNOWN, Standing.FINE}
    assert len(store.sources.standing_as(Standing.UNKNOWN)) == 14


def test_a_minority_is_told_one_by_one(store):
    announced(store, *(ago(minutes=minutes) for minutes in range(300, 0, -15)))
    lively(store, 20, 4)
    assert sorted(check()) == ["s0", "s1", "s2", "s3"]


def test_when_they_speak_again_what_is_silent_still_gets_its_window_anew_and_is_then_told(store):
    announced(store, *(ago(minutes=minutes) for minutes in range(300, 0, -15)))
    lively(store, 20, 14)
    check()
    with later(minutes=20):
        for number in range(1, 20):
            beat(store, 5, utcnow(), f"s{number}")
        announced(store, utcnow())
        assert check() == []
        assert store.sources.standing_as(Standing.UNKNOWN) == []
    for minutes in range(35, 400, 15):
        with later(minutes=minutes):
            for number in range(1, 20):
                beat(store, 5, utcnow(), f"s{number}")
            announced(store, utcnow())
            if check():
                break
    assert incident(store, "s0").kind is IncidentKind.LATE
    assert [one.name for one in store.incidents.open_ones()] == ["s0"]


# -- blind time -------------------------------------------------------------------------------------------------------


def test_after_the_checker_was_down_nothing_is_told_that_may_still_come(store):
    announced(store, *(ago(hours=10, minutes=minutes) for minutes in range(300, 0, -15)))
    watched(store, Source("a", 2 * HOUR), ago(days=2))
    beat(store, 5, ago(hours=11), "a")
    assert check() == [], "ten blind hours are no silence of the source"
    announced(store, utcnow())
    with later(minutes=90):
        announced(store, *(utcnow() - timedelta(minutes=minutes) for minutes in range(75, 0, -15)))
        assert check() == ["a"], "its own window has passed since somebody looks again"
    assert incident(store, "a").opened_at > ago(minutes=5)


def test_a_silence_that_was_there_before_the_checker_went_down_is_told_at_once(store):
    announced(store, *(ago(hours=10, minutes=minutes) for minutes in range(600, 0, -15)))
    watched(store, Source("a", 2 * HOUR), ago(days=2))
    beat(store, 5, ago(hours=18), "a")
    assert check() == ["a"]


# -- pauses -----------------------------------------------------------------------------------------------------------


def test_a_muted_source_is_not_told_and_gets_its_window_anew_after_the_pause(store):
    watched(store)
    beat(store, 3, ago(minutes=30))
    store.sources.mute("crm_contacts", utcnow() + 5 * HOUR, utcnow(), "me", "the CRM is moved")
    with later(hours=4):
        assert check() == []
    with later(hours=5, minutes=10):
        assert check() == [], "the pause is not its silence"
    with later(hours=5, minutes=40):
        announced(store, utcnow())
        assert check() == ["crm_contacts"]


def test_a_heartbeat_ends_no_pause(store):
    watched(store)
    store.sources.mute("crm_contacts", utcnow() + 5 * HOUR, utcnow(), "me")
    beat(store, 0, utcnow())
    with later(hours=2):
        assert check() == []


def test_a_source_that_is_muted_for_long_is_an_incident_itself(store):
    watched(store)
    store.sources.mute("crm_contacts", utcnow() + 90 * DAY, utcnow(), "me", "noisy")
    with later(days=MUTED_FOR_LONG.days, minutes=1):
        assert check() == ["monitor/crm_contacts"]
        assert "muted by me" in incident(store, about=About.MONITOR).summary
        store.sources.unmute("crm_contacts", utcnow())
        assert "monitor/crm_contacts" not in check()


# -- who watches the watcher ------------------------------------------------------------------------------------------


def announce(store, context=None) -> None:
    context = context or task_context("check")
    check(context=context)
    context["ti"].xcom_pull = lambda task_ids, key: context["pushed"][key]
    AnnouncePassOperator(task_id="announce", check_task_id="check").execute(context)


def test_the_detector_says_that_it_looked_and_at_how_many(store):
    watched(store)
    announce(store)
    state = store.sources.get(DETECTOR_SOURCE.name).state
    assert state.last_rows == 1
    assert store.incidents.open_about(About.SOURCE, DETECTOR_SOURCE.name) is None


def test_a_detector_that_stopped_is_noticed_by_the_dag_that_refreshes(store):
    recorder = Recorder()
    operator = DetectorCheckOperator(task_id="detector", notifiers={"": [recorder]})
    assert operator.execute(task_context("detector")) == "No flat-line DAG has run yet."
    watched(store)
    announce(store)
    assert "fine" in operator.execute(task_context("detector"))
    with (
        later(hours=3),
        pytest.raises(NeedsAPersonError, match=r"`oauth_guard_flat_line`.*Nobody looks at the sources"),
    ):
        operator.execute(task_context("detector"))
    assert len(recorder.sent) == 1


def test_a_complete_pass_calls_the_outside_switch_and_an_incomplete_one_does_not(store, monkeypatch, mocker):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__DEADMAN_URL", "https://switch.example/abc")
    ping = mocker.patch("airflow_oauth_guard.operators.flat_line.ping")
    watched(store)
    announce(store)
    ping.assert_called_once_with("https://switch.example/abc")
    mocker.patch.object(passing, "judge", side_effect=ValueError("what"))
    with later(hours=2), pytest.raises(OAuthGuardError, match="not complete"):
        announce(store, task_context("check"))
    ping.assert_called_once()


# -- the canary -------------------------------------------------------------------------------------------------------


@pytest.fixture
def canary(monkeypatch):
    """A test alarm every day at noon; the clock stands at 11:00 on a Monday."""
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__CANARY_SCHEDULE", "0 12 * * *")
    with time_machine.travel(datetime.fromisoformat("2026-11-02T11:00:00+00:00"), tick=False) as clock:
        yield clock


def test_the_test_alarm_is_raised_told_and_over(store, canary):
    assert check() == []
    canary.shift(timedelta(hours=2, minutes=1))
    assert check() == [CANARY_SOURCE]
    recorder = Recorder()
    assert alert(recorder, f"source/{CANARY_SOURCE}") == "The test alarm was sent."
    assert "test alarm" in recorder.sent[0]
    canary.shift(timedelta(minutes=15))
    assert check() == []
    canary.shift(timedelta(hours=24))
    assert check() == [CANARY_SOURCE]


def test_a_test_alarm_that_is_not_sent_is_an_incident(store, canary):
    check()
    canary.shift(timedelta(hours=2, minutes=1))
    check()
    with pytest.raises(ConnectionError):
        alert(Recorder(broken=True), f"source/{CANARY_SOURCE}")
    canary.shift(timedelta(hours=1))
    assert f"monitor/{CANARY_SOURCE}" in check()
    assert "raised and not sent" in incident(store, CANARY_SOURCE, About.MONITOR).summary
    alert(Recorder(), f"source/{CANARY_SOURCE}")
    canary.shift(timedelta(minutes=15))
    assert check() == []


def test_a_canary_that_is_switched_off_leaves_nothing_behind(store, canary, monkeypatch):
    check()
    canary.shift(timedelta(hours=2, minutes=1))
    check()
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__CANARY_SCHEDULE", "")
    assert check() == []
    assert store.sources.find(CANARY_SOURCE) is None


def test_a_canary_schedule_that_cannot_be_read_is_refused(store, canary, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__CANARY_SCHEDULE", "every day")
    with pytest.raises(ConfigurationError, match="canary_schedule"):
        check()


# -- two checkers -----------------------------------------------------------------------------------------------------


def test_two_checkers_at_once_open_one_incident(store):
    watched(store)
    gate = threading.Barrier(2)

    def work() -> list[str]:
        gate.wait(timeout=10)
        return check()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: work(), range(2)))
    assert len(store.incidents.history(About.SOURCE, "crm_contacts")) == 1


# -- silences that must be told, and alarms that must not -------------------------------------------------------------


def every_quarter(hours: float) -> list[datetime]:
    """The detector's heartbeats of the last hours, up to a quarter of an hour ago."""
    return [ago(minutes=minutes) for minutes in range(int(hours * 60), 0, -15)]


def not_announced(context) -> None:
    context["ti"].xcom_pull = lambda task_ids, key: context["pushed"][key]
    with pytest.raises(OAuthGuardError, match="not complete"):
        AnnouncePassOperator(task_id="announce", check_task_id="check").execute(context)


def test_passes_that_cannot_look_at_one_source_do_not_make_the_detector_blind_for_the_others(store, mocker):
    announced(store, *every_quarter(5))
    watched(store, Source("broken", HOUR))
    watched(store, Source("ads", HOUR))
    judge = passing.judge
    mocker.patch.object(
        passing, "judge", lambda source, *rest: judge(source, *rest) if source.name != "broken" else 1 / 0
    )
    beat(store, 1, ago(minutes=1), "ads")
    for minutes in range(15, 181, 15):
        with later(minutes=minutes):
            context = task_context("check")
            context["ti"].run_id = f"run_{minutes}"
            open_now = check(context=context)
            not_announced(context)
    assert "ads" in open_now
    with later(hours=3), pytest.raises(NeedsAPersonError, match="Nobody looks at all of the sources"):
        DetectorCheckOperator(task_id="detector").execute(task_context("detector"))


def test_a_detector_that_looks_less_often_than_before_is_soon_not_blind(store):
    hourly = [ago(hours=hours) for hours in range(8, 0, -1)]
    announced(store, *(ago(hours=8, minutes=minutes) for minutes in range(6000, 0, -15)), *hourly)
    watched(store, Source("old", 100 * DAY), ago(days=80))
    watched(store, Source("a", 2 * HOUR), ago(days=80))
    beat(store, 5, ago(hours=3), "a")
    store.sources.register([Source("old", HOUR)], ago(days=80))
    assert "a" in check()


def test_a_source_that_is_forgotten_while_it_is_quiet_stops_no_pass_and_its_incident_ends(store):
    watched(store)
    check()
    store.sources.forget("crm_contacts")
    watched(store, Source("ads", HOUR))
    assert check() == ["ads"]
    [closed] = store.incidents.history(About.SOURCE, "crm_contacts")
    assert closed.resolution == "it is watched no more"


def test_an_incident_of_a_muted_source_is_not_told_until_the_pause_ends(store):
    watched(store)
    assert check() == ["crm_contacts"]
    store.sources.mute("crm_contacts", utcnow() + 5 * HOUR, utcnow(), "me", "we know")
    assert check() == []
    assert incident(store) is not None, "it is no sign of life"
    with later(hours=5, minutes=1):
        assert check() == ["crm_contacts"]


def test_a_group_does_not_speak_for_what_is_muted_and_is_silent_when_all_is(store):
    for number in range(6):
        watched(store, Source(f"crm_{number}", HOUR, credential="crm"))
    assert check() == ["group/credential crm"]
    for number in range(6):
        store.sources.mute(f"crm_{number}", utcnow() + 5 * HOUR, utcnow(), "me")
        check()
        open_group = incident(store, "credential crm", About.GROUP)
        if number < 5:
            assert f"`crm_{number}`" not in open_group.summary
    assert check() == []
    with later(hours=5, minutes=1):
        assert check() == ["group/credential crm"]


def test_what_was_called_expected_is_told_again_where_it_lasts_a_month(store):
    watched(store)
    check()
    store.incidents.mark_expected(incident(store).id, "kim", utcnow())
    assert check() == []
    with later(days=29):
        assert check() == []
    with later(days=31):
        assert check() == ["crm_contacts"]


def test_a_source_whose_silence_was_expected_is_fine_with_its_next_rows_and_told_when_it_is_quiet_anew(store):
    watched(store)
    check()
    store.incidents.mark_expected(incident(store).id, "kim", utcnow())
    check()
    assert store.sources.get("crm_contacts").standing is Standing.LATE
    beat(store, 4, utcnow())
    assert check() == []
    assert store.sources.get("crm_contacts").standing is Standing.FINE
    with later(minutes=61):
        assert check() == ["crm_contacts"]


def test_a_group_that_was_called_expected_does_not_come_again_at_the_next_pass(store):
    for number in range(6):
        watched(store, Source(f"crm_{number}", HOUR, credential="crm"))
    check()
    store.incidents.mark_expected(incident(store, "credential crm", About.GROUP).id, "kim", utcnow())
    assert check() == []
    assert store.incidents.open_ones() == []


def test_a_group_ends_though_nothing_is_due_when_people_have_ended_all_of_its_incidents(store):
    for number in range(6):
        watched(store, Source(f"crm_{number}", HOUR, credential="crm"))
    check()
    for number in range(6):
        store.sources.forget(f"crm_{number}")
    assert check() == []
    assert store.incidents.open_ones() == []


def test_runs_before_a_source_fell_silent_are_no_evidence_that_it_runs(store):
    watched(store)
    for hours in (8, 7.5, 7, 6.5, 6, 5.5):
        beat(store, None, ago(hours=hours))
        with later(hours=-hours):
            check()
    assert incident(store).kind is IncidentKind.UNMEASURED
    with later(hours=-2):
        check(replace(SOURCE, urgent=True))
    assert incident(store).kind is IncidentKind.LATE, "it was looked at again, since it was declared anew"
    check(Source("crm_contacts", window=24 * HOUR))
    assert incident(store) is not None, "a wider window is no sign of life"
    beat(store, 0, utcnow())
    check()
    assert incident(store) is None


def test_a_flat_source_that_stops_running_stays_flat_and_is_told_once(store):
    watched(store)
    beat(store, 0, ago(hours=3))
    with later(hours=-3):
        check()
    check(replace(SOURCE, urgent=True))
    assert incident(store).kind is IncidentKind.FLAT
    check(Source("crm_contacts", window=24 * HOUR))
    assert incident(store) is not None
    beat(store, 0, utcnow())
    check()
    assert incident(store) is not None, "a run is not what it waits for"
    beat(store, 1, utcnow())
    check()
    assert incident(store) is None


def test_a_quiet_source_that_was_forgotten_and_speaks_before_the_next_pass_is_over(store):
    watched(store)
    check()
    store.sources.forget("crm_contacts")
    beat(store, 3, utcnow())
    assert check() == []
    assert incident(store) is None


def test_a_member_that_is_quiet_for_another_reason_now_leaves_its_group_and_is_told(store):
    for number in range(6):
        watched(store, Source(f"crm_{number}", HOUR, credential="crm"))
    assert check() == ["group/credential crm"]
    watched(store, Source("crm_5", HOUR, credential="ads"))
    assert sorted(check()) == ["crm_5", "group/credential crm"]
    assert "`crm_5`" not in incident(store, "credential crm", About.GROUP).summary


def test_a_pass_that_dies_over_everything_leaves_no_source_that_nobody_speaks_for(store, mocker):
    announced(store, *every_quarter(5))
    lively(store, 20, 14)
    settle, settled = store.sources.settle, []

    def dies(*args, **named) -> None:
        settled.append(args)
        if len(settled) > 9:
            raise KeyboardInterrupt
        settle(*args, **named)

    patched = mocker.patch("airflow_oauth_guard.store.sources.Sources.settle", side_effect=dies)
    with pytest.raises(KeyboardInterrupt):
        check()
    mocker.stop(patched)
    assert check() == [f"group/{EVERYTHING}"]
    assert len(store.sources.standing_as(Standing.UNKNOWN)) == 14


def test_sources_are_judged_anew_when_a_person_ends_the_incident_that_spoke_for_them(store):
    announced(store, *every_quarter(5))
    lively(store, 20, 14)
    check()
    store.incidents.mark_expected(incident(store, EVERYTHING, About.GROUP).id, "kim", utcnow())
    check()
    assert store.sources.standing_as(Standing.UNKNOWN) == []
    for minutes in range(15, 400, 15):
        with later(minutes=minutes):
            for number in range(14, 20):
                beat(store, 5, utcnow(), f"s{number}")
            announced(store, utcnow())
            if check():
                break
    assert store.incidents.open_ones(), "what is silent is told in the end"


def test_what_becomes_late_in_the_pass_that_ends_everything_gets_the_lost_time_back_too(store):
    announced(store, *every_quarter(5))
    lively(store, 20, 14)
    watched(store, Source("slow", 3 * HOUR), ago(days=2))
    beat(store, 5, ago(hours=2, minutes=45), "slow")
    check()
    with later(minutes=20):
        for number in range(20):
            beat(store, 5, utcnow(), f"s{number}")
        announced(store, utcnow())
        assert check() == []
    with later(minutes=35):
        announced(store, utcnow())
        assert check() == []


def test_one_source_that_was_due_long_ago_does_not_hide_that_everything_is_missing(store):
    announced(store, *every_quarter(30))
    lively(store, 20, 14)
    watched(store, Source("daily", 24 * HOUR), ago(days=3))
    # Its own deadline has passed long before the others spoke last.
    beat(store, 5, ago(hours=30), "daily")
    assert check() == [f"group/{EVERYTHING}"]


def test_who_spoke_after_everything_was_missing_and_falls_silent_again_is_told_by_itself(store):
    announced(store, *every_quarter(5))
    lively(store, 30, 20)
    check()
    for minutes in range(15, 150, 15):
        with later(minutes=minutes):
            for number in range(22, 30):
                beat(store, 5, utcnow(), f"s{number}")
            if minutes < 30:
                beat(store, 5, utcnow(), "s21")
            announced(store, utcnow())
            open_now = check()
    assert sorted(open_now) == [f"group/{EVERYTHING}", "s21"]


def test_that_everything_is_missing_is_urgent_where_one_of_its_sources_is(store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__QUIET_HOURS", "00:00-23:59")
    announced(store, *every_quarter(5))
    lively(store, 20, 14)
    store.sources.register([Source("s3", HOUR, urgent=True)], ago(days=2))
    assert check() == [f"group/{EVERYTHING}"]
    recorder = Recorder()
    with time_machine.travel(utcnow().replace(hour=12)), pytest.raises(NeedsAPersonError):
        alert(recorder, f"group/{EVERYTHING}")
    assert len(recorder.sent) == 1


def test_the_incident_about_the_detector_ends_when_it_speaks_in_time_again(store):
    announced(store, ago(hours=2, minutes=1))
    with pytest.raises(NeedsAPersonError):
        DetectorCheckOperator(task_id="detector").execute(task_context("detector"))
    # The pass had looked before, and only its last word was late.
    announced(store, utcnow())
    for minutes in (15, 30):
        with later(minutes=minutes):
            check()
            announced(store, utcnow())
    assert incident(store, DETECTOR_SOURCE.name) is None


def test_a_silence_of_the_detector_that_was_called_expected_or_muted_is_not_told_again(store):
    announced(store, ago(hours=3))
    operator = DetectorCheckOperator(task_id="detector")
    with pytest.raises(NeedsAPersonError):
        operator.execute(task_context("detector"))
    store.incidents.mark_expected(incident(store, DETECTOR_SOURCE.name).id, "kim", utcnow())
    assert "had to be expected" in operator.execute(task_context("detector"))
    store.sources.mute(DETECTOR_SOURCE.name, utcnow() + HOUR, utcnow(), "kim")
    assert "muted" in operator.execute(task_context("detector"))
    assert incident(store, DETECTOR_SOURCE.name) is None


def test_after_the_detector_was_down_the_test_alarm_is_raised_first_and_missed_only_then(store, canary):
    announced(store, *every_quarter(5))
    check()
    canary.shift(timedelta(hours=7))
    assert f"monitor/{CANARY_SOURCE}" not in check()


@pytest.mark.parametrize("by_hand", ["acknowledged", "expected"])
def test_a_test_alarm_that_a_person_ends_comes_again_the_next_time(by_hand, store, canary):
    check()
    canary.shift(timedelta(hours=2, minutes=1))
    assert check() == [CANARY_SOURCE]
    if by_hand == "expected":
        store.incidents.mark_expected(incident(store, CANARY_SOURCE).id, "kim", utcnow())
    else:
        store.incidents.acknowledge(About.SOURCE, CANARY_SOURCE, "kim", utcnow())
    for _ in range(3):
        canary.shift(timedelta(minutes=15))
        assert f"monitor/{CANARY_SOURCE}" not in check()
    assert incident(store, CANARY_SOURCE) is None
    canary.shift(timedelta(hours=24))
    assert check() == [CANARY_SOURCE]


def test_a_destination_that_is_asked_no_more_leaves_no_problem_behind(store):
    measured = Source("crm_contacts", HOUR, measure=SqlCount("nowhere", "SELECT 1"))
    watched(store, measured)
    check()
    assert incident(store).kind is IncidentKind.UNMEASURED
    watched(store, SOURCE)
    beat(store, 3, utcnow())
    assert check() == []
    assert store.sources.get("crm_contacts").state.problem == ""
    assert store.sources.due(utcnow()) == []


def test_a_source_that_is_given_another_window_during_its_lesson_has_no_further_one(store):
    watched(store, Source("crm_contacts", Learned()), ago(days=2))
    watched(store, SOURCE)
    store.sources.learned("crm_contacts", None, utcnow(), utcnow())
    assert store.sources.to_learn(utcnow() + DAY, 10) == []


def test_the_detector_and_the_refresh_are_held_to_the_windows_that_people_have_given_them(store):
    for own in (DETECTOR_SOURCE, REFRESH_SOURCE):
        watched(store, Source(own.name, 26 * HOUR))
    announce(store)
    HeartbeatOperator(task_id="heartbeat", source=REFRESH_SOURCE, rows=1).execute(task_context("heartbeat"))
    for own in (DETECTOR_SOURCE, REFRESH_SOURCE):
        assert store.sources.get(own.name).source.window == 26 * HOUR
