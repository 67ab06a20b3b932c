"""All functions on one port, for development: `make run`, or `python -m functions.local`. PORT moves it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

import uvicorn
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from shared import bootstrap
from shared.api.routes import EVERYTHING, HEALTH
from shared.settings import SettingsError

HOST = "127.0.0.1"

BANNER = """
Echo Brain on {url}, serving: {providers}

  POST {url}/v1/brain/chat           Brain dialect, JSON
  POST {url}/v1/brain/chat/stream    Brain dialect, server-sent events
  POST {url}/v1/chat/completions     OpenAI dialect; base URL for its clients: {url}/v1
  GET  {url}/v1/models    {url}/v1/brain/health    {url}/health    {url}/version

Try:
  curl -s {url}/v1/brain/chat -H 'Content-Type: application/json' \\
    -d '{{"messages": [{{"role": "user", "content": "Hello"}}]}}'
"""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application; `GET /` is the health function's, `POST /` the chat function's."""
    if scope["type"] != "http":
        return
    request = Request(scope, receive, send)
    routes = HEALTH if scope["path"] == "/" and request.method in ("GET", "HEAD") else EVERYTHING
    response = await bootstrap.endpoints().respond(request, routes)
    await response(scope, receive, send)


def main() -> None:
    """Serves until interrupted; exits with 1 and a message where a setting is wrong."""
    try:
        providers = ", ".join(p.name for p in bootstrap.check_settings().serving.providers)
        port = _port(os.environ.get("PORT", "8080"))
    except SettingsError as error:
        sys.exit(f"Echo Brain cannot start: {error}")
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        sys.exit(f"Echo Brain cannot start: port {port}: {error.strerror}; PORT=9000 moves it")
    print(BANNER.format(url=f"http://{HOST}:{port}", providers=providers), flush=True)
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=8)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how one ends it
        uvicorn.Server(config).run(sockets=[listening])


def _port(raw: str) -> int:
    if not (raw.isascii() and raw.isdigit() and 0 < int(raw) < 65536):
        raise SettingsError("PORT: must be a port number from 1 to 65535")
    return int(raw)


if __name__ == "__main__":
    main()
