"""What the reranker takes and gives, and what its steps hand to one another. No I/O."""

from collections.abc import Mapping

import msgspec

LABELS = ("0", "1", "2", "3")
"""The grades: 0 unrelated, 1 on topic without an answer, 2 part of an answer, 3 a full answer."""

TOP_GRADE = len(LABELS) - 1


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that was retrieved. `prior` in [0,1] is retrieval's own score, best first in a list of candidates."""

    id: str
    text: str
    title: str = ""
    prior: float = 0.0


class Spread(msgspec.Struct, frozen=True):
    """How priors of one kind are spread, whatever the query: their mean and standard deviation."""

    mean: float
    deviation: float


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A passage as the model may read it: cut to the query's best window, control tokens neutralised.

    `twins` are the ids of (nearly) equal candidates that share its grade; the id itself is not among them. `flags` may
    hold "suspected_injection". `prior` is the best of its and its twins'.
    """

    id: str
    text: str
    prior: float
    twins: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """What the graded pass found. `expected` E and `variance` V are of the grade over TOP_GRADE: [0,1] and [0,1/4].

    `flags` may hold "unreliable" (the model wanted to say something else than a label).
    """

    expected: float
    variance: float
    flags: tuple[str, ...] = ()


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """score = sigmoid(slope * z + offset), fitted for one model and prompt version; the default is no fit."""

    slope: float = 1.0
    offset: float = 0.0


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate's place. `score` in [0,1] is absolute. `read`: a model has seen it, and its place is the model's.

    `grade` and `uncertainty` (of the score's evidence: the standard deviation of the grade) are None where no model
    graded it.
    """

    id: str
    score: float
    read: bool = False
    grade: float | None = None
    uncertainty: float | None = None
    flags: tuple[str, ...] = ()


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Every candidate once, best first, ties broken by prior and then by id.

    `rounds` are model calls one after another, `requests` all of them. `repairs` counts by kind what was wrong in
    replies ("unknown_id", "repeated_id", "not_json", ...). `degraded` has a sentence for each thing that was left out.
    """

    order: tuple[Ranked, ...]
    rounds: int = 0
    requests: int = 0
    repairs: Mapping[str, int] = {}
    degraded: tuple[str, ...] = ()
    cache_hits: int = 0
    cache_misses: int = 0
