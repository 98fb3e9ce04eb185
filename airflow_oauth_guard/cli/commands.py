"""The commands behind ``airflow oauth-guard``, and ``airflow-oauth-guard`` for Airflow 3.1."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from airflow_oauth_guard.cli.output import clear_errors, print_table
from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.transport import utcnow

if TYPE_CHECKING:
    from airflow_oauth_guard.grants.device_code import Invitation
    from airflow_oauth_guard.store.store import Store
    from airflow_oauth_guard.store.upkeep import Rotation


def main() -> None:
    """``airflow-oauth-guard``: the same commands where Airflow (3.1) does not take them from providers."""
    from airflow_oauth_guard.cli.definition import COMMANDS

    parser = argparse.ArgumentParser(prog="airflow-oauth-guard", description="Guarded OAuth credentials")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = commands.add_parser(command.name, help=command.help, description=command.description)
        for arg in command.args:
            arg.add_to_parser(subparser)
        subparser.set_defaults(func=command.func)
    args = parser.parse_args()
    args.func(args)


def connect(args: argparse.Namespace) -> None:
    """Connect a credential by the device flow."""
    from airflow_oauth_guard.hooks.connecting import connect_device
    from airflow_oauth_guard.hooks.registry import get_hook

    def invite(invitation: Invitation) -> None:
        address = invitation.verification_uri_complete or invitation.verification_uri
        print(f"Open {address} and enter the code {invitation.user_code}")  # noqa: T201
        print(f"Waiting for {words(invitation.expires_in)} at the most ...", flush=True)  # noqa: T201

    with clear_errors():
        store, hook = open_store(), get_hook(args.conn_id)
        connected = hook.run(connect_device(hook, store, Observer(task_id="airflow oauth-guard connect"), invite))
        credential = connected.credential
        print(f"{credential.conn_id}: generation {credential.generation}, {credential.status.value}")  # noqa: T201
        for note in connected.notes:
            print(f"{note}.")  # noqa: T201


def status(args: argparse.Namespace) -> None:
    """Print the roster."""
    with clear_errors():
        rows = roster(open_store())
        if args.json:
            print(json.dumps(rows, indent=2))  # noqa: T201
            return
        columns = ("credential", "class", "status", "life left", "feeds", "what is open", "evidence")
        print_table(columns, [tuple(str(row[key] or "") for key in ROSTER_KEYS) for row in rows])


def rotate_key(_args: argparse.Namespace) -> None:
    """Encrypt everything with the newest key, and say whether the older ones are needed still."""
    with clear_errors():
        rotation = open_store().upkeep.rotate_key()
        print(f"Encrypted anew: {rotation.encrypted_anew}. Under the newest key already: {rotation.up_to_date}.")  # noqa: T201
        for name in rotation.unreadable:
            print(f"No key of `[core] fernet_key` opens it: {name}", file=sys.stderr)  # noqa: T201
        print(about_the_old_keys(rotation))  # noqa: T201
    if rotation.unreadable:
        raise SystemExit(1)


def about_the_old_keys(rotation: Rotation) -> str:
    """Whether they may be removed; if not, why and what to do."""
    if rotation.old_keys_may_go:
        return "The old keys may be removed from `[core] fernet_key` now."
    reasons = []
    if rotation.unreadable:
        reasons.append(
            f"{len(rotation.unreadable)} of the stored secrets were made by a key that is not in the list; put it back "
            "behind the others, or reconnect these credentials"
        )
    if rotation.fell_behind:
        reasons.append(
            f"{rotation.fell_behind} were written with an older key meanwhile; restart the components that do not have "
            "the newest key yet"
        )
    if rotation.open_refreshes:
        names = ", ".join(f"`{name}`" for name in rotation.open_refreshes)
        reasons.append(
            f"a refresh of {names} has no outcome yet, and its answer may wait under an old key in an Airflow Variable; "
            "the next refresh settles it"
        )
    return f"Keep the old keys: {'; '.join(reasons)}. Then run this command again."


def purge(args: argparse.Namespace) -> None:
    """Delete history that has had its time, or count it."""
    from airflow_oauth_guard.operators.purge import configured_retention

    with clear_errors():
        went = open_store().upkeep.purge(configured_retention(), utcnow(), dry_run=args.dry_run)
        for table, count in went.items():
            print(f"{table}: {count} {'would go' if args.dry_run else 'deleted'}")  # noqa: T201


def revert(args: argparse.Namespace) -> None:
    """Bring the tokens before back."""
    with clear_errors():
        who = Observer(task_id="airflow oauth-guard revert")
        reverted = open_store().credentials.revert(args.conn_id, utcnow(), who)
        print(f"{reverted.conn_id}: generation {reverted.generation}, {reverted.status.value}; asked at the next cycle")  # noqa: T201


ROSTER_KEYS = ("conn_id", "connection_class", "status", "life_left", "feeds", "incident", "evidence")


def roster(store: Store) -> list[dict[str, Any]]:
    """Every guarded credential as plain values."""
    now = utcnow()
    open_ones = {incident.name: incident for incident in store.incidents.open_ones(About.CREDENTIAL)}
    credentials = store.credentials.roster()
    reaches = store.reaches.of([credential.conn_id for credential in credentials], now)
    rows = []
    for credential in credentials:
        reach = reaches[credential.conn_id]
        incident, latest = open_ones.get(credential.conn_id), store.credentials.latest_evidence(credential)
        rows.append(
            {
                "conn_id": credential.conn_id,
                "connection_class": credential.connection_class,
                "status": credential.status.value,
                "generation": credential.generation,
                "life_left": words(credential.life.remaining(now)),
                "feeds": reach.short() or None,
                "dags": list(reach.dags.first),
                "sources": list(reach.sources.first),
                "incident": incident.kind.value if incident else None,
                "evidence": latest.sentence() if latest else None,
            }
        )
    return rows


def open_store() -> Store:
    """The store, for a command."""
    # Outside a task Airflow looks a connection up in its own database only for a process that says it is a server.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    return get_store()
