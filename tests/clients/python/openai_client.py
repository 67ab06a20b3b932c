"""The `openai` package as an application uses it."""

import json
from functools import lru_cache
from typing import Any

from openai import OpenAI
from serve import WEATHER, Job, Seen, serve, weather


@lru_cache
def client(base_url: str, retries: int) -> OpenAI:
    """One client a gateway, so that a job runs on the connections that earlier jobs left behind."""
    return OpenAI(base_url=base_url, api_key="the-caller", max_retries=retries, timeout=30)


def create(job: Job, messages: list[Any], **options: Any) -> Any:
    """One call of chat completions."""
    completions = client(job["base_url"], job["retries"]).chat.completions
    return completions.create(model=job["model"], messages=messages, **options)


def user(job: Job) -> list[Any]:
    """The conversation before the first answer."""
    return [{"role": "user", "content": job["prompt"]}]


def ask(job: Job, seen: Seen) -> None:
    """A question and its whole answer."""
    note(create(job, user(job)), seen)


def note(completion: Any, seen: Seen) -> None:
    """Keeps what a whole answer said."""
    choice = completion.choices[0]
    seen |= {"text": choice.message.content, "pieces": 1, "finish_reason": choice.finish_reason}
    seen["usage"] = completion.usage.total_tokens


def stream(job: Job, seen: Seen) -> None:
    """A question and its streamed answer."""
    with create(job, user(job), stream=True, stream_options={"include_usage": True}) as chunks:
        for chunk in chunks:
            if chunk.usage:
                seen["usage"] = chunk.usage.total_tokens
            for choice in chunk.choices:
                seen["text"] += choice.delta.content or ""
                seen["pieces"] += bool(choice.delta.content)
                seen["finish_reason"] = choice.finish_reason or seen["finish_reason"]


def tool(job: Job, seen: Seen) -> None:
    """The model asks for the tool, gets its result and answers."""
    message = create(job, user(job), tools=[WEATHER]).choices[0].message
    note(create(job, [*user(job), *run_tools(message, seen)], tools=[WEATHER]), seen)


def tool_stream(job: Job, seen: Seen) -> None:
    """The same, with the SDK's own helper putting the streamed tool call together."""
    completions = client(job["base_url"], job["retries"]).chat.completions
    asked: dict[str, Any] = {"model": job["model"], "tools": [WEATHER]}
    asked["stream_options"] = {"include_usage": True}
    with completions.stream(messages=user(job), **asked) as first:
        message = first.get_final_completion().choices[0].message
    with completions.stream(messages=[*user(job), *run_tools(message, seen)], **asked) as second:
        note(second.get_final_completion(), seen)


def run_tools(message: Any, seen: Seen) -> list[Any]:
    """Runs what the model asked for; the messages that carry its call and the results back."""
    messages = [message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})]
    for call in message.tool_calls:
        arguments = json.loads(call.function.arguments)
        seen["tools"].append({"name": call.function.name, "arguments": arguments})
        messages.append({"role": "tool", "tool_call_id": call.id, "content": weather(**arguments)})
    return messages


if __name__ == "__main__":
    serve({"ask": ask, "stream": stream, "tool": tool, "tool-stream": tool_stream})
