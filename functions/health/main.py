"""The health function, as Cloud Run serves it."""

import functions_framework.aio

from shared import bootstrap
from shared.api.endpoints import Request, Response
from shared.api.routes import HEALTH


@functions_framework.aio.http
async def health(request: Request) -> Response:
    """Whether this revision can serve: `?deep=true` asks the provider itself."""
    return await bootstrap.endpoints().respond(request, HEALTH)
