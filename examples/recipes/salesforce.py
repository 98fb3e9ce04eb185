"""Salesforce: ``simple_salesforce`` on a session that bears a guarded token."""

from __future__ import annotations

from simple_salesforce import Salesforce

from airflow_oauth_guard.hooks.session import GuardedSession
from airflow_oauth_guard.hooks.using import get_token


def salesforce(conn_id: str, instance_url: str) -> Salesforce:
    # The session replaces the token in each request. `bulk` and `mdapi` send the one given here, in places of their own.
    return Salesforce(instance_url=instance_url, session_id=get_token(conn_id), session=GuardedSession(conn_id))
