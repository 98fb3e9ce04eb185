from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_oauth_guard.domain.reach import NAMED, OWN_DAGS, Names, Reach

DAGS = Path(__file__).parents[3] / "dags"
LOADS = Names(("crm_load", "crm_sync", "invoices"), 3)
SOURCES = Names(("crm_contacts", "crm_deals"), 2)


@pytest.mark.parametrize(
    ("reach", "sentence", "short"),
    [
        (
            Reach(LOADS, SOURCES),
            "Feeds 3 DAGs (`crm_load`, `crm_sync`, `invoices`) and 2 sources (`crm_contacts`, `crm_deals`).",
            "3 DAGs, 2 sources",
        ),
        (Reach(Names(("crm_load",), 1)), "Feeds 1 DAG (`crm_load`).", "1 DAG"),
        (Reach(sources=Names(("deals",), 1)), "Feeds 1 source (`deals`).", "1 source"),
        (Reach(), "Nobody is known to have used it in the last 30 days.", ""),
    ],
)
def test_whom_a_credential_feeds_is_one_sentence(reach, sentence, short):
    assert (reach.sentence(), reach.short()) == (sentence, short)


@pytest.mark.parametrize("kept", [NAMED, 50])
def test_of_many_a_few_are_named_and_the_rest_counted_however_many_names_are_kept(kept):
    many = Names(tuple(f"load_{number:02}" for number in range(kept)), 120)
    assert Reach(many).sentence() == (
        "Feeds 120 DAGs (`load_00`, `load_01`, `load_02`, `load_03`, `load_04` and 115 more)."
    )


def test_the_guards_own_dags_are_those_that_come_with_it():
    """Its examples are consumers like any other."""
    named = {found for path in DAGS.glob("*.py") for found in re.findall(r'dag_id="(\w+)"', path.read_text())}
    assert named >= OWN_DAGS
    assert all("example" in other for other in named - OWN_DAGS)
