from __future__ import annotations

import json
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow_oauth_guard.domain.evidence import Finding, Kind, Subject
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.operators.due import DueCredentialsOperator, connection_ids
from airflow_oauth_guard.store.journal import Ended
from tests.airflow_parts import HOUR, enrolled, evidence_of, expire, lapse, make_due, task_context, utcnow

pytestmark = pytest.mark.airflow


def due(connections=(), context=None, **how) -> list[list[str]]:
    operator = DueCredentialsOperator(task_id="due", connections=connections, **how)
    return operator.execute(context or task_context("due"))


def test_a_connection_that_is_new_is_taken_in_and_due(connect, store):
    guarded = connect()
    assert due([guarded.conn_id]) == [[guarded.conn_id]]
    credential = guarded.credential(store)
    assert (credential.generation, credential.connection_class) == (1, "refresh_token")
    assert store.credentials.tokens(credential).refresh_token == guarded.minted.refresh_token
    assert guarded.server.requests() == [], "taking in asks nobody"


def test_connections_come_as_a_list_or_as_its_json(connect, store):
    guarded = connect()
    assert due(json.dumps([guarded.conn_id])) == due([guarded.conn_id]) == due((guarded.conn_id,) * 2)
    assert due("[]") == due([]) == due("") == [[guarded.conn_id]], "what is in the store is guarded, named or not"


def test_what_is_fresh_or_waits_is_not_due(store):
    enrolled(store, "fresh")
    enrolled(store, "old")
    make_due(store, "old")
    enrolled(store, "of_unknown_age", expires_at=None)
    assert due() == [["of_unknown_age", "old"]]
    lease = store.credentials.lease("old", "somebody", HOUR, utcnow())
    failed = evidence_of(Kind.REFRESH, Finding.PROVIDER_OUTAGE, Subject.PROVIDER, lease.credential)
    store.credentials.fail(
        lease, None, failed, attempt_after=utcnow() + timedelta(minutes=5), outcome=Ended.REFUSED, now=utcnow()
    )
    assert due() == [["of_unknown_age"]]


def test_lapsed_and_expired_credentials_go_on_being_asked(store):
    for conn_id, happens in (("lapsed", lapse), ("expired", expire)):
        enrolled(store, conn_id)
        happens(store, conn_id)
    assert due() == [["expired", "lapsed"]]


def test_what_is_due_comes_in_batches_and_the_number_guarded_is_told(store):
    for number in range(5):
        enrolled(store, f"crm_{number}", expires_at=None)
    enrolled(store, "fresh")
    context = task_context("due")
    assert due(context=context, batch_size=2) == [["crm_0", "crm_1"], ["crm_2", "crm_3"], ["crm_4"]]
    assert context["pushed"] == {"guarded": 6}


def test_nothing_to_do_is_an_empty_list(store):
    assert due() == []


def test_a_bad_connection_becomes_an_incident_and_stops_no_other(connect, store):
    good = connect()
    bad = connect(suffix="_bad", token_url="")
    assert due([bad.conn_id, "no_such_connection", good.conn_id]) == [[good.conn_id]]
    incident = bad.incident(store)
    assert (incident.kind, "`token_url`" in incident.summary) == (IncidentKind.MISCONFIGURED, True)
    assert incident.needs_a_person(utcnow())
    missing = store.incidents.open_about(About.CREDENTIAL, "no_such_connection")
    assert missing is not None
    assert "no_such_connection" in missing.summary


def test_the_incident_is_over_once_the_connection_can_be_used(connect, store):
    guarded = connect(token_url="")
    due([guarded.conn_id])
    connect.describe(guarded.conn_id, {**guarded.description, "host": guarded.server.token_url})
    assert due([guarded.conn_id]) == [[guarded.conn_id]]
    assert guarded.incident(store) is None


@pytest.mark.parametrize("given", ["crm_prod", '{"crm_prod": 1}', '["crm_prod", 7]', '[""]', "null", [None]])
def test_what_is_no_list_of_connection_ids_is_refused(given):
    with pytest.raises(ConfigurationError, match="connections to guard"):
        connection_ids(given)
