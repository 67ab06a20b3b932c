"""Real third-party clients against the gateway: they ask, stream, call a tool and meet errors."""

from __future__ import annotations

import pytest

from tests.clients.conftest import Pair
from tests.clients.worker import Client, Seen

ANSWER = "Hello, world!"
ANSWER_TOKENS = 13


def assert_is(seen: Seen, status: int | None, code: str, kind: str, client: Client) -> None:
    """The client's own typed error, with the gateway's status and code."""
    assert seen.error is not None, seen
    assert (seen.error.status, seen.error.code) == (status, code)
    assert ("AISDKError" if client.is_ai_sdk else kind) in seen.error.classes


def test_asks(client: Client, pair: Pair) -> None:
    """A question gets the upstream's whole answer, its finish reason and its usage."""
    seen = client.run("ask", pair.url, "Hi")
    assert seen.error is None
    assert (seen.text, seen.finish_reason, seen.usage) == (ANSWER, "stop", ANSWER_TOKENS)


def test_streams(client: Client, pair: Pair) -> None:
    """A streamed answer arrives token by token, ends as the upstream ended it and carries the usage."""
    seen = client.run("stream", pair.url, "Hi")
    assert seen.error is None
    assert (seen.text, seen.pieces, seen.finish_reason, seen.usage) == (ANSWER, 4, "stop", ANSWER_TOKENS)


@pytest.mark.parametrize("do", ["tool", "tool-stream"])
def test_calls_a_tool(client: Client, pair: Pair, do: str) -> None:
    """The model's tool call reaches the client, the tool's result reaches the model, the text comes back."""
    seen = client.run(do, pair.url, "Hi")
    assert seen.error is None
    assert seen.tools == [{"name": "weather", "arguments": {"city": "Paris"}}]
    assert (seen.text, seen.finish_reason) == (ANSWER, "stop")
    question, result = pair.received()
    assert question["tools"][0]["function"]["name"] == "weather"
    assert result["messages"][-1]["role"] == "tool"
    assert "sunny in Paris" in str(result["messages"][-1]["content"])
    assert result["messages"][-1]["tool_call_id"] == result["messages"][-2]["tool_calls"][0]["id"]


@pytest.mark.parametrize("do", ["ask", "stream"])
def test_an_unknown_model_is_a_not_found_error(client: Client, pair: Pair, do: str) -> None:
    """A model without a route is the client's own 404, not retried and unknown to the upstream."""
    seen = client.run(do, pair.url, "Hi", "no-such-model", retries=2)
    assert_is(seen, 404, "model_not_found", "NotFoundError", client)
    assert pair.received() == []


@pytest.mark.parametrize("do", ["ask", "stream"])
def test_a_rate_limit_is_retried_after_the_time_it_names(client: Client, pair: Pair, do: str) -> None:
    """The upstream's 429 and its Retry-After reach the client, which waits that long and asks again."""
    seen = client.run(do, pair.url, "fault:status:429:rate_limit_exceeded:1", retries=1)
    assert_is(seen, 429, "rate_limit", "RateLimitError", client)
    assert seen.error is not None
    assert seen.error.retry_after == "1"
    assert seen.elapsed_s >= 1
    assert len(pair.received()) == 2


@pytest.mark.parametrize("do", ["ask", "stream"])
def test_our_own_bad_key_is_not_retried(client: Client, pair: Pair, do: str) -> None:
    """An upstream 401 is a 500 here, and `x-should-retry: false` keeps the client from asking again."""
    seen = client.run(do, pair.url, "fault:status:401:invalid_api_key", retries=2)
    assert_is(seen, 500, "auth_error", "InternalServerError", client)
    assert len(pair.received()) == 1


@pytest.mark.parametrize("client", ["ai-sdk"], indirect=True)
def test_the_ai_sdk_needs_a_middleware_for_that(client: Client, pair: Pair) -> None:
    """As it comes, the AI SDK repeats every 5xx: it does not know `x-should-retry`."""
    seen = client.run("ask", pair.url, "fault:status:401:invalid_api_key", retries=1, obey=False)
    assert_is(seen, 500, "auth_error", "RetryError", client)
    assert len(pair.received()) == 2


@pytest.mark.parametrize("fault", ["cut:1", "cut-reset:2", "clean-end:2", "done-without-finish:2", "in-band-error:2"])
def test_a_broken_stream_is_an_error(client: Client, pair: Pair, fault: str) -> None:
    """A stream that breaks after its first token raises; its beginning is no finished answer."""
    seen = client.run("stream", pair.url, f"fault:{fault}")
    assert_is(seen, None, "upstream_error", "APIError", client)
    assert ANSWER.startswith(seen.text)
    assert 0 < seen.pieces < 4
    assert seen.finish_reason in {None, "error"}


@pytest.mark.parametrize("do", ["ask", "stream"])
@pytest.mark.parametrize("fault", ["reset", "cut:0", "html", "json-error-200"])
def test_a_failure_before_the_first_token_is_a_plain_error(client: Client, pair: Pair, do: str, fault: str) -> None:
    """What fails before it begins is the client's own 5xx error, streamed or not."""
    seen = client.run(do, pair.url, f"fault:{fault}")
    assert_is(seen, 502, "connection_error" if fault == "reset" else "upstream_error", "InternalServerError", client)
    assert (seen.text, seen.pieces) == ("", 0)


def test_the_client_goes_on_after_a_failure(client: Client, pair: Pair) -> None:
    """The connection of a broken stream is not what the next answer comes from."""
    assert client.run("stream", pair.url, "fault:cut:2").error is not None
    assert client.run("stream", pair.url, "Hi").text == ANSWER
    assert client.run("ask", pair.url, "Hi").text == ANSWER


def test_asks_the_stub(client: Client, stub_url: str) -> None:
    """Without a key the stub answers, whatever the model's name."""
    seen = client.run("ask", stub_url, "Hi", "any-name")
    assert seen.error is None
    assert seen.text.startswith("Echo Brain (stub): received 1 message")
    assert (seen.finish_reason, seen.usage) == ("stop", 25)


def test_streams_the_stub(client: Client, stub_url: str) -> None:
    """The stub's seven tokens arrive one by one."""
    seen = client.run("stream", stub_url, "Hi", "any-name")
    assert seen.error is None
    assert (seen.text, seen.pieces) == ("Echo Brain (stub): streaming response.", 7)
    assert (seen.finish_reason, seen.usage) == ("stop", 25)
