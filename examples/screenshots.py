"""Take the pictures in ``docs/images`` of a demo that is up. Needs playwright, and Debian's chromium."""

from __future__ import annotations

import csv
import random
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def draw(folder: Path) -> None:
    """Save ``replay.png``: five weeks of a shop's hourly orders, with an outage of each kind in the last one."""
    chance, start = random.Random(7), datetime(2026, 9, 28, tzinfo=timezone.utc)
    with TemporaryDirectory() as scratch:
        history = Path(scratch) / "orders.csv"
        with history.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("source", "time", "rows"))
            for hour in range(35 * 24):
                at = start + timedelta(hours=hour, minutes=chance.randrange(4))
                usual = (40 if at.weekday() < 5 else 15) if 7 <= at.hour < 20 else 0
                rows = max(0, round(chance.gauss(usual, usual / 5)))
                if not 28 * 24 + 9 <= hour < 28 * 24 + 17:
                    flat, stuck = 30 * 24 + 8 <= hour < 30 * 24 + 18, 32 * 24 + 9 <= hour < 32 * 24 + 19
                    table.writerow(("orders", at.isoformat(), 0 if flat else 37 if stuck else rows))
        command = ["airflow-oauth-guard", "replay", str(history), "--plot", str(folder / "replay.png")]
        subprocess.run(command, check=True)


def take(url: str, run_id: str, folder: Path) -> None:
    """Save ``investigation.png``: how the investigations of a run ended, as the Airflow grid shows it."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    draw(folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--disable-sync"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(f"{url}/dags/oauth_guard_investigate/runs/{quote(run_id)}/tasks/investigate.report/mapped")
        page.get_by_text("4 Task Instances").wait_for()
        time.sleep(1)  # the grid beside the table draws itself a moment later
        page.screenshot(path=folder / "investigation.png")
        browser.close()
