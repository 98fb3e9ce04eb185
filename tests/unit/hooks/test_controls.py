"""What one look cannot tell: introspection, siblings, the budget of controls, the baseline; against the real server."""

from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_oauth_guard.domain.evidence import Finding, Kind, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.investigation import CONTROLS_PER_DAY, Owner
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import NeedsAPersonError, UnprovenTransitionError
from airflow_oauth_guard.hooks.investigation import Patience, proves_death
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.operators.approval import ExpireApprovalOperator
from airflow_oauth_guard.operators.expire import ExpireOperator
from airflow_oauth_guard.operators.report import ReportOpenOperator, ReportOperator
from tests.airflow_parts import (
    HERE,
    HOUR,
    PATIENCE,
    REAL,
    WHO,
    Guarded,
    Recorder,
    looked_into,
    make_due,
    nothing_secret_is_kept,
    question_of,
    rows,
    task_context,
)

pytestmark = pytest.mark.airflow

REFUSED = {"status": 400, "body": {"error": "invalid_grant"}}


def kinds(store, question: int) -> list[str]:
    return [item.kind.value for item in store.investigations.evidence(store.investigation(question))]


def of_kind(store, kind: Kind) -> list[dict]:
    return [row for row in rows(store, "oauth_guard_evidence") if row["kind"] == kind.value]


# -- introspection ----------------------------------------------------------------------------------------------------


def introspected(connect, connection_class: str = "refresh_token", **changes) -> Guarded:
    """At a provider that tells what it thinks of a token."""
    document = {
        "grants": {connection_class: {"token_url": f"{HERE}/oauth/token", "rotation": False, "source": REAL}},
        "endpoints": {"introspection": {"url": f"{HERE}/oauth/introspect", "source": REAL}},
    }
    return connect(connection_class, provider="telling", provider_params=connect.preset("telling", document), **changes)


def test_an_active_refresh_token_blocks_a_death(connect, store, server):
    """The token endpoint says twice that the grant is dead, in a form that worked; its own books say it is not."""
    guarded = introspected(connect)
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(**REFUSED)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert Kind.INTROSPECTION.value in kinds(store, question)
    assert not proves_death(conclusion)
    assert any("active" in missing for missing in conclusion.missing)
    [asked] = [seen for seen in server.requests() if seen.path == "/oauth/introspect"]
    assert (asked.client_id, asked.status) == (guarded.conn_id, 200)
    assert asked.parameters == ["token", "token_type_hint"]
    nothing_secret_is_kept(store, guarded.secrets)


def test_an_inactive_refresh_token_does_not_prove_a_death_alone(connect, store, server):
    guarded = introspected(connect)
    server.revoke(guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    [told] = of_kind(store, Kind.INTROSPECTION)
    assert (told["finding"], told["verdict"], told["subject"]) == ("grant_dead", "open", "grant")
    assert not proves_death(conclusion), "this form of request has never succeeded"


def test_a_death_is_proven_where_introspection_agrees(connect, store, server):
    guarded = introspected(connect)
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    assert proves_death(looked_into(store, guarded, question_of(store, guarded)))


def test_an_introspection_that_answers_nothing_blocks_nothing(connect, store, server):
    guarded = introspected(connect)
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    server.fault("status", path="/oauth/introspect", status=503)
    make_due(store, guarded.conn_id)
    assert proves_death(looked_into(store, guarded, question_of(store, guarded)))


def test_an_access_token_that_the_provider_calls_inactive_lapses_and_no_grant_is_judged(connect, store, server):
    guarded = introspected(connect, "client_credentials", probe_url=None)
    guarded.refresh(store)
    server.revoke(guarded.conn_id, grant=False)
    make_due(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_scope"})
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert conclusion.access_token is Verdict.DEAD
    assert guarded.credential(store).status is Status.LAPSED
    assert conclusion.finding is Finding.SCOPE_INSUFFICIENT


def test_a_probe_that_is_answered_beats_an_introspection(connect, store):
    guarded = introspected(connect, "client_credentials")
    guarded.refresh(store)
    make_due(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_scope"})
    guarded.server.fault("status", path="/oauth/introspect", status=200, body={"active": False})
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert conclusion.access_token is Verdict.LIVE
    assert guarded.credential(store).status is Status.ACTIVE


# -- siblings ---------------------------------------------------------------------------------------------------------

MANY = 20


@pytest.fixture
def family(connect, store) -> list[Guarded]:
    """Twenty credentials of one client, each of which has worked."""
    first = connect(expire_policy="evidence")
    whole = [first, *(connect.sibling(first, f"_{number}") for number in range(1, MANY))]
    for one in whole:
        assert one.refresh(store).outcome is Refreshed.RENEWED
        make_due(store, one.conn_id)
    return whole


def all_looked_into(store, family: list[Guarded]) -> list[int]:
    questions = [question_of(store, one) for one in family]
    for one, question in zip(family, questions, strict=True):
        looked_into(store, one, question)
    return questions


def bogus_requests(store, guarded: Guarded) -> int:
    """Token requests that the server saw beyond those that refreshed something."""
    return len(guarded.token_requests()) - len(of_kind(store, Kind.REFRESH))


def report_open(recorder: Recorder) -> str:
    return ReportOpenOperator(task_id="report", notifiers={"": [recorder]}).execute(task_context())


def test_twenty_that_fail_together_are_one_alarm_and_nothing_is_expired(family, store):
    """The provider calls every grant of one app dead at once. That is the app's matter, or its own mistake."""
    recorder = Recorder()
    family[0].fault(**REFUSED)
    questions = all_looked_into(store, family)
    assert bogus_requests(store, family[0]) <= CONTROLS_PER_DAY
    for one, question in zip(family, questions, strict=True):
        conclusion = store.investigation(question)
        assert (conclusion.finding, conclusion.owner) == (Finding.CLIENT_MISCONFIGURED.value, Owner.APP.name)
        with pytest.raises(AirflowSkipException, match="no death is proven"):
            ExpireApprovalOperator(task_id="approve", investigation=question).execute(task_context())
        with pytest.raises(UnprovenTransitionError):
            ExpireOperator(task_id="expire", investigation=question).execute(task_context())
        assert one.credential(store).status is Status.ACTIVE
        with pytest.raises(NeedsAPersonError):
            ReportOperator(task_id="report", investigation=question, notifiers={"": [recorder]}).execute(task_context())
    with pytest.raises(NeedsAPersonError, match="1 of the guarded credentials"):
        report_open(recorder)
    assert len(recorder.sent) == 1, "told once, however many tasks report"
    assert f"{MANY} credentials of this client" in recorder.sent[0]
    [alarm] = store.incidents.open_ones(About.CLIENT)
    assert alarm.kind is IncidentKind.CLIENT_FAILING


def test_one_renewal_of_any_of_them_resolves_the_alarm(family, store, server):
    family[0].fault(**REFUSED)
    all_looked_into(store, family)
    server.clear_faults()
    for one in family:
        make_due(store, one.conn_id)
    assert family[7].refresh(store).outcome is Refreshed.RENEWED
    assert store.incidents.open_ones(About.CLIENT) == []
    for one in family:
        one.refresh(store)
    assert store.incidents.open_ones() == []


def test_those_that_go_on_failing_when_one_recovers_do_not_fall_silent(family, store, server):
    """One of them was reconnected, and that ended the alarm that spoke for all."""
    family[0].fault(**REFUSED)
    all_looked_into(store, family)
    with pytest.raises(NeedsAPersonError):
        report_open(Recorder())
    server.clear_faults()
    server.revoke(family[0].conn_id, user="ada")
    server.revoke(family[0].conn_id, user="user_1")
    for one in family:
        make_due(store, one.conn_id)
    assert family[5].refresh(store).outcome is Refreshed.RENEWED
    recorder = Recorder()
    with pytest.raises(NeedsAPersonError):
        report_open(recorder)
    assert len(recorder.sent) == MANY - 1, "nobody speaks for them any more, so each does"
    assert [proves_death(looked_into(store, one, question_of(store, one))) for one in family[:2]] == [False, False], (
        "those that were not asked again yet count as failing still"
    )
    for one in family[2:]:
        one.refresh(store)
    assert {incident.name for incident in store.incidents.open_ones(About.CREDENTIAL)} == {
        one.conn_id for one in family[:2]
    }


def test_one_of_twenty_that_is_really_dead_is_proven_dead_while_the_others_work(family, store, server):
    dead, others = family[0], family[1:]
    server.revoke(dead.conn_id, user="ada")
    question = question_of(store, dead)
    for one in others:
        assert one.refresh(store).outcome is Refreshed.RENEWED
    conclusion = looked_into(store, dead, question)
    assert proves_death(conclusion)
    assert not conclusion.shared
    ExpireApprovalOperator(task_id="approve", investigation=question).execute(task_context())
    ExpireOperator(task_id="expire", investigation=question).execute(task_context())
    assert dead.credential(store).status is Status.EXPIRED
    assert {one.credential(store).status for one in others} == {Status.ACTIVE}


def test_a_control_of_a_sibling_serves_again_and_a_client_has_a_budget(connect, store):
    """Made-up tokens are failed logins to whoever counts them."""
    client = {"grant_types": ("fb_exchange_token",)}
    first = connect(client=client, mint={"with_refresh": True})
    looked_into(store, first, question_of(store, first))
    alike = connect.sibling(first, "_alike", refresh_token=first.minted.refresh_token)
    looked_into(store, alike, question_of(store, alike))
    assert len(of_kind(store, Kind.CONTROL)) == 1
    # Now each has a form of its own, so that no other's control can serve.
    forms = [
        {"scopes": "read"},
        {"client_auth": "client_secret_post"},
        {"client_auth": "none"},
        {"body_format": "json"},
    ]
    for number, form in enumerate(forms):
        one = connect.sibling(first, f"_{number}", refresh_token=first.minted.refresh_token, **form)
        looked_into(store, one, question_of(store, one))
    assert len(of_kind(store, Kind.CONTROL)) == CONTROLS_PER_DAY
    assert bogus_requests(store, first) == CONTROLS_PER_DAY


# -- the baseline -----------------------------------------------------------------------------------------------------

BARE = {"path": "/api/me", "status": 401, "body": ""}


@pytest.mark.parametrize("worked", [True, False], ids=["the probe has worked", "the probe never worked"])
def test_a_plain_401_speaks_of_the_token_only_where_the_probe_has_worked(worked, connect, store, server):
    guarded = connect()
    if not worked:
        server.fault("status", **BARE)
    assert guarded.refresh(store).outcome is Refreshed.RENEWED
    server.fault("status", **BARE)
    make_due(store, guarded.conn_id)
    guarded.fault(status=400, body={"error": "invalid_request"})
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert conclusion.access_token is (Verdict.DEAD if worked else Verdict.OPEN)
    assert guarded.credential(store).status is (Status.LAPSED if worked else Status.ACTIVE)


def test_a_sibling_vouches_for_the_probe_as_well(connect, store, server):
    guarded = connect()
    sibling = connect.sibling(guarded, "_1")
    sibling.refresh(store)
    server.fault("status", **BARE)
    guarded.fault(status=400, body={"error": "invalid_request"})
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert conclusion.access_token is Verdict.DEAD


def test_the_probe_is_tried_out_once_a_week_and_not_at_every_renewal(connect, store, server):
    guarded = connect()
    for _ in range(3):
        make_due(store, guarded.enrolled(store).conn_id)
        assert guarded.refresh(store).outcome is Refreshed.RENEWED
    assert [seen.path for seen in server.requests()].count("/api/me") == 1
    [probed] = of_kind(store, Kind.PROBE)
    assert (probed["verdict"], probed["generation"]) == ("live", 2)


@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 403, "body": {"message": "Forbidden"}}, {"kind": "html"}]
)
def test_a_probe_that_refuses_a_fresh_token_is_told_and_harms_nothing(fault, connect, store, server):
    guarded = connect()
    server.fault(path="/api/me", **fault)
    result = guarded.refresh(store)
    assert result.outcome is Refreshed.RENEWED
    assert "check `probe_url`" in result.explanation
    assert guarded.credential(store).status is Status.ACTIVE
    assert guarded.hook().get_token()


def test_a_baseline_that_breaks_does_not_hide_that_it_was_renewed(connect, store, monkeypatch, caplog):
    guarded = connect()

    def breaks(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(store.clients, "baseline_is_due", lambda *_: True)
    hook = guarded.hook()
    monkeypatch.setattr(hook, "probe", breaks)
    assert hook.run(hook.refresh(store, WHO)).outcome is Refreshed.RENEWED
    assert "could not be tried out" in caplog.text


# -- tokens that nobody can renew -------------------------------------------------------------------------------------


def test_a_long_lived_token_that_is_alive_stays_as_it_is(connect, store):
    guarded = connect("long_lived_token")
    for generation in (2, 3, 4):
        make_due(store, guarded.enrolled(store).conn_id)
        assert guarded.refresh(store).outcome is Refreshed.RENEWED
        assert guarded.credential(store).generation == generation
        assert guarded.hook().get_token() == guarded.minted.access_token


def test_a_long_lived_token_that_was_revoked_is_proven_dead_and_a_person_is_asked(connect, store, server):
    guarded = connect("long_lived_token")
    guarded.refresh(store)
    server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    conclusion = looked_into(store, guarded, question)
    assert proves_death(conclusion)
    assert conclusion.subject is Subject.GRANT
    assert Kind.CONTROL.value in kinds(store, question)
    assert kinds(store, question).count("refresh") == 2, "the same answer twice"
    assert guarded.credential(store).status is Status.LAPSED
    with pytest.raises(UnprovenTransitionError, match="nobody approved"):
        ExpireOperator(task_id="expire", investigation=question).execute(task_context())


@pytest.mark.parametrize("missing", ["form", "pause"])
def test_a_long_lived_token_is_not_dead_while_a_condition_is_missing(missing, connect, store, server):
    guarded = connect("long_lived_token")
    if missing == "pause":
        guarded.refresh(store)
    # It says the same of every token, so that nothing tells ours from a made-up one.
    server.fault("status", path="/api/me", status=401, body={"error": "invalid_token"})
    make_due(store, guarded.enrolled(store).conn_id)
    question = question_of(store, guarded)
    patience = Patience(HOUR, timedelta(seconds=0.3)) if missing == "pause" else PATIENCE
    conclusion = looked_into(store, guarded, question, patience)
    assert not proves_death(conclusion)
    assert guarded.credential(store).status is not Status.EXPIRED


def test_a_long_lived_token_whose_provider_is_down_is_a_question_of_time(connect, store):
    guarded = connect("long_lived_token")
    guarded.refresh(store)
    make_due(store, guarded.conn_id, life_left=timedelta(minutes=15))
    guarded.fault(status=503)
    conclusion = looked_into(store, guarded, question_of(store, guarded))
    assert conclusion.finding is Finding.PROVIDER_OUTAGE
    assert guarded.credential(store).status is Status.ACTIVE
