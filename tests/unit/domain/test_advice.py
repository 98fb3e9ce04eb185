"""What to do next, for every way in which a credential can be wrong."""

from __future__ import annotations

import pytest

from airflow_oauth_guard.domain.advice import ANSWER, next_step
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.status import Status

ABOUT_A_CREDENTIAL = [
    *(IncidentKind.REQUEST_MALFORMED, IncidentKind.CLIENT_MISCONFIGURED, IncidentKind.SCOPE_INSUFFICIENT),
    *(IncidentKind.ACCOUNT_ACTION, IncidentKind.GRANT_DEAD, IncidentKind.AMBIGUOUS, IncidentKind.RATE_LIMITED),
    *(IncidentKind.PROVIDER_OUTAGE, IncidentKind.UNKNOWN, IncidentKind.MISCONFIGURED, IncidentKind.CLIENT_FAILING),
]
"""All that is opened about one, and is not over by itself."""


def advice(status: Status, incident: IncidentKind | None = None, *, is_asked: bool = False) -> str:
    return next_step(status, incident, is_asked=is_asked)


def test_where_nothing_is_wrong_there_is_nothing_to_do():
    assert advice(Status.ACTIVE) == "Nothing: it is in order."


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("incident", [None, *IncidentKind])
@pytest.mark.parametrize("is_asked", [True, False])
def test_there_is_always_something_to_say(status, incident, is_asked):
    said = advice(status, incident, is_asked=is_asked)
    assert said[0].isupper()
    assert said.endswith(".")


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("incident", [None, *IncidentKind])
def test_an_open_question_comes_before_everything_else(status, incident):
    assert advice(status, incident, is_asked=True) == ANSWER


@pytest.mark.parametrize("status", [Status.ACTIVE, Status.LAPSED])
def test_each_kind_of_incident_has_advice_of_its_own(status):
    said = [advice(status, incident) for incident in ABOUT_A_CREDENTIAL]
    assert len(set(said)) == len(ABOUT_A_CREDENTIAL)
    assert advice(status) not in said


@pytest.mark.parametrize("incident", [None, *IncidentKind])
def test_an_expired_credential_wants_to_be_reconnected_whatever_is_open(incident):
    assert advice(Status.EXPIRED, incident).startswith("Reconnect it, or revive it")


@pytest.mark.parametrize("incident", [IncidentKind.REQUEST_MALFORMED, IncidentKind.CLIENT_MISCONFIGURED])
@pytest.mark.parametrize("status", [Status.ACTIVE, Status.LAPSED])
def test_nobody_is_sent_to_reconnect_what_fails_because_of_us(status, incident):
    """The incident this package was made for: the token was good all along."""
    assert "reconnecting would not help" in advice(status, incident)


@pytest.mark.parametrize("incident", [IncidentKind.RATE_LIMITED, IncidentKind.PROVIDER_OUTAGE])
def test_nobody_is_sent_to_do_what_time_does(incident):
    assert advice(Status.ACTIVE, incident).startswith("Nothing yet")


def test_a_rejected_access_token_wants_a_refresh_and_no_reconnect():
    said = advice(Status.LAPSED)
    assert said.startswith("Refresh it")
    assert "econnect" not in said


def test_an_active_credential_whose_refresh_failed_is_not_called_in_order():
    assert next_step(Status.ACTIVE, None, is_asked=False) == "Nothing: it is in order."
    assert "being looked into" in next_step(Status.ACTIVE, None, is_asked=False, fails=True)
    assert next_step(Status.EXPIRED, None, is_asked=False, fails=True).startswith("Reconnect it")
