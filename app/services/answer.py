"""Use case: answer a question from what a search finds."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

import msgspec

from app.answering.extractive.answerer import Embed, Extractive, Quoting
from app.answering.models import Brief, Writer, Written
from app.answering.rewrite import Complete, Understood, understand
from app.backends.base import Call, Capability, ChatRequest, Deadline, Reply, call_of
from app.backends.router import EXTRACTIVE, NONE, Backends, Route, Router
from app.backends.settings import AUTO
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
from app.errors import FieldProblem, InvalidRequest, MissingCapability, UnknownBackend
from app.observability.timing import Stopwatch
from app.services.generation import Checking, Generated
from indexing.documents import page_at

CHAT: frozenset[Capability] = frozenset(("chat",))

CHECKS: tuple[frozenset[Capability], ...] = (frozenset(("chat", "logprobs")), frozenset(("chat", "structured")))
"""What a backend must offer to check citations, beside answering."""


class Staff(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves one question. `answers` is a way to a model, or who answers without one."""

    answers: Route | BackendUse
    checks: Route | None = None


class Answerers:
    """Those who answer. The router is asked for when a model is needed, so that it can be opened late.

    `least` in [0,1] replaces the default thresholds of relevance.
    """

    def __init__(
        self,
        backends: Backends,
        router: Callable[[], Awaitable[Router]],
        embed: Embed,
        least: float | None = None,
    ) -> None:
        self._backends, self._router = backends, router
        self._embed, self._least = embed, least
        self._quoting = Quoting() if least is None else Quoting(min_relevance=least)

    async def who(self, question: Question) -> Staff:
        """Before any work. Raises UnknownBackend, MissingCapability, pointing at the field."""
        checked = question.check_citations == "model"
        try:
            answers = await self._who_answers(question, CHECKS if checked else (CHAT,))
        except (UnknownBackend, MissingCapability) as exc:
            raise _at("/backend" if question.answer_backend is None else "/answer_backend", exc) from exc
        if not checked:
            return Staff(answers=answers)
        try:
            return Staff(answers=answers, checks=await self._who_checks(answers))
        except MissingCapability as exc:
            raise _at("/check_citations", exc) from exc

    def writer(self, staff: Staff, question: Question, call: Call, *, streamed: bool) -> Writer:
        """Who writes the answer, with the calls of models made as `call`."""
        writer: Writer
        if isinstance(staff.answers, BackendUse):
            writer = Extractive(self._embed, self._quoting, staff.answers)
        else:
            writer = Generated(staff.answers, call, self._embed, self._least, streamed=streamed)
        if staff.checks is None:
            return writer
        return Checking(writer, staff.checks, call, strict=question.search.ranking.on_failure == "fail")

    async def _who_answers(self, question: Question, needs: tuple[frozenset[Capability], ...]) -> Route | BackendUse:
        use = self._backends.for_answering(question.answer_backend, question.search.backend)
        if use.used == EXTRACTIVE.name:
            return use
        return (await self._router()).route_or(EXTRACTIVE.name, use.requested, *needs)

    async def _who_checks(self, answers: Route | BackendUse) -> Route:
        return answers if isinstance(answers, Route) else (await self._router()).route(AUTO, *CHECKS)


def _at(pointer: str, exc: InvalidRequest) -> InvalidRequest:
    return type(exc)(str(exc), (FieldProblem(pointer, str(exc)),))


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
