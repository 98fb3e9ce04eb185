"""What the tests that need Airflow share: guarded connections against the real server, a task's context, questions.

A connection is an ``AIRFLOW_CONN_…`` variable, which Airflow reads outside tasks too; its client lives at the
authorization server. Every secret begins with :data:`PLANTED`, so that a search finds any that leaked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import Request
from uuid import uuid4

import pytest
import yaml
from airflow.sdk import BaseNotifier
from joserfc.jwk import RSAKey
from sqlalchemy import text, update

from airflow_oauth_guard.domain.answers import HttpAnswer
from airflow_oauth_guard.domain.evidence import Evidence, Finding, Kind, Observer, Reading, Subject, Verdict
from airflow_oauth_guard.domain.incidents import About, Incident, IncidentKind
from airflow_oauth_guard.domain.investigation import Conclusion, Owner
from airflow_oauth_guard.grants.flow import IssuedTokens
from airflow_oauth_guard.grants.long_lived_token import SPEAKS_FOR
from airflow_oauth_guard.hooks.base import OAuthGuardHook
from airflow_oauth_guard.hooks.investigation import Patience, look, settle
from airflow_oauth_guard.hooks.refreshing import RefreshResult
from airflow_oauth_guard.hooks.registry import get_hook
from airflow_oauth_guard.store.incidents import Symptom
from airflow_oauth_guard.store.records import Credential, Enrollment
from airflow_oauth_guard.store.store import Store
from airflow_oauth_guard.store.tables import credentials, tokens
from tests.authorization_server.client import OPENER, AuthorizationServer, Minted, SeenRequest
from tests.contract.making import keep, open_question

T = TypeVar("T")

PLANTED = "planted-"
PAUSE = timedelta(seconds=0.1)
PATIENCE = Patience(pause=PAUSE, give_up_after=timedelta(seconds=30))
WHO = Observer("oauth_guard_test", "manual__1", "refresh", -1, 1)
HOUR = timedelta(hours=1)
INSTALLATION = "4711"
CALLBACK = "https://airflow.example/oauth-guard/callback"
"""Where people are sent back to, by clients that may have them sent."""
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
TOKEN_PATHS = {
    "/oauth/token",
    "/meta/oauth/access_token",
    "/instagram/refresh_access_token",
    "/threads/refresh_access_token",
    "/vendor/login",
    f"/app/installations/{INSTALLATION}/access_tokens",
}

KEY = RSAKey.generate_key(2048)
PEM = KEY.as_pem(private=True).decode()
JWKS = {"keys": [KEY.as_dict(private=False)]}


def utcnow() -> datetime:
    return datetime.now(timezone.utc)


# -- connections ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What one class of connection needs at the server, and in its own fields."""

    grant_type: str
    """Empty where it sends none."""
    url: str
    """The attribute of the server that is its token URL; empty where it has none."""
    client: dict[str, Any] = field(default_factory=dict)
    """``{conn_id}`` in these and the fields stands for the connection."""
    fields: dict[str, Any] = field(default_factory=dict)
    shows: tuple[str, ...] = ("login", "password")
    """What the connection shows of its client."""
    seeds: tuple[str, ...] = ()
    lifetime: timedelta = HOUR
    """Of the tokens it gets here."""
    presets: tuple[str, ...] = ()
    """Those of :data:`PRESETS` that it names."""

    @property
    def asks(self) -> bool:
        """Whether it has a token endpoint; else its refresh is a probe."""
        return bool(self.url)


_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SAML2_BEARER = "urn:ietf:params:oauth:grant-type:saml2-bearer"
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_PASSWORD = f"{PLANTED}password-of-{{conn_id}}"
_SUBJECT_TOKEN = f"{PLANTED}subject-token-of-{{conn_id}}"
_ASSERTION = (
    base64.urlsafe_b64encode(f"<saml:Assertion>{PLANTED}assertion</saml:Assertion>".encode()).decode().rstrip("=")
)

RECIPES = {
    "refresh_token": Recipe("refresh_token", "token_url", seeds=("refresh_token", "access_token")),
    "client_credentials": Recipe("client_credentials", "token_url"),
    "jwt_bearer": Recipe(
        _JWT_BEARER,
        "token_url",
        {"jwks": JWKS, "client_secret": None},
        {"private_key": PEM, "issuer": "{conn_id}"},
        shows=(),
    ),
    "meta_exchange": Recipe("fb_exchange_token", "meta_url", seeds=("access_token",)),
    "instagram_refresh": Recipe("ig_refresh_token", "instagram_url", shows=(), seeds=("access_token",)),
    "password": Recipe(
        "password",
        "token_url",
        {"users": {"{conn_id}": _PASSWORD}},
        {"username": "{conn_id}", "user_password": _PASSWORD},
    ),
    "account_credentials": Recipe(
        "account_credentials",
        "token_url",
        {"account_id": "account-of-{conn_id}"},
        {"account_id": "account-of-{conn_id}"},
    ),
    "token_exchange": Recipe(
        _TOKEN_EXCHANGE, "token_url", {"subject_tokens": [_SUBJECT_TOKEN]}, {"subject_token": _SUBJECT_TOKEN}
    ),
    "saml2_bearer": Recipe(_SAML2_BEARER, "token_url", {"assertions": [_ASSERTION]}, {"assertion": _ASSERTION}),
    "github_app": Recipe(
        "",
        "installation_url",
        {"jwks": JWKS, "client_secret": None, "account_id": INSTALLATION},
        {"private_key": PEM, "provider_params": f"installation_id={INSTALLATION}"},
        shows=("login",),
    ),
    "two_step": Recipe(
        "",
        "login_url",
        {"users": {"{conn_id}": _PASSWORD}},
        {"provider": "vendor", "username": "{conn_id}", "user_password": _PASSWORD},
        shows=(),
        presets=("vendor",),
    ),
    "long_lived_token": Recipe("", "", {"access_lifetime": None}, seeds=("access_token",), lifetime=SPEAKS_FOR),
}
"""By connection class, as in ``provider.yaml``."""

REAL = "https://vendor.example/docs"
HERE = "{scheme}://127.0.0.1:{port}"
"""The test server in a preset, which holds https addresses or none; see :meth:`Connector.preset`."""
_AT_THE_SERVER = {
    "title": "The vendor",
    "docs": REAL,
    "params": {"scheme": {"meaning": "http here", "example": "http"}, "port": {"meaning": "its port", "example": "80"}},
}

PRESETS: dict[str, dict[str, Any]] = {
    "vendor": {
        "grants": {
            "two_step": {
                "token_url": f"{HERE}/vendor/login",
                "body_format": "json",
                "parameters": {"username": "{username}", "password": "{password}"},
                "answer": {
                    "access_token": "data.session.token",
                    "expires_in": "data.session.ttl_ms",
                    "expires_in_unit": "milliseconds",
                },
                "source": REAL,
            }
        },
        "probe": {"url": f"{HERE}/api/me", "success": {"has": "id"}, "source": REAL},
    },
    "approver": {
        "grants": {"refresh_token": {"token_url": f"{HERE}/oauth/token", "source": REAL}},
        "probe": {"url": f"{HERE}/api/me", "success": {"has": "id"}, "source": REAL},
        "endpoints": {
            "authorization": {
                "url": f"{HERE}/oauth/authorize",
                "parameters": {"access_type": "offline"},
                "source": REAL,
            },
            "device_authorization": {"url": f"{HERE}/oauth/device", "source": REAL},
        },
    },
}


@dataclass(frozen=True)
class Guarded:
    """A connection, its client at the server, and the tokens it was seeded with."""

    conn_id: str
    connection_class: str
    server: AuthorizationServer
    minted: Minted
    description: dict[str, Any] = field(repr=False)
    """The connection as its environment variable holds it."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything the connection holds that must be seen nowhere, in every form it is sent in."""
        extra, secret = self.description["extra"], self.description.get("password")
        names = ("access_token", "refresh_token", "user_password", "subject_token", "assertion")
        held = [extra[name] for name in names if name in extra]
        if secret:
            held += [secret, base64.b64encode(f"{self.conn_id}:{secret}".encode()).decode()]
        if "private_key" in extra:
            held += PEM.splitlines()[1:4]
        return tuple(held)

    def hook(self) -> OAuthGuardHook:
        return get_hook(self.conn_id)

    def refresh(self, store: Store, who: Observer = WHO) -> RefreshResult:
        hook = self.hook()
        return hook.run(hook.refresh(store, who))

    def credential(self, store: Store) -> Credential:
        return store.credentials.get(self.conn_id)

    def enrolled(self, store: Store) -> Credential:
        return store.credentials.enroll(self.hook().enrollment(), utcnow())

    def token_requests(self) -> list[SeenRequest]:
        """What the token endpoints were asked since the test began."""
        return [seen for seen in self.server.requests() if seen.path in TOKEN_PATHS]

    def fault(self, kind: str = "status", **details: Any) -> None:
        """The token endpoint (the probe, where there is no other) fails for this client until the faults are cleared."""
        on = None if RECIPES[self.connection_class].asks else "resource"
        self.server.fault(kind, client_id=self.conn_id, **{"on": on, **details})

    def incident(self, store: Store) -> Incident | None:
        return store.incidents.open_about(About.CREDENTIAL, self.conn_id)


class Connector:
    """Registers a client at the server and describes the connection to it in the environment."""

    def __init__(self, server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch, conn_id: str) -> None:
        self._server = server
        self._monkeypatch = monkeypatch
        self._conn_id = conn_id
        self._catalog: TemporaryDirectory[str] | None = None

    def __call__(
        self,
        connection_class: str = "refresh_token",
        *,
        client: dict[str, Any] | None = None,
        suffix: str = "",
        seeded: bool = True,
        mint: dict[str, Any] | None = None,
        token_url: str | None = None,
        login: str | None = None,
        password: str | None = None,
        redirect_uri: str = "",
        **fields: Any,
    ) -> Guarded:
        """A guarded connection.

        Args:
            client: Changes to the class's client at the server.
            suffix: For a second connection in one test.
            seeded: Whether the connection holds the tokens that were minted.
            mint: How to mint them.
            redirect_uri: Where people may be sent back to, such as :data:`CALLBACK`: the client then takes codes and
                devices, and the connection knows where people approve.
            fields: Fields of the connection beyond what the class needs; None leaves one out.
        """
        recipe, conn_id = RECIPES[connection_class], self._conn_id + suffix
        secret = f"{PLANTED}client-{conn_id}"
        settings = {
            "client_secret": secret,
            "secret_prefix": PLANTED,
            "grant_types": (recipe.grant_type or "long_lived",),
            **(_approved(recipe, redirect_uri) if redirect_uri else {}),
        }
        self._server.add_client(conn_id, **{**settings, **_for(conn_id, recipe.client), **(client or {})})
        minted = self._server.mint(conn_id, **(mint or {}))
        extra = {"probe_url": self._server.probe_url, "allow_http": True, **_for(conn_id, recipe.fields)}
        if seeded:
            extra |= {name: getattr(minted, name) for name in recipe.seeds}
        if redirect_uri:
            extra |= {"authorization_url": self._server.authorization_url}
        for preset in recipe.presets:
            extra |= {"provider_params": self.preset(preset)}
        extra = {name: value for name, value in {**extra, **fields}.items() if value is not None}
        host = self._token_url(recipe) if token_url is None else token_url
        description = {
            "conn_type": f"oauth_guard_{connection_class}",
            "extra": extra,
            **({"host": host} if host else {}),
        }
        given = {"login": login or conn_id, "password": secret if password is None else password}
        description |= {name: value for name, value in given.items() if name in recipe.shows}
        self.describe(conn_id, description)
        return Guarded(conn_id, connection_class, self._server, minted, description)

    def _token_url(self, recipe: Recipe) -> str:
        url = getattr(self._server, recipe.url) if recipe.asks else ""
        return url(INSTALLATION) if callable(url) else str(url)

    def preset(self, name: str, document: dict[str, Any] | None = None) -> str:
        """Put a provider that is this server into the catalog's own folder; returns the ``provider_params`` for it."""
        if self._catalog is None:
            self._catalog = TemporaryDirectory(prefix="oauth_guard_catalog_")
            self._monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__CATALOG_FOLDER", self._catalog.name)
        whole = {**_AT_THE_SERVER, **(PRESETS[name] if document is None else document)}
        (Path(self._catalog.name) / f"{name}.yaml").write_text(yaml.safe_dump(whole))
        return f"scheme=http, port={urlsplit(self._server.url).port}"

    def sibling(self, guarded: Guarded, suffix: str, **fields: Any) -> Guarded:
        """One more credential of the same client, for somebody else."""
        minted = self._server.mint(guarded.conn_id, user=f"user{suffix}")
        extra = {name: getattr(minted, name) for name in RECIPES[guarded.connection_class].seeds}
        description = {**guarded.description, "extra": {**guarded.description["extra"], **extra, **fields}}
        one = Guarded(f"{guarded.conn_id}{suffix}", guarded.connection_class, self._server, minted, description)
        self.describe(one.conn_id, description)
        return one

    def close(self) -> None:
        if self._catalog is not None:
            self._catalog.cleanup()

    def describe(self, conn_id: str, description: dict[str, Any]) -> None:
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(description))

    def change(self, guarded: Guarded, **fields: Any) -> None:
        """Edit fields of the connection, as a person would."""
        self.describe(guarded.conn_id, {**guarded.description, "extra": {**guarded.description["extra"], **fields}})


def _approved(recipe: Recipe, redirect_uri: str) -> dict[str, Any]:
    """What a client needs at the server for people to approve it."""
    return {
        "grant_types": (recipe.grant_type, "authorization_code", DEVICE_CODE),
        "redirect_uris": [redirect_uri],
        "require_pkce": True,
    }


def _for(conn_id: str, values: Any) -> Any:
    """The recipe's values, with the connection's name in its place."""
    if isinstance(values, dict):
        return {_for(conn_id, name): _for(conn_id, value) for name, value in values.items()}
    if isinstance(values, list):
        return [_for(conn_id, value) for value in values]
    return values.replace("{conn_id}", conn_id) if isinstance(values, str) else values


def unmask() -> None:
    """Airflow compiles every secret it ever saw into one pattern; the secrets of earlier tests would make it slow."""
    from airflow.sdk._shared.secrets_masker import _secrets_masker

    _secrets_masker().reset_masker()


def forget_backends() -> None:
    """Airflow 3.3 keeps its secrets backends for as long as the process lives."""
    try:
        from airflow.sdk.configuration import clear_secrets_backends_cache
    except ImportError:  # before Airflow 3.3, which does not keep them
        return
    clear_secrets_backends_cache()


def probe(server: AuthorizationServer, access_token: str) -> int:
    """What the resource says to this token, past the package."""
    request = Request(server.probe_url, headers={"Authorization": f"Bearer {access_token}"})
    with OPENER.open(request, timeout=10) as answer:
        return int(answer.status)


# -- tasks ------------------------------------------------------------------------------------------------------------


def task_context(
    task_id: str = "task", *, run_id: str = "manual__1", map_index: int = -1, try_number: int = 1, conf: Any = None
) -> dict[str, Any]:
    """As much of a task's context as our operators read; what they pushed to XCom is in ``context["pushed"]``."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        id=uuid4(),
        dag_id="oauth_guard_test",
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        try_number=try_number,
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    dag_run = SimpleNamespace(run_id=run_id, conf=conf or {})
    return {"ti": ti, "task_instance": ti, "dag_run": dag_run, "pushed": pushed}


class Recorder(BaseNotifier):
    """A notifier that keeps what it was asked to send; ``broken`` makes it raise, as a mail server would."""

    template_fields = ("message",)

    def __init__(self, message: str = "{{ oauth_guard.sentence() }}", *, broken: bool = False) -> None:
        super().__init__()
        self.message = message
        self.broken = broken
        self.sent: list[str] = []

    def notify(self, context: Any) -> None:
        if self.broken:
            raise ConnectionError("the mail server does not answer")
        self.sent.append(self.message)


# -- questions --------------------------------------------------------------------------------------------------------


def question_of(store: Store, guarded: Guarded) -> int:
    """Refresh it, which has to fail, and claim the question that raises."""
    result = guarded.refresh(store)
    assert result.evidence is not None, result
    question = store.investigations.take_on(guarded.credential(store), WHO, utcnow())
    assert question is not None
    return question


def looked_into(store: Store, guarded: Guarded, question: int, patience: Patience = PATIENCE) -> Conclusion:
    """Look until there is a conclusion, as the sensor does, with shorter sleeps; and write it down."""
    hook = guarded.hook()
    while True:
        seen = hook.run(look(store, hook, question, patience, WHO))
        if isinstance(seen, Conclusion):
            settle(store, question, seen, WHO, utcnow())
            return seen
        time.sleep(min(seen.total_seconds(), 0.05))


def make_due(store: Store, conn_id: str, *, life_left: timedelta = timedelta(minutes=-1)) -> None:
    """As if time had passed: every back-off is over, and the token has this much life left."""
    now, credential = utcnow(), store.credentials.get(conn_id)
    with store.database.write() as connection:
        connection.execute(update(credentials).where(credentials.c.id == credential.id).values(attempt_after=None))
        connection.execute(
            update(tokens)
            .where(tokens.c.credential_id == credential.id)
            .values(issued_at=now - timedelta(minutes=50), expires_at=now + life_left)
        )


def rows(store: Store, table: str) -> list[dict[str, Any]]:
    with store.database.read() as connection:
        return [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]


def nothing_secret_is_kept(store: Store, secrets: tuple[str, ...]) -> None:
    """Search every file of the store, so that no column is forgotten."""
    folder = Path(str(store.database.engine.url.database)).parent
    for path in folder.glob("oauth_guard.db*"):
        content = path.read_bytes()
        for secret in (PLANTED, *secrets):
            assert secret.encode() not in content, f"{path.name} holds a secret"


# -- credentials that need no server ----------------------------------------------------------------------------------


def enrolled(store: Store, conn_id: str = "crm", **changes: Any) -> Credential:
    given: dict[str, Any] = {
        "connection_class": "refresh_token",
        "client_key": "client-a",
        "margin": timedelta(minutes=10),
        "access_token": f"{conn_id}-access-1",
        "refresh_token": f"{conn_id}-refresh-1",
        "expires_at": utcnow() + HOUR,
    }
    return store.credentials.enroll(Enrollment(conn_id=conn_id, **{**given, **changes}), utcnow())


def used_by(store: Store, conn_id: str, dag_id: str, task_id: str = "load", at: datetime | None = None) -> None:
    """A task has used the credential."""
    known = store.roster.find(conn_id, utcnow())
    credential = known.credential if known else enrolled(store, conn_id)
    store.consumers.note(credential.id, dag_id, task_id, at or utcnow())


def evidence_of(kind: Kind, finding: Finding, subject: Subject, credential: Credential, **changes: Any) -> Evidence:
    """One observation about the newest tokens."""
    given: dict[str, Any] = {
        "kind": kind,
        "generation": credential.generation,
        "observed_at": utcnow(),
        "reading": Reading(subject, finding, "made_for_a_test", f"the provider says `{finding.value}`"),
        "verdict": Verdict.LIVE if finding is Finding.LIVE else Verdict.OPEN,
        "answer_id": finding.value,
        "observer": WHO,
    }
    return Evidence(**{**given, **changes})


def asked(store: Store, conn_id: str = "crm", finding: Finding = Finding.GRANT_DEAD, **changes: Any) -> int:
    """A refresh failed like this, and the question it raises is open."""
    credential = store.credentials.get(conn_id)
    failed = store.credentials.record(
        credential, evidence_of(Kind.REFRESH, finding, Subject.GRANT, credential, http_status=400), utcnow()
    )
    question = open_question(store, credential, failed, changes.get("who", WHO), changes.get("at", utcnow()))
    assert question is not None
    return question


def concluded(
    store: Store,
    question: int,
    finding: Finding = Finding.GRANT_DEAD,
    *,
    proven: bool = True,
    access_token: Verdict = Verdict.OPEN,
) -> None:
    """Write down a conclusion about the grant, drawn from the question's own evidence."""
    rests_on = tuple(item.id for item in store.investigations.evidence(store.investigation(question)) if item.id)
    conclusion = Conclusion(
        finding=finding,
        subject=Subject.GRANT,
        verdict=Verdict.DEAD if proven else Verdict.OPEN,
        explanation="The grant is dead: made for a test." if proven else "That is not proven: made for a test.",
        owner=Owner.ACCOUNT if proven else Owner.PERSON,
        rests_on=rests_on,
        access_token=access_token,
        access_token_rests_on=rests_on if access_token is Verdict.DEAD else (),
    )
    settle(store, question, conclusion, WHO, utcnow())


def proven_dead(store: Store, conn_id: str = "crm", **changes: Any) -> int:
    """A credential whose grant an investigation has proven dead; nobody was asked yet."""
    enrolled(store, conn_id, **changes)
    question = asked(store, conn_id)
    concluded(store, question)
    return question


def lapse(store: Store, conn_id: str) -> Evidence:
    """Prove the access token rejected."""
    credential = store.credentials.get(conn_id)
    reading = Reading(Subject.ACCESS_TOKEN, Finding.ACCESS_TOKEN_DEAD, "rejected_twice", "two probes were refused")
    proof = Evidence(
        Kind.CONCLUSION, credential.generation, utcnow(), reading, Verdict.DEAD, rests_on=(1, 2), observer=WHO
    )
    return store.credentials.record(credential, proof, utcnow())


def expire(store: Store, conn_id: str) -> int | None:
    """Prove the grant dead and set it expired; returns the proof's id."""
    question = asked(store, conn_id)
    concluded(store, question)
    proof = store.investigation(question).conclusion_evidence_id
    store.credentials.expire(conn_id, proof, WHO, utcnow())
    store.investigations.close(question, utcnow())
    return proof


def renew(store: Store, conn_id: str = "crm") -> Credential:
    """One whole refresh that succeeds, through the store's own steps."""
    now = utcnow()
    lease = store.credentials.lease(conn_id, "another worker", HOUR, now)
    assert lease is not None
    intent = store.credentials.open_intent(lease, lease.tokens.refresh_token, now)
    body = json.dumps({"access_token": f"{conn_id}-next", "expires_in": 3600}).encode()
    keep(store, intent, HttpAnswer(200, {}, body, now))
    issued = IssuedTokens(f"{conn_id}-next", expires_in=HOUR)
    alive = evidence_of(Kind.REFRESH, Finding.LIVE, Subject.GRANT, lease.credential)
    renewed, _ = store.credentials.renew(lease, intent, issued, alive, now)
    return renewed


def incident_about(
    store: Store, name: str = "crm", kind: IncidentKind = IncidentKind.REQUEST_MALFORMED, **changes: Any
) -> Incident:
    given: dict[str, Any] = {
        "about": About.CREDENTIAL,
        "name": name,
        "kind": kind,
        "summary": "Made for a test.",
        "opened_at": utcnow(),
        "owner": "the owner of the test",
    }
    return store.incidents.open(Symptom(**{**given, **changes}), utcnow())


def run(flow: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(flow)
