"""What a person should do next about a credential, in words: one sentence for every way it can be wrong."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_oauth_guard.domain.incidents import IncidentKind
from airflow_oauth_guard.domain.status import Status

_ABOUT: Mapping[IncidentKind, str] = {
    IncidentKind.REQUEST_MALFORMED: (
        "Correct the connection: the provider refuses our request without looking at the token. The evidence names the field; "
        "reconnecting would not help."
    ),
    IncidentKind.CLIENT_MISCONFIGURED: (
        "Look at the app at the provider: its id, its secret, whether it was disabled. The token was not judged, so "
        "reconnecting would not help."
    ),
    IncidentKind.SCOPE_INSUFFICIENT: (
        "Ask for scopes that were granted, or have the missing ones granted and reconnect."
    ),
    IncidentKind.ACCOUNT_ACTION: (
        "Somebody has to do something in the account at the provider, which the evidence names; then refresh it here."
    ),
    IncidentKind.GRANT_DEAD: "Reconnect it: the provider does not accept its grant any more.",
    IncidentKind.AMBIGUOUS: (
        "A refresh may have spent the refresh token without our getting the next one. Wait while the access token lives; "
        "then it is tried once more. To be sure now, reconnect it."
    ),
    IncidentKind.RATE_LIMITED: "Nothing yet: the provider asked us to wait, and it is asked again by itself.",
    IncidentKind.PROVIDER_OUTAGE: "Nothing yet: the provider is failing, and it is asked again by itself.",
    IncidentKind.UNKNOWN: (
        "Read the evidence: it decides nothing. Probe it, compare what the provider says with its documents, and refresh it."
    ),
    IncidentKind.MISCONFIGURED: "Correct the connection; what is wrong with it is named below.",
    IncidentKind.CLIENT_FAILING: (
        "Look at the client, not at this credential: most credentials of the same app fail together."
    ),
    IncidentKind.FALSE_EXPIRY: "Nothing: it works again.",
}

_OF_STATUS: Mapping[Status, str] = {
    Status.ACTIVE: "Nothing: it is in order.",
    Status.LAPSED: "Refresh it: the access token is rejected, and nobody knows yet about its grant.",
    Status.EXPIRED: "Reconnect it, or revive it if you know that its grant works again.",
}

LOOKED_INTO = "Nothing yet: its refresh failed, which is a question, and it is being looked into."

ANSWER = "Answer the question below: may it be set expired? Reconnecting it answers by itself."


def next_step(status: Status, incident: IncidentKind | None, *, is_asked: bool, fails: bool = False) -> str:
    """One or two sentences for whoever looks at the credential.

    Args:
        incident: What is open about it; None for nothing.
        is_asked: Whether a person is being asked right now if it may be set expired.
        fails: Whether its last refresh failed.
    """
    if is_asked:
        return ANSWER
    if status is Status.ACTIVE and incident is None and fails:
        return LOOKED_INTO
    if status is Status.EXPIRED or incident is None:
        return _OF_STATUS[status]
    return _ABOUT.get(incident, _OF_STATUS[status])
