"""The official HTTP provider with a guarded credential: its real hook, operator, sensor and trigger against real servers."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")
pytest.importorskip("airflow.providers.http", reason="the HTTP provider is optional")

from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.http.hooks.http import HttpAsyncHook, HttpHook
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.providers.http.triggers.http import HttpTrigger, deserialize_auth_type, serialize_auth_type

from airflow_oauth_guard.consumers.http import GuardedHttpAuth
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError, CredentialUnusableError
from airflow_oauth_guard.hooks.placement import Header
from airflow_oauth_guard.hooks.session import GuardedAuth
from tests.airflow_parts import make_due, run, task_context
from tests.resource_server import ResourceServer, Told

pytestmark = pytest.mark.airflow


class VendorAuth(GuardedHttpAuth):
    placement = Header("X-Vendor-Token", "{access_token}")


@pytest.fixture
def guarded(connect, store):
    one = connect()
    one.refresh(store)
    make_due(store, one.conn_id, life_left=timedelta(minutes=50))
    return one


@pytest.fixture
def http(guarded, server, monkeypatch):
    """The HTTP connection whose login names the credential."""

    def describe(**fields):
        described = {"conn_type": "http", "host": server.url, "login": guarded.conn_id, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_CRM_HTTP", json.dumps(described))
        return "crm_http"

    server.set_rows(guarded.conn_id, 3)
    describe()
    return describe


def token_of(store, guarded):
    return store.credentials.tokens(guarded.credential(store)).access_token


def operator(**details):
    given = {"endpoint": "/api/rows", "method": "GET", "http_conn_id": "crm_http", "auth_type": GuardedHttpAuth}
    return HttpOperator(task_id="load", **{**given, **details})


def read(response):
    return len(response.json()["rows"])


# -- hook and operator ------------------------------------------------------------------------------------------------


def test_the_hook_bears_the_token_of_the_credential_that_the_login_names(http):
    assert read(HttpHook("GET", "crm_http", auth_type=GuardedHttpAuth).run("/api/rows")) == 3


def test_an_operator_goes_on_where_its_token_is_refused_between_two_pages(http, guarded, server, store):
    server.clear_requests()
    pages = []

    def another_page(response):
        pages.append(read(response))
        if len(pages) == 2:
            server.revoke(guarded.conn_id, grant=False)
        return {"endpoint": "/api/rows"} if len(pages) < 4 else None

    load = operator(pagination_function=another_page, response_filter=lambda answers: sum(map(read, answers)))
    assert load.execute(task_context()) == 12
    assert len(guarded.token_requests()) == 1
    assert guarded.credential(store).status is Status.ACTIVE


def test_an_operator_whose_credential_cannot_be_renewed_fails_with_the_reason(http, guarded, server):
    server.revoke(guarded.conn_id)
    with pytest.raises(CredentialUnusableError, match=rf"`{guarded.conn_id}`.*invalid_token.*invalid_grant"):
        operator().execute(task_context())


def test_a_subclass_says_where_the_token_goes(http, guarded, store):
    with ResourceServer(lambda asked: Told()) as api:
        http(host=api.url)
        operator(auth_type=VendorAuth).execute(task_context())
    assert [asked.headers.get("x-vendor-token") for asked in api.asked] == [token_of(store, guarded)]
    assert "authorization" not in api.asked[0].headers


def test_the_class_travels_by_its_name():
    for auth_type in (GuardedHttpAuth, VendorAuth):
        assert deserialize_auth_type(serialize_auth_type(auth_type)) is auth_type


def test_a_connection_without_a_login_is_told_what_to_write_there(http):
    http(login=None)
    with pytest.raises(
        ConfigurationError, match="write the id of an OAuth Guard connection into the HTTP connection's login"
    ):
        operator().execute(task_context())


def test_a_login_that_names_a_connection_of_another_type_is_told_so(http):
    http(login="crm_http")
    with pytest.raises(ConfigurationError, match="`crm_http` has type `http`, which is no OAuth Guard class"):
        operator().execute(task_context())


# -- in an event loop -------------------------------------------------------------------------------------------------


def test_a_deferred_operator_fails_with_the_next_step_and_sends_nothing(http, guarded, server):
    server.clear_requests()
    load = operator(deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        load.execute(task_context())
    _, arguments = deferred.value.trigger.serialize()

    payload = run(anext(HttpTrigger(**arguments).run())).payload
    assert payload["status"] == "error"
    assert f"Put {{oauth-guard:{guarded.conn_id}}} into the HTTP connection's headers" in payload["message"]
    assert server.requests() == []


def test_the_asynchronous_hook_is_refused_too(http, server):
    server.clear_requests()
    hook = HttpAsyncHook("GET", "crm_http", auth_type=GuardedHttpAuth)
    with pytest.raises(ConfigurationError, match="cannot be used in an event loop"):
        run(hook.run(endpoint="/api/rows"))
    assert server.requests() == []


def test_the_hook_in_a_thread_of_a_loop_is_none_of_that(http):
    async def loads():
        return await asyncio.to_thread(HttpHook("GET", "crm_http", auth_type=GuardedHttpAuth).run, "/api/rows")

    assert read(run(loads())) == 3


# -- where the connection's login is for something else ---------------------------------------------------------------


def test_a_sensor_takes_it_as_part_of_its_request(http, guarded, server):
    http(login=None)
    seen = []
    wait = HttpSensor(
        task_id="wait",
        endpoint="/api/rows",
        http_conn_id="crm_http",
        request_kwargs={"auth": GuardedAuth(guarded.conn_id)},
        response_check=lambda response: bool(seen.append(read(response)) or seen),
    )
    server.revoke(guarded.conn_id, grant=False)
    assert wait.poke(task_context())
    assert seen == [3]


def test_an_operator_takes_it_as_part_of_its_request(http, guarded):
    http(login="ada", password="of-a-proxy")
    load = operator(auth_type=None, request_kwargs={"auth": GuardedAuth(guarded.conn_id)}, response_filter=read)
    assert load.execute(task_context()) == 3
