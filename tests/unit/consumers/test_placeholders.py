"""Where tokens go: what is a placeholder, what only looks like one, and what is left as it is."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("airflow", reason="connections are Airflow's")

from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.consumers.placeholders import filled, named_in
from airflow_oauth_guard.errors import ConnectionFieldError

pytestmark = pytest.mark.airflow

TOKENS = {"crm_prod": "fresh-1", "team/ads.eu-1:(x)!#": "fresh-2"}


def connection(**fields) -> Connection:
    return Connection(conn_id="theirs", conn_type="http", **fields)


@pytest.mark.parametrize("field", ["host", "schema", "login", "password", "extra"])
def test_a_placeholder_may_stand_in_every_field_that_a_hook_may_send(field):
    given = connection(**{field: "{oauth-guard:crm_prod}"})
    assert named_in(given) == {"crm_prod"}
    assert getattr(filled(given, TOKENS), field) == "fresh-1"


def test_it_may_stand_inside_a_longer_text_and_more_than_once():
    host = "https://{oauth-guard:crm_prod}.api.example/{oauth-guard:team/ads.eu-1:(x)!#}/rows?token={oauth-guard:crm_prod}&n=1"
    given = connection(host=host)
    assert named_in(given) == set(TOKENS)
    assert filled(given, TOKENS).host == "https://fresh-1.api.example/fresh-2/rows?token=fresh-1&n=1"


def test_it_may_stand_anywhere_in_an_extra():
    extra = {
        "headers": {"Authorization": "Bearer {oauth-guard:crm_prod}"},
        "tokens": ["{oauth-guard:team/ads.eu-1:(x)!#}", 7, None, True],
        "{oauth-guard:crm_prod}": 1.5,
    }
    given = connection(extra=json.dumps(extra))
    assert named_in(given) == set(TOKENS)
    assert json.loads(filled(given, TOKENS).extra) == {
        "headers": {"Authorization": "Bearer fresh-1"},
        "tokens": ["fresh-2", 7, None, True],
        "fresh-1": 1.5,
    }


def test_a_token_cannot_break_out_of_an_extra():
    given = connection(extra='{"Authorization": "Bearer {oauth-guard:crm_prod}"}')
    token = 'x", "verify": false, "y": "\\'
    assert json.loads(filled(given, {"crm_prod": token}).extra) == {"Authorization": f"Bearer {token}"}


def test_everything_else_of_a_connection_stays():
    given = Connection(
        conn_id="theirs",
        conn_type="snowflake",
        description="about {oauth-guard:crm_prod}",
        host="acme.example",
        schema="public",
        login="ada",
        password="{oauth-guard:crm_prod}",
        port=443,
        extra='{"role": "reader"}',
    )
    served = filled(given, TOKENS)
    assert served == Connection(
        conn_id="theirs",
        conn_type="snowflake",
        description="about {oauth-guard:crm_prod}",
        host="acme.example",
        schema="public",
        login="ada",
        password="fresh-1",
        port=443,
        extra='{"role": "reader"}',
    )
    assert given.password == "{oauth-guard:crm_prod}", "who found it may hand it out again when the token is old"


@pytest.mark.parametrize(
    "password",
    [
        "{oauth-guard:crm prod}",
        "{ oauth-guard:crm_prod }",
        "{oauth-guard:crm_prod",
        "{oauth-guard:}",
        "{oauth-guard crm_prod}",
        "{oauth_guard:crm_prod}",
        "{OAuth-Guard:crm_prod}",
        "{oauthguard:crm_prod}",
        "{{oauth-guard crm_prod}}",
        "oauth-guard:crm_prod",
        "Bearer oauth-guard:crm_prod",
        "{oauth-guard:crm_prod} and {oauth-guard:oops",
    ],
)
@pytest.mark.parametrize("shape", [lambda text: text, lambda text: json.dumps({"a": [{"b": text}]})])
def test_a_miswritten_placeholder_is_refused_and_not_sent(password, shape):
    with pytest.raises(
        ConnectionFieldError, match=r"`theirs`: field `extra` has a placeholder .* write `\{oauth-guard:<"
    ):
        named_in(connection(extra=shape(password)))


def test_yaml_without_quotes_is_refused():
    """`password: {oauth-guard:crm_prod}` is a mapping there; in an extra it comes through as one."""
    with pytest.raises(ConnectionFieldError, match="`extra`"):
        named_in(connection(extra='{"token": {"oauth-guard:crm_prod": null}}'))


@pytest.mark.parametrize(
    "text",
    [
        "http://oauth-guard:8080/api",
        "oauth-guard:8080",
        "{crm_prod}",
        "https://github.com/airflow-oauth-guard",
        '{"oauth_guard": {"window": 5}}',
        "{{ conn.oauth_guard_store.password }}",
        "",
    ],
)
def test_what_was_never_meant_as_one_is_left_alone(text):
    assert named_in(connection(host=text, extra=json.dumps({"endpoint": text}))) == frozenset()


@given(st.text(), st.text(alphabet="abcXYZ019_-.:/\\()!#", min_size=1), st.text())
def test_whatever_stands_around_it_stays(before, conn_id, after):
    given = connection(extra=json.dumps({"header": f"{before}{{oauth-guard:{conn_id}}}{after}"}))
    try:
        named = named_in(given)
    except ConnectionFieldError:
        assert "oauth" in (before + after).lower()
        return
    assert conn_id in named
    assert json.loads(filled(given, dict.fromkeys(named, "T")).extra)["header"] == f"{before}T{after}"
