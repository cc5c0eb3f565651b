"""What the parts of answering hand to one another."""

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from app.answering.questions import Reading
from app.domain import (
    AbstainReason,
    BackendUse,
    CitationMade,
    Hit,
    Question,
    SearchResult,
    SourcesFound,
    TextDelta,
    UnsupportedSpan,
)
from app.observability.timing import Stopwatch
from app.text.languages import detect_language
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


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be answered, and from what. `standalone` is the question by itself, "" where it is as it was asked."""

    question: Question
    reading: Reading
    found: SearchResult
    standalone: str = ""

    @property
    def language(self) -> str:
        """In which to refuse, as a BCP 47 tag: the question's, or what the user spoke before "Hi" or "GPU"."""
        said = (turn.content for turn in reversed(self.question.messages) if turn.role == "user")
        return self.question.language or detect_language(self.question.search.text, *said)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """How the writing of an answer ended. `abstain_reason` None: there is one, which was made from the `sources`.

    `cut`: more tokens might have said more.
    """

    use: BackendUse
    abstain_reason: AbstainReason | None = None
    sources: tuple[Source, ...] = ()
    claims: tuple[Claim, ...] = ()
    unsupported: tuple[UnsupportedSpan, ...] = ()
    degraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    cut: bool = False


WritingEvent = SourcesFound | TextDelta | CitationMade | Written


class Writer(Protocol):
    """Writes one answer: first the sources, then text and citations, Written in the end."""

    def write(self, brief: Brief, watch: Stopwatch) -> AsyncGenerator[WritingEvent, None]:
        """The concatenated deltas are the answer. Raises what models' calls raise; closing it ends them."""
        ...
