"""Throughput through our adapters against the same SDKs called directly: `python -m benchmarks.backends`.

    python -m benchmarks.backends [--only gemini] [--rounds 4] [--seconds 1.5] [--concurrency 32]
    python -m benchmarks.backends --real-vllm http://127.0.0.1:8001/v1 [--key KEY]

The servers are fakes of the wire protocols, in processes of their own on loopback, that reply at once (then only the
work of our process counts: the worst case) or 50 ms later (what a fast model does at best); a streamed reply has some
25 chunks.
Three ways take turns, forth and back:

direct    the SDK's own call, over an HTTP client configured like ours
adapter   our adapter around that SDK
whole     all of /chat but HTTP: routing, limits, breaker, budgets, and a ledger on disk

Ratios are of the medians of the turns' calls a second; in brackets the lowest and the highest of a single round. CPU is
the process time of a call, all threads together: the noise of a busy machine touches it less. Required: adapter 0.9 of
direct. "Added" is what one call waits longer than a direct one when nothing else is going on, by percentile.
"""

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import msgspec
import uvloop

from app.backends.settings import BackendSettings
from app.observability.logging import configure_logging
from benchmarks.backends_ways import Ask, ways
from tests.fakes.faults import Fault
from tests.fakes.gemini_refusals import KEY
from tests.fakes.gemini_server import MODEL, GeminiServer
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

REQUIRED = 0.9
WAVES = 8
"""A turn has at least so many calls for each that runs at once: its end, where fewer run, must not count much."""

TEXT = (
    "The warranty covers all parts for two years, and the battery for one; "
    "who pays for the way back, and how long does it take until then?"
)


class Plan(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int
    seconds: float
    concurrency: int
    singles: int


class Turn(msgspec.Struct, frozen=True):
    """Calls a second, and the process's milliseconds for each."""

    rate: float
    cpu_ms: float


def main() -> int:
    """Serve, take turns, print; 1 when an adapter falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("gemini", "vllm"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a turn, about")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--singles", type=int, default=400, help="calls for the latency of one")
    parser.add_argument("--real-vllm", metavar="URL", help="ask this server instead of the fakes")
    parser.add_argument("--key", help="of the real server")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve(arguments.serve[0], float(arguments.serve[1])))
        return 0
    configure_logging("json", "error")
    plan = Plan(arguments.rounds, arguments.seconds, arguments.concurrency, arguments.singles)
    print(machine(), flush=True)
    if arguments.real_vllm:
        real = BackendSettings(kind="vllm", url=arguments.real_vllm, api_key=arguments.key)
        ratios = uvloop.run(measure("real vllm", real, plan))
    else:
        ratios = list(against_fakes(plan, [arguments.only] if arguments.only else ["gemini", "vllm"]))
    return 0 if min(ratios) >= REQUIRED else 1


async def serve(kind: str, reply_s: float) -> None:
    """Until killed; says on standard output where."""
    gemini = GeminiServer(choose=lambda: Fault.SLOW_FIRST_BYTE if reply_s else Fault.OK, slow_s=reply_s)
    vllm = OpenAIServer(load_s=reply_s, model=FakeModel(answer=TEXT))
    server: GeminiServer | OpenAIServer = gemini if kind == "gemini" else vllm
    async with server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


@contextmanager
def serving(kind: str, reply_s: float) -> Iterator[BackendSettings]:
    """A fake in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.backends", "--serve", kind, str(reply_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = (server.stdout or sys.stdin).readline().strip()
            if kind == "gemini":
                yield BackendSettings(kind="gemini", url=url, api_key=KEY, model=MODEL)
            else:
                yield BackendSettings(kind="vllm", url=url)
        finally:
            server.kill()


def against_fakes(plan: Plan, kinds: list[str]) -> Iterator[float]:
    """The ratios of the adapters."""
    for kind in kinds:
        for reply_s in (0.0, 0.05):
            with serving(kind, reply_s) as settings:
                yield from uvloop.run(measure(f"{kind}, {1000 * reply_s:.0f} ms", settings, plan))


async def measure(label: str, settings: BackendSettings, plan: Plan) -> list[float]:
    """Print a table of one server; the adapter's ratios, unary and streamed."""
    header = "| | calls/s direct | adapter | whole | ratio adapter | whole | CPU ms direct | adapter | whole |"
    print(f"\n**{label}**\n\n{header}\n|{'---|' * 9}", flush=True)
    with tempfile.TemporaryDirectory() as home:
        async with ways(settings, Path(home)) as three:
            unary = {name: way.complete for name, way in three.items()}
            streamed = {name: way.stream for name, way in three.items()}
            ratios = [await compare("unary", unary, plan), await compare("streamed", streamed, plan)]
            print("\n| a single call, ms | direct p50 | p99 | added by adapter p50 | p99 | by the whole p50 | p99 |")
            print(f"|{'---|' * 7}")
            await wait("unary", unary, plan.singles)
            await wait("streamed", streamed, plan.singles)
    return ratios


async def compare(label: str, asks: Mapping[str, Ask], plan: Plan) -> float:
    """Print a row; the adapter's ratio."""
    calls = await _warm(asks, plan)
    order = [*asks.items(), *reversed(list(asks.items()))]
    turns: dict[str, list[Turn]] = {name: [] for name in asks}
    for _ in range(plan.rounds):
        for name, ask in order:
            turns[name].append(await take_turn(ask, calls, plan.concurrency))
    rates = {name: statistics.median(turn.rate for turn in turns[name]) for name in asks}
    cpu = {name: statistics.median(turn.cpu_ms for turn in turns[name]) for name in asks}
    shown = [_ratio(turns["direct"], turns[name]) for name in ("adapter", "whole")]
    cells = [*(f"{rate:.0f}" for rate in rates.values()), *shown, *(f"{ms:.2f}" for ms in cpu.values())]
    print(f"| {label} | {' | '.join(cells)} |", flush=True)
    return rates["adapter"] / rates["direct"]


async def _warm(asks: Mapping[str, Ask], plan: Plan) -> int:
    """How many calls a turn should have, as the slowest way goes."""
    few = WAVES * plan.concurrency
    rates = [(await take_turn(ask, few, plan.concurrency)).rate for ask in asks.values()]
    return max(few, round(min(rates) * plan.seconds))


async def take_turn(ask: Ask, calls: int, concurrency: int) -> Turn:
    """So many calls, `concurrency` at once."""
    todo = repeat(TEXT, calls)

    async def caller() -> None:
        for text in todo:
            if not await ask(text):
                raise SystemExit("an empty reply: this server cannot be measured")

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    taken, used = time.perf_counter() - begun, time.process_time() - cpu
    return Turn(rate=calls / taken, cpu_ms=1000 * used / calls)


def _ratio(direct: list[Turn], other: list[Turn]) -> str:
    """Of the medians; and of each round for itself, its two turns of a way together."""
    ratio = statistics.median(turn.rate for turn in other) / statistics.median(turn.rate for turn in direct)
    rounds = [sum(t.rate for t in other[i : i + 2]) / sum(t.rate for t in direct[i : i + 2]) for i in _pairs(direct)]
    return f"{ratio:.2f} ({min(rounds):.2f} - {max(rounds):.2f})"


def _pairs(turns: list[Turn]) -> range:
    return range(0, len(turns), 2)


async def wait(label: str, asks: Mapping[str, Ask], calls: int) -> None:
    """Print how long one call takes alone, the ways in turn."""
    taken: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(calls):
        for name, ask in asks.items():
            begun = time.perf_counter()
            await ask(TEXT)
            taken[name].append(1000 * (time.perf_counter() - begun))
    marks = {
        name: (statistics.median(values), statistics.quantiles(values, n=100)[-1]) for name, values in taken.items()
    }
    direct = marks["direct"]
    added = [
        f"{mine - its:+.2f}" for name in ("adapter", "whole") for mine, its in zip(marks[name], direct, strict=True)
    ]
    print(f"| {label} | {direct[0]:.2f} | {direct[1]:.2f} | {' | '.join(added)} |", flush=True)


def machine() -> str:
    """What this ran on."""
    cores, load = os.cpu_count(), os.getloadavg()[0]
    return (
        f"{cores} cores, {platform.machine()}, Python {platform.python_version()}, load average at the start {load:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
