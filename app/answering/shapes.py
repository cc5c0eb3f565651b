"""What the parts of answering hand to one another."""

import msgspec

from app.domain import Hit
from indexing.documents import Span


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A passage as the model sees it: it is called by its `number`, from 1, and its n-th sentence `[number.n]`.

    `sentences` are spans of `hit.text`, in order, and hold all of it but white space.
    """

    number: int
    hit: Hit
    sentences: tuple[Span, ...]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of the answer, [start, end) of its text without the markers, and what it cites.

    `citations` are places in the answer's tuple of citations. `factual` says whether it states anything that would need
    support: a greeting, a question or a heading does not.
    """

    start: int
    end: int
    text: str
    citations: tuple[int, ...] = ()
    factual: bool = True
