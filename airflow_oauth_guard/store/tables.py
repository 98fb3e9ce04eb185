"""The tables. ``migrations/`` creates them; a test holds the two together."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import DateTime, TypeDecorator, TypeEngine

from airflow_oauth_guard.domain.clock import aware
from airflow_oauth_guard.errors import NaiveDatetimeError


class _UnwrappedNaiveDatetimeError(NaiveDatetimeError, DontWrapMixin):
    """Reaches the caller as it is, and not as a database error that quotes the statement."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant, kept as UTC with microseconds on every database; a naive one is refused."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        try:
            instant = aware(value, "a stored instant")
        except NaiveDatetimeError as error:
            raise _UnwrappedNaiveDatetimeError(*error.args) from None
        return instant if dialect.name == "postgresql" else instant.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


# SQLite numbers rows by itself only where the type is INTEGER, which holds as much there.
BIG_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

LONG_TEXT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


# Names that differ in case are different names on every database.
MYSQL: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def _where_seen() -> list[Column[Any]]:
    return [
        Column("dag_id", String(250)),
        Column("run_id", String(250)),
        Column("task_id", String(250)),
        Column("map_index", Integer),
        Column("try_number", Integer),
    ]


def _asked_by() -> Column[Any]:
    """The name of the person who asked for it; NULL where a schedule did."""
    return Column("person", String(250))


credentials = Table(
    "oauth_guard_credentials",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("conn_id", String(250), nullable=False, unique=True),
    Column("connection_class", String(40), nullable=False),
    Column("client_key", String(64), nullable=False, index=True),
    Column("probe_host", String(255), nullable=False, default=""),
    # Of the connection's seed fields as they were read last; empty while none was.
    Column("access_seed", String(16), nullable=False),
    Column("refresh_seed", String(16), nullable=False),
    Column("margin_seconds", Double, nullable=False),
    Column("at_half_life", Integer, nullable=False),
    Column("expire_policy", String(10), nullable=False),
    Column("alert_route", String(100), nullable=False),
    Column("failures", Integer, nullable=False, default=0),
    Column("attempt_after", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    # The name of its preset, for people to find it by; empty where none is known.
    Column("provider", String(100), nullable=False, default="", server_default=""),
    **MYSQL,
)

tokens = Table(
    "oauth_guard_tokens",
    metadata,
    Column("credential_id", ForeignKey(credentials.c.id), primary_key=True, autoincrement=False),
    Column("generation", Integer, nullable=False),
    Column("access_token", LONG_TEXT, nullable=False, default=""),
    Column("refresh_token", LONG_TEXT, nullable=False, default=""),
    Column("scope", Text, nullable=False, default=""),
    Column("issued_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("previous_access_token", LONG_TEXT, nullable=False, default=""),
    Column("previous_refresh_token", LONG_TEXT, nullable=False, default=""),
    Column("lease_owner", String(100)),
    Column("lease_until", UtcDateTime),
    UniqueConstraint("credential_id", "generation"),
    **MYSQL,
)

# Every seed a connection ever had, so that one that was replaced is not taken for a new one.
seeds = Table(
    "oauth_guard_seeds",
    metadata,
    Column("credential_id", ForeignKey(credentials.c.id), primary_key=True, autoincrement=False),
    Column("fingerprint", String(16), primary_key=True),
    Column("read_at", UtcDateTime, nullable=False),
    **MYSQL,
)

intents = Table(
    "oauth_guard_intents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("credential_id", ForeignKey(credentials.c.id), nullable=False, index=True),
    Column("generation", Integer, nullable=False),
    Column("token_fingerprint", String(16), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("answer", LONG_TEXT),
    Column("outcome", String(20)),
    Column("closed_at", UtcDateTime, index=True),
    Index("ix_oauth_guard_intents_generation", "credential_id", "generation"),
    **MYSQL,
)

evidence = Table(
    "oauth_guard_evidence",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("credential_id", ForeignKey(credentials.c.id), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("subject", String(20), nullable=False),
    Column("finding", String(40), nullable=False),
    Column("verdict", String(10), nullable=False),
    Column("rule", String(60), nullable=False),
    Column("explanation", Text, nullable=False),
    Column("shape", Text),
    Column("shape_id", String(64)),
    Column("http_status", Integer),
    Column("headers", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("answer_id", String(64), nullable=False),
    Column("skew_seconds", Double),
    Column("retry_after_seconds", Double),
    Column("rests_on", Text, nullable=False),
    Column("investigation_id", Integer),
    Column("observed_at", UtcDateTime, nullable=False),
    *_where_seen(),
    _asked_by(),
    # A death is concluded from other evidence or said by a person; no single answer can be one.
    CheckConstraint("verdict <> 'dead' OR kind IN ('conclusion', 'person')", name="dead_is_concluded"),
    CheckConstraint("kind <> 'conclusion' OR verdict <> 'dead' OR rests_on <> '[]'", name="dead_rests_on_evidence"),
    # What a status points at; MySQL and SQLite want the key to cover exactly the columns pointed at.
    UniqueConstraint("credential_id", "generation", "id", "subject", "verdict", name="uq_oauth_guard_evidence_carries"),
    Index("ix_oauth_guard_evidence_seen", "credential_id", "observed_at"),
    Index("ix_oauth_guard_evidence_shape", "shape_id", "verdict"),
    Index("ix_oauth_guard_evidence_investigation", "investigation_id"),
    # What a purge walks along, and where it looks for a newer row of the same sort.
    Index("ix_oauth_guard_evidence_age", "kind", "observed_at", "id"),
    Index("ix_oauth_guard_evidence_latest", "credential_id", "kind", "verdict", "shape_id", "id"),
    # Where the page looks: for the newest of each kind and subject, and for what was seen before a number.
    Index("ix_oauth_guard_evidence_subject", "credential_id", "kind", "subject", "id"),
    Index("ix_oauth_guard_evidence_timeline", "credential_id", "id"),
    **MYSQL,
)

# A CHECK lets through what it cannot decide, so a NULL must not leave it undecided.
_CARRIED = """
    status = 'active'
    OR (generation IS NOT NULL AND evidence_id IS NOT NULL AND COALESCE(verdict, '') = 'dead' AND (
        (status = 'lapsed' AND COALESCE(subject, '') = 'access_token')
        OR (status = 'expired' AND COALESCE(subject, '') = 'grant')
    ))
"""

statuses = Table(
    "oauth_guard_statuses",
    metadata,
    Column("credential_id", ForeignKey(credentials.c.id), primary_key=True, autoincrement=False),
    Column("status", String(10), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("generation", Integer),
    Column("evidence_id", Integer),
    Column("subject", String(20)),
    Column("verdict", String(10)),
    CheckConstraint(_CARRIED, name="carried_by_evidence"),
    ForeignKeyConstraint(
        ["credential_id", "generation", "evidence_id", "subject", "verdict"],
        [evidence.c[n] for n in ("credential_id", "generation", "id", "subject", "verdict")],
        name="fk_oauth_guard_statuses_evidence",
    ),
    # The evidence is about the tokens the credential has now, not about some it had before.
    ForeignKeyConstraint(
        ["credential_id", "generation"],
        [tokens.c.credential_id, tokens.c.generation],
        name="fk_oauth_guard_statuses_generation",
    ),
    **MYSQL,
)

transitions = Table(
    "oauth_guard_transitions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("credential_id", ForeignKey(credentials.c.id), nullable=False, index=True),
    Column("from_status", String(10), nullable=False),
    Column("to_status", String(10), nullable=False),
    # Indexed like every reference to evidence: deleting a row of it looks for them.
    Column("evidence_id", ForeignKey(evidence.c.id), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("became_true_at", UtcDateTime, nullable=False),
    Column("written_at", UtcDateTime, nullable=False),
    *_where_seen(),
    _asked_by(),
    **MYSQL,
)

investigations = Table(
    "oauth_guard_investigations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("credential_id", ForeignKey(credentials.c.id), nullable=False, index=True),
    Column("generation", Integer, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    # The credential's id while the question is open, NULL after: at most one open question per credential.
    Column("open_for", Integer, unique=True),
    Column("opening_evidence_id", ForeignKey(evidence.c.id), nullable=False, index=True),
    Column("conclusion_evidence_id", ForeignKey(evidence.c.id), index=True),
    Column("finding", String(40)),
    Column("explanation", Text),
    Column("owner", String(100)),
    # When somebody took it on: a RefreshOperator for the probe behind it, or a HandOverOperator. NULL: nobody yet.
    Column("handed_over_at", UtcDateTime),
    Column("asked_at", UtcDateTime),
    Column("answer", String(20)),
    Column("answered_by", String(250)),
    Column("answered_at", UtcDateTime),
    Column("closed_at", UtcDateTime, index=True),
    *_where_seen(),
    _asked_by(),
    **MYSQL,
)

incidents = Table(
    "oauth_guard_incidents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("about", String(12), nullable=False),
    Column("name", String(250), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("summary", Text, nullable=False),
    Column("owner", String(100), nullable=False),
    Column("signature", String(64), nullable=False),
    Column("alert_route", String(100), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("noticed_at", UtcDateTime, nullable=False),
    Column("escalates_at", UtcDateTime),
    Column("first_notified_at", UtcDateTime),
    Column("last_notified_at", UtcDateTime),
    Column("resolved_at", UtcDateTime),
    Column("resolution", Text),
    # "<about>/<name>" while open, NULL after: one incident at a time about one thing.
    Column("open_for", String(263), unique=True),
    Column("times_told", Integer, nullable=False, default=0, server_default="0"),
    # When it became what it is now; NULL where it is what it was opened as.
    Column("turned_at", UtcDateTime),
    Column("escalated_at", UtcDateTime),
    Column("acknowledged_at", UtcDateTime),
    Column("acknowledged_by", String(250)),
    # A person said that this had to be expected: the window learns from it instead of leaving it out.
    Column("expected_by", String(250)),
    # The incident that speaks for this one: many sources that went quiet together are one alert.
    Column("part_of", Integer, index=True),
    Index("ix_oauth_guard_incidents_about", "about", "name"),
    **MYSQL,
)

# A person is at the provider to approve. What they bring back is taken once, and only from themselves.
authorizations = Table(
    "oauth_guard_authorizations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("state_hash", String(64), nullable=False, unique=True),
    Column("credential_id", ForeignKey(credentials.c.id), nullable=False, index=True),
    Column("person", String(250), nullable=False),
    Column("secret", LONG_TEXT, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime, nullable=False, index=True),
    Column("used_at", UtcDateTime),
    **MYSQL,
)

# What is known of a source is kept up at every heartbeat, so that a pass reads what is due and nothing else.
sources = Table(
    "oauth_guard_sources",
    metadata,
    Column("name", String(250), primary_key=True),
    Column("credential", String(250), index=True),
    Column("registered_at", UtcDateTime, nullable=False),
    # As JSON, in the words of the Airflow Variable.
    Column("declaration", Text, nullable=False),
    # Nobody declared it: it is watched since its first heartbeat.
    Column("adopted", Integer, nullable=False, default=0, server_default="0"),
    Column("last_beat_at", UtcDateTime),
    Column("last_rows_at", UtcDateTime),
    Column("learn_at", UtcDateTime, index=True),
    Column("standing", String(12), nullable=False, default="fine", server_default="fine", index=True),
    Column("expected_at", UtcDateTime),
    # When it has to be looked at, if nothing more is heard.
    Column("due_at", UtcDateTime, index=True),
    Column("muted_at", UtcDateTime),
    Column("muted_until", UtcDateTime),
    Column("muted_by", String(250)),
    Column("mute_reason", Text),
    # Who spoke last.
    Column("dag_id", String(250)),
    Column("task_id", String(250)),
    Column("run_id", String(250)),
    # The rest of what was heard, as JSON.
    Column("heard", Text, nullable=False, default="{}"),
    Column("habit", Text),
    **MYSQL,
)

# One row: how many sources there are, and what was declared last, so that a pass need not compare them all.
watch = Table(
    "oauth_guard_watch",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sources", Integer, nullable=False),
    Column("declared", String(64), nullable=False),
    **MYSQL,
)

# Which tasks use which credential: whom a failing one stops.
consumers = Table(
    "oauth_guard_consumers",
    metadata,
    Column("credential_id", ForeignKey(credentials.c.id), primary_key=True, autoincrement=False),
    Column("dag_id", String(250), primary_key=True),
    Column("task_id", String(250), primary_key=True),
    Column("first_used_at", UtcDateTime, nullable=False),
    # Not of each use: it is written anew when it has become old.
    Column("last_used_at", UtcDateTime, nullable=False, index=True),
    **MYSQL,
)

heartbeats = Table(
    "oauth_guard_heartbeats",
    metadata,
    Column("id", BIG_NUMBER, primary_key=True),
    Column("source", String(250), nullable=False),
    Column("row_count", BIG_NUMBER),
    Column("at", UtcDateTime, nullable=False),
    # One heartbeat per task instance and try, however often it is written.
    Column("beat_key", String(64), nullable=False, unique=True),
    *_where_seen(),
    Column("watermark", UtcDateTime),
    # 1 for what the detector found at the destination; it says nothing of a run.
    Column("measured", Integer, nullable=False, default=0, server_default="0"),
    _asked_by(),
    # What a run says of itself beside the number, such as why it skipped.
    Column("note", String(500), nullable=False, default="", server_default=""),
    CheckConstraint("row_count IS NULL OR row_count >= 0", name="rows_not_negative"),
    Index("ix_oauth_guard_heartbeats_heard", "source", "at"),
    **MYSQL,
)
