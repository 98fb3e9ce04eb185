"""A StatsD server, which is a UDP socket, and an Airflow that is told to send its metrics there."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OPTION = "AIRFLOW__METRICS__"
OURS = "airflow.oauth_guard."


class StatsServer:
    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.port: int = self._socket.getsockname()[1]

    def received(self) -> list[str]:
        """What of ours has come since the last time, in order, without Airflow's prefix; a timer's value is left out."""
        lines: list[str] = []
        # What was sent on loopback is there already.
        while select.select([self._socket], [], [], 0.05)[0]:
            lines += self._socket.recv(65_536).decode().splitlines()
        ours = [line.removeprefix("airflow.") for line in lines if line.startswith(OURS)]
        return [re.sub(r":[0-9.]+\|ms", ":|ms", line) for line in ours]

    def close(self) -> None:
        self._socket.close()


@contextmanager
def stats_server(monkeypatch: pytest.MonkeyPatch, **options: str) -> Iterator[StatsServer]:
    """Airflow sends what it counts to this server, as configured like this."""
    server = StatsServer()
    configure(
        monkeypatch, **{"statsd_on": "True", "statsd_host": "127.0.0.1", "statsd_port": str(server.port), **options}
    )
    yield server
    server.close()
    monkeypatch.undo()
    begin_anew()


def configure(monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
    """Set options of ``[metrics]``, as if every process had started with them."""
    for name, value in options.items():
        monkeypatch.setenv(f"{OPTION}{name.upper()}", value)
    begin_anew()


def begin_anew() -> None:
    """Have Airflow read ``[metrics]`` once more: it does so once per process, and never closes its socket."""
    try:
        from airflow.sdk._shared.observability.metrics import stats
        from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
    except ImportError:  # Airflow 3.1
        from airflow.stats import Stats

        _close(vars(Stats).get("instance"))
        for owner in (Stats, type(Stats)):
            for name in ("factory", "instance"):
                if name in vars(owner):
                    delattr(owner, name)
        type(Stats).instance = None
        type(Stats).__init__(Stats)
    else:
        _close(stats._backend)
        stats.initialize(factory=get_stats_factory(), export_legacy_names=False)


def _close(backend: Any) -> None:
    if client := getattr(backend, "statsd", None):
        client.close()
