"""The key from Secret Manager, in real processes: rotation, refusal, and Secret Manager down at every moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.asking import QUESTION, Reply, ask, get, post
from tests.secret_manager import SecretManager
from tests.servers import Server, free_port, gateway, serving

BRAIN = "/v1/brain/chat"
COMPLETIONS = "/v1/chat/completions"
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def upstream_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A breaking upstream in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "tests.faults.upstream", "--port", str(port)]
    with serving(command, port=port, log=tmp_path_factory.mktemp("upstream") / "log", environment={}) as server:
        yield server.url


@dataclass(frozen=True)
class World:
    """Secret Manager, an upstream that takes one key, and the means to start functions between them."""

    secrets: SecretManager
    upstream_url: str
    logs: Path

    def takes(self, key: str) -> None:
        """From now on the upstream answers this key only."""
        ask(self.upstream_url, "POST", f"/_force?scenario=needs-key:{key}")

    def function(self, target: str, **environment: str) -> AbstractContextManager[Server]:
        """A function under the stock framework, whose key is a short secret name."""
        return gateway(
            self.logs / f"{target}.log",
            {
                "OPENAI_API_KEY_SECRET": "openai-key",
                "GOOGLE_CLOUD_PROJECT": "my-project",
                "SECRET_MANAGER_ENDPOINT": self.secrets.endpoint,
                "OPENAI_BASE_URL": f"{self.upstream_url}/v1",
                "OPENAI_MODEL": "gpt-test",
                **environment,
            },
            target,
        )


@pytest.fixture
def world(upstream_url: str, tmp_path: Path) -> Iterator[World]:
    """A stand-in for Secret Manager with `sk-one`, and an upstream that takes it."""
    secrets = SecretManager()
    secrets.up()
    secrets.put("openai-key", "sk-one")
    found = World(secrets, upstream_url, tmp_path)
    found.takes("sk-one")
    yield found
    secrets.down()


def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; fails after 30 s."""
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit, "not so in time"
        time.sleep(0.02)


def not_ready(reply: Reply) -> bool:
    """Whether this is the refusal of a gateway without a key, with a time to come back."""
    assert (reply.status, reply.code) == (503, "not_ready")
    assert int(reply.headers["retry-after"]) >= 1
    return "x-should-retry" not in reply.headers


def test_a_rotated_key_is_read_once_and_serves(world: World) -> None:
    """Upstream's 401 lets the secret be read once for all requests under way, and none of them fails."""
    with world.function("chat") as chat:
        assert post(chat.url, BRAIN).json()["message"]["content"] == "Hello, world!"
        assert post(chat.url, COMPLETIONS).status == 200
        assert world.secrets.accesses == ["/v1/projects/my-project/secrets/openai-key/versions/latest:access"]
        world.secrets.put("openai-key", "sk-two")
        world.takes("sk-two")
        with ThreadPoolExecutor(8) as callers:
            statuses = list(callers.map(lambda _: post(chat.url, BRAIN).status, range(8)))
        assert statuses == [200] * 8
        assert len(world.secrets.accesses) == 2
        assert "sk-" not in chat.output()


def test_a_stream_survives_a_rotation(world: World) -> None:
    """Streams read the key the same way."""
    with world.function("stream") as stream:
        world.secrets.put("openai-key", "sk-two")
        assert b"event: error" in post(stream.url, "/v1/brain/chat/stream").body  # upstream takes the old one still
        world.takes("sk-two")
        assert b"event: final" in post(stream.url, "/v1/brain/chat/stream").body
        assert post(stream.url, COMPLETIONS, {**QUESTION, "stream": True}).body.endswith(b"data: [DONE]\n\n")


def test_a_key_that_is_simply_wrong_does_not_hammer_secret_manager(world: World) -> None:
    """It is read twice, at first and for the first 401, and then no more within its time."""
    world.takes("sk-other")
    with world.function("chat") as chat:
        for _ in range(5):
            refused = post(chat.url, BRAIN)
            assert (refused.status, refused.code) == (401, "auth_error")
            refused = post(chat.url, COMPLETIONS)
            assert (refused.status, refused.code) == (500, "auth_error")
            assert refused.headers["x-should-retry"] == "false"
        assert len(world.secrets.accesses) == 2
        assert chat.process.poll() is None


def test_down_at_the_start_is_not_ready_and_heals_by_itself(world: World) -> None:
    """503 in both dialects and streamed, a time to come back, and service when Secret Manager is back."""
    world.secrets.down()
    with world.function("chat") as chat, world.function("stream") as stream:
        assert not_ready(post(chat.url, BRAIN))
        assert not_ready(post(chat.url, COMPLETIONS))
        assert not_ready(post(chat.url, COMPLETIONS, {**QUESTION, "stream": True}))
        broken = post(stream.url, "/v1/brain/chat/stream")
        assert broken.status == 503 or b'"code":"not_ready"' in broken.body
        assert get(chat.url, "/health").status == 200
        world.secrets.up()
        assert post(chat.url, BRAIN).status == 200
        assert b"event: final" in post(stream.url, "/v1/brain/chat/stream").body


def test_health_knows_that_the_key_is_missing(world: World) -> None:
    """503 until the key could be read, and 200 after it without a restart; liveness is another question."""
    world.secrets.down()
    with world.function("health") as health:
        reply = get(health.url, "/v1/brain/health")
        assert (reply.status, reply.json()["ok"]) == (503, False)
        assert int(reply.headers["retry-after"]) >= 1
        deep = get(health.url, "/v1/brain/health?deep=true").json()
        assert (deep["ok"], deep["providers"]["openai"]["error"]) == (False, "not_ready")
        assert get(health.url, "/health").status == 200
        world.secrets.up()
        assert get(health.url, "/v1/brain/health").json()["ok"] is True


@pytest.mark.parametrize("how", ["refusing", "failing"])
def test_down_later_the_old_key_serves_on(world: World, how: str) -> None:
    """Whether nobody listens or it answers 503: what was read last serves, and is read anew when it can be."""
    with world.function("chat", SECRET_CACHE_TTL="0.05") as chat:
        assert post(chat.url, BRAIN).status == 200
        if how == "refusing":
            world.secrets.down()
        else:
            world.secrets.fail_with = 503
        until(lambda: post(chat.url, BRAIN).status == 200 and "could not be read" in chat.output())
        assert post(chat.url, BRAIN).status == 200
        world.secrets.put("openai-key", "sk-two")
        world.secrets.fail_with = None
        world.secrets.up()
        world.takes("sk-two")
        until(lambda: post(chat.url, BRAIN).status == 200)


def test_a_secret_that_is_not_there_is_not_ready(world: World) -> None:
    """A wrong name is said in the log by the client's class, without stopping the process."""
    with world.function("chat", OPENAI_API_KEY_SECRET="projects/p/secrets/another/versions/3") as chat:
        assert not_ready(post(chat.url, BRAIN))
        assert world.secrets.accesses[-1] == "/v1/projects/p/secrets/another/versions/3:access"
        assert "NotFound" in chat.output()


def test_an_empty_secret_is_not_ready(world: World) -> None:
    """And the log says what is wrong with it."""
    world.secrets.put("openai-key", " \n")
    with world.function("chat") as chat:
        assert not_ready(post(chat.url, BRAIN))
        assert "the secret's value is empty" in chat.output()
