"""A Singer tap: a program that is told its token in a file, and writes JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, CalledProcessError, Popen
from tempfile import NamedTemporaryFile
from typing import Any, TextIO

from airflow_oauth_guard.hooks.using import get_token


def run_tap(conn_id: str, tap: Sequence[str], config: Mapping[str, Any], *, state: Path, to: TextIO) -> int:
    """The number of records, for the heartbeat. The messages go on to a target or a file; ``state`` holds the bookmark."""
    rows, begun = 0, ["--state", str(state)] if state.exists() else []
    with NamedTemporaryFile("w", suffix=".json") as private:  # for its owner only (0600), and gone afterwards
        print(json.dumps({**config, "access_token": get_token(conn_id)}), file=private, flush=True)
        with Popen([*tap, "--config", private.name, *begun], stdout=PIPE, text=True) as running:
            for line in running.stdout or ():
                message = json.loads(line)
                to.write(line)
                rows += message["type"] == "RECORD"
                if message["type"] == "STATE":
                    to.flush()
                    state.write_text(json.dumps(message["value"]))
    if running.returncode:
        raise CalledProcessError(running.returncode, list(tap), f"{rows} records before; {state} holds the bookmark")
    return rows
