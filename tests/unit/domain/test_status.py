from __future__ import annotations

import pytest

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.catalog.explaining import dialect_for
from airflow_oauth_guard.domain.evidence import Subject, Verdict
from airflow_oauth_guard.domain.reading import STANDARD, read_probe_answer, read_token_answer
from airflow_oauth_guard.domain.status import RULES, TABLE, Rule, Status, _total, require_carries, rule_for
from airflow_oauth_guard.errors import UnprovenTransitionError
from tests.unit.domain.builders import PROBE_ANSWERS, TOKEN_ANSWERS, Said, http, probed, refreshed, unanswered
from tests.unit.domain.builders import verdict_about as about

CELLS = [(status, subject, verdict) for status in Status for subject in Subject for verdict in Verdict]


def test_the_table_has_a_rule_for_everything_and_every_rule_gives_a_reason():
    assert set(TABLE) == set(CELLS)
    assert all(rule.reason for rule in TABLE.values())


@pytest.mark.parametrize("dropped", range(len(RULES)))
def test_a_table_with_a_gap_is_refused(dropped):
    with pytest.raises(AssertionError, match="no rule for"):
        _total((*RULES[:dropped], *RULES[dropped + 1 :]))


def test_a_table_with_two_rules_for_one_cell_is_refused():
    with pytest.raises(AssertionError, match="two rules"):
        _total((*RULES, Rule(frozenset({Status.ACTIVE}), Subject.GRANT, Verdict.LIVE, None, "once more")))


def leads_to(target: Status) -> set[tuple[Subject, Verdict]]:
    return {(subject, verdict) for (_, subject, verdict), rule in TABLE.items() if rule.target is target}


def test_only_a_proven_grant_death_leads_to_expired():
    assert leads_to(Status.EXPIRED) == {(Subject.GRANT, Verdict.DEAD)}


def test_only_a_proven_rejection_of_the_access_token_leads_to_lapsed():
    assert leads_to(Status.LAPSED) == {(Subject.ACCESS_TOKEN, Verdict.DEAD)}


def test_only_a_sign_of_life_leads_back_to_active():
    assert {verdict for _, verdict in leads_to(Status.ACTIVE)} == {Verdict.LIVE}


@pytest.mark.parametrize(("status", "subject"), {(status, subject) for status, subject, _ in CELLS})
def test_a_question_never_changes_a_status(status, subject):
    assert TABLE[status, subject, Verdict.OPEN].target is None


@pytest.mark.parametrize("subject", [Subject.CLIENT, Subject.PROVIDER, Subject.REQUEST])
def test_what_is_wrong_with_our_app_our_request_or_the_provider_never_changes_a_status(subject):
    for status in Status:
        for verdict in Verdict:
            assert TABLE[status, subject, verdict].target is None


def test_a_live_access_token_does_not_revive_a_grant_that_was_proven_dead():
    assert TABLE[Status.EXPIRED, Subject.ACCESS_TOKEN, Verdict.LIVE].target is None


def test_a_new_access_token_revives_whatever_was_called_dead():
    for status in (Status.LAPSED, Status.EXPIRED):
        assert TABLE[status, Subject.GRANT, Verdict.LIVE].target is Status.ACTIVE


def test_no_rule_leads_to_where_it_starts():
    assert all(rule.target is not status for (status, _, _), rule in TABLE.items())


@pytest.mark.parametrize(
    "answer",
    [unanswered(), unanswered("refused", maybe_processed=False), http(429), http(500), http(503, "<html>"), http(502)],
    ids=["timeout", "refused", "429", "500", "503", "502"],
)
def test_an_unreachable_provider_never_changes_a_status(answer):
    for status in Status:
        assert rule_for(status, refreshed(answer)).target is None
        assert rule_for(status, probed(answer)).target is None


METAS = dialect_for(Catalog().get("facebook"), "meta_exchange")


@pytest.mark.parametrize("said", [*TOKEN_ANSWERS, *PROBE_ANSWERS], ids=lambda said: said.name)
def test_no_single_answer_makes_a_status_worse(said: Said):
    readings = [
        *(read_token_answer(said.answer, dialect) for dialect in (STANDARD, METAS)),
        *(read_probe_answer(said.answer, dialect) for dialect in (STANDARD, METAS)),
    ]
    for status in Status:
        for reading in readings:
            assert TABLE[status, reading.subject, reading.verdict].target in (None, Status.ACTIVE)


def test_every_status_says_what_consumers_do_with_it():
    meanings = {status.meaning for status in Status}
    assert len(meanings) == len(Status)
    assert all(meanings)


def carried(evidence, target, generation=1):
    return require_carries(evidence, target, conn_id="crm_prod", generation=generation)


def test_a_change_without_evidence_is_refused():
    with pytest.raises(UnprovenTransitionError, match=r"`crm_prod`.*`expired`.*no evidence"):
        carried(None, Status.EXPIRED)


def test_evidence_that_is_not_in_the_ledger_carries_nothing():
    with pytest.raises(UnprovenTransitionError, match="no evidence"):
        carried(about(Subject.GRANT, Verdict.DEAD, number=None), Status.EXPIRED)


@pytest.mark.parametrize("generation", [1, 3])
def test_evidence_about_other_tokens_carries_nothing(generation):
    with pytest.raises(UnprovenTransitionError, match=f"generation {generation}, and the credential is at 2"):
        carried(about(Subject.GRANT, Verdict.DEAD, generation=generation), Status.EXPIRED, generation=2)


@pytest.mark.parametrize("target", Status)
@pytest.mark.parametrize("subject", Subject)
@pytest.mark.parametrize("verdict", Verdict)
def test_evidence_carries_exactly_the_changes_of_the_table(target, subject, verdict):
    evidence = about(subject, verdict)
    if (subject, verdict) in leads_to(target):
        assert carried(evidence, target) is evidence
    else:
        with pytest.raises(UnprovenTransitionError, match="does not carry it"):
            carried(evidence, target)
