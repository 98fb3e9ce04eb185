"""Credentials and their tokens: enrolled once, refreshed by one process at a time, never lost on the way.

The order of a refresh is: take the lease; journal the intent; call; keep the raw answer, encrypted; parse;
compare-and-set the tokens on their generation. Each is committed before the next begins, so whatever breaks, the store
knows what is not known.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, RowMapping, bindparam, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About
from airflow_oauth_guard.domain.investigation import Conclusion
from airflow_oauth_guard.domain.status import Status, require_carries
from airflow_oauth_guard.errors import (
    ConfigurationError,
    LeaseLostError,
    NotRegisteredError,
    UnprovenTransitionError,
)
from airflow_oauth_guard.grants.flow import IssuedTokens
from airflow_oauth_guard.store import evidence as ledger
from airflow_oauth_guard.store import journal
from airflow_oauth_guard.store.database import Database
from airflow_oauth_guard.store.encryption import TokenCipher, fingerprint
from airflow_oauth_guard.store.incidents import (
    Symptom,
    look_into_siblings_anew,
    open_incident,
    record_false_expiry,
    resolve_incident,
)
from airflow_oauth_guard.store.investigations import (
    close_open_investigation,
    conclude,
    is_unconcluded,
    raise_question,
)
from airflow_oauth_guard.store.journal import Ended
from airflow_oauth_guard.store.records import (
    LONGEST_LEASE,
    RESEEDED,
    Credential,
    Enrollment,
    Investigation,
    Lease,
    Tokens,
)
from airflow_oauth_guard.store.rows import CREDENTIAL_COLUMNS, CREDENTIALS, credential_from
from airflow_oauth_guard.store.tables import credentials, seeds, statuses, tokens, transitions

log = logging.getLogger(__name__)

SECRETS = (tokens.c.access_token, tokens.c.refresh_token)

# Made once: each call to the store reads a credential, and building the statement took longer than asking.
_NAMED = credentials.c.conn_id == bindparam("conn_id")
_BY_CONN_ID = select(*CREDENTIAL_COLUMNS).select_from(CREDENTIALS).where(_NAMED)
_LOCK = select(credentials.c.id).where(_NAMED).with_for_update()


class Credentials:
    def __init__(self, database: Database, cipher: TokenCipher) -> None:
        self._database = database
        self._cipher = cipher

    # -- the roster ---------------------------------------------------------------------------------------------

    def enroll(self, enrollment: Enrollment, now: datetime, observer: Observer = Observer()) -> Credential:
        """Take a connection in, or bring its settings up to date.

        The connection's token fields are seeds: they are read when the credential is new, and again only when
        somebody has put other ones there, which is how a person reconnects it. Where nothing has changed nothing is
        written, so that asking often costs little.
        """
        with self._database.read() as connection:
            known = self._find(connection, enrollment.conn_id)
            if known is not None and not self._news(connection, known, enrollment)[0]:
                return known
        with self._database.write() as connection:
            existing = self._find_locked(connection, enrollment.conn_id)
            if existing is None:
                self._insert(connection, enrollment, now)
            else:
                self._update(connection, existing, enrollment, now, observer)
            return self._require(connection, enrollment.conn_id)

    def import_tokens(self, enrollment: Enrollment, now: datetime, observer: Observer) -> Credential:
        """Put tokens in from outside: a new credential, or a new generation of a known one. Twice is once."""
        with self._database.write() as connection:
            existing = self._find_locked(connection, enrollment.conn_id)
            if existing is None:
                self._insert(connection, enrollment, now)
                # The fingerprint stands for the connection's own seed, which has not been read yet.
                connection.execute(
                    update(credentials)
                    .where(credentials.c.conn_id == enrollment.conn_id)
                    .values(access_seed="", refresh_seed="")
                )
            else:
                held = self._tokens(connection, existing.id)
                news = replace(
                    enrollment,
                    access_token="" if enrollment.access_token == held.access_token else enrollment.access_token,
                    refresh_token="" if enrollment.refresh_token == held.refresh_token else enrollment.refresh_token,
                )
                if news.access_token or news.refresh_token:
                    self._reseed(connection, existing, news, now, observer)
                    given = (fingerprint(news.access_token), fingerprint(news.refresh_token))
                    self._remember_seeds(connection, existing.id, now, *given)
            return self._require(connection, enrollment.conn_id)

    def unread(self, enrollment: Enrollment) -> Enrollment:
        """What is left of it without the tokens that this credential has been given before.

        A copy that stayed where tokens came from is no news, however often it is read: what it led to lives here, and a
        refresh token that was replaced since may cost the grant when it is sent again.
        """
        with self._database.read() as connection:
            known = self._find(connection, enrollment.conn_id)
            if known is None:
                return enrollment
            query = select(seeds.c.fingerprint).where(seeds.c.credential_id == known.id)
            read = {*connection.execute(query).scalars()}
            held = self._tokens(connection, known.id)
        old = {token for token in (enrollment.access_token, enrollment.refresh_token) if fingerprint(token) in read}
        old |= {held.access_token, held.refresh_token}
        return replace(
            enrollment,
            access_token="" if enrollment.access_token in old else enrollment.access_token,
            refresh_token="" if enrollment.refresh_token in old else enrollment.refresh_token,
        )

    def revert(self, conn_id: str, now: datetime, observer: Observer) -> Credential:
        """Bring back the tokens of the generation before, because a person says that the newest are wrong.

        They become the next generation, and those they replace are kept aside in turn.

        Raises:
            ConfigurationError: If there are none.
        """
        with self._database.write() as connection:
            existing = self._require_locked(connection, conn_id)
            row = connection.execute(select(tokens).where(tokens.c.credential_id == existing.id)).mappings().one()
            before = Enrollment(
                conn_id=conn_id,
                connection_class=existing.connection_class,
                client_key=existing.client_key,
                margin=existing.life.margin,
                access_token=self._open(row["previous_access_token"]),
                refresh_token=self._open(row["previous_refresh_token"]),
            )
            if not (before.access_token or before.refresh_token):
                raise ConfigurationError(f"Credential `{conn_id}` has had no tokens before those it has; import some.")
            self._reseed(connection, existing, before, now, observer, "a person brought the tokens before back")
            return self._require(connection, conn_id)

    def get(self, conn_id: str) -> Credential:
        """Raises:
        NotRegisteredError: If the store has never seen it.
        """
        with self._database.read() as connection:
            return self._require(connection, conn_id)

    def by_id(self, credential_id: int) -> Credential:
        with self._database.read() as connection:
            query = select(*CREDENTIAL_COLUMNS).select_from(CREDENTIALS).where(credentials.c.id == credential_id)
            return credential_from(connection.execute(query).mappings().one())

    def roster(self) -> list[Credential]:
        """Every credential there is, whatever its status."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*CREDENTIAL_COLUMNS).select_from(CREDENTIALS).order_by(credentials.c.conn_id)
            )
            return [credential_from(row) for row in rows.mappings()]

    def tokens(self, credential: Credential) -> Tokens:
        """The newest tokens, decrypted."""
        with self._database.read() as connection:
            return self._tokens(connection, credential.id)

    def find_by_seed(self, enrollment: Enrollment) -> Credential | None:
        """The credential that was seeded with these tokens, by the same client, for the same probe host.

        None where none or several fit: an unseeded connection names its credential only while its client has one.
        """
        query = select(*CREDENTIAL_COLUMNS).select_from(CREDENTIALS).limit(2)
        query = query.where(
            credentials.c.access_seed == fingerprint(enrollment.access_token),
            credentials.c.refresh_seed == fingerprint(enrollment.refresh_token),
            credentials.c.client_key == enrollment.client_key,
            credentials.c.probe_host == enrollment.probe_host,
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return credential_from(rows[0]) if len(rows) == 1 else None

    # -- one refresh --------------------------------------------------------------------------------------------

    def lease(self, conn_id: str, owner: str, ttl: timedelta, now: datetime) -> Lease | None:
        """Take the sole right to refresh, or None while somebody else has it.

        What the lease hands out is read after it was taken, so it is the newest there is.
        """
        with self._database.write() as connection:
            credential = self._require_locked(connection, conn_id)
            taken = connection.execute(
                update(tokens)
                .where(
                    tokens.c.credential_id == credential.id,
                    or_(
                        tokens.c.lease_until.is_(None),
                        tokens.c.lease_until < now,
                        tokens.c.lease_until > now + LONGEST_LEASE,
                    ),
                )
                .values(lease_owner=owner, lease_until=now + ttl)
            )
            if taken.rowcount != 1:
                return None
            credential = self._require(connection, conn_id)
            unsettled = tuple(journal.unsettled(connection, credential.id, credential.generation))
            unanswered = tuple(journal.unanswered(connection, credential.id, credential.generation))
            return Lease(credential, self._tokens(connection, credential.id), owner, ttl, unsettled, unanswered)

    def open_intent(self, lease: Lease, token: str, now: datetime, *, spends: bool = True) -> int:
        """Journal that a refresh is about to be sent, by the process that holds the lease, which begins anew.

        Args:
            spends: Whether sending the token may spend it.

        Raises:
            LeaseLostError: If it does not any more, for instance after its machine slept.
        """
        with self._database.write() as connection:
            self._require_locked(connection, lease.credential.conn_id)
            _hold(connection, lease, now)
            return journal.open_intent(
                connection, lease.credential.id, lease.tokens.generation, token, now, spends=spends
            )

    def open_exchange(self, lease: Lease, now: datetime) -> int:
        """Journal that what a person brought back is about to be exchanged: it sends no token, so it can lose none.

        Raises:
            LeaseLostError: As :meth:`open_intent` does.
        """
        with self._database.write() as connection:
            self._require_locked(connection, lease.credential.conn_id)
            _hold(connection, lease, now)
            return journal.open_exchange(connection, lease.credential.id, lease.tokens.generation, now)

    def withdraw_intent(self, intent_id: int, now: datetime) -> None:
        """Nothing was sent after all."""
        with self._database.write() as connection:
            journal.close(connection, intent_id, Ended.REFUSED, now)

    def seal_answer(self, answer: HttpAnswer) -> str:
        """The raw answer, encrypted: it may hold the only copy of the next token."""
        return self._cipher.encrypt(journal.answer_as_text(answer))

    def open_answer(self, sealed: str) -> HttpAnswer:
        """What :meth:`seal_answer` sealed.

        Raises:
            StoreConfigurationError: If no key opens it.
        """
        return journal.answer_from_text(self._cipher.decrypt(sealed))

    def keep_answer(self, intent_id: int, sealed: str) -> None:
        """Keep a sealed answer before anybody parses it."""
        with self._database.write() as connection:
            journal.keep(connection, intent_id, sealed)

    def renew(
        self,
        lease: Lease,
        intent_id: int,
        issued: IssuedTokens,
        seen: Evidence,
        now: datetime,
        *,
        resolves: bool = True,
    ) -> tuple[Credential, Evidence] | None:
        """Store new tokens as the next generation, with the evidence that the grant is alive.

        None, and nothing stored, if somebody else has stored newer ones meanwhile; the answer stays in the journal.

        Args:
            resolves: False where the incident about it stays open: the token came on another way than the connection's own.
        """
        with self._database.write() as connection:
            current = self._require_locked(connection, lease.credential.conn_id)
            if current.generation != lease.tokens.generation:
                return None
            recorded = ledger.add(connection, lease.credential.id, seen)
            was, _ = ledger.apply(connection, lease.credential.id, recorded, now)
            # Dated by the answer: one that was kept for hours has that much less to live.
            self._store_generation(connection, lease, issued, seen.observed_at)
            journal.close(connection, intent_id, Ended.RENEWED, now)
            connection.execute(
                update(credentials)
                .where(credentials.c.id == lease.credential.id)
                .values(failures=0, attempt_after=None)
            )
            said = "a person reconnected it" if seen.kind is Kind.CONNECT else "a refresh succeeded"
            sentence = f"{said} (evidence {recorded.id})"
            close_open_investigation(connection, lease.credential.id, sentence, now)
            if resolves:
                resolve_incident(connection, About.CREDENTIAL, lease.credential.conn_id, sentence, now)
                if resolve_incident(connection, About.CLIENT, lease.credential.client_name, sentence, now):
                    look_into_siblings_anew(connection, lease.credential.client_key)
            if was is Status.EXPIRED and seen.kind is Kind.REFRESH:
                # What a person got anew says nothing about whether the old grant was dead.
                record_false_expiry(connection, lease.credential, f"evidence {recorded.id}", now)
            return self._require(connection, lease.credential.conn_id), recorded

    def fail(
        self,
        lease: Lease,
        intent_id: int | None,
        seen: Evidence,
        *,
        attempt_after: datetime | None,
        outcome: Ended,
        now: datetime,
    ) -> Evidence:
        """Record a refresh that brought no token. No status is touched: a failed refresh is a question.

        The question is raised here, in the same transaction, so that whoever asked for the refresh cannot lose it; not
        by a repeat inside an investigation, nor where the same failure was looked into already.

        Args:
            attempt_after: When to ask again; None leaves the schedule alone (a repeat inside an investigation).
        """
        with self._database.write() as connection:
            current = self._require_locked(connection, lease.credential.conn_id)
            recorded = ledger.add(connection, lease.credential.id, seen)
            if intent_id is not None:
                journal.close(connection, intent_id, outcome, now)
            # A late failure of older tokens says nothing about those that have replaced them.
            if attempt_after is not None and current.generation == lease.tokens.generation:
                connection.execute(
                    update(credentials)
                    .where(credentials.c.id == lease.credential.id)
                    .values(failures=credentials.c.failures + 1, attempt_after=attempt_after)
                )
                raise_question(connection, current, recorded, now, lost=outcome is Ended.LOST)
            self._release(connection, lease)
            return recorded

    def refuse_exchange(self, lease: Lease, intent_id: int, seen: Evidence, now: datetime) -> Evidence:
        """Record that an exchange brought no token. It says nothing of the grant there is, so nothing else changes."""
        with self._database.write() as connection:
            self._require_locked(connection, lease.credential.conn_id)
            recorded = ledger.add(connection, lease.credential.id, seen)
            journal.close(connection, intent_id, Ended.REFUSED, now)
            self._release(connection, lease)
            return recorded

    def ask_about_loss(self, lease: Lease, now: datetime) -> None:
        """See to it that somebody hears of the lost answer for which this credential is held.

        The question was raised when it was lost; this is for a question or an incident that went astray since.
        """
        with self._database.write() as connection:
            current = self._require_locked(connection, lease.credential.conn_id)
            failed = ledger.latest(connection, current.id, (Kind.REFRESH,))
            if failed is not None and failed.generation == current.generation == lease.tokens.generation:
                raise_question(connection, current, failed, now, lost=True)

    def release(self, lease: Lease) -> None:
        """Give the lease back unused."""
        with self._database.write() as connection:
            self._release(connection, lease)

    # -- evidence and status ------------------------------------------------------------------------------------

    def record(self, credential: Credential, seen: Evidence, now: datetime) -> Evidence:
        """Keep evidence and let it change the status where it may: to ``active`` or ``lapsed``, never ``expired``."""
        with self._database.write() as connection:
            return _record(connection, self._require_locked(connection, credential.conn_id), seen, now)

    def conclude(
        self,
        investigation: Investigation,
        conclusion: Conclusion,
        seen: Sequence[Evidence],
        symptoms: Sequence[Symptom],
        *,
        close: bool,
        now: datetime,
    ) -> None:
        """Write down what an investigation concluded, all of it or nothing: its evidence, the incident, its end.

        Nothing if it was concluded already, or answered itself meanwhile.

        Args:
            seen: The conclusion as evidence, last; before it what else it teaches.
            close: False where a person is still to be asked.
        """
        with self._database.write() as connection:
            current = self._require_locked(connection, investigation.credential.conn_id)
            if not is_unconcluded(connection, investigation.id):
                return
            recorded = [_record(connection, current, item, now) for item in seen]
            for symptom in symptoms:
                open_incident(connection, symptom, now)
            conclude(connection, investigation.id, conclusion, recorded[-1].id, now if close else None)

    def expire(self, conn_id: str, evidence_id: int | None, observer: Observer, now: datetime) -> Credential:
        """Set ``expired`` on the strength of one piece of evidence, re-read here. The tokens are kept.

        Raises:
            UnprovenTransitionError: Unless it proves the newest tokens' grant dead.
        """
        with self._database.write() as connection:
            credential = self._require_locked(connection, conn_id)
            if pending := journal.unsettled(connection, credential.id, credential.generation):
                raise UnprovenTransitionError(
                    f"Credential `{conn_id}` was not set `expired`: the refresh sent at "
                    f"{pending[-1].opened_at:%Y-%m-%d %H:%M:%S}Z has no answer, so nobody knows which tokens are the newest."
                )
            seen = ledger.by_id(connection, credential.id, evidence_id)
            proof = require_carries(seen, Status.EXPIRED, conn_id=conn_id, generation=credential.generation)
            ledger.apply(connection, credential.id, replace(proof, observer=observer), now)
            return self._require(connection, conn_id)

    # -- what people say ----------------------------------------------------------------------------------------

    def ask_now(self, conn_id: str, now: datetime) -> Credential:
        """A person wants it refreshed: it is due, whatever its life and its failures say."""
        with self._database.write() as connection:
            existing = self._require_locked(connection, conn_id)
            connection.execute(update(credentials).where(credentials.c.id == existing.id).values(attempt_after=now))
            return self._require(connection, conn_id)

    def revive(self, conn_id: str, why: str, observer: Observer, now: datetime) -> Credential:
        """A person says that it works again: it is active, until proven otherwise, and asked at once.

        Its incident stays open until something answers.

        Raises:
            ConfigurationError: If it is active already, or nobody says why.
        """
        if not why.strip():
            raise ConfigurationError(f"Credential `{conn_id}`: say why it works again; the next one to look reads it.")
        with self._database.write() as connection:
            existing = self._require_locked(connection, conn_id)
            if existing.status is Status.ACTIVE:
                raise ConfigurationError(f"Credential `{conn_id}` is active already, so there is nothing to revive.")
            said = f"a person says that it works again: {why.strip()}"
            _believe(connection, existing, "revived", said, observer, now)
            return self._require(connection, conn_id)

    # -- what is known ------------------------------------------------------------------------------------------

    def latest_evidence(self, credential: Credential, *kinds: Kind) -> Evidence | None:
        """The newest evidence about the credential, of these kinds or of any."""
        with self._database.read() as connection:
            return ledger.latest(connection, credential.id, kinds or tuple(Kind))

    def status_evidence(self, credential: Credential) -> Evidence | None:
        """The evidence a status other than ``active`` rests on."""
        with self._database.read() as connection:
            evidence_id = connection.execute(
                select(statuses.c.evidence_id).where(statuses.c.credential_id == credential.id)
            ).scalar_one()
            return ledger.by_id(connection, credential.id, evidence_id)

    def shape_is_proven(self, credential: Credential, shape_id: str, now: datetime) -> bool:
        with self._database.read() as connection:
            return ledger.shape_is_proven(connection, credential.id, credential.client_key, shape_id, now)

    def has_lost_answer(self, credential: Credential, now: datetime) -> bool:
        """Whether a refresh of the newest generation may have brought tokens that did not reach us.

        One that is under way has not lost anything yet.
        """
        with self._database.read() as connection:
            unsettled = journal.unsettled(connection, credential.id, credential.generation)
            return any(intent.outcome is Ended.LOST or not credential.is_leased(now) for intent in unsettled)

    def transitions(self, credential: Credential) -> Sequence[RowMapping]:
        """Every status change there was, oldest first."""
        with self._database.read() as connection:
            return (
                connection.execute(
                    select(transitions).where(transitions.c.credential_id == credential.id).order_by(transitions.c.id)
                )
                .mappings()
                .all()
            )

    # -- inside a transaction -----------------------------------------------------------------------------------

    def _find(self, connection: Connection, conn_id: str) -> Credential | None:
        row = connection.execute(_BY_CONN_ID, {"conn_id": conn_id}).mappings().one_or_none()
        return credential_from(row) if row else None

    def _require(self, connection: Connection, conn_id: str) -> Credential:
        found = self._find(connection, conn_id)
        if found is None:
            raise NotRegisteredError(
                f"Credential `{conn_id}` is not in the store. Name it in the Airflow Variable "
                "`oauth_guard_connections`, or import its tokens with `airflow oauth-guard import`."
            )
        return found

    def _find_locked(self, connection: Connection, conn_id: str) -> Credential | None:
        """The credential, read while nobody else can write about it: each writes one after the other.

        SQLite needs no lock on the row: a transaction that writes is the only one.
        """
        connection.execute(_LOCK, {"conn_id": conn_id})
        return self._find(connection, conn_id)

    def _require_locked(self, connection: Connection, conn_id: str) -> Credential:
        self._find_locked(connection, conn_id)
        return self._require(connection, conn_id)

    def _insert(self, connection: Connection, enrollment: Enrollment, now: datetime) -> None:
        seeded = bool(enrollment.access_token or enrollment.refresh_token)
        try:
            with connection.begin_nested():
                result = connection.execute(
                    insert(credentials).values(
                        conn_id=enrollment.conn_id, created_at=now, failures=0, **_settings(enrollment)
                    )
                )
        except IntegrityError:
            # Another process took it in first; the caller reads what that one wrote, and fails if nothing is there.
            return
        assert result.inserted_primary_key is not None
        credential_id = result.inserted_primary_key[0]
        connection.execute(
            insert(tokens).values(
                credential_id=credential_id,
                generation=1 if seeded else 0,
                previous_access_token="",
                previous_refresh_token="",
                **{column.name: value for column, value in self._seed(enrollment)},
            )
        )
        connection.execute(insert(statuses).values(credential_id=credential_id, status=Status.ACTIVE.value, since=now))
        given = (fingerprint(enrollment.access_token), fingerprint(enrollment.refresh_token))
        self._remember_seeds(connection, credential_id, now, *given)

    def _news(
        self, connection: Connection, known: Credential, enrollment: Enrollment
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """What the connection says that the store does not know: settings, and tokens that somebody has put in."""
        was = connection.execute(select(credentials).where(credentials.c.id == known.id)).mappings().one()
        values = _settings(enrollment)
        values["provider"] = enrollment.provider or was["provider"]
        news = {}
        for token, seed in (("access_token", "access_seed"), ("refresh_token", "refresh_seed")):
            # An emptied field takes nothing away: it was read once, and what it led to lives here.
            if not values[seed] or self._is_outdated(connection, known, was[seed], values[seed]):
                values[seed] = was[seed]
            elif values[seed] != was[seed] and (was[seed] or known.generation == 0):
                # Tokens that were imported before the connection's seed was first read are the newer ones.
                news[token] = getattr(enrollment, token)
        return {name: value for name, value in values.items() if value != was[name]}, news

    def _is_outdated(self, connection: Connection, known: Credential, was: str, given: str) -> bool:
        """Whether a seed was read before and replaced since: some process still has the connection as it was.

        While the newest tokens fail, a person may well have gone back to it.
        """
        if given == was or known.failures or known.status is not Status.ACTIVE:
            return False
        read = select(seeds.c.read_at).where(seeds.c.credential_id == known.id, seeds.c.fingerprint == given)
        if connection.execute(read).first() is None:
            return False
        log.warning(
            "Connection `%s`, as this process sees it, holds a token that was replaced since; the newer ones are kept. To "
            "use it all the same: `airflow oauth-guard import --again`",
            known.conn_id,
        )
        return True

    def _remember_seeds(self, connection: Connection, credential_id: int, now: datetime, *fingerprints: str) -> None:
        read = set(
            connection.execute(select(seeds.c.fingerprint).where(seeds.c.credential_id == credential_id)).scalars()
        )
        for new in {*fingerprints} - {"", *read}:
            connection.execute(insert(seeds).values(credential_id=credential_id, fingerprint=new, read_at=now))

    def _update(
        self, connection: Connection, existing: Credential, enrollment: Enrollment, now: datetime, observer: Observer
    ) -> None:
        changed, news = self._news(connection, existing, enrollment)
        if not changed:
            return
        self._remember_seeds(
            connection, existing.id, now, changed.get("access_seed", ""), changed.get("refresh_seed", "")
        )
        if news:
            given = replace(
                enrollment, access_token=news.get("access_token", ""), refresh_token=news.get("refresh_token", "")
            )
            self._reseed(connection, existing, given, now, observer)
        elif changed.keys() & {"connection_class", "client_key", "probe_host"} and existing.attempt_after:
            # Somebody has mended the connection: what failed before may work now.
            changed["attempt_after"] = now
        connection.execute(update(credentials).where(credentials.c.id == existing.id).values(**changed))

    def _reseed(
        self,
        connection: Connection,
        existing: Credential,
        enrollment: Enrollment,
        now: datetime,
        observer: Observer,
        said: str = "a person entered new tokens",
    ) -> None:
        """A person has put other tokens in: a new generation, active until proven otherwise, and asked at once."""
        _believe(connection, existing, RESEEDED, said, observer, now)
        connection.execute(
            update(tokens)
            .where(tokens.c.credential_id == existing.id)
            .ordered_values(
                *_kept_aside(),
                (tokens.c.generation, existing.generation + 1),
                # What was not given stays: a new refresh token alone does not take the access token away.
                *((column, value) for column, value in self._seed(enrollment) if value or column not in SECRETS),
            )
        )

    def _seed(self, enrollment: Enrollment) -> list[tuple[Column[Any], Any]]:
        # A seed's age is unknown; unless its end is told it counts as due, so that the first refresh finds out.
        return [
            (tokens.c.access_token, self._seal(enrollment.access_token)),
            (tokens.c.refresh_token, self._seal(enrollment.refresh_token)),
            (tokens.c.scope, ""),
            (tokens.c.issued_at, None),
            (tokens.c.expires_at, enrollment.expires_at if enrollment.access_token else None),
        ]

    def _seal(self, secret: str) -> str:
        return self._cipher.encrypt(secret) if secret else ""

    def _open(self, stored: str) -> str:
        return self._cipher.decrypt(stored) if stored else ""

    def _tokens(self, connection: Connection, credential_id: int) -> Tokens:
        row = connection.execute(select(tokens).where(tokens.c.credential_id == credential_id)).mappings().one()
        return Tokens(row["generation"], self._open(row["access_token"]), self._open(row["refresh_token"]))

    def _store_generation(
        self, connection: Connection, lease: Lease, issued: IssuedTokens, issued_at: datetime
    ) -> None:
        stored = connection.execute(
            update(tokens)
            .where(tokens.c.credential_id == lease.credential.id, tokens.c.generation == lease.tokens.generation)
            .ordered_values(
                *_kept_aside(),
                (tokens.c.generation, lease.tokens.generation + 1),
                (tokens.c.access_token, self._seal(issued.access_token or lease.tokens.access_token)),
                (tokens.c.refresh_token, self._seal(issued.refresh_token or lease.tokens.refresh_token)),
                (tokens.c.scope, issued.scope),
                (tokens.c.issued_at, issued_at),
                (tokens.c.expires_at, issued_at + issued.expires_in if issued.expires_in else None),
                (tokens.c.lease_owner, None),
                (tokens.c.lease_until, None),
            )
        )
        if stored.rowcount != 1:
            raise UnprovenTransitionError(
                f"Credential `{lease.credential.conn_id}`: generation {lease.tokens.generation} is not the newest any more, "
                "although nobody else could write. Nothing was stored; the answer is kept in the journal."
            )

    def _release(self, connection: Connection, lease: Lease) -> None:
        connection.execute(
            update(tokens)
            .where(tokens.c.credential_id == lease.credential.id, tokens.c.lease_owner == lease.owner)
            .values(lease_owner=None, lease_until=None)
        )


def _hold(connection: Connection, lease: Lease, now: datetime) -> None:
    """See that the lease is still ours, and let it begin anew.

    Raises:
        LeaseLostError: If it is not.
    """
    held = connection.execute(
        update(tokens)
        .where(
            tokens.c.credential_id == lease.credential.id,
            tokens.c.generation == lease.tokens.generation,
            tokens.c.lease_owner == lease.owner,
            tokens.c.lease_until >= now,
        )
        .values(lease_until=now + lease.ttl)
    )
    if held.rowcount != 1:
        raise LeaseLostError(
            f"Credential `{lease.credential.conn_id}`: the lease ran out before the request was sent, and another "
            "process may have taken it. Nothing was sent; the next run goes on."
        )


def _believe(
    connection: Connection, existing: Credential, rule: str, said: str, observer: Observer, now: datetime
) -> None:
    """A person says that it is alive: active until proven otherwise, asked at once, and no question any more."""
    word = Evidence(
        kind=Kind.PERSON,
        generation=existing.generation,
        observed_at=now,
        reading=Reading(Subject.GRANT, Finding.LIVE, rule, said),
        verdict=Verdict.LIVE,
        observer=observer,
    )
    ledger.apply(connection, existing.id, ledger.add(connection, existing.id, word), now)
    connection.execute(update(credentials).where(credentials.c.id == existing.id).values(failures=0, attempt_after=now))
    close_open_investigation(connection, existing.id, said, now)


def _record(connection: Connection, current: Credential, seen: Evidence, now: datetime) -> Evidence:
    recorded = ledger.add(connection, current.id, seen)
    destructive = seen.subject is Subject.GRANT and seen.verdict is Verdict.DEAD
    if seen.generation == current.generation and not destructive:
        ledger.apply(connection, current.id, recorded, now)
    return recorded


def _kept_aside() -> list[tuple[Column[Any], Any]]:
    """Set first: MySQL assigns from left to right, and would keep the new tokens aside instead of the old."""
    return [
        (tokens.c.previous_access_token, tokens.c.access_token),
        (tokens.c.previous_refresh_token, tokens.c.refresh_token),
    ]


def _settings(enrollment: Enrollment) -> dict[str, Any]:
    return {
        "connection_class": enrollment.connection_class,
        "client_key": enrollment.client_key,
        "probe_host": enrollment.probe_host,
        "access_seed": fingerprint(enrollment.access_token),
        "refresh_seed": fingerprint(enrollment.refresh_token),
        "margin_seconds": enrollment.margin.total_seconds(),
        "at_half_life": int(enrollment.at_half_life),
        "expire_policy": enrollment.expire_policy,
        "alert_route": enrollment.alert_route,
        "provider": enrollment.provider,
    }
