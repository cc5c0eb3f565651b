"""Numbers, codes and identifiers of a text as terms: whole, and in parts.

    AB-1234/5        ab12345, 12345; in part 1234, 5               its letters "ab" are a word
    192.168.1.1      192.168.1.1; in part 192.168.1, 192.168, 192, 168, 1; so with a port behind it
    v2.13.5          2.13.5; in part 2.13, 2, 13, 5
    1,234.50         1234.50; in part 1234                         the separators make sure which is which
    1.234            1.234 and 1234; in part 1                     it may be a decimal or a thousand: both
    3.5GB            3.5gb; in part 3.5, 3, 5                      its letters "gb" are a word
    3.5.2024         2024-05-03; in part 2024, 05, 03, 5, 3        also 2024/5/3, 2024年5月3日, 3 May 2024
    § 812            §812; in part 812
    INV4712          inv4712, 4712                                 its letters "inv" are a word
    C++              c++

Both sides of a search pass through here, so that "AB 1234", "ab-1234" and "AB1234" meet in some term, and the passage
that has the whole code has one term more, a rare one. What a code is made of is kept in a cache: texts repeat theirs.
"""

import re
import tomllib
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

_MAX_PARTS = 12
"""Pieces of one code. What has more is a path, a list or an encoding: its parts say little."""
_SHORT = 5
"""A joined code of fewer digits and no letter may be any number: "5-10" is not 510."""
_TAIL = 3
"""Digits that stand for a code without the letters before them: 4712 for INV4712, not 8 for M8."""
_REMEMBERED, _LONGEST_REMEMBERED = 20_000, 40

# Scripts written without spaces, in which a number touches the words around it.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e01ef"
)
"""For a character class: soft hyphens, joiners and others without a width. They stand inside words and are no part."""
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_PLAIN = re.compile("[\x00-\x7f\u00c0-\u0131\u2018-\u201f\u20ac\u3001-\u3003\u3008-\u3011\u4e00-\u9fff]*")
"""Nothing to do: ASCII, and what is frequent beside it."""
_BORDER = re.compile(
    # Between words of Thai, Khmer or Burmese, where it is the only sign of a border.
    f"(?<=[{_UNSPACED}])\u200b"
    # Footnote marks, exponents and fractions after a number, and marks after a name: NFKC would make them part of it.
    "|(?<=\\d)(?=[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u215f\u2189\u2460-\u249b])|(?=[\u2120\u2122])"
)
_THOUSANDS = re.compile("(?<![\\w.,])[1-9]\\d{0,2}(?:[\u00a0\u2009\u202f]\\d{3})+(?!\\d)")
_BLANK = re.compile("[\u00a0\u2009\u202f]")
_HYPHEN = re.compile("[\u2010-\u2015\u2212]")
_FOREIGN_DIGIT = re.compile(r"[^\D0-9]")

_PIECE = rf"[^\W_{_UNSPACED}]+"
_PART = re.compile(_PIECE)
_CODE = re.compile(rf"{_PIECE}(?:(?:[-./:_#'’@+&=~\\]|(?<=\d),(?=\d)){_PIECE})*")
"""Pieces of letters and digits, and what joins them."""
_SPACE = re.compile(r"\s")
_LANGUAGE = re.compile(rf"(?<![^\W{_UNSPACED}])[A-Za-z](?:\+\+|#)(?![\w+#])")
_DIGIT = re.compile(r"\d")
_DIGITS = re.compile(r"\d{2,}|^\d+")
_HEAD = re.compile(r"^[^\W\d]+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_JOINER = re.compile(r"(?<!\d)[\W_]|[^\w.,]|_|[.,](?!\d)")
"""What does not tell two codes apart: all that is neither a letter nor a digit but points between digits."""
_RUN = re.compile(r"(?<!\d)\d+(?:[.,'’]\d+)+")
_MEASURED = re.compile(rf"[^\W\d_]*({_RUN.pattern})[^\W\d_]*")
"""A number with its unit: "3.5gb", "usd1,234.50"."""
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:(?P<group>[.,'’])\d{3})(?:(?P=group)\d{3})*(?P<decimal>[.,]\d+)?")
_DECIMAL = re.compile(r"\d+[.,]\d+")
_CELL = re.compile("[^,]+")
_LISTED = re.compile(r"\d+,(\d{3,})")
"""One number with a comma, or two."""
_DOTTED = re.compile(r"v?(?P<numbers>\d+(?:\.\d+)+)")
_NUMERIC_DATES = (
    re.compile(r"(?P<year>\d{4})([-./])(?P<month>\d{1,2})\2(?P<day>\d{1,2})(?:t[\d:.+z-]*)?"),
    # With slashes and the year last, the day may be first or second.
    re.compile(r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})"),
)
_LIKELY_YEAR = re.compile(r"1\d{3}s?|20\d\ds?|\d{1,2}(?:st|nd|rd|th)")
_YEAR = re.compile(r"\d\d{3}(?<!\d{5})(?!\d)(?:[年년] ?(?P<month>\d{1,2})[月월] ?(?P<day>\d{1,2})[日号일]|(?!\w))")
"""A year, which most texts have few of: what is before it is read only then. It begins with a digit, and no lookbehind,
so that the engine skips from digit to digit."""
_BEFORE_YEAR = (
    re.compile(r"(?<!\w)(?P<day>\d{1,2})(?:st|nd|rd|th|er|o|\.)? (?:of |de )?(?P<month>[^\W\d_]{3,12})\.?,? (?:de )?$"),
    re.compile(r"(?<!\w)(?P<month>[^\W\d_]{3,12})\.? (?P<day>\d{1,2})(?:st|nd|rd|th)?,? $"),
)
_LONGEST_DAY_AND_MONTH = 30
_ACCOUNT = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}(?: [A-Za-z\d]{4}){2,7}(?: [A-Za-z\d]{1,3})?(?!\w)")
"""An IBAN in groups of four."""
_OF_ACCOUNT = re.compile(r"\d\d [A-Za-z\d]{4} ")
"""What each of them has, and few other texts."""


Terms = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Wholes, parts, words."""


class Code(NamedTuple):
    """One code of a text: [start, end), the terms that each stand for all of it, those of its parts, and its words."""

    start: int
    end: int
    wholes: tuple[str, ...]
    parts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def normalized(text: str) -> str:
    """NFKC (half- and full-width forms, ligatures, radicals), without invisible characters; one hyphen, and digits 0-9.

    Offsets change: it is for terms alone.
    """
    if _PLAIN.fullmatch(text):
        return text
    text = _INVISIBLE.sub("", _BORDER.sub(" ", text))
    text = _THOUSANDS.sub(lambda match: _BLANK.sub("", match[0]), text)
    text = _HYPHEN.sub("-", unicodedata.normalize("NFKC", text))
    return _FOREIGN_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text)


def codes(text: str) -> list[Code]:
    """The codes of a `normalized` text, in order: what contains a digit, and "C++" and its like."""
    result = list(_languages(text)) if "+" in text or "#" in text else []
    if not _DIGIT.search(text):
        return result
    for spaced in (*_named_dates(text), *(_accounts(text) if _OF_ACCOUNT.search(text) else ())):
        result.append(spaced)
        text = f"{text[: spaced.start]}{' ' * (spaced.end - spaced.start)}{text[spaced.end :]}"
    for near in _near_digits(text):
        for start, end in _spans(text, *near):
            signed = text[max(0, start - 2) : start].rstrip(" ").endswith("§")
            terms = _known if end - start <= _LONGEST_REMEMBERED else _terms
            result.append(Code(start, end, *terms(text[start:end].lower(), signed)))
    return sorted(result)


def _near_digits(text: str) -> Iterator[tuple[int, int]]:
    """What stands between white space and has a digit. Searched for from digit to digit: most words have none."""
    position = 0
    while match := _DIGIT.search(text, position):
        start = match.start()
        while start > position and not text[start - 1].isspace():
            start -= 1
        after = _SPACE.search(text, match.end())
        position = after.start() if after else len(text)
        yield start, position


def names_code(text: str) -> bool:
    """Whether a text names a number or a code of three characters or more that is no year."""
    return any(
        len(whole) >= _TAIL and not _LIKELY_YEAR.fullmatch(whole)
        for code in codes(normalized(text))
        for whole in code.wholes
    )


def _spans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Codes between the two; what a comma joins is one number, or several codes."""
    for match in _CODE.finditer(text, start, end):
        if "," in match[0] and not ((number := _MEASURED.fullmatch(match[0])) and any(_numbers(number[1]))):
            yield from (cell.span() for cell in _CELL.finditer(text, *match.span()) if _DIGIT.search(cell[0]))
        elif _DIGIT.search(match[0]):
            yield match.span()


def _languages(text: str) -> Iterator[Code]:
    return (Code(*match.span(), (match[0].lower(),)) for match in _LANGUAGE.finditer(text))


@cache
def month_numbers() -> dict[str, int]:
    """Names of months in all our languages, in lower case, and their numbers from 1."""
    table = tomllib.loads(Path(__file__).with_name("months.toml").read_text("utf-8"))["months"]
    return {name: number for names in table.values() for number, name in enumerate(names.split(), start=1)}


def _named_dates(text: str) -> Iterator[Code]:
    """Dates with the name of a month, and Chinese, Japanese and Korean ones."""
    for year in _YEAR.finditer(text):
        start, month, day = year.start(), year["month"], year["day"]
        before = text[max(0, start - _LONGEST_DAY_AND_MONTH) : start]
        for form in _BEFORE_YEAR if month is None else ():
            if (match := form.search(before)) and (number := month_numbers().get(match["month"].lower())):
                start, month, day = start - len(before) + match.start(), str(number), match["day"]
                break
        if month and (terms := _date(year[0][:4], month, day)):
            yield Code(start, year.end(), *terms)


def _accounts(text: str) -> Iterator[Code]:
    for match in _ACCOUNT.finditer(text):
        groups = match[0].lower().split()
        yield Code(*match.span(), ("".join(groups),), _distinct(groups))


def _terms(code: str, signed: bool) -> Terms:
    """Of a number, a date, a dotted code (version, address), or any other; `signed`: behind a paragraph sign."""
    for form in _NUMERIC_DATES:
        if (match := form.fullmatch(code)) and (date := _date(match["year"], match["month"], match["day"])):
            return date
    dotted = _DOTTED.fullmatch(code)
    wholes, parts, words = list(_numbers(code)), list[str](), tuple[str, ...]()
    if dotted and (dotted["numbers"].count(".") > 1 or not wholes):
        components = dotted["numbers"].split(".")
        wholes.append(dotted["numbers"])
        parts = [".".join(components[:count]) for count in range(2, min(len(components), _MAX_PARTS))]
        parts += components[:_MAX_PARTS]
    elif wholes:
        parts = [whole.split(".")[0] for whole in wholes]
        if len(wholes) == 1 and (listed := _LISTED.fullmatch(code)):
            parts += listed.groups()
    else:
        wholes, parts, words = _pieces(code)
    if signed:
        wholes, parts = [f"§{whole}" for whole in wholes], [*wholes, *parts]
    return _distinct(wholes), _distinct([*parts, *_unpadded(parts)], but=wholes), words


_known = lru_cache(_REMEMBERED)(_terms)


def _pieces(code: str) -> tuple[list[str], list[str], tuple[str, ...]]:
    """The wholes, parts and words of a code that is neither a number nor dotted."""
    pieces, words = _PART.findall(code), tuple(_LETTERS.findall(code))
    joined = _JOINER.sub("", code)
    wholes = [joined if len(joined) >= _SHORT or not joined.isdigit() else "-".join(pieces)]
    tail = _HEAD.sub("", joined)
    if measured := _MEASURED.fullmatch(code):
        wholes += _numbers(measured[1])
    elif tail != joined and tail.isdigit() and len(tail) >= _TAIL:
        wholes.append(tail)
    if len(pieces) > _MAX_PARTS:
        return wholes, [], words
    runs = [number for run in _RUN.findall(code) for number in (*_numbers(run), run)]
    parts = [part for piece in pieces if _DIGIT.search(piece) for part in (piece, *_DIGITS.findall(piece))]
    return wholes, [*runs, *parts], words


def _date(year: str, month: str, day: str) -> Terms | None:
    """None for what is no date."""
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return None
    parts = [year, f"{int(month):02}", f"{int(day):02}"]
    return ("-".join(parts),), _distinct([*parts, *_unpadded(parts)]), ()


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
    """Those digits that begin with zeros, without them."""
    return [part.lstrip("0") for part in parts if part.startswith("0") and part.isdigit()]


def _distinct(terms: Iterable[str], but: Collection[str] = ()) -> tuple[str, ...]:
    return tuple(dict.fromkeys(term for term in terms if term and term not in but))
