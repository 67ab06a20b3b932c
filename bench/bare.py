"""The least that functions-framework can do: a function with no upstream and always the same JSON."""

from __future__ import annotations

from typing import Any

import functions_framework.aio
from starlette.requests import Request

_ANSWER = {"ok": True, "message": {"role": "assistant", "content": "bare"}}


@functions_framework.aio.http
async def bare(request: Request) -> dict[str, Any]:  # noqa: ARG001 - the framework's signature
    """Answers without looking at the question."""
    return _ANSWER
