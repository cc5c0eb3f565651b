"""Keeping an eye on the backends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from app.backends.base import Probed
from app.backends.client import BackendClient
from app.backends.pool import MAX_PAUSE_S, Supervisor
from app.backends.settings import RoutingSettings
from app.errors import UpstreamError, UpstreamRateLimited, UpstreamRejected, UpstreamUnavailable
from tests.fakes.adapters import ASKED, EVERYTHING, FINE, Plan, ScriptedAdapter
from tests.fakes.clients import a_call, make_client
from tests.fakes.virtual_time import VIRTUAL_TIME

pytestmark = pytest.mark.anyio

ROUTING = RoutingSettings(failures=1, rest_s=20)


def down() -> UpstreamUnavailable:
    """It cannot be reached."""
    return UpstreamUnavailable("fake", "fake is down")


@pytest.fixture
def anyio_backend() -> tuple[str, object]:
    """Waiting takes no time."""
    return VIRTUAL_TIME


@asynccontextmanager
async def watched(*clients: BackendClient) -> AsyncIterator[None]:
    """While a supervisor looks after them, which leaves no task behind."""
    before = asyncio.all_tasks()
    supervisor = Supervisor(clients)
    supervisor.start()
    try:
        yield
    finally:
        await supervisor.close()
        assert asyncio.all_tasks() == before


async def call(client: BackendClient) -> None:
    """A call, whatever becomes of it."""
    with suppress(UpstreamError):
        await client.complete(ASKED, a_call())


async def test_every_backend_is_probed_at_the_start() -> None:
    """Starting waits for nobody, asks all at once, and one that is down does not keep the others."""
    adapters = [ScriptedAdapter(), ScriptedAdapter(probe=down), ScriptedAdapter()]
    clients = [make_client(adapter, name=f"line{number}") for number, adapter in enumerate(adapters)]
    async with watched(*clients):
        assert [client.health for client in clients] == ["unknown"] * 3
        await asyncio.sleep(0.02)
        assert [client.health for client in clients] == ["up", "down", "up"]


async def test_who_is_well_is_left_in_peace() -> None:
    """After its probe an idle backend is asked nothing more, for a day."""
    adapter = ScriptedAdapter()
    async with watched(make_client(adapter)):
        await asyncio.sleep(86_400)
    assert (adapter.probes, adapter.pings) == (1, 0)


async def test_a_server_that_comes_late_is_found() -> None:
    """A probe that fails is repeated, less and less often but at least once a minute, until it succeeds."""
    adapter = ScriptedAdapter(probe=down)
    client = make_client(adapter, model=None)
    async with watched(client):
        await asyncio.sleep(600)
        assert 10 <= adapter.probes <= 20
        adapter.found = Probed(model="late-1", capabilities=EVERYTHING)
        await asyncio.sleep(MAX_PAUSE_S + 1)
        assert (client.health, client.model) == ("up", "late-1")


async def test_a_restarted_server_is_asked_anew() -> None:
    """When a server went away and came back, its other model is noticed and its rest is over."""
    adapter = ScriptedAdapter()
    client = make_client(adapter, model=None, retries=0, routing=ROUTING)
    async with watched(client):
        await asyncio.sleep(5)
        adapter.away, adapter.rest = down, Plan(failure=down)
        await call(client)
        await asyncio.sleep(5)
        assert client.health == "down"
        adapter.away, adapter.rest = None, FINE
        adapter.found = Probed(model="fake-2", capabilities=frozenset(("chat",)))
        await asyncio.sleep(MAX_PAUSE_S + 1)
        assert (client.health, client.model, client.status().breaker) == ("up", "fake-2", "closed")
        assert not client.offers(frozenset(("images",)))


async def test_who_rests_is_pinged_only() -> None:
    """A backend that is there but fails costs no token while it rests, and stays on trial until a call succeeds."""
    adapter = ScriptedAdapter()
    client = make_client(adapter, retries=0, routing=ROUTING)
    async with watched(client):
        await asyncio.sleep(5)
        adapter.plans = [Plan(failure=down)]
        await call(client)
        await asyncio.sleep(300)
        assert (client.health, client.status().breaker) == ("resting", "half_open")
        assert (adapter.probes, adapter.begun) == (1, 1)
        assert 4 <= adapter.pings <= 12
        await call(client)
        await asyncio.sleep(5)
        assert (client.health, adapter.probes) == ("up", 2)


async def test_a_rejected_key_is_noticed() -> None:
    """A rejected call is followed by one ping, which tells a bad request from a bad key."""
    adapter = ScriptedAdapter(rest=Plan(failure=UpstreamRejected("fake", "")))
    client = make_client(adapter)
    async with watched(client):
        await asyncio.sleep(5)
        await call(client)
        await asyncio.sleep(5)
        assert (client.health, adapter.pings) == ("up", 1)
        adapter.away = lambda: UpstreamRejected("fake", "")
        await call(client)
        await asyncio.sleep(5)
        assert (client.health, client.status().last_error) == ("down", "rejected")


async def test_a_rate_limited_check_says_nothing() -> None:
    """A probe that is rate limited takes nobody down, and is repeated."""
    adapter = ScriptedAdapter(probe=lambda: UpstreamRateLimited("fake", ""))
    client = make_client(adapter)
    async with watched(client):
        await asyncio.sleep(5)
        assert client.health == "unknown"
        adapter.found = Probed(model="fake-1", capabilities=EVERYTHING)
        await asyncio.sleep(10)
        assert client.health == "up"


async def test_changes_are_told_once() -> None:
    """The log has a line when a backend comes, goes and returns, and none in between."""
    adapter = ScriptedAdapter()
    client = make_client(adapter, retries=0, routing=ROUTING)
    with capture_logs() as logs:
        async with watched(client):
            await asyncio.sleep(5)
            adapter.away = adapter.found = down
            adapter.rest = Plan(failure=down)
            await call(client)
            await asyncio.sleep(1000)
            adapter.away, adapter.rest = None, FINE
            adapter.found = Probed(model="fake-1", capabilities=EVERYTHING)
            await asyncio.sleep(1000)
    assert [entry["event"] for entry in logs] == ["backend is up", "backend is down", "backend is up"]
    assert logs[1] == {"event": "backend is down", "log_level": "warning", "backend": "gemma", "error": "unavailable"}


async def test_a_stumble_does_not_end_the_watch() -> None:
    """An adapter's bug is logged, and the backend is looked at again."""
    adapter = ScriptedAdapter(probe=lambda: KeyError("bug"))
    client = make_client(adapter)
    with capture_logs() as logs:
        async with watched(client):
            await asyncio.sleep(3)
            adapter.found = Probed(model="fake-1", capabilities=EVERYTHING)
            await asyncio.sleep(10)
    assert client.health == "up"
    assert logs[0]["log_level"] == "error"
