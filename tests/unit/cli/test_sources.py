from __future__ import annotations

import getpass
import json
import sys
from datetime import datetime, timedelta, timezone

import pytest

pytest.importorskip("airflow", reason="the commands need Airflow")

import time_machine

from airflow_oauth_guard.cli import commands
from airflow_oauth_guard.cli import sources as module
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.feeding import Schedule
from airflow_oauth_guard.domain.flat_line import Standing
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Cron
from tests.airflow_parts import incident_about, rows

pytestmark = pytest.mark.airflow

NOW = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
CRM = Source("crm", HOUR * 24)
DETECTOR, REFRESHER = Source("oauth_guard_flat_line", 2 * HOUR), Source("oauth_guard_refresh", HOUR)


@pytest.fixture(autouse=True)
def at_noon():
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def run(monkeypatch, capsys, store):
    """The command as it is typed; returns what it printed."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")

    def command(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["airflow-oauth-guard", *words])
        monkeypatch.setenv("COLUMNS", "250")
        commands.main()
        return capsys.readouterr().out

    return command


@pytest.fixture
def fails(run, capsys):
    """The command ends with exit code 1; returns its one line."""

    def command(*words: str) -> str:
        with pytest.raises(SystemExit) as raised:
            run(*words)
        assert raised.value.code == 1
        said = capsys.readouterr().err.strip()
        assert said.startswith("airflow oauth-guard: ")
        assert len(said.splitlines()) == 1
        return said

    return command


def heard(store, name: str, ago: timedelta, moved: int | None = 5) -> None:
    store.sources.beat(name, moved, NOW - ago, Observer())


# -- heartbeat --------------------------------------------------------------------------------------------------------


def test_a_job_outside_airflow_is_heard_and_its_source_adopted(run, store):
    assert run("heartbeat", "crm", "--rows", "7").splitlines() == [
        "Source `crm` was not declared; it is watched from now on, with a learned window; declare it to choose one.",
        "crm: 7 rows",
    ]
    [row] = rows(store, "oauth_guard_heartbeats")
    assert (row["row_count"], row["task_id"], row["dag_id"]) == (7, "airflow oauth-guard heartbeat", None)
    assert store.sources.get("crm").adopted


def test_without_rows_nobody_knows_how_many(run, store):
    assert run("heartbeat", "crm").splitlines()[-1] == "crm: an unknown number of rows"
    assert rows(store, "oauth_guard_heartbeats")[0]["row_count"] is None


def test_a_run_is_heard_once_however_often_it_is_sent(run, store):
    run("heartbeat", "crm", "--rows", "7", "--run", "17")
    assert run("heartbeat", "crm", "--rows", "7", "--run", "17") == "crm: this run was heard before\n"
    assert run("heartbeat", "crm", "--rows", "7", "--run", "18") == "crm: 7 rows\n"
    assert [row["run_id"] for row in rows(store, "oauth_guard_heartbeats")] == ["17", "18"]


def test_when_it_ran_and_how_far_its_data_reaches_may_be_said(run, store):
    run("heartbeat", "crm", "--rows", "7", "--at", "2026-03-02T09:00:00+01:00", "--watermark", "2026-03-01T00:00:00Z")
    state = store.sources.get("crm").state
    assert (state.last_beat_at, state.watermark) == (NOW - 4 * HOUR, NOW - 36 * HOUR)


def test_what_a_run_says_of_itself_is_kept_and_listed(run, store):
    run("heartbeat", "crm", "--rows", "0", "--note", "skipped: no token")
    assert rows(store, "oauth_guard_heartbeats")[0]["note"] == "skipped: no token"
    assert store.sources.get("crm").state.last_beat_at is None, "a skip is no delivery"
    [facts] = json.loads(run("sources", "--json"))
    assert (facts["note"], facts["skips"]) == ("skipped: no token", 1)
    assert "; skipped: no token │" in run("sources")


def test_another_machines_clock_may_be_a_little_ahead(run, store):
    run("heartbeat", "crm", "--at", "2026-03-02T12:03:00Z")
    assert store.sources.get("crm").state.last_beat_at == NOW


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rows", "many"), "`rows` is 'many'"),
        (("--rows=-1",), "-1 rows"),
        (("--at", "today"), "`at` is 'today'"),
        (("--at", "2026-03-02T09:00:00"), "no time zone"),
        (("--at", "2026-03-02T13:00:00Z"), "still to come"),
        (("--watermark", "soon"), "`--watermark` is 'soon'"),
        (("--run", "x" * 251), "`run` has 251 characters"),
    ],
)
def test_a_heartbeat_that_is_wrong_is_one_line_and_nothing_is_kept(fails, store, words, said):
    assert said in fails("heartbeat", "crm", *words)
    assert list(store.sources.all()) == []


# -- sources ----------------------------------------------------------------------------------------------------------


def listed(run) -> dict[str, dict]:
    return {facts["name"]: facts for facts in json.loads(run("sources", "--json"))}


def test_every_source_is_listed_with_what_is_known_of_it(run, store):
    store.sources.register([CRM], NOW - 48 * HOUR)
    heard(store, "crm", 3 * HOUR)
    assert listed(run)["crm"] == {
        "name": "crm",
        "standing": "fine",
        "window": "1 d",
        "last_heard_at": "2026-03-02T09:00:00Z",
        "rows": 5,
        "last_rows_at": "2026-03-02T09:00:00Z",
        "gap_seconds": 3 * 3600,
        "expected_at": None,
        "alarm_at": "2026-03-03T09:00:00Z",
        "learning": None,
        "muted_until": None,
        "muted_by": None,
        "mute_reason": None,
        "adopted": False,
        "pings": False,
        "registered_at": "2026-02-28T12:00:00Z",
        "credential": None,
        "dag_id": None,
        "note": None,
        "skips": 0,
    }


def test_a_source_that_is_learned_says_what_it_does_meanwhile(run, store):
    heard(store, "crm", HOUR)
    facts = listed(run)["crm"]
    assert (facts["window"], facts["learning"], facts["adopted"]) == ("learned", "learning: alarms after 1 d", True)
    store.sources.fed_on("crm", Schedule(("0 6 * * *",), "Europe/Berlin"), NOW)
    facts = listed(run)["crm"]
    assert facts["window"] == "`0 6 * * *` (Europe/Berlin) + learned grace"
    assert facts["learning"] == "learning: alarms 1 d after its time"
    assert facts["alarm_at"] == "2026-03-04T05:00:00Z"


def test_a_source_that_never_spoke_is_quiet_since_it_is_watched(run, store):
    store.sources.register([Source("crm", Cron(("0 6 * * *",), HOUR))], NOW - 3 * HOUR)
    facts = listed(run)["crm"]
    assert (facts["last_heard_at"], facts["rows"], facts["gap_seconds"]) == (None, None, 3 * 3600)
    assert (facts["window"], facts["learning"]) == ("`0 6 * * *` (UTC) + 1 h", None)


def test_the_table_for_people_says_it_in_words(run, store):
    store.sources.register([CRM, Source("ads", HOUR)], NOW - 48 * HOUR)
    heard(store, "crm", 3 * HOUR)
    heard(store, "billing", HOUR)
    store.sources.mute("crm", NOW + 2 * HOUR, NOW, "ana")
    store.sources.settle(store.sources.get("ads"), Standing.LATE, NOW)
    table = {line.split()[1]: line for line in run("sources").splitlines() if line.startswith("│")}
    assert "3 h ago" in table["crm"]
    assert "in 21 h" in table["crm"]
    assert "muted for 2 h" in table["crm"]
    for said in ("late", "never", "2 d", "1 d 23 h ago"):
        assert said in table["ads"]
    assert "adopted; learning: alarms after 1 d" in table["billing"]


def test_no_source_is_an_empty_list(run):
    assert json.loads(run("sources", "--json")) == []


# -- mute, unmute, forget ---------------------------------------------------------------------------------------------


def test_a_pause_has_an_end_a_reason_and_somebody_who_made_it(run, store):
    store.sources.register([CRM], NOW)
    assert run("mute", "crm", "--for", "4h", "--reason", "migration") == (
        "crm: no alarm until 2026-03-02T16:00:00Z, in 4 h\n"
    )
    facts = listed(run)["crm"]
    assert facts["muted_until"] == "2026-03-02T16:00:00Z"
    assert (facts["muted_by"], facts["mute_reason"]) == (getpass.getuser(), "migration")
    run("mute", "crm", "--until", "2026-03-04T12:00:00Z")
    assert listed(run)["crm"]["muted_until"] == "2026-03-04T12:00:00Z"
    assert run("unmute", "crm") == "crm: watched again\n"
    assert run("unmute", "crm") == "crm: it is not muted\n"
    assert listed(run)["crm"]["muted_until"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "A pause needs an end"),
        (("--for", "4h", "--until", "2026-03-04T12:00:00Z"), "A pause needs an end"),
        (("--for", "long"), "--for is 'long'"),
        (("--until", "2026-03-04"), "not an ISO 8601 instant"),
        (("--until", "2026-03-01T12:00:00Z"), "which has passed"),
    ],
)
def test_a_pause_without_a_usable_end_is_none(fails, run, store, words, said):
    store.sources.register([CRM], NOW)
    assert said in fails("mute", "crm", *words)
    assert listed(run)["crm"]["muted_until"] is None


@pytest.mark.parametrize("words", [("mute", "crmm", "--for", "4h"), ("unmute", "crmm"), ("forget", "crmm")])
def test_a_source_that_nobody_watches_is_named(fails, store, words):
    store.sources.register([CRM], NOW)
    assert "`crmm` is not registered" in fails(*words)


def test_a_forgotten_source_is_watched_no_more(run, store):
    store.sources.register([CRM], NOW)
    assert "crm: forgotten" in run("forget", "crm")
    assert listed(run) == {}


# -- acknowledge, expected --------------------------------------------------------------------------------------------


def alarm(store, name="crm", kind=IncidentKind.LATE, about=About.SOURCE, **changes):
    return incident_about(store, name, kind, about=about, **changes)


def test_an_alarm_is_acknowledged_by_whoever_sits_there(run, store):
    alarm(store)
    said = run("acknowledge", "source", "crm")
    assert "source `crm`: no run within its window" in said
    assert said.rstrip().endswith(f"Acknowledged by {getpass.getuser()}.")
    assert store.incidents.open_about(About.SOURCE, "crm").acknowledged_by == getpass.getuser()


def test_what_is_not_open_cannot_be_acknowledged(fails, store):
    assert "Nothing is open about credential `crm`" in fails("acknowledge", "credential", "crm")


def test_an_alarm_that_had_to_be_expected_ends_and_is_remembered_as_that(run, store):
    opened = alarm(store, opened_at=NOW - HOUR)
    assert "the alarm of 2026-03-02T11:00:00Z had to be expected" in run("expected", "crm")
    kept = store.incidents.get(opened.id)
    assert (kept.expected_by, kept.resolved_at) == (getpass.getuser(), NOW)


def test_one_that_is_over_may_be_answered_as_well(run, store):
    opened = alarm(store)
    store.incidents.resolve(About.SOURCE, "crm", "it spoke", NOW)
    run("expected", "crm")
    assert store.incidents.get(opened.id).expected_by == getpass.getuser()


def test_without_an_alarm_there_is_nothing_to_expect(fails):
    assert "never an alarm about source `crm`" in fails("expected", "crm")


def test_a_user_without_a_name_has_a_number(monkeypatch):
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1001")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert module.person().startswith("uid ")


# -- health -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def watching(store):
    """Both of the guard's DAGs spoke half an hour ago."""
    store.sources.register([DETECTOR, REFRESHER], NOW - 48 * HOUR)
    for name in module.WATCHERS:
        heard(store, name, HOUR / 2)


def unhealthy(run, capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as raised:
        run("health", *words)
    assert raised.value.code == 1
    return capsys.readouterr().out


def test_the_watchers_are_the_sources_of_the_guards_own_dags():
    from airflow_oauth_guard.detector.passing import DETECTOR_SOURCE
    from airflow_oauth_guard.task_groups.guard import REFRESH_SOURCE

    assert set(module.WATCHERS) == {DETECTOR_SOURCE.name, REFRESH_SOURCE.name}


def test_while_both_speak_and_nothing_is_wrong_the_watch_is_healthy(run, watching):
    assert run("health").splitlines() == [
        "ok   oauth_guard_flat_line: heard 30 min ago, again due by 2026-03-02T13:30:00Z",
        "ok   oauth_guard_refresh: heard 30 min ago, again due by 2026-03-02T12:30:00Z",
        "ok   incident: nothing is open about the watch or its alerts",
    ]
    run("health", "--max-age", "31m")


def test_a_watcher_that_is_older_than_asked_for_fails_the_probe(run, capsys, watching):
    said = unhealthy(run, capsys, "--max-age", "29m")
    assert "FAIL oauth_guard_flat_line: heard 30 min ago, was due by 2026-03-02T11:59:00Z" in said


def test_a_watcher_that_outlived_its_window_fails_the_probe(run, capsys, watching):
    with time_machine.travel(NOW + HOUR, tick=False):
        said = unhealthy(run, capsys)
    assert "FAIL oauth_guard_refresh: heard 1 h 30 min ago" in said
    assert "ok   oauth_guard_flat_line" in said


def test_a_watcher_that_was_never_heard_fails_the_probe(run, capsys, store):
    store.sources.register([DETECTOR], NOW)
    said = unhealthy(run, capsys)
    assert "FAIL oauth_guard_flat_line: never heard; is the DAG `oauth_guard_flat_line` there, and not paused?" in said
    assert "FAIL oauth_guard_refresh: never heard" in said


@pytest.mark.parametrize(
    ("about", "name", "kind"),
    [
        (About.ROUTE, "crm-owners", IncidentKind.ALERTS_FAILING),
        (About.MONITOR, "crm", IncidentKind.MUTED_FOR_LONG),
        (About.MONITOR, "everything", IncidentKind.EVERYTHING_QUIET),
        (About.GROUP, "everything", IncidentKind.EVERYTHING_QUIET),
        (About.SOURCE, "oauth_guard_refresh", IncidentKind.FLAT),
    ],
)
def test_what_is_open_about_the_watch_itself_fails_the_probe(run, capsys, store, watching, about, name, kind):
    alarm(store, name, kind, about)
    assert f"FAIL incident: {about.value} `{name}`: {kind.headline}" in unhealthy(run, capsys)


def test_a_source_that_is_quiet_is_what_the_watch_is_for(run, store, watching):
    alarm(store)
    alarm(store, "many", IncidentKind.QUIET_TOGETHER, About.GROUP)
    run("health")


def test_a_probe_may_read_json(run, capsys, watching):
    told = json.loads(run("health", "--json"))
    assert told["ok"] is True
    assert [check["check"] for check in told["checks"]] == [*module.WATCHERS, "incident"]
    told = json.loads(unhealthy(run, capsys, "--json", "--max-age", "1m"))
    assert told["ok"] is False
    assert [check["ok"] for check in told["checks"]] == [False, False, True]


def test_an_age_that_is_none_is_one_line(fails, watching):
    assert "--max-age is 'x'" in fails("health", "--max-age", "x")


def test_a_store_that_does_not_open_is_unhealthy_and_says_why(fails, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__STORE_CONN_ID", "nowhere")
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", "http://nowhere.example")
    assert "`nowhere`" in fails("health")


def test_a_load_that_is_overdue_is_suspected_before_it_is_an_alarm(run, store):
    store.sources.declare(Source("crm", Cron(("0 11 * * *",), 2 * HOUR)), NOW - 24 * HOUR)
    heard(store, "crm", 23 * HOUR + HOUR / 2)
    assert json.loads(run("sources", "--json"))[0]["standing"] == "suspected"
    assert "suspected" in run("sources")
