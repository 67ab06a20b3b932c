"""The chat function, as Cloud Run serves it."""

import functions_framework.aio

from shared import bootstrap
from shared.api.endpoints import Request, Response
from shared.api.routes import CHAT


@functions_framework.aio.http
async def chat(request: Request) -> Response:
    """One question, one answer: the Brain dialect on `/`, the OpenAI dialect on `/v1/chat/completions`."""
    return await bootstrap.endpoints().respond(request, CHAT)
