"""The class check: how the catalog says this provider is to be asked, where that is not how the connection asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_oauth_guard.domain.evidence import Shape
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.flow import Grant
from airflow_oauth_guard.hooks.config import get_catalog
from airflow_oauth_guard.hooks.registry import hook_of_class
from airflow_oauth_guard.store.records import Tokens

if TYPE_CHECKING:
    from airflow_oauth_guard.hooks.base import OAuthGuardHook


@dataclass(frozen=True)
class Declared:
    """The grant as the catalog declares it, and in words how it differs from the connection's."""

    grant: Grant
    difference: str


def declared_form(hook: OAuthGuardHook, tokens: Tokens, now: datetime) -> Declared | None:
    """What the catalog declares for the provider that is named, or has this token URL; None if nobody knows it, or the
    connection does as it says.

    Of several classes the connection's own counts, else the first that its fields and stored tokens suffice for.
    """
    named = hook.named_preset
    found = (named, None) if named else get_catalog().by_token_url(hook.settings.token_url)
    if found is None:
        return None
    preset, params = found
    own = hook.grant_class.connection_class
    for name in [own] if own in preset.grants else preset.grants:
        try:
            grant = hook_of_class(name, hook.connection).grant_of(preset, params)
            shape = grant.request("-", now).shape
        except ConnectionFieldError:
            # The connection does not have what this class needs, so this cannot be what it was meant to be.
            continue
        if grant.sends and not getattr(tokens, grant.sends):
            continue
        difference = _difference(hook.grant.request("-", now).shape, shape)
        return Declared(grant, f"{preset.title} wants {difference}") if difference else None
    return None


CLIENT_PARAMETERS = frozenset({"client_id", "client_secret", "client_assertion", "client_assertion_type"})
"""What the client authentication puts there; it is named by itself."""


def _difference(ours: Shape, declared: Shape) -> str:
    named = {
        "grant_type": "grant_type",
        "method": "method",
        "endpoint": "address",
        "client_auth": "client authentication",
        "body_format": "body format",
    }
    said = [
        f"{label} `{getattr(declared, name)}` instead of `{getattr(ours, name)}`"
        for name, label in named.items()
        if getattr(declared, name) != getattr(ours, name)
    ]
    if declared.grant_type == ours.grant_type and (
        lacking := set(declared.parameters) - set(ours.parameters) - CLIENT_PARAMETERS
    ):
        said.append(f"the parameters {', '.join(f'`{name}`' for name in sorted(lacking))} as well")
    return ", ".join(said)
