from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="notifiers need Airflow")

from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.notifications.log import LogNotifier
from airflow_oauth_guard.notifications.telling import tell
from tests.airflow_parts import Recorder, incident_about, task_context, utcnow

pytestmark = pytest.mark.airflow

DAY = timedelta(days=1)


def told(store, *incidents, now=None, **notifiers) -> None:
    by_route = {route.removeprefix("default"): sequence for route, sequence in notifiers.items()}
    tell(store, incidents, by_route, task_context("report"), now or utcnow())


def now_open(store, name: str = "crm"):
    return store.incidents.open_about(About.CREDENTIAL, name)


def test_an_alert_says_what_is_wrong_and_is_sent_once(store):
    incident, recorder = incident_about(store, summary="Our request is wrong."), Recorder()
    told(store, incident, default=[recorder])
    told(store, incident, default=[recorder])
    told(store, now_open(store), default=[recorder])
    assert recorder.sent == ["credential `crm`: our refresh request is wrong. Our request is wrong."]
    found = now_open(store)
    assert found.first_notified_at == found.last_notified_at is not None


def test_it_is_told_again_a_day_later_and_not_before(store):
    incident_about(store)
    recorder, start = Recorder(), utcnow()
    for after, alerts in ((timedelta(), 1), (DAY - timedelta(minutes=1), 1), (DAY, 2), (DAY * 1.5, 2), (DAY * 2, 3)):
        told(store, now_open(store), now=start + after, default=[recorder])
        assert len(recorder.sent) == alerts, after
    assert now_open(store).first_notified_at == start


def test_nobody_is_told_while_time_may_cure_it(store):
    recorder = Recorder()
    incident = incident_about(store, kind=IncidentKind.PROVIDER_OUTAGE, escalates_at=utcnow() + timedelta(hours=1))
    told(store, incident, default=[recorder])
    assert recorder.sent == []
    told(store, incident, now=utcnow() + timedelta(hours=2), default=[recorder])
    assert len(recorder.sent) == 1


def test_a_resolved_incident_is_not_told(store):
    incident, recorder = incident_about(store), Recorder()
    store.incidents.resolve(About.CREDENTIAL, "crm", "it is fine", utcnow())
    told(store, incident, default=[recorder])
    assert recorder.sent == []


def test_each_incident_goes_to_the_notifiers_of_its_route(store):
    ours, theirs = Recorder(), Recorder()
    first = incident_about(store, "crm", alert_route="crm-owners")
    second = incident_about(store, "ads")
    told(store, first, second, **{"default": [ours], "crm-owners": [theirs]})
    assert [len(ours.sent), len(theirs.sent)] == [1, 1]
    assert "`ads`" in ours.sent[0]
    assert "`crm`" in theirs.sent[0]


def test_an_unknown_route_falls_back_to_the_default_with_a_warning(store, caplog):
    caplog.set_level(logging.WARNING)
    recorder = Recorder()
    told(store, incident_about(store, alert_route="crm-ownres"), default=[recorder], other=[])
    assert len(recorder.sent) == 1
    assert "No notifier for the alert route `crm-ownres`; the default ones are used." in caplog.text


def test_with_no_notifiers_at_all_it_is_logged_as_an_error(store, capsys, caplog):
    incident = incident_about(store, summary="Our request is wrong.")
    told(store, incident)
    logged = caplog.text + "".join(capsys.readouterr())
    assert "OAuth Guard alert: credential `crm`: our refresh request is wrong. Our request is wrong." in logged
    assert "Whose job: the owner of the test." in logged
    assert now_open(store).last_notified_at is not None


def test_an_empty_list_of_default_notifiers_is_no_way_to_silence_it(store, capsys, caplog):
    told(store, incident_about(store), default=[])
    assert "OAuth Guard alert" in caplog.text + "".join(capsys.readouterr())


def test_a_notifier_that_raises_leaves_the_alert_to_be_told(store):
    incident, broken, recorder = incident_about(store), Recorder(broken=True), Recorder()
    with pytest.raises(ConnectionError):
        told(store, incident, default=[broken])
    found = now_open(store)
    assert found.last_notified_at is None
    assert found.first_notified_at is None, "nobody was told, so there is no time when they were"
    told(store, found, default=[recorder])
    assert len(recorder.sent) == 1


def test_a_notifier_that_raises_a_day_later_leaves_the_first_telling_as_it_was(store):
    start = utcnow()
    told(store, incident_about(store), now=start, default=[Recorder()])
    with pytest.raises(ConnectionError):
        told(store, now_open(store), now=start + DAY, default=[Recorder(broken=True)])
    assert (now_open(store).first_notified_at, now_open(store).last_notified_at) == (start, start)


def test_one_that_raises_stops_no_other_alert(store):
    broken, recorder = Recorder(broken=True), Recorder()
    first, second = incident_about(store, "crm", alert_route="crm"), incident_about(store, "ads")
    with pytest.raises(ConnectionError):
        told(store, first, second, default=[recorder], crm=[broken])
    assert len(recorder.sent) == 1
    assert now_open(store, "ads").last_notified_at is not None


def test_one_that_raises_stops_no_other_notifier_of_the_same_incident(store):
    recorder = Recorder()
    with pytest.raises(ConnectionError):
        told(store, incident_about(store), default=[Recorder(broken=True), recorder])
    assert len(recorder.sent) == 1


def test_one_notifier_serves_many_alerts(store):
    """A notifier renders its templates in place, so each alert needs its own copy."""
    recorder = Recorder("{{ oauth_guard.name }}")
    told(store, incident_about(store, "crm"), incident_about(store, "ads"), default=[recorder])
    assert recorder.sent == ["crm", "ads"]
    assert recorder.message == "{{ oauth_guard.name }}"


def test_what_a_provider_wrote_is_not_rendered_as_a_template(store):
    recorder = Recorder()
    told(store, incident_about(store, summary="The provider says {{ 6 * 7 }}."), default=[recorder])
    assert recorder.sent[0].endswith("The provider says {{ 6 * 7 }}.")


def test_the_log_notifier_takes_a_message_of_ones_own(store, capsys, caplog):
    told(store, replace(incident_about(store)), default=[LogNotifier("{{ oauth_guard.name }} is ill")])
    assert "OAuth Guard alert: crm is ill" in caplog.text + "".join(capsys.readouterr())
