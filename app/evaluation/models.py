"""Options, progress and results of an evaluation: plain data that the command line imports without loading numpy."""

from collections.abc import Mapping
from typing import Literal

import msgspec


class CalibrateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`queries` are asked, drawn by `seed`, of at most `passages` documents; a model reads the best `depth` of each."""

    backend: str
    queries: int = 100
    depth: int = 50
    passages: int = 2000
    seed: int = 1
    concurrency: int = 4
    fresh: bool = False
    collection: str | None = None


class EvalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`questions` are drawn by `seed`, and as many unanswerable ones with `answers`. `k` is that of recall@k.

    `collection`: of the user's own, whose documents have the ids that the judgements use; None: the data is indexed.
    """

    backends: tuple[str, ...] = ()
    answers: bool = False
    check: Literal["structural", "model"] = "structural"
    questions: int = 200
    seed: int = 1
    k: int = 20
    concurrency: int = 4
    fresh: bool = False
    collection: str | None = None


class EvaluationProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a step is; `failed` of the `done` failed."""

    step: str
    done: int
    total: int
    usd: float = 0.0
    failed: int = 0


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over `n` questions, and its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds."""

    p50: float
    p95: float


class BackendReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one backend did.

    `measures` by name, and `gains`: how much better than the baseline, where that is another. The sums are over
    `questions`, the unanswerable ones too, but without those that failed. `used` counts who wrote the answers.
    """

    backend: str
    model: str | None
    questions: int
    failed: Mapping[str, int]
    measures: Mapping[str, Figure]
    gains: Mapping[str, Figure]
    latency_ms: Mapping[str, Latency]
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float
    usd_per_1000: float
    answered_by: Mapping[str, int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All backends, the baseline first, and what the figures rest on."""

    data: str
    digest: str
    options: EvalOptions
    documents: int | None
    answerable: int
    unanswerable: int
    backends: tuple[BackendReport, ...]
    notes: tuple[str, ...]
