"""Use case: answer a question from the passages that a search finds, with verified citations."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

import msgspec

from app.answering.extractive.answerer import Embed, ExtractiveSettings, answer_extractively, assess
from app.answering.models import AnswerOutcome, AnswerPart, ParsedQuestion, Source
from app.answering.prompts import answer_request, pack, token_budgets
from app.answering.questions import Complete, question_language, resolve_question
from app.answering.stream.composer import AnswerPiece, Composer
from app.answering.stream.gate import AnswerGate
from app.answering.verification.model_check import CheckResult, check
from app.backends.attempt import OpenStream
from app.backends.base import Call, Capability, ChatRequest, Deadline, Delta, Reply, call_of
from app.backends.client import BackendClient
from app.backends.router import EXTRACTIVE, NONE, Backends, Route, Router, Served
from app.backends.settings import AUTO
from app.config.settings import AnswerSettings
from app.domain import (
    AbstainReason,
    Answer,
    AnswerDone,
    AnswerEvent,
    BackendUse,
    Caller,
    Citation,
    CitationMade,
    Fallback,
    Hit,
    LaterPages,
    Query,
    Question,
    SearchResult,
    SourcesFound,
    TextDelta,
)
from app.errors import FieldProblem, InvalidRequest, MissingCapability, UnknownBackend, UpstreamBadReply, WinnowError
from app.observability.timing import Stopwatch
from app.services.ranking import ClientGrader, ways_of
from app.text.fencing import DrawFence, draw_fence
from app.text.languages import LANGUAGES, abstention_text, primary_language
from indexing.documents import page_at

ANSWER, CONDENSE, CHECK = "answer", "condense", "check"
"""Stages of usage and timings."""

CHAT: frozenset[Capability] = frozenset(("chat",))

CHECKS: tuple[frozenset[Capability], ...] = (frozenset(("chat", "logprobs")), frozenset(("chat", "structured")))
"""What a backend must offer to answer and check citations: either set."""

CHECKERS: tuple[frozenset[Capability], ...] = (*CHECKS, frozenset(("decide",)))
"""What it must offer to check what another has answered: any set. A model that only decides is enough."""

CONDENSE_S = 10.0
"""Seconds that a model may take to reword a question; then the question is resolved by rule."""

MIN_SCORE = 0.1
MIN_RELEVANCE = 0.2
"""Below these no model is asked: the score of the best passage where a model ranked, else the relevance that the
extractive answerer computes. Lenient, since a model can decline by itself. At .2, of 100 questions of SQuAD 2.0 dev
that can be answered 98 reach the model, and of 100 about something else 4."""

_INSTEAD = '; an `answer_backend` of "auto" is a model that can write, or else "extractive"'

_CHARACTERS_PER_TURN = 32
"""Characters of a reply that are composed before other tasks get their turn on the event loop. The slowest of them, a
sentence with its markers every few characters, take some milliseconds; a whole hostile reply takes seconds."""

BegunReply = tuple[tuple[Source, ...], str, OpenStream | AsyncGenerator[Delta, None]]
"""The passages that a model was shown, the fence around them, and its reply as it arrives."""

Substituting = Callable[[Sequence[Hit], BackendUse], AsyncGenerator[AnswerPart, None]]
"""Answers from these passages in the place of a model."""


class Search(Protocol):
    """The part of the search use case that answering needs."""

    async def check(self, query: Query, caller: Caller) -> None: ...

    async def find(self, query: Query, caller: Caller) -> tuple[SearchResult, LaterPages]: ...


class Answerer:
    """Answers questions, by a model or in the passages' own sentences.

    The router is asked for when a model is needed, so that it can be opened late. `deadline_s` bounds all model calls
    of one question, and `condense_s` the one that rewords it.
    """

    def __init__(
        self,
        search: Search,
        backends: Backends,
        router: Callable[[], Awaitable[Router]],
        embed: Embed,
        deadline_s: float,
        settings: AnswerSettings | None = None,
        fence: DrawFence = draw_fence,
        condense_s: float = CONDENSE_S,
    ) -> None:
        self._search, self._backends, self._router = search, backends, router
        self._condense_s = condense_s
        self._embed, self._deadline_s, self._fence = embed, deadline_s, fence
        self._settings = settings or AnswerSettings()
        relevance = self._settings.min_relevance
        self._extractive = ExtractiveSettings() if relevance is None else ExtractiveSettings(min_relevance=relevance)

    async def answer(self, question: Question, caller: Caller) -> Answer:
        """The whole answer at once. Raises the same errors as `whole`."""
        return (await self.whole(question, caller)).answer

    async def whole(self, question: Question, caller: Caller) -> AnswerDone:
        """The whole answer, and whether it was cut.

        Raises UnknownBackend, MissingCapability, what the search raises, and what model calls raise.
        """
        events = self._run(question, caller, streamed=False)
        [done] = [event async for event in events if isinstance(event, AnswerDone)]
        return done

    def stream(self, question: Question, caller: Caller) -> AsyncGenerator[AnswerEvent, None]:
        """The same answer as it is made. Raises the same before the first event, and what model calls raise after it.

        Closing the generator ends the calls.
        """
        return self._run(question, caller, streamed=True)

    async def _run(self, question: Question, caller: Caller, *, streamed: bool) -> AsyncGenerator[AnswerEvent, None]:
        answering, checking = await self._select_backends(question, caller)
        watch, call = Stopwatch(), call_of(ANSWER, self._deadline_s, caller)
        parsed, warnings = await self._resolve(question, answering, call, watch, caller)
        search, later_pages = await self._search.find(_retrieval(question.search, parsed.text), caller)
        parts = self._generate(question, parsed, search.results, answering, call, watch, streamed=streamed)
        if checking is not None:
            parts = _checked(parts, question, checking, call, watch)
        results: tuple[Hit, ...] = ()
        text, citations, outcome = "", list[Citation](), None
        async with aclosing(parts):
            async for part in parts:
                match part:
                    case AnswerOutcome():
                        outcome = part
                        continue
                    case SourcesFound(results=hits):
                        results = _visible(hits, question)
                        yield SourcesFound(results)
                    case TextDelta(text=piece):
                        text += piece
                        if streamed:
                            watch.mark("first_token")
                        yield part
                    case CitationMade(citation=citation):
                        citations.append(_with_page(citation, later_pages))
                        yield CitationMade(citations[-1])
        assert outcome is not None  # noqa: S101 - generators of answers end with it
        watch.degraded(ANSWER, outcome.degraded)
        answer = Answer(
            answer=text,
            answerable=outcome.abstain_reason is None,
            abstain_reason=outcome.abstain_reason,
            citations=tuple(citations),
            unsupported=outcome.unsupported,
            results=results,
            backend=search.backend,
            answer_backend=outcome.use,
            degraded=(*search.degraded, *outcome.degraded),
            warnings=(*search.warnings, *warnings, *outcome.warnings, *_untranslated(question, outcome)),
            usage=search.usage + call.account.usage(),
            timings_ms=_timings(search, watch),
        )
        yield AnswerDone(answer, cut=outcome.cut)

    async def _select_backends(self, question: Question, caller: Caller) -> tuple[Route | BackendUse, Route | None]:
        """Selects the answering and citation-checking backends, before any work.

        A BackendUse stands for the extractive answerer, which also serves a key that is for no model; None where no
        model checks. Raises UnknownBackend and MissingCapability, with the field of the request.
        """
        by_model = question.check_citations == "model"
        answering: Route | BackendUse
        named = question.answer_backend or question.search.backend
        try:
            answering = self._backends.for_answering(question.answer_backend, question.search.backend)
            if answering.used != EXTRACTIVE.name:
                needs, default = CHECKS if by_model else (CHAT,), answering.requested
                answering = (await self._router()).route_or(EXTRACTIVE.name, named, *needs, default=default)
                if named in (None, AUTO) and isinstance(answering, Route) and answering.within(caller.backends) is None:
                    answering = BackendUse(requested=AUTO, used=EXTRACTIVE.name)
        except (UnknownBackend, MissingCapability) as exc:
            hint = _INSTEAD if isinstance(exc, MissingCapability) else ""
            raise _at("/backend" if question.answer_backend is None else "/answer_backend", exc, hint) from exc
        answering = caller.shown(answering)
        if not by_model:
            return answering, None
        if isinstance(answering, Route):
            return answering, answering
        try:
            return answering, (await self._router()).route(AUTO, *CHECKERS)
        except MissingCapability as exc:
            raise _at("/check_citations", exc) from exc

    async def _resolve(
        self, question: Question, answering: Route | BackendUse, call: Call, watch: Stopwatch, caller: Caller
    ) -> tuple[ParsedQuestion, tuple[str, ...]]:
        """The question to search for, reworded by the model that will answer if it needs earlier turns."""
        if not question.messages:
            return await resolve_question(question, None)
        # Rewording costs a call: first see whether the search can work at all.
        await self._search.check(_retrieval(question.search, question.search.text), caller)
        reword = _rewording(answering, call, watch, self._condense_s) if isinstance(answering, Route) else None
        return await resolve_question(question, reword, self._fence)

    def _generate(
        self,
        question: Question,
        parsed: ParsedQuestion,
        hits: Sequence[Hit],
        answering: Route | BackendUse,
        call: Call,
        watch: Stopwatch,
        *,
        streamed: bool,
    ) -> AsyncGenerator[AnswerPart, None]:
        def extractive(hits: Sequence[Hit], use: BackendUse) -> AsyncGenerator[AnswerPart, None]:
            return answer_extractively(
                question, parsed, hits, watch, embed=self._embed, settings=self._extractive, use=use
            )

        if not isinstance(answering, Route):
            return extractive(hits, answering)
        relevance = self._settings.min_relevance
        threshold = relevance if question.min_relevance is None else question.min_relevance
        falls_back = (question.fallback or self._settings.fallback) == EXTRACTIVE.name
        by_model = _ModelAnswer(
            question, parsed, hits, answering, call, self._fence, extractive if falls_back else None
        )
        return by_model.parts(watch, self._embed, threshold, streamed=streamed)


class _ModelAnswer:
    """One answer that a model writes, of which only what its sources support is let out."""

    def __init__(
        self,
        question: Question,
        parsed: ParsedQuestion,
        hits: Sequence[Hit],
        route: Route,
        call: Call,
        fence: DrawFence,
        substitute: Substituting | None,
    ) -> None:
        self._question, self._parsed, self._hits = question, parsed, hits
        self._route, self._call, self._fence, self._substitute = route, call, fence, substitute

    async def parts(
        self, watch: Stopwatch, embed: Embed, threshold: float | None, *, streamed: bool
    ) -> AsyncGenerator[AnswerPart, None]:
        """The sources, the text with citations, the outcome. `threshold` None: the default ones."""
        with watch.stage(self._call.stage):
            reason = await self._reason_to_abstain(embed, threshold)
            parts = self._write(streamed=streamed) if reason is None else self._abstain(reason)
            async with aclosing(parts):
                async for part in parts:
                    yield part

    async def _reason_to_abstain(self, embed: Embed, threshold: float | None) -> AbstainReason | None:
        """Why it is not worth asking the model, if so."""
        if not self._hits:
            return "no_results"
        if threshold == 0:
            return None
        grades = [hit.score for hit in self._hits if hit.ranked_by != NONE.name]
        if grades:
            return "below_min_relevance" if max(grades) < (MIN_SCORE if threshold is None else threshold) else None
        assessed = await assess(self._parsed, self._hits, embed)
        if assessed is None:
            return "no_results"
        _, _, relevance = assessed
        return "below_min_relevance" if relevance < (MIN_RELEVANCE if threshold is None else threshold) else None

    async def _abstain(self, reason: AbstainReason) -> AsyncGenerator[AnswerPart, None]:
        sources = await asyncio.to_thread(pack, self._hits, self._question.context_tokens)
        yield SourcesFound(tuple(_hits(sources)))
        yield TextDelta(abstention_text(reason, question_language(self._question)))
        yield AnswerOutcome(use=BackendUse(requested=self._route.requested, used=NONE.name), abstain_reason=reason)

    async def _write(self, *, streamed: bool) -> AsyncGenerator[AnswerPart, None]:
        served = await self._begin(streamed=streamed)
        (sources, fence, reply), cut = served.value, False
        composer = Composer(sources)
        gate = AnswerGate(composer, fence)
        async with aclosing(reply):
            yield SourcesFound(tuple(_hits(sources)))
            async for delta in reply:
                cut = cut or delta.finish_reason == "length"
                async for piece in _fed(gate, delta.text):
                    yield piece
                if gate.over:
                    break
        for piece in gate.finish(cut=cut):
            yield piece
        reason, spent, cut = gate.abstain_reason, cut and gate.is_silent, cut and not gate.declined
        if self._substitute is not None and (spent or reason == "unsupported"):
            async for part in self._substituted(served.use, self._substitute(_hits(sources), served.use)):
                yield part
            return
        if spent:
            raise _spent(served.use.used)
        if reason is not None:
            yield TextDelta(abstention_text(reason, question_language(self._question)))
        yield AnswerOutcome(
            use=served.use,
            abstain_reason=reason,
            sources=sources,
            claims=composer.claims if reason is None else (),
            unsupported=composer.unsupported if reason is None else (),
            warnings=tuple(_warnings(composer, cut=cut)),
            cut=cut,
        )

    async def _substituted(
        self, use: BackendUse, parts: AsyncGenerator[AnswerPart, None]
    ) -> AsyncGenerator[AnswerPart, None]:
        """The extractive answer in place of the model's, of which nothing can be shown."""
        note = f"nothing that {use.used} wrote is supported; the answer is extractive"
        fallbacks = (*use.fallbacks, Fallback(backend=use.used, reason="unsupported"))
        instead = BackendUse(requested=use.requested, used=EXTRACTIVE.name, fallbacks=fallbacks)
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, AnswerOutcome):
                    yield msgspec.structs.replace(part, use=instead, degraded=(*part.degraded, note))
                elif not isinstance(part, SourcesFound):
                    yield part

    async def _begin(self, *, streamed: bool) -> Served[BegunReply]:
        """Ask the first backend that begins to reply. Each is shown as many passages as it can read."""

        async def ask(client: BackendClient, failover_deadline: Deadline | None) -> BegunReply:
            probed = await client.known((failover_deadline or self._call.deadline).left())
            sources, request = await asyncio.to_thread(self._request, probed.context_tokens)
            [fence] = request.stop
            if streamed:
                return sources, fence, await client.stream(request, self._call, failover_deadline)
            reply = await client.complete(request, self._call, failover_deadline)
            return sources, fence, _one_delta(reply)

        return await self._route.first(self._call, ask)

    def _request(self, window: int | None) -> tuple[tuple[Source, ...], ChatRequest]:
        """The passages and the prompt for a model whose prompt and reply share a `window` of tokens."""
        standalone = self._parsed.standalone
        passage_tokens, output_tokens = token_budgets(self._question, window, standalone)
        sources = pack(self._hits, passage_tokens)
        return sources, answer_request(self._question, sources, output_tokens, standalone, self._fence)


async def _one_delta(reply: Reply) -> AsyncGenerator[Delta, None]:
    yield Delta(text=reply.text, finish_reason=reply.finish_reason)


async def _fed(gate: AnswerGate, text: str) -> AsyncGenerator[AnswerPiece, None]:
    """What the gate lets out of a piece of a reply."""
    for start in range(0, len(text), _CHARACTERS_PER_TURN):
        if start:
            await asyncio.sleep(0)
        for piece in gate.feed(text[start : start + _CHARACTERS_PER_TURN]):
            yield piece


def _hits(sources: Sequence[Source]) -> list[Hit]:
    return [source.hit for source in sources]


def _spent(name: str) -> UpstreamBadReply:
    """The error for a model that has thought until its tokens were spent: that says nothing about the documents."""
    return UpstreamBadReply(
        name, f"{name} used up its output tokens before it answered; raise `max_output_tokens`, or let it think less"
    )


def _warnings(composer: Composer, *, cut: bool) -> list[str]:
    warnings = []
    if composer.unknown_references:
        warnings.append(f"Citation markers that refer to no passage were removed: {composer.unknown_references}.")
    if composer.left_out:
        warnings.append(f"Statements without a citation were left out: {composer.left_out}.")
    if composer.removed_addresses:
        warnings.append(f"URLs not found in any passage were removed: {composer.removed_addresses}.")
    if cut:
        warnings.append("The answer was cut off: it used up max_output_tokens.")
    return warnings


async def _checked(
    parts: AsyncGenerator[AnswerPart, None], question: Question, route: Route, call: Call, watch: Stopwatch
) -> AsyncGenerator[AnswerPart, None]:
    """The same answer, held back until a model has checked its citations.

    If the check fails, the structural verdicts stay and the answer is degraded; for a search that must not degrade, it
    is an error.
    """
    held: list[AnswerPiece] = []
    outcome = None
    async with aclosing(parts):
        async for part in parts:
            match part:
                case SourcesFound():
                    yield part
                case AnswerOutcome():
                    outcome = part
                case _:
                    held.append(part)
    assert outcome is not None  # noqa: S101 - generators of answers end with it
    citations = [piece.citation for piece in held if isinstance(piece, CitationMade)]
    if citations:
        strict = question.search.ranking.on_failure == "fail"
        try:
            with watch.stage(CHECK):
                result = await _check(citations, outcome, route, call, strict=strict)
        except WinnowError as exc:
            if strict:
                raise
            outcome = _with_failed_check(outcome, exc)
        else:
            held, outcome = _apply_check(result, held, outcome, question)
    for piece in held:
        yield piece
    yield outcome


async def _check(
    citations: Sequence[Citation], outcome: AnswerOutcome, route: Route, call: Call, *, strict: bool
) -> CheckResult:
    """Check by the backend that wrote the answer, if a model did. Raises the failure if nothing could be checked."""
    clients = [client for client in route.clients if client.name == outcome.use.used] or route.clients
    cited = sum(bool(claim.citations) for claim in outcome.claims)
    call = msgspec.structs.replace(call, stage=CHECK)

    async def ask(client: BackendClient, failover_deadline: Deadline | None) -> CheckResult:
        await client.known((failover_deadline or call.deadline).left())
        failure: WinnowError = MissingCapability(f"the backend {client.name!r} cannot check citations")
        for way in ways_of(client, "auto"):
            result = await check(outcome.claims, citations, outcome.sources, ClientGrader(client, way, call))
            # Part of the verdicts is better than none, unless the caller wants all or an error.
            if not result.failures or (not strict and result.unchecked < cited):
                return result
            failure = result.failures[0]
            if not isinstance(failure, MissingCapability):
                break
        raise failure

    return (await Route(route.requested, clients).first(call, ask)).value


def _apply_check(
    result: CheckResult, held: Sequence[AnswerPiece], outcome: AnswerOutcome, question: Question
) -> tuple[list[AnswerPiece], AnswerOutcome]:
    """The answer with the model's verdicts; an abstention if no citation is left."""
    if not any(citation.verified for citation in result.citations):
        refused = msgspec.structs.replace(outcome, abstain_reason="unsupported", unsupported=())
        return [TextDelta(abstention_text("unsupported", question_language(question)))], refused
    checked = iter(result.citations)
    pieces = [CitationMade(next(checked)) if isinstance(piece, CitationMade) else piece for piece in held]
    outcome = msgspec.structs.replace(outcome, unsupported=result.unsupported)
    return pieces, _with_failed_check(outcome, result.failures[0]) if result.failures else outcome


def _untranslated(question: Question, outcome: AnswerOutcome) -> tuple[str, ...]:
    """A warning where the answer is an abstention of which there is no text in the language asked for."""
    asked = question.language
    if outcome.abstain_reason is None or asked is None or primary_language(asked) in LANGUAGES:
        return ()
    return (f"`language` was ignored: an abstention is in English, or in one of {', '.join(LANGUAGES)}",)


def _with_failed_check(outcome: AnswerOutcome, failure: WinnowError) -> AnswerOutcome:
    note = f"not all citations were checked by a model ({failure.code})"
    return msgspec.structs.replace(outcome, degraded=(*outcome.degraded, note))


def _rewording(route: Route, call: Call, watch: Stopwatch, limit_s: float) -> Complete:
    async def reword(request: ChatRequest) -> Reply:
        deadline = Deadline(min(limit_s, call.deadline.left()))
        with watch.stage(CONDENSE):
            served = await route.complete(request, msgspec.structs.replace(call, stage=CONDENSE, deadline=deadline))
        return served.value

    return reword


def _retrieval(query: Query, text: str) -> Query:
    """The search for `text`, with the passages' texts. Nobody ranks if the extractive answerer is to do everything."""
    backend = NONE.name if query.backend == EXTRACTIVE.name else query.backend
    return msgspec.structs.replace(query, text=text, backend=backend, include_text=True)


def _visible(hits: tuple[Hit, ...], question: Question) -> tuple[Hit, ...]:
    """The passages, with their text only if the caller wants it."""
    if question.search.include_text:
        return hits
    return tuple(msgspec.structs.replace(hit, text=None) for hit in hits)


def _with_page(citation: Citation, later_pages: LaterPages) -> Citation:
    """The citation with the pages on which its quote begins and ends."""
    later = later_pages.get(citation.result_id, ())
    page, page_end = (page_at(later, place, citation.page) for place in (citation.start, citation.end - 1))
    return msgspec.structs.replace(citation, page=page, page_end=page_end)


def _timings(result: SearchResult, watch: Stopwatch) -> dict[str, float]:
    """In the order in which things happened: rewording, the stages of the search, answering, the total."""
    answering = watch.timings_ms()
    before = {name: spent for name, spent in answering.items() if name == CONDENSE}
    return before | {name: spent for name, spent in result.timings_ms.items() if name != "total"} | answering


def _at(pointer: str, exc: InvalidRequest, hint: str = "") -> InvalidRequest:
    """The same error and a hint, with the field of the request that caused it."""
    text = f"{exc}{hint}"
    return type(exc)(text, (FieldProblem(pointer, text),))
