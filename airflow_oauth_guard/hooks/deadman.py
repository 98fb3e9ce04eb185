"""A sign of life to whoever watches from outside, such as healthchecks.io or Cronitor."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from airflow_oauth_guard.errors import ConfigurationError, OAuthGuardError

if TYPE_CHECKING:
    import requests

PING_SECONDS = 10
ATTEMPTS = 3


def ping(url: str) -> None:
    """Call the address of an outside dead-man's switch.

    Raises:
        ConfigurationError: If it is no http(s) address.
        OAuthGuardError: If it did not answer with success, after three tries. The address is not repeated: who knows it can
            keep the switch quiet.
    """
    import requests

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("`[oauth_guard] deadman_url` is no http(s) address.")
    retrying = Retrying(
        retry=retry_if_exception_type(requests.RequestException),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(max=5),
        reraise=True,
    )
    try:
        answer: requests.Response = retrying(_get, url)
    except requests.RequestException as error:
        # The error quotes the address, so it is not chained.
        raise OAuthGuardError(
            f"The dead-man's switch at {parts.hostname} did not take the ping: {type(error).__name__}. It will raise its "
            "alarm unless a later pass gets through."
        ) from None
    if not 200 <= answer.status_code < 300:
        raise OAuthGuardError(f"The dead-man's switch at {parts.hostname} answered {answer.status_code} to the ping.")


def _get(url: str) -> requests.Response:
    import requests

    answer = requests.get(url, timeout=PING_SECONDS, allow_redirects=False)
    if answer.status_code >= 500:
        raise requests.HTTPError(f"{answer.status_code}")
    return answer
