from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.domain.evidence import TRANSIENT, Evidence, Finding, Kind, Reading, Subject, Verdict
from airflow_oauth_guard.domain.facts import FOUR, Fact, four_facts
from tests.unit.domain.builders import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    PROBE_ANSWERS,
    TOKEN_ANSWERS,
    controlled,
    http,
    probed,
    refreshed,
    refusal,
    seen,
    unanswered,
)

ISSUED = http(200, {"access_token": "at-2"})
OK = http(200, {"name": "ok"})
REJECTED = http(401, headers={"www-authenticate": 'Bearer error="invalid_token"'})
REVOKED = refusal("invalid_grant", "Token has been revoked.")


def said(kind: Kind, subject: Subject, finding: Finding, verdict: Verdict, **more) -> Evidence:
    reading = Reading(subject, finding, more.pop("rule", "made_for_a_test"), "made for a test")
    return Evidence(kind, more.pop("generation", 1), NOW + more.pop("after", 0 * MINUTE), reading, verdict, **more)


def word(rule: str, generation: int = 1, **more) -> Evidence:
    return said(Kind.PERSON, Subject.GRANT, Finding.LIVE, Verdict.LIVE, rule=rule, generation=generation, **more)


def death(subject: Subject = Subject.GRANT, **more) -> Evidence:
    finding = Finding.GRANT_DEAD if subject is Subject.GRANT else Finding.ACCESS_TOKEN_DEAD
    return said(Kind.CONCLUSION, subject, finding, Verdict.DEAD, **more)


def fact(subject: Subject, *looks: Evidence, generation: int = 1) -> tuple[Verdict, str] | None:
    known = four_facts(looks, generation).get(subject)
    return (known.verdict, known.says) if known else None


def access_token(*looks: Evidence, generation: int = 1) -> tuple[Verdict, str] | None:
    return fact(Subject.ACCESS_TOKEN, *looks, generation=generation)


def grant(*looks: Evidence, generation: int = 1) -> tuple[Verdict, str] | None:
    return fact(Subject.GRANT, *looks, generation=generation)


def client(*looks: Evidence) -> tuple[Verdict, str] | None:
    return fact(Subject.CLIENT, *looks)


def provider(*looks: Evidence) -> tuple[Verdict, str] | None:
    return fact(Subject.PROVIDER, *looks)


def test_where_nothing_was_seen_nothing_is_known():
    assert four_facts([], 1) == {}


def test_a_fact_names_the_evidence_that_says_it():
    look = probed(OK, number=7)
    assert four_facts([look], 1)[Subject.ACCESS_TOKEN] == Fact(
        Subject.ACCESS_TOKEN, Verdict.LIVE, "answered a probe", look
    )


# -- the access token -------------------------------------------------------------------------------------------------


def test_a_probe_tells_of_the_access_token():
    assert access_token(probed(OK)) == (Verdict.LIVE, "answered a probe")
    assert access_token(probed(REJECTED)) == (Verdict.OPEN, "rejected, not proven dead")
    assert access_token(probed(http(401))) == (Verdict.OPEN, "the last look decides nothing")
    assert access_token(probed(REJECTED), death(Subject.ACCESS_TOKEN)) == (Verdict.DEAD, "proven rejected")


def test_what_a_probe_meets_on_the_way_says_nothing_of_the_access_token():
    for answer in (http(503), http(429), unanswered(), http(404), http(302)):
        assert access_token(probed(answer)) is None


def test_a_new_access_token_is_issued_and_not_tried_until_a_probe_of_it():
    new = refreshed(ISSUED, generation=1, after=HOUR)
    assert access_token(new, generation=2) == (Verdict.OPEN, "issued, not tried yet")
    assert access_token(replace(new, kind=Kind.CONNECT), generation=2) == (Verdict.OPEN, "issued, not tried yet")
    before = probed(REJECTED, generation=1, after=2 * HOUR)
    assert access_token(new, before, generation=2) == (Verdict.OPEN, "issued, not tried yet"), "that was the old one"
    tried = probed(OK, generation=2, after=-HOUR)
    assert access_token(new, before, tried, generation=2) == (Verdict.LIVE, "answered a probe"), "whatever a clock says"


def test_evidence_about_older_tokens_says_nothing_of_the_one_there_is():
    for look in (probed(OK), probed(REJECTED), death(Subject.ACCESS_TOKEN)):
        assert access_token(look, generation=2) is None
        assert access_token(refreshed(ISSUED), look, generation=3) is None


def test_introspection_tells_of_what_it_was_asked_about():
    active = said(Kind.INTROSPECTION, Subject.ACCESS_TOKEN, Finding.LIVE, Verdict.LIVE, http_status=200)
    assert access_token(active) == (Verdict.LIVE, "active, says the provider")
    active = said(Kind.INTROSPECTION, Subject.GRANT, Finding.LIVE, Verdict.LIVE, http_status=200)
    assert (access_token(active), grant(active)) == (None, (Verdict.LIVE, "active, says the provider"))
    gone = said(Kind.INTROSPECTION, Subject.GRANT, Finding.GRANT_DEAD, Verdict.OPEN, http_status=200)
    assert grant(gone) == (Verdict.OPEN, "rejected, not proven dead")


# -- the grant --------------------------------------------------------------------------------------------------------


def test_a_refresh_that_succeeded_shows_the_grant_alive():
    assert grant(refreshed(ISSUED), generation=2) == (Verdict.LIVE, "a refresh succeeded")
    assert grant(seen(Kind.CONNECT, ISSUED), generation=2) == (Verdict.LIVE, "reconnected")


def test_one_refusal_is_a_question():
    assert grant(refreshed(REVOKED)) == (Verdict.OPEN, "rejected, not proven dead")
    was_live = refreshed(ISSUED, generation=1)
    assert grant(was_live, refreshed(REVOKED, generation=2, after=HOUR), generation=2) == (
        Verdict.OPEN,
        "rejected, not proven dead",
    )


@pytest.mark.parametrize(
    "answer", [refusal("invalid_request"), refusal("invalid_client", status=401), http(503), unanswered(), http(429)]
)
def test_a_failure_that_is_not_about_the_grant_leaves_what_is_known_of_it(answer):
    new = refreshed(ISSUED, generation=1)
    assert grant(new, refreshed(answer, generation=2, after=HOUR), generation=2) == (
        Verdict.LIVE,
        "a refresh succeeded",
    )


def test_a_late_refusal_of_older_tokens_says_nothing_of_the_grant():
    late = refreshed(REVOKED, generation=1, after=HOUR)
    assert grant(refreshed(ISSUED, generation=1), late, generation=2) == (Verdict.LIVE, "a refresh succeeded")
    assert grant(late, death(generation=1), generation=2) is None


def test_of_a_grant_that_is_proven_dead_another_refusal_teaches_nothing_and_life_does():
    looks = [refreshed(REVOKED), death(after=MINUTE)]
    assert grant(*looks) == (Verdict.DEAD, "proven dead")
    looks.append(refreshed(REVOKED, after=HOUR))
    assert grant(*looks) == (Verdict.DEAD, "proven dead")
    assert grant(*looks, word("revived", after=2 * HOUR)) == (Verdict.OPEN, "alive, says a person")
    looks += [word("revived", after=2 * HOUR), refreshed(REVOKED, after=3 * HOUR)]
    assert grant(*looks) == (Verdict.OPEN, "rejected, not proven dead")
    assert grant(*looks, refreshed(ISSUED, after=4 * HOUR), generation=2) == (Verdict.LIVE, "a refresh succeeded")


def test_a_refused_use_is_a_question_about_the_access_token_and_no_proof():
    refused = said(Kind.USE, Subject.ACCESS_TOKEN, Finding.ACCESS_TOKEN_DEAD, Verdict.OPEN, http_status=401)
    assert access_token(refused) == (Verdict.OPEN, "rejected, not proven dead")
    assert (grant(refused), client(refused), provider(refused)) == (None, None, None)


def test_a_use_that_was_refused_for_another_reason_says_nothing():
    forbidden = said(Kind.USE, Subject.ACCESS_TOKEN, Finding.UNKNOWN, Verdict.OPEN, http_status=401)
    failing = said(Kind.USE, Subject.PROVIDER, Finding.PROVIDER_OUTAGE, Verdict.OPEN, http_status=503)
    for look in (forbidden, failing):
        assert (access_token(look), grant(look), client(look), provider(look)) == (None, None, None, None)


@pytest.mark.parametrize(
    ("subject", "finding"),
    [(Subject.CLIENT, Finding.CLIENT_MISCONFIGURED), (Subject.GRANT, Finding.ACCOUNT_ACTION)],
)
def test_nor_does_what_a_consumers_api_says_of_apps_and_accounts(subject, finding):
    refused = said(Kind.USE, subject, finding, Verdict.OPEN, http_status=401)
    assert (access_token(refused), grant(refused), client(refused), provider(refused)) == (None, None, None, None)


def test_where_the_token_is_all_there_is_its_refusal_is_a_question_about_the_grant():
    refused = said(Kind.USE, Subject.GRANT, Finding.GRANT_DEAD, Verdict.OPEN, http_status=401)
    assert grant(refused) == (Verdict.OPEN, "rejected, not proven dead")
    assert client(refused) is None


def test_what_a_person_says_is_no_answer_of_the_provider():
    assert grant(word("reseeded", 1), generation=2) == (Verdict.OPEN, "entered by a person, not tried yet")
    assert access_token(word("reseeded", 1), generation=2) is None
    assert grant(word("revived", 2), generation=2) == (Verdict.OPEN, "alive, says a person")
    assert grant(word("reseeded", 1), generation=3) is None
    gone = said(Kind.PERSON, Subject.GRANT, Finding.GRANT_DEAD, Verdict.DEAD)
    assert grant(gone) == (Verdict.DEAD, "dead, says a person")


def test_a_code_or_another_form_that_was_refused_says_nothing_of_the_grant():
    for kind in (Kind.CONNECT, Kind.CLASS_CHECK):
        assert grant(seen(kind, REVOKED)) is None
        assert client(seen(kind, REVOKED)) == (Verdict.LIVE, "accepted: the provider judged a token")


def test_a_lost_answer_may_have_spent_the_grant():
    lost = said(Kind.REFRESH, Subject.GRANT, Finding.AMBIGUOUS, Verdict.OPEN)
    assert grant(lost) == (Verdict.OPEN, "may be spent: an answer was lost")
    assert grant(replace(lost, kind=Kind.CONCLUSION)) == (Verdict.OPEN, "may be spent: an answer was lost")
    assert grant(said(Kind.PROBE, Subject.GRANT, Finding.ACCOUNT_ACTION, Verdict.OPEN)) == (
        Verdict.OPEN,
        "the account has to act first",
    )


def test_a_conclusion_that_proves_nothing_adds_nothing():
    alive = said(Kind.CONCLUSION, Subject.GRANT, Finding.LIVE, Verdict.OPEN, after=HOUR)
    undecided = said(Kind.CONCLUSION, Subject.GRANT, Finding.UNKNOWN, Verdict.OPEN, after=HOUR)
    for conclusion in (alive, undecided):
        assert grant(refreshed(REVOKED), conclusion) == (Verdict.OPEN, "rejected, not proven dead")
        assert grant(conclusion) is None


# -- the client -------------------------------------------------------------------------------------------------------


def test_a_client_is_fine_where_a_token_was_judged():
    assert client(refreshed(ISSUED)) == (Verdict.LIVE, "accepted: the provider judged a token")
    assert client(refreshed(REVOKED)) == (Verdict.LIVE, "accepted: the provider judged a token")
    assert client(refreshed(refusal("invalid_request"))) is None
    assert client(probed(OK)) is None


def test_a_client_that_is_refused_is_a_question_until_a_made_up_token_gets_the_same():
    refused = refusal("invalid_client", status=401)
    assert client(refreshed(refused)) == (Verdict.OPEN, "refused")
    assert client(refreshed(refused), controlled(refused, after=MINUTE)) == (
        Verdict.DEAD,
        "refused, whatever the token",
    )
    concluded = said(Kind.CONCLUSION, Subject.CLIENT, Finding.CLIENT_MISCONFIGURED, Verdict.OPEN)
    assert client(concluded) == (Verdict.DEAD, "refused, whatever the token")
    assert client(concluded, refreshed(ISSUED, after=HOUR)) == (Verdict.LIVE, "accepted: the provider judged a token")


# -- the provider -----------------------------------------------------------------------------------------------------


def test_a_provider_answers_or_is_failing_and_the_newest_counts():
    assert provider(probed(REJECTED)) == (Verdict.LIVE, "answers")
    assert provider(refreshed(http(503))) == (Verdict.OPEN, "failing")
    assert provider(refreshed(unanswered())) == (Verdict.OPEN, "failing")
    assert provider(refreshed(http(429))) == (Verdict.OPEN, "limits our rate")
    assert provider(refreshed(http(503)), probed(OK, after=MINUTE)) == (Verdict.LIVE, "answers")
    assert provider(refreshed(http(503), after=MINUTE), probed(OK)) == (Verdict.OPEN, "failing")
    assert provider(probed(OK, generation=1, after=MINUTE), refreshed(http(503), generation=2)) == (
        Verdict.LIVE,
        "answers",
    ), "it is the same provider, whatever the token"


def test_an_answer_of_something_else_is_not_the_providers():
    assert provider(refreshed(http(302))) == (Verdict.OPEN, "answers, but not as its protocol wants")
    assert provider(refreshed(unanswered(provider_at_fault=False))) is None
    assert provider(death()) is None


# -- laws -------------------------------------------------------------------------------------------------------------

KINDS = st.sampled_from([Kind.REFRESH, Kind.CONNECT, Kind.PROBE, Kind.CONTROL, Kind.CLASS_CHECK])
ANSWERS = st.sampled_from([one.answer for one in (*TOKEN_ANSWERS, *PROBE_ANSWERS)])
TIMES = st.integers(0, 5).map(lambda hours: hours * HOUR)
LOOKS = st.one_of(
    st.builds(seen, KINDS, ANSWERS, after=TIMES, generation=st.integers(1, 3)),
    st.builds(death, st.sampled_from([Subject.GRANT, Subject.ACCESS_TOKEN]), after=TIMES, generation=st.integers(1, 3)),
    st.builds(word, st.sampled_from(["revived", "reseeded"]), st.integers(1, 3), after=TIMES),
)
NUMBERED = st.lists(LOOKS, max_size=8).map(lambda looks: [replace(look, id=n) for n, look in enumerate(looks, 1)])
GENERATIONS = st.integers(1, 3)


@given(NUMBERED, GENERATIONS)
def test_a_fact_is_about_its_subject_and_rests_on_what_was_seen(looks, generation):
    for subject, known in four_facts(looks, generation).items():
        assert subject in FOUR
        assert known.subject is subject
        assert known.evidence in looks
        assert known.says


@given(NUMBERED, GENERATIONS)
def test_only_a_proof_says_that_a_token_is_dead_and_only_an_answer_that_it_lives(looks, generation):
    known = four_facts(looks, generation)
    for subject in (Subject.ACCESS_TOKEN, Subject.GRANT):
        if subject in known and known[subject].verdict is not Verdict.OPEN:
            assert known[subject].verdict is known[subject].evidence.verdict
            assert known[subject].evidence.subject is subject
            assert known[subject].evidence.kind is not Kind.PERSON


@given(NUMBERED, GENERATIONS)
def test_a_made_up_token_speaks_neither_of_the_grant_nor_of_the_access_token(looks, generation):
    without = [look for look in looks if look.kind is not Kind.CONTROL]
    known, reduced = four_facts(looks, generation), four_facts(without, generation)
    for subject in (Subject.ACCESS_TOKEN, Subject.GRANT):
        assert known.get(subject) == reduced.get(subject)


@given(NUMBERED, GENERATIONS)
def test_older_tokens_speak_of_the_access_token_only_by_having_been_renewed(looks, generation):
    known = four_facts(looks, generation).get(Subject.ACCESS_TOKEN)
    if known is not None and known.evidence.generation != generation:
        assert known.evidence.generation == generation - 1
        assert (known.verdict, known.says) == (Verdict.OPEN, "issued, not tried yet")
        assert known.evidence.verdict is Verdict.LIVE


@given(NUMBERED, GENERATIONS)
def test_what_may_pass_by_itself_speaks_of_the_provider_only(looks, generation):
    for subject, known in four_facts(looks, generation).items():
        assert subject is Subject.PROVIDER or known.evidence.finding not in TRANSIENT


@given(NUMBERED, GENERATIONS, st.randoms())
def test_the_order_in_which_evidence_is_handed_over_does_not_matter(looks, generation, chance):
    shuffled = looks.copy()
    chance.shuffle(shuffled)
    assert four_facts(shuffled, generation) == four_facts(looks, generation)


@given(NUMBERED)
def test_a_refresh_that_succeeds_last_shows_everything_but_the_new_access_token(looks):
    newest = refreshed(ISSUED, generation=3, after=DAY, number=99)
    known = four_facts([*looks, newest], 4)
    assert {subject: item.verdict for subject, item in known.items()} == {
        Subject.ACCESS_TOKEN: Verdict.OPEN,
        Subject.GRANT: Verdict.LIVE,
        Subject.CLIENT: Verdict.LIVE,
        Subject.PROVIDER: Verdict.LIVE,
    }
