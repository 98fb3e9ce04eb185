"""The upkeep of release 0.2.0: evidence may go once it is old, and what a purge looks for is indexed.

Every statement can be run again: on MySQL a migration that died half-way leaves what it has done so far.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_oauth_guard.store.tables import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_oauth_guard_evidence_age": ("oauth_guard_evidence", ["kind", "observed_at", "id"]),
    "ix_oauth_guard_evidence_latest": (
        "oauth_guard_evidence",
        ["credential_id", "kind", "verdict", "shape_id", "id"],
    ),
    "ix_oauth_guard_transitions_evidence_id": ("oauth_guard_transitions", ["evidence_id"]),
    "ix_oauth_guard_investigations_opening_evidence_id": ("oauth_guard_investigations", ["opening_evidence_id"]),
    "ix_oauth_guard_investigations_conclusion_evidence_id": ("oauth_guard_investigations", ["conclusion_evidence_id"]),
    "ix_oauth_guard_investigations_closed_at": ("oauth_guard_investigations", ["closed_at"]),
    "ix_oauth_guard_intents_closed_at": ("oauth_guard_intents", ["closed_at"]),
    "ix_oauth_guard_intents_generation": ("oauth_guard_intents", ["credential_id", "generation"]),
}

TOO_YOUNG = "oauth_guard_evidence is append-only; what is older than 30 days may be deleted"


def _guard_postgresql() -> None:
    # Hours, because a day of an interval follows the clock changes of the session's time zone.
    op.execute(
        "CREATE OR REPLACE FUNCTION oauth_guard_only_old_evidence() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN "
        "IF OLD.observed_at < clock_timestamp() - INTERVAL '720 hours' THEN RETURN OLD; END IF; "
        f"RAISE EXCEPTION '{TOO_YOUNG}'; END $$"
    )
    for name, when, function in (
        ("no_update", "UPDATE", "oauth_guard_append_only"),
        ("only_old_deleted", "DELETE", "oauth_guard_only_old_evidence"),
    ):
        op.execute(f"DROP TRIGGER IF EXISTS oauth_guard_evidence_{name} ON oauth_guard_evidence")
        op.execute(
            f"CREATE TRIGGER oauth_guard_evidence_{name} BEFORE {when} ON oauth_guard_evidence "
            f"FOR EACH ROW EXECUTE FUNCTION {function}()"
        )
    op.execute("DROP TRIGGER IF EXISTS oauth_guard_evidence_append_only ON oauth_guard_evidence")


def _guard_mysql() -> None:
    # SYSDATE, because UTC_TIMESTAMP says what a session has SET timestamp to. It knows only the session's time zone.
    now = "CONVERT_TZ(SYSDATE(6), @@session.time_zone, '+00:00')"
    op.execute("DROP TRIGGER IF EXISTS oauth_guard_evidence_only_old_deleted")
    # The new guard stands before the old one goes: here nothing is rolled back. Undecided is refused.
    op.get_bind().exec_driver_sql(
        "CREATE TRIGGER oauth_guard_evidence_only_old_deleted BEFORE DELETE ON oauth_guard_evidence FOR EACH ROW "
        f"IF NOT COALESCE(OLD.observed_at < {now} - INTERVAL 720 HOUR, FALSE) THEN "
        f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{TOO_YOUNG}'; END IF"
    )
    op.execute("DROP TRIGGER IF EXISTS oauth_guard_evidence_no_delete")


def _guard_sqlite() -> None:
    for name, when, why in (
        ("only_old_deleted", "NOT OLD.observed_at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-30 days')", TOO_YOUNG),
        # SQLite checks foreign keys only for connections that ask for it; a shell does not.
        ("only_unused_deleted", _REFERRED_TO, "oauth_guard_evidence is append-only while something refers to it"),
    ):
        op.execute(f"DROP TRIGGER IF EXISTS oauth_guard_evidence_{name}")
        op.execute(
            f"CREATE TRIGGER oauth_guard_evidence_{name} BEFORE DELETE ON oauth_guard_evidence "
            f"WHEN {when} BEGIN SELECT RAISE(ABORT, '{why}'); END"
        )
    op.execute("DROP TRIGGER IF EXISTS oauth_guard_evidence_no_delete")


_REFERRED_TO = (
    "EXISTS (SELECT 1 FROM oauth_guard_statuses WHERE credential_id = OLD.credential_id AND evidence_id = OLD.id) "
    "OR EXISTS (SELECT 1 FROM oauth_guard_transitions WHERE evidence_id = OLD.id) "
    "OR EXISTS (SELECT 1 FROM oauth_guard_investigations WHERE opening_evidence_id = OLD.id) "
    "OR EXISTS (SELECT 1 FROM oauth_guard_investigations WHERE conclusion_evidence_id = OLD.id)"
)

GUARDS = {
    "postgresql": _guard_postgresql,
    "mysql": _guard_mysql,
    "mariadb": _guard_mysql,
    "sqlite": _guard_sqlite,
}


def _remember_seeds() -> None:
    if not sa.inspect(op.get_bind()).has_table("oauth_guard_seeds"):
        op.create_table(
            "oauth_guard_seeds",
            sa.Column("credential_id", sa.Integer(), nullable=False, autoincrement=False),
            sa.Column("fingerprint", sa.String(length=16), nullable=False),
            sa.Column("read_at", UtcDateTime(), nullable=False),
            sa.ForeignKeyConstraint(
                ["credential_id"],
                ["oauth_guard_credentials.id"],
                name=op.f("fk_oauth_guard_seeds_credential_id"),
            ),
            sa.PrimaryKeyConstraint("credential_id", "fingerprint", name=op.f("pk_oauth_guard_seeds")),
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
            mysql_engine="InnoDB",
        )
    op.execute("DELETE FROM oauth_guard_seeds")
    op.execute(
        "INSERT INTO oauth_guard_seeds (credential_id, fingerprint, read_at) "
        "SELECT id, access_seed, created_at FROM oauth_guard_credentials WHERE access_seed <> '' "
        "UNION SELECT id, refresh_seed, created_at FROM oauth_guard_credentials WHERE refresh_seed <> ''"
    )


def upgrade() -> None:
    for name, (table, columns) in INDEXES.items():
        if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
            op.create_index(name, table, columns)
    _remember_seeds()
    GUARDS[op.get_bind().dialect.name]()


def downgrade() -> None:
    raise NotImplementedError("A store does not go back; restore the backup that was made before the upgrade.")
