"""``docs/flat-lines.md`` shows what can be copied, and names every key there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

from airflow_oauth_guard.domain import sources
from airflow_oauth_guard.domain.sources import sources_from_json

PAGE = (Path(__file__).parents[2] / "docs" / "flat-lines.md").read_text(encoding="utf-8")


def test_the_declaration_it_shows_can_be_read():
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    declared = sources_from_json(example)
    assert len(declared) == len(json.loads(example)["sources"])


def test_it_explains_every_key_of_a_source_and_no_other():
    explained = {
        key for line in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for key in re.findall(r"`(\w+)`", line)
    }
    assert explained == sources._KEYS - {"name", "budget"}
