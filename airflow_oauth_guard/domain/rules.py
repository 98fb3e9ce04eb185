"""What each rule looks at, in a sentence: beside every piece of evidence stands the rule by which it was read."""

from __future__ import annotations

import re
from collections.abc import Mapping

RULES: Mapping[str, str] = {
    "token_issued": "the token endpoint's answer holds a new access token",
    "probe_answered": "the probe got the success body by which its provider is known",
    "introspected": "the provider was asked about the token itself (RFC 7662)",
    "no_introspection": "the provider was asked about the token and its answer says nothing of it",
    "provider_code": "a code that the provider documents; the catalog names the page",
    "provider_status": "an HTTP status that the provider documents; the catalog names the page",
    "error_code": "a code of the protocol's documents (RFC 6749 section 5.2, RFC 6750 section 3.1 and their kin)",
    "words": "words in which providers commonly say such things; a direction, never a proof",
    "not_about_the_grant": "`invalid_grant` with a description that is about something else",
    "no_grant_of_its_own": "a rejected grant in a class that stores none, so it is about our own settings",
    "undecided_code": "a code that decides nothing",
    "no_error_code": "an error without any code",
    "unreadable_body": "a body that nobody can read",
    "no_success_body": "a success without the field by which this provider's success is known",
    "basic_challenge": "the provider asks our app to authenticate, and says nothing else",
    "bare_401": "a refusal that does not say that the token is the reason; it needs a control",
    "redirect": "a redirect, which no token follows",
    "unanswered": "no answer arrived",
    "cut_short": "we cut the answer off, or could not send the request",
    "http_429": "the status for too many requests (RFC 6585)",
    "http_5xx": "a status of the server's own failure",
    "http_408": "a status that asks to try again",
    "investigation": "drawn from all the evidence it names, by the conditions for a proof of death",
    "rejected_twice": "two probes, or without a probe two requests of consumers, with a pause between were refused because of the token",
    "no_token_to_send": "the store holds no token to send",
    "answer_lost": "a process ended after it may have sent the token and before it kept an answer",
    "reseeded": "a person put other tokens in",
    "revived": "a person said that it works again",
    "no_device_code": "the provider's answer to a device authorization lacks its code",
    "approval_refused": "the provider did not give the approval it was asked for",
}

_STATUS = re.compile(r"http_(\d{3})")


def explained(rule: str) -> str:
    """The sentence; empty for a rule of a release that this one does not know."""
    if rule in RULES:
        return RULES[rule]
    status = _STATUS.fullmatch(rule)
    return f"HTTP {status[1]} without a reason beside it" if status else ""
