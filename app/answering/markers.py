"""What a model's markers mean: [2.3] is sentence 3 of passage 2. Pure; takes time linear in the text.

Small models do not write them as they were told to. Read are also [2], [2.3, 4.1], [2.3-2.5], [2.3–5], [ 2.3 ],
[[2.3]], 【2.3】, ［２．３］, [passage 2.3] and [passage 2, sentence 3]. Round brackets are no markers: (2.3) may be a
number of the answer's own.
"""

import re
import unicodedata
from collections.abc import Iterator

import msgspec

OPENING = "[［【〔"
CLOSING = "]］】〕"
LONGEST = 48
"""Characters between the brackets of a marker; what is longer is none, so that nothing is held back for ever."""

_JOINER = "\u200c\u200d\ufe0f"
_JOINERS = re.compile(f"[{_JOINER}]")
_NOUN = r"(?:(?:passages?|sources?|documents?|docs?|refs?|texts?|quellen?|文档|文書|来源|出典|段落?|第)[ .:]*)?[#^§]?"
_SENTENCE = re.compile(r"\s*[,;]?\s*\b(?:sentences?|sent\.|satz|s\.)\s*(?=\d)", re.IGNORECASE)
_REF = r"(\d{1,4})(?:\s*[.:]\s*(\d{1,4}))?"
_LINK = re.compile(
    rf"\s*(?P<link>-|to\b|bis\b|[,;、&/+]|and\b|und\b|和|と)?\s*{_NOUN}\s*{_REF}(?![\d.])", re.IGNORECASE
)
_RANGES = frozenset({"-", "to", "bis"})
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−〜~", "-"))
_NUMBERS = re.compile(r"[\d\s.,;:-]*\d[\d\s.,;:-]*")
_PARENTHESES = str.maketrans(dict.fromkeys(OPENING, "(") | dict.fromkeys(CLOSING, ")"))
_ALMOST = re.compile(rf"[{re.escape(OPENING)}][{_JOINER}]*\d[\d,;–{_JOINER}-]*$")


class Ref(msgspec.Struct, frozen=True):
    """Sentences `first` to `last` of a passage, all counted from 1. 0 and 0: no sentence is named."""

    passage: int
    first: int = 0
    last: int = 0


def read_marker(body: str) -> tuple[Ref, ...]:
    """What stands between the brackets; () when that is no marker."""
    text = unicodedata.normalize("NFKC", _JOINERS.sub("", body)).translate(_DASHES)
    text = _SENTENCE.sub(".", text).partition("†")[0].rstrip()
    refs: list[Ref] = []
    at = 0
    while at < len(text):
        found = _LINK.match(text, at)
        if not found or not int(found[2]):
            return ()
        refs.extend(_linked(refs, found))
        at = found.end()
    return () if any(_is_a_number(ref) for ref in refs) else tuple(refs)


def _linked(refs: list[Ref], found: re.Match[str]) -> Iterator[Ref]:
    """The reference, or what a range adds: it takes its beginning off `refs`."""
    one, two = int(found[2]), int(found[3] or 0)
    if (found["link"] or "").lower() not in _RANGES or not refs:
        yield Ref(one, two, two)
        return
    begin = refs.pop()
    if begin.first and (not two or one == begin.passage):  # [2.3-5], [2.3-2.5]
        yield Ref(begin.passage, begin.first, max(begin.first, two or one))
        return
    yield begin
    yield from (Ref(passage) for passage in range(begin.passage + 1, min(one, begin.passage + LONGEST)))
    yield Ref(one, two, two)


def _is_a_number(ref: Ref) -> bool:
    """[2019] is a year rather than a passage."""
    return not ref.first and ref.passage > 999


def without_marker(text: str) -> str:
    """A text in brackets that is no marker, so that nobody takes it for one: [2019] becomes (2019)."""
    plain = unicodedata.normalize("NFKC", _JOINERS.sub("", text)).translate(_DASHES)
    return text.translate(_PARENTHESES) if _NUMBERS.fullmatch(plain.strip("[]【】〔〕")) else text


def would_close(before: str) -> bool:
    """Whether a closing bracket after `before` would make what looks like one of our markers."""
    return bool(_ALMOST.search(before[-LONGEST:]))
