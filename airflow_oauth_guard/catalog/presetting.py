"""Put a provider's facts under a connection's fields: what the connection says comes first, then the preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_oauth_guard.catalog.preset import AuthorizationFacts, GrantFacts, Preset
from airflow_oauth_guard.errors import ConnectionFieldError
from airflow_oauth_guard.grants.settings import PLACE, ProviderFacts, filled

PARAMS = "provider_params"


def with_preset(
    conn_id: str,
    connection_class: str,
    fields: Mapping[str, Any],
    preset: Preset,
    *,
    known: frozenset[str],
    preset_first: bool = False,
) -> tuple[dict[str, Any], ProviderFacts]:
    """The fields a connection has once its provider's preset fills the gaps, and the facts no field holds.

    Args:
        known: The fields this class has; a preset fills no others.
        preset_first: Let the preset's facts replace what the connection says; for the class check.

    Raises:
        ConnectionFieldError: If the provider has no such class, or a param is missing or unknown.
    """
    if connection_class not in preset.grants:
        raise ConnectionFieldError(
            conn_id,
            "provider",
            f"is `{preset.name}`, which issues no tokens to the class `{connection_class}`; change the connection's type to "
            f"{' or '.join(f'`oauth_guard_{name}`' for name in preset.grants)}.",
        )
    facts = preset.grants[connection_class]
    needed = {name for text in _texts(facts, preset) for name in PLACE.findall(text)}
    values = _params(conn_id, preset, fields.get(PARAMS), needed)
    defaults = {
        name: value
        for name, value in _defaults(facts, preset, values).items()
        if name in known and value not in ("", None)
    }
    given = {name: value for name, value in fields.items() if value not in ("", None)}
    merged = {**given, **defaults} if preset_first else {**defaults, **given}
    # Whatever else is tried: nobody's token goes to another address than the one the connection names.
    merged |= {"token_url": given["token_url"]} if "token_url" in given else {}
    # What the preset knows about its own probe is nothing to an address of the connection's own.
    own_probe = preset.probe is None or merged.get("probe_url") != filled(preset.probe.url, values)
    if own_probe and "probe_method" not in given:
        merged.pop("probe_method", None)
    authorization = preset.authorization
    if authorization and merged.get("token_url") != filled(facts.token_url, values):
        # Nor does anybody's code: it is exchanged where the connection gets its tokens.
        authorization = replace(authorization, code_url="")
    applies = replace(preset, probe=None if own_probe else preset.probe, authorization=authorization)
    return merged, replace(_facts(facts, applies, values), **_use(preset))


def _use(preset: Preset) -> dict[str, Any]:
    """Where the provider takes a token, as its own probe shows, also where a connection has another."""
    probe = preset.probe
    if probe is None or probe.about_token:
        return {}
    return {
        "use_headers": {name: text for name, text in probe.headers.items() if ACCESS_TOKEN in text},
        "use_parameters": {name: text for name, text in probe.parameters.items() if ACCESS_TOKEN in text},
    }


ACCESS_TOKEN = "{access_token}"  # noqa: S105 - a place, not a token


def _texts(facts: GrantFacts, preset: Preset) -> list[str]:
    texts = [facts.token_url, facts.audience, facts.scopes, facts.body]
    texts += [*facts.parameters.values(), *facts.headers.values(), *facts.claims.values()]
    if preset.probe:
        texts += [
            preset.probe.url,
            *preset.probe.headers.values(),
            *preset.probe.parameters.values(),
            preset.probe.body,
        ]
    return texts


def _params(conn_id: str, preset: Preset, given: Any, needed: set[str]) -> dict[str, str]:
    """A value for each param; one that is not needed for this class may stay open."""
    said = given if isinstance(given, Mapping) else _read_params(conn_id, str(given or ""))
    if unknown := sorted(said.keys() - preset.params.keys()):
        known = ", ".join(preset.params) or "none"
        raise ConnectionFieldError(
            conn_id, PARAMS, f"names `{unknown[0]}`, which `{preset.name}` does not have; its params: {known}."
        )
    values: dict[str, str] = {}
    for name, param in preset.params.items():
        value = str(said.get(name) or param.default)
        if not value and name in needed:
            raise ConnectionFieldError(
                conn_id, PARAMS, f"does not say `{name}`: {param.meaning}; write `{name}={param.example}`."
            )
        if value and param.choices and value not in param.choices:
            raise ConnectionFieldError(
                conn_id, PARAMS, f"says `{name}={value}`; choose one of {', '.join(param.choices)}."
            )
        values[name] = value
    return values


def _read_params(conn_id: str, text: str) -> dict[str, str]:
    """``shop=acme, region=eu``."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if wrong := [part for part in parts if "=" not in part]:
        raise ConnectionFieldError(conn_id, PARAMS, f"holds `{wrong[0]}`; write name=value, separated by commas.")
    return {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in parts)}


def _defaults(facts: GrantFacts, preset: Preset, values: Mapping[str, str]) -> dict[str, Any]:
    """Facts that a field of the connection form holds as well."""
    probe = preset.probe
    return {
        "token_url": filled(facts.token_url, values),
        "client_auth": facts.client_auth,
        "body_format": facts.body_format,
        "audience": filled(facts.audience, values),
        "algorithm": facts.algorithm,
        "scopes": filled(facts.scopes, values),
        "rotation": facts.rotation,
        "rotation_grace": facts.rotation_grace.total_seconds() or None,
        "probe_url": filled(probe.url, values) if probe else "",
        "probe_method": probe.method if probe else "",
    }


def _facts(facts: GrantFacts, preset: Preset, values: Mapping[str, str]) -> ProviderFacts:
    def each(texts: Mapping[str, str]) -> dict[str, str]:
        return {name: filled(text, values) for name, text in texts.items()}

    probe = preset.probe
    return ProviderFacts(
        provider=preset.name,
        method=facts.method,
        parameters=each(facts.parameters),
        headers=each(facts.headers),
        names=facts.names,
        claims=each(facts.claims),
        body=filled(facts.body, values),
        answer=facts.answer,
        access_token_lifetime=facts.access_token_lifetime,
        assertion_lifetime=facts.assertion_lifetime,
        introspection_url=_complete(preset.endpoints.get("introspection", ""), values),
        device_authorization_url=_complete(preset.endpoints.get("device_authorization", ""), values),
        probe_headers=each(probe.headers) if probe else {},
        probe_parameters=each(probe.parameters) if probe else {},
        probe_body=filled(probe.body, values) if probe else "",
        success_has=probe.success.has if probe else "",
        success_equals=probe.success.equals if probe else "",
        refresh_codes=preset.refresh_errors,
        probe_codes=preset.probe_errors,
        **_authorization(preset.authorization, values),
    )


def _authorization(known: AuthorizationFacts | None, values: Mapping[str, str]) -> dict[str, Any]:
    """What is known of a person's approval; nothing where it takes a param that was left open."""
    if known is None or not (_complete(known.url, values) and _complete(known.code_url or known.url, values)):
        return {}
    return {
        "authorization_url": filled(known.url, values),
        "authorization_parameters": {name: filled(text, values) for name, text in known.parameters.items()},
        "scope_separator": known.scope_separator,
        "pkce": known.pkce,
        "code_url": filled(known.code_url, values),
    }


def _complete(text: str, values: Mapping[str, str]) -> str:
    """The address filled in; empty where it takes a param that was left open, for no other class needs it."""
    return filled(text, values) if all(values.get(name) for name in PLACE.findall(text)) else ""
