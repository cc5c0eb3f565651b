"""Prepares candidates for a model: folds near-duplicates, cuts long texts, flags suspected attacks. Pure."""

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from heapq import heapify, heappop, heappush
from itertools import chain, groupby, pairwise

import numpy as np
import numpy.typing as npt
from ahocorasick_rs import AhoCorasick

from app.backends.base import BYTES_PER_TOKEN, tokens_of
from app.ranking.injection.detector import SUSPECTED_INJECTION, has_hidden_text, shows_injection
from app.ranking.models import Ranked
from app.text.fencing import break_up, visible
from app.text.terms import STEM_LENGTH, fold, terms
from indexing.documents import Candidate

_MAX_TERMS = 32
"""Of a long query, only the longest terms are looked for."""

_REPEATED = 0.5
"""Factor on a term's weight for each sentence with it that is shown already."""

_BESIDE = 0.3
"""The share of each neighbour's terms that a sentence gets: answers often stand beside what the question repeats."""

_GAP = " … "
_GAP_BYTES = len(_GAP.encode())

_SENTENCE_END = re.compile(r"[.!?…؟।][\"'”’»)\]]*\s+|[。！？][」』”]*\s*|\n\s*")

Mention = tuple[int, int]
"""A place in a text, and the index of the query's term there. A plain tuple: a long passage has a hundred."""


class QueryTerms:
    """Finds a query's terms in texts. Words are compared by their stems, unspaced scripts by characters and pairs.

    Each text is searched by itself, so that what is shown of it does not depend on other texts.
    """

    def __init__(self, query: str) -> None:
        candidates = {term for term in terms(query) if not term.startswith("~")}
        # A pair of characters says more than each of them alone.
        paired = {letter for term in candidates if len(term) == 2 and _stands_inside(term) for letter in term}
        self.terms = sorted(candidates - paired, key=lambda term: (-len(term), term))[:_MAX_TERMS]
        self.weights = [_weight(term) for term in self.terms]
        self._inside = [_stands_inside(term) for term in self.terms]
        self._finder = AhoCorasick(self.terms)

    def mentions(self, text: str) -> list[Mention]:
        """By place. Places are approximate: folding may change a text's length a little."""
        folded = fold(text)
        scale = len(text) / len(folded) if folded else 1.0
        return [
            (int(start * scale), term)
            for term, start, _ in self._finder.find_matches_as_indexes(folded, overlapping=True)
            if self._inside[term] or start == 0 or not folded[start - 1].isalnum()
        ]

    def terms_in(self, text: str) -> frozenset[int]:
        """The terms that the text holds, by index."""
        return frozenset(term for _, term in self.mentions(text))


def _stands_inside(term: str) -> bool:
    """Whether its script has no spaces: letters without case."""
    return not term[0].isdigit() and term.lower() == term.upper()


def _weight(term: str) -> float:
    """Longer terms are rarer: nearly as good as document frequency, and independent of what else was found."""
    if _stands_inside(term):
        return STEM_LENGTH**2 if len(term) > 1 else STEM_LENGTH
    return STEM_LENGTH**2 if term.isdigit() else len(term) ** 2


def excerpt(query_terms: QueryTerms, text: str, tokens: int) -> str:
    """The text if it has at most `tokens` (estimated), else as many of its sentences, in their order, with … for gaps.

    Greedily, the sentences that say most of the query are taken: each term by its weight, less if it is shown already,
    and a share of the neighbours' terms. The first among equals, so that a text without a mention keeps its head.
    """
    size = tokens_of(text)
    if size <= tokens:
        return text
    sentences = list(_sentences(text, len(text) * tokens // size or 1))
    sizes = [len(text[start:end].encode("utf-8", "replace")) for start, end in sentences]
    spoken = _terms_by_sentence(sentences, query_terms.mentions(text))
    shown = _choose(sizes, spoken, tokens * BYTES_PER_TOKEN, query_terms.weights)
    if not shown:  # the text is one sentence, in letters of more bytes than its average
        return text.encode("utf-8", "replace")[: tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")
    runs = groupby(enumerate(shown), lambda pair: pair[1] - pair[0])
    return _GAP.join("".join(text[slice(*sentences[at])] for _, at in run).strip() for _, run in runs)


def _sentences(text: str, most: int) -> Iterator[tuple[int, int]]:
    """Start and end of each, in order; one of more than `most` characters is split between words."""
    ends = (match.end() for match in _SENTENCE_END.finditer(text))
    for start, end in pairwise(chain((0,), ends, (len(text),))):
        while end - start > most:
            space = text.rfind(" ", start + most // 2, start + most) + 1
            yield start, space or start + most
            start = space or start + most
        if start < end:
            yield start, end


def _terms_by_sentence(sentences: Sequence[tuple[int, int]], mentions: Sequence[Mention]) -> list[set[int]]:
    """The terms in each sentence, by index."""
    spoken: list[set[int]] = [set() for _ in sentences]
    at = 0
    for place, term in mentions:
        while place >= sentences[at][1] and at + 1 < len(sentences):
            at += 1
        spoken[at].add(term)
    return spoken


def _choose(sizes: Sequence[int], spoken: Sequence[set[int]], room: int, weights: Sequence[float]) -> list[int]:
    """The sentences to show, by index, of at most `room` bytes together.

    Gains only ever fall, so only the best one must be computed anew (lazy greedy maximisation).
    """
    left = list(weights)

    def gain(at: int) -> float:
        near = chain(*spoken[max(0, at - 1) : at], *spoken[at + 1 : at + 2])
        return sum(left[term] for term in spoken[at]) + _BESIDE * sum(left[term] for term in near)

    gains = [(-gain(at), at) for at in range(len(spoken))]
    heapify(gains)
    chosen: set[int] = set()
    while gains:
        _, at = heappop(gains)
        size = sizes[at] + (_GAP_BYTES if chosen and chosen.isdisjoint((at - 1, at + 1)) else 0)
        if (now := -gain(at)) > (gains[0][0] if gains else now):
            heappush(gains, (now, at))
        elif size <= room:
            room -= size
            chosen.add(at)
            for term in spoken[at]:
                left[term] *= _REPEATED
    return sorted(chosen)


NEAR = 0.9
"""Jaccard index from which texts are nearly equal: in a passage of 700 letters, one word may differ."""

_GRAM = 8  # letters in a shingle
_ONE_IN = 4  # of the hashes of all shingles, a fingerprint keeps about one in four
_BUCKETS = 16  # values in a sketch; the upper four bits of a hash are its bucket
_SKETCHED = 32
"""Hashes that a text needs for a sketch; shorter ones, of about a hundred letters, are compared for equality only."""

_MAX_COMPARED = 8
"""Texts made from one template share many bands; then only the first few are compared."""

_BASE = 0x9E3779B1
_NONE = np.uint32(0xFFFFFFFF)

Codes = npt.NDArray[np.uint16]
Hashes = npt.NDArray[np.uint32]


def first_alike(texts: Sequence[str], facts: Callable[[int], Hashable]) -> list[int]:
    """For each text, the index of the first text that it equals or nearly equals, else its own index.

    Texts are equal in their letters and digits, whatever their case. Those whose `facts` differ are never alike. Texts
    hold no NUL characters.
    """
    if not texts:
        return []
    letters, starts, ends = _letters(texts)
    fingerprints = _fingerprints(letters, starts, ends)
    bands = _shared_bands(fingerprints)
    by_band: dict[Hashable, list[int]] = {}
    first = list(range(len(texts)))
    for index in first:
        whole = letters[starts[index] : ends[index]]
        places: list[Hashable] = list(bands[index]) if len(fingerprints[index]) >= _SKETCHED else [whole.tobytes()]
        for other in _sharing(places, by_band):
            same = np.array_equal(letters[starts[other] : ends[other]], whole)
            if (same or _near(fingerprints[other], fingerprints[index])) and facts(other) == facts(index):
                first[index] = other
                break
        else:
            for place in places:
                by_band.setdefault(place, []).append(index)
    return first


def _letters(texts: Sequence[str]) -> tuple[Codes, list[int], list[int]]:
    """The UTF-16 codes of letters and digits of all texts in a row, and where each text begins and ends in them."""
    joined = "\0".join(texts).lower() + "\0"
    codes = np.frombuffer(joined.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    letters = codes[_is_letter()[codes]]
    ends = np.flatnonzero(letters == 0)
    return letters, [0, *(ends[:-1] + 1).tolist()], ends.tolist()


@cache
def _is_letter() -> npt.NDArray[np.bool_]:
    """By code: neither punctuation, separator nor control; but NUL, which divides texts, and surrogates count."""
    kinds = (unicodedata.category(chr(code)) for code in range(1, 0x10000))
    return np.array([True, *(kind == "Cs" or kind[0] not in "PZC" for kind in kinds)])


def _fingerprints(letters: Codes, starts: list[int], ends: list[int]) -> list[Hashes]:
    """The hashes that each text keeps of its shingles.

    Hashes of 1, 2, 4 and then 8 letters are combined from those of half as many, over all texts at once.
    """
    hashes, base = letters.astype(np.uint32), _BASE
    for width in (1, 2, 4):
        hashes = hashes[:-width] * np.uint32(base) + hashes[width:]
        base = base * base & 0xFFFFFFFF
    hashes = (hashes ^ (hashes >> np.uint32(15))) * np.uint32(_BASE)
    hashes ^= hashes >> np.uint32(13)
    at = np.flatnonzero((hashes & np.uint32(_ONE_IN - 1)) == 0)
    chosen = hashes[at]
    lows = np.searchsorted(at, starts).tolist()
    highs = np.searchsorted(at, np.array(ends) - _GRAM + 1).tolist()
    return [chosen[low : max(low, high)] for low, high in zip(lows, highs, strict=True)]


def _shared_bands(fingerprints: list[Hashes]) -> list[list[int]]:
    """For each text, the pairs of neighbouring values in its sketch that another text has too."""
    sketches = np.full(len(fingerprints) * _BUCKETS, _NONE)
    hashes = np.concatenate(fingerprints)
    rows = np.repeat(np.arange(len(fingerprints)), [len(fingerprint) for fingerprint in fingerprints])
    np.minimum.at(sketches, rows * _BUCKETS + (hashes >> np.uint32(28)), hashes)
    pairs = sketches.reshape(-1, 2).astype(np.uint64)
    # A value's upper bits are its bucket, so that equal pairs come from the same place of a sketch.
    _, which, counts = np.unique(pairs[:, 0] << np.uint64(32) | pairs[:, 1], return_inverse=True, return_counts=True)
    shared: list[list[int]] = [[] for _ in fingerprints]
    for place in np.flatnonzero((counts[which] > 1) & (pairs != _NONE).all(axis=1)).tolist():
        shared[place // (_BUCKETS // 2)].append(int(which[place]))
    return shared


def _sharing(bands: Iterable[Hashable], by_band: dict[Hashable, list[int]]) -> list[int]:
    return sorted({other for band in bands for other in by_band.get(band, ())[:_MAX_COMPARED]})[:_MAX_COMPARED]


def _near(one: Hashes, two: Hashes) -> bool:
    first, second = set(one.tolist()), set(two.tolist())
    return len(first & second) >= NEAR * len(first | second)


PASSAGE_TOKENS = 320
"""Of a passage. Our own chunks are shorter, so that only passages from elsewhere are cut."""

WINDOW_TOKENS = 256
"""Of a passage in a window of twenty, which is to fit into a context of 8,000."""

TITLE_TOKENS = 24

_CACHED = 2_000
"""Texts whose preparation is cached: popular passages come back with every query that finds them."""

_NUMBER = re.compile(r"\d+")


def prepare(query: str, candidates: Sequence[Candidate], *, tokens: int = PASSAGE_TOKENS) -> list[Ranked]:
    """One for each text that differs, by prior and then by id; each has at most `tokens` (estimated), title included.

    Texts are duplicates if they are equal but for case and punctuation, or nearly so, and hold the same numbers and the
    same words of the query, and both or neither are suspicious. The result does not depend on the order of the
    candidates, and what is shown of one does not depend on the others.
    """
    query_terms = QueryTerms(query)
    ordered = sorted(candidates, key=lambda candidate: (-candidate.score, candidate.passage.id))
    shown = [_visible(candidate.passage.title, candidate.passage.text) for candidate in ordered]

    @cache
    def facts(index: int) -> tuple[tuple[str, ...], frozenset[int], bool]:
        title, text, hidden = shown[index]
        whole = f"{title}\n{text}"
        return tuple(_NUMBER.findall(whole)), query_terms.terms_in(whole), hidden or _harmless(whole)[1]

    duplicates: dict[int, list[str]] = {}
    for index, first in enumerate(first_alike([text for _, text, _ in shown], facts)):
        same = duplicates.setdefault(first, [])
        if first != index:
            same.append(ordered[index].passage.id)
    prepared = []
    for index, ids in duplicates.items():
        title, text, hidden = shown[index]
        if title:
            text = f"{title}\n{excerpt(query_terms, text, tokens - tokens_of(title) - 1)}"
        else:
            text = excerpt(query_terms, text, tokens)
        text, suspicious = _harmless(text)
        flags = (SUSPECTED_INJECTION,) if hidden or suspicious else ()
        candidate = ordered[index]
        prepared.append(
            Ranked(id=candidate.passage.id, prior=candidate.score, text=text, duplicates=tuple(ids), flags=flags)
        )
    return prepared


@lru_cache(maxsize=_CACHED)
def _visible(title: str, text: str) -> tuple[str, str, bool]:
    """Title and text without invisible characters, and whether these hid letters in the text.

    A title with which the text begins anyway is dropped, a long one is cut between words.
    """
    shown, title = visible(text), " ".join(visible(title).split())
    hidden = shown != text and has_hidden_text(text)
    shown = shown.strip()
    if shown[: len(title)].casefold() == title.casefold():
        return "", shown, hidden
    if tokens_of(title) > TITLE_TOKENS:
        title = title.encode("utf-8", "replace")[: TITLE_TOKENS * BYTES_PER_TOKEN].decode("utf-8", "ignore")
        title = title.rpartition(" ")[0] or title
    return title, shown, hidden


@lru_cache(maxsize=_CACHED)
def _harmless(text: str) -> tuple[str, bool]:
    """The text with control tokens broken up, and whether it looks like an injection."""
    return break_up(text), shows_injection(text)
