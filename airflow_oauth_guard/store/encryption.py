"""Tokens at rest are encrypted with Airflow's own Fernet key or keys; without one the store does not open."""

from __future__ import annotations

import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from airflow_oauth_guard.errors import StoreConfigurationError

MAKE_A_KEY = (
    "make one with `python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'` "
    "and set it as AIRFLOW__CORE__FERNET_KEY, the same on every component"
)


class TokenCipher:
    """Encrypts with the first key, decrypts with any, as Airflow does with ``[core] fernet_key``."""

    def __init__(self, fernet_keys: str) -> None:
        keys = [key.strip() for key in fernet_keys.split(",") if key.strip()]
        if not keys:
            raise StoreConfigurationError(f"`[core] fernet_key` is empty, so tokens cannot be kept safe; {MAKE_A_KEY}.")
        try:
            fernets = [Fernet(key) for key in keys]
        except ValueError as error:
            # The key itself must not reach the message.
            raise StoreConfigurationError(f"`[core] fernet_key` is not a Fernet key; {MAKE_A_KEY}.") from error
        self._newest, self._fernet = fernets[0], MultiFernet(fernets)

    def encrypt(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode()

    def decrypt(self, stored: str) -> str:
        """Raises:
        StoreConfigurationError: If none of the keys made it.
        """
        try:
            return self._fernet.decrypt(stored.encode()).decode()
        except InvalidToken as error:
            raise StoreConfigurationError(
                "A stored token was encrypted with another key. Put the old key behind the new one in "
                "`[core] fernet_key`, separated by a comma."
            ) from error

    def under_newest_key(self, stored: str) -> str:
        """The same secret encrypted with the first key; the very same text where that key made it.

        Raises:
            StoreConfigurationError: If none of the keys made it.
        """
        try:
            self._newest.decrypt(stored.encode())
        except InvalidToken:
            return self.encrypt(self.decrypt(stored))
        return stored


def fingerprint(secret: str) -> str:
    """Names a token without showing it: enough to tell two apart, useless for anything else."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16] if secret else ""
