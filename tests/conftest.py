"""What tests over a real socket share: the breaking upstream and a client, both in the test's event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.faults.upstream import BreakingUpstream, breaking_upstream


@pytest.fixture
async def upstream() -> AsyncIterator[BreakingUpstream]:
    """A breaking upstream in the test's event loop."""
    async with breaking_upstream() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with as many connections as it likes, that keeps no cookies."""
    connector, cookies = aiohttp.TCPConnector(limit=0), aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=cookies) as session:
        yield session
