"""A person with a browser: Debian's chromium, watched for everything that should not happen on a page."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Frame, Page, Request

CHROMIUM = Path(os.environ.get("OAUTH_GUARD_TEST_CHROMIUM") or "/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PATIENCE_MS = 30_000
"""Airflow's own pages are slow on a machine that is busy."""

OURS = "/oauth-guard"
NOT_THE_UI = re.compile(r"^(?!.*/static/(assets|i18n)/)")
"""All but Airflow's own scripts and styles: megabytes that are the same for everybody."""


def chromium_or_skip() -> None:
    pytest.importorskip("playwright", reason="the tests of the page need playwright")
    if not CHROMIUM.exists():
        pytest.skip(
            f"The tests of the page need a chromium, and {CHROMIUM} is not there: `apt-get install chromium`, or name another "
            "one in OAUTH_GUARD_TEST_CHROMIUM."
        )


@contextmanager
def a_browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Visitor:
    """One person. What went wrong on pages of ours meanwhile is in ``problems``; what the browser saw is in ``har``.

    Args:
        har: Where to write down all that is sent and received.
        context: How the browser is, such as its viewport.
    """

    def __init__(self, browser: Browser, har: Path, **context: Any) -> None:
        self.har = har
        self.problems: list[str] = []
        self._expected: list[int] = []
        given = {
            "viewport": DESK,
            "color_scheme": "light",
            "reduced_motion": "reduce",
            "locale": "en-GB",
            "timezone_id": "UTC",
            **context,
        }
        self.context: BrowserContext = browser.new_context(
            record_har_path=har, record_har_content="embed", record_har_url_filter=NOT_THE_UI, **given
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self._watch()

    def _watch(self) -> None:
        """Errors in the console, scripts that fail, requests that do, and answers that refuse."""

        def note(what: str, where: str) -> None:
            # Where something breaks the content security policy is not said, and nobody else's pages here have one.
            if (OURS in where or "Content Security Policy" in what) and not self._is_expected(what):
                self.problems.append(f"{what} at {where}")

        def hear(said: ConsoleMessage) -> None:
            if said.type == "error":
                note(said.text, said.location.get("url", ""))

        def failed(request: Request) -> None:
            # Whoever leaves a page stops what it still was about to load.
            if request.failure != "net::ERR_ABORTED":
                note(f"request: {request.failure}", request.url)

        self.context.on("console", hear)
        self.context.on("weberror", lambda error: note(f"script: {error.error}", OURS))
        self.context.on("requestfailed", failed)
        self.context.on("response", lambda answer: answer.status < 400 or note(f"answer: {answer.status}", answer.url))

    def expects(self, *status: int) -> None:
        """Answers that are no problem in this test, such as a 403."""
        self._expected += status

    def _is_expected(self, what: str) -> bool:
        return any(re.search(rf"(answer: |status of ){status}\b", what) for status in self._expected)

    def is_known(self, url: str, token: str) -> None:
        """As after logging in."""
        self.context.add_cookies([{"name": "_token", "value": token, "url": url}])

    def log_in(self, url: str, name: str, password: str) -> None:
        self.page.goto(f"{url}/auth/login")
        self.sign_in(name, password)

    def sign_in(self, name: str, password: str) -> None:
        """Through the form of Airflow's simple auth manager."""
        self.page.locator("input[name=username]").fill(name)
        self.page.locator("input[name=password]").fill(password)
        self.page.get_by_role("button", name=re.compile("sign in", re.IGNORECASE)).click()
        self.page.wait_for_url(lambda at: "/auth/login" not in at)

    def frame(self) -> Frame:
        """Our page inside Airflow's."""
        element = self.page.locator("iframe").element_handle()
        assert element is not None
        frame = element.content_frame()
        assert frame is not None
        return frame

    def close(self) -> None:
        self.context.close()


# -- what a browser saw -----------------------------------------------------------------------------------------------


def entries(har: Path) -> list[dict[str, Any]]:
    return list(json.loads(har.read_text(encoding="utf-8"))["log"]["entries"])


def body_of(entry: dict[str, Any]) -> str:
    content = entry["response"]["content"]
    text = str(content.get("text", ""))
    return base64.b64decode(text).decode(errors="replace") if content.get("encoding") == "base64" else text


# -- what every page has to be ----------------------------------------------------------------------------------------


def overflow(frame: Page | Frame) -> int:
    """By how many pixels the page is wider than its window."""
    return int(frame.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


REACHABLE = """
() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary, pre[tabindex]")]
    .filter((one) => one.checkVisibility() && !one.disabled)
    .map((one, number) => (one.dataset.tabOrder = number))
"""
FOCUSED = """
() => {
    const one = document.activeElement;
    if (!one || one === document.body) return null;
    const style = getComputedStyle(one), box = one.getBoundingClientRect();
    return {
        number: "tabOrder" in one.dataset ? Number(one.dataset.tabOrder) : null,
        text: (one.innerText || one.name || one.tagName).trim().slice(0, 40),
        outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
        onScreen: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
    };
}
"""


def tabbed_through(page: Page) -> tuple[int, list[dict[str, Any]]]:
    """How much there is to reach, and where Tab goes, from the top until it leaves the page."""
    reachable = len(page.evaluate(REACHABLE))
    stops: list[dict[str, Any]] = []
    page.evaluate("document.activeElement.blur()")
    while len(stops) <= reachable:
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop is None:
            break
        stops.append(stop)
    return reachable, stops
