"""What is asked of an estimate, and what it answers."""

from collections.abc import Mapping
from typing import Literal

import msgspec

MONTH_H = 730.0
"""Hours in a month: 365 x 24 / 12."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A month's tokens, and what is assumed. `cached_share` of the input comes from a cache.

    `hours` are rented in a month whether they are used or not; "needed": only as long as there is work. `concurrency`
    conversations are served at once. A prompt is read `prompt_factor` times as fast as one stream writes. `gpus` are
    dollars per hour by name, and only those are looked at; None: all at their usual prices.
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
        """Input and output."""
        return self.input_tokens + self.output_tokens


class ApiCost(msgspec.Struct, frozen=True, kw_only=True):
    """A month over an API. Dollars per million tokens are those of `price_source`, as of `as_of`.

    `reference`: no such backend is configured; it is here to compare with.
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
    """From how many tokens a month, of the same mix, the GPU is cheaper than that API; None: never.

    It stays so until the GPU is full.
    """

    backend: str
    model: str
    monthly_tokens: float | None


class SelfHostCost(msgspec.Struct, frozen=True, kw_only=True):
    """A month on GPUs. `backend` None: nothing of that kind is configured, and the speeds are assumptions.

    Speeds are tokens/s of one GPU with `concurrency` conversations at once. `gpu_hours` are the hours of work, of which
    `gpus` are needed; each is rented for `rented_hours`, None: as long as there is work.
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
    """Something that the figures stand on, and whence it is."""

    name: str
    value: str
    source: str


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What the month costs in each way, the cheapest first, own GPUs before others.

    `not_estimated` names the backends of which too little is known, and what is missing.
    """

    workload: Workload
    apis: tuple[ApiCost, ...]
    self_hosted: tuple[SelfHostCost, ...]
    not_estimated: tuple[str, ...]
    assumptions: tuple[Assumption, ...]
