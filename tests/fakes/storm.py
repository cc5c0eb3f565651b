"""Model servers that remember what they told whom, and a meter that counts: what a storm's books are checked against.

A call's text begins with the id of the request that it belongs to; that is how server and ledger are compared.
"""

import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from app.backends.base import Call, Charge, Meter, Target
from app.backends.settings import BackendSettings, PriceSettings
from app.domain import TokenCount
from tests.fakes import gemini_server
from tests.fakes.faults import Fault, seeded_faults
from tests.fakes.gemini_requests import text_of
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.models import gemini, openai_style
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import Dialect, OpenAIServer
from tests.fakes.wire import Answering, WireServer

SOON_S = 0.02
"""What is slow takes so long, and who is told to come back is told to do it after this."""

FAULTS = [fault for fault in Fault if fault not in (Fault.OK, Fault.QUOTA_OF_THE_DAY)]
"""The quota of a day would end a backend's day with the first call."""

SHARE = 0.1

GPU_USD_PER_HOUR = 3.6
"""A thousandth of a dollar a second."""


class Told(msgspec.Struct):
    """What a server has of one request: model calls, and the tokens that their client was told of."""

    calls: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    thinking: int = 0

    def add(self, tokens: TokenCount) -> None:
        self.input += tokens.input
        self.cached += tokens.cached
        self.output += tokens.output
        self.thinking += tokens.thinking

    @property
    def tokens(self) -> TokenCount:
        return TokenCount(input=self.input, cached=self.cached, output=self.output, thinking=self.thinking)


Books = defaultdict[str, Told]
"""By the request's id."""


def request_of(text: str) -> str:
    """The id in a text; "" if it is none of ours, but a probe's."""
    first = text.split(" ", 1)[0]
    return first if first.startswith("storm-") else ""


class StormyGemini(GeminiServer):
    """Keeps nothing of a call but what it told."""

    def __init__(self, seed: int) -> None:
        super().__init__(choose=seeded_faults(seed, SHARE, FAULTS), slow_s=SOON_S, retry_after_s=SOON_S)
        self.books = Books(Told)

    async def _answer(self, call: gemini_server.Call, answering: Answering, *, streamed: bool) -> None:
        try:
            await super()._answer(call, answering, streamed=streamed)
        finally:
            if call.body:
                told = self.books[request_of(text_of(call.body["contents"][-1]))]
                told.calls += 1
                told.add(call.told)
            self.calls.clear()


class StormyOpenAI(OpenAIServer):
    """Keeps nothing of a call but what it told. Its probes always go well."""

    def __init__(self, dialect: Dialect, seed: int) -> None:
        super().__init__(
            dialect=dialect,
            model=FakeModel(answer="Since the first day."),
            choose=seeded_faults(seed, SHARE, FAULTS),
            api_key="k",
            slow_s=SOON_S,
            delays={Fault.RATE_LIMITED_WITH_DELAY: SOON_S, Fault.UNAVAILABLE: SOON_S},
        )
        self.books = Books(Told)

    def tell(self, body: Any, tokens: TokenCount) -> None:
        super().tell(body, tokens)
        self.books[_asker(body)].add(tokens)

    async def _serve_call(self, body: Any, answering: Answering, *, batch: bool = False) -> None:
        self.requests.clear()
        if not _asker(body):
            self.expect(Fault.OK)
        self.books[_asker(body)].calls += 1
        await super()._serve_call(body, answering, batch=batch)


def _asker(body: Any) -> str:
    first = body["messages"][0]
    content = (first[-1] if isinstance(first, list) else body["messages"][-1])["content"]
    return request_of(content) if isinstance(content, str) else ""


class CountingMeter:
    """Lets another meter do the work. Probes are not the storm's, and not counted."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.begun = 0
        self.ended = 0

    async def begin(self, target: Target, call: Call, worst: TokenCount) -> Charge:
        charge = await self._meter.begin(target, call, worst)
        if call.stage == "probe":
            return charge
        self.begun += 1
        return CountingCharge(self, charge)


class CountingCharge:
    """`app.backends.base.Charge`."""

    def __init__(self, meter: CountingMeter, charge: Charge) -> None:
        self._meter, self._charge = meter, charge

    async def end(self, tokens: TokenCount | None, **told: Any) -> None:
        self._meter.ended += 1
        await self._charge.end(tokens, **told)


class Crowd:
    """Decides what each caller does; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def picks(self, options: dict[str, float]) -> str:
        """One of them, by weight."""
        return self._random.choices(list(options), list(options.values()))[0]

    def leaves_after(self, share: float, typical_s: float) -> float | None:
        """Seconds after which a caller hangs up; None: it stays."""
        return self._random.expovariate(1 / typical_s) if self._random.random() < share else None


class Servers:
    """The three of a storm, by the names of their backends."""

    def __init__(self, seed: int) -> None:
        self.gemini = StormyGemini(seed)
        self.vllm = StormyOpenAI("vllm", seed + 1)
        self.ollama = StormyOpenAI("ollama", seed + 2)
        self._all: tuple[WireServer, ...] = (self.gemini, self.vllm, self.ollama)

    @asynccontextmanager
    async def opened(self, told: BackendSettings) -> AsyncIterator[dict[str, BackendSettings]]:
        """Their settings: one paid by the token, one by the hour, one for nothing."""
        async with self.gemini, self.vllm, self.ollama:
            by_token = PriceSettings(input=0.25, cached=0.025, output=1.5)
            yield {
                "gemini": gemini(self.gemini, msgspec.structs.replace(told, price=by_token)),
                "vllm": openai_style(self.vllm, msgspec.structs.replace(told, gpu_usd_per_hour=GPU_USD_PER_HOUR)),
                "ollama": openai_style(self.ollama, told),
            }

    @property
    def books(self) -> dict[str, Books]:
        return {"gemini": self.gemini.books, "vllm": self.vllm.books, "ollama": self.ollama.books}

    @property
    def open_connections(self) -> int:
        return sum(server.open_connections for server in self._all)

    @property
    def cancelled(self) -> int:
        """How often a client left in mid-answer."""
        return sum(server.cancelled for server in self._all)

    async def settled(self, connections: int) -> None:
        """Wait until each has no more than so many."""
        for server in self._all:
            await server.settled(connections)
