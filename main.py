"""The deploy seam: every function by name, as `functions-framework --target NAME` and Cloud Run look them up here."""

from functions.chat.main import chat
from functions.health.main import health
from functions.stream.main import stream
from shared.bootstrap import check_settings

__all__ = ["chat", "health", "stream"]

check_settings()  # here, not on the first request: a revision with a wrong setting must fail to start
