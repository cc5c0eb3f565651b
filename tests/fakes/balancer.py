"""A plain round-robin proxy: each connection goes to the next server that takes it, and is passed on as it is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from urllib.parse import urlsplit


class Balancer:
    """Listens on a port of its own. `servers` gives their URLs, which may change with each start."""

    def __init__(self, servers: Callable[[], Sequence[str]]) -> None:
        self._servers, self._turns = servers, count()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        servers, turn = self._servers(), next(self._turns)
        for place in range(len(servers)):
            parts = urlsplit(servers[(turn + place) % len(servers)])
            try:
                there, back = await asyncio.open_connection(parts.hostname, parts.port)
            except OSError:
                continue
            await asyncio.gather(_pass(reader, back), _pass(there, writer))
            return
        writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    with suppress(OSError):
        writer.close()


@asynccontextmanager
async def balancing(servers: Callable[[], Sequence[str]]) -> AsyncIterator[Balancer]:
    """A proxy until the block ends."""
    balancer = Balancer(servers)
    listening = await asyncio.start_server(balancer.serve, "127.0.0.1", 0)
    balancer.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield balancer
    finally:
        listening.close()
