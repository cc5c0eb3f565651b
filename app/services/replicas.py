"""Several processes of the service over one database: which of them writes to the index, and where the others reach it.

The replica that has the lock tells its address and a secret of its own in the database. The others hand on to it what
they cannot serve (`app.api.hand_on`), and take over where it has ended.
"""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx
import structlog

from app.errors import WinnowError
from indexing.concurrency import BackgroundTasks, Resource
from indexing.errors import IndexBusy, StoreUnavailable
from indexing.postgres import Database, Part
from indexing.writer import HELD, PART, PostgresTables, Writer, WriterLock, holder, writer_in

KEEP_S = 2.0
"""Between two looks at whether this replica still has the lock of the index."""

WAIT_S, PAUSE_S = 10.0, 0.25
"""How long a request waits for a replica that writes, as in a take-over, and between two looks for it."""

GRACE_S = 10.0
"""How long the lock is left to the replica that announced itself and can be reached: it has lost its connection, as all
have when the database fails, and takes its place again.
"""

RETRY_S = 2.0
"""When whoever was refused may ask again."""

TIMEOUT = httpx.Timeout(600.0, connect=2.0)
"""Of what is handed on, between two pieces. A machine that vanished is noticed sooner, by the system's own probes."""

_PROBES = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), seconds)
        for name, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]

log = structlog.get_logger()


class Replicas:
    """This replica among the others. `url` is where they reach it; None: as it listens, see `own_url`. `parts` are the
    tables that only the replica that writes brings up to date.
    """

    def __init__(
        self,
        database: Database,
        url: str | None,
        parts: Sequence[Part] = (),
        *,
        wait_s: float = WAIT_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._database, self._given_url, self._parts = database, url, parts
        self._wait_s, self._grace_s = wait_s, grace_s
        self._free_since: float | None = None
        """When the lock was first seen free though the one that has announced itself is there."""
        self._listening: tuple[str, int] | None = None
        self._announced = False
        self._tasks = BackgroundTasks()
        self.secret = secrets.token_urlsafe(32)
        """Shows that a request comes from another replica: only the database tells it."""
        self.lock = Resource(self._take)
        self.lost = ""
        """Why this replica has to end, once another one has taken over."""

    @property
    def writes(self) -> bool:
        """Whether it is this one that writes."""
        return self.lock.opened is not None

    @cached_property
    def client(self) -> httpx.AsyncClient:
        """For requests to the replica that writes. A connection serves one: none that is stale is used."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        transport = httpx.AsyncHTTPTransport(limits=limits, socket_options=_PROBES, trust_env=False)
        return httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)

    def listens(self, host: str, port: int) -> None:
        """Hear where the server listens, and let others know as soon as it writes."""
        self._listening = host, port
        self._tasks.start(self._announce())

    async def tables(self, part: str, migrations: Sequence[str]) -> PostgresTables:
        """Of the replica that writes. Raises IndexBusy, StoreUnavailable."""
        lock = await self.lock.get()
        return await asyncio.to_thread(PostgresTables, self._database, part, migrations, lock.guard)

    async def writer(self) -> Writer | None:
        """The replica that writes, which can be reached; None where it is this one, as after a take-over.

        Waits a while for there to be one. Raises IndexBusy, StoreUnavailable.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_s
        while not self.writes:
            writer = await self._database.run(writer_in, PART)
            if writer.url and writer.url != await self.own_url() and await _is_reachable(writer.url):
                return writer
            with suppress(IndexBusy):
                await self.lock.get()
                continue
            if loop.time() >= deadline:
                log.warning("the replica that writes cannot be reached", url=writer.url or None, seconds=self._wait_s)
                raise IndexBusy("the replica that writes to the index cannot be reached at the moment", RETRY_S)
            await asyncio.sleep(PAUSE_S)
        return None

    async def own_url(self) -> str:
        """Where others reach this replica: if it listens on all addresses, at that which the database sees.

        "" for a command, which does not listen.
        """
        if self._listening is None or self._given_url is not None:
            return "" if self._listening is None else self._given_url or ""
        host, port = self._listening
        if ip_address(host).is_unspecified:
            host = await self._database.run(lambda db: db.local_address) or "127.0.0.1"
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def is_beside(self, writer: Writer) -> bool:
        """Whether it is on the machine of this one, and has the same files."""
        return urlsplit(writer.url).hostname == urlsplit(await self.own_url()).hostname

    async def close(self) -> None:
        """Let another replica write."""
        await self._tasks.cancel()
        if (lock := await self.lock.settled()) is not None:
            await asyncio.to_thread(lock.release)
        if "client" in self.__dict__:
            await self.client.aclose()

    async def _take(self) -> WriterLock:
        await self._give_way()
        lock = await asyncio.to_thread(WriterLock, self._database, self._parts)
        log.info("this replica writes to the index")
        self._tasks.start(self._keep(lock))
        return lock

    async def _give_way(self) -> None:
        """Raises IndexBusy while another replica has the lock, or will soon have it again; see GRACE_S."""
        try:
            writer, held = await self._database.run(lambda db: (writer_in(db), holder(db)), PART)
        except StoreUnavailable:
            self._free_since = None  # the database is away again, and so is the time that the writer had
            raise
        if held is not None:
            self._free_since = None
            raise IndexBusy(HELD)
        if not writer.url or writer.url == await self.own_url() or not await _is_reachable(writer.url):
            return
        now = asyncio.get_running_loop().time()
        self._free_since = now if self._free_since is None else self._free_since
        if now - self._free_since < self._grace_s:
            raise IndexBusy(
                f"the replica that writes, {writer.url}, has lost the database and may take its place again"
            )

    async def _announce(self) -> None:
        lock = self.lock.opened
        if lock is None or self._announced:
            return
        if url := await self.own_url():
            await asyncio.to_thread(lock.announce, Writer(url, self.secret))
            self._announced = True
            log.info("the other replicas hand on to this one", url=url)

    async def _keep(self, lock: WriterLock) -> None:
        """Whoever finds that another replica has taken over ends, to be started again as one that waits."""
        while True:
            try:
                await asyncio.to_thread(lock.keep)
                await self._announce()
            except IndexBusy as exc:
                self.lost = str(exc)
                log.error("this service ends", detail=self.lost)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except WinnowError as exc:
                log.warning("the lock of the index cannot be kept", detail=str(exc))
            await asyncio.sleep(KEEP_S)


async def _is_reachable(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(TIMEOUT.connect):
            _, connection = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        return False
    connection.close()
    return True
