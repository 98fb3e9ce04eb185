from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.errors import NeedsAPersonError, NotRegisteredError
from airflow_oauth_guard.hooks.context import LABEL
from airflow_oauth_guard.operators.report import ReportOpenOperator, ReportOperator
from airflow_oauth_guard.store.incidents import Symptom
from tests.airflow_parts import (
    Recorder,
    asked,
    concluded,
    enrolled,
    incident_about,
    proven_dead,
    renew,
    task_context,
    used_by,
    utcnow,
)

pytestmark = pytest.mark.airflow


def report(question: int | str | None, recorder: Recorder | None = None, context=None) -> str:
    operator = ReportOperator(
        task_id="report", investigation=question, notifiers={"": [recorder]} if recorder else None
    )
    return operator.execute(context or task_context("report"))


def report_open(recorder: Recorder | None = None) -> str:
    operator = ReportOpenOperator(task_id="report", notifiers={"": [recorder]} if recorder else None)
    return operator.execute(task_context("report"))


# -- one investigation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", ["", None])
def test_no_question_is_green(nothing, store):
    assert report(nothing) == "No refresh raised a question."


def test_a_question_that_answered_itself_is_green_and_says_how(store):
    question, recorder, context = proven_dead(store), Recorder(), task_context("report")
    renew(store)
    assert "a refresh succeeded" in report(question, recorder, context)
    assert recorder.sent == []
    assert context[LABEL] == "crm: fine again"


def test_who_needs_a_person_is_red_and_names_whose_job_it_is(store):
    question, recorder, context = proven_dead(store), Recorder(), task_context("report")
    used_by(store, "crm", "crm_load")
    with pytest.raises(NeedsAPersonError) as raised:
        report(str(question), recorder, context)
    said = str(raised.value)
    assert said.startswith("credential `crm`: the grant is proven dead; reconnect it.")
    assert "Whose job: the owner of the account at the provider" in said
    assert " Feeds 1 DAG (`crm_load`). Whose job:" in said
    assert recorder.sent[0].endswith(" Feeds 1 DAG (`crm_load`).")
    assert context[LABEL] == "crm: the grant is proven dead; reconnect it"
    assert len(recorder.sent) == 1


def test_an_outage_with_life_left_waits_with_its_reason_and_alarms_nobody(store):
    enrolled(store)
    question, recorder = asked(store, finding=Finding.PROVIDER_OUTAGE), Recorder()
    concluded(store, question, Finding.PROVIDER_OUTAGE, proven=False)
    with pytest.raises(AirflowSkipException, match=r"the provider is failing.*a person is called in \d+ min"):
        report(question, recorder)
    assert recorder.sent == []


def test_an_outage_turns_red_when_the_life_left_falls_under_the_margin(store):
    enrolled(store, expires_at=utcnow() + timedelta(minutes=9))
    question, recorder = asked(store, finding=Finding.PROVIDER_OUTAGE), Recorder()
    concluded(store, question, Finding.PROVIDER_OUTAGE, proven=False)
    with pytest.raises(NeedsAPersonError, match="the provider is failing"):
        report(question, recorder)
    assert len(recorder.sent) == 1


def test_a_question_nobody_concluded_is_red(store):
    enrolled(store)
    question = asked(store)
    with pytest.raises(NeedsAPersonError, match=f"investigation {question} came to no conclusion"):
        report(question)


def test_an_investigation_nobody_opened_is_an_error(store):
    with pytest.raises(NotRegisteredError):
        report(41)


def test_two_reports_about_one_incident_send_one_alert(store):
    question, recorder = proven_dead(store), Recorder()
    for _ in range(2):
        with pytest.raises(NeedsAPersonError):
            report(question, recorder)
    with pytest.raises(NeedsAPersonError):
        report_open(recorder)
    assert len(recorder.sent) == 1


def test_reports_that_start_together_send_one_alert(store):
    question, recorders, gate = proven_dead(store), [Recorder() for _ in range(4)], threading.Barrier(4)

    def work(recorder: Recorder) -> None:
        gate.wait(timeout=10)
        with pytest.raises(NeedsAPersonError):
            report(question, recorder)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, recorders))
    # A notifier is copied for each alert; the copies share the list.
    assert sum(len(recorder.sent) for recorder in recorders) == 1


# -- everything that is open ------------------------------------------------------------------------------------------


def test_with_nothing_open_it_is_green(store):
    enrolled(store)
    assert report_open() == "Nobody is needed; 0 wait for their provider."


def test_every_credential_that_needs_somebody_is_named(store):
    incident_about(store, "crm", summary="Our request is wrong.", owner="the owner of the code")
    incident_about(store, "ads", IncidentKind.CLIENT_MISCONFIGURED, owner="the owner of the app")
    used_by(store, "crm", "crm_load")
    recorder = Recorder()
    with pytest.raises(NeedsAPersonError) as raised:
        report_open(recorder)
    said = str(raised.value)
    assert said.startswith("2 of the guarded credentials need somebody:")
    assert (
        "`crm`: our refresh request is wrong. Our request is wrong. Feeds 1 DAG (`crm_load`). Whose job: the owner of the code."
        in said
    )
    assert "`ads`: the provider refuses our app" in said
    assert len(recorder.sent) == 2


def test_who_waits_is_logged_with_whom_it_feeds(store, capsys, caplog):
    caplog.set_level(logging.WARNING)
    used_by(store, "crm", "crm_load")
    incident_about(store, "crm", IncidentKind.PROVIDER_OUTAGE, escalates_at=utcnow() + timedelta(minutes=5))
    report_open()
    assert "Feeds 1 DAG (`crm_load`)." in caplog.text + "".join(capsys.readouterr())


def test_who_waits_is_counted_and_alarms_nobody(store):
    incident_about(store, "crm", IncidentKind.PROVIDER_OUTAGE, escalates_at=utcnow() + timedelta(minutes=5))
    recorder = Recorder()
    assert report_open(recorder) == "Nobody is needed; 1 wait for their provider."
    assert recorder.sent == []


def test_an_outage_that_escalated_needs_somebody(store):
    incident_about(store, "crm", IncidentKind.PROVIDER_OUTAGE, escalates_at=utcnow() - timedelta(minutes=5))
    with pytest.raises(NeedsAPersonError, match="`crm`: the provider is failing"):
        report_open()


def test_a_failed_refresh_nobody_has_concluded_about_is_never_hidden(store):
    enrolled(store)
    asked(store)
    with pytest.raises(NeedsAPersonError, match=r"`crm`: its refresh failed .*and is to be looked into"):
        report_open()


def test_a_notifier_that_raises_leaves_the_task_red_and_the_alert_to_be_told(store):
    proven_dead(store)
    with pytest.raises(ConnectionError):
        report_open(Recorder(broken=True))
    recorder = Recorder()
    with pytest.raises(NeedsAPersonError):
        report_open(recorder)
    assert len(recorder.sent) == 1


def test_a_failure_that_was_looked_into_before_is_not_fine_for_that(store):
    """The second run of a pipeline raises no second question; its report must not be green."""
    enrolled(store)
    symptom = Symptom(About.CREDENTIAL, "crm", IncidentKind.REQUEST_MALFORMED, "Made for a test.", utcnow())
    store.incidents.open(symptom, utcnow())
    again = ReportOperator(task_id="report", investigation="", conn_id="crm")
    with pytest.raises(NeedsAPersonError, match="`crm`: our refresh request is wrong"):
        again.execute(task_context("report"))
    assert ReportOperator(task_id="report", investigation="", conn_id="other").execute(task_context("report"))
