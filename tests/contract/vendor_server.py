"""A local stand-in for each vendor's OpenAI-compatible API: it answers well, and complains of what its vendor refuses.

The rules are written from the vendors' documentation (docs/providers.md names the pages), not from the product's rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.faults import answers

KEY = "key-0123456789"
BEARER = {"authorization": f"Bearer {KEY}"}
_CREDENTIALS = ("authorization", "api-key", "x-api-key", "openai-organization", "openai-project")
_CAPS = ("max_tokens", "max_completion_tokens")
_VERTEX = "/v1/projects/p-1/locations/europe-west4"


@dataclass(frozen=True)
class Rules:
    """What a vendor asks for. `prefill` is what its request to continue a text must have."""

    base: str = "/v1"
    health: str = "/v1/models"
    auth: Mapping[str, str] = field(default_factory=lambda: BEARER)
    health_auth: Mapping[str, str] = field(default_factory=lambda: BEARER)
    headers: Mapping[str, str] = field(default_factory=dict)
    cap: str = "max_tokens"  # what the gateway is to write
    caps: tuple[str, ...] = _CAPS  # what the vendor obeys
    request_id: str = "x-request-id"
    prefill: Mapping[str, object] = field(default_factory=dict)
    refuses_white_space: bool = False


RULES: Mapping[str, Rules] = {
    "openai": Rules(cap="max_completion_tokens"),
    "azure": Rules(
        base="/openai/v1",
        health="/openai/v1/models",
        auth={"api-key": KEY},
        health_auth={"api-key": KEY},
        cap="max_completion_tokens",
    ),
    "vertex": Rules(base=f"{_VERTEX}/endpoints/openapi", health=_VERTEX),
    "vllm": Rules(prefill={"continue_final_message": True, "add_generation_prompt": False}),
    "ollama": Rules(caps=("max_tokens",)),
    "anthropic": Rules(
        headers={"anthropic-version": "2023-06-01"},
        health_auth={"x-api-key": KEY},
        request_id="request-id",
        refuses_white_space=True,
    ),
    "openai-compatible": Rules(base="/api/v3", health="/api/v3/models"),
}


class VendorServer:
    """The server. `asked` has the decoded bodies of its questions, `complaints` what was wrong with any request."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.asked: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.open = 0
        self.address = ""

    @property
    def base_url(self) -> str:
        """What is set as the provider's `base_url`."""
        return self.address + self.rules.base

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request: checked, then answered well if nothing was wrong with it."""
        self.open += 1
        try:
            return await self._answer(request)
        finally:
            self.open -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if (request.method, request.path) == ("GET", self.rules.health):
            self._check_headers(request, self.rules.health_auth)
            return self._sealed(b'{"object": "list", "data": []}')
        if (request.method, request.path) != ("POST", f"{self.rules.base}/chat/completions"):
            self.complaints.append(f"{request.method} {request.path}: no such path")
            return self._sealed(b"<html>404</html>")
        self._check_headers(request, self.rules.auth)
        body = json.loads(await request.read())
        self.asked.append(body)
        self._check_body(body)
        return await self._stream(request, body) if body.get("stream") else self._sealed(_whole(body))

    def _check_headers(self, request: web.Request, auth: Mapping[str, str]) -> None:
        sent = {name: request.headers[name] for name in _CREDENTIALS if name in request.headers}
        if sent != auth:
            self.complaints.append(f"{request.path}: credentials {sent}, not {auth}")
        missing = {name: value for name, value in self.rules.headers.items() if request.headers.get(name) != value}
        if missing:
            self.complaints.append(f"{request.path}: without {missing}")

    def _check_body(self, body: dict[str, Any]) -> None:
        if not any(cap in body for cap in self.rules.caps):
            self.complaints.append(f"not capped: {sorted(body)}")
        if sum(cap in body for cap in _CAPS) != 1:
            self.complaints.append(f"not one cap: {sorted(body)}")
        if body.get("stream") and not body["stream_options"]["include_usage"]:
            self.complaints.append("usage was not asked for")
        last = body["messages"][-1]
        if (
            self.rules.refuses_white_space
            and last["role"] == "assistant"
            and last["content"] != last["content"].rstrip()
        ):
            self.complaints.append("final assistant content cannot end with trailing whitespace")

    def _sealed(self, body: bytes) -> web.Response:
        """The answer, or a refusal once something was wrong."""
        headers = {"Content-Type": "application/json", self.rules.request_id: f"req-{len(self.asked)}"}
        if self.complaints:
            return web.Response(body=answers.error(self.complaints[-1], code=None), status=400, headers=headers)
        return web.Response(body=body, headers=headers)

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if self.complaints:
            return self._sealed(b"")
        headers = {"Content-Type": "text/event-stream", self.rules.request_id: f"req-{len(self.asked)}"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for event in answers.script(body).whole():
            await response.write(event)
            await asyncio.sleep(0)
        return response


def _whole(body: dict[str, Any]) -> bytes:
    return answers.odd(answers.completion(body))


@contextlib.asynccontextmanager
async def vendor_server(vendor: str) -> AsyncIterator[VendorServer]:
    """The server of a vendor in this event loop; fails at the end if it had anything to complain of."""
    server = VendorServer(RULES[vendor])
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
    assert not server.complaints, server.complaints
