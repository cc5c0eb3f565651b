"""One page of a PDF -> fragments of text with their places, form fields and text boxes among them. PDFium says
where the characters stand.

Asking for a place costs as much as all else that is done with a character: only the first and the last one of each word
are asked for, but all of a line that is written from right to left or letter by letter.
"""

import contextlib
import ctypes
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise, repeat
from math import degrees
from typing import Any

import numpy
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from indexing.readers.pdf.lines import HYPHEN, WIDE, Fragment, Glyph, Page, fragments_of_line, respaced, spelled

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in points, y upwards."""

_UNSEEN = pdfium_c.FPDF_ANNOT_FLAG_HIDDEN | pdfium_c.FPDF_ANNOT_FLAG_NOVIEW
_PASSWORD = 1 << 13  # a flag of text fields
_TICKED, _NOT_TICKED = "☑", "☐"
_TICKS = (pdfium_c.FPDF_FORMFIELD_CHECKBOX, pdfium_c.FPDF_FORMFIELD_RADIOBUTTON)
_TYPED = (pdfium_c.FPDF_FORMFIELD_TEXTFIELD, pdfium_c.FPDF_FORMFIELD_COMBOBOX, pdfium_c.FPDF_FORMFIELD_LISTBOX)


def fields_of(pdf: Any, page: Any) -> Iterator[tuple[Box, str]]:
    """The text of each filled field, a tick or an empty box for each one to tick, and the text of free text boxes."""
    for number in range(pdfium_c.FPDFPage_GetAnnotCount(page)):
        annotation = pdfium_c.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            content = _content(pdf.formenv, annotation)
            box = pdfium_c.FS_RECTF()
            if content.strip() and pdfium_c.FPDFAnnot_GetRect(annotation, box):
                yield (box.left, box.top, box.right, box.bottom), content
        finally:
            pdfium_c.FPDFPage_CloseAnnot(annotation)


def _content(form: Any, annotation: Any) -> str:
    if pdfium_c.FPDFAnnot_GetFlags(annotation) & _UNSEEN:
        return ""
    kind = pdfium_c.FPDFAnnot_GetSubtype(annotation)
    if kind == pdfium_c.FPDF_ANNOT_FREETEXT:
        return _text(lambda *buffer: pdfium_c.FPDFAnnot_GetStringValue(annotation, b"Contents", *buffer))
    if kind != pdfium_c.FPDF_ANNOT_WIDGET or form is None:
        return ""
    field = pdfium_c.FPDFAnnot_GetFormFieldType(form, annotation)
    if field in _TICKS:
        return _TICKED if pdfium_c.FPDFAnnot_IsChecked(form, annotation) else _NOT_TICKED
    if field not in _TYPED or pdfium_c.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD:
        return ""
    return _text(lambda *buffer: pdfium_c.FPDFAnnot_GetFormFieldValue(form, annotation, *buffer))


def _text(get: Callable[[Any, int], int]) -> str:
    """A text that PDFium gives as UTF-16 with a zero at its end, in a buffer of the size that it says first."""
    size = get(None, 0)
    buffer = (ctypes.c_ushort * (size // 2 + 1))()
    get(buffer, size)
    return bytes(buffer)[: max(0, size - 2)].decode("utf-16-le", "replace")


_CHARACTERS_PER_PAGE = 200_000
# Where a hyphen divides a word at the end of a line, PDFium has \x02 or \ufffe instead of hyphen and line break.
_HYPHENS = ("\x02", "\ufffe")
_LINE = re.compile("[^\r\n\x02\ufffe]+")
_SPACE = numpy.array([chr(code).isspace() or chr(code) in _HYPHENS for code in range(0x10000)])
"""By character of the basic plane whether it divides words."""
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_NUMBER = re.compile(r"\d{1,4}")
_AFTER_NUMBER = 0.4  # a gap of so many font heights divides a line's number from its text; `rows_of` joins others again
_UNREADABLE = "\u200b"  # for a character that is none: it divides no word, and is dropped in the end
_ASKEW_DEGREES = 10  # text that is turned by more than this against the rest of its page is a stamp or a watermark
_WHITE = 250  # of 255, in red, green and blue
_PAINTED_KINDS = (
    pdfium_c.FPDF_PAGEOBJ_PATH,
    pdfium_c.FPDF_PAGEOBJ_IMAGE,
    pdfium_c.FPDF_PAGEOBJ_SHADING,
    pdfium_c.FPDF_PAGEOBJ_FORM,
)

Boxes = numpy.ndarray[Any, numpy.dtype[numpy.float32]]
"""A row for each box: left, top, right, bottom."""


def _quick(function: Any, *parameters: Any, returns: Any = ctypes.c_int) -> Any:
    """A function of PDFium that takes its handle as an address: to check its type takes longer than the call."""
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    return ctypes.PYFUNCTYPE(returns, ctypes.c_void_p, ctypes.c_int, *parameters)(address)


_get_box = _quick(pdfium_c.FPDFText_GetLooseCharBox, ctypes.c_void_p)
_get_code = _quick(pdfium_c.FPDFText_GetUnicode)
_get_angle = _quick(pdfium_c.FPDFText_GetCharAngle, returns=ctypes.c_float)
_get_colour = _quick(pdfium_c.FPDFText_GetFillColor, *[ctypes.c_void_p] * 4)
_get_object = _quick(pdfium_c.FPDFText_GetTextObject, returns=ctypes.c_void_p)
_get_mode = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(
    ctypes.cast(pdfium_c.FPDFTextObj_GetTextRenderMode, ctypes.c_void_p).value or 0
)


def read_page(pdf: Any, number: int) -> Page:
    """The page with this index. One that cannot be loaded counts as a page without text."""
    try:
        page = pdf[number]
    except pdfium.PdfiumError:
        return Page(0.0, 0.0, ())
    with contextlib.closing(page):
        handle = pdfium_c.FPDFText_LoadPage(page)
        if not handle:
            return Page(0.0, 0.0, ())
        try:
            text = _TextPage(page, handle)
            fragments = list(text.fragments())
            seen = text.seen(fragments)
        finally:
            pdfium_c.FPDFText_ClosePage(handle)
        hidden = sum(len(fragment.text) for fragment in fragments) - sum(len(fragment.text) for fragment in seen)
        for box, content in fields_of(pdf, page):
            _insert(seen, text.upright(numpy.array([box], numpy.float32))[0].tolist(), content)
    return Page(text.width, text.height, tuple(seen), hidden)


def _insert(fragments: list[Fragment], box: Box, content: str) -> None:
    """Puts what is written into a field behind what stands before it on its line, or above it."""
    left, top, right, bottom = box
    lines = content.splitlines() or [""]
    height = min((bottom - top) / len(lines), 14.0)
    begin = (top + bottom - height) / 2 if len(lines) == 1 else top
    before = [place for place, one in enumerate(fragments) if _stands_before(one, box)]
    place = before[-1] + 1 if before else 0
    fragments[place:place] = [
        Fragment(line, left, begin + number * height, right, begin + (number + 1) * height, round(height * 2) / 2)
        for number, line in enumerate(lines)
        if line.strip()
    ]


def _stands_before(one: Fragment, box: Box) -> bool:
    left, top, _, bottom = box
    middle = (one.top + one.bottom) / 2
    return middle < top or (middle < bottom and one.left < left)


class _TextPage:
    """The characters of a page in PDFium's order, that of the content stream, while `handle` is open."""

    def __init__(self, page: Any, handle: Any) -> None:
        self._page = page
        self._handle = handle
        self._address = ctypes.cast(handle, ctypes.c_void_p).value
        self._text = self._characters()
        self._turn = _direction(self._angles(range(0, len(self._text), max(1, len(self._text) // 25))))
        self._bounds = page.get_bbox()
        x0, y0, x1, y1 = self._bounds
        self.width, self.height = (x1 - x0, y1 - y0) if self._turn in (0, 180) else (y1 - y0, x1 - x0)
        self._colour = (ctypes.c_uint * 4)()
        first = ctypes.addressof(self._colour)
        self._colour_places = range(first, first + ctypes.sizeof(self._colour), ctypes.sizeof(ctypes.c_uint))

    def _characters(self) -> str:
        """One character for each of PDFium's indices."""
        count = min(pdfium_c.FPDFText_CountChars(self._handle), _CHARACTERS_PER_PAGE)
        buffer = (ctypes.c_ushort * (2 * count + 2))()
        written = pdfium_c.FPDFText_GetText(self._handle, 0, count, buffer)
        text = bytes(memoryview(buffer)[: max(0, written - 1)]).decode("utf-16-le", "replace")
        if len(text) == count:
            return text
        # Those without a code are left out of it, those of two codes count twice.
        codes = map(_get_code, repeat(self._address), range(count))
        return "".join(chr(code) if 0 < code < 0x110000 else _UNREADABLE for code in codes)

    def _angles(self, indices: Iterable[int]) -> list[float]:
        """Degrees counter-clockwise."""
        return [degrees(_get_angle(self._address, index)) for index in indices]

    def upright(self, boxes: Boxes) -> Boxes:
        """Boxes with y upwards, in the frame in which most of the page's text reads upright, y downwards."""
        x0, y0, x1, y1 = self._bounds
        left, top, right, bottom = boxes.T
        sides = {
            0: (left - x0, y1 - top, right - x0, y1 - bottom),
            90: (bottom - y0, left - x0, top - y0, right - x0),
            180: (x1 - right, bottom - y0, x1 - left, top - y0),
            270: (y1 - top, x1 - right, y1 - bottom, x1 - left),
        }[self._turn]
        return numpy.stack(sides, axis=1)

    def _boxes(self, indices: Sequence[int]) -> Boxes:
        boxes = numpy.zeros((len(indices), 4), numpy.float32)
        first = boxes.ctypes.data
        # A character without a place keeps its zeros.
        deque(map(_get_box, repeat(self._address), indices, range(first, first + boxes.nbytes, boxes.strides[0])), 0)
        return self.upright(boxes)

    def _words(self) -> tuple[Any, Any]:
        """Where each word begins, and where it ends."""
        codes = numpy.frombuffer(self._text.encode("utf-32-le", "surrogatepass"), numpy.uint32)
        inked = numpy.concatenate(([False], ~_SPACE[numpy.minimum(codes, len(_SPACE) - 1)], [False]))
        turns = numpy.flatnonzero(inked[1:] != inked[:-1])
        return turns[::2], turns[1::2]

    def _edges(self, starts: Any, ends: Any) -> Boxes:
        """The boxes of the first and the last character of each word, in turn."""
        indices = numpy.stack((starts, ends - 1), axis=1).ravel()
        fresh = numpy.append(True, indices[1:] != indices[:-1])  # a word of one character needs one
        boxes: Boxes = self._boxes(indices[fresh].tolist())[numpy.cumsum(fresh) - 1]
        return boxes

    def fragments(self) -> Iterator[Fragment]:
        """The text of each line, cut at wide gaps."""
        lines = [match.span() for match in _LINE.finditer(self._text)]
        starts, ends = self._words()
        words = list(zip(starts.tolist(), ends.tolist(), strict=True))
        if not words:
            return
        line_of = numpy.searchsorted([start for start, _ in lines], starts, side="right") - 1
        edges = self._edges(starts, ends)
        boxes = numpy.concatenate(
            (numpy.minimum(edges[::2], edges[1::2])[:, :2], numpy.maximum(edges[::2], edges[1::2])[:, 2:]), axis=1
        )
        cuts = self._cuts(words, line_of, boxes)
        sides = numpy.concatenate(
            (numpy.minimum.reduceat(boxes[:, :2], cuts), numpy.maximum.reduceat(boxes[:, 2:], cuts)), axis=1
        ).tolist()
        # Of a word with a raised figure at one end the other one counts.
        heights = numpy.maximum(*(side[:, 3] - side[:, 1] for side in (edges[::2], edges[1::2]))).tolist()
        lengths = (ends - starts).tolist()
        odd = self._odd_lines(lines, line_of, starts, ends)
        for (first, after), (left, top, right, bottom) in zip(
            pairwise([*cuts.tolist(), len(words)]), sides, strict=True
        ):
            line = int(line_of[first])
            begin, end = words[first][0], words[after - 1][1]
            if line in odd:
                if first == 0 or line_of[first - 1] != line:
                    yield from self._spelled_out(*lines[line])
                continue
            if after == len(words) or line_of[after] != line:
                end = lines[line][1]  # white space at the end tells that a word ends there
            text = self._text[begin:end]
            if end == lines[line][1] and self._text[end : end + 1] in _HYPHENS:
                text += HYPHEN
            height = heights[max(range(first, after), key=lengths.__getitem__)]
            size = round(height * 2) / 2
            yield Fragment(spelled(text), left, top, right, bottom, size, self._is_askew(begin), begin)

    def _cuts(self, words: Sequence[tuple[int, int]], line_of: Any, boxes: Boxes) -> Any:
        """The indices of the words before which a fragment begins."""
        left, top, right, bottom = boxes.T
        heights = numpy.maximum(bottom - top, 1.0)
        gaps = numpy.maximum(left[1:] - right[:-1], left[:-1] - right[1:]) / numpy.maximum(heights[1:], heights[:-1])
        begins_line = numpy.append(True, line_of[1:] != line_of[:-1])
        apart = gaps > WIDE
        for place in numpy.flatnonzero(begins_line[:-1] & (gaps > _AFTER_NUMBER)).tolist():
            apart[place] |= _NUMBER.fullmatch(self._text, *words[place]) is not None
        return numpy.flatnonzero(begins_line | numpy.append(True, apart))

    def _odd_lines(self, lines: Sequence[tuple[int, int]], line_of: Any, starts: Any, ends: Any) -> set[int]:
        """Those whose characters have to be looked at one by one: from right to left, or apart from one another."""
        all_words = numpy.bincount(line_of, minlength=len(lines))
        alone = numpy.flatnonzero(ends - starts == 1)
        letters = numpy.array([self._text[start].isalpha() for start in starts[alone].tolist()], bool)
        count = numpy.bincount(line_of[alone[letters]], minlength=len(lines))
        odd = set(numpy.flatnonzero((count > 0) & (3 * count >= all_words) & (all_words > 2)).tolist())
        if _RIGHT_TO_LEFT.search(self._text):
            odd |= {number for number, span in enumerate(lines) if _RIGHT_TO_LEFT.search(self._text, *span)}
        return odd

    def _spelled_out(self, begin: int, end: int) -> Iterator[Fragment]:
        """The fragments of a line by all of its characters."""
        boxes = self._boxes(range(begin, end)).tolist()
        line: list[Glyph] = [
            (character, *box, begin + place)
            for place, (character, box) in enumerate(zip(self._text[begin:end], boxes, strict=True))
        ]
        if self._text[end : end + 1] in _HYPHENS:
            line.append((HYPHEN, *line[-1][1:]))
        yield from fragments_of_line(respaced(line), self._is_askew(begin))

    def _is_askew(self, index: int) -> bool:
        """Whether the character is askew to most of the page."""
        angle = -degrees(_get_angle(self._address, index)) - self._turn
        return abs((angle + 180) % 360 - 180) > _ASKEW_DEGREES

    def seen(self, fragments: Iterable[Fragment]) -> list[Fragment]:
        """Those that a reader of the page sees: not beyond its edges, and neither invisible nor white on white.

        The text behind a scanned page is invisible, and is what its picture shows.
        """
        width, height = self.width, self.height
        return [
            one
            for one in fragments
            if one.right > 0 and one.bottom > 0 and one.left < width and one.top < height
            if not self._is_unpainted(one.index) or self._is_over_a_picture(one)
        ]

    def _is_unpainted(self, index: int) -> bool:
        """Whether the character is invisible, or white."""
        handle = _get_object(self._address, index)
        if handle and _get_mode(handle) == pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE:
            return True
        _get_colour(self._address, index, *self._colour_places)
        red, green, blue, alpha = self._colour
        return alpha == 0 or (red >= _WHITE and green >= _WHITE and blue >= _WHITE)

    def _is_over_a_picture(self, one: Fragment) -> bool:
        return any(
            one.left < right and left < one.right and one.top < bottom and top < one.bottom
            for left, top, right, bottom in self._painted
        )

    @cached_property
    def _painted(self) -> list[list[float]]:
        """Where something other than text is painted, in the upright frame."""
        bounds = [one.get_bounds() for one in self._page.get_objects(filter=_PAINTED_KINDS, max_depth=1)]
        boxes = numpy.array([(left, top, right, bottom) for left, bottom, right, top in bounds], numpy.float32)
        return self.upright(boxes).tolist() if bounds else []


def _direction(angles: Iterable[float]) -> int:
    """Degrees counter-clockwise, a multiple of 90, by which most of the text is turned; judged by a sample."""
    turns = Counter(-round(angle / 90) * 90 % 360 for angle in angles if angle >= 0)
    return turns.most_common(1)[0][0] if turns else 0
