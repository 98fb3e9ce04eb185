from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow_oauth_guard.domain.evidence import Finding, Kind, Subject
from airflow_oauth_guard.errors import CredentialUnusableError, NotRegisteredError
from airflow_oauth_guard.operators.require_usable import RequireUsableOperator
from tests.airflow_parts import enrolled, evidence_of, expire, incident_about, lapse, task_context, utcnow

pytestmark = pytest.mark.airflow


def gate(conn_id: str = "crm") -> str:
    return RequireUsableOperator(task_id="usable", conn_id=conn_id).execute(task_context("usable"))


def test_an_active_credential_with_life_left_opens_the_gate(store):
    enrolled(store)
    assert gate() == "`crm` is active, generation 1"


def test_a_failing_refresh_does_not_close_the_gate_while_the_token_lives(store):
    enrolled(store)
    incident_about(store)
    assert gate()


def test_a_lapsed_credential_fails_loudly_with_its_evidence(store):
    enrolled(store)
    proof = lapse(store, "crm")
    with pytest.raises(CredentialUnusableError, match=f"`crm` is lapsed.*Evidence {proof.id}.*oauth_guard_refresh"):
        gate()


def test_an_expired_credential_fails_loudly_and_says_how_to_reconnect(store):
    enrolled(store)
    proof = expire(store, "crm")
    with pytest.raises(CredentialUnusableError, match=f"`crm` is expired.*Evidence {proof}.*Reconnect it"):
        gate()


def test_an_expired_credential_whose_last_token_answered_a_probe_opens_the_gate(store):
    enrolled(store)
    expire(store, "crm")
    credential = store.credentials.get("crm")
    store.credentials.record(
        credential, evidence_of(Kind.PROBE, Finding.LIVE, Subject.ACCESS_TOKEN, credential), utcnow()
    )
    assert gate() == "`crm` is expired, generation 1"


def test_a_token_past_its_end_closes_the_gate_unless_a_probe_has_shown_life_since(store):
    enrolled(store, expires_at=utcnow() - timedelta(minutes=1))
    with pytest.raises(CredentialUnusableError, match="`crm` has no access token with life left"):
        gate()
    credential = store.credentials.get("crm")
    alive = evidence_of(Kind.PROBE, Finding.LIVE, Subject.ACCESS_TOKEN, credential)
    store.credentials.record(credential, alive, utcnow())
    assert gate(), "the clock predicts; an answer is better"


def test_a_credential_without_an_access_token_closes_the_gate(store):
    enrolled(store, access_token="")
    with pytest.raises(CredentialUnusableError, match="It was never refreshed"):
        gate()


def test_a_credential_nobody_guards_is_an_error_that_says_how_to_guard_it(store):
    with pytest.raises(NotRegisteredError, match=r"`crm` is not in the store.*oauth_guard_connections"):
        gate()
