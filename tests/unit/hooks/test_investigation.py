"""The whole investigation of a failed refresh, against the real server, with short pauses."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow_oauth_guard.domain.evidence import Finding, Kind, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.investigation import Conclusion, Owner
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import UnprovenTransitionError
from airflow_oauth_guard.hooks.investigation import Patience, look, proves_death, settle, signature
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.hooks.transport import send
from airflow_oauth_guard.operators.refresh import RefreshOperator
from airflow_oauth_guard.store.investigations import _may_ask_again
from tests.airflow_parts import (
    PATIENCE,
    PAUSE,
    WHO,
    Guarded,
    looked_into,
    make_due,
    nothing_secret_is_kept,
    proven_dead,
    question_of,
    rows,
    task_context,
    utcnow,
)
from tests.contract.making import keep

pytestmark = pytest.mark.airflow

WRONG_GRANT_ERRORS = ["unsupported_grant_type", "invalid_request", "invalid_grant", "meta"]


def cycle(guarded: Guarded) -> list[int]:
    """One scheduled refresh of this credential; returns the questions it raised."""
    operator = RefreshOperator(task_id="refresh", conn_ids=[guarded.conn_id])
    return list(operator.execute(task_context("refresh"))["investigations"])


def of_the_wrong_class(connect, error: str = "unsupported_grant_type", **fields) -> Guarded:
    """A connection of the wrong class: the provider refuses the grant type before it looks at the token."""
    client = {"grant_types": ("fb_exchange_token",), "wrong_grant_error": error}
    return connect(client=client, mint={"with_refresh": True}, **fields)


def kinds(store, question: int) -> list[str]:
    return [item.kind.value for item in store.investigations.evidence(store.investigation(question))]


def refuses_to_expire(store, guarded: Guarded, question: int) -> None:
    proof = store.investigation(question).conclusion_evidence_id
    with pytest.raises(UnprovenTransitionError):
        store.credentials.expire(guarded.conn_id, proof, WHO, utcnow())


# -- the incident -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", WRONG_GRANT_ERRORS)
def test_the_incident_is_never_taken_for_a_death(error, connect, store, server):
    guarded = of_the_wrong_class(connect, error)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert not proves_death(conclusion)
    assert conclusion.finding is not Finding.GRANT_DEAD
    assert conclusion.access_token is Verdict.LIVE
    assert server.truth(guarded.conn_id).access_token_live
    credential = guarded.credential(store)
    assert credential.status is Status.ACTIVE
    assert store.credentials.transitions(credential) == []
    assert store.investigation(question).closed_at is not None
    incident = guarded.incident(store)
    assert incident is not None
    assert incident.needs_a_person(utcnow())
    assert incident.kind is not IncidentKind.GRANT_DEAD
    refuses_to_expire(store, guarded, question)
    nothing_secret_is_kept(store, guarded.secrets)


@pytest.mark.parametrize("error", ["unsupported_grant_type", "invalid_request", "meta"])
def test_the_control_shows_on_day_0_that_our_request_is_wrong(error, connect, store):
    guarded = of_the_wrong_class(connect, error)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert (conclusion.finding, conclusion.subject) == (Finding.REQUEST_MALFORMED, Subject.REQUEST)
    assert conclusion.verdict is Verdict.DEAD
    assert conclusion.owner is Owner.CODE
    assert "a made-up token earned the same answer" in conclusion.explanation
    assert "grant_type `refresh_token`" in conclusion.explanation
    assert "the class this provider wants" in conclusion.explanation


def test_the_same_invalid_grant_to_ours_and_to_a_made_up_token_proves_nothing(connect, store):
    guarded = of_the_wrong_class(connect, "invalid_grant")
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert (conclusion.finding, conclusion.verdict) == (Finding.UNKNOWN, Verdict.OPEN)
    assert any("a made-up token earned the same answer" in missing for missing in conclusion.missing)


@pytest.mark.parametrize("error", WRONG_GRANT_ERRORS)
def test_the_incident_at_metas_own_endpoint_is_never_taken_for_a_death(error, connect, store, server):
    guarded = of_the_wrong_class(connect, error, token_url=server.meta_url)
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert (conclusion.finding, conclusion.subject) == (Finding.REQUEST_MALFORMED, Subject.REQUEST)
    assert guarded.credential(store).status is Status.ACTIVE


# -- a real death -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [{}, {"rotation": True, "reuse_detection": True}], ids=["reusable", "rotating"])
def test_a_revoked_grant_is_proven_dead_where_the_request_is_known_to_be_right(client, connect, store, server):
    guarded = connect(client=client)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert proves_death(conclusion)
    assert (conclusion.finding, conclusion.owner) == (Finding.GRANT_DEAD, Owner.ACCOUNT)
    assert not server.truth(guarded.conn_id).grant_live
    looks = store.investigations.evidence(store.investigation(question))
    refreshes = [item for item in looks if item.kind is Kind.REFRESH]
    assert len(refreshes) == 2
    assert refreshes[1].observed_at - refreshes[0].observed_at >= PAUSE
    assert set(conclusion.rests_on) >= {item.id for item in refreshes}


def test_a_proven_death_expires_nothing_by_itself_and_leaves_the_question_open(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    looked_into(store, guarded, question)
    assert guarded.credential(store).status is not Status.EXPIRED
    assert store.investigation(question).closed_at is None
    incident = guarded.incident(store)
    assert incident is not None
    assert incident.kind is IncidentKind.GRANT_DEAD
    proof = store.investigation(question).conclusion_evidence_id
    assert store.credentials.expire(guarded.conn_id, proof, WHO, utcnow()).status is Status.EXPIRED


def test_a_grant_is_proven_dead_while_its_access_token_lives_on(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id, access=False)
    make_due(store, guarded.conn_id)
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert proves_death(conclusion)
    assert conclusion.access_token is Verdict.LIVE
    assert guarded.credential(store).status is Status.ACTIVE


def test_a_meta_token_that_was_ended_is_proven_dead(connect, store, server):
    guarded = connect("meta_exchange")
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert proves_death(conclusion)


def test_a_sibling_of_the_same_client_vouches_for_the_form_of_the_request(connect, store, server):
    guarded = connect()
    second = server.mint(guarded.conn_id, user="grace")
    sibling = Guarded(f"{guarded.conn_id}_sibling", "refresh_token", server, second, guarded.description)
    fields = {
        **guarded.description["extra"],
        "access_token": second.access_token,
        "refresh_token": second.refresh_token,
    }
    connect.describe(sibling.conn_id, {**guarded.description, "extra": fields})
    assert sibling.refresh(store).outcome is Refreshed.RENEWED
    server.revoke(guarded.conn_id, user="ada")
    assert proves_death(looked_into(store, guarded, question_of(store, guarded)))


def test_a_revoked_grant_that_never_worked_here_is_not_proven_dead(connect, store, server):
    """The request was never seen to be right, and this server says the same to a made-up token."""
    guarded = connect()
    server.revoke(guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert (conclusion.finding, conclusion.verdict) == (Finding.UNKNOWN, Verdict.OPEN)
    assert conclusion.missing
    refuses_to_expire(store, guarded, question)


def test_one_rejection_without_a_pause_proves_nothing(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question, Patience(timedelta(hours=1), timedelta(seconds=0.5)))
    assert not proves_death(conclusion)
    assert conclusion.access_token is Verdict.OPEN
    assert any("after a pause" in missing for missing in conclusion.missing)
    refuses_to_expire(store, guarded, question)


def test_a_class_without_a_grant_of_its_own_cannot_be_proven_dead(connect, store):
    guarded = connect("client_credentials")
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_grant"})
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert not proves_death(conclusion)
    assert Kind.CONTROL.value not in kinds(store, question)
    refuses_to_expire(store, guarded, question)


def test_a_rejection_after_a_lost_answer_proves_nothing(connect, store, server):
    """The provider may have spent the token on the answer that never came."""
    guarded = connect(client={"rotation": True})
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault("truncated", times=1)
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert not proves_death(conclusion)
    assert conclusion.finding is Finding.AMBIGUOUS
    assert "did not reach us" in conclusion.explanation
    refuses_to_expire(store, guarded, question)


# -- other findings ---------------------------------------------------------------------------------------------------


def test_a_lapsed_token_and_a_malformed_request_are_told_apart(connect, store, server):
    guarded = of_the_wrong_class(connect, "invalid_request")
    server.revoke(guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert conclusion.finding is Finding.REQUEST_MALFORMED
    assert conclusion.access_token is Verdict.DEAD
    credential = guarded.credential(store)
    assert credential.status is Status.LAPSED
    proof = store.credentials.status_evidence(credential)
    assert (proof.subject, proof.verdict) == (Subject.ACCESS_TOKEN, Verdict.DEAD)
    probes = {
        item.id
        for item in store.investigations.evidence(store.investigation(question))
        if item.kind is Kind.PROBE and item.finding is Finding.ACCESS_TOKEN_DEAD
    }
    assert len(probes) == 2
    assert set(proof.rests_on) == probes
    refuses_to_expire(store, guarded, question)


def test_an_outage_is_an_outage_and_leaves_the_credential_active(connect, store):
    guarded = connect()
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=15))
    guarded.fault(status=503, headers={"Retry-After": "120"})
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert (conclusion.finding, conclusion.owner) == (Finding.PROVIDER_OUTAGE, Owner.NOBODY)
    assert "2 min" in conclusion.explanation
    assert guarded.credential(store).status is Status.ACTIVE
    incident = guarded.incident(store)
    assert incident.kind is IncidentKind.PROVIDER_OUTAGE
    assert not incident.needs_a_person(utcnow())
    assert incident.needs_a_person(utcnow() + timedelta(minutes=6)), "once the life left falls under the margin"
    assert len(guarded.token_requests()) == 2, "a provider in trouble is not asked again, and no control is sent"


def test_an_outage_with_no_life_left_needs_a_person_at_once(connect, store):
    guarded = connect()
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(status=503)
    looked_into(store, guarded, question_of(store, guarded))
    assert guarded.incident(store).needs_a_person(utcnow())


def test_a_wrong_client_secret_is_the_apps_matter_and_not_the_grants(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.change_client(guarded.conn_id, client_secret="planted-another")
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert (conclusion.finding, conclusion.subject) == (Finding.CLIENT_MISCONFIGURED, Subject.CLIENT)
    assert conclusion.verdict is Verdict.DEAD, "the control got the same answer"
    assert conclusion.owner is Owner.APP
    assert guarded.credential(store).status is Status.ACTIVE
    refuses_to_expire(store, guarded, question)


@pytest.mark.parametrize("kind", ["html", "empty_200", "error_200"])
def test_an_answer_nobody_can_read_decides_nothing(kind, connect, store):
    guarded = connect()
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(kind)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert not proves_death(conclusion)
    assert conclusion.access_token is Verdict.LIVE
    assert guarded.credential(store).status is Status.ACTIVE
    refuses_to_expire(store, guarded, question)


def test_a_probe_url_that_answers_nothing_about_the_token_never_lapses_it(connect, store, server):
    guarded = of_the_wrong_class(connect)
    server.fault("status", path="/api/me", status=403, body={"message": "Forbidden"})
    looked_into(store, guarded, question_of(store, guarded))
    assert guarded.credential(store).status is Status.ACTIVE


# -- once per incident ------------------------------------------------------------------------------------------------


def test_the_control_is_run_once_per_incident_however_many_cycles_fail(connect, store):
    guarded = of_the_wrong_class(connect)
    [question] = cycle(guarded)
    looked_into(store, guarded, question)
    assert kinds(store, question) == ["refresh", "probe", "control", "refresh", "conclusion"]
    assert len(guarded.token_requests()) == 3
    for _ in range(4):
        make_due(store, guarded.conn_id)
        assert cycle(guarded) == []
    assert len(guarded.token_requests()) == 3 + 4, "a cycle asks once, and nothing beside it"
    assert sum(row["kind"] == "control" for row in rows(store, "oauth_guard_evidence")) == 1
    assert len(store.incidents.history(About.CREDENTIAL, guarded.conn_id)) == 1


def test_while_a_question_is_open_no_second_one_is_raised(connect, store):
    guarded = of_the_wrong_class(connect)
    assert len(cycle(guarded)) == 1
    for _ in range(3):
        make_due(store, guarded.conn_id)
        assert cycle(guarded) == []
    assert len(rows(store, "oauth_guard_investigations")) == 1


def test_a_failure_that_looks_different_is_looked_into_anew(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.change_client(guarded.conn_id, client_secret="planted-another")
    make_due(store, guarded.conn_id)
    [first] = cycle(guarded)
    looked_into(store, guarded, first)
    server.change_client(guarded.conn_id, client_secret=guarded.description["password"])
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    [second] = cycle(guarded)
    assert second != first
    assert proves_death(looked_into(store, guarded, second))
    assert len(store.incidents.history(About.CREDENTIAL, guarded.conn_id)) == 1, "one incident, brought up to date"
    assert guarded.incident(store).kind is IncidentKind.GRANT_DEAD


def test_failures_look_alike_by_what_was_sent_and_answered_and_not_by_when(connect, store):
    guarded = of_the_wrong_class(connect)
    first = guarded.refresh(store).evidence
    make_due(store, guarded.conn_id)
    second = guarded.refresh(store).evidence
    make_due(store, guarded.conn_id)
    guarded.fault(status=503)
    third = guarded.refresh(store).evidence
    assert signature(first) == signature(second) != signature(third)


# -- questions that answer themselves ---------------------------------------------------------------------------------


def test_a_refresh_that_succeeds_meanwhile_closes_the_question(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_grant"})
    question = question_of(store, guarded)
    hook = guarded.hook()
    assert hook.run(look(store, hook, question, PATIENCE, WHO)) == timedelta(), "a first look"
    server.clear_faults()
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    closed = store.investigation(question)
    assert closed.closed_at is not None
    assert "a refresh succeeded" in closed.explanation
    sent = len(server.requests())
    conclusion = hook.run(look(store, hook, question, PATIENCE, WHO))
    assert isinstance(conclusion, Conclusion)
    assert conclusion.finding is Finding.LIVE
    assert len(server.requests()) == sent, "a closed question is not looked into"
    settle(store, question, conclusion, WHO, utcnow())
    assert guarded.incident(store) is None


def test_a_repeat_that_succeeds_settles_it_and_resolves_the_incident(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_grant"}, times=2)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert conclusion.finding is Finding.LIVE
    assert store.investigation(question).closed_at is not None
    assert guarded.credential(store).status is Status.ACTIVE
    assert guarded.incident(store) is None
    assert server.truth(guarded.conn_id).grant_live


def test_a_proof_about_older_tokens_expires_nothing(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_grant"}, times=3)
    question = question_of(store, guarded)
    assert proves_death(looked_into(store, guarded, question))
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    refuses_to_expire(store, guarded, question)
    assert guarded.credential(store).status is Status.ACTIVE


def test_new_tokens_from_a_person_answer_the_question(connect, store, server):
    guarded = connect()
    server.revoke(guarded.conn_id)
    question = question_of(store, guarded)
    looked_into(store, guarded, question, Patience(PAUSE, timedelta()))
    fresh = server.mint(guarded.conn_id)
    connect.change(guarded, refresh_token=fresh.refresh_token, access_token=fresh.access_token)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert guarded.incident(store) is None


# -- time is up -------------------------------------------------------------------------------------------------------


def test_when_time_is_up_it_is_concluded_from_what_there_is_and_never_as_a_death(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question, Patience(PAUSE, timedelta()))
    assert kinds(store, question) == ["refresh", "conclusion"]
    assert not proves_death(conclusion)
    assert conclusion.owner is Owner.PERSON
    assert store.investigation(question).closed_at is not None


def test_an_investigation_goes_on_where_another_process_left_it(connect, store, server):
    """All it knows is in the store: each look is taken by a hook of its own."""
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    for _ in range(2):
        hook = guarded.hook()
        hook.run(look(store, hook, question, PATIENCE, WHO))
    assert kinds(store, question) == ["refresh", "probe", "control"]
    assert proves_death(looked_into(store, guarded, question))


def test_settling_twice_writes_one_conclusion(connect, store):
    guarded = of_the_wrong_class(connect)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    settle(store, question, conclusion, WHO, utcnow())
    assert kinds(store, question).count("conclusion") == 1


# -- a process that died ----------------------------------------------------------------------------------------------


def test_an_answer_kept_by_a_process_that_died_is_taken_in_without_asking_again(connect, store, server):
    guarded = connect(client={"rotation": True, "reuse_detection": True})
    guarded.enrolled(store)
    hook, now = guarded.hook(), utcnow()
    lease = store.credentials.lease(guarded.conn_id, "a worker that dies", timedelta(milliseconds=1), now)
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, now)
    request = hook.grant.request(lease.tokens.refresh_token, now)
    keep(store, intent, asyncio.run(send(request, deadline=timedelta(seconds=5))))
    # Here it is killed: nothing was parsed, and the lease runs out.
    result = guarded.refresh(store)
    assert result.outcome is Refreshed.RENEWED
    assert len(guarded.token_requests()) == 1
    assert server.truth(guarded.conn_id).grant_live
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED, "the next refresh token was in the kept answer"
    nothing_secret_is_kept(store, guarded.secrets)


def test_a_kept_refusal_is_taken_in_as_the_question_it_is(connect, store):
    guarded = connect()
    guarded.enrolled(store)
    guarded.fault(status=400, body={"error": "invalid_grant"})
    hook, now = guarded.hook(), utcnow()
    lease = store.credentials.lease(guarded.conn_id, "a worker that dies", timedelta(milliseconds=1), now)
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, now)
    request = hook.grant.request(lease.tokens.refresh_token, now)
    keep(store, intent, asyncio.run(send(request, deadline=timedelta(seconds=5))))
    result = guarded.refresh(store)
    assert result.outcome is Refreshed.FAILED
    assert result.evidence.finding is Finding.GRANT_DEAD
    assert len(guarded.token_requests()) == 1


def test_a_process_that_died_before_its_answer_leaves_an_open_outcome(connect, store):
    """Nobody knows whether the provider spent the token, so a rotating one is not sent again while there is life."""
    guarded = connect(client={"rotation": True})
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    now = utcnow()
    lease = store.credentials.lease(guarded.conn_id, "a worker that dies", timedelta(milliseconds=1), now)
    store.credentials.open_intent(lease, lease.tokens.refresh_token, now)
    found = guarded.refresh(store)
    assert (found.outcome, found.evidence.finding) == (Refreshed.FAILED, Finding.AMBIGUOUS)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    assert guarded.refresh(store).outcome is Refreshed.HELD
    assert len(guarded.token_requests()) == 1
    assert store.credentials.has_lost_answer(guarded.credential(store), utcnow())


@pytest.mark.parametrize(
    ("answer", "later", "again"),
    [("unanswered", 25, True), ("unanswered", 23, False), ("declined", 25, False)],
)
def test_only_a_question_nobody_answered_is_asked_again_and_not_before_a_day(store, answer, later, again):
    question = proven_dead(store)
    store.investigations.answered(question, answer, "ada", utcnow())
    store.investigations.close(question, utcnow())
    with store.database.read() as connection:
        asked = _may_ask_again(connection, store.credentials.get("crm"), utcnow() + timedelta(hours=later))
    assert asked is again
