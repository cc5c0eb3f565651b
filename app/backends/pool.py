"""All configured backends at work, and the probing that finds out what each can do."""

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

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between two looks at a backend that is not well; twice as long each time."""

log = structlog.get_logger()


class Supervisor:
    """Probes each backend until that succeeds, and again after it was away or resting: a restarted server may have
    another model. A resting backend is pinged, which costs no token; a healthy one is left in peace.
    """

    def __init__(self, clients: Iterable[BackendClient]) -> None:
        self._clients = tuple(clients)
        self._watches: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, without waiting for any of them."""
        self._watches = [
            asyncio.create_task(Watch(client).run(), name=f"watch-{client.name}") for client in self._clients
        ]

    async def close(self) -> None:
        """Stop; no question is left open."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        self._watches = []


class Watch:
    """Watches one backend."""

    def __init__(self, client: BackendClient) -> None:
        self._client = client
        self._known = False
        self._pause_s = FIRST_PAUSE_S
        self._told: object = None

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self._look()
            except Exception:
                log.exception("a backend could not be looked at", backend=self._client.name)
                self._known = False
            self._tell()
            await self._wait()

    async def _look(self) -> None:
        """Find out whether what we know of it is still true."""
        resting = self._client.health == "resting"
        try:
            if self._known or resting:
                await self._client.discovery.ping()
            else:
                await self._client.discovery.probe()
        except UpstreamRateLimited:
            self._known = self._known and not resting
        except UpstreamError:
            self._known = False
        else:
            self._known = not resting

    async def _wait(self) -> None:
        """Until there is news, or it is time for the next look at one that is not well."""
        await asyncio.sleep(FIRST_PAUSE_S)
        well = self._known and self._client.health == "up"
        self._pause_s = FIRST_PAUSE_S if well else min(2 * self._pause_s, LONGEST_PAUSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if well else self._pause_s - FIRST_PAUSE_S):
                await self._client.news.wait()
        self._client.news.clear()

    def _tell(self) -> None:
        """Once for every change."""
        client = self._client
        state = (client.health, client.probed if client.health == "up" else None)
        if state == self._told:
            return
        self._told = state
        if client.health == "up":
            abilities = sorted(client.probed.capabilities) if client.probed else []
            log.info("backend is up", backend=client.name, model=client.model, capabilities=abilities)
        elif client.health != "unknown":
            log.warning(f"backend is {client.health}", backend=client.name, error=client.status().last_error)


class Fleet:
    """Owns the adapters and their connections. To be made in the event loop that uses it; `close` at the end."""

    def __init__(self, backends: Mapping[str, BackendSettings], routing: RoutingSettings, meter: Meter) -> None:
        self._adapters = {name: open_adapter(name, told) for name, told in backends.items()}
        clients = [BackendClient(name, told, self._adapters[name], meter, routing) for name, told in backends.items()]
        self.router = Router(clients, routing)
        self._supervisor = Supervisor(clients)

    def start(self) -> None:
        """Find out, in the background, who is there and what it can do."""
        self._supervisor.start()

    async def close(self) -> None:
        """Let go of everything."""
        await self._supervisor.close()
        await asyncio.gather(*(adapter.aclose() for adapter in self._adapters.values()), return_exceptions=True)
