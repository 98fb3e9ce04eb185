from __future__ import annotations

import pytest

from airflow_oauth_guard.grants.instagram_refresh import InstagramRefreshGrant
from tests.unit.domain.builders import NOW, grant_of, parameters_of

URL = "https://graph.instagram.com/refresh_access_token"


@pytest.mark.parametrize(
    ("product", "grant_type"),
    [(None, "ig_refresh_token"), ("instagram", "ig_refresh_token"), ("threads", "th_refresh_token")],
)
def test_a_live_token_is_renewed_by_get_without_client_authentication(product, grant_type):
    request = grant_of(InstagramRefreshGrant, token_url=URL, product=product).request("at-1", NOW)
    assert request.method == "GET"
    assert request.url == f"{URL}?grant_type={grant_type}&access_token=at-1"
    assert request.content == b""
    assert request.headers == {"Accept": "application/json"}
    assert request.secrets == ("at-1",)
    assert request.shape.client_auth == "none"


def test_a_token_is_encoded_into_the_query_and_shown_nowhere():
    request = grant_of(InstagramRefreshGrant, token_url=URL, access_token="seed-at").request("at&x=1#/+", NOW)
    assert dict(parameters_of(request)) == {"grant_type": "ig_refresh_token", "access_token": "at&x=1#/+"}
    assert "at&x" not in repr(request)
    assert "at%26x" not in repr(request)
    assert set(request.secrets) == {"seed-at", "at&x=1#/+"}


def test_a_query_of_the_token_url_is_kept():
    request = grant_of(InstagramRefreshGrant, token_url=f"{URL}?version=2").request("at-1", NOW)
    assert parameters_of(request) == [("version", "2"), ("grant_type", "ig_refresh_token"), ("access_token", "at-1")]
    assert request.shape.endpoint == URL
    assert request.shape.parameters == ("access_token", "grant_type", "version")


def test_the_access_token_is_its_own_grant_so_it_must_be_renewed_while_it_lives():
    assert InstagramRefreshGrant.sends == "access_token"
    assert InstagramRefreshGrant.needs_live_token
