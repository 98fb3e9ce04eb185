"""The connection class ``jwt_bearer``; its rules are in :mod:`airflow_oauth_guard.grants.jwt_bearer`."""

from __future__ import annotations

from airflow_oauth_guard.grants.jwt_bearer import JwtBearerGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class JwtBearerHook(OAuthGuardHook):
    conn_type = "oauth_guard_jwt_bearer"
    hook_name = "OAuth Guard: jwt_bearer"
    grant_class = JwtBearerGrant
