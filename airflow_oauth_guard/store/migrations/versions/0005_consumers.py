"""Consumers of release 0.6.0: which tasks use which credential, and what a heartbeat says beside its number.

Every statement can be run again: on MySQL a migration that died half-way leaves what it has done so far.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_oauth_guard.store.tables import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CONSUMERS, HEARTBEATS = "oauth_guard_consumers", "oauth_guard_heartbeats"
LAST_USED = "ix_oauth_guard_consumers_last_used_at"


def _consumers() -> None:
    if sa.inspect(op.get_bind()).has_table(CONSUMERS):
        return
    op.create_table(
        CONSUMERS,
        sa.Column("credential_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("first_used_at", UtcDateTime(), nullable=False),
        sa.Column("last_used_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["credential_id"],
            ["oauth_guard_credentials.id"],
            name=op.f("fk_oauth_guard_consumers_credential_id"),
        ),
        sa.PrimaryKeyConstraint("credential_id", "dag_id", "task_id", name=op.f("pk_oauth_guard_consumers")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )


def upgrade() -> None:
    _consumers()
    if LAST_USED not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(CONSUMERS)}:
        op.create_index(LAST_USED, CONSUMERS, ["last_used_at"])
    if "note" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(HEARTBEATS)}:
        op.add_column(HEARTBEATS, sa.Column("note", sa.String(500), nullable=False, server_default=""))


def downgrade() -> None:
    raise NotImplementedError("A store does not go back; restore the backup that was made before the upgrade.")
