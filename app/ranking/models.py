"""What the reranker takes and gives, and what its steps hand to one another. No I/O."""

from collections.abc import Mapping

import msgspec

from indexing.documents import Candidate, Passage

LABELS = ("0", "1", "2", "3")
"""The grades: 0 unrelated, 1 on topic without an answer, 2 part of an answer, 3 a full answer."""

TOP_GRADE = len(LABELS) - 1

Spread = tuple[float, float]
"""How the priors of one kind of candidates are spread, whatever the query: their mean and standard deviation."""


def candidate_of(id: str, text: str, title: str = "", prior: float = 0.0) -> Candidate:
    """A caller's own text, which is in no index, as a candidate for a ranking."""
    passage = Passage(id=id, document_id=id, version="", ordinal=0, start=0, end=len(text), text=text, title=title)
    return Candidate(passage, prior)


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """What a model said of a passage. `expected` E and `variance` V are of the grade over TOP_GRADE: [0,1] and [0,1/4].

    `mass` is the probability that the model meant a grade at all. Where it is low, `flags` holds "unreliable".
    """

    expected: float
    variance: float
    mass: float = 1.0
    flags: tuple[str, ...] = ()


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """score = sigmoid(slope * z + offset), fitted for one model and prompt version; the default is no fit."""

    slope: float = 1.0
    offset: float = 0.0


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate in a ranking: prepared for the model to read, and in the end with its score and grade.

    `text` is title and text as the model reads them: cut to what the query asks for, control tokens broken up.
    `duplicates` are the ids of (nearly) equal candidates that share its grade, its own id left out; `prior` in [0,1] is
    the best retrieval score of them all. `flags` may hold "suspected_injection".

    `score` in [0,1] is absolute. `read`: a model has seen the passage, and the place is the model's. `grade` is
    None where no model graded it.
    """

    id: str
    prior: float
    text: str = ""
    duplicates: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    score: float = 0.0
    read: bool = False
    grade: float | None = None


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Every candidate once, best first, ties broken by prior and then by id.

    `rounds` are model calls one after another, `requests` all of them. `repairs` counts by kind what was wrong in
    replies ("unknown_id", "repeated_id", "not_json", ...). `degraded` has a sentence for each thing that was left out.
    `open`: how many may still belong to the top, as far as its grades tell.
    """

    order: tuple[Ranked, ...]
    rounds: int = 0
    requests: int = 0
    repairs: Mapping[str, int] = {}
    degraded: tuple[str, ...] = ()
    open: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
