"""Every grant class by the name of its connection class."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_oauth_guard.grants.account_credentials import AccountCredentialsGrant
from airflow_oauth_guard.grants.client_credentials import ClientCredentialsGrant
from airflow_oauth_guard.grants.flow import Grant
from airflow_oauth_guard.grants.github_app import GithubAppGrant
from airflow_oauth_guard.grants.instagram_refresh import InstagramRefreshGrant
from airflow_oauth_guard.grants.jwt_bearer import JwtBearerGrant
from airflow_oauth_guard.grants.long_lived_token import LongLivedTokenGrant
from airflow_oauth_guard.grants.meta_exchange import MetaExchangeGrant
from airflow_oauth_guard.grants.password import PasswordGrant
from airflow_oauth_guard.grants.refresh_token import RefreshTokenGrant
from airflow_oauth_guard.grants.saml2_bearer import Saml2BearerGrant
from airflow_oauth_guard.grants.token_exchange import TokenExchangeGrant
from airflow_oauth_guard.grants.two_step import TwoStepGrant

GRANT_CLASSES: Mapping[str, type[Grant]] = {
    grant.connection_class: grant
    for grant in (
        RefreshTokenGrant,
        ClientCredentialsGrant,
        JwtBearerGrant,
        MetaExchangeGrant,
        InstagramRefreshGrant,
        PasswordGrant,
        AccountCredentialsGrant,
        TokenExchangeGrant,
        Saml2BearerGrant,
        GithubAppGrant,
        TwoStepGrant,
        LongLivedTokenGrant,
    )
}
