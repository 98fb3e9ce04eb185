from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_oauth_guard.domain.evidence import TRANSIENT, Finding
from airflow_oauth_guard.domain.incidents import (
    ESCALATE_AFTER,
    QUIET,
    RENOTIFY_AFTER,
    TIME_MAY_CURE,
    About,
    Incident,
    IncidentKind,
    Phase,
    next_telling_after,
)
from airflow_oauth_guard.domain.reach import NOBODY, Names, Reach
from tests.unit.domain.builders import DAY, HOUR, MINUTE, NOW, SECOND

NO_MARGIN = sorted(set(About) - {About.CREDENTIAL, About.CLIENT})
"""What loses something from the first hour on."""


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


@pytest.mark.parametrize("about", NO_MARGIN)
def test_what_loses_data_meanwhile_is_told_again_after_four_hours_and_then_daily(about):
    assert [next_telling_after(about, told) for told in (1, 2, 3, 30)] == [4 * HOUR, DAY, DAY, DAY]
    told = replace(incident(IncidentKind.FLAT), about=about, times_told=1, last_notified_at=NOW)
    assert not told.is_to_be_told(NOW + 4 * HOUR - SECOND)
    assert told.is_to_be_told(NOW + 4 * HOUR)


@pytest.mark.parametrize("about", [About.CREDENTIAL, About.CLIENT])
def test_credentials_and_clients_are_told_daily(about):
    assert {next_telling_after(about, told) for told in range(5)} == {DAY}


def test_an_incident_is_open_then_acknowledged_then_resolved():
    opened = incident()
    acknowledged = replace(opened, acknowledged_at=NOW, acknowledged_by="kim")
    resolved = replace(acknowledged, resolved_at=NOW)
    assert [one.phase for one in (opened, acknowledged, resolved)] == [Phase.OPEN, Phase.ACKNOWLEDGED, Phase.RESOLVED]
    assert replace(opened, resolved_at=NOW).phase is Phase.RESOLVED


NOT_OPEN = {
    "somebody is on it": {"acknowledged_at": NOW},
    "it is over": {"resolved_at": NOW},
    "its group speaks for it": {"part_of": 7},
}


@pytest.mark.parametrize("why", NOT_OPEN)
def test_an_incident_is_neither_told_nor_escalated_where(why):
    told_long_ago = incident(first_notified_at=NOW - 3 * DAY, last_notified_at=NOW - 3 * DAY)
    assert told_long_ago.is_to_be_told(NOW)
    assert told_long_ago.is_to_be_escalated(NOW)
    silent = replace(told_long_ago, **NOT_OPEN[why])
    assert not silent.is_to_be_told(NOW)
    assert not silent.is_to_be_escalated(NOW)


def test_a_member_of_a_group_does_not_speak_for_itself():
    assert incident().speaks_for_itself
    assert not incident(part_of=7).speaks_for_itself


def test_it_escalates_once_a_day_after_it_was_first_told():
    told = incident(first_notified_at=NOW, last_notified_at=NOW + 20 * HOUR)
    assert not told.is_to_be_escalated(NOW + ESCALATE_AFTER - SECOND)
    assert told.is_to_be_escalated(NOW + ESCALATE_AFTER)
    assert told.is_to_be_escalated(NOW + HOUR, after=HOUR)
    assert not replace(told, escalated_at=NOW + DAY).is_to_be_escalated(NOW + 9 * DAY)


def test_what_nobody_was_told_does_not_escalate():
    assert not incident().is_to_be_escalated(NOW + 9 * DAY)


@pytest.mark.parametrize("kind", sorted(TIME_MAY_CURE))
def test_an_outage_does_not_escalate_while_time_may_cure_it(kind):
    outage = incident(kind, first_notified_at=NOW, escalates_at=NOW + 3 * DAY)
    assert not outage.is_to_be_escalated(NOW + 2 * DAY)
    assert outage.is_to_be_escalated(NOW + 3 * DAY)


def test_quiet_are_the_kinds_in_which_a_source_does_not_send_what_it_should():
    assert {IncidentKind.LATE, IncidentKind.FLAT, IncidentKind.STUCK} == QUIET


def test_the_sentence_names_the_thing_and_what_is_wrong():
    sentence = incident().sentence()
    for part in ("credential", "`crm_prod`", IncidentKind.REQUEST_MALFORMED.headline, "It happened."):
        assert part in sentence


def test_the_sentence_says_whom_it_stops_where_somebody_has_looked():
    reach = Reach(Names(("crm_load",), 1))
    assert incident(reach=reach).sentence() == f"{incident().sentence()} Feeds 1 DAG (`crm_load`)."
    assert incident(reach=Reach()).sentence() == f"{incident().sentence()} {NOBODY}"
