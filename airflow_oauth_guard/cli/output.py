"""What every command does alike: read its input, print a table, end with one clear line where something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from airflow_oauth_guard.errors import ConfigurationError, OAuthGuardError


def read_input(file: str) -> str:
    """The text of a file, or of standard input for ``-``.

    Raises:
        ConfigurationError: If it is not UTF-8.
    """
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"The input is not UTF-8 text (byte {error.start}).") from None


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """As wide as the terminal is; nothing in a cell is taken as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


@contextmanager
def clear_errors() -> Iterator[None]:
    """One line on standard error and exit code 1, instead of a traceback, for what we can name."""
    try:
        yield
    except (OAuthGuardError, OSError) as error:
        print(f"airflow oauth-guard: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
