"""The connection class ``saml2_bearer``; its rules are in :mod:`airflow_oauth_guard.grants.saml2_bearer`."""

from __future__ import annotations

from airflow_oauth_guard.grants.saml2_bearer import Saml2BearerGrant
from airflow_oauth_guard.hooks.base import OAuthGuardHook


class Saml2BearerHook(OAuthGuardHook):
    conn_type = "oauth_guard_saml2_bearer"
    hook_name = "OAuth Guard: saml2_bearer"
    grant_class = Saml2BearerGrant
