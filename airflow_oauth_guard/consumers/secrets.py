"""A secrets backend that puts fresh tokens into ordinary connections, for hooks that know nothing of us.

Airflow imports this while it reads its own configuration, so whatever needs Airflow is imported where it is used.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from itertools import dropwhile, islice
from typing import TYPE_CHECKING, Any

from airflow.secrets import BaseSecretsBackend

from airflow_oauth_guard.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger(__name__)


class GuardedSecretsBackend(BaseSecretsBackend):
    """Looks a connection up wherever Airflow would, and replaces each ``{oauth-guard:<connection id>}`` in it by that
    credential's token, refreshed first where it is due.

    Args:
        backend: The secrets backend to look into first, by its dotted path: Airflow takes only one of your choice.
        backend_kwargs: Its arguments.

    .. versionadded:: 0.6.0
    """

    def __init__(self, backend: str = "", backend_kwargs: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if backend_kwargs and not backend:
            raise ConfigurationError("The secrets backend has `backend_kwargs` and no `backend`; name it.")
        # Imported now, so that a misspelt one stops Airflow instead of hiding its connections.
        self._inner_class = _imported(backend) if backend else None
        self._inner_kwargs = dict(backend_kwargs or {})

    # -- connections --------------------------------------------------------------------------------------------

    def get_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        """The connection with its tokens; None if nobody has it, or in Airflow's servers, where nobody sends it.

        Raises:
            ConnectionNotServedError: If a token cannot be had. Nothing else is looked at then.
        """
        if _is_server():
            return self._of_the_inner(conn_id, team_name)
        if _is_triggerer():
            return _awaited_in_a_triggerer(self.aget_connection, conn_id, team_name)
        from airflow_oauth_guard.consumers.refusals import refusal

        try:
            connection = self._found(conn_id, team_name)
            return self._served(connection, team_name) if connection else None
        except Exception as error:
            raise refusal(conn_id, error) from error

    async def aget_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        """:meth:`get_connection` in an event loop, such as a trigger's."""
        from airflow_oauth_guard.consumers.refusals import refusal

        try:
            connection = await self._afound(conn_id, team_name)
            return await self._aserved(connection, team_name) if connection else None
        except Exception as error:
            raise refusal(conn_id, error) from error

    def _served(self, connection: Connection, team_name: str | None) -> Connection:
        from airflow_oauth_guard.consumers.placeholders import filled
        from airflow_oauth_guard.hooks.registry import hook_for

        tokens = {
            name: hook_for(_there(self._found(name, team_name), name)).get_token() for name in _asked_for(connection)
        }
        return filled(connection, tokens) if tokens else connection

    async def _aserved(self, connection: Connection, team_name: str | None) -> Connection:
        from airflow_oauth_guard.consumers.placeholders import filled
        from airflow_oauth_guard.hooks.registry import hook_for

        tokens = {
            name: await hook_for(_there(await self._afound(name, team_name), name)).aget_token()
            for name in _asked_for(connection)
        }
        await _mask(tokens)
        return filled(connection, tokens) if tokens else connection

    # -- the other backends -------------------------------------------------------------------------------------

    @cached_property
    def _inner(self) -> Any:
        if self._inner_class is None:
            return None
        inner = self._inner_class(**self._inner_kwargs)
        if connection_class := getattr(self, "_connection_class", None):  # since Airflow 3.2
            inner._set_connection_class(connection_class)  # noqa: SLF001
        return inner

    def _others(self) -> Iterator[Any]:
        """Whom to ask, in this order: the inner one, and everybody who comes after us in Airflow's own list."""
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

        if self._inner is not None:
            yield self._inner
        whole = ensure_secrets_backend_loaded()
        yield from islice(dropwhile(lambda backend: not isinstance(backend, GuardedSecretsBackend), whole), 1, None)

    def _found(self, conn_id: str, team_name: str | None) -> Connection | None:
        """The connection as it is written down."""
        for backend in self._others():
            try:
                connection: Connection | None = _ask(backend.get_connection, team_name, conn_id=conn_id)
                if connection:
                    return connection
            except Exception as error:  # noqa: BLE001 - any backend, any failure; what becomes of it stands there
                _note_failure(backend, conn_id, error)
        return None

    async def _afound(self, conn_id: str, team_name: str | None) -> Connection | None:
        for backend in self._others():
            try:
                connection: Connection | None = await _aask(backend, team_name, conn_id)
                if connection:
                    return connection
            except Exception as error:  # noqa: BLE001 - any backend, any failure; what becomes of it stands there
                _note_failure(backend, conn_id, error)
        return None

    def _of_the_inner(self, conn_id: str, team_name: str | None) -> Any:
        return None if self._inner is None else _ask(self._inner.get_connection, team_name, conn_id=conn_id)

    # -- what is not ours ---------------------------------------------------------------------------------------

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        """What the inner backend says."""
        return None if self._inner is None else _ask(self._inner.get_variable, team_name, key=key)

    def get_config(self, key: str) -> str | None:
        """What the inner backend says."""
        return None if self._inner is None else self._inner.get_config(key)


def _asked_for(connection: Connection) -> frozenset[str]:
    """The credentials whose tokens go into it. None into what a token itself is had with: asking would never end."""
    from airflow_oauth_guard.consumers.placeholders import named_in
    from airflow_oauth_guard.hooks.config import option
    from airflow_oauth_guard.metadata import connection_types

    if connection.conn_type in connection_types() or connection.conn_id == option("store_conn_id"):
        return frozenset()
    return named_in(connection)


def _there(connection: Connection | None, name: str) -> Connection:
    if connection is None:
        raise ConfigurationError(
            f"it asks for the token of `{name}`, and there is no connection of that name (or it could not be looked up; the "
            "log says so). Write the id of an OAuth Guard connection."
        )
    return connection


def _ask(method: Callable[..., Any], team_name: str | None, **named: str) -> Any:
    """Call a backend, which knows of teams or is older than they are (Airflow 3.2)."""
    if team_name and "team_name" in inspect.signature(method).parameters:
        return method(team_name=team_name, **named)
    return method(**named)


async def _aask(backend: Any, team_name: str | None, conn_id: str) -> Any:
    from asgiref.sync import sync_to_async

    if hasattr(backend, "aget_connection"):
        return await _ask(backend.aget_connection, team_name, conn_id=conn_id)
    # As Airflow does it, in the thread that it shares: other threads of a triggerer may not talk to its supervisor.
    return await sync_to_async(_ask)(backend.get_connection, team_name, conn_id=conn_id)


def _note_failure(backend: Any, conn_id: str, error: Exception) -> None:
    """As Airflow does: who cannot answer has no answer, and the next one is asked; but not where access is denied.

    Its text is not logged, since it may hold what the backend logs in with.
    """
    from airflow_oauth_guard.consumers.refusals import is_denied

    if is_denied(error):
        raise error
    log.warning(
        "%s could not look up connection `%s` (%s); the next backend is asked",
        *(type(backend).__name__, conn_id, type(error).__name__),
    )


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


# -- where we are -------------------------------------------------------------------------------------------------------


def _supervisor() -> Any:
    """How this process talks to its supervisor; None in one that runs nobody's code."""
    return getattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS", None)


def _is_server() -> bool:
    """Whether this is the API server, scheduler or the like. They hand a connection on to whoever asks, as it is."""
    return _supervisor() is None and os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server"


def _is_triggerer() -> bool:
    comms = getattr(sys.modules.get("airflow.jobs.triggerer_job_runner"), "TriggerCommsDecoder", None)
    return comms is not None and isinstance(_supervisor(), comms)


def _awaited_in_a_triggerer(look_up: Callable[..., Any], *args: Any) -> Any:
    """A look-up that is not asynchronous, in a process where only one event loop may talk to the supervisor.

    A hook may do that in the loop itself, where Airflow lends it greenback, or in a thread that the loop waits for.
    """
    import greenback
    from asgiref.sync import async_to_sync

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return async_to_sync(look_up)(*args)
    return greenback.await_(look_up(*args))


async def _mask(tokens: Mapping[str, str]) -> None:
    """Have Airflow mask the tokens in the logs of a trigger.

    Airflow itself masks an extra as one text, which no log line ever holds.
    """
    from airflow.sdk import log as airflow_log

    for token in tokens.values():
        if hasattr(airflow_log, "amask_secret"):  # since Airflow 3.3
            await airflow_log.amask_secret(token)
        elif _is_triggerer():
            await _tell_the_triggerers_supervisor(token)
        else:
            airflow_log.mask_secret(token)


async def _tell_the_triggerers_supervisor(token: str) -> None:
    """What ``amask_secret`` does, before there was one. ``mask_secret`` cannot: it is refused in an event loop."""
    from airflow.sdk.execution_time.comms import MaskSecret

    with suppress(Exception):  # as Airflow: a secret that cannot be masked is no reason to go without it
        await _supervisor().asend(MaskSecret(value=token))
