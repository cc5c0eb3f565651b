"""The word lists of the support checks, from tables.toml: numbers, months, scales, verbs, courtesies.

Words are folded; see `app.text.terms.fold`.
"""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from app.text.terms import fold
from indexing.retrieval.codes import month_numbers


@cache
def number_words(language: str) -> dict[str, int]:
    """The numbers up to twelve; {} for a language that has no list."""
    return dict(_counted(_table("numbers").get(language, "")))


@cache
def all_number_words() -> dict[str, int]:
    """Those of all languages, with English ordinals and tens. Where languages disagree ("once"), English decides."""
    words = {word: number for language in _table("numbers") for word, number in number_words(language).items()}
    more = _table("more_numbers")
    tens = {word: 10 * number for word, number in _counted(more["tens"])}
    return words | dict(_counted(more["ordinals"])) | tens | number_words("en")


@cache
def months() -> dict[str, int]:
    """Names of months in all languages, and their numbers from 1."""
    return {fold(name): number for name, number in month_numbers().items()}


@cache
def ambiguous_months() -> frozenset[str]:
    """Names of months that are ordinary words or names too."""
    return frozenset(_table("ambiguous_months")["words"].split())


@cache
def scales() -> re.Pattern[str]:
    """Matches a word for a power of ten. The name of the group that matched is "p" and the power."""
    # From the highest power down: "mil millones" must not be taken for "mil".
    return re.compile("|".join(f"(?P<p{power}>{words})" for power, words in reversed(_table("scales").items())))


@cache
def verbs() -> str:
    """Verbs that follow the name that a sentence begins with, as alternatives of a pattern; not folded."""
    return "|".join(_table("verbs")["words"].split())


@cache
def courtesies() -> frozenset[str]:
    """Sentences that state nothing, without their punctuation."""
    return frozenset(fold(phrase) for phrases in _table("courtesies").values() for phrase in phrases.split("|"))


@cache
def offers() -> re.Pattern[str]:
    """Matches the beginning of a sentence that offers more help."""
    return re.compile("|".join(_table("offers").values()))


def _table(name: str) -> dict[str, str]:
    return _tables()[name]


@cache
def _tables() -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_name("tables.toml").read_text("utf-8"))


def _counted(words: str) -> Iterator[tuple[str, int]]:
    return ((fold(word), number) for number, word in enumerate(words.split()) if word != "-")
