"""Every rule that the package reads an answer by has a sentence for people."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import airflow_oauth_guard
from airflow_oauth_guard.domain.rules import RULES, explained

PACKAGE = Path(airflow_oauth_guard.__file__).parent
MAKERS = {"Reading": 2, "_unknown": 1, "_by_codes": 3, "_reading": 2}
"""Functions that take a rule's name, and at which place."""


def rules_in_the_code() -> set[str]:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
                place = MAKERS[node.func.id]
                given = node.args[place] if len(node.args) > place else None
                parts = [given.body, given.orelse] if isinstance(given, ast.IfExp) else [given]
                found |= {
                    part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)
                }
    return found


def test_the_search_finds_the_rules():
    assert {"token_issued", "bare_401", "provider_code", "rejected_twice"} <= rules_in_the_code()


def test_every_rule_in_the_code_is_explained():
    assert {rule for rule in rules_in_the_code() if not explained(rule)} == set()


def test_no_sentence_is_about_a_rule_that_is_gone():
    known = rules_in_the_code() | {"provider_status", "reseeded", "revived"}
    assert set(RULES) - known == set()


@pytest.mark.parametrize(("rule", "sentence"), [("http_404", "HTTP 404 without a reason beside it"), ("made_up", "")])
def test_a_status_is_explained_by_its_number_and_an_unknown_rule_not_at_all(rule, sentence):
    assert explained(rule) == sentence
