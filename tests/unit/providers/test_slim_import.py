"""The slim import of the SDK: far less is loaded, and nothing of it is missing."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tests.faults.upstream import breaking_upstream
from tests.servers import ROOT

COUNT = """
import json, sys
{}
import openai
print(json.dumps(sum(name.split(".")[0] in ("openai", "pydantic") for name in sys.modules)))
"""
SLIM = "from shared.providers.slim_import import defer_sdk_types; defer_sdk_types()"
EVERYTHING = f"""
import asyncio, json, sys
{SLIM}
import openai
from openai.types.responses import Response
from openai.types.chat import ChatCompletion
import openai.types as types
assert openai.types.chat.ChatCompletion is ChatCompletion
assert openai.types.responses.Response is Response
assert types.Model.model_fields and Response.model_fields
assert types.__all__ if hasattr(types, "__all__") else True

async def main():
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=sys.argv[1], max_retries=0) as client:
        messages = [{{"role": "user", "content": "Hello"}}]
        answer = await client.chat.completions.create(model="m", messages=messages)
        assert type(answer) is ChatCompletion
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
        tokens = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        models = [model.id async for model in client.models.list()]
    print(json.dumps([answer.choices[0].message.content, "".join(tokens), models]))

asyncio.run(main())
"""


async def run(code: str, *arguments: str) -> Any:
    """What a fresh interpreter prints, as JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", code, *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_far_fewer_modules_are_loaded() -> None:
    """The types of the SDK stay where they are until somebody asks for one."""
    plain, slim = await asyncio.gather(run(COUNT.format("")), run(COUNT.format(SLIM)))
    assert slim < plain / 2


async def test_nothing_of_the_sdk_is_missing() -> None:
    """Types are found by attribute and by import, and typed calls work, streamed and not."""
    async with breaking_upstream() as upstream:
        said = await run(EVERYTHING, upstream.base_url)
    assert said == ["Hello, world!", "Hello, world!", ["gpt-4.1-mini", "gpt-4.1"]]


async def test_after_a_full_import_it_does_nothing() -> None:
    """Called too late it changes nothing."""
    before = "import json, openai, openai.types as before"
    after = "import openai.types as after\nprint(json.dumps(before is after))"
    assert await run(f"{before}\n{SLIM}\n{after}") is True


async def test_called_twice_it_does_nothing_more() -> None:
    """The second call finds the first one's work."""
    first = "import json, sys\none = sys.modules['openai.types']"
    second = "print(json.dumps(one is sys.modules['openai.types']))"
    assert await run(f"{SLIM}\n{first}\n{SLIM}\n{second}") is True
