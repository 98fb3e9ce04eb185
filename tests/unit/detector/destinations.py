"""Destinations for the tests: a real SQLite or PostgreSQL database behind common-sql's own hook."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import BaseHook


class SqliteHook(DbApiHook):
    """Over the standard library's driver; the sqlite provider is not installed here."""

    conn_name_attr = "sqlite_conn_id"

    def get_conn(self) -> sqlite3.Connection:
        return sqlite3.connect(self.get_connection(self.get_conn_id()).host)


class PostgresHook(DbApiHook):
    """Over psycopg2; the postgres provider is not installed here."""

    conn_name_attr = "postgres_conn_id"

    def get_conn(self) -> Any:
        import psycopg2

        return psycopg2.connect(self.get_connection(self.get_conn_id()).host)


@dataclass
class Destinations:
    """Defines Airflow connections whose hooks are the ones above."""

    monkeypatch: Any
    hooks: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def get_hook(_cls: type, conn_id: str, hook_params: Any = None) -> Any:
            return self.hooks[conn_id]()

        self.monkeypatch.setattr(BaseHook, "get_hook", classmethod(get_hook))

    def define(self, conn_id: str, hook: type, host: str, **fields: Any) -> None:
        described = json.dumps({"conn_type": "generic", "host": host, **fields})
        self.monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", described)
        self.hooks[conn_id] = lambda: hook(conn_id)


@dataclass(frozen=True)
class Warehouse:
    """A SQLite database with a table ``contacts (at TEXT)``."""

    path: str

    def run(self, sql: str, *values: Any) -> None:
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute(sql, values)
        connection.close()

    def load(self, at: Any) -> None:
        self.run("INSERT INTO contacts VALUES (?)", at.isoformat())


def warehouse_in(destinations: Destinations, folder: Any, conn_id: str = "warehouse") -> Warehouse:
    warehouse = Warehouse(f"{folder}/{conn_id}.db")
    warehouse.run("CREATE TABLE contacts (at TEXT)")
    destinations.define(conn_id, SqliteHook, warehouse.path, password="planted-warehouse-password")
    return warehouse
