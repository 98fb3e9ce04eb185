"""``airflow oauth-guard import``: tokens from a JSON list, or from wherever they are kept today."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_oauth_guard.cli.commands import open_store
from airflow_oauth_guard.cli.finding import (
    ACCESS_TOKEN,
    EXPIRES_AT,
    KINDS,
    REFRESH_TOKEN,
    Found,
    Leaf,
    find,
    leaves,
    option,
)
from airflow_oauth_guard.cli.output import clear_errors, read_input
from airflow_oauth_guard.domain.clock import parse_instant
from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.grants.settings import DEFAULT_MARGIN
from airflow_oauth_guard.hooks.registry import CONN_TYPE_PREFIX
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.metadata import connection_types
from airflow_oauth_guard.store.encryption import fingerprint
from airflow_oauth_guard.store.records import Enrollment

if TYPE_CHECKING:
    from airflow_oauth_guard.hooks.base import OAuthGuardHook
    from airflow_oauth_guard.store.store import Store

WHO = Observer(task_id="airflow oauth-guard import")
NOTHING_NEW = (
    "nothing new: it has been given these before, and what came of them since is kept; --again goes back to them"
)


def import_tokens(args: argparse.Namespace) -> None:
    """Store tokens from a list, or from the places that the options name; all or none."""
    with clear_errors():
        moves = read_moves(args)
        if moves:
            _move_all(moves, args)
        else:
            _import_list(read_credentials(read_input(args.file)), dry_run=args.dry_run, again=args.again)


# -- from where they are today ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """The places that tokens are taken from, and the guarded connection they are for."""

    into: str
    olds: tuple[tuple[str, str], ...]
    """What each is, and its name."""


@dataclass(frozen=True)
class Plan:
    """One move, thought through; nothing has been stored yet."""

    move: Move
    found: Found
    news: Enrollment
    """Without what the credential has been given before, unless that is wanted."""


def read_moves(args: argparse.Namespace) -> list[Move]:
    """What the options say; empty if they name nothing, so that the input is a list.

    Raises:
        ConfigurationError: If a place has no credential to go to, or the other way round.
    """
    given: list[tuple[str, str]] = args.moves or []
    moves = _paired(given)
    if not moves and (named := [option(kind) for kind in KINDS if getattr(args, f"{kind}_from")]):
        raise ConfigurationError(f"{named[0]} needs --into: the guarded connection that the tokens are for.")
    if args.file != "-" and any(move.olds for move in moves):
        raise ConfigurationError("Name a file, or --connection and --variable; not both.")
    if len(moves) == 1 and not moves[0].olds:
        return [replace(moves[0], olds=(("file", args.file),))]
    for number, move in enumerate(moves):
        if not move.olds:
            raise ConfigurationError(f"Nothing goes --into {move.into}: write --connection or --variable before it.")
        if move.into in {before.into for before in moves[:number]}:
            raise ConfigurationError(f"--into {move.into} is there twice; which tokens are the newer ones?")
    return moves


def _paired(given: Sequence[tuple[str, str]]) -> list[Move]:
    intos = [name for what, name in given if what == "into"]
    if len(intos) == 1:
        return [Move(intos[0], tuple(old for old in given if old[0] != "into"))]
    moves: list[Move] = []
    olds: list[tuple[str, str]] = []
    for what, name in given:
        if what != "into":
            olds.append((what, name))
            continue
        moves.append(Move(name, tuple(olds)))
        olds = []
    if olds:
        raise ConfigurationError(f"`{olds[0][1]}` goes nowhere: name the guarded connection behind it with --into.")
    return moves


def _move_all(moves: Sequence[Move], args: argparse.Namespace) -> None:
    # Before anything is looked up: it also lets this process see Airflow's connections and Variables.
    store = open_store()
    named = {kind: getattr(args, f"{kind}_from") or "" for kind in KINDS}
    plans = [_planned(store, move, named, again=args.again) for move in moves]
    generations = {credential.conn_id: credential.generation for credential in store.credentials.roster()}
    for plan in plans:
        print("\n".join(_what_was_found(plan)))  # noqa: T201
        if not (plan.news.access_token or plan.news.refresh_token):
            print(f"  {NOTHING_NEW}")  # noqa: T201
        elif args.dry_run:
            print(f"  would be generation {generations.get(plan.move.into, 0) + 1}; nothing was imported")  # noqa: T201
        else:
            store.credentials.import_tokens(plan.news, utcnow(), WHO)
            stored = store.credentials.ask_now(plan.move.into, utcnow())
            print(f"  generation {stored.generation}, {stored.status.value}; asked at the next cycle")  # noqa: T201
        print(_what_next(plan.move))  # noqa: T201


def _planned(store: Store, move: Move, named: Mapping[str, str], *, again: bool) -> Plan:
    hook = _guarded(move.into)
    values = [leaf for what, name in move.olds for leaf in _values(what, name)]
    needed = hook.grant_class.sends or ACCESS_TOKEN
    try:
        found = find(values, needed, named)
    except ConfigurationError as error:
        raise ConfigurationError(f"For `{move.into}`: {error}") from None
    enrollment = replace(
        hook.enrollment(found.expires_at),
        access_token=found.tokens.get(ACCESS_TOKEN, ""),
        refresh_token=found.tokens.get(REFRESH_TOKEN, ""),
    )
    return Plan(move, found, enrollment if again else store.credentials.unread(enrollment))


def _guarded(conn_id: str) -> OAuthGuardHook:
    from airflow_oauth_guard.hooks.registry import get_hook

    try:
        return get_hook(conn_id)
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"There is no connection `{conn_id}`: make it first, of a type oauth_guard_..., with the client and without tokens."
        ) from error


def _values(what: str, name: str) -> Iterator[Leaf]:
    read = {"connection": _of_connection, "variable": _of_variable, "file": _of_file}
    return read[what](name)


def _of_connection(conn_id: str) -> Iterator[Leaf]:
    from airflow.sdk import BaseHook

    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise ConfigurationError(f"There is no connection `{conn_id}`.") from error
    source = f"connection `{conn_id}`"
    for field in ("login", "password", "extra"):
        yield from leaves(source, getattr(connection, field), field)


def _of_variable(key: str) -> Iterator[Leaf]:
    from airflow.sdk import Variable

    value = Variable.get(key, default=None)
    if value is None:
        raise ConfigurationError(f"There is no Variable `{key}`.")
    yield from leaves(f"variable `{key}`", value, unnamed=key)


def _of_file(file: str) -> Iterator[Leaf]:
    yield from leaves("standard input" if file == "-" else f"file `{file}`", read_input(file))


def _what_was_found(plan: Plan) -> Iterator[str]:
    yield f"{plan.move.into} ({plan.news.connection_class}):"
    for kind, leaf in plan.found.places.items():
        if kind == EXPIRES_AT:
            yield f"  {kind}: {plan.found.expires_at:%Y-%m-%d %H:%M:%S}Z, from {leaf}"
        else:
            yield f"  {kind}: {_without_its_value(plan.found.tokens[kind])}, from {leaf}"
    if ACCESS_TOKEN not in plan.found.places:
        yield f"  {ACCESS_TOKEN}: none; the first refresh brings one, or say where it is with {option(ACCESS_TOKEN)}"


def _what_next(move: Move) -> str:
    olds = ", ".join(
        "where this input came from" if old == ("file", "-") else f"{old[0]} `{old[1]}`" for old in move.olds
    )
    # Nobody fills in a placeholder in a Variable or a file.
    instead = f", and write `{{oauth-guard:{move.into}}}` where its access token was" if _has_connection(move) else ""
    return (
        f"  next: stop whoever refreshes from {olds}, since one more refresh from there spends the token that the guard "
        f"holds; then delete what is there{instead}"
    )


def _has_connection(move: Move) -> bool:
    return any(what == "connection" for what, _ in move.olds)


# -- from a list ------------------------------------------------------------------------------------------------------


def _import_list(enrollments: Sequence[Enrollment], *, dry_run: bool, again: bool) -> None:
    store = open_store()
    for enrollment in enrollments:
        news = enrollment if again else store.credentials.unread(enrollment)
        given = {ACCESS_TOKEN: news.access_token, REFRESH_TOKEN: news.refresh_token}
        if not any(given.values()):
            print(f"{enrollment.conn_id}: {NOTHING_NEW}")  # noqa: T201
        elif dry_run:
            said = ", ".join(f"{kind}: {_without_its_value(token)}" for kind, token in given.items() if token)
            print(f"{enrollment.conn_id}: {said}; nothing was imported")  # noqa: T201
        else:
            stored = store.credentials.import_tokens(news, utcnow(), WHO)
            print(f"{stored.conn_id}: generation {stored.generation}, {stored.status.value}")  # noqa: T201


def _without_its_value(token: str) -> str:
    return f"{len(token)} characters, fingerprint {fingerprint(token)}"


_KEYS = frozenset({"conn_id", "connection_class", "access_token", "refresh_token", "expires_at"})


def read_credentials(text: str) -> list[Enrollment]:
    """Check what is to be imported, all of it, before anything is stored.

    Raises:
        ConfigurationError: Naming the entry and the key that is wrong; never repeating a token.
    """
    try:
        entries = json.loads(text)
    except ValueError as error:
        # The parser's message names a position and quotes nothing.
        raise ConfigurationError(f"The input is not JSON: {error}") from error
    entries = [entries] if isinstance(entries, Mapping) else entries
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError("The input holds no credentials; write a JSON list of objects.")
    enrollments = [_enrollment(entry, position) for position, entry in enumerate(entries, start=1)]
    [(name, times)] = Counter(enrollment.conn_id for enrollment in enrollments).most_common(1)
    if times > 1:
        raise ConfigurationError(f"Credential `{name}` is there twice; which tokens are the newer ones?")
    return enrollments


def _enrollment(entry: Any, position: int) -> Enrollment:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"Credential {position} is a {type(entry).__name__}; write an object.")
    where = f"Credential {position} (`{entry.get('conn_id', 'no conn_id')}`)"
    if unknown := entry.keys() - _KEYS:
        raise ConfigurationError(f"{where}: unknown key `{min(unknown)}`; known are {', '.join(sorted(_KEYS))}.")
    for key, value in entry.items():
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{where}: `{key}` is not text.")
    classes = sorted(conn_type.removeprefix(CONN_TYPE_PREFIX) for conn_type in connection_types())
    if "conn_id" not in entry:
        raise ConfigurationError(f"{where}: `conn_id` is missing.")
    if entry.get("connection_class") not in classes:
        raise ConfigurationError(f"{where}: `connection_class` must be one of {', '.join(classes)}.")
    if "access_token" not in entry and "refresh_token" not in entry:
        raise ConfigurationError(f"{where}: neither `access_token` nor `refresh_token` is there.")
    expires_at = (
        parse_instant(entry["expires_at"], f"expires_at of {entry['conn_id']}") if "expires_at" in entry else None
    )
    return Enrollment(
        conn_id=entry["conn_id"],
        connection_class=entry["connection_class"],
        client_key="",
        margin=DEFAULT_MARGIN,
        access_token=entry.get("access_token", ""),
        refresh_token=entry.get("refresh_token", ""),
        expires_at=expires_at,
    )
