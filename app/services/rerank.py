"""Use case: rank a caller's own texts."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import numpy as np

from app.backends.base import Deadline, tokens_of
from app.backends.router import Route
from app.config.settings import CompatSettings
from app.domain import BackendUse, Caller, RankingOptions, Usage
from app.errors import TooLarge, WinnowError
from app.observability.timing import Stopwatch
from app.ranking.models import Spread, candidate_of
from app.services.admission import Gate
from app.services.matching import WordMatcher, both, match_vectors
from app.services.ranking import Rankers, RankingOutcome
from app.text.fencing import clean
from indexing.concurrency import together
from indexing.embedding.batching import TextEmbedder
from indexing.embedding.calibration import contrast
from indexing.embedding.model import Embedder
from indexing.retrieval.bm25 import Lexical
from indexing.retrieval.codes import names_code

MAX_TEXTS = 10_000
MAX_QUERY_LENGTH = 8_192
MAX_TEXT_LENGTH = 50_000
"""Characters; what is beyond is not read."""

EMBEDDED_CHARACTERS = 400
"""Of each text, for its match by vectors: its beginning only, since every request pays for it."""

MATCHES: Spread = (0.5, 0.1)
"""Of a query's matches: SciFact, NovelEval and SQuAD have means of 0.41 to 0.52 and deviations of 0.08 to 0.14.

It is given, not measured on the list, so that a score does not depend on what else is in the list.
"""

VECTORS_BESIDE_CODES = 0.25
"""The share of vectors in the match where the query names a code: they hardly tell one from another."""

MATCHING_SHARE = 0.25
"""The share of the deadline that matching by vectors may take."""

Matches = tuple[list[float], tuple[str, ...]]
"""Of each text in [0,1], and warnings."""

MAX_QUERIES = 256
QUERIES_AT_ONCE = 4
"""Of one request, so that it does not take the places of all others."""

ALONE = "no language model ranked: these are matches by words and by vectors"
BY_WORDS = "the embedding model did not respond in time: the texts were matched by their words alone"


class RankedTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Every text once, as (index, score), best first, ties by index; scores are absolute, in [0,1].

    `degraded`: why no model's opinion is in it, or not all of it. `input_tokens` are those that a model read; an
    estimate, never 0, where none did. `timings_ms` holds match, rank and total.
    """

    results: tuple[tuple[int, float], ...]
    use: BackendUse
    degraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()
    input_tokens: int = 1
    timings_ms: dict[str, float] = {}


class TextRanker:
    """Ranks by how well the texts match, and by a model's opinion of the best of them."""

    def __init__(
        self,
        rankers: Rankers,
        lexical: Lexical,
        texts: TextEmbedder,
        embedder: Callable[[], Awaitable[Embedder]],
        settings: CompatSettings,
        gate: Gate,
    ) -> None:
        self._rankers, self._words = rankers, WordMatcher(lexical)
        self._texts, self._embedder = texts, embedder
        self._settings, self._gate = settings, gate
        self._contrast: tuple[float, float] | None = None

    async def rank(
        self,
        query: str,
        texts: Sequence[str],
        caller: Caller,
        backend: str | None = None,
        top: int | None = None,
    ) -> RankedTexts:
        """Ranks before the deadline in any case. `backend` None: the settings' default; `top` None: all texts matter.

        A model begins to read while the texts are still matched by vectors.
        Raises UnknownBackend, MissingCapability, TooLarge, Overloaded.
        """
        if len(texts) > MAX_TEXTS:
            raise TooLarge(f"{len(texts)} documents exceed the limit of {MAX_TEXTS} per request")
        deadline, watch = Deadline(self._settings.rerank_deadline_ms / 1000), Stopwatch()
        ranker = caller.shown(await self._rankers.select(backend))
        warnings = _cuts(query, texts)
        query, texts = clean(query)[:MAX_QUERY_LENGTH], [clean(text[:MAX_TEXT_LENGTH]) for text in texts]
        async with self._gate.visit(watch):
            with watch.stage("match"):
                words = await asyncio.to_thread(self._words.match, query, texts)
        matching = asyncio.ensure_future(self._match(query, texts, words, deadline))
        try:
            with watch.stage("rank"):
                if isinstance(ranker, BackendUse):
                    outcome = RankingOutcome(use=ranker, degraded=(ALONE,) if ranker.requested != ranker.used else ())
                else:
                    outcome = await self._ask(ranker, query, texts, words, matching, top, deadline, caller)
                watch.degraded("rank", outcome.degraded)
            with watch.stage("match"):
                matches, failed = await matching
        finally:
            matching.cancel()
        # A text that the ranking does not have, such as an empty one, keeps its match: 0.
        scores = dict(enumerate(matches))
        scores |= {int(ranked.id): ranked.score for ranked in outcome.ranking.order} if outcome.ranking else {}
        return RankedTexts(
            results=tuple(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))),
            use=outcome.use,
            degraded=outcome.degraded,
            warnings=(*failed, *warnings),
            usage=outcome.usage,
            input_tokens=outcome.usage.input_tokens or max(1, sum(map(tokens_of, (query, *texts)))),
            timings_ms=watch.timings_ms(),
        )

    async def score(
        self, queries: Sequence[str], texts: Sequence[str], caller: Caller, backend: str | None = None
    ) -> RankedTexts:
        """The score of each text for the query at its place, in their order: as `rank` gives it, whose stages are added
        up. Each query has its own deadline.

        Raises what `rank` raises.
        """
        places: dict[str, list[int]] = {}
        for place, query in enumerate(queries):
            places.setdefault(query, []).append(place)
        if len(places) > MAX_QUERIES:
            raise TooLarge(f"{len(places)} different queries exceed the limit of {MAX_QUERIES} per request")
        turns, watch = asyncio.Semaphore(QUERIES_AT_ONCE), Stopwatch()

        async def ranked(query: str) -> RankedTexts:
            async with turns:
                return await self.rank(query, [texts[place] for place in places[query]], caller, backend)

        rankings = await together(map(ranked, places))
        scores = [
            (own[index], score)
            for own, ranking in zip(places.values(), rankings, strict=True)
            for index, score in ranking.results
        ]
        stages = Counter[str]()
        for ranking in rankings:
            stages.update(ranking.timings_ms)
        return RankedTexts(
            results=tuple(sorted(scores)),
            use=rankings[0].use,
            degraded=tuple(dict.fromkeys(note for ranking in rankings for note in ranking.degraded)),
            warnings=tuple(dict.fromkeys(note for ranking in rankings for note in ranking.warnings)),
            usage=sum((ranking.usage for ranking in rankings), Usage()),
            input_tokens=sum(ranking.input_tokens for ranking in rankings),
            timings_ms={**stages, **watch.timings_ms()},
        )

    async def _ask(
        self,
        route: Route,
        query: str,
        texts: Sequence[str],
        words: Sequence[float],
        matching: "asyncio.Future[Matches]",
        top: int | None,
        deadline: Deadline,
        caller: Caller,
    ) -> RankingOutcome:
        """A model's ranking; its priors are the matches by words until those by vectors are there."""

        async def better() -> dict[str, float]:
            matches, _ = await asyncio.shield(matching)
            return {_id(index): match for index, match in enumerate(matches)}

        candidates = [
            candidate_of(_id(index), text, prior=match)
            for index, (text, match) in enumerate(zip(texts, words, strict=True))
            if text.strip()
        ]
        options = RankingOptions(depth=self._settings.rerank_depth, deadline_ms=max(1, round(1000 * deadline.left())))
        return await self._rankers.rank(route, query, candidates, top or len(texts), options, caller, MATCHES, better())

    async def _match(self, query: str, texts: Sequence[str], words: Sequence[float], deadline: Deadline) -> Matches:
        """By words and, where there are few texts and time is left, by vectors; warnings."""
        matches, failed = words, list[str]()
        if 0 < len(texts) <= self._settings.rerank_embedded:
            try:
                async with asyncio.timeout(deadline.left() * MATCHING_SHARE), self._gate.visit(again=True):
                    share = VECTORS_BESIDE_CODES if names_code(query) else 0.5
                    matches = both(words, await self._match_vectors(query, texts), share)
            except (TimeoutError, WinnowError):
                failed.append(BY_WORDS)
        return [match if text.strip() else 0.0 for match, text in zip(matches, texts, strict=True)], tuple(failed)

    async def _match_vectors(self, query: str, texts: Sequence[str]) -> list[float]:
        if self._contrast is None:
            self._contrast = await asyncio.to_thread(contrast, await self._embedder())
        (embedded_query,) = await self._texts.embed([query], queries=True)
        embedded = await self._texts.embed([text[:EMBEDDED_CHARACTERS] for text in texts])
        return match_vectors(embedded_query.vector, np.stack([text.vector for text in embedded]), *self._contrast)


def _id(index: int) -> str:
    return f"{index:05}"


def _cuts(query: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Warnings about what is not read because it is too long."""
    warnings = (
        [f"the query was cut to its first {MAX_QUERY_LENGTH} characters"] if len(query) > MAX_QUERY_LENGTH else []
    )
    if long := [index for index, text in enumerate(texts) if len(text) > MAX_TEXT_LENGTH]:
        named = ", ".join(map(str, long[:5])) + (", ..." if len(long) > 5 else "")
        warnings.append(f"of documents {named} only the first {MAX_TEXT_LENGTH} characters were read")
    return tuple(warnings)
