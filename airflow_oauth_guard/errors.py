"""Every error this package raises.

::

    OAuthGuardError
    ├── ConfigurationError            somebody has to change a setting
    │   ├── ConnectionFieldError      ... a field of a connection; names the field
    │   ├── CatalogError              ... a provider's file; names the field
    │   ├── StoreConfigurationError   ... the store's address, key or version
    │   └── NaiveDatetimeError        ... an instant without a time zone
    ├── StoreUnavailableError         the store cannot be reached now; retrying may help
    │   └── StoreBusyError            ... it ended our transaction in favour of another
    ├── LeaseLostError                another process may refresh this credential now; nothing was sent
    ├── NotRegisteredError            a credential, source or investigation nobody told us about
    ├── CredentialUnusableError       there is no token a consumer may use; never read it as "no data"
    ├── UnprovenTransitionError       a status change whose evidence does not carry it
    ├── AuthorizationRefusedError     what a person brought back from a provider cannot be taken
    ├── AlertNotSentError             a notifier could not deliver an alert
    │   └── AlertPartlySentError      ... to all of its services; some have it
    └── NeedsAPersonError             the guard did its work and somebody has to act

What a provider may normally answer ("no", "later", nothing at all) is a value, not an error.
"""

from __future__ import annotations


class OAuthGuardError(Exception):
    """The root: catch it to catch everything this package raises."""


class ConfigurationError(OAuthGuardError):
    """A setting is missing or wrong; retrying cannot help."""


class ConnectionFieldError(ConfigurationError):
    """One field of one connection is missing or wrong."""

    def __init__(self, conn_id: str, field: str, problem: str) -> None:
        super().__init__(f"Connection `{conn_id}`: field `{field}` {problem}")
        self.conn_id = conn_id
        self.field = field
        self.problem = problem

    def __reduce__(self) -> tuple[type[ConnectionFieldError], tuple[str, str, str]]:
        return type(self), (self.conn_id, self.field, self.problem)


class CatalogError(ConfigurationError):
    """A provider is not in the catalog, or one field of its file is missing or wrong."""

    def __init__(self, provider: str, field: str, problem: str) -> None:
        super().__init__(f"Provider `{provider}`: {f'`{field}` ' if field else ''}{problem}")
        self.provider = provider
        self.field = field
        self.problem = problem

    def __reduce__(self) -> tuple[type[CatalogError], tuple[str, str, str]]:
        return type(self), (self.provider, self.field, self.problem)


class StoreConfigurationError(ConfigurationError):
    """The store cannot be opened as configured."""


class NaiveDatetimeError(ConfigurationError):
    """An instant came without a time zone, so nobody can say when it was."""


class StoreUnavailableError(OAuthGuardError):
    """The store's database cannot be reached, or is too busy to write to; nothing was changed."""


class StoreBusyError(StoreUnavailableError):
    """The database ended our transaction in favour of another. Nothing of it was written; it can be repeated."""


class LeaseLostError(OAuthGuardError):
    """The sole right to refresh a credential ran out before the request was sent."""


class NotRegisteredError(OAuthGuardError):
    """The name means nothing to the store."""


class CredentialUnusableError(OAuthGuardError):
    """No token may be handed out; the message carries the evidence and the next step."""


class UnprovenTransitionError(OAuthGuardError):
    """The evidence offered does not carry the status change it was offered for."""


class AuthorizationRefusedError(OAuthGuardError):
    """A person's authorization at a provider cannot be taken: its state is unknown, used, over, or another person's."""


class AlertNotSentError(OAuthGuardError):
    """A notifier reached nobody, and would have said nothing about it."""


class AlertPartlySentError(AlertNotSentError):
    """Some of a notifier's services have the alert: to send it again would send it to those twice."""


class NeedsAPersonError(OAuthGuardError):
    """Work ended as designed and left something only a person can do."""
