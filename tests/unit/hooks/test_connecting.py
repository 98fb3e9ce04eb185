"""A person approves, and what that brings goes into the store: against the real server and a real store."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow.sdk import BaseHook

from airflow_oauth_guard.domain.answers import NoAnswer
from airflow_oauth_guard.domain.evidence import Finding, Kind, Observer, Subject, Verdict
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import (
    AuthorizationRefusedError,
    ConnectionFieldError,
    LeaseLostError,
    NeedsAPersonError,
    StoreUnavailableError,
)
from airflow_oauth_guard.grants import authorization_code
from airflow_oauth_guard.hooks import base, connecting, renewing, second_place
from airflow_oauth_guard.hooks.connecting import (
    KEPT,
    NONE_CAME,
    Connected,
    Pending,
    begin_code,
    begin_device,
    connect_device,
    finish_code,
    poll_device,
    ways_to_connect,
)
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.hooks.registry import hook_for
from tests.airflow_parts import (
    CALLBACK,
    HOUR,
    PLANTED,
    RECIPES,
    Guarded,
    expire,
    incident_about,
    make_due,
    nothing_secret_is_kept,
    probe,
    question_of,
    rows,
    run,
    utcnow,
)

pytestmark = pytest.mark.airflow

ADA = Observer(task_id="OAuth Guard page", person="ada")
ROTATING = {"rotation": True, "reuse_detection": True}


@pytest.fixture(autouse=True)
def verifiers(monkeypatch) -> list[str]:
    """Those that were made, which a search finds."""
    made: list[str] = []

    def new_verifier() -> str:
        made.append(f"{PLANTED}verifier-{len(made):043}")
        return made[-1]

    monkeypatch.setattr(authorization_code, "new_verifier", new_verifier)
    return made


@pytest.fixture
def approvable(connect) -> Any:
    """A connection that a person can connect in a browser."""

    def made(**how: Any) -> Guarded:
        return connect(redirect_uri=CALLBACK, **how)

    return made


def begun(store, guarded: Guarded, state: str = "state-1") -> str:
    return begin_code(guarded.hook(), store, CALLBACK, state, ADA, utcnow())


def approved(guarded: Guarded, url: str) -> str:
    """The code that the person comes back with."""
    return dict(parse_qsl(urlsplit(guarded.server.approve(url)).query))["code"]


def finished(store, guarded: Guarded, code: str, state: str = "state-1", **more: Any) -> Connected:
    authorization = store.authorizations.take(state, "ada", utcnow())
    hook = guarded.hook()
    return hook.run(finish_code(hook, store, authorization, code, ADA, **more))


def reconnected(store, guarded: Guarded, state: str = "state-1") -> Connected:
    return finished(store, guarded, approved(guarded, begun(store, guarded, state)), state)


def connects(store, guarded: Guarded) -> list[dict[str, Any]]:
    """The evidence of what was exchanged."""
    return [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == Kind.CONNECT.value]


def everything(store, guarded: Guarded) -> tuple[Any, ...]:
    """All that an exchange might change, but for the evidence and the journal."""
    credential = replace(guarded.credential(store), leased_until=None)
    names = ("transitions", "incidents", "investigations")
    return (credential, store.credentials.tokens(credential), *(rows(store, f"oauth_guard_{name}") for name in names))


# -- in a browser -----------------------------------------------------------------------------------------------------


def test_an_expired_credential_is_active_again_by_the_evidence_of_the_exchange(approvable, store, server):
    guarded = approvable(client=ROTATING)
    guarded.enrolled(store)
    server.revoke(guarded.conn_id)
    expire(store, guarded.conn_id)
    incident_about(store, guarded.conn_id, IncidentKind.GRANT_DEAD)
    assert guarded.credential(store).status is Status.EXPIRED
    came = reconnected(store, guarded)
    assert (came.credential.status, came.credential.generation) == (Status.ACTIVE, 2)
    assert came.notes == ()
    evidence = came.evidence
    assert (evidence.kind, evidence.subject, evidence.finding) == (Kind.CONNECT, Subject.GRANT, Finding.LIVE)
    assert (evidence.verdict, str(evidence.observer)) == (Verdict.LIVE, "ada (OAuth Guard page)")
    assert evidence.shape is not None
    assert evidence.shape.grant_type == "authorization_code"
    last = store.credentials.transitions(came.credential)[-1]
    assert (last["from_status"], last["to_status"], last["evidence_id"]) == ("expired", "active", evidence.id)
    assert guarded.incident(store) is None
    assert "false_expiry" not in {row["kind"] for row in rows(store, "oauth_guard_incidents")}
    tokens = store.credentials.tokens(came.credential)
    assert probe(server, tokens.access_token) == 200
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert guarded.hook().get_token() != tokens.access_token


def test_a_connection_that_never_had_tokens_gets_its_first(approvable, store, server):
    guarded = approvable(seeded=False)
    came = reconnected(store, guarded)
    assert (came.credential.generation, came.credential.status) == (1, Status.ACTIVE)
    assert probe(server, guarded.hook().get_token()) == 200
    assert came.credential.life.remaining(utcnow()) > timedelta(minutes=59)


def test_the_new_token_is_probed_while_the_person_is_there(approvable, store):
    guarded = approvable()
    reconnected(store, guarded)
    seen = store.credentials.latest_evidence(guarded.credential(store), Kind.PROBE)
    assert (seen.verdict, seen.generation, seen.observer.person) == (Verdict.LIVE, 2, "ada")


def test_a_probe_that_does_not_take_the_new_token_is_said_and_does_not_undo_it(approvable, store, caplog):
    guarded = approvable()
    url = begun(store, guarded)
    guarded.fault(status=403, body={"error": "insufficient_scope"}, on="resource")
    came = finished(store, guarded, approved(guarded, url))
    assert came.credential.status is Status.ACTIVE
    [note] = came.notes
    assert note.startswith("Its probe does not accept the new token: HTTP 403")
    assert "refuses its new token" in caplog.text


def test_a_probe_that_cannot_be_tried_is_logged_and_no_more(approvable, store, monkeypatch, caplog):
    guarded = approvable()

    async def broken(*args: Any, **how: Any) -> None:
        raise StoreUnavailableError("The store cannot be used now.")

    monkeypatch.setattr(base.OAuthGuardHook, "probe", broken)
    assert reconnected(store, guarded).notes == ()
    assert "could not be tried out" in caplog.text


def test_who_is_sent_no_refresh_token_keeps_the_one_from_before_and_hears_of_it(approvable, store):
    guarded = approvable(client={"grant_types": ("authorization_code",)}, mint={"with_refresh": True})
    held = guarded.minted.refresh_token
    came = reconnected(store, guarded)
    assert came.notes == (KEPT,)
    assert store.credentials.tokens(came.credential).refresh_token == held


def test_where_there_is_no_refresh_token_at_all_it_is_said_that_it_ends(approvable, store):
    guarded = approvable(client={"grant_types": ("authorization_code",)}, seeded=False)
    assert reconnected(store, guarded).notes == (NONE_CAME,)


def test_an_approval_counts_for_ten_minutes(approvable, store):
    guarded = approvable()
    code = approved(guarded, begun(store, guarded))
    with pytest.raises(AuthorizationRefusedError, match="is over since"):
        store.authorizations.take("state-1", "ada", utcnow() + timedelta(minutes=10))
    assert store.authorizations.find("state-1", "ada", utcnow() + timedelta(minutes=9)) is not None
    assert finished(store, guarded, code).credential.generation == 2


def test_the_address_asks_for_what_the_connection_and_its_preset_say(connect, store, server):
    params = connect.preset("approver")
    guarded = connect(
        redirect_uri=CALLBACK, provider="approver", provider_params=params, authorization_url=None, scopes="read"
    )
    url = begun(store, guarded)
    sent = dict(parse_qsl(urlsplit(url).query))
    assert url.startswith(f"{server.authorization_url}?")
    assert (sent["access_type"], sent["scope"], sent["redirect_uri"]) == ("offline", "read", CALLBACK)
    assert guarded.enrolled(store).provider == "approver"
    assert finished(store, guarded, approved(guarded, url)).credential.provider == "approver"


# -- refused ----------------------------------------------------------------------------------------------------------


def refused(store, guarded: Guarded, code: str, state: str = "state-1") -> str:
    """What the person is told; nothing has changed but that it was tried."""
    before = everything(store, guarded)
    with pytest.raises(NeedsAPersonError) as told:
        finished(store, guarded, code, state)
    assert everything(store, guarded) == before
    assert not guarded.credential(store).is_leased(utcnow())
    return str(told.value)


def test_a_code_the_provider_does_not_know_changes_nothing_and_is_no_word_against_the_grant(approvable, store):
    guarded = approvable(client=ROTATING)
    guarded.enrolled(store)
    begun(store, guarded)
    said = refused(store, guarded, f"{PLANTED}made-up")
    assert said.startswith(f"`{guarded.conn_id}` is not connected: HTTP 400: the provider says `invalid_grant`")
    [seen] = connects(store, guarded)
    assert (seen["subject"], seen["finding"], seen["verdict"]) == ("request", "unknown", "open")
    assert seen["rule"] == "approval_refused"
    assert guarded.refresh(store).outcome is Refreshed.RENEWED, "the stored token was not even shown to it"


def test_a_code_that_belongs_to_another_state_is_refused_for_its_verifier(approvable, store):
    guarded = approvable()
    theirs = approved(guarded, begun(store, guarded, "state-theirs"))
    begun(store, guarded)
    assert "Code challenge failed" in refused(store, guarded, theirs)


def test_a_replayed_code_brings_nothing(approvable, store, server):
    guarded = approvable()
    code = approved(guarded, begun(store, guarded))
    assert finished(store, guarded, code).credential.generation == 2
    begun(store, guarded, "state-2")
    refused(store, guarded, code, "state-2")
    assert not server.truth(guarded.conn_id).grant_live, "the provider ends what a copied code has brought"
    make_due(store, guarded.conn_id)
    question_of(store, guarded)
    assert guarded.credential(store).status is Status.ACTIVE, "which the guard finds out on evidence of its own"


def test_a_state_is_good_once(approvable, store):
    guarded = approvable()
    code = approved(guarded, begun(store, guarded))
    finished(store, guarded, code)
    with pytest.raises(AuthorizationRefusedError, match="was used already"):
        finished(store, guarded, code)


def test_an_outage_while_it_is_exchanged_changes_nothing(approvable, store):
    guarded = approvable()
    guarded.enrolled(store)
    code = approved(guarded, begun(store, guarded))
    guarded.fault(status=503)
    assert "HTTP 503" in refused(store, guarded, code)
    assert connects(store, guarded)[0]["subject"] == "provider"


def test_an_app_that_the_provider_refuses_is_said_to_be_the_app(approvable, store, connect):
    guarded = approvable()
    code = approved(guarded, begun(store, guarded))
    guarded.server.change_client(guarded.conn_id, client_secret="another")
    assert "invalid_client" in refused(store, guarded, code)
    assert connects(store, guarded)[0]["subject"] == "client"


@pytest.mark.rfc("9207", "2.4")
def test_an_answer_of_another_provider_is_not_exchanged(approvable, store):
    guarded = approvable()
    code = approved(guarded, begun(store, guarded))
    guarded.server.clear_requests()
    with pytest.raises(AuthorizationRefusedError, match=r"comes from 'https://evil\.example'"):
        finished(store, guarded, code, issuer="https://evil.example")
    assert guarded.token_requests() == []
    code = approved(guarded, begun(store, guarded, "state-2"))
    assert finished(store, guarded, code, "state-2", issuer=guarded.server.url).credential.generation == 2


def test_an_authorization_is_for_one_credential_only(approvable, connect, store):
    guarded = approvable()
    begun(store, guarded)
    other = connect.sibling(guarded, "_other")
    authorization = store.authorizations.take("state-1", "ada", utcnow())
    hook = other.hook()
    for flow in (
        finish_code(hook, store, authorization, "code", ADA),
        poll_device(hook, store, authorization, ADA),
    ):
        with pytest.raises(AuthorizationRefusedError, match=f"is for `{guarded.conn_id}`, not for `{other.conn_id}`"):
            hook.run(flow)


# -- what cannot be connected -----------------------------------------------------------------------------------------


def test_without_an_address_the_field_is_named(connect, store):
    guarded = connect()
    with pytest.raises(ConnectionFieldError, match="field `authorization_url` is empty, and no preset says it"):
        begun(store, guarded)
    assert rows(store, "oauth_guard_authorizations") == []


@pytest.mark.parametrize("connection_class", sorted(RECIPES.keys() - {"refresh_token"}))
def test_a_class_that_nobody_approves_for_says_so(connect, store, connection_class):
    guarded = connect(connection_class)
    assert ways_to_connect(guarded.hook()) == ()
    with pytest.raises(ConnectionFieldError, match=f"is `oauth_guard_{connection_class}`"):
        begun(store, guarded)
    with pytest.raises(ConnectionFieldError, match=f"is `oauth_guard_{connection_class}`"):
        run(begin_device(guarded.hook(), store, "state", ADA))


def test_the_ways_to_connect_are_those_that_are_known(connect):
    approver = connect.preset("approver")
    assert ways_to_connect(connect().hook()) == ()
    assert ways_to_connect(connect(redirect_uri=CALLBACK).hook()) == ("code",)
    named = connect(provider="approver", provider_params=approver)
    assert ways_to_connect(named.hook()) == ("code", "device")


@pytest.mark.parametrize("wrong", [{"provider": "nobody"}, {"client_auth": "guess"}, {"unknown": "x"}], ids=str)
def test_a_connection_that_cannot_be_read_has_no_way_and_says_why_when_it_is_tried(connect, store, wrong):
    guarded = connect(redirect_uri=CALLBACK)
    connect.change(guarded, **wrong)
    assert ways_to_connect(hook_for(BaseHook.get_connection(guarded.conn_id))) == ()


# -- one at a time ----------------------------------------------------------------------------------------------------


def test_it_waits_for_whoever_is_refreshing_it(approvable, store):
    guarded = approvable(client=ROTATING)
    guarded.enrolled(store)
    code = approved(guarded, begun(store, guarded))
    lease = store.credentials.lease(guarded.conn_id, "another process", HOUR, utcnow())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(finished, store, guarded, code)
        time.sleep(0.4)
        assert not waiting.done()
        assert guarded.token_requests() == []
        store.credentials.release(lease)
        assert waiting.result(timeout=20).credential.generation == 2


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__REQUEST_DEADLINE_SECONDS", "1")
    monkeypatch.setattr(renewing, "WAIT_OVER_DEADLINE", timedelta())


@pytest.mark.usefixtures("impatient")
def test_who_never_gets_the_lease_sends_nothing_and_says_so(approvable, store):
    guarded = approvable()
    guarded.enrolled(store)
    code = approved(guarded, begun(store, guarded))
    store.credentials.lease(guarded.conn_id, "hangs", HOUR, utcnow())
    with pytest.raises(LeaseLostError, match=r"has been refreshing it for 1 s\. Nothing was sent"):
        finished(store, guarded, code)
    assert guarded.token_requests() == []


def test_a_credential_whose_refresh_was_lost_is_whole_again(approvable, store, monkeypatch):
    """Its refresh token may be spent, which holds it; the one that the person brings is another."""
    guarded, real = approvable(client=ROTATING), base.send
    guarded.enrolled(store)

    async def lossy(request: Any, *, deadline: timedelta) -> Any:
        await real(request, deadline=deadline)
        return NoAnswer("the exchange broke off (ReadError)", maybe_processed=True, received_at=utcnow())

    with monkeypatch.context() as losing:
        losing.setattr(base, "send", lossy)
        assert guarded.refresh(store).evidence.subject is Subject.PROVIDER
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    assert guarded.refresh(store).outcome is Refreshed.HELD
    assert store.credentials.has_lost_answer(guarded.credential(store), utcnow())
    came = reconnected(store, guarded)
    assert (came.credential.generation, came.credential.failures) == (2, 0)
    assert not store.credentials.has_lost_answer(came.credential, utcnow())
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert guarded.credential(store).generation == 3


def test_a_refused_exchange_leaves_a_lost_refresh_as_it_was(approvable, store):
    guarded = approvable(client=ROTATING)
    guarded.enrolled(store)
    lease = store.credentials.lease(guarded.conn_id, "dies", timedelta(milliseconds=1), utcnow())
    store.credentials.open_intent(lease, lease.tokens.refresh_token, lease.credential.leased_until)
    begun(store, guarded)
    refused(store, guarded, f"{PLANTED}made-up")
    assert guarded.refresh(store).evidence.finding is Finding.AMBIGUOUS


def test_tokens_that_somebody_put_in_meanwhile_are_not_overwritten(approvable, store, monkeypatch):
    guarded, real = approvable(), base.send
    guarded.enrolled(store)
    code = approved(guarded, begun(store, guarded))

    async def meanwhile(request: Any, *, deadline: timedelta) -> Any:
        answer = await real(request, deadline=deadline)
        if request.method == "POST":
            news = replace(guarded.hook().enrollment(), access_token=f"{PLANTED}other", refresh_token=f"{PLANTED}r")
            store.credentials.import_tokens(news, utcnow(), ADA)
        return answer

    monkeypatch.setattr(base, "send", meanwhile)
    with pytest.raises(NeedsAPersonError, match="somebody has put other tokens in meanwhile"):
        finished(store, guarded, code)
    assert store.credentials.tokens(guarded.credential(store)).access_token == f"{PLANTED}other"


# -- nothing is lost --------------------------------------------------------------------------------------------------


def dies(monkeypatch, store, step: str) -> None:
    """The process ends before this step of the store."""

    def killed(*args: Any, **how: Any) -> None:
        raise SystemError("killed")

    monkeypatch.setattr(store.credentials, step, killed)


def test_tokens_that_were_kept_before_the_process_died_are_taken_in_by_the_next_refresh(
    approvable, store, monkeypatch, server
):
    guarded = approvable(client=ROTATING)
    guarded.enrolled(store)
    code = approved(guarded, begun(store, guarded))
    with monkeypatch.context() as dying:
        dies(dying, store, "renew")
        with pytest.raises(SystemError):
            finished(store, guarded, code)
    assert guarded.credential(store).generation == 1
    nothing_secret_is_kept(store, guarded.secrets)
    result = guarded.refresh(store)
    assert (result.outcome, guarded.credential(store).generation) == (Refreshed.RENEWED, 2)
    assert [seen.grant_type for seen in guarded.token_requests()] == ["authorization_code"]
    assert result.evidence is not None
    assert (result.evidence.kind, result.evidence.verdict) == (Kind.CONNECT, Verdict.LIVE)
    assert result.evidence.shape is None, "a refresh of ours has not succeeded"
    assert probe(server, store.credentials.tokens(guarded.credential(store)).access_token) == 200
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED


@pytest.mark.parametrize("client", [{}, ROTATING], ids=["", "rotating"])
def test_a_refusal_that_was_kept_before_the_process_died_is_no_word_against_the_grant(
    approvable, store, monkeypatch, client
):
    guarded = approvable(client=client)
    guarded.enrolled(store)
    begun(store, guarded)
    with monkeypatch.context() as dying:
        dies(dying, store, "refuse_exchange")
        with pytest.raises(SystemError):
            finished(store, guarded, f"{PLANTED}made-up")
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert [seen.grant_type for seen in guarded.token_requests()] == ["authorization_code", "refresh_token"]
    assert {row["outcome"] for row in rows(store, "oauth_guard_intents")} == {"refused", "renewed"}
    assert rows(store, "oauth_guard_investigations") == []


@pytest.mark.parametrize("client", [{}, ROTATING], ids=["", "rotating"])
def test_an_exchange_of_which_nobody_heard_again_costs_the_refresh_token_nothing(
    approvable, store, monkeypatch, client
):
    guarded = approvable(client=client)
    guarded.enrolled(store)
    code = approved(guarded, begun(store, guarded))

    async def killed(request: Any, *, deadline: timedelta) -> Any:
        raise SystemError("killed")

    with monkeypatch.context() as dying:
        dying.setattr(base, "send", killed)
        with pytest.raises(SystemError):
            finished(store, guarded, code)
    assert not store.credentials.has_lost_answer(guarded.credential(store), utcnow())
    assert guarded.refresh(store).outcome is Refreshed.RENEWED


def test_an_exchange_that_is_cancelled_on_its_way_is_stored_all_the_same(approvable, store, monkeypatch):
    """The person closes the page: the provider has issued tokens, and may have ended those from before."""
    guarded, real = approvable(client=ROTATING), base.send
    guarded.enrolled(store)
    code = approved(guarded, begun(store, guarded))
    authorization = store.authorizations.take("state-1", "ada", utcnow())

    sent = threading.Event()

    async def slow(request: Any, *, deadline: timedelta) -> Any:
        answer = await real(request, deadline=deadline)
        sent.set()
        await asyncio.sleep(0.3)
        return answer

    async def cancelled() -> None:
        task = asyncio.ensure_future(finish_code(guarded.hook(), store, authorization, code, ADA))
        await asyncio.to_thread(sent.wait, 20)
        task.cancel()
        await task

    monkeypatch.setattr(base, "send", slow)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    assert guarded.credential(store).generation == 2
    assert not guarded.credential(store).is_leased(utcnow())


@pytest.fixture
def variables(monkeypatch) -> Iterator[dict[str, str]]:
    """Airflow's Variables, in memory."""
    held: dict[str, str] = {}

    async def put(variable: str, sealed: str) -> None:
        held[variable] = sealed

    async def look(variable: str) -> str | None:
        return held.get(variable)

    async def clear(variable: str) -> None:
        held.pop(variable, None)

    for function in (put, look, clear):
        monkeypatch.setattr(second_place, function.__name__, function)
    return held


def test_tokens_that_the_store_could_not_take_come_back_from_the_second_place(
    approvable, store, monkeypatch, variables
):
    guarded = approvable(client=ROTATING)
    guarded.enrolled(store)
    code = approved(guarded, begun(store, guarded))

    def gone(*args: Any) -> None:
        raise StoreUnavailableError("The store cannot be used now.")

    with monkeypatch.context() as away:
        away.setattr(store.credentials, "keep_answer", gone)
        with pytest.raises(StoreUnavailableError):
            finished(store, guarded, code)
    [sealed] = variables.values()
    assert PLANTED not in sealed
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert (guarded.credential(store).generation, variables) == (2, {})
    assert [seen.grant_type for seen in guarded.token_requests()] == ["authorization_code"]


# -- nobody sees a secret ---------------------------------------------------------------------------------------------


def test_nothing_of_the_exchange_is_seen_anywhere(approvable, store, caplog, verifiers):
    caplog.set_level("DEBUG")
    guarded = approvable(client=ROTATING)
    url = begun(store, guarded)
    assert PLANTED not in url
    code = approved(guarded, url)
    assert code.startswith(PLANTED)
    came = finished(store, guarded, code)
    held = store.credentials.tokens(came.credential)
    begun(store, guarded, "state-2")
    found = store.authorizations.find("state-2", "ada", utcnow())
    secrets = (code, held.access_token, held.refresh_token, *verifiers, *guarded.secrets)
    # A provider that repeats whatever it was sent, and more.
    echoed = {"error": "invalid_grant", "error_description": f"{code} {verifiers[1]}", "debug": " ".join(secrets)}
    guarded.fault(status=400, body=echoed, times=1)
    with pytest.raises(NeedsAPersonError) as told:
        finished(store, guarded, code, "state-2")
    for shown in (repr(came), repr(told.value), repr(found), str(rows(store, "oauth_guard_evidence")), caplog.text):
        assert [secret for secret in secrets if secret in shown] == []
    nothing_secret_is_kept(store, (*secrets, "state-2"))


def test_what_is_kept_of_an_authorization_is_out_of_sight(approvable, store):
    guarded = approvable()
    begun(store, guarded)
    found = store.authorizations.find("state-1", "ada", utcnow())
    assert json.loads(found.secret).keys() == {"verifier", "redirect_uri"}
    assert PLANTED not in repr(found)
    nothing_secret_is_kept(store, ("state-1",))


# -- on another device ------------------------------------------------------------------------------------------------


@pytest.fixture
def device(connect) -> Guarded:
    """A connection whose provider offers the device flow."""
    return connect(
        redirect_uri=CALLBACK,
        client=ROTATING,
        provider="approver",
        provider_params=connect.preset("approver"),
    )


def asked(store, guarded: Guarded, waited: timedelta = timedelta()) -> Connected | Pending:
    authorization = store.authorizations.find("state-d", "ada", utcnow())
    return run(poll_device(guarded.hook(), store, authorization, ADA, waited=waited))


def test_a_device_is_connected_once_the_person_has_approved(device, store, server):
    invited = run(begin_device(device.hook(), store, "state-d", ADA))
    assert invited.verification_uri == f"{server.url}/device"
    assert (invited.device_code, invited.interval) == ("", timedelta(seconds=1))
    before = everything(store, device)
    assert asked(store, device) == Pending(timedelta(seconds=1))
    assert everything(store, device) == before
    assert connects(store, device) == [], "that nobody has answered yet is nothing to keep"
    server.approve_device(invited.user_code)
    came = asked(store, device)
    assert isinstance(came, Connected)
    assert (came.credential.generation, came.evidence.kind) == (2, Kind.CONNECT)
    assert came.evidence.shape.grant_type.endswith("device_code")
    assert {row["outcome"] for row in rows(store, "oauth_guard_intents")} == {"refused", "renewed"}
    nothing_secret_is_kept(store, device.secrets)


def test_a_provider_that_wants_to_be_asked_less_often_is(device, store):
    run(begin_device(device.hook(), store, "state-d", ADA))
    assert asked(store, device) == Pending(timedelta(seconds=1))
    slower = asked(store, device)
    assert slower == Pending(timedelta(seconds=6))
    assert asked(store, device, waited=slower.after) == Pending(timedelta(seconds=11)), "it was asked at once"


def test_a_person_who_denies_changes_nothing(device, store, server):
    invited = run(begin_device(device.hook(), store, "state-d", ADA))
    server.approve_device(invited.user_code, deny=True)
    before = everything(store, device)
    with pytest.raises(NeedsAPersonError, match="access_denied"):
        asked(store, device)
    assert everything(store, device) == before


def test_a_provider_that_invites_nobody_says_why(device, store):
    device.server.fault("status", path="/oauth/device", status=400, body={"error": "invalid_client"})
    with pytest.raises(NeedsAPersonError, match=r"is not connected: .*invalid_client"):
        run(begin_device(device.hook(), store, "state-d", ADA))
    assert rows(store, "oauth_guard_authorizations") == []


@pytest.mark.usefixtures("impatient")
def test_while_somebody_else_refreshes_it_nobody_is_asked(device, store):
    run(begin_device(device.hook(), store, "state-d", ADA))
    store.credentials.lease(device.conn_id, "hangs", HOUR, utcnow())
    device.server.clear_requests()
    assert asked(store, device) == Pending(timedelta(seconds=1))
    assert device.token_requests() == []


def test_without_the_endpoint_the_device_flow_says_what_to_do_instead(connect, store):
    guarded = connect(redirect_uri=CALLBACK)
    with pytest.raises(ConnectionFieldError, match="names no provider whose preset has the endpoint"):
        run(begin_device(guarded.hook(), store, "state-d", ADA))


def test_from_a_terminal_it_waits_until_the_person_has_approved(device, store, server):
    shown = []

    def invite(invitation: Any) -> None:
        shown.append(invitation)
        threading.Timer(1.5, server.approve_device, [invitation.user_code]).start()

    came = run(connect_device(device.hook(), store, ADA, invite))
    assert (came.credential.generation, came.credential.status) == (2, Status.ACTIVE)
    assert [invitation.device_code for invitation in shown] == [""]
    assert [seen.error for seen in device.token_requests()] == ["authorization_pending", None]


def test_from_a_terminal_it_gives_up_in_time(device, store, monkeypatch):
    real = connecting.device_code.invitation

    def hasty(*args: Any) -> Any:
        return replace(real(*args), expires_in=timedelta(seconds=1.5))

    monkeypatch.setattr(connecting.device_code, "invitation", hasty)
    with pytest.raises(NeedsAPersonError, match="nobody approved it in time"):
        run(connect_device(device.hook(), store, ADA, lambda invitation: None))
    assert rows(store, "oauth_guard_credentials") == [] or device.credential(store).generation == 1
