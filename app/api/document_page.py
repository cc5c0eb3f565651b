"""A document as a page to read: where the links of citations lead people. Pure, and without any script."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from indexing.documents import Passage, page_at

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}
"""The words are a stranger's: whatever should slip through, it does nothing."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 45rem; margin: 2rem auto; padding: 0 1rem; }
main { white-space: pre-wrap; overflow-wrap: anywhere; }
mark { scroll-margin: 30vh; }
header p, h2 { color: #888; font-size: .9rem; font-weight: normal; }
h2 { border-top: 1px solid #8886; }
"""


class Piece(NamedTuple):
    """What a passage adds to those before it, from `start` of the document's text on; `page` where one begins."""

    start: int
    text: str
    page: int | None


def page_of(title: str, source: str, passages: Sequence[Passage], quote: tuple[int, int]) -> str:
    """The document's text with [start, end) of it marked, as the element "char=START,END"."""
    return "".join(_page(title, source, passages, quote))


def _page(title: str, source: str, passages: Sequence[Passage], quote: tuple[int, int]) -> Iterator[str]:
    yield f'<!doctype html><html><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    yield '<meta name="viewport" content="width=device-width">'
    yield f'<body dir="auto"><header><h1>{escape(title)}</h1><p>{escape(source)}</p></header><main>'
    yield from _marked(_pieces(passages), quote)
    yield "</main></body></html>"


def _pieces(passages: Iterable[Passage]) -> Iterator[Piece]:
    """Passages overlap, and leave out what is blank between them."""
    said, page = 0, None
    for passage in passages:
        for start, text, number in _by_page(passage, max(said, passage.start)):
            begins = None if number == page else number
            gap = "\n\n" if 0 < said < start and begins is None else ""
            yield Piece(start - len(gap), gap + text, begins)
            said, page = start + len(text), number


def _by_page(passage: Passage, start: int) -> Iterator[Piece]:
    """What it says from `start` of the document on, a piece for each page, without what is blank at a page's end."""
    turns = (page.start for page in passage.later_pages if page.start > start)
    for begin, end in pairwise((start, *turns, passage.end)):
        if begin < end:
            text = passage.text[begin - passage.start : end - passage.start]
            page = page_at(passage.later_pages, begin, passage.page)
            yield Piece(begin, text if end == passage.end else text.rstrip(), page)


def _marked(pieces: Iterable[Piece], quote: tuple[int, int]) -> Iterator[str]:
    named = f' id="char={quote[0]},{quote[1]}"'
    for start, text, page in pieces:
        if page is not None:
            yield f"<h2>p. {page}</h2>"
        begin, end = (min(max(place - start, 0), len(text)) for place in quote)
        yield escape(text[:begin])
        if begin < end:
            yield f"<mark{named}>{escape(text[begin:end])}</mark>"
            named = ""
        yield escape(text[max(begin, end) :])
