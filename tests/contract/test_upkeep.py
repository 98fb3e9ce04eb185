"""Upkeep: every secret under the newest key, and history that has had its time, beside refreshes that run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select, update

from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Subject, Verdict
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import ConfigurationError, StoreConfigurationError
from airflow_oauth_guard.store import upkeep
from airflow_oauth_guard.store.records import Credential
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import LONG_TEXT, heartbeats, intents, investigations, metadata, tokens
from airflow_oauth_guard.store.upkeep import STORED_SECRETS, Retention

from .conftest import RawSql
from .making import KEY, OTHER_KEY, SHAPE, WORKER, at_once, dead, enrolled, enrollment, planted, refusal, success

NOW = datetime.now(timezone.utc)
"""The database asks its own clock how old evidence is, so here time is real."""

BOTH_KEYS = f"{OTHER_KEY},{KEY}"
DAY = timedelta(days=1)


def ago(days: float, **more: float) -> datetime:
    return NOW - timedelta(days=days, **more)


class Died(Exception):
    """As if the process had been killed."""


@contextmanager
def dying_at(engine: Engine, verb: str, count: int) -> Iterator[None]:
    """Break off when this many statements of a kind have been sent."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith(verb):
            sent.append(statement)
            if len(sent) > count:
                raise Died

    event.listen(engine, "before_cursor_execute", note)
    try:
        with pytest.raises(Died):
            yield
    finally:
        event.remove(engine, "before_cursor_execute", note)


@contextmanager
def after_the_first_commit(engine: Engine, job: Callable[[], Any]) -> Iterator[None]:
    """Let another process do something between two transactions of this one."""
    committed: list[bool] = []
    done: list[bool] = []

    def note(_connection: Any) -> None:
        committed.append(True)

    def between(_connection: Any, _record: Any) -> None:
        if committed and not done:
            done.append(True)
            job()

    event.listen(engine, "commit", note)
    event.listen(engine, "checkin", between)
    try:
        yield
    finally:
        event.remove(engine, "commit", note)
        event.remove(engine, "checkin", between)
    assert done, "nothing was committed"


# -- the key ----------------------------------------------------------------------------------------------------------


def intent(store: Store, credential: Credential, **columns: Any) -> int:
    """One journalled refresh."""
    given = {"generation": credential.generation, "token_fingerprint": "f" * 16, "opened_at": NOW}
    with store.database.write() as connection:
        result = connection.execute(insert(intents).values(credential_id=credential.id, **{**given, **columns}))
    return int(result.inserted_primary_key[0])


def sealed(store: Store, secret: str) -> str:
    return store.credentials._cipher.encrypt(secret)


@pytest.fixture
def full_of_secrets(store: Store) -> Store:
    """Two generations of tokens, a lost answer that was kept, and a credential without any token."""
    enrolled(store)
    store.credentials.enroll(enrollment(access_token="crm-access-2", refresh_token="crm-refresh-2"), NOW)
    enrolled(store, "empty", access_token="", refresh_token="")
    erp = enrolled(store, "erp")
    intent(store, erp, answer=sealed(store, "lost-answer"), outcome="lost", closed_at=NOW)
    store.authorizations.open(erp, "state", "ada", "verifier", NOW, NOW)
    return store


SECRETS = {"crm-access-1", "crm-refresh-1", "crm-access-2", "crm-refresh-2", "erp-access-1", "erp-refresh-1"}


def opened(store: Store) -> set[str]:
    """Every secret there is, opened with the keys of this store."""
    found = set()
    with store.database.read() as connection:
        for secrets in STORED_SECRETS:
            for row in connection.execute(select(*secrets.columns)):
                found |= {store.credentials._cipher.decrypt(stored) for stored in row if stored}
    return found


def test_every_column_that_may_hold_a_secret_is_known(store: Store) -> None:
    roomy = {column for table in metadata.tables.values() for column in table.columns if column.type is LONG_TEXT}
    assert {column for secrets in STORED_SECRETS for column in secrets.columns} == roomy


def test_every_secret_is_encrypted_anew_and_then_needs_the_newest_key_only(
    full_of_secrets: Store, open_store: Callable[..., Store]
) -> None:
    rotation = open_store(BOTH_KEYS).upkeep.rotate_key()
    assert (rotation.encrypted_anew, rotation.up_to_date) == (8, 0)
    assert rotation.old_keys_may_go
    assert opened(open_store(OTHER_KEY)) == SECRETS | {"lost-answer", "verifier"}


def test_an_exchange_that_is_lost_does_not_keep_an_old_key_alive(store: Store) -> None:
    """Its answer is looked for nowhere else, and no token of ours is spent."""
    credential = enrolled(store)
    exchange: dict[str, Any] = {"token_fingerprint": "", "outcome": "lost", "closed_at": NOW}
    intent(store, credential, **exchange)
    assert store.upkeep.rotate_key().open_refreshes == ()
    intent(store, credential, token_fingerprint="")
    assert store.upkeep.rotate_key().open_refreshes == ("crm",), "one that is under way may still bring something"


def test_a_second_run_finds_nothing_to_do(
    full_of_secrets: Store, raw: RawSql, open_store: Callable[..., Store]
) -> None:
    both = open_store(BOTH_KEYS)
    both.upkeep.rotate_key()
    before = raw.everything()
    rotation = both.upkeep.rotate_key()
    assert (rotation.encrypted_anew, rotation.up_to_date, rotation.old_keys_may_go) == (0, 8, True)
    assert raw.everything() == before


def test_nothing_but_the_secrets_is_changed(
    full_of_secrets: Store, raw: RawSql, open_store: Callable[..., Store]
) -> None:
    def others() -> list[list[tuple[str, Any]]]:
        secret = {column.name for secrets in STORED_SECRETS for column in secrets.columns}
        return [
            [(name, value) for name, value in row.items() if name not in secret]
            for table, rows in raw.everything().items()
            for row in sorted(rows, key=lambda row: row.get("id", row.get("credential_id", 0)) or 0)
        ]

    before = others()
    open_store(BOTH_KEYS).upkeep.rotate_key()
    assert others() == before


def test_what_no_key_opens_is_named_all_of_it_and_stops_nothing(
    full_of_secrets: Store, raw: RawSql, open_store: Callable[..., Store]
) -> None:
    enrolled(open_store("YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="), "foreign")
    raw.run("UPDATE oauth_guard_intents SET answer = 'no cipher at all'")
    rotation = open_store(BOTH_KEYS).upkeep.rotate_key()
    assert rotation.unreadable == (
        "credential `foreign`: access_token",
        "credential `foreign`: refresh_token",
        f"credential `erp`: answer of refresh {raw.rows('oauth_guard_intents')[0]['id']}",
    )
    assert rotation.encrypted_anew == 7
    assert not rotation.old_keys_may_go
    assert "cipher" not in repr(rotation)


def test_the_old_keys_stay_while_a_refresh_has_no_outcome(
    full_of_secrets: Store, open_store: Callable[..., Store]
) -> None:
    both = open_store(BOTH_KEYS)
    number = intent(full_of_secrets, full_of_secrets.credentials.get("erp"))
    rotation = both.upkeep.rotate_key()
    assert (rotation.open_refreshes, rotation.old_keys_may_go) == (("erp",), False)
    with both.database.write() as connection:
        connection.execute(update(intents).where(intents.c.id == number).values(outcome="refused", closed_at=NOW))
    assert both.upkeep.rotate_key().old_keys_may_go


def test_the_old_keys_stay_while_somebody_still_writes_with_them(
    full_of_secrets: Store, open_store: Callable[..., Store]
) -> None:
    both = open_store(BOTH_KEYS)

    def reconnect() -> None:
        full_of_secrets.credentials.enroll(enrollment(access_token="late-access", refresh_token="late-refresh"), NOW)

    with after_the_first_commit(both.database.engine, reconnect):
        rotation = both.upkeep.rotate_key()
    assert (rotation.fell_behind, rotation.old_keys_may_go) == (2, False)
    assert both.upkeep.rotate_key().old_keys_may_go
    assert {"late-access", "late-refresh", "crm-access-2"} <= opened(open_store(OTHER_KEY))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_change_of_the_key_that_was_killed_is_finished_by_the_next(
    full_of_secrets: Store, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(upkeep, "SECRETS_BATCH", 1)
    both = open_store(BOTH_KEYS)
    with dying_at(both.database.engine, "UPDATE", count):
        both.upkeep.rotate_key()
    assert opened(both) == SECRETS | {"lost-answer", "verifier"}, "half-way, both keys open everything"
    rotation = both.upkeep.rotate_key()
    assert rotation.encrypted_anew + rotation.up_to_date == 8
    assert opened(open_store(OTHER_KEY)) == SECRETS | {"lost-answer", "verifier"}


def test_no_token_is_lost_when_the_key_changes_beside_running_writers(
    store: Store, open_store: Callable[..., Store]
) -> None:
    names = [f"crm_{number}" for number in range(4)]
    for name in names:
        enrolled(store, name)
    old, both, again = open_store(KEY), open_store(BOTH_KEYS), open_store(BOTH_KEYS)

    def reconnect_often(writer: Store) -> None:
        for count in range(2, 8):
            for name in names:
                writer.credentials.enroll(enrollment(name, refresh_token=f"{name}-refresh-{count}"), NOW)

    at_once([lambda: reconnect_often(old), both.upkeep.rotate_key, again.upkeep.rotate_key])
    both.upkeep.rotate_key()
    newest = open_store(OTHER_KEY)
    for name in names:
        assert newest.credentials.tokens(newest.credentials.get(name)).refresh_token == f"{name}-refresh-7"


def test_a_token_that_only_an_absent_key_opens_is_an_error_where_it_is_used(
    store: Store, open_store: Callable[..., Store]
) -> None:
    credential = enrolled(store)
    other = open_store(OTHER_KEY)
    assert other.upkeep.rotate_key().unreadable
    with pytest.raises(StoreConfigurationError, match="another key"):
        other.credentials.tokens(credential)


# -- the purge --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows make several."""
    monkeypatch.setattr(upkeep, "BATCH", 3)


def purged(store: Store, now: datetime = NOW, **retention: timedelta) -> dict[str, int]:
    """Purge; a dry run before it has to say the same, and one after it nothing."""
    foretold = store.upkeep.purge(Retention(**retention), now, dry_run=True)
    went = store.upkeep.purge(Retention(**retention), now)
    assert went == foretold
    assert set(store.upkeep.purge(Retention(**retention), now).values()) == {0}
    return went


NOTHING_ELSE = {"intents": 0, "authorizations": 0, "heartbeats": 0, "consumers": 0}


def left(store: Store, table: str = "evidence") -> set[int]:
    return {row["id"] for row in RawSql(store).rows(f"oauth_guard_{table}")}


def seen(
    store: Store, credential: Credential, kind: Kind = Kind.REFRESH, at: datetime | None = None, **changes: Any
) -> int:
    given = {"kind": kind, "observed_at": at or ago(100), "generation": credential.generation}
    kept = planted(store, credential, replace(refusal(), **{**given, **changes}))
    assert kept.id is not None
    return kept.id


def investigated(
    store: Store,
    credential: Credential,
    at: datetime,
    *,
    closed: bool = True,
    proof: Evidence | None = None,
    **columns: Any,
) -> dict[str, int]:
    """A question from its failed refresh to its conclusion; ids by what they are."""
    opening = seen(store, credential, at=at)
    with store.database.write() as connection:
        given = {
            "generation": credential.generation,
            "opened_at": at,
            "opening_evidence_id": opening,
            "closed_at": at if closed else None,
            "open_for": None if closed else credential.id,
        }
        result = connection.execute(insert(investigations).values(credential_id=credential.id, **{**given, **columns}))
    number = int(result.inserted_primary_key[0])
    probe, control = (seen(store, credential, kind, at, investigation_id=number) for kind in (Kind.PROBE, Kind.CONTROL))
    concluded = proof or replace(refusal(), kind=Kind.CONCLUSION, shape=None)
    conclusion = planted(
        store,
        credential,
        replace(
            concluded,
            generation=credential.generation,
            observed_at=at,
            investigation_id=number,
            rests_on=(opening, probe, control),
        ),
    ).id
    assert conclusion is not None
    with store.database.write() as connection:
        connection.execute(
            update(investigations)
            .where(investigations.c.id == number)
            .values(conclusion_evidence_id=conclusion, finding="unknown")
        )
    return {"question": number, "opening": opening, "probe": probe, "control": control, "conclusion": conclusion}


def evidence_in(question: dict[str, int]) -> set[int]:
    return {number for name, number in question.items() if name != "question"}


def test_old_evidence_goes_and_younger_stays(store: Store) -> None:
    credential = enrolled(store)
    old = [seen(store, credential, at=ago(days)) for days in (400, 200, 100, 91, 90.1)]
    young = [seen(store, credential, at=ago(days)) for days in (89.9, 30, 0)]
    assert purged(store) == {"investigations": 0, "evidence": len(old), **NOTHING_ELSE}
    assert left(store) == set(young)


def test_the_newest_evidence_of_each_sort_stays_whatever_its_age(store: Store) -> None:
    """What was seen last of a kind is asked for, and whether a request of a form has ever succeeded."""
    credential, other = enrolled(store), enrolled(store, "erp")
    another_shape = replace(SHAPE, grant_type="password")
    sorts: list[dict[str, Any]] = [
        {},
        {"verdict": Verdict.LIVE},
        {"verdict": Verdict.LIVE, "shape": another_shape},
        {"shape": None},
        {"kind": Kind.PROBE},
        {"kind": Kind.CONCLUSION, "verdict": Verdict.DEAD, "rests_on": (1,), "shape": None},
        {"kind": Kind.PERSON, "shape": None},
    ]
    older = [seen(store, one, at=ago(300), **sort) for sort in sorts for one in (credential, other)]
    newest = [seen(store, one, at=ago(200), **sort) for sort in sorts for one in (credential, other)]
    # Those that the conclusions name happen to stay as well.
    assert purged(store)["evidence"] == len(older) - 1
    assert left(store) == {*newest, 1}
    assert store.credentials.shape_is_proven(credential, another_shape.id, NOW)


def test_evidence_that_a_status_rests_on_stays_with_all_that_proves_it(store: Store) -> None:
    credential = enrolled(store)
    question = investigated(store, credential, ago(200), proof=dead(Status.EXPIRED))
    store.credentials.expire("crm", question["conclusion"], WORKER, ago(199))
    later = [investigated(store, credential, ago(days)) for days in (150, 140, 130)]
    purged(store)
    assert evidence_in(question) <= left(store)
    assert question["question"] in left(store, "investigations")
    assert store.credentials.get("crm").status is Status.EXPIRED
    assert store.credentials.status_evidence(store.credentials.get("crm")) is not None
    assert later[0]["question"] not in left(store, "investigations")


def test_evidence_that_only_a_status_names_stays_too(store: Store, raw: RawSql) -> None:
    """Somebody has set it by hand, past the package, which writes a transition beside it."""
    credential = enrolled(store)
    proof = planted(store, credential, dead(Status.EXPIRED, now=ago(200), rests_on=(4711,))).id
    planted(store, credential, dead(Status.EXPIRED, now=ago(1), rests_on=(4711,)))
    raw.run(
        "UPDATE oauth_guard_statuses SET status = 'expired', generation = 1, evidence_id = :proof, "
        "subject = 'grant', verdict = 'dead'",
        proof=proof,
    )
    purged(store)
    assert proof in left(store)


def test_evidence_that_an_old_change_of_status_rests_on_stays_as_well(store: Store) -> None:
    credential = enrolled(store)
    question = investigated(store, credential, ago(200), proof=dead(Status.EXPIRED))
    store.credentials.expire("crm", question["conclusion"], WORKER, ago(199))
    life = replace(success(), observed_at=ago(198))
    life = store.credentials.record(credential, life, ago(198))
    assert store.credentials.get("crm").status is Status.ACTIVE
    for days in (150, 140, 130):
        investigated(store, credential, ago(days), proof=dead(Status.EXPIRED))
        seen(store, credential, at=ago(days), verdict=Verdict.LIVE)
    purged(store)
    assert {*evidence_in(question), life.id} <= left(store)
    assert len(store.credentials.transitions(credential)) == 2


def test_an_old_investigation_goes_with_its_evidence_but_the_last_of_a_credential_stays(store: Store) -> None:
    """Whether the last question was answered decides whether it is asked again."""
    credential = enrolled(store)
    *_, last = (investigated(store, credential, ago(days)) for days in (300, 200, 100))
    young = investigated(store, enrolled(store, "erp"), ago(50))
    assert purged(store) == {"investigations": 2, "evidence": 8, **NOTHING_ELSE}
    assert left(store, "investigations") == {last["question"], young["question"]}
    assert left(store) == evidence_in(last) | evidence_in(young)


def test_the_last_investigation_of_a_credential_stays_although_its_evidence_is_not_the_newest(store: Store) -> None:
    credential = enrolled(store)
    last = investigated(store, credential, ago(200))
    for kind in (Kind.REFRESH, Kind.PROBE, Kind.CONTROL):
        seen(store, credential, kind, ago(1))
    seen(store, credential, Kind.CONCLUSION, ago(1), shape=None)
    assert purged(store) == {"investigations": 0, "evidence": 0, **NOTHING_ELSE}
    assert last["question"] in left(store, "investigations")


def test_what_a_person_said_about_the_tokens_there_are_is_not_forgotten(store: Store) -> None:
    credential = enrolled(store)
    declined = investigated(store, credential, ago(300), answer="declined", answered_by="ada")
    for days in (200, 100):
        investigated(store, credential, ago(days))
    purged(store)
    assert store.investigations.was_declined(credential) == "ada"
    assert evidence_in(declined) <= left(store)
    store.credentials.enroll(enrollment(access_token="new", refresh_token="new"), NOW)
    purged(store)
    assert declined["question"] not in left(store, "investigations"), "it was about other tokens"


def test_everything_of_an_open_question_stays(store: Store) -> None:
    credential = enrolled(store)
    before = seen(store, credential, at=ago(210))
    control = seen(store, credential, Kind.CONTROL, ago(200.5), investigation_id=4711)
    question = investigated(store, credential, ago(200), closed=False)
    more = [
        seen(store, credential, Kind.PROBE, ago(days), investigation_id=question["question"]) for days in (199, 198)
    ]
    of_before = seen(store, credential, Kind.PROBE, ago(300), investigation_id=question["question"])
    seen(store, credential, Kind.CONTROL, ago(1))
    kept = store.investigations.evidence(store.investigation(question["question"]))
    purged(store)
    assert {*evidence_in(question), *more, control, of_before} <= left(store)
    assert before not in left(store)
    assert store.investigations.evidence(store.investigation(question["question"])) == kept


def test_evidence_that_a_younger_conclusion_rests_on_stays(store: Store) -> None:
    credential = enrolled(store)
    [rested_on, not_rested_on] = [seen(store, credential, at=ago(100)) for _ in range(2)]
    seen(store, credential, Kind.CONCLUSION, ago(80), rests_on=(rested_on,))
    seen(store, credential, at=ago(1))
    purged(store)
    assert rested_on in left(store)
    assert not_rested_on not in left(store)


def test_closed_refreshes_go_but_not_open_ones_nor_a_lost_answer_to_the_newest_tokens(store: Store) -> None:
    enrolled(store)
    credential = store.credentials.enroll(enrollment(access_token="new", refresh_token="new"), NOW)
    assert credential.generation == 2
    old: dict[str, Any] = {"opened_at": ago(100), "closed_at": ago(100)}
    went = [
        intent(store, credential, outcome="renewed", generation=1, **old),
        intent(store, credential, outcome="refused", **old),
        intent(store, credential, outcome="lost", generation=1, **old),
    ]
    kept = [
        intent(store, credential, outcome="lost", **old),
        intent(store, credential, opened_at=ago(100)),
        intent(store, credential, outcome="renewed", opened_at=ago(100), closed_at=ago(80)),
    ]
    assert purged(store)["intents"] == len(went)
    assert left(store, "intents") == set(kept)


def test_a_lost_answer_goes_where_no_token_was_sent_and_nothing_was_brought(store: Store) -> None:
    credential = enrolled(store)
    old: dict[str, Any] = {"opened_at": ago(100), "closed_at": ago(100), "outcome": "lost", "token_fingerprint": ""}
    went = intent(store, credential, **old)
    kept = [intent(store, credential, **old, answer=sealed(store, "an answer")), intent(store, credential, **old)]
    assert purged(store)["intents"] == 1
    assert left(store, "intents") == set(kept), f"{went} and not what it brought, nor the last number"


def test_authorizations_go_a_day_after_they_are_over(store: Store) -> None:
    credential = enrolled(store)
    for number, days in enumerate((5, 1.01, 0.99, -0.01), 1):
        store.authorizations.open(credential, str(number), "ada", "secret", ago(6), ago(days))
    assert purged(store)["authorizations"] == 2
    assert left(store, "authorizations") == {3, 4}


def test_a_refresh_never_gets_the_number_of_one_that_was_purged(store: Store) -> None:
    """An answer that waits outside the store is named after the number."""
    credential = enrolled(store)
    numbers = [intent(store, credential, outcome="renewed", opened_at=ago(100), closed_at=ago(100)) for _ in range(3)]
    assert purged(store)["intents"] == 2
    assert intent(store, credential) > max(numbers)


def test_the_newest_heartbeats_of_each_watched_source_stay_for_its_lessons(
    store: Store, raw: RawSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ENOUGH_LOADS", 5)
    for name, days in (("old", range(300, 200, -10)), ("half", range(300, 0, -50)), ("Old", range(300, 290, -5))):
        for number in days:
            store.sources.beat(name, 1, ago(number), Observer())
    before = list(store.sources.all())
    assert store.upkeep.purge(Retention(), NOW, dry_run=True)["heartbeats"] == 6
    assert purged(store)["heartbeats"] == 6
    left = [(row["source"], (NOW - row["at"]).days) for row in beats_in(store)]
    assert left == [
        *[("Old", days) for days in (300, 295)],
        *[("half", days) for days in (250, 200, 150, 100, 50)],
        *[("old", days) for days in (250, 240, 230, 220, 210)],
    ]
    assert list(store.sources.all()) == before
    assert purged(store)["heartbeats"] == 0


def beats_in(store: Store) -> list[Any]:
    with store.database.read() as connection:
        query = select(heartbeats).order_by(heartbeats.c.source, heartbeats.c.at)
        return list(connection.execute(query).mappings())


def test_heartbeats_of_one_instant_that_a_lesson_needs_stay_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ENOUGH_LOADS", 2)
    for number, days in enumerate((300, 200, 200, 200, 100)):
        store.sources.beat("orders", 1, ago(days), replace(WORKER, try_number=number))
    assert purged(store)["heartbeats"] == 1
    assert len(beats_in(store)) == 4


def test_heartbeats_of_a_source_that_nobody_watches_all_go_once_they_are_old(store: Store, raw: RawSql) -> None:
    for days in (300, 200, 100, 1):
        store.sources.beat("unknown", 1, ago(days), Observer())
    store.sources.forget("unknown")
    assert purged(store)["heartbeats"] == 3
    assert len(raw.rows("oauth_guard_heartbeats")) == 1


def test_a_task_that_has_not_used_a_credential_for_long_is_no_consumer_of_it_any_more(
    store: Store, raw: RawSql
) -> None:
    credential = enrolled(store)
    for task, days in (("daily", 0), ("monthly", 31), ("quarterly", 91), ("gone", 200)):
        store.consumers.note(credential.id, "load", task, ago(days))
    assert purged(store)["consumers"] == 2
    assert [row["task_id"] for row in raw.rows("oauth_guard_consumers")] == ["daily", "monthly"]


def test_a_consumer_is_kept_for_as_long_as_it_counts_however_short_heartbeats_are_kept(store: Store) -> None:
    credential = enrolled(store)
    for task, days in (("weekly", 8), ("monthly", 29), ("gone", 31)):
        store.consumers.note(credential.id, "load", task, ago(days))
    assert purged(store, heartbeats=DAY)["consumers"] == 1


def test_each_retention_is_its_own(store: Store) -> None:
    credential = enrolled(store)
    for days in (50, 40, 20):
        seen(store, credential, at=ago(days))
        store.sources.beat("contacts", 1, ago(days), Observer())
    store.sources.forget("contacts")
    assert purged(store, evidence=45 * DAY, heartbeats=365 * DAY)["evidence"] == 1
    assert purged(store, evidence=365 * DAY, heartbeats=10 * DAY)["heartbeats"] == 3


@pytest.mark.parametrize("days", [29, 1, 0, -1])
def test_a_retention_that_the_database_would_refuse_is_refused_with_its_options_name(days: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"evidence_retention_days` is {days}; write 30 or more"):
        Retention(evidence=timedelta(days=days))


def test_the_shortest_retention_works_although_clocks_differ_a_little(store: Store) -> None:
    credential = enrolled(store)
    for days in (31, 30.5, 30.0001, 29.9999, 29, 1):
        seen(store, credential, at=ago(days))
    assert purged(store, now=NOW + timedelta(minutes=30), evidence=30 * DAY)["evidence"] == 2


def test_a_dry_run_changes_nothing(store: Store, raw: RawSql) -> None:
    credential = enrolled(store)
    for days in (300, 200, 100):
        investigated(store, credential, ago(days))
    before = raw.everything()
    assert store.upkeep.purge(Retention(), NOW, dry_run=True)["evidence"] == 8
    assert raw.everything() == before


def history(store: Store, seed: int) -> list[Credential]:
    """Whatever may have happened to three credentials in half a year."""
    chance = random.Random(seed)
    credentials = [enrolled(store, name) for name in ("crm", "erp", "shop")]
    shapes = [SHAPE, replace(SHAPE, grant_type="password"), None]
    for day in sorted((chance.uniform(0, 180) for _ in range(40)), reverse=True):
        credential, at = chance.choice(credentials), ago(day)
        kind = chance.choice([Kind.REFRESH, Kind.REFRESH, Kind.PROBE, Kind.CONTROL, Kind.PERSON, None])
        if kind is None:
            question = investigated(
                store, credential, at, proof=dead(Status.LAPSED), answer=chance.choice(["declined", "unanswered", None])
            )
            if chance.random() < 0.4:
                proof = store.credentials.latest_evidence(credential, Kind.CONCLUSION)
                assert proof is not None
                assert proof.id == question["conclusion"]
                store.credentials.record(credential, proof, at)
        else:
            seen(
                store,
                credential,
                kind,
                at,
                verdict=chance.choice([Verdict.LIVE, Verdict.OPEN]),
                shape=chance.choice(shapes),
            )
    return credentials


def answers(store: Store, credentials: list[Credential]) -> list[Any]:
    """Everything that is decided from history."""
    return [
        (
            store.credentials.get(one.conn_id),
            store.credentials.latest_evidence(one),
            [store.credentials.latest_evidence(one, kind) for kind in Kind],
            store.credentials.status_evidence(one),
            [
                store.credentials.shape_is_proven(one, replace(SHAPE, grant_type=g).id, NOW)
                for g in (SHAPE.grant_type, "password")
            ],
            store.investigations.was_declined(one) is None,
            store.credentials.transitions(one),
        )
        for one in credentials
    ]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happened_everything_is_decided_as_before(store: Store, raw: RawSql, seed: int) -> None:
    credentials = history(store, seed)
    before, held = answers(store, credentials), {row["id"]: row for row in raw.rows("oauth_guard_evidence")}
    went = purged(store)
    assert went["evidence"] > 0
    assert answers(store, credentials) == before
    rows = {row["id"]: row for row in raw.rows("oauth_guard_evidence")}
    assert rows == {number: held[number] for number in rows}, "what stays is as it was"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_purge_that_was_killed_is_finished_by_the_next(
    store: Store, open_store: Callable[..., Store], count: int
) -> None:
    credential = enrolled(store)
    for days in (300, 250, 200, 150, 100):
        investigated(store, credential, ago(days))
    foretold = store.upkeep.purge(Retention(), NOW, dry_run=True)
    other = open_store()
    with dying_at(other.database.engine, "DELETE", count):
        other.upkeep.purge(Retention(), NOW)
    before = answers(store, [credential])
    store.upkeep.purge(Retention(), NOW)
    assert len(left(store)) == 4
    assert foretold["evidence"] == 16
    assert answers(store, [credential]) == before


def test_purges_at_once_share_the_work(store: Store, open_store: Callable[..., Store]) -> None:
    credentials = [enrolled(store, f"crm_{number}") for number in range(3)]
    for credential in credentials:
        for days in (300, 250, 200, 150):
            investigated(store, credential, ago(days))
        for days in range(100, 110):
            intent(store, credential, outcome="renewed", opened_at=ago(days), closed_at=ago(days))
    foretold = store.upkeep.purge(Retention(), NOW, dry_run=True)
    stores = [open_store() for _ in range(4)]
    went = at_once([lambda one=one: one.upkeep.purge(Retention(), NOW) for one in stores])
    assert {table: sum(one[table] for one in went) for table in foretold} == foretold
    assert set(store.upkeep.purge(Retention(), NOW).values()) == {0}


def test_a_purge_beside_running_writers_takes_nothing_that_they_wrote(
    store: Store, open_store: Callable[..., Store]
) -> None:
    credential = enrolled(store)
    old = [seen(store, credential, at=ago(100 + number)) for number in range(30)]
    writer, other = open_store(), open_store()

    def write() -> list[int]:
        numbers = []
        for number in range(10):
            proof = writer.credentials.record(credential, dead(Status.LAPSED, now=ago(1)), NOW)
            life = Reading(Subject.ACCESS_TOKEN, Finding.LIVE, "probe", "it answered")
            alive = writer.credentials.record(credential, Evidence(Kind.PROBE, 1, ago(1), life, Verdict.LIVE), NOW)
            numbers += [proof.id, alive.id, seen(writer, credential, at=ago(number))]
        return numbers

    written, _ = at_once([write, lambda: other.upkeep.purge(Retention(), NOW)])
    store.upkeep.purge(Retention(), NOW)
    assert set(written) <= left(store)
    # The conclusions say that they rest on the first two, which may have gone before.
    assert set(old) & left(store) <= set(old[:2])
    assert len(store.credentials.transitions(credential)) == 20


@contextmanager
def before_the_first(engine: Engine, verb: str, job: Callable[[], Any]) -> Iterator[None]:
    """Let another process do something in the middle of a transaction of this one."""
    done: list[bool] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith(verb) and not done:
            done.append(True)
            job()

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert done, f"nothing like {verb} was sent"


def test_old_evidence_that_becomes_a_proof_while_it_is_being_purged_stays(
    store: Store, open_store: Callable[..., Store]
) -> None:
    """A person may act on an old conclusion at that moment: the database refuses, and the purge looks again."""
    if store.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time, so nothing happens in the middle of a purge's transaction")
    credential = enrolled(store)
    proof = planted(store, credential, dead(Status.EXPIRED, now=ago(100))).id
    newer = planted(store, credential, dead(Status.EXPIRED, now=ago(99))).id
    old = [seen(store, credential, at=ago(100)) for _ in range(5)]
    purging = open_store()

    def expire() -> None:
        store.credentials.expire("crm", proof, WORKER, NOW)

    with before_the_first(purging.database.engine, "DELETE FROM oauth_guard_evidence", expire):
        went = purging.upkeep.purge(Retention(), NOW)
    # The first conclusion says that it rests on the first two, itself and the newer one.
    assert left(store) == {proof, newer, old[-1]}
    assert went["evidence"] == 4
    assert store.credentials.get("crm").status is Status.EXPIRED


def test_tokens_statuses_and_incidents_are_never_purged(store: Store, raw: RawSql) -> None:
    credential = enrolled(store)
    for days in (300, 200):
        investigated(store, credential, ago(days))
    tables = [
        f"oauth_guard_{name}" for name in ("credentials", "tokens", "statuses", "incidents", "sources", "transitions")
    ]
    before = [raw.rows(table) for table in tables]
    purged(store)
    assert [raw.rows(table) for table in tables] == before
    assert raw.rows(tokens.name)
