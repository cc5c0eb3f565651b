"""The use case behind /answer: search, take what fits, pick the sentences that answer, cite them."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from app.answering.citing import cite
from app.answering.extractive import Choice, Embed, Limits, choose
from app.answering.languages import refusal
from app.answering.packing import pack
from app.answering.questions import Reading, read
from app.domain import (
    NOBODY,
    Answer,
    AnswerDone,
    AnswerEvent,
    BackendUse,
    Caller,
    Citation,
    CitationMade,
    Fallback,
    Hit,
    Query,
    Question,
    SearchResult,
    SourcesFound,
    TextDelta,
)
from app.errors import FieldProblem, InvalidRequest, MissingCapability, UnknownBackend

EXTRACTIVE = "extractive"
NONE = "none"
ANSWERERS = (EXTRACTIVE, "auto")


class Search(Protocol):
    """What the answerer needs of the search use case."""

    async def search(self, query: Query, caller: Caller) -> SearchResult: ...


class AnswerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults of /answer. `min_relevance` in [0,1]: benchmarks/answers.py prints what each value costs and saves."""

    min_relevance: float = 0.45
    max_sentences: int = 3
    margin: float = 1.0


class Answerer:
    """Answers questions from the passages that a search finds."""

    def __init__(self, search: Search, embed: Embed, settings: AnswerSettings) -> None:
        self._search = search
        self._embed = embed
        self._settings = settings

    async def answer(self, question: Question, caller: Caller = NOBODY) -> Answer:
        """The whole answer at once. Errors: UnknownBackend, MissingCapability, and those of the search."""
        events = self._run(question, _who_answers(question), caller, streamed=False)
        [done] = [event async for event in events if isinstance(event, AnswerDone)]
        return done.answer

    def stream(self, question: Question, caller: Caller = NOBODY) -> AsyncIterator[AnswerEvent]:
        """The same answer as it is made. UnknownBackend and MissingCapability are raised before the first event."""
        return self._run(question, _who_answers(question), caller, streamed=True)

    async def _run(
        self, question: Question, who: BackendUse, caller: Caller, *, streamed: bool
    ) -> AsyncIterator[AnswerEvent]:
        began = time.perf_counter()
        reading = read(question.search.text, question.messages)
        found = await self._search.search(_retrieval(question.search, reading.text), caller)
        searched = time.perf_counter()
        hits = pack(found.results, question.context_tokens)
        draft = _Draft(results=hits if question.search.include_text else tuple(map(_without_text, hits)))
        yield SourcesFound(draft.results)
        choice = await choose(reading, hits, self._embed, self._limits(question))
        first = time.perf_counter()
        for event in _events(choice, hits, question.language or reading.language):
            draft.add(event)
            yield event
        ended = time.perf_counter()
        spans = {"answer": (searched, ended), "total": (began, ended)}
        if streamed:
            spans["first_token"] = (began, first)
        timings = {**found.timings_ms, **{name: round(1000 * (end - start), 3) for name, (start, end) in spans.items()}}
        yield AnswerDone(draft.finish(choice, found, who, timings, _warnings(question, reading)))

    def _limits(self, question: Question) -> Limits:
        asked = question.min_relevance
        return Limits(
            min_relevance=self._settings.min_relevance if asked is None else asked,
            max_tokens=question.max_output_tokens,
            max_sentences=self._settings.max_sentences,
            margin=self._settings.margin,
        )


class _Draft(msgspec.Struct, kw_only=True):
    """An answer in the making."""

    results: tuple[Hit, ...]
    text: str = ""
    citations: tuple[Citation, ...] = ()

    def add(self, event: TextDelta | CitationMade) -> None:
        if isinstance(event, TextDelta):
            self.text += event.text
        else:
            self.citations += (event.citation,)

    def finish(
        self,
        choice: Choice,
        found: SearchResult,
        who: BackendUse,
        timings_ms: Mapping[str, float],
        warnings: tuple[str, ...],
    ) -> Answer:
        return Answer(
            answer=self.text,
            answerable=choice.abstain_reason is None,
            abstain_reason=choice.abstain_reason,
            citations=self.citations,
            unsupported=(),
            results=self.results,
            backend=found.backend,
            answer_backend=who,
            degraded=found.degraded,
            warnings=(*found.warnings, *warnings),
            usage=found.usage,
            timings_ms=timings_ms,
        )


def _who_answers(question: Question) -> BackendUse:
    """Before any work: whether someone can do what is asked, and who. Whether `backend` is known, the search says."""
    asked = question.answer_backend
    if asked == NONE:
        raise _problem(MissingCapability, "/answer_backend", 'Backend "none" cannot answer; use "extractive".')
    if asked is not None and asked not in ANSWERERS:
        detail = f"No backend {asked!r} answers; there are: {', '.join(ANSWERERS)}."
        raise _problem(UnknownBackend, "/answer_backend", detail)
    if question.check_citations == "model":
        detail = 'No model is configured to check citations; use "structural".'
        raise _problem(MissingCapability, "/check_citations", detail)
    requested = asked or question.search.backend or EXTRACTIVE
    if requested == NONE:
        requested = EXTRACTIVE
    passed_over = () if requested in ANSWERERS else (Fallback(backend=requested, reason=MissingCapability.code),)
    return BackendUse(requested=requested, used=EXTRACTIVE, fallbacks=passed_over)


def _problem(error: type[InvalidRequest], pointer: str, detail: str) -> InvalidRequest:
    return error(detail, (FieldProblem(pointer, detail),))


def _retrieval(query: Query, text: str) -> Query:
    """The same search with passages' texts in it. Nobody ranks where the extractive answerer is asked to do all."""
    backend = NONE if query.backend == EXTRACTIVE else query.backend
    return msgspec.structs.replace(query, text=text, backend=backend, include_text=True)


def _without_text(hit: Hit) -> Hit:
    return msgspec.structs.replace(hit, text=None)


def _warnings(question: Question, reading: Reading) -> tuple[str, ...]:
    warnings = []
    if reading.leans_back:
        warnings.append("The question was read together with the previous one.")
    if question.instructions:
        warnings.append("instructions: the extractive answerer quotes its sources and follows none.")
    return tuple(warnings)


def _events(choice: Choice, hits: Sequence[Hit], language: str) -> Iterator[TextDelta | CitationMade]:
    if choice.abstain_reason is not None:
        yield TextDelta(refusal(choice.abstain_reason, language))
        return
    for piece in cite(hits, choice.sentences):
        yield TextDelta(piece.text)
        yield CitationMade(piece.citation)
