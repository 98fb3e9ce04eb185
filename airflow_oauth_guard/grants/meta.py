"""What Meta's token endpoints share: the Graph API's error codes.

Source: "Handling Errors", Graph API reference, developers.facebook.com/docs/graph-api/guides/error-handling.
"""

from __future__ import annotations

from airflow_oauth_guard.domain.answers import Vocabulary
from airflow_oauth_guard.domain.evidence import Finding

GRAPH_API_ERRORS: Vocabulary = {
    "1": Finding.UNKNOWN,  # "API Unknown": also sent for a wrong app secret
    "2": Finding.PROVIDER_OUTAGE,  # "API Service": temporary
    "4": Finding.RATE_LIMITED,  # "API Too Many Calls"
    "17": Finding.RATE_LIMITED,  # "API User Too Many Calls"
    "32": Finding.RATE_LIMITED,  # page-level throttling
    "613": Finding.RATE_LIMITED,  # custom rate limit
    "10": Finding.SCOPE_INSUFFICIENT,  # "API Permission Denied"
    "100": Finding.REQUEST_MALFORMED,  # "Invalid parameter"
    "101": Finding.CLIENT_MISCONFIGURED,  # "Error validating application"
    "102": Finding.GRANT_DEAD,  # "API Session": login status or access token expired, revoked or invalid
    "190": Finding.GRANT_DEAD,  # "Access token has expired", been revoked or is otherwise invalid
    "459": Finding.ACCOUNT_ACTION,  # user checkpointed
    "464": Finding.ACCOUNT_ACTION,  # unconfirmed user
}
"""As read from a token endpoint, where the token sent is the grant itself."""

GRAPH_API_PROBE_ERRORS: Vocabulary = {
    code: Finding.ACCESS_TOKEN_DEAD if finding is Finding.GRANT_DEAD else finding
    for code, finding in GRAPH_API_ERRORS.items()
}
"""As read from a probe, where the same codes are about the access token."""
