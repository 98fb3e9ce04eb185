"""Sessions that bear a guarded token, against the real authorization server and a real store."""

from __future__ import annotations

import io
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import pytest
import requests
import time_machine

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow_oauth_guard.domain.evidence import Finding, Kind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError, CredentialUnusableError
from airflow_oauth_guard.hooks.placement import Header, Query
from airflow_oauth_guard.hooks.session import GuardedAuth, GuardedSession
from tests.airflow_parts import looked_into, make_due, question_of, rows, utcnow
from tests.resource_server import INVALID_TOKEN, ResourceServer, Told

pytestmark = pytest.mark.airflow

HALF_USED = timedelta(minutes=50)
VENDOR = Header("X-Vendor-Token", "{access_token}")


@pytest.fixture
def guarded(connect, store):
    one = connect()
    one.refresh(store)
    make_old(store, one)
    return one


@pytest.fixture
def resource():
    """Starts API servers; each is another host to whoever sends tokens."""
    with ExitStack() as running:
        yield lambda answer: running.enter_context(ResourceServer(answer))


def make_old(store, guarded):
    """As if the token had been issued long ago, with time to go."""
    make_due(store, guarded.conn_id, life_left=HALF_USED)


def later():
    """When what was seen at the refresh was seen a while ago."""
    return time_machine.travel(utcnow() + timedelta(minutes=2), tick=True)


def used(store, kind=Kind.USE):
    return [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == kind.value]


def token_of(store, guarded):
    return store.credentials.tokens(guarded.credential(store)).access_token


def refusing(*tokens, placement=Header(), otherwise=Told()):  # noqa: B008 - both are constants
    """Answers like an API that takes these tokens no more."""

    def answer(asked):
        refused = any(
            placement.is_placed(f"http://here{asked.path}", HeaderNames(asked.headers), one) for one in tokens
        )
        told = otherwise(asked) if callable(otherwise) else otherwise
        return Told(401, INVALID_TOKEN, b"") if refused else told

    return answer


class HeaderNames(dict):
    def get(self, name, default=None):
        return super().get(name.lower(), default)


# -- the token in the middle of a run ---------------------------------------------------------------------------------


def test_a_session_bears_the_token(guarded, server):
    server.set_rows(guarded.conn_id, 3)
    with GuardedSession(guarded.conn_id) as session:
        assert len(session.get(server.rows_url, timeout=10).json()["rows"]) == 3


def test_a_token_that_is_refused_is_renewed_once_and_the_request_sent_again(guarded, server, store):
    server.set_rows(guarded.conn_id, 3)
    server.revoke(guarded.conn_id, grant=False)
    with GuardedSession(guarded.conn_id) as session:
        answer = session.get(server.rows_url, timeout=10)
    assert (answer.status_code, len(answer.json()["rows"])) == (200, 3)
    assert [one.status_code for one in answer.history] == [401]
    assert [row["finding"] for row in used(store)] == [Finding.ACCESS_TOKEN_DEAD.value]
    assert guarded.credential(store).status is Status.ACTIVE


def test_a_token_that_is_refused_and_cannot_be_renewed_is_an_error_that_says_why(guarded, server, store):
    server.revoke(guarded.conn_id)
    with GuardedSession(guarded.conn_id) as session, pytest.raises(CredentialUnusableError) as raised:
        session.get(server.rows_url, timeout=10)
    assert guarded.conn_id in str(raised.value)
    assert "invalid_token" in str(raised.value)
    assert "invalid_grant" in str(raised.value)
    assert "OAuth Guard page" in str(raised.value)


def test_a_task_of_two_hours_goes_on_while_its_token_lapses_again_and_again(connect, server, store):
    guarded = connect(client={"access_lifetime": timedelta(minutes=20)}, refresh_margin="60")
    guarded.refresh(store)
    server.set_rows(guarded.conn_id, 3)
    server.clear_requests()
    fetched = []
    with time_machine.travel(utcnow(), tick=True) as clock, GuardedSession(guarded.conn_id) as session:
        for _ in range(24):
            fetched += session.get(server.rows_url, timeout=10).json()["rows"]
            clock.shift(timedelta(minutes=5))
            server.advance(timedelta(minutes=5))
    assert len(fetched) == 72
    assert 5 <= len(guarded.token_requests()) <= 8
    assert used(store) == []


# -- what is not the token --------------------------------------------------------------------------------------------


def refuse_rows(guarded, status=401, **details):
    guarded.fault(on="resource", path="/api/rows", status=status, **{"body": "", **details})


def test_a_refusal_without_a_reason_of_a_token_that_the_probe_shows_alive_is_the_consumers_to_read(
    guarded, server, store
):
    refuse_rows(guarded)
    server.clear_requests()
    before = len(used(store, Kind.PROBE))
    with later(), GuardedSession(guarded.conn_id) as session:
        answers = [session.get(server.rows_url, timeout=10) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert guarded.token_requests() == []
    # Once a minute is often enough, for the probe and for the evidence.
    assert len(used(store, Kind.PROBE)) == before + 1
    assert len(used(store)) == 1


def test_a_refusal_without_a_reason_of_a_token_that_the_probe_finds_dead_is_answered_by_the_next(
    guarded, server, store
):
    server.revoke(guarded.conn_id, grant=False)
    refuse_rows(guarded, times=1)
    with later(), GuardedSession(guarded.conn_id) as session:
        assert session.get(server.rows_url, timeout=10).status_code == 200
    assert used(store, Kind.PROBE)[-1]["finding"] == Finding.ACCESS_TOKEN_DEAD.value
    assert guarded.credential(store).generation == 3


def test_without_a_probe_the_next_token_shows_what_a_refusal_without_a_reason_meant(connect, server, store):
    guarded = connect(probe_url=None)
    guarded.refresh(store)
    make_old(store, guarded)
    server.clear_requests()
    refuse_rows(guarded)
    with later(), GuardedSession(guarded.conn_id) as session:
        assert session.get(server.rows_url, timeout=10).status_code == 401
        assert len(guarded.token_requests()) == 1
        # The next one was refused, too: it was not the token, and nobody tries that again for a while.
        assert session.get(server.rows_url, timeout=10).status_code == 401
    assert len(guarded.token_requests()) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
def test_what_says_nothing_of_the_token_asks_nobody_and_leaves_no_evidence(guarded, server, store, status):
    refuse_rows(guarded, status=status)
    server.clear_requests()
    with later(), GuardedSession(guarded.conn_id) as session:
        assert session.get(server.rows_url, timeout=10).status_code == status
    assert [seen.path for seen in server.requests()] == ["/api/rows"]
    assert used(store) == []


def test_a_host_that_refuses_a_token_that_came_moments_ago_is_told_apart(guarded, store, resource):
    api = resource(lambda asked: Told(401, INVALID_TOKEN, b""))
    with GuardedSession(guarded.conn_id) as session, pytest.raises(CredentialUnusableError) as raised:
        session.get(f"{api.url}/v1/things?customer=ada", timeout=10)
    assert f"{api.url}/v1/things refuses its access token, which came moments ago" in str(raised.value)
    assert "scopes and audience" in str(raised.value)
    assert "ada" not in str(raised.value)
    assert len(api.asked) == 2


# -- where a refresh does not help ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"status": 400, "body": {"error": "unsupported_grant_type"}}, "unsupported_grant_type"),
        ({"status": 503, "body": ""}, "the provider itself failed"),
    ],
    ids=["malformed", "provider down"],
)
def test_a_refresh_that_fails_says_so_to_the_consumer_and_changes_no_status(guarded, server, store, fault, says):
    server.revoke(guarded.conn_id, grant=False)
    guarded.fault(**fault)
    with GuardedSession(guarded.conn_id) as session:
        with pytest.raises(CredentialUnusableError, match=says):
            session.get(server.rows_url, timeout=10)
        # Not yet time to ask again: the provider is left alone, and the consumer told all the same.
        server.clear_requests()
        with pytest.raises(CredentialUnusableError, match=r"held, it failed 1 times"):
            session.get(server.rows_url, timeout=10)
    assert guarded.token_requests() == []
    assert guarded.credential(store).status is Status.ACTIVE


def test_without_a_probe_two_refusals_with_a_pause_between_lapse_a_credential_that_cannot_be_renewed(
    connect, server, store
):
    guarded = connect(probe_url=None)
    guarded.refresh(store)
    make_old(store, guarded)
    server.revoke(guarded.conn_id, grant=False)
    guarded.fault(status=400, body={"error": "unsupported_grant_type"})
    with GuardedSession(guarded.conn_id) as session:
        for passed in (timedelta(), timedelta(minutes=2)):
            with time_machine.travel(utcnow() + passed, tick=True), pytest.raises(CredentialUnusableError):
                session.get(server.rows_url, timeout=10)
    make_due(store, guarded.conn_id)
    looked_into(store, guarded, question_of(store, guarded))
    assert guarded.credential(store).status is Status.LAPSED


# -- many at once -----------------------------------------------------------------------------------------------------


def test_twenty_threads_that_are_refused_at_once_make_one_refresh(guarded, server, store):
    server.set_rows(guarded.conn_id, 3)
    with GuardedSession(guarded.conn_id) as session:
        session.get(server.rows_url, timeout=10)
        server.revoke(guarded.conn_id, grant=False)
        server.clear_requests()
        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(lambda _: session.get(server.rows_url, timeout=60), range(20)))
    assert [len(answer.json()["rows"]) for answer in answers] == [3] * 20
    assert len(guarded.token_requests()) == 1
    assert guarded.credential(store).generation == 3


# -- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", [Header(), VENDOR], ids=["bearer", "vendor"])
def test_a_redirect_on_the_same_host_keeps_the_token_and_one_to_another_does_not(guarded, store, resource, placement):
    other = resource(lambda asked: Told())
    home = resource(lambda asked: Told(302, {"Location": {"/a": "/b", "/b": f"{other.url}/c"}[asked.path]}, b""))
    with GuardedSession(guarded.conn_id, placement=placement) as session:
        assert session.get(f"{home.url}/a", timeout=10).status_code == 200
    name = placement.name.lower()
    assert [name in asked.headers for asked in home.asked] == [True, True]
    assert [name in asked.headers for asked in other.asked] == [False]


@pytest.mark.parametrize("placement", [Header(), VENDOR], ids=["bearer", "vendor"])
def test_a_redirect_after_the_second_try_carries_no_token_to_another_host(guarded, store, resource, placement):
    other = resource(lambda asked: Told())
    away = Told(302, {"Location": f"{other.url}/c"}, b"")
    home = resource(refusing(token_of(store, guarded), placement=placement, otherwise=away))
    with GuardedSession(guarded.conn_id, placement=placement) as session:
        assert session.get(f"{home.url}/a", timeout=10).status_code == 200
    name = placement.name.lower()
    assert [name in asked.headers for asked in home.asked] == [True, True]
    assert [name in asked.headers for asked in other.asked] == [False]


def test_what_another_host_refuses_is_no_word_about_the_token(guarded, server, store, resource):
    other = resource(lambda asked: Told(401, INVALID_TOKEN, b""))
    home = resource(lambda asked: Told(302, {"Location": f"{other.url}/c"}, b""))
    server.clear_requests()
    with GuardedSession(guarded.conn_id) as session:
        assert session.get(home.url, timeout=10).status_code == 401
    assert guarded.token_requests() == []
    assert used(store) == []


def test_a_token_goes_to_https_only_unless_its_connection_says_otherwise(connect, store):
    guarded = connect(allow_http=False, token_url="https://vendor.example/token", probe_url=None)
    with GuardedSession(guarded.conn_id) as session, pytest.raises(ConfigurationError) as raised:
        session.get("http://ada:secret-of-ada@127.0.0.1:1/", timeout=10)
    assert "its token is not sent to http://127.0.0.1:1" in str(raised.value)
    assert "secret-of-ada" not in str(raised.value)


# -- the rest of what requests does -----------------------------------------------------------------------------------


def test_a_streamed_answer_stays_one_also_after_a_second_try(guarded, store, resource):
    api = resource(refusing(token_of(store, guarded), otherwise=Told(body=b"x" * 100_000)))
    with GuardedSession(guarded.conn_id) as session:
        for _ in range(2):
            answer = session.get(api.url, stream=True, timeout=10)
            assert not answer._content_consumed
            assert sum(map(len, answer.iter_content(1000))) == 100_000
    assert len(api.asked) == 3


def test_a_file_is_sent_from_its_beginning_a_second_time(guarded, store, resource):
    api = resource(refusing(token_of(store, guarded)))
    with GuardedSession(guarded.conn_id) as session:
        assert session.post(api.url, data=io.BytesIO(b"all of it"), timeout=10).status_code == 200
    assert [asked.body for asked in api.asked] == [b"all of it", b"all of it"]


def test_a_body_that_was_streamed_cannot_be_sent_again_and_is_never_sent_empty(guarded, store, resource):
    api = resource(refusing(token_of(store, guarded)))
    with GuardedSession(guarded.conn_id) as session:
        with pytest.raises(
            requests.exceptions.UnrewindableBodyError, match=r"POST to 127.0.0.1 cannot be sent a second"
        ):
            session.post(api.url, data=iter([b"all ", b"of it"]), timeout=10)
        assert session.post(api.url, data=iter([b"all ", b"of it"]), timeout=10).status_code == 200
    assert [asked.body for asked in api.asked] == [b"all of it", b"all of it"]


def test_a_cookie_that_comes_with_a_refusal_goes_with_the_second_try(guarded, store, resource):
    old = token_of(store, guarded)
    api = resource(
        lambda asked: (
            Told(401, {**INVALID_TOKEN, "Set-Cookie": "route=7"}, b"")
            if asked.headers["authorization"] == f"Bearer {old}"
            else Told()
        )
    )
    with GuardedSession(guarded.conn_id) as session:
        session.get(api.url, timeout=10)
        assert session.cookies.get_dict() == {"route": "7"}
    assert [asked.headers.get("cookie") for asked in api.asked] == [None, "route=7"]


def test_a_head_request_is_tried_again_too(guarded, store, resource):
    api = resource(refusing(token_of(store, guarded)))
    with GuardedSession(guarded.conn_id) as session:
        assert session.head(api.url, timeout=10).status_code == 200
    assert [asked.method for asked in api.asked] == ["HEAD", "HEAD"]


def test_hooks_of_the_sessions_owner_see_what_came_in_the_end(guarded, store, resource):
    api, seen = resource(refusing(token_of(store, guarded))), []
    with GuardedSession(guarded.conn_id) as session:
        session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
        session.get(api.url, timeout=10)
    assert seen == [200]


def test_a_session_can_be_pickled_without_its_token(guarded, server, store):
    server.set_rows(guarded.conn_id, 3)
    with GuardedSession(guarded.conn_id) as session:
        session.get(server.rows_url, timeout=10)
        pickled = pickle.dumps(session)
    assert token_of(store, guarded).encode() not in pickled
    with pickle.loads(pickled) as again:
        assert len(again.get(server.rows_url, timeout=10).json()["rows"]) == 3


def test_the_auth_class_serves_sessions_that_others_make(guarded, server, store, monkeypatch, tmp_path):
    # What a .netrc knows of the host is for those who bring nothing themselves.
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password secret-of-ada\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.set_rows(guarded.conn_id, 3)
    answer = requests.get(server.rows_url, auth=GuardedAuth(guarded.conn_id), timeout=10)
    assert len(answer.json()["rows"]) == 3


# -- a token in the address -------------------------------------------------------------------------------------------


@contextmanager
def nothing_shows(token, store, caplog):
    """Neither logs nor evidence hold the token."""
    with caplog.at_level(logging.INFO):
        yield
    assert token not in caplog.text
    for row in used(store):
        assert token not in str(row)


def test_a_token_in_the_address_is_in_no_error_and_no_evidence(guarded, store, resource, caplog):
    token = token_of(store, guarded)
    placement = Query()
    api = resource(refusing(token, placement=placement, otherwise=Told(404)))
    with nothing_shows(token, store, caplog), GuardedSession(guarded.conn_id, placement=placement) as session:
        answer = session.get(f"{api.url}/v1/things?page=2", timeout=10)
        assert (answer.status_code, answer.history[0].status_code) == (404, 401)
        for response in (answer, *answer.history):
            with pytest.raises(requests.HTTPError, match=r"/v1/things\?page=2&access_token=<redacted>"):
                response.raise_for_status()
    assert [asked.path.partition("&")[0] for asked in api.asked] == ["/v1/things?page=2"] * 2
    shape = used(store)[0]["shape"]
    assert f"{api.url}/v1/things" in shape
    assert '["access_token", "page"]' in shape


def test_an_error_on_the_way_quotes_no_address_that_holds_the_token(guarded, store, resource):
    with ResourceServer(lambda asked: Told()) as gone:
        pass
    with (
        GuardedSession(guarded.conn_id, placement=Query()) as session,
        pytest.raises(requests.ConnectionError) as raised,
    ):
        session.get(gone.url, timeout=10)
    assert token_of(store, guarded) not in str(raised.value)
    assert "refused" in str(raised.value)
    assert raised.value.__suppress_context__


def test_of_a_refusal_that_is_long_only_its_beginning_is_kept(guarded, store, resource):
    token = token_of(store, guarded)
    api = resource(
        lambda asked: (
            Told(401, INVALID_TOKEN, b"x" * 3_000_000)
            if asked.headers["authorization"] == f"Bearer {token}"
            else Told()
        )
    )
    with GuardedSession(guarded.conn_id) as session:
        assert session.get(api.url, timeout=10).status_code == 200
    assert len(used(store)[0]["body"]) <= 2_000
