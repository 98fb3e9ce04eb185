"""``airflow oauth-guard import``, as it is typed, with a real store, and with Airflow's real database behind the old places."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="the commands need Airflow")

from airflow_oauth_guard.cli import importing
from airflow_oauth_guard.cli.definition import COMMANDS
from airflow_oauth_guard.cli.finding import Leaf
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.metadata import connection_types
from airflow_oauth_guard.store.encryption import fingerprint
from tests.airflow_parts import PLANTED, Guarded, expire, nothing_secret_is_kept, rows, utcnow

pytestmark = pytest.mark.airflow

ENTRY = {
    "conn_id": "crm_prod",
    "connection_class": "refresh_token",
    "access_token": f"{PLANTED}access",
    "refresh_token": f"{PLANTED}refresh",
    "expires_at": "2030-01-01T00:00:00+00:00",
}
ACCESS, REFRESH = ENTRY["access_token"], ENTRY["refresh_token"]
IN_2030 = datetime(2030, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def outside_a_server(monkeypatch):
    # The commands call themselves a server, so that Airflow looks connections up for them; only for this test.
    # Set first: else what the command puts there would stay for the tests to come.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT")


def parsed(*arguments: str) -> argparse.Namespace:
    """The options as Airflow reads them."""
    [command] = [command for command in COMMANDS if command.name == "import"]
    parser = argparse.ArgumentParser()
    for argument in command.args:
        argument.add_to_parser(parser)
    return parser.parse_args(arguments)


def run(*arguments: str) -> None:
    importing.import_tokens(parsed(*arguments))


def given_on_standard_input(monkeypatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def imports(tmp_path: Path, given: Any) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    run(str(path))


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**ENTRY, **changes}.items() if value is not None}


# -- a list -----------------------------------------------------------------------------------------------------------


def test_tokens_are_stored_encrypted_and_what_was_done_is_said_without_them(store, tmp_path, capsys):
    imports(tmp_path, [ENTRY, changed(conn_id="ads")])
    assert capsys.readouterr().out == "crm_prod: generation 1, active\nads: generation 1, active\n"
    credential = store.credentials.get("crm_prod")
    tokens = store.credentials.tokens(credential)
    assert (tokens.access_token, tokens.refresh_token) == (f"{PLANTED}access", f"{PLANTED}refresh")
    assert credential.life.expires_at.isoformat() == "2030-01-01T00:00:00+00:00"
    nothing_secret_is_kept(store, (PLANTED,))


def test_one_object_is_a_list_of_one_and_standard_input_is_read(store, monkeypatch, capsys):
    given_on_standard_input(monkeypatch, json.dumps(ENTRY))
    run("-")
    assert store.credentials.get("crm_prod").generation == 1


def test_twice_is_once(store, tmp_path, capsys):
    imports(tmp_path, [ENTRY])
    before = rows(store, "oauth_guard_tokens")
    imports(tmp_path, [ENTRY])
    assert rows(store, "oauth_guard_tokens") == before
    assert "crm_prod: nothing new" in capsys.readouterr().out


def test_a_list_that_is_read_again_brings_no_spent_token_back_unless_that_is_said(crm, store, tmp_path):
    tokens = {"access_token": crm.minted.access_token, "refresh_token": crm.minted.refresh_token}
    given = [changed(conn_id=crm.conn_id, expires_at=None, **tokens)]
    imports(tmp_path, given)
    assert crm.refresh(store).outcome.value == "renewed"
    imports(tmp_path, given)
    assert crm.credential(store).generation == 2
    assert held(store, crm.conn_id) != tuple(tokens.values())
    run(str(tmp_path / "tokens.json"), "--again")
    assert crm.credential(store).generation == 3
    assert held(store, crm.conn_id) == tuple(tokens.values())


def test_other_tokens_are_the_next_generation_and_bring_an_expired_credential_back(store, tmp_path):
    imports(tmp_path, [ENTRY])
    expire(store, "crm_prod")
    imports(tmp_path, [changed(refresh_token=f"{PLANTED}newer")])
    credential = store.credentials.get("crm_prod")
    assert (credential.generation, credential.status) == (2, Status.ACTIVE)
    assert store.credentials.tokens(credential).refresh_token == f"{PLANTED}newer"


@pytest.mark.parametrize("connection_type", sorted(connection_types()))
def test_every_connection_class_can_be_imported(connection_type):
    name = connection_type.removeprefix("oauth_guard_")
    [enrollment] = importing.read_credentials(json.dumps(changed(connection_class=name)))
    assert enrollment.connection_class == name


BAD = {
    "no JSON": ("{", "not JSON"),
    "nothing": ("", "not JSON"),
    "an empty list": ([], "no credentials"),
    "a number": (7, "no credentials"),
    "null": (None, "no credentials"),
    "a list of text": ([ENTRY, f"{PLANTED}text"], "Credential 2 is a str"),
    "an unknown key": ([changed(acess_token=f"{PLANTED}x")], "unknown key `acess_token`"),
    "no connection id": ([changed(conn_id=None)], "`conn_id`"),
    "an empty connection id": ([changed(conn_id="")], "`conn_id`"),
    "no class": ([changed(connection_class=None)], "`connection_class` must be one of"),
    "an unknown class": ([changed(connection_class="oauth1")], "client_credentials, github_app, instagram_refresh"),
    "the connection type": ([changed(connection_class="oauth_guard_refresh_token")], "`connection_class`"),
    "no token": ([changed(access_token=None, refresh_token=None)], "neither"),
    "a token that is no text": ([changed(access_token=[f"{PLANTED}x"])], "`access_token` is not text"),
    "no instant": ([changed(expires_at="soon")], "expires_at of crm_prod"),
    "a date": ([changed(expires_at="2030-01-01")], "expires_at of crm_prod"),
    "a number of seconds": ([changed(expires_at=1893456000)], "`expires_at` is not text"),
    "a naive instant": ([changed(expires_at="2030-01-01T00:00:00")], "no time zone; add one"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_nothing_is_stored_and_no_token_is_repeated(case, store, tmp_path, capsys):
    given, said = BAD[case]
    with pytest.raises(SystemExit) as raised:
        imports(tmp_path, given if isinstance(given, str) else json.dumps(given))
    shown = capsys.readouterr()
    assert raised.value.code == 1
    assert said in shown.err
    assert shown.err.startswith("airflow oauth-guard: ")
    assert PLANTED not in shown.err + shown.out
    assert store.credentials.roster() == []


def test_all_or_none(store, tmp_path, capsys):
    with pytest.raises(SystemExit):
        imports(tmp_path, [ENTRY, changed(conn_id="ads", expires_at="2030-01-01T00:00:00")])
    assert store.credentials.roster() == []
    assert "expires_at of ads" in capsys.readouterr().err


def test_a_credential_named_twice_is_refused(store, tmp_path):
    with pytest.raises(SystemExit):
        imports(tmp_path, [ENTRY, changed(refresh_token=f"{PLANTED}other")])
    assert store.credentials.roster() == []


def test_a_file_that_is_not_there_is_one_line_and_no_traceback(store, tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        run(str(tmp_path / "absent.json"))
    assert raised.value.code == 1
    assert "absent.json" in capsys.readouterr().err


def test_a_file_that_is_no_text_is_one_line_and_no_traceback(store, tmp_path, capsys):
    (tmp_path / "tokens.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SystemExit) as raised:
        run(str(tmp_path / "tokens.bin"))
    assert raised.value.code == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_an_import_leaves_a_known_credentials_settings_alone(connect, store, tmp_path):
    guarded = connect(expire_policy="evidence", alert_route="crm-owners", refresh_margin=60)
    guarded.enrolled(store)
    imports(tmp_path, [changed(conn_id=guarded.conn_id)])
    credential = guarded.credential(store)
    assert credential.generation == 2
    assert (credential.expire_policy, credential.alert_route) == ("evidence", "crm-owners")
    assert credential.life.margin == timedelta(seconds=60)


def test_imported_tokens_are_refreshed_by_their_connection(connect, store, tmp_path):
    guarded = connect(seeded=False)
    tokens = {"access_token": guarded.minted.access_token, "refresh_token": guarded.minted.refresh_token}
    imports(tmp_path, [changed(conn_id=guarded.conn_id, expires_at=None, **tokens)])
    assert guarded.refresh(store).outcome.value == "renewed"


def test_reading_checks_everything_before_anything_is_returned():
    with pytest.raises(ConfigurationError, match="Credential 2"):
        importing.read_credentials(json.dumps([ENTRY, {}]))


def test_a_dry_run_of_a_list_says_what_is_there_and_stores_nothing(store, tmp_path, capsys):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([ENTRY]))
    run(str(path), "--dry-run")
    said = capsys.readouterr().out
    assert f"refresh_token: {len(REFRESH)} characters, fingerprint {fingerprint(REFRESH)}" in said
    assert PLANTED not in said
    assert store.credentials.roster() == []


# -- from where they are today ----------------------------------------------------------------------------------------


class Airflow:
    """Airflow's own database, as `airflow connections add` and `airflow variables set` fill it."""

    def connection(self, conn_id: str, **fields: Any) -> None:
        from airflow.models.connection import Connection

        extra = fields.pop("extra", None)
        fields |= {"extra": extra if isinstance(extra, str | None) else json.dumps(extra)}
        self._add(Connection(conn_id=conn_id, **{"conn_type": "http", **fields}))

    def variable(self, key: str, value: Any) -> None:
        from airflow.models.variable import Variable

        self._add(Variable(key=key, val=value if isinstance(value, str) else json.dumps(value)))

    def _add(self, row: Any) -> None:
        from airflow.utils.session import create_session

        with create_session() as session:
            session.add(row)


@pytest.fixture(scope="module")
def database() -> None:
    from airflow.utils.db import initdb

    with warnings.catch_warnings():
        # What Airflow 3.1 itself imports in a way that is deprecated is not ours to mend.
        warnings.simplefilter("ignore")
        initdb()


@pytest.fixture
def airflow(database) -> Iterator[Airflow]:
    from airflow.models.connection import Connection
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    def empty() -> None:
        with create_session() as session:
            session.query(Connection).delete()
            session.query(Variable).delete()

    empty()
    yield Airflow()
    empty()


@pytest.fixture
def crm(connect) -> Guarded:
    """A guarded connection with its client, and tokens that live somewhere else yet."""
    return connect(seeded=False)


def held(store, conn_id: str) -> tuple[str, str]:
    tokens = store.credentials.tokens(store.credentials.get(conn_id))
    return tokens.access_token, tokens.refresh_token


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as raised:
        run(*arguments)
    shown = capsys.readouterr()
    assert raised.value.code == 1
    assert PLANTED not in shown.err + shown.out
    assert len(shown.err.splitlines()) == 1
    return shown.err


def test_tokens_leave_a_connection_in_airflows_database_and_the_next_refresh_succeeds(airflow, crm, store, capsys):
    minted = crm.minted
    airflow.connection(
        "crm_old",
        login="client",
        password=minted.access_token,
        extra={
            "refresh_token": minted.refresh_token,
            "expires_at": "2030-01-01T00:00:00Z",
            "base_url": "https://crm.test",
        },
    )
    run("--connection", "crm_old", "--into", crm.conn_id, "--access-token-from", "password")
    said = capsys.readouterr().out
    assert held(store, crm.conn_id) == (minted.access_token, minted.refresh_token)
    assert crm.credential(store).life.expires_at == IN_2030
    assert crm.credential(store).is_due(utcnow()), "that it can be refreshed is to be seen at once"
    assert crm.refresh(store).outcome.value == "renewed"
    # Before it Airflow 3.1 may say something about connection types.
    assert said.splitlines()[-6:] == [
        f"{crm.conn_id} (refresh_token):",
        (
            f"  refresh_token: {len(minted.refresh_token)} characters, fingerprint {fingerprint(minted.refresh_token)}, "
            "from `extra.refresh_token` of connection `crm_old`"
        ),
        (
            f"  access_token: {len(minted.access_token)} characters, fingerprint {fingerprint(minted.access_token)}, "
            "from `password` of connection `crm_old`"
        ),
        "  expires_at: 2030-01-01 00:00:00Z, from `extra.expires_at` of connection `crm_old`",
        "  generation 1, active; asked at the next cycle",
        (
            "  next: stop whoever refreshes from connection `crm_old`, since one more refresh from there spends the token that "
            f"the guard holds; then delete what is there, and write `{{oauth-guard:{crm.conn_id}}}` where its access token was"
        ),
    ]
    nothing_secret_is_kept(store, (minted.access_token, minted.refresh_token))


def test_tokens_leave_a_variable_that_holds_what_a_token_endpoint_said(airflow, crm, store, capsys):
    answer = {
        "token_type": "bearer",
        "access_token": ACCESS,
        "expires_in": 3600,
        "refresh_token": crm.minted.refresh_token,
    }
    airflow.variable("crm_tokens", answer)
    run("--variable", "crm_tokens", "--into", crm.conn_id)
    assert held(store, crm.conn_id) == (ACCESS, crm.minted.refresh_token)
    assert crm.credential(store).life.expires_at is None, "a lifetime does not say since when"
    said = capsys.readouterr().out
    assert PLANTED not in said
    assert said.endswith("; then delete what is there\n"), "nobody fills a Variable in"
    assert crm.refresh(store).outcome.value == "renewed"


def test_a_new_credential_has_its_connections_settings(airflow, connect, store):
    guarded = connect(seeded=False, alert_route="crm-owners", refresh_margin=60)
    airflow.variable("old", {"refresh_token": REFRESH})
    run("--variable", "old", "--into", guarded.conn_id)
    credential = guarded.credential(store)
    assert (credential.alert_route, credential.life.margin) == ("crm-owners", timedelta(seconds=60))


SHAPES = {
    "an Airflow 2 form": {"extra__salesforce__access_token": ACCESS, "extra__salesforce__refresh_token": REFRESH},
    "camel case": {"accessToken": ACCESS, "refreshToken": REFRESH, "expiryDate": 1893456000000},
    "Google's token.json": {
        "token": ACCESS,
        "refresh_token": REFRESH,
        "token_uri": "https://oauth2.googleapis.com/token",
        "client_id": "c",
        "client_secret": f"{PLANTED}s",
        "expiry": "2030-01-01T00:00:00.000000Z",
    },
    "an HTTP connection's headers": {"Authorization": f"Bearer {ACCESS}", "refresh_token": REFRESH},
    "JSON as text": {
        "keyfile": json.dumps({"access_token": ACCESS, "refresh_token": REFRESH, "expires_at": 1893456000.0})
    },
    "a list": [{"name": "crm"}, {"oauth_token": ACCESS, "oauth_refresh_token": REFRESH, "expires_at": "1893456000"}],
    "an answer kept twice": {
        "credentials": {"access_token": ACCESS, "refresh_token": REFRESH, "expires_at": "2030-01-01T00:00:00Z"},
        "raw": {"body": {"access_token": ACCESS, "refresh_token": REFRESH, "expires_in": 3600}},
    },
    "the refresh token's own end": {"access_token": ACCESS, "refresh_token": REFRESH, "refresh_token_expires_at": 1},
    "white space around": {"access_token": f" {ACCESS}\n", "refresh_token": f"{REFRESH}\n", "expires_at": None},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kept_in", ["connection", "variable", "file"])
def test_what_names_tell_need_not_be_said(kept_in, shape, airflow, crm, store, tmp_path):
    if kept_in == "file":
        path = tmp_path / "token.json"
        path.write_text(json.dumps(SHAPES[shape]))
        run(str(path), "--into", crm.conn_id)
    else:
        if kept_in == "connection":
            airflow.connection("old", extra=json.dumps(SHAPES[shape] if shape != "a list" else {"list": SHAPES[shape]}))
        else:
            airflow.variable("old", SHAPES[shape])
        run(f"--{kept_in}", "old", "--into", crm.conn_id)
    assert held(store, crm.conn_id) == (ACCESS, REFRESH)
    ends = crm.credential(store).life.expires_at
    assert ends == (IN_2030 if "1893456000" in str(SHAPES[shape]) or "2030" in str(SHAPES[shape]) else None)


def test_variables_of_plain_text_go_by_their_own_names_several_into_one(airflow, crm, store):
    airflow.variable("crm_access_token", ACCESS)
    airflow.variable("crm_refresh_token", REFRESH)
    airflow.variable("crm_expires_at", "2030-01-01 00:00:00+00:00")
    olds = [part for name in ("access_token", "refresh_token", "expires_at") for part in ("--variable", f"crm_{name}")]
    run(*olds, "--into", crm.conn_id)
    assert held(store, crm.conn_id) == (ACCESS, REFRESH)
    assert crm.credential(store).life.expires_at == IN_2030


def test_standard_input_of_any_form_goes_into_a_credential(crm, store, monkeypatch, capsys):
    given_on_standard_input(monkeypatch, json.dumps({"prod": {"refresh_token": REFRESH}}))
    run("--into", crm.conn_id)
    assert held(store, crm.conn_id) == ("", REFRESH)
    said = capsys.readouterr().out
    assert "from `prod.refresh_token` of standard input" in said
    assert "access_token: none; the first refresh brings one" in said


def test_many_are_moved_at_once_each_into_the_next_that_is_named(airflow, connect, store):
    one, two = connect(seeded=False), connect(seeded=False, suffix="_b")
    airflow.connection("old_one", extra={"refresh_token": f"{PLANTED}one"})
    airflow.variable("old_two", {"refresh_token": f"{PLANTED}two"})
    run("--connection", "old_one", "--into", one.conn_id, "--variable", "old_two", "--into", two.conn_id)
    assert held(store, one.conn_id) == ("", f"{PLANTED}one")
    assert held(store, two.conn_id) == ("", f"{PLANTED}two")


def test_a_class_that_sends_its_access_token_takes_only_that(airflow, connect, store, capsys):
    guarded = connect("long_lived_token", seeded=False)
    airflow.variable("old_token", guarded.minted.access_token)
    airflow.variable("old", {"access_token": f"{PLANTED}x", "refresh_token": REFRESH})
    run("--variable", "old", "--into", guarded.conn_id, "--dry-run")
    assert "refresh_token:" not in capsys.readouterr().out
    run("--variable", "old_token", "--into", guarded.conn_id, "--access-token-from", "old_token")
    assert held(store, guarded.conn_id) == (guarded.minted.access_token, "")
    assert guarded.refresh(store).outcome.value == "renewed"


# -- twice, and by mistake --------------------------------------------------------------------------------------------


def test_an_old_place_that_is_read_again_never_brings_a_spent_token_back(airflow, crm, store, capsys):
    airflow.variable("old", {"access_token": crm.minted.access_token, "refresh_token": crm.minted.refresh_token})
    again = ("--variable", "old", "--into", crm.conn_id)
    run(*again)
    run(*again)
    assert crm.credential(store).generation == 1
    assert crm.refresh(store).outcome.value == "renewed"
    newest = held(store, crm.conn_id)
    capsys.readouterr()
    run(*again)
    assert "nothing new" in capsys.readouterr().out
    assert held(store, crm.conn_id) == newest
    assert crm.credential(store).generation == 2
    assert not crm.credential(store).is_due(utcnow())
    run(*again, "--again")
    assert held(store, crm.conn_id) == (crm.minted.access_token, crm.minted.refresh_token)


def test_what_the_old_place_was_given_since_is_the_next_generation(airflow, crm, store):
    airflow.variable("old", {"access_token": ACCESS, "refresh_token": REFRESH})
    run("--variable", "old", "--into", crm.conn_id)
    expire(store, crm.conn_id)
    airflow.variable("newer", {"access_token": ACCESS, "refresh_token": f"{PLANTED}newer"})
    run("--variable", "newer", "--into", crm.conn_id)
    assert held(store, crm.conn_id) == (ACCESS, f"{PLANTED}newer")
    assert (crm.credential(store).generation, crm.credential(store).status) == (2, Status.ACTIVE)


def test_a_dry_run_says_the_same_and_stores_nothing(airflow, crm, store, capsys):
    airflow.connection("old", extra={"access_token": ACCESS, "refresh_token": REFRESH})
    run("--connection", "old", "--into", crm.conn_id, "--dry-run")
    said = capsys.readouterr().out
    assert (
        f"refresh_token: {len(REFRESH)} characters, fingerprint {fingerprint(REFRESH)}, from `extra.refresh_token`"
        in said
    )
    assert "would be generation 1; nothing was imported" in said
    assert PLANTED not in said
    assert store.credentials.roster() == []


def test_all_or_nothing(airflow, connect, store, capsys):
    one, two = connect(seeded=False), connect(seeded=False, suffix="_b")
    airflow.variable("good", {"refresh_token": REFRESH})
    airflow.variable("bad", {"colour": "blue"})
    said = refused(capsys, "--variable", "good", "--into", one.conn_id, "--variable", "bad", "--into", two.conn_id)
    assert f"For `{two.conn_id}`" in said
    assert store.credentials.roster() == []


# -- what cannot be told ----------------------------------------------------------------------------------------------

TWO_ACCOUNTS = {
    "prod": {"access_token": f"{PLANTED}prod-a", "refresh_token": f"{PLANTED}prod-r", "expires_at": 1893456000},
    "test": {"access_token": f"{PLANTED}test-a", "refresh_token": f"{PLANTED}test-r", "expires_at": 1900000000},
}


def test_of_two_that_could_be_it_neither_is_taken_and_one_option_settles_all_that_is_beside_it(
    airflow, crm, store, capsys
):
    airflow.variable("old", TWO_ACCOUNTS)
    said = refused(capsys, "--variable", "old", "--into", crm.conn_id)
    assert (
        "`prod.refresh_token` of variable `old`, `test.refresh_token` of variable `old` could each be the refresh_token"
        in said
    )
    assert "--refresh-token-from" in said
    assert store.credentials.roster() == []
    run("--variable", "old", "--into", crm.conn_id, "--refresh-token-from", "prod.refresh_token")
    assert held(store, crm.conn_id) == (f"{PLANTED}prod-a", f"{PLANTED}prod-r")
    assert crm.credential(store).life.expires_at == IN_2030


def test_a_token_from_elsewhere_is_not_taken_for_this_accounts(airflow, crm, store):
    airflow.variable(
        "old", {"prod": {"refresh_token": REFRESH}, "test": {"access_token": ACCESS, "expires_at": 1893456000}}
    )
    run("--variable", "old", "--into", crm.conn_id)
    assert held(store, crm.conn_id) == ("", REFRESH)
    assert crm.credential(store).life.expires_at is None


CANNOT_BE_TOLD = {
    "no token by name": ({"session": ACCESS}, (), "Nothing is named like the refresh_token that this class needs"),
    "only an access token": ({"access_token": ACCESS}, (), "`extra.access_token` of connection `old`"),
    "nothing at all": ({}, (), "Nothing is named like the refresh_token"),
    "a placeholder of ours": ({"refresh_token": "{oauth-guard:crm_prod}"}, (), "holds a placeholder"),
    "one without its braces": ({"refresh_token": "oauth-guard:crm_prod"}, (), "holds a placeholder"),
    "one in a header": (
        {"Authorization": "Bearer {oauth-guard:crm_prod}", "refresh_token": REFRESH},
        (),
        "leave it out with --access-token-from none",
    ),
    "two access tokens": (
        {"refresh_token": REFRESH, "access_token": ACCESS, "token": f"{PLANTED}t"},
        (),
        "or leave it out with --access-token-from none",
    ),
    "what the page shows instead of a secret": ({"refresh_token": "***"}, (), "holds no token"),
    "broken JSON": ({"refresh_token": f'{{"x": "{PLANTED}"'}, (), "holds no token"),
    "a sentence": ({"refresh_token": f"ask {PLANTED}"}, (), "holds no token"),
    "a place that is not there": (
        {"refresh_token": REFRESH},
        ("--refresh-token-from", f"{PLANTED}pasted"),
        "--refresh-token-from names a place that is not there; there is `extra.refresh_token`",
    ),
    "a naive instant": (
        {"refresh_token": REFRESH, "access_token": ACCESS, "expires_at": "2030-01-01T00:00:00"},
        (),
        "no time zone",
    ),
    "a lifetime as an instant": (
        {"refresh_token": REFRESH, "access_token": ACCESS, "expires_at": 3600},
        (),
        "leave it out with --expires-at-from none",
    ),
    "no instant": ({"refresh_token": REFRESH, "access_token": ACCESS, "expires_at": "soon"}, (), "is no instant"),
    "digits that are no instant": (
        {"refresh_token": REFRESH, "access_token": ACCESS, "expires_at": "99-99"},
        (),
        "is not an ISO 8601 instant",
    ),
    "a secret as an instant": (
        {"refresh_token": REFRESH, "access_token": ACCESS},
        ("--expires-at-from", "extra.refresh_token"),
        "is no instant",
    ),
}


@pytest.mark.parametrize("case", CANNOT_BE_TOLD)
def test_what_cannot_be_told_is_asked_for_by_the_option_that_settles_it(case, airflow, crm, store, capsys):
    extra, options, said = CANNOT_BE_TOLD[case]
    airflow.connection("old", password="", extra=extra)
    shown = refused(capsys, "--connection", "old", "--into", crm.conn_id, *options)
    assert said in shown
    assert "-from" in shown
    assert store.credentials.roster() == []


def test_what_is_not_wanted_is_left_out(airflow, crm, store):
    airflow.variable("old", {"refresh_token": REFRESH, "access_token": "{oauth-guard:crm_prod}", "expires_at": "soon"})
    run("--variable", "old", "--into", crm.conn_id, "--access-token-from", "none")
    assert held(store, crm.conn_id) == ("", REFRESH)


def test_an_end_that_says_nothing_can_be_left_out(airflow, crm, store):
    airflow.variable("old", {"refresh_token": REFRESH, "access_token": ACCESS, "expires_at": "2020-01-01T00:00:00"})
    run("--variable", "old", "--into", crm.conn_id, "--expires-at-from", "none")
    assert crm.credential(store).life.expires_at is None


MISUSED = {
    "a place that goes nowhere": (
        ("--connection", "a", "--into", "b", "--into", "c", "--variable", "v"),
        "`v` goes nowhere",
    ),
    "no place at all": (("--connection", "a"), "`a` goes nowhere"),
    "nothing to go there": (("--connection", "a", "--into", "b", "--into", "c"), "Nothing goes --into c"),
    "twice": (("--variable", "a", "--into", "b", "--variable", "c", "--into", "b"), "--into b is there twice"),
    "a file as well": (("token.json", "--variable", "a", "--into", "b"), "not both"),
    "a place without a credential": (("--refresh-token-from", "password"), "--refresh-token-from needs --into"),
}


@pytest.mark.parametrize("case", MISUSED)
def test_what_does_not_fit_together_is_said(case, store, capsys):
    arguments, said = MISUSED[case]
    assert said in refused(capsys, *arguments)


def test_what_is_not_there_is_one_line(airflow, crm, store, capsys):
    assert "There is no connection `gone`" in refused(capsys, "--connection", "gone", "--into", crm.conn_id)
    assert "There is no Variable `gone`" in refused(capsys, "--variable", "gone", "--into", crm.conn_id)
    assert "make it first" in refused(capsys, "--variable", "gone", "--into", "gone")


def test_a_connection_of_another_type_is_not_imported_into(airflow, store, capsys):
    airflow.connection("plain", extra={"refresh_token": REFRESH})
    assert "which is no OAuth Guard class" in refused(capsys, "--connection", "plain", "--into", "plain")


# -- the guide --------------------------------------------------------------------------------------------------------

GUIDE = (Path(__file__).parents[3] / "docs" / "coming-from-elsewhere.md").read_text(encoding="utf-8")


def test_every_command_of_the_guide_can_be_typed():
    typed = re.findall(
        r"airflow oauth-guard import(.*)", "\n".join(re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL))
    )
    typed += re.findall(r"\| `([^`]*--into [^`]*)` \|", GUIDE)
    assert len(typed) > 10
    for arguments in typed:
        importing.read_moves(parsed(*arguments.split()))


def test_the_guide_names_what_is_found_by_itself():
    [table] = re.findall(r"\| found by itself.*?\n\n", GUIDE, re.DOTALL)
    for kind, row in zip(("refresh_token", "access_token", "expires_at"), table.strip().splitlines()[2:], strict=True):
        for name in re.findall(r"`(\w+)`", row):
            assert Leaf("the guide", name, "x").is_named_like(kind), name
