"""The use case behind /answer: understand the question, search, let someone write, say what it cost."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import msgspec

from app.answering.models import Brief, Written
from app.answering.rewrite import Complete, Understood, understand
from app.backends.base import ChatRequest, Reply
from app.backends.call_context import Call, Deadline, call_of
from app.backends.registry import EXTRACTIVE, NONE
from app.domain import (
    NOBODY,
    Answer,
    AnswerDone,
    AnswerEvent,
    BackendUse,
    Caller,
    Citation,
    CitationMade,
    Found,
    Hit,
    Query,
    Question,
    SearchResult,
    SourcesFound,
    TextDelta,
    Usage,
)
from app.observability.timing import Stopwatch
from app.services.answering import Answerers, Staff
from indexing.documents import page_at

ANSWER, CONDENSE = "answer", "condense"

CONDENSE_S = 10.0
"""How long a model may take to reword a question; then the rules have to do."""


class Search(Protocol):
    """What the answerer needs of the search use case."""

    async def check(self, query: Query) -> None: ...

    async def find(self, query: Query, caller: Caller) -> Found: ...


class Answerer:
    """Answers questions from the passages that a search finds. `deadline_s` is for all that models do in it."""

    def __init__(self, search: Search, answerers: Answerers, deadline_s: float) -> None:
        self._search, self._answerers, self._deadline_s = search, answerers, deadline_s

    async def answer(self, question: Question, caller: Caller = NOBODY) -> Answer:
        """The whole answer at once. Raises what `whole` raises."""
        return (await self.whole(question, caller)).answer

    async def whole(self, question: Question, caller: Caller = NOBODY) -> AnswerDone:
        """The same, and how it ended.

        Raises UnknownBackend, MissingCapability, what the search raises, and what models' calls raise.
        """
        events = self._run(question, caller, streamed=False)
        [done] = [event async for event in events if isinstance(event, AnswerDone)]
        return done

    def stream(self, question: Question, caller: Caller = NOBODY) -> AsyncGenerator[AnswerEvent, None]:
        """The same answer as it is made. Before the first event the same is raised, after it what models' calls raise.

        Closing it ends the calls.
        """
        return self._run(question, caller, streamed=True)

    async def _run(self, question: Question, caller: Caller, *, streamed: bool) -> AsyncGenerator[AnswerEvent, None]:
        staff = await self._answerers.who(question)
        watch, call = Stopwatch(), call_of(ANSWER, self._deadline_s, caller)
        understood = await self._understand(question, staff, call, watch)
        found = await self._search.find(_retrieval(question.search, understood.reading.text), caller)
        brief = Brief(
            question=question, reading=understood.reading, found=found.result, standalone=understood.standalone
        )
        writer = self._answerers.writer(staff, question, call, streamed=streamed)
        draft = _Draft()
        async with aclosing(writer.write(brief, watch)) as events:
            async for event in events:
                if isinstance(event, Written):
                    draft.written = event
                    continue
                shown = _shown(event, question, found)
                draft.add(shown)
                if streamed and isinstance(event, TextDelta):
                    watch.mark("first_token")
                yield shown
        yield draft.finish(found.result, understood, call.account.usage(), watch)

    async def _understand(self, question: Question, staff: Staff, call: Call, watch: Stopwatch) -> Understood:
        """Before it costs anything: whether the search can work at all."""
        if not question.messages:
            return await understand(question, None)
        await self._search.check(_retrieval(question.search, question.search.text))
        return await understand(question, _rewording(staff, call, watch))


class _Draft(msgspec.Struct, kw_only=True):
    """An answer in the making."""

    results: tuple[Hit, ...] = ()
    text: str = ""
    citations: tuple[Citation, ...] = ()
    written: Written | None = None

    def add(self, event: SourcesFound | TextDelta | CitationMade) -> None:
        match event:
            case SourcesFound(results=results):
                self.results = results
            case TextDelta(text=text):
                self.text += text
            case CitationMade(citation=citation):
                self.citations += (citation,)

    def finish(self, found: SearchResult, understood: Understood, usage: Usage, watch: Stopwatch) -> AnswerDone:
        written = self.written
        assert written is not None  # noqa: S101 - the protocol of writers
        answer = Answer(
            answer=self.text,
            answerable=written.abstain_reason is None,
            abstain_reason=written.abstain_reason,
            citations=self.citations,
            unsupported=written.unsupported,
            results=self.results,
            backend=found.backend,
            answer_backend=written.use,
            degraded=(*found.degraded, *written.degraded),
            warnings=(*found.warnings, *understood.warnings, *written.warnings),
            usage=found.usage + usage,
            timings_ms=_timings(found, watch),
        )
        return AnswerDone(answer, cut=written.cut)


def _rewording(staff: Staff, call: Call, watch: Stopwatch) -> Complete | None:
    """By the model that will answer, if one will."""
    route = staff.answers
    if isinstance(route, BackendUse):
        return None

    async def reword(request: ChatRequest) -> Reply:
        deadline = Deadline(min(CONDENSE_S, call.deadline.left()))
        with watch.stage(CONDENSE):
            return (
                await route.complete(request, msgspec.structs.replace(call, stage=CONDENSE, deadline=deadline))
            ).value

    return reword


def _retrieval(query: Query, text: str) -> Query:
    """The same search with passages' texts in it. Nobody ranks where the extractive answerer is asked to do all."""
    backend = NONE.name if query.backend == EXTRACTIVE.name else query.backend
    return msgspec.structs.replace(query, text=text, backend=backend, include_text=True)


def _shown(
    event: SourcesFound | TextDelta | CitationMade, question: Question, found: Found
) -> SourcesFound | TextDelta | CitationMade:
    """As the asker gets it: passages with their text only where it is wanted, citations with the page of the quote."""
    match event:
        case SourcesFound(results=hits) if not question.search.include_text:
            return SourcesFound(tuple(msgspec.structs.replace(hit, text=None) for hit in hits))
        case CitationMade(citation=citation):
            page = page_at(found.later_pages.get(citation.result_id, ()), citation.start, citation.page)
            return CitationMade(msgspec.structs.replace(citation, page=page))
    return event


def _timings(found: SearchResult, watch: Stopwatch) -> dict[str, float]:
    """In the order in which it went: what came before the search, its stages, what came after it, the total."""
    ours = watch.timings_ms()
    before = {name: spent for name, spent in ours.items() if name == CONDENSE}
    return before | {name: spent for name, spent in found.timings_ms.items() if name != "total"} | ours
