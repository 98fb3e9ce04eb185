"""``httpx`` clients that bear a guarded token, synchronous or not, against real servers."""

from __future__ import annotations

import io
import logging
from contextlib import ExitStack
from datetime import timedelta

import httpx
import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow_oauth_guard.consumers.httpx_auth import GuardedHttpxAuth
from airflow_oauth_guard.domain.evidence import Kind
from airflow_oauth_guard.errors import ConfigurationError, CredentialUnusableError
from airflow_oauth_guard.hooks.placement import Header, Query
from tests.airflow_parts import make_due, rows, run
from tests.resource_server import INVALID_TOKEN, ResourceServer, Told

pytestmark = pytest.mark.airflow

VENDOR = Header("X-Vendor-Token", "{access_token}")
PLACES = {"bearer": Header(), "vendor": VENDOR}


@pytest.fixture
def guarded(connect, store):
    one = connect()
    one.refresh(store)
    make_due(store, one.conn_id, life_left=timedelta(minutes=50))
    return one


@pytest.fixture
def resource():
    """Starts API servers; each is another host to whoever sends tokens."""
    with ExitStack() as running:
        yield lambda answer: running.enter_context(ResourceServer(answer))


@pytest.fixture(params=["sync", "async"])
def send(request):
    """Sends one request with a client of each kind; its answer is read."""

    def sync(method, url, *, auth, follow_redirects=False, **details):
        with httpx.Client(auth=auth, follow_redirects=follow_redirects, timeout=10) as client:
            return client.request(method, url, **details)

    async def awaited(method, url, *, auth, follow_redirects=False, **details):
        async with httpx.AsyncClient(auth=auth, follow_redirects=follow_redirects, timeout=10) as client:
            return await client.request(method, url, **details)

    return sync if request.param == "sync" else lambda *given, **named: run(awaited(*given, **named))


def token_of(store, guarded):
    return store.credentials.tokens(guarded.credential(store)).access_token


def used(store):
    return [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == Kind.USE.value]


def refusing(token, otherwise=Told()):  # noqa: B008 - a constant
    """Answers like an API that takes this token no more, wherever it is."""

    def answer(asked):
        bears_it = any(token in text for text in (asked.path, *asked.headers.values()))
        return Told(401, INVALID_TOKEN, b"") if bears_it else otherwise

    return answer


def test_a_client_bears_the_token(guarded, server, send):
    server.set_rows(guarded.conn_id, 3)
    answer = send("GET", server.rows_url, auth=GuardedHttpxAuth(guarded.conn_id))
    assert len(answer.json()["rows"]) == 3


def test_a_token_that_is_refused_is_renewed_once_and_the_request_sent_again(guarded, server, store, send):
    server.set_rows(guarded.conn_id, 3)
    server.revoke(guarded.conn_id, grant=False)
    server.clear_requests()
    answer = send("GET", server.rows_url, auth=GuardedHttpxAuth(guarded.conn_id))
    assert len(answer.json()["rows"]) == 3
    assert [one.status_code for one in answer.history] == [401]
    assert len(guarded.token_requests()) == len(used(store)) == 1


def test_a_token_that_is_refused_and_cannot_be_renewed_is_an_error_that_says_why(guarded, server, send):
    server.revoke(guarded.conn_id)
    with pytest.raises(CredentialUnusableError, match=r"invalid_token.*invalid_grant"):
        send("GET", server.rows_url, auth=GuardedHttpxAuth(guarded.conn_id))


def test_what_says_nothing_of_the_token_is_the_clients_to_read(guarded, server, store, send):
    guarded.fault(on="resource", path="/api/rows", status=403, body="")
    server.clear_requests()
    assert send("GET", server.rows_url, auth=GuardedHttpxAuth(guarded.conn_id)).status_code == 403
    assert guarded.token_requests() == used(store) == []


def test_a_body_is_sent_again_in_whole(guarded, store, resource, send):
    api = resource(refusing(token_of(store, guarded)))
    auth = GuardedHttpxAuth(guarded.conn_id)
    assert send("POST", api.url, auth=auth, content=b"all of it").status_code == 200
    assert [asked.body for asked in api.asked] == [b"all of it", b"all of it"]


def test_a_body_that_was_streamed_cannot_be_sent_again_and_is_never_sent_empty(guarded, store, resource, send):
    api = resource(refusing(token_of(store, guarded)))
    auth = GuardedHttpxAuth(guarded.conn_id)
    # A form with a file is one that both kinds of clients stream.
    upload = {"file": io.BytesIO(b"all of it")}
    with pytest.raises(httpx.RequestError, match=r"POST to 127\.0\.0\.1 cannot be sent a second time"):
        send("POST", api.url, auth=auth, files=upload)
    assert send("POST", api.url, auth=auth, files=upload).status_code == 200
    assert [b"all of it" in asked.body for asked in api.asked] == [True, True]


def test_an_answer_that_is_streamed_is_not_read_for_us(guarded, store, resource):
    api = resource(refusing(token_of(store, guarded), Told(body=b"x" * 100_000)))
    with httpx.Client(auth=GuardedHttpxAuth(guarded.conn_id), timeout=10) as client:
        for _ in range(2):
            with client.stream("GET", api.url) as answer:
                assert not answer.is_stream_consumed
                assert sum(map(len, answer.iter_bytes())) == 100_000
    assert len(api.asked) == 3


def test_an_answer_that_is_streamed_in_a_loop_is_not_read_for_us(guarded, store, resource):
    api = resource(refusing(token_of(store, guarded), Told(body=b"x" * 100_000)))

    async def streamed():
        auth = GuardedHttpxAuth(guarded.conn_id)
        async with httpx.AsyncClient(auth=auth, timeout=10) as client, client.stream("GET", api.url) as answer:
            assert not answer.is_stream_consumed
            return sum([len(chunk) async for chunk in answer.aiter_bytes()])

    assert run(streamed()) == 100_000
    assert len(api.asked) == 2


# -- where it must not go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACES.values(), ids=PLACES)
def test_a_redirect_on_the_same_host_keeps_the_token_and_one_to_another_does_not(
    guarded, store, resource, send, placement
):
    other = resource(lambda asked: Told(401, INVALID_TOKEN, b""))
    targets = {"/a": "/b", "/b": f"{other.url}/c"}
    home = resource(lambda asked: Told(302, {"Location": targets[asked.path]}, b""))
    auth = GuardedHttpxAuth(guarded.conn_id, placement=placement)
    assert send("GET", f"{home.url}/a", auth=auth, follow_redirects=True).status_code == 401
    name = placement.name.lower()
    assert [name in asked.headers for asked in home.asked] == [True, True]
    assert [name in asked.headers for asked in other.asked] == [False]
    # What another host refuses is no word about the token.
    assert used(store) == []


def test_a_clients_own_tracing_goes_on(guarded, resource):
    api, events = resource(lambda asked: Told()), []

    async def traced(event, info):
        events.append(event)

    async def sent():
        async with httpx.AsyncClient(auth=GuardedHttpxAuth(guarded.conn_id, placement=VENDOR)) as client:
            await client.get(api.url, extensions={"trace": traced})

    run(sent())
    with httpx.Client(auth=GuardedHttpxAuth(guarded.conn_id, placement=VENDOR)) as client:
        client.get(api.url, extensions={"trace": lambda event, info: events.append(event)})
    assert events.count("http11.send_request_headers.started") == 2
    assert ["x-vendor-token" in asked.headers for asked in api.asked] == [True, True]


def test_a_token_goes_to_https_only_unless_its_connection_says_otherwise(connect, send):
    guarded = connect(allow_http=False, token_url="https://vendor.example/token", probe_url=None)
    with pytest.raises(ConfigurationError, match=r"its token is not sent to http://127\.0\.0\.1:1,"):
        send("GET", "http://127.0.0.1:1/", auth=GuardedHttpxAuth(guarded.conn_id))


def test_a_token_in_the_address_is_in_no_log_no_error_and_no_evidence(guarded, store, resource, send, caplog):
    token = token_of(store, guarded)
    api = resource(refusing(token, Told(404)))
    with caplog.at_level(logging.INFO):
        auth = GuardedHttpxAuth(guarded.conn_id, placement=Query())
        answer = send("GET", f"{api.url}/v1/things?page=2", auth=auth)
    newer = token_of(store, guarded)
    assert [asked.path for asked in api.asked] == [f"/v1/things?page=2&access_token={one}" for one in (token, newer)]
    with pytest.raises(httpx.HTTPStatusError) as raised:
        answer.raise_for_status()
    for text in (str(raised.value), caplog.text, str(used(store))):
        assert token not in text
        assert newer not in text
