"""The drill itself: load, kill, outage, return, recovery, told line by line as it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from drill.load import QUESTION, RATE_PER_S, Answer, Load, text_of
from drill.servers import START_LIMIT_S, Server

THRESHOLD: Final = 3  # failures in a row that open the circuit
SPEAKING: Final = 5  # streams that the kill shall cut off
WAIT_LIMIT_S: Final = 12.0  # for what should come at once
MODEL_SERVER: Final = {"providers": {"mock": {"type": "mock", "pace": 0.2}}}  # slow enough to die in mid-sentence
MEANING: Final = {
    "closed -> open": "it is asked no more",
    "open -> half_open": "one request is let through as a probe",
    "half_open -> open": "the probe failed; its caller gets the survivor's answer",
    "half_open -> closed": "the probe was answered; it serves again",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the acts last, in seconds, and whether the survivor can go on with a stream that was cut."""

    steady_s: float = 4.0
    outage_s: float = 2.0  # after the first probe has failed
    recovered_s: float = 3.0
    cooldown_s: float = 3.0
    continues: bool = True


class Drill:
    """One run with files in `folder`; `tell` gets each line of the story."""

    def __init__(self, plan: Plan, folder: Path, tell: Callable[[str], None]) -> None:
        self._plan, self._tell = plan, tell
        self._answers: list[Answer] = []
        self._continued = 0
        self._moments = {"began": time.monotonic()}  # when it was killed, back, and when the circuit first moved how
        self._circuit = "closed"  # the primary's
        self._primary = Server("primary", MODEL_SERVER, folder)
        self._survivor = Server("survivor", MODEL_SERVER, folder)
        self._gateway = Server("gateway", gateway_config(plan, self._primary.url, self._survivor.url), folder)

    async def run(self) -> None:
        """Plays it; raises `NotStartedError`. Whatever happens, no process is left."""
        with ExitStack() as stack:
            for server in (self._primary, self._survivor, self._gateway):
                stack.callback(server.kill)
                await server.start()
                self._say(f"{server.name} is up at {server.url}")
            async with aiohttp.request("POST", f"{self._survivor.url}/v1/chat/completions", json=QUESTION) as response:
                text = text_of(response.content_type, await response.read())
            load = Load(self._gateway.url, text, self._answered)
            async with load.running():
                await self._acts(load)

    def table(self) -> dict[str, object]:
        """The figures, by what they are."""
        served = [answer.headers.get("X-Served-By") for answer in self._answers if not answer.error]
        return {
            "requests": len(self._answers),
            "  served by primary": served.count("primary"),
            "  served by survivor": served.count("survivor"),
            "client-visible errors": len(self._errors()),
            "failed over before the first word": sum("X-Failed-Providers" in one.headers for one in self._answers),
            "mid-stream continuations": self._continued,
            "seconds to open": self._between("killed", "closed -> open"),
            "seconds to close": self._between("back", "half_open -> closed"),
        }

    def complaints(self) -> list[str]:
        """Why the drill is not passed."""
        opened = self._moments.get("closed -> open", 0.0) >= self._moments["killed"]
        circuit = (
            [] if opened and self._circuit == "closed" else ["the circuit did not open by the kill and close again"]
        )
        return self._errors()[:1] + circuit

    async def _acts(self, load: Load) -> None:
        self._say(f"load: {RATE_PER_S} requests a second, chats and streams, in both dialects, all for primary")
        await self._until(lambda: False, self._plan.steady_s)
        await self._until(lambda: load.speaking >= SPEAKING, WAIT_LIMIT_S)
        self._primary.kill()
        self._moments["killed"] = time.monotonic()
        self._say(f"KILLED primary with SIGKILL; {load.speaking} streams were under way")
        await self._until(lambda: "half_open -> open" in self._moments, self._plan.cooldown_s + WAIT_LIMIT_S)
        await self._until(lambda: False, self._plan.outage_s)
        self._say("primary is started again on the same port")
        starting = asyncio.create_task(self._primary.start())
        await self._until(starting.done, START_LIMIT_S)
        await starting
        self._moments["back"] = time.monotonic()
        self._say("primary is back; the gateway does not know it yet")
        await self._until(lambda: "half_open -> closed" in self._moments, self._plan.cooldown_s + WAIT_LIMIT_S)
        await self._until(lambda: False, self._plan.recovered_s)

    async def _until(self, holds: Callable[[], bool], limit_s: float) -> None:
        limit = time.monotonic() + limit_s
        while not holds() and time.monotonic() < limit:
            for line in self._gateway.logged():
                self._continued += bool(line.get("continued_by"))
                if line["logger"] == "echo_brain.circuit":
                    self._circuit_moved(line["provider"], line["from"], line["to"])
            await asyncio.sleep(0.02)

    def _circuit_moved(self, provider: str, before: str, after: str) -> None:
        move = f"{before} -> {after}"
        if provider == "primary":
            self._moments.setdefault(move, time.monotonic())
            self._circuit = after
        self._say(f"circuit of {provider}: {move}: {MEANING.get(move, '?')}")

    def _answered(self, answer: Answer) -> None:
        self._answers.append(answer)
        if answer.error and len(self._errors()) <= 5:
            self._say(f"CLIENT-VISIBLE ERROR: {answer.path}: {answer.error}")
        if [one for one in self._answers if one.headers.get("X-Served-By") == "survivor"] == [answer]:
            self._say("first answer by survivor")
        if [one for one in self._answers if "X-Failed-Providers" in one.headers] == [answer]:
            self._say("first answer that failed over; this is all that its caller could notice:")
            for name, value in answer.headers.items():
                self._tell(f"{'':11}{name}: {value}")

    def _errors(self) -> list[str]:
        return [f"{answer.path}: {answer.error}" for answer in self._answers if answer.error]

    def _between(self, start: str, end: str) -> str:
        if end not in self._moments:
            return "never"
        return f"{max(0.0, self._moments[end] - self._moments[start]):.2f}"

    def _say(self, text: str) -> None:
        self._tell(f"[{time.monotonic() - self._moments['began']:5.1f} s] {text}")


def gateway_config(plan: Plan, primary_url: str, survivor_url: str) -> dict[str, Any]:
    """Two providers of the same model; the second is for when the first is out."""
    both = {
        "type": "openai-compatible",
        "model": QUESTION["model"],
        "retry_backoff_min": 0.05,
        "retry_backoff_max": 0.2,
        "circuit_breaker_threshold": THRESHOLD,
        "circuit_breaker_cooldown": plan.cooldown_s,
    }
    return {
        "providers": {
            "primary": {**both, "base_url": f"{primary_url}/v1", "priority": 1},
            "survivor": {**both, "base_url": f"{survivor_url}/v1", "priority": 2, "continues_prefill": plan.continues},
        },
        "routes": {"default": {"targets": [{"provider": "primary"}, {"provider": "survivor"}]}},
    }
