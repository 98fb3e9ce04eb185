"""Many downgrades at once stop, and a person is asked: grants die one by one, mistakes happen to all."""

from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow.providers.standard.operators.hitl import HITLOperator

from airflow_oauth_guard.domain.evidence import Finding, Kind, Verdict
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError, NeedsAPersonError
from airflow_oauth_guard.hooks.config import configured_brake
from airflow_oauth_guard.operators.approval import BY_POLICY, ExpireApprovalOperator
from airflow_oauth_guard.operators.expire import ExpireOperator
from tests.airflow_parts import asked, concluded, enrolled, lapse, proven_dead, task_context, utcnow

pytestmark = pytest.mark.airflow


class AskedError(Exception):
    """A person is asked now, and the task waits."""


@pytest.fixture(autouse=True)
def asks(monkeypatch):
    def execute(self, context):
        raise AskedError(self.body)

    monkeypatch.setattr(HITLOperator, "execute", execute)


def approve(question: int) -> dict[str, str]:
    return ExpireApprovalOperator(task_id="approve", investigation=question).execute(task_context())


def expire_it(question: int) -> dict[str, str]:
    return ExpireOperator(task_id="expire", investigation=question).execute(task_context())


def dies(store, conn_id: str, **changes) -> int:
    return proven_dead(store, conn_id, **{"expire_policy": "evidence", **changes})


def expired_by_policy(store, conn_id: str, **changes) -> None:
    question = dies(store, conn_id, **changes)
    assert approve(question) == {"answer": "approved", "by": BY_POLICY}
    assert expire_it(question)["status"] == "expired"


def test_three_a_day_pass_by_policy_and_for_the_fourth_a_person_is_asked(store):
    for number in range(3):
        expired_by_policy(store, f"crm_{number}")
    fourth = dies(store, "crm_3")
    with pytest.raises(
        AskedError, match="You are asked because the brake holds: 3 of the 4 credentials of this client"
    ):
        approve(fourth)
    assert store.credentials.get("crm_3").status is Status.ACTIVE


def test_a_person_who_was_asked_may_expire_the_fourth(store):
    for number in range(3):
        expired_by_policy(store, f"crm_{number}")
    fourth = dies(store, "crm_3")
    store.investigations.answered(fourth, "approved", "ada", utcnow())
    assert expire_it(fourth)["status"] == "expired"


def test_an_approval_by_policy_that_the_brake_overtook_expires_nothing(store):
    """It was given when there were few, and carried out when there were many."""
    early = dies(store, "crm_early")
    approve(early)
    for number in range(3):
        dies(store, f"crm_{number}")
    with pytest.raises(NeedsAPersonError, match="`crm_early` was not set `expired`: the brake holds"):
        expire_it(early)
    assert store.credentials.get("crm_early").status is Status.ACTIVE
    assert store.investigation(early).closed_at is None, "it waits for a person"


def test_deaths_that_wait_for_approval_count_too(store):
    questions = [dies(store, f"crm_{number}") for number in range(4)]
    for question in questions:
        with pytest.raises(AskedError, match="the brake holds: 3 of the 4"):
            approve(question)


def test_those_of_other_clients_count_altogether(store):
    for number in range(3):
        expired_by_policy(store, f"crm_{number}", client_key=f"client-{number}")
    with pytest.raises(AskedError, match="3 of the 4 credentials altogether"):
        approve(dies(store, "crm_3", client_key="client-3"))


def test_a_share_of_many_is_allowed_where_it_is_more(store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__BRAKE_COUNT", "1")
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__BRAKE_PERCENT", "20")
    for number in range(8):
        enrolled(store, f"fine_{number}")
    for number in range(2):
        expired_by_policy(store, f"crm_{number}")
    with pytest.raises(AskedError, match="2 of the 11 credentials of this client were already downgraded within"):
        approve(dies(store, "crm_2"))


def test_a_brake_of_zero_lets_nothing_happen_without_a_person(store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__BRAKE_COUNT", "0")
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__BRAKE_PERCENT", "0")
    with pytest.raises(AskedError, match="0 may be without a person"):
        approve(dies(store, "crm"))


def test_yesterdays_do_not_count(store):
    brake = configured_brake()
    for number in range(3):
        expired_by_policy(store, f"crm_{number}")
    credential = enrolled(store, "crm_3")
    assert store.clients.brake(credential, brake, utcnow())
    assert not store.clients.brake(credential, brake, utcnow() + brake.window + timedelta(minutes=1))


@pytest.mark.parametrize("option", ["brake_count", "brake_percent"])
@pytest.mark.parametrize("value", ["", "many", "-1", "nan", "10%"])
def test_an_option_that_is_no_number_is_named(option, value, store, monkeypatch):
    monkeypatch.setenv(f"AIRFLOW__OAUTH_GUARD__{option.upper()}", value)
    with pytest.raises(ConfigurationError, match=option):
        configured_brake()


# -- lapsed -----------------------------------------------------------------------------------------------------------


def rejected(store, conn_id: str) -> None:
    """An investigation proved its access token rejected, and nothing about its grant."""
    enrolled(store, conn_id)
    question = asked(store, conn_id, Finding.REQUEST_MALFORMED)
    concluded(store, question, Finding.REQUEST_MALFORMED, proven=False, access_token=Verdict.DEAD)


def test_the_fourth_is_not_set_lapsed_and_what_was_seen_is_kept_as_a_question(store):
    for number in range(4):
        rejected(store, f"crm_{number}")
    assert [store.credentials.get(f"crm_{number}").status for number in range(4)] == [
        *([Status.LAPSED] * 3),
        Status.ACTIVE,
    ]
    braked = store.credentials.get("crm_3")
    assert store.credentials.transitions(braked) == []
    with store.database.read() as connection:
        seen = connection.exec_driver_sql(
            "SELECT verdict, explanation FROM oauth_guard_evidence WHERE credential_id = ? AND rule = 'rejected_twice'",
            (braked.id,),
        ).one()
    assert seen.verdict == "open"
    assert "the brake holds: 3 of the 4 credentials of this client" in seen.explanation


def test_lapsed_and_expired_count_together(store):
    for number in range(2):
        expired_by_policy(store, f"crm_{number}")
    enrolled(store, "crm_2")
    lapse(store, "crm_2")
    rejected(store, "crm_3")
    assert store.credentials.get("crm_3").status is Status.ACTIVE


def test_a_credential_does_not_brake_itself(store):
    """It lapsed, and then its grant was proven dead: one credential, not two."""
    for number in range(2):
        expired_by_policy(store, f"crm_{number}")
    enrolled(store, "crm_2", expire_policy="evidence")
    lapse(store, "crm_2")
    question = asked(store, "crm_2")
    concluded(store, question)
    assert approve(question)["by"] == BY_POLICY
    assert store.credentials.latest_evidence(store.credentials.get("crm_2"), Kind.CONCLUSION).verdict is Verdict.DEAD
