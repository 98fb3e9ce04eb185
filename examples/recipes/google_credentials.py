"""Google: credentials for googleapiclient, gspread, google-cloud-* and whatever else takes google-auth's."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from google.oauth2.credentials import Credentials

from airflow_oauth_guard.hooks.using import Handed, Use

ASKED_EARLY = timedelta(minutes=4)  # google-auth asks for the next token 3:45 before the end of one
UNKNOWN_LIFE = timedelta(minutes=10)


def google_credentials(conn_id: str) -> Credentials:
    use = Use(conn_id)
    last: Handed | None = None

    def fresh(_request: Any, **_scopes: Any) -> tuple[str, datetime]:
        nonlocal last
        now, handed = datetime.now(timezone.utc), use.token()
        lapses_at = handed.lapses_at or now + UNKNOWN_LIFE
        if last and last.generation == handed.generation and lapses_at > now + ASKED_EARLY:
            handed = use.doubt(handed) or handed  # asked again so soon: Google has refused it
        last = handed
        return handed.access_token, (handed.lapses_at or now + UNKNOWN_LIFE).replace(tzinfo=None)

    return Credentials(token=None, refresh_handler=fresh)
