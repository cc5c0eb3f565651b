"""Texts that are (nearly) equal, found without comparing each with each. Pure and deterministic.

Letters and digits alone count. Windows of `_GRAM` of them are hashed, a fixed quarter of the hashes is kept, and the
least of each of `_BUCKETS` ranges of hash values makes a text's sketch (one-permutation hashing: Li, Owen, Zhang, NeurIPS 2012).
Texts with two neighbouring values in common are compared by the Jaccard index of all the hashes that were kept.
"""

import unicodedata
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

NEAR = 0.9
"""Jaccard index from which texts are nearly equal: in a passage of 700 letters, one word may differ."""

_GRAM = 8
_KEPT = 4
_BUCKETS = 16
_MOST_COMPARED = 8
"""Texts made of one template meet often; then only the first few are compared."""

_BASE = np.uint64(0x9E3779B97F4A7C15)
_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)

Codes = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]


def first_alike(texts: Sequence[str], facts: Callable[[int], Hashable]) -> list[int]:
    """For each text the index of the first one that it equals or nearly equals, else its own.

    Texts are equal in their letters and digits, whatever their case. Those whose `facts` differ are never alike. Texts
    hold no NUL characters.
    """
    if not texts:
        return []
    letters, starts, ends = _letters(texts)
    fingerprints = _fingerprints(letters, starts, ends)
    sketches = _sketches(fingerprints)
    equal: dict[bytes, list[int]] = {}
    meeting: dict[Hashable, list[int]] = {}
    first = list(range(len(texts)))
    for index in first:
        whole = letters[starts[index] : ends[index]].tobytes()
        bands = list(_bands(sketches[index]))
        alike = (
            *(other for other in equal.get(whole, ())),
            *(other for other in _met(bands, meeting) if _jaccard(fingerprints[index], fingerprints[other]) >= NEAR),
        )
        same = next((other for other in alike if facts(other) == facts(index)), None)
        if same is not None:
            first[index] = same
            continue
        equal.setdefault(whole, []).append(index)
        for band in bands:
            meeting.setdefault(band, []).append(index)
    return first


def _letters(texts: Sequence[str]) -> tuple[Codes, list[int], list[int]]:
    """The code points that count, of all texts one after another, and where each text's begin and end."""
    joined = "\0".join(texts).lower() + "\0"
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kept = codes[_counts()[np.minimum(codes, 0xFFFF)]]
    ends = np.flatnonzero(kept == 0)
    return kept, [0, *(ends[:-1] + 1).tolist()], ends.tolist()


@cache
def _counts() -> npt.NDArray[np.bool_]:
    """Whether a code point counts: no punctuation, separators, controls; NUL does, for it stands between texts."""
    kinds = (unicodedata.category(chr(code))[0] for code in range(1, 0xFFFF))
    return np.array([True, *(kind not in "PZC" for kind in kinds), True])


def _fingerprints(letters: Codes, starts: list[int], ends: list[int]) -> list[Hashes]:
    hashes, base = letters.astype(np.uint64), _BASE
    for width in (1, 2, 4):
        hashes = hashes[:-width] * base + hashes[width:]
        base = base * base  # wraps, as hashes do
    hashes ^= hashes >> np.uint64(31)
    hashes *= _BASE
    hashes ^= hashes >> np.uint64(29)
    at = np.flatnonzero(hashes % np.uint64(_KEPT) == 0)
    kept = hashes[at]
    lows = np.searchsorted(at, starts).tolist()
    highs = np.searchsorted(at, np.array(ends) - _GRAM + 1).tolist()
    return [kept[low : max(low, high)] for low, high in zip(lows, highs, strict=True)]


def _sketches(fingerprints: list[Hashes]) -> list[list[int]]:
    sketches = np.full(len(fingerprints) * _BUCKETS, _NONE)
    sizes = [len(hashes) for hashes in fingerprints]
    hashes = np.concatenate(fingerprints)
    rows = np.repeat(np.arange(len(fingerprints)), sizes) * _BUCKETS
    np.minimum.at(sketches, rows + (hashes >> np.uint64(60)).astype(np.int64), hashes)
    return sketches.reshape(-1, _BUCKETS).tolist()  # type: ignore[no-any-return]


def _bands(sketch: list[int]) -> Iterator[Hashable]:
    for place in range(0, _BUCKETS, 2):
        one, two = sketch[place : place + 2]
        if one != _NONE and two != _NONE:
            yield place, one, two


def _met(bands: list[Hashable], meeting: dict[Hashable, list[int]]) -> list[int]:
    return sorted({other for band in bands for other in meeting.get(band, ())[:_MOST_COMPARED]})[:_MOST_COMPARED]


def _jaccard(one: Hashes, two: Hashes) -> float:
    if min(len(one), len(two)) < NEAR * max(len(one), len(two)):
        return 0.0  # sets of hashes hardly repeat, so sizes tell; saves the comparison
    first, second = set(one.tolist()), set(two.tolist())
    return len(first & second) / len(first | second)
