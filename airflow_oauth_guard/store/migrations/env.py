"""Alembic's entry: run the migrations on the connection that :mod:`..database` hands over."""

from __future__ import annotations

from alembic import context

from airflow_oauth_guard.store.database import VERSION_TABLE
from airflow_oauth_guard.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
