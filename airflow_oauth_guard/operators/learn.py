"""Learn when each source usually speaks, a share of them at every pass."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator

from airflow_oauth_guard.detector.lessons import lesson, next_lesson
from airflow_oauth_guard.errors import OAuthGuardError
from airflow_oauth_guard.hooks.config import get_store
from airflow_oauth_guard.hooks.transport import utcnow

AT_ONCE = 5_000
LONGEST = timedelta(minutes=5)
"""A lesson takes milliseconds; what does not fit into a pass is learned in the next."""


class LearnOperator(BaseOperator):
    """Renew the learned windows whose day is over.

    Each source has its lesson once a day at a time of its own, so that 100,000 of them are no nightly peak.

    Raises:
        OAuthGuardError: If the history of some sources could not be learned from; the others were.
    """

    def execute(self, context: Any) -> int:
        store, now, started = get_store(), utcnow(), time.monotonic()
        failed: dict[str, Exception] = {}
        learned = 0
        for watched in store.sources.to_learn(now, AT_ONCE):
            try:
                lesson(store, watched, now)
                learned += 1
            except Exception as error:
                # One history that cannot be learned from must not keep the others from theirs; it turns the task red.
                self.log.exception("`%s` could not be learned", watched.source.name)
                failed[watched.source.name] = error
                store.sources.learned(watched.source.name, watched.habit, now, next_lesson(watched.source.name, now))
            if time.monotonic() - started > LONGEST.total_seconds():
                self.log.warning("The lessons take long; the rest is learned in the next pass.")
                break
        self.log.info("%d sources learned in %.1f s", learned, time.monotonic() - started)
        if failed:
            raise OAuthGuardError(f"Not learned: {'; '.join(f'`{name}`: {error}' for name, error in failed.items())}")
        return learned
