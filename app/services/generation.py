"""Writers that need a model: one that lets it write, and one that lets it check what was written."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from app.answering.extractive.answerer import Embed, assess
from app.answering.models import Brief, Source, Writer, WritingEvent, Written
from app.answering.prompts import answer_request, pack, room
from app.answering.stream.composer import AnswerGate, AnswerPiece, Composer
from app.answering.verification.model_check import Checked, check
from app.backends.attempt import OpenStream
from app.backends.base import Call, ChatRequest, Deadline, Delta
from app.backends.client import BackendClient
from app.backends.router import NONE, Route, Served
from app.domain import AbstainReason, BackendUse, Citation, CitationMade, SourcesFound, TextDelta
from app.errors import MissingCapability, WinnowError
from app.observability.timing import Stopwatch
from app.services.ranking import NEEDS, ClientReader
from app.text.languages import refusal

CHECK = "check"

MIN_SCORE = 0.1
MIN_RELEVANCE = 0.2
"""Below these it is not worth asking a model: the score of the best passage where a model ranked, else the relevance
that the extractive answerer would see. Lenient, since a model can decline by itself. At .2, of 100 questions of SQuAD
2.0 dev that can be answered 98 reach the model, and of 100 about something else 4."""

_AT_ONCE = 32
"""Characters of a reply that are read before others get their turn on the event loop. The worst of them, each few a
sentence with its markers, take some milliseconds; a whole hostile reply takes seconds."""


class Draft(msgspec.Struct, frozen=True):
    """An answer that a model has begun: what it was shown, and what it says."""

    sources: tuple[Source, ...]
    reply: OpenStream | AsyncGenerator[Delta, None]


class Generated:
    """A writer that lets a model write, and lets out what stands on its sources.

    `least` replaces the default thresholds. `streamed`: the reply is asked for piece by piece.
    """

    def __init__(self, route: Route, call: Call, embed: Embed, least: float | None, *, streamed: bool) -> None:
        self._route, self._call, self._embed = route, call, embed
        self._least, self._streamed = least, streamed

    async def write(self, brief: Brief, watch: Stopwatch) -> AsyncGenerator[WritingEvent, None]:
        """See `Writer`."""
        with watch.stage(self._call.stage):
            reason = await self._hopeless(brief)
            events = self._ask(brief) if reason is None else self._abstain(brief, reason)
            async with aclosing(events):
                async for event in events:
                    yield event

    async def _abstain(self, brief: Brief, reason: AbstainReason) -> AsyncGenerator[WritingEvent, None]:
        sources = await asyncio.to_thread(pack, brief.found.results, brief.question.context_tokens)
        yield SourcesFound(tuple(source.hit for source in sources))
        yield TextDelta(refusal(reason, brief.language))
        yield Written(use=BackendUse(requested=self._route.requested, used=NONE.name), abstain_reason=reason)

    async def _ask(self, brief: Brief) -> AsyncGenerator[WritingEvent, None]:
        served = await self._begun(brief)
        draft, cut = served.value, False
        composer = Composer(draft.sources)
        gate = AnswerGate(composer)
        async with aclosing(draft.reply):
            yield SourcesFound(tuple(source.hit for source in draft.sources))
            async for delta in draft.reply:
                cut = cut or delta.finish_reason == "length"
                for start in range(0, len(delta.text), _AT_ONCE):
                    if start:
                        await asyncio.sleep(0)
                    for piece in gate.feed(delta.text[start : start + _AT_ONCE]):
                        yield piece
        for piece in gate.finish():
            yield piece
        if gate.abstain_reason is not None:
            yield TextDelta(refusal(gate.abstain_reason, brief.language))
        yield _written(served, composer, gate.abstain_reason, cut=cut and not gate.declined)

    async def _hopeless(self, brief: Brief) -> AbstainReason | None:
        hits = brief.found.results
        if not hits:
            return "no_results"
        asked = self._least if brief.question.min_relevance is None else brief.question.min_relevance
        if asked == 0:
            return None
        scores = [hit.score for hit in hits if hit.ranked_by != NONE.name]
        if scores:
            return "below_min_relevance" if max(scores) < (MIN_SCORE if asked is None else asked) else None
        found = await assess(brief.reading, hits, self._embed)
        if found is None:
            return "no_results"
        return "below_min_relevance" if found[1].relevance < (MIN_RELEVANCE if asked is None else asked) else None

    async def _begun(self, brief: Brief) -> Served[Draft]:
        """By the first backend that begins; each is shown as much as it can read."""

        async def ask(line: BackendClient, hurry: Deadline | None) -> Draft:
            probed = await line.known((hurry or self._call.deadline).left())
            sources, request = await asyncio.to_thread(_request, brief, probed.context_tokens)
            if self._streamed:
                return Draft(sources, await line.stream(request, self._call, hurry))
            reply = await line.complete(request, self._call, hurry)
            return Draft(sources, _at_once(Delta(text=reply.text, finish_reason=reply.finish_reason)))

        return await self._route.first(self._call, ask)


class Checking:
    """Holds back what another writer writes until a model has checked its citations.

    `strict`: a check that fails is an error; else the structural verdicts stay, and the answer says so.
    """

    def __init__(self, writer: Writer, route: Route, call: Call, *, strict: bool) -> None:
        self._writer, self._route, self._strict = writer, route, strict
        self._call = msgspec.structs.replace(call, stage=CHECK)

    async def write(self, brief: Brief, watch: Stopwatch) -> AsyncGenerator[WritingEvent, None]:
        """See `Writer`."""
        held: list[AnswerPiece] = []
        written = None
        async with aclosing(self._writer.write(brief, watch)) as events:
            async for event in events:
                match event:
                    case SourcesFound():
                        yield event
                    case Written():
                        written = event
                    case _:
                        held.append(event)
        assert written is not None  # noqa: S101 - the protocol of writers
        if any(isinstance(event, CitationMade) for event in held):
            with watch.stage(CHECK):
                held, written = await self._checked(held, written, brief)
        for piece in held:
            yield piece
        yield written

    async def _checked(
        self, held: list[AnswerPiece], written: Written, brief: Brief
    ) -> tuple[list[AnswerPiece], Written]:
        try:
            found = await self._check([one.citation for one in held if isinstance(one, CitationMade)], written)
        except WinnowError as exc:
            if self._strict:
                raise
            return held, _noting(written, exc)
        if not any(citation.verified for citation in found.citations):
            ending = msgspec.structs.replace(written, abstain_reason="unsupported", unsupported=())
            return [TextDelta(refusal("unsupported", brief.language))], ending
        told = iter(found.citations)
        replayed = [CitationMade(next(told)) if isinstance(one, CitationMade) else one for one in held]
        written = msgspec.structs.replace(written, unsupported=found.unsupported)
        return replayed, _noting(written, found.failures[0]) if found.failures else written

    async def _check(self, citations: list[Citation], written: Written) -> Checked:
        """By the backend that wrote, if a model did. Raises what failed, where nothing could be checked."""
        lines = [line for line in self._route.clients if line.name == written.use.used] or self._route.clients

        async def ask(line: BackendClient, hurry: Deadline | None) -> Checked:
            probed = await line.known((hurry or self._call.deadline).left())
            failure: WinnowError = MissingCapability(f"the backend {line.name!r} cannot check citations")
            for way in (way for way, needs in NEEDS.items() if needs <= probed.capabilities):
                found = await check(written.claims, citations, written.sources, ClientReader(line, way, self._call))
                if not found.failures or self._is_worth_something(found, written):
                    return found
                failure = found.failures[0]
                if not isinstance(failure, MissingCapability):
                    break
            raise failure

        return (await Route(self._route.requested, lines).first(self._call, ask)).value

    def _is_worth_something(self, found: Checked, written: Written) -> bool:
        return not self._strict and found.unchecked < sum(bool(claim.citations) for claim in written.claims)


def _request(brief: Brief, window: int | None) -> tuple[tuple[Source, ...], ChatRequest]:
    """For a model that reads and writes `window` tokens together."""
    passages, output = room(brief, window)
    sources = pack(brief.found.results, passages)
    return sources, answer_request(brief, sources, output)


async def _at_once(delta: Delta) -> AsyncGenerator[Delta, None]:
    yield delta


def _written(served: Served[Draft], composer: Composer, reason: AbstainReason | None, *, cut: bool) -> Written:
    warnings = []
    if composer.unknown_references:
        warnings.append(f"Markers that name no passage were removed: {composer.unknown_references}.")
    if composer.removed_addresses:
        warnings.append(f"Addresses that stand in no passage were removed: {composer.removed_addresses}.")
    if cut:
        warnings.append("The answer was cut off: it used up max_output_tokens.")
    return Written(
        use=served.use,
        abstain_reason=reason,
        sources=served.value.sources,
        claims=composer.claims if reason is None else (),
        unsupported=composer.unsupported if reason is None else (),
        warnings=tuple(warnings),
        cut=cut,
    )


def _noting(written: Written, failure: WinnowError) -> Written:
    note = f"not all citations were checked by a model ({failure.code})"
    return msgspec.structs.replace(written, degraded=(*written.degraded, note))
