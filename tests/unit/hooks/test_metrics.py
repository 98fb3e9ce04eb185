"""Metrics as a server receives them, sent by Airflow's own client as ``[metrics]`` says."""

from __future__ import annotations

import logging
import re
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import pytest

pytest.importorskip("airflow", reason="metrics are sent by Airflow")
pytest.importorskip("statsd", reason="Airflow sends to StatsD with it")

import time_machine
from statsd import StatsClient

from airflow_oauth_guard.domain import metrics as table
from airflow_oauth_guard.domain.evidence import Finding
from airflow_oauth_guard.domain.flat_line import Standing
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import StoreUnavailableError
from airflow_oauth_guard.hooks import metrics
from airflow_oauth_guard.hooks.refreshing import Refreshed
from airflow_oauth_guard.operators.due import DueCredentialsOperator
from airflow_oauth_guard.operators.flat_line import DetectorCheckOperator, FlatLineOperator
from airflow_oauth_guard.operators.refresh import RefreshOperator
from airflow_oauth_guard.store.records import Credential
from tests.airflow_parts import (
    HOUR,
    WHO,
    asked,
    concluded,
    enrolled,
    expire,
    looked_into,
    make_due,
    question_of,
    task_context,
    utcnow,
)
from tests.stats_server import StatsServer, configure, stats_server

pytestmark = [
    pytest.mark.airflow,
]

CRM = {"connection_class": "refresh_token", "provider": "hubspot"}


@pytest.fixture
def own_monkeypatch():
    """Undone by the server, before anything else is."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def plain(own_monkeypatch) -> StatsServer:
    """StatsD as it comes: it knows no tags."""
    with stats_server(own_monkeypatch) as server:
        yield server


@pytest.fixture
def tagged(own_monkeypatch) -> StatsServer:
    """StatsD that is sent tags, as InfluxDB's agent understands them."""
    with stats_server(own_monkeypatch, statsd_influxdb_enabled="True") as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_said_yet():
    metrics._say_once.cache_clear()


class Raises(StatsClient):
    """What somebody may have written and configured."""

    def incr(self, *args, **kwargs):
        raise RuntimeError("the disk of the collector is full")

    gauge = timing = incr


@pytest.fixture
def time_machine_at():
    """Travel there, until the test is over."""
    with ExitStack() as stack:
        yield lambda moment: stack.enter_context(time_machine.travel(moment, tick=True))


# -- names and tags ---------------------------------------------------------------------------------------------------


def test_with_tags_a_metric_has_one_name(tagged):
    metrics.count(table.REFRESH, outcome="failed", **CRM)
    assert tagged.received() == [
        "oauth_guard.refresh,outcome=failed,connection_class=refresh_token,provider=hubspot:1|c"
    ]


def test_without_tags_the_first_one_becomes_part_of_the_name(plain):
    metrics.count(table.REFRESH, outcome="failed", **CRM)
    metrics.gauge(table.CREDENTIAL_TIME_TO_LAPSE, 12.4, credential="crm.prod")
    assert plain.received() == ["oauth_guard.refresh.failed:1|c", "oauth_guard.credential_time_to_lapse.crm_prod:12|g"]


def test_a_tag_that_is_not_known_says_so(tagged):
    metrics.count(table.PROBE, finding="live", connection_class="refresh_token", provider="")
    assert tagged.received() == ["oauth_guard.probe,finding=live,connection_class=refresh_token,provider=unknown:1|c"]


@pytest.mark.parametrize("name", ["eu/crm:1 (prod)#2,a=b", "ü" * 300, "x" * 300])
def test_a_name_that_airflow_would_refuse_is_made_fit(own_monkeypatch, name):
    for options in ({}, {"statsd_influxdb_enabled": "True"}):
        with stats_server(own_monkeypatch, **options) as server:
            metrics.gauge(table.CREDENTIAL_TIME_TO_LAPSE, 1, credential=name)
            assert len(server.received()) == 1, options


@pytest.mark.parametrize("metric", table.METRICS, ids=lambda metric: metric.name)
def test_every_metric_can_be_sent_and_says_what_it_is(tagged, metric):
    tags = dict.fromkeys(metric.tags, "x")
    {"counter": metrics.count, "gauge": metrics.gauge, "timer": metrics.timing}[metric.kind](
        metric, **{"counter": {}, "gauge": {"value": 1}, "timer": {"took": HOUR}}[metric.kind], **tags
    )
    kind = {"counter": "1|c", "gauge": "1|g", "timer": "|ms"}[metric.kind]
    assert tagged.received() == [",".join([metric.name, *(f"{tag}=x" for tag in metric.tags)]) + f":{kind}"]
    assert metric.meaning.endswith(".")


def test_every_metric_is_in_the_table_once():
    there = [one for one in vars(table).values() if isinstance(one, table.Metric)]
    assert sorted(there, key=lambda one: one.name) == sorted(table.METRICS, key=lambda one: one.name)
    assert len({one.name for one in there}) == len(there)
    assert all(re.fullmatch(r"oauth_guard\.[a-z_]+", one.name) for one in there)


# -- what must not happen ---------------------------------------------------------------------------------------------


def test_where_nobody_wants_metrics_nothing_is_done(own_monkeypatch):
    asked_for = []
    with stats_server(own_monkeypatch, statsd_on="False") as server:
        metrics.count(table.REFRESH, outcome="failed", **CRM)
        metrics.sources(lambda: asked_for.append(1) or {})
        assert server.received() == []
    assert not asked_for, "nothing is counted that nobody gets to see"


BROKEN = {
    "a host nobody knows": {"statsd_host": "statsd.invalid"},
    "a port nobody listens at": {"statsd_host": "127.0.0.1", "statsd_port": "1"},
    "a client that is none": {"statsd_custom_client_path": "collections.OrderedDict"},
    "a client that cannot be imported": {"statsd_custom_client_path": "nowhere.Client"},
    "a client that raises": {"statsd_custom_client_path": "tests.unit.hooks.test_metrics.Raises"},
    "no port": {"statsd_port": "eight"},
    "no yes and no no about tags": {"statsd_influxdb_enabled": "perhaps"},
}


@pytest.mark.parametrize("options", BROKEN.values(), ids=BROKEN)
def test_a_metric_that_cannot_be_sent_breaks_nothing_and_is_said_at_most_once(own_monkeypatch, caplog, options):
    with stats_server(own_monkeypatch) as server:
        configure(own_monkeypatch, **options)
        began = time.monotonic()
        for _ in range(3):
            metrics.count(table.REFRESH, outcome="failed", **CRM)
            metrics.credentials([], utcnow())
        assert time.monotonic() - began < 5
        assert server.received() == []
        configure(own_monkeypatch, statsd_on="True")
    assert caplog.text.count("Metrics cannot be sent") <= 1


def test_what_keeps_them_from_being_sent_is_in_the_log(plain, own_monkeypatch, caplog):
    configure(own_monkeypatch, statsd_custom_client_path="tests.unit.hooks.test_metrics.Raises")
    metrics.count(table.REFRESH, outcome="failed", **CRM)
    metrics.count(table.REFRESH, outcome="failed", **CRM)
    [said] = [record for record in caplog.records if record.name == metrics.__name__]
    assert said.levelno == logging.WARNING
    assert "the disk of the collector is full" in said.exc_text


def test_a_store_that_cannot_count_its_sources_breaks_no_pass(plain, caplog):
    def fails():
        raise StoreUnavailableError("the database is asleep")

    metrics.sources(fails)
    assert "the database is asleep" in caplog.text


def test_a_tag_that_was_forgotten_breaks_no_work(plain, caplog):
    metrics.count(table.REFRESH, outcome="failed")
    assert plain.received() == []
    assert "Metrics cannot be sent" in caplog.text


# -- one event, one metric --------------------------------------------------------------------------------------------


def test_a_refresh_is_counted_once_and_timed_where_the_provider_was_asked(tagged, store, connect):
    guarded = connect()
    guarded.refresh(store)
    of = "connection_class=refresh_token,provider=unknown"
    renewed = [
        f"oauth_guard.refresh,outcome=renewed,{of}:1|c",
        f"oauth_guard.refresh_duration,outcome=renewed,{of}:|ms",
    ]
    assert [line for line in tagged.received() if "probe" not in line] == renewed
    guarded.refresh(store)
    assert tagged.received() == [f"oauth_guard.refresh,outcome=fresh,{of}:1|c"], "nothing was sent, so nothing is timed"
    guarded.server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    guarded.refresh(store)
    assert tagged.received() == [line.replace("renewed", "failed") for line in renewed]
    guarded.refresh(store)
    assert tagged.received() == [f"oauth_guard.refresh,outcome=held,{of}:1|c"]


def test_a_connection_that_names_its_provider_is_told_by_it(tagged, store, connect):
    guarded = connect("two_step")
    guarded.refresh(store)
    assert "oauth_guard.refresh,outcome=renewed,connection_class=two_step,provider=vendor:1|c" in tagged.received()


def test_each_credential_of_a_batch_is_counted(plain, store, connect):
    fine, broken = connect(), connect(suffix="_b")
    broken.fault("status", status=503)
    conn_ids = [fine.conn_id, broken.conn_id]
    RefreshOperator(task_id="refresh", conn_ids=conn_ids).execute(task_context("refresh"))
    counted = [line for line in plain.received() if line.startswith("oauth_guard.refresh.")]
    assert sorted(counted) == ["oauth_guard.refresh.failed:1|c", "oauth_guard.refresh.renewed:1|c"]


def test_a_refresh_goes_on_where_no_metric_can_be_sent(plain, own_monkeypatch, store, connect):
    configure(own_monkeypatch, statsd_custom_client_path="tests.unit.hooks.test_metrics.Raises")
    assert connect().refresh(store).outcome is Refreshed.RENEWED


def test_an_investigation_counts_what_it_sees_and_one_verdict(tagged, store, connect):
    guarded = connect()
    guarded.refresh(store)
    guarded.server.revoke(guarded.conn_id)
    make_due(store, guarded.conn_id)
    question = question_of(store, guarded)
    tagged.received()
    looked_into(store, guarded, question)
    received = tagged.received()
    verdicts = [line for line in received if line.startswith("oauth_guard.verdict")]
    assert verdicts == [
        "oauth_guard.verdict,finding=grant_dead,verdict=dead,connection_class=refresh_token,provider=unknown:1|c"
    ]
    probes = [
        item for item in store.investigations.evidence(store.investigation(question)) if item.kind.value == "probe"
    ]
    assert [line for line in received if line.startswith("oauth_guard.probe")] == [
        f"oauth_guard.probe,finding={item.finding.value},connection_class=refresh_token,provider=unknown:1|c"
        for item in probes
    ]
    assert probes


def test_a_proven_death_is_a_verdict_and_not_yet_an_expiry(plain, store):
    enrolled(store)
    concluded(store, asked(store))
    assert plain.received() == [f"oauth_guard.verdict.{Finding.GRANT_DEAD.value}:1|c"]


# -- how the credentials are ------------------------------------------------------------------------------------------


def test_each_cycle_tells_how_all_credentials_are(tagged, store):
    for conn_id, hours in [("crm", 3), ("shop", 2), ("mail", 9)]:
        enrolled(store, conn_id, expires_at=utcnow() + hours * HOUR)
    enrolled(store, "app", connection_class="client_credentials", expires_at=utcnow() + 5 * HOUR)
    enrolled(store, "old", expires_at=utcnow() + HOUR / 2)
    expire(store, "old")
    tagged.received()
    DueCredentialsOperator(task_id="due").execute(task_context("due"))
    told = dict(line.removesuffix("|g").split(":") for line in tagged.received())
    assert {name: int(value) for name, value in told.items() if "credentials" in name and "time" not in name} == {
        "oauth_guard.credentials,status=active": 4,
        "oauth_guard.credentials,status=lapsed": 0,
        "oauth_guard.credentials,status=expired": 1,
    }
    left = {name: int(value) for name, value in told.items() if "time_to_lapse" in name}
    assert left.keys() == {
        "oauth_guard.time_to_lapse,connection_class=refresh_token",
        "oauth_guard.time_to_lapse,connection_class=client_credentials",
        "oauth_guard.credential_time_to_lapse,credential=old",
    }
    # The expired one has less, but is not waited for any more.
    assert 7100 < left["oauth_guard.time_to_lapse,connection_class=refresh_token"] <= 7200
    assert 1700 < left["oauth_guard.credential_time_to_lapse,credential=old"] <= 1800


def test_time_that_has_run_out_is_zero_and_time_nobody_knows_is_not_told(tagged, store):
    over = enrolled(store, "crm", expires_at=utcnow() - HOUR)
    unknown = enrolled(store, "shop", expires_at=None, connection_class="long_lived_token")
    metrics.credentials([over, unknown], utcnow())
    told = [line for line in tagged.received() if "time_to_lapse" in line]
    assert told == ["oauth_guard.time_to_lapse,connection_class=refresh_token:0|g"]


def in_trouble(one: Credential, number: int, **changes) -> Credential:
    expires_at = utcnow() + timedelta(minutes=number)
    return replace(
        one,
        conn_id=f"crm_{number}",
        failures=1,
        life=replace(one.life, expires_at=expires_at, issued_at=None),
        **changes,
    )


def test_an_outage_of_fifty_thousand_credentials_is_a_hundred_metrics(tagged, store):
    """Each one that is in trouble would be a packet of its own, in every cycle."""
    one = enrolled(store)
    active = [in_trouble(one, number) for number in range(50_000, 950, -1)]
    expired = [in_trouble(one, number, status=Status.EXPIRED) for number in range(900)]
    metrics.credentials([*expired, *active], utcnow())
    told = [line for line in tagged.received() if line.startswith("oauth_guard.credential_time_to_lapse")]
    names = [re.search(r"credential=(\w+)", line)[1] for line in told]
    assert names == [f"crm_{number}" for number in range(951, 951 + table.IN_TROUBLE_AT_MOST)], (
        "those that can still be saved, the nearest first"
    )


def test_a_healthy_credential_has_no_gauge_of_its_own(plain, store):
    metrics.credentials([enrolled(store, f"crm_{number}") for number in range(20)], utcnow())
    assert not [line for line in plain.received() if "credential_time_to_lapse" in line]


# -- how the sources are ----------------------------------------------------------------------------------------------


def flat_line_pass(store) -> None:
    FlatLineOperator(task_id="check").execute(task_context("check"))


def test_a_source_that_goes_quiet_is_counted_once_and_stands_in_the_gauge(plain, store, time_machine_at):
    store.sources.declare(Source("crm", window=HOUR), utcnow())
    store.sources.declare(Source("shop", window=100 * HOUR), utcnow())
    flat_line_pass(store)
    assert plain.received() == [
        f"oauth_guard.sources.{standing.value}:{2 if standing is Standing.FINE else 0}|g" for standing in Standing
    ]
    time_machine_at(utcnow() + 3 * HOUR)
    flat_line_pass(store)
    received = plain.received()
    assert received[0] == "oauth_guard.flat_line.late:1|c"
    assert "oauth_guard.sources.late:1|g" in received
    assert "oauth_guard.sources.fine:1|g" in received
    # Declared anew it is looked at again.
    store.sources.declare(Source("crm", window=HOUR, urgent=True), utcnow())
    flat_line_pass(store)
    received = plain.received()
    assert "oauth_guard.sources.late:1|g" in received
    assert not [line for line in received if "flat_line" in line], "it is the same incident"


def test_a_quiet_source_that_turns_flat_is_counted_again(plain, store, time_machine_at):
    store.sources.declare(Source("crm", window=HOUR), utcnow())
    store.sources.beat("crm", 5, utcnow(), WHO)
    time_machine_at(utcnow() + 3 * HOUR)
    flat_line_pass(store)
    assert "oauth_guard.flat_line.late:1|c" in plain.received()
    store.sources.beat("crm", 0, utcnow(), replace(WHO, try_number=2))
    flat_line_pass(store)
    assert [line for line in plain.received() if "flat_line" in line] == ["oauth_guard.flat_line.flat:1|c"]


def test_everything_that_goes_quiet_at_once_is_one(plain, store, time_machine_at):
    for number in range(40):
        store.sources.declare(Source(f"crm_{number}", window=HOUR), utcnow())
        store.sources.beat(f"crm_{number}", 5, utcnow(), replace(WHO, dag_id=f"load_{number}"))
    time_machine_at(utcnow() + 3 * HOUR)
    flat_line_pass(store)
    received = plain.received()
    assert [line for line in received if "flat_line" in line] == [
        f"oauth_guard.flat_line.{IncidentKind.EVERYTHING_QUIET.value}:1|c"
    ]
    assert "oauth_guard.sources.unknown:40|g" in received
    # One that speaks again is looked at, and so is the incident.
    store.sources.beat("crm_0", 5, utcnow(), replace(WHO, dag_id="load_0", try_number=2))
    flat_line_pass(store)
    received = plain.received()
    assert "oauth_guard.sources.unknown:39|g" in received
    assert not [line for line in received if "flat_line" in line]


def test_a_detector_that_is_silent_is_counted_by_whoever_notices(plain, store, time_machine_at):
    from airflow_oauth_guard.detector.passing import DETECTOR_SOURCE
    from airflow_oauth_guard.errors import NeedsAPersonError

    store.sources.declare(DETECTOR_SOURCE, utcnow())
    store.sources.beat(DETECTOR_SOURCE.name, 1, utcnow(), WHO)
    time_machine_at(utcnow() + 9 * HOUR)
    for expected in (["oauth_guard.flat_line.late:1|c"], []):
        with pytest.raises(NeedsAPersonError):
            DetectorCheckOperator(task_id="detector").execute(task_context("detector"))
        assert plain.received() == expected
