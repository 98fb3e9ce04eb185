"""The store, opened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import URL

from airflow_oauth_guard.domain.incidents import Incident
from airflow_oauth_guard.store.authorizations import Authorizations
from airflow_oauth_guard.store.clients import Clients
from airflow_oauth_guard.store.consumers import Consumers
from airflow_oauth_guard.store.credentials import Credentials
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.encryption import TokenCipher
from airflow_oauth_guard.store.incidents import Incidents, open_incidents
from airflow_oauth_guard.store.investigations import Investigations
from airflow_oauth_guard.store.reach import Reaches
from airflow_oauth_guard.store.records import Investigation
from airflow_oauth_guard.store.roster import Roster
from airflow_oauth_guard.store.rows import investigation_from
from airflow_oauth_guard.store.sources import Sources, Watched, due_sources, unknown_sources
from airflow_oauth_guard.store.timeline import Timeline
from airflow_oauth_guard.store.upkeep import Upkeep


@dataclass(frozen=True)
class Glance:
    """What a pass over the sources begins with."""

    open_ones: list[Incident]
    due: list[Watched]
    unknown: list[Watched]


class Store:
    """Credentials, questions, incidents and sources in one database.

    Args:
        url: An SQLAlchemy URL; SQLite, PostgreSQL, MariaDB or MySQL.
        fernet_keys: Airflow's ``[core] fernet_key``; several keys separated by commas.

    Raises:
        StoreConfigurationError: If there is no key, or the database cannot be used.
        StoreUnavailableError: If the database cannot be reached.
    """

    def __init__(self, url: str | URL, fernet_keys: str) -> None:
        cipher = TokenCipher(fernet_keys)
        self.database = Database(url)
        self.database.migrate()
        self.credentials = Credentials(self.database, cipher)
        self.authorizations = Authorizations(self.database, cipher)
        self.clients = Clients(self.database)
        self.consumers = Consumers(self.database, cipher)
        self.investigations = Investigations(self.database)
        self.incidents = Incidents(self.database)
        self.sources = Sources(self.database)
        self.reaches = Reaches(self.database)
        self.roster = Roster(self.database)
        self.timeline = Timeline(self.database, cipher)
        self.upkeep = Upkeep(self.database, cipher)

    def glance(self, now: datetime, limit: int) -> Glance:
        """What is open, and which sources have to be looked at, in one transaction: mostly that is all there is to a pass."""
        with self.database.read() as connection:
            return Glance(open_incidents(connection), due_sources(connection, now, limit), unknown_sources(connection))

    def investigation(self, investigation_id: int) -> Investigation:
        """An investigation with its credential as it is now.

        Raises:
            NotRegisteredError: If there is no such investigation.
        """
        row = self.investigations.row(investigation_id)
        credential = self.credentials.by_id(row["credential_id"])
        return investigation_from(row, credential)
