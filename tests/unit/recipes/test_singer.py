"""A real tap in a process of its own."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from subprocess import CalledProcessError

import pytest

pytest.importorskip("airflow", reason="guarded connections need Airflow")
pytest.importorskip("singer_sdk")

from airflow.sdk.execution_time.context import set_current_context

from airflow_oauth_guard.errors import CredentialUnusableError
from examples.recipes.singer_tap import run_tap
from tests.airflow_parts import task_context
from tests.resource_server import INVALID_TOKEN, Told
from tests.unit.recipes.conftest import bearer, parameter

pytestmark = pytest.mark.airflow

TAP = [sys.executable, str(Path(__file__).with_name("tap_rows.py"))]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where the file with the token is for a while."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def run(guarded, provider, temporary, tmp_path):
    def body(page, rows):
        return {"rows": rows, "next": f"{provider.url}/contacts?page={page + 1}" if page < provider.pages else None}

    url = provider.speak(
        token=bearer, page=lambda asked: int(parameter(asked, "page")), body=body, refusal=Told(401, INVALID_TOKEN)
    )
    messages = io.StringIO()

    def once(tap=TAP):
        return run_tap(guarded.conn_id, tap, {"api_url": url}, state=tmp_path / "state.json", to=messages)

    once.messages = messages
    return once


def records(messages):
    lines = [json.loads(line) for line in messages.getvalue().splitlines()]
    return [line["record"]["id"] for line in lines if line["type"] == "RECORD"]


def test_a_tap_is_told_a_fresh_token_in_a_file_of_which_nothing_is_left(run, temporary):
    assert run() == 6
    assert records(run.messages) == [1, 2, 3, 4, 5, 6]
    assert not list(temporary.iterdir())


def test_the_file_is_for_its_owner_only(run, tmp_path):
    seen = tmp_path / "seen"
    look = f"import os, pathlib, sys; pathlib.Path({str(seen)!r}).write_text(oct(os.stat(sys.argv[2]).st_mode & 0o777))"
    assert run([sys.executable, "-c", look]) == 0
    assert seen.read_text() == "0o600"


def test_a_tap_whose_token_is_revoked_fails_and_the_next_try_goes_on_from_its_bookmark_with_another(
    run, guarded, provider, temporary, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=False)
    with pytest.raises(CalledProcessError) as raised:
        run()
    assert raised.value.returncode != 0
    assert "2 records before" in str(raised.value.output)
    assert not list(temporary.iterdir())
    provider.after_page = lambda page: None
    with set_current_context(task_context(try_number=2)):
        assert run() == 4
    assert records(run.messages) == [1, 2, 3, 4, 5, 6]
    assert len(set(provider.bearers)) == 2


def test_a_tap_is_not_run_with_a_token_that_is_known_to_be_dead(run, guarded, server, provider, temporary):
    server.revoke(guarded.conn_id)
    with set_current_context(task_context(try_number=2)), pytest.raises(CredentialUnusableError, match="invalid_grant"):
        run()
    assert not provider.bearers
    assert not list(temporary.iterdir())
