"""What an evaluation is asked for, and what it finds. Plain data."""

import msgspec

from app.ranking.calibrating import Bin, Fit


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
