"""Numbers and dates of texts, made comparable across scripts, formats and languages. Pure.

A figure is the set of its possible readings: "1.000" is 1000 or 1, and 03/05 may be in March or May. A reading is a
plain decimal ("3.7", "3700000") or a month ("m5"). Claims are read strictly and quotations generously: "may" is a month
in any quotation, but in a claim only next to a number.
"""

import re
import unicodedata
from collections.abc import Iterator

from app.answering.verification.tables import all_number_words, ambiguous_months, months, number_words, scales
from app.text.terms import fold

Figure = frozenset[str]

_TENS_FROM = 20
_MIN_COUNT = 3
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
    """The numbers and months of a claim; its quotations must have at least one reading of each."""
    plain = _plain(text)
    return [*_dates(plain), *_numbers(_undated(plain)), *_stated_months(plain)]


def claimed_counts(text: str, language: str) -> list[Figure]:
    """The numbers of a claim that are written in words, from three on: "one" and "two" seldom count anything."""
    plain, words = _plain(text), number_words(language)
    numbers = ((words.get(match.group(), 0), match.end()) for match in _WORD.finditer(plain))
    return [_scaled(_one(str(number)), plain, end) for number, end in numbers if number >= _MIN_COUNT]


def quoted_readings(text: str) -> frozenset[str]:
    """Every reading of every number and month in a quotation."""
    plain = _plain(text)
    figures = [*_dates(plain), *_numbers(_undated(plain)), *_numbers(plain), *_all_words(plain), *_cjk_numbers(plain)]
    figures += [frozenset((f"{century}{last}",)) for century, _, last in _SPAN.findall(plain)]  # 1990-95
    return frozenset().union(*figures)


def is_month(word: str) -> bool:
    """Whether the word is a month's name in one of our languages."""
    return fold(word) in months()


def _plain(text: str) -> str:
    """The text folded, with ASCII digits; the 90s of the 20th century in Chinese become 1990s."""
    text = fold(text.translate(_SEPARATORS))
    if text.isascii():
        return text
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text).translate(_SEPARATORS)
    return _CJK_DECADE.sub(lambda match: f"{int(match[1]) - 1}{match[2]}年代", text)


def _dates(plain: str) -> Iterator[Figure]:
    """Year, month and day of each date that is written in digits."""
    for year, month, day in _DATE.findall(plain):
        yield from (_one(year), _month(month), _one(day))
    for day, month, year in _DOTTED.findall(plain):
        yield from (_one(year), _month(month), _one(day))
    for one, two, year in _SLASHED.findall(plain):
        yield from (_one(year), _month(one) | _month(two), _one(one) | _one(two))
    yield from (_month(month) for month in _CJK_MONTH.findall(plain))


def _undated(plain: str) -> str:
    """The text without those dates: 03.05.2021 is no number."""
    for pattern in (_DATE, _DOTTED, _SLASHED, _CJK_MONTH):
        plain = pattern.sub(" ; ", plain)
    return plain


def _numbers(plain: str) -> Iterator[Figure]:
    for match in _NUMBER.finditer(plain):
        yield _scaled(_readings(match.group()), plain, match.end())


def _readings(digits: str) -> Figure:
    """What a number means by the conventions of any country for its separators."""
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
    """The one reading of a plain decimal, without leading zeros or trailing ones after the point."""
    whole, point, rest = digits.partition(".")
    rest = rest.rstrip("0")
    return frozenset(((whole.lstrip("0") or "0") + (f".{rest}" if point and rest else ""),))


def _month(digits: str) -> Figure:
    return frozenset((f"m{int(digits)}",))


def _scaled(readings: Figure, plain: str, end: int) -> Figure:
    """The readings times the "million" that follows, if one does."""
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
    """Months that are written in words, where the word can hardly mean anything else."""
    for match in _WORD.finditer(plain):
        word = match.group()
        if word not in months():
            continue
        # As in "5 of May", "3. Mai" and "May 3".
        beside = plain[max(0, match.start() - 5) : match.start()] + plain[match.end() : match.end() + 3]
        is_abbreviated = len(word) <= 3  # "dec" may be anything
        if any(map(str.isdigit, beside)) or (word not in ambiguous_months() and not is_abbreviated):
            yield frozenset((f"m{months()[word]}",))


def _all_words(plain: str) -> Iterator[Figure]:
    """Months and numbers that are written in words, "twenty-five" as 20, 5 and 25."""
    tens = 0
    for match in _WORD.finditer(plain):
        word = match.group()
        if word in months():
            yield frozenset((f"m{months()[word]}",))
        number = all_number_words().get(word)
        if number is not None:
            yield _scaled(_one(str(number)), plain, match.end()) | _one(str(number))
            if tens and number < 10:
                yield _scaled(_one(str(tens + number)), plain, match.end())
        tens = number if number and number >= _TENS_FROM else 0


def _cjk_numbers(plain: str) -> Iterator[Figure]:
    for match in _CJK_NUMBER.finditer(plain):
        digits = match.group()
        yield frozenset(str(_CJK_DIGITS[digit]) for digit in digits if digit in _CJK_DIGITS)
        value = _cjk_value(digits)
        yield _scaled(_one(str(value)), plain, match.end()) | _one(str(value))
        if plain[match.end() : match.end() + 1] in ("月", "월"):
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
