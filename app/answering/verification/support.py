"""Whether quotations support a claim, as far as that can be told by what both hold. Pure.

A claim is supported when all of its numbers and dates stand in its quotations together, and all of its names there or
in their context (title, headings, what comes before in the passage: "he" is somebody); and when they share enough of
its words. Of quotations in another language only the figures, and one of several names in the same script, are asked
for. When all of that is there, every quotation that contributes to it is verified; otherwise none is.

It is a check of form: a sentence that is made of the right words in the wrong order passes it.
"""

from collections.abc import Sequence

import msgspec

from app.answering.verification.names import Quoted, claimed_names, opening_name
from app.answering.verification.numbers import claimed_counts, claimed_figures, quoted_readings
from app.text.languages import detect_language
from app.text.stopwords import FUNCTION_WORDS
from app.text.terms import content_terms, fold, terms

LEAST_SHARED = 0.3
"""The share of a claim's content words that its quotations must hold. `benchmarks/support.py` on squad2_dev: 0.15, 0.3
and 0.4 verify 94.5, 93.1 and 90.7 % of the true claims, and reject 70, 87 and 93 % of those citing a neighbour."""

LONGEST = 2_000
"""Characters of a claim that is checked; what goes on for longer without an end is no sentence."""

_SEVERAL = 2


class Evidence(msgspec.Struct, frozen=True):
    """A quotation, and its context: title, headings, what comes before it."""

    quote: str
    context: str = ""


def verify(claim: str, evidence: Sequence[Evidence]) -> tuple[bool, ...]:
    """For each piece of evidence, whether it helps to support the claim, which all of them together do."""
    if not evidence or len(claim) > LONGEST:
        return (False,) * len(evidence)
    reading = _Reading(claim, evidence)
    if not reading.is_covered():
        return (False,) * len(evidence)
    return (True,) if len(evidence) == 1 else tuple(reading.takes_from(one.quote) for one in evidence)


class _Reading:
    """What a claim needs, and which of it its quotations hold."""

    def __init__(self, claim: str, evidence: Sequence[Evidence]) -> None:
        language = detect_language(claim)
        self._claim = claim
        self._quotes = "\n".join(one.quote for one in evidence)
        self._foreign = _are_foreign(claim, language, self._quotes)
        self._figures, self._counts = claimed_figures(claim), claimed_counts(claim, language)
        self._opening = opening_name(claim, language)
        self._terms = content_terms(claim, language)
        self._quoted = Quoted("\n".join((self._quotes, *(one.context for one in evidence))))
        names = claimed_names(claim, language)
        self._names = [name for name in names if not self._foreign or self._quoted.shares_script(name)]

    def is_covered(self) -> bool:
        """Whether all quotations together hold what it needs."""
        return self._figures_hold() and self._names_hold() and self._opening_holds() and self._words_hold()

    def takes_from(self, quote: str) -> bool:
        """Whether one quotation holds any of it."""
        readings, quoted, offered = quoted_readings(quote), Quoted(quote), terms(quote)
        needs = (*self._figures, *self._counts, *self._names)
        return (
            any(figure & readings for figure in (*self._figures, *self._counts))
            or any(map(quoted.holds, self._names))
            or not offered.isdisjoint(self._terms)
            or (self._foreign and not needs)
        )

    def _figures_hold(self) -> bool:
        """A count may be that of a list, where the quotation has no numbers at all."""
        readings = quoted_readings(self._quotes)
        needed = [*self._figures, *(self._counts if readings else ())]
        return all(figure & readings for figure in needed)

    def _names_hold(self) -> bool:
        """Another language spells most names otherwise: there one of several is enough."""
        held = list(map(self._quoted.holds, self._names))
        return any(held) or len(held) < _SEVERAL if self._foreign else all(held)

    def _opening_holds(self) -> bool:
        """What may be a name is one that was mistaken if the quotation names somebody else instead."""
        if not self._opening or self._foreign or self._quoted.holds(self._opening):
            return True
        claim = Quoted(self._claim)
        return all(map(claim.holds, claimed_names(self._quotes, detect_language(self._quotes))))

    def _words_hold(self) -> bool:
        if self._foreign or not self._terms:
            return True
        offered = terms(self._quotes)
        shared = sum(term in offered or any(kin <= offered for kin in kins) for term, kins in self._terms.items())
        return shared >= LEAST_SHARED * len(self._terms)


def _are_foreign(claim: str, language: str, quotes: str) -> bool:
    """Whether the two are in different languages. Short texts are easily misread: their function words must agree."""
    other = detect_language(quotes)
    if other == language:
        return False
    if not {language, other} <= FUNCTION_WORDS.keys():
        return True
    return _leans(claim, language, other) and _leans(quotes, other, language)


def _leans(text: str, one: str, other: str) -> bool:
    words = fold(text).split()
    return sum(word in FUNCTION_WORDS[one] for word in words) > sum(word in FUNCTION_WORDS[other] for word in words)
