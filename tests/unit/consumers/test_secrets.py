"""The secrets backend, asked by Airflow itself, with the real store and the real authorization server behind it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="a secrets backend is asked by Airflow")

import aiohttp
import greenback
import tenacity
from airflow.exceptions import AirflowNotFoundException
from airflow.models.connection import Connection as ServersConnection
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.providers.http.hooks.http import HttpAsyncHook, HttpHook
from airflow.sdk import BaseHook, Variable
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import MaskSecret
from airflow.secrets import BaseSecretsBackend
from asgiref.sync import sync_to_async

from airflow_oauth_guard.consumers import refusals
from airflow_oauth_guard.consumers.refusals import ConnectionNotServedError, ConnectionUnusableError
from airflow_oauth_guard.consumers.secrets import GuardedSecretsBackend
from airflow_oauth_guard.errors import (
    ConfigurationError,
    ConnectionFieldError,
    CredentialUnusableError,
    OAuthGuardError,
    StoreUnavailableError,
)
from airflow_oauth_guard.hooks import config, patience
from tests.airflow_parts import PLANTED, expire, forget_backends, lapse, make_due, probe

pytestmark = pytest.mark.airflow

BACKEND = "airflow_oauth_guard.consumers.secrets.GuardedSecretsBackend"
LOCAL = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
SINCE_3_3 = refusals.AirflowSecretsBackendAccessDenied is not None


@pytest.fixture
def install(monkeypatch):
    def named(section: str = "WORKERS__SECRETS_BACKEND", **kwargs) -> None:
        monkeypatch.setenv(f"AIRFLOW__{section}", BACKEND)
        monkeypatch.setenv(f"AIRFLOW__{section}_KWARGS", json.dumps(kwargs))
        forget_backends()

    yield named
    forget_backends()


@pytest.fixture
def installed(install) -> None:
    install()


@pytest.fixture
def files(tmp_path, install):
    """Connections and variables in files, which an inner backend reads."""

    def written(connections: dict, variables: dict | None = None) -> None:
        for name, content in (("connections", connections), ("variables", variables or {})):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        paths = {f"{name}_file_path": str(tmp_path / f"{name}.json") for name in ("connections", "variables")}
        install(backend=LOCAL, backend_kwargs=paths)

    return written


@pytest.fixture
def theirs(connect, server):
    """An ordinary connection of somebody's pipeline."""

    def described(conn_id: str = "their_api", **fields) -> str:
        connect.describe(conn_id, {"conn_type": "http", "host": server.url, **fields})
        return conn_id

    return described


def bearer(conn_id: str) -> dict:
    return {"Authorization": f"Bearer {{oauth-guard:{conn_id}}}"}


def looked_up(conn_id: str, how: str):
    if how == "sync":
        return BaseHook.get_connection(conn_id)
    return asyncio.run(BaseHook.aget_connection(conn_id))


BOTH_WAYS = pytest.mark.parametrize("how", ["sync", "async"])


# -- a token in its place ---------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_the_fresh_token_stands_where_the_placeholder_was(how, connect, theirs, installed, store, server):
    guarded = connect()
    conn_id = theirs(password=f"{{oauth-guard:{guarded.conn_id}}}", login="token", port=443)
    served = looked_up(conn_id, how)
    assert served.password.startswith(PLANTED)
    assert probe(server, served.password) == 200
    assert (served.conn_id, served.conn_type, served.login, served.port) == (conn_id, "http", "token", 443)


@BOTH_WAYS
def test_a_token_that_is_due_is_refreshed_first(how, connect, theirs, installed, store, server):
    guarded = connect()
    conn_id = theirs(extra=bearer(guarded.conn_id))
    first = looked_up(conn_id, how).extra_dejson["Authorization"]
    asked = len(guarded.token_requests())
    assert looked_up(conn_id, how).extra_dejson["Authorization"] == first
    assert len(guarded.token_requests()) == asked, "a fresh token needs no refresh"
    make_due(store, guarded.conn_id)
    second = looked_up(conn_id, how).extra_dejson["Authorization"]
    assert second != first
    assert probe(server, second.removeprefix("Bearer ")) == 200
    assert len(guarded.token_requests()) == asked + 1


@BOTH_WAYS
def test_one_connection_may_ask_for_tokens_of_several_credentials(how, connect, theirs, installed, store, server):
    first, second = connect(), connect(suffix="_b")
    text = f"{{oauth-guard:{first.conn_id}}}/{{oauth-guard:{second.conn_id}}}/{{oauth-guard:{first.conn_id}}}"
    a, b, again = looked_up(theirs(extra={"deep": [{"pair": text}]}), how).extra_dejson["deep"][0]["pair"].split("/")
    assert a == again != b
    assert probe(server, a) == probe(server, b) == 200


@BOTH_WAYS
def test_a_connection_without_placeholders_is_what_it_was(how, theirs, installed):
    conn_id = theirs(password="p4ss", extra={"timeout": 5})
    with store_that(AssertionError("nobody needs the store")):
        served = looked_up(conn_id, how)
    assert (served.password, served.extra_dejson) == ("p4ss", {"timeout": 5})


@BOTH_WAYS
def test_a_connection_that_nobody_has_is_not_defined_as_before(how, installed):
    with pytest.raises(AirflowNotFoundException, match="isn't defined"):
        looked_up("nobody_has_it", how)


@BOTH_WAYS
@pytest.mark.parametrize("connection_class", ["refresh_token", "client_credentials", "jwt_bearer", "meta_exchange"])
def test_every_class_of_credential_will_do(how, connection_class, connect, theirs, installed, store, server):
    guarded = connect(connection_class)
    assert probe(server, looked_up(theirs(password=f"{{oauth-guard:{guarded.conn_id}}}"), how).password) == 200


# -- hooks that know nothing of us ------------------------------------------------------------------------------------


def test_the_http_hook_sends_the_fresh_token(connect, theirs, installed, store):
    guarded = connect()
    hook = HttpHook(method="GET", http_conn_id=theirs(extra=bearer(guarded.conn_id)))
    assert hook.run("/api/me").json()["id"] == "ada"
    make_due(store, guarded.conn_id)
    assert hook.run("/api/me").status_code == 200, "the hook looks its connection up for each request"


def test_the_asynchronous_http_hook_sends_the_fresh_token(connect, theirs, installed, store):
    guarded = connect()
    conn_id = theirs(extra=bearer(guarded.conn_id))

    async def get() -> dict:
        async with aiohttp.ClientSession() as session:
            answer = await HttpAsyncHook(method="GET", http_conn_id=conn_id).run(session, "/api/me")
            return await answer.json()

    assert asyncio.run(get())["id"] == "ada"


class WarehouseHook(DbApiHook):
    """Somebody's hook for a database that takes a token for a password."""

    conn_name_attr = "warehouse_conn_id"

    def get_conn(self):
        found = self.get_connection(self.get_conn_id())
        return {"user": found.login, "password": found.password, "role": found.extra_dejson["role"]}


def test_a_database_hook_logs_in_with_the_fresh_token(connect, theirs, installed, store, server):
    guarded = connect()
    conn_id = theirs(login="ada", password=f"{{oauth-guard:{guarded.conn_id}}}", extra={"role": "reader"})
    opened = WarehouseHook(warehouse_conn_id=conn_id).get_conn()
    assert (opened["user"], opened["role"]) == ("ada", "reader")
    assert probe(server, opened["password"]) == 200


@pytest.mark.parametrize(
    ("conn_type", "fields", "read"),
    [
        ("slack", {"password": "{}"}, lambda found: found.password),
        ("databricks", {"host": "https://dbc.example", "password": "{}"}, lambda found: found.password),
        (
            "databricks",
            {"host": "https://dbc.example", "extra": {"token": "{}"}},
            lambda found: found.extra_dejson["token"],
        ),
        ("trino", {"extra": {"auth": "jwt", "jwt__token": "{}"}}, lambda found: found.extra_dejson["jwt__token"]),
        ("own", {"extra": {"headers": {"X-Token": "{}"}}}, lambda found: found.extra_dejson["headers"]["X-Token"]),
    ],
    ids=["Slack", "Databricks", "Databricks, extra", "Trino", "a header further down"],
)
def test_a_connection_has_the_shape_that_its_hook_reads(
    conn_type, fields, read, connect, theirs, installed, store, server
):
    guarded = connect()
    marked = json.loads(json.dumps(fields).replace("{}", f"{{oauth-guard:{guarded.conn_id}}}"))
    served = BaseHook.get_connection(theirs(**{"conn_type": conn_type, **marked}))
    assert served.conn_type == conn_type
    assert served.login is None, "with one, the Databricks hook would take the token for its password"
    assert probe(server, read(served)) == 200


# -- an inner backend -------------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_the_inner_backend_is_asked_before_airflows_own(how, connect, theirs, files, store, server):
    guarded = connect()
    theirs("shared_api", password="from the environment")
    files({"shared_api": {"conn_type": "http", "password": f"{{oauth-guard:{guarded.conn_id}}}"}})
    assert probe(server, looked_up("shared_api", how).password) == 200
    assert looked_up(theirs("other_api", password="p4ss"), how).password == "p4ss", "the environment has this one"


@BOTH_WAYS
def test_a_credential_may_live_in_the_inner_backend_too(how, connect, theirs, files, store, server, monkeypatch):
    guarded = connect()
    monkeypatch.delenv(f"AIRFLOW_CONN_{guarded.conn_id.upper()}")
    files({guarded.conn_id: guarded.description})
    assert probe(server, looked_up(theirs(password=f"{{oauth-guard:{guarded.conn_id}}}"), how).password) == 200


def test_variables_and_options_are_the_inner_backends(files, install):
    files({}, {"colour": "green"})
    assert Variable.get("colour") == "green"
    backend = GuardedSecretsBackend()
    assert backend.get_variable("colour") is None
    assert backend.get_config("sql_alchemy_conn") is None
    assert GuardedSecretsBackend(LOCAL).get_config("sql_alchemy_conn") is None


class OfATeam(BaseSecretsBackend):
    """A backend of Airflow 3.2, which knows of teams."""

    def get_connection(self, conn_id, team_name=None):
        return f"{conn_id} of {team_name}"

    def get_variable(self, key, team_name=None):
        return f"{key} of {team_name}"


class Older(BaseSecretsBackend):
    """One from before."""

    def get_connection(self, conn_id):
        return conn_id

    def get_variable(self, key):
        return key


def test_teams_are_told_to_backends_that_know_of_them(monkeypatch):
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    for inner, expected in ((OfATeam, "crm of ads"), (Older, "crm")):
        backend = GuardedSecretsBackend(f"{__name__}.{inner.__name__}")
        assert backend.get_connection("crm", team_name="ads") == expected
        assert backend.get_variable("crm", team_name="ads") == expected
    assert GuardedSecretsBackend(f"{__name__}.Older").get_connection("crm") == "crm"


class Broken(BaseSecretsBackend):
    """A vault that is sealed."""

    def __init__(self, **kwargs) -> None:
        if kwargs:
            raise ValueError(f"no such option: {kwargs}")

    def get_connection(self, conn_id):
        raise RuntimeError("sealed; asked with token s.planted-vault-token")


@BOTH_WAYS
def test_a_broken_inner_backend_does_not_hide_the_others(how, connect, theirs, install, store, server, caplog):
    """As in Airflow's own chain; but what it says may hold its secret, and is not logged."""
    install(backend=f"{__name__}.Broken")
    guarded = connect()
    with caplog.at_level(logging.DEBUG):
        served = looked_up(theirs(password=f"{{oauth-guard:{guarded.conn_id}}}"), how)
    assert probe(server, served.password) == 200
    assert "Broken could not look up connection" in caplog.text
    assert "planted-vault-token" not in caplog.text


def test_a_misspelt_inner_backend_stops_everything():
    with pytest.raises(ModuleNotFoundError):
        GuardedSecretsBackend("airflow.secrets.nowhere.Backend")
    with pytest.raises(ConfigurationError, match="`backend_kwargs` and no `backend`"):
        GuardedSecretsBackend(backend_kwargs={"url": "x"})


def test_an_inner_backend_that_cannot_be_made_is_a_refusal_for_every_connection(theirs, install):
    install(backend=f"{__name__}.Broken", backend_kwargs={"oops": 1})
    with pytest.raises(ConnectionNotServedError, match="ValueError"):
        BaseHook.get_connection(theirs(password="p4ss"))


# -- refusals ---------------------------------------------------------------------------------------------------------


@contextmanager
def store_that(raises: Exception) -> Iterator[None]:
    """Nobody waits for it to come back."""

    def opened(*args) -> None:
        raise raises

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "_open", opened)
        patch.setitem(patience.PATIENCE, "stop", tenacity.stop_after_delay(0))
        yield


def let_it_end(store, guarded) -> None:
    """The token's life ends, after whatever was seen of it."""
    make_due(store, guarded.conn_id, life_left=timedelta(seconds=0.05))
    time.sleep(0.1)


def refused(conn_id: str, how: str) -> ConnectionNotServedError:
    with pytest.raises(ConnectionNotServedError) as info:
        looked_up(conn_id, how)
    assert f"Connection `{conn_id}` cannot be used: " in str(info.value)
    assert PLANTED not in str(info.value)
    return info.value


@BOTH_WAYS
def test_an_expired_credential_is_a_refusal_that_says_so(how, connect, theirs, installed, store, server):
    guarded = connect()
    conn_id = theirs(password=f"{{oauth-guard:{guarded.conn_id}}}")
    guarded.enrolled(store)
    server.revoke(guarded.conn_id)
    proof = expire(store, guarded.conn_id)
    said = refused(conn_id, how)
    assert isinstance(said, ConnectionUnusableError)
    assert isinstance(said.__cause__, CredentialUnusableError)
    for part in (f"Credential `{guarded.conn_id}` is expired", f"Evidence {proof}", "Reconnect it"):
        assert part in str(said)


@BOTH_WAYS
def test_a_lapsed_credential_is_one_too(how, connect, theirs, installed, store, server):
    guarded = connect()
    conn_id = theirs(password=f"{{oauth-guard:{guarded.conn_id}}}")
    looked_up(conn_id, how)
    server.revoke(guarded.conn_id)
    lapse(store, guarded.conn_id)
    said = refused(conn_id, how)
    assert isinstance(said, ConnectionUnusableError)
    assert "is lapsed" in str(said)


@BOTH_WAYS
def test_a_revoked_grant_is_one_when_the_token_has_no_life_left(how, connect, theirs, installed, store, server):
    guarded = connect()
    conn_id = theirs(password=f"{{oauth-guard:{guarded.conn_id}}}")
    looked_up(conn_id, how)
    server.revoke(guarded.conn_id)
    let_it_end(store, guarded)
    said = refused(conn_id, how)
    assert isinstance(said, ConnectionUnusableError)
    assert "no access token with life left. The last refresh: " in str(said)


@BOTH_WAYS
def test_a_malformed_refresh_is_one_that_quotes_the_answer(how, connect, theirs, installed, store, server):
    """The incident: the request is wrong, the grant is fine, and nobody may read this as no data."""
    guarded = connect()
    conn_id = theirs(password=f"{{oauth-guard:{guarded.conn_id}}}")
    looked_up(conn_id, how)
    server.revoke(guarded.conn_id, grant=False)
    let_it_end(store, guarded)
    guarded.fault(status=400, body={"error": "unsupported_grant_type"})
    said = refused(conn_id, how)
    assert "unsupported_grant_type" in str(said)
    assert "Nothing is known against its grant" in str(said)


@BOTH_WAYS
def test_a_store_that_is_gone_is_a_refusal_of_another_kind(how, connect, theirs, installed, store):
    """No credential is at fault."""
    guarded = connect()
    conn_id = theirs(password=f"{{oauth-guard:{guarded.conn_id}}}")
    looked_up(conn_id, how)
    with store_that(StoreUnavailableError("The store cannot be reached.")):
        said = refused(conn_id, how)
    assert not isinstance(said, ConnectionUnusableError)
    assert isinstance(said.__cause__, StoreUnavailableError)
    assert "The store cannot be reached" in str(said)


@BOTH_WAYS
def test_a_credential_that_does_not_exist_is_a_refusal(how, theirs, installed, store):
    said = refused(theirs(password="{oauth-guard:nobody_has_it}"), how)
    assert "there is no connection of that name" in str(said)
    assert isinstance(said.__cause__, ConfigurationError)


@BOTH_WAYS
def test_a_connection_that_asks_for_its_own_token_is_a_refusal_and_no_loop(how, theirs, installed, store):
    said = refused(theirs(password="{oauth-guard:their_api}"), how)
    assert "`http`, which is no OAuth Guard class" in str(said)


@BOTH_WAYS
def test_a_miswritten_placeholder_is_a_refusal(how, theirs, installed):
    said = refused(theirs(extra={"Authorization": "Bearer oauth-guard:crm"}), how)
    assert isinstance(said.__cause__, ConnectionFieldError)
    assert "field `extra`" in str(said)


@BOTH_WAYS
def test_an_error_that_nobody_foresaw_is_a_refusal_without_its_text(how, connect, theirs, installed):
    conn_id = theirs(password=f"{{oauth-guard:{connect().conn_id}}}")
    with store_that(RuntimeError("postgresql://ada:planted-password@db")):
        assert "RuntimeError" in str(refused(conn_id, how))


@pytest.mark.skipif(not SINCE_3_3, reason="Airflow 3.1 lets only what is no Exception through")
def test_a_refusal_is_an_error_of_ours_and_one_that_airflow_lets_through():
    assert issubclass(ConnectionNotServedError, OAuthGuardError)
    assert issubclass(ConnectionUnusableError, CredentialUnusableError)
    assert not issubclass(ConnectionNotServedError, CredentialUnusableError)
    assert issubclass(ConnectionNotServedError, refusals.AirflowSecretsBackendAccessDenied)


@pytest.mark.skipif(SINCE_3_3, reason="later ones have an error for it")
def test_a_refusal_is_no_exception_where_airflow_swallows_them_all():
    assert not issubclass(ConnectionNotServedError, Exception)
    assert issubclass(ConnectionUnusableError, ConnectionNotServedError)


class Denying(BaseSecretsBackend):
    def get_connection(self, conn_id):
        assert refusals.AirflowSecretsBackendAccessDenied is not None
        raise refusals.AirflowSecretsBackendAccessDenied("not for you")


@pytest.mark.skipif(not SINCE_3_3, reason="Airflow 3.1 knows no such thing")
def test_who_is_denied_access_gets_no_connection_from_elsewhere(theirs, install):
    install(backend=f"{__name__}.Denying")
    with pytest.raises(refusals.AirflowSecretsBackendAccessDenied, match="not for you"):
        BaseHook.get_connection(theirs(password="p4ss"))


# -- what a token is had with -----------------------------------------------------------------------------------------


@BOTH_WAYS
def test_guarded_connections_are_handed_on_as_they_are(how, connect, installed):
    guarded = connect(scope="{oauth-guard:oops")
    assert looked_up(guarded.conn_id, how).extra_dejson["scope"] == "{oauth-guard:oops"


@BOTH_WAYS
def test_the_stores_own_connection_is_handed_on_as_it_is(how, connect, theirs, installed, store, server, monkeypatch):
    """It is looked up by way of this very backend, in the middle of looking another one up."""
    guarded = connect()
    path = str(store.database.engine.url.database)
    connect.describe("guard_store", {"conn_type": "sqlite", "host": path, "password": "{oauth-guard:guard_store}"})
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__STORE_CONN_ID", "guard_store")
    assert looked_up("guard_store", how).password == "{oauth-guard:guard_store}"
    assert probe(server, looked_up(theirs(password=f"{{oauth-guard:{guarded.conn_id}}}"), how).password) == 200


# -- where it runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["SECRETS__BACKEND", "WORKERS__SECRETS_BACKEND"])
def test_airflows_servers_hand_a_connection_on_as_it_is(section, theirs, install, monkeypatch):
    """They show it to people, or give it to a worker, which asks for the token itself."""
    install(section)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    conn_id = theirs(password="{oauth-guard:crm_prod}", extra={"a": "{oauth-guard:oops"})
    assert BaseHook.get_connection(conn_id).password == "{oauth-guard:crm_prod}"
    assert ServersConnection.get_connection_from_secrets(conn_id).password == "{oauth-guard:crm_prod}"


def test_it_works_as_the_backend_of_every_process_too(connect, theirs, install, store, server):
    install("SECRETS__BACKEND")
    guarded = connect()
    assert probe(server, BaseHook.get_connection(theirs(password=f"{{oauth-guard:{guarded.conn_id}}}")).password) == 200


def test_a_synchronous_look_up_in_a_tasks_own_event_loop_is_answered(connect, theirs, installed, store, server):
    """A task that is asynchronous itself calls a hook that is not."""
    guarded = connect()
    conn_id = theirs(password=f"{{oauth-guard:{guarded.conn_id}}}")

    async def task() -> str:
        return BaseHook.get_connection(conn_id).password

    assert probe(server, asyncio.run(task())) == 200
    make_due(store, guarded.conn_id)
    assert probe(server, asyncio.run(task())) == 200, "with a refresh in between"


@pytest.fixture
def in_a_triggerer(monkeypatch):
    """As in the process that runs triggers; its supervisor answers nothing. What it is told is the fixture's value."""
    from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder

    told = []

    class Comms(TriggerCommsDecoder):
        async def asend(self, msg):
            told.append(msg)

    comms = Comms(socket=None, async_writer=None, async_reader=None)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    return told


async def _in_the_loop(conn_id: str):
    await greenback.ensure_portal()
    return BaseHook.get_connection(conn_id)


async def _in_the_shared_thread(conn_id: str):
    return await sync_to_async(BaseHook.get_connection)(conn_id)


async def _awaited(conn_id: str):
    return await BaseHook.aget_connection(conn_id)


@pytest.mark.parametrize("look_up", [_in_the_loop, _in_the_shared_thread, _awaited])
@pytest.mark.usefixtures("in_a_triggerer")
def test_a_trigger_gets_its_token_however_it_asks(look_up, connect, theirs, installed, store, server):
    """Neither hangs: each way ends in the one loop that may talk to the supervisor."""
    guarded = connect()
    conn_id = theirs(password=f"{{oauth-guard:{guarded.conn_id}}}")

    async def trigger():
        return await asyncio.wait_for(look_up(conn_id), timeout=30)

    assert probe(server, asyncio.run(trigger()).password) == 200
    make_due(store, guarded.conn_id)
    assert probe(server, asyncio.run(trigger()).password) == 200


@pytest.mark.parametrize("look_up", [_in_the_loop, _in_the_shared_thread, _awaited])
@pytest.mark.usefixtures("in_a_triggerer")
def test_a_trigger_hears_a_refusal_however_it_asks(look_up, connect, theirs, installed, store, server):
    guarded = connect()
    conn_id = theirs(password=f"{{oauth-guard:{guarded.conn_id}}}")
    guarded.enrolled(store)
    server.revoke(guarded.conn_id)
    expire(store, guarded.conn_id)
    with pytest.raises(ConnectionUnusableError, match="is expired"):
        asyncio.run(look_up(conn_id))


def test_the_supervisor_that_writes_a_triggers_log_is_told_what_to_mask(
    in_a_triggerer, connect, theirs, installed, store
):
    """Airflow masks an extra as one text there; before 3.3 it does not even do that."""
    conn_id = theirs(extra={"deep": {"x": f"v1 {{oauth-guard:{connect().conn_id}}}"}})
    token = looked_up(conn_id, "async").extra_dejson["deep"]["x"].removeprefix("v1 ")
    assert token in [msg.value for msg in in_a_triggerer if isinstance(msg, MaskSecret)]


# -- secrets ----------------------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_no_token_is_logged_and_airflow_masks_it_wherever_it_stood(how, connect, theirs, installed, store, caplog):
    guarded = connect()
    conn_id = theirs(extra={"deep": [{"x": f"v1 {{oauth-guard:{guarded.conn_id}}}"}]})
    with caplog.at_level(logging.DEBUG):
        token = looked_up(conn_id, how).extra_dejson["deep"][0]["x"].removeprefix("v1 ")
    assert token.startswith(PLANTED)
    assert PLANTED not in caplog.text
    from airflow.sdk._shared.secrets_masker import redact

    assert redact(f"sent {token} away") == "sent *** away"
