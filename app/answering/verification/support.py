"""Does a cited sentence support the claim? Numbers, dates and names are compared. Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import groupby

import msgspec

from app.answering.verification.numbers import claimed_counts, claimed_figures, is_month, quoted_readings
from app.answering.verification.tables import verbs
from app.text.languages import detect_language
from app.text.stopwords import function_words
from app.text.terms import content_terms, fold, terms

Name = tuple[str, ...]
"""Its words, folded."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[^\W\d_{_CJK}](?:[^\W{_CJK}]|[.'’](?=[^\W{_CJK}]))*")
_KATAKANA = re.compile(r"[ァ-ヺー]{3,}(?:・[ァ-ヺー]+)*")
_TITLE = re.compile(r"[《『「“]([^《》『』「」“”]{2,30})[》』」”]")
_UNSPACED = re.compile(f"[{_CJK}]")
_POSSESSIVE = re.compile(r"['’]s?$")
_BEGINS = frozenset(':“"«„‘(–—•')
_AFTER_LATIN = "\u0370"
_LEAST_PREFIX = 4
_LONGEST_ACRONYM = 6


class Quoted:
    """The words of quotations, to look names up in."""

    def __init__(self, text: str) -> None:
        self.text = fold(text)
        self.words = frozenset(_POSSESSIVE.sub("", word) for word in _WORD.findall(self.text))
        self._initials = "".join(word[0] for word in _WORD.findall(text) if word[0].isupper()).lower()
        scripts = Counter(map(_script, filter(str.isalpha, self.text)))
        self._script = max(scripts, key=lambda script: scripts[script], default="")
        self._by_prefix: dict[str, list[str]] = {}
        for word in self.words:
            self._by_prefix.setdefault(word[:_LEAST_PREFIX], []).append(word)

    def shares_script(self, name: Name) -> bool:
        """Whether the name would be spelled alike here: 北京 is not to be found in a text of Latin letters."""
        return _script(name[0][0]) == self._script

    def holds(self, name: Name) -> bool:
        """All of its words in some form, or its acronym, or what it is the acronym of."""
        if all(map(self._has, name)):
            return True
        if "".join(name) in self.words:  # AppleTalk, Apple Talk
            return True
        if len(name) > 1:
            return "".join(word[0] for word in name) in self.words
        return 1 < len(name[0]) <= _LONGEST_ACRONYM and name[0] in self._initials

    def _has(self, word: str) -> bool:
        if word in self.words:
            return True
        if _UNSPACED.search(word):
            return word in self.text
        return any(_akin(word, other) for other in self._by_prefix.get(word[:_LEAST_PREFIX], ()))


def claimed_names(claim: str, language: str) -> list[Name]:
    """The names that a claim states, each once."""
    found: list[Name] = [(fold(match.group()),) for match in _KATAKANA.finditer(claim)]
    if _UNSPACED.search(claim):
        found += [(fold(title),) for title in _TITLE.findall(claim) if _UNSPACED.search(title)]
    for run in _runs(claim):
        found += _named(run, language)
    return list(dict.fromkeys(found))


def opening_name(claim: str, language: str) -> Name | None:
    """What may be a name because the sentence begins with it, singular and without an article: "Rollo was …"."""
    first = _opening().match(claim)
    if not first or language == "de" or fold(first[1]) in _all_function_words() or is_month(first[1]):
        return None
    return None if first[1].endswith("s") or not first[1][0].isupper() else (fold(first[1]),)


def _named(run: list[tuple[str, bool]], language: str) -> list[Name]:
    """`run`: capitalised words in a row, and whether a sentence may begin with the word."""
    words = [(word, begins) for word, begins in run if not is_month(word)]
    acronyms: list[Name] = [(fold(word),) for word, _ in words if _is_acronym(word)]
    if words and words[0][1] and (len(words) == 1 or fold(words[0][0]) in _all_function_words()):
        words = words[1:]
    if language == "de" and len(words) < 2:
        return acronyms
    name = tuple(fold(word) for word, _ in words)
    return [name] if name else acronyms


def _runs(claim: str) -> list[list[tuple[str, bool]]]:
    """Capitalised words that only white space and hyphens part."""
    marked: list[tuple[bool, int, str, bool]] = []
    number, end = 0, 0
    for match in _WORD.finditer(claim):
        between = claim[end : match.start()]
        begins = not _BEGINS.isdisjoint(between) or not (marked or any(map(str.isalnum, between)))
        word = _POSSESSIVE.sub("", match.group())
        capital = word[0].isupper() and (begins or fold(word) not in _all_function_words())
        number += bool(between.strip(" -‐‑\u00a0") or begins)
        marked.append((capital, number, word, begins))
        end = match.end()
    groups = groupby(marked, key=lambda each: (each[0], each[1]))
    return [[(word, begins) for _, _, word, begins in group] for (capital, _), group in groups if capital]


def _is_acronym(word: str) -> bool:
    return sum(map(str.isupper, word)) > 1 and len(word) <= _LONGEST_ACRONYM


def _script(letter: str) -> str:
    return "unspaced" if _UNSPACED.match(letter) else "Latin" if letter < _AFTER_LATIN else "other"


def _akin(word: str, other: str) -> bool:
    """Germany and German, Italy and Italian, Rome's and Rome; not Austria and Australia."""
    shorter = min(len(word), len(other))
    same = next((at for at in range(shorter) if word[at] != other[at]), shorter)
    return same >= max(_LEAST_PREFIX, shorter - 1)


@cache
def _opening() -> re.Pattern[str]:
    return re.compile(rf"""["“«*_]*([^\W\d_]{{3,}}) (?:{verbs()}|[a-z]+(?:ed|s))\b""")


@cache
def _all_function_words() -> frozenset[str]:
    return frozenset().union(*function_words().values())


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
    if not {language, other} <= function_words().keys():
        return True
    return _leans(claim, language, other) and _leans(quotes, other, language)


def _leans(text: str, one: str, other: str) -> bool:
    words, ones, others = fold(text).split(), function_words()[one], function_words()[other]
    return sum(word in ones for word in words) > sum(word in others for word in words)
