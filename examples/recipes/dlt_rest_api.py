"""dlt's ``rest_api`` source: a session of dlt's own, with its retries, that bears a guarded token."""

from __future__ import annotations

from dlt.extract import DltSource
from dlt.sources.helpers import requests
from dlt.sources.rest_api import rest_api_source
from dlt.sources.rest_api.typing import EndpointResource

from airflow_oauth_guard.hooks.session import GuardedAuth


def crm(conn_id: str, base_url: str) -> DltSource:
    # As `auth` the source takes only classes of dlt's own.
    session = requests.Client(raise_for_status=False).session
    session.auth = GuardedAuth(conn_id)
    contacts: EndpointResource = {"name": "contacts", "endpoint": {"path": "contacts", "data_selector": "rows"}}
    return rest_api_source({"client": {"base_url": base_url, "session": session}, "resources": [contacts]})
