"""Answers in the passages' own sentences, without a model."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

import msgspec
import numpy as np

from app.answering.extractive.evidence import (
    Scores,
    Sentence,
    Spans,
    lexical_features,
    promising,
    score_sentences,
    split,
)
from app.answering.extractive.names import about_names
from app.answering.extractive.rows import answering, attribute_terms
from app.answering.extractive.subject import about, following, of_attribute, of_its_bearer
from app.answering.models import AnswerOutcome, AnswerPart, Claim, ParsedQuestion
from app.answering.output import STOPS, citation_of, readable
from app.answering.prompts import clip, estimate_tokens, pack
from app.answering.questions import question_language
from app.domain import AbstainReason, BackendUse, Citation, CitationMade, Hit, Question, SourcesFound, TextDelta
from app.observability.timing import Stopwatch
from app.text.languages import abstention_text, detect_language, primary_language
from app.text.terms import terms
from indexing.documents import Span
from indexing.embedding.model import Vectors

Embed = Callable[[Sequence[str]], Awaitable[Vectors]]
"""Turns texts into vectors, one row each; must not block the event loop."""

MAX_EMBEDDED = 8
"""Sentences that are embedded per question, those with the best lexical features. On 300 questions of each of four
sets, 8 choose as many right sentences as 12."""
MAX_EMBEDDED_LENGTH = 400
"""Characters. A table row or an unbroken list can be as long as its passage, and the longest text of a batch decides
what the batch costs."""
_MARKER_TOKENS = 2  # " [1]"

_AS_WRITTEN = "the extractive answerer quotes its sources as they are written"


class ExtractiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How sentences are selected.

    `min_relevance` in [0,1]: benchmarks/answers.py prints what each value costs and saves.
    A further sentence is taken if its score is at most `margin` below the best one's.
    """

    min_relevance: float = 0.45
    max_sentences: int = 3
    margin: float = 1.0


async def answer_extractively(
    question: Question,
    parsed: ParsedQuestion,
    hits: Sequence[Hit],
    watch: Stopwatch,
    *,
    embed: Embed,
    settings: ExtractiveSettings,
    use: BackendUse,
) -> AsyncGenerator[AnswerPart, None]:
    """The sentences that answer the question, quoted with citations, or an abstention."""
    with watch.stage("answer"):
        sources = await asyncio.to_thread(pack, hits, question.context_tokens)
        packed = tuple(source.hit for source in sources)
        yield SourcesFound(packed)
        if question.min_relevance is not None:
            settings = msgspec.structs.replace(settings, min_relevance=question.min_relevance)
        spans = [source.sentences for source in sources]
        selection = await select_sentences(parsed, packed, embed, settings, question.max_output_tokens, spans)
        if selection.abstain_reason is not None:
            yield TextDelta(abstention_text(selection.abstain_reason, question_language(question)))
        claims: list[Claim] = []
        pieces = list(cite(packed, selection.sentences))
        for text, citation in pieces:
            # Each sentence quotes one source; its quote is what it claims.
            start, end = citation.answer_start, citation.answer_end
            claims.append(Claim(start=start, end=end, text=citation.quote, citations=(len(claims),)))
            yield TextDelta(text)
            yield CitationMade(citation)
        ignored = _ignored(question, "".join(text for text, _ in pieces))
    yield AnswerOutcome(
        use=use,
        abstain_reason=selection.abstain_reason,
        sources=sources,
        claims=tuple(claims),
        warnings=tuple(ignored),
    )


def _ignored(question: Question, text: str) -> list[str]:
    """A sentence for each field that asked for something which quoting `text` cannot give."""
    warnings = []
    if question.instructions:
        warnings.append(f"`instructions` were ignored: {_AS_WRITTEN}")
    if question.temperature:
        warnings.append(f"`temperature` was ignored: {_AS_WRITTEN}")
    # An abstention is a sentence of ours, which is there in several languages.
    if text and question.language and detect_language(text) != primary_language(question.language):
        warnings.append(f"`language` was ignored: {_AS_WRITTEN}")
    return warnings


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The sentences that answer, in the order to quote them, or why there are none. `relevance` in [0,1]."""

    sentences: tuple[Sentence, ...] = ()
    relevance: float = 0.0
    abstain_reason: AbstainReason | None = None


async def select_sentences(
    question: ParsedQuestion,
    hits: Sequence[Hit],
    embed: Embed,
    settings: ExtractiveSettings,
    max_tokens: int,
    spans: Spans | None = None,
) -> Selection:
    """The fewest sentences of `hits` that answer `question`. Calls `embed` once, with few texts."""
    if not hits:
        return Selection(abstain_reason="no_results")
    assessed = await assess(question, hits, embed, spans, quoting=True)
    if assessed is None:
        return Selection(abstain_reason=_why_none(question, hits))
    candidates, scores, relevance = assessed
    if relevance < settings.min_relevance:
        return Selection(abstain_reason="below_min_relevance", relevance=relevance)
    best_first = sorted(range(len(candidates)), key=lambda index: (-scores[index], index))
    query_terms = terms(question.text)
    able = [index for index in best_first if _may_answer(candidates[index], query_terms)]
    if not able:
        return Selection(abstain_reason="unsupported", relevance=relevance)
    near = [index for index in able[: settings.max_sentences] if scores[able[0]] - scores[index] <= settings.margin]
    sentences = _in_order(_within([candidates[index] for index in near], max_tokens))
    return Selection(sentences=sentences, relevance=relevance)


async def assess(
    question: ParsedQuestion, hits: Sequence[Hit], embed: Embed, spans: Spans | None = None, *, quoting: bool = False
) -> tuple[list[Sentence], Scores, float] | None:
    """The most promising sentences, their scores and the relevance; None without any sentence. Calls `embed` once.

    `quoting`: only sentences that are about the thing asked for and can be quoted; a model judges that by itself.
    """
    candidates, features = await asyncio.to_thread(_candidates, question, hits, spans, quoting=quoting)
    if not candidates:
        return None
    vectors = await embed([question.text, *(sentence.text[:MAX_EMBEDDED_LENGTH] for sentence in candidates)])
    cosines = np.asarray(vectors[1:] @ vectors[0], dtype=np.float64)
    return candidates, *score_sentences(question, hits, candidates, features, cosines)


def _candidates(
    question: ParsedQuestion, hits: Sequence[Hit], spans: Spans | None, *, quoting: bool
) -> tuple[list[Sentence], Scores]:
    """The sentences worth an embedding, with their features, shape (sentences, 5). Ten passages take some 4 ms."""
    above = [" ".join((hit.title, *hit.heading)) for hit in hits]
    sentences = split(hits, spans)
    if quoting:
        sentences = _that_can_answer(question, sentences, hits, above)
    named = about(question.text, sentences, above)
    sentences = [sentence for sentence, is_about in zip(sentences, named, strict=True) if is_about]
    features = lexical_features(question, sentences)
    indices = promising(features, MAX_EMBEDDED)
    return [sentences[index] for index in indices], features[indices]


def _that_can_answer(
    question: ParsedQuestion, sentences: Sequence[Sentence], hits: Sequence[Hit], above: Sequence[str]
) -> list[Sentence]:
    """Those about the row, the name and the attribute that are asked for; without headings, if anything is left."""
    texts = [" ".join((title, hit.source, hit.text or "")) for title, hit in zip(above, hits, strict=True)]
    sentences = about_names(question, _without_other_rows(question, sentences, above), texts)
    sentences = of_attribute(question, of_its_bearer(question, sentences, texts), above)
    sentences = following(question, sentences)
    query_terms = terms(question.text)
    return [sentence for sentence in sentences if _may_answer(sentence, query_terms)] or list(sentences)


def _why_none(question: ParsedQuestion, hits: Sequence[Hit]) -> AbstainReason:
    """Whether a passage is about the matter at least: it has half of the question's words. Or none has any."""
    present = [terms(" ".join((hit.title, *hit.heading, hit.text or ""))) for hit in hits]
    touched = any(2 * sum(term in some for term in question.terms) >= len(question.terms) for some in present)
    return "unsupported" if touched or not any(present) else "below_min_relevance"


def _without_other_rows(
    question: ParsedQuestion, sentences: Sequence[Sentence], above: Sequence[str]
) -> list[Sentence]:
    """Of the rows of a table those that answer, with what is shown of them."""
    tables: dict[tuple[int, tuple[str, ...]], list[Sentence]] = {}
    for sentence in sentences:
        if sentence.row is not None and not sentence.row.header:
            tables.setdefault((sentence.hit, sentence.row.columns), []).append(sentence)
    if not tables:
        return list(sentences)
    shown: dict[tuple[int, int], str] = {}
    for (number, _), table in tables.items():
        told = answering(question, [sentence.row for sentence in table if sentence.row is not None], above[number])
        shown |= {(number, sentence.start): text for sentence, text in zip(table, told, strict=True)}
    asked = attribute_terms(question)
    result = []
    for sentence in sentences:
        text = shown.get((sentence.hit, sentence.start))
        if text is None:
            result.append(sentence)
        elif text:
            result.append(msgspec.structs.replace(sentence, shown=text, context=sentence.context | asked))
    return result


def _may_answer(sentence: Sentence, query_terms: frozenset[str]) -> bool:
    """Whether it is neither a heading nor a question, and says more than the question's own words."""
    if sentence.heading:
        return False
    shown = readable(sentence.text)
    return not shown.endswith(("?", "？", "؟")) and any(map(str.isalnum, shown)) and not sentence.terms <= query_terms


def _within(sentences: Sequence[Sentence], budget: int) -> list[Sentence]:
    """As many as fit into `budget` tokens with their markers; the first one is cut rather than left out."""
    first = sentences[0]
    text = clip(first.text, max(1, budget - _MARKER_TOKENS))
    shown = first.shown if text == first.text else ""
    fitting = [msgspec.structs.replace(first, text=text, end=first.start + len(text), shown=shown)]
    left = budget - estimate_tokens(text) - _MARKER_TOKENS
    for sentence in sentences[1:]:
        left -= estimate_tokens(sentence.text) + _MARKER_TOKENS
        if left < 0:
            break
        fitting.append(sentence)
    return fitting


def _in_order(sentences: Sequence[Sentence]) -> tuple[Sentence, ...]:
    """Ordered by passage, the one with the best sentence first, and within a passage as they stand in it."""
    rank = {hit: number for number, hit in enumerate(dict.fromkeys(sentence.hit for sentence in sentences))}
    return tuple(sorted(sentences, key=lambda sentence: (rank[sentence.hit], sentence.start)))


def cite(hits: Sequence[Hit], sentences: Sequence[Sentence]) -> Iterator[tuple[str, Citation]]:
    """For each sentence the text to add to the answer, which ends with its marker and full stop, and its citation."""
    offset = 0
    for marker, sentence in enumerate(sentences, start=1):
        gap = " " if offset else ""
        shown = readable(sentence.shown or sentence.text)
        # The marker goes before the full stop, if there is one.
        body = shown.rstrip(STOPS) or shown
        start = offset + len(gap)
        text = f"{gap}{body} [{marker}]{shown[len(body) :]}"
        cited, stated = Span(sentence.start, sentence.end), Span(start, start + len(body))
        yield text, citation_of(marker, hits[sentence.hit], cited, stated)
        offset += len(text)
