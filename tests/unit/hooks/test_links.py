"""Where the links in Airflow's grid lead, task by task."""

from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="links are Airflow's")

from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.hooks.links import PAGE, CredentialLink, SourceLink
from airflow_oauth_guard.operators.approval import ExpireApprovalOperator
from airflow_oauth_guard.operators.due import DueCredentialsOperator
from airflow_oauth_guard.operators.expire import ExpireOperator
from airflow_oauth_guard.operators.flat_line import AlertOperator, DetectorCheckOperator, FlatLineOperator
from airflow_oauth_guard.operators.heartbeat import HeartbeatOperator
from airflow_oauth_guard.operators.refresh import RefreshOperator
from airflow_oauth_guard.operators.report import ReportOpenOperator, ReportOperator
from airflow_oauth_guard.operators.require_usable import RequireUsableOperator
from airflow_oauth_guard.plugin.oauth_guard import PREFIX
from airflow_oauth_guard.sensors.probe import ProbeSensor
from tests.airflow_parts import asked, enrolled, incident_about, utcnow

pytestmark = pytest.mark.airflow

ABOUT_AN_INVESTIGATION = [ProbeSensor, ExpireApprovalOperator, ExpireOperator, ReportOperator]


def link(operator) -> str:
    [only] = operator.operator_extra_links
    assert only.name == "OAuth Guard"
    return only.get_link(operator, ti_key=None)


def test_they_lead_to_where_airflow_serves_the_page():
    assert PAGE == PREFIX


# -- credentials ------------------------------------------------------------------------------------------------------


def test_a_refresh_of_one_credential_leads_to_its_page():
    assert link(RefreshOperator(task_id="refresh", conn_ids=["crm_prod"])) == "/oauth-guard/credentials/crm_prod"


@pytest.mark.parametrize("conn_ids", [["crm", "shop"], []])
def test_a_refresh_of_several_leads_to_the_roster(conn_ids):
    assert link(RefreshOperator(task_id="refresh", conn_ids=conn_ids)) == "/oauth-guard/"


def test_the_gate_of_a_pipeline_leads_to_its_credential():
    assert link(RequireUsableOperator(task_id="usable", conn_id="crm")) == "/oauth-guard/credentials/crm"


def test_a_name_is_quoted_whatever_is_in_it():
    gate = RequireUsableOperator(task_id="usable", conn_id="eu/crm #1?")
    assert link(gate) == "/oauth-guard/credentials/eu%2Fcrm%20%231%3F"


@pytest.mark.parametrize("operator", ABOUT_AN_INVESTIGATION)
def test_an_investigation_leads_to_the_credential_it_is_about(store, operator):
    enrolled(store, "crm")
    question = asked(store, "crm")
    # Rendered, a templated id is a text.
    for given in (question, str(question)):
        assert link(operator(task_id="one", investigation=given)) == "/oauth-guard/credentials/crm"


@pytest.mark.parametrize("operator", ABOUT_AN_INVESTIGATION)
@pytest.mark.parametrize("nothing", ["", None, "{{ ti.xcom_pull('refresh') }}"])
def test_no_investigation_leads_to_the_roster(store, operator, nothing):
    assert link(operator(task_id="one", investigation=nothing)) == "/oauth-guard/"


def test_a_report_without_an_investigation_leads_to_the_credential_it_speaks_of():
    assert link(ReportOperator(task_id="report", investigation="", conn_id="crm")) == "/oauth-guard/credentials/crm"


@pytest.mark.parametrize("operator", [DueCredentialsOperator, ReportOpenOperator])
def test_what_is_about_all_of_them_leads_to_the_roster(operator):
    assert link(operator(task_id="all")) == "/oauth-guard/"


# -- sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["crm/contacts", Source("crm/contacts", window=timedelta(hours=1))])
def test_a_heartbeat_leads_to_its_source(source):
    assert link(HeartbeatOperator(task_id="beat", source=source, rows=1)) == "/oauth-guard/sources/crm%2Fcontacts"


def test_an_alert_about_a_source_leads_to_it():
    assert link(AlertOperator(task_id="alert", incidents=["source/crm"])) == "/oauth-guard/sources/crm"


def test_an_alert_about_sources_that_are_quiet_together_leads_to_the_incident(store):
    kind = IncidentKind.QUIET_TOGETHER
    earlier = incident_about(store, "credential crm", kind, about=About.GROUP)
    store.incidents.resolve(About.GROUP, earlier.name, "over", utcnow())
    incident = incident_about(store, "credential crm", kind, about=About.GROUP)
    alert = AlertOperator(task_id="alert", incidents=[incident.open_for])
    assert link(alert) == f"/oauth-guard/incidents/{incident.id}"
    store.incidents.resolve(About.GROUP, incident.name, "over", utcnow())
    assert link(alert) == f"/oauth-guard/incidents/{incident.id}", "it is where it was, when it is over too"


@pytest.mark.parametrize("incidents", [["source/crm", "source/shop"], [], ["group/never heard of"]])
def test_an_alert_about_several_or_none_leads_to_all_incidents(store, incidents):
    assert link(AlertOperator(task_id="alert", incidents=incidents)) == "/oauth-guard/incidents"


@pytest.mark.parametrize("operator", [FlatLineOperator, DetectorCheckOperator])
def test_what_looks_at_all_of_them_leads_to_all_sources(operator):
    assert link(operator(task_id="all")) == "/oauth-guard/sources"


# -- wherever Airflow is, and whatever goes wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "begins"),
    [
        ("", "/oauth-guard/"),
        ("https://airflow.example.com", "/oauth-guard/"),
        ("https://airflow.example.com/", "/oauth-guard/"),
        ("https://example.com/data/airflow/", "/data/airflow/oauth-guard/"),
    ],
)
def test_the_path_that_airflow_is_served_under_comes_first(monkeypatch, base_url, begins):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert link(RequireUsableOperator(task_id="usable", conn_id="crm")) == f"{begins}credentials/crm"


@pytest.mark.parametrize(
    ("link_of", "operator", "leads_to"),
    [
        (CredentialLink(), ProbeSensor(task_id="probe", investigation=4711), "/oauth-guard/"),
        (SourceLink(), AlertOperator(task_id="alert", incidents=["weather/crm"]), "/oauth-guard/sources"),
        (SourceLink(), AlertOperator(task_id="alert", incidents="{{ nothing }}"), "/oauth-guard/incidents"),
    ],
)
def test_a_link_that_cannot_be_made_leads_to_the_list_and_fails_nothing(store, caplog, link_of, operator, leads_to):
    assert link_of.get_link(operator, ti_key=None) == leads_to


def test_a_store_that_cannot_be_reached_fails_no_task(store, caplog, monkeypatch):
    enrolled(store, "crm")
    sensor = ProbeSensor(task_id="probe", investigation=asked(store, "crm"))
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__STORE_CONN_ID", "nobody_defined_it")
    assert link(sensor) == "/oauth-guard/"
    assert "No page was found for `probe`" in caplog.text
