"""What an evaluation is asked for, and what it finds. Plain data."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from app.ranking.calibration import Bin, Fit


class CalibrateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`queries` are asked, drawn by `seed`, of at most `passages` documents; a model reads the best `depth` of each."""

    backend: str
    queries: int = 100
    depth: int = 50
    passages: int = 2000
    seed: int = 1
    at_once: int = 4
    fresh: bool = False
    collection: str | None = None


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """A fit on one half of the queries, seen on the other half. Log losses in nats per document."""

    n: int
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float


class Calibrated(msgspec.Struct, frozen=True, kw_only=True):
    """The fit that is now kept, and how far to trust it. `held_out` None: too few queries to hold some out.

    `before` and `after` are the reliability of all documents, in bins of the score.
    """

    backend: str
    model: str
    prompt_version: str
    fit: Fit
    held_out: HeldOut | None
    before: tuple[Bin, ...]
    after: tuple[Bin, ...]
    queries: int
    failed: int
    unread: int
    requests: int
    cost_usd: float
    seconds: float
    kept_in: str


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
    at_once: int = 4
    fresh: bool = False
    collection: str | None = None


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
