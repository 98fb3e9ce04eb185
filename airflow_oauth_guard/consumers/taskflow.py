"""For TaskFlow: a function is handed a session that bears a guarded credential's token, and says how much it moved."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_oauth_guard.domain.sources import Source
from airflow_oauth_guard.errors import ConfigurationError, CredentialUnusableError
from airflow_oauth_guard.operators.heartbeat import heartbeat, job_of, running, skip
from airflow_oauth_guard.operators.require_usable import require_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_oauth_guard.hooks.placement import Placement
    from airflow_oauth_guard.hooks.using import Use

Function = Callable[..., Any]

PARAMETER = "session"
"""The parameter that is handed in."""


def guarded(
    conn_id: str,
    *,
    source: str | Source | None = None,
    rows: Callable[[Any], int | None] | None = None,
    skip_when_unusable: bool = False,
    placement: Placement | None = None,
) -> Callable[[Function], Function]:
    """Hand in a session that bears the credential's token, and announce how many rows the function returned.

    ::

        @task
        @guarded("crm_prod", source="crm_contacts")
        def load(session) -> int: ...

    An ``async def`` is handed an ``httpx.AsyncClient``. Either is closed when the function is done. A function whose credential
    is unusable does not begin.

    Args:
        conn_id: The guarded connection.
        source: The name of a source, or a :class:`Source`, whose heartbeat is sent when the function returns. A name that nobody
            declared is watched from then on, with a learned window and this credential as what feeds it.
        rows: Counts what the function returned, e.g. ``len``. By default that is a number itself, or None where nobody knows.
        skip_when_unusable: Skip the task instead of failing it if the credential is unusable before it begins. A heartbeat of
            the source says so, and is no delivery. What fails later fails: half a load is no skip.
        placement: Where the token goes; by default where the provider's preset says, or in a bearer header.

    Raises:
        ConfigurationError: At once, if the function takes no ``session``, or nobody would hear of a skip.
    """
    where = f'@guarded("{conn_id}")'
    require_source(source, where, skip_when_unusable=skip_when_unusable)
    if rows is not None and source is None:
        raise ConfigurationError(
            f"{where} counts rows and tells them to nobody: name the `source`, or leave `rows` out."
        )

    def decorate(function: Function) -> Function:
        hand_in = _handing_in(function, where)

        @contextmanager
        def begin() -> Iterator[Use]:
            """For the first look at the credential; what fails within is not the function's doing."""
            # Not sooner: a DAG file that is parsed needs nothing of it.
            from airflow_oauth_guard.hooks.using import Use

            try:
                yield Use(conn_id)
            except CredentialUnusableError as error:
                if source is None or not skip_when_unusable:
                    raise
                skip(source, error, context=running(), job=job_of(function), credential=conn_id)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            from airflow_oauth_guard.hooks.session import GuardedSession

            with begin() as use:
                use.token()
            with GuardedSession(conn_id, placement=placement, use=use) as session:
                return hand_in(session, args, kwargs)

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            import httpx

            from airflow_oauth_guard.consumers.httpx_auth import GuardedHttpxAuth

            with begin() as use:
                await use.atoken()
            async with httpx.AsyncClient(auth=GuardedHttpxAuth(conn_id, placement=placement, use=use)) as client:
                return await hand_in(client, args, kwargs)

        opened = _without_parameter(awaited if inspect.iscoroutinefunction(function) else called, function)
        return heartbeat(source, rows=rows, credential=conn_id)(opened) if source is not None else opened

    return decorate


def _handing_in(function: Function, where: str) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]:
    """How the function is called with a session in its place."""
    if not inspect.isroutine(function):
        raise ConfigurationError(
            f"{where} is given a {type(function).__name__}; write it directly above the function, under @task."
        )
    name = f"{where}: `{function.__qualname__}`"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{name} is a generator, which outlives its session; return a number of rows instead.")
    parameters = inspect.signature(function).parameters
    given = parameters.get(PARAMETER)
    if given is None or given.kind in (given.VAR_POSITIONAL, given.VAR_KEYWORD, given.POSITIONAL_ONLY):
        raise ConfigurationError(
            f"{name} has no parameter `{PARAMETER}` that can be named; write `def {function.__name__}({PARAMETER}, ...)`."
        )
    place = list(parameters).index(PARAMETER)

    def call(session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if given.kind is given.KEYWORD_ONLY or len(args) < place:
            return function(*args, **{PARAMETER: session}, **kwargs)
        return function(*args[:place], session, *args[place:], **kwargs)

    return call


def _without_parameter(decorated: Any, function: Function) -> Function:
    """@task looks at the signature to see what a DAG's author has to give."""
    signature = inspect.signature(function)
    others = [parameter for name, parameter in signature.parameters.items() if name != PARAMETER]
    decorated.__signature__ = signature.replace(parameters=others)
    decorated.__annotations__ = {name: of for name, of in function.__annotations__.items() if name != PARAMETER}
    named: Function = decorated
    return named
