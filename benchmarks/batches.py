"""A million lines through the service's streams of JSON lines: how fast, and how much memory.

    python -m benchmarks.batches [--lines 100000] [--equal 0.0] [--concurrency 32] [--slow-reader]

A server in a process of its own judges each line without a model, so that what is measured is ours: reading the body,
the batch, writing the rows. The client sends and reads at the same time, over one connection, and checks that every
line has its row, in order. `--equal` is the share of lines that repeat an earlier text. `--slow-reader` reads the first
tenth of the rows at a hundredth of the speed: what the server holds must not grow. Required: below 400 MB of growth.
Exit status 1 if a line was lost, doubled or out of order, or the server grew by more.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from random import Random
from socket import socket
from typing import Annotated, Any

import msgspec
import uvicorn
from litestar import Litestar, Response, post
from msgspec import Meta

from app.api.json_lines import MEDIA_TYPE, JSONLines, LinesResponse, is_json_lines, options_in_query
from app.api.request import BodyRequest
from app.backends.base import Call, call_of
from app.config.settings import ServiceSettings
from app.domain import ANONYMOUS, BackendUse
from app.server import bind, server_config
from app.services.batches import DEFAULT_CONCURRENCY, MAX_CONCURRENCY, Batch, Judged
from benchmarks.processes import memory

LIMIT_MB = 400
PIECE = 500
"""Lines that are sent at once."""

WORDS = ("parcel", "late", "again", "nobody", "said", "where", "it", "had", "been", "or", "who", "was", "to", "blame")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge says."""

    label: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of the URL."""

    concurrency: Annotated[int, Meta(ge=1, le=MAX_CONCURRENCY)] = DEFAULT_CONCURRENCY


class AtOnce:
    """A judge that asks nobody."""

    async def one(self, text: str, call: Call) -> Judged[Verdict]:
        """Without a wait but one turn of the loop."""
        await asyncio.sleep(0)
        label = "LONG" if len(text) > 100 else "SHORT"
        return Judged(result=Verdict(label=label), backend=BackendUse(requested="auto", used=call.key))


def serve(pipe: Pipe) -> None:
    """The server's process: say the port, and answer each message with the megabytes in use."""

    @post("/judge", status_code=200, operation_class=JSONLines)
    async def judge(request: BodyRequest) -> Response[Any]:
        assert is_json_lines(request)
        concurrency = options_in_query(request, Options).concurrency
        return LinesResponse(request, Batch[Verdict](AtOnce(), lambda: call_of("judge", 60, ANONYMOUS), concurrency))

    async def run(listening: socket) -> None:
        app = Litestar([judge], request_class=BodyRequest)
        server = uvicorn.Server(server_config(app, ServiceSettings(port=0)))
        serving = asyncio.create_task(server.serve([listening]))
        while await asyncio.to_thread(pipe.recv):
            pipe.send(memory(os.getpid()).resident)
        server.should_exit = True
        await serving

    with bind("127.0.0.1", 0) as listening:
        pipe.send(listening.getsockname()[1])
        asyncio.run(run(listening))


def body(lines: int, equal: float) -> AsyncIterator[bytes]:
    """Rows of 5 to 40 words, in pieces."""
    random = Random(14)

    async def pieces() -> AsyncIterator[bytes]:
        latest = ["the same again"]
        for first in range(0, lines, PIECE):
            rows = []
            for number in range(first, min(first + PIECE, lines)):
                if random.random() >= equal:
                    latest = [*latest[-100:], f"{number} {' '.join(random.choices(WORDS, k=random.randint(5, 40)))}"]
                rows.append(msgspec.json.encode({"id": number, "text": random.choice(latest) if equal else latest[-1]}))
            yield b"\n".join(rows) + b"\n"

    return pieces()


async def send(writer: asyncio.StreamWriter, pieces: AsyncIterator[bytes], concurrency: int) -> None:
    """A chunked request."""
    lines = (
        f"POST /judge?concurrency={concurrency} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {MEDIA_TYPE}",
        "Transfer-Encoding: chunked",
    )
    writer.write("\r\n".join((*lines, "", "")).encode())
    async for piece in pieces:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def rows_of(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The rows of a chunked response."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], head
    held = b""
    while size := int(await reader.readline(), 16):
        *lines, held = (held + await reader.readexactly(size)).split(b"\n")
        for line in lines:
            yield msgspec.json.decode(line)
        await reader.readexactly(2)


async def measure(pipe: Pipe, port: int, options: argparse.Namespace) -> bool:
    """Run it, and print what was seen."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def memory() -> float:
        pipe.send(True)
        return float(await asyncio.to_thread(pipe.recv))

    before = most = await memory()
    begun = time.perf_counter()
    sending = asyncio.create_task(send(writer, body(options.lines, options.equal), options.concurrency))
    expected, wrong = 0, 0
    ending: dict[str, Any] = {}
    async for row in rows_of(reader):
        if "done" in row:
            ending = row
            continue
        wrong += row["id"] != expected
        expected += 1
        if options.slow_reader and expected < options.lines // 10 and expected % 100 == 0:
            await asyncio.sleep(0.1)
        if expected % 20_000 == 0:
            most = max(most, await memory())
    took = time.perf_counter() - begun
    await sending
    writer.close()
    growth = most - before
    print(f"{expected:,} of {options.lines:,} lines in {took:.1f} s: {expected / took:,.0f} a second")
    print(f"memory of the server: {before:.0f} MB before, {most:.0f} MB at most: {growth:.0f} MB more")
    whole = expected == options.lines and not wrong and ending.get("done") is True
    if not whole:
        print(f"rows out of place: {wrong}; the ending: {ending}")
    return whole and growth < LIMIT_MB


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--equal", type=float, default=0.0)
    parser.add_argument("--concurrency", type=int, default=DEFAULT_CONCURRENCY)
    parser.add_argument("--slow-reader", action="store_true")
    options = parser.parse_args()
    context = get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    passed = asyncio.run(measure(pipe, pipe.recv(), options))
    pipe.send(False)
    process.join(timeout=10)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
