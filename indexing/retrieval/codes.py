"""Numbers, codes and identifiers of a text as terms: whole, and in parts.

    AB-1234/5        ab12345, 12345; in part 1234, 5               its letters "ab" are a word
    192.168.1.1      192.168.1.1; in part 192.168.1, 192.168, 192, 168, 1
    v2.13.5          2.13.5; in part 2.13, 2, 13, 5
    1,234.50         1234.50; in part 1234                         the separators make sure which is which
    1.234            1.234 and 1234; in part 1                     it may be a decimal or a thousand: both
    3.5.2024         2024-05-03; in part 2024, 05, 03, 5, 3        also 2024/5/3, 2024年5月3日, 3 May 2024
    § 812            §812; in part 812
    INV4712          inv4712, 4712                                 its letters "inv" are a word
    C++              c++

Both sides of a search pass through here, so that "AB 1234", "ab-1234" and "AB1234" meet in some term, and the passage
that has the whole code has one term more, a rare one.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

_MAX_PARTS = 12
"""Pieces of one code. What has more is a path, a list or an encoding: its parts say little."""
_MAX_LENGTH = 64
_SHORT = 5
"""A joined code of fewer digits and no letter may be any number: "5-10" is not 510."""
_TAIL = 3
"""Digits that stand for a code without the letters before them: 4712 for INV4712, not 8 for M8."""

# Soft hyphens, joiners and other characters without a width, which stand inside words and are no part of them.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
# Scripts written without spaces, in which a number touches the words around it.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_PIECE = rf"[^\W_{_UNSPACED}]+"
_PART = re.compile(_PIECE)
_CODE = re.compile(rf"{_PIECE}(?:[-./:,_#'’@+&=~\\]{_PIECE})*")
"""Pieces of letters and digits, and what joins them."""
_NEAR_DIGITS = re.compile(r"\S*\d\S*")
_SIGN = re.compile(r"§ ?$")
_LANGUAGE = re.compile(rf"(?<![^\W{_UNSPACED}])[A-Za-z](?:\+\+|#)(?![\w+#])")
_DIGIT = re.compile(r"\d")
_DIGITS = re.compile(r"\d{2,}|^\d+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:(?P<group>[.,'’])\d{3})(?:(?P=group)\d{3})*(?P<decimal>[.,]\d+)?")
_DECIMAL = re.compile(r"\d+[.,]\d+")
_DOTTED = re.compile(r"v?(?P<numbers>\d+(?:\.\d+)+)")
_NUMERIC_DATES = (
    re.compile(r"(?P<year>\d{4})([-./])(?P<month>\d{1,2})\2(?P<day>\d{1,2})"),
    # With slashes and the year last, the day may be first or second.
    re.compile(r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})"),
)
# They begin with a digit, or with the blank before one: a pattern that begins with any word takes ten times as long.
_NAMED_DATES = (
    re.compile(
        r"(?<!\w)(?P<day>\d{1,2})(?:st|nd|rd|th|[.º])? (?:of |de )?(?P<month>[^\W\d_]{3,12})\.?,? (?:de )?"
        r"(?P<year>\d{4})(?!\w)"
    ),
    re.compile(r"(?P<month>)(?<=[^\W\d_.]) (?P<day>\d{1,2})(?:st|nd|rd|th)?,? (?P<year>\d{4})(?!\w)"),
    re.compile(r"(?P<year>\d{4})年 ?(?P<month>\d{1,2})月 ?(?P<day>\d{1,2})日"),
)
_LAST_WORD = re.compile(r"[^\W\d_]+$")


class Code(NamedTuple):
    """One code of a text: [start, end), the terms that each stand for all of it, those of its parts, and its words."""

    start: int
    end: int
    wholes: tuple[str, ...]
    parts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def normalized(text: str) -> str:
    """NFKC (half- and full-width forms, ligatures, radicals), without invisible characters.

    Offsets change: it is for terms alone.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))


def codes(text: str) -> list[Code]:
    """The codes of a `normalized` text, in order: what contains a digit, and "C++" and its like."""
    result = list(_languages(text)) if "+" in text or "#" in text else []
    if not _DIGIT.search(text):
        return result
    dates = list(_named_dates(text))
    result += dates
    for near in _NEAR_DIGITS.finditer(text):
        for match in _CODE.finditer(text, *near.span()):
            start, end = match.span()
            if _DIGIT.search(match[0]) and not any(date.start < end and start < date.end for date in dates):
                result.append(_code(text, start, end))
    return sorted(result)


def _languages(text: str) -> Iterator[Code]:
    return (Code(*match.span(), (match[0].lower(),)) for match in _LANGUAGE.finditer(text))


@cache
def month_numbers() -> dict[str, int]:
    """Names of months in all our languages, in lower case, and their numbers from 1."""
    table = tomllib.loads(Path(__file__).with_name("months.toml").read_text("utf-8"))["months"]
    return {name: number for names in table.values() for number, name in enumerate(names.split(), start=1)}


def _code(text: str, start: int, end: int) -> Code:
    """A number, a date, a dotted code (version, address), or any other."""
    code = text[start:end].lower()
    for form in _NUMERIC_DATES:
        if (match := form.fullmatch(code)) and (date := _date(start, end, match["year"], match["month"], match["day"])):
            return date
    dotted = _DOTTED.fullmatch(code)
    wholes, parts = list(_numbers(code)), list[str]()
    words: tuple[str, ...] = ()
    if dotted and (dotted["numbers"].count(".") > 1 or not wholes):
        components = dotted["numbers"].split(".")
        wholes.append(dotted["numbers"])
        parts = [".".join(components[:count]) for count in range(2, len(components))] + components
    elif wholes:
        parts = [re.split("[.,]", whole)[0] for whole in wholes]
    else:
        wholes, parts, words = _pieces(code)
    if _SIGN.search(text, max(0, start - 2), start):
        wholes, parts = [f"§{whole}" for whole in wholes], [*wholes, *parts]
    return Code(start, end, _cut(wholes), _cut([*parts, *_unpadded(parts)], but=wholes), words)


def _pieces(code: str) -> tuple[list[str], list[str], tuple[str, ...]]:
    """The wholes, parts and words of a code that is neither a number nor dotted."""
    pieces = _PART.findall(code)
    joined = "".join(pieces)
    wholes = [joined if len(joined) >= _SHORT or not joined.isdigit() else "-".join(pieces)]
    tail = re.sub(r"^[^\W\d]+", "", joined)
    if tail != joined and tail.isdigit() and len(tail) >= _TAIL:
        wholes.append(tail)
    if len(pieces) > _MAX_PARTS:
        return wholes, [], ()
    parts = [part for piece in pieces if _DIGIT.search(piece) for part in (piece, *_DIGITS.findall(piece))]
    return wholes, parts, tuple(_LETTERS.findall(code))


def _named_dates(text: str) -> Iterator[Code]:
    """Dates with the name of a month, and Chinese and Japanese ones."""
    for form in _NAMED_DATES:
        for match in form.finditer(text):
            start, month = match.start(), match["month"]
            if not month and (word := _LAST_WORD.search(text, max(0, start - 12), start)):
                start, month = word.start(), word[0]
            number = month if month.isdigit() else str(month_numbers().get(month.lower(), 0))
            if date := _date(start, match.end(), match["year"], number, match["day"]):
                yield date


def _date(start: int, end: int, year: str, month: str, day: str) -> Code | None:
    """None for what is no date."""
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return None
    parts = [year, f"{int(month):02}", f"{int(day):02}"]
    return Code(start, end, ("-".join(parts),), _cut([*parts, *_unpadded(parts)]))


def _numbers(code: str) -> Iterator[str]:
    """The number that a code is: a point before its decimals, nothing between thousands; both where it may be either.

    Nothing for a number without a separator, and for what is no number.
    """
    if match := _GROUPED.fullmatch(code):
        decimal = match["decimal"] or ""
        if not decimal or decimal[0] != match["group"]:
            whole = code.removesuffix(decimal).replace(match["group"], "")
            yield f"{whole}.{decimal[1:]}" if decimal else whole
    if _DECIMAL.fullmatch(code):
        yield code.replace(",", ".")


def _unpadded(parts: list[str]) -> list[str]:
    """Those that begin with zeros, without them."""
    return [part.lstrip("0") for part in parts if part.startswith("0")]


def _cut(terms: list[str], but: Sequence[str] = ()) -> tuple[str, ...]:
    return tuple(dict.fromkeys(term[:_MAX_LENGTH] for term in terms if term and term not in but))
