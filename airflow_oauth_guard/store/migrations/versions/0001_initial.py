"""The tables of release 0.1.0.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_oauth_guard.store.tables import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("oauth_guard_evidence", "oauth_guard_transitions")
"""What was seen and what was changed for it is never rewritten."""


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION oauth_guard_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION oauth_guard_append_only()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION oauth_guard_append_only()"
        )


def _guard_mysql() -> None:
    for table in APPEND_ONLY:
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} FOR EACH ROW "
                f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{table} is append-only'"
            )


def _guard_sqlite() -> None:
    for table in APPEND_ONLY:
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        # REPLACE deletes without asking the trigger on DELETE, unless a connection wants it to.
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id) "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
    # SQLite checks foreign keys only for connections that ask for it; a shell does not.
    for action in ("INSERT", "UPDATE"):
        op.execute(
            f"""
            CREATE TRIGGER oauth_guard_statuses_carried_{action.lower()} BEFORE {action} ON oauth_guard_statuses
            WHEN NEW.status <> 'active' AND NOT EXISTS (
                SELECT 1 FROM oauth_guard_evidence e JOIN oauth_guard_tokens t
                  ON t.credential_id = e.credential_id AND t.generation = e.generation
                WHERE e.id = NEW.evidence_id AND e.credential_id = NEW.credential_id
                  AND e.generation = NEW.generation AND e.subject = NEW.subject AND e.verdict = NEW.verdict
            )
            BEGIN SELECT RAISE(ABORT, 'a status other than active needs dead evidence of the newest tokens'); END
            """
        )


GUARDS = {
    "postgresql": _guard_postgresql,
    "mysql": _guard_mysql,
    "mariadb": _guard_mysql,
    "sqlite": _guard_sqlite,
}


def upgrade() -> None:
    op.create_table(
        "oauth_guard_credentials",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("conn_id", sa.String(length=250), nullable=False),
        sa.Column("connection_class", sa.String(length=40), nullable=False),
        sa.Column("client_key", sa.String(length=64), nullable=False),
        sa.Column("probe_host", sa.String(length=255), nullable=False),
        sa.Column("access_seed", sa.String(length=16), nullable=False),
        sa.Column("refresh_seed", sa.String(length=16), nullable=False),
        sa.Column("margin_seconds", sa.Double(), nullable=False),
        sa.Column("at_half_life", sa.Integer(), nullable=False),
        sa.Column("expire_policy", sa.String(length=10), nullable=False),
        sa.Column("alert_route", sa.String(length=100), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("attempt_after", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_guard_credentials")),
        sa.UniqueConstraint("conn_id", name=op.f("uq_oauth_guard_credentials_conn_id")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(
        op.f("ix_oauth_guard_credentials_client_key"), "oauth_guard_credentials", ["client_key"], unique=False
    )
    op.create_table(
        "oauth_guard_heartbeats",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=250), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=True),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("beat_key", sa.String(length=64), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=True),
        sa.Column("run_id", sa.String(length=250), nullable=True),
        sa.Column("task_id", sa.String(length=250), nullable=True),
        sa.Column("map_index", sa.Integer(), nullable=True),
        sa.Column("try_number", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "row_count IS NULL OR row_count >= 0", name=op.f("ck_oauth_guard_heartbeats_rows_not_negative")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_guard_heartbeats")),
        sa.UniqueConstraint("beat_key", name=op.f("uq_oauth_guard_heartbeats_beat_key")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index("ix_oauth_guard_heartbeats_heard", "oauth_guard_heartbeats", ["source", "at"], unique=False)
    op.create_table(
        "oauth_guard_incidents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("about", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(length=100), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.Column("alert_route", sa.String(length=100), nullable=False),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column("noticed_at", UtcDateTime(), nullable=False),
        sa.Column("escalates_at", UtcDateTime(), nullable=True),
        sa.Column("first_notified_at", UtcDateTime(), nullable=True),
        sa.Column("last_notified_at", UtcDateTime(), nullable=True),
        sa.Column("resolved_at", UtcDateTime(), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.Column("open_for", sa.String(length=263), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_guard_incidents")),
        sa.UniqueConstraint("open_for", name=op.f("uq_oauth_guard_incidents_open_for")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index("ix_oauth_guard_incidents_about", "oauth_guard_incidents", ["about", "name"], unique=False)
    op.create_table(
        "oauth_guard_sources",
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("window_seconds", sa.Double(), nullable=False),
        sa.Column("credential", sa.String(length=250), nullable=True),
        sa.Column("count_conn_id", sa.String(length=250), nullable=True),
        sa.Column("count_sql", sa.Text(), nullable=True),
        sa.Column("alert_route", sa.String(length=100), nullable=False),
        sa.Column("registered_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_oauth_guard_sources")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "oauth_guard_evidence",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("credential_id", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("subject", sa.String(length=20), nullable=False),
        sa.Column("finding", sa.String(length=40), nullable=False),
        sa.Column("verdict", sa.String(length=10), nullable=False),
        sa.Column("rule", sa.String(length=60), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=True),
        sa.Column("shape_id", sa.String(length=64), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("answer_id", sa.String(length=64), nullable=False),
        sa.Column("skew_seconds", sa.Double(), nullable=True),
        sa.Column("retry_after_seconds", sa.Double(), nullable=True),
        sa.Column("rests_on", sa.Text(), nullable=False),
        sa.Column("investigation_id", sa.Integer(), nullable=True),
        sa.Column("observed_at", UtcDateTime(), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=True),
        sa.Column("run_id", sa.String(length=250), nullable=True),
        sa.Column("task_id", sa.String(length=250), nullable=True),
        sa.Column("map_index", sa.Integer(), nullable=True),
        sa.Column("try_number", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "kind <> 'conclusion' OR verdict <> 'dead' OR rests_on <> '[]'",
            name=op.f("ck_oauth_guard_evidence_dead_rests_on_evidence"),
        ),
        sa.CheckConstraint(
            "verdict <> 'dead' OR kind IN ('conclusion', 'person')",
            name=op.f("ck_oauth_guard_evidence_dead_is_concluded"),
        ),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["oauth_guard_credentials.id"], name=op.f("fk_oauth_guard_evidence_credential_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_guard_evidence")),
        sa.UniqueConstraint(
            "credential_id", "generation", "id", "subject", "verdict", name="uq_oauth_guard_evidence_carries"
        ),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index("ix_oauth_guard_evidence_investigation", "oauth_guard_evidence", ["investigation_id"], unique=False)
    op.create_index(
        "ix_oauth_guard_evidence_seen", "oauth_guard_evidence", ["credential_id", "observed_at"], unique=False
    )
    op.create_index("ix_oauth_guard_evidence_shape", "oauth_guard_evidence", ["shape_id", "verdict"], unique=False)
    op.create_table(
        "oauth_guard_intents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("credential_id", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("token_fingerprint", sa.String(length=16), nullable=False),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column(
            "answer",
            sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb").with_variant(mysql.MEDIUMTEXT(), "mysql"),
            nullable=True,
        ),
        sa.Column("outcome", sa.String(length=20), nullable=True),
        sa.Column("closed_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["oauth_guard_credentials.id"], name=op.f("fk_oauth_guard_intents_credential_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_guard_intents")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(
        op.f("ix_oauth_guard_intents_credential_id"), "oauth_guard_intents", ["credential_id"], unique=False
    )
    op.create_table(
        "oauth_guard_tokens",
        sa.Column("credential_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column(
            "access_token",
            sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb").with_variant(mysql.MEDIUMTEXT(), "mysql"),
            nullable=False,
        ),
        sa.Column(
            "refresh_token",
            sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb").with_variant(mysql.MEDIUMTEXT(), "mysql"),
            nullable=False,
        ),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("issued_at", UtcDateTime(), nullable=True),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column(
            "previous_access_token",
            sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb").with_variant(mysql.MEDIUMTEXT(), "mysql"),
            nullable=False,
        ),
        sa.Column(
            "previous_refresh_token",
            sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb").with_variant(mysql.MEDIUMTEXT(), "mysql"),
            nullable=False,
        ),
        sa.Column("lease_owner", sa.String(length=100), nullable=True),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["oauth_guard_credentials.id"], name=op.f("fk_oauth_guard_tokens_credential_id")
        ),
        sa.PrimaryKeyConstraint("credential_id", name=op.f("pk_oauth_guard_tokens")),
        sa.UniqueConstraint("credential_id", "generation", name=op.f("uq_oauth_guard_tokens_credential_id")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "oauth_guard_investigations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("credential_id", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column("open_for", sa.Integer(), nullable=True),
        sa.Column("opening_evidence_id", sa.Integer(), nullable=False),
        sa.Column("conclusion_evidence_id", sa.Integer(), nullable=True),
        sa.Column("finding", sa.String(length=40), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=True),
        sa.Column("owner", sa.String(length=100), nullable=True),
        sa.Column("handed_over_at", UtcDateTime(), nullable=True),
        sa.Column("asked_at", UtcDateTime(), nullable=True),
        sa.Column("answer", sa.String(length=20), nullable=True),
        sa.Column("answered_by", sa.String(length=250), nullable=True),
        sa.Column("answered_at", UtcDateTime(), nullable=True),
        sa.Column("closed_at", UtcDateTime(), nullable=True),
        sa.Column("dag_id", sa.String(length=250), nullable=True),
        sa.Column("run_id", sa.String(length=250), nullable=True),
        sa.Column("task_id", sa.String(length=250), nullable=True),
        sa.Column("map_index", sa.Integer(), nullable=True),
        sa.Column("try_number", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["conclusion_evidence_id"],
            ["oauth_guard_evidence.id"],
            name=op.f("fk_oauth_guard_investigations_conclusion_evidence_id"),
        ),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["oauth_guard_credentials.id"], name=op.f("fk_oauth_guard_investigations_credential_id")
        ),
        sa.ForeignKeyConstraint(
            ["opening_evidence_id"],
            ["oauth_guard_evidence.id"],
            name=op.f("fk_oauth_guard_investigations_opening_evidence_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_guard_investigations")),
        sa.UniqueConstraint("open_for", name=op.f("uq_oauth_guard_investigations_open_for")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(
        op.f("ix_oauth_guard_investigations_credential_id"),
        "oauth_guard_investigations",
        ["credential_id"],
        unique=False,
    )
    op.create_table(
        "oauth_guard_statuses",
        sa.Column("credential_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.Column("evidence_id", sa.Integer(), nullable=True),
        sa.Column("subject", sa.String(length=20), nullable=True),
        sa.Column("verdict", sa.String(length=10), nullable=True),
        sa.CheckConstraint(
            "\n    status = 'active'\n    OR (generation IS NOT NULL AND evidence_id IS NOT NULL AND COALESCE(verdict, '') = 'dead' AND (\n        (status = 'lapsed' AND COALESCE(subject, '') = 'access_token')\n        OR (status = 'expired' AND COALESCE(subject, '') = 'grant')\n    ))\n",
            name=op.f("ck_oauth_guard_statuses_carried_by_evidence"),
        ),
        sa.ForeignKeyConstraint(
            ["credential_id", "generation", "evidence_id", "subject", "verdict"],
            [
                "oauth_guard_evidence.credential_id",
                "oauth_guard_evidence.generation",
                "oauth_guard_evidence.id",
                "oauth_guard_evidence.subject",
                "oauth_guard_evidence.verdict",
            ],
            name="fk_oauth_guard_statuses_evidence",
        ),
        sa.ForeignKeyConstraint(
            ["credential_id", "generation"],
            ["oauth_guard_tokens.credential_id", "oauth_guard_tokens.generation"],
            name="fk_oauth_guard_statuses_generation",
        ),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["oauth_guard_credentials.id"], name=op.f("fk_oauth_guard_statuses_credential_id")
        ),
        sa.PrimaryKeyConstraint("credential_id", name=op.f("pk_oauth_guard_statuses")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "oauth_guard_transitions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("credential_id", sa.Integer(), nullable=False),
        sa.Column("from_status", sa.String(length=10), nullable=False),
        sa.Column("to_status", sa.String(length=10), nullable=False),
        sa.Column("evidence_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("became_true_at", UtcDateTime(), nullable=False),
        sa.Column("written_at", UtcDateTime(), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=True),
        sa.Column("run_id", sa.String(length=250), nullable=True),
        sa.Column("task_id", sa.String(length=250), nullable=True),
        sa.Column("map_index", sa.Integer(), nullable=True),
        sa.Column("try_number", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["oauth_guard_credentials.id"], name=op.f("fk_oauth_guard_transitions_credential_id")
        ),
        sa.ForeignKeyConstraint(
            ["evidence_id"], ["oauth_guard_evidence.id"], name=op.f("fk_oauth_guard_transitions_evidence_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_guard_transitions")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(
        op.f("ix_oauth_guard_transitions_credential_id"), "oauth_guard_transitions", ["credential_id"], unique=False
    )
    GUARDS[op.get_bind().dialect.name]()


def downgrade() -> None:
    raise NotImplementedError("There is nothing before 0.1.0; drop the oauth_guard_* tables to start anew.")
