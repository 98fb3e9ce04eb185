from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="notifiers need Airflow")

from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.reach import NOBODY
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.notifications.log import LogNotifier
from airflow_oauth_guard.notifications.telling import SENDING, tell
from airflow_oauth_guard.notifications.telling import log as telling_log
from tests.airflow_parts import Recorder, incident_about, task_context, used_by, utcnow

pytestmark = pytest.mark.airflow

DAY = timedelta(days=1)
NAMES = "{{ oauth_guard.name }}"


def told(store, *incidents, now=None, is_urgent=lambda _: False, **notifiers) -> None:
    by_route = {route.removeprefix("default"): sequence for route, sequence in notifiers.items()}
    tell(store, incidents, by_route, task_context("report"), now or utcnow(), is_urgent=is_urgent)


def now_open(store, name: str = "crm"):
    return store.incidents.open_about(About.CREDENTIAL, name)


def test_an_alert_says_what_is_wrong_and_is_sent_once(store):
    incident, recorder = incident_about(store, summary="Our request is wrong."), Recorder()
    told(store, incident, default=[recorder])
    told(store, incident, default=[recorder])
    told(store, now_open(store), default=[recorder])
    assert recorder.sent == [f"credential `crm`: our refresh request is wrong. Our request is wrong. {NOBODY}"]
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
    broken, recorder = Recorder(broken=True), Recorder(NAMES)
    first, second = incident_about(store, "crm", alert_route="crm"), incident_about(store, "ads")
    with pytest.raises(ConnectionError):
        told(store, first, second, default=[recorder], crm=[broken])
    assert recorder.sent == ["ads", "crm/Recorder"]
    assert now_open(store, "ads").last_notified_at is not None


def test_one_that_raises_stops_no_other_notifier_of_the_same_incident(store):
    recorder = Recorder(NAMES)
    with pytest.raises(ConnectionError):
        told(store, incident_about(store), default=[Recorder(broken=True), recorder])
    assert recorder.sent == ["crm", "default/Recorder"]
    assert now_open(store).times_told == 1, "somebody knows"


def test_one_notifier_serves_many_alerts(store):
    """A notifier renders its templates in place, so each alert needs its own copy."""
    recorder = Recorder("{{ oauth_guard.name }}")
    told(store, incident_about(store, "crm"), incident_about(store, "ads"), default=[recorder])
    assert recorder.sent == ["crm", "ads"]
    assert recorder.message == "{{ oauth_guard.name }}"


def test_what_a_provider_wrote_is_not_rendered_as_a_template(store):
    recorder = Recorder()
    told(store, incident_about(store, summary="The provider says {{ 6 * 7 }}."), default=[recorder])
    assert "The provider says {{ 6 * 7 }}." in recorder.sent[0]


def test_the_log_notifier_takes_a_message_of_ones_own(store, capsys, caplog):
    told(store, replace(incident_about(store)), default=[LogNotifier("{{ oauth_guard.name }} is ill")])
    assert "OAuth Guard alert: crm is ill" in caplog.text + "".join(capsys.readouterr())


# -- whom it stops -----------------------------------------------------------------------------------------------------


def test_an_alert_says_whom_the_credential_feeds_as_it_is_when_it_is_told(store):
    recorder, start = Recorder(), utcnow()
    used_by(store, "crm", "crm_sync")
    incident = incident_about(store)
    used_by(store, "crm", "crm_load")
    store.sources.register([Source("crm_deals", DAY, credential="crm")], start)
    told(store, incident, now=start, default=[recorder])
    used_by(store, "crm", "invoices", at=start + DAY)
    told(store, now_open(store), now=start + DAY, default=[recorder])
    first, second = recorder.sent
    assert first.endswith(" Feeds 2 DAGs (`crm_load`, `crm_sync`) and 1 source (`crm_deals`).")
    assert second.endswith(" Feeds 3 DAGs (`crm_load`, `crm_sync`, `invoices`) and 1 source (`crm_deals`).")


def test_an_escalation_says_so_too(store):
    boss, start = Recorder(), utcnow()
    used_by(store, "crm", "crm_sync")
    incident_about(store)
    for now in (start, start + DAY):
        told(store, now_open(store), now=now, default=[Recorder()], escalation=[boss])
    assert boss.sent == ["credential `crm`: our refresh request is wrong. Made for a test. Feeds 1 DAG (`crm_sync`)."]


def test_an_alert_about_a_client_says_whom_all_its_credentials_feed(store):
    recorder = Recorder()
    for conn_id, dag_id in (("crm", "crm_load"), ("ads", "ads_load")):
        used_by(store, conn_id, dag_id)
    name = store.credentials.get("crm").client_name
    told(store, incident_about(store, name, IncidentKind.CLIENT_FAILING, about=About.CLIENT), default=[recorder])
    assert recorder.sent[0].endswith(" Feeds 2 DAGs (`ads_load`, `crm_load`).")


def test_an_alert_about_a_source_is_as_it_was(store):
    recorder = Recorder()
    incident = incident_about(store, "crm", IncidentKind.FLAT, about=About.SOURCE)
    told(store, incident, default=[recorder])
    assert recorder.sent == [incident.sentence()]
    assert "use" not in recorder.sent[0]


# -- acknowledged, grouped ----------------------------------------------------------------------------------------------


def test_nobody_is_told_again_once_somebody_is_on_it(store):
    recorder, start = Recorder(), utcnow()
    told(store, incident_about(store), now=start, default=[recorder])
    store.incidents.acknowledge(About.CREDENTIAL, "crm", "kim", start)
    told(store, now_open(store), now=start + 3 * DAY, default=[recorder], escalation=[recorder])
    assert len(recorder.sent) == 1


def test_a_group_is_told_once_and_its_members_only_when_it_is_over(store):
    recorder = Recorder(NAMES)
    group = incident_about(store, "credential crm", IncidentKind.QUIET_TOGETHER, about=About.GROUP)
    names = ("orders", "clicks")
    for name in names:
        incident_about(store, name, IncidentKind.FLAT, about=About.SOURCE, part_of=group.id)
    told(store, *store.incidents.open_ones(), default=[recorder])
    assert recorder.sent == ["credential crm"]
    store.incidents.resolve(About.GROUP, group.name, "over", utcnow())
    told(store, *store.incidents.open_ones(), default=[recorder])
    assert recorder.sent == ["credential crm", *names]


# -- escalation ---------------------------------------------------------------------------------------------------------


def test_what_nobody_acknowledges_for_a_day_goes_to_others_too_and_once(store):
    recorder, boss, start = Recorder(), Recorder(), utcnow()
    incident_about(store)
    for after, alerts in ((timedelta(), 0), (DAY - timedelta(minutes=1), 0), (DAY, 1), (2 * DAY, 1)):
        told(store, now_open(store), now=start + after, default=[recorder], escalation=[boss])
        assert len(boss.sent) == alerts, after
    assert len(recorder.sent) == 3
    assert now_open(store).escalated_at == start + DAY


def test_how_long_that_takes_is_an_option(store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__ESCALATE_AFTER_HOURS", "0.5")
    recorder, boss, start = Recorder(), Recorder(), utcnow()
    told(store, incident_about(store), now=start, default=[recorder], escalation=[boss])
    told(store, now_open(store), now=start + timedelta(minutes=31), default=[recorder], escalation=[boss])
    assert (len(recorder.sent), len(boss.sent)) == (1, 1)


def test_an_escalation_that_reaches_nobody_is_tried_again(store):
    recorder, boss, start = Recorder(), Recorder(broken=True), utcnow()
    told(store, incident_about(store), now=start, default=[recorder], escalation=[boss])
    with pytest.raises(ConnectionError):
        told(store, now_open(store), now=start + DAY, default=[recorder], escalation=[boss])
    assert now_open(store).escalated_at is None
    boss.broken = False
    told(store, now_open(store), now=start + DAY, default=[recorder], escalation=[boss])
    assert len(boss.sent) == 1


def test_without_anybody_to_escalate_to_nothing_is_recorded_as_escalated(store):
    start = utcnow()
    told(store, incident_about(store), now=start, default=[Recorder()])
    told(store, now_open(store), now=start + DAY, default=[Recorder()], escalation=[])
    assert now_open(store).escalated_at is None


# -- quiet hours --------------------------------------------------------------------------------------------------------

NIGHT = utcnow().replace(hour=23, minute=0) + DAY
MORNING = NIGHT.replace(hour=7) + DAY


@pytest.fixture
def quiet_nights(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__QUIET_HOURS", "22:00-07:00")


@pytest.mark.usefixtures("quiet_nights")
def test_what_becomes_due_in_quiet_hours_is_told_when_they_end(store):
    recorder, boss = Recorder(), Recorder()
    incident_about(store)
    told(store, now_open(store), now=NIGHT, default=[recorder], escalation=[boss])
    assert recorder.sent == []
    assert now_open(store).first_notified_at is None
    told(store, now_open(store), now=MORNING, default=[recorder], escalation=[boss])
    assert len(recorder.sent) == 1
    told(store, now_open(store), now=NIGHT + 2 * DAY, default=[recorder], escalation=[boss])
    assert (len(recorder.sent), len(boss.sent)) == (1, 0), "neither again nor to others at night"


@pytest.mark.usefixtures("quiet_nights")
def test_what_is_urgent_does_not_wait_for_the_morning(store):
    recorder = Recorder(NAMES)
    told(
        store,
        incident_about(store, "crm"),
        incident_about(store, "ads"),
        now=NIGHT,
        is_urgent=lambda incident: incident.name == "ads",
        default=[recorder],
    )
    assert recorder.sent == ["ads"]


@pytest.mark.usefixtures("quiet_nights")
def test_an_urgent_alert_that_cannot_be_sent_is_told_through_others_at_night_too(store):
    broken, recorder = Recorder(broken=True), Recorder(NAMES)
    urgent = incident_about(store, "crm", alert_route="crm")
    with pytest.raises(ConnectionError):
        told(store, urgent, now=NIGHT, is_urgent=lambda _: True, crm=[broken], default=[recorder])
    assert recorder.sent == ["crm/Recorder"]


@pytest.mark.parametrize(("option", "text"), [("QUIET_HOURS", "at night"), ("ESCALATE_AFTER_HOURS", "a day")])
def test_an_option_that_cannot_be_read_silences_no_alarm_and_turns_the_task_red(store, monkeypatch, option, text):
    monkeypatch.setenv(f"AIRFLOW__OAUTH_GUARD__{option}", text)
    recorder = Recorder()
    with pytest.raises(ConfigurationError, match=option.lower()):
        told(store, incident_about(store), default=[recorder])
    assert len(recorder.sent) == 1


# -- alerts that cannot be sent -----------------------------------------------------------------------------------------


class Moody(Recorder):
    """Fails so many times before it works."""

    def __init__(self, failures: int, said: str = "the mail server does not answer") -> None:
        super().__init__()
        self.failures = [ConnectionError(said)] * failures
        self.tries: list[str] = []

    def notify(self, context):
        self.tries.append(context["oauth_guard"].name)
        if self.failures:
            raise self.failures.pop()
        super().notify(context)


def failing(store, name: str):
    return store.incidents.open_about(About.ROUTE, name)


def test_a_notifier_is_tried_three_times_before_it_is_called_failing(store):
    moody = Moody(2)
    told(store, incident_about(store), default=[moody])
    assert (len(moody.tries), len(moody.sent)) == (3, 1)
    assert store.incidents.open_ones(About.ROUTE) == []


def test_between_the_tries_there_are_seconds(store, monkeypatch):
    waited = []
    monkeypatch.setattr(SENDING, "sleep", waited.append)
    told(store, incident_about(store), default=[Moody(2)])
    assert waited == [1, 4]


def test_a_notifier_that_fails_three_times_is_an_incident_that_says_why_until_something_gets_through(store):
    moody = Moody(3)
    with pytest.raises(ConnectionError):
        told(store, incident_about(store), default=[moody])
    found = failing(store, "default/Moody")
    assert found.kind is IncidentKind.ALERTS_FAILING
    assert found.sentence() == (
        "route `default/Moody`: alerts cannot be sent. The alert about credential `crm` could not be sent through it: "
        "ConnectionError: the mail server does not answer"
    )
    assert found.first_notified_at is None, "there was no other way to tell it"
    told(store, now_open(store), default=[moody])
    assert failing(store, "default/Moody") is None
    [over] = store.incidents.history(About.ROUTE, "default/Moody")
    assert over.resolution == "an alert got through it"


def test_a_failing_notifier_is_not_tried_three_times_for_each_alert(store):
    """With 50 alerts and a mail server that is down, the waits would last longer than the pause between two passes."""
    broken = Moody(99)
    with pytest.raises(ConnectionError):
        told(store, *(incident_about(store, name) for name in ("a", "b", "c")), default=[broken])
    assert broken.tries == ["a", "a", "a", "b", "c"]


def test_no_address_or_token_gets_into_the_incident_about_failing_alerts(store, caplog):
    url = "https://hooks.slack.example/services/T0/B0/s3cr3t"
    with pytest.raises(ConnectionError):
        told(store, incident_about(store), default=[Moody(3, f"404 for {url}")])
    assert failing(store, "default/Moody").summary.endswith("ConnectionError: 404 for <address>")
    ours = [record.getMessage() for record in caplog.records if record.name == telling_log.name]
    assert ours
    assert not any("s3cr3t" in line for line in ours)


def test_two_notifiers_of_one_class_are_two_ways(store):
    with pytest.raises(ConnectionError):
        told(store, incident_about(store), default=[Recorder(), Recorder(broken=True)])
    assert [incident.name for incident in store.incidents.open_ones(About.ROUTE)] == ["default/Recorder 2"]


def test_that_alerts_fail_is_told_through_the_nearest_other_way(store):
    same, default, far = Recorder(NAMES), Recorder(NAMES), Recorder(NAMES)
    crm = incident_about(store, alert_route="crm")
    with pytest.raises(ConnectionError):
        told(store, crm, crm=[Recorder(broken=True), same], default=[default], far=[far])
    assert (same.sent, default.sent, far.sent) == (["crm", "crm/Recorder"], [], [])
    ads = incident_about(store, "ads", alert_route="ads")
    with pytest.raises(ConnectionError):
        told(store, ads, ads=[Recorder(broken=True)], default=[Recorder(broken=True)], far=[far])
    assert far.sent == ["ads/Recorder"], "those that failed in this round are no way to say so"


def test_that_alerts_fail_is_told_again_after_four_hours_whatever_the_round_is_about(store):
    start, recorder = utcnow(), Recorder(NAMES)
    with pytest.raises(ConnectionError):
        told(store, incident_about(store), now=start, default=[Recorder(broken=True), recorder])
    told(store, now=start + timedelta(hours=3), default=[Recorder(broken=True), recorder])
    told(store, now=start + timedelta(hours=4), default=[Recorder(broken=True), recorder])
    assert recorder.sent == ["crm", "default/Recorder", "default/Recorder"]


def test_an_alert_that_nobody_got_is_told_when_a_notifier_works_again_and_by_nobody_twice(store):
    start, moody, recorder = utcnow(), Moody(3), Recorder(broken=True)
    with pytest.raises(ConnectionError):
        told(store, incident_about(store), now=start, default=[moody, recorder])
    assert now_open(store).times_told == 0
    with pytest.raises(ConnectionError):
        told(store, now_open(store), now=start + timedelta(minutes=15), default=[moody, recorder])
    assert (len(moody.sent), now_open(store).times_told) == (2, 1), "the alert, and that the other way fails"
    told(store, now_open(store), now=start + timedelta(minutes=30), default=[moody, recorder])
    assert len(moody.sent) == 2
