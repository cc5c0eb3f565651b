"""Thousands of texts by POST /classify, before model servers of a stated speed that fail at random.

    python -m benchmarks.classify [--texts 5000] [--call-ms 150] [--faults 0.1] [--concurrency 256] [--calls 50]
        [--way stated]

The service runs in a process of its own, over sockets; the model server is a fake one here, which takes `--call-ms` for
each call and has faults that may pass in a share of them. At most `--calls` are made at once. What a text has to be
labelled as depends on its number, so that a result in the wrong place is seen. Three ways: stated, 8 texts a call
(Gemini's protocol); by log-probabilities (Ollama's), and by a decision model, a text a call. Required of each: no text
lost, doubled or wrong, and the ledger's calls and tokens those of the server; stated, 5,000 texts in less than 20 s.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from app.backends.settings import BackendSettings
from app.domain import TokenCount
from tests.fakes.faults import Fault, seeded_faults
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.labelling_mind import labels_of
from tests.fakes.models import gemini, openai_style
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.running import RunningServer
from tests.fakes.wire import Answering, Asked

LABELS = ("EVEN", "ODD")
PASSING = (
    Fault.REQUEST_TIMEOUT,
    Fault.RATE_LIMITED_WITH_DELAY,
    Fault.RATE_LIMITED,
    Fault.SERVER_ERROR,
    Fault.UNAVAILABLE,
    Fault.MALFORMED_JSON,
    Fault.EMPTY_REPLY,
    Fault.DROPPED_BEFORE,
)
SOON_S = 0.05
"""When a server that refuses wants to be asked again."""


def label_of(text: str) -> str:
    """What a text has to be labelled."""
    return "ODD" if text.endswith(("1", "3", "5", "7", "9")) else "EVEN"


def texts_of(count: int) -> list[str]:
    """All different, and of the length of a short message."""
    return [f"The parcel that I ordered has arrived late again, and nobody said why: case {n}" for n in range(count)]


class SlowGemini(GeminiServer):
    """Takes its time for each call of a model."""

    def __init__(self, call_s: float, faults: float, model: str) -> None:
        choose = seeded_faults(14, faults, list(PASSING))
        super().__init__(choose=choose, models=(model,), slow_s=SOON_S, retry_after_s=SOON_S)
        self._call_s = call_s
        self.mind = labels_of(lambda text: {label_of(text): 90})
        self.likely = {f"${digit}": {label_of(str(digit)): 0.9} for digit in range(10)}

    async def answer(self, asked: Asked, answering: Answering) -> None:
        if asked.body:
            await asyncio.sleep(self._call_s)
        await super().answer(asked, answering)

    def seen(self) -> tuple[int, TokenCount]:
        """Calls of a model, and the tokens that their clients were told of."""
        return sum(call.method != "get" for call in self.calls), self.told


class SlowOllama(OpenAIServer):
    """Takes its time, and counts the calls of a model."""

    async def _serve_call(self, body: Any, answering: Answering, *, batch: bool = False) -> None:
        self.model_calls += 1
        await super()._serve_call(body, answering, batch=batch)

    model_calls = 0

    def seen(self) -> tuple[int, TokenCount]:
        """Calls of a model, and the tokens that their clients were told of."""
        return self.model_calls, self.told


async def measure(
    name: str, backend: BackendSettings, seen: Callable[[], tuple[int, TokenCount]], options: Any
) -> bool:
    """Classify, compare, print; whether everything holds."""
    with tempfile.TemporaryDirectory(prefix="winnow-benchmark-") as home:
        told = msgspec.json.encode({"own": backend}).decode()
        running = await asyncio.to_thread(RunningServer, Path(home), "tests.fakes.model_service", told)
        try:
            async with httpx.AsyncClient(base_url=running.url, timeout=600, trust_env=False) as client:
                return await _measured(name, client, seen, options)
        finally:
            await asyncio.to_thread(running.close)


async def _measured(
    name: str, client: httpx.AsyncClient, seen: Callable[[], tuple[int, TokenCount]], options: Any
) -> bool:
    texts = texts_of(options.texts)
    body = {"texts": texts, "labels": LABELS, "concurrency": options.concurrency}
    await client.post("/classify", json={"texts": ["warm 0"], "labels": LABELS})
    begun = time.perf_counter()
    response = await client.post("/classify", json=body)
    seconds = time.perf_counter() - begun
    results = response.raise_for_status().json()["results"]
    right = sum(result.get("label") == label_of(text) for result, text in zip(results, texts, strict=True))
    rows = [msgspec.json.decode(line) for line in (await client.get("/usage/export")).content.splitlines()]
    booked = [row for row in rows if row["stage"] == "classify"]
    calls, tokens = seen()
    exact = [row for row in booked if not row["estimated"]]
    read = sum(row["input_tokens"] for row in exact)
    probes = sum(row["requests"] for row in rows if row["stage"] == "probe")
    read += sum(row["input_tokens"] for row in rows if row["stage"] == "probe")
    made = sum(row["requests"] for row in booked) + probes
    holds = (
        right == len(texts)
        and made == calls
        and read == tokens.input
        and (name != "stated" or seconds < 20 * len(texts) / 5000)
    )
    if failures := Counter(result["error"]["detail"] for result in results if "error" in result):
        print(*failures.most_common(5), sep="\n")
    print(
        f"{name:12} {len(texts)} texts in {seconds:5.1f} s, {60 * len(texts) / seconds:8,.0f} a minute; "
        f"{right} right, {sum('error' in result for result in results)} failed; "
        f"calls: ledger {made}, server {calls}; input tokens: ledger {read}, server {tokens.input}; "
        f"{'holds' if holds else 'DOES NOT HOLD'}"
    )
    return holds


async def run(options: Any) -> bool:
    """All three ways, or the one that is asked for."""
    call_s = options.call_ms / 1000
    common = BackendSettings(kind="", concurrency=options.calls, retries=5)
    holds = []
    for name, model in (("stated", "gemini-3.1-flash-lite"), ("calibrated", "gemini-decision-1")):
        if options.way not in (None, name):
            continue
        async with SlowGemini(call_s, options.faults, model) as server:
            holds.append(await measure(name, gemini(server, common), server.seen, options))
    if options.way not in (None, "logprobs"):
        return all(holds)
    likely = {str(digit): {"B" if digit % 2 else "A": -0.1} for digit in range(10)}
    ollama = SlowOllama(
        dialect="ollama",
        model=FakeModel(likely={f"case {n}\n": likely[str(n % 10)] for n in range(options.texts)} | likely),
        choose=seeded_faults(14, options.faults, list(PASSING)),
        load_s=call_s,
        slow_s=SOON_S,
        delays={Fault.RATE_LIMITED_WITH_DELAY: SOON_S, Fault.UNAVAILABLE: SOON_S},
    )
    async with ollama:
        holds.append(await measure("logprobs", openai_style(ollama, common), ollama.seen, options))
    return all(holds)


def main() -> None:
    """Exit status 1 if anything does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--call-ms", type=int, default=150)
    parser.add_argument("--faults", type=float, default=0.1)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--way", choices=("stated", "calibrated", "logprobs"))
    sys.exit(0 if asyncio.run(run(parser.parse_args())) else 1)


if __name__ == "__main__":
    main()
