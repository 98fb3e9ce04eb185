"""The connection class ``two_step``; its rules are in :mod:`airflow_oauth_guard.grants.two_step`."""

from __future__ import annotations

from airflow_oauth_guard.grants.two_step import TwoStepGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class TwoStepHook(OAuthGuardHook):
    conn_type = "oauth_guard_two_step"
    hook_name = "OAuth Guard: two_step"
    grant_class = TwoStepGrant
