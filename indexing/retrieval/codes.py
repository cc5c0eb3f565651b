"""Numbers, codes and identifiers of a text as terms: whole, joined, and in parts. Pure.

    ab-1234/5        ab-1234-5 · ab12345 · 1234 · 5            the letters "ab" are a word, not a code
    192.168.1.1      192.168.1.1 · 192.168.1 · 192.168 · 192 · 168 · 1
    1,234.50         1234.50 · 1234                            the separators make sure which is which
    1.234            1.234 · 1234                              it may be a decimal or a thousand: both
    § 812            §812 · 812
    INV4712          inv4712 · 4712
    C++              c++

Both sides of a search pass through here, so that "AB 1234", "ab-1234" and "AB1234" meet in some term, and the passage
that has the whole code has one term more, a rare one.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import accumulate

# Soft hyphens, joiners and other characters without a width, which stand inside words and are no part of them.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")

# Scripts written without spaces, in which a number touches the words around it.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = rf"[^\W_{_UNSPACED}]+"
_CODE = re.compile(
    rf"""
    (?<![^\W{_UNSPACED}])(?P<language>[A-Za-z](?:\+\+|\#))(?![\w+\#])
    | (?P<sign>§+\ ?)?                                   # a paragraph
    (?P<code>{_PIECE}(?:[-./:,_\#'’@+&=~\\]{_PIECE})*)   # pieces of letters and digits, and what joins them
    """,
    re.VERBOSE,
)
_DIGIT = re.compile(r"\d")
_PART = re.compile(_PIECE)
_SEPARATOR = re.compile(r"[^\w.]+|_")

_GROUPED = re.compile(r"[1-9]\d{0,2}(?:(?P<group>[.,'’])\d{3})(?:(?P=group)\d{3})*(?P<decimal>[.,]\d+)?")
_DECIMAL = re.compile(r"\d+[.,]\d+")
_DOTTED = re.compile(r"v?\d+(?:\.\d+){2,}")

_MAX_PARTS = 12
"""Of one code. Beyond it is a path, a list or an encoding: its parts say little, and there may be thousands."""
_MAX_LENGTH = 64


def normalized(text: str) -> str:
    """NFKC (half- and full-width forms, ligatures, radicals), without invisible characters."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))


def code_terms(text: str) -> list[str]:
    """The terms of all codes of a `normalized` text, in order, a term of a repeated code each time.

    What contains a digit is a code, and "C++" and its like.
    """
    terms: list[str] = []
    for match in _CODE.finditer(text):
        if language := match["language"]:
            terms.append(language.lower())
        elif _DIGIT.search(match["code"]):
            terms.extend(dict.fromkeys(_terms(match["code"].lower(), match["sign"])))
    return terms


def _terms(code: str, sign: str | None) -> Iterator[str]:
    """The whole code first."""
    if sign:
        yield f"§{code[:_MAX_LENGTH]}"
    numbers = list(_numbers(code))
    yield from numbers
    if numbers:
        return
    pieces = _PART.findall(code)
    if len(pieces) > 1:
        yield _SEPARATOR.sub("-", code)[:_MAX_LENGTH]
    if _DOTTED.fullmatch(code):
        yield from accumulate(code.removeprefix("v").split("."), "{}.{}".format)
    elif 1 < len(pieces) <= _MAX_PARTS:
        yield "".join(pieces)[:_MAX_LENGTH]
    for piece in pieces[:_MAX_PARTS]:
        if not _DIGIT.search(piece):
            continue
        yield piece[:_MAX_LENGTH]
        for run in re.findall(r"\d{2,}|^\d+", piece):
            yield run[:_MAX_LENGTH]
            if run[0] == "0" and (stripped := run.lstrip("0")):
                yield stripped[:_MAX_LENGTH]


def _numbers(code: str) -> Iterator[str]:
    """The number that a code is: a point before decimals, nothing between thousands; both where it may be either. Then
    what stands before the decimals. Nothing for what is no such number.
    """
    wholes = []
    if match := _GROUPED.fullmatch(code):
        decimal = match["decimal"] or ""
        if not decimal or decimal[0] != match["group"]:
            whole = code.removesuffix(decimal).replace(match["group"], "")
            yield f"{whole}.{decimal[1:]}" if decimal else whole
            wholes += [whole] if decimal else []
    if _DECIMAL.fullmatch(code):
        yield code.replace(",", ".")
        wholes.append(re.split("[.,]", code)[0])
    yield from wholes
