from __future__ import annotations

import io
import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("airflow", reason="the command is one of Airflow's")

from airflow_oauth_guard.cli import commands, plot, replay
from airflow_oauth_guard.domain.beats import Beat
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.replaying import Episode
from tests.unit.test_import import comes_along

pytestmark = pytest.mark.airflow

START = datetime(2026, 1, 5, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
Row = tuple[str, datetime, "int | str"]


def hourly(name: str, hours: int, rows=lambda hour: 100 + hour % 7, *, silent=range(0)) -> list[Row]:
    return [(name, START + hour * HOUR, rows(hour)) for hour in range(hours) if hour not in silent]


def csv(rows: list[Row]) -> str:
    return "source,time,rows\n" + "".join(f"{name},{at.strftime('%Y-%m-%dT%H:%M:%SZ')},{n}\n" for name, at, n in rows)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The command as it is typed, on a file with this text; returns what it printed, and what it hinted at."""

    def command(text: str | bytes, *words: str, file: str | None = None) -> tuple[list[dict], str]:
        path = tmp_path / "history.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        monkeypatch.setattr(sys, "argv", ["airflow-oauth-guard", "replay", file or str(path), *words])
        commands.main()
        printed = capsys.readouterr()
        return [json.loads(line) for line in printed.out.splitlines()], printed.err

    return command


@pytest.fixture
def fails(run, capsys):
    """The command ends with exit code 1; returns its one line."""

    def command(text: str | bytes, *words: str, file: str | None = None) -> str:
        with pytest.raises(SystemExit) as raised:
            run(text, *words, file=file)
        assert raised.value.code == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.strip().splitlines()) == 1
        return printed.err

    return command


# -- alarms -----------------------------------------------------------------------------------------------------------


def test_an_alarm_is_a_line_of_json_with_exactly_what_is_promised(run):
    [alarm], _ = run(csv(hourly("crm", 60, silent=range(10, 50))), "--window", "24h")
    assert list(alarm) == ["source", "kind", "opened", "resolved", "explanation"]
    assert (alarm["source"], alarm["kind"]) == ("crm", "late")
    assert alarm["opened"] == "2026-01-06T09:00:00Z", "a day after the last heartbeat, at the next check"
    assert alarm["resolved"] == "2026-01-07T02:00:00Z"
    assert "No run reported within 1 d" in alarm["explanation"]


def test_runs_without_rows_are_flat_and_open_until_rows_come(run):
    [alarm], _ = run(csv(hourly("crm", 60, lambda hour: 0 if hour > 20 else 5)), "--window", "24h")
    assert (alarm["kind"], alarm["opened"], alarm["resolved"]) == ("flat", "2026-01-06T20:00:00Z", None)


def test_alarms_come_in_the_order_in_which_they_would_have_gone_off(run):
    text = csv([*hourly("b", 90, silent=range(30, 60)), *hourly("a", 90, silent=[*range(5, 32), *range(60, 88)])])
    alarms, _ = run(text, "--window", "24h")
    assert [alarm["source"] for alarm in alarms] == ["a", "b", "a"]
    assert [alarm["opened"] for alarm in alarms] == sorted(alarm["opened"] for alarm in alarms)


def test_what_was_learned_sees_an_outage_sooner_than_a_day_and_names_all_three_kinds(run):
    weeks, day = 8 * 7 * 24, 24
    random = Random(5)
    counts = [random.randint(500, 5000) for _ in range(weeks)]
    late = hourly("late", weeks, lambda hour: counts[hour], silent=range(weeks - 3 * day, weeks - 2 * day))
    flat = hourly("flat", weeks, lambda hour: 0 if weeks - 3 * day <= hour < weeks - 2 * day else counts[hour])
    stuck = hourly("stuck", weeks, lambda hour: 777 if weeks - 3 * day <= hour < weeks - 2 * day else counts[hour])
    alarms, _ = run(csv([*late, *flat, *stuck]))
    assert {alarm["source"]: alarm["kind"] for alarm in alarms} == {"late": "late", "flat": "flat", "stuck": "stuck"}
    began = START + (weeks - 3 * day) * HOUR
    for alarm in alarms:
        opened = datetime.fromisoformat(alarm["opened"].replace("Z", "+00:00"))
        assert began < opened < began + timedelta(hours=10)
        assert alarm["resolved"] is not None


def test_a_cron_says_when(run):
    daily = [("crm", START + timedelta(days=day, hours=6, minutes=10), 5) for day in range(20) if day != 12]
    [alarm], _ = run(csv(daily), "--window", "cron 0 6 * * *")
    assert (alarm["kind"], alarm["opened"][:10], alarm["resolved"][:10]) == ("late", "2026-01-17", "2026-01-18")


def test_a_cron_is_read_in_the_time_zone_that_is_named(run):
    noon_utc = [("crm", START + timedelta(days=day, hours=12), 5) for day in range(10)]
    assert run(csv(noon_utc), "--window", "cron 55 6 * * *", "--timezone", "America/New_York")[0] == []
    assert run(csv(noon_utc), "--window", "cron 55 6 * * *")[0] != []


def test_on_closed_days_nothing_is_expected(run):
    weekdays = [row for row in hourly("crm", 24 * 14) if row[1].weekday() < 5]
    assert [alarm["kind"] for alarm in run(csv(weekdays), "--window", "24h")[0]] == ["late"]
    assert run(csv(weekdays), "--window", "24h", "--closed", "sat,sun")[0] == []
    assert run(csv(weekdays), "--window", "24h", "--closed=2026-01-10/2026-01-11, --01-17,--01-18")[0] == []


def test_a_window_that_is_learned_falls_back_until_it_is(run):
    text = csv(hourly("crm", 60, silent=range(10, 30)))
    assert run(text)[0] == []
    [alarm], _ = run(text, "--fallback", "6h")
    assert alarm["opened"] == "2026-01-05T15:00:00Z"


def test_the_check_runs_as_often_as_it_is_told(run):
    text = csv([("crm", START, 5), ("crm", START + 30 * HOUR, 5)])
    assert run(text, "--window", "90m", "--step", "15m")[0][0]["opened"] == "2026-01-05T01:30:00Z"
    assert run(text, "--window", "90m")[0][0]["opened"] == "2026-01-05T02:00:00Z"


def test_a_history_without_any_count_is_one_of_signs_of_life(run):
    assert run(csv(hourly("crm", 60, lambda _: "")), "--window", "24h")[0] == []


def test_a_source_that_falls_silent_for_good_is_pointed_out_and_judged_if_asked(run):
    text = csv([*hourly("dead", 24), *hourly("alive", 24 * 5)])
    alarms, hint = run(text, "--window", "24h")
    assert alarms == []
    assert "1 sources, such as `dead`, end before the others; with `--until 2026-01-09T23:00:00Z`" in hint
    [alarm], hint = run(text, "--window", "24h", "--until", "2026-01-09T23:00:00Z")
    assert (alarm["source"], alarm["kind"], alarm["resolved"]) == ("dead", "late", None)
    assert hint == ""


def test_a_history_may_be_cut_off(run):
    text = csv([*hourly("crm", 60, silent=range(10, 50)), *[("later", START + 55 * HOUR, 1)]])
    [alarm], _ = run(text, "--window", "24h", "--until", "2026-01-06T12:00:00Z")
    assert (alarm["source"], alarm["resolved"]) == ("crm", None)


def test_standard_input_is_read(run, monkeypatch):
    text = csv(hourly("crm", 60, silent=range(10, 50)))
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert len(run("", "--window", "24h", file="-")[0]) == 1


def test_a_spreadsheets_byte_order_mark_and_line_ends_do_no_harm(run):
    text = csv(hourly("crm", 60, silent=range(10, 50)))
    assert len(run(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "--window", "24h")[0]) == 1


def test_nothing_in_a_history_is_no_alarm(run):
    assert run("source,time,rows\n") == ([], "")


def test_names_are_printed_as_they_are(run):
    [alarm], _ = run(csv(hourly("Zürich ☃", 60, silent=range(10, 50))), "--window", "24h")
    assert alarm["source"] == "Zürich ☃"


# -- what is wrong ----------------------------------------------------------------------------------------------------

GOOD = "source,time,rows\ncrm,2026-01-01T00:00:00Z,1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column"),
        ("source,when,rows\n", "no column `time`"),
        (GOOD + "crm,yesterday,1\n", "Line 3 of the history"),
        (GOOD + "crm,,1\n", "Line 3 of the history"),
        (GOOD + "crm,2026-01-01T01:00:00Z,many\n", "Line 3 of the history: `rows` is 'many'"),
        (GOOD + "crm,2026-01-01T01:00:00Z,-1\n", "Line 3 of the history: `rows` is '-1'"),
        (GOOD + ",2026-01-01T01:00:00Z,1\n", "Line 3 of the history names no source"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_history_that_is_wrong_is_said_with_its_line(fails, text, said):
    assert said in fails(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--window", "sometimes"), "--window is 'sometimes'"),
        (("--window", "cron 99 * * * *"), "--window cron: `cron` is '99 * * * *'"),
        (("--window", "0h"), "--window is '0h'"),
        (("--window", "900d"), "--window: `window_seconds`"),
        (("--budget", "0"), "`budget` is 0"),
        (("--fallback", "x"), "--fallback is 'x'"),
        (("--step", "0m"), "--step is '0m'"),
        (("--timezone", "Mars/Olympus"), "--timezone: there is no time zone 'Mars/Olympus'"),
        (("--closed", "someday"), "--closed: `closed.weekdays` has 'someday'"),
        (("--closed", "2026-13-01"), "--closed: `closed.dates` has '2026-13-01'"),
        (("--until", "2026-01-01"), "`--until` is '2026-01-01', which is not an ISO 8601 instant"),
    ],
)
def test_an_argument_that_is_wrong_is_named(fails, words, said):
    assert said in fails(GOOD, *words)


def test_a_file_that_is_not_there_is_one_line(fails, tmp_path):
    assert "absent.csv" in fails("", file=str(tmp_path / "absent.csv"))


# -- the picture ------------------------------------------------------------------------------------------------------


def test_a_picture_is_drawn(run, tmp_path):
    text = csv([*hourly("crm $x_1$", 60, silent=range(10, 50)), *hourly("ads", 60, lambda hour: 0 if hour > 20 else 5)])
    out = tmp_path / "out.png"
    alarms, _ = run(text, "--window", "24h", "--plot", str(out))
    assert len(alarms) == 2
    assert out.read_bytes().startswith(b"\x89PNG")


def beats(*rows: int | None) -> list[Beat]:
    return [Beat(START + hour * HOUR, count) for hour, count in enumerate(rows)]


@pytest.mark.parametrize(
    ("kind", "history", "since"),
    [
        (IncidentKind.LATE, beats(1, 0, None), 2),
        (IncidentKind.FLAT, beats(1, 2, 0, None, 0), 1),
        (IncidentKind.FLAT, beats(0, 0), 0),
        (IncidentKind.STUCK, beats(1, 7, 7, 0, 7), 1),
        (IncidentKind.UNMEASURED, beats(3, None, None), 0),
    ],
)
def test_a_quiet_stretch_begins_with_the_last_sign_of_what_is_missed(kind, history, since):
    alarm = Episode("crm", kind, START + 10 * HOUR, None, "")
    assert plot._quiet_since(alarm, history) == START + since * HOUR


def test_a_picture_of_any_history_can_be_drawn(tmp_path):
    histories = {"one": beats(1), "unknown": beats(None, None), "zero": beats(0, 0, 0)}
    assert plot.draw(histories, dict.fromkeys(histories, ()), None, str(tmp_path / "out.png")) == 0
    assert plot.draw({}, {}, None, str(tmp_path / "none.png")) == 0


def test_of_too_many_sources_those_with_most_alarms_are_shown(monkeypatch, tmp_path, run):
    monkeypatch.setattr(plot, "MOST_PANELS", 1)
    text = csv([*hourly("fine", 60), *hourly("crm", 60, silent=range(10, 50))])
    _, hint = run(text, "--window", "24h", "--plot", str(tmp_path / "out.png"))
    assert "shows those with most alarms; 1 sources are not in it" in hint


def test_without_matplotlib_it_is_said_what_to_install_before_anything_is_done(fails, monkeypatch, tmp_path):
    monkeypatch.setattr(replay, "find_spec", lambda name: None)
    assert "pip install airflow-oauth-guard[plot]" in fails(GOOD, "--plot", str(tmp_path / "out.png"))
    assert not (tmp_path / "out.png").exists()


def test_a_replay_needs_neither_airflow_nor_a_store_nor_matplotlib():
    loaded = comes_along("airflow_oauth_guard.cli.replay", "airflow_oauth_guard.cli.plot")
    assert not loaded & {"airflow", "sqlalchemy", "httpx", "matplotlib", "numpy", "rich"}


def test_the_extra_is_there():
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert '\nplot = ["matplotlib' in project
