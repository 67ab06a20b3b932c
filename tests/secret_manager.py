"""A local stand-in for Secret Manager's REST API, for the real `google-cloud-secret-manager` client.

In a test: `async with secret_manager() as sm:`, `sm.put("openai-key", "sk-…")`, and the product's
SECRET_MANAGER_ENDPOINT set to `sm.endpoint`. As a process:
`python -m tests.secret_manager --port 9001 --secret openai-key=sk-…`. It serves from threads of its own, so
that the synchronous client may also be called on the test's event loop. Every project has the same secrets.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_ACCESS = re.compile(r"/v1/projects/([^/]+)/secrets/([^/]+)/versions/([^/:]+):access")
_STATUS = {
    400: "FAILED_PRECONDITION",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class SecretManager:
    """The server. `accesses` has the paths asked; `fail_with` is the status every access gets, if set."""

    def __init__(self) -> None:
        self.accesses: list[str] = []
        self.fail_with: int | None = None
        self.delay_s = 0.0
        self._versions: dict[str, list[str]] = {}
        self._disabled: set[tuple[str, int]] = set()
        self._port = 0
        self._running: _Running | None = None

    @property
    def endpoint(self) -> str:
        """The address for SECRET_MANAGER_ENDPOINT; the same before and after `down()`."""
        return f"http://127.0.0.1:{self._port}"

    def put(self, secret: str, value: str) -> int:
        """Adds a version, which becomes `latest`; returns its number, from 1."""
        versions = self._versions.setdefault(secret, [])
        versions.append(value)
        return len(versions)

    def disable(self, secret: str, version: int) -> None:
        """Disables a version: accessing it fails as Google's does. `latest` still points at it."""
        self._disabled.add((secret, version))

    def up(self, port: int | None = None) -> None:
        """Listens, on the same port as before if there was one."""
        if self._running is None:
            self._running = _Running(self, self._port if port is None else port)
            self._port = self._running.port

    def down(self) -> None:
        """Stops listening: the next connection is refused, and a delayed answer is never given."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def access(self, path: str) -> tuple[int, dict[str, Any]]:
        """What Google would answer to this GET: status and body."""
        self.accesses.append(path)
        if self.fail_with:
            return _failure(self.fail_with, "The stand-in fails as it was told to.")
        match = _ACCESS.fullmatch(path)
        if match is None:
            return _failure(404, "Method not found.")
        project, secret, wanted = match.groups()
        versions = self._versions.get(secret, [])
        if wanted != "latest" and not wanted.isdigit():
            return _failure(400, f"[{wanted}] is not a version.")
        version = len(versions) if wanted == "latest" else int(wanted)
        name = f"projects/{project}/secrets/{secret}/versions/{version}"
        if not 1 <= version <= len(versions):
            return _failure(404, f"Secret [{name}] not found or has no versions.")
        if (secret, version) in self._disabled:
            return _failure(400, f"Secret Version [{name}] is in DISABLED state.")
        data = versions[version - 1].encode()
        payload = {"data": base64.b64encode(data).decode(), "dataCrc32c": str(crc32c(data))}
        return 200, {"name": name, "payload": payload}


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum, by which clients verify a payload."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@contextlib.asynccontextmanager
async def secret_manager() -> AsyncIterator[SecretManager]:
    """A stand-in on a free port."""
    manager = SecretManager()
    manager.up()
    try:
        yield manager
    finally:
        manager.down()


def _failure(status: int, message: str) -> tuple[int, dict[str, Any]]:
    error = {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}
    return status, {"error": error}


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: object


class _Running:
    """One period of listening, from `up()` to `down()`."""

    def __init__(self, manager: SecretManager, port: int) -> None:
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(manager, self.stopping))
        self._server.daemon_threads = False  # so that server_close() waits for them
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(manager: SecretManager, stopping: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers one request a connection (HTTP/1.0), so that `down()` leaves none open."""

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/health":
                return self._reply(_Reply(200, {"status": "ok"}))
            if path == "/_accesses":
                return self._reply(_Reply(200, manager.accesses))
            reply = _Reply(*manager.access(path))
            if stopping.wait(manager.delay_s):
                return None
            return self._reply(reply)

        def do_POST(self) -> None:
            url = urlsplit(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self._reply(_control(manager, url.path, dict(parse_qsl(url.query))))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            pass

        def _reply(self, reply: _Reply) -> None:
            body = json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    return Handler


def _control(manager: SecretManager, path: str, query: dict[str, str]) -> _Reply:
    match path:
        case "/_put":
            return _Reply(200, {"version": manager.put(query["secret"], query["value"])})
        case "/_fail":
            manager.fail_with = int(query["status"]) or None
        case "/_delay":
            manager.delay_s = float(query["seconds"])
        case "/_disable":
            manager.disable(query["secret"], int(query["version"]))
        case _:
            return _Reply(*_failure(404, "no such control"))
    return _Reply(200, {"status": "ok"})


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--secret", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    manager = SecretManager()
    for pair in arguments.secret:
        manager.put(*pair.split("=", 1))
    manager.up(arguments.port)
    print(f"Secret Manager's stand-in on {manager.endpoint}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _main()
