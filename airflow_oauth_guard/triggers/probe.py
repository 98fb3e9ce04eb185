"""The investigation, awaited: pauses cost no worker slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, TypedDict

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.domain.investigation import Conclusion
from airflow_oauth_guard.hooks.config import aget_store
from airflow_oauth_guard.hooks.investigation import Patience, look
from airflow_oauth_guard.hooks.registry import aget_hook


class ConcludedPayload(TypedDict):
    """The one way a ProbeTrigger ends; the evidence is in the store."""

    investigation: int
    finding: str


class ProbeTrigger(BaseTrigger):
    """Look until an investigation can be concluded. Carries ids and durations, never a secret."""

    def __init__(
        self, *, investigation: int, pause_seconds: float, give_up_seconds: float, observer: dict[str, Any]
    ) -> None:
        super().__init__()
        self.investigation = investigation
        self.pause_seconds = pause_seconds
        self.give_up_seconds = give_up_seconds
        self.observer = observer

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_oauth_guard.triggers.probe.ProbeTrigger",
            {
                "investigation": self.investigation,
                "pause_seconds": self.pause_seconds,
                "give_up_seconds": self.give_up_seconds,
                "observer": self.observer,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        store = await aget_store()
        opened = await asyncio.to_thread(store.investigation, self.investigation)
        hook = await aget_hook(opened.credential.conn_id)
        patience = Patience(timedelta(seconds=self.pause_seconds), timedelta(seconds=self.give_up_seconds))
        while True:
            seen = await look(store, hook, self.investigation, patience, Observer(**self.observer))
            if isinstance(seen, Conclusion):
                yield TriggerEvent(ConcludedPayload(investigation=self.investigation, finding=seen.finding.value))
                return
            await asyncio.sleep(seen.total_seconds())
