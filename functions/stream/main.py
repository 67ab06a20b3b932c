"""The stream function, as Cloud Run serves it."""

import functions_framework.aio

from shared import bootstrap
from shared.api.endpoints import Request, Response
from shared.api.routes import STREAM


@functions_framework.aio.http
async def stream(request: Request) -> Response:
    """One question, an answer as it comes: server-sent events in both dialects."""
    return await bootstrap.endpoints().respond(request, STREAM)
