"""Alerts through Airflow's own notifiers, to receivers on this machine that take them, refuse them, or are away."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("airflow", reason="notifiers need Airflow")

from aiosmtpd.controller import Controller
from airflow.providers.apprise.notifications.apprise import AppriseNotifier
from airflow.providers.http.notifications.http import HttpNotifier
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import BaseNotifier

from airflow_oauth_guard.domain.incidents import About, Incident, IncidentKind
from airflow_oauth_guard.errors import NeedsAPersonError
from airflow_oauth_guard.operators.flat_line import AlertOperator
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.store import Store
from tests.airflow_parts import task_context, utcnow

# Apprise loads every service it knows at the first alert, and what some of them import warns about itself.
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")]

HERE = "127.0.0.1"
SENTENCE = "{{ oauth_guard.sentence() }}"
TRIES = 3


# -- receivers ----------------------------------------------------------------------------------------------------------


@dataclass
class Inbox:
    """What arrived."""

    port: int = 0
    refuses: bool = False
    asked: int = 0
    messages: list[str] = field(default_factory=list)

    def takes(self, message: str) -> bool:
        self.asked += 1
        if not self.refuses:
            self.messages.append(message)
        return not self.refuses


class MailHandler:
    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = message_from_bytes(envelope.content, policy=policy.default)
        body = message.get_body() or next(message.iter_parts())
        taken = self.inbox.takes(f"{message['subject']}\n{body.get_content()}")
        return "250 Message accepted" if taken else "451 try again later"


@pytest.fixture
def mail() -> Iterator[Inbox]:
    inbox = Inbox(free_port())
    controller = Controller(MailHandler(inbox), hostname=HERE, port=inbox.port)
    controller.start()
    yield inbox
    controller.stop()


@pytest.fixture
def web() -> Iterator[Inbox]:
    with serving(Inbox()) as inbox:
        yield inbox


class serving:
    """A web server that keeps the text of the JSON it is sent."""

    def __init__(self, inbox: Inbox) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200 if inbox.takes(sent.get("text") or sent["message"]) else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.inbox = inbox
        self.server = ThreadingHTTPServer((HERE, 0), Handler)
        inbox.port = self.server.server_port
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Inbox:
        self.thread.start()
        return self.inbox

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def free_port() -> int:
    with socket.create_server((HERE, 0)) as listener:
        return int(listener.getsockname()[1])


# -- notifiers, as a user writes them -----------------------------------------------------------------------------------


@pytest.fixture
def connection(monkeypatch):
    def define(conn_id: str, **fields: Any) -> str:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        return conn_id

    return define


def by_mail(connection, port: int) -> BaseNotifier:
    # Airflow's hook would try six times by itself, at once.
    tries = {"retry_limit": 0, "timeout": 5}
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "guard@airflow.example", **tries}
    conn_id = connection("alerts_mail", conn_type="smtp", host=HERE, port=port, extra=extra)
    subject = "{{ oauth_guard.name }}: {{ oauth_guard.kind.headline }}"
    return SmtpNotifier(to="data@airflow.example", subject=subject, html_content=SENTENCE, smtp_conn_id=conn_id)


def by_webhook(connection, port: int) -> BaseNotifier:
    conn_id = connection("alerts_web", conn_type="http", host=f"http://{HERE}", port=port)
    return HttpNotifier(http_conn_id=conn_id, endpoint="/hook/t0ken", json={"text": SENTENCE})


def by_apprise(connection, *ports: int) -> BaseNotifier:
    paths = [{"path": f"json://guard:t0ken@{HERE}:{port}/", "tag": "alerts"} for port in ports]
    conn_id = connection("alerts_apprise", conn_type="apprise", extra={"config": paths})
    return AppriseNotifier(title="OAuth Guard", body=SENTENCE, tag="alerts", apprise_conn_id=conn_id)


@dataclass(frozen=True)
class Way:
    receiver: str
    notifier: Callable[..., BaseNotifier]
    refused: str
    """What the incident says of a refusal."""
    away: str


WAYS = {
    "SmtpNotifier": Way("mail", by_mail, "(451, b'try again later')", "Connection refused"),
    "HttpNotifier": Way("web", by_webhook, "503:Service Unavailable", "Connection refused"),
    "AppriseNotifier": Way(
        "web", by_apprise, *["None of 1 Apprise services took the alert; Apprise's own log lines say why."] * 2
    ),
}


@dataclass
class Alarm:
    inbox: Inbox
    notifier: BaseNotifier
    way: Way


@pytest.fixture(params=WAYS)
def alarm(request, connection) -> Alarm:
    way = WAYS[request.param]
    inbox = request.getfixturevalue(way.receiver)
    return Alarm(inbox, way.notifier(connection, inbox.port), way)


def quiet(store: Store, name: str = "orders") -> Incident:
    summary = f"No rows for 9 h; on Tuesdays at this hour 98 % of loads of `{name}` had some."
    return store.incidents.open(Symptom(About.SOURCE, name, IncidentKind.FLAT, summary, utcnow()), utcnow())


def alert(*notifiers: BaseNotifier, **routes: list[BaseNotifier]) -> None:
    operator = AlertOperator(task_id="alert", incidents=["source/orders"], notifiers={"": list(notifiers), **routes})
    operator.execute(task_context("alert"))


def now_open(store: Store) -> Incident:
    incident = store.incidents.open_about(About.SOURCE, "orders")
    assert incident is not None
    return incident


# -- stories ------------------------------------------------------------------------------------------------------------


def test_an_alert_arrives_once_and_says_what_is_wrong(store, alarm):
    incident = quiet(store)
    for _ in range(2):
        with pytest.raises(NeedsAPersonError):
            alert(alarm.notifier)
    [message] = alarm.inbox.messages
    assert incident.sentence() in message
    assert store.incidents.open_ones(About.ROUTE) == []


def test_a_receiver_that_refuses_is_an_incident_until_it_takes_the_alert(store, alarm):
    quiet(store)
    alarm.inbox.refuses = True
    with pytest.raises(Exception, match=r".") as refused:
        alert(alarm.notifier)
    assert not isinstance(refused.value, NeedsAPersonError), "the task says that the alert did not get through"
    assert alarm.inbox.asked == TRIES
    [failing] = store.incidents.open_ones(About.ROUTE)
    assert alarm.way.refused in failing.summary
    assert (failing.name, failing.kind) == (f"default/{type(alarm.notifier).__name__}", IncidentKind.ALERTS_FAILING)
    assert "t0ken" not in failing.summary
    assert now_open(store).times_told == 0
    alarm.inbox.refuses = False
    with pytest.raises(NeedsAPersonError):
        alert(alarm.notifier)
    assert [message.count("No rows for 9 h") for message in alarm.inbox.messages] == [1]
    assert now_open(store).times_told == 1
    assert store.incidents.open_ones(About.ROUTE) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_receiver_that_is_away_is_an_incident_too(store, connection, way):
    quiet(store)
    with pytest.raises(Exception, match=r"."):
        alert(WAYS[way].notifier(connection, free_port()))
    [failing] = store.incidents.open_ones(About.ROUTE)
    assert WAYS[way].away in failing.summary
    assert failing.name == f"default/{way}"
    assert "t0ken" not in failing.summary
    assert now_open(store).times_told == 0


def test_that_the_mail_server_refuses_is_told_through_the_webhook(store, connection, mail, web):
    quiet(store)
    mail.refuses = True
    with pytest.raises(Exception, match=r"."):
        alert(by_mail(connection, mail.port), by_webhook(connection, web.port))
    told, failing = web.messages
    assert told.startswith("source `orders`")
    assert failing.startswith("route `default/SmtpNotifier`: alerts cannot be sent. The alert about source `orders`")
    assert "451" in failing
    assert now_open(store).times_told == 1, "somebody knows"


def test_what_one_of_two_apprise_services_took_is_not_sent_to_it_again(store, connection, web):
    quiet(store)
    with serving(Inbox(refuses=True)) as other:
        notifier = by_apprise(connection, other.port, web.port)
        with pytest.raises(Exception, match="1 of 2 Apprise services did not take the alert"):
            alert(notifier)
        with pytest.raises(NeedsAPersonError):
            alert(notifier)
    assert (len(web.messages), other.asked) == (1, 1)
    [failing] = store.incidents.open_ones(About.ROUTE)
    assert failing.name == "default/AppriseNotifier"


def test_apprise_without_any_service_for_the_alert_has_told_nobody(store, connection, web):
    quiet(store)
    notifier = by_apprise(connection, web.port)
    notifier.tag = "nobody"
    with pytest.raises(Exception, match="None of 0 Apprise services took the alert"):
        alert(notifier)
    assert now_open(store).times_told == 0


def test_what_nobody_acknowledges_goes_to_those_of_the_escalation(store, connection, mail, web, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__ESCALATE_AFTER_HOURS", "24")
    quiet(store)
    first, boss = by_mail(connection, mail.port), by_webhook(connection, web.port)
    assert store.incidents.claim_telling(now_open(store), utcnow() - timedelta(hours=25))
    for _ in range(2):
        with pytest.raises(NeedsAPersonError):
            alert(first, escalation=[boss])
    assert (len(mail.messages), len(web.messages)) == (1, 1)
    assert now_open(store).escalated_at is not None
