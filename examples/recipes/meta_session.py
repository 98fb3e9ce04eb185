"""Meta: a session for ``facebook_business`` that sends the proof which belongs to each token."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import MutableMapping
from dataclasses import dataclass, field

from facebook_business.api import FacebookAdsApi, FacebookSession

from airflow_oauth_guard.hooks.placement import Query
from airflow_oauth_guard.hooks.session import GuardedSession


@dataclass(frozen=True)
class Proven(Query):
    app_secret: str = field(default="", repr=False)

    def place(self, url: str, headers: MutableMapping[str, str], access_token: str) -> str:
        proof = hmac.new(self.app_secret.encode(), access_token.encode(), hashlib.sha256).hexdigest()
        return Query("appsecret_proof").place(super().place(url, headers, access_token), headers, proof)


def meta_api(conn_id: str, app_secret: str) -> FacebookAdsApi:
    session = FacebookSession()
    guarded = GuardedSession(conn_id, placement=Proven(app_secret=app_secret))
    guarded.verify = session.requests.verify
    session.requests = guarded
    return FacebookAdsApi(session)
