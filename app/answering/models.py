"""Shapes that the parts of answering exchange."""

from collections.abc import Mapping

import msgspec

from app.domain import AbstainReason, BackendUse, CitationMade, Hit, SourcesFound, TextDelta, UnsupportedSpan
from app.text.stopwords import AnswerType
from indexing.documents import Span


class FollowUp(msgspec.Struct, frozen=True):
    """What a question that cannot stand alone adds to the one before it.

    `terms` are those of its own content words that the earlier question lacks. `another`: it names another thing to ask
    the same of ("And for braces?"). `said` is the answer before it.
    """

    terms: frozenset[str]
    another: bool
    answer_type: AnswerType | None
    said: str


class ParsedQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question, and what it asks for. `text` is what to search for: with the previous question if it needs that.

    `terms` are its content words with near relatives (see `app.text.terms.content_terms`). `answer_type` is the shape
    of its answer, if known. `follow_up` is there where it is read with the question before it. `stands_alone`: as far
    as its words tell, it can be understood without earlier turns. `standalone` is a model's rewording of it, "" if
    there is none.
    """

    text: str
    terms: Mapping[str, tuple[frozenset[str], ...]]
    answer_type: AnswerType | None
    follow_up: FollowUp | None = None
    stands_alone: bool = True
    standalone: str = ""

    @property
    def uses_previous(self) -> bool:
        """Whether it is read together with an earlier question."""
        return self.follow_up is not None

    def has(self, term: str, present: frozenset[str]) -> bool:
        """Whether a text of these terms has the term, itself or a near relative."""
        return term in present or any(variant <= present for variant in self.terms.get(term, ()))


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A passage as the model sees it. Its n-th sentence is cited as `[number.n]`; both count from 1.

    `sentences` are spans of `hit.text`, in order, that cover all of it but white space.
    """

    number: int
    hit: Hit
    sentences: tuple[Span, ...]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of the answer: [start, end) of its text, the text without markers, and what it cites.

    `citations` are indices into the answer's citations. `factual`: it states something that needs support, which a
    greeting, a question or a heading does not.
    """

    start: int
    end: int
    text: str
    citations: tuple[int, ...] = ()
    factual: bool = True


class AnswerOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How generating an answer ended. It was made from the `sources`; `abstain_reason` is None if there is an answer.

    `cut`: the model reached its limit of tokens.
    """

    use: BackendUse
    abstain_reason: AbstainReason | None = None
    sources: tuple[Source, ...] = ()
    claims: tuple[Claim, ...] = ()
    unsupported: tuple[UnsupportedSpan, ...] = ()
    degraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    cut: bool = False


AnswerPart = SourcesFound | TextDelta | CitationMade | AnswerOutcome
"""What a generator of answers yields: first the sources, then text and citations, the outcome last."""
