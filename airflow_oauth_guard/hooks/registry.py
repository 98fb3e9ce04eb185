"""From a connection to its hook: "grant type by connection class", done once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks.base import OAuthGuardHook
from airflow_oauth_guard.metadata import connection_types

if TYPE_CHECKING:
    from airflow.sdk import Connection


CONN_TYPE_PREFIX = "oauth_guard_"


def hook_for(connection: Connection) -> OAuthGuardHook:
    """The hook of the class that the connection's type names.

    Raises:
        ConfigurationError: If its type is not one of ours.
    """
    known = connection_types()
    if connection.conn_type not in known:
        raise ConfigurationError(
            f"Connection `{connection.conn_id}` has type `{connection.conn_type}`, which is no OAuth Guard class; "
            f"choose one of {', '.join(sorted(known))}."
        )
    return hook_of_class(connection.conn_type.removeprefix(CONN_TYPE_PREFIX), connection)


def hook_of_class(connection_class: str, connection: Connection) -> OAuthGuardHook:
    """The hook of a class, whatever type the connection says it is."""
    entry = connection_types()[f"{CONN_TYPE_PREFIX}{connection_class}"]
    module, _, name = entry["hook-class-name"].rpartition(".")
    hook = getattr(import_module(module), name)(connection.conn_id, connection=connection)
    assert isinstance(hook, OAuthGuardHook)
    return hook


def get_hook(conn_id: str) -> OAuthGuardHook:
    """:func:`hook_for` by connection id, in a worker.

    Raises:
        ConfigurationError: If its type is not one of ours, or a field is missing or wrong.
    """
    hook = hook_for(BaseHook.get_connection(conn_id))
    hook.mask_secrets()
    return hook


async def aget_hook(conn_id: str) -> OAuthGuardHook:
    """:func:`hook_for` by connection id, in a trigger."""
    return hook_for(await BaseHook.aget_connection(conn_id))
