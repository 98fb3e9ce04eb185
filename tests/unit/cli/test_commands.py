from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("airflow", reason="the commands need Airflow")

from cryptography.fernet import Fernet

from airflow_oauth_guard.cli import commands, definition
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.store.records import Enrollment
from airflow_oauth_guard.store.upkeep import Rotation
from tests.airflow_parts import (
    CALLBACK,
    PLANTED,
    Guarded,
    enrolled,
    expire,
    incident_about,
    lapse,
    rows,
    used_by,
    utcnow,
)

pytestmark = pytest.mark.airflow

ENTRY = {
    "conn_id": "crm_prod",
    "connection_class": "refresh_token",
    "access_token": f"{PLANTED}access",
    "refresh_token": f"{PLANTED}refresh",
    "expires_at": "2030-01-01T00:00:00+00:00",
}


@pytest.fixture(autouse=True)
def outside_a_server(monkeypatch):
    # The commands call themselves a server, so that Airflow looks connections up for them; only for this test.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")


# -- status -----------------------------------------------------------------------------------------------------------


def roster(capsys) -> list[dict[str, Any]]:
    capsys.readouterr()
    commands.status(argparse.Namespace(json=True))
    return json.loads(capsys.readouterr().out)


def test_the_roster_holds_every_credential_whatever_its_status_and_no_secret(store, capsys):
    for conn_id in ("active", "lapsed", "expired"):
        enrolled(store, conn_id, access_token=f"{PLANTED}{conn_id}", refresh_token=f"{PLANTED}r-{conn_id}")
    lapse(store, "lapsed")
    expire(store, "expired")
    commands.status(argparse.Namespace(json=True))
    text = capsys.readouterr().out
    assert PLANTED not in text
    found = {row["conn_id"]: row for row in json.loads(text)}
    assert {conn_id: row["status"] for conn_id, row in found.items()} == {
        "active": "active",
        "lapsed": "lapsed",
        "expired": "expired",
    }
    assert found["active"]["evidence"] is None
    assert found["lapsed"]["evidence"] == "two probes were refused"
    assert "The grant is dead" in found["expired"]["evidence"]
    assert found["active"]["life_left"] == "59 min"
    assert found["active"]["generation"] == 1


def test_what_is_open_is_said(store, capsys):
    enrolled(store)
    incident_about(store)
    [row] = roster(capsys)
    assert row["incident"] == "request_malformed"


def test_whom_it_feeds_is_said(store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    used_by(store, "crm", "crm_load")
    store.sources.register([Source("crm_deals", timedelta(days=1), credential="crm")], utcnow())
    enrolled(store, "unused")
    assert {row["conn_id"]: (row["feeds"], row["dags"], row["sources"]) for row in roster(capsys)} == {
        "crm": ("1 DAG, 1 source", ["crm_load"], ["crm_deals"]),
        "unused": (None, [], []),
    }
    commands.status(argparse.Namespace(json=False))
    assert "1 DAG, 1 source" in capsys.readouterr().out


def test_an_empty_store_is_an_empty_roster(store, capsys):
    assert roster(capsys) == []


def test_the_table_for_people_holds_no_secret_either(store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    enrolled(store, access_token=f"{PLANTED}access", expires_at=utcnow() + timedelta(days=3, hours=4, minutes=30))
    commands.status(argparse.Namespace(json=False))
    shown = capsys.readouterr().out
    assert "crm" in shown
    assert "3 d 4 h" in shown
    assert PLANTED not in shown


def test_a_token_the_provider_echoed_is_not_in_the_roster(connect, store, capsys):
    guarded = connect()
    guarded.enrolled(store)
    guarded.fault(status=400, body={"error": "invalid_grant", "error_description": " ".join(guarded.secrets)})
    guarded.refresh(store)
    text = json.dumps(roster(capsys))
    assert "invalid_grant" in text
    assert PLANTED not in text


# -- rotate-key -------------------------------------------------------------------------------------------------------


@pytest.fixture
def new_key_first(store, monkeypatch) -> str:
    """A newer key stands before the one that everything so far was encrypted with."""
    newest = Fernet.generate_key().decode()
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", f"{newest},{os.environ['AIRFLOW__CORE__FERNET_KEY']}")
    return newest


def rotate_key() -> None:
    commands.rotate_key(argparse.Namespace())


def test_the_key_is_changed_counted_and_the_old_one_may_go(store, new_key_first, monkeypatch, capsys):
    enrolled(store, access_token=f"{PLANTED}access", refresh_token=f"{PLANTED}refresh")
    rotate_key()
    rotate_key()
    assert capsys.readouterr().out.splitlines() == [
        "Encrypted anew: 2. Under the newest key already: 0.",
        "The old keys may be removed from `[core] fernet_key` now.",
        "Encrypted anew: 0. Under the newest key already: 2.",
        "The old keys may be removed from `[core] fernet_key` now.",
    ]
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", new_key_first)
    assert get_store().credentials.tokens(store.credentials.get("crm")).access_token == f"{PLANTED}access"


def test_what_no_key_opens_is_named_without_a_secret_and_the_exit_code_says_so(
    store, new_key_first, monkeypatch, capsys
):
    enrolled(store, "foreign", access_token=f"{PLANTED}access")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", new_key_first)
    enrolled(get_store(), "ours")
    with pytest.raises(SystemExit) as raised:
        rotate_key()
    shown = capsys.readouterr()
    assert raised.value.code == 1
    assert shown.err.splitlines() == [
        "No key of `[core] fernet_key` opens it: credential `foreign`: access_token",
        "No key of `[core] fernet_key` opens it: credential `foreign`: refresh_token",
    ]
    assert "Under the newest key already: 2." in shown.out
    assert "Keep the old keys: 2 of the stored secrets" in shown.out
    for secret in (PLANTED, new_key_first, *(row["access_token"] for row in rows(store, "oauth_guard_tokens"))):
        assert secret not in shown.out + shown.err


def test_the_old_keys_are_to_be_kept_while_a_refresh_has_no_outcome(store, new_key_first, capsys):
    enrolled(store)
    lease = store.credentials.lease("crm", "somebody", timedelta(minutes=1), utcnow())
    store.credentials.open_intent(lease, "crm-refresh-1", utcnow())
    rotate_key()
    said = capsys.readouterr().out
    assert "Keep the old keys: a refresh of `crm` has no outcome yet" in said
    assert "Then run this command again." in said


def test_an_old_key_that_is_written_with_still_is_a_reason_to_keep_it():
    rotation = Rotation(encrypted_anew=1, up_to_date=0, unreadable=(), fell_behind=3, open_refreshes=())
    said = commands.about_the_old_keys(rotation)
    assert said.startswith("Keep the old keys: 3 were written with an older key meanwhile")


# -- purge ------------------------------------------------------------------------------------------------------------


def purge(capsys, *, dry_run: bool = False) -> list[str]:
    commands.purge(argparse.Namespace(dry_run=dry_run))
    return capsys.readouterr().out.splitlines()


def test_a_purge_says_what_went_and_a_dry_run_what_would(store, capsys):
    store.sources.register([Source("contacts", timedelta(hours=1))], utcnow())
    for days in (300, 200, 100):
        store.sources.beat("contacts", 1, utcnow() - timedelta(days=days), Observer())
    # Of a source that is watched the newest would stay, for its lessons.
    store.sources.forget("contacts")
    kept = ["investigations: 0", "evidence: 0", "intents: 0", "authorizations: 0"]
    nothing = [*kept, "heartbeats: 3", "consumers: 0"]
    assert purge(capsys, dry_run=True) == [f"{line} would go" for line in nothing]
    assert len(rows(store, "oauth_guard_heartbeats")) == 3
    assert purge(capsys) == [f"{line} deleted" for line in nothing]
    assert rows(store, "oauth_guard_heartbeats") == []


def test_a_retention_that_is_too_short_is_one_line_and_nothing_goes(store, capsys, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__EVIDENCE_RETENTION_DAYS", "29")
    with pytest.raises(SystemExit) as raised:
        purge(capsys)
    assert raised.value.code == 1
    assert "evidence_retention_days` is 29; write 30 or more" in capsys.readouterr().err


# -- the way in -------------------------------------------------------------------------------------------------------


def test_the_same_commands_are_there_for_airflow_before_3_2(store, tmp_path, monkeypatch, capsys):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(ENTRY))
    for arguments in (["import", str(path)], ["status", "--json"], ["rotate-key"], ["purge", "--dry-run"]):
        monkeypatch.setattr(sys, "argv", ["airflow-oauth-guard", *arguments])
        commands.main()
    said = capsys.readouterr().out
    assert '"conn_id": "crm_prod"' in said
    assert "Under the newest key already: 2." in said
    assert "evidence: 0 would go" in said


def test_the_tokens_before_are_brought_back_and_again_undone(store, capsys):
    enrolled(store, refresh_token="the right one")
    pasted = Enrollment("crm", "refresh_token", "client-a", timedelta(minutes=10), refresh_token="pasted wrongly")
    store.credentials.import_tokens(pasted, utcnow(), Observer())
    commands.revert(argparse.Namespace(conn_id="crm"))
    assert "generation 3, active" in capsys.readouterr().out
    assert store.credentials.tokens(store.credentials.get("crm")).refresh_token == "the right one"
    commands.revert(argparse.Namespace(conn_id="crm"))
    assert store.credentials.tokens(store.credentials.get("crm")).refresh_token == "pasted wrongly"
    with pytest.raises(SystemExit):
        commands.revert(argparse.Namespace(conn_id="nobody"))
    assert "`nobody`" in capsys.readouterr().err


# -- connect ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def device(connect) -> Guarded:
    params = connect.preset("approver")
    return connect(redirect_uri=CALLBACK, provider="approver", provider_params=params)


def test_a_person_is_told_where_to_enter_what_and_is_connected(device, store, server, capsys):
    # A daemon: if it is never approved, nothing has to wait for it.
    running = Thread(target=commands.connect, args=[argparse.Namespace(conn_id=device.conn_id)], daemon=True)
    running.start()
    said = ""
    while "at the most" not in said and running.is_alive():
        said += capsys.readouterr().out
        time.sleep(0.02)
    told = re.search(r"Open (\S+) and enter the code (\S+)\nWaiting for .+ at the most \.\.\.\n", said)
    assert told is not None, said
    assert told[1] == f"{server.url}/device?user_code={told[2]}"
    server.approve_device(told[2])
    running.join(30)
    assert f"{device.conn_id}: generation 2, active\n" in capsys.readouterr().out
    seen = store.credentials.latest_evidence(device.credential(store))
    assert str(seen.observer) == "airflow oauth-guard connect"


def test_who_denies_gets_one_line_and_the_exit_code_says_so(device, store, server, capsys, monkeypatch):
    monkeypatch.setattr(
        commands,
        "print",
        lambda text, **_: server.approve_device(text[-9:], deny=True) if "code" in text else None,
        raising=False,
    )
    with pytest.raises(SystemExit):
        commands.connect(argparse.Namespace(conn_id=device.conn_id))
    assert "is not connected: HTTP 400: the provider says `access_denied`" in capsys.readouterr().err
    assert device.credential(store).generation == 1


def test_what_cannot_be_connected_like_this_says_what_can_be_done(connect, store, capsys):
    guarded = connect()
    with pytest.raises(SystemExit):
        commands.connect(argparse.Namespace(conn_id=guarded.conn_id))
    assert "connect it from the OAuth Guard page" in capsys.readouterr().err


def test_airflow_finds_the_commands_and_what_they_call():
    [group] = definition.get_cli_commands()
    assert group.name == "oauth-guard"
    assert {command.name for command in group.subcommands} == {
        *("connect", "explain", "import", "providers", "purge", "revert", "rotate-key", "status"),
        *("acknowledge", "expected", "forget", "health", "heartbeat", "mute", "replay", "sources", "unmute"),
    }
    assert all(callable(command.func) for command in group.subcommands)


def test_without_a_fernet_key_the_store_does_not_open(store, monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "")
    with pytest.raises(SystemExit):
        commands.status(argparse.Namespace(json=True))
    assert "fernet_key" in capsys.readouterr().err
