"""The class check: the incident replayed at a provider that the catalog knows, against the real server."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow_oauth_guard.domain.evidence import Finding, Kind
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.hooks.config import get_catalog
from airflow_oauth_guard.hooks.declared import declared_form
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.hooks.registry import get_hook
from airflow_oauth_guard.operators.refresh import RefreshOperator
from tests.airflow_parts import (
    HERE,
    PEM,
    REAL,
    Guarded,
    looked_into,
    make_due,
    nothing_secret_is_kept,
    probe,
    question_of,
    rows,
    task_context,
    utcnow,
)

pytestmark = pytest.mark.airflow

TOKEN_URL = f"{HERE}/oauth/token"
REFRESH_ONLY = {"grants": {"refresh_token": {"token_url": TOKEN_URL, "rotation": False, "source": REAL}}}
POST_ONLY = {"grants": {"refresh_token": {"token_url": TOKEN_URL, "client_auth": "client_secret_post", "source": REAL}}}


def becomes(connect, guarded: Guarded, connection_class: str) -> Guarded:
    """Somebody, or one line of code for all, makes it a connection of another class."""
    own = ("refresh_token", "access_token")
    extra = {name: value for name, value in guarded.description["extra"].items() if name not in own}
    description = {**guarded.description, "conn_type": f"oauth_guard_{connection_class}", "extra": extra}
    connect.describe(guarded.conn_id, description)
    return Guarded(guarded.conn_id, connection_class, guarded.server, guarded.minted, description)


def the_incident(connect, store) -> Guarded:
    """One grant type for every connection: this one has a refresh token, and its provider looks at nothing else."""
    guarded = connect()
    connect.preset("refresh_only", REFRESH_ONLY)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    make_due(store, guarded.conn_id)
    return becomes(connect, guarded, "client_credentials")


def kinds(store, question: int) -> list[str]:
    return [item.kind.value for item in store.investigations.evidence(store.investigation(question))]


def test_the_incident_is_found_a_token_is_stored_and_nothing_is_lost(connect, store, server):
    guarded = the_incident(connect, store)
    question = question_of(store, guarded)
    assert looked_into(store, guarded, question).finding is Finding.LIVE
    credential = guarded.credential(store)
    assert probe(server, store.credentials.tokens(credential).access_token) == 200
    assert (credential.status, store.credentials.transitions(credential)) == (Status.ACTIVE, [])
    assert [seen.grant_type for seen in guarded.token_requests()] == [
        *("refresh_token", "client_credentials", "refresh_token")
    ]
    incident = guarded.incident(store)
    assert incident.kind is IncidentKind.REQUEST_MALFORMED
    assert "grant_type `refresh_token` instead of `client_credentials`" in incident.summary
    assert "Correct the connection" in incident.summary
    assert incident.needs_a_person(utcnow())
    assert guarded.hook().get_token() == store.credentials.tokens(credential).access_token
    nothing_secret_is_kept(store, guarded.secrets)


def test_the_incident_stays_open_and_the_tokens_fresh_however_long_nobody_helps(connect, store, server):
    guarded = the_incident(connect, store)
    opened = None
    for _ in range(5):
        make_due(store, guarded.conn_id)
        [question] = RefreshOperator(task_id="refresh", conn_ids=[guarded.conn_id]).execute(task_context())[
            "investigations"
        ]
        looked_into(store, guarded, question)
        incident = guarded.incident(store)
        opened = opened or incident.id
        assert (incident.id, incident.kind) == (opened, IncidentKind.REQUEST_MALFORMED)
        assert probe(server, store.credentials.tokens(guarded.credential(store)).access_token) == 200
    assert guarded.credential(store).status is Status.ACTIVE


def test_a_corrected_connection_resolves_it(connect, store):
    guarded = the_incident(connect, store)
    looked_into(store, guarded, question_of(store, guarded))
    make_due(store, guarded.conn_id)
    right = becomes(connect, guarded, "refresh_token")
    assert right.refresh(store).outcome is Refreshed.RENEWED
    assert right.incident(store) is None


@pytest.mark.parametrize("error", ["unsupported_grant_type", "invalid_request", "invalid_grant", "meta"])
def test_whatever_the_provider_calls_it_the_class_check_finds_it(error, connect, store, server):
    guarded = the_incident(connect, store)
    server.change_client(guarded.conn_id, wrong_grant_error=error)
    question = question_of(store, guarded)
    looked_into(store, guarded, question)
    assert guarded.incident(store).kind is IncidentKind.REQUEST_MALFORMED
    assert guarded.credential(store).generation == 3


def test_a_wrong_way_to_authenticate_is_found_the_same_way(connect, store, server):
    guarded = connect(client={"token_endpoint_auth_method": "client_secret_post"})
    connect.preset("post_only", POST_ONLY)
    question = question_of(store, guarded)
    looked_into(store, guarded, question)
    assert guarded.credential(store).generation == 2
    assert server.truth(guarded.conn_id).access_token_live
    incident = guarded.incident(store)
    assert "client authentication `client_secret_post` instead of `client_secret_basic`" in incident.summary


def test_a_declared_form_that_fails_as_well_is_told_in_the_alert_and_proves_nothing(connect, store, server):
    guarded = the_incident(connect, store)
    server.revoke(guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert conclusion.finding is Finding.REQUEST_MALFORMED
    assert kinds(store, question).count(Kind.CLASS_CHECK.value) == 1
    assert guarded.credential(store).status is not Status.EXPIRED
    [checked] = [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == "class_check"]
    assert checked["verdict"] == "open"


def test_a_form_that_has_worked_before_is_not_checked(connect, store, server):
    """The provider accepted it last time, so the catalog is the one who does not know everything."""
    guarded = connect()
    connect.preset("post_only", POST_ONLY)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    looked_into(store, guarded, question)
    assert Kind.CLASS_CHECK.value not in kinds(store, question)


def test_a_provider_nobody_knows_is_not_checked(connect, store):
    guarded = connect(client={"grant_types": ("fb_exchange_token",)}, mint={"with_refresh": True})
    question = question_of(store, guarded)
    looked_into(store, guarded, question)
    assert Kind.CLASS_CHECK.value not in kinds(store, question)
    assert guarded.incident(store).kind is IncidentKind.REQUEST_MALFORMED


def test_a_connection_without_what_the_declared_class_needs_is_not_of_that_class(connect, store):
    guarded = connect("client_credentials", client={"grant_types": ("refresh_token",)})
    connect.preset("refresh_only", REFRESH_ONLY)
    guarded.enrolled(store)
    tokens = store.credentials.tokens(guarded.credential(store))
    assert declared_form(guarded.hook(), tokens, utcnow()) is None, "there is no refresh token to send"


def test_a_key_that_cannot_sign_for_the_declared_class_does_not_end_the_investigation(connect, store):
    guarded = connect(client={"grant_types": ("password",)}, mint={"with_refresh": True}, private_key="no key")
    jwt = {"token_url": TOKEN_URL, "client_auth": "private_key_jwt", "source": REAL}
    connect.preset("signed_only", {"grants": {"client_credentials": jwt}})
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert conclusion.finding is Finding.REQUEST_MALFORMED
    assert PEM not in conclusion.explanation


def test_a_broken_file_of_another_provider_does_not_end_the_investigation(connect, store, caplog):
    guarded = the_incident(connect, store)
    connect.preset("broken", {"grants": {"refresh_token": {"token_url": "http://not.secure", "source": REAL}}})
    looked_into(store, guarded, question_of(store, guarded))
    assert guarded.credential(store).generation == 3
    assert "`broken`" in caplog.text


def test_a_provider_that_has_not_this_class_is_named_before_anything_is_sent(connect, store):
    guarded = connect("client_credentials", provider="refresh_only")
    params = connect.preset("refresh_only", REFRESH_ONLY)
    connect.change(guarded, provider_params=params)
    with pytest.raises(ConnectionFieldError) as raised:
        get_hook(guarded.conn_id)
    said = str(raised.value)
    assert (raised.value.conn_id, raised.value.field) == (guarded.conn_id, "provider")
    assert "issues no tokens to the class `client_credentials`" in said
    assert "change the connection's type to `oauth_guard_refresh_token`" in said
    assert guarded.server.requests() == []
    assert store.credentials.roster() == []


def test_the_catalog_finds_the_test_server_by_its_token_url(connect, server):
    connect.preset("refresh_only", REFRESH_ONLY)
    preset, params = get_catalog().by_token_url(server.token_url)
    assert (preset.name, params["scheme"]) == ("refresh_only", "http")
    assert get_catalog().by_token_url(f"{server.url}/elsewhere") is None
    assert not list(Path(__file__).parent.glob("*.yaml"))
