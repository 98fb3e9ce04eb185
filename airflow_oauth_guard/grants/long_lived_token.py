"""Access tokens that never expire and that nobody can refresh: all there is to do is to look whether they are alive."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from airflow_oauth_guard.domain.answers import Answer
from airflow_oauth_guard.domain.evidence import Finding, Subject
from airflow_oauth_guard.domain.reading import read_probe_answer
from airflow_oauth_guard.grants.flow import Grant, HttpRequest, IssuedTokens, Outcome
from airflow_oauth_guard.grants.probe import probe_request
from airflow_oauth_guard.grants.settings import COMMON_FIELDS, GRANT_FIELDS

SPEAKS_FOR = timedelta(days=2)
"""How long a look speaks for a token that has no end of its own; it is looked at again after half of that."""


class LongLivedTokenGrant(Grant):
    """The access token is the grant. "Refreshing" it asks the probe URL; an answer vouches for it for two days."""

    connection_class = "long_lived_token"
    grant_type = ""
    sends = "access_token"
    needs_live_token = True
    fields = (COMMON_FIELDS | GRANT_FIELDS | {"client_id", "client_secret"}) - {"token_url", "scopes", "body_format"}
    required = ("probe_url",)

    def request(self, token: str, now: datetime) -> HttpRequest:
        return probe_request(self.settings, token)

    def read(self, answer: Answer) -> Outcome:
        reading = read_probe_answer(answer, self.dialect)
        if reading.subject is Subject.ACCESS_TOKEN:
            reading = replace(reading, subject=Subject.GRANT)
        alive = reading.finding is Finding.LIVE
        return Outcome(reading, IssuedTokens(access_token="", expires_in=SPEAKS_FOR) if alive else None)
