"""What we hand to a browser and want back unchanged: form tokens and the ``state`` of an authorization."""

from __future__ import annotations

import hashlib

from airflow.configuration import conf
from itsdangerous import URLSafeTimedSerializer


def signer(purpose: str) -> URLSafeTimedSerializer:
    """Signs for one purpose, with keys made from ``[core] fernet_key``, which all API servers share.

    As there, the first key signs and each of them is accepted.
    """
    keys = [key.strip() for key in str(conf.get("core", "fernet_key", fallback="")).split(",")]
    derived = [hashlib.sha256(f"airflow_oauth_guard signing {key}".encode()).digest() for key in reversed(keys) if key]
    return URLSafeTimedSerializer(derived, salt=f"airflow_oauth_guard.{purpose}")
