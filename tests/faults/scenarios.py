"""The faults of the breaking upstream: `SCENARIOS` maps each name to the coroutine that plays it.

`fault:NAME:ARG` in the model or in the last user message picks one; text after a blank is ignored.
A request that is not streamed gets the closest thing to the fault.
"""

from . import broken_answers, broken_connections, unusual_answers  # noqa: F401 (each enters its scenarios)
from .playing import SCENARIOS, ok

__all__ = ["SCENARIOS", "ok"]
