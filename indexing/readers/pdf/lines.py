"""Glyphs on a PDF page -> fragments -> rows -> running text. Pure: no PDF library here."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from statistics import median

import msgspec

HYPHEN = "\ufffe"
CJK = re.compile(r"[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
_LATIN_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_ALEFS = frozenset("اأإآٱ")
_SYMBOL_BULLET = re.compile(r"^[\x80-\x9f\ue000-\uf8ff](?=\s|$)")
_LIGATURES = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (*range(0xFB00, 0xFB07), *range(0xFB50, 0xFE00), *range(0xFE70, 0xFEFD))
    if unicodedata.normalize("NFKC", chr(code)) != chr(code)
}
# PDFium loses the space where writing turns back from left-to-right to right-to-left.
_LATIN_THEN_ARABIC = re.compile(r"(?<=[A-Za-z])(?=[\u0620-\u064a\u05d0-\u05ea])")
WIDE = 1.4
"""A gap of this many font heights separates columns or cells."""

Glyph = tuple[str, float, float, float, float, int]
"""Character, left, top, right, bottom (points from the page's top left), index in PDFium's order."""


class Fragment(msgspec.Struct, frozen=True):
    """Text on one line without a wide gap in it. Points from the page's top left; `size` is the height of its font.

    `askew`: it is turned against the rest of the page, as stamps and watermarks are. `index` is that of its first
    character in PDFium's order.
    """

    text: str
    left: float
    top: float
    right: float
    bottom: float
    size: float
    askew: bool = False
    index: int = -1


class Page(msgspec.Struct, frozen=True):
    """A page's size in points and its fragments in the order of the file.

    `hidden` counts the characters of its file that nobody sees on the page.
    """

    width: float
    height: float
    fragments: tuple[Fragment, ...]
    hidden: int = 0


class Row:
    """Fragments that stand on one line, from the first to the last."""

    __slots__ = ("bottom", "cells", "first", "left", "right", "size", "text", "top")

    def __init__(self, cells: Sequence[Fragment]) -> None:
        self.cells = cells
        self.first = first = cells[0]
        # White space at the end tells whether a word ends there, in scripts that divide words anywhere.
        self.text = first.text.lstrip()
        self.left, self.top, self.right, self.bottom = first.left, first.top, first.right, first.bottom
        self.size = first.size
        if len(cells) > 1:
            self.text = " ".join([cell.text.strip() for cell in cells[:-1]] + [cells[-1].text.lstrip()])
            self.left, self.top = min(cell.left for cell in cells), min(cell.top for cell in cells)
            self.right, self.bottom = max(cell.right for cell in cells), max(cell.bottom for cell in cells)
            self.size = max(cells, key=lambda cell: len(cell.text)).size


def fragments_of_line(line: Sequence[Glyph], askew: bool = False) -> Iterator[Fragment]:
    """Cuts a line of glyphs where it has a wide gap, and puts Arabic ligatures right."""
    part: list[Glyph] = []
    inked: Glyph | None = None
    right_to_left = any("\u0590" <= glyph[0] <= "\u08ff" for glyph in line)
    for glyph in line:
        if not glyph[0].isspace():
            # Where writing turns round, neighbours in the text are far apart on the page.
            if inked and _is_apart(inked, glyph) and not (right_to_left and _is_filled(line, inked, glyph)):
                yield from _fragment(part, askew)
                part = []
            inked = glyph
        part.append(glyph)
    yield from _fragment(part, askew)


def _is_filled(line: Sequence[Glyph], one: Glyph, other: Glyph) -> bool:
    """True when other glyphs stand in the gap."""
    start, end = min(one[3], other[3]), max(one[1], other[1])
    return any(start < (glyph[1] + glyph[3]) / 2 < end and not glyph[0].isspace() for glyph in line)


def _is_apart(one: Glyph, other: Glyph) -> bool:
    gap = max(other[1] - one[3], one[1] - other[3])
    return gap > WIDE * max(one[4] - one[2], other[4] - other[2], 1.0)


def _fragment(glyphs: list[Glyph], askew: bool) -> Iterator[Fragment]:
    inked = [glyph for glyph in glyphs if not glyph[0].isspace()]
    if not inked:
        return
    text = spelled(_alefs_in_place(glyphs))
    size = round(median(glyph[4] - glyph[2] for glyph in inked) * 2) / 2
    left, top = min(glyph[1] for glyph in inked), min(glyph[2] for glyph in inked)
    right, bottom = max(glyph[3] for glyph in inked), max(glyph[4] for glyph in inked)
    yield Fragment(text, left, top, right, bottom, size, askew, inked[0][5])


def _alefs_in_place(glyphs: list[Glyph]) -> str:
    """The characters; a lam-alef glyph, which PDFium turns round with its line, is turned back."""
    characters = [glyph[0] for glyph in glyphs]
    for index in range(len(glyphs) - 1):
        one, other = glyphs[index], glyphs[index + 1]
        if one[0] in _ALEFS and other[0] == "ل" and one[1:5] == other[1:5]:
            characters[index], characters[index + 1] = other[0], one[0]
    return "".join(characters)


def spelled(text: str) -> str:
    """The characters of one fragment, its ligatures as letters."""
    if text.isascii():
        return text.lstrip()
    # Surrogates come in pairs of characters.
    text = text.translate(_LIGATURES).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _SYMBOL_BULLET.sub("•", _LATIN_THEN_ARABIC.sub(" ", text.lstrip()))


def respaced(line: list[Glyph]) -> list[Glyph]:
    """The line without the spaces that PDFium puts between letters, where all letters stand at one pitch.

    Programs write so that draw each letter by itself, several times for bold. Spaces of the file's own, which have a
    width, are right.
    """
    glyphs = [glyph for glyph in line if glyph[1] < glyph[3]]
    if any(glyph[0].isspace() for glyph in glyphs):
        return line
    steps = [after[1] - before[1] for before, after in pairwise(glyphs)]
    pitch = min(steps, default=0.0)
    letters = sum(glyph[0].isalpha() for glyph in glyphs)
    if len(steps) < 3 or 2 * letters < len(glyphs) or not 0 < pitch < 1.2 * (glyphs[0][4] - glyphs[0][2]):
        return line
    counts = [round(step / pitch) for step in steps]
    if any(abs(step - count * pitch) > 0.1 * pitch for step, count in zip(steps, counts, strict=True)):
        return line
    spaced = [glyphs[0]]
    for glyph, count in zip(glyphs[1:], counts, strict=True):
        if count > 1:
            spaced.append((" ", *spaced[-1][1:]))
        spaced.append(glyph)
    return spaced


def rows_of(page: Page) -> list[Row]:
    """Neighbours in the file that stand on one line form a row. Those that are askew stand on none."""
    rows: list[list[Fragment]] = []
    for fragment in page.fragments:
        if fragment.askew:
            continue
        if rows and _same_line(rows[-1][-1], fragment):
            rows[-1][-1:] = _apart_or_together(rows[-1][-1], fragment)
        else:
            rows.append([fragment])
    return [Row(cells) for cells in rows]


def _apart_or_together(one: Fragment, other: Fragment) -> list[Fragment]:
    """Two cells, or one fragment that a raised or lowered sign had divided."""
    gap = max(other.left - one.right, one.left - other.right)
    if gap > WIDE * max(one.size, other.size):
        return [one, other]
    space = " " if gap > 0.2 * min(one.size, other.size) and not one.text.endswith(" ") else ""
    whole = Fragment(
        one.text + space + other.text,
        min(one.left, other.left),
        min(one.top, other.top),
        max(one.right, other.right),
        max(one.bottom, other.bottom),
        max(one, other, key=lambda part: len(part.text)).size,
        one.askew,
        one.index,
    )
    return [whole]


def _same_line(one: Fragment, other: Fragment) -> bool:
    overlap = min(one.bottom, other.bottom) - max(one.top, other.top)
    apart = other.left >= one.right - 1 or other.right <= one.left + 1
    return apart and overlap > 0.6 * min(one.bottom - one.top, other.bottom - other.top)


class Vocabulary:
    """How often a document has each of its words: counted when they are first asked for."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines

    @cached_property
    def counts(self) -> Counter[str]:
        """By word in small letters; the halves of words that a line's end divides are none."""
        whole = []
        divided = False
        for line in self._lines:
            line = line.strip().partition(" ")[2] if divided else line.strip()
            divided = line.endswith((HYPHEN, "-"))
            whole.append(line.rpartition(" ")[0] if divided else line)
        return Counter(_LATIN_WORD.findall("\n".join(whole).lower()))


def joined(lines: list[str], breaks: list[bool], words: Vocabulary) -> str:
    """Lines -> one paragraph; a line break stays where `breaks` says so, divided words are put together again."""
    text = lines[0]
    for line, on_purpose in zip(lines[1:], breaks, strict=True):
        hyphenated = text.rstrip().endswith(HYPHEN)
        text = f"{text}\n{line.lstrip()}" if on_purpose and not hyphenated else _join(text, line.lstrip(), words)
    return text.replace(HYPHEN, "-")


def _join(text: str, line: str, words: Vocabulary) -> str:
    stripped = text.rstrip()
    if stripped.endswith(HYPHEN) or (
        stripped.endswith(("-", "\u2010")) and line[:1].islower() and stripped[-2:-1].isalpha()
    ):
        return stripped[:-1] + _hyphen_between(stripped[:-1], line, words) + line
    if stripped and line and CJK.match(stripped[-1]) and CJK.match(line[0]):
        return text + line
    return f"{stripped} {line}"


def _hyphen_between(text: str, line: str, words: Vocabulary) -> str:
    """ "-" where the document writes the word with a hyphen elsewhere and never without; else ""."""
    before, after = re.search(r"[^\W\d_]+$", text), re.match(r"[^\W\d_]+", line)
    if not before or not after:
        return "-"
    one, other = before[0].lower(), after[0].lower()
    apart, together = words.counts[f"{one}-{other}"], words.counts[one + other]
    if apart == together == 0:
        # "high" and "dimensional", both known, are more likely a compound than one divided word.
        return "-" if words.counts[one] and words.counts[other] else ""
    return "-" if apart > together else ""
