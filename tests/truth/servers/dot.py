"""django-oauth-toolkit as an authorization server with a few APIs behind it: `python dot.py PORT`.

The APIs are guarded in the three ways the project offers: its userinfo endpoint, Django REST
framework's views, and the decorator for plain Django views. `/_control` is ours: it moves the clock,
takes clients and users away, and so on.
"""

# mypy: disable-error-code="import-not-found"
# mypy: disallow-untyped-decorators=False, disallow-subclassing-any=False
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from wsgiref.simple_server import make_server

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings


def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


settings.configure(
    SECRET_KEY="only for recordings",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider", "rest_framework"],
    OAUTH2_PROVIDER={
        "SCOPES": {"read": "Read", "write": "Write", "openid": "Who you are"},
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": private_key(),
        "REFRESH_TOKEN_EXPIRE_SECONDS": 86400,
    },
    REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {"user": "1/min"}},
)
django.setup()

# The rest of Django can only be imported once it is set up.
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.utils import timezone  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from oauth2_provider.contrib.rest_framework import OAuth2Authentication, TokenHasScope  # noqa: E402
from oauth2_provider.decorators import protected_resource  # noqa: E402
from oauth2_provider.models import AccessToken, Application  # noqa: E402
from oauth2_provider.settings import oauth2_settings  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.throttling import UserRateThrottle  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

REFRESH_TABLE = "oauth2_provider_refreshtoken"


class Api(APIView):
    authentication_classes = [OAuth2Authentication]
    permission_classes = [IsAuthenticated]

    def get(self, request: Any) -> Any:
        return Response({"user": request.user.username})


class WriteApi(Api):
    permission_classes = [TokenHasScope]
    required_scopes = ["write"]


class ThrottledApi(Api):
    throttle_classes = [UserRateThrottle]


@protected_resource(scopes=["read"])
def plain(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"hello": "world"})


@protected_resource(scopes=["read", "write"], advertise_metadata=True)
def challenged(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"hello": "world"})


def setting(name: str, value: Any) -> None:
    setattr(oauth2_settings, name, value)


def age_access_token(token: str, hours: int) -> None:
    AccessToken.objects.filter(token=token).update(expires=timezone.now() - timedelta(hours=hours))


def user_active(user: str, active: bool) -> None:
    get_user_model().objects.filter(username=user).update(is_active=active)


def delete_user(user: str) -> None:
    get_user_model().objects.get(username=user).delete()


def delete_client(client: str) -> None:
    Application.objects.get(client_id=client).delete()


def break_storage(broken: bool) -> None:
    names = (REFRESH_TABLE, f"{REFRESH_TABLE}_away")
    old, new = names if broken else reversed(names)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


ACTIONS: dict[str, Callable[..., None]] = {
    action.__name__: action
    for action in (setting, age_access_token, user_active, delete_user, delete_client, break_storage)
}


@csrf_exempt
def control(request: HttpRequest) -> HttpResponse:
    order = json.loads(request.body)
    ACTIONS[order.pop("action")](**order)
    return JsonResponse({})


urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("api/", Api.as_view()),
    path("api/write/", WriteApi.as_view()),
    path("api/throttled/", ThrottledApi.as_view()),
    path("plain/", plain),
    path("challenged/", challenged),
    path("_control", control),
]


def fill() -> None:
    call_command("migrate", verbosity=0)
    for name in ("alice", "bob", "carol"):
        get_user_model().objects.create_user(name, password=f"{name}-password")
    grants = {"machine": "client-credentials", "limited": "implicit"}
    for client in ("app", "app-post", "other", "doomed", "machine", "limited"):
        Application.objects.create(
            client_id=client,
            client_secret=f"{client}-secret",
            client_type="confidential",
            authorization_grant_type=grants.get(client, "password"),
            redirect_uris="https://app.example/callback",
            algorithm="RS256",
        )


if __name__ == "__main__":
    fill()
    make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application()).serve_forever()
