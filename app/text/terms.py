"""The words of a text, made comparable, in any script. Pure."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

from app.text.stopwords import function_strings, function_words
from indexing.retrieval.codes import INVISIBLE

STEM_LENGTH = 5
"""Words are cut to this length. Truncation at 5 letters does as well as stemmers over European languages (McNamee and
Mayfield, "Character n-gram tokenization for European language text retrieval", 2004) and needs no language. It leaves
the endings of short words, of which the most frequent, -s, is taken off first: "last" and "lasts" are one."""
_SHORT = 3
_COMPOUND = 9
"""Words of this length may be compounds; what they are made of begins at `_SHORT` letters into them at the earliest."""
_REMEMBERED, LONGEST_REMEMBERED = 8_192, 40
"""Words whose terms are kept, and their letters at most; a text repeats its own, and a question compares many texts.
Some 10 MB: a word has as many parts as letters, of 100 bytes each.
"""

# Scripts written without spaces; Hangul, whose particles stick to the word; Indic ones, whose vowel signs are not
# letters to `re`. All are compared by pairs of characters.
_UNSPACED = (
    "\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
)
_ACCENT = re.compile(r"[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670]")
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_LETTER = rf"[^\W_{_UNSPACED}]"
# A soft hyphen is in the word that it may divide.
_WORD = re.compile(rf"[{_UNSPACED}]+|{_LETTER}+(?:[{INVISIBLE}]+{_LETTER}+)*")
_ASCII_WORD = re.compile(r"[0-9a-z]+")
_UNSPACED_RUN = re.compile(rf"[{_UNSPACED}]+")


def fold(text: str) -> str:
    """Lower case, compatibility forms unified; accents, vowel points and characters without a width gone."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", _INVISIBLE.sub("", text)).casefold())
    return unicodedata.normalize("NFC", _ACCENT.sub("", decomposed))


def terms(text: str) -> frozenset[str]:
    """Everything in a text that can be matched: stems, numbers, characters and character pairs of unspaced scripts.

    A long word adds its inner parts, marked with "~".
    """
    folded = fold(text)
    if folded.isascii():
        return frozenset().union(*map(_spaced_terms, set(_ASCII_WORD.findall(folded))))
    result: set[str] = set()
    for word in set(_WORD.findall(folded)):
        if _UNSPACED_RUN.match(word):
            result.update(word)
            result.update(_pairs(word))
        else:
            result |= _spaced_terms(word)
    return frozenset(result)


def _spaced_terms(word: str) -> frozenset[str]:
    return remembered_terms(word) if len(word) <= LONGEST_REMEMBERED else _found_terms(word)


def _found_terms(word: str) -> frozenset[str]:
    return frozenset((_stem(word), *(f"~{part}" for part in _parts(word))))


remembered_terms = lru_cache(_REMEMBERED)(_found_terms)
"""Of a word that is not unspaced."""


def content_terms(question: str, language: str) -> dict[str, tuple[frozenset[str], ...]]:
    """The terms of a question without function and question words; empty if it has only those.

    With each term come alternatives, any of which nearly stands for it: both characters of a pair, a compound that
    contains the word, a part of the word if it is a compound.
    """
    folded = fold(question)
    for string in function_strings().get(language, ()):
        folded = folded.replace(string, " ")
    skipped = function_words().get(language, frozenset())
    result: dict[str, tuple[frozenset[str], ...]] = {}
    for word in _WORD.findall(folded):
        if _UNSPACED_RUN.match(word):
            result.update({pair: (frozenset(pair),) for pair in _pairs(word) or (word,)})
        elif word not in skipped:
            stem = _stem(word)
            kin = (*_parts(word), f"~{stem}") if len(stem) == STEM_LENGTH else ()
            result[stem] = tuple(frozenset((term,)) for term in kin)
    return result


def occurrences(text: str, query_terms: Collection[str]) -> Iterator[tuple[int, int]]:
    """Where the text has words with one of the terms: [start, end), in order, without overlap."""
    for match in _WORD.finditer(text):
        word, start = match[0], match.start()
        if not _UNSPACED_RUN.match(word):
            if not terms(word).isdisjoint(query_terms):
                yield match.span()
            continue
        hits = [at for at in range(len(word)) if fold(word[at : at + 2]) in query_terms]
        covered = sorted({at + step for at in hits for step in (0, 1) if at + step < len(word)})
        yield from ((start + run[0], start + run[-1] + 1) for run in _runs(covered))


def _runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Split rising numbers where one is missing."""
    run: list[int] = []
    for number in numbers:
        if run and number > run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _stem(word: str) -> str:
    if word.isdigit():
        return word
    bare = word[:-1] if len(word) > _SHORT and word.endswith("s") else word
    return bare[:STEM_LENGTH]


def _parts(word: str) -> list[str]:
    """Whatever could be the stem of a word inside a compound."""
    if len(word) < _COMPOUND or word.isdigit():
        return []
    return [word[start : start + STEM_LENGTH] for start in range(_SHORT, len(word) - STEM_LENGTH + 1)]


def _pairs(run: str) -> list[str]:
    return [run[position : position + 2] for position in range(len(run) - 1)]
