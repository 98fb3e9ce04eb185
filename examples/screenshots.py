"""Take the pictures in ``docs/images`` of a demo that is up. Needs playwright, and Debian's chromium."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def take(url: str, run_id: str, folder: Path) -> None:
    """Save ``investigation.png``: how the investigations of a run ended, as the Airflow grid shows it."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--disable-sync"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(f"{url}/dags/oauth_guard_investigate/runs/{quote(run_id)}/tasks/investigate.report/mapped")
        page.get_by_text("4 Task Instances").wait_for()
        time.sleep(1)  # the grid beside the table draws itself a moment later
        page.screenshot(path=folder / "investigation.png")
        browser.close()
