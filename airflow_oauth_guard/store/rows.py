"""Rows as what the store hands out, for every part of it that reads them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import RowMapping

from airflow_oauth_guard.domain.schedule import Life
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.store.evidence import observer_from
from airflow_oauth_guard.store.records import Credential, Investigation
from airflow_oauth_guard.store.tables import credentials, statuses, tokens

CREDENTIALS = credentials.join(tokens).join(statuses, statuses.c.credential_id == credentials.c.id)
"""Where all of a credential is."""

CREDENTIAL_COLUMNS = (
    credentials,
    tokens.c.generation.label("token_generation"),
    tokens.c.issued_at,
    tokens.c.expires_at,
    tokens.c.lease_until,
    statuses.c.status,
    statuses.c.since,
)


def credential_from(row: RowMapping) -> Credential:
    """A row of :data:`CREDENTIAL_COLUMNS`."""
    return Credential(
        id=row["id"],
        conn_id=row["conn_id"],
        connection_class=row["connection_class"],
        client_key=row["client_key"],
        status=Status(row["status"]),
        status_since=row["since"],
        generation=row["token_generation"],
        life=Life(
            issued_at=row["issued_at"],
            expires_at=row["expires_at"],
            margin=timedelta(seconds=row["margin_seconds"]),
            at_half_life=bool(row["at_half_life"]),
        ),
        failures=row["failures"],
        attempt_after=row["attempt_after"],
        expire_policy=row["expire_policy"],
        alert_route=row["alert_route"],
        leased_until=row["lease_until"],
        provider=row["provider"],
    )


def investigation_from(row: RowMapping, credential: Credential) -> Investigation:
    """A row of the investigations, with the credential it is about."""
    names = ("id", "generation", "opened_at", "opening_evidence_id", "conclusion_evidence_id", "finding")
    more = ("asked_at", "answer", "answered_by", "closed_at")
    return Investigation(
        credential=credential,
        explanation=row["explanation"] or "",
        owner=row["owner"] or "",
        asked_in=observer_from(row),
        **{name: row[name] for name in (*names, *more)},
    )
