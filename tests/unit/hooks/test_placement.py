"""Where in a request the token goes."""

from __future__ import annotations

import pytest

pytest.importorskip("airflow", reason="hooks need Airflow")

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.hooks.placement import Header, Query, placement_of, same_host, without_secrets

pytestmark = pytest.mark.airflow

TOKEN = "planted-a/b+c=="


def test_a_token_goes_into_a_bearer_header_unless_somebody_knows_better():
    headers = {"Accept": "*/*"}
    assert Header().place("https://api.example/x", headers, TOKEN) == "https://api.example/x"
    assert headers == {"Accept": "*/*", "Authorization": f"Bearer {TOKEN}"}
    assert Header().is_placed("", headers, TOKEN)
    assert not Header().is_placed("", headers, "another")
    Header().take_out(headers)
    assert headers == {"Accept": "*/*"}


def test_a_newer_token_takes_the_place_of_the_older():
    for placement in (Header("X-Token", "{access_token}"), Query("key")):
        headers = {}
        url = placement.place("https://api.example/x?page=2", headers, "older-token")
        url = placement.place(url, headers, TOKEN)
        assert placement.is_placed(url, headers, TOKEN)
        assert "older-token" not in f"{url} {headers}"


@pytest.mark.parametrize(
    ("url", "placed"),
    [
        ("https://api.example", "https://api.example?key=planted-a%2Fb%2Bc%3D%3D"),
        ("https://api.example/x#part", "https://api.example/x?key=planted-a%2Fb%2Bc%3D%3D#part"),
        # Each letter as it is written: another spelling of it would break a signature.
        (
            "https://api.example/x?$filter=a%20eq%20'b'&flag&empty=&list=1&list=2",
            "https://api.example/x?$filter=a%20eq%20'b'&flag&empty=&list=1&list=2&key=planted-a%2Fb%2Bc%3D%3D",
        ),
        ("https://api.example/x?k%65y=old&page=2", "https://api.example/x?page=2&key=planted-a%2Fb%2Bc%3D%3D"),
    ],
)
def test_in_an_address_only_the_tokens_own_parameter_changes(url, placed):
    assert Query("key").place(url, {}, TOKEN) == placed
    assert Query("key").is_placed(placed, {}, TOKEN)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://api.example/a", "https://API.example:443/b?c", True),
        ("http://api.example:80/a", "http://api.example/b", True),
        ("https://api.example/a", "https://ada:secret@api.example/b", True),
        ("https://api.example/a", "http://api.example/a", False),
        ("http://api.example/a", "https://api.example/a", False),
        ("https://api.example/a", "https://api.example:8443/a", False),
        ("https://api.example/a", "https://api.example.org/a", False),
        ("https://api.example/a", "https://api.example:no-number/a", False),
        ("https://api.example/a", "https://api.example@evil.example/a", False),
    ],
)
def test_another_host_is_another_scheme_name_or_port(one, other, same):
    assert same_host(one, other) is same


def test_an_address_is_shown_without_the_token_and_without_a_password():
    url = f"https://ada:secret@api.example:8443/v1/{TOKEN}/rows?key=planted-a%2Fb%2Bc%3D%3D&page=2#part"
    assert without_secrets(url, TOKEN) == "https://api.example:8443/v1/<redacted>/rows?key=<redacted>&page=2"


def test_without_a_preset_the_token_goes_into_a_bearer_header(connect):
    assert placement_of(connect().hook().settings) == Header()


@pytest.mark.parametrize(
    ("preset", "params", "place"),
    [
        ("shopify", "shop=acme", Header("X-Shopify-Access-Token", "{access_token}")),
        ("tiktok_ads", "business_id=x", Header("Access-Token", "{access_token}")),
        # Their probes ask about a token, in ways of their own.
        ("google", None, Header()),
        ("twitch", None, Header()),
        ("mailchimp", None, Header()),
    ],
)
def test_the_preset_knows_the_place_whichever_probe_the_connection_has(connect, preset, params, place):
    usual_class = next(iter(Catalog().get(preset).grants))
    for probe_url in ("https://api.example/me", None):
        guarded = connect(
            usual_class, provider=preset, provider_params=params, probe_url=probe_url, suffix=f"_{probe_url is None}"
        )
        assert placement_of(guarded.hook().settings) == place


def test_graph_apis_take_the_token_in_the_address(connect):
    guarded = connect("meta_exchange", provider="facebook", probe_url=None)
    assert placement_of(guarded.hook().settings) == Query()
