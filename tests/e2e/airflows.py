"""A real Airflow with people in it, another API server behind a reverse proxy, and what they have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from examples.demo import Airflow

PEOPLE = {"ada": "admin", "vic": "viewer"}
PASSWORDS = {name: f"password-of-{name}" for name in PEOPLE}


class PeopledAirflow(Airflow):
    """Where everybody is somebody: under all-admins no page can be forbidden."""

    def __init__(self, home: Path, **settings: str) -> None:
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps(PASSWORDS), encoding="utf-8")
        people = {
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in PEOPLE.items()),
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        }
        super().__init__(home, **{**people, **settings})

    def token(self, name: str = "ada") -> str:
        said = {"username": name, "password": PASSWORDS[name]}
        answer = self.session.post(f"{self.url}/auth/token", json=said, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["access_token"])


class ApiServer(PeopledAirflow):
    """One more API server of the same Airflow, at another address."""

    command = ("api-server", "--proxy-headers")
    parts = ("metadatabase",)

    def __init__(self, airflow: Airflow, proxy: Proxy) -> None:
        super().__init__(airflow.home, **{**airflow.settings, "API__BASE_URL": proxy.url})
        self.fernet_key = airflow.fernet_key
        proxy.port_behind = self.port
        self.url = proxy.url


class Proxy(ThreadingHTTPServer):
    """A reverse proxy: what is under its path goes to an API server as it is, and everything else nowhere."""

    daemon_threads = True
    path = "/airflow"
    port_behind = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.path}"


HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class _Forwarding(BaseHTTPRequestHandler):
    server: Proxy

    def _forward(self) -> None:
        if not f"{self.path}/".startswith(f"{self.server.path}/"):
            self.send_error(404)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        headers |= {
            "X-Forwarded-For": self.client_address[0],
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": self.headers["Host"],
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        behind = HTTPConnection("127.0.0.1", self.server.port_behind, timeout=60)
        try:
            behind.request(self.command, self.path, body, headers)
            answer = behind.getresponse()
            content = answer.read()
        except OSError as error:
            # Not up yet, or gone already.
            self.send_error(502, str(error))
            return
        finally:
            behind.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _forward

    def log_message(self, *args: Any) -> None:
        """Nothing: tests have no use for it."""


@contextmanager
def reverse_proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()


def preset_of(server_url: str, folder: Path) -> dict[str, str]:
    """Put the authorization server into a catalog's own folder; returns the fields of a connection that names it."""
    folder.mkdir(exist_ok=True)
    here, source = "{scheme}://127.0.0.1:{port}", "https://acme.example/docs"
    params = {
        name: {"meaning": f"the {name}", "example": example} for name, example in (("scheme", "http"), ("port", "80"))
    }
    endpoints = {"authorization": f"{here}/oauth/authorize", "device_authorization": f"{here}/oauth/device"}
    preset = {
        "title": "Acme",
        "docs": source,
        "params": params,
        "grants": {"refresh_token": {"token_url": f"{here}/oauth/token", "source": source}},
        "probe": {"url": f"{here}/api/me", "success": {"has": "id"}, "source": source},
        "endpoints": {name: {"url": url, "source": source} for name, url in endpoints.items()},
    }
    # JSON is YAML.
    (folder / "acme.yaml").write_text(json.dumps(preset), encoding="utf-8")
    return {"provider": "acme", "provider_params": f"scheme=http, port={urlsplit(server_url).port}"}
