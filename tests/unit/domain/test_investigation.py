from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.domain.answers import Answer
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Subject, Verdict
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.investigation import (
    DOCUMENTED,
    SKEW_LIMIT,
    Case,
    Conclusion,
    Owner,
    Siblings,
    Step,
    conclude,
    next_step,
)
from airflow_oauth_guard.domain.reading import STANDARD, Dialect
from airflow_oauth_guard.domain.vocabulary import ErrorRule
from tests.unit.domain.builders import (
    DAY,
    MINUTE,
    NOW,
    PAUSE,
    PROBE_ANSWERS,
    SECOND,
    SHAPE,
    TOKEN_ANSWERS,
    Said,
    case,
    controlled,
    http,
    meta_refusal,
    probed,
    refreshed,
    refusal,
    seen,
    unanswered,
)

if TYPE_CHECKING:
    from collections.abc import Callable

REVOKED = refusal("invalid_grant", "Token has been revoked.")
NO_SUCH_TOKEN = refusal("invalid_grant", "No such token.")
ISSUED = http(200, {"access_token": "at-2"})
REJECTED = http(401, headers={"www-authenticate": 'Bearer error="invalid_token"'})
LIVE_PROBE = http(200, {"name": "ok"})


def is_proven_death(conclusion: Conclusion) -> bool:
    return conclusion.subject is Subject.GRANT and conclusion.verdict is Verdict.DEAD


def investigate(
    start: Case, provider: Callable[[Step, datetime], Evidence], *, patience: int = 100
) -> tuple[Conclusion, Case, list[Step], datetime]:
    """Do as the sensor does: look, wait, look again, with a clock that moves."""
    now, steps, known = NOW, [], start
    for _ in range(patience):
        step = next_step(known, now)
        if isinstance(step, Conclusion):
            return step, known, steps, now
        steps.append(step)
        if step is Step.WAIT:
            now += known.pause / 4
        else:
            known = replace(known, evidence=(*known.evidence, provider(step, now)))
            now += SECOND
    raise AssertionError(f"no conclusion after {patience} steps: {steps}")


def answering(**by_step: Answer) -> Callable[[Step, datetime], Evidence]:
    """A provider that always says the same to the same kind of request."""
    make = {Step.REFRESH: refreshed, Step.PROBE: probed, Step.CONTROL: controlled}
    return lambda step, now: make[step](by_step[step.value], after=now - NOW)


# -- the incident of the ten lost days ----------------------------------------------------------------------------

METAS = Dialect(refresh_codes=Catalog().get("facebook").refresh_errors)
WRONG_CLASS = {
    "unsupported_grant_type": (refusal("unsupported_grant_type"), STANDARD),
    "invalid_request": (refusal("invalid_request", "The request is missing a required parameter"), STANDARD),
    "meta_100": (meta_refusal(100, "Invalid parameter"), METAS),
    "invalid_grant": (refusal("invalid_grant"), STANDARD),
    "invalid_grant_described": (refusal("invalid_grant", "The grant is not valid"), STANDARD),
    "undocumented": (refusal("bad_things_happened"), STANDARD),
    "sounds_like_a_death": (refusal("bad_things_happened", "Your refresh token has expired."), STANDARD),
    "in_plain_text": (http(400, "refresh token revoked"), STANDARD),
    "html": (http(400, "<html>Bad request</html>"), STANDARD),
}


def incident_evidence(name: str) -> tuple[Evidence, ...]:
    """The wrong class asks: a real token and a made-up one earn the same 400, before either was looked at."""
    answer, dialect = WRONG_CLASS[name]
    return (
        refreshed(answer, dialect=dialect, number=1),
        controlled(answer, after=SECOND, dialect=dialect, number=2),
        refreshed(answer, after=PAUSE, dialect=dialect, number=3),
        refreshed(answer, after=DAY / 2, dialect=dialect, number=4),
    )


@pytest.mark.parametrize("name", WRONG_CLASS)
@pytest.mark.parametrize("count", range(1, 5))
def test_a_wrong_class_never_proves_a_death_however_often_it_asks(name, count):
    conclusion = conclude(case(*incident_evidence(name)[:count]))
    assert conclusion.verdict is not Verdict.DEAD or conclusion.subject is not Subject.GRANT
    assert conclusion.finding is not Finding.GRANT_DEAD
    assert conclusion.access_token is Verdict.OPEN


@pytest.mark.parametrize("name", ["unsupported_grant_type", "invalid_request", "meta_100", "undocumented"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_same_complaint_about_a_made_up_token_says_that_our_request_is_wrong(name, count):
    shape = replace(SHAPE, grant_type="authorization_code", parameters=("code", "grant_type", "redirect_uri"))
    evidence = [replace(item, shape=shape) for item in incident_evidence(name)[:count]]
    conclusion = conclude(case(*evidence))
    assert (conclusion.finding, conclusion.subject) == (Finding.REQUEST_MALFORMED, Subject.REQUEST)
    assert conclusion.owner is Owner.CODE
    for named in ("authorization_code", "code", "grant_type", "redirect_uri", "never looked at"):
        assert named in conclusion.explanation
    assert conclusion.rests_on == tuple(range(1, count + 1))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_two_pages_that_no_token_endpoint_wrote_do_not_say_that_our_request_is_wrong(count):
    """A captive portal or a firewall answers anybody alike; a person has to look."""
    conclusion = conclude(case(*incident_evidence("html")[:count]))
    assert (conclusion.finding, conclusion.verdict, conclusion.owner) == (Finding.UNKNOWN, Verdict.OPEN, Owner.PERSON)


@pytest.mark.parametrize("name", ["invalid_grant", "invalid_grant_described", "sounds_like_a_death", "in_plain_text"])
def test_the_same_invalid_grant_to_both_tokens_leaves_the_question_to_a_person(name):
    conclusion = conclude(case(*incident_evidence(name)))
    assert (conclusion.finding, conclusion.verdict, conclusion.owner) == (Finding.UNKNOWN, Verdict.OPEN, Owner.PERSON)
    assert "made-up token earned the same answer" in conclusion.explanation


@pytest.mark.parametrize("name", WRONG_CLASS)
def test_the_incident_is_understood_within_minutes_and_the_token_stays_in_use(name):
    answer, dialect = WRONG_CLASS[name]

    def provider(step: Step, now: datetime) -> Evidence:
        if step is Step.PROBE:
            return probed(LIVE_PROBE, after=now - NOW)
        return (refreshed if step is Step.REFRESH else controlled)(answer, after=now - NOW, dialect=dialect)

    start = case(refreshed(answer, dialect=dialect), has_probe=True)
    conclusion, _, steps, now = investigate(start, provider)
    assert not is_proven_death(conclusion)
    assert conclusion.access_token is Verdict.LIVE
    assert "access token is alive" in conclusion.explanation
    assert steps[:2] == [Step.PROBE, Step.CONTROL]
    assert now - NOW <= PAUSE + MINUTE


# -- a proven death needs all four conditions ---------------------------------------------------------------------


def all_four(
    *,
    first: Answer = REVOKED,
    again: Answer = REVOKED,
    control: Answer | None = NO_SUCH_TOKEN,
    first_generation: int = 1,
    newest: int = 1,
    after: timedelta = PAUSE,
    skew: timedelta = timedelta(),
    **flags: object,
) -> Case:
    """A case that meets all four conditions, each of which can be taken away."""
    evidence = [
        refreshed(first, generation=first_generation, number=1),
        *([controlled(control, after=SECOND, number=2)] if control else []),
        replace(refreshed(again, after=after, number=3), skew=skew),
    ]
    return case(*evidence, generation=newest, **flags)


@pytest.mark.rfc("6749", "5.2")
def test_all_four_conditions_together_prove_a_death():
    conclusion = conclude(all_four())
    assert is_proven_death(conclusion)
    assert conclusion.finding is Finding.GRANT_DEAD
    assert conclusion.owner is Owner.ACCOUNT
    assert conclusion.missing == ()
    assert conclusion.rests_on == (1, 2, 3)


def test_a_form_that_has_succeeded_stands_in_for_the_control():
    assert is_proven_death(conclude(all_four(control=None, shape_proven=True)))
    assert is_proven_death(conclude(all_four(control=REVOKED, shape_proven=True)))
    assert is_proven_death(conclude(all_four(control=unanswered(), shape_proven=True)))


IN_WORDS = refusal("gone", "The refresh token has expired.")
ONE_DROPPED = {
    "a code that is documented": ({"first": IN_WORDS, "again": IN_WORDS}, "no code that it documents says so"),
    "a code at all": (
        dict.fromkeys(["first", "again"], http(400, "the refresh token was revoked")),
        "no code that it documents says so",
    ),
    "another code": ({"first": refusal("gone"), "again": refusal("gone")}, "decides nothing"),
    "a code for our request": (
        {"first": refusal("invalid_request"), "again": refusal("invalid_request")},
        "about our request, not about the grant",
    ),
    "a description about the redirect": (
        {"first": refusal("invalid_grant", "redirect"), "again": refusal("invalid_grant", "redirect")},
        "about our request, not about the grant",
    ),
    "a description about the client": (
        {"first": refusal("invalid_grant", "wrong client"), "again": refusal("invalid_grant", "wrong client")},
        "refuses our app, not this grant",
    ),
    "a description about a policy": (
        {"first": refusal("invalid_grant", "MFA needed"), "again": refusal("invalid_grant", "MFA needed")},
        "done in the account",
    ),
    "no control": ({"control": None}, "never succeeded for this client"),
    "the same answer to the control": ({"control": REVOKED}, "made-up token earned the same answer"),
    "a control nobody answered": ({"control": unanswered()}, "never succeeded for this client"),
    "a control that was limited": ({"control": http(429)}, "never succeeded for this client"),
    "a control judged in words only": ({"control": IN_WORDS}, "never succeeded for this client"),
    "a control that met another error": ({"control": refusal("invalid_request")}, "never succeeded for this client"),
    "older tokens": ({"newest": 2}, "generation 1 was sent, but 2 is the newest"),
    "a lost answer": ({"lost_answer": True}, "did not reach us"),
    "no pause": ({"after": PAUSE - SECOND}, "not given again after a pause"),
    "another answer the second time": (
        {"first": refusal("invalid_grant", "expired")},
        "not given again after a pause",
    ),
    "an outage the first time": ({"first": http(503)}, "not given again after a pause"),
    "an outage the second time": ({"again": http(503)}, "could not be asked"),
    "older tokens the first time": ({"first_generation": 0}, "not given again after a pause"),
    "our clock is ahead": ({"skew": SKEW_LIMIT + SECOND}, "apart"),
    "our clock is behind": ({"skew": -SKEW_LIMIT - SECOND}, "apart"),
    "a class that sends no token": ({"sends_token": False}, "Nothing is stored that could be proven dead"),
}


@pytest.mark.parametrize(("dropped", "says"), ONE_DROPPED.values(), ids=ONE_DROPPED)
def test_a_death_with_one_condition_dropped_is_not_proven_and_the_explanation_names_it(dropped, says):
    conclusion = conclude(all_four(**dropped))
    assert not is_proven_death(conclusion)
    assert conclusion.finding is not Finding.GRANT_DEAD
    assert says in conclusion.explanation


def test_a_code_that_the_provider_documents_proves_as_much_as_the_protocols():
    dialect = Dialect(refresh_codes=(ErrorRule(Finding.GRANT_DEAD, "gone"),))
    looked = [refreshed(IN_WORDS, dialect=dialect), refreshed(IN_WORDS, after=PAUSE, dialect=dialect)]
    assert is_proven_death(conclude(case(*looked, shape_proven=True)))
    assert not is_proven_death(conclude(all_four(first=IN_WORDS, again=IN_WORDS, shape_proven=True)))


def test_one_answer_is_never_enough_even_from_a_proven_form():
    conclusion = conclude(case(refreshed(REVOKED), shape_proven=True))
    assert not is_proven_death(conclusion)
    assert conclusion.missing == ("the same answer was not given again after a pause",)


def test_everything_that_is_missing_is_named_at_once():
    conclusion = conclude(all_four(control=None, after=SECOND, skew=DAY, newest=2))
    assert len(conclusion.missing) == 4
    for missing in conclusion.missing:
        assert missing in conclusion.explanation


def test_a_skew_at_the_limit_is_still_within_leeway():
    assert is_proven_death(conclude(all_four(skew=SKEW_LIMIT)))
    assert is_proven_death(conclude(all_four(skew=-SKEW_LIMIT)))


def test_trace_ids_and_timestamps_do_not_make_the_control_tell_tokens_apart():
    said = "The grant is not valid. Trace ID: 0f8fad5b-d9cb-{} Timestamp: 2026-03-14 09:0{}:07Z"
    answers = [refusal("invalid_grant", said.format(number, number)) for number in range(3)]
    conclusion = conclude(all_four(first=answers[0], control=answers[1], again=answers[2]))
    assert not is_proven_death(conclusion)
    assert conclusion.missing == (
        "this form of request has never succeeded for this client, and a made-up token earned the same answer",
    )


def test_trace_ids_and_timestamps_do_not_make_a_repeated_answer_another_one():
    said = "Token has been revoked. Trace ID: 0f8fad5b-d9cb-{}"
    answers = [refusal("invalid_grant", said.format(number)) for number in range(2)]
    assert is_proven_death(conclude(all_four(first=answers[0], again=answers[1])))


@pytest.mark.parametrize(
    "control",
    [unanswered(), http(429), http(503, "<html>"), refusal("invalid_request"), refusal("invalid_client", status=401)],
    ids=["silence", "429", "503", "invalid_request", "invalid_client"],
)
def test_a_control_that_met_something_else_is_not_said_to_have_earned_the_same_answer(control):
    assert "earned the same answer" not in conclude(all_four(control=control)).explanation


def test_a_control_of_another_form_says_nothing_about_this_one():
    """The control is the identical request with a made-up token; after a change of settings it is neither."""
    evidence = list(all_four().evidence)
    evidence[1] = replace(evidence[1], shape=replace(SHAPE, client_auth="client_secret_post"))
    assert not is_proven_death(conclude(case(*evidence)))


def test_two_answers_cut_short_do_not_say_that_our_request_is_wrong():
    """Nothing complete was ever read, so nobody knows whether the two were the same."""
    cut = unanswered("the answer is larger than 1024 KB and was cut off", provider_at_fault=False)
    conclusion = conclude(case(refreshed(cut), controlled(cut), refreshed(cut, after=PAUSE)))
    assert (conclusion.finding, conclusion.verdict) == (Finding.UNKNOWN, Verdict.OPEN)


# -- whose job it is ----------------------------------------------------------------------------------------------


@pytest.mark.rfc("6749", "5.2")
@pytest.mark.parametrize(
    ("answer", "finding", "owner"),
    [
        (refusal("invalid_client", status=401), Finding.CLIENT_MISCONFIGURED, Owner.APP),
        (refusal("invalid_request"), Finding.REQUEST_MALFORMED, Owner.CODE),
        (refusal("invalid_scope"), Finding.SCOPE_INSUFFICIENT, Owner.CODE),
        (refusal("interaction_required"), Finding.ACCOUNT_ACTION, Owner.ACCOUNT),
        (refusal("whatever"), Finding.UNKNOWN, Owner.PERSON),
        (REVOKED, Finding.UNKNOWN, Owner.PERSON),
        (http(429), Finding.RATE_LIMITED, Owner.NOBODY),
        (http(503), Finding.PROVIDER_OUTAGE, Owner.NOBODY),
        (unanswered(), Finding.PROVIDER_OUTAGE, Owner.NOBODY),
        (ISSUED, Finding.LIVE, Owner.NOBODY),
    ],
)
def test_a_single_failure_is_handed_to_whoever_can_look_into_it(answer, finding, owner):
    conclusion = conclude(case(refreshed(answer)))
    assert (conclusion.finding, conclusion.owner) == (finding, owner)


def test_a_control_that_meets_the_same_client_error_proves_that_it_is_the_client():
    refused = refusal("invalid_client", status=401)
    conclusion = conclude(case(refreshed(refused), controlled(refused), refreshed(refused, after=PAUSE)))
    assert (conclusion.subject, conclusion.verdict) == (Subject.CLIENT, Verdict.DEAD)
    assert conclude(case(refreshed(refused))).verdict is Verdict.OPEN


def test_a_provider_that_asks_for_patience_is_quoted():
    limited = replace(refreshed(http(429)), retry_after=10 * MINUTE)
    assert "10 min" in conclude(case(limited)).explanation


def test_a_later_success_settles_the_question():
    conclusion = conclude(case(refreshed(REVOKED), controlled(NO_SUCH_TOKEN), refreshed(ISSUED, after=PAUSE)))
    assert (conclusion.finding, conclusion.verdict) == (Finding.LIVE, Verdict.LIVE)


# -- the access token ---------------------------------------------------------------------------------------------


def probes(*answers: tuple[Answer, timedelta, int], **flags: object) -> Case:
    looked = [
        probed(answer, after=after, generation=generation, number=number)
        for number, (answer, after, generation) in enumerate(answers, start=2)
    ]
    return case(refreshed(REVOKED, number=1), *looked, has_probe=True, **flags)


@pytest.mark.rfc("6750", "3.1")
def test_two_rejections_with_a_pause_between_prove_an_access_token_dead():
    conclusion = conclude(probes((REJECTED, timedelta(), 1), (REJECTED, PAUSE, 1)))
    assert conclusion.access_token is Verdict.DEAD
    assert conclusion.access_token_rests_on == (2, 3)
    assert not is_proven_death(conclusion)


NOT_DEAD = {
    "one": [(REJECTED, timedelta(), 1)],
    "no pause": [(REJECTED, timedelta(), 1), (REJECTED, PAUSE - SECOND, 1)],
    "other tokens first": [(REJECTED, timedelta(), 0), (REJECTED, PAUSE, 1)],
    "other tokens": [(REJECTED, timedelta(), 0), (REJECTED, PAUSE, 0)],
    "life since": [(REJECTED, timedelta(), 1), (REJECTED, PAUSE, 1), (LIVE_PROBE, 2 * PAUSE, 1)],
    "life between": [(REJECTED, timedelta(), 1), (LIVE_PROBE, PAUSE, 1), (REJECTED, 2 * PAUSE, 1)],
}


@pytest.mark.parametrize("answers", NOT_DEAD.values(), ids=NOT_DEAD)
def test_an_access_token_is_not_proven_dead_by_less(answers):
    assert conclude(probes(*answers)).access_token is not Verdict.DEAD


@pytest.mark.parametrize(
    "said",
    [said for said in PROBE_ANSWERS if not said.alive and (said.only_in_words or not said.says_token_dead)],
    ids=lambda said: said.name,
)
def test_an_answer_without_a_code_about_the_token_proves_nothing_however_often_it_comes(said: Said):
    many = [(said.answer, number * PAUSE, 1) for number in range(5)]
    assert conclude(probes(*many)).access_token is Verdict.OPEN
    assert conclude(probes((REJECTED, timedelta(), 1), *many[1:])).access_token is Verdict.OPEN


def test_an_outage_between_two_rejections_does_not_undo_them():
    answers = [(REJECTED, timedelta(), 1), (http(503), PAUSE, 1), (REJECTED, 2 * PAUSE, 1)]
    assert conclude(probes(*answers)).access_token is Verdict.DEAD


def test_a_sign_of_life_of_older_tokens_says_nothing_about_the_newest():
    conclusion = conclude(probes((LIVE_PROBE, timedelta(), 1), generation=2))
    assert conclusion.access_token is Verdict.OPEN
    assert "is alive" not in conclusion.explanation


def test_a_credential_without_a_probe_is_told_so():
    assert "no probe URL" in conclude(case(refreshed(REVOKED))).explanation


def uses(*answers: tuple[Answer, timedelta, int], **flags: object) -> Case:
    """What consumers were told, beside the refresh that failed."""
    refused = [
        seen(Kind.USE, answer, after=after, generation=generation, number=number)
        for number, (answer, after, generation) in enumerate(answers, start=2)
    ]
    return case(refreshed(REVOKED, number=1), *refused, **flags)


def test_without_a_probe_two_consumers_that_are_refused_with_a_pause_between_prove_an_access_token_dead():
    conclusion = conclude(uses((REJECTED, timedelta(), 1), (REJECTED, PAUSE, 1)))
    assert conclusion.access_token is Verdict.DEAD
    assert conclusion.access_token_rests_on == (2, 3)
    assert not is_proven_death(conclusion)


@pytest.mark.parametrize(
    "answers",
    [
        *(NOT_DEAD[name] for name in ("one", "no pause", "other tokens first", "other tokens")),
        [(http(401), timedelta(), 1), (http(401), PAUSE, 1)],
        [(http(403), timedelta(), 1), (http(403), PAUSE, 1)],
    ],
)
def test_nor_does_less_than_that_prove_it(answers):
    assert conclude(uses(*answers)).access_token is Verdict.OPEN


def test_where_there_is_a_probe_what_consumers_were_told_decides_nothing():
    refusals = [(REJECTED, number * PAUSE, 1) for number in range(5)]
    assert conclude(uses(*refusals, has_probe=True)).access_token is Verdict.OPEN
    alive = probed(LIVE_PROBE, after=10 * PAUSE, number=9)
    known = uses(*refusals, has_probe=True)
    assert conclude(replace(known, evidence=(*known.evidence, alive))).access_token is Verdict.LIVE


# -- laws ---------------------------------------------------------------------------------------------------------

REVOKED_SAID, UNKNOWN_SAID = TOKEN_ANSWERS[:2]
STORIES = st.lists(
    st.tuples(
        st.sampled_from([Kind.REFRESH, Kind.CONTROL]),
        st.sampled_from([*6 * [REVOKED_SAID], *6 * [UNKNOWN_SAID], *TOKEN_ANSWERS]),
        st.sampled_from([timedelta(), SECOND, PAUSE - SECOND, PAUSE, PAUSE, DAY]),
        st.sampled_from([2, 2, 2, 2, 1]),
        st.sampled_from([None, timedelta(), SKEW_LIMIT, SKEW_LIMIT + SECOND, -DAY]),
    ),
    max_size=6,
)
"""Biased towards stories that come close to a proof: among evenly drawn ones hardly any does."""
FLAGS = st.fixed_dictionaries(
    {
        "generation": st.sampled_from([2, 2, 2, 2, 3]),
        "has_probe": st.booleans(),
        "sends_token": st.sampled_from([True, True, True, False]),
        "shape_proven": st.booleans(),
        "lost_answer": st.sampled_from([False, False, False, True]),
    }
)


def told(story) -> tuple[Evidence, ...]:
    """Evidence in order of time; each piece carries the name of what was said, for the law to go by."""
    at, evidence = timedelta(), []
    for kind, said, passed, generation, skew in story:
        at += passed
        make = refreshed if kind is Kind.REFRESH else controlled
        item = make(said.answer, after=at, generation=generation, label=said.name, number=len(evidence) + 1)
        evidence.append(replace(item, skew=skew))
    return tuple(evidence)


SAID = {said.name: said for said in TOKEN_ANSWERS}


def says_dead_by_a_code(item: Evidence) -> bool:
    return SAID[item.body].says_grant_dead and not SAID[item.body].only_in_words


def four_conditions_hold(known: Case) -> bool:
    """The four conditions of docs/how-it-decides.md by other means: from what was said, not from how we read it."""
    asked = [item for item in known.evidence if item.kind is Kind.REFRESH]
    last = asked[-1]
    says_the_grant_is_dead = says_dead_by_a_code(last) and known.sends_token
    well_formed = known.shape_proven or any(
        says_dead_by_a_code(item) and item.body != last.body for item in known.evidence if item.kind is Kind.CONTROL
    )
    newest = last.generation == known.generation and not known.lost_answer
    repeated = any(
        item.body == last.body
        and item.generation == last.generation
        and last.observed_at - item.observed_at >= known.pause
        for item in asked[:-1]
    )
    clocks_agree = last.skew is None or abs(last.skew) <= timedelta(minutes=5)
    return says_the_grant_is_dead and well_formed and newest and repeated and clocks_agree


PROOF = [
    (Kind.REFRESH, REVOKED_SAID, timedelta(), 2, None),
    (Kind.CONTROL, UNKNOWN_SAID, SECOND, 2, None),
    (Kind.REFRESH, REVOKED_SAID, PAUSE, 2, None),
]
LAX = {"generation": 2, "has_probe": False, "sends_token": True, "shape_proven": False, "lost_answer": False}


@example(PROOF, LAX)
@example(PROOF[::2], LAX)
@example(PROOF[:2], LAX | {"shape_proven": True})
@settings(max_examples=600, deadline=None)
@given(STORIES, FLAGS)
def test_a_grant_is_concluded_dead_exactly_when_all_four_conditions_hold(story, flags):
    first = (Kind.REFRESH, REVOKED_SAID, timedelta(), 2, None)
    known = case(*told([first, *story]), **flags)
    conclusion = conclude(known)
    assert is_proven_death(conclusion) == four_conditions_hold(known)
    assert (conclusion.finding is Finding.GRANT_DEAD) == is_proven_death(conclusion)


@settings(max_examples=300, deadline=None)
@given(STORIES, FLAGS, st.sampled_from(TOKEN_ANSWERS))
def test_every_conclusion_can_be_written_down_and_told(story, flags, said):
    known = case(*told([(Kind.REFRESH, said, timedelta(), 2, None), *story]), **flags)
    conclusion = conclude(known)
    assert conclusion.explanation
    assert conclusion.rests_on == tuple(range(1, len(known.evidence) + 1))
    assert conclusion.finding is Finding.LIVE or IncidentKind(conclusion.finding.value)
    assert conclusion.access_token is Verdict.OPEN
    assert conclusion.verdict is not Verdict.DEAD or conclusion.subject in {
        *(Subject.GRANT, Subject.CLIENT, Subject.REQUEST),
    }


PROBE_STORIES = st.lists(
    st.tuples(
        st.sampled_from([*PROBE_ANSWERS[:2], *PROBE_ANSWERS]),
        st.sampled_from([timedelta(), SECOND, PAUSE - SECOND, PAUSE]),
        st.sampled_from([1, 1, 2]),
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(PROBE_STORIES)
def test_an_access_token_is_concluded_dead_only_after_two_rejections_of_it_with_a_pause_between(story):
    at, looked = timedelta(), []
    for said, passed, generation in story:
        at += passed
        looked.append((said, probed(said.answer, after=at, generation=generation)))
    conclusion = conclude(case(refreshed(http(503)), *(item for _, item in looked), has_probe=True))
    if conclusion.access_token is Verdict.DEAD:
        newest = [(said, item) for said, item in looked if item.generation == 1]
        rejected = [item.observed_at for said, item in newest if said.says_token_dead and not said.only_in_words]
        assert len(rejected) >= 2
        assert rejected[-1] - rejected[0] >= PAUSE
        assert not newest[-1][0].alive


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Kind.REFRESH, Kind.CONTROL, Kind.PROBE]),
            st.sampled_from([said for said in (*TOKEN_ANSWERS, *PROBE_ANSWERS) if said.only_in_words]),
            st.sampled_from([timedelta(), PAUSE, DAY]),
        ),
        min_size=1,
        max_size=8,
    ),
    FLAGS,
)
def test_words_alone_never_lead_to_a_death_whoever_says_them_and_however_often(story, flags):
    at, heard = timedelta(), [refreshed(IN_WORDS, generation=2)]
    for kind, said, passed in story:
        at += passed
        make = {Kind.REFRESH: refreshed, Kind.CONTROL: controlled, Kind.PROBE: probed}[kind]
        heard.append(make(said.answer, after=at, generation=2))
    assert all(item.reading.rule not in DOCUMENTED for item in heard)
    conclusion = conclude(case(*heard, **flags))
    assert not is_proven_death(conclusion)
    assert conclusion.finding is not Finding.GRANT_DEAD
    assert conclusion.access_token is Verdict.OPEN


# -- what to look at next -----------------------------------------------------------------------------------------


def test_a_death_is_proven_by_the_shortest_way():
    start = case(refreshed(REVOKED), has_probe=True)
    provider = answering(probe=REJECTED, control=NO_SUCH_TOKEN, refresh=REVOKED)
    conclusion, known, steps, _ = investigate(start, provider)
    assert is_proven_death(conclusion)
    assert conclusion.access_token is Verdict.DEAD
    looks = [step for step in steps if step is not Step.WAIT]
    assert looks == [Step.PROBE, Step.CONTROL, Step.PROBE, Step.REFRESH]
    assert known.evidence[-1].observed_at - NOW >= PAUSE


def test_an_outage_is_not_asked_again_within_the_investigation():
    _, known, steps, now = investigate(case(refreshed(http(503))), answering())
    assert (steps, now) == ([], NOW)
    assert len(known.evidence) == 1


def test_a_lapse_during_an_outage_is_still_looked_at_twice():
    start = case(refreshed(http(503)), has_probe=True)
    conclusion, _, steps, _ = investigate(start, answering(probe=REJECTED))
    assert [step for step in steps if step is not Step.WAIT] == [Step.PROBE, Step.PROBE]
    assert conclusion.access_token is Verdict.DEAD
    assert conclusion.finding is Finding.PROVIDER_OUTAGE


def test_a_class_that_sends_no_token_gets_no_control():
    start = case(refreshed(REVOKED), sends_token=False)
    conclusion, _, steps, _ = investigate(start, answering(refresh=REVOKED))
    assert Step.CONTROL not in steps
    assert conclusion.missing == ("this class has no grant of its own",)


def test_time_running_out_ends_every_investigation_with_what_there_is():
    waiting = case(refreshed(REVOKED), controlled(NO_SUCH_TOKEN), give_up_at=NOW + MINUTE)
    assert next_step(waiting, NOW) is Step.WAIT
    assert isinstance(next_step(waiting, NOW + MINUTE), Conclusion)


def test_a_success_ends_the_investigation_at_once():
    assert isinstance(next_step(case(refreshed(REVOKED), refreshed(ISSUED), has_probe=True), NOW), Conclusion)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_every_investigation_ends_after_a_handful_of_looks(data):
    """Whatever is answered, and however often another process is busy with the same credential."""
    flags = data.draw(FLAGS)
    known = case(
        refreshed(data.draw(st.sampled_from(TOKEN_ANSWERS)).answer, generation=2),
        **flags,
        give_up_at=NOW + 10 * PAUSE,
    )
    now, asked, busy = NOW, [], 0
    for _ in range(100):
        step = next_step(known, now)
        if isinstance(step, Conclusion):
            break
        if step is Step.WAIT:
            now += PAUSE / 4
            continue
        if step is Step.REFRESH and data.draw(st.booleans()):
            now, busy = now + PAUSE / 4, busy + 1
            continue
        asked.append(step)
        pool = PROBE_ANSWERS if step is Step.PROBE else TOKEN_ANSWERS
        make = {Step.REFRESH: refreshed, Step.PROBE: probed, Step.CONTROL: controlled}[step]
        answer = data.draw(st.sampled_from(pool)).answer
        known = replace(known, evidence=(*known.evidence, make(answer, after=now - NOW, generation=2)))
        now += data.draw(st.sampled_from([timedelta(), SECOND, PAUSE]))
    else:
        raise AssertionError(f"never concluded: {asked}, busy {busy} times")
    assert asked.count(Step.CONTROL) <= (1 if flags["sends_token"] else 0)
    assert asked.count(Step.PROBE) <= (2 if flags["has_probe"] else 0)
    assert asked.count(Step.REFRESH) <= 1
    for kind in (Kind.PROBE, Kind.REFRESH):
        looked = [item.observed_at for item in known.evidence if item.kind is kind]
        assert all(later - earlier >= PAUSE for earlier, later in itertools.pairwise(looked))


def test_the_incident_at_every_credential_of_a_client_at_once_is_still_our_request_and_not_the_apps():
    """DESIGN's incident: one hard-coded grant type for all; 400 to everybody, whatever the token."""
    together = Siblings(failing=19, working=0, names=("crm_2", "crm_3"))
    story = [
        refreshed(refusal("unsupported_grant_type"), number=1),
        controlled(refusal("unsupported_grant_type"), number=2),
    ]
    found = conclude(replace(case(*story), siblings=together))
    assert (found.finding, found.owner) == (Finding.REQUEST_MALFORMED, Owner.CODE)
    assert "Our request is wrong" in found.explanation
    assert found.shared, "one alarm for all of them"


def test_grants_that_seem_to_die_all_at_once_are_not_called_dead():
    together = Siblings(failing=19, working=0, names=("crm_2", "crm_3"))
    story = [refreshed(refusal("invalid_grant"), number=1), refreshed(refusal("invalid_grant"), after=PAUSE, number=2)]
    found = conclude(replace(case(*story, shape_proven=True), siblings=together))
    assert (found.finding, found.owner, found.verdict) == (Finding.CLIENT_MISCONFIGURED, Owner.APP, Verdict.OPEN)
    assert found.shared
