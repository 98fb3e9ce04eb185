"""A client that takes a token as text, and says with an error of its own that it was refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from airflow_oauth_guard.hooks.using import Use

Result = TypeVar("Result")


def with_token(use: Use, call: Callable[[str], Result], *, refused: type[Exception]) -> Result:
    """Call with a fresh token; once more with the next one, where the first was refused and the guard finds that it is dead.

    ::

        use = Use("crm_prod")
        for page in range(1, 100):
            with_token(use, lambda token: crm.Client(token).contacts(page), refused=crm.Unauthorized)
    """
    handed = use.token()
    try:
        return call(handed.access_token)
    except refused:
        newer = use.doubt(handed)
        if newer is None:
            raise
        return call(newer.access_token)
