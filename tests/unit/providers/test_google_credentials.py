"""Access tokens of Google credentials: the real google-auth, an account's file, and a token endpoint on a socket."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shared.errors import NotReady
from shared.providers.google_credentials import BETWEEN_S, EARLY_S, SCOPE, SHORTEST_S, GoogleTokenReader
from shared.providers.slim_import import defer_sdk_types
from shared.providers.vendors import VENDORS
from shared.secrets import CachedSecret, Lease
from shared.settings import ProviderSettings
from tests.faults.upstream import BreakingUpstream
from tests.unit.fakes import Clock, chat_request
from tests.unit.providers.certificates import rsa_key

HOUR_S = 3600


@dataclass
class TokenEndpoint:
    """Gives `token-1`, `token-2` and so on; `claims` has what each request signed."""

    lasts_s: int = HOUR_S
    claims: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """One exchange."""
        payload = str((await request.post())["assertion"]).split(".")[1]
        self.claims.append(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
        token = {"access_token": f"token-{len(self.claims)}", "expires_in": self.lasts_s, "token_type": "Bearer"}
        return web.json_response(token)


@pytest.fixture
async def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TokenEndpoint]:
    """A token endpoint, and credentials in the environment that lead to it."""
    found = TokenEndpoint()
    app = web.Application()
    app.router.add_post("/token", found.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    file = tmp_path / "account.json"
    file.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "p-1",
                "private_key_id": "k-1",
                "private_key": rsa_key(),
                "client_email": "gateway@p-1.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": f"http://127.0.0.1:{runner.addresses[0][1]}/token",
            }
        )
    )
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    yield found
    await runner.cleanup()


async def read(reader: GoogleTokenReader) -> Lease:
    """A token, read as `CachedSecret` reads it."""
    return await asyncio.to_thread(reader, 30.0)


async def test_a_token_is_minted_with_the_credentials_found(endpoint: TokenEndpoint) -> None:
    """For Google Cloud, in the name of the account; believed until shortly before its end."""
    lease = await read(GoogleTokenReader())
    assert lease.value == "token-1"
    assert HOUR_S - EARLY_S - 60 < lease.lasts_s <= HOUR_S - EARLY_S
    (claims,) = endpoint.claims
    assert (claims["scope"], claims["iss"]) == (SCOPE, "gateway@p-1.iam.gserviceaccount.com")


async def test_a_token_near_its_end_is_believed_for_a_moment(endpoint: TokenEndpoint) -> None:
    """The metadata server gives the same one again until it is nearly over: not a look-up for every request."""
    endpoint.lasts_s = 100
    assert (await read(GoogleTokenReader())).lasts_s == SHORTEST_S


async def test_a_new_token_is_not_minted_for_every_refusal(endpoint: TokenEndpoint) -> None:
    """A missing permission is not mended by tokens; a minute later it may be tried again."""
    clock = Clock()
    reader = GoogleTokenReader(clock)
    first = await read(reader)
    clock.pass_s(BETWEEN_S - 1)
    assert await read(reader) == first
    clock.pass_s(1)
    assert (await read(reader)).value == "token-2"


async def test_a_token_behind_the_cache_is_asked_for_once_and_replaced_when_refused(endpoint: TokenEndpoint) -> None:
    """As the provider has it: twenty requests are one exchange, a refused token another one."""
    clock = Clock()
    secret = CachedSecret(GoogleTokenReader(clock), 300.0, clock)
    assert set(await asyncio.gather(*(secret.get() for _ in range(20)))) == {"token-1"}
    clock.pass_s(HOUR_S / 2)
    assert await secret.get() == "token-1"
    assert set(await asyncio.gather(*(secret.refresh("token-1") for _ in range(20)))) == {"token-2"}
    clock.pass_s(HOUR_S)
    assert await secret.get() == "token-3"
    assert len(endpoint.claims) == 3


async def test_a_provider_of_vertex_is_asked_with_tokens(endpoint: TokenEndpoint, upstream: BreakingUpstream) -> None:
    """From the account's file to the header: the token in use, and a new one once it is refused."""
    defer_sdk_types()
    from shared.providers.openai_compatible import OpenAICompatible

    clock = Clock()
    settings = ProviderSettings(name="v", vendor="vertex", model="google/gemini", base_url=upstream.base_url)
    provider = OpenAICompatible(settings, VENDORS["vertex"], CachedSecret(GoogleTokenReader(clock), 300.0, clock))
    await provider.complete(chat_request())
    clock.pass_s(BETWEEN_S)
    upstream.force("needs-key:token-2")
    await provider.complete(chat_request())
    await provider.aclose()
    sent = [row.headers["authorization"] for row in upstream.requests]
    assert sent == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


async def test_without_credentials_the_provider_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which exception it was, and no path."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nowhere.json"))
    with pytest.raises(NotReady):
        await CachedSecret(GoogleTokenReader(), 300.0).get()
    assert "DefaultCredentialsError" in caplog.text
    assert "nowhere" not in caplog.text


async def test_a_lease_is_believed_for_its_own_time() -> None:
    """Longer or shorter than other secrets are."""
    clock, leases = Clock(), iter([Lease("a", 1000.0), Lease("b", 10.0), Lease("c", 10.0)])
    secret = CachedSecret(lambda _: next(leases), 300.0, clock)
    seen = []
    for pause_s in (0.0, 999.0, 1.0, 9.0, 1.0):
        clock.pass_s(pause_s)
        seen.append(await secret.get())
    assert seen == ["a", "a", "b", "b", "c"]
