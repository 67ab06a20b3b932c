"""The loop of every Python client: one JSON job a line in, one JSON line out of what the client saw."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Job = Mapping[str, Any]
Seen = dict[str, Any]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def weather(city: str = "nowhere") -> str:
    """What the tool answers: plain enough to be found again in the request that carries it back."""
    return f"sunny in {city}"


def serve(actions: Mapping[str, Callable[[Job, Seen], None]]) -> None:
    """Runs jobs until standard input ends; an exception is part of what was seen."""
    for line in sys.stdin:
        job = json.loads(line)
        seen: Seen = {
            "text": "",
            "pieces": 0,
            "finish_reason": None,
            "usage": None,
            "tools": [],
            "error": None,
        }
        started_s = time.monotonic()
        try:
            actions[job["do"]](job, seen)
        except Exception as error:  # noqa: BLE001 - whatever the client raises is what the test asks about
            seen["error"] = describe(error)
        seen["elapsed_s"] = time.monotonic() - started_s
        print(json.dumps(seen), flush=True)


def describe(error: Exception) -> Seen:
    """The error as the application sees it: all its classes, and what the `openai` classes carry."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    return {
        "classes": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "message": str(error),
        "retry_after": headers.get("retry-after"),
    }
