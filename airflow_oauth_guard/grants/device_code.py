"""The device authorization grant: RFC 8628. How a person connects a credential from elsewhere than their browser; refreshing
goes on without.

Each step stands alone, so that whoever asks may forget everything between two polls but the device code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, read_body, said
from airflow_oauth_guard.domain.evidence import TRANSIENT, Finding, Reading, Subject
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
    """What a person has to do, and what we have to do meanwhile (RFC 8628 section 3.2)."""

    user_code: str
    verification_uri: str
    """Empty where the provider named none that a browser may be sent to."""
    expires_in: timedelta
    verification_uri_complete: str = ""
    """The same with the code in it; empty where the provider has none."""
    interval: timedelta = DEFAULT_INTERVAL
    """How long to wait before each poll."""
    device_code: str = field(default="", repr=False)
    """Whoever has it may ask for the tokens."""


def authorization_request(grant: Grant, now: datetime) -> HttpRequest:
    """Ask for an invitation (RFC 8628 section 3.1)."""
    settings = grant.settings
    asked = replace(
        settings,
        token_url=settings.facts.device_authorization_url,
        audience=settings.audience or settings.token_url,
        facts=replace(settings.facts, parameters={}, method="POST"),
    )
    return token_request(asked, {"scope": " ".join(settings.scopes)}, now)


def invitation(grant: Grant, answer: Answer) -> Invitation | Outcome:
    """What the answer to :func:`authorization_request` invites to; an outcome without tokens where it does not."""
    fields = read_body(answer.body).document if isinstance(answer, HttpAnswer) else {}
    device_code = str(fields.get("device_code") or "")
    if not device_code:
        reading = read_token_answer(answer, grant.dialect)
        if reading.finding is Finding.LIVE:
            reading = Reading(Subject.REQUEST, Finding.UNKNOWN, "no_device_code", "the answer holds no `device_code`")
        return Outcome(reading)
    return Invitation(
        user_code=str(fields.get("user_code", "")),
        # Google's answer has the name that an early draft had.
        verification_uri=_address(fields, "verification_uri") or _address(fields, "verification_url"),
        verification_uri_complete=_address(fields, "verification_uri_complete"),
        expires_in=_seconds(fields.get("expires_in"), LONGEST_WAIT),
        interval=_seconds(fields.get("interval"), DEFAULT_INTERVAL),
        device_code=device_code,
    )


def poll_request(grant: Grant, device_code: str, now: datetime) -> HttpRequest:
    """Ask whether the person has approved (RFC 8628 section 3.4)."""
    return token_request(grant.settings, {"grant_type": GRANT_TYPE, "device_code": device_code}, now)


def read_poll(grant: Grant, answer: Answer, interval: timedelta) -> Outcome | timedelta:
    """What came of it; or, while nobody has answered, how long to wait before each poll from now on (RFC 8628 section 3.5).

    Args:
        interval: How long was waited before this one.
    """
    codes = said(read_body(answer.body)).codes if isinstance(answer, HttpAnswer) and answer.status >= 300 else ()
    if "slow_down" in codes:
        return interval + SLOWER_BY
    if "authorization_pending" in codes:
        return interval
    outcome = grant.read(answer)
    # After a timeout ask less often; nor is a provider that fails for a moment an answer to what was asked.
    return interval * 2 if outcome.reading.finding in TRANSIENT or not isinstance(answer, HttpAnswer) else outcome


def _address(fields: Mapping[str, Any], name: str) -> str:
    """An address that a person may be sent to; never a script."""
    address = str(fields.get(name) or "")
    return address if address.lower().startswith(("https://", "http://")) else ""


def _seconds(value: object, default: timedelta) -> timedelta:
    number = value if isinstance(value, int) and not isinstance(value, bool) else 0
    return timedelta(seconds=number) if 0 < number <= LONGEST_WAIT.total_seconds() else default
