"""Answers in the passages' own sentences, without a model."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

import msgspec
import numpy as np

from app.answering.extractive.evidence import Judgement, Scores, Sentence, judge, lexical_clues, promising, split
from app.answering.models import Brief, Claim, WritingEvent, Written
from app.answering.output import STOPS, citation_of, readable
from app.answering.prompts import clip, estimate_tokens, pack
from app.answering.questions import Reading
from app.domain import AbstainReason, BackendUse, Citation, CitationMade, Hit, Question, SourcesFound, TextDelta
from app.observability.timing import Stopwatch
from app.text.languages import refusal
from app.text.terms import terms
from indexing.documents import Span
from indexing.embedding.model import Vectors

Embed = Callable[[Sequence[str]], Awaitable[Vectors]]
"""Texts to vectors, one row each; must not block the event loop."""

EMBEDDED = 8
"""Sentences that are embedded per question, those with the best lexical clues. On 300 questions of each of four sets,
8 choose as many right sentences as 12."""
EMBEDDED_CHARACTERS = 400
"""A table row or an unbroken list can be as long as its passage, and the longest text sets what the batch costs."""
_MARKER_TOKENS = 2  # " [1]"

_NO_INSTRUCTIONS = "instructions: the extractive answerer quotes its sources and follows none."


class Quoting(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults of quoting. `min_relevance` in [0,1]: benchmarks/answers.py prints what each value costs and saves."""

    min_relevance: float = 0.45
    max_sentences: int = 3
    margin: float = 1.0


class Extractive:
    """A writer that quotes."""

    def __init__(self, embed: Embed, quoting: Quoting, use: BackendUse) -> None:
        self._embed, self._quoting, self._use = embed, quoting, use

    async def write(self, brief: Brief, watch: Stopwatch) -> AsyncGenerator[WritingEvent, None]:
        """See `Writer`."""
        with watch.stage("answer"):
            sources = await asyncio.to_thread(pack, brief.found.results, brief.question.context_tokens)
            hits = tuple(source.hit for source in sources)
            yield SourcesFound(hits)
            choice = await choose(brief.reading, hits, self._embed, self._limits(brief.question))
            claims: list[Claim] = []
            for event in _events(choice, hits, brief):
                if isinstance(event, CitationMade):
                    claims.append(_claim(event, len(claims)))
                yield event
        yield Written(
            use=self._use,
            abstain_reason=choice.abstain_reason,
            sources=sources,
            claims=tuple(claims),
            warnings=(_NO_INSTRUCTIONS,) if brief.question.instructions else (),
        )

    def _limits(self, question: Question) -> "Limits":
        asked = question.min_relevance
        return Limits(
            min_relevance=self._quoting.min_relevance if asked is None else asked,
            max_tokens=question.max_output_tokens,
            max_sentences=self._quoting.max_sentences,
            margin=self._quoting.margin,
        )


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The sentences that answer, in the order to give them; or why there are none. `relevance` in [0,1]."""

    sentences: tuple[Sentence, ...] = ()
    relevance: float = 0.0
    abstain_reason: AbstainReason | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`min_relevance` in [0,1]; a further sentence is taken when its score is at most `margin` below the best."""

    min_relevance: float
    max_tokens: int
    max_sentences: int
    margin: float


async def choose(question: Reading, hits: Sequence[Hit], embed: Embed, limits: Limits) -> Choice:
    """The fewest sentences of `hits` that answer `question`. One call of `embed`, with `EMBEDDED` + 1 texts at most."""
    if not hits:
        return Choice(abstain_reason="no_results")
    found = await assess(question, hits, embed)
    if found is None:
        return Choice(abstain_reason="unsupported")
    candidates, judgement = found
    if judgement.relevance < limits.min_relevance:
        return Choice(abstain_reason="below_min_relevance", relevance=judgement.relevance)
    return _pick(question, candidates, judgement, limits)


async def assess(question: Reading, hits: Sequence[Hit], embed: Embed) -> tuple[list[Sentence], Judgement] | None:
    """The most promising sentences, and how well they answer; None without any sentence. One call of `embed`."""
    candidates, clues = await asyncio.to_thread(_candidates, question, hits)
    if not candidates:
        return None
    vectors = await embed([question.text, *(sentence.text[:EMBEDDED_CHARACTERS] for sentence in candidates)])
    cosines = np.asarray(vectors[1:] @ vectors[0], dtype=np.float64)
    return candidates, judge(question, hits, candidates, clues, cosines)


def _candidates(question: Reading, hits: Sequence[Hit]) -> tuple[list[Sentence], Scores]:
    """The sentences worth an embedding, with their clues, shape (sentences, 5). Ten passages take some 10 ms."""
    sentences = split(hits)
    clues = lexical_clues(question, sentences)
    kept = promising(clues, EMBEDDED)
    return [sentences[index] for index in kept], clues[kept]


def _pick(question: Reading, candidates: Sequence[Sentence], judgement: Judgement, limits: Limits) -> Choice:
    asked, scores = terms(question.text), judgement.scores
    order = sorted(range(len(candidates)), key=lambda index: (-scores[index], index))
    able = [index for index in order if _says_something(candidates[index], asked)]
    if not able:
        return Choice(abstain_reason="unsupported", relevance=judgement.relevance)
    near = [index for index in able[: limits.max_sentences] if scores[able[0]] - scores[index] <= limits.margin]
    chosen = _in_order(_within([candidates[index] for index in near], limits.max_tokens))
    return Choice(sentences=chosen, relevance=judgement.relevance)


def _says_something(sentence: Sentence, asked: frozenset[str]) -> bool:
    """Neither a heading nor a question itself, and not only the question's own words."""
    if sentence.heading:
        return False
    shown = readable(sentence.text)
    return not shown.endswith(("?", "？", "؟")) and any(map(str.isalnum, shown)) and not sentence.terms <= asked


def _within(sentences: Sequence[Sentence], budget: int) -> list[Sentence]:
    """As many as fit into `budget` tokens with their markers; the first one is cut rather than left out."""
    fitting = [_clipped(sentences[0], max(1, budget - _MARKER_TOKENS))]
    left = budget - estimate_tokens(fitting[0].text) - _MARKER_TOKENS
    for sentence in sentences[1:]:
        left -= estimate_tokens(sentence.text) + _MARKER_TOKENS
        if left < 0:
            break
        fitting.append(sentence)
    return fitting


def _clipped(sentence: Sentence, budget: int) -> Sentence:
    text = clip(sentence.text, budget)
    return msgspec.structs.replace(sentence, text=text, end=sentence.start + len(text))


def _in_order(sentences: Sequence[Sentence]) -> tuple[Sentence, ...]:
    """Passages by their best sentence, the sentences of each as they stand in it."""
    place = {hit: number for number, hit in enumerate(dict.fromkeys(sentence.hit for sentence in sentences))}
    return tuple(sorted(sentences, key=lambda sentence: (place[sentence.hit], sentence.start)))


def _events(choice: Choice, hits: Sequence[Hit], brief: Brief) -> Iterator[TextDelta | CitationMade]:
    if choice.abstain_reason is not None:
        yield TextDelta(refusal(choice.abstain_reason, brief.language))
        return
    for piece in cite(hits, choice.sentences):
        yield TextDelta(piece.text)
        yield CitationMade(piece.citation)


def _claim(made: CitationMade, place: int) -> Claim:
    """Each sentence quotes one source; its quote is what it claims."""
    citation = made.citation
    return Claim(start=citation.answer_start, end=citation.answer_end, text=citation.quote, citations=(place,))


class Piece(msgspec.Struct, frozen=True):
    """The next part of an answer: `text`, and after it the citation of the marker that `text` ends with."""

    text: str
    citation: Citation


def cite(hits: Sequence[Hit], sentences: Sequence[Sentence]) -> Iterator[Piece]:
    """One piece per sentence, markers counted from 1. The pieces' texts, concatenated, are the answer."""
    offset = 0
    for marker, sentence in enumerate(sentences, start=1):
        gap = " " if offset else ""
        body, stop = _before_stop(readable(sentence.text))
        start = offset + len(gap)
        text = f"{gap}{body} [{marker}]{stop}"
        yield Piece(
            text,
            citation_of(marker, hits[sentence.hit], Span(sentence.start, sentence.end), Span(start, start + len(body))),
        )
        offset += len(text)


def _before_stop(text: str) -> tuple[str, str]:
    """The sentence and its full stop, for the marker to go between; the stop is "" where there is none to split off."""
    body = text.rstrip(STOPS)
    return (body, text[len(body) :]) if body else (text, "")
