"""Workloads, GPUs and estimates: the input and output of the estimator. Plain data."""

from collections.abc import Mapping
from typing import Literal

import msgspec

SEED_PRICE = "seed figure, spot rental, not confirmed"
SEED_SPEED = "seed figure, single stream on an RTX 4090, not measured"


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A graphics card, with its memory and its bandwidth in GB/s by the data sheet."""

    name: str
    memory_gib: float
    bandwidth: float
    usd_per_hour: float


class LocalModel(msgspec.Struct, frozen=True, kw_only=True):
    """`weights_gb` in memory, `kv_mib` for one conversation, `speed` in tokens/s for one stream on an RTX 4090."""

    name: str
    weights_gb: float
    kv_mib: float
    speed: float
    speed_source: str


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="RTX 3060", memory_gib=12, bandwidth=360, usd_per_hour=0.25),
        Gpu(name="RTX 3080", memory_gib=10, bandwidth=760, usd_per_hour=0.35),
        Gpu(name="RTX 4090", memory_gib=24, bandwidth=1008, usd_per_hour=1.20),
    )
}

SPEEDS_ON = GPUS["RTX 4090"]

MODELS = (
    LocalModel(name="Gemma 3 4B", weights_gb=3.8, kv_mib=196, speed=95, speed_source=SEED_SPEED),
    LocalModel(name="Gemma 3 12B", weights_gb=7.7, kv_mib=576, speed=55, speed_source=SEED_SPEED),
    LocalModel(name="Gemma 3 27B", weights_gb=17.2, kv_mib=736, speed=32, speed_source=SEED_SPEED),
    LocalModel(
        name="Qwen3.5 4B",
        weights_gb=2.6,
        kv_mib=196,
        speed=95,
        speed_source="as Gemma 3 4B, which is as large; not measured",
    ),
    LocalModel(
        name="Qwen3.5 9B",
        weights_gb=5.7,
        kv_mib=576,
        speed=73,
        speed_source="Gemma 3 12B's 55 x 12/9, as decoding reads every weight once a token; not measured",
    ),
)
"""Qwen3.5 has no 7B: 4B and 9B are the closest."""

USABLE = 0.92
"""The share of the memory that vLLM uses by default."""

OVERHEAD_GIB = 2.0
"""Activations, CUDA graphs and the driver: an assumption."""


def conversations(model: LocalModel, gpu: Gpu) -> int:
    """How many conversations of 4,096 tokens fit beside the weights; 0: the model does not fit."""
    free = gpu.memory_gib * USABLE - model.weights_gb * 1e9 / 2**30 - OVERHEAD_GIB
    return max(0, int(free * 1024 / model.kv_mib))


def speed(model: LocalModel, gpu: Gpu) -> float:
    """Tokens/s of one stream: decoding is limited by memory, so it scales with the bandwidth."""
    return model.speed * gpu.bandwidth / SPEEDS_ON.bandwidth


MONTH_H = 730.0
"""Hours in a month: 365 x 24 / 12."""


SHORTEST_RENTAL_H, LONGEST_RENTAL_H = 0.01, 744.0
"""Of `Workload.hours`: half a minute, and a month of 31 days."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A month's tokens, and assumptions. `cached_share` of the input is cached.

    GPUs are rented for `hours` per month, used or not; "needed": only while there is work. Each serves `concurrency`
    requests at the same time. `prompt_factor` is the prefill speed relative to the decode speed of one stream. `gpus`
    are dollars per hour by name, and only those are considered; None: all at their usual prices.
    """

    input_tokens: int
    output_tokens: int
    cached_share: float = 0.0
    hours: float | Literal["needed"] = MONTH_H
    concurrency: int = 8
    prompt_factor: float = 50.0
    gpus: Mapping[str, float] | None = None

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


class ApiCost(msgspec.Struct, frozen=True, kw_only=True):
    """A month with an API. The prices, in dollars per million tokens, are from `price_source`, as of `as_of`.

    `reference`: this backend is not configured, and listed for comparison.
    """

    backend: str
    model: str
    reference: bool
    input_usd: float
    cached_usd: float
    output_usd: float
    price_source: str
    as_of: str
    usd: float
    formula: str


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens per month, of the same mix, above which the GPU is cheaper than this API; None: never.

    It is cheaper until the GPU is fully used.
    """

    backend: str
    model: str
    monthly_tokens: float | None


class SelfHostCost(msgspec.Struct, frozen=True, kw_only=True):
    """A month of self-hosting. `backend` None: no such backend is configured, and the speeds are assumptions.

    Speeds are tokens/s of one GPU with `concurrency` conversations at the same time. `gpu_hours` are the hours of work,
    for which `gpus` are needed, each rented for `rented_hours`; None: while there is work.
    """

    model: str
    gpu: str
    backend: str | None
    usd_per_hour: float
    concurrency: int
    output_tokens_per_s: float
    prompt_tokens_per_s: float
    speed_source: str
    gpu_hours: float
    gpus: int
    rented_hours: float | None
    usd: float
    formula: str
    break_even: tuple[BreakEven, ...]


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the figures depend on, and its source."""

    name: str
    value: str
    source: str


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of the month on each API and GPU, the cheapest first, the user's own GPUs before others.

    `not_estimated` names the backends without an estimate, and what is missing for one.
    """

    workload: Workload
    apis: tuple[ApiCost, ...]
    self_hosted: tuple[SelfHostCost, ...]
    not_estimated: tuple[str, ...]
    assumptions: tuple[Assumption, ...]
