from __future__ import annotations

from datetime import timedelta

import pytest
import tenacity

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_oauth_guard.domain.evidence import Finding, Kind, Subject
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.errors import (
    ConfigurationError,
    CredentialUnusableError,
    NotRegisteredError,
    StoreUnavailableError,
)
from airflow_oauth_guard.hooks import patience
from airflow_oauth_guard.operators import heartbeat
from airflow_oauth_guard.operators.require_usable import RequireUsableOperator
from airflow_oauth_guard.task_groups.guard import guard_credential
from tests.airflow_parts import enrolled, evidence_of, expire, incident_about, lapse, rows, task_context, utcnow

pytestmark = pytest.mark.airflow


def gate(conn_id: str = "crm", **how) -> str:
    return RequireUsableOperator(task_id="usable", conn_id=conn_id, **how).execute(task_context("usable"))


def skipping(source="crm_contacts") -> str:
    return gate(source=source, skip_when_unusable=True)


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


# -- a skip that was asked for ----------------------------------------------------------------------------------------


def test_a_gate_that_may_skip_says_so_in_a_heartbeat_of_its_source_and_skips_with_the_same_words(store):
    enrolled(store)
    proof = expire(store, "crm")
    with pytest.raises(AirflowSkipException) as raised:
        skipping()
    [row] = rows(store, "oauth_guard_heartbeats")
    assert (row["source"], row["row_count"], row["task_id"]) == ("crm_contacts", 0, "usable")
    assert row["note"] == str(raised.value)
    assert row["note"].startswith(f"skipped: credential `crm` is expired: its grant is proven dead. Evidence {proof}: ")
    watched = store.sources.get("crm_contacts")
    assert watched.source == Source("crm_contacts", Learned(), credential="crm")
    assert (watched.state.last_beat_at, watched.state.skips) == (None, 1)


def test_a_gate_that_may_skip_opens_while_the_token_lives_and_says_nothing(store):
    enrolled(store)
    assert skipping()
    assert rows(store, "oauth_guard_heartbeats") == []


def test_a_skip_is_not_how_a_missing_credential_ends(store):
    with pytest.raises(NotRegisteredError):
        skipping()
    assert rows(store, "oauth_guard_heartbeats") == []


def test_a_gate_whose_heartbeat_cannot_be_kept_fails(store, monkeypatch):
    enrolled(store)
    lapse(store, "crm")

    def gone():
        raise StoreUnavailableError("the store is gone")

    monkeypatch.setattr(heartbeat, "get_store", gone)
    monkeypatch.setitem(patience.PATIENCE, "stop", tenacity.stop_after_delay(0.1))
    with pytest.raises(StoreUnavailableError):
        skipping()


@pytest.mark.parametrize("how", [{"skip_when_unusable": True}, {"skip_when_unusable": True, "source": ""}])
def test_a_skip_that_nobody_would_hear_is_refused(how):
    with pytest.raises(ConfigurationError, match=r"Task `usable` is to be skipped.* name the `source`"):
        gate(**how)


def test_a_source_that_the_gate_never_speaks_for_is_refused():
    with pytest.raises(ConfigurationError, match="never speaks for it; leave `source` out, or write"):
        gate(source="crm_contacts")


def test_the_gate_of_a_pipeline_may_skip_as_well():
    from airflow.sdk import DAG

    with DAG("pipeline", schedule=None):
        usable = guard_credential("crm", source="crm_contacts", skip_when_unusable=True)
    assert (usable.source, usable.skip_when_unusable) == ("crm_contacts", True)
