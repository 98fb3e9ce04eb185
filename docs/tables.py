"""Write the tables and files in ``docs/`` that are made from code. ``--check`` fails where one is stale.

A table stands between ``<!-- table: NAME -->`` and ``<!-- /table -->``, a file between ``<!-- file: PATH -->`` and ``<!-- /file -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.domain.evidence import Finding, Subject, Verdict
from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.investigation import OWNER_OF
from airflow_oauth_guard.domain.metrics import METRICS
from airflow_oauth_guard.domain.status import TABLE, Status
from airflow_oauth_guard.domain.vocabulary import RESOURCE_CODES, TOKEN_CODES
from airflow_oauth_guard.metadata import connection_types, get_provider_info

DOCS = Path(__file__).parent
MARKED = re.compile(r"(<!-- (table|file): (\S+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def rows(header: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *body]
    return "".join("| " + " | ".join(" ".join(cell.split()) for cell in line) + " |\n" for line in lines)


def statuses() -> str:
    return rows(("status", "meaning"), [(f"`{status.value}`", status.meaning) for status in Status])


def transitions() -> str:
    changes = [
        (f"`{source.value}`", f"{subject.value}: {verdict.value}", f"`{rule.target.value}`", rule.reason)
        for source in Status
        for subject in Subject
        for verdict in Verdict
        if (rule := TABLE[source, subject, verdict]).target is not None
    ]
    return rows(("from", "evidence about", "to", "because"), changes)


def error_codes() -> str:
    body = [(f"`{rule.code}`", "token URL", rule.finding.value) for rule in TOKEN_CODES]
    body += [(f"`{rule.code}`", "probe URL", rule.finding.value) for rule in RESOURCE_CODES]
    return rows(("code", "from the", "read as"), body)


def findings() -> str:
    return rows(
        ("finding", "what it means", "whose job"),
        [(f"`{f.value}`", f.meaning, OWNER_OF[f].value) for f in Finding if f is not Finding.AMBIGUOUS],
    )


def providers() -> str:
    catalog = Catalog()
    body = [
        (
            f"`{preset.name}`",
            f"[{preset.title}]({preset.docs})",
            ", ".join(f"`{name}`" for name in preset.grants),
            ", ".join(f"`{name}`" for name in preset.params),
            "yes" if preset.probe else "no",
            str(len(preset.refresh_errors) + len(preset.probe_errors)),
        )
        for preset in map(catalog.get, catalog.names)
    ]
    return rows(("provider", "", "classes", "params", "probe", "error rules"), body)


def incidents() -> str:
    return rows(("incident", "what the alert says"), [(f"`{kind.value}`", kind.headline) for kind in IncidentKind])


def metrics() -> str:
    return rows(
        ("metric", "type", "tags", "meaning"),
        [(f"`{one.name}`", one.kind, ", ".join(f"`{tag}`" for tag in one.tags), one.meaning) for one in METRICS],
    )


def configuration() -> str:
    options = get_provider_info()["config"]["oauth_guard"]["options"]
    return rows(
        ("option", "default", "meaning"),
        [(f"`{name}`", f"`{entry['default'] or 'empty'}`", entry["description"]) for name, entry in options.items()],
    )


def fields(conn_type: str) -> str:
    entry = connection_types()[conn_type]
    behaviour = entry["ui-field-behaviour"]
    own = [
        (relabelled, f"`{given}`", "")
        for given, relabelled in behaviour["relabeling"].items()
        if given not in behaviour["hidden-fields"]
    ]
    more = [(field["label"], f"`extra.{name}`", _described(field)) for name, field in entry["conn-fields"].items()]
    return rows(("field", "in JSON", "meaning"), own + more)


def _described(field: dict[str, Any]) -> str:
    schema = field["schema"]
    choices = f" One of {', '.join(f'`{choice}`' for choice in schema['enum'])}." if "enum" in schema else ""
    default = (
        f" Default `{str(schema['default']).lower()}`."
        if schema["type"][0] == "boolean" and "default" in schema
        else ""
    )
    if not default and "default" in schema:
        default = f" Default `{schema['default']}`."
    return field["description"] + choices + default


def file(path: str) -> str:
    """What a reader copies is the file that the tests ran."""
    return f"```python\n{(DOCS.parent / path).read_text(encoding='utf-8')}```\n"


def filled(found: re.Match[str]) -> str:
    opening, kind, name, closing = found.groups()
    return opening + (file(name) if kind == "file" else TABLES[name]()) + closing


TABLES: dict[str, Callable[[], str]] = {
    "statuses": statuses,
    "transitions": transitions,
    "error-codes": error_codes,
    "findings": findings,
    "providers": providers,
    "incidents": incidents,
    "metrics": metrics,
    "configuration": configuration,
    **{f"fields-{conn_type}": (lambda conn_type=conn_type: fields(conn_type)) for conn_type in connection_types()},
}


def main() -> int:
    stale = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        fresh = MARKED.sub(filled, text)
        if fresh != text:
            stale.append(page.relative_to(DOCS).as_posix())
            if "--check" not in sys.argv:
                page.write_text(fresh, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"Stale tables or files in {', '.join(stale)}; run `make docs`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
