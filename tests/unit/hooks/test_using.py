"""A consumer's use of a credential: a token at any time, or an error that says why there is none."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
import threading
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import tenacity
import time_machine
from sqlalchemy import event

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow.sdk.execution_time.context import set_current_context
from airflow.sdk.log import redact

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.domain.evidence import Kind
from airflow_oauth_guard.errors import CredentialUnusableError, StoreUnavailableError
from airflow_oauth_guard.hooks import patience, using
from airflow_oauth_guard.hooks.using import Use, aget_token, get_token
from tests.airflow_parts import expire, lapse, make_due, rows, run, task_context, utcnow

pytestmark = pytest.mark.airflow

A_WHILE = timedelta(minutes=2)


@pytest.fixture
def guarded(connect, store):
    one = connect()
    one.refresh(store)
    return one


@pytest.fixture
def unprobed(connect, store):
    """One that no probe has ever shown alive."""
    one = connect(probe_url=None)
    one.refresh(store)
    return one


def later(passed=A_WHILE):
    return time_machine.travel(utcnow() + passed, tick=True)


def token_of(store, guarded):
    return store.credentials.tokens(guarded.credential(store)).access_token


def probes(store):
    return [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == Kind.PROBE.value]


@contextmanager
def a_task(task_id="load", **details):
    context = task_context(task_id, **details)
    with set_current_context(context):
        yield context


# -- a token ----------------------------------------------------------------------------------------------------------


def test_a_fresh_token_is_handed_out_and_the_provider_is_not_asked(guarded, store, server):
    server.clear_requests()
    assert get_token(guarded.conn_id) == token_of(store, guarded)
    assert server.requests() == []


def test_a_token_that_is_due_is_renewed_first(guarded, store):
    make_due(store, guarded.conn_id)
    handed = Use(guarded.conn_id).token()
    assert (handed.generation, handed.access_token) == (3, token_of(store, guarded))


def test_a_connection_that_was_never_used_is_enrolled(connect, store):
    guarded = connect()
    assert get_token(guarded.conn_id) == token_of(store, guarded)
    assert guarded.credential(store).generation == 2


def test_what_is_known_serves_for_half_a_minute_and_is_looked_up_again_then(guarded, store):
    use = Use(guarded.conn_id)
    first = use.token()
    guarded.hook().run(guarded.hook().refresh(store, using._observer(), rejected=first.generation))
    assert use.token() is first
    with later(using.SERVES_FOR):
        assert use.token().generation == first.generation + 1


def test_a_token_is_not_in_hand_beyond_its_own_end(guarded, store):
    use = Use(guarded.conn_id)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=21))
    first = use.token()
    with later(timedelta(minutes=22)):
        assert use.token().generation == first.generation + 1


def test_in_a_running_loop_a_token_may_be_asked_for_either_way(guarded, store):
    make_due(store, guarded.conn_id)

    async def both():
        return get_token(guarded.conn_id), await aget_token(guarded.conn_id), await guarded.hook().aget_token()

    assert set(run(both())) == {token_of(store, guarded)}
    assert guarded.credential(store).generation == 3


def test_airflow_masks_the_token_in_every_form_that_a_log_may_hold(connect, store):
    guarded = connect(mint={"secret_prefix": "planted-a/b+c="})
    make_due(store, guarded.enrolled(store).conn_id, life_left=timedelta(minutes=50))
    token = get_token(guarded.conn_id)
    assert token.startswith("planted-a/b+c=")
    quoted = token.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D")
    said = redact(f"GET /rows with {token} and /rows?access_token={quoted}")
    assert said == "GET /rows with *** and /rows?access_token=***"


def test_a_token_that_no_request_can_carry_is_an_error_that_does_not_quote_it(connect, store):
    guarded = connect(access_token="planted-with-a\nline-break")
    make_due(store, guarded.enrolled(store).conn_id, life_left=timedelta(minutes=50))
    with pytest.raises(CredentialUnusableError, match="holds a letter that no token has") as raised:
        get_token(guarded.conn_id)
    assert "planted" not in str(raised.value)


def test_a_use_is_copied_without_its_token(guarded, store):
    use = Use(guarded.conn_id)
    token = use.token().access_token
    assert token.encode() not in pickle.dumps(use)
    assert pickle.loads(pickle.dumps(use)).token().access_token == token
    assert copy.deepcopy(use)._handed is None
    assert token not in repr(use.token())


def test_a_forked_process_gets_its_token_too(guarded, store):
    use = Use(guarded.conn_id)
    use.token()
    fork = multiprocessing.get_context("fork")
    told = fork.SimpleQueue()
    with later():
        child = fork.Process(target=lambda: told.put(use.token().access_token))
        child.start()
        child.join(60)
    assert child.exitcode == 0
    assert told.get() == token_of(store, guarded) == use.token().access_token


# -- no token ---------------------------------------------------------------------------------------------------------


def test_a_lapsed_credential_is_an_error_with_its_evidence(guarded, store):
    proof = lapse(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_grant"})
    with pytest.raises(CredentialUnusableError, match=f"`{guarded.conn_id}` is lapsed.*Evidence {proof.id}"):
        get_token(guarded.conn_id)


def test_a_lapsed_credential_whose_refresh_succeeds_is_none_any_more(guarded, store):
    lapse(store, guarded.conn_id)
    assert get_token(guarded.conn_id) == token_of(store, guarded)
    assert guarded.credential(store).is_active


def test_an_expired_credential_is_an_error_that_says_how_to_reconnect(unprobed, store, server):
    server.revoke(unprobed.conn_id)
    proof = expire(store, unprobed.conn_id)
    with pytest.raises(CredentialUnusableError, match=f"is expired.*Evidence {proof}.*Reconnect it"):
        get_token(unprobed.conn_id)


def test_a_token_past_its_end_that_cannot_be_renewed_is_an_error(unprobed, store):
    make_due(store, unprobed.conn_id)
    unprobed.fault(status=503)
    with pytest.raises(CredentialUnusableError, match=r"no access token with life left.*the provider itself failed"):
        get_token(unprobed.conn_id)


def test_a_refresh_that_fails_costs_nothing_while_the_token_has_life(guarded, store):
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=5))
    guarded.fault(status=503)
    assert get_token(guarded.conn_id) == token_of(store, guarded)


# -- the store is gone ------------------------------------------------------------------------------------------------


@contextmanager
def away(store):
    """The store's file cannot be opened."""
    path = Path(str(store.database.engine.url.database))
    store.database.engine.dispose()
    aside = path.rename(path.with_suffix(".aside"))
    path.mkdir()
    try:
        yield lambda: back(store, path, aside)
    finally:
        back(store, path, aside)


def back(store, path, aside):
    if aside.exists():
        store.database.engine.dispose()
        path.rmdir()
        aside.rename(path)


def test_with_a_token_in_hand_a_consumer_goes_on_while_the_store_is_gone(guarded, store):
    use = Use(guarded.conn_id)
    token = use.token().access_token
    with later(), away(store):
        assert use.token().access_token == token
        assert run(use.atoken()).access_token == token


def test_but_not_beyond_the_tokens_own_end(guarded, store, monkeypatch):
    monkeypatch.setitem(patience.PATIENCE, "stop", tenacity.stop_after_delay(0.2))
    use = Use(guarded.conn_id)
    use.token()
    with later(timedelta(hours=2)), away(store), pytest.raises(StoreUnavailableError):
        use.token()


def test_without_a_token_a_consumer_waits_for_the_store(guarded, store):
    with away(store) as bring_back:
        threading.Timer(1.0, bring_back).start()
        assert get_token(guarded.conn_id)
    with away(store) as bring_back:
        threading.Timer(1.0, bring_back).start()
        assert run(aget_token(guarded.conn_id))


def test_a_store_that_stays_away_is_an_error_in_the_end(guarded, store, monkeypatch):
    monkeypatch.setitem(patience.PATIENCE, "stop", tenacity.stop_after_delay(0.2))
    with away(store):
        with pytest.raises(StoreUnavailableError, match="cannot be used now"):
            get_token(guarded.conn_id)
        with pytest.raises(StoreUnavailableError, match="cannot be used now"):
            run(aget_token(guarded.conn_id))


def test_a_refusal_waits_for_the_store_as_well(guarded, store):
    use = Use(guarded.conn_id)
    handed = use.token()
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=50))
    with away(store) as bring_back:
        threading.Timer(1.0, bring_back).start()
        newer = use.refused(handed, "GET", "https://vendor.example/rows", refusal())
    assert newer is not None
    assert newer.generation == handed.generation + 1


def refusal(status=401, header='Bearer error="invalid_token"'):
    return HttpAnswer(status, {"www-authenticate": header}, b"", utcnow())


def test_a_refusal_is_answered_in_a_loop_too(guarded, store):
    use = Use(guarded.conn_id)
    handed = use.token()
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=50))
    newer = run(use.arefused(handed, "GET", "https://vendor.example/rows", refusal()))
    assert newer is not None
    assert newer.generation == handed.generation + 1
    assert run(use.arefused(newer, "GET", "https://vendor.example/rows", refusal(404, ""))) is None


def test_a_token_that_is_not_the_newest_any_more_is_replaced_without_another_refresh(guarded, store, server):
    use = Use(guarded.conn_id)
    old = use.token()
    guarded.hook().run(guarded.hook().refresh(store, using._observer(), rejected=old.generation))
    server.clear_requests()
    newer = use.refused(old, "GET", "https://vendor.example/rows", refusal())
    assert newer is not None
    assert newer.generation == old.generation + 1
    assert server.requests() == []
    assert not [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == Kind.USE.value]


def test_evidence_of_a_refusal_holds_no_name_no_password_and_no_token_of_its_address(guarded, store):
    use = Use(guarded.conn_id)
    handed = use.token()
    url = f"https://ada:secret-of-ada@vendor.example/v1/{handed.access_token}/rows?page=2&key={handed.access_token}"
    with pytest.raises(CredentialUnusableError) as raised:
        use.refused(handed, "GET", url, refusal())
    kept = str([row for row in rows(store, "oauth_guard_evidence") if row["kind"] == Kind.USE.value])
    for text in (kept, str(raised.value)):
        assert "https://vendor.example/v1/<redacted>/rows" in text
        assert "secret-of-ada" not in text
        assert handed.access_token not in text


# -- a task that uses it ----------------------------------------------------------------------------------------------


def test_a_task_is_written_down_as_a_consumer_once_an_hour(guarded, store):
    def seen():
        return store.consumers.of([guarded.conn_id], utcnow()).get(guarded.conn_id, [])

    get_token(guarded.conn_id)
    assert seen() == []
    with a_task("load"):
        get_token(guarded.conn_id)
        first = seen()
        assert [(one.dag_id, one.task_id) for one in first] == [("oauth_guard_test", "load")]
        with later(timedelta(minutes=5)):
            get_token(guarded.conn_id)
            assert seen() == first
        with later(timedelta(minutes=20)):
            make_due(store, guarded.conn_id, life_left=timedelta(hours=3))
        with later(timedelta(minutes=61)):
            get_token(guarded.conn_id)
            assert seen()[0].last_used_at >= first[0].last_used_at + timedelta(minutes=60)


def test_that_a_use_cannot_be_written_down_keeps_no_token_back(guarded, store):
    engine = store.database.engine
    engine.dispose()
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = ON"))
    with a_task():
        assert get_token(guarded.conn_id) == token_of(store, guarded)


def test_a_task_that_runs_again_has_its_token_probed_first_once(guarded, store):
    before = len(probes(store))
    with later(), a_task(try_number=2):
        for use in (Use(guarded.conn_id), Use(guarded.conn_id)):
            use.token()
    assert len(probes(store)) == before + 1


def test_a_task_that_runs_again_gets_another_token_where_the_probe_is_refused(guarded, store, server):
    server.revoke(guarded.conn_id, grant=False)
    with later(), a_task(try_number=2):
        handed = Use(guarded.conn_id).token()
    assert handed.generation == 3
    assert guarded.credential(store).is_active


def test_a_task_that_runs_for_the_first_time_probes_nothing(guarded, store, server):
    server.clear_requests()
    with later(), a_task(try_number=1):
        get_token(guarded.conn_id)
    assert server.requests() == []


def test_a_connection_without_a_probe_serves_a_task_that_runs_again(unprobed, store, server):
    server.clear_requests()
    with later(), a_task(try_number=2):
        assert get_token(unprobed.conn_id) == token_of(store, unprobed)
    assert server.requests() == []


def test_many_tasks_in_one_loop_share_one_refresh(guarded, store):
    make_due(store, guarded.conn_id)
    use, before = Use(guarded.conn_id), len(guarded.token_requests())

    async def all_at_once():
        return await asyncio.gather(*(use.atoken() for _ in range(10)))

    assert {handed.access_token for handed in run(all_at_once())} == {token_of(store, guarded)}
    assert len(guarded.token_requests()) == before + 1
