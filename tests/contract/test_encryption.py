"""Tokens at rest: nothing in clear, keys that can be changed, and errors that show no key."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy.engine import URL

from airflow_oauth_guard.errors import StoreConfigurationError
from airflow_oauth_guard.store.store import Store

from .conftest import RawSql
from .making import KEY, NOW, OTHER_KEY, TTL, enrolled, enrollment, issued, keep, leased, success, token_answer

SECRETS = ("planted-access-1", "planted-refresh-1", "planted-access-2", "planted-refresh-2", "planted-body")


@pytest.fixture
def full_of_secrets(store: Store) -> Store:
    """Tokens of two generations, and an answer that was kept and not yet taken in."""
    enrolled(store, access_token="planted-access-1", refresh_token="planted-refresh-1")
    lease = leased(store)
    intent = store.credentials.open_intent(lease, "planted-refresh-1", NOW)
    keep(store, intent, token_answer(body=b'{"access_token": "planted-body"}'))
    tokens = issued(access_token="planted-access-2", refresh_token="planted-refresh-2")
    store.credentials.renew(lease, intent, tokens, success(), NOW)
    again = leased(store)
    intent = store.credentials.open_intent(again, "planted-refresh-2", NOW)
    keep(store, intent, token_answer(headers={"x-token": "planted-body"}, body=b'{"access_token": "planted-body"}'))
    return store


def test_no_secret_is_in_any_row_in_clear(full_of_secrets: Store, raw: RawSql) -> None:
    everything = repr(raw.everything())
    assert "crm" in everything
    for secret in (*SECRETS, KEY):
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode().rstrip("=") not in everything


def test_no_secret_is_in_the_database_file_in_clear(full_of_secrets: Store, url: URL, tmp_path: Path) -> None:
    if url.get_backend_name() != "sqlite":
        pytest.skip("the files of a server are not ours to read; its rows are looked at above")
    written = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert b"oauth_guard_tokens" in written
    assert not [secret for secret in SECRETS if secret.encode() in written]


def test_no_secret_is_in_what_the_store_hands_out_when_it_is_printed(full_of_secrets: Store) -> None:
    credential = full_of_secrets.credentials.get("crm")
    lease = full_of_secrets.credentials.lease("crm", "printer", TTL, NOW + 2 * TTL)
    assert lease is not None
    assert lease.unsettled[-1].answer is not None
    printed = repr((credential, lease.tokens, lease.credential, enrollment(access_token=SECRETS[0]), issued()))
    assert not [secret for secret in (*SECRETS, "access-2", "crm-refresh-1") if secret in printed]


def test_a_token_written_with_an_older_key_is_read_while_that_key_is_listed(
    store: Store, open_store: Callable[..., Store]
) -> None:
    credential = enrolled(store)
    both = open_store(f"{OTHER_KEY}, {KEY}")
    assert both.credentials.tokens(credential).refresh_token == "crm-refresh-1"
    enrolled(both, "new")
    assert open_store(OTHER_KEY).credentials.tokens(both.credentials.get("new")).refresh_token == "new-refresh-1"


def test_a_token_written_with_another_key_is_an_error_that_says_what_to_do(
    store: Store, open_store: Callable[..., Store]
) -> None:
    credential = enrolled(store)
    other = open_store(OTHER_KEY)
    with pytest.raises(StoreConfigurationError, match=r"another key.*old key behind the new one"):
        other.credentials.tokens(credential)
    with pytest.raises(StoreConfigurationError, match="another key"):
        other.credentials.lease("crm", "worker-1", TTL, NOW)
    assert store.credentials.lease("crm", "worker-2", TTL, NOW) is not None, "a lease nobody could use stays taken"


@pytest.mark.parametrize("keys", ["", " ", ",", " , "])
def test_without_a_key_the_store_does_not_open_and_says_how_to_make_one(url: URL, keys: str) -> None:
    with pytest.raises(StoreConfigurationError, match=r"fernet_key` is empty.*Fernet.generate_key") as refusal:
        Store(url, keys)
    command = str(refusal.value).partition("python -c '")[2].partition("'")[0]
    made: list[str] = []
    exec(command, {"print": made.append})
    Fernet(made[0])


@pytest.mark.parametrize(
    "broken", ["correct-horse-battery", KEY[:-4], f"{KEY},battery-staple", "schlüssel-für-alles", "a" * 44]
)
def test_the_error_about_a_key_that_is_none_does_not_show_it(url: URL, broken: str) -> None:
    with pytest.raises(StoreConfigurationError, match=r"not a Fernet key.*Fernet.generate_key") as refusal:
        Store(url, broken)
    shown = "".join(traceback.format_exception(refusal.value))
    assert not [key for key in broken.split(",") if key in shown]
