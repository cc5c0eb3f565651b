"""All configured backends at work, and the watch over what each is and can do."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress

import structlog

from app.backends.base import Meter
from app.backends.client import BackendClient
from app.backends.registry import open_adapter
from app.backends.replicas import Replica
from app.backends.router import Router
from app.backends.settings import BackendSettings, RoutingSettings
from app.errors import UpstreamError, UpstreamRateLimited
from indexing.concurrency import pauses

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0
"""Between two checks of a backend that is not healthy; twice as long each time."""

log = structlog.get_logger()


class Supervisor:
    """Probes each server until that succeeds, and again after it was away or resting: a restarted server may have
    another model. One that rests is pinged, which costs no token; a healthy one is not checked.
    """

    def __init__(self, clients: Iterable[BackendClient]) -> None:
        self._watched = [(client, replica) for client in clients for replica in client.replicas]
        self._watches: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, without waiting for any of them."""
        self._watches = [
            asyncio.create_task(_watch(client, replica), name=f"watch-{client.name}")
            for client, replica in self._watched
        ]

    async def close(self) -> None:
        """Stop, and wait until no check is under way."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(replica.discovery.close() for _, replica in self._watched))
        self._watches = []


async def _watch(client: BackendClient, replica: Replica) -> None:
    """Check one server for ever: when there is news of it, and again and again while it is not healthy."""
    known = False
    waits = pauses(FIRST_PAUSE_S, MAX_PAUSE_S)
    logged: object = None
    while True:
        try:
            known = await _check(replica, known=known and replica.probed is not None)
        except Exception:
            log.exception("a backend could not be checked", **_named(replica))
            known = False
        state = (
            replica.state,
            replica.probed if replica.state == "up" else None,
            client.replicas.disagreement(replica),
        )
        if state != logged:
            _log_state(replica, state[-1])
            logged = state
        # However much news there is, no more than one check a second.
        await asyncio.sleep(FIRST_PAUSE_S)
        healthy = known and replica.state == "up"
        if healthy:
            waits = pauses(FIRST_PAUSE_S, MAX_PAUSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if healthy else next(waits)):
                await replica.health.news.wait()
        replica.health.news.clear()


async def _check(replica: Replica, *, known: bool) -> bool:
    """Whether what was found out about it still holds; probes it where nothing is known."""
    resting = replica.state == "resting"
    try:
        if known or resting:
            await replica.discovery.ping()
        else:
            await replica.discovery.probe()
    except UpstreamRateLimited:
        return known and not resting
    except UpstreamError:
        return False
    # Whoever rested may have been restarted: probe it next.
    return not resting


def _log_state(replica: Replica, disagreement: str) -> None:
    if replica.state == "up":
        abilities = sorted(replica.probed.capabilities) if replica.probed else []
        log.info("backend is up", **_named(replica), model=replica.model, capabilities=abilities)
    elif replica.state != "unknown":
        log.warning(f"backend is {replica.state}", **_named(replica), error=replica.health.last_error)
    if disagreement:
        log.warning("a server is not as the others of its backend", **_named(replica), why=disagreement)


def _named(replica: Replica) -> dict[str, object]:
    return {"backend": replica.name, **({"replica": replica.number} if replica.number else {})}


class BackendPool:
    """Owns the adapters and their connections. To be made in the event loop that uses it; `close` at the end."""

    def __init__(self, backends: Mapping[str, BackendSettings], routing: RoutingSettings, meter: Meter) -> None:
        self._adapters = {
            name: [open_adapter(name, one) for one in settings.each()] for name, settings in backends.items()
        }
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
        await asyncio.gather(
            *(adapter.aclose() for adapters in self._adapters.values() for adapter in adapters), return_exceptions=True
        )
