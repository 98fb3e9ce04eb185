from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow_oauth_guard.errors import ConfigurationError, OAuthGuardError
from airflow_oauth_guard.hooks.deadman import ping


class Switch:
    """A dead-man's switch: answers with what it is told, and remembers who called."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.called: list[str] = []
        switch = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                switch.called.append(self.path)
                status = switch.answers.pop(0) if switch.answers else 200
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/check/s3cret"


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    # The pauses between tries are not what is tested.
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    one = Switch()
    thread = threading.Thread(target=one.server.serve_forever, daemon=True)
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join()


def test_a_pass_is_announced_once(switch):
    ping(switch.url)
    assert switch.called == ["/check/s3cret"]


def test_a_server_error_is_tried_again(switch):
    switch.answers = [503, 503, 200]
    ping(switch.url)
    assert len(switch.called) == 3


@pytest.mark.parametrize("status", [404, 302])
def test_a_refusal_is_an_error_that_names_the_host_and_not_the_secret_address(switch, status):
    switch.answers = [status]
    with pytest.raises(OAuthGuardError, match=f"127.0.0.1 answered {status}") as caught:
        ping(switch.url)
    assert "s3cret" not in str(caught.value)
    assert len(switch.called) == 1


def test_nobody_there_is_an_error_after_three_tries(switch):
    switch.answers = [500] * 3
    with pytest.raises(OAuthGuardError, match="did not take the ping: HTTPError") as caught:
        ping(switch.url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_address_that_is_none_is_refused():
    for url in ("hc-ping.com/abc", "ftp://host/abc", "https:///abc"):
        with pytest.raises(ConfigurationError):
            ping(url)
