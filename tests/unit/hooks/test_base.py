"""Every connection class against the real authorization server and a real store."""

from __future__ import annotations

import json
from datetime import timedelta
from email.utils import format_datetime

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow.sdk import Connection

from airflow_oauth_guard.domain.evidence import Finding, Kind, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError, ConnectionFieldError, CredentialUnusableError
from airflow_oauth_guard.hooks import renewing
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.hooks.registry import get_hook, hook_for, hook_of_class
from airflow_oauth_guard.metadata import connection_types
from airflow_oauth_guard.store.records import Enrollment
from tests.airflow_parts import (
    HOUR,
    JWKS,
    PEM,
    PLANTED,
    RECIPES,
    WHO,
    expire,
    lapse,
    make_due,
    nothing_secret_is_kept,
    probe,
    utcnow,
)

pytestmark = pytest.mark.airflow

CLASSES = sorted(RECIPES)
HOOKS = {name: hook_of_class(name, Connection(conn_id="none")) for name in CLASSES}
ASKING = [name for name in CLASSES if RECIPES[name].asks]
NEEDS_A_TOKEN_URL = [name for name in ASKING if not (HOOKS[name].grant_class.own_provider({}) or RECIPES[name].presets)]


def test_every_connection_class_is_tested_here():
    assert {f"oauth_guard_{name}" for name in CLASSES} == set(connection_types())


# -- a refresh that succeeds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connection_class", CLASSES)
def test_a_refresh_stores_a_new_generation_and_evidence_of_life(connection_class, connect, store, server):
    guarded = connect(connection_class)
    before = guarded.enrolled(store)
    result = guarded.refresh(store)
    after = guarded.credential(store)
    assert result.outcome is Refreshed.RENEWED, result
    assert after.generation == before.generation + 1
    assert result.evidence is not None
    assert (result.evidence.subject, result.evidence.verdict) == (Subject.GRANT, Verdict.LIVE)
    token, recipe = store.credentials.tokens(after).access_token, RECIPES[connection_class]
    assert token != ""
    assert (token == guarded.minted.access_token) is not recipe.asks, "what nobody can renew stays as it is"
    assert probe(server, token) == 200
    assert recipe.lifetime - timedelta(minutes=2) < after.life.remaining(utcnow()) <= recipe.lifetime
    nothing_secret_is_kept(store, guarded.secrets)


@pytest.mark.parametrize("connection_class", CLASSES)
def test_a_class_sends_its_own_grant_type_and_no_other(connection_class, connect, store):
    guarded = connect(connection_class)
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "unsupported_grant_type"})
    guarded.refresh(store)
    recipe, sent = RECIPES[connection_class], guarded.token_requests()
    assert [seen.grant_type for seen in sent] == [recipe.grant_type or None] * (2 if recipe.asks else 0)
    assert {seen.client_id for seen in guarded.server.requests()} == {guarded.conn_id}


def test_threads_is_asked_with_its_own_grant_type(connect, store, server):
    guarded = connect(
        "instagram_refresh",
        client={"grant_types": ("th_refresh_token",)},
        token_url=server.threads_url,
        product="threads",
    )
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert [(seen.grant_type, seen.method) for seen in guarded.token_requests()] == [("th_refresh_token", "GET")]


@pytest.mark.parametrize(
    ("method", "client", "fields"),
    [
        ("client_secret_basic", {}, {}),
        ("client_secret_post", {}, {"client_auth": "client_secret_post"}),
        ("client_secret_post", {}, {"client_auth": "client_secret_post", "body_format": "json"}),
        (
            "private_key_jwt",
            {"jwks": JWKS, "client_secret": None},
            {"client_auth": "private_key_jwt", "private_key": PEM},
        ),
        (
            "private_key_jwt",
            {"jwks": JWKS, "client_secret": None},
            {"client_auth": "private_key_jwt", "private_key": PEM.replace("\n", "\\n")},
        ),
        ("client_secret_jwt", {}, {"client_auth": "client_secret_jwt"}),
        ("none", {"client_secret": None}, {"client_auth": "none"}),
    ],
    ids=[
        *("basic", "post", "post in JSON", "private key", "private key on one line", "secret as key"),
        "public client",
    ],
)
@pytest.mark.parametrize(
    "connection_class",
    [
        *("refresh_token", "client_credentials", "password", "account_credentials", "token_exchange", "saml2_bearer"),
    ],
)
def test_every_way_to_authenticate_a_client_works(connection_class, method, client, fields, connect, store):
    if (connection_class, method) == ("client_credentials", "none"):
        pytest.skip("a public client has no credentials to trade (RFC 6749 section 4.4)")
    password = "" if client else None
    guarded = connect(
        connection_class, client={"token_endpoint_auth_method": method, **client}, password=password, **fields
    )
    result = guarded.refresh(store)
    assert result.outcome is Refreshed.RENEWED, result
    nothing_secret_is_kept(store, guarded.secrets)


def test_a_rotated_refresh_token_is_stored_and_works_next_time(connect, store, server):
    guarded = connect(client={"rotation": True, "reuse_detection": True})
    for generation in (2, 3, 4):
        if generation > 2:
            make_due(store, guarded.conn_id)
        assert guarded.refresh(store).outcome is Refreshed.RENEWED
        assert guarded.credential(store).generation == generation
    assert store.credentials.tokens(guarded.credential(store)).refresh_token != guarded.minted.refresh_token
    assert server.truth(guarded.conn_id).grant_live


def test_a_refresh_token_that_does_not_rotate_is_kept(connect, store):
    guarded = connect(rotation=False)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert store.credentials.tokens(guarded.credential(store)).refresh_token == guarded.minted.refresh_token


def test_a_fresh_token_is_not_refreshed(connect, store):
    guarded = connect()
    guarded.refresh(store)
    assert guarded.refresh(store).outcome is Refreshed.FRESH
    assert len(guarded.token_requests()) == 1


def test_a_leased_credential_is_left_to_the_one_who_refreshes_it(connect, store, monkeypatch):
    monkeypatch.setattr(renewing, "WAIT_OVER_DEADLINE", timedelta(0))
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__REQUEST_DEADLINE_SECONDS", "0.5")
    guarded = connect()
    guarded.enrolled(store)
    assert store.credentials.lease(guarded.conn_id, "another worker", HOUR, utcnow())
    assert guarded.refresh(store).outcome is Refreshed.BUSY
    assert guarded.token_requests() == []


def test_an_expired_credential_that_answers_is_restored_and_the_false_expiry_recorded(connect, store):
    guarded = connect()
    guarded.enrolled(store)
    expire(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert guarded.credential(store).status is Status.ACTIVE
    kinds = [incident.kind.value for incident in store.incidents.history(About.CREDENTIAL, guarded.conn_id)]
    assert "false_expiry" in kinds
    assert guarded.incident(store) is None


def test_a_refresh_token_newly_put_into_the_connection_reconnects_it(connect, store, server):
    guarded = connect()
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    assert guarded.refresh(store).outcome is Refreshed.FAILED
    minted = server.mint(guarded.conn_id)
    connect.change(guarded, refresh_token=minted.refresh_token, access_token=minted.access_token)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert server.truth(guarded.conn_id).access_token_live


# -- a refresh that fails ---------------------------------------------------------------------------------------------

FAILURES = {
    "invalid_grant": ({"status": 400, "body": {"error": "invalid_grant"}}, Finding.GRANT_DEAD),
    "invalid_request": ({"status": 400, "body": {"error": "invalid_request"}}, Finding.REQUEST_MALFORMED),
    "invalid_client": ({"status": 401, "body": {"error": "invalid_client"}}, Finding.CLIENT_MISCONFIGURED),
    "503": ({"status": 503, "body": "down for maintenance"}, Finding.PROVIDER_OUTAGE),
    "429": ({"status": 429, "headers": {"Retry-After": "7200"}}, Finding.RATE_LIMITED),
    "html": ({"kind": "html"}, Finding.UNKNOWN),
    "truncated": ({"kind": "truncated"}, Finding.PROVIDER_OUTAGE),
    "empty 200": ({"kind": "empty_200"}, Finding.UNKNOWN),
    "an error that says 200": ({"kind": "error_200"}, Finding.UNKNOWN),
    "redirect": ({"kind": "redirect", "url": "https://elsewhere.example/token?code=1"}, Finding.UNKNOWN),
}


def reads(connection_class: str, failure: str, finding: Finding) -> Finding | None:
    """What a class takes this failure for; None where providers mean different things by it."""
    grant = HOOKS[connection_class].grant_class
    if connection_class == "long_lived_token" and failure in ("invalid_grant", "invalid_client"):
        # A resource does not speak of grants.
        return None
    if failure == "an error that says 200":
        return None
    return grant.rejected_means if finding is Finding.GRANT_DEAD and not grant.sends else finding


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("connection_class", CLASSES)
def test_a_failing_refresh_changes_no_status_and_keeps_the_tokens(connection_class, failure, connect, store):
    guarded = connect(connection_class)
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    before, tokens = guarded.credential(store), store.credentials.tokens(guarded.credential(store))
    fault, finding = FAILURES[failure]
    guarded.fault(**fault)
    result = guarded.refresh(store)
    after = guarded.credential(store)
    assert result.outcome is Refreshed.FAILED
    assert (after.status, after.status_since, after.generation) == (
        Status.ACTIVE,
        before.status_since,
        before.generation,
    )
    assert store.credentials.tokens(after) == tokens
    assert store.credentials.transitions(after) == []
    assert (after.failures, after.waits(utcnow())) == (1, True)
    seen = store.credentials.latest_evidence(after, Kind.REFRESH)
    assert seen is not None
    assert seen.verdict is Verdict.OPEN
    assert (expected := reads(connection_class, failure, finding)) in (seen.finding, None), (seen.reading, expected)
    assert seen.finding is not Finding.LIVE
    assert seen.shape is not None
    assert seen.shape.grant_type == RECIPES[connection_class].grant_type
    assert seen.observer == WHO
    nothing_secret_is_kept(store, guarded.secrets)


@pytest.mark.parametrize("connection_class", CLASSES)
def test_a_provider_that_repeats_our_secrets_does_not_get_them_into_the_evidence(connection_class, connect, store):
    guarded = connect(connection_class)
    guarded.enrolled(store)
    secrets = "; ".join(guarded.secrets)
    guarded.fault(
        status=400,
        body={"error": "invalid_grant", "error_description": f"bad: {secrets}", "request": {"sent": secrets}},
        headers={"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{guarded.secrets[0]}"'},
    )
    result = guarded.refresh(store)
    assert result.outcome is Refreshed.FAILED
    assert not any(secret in f"{result}" for secret in guarded.secrets)
    nothing_secret_is_kept(store, guarded.secrets)


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_providers_retry_after_is_honoured(status, form, connect, store):
    guarded = connect()
    retry_after = "7200" if form == "seconds" else format_datetime(utcnow() + timedelta(hours=2), usegmt=True)
    guarded.fault(status=status, headers={"Retry-After": retry_after})
    before = utcnow()
    guarded.refresh(store)
    attempt_after = guarded.credential(store).attempt_after
    assert attempt_after is not None
    assert timedelta(hours=1, minutes=59) <= attempt_after - before <= timedelta(hours=2, minutes=1)
    assert guarded.refresh(store).outcome is Refreshed.HELD
    assert len(guarded.token_requests()) == 1


def test_a_retry_after_of_seconds_does_not_shorten_our_own_back_off(connect, store):
    guarded = connect()
    guarded.fault(status=503, headers={"Retry-After": "1"})
    guarded.refresh(store)
    attempt_after = guarded.credential(store).attempt_after
    assert attempt_after is not None
    assert attempt_after > utcnow() + timedelta(minutes=4)


def test_without_a_token_to_send_nothing_is_sent_and_the_field_is_named(connect, store):
    guarded = connect(seeded=False)
    result = guarded.refresh(store)
    assert result.outcome is Refreshed.FAILED
    assert "`refresh_token`" in result.explanation
    assert guarded.token_requests() == []


def test_an_unanswered_rotating_refresh_is_not_repeated_while_the_token_lives(connect, store):
    """The provider may have spent the token: sending it again could end the family, live access token and all."""
    guarded = connect(client={"rotation": True})
    guarded.refresh(store)
    guarded.fault("truncated", times=1)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    assert guarded.refresh(store).outcome is Refreshed.FAILED
    sent = len(guarded.token_requests())
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=12))
    held = guarded.refresh(store)
    assert held.outcome is Refreshed.HELD
    assert "may have spent the refresh token" in held.explanation
    assert len(guarded.token_requests()) == sent
    make_due(store, guarded.conn_id, life_left=timedelta(seconds=-1))
    lives_on = guarded.refresh(store)
    assert lives_on.outcome is Refreshed.HELD, "a probe was answered"
    assert "beyond its predicted end" in lives_on.explanation
    guarded.server.revoke(guarded.conn_id, grant=False)
    make_due(store, guarded.conn_id, life_left=timedelta(seconds=-1))
    assert guarded.refresh(store).outcome is Refreshed.RENEWED


# -- the Test button --------------------------------------------------------------------------------------------------


def test_the_test_button_probes_a_live_token_and_refreshes_nothing(connect, store):
    guarded = connect()
    good, words = guarded.hook().test_connection()
    assert good, words
    assert [seen.path for seen in guarded.server.requests()] == ["/api/me"]
    assert store.credentials.roster() == []


def test_the_test_button_says_that_a_dead_token_is_dead(connect, store, server):
    guarded = connect()
    server.revoke(guarded.conn_id, grant=False)
    good, words = guarded.hook().test_connection()
    assert not good
    assert "invalid_token" in words
    assert guarded.token_requests() == []


def test_the_test_button_finds_the_newest_token_under_a_made_up_connection_id(connect, store, server):
    """Airflow tests an unsaved form under a random id; the seed in it says which credential is meant."""
    guarded = connect(client={"rotation": True})
    server.revoke(guarded.conn_id, grant=False)
    guarded.refresh(store)
    roster = store.credentials.roster()
    server.clear_requests()
    form = Connection(conn_id="a1b2c3", **{**guarded.description, "extra": json.dumps(guarded.description["extra"])})
    good, words = hook_for(form).test_connection()
    assert good, words
    assert [seen.path for seen in server.requests()] == ["/api/me"]
    assert store.credentials.roster() == roster


@pytest.mark.parametrize("connection_class", CLASSES)
def test_the_test_button_never_sends_a_token_request_whatever_the_class(connection_class, connect, store):
    guarded = connect(connection_class)
    _, before = guarded.hook().test_connection()
    guarded.refresh(store)
    sent = len(guarded.token_requests())
    good, after = guarded.hook().test_connection()
    assert good, after
    assert len(guarded.token_requests()) == sent == (1 if RECIPES[connection_class].asks else 0)
    assert not any(secret in before + after for secret in (PLANTED, *guarded.secrets))


def test_the_test_button_says_what_is_missing(connect, store):
    assert "probe_url" in connect(probe_url=None).hook().test_connection()[1]
    good, words = connect(seeded=False, suffix="_new").hook().test_connection()
    assert not good
    assert "no access token" in words
    bad = Connection(conn_id="bad", conn_type="oauth_guard_refresh_token", login="x")
    good, words = hook_for(bad).test_connection()
    assert not good
    assert "`token_url`" in words


@pytest.mark.parametrize("kind", ["hang", "html", "huge"])
def test_the_test_button_survives_what_a_provider_may_answer(kind, connect, store, server, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__REQUEST_DEADLINE_SECONDS", "0.3")
    guarded = connect()
    server.fault(kind, path="/api/me", seconds=1, megabytes=3)
    good, words = guarded.hook().test_connection()
    assert not good
    assert words.startswith("Probe: ")


# -- tokens for pipelines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connection_class", CLASSES)
def test_get_token_returns_a_fresh_token_and_keeps_it(connection_class, connect, store, server):
    guarded = connect(connection_class)
    token = guarded.hook().get_token()
    asks = RECIPES[connection_class].asks
    assert probe(server, token) == 200
    assert (token != guarded.minted.access_token) is asks
    assert guarded.hook().get_token() == token
    assert len(guarded.token_requests()) == (1 if asks else 0)


def test_get_conn_bears_the_token(connect, store, server):
    with connect().hook().get_conn() as session:
        session.trust_env = False
        assert session.get(server.rows_url, timeout=5).json()["rows"]


def test_get_token_returns_the_live_token_while_refreshing_fails(connect, store):
    guarded = connect()
    token = guarded.hook().get_token()
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=5))
    guarded.fault(status=400, body={"error": "invalid_grant"})
    assert guarded.hook().get_token() == token
    assert len(guarded.token_requests()) == 2


def test_a_lapsed_credential_hands_out_nothing_and_says_why(connect, store, server):
    guarded = connect()
    guarded.enrolled(store)
    proof = lapse(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_request"})
    with pytest.raises(CredentialUnusableError) as raised:
        guarded.hook().get_token()
    said = str(raised.value)
    assert f"`{guarded.conn_id}` is lapsed" in said
    assert f"Evidence {proof.id}: two probes were refused" in said
    assert "oauth_guard_refresh" in said


def test_an_expired_credential_hands_out_nothing_and_says_how_to_reconnect(connect, store, server):
    guarded = connect()
    guarded.enrolled(store)
    proof = expire(store, guarded.conn_id)
    server.revoke(guarded.conn_id)
    with pytest.raises(CredentialUnusableError) as raised:
        guarded.hook().get_token()
    said = str(raised.value)
    assert f"`{guarded.conn_id}` is expired" in said
    assert f"Evidence {proof}" in said
    assert "Reconnect it" in said
    assert guarded.minted.access_token not in said


def test_a_dead_grants_last_access_token_works_to_its_end_if_a_probe_says_so(connect, store, server):
    guarded = connect()
    token = guarded.hook().get_token()
    server.revoke(guarded.conn_id, access=False)
    expire(store, guarded.conn_id)
    hook = guarded.hook()
    assert hook.run(hook.probe(store, WHO)).verdict is Verdict.LIVE
    assert guarded.hook().get_token() == token
    assert guarded.credential(store).status is Status.EXPIRED


def test_a_token_whose_life_is_over_is_not_handed_out(connect, store):
    """It was probed when it was fresh; that says nothing about it after its predicted end."""
    guarded = connect()
    guarded.hook().get_token()
    assert store.credentials.latest_evidence(guarded.credential(store), Kind.PROBE).verdict is Verdict.LIVE
    make_due(store, guarded.conn_id, life_left=timedelta())
    guarded.fault(status=503)
    with pytest.raises(CredentialUnusableError) as raised:
        guarded.hook().get_token()
    said = str(raised.value)
    assert f"`{guarded.conn_id}` has no access token with life left" in said
    assert "HTTP 503" in said
    assert "keeps asking" in said


def test_a_token_that_a_probe_saw_alive_after_its_predicted_end_is_handed_out(connect, store):
    guarded = connect()
    token = guarded.hook().get_token()
    make_due(store, guarded.conn_id, life_left=timedelta())
    guarded.fault(status=503)
    hook = guarded.hook()
    hook.run(hook.probe(store, WHO))
    assert guarded.hook().get_token() == token


@pytest.mark.parametrize("failure", FAILURES)
def test_get_token_never_returns_an_empty_token(failure, connect, store):
    guarded = connect(access_token=None)
    guarded.fault(**FAILURES[failure][0])
    with pytest.raises(CredentialUnusableError, match=guarded.conn_id):
        guarded.hook().get_token()


def test_a_credential_without_any_token_is_unusable(connect, store):
    with pytest.raises(CredentialUnusableError, match="no access token"):
        connect(seeded=False).hook().get_token()


def test_tokens_imported_before_the_connection_was_seen_are_the_ones_used(connect, store, server):
    guarded = connect(seeded=False)
    imported = Enrollment(
        guarded.conn_id,
        "refresh_token",
        "",
        timedelta(minutes=10),
        access_token=guarded.minted.access_token,
        refresh_token=guarded.minted.refresh_token or "",
        expires_at=utcnow() + HOUR,
    )
    store.credentials.import_tokens(imported, utcnow(), WHO)
    assert guarded.hook().get_token() == guarded.minted.access_token
    assert guarded.token_requests() == []


# -- bad connections --------------------------------------------------------------------------------------------------


def test_an_unknown_connection_type_is_refused_by_name(connect):
    guarded = connect()
    connect.describe(guarded.conn_id, {**guarded.description, "conn_type": "http"})
    with pytest.raises(ConfigurationError, match=f"`{guarded.conn_id}` has type `http`.*oauth_guard_refresh_token"):
        get_hook(guarded.conn_id)


@pytest.mark.parametrize("connection_class", NEEDS_A_TOKEN_URL)
def test_a_missing_token_url_is_named(connection_class, connect, store):
    guarded = connect(connection_class, token_url="")
    with pytest.raises(ConnectionFieldError, match="`token_url`") as raised:
        get_hook(guarded.conn_id)
    assert (raised.value.conn_id, raised.value.field) == (guarded.conn_id, "token_url")
    assert store.credentials.roster() == []


@pytest.mark.parametrize("connection_class", CLASSES)
def test_plain_http_has_to_be_allowed(connection_class, connect):
    guarded = connect(connection_class, allow_http=None)
    with pytest.raises(ConnectionFieldError, match="http://") as raised:
        get_hook(guarded.conn_id)
    assert raised.value.field == ("token_url" if RECIPES[connection_class].asks else "probe_url")
    assert guarded.server.requests() == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"grant_type": "refresh_token"}, "grant_type"),
        ({"refresh_tokn": "typo"}, "refresh_tokn"),
        ({"client_auth": "private_key_jwt"}, "private_key"),
        ({"probe_url": "not a url"}, "probe_url"),
        ({"refresh_margin": "soon"}, "refresh_margin"),
        ({"expire_policy": "always"}, "expire_policy"),
        ({"rotation": "perhaps"}, "rotation"),
    ],
)
def test_a_wrong_field_is_one_clear_error(fields, field, connect):
    guarded = connect(**fields)
    with pytest.raises(ConnectionFieldError, match=f"`{field}`") as raised:
        get_hook(guarded.conn_id)
    assert raised.value.field == field
    assert not any(secret in str(raised.value) for secret in guarded.secrets)


def test_a_key_that_cannot_sign_is_an_error_about_the_field_and_is_not_shown(connect, store):
    guarded = connect("jwt_bearer", private_key=f"{PLANTED}no-key")
    with pytest.raises(ConnectionFieldError, match="`private_key`") as raised:
        guarded.refresh(store)
    assert PLANTED not in str(raised.value)


def test_a_bad_key_leaves_no_lease_behind(connect, store):
    guarded = connect("jwt_bearer", private_key=f"{PLANTED}no-key")
    with pytest.raises(ConnectionFieldError):
        guarded.refresh(store)
    connect.change(guarded, private_key=PEM)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
