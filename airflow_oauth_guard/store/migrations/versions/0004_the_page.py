"""The page of release 0.5.0: who asked for it, the name of the preset, and authorizations that people have begun.

Every statement can be run again: on MySQL a migration that died half-way leaves what it has done so far.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_oauth_guard.store.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CREDENTIALS, EVIDENCE, TRANSITIONS, INVESTIGATIONS, HEARTBEATS, AUTHORIZATIONS = (
    f"oauth_guard_{name}"
    for name in ("credentials", "evidence", "transitions", "investigations", "heartbeats", "authorizations")
)

ADDED = {
    CREDENTIALS: [("provider", sa.String(100), {"nullable": False, "server_default": ""})],
    EVIDENCE: [("person", sa.String(250), {})],
    TRANSITIONS: [("person", sa.String(250), {})],
    INVESTIGATIONS: [("person", sa.String(250), {})],
    HEARTBEATS: [("person", sa.String(250), {})],
}

INDEXES = {
    "ix_oauth_guard_evidence_subject": (EVIDENCE, ["credential_id", "kind", "subject", "id"]),
    "ix_oauth_guard_evidence_timeline": (EVIDENCE, ["credential_id", "id"]),
    "ix_oauth_guard_authorizations_credential_id": (AUTHORIZATIONS, ["credential_id"]),
    "ix_oauth_guard_authorizations_ends_at": (AUTHORIZATIONS, ["ends_at"]),
}


def _add_columns() -> None:
    for table, columns in ADDED.items():
        there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
        for name, type_, options in columns:
            if name not in there:
                op.add_column(table, sa.Column(name, type_, **options))


def _authorizations() -> None:
    if sa.inspect(op.get_bind()).has_table(AUTHORIZATIONS):
        return
    op.create_table(
        AUTHORIZATIONS,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("state_hash", sa.String(length=64), nullable=False),
        sa.Column("credential_id", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(length=250), nullable=False),
        sa.Column("secret", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column("ends_at", UtcDateTime(), nullable=False),
        sa.Column("used_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["credential_id"],
            ["oauth_guard_credentials.id"],
            name=op.f("fk_oauth_guard_authorizations_credential_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_guard_authorizations")),
        sa.UniqueConstraint("state_hash", name=op.f("uq_oauth_guard_authorizations_state_hash")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )


def upgrade() -> None:
    _add_columns()
    _authorizations()
    for name, (table, columns) in INDEXES.items():
        if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
            op.create_index(name, table, columns)


def downgrade() -> None:
    raise NotImplementedError("A store does not go back; restore the backup that was made before the upgrade.")
