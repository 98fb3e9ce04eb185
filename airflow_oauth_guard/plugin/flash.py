"""One sentence carried over a redirect: signed, so that a link from elsewhere cannot put words on the page."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse
from itsdangerous import BadSignature

from airflow_oauth_guard.plugin.signing import signer

LASTS_SECONDS = 300


def back_to(address: str, sentence: str) -> RedirectResponse:
    """See this page next, with a sentence on it."""
    said = signer("said").dumps(sentence[:500])
    return RedirectResponse(f"{address}?said={quote(said)}", 303)


def said(request: Request) -> str:
    """The sentence that came along; empty where there is none, or it is old or made up."""
    given = request.query_params.get("said")
    if not given:
        return ""
    try:
        return str(signer("said").loads(given, max_age=LASTS_SECONDS))
    except BadSignature:
        # Nothing depends on it: a page that is loaded again later just has no message.
        return ""
