"""Closed word classes by language, from stopwords.toml: function and question words, references back, attributes.

Keys are ISO 639-1 codes. Words are folded as `app.text.terms.fold` does it.
"""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

AnswerType = Literal["quantity", "time", "name"]


@cache
def function_words() -> dict[str, frozenset[str]]:
    """Words that carry no content, of languages that put spaces between words."""
    return {language: frozenset(words.split()) for language, words in _tables()["function_words"].items()}


@cache
def function_strings() -> dict[str, tuple[str, ...]]:
    """The same for languages without spaces: matched anywhere in a text, in this order."""
    return {language: tuple(strings.split()) for language, strings in _tables()["function_strings"].items()}


@cache
def greetings() -> dict[str, frozenset[str]]:
    """Short greetings that belong to one language only."""
    return {language: frozenset(words.split()) for language, words in _tables()["greetings"].items()}


@cache
def answer_types() -> tuple[tuple[AnswerType, re.Pattern[str]], ...]:
    """Patterns of the words that ask for each type, in the order to try them; for case-folded questions."""
    table = _tables()["answer_types"]
    measures = "|".join(table["measures"].split())
    return tuple(
        (kind, re.compile("|".join(table[kind]).replace("<measure>", measures))) for kind in get_args(AnswerType)
    )


def attributes_asked(folded: str) -> frozenset[str]:
    """The attributes ("cost", "height") that a folded question asks for, and for nothing else."""
    return frozenset(name for name, patterns in _attributes().items() if patterns.asks.search(folded))


def attributes_named(folded: str) -> frozenset[str]:
    """The attributes that a folded text names by their words."""
    return frozenset(name for name, patterns in _attributes().items() if patterns.words.search(folded))


def attributes_told(folded: str) -> frozenset[str]:
    """The attributes that a folded text names, or gives in their units."""
    return frozenset(
        name
        for name, patterns in _attributes().items()
        if patterns.words.search(folded) or patterns.units.search(folded)
    )


def attribute_words(folded: str) -> str:
    """What of a folded text names attributes."""
    return " ".join(match[0] for patterns in _attributes().values() for match in patterns.words.finditer(folded))


def asks_permission(folded: str) -> bool:
    """Whether a folded question asks if something may be: "Are snakes allowed?"."""
    return bool(_permission()["asks"].search(folded))


def tells_permission(folded: str) -> bool:
    """Whether a folded sentence says that something may be, or may not."""
    return bool(_permission()["tells"].search(folded))


@cache
def _permission() -> dict[str, re.Pattern[str]]:
    return {key: re.compile("|".join(patterns)) for key, patterns in _tables()["permission"].items()}


class _Attribute(NamedTuple):
    words: re.Pattern[str]
    units: re.Pattern[str]
    asks: re.Pattern[str]


@cache
def _attributes() -> dict[str, _Attribute]:
    """A pattern without alternatives matches nothing."""
    tables = _tables()["attributes"].items()
    return {
        name: _Attribute(*(re.compile("|".join(table[key]) or "(?!)") for key in _Attribute._fields))
        for name, table in tables
    }


@cache
def references_back() -> re.Pattern[str]:
    """Matches words that refer to an earlier turn; for folded questions."""
    return re.compile("|".join(_tables()["references_back"]["patterns"]))


@cache
def names_another() -> re.Pattern[str]:
    """Matches questions that ask the same of another thing; for folded questions."""
    return re.compile("|".join(_tables()["references_back"]["another"]))


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("stopwords.toml").read_text("utf-8"))
