from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("airflow", reason="operators need Airflow")

from airflow_oauth_guard.detector import causes
from airflow_oauth_guard.detector.causes import likely_cause
from airflow_oauth_guard.domain.evidence import Finding, Kind, Observer, Subject
from airflow_oauth_guard.domain.incidents import About, IncidentKind
from airflow_oauth_guard.domain.sources import Source, SqlCount
from airflow_oauth_guard.store.journal import Ended
from tests.airflow_parts import enrolled, evidence_of, expire, incident_about, renew, task_context, utcnow

pytestmark = pytest.mark.airflow

HOUR = timedelta(hours=1)
SPOKE = Observer("load_contacts", "run_1", "load", -1, 1)


def cause(store, name: str = "crm_contacts", context: Any = None, now: datetime | None = None) -> str:
    return likely_cause(store, store.sources.get(name), context or task_context("check"), now or utcnow())


def watch(store, *names: str, credential: str | None = "crm", since: timedelta = 5 * HOUR) -> None:
    for name in names:
        store.sources.declare(Source(name, HOUR, credential=credential), utcnow() - since)


def speak(store, *names: str, ago: timedelta = timedelta(minutes=5), who: Observer = Observer()) -> None:
    for name in names:
        store.sources.beat(name, 3, utcnow() - ago, who)


# -- its own word -----------------------------------------------------------------------------------------------------


def test_a_run_that_was_skipped_has_said_why(store):
    watch(store, "crm_contacts", credential=None)
    speak(store, "crm_contacts", ago=3 * HOUR)
    said = "skipped: credential `crm_prod` is expired (evidence 24: gone)"
    store.sources.beat("crm_contacts", 0, utcnow() - HOUR, Observer(), note=said)
    assert cause(store) == f"Likely cause: its last run said: {said}."
    speak(store, "crm_contacts")
    assert cause(store) == "", "that was before"


def test_what_a_run_noted_that_ran_is_only_a_hint(store):
    watch(store, "crm_contacts", credential=None)
    store.sources.beat("crm_contacts", 0, utcnow() - HOUR, Observer(), note="the file is empty")
    assert cause(store) == "Its last run said: the file is empty."


# -- the credential ---------------------------------------------------------------------------------------------------


def test_an_open_incident_of_its_credential_is_the_likely_cause(store):
    enrolled(store, "crm")
    incident_about(store, "crm", summary="Our request is wrong.")
    watch(store, "crm_contacts")
    assert cause(store) == "Likely cause: its credential `crm` (active): Our request is wrong."


def test_an_incident_of_its_client_is_a_likely_cause_too(store):
    credential = enrolled(store, "crm")
    incident_about(
        store, credential.client_name, IncidentKind.CLIENT_FAILING, about=About.CLIENT, summary="They fail together."
    )
    watch(store, "crm_contacts")
    assert cause(store).startswith("Likely cause: the client of its credential: They fail together.")


def test_an_expired_credential_is_the_likely_cause_with_what_it_rests_on(store):
    enrolled(store, "crm")
    expire(store, "crm")
    for incident in store.incidents.open_ones():
        store.incidents.resolve(incident.about, incident.name, "for the test", utcnow())
    watch(store, "crm_contacts")
    said = cause(store)
    assert said.startswith("Likely cause: its credential `crm` (expired): ")
    assert "made for a test" in said


def test_a_refresh_that_fails_is_the_likely_cause_before_anybody_opened_an_incident(store):
    enrolled(store, "crm")
    now = utcnow()
    lease = store.credentials.lease("crm", "a worker", HOUR, now)
    refused = evidence_of(Kind.REFRESH, Finding.PROVIDER_OUTAGE, Subject.PROVIDER, lease.credential, http_status=503)
    store.credentials.fail(lease, None, refused, attempt_after=now + HOUR, outcome=Ended.REFUSED, now=now)
    watch(store, "crm_contacts")
    said = cause(store)
    assert said.startswith("Likely cause: its credential `crm` (active): its refresh failed: HTTP 503: ")


def test_a_healthy_credential_points_elsewhere_and_an_unguarded_one_says_so(store):
    enrolled(store, "crm")
    watch(store, "crm_contacts")
    watch(store, "ads", credential="ads")
    assert cause(store) == "Its credential `crm` is active and nothing is open about it, so look elsewhere."
    assert cause(store, "ads") == "It is fed by `ads`, which is not guarded."


def test_a_credential_that_was_just_renewed_says_when_it_was_seen_alive(store):
    enrolled(store, "crm")
    renew(store, "crm")
    watch(store, "crm_contacts")
    assert "is active, was seen alive 0 s ago, and nothing is open about it" in cause(store)


def test_nothing_is_said_where_nothing_is_known(store):
    watch(store, "crm_contacts", credential=None)
    assert cause(store) == ""


def test_a_destination_that_could_not_be_asked_has_no_other_cause(store):
    enrolled(store, "crm")
    store.sources.declare(Source("crm_contacts", HOUR, "crm", SqlCount("warehouse", "SELECT 1")), utcnow())
    store.sources.not_found("crm_contacts", "TimeoutError: no answer", utcnow())
    assert cause(store) == ""


# -- siblings ---------------------------------------------------------------------------------------------------------


def test_siblings_that_speak_point_at_this_pipeline(store):
    enrolled(store, "crm")
    watch(store, "crm_contacts", "a", "b", "c", "d")
    speak(store, "a", "b", "c")
    assert cause(store).startswith("3 of 4 other sources of `crm` speak, so look at this pipeline. Its credential")


def test_siblings_that_are_quiet_too_point_at_what_they_share(store):
    enrolled(store, "crm")
    watch(store, "crm_contacts", "a", "b")
    said = cause(store)
    assert said.startswith("All 2 other sources of `crm` are quiet as well.")
    assert said.endswith("so look at what else these sources share.")


def test_one_sibling_is_no_crowd(store):
    watch(store, "crm_contacts", "a")
    assert cause(store).startswith("The other source of `crm` is quiet as well.")


def test_few_siblings_that_speak_point_nowhere(store):
    watch(store, "crm_contacts", "a", "b", "c")
    speak(store, "a")
    assert cause(store).startswith("1 of 3 other sources of `crm` speak. ")


def test_a_sibling_is_judged_as_it_is_now_and_not_as_the_last_pass_found_it(store):
    watch(store, "crm_contacts", "a")
    speak(store, "a")
    assert "1 of 1 other sources of `crm` speak" in cause(store)
    assert "is quiet as well" in cause(store, now=utcnow() + 3 * HOUR)


def test_a_sibling_that_need_not_have_spoken_yet_says_nothing(store):
    watch(store, "crm_contacts")
    watch(store, "new", since=timedelta(minutes=1))
    assert "other source" not in cause(store)


def test_other_credentials_of_its_client_that_fail_are_named(store):
    for name in ("crm", "crm_2", "crm_3", "crm_4"):
        enrolled(store, name)
    enrolled(store, "ads", client_key="client-b")
    for name in ("crm_2", "ads"):
        expire(store, name)
    watch(store, "crm_contacts")
    assert "1 of 3 other credentials of its client fail as well: `crm_2`." in cause(store)


def test_of_many_failing_credentials_a_few_are_named(store):
    for number in range(9):
        enrolled(store, f"crm_{number}")
    for number in range(1, 9):
        expire(store, f"crm_{number}")
    store.sources.declare(Source("crm_contacts", HOUR, "crm_0"), utcnow())
    assert "8 of 8 other credentials of its client fail as well: `crm_1`, `crm_2`" in cause(store)
    assert "`crm_5` and 3 more." in cause(store)


# -- the DAG ----------------------------------------------------------------------------------------------------------


class Airflow:
    """What Airflow would tell a task about the DAG ``load_contacts``; the real thing is asked in ``tests/e2e``."""

    def __init__(self, monkeypatch) -> None:
        self.run: Any = None
        self.runs = 7
        self.active = 0
        self.tasks: dict[str, Any] = {"load": "success"}
        self.is_paused = False
        monkeypatch.setattr(causes, "last_run", lambda dag_id, now: self.run)

    def last(self, state: str, run_id: str = "run_2", **changes: Any) -> None:
        given = {"start_date": utcnow() - 3 * HOUR, "run_after": utcnow() - 3 * HOUR, "end_date": utcnow(), **changes}
        self.run = SimpleNamespace(run_id=run_id, state=state, **given)

    def context(self, *, tells_pauses: bool = True) -> dict[str, Any]:
        context = task_context("check")
        context["ti"].get_dr_count = lambda dag_id, states=None: self.active if states else self.runs
        context["ti"].get_task_states = lambda dag_id, task_ids, run_ids: {run_ids[0]: self.tasks}
        if tells_pauses:
            context["ti"].get_dag = lambda dag_id: SimpleNamespace(is_paused=self.is_paused)
        return context


@pytest.fixture
def airflow(monkeypatch) -> Airflow:
    return Airflow(monkeypatch)


@pytest.fixture
def spoke(store):
    """A source that a task of ``load_contacts`` spoke for three hours ago."""
    watch(store, "crm_contacts", credential=None)
    speak(store, "crm_contacts", ago=3 * HOUR, who=SPOKE)


def test_a_failed_run_is_the_likely_cause(store, spoke, airflow):
    airflow.last("failed")
    airflow.tasks = {"load": "upstream_failed"}
    said = cause(store, context=airflow.context())
    assert said.startswith("Likely cause: the last run of DAG `load_contacts`, `run_2`, failed at 20")
    assert said.endswith("Z (task `load`: upstream_failed).")


def test_a_run_that_takes_long_is_the_likely_cause_and_a_fresh_one_is_only_mentioned(store, spoke, airflow):
    airflow.last("running", end_date=None)
    airflow.tasks = {"load": None}
    said = cause(store, context=airflow.context())
    assert said == (
        "Likely cause: the last run of DAG `load_contacts`, `run_2`, has been running for 3 h (task `load`: not begun)."
    )
    airflow.last("queued", end_date=None, start_date=None, run_after=utcnow() - timedelta(minutes=3))
    said = cause(store, context=airflow.context())
    assert said.startswith("The last run of DAG `load_contacts`, `run_2`, has been queued for 3 min")


def test_a_run_that_succeeded_without_the_task_that_speaks_is_the_likely_cause(store, spoke, airflow):
    airflow.last("success")
    airflow.tasks = {"load": "skipped"}
    assert "`run_2`, succeeded at 20" in cause(store, context=airflow.context())
    assert "(task `load`: skipped)" in cause(store, context=airflow.context())
    airflow.tasks = {}
    assert "and has no task `load`, which spoke last" in cause(store, context=airflow.context())


def test_a_run_that_succeeded_is_no_cause(store, spoke, airflow):
    airflow.last("success")
    airflow.tasks = {"load_0": "success", "load_1": "success"}
    said = cause(store, context=airflow.context())
    assert said == "The last run of DAG `load_contacts`, `run_2`, succeeded."


@pytest.mark.parametrize("run_id", ["run_1", "run_0"])
def test_a_dag_that_has_not_run_since_says_so(run_id, store, spoke, airflow):
    airflow.last("success", run_id, end_date=utcnow() - 4 * HOUR)
    said = cause(store, context=airflow.context())
    assert said == "Likely cause: no run of DAG `load_contacts` has begun since the one that spoke last, `run_1`."


def test_a_paused_dag_is_said_before_everything_else(store, spoke, airflow):
    store.sources.declare(Source("crm_contacts", HOUR, credential="crm"), utcnow())
    enrolled(store, "crm")
    incident_about(store, "crm", summary="Our request is wrong.")
    airflow.is_paused = True
    airflow.last("success", "run_1")
    said = cause(store, context=airflow.context())
    assert said.startswith("Likely cause: DAG `load_contacts`, which feeds it, is paused. Its credential `crm`")
    assert "paused" not in cause(store, context=airflow.context(tells_pauses=False))


def test_a_dag_that_is_gone_is_the_likely_cause(store, spoke, airflow):
    airflow.runs = 0
    assert cause(store, context=airflow.context()).startswith(
        "Likely cause: Airflow knows no run of DAG `load_contacts`"
    )


@pytest.mark.parametrize(("active", "said"), [(2, "2 runs of it are queued or running"), (0, "none of its runs")])
def test_of_runs_without_a_date_only_their_number_is_known(active, said, store, spoke, airflow):
    airflow.active = active
    assert cause(store, context=airflow.context()).startswith(f"DAG `load_contacts` feeds it, and {said}")


def test_what_airflow_does_not_tell_is_logged_and_left_out(store, spoke, airflow, caplog):
    airflow.last("failed")
    assert cause(store, context=task_context("check")) == ""
    assert "Airflow does not tell what DAG `load_contacts` of `crm_contacts` does" in caplog.text


def test_a_source_that_no_dag_spoke_for_asks_airflow_nothing(store, caplog):
    watch(store, "crm_contacts", credential=None)
    speak(store, "crm_contacts", ago=3 * HOUR)
    assert cause(store) == ""
    assert not caplog.records
