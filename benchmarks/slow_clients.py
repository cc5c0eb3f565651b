"""Clients that are slow on purpose, and what others notice of them.

    python -m benchmarks.slow_clients [--seconds 30] [--only TEXT]

Each kind of slow client attacks for so long, while /health/live and a small upload are asked for again and again; then
it is told when the service closed its connections, and with what. Required: /health/live within 1 s, uploads within
3 s and never refused, and the service ends each slow connection within its deadlines (only idle connections and readers
may stay). The embedder is a fake one. Exit status 1 if something required was missed.
"""

import argparse
import asyncio
import contextlib
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec

from benchmarks.service import WORDS, Service, detail, documents, put, quantiles, rare_word
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

LIVE_S, UPLOAD_S = 1.0, 3.0
CONNECTIONS = 2000
STALLED = 64

HEAD = b"POST /documents HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
_ENDS = (ConnectionError, TimeoutError, asyncio.IncompleteReadError)


class Ends:
    """When and how the service ended connections."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.after: list[float] = []
        self.opened = 0

    def add(self, how: str, after_s: float) -> None:
        """One was ended."""
        self.counts[how] += 1
        self.after.append(after_s)

    def text(self) -> str:
        """For the table."""
        left = self.opened - len(self.after)
        spans = f" after {min(self.after):.0f} to {max(self.after):.0f} s" if self.after else ""
        ends = ", ".join(f"{count} x {how}" for how, count in self.counts.most_common(3))
        return f"{ends or 'none ended'}{spans}" + (f", {left} still open" if left else "")


class SlowClient(msgspec.Struct, frozen=True):
    """`attack` runs until it is cancelled. `ended`: the service must have ended all its connections by then."""

    name: str
    attack: Callable[[Service, Ends], Awaitable[None]]
    ended: bool = True


async def connected(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of its own."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def drip(service: Service, ends: Ends, first: bytes, piece: bytes, every_s: float) -> None:
    """Send `first`, then `piece` again and again, until the service answers or closes."""
    reader, writer = await connected(service)
    ends.opened += 1
    begun = time.perf_counter()
    answer = asyncio.create_task(reader.read(200))
    try:
        writer.write(first)
        while not answer.done():
            if piece:
                writer.write(piece)
                await writer.drain()
            await asyncio.wait({answer}, timeout=every_s)
        seen = answer.result().partition(b"\r\n")[0].decode(errors="replace").removeprefix("HTTP/1.1 ") or "closed"
    except _ENDS as exc:
        seen = type(exc).__name__
    finally:
        answer.cancel()
        writer.close()
    ends.add(seen, time.perf_counter() - begun)


async def endless_header(service: Service, ends: Ends) -> None:
    """One header that never ends, as fast as it is taken; again when it is refused."""
    while True:
        await drip(service, ends, b"GET /health/live HTTP/1.1\r\nX-Long: ", b"a" * 65_536, 0.001)
        await asyncio.sleep(0.1)


async def slow_headers(service: Service, ends: Ends) -> None:
    """50 clients that send a header every second."""
    first = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    await asyncio.gather(*(drip(service, ends, first, b"X-Slow: yes\r\n", 1.0) for _ in range(50)))


async def slow_body(service: Service, ends: Ends) -> None:
    """50 clients that send a byte of the body every second."""
    first = HEAD + b"Content-Length: 100000\r\n\r\n"
    await asyncio.gather(*(drip(service, ends, first, b" ", 1.0) for _ in range(50)))


async def stalled_uploads(service: Service, ends: Ends) -> None:
    """64 uploads that stop in the middle."""
    first = HEAD + b"Content-Length: 100000\r\n\r\n" + b" " * 50_000
    await asyncio.gather(*(drip(service, ends, first, b"", 1.0) for _ in range(STALLED)))


async def idle_connections(service: Service, ends: Ends) -> None:
    """2,000 connections on which nothing is sent."""
    await asyncio.gather(*(drip(service, ends, b"", b"", 5.0) for _ in range(CONNECTIONS)), return_exceptions=True)


async def never_reading(service: Service, ends: Ends) -> None:
    """20 clients that ask for an endless stream and read nothing of it."""

    async def ask() -> None:
        body = b'{"message": "Tell me.", "backend": "vllm", "stream": true, "max_output_tokens": 8192}'
        reader, writer = await connected(service)
        ends.opened += 1
        begun = time.perf_counter()
        writer.transport.pause_reading()
        writer.write(b"POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        try:
            while True:
                await asyncio.sleep(0.5)
                if reader.at_eof():
                    break
        finally:
            writer.close()
        ends.add("closed", time.perf_counter() - begun)

    await asyncio.gather(*(ask() for _ in range(20)))


SLOW_CLIENTS = (
    SlowClient("nobody", lambda _service, _ends: asyncio.sleep(3600)),
    SlowClient("endless header", endless_header),
    SlowClient("slow headers", slow_headers),
    SlowClient("slow bodies", slow_body),
    SlowClient("64 stalled uploads", stalled_uploads),
    SlowClient("2,000 idle connections", idle_connections, ended=False),
    SlowClient("never-reading streams", never_reading, ended=False),
)


class Others:
    """Clients in a hurry, each on a new connection, as a supervisor's are."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.live: list[float] = []
        self.uploads: list[float] = []
        self.refused: Counter[str] = Counter()

    async def ask(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self._ask_live(), self._upload())

    async def _ask_live(self) -> None:
        while True:
            self.live.append(await self._timed(lambda client: client.get("/health/live")))
            await asyncio.sleep(0.2)

    async def _upload(self) -> None:
        for number in range(1_000_000):
            word = rare_word("slow", number)
            self.uploads.append(await self._timed(lambda client, w=word: put(client, "small", documents({w: w}, 1))))
            await asyncio.sleep(0.5)

    async def _timed(self, request: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> float:
        begun = time.perf_counter()
        try:
            async with self._service.client(timeout_s=30) as client:
                response = await request(client)
            if response.status_code != 200:
                self.refused[f"{response.status_code} {detail(response)[:40]}"] += 1
        except httpx.HTTPError as exc:
            self.refused[type(exc).__name__] += 1
        return time.perf_counter() - begun


async def suffer(slow: SlowClient, service: Service, seconds: float) -> bool:
    """Print a line; True if all that is required was seen."""
    ends, others = Ends(), Others(service)
    tasks = [asyncio.create_task(slow.attack(service, ends)), asyncio.create_task(others.ask())]
    await asyncio.sleep(seconds)
    text, all_ended = ends.text(), ends.opened - len(ends.after) <= 1
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    good = (
        max(others.live) <= LIVE_S
        and max(others.uploads) <= UPLOAD_S
        and not others.refused
        and (all_ended or not slow.ended)
    )
    refused = "" if not others.refused else f"refused: {dict(others.refused)}"
    cells = (slow.name, quantiles(others.live), quantiles(others.uploads), refused, text, "" if good else "MISSED")
    print(f"| {' | '.join(cells)} |", flush=True)
    return good


async def attack(scratch: Path, seconds: float, only: str) -> bool:
    """All kinds whose names contain `only`; True if all were good."""
    results = []
    sentence = f"{' '.join(WORDS).capitalize()}. "
    async with OpenAIServer("vllm", model=FakeModel(answer=sentence * 600)) as server:
        service = Service(scratch / "home", scratch / "service.log", settings={"VLLM_URL": server.url})
        print("| slow client | /health/live | small upload | refused | slow connections | |")
        for slow in SLOW_CLIENTS:
            if only not in slow.name:
                continue
            try:
                await service.start()
                await service.until_ready()
                results.append(await suffer(slow, service, seconds))
                if service.exit_status is not None:
                    print(f"    the service ended: {service.exit_status}")
            finally:
                service.kill()
    return all(results)


def main() -> int:
    """Be slow in every way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each kind attacks")
    parser.add_argument("--only", default="", help="kinds whose names contain this")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    scratch = Path(tempfile.mkdtemp(prefix="winnow-slow-"))
    try:
        good = asyncio.run(attack(scratch, arguments.seconds, arguments.only))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
