"""How long a simulated model server takes, and what its prefix cache spares, in virtual time.

Stated constants, not measurements of ours:

RTX_4090    Gemma 3 4B in bf16 under vLLM. Prefill is bound by arithmetic: 2 x 3.9e9 operations a token at 165 TFLOPS
            (Ada datasheet, FP16 with FP32 accumulation) and about 57 % of that reached: 12,000 tokens/s, one request
            after another. Decoding is bound by memory: 8.6 GB of weights at 1,008 GB/s is 8.5 ms, and 2 ms for the KV
            cache and the scheduler: 10.5 ms a token, for all sequences of the batch together.
FLASH_LITE  A flash-class API: 0.35 s to the first token and 300 tokens/s (Artificial Analysis gives 0.35 s and 284 for
            Gemini 1.5 Flash-8B, about 320 tokens/s for 3.1 Flash Lite), 8 requests at a time, which do not slow one
            another down; no cache, as implicit caching begins at sizes that a rerank prompt does not reach.

A token is a quarter of the UTF-8 bytes of a prompt (`app.backends.base`); replies are counted by pieces.
Left out: decoding slows a prefill that runs beside it, long contexts cost more than linearly, blocks get evicted.
"""

import asyncio
import re
from collections.abc import Sequence

import msgspec

from app.backends.base import Conversation, tokens_of_prompt
from app.domain import TokenCount

BLOCK_TOKENS = 16
"""vLLM caches whole blocks of so many."""

BLOCK_CHARACTERS = 4 * BLOCK_TOKENS

_PIECE = re.compile(r"\d| ?[^\W\d]+| ?[^\w\s]|\n")


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """`first_s` passes before anything happens. `shared`: the requests' prefills wait for one another.

    `scores`: it gives log-probabilities.
    """

    name: str
    first_s: float
    prefill_per_s: float
    token_s: float
    concurrency: int
    shared: bool
    caches: bool
    scores: bool


RTX_4090 = Speed(
    name="gpu",
    first_s=0.015,
    prefill_per_s=12_000,
    token_s=0.0105,
    concurrency=256,
    shared=True,
    caches=True,
    scores=True,
)
FLASH_LITE = Speed(
    name="api",
    first_s=0.35,
    prefill_per_s=40_000,
    token_s=1 / 300,
    concurrency=8,
    shared=False,
    caches=False,
    scores=False,
)
INSTANT = Speed(
    name="instant", first_s=0, prefill_per_s=1e12, token_s=0, concurrency=256, shared=False, caches=True, scores=True
)


def pieces_of(text: str) -> int:
    """Tokens of a reply: digits one by one, as Gemma and Qwen write them, words, signs."""
    return len(_PIECE.findall(text))


class SimulatedServer:
    """One model server. To be used in one event loop."""

    def __init__(self, speed: Speed) -> None:
        self._speed = speed
        self._slots = asyncio.Semaphore(speed.concurrency)
        self._blocks: set[int] = set()
        self._free_at = 0.0

    async def serve(self, prompts: Sequence[Conversation], output: int) -> TokenCount:
        """One request of several prompts, each answered with `output` tokens at most; returns when it is answered."""
        async with self._slots:
            counts = [self._read(prompt) for prompt in prompts]
            tokens = TokenCount(
                input=sum(count for count, _ in counts),
                cached=sum(cached for _, cached in counts),
                output=output if len(prompts) == 1 else len(prompts) * output,
            )
            await asyncio.sleep(self._seconds(tokens.input - tokens.cached, output))
        return tokens

    def _seconds(self, fresh: int, output: int) -> float:
        now, prefill = asyncio.get_running_loop().time(), fresh / self._speed.prefill_per_s
        begun = now + self._speed.first_s
        if self._speed.shared:
            begun = max(begun, self._free_at)
            self._free_at = begun + prefill
        return begun + prefill + output * self._speed.token_s - now

    def _read(self, prompt: Conversation) -> tuple[int, int]:
        """(tokens, those of them that were in the cache)."""
        tokens = tokens_of_prompt(prompt)
        if not self._speed.caches:
            return tokens, 0
        text = "\x1e".join(f"{message.role}\x1f{message.content}" for message in prompt)
        chain, hits = 0, 0
        for start in range(0, len(text) - BLOCK_CHARACTERS + 1, BLOCK_CHARACTERS):
            chain = hash((chain, text[start : start + BLOCK_CHARACTERS]))
            hits += chain in self._blocks
            self._blocks.add(chain)
        return tokens, min(hits * BLOCK_TOKENS, tokens - 1)
