"""The only place that sets a credential expired refuses everything but proof and approval, wherever it is wired."""

from __future__ import annotations

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NotRegisteredError, UnprovenTransitionError
from airflow_oauth_guard.hooks.context import LABEL
from airflow_oauth_guard.operators.approval import ExpireApprovalOperator
from airflow_oauth_guard.operators.expire import ExpireOperator
from tests.airflow_parts import (
    asked,
    concluded,
    enrolled,
    looked_into,
    make_due,
    proven_dead,
    question_of,
    renew,
    task_context,
    utcnow,
)

pytestmark = pytest.mark.airflow


FINDINGS = {finding.value for finding in Finding}


def expired(question: int | str | None, context=None) -> dict:
    return ExpireOperator(task_id="expire", investigation=question).execute(context or task_context("expire"))


def approved(store, question: int, answer: str = "approved", by: str = "ada") -> int:
    store.investigations.answered(question, answer, by, utcnow())
    return question


def is_untouched(store, conn_id: str = "crm") -> None:
    credential = store.credentials.get(conn_id)
    assert credential.status is Status.ACTIVE
    assert store.credentials.transitions(credential) == []


def test_with_proof_and_approval_it_expires_and_keeps_the_tokens(store):
    question, context = approved(store, proven_dead(store)), task_context("expire")
    result = expired(str(question), context)
    credential = store.credentials.get("crm")
    assert credential.status is Status.EXPIRED
    proof = store.investigation(question).conclusion_evidence_id
    assert result == {"conn_id": "crm", "status": "expired", "evidence": proof, "approved_by": "ada"}
    assert store.credentials.tokens(credential).refresh_token == "crm-refresh-1"
    [transition] = store.credentials.transitions(credential)
    assert (transition["to_status"], transition["evidence_id"]) == ("expired", proof)
    assert transition["task_id"] == "expire"
    assert store.investigation(question).closed_at is not None
    assert context[LABEL] == "crm: expired"


@pytest.mark.parametrize("nothing", ["", None])
def test_without_an_investigation_it_refuses(nothing, store):
    enrolled(store)
    with pytest.raises(UnprovenTransitionError, match="no investigation was handed over"):
        expired(nothing)
    is_untouched(store)


def test_an_investigation_nobody_opened_is_refused(store):
    with pytest.raises(NotRegisteredError):
        expired(41)


def test_without_a_conclusion_it_refuses_even_what_was_approved(store):
    enrolled(store)
    question = approved(store, asked(store))
    with pytest.raises(UnprovenTransitionError, match="there is no evidence for it"):
        expired(question)
    is_untouched(store)


@pytest.mark.parametrize("finding", [Finding(kind.value) for kind in IncidentKind if kind.value in FINDINGS])
def test_without_proof_it_refuses_even_what_was_approved(finding, store):
    enrolled(store)
    question = asked(store)
    concluded(store, question, finding, proven=False)
    with pytest.raises(UnprovenTransitionError, match="does not carry it"):
        expired(approved(store, question))
    is_untouched(store)


@pytest.mark.parametrize("answer", [None, "", "perhaps", "Approved"])
def test_with_proof_but_without_approval_it_refuses(answer, store):
    question = proven_dead(store)
    if answer is not None:
        approved(store, question, answer)
    with pytest.raises(UnprovenTransitionError, match="nobody approved it"):
        expired(question)
    is_untouched(store)


def test_proof_about_older_tokens_expires_nothing_after_a_refresh_in_between(store):
    question = approved(store, proven_dead(store))
    proof = store.investigation(question).conclusion_evidence_id
    renew(store)
    with pytest.raises(AirflowSkipException, match="the question was settled: a refresh succeeded"):
        expired(question)
    with pytest.raises(UnprovenTransitionError, match="is about token generation 1, and the credential is at 2"):
        store.credentials.expire("crm", proof, None, utcnow())
    is_untouched(store)


def test_proof_expires_nothing_after_a_person_entered_new_tokens(store):
    question = approved(store, proven_dead(store))
    enrolled(store, refresh_token="crm-refresh-new")
    with pytest.raises(AirflowSkipException, match="a person entered new tokens"):
        expired(question)
    is_untouched(store)


def test_the_proof_of_another_credential_is_refused(store):
    question = approved(store, proven_dead(store))
    enrolled(store, "other")
    with pytest.raises(UnprovenTransitionError):
        store.credentials.expire("other", store.investigation(question).conclusion_evidence_id, None, utcnow())
    is_untouched(store, "other")


def test_declined_keeps_it_closes_the_question_and_says_who(store):
    question, context = approved(store, proven_dead(store), "declined"), task_context("expire")
    with pytest.raises(AirflowSkipException, match=r"kept as it is \(declined; ada\)"):
        expired(question, context)
    is_untouched(store)
    assert store.investigation(question).closed_at is not None
    assert context[LABEL] == "crm: kept"


def test_the_policy_evidence_expires_without_a_person(store):
    question = proven_dead(store, expire_policy="evidence")
    ExpireApprovalOperator(task_id="approve", investigation=question).execute(task_context("approve"))
    assert expired(question)["approved_by"] == "policy: evidence suffices"
    assert store.credentials.get("crm").status is Status.EXPIRED


def test_run_again_it_says_the_same_and_writes_no_second_transition(store):
    question = approved(store, proven_dead(store))
    assert expired(question) == expired(question)
    assert len(store.credentials.transitions(store.credentials.get("crm"))) == 1


def test_the_incident_cannot_be_expired_though_everybody_approves(connect, store, server):
    """The whole incident, wired by somebody who wanted it expired: refresh, probe, approval, expire."""
    guarded = connect(
        client={"grant_types": ("fb_exchange_token",), "wrong_grant_error": "invalid_grant"},
        mint={"with_refresh": True},
    )
    question = question_of(store, guarded)
    looked_into(store, guarded, question)
    with pytest.raises(UnprovenTransitionError):
        expired(approved(store, question))
    is_untouched(store, guarded.conn_id)
    assert server.truth(guarded.conn_id).access_token_live


def test_a_grant_that_is_really_dead_is_expired(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    looked_into(store, guarded, question)
    assert expired(approved(store, question))["status"] == "expired"
    assert not server.truth(guarded.conn_id).grant_live
