"""Use case: rank a caller's own texts, without an index: by a model, or by words and vectors."""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from itertools import chain

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
from app.services.ranking import Rankers, RankingOutcome
from app.text.fencing import clean
from indexing.concurrency import together
from indexing.embedding.batching import TextEmbedder
from indexing.embedding.calibration import contrast
from indexing.embedding.model import Embedder, Vectors
from indexing.retrieval.bm25 import AVERAGE_LENGTH, FIRST_CODE, K1, B, Lexical
from indexing.retrieval.codes import codes, month_numbers, names_code, normalized
from indexing.store.base import Vector

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


BACKGROUND = 100
"""Texts without any of the query's words that are added to the list, so that a short list does not decide rarity."""

REMEMBERED, LONGEST_REMEMBERED = 32_768, 40
"""Pieces of texts whose terms are kept, words mostly, and their characters at most. Some 10 MB."""

_EDGES = ".,;:!?()[]\"'“”‘’"
_LATIN = re.compile("[\0-\x7f\u00a1-\u024f\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2100-\u2bff]*")
"""Scripts that put spaces between words, and what stands between those."""
_YEAR = re.compile(r"\d{4}(?!\w)")
_LONGEST_MONTH_AND_DAY, _WORDS_BEHIND_MONTH = 30, 2
"""Characters before a year, and words between the two."""
_BEGINS_ACCOUNT = re.compile(r"\b[a-z]{2}\d\d$")
_LAST_LETTERS = re.compile(r"[^\W\d_]+$")

_MOST_WORDS = 64
"""Words of a piece between spaces whose repetitions are looked for."""
_FEW_TERMS = 8


class WordMatcher:
    """Matches by words, as a search does. Thread-safe.

    The weight of a term in a text is that of `Lexical.matching`, to the last bit, which cuts, stems and counts all of
    the text. Here the terms of each piece between spaces are remembered, since texts repeat their words. What pieces do
    not tell, as in Chinese, is left to it.
    """

    def __init__(self, lexical: Lexical) -> None:
        self._lexical = lexical
        self._terms: Callable[[str], tuple[int, ...] | None] = lru_cache(REMEMBERED)(self._terms_of)

    def match(self, query: str, texts: Sequence[str]) -> list[float]:
        """How well each text matches the query's words, in [0,1]. All 0 for a query without a word."""
        query_vector = self._lexical.query(query)
        if query_vector is None:
            return [0.0] * len(texts)
        asked = dict(zip(query_vector.indices, query_vector.values, strict=True))
        terms = frozenset(asked)
        weigh = self._lexical.matching if codes(normalized(query)) else self._weights
        weights = [weigh(text, terms) for text in texts]
        holding = Counter(term for by_term in weights for term in by_term)
        total = len(texts) + BACKGROUND
        # Robertson's idf, as the store computes it.
        rarity = {
            term: weight * math.log1p((total - holding[term] + 0.5) / (holding[term] + 0.5))
            for term, weight in asked.items()
        }
        most = math.fsum(rarity.values())
        return [
            -math.expm1(-math.fsum(rarity[term] * weight for term, weight in by_term.items()) / most)
            for by_term in weights
        ]

    def _weights(self, text: str, terms: frozenset[int]) -> dict[int, float]:
        """Those of words in a text."""
        lowered = (text if text.isascii() else normalized(text.replace("–", "-").replace("—", "-"))).lower()
        if not (lowered.isascii() or _LATIN.fullmatch(lowered)):
            return self._lexical.matching(text, terms)
        pieces = [piece.strip(_EDGES) for piece in lowered.split()]
        if not month_numbers().keys().isdisjoint(pieces):
            pieces = [piece.strip(_EDGES) for piece in _without_named_dates(lowered).split()]
        if max(map(len, pieces), default=0) > LONGEST_REMEMBERED:
            return self._lexical.matching(text, terms)
        by_piece = list(map(self._terms, pieces))
        if None in by_piece:
            return self._lexical.matching(text, terms)
        present = list(chain.from_iterable(filter(None, by_piece)))
        shared = terms.intersection(present)
        # Counting a term is quicker than counting all, as long as there are few: a query may have a thousand.
        count: Callable[[int], int] = present.count if len(shared) <= _FEW_TERMS else Counter(present).__getitem__
        return {term: _weight(count(term), len(present)) for term in shared}

    def _terms_of(self, piece: str) -> tuple[int, ...] | None:
        """The words' terms of a piece of a text, as often as they are in it; None if that cannot be told.

        An account may begin with the piece, or a date with what is behind its hyphen.
        """
        if piece.isascii() and piece.isalpha():  # one word, or a stopword
            single = self._lexical.query(piece)
            return tuple(single.indices) if single else ()
        last = _LAST_LETTERS.search(piece)
        if _BEGINS_ACCOUNT.search(piece) or (last and last[0] in month_numbers() and last[0] != piece):
            return None
        vector = self._lexical.document(piece)
        words = [
            (term, weight)
            for term, weight in (zip(vector.indices, vector.values, strict=True) if vector else ())
            if term < FIRST_CODE  # a text's words leave codes out
        ]
        for length in range(len(words), _MOST_WORDS):
            norm = K1 * (1 - B + B * length / AVERAGE_LENGTH)
            counts = [round(weight * norm / (K1 + 1 - weight)) for _, weight in words]
            if sum(counts) == length and all(
                _weight(count, length) == weight for count, (_, weight) in zip(counts, words, strict=True)
            ):
                return tuple(term for count, (term, _) in zip(counts, words, strict=True) for _ in range(count))
        return None


def _weight(count: int, length: int) -> float:
    """Of a term that is `count` times in a text of so many words, as the engine rounds it."""
    return float(np.float32(count * (K1 + 1) / (count + K1 * (1 - B + B * length / AVERAGE_LENGTH))))


def _without_named_dates(lowered: str) -> str:
    """A text without the dates that have the name of a month, whose words count as one code."""
    rest, end = list[str](), 0
    for year in _YEAR.finditer(lowered):
        first = max(end, year.start() - _LONGEST_MONTH_AND_DAY)
        near = lowered[first : year.end()]
        words = lowered[first : year.start()].split()[-_WORDS_BEHIND_MONTH - 1 :]
        if any(word.strip("(.,") in month_numbers() for word in words):
            for code in codes(near):
                if " " in near[code.start : code.end]:
                    rest.append(lowered[end : first + code.start])
                    end = first + code.end
    return " ".join([*rest, lowered[end:]]) if rest else lowered


def match_vectors(query: Vector, texts: Vectors, unrelated: float, unit: float) -> list[float]:
    """Of unit vectors; `texts` has a row for each text. `unrelated` and `unit` are the embedder's `contrast`."""
    # Summed row by row: a matrix product gives equal rows sums that differ by 1e-8 with their place, which breaks ties.
    evidence = ((texts * query).sum(axis=1) - unrelated) / unit
    return [float(value) for value in np.clip(evidence, 0.0, 1.0)]


def both(words: Sequence[float], vectors: Sequence[float], share: float = 0.5) -> list[float]:
    """The mean of the two; `share` is that of the vectors."""
    return [by_word + share * (by_vector - by_word) for by_word, by_vector in zip(words, vectors, strict=True)]
