"""The ``[oauth_guard]`` options and the store they lead to."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import timedelta
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.configuration import conf

from airflow_oauth_guard.domain.brake import Brake
from airflow_oauth_guard.domain.quiet_hours import QuietHours, read_quiet_hours
from airflow_oauth_guard.errors import ConfigurationError, StoreConfigurationError
from airflow_oauth_guard.metadata import config_default

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from sqlalchemy.engine import URL

    from airflow_oauth_guard.catalog.catalog import Catalog
    from airflow_oauth_guard.store.store import Store

DRIVERS = {
    "postgres": (("psycopg2", "postgresql+psycopg2"), ("psycopg", "postgresql+psycopg")),
    "mysql": (("MySQLdb", "mysql+mysqldb"), ("pymysql", "mysql+pymysql")),
    "sqlite": (("sqlite3", "sqlite"),),
}
"""By Airflow conn_type: the Python module to look for, and the SQLAlchemy driver it makes possible."""


def option(name: str) -> str:
    """An ``[oauth_guard]`` option, or its default from ``provider.yaml``."""
    return str(conf.get("oauth_guard", name, fallback=config_default(name))).strip()


def duration(name: str) -> timedelta:
    """An option in seconds.

    Raises:
        ConfigurationError: If it is not a number above 0.
    """
    value = option(name)
    try:
        seconds = float(value)
    except ValueError as error:
        raise ConfigurationError(f"`[oauth_guard] {name}` is {value!r}; write a number of seconds.") from error
    if not 0 < seconds < float("inf"):
        raise ConfigurationError(f"`[oauth_guard] {name}` is {value!r}; write seconds above 0.")
    return timedelta(seconds=seconds)


def configured_brake() -> Brake:
    """How many downgrades a day may happen without a person.

    Raises:
        ConfigurationError: If an option is no number of 0 or more.
    """
    return Brake(count=int(_number("brake_count")), percent=_number("brake_percent"))


def expire_wait() -> timedelta:
    """How long a proven death waits before it may expire a credential without a person.

    Raises:
        ConfigurationError: If it is no number of seconds, 0 or more.
    """
    return timedelta(seconds=_number("expire_wait_seconds"))


def quiet_hours() -> QuietHours | None:
    """When only urgent alerts go out; None for never.

    Raises:
        ConfigurationError: If it is no stretch of the day.
    """
    return read_quiet_hours(option("quiet_hours"), "`[oauth_guard] quiet_hours`")


def escalate_after() -> timedelta:
    """How long an alert may go unacknowledged before others are told as well.

    Raises:
        ConfigurationError: If it is no number of hours, 0 or more.
    """
    return timedelta(hours=_number("escalate_after_hours"))


def _number(name: str) -> float:
    value = option(name)
    if not re.fullmatch(r"\d+(\.\d+)?", value):
        raise ConfigurationError(f"`[oauth_guard] {name}` is {value!r}; write a number, 0 or more.")
    return float(value)


def get_catalog() -> Catalog:
    """The providers we know, and those of ``[oauth_guard] catalog_folder``.

    Raises:
        CatalogError: If that is no folder.
    """
    from airflow_oauth_guard.catalog.catalog import Catalog

    folder = option("catalog_folder")
    return Catalog(Path(folder).expanduser() if folder else None)


def get_store() -> Store:
    """The store, opened once per process.

    Raises:
        StoreConfigurationError: If it cannot be used as configured.
    """
    conn_id = option("store_conn_id")
    return _open(_address(conn_id, int(time.monotonic() // 60)) if conn_id else _embedded(), _fernet_keys())


@lru_cache(maxsize=1)
def _address(conn_id: str, _minute: int) -> URL:
    """Where the store is, looked up once a minute: in a task that takes longer than whatever is then asked there."""
    from airflow.sdk import BaseHook

    return store_url(BaseHook.get_connection(conn_id))


async def aget_store() -> Store:
    """:func:`get_store` for a trigger: looks the connection up without blocking the event loop."""
    import asyncio

    from airflow.sdk import BaseHook

    conn_id = option("store_conn_id")
    url = store_url(await BaseHook.aget_connection(conn_id)) if conn_id else _embedded()
    return await asyncio.to_thread(_open, url, _fernet_keys())


def store_url(connection: Connection) -> URL:
    """The SQLAlchemy address that an Airflow connection to a database stands for.

    Raises:
        StoreConfigurationError: If its type is not one we can keep tokens in, or its driver is not installed.
    """
    from sqlalchemy.engine import URL

    drivers = DRIVERS.get(str(connection.conn_type))
    if drivers is None:
        raise StoreConfigurationError(
            f"Connection `{connection.conn_id}` (`[oauth_guard] store_conn_id`) has type `{connection.conn_type}`; "
            f"use one of {', '.join(DRIVERS)}."
        )
    driver = next((name for module, name in drivers if find_spec(module)), None)
    if driver is None:
        raise StoreConfigurationError(
            f"Connection `{connection.conn_id}` needs a driver for {connection.conn_type}: install one of "
            f"{', '.join(module for module, _ in drivers)}."
        )
    if driver == "sqlite":
        return URL.create("sqlite", database=connection.host or connection.schema)
    return URL.create(
        driver,
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        query={key: value for key, value in json.loads(connection.extra or "{}").items() if isinstance(value, str)},
    )


LOCAL_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor"})


def _embedded() -> URL:
    from sqlalchemy.engine import URL

    executors = {name.strip().rpartition(":")[2] for name in conf.get("core", "executor").split(",")}
    if not executors <= LOCAL_EXECUTORS:
        raise StoreConfigurationError(
            f"`[oauth_guard] store_conn_id` is empty and the executor is {', '.join(sorted(executors))}: each worker would "
            "keep tokens of its own, and lose them. Name a Postgres or MySQL connection there."
        )
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    return URL.create("sqlite", database=str(home / "oauth_guard.db"))


def _fernet_keys() -> str:
    return str(conf.get("core", "fernet_key", fallback=""))


@cache
def _open(url: URL, fernet_keys: str) -> Store:
    from airflow_oauth_guard.store.store import Store

    return Store(url, fernet_keys)
