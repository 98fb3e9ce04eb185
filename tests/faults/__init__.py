"""What networks and gateways do to a refresh, and what becomes of the credential: see `proxy` and `providers`."""
