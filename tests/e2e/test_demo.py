"""The whole demo, as a person runs it: a real Airflow, a real provider, the incident; and nothing secret left behind."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "planted-"
CONNECTIONS = ("crm_prod", "ads_reports", "billing_api", "shop_orders", "web_analytics")

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    home = tmp_path_factory.mktemp("demo")
    ended = subprocess.run(
        [sys.executable, "examples/demo.py", "--home", str(home)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return home, ended


def needles() -> list[bytes]:
    """Every way a secret of the demo could have been written down."""
    clients = [f"{conn_id}:{PREFIX}client-{conn_id}".encode() for conn_id in CONNECTIONS]
    return [PREFIX.encode(), *(base64.b64encode(client).rstrip(b"=") for client in clients)]


def leaks(home: Path) -> list[str]:
    files = [path for path in home.rglob("*") if path.is_file()]
    return [
        path.relative_to(home).as_posix() for path in files if any(needle in path.read_bytes() for needle in needles())
    ]


def test_every_row_of_the_demo_is_right(demo):
    _, ended = demo
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-3000:]
    assert "Every row is right." in ended.stdout


def test_no_planted_secret_is_anywhere_in_the_airflow_home(demo):
    home, _ = demo
    assert len(list((home / "logs").rglob("*.log"))) > 40
    assert (home / "oauth_guard.db").exists()
    assert leaks(home) == []


def test_the_search_for_secrets_finds_one_that_is_there(tmp_path):
    (tmp_path / "task.log").write_text(f"Authorization: Bearer {PREFIX}at-1")
    (tmp_path / "basic.log").write_bytes(base64.b64encode(b"crm_prod:planted-client-crm_prod"))
    assert sorted(leaks(tmp_path)) == ["basic.log", "task.log"]
