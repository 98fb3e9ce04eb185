"""``airflow oauth-guard explain`` and ``providers``: what an answer says, and what the catalog knows. Neither needs a store."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.catalog.explaining import CALLS, Explained, Given, explain
from airflow_oauth_guard.catalog.preset import Preset
from airflow_oauth_guard.cli.output import clear_errors, print_table, read_input
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.hooks.config import get_catalog
from airflow_oauth_guard.hooks.transport import utcnow

COLUMNS = ("finding", "subject", "rule", "explanation", "owner", "sufficient")


def explain_answers(args: argparse.Namespace) -> None:
    """Explain each answer of the input."""
    with clear_errors():
        catalog = get_catalog()
        found = [explain(given, catalog, utcnow()) for given in read_answers(read_input(args.file), _defaults(args))]
        if args.json:
            for explained in found:
                print(json.dumps(asdict(explained)))  # noqa: T201
            return
        print_table(COLUMNS, [_row(explained) for explained in found])


def _row(explained: Explained) -> tuple[str, ...]:
    values = asdict(explained) | {"sufficient": "yes" if explained.sufficient else "no"}
    return tuple(str(values[name]) for name in COLUMNS)


def _defaults(args: argparse.Namespace) -> Mapping[str, Any]:
    return {"call": args.call, "provider": args.provider or "", "grant_class": args.grant_class or ""}


def read_answers(text: str, defaults: Mapping[str, Any]) -> list[Given]:
    """One answer as JSON or as it came over the wire (``curl -i``), or JSON lines with many.

    Raises:
        ConfigurationError: Naming the line and what is wrong with it.
    """
    if text.lstrip().startswith("HTTP/"):
        return [_from_wire(text.lstrip(), defaults)]
    return [_given(entry, defaults, where) for entry, where in _entries(text)]


def _entries(text: str) -> Iterator[tuple[Any, str]]:
    try:
        whole = json.loads(text)
    except ValueError:
        # Not one document, so one a line.
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield _line(line, number), f"Line {number}"
        return
    for number, entry in enumerate(whole if isinstance(whole, list) else [whole], start=1):
        yield entry, f"Answer {number}"


def _line(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"Line {number} is not JSON: {error}") from error


def _given(entry: Any, defaults: Mapping[str, Any], where: str) -> Given:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(
            f"{where} is a {type(entry).__name__}; write an object with `call`, `http_status`, `body`."
        )
    call = entry.get("call") or defaults["call"]
    if call not in CALLS:
        raise ConfigurationError(f"{where}: `call` is {call!r}; write one of {', '.join(CALLS)}.")
    return Given(
        call=call,
        body=_text(entry.get("body")),
        http_status=_status(entry.get("http_status", entry.get("status")), where),
        headers=_headers(entry.get("headers"), where),
        provider=str(entry.get("provider") or defaults["provider"]),
        grant_class=str(entry.get("grant_class") or defaults["grant_class"]),
    )


def _text(body: Any) -> str:
    """A body may be given as the text it is, or as the JSON it holds."""
    if body is None:
        return ""
    return body if isinstance(body, str) else json.dumps(body)


def _status(value: Any, where: str) -> int | None:
    if value in (None, ""):
        return None
    if isinstance(value, bool) or not re.fullmatch(r"[1-5]\d\d", str(value)):
        raise ConfigurationError(f"{where}: `http_status` is {value!r}; write a number such as 400.")
    return int(value)


def _headers(value: Any, where: str) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: `headers` is a {type(value).__name__}; write an object.")
    return {
        str(name): ", ".join(map(str, text)) if isinstance(text, list) else str(text) for name, text in value.items()
    }


def _from_wire(text: str, defaults: Mapping[str, Any]) -> Given:
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    status = re.search(r"^HTTP/\S+\s+(\d{3})", first)
    headers = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Given(
        **{**defaults, "headers": headers, "body": body, "http_status": int(status[1]) if status else None},
    )


def providers(args: argparse.Namespace) -> None:
    """The catalog: every provider, or all that is known of one with the page each fact was read from."""
    with clear_errors():
        catalog = get_catalog()
        if args.provider:
            preset = catalog.get(args.provider)
            print_table(("fact", "value", "source"), list(_facts(preset)))
            return
        print_table(("provider", "name", "classes", "probe"), list(_overview(catalog)))


def _overview(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    for preset in map(catalog.get, catalog.names):
        yield preset.name, preset.title, ", ".join(preset.grants), preset.probe.url if preset.probe else ""


def _facts(preset: Preset) -> Iterator[tuple[str, ...]]:
    for path, source in preset.sources.items():
        yield path, str(preset.facts.get(path, "")), source
