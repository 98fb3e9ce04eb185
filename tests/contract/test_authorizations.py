"""What a person has begun at a provider is taken once, in time, and only by themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from airflow_oauth_guard.errors import AuthorizationRefusedError
from airflow_oauth_guard.store.authorizations import Authorization
from airflow_oauth_guard.store.store import Store

from .conftest import RawSql
from .making import KEY, NOW, OTHER_KEY, THREADS, after, at_once, enrolled, renewed

STATE, SECRET, MINUTES = "state-of-ada", "the code verifier", timedelta(minutes=10)
TABLE = "oauth_guard_authorizations"


def begun(store: Store, state: str = STATE, person: str = "ada", conn_id: str = "crm") -> None:
    store.authorizations.open(enrolled(store, conn_id), state, person, SECRET, NOW, NOW + MINUTES)


def test_a_person_takes_what_they_have_begun(store: Store) -> None:
    begun(store)
    renewed(store)
    taken = store.authorizations.take(STATE, "ada", after(minutes=9))
    assert taken == Authorization(store.credentials.get("crm"), SECRET, NOW, NOW + MINUTES)
    assert taken.credential.generation == 2, "as it is now"
    assert SECRET not in repr(taken)


def test_neither_the_state_nor_the_secret_can_be_read_from_the_table(store: Store, raw: RawSql) -> None:
    begun(store)
    kept = repr(raw.rows(TABLE))
    assert "ada" in kept
    assert STATE not in kept
    assert SECRET not in kept


def test_it_is_taken_once_and_its_secret_is_gone_then(store: Store, raw: RawSql) -> None:
    begun(store)
    store.authorizations.take(STATE, "ada", NOW)
    for look in (store.authorizations.take, store.authorizations.find):
        with pytest.raises(
            AuthorizationRefusedError, match=r"was used already\. Begin again from the credential's page"
        ):
            look(STATE, "ada", NOW)
    [row] = raw.rows(TABLE)
    assert (row["secret"], row["used_at"] is not None) == ("", True)


def test_of_eight_that_take_it_at_once_one_gets_it(store: Store, open_store: Callable[..., Store]) -> None:
    begun(store)
    stores = [open_store() for _ in range(THREADS)]

    def take(number: int) -> bool:
        try:
            stores[number].authorizations.take(STATE, "ada", NOW)
        except AuthorizationRefusedError:
            return False
        return True

    assert sum(at_once([lambda n=n: take(n) for n in range(THREADS)])) == 1


def test_nobody_else_gets_it_or_spoils_it_or_learns_whose_it_is(store: Store) -> None:
    begun(store)
    for look in (store.authorizations.take, store.authorizations.find):
        with pytest.raises(AuthorizationRefusedError, match="was begun by somebody else") as refused:
            look(STATE, "mallory", NOW)
        assert "ada" not in str(refused.value)
        assert "crm" not in str(refused.value)
    store.authorizations.take(STATE, "ada", NOW)
    for when in (NOW, after(days=1)):
        with pytest.raises(AuthorizationRefusedError, match="was begun by somebody else"):
            store.authorizations.take(STATE, "mallory", when)


def test_names_that_differ_in_case_are_different_people(store: Store) -> None:
    begun(store)
    for other in ("Ada", "ada "):
        with pytest.raises(AuthorizationRefusedError, match="somebody else"):
            store.authorizations.take(STATE, other, NOW)


def test_what_nobody_began_here_is_refused(store: Store) -> None:
    begun(store)
    for state in ("", "another", STATE.upper()):
        with pytest.raises(AuthorizationRefusedError, match="was not begun here"):
            store.authorizations.take(state, "ada", NOW)


def test_what_is_over_is_refused(store: Store) -> None:
    begun(store)
    assert store.authorizations.find(STATE, "ada", NOW + MINUTES - timedelta(microseconds=1)).secret == SECRET
    with pytest.raises(AuthorizationRefusedError, match="is over since 2026-03-01 12:10:00Z"):
        store.authorizations.take(STATE, "ada", NOW + MINUTES)


def test_looking_takes_nothing_away(store: Store, raw: RawSql) -> None:
    begun(store)
    before = raw.everything()
    looks = [store.authorizations.find(STATE, "ada", after(minutes=n)) for n in range(3)]
    assert len(set(looks)) == 1
    assert raw.everything() == before
    assert store.authorizations.take(STATE, "ada", NOW) == looks[0]


def test_a_state_stands_for_one_credential(store: Store) -> None:
    begun(store)
    begun(store, "state-of-erp", conn_id="erp")
    assert store.authorizations.take("state-of-erp", "ada", NOW).credential.conn_id == "erp"
    assert store.authorizations.take(STATE, "ada", NOW).credential.conn_id == "crm"


def test_what_is_over_for_a_day_goes_when_somebody_begins_anew(store: Store, raw: RawSql) -> None:
    begun(store)
    begun(store, "used")
    store.authorizations.take("used", "ada", NOW)
    credential = store.credentials.get("crm")
    just = NOW + MINUTES + timedelta(days=1)
    store.authorizations.open(credential, "second", "ada", SECRET, just, just + MINUTES)
    assert len(raw.rows(TABLE)) == 3
    late = just + timedelta(seconds=1)
    store.authorizations.open(credential, "third", "ada", SECRET, late, late + MINUTES)
    assert len(raw.rows(TABLE)) == 2
    store.authorizations.take("second", "ada", late)


def test_a_new_key_opens_what_was_begun_under_the_old_one(store: Store, open_store: Callable[..., Store]) -> None:
    begun(store)
    rotation = open_store(f"{OTHER_KEY},{KEY}").upkeep.rotate_key()
    assert (rotation.encrypted_anew, rotation.old_keys_may_go) == (3, True)
    assert open_store(OTHER_KEY).authorizations.take(STATE, "ada", NOW).secret == SECRET


def test_what_was_used_holds_no_secret_that_a_new_key_would_have_to_open(
    store: Store, open_store: Callable[..., Store]
) -> None:
    begun(store)
    store.authorizations.take(STATE, "ada", NOW)
    assert open_store(f"{OTHER_KEY},{KEY}").upkeep.rotate_key().encrypted_anew == 2


def test_an_authorization_that_no_key_opens_is_named(store: Store, open_store: Callable[..., Store]) -> None:
    begun(store)
    unreadable = open_store(OTHER_KEY).upkeep.rotate_key().unreadable
    assert "credential `crm`: secret of an authorization" in unreadable
