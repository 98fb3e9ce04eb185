"""Connect a credential from a terminal: a person approves elsewhere, and the tokens go straight into the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_oauth_guard.domain.evidence import Observer
from airflow_oauth_guard.errors import ConnectionFieldError, NeedsAPersonError
from airflow_oauth_guard.grants.device_code import Invitation, Poll, connect
from airflow_oauth_guard.grants.flow import HttpRequest, Outcome
from airflow_oauth_guard.hooks.transport import utcnow
from airflow_oauth_guard.store.records import Credential

if TYPE_CHECKING:
    from airflow_oauth_guard.domain.answers import Answer
    from airflow_oauth_guard.hooks.base import OAuthGuardHook
    from airflow_oauth_guard.store.store import Store


async def connect_device(
    hook: OAuthGuardHook, store: Store, observer: Observer, invite: Callable[[Invitation], None]
) -> Credential:
    """Run the device flow and store what it brings as the credential's next generation.

    Args:
        invite: Shows a person what to do.

    Raises:
        ConnectionFieldError: If the provider is not known to offer the flow.
        NeedsAPersonError: If nobody approved, or the provider refused.
    """
    if not hook.settings.facts.device_authorization_url:
        raise ConnectionFieldError(
            hook.oauth_guard_conn_id,
            "provider",
            "names no provider whose preset has the endpoint `device_authorization`; connect it by putting tokens in the "
            "connection, or use `airflow oauth-guard import`.",
        )
    outcome = await _drive(hook, invite)
    if outcome.tokens is None:
        raise NeedsAPersonError(f"`{hook.oauth_guard_conn_id}` is not connected: {outcome.reading.explanation}.")
    issued = outcome.tokens
    expires_at = utcnow() + issued.expires_in if issued.expires_in else None
    enrollment = replace(
        hook.enrollment(expires_at), access_token=issued.access_token, refresh_token=issued.refresh_token or ""
    )
    return await asyncio.to_thread(store.credentials.import_tokens, enrollment, utcnow(), observer)


async def _drive(hook: OAuthGuardHook, invite: Callable[[Invitation], None]) -> Outcome:
    flow = connect(hook.grant, utcnow())
    answer: Answer | None = None
    gives_up_at = None
    try:
        step: HttpRequest | Invitation | Poll = next(flow)
        while True:
            if isinstance(step, Invitation):
                invite(step)
                gives_up_at = utcnow() + step.expires_in
                answer = None
            elif isinstance(step, Poll):
                if gives_up_at and utcnow() + step.after > gives_up_at:
                    raise NeedsAPersonError(
                        f"`{hook.oauth_guard_conn_id}` is not connected: nobody approved it in time."
                    )
                await asyncio.sleep(step.after.total_seconds())
                answer = await hook.send(step.request)
            else:
                answer = await hook.send(step)
            step = flow.send(answer)
    except StopIteration as done:
        outcome: Outcome = done.value
        return outcome
