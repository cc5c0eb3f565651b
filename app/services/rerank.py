"""Use case: rank a caller's own texts."""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import numpy as np

from app.backends.base import Deadline, tokens_of
from app.backends.router import Route
from app.config.settings import CompatSettings
from app.domain import NOBODY, BackendUse, Caller, RankingOptions, Usage
from app.errors import TooLarge, WinnowError
from app.observability.timing import Stopwatch
from app.ranking.models import Candidate, Spread
from app.services.ranking import Ordered, Rankers
from app.text.fencing import clean
from indexing.embedding.batching import TextEmbedder
from indexing.embedding.calibration import Contrast, contrast
from indexing.embedding.model import Embedder, Vectors
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import Vector

BACKGROUND = 100
"""Texts."""


def match_words(lexical: Lexical, query: str, texts: Sequence[str]) -> list[float]:
    """Of each text. All 0 for a query without a word."""
    asked = lexical.query(query)
    if asked is None:
        return [0.0] * len(texts)
    terms = frozenset(asked.indices)
    weights = [_weights(lexical, text, terms) for text in texts]
    holding = Counter(term for found in weights for term in found)
    rarity = {term: _idf(len(texts) + BACKGROUND, holding[term]) for term in terms}
    most = math.fsum(rarity.values())
    return [
        -math.expm1(-math.fsum(rarity[term] * weight for term, weight in found.items()) / most) for found in weights
    ]


def match_vectors(query: Vector, texts: Vectors, contrast: Contrast) -> list[float]:
    """Of unit vectors; `texts` has a row for each text."""
    evidence = (texts @ query - contrast.unrelated) / contrast.unit
    return [float(value) for value in np.clip(evidence, 0.0, 1.0)]


def both(words: Sequence[float], vectors: Sequence[float]) -> list[float]:
    """The mean of the two."""
    return [(by_word + by_vector) / 2 for by_word, by_vector in zip(words, vectors, strict=True)]


def _weights(lexical: Lexical, text: str, terms: frozenset[int]) -> dict[int, float]:
    found = lexical.document(text)
    if found is None:
        return {}
    return {term: weight for term, weight in zip(found.indices, found.values, strict=True) if term in terms}


def _idf(texts: int, holding: int) -> float:
    """Robertson's, as the store's."""
    return math.log1p((texts - holding + 0.5) / (holding + 0.5))


MOST_TEXTS = 10_000
LONGEST_QUERY = 8_192
LONGEST_TEXT = 50_000
"""Characters; what is beyond is not read."""

EMBEDDED_CHARACTERS = 400
"""Of each text, for its match by vectors: its beginning, since this is paid for with each call."""

MATCHES = Spread(mean=0.5, deviation=0.1)
"""Of a query's matches: SciFact, NovelEval and SQuAD have means of 0.41 to 0.52 and deviations of 0.08 to 0.14.

That it is given, and not taken from the list, is why a score does not depend on what else is in it.
"""

MATCHING_SHARE = 0.25
"""The part of the time that matching by vectors may take."""

ALONE = "no language model ranked: these are matches by words and by vectors"
BY_WORDS = "the embedding model did not help in time: the texts were matched by their words alone"


class TextsToRank(msgspec.Struct, frozen=True, kw_only=True):
    """`backend` None: the settings' default. `top`: how many of the best the caller wants; None: all of them."""

    query: str
    texts: Sequence[str]
    backend: str | None = None
    top: int | None = None


class RankedText(msgspec.Struct, frozen=True):
    """The place of text `index`; `score` is absolute, in [0,1]."""

    index: int
    score: float


class RankedTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Every text once, best first, ties by index. `degraded`: why no model's opinion is in it, or not all of it.

    `input_tokens` are those that a model read; an estimate, never 0, where none did. `timings_ms` holds match, rank
    and total.
    """

    results: tuple[RankedText, ...]
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
    ) -> None:
        self._rankers, self._lexical = rankers, lexical
        self._texts, self._embedder = texts, embedder
        self._settings = settings
        self._contrast: Contrast | None = None

    async def rank(self, task: TextsToRank, caller: Caller = NOBODY) -> RankedTexts:
        """Answers before the deadline in any case. Raises UnknownBackend, MissingCapability, TooLarge."""
        if len(task.texts) > MOST_TEXTS:
            raise TooLarge(
                f"{len(task.texts)} documents are more than {MOST_TEXTS}, the most that one request may have"
            )
        deadline, watch = Deadline(self._settings.rerank_deadline_ms / 1000), Stopwatch()
        who = await self._rankers.who(task.backend)
        query = clean(task.query)[:LONGEST_QUERY]
        texts = [clean(text[:LONGEST_TEXT]) for text in task.texts]
        with watch.stage("match"):
            matches, warnings = await self._match(query, texts, deadline)
        matches = [match if text.strip() else 0.0 for match, text in zip(matches, texts, strict=True)]
        candidates = [
            Candidate(id=f"{index:05}", text=text, prior=match)
            for index, (text, match) in enumerate(zip(texts, matches, strict=True))
            if text.strip()
        ]
        with watch.stage("rank"):
            ordered = await self._order(who, query, candidates, task.top or len(texts), deadline, caller)
        return RankedTexts(
            results=_places(matches, candidates, ordered),
            use=ordered.use,
            degraded=ordered.degraded,
            warnings=(*warnings, *_cuts(task)),
            usage=ordered.usage,
            input_tokens=ordered.usage.input_tokens or max(1, sum(map(tokens_of, (query, *texts)))),
            timings_ms=watch.timings_ms(),
        )

    async def _match(self, query: str, texts: Sequence[str], deadline: Deadline) -> tuple[list[float], tuple[str, ...]]:
        words = await asyncio.to_thread(match_words, self._lexical, query, texts)
        if not 0 < len(texts) <= self._settings.rerank_embedded:
            return words, ()
        try:
            async with asyncio.timeout(deadline.left() * MATCHING_SHARE):
                return both(words, await self._match_vectors(query, texts)), ()
        except (TimeoutError, WinnowError):
            return words, (BY_WORDS,)

    async def _match_vectors(self, query: str, texts: Sequence[str]) -> list[float]:
        if self._contrast is None:
            self._contrast = await asyncio.to_thread(contrast, await self._embedder())
        beginnings = [text[:EMBEDDED_CHARACTERS] for text in texts]
        (asked,) = await self._texts.embed([query], queries=True)
        found = await self._texts.embed(beginnings)
        return match_vectors(asked.vector, np.stack([one.vector for one in found]), self._contrast)

    async def _order(
        self,
        who: Route | BackendUse,
        query: str,
        candidates: Sequence[Candidate],
        top: int,
        deadline: Deadline,
        caller: Caller,
    ) -> Ordered:
        if isinstance(who, BackendUse):
            return Ordered(use=who, degraded=(ALONE,) if who.requested != who.used else ())
        options = RankingOptions(depth=self._settings.rerank_depth, deadline_ms=max(1, round(1000 * deadline.left())))
        return await self._rankers.rank(who, query, candidates, top, options, caller, MATCHES)


def _places(matches: Sequence[float], candidates: Sequence[Candidate], ordered: Ordered) -> tuple[RankedText, ...]:
    """A text that a ranking does not have, as an empty one, has its match: 0."""
    scores = list(matches)
    for ranked in ordered.ranking.order if ordered.ranking else ():
        scores[int(ranked.id)] = ranked.score
    places = (RankedText(index, score) for index, score in enumerate(scores))
    return tuple(sorted(places, key=lambda place: (-place.score, place.index)))


def _cuts(task: TextsToRank) -> tuple[str, ...]:
    """What was not read of texts that are too long."""
    said = [f"the query was cut to its first {LONGEST_QUERY} characters"] if len(task.query) > LONGEST_QUERY else []
    if long := [index for index, text in enumerate(task.texts) if len(text) > LONGEST_TEXT]:
        named = ", ".join(map(str, long[:5])) + (", ..." if len(long) > 5 else "")
        said.append(f"of documents {named} only the first {LONGEST_TEXT} characters were read")
    return tuple(said)
