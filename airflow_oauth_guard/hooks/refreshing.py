"""One refresh of one credential, and what to do about those that a process did not live to see answered."""

from __future__ import annotations

import logging
from asyncio import sleep, to_thread
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from functools import partial

from airflow_oauth_guard.domain.answers import Answer, HttpAnswer, retry_after
from airflow_oauth_guard.domain.clock import words
from airflow_oauth_guard.domain.evidence import TRANSIENT, Evidence, Finding, Kind, Reading, Subject, Verdict
from airflow_oauth_guard.domain.reading import is_lost
from airflow_oauth_guard.domain.schedule import EXPIRED_BACKOFF, FIRST_BACKOFF, LONGEST_BACKOFF, next_attempt
from airflow_oauth_guard.domain.status import Status
from airflow_oauth_guard.errors import LeaseLostError
from airflow_oauth_guard.grants.flow import Flow, Grant, HttpRequest, IssuedTokens, Outcome
from airflow_oauth_guard.grants.probe import probe_request
from airflow_oauth_guard.hooks import second_place
from airflow_oauth_guard.hooks.renewing import NEVER, Renewal, patience, to_its_end
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.journal import Ended, Intent
from airflow_oauth_guard.store.records import Credential, Lease

log = logging.getLogger(__name__)

REPLAY_PAUSE = timedelta(seconds=1)


class Refreshed(str, Enum):
    """How asking for a new access token ended."""

    RENEWED = "renewed"
    FRESH = "fresh"
    """Nothing was sent: the token has life enough, or another process has just renewed it."""
    BUSY = "busy"
    """Nothing was sent: another process has been refreshing it for as long as we were ready to wait."""
    HELD = "held"
    """Nothing was sent: it is not yet time to ask again, or not safe."""
    FAILED = "failed"
    """A question was raised; the status is as it was."""


@dataclass(frozen=True)
class RefreshResult:
    conn_id: str
    outcome: Refreshed
    explanation: str
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Exchange:
    """One request that was sent, and what came back."""

    intent_id: int
    request: HttpRequest
    answer: Answer
    outcome: Outcome


@dataclass(frozen=True)
class Refresh(Renewal):
    """Asks for a new access token, if it is time to, under a lease. Touches no status unless it succeeds."""

    investigation_id: int | None = None
    """For a repeat inside an investigation, which is due by definition."""
    declared: Grant | None = None
    """For the class check: the grant as the catalog declares it. What it brings is kept like any other; what it does not bring
    is no failure of the connection's own form."""
    rejected: int | None = None
    """The generation whose access token was refused to a consumer: it is renewed, whatever life the clock gives it."""

    @property
    def grant(self) -> Grant:
        return self.declared or self.hook.grant

    async def run(self) -> RefreshResult:
        credential = await to_thread(self.store.credentials.enroll, self.hook.enrollment(), utcnow(), self.observer)
        lease = await self._lease(credential)
        if isinstance(lease, RefreshResult):
            return lease
        try:
            return await self._under(lease, credential)
        finally:
            await self._give_back(lease)

    # -- the lease ----------------------------------------------------------------------------------------------

    async def _lease(self, credential: Credential) -> Lease | RefreshResult:
        """Take the lease, or wait for whoever has it: the token they get is the one we want."""
        taken: Lease | RefreshResult | None = await self._patiently(partial(self._try_lease, credential))
        return taken or self._result(
            Refreshed.BUSY, f"another process is still refreshing it after {words(patience())}"
        )

    async def _try_lease(self, credential: Credential) -> Lease | RefreshResult | None:
        newest = await to_thread(self.store.credentials.get, credential.conn_id)
        if newest.generation != credential.generation:
            return self._result(Refreshed.FRESH, f"another process has renewed it: generation {newest.generation}")
        return await self._lease_if_free(newest)

    # -- under the lease ----------------------------------------------------------------------------------------

    async def _under(self, lease: Lease, before: Credential) -> RefreshResult:
        if taken_in := await self._take_in(lease):
            return taken_in
        if lease.tokens.generation != before.generation:
            return self._result(
                Refreshed.FRESH, f"another process has renewed it: generation {lease.tokens.generation}"
            )
        if not_now := await self._not_now(lease):
            return not_now
        sent = _sent(lease)
        if sent and self.grant.rotates and not self._in_grace(sent[0].opened_at):
            if sent[-1].outcome is None:
                return await self._unanswered(lease, sent[-1])
            if held := await self._protect(lease):
                return held
        token = self._token_to_send(lease)
        if self.grant.sends and not token:
            return await self._nothing_to_send(lease)
        return await self._ask(lease, token)

    async def _not_now(self, lease: Lease) -> RefreshResult | None:
        credential, now = lease.credential, utcnow()
        if self.investigation_id is not None:
            question = self.investigation_id
            row = await to_thread(self.store.investigations.row, question)
            return self._result(Refreshed.FRESH, "its question is closed") if row["closed_at"] else None
        if credential.waits(now):
            assert credential.attempt_after is not None
            wait = words(credential.attempt_after - now)
            return self._result(Refreshed.HELD, f"it failed {credential.failures} times; next try in {wait}")
        if not credential.is_due(now) and credential.generation != self.rejected:
            return self._result(Refreshed.FRESH, f"{words(credential.life.remaining(now))} of life left")
        return None

    async def _ask(self, lease: Lease, token: str) -> RefreshResult:
        """Send the token; within the provider's grace once more, if the answer is lost."""
        sent_before = _sent(lease)
        first_sent_at = sent_before[0].opened_at if sent_before else utcnow()
        grace_ends = first_sent_at + self.grant.settings.rotation_grace
        is_replay = self.grant.rotates and sent_before and self._in_grace(first_sent_at)
        sent = await self._exchange(lease, token, grace_ends if is_replay else None)
        if sent is None:
            raise LeaseLostError(
                f"Credential `{lease.credential.conn_id}`: so much time went by before the refresh was sent that it was not "
                "safe any more. Nothing was sent; the next run goes on."
            )
        if self._is_lost(sent) and self._in_grace(first_sent_at):
            seen = self._seen(lease, sent)
            await to_thread(self.store.credentials.record, lease.credential, seen, utcnow())
            await sleep(REPLAY_PAUSE.total_seconds())
            sent = await self._exchange(lease, token, grace_ends) or sent
        return await self._settle(lease, sent)

    async def _exchange(self, lease: Lease, token: str, not_after: datetime | None) -> Exchange | None:
        """Journal, call, keep; None, and nothing sent, if it was too late to call when the intent was written.

        Once begun this goes on to its end, whoever cancels us: what the provider answers must be kept.
        """
        return await to_its_end(self._journal_call_keep(lease, token, not_after))

    async def _journal_call_keep(self, lease: Lease, token: str, not_after: datetime | None) -> Exchange | None:
        now = utcnow()
        flow = self.grant.refresh(token, now)
        request = next(flow)
        spends = self.grant.rotates
        intent_id = await to_thread(self.store.credentials.open_intent, lease, token, now, spends=spends)
        answer = await self._call_and_keep(lease, intent_id, request, token=token, began=now, until=not_after or NEVER)
        return Exchange(intent_id, request, answer, _finished(flow, answer)) if answer else None

    async def _settle(self, lease: Lease, sent: Exchange) -> RefreshResult:
        seen, issued = self._seen(lease, sent), sent.outcome.tokens
        if issued is None:
            ended = Ended.LOST if self._is_lost(sent) else Ended.REFUSED
            return await self._failed(lease, sent.intent_id, seen, ended, retry_after(sent.answer))
        # A token that only the declared form brought leaves the incident about the connection's own form open.
        return await self._renewed(lease, sent, seen, issued, resolves=self.declared is None)

    async def _renewed(
        self, lease: Lease, sent: Exchange, seen: Evidence, issued: IssuedTokens, *, resolves: bool = True
    ) -> RefreshResult:
        stored = await to_thread(
            self.store.credentials.renew, lease, sent.intent_id, issued, seen, utcnow(), resolves=resolves
        )
        if stored is None:
            return self._result(Refreshed.FRESH, "another process has stored newer tokens meanwhile")
        renewed, recorded = stored
        left = words(renewed.life.remaining(utcnow()))
        baseline = await self._baseline(renewed, sent.request)
        return self._result(Refreshed.RENEWED, f"generation {renewed.generation}, {left} of life{baseline}", recorded)

    async def _baseline(self, renewed: Credential, sent: HttpRequest) -> str:
        """Once a week, see that the probe accepts a token fresh from the provider: only then does its "no" mean something."""
        if not self._has_probe or not await to_thread(self._baseline_is_due, renewed, sent):
            return ""
        try:
            seen = await self.hook.probe(self.store, self.observer)
        except Exception:
            # The refresh has succeeded, whatever becomes of this; the next one tries again.
            log.warning("The probe of `%s` could not be tried out", renewed.conn_id, exc_info=True)
            return ""
        if seen.finding in (Finding.LIVE, *TRANSIENT):
            return ""
        log.warning("The probe of `%s` refuses a token fresh from the provider: %s", renewed.conn_id, seen.sentence())
        return f"; its probe refuses the fresh token ({seen.sentence()}), so it can tell nothing: check `probe_url`"

    def _baseline_is_due(self, renewed: Credential, sent: HttpRequest) -> bool:
        shape = probe_request(self.hook.settings, "-").shape
        return shape != sent.shape and self.store.clients.baseline_is_due(renewed, shape.id, utcnow())

    def _is_lost(self, sent: Exchange) -> bool:
        return self.grant.rotates and is_lost(sent.answer, sent.outcome.reading, self.grant.dialect)

    async def _failed(
        self, lease: Lease, intent_id: int | None, seen: Evidence, ended: Ended, asked_to_wait: timedelta | None = None
    ) -> RefreshResult:
        now = utcnow()
        repeat = self.investigation_id is not None
        recorded = await to_thread(
            self.store.credentials.fail,
            lease,
            intent_id,
            seen,
            attempt_after=None if repeat else _ask_again_at(lease.credential, asked_to_wait, now),
            outcome=ended,
            now=now,
        )
        return self._result(Refreshed.FAILED, recorded.sentence(), recorded)

    async def _nothing_to_send(self, lease: Lease) -> RefreshResult:
        missing = self.grant.sends
        reading = Reading(
            Subject.REQUEST,
            Finding.REQUEST_MALFORMED,
            "no_token_to_send",
            f"nothing was sent: there is no {missing} in the store; put one in the connection's field "
            f"`{missing}`, or use `airflow oauth-guard import`",
        )
        return await self._failed(lease, None, self._without_answer(lease, reading), Ended.REFUSED)

    # -- answers that were kept, and answers that were lost -----------------------------------------------------

    async def _take_in(self, lease: Lease) -> RefreshResult | None:
        """Earlier processes ended between an answer and its parsing: nothing is lost, and nothing is sent again.

        One that nobody could read then is read again: this release, or the connection's settings, may know more.
        """
        for intent in reversed(_left_over(lease)):
            answer = await self._answer_to(intent, lease)
            if answer is None:
                continue
            if self._is_exchange(intent):
                if taken_in := await self._take_in_exchange(lease, intent, answer):
                    return taken_in
                continue
            outcome = self.grant.read(answer)
            if outcome.tokens is None and intent.outcome is Ended.LOST:
                continue
            request = self.grant.request(self._token_to_send(lease) or "-", utcnow())
            # Before it is settled: afterwards nobody would look for what is left there.
            await self._clear_second_place(lease, intent)
            return await self._settle(lease, Exchange(intent.id, request, answer, outcome))
        return None

    def _is_exchange(self, intent: Intent) -> bool:
        return bool(self.hook.grant.sends) and not intent.sent_token

    async def _take_in_exchange(self, lease: Lease, intent: Intent, answer: HttpAnswer) -> RefreshResult | None:
        """A person had approved, and the process that exchanged it ended before it stored what that brought.

        A refusal was about their approval, so it says nothing about any token of ours.
        """
        grant = self.hook.grant
        outcome = grant.read(answer)
        await self._clear_second_place(lease, intent)
        if outcome.tokens is None:
            await to_thread(self.store.credentials.withdraw_intent, intent.id, utcnow())
            return None
        request = grant.request(self._token_to_send(lease) or "-", utcnow())
        seen = self.hook.seen(
            Kind.CONNECT, request, answer, outcome.reading, lease.tokens, self.observer, self.investigation_id
        )
        # Nobody knows any more in which form it was asked for, and a refresh's own would be vouched for by that.
        sent = Exchange(intent.id, request, answer, outcome)
        return await self._renewed(lease, sent, replace(seen, shape=None), outcome.tokens)

    async def _answer_to(self, intent: Intent, lease: Lease) -> HttpAnswer | None:
        """The answer from the store; of the newest refresh also from the second place, from where it moves."""
        if intent.answer is not None:
            return self.store.credentials.open_answer(intent.answer)
        if intent is not _left_over(lease)[-1]:
            return None
        sealed = await second_place.look(self._variable(lease, intent))
        if sealed is None:
            return None
        await to_thread(self.store.credentials.keep_answer, intent.id, sealed)
        return self.store.credentials.open_answer(sealed)

    async def _clear_second_place(self, lease: Lease, intent: Intent) -> None:
        variable = self._variable(lease, intent)
        try:
            await second_place.clear(variable)
        except Exception:
            # What it holds is in the store; a Variable that is left over harms nobody, and its refresh succeeded.
            log.warning("Variable `%s` has served and could not be deleted; delete it", variable, exc_info=True)

    def _variable(self, lease: Lease, intent: Intent) -> str:
        return second_place.name(lease.credential.conn_id, self._token_to_send(lease), intent.id)

    async def _unanswered(self, lease: Lease, intent: Intent) -> RefreshResult:
        """A process died between its intent and the answer: a question, and it is not for us to guess."""
        reading = Reading(
            Subject.GRANT,
            Finding.AMBIGUOUS,
            "answer_lost",
            f"the process that began a refresh at {intent.opened_at:%Y-%m-%d %H:%M:%S}Z ended before it kept an answer",
        )
        return await self._failed(lease, intent.id, self._without_answer(lease, reading), Ended.LOST)

    def _in_grace(self, first_sent_at: datetime) -> bool:
        """Whether the provider promises to accept the token once more, although it may have replaced it."""
        return first_sent_at <= utcnow() < first_sent_at + self.grant.settings.rotation_grace

    async def _protect(self, lease: Lease) -> RefreshResult | None:
        """Hold back while there may be a live access token, which a provider would revoke if a spent one came again."""
        why = await self._may_live(lease)
        if not why:
            return None
        await to_thread(self.store.credentials.ask_about_loss, lease, utcnow())
        return self._result(
            Refreshed.HELD,
            "an earlier refresh may have spent the refresh token; sending it again could make the provider revoke the "
            f"access token, which {why}",
        )

    async def _may_live(self, lease: Lease) -> str:
        """Why the access token may be alive; empty where it is over."""
        life, now = lease.credential.life, utcnow()
        if not lease.tokens.access_token:
            return ""
        if life.expires_at is not None and now < life.expires_at:
            return f"lives for {words(life.expires_at - now)}"
        seen = await self.hook.probe(self.store, self.observer, self.investigation_id) if self._has_probe else None
        if seen is not None and seen.verdict is Verdict.LIVE:
            return "lives beyond its predicted end" if life.expires_at else "lives"
        if life.expires_at is None and (seen is None or seen.finding is not Finding.ACCESS_TOKEN_DEAD):
            # A clock that nobody set cannot run out.
            return "may live: its end was never told, and no probe shows it"
        return ""

    @property
    def _has_probe(self) -> bool:
        return bool(self.hook.settings.probe_url)

    def _token_to_send(self, lease: Lease) -> str:
        return str(getattr(lease.tokens, self.grant.sends)) if self.grant.sends else ""

    # -- small parts --------------------------------------------------------------------------------------------

    def _result(self, outcome: Refreshed, explanation: str, evidence: Evidence | None = None) -> RefreshResult:
        return RefreshResult(self.hook.oauth_guard_conn_id, outcome, explanation, evidence)

    def _seen(self, lease: Lease, sent: Exchange) -> Evidence:
        failed_check = self.declared is not None and sent.outcome.tokens is None
        return self.hook.seen(
            *(Kind.CLASS_CHECK if failed_check else Kind.REFRESH, sent.request, sent.answer, sent.outcome.reading),
            *(lease.tokens, self.observer, self.investigation_id),
        )

    def _without_answer(self, lease: Lease, reading: Reading) -> Evidence:
        return Evidence(
            kind=Kind.REFRESH,
            generation=lease.tokens.generation,
            observed_at=utcnow(),
            reading=reading,
            verdict=Verdict.OPEN,
            observer=self.observer,
            investigation_id=self.investigation_id,
        )


def _left_over(lease: Lease) -> list[Intent]:
    """Whatever may have an answer somewhere, oldest first."""
    return sorted((*lease.unsettled, *lease.unanswered), key=lambda intent: intent.id)


def _sent(lease: Lease) -> list[Intent]:
    """Those of the unsettled intents that may have spent the token."""
    return [intent for intent in lease.unsettled if intent.sent_token]


def _finished(flow: Flow, answer: Answer) -> Outcome:
    """Send a flow its answer. Every class needs one exchange so far; a flow that asks for more is a mistake here."""
    try:
        flow.send(answer)
    except StopIteration as done:
        outcome: Outcome = done.value
        return outcome
    raise NotImplementedError("a refresh of more than one exchange")


def _ask_again_at(credential: Credential, asked_to_wait: timedelta | None, now: datetime) -> datetime:
    """When to ask again, but once more before the last life of a living token is used up."""
    longest = EXPIRED_BACKOFF if credential.status is Status.EXPIRED else LONGEST_BACKOFF
    planned = next_attempt(now, credential.failures + 1, asked_to_wait, longest)
    alarm_at = credential.life.alarm_at
    earliest = now + max(FIRST_BACKOFF, asked_to_wait or timedelta())
    return min(planned, alarm_at) if alarm_at is not None and earliest < alarm_at else planned
