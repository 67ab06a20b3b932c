"""Every route of every function, over real HTTP under the stock framework: answers, headers, methods, paths, CORS."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from shared import VERSION
from tests.asking import QUESTION, Reply, ask, brain_events, get, openai_chunks, post
from tests.functions.conftest import DEPLOYMENT, ORIGIN
from tests.servers import Server

TRACE = "0af7651916cd43dd8448eb211c80319c"
CHAT = ("/v1/brain/chat", "/")
STREAM = ("/v1/brain/chat/stream", "/")
HEALTH = ("/v1/brain/health", "/")
COMPLETIONS = "/v1/chat/completions"
RUNTIME = {"provider": "stub", "env": "test", "git_sha": "4f2c9d1", "build_time": "2026-03-01T11:00:00Z"}
POSTS = [
    *(("chat", path, "brain") for path in CHAT),
    ("chat", COMPLETIONS, "openai"),
    *(("stream", path, "brain") for path in STREAM),
    ("stream", COMPLETIONS, "openai"),
]
GETS = [
    ("chat", "/v1/models", "openai"),
    ("chat", "/health", "brain"),
    ("chat", "/version", "brain"),
    ("stream", "/health", "brain"),
    ("stream", "/version", "brain"),
    *(("health", path, "brain") for path in HEALTH),
    ("health", "/health", "brain"),
    ("health", "/version", "brain"),
]
UNKNOWN = [
    ("chat", "/nowhere", "brain"),
    ("chat", "/v1/brain/chats", "brain"),
    ("chat", "/v1/brain/chat/", "brain"),
    ("chat", "/v1/brain/chat/stream", "brain"),
    ("chat", "/v1/brain/health", "brain"),
    ("chat", "/v1/chat/completions/", "openai"),
    ("chat", "/v1/models/gpt-x", "openai"),
    ("chat", "/v1/embeddings", "openai"),
    ("chat", "/V1/brain/chat", "brain"),
    ("chat", "//v1/brain/chat", "brain"),
    ("stream", "/v1/brain/chat", "brain"),
    ("stream", "/v1/brain/chat/stream/", "brain"),
    ("stream", "/v1/models", "openai"),
    ("health", "/v1/brain/chat", "brain"),
    ("health", "/v1/chat/completions", "openai"),
    ("health", "/health/", "brain"),
]


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID in its usual form."""
    return str(uuid.UUID(text)) == text


def without_trace(runtime: Mapping[str, str]) -> dict[str, str]:
    """The runtime but for its trace id."""
    return {name: value for name, value in runtime.items() if name != "trace_id"}


@pytest.mark.parametrize("path", CHAT)
def test_chat_answers_in_the_brain_dialect(chat_url: str, path: str) -> None:
    """The Brain response, whole and nothing else, on the canonical path and on `/`."""
    reply = post(chat_url, path, {**QUESTION, "session_id": "s-42"})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    body = reply.json()
    runtime = body.pop("runtime")
    assert body == {
        "ok": True,
        "session_id": "s-42",
        "message": {"role": "assistant", "content": "Echo Brain (stub): received 1 message."},
        "usage": {"prompt_tokens": 10, "completion_tokens": 15, "total_tokens": 25},
        "metadata": {"provider": "stub", "model": "stub", "openai_request_id": None},
    }
    assert without_trace(runtime) == RUNTIME
    assert runtime["trace_id"] == reply.headers["x-trace-id"]


def test_a_session_is_made_where_none_is_given(chat_url: str) -> None:
    """A UUID, another one each time."""
    first, second = (post(chat_url, "/").json()["session_id"] for _ in range(2))
    assert is_uuid(first)
    assert first != second


@pytest.mark.parametrize("path", STREAM)
def test_stream_answers_in_events(stream_url: str, path: str) -> None:
    """`meta`, the tokens, `final` with the whole answer."""
    reply = post(stream_url, path, {**QUESTION, "session_id": "s-42"})
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert (reply.headers["cache-control"], reply.headers["x-accel-buffering"]) == ("no-cache", "no")
    rows = brain_events(reply.body)
    assert [name for name, _ in rows] == ["meta", *["token"] * 7, "final"]
    assert rows[0][1] == {
        "trace_id": reply.headers["x-trace-id"],
        "session_id": "s-42",
        "provider": "stub",
        "model": "stub",
    }
    tokens = [data["token"] for name, data in rows if name == "token"]
    assert tokens == ["Echo", " Brain", " (stub)", ":", " streaming", " response", "."]
    assert all(data["session_id"] == "s-42" for name, data in rows[1:])
    final = rows[-1][1]
    assert final["message"] == {"role": "assistant", "content": "".join(tokens)}
    assert (final["ok"], final["usage"]["total_tokens"]) == (True, 25)
    assert without_trace(final["runtime"]) == RUNTIME


@pytest.mark.parametrize("target", ["chat", "stream"])
def test_completions_without_stream_are_json(functions: Mapping[str, Server], target: str) -> None:
    """An OpenAI completion on either function, for any model's name."""
    reply = post(functions[target].url, COMPLETIONS, {**QUESTION, "model": "gpt-any"})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    body = reply.json()
    assert (body["object"], body["model"]) == ("chat.completion", "gpt-any")
    assert body["choices"][0]["message"]["content"] == "Echo Brain (stub): received 1 message."
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 15, "total_tokens": 25}


@pytest.mark.parametrize("target", ["chat", "stream"])
@pytest.mark.parametrize("usage", [True, False])
def test_completions_with_stream_are_chunks(functions: Mapping[str, Server], target: str, usage: bool) -> None:
    """OpenAI chunks with [DONE] last; the usage chunk only for who asks for it."""
    options = {"stream_options": {"include_usage": True}} if usage else {}
    reply = post(functions[target].url, COMPLETIONS, {**QUESTION, "stream": True, **options})
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, done = openai_chunks(reply.body)
    assert done == "[DONE]"
    said = "".join(row["delta"].get("content") or "" for chunk in chunks for row in chunk["choices"])
    assert said == "Echo Brain (stub): streaming response."
    assert [chunk for chunk in chunks if not chunk["choices"]] == ([chunks[-1]] if usage else [])


@pytest.mark.parametrize("stream", [False, None])
def test_a_stream_that_is_declined_is_json(stream_url: str, stream: bool | None) -> None:
    """False and null are the same as absent."""
    assert post(stream_url, COMPLETIONS, {**QUESTION, "stream": stream}).json()["object"] == "chat.completion"


def test_models_are_listed_as_openai_does(chat_url: str) -> None:
    """One row a model, of the provider."""
    body = get(chat_url, "/v1/models").json()
    assert body == {"object": "list", "data": [{"id": "stub", "object": "model", "created": 0, "owned_by": "stub"}]}


@pytest.mark.parametrize("path", HEALTH)
def test_health_says_who_serves(health_url: str, path: str) -> None:
    """The state of the revision, with the time of now."""
    reply = get(health_url, path)
    body = reply.json()
    at = datetime.fromisoformat(body.pop("time"))
    assert reply.status == 200
    assert body == {"ok": True, "version": VERSION, "provider": "stub", "env": "test"}
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("flag", ["true", "1", "TRUE"])
def test_deep_health_asks_the_provider(health_url: str, flag: str) -> None:
    """Each provider with its state."""
    state = get(health_url, f"/v1/brain/health?deep={flag}").json()["providers"]["stub"]
    assert isinstance(state.pop("latency_ms"), float)
    assert state == {"healthy": True, "error": None, "circuit": "closed"}


@pytest.mark.parametrize("flag", ["false", "0"])
def test_health_that_is_not_deep_does_not(health_url: str, flag: str) -> None:
    """Said or not said."""
    assert "providers" not in get(health_url, f"/?deep={flag}").json()


def test_a_flag_that_is_neither_is_refused(health_url: str) -> None:
    """By its name, in the route's envelope."""
    reply = get(health_url, "/v1/brain/health?deep=perhaps")
    assert (reply.status, reply.code, reply.dialect()) == (400, "bad_request", "brain")
    assert reply.json()["error"]["message"].startswith("deep: ")


@pytest.mark.parametrize("target", ["chat", "stream", "health"])
def test_probes_answer_on_every_function(functions: Mapping[str, Server], target: str) -> None:
    """`/health` and `/version`, so that every service can be probed."""
    assert get(functions[target].url, "/health").json() == {"status": "ok"}
    shown = {name.lower(): value for name, value in DEPLOYMENT.items()}
    assert get(functions[target].url, "/version").json() == {
        "env": shown["app_env"],
        "git_sha": shown["git_sha"],
        "build_time": shown["build_time"],
    }


def traced(url: str, **headers: str) -> str:
    """The trace id that a request with these headers gets; body and header agree."""
    reply = post(url, "/", **headers)
    trace_id: str = reply.json()["runtime"]["trace_id"]
    assert reply.headers["x-trace-id"] == trace_id
    return trace_id


def test_the_callers_trace_is_taken(chat_url: str) -> None:
    """`traceparent` before Google's header before our own."""
    parent = f"00-{TRACE}-b7ad6b7169203331-01"
    cloud = "105445aa7843bc8bf206b12000100000"
    assert traced(chat_url, traceparent=parent, X_Cloud_Trace_Context=f"{cloud}/1;o=1", X_Trace_Id="mine") == TRACE
    assert traced(chat_url, X_Cloud_Trace_Context=f"{cloud}/1;o=1", X_Trace_Id="mine") == cloud
    assert traced(chat_url, X_Trace_Id="order-42.a_b") == "order-42.a_b"


@pytest.mark.parametrize("value", ["", "not a word", "<script>alert(1)</script>", "a" * 129, "-x", "\xe9", "a,b"])
def test_a_malformed_trace_is_replaced(chat_url: str, value: str) -> None:
    """What is not well formed is never echoed; the request is served all the same."""
    assert is_uuid(traced(chat_url, X_Trace_Id=value))
    assert is_uuid(traced(chat_url, traceparent=value, X_Cloud_Trace_Context=value))


@pytest.mark.parametrize(
    ("target", "path"), [("chat", "/"), ("chat", COMPLETIONS), ("stream", "/"), ("stream", COMPLETIONS)]
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_says_who_served_it(functions: Mapping[str, Server], target: str, path: str, stream: bool) -> None:
    """Provider and attempts are in the headers, streamed or not; nothing has failed."""
    body = {**QUESTION, "stream": stream} if path == COMPLETIONS else QUESTION
    reply = post(functions[target].url, path, body, X_Trace_Id="mine")
    assert reply.status == 200
    assert {name: reply.headers.get(name) for name in ("x-trace-id", "x-served-by", "x-attempts")} == {
        "x-trace-id": "mine",
        "x-served-by": "stub",
        "x-attempts": "1",
    }
    assert "x-failed-providers" not in reply.headers


def refused(reply: Reply, status: int, code: str, dialect: str) -> None:
    """Asserts that this is that refusal, in that envelope, with a trace and no invitation to retry."""
    assert (reply.status, reply.code, reply.dialect()) == (status, code, dialect)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-trace-id"]


@pytest.mark.parametrize(("target", "path", "dialect"), POSTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_a_route_for_posts_takes_no_other_method(
    functions: Mapping[str, Server], target: str, path: str, dialect: str, method: str
) -> None:
    """405 with what is allowed, in the route's own envelope."""
    reply = ask(functions[target].url, method, path)
    refused(reply, 405, "method_not_allowed", dialect)
    assert reply.headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize(("target", "path", "dialect"), GETS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_route_for_gets_takes_no_other_method(
    functions: Mapping[str, Server], target: str, path: str, dialect: str, method: str
) -> None:
    """405 with what is allowed, in the route's own envelope."""
    reply = ask(functions[target].url, method, path, b"{}")
    refused(reply, 405, "method_not_allowed", dialect)
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(("target", "path", "dialect"), GETS)
def test_head_is_get_without_a_body(functions: Mapping[str, Server], target: str, path: str, dialect: str) -> None:
    """Status and length are GET's."""
    url = functions[target].url
    reply = ask(url, "HEAD", path)
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) > 0


def test_head_is_no_post(chat_url: str) -> None:
    """405 without a body, and the connection stays usable."""
    reply = ask(chat_url, "HEAD", "/v1/brain/chat")
    assert (reply.status, reply.body, reply.headers["allow"]) == (405, b"", "POST, OPTIONS")


@pytest.mark.parametrize(("target", "path", "dialect"), [*POSTS, *GETS])
def test_options_says_what_is_allowed(functions: Mapping[str, Server], target: str, path: str, dialect: str) -> None:
    """204 with `Allow`, whoever asks."""
    reply = ask(functions[target].url, "OPTIONS", path)
    assert (reply.status, reply.body) == (204, b"")
    expected = "POST, OPTIONS" if (target, path, dialect) in POSTS else "GET, HEAD, OPTIONS"
    assert reply.headers["allow"] == expected
    assert not [name for name in reply.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(("target", "path", "dialect"), UNKNOWN)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_an_unknown_path_is_not_found(
    functions: Mapping[str, Server], target: str, path: str, dialect: str, method: str
) -> None:
    """404 in the envelope of whoever speaks on such paths; a trailing slash is another path."""
    refused(ask(functions[target].url, method, path), 404, "not_found", dialect)


def test_the_query_is_not_the_path(chat_url: str) -> None:
    """Frontends add cache busters."""
    assert post(chat_url, "/v1/brain/chat?x=1&y=/").status == 200


def test_a_path_written_with_escapes_is_the_same_path(chat_url: str) -> None:
    """As the standard says."""
    assert post(chat_url, "/v1/brain/ch%61t").status == 200


OPEN = [
    ("chat", "POST", "/v1/brain/chat", 200),
    ("chat", "POST", COMPLETIONS, 200),
    ("chat", "GET", "/v1/models", 200),
    ("stream", "POST", "/v1/brain/chat/stream", 200),
    ("health", "GET", "/v1/brain/health", 200),
    ("health", "GET", "/version", 200),
    ("chat", "GET", "/v1/brain/chat", 405),
    ("chat", "GET", "/nowhere", 404),
    ("stream", "GET", "/v1/nowhere", 404),
]


def send(url: str, method: str, path: str, **headers: str) -> Reply:
    """A request with the method; a POST has the question."""
    return post(url, path, **headers) if method == "POST" else ask(url, method, path, None, headers)


@pytest.mark.parametrize(("target", "method", "path", "status"), OPEN)
def test_a_page_of_the_origin_may_read_every_answer(
    functions: Mapping[str, Server], target: str, method: str, path: str, status: int
) -> None:
    """Answers, streams and errors alike carry the CORS headers."""
    reply = send(functions[target].url, method, path, Origin=ORIGIN)
    assert reply.status == status
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert reply.headers["vary"] == "Origin"
    exposed = reply.headers["access-control-expose-headers"].split(", ")
    assert exposed == ["X-Trace-Id", "X-Served-By", "X-Attempts", "X-Failed-Providers", "Retry-After"]


@pytest.mark.parametrize(("target", "method", "path", "status"), OPEN)
@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", ORIGIN + ".evil.com", "http://app.example.com"])
def test_a_page_of_another_origin_may_not(
    functions: Mapping[str, Server], target: str, method: str, path: str, status: int, origin: str
) -> None:
    """It gets the answer and no permission to read it; caches are told."""
    reply = send(functions[target].url, method, path, Origin=origin)
    assert reply.status == status
    assert reply.headers["vary"] == "Origin"
    assert not [name for name in reply.headers if name.startswith("access-control-")]


def test_who_is_no_page_gets_no_cors(chat_url: str) -> None:
    """Without an Origin there is nothing to allow, but the cache must still know."""
    reply = post(chat_url, "/")
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in reply.headers


def preflight(url: str, path: str, origin: str, method: str = "POST") -> Reply:
    """What a browser asks before it sends JSON."""
    asked = "authorization,content-type,x-stainless-os,x-trace-id"
    headers = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": asked}
    return ask(url, "OPTIONS", path, None, headers)


@pytest.mark.parametrize(("target", "path", "dialect"), [*POSTS, *GETS])
def test_a_preflight_of_the_origin_is_granted(
    functions: Mapping[str, Server], target: str, path: str, dialect: str
) -> None:
    """The route's methods, the headers that were asked for, and a while to remember it."""
    reply = preflight(functions[target].url, path, ORIGIN)
    assert reply.status == 204
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert reply.headers["access-control-allow-methods"] == reply.headers["allow"]
    allowed = re.split(", *", reply.headers["access-control-allow-headers"].lower())
    assert {"authorization", "content-type", "x-trace-id"} <= set(allowed)
    assert int(reply.headers["access-control-max-age"]) > 0
    assert "Origin" in reply.headers["vary"]


def test_a_preflight_of_another_origin_is_not(chat_url: str) -> None:
    """The browser finds no permission."""
    reply = preflight(chat_url, "/v1/brain/chat", "https://evil.example.com")
    assert not [name for name in reply.headers if name.startswith("access-control-")]
    assert reply.headers["vary"] == "Origin"


def test_a_preflight_of_an_unknown_path_can_be_read(chat_url: str) -> None:
    """404, and the page may see that."""
    reply = preflight(chat_url, "/nowhere", ORIGIN)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (404, ORIGIN)
