"""The deploy seam: every function by name, as `functions-framework --target NAME` and Cloud Run look them up here."""

import sys

from functions.chat.main import chat
from functions.health.main import health
from functions.stream.main import stream
from shared.bootstrap import check_settings
from shared.settings import SettingsError

__all__ = ["chat", "health", "stream"]

try:  # here, not on the first request: a revision with a wrong setting must fail to start
    check_settings()
except SettingsError as error:
    sys.exit(f"Echo Brain cannot start: {error}")
