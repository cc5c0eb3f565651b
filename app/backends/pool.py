"""All configured backends at work, and the watch over what each is and can do."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress

import structlog

from app.backends.base import Meter
from app.backends.client import BackendClient
from app.backends.registry import open_adapter
from app.backends.router import Router
from app.backends.settings import BackendSettings, RoutingSettings
from app.errors import UpstreamError, UpstreamRateLimited
from indexing.concurrency import pauses

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0
"""Between two checks of a backend that is not healthy; twice as long each time."""

log = structlog.get_logger()


class Supervisor:
    """Probes each backend until that succeeds, and again after it was away or resting: a restarted server may have
    another model. A resting backend is pinged, which costs no token; a healthy one is not checked.
    """

    def __init__(self, clients: Iterable[BackendClient]) -> None:
        self._clients = tuple(clients)
        self._watches: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, without waiting for any of them."""
        self._watches = [asyncio.create_task(_watch(client), name=f"watch-{client.name}") for client in self._clients]

    async def close(self) -> None:
        """Stop, and wait until no check is under way."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(client.discovery.close() for client in self._clients))
        self._watches = []


async def _watch(client: BackendClient) -> None:
    """Check one backend for ever: when there is news of it, and again and again while it is not healthy."""
    known = False
    waits = pauses(FIRST_PAUSE_S, MAX_PAUSE_S)
    logged: object = None
    while True:
        try:
            known = await _check(client, known=known and client.probed is not None)
        except Exception:
            log.exception("a backend could not be checked", backend=client.name)
            known = False
        state = (client.health, client.probed if client.health == "up" else None)
        if state != logged:
            _log_state(client)
            logged = state
        # However much news there is, no more than one check a second.
        await asyncio.sleep(FIRST_PAUSE_S)
        healthy = known and client.health == "up"
        if healthy:
            waits = pauses(FIRST_PAUSE_S, MAX_PAUSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if healthy else next(waits)):
                await client.news.wait()
        client.news.clear()


async def _check(client: BackendClient, *, known: bool) -> bool:
    """Whether what was found out about it still holds; probes it where nothing is known."""
    resting = client.health == "resting"
    try:
        if known or resting:
            await client.discovery.ping()
        else:
            await client.discovery.probe()
    except UpstreamRateLimited:
        return known and not resting
    except UpstreamError:
        return False
    # Whoever rested may have been restarted: probe it next.
    return not resting


def _log_state(client: BackendClient) -> None:
    if client.health == "up":
        abilities = sorted(client.probed.capabilities) if client.probed else []
        log.info("backend is up", backend=client.name, model=client.model, capabilities=abilities)
    elif client.health != "unknown":
        log.warning(f"backend is {client.health}", backend=client.name, error=client.status().last_error)


class BackendPool:
    """Owns the adapters and their connections. To be made in the event loop that uses it; `close` at the end."""

    def __init__(self, backends: Mapping[str, BackendSettings], routing: RoutingSettings, meter: Meter) -> None:
        self._adapters = {name: open_adapter(name, settings) for name, settings in backends.items()}
        clients = [
            BackendClient(name, settings, self._adapters[name], meter, routing) for name, settings in backends.items()
        ]
        self.router = Router(clients, routing)
        self._supervisor = Supervisor(clients)

    def start(self) -> None:
        """Find out, in the background, who is there and what it can do."""
        self._supervisor.start()

    async def close(self) -> None:
        """Stop watching, and close all connections."""
        await self._supervisor.close()
        await asyncio.gather(*(adapter.aclose() for adapter in self._adapters.values()), return_exceptions=True)
