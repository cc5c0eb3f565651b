"""Documents that differ in a number or a code, and questions that name it, in English, German and Chinese.

Codes come in families of near neighbours: the next number, two digits swapped, one digit changed. A question may spell
a code otherwise than its document does (1,234.50 and 1.234,50, AB-1234 and AB 1234, an ISBN without hyphens). The same
seed gives the same set.
"""

import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

LANGUAGES = ("en", "de", "zh")
_TEMPLATES = Path(__file__).with_name("numbers_corpus.toml")
_FAMILIES = 10

Digits = tuple[int, ...]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A document, the question about it, its code as the question spells it, and the answer."""

    id: str
    kind: str
    language: str
    text: str
    code: str
    question: str
    answer: str


class NumberSet(msgspec.Struct, frozen=True):
    """`items` have a document; `absent` have none, so that nothing answers them."""

    items: list[Item]
    absent: list[Item]


def make_set(seed: int = 7) -> NumberSet:
    """Some 27 documents of each of nine kinds in each of three languages, and 4 questions about codes that none has."""
    templates = tomllib.loads(_TEMPLATES.read_text(encoding="utf-8"))
    dice = random.Random(seed)
    items: list[Item] = []
    absent: list[Item] = []
    for kind, by_language in templates["kinds"].items():
        for language in LANGUAGES:
            digits = list(dict.fromkeys(digits for _ in range(_FAMILIES) for digits in _family(kind, dice)))
            made = [
                _item(kind, language, by_language[language], templates["answers"][language], number, dice)
                for number in digits
            ]
            missing = dice.sample(range(len(made)), 4)
            items += [item for place, item in enumerate(made) if place not in missing]
            absent += [made[place] for place in sorted(missing)]
    return NumberSet(items, absent)


def _item(
    kind: str, language: str, template: dict[str, str], answers: list[str], digits: Digits, dice: random.Random
) -> Item:
    written, asked = _SPELLINGS[kind](digits, language, dice)
    answer = dice.choice(answers)
    fields = {"answer": answer, "extra": dice.randint(3, 90)}
    return Item(
        id=f"{kind}-{language}-{'-'.join(map(str, digits))}",
        kind=kind,
        language=language,
        text=template["text"].format(code=written, **fields),
        code=asked,
        question=template["question"].format(code=asked, **fields),
        answer=answer,
    )


_SHAPES: dict[str, tuple[tuple[int, int], ...]] = {
    "invoice": ((1000, 9999),),
    "part": ((10, 99), (1000, 9999), (1, 9)),
    "error": ((1000, 9999),),
    "version": ((1, 9), (1, 19), (0, 30)),
    "paragraph": ((100, 999),),
    "date": ((2015, 2025), (1, 12), (1, 28)),
    "price": ((1000, 99999), (10, 99)),
    "isbn": ((10, 99), (100000, 999999), (0, 9)),
    "address": ((10, 10), (1, 250), (1, 250), (1, 250)),
}
"""The numbers that a code of each kind is made of, each within bounds."""


def _family(kind: str, dice: random.Random) -> Iterator[Digits]:
    """One code and its near neighbours, all of the kind's shape."""
    shape = _SHAPES[kind]
    first = tuple(dice.randint(low, high) for low, high in shape)
    yield first
    for _ in range(3):
        place = max(range(len(shape)), key=lambda place: (shape[place][1] - shape[place][0]) * dice.uniform(0.2, 1))
        low, high = shape[place]
        changed = _neighbour(first[place], dice)
        if low <= changed <= high:
            yield (*first[:place], changed, *first[place + 1 :])


def _neighbour(number: int, dice: random.Random) -> int:
    text = list(str(number))
    way = dice.choice(("next", "swap", "change"))
    if way == "swap" and len(text) > 1:
        at = dice.randrange(len(text) - 1)
        text[at], text[at + 1] = text[at + 1], text[at]
        return int("".join(text))
    if way == "change":
        text[dice.randrange(len(text))] = str(dice.randrange(10))
        return int("".join(text))
    return number + 1


Spelling = Callable[[Digits, str, random.Random], tuple[str, str]]
"""(numbers, language, dice) -> the code as the document writes it, and as the question does."""


def _same(pattern: str) -> Spelling:
    def spell(digits: Digits, language: str, dice: random.Random) -> tuple[str, str]:
        written = pattern.format(*digits)
        return written, written

    return spell


def _either(*patterns: str) -> Spelling:
    """Document and question choose a pattern each."""

    def spell(digits: Digits, language: str, dice: random.Random) -> tuple[str, str]:
        return dice.choice(patterns).format(*digits), dice.choice(patterns).format(*digits)

    return spell


def _paragraph(digits: Digits, language: str, dice: random.Random) -> tuple[str, str]:
    written = {"en": "Section {}", "de": "§ {}", "zh": "第{}条"}[language].format(*digits)
    return written, {"de": f"§{digits[0]}"}.get(language, written)


def _date(digits: Digits, language: str, dice: random.Random) -> tuple[str, str]:
    year, month, day = digits
    iso = f"{year}-{month:02}-{day:02}"
    local = {
        "en": f"{day} {_MONTHS[month - 1]} {year}",
        "de": f"{day:02}.{month:02}.{year}",
        "zh": f"{year}年{month}月{day}日",
    }[language]
    written = dice.choice((iso, local))
    return written, written


def _price(digits: Digits, language: str, dice: random.Random) -> tuple[str, str]:
    english = f"{digits[0]:,}.{digits[1]:02}"
    german = english.translate(str.maketrans(",.", ".,"))
    written = german if language == "de" else english
    return written, dice.choice((english, german, f"{digits[0]}.{digits[1]:02}"))


_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

_SPELLINGS: dict[str, Spelling] = {
    "invoice": _same("{}"),
    "part": _either("AB-{0}{1}/{2}", "ab-{0}{1}/{2}", "AB{0}{1}/{2}", "AB {0}{1}/{2}"),
    "error": _either("E-{}", "E{}", "e-{}"),
    "version": _either("{}.{}.{}", "v{}.{}.{}"),
    "paragraph": _paragraph,
    "date": _date,
    "price": _price,
    "isbn": _either("978-3-{}-{}-{}", "9783{}{}{}"),
    "address": _same("{}.{}.{}.{}"),
}
