"""Bursts of one-text requests to /v1/embeddings: `python -m benchmarks.embeddings [--words 12] [--require 5]`.

A real server in a process of its own with the quick start's model; every text is new. In each round, one after another:

alone     requests one by one on one connection: what a client gets that waits for each
burst     1,000 requests at once, each on a connection of its own
list      the same number of texts in requests of 100, one by one: how fast the model is where HTTP costs nothing

Texts per second; the ratio is burst to alone, the median of the rounds. The model's time of a text grows with its
length, its time of a call does not, so the ratio falls with --words. The clients use the same cores.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from app.instance import find_service

VOCABULARY = ("garden", "river", "winter", "copper", "engine", "letter", "harbour", "silver", "market", "window")
LIST = 100
HEAD = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


def main() -> int:
    """Exit status 1 when the median ratio is below what is required."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=12)
    parser.add_argument("--burst", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--require", type=float, default=0.0)
    args = parser.parse_args()
    _allow_files(2 * args.burst + 100)
    with tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen(
            [sys.executable, "-m", "app.cli.main", "serve", "--port", "0"],
            env={**os.environ, "WINNOW_HOME": home},
            stderr=subprocess.DEVNULL,
        )
        try:
            ratios = asyncio.run(measure(_address(Path(home)), args))
        finally:
            server.terminate()
            server.wait(timeout=30)
    ratio = statistics.median(ratios)
    print(f"burst to alone: {ratio:.1f}")
    return int(ratio < args.require)


async def measure(address: tuple[str, int], args: argparse.Namespace) -> list[float]:
    """The ratio of each round."""
    rng, ratios = random.Random(7), []
    await _one_by_one(address, [[_text(rng, args.words)] for _ in range(20)])
    for _ in range(args.rounds):
        alone = await _one_by_one(address, [[_text(rng, args.words)] for _ in range(args.alone)])
        burst = await _at_once(address, [_text(rng, args.words) for _ in range(args.burst)])
        lists = [[_text(rng, args.words) for _ in range(LIST)] for _ in range(args.burst // LIST)]
        listed = await _one_by_one(address, lists)
        ratios.append(burst / alone)
        print(
            f"alone {alone:6.0f}/s   burst {burst:6.0f}/s   list {listed:6.0f}/s   burst to alone {ratios[-1]:.1f}",
            flush=True,
        )
    return ratios


async def _one_by_one(address: tuple[str, int], requests: list[list[str]]) -> float:
    asked = [_request(texts) for texts in requests]
    connection = await _connect(address)
    started = time.perf_counter()
    for request in asked:
        await connection.ask(request)
    taken = time.perf_counter() - started
    connection.close()
    return sum(map(len, requests)) / taken


async def _at_once(address: tuple[str, int], texts: list[str]) -> float:
    asked = [_request([text]) for text in texts]
    connections = [await _connect(address) for _ in texts]
    started = time.perf_counter()
    for answered in [connection.ask(request) for connection, request in zip(connections, asked, strict=True)]:
        await answered
    taken = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return len(texts) / taken


async def _connect(address: tuple[str, int]) -> "Connection":
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    return connection


class Connection(asyncio.Protocol):
    """HTTP by hand, and as little of it as will do: a client library would take as long as the model."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._received = cast(asyncio.Transport, transport), b""

    def ask(self, request: bytes) -> asyncio.Future[None]:
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) == length:
            assert head.lower().startswith(b"http/1.1 200"), self._received
            assert b'"embedding"' in body
            self._received = b""
            self._answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answered.done():
            self._answered.set_exception(ConnectionError("the service hung up"))

    def close(self) -> None:
        self._transport.close()


def _request(texts: list[str]) -> bytes:
    body = json.dumps({"model": "winnow-embed", "input": texts, "encoding_format": "base64"}).encode()
    return HEAD % len(body) + body


def _text(rng: random.Random, words: int) -> str:
    return " ".join([*rng.choices(VOCABULARY, k=words), str(rng.randrange(10**9))])


def _address(home: Path) -> tuple[str, int]:
    while (presence := find_service(home)) is None:
        time.sleep(0.05)
    parts = urlsplit(presence.url)
    return str(parts.hostname), int(parts.port or 0)


def _allow_files(count: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, most), most))


if __name__ == "__main__":
    sys.exit(main())
