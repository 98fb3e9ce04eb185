"""The authorization server of the Model Context Protocol's Python SDK: `python mcp_sdk.py PORT`.

Its routes, client authentication and token checks are the SDK's; the store is a few dictionaries.
`/_control` is ours.
"""

# mypy: disable-error-code="import-not-found"
# mypy: disallow-subclassing-any=False
import secrets
import sys
import time
from typing import Any

import uvicorn
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken, OAuthAuthorizationServerProvider, ProviderTokenVerifier, RefreshToken
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

GRANTS = ("authorization_code", "refresh_token")


def client(client_id: str, method: str = "client_secret_post", grants: tuple[str, ...] = GRANTS) -> Any:
    return OAuthClientInformationFull(
        client_id=client_id,
        client_secret=f"{client_id}-secret",
        token_endpoint_auth_method=method,
        grant_types=list(grants),
        redirect_uris=["https://app.example/callback"],
    )


class Store(OAuthAuthorizationServerProvider[Any, Any, Any]):
    def __init__(self) -> None:
        self.clients = {name: client(name) for name in ("app", "other", "doomed")}
        self.clients["app-post"] = client("app-post")
        self.clients["header"] = client("header", "client_secret_basic")
        self.clients["limited"] = client("limited", grants=GRANTS[:1])
        self.refresh: dict[str, Any] = {}
        self.access: dict[str, Any] = {}

    def issue(self, client_id: str, scopes: list[str]) -> Any:
        now, access, refresh = int(time.time()), secrets.token_hex(32), secrets.token_hex(32)
        self.access[access] = AccessToken(token=access, client_id=client_id, scopes=scopes, expires_at=now + 3600)
        self.refresh[refresh] = RefreshToken(token=refresh, client_id=client_id, scopes=scopes, expires_at=now + 86400)
        return OAuthToken(access_token=access, refresh_token=refresh, expires_in=3600, scope=" ".join(scopes))

    async def get_client(self, client_id: str) -> Any:
        return self.clients.get(client_id)

    async def load_refresh_token(self, client: Any, refresh_token: str) -> Any:
        return self.refresh.get(refresh_token)

    async def load_access_token(self, token: str) -> Any:
        return self.access.get(token)

    async def exchange_refresh_token(self, client: Any, refresh_token: Any, scopes: list[str]) -> Any:
        del self.refresh[refresh_token.token]
        return self.issue(client.client_id, scopes)

    async def revoke_token(self, token: Any) -> None:
        self.refresh.pop(token.token, None)
        self.access.pop(token.token, None)


STORE = Store()


async def control(request: Request) -> JSONResponse:
    order = await request.json()
    match order["action"]:
        case "mint":
            return JSONResponse(STORE.issue(order["client"], order["scope"].split()).model_dump())
        case "age_refresh_token":
            STORE.refresh[order["token"]].expires_at = int(time.time()) - 60
        case "age_access_token":
            STORE.access[order["token"]].expires_at = int(time.time()) - 60
        case "delete_client":
            del STORE.clients[order["client"]]
        case "allow_refresh":
            STORE.clients[order["client"]].grant_types = list(GRANTS)
        case "expire_secret":
            expiry = int(time.time()) - 60 if order["expired"] else None
            STORE.clients[order["client"]].client_secret_expires_at = expiry
    return JSONResponse({})


def guarded(scope: str) -> Any:
    async def endpoint(scope_: Any, receive: Any, send: Any) -> None:
        await JSONResponse({"hello": "world"})(scope_, receive, send)

    return RequireAuthMiddleware(endpoint, [scope])


def application(port: int) -> Starlette:
    issuer = AnyHttpUrl(f"http://127.0.0.1:{port}")
    routes = create_auth_routes(STORE, issuer, revocation_options=RevocationOptions(enabled=True))
    routes.append(Route("/api", guarded("read")))
    routes.append(Route("/api/write", guarded("write")))
    routes.append(Route("/_control", control, methods=["POST"]))
    backend = BearerAuthBackend(ProviderTokenVerifier(STORE))
    return Starlette(routes=routes, middleware=[Middleware(AuthenticationMiddleware, backend=backend)])


if __name__ == "__main__":
    number = int(sys.argv[1])
    uvicorn.run(application(number), host="127.0.0.1", port=number, log_level="warning")
