from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_oauth_guard.domain.evidence import TRANSIENT, Finding
from airflow_oauth_guard.domain.incidents import RENOTIFY_AFTER, TIME_MAY_CURE, About, Incident, IncidentKind
from tests.unit.domain.builders import HOUR, MINUTE, NOW, SECOND


def incident(kind: IncidentKind = IncidentKind.REQUEST_MALFORMED, **changes) -> Incident:
    return Incident(1, About.CREDENTIAL, "crm_prod", kind, "It happened.", NOW, NOW, **changes)


@pytest.mark.parametrize("kind", IncidentKind)
def test_every_kind_has_a_headline_of_its_own(kind):
    assert kind.headline
    assert [other for other in IncidentKind if other.headline == kind.headline] == [kind]


@pytest.mark.parametrize("finding", sorted(set(Finding) - {Finding.LIVE, Finding.ACCESS_TOKEN_DEAD}))
def test_every_finding_a_refresh_can_end_with_has_an_incident(finding):
    assert IncidentKind(finding.value)


def test_what_time_may_cure_is_the_same_for_findings_and_incidents():
    assert {kind.value for kind in TIME_MAY_CURE} == {finding.value for finding in TRANSIENT}


def test_one_credential_of_a_client_that_fails_as_a_whole_does_not_speak_for_itself():
    assert not incident(IncidentKind.CLIENT_FAILING).speaks_for_itself
    assert replace(incident(IncidentKind.CLIENT_FAILING), about=About.CLIENT).speaks_for_itself


@pytest.mark.parametrize("kind", sorted(set(IncidentKind) - TIME_MAY_CURE))
def test_whatever_time_does_not_cure_needs_a_person_at_once(kind):
    assert incident(kind, escalates_at=NOW + HOUR).is_to_be_told(NOW)


@pytest.mark.parametrize("kind", sorted(TIME_MAY_CURE))
def test_an_outage_stays_quiet_until_it_escalates(kind):
    outage = incident(kind, escalates_at=NOW + HOUR)
    assert not outage.is_to_be_told(NOW + HOUR - SECOND)
    assert outage.is_to_be_told(NOW + HOUR)


@pytest.mark.parametrize("kind", sorted(TIME_MAY_CURE))
def test_an_outage_nobody_gave_a_deadline_is_told_at_once(kind):
    assert incident(kind).is_to_be_told(NOW)


def test_an_incident_is_told_again_once_a_day_and_not_in_between():
    told = incident(last_notified_at=NOW)
    assert not told.is_to_be_told(NOW + RENOTIFY_AFTER - MINUTE)
    assert told.is_to_be_told(NOW + RENOTIFY_AFTER)
    assert timedelta(hours=12) <= RENOTIFY_AFTER <= timedelta(days=2)


def test_the_sentence_names_the_thing_and_what_is_wrong():
    sentence = incident().sentence()
    for part in ("credential", "`crm_prod`", IncidentKind.REQUEST_MALFORMED.headline, "It happened."):
        assert part in sentence
