"""The device authorization grant: RFC 8628. How a person connects a credential from a terminal; refreshing goes on without."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, read_body, said
from airflow_oauth_guard.domain.evidence import Finding, Reading, Subject
from airflow_oauth_guard.domain.reading import read_token_answer
from airflow_oauth_guard.grants.flow import Grant, HttpRequest, Outcome
from airflow_oauth_guard.grants.token_request import token_request

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_INTERVAL = timedelta(seconds=5)
"""RFC 8628 section 3.2."""
SLOWER_BY = timedelta(seconds=5)
"""RFC 8628 section 3.5, for ``slow_down``."""
LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True)
class Invitation:
    """What a person has to do (RFC 8628 section 3.2)."""

    user_code: str
    verification_uri: str
    expires_in: timedelta


@dataclass(frozen=True)
class Poll:
    """Ask again after this long."""

    after: timedelta
    request: HttpRequest


DeviceFlow = Generator[HttpRequest | Invitation | Poll, Answer | None, Outcome]


def connect(grant: Grant, now: datetime) -> DeviceFlow:
    """Yield the first request, then the invitation, then polls until the person has answered; returns what came of it.

    An :class:`Invitation` is to be shown and answered with None; requests and polls are answered with what came back.
    """
    answer = yield _authorization_request(grant, now)
    assert answer is not None
    fields = read_body(answer.body).document if isinstance(answer, HttpAnswer) else {}
    device_code = str(fields.get("device_code") or "")
    if not device_code:
        reading = read_token_answer(answer, grant.dialect)
        if reading.finding is Finding.LIVE:
            reading = Reading(Subject.REQUEST, Finding.UNKNOWN, "no_device_code", "the answer holds no `device_code`")
        return Outcome(reading)
    yield Invitation(
        user_code=str(fields.get("user_code", "")),
        verification_uri=str(fields.get("verification_uri_complete") or fields.get("verification_uri", "")),
        expires_in=_seconds(fields.get("expires_in"), LONGEST_WAIT),
    )
    interval = _seconds(fields.get("interval"), DEFAULT_INTERVAL)
    while True:
        answer = yield Poll(interval, _poll_request(grant, device_code, now))
        assert answer is not None
        codes = said(read_body(answer.body)).codes if isinstance(answer, HttpAnswer) and answer.status >= 300 else ()
        if "slow_down" in codes:
            interval += SLOWER_BY
        elif "authorization_pending" not in codes and isinstance(answer, HttpAnswer):
            return grant.read(answer)
        elif not isinstance(answer, HttpAnswer):
            # RFC 8628 section 3.5: after a timeout, ask less often.
            interval *= 2


def _authorization_request(grant: Grant, now: datetime) -> HttpRequest:
    settings = grant.settings
    asked = replace(
        settings,
        token_url=settings.facts.device_authorization_url,
        audience=settings.audience or settings.token_url,
        facts=replace(settings.facts, parameters={}, method="POST"),
    )
    return token_request(asked, {"scope": " ".join(settings.scopes)}, now)


def _poll_request(grant: Grant, device_code: str, now: datetime) -> HttpRequest:
    return token_request(grant.settings, {"grant_type": GRANT_TYPE, "device_code": device_code}, now)


def _seconds(value: object, default: timedelta) -> timedelta:
    number = value if isinstance(value, int) and not isinstance(value, bool) else 0
    return timedelta(seconds=number) if 0 < number <= LONGEST_WAIT.total_seconds() else default
