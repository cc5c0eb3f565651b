"""From what markers name to spans of the passages. Pure."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from app.answering.markers import Ref
from app.answering.models import Source
from app.text.languages import detect_language
from app.text.terms import content_terms, terms
from indexing.documents import Span

_WIDEST = 3
"""Sentences that a marker without a sentence number stands for, at most, in a passage that has more than that."""
_PRICE = 0.15
"""What one more sentence must add, as a share of the claim's terms."""


class Resolver:
    """Knows the passages by their numbers, and counts what they do not have in `unknown`."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = {source.number: source for source in sources if source.sentences}
        self._terms: dict[int, list[frozenset[str]]] = {}
        self.unknown = 0

    def resolve(self, refs: Iterable[Ref], claim: str) -> list[tuple[Source, Span]]:
        """The spans that `refs` name together, neighbouring sentences as one, in the order of their passages' mention.

        A passage without a sentence number stands for those of its sentences that are closest to `claim`.
        """
        named: dict[int, set[int]] = {}
        for ref in refs:
            if places := self._places(ref, claim):
                named.setdefault(ref.passage, set()).update(places)
        return [
            (self._sources[number], Span(sentences[run[0]].start, sentences[run[-1]].end))
            for number, places in named.items()
            for sentences in (self._sources[number].sentences,)
            for run in _runs(sorted(places))
        ]

    def _places(self, ref: Ref, claim: str) -> range:
        """Places in the passage's tuple of sentences."""
        source = self._sources.get(ref.passage)
        count = len(source.sentences) if source else 0
        if not source or max(ref.first, ref.last) > count:
            self.unknown += 1
        if not source or ref.first > count:
            return range(0)
        return range(ref.first - 1, min(ref.last, count)) if ref.first else self._closest(source, claim)

    def _closest(self, source: Source, claim: str) -> range:
        """The run of sentences that shares most with the claim; the whole passage if that is short, or none does."""
        count = len(source.sentences)
        wanted, offered = frozenset(content_terms(claim, detect_language(claim))), self._offered(source)
        if count <= 1 or not any(wanted & some for some in offered):
            return range(count)
        runs = [range(at, at + width) for width in range(1, _WIDEST + 1) for at in range(count - width + 1)]
        return max(runs, key=lambda run: _gain(wanted, [offered[place] for place in run]))

    def _offered(self, source: Source) -> list[frozenset[str]]:
        if source.number not in self._terms:
            text = source.hit.text or ""
            self._terms[source.number] = [terms(text[span.start : span.end]) for span in source.sentences]
        return self._terms[source.number]


def _gain(wanted: frozenset[str], offered: Sequence[frozenset[str]]) -> float:
    shared = len(wanted & frozenset().union(*offered))
    return shared - _PRICE * len(wanted) * (len(offered) - 1)


def _runs(places: Sequence[int]) -> list[Sequence[int]]:
    """Rising numbers, cut where one is left out."""
    cuts = [0, *(at for at, (one, two) in enumerate(pairwise(places), start=1) if two > one + 1), len(places)]
    return [places[start:end] for start, end in pairwise(cuts)]
