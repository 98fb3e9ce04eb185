"""Functions that are handed a session, against the real authorization server and a real store."""

from __future__ import annotations

import asyncio
import inspect
import logging
from datetime import timedelta
from functools import partial

import pytest

pytest.importorskip("airflow", reason="consumers need Airflow")

import httpx
import tenacity
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, Asset, task
from airflow.sdk.execution_time.context import OutletEventAccessors, set_current_context

from airflow_oauth_guard.consumers.taskflow import guarded
from airflow_oauth_guard.domain.sources import AssetEvents, Source
from airflow_oauth_guard.domain.windows import Learned
from airflow_oauth_guard.errors import ConfigurationError, CredentialUnusableError, StoreUnavailableError
from airflow_oauth_guard.hooks import patience, using
from airflow_oauth_guard.hooks.placement import Query
from airflow_oauth_guard.hooks.session import GuardedSession
from airflow_oauth_guard.operators import heartbeat as module
from tests.airflow_parts import expire, lapse, rows, task_context, utcnow

pytestmark = pytest.mark.airflow

SOURCE = "crm_contacts"


@pytest.fixture
def crm(connect, store, server):
    one = connect()
    one.enrolled(store)
    server.set_rows(one.conn_id, 3)
    return one


@pytest.fixture(autouse=True)
def in_a_task():
    context = task_context("load")
    with set_current_context(context):
        yield context


def fetch(url: str):
    """A function as people write it."""

    def load(session) -> int:
        return len(session.get(url, timeout=10).json()["rows"])

    return load


def beats(store) -> list[tuple]:
    return [(row["source"], row["row_count"], row["note"]) for row in rows(store, "oauth_guard_heartbeats")]


# -- the session ------------------------------------------------------------------------------------------------------


def test_a_function_is_handed_a_session_and_its_rows_are_announced(crm, server, store):
    assert guarded(crm.conn_id, source=SOURCE)(fetch(server.rows_url))() == 3
    assert beats(store) == [(SOURCE, 3, "")]
    assert rows(store, "oauth_guard_consumers")[0]["task_id"] == "load"


def test_a_coroutine_is_handed_an_asynchronous_client(crm, server, store):
    seen = []

    @guarded(crm.conn_id, source=SOURCE)
    async def load(session: httpx.AsyncClient) -> int:
        seen.append(session)
        return len((await session.get(server.rows_url)).json()["rows"])

    assert inspect.iscoroutinefunction(load)
    assert asyncio.run(load()) == 3
    assert beats(store) == [(SOURCE, 3, "")]
    assert seen[0].is_closed


def test_the_session_is_closed_whatever_happens(crm, monkeypatch):
    closed = []
    monkeypatch.setattr(GuardedSession, "close", lambda session: closed.append(session))  # noqa: PLW0108 - a method

    @guarded(crm.conn_id)
    def load(session, fails):
        if fails:
            raise ValueError("the job is broken")

    load(False)
    with pytest.raises(ValueError, match="broken"):
        load(True)
    assert len(closed) == 2


def test_a_function_that_fails_is_a_consumer_and_sends_no_heartbeat(crm, store):
    @guarded(crm.conn_id, source=SOURCE)
    def load(session) -> int:
        raise ValueError("the job is broken")

    with pytest.raises(ValueError, match="broken"):
        load()
    assert beats(store) == []
    assert rows(store, "oauth_guard_consumers")[0]["task_id"] == "load"


def test_without_a_source_nothing_is_announced(crm, store):
    assert guarded(crm.conn_id)(lambda session: 7)() == 7
    assert beats(store) == []


def test_rows_are_counted_as_it_is_said(crm, store):
    assert guarded(crm.conn_id, source=SOURCE, rows=len)(lambda session: ["a", "b"])() == ["a", "b"]
    assert beats(store) == [(SOURCE, 2, "")]


def test_the_token_goes_where_it_is_said(crm):
    seen = []
    guarded(crm.conn_id, placement=Query("token"))(lambda session: seen.append(session.auth.placement))()
    assert seen == [Query("token")]


# -- parameters -------------------------------------------------------------------------------------------------------


def first(session, page, size=10):
    return session, page, size


def middle(page, session=None, size=10):
    return session, page, size


def last(page, size=10, *, session):
    return session, page, size


def many(page, session, *sizes):
    return session, page, sizes[0] if sizes else 10


@pytest.mark.parametrize("function", [first, middle, last, many])
@pytest.mark.parametrize(
    ("given", "named", "size"),
    [
        ((1,), {}, 10),
        ((1, 20), {}, 20),
        ((), {"page": 1}, 10),
        ((1,), {"size": 20}, 20),
        ((), {"page": 1, "size": 20}, 20),
    ],
)
def test_the_parameter_is_hidden_and_the_others_are_given_as_ever(function, given, named, size, crm):
    decorated = guarded(crm.conn_id)(function)
    if function is many and "size" in named:
        named, size = {name: value for name, value in named.items() if name != "size"}, 10
    session, *others = decorated(*given, **named)
    assert isinstance(session, GuardedSession)
    assert others == [1, size]


@pytest.mark.parametrize("function", [first, middle, last, many])
def test_what_has_to_be_given_is_asked_for_and_no_session(function):
    decorated = guarded("crm")(function)
    shown, own = inspect.signature(decorated).parameters, inspect.signature(function).parameters
    assert list(shown) == [name for name in own if name != "session"]
    assert "session" not in decorated.__annotations__


def test_types_that_are_only_there_for_type_checkers_are_no_trouble(crm):
    def load(session: Nowhere) -> int:  # noqa: F821
        return 1

    with DAG("typed", schedule=None):
        assert task(guarded(crm.conn_id, source=SOURCE)(load))().operator.task_id == "load"


@pytest.mark.parametrize(
    "function",
    [lambda: 1, lambda token: 1, lambda **session: 1, lambda *session: 1, eval("lambda session, /: 1")],
)
def test_a_function_without_the_parameter_is_refused_at_once(function):
    with pytest.raises(ConfigurationError, match=r'@guarded\("crm"\): .* write `def <lambda>\(session, \.\.\.\)`'):
        guarded("crm")(function)


def test_what_is_no_function_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="is given a partial; write it directly above the function, under"):
        guarded("crm")(partial(first, page=1))

    def pages(session):
        yield 1

    with pytest.raises(ConfigurationError, match="is a generator, which outlives its session"):
        guarded("crm")(pages)


def test_rows_that_nobody_is_told_are_refused_at_once():
    with pytest.raises(ConfigurationError, match="name the `source`"):
        guarded("crm", rows=len)


# -- the source -------------------------------------------------------------------------------------------------------


def test_a_source_nobody_declared_is_known_to_be_fed_by_the_credential(crm, server, store, caplog):
    guarded(crm.conn_id, source=SOURCE)(fetch(server.rows_url))()
    watched = store.sources.get(SOURCE)
    assert watched.source == Source(SOURCE, Learned(), credential=crm.conn_id)
    assert not watched.adopted
    assert "not declared" not in caplog.text


def test_one_that_never_says_how_many_is_watched_for_silence_as_an_adopted_one_is(crm, store):
    guarded(crm.conn_id, source=SOURCE)(lambda session: None)()
    assert store.sources.get(SOURCE).source == Source(SOURCE, Learned(), credential=crm.conn_id, pings=True)


def test_a_source_that_somebody_declared_stays_as_it_is(crm, store):
    declared = Source(SOURCE, timedelta(hours=3), credential="other")
    store.sources.declare(declared, utcnow())
    guarded(crm.conn_id, source=SOURCE)(lambda session: 1)()
    assert store.sources.get(SOURCE).source == declared


def test_an_adopted_source_learns_what_feeds_it(crm, store):
    store.sources.beat(SOURCE, 3, utcnow(), using._observer())
    with set_current_context(task_context("load", try_number=1, run_id="another")):
        guarded(crm.conn_id, source=SOURCE)(lambda session: 1)()
    assert store.sources.get(SOURCE).source.credential == crm.conn_id


def test_a_source_may_be_declared_there(crm, store):
    declared = Source(SOURCE, timedelta(hours=3), credential=crm.conn_id)
    guarded(crm.conn_id, source=declared)(lambda session: 1)()
    assert store.sources.get(SOURCE).source == declared


# -- an unusable credential -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prove", "status"), [(lapse, "lapsed"), (expire, "expired")])
def test_a_function_whose_credential_is_unusable_does_not_begin_and_fails(prove, status, crm, server, store):
    began = []

    def load(session):
        began.append(session)

    server.revoke(crm.conn_id)
    prove(store, crm.conn_id)
    with pytest.raises(CredentialUnusableError, match=f"`{crm.conn_id}` is {status}"):
        guarded(crm.conn_id, source=SOURCE)(load)()
    assert (began, beats(store)) == ([], [])


def test_where_it_is_asked_for_it_is_skipped_and_the_skip_is_heard(crm, server, store):
    server.revoke(crm.conn_id)
    proof = expire(store, crm.conn_id)
    began = []

    def load(session):
        began.append(session)

    with pytest.raises(AirflowSkipException) as raised:
        guarded(crm.conn_id, source=SOURCE, skip_when_unusable=True)(load)()
    [(source, moved, note)] = beats(store)
    assert (source, moved, began) == (SOURCE, 0, [])
    assert note == str(raised.value)
    assert note.startswith(
        f"skipped: credential `{crm.conn_id}` is expired: its grant is proven dead. Evidence {proof}: "
    )
    watched = store.sources.get(SOURCE)
    assert watched.source.credential == crm.conn_id
    assert watched.state.last_beat_at is None, "a skip is no delivery"


def test_a_coroutine_is_skipped_as_well(crm, server, store):
    server.revoke(crm.conn_id)
    expire(store, crm.conn_id)

    @guarded(crm.conn_id, source=SOURCE, skip_when_unusable=True)
    async def load(session) -> int:
        raise AssertionError("it does not begin")

    with pytest.raises(AirflowSkipException):
        asyncio.run(load())
    assert beats(store)[0][:2] == (SOURCE, 0)


def test_a_usable_credential_is_never_skipped(crm, store):
    assert guarded(crm.conn_id, source=SOURCE, skip_when_unusable=True)(lambda session: 2)() == 2
    assert beats(store) == [(SOURCE, 2, "")]


def test_what_is_refused_in_the_middle_of_a_load_fails_and_is_no_skip(crm, server, store):
    @guarded(crm.conn_id, source=SOURCE, skip_when_unusable=True)
    def load(session) -> int:
        server.revoke(crm.conn_id)
        return len(session.get(server.rows_url, timeout=10).json()["rows"])

    with pytest.raises(CredentialUnusableError):
        load()
    assert beats(store) == []


def test_a_skip_that_nobody_would_hear_is_refused_at_once():
    for source in (None, ""):
        with pytest.raises(ConfigurationError, match="nobody would hear of it: name the `source`"):
            guarded("crm", source=source, skip_when_unusable=True)


def test_a_skip_whose_heartbeat_cannot_be_kept_is_a_failure(crm, server, store, monkeypatch):
    server.revoke(crm.conn_id)
    expire(store, crm.conn_id)

    def gone(*args, **kwargs):
        raise StoreUnavailableError("the store is gone")

    monkeypatch.setattr(module, "get_store", gone)
    monkeypatch.setitem(patience.PATIENCE, "stop", tenacity.stop_after_delay(0.2))
    with pytest.raises(StoreUnavailableError):
        guarded(crm.conn_id, source=SOURCE, skip_when_unusable=True)(lambda session: 1)()


@pytest.mark.parametrize("error", [StoreUnavailableError("gone"), ConfigurationError("wrong"), ValueError("odd")])
def test_only_an_unusable_credential_becomes_a_skip(error, crm, store, monkeypatch):
    def fail(use):
        raise error

    monkeypatch.setattr(using.Use, "token", fail)
    with pytest.raises(type(error)):
        guarded(crm.conn_id, source=SOURCE, skip_when_unusable=True)(lambda session: 1)()
    assert beats(store) == []


# -- assets -----------------------------------------------------------------------------------------------------------


def outlets_in(context, *outlets):
    class Task:
        pass

    context["task"] = Task()
    context["task"].outlets = list(outlets)
    context["outlet_events"] = OutletEventAccessors()
    return context["outlet_events"]


def test_the_update_of_its_asset_carries_the_rows(crm, store, in_a_task):
    contacts, others = Asset("contacts"), Asset("others")
    events = outlets_in(in_a_task, contacts, Asset(SOURCE), others)
    store.sources.declare(Source(SOURCE, timedelta(hours=3), measure=AssetEvents("contacts")), utcnow())
    guarded(crm.conn_id, source=SOURCE)(lambda session: 7)()
    assert events[contacts].extra == {"rows": 7}
    assert events[others].extra == {}
    assert events[Asset(SOURCE)].extra == {}, "it is measured by another"


def test_what_the_author_says_of_an_update_stays(crm, in_a_task):
    contacts = Asset(SOURCE)
    events = outlets_in(in_a_task, contacts)
    events[contacts].extra = {"rows": 5, "file": "a.csv"}
    guarded(crm.conn_id, source=SOURCE)(lambda session: 7)()
    assert events[contacts].extra == {"rows": 5, "file": "a.csv"}


def test_an_unknown_number_is_not_told(crm, in_a_task):
    events = outlets_in(in_a_task, Asset(SOURCE))
    guarded(crm.conn_id, source=SOURCE)(lambda session: None)()
    assert events[Asset(SOURCE)].extra == {}


def test_outside_of_tasks_it_works_as_well(crm, server, store, caplog):
    caplog.set_level(logging.INFO)
    from airflow.sdk.definitions._internal.contextmanager import _CURRENT_CONTEXT

    inside = _CURRENT_CONTEXT.copy()
    _CURRENT_CONTEXT.clear()
    try:
        guarded(crm.conn_id, source=SOURCE)(fetch(server.rows_url))()
    finally:
        _CURRENT_CONTEXT.extend(inside)
    [row] = rows(store, "oauth_guard_heartbeats")
    assert row["task_id"].endswith("test_taskflow.fetch.<locals>.load")
