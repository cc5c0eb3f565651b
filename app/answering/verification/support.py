"""Whether quotations support the sentence that cites them: numbers, dates, names and words are compared. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby

from app.answering.models import Claim
from app.answering.verification.numbers import claimed_counts, claimed_figures, is_month, quoted_readings
from app.answering.verification.tables import verbs
from app.domain import Citation, UnsupportedSpan
from app.text.languages import detect_language
from app.text.stopwords import function_words
from app.text.terms import content_terms, fold, terms

Name = tuple[str, ...]
"""The words of a name, folded."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[^\W\d_{_CJK}](?:[^\W{_CJK}]|[.'’](?=[^\W{_CJK}]))*")
_KATAKANA = re.compile(r"[ァ-ヺー]{3,}(?:・[ァ-ヺー]+)*")
_TITLE = re.compile(r"[《『「“]([^《》『』「」“”]{2,30})[》』」”]")
_UNSPACED = re.compile(f"[{_CJK}]")
_POSSESSIVE = re.compile(r"['’]s?$")
_SENTENCE_OPENERS = frozenset(':“"«„‘(–—•')
_AFTER_LATIN = "\u0370"
_MIN_PREFIX = 4
_MAX_ACRONYM = 6


class NameIndex:
    """The words of a text, to look up names in whatever form it has them."""

    def __init__(self, text: str) -> None:
        self.text = fold(text)
        self.words = frozenset(_POSSESSIVE.sub("", word) for word in _WORD.findall(self.text))
        self._initials = "".join(word[0] for word in _WORD.findall(text) if word[0].isupper()).lower()
        scripts = Counter(map(_script, filter(str.isalpha, self.text)))
        self._script = max(scripts, key=lambda script: scripts[script], default="")
        self._by_prefix: dict[str, list[str]] = {}
        for word in self.words:
            self._by_prefix.setdefault(word[:_MIN_PREFIX], []).append(word)

    def shares_script(self, name: Name) -> bool:
        """Whether the name is in the script of most of the text: 北京 cannot be found in Latin letters."""
        return _script(name[0][0]) == self._script

    def contains(self, name: Name) -> bool:
        """Whether the text has all words of the name in some form, or its acronym, or what it is the acronym of."""
        if all(map(self._has, name)):
            return True
        if "".join(name) in self.words:  # "Apple Talk" for AppleTalk
            return True
        if len(name) > 1:
            return "".join(word[0] for word in name) in self.words
        return 1 < len(name[0]) <= _MAX_ACRONYM and name[0] in self._initials

    def _has(self, word: str) -> bool:
        if word in self.words:
            return True
        if _UNSPACED.search(word):
            return word in self.text
        return any(_same_stem(word, other) for other in self._by_prefix.get(word[:_MIN_PREFIX], ()))


def claimed_names(claim: str, language: str) -> list[Name]:
    """The names in a claim, without repetition: katakana, titles in quotation marks, capitalised words."""
    names: list[Name] = [(fold(match.group()),) for match in _KATAKANA.finditer(claim)]
    if _UNSPACED.search(claim):
        names += [(fold(title),) for title in _TITLE.findall(claim) if _UNSPACED.search(title)]
    for run in _capitalised_runs(claim):
        names += _names_in(run, language)
    return list(dict.fromkeys(names))


def opening_name(claim: str, language: str) -> Name | None:
    """The first word if it may be a name: singular, without an article and before a verb, as in "Rollo was …"."""
    first = _opening().match(claim)
    if not first or language == "de" or fold(first[1]) in _all_function_words() or is_month(first[1]):
        return None
    return None if first[1].endswith("s") or not first[1][0].isupper() else (fold(first[1]),)


def _names_in(run: list[tuple[str, bool]], language: str) -> list[Name]:
    """The names in a run of capitalised words; each comes with whether a sentence may begin with it."""
    words = [(word, begins) for word, begins in run if not is_month(word)]
    acronyms: list[Name] = [
        (fold(word),) for word, _ in words if sum(map(str.isupper, word)) > 1 and len(word) <= _MAX_ACRONYM
    ]
    # A capital at the beginning of a sentence says nothing, unless more of them follow: see `opening_name`.
    if words and words[0][1] and (len(words) == 1 or fold(words[0][0]) in _all_function_words()):
        words = words[1:]
    if language == "de" and len(words) < 2:  # every noun is capitalised
        return acronyms
    name = tuple(fold(word) for word, _ in words)
    return [name] if name else acronyms


def _capitalised_runs(claim: str) -> list[list[tuple[str, bool]]]:
    """Runs of capitalised words with nothing but white space and hyphens between them."""
    marked: list[tuple[bool, int, str, bool]] = []
    number, end = 0, 0
    for match in _WORD.finditer(claim):
        between = claim[end : match.start()]
        # After a colon or an opening quotation mark a sentence begins, too.
        begins = not _SENTENCE_OPENERS.isdisjoint(between) or not (marked or any(map(str.isalnum, between)))
        word = _POSSESSIVE.sub("", match.group())
        capital = word[0].isupper() and (begins or fold(word) not in _all_function_words())
        number += bool(between.strip(" -‐‑\u00a0") or begins)
        marked.append((capital, number, word, begins))
        end = match.end()
    groups = groupby(marked, key=lambda each: (each[0], each[1]))
    return [[(word, begins) for _, _, word, begins in group] for (capital, _), group in groups if capital]


def _script(letter: str) -> str:
    return "unspaced" if _UNSPACED.match(letter) else "Latin" if letter < _AFTER_LATIN else "other"


def _same_stem(word: str, other: str) -> bool:
    """Germany and German, Italy and Italian, Rome's and Rome; but not Austria and Australia."""
    shorter = min(len(word), len(other))
    same = next((at for at in range(shorter) if word[at] != other[at]), shorter)
    return same >= max(_MIN_PREFIX, shorter - 1)


@cache
def _opening() -> re.Pattern[str]:
    return re.compile(rf"""["“«*_]*([^\W\d_]{{3,}}) (?:{verbs()}|[a-z]+(?:ed|s))\b""")


@cache
def _all_function_words() -> frozenset[str]:
    return frozenset().union(*function_words().values())


MIN_SHARED_TERMS = 0.3
"""The share of a claim's content words that its quotations must hold. `benchmarks/support.py` on squad2_dev: 0.15, 0.3
and 0.4 verify 94.5, 93.1 and 90.7 % of the true claims, and reject 70, 87 and 93 % of those that cite a neighbour."""

MAX_CLAIM_LENGTH = 2_000
"""Longer text without an end is no sentence, and is not verified."""

_SEVERAL = 2


def verify(claim: str, quotes: Sequence[str], context: str = "") -> tuple[bool, ...]:
    """For each quotation, whether it helps to support the claim, which all of them must do together.

    Names may also stand in the `context`: title, headings and earlier sentences tell who "he" is.
    """
    if not quotes or len(claim) > MAX_CLAIM_LENGTH:
        return (False,) * len(quotes)
    check = _ClaimCheck(claim, quotes, context)
    if not check.is_supported():
        return (False,) * len(quotes)
    return (True,) if len(quotes) == 1 else tuple(map(check.contributes, quotes))


def unsupported(claims: Iterable[Claim], citations: Sequence[Citation]) -> tuple[UnsupportedSpan, ...]:
    """The statements among `claims` that have no verified citation."""
    return tuple(
        UnsupportedSpan(claim.start, claim.end)
        for claim in claims
        if claim.factual and not any(citations[index].verified for index in claim.citations)
    )


class _ClaimCheck:
    """What a claim needs, and how much of it the quotations hold."""

    def __init__(self, claim: str, quotes: Sequence[str], context: str) -> None:
        language = detect_language(claim)
        self._claim = claim
        self._quotes = "\n".join(quotes)
        self._foreign = _are_foreign(claim, language, self._quotes)
        self._figures, self._counts = claimed_figures(claim), claimed_counts(claim, language)
        self._opening = opening_name(claim, language)
        self._terms = content_terms(claim, language)
        self._index = NameIndex(f"{self._quotes}\n{context}")
        names = claimed_names(claim, language)
        self._names = [name for name in names if not self._foreign or self._index.shares_script(name)]

    def is_supported(self) -> bool:
        """Whether all quotations together hold what the claim needs."""
        return (
            self._figures_are_quoted()
            and self._names_are_quoted()
            and self._opening_is_quoted()
            and self._words_are_quoted()
        )

    def contributes(self, quote: str) -> bool:
        """Whether this quotation alone holds any of what the claim needs."""
        readings, quoted, offered = quoted_readings(quote), NameIndex(quote), terms(quote)
        needs = (*self._figures, *self._counts, *self._names)
        return (
            any(figure & readings for figure in (*self._figures, *self._counts))
            or any(map(quoted.contains, self._names))
            or not offered.isdisjoint(self._terms)
            or (self._foreign and not needs)
        )

    def _figures_are_quoted(self) -> bool:
        """Whether the numbers are quoted. A count may be that of a list, if the quotations have no numbers at all."""
        readings = quoted_readings(self._quotes)
        needed = [*self._figures, *(self._counts if readings else ())]
        return all(figure & readings for figure in needed)

    def _names_are_quoted(self) -> bool:
        """Whether the names are quoted. Another language spells most names differently: one of several is enough."""
        held = list(map(self._index.contains, self._names))
        return any(held) or len(held) < _SEVERAL if self._foreign else all(held)

    def _opening_is_quoted(self) -> bool:
        """Whether the first word is quoted, if it is a name: the quotations name somebody that the claim does not."""
        if not self._opening or self._foreign or self._index.contains(self._opening):
            return True
        claim = NameIndex(self._claim)
        return all(map(claim.contains, claimed_names(self._quotes, detect_language(self._quotes))))

    def _words_are_quoted(self) -> bool:
        if self._foreign or not self._terms:
            return True
        offered = terms(self._quotes)
        shared = sum(term in offered or any(kin <= offered for kin in kins) for term, kins in self._terms.items())
        return shared >= MIN_SHARED_TERMS * len(self._terms)


def _are_foreign(claim: str, language: str, quotes: str) -> bool:
    """Whether claim and quotations are in different languages.

    The language of a short text is easily mistaken, so that the function words of both must agree.
    """
    other = detect_language(quotes)
    if other == language:
        return False
    if not {language, other} <= function_words().keys():
        return True
    return _leans(claim, language, other) and _leans(quotes, other, language)


def _leans(text: str, one: str, other: str) -> bool:
    """Whether the text has more function words of language `one`."""
    words, ones, others = fold(text).split(), function_words()[one], function_words()[other]
    return sum(word in ones for word in words) > sum(word in others for word in words)
