"""Whom credentials and clients feed, by those who used them lately and by the sources that name them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select, union

from airflow_oauth_guard.domain.incidents import About, Incident
from airflow_oauth_guard.domain.reach import COUNTED_FOR, NAMED, OWN_DAGS, Names, Reach
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.records import CLIENT_NAME_LENGTH
from airflow_oauth_guard.store.tables import consumers, credentials, sources

AT_ONCE = 500
"""A database takes a limited number of values in one statement."""


class Reaches:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, conn_ids: Collection[str], now: datetime) -> dict[str, Reach]:
        """By credential, for each of these."""
        with self._database.read() as connection:
            return of_credentials(connection, conn_ids, now)

    def told(self, incidents: Sequence[Incident], now: datetime) -> list[Incident]:
        """The same incidents; those about a credential or a client with whom it feeds, as people are told."""
        with self._database.read() as connection:
            by_about = {
                About.CREDENTIAL: of_credentials(connection, _names(incidents, About.CREDENTIAL), now),
                About.CLIENT: _of_clients(connection, _names(incidents, About.CLIENT), now),
            }
        return [replace(one, reach=by_about.get(one.about, {}).get(one.name)) for one in incidents]


def _names(incidents: Sequence[Incident], about: About) -> set[str]:
    return {one.name for one in incidents if one.about is about}


def of_credentials(
    connection: Connection, conn_ids: Collection[str], now: datetime, most: int = NAMED
) -> dict[str, Reach]:
    """By credential, for each of these, also where nobody is known: one query for many.

    Args:
        most: How many DAGs and sources of each are named.
    """
    found: dict[str, Reach] = {}
    for some in _some_at_a_time(conn_ids):
        used = _used(credentials.c.conn_id, now).where(credentials.c.conn_id.in_(some))
        fed = _fed(sources.c.credential).where(sources.c.credential.in_(some))
        found |= _reaches(connection, some, used, fed, most)
    return found


def _of_clients(connection: Connection, names: Collection[str], now: datetime) -> dict[str, Reach]:
    """By the names that incidents know clients by."""
    client = func.substr(credentials.c.client_key, 1, CLIENT_NAME_LENGTH)
    found: dict[str, Reach] = {}
    for some in _some_at_a_time(names):
        used = _used(client, now).where(client.in_(some))
        fed = _fed(client).join(credentials, credentials.c.conn_id == sources.c.credential).where(client.in_(some))
        found |= _reaches(connection, some, used, fed, NAMED)
    return found


def _some_at_a_time(names: Collection[str]) -> Iterator[list[str]]:
    left = iter(names)
    while some := list(islice(left, AT_ONCE)):
        yield some


def _used(whose: ColumnElement[str], now: datetime) -> Select[Any]:
    """DAGs with a task that used one of theirs lately."""
    query = select(whose.label("whose"), literal("dag").label("kind"), consumers.c.dag_id.label("name"))
    both = consumers.join(credentials, credentials.c.id == consumers.c.credential_id)
    return query.select_from(both).where(consumers.c.last_used_at >= now - COUNTED_FOR)


def _fed(whose: ColumnElement[str]) -> Select[Any]:
    """Sources that name one of theirs, with the DAG that spoke last for each."""
    return select(whose.label("whose"), sources.c.name, sources.c.dag_id).select_from(sources)


def _reaches(
    connection: Connection, whose: Collection[str], used: Select[Any], fed: Select[Any], most: int
) -> dict[str, Reach]:
    by_source = fed.subquery()
    spoken = select(by_source.c.whose, literal("dag"), by_source.c.dag_id).where(by_source.c.dag_id.is_not(None))
    each = union(used, spoken, select(by_source.c.whose, literal("source"), by_source.c.name)).subquery()
    of_one = (each.c.whose, each.c.kind)
    numbered = (
        select(
            each.c.whose,
            each.c.kind,
            each.c.name,
            func.row_number().over(partition_by=of_one, order_by=each.c.name).label("place"),
            func.count().over(partition_by=of_one).label("number"),
        )
        .where((each.c.kind == "source") | each.c.name.not_in(OWN_DAGS))
        .subquery()
    )
    query = select(numbered).where(numbered.c.place <= most).order_by(numbered.c.place)
    found: dict[tuple[str, str], Names] = {}
    for row in connection.execute(query):
        before = found.get((row.whose, row.kind), Names())
        found[row.whose, row.kind] = Names((*before.first, row.name), row.number)
    nobody = Names()
    return {one: Reach(found.get((one, "dag"), nobody), found.get((one, "source"), nobody)) for one in whose}
