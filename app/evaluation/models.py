"""Options, progress and results of an evaluation: plain data that the command line imports without loading numpy."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from app.domain import ExpandQuery

Fate = Literal["not_found", "not_read", "misjudged", "right"]
"""What became of a question's answer: it is not among the candidates; among them, but no model read it; read, and yet
not first; first."""


class CalibrateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`queries` drawn by `seed` are graded on at most `passages` documents; a model reads the best `depth` for each."""

    backend: str
    queries: int = 100
    depth: int = 50
    passages: int = 2000
    seed: int = 1
    concurrency: int = 4
    fresh: bool = False
    collection: str | None = None


class EvalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`questions` are drawn by `seed`; with `answers`, as many unanswerable ones too. `k` is that of recall@k,
    `expand_query` that of /search.

    `collection`: an existing one whose document ids the judgements use; None: the data is indexed.
    """

    backends: tuple[str, ...] = ()
    answers: bool = False
    check: Literal["structural", "model"] = "structural"
    questions: int = 200
    seed: int = 1
    k: int = 20
    expand_query: ExpandQuery = "none"
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


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """How well the best score of a search tells whether anything found answers the question.

    `auroc`: how likely an answerable question has a higher one than an unanswerable one; .5 is chance.
    `false_acceptance`: the share of unanswerable questions whose best score is at least `threshold`, the highest that
    nine of ten answerable ones reach. That is what `min_score` or `min_relevance` would let pass.
    """

    auroc: float
    false_acceptance: float
    threshold: float
    answerable: int
    unanswerable: int


class BackendReport(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one backend.

    `measures` by name, and `gains` over the baseline. `latency_ms` holds "p50" and "p95" of each stage. Sums are over
    `questions`, including the unanswerable ones but not those that failed; `cached_tokens` is None where a server does
    not tell. `answered_by` counts who wrote the answers.

    `gate` is None where no unanswerable question was asked.

    `fates`: of the questions with a relevant document, how many met each fate ("count") and which part ("share").
    `limited_by`: whether more of those that are not right were lost by retrieval or by ranking; None if all are right.
    """

    backend: str
    model: str | None
    questions: int
    failed: Mapping[str, int]
    measures: Mapping[str, Figure]
    gains: Mapping[str, Figure]
    latency_ms: Mapping[str, Mapping[str, float]]
    requests: int
    input_tokens: int
    cached_tokens: int | None
    output_tokens: int
    cost_usd: float
    usd_per_1000: float
    answered_by: Mapping[str, int]
    gate: Gate | None = None
    fates: Mapping[Fate, Mapping[str, float]] = {}
    limited_by: Literal["recall", "ranking"] | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all backends, the baseline first, and what they are based on."""

    data: str
    digest: str
    options: EvalOptions
    documents: int | None
    answerable: int
    unanswerable: int
    backends: tuple[BackendReport, ...]
    notes: tuple[str, ...]
