"""The flat lines of release 0.4.0: what is known of a source is kept with it; incidents are acknowledged and grouped.

Every statement can be run again: on MySQL a migration that died half-way leaves what it has done so far.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from airflow_oauth_guard.store.tables import BIG_NUMBER, UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SOURCES, HEARTBEATS, INCIDENTS, WATCH = (
    f"oauth_guard_{name}" for name in ("sources", "heartbeats", "incidents", "watch")
)

ADDED = {
    SOURCES: [
        ("declaration", sa.Text(), {}),
        ("adopted", sa.Integer(), {"nullable": False, "server_default": "0"}),
        ("last_beat_at", UtcDateTime(), {}),
        ("last_rows_at", UtcDateTime(), {}),
        ("learn_at", UtcDateTime(), {}),
        ("standing", sa.String(12), {"nullable": False, "server_default": "fine"}),
        ("expected_at", UtcDateTime(), {}),
        ("due_at", UtcDateTime(), {}),
        ("muted_at", UtcDateTime(), {}),
        ("muted_until", UtcDateTime(), {}),
        ("muted_by", sa.String(250), {}),
        ("mute_reason", sa.Text(), {}),
        ("dag_id", sa.String(250), {}),
        ("task_id", sa.String(250), {}),
        ("run_id", sa.String(250), {}),
        ("heard", sa.Text(), {}),
        ("habit", sa.Text(), {}),
    ],
    HEARTBEATS: [
        ("watermark", UtcDateTime(), {}),
        ("measured", sa.Integer(), {"nullable": False, "server_default": "0"}),
    ],
    INCIDENTS: [
        ("times_told", sa.Integer(), {"nullable": False, "server_default": "0"}),
        ("turned_at", UtcDateTime(), {}),
        ("escalated_at", UtcDateTime(), {}),
        ("acknowledged_at", UtcDateTime(), {}),
        ("acknowledged_by", sa.String(250), {}),
        ("expected_by", sa.String(250), {}),
        ("part_of", sa.Integer(), {}),
    ],
}

DROPPED = {SOURCES: ["window_seconds", "count_conn_id", "count_sql", "alert_route"]}

INDEXES = {
    "ix_oauth_guard_sources_credential": (SOURCES, ["credential"]),
    "ix_oauth_guard_sources_learn_at": (SOURCES, ["learn_at"]),
    "ix_oauth_guard_sources_standing": (SOURCES, ["standing"]),
    "ix_oauth_guard_sources_due_at": (SOURCES, ["due_at"]),
    "ix_oauth_guard_incidents_part_of": (INCIDENTS, ["part_of"]),
}


def _columns(table: str) -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}


def _add_columns() -> None:
    for table, columns in ADDED.items():
        there = _columns(table)
        for name, type_, options in columns:
            if name not in there:
                op.add_column(table, sa.Column(name, type_, **options))


def _table(name: str, *columns: str) -> sa.TableClause:
    times = {"at", "registered_at", "last_beat_at", "last_rows_at", "due_at", "last_notified_at"}
    return sa.table(name, *(sa.column(column, UtcDateTime() if column in times else None) for column in columns))


def _declare_anew() -> None:
    """Each source in the words of the Variable, with what its heartbeats said last."""
    if "window_seconds" not in _columns(SOURCES):
        return
    old = ("name", "window_seconds", "credential", "count_conn_id", "count_sql", "alert_route", "registered_at")
    sources = _table(SOURCES, *old, "declaration", "heard", "last_beat_at", "last_rows_at", "due_at")
    beats = _table(HEARTBEATS, "source", "at", "row_count")
    connection = op.get_bind()
    for row in connection.execute(sa.select(sources)).mappings().all():
        own = beats.c.source == row["name"]
        last = [
            connection.execute(sa.select(sa.func.max(beats.c.at)).where(own, *which)).scalar()
            for which in ((), (beats.c.row_count > 0,))
        ]
        since = () if last[1] is None else (beats.c.at > last[1],)
        zeros, unknowns = (
            connection.execute(sa.select(sa.func.count()).where(own, which, *since)).scalar_one()
            for which in (beats.c.row_count == 0, beats.c.row_count.is_(None))
        )
        connection.execute(
            sources.update()
            .where(sources.c.name == row["name"])
            .values(
                declaration=_declaration(row),
                heard=json.dumps({key: value for key, value in (("zeros", zeros), ("unknowns", unknowns)) if value}),
                last_beat_at=last[0],
                last_rows_at=last[1],
                # The first pass looks at each.
                due_at=row["registered_at"],
            )
        )


LONGEST_WINDOW = 366 * 86400.0


def _declaration(row: sa.RowMapping) -> str:
    # Whoever declared a source in Python was not held to the limits of the Variable; what is kept has to be readable.
    window = min(max(row["window_seconds"], 0.001), LONGEST_WINDOW)
    count = {"conn_id": row["count_conn_id"], "sql": row["count_sql"]} if row["count_sql"] else None
    optional = {"credential": row["credential"], "alert_route": row["alert_route"], "count": count}
    given = {key: value for key, value in optional.items() if value}
    return json.dumps({"name": row["name"], "window_seconds": window, **given})


def _change_types() -> None:
    """What was taken over may be missing no more, what is replaced goes, and numbers get room."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    obsolete = [name for name in DROPPED[SOURCES] if name in _columns(SOURCES)]
    with op.batch_alter_table(SOURCES) as sources:
        sources.alter_column("declaration", existing_type=sa.Text(), nullable=False)
        sources.alter_column("heard", existing_type=sa.Text(), nullable=False)
        for name in obsolete:
            sources.drop_column(name)
    if sqlite:
        # Its integers have 64 bits already.
        return
    counted = {} if op.get_bind().dialect.name == "postgresql" else {"autoincrement": True}
    op.alter_column(HEARTBEATS, "id", existing_type=sa.Integer(), type_=BIG_NUMBER, existing_nullable=False, **counted)
    op.alter_column(HEARTBEATS, "row_count", existing_type=sa.Integer(), type_=BIG_NUMBER, existing_nullable=True)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER SEQUENCE {HEARTBEATS}_id_seq AS bigint")


def _watch() -> None:
    if not sa.inspect(op.get_bind()).has_table(WATCH):
        op.create_table(
            WATCH,
            sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
            sa.Column("sources", sa.Integer(), nullable=False),
            sa.Column("declared", sa.String(64), nullable=False),
            sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_guard_watch")),
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
            mysql_engine="InnoDB",
        )
    op.execute(f"DELETE FROM {WATCH}")
    op.execute(f"INSERT INTO {WATCH} (id, sources, declared) SELECT 1, count(*), '' FROM {SOURCES}")


def _told_so_far() -> None:
    """Who was told once is not told for the first time again."""
    op.execute(f"UPDATE {INCIDENTS} SET times_told = 1 WHERE last_notified_at IS NOT NULL AND times_told = 0")


def upgrade() -> None:
    _add_columns()
    _declare_anew()
    _change_types()
    _watch()
    _told_so_far()
    for name, (table, columns) in INDEXES.items():
        if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
            op.create_index(name, table, columns)


def downgrade() -> None:
    raise NotImplementedError("A store does not go back; restore the backup that was made before the upgrade.")
