"""Prepares candidates for a model: folds near-duplicates, cuts long texts, flags suspected attacks. Pure."""

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from heapq import heapify, heappop, heappush
from itertools import chain, groupby, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from ahocorasick_rs import AhoCorasick

from app.backends.base import BYTES_PER_TOKEN, tokens_of
from app.ranking.injection.detector import SUSPECTED_INJECTION, hides, tells
from app.ranking.models import Candidate, Prepared
from app.text.fencing import break_up, visible
from app.text.terms import STEM_LENGTH, fold, terms

_MOST_TERMS = 32
"""Of a long query the longest terms are looked for."""

_AGAIN = 0.5
"""What a term counts in a sentence, for each sentence with it that is shown already."""

_BESIDE = 0.3
"""What a sentence gets of each neighbour's terms: an answer often stands beside what the question repeats."""

_GAP = " … "
_GAP_BYTES = len(_GAP.encode())

_SENTENCE_END = re.compile(r"[.!?…؟।][\"'”’»)\]]*\s+|[。！？][」』”]*\s*|\n\s*")

Mention = tuple[int, int]
"""A place in a text, and the index of the query's term there. A plain tuple: a long passage has a hundred."""


class Search:
    """Where texts speak about a query. Words are compared by their stems, unspaced scripts by characters and pairs.

    A text is searched for itself alone, so that what is shown of it does not depend on other texts.
    """

    def __init__(self, query: str) -> None:
        self.terms = _looked_for(query)
        self.weights = [_weight(term) for term in self.terms]
        self._inside = [_stands_inside(term) for term in self.terms]
        self._finder = AhoCorasick(self.terms)

    def mentions(self, text: str) -> list[Mention]:
        """By place. Places are about right: folding may change a text's length a little."""
        folded = fold(text)
        scale = len(text) / len(folded) if folded else 1.0
        return [
            (int(start * scale), term)
            for term, start, _ in self._finder.find_matches_as_indexes(folded, overlapping=True)
            if self._inside[term] or start == 0 or not folded[start - 1].isalnum()
        ]

    def known(self, text: str) -> frozenset[int]:
        """The terms that the text holds."""
        return frozenset(term for _, term in self.mentions(text))


def _looked_for(query: str) -> list[str]:
    found = {term for term in terms(query) if not term.startswith("~")}
    paired = {letter for term in found if len(term) == 2 and _stands_inside(term) for letter in term}
    return sorted(found - paired, key=lambda term: (-len(term), term))[:_MOST_TERMS]


def _stands_inside(term: str) -> bool:
    """Whether its script has no spaces: letters without case."""
    return not term[0].isdigit() and term.lower() == term.upper()


def _weight(term: str) -> float:
    """The longer, the rarer: nearly as good as how few texts hold it, and the same whatever else was found."""
    if _stands_inside(term):
        return STEM_LENGTH**2 if len(term) > 1 else STEM_LENGTH
    return STEM_LENGTH**2 if term.isdigit() else len(term) ** 2


def cut(search: Search, text: str, tokens: int) -> str:
    """The text if it has at most `tokens` (estimated), else as many of its sentences, in their order, with … for gaps.

    One after another, those are taken that say most of the query: each term by its weight, less if it is shown already,
    and a share of what the neighbours say. Among equals the first, so that a text without a mention keeps its head.
    """
    size = tokens_of(text)
    if size <= tokens:
        return text
    sentences = list(_sentences(text, len(text) * tokens // size or 1))
    sizes = [len(text[start:end].encode("utf-8", "replace")) for start, end in sentences]
    shown = _chosen(sizes, _said(sentences, search.mentions(text)), tokens * BYTES_PER_TOKEN, search.weights)
    if not shown:  # a single sentence, in letters of more bytes than the text's others
        return text.encode("utf-8", "replace")[: tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")
    runs = groupby(enumerate(shown), lambda found: found[1] - found[0])
    return _GAP.join("".join(text[slice(*sentences[at])] for _, at in run).strip() for _, run in runs)


def _sentences(text: str, most: int) -> Iterator[tuple[int, int]]:
    """Where they begin and end, one after another; one of more than `most` characters is taken apart between words."""
    ends = (found.end() for found in _SENTENCE_END.finditer(text))
    for start, end in pairwise(chain((0,), ends, (len(text),))):
        while end - start > most:
            space = text.rfind(" ", start + most // 2, start + most) + 1
            yield start, space or start + most
            start = space or start + most
        if start < end:
            yield start, end


def _said(sentences: Sequence[tuple[int, int]], mentions: Sequence[Mention]) -> list[set[int]]:
    """The terms in each sentence."""
    said: list[set[int]] = [set() for _ in sentences]
    at = 0
    for place, term in mentions:
        while place >= sentences[at][1] and at + 1 < len(sentences):
            at += 1
        said[at].add(term)
    return said


def _chosen(sizes: Sequence[int], said: Sequence[set[int]], room: int, weights: Sequence[float]) -> list[int]:
    """Sentences by index. Hopes only fall, so that only the best one need be looked at anew (lazy greedy choice)."""
    worth = list(weights)

    def hope(at: int) -> float:
        near = chain(*said[max(0, at - 1) : at], *said[at + 1 : at + 2])
        return sum(worth[term] for term in said[at]) + _BESIDE * sum(worth[term] for term in near)

    hopes = [(-hope(at), at) for at in range(len(said))]
    heapify(hopes)
    chosen: set[int] = set()
    while hopes:
        _, at = heappop(hopes)
        size = sizes[at] + (_GAP_BYTES if chosen and chosen.isdisjoint((at - 1, at + 1)) else 0)
        if (now := -hope(at)) > (hopes[0][0] if hopes else now):
            heappush(hopes, (now, at))
        elif size <= room:
            room -= size
            chosen.add(at)
            for term in said[at]:
                worth[term] *= _AGAIN
    return sorted(chosen)


NEAR = 0.9
"""Jaccard index from which texts are nearly equal: in a passage of 700 letters, one word may differ."""

_GRAM = 8
_KEPT = 4
_BUCKETS = 16
_SKETCHED = 32
"""Hashes that a text must have for a sketch; a shorter one, of a hundred letters or so, has only equals."""

_MOST_COMPARED = 8
"""Texts made of one template meet often; then only the first few are compared."""

_BASE = 0x9E3779B1
_NONE = np.uint32(0xFFFFFFFF)

Codes = npt.NDArray[np.uint16]
Hashes = npt.NDArray[np.uint32]


def first_alike(texts: Sequence[str], facts: Callable[[int], Hashable]) -> list[int]:
    """For each text the index of the first one that it equals or nearly equals, else its own.

    Texts are equal in their letters and digits, whatever their case. Those whose `facts` differ are never alike. Texts
    hold no NUL characters.
    """
    if not texts:
        return []
    letters, starts, ends = _letters(texts)
    fingerprints = _fingerprints(letters, starts, ends)
    bands = _shared_bands(fingerprints)
    meeting: dict[Hashable, list[int]] = {}
    first = list(range(len(texts)))
    for index in first:
        whole = letters[starts[index] : ends[index]]
        places: list[Hashable] = list(bands[index]) if len(fingerprints[index]) >= _SKETCHED else [whole.tobytes()]
        for other in _met(places, meeting):
            same = np.array_equal(letters[starts[other] : ends[other]], whole)
            if (same or _near(fingerprints[other], fingerprints[index])) and facts(other) == facts(index):
                first[index] = other
                break
        else:
            for place in places:
                meeting.setdefault(place, []).append(index)
    return first


def _letters(texts: Sequence[str]) -> tuple[Codes, list[int], list[int]]:
    """The UTF-16 codes that count, of all texts one after another, and where each text's begin and end."""
    joined = "\0".join(texts).lower() + "\0"
    codes = np.frombuffer(joined.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    kept = codes[_counts()[codes]]
    ends = np.flatnonzero(kept == 0)
    return kept, [0, *(ends[:-1] + 1).tolist()], ends.tolist()


@cache
def _counts() -> npt.NDArray[np.bool_]:
    """Whether a code counts: no punctuation, separators, controls; but NUL between texts, and surrogates."""
    kinds = (unicodedata.category(chr(code)) for code in range(1, 0x10000))
    return np.array([True, *(kind == "Cs" or kind[0] not in "PZC" for kind in kinds)])


def _fingerprints(letters: Codes, starts: list[int], ends: list[int]) -> list[Hashes]:
    hashes, base = letters.astype(np.uint32), _BASE
    for width in (1, 2, 4):
        hashes = hashes[:-width] * np.uint32(base) + hashes[width:]
        base = base * base & 0xFFFFFFFF
    hashes = (hashes ^ (hashes >> np.uint32(15))) * np.uint32(_BASE)
    hashes ^= hashes >> np.uint32(13)
    at = np.flatnonzero((hashes & np.uint32(_KEPT - 1)) == 0)
    kept = hashes[at]
    lows = np.searchsorted(at, starts).tolist()
    highs = np.searchsorted(at, np.array(ends) - _GRAM + 1).tolist()
    return [kept[low : max(low, high)] for low, high in zip(lows, highs, strict=True)]


def _shared_bands(fingerprints: list[Hashes]) -> list[list[int]]:
    """For each text the pairs of neighbouring values of its sketch that another one has as well."""
    sketches = np.full(len(fingerprints) * _BUCKETS, _NONE)
    hashes = np.concatenate(fingerprints)
    rows = np.repeat(np.arange(len(fingerprints)), [len(kept) for kept in fingerprints])
    np.minimum.at(sketches, rows * _BUCKETS + (hashes >> np.uint32(28)), hashes)
    pairs = sketches.reshape(-1, 2).astype(np.uint64)
    # A value's upper bits tell its bucket, so that pairs of different places differ.
    _, which, counts = np.unique(pairs[:, 0] << np.uint64(32) | pairs[:, 1], return_inverse=True, return_counts=True)
    shared: list[list[int]] = [[] for _ in fingerprints]
    for place in np.flatnonzero((counts[which] > 1) & (pairs != _NONE).all(axis=1)).tolist():
        shared[place // (_BUCKETS // 2)].append(int(which[place]))
    return shared


def _met(bands: Iterable[Hashable], meeting: dict[Hashable, list[int]]) -> list[int]:
    return sorted({other for band in bands for other in meeting.get(band, ())[:_MOST_COMPARED]})[:_MOST_COMPARED]


def _near(one: Hashes, two: Hashes) -> bool:
    first, second = set(one.tolist()), set(two.tolist())
    return len(first & second) >= NEAR * len(first | second)


PASSAGE_TOKENS = 320
"""Of a passage: our own chunks are shorter, so that only passages from elsewhere are cut."""

WINDOW_TOKENS = 256
"""Of a passage in a window of twenty, which is to fit into a context of 8,000."""

TITLE_TOKENS = 24

_REMEMBERED = 2_000
"""Texts that were looked through: popular passages come again with every query that finds them."""

_NUMBER = re.compile(r"\d+")


class _Seen(NamedTuple):
    """A candidate without what nobody sees."""

    candidate: Candidate
    title: str
    text: str
    hidden: bool


def prepare(query: str, candidates: Sequence[Candidate], *, tokens: int = PASSAGE_TOKENS) -> list[Prepared]:
    """One for each text that differs, by prior and then by id; each has at most `tokens` (estimated), title included.

    Texts are twins if they are equal but for case and punctuation, or nearly so, and hold the same numbers and the same
    words of the query, and both or neither are suspicious. The result does not depend on the order of the candidates,
    and what is shown of one does not depend on the others.
    """
    search = Search(query)
    seen = [_seen(candidate) for candidate in sorted(candidates, key=lambda one: (-one.prior, one.id))]
    twins = _twins(seen, search)
    return [
        _prepared(seen[leader], _shown(search, seen[leader], tokens), tuple(seen[twin].candidate.id for twin in others))
        for leader, others in twins.items()
    ]


def _seen(candidate: Candidate) -> _Seen:
    return _Seen(candidate, *_visible(candidate.title, candidate.text))


@lru_cache(maxsize=_REMEMBERED)
def _visible(title: str, text: str) -> tuple[str, str, bool]:
    """Title (none that the text repeats) and text without what nobody sees, and whether letters were hidden there."""
    shown, title = visible(text), " ".join(visible(title).split())
    hidden = shown != text and hides(text)
    shown = shown.strip()
    repeated = shown[: len(title)].casefold() == title.casefold()
    return "" if repeated else _clipped(title), shown, hidden


def _clipped(title: str) -> str:
    if tokens_of(title) <= TITLE_TOKENS:
        return title
    clipped = title.encode("utf-8", "replace")[: TITLE_TOKENS * BYTES_PER_TOKEN].decode("utf-8", "ignore")
    return clipped.rpartition(" ")[0] or clipped


def _twins(seen: Sequence[_Seen], search: Search) -> dict[int, list[int]]:
    """Each leader with its twins, by index."""

    @cache
    def facts(index: int) -> tuple[tuple[str, ...], frozenset[int], bool]:
        whole = f"{seen[index].title}\n{seen[index].text}"
        return tuple(_NUMBER.findall(whole)), search.known(whole), seen[index].hidden or _harmless(whole)[1]

    twins: dict[int, list[int]] = {}
    for index, first in enumerate(first_alike([one.text for one in seen], facts)):
        twins.setdefault(first, [])
        if first != index:
            twins[first].append(index)
    return twins


def _shown(search: Search, seen: _Seen, tokens: int) -> str:
    """Title and text, cut if they must be."""
    if not seen.title:
        return cut(search, seen.text, tokens)
    return f"{seen.title}\n{cut(search, seen.text, tokens - tokens_of(seen.title) - 1)}"


def _prepared(seen: _Seen, shown: str, twins: tuple[str, ...]) -> Prepared:
    candidate = seen.candidate
    text, suspicious = _harmless(shown)
    return Prepared(
        id=candidate.id,
        text=text,
        prior=candidate.prior,
        twins=twins,
        flags=(SUSPECTED_INJECTION,) if seen.hidden or suspicious else (),
    )


@lru_cache(maxsize=_REMEMBERED)
def _harmless(text: str) -> tuple[str, bool]:
    """The text with control tokens broken up, and whether it shows a telltale."""
    return break_up(text), tells(text)
