"""How a secrets backend says no, so that Airflow does not look elsewhere and the task hears why.

Airflow takes nearly every exception of a secrets backend for "ask the next one" and would end up with a connection that
"isn't defined". Since its task SDK 1.2.2 there is one that it lets through. Before, on Airflow 3.1, only what is no
``Exception`` at all gets out of its loop; there a refusal fails the task like any error, but code that is to catch one has to
name it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_oauth_guard.errors import CredentialUnusableError, OAuthGuardError

try:
    from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied
except ImportError:  # Airflow 3.1
    AirflowSecretsBackendAccessDenied = None  # type: ignore[assignment, misc]

if TYPE_CHECKING or AirflowSecretsBackendAccessDenied is not None:

    class ConnectionNotServedError(OAuthGuardError, AirflowSecretsBackendAccessDenied):
        """A connection asks for a token that cannot be had. Its cause says why, and what to do."""

    class ConnectionUnusableError(ConnectionNotServedError, CredentialUnusableError):
        """... because the credential is not usable: the provider refuses it, or nobody could renew it."""

else:

    class ConnectionNotServedError(BaseException):
        """A connection asks for a token that cannot be had. Its cause says why, and what to do."""

    class ConnectionUnusableError(ConnectionNotServedError):
        """... because the credential is not usable: the provider refuses it, or nobody could renew it."""


def is_denied(error: Exception) -> bool:
    """Whether it is Airflow's own word that nobody else is to be asked."""
    return AirflowSecretsBackendAccessDenied is not None and isinstance(error, AirflowSecretsBackendAccessDenied)


def refusal(conn_id: str, error: Exception) -> ConnectionNotServedError:
    """What to raise, from the error, instead of handing a connection out."""
    unusable = isinstance(error, CredentialUnusableError)
    # The text of a foreign error may hold an address with a password.
    told = isinstance(error, OAuthGuardError) or is_denied(error)
    why = str(error) if told else f"{type(error).__name__}, see the log."
    return (ConnectionUnusableError if unusable else ConnectionNotServedError)(
        f"Connection `{conn_id}` cannot be used: {why}"
    )
