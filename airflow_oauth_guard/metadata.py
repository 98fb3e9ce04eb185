"""``provider.yaml``, read. It is the one home of what Airflow knows about this package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


def get_provider_info() -> dict[str, Any]:
    """What Airflow's provider discovery calls (entry point ``apache_airflow_provider``)."""
    return {key: value for key, value in _document().items() if not key.startswith("x-")}


def connection_types() -> dict[str, dict[str, Any]]:
    """Our connection types by ``conn_type``, as ``provider.yaml`` describes them."""
    return {entry["connection-type"]: entry for entry in _document()["connection-types"]}


def config_default(option: str) -> str:
    """The default of an ``[oauth_guard]`` option."""
    return str(_document()["config"]["oauth_guard"]["options"][option]["default"] or "")


@cache
def _document() -> dict[str, Any]:
    text = files("airflow_oauth_guard").joinpath("provider.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    assert isinstance(document, dict)
    # Suggestions, not a closed choice: a user's own catalog may hold others.
    document["x-fields"]["provider"]["schema"]["examples"] = _provider_names()
    return document


def _provider_names() -> list[str]:
    shipped = files("airflow_oauth_guard").joinpath("catalog").joinpath("providers")
    return sorted(entry.name.removesuffix(".yaml") for entry in shipped.iterdir() if entry.name.endswith(".yaml"))
