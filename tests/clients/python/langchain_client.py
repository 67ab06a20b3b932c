"""`langchain-openai` as an application uses it; runs in an environment of its own."""

from functools import lru_cache
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from serve import WEATHER, Job, Seen, serve, weather


@lru_cache
def chat(base_url: str, model: str, retries: int) -> ChatOpenAI:
    """One model object a gateway, so that a job runs on the connections that earlier jobs left behind."""
    return ChatOpenAI(
        base_url=base_url,
        model=model,
        api_key="the-caller",
        max_retries=retries,
        timeout=30,
        stream_usage=True,
    )


def model(job: Job) -> ChatOpenAI:
    """The model the job names."""
    return chat(job["base_url"], job["model"], job["retries"])


def ask(job: Job, seen: Seen) -> None:
    """A question and its whole answer."""
    note(model(job).invoke(job["prompt"]), seen)


def note(message: BaseMessage, seen: Seen) -> None:
    """Keeps what a whole answer said."""
    seen |= {
        "text": message.text,
        "pieces": 1,
        "finish_reason": message.response_metadata.get("finish_reason"),
    }
    seen["usage"] = message.usage_metadata["total_tokens"]


def stream(job: Job, seen: Seen) -> None:
    """A question and its streamed answer."""
    for chunk in model(job).stream(job["prompt"]):
        seen["text"] += chunk.text
        seen["pieces"] += bool(chunk.text)
        seen["finish_reason"] = chunk.response_metadata.get("finish_reason") or seen["finish_reason"]
        if chunk.usage_metadata:
            seen["usage"] = chunk.usage_metadata["total_tokens"]


def tool(job: Job, seen: Seen) -> None:
    """The model asks for the tool, gets its result and answers."""
    bound = model(job).bind_tools([WEATHER])
    question = HumanMessage(job["prompt"])
    note(bound.invoke([question, *run_tools(bound.invoke([question]), seen)]), seen)


def tool_stream(job: Job, seen: Seen) -> None:
    """The same with both answers streamed."""
    bound = model(job).bind_tools([WEATHER])
    question = HumanMessage(job["prompt"])
    first = whole(bound.stream([question]))
    note(whole(bound.stream([question, *run_tools(first, seen)])), seen)


def whole(chunks: Any) -> Any:
    """The sum of the chunks, which is how LangChain puts a streamed message together."""
    first = next(chunks)
    return sum(chunks, start=first)


def run_tools(message: AIMessage, seen: Seen) -> list[BaseMessage]:
    """Runs what the model asked for; the messages that carry its call and the results back."""
    messages: list[BaseMessage] = [message]
    for call in message.tool_calls:
        seen["tools"].append({"name": call["name"], "arguments": call["args"]})
        messages.append(ToolMessage(weather(**call["args"]), tool_call_id=call["id"]))
    return messages


if __name__ == "__main__":
    serve({"ask": ask, "stream": stream, "tool": tool, "tool-stream": tool_stream})
