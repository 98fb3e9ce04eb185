"""Small simulated years: what lives is not expired, what died is named, and the usual rules would not have coped."""

from __future__ import annotations

import random
from functools import cache

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.domain.reading import read_probe_answer
from airflow_oauth_guard.grants.probe import probe_request
from tests.truth.world import MINUTE, MODELS, START, Client, Fault, Model, Truth, World
from tests.truth.year import GUARD, PLANS, RULES, Result, as_markdown, cycle_of, simulate

pytestmark = [pytest.mark.airflow, pytest.mark.any_airflow]

SEEDS = (1, 2, 3, 4)
MISTAKE = "invalid_grant to all by mistake"


@cache
def year(seed: int) -> Result:
    """Forty credentials and a month in which as much happens as in four."""
    return simulate(credentials=40, days=30, seed=seed, intensity=4)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_expired_that_lives_unless_its_provider_says_so_of_everybody(seed: int) -> None:
    result = year(seed)
    falsely = {what for what in result.guard.false_by if what.startswith("expiry")}
    assert falsely <= {f"expiry: {MISTAKE}"}, as_markdown(result)


def test_not_even_a_provider_that_calls_every_grant_invalid_gets_one_expired() -> None:
    assert sum(year(seed).scores[GUARD].false_expiries for seed in SEEDS) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_every_death_that_its_provider_says_in_documented_words_is_named_within_two_cycles(seed: int) -> None:
    result = year(seed)
    found = result.named(result.provable)
    assert len(found) == len(result.provable), as_markdown(result)
    assert all(one.cycles <= 2 for one in found)


def test_there_are_deaths_to_be_named() -> None:
    assert sum(len(year(seed).provable) for seed in SEEDS) >= 5


@pytest.mark.parametrize("seed", SEEDS)
def test_the_truth_is_treacherous_so_that_no_usual_rule_gets_through_the_year(seed: int) -> None:
    result = year(seed)
    guard = result.scores[GUARD]
    for rule in RULES:
        assert result.scores[rule].false_expiries > guard.false_expiries
        assert result.scores[rule].wrong_seconds > guard.wrong_seconds


def test_the_rule_that_errs_least_finds_fewer_deaths_than_the_one_that_errs_most() -> None:
    results = [year(seed) for seed in SEEDS]
    by_rule = {rule: sum(len(result.named(result.deaths, rule)) for result in results) for rule in RULES}
    assert by_rule["`invalid_grant` alone"] < by_rule["any failed refresh"]


def test_a_seed_makes_one_year_and_another_seed_another() -> None:
    again = simulate(credentials=40, days=30, seed=1, intensity=4)
    assert again.fingerprint() == year(1).fingerprint()
    assert year(2).fingerprint() != year(1).fingerprint()


def test_a_year_has_faults_mistakes_and_deaths_of_many_kinds() -> None:
    met = {cause.kind for seed in SEEDS for cause in year(seed).causes}
    assert len(met) >= 18
    assert {plan.whom for plan in PLANS} == {"provider", "everybody", "client", "credential", "death"}


def test_the_tables_name_every_system_and_every_kind() -> None:
    result = year(1)
    text = as_markdown(result)
    for name in (GUARD, *RULES, *(cause.kind for cause in result.causes)):
        assert name in text


# -- the model providers --------------------------------------------------------------------------------------------


def a_credential_of(model: Model) -> tuple[World, Truth]:
    truth = Truth("c0", model, Client("app0", model), "ask")
    truth.access_ends = model.lifetime
    return World(random.Random(0)), truth


def token_of(truth: Truth) -> str:
    sends = truth.hook.grant_class.sends
    return (truth.refresh_token if sends == "refresh_token" else truth.access_token)(0, 0) if sends else ""


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_provider_answers_a_good_request_with_a_token_and_a_good_probe_with_life(model: Model) -> None:
    world, truth = a_credential_of(model)
    issued = truth.hook.grant.read(world.exchange(truth, truth.hook.grant.request(token_of(truth), START)))
    assert issued.reading.finding is Finding.LIVE
    probe = probe_request(truth.hook.settings, truth.access_token(0, truth.newest))
    assert read_probe_answer(world.exchange(truth, probe), truth.hook.grant.dialect).finding is Finding.LIVE


@pytest.mark.parametrize("model", [model for model in MODELS if model.has_grant], ids=lambda model: model.name)
def test_a_model_provider_refuses_a_token_that_it_never_issued(model: Model) -> None:
    world, truth = a_credential_of(model)
    answer = world.exchange(truth, truth.hook.grant.request("made-up-by-nobody", START))
    assert truth.hook.grant.read(answer).tokens is None
    assert truth.newest == 0


def test_a_rotated_token_is_taken_again_within_the_grace_and_no_longer() -> None:
    world, truth = a_credential_of(next(model for model in MODELS if model.grace))
    world.exchange(truth, truth.hook.grant.request(truth.refresh_token(0, 0), START))
    assert truth.accepts(0, 0, 29 * MINUTE)
    assert not truth.accepts(0, 0, 31 * MINUTE)
    assert truth.accepts(0, 1, 31 * MINUTE)


def test_an_answer_that_is_lost_has_spent_the_token() -> None:
    world, truth = a_credential_of(next(model for model in MODELS if model.name == "plain"))
    truth.troubles.append(Fault("answer lost on its way", frozenset(), 0, None, 0))
    world.exchange(truth, truth.hook.grant.request(truth.refresh_token(0, 0), START))
    assert truth.lost is not None
    assert not truth.accepts(0, 0, 0)


def test_a_healthy_credential_is_refreshed_when_the_schedule_of_the_package_says_so() -> None:
    _, truth = a_credential_of(MODELS[0])
    margin = truth.hook.settings.refresh_margin
    assert cycle_of(60 * MINUTE, margin, at_half_life=False) == 40 * MINUTE
    assert cycle_of(60 * 24 * 60 * MINUTE, margin, at_half_life=True) == 30 * 24 * 60 * MINUTE
