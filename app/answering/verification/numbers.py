"""The numbers and dates of a text, made comparable across scripts, formats and languages. Pure.

A figure is the set of its readings, for "1.000" is 1000 or 1, and 03/05 has two months. A reading is a plain decimal
("3.7", "3700000") or a month ("m5"). What is claimed is read strictly and what is quoted generously: "may" is a month
in a quotation, but in a claim only next to a number.
"""

import re
import unicodedata
from collections.abc import Iterator

from app.answering.verification.tables import all_number_words, ambiguous_months, months, number_words, scales
from app.text.terms import fold

Figure = frozenset[str]

_TENS_FROM = 20
_LEAST_COUNT = 3
_GAP = re.compile(r"[\s-]{0,2}")

_DATE = re.compile(r"(?<!\d)(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)")
_DOTTED = re.compile(r"(?<!\d)(\d{1,2})\.(\d{1,2})\.(\d{4}|\d{2})(?!\d)")
_SLASHED = re.compile(r"(?<!\d)(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?!\d)")
_CJK_MONTH = re.compile(r"(\d{1,2})\s?[月월]")
_CJK_DECADE = re.compile(r"(\d{1,2})\s?世[纪紀]\s?(\d0)\s?年代")
_SPAN = re.compile(r"(?<!\d)(\d{2})(\d{2})\s?[-–—/]\s?(\d{2})(?!\d)")
_NUMBER = re.compile(r"(?<!\d)\d{1,3}(?:[ \u202f]\d{3})+(?!\d)|\d+(?:[.,'’]\d+)*")
_WORD = re.compile(r"[^\W\d_]+")
_CJK_NUMBER = re.compile("[〇零一二两三四五六七八九十百]{1,12}")
_CJK_DIGITS = {"〇": 0, "零": 0, "一": 1, "二": 2, "两": 2} | dict(zip("三四五六七八九", range(3, 10), strict=True))
_SEPARATORS = str.maketrans({"٫": ".", "٬": ",", "\u00a0": " ", "’": "'"})


def claimed_figures(text: str) -> list[Figure]:
    """Each number and month of a claim: at least one of its readings must stand in what supports it."""
    plain = _plain(text)
    return [*_dates(plain), *_numbers(_undated(plain)), *_stated_months(plain)]


def claimed_counts(text: str, language: str) -> list[Figure]:
    """Each number of a claim that is written in words, from three on: "one of them", "the two countries"."""
    plain, known = _plain(text), number_words(language)
    stated = ((known.get(found.group(), 0), found.end()) for found in _WORD.finditer(plain))
    return [_scaled(_one(str(number)), plain, end) for number, end in stated if number >= _LEAST_COUNT]


def quoted_readings(text: str) -> frozenset[str]:
    """Every reading of every number and month in a quotation."""
    plain = _plain(text)
    found = [*_dates(plain), *_numbers(_undated(plain)), *_numbers(plain), *_all_words(plain), *_cjk_numbers(plain)]
    found += [frozenset((f"{one}{three}",)) for one, _, three in _SPAN.findall(plain)]  # 1990-95
    return frozenset().union(*found)


def is_month(word: str) -> bool:
    """Whether the word is a month's name in one of our languages."""
    return fold(word) in months()


def _plain(text: str) -> str:
    """Folded, with ASCII digits."""
    text = fold(text.translate(_SEPARATORS))
    if text.isascii():
        return text
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text).translate(_SEPARATORS)
    return _CJK_DECADE.sub(lambda found: f"{int(found[1]) - 1}{found[2]}年代", text)


def _dates(plain: str) -> Iterator[Figure]:
    for year, month, day in _DATE.findall(plain):
        yield from (_one(year), _month(month), _one(day))
    for day, month, year in _DOTTED.findall(plain):
        yield from (_one(year), _month(month), _one(day))
    for one, two, year in _SLASHED.findall(plain):
        yield from (_one(year), _month(one) | _month(two), _one(one) | _one(two))
    yield from (_month(month) for month in _CJK_MONTH.findall(plain))


def _undated(plain: str) -> str:
    for pattern in (_DATE, _DOTTED, _SLASHED, _CJK_MONTH):
        plain = pattern.sub(" ; ", plain)
    return plain


def _numbers(plain: str) -> Iterator[Figure]:
    for found in _NUMBER.finditer(plain):
        readings = _readings(found.group())
        yield _scaled(readings, plain, found.end())


def _readings(digits: str) -> Figure:
    separators = set(re.sub(r"\d", "", digits))
    groups = re.split(r"\D", digits)
    if not separators:
        return _one(digits)
    if len(separators) == 1:
        thousands = len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])
        whole = _one("".join(groups)) if thousands else frozenset[str]()
        decimal = _one(".".join(groups)) if len(groups) == 2 and separators <= {".", ","} else frozenset[str]()
        apart = frozenset[str]().union(*map(_one, groups)) if separators == {" "} else frozenset[str]()
        return whole | decimal | apart or frozenset((digits,))
    return _one(f"{''.join(groups[:-1])}.{groups[-1]}")


def _one(digits: str) -> Figure:
    """Without leading zeros, and without trailing ones after the point."""
    whole, point, rest = digits.partition(".")
    rest = rest.rstrip("0")
    return frozenset(((whole.lstrip("0") or "0") + (f".{rest}" if point and rest else ""),))


def _month(digits: str) -> Figure:
    return frozenset((f"m{int(digits)}",))


def _scaled(readings: Figure, plain: str, end: int) -> Figure:
    """Times the "million" that follows."""
    gap = _GAP.match(plain, end)
    scale = scales().match(plain, gap.end() if gap else end)
    if not scale or (scale.group().isascii() and plain[scale.end() : scale.end() + 1].isalpha()):
        return readings
    power = int((scale.lastgroup or "")[1:])
    return frozenset(_shifted(reading, power) for reading in readings)


def _shifted(reading: str, power: int) -> str:
    whole, _, rest = reading.partition(".")
    digits = whole + rest[:power].ljust(power, "0")
    (shifted,) = _one(f"{digits}.{rest[power:]}")
    return shifted


def _stated_months(plain: str) -> Iterator[Figure]:
    for found in _WORD.finditer(plain):
        word = found.group()
        beside = plain[max(0, found.start() - 5) : found.start()] + plain[found.end() : found.end() + 3]
        if word in months() and (any(map(str.isdigit, beside)) or (word not in ambiguous_months() and len(word) > 3)):
            yield frozenset((f"m{months()[word]}",))


def _all_words(plain: str) -> Iterator[Figure]:
    tens = 0
    for found in _WORD.finditer(plain):
        word = found.group()
        if word in months():
            yield frozenset((f"m{months()[word]}",))
        number = all_number_words().get(word)
        if number is not None:
            yield _scaled(_one(str(number)), plain, found.end()) | _one(str(number))
            if tens and number < 10:
                yield _scaled(_one(str(tens + number)), plain, found.end())
        tens = number if number and number >= _TENS_FROM else 0


def _cjk_numbers(plain: str) -> Iterator[Figure]:
    for found in _CJK_NUMBER.finditer(plain):
        digits = found.group()
        yield frozenset(str(_CJK_DIGITS[digit]) for digit in digits if digit in _CJK_DIGITS)
        value = _cjk_value(digits)
        yield _scaled(_one(str(value)), plain, found.end()) | _one(str(value))
        if plain[found.end() : found.end() + 1] in ("月", "월"):
            yield frozenset((f"m{value}",))


def _cjk_value(digits: str) -> int:
    """十二 is 12, 二〇二一 is 2021."""
    if not set("十百") & set(digits):
        return int("".join(str(_CJK_DIGITS[digit]) for digit in digits))
    total = current = 0
    for digit in digits:
        if digit in _CJK_DIGITS:
            current = _CJK_DIGITS[digit]
        else:
            total += (current or 1) * (10 if digit == "十" else 100)
            current = 0
    return total + current
