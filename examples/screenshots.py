"""Take the pictures in ``docs/images`` of a demo that is up. Needs playwright, and Debian's chromium.

The credentials and the source that the demo's own story lacks are made up here: a roster of five would show little.
"""

from __future__ import annotations

import csv
import random
import subprocess
import time
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_oauth_guard.detector.lessons import lesson
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Subject, Verdict
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.grants.flow import IssuedTokens
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.records import Enrollment

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from airflow_oauth_guard.store.store import Store

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


PAGES = {
    "roster": "/",
    "credential": "/credentials/billing_api",
    "source": "/sources/shop_orders_hourly",
    "incidents": "/incidents",
}


def furnish(store: Store) -> None:
    """Healthy credentials beside those of the story, and a source with five weeks of hourly loads and a habit."""
    for number, (conn_id, provider) in enumerate(HEALTHY.items()):
        at = utcnow() - timedelta(minutes=3 + 5 * number)
        enrolled = Enrollment(
            conn_id=conn_id,
            connection_class="refresh_token",
            client_key=f"made up {provider}",
            margin=timedelta(minutes=10),
            access_token=f"made up {number}",
            refresh_token=f"made up as well {number}",
            provider=provider,
        )
        store.credentials.enroll(enrolled, at - timedelta(days=number))
        lease = store.credentials.lease(conn_id, "screenshots", timedelta(minutes=1), at)
        assert lease is not None
        intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, at)
        issued = IssuedTokens(f"made up {number}, the next", expires_in=timedelta(minutes=60))
        refreshed = _alive(Kind.REFRESH, Subject.GRANT, lease.tokens.generation, at)
        stored = store.credentials.renew(lease, intent, issued, refreshed, at)
        assert stored is not None
        probed_at = at + timedelta(seconds=20 + number)
        probed = _alive(Kind.PROBE, Subject.ACCESS_TOKEN, stored[0].generation, probed_at)
        store.credentials.record(stored[0], probed, probed_at)
    _loads(store, utcnow() - timedelta(minutes=12))


def _alive(kind: Kind, subject: Subject, generation: int, at: datetime) -> Evidence:
    rule, says = {
        Kind.REFRESH: ("token_issued", "the token endpoint issued a new access token"),
        Kind.PROBE: ("probe_answered", "the probe was answered with a success body"),
    }[kind]
    return Evidence(
        kind=kind,
        generation=generation,
        observed_at=at,
        reading=Reading(subject, Finding.LIVE, rule, says),
        verdict=Verdict.LIVE,
        http_status=200,
        observer=Observer("oauth_guard_refresh", f"scheduled__{at:%Y-%m-%dT%H:%M}", "guard.refresh"),
    )


QUIET_HOURS = 6
"""Since when the made-up source has no rows: long enough for a suspicion, and not yet for an alarm."""

HEALTHY = {
    "calendar_sync": "google",
    "chat_exports": "slack",
    "crm_archive": "salesforce",
    "files_inbound": "dropbox",
    "ledger": "xero",
    "leads": "hubspot",
    "mail_metrics": "microsoft",
    "surveys": "typeform",
    "tickets": "zendesk",
}


def _loads(store: Store, now: datetime) -> None:
    """Three weeks of hourly loads, and nothing in the last ones: it is a Wednesday afternoon in the shop, whenever that is."""
    name, chance, afternoon = "shop_orders_hourly", random.Random(7), datetime(2026, 3, 4, 15, tzinfo=timezone.utc)
    store.sources.register([Source(name, Learned(), credential="shop_orders")], now - timedelta(days=35))
    for hours in range(21 * 24, 0, -1):
        before = timedelta(hours=hours) - timedelta(minutes=chance.randrange(4))
        in_the_shop = afternoon - before
        usual = (40 if in_the_shop.weekday() < 5 else 15) if 7 <= in_the_shop.hour < 20 else 4
        rows = 0 if hours < QUIET_HOURS else max(1, round(chance.gauss(usual, usual / 5)))
        at = now - before
        store.sources.beat(name, rows, at, Observer("load_orders", f"scheduled__{at:%Y-%m-%dT%H}", "load"))
    lesson(store, store.sources.get(name), now - timedelta(hours=QUIET_HOURS))


def look_around(browser: Browser, url: str, folder: Path) -> None:
    """Save ``page-*.png``: the page, light and dark, and the roster on a phone."""
    for theme in ("light", "dark"):
        page = browser.new_page(
            viewport={"width": 1280, "height": 860}, color_scheme=theme, locale="en-GB", timezone_id="UTC"
        )
        # Airflow's own choice, which the page follows.
        page.add_init_script(f"localStorage.setItem('theme', '{theme}')")
        for name, path in PAGES.items():
            # The frame shows what the address names behind it.
            page.goto(f"{url}/plugin/oauth_guard/oauth-guard{path}")
            frame = page.frame_locator("iframe")
            frame.get_by_role("heading", level=1).wait_for()
            height = 860
            if name == "credential":
                frame.locator(".timeline .change summary").first.click()
                height = 1560
            page.set_viewport_size({"width": 1280, "height": height})
            page.wait_for_load_state("networkidle")
            _save(page, folder / f"page-{name}-{theme}.png")
        page.close()
    page = browser.new_page(viewport={"width": 390, "height": 844}, locale="en-GB", timezone_id="UTC")
    page.goto(f"{url}/oauth-guard/")
    _save(page, folder / "page-roster-phone.png")
    page.close()


def _save(page: Page, path: Path) -> None:
    """In 256 colours, which are enough for a page of ours, and a third of the bytes."""
    from PIL import Image

    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    # Whatever is rare is kept: the dots of a few pixels are what the page is about.
    reduced = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def take(url: str, run_id: str, folder: Path, store: Store) -> None:
    """Save ``investigation.png``: how the investigations of a run ended, as the Airflow grid shows it; and the page."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    draw(folder)
    furnish(store)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--disable-sync"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(f"{url}/dags/oauth_guard_investigate/runs/{quote(run_id)}/tasks/investigate.report/mapped")
        page.get_by_text("4 Task Instances").wait_for()
        time.sleep(1)  # the grid beside the table draws itself a moment later
        page.screenshot(path=folder / "investigation.png")
        look_around(browser, url, folder)
        browser.close()
