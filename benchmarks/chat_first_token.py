"""The time to the first token of /chat beside a direct call: `python -m benchmarks.chat_first_token [--pairs 400]`.

A local server that speaks vLLM's protocol replies at once; the service runs in a process of its own, with its meter,
ledger and limits. The same client asks both for a stream, in pairs and in turns, each on a kept connection, and takes
the time up to the first piece of text. Exits with 1 if the median of the differences is above 5 ms.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.fakes.models import openai_style
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.running import RunningServer

MOST_MS = 5.0
WARM_UP = 50


async def first_token_ms(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> float:
    """Up to the first piece of text; the rest is read, too, so that the connection is kept."""
    began, taken = time.perf_counter(), 0.0
    async with client.stream("POST", url, json={**body, "stream": True}) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not taken and line.startswith("data: {") and _text(msgspec.json.decode(line[6:])):
                taken = (time.perf_counter() - began) * 1000
    assert taken, "no text came"
    return taken


def _text(event: dict[str, Any]) -> str:
    """Of a chunk of vLLM's, or of a delta of ours."""
    choices = event.get("choices")
    text: str = (choices[0]["delta"].get("content") if choices else event.get("text")) or ""
    return text


async def measure(home: Path, pairs: int) -> bool:
    """Prints the quantiles; whether the requirement is met."""
    async with OpenAIServer() as server:
        told = msgspec.json.encode({"local": openai_style(server)}).decode()
        service = await asyncio.to_thread(RunningServer, home, "tests.fakes.model_service", told)
        try:
            direct, ours = await compare(f"{server.url}/chat/completions", server.model.name, service.url, pairs)
        finally:
            service.close()
    more = [mine - theirs for mine, theirs in zip(ours, direct, strict=True)]
    for name, values in (("direct", direct), ("/chat", ours), ("difference", more)):
        parts = statistics.quantiles(values, n=20)
        print(f"{name:10} p25 {parts[4]:7.2f} ms   p50 {parts[9]:7.2f} ms   p95 {parts[18]:7.2f} ms")
    return statistics.median(more) <= MOST_MS


async def compare(model_url: str, model: str, service_url: str, pairs: int) -> tuple[list[float], list[float]]:
    """The times of the direct calls, and of those through the service."""
    messages = [{"role": "user", "content": "Name the capital of France."}]
    calls = {
        "direct": (model_url, {"model": model, "messages": messages, "max_tokens": 16, "temperature": 0}),
        "ours": (f"{service_url}/chat", {"messages": messages, "max_output_tokens": 16}),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        for number in range(WARM_UP + pairs):
            for name in sorted(calls, reverse=bool(number % 2)):
                taken = await first_token_ms(client, *calls[name])
                if number >= WARM_UP:
                    times[name].append(taken)
    return times["direct"], times["ours"]


def main() -> None:
    """Measure, print, exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        sys.exit(0 if asyncio.run(measure(Path(home), arguments.pairs)) else 1)


if __name__ == "__main__":
    main()
