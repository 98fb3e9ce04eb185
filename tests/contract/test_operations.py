"""What ``docs/operations.md`` tells people to do is done here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import URL

from airflow_oauth_guard.store.store import Store

from .making import KEY, enrolled, planted, refusal
from .test_migrations import RELEASES, contents, load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def script(name: str, folder: Path) -> Path:
    """A script from the page, as a reader would copy it."""
    [code] = re.findall(rf"<!-- script: {name} -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = folder / name
    path.write_text(code, encoding="utf-8")
    return path


def move(folder: Path, old: URL, new: URL) -> subprocess.CompletedProcess[str]:
    addresses = [url.render_as_string(hide_password=False) for url in (old, new)]
    return subprocess.run(
        [sys.executable, str(script("move_store.py", folder)), *addresses], capture_output=True, text=True, check=False
    )


def test_a_store_moves_from_sqlite_to_another_database_with_all_that_is_in_it(
    url: URL, tmp_path: Path, open_store: Callable[..., Store]
) -> None:
    old = URL.create("sqlite", database=str(tmp_path / "old.db"))
    load(old, RELEASES[-1])
    moved = move(tmp_path, old, url)
    assert moved.returncode == 0, moved.stderr
    before, new = Store(old, KEY), open_store()
    assert [str(row) for row in before.credentials.roster()] == [str(row) for row in new.credentials.roster()]
    for credential in before.credentials.roster():
        assert new.credentials.tokens(credential) == before.credentials.tokens(credential)
        assert new.credentials.transitions(credential) == before.credentials.transitions(credential)
    counts = [{table: len(rows) for table, rows in contents(one.database.engine).items()} for one in (before, new)]
    assert counts[0] == counts[1]
    before.database.engine.dispose()
    # And numbers go on from where they were.
    credential = enrolled(new, "new")
    assert planted(new, credential, refusal()).id == counts[0]["oauth_guard_evidence"] + 1


def test_a_store_does_not_move_into_one_that_is_in_use(
    url: URL, tmp_path: Path, open_store: Callable[..., Store]
) -> None:
    old = URL.create("sqlite", database=str(tmp_path / "old.db"))
    load(old, RELEASES[-1])
    store = open_store()
    enrolled(store)
    before = contents(store.database.engine)
    moved = move(tmp_path, old, url)
    assert moved.returncode == 1
    assert "is not empty" in moved.stderr
    assert contents(store.database.engine) == before
