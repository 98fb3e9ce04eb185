"""One refresh at a time, and whatever the provider answers is kept: against the real server and a real store."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow_oauth_guard.domain.answers import HttpAnswer, NoAnswer
from airflow_oauth_guard.domain.evidence import Finding, Kind, Subject
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import (
    CredentialUnusableError,
    LeaseLostError,
    StoreUnavailableError,
    UnprovenTransitionError,
)
from airflow_oauth_guard.grants.flow import IssuedTokens
from airflow_oauth_guard.grants.refresh_token import RefreshTokenGrant
from airflow_oauth_guard.hooks import base, refreshing, renewing, second_place
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.store.tables import credentials
from tests.airflow_parts import (
    HOUR,
    WHO,
    evidence_of,
    incident_about,
    looked_into,
    make_due,
    nothing_secret_is_kept,
    probe,
    question_of,
    rows,
    utcnow,
)
from tests.contract.making import keep

pytestmark = pytest.mark.airflow

ROTATING = {"rotation": True, "reuse_detection": True}


@pytest.fixture
def impatient(monkeypatch):
    """A loser gives up after half a second."""
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__REQUEST_DEADLINE_SECONDS", "0.4")
    monkeypatch.setattr(renewing, "WAIT_OVER_DEADLINE", timedelta(seconds=0.1))


@pytest.fixture
def lose_answers(monkeypatch):
    """Lose the answers to the next token requests, after the provider has processed them."""
    real, left = base.send, []

    async def lossy(request, *, deadline):
        answer = await real(request, deadline=deadline)
        if request.method != "POST" or not left:
            return answer
        left.pop()
        return NoAnswer("the exchange broke off (ReadError)", maybe_processed=True, received_at=utcnow())

    monkeypatch.setattr(base, "send", lossy)
    monkeypatch.setattr(refreshing, "REPLAY_PAUSE", timedelta())
    return lambda times=1: left.extend([None] * times)


# -- losers wait ------------------------------------------------------------------------------------------------------


def test_a_loser_waits_for_the_winner_and_ends_with_its_token(connect, store):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    lease = store.credentials.lease(guarded.conn_id, "the winner", HOUR, utcnow())
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, utcnow())
    alive = evidence_of(Kind.REFRESH, Finding.LIVE, Subject.GRANT, lease.credential)
    with ThreadPoolExecutor(1) as pool:
        loser = pool.submit(guarded.refresh, store)
        time.sleep(0.3)
        assert not loser.done()
        store.credentials.renew(lease, intent, IssuedTokens("the winner's", expires_in=HOUR), alive, utcnow())
        result = loser.result(timeout=20)
    assert (result.outcome, guarded.token_requests()) == (Refreshed.FRESH, [])
    assert "generation 2" in result.explanation
    assert guarded.hook().get_token() == "the winner's"


def test_a_lease_that_comes_free_without_a_token_is_taken_by_who_waits(connect, store):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    lease = store.credentials.lease(guarded.conn_id, "gives up", HOUR, utcnow())
    threading.Timer(0.3, store.credentials.release, [lease]).start()
    assert guarded.refresh(store).outcome is Refreshed.RENEWED


@pytest.mark.usefixtures("impatient")
def test_who_has_waited_long_enough_defers_and_never_proceeds(connect, store):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    store.credentials.lease(guarded.conn_id, "hangs", HOUR, utcnow())
    began = time.monotonic()
    result = guarded.refresh(store)
    assert result.outcome is Refreshed.BUSY
    assert 0.4 < time.monotonic() - began < 5
    assert guarded.token_requests() == []


def test_the_lease_of_a_process_that_died_is_taken_when_it_has_run_out(connect, store):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    store.credentials.lease(guarded.conn_id, "dies", timedelta(seconds=0.5), utcnow())
    assert guarded.refresh(store).outcome is Refreshed.RENEWED


def test_a_process_that_slept_through_its_lease_sends_nothing(connect, store, monkeypatch):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    take = store.credentials.lease
    monkeypatch.setattr(store.credentials, "lease", lambda name, owner, ttl, now: take(name, owner, -HOUR, now))
    with pytest.raises(LeaseLostError):
        guarded.refresh(store)
    assert guarded.token_requests() == []


def test_a_repeat_for_a_question_that_is_closed_sends_nothing(connect, store):
    guarded = connect(client={"grant_types": ("fb_exchange_token",)}, mint={"with_refresh": True})
    question = question_of(store, guarded)
    looked_into(store, guarded, question)
    sent = len(guarded.token_requests())
    hook = guarded.hook()
    assert hook.run(hook.refresh(store, WHO, investigation_id=question)).outcome is Refreshed.FRESH
    assert len(guarded.token_requests()) == sent


# -- answers that are lost --------------------------------------------------------------------------------------------


def test_within_the_grace_a_lost_answer_is_asked_for_again_at_once(connect, store, lose_answers, server):
    guarded = connect(client={**ROTATING, "rotation_grace": timedelta(seconds=60)}, rotation_grace=60)
    guarded.enrolled(store)
    lose_answers()
    result = guarded.refresh(store)
    assert result.outcome is Refreshed.RENEWED
    assert len(guarded.token_requests()) == 2
    assert [row["outcome"] for row in rows(store, "oauth_guard_intents")] == ["lost", "renewed"]
    assert server.truth(guarded.conn_id).grant_live
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED, "the newest refresh token is in the store"


def test_without_a_grace_it_is_ambiguous_and_people_are_told_at_once(connect, store, lose_answers):
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    lose_answers()
    question = question_of(store, guarded)
    assert looked_into(store, guarded, question).finding is Finding.AMBIGUOUS
    incident = guarded.incident(store)
    assert incident.kind is IncidentKind.AMBIGUOUS
    assert incident.needs_a_person(utcnow())
    assert "`rotation_grace`" in incident.summary
    assert "The access token is alive" in incident.summary
    assert [seen.kind for seen in store.investigations.evidence(store.investigation(question))].count(Kind.REFRESH) == 1


def test_a_spent_token_is_sent_once_more_only_when_nothing_is_left_to_lose(connect, store, lose_answers, server):
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    lose_answers()
    looked_into(store, guarded, question_of(store, guarded))
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=2))
    assert guarded.refresh(store).outcome is Refreshed.HELD
    sent = len(guarded.token_requests())
    server.revoke(guarded.conn_id, grant=False)
    make_due(store, guarded.conn_id)
    last_resort = guarded.refresh(store)
    assert (last_resort.outcome, len(guarded.token_requests())) == (Refreshed.FAILED, sent + 1)
    # The provider detects the reuse. Even so nobody may call the grant dead: its newest token never reached us.
    assert last_resort.evidence.finding is Finding.GRANT_DEAD
    question = store.investigations.take_on(guarded.credential(store), WHO, utcnow())
    assert looked_into(store, guarded, question).finding is Finding.AMBIGUOUS
    assert guarded.credential(store).status is not Status.EXPIRED
    assert guarded.incident(store).kind is IncidentKind.AMBIGUOUS


def test_the_last_resort_cures_a_request_that_never_arrived(connect, store):
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    guarded.fault("truncated", times=1)
    looked_into(store, guarded, question_of(store, guarded))
    guarded.server.revoke(guarded.conn_id, grant=False)
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert guarded.incident(store) is None


def test_a_token_that_is_not_spent_by_its_use_is_asked_for_again(connect, store, lose_answers):
    guarded = connect(rotation=False)
    guarded.enrolled(store)
    lose_answers()
    assert guarded.refresh(store).outcome is Refreshed.FAILED
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    assert guarded.refresh(store).outcome is Refreshed.RENEWED


def test_an_intent_without_an_answer_is_no_matter_where_nothing_rotates(connect, store):
    guarded = connect("client_credentials")
    guarded.enrolled(store)
    lease = store.credentials.lease(guarded.conn_id, "dies", timedelta(milliseconds=1), utcnow())
    store.credentials.open_intent(lease, "", lease.credential.leased_until)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert [row["outcome"] for row in rows(store, "oauth_guard_intents")] == ["refused", "renewed"]


def test_a_success_nobody_could_read_is_kept_and_read_again_when_somebody_can(connect, store, monkeypatch):
    """The token in it is the only one there is; the next release may know its envelope."""
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    enveloped = {"data": {"access_token": "planted-new", "refresh_token": "planted-newer"}}
    guarded.fault(status=200, body=enveloped, times=1)
    assert looked_into(store, guarded, question_of(store, guarded)).finding is Finding.AMBIGUOUS
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    assert guarded.refresh(store).outcome is Refreshed.HELD
    nothing_secret_is_kept(store, guarded.secrets)
    sent, read = len(guarded.token_requests()), RefreshTokenGrant.read

    def knows_envelopes(self, answer):
        body = answer.body.replace(b'"data":{', b'"x":1,').replace(b"}}", b"}")
        return read(self, HttpAnswer(answer.status, answer.headers, body, answer.received_at))

    monkeypatch.setattr(RefreshTokenGrant, "read", knows_envelopes)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert len(guarded.token_requests()) == sent
    assert store.credentials.tokens(guarded.credential(store)).refresh_token == "planted-newer"


# -- the second place -------------------------------------------------------------------------------------------------


@pytest.fixture
def variables(monkeypatch):
    """Airflow's Variables, in memory: outside a task there are none. A real task is in tests/contract/test_outages.py."""
    held = {}

    async def put(intent_id, sealed):
        held[intent_id] = sealed

    async def look(intent_id):
        return held.get(intent_id)

    async def clear(intent_id):
        held.pop(intent_id, None)

    for function in (put, look, clear):
        monkeypatch.setattr(second_place, function.__name__, function)
    return held


def gone(store, monkeypatch, *, times: int = 1):
    """The store cannot be reached when an answer is to be kept."""
    real, left = store.credentials.keep_answer, [None] * times

    def keep_answer(*args):
        if left:
            left.pop()
            raise StoreUnavailableError("The store cannot be used now.")
        real(*args)

    monkeypatch.setattr(store.credentials, "keep_answer", keep_answer)


def test_an_answer_the_store_cannot_take_goes_to_the_second_place_and_comes_back(
    connect, store, variables, monkeypatch
):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    gone(store, monkeypatch)
    with pytest.raises(StoreUnavailableError):
        guarded.refresh(store)
    [sealed] = variables.values()
    assert "planted" not in sealed
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert (len(guarded.token_requests()), variables) == (1, {})
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED, "the newest refresh token is in the store"


def test_taking_in_is_done_once_however_often_it_is_begun(connect, store, variables, monkeypatch):
    """Killed after the store had it and before the Variable was deleted."""
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    gone(store, monkeypatch)
    with pytest.raises(StoreUnavailableError):
        guarded.refresh(store)
    keep_again = dict(variables)
    [intent] = rows(store, "oauth_guard_intents")
    store.credentials.keep_answer(intent["id"], *variables.values())
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    variables.update(keep_again)
    assert guarded.refresh(store).outcome is Refreshed.FRESH
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert guarded.credential(store).generation == 3


def test_where_airflow_does_not_take_it_either_the_store_is_tried_until_it_does(connect, store, monkeypatch):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    gone(store, monkeypatch, times=2)

    async def fails(intent_id, sealed):
        raise ConnectionError("the API server does not answer")

    monkeypatch.setattr(second_place, "put", fails)
    with pytest.raises(StoreUnavailableError):
        guarded.refresh(store)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert len(guarded.token_requests()) == 1


def test_an_answer_that_arrives_after_the_refresh_was_called_lost_is_taken_in(connect, store, variables):
    """Airflow could not be asked for the Variable when the next run looked: it looks again, and sends nothing."""
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    lease = store.credentials.lease(guarded.conn_id, "dies", timedelta(milliseconds=1), utcnow())
    token = lease.tokens.refresh_token
    intent = store.credentials.open_intent(lease, token, lease.credential.leased_until)
    hook = guarded.hook()
    answer = hook.run(hook.send(hook.grant.request(token, utcnow())))
    assert guarded.refresh(store).evidence.finding is Finding.AMBIGUOUS
    variables[second_place.name(guarded.conn_id, token, intent)] = store.credentials.seal_answer(answer)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert len(guarded.token_requests()) == 2


def test_a_kept_answer_is_taken_in_even_when_it_is_not_yet_time(connect, store):
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    lease = store.credentials.lease(guarded.conn_id, "dies", timedelta(milliseconds=1), utcnow())
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, lease.credential.leased_until)
    body = b'{"access_token": "planted-a", "refresh_token": "planted-r", "expires_in": 3600}'
    keep(store, intent, HttpAnswer(200, {}, body, utcnow()))
    assert guarded.credential(store).is_due(utcnow()) is False
    assert guarded.refresh(store).outcome is Refreshed.RENEWED


# -- what nobody told, and what went astray ---------------------------------------------------------------------------


def wait_is_over(store, conn_id: str) -> None:
    """The back-off is; what is known of the token stays as it is."""
    with store.database.write() as connection:
        connection.execute(update(credentials).where(credentials.c.conn_id == conn_id).values(attempt_after=None))


def loses_its_answer(store, guarded, lose_answers) -> None:
    """A refresh that the provider processed, looked into: its refresh token is spent, its access token lives."""
    wait_is_over(store, guarded.conn_id)
    lose_answers()
    assert looked_into(store, guarded, question_of(store, guarded)).finding is Finding.AMBIGUOUS
    wait_is_over(store, guarded.conn_id)


def answers_probes_with(guarded, kind: str) -> None:
    if kind == "503":
        guarded.fault(status=503, on="resource")
    elif kind == "that it is dead":
        guarded.server.revoke(guarded.conn_id, grant=False)


@pytest.mark.parametrize("probe_says", ["", "503", "200"], ids=["no probe", "503", "200"])
def test_a_token_whose_end_nobody_told_may_live_and_is_not_risked(connect, store, lose_answers, server, probe_says):
    guarded = connect(client=ROTATING, **({} if probe_says else {"probe_url": None}))
    guarded.enrolled(store)
    loses_its_answer(store, guarded, lose_answers)
    answers_probes_with(guarded, probe_says)
    held = guarded.refresh(store)
    assert (held.outcome, len(guarded.token_requests())) == (Refreshed.HELD, 1)
    server.clear_faults()
    assert probe(server, guarded.minted.access_token) == 200, "the access token was revoked with its family"


def test_a_token_whose_end_nobody_told_is_over_when_a_probe_says_so(connect, store, lose_answers):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    loses_its_answer(store, guarded, lose_answers)
    answers_probes_with(guarded, "that it is dead")
    assert guarded.refresh(store).outcome is Refreshed.FAILED
    assert len(guarded.token_requests()) == 2


@pytest.mark.parametrize(
    ("probe_says", "outcome"),
    [("", Refreshed.FAILED), ("503", Refreshed.FAILED), ("that it is dead", Refreshed.FAILED), ("200", Refreshed.HELD)],
    ids=["no probe", "503", "dead", "200"],
)
def test_a_token_past_its_told_end_is_held_only_by_a_probe_that_is_answered(
    connect, store, lose_answers, probe_says, outcome
):
    guarded = connect(client=ROTATING, **({} if probe_says else {"probe_url": None}))
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    loses_its_answer(store, guarded, lose_answers)
    answers_probes_with(guarded, probe_says)
    sent = len(guarded.token_requests())
    assert guarded.refresh(store).outcome is outcome
    assert len(guarded.token_requests()) == sent + (outcome is Refreshed.FAILED)


def test_an_outage_that_came_before_does_not_hide_a_lost_answer(connect, store, lose_answers):
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=19))
    guarded.fault(status=503, times=1)
    assert looked_into(store, guarded, question_of(store, guarded)).finding is Finding.PROVIDER_OUTAGE
    assert not guarded.incident(store).needs_a_person(utcnow())
    loses_its_answer(store, guarded, lose_answers)
    incident = guarded.incident(store)
    assert (incident.kind, incident.needs_a_person(utcnow())) == (IncidentKind.AMBIGUOUS, True)


def test_a_loss_whose_incident_went_astray_is_asked_about_again(connect, store, lose_answers):
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    loses_its_answer(store, guarded, lose_answers)
    assert guarded.refresh(store).outcome is Refreshed.HELD
    assert store.investigations.open_ones() == [], "people know of it"
    incident_about(store, guarded.conn_id, IncidentKind.MISCONFIGURED)
    store.incidents.resolve(About.CREDENTIAL, guarded.conn_id, "its connection is usable now", utcnow())
    assert guarded.refresh(store).outcome is Refreshed.HELD
    question = store.investigations.take_on(guarded.credential(store), WHO, utcnow())
    assert looked_into(store, guarded, question).finding is Finding.AMBIGUOUS
    assert guarded.incident(store).kind is IncidentKind.AMBIGUOUS
    assert len(guarded.token_requests()) == 2


def test_a_death_that_waits_for_approval_does_not_outlive_a_lost_answer(connect, store, lose_answers, server):
    """The provider said no twice, and then gave new tokens that never reached us."""
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    guarded.fault(status=400, body={"error": "invalid_grant"}, times=3)
    proven = question_of(store, guarded)
    assert looked_into(store, guarded, proven).finding is Finding.GRANT_DEAD
    loses_its_answer(store, guarded, lose_answers)
    assert store.investigation(proven).closed_at is not None
    with pytest.raises(UnprovenTransitionError, match="has no answer"):
        store.credentials.expire(guarded.conn_id, store.investigation(proven).conclusion_evidence_id, WHO, utcnow())
    assert guarded.credential(store).status is Status.ACTIVE
    assert server.truth(guarded.conn_id).grant_live


# -- odd answers ------------------------------------------------------------------------------------------------------


def test_a_token_beside_an_error_is_kept_and_its_refresh_is_lost(connect, store):
    """Nobody can say whether it is good: it may be the only copy of the next refresh token."""
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    body = {"access_token": "planted-a", "refresh_token": "planted-r", "error": "partial_success"}
    guarded.fault(status=200, body=body, times=1)
    assert looked_into(store, guarded, question_of(store, guarded)).finding is Finding.AMBIGUOUS
    [intent] = rows(store, "oauth_guard_intents")
    assert intent["outcome"] == "lost"
    assert json.loads(store.credentials.open_answer(intent["answer"]).body) == body
    nothing_secret_is_kept(store, guarded.secrets)


# -- refreshes that are cancelled -------------------------------------------------------------------------------------


def cancelled(guarded, store, when) -> None:
    """Begin a refresh and cancel it at the moment ``when`` comes."""

    async def story() -> None:
        task = asyncio.ensure_future(guarded.hook().refresh(store, WHO))
        await when
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())


async def becomes(true) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


def test_a_refresh_that_is_cancelled_on_its_way_keeps_its_answer_all_the_same(connect, store, monkeypatch):
    guarded, real = connect(client=ROTATING), base.send
    guarded.enrolled(store)

    async def slow(request, *, deadline):
        answer = await real(request, deadline=deadline)
        await asyncio.sleep(0.3)
        return answer

    monkeypatch.setattr(base, "send", slow)
    cancelled(guarded, store, becomes(guarded.token_requests))
    [intent] = rows(store, "oauth_guard_intents")
    assert (bool(intent["answer"]), intent["outcome"]) == (True, None)
    assert not guarded.credential(store).is_leased(utcnow())
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert len(guarded.token_requests()) == 1


def test_a_refresh_that_is_cancelled_while_it_is_journalled_is_sent_and_its_answer_kept(connect, store, monkeypatch):
    """Otherwise its intent would stay open, and the next run would take it for a lost answer."""
    guarded, real, began = connect(client=ROTATING), store.credentials.open_intent, threading.Event()
    guarded.enrolled(store)

    def slow(*args, **how):
        began.set()
        time.sleep(0.3)
        return real(*args, **how)

    monkeypatch.setattr(store.credentials, "open_intent", slow)
    cancelled(guarded, store, becomes(began.is_set))
    assert len(guarded.token_requests()) == 1
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert len(guarded.token_requests()) == 1


def test_a_refresh_that_is_cancelled_while_it_waits_for_its_turn_sends_nothing(connect, store):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    store.credentials.lease(guarded.conn_id, "another", HOUR, utcnow())
    cancelled(guarded, store, becomes(lambda: True))
    assert guarded.token_requests() == []


def test_a_second_cancel_does_not_lose_the_answer_either(connect, store):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)

    async def cancel_twice():
        task = asyncio.ensure_future(guarded.hook().refresh(store, WHO))
        await becomes(lambda: rows(store, "oauth_guard_intents"))
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel_twice())
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert len(guarded.token_requests()) == 1


# -- trouble that must not hide what came of it -----------------------------------------------------------------------


def raises(error: Exception):
    def broken(*args, **how):
        raise error

    return broken


GONE = StoreUnavailableError("The store cannot be used now.")


def test_a_lease_that_cannot_be_given_back_does_not_hide_that_it_was_renewed(connect, store, monkeypatch, caplog):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    monkeypatch.setattr(store.credentials, "release", raises(GONE))
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert f"`{guarded.conn_id}` could not be given back" in caplog.text


def test_a_variable_that_cannot_be_deleted_does_not_hide_that_it_was_renewed(
    connect, store, variables, monkeypatch, caplog
):
    guarded = connect(client=ROTATING)
    guarded.enrolled(store)
    gone(store, monkeypatch)
    with pytest.raises(StoreUnavailableError):
        guarded.refresh(store)

    async def fails(variable):
        raise ConnectionError("the API server does not answer")

    monkeypatch.setattr(second_place, "clear", fails)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert f"Variable `{next(iter(variables))}` has served" in caplog.text
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED, "what is left over harms nobody"


@pytest.mark.parametrize("error", [GONE, LeaseLostError("The lease ran out.")], ids=lambda error: type(error).__name__)
def test_a_refresh_that_breaks_does_not_take_a_living_token_away(connect, store, monkeypatch, error):
    guarded = connect(client=ROTATING)
    guarded.refresh(store)
    held = store.credentials.tokens(guarded.credential(store)).access_token
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    monkeypatch.setattr(store.credentials, "lease", raises(error))
    assert guarded.hook().get_token() == held
    make_due(store, guarded.conn_id, life_left=timedelta())
    with pytest.raises(CredentialUnusableError, match=f"`{guarded.conn_id}` has no access token with life left"):
        guarded.hook().get_token()
