"""What error codes and words mean: the protocol documents' own, and what most providers' documentation has in common.

A provider's own codes stand in the catalog and are asked first. Nothing here is a proof of anything: a rule turns one answer into
a finding, and :mod:`airflow_oauth_guard.domain.investigation` decides what several findings prove.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_oauth_guard.domain.answers import Said
from airflow_oauth_guard.domain.evidence import Finding


@dataclass(frozen=True)
class ErrorRule:
    """What an answer means that carries this code, says this, or both."""

    finding: Finding
    code: str = ""
    """Compared without regard to case; empty where the words alone tell."""
    says: re.Pattern[str] | None = None
    """Searched in the codes and words, with punctuation in codes read as spaces."""
    status: int | None = None
    """Only with this HTTP status."""
    meaning: str = ""
    """What it means, in a few words, where the code does not say it."""

    @property
    def names_something(self) -> bool:
        """False for a rule that takes whatever is said with a status: a direction for people, and no documented code."""
        return bool(self.code) or (self.says is not None and self.says.search(_GIBBERISH) is None)

    def matches(self, said: Said, status: int) -> bool:
        return (
            (not self.code or self.code.lower() in said.codes)
            and (self.says is None or self.says.search(said.text) is not None)
            and (self.status is None or self.status == status)
        )


_GIBBERISH = "qzx"

Vocabulary = Sequence[ErrorRule]
"""The first rule that matches counts."""


def _codes(finding: Finding, *codes: str) -> tuple[ErrorRule, ...]:
    return tuple(ErrorRule(finding, code) for code in codes)


def _says(finding: Finding, meaning: str, *patterns: str) -> ErrorRule:
    return ErrorRule(finding, says=re.compile("|".join(patterns), re.IGNORECASE), meaning=meaning)


TOKEN_CODES: Vocabulary = (
    # RFC 6749 section 5.2
    *_codes(Finding.GRANT_DEAD, "invalid_grant"),
    *_codes(Finding.CLIENT_MISCONFIGURED, "invalid_client", "unauthorized_client"),
    *_codes(Finding.REQUEST_MALFORMED, "invalid_request", "unsupported_grant_type"),
    *_codes(Finding.SCOPE_INSUFFICIENT, "invalid_scope"),
    # RFC 6749 section 4.1.2.1, sent from token endpoints by several providers
    *_codes(Finding.ACCOUNT_ACTION, "access_denied"),
    *_codes(Finding.PROVIDER_OUTAGE, "server_error", "temporarily_unavailable"),
    *_codes(Finding.REQUEST_MALFORMED, "unsupported_response_type"),
    # RFC 7009 section 2.2.1
    *_codes(Finding.REQUEST_MALFORMED, "unsupported_token_type"),
    # RFC 8628 section 3.5
    *_codes(Finding.RATE_LIMITED, "slow_down"),
    *_codes(Finding.ACCOUNT_ACTION, "authorization_pending"),
    # RFC 8707 section 2, RFC 9449 sections 5 and 8, RFC 9396 section 5
    *_codes(Finding.REQUEST_MALFORMED, "invalid_target", "invalid_dpop_proof", "use_dpop_nonce"),
    *_codes(
        Finding.REQUEST_MALFORMED, "invalid_authorization_details", "redirect_uri_mismatch", "invalid_redirect_uri"
    ),
    # OpenID Connect Core section 3.1.2.6, RFC 9470 section 3
    *_codes(Finding.ACCOUNT_ACTION, "interaction_required", "login_required", "consent_required", "mfa_required"),
    *_codes(Finding.ACCOUNT_ACTION, "account_selection_required", "insufficient_user_authentication"),
)
"""What the protocols' codes say when a token endpoint sends them."""

RESOURCE_CODES: Vocabulary = (
    # RFC 6750 section 3.1
    *_codes(Finding.ACCESS_TOKEN_DEAD, "invalid_token"),
    *_codes(Finding.SCOPE_INSUFFICIENT, "insufficient_scope"),
    *_codes(Finding.REQUEST_MALFORMED, "invalid_request", "unsupported_token_type"),
    # RFC 9449 section 7, RFC 9470 section 3
    *_codes(Finding.REQUEST_MALFORMED, "invalid_dpop_proof", "use_dpop_nonce"),
    *_codes(Finding.ACCOUNT_ACTION, "insufficient_user_authentication"),
)
"""What the protocols' codes say when a resource sends them."""

RFC6749_BOILERPLATE = re.compile(
    r"invalid,? expired,? (or )?revoked|(invalid|expired|revoked)\b.{0,60}\bor\b.{0,40}\b(another|different|other) client",
    re.IGNORECASE,
)
"""RFC 6749 section 5.2's own list of every meaning; servers that quote it have said nothing special."""

_OVER = (
    r"expired?|revoked|invalid(ated)?|not found|unknown|inactive|not (valid|active|recogni[sz]ed)|no longer|does ?n.t exist"
    r"|does not exist|already (been )?used|reused?|consumed|stale|rotated|wrong|(could not|cannot|can not) be \w+"
)
_REFRESH_TOKEN = r"(refresh|offline|long.lived)[ _-]?tokens?\b"  # noqa: S105 - a pattern
_REFRESH_TOKEN_ENDED = (
    rf"{_REFRESH_TOKEN}.{{0,60}}?\b({_OVER})",
    # ... but not "Invalid grant_type: refresh_token", which names what we sent.
    (
        r"\b(expired|revoked|invalid|unknown|bad|inactive|stale|unrecogni[sz]ed|reused)\b(?!\W{1,3}grant[ _-]?type)"
        rf".{{0,24}}?\b{_REFRESH_TOKEN}"
    ),
    (
        rf"\b(could not|cannot|can.t|unable to|failed( to)?|exception while)\b.{{0,20}}?\b(find|validat\w+|verif\w+|authenticat\w+)?\b"
        rf".{{0,15}}?\b{_REFRESH_TOKEN}"
    ),
    r"\bno\b.{0,3}\b(user|session|grant)\b.{0,3} (for|with) (this|the|that) token",
    rf"\brequires? (an? )?(active|valid) {_REFRESH_TOKEN}",
)
_GRANT_ENDED = (
    *_REFRESH_TOKEN_ENDED,
    r"\b(grant|authori[sz]ation|consent|session|access)\b.{0,40}?\b(has been |was |is |been )?(revoked|withdrawn|terminated)\b",
    r"\btoken\b.{0,40}?\b(expired or revoked|revoked or expired|been revoked|was revoked|been invalidated)",
    # The token that a refresh sends is the refresh token, unless the answer says otherwise.
    r"(?<!access )\btoken (has |is |was )?(been )?(expired|revoked)\b",
    r"\b(session|offline session|user session)\b.{0,20}?\b(not active|expired|not found|ended)",
    r"\b(re-?authenticate|re-?authori[sz]e|re-?connect|(log|sign)(ging|ing)?[ -]?in again)\b",
)

GRANT_ENDED = _says(Finding.GRANT_DEAD, "the stored grant", *_GRANT_ENDED)

CODES_FOR_A_DEAD_TOKEN = frozenset(
    {
        *("invalid_request", "unauthorized_client", "invalid_client", "access_denied", "unsupported_token_type"),
        *("unauthorized", "forbidden", "login_required"),
    }
)
"""Codes of RFC 6749 that some servers send for a refresh token they do not take; their words have to say so."""

REFRESH_TOKEN_ENDED = _says(Finding.GRANT_DEAD, "the refresh token", *_REFRESH_TOKEN_ENDED)

AGAINST_THE_CODE: Vocabulary = (
    _says(
        *(Finding.CLIENT_MISCONFIGURED, "what this client may do"),
        r"\bgrant[ _]?type\b.{0,30}\bnot (allowed|authori[sz]ed|permitted|enabled)\b.{0,20}\bclient",
        r"\bclient\b.{0,30}\bnot (allowed|authori[sz]ed|permitted|enabled)\b.{0,30}\bgrant",
        r"\bclient (id|key|secret)\b.{0,20}\b(is |are )?(incorrect|invalid|wrong|unknown|not found)\b",
        r"\bclient\b.{0,25}\btoken\b.{0,15}\b(do(es)? not|don.t|doesn.t) match|\bclient\b.{0,10}\btoken\b.{0,10}mismatch",
    ),
    # Sent as invalid_client, invalid_request and others by servers that cannot tell who asks.
    _says(
        *(Finding.REQUEST_MALFORMED, "an assertion's times"),
        r"\bassertion\b.{0,60}\b(expired|not yet valid|valid time|too old|in the future|lifetime)|'exp'|\bclock\b|\bskew\b",
    ),
    _says(
        *(Finding.REQUEST_MALFORMED, "something that was not sent"),
        r"\bmissing\b.{0,20}\b(authori[sz]ation )?(header|parameter|field)|\b(header|parameter)\b.{0,20}\b(is |was )?missing",
        r"\bno (access |bearer )?token (was )?(provided|found|supplied|sent)|\bempty or missing\b",
    ),
)
"""Words that tell plainly, whatever the code, that our request or our app is the reason."""

PASSWORD_REJECTED = _says(
    *(Finding.GRANT_DEAD, "the user name or password"),
    r"\b(invalid|wrong|incorrect|bad)\b.{0,8}\b(user ?name|password|credentials|login)\b",
    r"\b(user ?name|password|credentials)\b.{0,30}\b(invalid|wrong|incorrect|not match\w*|do(es)? not match)",
)

NOT_ABOUT_THE_GRANT: Vocabulary = (
    # RFC 6749 section 5.2 lets one code, invalid_grant, also mean "does not match the redirection URI" or
    # "was issued to another client"; RFC 7521 section 4.1 adds a bad assertion. The description tells.
    _says(Finding.REQUEST_MALFORMED, "a redirect URI", r"redirect"),
    _says(
        *(Finding.REQUEST_MALFORMED, "the clock or an assertion's times"),
        r"\b(clock|skew|iat|nbf|exp claim|issued at|not yet valid|in the future|reasonable timeframe)\b|'exp'|\"exp\"",
    ),
    _says(
        *(Finding.REQUEST_MALFORMED, "PKCE or the authorization code's request"),
        r"\b(pkce|code.?verifier|code.?challenge)\b",
    ),
    _says(
        *(Finding.CLIENT_MISCONFIGURED, "the key an assertion is signed with"),
        r"\b(signature|signing key|public key|certificate|thumbprint|key id|kid|issuer)\b",
    ),
    _says(Finding.REQUEST_MALFORMED, "the assertion", r"\b(assertion|jwt|audience|json web token)\b"),
    _says(
        *(Finding.CLIENT_MISCONFIGURED, "the client"),
        r"client[ _]?(id|secret|auth|credential)|(wrong|another|different|other|this|same) (client|app(lication)?)\b",
        r"(not|n't) (issued|belong)\w* (to|for)|issued to (a|the)\b.{0,20}\bclient|client.{0,20}(mismatch|not match)",
    ),
    _says(
        *(Finding.ACCOUNT_ACTION, "a policy or the account"),
        r"\b(mfa|multi-?factor|2fa|two-?factor|second factor|conditional access|policy|policies|consent|locked)\b",
        r"\b(suspended|disabled|deactivated|inactive (user|org)\w*|re-?auth related|rapt|ip (address )?restrict\w*)\b",
        r"\b(terms of (service|use)|admin\w* approv\w*|verify your|not approved by|password (has )?expired)\b",
    ),
    _says(
        *(Finding.REQUEST_MALFORMED, "the form of the request"),
        r"grant[ _]?type|\bparameter|missing|\brequired\b|malformed|unsupported|content.?type|not specified|must be provided",
    ),
)
"""``invalid_grant`` with one of these descriptions is not a statement about the grant."""

_RATE = (
    r"\brate.?limit|too.?many|throttl|\bquotas?\b|quota.?exceeded|limit (has been )?(exceeded|reached)|exceeded.{0,30}\b(limit|rate)|slow ?down"
    r"|requests? per (second|minute|hour|day)|request.?limit|usage limit|concurren\w+ (request|limit)|limit.?exceeded"
)
_OUTAGE = (
    r"temporar(y|ily)|try again (later|in a|shortly|soon)|retry (later|in a)|(service|server|system|backend|database)\b.{0,20}\b"
    r"(unavailable|error|down|busy|overloaded|not available)|\bmaintenance\b|internal.?(server.?)?(error|failure)|timed? ?out"
    r"|gateway|upstream|unexpected (error|exception|server)|outage|backend.?error|service.?(un|not.?)available|server.?busy"
)
_CLIENT = (
    r"(client|consumer|app(lication)?)[ _-]?(id|secret|key|credentials?|authentication|token)\b"
    r"|\b(invalid|unknown|wrong|bad|incorrect|disabled|inactive|deleted)[ _](client|app(lication)?|consumer|api key|integration)\b"
    r"|\b(client|app(lication)?|consumer|integration|developer token|api|partner)\b.{0,40}\b(not (found|approved|enabled|active|exist"
    r"|registered|authori[sz]ed|allowed|been used|configured)|disabled|suspended|deleted|blocked|deactivated|unpublished|rejected|inactive)"
    r"|\bapi.?key\b|access.?not.?configured|service disabled|not.?whitelisted|developer token|integrator|must (first )?be registered"
)
_ACCOUNT = (
    r"\b(account|user|org(ani[sz]ation)?|tenant|workspace|company|merchant|seller|subscription|team|store|shop|site|member|profile|plan)\b"
    r".{0,40}\b(locked|suspended|disabled|deactivated|inactive|frozen|blocked|banned|closed|delinquent|unpaid|past due|cancell?ed|restricted"
    r"|on hold|not verified|unverified|checkpoint\w*|expired|deleted|terminated|paused|archived)"
    r"|\b(locked|suspended|disabled|deactivated|inactive|frozen|unverified)\b.{0,15}\b(account|user|org\w*|tenant|workspace|company|shop|store)"
    r"|\b(mfa|multi-?factor|2fa|two-?factor|second factor|conditional access|captcha|challenge required)\b|\bpassword\b.{0,30}\b(expired|chang|reset)"
    r"|payment (is )?required|terms\b.{0,10}\bnot accepted|billing|trial (has )?(expired|ended)|terms (of|and)|accept.{0,20}\b(terms|agreement|tos)\b|\badmin\w*\b.{0,30}"
    r"\b(approv|consent|polic)|consent (is )?required|email.{0,20}(verif|confirm)|\bip\b.{0,30}\b(not allowed|restrict|whitelist|allow.?list"
    r"|blocked|denied)|login.?required|saml|single sign|\bsso\b"
)
_SCOPE = (
    r"\bscopes?\b|\bpermissions?\b|insufficient|privilege|not (authori[sz]ed|permitted|allowed|entitled) to|(lacks?|missing|without|no)\b"
    r".{0,20}\b(access|rights?|roles?)\b|access (is )?(denied|forbidden)|access.?denied|not have access|requires? .{0,30}\b(access|role)\b"
)
_REQUEST = (
    r"grant[ _-]?type|\b(missing|invalid|unsupported|unknown|required|malformed|bad|incorrect|unexpected)\b.{0,30}\b(param(eter)?s?|argument|"
    r"field|header|request|value|content.?type|body|json|format|version|syntax|method|url|path|media)\b|redirect.?uri|content.?type"
    r"|\b(param(eter)?|argument|field|header|input|request|body|json)\b.{0,40}\b(missing|invalid|required|empty|malformed|null|must)|method not allowed|malformed"
    r"|not (a )?(supported|valid) (version|method|endpoint)|no route|\b(endpoint|resource|page|url|path|route)\b.{0,20}\bnot found|code.?verifier"
    r"|\b(clock|skew|iat|nbf|issued at|not yet valid)\b|\b(assertion|jwt|signature|audience|issuer)\b|invalid subject token"
    r"|\bmissing.?auth\w*|\b(token|authorization|auth info)\b (is |was )?(missing|not (provided|present|supplied|specified))"
    r"|\b(no|without( an?)?) (access |bearer |auth\w* )?(token|authorization|credentials?)\b|(required|need) to provide"
)
_REJECTED = (
    r"\b(access|bearer|auth(entication|ori[sz]ation)?|oauth2?|session|security|id|user|api|csrf|jwt)?[ _-]?(token|session|credentials?|ticket|jwt)\b"
    r".{0,60}?\b(expired?|expir\w+|revoked|invalid(ated)?|not (valid|active|found|recogni[sz]ed)|unknown|inactive|no longer|does ?n.t exist"
    r"|stale|rejected|malformed|not match|bad|incorrect|missing or invalid|corrupt\w*|could not be (validated|verified))"
    r"|\b(expired|revoked|invalid|unknown|bad|inactive|unrecogni[sz]ed|stale|malformed|incorrect)\b.{0,25}?\b(token|session|access|bearer|jwt"
    r"|auth(entication)?(?! method| scheme| header| type)|oauth2?|credentials?)\b"
    r"|\b(token|session|authentication|auth)\s?(has )?(been )?(expired|revoked)|expired ?(access ?)?token|\bexpired\b.{0,10}\b(authentication|session)"
    r"|\brequires? (a )?valid\b.{0,20}\b(token|session|credentials?)|\b(could ?n.t|not) authenticated?\b|\bunauthenticated\b"
    r"|\bauthentication (is )?(failed|failure|required)|\blog ?in (is )?required"
    r"|\b(fail(ed|ure)?|unable|could not|cannot|can.t)\b( to)? (authenticate|validate|verify|decode|parse|decrypt)\b.{0,30}\b(token|jwt|credentials?|session)"
)

_NOT_SENT = _says(
    *(Finding.REQUEST_MALFORMED, "something that was not sent"),
    # Where it says "invalid or missing" in one breath, nothing is known.
    r"^(?!.*\b(invalid|expired|revoked|incorrect)\b)(.*\bmissing (a |an |the )?(client|api|access|bearer|auth\w*|oauth)[ _]?(id|key|secret|token|header)"
    r"|.*\b(client[ _]?(id|secret)|api[ _]?key|(access|bearer|oauth)?[ _]?token|authorization header)\b (is |was )?(missing|empty|not (provided|supplied|sent|found in))"
    r"|.*\bdid not (provide|send|supply)\b)",
    r"\btoken type\b|\btoken is empty|\bbad authentication data",
)

TOKEN_WORDS: Vocabulary = (
    _says(Finding.RATE_LIMITED, "a limit on our rate", _RATE),
    # Codes of resources (RFC 6750 section 3.1) and of the device flow (RFC 8628 section 3.5): sent by a token endpoint they are
    # about the refresh token as a rule, but no document says so.
    ErrorRule(Finding.GRANT_DEAD, "invalid_token", meaning="the refresh token"),
    ErrorRule(Finding.GRANT_DEAD, "expired_token", meaning="the refresh token"),
    GRANT_ENDED,
    _NOT_SENT,
    _says(Finding.ACCOUNT_ACTION, "a policy or the account", _ACCOUNT),
    _says(Finding.PROVIDER_OUTAGE, "a failure of the provider", _OUTAGE),
    _says(Finding.CLIENT_MISCONFIGURED, "the client", _CLIENT),
    _says(Finding.REQUEST_MALFORMED, "the form of the request", _REQUEST),
    _says(Finding.SCOPE_INSUFFICIENT, "scopes or permissions", _SCOPE),
)
"""How token endpoints commonly put it, where no code tells. Asked last."""

RESOURCE_WORDS: Vocabulary = (
    _says(Finding.RATE_LIMITED, "a limit on our rate", _RATE),
    _NOT_SENT,
    _says(Finding.ACCESS_TOKEN_DEAD, "the access token", _REJECTED),
    _says(Finding.ACCOUNT_ACTION, "a policy or the account", _ACCOUNT),
    _says(Finding.PROVIDER_OUTAGE, "a failure of the provider", _OUTAGE),
    _says(Finding.CLIENT_MISCONFIGURED, "the client", _CLIENT),
    _says(Finding.SCOPE_INSUFFICIENT, "scopes or permissions", _SCOPE),
    _says(Finding.REQUEST_MALFORMED, "the form of the request", _REQUEST),
)
"""How resources commonly put it, where no code tells. Asked last."""
